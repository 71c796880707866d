/*
 * base/process_linux.h - running another program on Linux, with bytes for its input and a bound on its output.
 *
 * The program is started by posix_spawnp (which libc declares unconditionally), without a shell: its name is looked up
 * in PATH and its arguments arrive as they are. It gets the caller's environment, its standard error, no signal
 * blocked, and no descriptor but 0, 1 and 2, as all of ours are close-on-exec. Its input is a file in memory and no
 * pipe: one that does not read it cannot block us, nor raise SIGPIPE.
 *
 * The caller's program may have its own way with SIGCHLD and take the exit status before we can (or ignore the signal,
 * so that there is none): then the status is unknown, which is told as -1. The end itself is seen through a pidfd,
 * which nobody can take away. A program that is still running at the deadline, that says more than it may, or whose
 * caller was cancelled, is killed.
 */
#ifndef CCI_BASE_PROCESS_LINUX_H
#define CCI_BASE_PROCESS_LINUX_H

#include <spawn.h>

#include "cancel.h"
#include "errno_text.h"

extern char **environ;

struct cci_process {
    cci_fd out;   /* our end of its standard output */
    cci_fd pidfd; /* readable when it has ended */
    cci_fd wake;  /* signalled by a cancellation */
    pid_t pid;    /* 0: not started */
    size_t max;   /* bytes of output that it may make */
};

/* The kernel's struct pollfd. */
struct cci_process_poll {
    int fd;
    int16_t events, revents;
};

static void cci_process_on_cancel(void *ctx)
{
    cci_os_eventfd_signal(*(const cci_fd *)ctx);
}

/* Starts the program with these as its descriptors 0 and 1. Returns 0 or a positive error number. */
static int cci_process_spawn(char *const *argv, cci_fd in, cci_fd out, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t mask; /* all zero: no signal */
    memset(&mask, 0, sizeof(mask));
    int r = posix_spawn_file_actions_init(&actions);
    if (r)
        return r;
    r = posix_spawnattr_init(&attr);
    if (!r) {
        r = posix_spawn_file_actions_adddup2(&actions, in, 0);
        if (!r)
            r = posix_spawn_file_actions_adddup2(&actions, out, 1);
        if (!r)
            r = posix_spawnattr_setsigmask(&attr, &mask);
        if (!r)
            r = posix_spawnattr_setflags(&attr, 0x08 /* POSIX_SPAWN_SETSIGMASK */);
        if (!r)
            r = posix_spawnp(pid, argv[0], &actions, &attr, argv, environ);
        (void)posix_spawnattr_destroy(&attr);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return r;
}

/* Reads what is there; 0, or -EFBIG, -ENOMEM or another error number. At the end of the output `out` is closed. */
static int cci_process_take(struct cci_process *p, struct cci_buf *out)
{
    uint8_t *room = cci_buf_reserve(out, 4096);
    int64_t n = room ? cci_os_read(p->out, room, 4096) : -ENOMEM;
    if (n > 0)
        out->n += (size_t)n;
    if (n == 0) {
        cci_os_close(p->out);
        p->out = CCI_NO_FD;
    }
    return n < 0 ? (int)n : out->n > p->max ? -EFBIG : 0;
}

/* Waits for something to happen. Returns 0, -ETIME at the deadline, -ECANCELED, or an error number. */
static int cci_process_turn(struct cci_process *p, uint64_t deadline, struct cci_buf *out, bool *ended)
{
    struct cci_process_poll fds[3] = {{p->out, 1 /* POLLIN */, 0}, {p->pidfd, 1, 0}, {p->wake, 1, 0}};
    uint64_t now = cci_os_now();
    uint64_t left = deadline == CCI_FOREVER ? 0 : deadline > now ? deadline - now : 0;
    struct cci_os_timespec ts = {(int64_t)(left / 1000000000u), (int64_t)(left % 1000000000u)};
    long r = cci_os_result(syscall(SYS_ppoll, fds, 3L, deadline == CCI_FOREVER ? NULL : &ts, NULL, 8L));
    if (r <= 0)
        return r == -EINTR ? 0 : r == 0 ? -ETIME : (int)r;
    if (fds[2].revents)
        return -ECANCELED;
    if (fds[0].revents)
        return cci_process_take(p, out);
    *ended = fds[1].revents != 0; /* its output comes first: there may be some left in the pipe */
    return 0;
}

/* Until it has ended, and said all it had to say. A grandchild that keeps the output open is not waited for. */
static int cci_process_talk(struct cci_process *p, uint64_t deadline, struct cci_buf *out)
{
    bool ended = false;
    int r = 0;
    while (r == 0 && !ended)
        r = cci_process_turn(p, deadline, out, &ended);
    return r;
}

static int cci_process_open(struct cci_process *p, char *const *argv, const char *input)
{
    cci_fd ends[2] = {CCI_NO_FD, CCI_NO_FD};
    cci_fd in = (cci_fd)cci_os_result(syscall(SYS_memfd_create, "input", 1L /* CLOEXEC */));
    int r = in < 0 ? in : cci_os_pwrite_all(in, input, strlen(input), 0);
    if (r == 0)
        r = (int)cci_os_result(syscall(SYS_pipe2, ends, (long)CCI_OS_O_CLOEXEC));
    if (r == 0) {
        p->out = ends[0];
        r = -cci_process_spawn(argv, in, ends[1], &p->pid);
        if (r < 0)
            p->pid = 0;
        cci_os_close(ends[1]);
    }
    cci_os_close(in);
    if (r == 0) {
        p->pidfd = (cci_fd)cci_os_result(syscall(SYS_pidfd_open, (long)p->pid, 0L));
        r = p->pidfd < 0 ? p->pidfd : 0;
    }
    return r;
}

/* Kills it if it runs, and takes its status: 0 to 255, 128 and the signal, or -1 when somebody else has taken it. */
static int cci_process_reap(struct cci_process *p, bool force)
{
    int status = 0;
    if (!p->pid)
        return -1;
    if (force && p->pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, (long)p->pidfd, 9L, NULL, 0L);
    else if (force)
        (void)syscall(SYS_kill, (long)p->pid, 9L);
    long r;
    do
        r = cci_os_result(syscall(SYS_wait4, (long)p->pid, &status, 0L, NULL));
    while (r == -EINTR);
    if (r < 0)
        return -1;
    return (status & 0x7f) ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

/*
 * Runs argv[0] with `in` as its standard input until it ends; appends what it writes to its standard output to *out,
 * of at most `max` bytes. *status is its exit status as a shell tells it, or -1 if unknown. `argv` ends with NULL.
 */
static cc_error_code cci_process_run(char *const *argv, const char *in, size_t max, const struct cci_wait *wait,
                                     struct cci_buf *out, int *status, cc_error *err)
{
    struct cci_process p = {CCI_NO_FD, CCI_NO_FD, CCI_NO_FD, 0, max};
    struct cci_cancel_hook hook;
    *status = -1;
    p.wake = cci_os_eventfd();
    if (p.wake < 0)
        return cci_fail_errno(err, CC_ERR_UNKNOWN, -p.wake, argv[0], "cannot make an event: %s",
                              cci_errno_text(-p.wake));
    int r = cci_cancel_attach(wait->cancel, &hook, cci_process_on_cancel, &p.wake) ? -ECANCELED : 0;
    if (r == 0)
        r = cci_process_open(&p, argv, in);
    if (r == 0)
        r = cci_process_talk(&p, wait->deadline, out);
    *status = cci_process_reap(&p, r != 0);
    cci_cancel_detach(wait->cancel, &hook);
    cci_os_close(p.out);
    cci_os_close(p.pidfd);
    cci_os_close(p.wake);
    if (r == 0)
        return CC_OK;
    if (r == -ECANCELED)
        return cci_fail(err, CC_ERR_CANCELLED, argv[0], "cancelled while waiting for the program %s", argv[0]);
    if (r == -ETIME)
        return cci_fail(err, CC_ERR_TIMEOUT, argv[0], "the program %s did not end in time", argv[0]);
    if (r == -EFBIG)
        return cci_fail(err, CC_ERR_IO, argv[0], "the program %s writes more than %zu bytes", argv[0], max);
    return cci_fail_errno(err, CC_ERR_IO, -r, argv[0], "cannot run the program %s: %s", argv[0], cci_errno_text(-r));
}

#endif
