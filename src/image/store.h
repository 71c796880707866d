/*
 * image/store.h - the cache directory: what is where, and how several processes share it.
 *
 *     blobs/sha256/<hex>      manifests, configurations and compressed layers, as a registry has them
 *     partial/<hex>           what there is of a compressed layer that was not fetched whole
 *     layers/<hex>/data       contents of a layer's files       } <hex> is the layer's diffID;
 *     layers/<hex>/index      everything else about its files   } see layer_index.h
 *     layers/<hex>/tar        what else its tar is made of, for an export; see layer_recipe.h
 *     refs/                   what references mean
 *     rootfs/                 filesystem metadata for chains of layers; see rootfs.h
 *     kernel/                 the guest kernel, if the user put one there or it was fetched; see api/kernel.h
 *     kernel.lock             locked by who fetches it
 *     tmp/                    what is being written
 *
 * Everything is named by its digest and never changes once it is there. It is written to a directory of its own in
 * tmp/, fsynced, and renamed: whoever looks finds it whole or not at all, and a process that is killed, or a disk that
 * is full, leaves the old state or the new one. Of two that write the same, the first to rename wins; the other's
 * rename fails, and it drops its copy and uses the winner's.
 *
 * Locks are flock(2), so they end with the process that holds them:
 *
 *   an entry of tmp/   shared, by its owner. One that can be locked exclusively has lost its owner and is removed, by
 *                      the next process that opens the store.
 *   tmp/ itself        shared while an entry is made (between mkdir and its lock), exclusive while dead ones go.
 *   a layer            shared by each process that uses it. Removal needs it exclusively, and moves it to tmp/ first;
 *                      who has waited for the lock meanwhile sees that the name is gone, and looks again.
 *   layers/ itself     exclusive while a damaged layer is moved to tmp/, in use or not: of several that found it
 *                      damaged one moves it, and nobody the whole one that has taken its place since.
 */
#ifndef CCI_IMAGE_STORE_H
#define CCI_IMAGE_STORE_H

#include "../base/cancel.h"
#include "../base/errno_text.h"
#include "../base/remove.h"
#include "digest.h"
#include "layer_index.h"

struct cci_store {
    char *dir; /* absolute path */
    struct cci_mutex mutex;
    unsigned refs; /* the client's, and one for each image that came from it */
};

/* A directory in tmp/ that belongs to us. */
struct cci_store_tmp {
    char *path;
    cci_fd fd; /* open and locked, or CCI_NO_FD */
};

/* A layer in use. */
struct cci_layer {
    struct cci_digest diff_id;
    char *path; /* the directory with data and index */
    cci_fd fd;  /* that directory, open and locked, or CCI_NO_FD */
};

/* The absolute path of something in the store; NULL when there is no memory. */
static char *cci_store_path(const struct cci_store *s, const char *room, const char *name)
{
    return cci_mem_printf("%s/%s%s%s", s->dir, room, *name ? "/" : "", name);
}

static cc_error_code cci_store_fail(cc_error *err, int sys, const char *path, const char *doing)
{
    const char *advice = sys == -28 /* ENOSPC */ || sys == -122 /* EDQUOT */
                             ? ": free some space, or choose another cache directory"
                             : "";
    return cci_fail_errno(err, CC_ERR_IO, -sys, path, "cannot %s in the image cache: %s%s", doing, cci_errno_text(-sys),
                          advice);
}

/* ---- Temporary directories -------------------------------------------------------------------------- */

/* Removes an entry of tmp/ if nobody owns it any more. */
static int cci_store_sweep_name(void *ctx, const char *name)
{
    const char *dir = ctx;
    char *path = cci_mem_printf("%s/%s", dir, name);
    cci_fd fd = path ? cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK, 0) : -ENOMEM;
    if (fd >= 0 && cci_os_flock(fd, CCI_OS_LOCK_EXCLUSIVE, false) == 0)
        (void)cci_remove_tree(path);
    cci_os_close(fd);
    cci_mem_free(path);
    return 0;
}

/* Removes what dead processes left in tmp/. What cannot be removed is left: it harms nobody. */
static void cci_store_sweep(const struct cci_store *s)
{
    char *dir = cci_store_path(s, "tmp", "");
    cci_fd lock = dir ? cci_os_open(dir, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0) : CCI_NO_FD;
    if (lock >= 0 && cci_os_flock(lock, CCI_OS_LOCK_EXCLUSIVE, false) == 0) {
        (void)cci_os_read_dir(dir, cci_store_sweep_name, dir);
    }
    cci_os_close(lock);
    cci_mem_free(dir);
}

/* Makes a directory in tmp/ that is ours as long as it is open. */
static cc_error_code cci_store_tmp_new(const struct cci_store *s, struct cci_store_tmp *tmp, cc_error *err)
{
    uint64_t salt[2];
    char name[40];
    int r = cci_os_random(salt, sizeof(salt));
    (void)snprintf(name, sizeof(name), "%016llx%016llx", (unsigned long long)salt[0], (unsigned long long)salt[1]);
    tmp->path = cci_store_path(s, "tmp", name);
    tmp->fd = CCI_NO_FD;
    char *dir = cci_store_path(s, "tmp", "");
    cci_fd lock = CCI_NO_FD;
    if (!tmp->path || !dir) {
        r = -ENOMEM;
        goto done;
    }
    lock = r < 0 ? r : cci_os_open(dir, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
    r = lock < 0 ? lock : cci_os_flock(lock, CCI_OS_LOCK_SHARED, true);
    if (r == 0)
        r = cci_os_mkdir(tmp->path, 0700);
    if (r == 0) {
        tmp->fd = cci_os_open(tmp->path, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
        r = tmp->fd < 0 ? tmp->fd : cci_os_flock(tmp->fd, CCI_OS_LOCK_SHARED, true);
        if (r < 0)
            (void)cci_os_rmdir(tmp->path);
    }
done:
    cci_os_close(lock);
    if (r < 0) {
        (void)cci_store_fail(err, r, tmp->path, "make a temporary directory");
        cci_os_close(tmp->fd);
        cci_mem_free(tmp->path);
        tmp->path = NULL;
        tmp->fd = CCI_NO_FD;
    }
    cci_mem_free(dir);
    return r < 0 ? CC_ERR_IO : CC_OK;
}

/* Removes the directory and what is in it. One that was published, or never made, is left alone. */
static void cci_store_tmp_drop(struct cci_store_tmp *tmp)
{
    if (tmp->path)
        (void)cci_remove_tree(tmp->path);
    cci_os_close(tmp->fd);
    cci_mem_free(tmp->path);
    tmp->path = NULL;
    tmp->fd = CCI_NO_FD;
}

/* ---- Layers ----------------------------------------------------------------------------------------- */

static void cci_layer_close(struct cci_layer *l)
{
    cci_os_close(l->fd);
    cci_mem_free(l->path);
    l->path = NULL;
    l->fd = CCI_NO_FD;
}

/* The path of a file of the layer, "data" or "index"; NULL when there is no memory. */
static char *cci_layer_file(const char *layer_path, const char *name)
{
    return cci_mem_printf("%s/%s", layer_path, name);
}

/* Reads what the index says about the size of `data`. Returns 1, 0 when it is no whole index, or an error number. */
static int cci_layer_head(const char *index, uint64_t *data_blocks)
{
    uint8_t head[CCI_INDEX_HEADER];
    struct cci_os_stat st;
    cci_fd fd = cci_os_open(index, CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK, 0);
    int64_t n = fd < 0 ? fd : cci_os_fstat(fd, &st);
    if (n == 0 && st.kind == CCI_OS_FILE)
        n = cci_os_pread_all(fd, head, sizeof(head), 0);
    cci_os_close(fd);
    if (n < 0)
        return (int)n;
    *data_blocks = n ? cci_le64(head + 24) : 0;
    return n == (int64_t)sizeof(head) && memcmp(head, CCI_INDEX_MAGIC, 8) == 0 &&
           cci_le32(head + 8) == CCI_INDEX_VERSION && cci_le32(head + 12) == st.size;
}

/*
 * Whether both files are there and fit together: somebody may have truncated or removed them. Returns 1 or 0, or an
 * error number when that cannot be found out.
 */
static int cci_layer_is_whole(const char *layer_path)
{
    char *data = cci_layer_file(layer_path, "data"), *index = cci_layer_file(layer_path, "index");
    struct cci_os_stat st;
    uint64_t blocks = 0;
    int r = data && index ? cci_layer_head(index, &blocks) : -ENOMEM;
    if (r > 0) {
        int bad = cci_os_lstat(data, &st);
        r = bad < 0 ? bad
                    : st.kind == CCI_OS_FILE && st.size / CCI_INDEX_BLOCK == blocks && st.size % CCI_INDEX_BLOCK == 0;
    }
    cci_mem_free(data);
    cci_mem_free(index);
    return r == -ENOENT || r == -ELOOP ? 0 : r;
}

/* Whether the directory that we have open is the one that the path leads to. An error number if there is none. */
static int cci_layer_is_named(const struct cci_layer *l, bool *same)
{
    struct cci_os_stat ours, named;
    int r = cci_os_fstat(l->fd, &ours);
    if (r == 0)
        r = cci_os_lstat(l->path, &named);
    *same = r == 0 && ours.device == named.device && ours.inode == named.inode;
    return r;
}

/* Opens and locks the directory of a layer. Returns 0, or -ENOENT when the layer is not there, or another error. */
static int cci_layer_lock(struct cci_layer *l)
{
    for (;;) {
        bool same;
        l->fd = cci_os_open(l->path, CCI_OS_RDONLY | CCI_OS_DIRECTORY | CCI_OS_NOFOLLOW, 0);
        int r = l->fd < 0 ? l->fd : cci_os_flock(l->fd, CCI_OS_LOCK_SHARED, true);
        if (r < 0)
            return r;
        r = cci_layer_is_named(l, &same);
        if (same)
            return 0;
        /* It was removed while we waited for the lock. */
        cci_os_close(l->fd);
        l->fd = CCI_NO_FD;
        if (r < 0)
            return r;
    }
}

/* Takes a damaged layer, which is open, out of the way, if it is still there. */
static cc_error_code cci_store_evict(const struct cci_store *s, const struct cci_layer *l, cc_error *err)
{
    struct cci_store_tmp tmp;
    bool same = false;
    cc_error_code code = cci_store_tmp_new(s, &tmp, err);
    if (code)
        return code;
    char *room = cci_store_path(s, "layers", "");
    cci_fd lock = room ? cci_os_open(room, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0) : -ENOMEM;
    int r = lock < 0 ? lock : cci_os_flock(lock, CCI_OS_LOCK_EXCLUSIVE, true);
    if (r == 0)
        r = cci_layer_is_named(l, &same);
    if (same)
        r = cci_os_rename(l->path, tmp.path); /* onto our empty directory, which that replaces */
    cci_os_close(lock);
    cci_mem_free(room);
    cci_store_tmp_drop(&tmp);
    return r < 0 && r != -ENOENT ? cci_store_fail(err, r, l->path, "replace a damaged layer") : CC_OK;
}

/* Finds a layer and locks it against removal. *found false, and nothing to close, when the store does not have it. */
static cc_error_code cci_store_layer_open(const struct cci_store *s, const struct cci_digest *diff_id,
                                          struct cci_layer *l, bool *found, cc_error *err)
{
    struct cci_digest_text text = cci_digest_spell(diff_id);
    *found = false;
    l->diff_id = *diff_id;
    l->fd = CCI_NO_FD;
    l->path = cci_store_path(s, "layers", text.text + 7);
    if (!l->path)
        return cci_fail_nomem(err);
    cc_error_code code = CC_OK;
    int r = cci_layer_lock(l);
    bool there = r == 0;
    if (there)
        r = cci_layer_is_whole(l->path);
    if (r < 0 && (there || r != -ENOENT))
        code = cci_store_fail(err, r, l->path, "open a layer");
    else if (there && r == 0)
        code = cci_store_evict(s, l, err);
    else
        *found = there;
    if (!*found)
        cci_layer_close(l);
    return code;
}

static int cci_store_sync_file(const char *dir, const char *name)
{
    char *path = cci_layer_file(dir, name);
    cci_fd fd = path ? cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NOFOLLOW, 0) : -ENOMEM;
    int r = fd < 0 ? fd : cci_os_fsync(fd);
    cci_os_close(fd);
    cci_mem_free(path);
    return r;
}

/* The result of an fsync of a directory: filesystems that know none keep names in their own way. */
static int cci_store_dir_synced(int r)
{
    return r == -EINVAL ? 0 : r;
}

/*
 * Makes the files data and index in `tmp` the layer `diff_id`, durably, and opens it. If another process was faster,
 * its layer is opened. `tmp` is used up, also on failure.
 */
static cc_error_code cci_store_layer_publish(const struct cci_store *s, struct cci_store_tmp *tmp,
                                             const struct cci_digest *diff_id, struct cci_layer *l, cc_error *err)
{
    struct cci_digest_text text = cci_digest_spell(diff_id);
    char *path = cci_store_path(s, "layers", text.text + 7), *room = cci_store_path(s, "layers", "");
    cc_error_code code = CC_OK;
    bool found = false;
    int r = path && room ? cci_store_sync_file(tmp->path, "data") : -ENOMEM;
    if (r == 0)
        r = cci_store_sync_file(tmp->path, "index");
    if (r == 0)
        r = cci_store_dir_synced(cci_os_fsync(tmp->fd));
    if (r == 0)
        r = cci_os_rename(tmp->path, path);
    if (r == 0)
        r = cci_store_dir_synced(cci_os_sync_dir(room));
    if (r == -EEXIST || r == -ENOTEMPTY)
        r = 0; /* somebody else's is there */
    if (r < 0)
        code = cci_store_fail(err, r, path, "store a layer");
    if (!code)
        code = cci_store_layer_open(s, diff_id, l, &found, err);
    if (!code && !found)
        code = cci_fail(err, CC_ERR_IO, path, "a layer disappeared from the image cache as it was stored");
    cci_store_tmp_drop(tmp);
    cci_mem_free(path);
    cci_mem_free(room);
    return code;
}

/* ---- The store -------------------------------------------------------------------------------------- */

static struct cci_store *cci_store_ref(struct cci_store *s)
{
    cci_mutex_lock(&s->mutex);
    s->refs++;
    cci_mutex_unlock(&s->mutex);
    return s;
}

/* Gives up one reference; the last one frees. NULL is fine. */
static void cci_store_close(struct cci_store *s)
{
    if (!s)
        return;
    cci_mutex_lock(&s->mutex);
    bool last = --s->refs == 0;
    cci_mutex_unlock(&s->mutex);
    if (!last)
        return;
    cci_mutex_destroy(&s->mutex);
    cci_mem_free(s->dir);
    cci_mem_free(s);
}

/* The default directory, or NULL when there is no memory or nothing that says where; then *known tells which. */
static char *cci_store_default_dir(bool *known)
{
    const char *dir = getenv("CC_CACHE_DIR"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    *known = true;
    if (dir && *dir)
        return cci_mem_strdup(dir);
    if (cache && *cache == '/') /* the XDG specification: a relative path is to be ignored */
        return cci_mem_printf("%s/cc.h", cache);
    if (home && *home)
        return cci_mem_printf("%s/.cache/cc.h", home);
    *known = false;
    return NULL;
}

/* The absolute form of a path, so that the caller's program may change its directory. */
static cc_error_code cci_store_absolute(const char *dir, char **out, cc_error *err)
{
    char cwd[4096];
    bool known = true;
    char *given = dir ? cci_mem_strdup(dir) : cci_store_default_dir(&known);
    if (!known)
        return cci_fail(err, CC_ERR_IO, NULL, "there is no cache directory: set HOME or CC_CACHE_DIR");
    if (!given)
        return cci_fail_nomem(err);
    *out = given;
    if (given[0] == '/')
        return CC_OK;
    int r = cci_os_cwd(cwd, sizeof(cwd));
    *out = r == 0 ? cci_mem_printf("%s/%s", cwd, given) : NULL;
    cci_mem_free(given);
    if (r < 0)
        return cci_store_fail(err, r, dir, "find the current directory");
    return *out ? CC_OK : cci_fail_nomem(err);
}

/* Opens the cache directory, made if need be. NULL is the default one, as cc.h documents it. */
static cc_error_code cci_store_open(const char *dir, struct cci_store **out, cc_error *err)
{
    static const char *const rooms[] = {"blobs/sha256", "partial", "layers", "refs", "rootfs", "tmp"};
    *out = NULL;
    struct cci_store *s = cci_mem_zalloc(1, sizeof(*s));
    if (!s)
        return cci_fail_nomem(err);
    cci_mutex_init(&s->mutex);
    s->refs = 1;
    cc_error_code code = cci_store_absolute(dir, &s->dir, err);
    for (size_t i = 0; i < CCI_COUNT(rooms) && !code; i++) {
        char *path = cci_store_path(s, rooms[i], "");
        int r = path ? cci_os_mkdir_all(path, 0700) : -ENOMEM;
        if (r < 0)
            code = cci_store_fail(err, r, path ? path : s->dir, "make the directory");
        cci_mem_free(path);
    }
    if (code) {
        cci_store_close(s);
        return code;
    }
    cci_store_sweep(s);
    *out = s;
    return CC_OK;
}

#endif
