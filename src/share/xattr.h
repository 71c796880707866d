/*
 * share/xattr.h - extended attributes: GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR.
 *
 * Squashed, only the "user." ones are the guest's: the others speak of owners, capabilities and labels of the host,
 * and are neither shown nor set. Where owners are the same on both sides all pass.
 */
#ifndef CCI_SHARE_XATTR_H
#define CCI_SHARE_XATTR_H

#include "request.h"

#define CCI_SHARE_XATTR_MAX 65536u /* bytes of a value, or of a list of names: the kernel's own limit */

static bool cci_share_xattr_shown(const struct cci_share *s, const char *name)
{
    return s->config.identity || strncmp(name, "user.", 5) == 0;
}

/* The name off the front of what follows the arguments. `hidden` is the answer for one that is not the guest's. */
static int cci_share_take_xattr_name(struct cci_share_req *r, int hidden, const char **out)
{
    const char *name = *out = cci_share_take_string(r);
    if (!name || !*name)
        return -EINVAL;
    if (strlen(name) > CCI_FUSE_NAME_MAX)
        return -ERANGE;
    return cci_share_xattr_shown(r->share, name) ? 0 : hidden;
}

/* Replies with n bytes, or where the guest asks with size 0, with n itself: size 4, padding 4. */
static int cci_share_put_sized(struct cci_share_req *r, const void *data, size_t n)
{
    const uint32_t size = cci_le32(r->args);
    uint8_t reply[8] = {0};
    if (size == 0) {
        cci_put_le32(reply, (uint32_t)n);
        cci_share_put(r, reply, sizeof(reply));
        return 0;
    }
    if (n > size || n > r->room)
        return -ERANGE;
    cci_share_put(r, data, n);
    return 0;
}

/* Leaves of a list of names those that the guest may see; how many bytes they take. */
static size_t cci_share_filter_names(const struct cci_share *s, char *list, size_t n)
{
    size_t kept = 0;
    for (size_t at = 0, len; at < n; at += len) {
        len = strlen(list + at) + 1;
        if (cci_share_xattr_shown(s, list + at)) {
            memmove(list + kept, list + at, len);
            kept += len;
        }
    }
    return kept;
}

/* GETXATTR with a name, LISTXATTR with none. */
static int cci_share_read_xattr(struct cci_share_req *r, const char *name)
{
    struct cci_share_use use;
    char *buf = cci_mem_alloc(CCI_SHARE_XATTR_MAX);
    if (!buf)
        return -ENOMEM;
    int result = cci_share_use(r->share, r->node, &use);
    if (result == 0) {
        int64_t n = name ? cci_os_getxattr_fd(use.fd, name, buf, CCI_SHARE_XATTR_MAX)
                         : cci_os_listxattr_fd(use.fd, buf, CCI_SHARE_XATTR_MAX);
        cci_share_done(r->share, &use);
        if (n > 0 && !name)
            n = (int64_t)cci_share_filter_names(r->share, buf, (size_t)n);
        result = n < 0 ? (int)n : cci_share_put_sized(r, buf, (size_t)n);
    }
    cci_mem_free(buf);
    return result;
}

/* GETXATTR: size 4, padding 4; the name. */
static int cci_share_getxattr(struct cci_share_req *r)
{
    const char *name;
    int result = cci_share_take_xattr_name(r, -ENODATA, &name);
    return result ? result : cci_share_read_xattr(r, name);
}

/* LISTXATTR: size 4, padding 4. */
static int cci_share_listxattr(struct cci_share_req *r)
{
    return cci_share_read_xattr(r, NULL);
}

/* SETXATTR: size 4, flags 4; the name, the value. */
static int cci_share_setxattr(struct cci_share_req *r)
{
    struct cci_share_use use;
    const char *name;
    const uint32_t size = cci_le32(r->args), flags = cci_le32(r->args + 4);
    int result = cci_share_take_xattr_name(r, -EOPNOTSUPP, &name);
    if (result)
        return result;
    (void)cci_iov_skip(&r->data, strlen(name) + 1);
    uint8_t *value = size <= CCI_SHARE_XATTR_MAX ? cci_mem_alloc(size) : NULL;
    if (!value)
        return size <= CCI_SHARE_XATTR_MAX ? -ENOMEM : -E2BIG;
    result = cci_iov_read(&r->data, value, size) == size ? cci_share_use(r->share, r->node, &use) : -EINVAL;
    if (result == 0) {
        result = cci_os_setxattr_fd(use.fd, name, value, size, flags);
        cci_share_done(r->share, &use);
    }
    cci_mem_free(value);
    return result;
}

/* REMOVEXATTR: the name. */
static int cci_share_removexattr(struct cci_share_req *r)
{
    struct cci_share_use use;
    const char *name;
    int result = cci_share_take_xattr_name(r, -EOPNOTSUPP, &name);
    if (result == 0)
        result = cci_share_use(r->share, r->node, &use);
    if (result)
        return result;
    result = cci_os_removexattr_fd(use.fd, name);
    cci_share_done(r->share, &use);
    return result;
}

#endif
