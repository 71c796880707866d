/* What the host tells at start, and the end. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Writes a file in /etc. Images have symbolic links there that lead nowhere (resolv.conf into /run):
   such a link is replaced. */
static int put_file(const char *path, const char *a, const char *b)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
    int err = 0;
    if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENOTDIR)) {
        mkdir("/etc", 0755);
        unlink(path);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    }
    if (fd < 0)
        return errno;
    if (write(fd, a, strlen(a)) < 0 || write(fd, b, strlen(b)) < 0)
        err = errno;
    if (close(fd) && !err)
        err = errno;
    return err;
}

static int set_clock(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    return clock_settime(CLOCK_REALTIME, &t) ? errno : 0;
}

void system_configure(uint64_t id, struct cci_proto_reader *in)
{
    uint64_t realtime = cci_proto_get64(in);
    const char *hostname = get_cstr(in), *hosts = get_cstr(in), *resolv = get_cstr(in);
    const char *user = get_cstr(in), *what = "";
    int err = 0;
    if (!hostname || !hosts || !resolv || !user) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (*user) {
        free(agent.user);
        agent.user = join(user, "", "");
    }
    if (agent.machine && realtime)
        err = set_clock(realtime), what = "clock";
    if (!err && agent.machine && *hostname && sethostname(hostname, strlen(hostname)))
        err = errno, what = "hostname";
    if (!err && agent.own_root && *hostname)
        err = put_file("/etc/hostname", hostname, "\n"), what = "/etc/hostname";
    if (!err && agent.own_root && *hosts)
        err = put_file("/etc/hosts", hosts, ""), what = "/etc/hosts";
    if (!err && agent.own_root && *resolv)
        err = put_file("/etc/resolv.conf", resolv, ""), what = "/etc/resolv.conf";
    reply(id, err, err ? what : "");
}

void system_shutdown(uint64_t id)
{
    reply(id, 0, "");
    if (agent.machine)
        kill(-1, SIGKILL); /* PID 1 itself is spared */
    end_agent();
}
