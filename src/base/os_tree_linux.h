/*
 * base/os_tree_linux.h - what the operating system knows of a file beyond its contents: for whole trees.
 *
 * Part of os.h. Links are never followed.
 */
#ifndef CCI_BASE_OS_TREE_LINUX_H
#define CCI_BASE_OS_TREE_LINUX_H

#include "os_file_linux.h"

enum cci_os_node_kind {
    CCI_OS_NODE_FILE,
    CCI_OS_NODE_DIR,
    CCI_OS_NODE_SYMLINK,
    CCI_OS_NODE_CHAR,
    CCI_OS_NODE_BLOCK,
    CCI_OS_NODE_FIFO,
    CCI_OS_NODE_SOCKET
};

/* Everything that lstat(2) says of a file. */
struct cci_os_node {
    enum cci_os_node_kind kind;
    unsigned mode; /* permission bits, 07777 */
    uint32_t uid, gid;
    uint32_t links;
    uint64_t device, inode; /* together: which file it is */
    uint64_t size;          /* bytes */
    uint64_t allocated;     /* bytes on disk */
    int64_t mtime_sec;      /* since 1970 */
    uint32_t mtime_nsec;
    uint32_t major, minor; /* of a device */
};

static int cci_os_node(const char *path, struct cci_os_node *out)
{
    static const uint8_t kinds[16] = {
        [1] = CCI_OS_NODE_FIFO, [2] = CCI_OS_NODE_CHAR,     [4] = CCI_OS_NODE_DIR,     [6] = CCI_OS_NODE_BLOCK,
        [8] = CCI_OS_NODE_FILE, [10] = CCI_OS_NODE_SYMLINK, [12] = CCI_OS_NODE_SOCKET, [15] = CCI_OS_NODE_SOCKET};
    struct cci_os_statx sx;
    memset(&sx, 0, sizeof(sx));
    memset(out, 0, sizeof(*out));
    long r =
        cci_os_result(syscall(SYS_statx, (long)CCI_OS_AT_CWD, path, 0x100L /* AT_SYMLINK_NOFOLLOW */, 0x7ffL, &sx));
    if (r < 0)
        return (int)r;
    out->kind = (enum cci_os_node_kind)kinds[sx.mode >> 12];
    out->mode = sx.mode & 07777u;
    out->uid = sx.uid;
    out->gid = sx.gid;
    out->links = sx.nlink;
    out->device = (uint64_t)sx.dev_major << 32 | sx.dev_minor;
    out->inode = sx.ino;
    out->size = sx.size;
    out->allocated = sx.blocks * 512;
    out->mtime_sec = sx.mtime.sec;
    out->mtime_nsec = sx.mtime.nsec;
    out->major = sx.rdev_major;
    out->minor = sx.rdev_minor;
    return 0;
}

/* The target of a symbolic link, without a NUL; how long it is. What does not fit is cut off. */
static int64_t cci_os_readlink(const char *path, char *buf, size_t n)
{
    return cci_os_result(syscall(SYS_readlinkat, (long)CCI_OS_AT_CWD, path, buf, n));
}

/* The names of a file's extended attributes, each with its NUL; how many bytes. -ERANGE when they do not fit. */
static int64_t cci_os_xattr_names(const char *path, char *buf, size_t n)
{
    return cci_os_result(syscall(SYS_llistxattr, path, buf, n));
}

static int64_t cci_os_xattr_get(const char *path, const char *name, void *buf, size_t n)
{
    return cci_os_result(syscall(SYS_lgetxattr, path, name, buf, n));
}

/* Where data, or a hole, begin at or behind `from`. -ENXIO when there is no data. A filesystem that knows no holes says
 * that all is data. */
static int64_t cci_os_seek_data(cci_fd fd, uint64_t from)
{
    return cci_os_result(syscall(SYS_lseek, (long)fd, (long)from, 3L));
}

static int64_t cci_os_seek_hole(cci_fd fd, uint64_t from)
{
    return cci_os_result(syscall(SYS_lseek, (long)fd, (long)from, 4L));
}

/* Everything that was written to the filesystem which fd is on reaches its disk: for trees of many small files, where
 * an fsync of each takes far longer. */
static int cci_os_sync_tree(cci_fd fd)
{
    return (int)cci_os_result(syscall(SYS_syncfs, (long)fd));
}

#endif
