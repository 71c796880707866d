/*
 * share/attr.h - attributes and owners: GETATTR, SETATTR, STATFS.
 *
 * Times, sizes and permissions are the host's own. Owners are as share.h says. The inode number is the host's; a file
 * on another filesystem below the shared directory has that filesystem mixed into the upper bits, because all is one
 * filesystem to the guest.
 */
#ifndef CCI_SHARE_ATTR_H
#define CCI_SHARE_ATTR_H

#include "request.h"

#define CCI_SHARE_SET_ID 06000u /* S_ISUID | S_ISGID */

/* ---- Owners ------------------------------------------------------------------------------------------------- */

/* Permission bits as the guest may set or see them. */
static unsigned cci_share_mode(const struct cci_share *s, uint32_t mode)
{
    bool runs = (mode & 0170000u) != 0040000u && !s->config.identity;
    return runs ? mode & ~CCI_SHARE_SET_ID : mode;
}

/* The thread becomes the user who asks, where owners are the same on both sides, to make a file as him; and back. */
static void cci_share_become(const struct cci_share_req *r)
{
    if (r->share->config.identity)
        cci_os_set_fs_ids(r->uid, r->gid);
}

static void cci_share_be_self(const struct cci_share_req *r)
{
    if (r->share->config.identity)
        cci_os_set_fs_ids(cci_os_euid(), cci_os_egid());
}

/* Squashed, giving a file to the one whom all belong to changes nothing, and to anybody else is refused. */
static int cci_share_chown(const struct cci_share *s, cci_fd fd, uint32_t uid, uint32_t gid)
{
    if (s->config.identity)
        return cci_os_chown_fd(fd, uid, gid);
    bool same = (uid == UINT32_MAX || uid == s->config.uid) && (gid == UINT32_MAX || gid == s->config.gid);
    return same ? 0 : -EPERM;
}

/* Takes the set-id bits off a file that was written to, as the guest's kernel asks for if the writer does not own it.
 * The host's does it by itself only for ordinary users. */
static void cci_share_kill_priv(cci_fd fd)
{
    struct cci_os_statx sx;
    if (cci_os_statx_at(fd, "", &sx) < 0 || !(sx.mode & CCI_SHARE_SET_ID))
        return;
    unsigned off = 04000u | (sx.mode & 010u ? 02000u : 0u); /* set-gid without group execution means locking */
    (void)cci_os_chmod_fd(fd, sx.mode & 07777u & ~off);
}

/* The same for a file that a guest with squashed owners is going to change: its kernel does not know of the bits. */
static void cci_share_squash_priv(const struct cci_share *s, cci_fd fd)
{
    if (!s->config.identity)
        cci_share_kill_priv(fd);
}

/* ---- Replies -------------------------------------------------------------------------------------------------- */

static uint32_t cci_share_rdev(const struct cci_os_statx *sx)
{
    return (sx->rdev_minor & 0xffu) | sx->rdev_major << 8 | (sx->rdev_minor & ~0xffu) << 12;
}

static uint64_t cci_share_inode(const struct cci_share *s, const struct cci_os_statx *sx)
{
    const uint64_t device = (uint64_t)sx->dev_major << 32 | sx->dev_minor;
    return device == s->root->key.device ? sx->ino : sx->ino ^ (device * 0x9e3779b97f4a7c15u & (uint64_t)0xffff << 48);
}

/* struct fuse_attr: ino 8, size 8, blocks 8, three times 8 each, their nanoseconds 4 each, mode 4, nlink 4, uid 4, gid
 * 4, rdev 4, blksize 4, flags 4. */
static void cci_share_fill_attr(const struct cci_share *s, const struct cci_os_statx *sx, uint8_t *p)
{
    const bool same = s->config.identity;
    cci_put_le64(p, cci_share_inode(s, sx));
    cci_put_le64(p + 8, sx->size);
    cci_put_le64(p + 16, sx->blocks);
    cci_put_le64(p + 24, (uint64_t)sx->atime.sec);
    cci_put_le64(p + 32, (uint64_t)sx->mtime.sec);
    cci_put_le64(p + 40, (uint64_t)sx->ctime.sec);
    cci_put_le32(p + 48, sx->atime.nsec);
    cci_put_le32(p + 52, sx->mtime.nsec);
    cci_put_le32(p + 56, sx->ctime.nsec);
    cci_put_le32(p + 60, cci_share_mode(s, sx->mode));
    cci_put_le32(p + 64, sx->nlink);
    cci_put_le32(p + 68, same ? sx->uid : s->config.uid);
    cci_put_le32(p + 72, same ? sx->gid : s->config.gid);
    cci_put_le32(p + 76, cci_share_rdev(sx));
    cci_put_le32(p + 80, sx->blksize);
    cci_put_le32(p + 84, 0);
}

/* What LOOKUP and the like reply, into 128 bytes. */
static void cci_share_fill_entry(const struct cci_share *s, uint64_t number, const struct cci_os_statx *sx, uint8_t *p)
{
    memset(p, 0, CCI_FUSE_ENTRY_SIZE);
    cci_put_le64(p, number);
    cci_put_le64(p + 16, CCI_SHARE_VALID_SECONDS);
    cci_put_le64(p + 24, CCI_SHARE_VALID_SECONDS);
    cci_share_fill_attr(s, sx, p + 40);
}

static void cci_share_put_attr(struct cci_share_req *r, struct cci_share_use *use, const struct cci_os_statx *sx)
{
    uint8_t reply[CCI_FUSE_ATTR_REPLY_SIZE] = {0};
    cci_put_le64(reply, CCI_SHARE_VALID_SECONDS);
    cci_share_fill_attr(r->share, sx, reply + 16);
    cci_share_put(r, reply, sizeof(reply));
    cci_share_size_told(r->share, use->node, sx->size, false);
}

/* ---- GETATTR: flags 4, padding 4, handle 8 -------------------------------------------------------------------- */

static int cci_share_getattr(struct cci_share_req *r)
{
    struct cci_share_use use;
    struct cci_os_statx sx;
    int result = cci_share_use(r->share, r->node, &use);
    if (result)
        return result;
    result = cci_os_statx_at(use.fd, "", &sx);
    if (result == 0)
        cci_share_put_attr(r, &use, &sx);
    cci_share_done(r->share, &use);
    return result;
}

/* ---- SETATTR: valid 4, padding 4, handle 8, size 8, lock owner 8, three times 8 each, their nanoseconds 4 each, mode
 *      4, unused 4, uid 4, gid 4, unused 4 ------------------------------------------------------------------------- */

static int cci_share_set_size(struct cci_share_req *r, uint32_t valid, cci_fd fd)
{
    const uint64_t size = cci_le64(r->args + 16);
    struct cci_share_handle *h = NULL;
    if (size > INT64_MAX)
        return -EFBIG;
    cci_share_squash_priv(r->share, fd);
    if (valid & CCI_FUSE_SET_HANDLE)
        h = cci_share_handle_get(r->share, cci_le64(r->args + 8), r->node, false);
    int result = h && h->writable ? cci_os_truncate(h->fd, size) : cci_os_truncate_named(fd, size);
    if (h)
        cci_share_handle_put(r->share, h);
    return result;
}

static int cci_share_set_times(const struct cci_share_req *r, uint32_t valid, cci_fd fd)
{
    struct cci_os_timespec times[2] = {{0, CCI_OS_TIME_OMIT}, {0, CCI_OS_TIME_OMIT}};
    static const uint32_t given[] = {CCI_FUSE_SET_ATIME, CCI_FUSE_SET_MTIME};
    static const uint32_t now[] = {CCI_FUSE_SET_ATIME_NOW, CCI_FUSE_SET_MTIME_NOW};
    for (unsigned i = 0; i < 2; i++) {
        if (valid & now[i]) {
            times[i].nsec = CCI_OS_TIME_NOW;
        } else if (valid & given[i]) {
            times[i].sec = (int64_t)cci_le64(r->args + 32 + i * 8);
            times[i].nsec = cci_le32(r->args + 56 + i * 4);
            if (times[i].nsec >= 1000000000)
                return -EINVAL;
        }
    }
    return cci_os_utimens_fd(fd, times);
}

static int cci_share_set_all(struct cci_share_req *r, const struct cci_share_use *use)
{
    const struct cci_share *s = r->share;
    const uint32_t valid = cci_le32(r->args), type = use->node->key.type;
    int result = 0;
    /* Only these have contents or permissions of their own; what the host makes of others is no business of a guest. */
    if ((valid & CCI_FUSE_SET_SIZE) && type != 0100000)
        return type == 0040000 ? -EISDIR : -EINVAL;
    if ((valid & CCI_FUSE_SET_MODE) && type == 0120000)
        return -EOPNOTSUPP;
    if (valid & (CCI_FUSE_SET_UID | CCI_FUSE_SET_GID))
        result = cci_share_chown(s, use->fd, valid & CCI_FUSE_SET_UID ? cci_le32(r->args + 76) : UINT32_MAX,
                                 valid & CCI_FUSE_SET_GID ? cci_le32(r->args + 80) : UINT32_MAX);
    if (result == 0 && (valid & CCI_FUSE_SET_MODE))
        result = cci_os_chmod_fd(use->fd, cci_share_mode(s, type | (cci_le32(r->args + 68) & 07777u)) & 07777u);
    if (result == 0 && (valid & CCI_FUSE_SET_SIZE))
        result = cci_share_set_size(r, valid, use->fd);
    if (result == 0 && (valid & CCI_FUSE_SET_KILL_PRIV) && type == 0100000)
        cci_share_kill_priv(use->fd);
    if (result == 0 && (valid & (CCI_FUSE_SET_ATIME | CCI_FUSE_SET_MTIME)))
        result = cci_share_set_times(r, valid, use->fd);
    return result;
}

static int cci_share_setattr(struct cci_share_req *r)
{
    struct cci_share_use use;
    struct cci_os_statx sx;
    int result = cci_share_use(r->share, r->node, &use);
    if (result)
        return result;
    result = cci_share_set_all(r, &use);
    if (result == 0)
        result = cci_os_statx_at(use.fd, "", &sx);
    if (result == 0)
        cci_share_put_attr(r, &use, &sx);
    cci_share_done(r->share, &use);
    return result;
}

/* ---- STATFS ------------------------------------------------------------------------------------------------------ */

/* Replies blocks 8, bfree 8, bavail 8, files 8, ffree 8, bsize 4, namelen 4, frsize 4, 28 unused. */
static int cci_share_statfs(struct cci_share_req *r)
{
    struct cci_share_use use;
    struct cci_os_statfs fs;
    uint8_t reply[80] = {0};
    int result = cci_share_use(r->share, r->node, &use);
    if (result)
        return result;
    result = cci_os_statfs_fd(use.fd, &fs);
    cci_share_done(r->share, &use);
    if (result)
        return result;
    cci_put_le64(reply, fs.blocks);
    cci_put_le64(reply + 8, fs.bfree);
    cci_put_le64(reply + 16, fs.bavail);
    cci_put_le64(reply + 24, fs.files);
    cci_put_le64(reply + 32, fs.ffree);
    cci_put_le32(reply + 40, (uint32_t)fs.bsize);
    cci_put_le32(reply + 44, CCI_FUSE_NAME_MAX);
    cci_put_le32(reply + 48, (uint32_t)fs.frsize);
    cci_share_put(r, reply, sizeof(reply));
    return 0;
}

#endif
