/*
 * image/layer_writer.h - writes a layer into the store: the contents of its files to `data`, the rest to `index`.
 *
 * For each file of the layer: `cci_layer_writer_data` for its contents, in pieces of any size with rising offsets,
 * then `cci_layer_writer_add` with everything else about it. What is skipped between two pieces is a hole and takes no
 * space. At the end, publish with the diffID makes the layer visible, or drop leaves no trace.
 *
 * Contents are collected in one buffer and written a MiB at a time, so that ten thousand small files are a handful of
 * system calls; the kernel is told to begin writing each batch to the disk at once, so that the fsync at the end
 * finds little left to do. The index is written as it grows too, and its header last: memory is bounded however many
 * files there are.
 */
#ifndef CCI_IMAGE_LAYER_WRITER_H
#define CCI_IMAGE_LAYER_WRITER_H

#include "layer_index.h"
#include "store.h"

#define CCI_LAYER_BATCH ((size_t)1 << 20)
#define CCI_LAYER_INDEX_BATCH ((size_t)128 << 10)
#define CCI_LAYER_MAX_DATA ((uint64_t)256 << 30) /* bytes of `data`: many tiny files or pieces take a block each */

struct cci_layer_writer {
    struct cci_store *store;
    struct cci_store_tmp tmp;
    cci_fd data, index_fd;
    uint8_t *batch;   /* CCI_LAYER_BATCH bytes */
    size_t fill;      /* of them in use */
    uint64_t written; /* bytes of `data` before the batch */
    struct cci_index_writer index;
    uint64_t pos;           /* where in the current file the last piece ended */
    uint64_t covered;       /* blocks of the current file, from its start, that were passed */
    struct cci_buf extents; /* of the current file */
};

/* Gives up: removes what was written. Also frees a writer whose layer was published; once is enough. */
static void cci_layer_writer_drop(struct cci_layer_writer *w)
{
    cci_os_close(w->data);
    cci_os_close(w->index_fd);
    w->data = w->index_fd = CCI_NO_FD;
    cci_store_tmp_drop(&w->tmp);
    cci_mem_free(w->batch);
    w->batch = NULL;
    cci_index_writer_free(&w->index);
    cci_buf_free(&w->extents);
}

static cc_error_code cci_layer_writer_create(const char *dir, const char *name, cci_fd *fd, cc_error *err)
{
    char *path = cci_layer_file(dir, name);
    if (!path)
        return cci_fail_nomem(err);
    *fd = cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_EXCL, 0600);
    cc_error_code code = *fd < 0 ? cci_store_fail(err, *fd, path, "make a layer's file") : CC_OK;
    cci_mem_free(path);
    return code;
}

/* Begins a layer. End it with publish or drop, on success only. */
static cc_error_code cci_layer_writer_init(struct cci_layer_writer *w, struct cci_store *store, cc_error *err)
{
    memset(w, 0, sizeof(*w));
    w->store = store;
    w->data = w->index_fd = CCI_NO_FD;
    cc_error_code code = cci_store_tmp_new(store, &w->tmp, err);
    if (!code)
        code = cci_layer_writer_create(w->tmp.path, "data", &w->data, err);
    if (!code)
        code = cci_layer_writer_create(w->tmp.path, "index", &w->index_fd, err);
    w->batch = cci_mem_alloc(CCI_LAYER_BATCH);
    if (!code && !w->batch)
        code = cci_fail_nomem(err);
    if (code)
        cci_layer_writer_drop(w);
    return code;
}

static cc_error_code cci_layer_writer_flush(struct cci_layer_writer *w, cc_error *err)
{
    if (w->fill > CCI_LAYER_MAX_DATA - w->written)
        return cci_fail(err, CC_ERR_IO, NULL, "it takes more than %llu bytes in the image cache, which is the limit",
                        (unsigned long long)CCI_LAYER_MAX_DATA);
    int r = cci_os_pwrite_all(w->data, w->batch, w->fill, w->written);
    if (r < 0)
        return cci_store_fail(err, r, w->tmp.path, "write a layer's contents");
    cci_os_start_writeback(w->data, w->written, w->fill);
    w->written += w->fill;
    w->fill = 0;
    return CC_OK;
}

/* Appends to `data`; NULL appends zeroes. */
static cc_error_code cci_layer_writer_append(struct cci_layer_writer *w, const uint8_t *p, uint64_t n, cc_error *err)
{
    while (n) {
        size_t part = (size_t)CCI_MIN(n, (uint64_t)(CCI_LAYER_BATCH - w->fill));
        if (p) {
            memcpy(w->batch + w->fill, p, part);
            p += part;
        } else {
            memset(w->batch + w->fill, 0, part);
        }
        w->fill += part;
        n -= part;
        if (w->fill == CCI_LAYER_BATCH) {
            cc_error_code code = cci_layer_writer_flush(w, err);
            if (code)
                return code;
        }
    }
    return CC_OK;
}

/* Fills the last block up with zeroes. */
static cc_error_code cci_layer_writer_pad(struct cci_layer_writer *w, cc_error *err)
{
    uint64_t end = w->written + w->fill;
    return cci_layer_writer_append(w, NULL, CCI_ALIGN_UP(end, (uint64_t)CCI_INDEX_BLOCK) - end, err);
}

/*
 * Contents of the current file at `offset`, not before the end of the last piece. Within `data` a byte has the same
 * place in its block as in the file, so going on in the same block means zeroes between, and skipping blocks means
 * to begin a new extent.
 */
static cc_error_code cci_layer_writer_data(struct cci_layer_writer *w, uint64_t offset, const void *p, size_t n,
                                           cc_error *err)
{
    if (n == 0)
        return CC_OK;
    if (offset < w->pos || offset > CCI_INDEX_MAX_SIZE || n > CCI_INDEX_MAX_SIZE - offset)
        return cci_fail(err, CC_ERR_IO, NULL, "a file of the layer has overlapping pieces or is larger than 16 TiB");
    uint64_t first = offset / CCI_INDEX_BLOCK, last = (offset + n - 1) / CCI_INDEX_BLOCK;
    cc_error_code code = CC_OK;
    if (first < w->covered) {
        code = cci_layer_writer_append(w, NULL, offset - w->pos, err); /* in the last piece's block */
        first = w->covered;
    } else {
        code = cci_layer_writer_pad(w, err);
        if (!code)
            code = cci_layer_writer_append(w, NULL, offset % CCI_INDEX_BLOCK, err);
    }
    uint64_t block =
        (w->written + w->fill - offset % CCI_INDEX_BLOCK) / CCI_INDEX_BLOCK + first - offset / CCI_INDEX_BLOCK;
    if (!code)
        code = cci_layer_writer_append(w, p, n, err);
    if (!code && last >= first) {
        if (!cci_index_put_extent(&w->extents, (uint32_t)first, (uint32_t)(last - first + 1), block))
            code = cci_fail_nomem(err);
        w->covered = last + 1;
    }
    w->pos = offset + n;
    return code;
}

/* Writes what has come of the index at place `at` in it. */
static cc_error_code cci_layer_writer_put_index(struct cci_layer_writer *w, const uint8_t *p, size_t n, size_t at,
                                                cc_error *err)
{
    int r = cci_os_pwrite_all(w->index_fd, p, n, at);
    return r < 0 ? cci_store_fail(err, r, w->tmp.path, "write a layer's index") : CC_OK;
}

static cc_error_code cci_layer_writer_flush_index(struct cci_layer_writer *w, cc_error *err)
{
    struct cci_buf *out = &w->index.out;
    cc_error_code code = cci_layer_writer_put_index(w, out->p, out->n, w->index.taken, err);
    w->index.taken += out->n;
    out->n = 0;
    return code;
}

/* Ends the current file: adds its entry, with the extents of the data that came for it. */
static cc_error_code cci_layer_writer_add(struct cci_layer_writer *w, struct cci_index_entry *e, cc_error *err)
{
    cc_error_code code = cci_layer_writer_pad(w, err);
    e->extents.p = w->extents.p;
    e->extents.n = w->extents.n;
    if (!code)
        code = cci_index_add(&w->index, e, err);
    if (!code && w->index.out.n >= CCI_LAYER_INDEX_BATCH)
        code = cci_layer_writer_flush_index(w, err);
    w->extents.n = 0;
    w->pos = 0;
    w->covered = 0;
    return code;
}

/* Writes the rest, and makes all of it the layer `diff_id`. Frees the writer, also on failure. */
static cc_error_code cci_layer_writer_publish(struct cci_layer_writer *w, const struct cci_digest *diff_id,
                                              struct cci_layer *out, cc_error *err)
{
    uint8_t header[CCI_INDEX_HEADER];
    cc_error_code code = cci_layer_writer_flush(w, err);
    if (!code)
        code = cci_index_end(&w->index, w->written, header, err);
    if (!code)
        code = cci_layer_writer_flush_index(w, err);
    if (!code)
        code = cci_layer_writer_put_index(w, header, sizeof(header), 0, err);
    if (!code)
        code = cci_store_layer_publish(w->store, &w->tmp, diff_id, out, err);
    cci_layer_writer_drop(w);
    return code;
}

#endif
