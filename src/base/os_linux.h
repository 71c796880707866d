/*
 * base/os_linux.h - the operating system interface on Linux: descriptors, memory, clocks, randomness.
 *
 * Under -std=c11 libc declares little beyond ISO C, and a feature macro cannot be set after somebody else's
 * include, so system calls are made through syscall(2), which this file declares itself. That also keeps the
 * error convention simple: every function returns its result, or the error number negated. Interrupted calls are
 * made again. Structures that the kernel fills are declared here as the kernel's ABI has them.
 *
 * 64-bit only: offsets are passed in one register. Threads are in os_thread_linux.h, the names of files in
 * os_file_linux.h.
 */
#ifndef CCI_BASE_OS_LINUX_H
#define CCI_BASE_OS_LINUX_H

#include <errno.h>
#include <sys/syscall.h>

#include "base.h"
#include "os_thread_linux.h"

_Static_assert(sizeof(long) == 8, "cc.h needs a 64-bit system");

extern long syscall(long number, ...);

/* An open file. */
typedef int cci_fd;
#define CCI_NO_FD (-1)

/* One piece of memory for vectored I/O; the layout of POSIX's struct iovec. */
struct cci_iovec {
    void *base;
    size_t len;
};

static long cci_os_result(long r)
{
    return r < 0 ? -(long)errno : r;
}

/* ---- Descriptors ------------------------------------------------------------------------------------ */

/* Flags of cci_os_open. */
#define CCI_OS_RDONLY 0
#define CCI_OS_WRONLY 01
#define CCI_OS_RDWR 02
#define CCI_OS_CREATE 0100
#define CCI_OS_EXCL 0200
#define CCI_OS_TRUNC 01000
#define CCI_OS_APPEND 02000
#define CCI_OS_NONBLOCK 04000
#if defined(__aarch64__)
#define CCI_OS_DIRECTORY 040000
#define CCI_OS_NOFOLLOW 0100000
#define CCI_OS_TMPFILE (020000000 | CCI_OS_DIRECTORY)
#else
#define CCI_OS_DIRECTORY 0200000
#define CCI_OS_NOFOLLOW 0400000
#define CCI_OS_TMPFILE (020000000 | CCI_OS_DIRECTORY)
#endif
#define CCI_OS_AT_CWD (-100)
#define CCI_OS_O_CLOEXEC 02000000

/* Opens `path`; every descriptor is close-on-exec. Returns the descriptor. */
static cci_fd cci_os_open(const char *path, int flags, unsigned mode)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_openat, (long)CCI_OS_AT_CWD, path, (long)(flags | CCI_OS_O_CLOEXEC), (long)mode));
    while (r == -EINTR);
    return (cci_fd)r;
}

/* Never fails in a way that a caller could mend. */
static void cci_os_close(cci_fd fd)
{
    if (fd >= 0)
        (void)syscall(SYS_close, (long)fd);
}

static int64_t cci_os_read(cci_fd fd, void *buf, size_t n)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_read, (long)fd, buf, n));
    while (r == -EINTR);
    return r;
}

static int64_t cci_os_write(cci_fd fd, const void *buf, size_t n)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_write, (long)fd, buf, n));
    while (r == -EINTR);
    return r;
}

static int64_t cci_os_pread(cci_fd fd, void *buf, size_t n, uint64_t off)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_pread64, (long)fd, buf, n, (long)off));
    while (r == -EINTR);
    return r;
}

static int64_t cci_os_pwrite(cci_fd fd, const void *buf, size_t n, uint64_t off)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_pwrite64, (long)fd, buf, n, (long)off));
    while (r == -EINTR);
    return r;
}

/* Flag of the vectored calls: give -EAGAIN rather than wait for the disk. */
#define CCI_OS_NOWAIT 8L /* RWF_NOWAIT */

static int64_t cci_os_preadv(cci_fd fd, const struct cci_iovec *iov, size_t count, uint64_t off, long flags)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_preadv2, (long)fd, iov, count, (long)off, 0L, flags));
    while (r == -EINTR);
    return r;
}

static int64_t cci_os_pwritev(cci_fd fd, const struct cci_iovec *iov, size_t count, uint64_t off, long flags)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_pwritev2, (long)fd, iov, count, (long)off, 0L, flags));
    while (r == -EINTR);
    return r;
}

/* Writes all n bytes or fails; 0 on success. */
static int cci_os_write_all(cci_fd fd, const void *buf, size_t n)
{
    const uint8_t *p = buf;
    while (n) {
        int64_t r = cci_os_write(fd, p, n);
        if (r <= 0)
            return r ? (int)r : -EIO;
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

static int cci_os_pwrite_all(cci_fd fd, const void *buf, size_t n, uint64_t off)
{
    const uint8_t *p = buf;
    while (n) {
        int64_t r = cci_os_pwrite(fd, p, n, off);
        if (r <= 0)
            return r ? (int)r : -EIO;
        p += r;
        off += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

/* Reads until n bytes or the end of the file; returns how many. */
static int64_t cci_os_pread_all(cci_fd fd, void *buf, size_t n, uint64_t off)
{
    uint8_t *p = buf;
    size_t done = 0;
    while (done < n) {
        int64_t r = cci_os_pread(fd, p + done, n - done, off + done);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        done += (size_t)r;
    }
    return (int64_t)done;
}

static int cci_os_fsync(cci_fd fd)
{
    return (int)cci_os_result(syscall(SYS_fsync, (long)fd));
}

static int cci_os_fdatasync(cci_fd fd)
{
    return (int)cci_os_result(syscall(SYS_fdatasync, (long)fd));
}

static int cci_os_truncate(cci_fd fd, uint64_t size)
{
    return (int)cci_os_result(syscall(SYS_ftruncate, (long)fd, (long)size));
}

/* Asks for a range to be written to the disk soon, and does not wait for it. Only a hint: fsync is what counts. */
static void cci_os_start_writeback(cci_fd fd, uint64_t off, uint64_t n)
{
    (void)syscall(SYS_sync_file_range, (long)fd, (long)off, (long)n, 2L /* SYNC_FILE_RANGE_WRITE */);
}

/* Gives the blocks of a range back to the filesystem; the range then reads as zeroes. */
static int cci_os_punch_hole(cci_fd fd, uint64_t off, uint64_t n)
{
    return (int)cci_os_result(syscall(SYS_fallocate, (long)fd, 3L /* PUNCH_HOLE|KEEP_SIZE */, (long)off, (long)n));
}

static int cci_os_ioctl(cci_fd fd, unsigned long request, void *arg)
{
    long r;
    do
        r = cci_os_result(syscall(SYS_ioctl, (long)fd, request, arg));
    while (r == -EINTR);
    return (int)r;
}

/* The same with a number for an argument, and without a second try when interrupted. */
static int cci_os_ioctl_num(cci_fd fd, unsigned long request, unsigned long arg)
{
    return (int)cci_os_result(syscall(SYS_ioctl, (long)fd, request, arg));
}

/* ---- Memory ----------------------------------------------------------------------------------------- */

#define CCI_OS_HUGE_PAGE ((size_t)2 << 20)

static int cci_os_madvise(void *p, size_t n, int advice)
{
    return (int)cci_os_result(syscall(SYS_madvise, p, n, (long)advice));
}

/* Zeroed private memory for a guest: 2 MiB-aligned, in huge pages where there are any, not in core dumps, not
 * inherited by fork (a child must not hold a second copy of a guest). `size` is a multiple of the page size.
 * NULL when there is none. */
static void *cci_os_ram_map(size_t size)
{
    size_t whole = size + CCI_OS_HUGE_PAGE;
    if (whole < size)
        return NULL;
    long r = cci_os_result(
        syscall(SYS_mmap, NULL, whole, 3L /* READ|WRITE */, 0x4022L /* PRIVATE|ANONYMOUS|NORESERVE */, -1L, 0L));
    if (r < 0 && r > -4096)
        return NULL;
    uintptr_t start = (uintptr_t)r;
    uintptr_t aligned = CCI_ALIGN_UP(start, (uintptr_t)CCI_OS_HUGE_PAGE);
    if (aligned > start)
        (void)syscall(SYS_munmap, start, aligned - start);
    if (start + whole > aligned + size)
        (void)syscall(SYS_munmap, aligned + size, start + whole - (aligned + size));
    void *p = (void *)aligned;
    (void)cci_os_madvise(p, size, 14); /* HUGEPAGE: advice only, as are the next two */
    (void)cci_os_madvise(p, size, 10); /* DONTFORK */
    (void)cci_os_madvise(p, size, 16); /* DONTDUMP */
    return p;
}

static void cci_os_ram_unmap(void *p, size_t size)
{
    if (p)
        (void)syscall(SYS_munmap, p, size);
}

/* Gives the pages of a range back; they read as zeroes until written again. */
static int cci_os_ram_discard(void *p, size_t n)
{
    return cci_os_madvise(p, n, 4 /* DONTNEED */);
}

/* Shared mapping of a descriptor (the hypervisor's run structure). NULL on failure. */
static void *cci_os_map_shared(cci_fd fd, size_t size)
{
    long r = cci_os_result(syscall(SYS_mmap, NULL, size, 3L, 1L /* SHARED */, (long)fd, 0L));
    return r < 0 && r > -4096 ? NULL : (void *)(uintptr_t)r;
}

static void cci_os_unmap(void *p, size_t size)
{
    if (p)
        (void)syscall(SYS_munmap, p, size);
}

/* ---- Clocks, randomness, the process ---------------------------------------------------------------- */

struct cci_os_timespec {
    int64_t sec;
    int64_t nsec;
};

static uint64_t cci_os_clock(long id)
{
    struct cci_os_timespec ts = {0, 0};
    (void)syscall(SYS_clock_gettime, id, &ts);
    return (uint64_t)ts.sec * 1000000000u + (uint64_t)ts.nsec;
}

/* Nanoseconds that never jump; the clock of every deadline. Does not count time the host slept. */
static uint64_t cci_os_now(void)
{
    return cci_os_clock(1);
}

/* Nanoseconds since 1970. */
static uint64_t cci_os_realtime(void)
{
    return cci_os_clock(0);
}

/* Fills with the operating system's randomness. 0, or an error number. */
static int cci_os_random(void *buf, size_t n)
{
    uint8_t *p = buf;
    while (n) {
        long r = cci_os_result(syscall(SYS_getrandom, p, n, 0L));
        if (r < 0 && r != -EINTR)
            return (int)r;
        if (r > 0) {
            p += r;
            n -= (size_t)r;
        }
    }
    return 0;
}

static long cci_os_pid(void)
{
    return syscall(SYS_getpid);
}

static unsigned cci_os_cpu_count(void)
{
    uint64_t mask[16] = {0};
    long r = cci_os_result(syscall(SYS_sched_getaffinity, 0L, sizeof(mask), mask));
    unsigned n = 0;
    for (long i = 0; i < r / 8; i++)
        for (uint64_t m = mask[i]; m; m &= m - 1)
            n++;
    return n ? n : 1;
}

/* Bytes of memory that this host has; 0 if it does not say. */
static uint64_t cci_os_memory(void)
{
    /* The kernel's struct sysinfo: uptime, loads[3], totalram, ..., mem_unit (a 32-bit number) at byte 104. */
    uint64_t info[16] = {0};
    uint32_t unit;
    if (syscall(SYS_sysinfo, info) < 0)
        return 0;
    memcpy(&unit, (const uint8_t *)info + 104, sizeof(unit));
    return info[4] * unit;
}

/* A counter that can be waited for: written and read as one 64-bit number, non-blocking. */
static cci_fd cci_os_eventfd(void)
{
    return (cci_fd)cci_os_result(syscall(SYS_eventfd2, 0L, (long)(CCI_OS_O_CLOEXEC | CCI_OS_NONBLOCK)));
}

static void cci_os_eventfd_signal(cci_fd fd)
{
    uint64_t one = 1;
    (void)cci_os_write(fd, &one, sizeof(one));
}

/* Takes what was signalled; returns whether anything was. */
static bool cci_os_eventfd_take(cci_fd fd)
{
    uint64_t n;
    return cci_os_read(fd, &n, sizeof(n)) == (int64_t)sizeof(n);
}

#endif
