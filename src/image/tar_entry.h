/*
 * image/tar_entry.h - the entries of a tar archive, each put together from its headers: the middle of tar.h.
 *
 * A header block may be preceded by entries that only say more about the next one: extended headers 'x', and GNU's 'L'
 * (path) and 'K' (link target); their payloads are collected, a bounded number of bytes, until the header that they
 * belong to. A global header 'g' holds for all that follow. cci_tar_header_block is told of every header block that is
 * complete, cci_tar_end_payload of every payload; they say, by the reader's state, what is to be read next. When
 * everything is known about an entry the caller's functions get it.
 */
#ifndef CCI_IMAGE_TAR_ENTRY_H
#define CCI_IMAGE_TAR_ENTRY_H

#include "../base/error.h"
#include "tar_header.h"

#define CCI_TAR_MAX_EXTENDED (1u << 20) /* bytes in one extended header */
#define CCI_TAR_MAX_GLOBAL (1u << 16)   /* bytes in all global ones together */
#define CCI_TAR_MAX_PATH 65535u         /* bytes in a path or link target */

/* What is done with an archive. Each may stop the reading with an error, which feed returns. */
struct cci_tar_ops {
    cc_error_code (*entry)(void *ctx, const struct cci_tar_entry *entry, cc_error *err);
    /* Bytes of the present file, in order; between two calls the offset may jump over holes. */
    cc_error_code (*data)(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err);
    cc_error_code (*entry_end)(void *ctx, cc_error *err);
};

enum cci_tar_state {
    CCI_TAR_HEADER,    /* a header block, or the first block of zeros */
    CCI_TAR_ZEROS,     /* the second */
    CCI_TAR_PAYLOAD,   /* of an extended header, 'L' or 'K' */
    CCI_TAR_MAP_BLOCK, /* more regions of a sparse file */
    CCI_TAR_MAP_LINES, /* the map of a sparse file before its data */
    CCI_TAR_DATA,
    CCI_TAR_SKIP, /* bytes that mean nothing, up to the next block */
    CCI_TAR_END,
};

struct cci_tar {
    const struct cci_tar_ops *ops;
    void *ctx;
    enum cci_tar_state state;
    cc_error_code failed;    /* the error that ended the reading */
    uint64_t offset;         /* bytes of the archive read so far */
    uint8_t block[512];      /* the last header; it may not be all there yet */
    size_t have;             /* bytes of an unfinished block */
    uint8_t more[512];       /* the same for a block that is not a header */
    uint64_t left;           /* bytes left of the payload, data or what is skipped */
    uint64_t behind;         /* bytes to skip behind them, up to the next header */
    char flag;               /* type flag of the last header */
    bool extended;           /* something was said about the next entry */
    bool has_path, has_link; /* 'L' and 'K' were there */
    uint64_t region_done;    /* bytes of regions[region], or of a file that is not sparse, that were passed on */
    size_t region;
    struct cci_buf local;     /* payload of 'x' */
    struct cci_buf global;    /* payloads of all 'g' */
    size_t global_read;       /* how much of them is in pax_global */
    struct cci_buf long_path; /* of 'L' */
    struct cci_buf long_link; /* of 'K' */
    struct cci_tar_map map;   /* of a sparse file */
    struct cci_tar_entry entry;
    uint8_t room[256];  /* for a path in two parts */
    struct cci_pax pax; /* about the next entry */
    struct cci_pax pax_global;
};

static void cci_tar_init(struct cci_tar *t, const struct cci_tar_ops *ops, void *ctx)
{
    memset(t, 0, sizeof(*t));
    t->ops = ops;
    t->ctx = ctx;
}

static void cci_tar_free(struct cci_tar *t)
{
    cci_buf_free(&t->local);
    cci_buf_free(&t->global);
    cci_buf_free(&t->long_path);
    cci_buf_free(&t->long_link);
    cci_tar_map_free(&t->map);
}

/* What is wrong, and with which entry if one is being read. */
static cc_error_code cci_tar_fail(struct cci_tar *t, cc_error *err, const char *wrong)
{
    size_t n = t->entry.path.n < 256 ? t->entry.path.n : 256; /* enough to find it */
    char *path = n > 0 ? cci_mem_strndup((const char *)t->entry.path.p, n) : NULL;
    cc_error_code code =
        cci_fail(err, CC_ERR_IO, path, "%s in the tar archive, before byte %llu", wrong, (unsigned long long)t->offset);
    cci_mem_free(path);
    return code;
}

/* Skip n bytes; then comes a header. */
static void cci_tar_skip(struct cci_tar *t, uint64_t n)
{
    t->left = n;
    t->state = n > 0 ? CCI_TAR_SKIP : CCI_TAR_HEADER;
}

/* What was said about one entry does not hold for the next. */
static void cci_tar_forget(struct cci_tar *t)
{
    t->extended = false;
    t->has_path = false;
    t->has_link = false;
    cci_pax_copy(&t->pax, &t->pax_global);
    cci_tar_map_clear(&t->map);
}

/* ---- Payloads ---- */

static struct cci_buf *cci_tar_payload(struct cci_tar *t)
{
    return t->flag == 'g' ? &t->global : t->flag == 'L' ? &t->long_path : t->flag == 'K' ? &t->long_link : &t->local;
}

/* The payload is complete: read it. */
static cc_error_code cci_tar_end_payload(struct cci_tar *t, cc_error *err)
{
    const char *wrong = NULL;
    if (t->flag == 'L') {
        t->has_path = true;
    } else if (t->flag == 'K') {
        t->has_link = true;
    } else if (t->flag == 'g') {
        wrong = cci_pax_read(&t->pax_global, NULL, t->global.p + t->global_read, t->global.n - t->global_read);
        t->global_read = t->global.n;
        if (!t->extended)
            cci_pax_copy(&t->pax, &t->pax_global);
    } else {
        cci_pax_copy(&t->pax, &t->pax_global); /* a second 'x' replaces the first */
        cci_tar_map_clear(&t->map);
        wrong = cci_pax_read(&t->pax, &t->map, t->local.p, t->local.n);
    }
    cci_tar_skip(t, t->behind);
    return wrong ? cci_tar_fail(t, err, wrong) : CC_OK;
}

/* Begin to collect the payload of a header that says something about others. */
static cc_error_code cci_tar_begin_payload(struct cci_tar *t, uint64_t size, cc_error *err)
{
    struct cci_buf *b = cci_tar_payload(t);
    size_t most = t->flag == 'g'   ? CCI_TAR_MAX_GLOBAL - b->n
                  : b == &t->local ? CCI_TAR_MAX_EXTENDED
                                   : CCI_TAR_MAX_PATH + 1;
    if (size > most)
        return cci_tar_fail(t, err, "extended header too large");
    /* Room for all of it now, because what was read points into it. */
    if (t->flag != 'g')
        b->n = 0;
    if ((t->flag != 'g' || !b->p) && !cci_buf_reserve(b, t->flag == 'g' ? CCI_TAR_MAX_GLOBAL : (size_t)size + 1))
        return cci_fail_nomem(err);
    t->extended |= t->flag != 'g';
    t->left = size;
    t->state = CCI_TAR_PAYLOAD;
    return size > 0 ? CC_OK : cci_tar_end_payload(t, err);
}

/* ---- Entries ---- */

static cc_error_code cci_tar_end_entry(struct cci_tar *t, cc_error *err)
{
    cci_tar_skip(t, t->behind);
    cci_tar_forget(t);
    return t->ops->entry_end(t->ctx, err);
}

/* Everything is known about the entry. */
static cc_error_code cci_tar_begin_entry(struct cci_tar *t, cc_error *err)
{
    struct cci_tar_entry *e = &t->entry;
    if (e->path.n == 0)
        return cci_tar_fail(t, err, "entry without a path");
    if (e->path.n > CCI_TAR_MAX_PATH || e->link.n > CCI_TAR_MAX_PATH)
        return cci_tar_fail(t, err, "path too long");
    if (e->link.n == 0 && (e->type == CCI_TAR_SYMLINK || e->type == CCI_TAR_HARDLINK))
        return cci_tar_fail(t, err, "link without a target");
    if (e->sparse && !cci_tar_map_valid(&t->map, e->size, e->stored))
        return cci_tar_fail(t, err, "invalid sparse file map");
    e->regions = e->sparse ? t->map.regions : NULL;
    e->nregions = e->sparse ? t->map.n : 0;
    t->region = 0;
    t->region_done = 0;
    t->left = e->stored;
    t->state = CCI_TAR_DATA;
    cc_error_code code = t->ops->entry(t->ctx, e, err);
    return code == CC_OK && t->left == 0 ? cci_tar_end_entry(t, err) : code;
}

/* Whether the entry is a sparse file that extended headers describe, and of which kind. */
static const char *cci_tar_pax_sparse(struct cci_tar *t)
{
    const struct cci_pax *x = &t->pax;
    uint64_t major = x->set & CCI_PAX_SPARSE_MAJOR ? x->sparse_major : 0;
    uint64_t minor = x->set & CCI_PAX_SPARSE_MINOR ? x->sparse_minor : 0;
    if (!(x->set & (CCI_PAX_SPARSE_MAJOR | CCI_PAX_SPARSE_MINOR | CCI_PAX_SPARSE_MAP)))
        return NULL;
    if (major > 1 || minor > 1 - major)
        return "unknown version of a sparse file";
    if (major == 0 && (x->set & CCI_PAX_SPARSE_COUNT) && x->sparse_count != t->map.n)
        return "invalid sparse file map";
    if (x->set & CCI_PAX_SPARSE_NAME)
        t->entry.path = x->sparse_name;
    if (x->set & CCI_PAX_SPARSE_SIZE)
        t->entry.size = x->sparse_size;
    t->entry.sparse = true;
    if (major == 1) {
        cci_tar_map_clear(&t->map);
        t->left = t->entry.stored;
        t->state = CCI_TAR_MAP_LINES;
    }
    return NULL;
}

/* The same for one that its header block describes. */
static const char *cci_tar_gnu_sparse(struct cci_tar *t)
{
    int64_t size;
    if (cci_tar_magic(t->block) != CCI_TAR_GNU)
        return "sparse file in a foreign format";
    if (!cci_tar_number(t->block + 483, 12, &size) || size < 0)
        return "invalid size";
    t->entry.size = (uint64_t)size;
    t->entry.sparse = true;
    cci_tar_map_clear(&t->map);
    if (t->block[482] != 0)
        t->state = CCI_TAR_MAP_BLOCK;
    return cci_tar_map_block(&t->map, t->block + 386, 4);
}

/* The header of an entry that stands for a file. */
static cc_error_code cci_tar_file_header(struct cci_tar *t, uint64_t size, cc_error *err)
{
    struct cci_tar_entry *e = &t->entry;
    const char *wrong = cci_tar_header(e, t->block, &t->pax, size, t->room);
    if (t->has_path)
        e->path = cci_tar_string(t->long_path.p, t->long_path.n);
    if (t->has_link)
        e->link = cci_tar_string(t->long_link.p, t->long_link.n);
    if (t->flag == 0 && e->path.n > 0 && e->path.p[e->path.n - 1] == '/') {
        e->type = CCI_TAR_DIR; /* Version 7 had no flag for directories */
        e->size = 0;
        e->stored = 0;
    }
    if (!wrong && e->type == CCI_TAR_FILE)
        wrong = t->flag == 'S' ? cci_tar_gnu_sparse(t) : cci_tar_pax_sparse(t);
    if (wrong)
        return cci_tar_fail(t, err, wrong);
    if (e->type != CCI_TAR_FILE) /* no data follow, whatever the size says; but GNU's directories with a listing */
        t->behind = t->flag == 'D' ? size + t->behind : 0;
    return t->state == CCI_TAR_HEADER ? cci_tar_begin_entry(t, err) : CC_OK;
}

/* A header block is complete. */
static cc_error_code cci_tar_header_block(struct cci_tar *t, cc_error *err)
{
    static const uint8_t zeros[512];
    int64_t field;
    memset(&t->entry, 0, sizeof(t->entry));
    if (memcmp(t->block, zeros, 512) == 0) {
        if (t->extended)
            return cci_tar_fail(t, err, "extended header without an entry");
        t->state = CCI_TAR_ZEROS;
        return CC_OK;
    }
    if (!cci_tar_checksum(t->block))
        return cci_tar_fail(t, err, "header with a wrong checksum");
    if (!cci_tar_number(t->block + 124, 12, &field) || field < 0)
        return cci_tar_fail(t, err, "invalid size");
    uint64_t size = (uint64_t)field;
    t->flag = (char)t->block[156];
    t->behind = -size & 511;
    if (memchr("xgLK", t->flag, 4))
        return cci_tar_begin_payload(t, size, err);
    if (memchr("VMN", t->flag, 3)) { /* GNU: volume label, rest of a file from another volume, renamings */
        cci_tar_forget(t);
        cci_tar_skip(t, size + t->behind);
        return CC_OK;
    }
    if (t->pax.set & CCI_PAX_SIZE) {
        size = t->pax.size;
        t->behind = -size & 511;
    }
    if (!cci_tar_header_type(t->flag, &t->entry.type)) {
        char wrong[64];
        (void)snprintf(wrong, sizeof(wrong), "unknown type of entry (flag 0x%02x)", (unsigned)t->block[156]);
        t->entry.path = cci_tar_string(t->block, 100);
        return cci_tar_fail(t, err, wrong);
    }
    return cci_tar_file_header(t, size, err);
}

#endif
