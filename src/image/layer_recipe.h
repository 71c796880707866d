/*
 * image/layer_recipe.h - what a layer's tar looked like: the file layers/<diffID>/tar.
 *
 * A layer is named by the digest of its tar, and tools write tars in many ways, so none can be made again from the
 * files alone. The recipe is what is left of the tar when the contents of its files are taken out, which are in `data`
 * already: headers, padding, what follows the end. With both, an export gives the same tar, bit for bit, under the same
 * diffID, whatever tool wrote it; a few hundred bytes for each file.
 *
 * Format: a magic line, the size of the tar (u64, little-endian), then records: a byte that says which, and numbers in
 * LEB128 (seven bits a byte, the lowest first, the eighth says that more come).
 *
 *     0 n, n bytes     these bytes
 *     1 n              zeroes
 *     2 at n           n bytes of `data` from `at` on
 *
 * The reader takes the bytes for hostile, as others may write to the cache: it gives no more than the size in the
 * header, which is bounded, and the caller compares what came with the diffID.
 */
#ifndef CCI_IMAGE_LAYER_RECIPE_H
#define CCI_IMAGE_LAYER_RECIPE_H

#include "store.h"

#define CCI_RECIPE_MAGIC "CCTAR 1\n"
#define CCI_RECIPE_HEADER 16u
#define CCI_RECIPE_BATCH ((size_t)256 << 10) /* written at once; also the reader's buffer */
#define CCI_RECIPE_MIN_ZEROES 8u             /* a shorter run is not worth a record */

enum cci_recipe_kind { CCI_RECIPE_BYTES, CCI_RECIPE_ZEROES, CCI_RECIPE_DATA };

/* ---- Writer ------------------------------------------------------------------------------------------ */

struct cci_recipe_writer {
    cci_fd fd;
    struct cci_buf out; /* not written yet */
    uint64_t written;   /* bytes before them */
    uint64_t total;     /* bytes of the tar so far */
    uint64_t zeroes;    /* of them at the end, not in a record yet */
    uint64_t at, n;     /* or a piece of `data`, not in a record yet */
};

static void cci_recipe_number(uint8_t **p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *(*p)++ = (uint8_t)(v | 0x80);
    *(*p)++ = (uint8_t)v;
}

static void cci_recipe_drop(struct cci_recipe_writer *w)
{
    cci_os_close(w->fd);
    w->fd = CCI_NO_FD;
    cci_buf_free(&w->out);
}

/* Begins the recipe of a layer in the directory `dir`. End it with finish or drop, on success only. */
static cc_error_code cci_recipe_init(struct cci_recipe_writer *w, const char *dir, cc_error *err)
{
    memset(w, 0, sizeof(*w));
    char *path = cci_layer_file(dir, "tar");
    w->fd = path ? cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_EXCL, 0600) : -ENOMEM;
    cc_error_code code = w->fd < 0 ? cci_store_fail(err, w->fd, path, "make a layer's file") : CC_OK;
    cci_mem_free(path);
    if (!code && !cci_buf_add(&w->out, NULL, CCI_RECIPE_HEADER))
        code = cci_fail_nomem(err);
    if (code)
        cci_recipe_drop(w);
    return code;
}

static cc_error_code cci_recipe_flush(struct cci_recipe_writer *w, cc_error *err)
{
    if (w->out.failed)
        return cci_fail_nomem(err);
    int r = cci_os_pwrite_all(w->fd, w->out.p, w->out.n, w->written);
    if (r < 0)
        return cci_store_fail(err, r, NULL, "write what a layer's tar looked like");
    w->written += w->out.n;
    w->out.n = 0;
    return CC_OK;
}

/* Puts what is pending into a record. */
static cc_error_code cci_recipe_settle(struct cci_recipe_writer *w, cc_error *err)
{
    uint8_t head[24], *p = head;
    if (!w->zeroes && !w->n)
        return CC_OK;
    *p++ = w->n ? CCI_RECIPE_DATA : CCI_RECIPE_ZEROES;
    if (w->n)
        cci_recipe_number(&p, w->at);
    cci_recipe_number(&p, w->n ? w->n : w->zeroes);
    w->n = w->zeroes = 0;
    if (!cci_buf_add(&w->out, head, (size_t)(p - head)))
        return cci_fail_nomem(err);
    return w->out.n < CCI_RECIPE_BATCH ? CC_OK : cci_recipe_flush(w, err);
}

static cc_error_code cci_recipe_literal(struct cci_recipe_writer *w, const uint8_t *bytes, size_t n, cc_error *err)
{
    uint8_t head[16], *p = head;
    cc_error_code code = cci_recipe_settle(w, err);
    *p++ = CCI_RECIPE_BYTES;
    cci_recipe_number(&p, n);
    if (!code && (!cci_buf_add(&w->out, head, (size_t)(p - head)) || !cci_buf_add(&w->out, bytes, n)))
        code = cci_fail_nomem(err);
    return code || w->out.n < CCI_RECIPE_BATCH ? code : cci_recipe_flush(w, err);
}

/* How many of n bytes are zeroes, from the first on. */
static size_t cci_recipe_run(const uint8_t *p, size_t n)
{
    size_t run = 0;
    while (run < n && p[run] == 0)
        run++;
    return run;
}

/* Bytes of the tar that are no contents. */
static cc_error_code cci_recipe_bytes(struct cci_recipe_writer *w, const uint8_t *p, size_t n, cc_error *err)
{
    cc_error_code code = CC_OK;
    w->total += n;
    while (n && !code) {
        size_t run = cci_recipe_run(p, n), len = 0;
        if (run && (run >= CCI_RECIPE_MIN_ZEROES || run == n || w->zeroes)) {
            if (w->n)
                code = cci_recipe_settle(w, err);
            w->zeroes += run;
            p += run;
            n -= run;
            continue;
        }
        for (len = run; len < n; len += run + !run) { /* up to the next run that is long enough */
            run = cci_recipe_run(p + len, CCI_MIN(n - len, (size_t)CCI_RECIPE_MIN_ZEROES));
            if (run == CCI_RECIPE_MIN_ZEROES)
                break;
        }
        len = CCI_MIN(len, n);
        code = cci_recipe_literal(w, p, len, err);
        p += len;
        n -= len;
    }
    return code;
}

/* Bytes of the tar that are in `data`, from `at` on. */
static cc_error_code cci_recipe_data(struct cci_recipe_writer *w, uint64_t at, uint64_t n, cc_error *err)
{
    cc_error_code code = CC_OK;
    w->total += n;
    if (!w->n || w->at + w->n != at) {
        code = cci_recipe_settle(w, err);
        w->at = at;
    }
    w->n += n;
    return code;
}

/* The tar is complete: writes the rest, durably. Frees the writer, also on failure. */
static cc_error_code cci_recipe_finish(struct cci_recipe_writer *w, cc_error *err)
{
    uint8_t head[CCI_RECIPE_HEADER];
    memcpy(head, CCI_RECIPE_MAGIC, 8);
    cci_put_le64(head + 8, w->total);
    cc_error_code code = cci_recipe_settle(w, err);
    if (!code)
        code = cci_recipe_flush(w, err);
    if (!code) {
        int r = cci_os_pwrite_all(w->fd, head, sizeof(head), 0);
        if (r == 0)
            r = cci_os_fsync(w->fd);
        if (r < 0)
            code = cci_store_fail(err, r, NULL, "write what a layer's tar looked like");
    }
    cci_recipe_drop(w);
    return code;
}

/* ---- Reader ------------------------------------------------------------------------------------------ */

/* Takes the next bytes of the tar. */
typedef cc_error_code cci_recipe_sink(void *ctx, const uint8_t *p, size_t n, cc_error *err);

struct cci_recipe_reader {
    cci_fd recipe, data;
    uint64_t total;      /* bytes of the tar, as the header says */
    uint64_t left;       /* of them not given yet */
    uint64_t next;       /* where in the recipe the buffer goes on */
    size_t have, taken;  /* bytes in the buffer; of them read */
    uint8_t *buf, *copy; /* CCI_RECIPE_BATCH bytes each: of the recipe, and on their way to the sink */
};

static cc_error_code cci_recipe_bad(cc_error *err, const char *what)
{
    return cci_fail(err, CC_ERR_IO, NULL,
                    "what the cache holds of a layer's tar is damaged (%s); remove the layer from the cache", what);
}

static void cci_recipe_close(struct cci_recipe_reader *r)
{
    cci_os_close(r->recipe);
    cci_os_close(r->data);
    cci_mem_free(r->buf);
    cci_mem_free(r->copy);
}

/* Reads the header of a recipe: how large the tar is. */
static cc_error_code cci_recipe_size(cci_fd fd, uint64_t *total, cc_error *err)
{
    uint8_t head[CCI_RECIPE_HEADER];
    int64_t n = cci_os_pread_all(fd, head, sizeof(head), 0);
    if (n < 0)
        return cci_store_fail(err, (int)n, NULL, "read what a layer's tar looked like");
    if (n != (int64_t)sizeof(head) || memcmp(head, CCI_RECIPE_MAGIC, 8) != 0)
        return cci_recipe_bad(err, "no header");
    *total = cci_le64(head + 8);
    return CC_OK;
}

/* Opens a layer's file; `layer_path` is its directory. */
static cc_error_code cci_recipe_open_file(const char *layer_path, const char *name, cci_fd *fd, cc_error *err)
{
    char *path = cci_layer_file(layer_path, name);
    *fd = path ? cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK, 0) : -ENOMEM;
    cc_error_code code = CC_OK;
    if (*fd == -ENOENT)
        code = cci_fail(err, CC_ERR_IO, path,
                        "the cache does not know what a layer's tar looked like: an older version "
                        "stored it; remove the layer from the cache and load the image again");
    else if (*fd < 0)
        code = cci_store_fail(err, *fd, path, "open a layer");
    cci_mem_free(path);
    return code;
}

/* Opens the recipe of a layer whose tar has at most `max` bytes. End it with cci_recipe_close, on success only. */
static cc_error_code cci_recipe_open(struct cci_recipe_reader *r, const char *layer_path, uint64_t max, cc_error *err)
{
    memset(r, 0, sizeof(*r));
    r->data = CCI_NO_FD;
    r->next = CCI_RECIPE_HEADER;
    cc_error_code code = cci_recipe_open_file(layer_path, "tar", &r->recipe, err);
    if (!code)
        code = cci_recipe_open_file(layer_path, "data", &r->data, err);
    if (!code)
        code = cci_recipe_size(r->recipe, &r->total, err);
    if (!code && r->total > max)
        code = cci_recipe_bad(err, "its size is out of range");
    r->left = r->total;
    r->buf = cci_mem_alloc(CCI_RECIPE_BATCH);
    r->copy = cci_mem_alloc(CCI_RECIPE_BATCH);
    if (!code && (!r->buf || !r->copy))
        code = cci_fail_nomem(err);
    if (code)
        cci_recipe_close(r);
    return code;
}

/* Makes at least one byte of the recipe available, or none at its end. */
static cc_error_code cci_recipe_fill(struct cci_recipe_reader *r, cc_error *err)
{
    if (r->taken < r->have)
        return CC_OK;
    int64_t n = cci_os_pread_all(r->recipe, r->buf, CCI_RECIPE_BATCH, r->next);
    if (n < 0)
        return cci_store_fail(err, (int)n, NULL, "read what a layer's tar looked like");
    r->next += (uint64_t)n;
    r->have = (size_t)n;
    r->taken = 0;
    return CC_OK;
}

static cc_error_code cci_recipe_take_number(struct cci_recipe_reader *r, uint64_t *out, cc_error *err)
{
    *out = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
        cc_error_code code = cci_recipe_fill(r, err);
        if (code)
            return code;
        if (r->taken == r->have)
            return cci_recipe_bad(err, "it is cut short");
        uint8_t c = r->buf[r->taken++];
        *out |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80)
            return CC_OK;
    }
    return cci_recipe_bad(err, "a number is out of range");
}

/* Fills r->copy with the next piece of a record, of at most n bytes; *got says how many. */
static cc_error_code cci_recipe_piece(struct cci_recipe_reader *r, unsigned kind, uint64_t at, uint64_t n, size_t *got,
                                      cc_error *err)
{
    cc_error_code code = CC_OK;
    *got = (size_t)CCI_MIN(n, (uint64_t)CCI_RECIPE_BATCH);
    if (kind == CCI_RECIPE_ZEROES) {
        memset(r->copy, 0, *got);
    } else if (kind == CCI_RECIPE_BYTES) {
        code = cci_recipe_fill(r, err);
        *got = CCI_MIN(*got, r->have - r->taken);
        memcpy(r->copy, r->buf + r->taken, *got);
        r->taken += *got;
        if (!code && *got == 0)
            code = cci_recipe_bad(err, "it is cut short");
    } else {
        int64_t read = cci_os_pread_all(r->data, r->copy, *got, at);
        if (read < 0)
            code = cci_store_fail(err, (int)read, NULL, "read the data of a layer");
        else if (read != (int64_t)*got)
            code = cci_recipe_bad(err, "it names data that is not there");
    }
    return code;
}

static cc_error_code cci_recipe_record(struct cci_recipe_reader *r, cci_recipe_sink *sink, void *ctx, cc_error *err)
{
    unsigned kind = r->buf[r->taken++];
    uint64_t at = 0, n = 0;
    cc_error_code code = kind > CCI_RECIPE_DATA ? cci_recipe_bad(err, "an unknown record") : CC_OK;
    if (!code && kind == CCI_RECIPE_DATA)
        code = cci_recipe_take_number(r, &at, err);
    if (!code)
        code = cci_recipe_take_number(r, &n, err);
    if (!code && n > r->left)
        code = cci_recipe_bad(err, "it gives more than the tar's size");
    r->left -= code ? 0 : n;
    while (n && !code) {
        size_t got;
        code = cci_recipe_piece(r, kind, at, n, &got, err);
        if (!code)
            code = sink(ctx, r->copy, got, err);
        at += got;
        n -= got;
    }
    return code;
}

/* Gives the whole tar to the sink, in pieces. */
static cc_error_code cci_recipe_replay(struct cci_recipe_reader *r, cci_recipe_sink *sink, void *ctx, cc_error *err)
{
    for (;;) {
        cc_error_code code = cci_recipe_fill(r, err);
        if (code)
            return code;
        if (r->taken == r->have)
            return r->left ? cci_recipe_bad(err, "it is cut short") : CC_OK;
        code = cci_recipe_record(r, sink, ctx, err);
        if (code)
            return code;
    }
}

#endif
