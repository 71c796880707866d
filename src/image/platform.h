/*
 * image/platform.h - which machine an image is for: operating system, architecture, variant (image specification 1.1,
 * "Image Index", platform). Names are Go's (GOOS, GOARCH); the common other spellings of an architecture are taken
 * for them, and the variant that every processor of an architecture has is the same as none.
 */
#ifndef CCI_IMAGE_PLATFORM_H
#define CCI_IMAGE_PLATFORM_H

#include "../base/error.h"

/* Names longer than fit are no platform that exists, and are cut. */
struct cci_platform {
    char os[24];      /* "linux"; "" when not known */
    char arch[24];    /* "amd64", "arm64" */
    char variant[24]; /* "v7"; "" is the usual one */
};

/* A platform spelt out, "linux/arm/v7". */
struct cci_platform_text {
    char text[80];
};

/* `arch` may carry a variant behind a slash. NULL or "" leaves a part unknown. */
static struct cci_platform cci_platform_make(const char *os, const char *arch, const char *variant)
{
    static const char *const alias[][2] = {
        {"x86_64", "amd64"}, {"x86-64", "amd64"}, {"aarch64", "arm64"}, {"i386", "386"}, {"i686", "386"}};
    struct cci_platform p;
    (void)snprintf(p.os, sizeof(p.os), "%s", os ? os : "");
    (void)snprintf(p.arch, sizeof(p.arch), "%s", arch ? arch : "");
    char *slash = strchr(p.arch, '/');
    (void)snprintf(p.variant, sizeof(p.variant), "%s", variant && *variant ? variant : slash ? slash + 1 : "");
    if (slash)
        *slash = '\0';
    for (size_t i = 0; i < CCI_COUNT(alias); i++)
        if (strcmp(p.arch, alias[i][0]) == 0)
            (void)snprintf(p.arch, sizeof(p.arch), "%s", alias[i][1]);
    bool usual = (strcmp(p.arch, "arm64") == 0 && strcmp(p.variant, "v8") == 0) ||
                 (strcmp(p.arch, "arm") == 0 && strcmp(p.variant, "v7") == 0) ||
                 (strcmp(p.arch, "amd64") == 0 && strcmp(p.variant, "v1") == 0);
    if (usual)
        p.variant[0] = '\0';
    return p;
}

/* The architecture of this host, and so of its guests. */
#if defined(__aarch64__) || defined(_M_ARM64)
#define CCI_PLATFORM_ARCH "arm64"
#else
#define CCI_PLATFORM_ARCH "amd64"
#endif

/* What guests on this host are. */
static struct cci_platform cci_platform_host(void)
{
    return cci_platform_make("linux", CCI_PLATFORM_ARCH, NULL);
}

static struct cci_platform_text cci_platform_spell(const struct cci_platform *p)
{
    struct cci_platform_text t;
    (void)snprintf(t.text, sizeof(t.text), "%s/%s%s%s", p->os[0] ? p->os : "unknown", p->arch[0] ? p->arch : "unknown",
                   p->variant[0] ? "/" : "", p->variant);
    return t;
}

/*
 * How well an image for `have` serves somebody who wants `want`: 0 not at all, 2 exactly, 1 in another variant, which
 * somebody takes who asked for none in particular, or when the image says nothing.
 */
static int cci_platform_fit(const struct cci_platform *have, const struct cci_platform *want)
{
    if (!have->os[0] && !have->arch[0])
        return 1;
    if (strcmp(have->os, want->os) != 0 || strcmp(have->arch, want->arch) != 0)
        return 0;
    if (strcmp(have->variant, want->variant) == 0)
        return 2;
    return want->variant[0] ? 0 : 1;
}

#endif
