/*
 * registry/name.h - image references as a registry takes them: [domain/]repository[:tag][@digest].
 *
 * The grammar is the distribution project's (reference package; the repository and tag rules also stand in the
 * distribution specification 1.1, "Pulling manifests"). It is checked whole, as parts of it go into URLs, and a message
 * says which part is wrong. What is left out is filled in as Docker does (image/reference.h); registry-1.docker.io is
 * where Docker Hub answers.
 */
#ifndef CCI_REGISTRY_NAME_H
#define CCI_REGISTRY_NAME_H

#include "../image/digest.h"
#include "../image/reference.h"

#define CCI_NAME_MAX_REPOSITORY 255
#define CCI_NAME_MAX_TAG 128
#define CCI_NAME_MAX_DOMAIN 255

struct cci_name {
    char full[CCI_REFERENCE_MAX + 80];    /* domain/repository:tag[@digest]; the name of the image in the store */
    char domain[CCI_NAME_MAX_DOMAIN + 1]; /* "docker.io", "host:5000" */
    char host[CCI_NAME_MAX_DOMAIN + 1];   /* where to connect: the domain, but for Docker Hub */
    char repository[CCI_NAME_MAX_REPOSITORY + 1];
    char tag[CCI_NAME_MAX_TAG + 1]; /* "" when there is a digest and no tag */
    bool has_digest;
    struct cci_digest digest;
    bool loopback; /* the host is this one: plain HTTP is allowed */
};

static bool cci_name_lower(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool cci_name_alnum(char c)
{
    return cci_name_lower(c) || (c >= 'A' && c <= 'Z');
}

/* One part of a repository: lower-case letters and digits, single '.', up to two '_', any '-' between them. */
static bool cci_name_component(const char *p, size_t n)
{
    if (n == 0 || !cci_name_lower(p[0]) || !cci_name_lower(p[n - 1]))
        return false;
    for (size_t i = 1; i < n;) {
        size_t run = 0;
        if (cci_name_lower(p[i])) {
            i++;
            continue;
        }
        while (p[i + run] == p[i])
            run++;
        if (!(p[i] == '-' || (p[i] == '_' && run <= 2) || (p[i] == '.' && run == 1)) || !cci_name_lower(p[i + run]))
            return false;
        i += run;
    }
    return true;
}

static bool cci_name_repository(const char *p, size_t n)
{
    if (n > CCI_NAME_MAX_REPOSITORY)
        return false;
    for (size_t i = 0; i <= n;) {
        const char *slash = memchr(p + i, '/', n - i);
        size_t len = slash ? (size_t)(slash - (p + i)) : n - i;
        if (!cci_name_component(p + i, len))
            return false;
        i += len + 1;
    }
    return true;
}

static bool cci_name_port(const char *p, size_t n)
{
    unsigned long port = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || i > 5)
            return false;
        port = port * 10 + (unsigned long)(p[i] - '0');
    }
    return n > 0 && port > 0 && port < 65536;
}

/* A host name, an IPv4 address or an IPv6 address in brackets; with a port or without. *host is the length before it.
 */
static bool cci_name_domain(const char *p, size_t n, size_t *host)
{
    if (n == 0 || n > CCI_NAME_MAX_DOMAIN)
        return false;
    if (p[0] == '[') {
        const char *end = memchr(p, ']', n);
        *host = end ? (size_t)(end - p) + 1 : 0;
        if (!end || strspn(p + 1, "0123456789abcdefABCDEF:.") != *host - 2 || *host < 4)
            return false;
    } else {
        const char *colon = memchr(p, ':', n);
        *host = colon ? (size_t)(colon - p) : n;
        for (size_t i = 0; i < *host; i++) {
            bool edge = i == 0 || i + 1 == *host || p[i - 1] == '.' || p[i + 1] == '.';
            if (!cci_name_alnum(p[i]) && (edge || (p[i] != '-' && p[i] != '.')))
                return false;
        }
    }
    return *host > 0 && (*host == n || (p[*host] == ':' && cci_name_port(p + *host + 1, n - *host - 1)));
}

static bool cci_name_tag(const char *p, size_t n)
{
    if (n == 0 || n > CCI_NAME_MAX_TAG || (!cci_name_alnum(p[0]) && p[0] != '_'))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!cci_name_alnum(p[i]) && p[i] != '_' && p[i] != '.' && p[i] != '-')
            return false;
    return true;
}

static cc_error_code cci_name_bad(const char *text, const char *part, const char *p, size_t n, const char *rule,
                                  cc_error *err)
{
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, text, "the image reference's %s \"%.*s\" is not valid: %s", part,
                    (int)CCI_MIN(n, 200u), p, rule);
}

static bool cci_name_is_loopback(const char *host, size_t n)
{
    return (n == 9 && memcmp(host, "localhost", 9) == 0) || (n == 5 && memcmp(host, "[::1]", 5) == 0) ||
           (n > 4 && memcmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= n);
}

/* Splits "[domain/]repository", of n bytes, and fills in what is missing. */
static cc_error_code cci_name_path(struct cci_name *out, const char *text, size_t n, cc_error *err)
{
    size_t domain = cci_reference_domain(text, n), host = 0;
    const char *repo = domain ? text + domain + 1 : text;
    size_t repo_n = n - (size_t)(repo - text);
    if (domain && !cci_name_domain(text, domain, &host))
        return cci_name_bad(text, "registry", text, domain, "it is a host name or address, with a port or without",
                            err);
    if (!cci_name_repository(repo, repo_n))
        return cci_name_bad(text, "repository", repo, repo_n,
                            "it has parts of lower-case letters and digits, with '.', '_', '__' or '-' inside of them, "
                            "separated by '/', and up to 255 characters",
                            err);
    bool hub = !domain || (domain == 9 && memcmp(text, "docker.io", 9) == 0) ||
               (domain == 15 && memcmp(text, "index.docker.io", 15) == 0);
    bool official = hub && !memchr(repo, '/', repo_n);
    if (official && repo_n + 8 > CCI_NAME_MAX_REPOSITORY)
        return cci_name_bad(text, "repository", repo, repo_n, "it is too long", err);
    out->loopback = !hub && cci_name_is_loopback(text, host);
    (void)snprintf(out->domain, sizeof(out->domain), "%.*s", hub ? 9 : (int)domain, hub ? "docker.io" : text);
    (void)snprintf(out->host, sizeof(out->host), "%s", hub ? "registry-1.docker.io" : out->domain);
    (void)snprintf(out->repository, sizeof(out->repository), "%s%.*s", official ? "library/" : "", (int)repo_n, repo);
    return CC_OK;
}

/* Parses a reference. CC_ERR_INVALID_ARGUMENT says which part of it is wrong. */
static cc_error_code cci_name_parse(struct cci_name *out, const char *text, cc_error *err)
{
    const char *at = strchr(text, '@');
    size_t n = at ? (size_t)(at - text) : strlen(text);
    memset(out, 0, sizeof(*out));
    if (!*text)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the image reference is empty");
    if (n > CCI_REFERENCE_MAX - CCI_NAME_MAX_TAG)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the image reference is too long: %zu bytes", strlen(text));
    size_t tag = n; /* where the tag's colon is: the last one, if no '/' comes behind it */
    while (tag && text[tag - 1] != ':' && text[tag - 1] != '/')
        tag--;
    size_t path = tag && text[tag - 1] == ':' ? tag - 1 : n;
    if (path < n && !cci_name_tag(text + tag, n - tag))
        return cci_name_bad(text, "tag", text + tag, n - tag,
                            "it has up to 128 letters, digits, '_', '.' and '-', and begins with none of the last two",
                            err);
    if (at && cci_digest_parse(at + 1, "the image reference", &out->digest, NULL) != CC_OK)
        return cci_name_bad(text, "digest", at + 1, strlen(at + 1), "it is \"sha256:\" and 64 lower-case hex digits",
                            err);
    cc_error_code code = cci_name_path(out, text, path, err);
    if (code)
        return code;
    out->has_digest = at != NULL;
    if (path < n)
        (void)snprintf(out->tag, sizeof(out->tag), "%.*s", (int)(n - tag), text + tag);
    else if (!at)
        (void)snprintf(out->tag, sizeof(out->tag), "latest");
    (void)snprintf(out->full, sizeof(out->full), "%s/%s%s%s%s", out->domain, out->repository, out->tag[0] ? ":" : "",
                   out->tag, at ? at : "");
    return CC_OK;
}

#endif
