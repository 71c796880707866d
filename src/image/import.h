/*
 * image/import.h - import of one layer into the store, in one streaming pass.
 *
 *     caller's thread   feed -> SHA-256 (compressed) -> unpack ->+
 *     import's thread                                            +-> SHA-256 (diffID) -> tar -> data and index
 *
 * Bytes are pushed in as they come, from a file or a network, in pieces of any size; memory is bounded whatever the
 * layer's size. Nothing is visible in the store before finish has compared both digests, and a failure anywhere leaves
 * nothing behind. Feed returns an error as soon as one is known, also one of the other thread; then, as after any
 * success, abort or finish frees the import.
 *
 * A layer is plain tar, gzip or zstd; which of them is told by its first bytes, and must agree with what the manifest
 * said. A decompression bomb ends at a declared limit (by default CCI_IMPORT_MAX_TAR); and as a few bytes of one may
 * become gigabytes, what comes out is what the caller's wait is looked at for, too.
 */
#ifndef CCI_IMAGE_IMPORT_H
#define CCI_IMAGE_IMPORT_H

#include "layer_tar.h"
#include "manifest.h"
#include "stage.h"
#include "unpack.h"

#define CCI_IMPORT_MAX_TAR ((uint64_t)64 << 30) /* bytes of a layer, uncompressed */

/* What is known of a layer before it comes. */
struct cci_import_spec {
    struct cci_digest diff_id; /* of the uncompressed tar */
    bool has_digest;           /* the next two are known: they are of the bytes that are fed */
    struct cci_digest digest;
    uint64_t size;
    enum cci_media media; /* CCI_MEDIA_LAYER, _LAYER_GZIP or _LAYER_ZSTD; CCI_MEDIA_UNKNOWN takes any of them */
    uint64_t max_tar;     /* 0: CCI_IMPORT_MAX_TAR */
    const struct cci_wait
        *wait; /* what feed and finish work under; outlives the import. NULL: for as long as it takes */
};

/* Whether layers of a media type can be imported by this program; `i` is its number in the image, from 0. */
static cc_error_code cci_import_check_media(const struct cci_descriptor *d, size_t i, const char *path, cc_error *err)
{
    if (d->media == CCI_MEDIA_LAYER_ZSTD && cci_unzstd_missing())
        return cci_fail(err, CC_ERR_IO, path, "layer %zu (%.150s) is %s", i + 1, d->media_text, cci_unzstd_missing());
    if (d->media != CCI_MEDIA_LAYER && d->media != CCI_MEDIA_LAYER_GZIP && d->media != CCI_MEDIA_LAYER_ZSTD)
        return cci_fail(err, CC_ERR_IO, path,
                        "layer %zu has the media type \"%.150s\", which is not supported: layers are read as plain tar "
                        "or compressed with gzip or zstd",
                        i + 1, d->media_text);
    return CC_OK;
}

struct cci_import {
    struct cci_import_spec spec;
    uint64_t fed;                  /* bytes */
    struct cci_sha256 outer;       /* of what is fed, if it is compressed and its digest known */
    uint8_t head[CCI_UNPACK_HEAD]; /* the first bytes, until they show the format */
    bool known;                    /* they have */
    enum cci_packing packing;
    struct cci_unpack unpack; /* unless that is CCI_PACKING_NONE */
    struct cci_stage stage;

    /* The import thread's: */
    uint64_t tar_bytes;
    struct cci_sha256 inner; /* of the uncompressed tar */
    struct cci_layer_tar layer;
};

/* The error, with the layer's digest in front. */
static cc_error_code cci_import_fail(const struct cci_import *im, cc_error *err, cc_error_code code)
{
    struct cci_digest_text text = cci_digest_spell(im->spec.has_digest ? &im->spec.digest : &im->spec.diff_id);
    char where[100];
    (void)snprintf(where, sizeof(where), "layer %s", text.text);
    return cci_fail_within(err, code, where);
}

/* On the import's thread: the next bytes of the uncompressed tar. */
static cc_error_code cci_import_consume(void *ctx, const uint8_t *p, size_t n, cc_error *err)
{
    struct cci_import *im = ctx;
    im->tar_bytes += n;
    if (im->tar_bytes > im->spec.max_tar)
        return cci_fail(err, CC_ERR_IO, NULL, "it is larger than %llu bytes when decompressed, which is the limit",
                        (unsigned long long)im->spec.max_tar);
    cci_sha256_update(&im->inner, p, n);
    return cci_layer_tar_feed(&im->layer, p, n, err);
}

/* Begins an import. Free it with finish or abort. */
static cc_error_code cci_import_begin(struct cci_store *store, const struct cci_import_spec *spec,
                                      struct cci_import **out, cc_error *err)
{
    *out = NULL;
    struct cci_import *im = cci_mem_alloc(sizeof(*im)); /* large: tables, buffers */
    if (!im)
        return cci_fail_nomem(err);
    im->spec = *spec;
    if (!im->spec.max_tar)
        im->spec.max_tar = CCI_IMPORT_MAX_TAR;
    im->fed = 0;
    memset(im->head, 0, sizeof(im->head));
    im->known = false;
    im->packing = CCI_PACKING_NONE;
    im->tar_bytes = 0;
    cci_sha256_init(&im->outer);
    cci_sha256_init(&im->inner);
    cc_error_code code = cci_layer_tar_init(&im->layer, store, err);
    if (!code) {
        code = cci_stage_start(&im->stage, cci_import_consume, im, err);
        if (code)
            cci_layer_tar_drop(&im->layer);
    }
    if (code)
        cci_mem_free(im);
    else
        *out = im;
    return code;
}

/* Where the decompressor's output goes. */
static int cci_import_sink(void *ctx, const uint8_t *p, size_t n)
{
    struct cci_import *im = ctx;
    if (im->spec.wait && cci_wait_check(im->spec.wait, NULL, "", NULL))
        return 1;
    return cci_stage_put(&im->stage, p, n) ? 0 : 1;
}

/* How a layer of this media type has to be packed. */
static enum cci_packing cci_import_expected(enum cci_media media)
{
    return media == CCI_MEDIA_LAYER_GZIP   ? CCI_PACKING_GZIP
           : media == CCI_MEDIA_LAYER_ZSTD ? CCI_PACKING_ZSTD
                                           : CCI_PACKING_NONE;
}

/* The first bytes are there (zeroes where the layer is shorter): find out the format, and start with them. */
static cc_error_code cci_import_start(struct cci_import *im, cc_error *err)
{
    enum cci_packing packing;
    im->known = true;
    cc_error_code code = cci_packing_find(im->head, &packing, err);
    if (code)
        return code;
    if (im->spec.media != CCI_MEDIA_UNKNOWN && packing != cci_import_expected(im->spec.media))
        return cci_fail(err, CC_ERR_IO, NULL, "it is %s, but its media type says %s", cci_packing_name(packing),
                        cci_packing_name(cci_import_expected(im->spec.media)));
    if (packing != CCI_PACKING_NONE)
        code = cci_unpack_init(&im->unpack, packing, err);
    if (!code)
        im->packing = packing;
    return code;
}

/* The next bytes, their format known. */
static cc_error_code cci_import_pass(struct cci_import *im, const uint8_t *p, size_t n, cc_error *err)
{
    if (im->packing == CCI_PACKING_NONE)
        return cci_stage_put(&im->stage, p, n) ? CC_OK : cci_stage_error(&im->stage, err);
    if (im->spec.has_digest)
        cci_sha256_update(&im->outer, p, n);
    enum cci_unpack_status status = cci_unpack_feed(&im->unpack, p, n, cci_import_sink, im);
    if (status == CCI_UNPACK_OK)
        return CC_OK;
    if (status == CCI_UNPACK_BAD)
        return cci_fail(err, CC_ERR_IO, NULL, "%s", cci_unpack_strerror(&im->unpack));
    cc_error_code code = cci_stage_error(&im->stage, err);
    return code ? code : cci_wait_check(im->spec.wait, NULL, "decompressing it", err);
}

/* Frees all but the stage and the layer. */
static void cci_import_free(struct cci_import *im)
{
    if (im->packing != CCI_PACKING_NONE)
        cci_unpack_free(&im->unpack);
    cci_mem_free(im);
}

/* Gives up; nothing is left in the store. NULL is fine. */
static void cci_import_abort(struct cci_import *im)
{
    if (!im)
        return;
    (void)cci_stage_end(&im->stage, false, NULL);
    cci_layer_tar_drop(&im->layer);
    cci_import_free(im);
}

static cc_error_code cci_import_bytes(struct cci_import *im, const uint8_t *p, size_t n, cc_error *err)
{
    cc_error_code code = CC_OK;
    if (im->spec.has_digest && n > im->spec.size - im->fed)
        return cci_fail(err, CC_ERR_IO, NULL, "it is larger than the %llu bytes that the manifest says",
                        (unsigned long long)im->spec.size);
    while (!im->known && n) {
        im->head[im->fed++] = *p++;
        n--;
        if (im->fed < sizeof(im->head))
            continue;
        code = cci_import_start(im, err);
        if (!code)
            code = cci_import_pass(im, im->head, sizeof(im->head), err);
    }
    im->fed += n;
    return !code && n ? cci_import_pass(im, p, n, err) : code;
}

/* Bytes of the layer, in order. After an error, only abort. */
static cc_error_code cci_import_feed(struct cci_import *im, const void *p, size_t n, cc_error *err)
{
    cc_error_code code = cci_import_bytes(im, p, n, err);
    return code ? cci_import_fail(im, err, code) : CC_OK;
}

/* All bytes are there: what the caller's thread has to check. */
static cc_error_code cci_import_check_outer(struct cci_import *im, cc_error *err)
{
    cc_error_code code = CC_OK;
    struct cci_digest got;
    if (im->spec.has_digest && im->fed != im->spec.size)
        return cci_fail(err, CC_ERR_IO, NULL, "it ends after %llu of %llu bytes", (unsigned long long)im->fed,
                        (unsigned long long)im->spec.size);
    if (!im->known) {
        code = cci_import_start(im, err);
        if (!code && im->fed)
            code = cci_import_pass(im, im->head, (size_t)im->fed, err);
    }
    if (code || im->packing == CCI_PACKING_NONE)
        return code;
    if (cci_unpack_finish(&im->unpack) != CCI_UNPACK_OK)
        return cci_fail(err, CC_ERR_IO, NULL, "%s", cci_unpack_strerror(&im->unpack));
    cci_sha256_final(&im->outer, got.bytes);
    if (im->spec.has_digest && !cci_digest_equal(&got, &im->spec.digest))
        return cci_fail(err, CC_ERR_IO, NULL, "its digest is %s: it was damaged or exchanged",
                        cci_digest_spell(&got).text);
    return CC_OK;
}

/* The import's thread is through: the uncompressed tar must be the one that the configuration names. */
static cc_error_code cci_import_check_inner(struct cci_import *im, cc_error *err)
{
    struct cci_digest got;
    cci_sha256_final(&im->inner, got.bytes);
    if (im->packing == CCI_PACKING_NONE && im->spec.has_digest && !cci_digest_equal(&got, &im->spec.digest))
        return cci_fail(err, CC_ERR_IO, NULL, "its digest is %s: it was damaged or exchanged",
                        cci_digest_spell(&got).text);
    if (!cci_digest_equal(&got, &im->spec.diff_id))
        return cci_fail(err, CC_ERR_IO, NULL, "its content has the diffID %s, but the image configuration says %s",
                        cci_digest_spell(&got).text, cci_digest_spell(&im->spec.diff_id).text);
    return CC_OK;
}

/* The layer is complete: checks it, makes it visible, and opens it. Frees the import, also on failure. */
static cc_error_code cci_import_finish(struct cci_import *im, struct cci_layer *out, cc_error *err)
{
    cc_error_code code = cci_import_check_outer(im, err);
    cc_error_code inner = cci_stage_end(&im->stage, code == CC_OK, code ? NULL : err);
    if (!code)
        code = inner;
    if (!code)
        code = cci_import_check_inner(im, err);
    if (!code)
        code = cci_layer_tar_publish(&im->layer, &im->spec.diff_id, out, err);
    if (code)
        (void)cci_import_fail(im, err, code);
    cci_layer_tar_drop(&im->layer);
    cci_import_free(im);
    return code;
}

#endif
