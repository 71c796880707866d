/*
 * share/entry.h - names in directories: LOOKUP, MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, READLINK.
 *
 * Before a name is taken away from a file that the guest knows, the file is opened (cci_share_hold), because the guest
 * may go on using it: an open file, or somebody's working directory.
 */
#ifndef CCI_SHARE_ENTRY_H
#define CCI_SHARE_ENTRY_H

#include "attr.h"

/* Tells the guest of `name` in the directory. 0, or an error number. */
static int cci_share_put_entry(struct cci_share_req *r, const struct cci_share_use *dir, const char *name)
{
    struct cci_os_statx sx;
    uint8_t reply[CCI_FUSE_ENTRY_SIZE];
    int result = cci_os_statx_at(dir->fd, name, &sx);
    if (result)
        return result;
    uint64_t number = cci_share_enter(r->share, dir->node, name, &sx);
    if (!number)
        return -ENOMEM;
    cci_share_fill_entry(r->share, number, &sx, reply);
    cci_share_put(r, reply, sizeof(reply));
    return 0;
}

static int cci_share_lookup(struct cci_share_req *r)
{
    struct cci_share_use dir;
    int result = cci_share_use(r->share, r->node, &dir);
    if (result)
        return result;
    result = cci_share_put_entry(r, &dir, r->name[0]);
    cci_share_done(r->share, &dir);
    return result;
}

/* ---- Making --------------------------------------------------------------------------------------------------- */

/* MKNOD: mode 4, device 4, umask 4, padding 4. No devices: those made here would be the host's. */
static int cci_share_make_node(struct cci_share_req *r, cci_fd dir)
{
    const uint32_t mode = cci_le32(r->args), type = mode & 0170000u;
    if (type == 0020000 || type == 0060000)
        return -EPERM;
    if (type != 0 && type != 0100000 && type != 0010000 && type != 0140000)
        return -EINVAL;
    return cci_os_mknod_at(dir, r->name[0], cci_share_mode(r->share, mode));
}

/* MKDIR: mode 4, umask 4. */
static int cci_share_make_dir(struct cci_share_req *r, cci_fd dir)
{
    return cci_os_mkdir_at(dir, r->name[0], cci_le32(r->args) & 07777u);
}

/* SYMLINK: the name, and the target, which only the guest ever follows. */
static int cci_share_make_link(struct cci_share_req *r, cci_fd dir)
{
    const char *target = cci_share_take_string(r);
    return target ? cci_os_symlink_at(target, dir, r->name[0]) : -EINVAL;
}

static int cci_share_make(struct cci_share_req *r, int (*fn)(struct cci_share_req *r, cci_fd dir))
{
    struct cci_share_use dir;
    int result = cci_share_use(r->share, r->node, &dir);
    if (result)
        return result;
    cci_share_become(r);
    result = fn(r, dir.fd);
    cci_share_be_self(r);
    if (result == 0)
        result = cci_share_put_entry(r, &dir, r->name[0]);
    cci_share_done(r->share, &dir);
    return result;
}

static int cci_share_mknod(struct cci_share_req *r)
{
    return cci_share_make(r, cci_share_make_node);
}

static int cci_share_mkdir(struct cci_share_req *r)
{
    return cci_share_make(r, cci_share_make_dir);
}

static int cci_share_symlink(struct cci_share_req *r)
{
    return cci_share_make(r, cci_share_make_link);
}

/* LINK: the number of the file 8; then its new name in the request's directory. */
static int cci_share_link(struct cci_share_req *r)
{
    struct cci_share_use file, dir;
    int result = cci_share_use(r->share, r->node, &dir);
    if (result)
        return result;
    result = cci_share_use(r->share, cci_le64(r->args), &file);
    if (result == 0) {
        result = cci_os_link_fd(file.fd, dir.fd, r->name[0]);
        cci_share_done(r->share, &file);
    }
    if (result == 0)
        result = cci_share_put_entry(r, &dir, r->name[0]);
    cci_share_done(r->share, &dir);
    return result;
}

/* ---- Taking away ------------------------------------------------------------------------------------------------ */

static int cci_share_remove(struct cci_share_req *r, bool directory)
{
    struct cci_share_use dir, file;
    int result = cci_share_use(r->share, r->node, &dir);
    if (result)
        return result;
    bool held = cci_share_hold(r->share, dir.fd, r->name[0], &file);
    result = cci_os_unlink_at(dir.fd, r->name[0], directory);
    if (held) {
        if (result == 0)
            cci_share_name_gone(r->share, &file, dir.node, r->name[0]);
        cci_share_done(r->share, &file);
    }
    cci_share_done(r->share, &dir);
    return result;
}

static int cci_share_unlink(struct cci_share_req *r)
{
    return cci_share_remove(r, false);
}

static int cci_share_rmdir(struct cci_share_req *r)
{
    return cci_share_remove(r, true);
}

/* Both names are taken care of on both sides, whatever stands under them. */
static int cci_share_rename_in(struct cci_share_req *r, const struct cci_share_use *from,
                               const struct cci_share_use *to, unsigned flags)
{
    struct cci_share *s = r->share;
    struct cci_share_use moved, replaced;
    bool has_moved = cci_share_hold(s, from->fd, r->name[0], &moved);
    bool has_replaced = cci_share_hold(s, to->fd, r->name[1], &replaced);
    int result = cci_os_rename_at(from->fd, r->name[0], to->fd, r->name[1], flags);
    /* Two names of one file: nothing happens, both stay. */
    bool changed = result == 0 && !(has_moved && has_replaced && moved.node == replaced.node);
    if (has_replaced && changed && (flags & CCI_OS_RENAME_EXCHANGE))
        cci_share_name_is(s, &replaced, from->node, r->name[0]);
    else if (has_replaced && changed)
        cci_share_name_gone(s, &replaced, to->node, r->name[1]);
    if (has_moved && changed)
        cci_share_name_is(s, &moved, to->node, r->name[1]);
    if (has_moved)
        cci_share_done(s, &moved);
    if (has_replaced)
        cci_share_done(s, &replaced);
    return result;
}

static int cci_share_rename_with(struct cci_share_req *r, unsigned flags)
{
    struct cci_share_use from, to;
    if (flags & ~(CCI_OS_RENAME_NOREPLACE | CCI_OS_RENAME_EXCHANGE)) /* a whiteout is a device */
        return -EINVAL;
    int result = cci_share_use(r->share, r->node, &from);
    if (result)
        return result;
    result = cci_share_use(r->share, cci_le64(r->args), &to);
    if (result == 0) {
        result = cci_share_rename_in(r, &from, &to, flags);
        cci_share_done(r->share, &to);
    }
    cci_share_done(r->share, &from);
    return result;
}

/* RENAME: the number of the new directory 8; then the old and the new name. */
static int cci_share_rename(struct cci_share_req *r)
{
    return cci_share_rename_with(r, 0);
}

/* RENAME2: the same with flags 4 and padding 4 behind the number. */
static int cci_share_rename2(struct cci_share_req *r)
{
    return cci_share_rename_with(r, cci_le32(r->args + 8));
}

/* ---- READLINK ------------------------------------------------------------------------------------------------------
 */

static int cci_share_readlink(struct cci_share_req *r)
{
    char target[4096];
    struct cci_share_use use;
    int result = cci_share_use(r->share, r->node, &use);
    if (result)
        return result;
    int64_t n = use.node->key.type == 0120000 ? cci_os_readlink_fd(use.fd, target, sizeof(target)) : -EINVAL;
    cci_share_done(r->share, &use);
    if (n < 0)
        return (int)n;
    if ((size_t)n > r->room)
        return -ENAMETOOLONG;
    cci_share_put(r, target, (size_t)n);
    return 0;
}

#endif
