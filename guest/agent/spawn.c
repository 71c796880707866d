/*
 * The start of a program.
 *
 * A child is made with vfork: it borrows our memory until execve, so a failed start needs no pipe to
 * tell us of it, and nothing is copied. In the child: system calls only. Each program leads its own
 * session and process group, which is what KILL signals.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How the start failed; written by the child in our memory. */
struct failure {
    int err;
    const char *what;
};

/* As execvp does it: EACCES is reported only if no later directory has the program. */
int program_search(const char *name, const char *dir, bool (*try)(const char *path, void *ctx), void *ctx)
{
    size_t name_len = strlen(name);
    char candidate[4096];
    int denied = 0;
    if (strchr(name, '/'))
        return try(name, ctx) ? 0 : errno;
    for (;;) {
        const char *end = strchr(dir, ':');
        size_t n = end ? (size_t)(end - dir) : strlen(dir);
        if (name_len && n + name_len + 2 <= sizeof candidate) {
            memcpy(candidate, dir, n);
            candidate[n] = '/';
            memcpy(candidate + n + (n != 0), name, name_len + 1); /* an empty entry is "here" */
            if (try(candidate, ctx))
                return 0;
            if (errno == EACCES)
                denied = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG)
                return errno;
        }
        if (!end)
            return denied ? denied : ENOENT;
        dir = end + 1;
    }
}

/* Comes back only when it failed. */
static bool run(const char *path, void *ctx)
{
    const struct spawn *s = ctx;
    execve(path, s->argv, s->env);
    return false;
}

/* The libc calls for these stop every thread first; the child has one and shares our memory. */
static int become(const struct identity *who)
{
    if (who->ngroups && syscall(SYS_setgroups, who->ngroups, who->groups)) {
        /* A process in a user namespace of an ordinary user cannot: its groups stay what they are. */
        if (agent.machine || errno != EPERM)
            return errno;
    }
    if (who->gid && syscall(SYS_setresgid, who->gid, who->gid, who->gid))
        return errno;
    if (who->uid && syscall(SYS_setresuid, who->uid, who->uid, who->uid))
        return errno;
    return 0;
}

static void child(const struct spawn *s, volatile struct failure *failed)
{
    static const struct rlimit files = {1024, 524288}; /* many programs close every possible one */
    sigset_t none;
    int err = 0;
    setsid();
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(022);
    if (agent.machine)
        setrlimit(RLIMIT_NOFILE, &files);
    dup2(s->in >= 0 ? s->in : agent.null_fd, 0);
    dup2(s->out >= 0 ? s->out : agent.null_fd, 1);
    dup2(s->err >= 0 ? s->err : agent.null_fd, 2);
    if (s->tty)
        ioctl(0, TIOCSCTTY, 0);
    failed->what = "chdir";
    if (*s->dir && strcmp(s->dir, "/") && chdir(s->dir)) /* we are in "/" */
        err = errno;
    if (!err) {
        failed->what = "set user";
        err = become(s->who);
    }
    if (!err) {
        failed->what = "exec";
        err = program_search(s->argv[0], s->path, run, (void *)(uintptr_t)s);
    }
    failed->err = err;
    _exit(127);
}

pid_t spawn(const struct spawn *s, int *err, const char **what)
{
    volatile struct failure failed = {0, NULL};
    pid_t pid = vfork();
    if (pid == 0)
        child(s, &failed);
    if (pid < 0) {
        failed.err = errno;
        failed.what = "fork";
    } else if (failed.err) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        pid = -1;
    }
    *err = failed.err;
    *what = failed.what;
    return pid;
}
