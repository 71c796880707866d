/*
 * image/reference.h - image names, and whether two of them mean the same.
 *
 * A name is [domain/]repository[:tag][@digest]. What people leave out is filled in as Docker does it: the domain
 * docker.io (a first component is a domain when it has a point or a colon in it or is "localhost"), "library/" before a
 * repository there of one component, and the tag latest.
 */
#ifndef CCI_IMAGE_REFERENCE_H
#define CCI_IMAGE_REFERENCE_H

#include "../base/error.h"

#define CCI_REFERENCE_MAX 1024 /* bytes of a full name; longer ones match nothing */

/* A name with everything filled in. */
struct cci_reference {
    char name[CCI_REFERENCE_MAX]; /* domain/repository:tag; without a tag when there is a digest and no tag */
    char digest[80];              /* "sha256:...", or "" */
    bool has_domain;              /* the text named one */
};

/* The length of the domain that a name begins with, 0 if it begins with none. */
static size_t cci_reference_domain(const char *text, size_t n)
{
    const char *slash = memchr(text, '/', n);
    size_t len = slash ? (size_t)(slash - text) : 0;
    bool domain =
        len && (memchr(text, '.', len) || memchr(text, ':', len) || (len == 9 && memcmp(text, "localhost", 9) == 0));
    return domain ? len : 0;
}

/* Fills *r; false when the text is empty or too long to be a name. */
static bool cci_reference_parse(const char *text, struct cci_reference *r)
{
    const char *at = strchr(text, '@');
    size_t n = at ? (size_t)(at - text) : strlen(text);
    size_t domain = cci_reference_domain(text, n);
    const char *repo = domain ? text + domain + 1 : text;
    size_t repo_n = n - (size_t)(repo - text);
    if (repo_n == 0 || n > CCI_REFERENCE_MAX / 2 || (at && strlen(at + 1) >= sizeof(r->digest)))
        return false;
    bool hub = !domain || (domain == 9 && memcmp(text, "docker.io", 9) == 0) ||
               (domain == 15 && memcmp(text, "index.docker.io", 15) == 0);
    bool tagged = memchr(repo, ':', repo_n) != NULL;
    (void)snprintf(r->name, sizeof(r->name), "%.*s/%s%.*s%s", hub ? 9 : (int)domain, hub ? "docker.io" : text,
                   hub && !memchr(repo, '/', repo_n) ? "library/" : "", (int)repo_n, repo,
                   tagged || at ? "" : ":latest");
    (void)snprintf(r->digest, sizeof(r->digest), "%s", at ? at + 1 : "");
    r->has_domain = domain != 0;
    return true;
}

/* Whether an image that is called `name` is what somebody means who asks for `want`; digests are not compared. */
static bool cci_reference_matches(const struct cci_reference *want, const char *name)
{
    struct cci_reference have;
    if (!cci_reference_parse(name, &have))
        return false;
    if (strcmp(have.name, want->name) == 0)
        return true;
    /* podman and buildah call what they built localhost/NAME, and take NAME for it. */
    static const char hub[] = "docker.io/library/", local[] = "localhost/";
    return !want->has_domain && strncmp(want->name, hub, sizeof(hub) - 1) == 0 &&
           strncmp(have.name, local, sizeof(local) - 1) == 0 &&
           strcmp(want->name + sizeof(hub) - 1, have.name + sizeof(local) - 1) == 0;
}

#endif
