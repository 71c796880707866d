/*
 * base/os_fd_linux.h - descriptors as such: pipes and duplicates.
 *
 * Part of os.h.
 */
#ifndef CCI_BASE_OS_FD_LINUX_H
#define CCI_BASE_OS_FD_LINUX_H

#include "os_linux.h"

/* A pipe: ends[0] is read. 0, or an error number, and then both are CCI_NO_FD. */
static int cci_os_pipe(cci_fd ends[2])
{
    int fds[2] = {CCI_NO_FD, CCI_NO_FD};
    long r = cci_os_result(syscall(SYS_pipe2, fds, (long)CCI_OS_O_CLOEXEC));
    ends[0] = r < 0 ? CCI_NO_FD : fds[0];
    ends[1] = r < 0 ? CCI_NO_FD : fds[1];
    return (int)r;
}

/* Another descriptor of the same open file, close-on-exec and none of 0 to 2. */
static cci_fd cci_os_dup(cci_fd fd)
{
    return (cci_fd)cci_os_result(syscall(SYS_fcntl, (long)fd, 1030L /* F_DUPFD_CLOEXEC */, 3L));
}

#endif
