/*
 * image/layer_index.h - what a layer contains: the file layers/<diffID>/index.
 *
 * Importing a layer leaves two files. `data` holds the contents of its regular files, each beginning on a 4 KiB
 * boundary, in order of appearance, the last block of each filled up with zeroes; holes of sparse files are not
 * stored. `index`, defined here, says everything else: one entry for each tar entry, in the order of the archive,
 * duplicates included. rootfs.h merges a chain of indexes into one filesystem and never looks at tar again.
 *
 * Format, all integers little-endian: a header (magic, version, size of the index, count of entries, blocks in
 * `data`), then the entries, packed. An entry is 64 fixed bytes (see cci_index_put_fixed), then the path and the link
 * target, each with a NUL behind it so that a reader can point at them, then the extended attributes and the extents in
 * the encoding that struct cci_index_entry carries too:
 *
 *     attribute   u16 length of name, u16 zero, u32 length of value, name, value
 *     extent      u32 first block in the file, u32 count of blocks, u64 first block in `data`
 *
 * Attributes are sorted by name (as bytes, no two alike), so that equal sets have equal bytes; extents are sorted by
 * their place in the file and do not overlap. A path is relative to the root, without empty, "." and ".." components;
 * the root itself is "". A whiteout's path is what it removes (no ".wh." prefix); an opaque marker's is its directory.
 *
 * The writer makes the same checks as the reader (index_reader.h), so nothing is stored that cannot be read.
 */
#ifndef CCI_IMAGE_LAYER_INDEX_H
#define CCI_IMAGE_LAYER_INDEX_H

#include "../base/bytes.h"
#include "../base/error.h"

#define CCI_INDEX_BLOCK 4096u       /* bytes in a block of `data` */
#define CCI_INDEX_MAX_PATH 4095u    /* bytes in a path or link target (Linux: PATH_MAX less its NUL) */
#define CCI_INDEX_MAX_NAME 255u     /* bytes in a component, and in the name of an attribute */
#define CCI_INDEX_MAX_XATTRS 65536u /* bytes of attributes of one entry */
#define CCI_INDEX_MAX_SIZE ((uint64_t)0xffffffffu * CCI_INDEX_BLOCK) /* bytes in a file: ext4's limit, 16 TiB */
#define CCI_INDEX_MAX_BYTES ((size_t)256 << 20)                      /* of a whole index: about two million entries */

enum cci_index_type {
    CCI_INDEX_FILE = 1,
    CCI_INDEX_DIR = 2,
    CCI_INDEX_SYMLINK = 3,
    CCI_INDEX_CHAR = 4,
    CCI_INDEX_BLOCKDEV = 5,
    CCI_INDEX_FIFO = 6,
    CCI_INDEX_SOCKET = 7,
    CCI_INDEX_HARDLINK = 8, /* another name for `target` */
    CCI_INDEX_WHITEOUT = 9, /* lower layers' `path` is gone */
    CCI_INDEX_OPAQUE = 10   /* lower layers' contents of directory `path` are gone */
};

struct cci_index_entry {
    enum cci_index_type type;
    uint16_t mode; /* permission bits, 07777 */
    uint32_t uid, gid;
    int64_t mtime_sec; /* since 1970, may be negative */
    uint32_t mtime_nsec;
    uint32_t major, minor;   /* devices */
    uint64_t size;           /* regular files: bytes, holes included */
    const char *path;        /* cleaned, relative; "" is the root */
    const char *target;      /* symlinks: as in the archive; hard links: cleaned like a path; others: NULL or "" */
    struct cci_view xattrs;  /* encoded; made with cci_index_put_xattr, read with cci_index_take_xattr */
    struct cci_view extents; /* encoded; made with cci_index_put_extent, read with cci_index_take_extent */
    uint32_t place;          /* a reader's: where in the index the entry begins */
};

struct cci_index_xattr {
    const char *name; /* with its prefix, such as "security.capability"; no NUL behind it */
    size_t name_len;
    const uint8_t *value;
    size_t value_len;
};

struct cci_index_extent {
    uint32_t logical; /* block in the file */
    uint32_t count;   /* blocks */
    uint64_t block;   /* block in `data` */
};

/* ---- Attributes and extents ------------------------------------------------------------------------- */

/* Takes the next attribute off the front; false at the end, or at bytes that are none (then v->n is not 0). */
static bool cci_index_take_xattr(struct cci_view *v, struct cci_index_xattr *x)
{
    struct cci_view rest = *v;
    const uint8_t *head = cci_view_take(&rest, 8);
    if (!head || head[2] || head[3])
        return false;
    x->name_len = cci_le16(head);
    x->value_len = cci_le32(head + 4);
    x->name = (const char *)cci_view_take(&rest, x->name_len);
    if (!x->name)
        return false;
    x->value = x->value_len ? cci_view_take(&rest, x->value_len) : rest.p;
    if (x->value_len && !x->value)
        return false;
    *v = rest;
    return true;
}

/* The order of attribute names: as bytes, the shorter first. */
static int cci_index_name_order(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, CCI_MIN(a_len, b_len));
    return order ? order : a_len < b_len ? -1 : a_len > b_len;
}

/* Takes the next extent off the front; false at the end. */
static bool cci_index_take_extent(struct cci_view *v, struct cci_index_extent *x)
{
    const uint8_t *p = cci_view_take(v, 16);
    if (!p)
        return false;
    x->logical = cci_le32(p);
    x->count = cci_le32(p + 4);
    x->block = cci_le64(p + 8);
    return true;
}

/* Sets an attribute in a set under construction, replacing one of the same name. False when there is no memory. */
static bool cci_index_put_xattr(struct cci_buf *set, const char *name, size_t name_len, const void *value,
                                size_t value_len)
{
    struct cci_view v = {set->p, set->n};
    struct cci_index_xattr x;
    size_t at = 0, drop = 0;
    while (cci_index_take_xattr(&v, &x)) {
        int order = cci_index_name_order(x.name, x.name_len, name, name_len);
        if (order >= 0) {
            drop = order == 0 ? set->n - v.n - at : 0;
            break;
        }
        at = set->n - v.n;
    }
    size_t size = 8 + name_len + value_len;
    if (name_len > UINT16_MAX || value_len > UINT32_MAX || !cci_buf_reserve(set, size))
        return false;
    uint8_t *p = set->p + at;
    memmove(p + size, p + drop, set->n - at - drop);
    cci_put_le16(p, (uint16_t)name_len);
    cci_put_le16(p + 2, 0);
    cci_put_le32(p + 4, (uint32_t)value_len);
    memcpy(p + 8, name, name_len);
    if (value_len)
        memcpy(p + 8 + name_len, value, value_len);
    set->n += size - drop;
    return true;
}

/* Appends an extent to a list under construction, joining it to the last where they touch. False: no memory. */
static bool cci_index_put_extent(struct cci_buf *list, uint32_t logical, uint32_t count, uint64_t block)
{
    if (list->n >= 16) {
        uint8_t *last = list->p + list->n - 16;
        uint64_t n = cci_le32(last + 4);
        if (cci_le32(last) + n == logical && cci_le64(last + 8) + n == block && n + count <= UINT32_MAX) {
            cci_put_le32(last + 4, (uint32_t)(n + count));
            return true;
        }
    }
    uint8_t raw[16];
    cci_put_le32(raw, logical);
    cci_put_le32(raw + 4, count);
    cci_put_le64(raw + 8, block);
    return cci_buf_add(list, raw, sizeof(raw));
}

/* ---- Checks, the same for writer and reader ---------------------------------------------------------- */

/* What is wrong with a path, or NULL. The root, "", is right. */
static const char *cci_index_check_path(const char *path)
{
    size_t n = strlen(path);
    if (n > CCI_INDEX_MAX_PATH)
        return "its path is longer than 4095 bytes";
    for (size_t at = 0; n && at <= n;) {
        const char *slash = memchr(path + at, '/', n - at);
        size_t len = slash ? (size_t)(slash - path) - at : n - at;
        const char *part = path + at;
        if (len == 0 || (len == 1 && part[0] == '.') || (len == 2 && part[0] == '.' && part[1] == '.'))
            return "its path has an empty, \".\" or \"..\" component";
        if (len > CCI_INDEX_MAX_NAME)
            return "its path has a component longer than 255 bytes";
        at += len + 1;
    }
    return NULL;
}

static const char *cci_index_check_xattrs(struct cci_view v)
{
    struct cci_index_xattr x, last = {NULL, 0, NULL, 0};
    if (v.n > CCI_INDEX_MAX_XATTRS)
        return "its extended attributes are larger than 64 KiB";
    while (cci_index_take_xattr(&v, &x)) {
        if (x.name_len == 0 || x.name_len > CCI_INDEX_MAX_NAME || memchr(x.name, 0, x.name_len))
            return "the name of an extended attribute is empty, longer than 255 bytes or has a NUL in it";
        if (last.name && cci_index_name_order(last.name, last.name_len, x.name, x.name_len) >= 0)
            return "its extended attributes are not sorted";
        last = x;
    }
    return v.n ? "its extended attributes are malformed" : NULL;
}

static const char *cci_index_check_extents(struct cci_view v, uint64_t size, uint64_t data_blocks)
{
    struct cci_index_extent x;
    uint64_t blocks = (size + CCI_INDEX_BLOCK - 1) / CCI_INDEX_BLOCK, next = 0;
    while (cci_index_take_extent(&v, &x)) {
        if (x.count == 0 || x.logical < next || x.logical + (uint64_t)x.count > blocks)
            return "its extents overlap or lie behind its end";
        if (x.count > data_blocks || x.block > data_blocks - x.count)
            return "its contents lie behind the end of the layer's data";
        next = x.logical + (uint64_t)x.count;
    }
    return v.n ? "its extents are malformed" : NULL;
}

/* What is wrong with an entry, or NULL. Strings are not NULL. */
static const char *cci_index_check(const struct cci_index_entry *e, uint64_t data_blocks)
{
    bool link = e->type == CCI_INDEX_SYMLINK || e->type == CCI_INDEX_HARDLINK;
    const char *wrong = cci_index_check_path(e->path);
    if (!wrong && e->type == CCI_INDEX_HARDLINK)
        wrong = e->target[0] ? cci_index_check_path(e->target) : "it is a hard link to the root directory";
    if (wrong)
        return wrong;
    if ((int)e->type < CCI_INDEX_FILE || e->type > CCI_INDEX_OPAQUE)
        return "its type is unknown";
    if (!e->path[0] && e->type != CCI_INDEX_DIR && e->type != CCI_INDEX_OPAQUE)
        return "the root is not a directory";
    if (e->mode > 07777 || e->mtime_nsec > 999999999)
        return "its mode or time is out of range";
    if (link != (e->target[0] != '\0') || strlen(e->target) > CCI_INDEX_MAX_PATH)
        return "its link target is empty or longer than 4095 bytes";
    if (e->type != CCI_INDEX_FILE && (e->size || e->extents.n))
        return "it has contents and is not a regular file";
    if (e->size > CCI_INDEX_MAX_SIZE)
        return "it is larger than 16 TiB";
    wrong = cci_index_check_xattrs(e->xattrs);
    return wrong ? wrong : cci_index_check_extents(e->extents, e->size, data_blocks);
}

/* ---- Writer ------------------------------------------------------------------------------------------ */

#define CCI_INDEX_HEADER 32u
#define CCI_INDEX_FIXED 64u
#define CCI_INDEX_MAGIC "CCLAYER\n"
#define CCI_INDEX_VERSION 1u

/* Zero it to begin. An index may be taken in parts as it grows, so that a layer of any number of files needs little
 * memory: whoever does that sets out.n to 0 and counts the bytes in `taken`, and at the end writes a header over the
 * first ones. */
struct cci_index_writer {
    struct cci_buf out;   /* the index so far, less what was taken */
    size_t taken;         /* bytes */
    uint64_t count;       /* entries */
    uint64_t data_blocks; /* the end of the last extent in `data` */
};

static void cci_index_writer_free(struct cci_index_writer *w)
{
    cci_buf_free(&w->out);
}

static void cci_index_put_fixed(uint8_t *p, const struct cci_index_entry *e, size_t length, size_t path, size_t target)
{
    cci_put_le32(p, (uint32_t)length);
    p[4] = (uint8_t)e->type;
    p[5] = 0;
    cci_put_le16(p + 6, e->mode);
    cci_put_le32(p + 8, e->uid);
    cci_put_le32(p + 12, e->gid);
    cci_put_le64(p + 16, (uint64_t)e->mtime_sec);
    cci_put_le32(p + 24, e->mtime_nsec);
    cci_put_le32(p + 28, e->major);
    cci_put_le32(p + 32, e->minor);
    cci_put_le32(p + 36, (uint32_t)path);
    cci_put_le32(p + 40, (uint32_t)target);
    cci_put_le32(p + 44, (uint32_t)e->xattrs.n);
    cci_put_le64(p + 48, e->size);
    cci_put_le64(p + 56, e->extents.n);
}

/* Adds one entry. Fails with CC_ERR_IO and the reason when the entry is one that no filesystem could hold. */
static cc_error_code cci_index_add(struct cci_index_writer *w, const struct cci_index_entry *entry, cc_error *err)
{
    struct cci_index_entry e = *entry;
    e.target = e.target ? e.target : "";
    const char *wrong = cci_index_check(&e, UINT64_MAX);
    if (wrong)
        return cci_fail(err, CC_ERR_IO, e.path, "cannot take a file of the layer, %s: \"%.200s\"", wrong, e.path);
    size_t path = strlen(e.path), target = strlen(e.target);
    size_t length = CCI_INDEX_FIXED + path + 1 + target + 1 + e.xattrs.n + e.extents.n;
    size_t used = CCI_MAX(w->taken + w->out.n, CCI_INDEX_HEADER); /* at most the limit */
    if (e.extents.n > CCI_INDEX_MAX_BYTES || length > CCI_INDEX_MAX_BYTES - used)
        return cci_fail(err, CC_ERR_IO, e.path, "the layer has too many files: their index is larger than 256 MiB");
    if (w->count == 0)
        (void)cci_buf_add(&w->out, NULL, CCI_INDEX_HEADER);
    uint8_t *fixed = cci_buf_reserve(&w->out, length);
    if (!fixed)
        return cci_fail_nomem(err);
    cci_index_put_fixed(fixed, &e, length, path, target);
    w->out.n += CCI_INDEX_FIXED;
    (void)cci_buf_add(&w->out, e.path, path + 1);
    (void)cci_buf_add(&w->out, e.target, target + 1);
    if (e.xattrs.n)
        (void)cci_buf_add(&w->out, e.xattrs.p, e.xattrs.n);
    if (e.extents.n)
        (void)cci_buf_add(&w->out, e.extents.p, e.extents.n);
    struct cci_index_extent x;
    for (struct cci_view v = e.extents; cci_index_take_extent(&v, &x);)
        w->data_blocks = CCI_MAX(w->data_blocks, x.block + x.count);
    w->count++;
    return CC_OK;
}

/* Completes the index: what it says in front. `data_size` is the size of `data`, a multiple of 4 KiB. */
static cc_error_code cci_index_end(struct cci_index_writer *w, uint64_t data_size, uint8_t header[CCI_INDEX_HEADER],
                                   cc_error *err)
{
    if (w->count == 0)
        (void)cci_buf_add(&w->out, NULL, CCI_INDEX_HEADER);
    if (w->out.failed)
        return cci_fail_nomem(err);
    if (data_size % CCI_INDEX_BLOCK || data_size / CCI_INDEX_BLOCK < w->data_blocks)
        return cci_fail(err, CC_ERR_UNKNOWN, NULL, "the layer's data and index do not fit together");
    memcpy(header, CCI_INDEX_MAGIC, 8);
    cci_put_le32(header + 8, CCI_INDEX_VERSION);
    cci_put_le32(header + 12, (uint32_t)(w->taken + w->out.n));
    cci_put_le64(header + 16, w->count);
    cci_put_le64(header + 24, data_size / CCI_INDEX_BLOCK);
    return CC_OK;
}

#endif
