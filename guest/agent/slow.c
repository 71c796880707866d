/*
 * Which file systems may keep one waiting for long.
 *
 * A file on a disk is there within moments. One that a program serves (FUSE, the shares of the host among them) or
 * another computer may not be there for as long as that likes, and the loop cannot wait for it. Paths do not tell
 * where they lead; so while anything of that kind is mounted, requests by path are done by workers. The kernel says
 * when mounts change (proc(5), /proc/pid/mounts).
 */
#include "agent.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/vfs.h>
#include <unistd.h>

static struct source mounts;
static bool anywhere;

static bool is_slow_name(const char *type)
{
    static const char *const names[] = {"fuse", "virtiofs", "9p", "nfs", "cifs", "smb3", "ceph", "afs"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strncmp(type, names[i], strlen(names[i])))
            return true;
    return false;
}

/* Reads the table again: "... - type source options", one a line. */
static void look(void)
{
    char *line = NULL;
    size_t cap = 0;
    int fd = fcntl(mounts.fd, F_DUPFD_CLOEXEC, 0);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
    anywhere = false;
    if (!f) {
        if (fd >= 0)
            close(fd);
        anywhere = true; /* better slowly than not at all */
        return;
    }
    rewind(f);
    while (getline(&line, &cap, f) > 0) {
        const char *type = strstr(line, " - ");
        if (type && is_slow_name(type + 3))
            anywhere = true;
    }
    free(line);
    fclose(f);
}

static void mounts_ready(struct source *s, uint32_t events)
{
    (void)s;
    (void)events;
    look();
}

/* Opening it once is enough; without /proc nothing is known, and a process on a host is not PID 1 of anything. */
void slow_init(void)
{
    int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (loop_add(&mounts, fd, EPOLLPRI, mounts_ready)) {
        close(fd);
        return;
    }
    look();
}

bool slow_anywhere(void)
{
    return anywhere;
}

bool slow_file(int fd)
{
    struct statfs fs;
    if (!anywhere || fstatfs(fd, &fs))
        return anywhere;
    switch ((uint32_t)fs.f_type) {
    case 0x65735546: /* FUSE, virtiofs */
    case 0x01021997: /* 9p */
    case 0x6969:     /* NFS */
    case 0xff534d42: /* CIFS */
    case 0xfe534d42: /* SMB2 */
    case 0x00c36400: /* Ceph */
    case 0x5346414f: /* AFS */
        return true;
    default:
        return false;
    }
}
