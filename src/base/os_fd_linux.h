/*
 * base/os_fd_linux.h - descriptors as such: pipes, duplicates, locks on a file, the size of a disk, and a
 * clock that tells when it was set.
 *
 * Part of os.h.
 */
#ifndef CCI_BASE_OS_FD_LINUX_H
#define CCI_BASE_OS_FD_LINUX_H

#include "os_linux.h"

/* What can be read from ends[0] is written to ends[1]. Once that is closed, ends[0] is readable for whoever polls it,
 * for ever: a pair of sockets, since a pipe then only hangs up. 0, or an error number, and then both are CCI_NO_FD. */
static int cci_os_end_pair(cci_fd ends[2])
{
    int fds[2] = {CCI_NO_FD, CCI_NO_FD};
    long r = cci_os_result(syscall(SYS_socketpair, 1L /* AF_UNIX */, 1L /* SOCK_STREAM */ | CCI_OS_O_CLOEXEC, 0L, fds));
    if (r == 0)
        (void)syscall(SYS_shutdown, (long)fds[0], 1L /* SHUT_WR */);
    ends[0] = r < 0 ? CCI_NO_FD : fds[0];
    ends[1] = r < 0 ? CCI_NO_FD : fds[1];
    return (int)r;
}

/* Another descriptor of the same open file, close-on-exec and none of 0 to 2. */
static cci_fd cci_os_dup(cci_fd fd)
{
    return (cci_fd)cci_os_result(syscall(SYS_fcntl, (long)fd, 1030L /* F_DUPFD_CLOEXEC */, 3L));
}

/* ---- Locks ------------------------------------------------------------------------------------------------ */

/* The kernel's struct flock, for locks that belong to the open file and not to the process. */
struct cci_os_flock {
    int16_t type;   /* 0 shared, 1 exclusive, 2 none */
    int16_t whence; /* 0: from the start */
    int64_t start, length;
    int32_t pid; /* has to be 0 */
};

/* Takes a shared lock on one byte, which need not be within the file. 0, -EAGAIN, or another error number. */
static int cci_os_lock_byte(cci_fd fd, int64_t at)
{
    struct cci_os_flock l = {0, 0, at, 1, 0};
    return (int)cci_os_result(syscall(SYS_fcntl, (long)fd, 37L /* F_OFD_SETLK */, &l));
}

/* Whether somebody else has a lock on that byte. */
static bool cci_os_byte_is_locked(cci_fd fd, int64_t at)
{
    struct cci_os_flock l = {1, 0, at, 1, 0};
    long r = cci_os_result(syscall(SYS_fcntl, (long)fd, 36L /* F_OFD_GETLK */, &l));
    return r == 0 && l.type != 2;
}

/* ---- Block devices ----------------------------------------------------------------------------------------- */

/* The size of a block device in bytes. 0, or an error number. */
static int cci_os_block_size(cci_fd fd, uint64_t *out)
{
    *out = 0;
    return cci_os_ioctl(fd, 0x80081272ul /* BLKGETSIZE64 */, out);
}

/* ---- The clock being set ----------------------------------------------------------------------------------- */

/* A descriptor that becomes readable when the host's time of day jumps: somebody set it, or the host slept. */
static cci_fd cci_os_clock_change(void)
{
    return (cci_fd)cci_os_result(
        syscall(SYS_timerfd_create, 0L /* REALTIME */, (long)(CCI_OS_O_CLOEXEC | CCI_OS_NONBLOCK)));
}

/* Arms such a descriptor, anew each time it has become readable. 0, or an error number. */
static int cci_os_clock_change_arm(cci_fd fd)
{
    /* A timer for a day far off, with the flag by which it ends early when the clock is set. */
    struct {
        struct cci_os_timespec interval, value;
    } never = {{0, 0}, {INT64_C(1) << 33, 0}};
    uint64_t unused;
    (void)cci_os_read(fd, &unused, sizeof(unused));
    return (int)cci_os_result(syscall(SYS_timerfd_settime, (long)fd, 3L /* ABSTIME | CANCEL_ON_SET */, &never, NULL));
}

#endif
