/*
 * registry/apk.h - Alpine's packages and indexes, format version 2 (apk-v2(5)), verified on the way.
 *
 *     APKINDEX.tar.gz   gzip member: a tar segment with ".SIGN.RSA.<key>"     a signature of all bytes behind it
 *                       the rest:    a tar with "APKINDEX"                    see apk_index.h
 *
 *     NAME-VERSION.apk  gzip member: a tar segment with signatures            not needed: the index has
 *                       gzip member: a tar segment with ".PKGINFO"            ... the SHA-1 of this member, and it has
 *                       the rest:    a tar with the package's files           ... the SHA-256 of these bytes
 *
 * A tar segment is a tar without the blocks of zeros at its end. So one signature, of the index, stands for every byte
 * that is used. An index is in memory and is unpacked after it was verified. A package is streamed: its files go to the
 * caller as they come, and count for nothing until finish succeeds.
 */
#ifndef CCI_REGISTRY_APK_H
#define CCI_REGISTRY_APK_H

#include "../image/gunzip_buf.h"
#include "../image/tar.h"
#include "apk_index.h"
#include "apk_key.h"

#define CCI_APK_MAX_SIGNATURES ((size_t)64 << 10) /* bytes of that member, unpacked */
#define CCI_APK_MAX_TRIED 8u                      /* signatures looked at: each costs a digest of the whole index */
#define CCI_APK_MAX_CONTROL ((size_t)4 << 20)
#define CCI_APK_MAX_INFO ((size_t)256 << 10)     /* of .PKGINFO */
#define CCI_APK_MAX_INDEX ((size_t)64 << 20)     /* of APKINDEX */
#define CCI_APK_MAX_UNPACKED ((uint64_t)2 << 30) /* of the package's files, as a tar */

/* ---- One gzip member, one file of a tar ------------------------------------------------------------------------- */

/* Unpacks up to the end of a member: *used says how much of the input that was, *ended whether the end was seen. */
static enum cci_gunzip_status cci_apk_member(struct cci_gunzip *z, const uint8_t *p, size_t n, size_t *used,
                                             bool *ended, cci_inflate_sink *sink, void *ctx)
{
    *used = 0;
    *ended = false;
    while (*used < n && z->status == CCI_GUNZIP_OK && !*ended) {
        *used += cci_gunzip_step(z, p + *used, n - *used, sink, ctx);
        *ended = z->status == CCI_GUNZIP_OK && z->member && z->state == CCI_GUNZIP_FIXED && z->have == 0;
    }
    return z->status;
}

/* What is collected of a tar: the file of that name, or all whose names begin so, each into an emptied buffer. */
struct cci_apk_pick {
    const char *wanted;
    bool prefix; /* it is how names begin */
    size_t max;
    struct cci_tar tar;
    struct cci_buf data;
    char name[256]; /* of the present file */
    bool taking, found;
    void (*done)(void *ctx, struct cci_apk_pick *pick); /* a file is complete; or NULL */
    void *ctx;
};

static cc_error_code cci_apk_pick_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    struct cci_apk_pick *pick = ctx;
    size_t n = strlen(pick->wanted);
    pick->taking = e->type == CCI_TAR_FILE && !e->sparse && e->path.n < sizeof(pick->name) &&
                   (pick->prefix ? e->path.n >= n : e->path.n == n) && memcmp(e->path.p, pick->wanted, n) == 0;
    if (!pick->taking)
        return CC_OK;
    if (e->size > pick->max)
        return cci_fail(err, CC_ERR_NETWORK, NULL, "%s is larger than makes sense", pick->wanted);
    memcpy(pick->name, e->path.p, e->path.n);
    pick->name[e->path.n] = '\0';
    pick->data.n = 0;
    return CC_OK;
}

static cc_error_code cci_apk_pick_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    struct cci_apk_pick *pick = ctx;
    (void)offset;
    return !pick->taking || cci_buf_add(&pick->data, p, n) ? CC_OK : cci_fail_nomem(err);
}

static cc_error_code cci_apk_pick_end(void *ctx, cc_error *err)
{
    struct cci_apk_pick *pick = ctx;
    (void)err;
    if (pick->taking) {
        pick->found = true;
        if (pick->done)
            pick->done(pick->ctx, pick);
    }
    pick->taking = false;
    return CC_OK;
}

static void cci_apk_pick_init(struct cci_apk_pick *pick, const char *wanted, size_t max)
{
    static const struct cci_tar_ops ops = {cci_apk_pick_entry, cci_apk_pick_data, cci_apk_pick_end};
    memset(pick, 0, sizeof(*pick));
    pick->wanted = wanted;
    pick->max = max;
    cci_tar_init(&pick->tar, &ops, pick);
}

static void cci_apk_pick_free(struct cci_apk_pick *pick)
{
    cci_tar_free(&pick->tar);
    cci_buf_free(&pick->data);
}

/* ---- The index -------------------------------------------------------------------------------------------------- */

struct cci_apk_signed {
    const struct cci_apk_keys *keys;
    struct cci_view data;
    unsigned tried; /* signatures */
    bool verified;
};

static void cci_apk_signature(void *ctx, struct cci_apk_pick *pick)
{
    struct cci_apk_signed *s = ctx;
    const struct cci_view signature = {pick->data.p, pick->data.n};
    bool sha1 = strncmp(pick->name, ".SIGN.RSA.", 10) == 0, sha256 = strncmp(pick->name, ".SIGN.RSA256.", 13) == 0;
    if (s->verified || s->tried == CCI_APK_MAX_TRIED || (!sha1 && !sha256))
        return;
    s->tried++;
    s->verified = cci_apk_keys_verify(s->keys, sha1 ? CCI_APK_SHA1 : CCI_APK_SHA256, s->data, signature);
}

/* Unpacks the first member, at most `max` bytes, to `out`, and takes it off `file`. */
static cc_error_code cci_apk_first(struct cci_view *file, size_t max, struct cci_buf *out, cc_error *err)
{
    struct cci_gunzip_buf b = {out, max};
    struct cci_gunzip *z = cci_mem_alloc(sizeof(*z));
    size_t used;
    bool ended;
    if (!z)
        return cci_fail_nomem(err);
    cci_gunzip_init(z);
    enum cci_gunzip_status status = cci_apk_member(z, file->p, file->n, &used, &ended, cci_gunzip_buf_sink, &b);
    cc_error_code code = CC_OK;
    if (out->failed)
        code = cci_fail_nomem(err);
    else if (status == CCI_GUNZIP_STOPPED)
        code = cci_fail(err, CC_ERR_NETWORK, NULL, "the mirror's index has more signatures than makes sense");
    else if (status != CCI_GUNZIP_OK || !ended)
        code = cci_fail(err, CC_ERR_NETWORK, NULL, "the mirror's index is damaged: %s",
                        status != CCI_GUNZIP_OK ? cci_gunzip_strerror(z) : "it ends within its signature");
    (void)cci_view_take(file, used);
    cci_mem_free(z);
    return code;
}

/* Verifies an index file by its signatures; *file is then what they are of. */
static cc_error_code cci_apk_index_verify(struct cci_view *file, const struct cci_apk_keys *keys, cc_error *err)
{
    struct cci_buf segment = {NULL, 0, 0, false};
    struct cci_apk_signed s = {keys, {NULL, 0}, 0, false};
    struct cci_apk_pick *pick = cci_mem_alloc(sizeof(*pick));
    if (!pick)
        return cci_fail_nomem(err);
    cci_apk_pick_init(pick, ".SIGN.", CCI_APK_MAX_SIGNATURES);
    pick->prefix = true;
    pick->done = cci_apk_signature;
    pick->ctx = &s;
    cc_error_code code = cci_apk_first(file, CCI_APK_MAX_SIGNATURES, &segment, err);
    s.data = *file;
    if (!code)
        code = cci_tar_feed(&pick->tar, segment.p, segment.n, err);
    if (!code && !pick->found)
        code = cci_fail(err, CC_ERR_NETWORK, NULL, "the mirror's index has no signature");
    else if (!code && !s.verified)
        code = cci_fail(err, CC_ERR_NETWORK, NULL,
                        "the signature of the mirror's index is wrong, or by a key that is not believed: the index was "
                        "changed, or the mirror is not Alpine's and needs its key in $CC_KERNEL_KEY");
    cci_apk_pick_free(pick);
    cci_mem_free(pick);
    cci_buf_free(&segment);
    return code;
}

/* Reads an index file: what it says of a package, if it is signed by one of the keys. */
static cc_error_code cci_apk_index_read(struct cci_view file, const struct cci_apk_keys *keys, const char *name,
                                        struct cci_apk_entry *out, cc_error *err)
{
    struct cci_buf tar = {NULL, 0, 0, false};
    struct cci_apk_pick *pick = cci_mem_alloc(sizeof(*pick));
    if (!pick)
        return cci_fail_nomem(err);
    cci_apk_pick_init(pick, "APKINDEX", CCI_APK_MAX_INDEX);
    cc_error_code code = cci_apk_index_verify(&file, keys, err);
    if (!code)
        code = cci_gunzip_buf(file, CCI_APK_MAX_INDEX + ((size_t)1 << 20), &tar, err);
    if (!code)
        code = cci_tar_feed(&pick->tar, tar.p, tar.n, err);
    if (!code)
        code = cci_tar_finish(&pick->tar, err);
    if (!code)
        code = cci_apk_index_find((struct cci_view){pick->data.p, pick->data.n}, name, out, err);
    cci_apk_pick_free(pick);
    cci_mem_free(pick);
    cci_buf_free(&tar);
    return code;
}

/* ---- A package -------------------------------------------------------------------------------------------------- */

enum cci_apk_stage { CCI_APK_SIGNATURES, CCI_APK_CONTROL, CCI_APK_DATA };

struct cci_apk {
    uint8_t control[20]; /* what the control member's SHA-1 must be */
    enum cci_apk_stage stage;
    uint64_t unpacked; /* bytes of this stage */
    struct cci_gunzip z;
    br_sha1_context sha1;     /* of the control member */
    struct cci_apk_pick info; /* .PKGINFO */
    struct cci_sha256 sha256; /* of the data */
    struct cci_digest datahash;
    struct cci_tar tar; /* of the package's files */
    cc_error_code code; /* during feed: why the sink stopped */
    cc_error *err;
};

/* Files go to `ops`, with `ctx`. The struct is large: not for the stack. */
static void cci_apk_init(struct cci_apk *a, const struct cci_apk_entry *entry, const struct cci_tar_ops *ops, void *ctx)
{
    memset(a, 0, sizeof(*a));
    memcpy(a->control, entry->control, sizeof(a->control));
    cci_gunzip_init(&a->z);
    br_sha1_init(&a->sha1);
    cci_sha256_init(&a->sha256);
    cci_apk_pick_init(&a->info, ".PKGINFO", CCI_APK_MAX_INFO);
    cci_tar_init(&a->tar, ops, ctx);
}

static void cci_apk_free(struct cci_apk *a)
{
    cci_apk_pick_free(&a->info);
    cci_tar_free(&a->tar);
}

static int cci_apk_sink(void *ctx, const uint8_t *p, size_t n)
{
    static const uint64_t max[] = {CCI_APK_MAX_SIGNATURES, CCI_APK_MAX_CONTROL, CCI_APK_MAX_UNPACKED};
    struct cci_apk *a = ctx;
    a->unpacked += n;
    if (a->unpacked > max[a->stage])
        a->code = cci_fail(a->err, CC_ERR_NETWORK, NULL, "the package unpacks to more than makes sense");
    else if (a->stage == CCI_APK_CONTROL)
        a->code = cci_tar_feed(&a->info.tar, p, n, a->err);
    else if (a->stage == CCI_APK_DATA)
        a->code = cci_tar_feed(&a->tar, p, n, a->err);
    return a->code != CC_OK;
}

/* The control member is complete: it must be the index's, and says what the data must be. */
static cc_error_code cci_apk_end_control(struct cci_apk *a, cc_error *err)
{
    uint8_t digest[20];
    br_sha1_out(&a->sha1, digest);
    if (memcmp(digest, a->control, sizeof(digest)) != 0)
        return cci_fail(err, CC_ERR_NETWORK, NULL,
                        "the package is not the one that the mirror's index names (wrong checksum of its control "
                        "segment)");
    if (!a->info.found || !cci_apk_datahash((struct cci_view){a->info.data.p, a->info.data.n}, &a->datahash))
        return cci_fail(err, CC_ERR_NETWORK, NULL, "the package does not say what its data must be (no datahash)");
    return CC_OK;
}

static cc_error_code cci_apk_gunzip_code(struct cci_apk *a, enum cci_gunzip_status status, cc_error *err)
{
    if (status == CCI_GUNZIP_OK)
        return CC_OK;
    if (a->code)
        return a->code;
    return cci_fail(err, CC_ERR_NETWORK, NULL, "the package is damaged: %s", cci_gunzip_strerror(&a->z));
}

/* The next piece of the package's file. */
static cc_error_code cci_apk_feed(struct cci_apk *a, const uint8_t *p, size_t n, cc_error *err)
{
    cc_error_code code = CC_OK;
    a->err = err;
    while (n > 0 && !code && a->stage != CCI_APK_DATA) {
        size_t used;
        bool ended;
        code = cci_apk_gunzip_code(a, cci_apk_member(&a->z, p, n, &used, &ended, cci_apk_sink, a), err);
        if (code)
            return code;
        if (a->stage == CCI_APK_CONTROL)
            br_sha1_update(&a->sha1, p, used);
        p += used;
        n -= used;
        if (!ended)
            continue;
        if (a->stage == CCI_APK_CONTROL)
            code = cci_apk_end_control(a, err);
        a->stage = a->stage == CCI_APK_CONTROL ? CCI_APK_DATA : CCI_APK_CONTROL;
        a->unpacked = 0;
        cci_gunzip_init(&a->z);
    }
    if (code || n == 0)
        return code;
    cci_sha256_update(&a->sha256, p, n);
    return cci_apk_gunzip_code(a, cci_gunzip_feed(&a->z, p, n, cci_apk_sink, a), err);
}

/* The file ends here. Only when this succeeds are the files the package's. */
static cc_error_code cci_apk_finish(struct cci_apk *a, cc_error *err)
{
    struct cci_digest digest;
    if (a->stage != CCI_APK_DATA)
        return cci_fail(err, CC_ERR_NETWORK, NULL, "the package ends before its data");
    cci_sha256_final(&a->sha256, digest.bytes);
    if (!cci_digest_equal(&digest, &a->datahash))
        return cci_fail(err, CC_ERR_NETWORK, NULL, "the package's data are damaged (wrong digest)");
    cc_error_code code = cci_apk_gunzip_code(a, cci_gunzip_finish(&a->z), err);
    return code ? code : cci_tar_finish(&a->tar, err);
}

#endif
