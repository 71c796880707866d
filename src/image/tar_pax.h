/*
 * image/tar_pax.h - extended headers of tar archives (POSIX.1-2001, pax, "Extended Header").
 *
 * The payload of a header of type 'x' (for the next entry) or 'g' (for all that follow) is a sequence of records
 * "LENGTH KEY=VALUE\n", LENGTH counting all of it. What this part knows of them goes into a struct cci_pax, whose
 * strings point into the payload; the rest is skipped. A later record of a key replaces an earlier one, and an empty
 * value takes it back. Extended attributes come as SCHILY.xattr.NAME with the value as it is (GNU tar, Go,
 * libarchive), or as LIBARCHIVE.xattr.NAME, the name percent-encoded, the value in base64; where an archive has both,
 * the first counts. Decoded ones go into the payload's place: they are shorter than their text.
 */
#ifndef CCI_IMAGE_TAR_PAX_H
#define CCI_IMAGE_TAR_PAX_H

#include "tar_sparse.h"

#define CCI_TAR_MAX_XATTRS 256u        /* of one entry */
#define CCI_TAR_MAX_XATTR_NAME 255u    /* Linux: XATTR_NAME_MAX */
#define CCI_TAR_MAX_XATTR_VALUE 65536u /* Linux: XATTR_SIZE_MAX */

struct cci_tar_xattr {
    struct cci_view name; /* "security.capability" */
    struct cci_view value;
    bool second_choice; /* came as LIBARCHIVE.xattr */
};

/* Which members of struct cci_pax are set. */
#define CCI_PAX_PATH 0x1u
#define CCI_PAX_LINK 0x2u
#define CCI_PAX_SIZE 0x4u
#define CCI_PAX_UID 0x8u
#define CCI_PAX_GID 0x10u
#define CCI_PAX_MTIME 0x20u
#define CCI_PAX_ATIME 0x40u
#define CCI_PAX_CTIME 0x80u
#define CCI_PAX_SPARSE_NAME 0x100u
#define CCI_PAX_SPARSE_SIZE 0x200u
#define CCI_PAX_SPARSE_MAJOR 0x400u
#define CCI_PAX_SPARSE_MINOR 0x800u
#define CCI_PAX_SPARSE_COUNT 0x1000u
#define CCI_PAX_SPARSE_MAP 0x2000u

struct cci_pax {
    unsigned set;
    struct cci_view path, link, sparse_name;
    uint64_t size, uid, gid, sparse_size, sparse_major, sparse_minor, sparse_count;
    struct cci_tar_time mtime, atime, ctime;
    size_t nxattrs;
    struct cci_tar_xattr xattrs[CCI_TAR_MAX_XATTRS];
};

/* What global headers said is where the local one of an entry begins. */
static void cci_pax_copy(struct cci_pax *to, const struct cci_pax *from)
{
    memcpy(to, from, offsetof(struct cci_pax, xattrs) + from->nxattrs * sizeof(from->xattrs[0]));
}

static bool cci_pax_is(struct cci_view key, const char *name)
{
    return key.n == strlen(name) && memcmp(key.p, name, key.n) == 0;
}

/* Strip a prefix from a key that has it. */
static bool cci_pax_prefix(struct cci_view *key, const char *prefix)
{
    size_t n = strlen(prefix);
    if (key->n <= n || memcmp(key->p, prefix, n) != 0)
        return false;
    (void)cci_view_take(key, n);
    return true;
}

/* Decode %XX in place. */
static bool cci_pax_percent(uint8_t *p, size_t *n)
{
    size_t to = 0;
    for (size_t i = 0; i < *n; i++, to++) {
        p[to] = p[i];
        if (p[i] != '%')
            continue;
        unsigned byte = 0;
        for (unsigned k = 1; k <= 2; k++) {
            if (i + k >= *n)
                return false;
            unsigned c = p[i + k];
            unsigned digit = c - '0' <= 9 ? c - '0' : (c | 32) - 'a' <= 5 ? (c | 32) - 'a' + 10 : 16;
            if (digit == 16)
                return false;
            byte = byte << 4 | digit;
        }
        p[to] = (uint8_t)byte;
        i += 2;
    }
    *n = to;
    return true;
}

static const char *cci_pax_xattr(struct cci_pax *x, struct cci_view name, struct cci_view value, bool second_choice)
{
    struct cci_tar_xattr *a = x->xattrs;
    struct cci_tar_xattr *end = a + x->nxattrs;
    if (name.n > CCI_TAR_MAX_XATTR_NAME || value.n > CCI_TAR_MAX_XATTR_VALUE)
        return "extended attribute too large";
    if (memchr(name.p, 0, name.n))
        return "extended attribute with NUL in its name";
    while (a < end && !(a->name.n == name.n && memcmp(a->name.p, name.p, name.n) == 0))
        a++;
    if (a < end && second_choice && !a->second_choice)
        return NULL;
    if (a == end && x->nxattrs == CCI_TAR_MAX_XATTRS)
        return "too many extended attributes";
    if (a == end)
        x->nxattrs++;
    a->name = name;
    a->value = value;
    a->second_choice = second_choice;
    return NULL;
}

/* The libarchive form. `payload` is where the record lies, to decode it there. */
static const char *cci_pax_libarchive(struct cci_pax *x, uint8_t *payload, struct cci_view name, struct cci_view value)
{
    uint8_t *name_p = payload, *value_p = payload + name.n;
    size_t name_n = name.n, value_n;
    memmove(name_p, name.p, name.n); /* the record begins with its length and the prefix, so this is to the left */
    if (!cci_pax_percent(name_p, &name_n) || !cci_tar_base64(value, value_p, &value_n))
        return "invalid encoding of an extended attribute";
    struct cci_view decoded_name = {name_p, name_n}, decoded_value = {value_p, value_n};
    return cci_pax_xattr(x, decoded_name, decoded_value, true);
}

static const char *cci_pax_string(struct cci_pax *x, unsigned bit, struct cci_view *to, struct cci_view value)
{
    x->set = value.n ? x->set | bit : x->set & ~bit;
    *to = value;
    return value.n && memchr(value.p, 0, value.n) ? "NUL in an extended header's path" : NULL;
}

static const char *cci_pax_number(struct cci_pax *x, unsigned bit, uint64_t *to, struct cci_view value)
{
    x->set = value.n ? x->set | bit : x->set & ~bit;
    return value.n && !cci_tar_decimal(value, to) ? "invalid number in an extended header" : NULL;
}

static const char *cci_pax_time(struct cci_pax *x, unsigned bit, struct cci_tar_time *to, struct cci_view value)
{
    x->set = value.n ? x->set | bit : x->set & ~bit;
    return value.n && !cci_tar_decimal_time(value, to) ? "invalid time in an extended header" : NULL;
}

/* Records of sparse files. They go into the map, if it is one of the entry's own. */
static const char *cci_pax_sparse(struct cci_pax *x, struct cci_tar_map *map, struct cci_view key,
                                  struct cci_view value)
{
    uint64_t number;
    if (cci_pax_is(key, "name"))
        return cci_pax_string(x, CCI_PAX_SPARSE_NAME, &x->sparse_name, value);
    if (cci_pax_is(key, "size") || cci_pax_is(key, "realsize"))
        return cci_pax_number(x, CCI_PAX_SPARSE_SIZE, &x->sparse_size, value);
    if (cci_pax_is(key, "major"))
        return cci_pax_number(x, CCI_PAX_SPARSE_MAJOR, &x->sparse_major, value);
    if (cci_pax_is(key, "minor"))
        return cci_pax_number(x, CCI_PAX_SPARSE_MINOR, &x->sparse_minor, value);
    if (cci_pax_is(key, "numblocks"))
        return cci_pax_number(x, CCI_PAX_SPARSE_COUNT, &x->sparse_count, value);
    if (cci_pax_is(key, "map")) {
        x->set |= CCI_PAX_SPARSE_MAP;
        cci_tar_map_clear(map);
        return cci_tar_map_list(map, value);
    }
    if (cci_pax_is(key, map->half ? "numbytes" : "offset")) {
        x->set |= CCI_PAX_SPARSE_MAP;
        return cci_tar_decimal(value, &number) ? cci_tar_map_add(map, number) : "invalid sparse file map";
    }
    return cci_pax_is(key, "offset") || cci_pax_is(key, "numbytes") ? "invalid sparse file map" : NULL;
}

static const char *cci_pax_record(struct cci_pax *x, struct cci_tar_map *map, uint8_t *record, struct cci_view key,
                                  struct cci_view value)
{
    if (cci_pax_is(key, "path"))
        return cci_pax_string(x, CCI_PAX_PATH, &x->path, value);
    if (cci_pax_is(key, "linkpath"))
        return cci_pax_string(x, CCI_PAX_LINK, &x->link, value);
    if (cci_pax_is(key, "size"))
        return cci_pax_number(x, CCI_PAX_SIZE, &x->size, value);
    if (cci_pax_is(key, "uid"))
        return cci_pax_number(x, CCI_PAX_UID, &x->uid, value);
    if (cci_pax_is(key, "gid"))
        return cci_pax_number(x, CCI_PAX_GID, &x->gid, value);
    if (cci_pax_is(key, "mtime"))
        return cci_pax_time(x, CCI_PAX_MTIME, &x->mtime, value);
    if (cci_pax_is(key, "atime"))
        return cci_pax_time(x, CCI_PAX_ATIME, &x->atime, value);
    if (cci_pax_is(key, "ctime"))
        return cci_pax_time(x, CCI_PAX_CTIME, &x->ctime, value);
    if (cci_pax_prefix(&key, "SCHILY.xattr."))
        return cci_pax_xattr(x, key, value, false);
    if (cci_pax_prefix(&key, "LIBARCHIVE.xattr."))
        return cci_pax_libarchive(x, record, key, value);
    if (map && cci_pax_prefix(&key, "GNU.sparse."))
        return cci_pax_sparse(x, map, key, value);
    return NULL;
}

/*
 * Read the n bytes of an extended header into *x, on top of what is there. `map` is the entry's, or NULL in a global
 * header, where sparse files make no sense. The payload is changed, and must stay as long as *x. NULL or what is wrong.
 */
static const char *cci_pax_read(struct cci_pax *x, struct cci_tar_map *map, uint8_t *payload, size_t n)
{
    while (n > 0) {
        const uint8_t *space = memchr(payload, ' ', n < 21 ? n : 21);
        struct cci_view length = {payload, space ? (size_t)(space - payload) : 0};
        uint64_t size;
        if (!cci_tar_decimal(length, &size) || size > n || size < length.n + 3 || payload[size - 1] != '\n')
            return "damaged extended header";
        struct cci_view key = {space + 1, (size_t)size - length.n - 2};
        const uint8_t *equals = memchr(key.p, '=', key.n);
        if (!equals || equals == key.p)
            return "damaged extended header";
        struct cci_view value = {equals + 1, (size_t)(key.p + key.n - equals - 1)};
        key.n = (size_t)(equals - key.p);
        const char *wrong = cci_pax_record(x, map, payload, key, value);
        if (wrong)
            return wrong;
        payload += size;
        n -= (size_t)size;
    }
    return NULL;
}

#endif
