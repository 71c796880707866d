/*
 * registry/apk_index.h - the two texts of Alpine's package format, version 2 (apk-package(5), apk-v2(5)).
 *
 *     APKINDEX    what a repository has: a record for each package, one field a line, records parted by empty lines
 *
 *                     C:Q1<base64>     SHA-1 of the package's control segment, as it is in the file
 *                     P:linux-virt     name
 *                     V:6.18.55-r0     version
 *                     S:41557960       bytes of the package's file
 *
 *     .PKGINFO    what a package says of itself: "key = value" lines; datahash is the SHA-256 of its data segment
 *
 * The index is read after its signature was verified, .PKGINFO before anything was: both as hostile bytes. Values are
 * taken only in the one form that they have; a version becomes a part of a URL, so its characters are checked.
 */
#ifndef CCI_REGISTRY_APK_INDEX_H
#define CCI_REGISTRY_APK_INDEX_H

#include "../image/digest.h"
#include "base64.h"

#define CCI_APK_MAX_VERSION 100u
#define CCI_APK_MAX_PACKAGE ((uint64_t)512 << 20) /* bytes of a package's file */

/* What the index says of a package. */
struct cci_apk_entry {
    char version[CCI_APK_MAX_VERSION + 1];
    uint8_t control[20]; /* SHA-1 */
    uint64_t size;
};

/* Takes a line, without its end. False when there is none left. */
static bool cci_apk_line(struct cci_view *text, struct cci_view *line)
{
    if (text->n == 0)
        return false;
    const uint8_t *end = memchr(text->p, '\n', text->n);
    line->p = text->p;
    line->n = end ? (size_t)(end - text->p) : text->n;
    (void)cci_view_take(text, line->n + (end ? 1 : 0));
    return true;
}

static bool cci_apk_is(struct cci_view v, const char *text)
{
    return v.n == strlen(text) && memcmp(v.p, text, v.n) == 0;
}

static bool cci_apk_version(struct cci_view v, char out[CCI_APK_MAX_VERSION + 1])
{
    if (v.n == 0 || v.n > CCI_APK_MAX_VERSION)
        return false;
    for (size_t i = 0; i < v.n; i++) {
        char c = (char)v.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!plain && (i == 0 || !c || !strchr("._-+~", c)))
            return false;
    }
    memcpy(out, v.p, v.n);
    out[v.n] = '\0';
    return true;
}

/* "Q1" and the base64 of 20 bytes. */
static bool cci_apk_checksum(struct cci_view v, uint8_t out[20])
{
    uint8_t bytes[24];
    size_t n;
    if (v.n != 30 || v.p[0] != 'Q' || v.p[1] != '1' || !cci_base64_decode((const char *)v.p + 2, 28, bytes, &n) ||
        n != 20)
        return false;
    memcpy(out, bytes, 20);
    return true;
}

static bool cci_apk_size(struct cci_view v, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9' || *out > CCI_APK_MAX_PACKAGE)
            return false;
        *out = *out * 10 + (uint64_t)(v.p[i] - '0');
    }
    return *out > 0 && *out <= CCI_APK_MAX_PACKAGE;
}

/* Reads one record off the text. *named: it is the package's; *good: it says all that is needed. */
static void cci_apk_record(struct cci_view *text, const char *name, struct cci_apk_entry *e, bool *named, bool *good)
{
    struct cci_view line;
    bool version = false, checksum = false, size = false;
    *named = false;
    while (cci_apk_line(text, &line) && line.n > 0) {
        struct cci_view value = {line.p + 2, line.n - CCI_MIN(line.n, (size_t)2)};
        if (line.n < 2 || line.p[1] != ':')
            continue;
        if (line.p[0] == 'P')
            *named = cci_apk_is(value, name);
        else if (line.p[0] == 'V')
            version = cci_apk_version(value, e->version);
        else if (line.p[0] == 'C')
            checksum = cci_apk_checksum(value, e->control);
        else if (line.p[0] == 'S')
            size = cci_apk_size(value, &e->size);
    }
    *good = version && checksum && size;
}

/* Finds a package in the text of an index. */
static cc_error_code cci_apk_index_find(struct cci_view text, const char *name, struct cci_apk_entry *out,
                                        cc_error *err)
{
    bool named, good;
    while (text.n > 0) {
        cci_apk_record(&text, name, out, &named, &good);
        if (named && !good)
            return cci_fail(err, CC_ERR_NETWORK, NULL, "the mirror's index has an entry for %s that makes no sense",
                            name);
        if (named)
            return CC_OK;
    }
    return cci_fail(err, CC_ERR_NETWORK, NULL, "the mirror's index has no package %s", name);
}

/* The digest in a .PKGINFO that its data segment must have. */
static bool cci_apk_datahash(struct cci_view text, struct cci_digest *out)
{
    static const char key[] = "datahash = ";
    const size_t n = sizeof(key) - 1;
    struct cci_view line;
    while (cci_apk_line(&text, &line))
        if (line.n > n && memcmp(line.p, key, n) == 0)
            return cci_digest_from_hex((const char *)line.p + n, line.n - n, out);
    return false;
}

#endif
