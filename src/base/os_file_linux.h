/*
 * base/os_file_linux.h - files by their names: what they are, directories, locks, and files that have no name.
 *
 * A part of the interface of os_linux.h, whose conventions hold. statx(2) is the one call for what a file is: its
 * structure is the same on every architecture.
 */
#ifndef CCI_BASE_OS_FILE_LINUX_H
#define CCI_BASE_OS_FILE_LINUX_H

#include "os_linux.h"

enum cci_os_kind { CCI_OS_FILE, CCI_OS_DIR, CCI_OS_SYMLINK, CCI_OS_OTHER };

struct cci_os_stat {
    enum cci_os_kind kind;
    unsigned mode;      /* permission bits, 07777 */
    uint64_t size;      /* bytes */
    uint64_t allocated; /* bytes on disk */
    uint64_t device;    /* with inode: which file it is */
    uint64_t inode;
    int64_t mtime_ns; /* since 1970 */
};

struct cci_os_statx_time {
    int64_t sec;
    uint32_t nsec;
    int32_t pad;
};

/* The kernel's struct statx (256 bytes). */
struct cci_os_statx {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, pad0;
    uint64_t ino, size, blocks, attributes_mask;
    struct cci_os_statx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare[14];
};

static int cci_os_statx_call(int dirfd, const char *path, long flags, struct cci_os_stat *out)
{
    struct cci_os_statx sx;
    memset(&sx, 0, sizeof(sx));
    long r = cci_os_result(syscall(SYS_statx, (long)dirfd, path, flags, 0x7ffL, &sx));
    if (r < 0)
        return (int)r;
    unsigned type = sx.mode & 0170000u;
    out->kind = type == 0100000   ? CCI_OS_FILE
                : type == 0040000 ? CCI_OS_DIR
                : type == 0120000 ? CCI_OS_SYMLINK
                                  : CCI_OS_OTHER;
    out->mode = sx.mode & 07777u;
    out->size = sx.size;
    out->allocated = sx.blocks * 512;
    out->device = (uint64_t)sx.dev_major << 32 | sx.dev_minor;
    out->inode = sx.ino;
    out->mtime_ns = sx.mtime.sec * 1000000000 + sx.mtime.nsec;
    return 0;
}

/* Follows symbolic links. */
static int cci_os_stat(const char *path, struct cci_os_stat *out)
{
    return cci_os_statx_call(CCI_OS_AT_CWD, path, 0, out);
}

static int cci_os_lstat(const char *path, struct cci_os_stat *out)
{
    return cci_os_statx_call(CCI_OS_AT_CWD, path, 0x100 /* AT_SYMLINK_NOFOLLOW */, out);
}

static int cci_os_fstat(cci_fd fd, struct cci_os_stat *out)
{
    return cci_os_statx_call(fd, "", 0x1000 /* AT_EMPTY_PATH */, out);
}

/* Replaces `to` atomically if it is there. */
static int cci_os_rename(const char *from, const char *to)
{
    return (int)cci_os_result(syscall(SYS_renameat2, (long)CCI_OS_AT_CWD, from, (long)CCI_OS_AT_CWD, to, 0L));
}

static int cci_os_unlink(const char *path)
{
    return (int)cci_os_result(syscall(SYS_unlinkat, (long)CCI_OS_AT_CWD, path, 0L));
}

/* Sets a file's time of modification to now. */
static int cci_os_touch(const char *path)
{
    return (int)cci_os_result(syscall(SYS_utimensat, (long)CCI_OS_AT_CWD, path, NULL, 0L));
}

static int cci_os_rmdir(const char *path)
{
    return (int)cci_os_result(syscall(SYS_unlinkat, (long)CCI_OS_AT_CWD, path, 0x200L /* AT_REMOVEDIR */));
}

static int cci_os_mkdir(const char *path, unsigned mode)
{
    return (int)cci_os_result(syscall(SYS_mkdirat, (long)CCI_OS_AT_CWD, path, (long)mode));
}

/* Makes `path` and the directories above it; one that is there already is fine. Restores nothing on failure. */
static int cci_os_mkdir_all(const char *path, unsigned mode)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(part))
        return n ? -ENAMETOOLONG : -ENOENT;
    for (size_t i = 1; i <= n; i++) {
        if (i < n && path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        int r = cci_os_mkdir(part, mode);
        struct cci_os_stat st;
        if (r < 0 && (r != -EEXIST || cci_os_stat(part, &st) < 0 || st.kind != CCI_OS_DIR))
            return r == -EEXIST ? -ENOTDIR : r;
    }
    return 0;
}

/* Calls fn for each name in a directory except "." and ".."; a non-zero result stops and is returned. */
static int cci_os_read_dir(const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
    cci_fd fd = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    uint64_t buf[4096 / 8];
    long r;
    int stop = 0;
    while (!stop && (r = cci_os_result(syscall(SYS_getdents64, (long)fd, buf, sizeof(buf)))) != 0) {
        if (r < 0) {
            stop = (int)r;
            break;
        }
        /* struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name. */
        for (const uint8_t *p = (const uint8_t *)buf, *end = p + r; p < end && !stop;) {
            const char *name = (const char *)p + 19;
            if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
                stop = fn(ctx, name);
            p += (unsigned)(p[16] | (unsigned)p[17] << 8);
        }
    }
    cci_os_close(fd);
    return stop;
}

/* The absolute path of the current directory, with its NUL. 0, or an error number. */
static int cci_os_cwd(char *buf, size_t n)
{
    long r = cci_os_result(syscall(SYS_getcwd, buf, n));
    return r < 0 ? (int)r : buf[0] == '/' ? 0 : -ENOENT; /* one that was unmounted has no path */
}

/* Makes the names in a directory durable (after a rename into it). */
static int cci_os_sync_dir(const char *path)
{
    cci_fd fd = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int r = cci_os_fsync(fd);
    cci_os_close(fd);
    return r;
}

/* An advisory lock on the whole file, shared with every process; dropped when the last descriptor closes. */
enum cci_os_lock { CCI_OS_LOCK_SHARED = 1, CCI_OS_LOCK_EXCLUSIVE = 2, CCI_OS_UNLOCK = 8 };

/* With wait false: -EWOULDBLOCK when somebody else holds it. */
static int cci_os_flock(cci_fd fd, enum cci_os_lock how, bool wait)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_flock, (long)fd, (long)how | (wait ? 0L : 4L)));
    while (r == -EINTR && wait);
    return (int)r;
}

/* An unnamed file in directory `dir`, gone when it is closed. */
static cci_fd cci_os_tmpfile(const char *dir)
{
    cci_fd fd = cci_os_open(dir, CCI_OS_RDWR | CCI_OS_TMPFILE, 0600);
    if (fd != -EOPNOTSUPP && fd != -EISDIR && fd != -EINVAL)
        return fd;
    /* A filesystem without O_TMPFILE: a named file, unlinked at once. */
    for (unsigned i = 0; i < 1000; i++) {
        char path[4096];
        uint64_t salt = 0;
        (void)syscall(SYS_getrandom, &salt, sizeof(salt), 0L);
        int n = snprintf(path, sizeof(path), "%s/.tmp-%016llx", dir, (unsigned long long)salt);
        if (n < 0 || (size_t)n >= sizeof(path))
            return -ENAMETOOLONG;
        fd = cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_EXCL, 0600);
        if (fd >= 0)
            (void)cci_os_unlink(path);
        if (fd != -EEXIST)
            return fd;
    }
    return -EEXIST;
}

#ifdef CC_EMBED_KERNEL
/* An unnamed file in memory, gone when it is closed; the name shows in /proc only. */
static cci_fd cci_os_memfd(const char *name)
{
    return (cci_fd)cci_os_result(syscall(SYS_memfd_create, name, 1L /* CLOEXEC */));
}
#endif

#endif
