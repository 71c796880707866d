/*
 * api/mounts.h - an instance's shares: a virtio-fs device for each, and mounting them in the guest.
 *
 * A mount without a directory of the host is one of its own in the store's tmp/, which is locked while it is ours: it
 * goes with the instance, or, if this process dies, with the next prune.
 */
#ifndef CCI_API_MOUNTS_H
#define CCI_API_MOUNTS_H

#include "../control/client.h"
#include "../image/store.h"
#include "../virtio/fs.h"

#define CCI_MOUNTS_MAX 64u
#define CCI_MOUNTS_NODE                                                                                                \
    ((uint64_t)1024) /* bytes that a file takes in a guest's kernel which knows it: inode and name */
#define CCI_MOUNTS_NODES_MIN ((uint64_t)65536)

struct cci_mount {
    char tag[CCI_FS_TAG_SIZE + 1];
    char *guest_path; /* or NULL */
    bool writable, keep_owners;
    struct cci_store_tmp tmp; /* of one without a directory of the host */
    bool has_tmp;
    struct cci_share *share;
    struct cci_fs fs;
    bool has_fs;
};

struct cci_mounts {
    struct cci_mount **at; /* each by itself: a device does not move */
    size_t count;
};

/* ---- Options ---------------------------------------------------------------------------------------------- */

/* A mount's tag: given, or "shareN". */
static void cci_mounts_tag(const cc_mount_config *m, size_t n, char tag[CCI_FS_TAG_SIZE + 1])
{
    if (m->tag)
        (void)snprintf(tag, CCI_FS_TAG_SIZE + 1, "%s", m->tag);
    else
        (void)snprintf(tag, CCI_FS_TAG_SIZE + 1, "share%zu", n);
}

/* The next element of a path, without "." and empty ones; *n is 0 at the end. */
static const char *cci_mounts_element(const char *p, size_t *n)
{
    do {
        p += strspn(p, "/");
        *n = strcspn(p, "/");
        if (*n != 1 || *p != '.')
            break;
        p += *n;
    } while (true);
    return p;
}

/* Whether two places in the guest are one by their names; with "/" for `b`, whether `a` is the root. */
static bool cci_mounts_same_place(const char *a, const char *b)
{
    size_t n, m;
    do {
        a = cci_mounts_element(a, &n);
        b = cci_mounts_element(b, &m);
        if (n != m || memcmp(a, b, n) != 0)
            return false;
        a += n;
        b += m;
    } while (n);
    return true;
}

/* Whether a path has "..", so that its name does not tell where it leads. */
static bool cci_mounts_goes_up(const char *path)
{
    size_t n;
    do {
        path = cci_mounts_element(path, &n);
        if (n == 2 && memcmp(path, "..", 2) == 0)
            return true;
        path += n;
    } while (n);
    return false;
}

static cc_error_code cci_mounts_check_place(const cc_mount_config *all, size_t n, cc_error *err)
{
    const cc_error_code bad = CC_ERR_INVALID_ARGUMENT;
    const char *path = all[n].guest_path;
    if (!path)
        return CC_OK;
    if (path[0] != '/')
        return cci_fail(err, bad, path, "the guest_path of mount %zu must begin with /", n);
    if (cci_mounts_goes_up(path))
        return cci_fail(err, bad, path, "the guest_path of mount %zu may not have .. in it", n);
    if (cci_mounts_same_place(path, "/"))
        return cci_fail(err, bad, path, "the guest_path of mount %zu is the guest's root, which is the image's", n);
    for (size_t i = 0; i < n; i++)
        if (all[i].guest_path && cci_mounts_same_place(path, all[i].guest_path))
            return cci_fail(err, bad, path, "mounts %zu and %zu have the same guest_path", i, n);
    return CC_OK;
}

static cc_error_code cci_mounts_check_one(const cc_mount_config *all, size_t n, cc_error *err)
{
    const cc_error_code bad = CC_ERR_INVALID_ARGUMENT;
    const cc_mount_config *m = &all[n];
    char tag[CCI_FS_TAG_SIZE + 1], other[CCI_FS_TAG_SIZE + 1];
    if (m->tag && (!*m->tag || strlen(m->tag) > CCI_FS_TAG_SIZE))
        return cci_fail(err, bad, NULL, "the tag of mount %zu must have 1 to %u bytes", n, CCI_FS_TAG_SIZE);
    if (!m->tag && !m->guest_path)
        return cci_fail(err, bad, NULL, "mount %zu has neither a tag nor a guest_path", n);
    if (m->keep_owners && cci_os_euid() != 0)
        return cci_fail(err, bad, m->host_path, "keep_owners needs root on the host");
    cci_mounts_tag(m, n, tag);
    for (size_t i = 0; i < n; i++) {
        cci_mounts_tag(&all[i], i, other);
        if (strcmp(tag, other) == 0)
            return cci_fail(err, bad, NULL, "two mounts have the tag \"%s\"", tag);
    }
    return cci_mounts_check_place(all, n, err);
}

static cc_error_code cci_mounts_check(const cc_mount_config *mounts, size_t count, cc_error *err)
{
    cc_error_code code = CC_OK;
    if (count && !mounts)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "mounts is NULL, and mount_count is not 0");
    if (count > CCI_MOUNTS_MAX)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "an instance has at most %u mounts", CCI_MOUNTS_MAX);
    for (size_t i = 0; i < count && code == CC_OK; i++)
        code = cci_mounts_check_one(mounts, i, err);
    return code;
}

/* ---- Making ------------------------------------------------------------------------------------------------- */

/* A new directory, empty and writable. */
static cc_error_code cci_mount_make_dir(struct cci_mount *m, const struct cci_store *store, char **path, cc_error *err)
{
    cc_error_code code = cci_store_tmp_new(store, &m->tmp, err);
    if (code)
        return code;
    m->has_tmp = true;
    *path = cci_mem_printf("%s/share", m->tmp.path);
    int r = *path ? cci_os_mkdir(*path, 0755) : 0;
    if (!*path)
        return cci_fail_nomem(err);
    return r < 0 ? cci_store_fail(err, r, *path, "make an empty directory to share") : CC_OK;
}

/* How many files a guest with so much memory can know of one share: for more it has no memory itself, so that the host
 * keeps at most about half as much for a share as the guest has. */
static uint32_t cci_mounts_nodes(uint64_t memory_bytes)
{
    return (uint32_t)CCI_MIN(CCI_MAX(memory_bytes / CCI_MOUNTS_NODE, CCI_MOUNTS_NODES_MIN), CCI_SHARE_NODES_MAX);
}

static cc_error_code cci_mount_open(struct cci_mount *m, const cc_mount_config *c, const struct cci_store *store,
                                    struct cci_share_config config, cc_error *err)
{
    char *own = NULL;
    cc_error_code code = c->host_path ? CC_OK : cci_mount_make_dir(m, store, &own, err);
    m->writable = c->writable || !c->host_path;
    m->keep_owners = c->keep_owners;
    m->guest_path = c->guest_path ? cci_mem_strdup(c->guest_path) : NULL;
    if (code == CC_OK && c->guest_path && !m->guest_path)
        code = cci_fail_nomem(err);
    config.host_path = c->host_path ? c->host_path : own;
    config.writable = m->writable;
    config.identity = c->keep_owners;
    config.uid = c->uid;
    config.gid = c->gid;
    if (code == CC_OK)
        code = cci_share_new(&config, &m->share, err);
    cci_mem_free(own);
    return code;
}

/* Opens what is to be shared. What was opened is to be freed also after a failure. */
static cc_error_code cci_mounts_open(struct cci_mounts *all, const cc_mount_config *mounts, size_t count,
                                     uint64_t memory_bytes, const struct cci_store *store, cc_error *err)
{
    struct cci_share_config config = {0};
    cc_error_code code = CC_OK;
    config.nodes_max = cci_mounts_nodes(memory_bytes);
    config.shares = (uint32_t)count;
    if (!count)
        return CC_OK;
    all->at = cci_mem_zalloc(count, sizeof(*all->at));
    if (!all->at)
        return cci_fail_nomem(err);
    for (size_t i = 0; i < count && code == CC_OK; i++) {
        struct cci_mount *m = all->at[i] = cci_mem_zalloc(1, sizeof(*m));
        if (!m)
            return cci_fail_nomem(err);
        all->count = i + 1;
        cci_mounts_tag(&mounts[i], i, m->tag);
        code = cci_mount_open(m, &mounts[i], store, config, err);
    }
    return code;
}

/* The devices are detached. */
static void cci_mounts_free(struct cci_mounts *all)
{
    for (size_t i = 0; i < all->count; i++) {
        struct cci_mount *m = all->at[i];
        if (m->has_fs)
            cci_fs_destroy(&m->fs);
        cci_share_free(m->share);
        if (m->has_tmp)
            cci_store_tmp_drop(&m->tmp);
        cci_mem_free(m->guest_path);
        cci_mem_free(m);
    }
    cci_mem_free(all->at);
    memset(all, 0, sizeof(*all));
}

/* ---- In the guest --------------------------------------------------------------------------------------------- */

static void cci_mount_put(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_mount *m = ctx;
    cci_proto_put_str(w, m->tag);
    cci_proto_put_str(w, m->guest_path);
    cci_proto_put64(w, (m->writable ? 0 : CCI_MOUNT_READ_ONLY) | (m->keep_owners ? 0 : CCI_MOUNT_NO_SET_ID));
}

/* Has the guest mount those that have a place. */
static cc_error_code cci_mounts_mount(const struct cci_mounts *all, struct cci_control *ctl,
                                      const struct cci_wait *wait, cc_error *err)
{
    char within[CCI_FS_TAG_SIZE + 40];
    cc_error_code code = CC_OK;
    for (size_t i = 0; i < all->count && code == CC_OK; i++) {
        const struct cci_mount *m = all->at[i];
        if (!m->guest_path)
            continue;
        code = cci_control_ask(ctl, CCI_MSG_MOUNT, cci_mount_put, m, wait, "a share to be mounted", err);
        (void)snprintf(within, sizeof(within), "mounting \"%s\" in the guest", m->tag);
        if (code)
            code = cci_fail_within(err, code, within);
        if (code && err && !err->path)
            err->path = cci_mem_strdup(m->guest_path);
    }
    return code;
}

#endif
