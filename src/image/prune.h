/*
 * image/prune.h - removes from the cache what no reference leads to; see cache.h for what and how.
 */
#ifndef CCI_IMAGE_PRUNE_H
#define CCI_IMAGE_PRUNE_H

#include "cache.h"

/* What was removed. */
struct cci_prune_result {
    uint64_t bytes; /* on disk */
    size_t layers, blobs, references;
    bool blobs_busy; /* blobs were left alone: a pull was under way */
};

struct cci_prune {
    const struct cci_store *store;
    struct cci_cache_list list; /* what is referred to */
    struct cci_prune_result *result;
    struct cci_strings names; /* of a directory that is being looked at */
    cc_error *err;
};

static int cci_prune_add_name(void *ctx, const char *name)
{
    return cci_strings_add(ctx, name) ? 0 : -ENOMEM;
}

/* The names in a room of the store. */
static cc_error_code cci_prune_names(struct cci_prune *p, const char *room)
{
    cci_strings_free(&p->names);
    char *dir = cci_store_path(p->store, room, "");
    int r = dir ? cci_os_read_dir(dir, cci_prune_add_name, &p->names) : -ENOMEM;
    cc_error_code code = r < 0 && r != -ENOENT ? cci_store_fail(p->err, r, dir, "look for what can go") : CC_OK;
    cci_mem_free(dir);
    return code;
}

/* Reads the references anew. */
static cc_error_code cci_prune_reread(struct cci_prune *p)
{
    struct cci_cache_list now;
    cc_error_code code = cci_cache_read(p->store, &now, p->err);
    if (code)
        return code;
    cci_cache_list_free(&p->list);
    p->list = now;
    return CC_OK;
}

/* Removes references that lead to no image. */
static cc_error_code cci_prune_refs(struct cci_prune *p)
{
    cc_error_code code = CC_OK;
    size_t before = p->result->references;
    for (size_t i = 0; i < p->list.count && !code; i++) {
        if (p->list.at[i].whole)
            continue;
        code = cci_cache_unlink_ref(p->store, &p->list.at[i].ref, p->err);
        p->result->references++;
    }
    return code || p->result->references == before ? code : cci_prune_reread(p);
}

/* ---- Layers ------------------------------------------------------------------------------------------ */

/* Locks a layer that nobody has open; CCI_NO_FD when somebody has. */
static cci_fd cci_prune_lock_layer(const struct cci_prune *p, const char *name)
{
    char *path = cci_store_path(p->store, "layers", name);
    cci_fd fd = path ? cci_os_open(path, CCI_OS_RDONLY | CCI_OS_DIRECTORY | CCI_OS_NOFOLLOW, 0) : CCI_NO_FD;
    if (fd >= 0 && cci_os_flock(fd, CCI_OS_LOCK_EXCLUSIVE, false) < 0) {
        cci_os_close(fd);
        fd = CCI_NO_FD;
    }
    cci_mem_free(path);
    return fd;
}

/* Removes the layer whose directory is open, and locked, as `fd`. */
static cc_error_code cci_prune_layer(struct cci_prune *p, const char *name, cci_fd fd)
{
    struct cci_layer layer;
    uint64_t size = 0;
    memset(&layer, 0, sizeof(layer));
    layer.fd = fd;
    layer.path = cci_store_path(p->store, "layers", name);
    if (!layer.path)
        return cci_fail_nomem(p->err);
    if (cci_digest_from_hex(name, strlen(name), &layer.diff_id))
        (void)cci_cache_layer_size(p->store, &layer.diff_id, &size);
    cc_error_code code = cci_store_evict(p->store, &layer, p->err);
    cci_mem_free(layer.path);
    if (!code) {
        p->result->layers++;
        p->result->bytes += size;
    }
    return code;
}

/* Looks at some of the names in p->names, from `from` on; returns where to go on. */
static size_t cci_prune_some_layers(struct cci_prune *p, size_t from, cc_error_code *code)
{
    cci_fd locks[CCI_CACHE_MAX_LOCKS];
    size_t which[CCI_CACHE_MAX_LOCKS], count = 0, at = from;
    for (; at < p->names.count && count < CCI_CACHE_MAX_LOCKS; at++) {
        if (cci_cache_keeps(&p->list.keep_layers, p->names.at[at]))
            continue;
        locks[count] = cci_prune_lock_layer(p, p->names.at[at]);
        if (locks[count] >= 0)
            which[count++] = at;
    }
    if (count)
        *code = cci_prune_reread(p);
    for (size_t i = 0; i < count; i++) {
        if (!*code && !cci_cache_keeps(&p->list.keep_layers, p->names.at[which[i]]))
            *code = cci_prune_layer(p, p->names.at[which[i]], locks[i]);
        cci_os_close(locks[i]);
    }
    return at;
}

static cc_error_code cci_prune_layers(struct cci_prune *p)
{
    cc_error_code code = cci_prune_names(p, "layers");
    for (size_t at = 0; at < p->names.count && !code;)
        at = cci_prune_some_layers(p, at, &code);
    return code;
}

/* ---- Files ------------------------------------------------------------------------------------------- */

static cc_error_code cci_prune_file(struct cci_prune *p, const char *path)
{
    struct cci_os_stat st;
    int r = cci_os_lstat(path, &st);
    if (r == 0)
        r = cci_os_unlink(path);
    if (r < 0)
        return r == -ENOENT ? CC_OK : cci_store_fail(p->err, r, path, "remove a file");
    p->result->bytes += st.allocated;
    return CC_OK;
}

/* Removes the files of a room whose digests are not in `keep`. */
static cc_error_code cci_prune_room(struct cci_prune *p, const char *room, const struct cci_buf *keep, size_t *count)
{
    cc_error_code code = cci_prune_names(p, room);
    for (size_t i = 0; i < p->names.count && !code; i++) {
        if (cci_cache_keeps(keep, p->names.at[i]))
            continue;
        char *path = cci_store_path(p->store, room, p->names.at[i]);
        code = path ? cci_prune_file(p, path) : cci_fail_nomem(p->err);
        cci_mem_free(path);
        *count += 1;
    }
    return code;
}

/* Removes blobs, unless a pull is under way. */
static cc_error_code cci_prune_blobs(struct cci_prune *p)
{
    cci_fd lock;
    cc_error_code code = cci_blob_lock(p->store, CCI_OS_LOCK_EXCLUSIVE, false, &lock, p->err);
    if (code)
        return code;
    p->result->blobs_busy = lock < 0;
    if (lock >= 0)
        code = cci_prune_reread(p); /* a pull may have ended since */
    if (!code && lock >= 0)
        code = cci_prune_room(p, "blobs/sha256", &p->list.keep_blobs, &p->result->blobs);
    cci_os_close(lock);
    return code;
}

/* Removes downloads that broke off and that nobody goes on with. */
static cc_error_code cci_prune_partial(struct cci_prune *p)
{
    cc_error_code code = cci_prune_names(p, "partial");
    for (size_t i = 0; i < p->names.count && !code; i++) {
        char *path = cci_store_path(p->store, "partial", p->names.at[i]);
        if (!path)
            return cci_fail_nomem(p->err);
        cci_fd fd = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK, 0);
        if (fd >= 0 && cci_os_flock(fd, CCI_OS_LOCK_EXCLUSIVE, false) == 0)
            code = cci_prune_file(p, path);
        cci_os_close(fd);
        cci_mem_free(path);
    }
    return code;
}

/* Removes all that no reference leads to and nobody uses. */
static cc_error_code cci_cache_prune(const struct cci_store *s, struct cci_prune_result *result, cc_error *err)
{
    struct cci_prune p;
    size_t chains = 0;
    memset(&p, 0, sizeof(p));
    memset(result, 0, sizeof(*result));
    p.store = s;
    p.result = result;
    p.err = err;
    cc_error_code code = cci_cache_read(s, &p.list, err);
    if (code)
        return code;
    code = cci_prune_refs(&p);
    if (!code)
        code = cci_prune_layers(&p);
    if (!code)
        code = cci_prune_blobs(&p);
    if (!code)
        code = cci_prune_partial(&p);
    if (!code)
        code = cci_prune_room(&p, "rootfs", &p.list.keep_chains, &chains);
    cci_store_sweep(s); /* what processes that died left in tmp/ */
    cci_cache_list_free(&p.list);
    cci_strings_free(&p.names);
    return code;
}

#endif
