/*
 * image/index_reader.h - reads a layer's index (layer_index.h) from its file, entry by entry.
 *
 * An index may have hundreds of megabytes, so it is never held whole: a window of 64 KiB goes through the file, and is
 * made larger only for an entry that is. Mapping the file would hold nothing either, but whoever cuts the file short
 * would then kill the caller's process.
 *
 * The bytes are hostile: they come from a cache that others may write to, and may change while they are read.
 */
#ifndef CCI_IMAGE_INDEX_READER_H
#define CCI_IMAGE_INDEX_READER_H

#include "../base/errno_text.h"
#include "../base/os.h"
#include "layer_index.h"

#define CCI_INDEX_WINDOW 65536u

struct cci_index_reader {
    cci_fd fd;            /* the caller's */
    uint64_t size;        /* of the file */
    uint64_t place;       /* in the file, of the next entry */
    uint64_t count;       /* entries not read yet, as the header has it */
    uint64_t data_blocks; /* size of `data` in blocks */
    uint8_t *window;
    size_t cap; /* bytes allocated for it */
    size_t at;  /* of the next entry in it */
    size_t n;   /* bytes in it */
};

static cc_error_code cci_index_bad(cc_error *err, const char *what)
{
    return cci_fail(err, CC_ERR_IO, NULL,
                    "the index of a layer in the cache is damaged (%s); remove the layer from the cache", what);
}

static cc_error_code cci_index_unreadable(cc_error *err, int64_t result)
{
    return cci_fail_errno(err, CC_ERR_IO, (int)-result, NULL, "cannot read the index of a layer in the cache: %s",
                          cci_errno_text((int)-result));
}

static void cci_index_close(struct cci_index_reader *r)
{
    cci_mem_free(r->window);
    r->window = NULL;
}

/* Sees to it that the window has `need` bytes from the reader's place on. */
static cc_error_code cci_index_fill(struct cci_index_reader *r, size_t need, cc_error *err)
{
    size_t have = r->n - r->at;
    if (have >= need)
        return CC_OK;
    if (need > r->size - r->place)
        return cci_index_bad(err, "an entry is cut short");
    if (have)
        memmove(r->window, r->window + r->at, have);
    r->at = 0;
    r->n = have;
    if (need > r->cap) {
        uint8_t *p = cci_mem_resize(r->window, need, 1);
        if (!p)
            return cci_fail_nomem(err);
        r->window = p;
        r->cap = need;
    }
    size_t want = (size_t)CCI_MIN(r->cap - have, r->size - r->place - have);
    int64_t got = cci_os_pread_all(r->fd, r->window + have, want, r->place + have);
    if (got < 0)
        return cci_index_unreadable(err, got);
    r->n += (size_t)got;
    return r->n >= need ? CC_OK : cci_index_bad(err, "it became shorter");
}

static cc_error_code cci_index_header(struct cci_index_reader *r, cc_error *err)
{
    if (r->size < CCI_INDEX_HEADER)
        return cci_index_bad(err, "no header");
    cc_error_code code = cci_index_fill(r, CCI_INDEX_HEADER, err);
    if (code)
        return code;
    const uint8_t *p = r->window;
    if (memcmp(p, CCI_INDEX_MAGIC, 8) != 0)
        return cci_index_bad(err, "no header");
    if (cci_le32(p + 8) != CCI_INDEX_VERSION)
        return cci_index_bad(err, "another version of the format");
    r->count = cci_le64(p + 16);
    r->data_blocks = cci_le64(p + 24);
    r->at = CCI_INDEX_HEADER;
    r->place = CCI_INDEX_HEADER;
    if (r->count > (r->size - CCI_INDEX_HEADER) / CCI_INDEX_FIXED || r->data_blocks > UINT64_MAX / CCI_INDEX_BLOCK)
        return cci_index_bad(err, "its header is out of range");
    return CC_OK;
}

/* Begins to read an index, whose file stays open and the caller's. After a success, cci_index_close. */
static cc_error_code cci_index_open(struct cci_index_reader *r, cci_fd fd, cc_error *err)
{
    struct cci_os_stat st;
    memset(r, 0, sizeof(*r));
    int bad = cci_os_fstat(fd, &st);
    if (bad < 0)
        return cci_index_unreadable(err, bad);
    if (st.size > CCI_INDEX_MAX_BYTES)
        return cci_index_bad(err, "it is larger than 256 MiB");
    r->fd = fd;
    r->size = st.size;
    r->cap = (size_t)CCI_MIN(st.size, CCI_INDEX_WINDOW);
    r->window = cci_mem_alloc(r->cap);
    cc_error_code code = r->window ? cci_index_header(r, err) : cci_fail_nomem(err);
    if (code)
        cci_index_close(r);
    return code;
}

/* A string of n bytes and its NUL: whether it is one. */
static bool cci_index_take_string(struct cci_view *v, uint32_t n)
{
    const uint8_t *s = cci_view_take(v, (size_t)n + 1);
    return s && memchr(s, 0, (size_t)n + 1) == s + n;
}

/* What an entry says that is all of `v`, at least CCI_INDEX_FIXED bytes; *e points into them. */
static cc_error_code cci_index_parse(struct cci_view v, uint64_t data_blocks, struct cci_index_entry *e, cc_error *err)
{
    const uint8_t *p = v.p;
    (void)cci_view_take(&v, CCI_INDEX_FIXED);
    if (!cci_index_take_string(&v, cci_le32(p + 36)) || !cci_index_take_string(&v, cci_le32(p + 40)) ||
        !cci_view_take(&v, cci_le32(p + 44)) || v.n != cci_le64(p + 56))
        return cci_index_bad(err, "the parts of an entry do not add up");
    e->type = (enum cci_index_type)p[4];
    e->mode = cci_le16(p + 6);
    e->uid = cci_le32(p + 8);
    e->gid = cci_le32(p + 12);
    e->mtime_sec = (int64_t)cci_le64(p + 16);
    e->mtime_nsec = cci_le32(p + 24);
    e->major = cci_le32(p + 28);
    e->minor = cci_le32(p + 32);
    e->size = cci_le64(p + 48);
    e->path = (const char *)p + CCI_INDEX_FIXED;
    e->target = e->path + cci_le32(p + 36) + 1;
    e->xattrs = (struct cci_view){(const uint8_t *)e->target + cci_le32(p + 40) + 1, cci_le32(p + 44)};
    e->extents = v;
    const char *wrong = cci_index_check(e, data_blocks);
    return wrong ? cci_index_bad(err, wrong) : CC_OK;
}

/* Reads the next entry, checked; what it points to is there until the next call. At the end *end is set and *e is
 * not. */
static cc_error_code cci_index_next(struct cci_index_reader *r, struct cci_index_entry *e, bool *end, cc_error *err)
{
    *end = r->count == 0;
    if (*end)
        return r->place < r->size ? cci_index_bad(err, "bytes behind the last entry") : CC_OK;
    cc_error_code code = cci_index_fill(r, CCI_INDEX_FIXED, err);
    if (code)
        return code;
    size_t length = cci_le32(r->window + r->at);
    if (length < CCI_INDEX_FIXED)
        return cci_index_bad(err, "an entry is cut short");
    code = cci_index_fill(r, length, err);
    if (!code)
        code = cci_index_parse((struct cci_view){r->window + r->at, length}, r->data_blocks, e, err);
    e->place = (uint32_t)r->place;
    r->place += length;
    r->at += length;
    r->count--;
    return code;
}

#endif
