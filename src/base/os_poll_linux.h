/*
 * base/os_poll_linux.h - waiting for a descriptor that the caller of the library owns.
 */
#ifndef CCI_BASE_OS_POLL_LINUX_H
#define CCI_BASE_OS_POLL_LINUX_H

#include <poll.h>

#include "os_linux.h"

/* Waits until `fd` can be read (or written), or is broken so that trying tells how: true. False as soon as `stop` can
 * be read. A descriptor that cannot be polled counts as ready. */
static bool cci_os_poll_until(cci_fd fd, bool write, cci_fd stop)
{
    struct pollfd p[2] = {{fd, write ? POLLOUT : POLLIN, 0}, {stop, POLLIN, 0}};
    for (;;) {
        long r = cci_os_result(syscall(SYS_ppoll, p, 2L, NULL, NULL, 0L));
        if (r == -EINTR)
            continue;
        return r < 0 || p[1].revents == 0;
    }
}

/* Whether a write would not wait, or tell at once that it is broken. */
static bool cci_os_can_write(cci_fd fd)
{
    struct pollfd p = {fd, POLLOUT, 0};
    struct timespec now = {0, 0};
    return cci_os_result(syscall(SYS_ppoll, &p, 1L, &now, NULL, 0L)) == 1;
}

#endif
