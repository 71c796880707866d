/*
 * share/file.h - open files: OPEN, CREATE, TMPFILE, READ, WRITE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE, RELEASE.
 *
 * Reads and writes go between the file and the memory that the request lies in, without a copy in between. The host's
 * descriptor is never opened for appending, because the guest may switch that on and off later; each WRITE says whether
 * it appends, and then the host finds the end, so that several writers on both sides do not overwrite each other.
 */
#ifndef CCI_SHARE_FILE_H
#define CCI_SHARE_FILE_H

#include "entry.h"

#define CCI_SHARE_QUICK_WRITE 65536u          /* bytes: more may make the host wait until less is dirty */
#define CCI_SHARE_PIECES 256u                 /* of memory in one call */
#define CCI_SHARE_COPY_MAX ((size_t)64 << 20) /* bytes copied by one request; the guest asks for the rest again */
#define CCI_OS_RWF_APPEND 16L

/* The guest's open flags as far as they matter to the host's descriptor. */
static int cci_share_open_flags(uint32_t flags)
{
    return (int)(flags & (3u | CCI_OS_TRUNC | CCI_OS_SYNC));
}

static bool cci_share_open_writes(uint32_t flags)
{
    return (flags & 3u) != CCI_OS_RDONLY || (flags & CCI_OS_TRUNC);
}

/* Completes OPEN and CREATE: the handle is for `fd`, which it takes over. */
static void cci_share_put_handle(struct cci_share_req *r, struct cci_share_handle *h, struct cci_share_node *n,
                                 cci_fd fd, uint32_t flags, uint32_t reply_flags)
{
    uint8_t reply[CCI_FUSE_OPEN_REPLY_SIZE] = {0};
    cci_put_le64(reply, h->number);
    cci_put_le32(reply + 8, reply_flags);
    cci_share_put(r, reply, sizeof(reply));
    cci_share_handle_open(r->share, h, n, fd, false, (flags & 3u) != CCI_OS_RDONLY);
}

/* The file was just opened, and is as `sx` says: whether the guest's cached pages are still right. -ESTALE when the
 * guest should look its name up again: it is not the file of that name any more, or has another size than the guest
 * thinks, which is then taken as told, since not every open has a name to look up. */
static int cci_share_is_unchanged(struct cci_share *s, struct cci_share_node *n, const struct cci_os_statx *sx)
{
    cci_mutex_lock(&s->mutex);
    int result = n->opened && n->changed.sec == sx->ctime.sec && n->changed.nsec == sx->ctime.nsec;
    if ((sx->nlink == 0 && !n->keep_fd && !n->handles) || n->guest_size != sx->size)
        result = -ESTALE;
    n->opened = result >= 0;
    n->changed = sx->ctime;
    n->guest_size = sx->size;
    cci_mutex_unlock(&s->mutex);
    return result;
}

/* Opens a file that is there, for the handle, if that goes well. */
static int cci_share_open_existing(struct cci_share_req *r, struct cci_share_handle *h, const struct cci_share_use *use,
                                   uint32_t flags, uint32_t open_flags)
{
    struct cci_os_statx sx;
    if ((flags & 3u) == 3u)
        return -EINVAL;
    if (use->node->key.type == 0040000)
        return -EISDIR;
    cci_fd fd = cci_share_open_fd(r->share, use, cci_share_open_flags(flags));
    if (fd < 0)
        return fd;
    if ((flags & CCI_OS_TRUNC) && (open_flags & CCI_FUSE_OPEN_KILL_PRIV))
        cci_share_kill_priv(fd);
    if (cci_share_open_writes(flags))
        cci_share_squash_priv(r->share, fd);
    int result = cci_os_statx_at(fd, "", &sx);
    if (flags & CCI_OS_TRUNC) /* the guest knows */
        cci_share_size_told(r->share, use->node, sx.size, false);
    if (result == 0)
        result = cci_share_is_unchanged(r->share, use->node, &sx);
    if (result < 0) {
        cci_os_close(fd);
        return result;
    }
    cci_share_put_handle(r, h, use->node, fd, flags, result ? CCI_FUSE_KEEP_CACHE : 0);
    return 0;
}

/* OPEN: flags 4, open_flags 4. */
static int cci_share_open(struct cci_share_req *r)
{
    struct cci_share_use use;
    const uint32_t flags = cci_le32(r->args);
    if (cci_share_open_writes(flags) && !r->share->config.writable)
        return -EROFS;
    struct cci_share_handle *h;
    int result = cci_share_handle_reserve(r->share, &h);
    if (result)
        return result;
    result = cci_share_use(r->share, r->node, &use);
    if (result == 0) {
        result = cci_share_open_existing(r, h, &use, flags, cci_le32(r->args + 4));
        cci_share_done(r->share, &use);
    }
    if (result)
        cci_share_handle_cancel(r->share, h);
    return result;
}

/* Tells the guest of a file that was just made, and is open as `fd`: an entry and the handle. */
static int cci_share_put_created(struct cci_share_req *r, struct cci_share_handle *h, struct cci_share_node *parent,
                                 const char *name, cci_fd fd, uint32_t flags)
{
    struct cci_os_statx sx;
    uint8_t reply[CCI_FUSE_ENTRY_SIZE];
    int result = cci_os_statx_at(fd, "", &sx);
    uint64_t number = result ? 0 : cci_share_enter(r->share, parent, name, &sx);
    struct cci_share_node *n = number ? cci_share_get_node(r->share, number) : NULL;
    if (!n) {
        cci_os_close(fd);
        return result ? result : -ENOMEM;
    }
    cci_share_fill_entry(r->share, number, &sx, reply);
    cci_share_put(r, reply, sizeof(reply));
    cci_share_put_handle(r, h, n, fd, flags, 0);
    cci_share_put_node(r->share, n);
    return 0;
}

/* CREATE of a name that is taken, by a guest that does not mind: as LOOKUP and OPEN. */
static int cci_share_create_existing(struct cci_share_req *r, struct cci_share_handle *h,
                                     const struct cci_share_use *dir, uint32_t flags)
{
    struct cci_os_statx sx;
    struct cci_share_use use;
    uint8_t reply[CCI_FUSE_ENTRY_SIZE];
    int result = cci_os_statx_at(dir->fd, r->name[0], &sx);
    if (result)
        return result;
    uint64_t number = cci_share_enter(r->share, dir->node, r->name[0], &sx);
    if (!number)
        return -ENOMEM;
    result = cci_share_use(r->share, number, &use);
    if (result == 0) {
        cci_share_fill_entry(r->share, number, &sx, reply);
        cci_share_put(r, reply, sizeof(reply));
        result = cci_share_open_existing(r, h, &use, flags, cci_le32(r->args + 12));
        cci_share_done(r->share, &use);
    }
    if (result)
        cci_share_forget(r->share, number, 1);
    return result;
}

/* What is made here is a regular file for certain; what was there before is opened only if it is one. */
static int cci_share_create_in(struct cci_share_req *r, struct cci_share_handle *h, const struct cci_share_use *dir,
                               uint32_t flags, uint32_t mode)
{
    cci_share_become(r);
    cci_fd fd =
        cci_os_open_at(dir->fd, r->name[0], cci_share_open_flags(flags) | CCI_OS_CREATE | CCI_OS_EXCL | CCI_OS_NONBLOCK,
                       cci_share_mode(r->share, mode) & 07777u);
    cci_share_be_self(r);
    if (fd >= 0)
        return cci_share_put_created(r, h, dir->node, r->name[0], fd, flags);
    return fd == -EEXIST && !(flags & CCI_OS_EXCL) ? cci_share_create_existing(r, h, dir, flags) : fd;
}

static int cci_share_tmpfile_in(struct cci_share_req *r, struct cci_share_handle *h, const struct cci_share_use *dir,
                                uint32_t flags, uint32_t mode)
{
    if ((flags & 3u) == CCI_OS_RDONLY)
        return -EINVAL;
    struct cci_os_fd_name path = cci_os_fd_name(dir->fd);
    cci_share_become(r);
    cci_fd fd = dir->node->key.type != 0040000
                    ? -ENOTDIR
                    : cci_os_open(path.s, (int)(flags & (3u | CCI_OS_EXCL | CCI_OS_SYNC)) | CCI_OS_TMPFILE,
                                  cci_share_mode(r->share, mode) & 07777u);
    cci_share_be_self(r);
    return fd < 0 ? fd : cci_share_put_created(r, h, NULL, "", fd, flags);
}

/* CREATE, and TMPFILE, which does not use the name: flags 4, mode 4, umask 4, open_flags 4. The handle comes first:
 * when there are no more of them, no file may be left behind. */
static int cci_share_create(struct cci_share_req *r)
{
    struct cci_share_use dir;
    struct cci_share_handle *h;
    const uint32_t flags = cci_le32(r->args), mode = 0100000u | (cci_le32(r->args + 4) & 07777u);
    if ((flags & 3u) == 3u)
        return -EINVAL;
    int result = cci_share_handle_reserve(r->share, &h);
    if (result)
        return result;
    result = cci_share_use(r->share, r->node, &dir);
    if (result == 0) {
        result = r->opcode == CCI_FUSE_TMPFILE ? cci_share_tmpfile_in(r, h, &dir, flags, mode)
                                               : cci_share_create_in(r, h, &dir, flags, mode);
        cci_share_done(r->share, &dir);
    }
    if (result)
        cci_share_handle_cancel(r->share, h);
    return result;
}

/* RELEASE, RELEASEDIR: handle 8, flags 4, release_flags 4, lock owner 8. */
static int cci_share_release(struct cci_share_req *r)
{
    cci_share_handle_release(r->share, cci_le64(r->args), r->node, r->opcode == CCI_FUSE_RELEASEDIR);
    return 0;
}

/* ---- Data ------------------------------------------------------------------------------------------------------ */

/* READ and WRITE: handle 8, offset 8, size 4, flags 4, lock owner 8, open flags 4, padding 4. */
static int cci_share_read_into(struct cci_share_req *r, cci_fd fd, uint64_t offset, size_t size)
{
    struct cci_iovec v[CCI_SHARE_PIECES];
    while (size) {
        struct cci_iov at = r->out;
        size_t n;
        unsigned count = cci_iov_take(&at, size, v, CCI_SHARE_PIECES, &n);
        /* What is in the page cache is had at once; for the rest somebody else may go on serving. */
        int64_t got = r->slow.fn ? cci_os_preadv(fd, v, count, offset, CCI_OS_NOWAIT) : -EAGAIN;
        if (got == -EAGAIN || got == -EOPNOTSUPP) {
            cci_share_is_slow(r);
            got = cci_os_preadv(fd, v, count, offset, 0);
        }
        if (got < 0)
            return r->filled ? 0 : (int)got;
        if (got == 0)
            break;
        (void)cci_iov_skip(&r->out, (size_t)got);
        r->filled += (size_t)got;
        r->room -= (size_t)got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

static int cci_share_read(struct cci_share_req *r)
{
    const size_t size = CCI_MIN(CCI_MIN(cci_le32(r->args + 16), r->room), CCI_SHARE_TRANSFER);
    struct cci_share_handle *h = cci_share_handle_get(r->share, cci_le64(r->args), r->node, false);
    if (!h)
        return -EBADF;
    int result = cci_share_read_into(r, h->fd, cci_le64(r->args + 8), size);
    cci_share_handle_put(r->share, h);
    return result;
}

/* How many bytes were written, or an error number if none. */
static int64_t cci_share_write_from(struct cci_share_req *r, cci_fd fd, uint64_t offset, size_t size, long flags)
{
    struct cci_iovec v[CCI_SHARE_PIECES];
    size_t done = 0;
    while (done < size) {
        struct cci_iov at = r->data;
        size_t n;
        unsigned count = cci_iov_take(&at, size - done, v, CCI_SHARE_PIECES, &n);
        int64_t got = cci_os_pwritev(fd, v, count, offset + done, flags);
        if (got <= 0)
            return done ? (int64_t)done : got ? got : -EIO;
        (void)cci_iov_skip(&r->data, (size_t)got);
        done += (size_t)got;
    }
    return (int64_t)done;
}

static int cci_share_put_written(struct cci_share_req *r, uint64_t n)
{
    uint8_t reply[8] = {0};
    cci_put_le32(reply, (uint32_t)n);
    cci_share_put(r, reply, sizeof(reply));
    return 0;
}

static int cci_share_write(struct cci_share_req *r)
{
    const size_t size = cci_le32(r->args + 16);
    const uint32_t how = cci_le32(r->args + 20);
    const bool append = (cci_le32(r->args + 32) & CCI_OS_APPEND) && !(how & CCI_FUSE_WRITE_CACHED);
    if (size > r->data_len || size > CCI_SHARE_TRANSFER)
        return -EINVAL;
    struct cci_share_handle *h = cci_share_handle_get(r->share, cci_le64(r->args), r->node, false);
    if (!h)
        return -EBADF;
    if (h->writable && (how & CCI_FUSE_WRITE_KILL_PRIV))
        cci_share_kill_priv(h->fd);
    if (size > CCI_SHARE_QUICK_WRITE)
        cci_share_is_slow(r);
    int64_t n = cci_share_write_from(r, h->fd, cci_le64(r->args + 8), size, append ? CCI_OS_RWF_APPEND : 0);
    if (n > 0)
        cci_share_size_told(r->share, h->node, cci_le64(r->args + 8) + (uint64_t)n, true);
    cci_share_handle_put(r->share, h);
    return n < 0 ? (int)n : cci_share_put_written(r, (uint64_t)n);
}

/* FSYNC, FSYNCDIR: handle 8, flags 4 (1: data only), padding 4. */
static int cci_share_fsync(struct cci_share_req *r)
{
    struct cci_share_handle *h =
        cci_share_handle_get(r->share, cci_le64(r->args), r->node, r->opcode == CCI_FUSE_FSYNCDIR);
    if (!h)
        return -EBADF;
    cci_share_is_slow(r);
    int result = cci_le32(r->args + 8) & 1 ? cci_os_fdatasync(h->fd) : cci_os_fsync(h->fd);
    cci_share_handle_put(r->share, h);
    return result;
}

/* FALLOCATE: handle 8, offset 8, length 8, mode 4, padding 4. */
static int cci_share_fallocate(struct cci_share_req *r)
{
    const uint32_t mode = cci_le32(r->args + 24);
    if (mode & ~(1u | 2u | 16u)) /* keep the size, punch a hole, zero a range */
        return -EOPNOTSUPP;
    struct cci_share_handle *h = cci_share_handle_get(r->share, cci_le64(r->args), r->node, false);
    if (!h)
        return -EBADF;
    cci_share_is_slow(r);
    int result = cci_os_fallocate(h->fd, mode, cci_le64(r->args + 8), cci_le64(r->args + 16));
    if (result == 0 && !(mode & 1))
        cci_share_size_told(r->share, h->node, cci_le64(r->args + 8) + cci_le64(r->args + 16), true);
    cci_share_handle_put(r->share, h);
    return result;
}

/* LSEEK: handle 8, offset 8, whence 4 (3: the next data, 4: the next hole), padding 4. Replies the offset 8. */
static int cci_share_lseek(struct cci_share_req *r)
{
    const uint32_t whence = cci_le32(r->args + 16);
    uint8_t reply[8];
    if (whence != 3 && whence != 4)
        return -EINVAL;
    struct cci_share_handle *h = cci_share_handle_get(r->share, cci_le64(r->args), r->node, false);
    if (!h)
        return -EBADF;
    int64_t at = cci_os_lseek(h->fd, cci_le64(r->args + 8), (long)whence);
    cci_share_handle_put(r->share, h);
    if (at < 0)
        return (int)at;
    cci_put_le64(reply, (uint64_t)at);
    cci_share_put(r, reply, sizeof(reply));
    return 0;
}

/* COPY_FILE_RANGE: from: handle 8, offset 8; to: node 8, handle 8, offset 8; length 8, flags 8. */
static int cci_share_copy_file_range(struct cci_share_req *r)
{
    const uint8_t *a = r->args;
    const uint64_t want = cci_le64(a + 40);
    if (cci_le64(a + 48))
        return -EINVAL;
    struct cci_share_handle *from = cci_share_handle_get(r->share, cci_le64(a), r->node, false);
    struct cci_share_handle *to = cci_share_handle_get(r->share, cci_le64(a + 24), cci_le64(a + 16), false);
    int64_t n = -EBADF;
    cci_share_is_slow(r);
    if (from && to)
        n = cci_os_copy_range(from->fd, cci_le64(a + 8), to->fd, cci_le64(a + 32),
                              want < CCI_SHARE_COPY_MAX ? (size_t)want : CCI_SHARE_COPY_MAX);
    if (n > 0)
        cci_share_size_told(r->share, to->node, cci_le64(a + 32) + (uint64_t)n, true);
    if (from)
        cci_share_handle_put(r->share, from);
    if (to)
        cci_share_handle_put(r->share, to);
    if (n < 0)
        return n == -ENOSYS || n == -EXDEV ? -EOPNOTSUPP : (int)n; /* the guest then copies by itself */
    return cci_share_put_written(r, (uint64_t)n);
}

#endif
