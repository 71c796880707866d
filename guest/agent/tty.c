/*
 * Terminals of commands: a pseudo-terminal of which the agent holds the master side (pty(7)).
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

static struct winsize usual = {.ws_col = 80, .ws_row = 24};

static struct winsize size_of(uint32_t columns, uint32_t rows)
{
    struct winsize w = usual;
    if (columns)
        w.ws_col = (unsigned short)(columns < 0xffff ? columns : 0xffff);
    if (rows)
        w.ws_row = (unsigned short)(rows < 0xffff ? rows : 0xffff);
    return w;
}

int tty_resize(int master, uint32_t columns, uint32_t rows)
{
    struct winsize w = size_of(columns, rows);
    return ioctl(master, TIOCSWINSZ, &w) ? errno : 0;
}

int tty_open(uint32_t columns, uint32_t rows, uid_t user, int *master, int *slave)
{
    int unlock = 0, err;
    *slave = -1;
    *master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (*master < 0)
        return errno;
    /* By the master's descriptor: the image may have its own idea of /dev/pts. */
    if (ioctl(*master, TIOCSPTLCK, &unlock) == 0)
        *slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    err = *slave < 0 ? errno : tty_resize(*master, columns, rows);
    /* An ordinary user's namespace may have no such user; the terminal works all the same. */
    if (!err && fchown(*slave, user, (gid_t)-1) && agent.machine)
        err = errno;
    if (err) {
        if (*slave >= 0)
            close(*slave);
        close(*master);
        *master = *slave = -1;
    }
    return err;
}

void tty_set_default(uint32_t columns, uint32_t rows)
{
    int fd = agent.machine ? open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK) : -1;
    usual = size_of(columns, rows);
    if (fd < 0)
        return; /* a machine without a console */
    tty_resize(fd, 0, 0);
    close(fd);
}
