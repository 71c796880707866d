/*
 * registry/url.h - http and https URLs (RFC 3986, RFC 9110 section 4.2): taken apart, compared, resolved.
 *
 * A URL comes from a person (a proxy), from our own code (a registry's) or from a server (the target of a redirect, the
 * realm of a token), so it is hostile input: bounded, and nothing gets through that could end a request line or a
 * header field early. Scheme and host are lower-cased, a missing port is filled in, the fragment is dropped, and bytes
 * beyond ASCII in the path are percent-encoded, as browsers do. Hosts beyond ASCII must come in their ASCII form.
 */
#ifndef CCI_REGISTRY_URL_H
#define CCI_REGISTRY_URL_H

#include "../base/error.h"

#define CCI_URL_MAX 16384u /* bytes of a URL; those that storage services sign run to two thousand */
#define CCI_URL_HOST_MAX 255u

struct cci_url {
    bool secure;   /* https */
    uint16_t port; /* never 0 */
    char *user;    /* what stands before the @, still percent-encoded; NULL when there is no @ */
    char *host;    /* lower case; an IPv6 address without its brackets */
    char *target;  /* path and query, beginning with a slash */
};

static void cci_url_free(struct cci_url *u)
{
    cci_mem_free(u->user);
    cci_mem_free(u->host);
    cci_mem_free(u->target);
    memset(u, 0, sizeof(*u));
}

/* ASCII only, whatever the locale. */
static char cci_url_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool cci_url_same_word(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (cci_url_lower(a[i]) != cci_url_lower(b[i]) || !a[i])
            return cci_url_lower(a[i]) == cci_url_lower(b[i]);
    return true;
}

static bool cci_url_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool cci_url_is_letter(char c)
{
    c = cci_url_lower(c);
    return c >= 'a' && c <= 'z';
}

/* The value of a hexadecimal digit, or -1. */
static int cci_url_hex(char c)
{
    if (cci_url_is_digit(c))
        return c - '0';
    c = cci_url_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- Taking apart -------------------------------------------------------------------------------------- */

/* The length of the scheme that a reference begins with (without the colon), 0 if there is none. */
static size_t cci_url_scheme(const char *s)
{
    size_t n = 0;
    if (!cci_url_is_letter(s[0]))
        return 0;
    while (cci_url_is_letter(s[n]) || cci_url_is_digit(s[n]) || s[n] == '+' || s[n] == '-' || s[n] == '.')
        n++;
    return s[n] == ':' ? n : 0;
}

static bool cci_url_is_host_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!cci_url_is_letter(s[i]) && !cci_url_is_digit(s[i]) && s[i] != '-' && s[i] != '.' && s[i] != '_')
            return false;
    return n > 0 && n <= CCI_URL_HOST_MAX && s[0] != '.';
}

/* What may stand between brackets. Whether it is an address is found out by whoever connects to it. */
static bool cci_url_is_ipv6(const char *s, size_t n)
{
    size_t colons = 0;
    for (size_t i = 0; i < n; i++) {
        colons += s[i] == ':';
        if (cci_url_hex(s[i]) < 0 && s[i] != ':' && s[i] != '.')
            return false;
    }
    return colons >= 2 && n <= 45;
}

/* A port of one to five digits; an empty one leaves *port alone. */
static bool cci_url_port(const char *s, size_t n, uint16_t *port)
{
    uint32_t v = 0;
    if (n > 5)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!cci_url_is_digit(s[i]))
            return false;
        v = v * 10 + (uint32_t)(s[i] - '0');
    }
    if (n && (v == 0 || v > 65535))
        return false;
    if (n)
        *port = (uint16_t)v;
    return true;
}

static bool cci_url_has_no_control(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] <= 0x20 || s[i] == 0x7f)
            return false;
    return true;
}

/* [user@]host[:port], n bytes. What is wrong with it, or NULL; out of memory leaves u->host NULL. */
static const char *cci_url_authority(struct cci_url *u, const char *s, size_t n)
{
    size_t at = n;
    while (at > 0 && s[at - 1] != '@')
        at--;
    if (at > 0 && !cci_url_has_no_control(s, at))
        return "there is a space or a control character before the @";
    if (at > 0 && (u->user = cci_mem_strndup(s, at - 1)) == NULL)
        return NULL;
    s += at;
    n -= at;
    bool brackets = n > 0 && s[0] == '[';
    const char *end = brackets ? memchr(s, ']', n) : memchr(s, ':', n);
    size_t host_n = end ? (size_t)(end - s) : n;
    size_t used = brackets && end ? host_n + 1 : host_n; /* the port begins after this */
    if (brackets ? !end || !cci_url_is_ipv6(s + 1, host_n - 1) : !cci_url_is_host_name(s, host_n))
        return "it names no host, or one with characters that host names cannot have";
    if (used < n && (s[used] != ':' || !cci_url_port(s + used + 1, n - used - 1, &u->port)))
        return "the port is not a number from 1 to 65535";
    u->host = brackets ? cci_mem_strndup(s + 1, host_n - 1) : cci_mem_strndup(s, host_n);
    for (char *p = u->host; p && *p; p++)
        *p = cci_url_lower(*p);
    return NULL;
}

/* Path and query up to a fragment, in the form they are sent. */
static char *cci_url_make_target(const char *s)
{
    static const char hex[] = "0123456789ABCDEF";
    struct cci_buf b = {0};
    if (*s != '/')
        (void)cci_buf_add(&b, "/", 1);
    for (; *s && *s != '#'; s++) {
        const char escaped[3] = {'%', hex[(uint8_t)*s >> 4], hex[(uint8_t)*s & 15]};
        (void)((uint8_t)*s < 0x80 ? cci_buf_add(&b, s, 1) : cci_buf_add(&b, escaped, 3));
    }
    if (cci_buf_add(&b, "", 1))
        return (char *)b.p;
    cci_buf_free(&b);
    return NULL;
}

/* An error shows a URL only up to its query, which may hold a signature or a token, and without user and password. */
static cc_error_code cci_url_fail(const char *text, const char *why, cc_error *err)
{
    const char *authority = strstr(text, "://");
    authority = authority ? authority + 3 : text;
    size_t n = strcspn(authority, "?#"), host = strcspn(authority, "/?#");
    for (size_t i = 0; i < host; i++)
        if (authority[i] == '@')
            return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "not a URL that can be used: %s", why);
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "\"%.*s%.*s\" is not a URL that can be used: %s",
                    (int)(authority - text > 16 ? 16 : authority - text), text, (int)CCI_MIN(n, 200u), authority, why);
}

/* An absolute URL. On failure *u is empty; CC_ERR_INVALID_ARGUMENT says what is wrong with it. */
static cc_error_code cci_url_parse(const char *text, struct cci_url *u, cc_error *err)
{
    memset(u, 0, sizeof(*u));
    size_t scheme = cci_url_scheme(text);
    u->secure = scheme == 5 && cci_url_same_word(text, "https", 5);
    u->port = u->secure ? 443 : 80;
    if (!u->secure && !(scheme == 4 && cci_url_same_word(text, "http", 4)))
        return cci_url_fail(text, "it begins with neither https:// nor http://", err);
    const char *s = text + scheme + 1;
    if (strlen(text) > CCI_URL_MAX)
        return cci_url_fail(text, "it is longer than 16 KiB", err);
    if (s[0] != '/' || s[1] != '/')
        return cci_url_fail(text, "it names no host", err);
    s += 2;
    size_t n = strcspn(s, "/?#");
    const char *wrong = cci_url_authority(u, s, n);
    if (!wrong && !cci_url_has_no_control(s + n, strlen(s + n)))
        wrong = "there is a space or a control character in it";
    if (!wrong && u->host)
        u->target = cci_url_make_target(s + n);
    if (u->target)
        return CC_OK;
    cci_url_free(u);
    return wrong ? cci_url_fail(text, wrong, err) : cci_fail_nomem(err);
}

/* ---- Putting together ---------------------------------------------------------------------------------- */

/* host[:port] as a Host field has it: the port only if it is not the scheme's own, unless `always`. */
static char *cci_url_host_text(const struct cci_url *u, bool always)
{
    bool brackets = strchr(u->host, ':') != NULL;
    char port[8] = "";
    if (always || u->port != (u->secure ? 443 : 80))
        (void)snprintf(port, sizeof(port), ":%u", (unsigned)u->port);
    return cci_mem_printf("%s%s%s%s", brackets ? "[" : "", u->host, brackets ? "]" : "", port);
}

/* The URL again, without user and password; NULL when there is no memory. `query` false leaves out what follows the
 * path: for messages, as it may hold a signature. */
static char *cci_url_text(const struct cci_url *u, bool query)
{
    char *host = cci_url_host_text(u, false);
    char *text = host ? cci_mem_printf("%s://%s%.*s", u->secure ? "https" : "http", host,
                                       (int)(query ? strlen(u->target) : strcspn(u->target, "?")), u->target)
                      : NULL;
    cci_mem_free(host);
    return text;
}

/* Whether a secret meant for one may be told to the other: the same scheme, host and port. */
static bool cci_url_same_origin(const struct cci_url *a, const struct cci_url *b)
{
    return a->secure == b->secure && a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Four decimal numbers with points; *out in host byte order. Stricter than resolvers: no octal, nothing left out. */
static bool cci_url_ipv4(const char *s, size_t n, uint32_t *out)
{
    uint32_t address = 0;
    size_t i = 0;
    for (int part = 0; part < 4; part++) {
        uint32_t v = 0;
        size_t from = i;
        for (; i < n && i - from < 3 && cci_url_is_digit(s[i]); i++)
            v = v * 10 + (uint32_t)(s[i] - '0');
        if (i == from || v > 255 || (s[from] == '0' && i - from > 1))
            return false;
        if (part < 3 && (i == n || s[i++] != '.'))
            return false;
        address = address << 8 | v;
    }
    *out = address;
    return i == n;
}

/* Whether a host is this machine by its name alone (RFC 6761 section 6.3, RFC 1122 section 3.2.1.3). */
static bool cci_url_is_loopback(const char *host)
{
    static const char name[] = ".localhost";
    uint32_t v4;
    size_t n = strlen(host), tail = sizeof(name) - 1;
    return strcmp(host, "localhost") == 0 || (n > tail && strcmp(host + n - tail, name) == 0) ||
           strcmp(host, "::1") == 0 || (cci_url_ipv4(host, n, &v4) && v4 >> 24 == 127);
}

/* ---- References ---------------------------------------------------------------------------------------- */

/* Takes "." and ".." out of a path of n bytes that begins with a slash (RFC 3986 section 5.2.4); appends to b. */
static void cci_url_add_path(struct cci_buf *b, const char *path, size_t n)
{
    size_t base = b->n;
    for (size_t i = 0; i < n && !b->failed;) {
        const char *slash = memchr(path + i + 1, '/', n - i - 1);
        size_t end = slash ? (size_t)(slash - path) : n;
        const char *part = path + i; /* "/" and a name */
        size_t len = end - i;
        bool here = len == 2 && part[1] == '.', up = len == 3 && part[1] == '.' && part[2] == '.';
        while (up && b->n > base && b->p[--b->n] != '/')
            continue;
        if (!here && !up)
            (void)cci_buf_add(b, part, len);
        else if (end == n)
            (void)cci_buf_add(b, "/", 1);
        i = end;
    }
}

/* What a reference means that stands in an answer from `base` (RFC 3986 section 5.2.2); not the absolute ones. */
static char *cci_url_absolute(const struct cci_url *base, const char *reference)
{
    struct cci_buf b = {0}, path = {0};
    size_t n = strcspn(reference, "?#");           /* of the reference's path */
    size_t base_path = strcspn(base->target, "?"); /* of the base's path */
    char *host = cci_url_host_text(base, true);
    (void)cci_buf_str(&b, base->secure ? "https:" : "http:");
    if (reference[0] == '/' && reference[1] == '/') {
        (void)cci_buf_str(&b, reference);
    } else {
        (void)(cci_buf_str(&b, "//") && host && cci_buf_str(&b, host));
        size_t keep = n == 0 ? base_path : 0; /* of the base's path: all, nothing, or up to its last slash */
        for (size_t i = 0; n && reference[0] != '/' && i < base_path; i++)
            keep = base->target[i] == '/' ? i + 1 : keep;
        (void)(cci_buf_add(&path, base->target, keep) && cci_buf_add(&path, reference, n));
        if (!path.failed)
            cci_url_add_path(&b, (const char *)path.p, path.n);
        (void)cci_buf_str(&b, n == 0 && reference[0] != '?' ? base->target + base_path : reference + n);
    }
    bool ok = cci_buf_add(&b, "", 1) && host && !path.failed;
    cci_mem_free(host);
    cci_buf_free(&path);
    if (ok)
        return (char *)b.p;
    cci_buf_free(&b);
    return NULL;
}

/* The URL that a reference means which `base` answered with. */
static cc_error_code cci_url_resolve(const struct cci_url *base, const char *reference, struct cci_url *out,
                                     cc_error *err)
{
    memset(out, 0, sizeof(*out));
    if (strlen(reference) > CCI_URL_MAX)
        return cci_url_fail(reference, "it is longer than 16 KiB", err);
    if (cci_url_scheme(reference))
        return cci_url_parse(reference, out, err);
    char *text = cci_url_absolute(base, reference);
    if (!text)
        return cci_fail_nomem(err);
    cc_error_code code = cci_url_parse(text, out, err);
    cci_mem_free(text);
    return code;
}

#endif
