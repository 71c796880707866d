/*
 * api/kernel.h - the kernel of an instance that names none: fetched once into the cache (registry/kernel_fetch.h).
 *
 *     CACHE/kernel.lock     locked (flock) by who fetches; others wait, and then find the bundle
 *     CACHE/tmp/<random>    where the bundle is put together
 *     CACHE/kernel          the bundle: there whole, by one rename, or not at all
 *
 * It is a step in machine/kernel.h's order of places. It stands before the start of the machine and its deadline: a
 * download may take as long as it takes, and ends with the instance's cancel token. As flock cannot be waited for
 * together with a token, the lock is tried every 50 ms, in a wait that the token ends at once.
 */
#ifndef CCI_API_KERNEL_H
#define CCI_API_KERNEL_H

#include "../image/store.h"
#include "../machine/kernel.h"
#include "../registry/client.h"
#include "../registry/kernel_fetch.h"
#include "log.h"

#define CCI_KERNEL_LOCK_NS ((uint64_t)50 * 1000000u)

struct cci_kernel_step {
    const struct cci_store *store;
    const struct cci_wait *wait;
};

static void cci_kernel_say(void *ctx, const char *line)
{
    (void)ctx;
    cci_log_line(CC_LOG_INFO, line);
}

/* Looks for the bundle. *there, or its name is free; anything else is an error, before something is fetched in vain. */
static cc_error_code cci_kernel_look(const char *bundle, bool *there, cc_error *err)
{
    struct cci_kernel k;
    k.fd = CCI_NO_FD;
    int r = cci_kernel_open_path(&k, bundle);
    cci_kernel_close(&k);
    *there = r == 0;
    if (r < 0 && r != -ENOENT)
        return cci_fail_errno(err, CC_ERR_IO, -r, bundle, "cannot open %s: %s", bundle, cci_errno_text(-r));
    if (r < 0)
        r = cci_os_rmdir(bundle); /* one that is empty may be replaced */
    if (r == 0 || r == -ENOENT)
        return CC_OK;
    return cci_fail_errno(err, CC_ERR_IO, -r, bundle, "%s is no kernel: remove it, and one is fetched", bundle);
}

/* Puts the bundle together in a temporary directory, and renames that. */
static cc_error_code cci_kernel_fetch_bundle(const struct cci_kernel_step *s, struct cci_kernel_fetch *fetch,
                                             const char *bundle, cc_error *err)
{
    struct cci_store_tmp tmp;
    cc_error_code code = cci_store_tmp_new(s->store, &tmp, err);
    if (code)
        return code;
    code = cci_kernel_fetch_into(fetch, tmp.path, err);
    int r = code ? 0 : cci_store_dir_synced(cci_os_sync_tree(tmp.fd));
    if (!code && r == 0)
        r = cci_os_rename(tmp.path, bundle);
    if (!code && r == 0)
        r = cci_store_dir_synced(cci_os_sync_dir(s->store->dir));
    if (r < 0)
        code = cci_fail_errno(err, CC_ERR_IO, -r, bundle, "cannot put the fetched kernel into %s: %s", bundle,
                              cci_errno_text(-r));
    cci_store_tmp_drop(&tmp);
    return code;
}

/* Locks CACHE/kernel.lock; close *fd to unlock. */
static cc_error_code cci_kernel_lock(const struct cci_kernel_step *s, cci_fd *fd, cc_error *err)
{
    int r = -ENOMEM;
    char *path = cci_store_path(s->store, "kernel.lock", "");
    *fd = path ? cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_NOFOLLOW, 0600) : -ENOMEM;
    cc_error_code code = CC_OK;
    while (*fd >= 0 && !code && (r = cci_os_flock(*fd, CCI_OS_LOCK_EXCLUSIVE, false)) == -EWOULDBLOCK)
        code = cci_registry_pause(s->wait, CCI_KERNEL_LOCK_NS, "somebody else to fetch the guest's kernel", err);
    if (!code && (*fd < 0 || r < 0))
        code = cci_store_fail(err, *fd < 0 ? *fd : r, path, "lock the guest's kernel");
    cci_mem_free(path);
    return code;
}

/* Names the URL or file in the message, as the error may end up as a part of another, and tells the log. */
static cc_error_code cci_kernel_not_fetched(cc_error_code code, cc_error *err)
{
    if (err->path && err->message && !strstr(err->message, err->path))
        (void)cci_fail_within(err, code, err->path);
    if (code != CC_ERR_CANCELLED)
        cci_log_printf(CC_LOG_INFO, "guest kernel: none could be fetched: %s", err->message ? err->message : "");
    return code;
}

/* cci_kernel_fetch_fn: makes `bundle`, unless somebody has meanwhile. `err` is not NULL. */
static cc_error_code cci_kernel_fetch_step(void *ctx, const char *bundle, cc_error *err)
{
    const struct cci_kernel_step *s = ctx;
    const char *mirror = getenv("CC_KERNEL_MIRROR"), *keys = getenv("CC_KERNEL_KEY");
    const struct cci_kernel_fetch_spec spec = {
        .mirror = mirror && *mirror ? mirror : NULL,
        .key_file = keys && *keys ? keys : NULL,
        .wait = s->wait,
        .say = cci_kernel_say,
    };
    struct cci_kernel_fetch *fetch = NULL;
    cci_fd lock = CCI_NO_FD;
    if (mirror && strcmp(mirror, "off") == 0)
        return cci_fail(err, CC_ERR_NETWORK, NULL, "$CC_KERNEL_MIRROR is \"off\"");
    bool there = false;
    cc_error_code code = cci_kernel_fetch_open(&spec, &fetch, err);
    if (!code)
        code = cci_kernel_lock(s, &lock, err);
    if (!code)
        code = cci_kernel_look(bundle, &there, err);
    if (!code && !there)
        code = cci_kernel_fetch_bundle(s, fetch, bundle, err);
    cci_os_close(lock);
    cci_kernel_fetch_close(fetch);
    return code ? cci_kernel_not_fetched(code, err) : CC_OK;
}

/* Finds the kernel for an instance and opens it: cci_kernel_close. `option` may be NULL. */
static cc_error_code cci_kernel_choose(struct cci_kernel *k, const char *option, const struct cci_store *store,
                                       const struct cci_wait *wait, cc_error *err)
{
    struct cci_kernel_step step = {store, wait};
    return cci_kernel_open(k, option, store->dir, cci_kernel_fetch_step, &step, err);
}

#endif
