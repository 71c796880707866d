/*
 * base/os_share_linux.h - what serving a directory to a guest needs of the operating system.
 *
 * Part of os.h. Names are always one component below an open directory and links are never followed, unless a function
 * says otherwise. What a descriptor opened with CCI_OS_PATH cannot do by itself is done through its name in
 * /proc/self/fd, which leads to that very file, whatever has become of its names.
 */
#ifndef CCI_BASE_OS_SHARE_LINUX_H
#define CCI_BASE_OS_SHARE_LINUX_H

#include "os_file_linux.h"

#define CCI_OS_PATH 010000000 /* a descriptor that only names a file: opening it has no effect on a device or FIFO */
#define CCI_OS_SYNC 04010000
#define CCI_OS_DSYNC 010000
#define CCI_OS_NOCTTY 0400

/* The name of descriptor `fd` in /proc. */
struct cci_os_fd_name {
    char s[32];
};

static struct cci_os_fd_name cci_os_fd_name(cci_fd fd)
{
    struct cci_os_fd_name n;
    (void)snprintf(n.s, sizeof(n.s), "/proc/self/fd/%d", fd);
    return n;
}

/* Opens `name` below `dir`. The kernel is told to stay there, where it knows how to. */
static cci_fd cci_os_open_at(cci_fd dir, const char *name, int flags, unsigned mode)
{
    /* The kernel's struct open_how: flags, mode, resolve (RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH). */
    uint64_t how[3] = {(uint64_t)(flags | CCI_OS_O_CLOEXEC | CCI_OS_NOFOLLOW), mode, 0x02 | 0x08};
    long r = -ENOSYS;
#ifdef SYS_openat2
    do
        r = cci_os_result(syscall(SYS_openat2, (long)dir, name, how, sizeof(how)));
    while (r == -EINTR || r == -EAGAIN); /* EAGAIN: something was renamed meanwhile */
#endif
    if (r == -ENOSYS || r == -EPERM) /* an old kernel, or a sandbox that does not know the call */
        do
            r = cci_os_result(syscall(SYS_openat, (long)dir, name, (long)how[0], (long)mode));
        while (r == -EINTR);
    return (cci_fd)r;
}

/* Opens the very file that `fd` names, with other flags. */
static cci_fd cci_os_reopen(cci_fd fd, int flags)
{
    struct cci_os_fd_name n = cci_os_fd_name(fd);
    return cci_os_open(n.s, flags, 0);
}

/* Everything about `name` below `dir`, or with an empty name about `dir` itself. spare[0] is the mount's number. */
static int cci_os_statx_at(cci_fd dir, const char *name, struct cci_os_statx *out)
{
    long flags = *name ? 0x900L /* SYMLINK_NOFOLLOW | NO_AUTOMOUNT */ : 0x1000L /* EMPTY_PATH */;
    memset(out, 0, sizeof(*out));
    return (int)cci_os_result(syscall(SYS_statx, (long)dir, name, flags, 0x17ffL, out));
}

/* Reads the next entries as the kernel's struct linux_dirent64; how many bytes, 0 at the end. */
static int64_t cci_os_getdents(cci_fd fd, void *buf, size_t n)
{
    return cci_os_result(syscall(SYS_getdents64, (long)fd, buf, n));
}

static int64_t cci_os_lseek(cci_fd fd, uint64_t offset, long whence)
{
    return cci_os_result(syscall(SYS_lseek, (long)fd, (long)offset, whence));
}

/* The target of the link that `fd` names; how long it is. */
static int64_t cci_os_readlink_fd(cci_fd fd, char *buf, size_t n)
{
    return cci_os_result(syscall(SYS_readlinkat, (long)fd, "", buf, n));
}

static int cci_os_mkdir_at(cci_fd dir, const char *name, unsigned mode)
{
    return (int)cci_os_result(syscall(SYS_mkdirat, (long)dir, name, (long)mode));
}

static int cci_os_mknod_at(cci_fd dir, const char *name, unsigned mode)
{
    return (int)cci_os_result(syscall(SYS_mknodat, (long)dir, name, (long)mode, 0L));
}

static int cci_os_symlink_at(const char *target, cci_fd dir, const char *name)
{
    return (int)cci_os_result(syscall(SYS_symlinkat, target, (long)dir, name));
}

static int cci_os_unlink_at(cci_fd dir, const char *name, bool directory)
{
    return (int)cci_os_result(syscall(SYS_unlinkat, (long)dir, name, directory ? 0x200L : 0L));
}

/* Flags of cci_os_rename_at. */
#define CCI_OS_RENAME_NOREPLACE 1u
#define CCI_OS_RENAME_EXCHANGE 2u

static int cci_os_rename_at(cci_fd from, const char *old_name, cci_fd to, const char *new_name, unsigned flags)
{
    return (int)cci_os_result(syscall(SYS_renameat2, (long)from, old_name, (long)to, new_name, (long)flags));
}

/* Gives the file that `fd` names another name. */
static int cci_os_link_fd(cci_fd fd, cci_fd dir, const char *name)
{
    struct cci_os_fd_name n = cci_os_fd_name(fd);
    return (int)cci_os_result(syscall(SYS_linkat, (long)CCI_OS_AT_CWD, n.s, (long)dir, name, 0x400L /* FOLLOW */));
}

static int cci_os_chmod_fd(cci_fd fd, unsigned mode)
{
    struct cci_os_fd_name n = cci_os_fd_name(fd);
    return (int)cci_os_result(syscall(SYS_fchmodat, (long)CCI_OS_AT_CWD, n.s, (long)mode));
}

/* UINT32_MAX leaves a number as it is. */
static int cci_os_chown_fd(cci_fd fd, uint32_t uid, uint32_t gid)
{
    return (int)cci_os_result(syscall(SYS_fchownat, (long)fd, "", (long)uid, (long)gid, 0x1000L /* EMPTY_PATH */));
}

#define CCI_OS_TIME_NOW 0x3fffffff  /* in a timespec's nsec: the present */
#define CCI_OS_TIME_OMIT 0x3ffffffe /* leave as it is */

/* times[0]: access, times[1]: modification. */
static int cci_os_utimens_fd(cci_fd fd, const struct cci_os_timespec times[2])
{
    struct cci_os_fd_name n = cci_os_fd_name(fd);
    return (int)cci_os_result(syscall(SYS_utimensat, (long)CCI_OS_AT_CWD, n.s, times, 0L));
}

/* For a descriptor that only names the file; cci_os_truncate wants one open for writing. */
static int cci_os_truncate_named(cci_fd fd, uint64_t size)
{
    struct cci_os_fd_name n = cci_os_fd_name(fd);
    return (int)cci_os_result(syscall(SYS_truncate, n.s, (long)size));
}

static int64_t cci_os_getxattr_fd(cci_fd fd, const char *name, void *buf, size_t n)
{
    struct cci_os_fd_name f = cci_os_fd_name(fd);
    return cci_os_result(syscall(SYS_getxattr, f.s, name, buf, n));
}

static int64_t cci_os_listxattr_fd(cci_fd fd, char *buf, size_t n)
{
    struct cci_os_fd_name f = cci_os_fd_name(fd);
    return cci_os_result(syscall(SYS_listxattr, f.s, buf, n));
}

/* flags: 1 create, 2 replace. */
static int cci_os_setxattr_fd(cci_fd fd, const char *name, const void *value, size_t n, unsigned flags)
{
    struct cci_os_fd_name f = cci_os_fd_name(fd);
    return (int)cci_os_result(syscall(SYS_setxattr, f.s, name, value, n, (long)flags));
}

static int cci_os_removexattr_fd(cci_fd fd, const char *name)
{
    struct cci_os_fd_name f = cci_os_fd_name(fd);
    return (int)cci_os_result(syscall(SYS_removexattr, f.s, name));
}

/* The kernel's struct statfs (64-bit). */
struct cci_os_statfs {
    int64_t type, bsize;
    uint64_t blocks, bfree, bavail, files, ffree;
    uint32_t fsid[2];
    int64_t namelen, frsize, flags, spare[4];
};

static int cci_os_statfs_fd(cci_fd fd, struct cci_os_statfs *out)
{
    memset(out, 0, sizeof(*out));
    return (int)cci_os_result(syscall(SYS_fstatfs, (long)fd, out));
}

/* mode: 1 keep the size, 2 punch a hole, 16 zero a range. */
static int cci_os_fallocate(cci_fd fd, unsigned mode, uint64_t offset, uint64_t n)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_fallocate, (long)fd, (long)mode, (long)offset, (long)n));
    while (r == -EINTR);
    return (int)r;
}

static int64_t cci_os_copy_range(cci_fd from, uint64_t from_at, cci_fd to, uint64_t to_at, size_t n)
{
    int64_t at[2] = {(int64_t)from_at, (int64_t)to_at};
    return cci_os_result(syscall(SYS_copy_file_range, (long)from, &at[0], (long)to, &at[1], n, 0L));
}

/* The calling thread gets a umask of its own, 0: modes are then exactly what is asked for. It also gets a current
 * directory of its own, the root, so that it does not hold on to the program's. Only for a thread of the library.
 * Where a sandbox forbids it, the program's umask goes on applying. */
static void cci_os_own_umask(void)
{
    if (cci_os_result(syscall(SYS_unshare, 0x200L /* FS */)) < 0)
        return;
    (void)syscall(SYS_umask, 0L);
    (void)syscall(SYS_chdir, "/");
}

/* Who the calling thread is to the filesystem: the owner of what it makes. libc's functions would tell every thread of
 * the program. Without the right to, nothing changes. */
static void cci_os_set_fs_ids(uint32_t uid, uint32_t gid)
{
    (void)syscall(SYS_setfsgid, (long)gid);
    (void)syscall(SYS_setfsuid, (long)uid);
}

static uint32_t cci_os_euid(void)
{
    return (uint32_t)syscall(SYS_geteuid);
}

static uint32_t cci_os_egid(void)
{
    return (uint32_t)syscall(SYS_getegid);
}

/* As cci_os_eventfd, but taking from it waits until something was signalled. */
static cci_fd cci_os_eventfd_blocking(void)
{
    return (cci_fd)cci_os_result(syscall(SYS_eventfd2, 0L, (long)CCI_OS_O_CLOEXEC));
}

/* How many descriptors the process may have. */
static uint64_t cci_os_descriptor_limit(void)
{
    uint64_t limit[2] = {0, 0}; /* soft, hard */
    long r = cci_os_result(syscall(SYS_prlimit64, 0L, 7L /* NOFILE */, NULL, limit));
    return r < 0 ? 256 : limit[0];
}

#endif
