/*
 * base/os_copy_linux.h - giving a file that was made its owner, mode and times: what copying trees needs beyond
 * os_share_linux.h.
 *
 * Part of os.h. Symbolic links are never followed.
 */
#ifndef CCI_BASE_OS_COPY_LINUX_H
#define CCI_BASE_OS_COPY_LINUX_H

#include "os.h"

/* Of an open file; unlike cci_os_chmod_fd it needs no /proc, and no descriptor that only names the file. */
static int cci_os_fchmod(cci_fd fd, unsigned mode)
{
    return (int)cci_os_result(syscall(SYS_fchmod, (long)fd, (long)mode));
}

static int cci_os_fchown(cci_fd fd, uint32_t uid, uint32_t gid)
{
    return (int)cci_os_result(syscall(SYS_fchown, (long)fd, (long)uid, (long)gid));
}

static int cci_os_lchown_at(cci_fd dir, const char *name, uint32_t uid, uint32_t gid)
{
    return (int)cci_os_result(syscall(SYS_fchownat, (long)dir, name, (long)uid, (long)gid, 0x100L));
}

/* The time of modification; that of access is left alone. `name` NULL: of `dir` itself. */
static int cci_os_set_mtime(cci_fd dir, const char *name, int64_t sec, uint32_t nsec)
{
    const struct cci_os_timespec times[2] = {{0, CCI_OS_TIME_OMIT}, {sec, (int64_t)nsec}};
    return (int)cci_os_result(syscall(SYS_utimensat, (long)dir, name, times, name ? 0x100L : 0L));
}

/* Another name for a file; of a symbolic link for the link itself. */
static int cci_os_link_at(cci_fd from, const char *old_name, cci_fd to, const char *new_name)
{
    return (int)cci_os_result(syscall(SYS_linkat, (long)from, old_name, (long)to, new_name, 0L));
}

/* The target of a link below `dir`, without a NUL; how long it is. */
static int64_t cci_os_readlink_at(cci_fd dir, const char *name, char *buf, size_t n)
{
    return cci_os_result(syscall(SYS_readlinkat, (long)dir, name, buf, n));
}

#endif
