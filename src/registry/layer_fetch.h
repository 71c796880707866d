/*
 * registry/layer_fetch.h - one layer from a registry: into blobs/ and through the import at the same time.
 *
 *     connection -> partial/<hex> (as it comes, for a later resume)
 *                -> import (both digests, decompression, tar, data and index)
 *
 * A connection that breaks is taken up again by a range request where it stopped, with the import kept alive. When the
 * pull itself ends early, partial/<hex> stays; the next pull, of any process, feeds it to its import and asks for the
 * rest. When both digests are right, the file becomes blobs/sha256/<hex>: what an export repeats digest for digest.
 *
 * partial/<hex> is locked (flock, exclusively) by whoever fetches it. Another pull of the same layer waits, and finds
 * the layer in the store when it gets the lock: the work is shared. As flock cannot be waited for together with a
 * cancel token, the lock is tried every 50 ms, in a wait that the token ends at once.
 */
#ifndef CCI_REGISTRY_LAYER_FETCH_H
#define CCI_REGISTRY_LAYER_FETCH_H

#include "../image/blob.h"
#include "../image/import.h"
#include "client.h"
#include "progress.h"

#define CCI_FETCH_CHUNK ((size_t)128 << 10)
#define CCI_FETCH_RESUMES 8u /* broken connections in a row that brought nothing new */
#define CCI_FETCH_WRITEBACK ((uint64_t)4 << 20)

struct cci_fetch {
    struct cci_registry_client *registry;
    struct cci_store *store;
    struct cci_progress *progress;
    size_t index; /* among the blobs of the pull */
    const struct cci_import_spec *spec;
    char *path;  /* partial/<hex> */
    cci_fd fd;   /* it, locked */
    uint64_t at; /* bytes of the blob that are in it, and in the import */
    struct cci_import *import;
    uint8_t *chunk;
};

/* ---- The partial file ----------------------------------------------------------------------------------------- */

/* Whether the name still means the file that was opened. */
static bool cci_fetch_is_named(const struct cci_fetch *f)
{
    struct cci_os_stat ours, named;
    return cci_os_fstat(f->fd, &ours) == 0 && cci_os_lstat(f->path, &named) == 0 && ours.device == named.device &&
           ours.inode == named.inode;
}

/* Opens and locks the partial file, made if it is not there. */
static cc_error_code cci_fetch_lock(struct cci_fetch *f, cc_error *err)
{
    for (;;) {
        f->fd = cci_os_open(f->path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_NOFOLLOW, 0600);
        if (f->fd < 0)
            return cci_store_fail(err, f->fd, f->path, "keep a download");
        int r;
        while ((r = cci_os_flock(f->fd, CCI_OS_LOCK_EXCLUSIVE, false)) == -EWOULDBLOCK) {
            cc_error_code code =
                cci_registry_pause(f->registry->wait, 50 * 1000000u, "another pull of the same layer", err);
            if (code)
                return code;
        }
        if (r < 0)
            return cci_store_fail(err, r, f->path, "lock a download");
        if (cci_fetch_is_named(f))
            return CC_OK;
        cci_os_close(f->fd); /* its owner was done with it; try the name anew */
        f->fd = CCI_NO_FD;
    }
}

/* Feeds n bytes at f->at to the import. */
static cc_error_code cci_fetch_take(struct cci_fetch *f, const uint8_t *p, size_t n, bool network, cc_error *err)
{
    cc_error_code code = cci_import_feed(f->import, p, n, err);
    if (code)
        return code;
    f->at += n;
    cci_progress_add(f->progress, f->index, n, network);
    return CC_OK;
}

/* Feeds what an earlier pull left. `fd` is the file, f->at where to go on. */
static cc_error_code cci_fetch_replay(struct cci_fetch *f, cci_fd fd, uint64_t size, cc_error *err)
{
    while (f->at < size) {
        int64_t n = cci_os_pread(fd, f->chunk, (size_t)CCI_MIN(size - f->at, CCI_FETCH_CHUNK), f->at);
        if (n < 0)
            return cci_store_fail(err, (int)n, f->path, "read a download");
        if (n == 0)
            return CC_OK;
        cc_error_code code = cci_wait_check(f->registry->wait, NULL, "reading an earlier download", err);
        if (!code)
            code = cci_fetch_take(f, f->chunk, (size_t)n, false, err);
        if (code)
            return code;
    }
    return CC_OK;
}

/* ---- The network ---------------------------------------------------------------------------------------------- */

static cc_error_code cci_fetch_store(struct cci_fetch *f, const uint8_t *p, size_t n, cc_error *err)
{
    if (n > f->spec->size - f->at)
        return cci_fail(err, CC_ERR_NETWORK, f->registry->name->full,
                        "the registry sends more than the %llu bytes of layer %s that the manifest says",
                        (unsigned long long)f->spec->size, cci_digest_spell(&f->spec->digest).text);
    int r = cci_os_pwrite_all(f->fd, p, n, f->at);
    if (r < 0)
        return cci_store_fail(err, r, f->path, "keep a download");
    uint64_t before = f->at / CCI_FETCH_WRITEBACK * CCI_FETCH_WRITEBACK;
    cc_error_code code = cci_fetch_take(f, p, n, true, err);
    if (!code && f->at - before >= CCI_FETCH_WRITEBACK)
        cci_os_start_writeback(f->fd, before, f->at - before);
    return code;
}

/* Reads an answer to its end. *broken when the connection broke, so that the rest may be asked for. */
static cc_error_code cci_fetch_body(struct cci_fetch *f, struct cci_http_response *resp, bool *broken, cc_error *err)
{
    /* A server that does not do ranges sends all of it again. */
    uint64_t skip = cci_http_status(resp) == 206 ? 0 : f->at;
    *broken = false;
    for (;;) {
        size_t n;
        cc_error_code code = cci_http_body_read(resp, f->chunk, CCI_FETCH_CHUNK, &n, f->registry->wait, err);
        if (code) {
            *broken = code == CC_ERR_NETWORK && cci_http_broken(resp);
            return code;
        }
        if (n == 0)
            break;
        size_t old = (size_t)CCI_MIN(skip, n);
        skip -= old;
        code = old < n ? cci_fetch_store(f, f->chunk + old, n - old, err) : CC_OK;
        if (code)
            return code;
    }
    if (f->at == f->spec->size)
        return CC_OK;
    return cci_fail(err, CC_ERR_NETWORK, f->registry->name->full,
                    "the registry sends %llu bytes of layer %s, which the manifest says has %llu",
                    (unsigned long long)f->at, cci_digest_spell(&f->spec->digest).text,
                    (unsigned long long)f->spec->size);
}

/* Fetches what is missing, with as many requests as it takes. */
static cc_error_code cci_fetch_rest(struct cci_fetch *f, cc_error *err)
{
    struct cci_digest_text digest = cci_digest_spell(&f->spec->digest);
    for (unsigned idle = 0; f->at < f->spec->size;) {
        struct cci_registry_call call = {"GET", "blobs", digest.text, NULL, f->at};
        struct cci_http_response *resp;
        uint64_t before = f->at;
        bool broken;
        cc_error_code code = cci_registry_call(f->registry, &call, &resp, err);
        if (code)
            return code;
        code = cci_fetch_body(f, resp, &broken, err);
        cci_http_finish(resp);
        idle = f->at > before ? 0 : idle + 1;
        if (!code)
            continue;
        if (!broken || idle >= CCI_FETCH_RESUMES)
            return code;
        cci_error_release(err);
        code = cci_registry_pause(f->registry->wait, CCI_REGISTRY_PAUSE / 4 << CCI_MIN(idle, 5u),
                                  "a broken download to go on", err);
        if (code)
            return code;
    }
    return CC_OK;
}

/* ---- A layer -------------------------------------------------------------------------------------------------- */

/* The layer is in the store: the file becomes a blob. */
static void cci_fetch_keep(struct cci_fetch *f)
{
    char *blob = cci_blob_path(f->store, &f->spec->digest);
    /* Without it an export compresses anew, so a failure loses nothing that was asked for. */
    if (!blob || cci_os_fdatasync(f->fd) < 0 || cci_os_rename(f->path, blob) < 0)
        (void)cci_os_unlink(f->path);
    cci_mem_free(blob);
}

/* What is on this disk goes first: the whole blob, if the store kept it and lost the layer, else a broken download.
 * *whole when there was a blob. */
static cc_error_code cci_fetch_local(struct cci_fetch *f, bool *whole, cc_error *err)
{
    struct cci_os_stat st;
    memset(&st, 0, sizeof(st));
    char *path = cci_blob_path(f->store, &f->spec->digest);
    cci_fd blob = path ? cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK, 0) : CCI_NO_FD;
    *whole = blob >= 0 && cci_os_fstat(blob, &st) == 0 && st.kind == CCI_OS_FILE && st.size == f->spec->size;
    cc_error_code code = path ? CC_OK : cci_fail_nomem(err);
    if (!code && !*whole) {
        int r = cci_os_fstat(f->fd, &st);
        code = r < 0 ? cci_store_fail(err, r, f->path, "read a download") : CC_OK;
    }
    if (!code)
        code = cci_fetch_replay(f, *whole ? blob : f->fd, CCI_MIN(st.size, f->spec->size), err);
    cci_os_close(blob);
    cci_mem_free(path);
    return code;
}

/* Throws away what is on this disk of the layer: a digest showed that it is wrong. */
static void cci_fetch_forget(struct cci_fetch *f, bool whole)
{
    char *path = whole ? cci_blob_path(f->store, &f->spec->digest) : NULL;
    if (path)
        (void)cci_os_unlink(path);
    cci_mem_free(path);
    (void)cci_os_truncate(f->fd, 0);
    cci_progress_take_back(f->progress, f->at);
    f->at = 0;
}

/* One pass: from what there is to the layer in the store. *local: some of it was on this disk. *bad: a digest or the
 * content is wrong. */
static cc_error_code cci_fetch_pass(struct cci_fetch *f, struct cci_layer *out, bool *local, bool *whole, bool *bad,
                                    cc_error *err)
{
    cc_error_code code = cci_import_begin(f->store, f->spec, &f->import, err);
    if (code)
        return code;
    code = cci_fetch_local(f, whole, err);
    *local = f->at > 0;
    if (!code)
        code = cci_fetch_rest(f, err);
    if (code)
        cci_import_abort(f->import);
    else
        code = cci_import_finish(f->import, out, err);
    f->import = NULL;
    *bad = code == CC_ERR_IO && err->sys_errno == 0;
    return code;
}

/* With the partial file locked. Bytes from this disk that turn out to be wrong (a crash may have left them) are fetched
 * again, once; wrong bytes from the registry are an error, and are not kept. */
static cc_error_code cci_fetch_import(struct cci_fetch *f, struct cci_layer *out, cc_error *err)
{
    bool local = false, whole = false, bad = false;
    cc_error_code code = cci_fetch_pass(f, out, &local, &whole, &bad, err);
    if (bad && local) {
        cci_error_release(err);
        cci_fetch_forget(f, whole);
        code = cci_fetch_pass(f, out, &local, &whole, &bad, err);
    }
    if (code && bad)
        (void)cci_os_unlink(f->path);
    else if (!code && whole)
        (void)cci_os_unlink(f->path);
    else if (!code)
        cci_fetch_keep(f);
    return code;
}

/* Fetches one layer and opens it; `err` is not NULL. Another process, or thread, may be fetching it as well. */
static cc_error_code cci_fetch_layer(struct cci_fetch *f, struct cci_layer *out, cc_error *err)
{
    bool found = false;
    f->fd = CCI_NO_FD;
    f->path = cci_store_path(f->store, "partial", cci_digest_spell(&f->spec->digest).text + 7);
    f->chunk = cci_mem_alloc(CCI_FETCH_CHUNK);
    cc_error_code code = f->path && f->chunk ? cci_fetch_lock(f, err) : cci_fail_nomem(err);
    if (!code)
        code = cci_store_layer_open(f->store, &f->spec->diff_id, out, &found, err);
    if (!code && found) {
        cci_progress_add(f->progress, f->index, f->spec->size, false);
        (void)cci_os_unlink(f->path);
    } else if (!code) {
        code = cci_fetch_import(f, out, err);
    }
    cci_os_close(f->fd);
    cci_mem_free(f->path);
    cci_mem_free(f->chunk);
    return code;
}

#endif
