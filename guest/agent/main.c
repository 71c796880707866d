/*
 * Start and end of the agent.
 *
 *   /init [cc.root=DEVICE] [cc.scratch=DEVICE|tmpfs]     PID 1 of a machine; the kernel passes what
 *                                                        follows "--" on its command line
 *   agent --socket PATH [--root DIR]                     a process on the host, for tests
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

struct agent agent = {.null_fd = -1};

void *must(void *p)
{
    if (!p)
        die("no memory", ENOMEM);
    return p;
}

char *join(const char *a, const char *b, const char *c)
{
    size_t na = strlen(a), nb = strlen(b), nc = strlen(c);
    char *s = must(malloc(na + nb + nc + 1));
    memcpy(s, a, na);
    memcpy(s + na, b, nb);
    memcpy(s + na + nb, c, nc + 1);
    return s;
}

void say(const char *what, const char *arg, int err)
{
    char line[256];
    size_t n = 0;
    const char *parts[] = {
        "cc-agent: ", what, arg ? " " : "", arg ? arg : "", err ? ": " : "", err ? strerror(err) : ""};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t k = strlen(parts[i]);
        if (k > sizeof line - 1 - n)
            k = sizeof line - 1 - n;
        memcpy(line + n, parts[i], k);
        n += k;
    }
    line[n++] = '\n';
    /* Descriptor 2 is the kernel's console when we are PID 1. Nobody is left to tell if it fails. */
    if (write(2, line, n) < 0)
        return;
}

void end_agent(void)
{
    if (!agent.machine) {
        exec_kill_all();
        _exit(0);
    }
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause(); /* a machine that cannot power off stays here: its host has gone away */
}

void die(const char *what, int err)
{
    say(what, NULL, err);
    if (!agent.machine)
        _exit(1);
    end_agent();
}

static void child_ready(struct source *s, uint32_t events)
{
    struct signalfd_siginfo info;
    (void)events;
    /* One at a time is enough: SIGCHLD does not queue, and all that wait are reaped. */
    if (read(s->fd, &info, sizeof info) > 0)
        exec_reap();
    stop_check();
}

static void watch_children(void)
{
    static struct source children;
    sigset_t set;
    int fd;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* a command may close its standard input early */
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        die("signalfd", errno);
    if (loop_add(&children, fd, EPOLLIN, child_ready))
        die("epoll", errno);
}

/* Commands are given the usual soft limit again when they start. */
static void raise_limits(void)
{
    struct rlimit files = {524288, 524288};
    if (setrlimit(RLIMIT_NOFILE, &files) == 0)
        return;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static void run_process(int argc, char **argv)
{
    const char *path = NULL, *root = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--socket"))
            path = argv[i + 1];
        else if (!strcmp(argv[i], "--root"))
            root = argv[i + 1];
        else
            die("usage: agent --socket PATH [--root DIR]", 0);
    }
    if (!path || argc % 2 == 0)
        die("usage: agent --socket PATH [--root DIR]", 0);
    boot_process(path, root);
}

static void run_machine(int argc, char **argv)
{
    struct boot_options options = {"/dev/vda", "/dev/vdb"};
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "cc.root=", 8))
            options.root = argv[i] + 8;
        if (!strncmp(argv[i], "cc.scratch=", 11))
            options.scratch = argv[i] + 11;
    }
    boot_machine(&options);
}

int main(int argc, char **argv)
{
    agent.machine = getpid() == 1 && !(argc > 1 && !strcmp(argv[1], "--socket"));
    /* The kernel gives PID 1 no descriptors when it has no console; pipes must not land on 0 to 2. */
    do {
        agent.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (agent.null_fd >= 0 && agent.null_fd < 3);
    if (agent.null_fd < 0)
        die("/dev/null", errno);
    umask(0); /* modes are what the host asked for */
    raise_limits();
    loop_init();
    if (agent.machine)
        run_machine(argc, argv);
    else
        run_process(argc, argv);
    work_init(); /* after run_process: threads do not survive a fork */
    slow_init();
    watch_children(); /* after run_process: it forks, and a signalfd reports its opener's signals */
    loop_run();
}
