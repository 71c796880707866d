/*
 * image/import.h - import of one layer into the store, in one streaming pass.
 *
 *     caller's thread   feed -> SHA-256 (compressed) -> gunzip ->+
 *     import's thread                                            +-> SHA-256 (diffID) -> tar -> data and index
 *
 * Bytes are pushed in as they come, from a file or a network, in pieces of any size; memory is bounded whatever the
 * layer's size. Nothing is visible in the store before finish has compared both digests, and a failure anywhere leaves
 * nothing behind. Feed returns an error as soon as one is known, also one of the other thread; then, as after any
 * success, abort or finish frees the import.
 *
 * A layer is plain tar or gzip; which of them is told by its first bytes, and must agree with what the manifest said.
 * A decompression bomb ends at a declared limit (by default CCI_IMPORT_MAX_TAR).
 */
#ifndef CCI_IMAGE_IMPORT_H
#define CCI_IMAGE_IMPORT_H

#include "gzip.h"
#include "layer_tar.h"
#include "manifest.h"
#include "stage.h"

#define CCI_IMPORT_MAX_TAR ((uint64_t)64 << 30) /* bytes of a layer, uncompressed */

/* What is known of a layer before it comes. */
struct cci_import_spec {
    struct cci_digest diff_id; /* of the uncompressed tar */
    bool has_digest;           /* the next two are known: they are of the bytes that are fed */
    struct cci_digest digest;
    uint64_t size;
    enum cci_media media; /* CCI_MEDIA_LAYER or _LAYER_GZIP; CCI_MEDIA_UNKNOWN takes either */
    uint64_t max_tar;     /* 0: CCI_IMPORT_MAX_TAR */
};

struct cci_import {
    struct cci_import_spec spec;
    uint64_t fed;            /* bytes */
    struct cci_sha256 outer; /* of what is fed, if it is compressed and its digest known */
    uint8_t head[6];         /* the first bytes, until they show the format */
    bool known, gzip;        /* they have; they did */
    struct cci_gunzip gunzip;
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
    im->gzip = false;
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
    return cci_stage_put(&im->stage, p, n) ? 0 : 1;
}

/* The first bytes are there (zeroes where the layer is shorter): find out the format, and start with them. */
static cc_error_code cci_import_start(struct cci_import *im, cc_error *err)
{
    const char *foreign = cci_layer_foreign(im->head);
    im->known = true;
    im->gzip = im->head[0] == 0x1f && im->head[1] == 0x8b;
    if (foreign)
        return cci_fail(err, CC_ERR_IO, NULL, "it is compressed with %s; only gzip is supported", foreign);
    if ((im->spec.media == CCI_MEDIA_LAYER && im->gzip) || (im->spec.media == CCI_MEDIA_LAYER_GZIP && !im->gzip))
        return cci_fail(err, CC_ERR_IO, NULL, "it is %s, but its media type says the opposite",
                        im->gzip ? "compressed with gzip" : "not compressed with gzip");
    if (im->gzip)
        cci_gunzip_init(&im->gunzip);
    return CC_OK;
}

/* The next bytes, their format known. */
static cc_error_code cci_import_pass(struct cci_import *im, const uint8_t *p, size_t n, cc_error *err)
{
    if (!im->gzip)
        return cci_stage_put(&im->stage, p, n) ? CC_OK : cci_stage_error(&im->stage, err);
    if (im->spec.has_digest)
        cci_sha256_update(&im->outer, p, n);
    enum cci_gunzip_status status = cci_gunzip_feed(&im->gunzip, p, n, cci_import_sink, im);
    if (status == CCI_GUNZIP_OK)
        return CC_OK;
    if (status == CCI_GUNZIP_STOPPED)
        return cci_stage_error(&im->stage, err);
    return cci_fail(err, CC_ERR_IO, NULL, "%s", cci_gunzip_strerror(&im->gunzip));
}

/* Gives up; nothing is left in the store. NULL is fine. */
static void cci_import_abort(struct cci_import *im)
{
    if (!im)
        return;
    (void)cci_stage_end(&im->stage, false, NULL);
    cci_layer_tar_drop(&im->layer);
    cci_mem_free(im);
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
    if (code || !im->gzip)
        return code;
    if (cci_gunzip_finish(&im->gunzip) != CCI_GUNZIP_OK)
        return cci_fail(err, CC_ERR_IO, NULL, "%s", cci_gunzip_strerror(&im->gunzip));
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
    if (!im->gzip && im->spec.has_digest && !cci_digest_equal(&got, &im->spec.digest))
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
    cci_mem_free(im);
    return code;
}

#endif
