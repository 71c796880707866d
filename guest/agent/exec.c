/*
 * Commands.
 *
 * A child is made with vfork: it borrows our memory until execve, so a failed start needs no pipe to
 * tell us of it, and nothing is copied. Each command leads its own session and process group, which
 * is what KILL signals. A command is over when its process has been reaped and each captured output
 * is at its end or has become a stream; the latter also when grandchildren hold the pipe longer than
 * the process lives, as os/exec has it.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct exec {
    struct request req;
    pid_t pid;
    bool exited; /* reaped; status and usage are known */
    bool replied;
    bool workload;
    bool hold; /* several feeds are being changed: settle when all are */
    int status;
    struct rusage usage;
};

/* What EXEC asked for, pointing into the received frame. */
struct spec {
    uint32_t flags, limit;
    const char *user, *dir;
    char **argv, **env;
    const char *path; /* PATH to search */
    struct identity who;
    int in, out, err; /* the child's standard streams, or -1 for /dev/null */
};

static bool has_workload; /* there is one, or was */

/* How the start failed; written by the child in our memory. */
struct failure {
    int err;
    const char *what;
};

/* ---- the child, on borrowed memory: system calls only ------------------------------------------ */

/* As execvp does it: EACCES is reported only if no later directory has the program. */
static int search(const struct spec *s)
{
    const char *name = s->argv[0], *dir = s->path;
    size_t name_len = strlen(name);
    char candidate[4096];
    int denied = 0;
    if (strchr(name, '/')) {
        execve(name, s->argv, s->env);
        return errno;
    }
    for (;;) {
        const char *end = strchr(dir, ':');
        size_t n = end ? (size_t)(end - dir) : strlen(dir);
        if (name_len && n + name_len + 2 <= sizeof candidate) {
            memcpy(candidate, dir, n);
            candidate[n] = '/';
            memcpy(candidate + n + (n != 0), name, name_len + 1); /* an empty entry is "here" */
            execve(candidate, s->argv, s->env);
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

static void child(const struct spec *s, volatile struct failure *failed)
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
    failed->what = "chdir";
    if (chdir(*s->dir ? s->dir : "/"))
        err = errno;
    if (!err) {
        failed->what = "set user";
        err = become(&s->who);
    }
    if (!err) {
        failed->what = "exec";
        err = search(s);
    }
    failed->err = err;
    _exit(127);
}

/* Returns the child's pid, or -1 with *failed set. */
static pid_t start(const struct spec *s, volatile struct failure *failed)
{
    pid_t pid = vfork();
    if (pid == 0)
        child(s, failed);
    if (pid < 0) {
        failed->err = errno;
        failed->what = "fork";
    } else if (failed->err) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        return -1;
    }
    return pid;
}

/* ---- the end of a command -------------------------------------------------------------------- */

static uint64_t microseconds(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void put_output(struct cci_proto_writer *w, const struct feed *f)
{
    if (f && feed_inline(f))
        cci_proto_put_bytes(w, f->buf + CCI_PROTO_HEADER, f->len);
    else
        cci_proto_put32(w, 0);
}

static void send_result(struct exec *e)
{
    size_t size = 36;
    struct cci_proto_writer *w;
    for (int i = 0; i < CCI_CHANNELS; i++)
        if (e->req.feeds[i])
            size += e->req.feeds[i]->len;
    w = reply_begin(e->req.id, 0, "", size);
    cci_proto_put32(w, (uint32_t)e->status);
    cci_proto_put64(w, microseconds(e->usage.ru_utime));
    cci_proto_put64(w, microseconds(e->usage.ru_stime));
    cci_proto_put64(w, (uint64_t)e->usage.ru_maxrss);
    put_output(w, e->req.feeds[CCI_CHANNEL_STDOUT]);
    put_output(w, e->req.feeds[CCI_CHANNEL_STDERR]);
    frame_end();
    e->replied = true;
}

/* Something ended: report when all that the report needs is there, and forget when all is over. */
static void settle(struct request *r)
{
    struct exec *e = (struct exec *)r; /* req is the first member */
    bool settled = true, over = true;
    if (e->hold || !e->exited)
        return;
    for (int i = 0; i < CCI_CHANNELS; i++) {
        struct feed *f = r->feeds[i];
        if (!f)
            continue;
        if (!feed_settled(f))
            settled = false;
        if (f->state != FEED_DONE)
            over = false;
    }
    if (settled && !e->replied)
        send_result(e);
    if (settled && over)
        request_free(r);
}

static void detach(struct request *r)
{
    struct exec *e = (struct exec *)r;
    e->hold = true;
    for (int i = 0; i < CCI_CHANNELS; i++)
        if (r->feeds[i])
            feed_drop(r->feeds[i]);
    e->hold = false;
    settle(r);
}

static struct exec *find_pid(pid_t pid)
{
    for (struct request *r = requests; r; r = r->next) {
        struct exec *e = (struct exec *)r;
        if (r->detach == detach && !e->exited && e->pid == pid)
            return e;
    }
    return NULL;
}

void exec_reap(void)
{
    struct rusage usage;
    int status;
    pid_t pid;
    /* As PID 1 we also get every orphan of the guest. */
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        struct exec *e = find_pid(pid);
        if (!e)
            continue;
        e->exited = true;
        e->status = status;
        e->usage = usage;
        /* Its last output and the end of file are most likely there: read them now. */
        e->hold = true;
        for (int i = 0; i < CCI_CHANNELS; i++)
            if (e->req.feeds[i] && e->req.feeds[i]->state == FEED_GATHER)
                feed_start(e->req.feeds[i]);
        e->hold = false;
        settle(&e->req);
    }
}

void exec_kill(uint64_t id, uint64_t target, int sig)
{
    struct request *r = request_find(target);
    struct exec *e = (struct exec *)r;
    int err = 0;
    if (!r || r->detach != detach)
        err = ESRCH;
    /* The number of a process group stays taken while the group has members. When it has none and the
       number went to another command, that is not the one meant. */
    else if (e->exited && find_pid(e->pid))
        err = ESRCH;
    else if (kill(-e->pid, sig))
        err = errno;
    reply(id, err, err ? "kill" : "");
}

void exec_kill_all(void)
{
    for (struct request *r = requests; r; r = r->next)
        if (r->detach == detach)
            kill(-((struct exec *)r)->pid, SIGKILL);
}

unsigned exec_terminate(int sig)
{
    unsigned count = 0;
    for (struct request *r = requests; r; r = r->next) {
        struct exec *e = (struct exec *)r;
        if (r->detach == detach && !e->exited && (!has_workload || e->workload) && kill(-e->pid, sig) == 0)
            count++;
    }
    return count;
}

/* ---- the start of a command ------------------------------------------------------------------ */

/* A list of strings, NULL-terminated, with room for one more. NULL when the frame is malformed. */
static char **get_list(struct cci_proto_reader *in, uint32_t *count)
{
    uint32_t n = cci_proto_get32(in);
    char **list;
    if (in->bad || n > in->left / 4)
        return NULL;
    list = must(calloc((size_t)n + 2, sizeof *list));
    for (uint32_t i = 0; i < n; i++) {
        list[i] = get_cstr(in);
        if (!list[i]) {
            free(list);
            return NULL;
        }
    }
    *count = n;
    return list;
}

static const char *env_get(char *const *env, const char *name)
{
    size_t n = strlen(name);
    for (; *env; env++)
        if (!strncmp(*env, name, n) && (*env)[n] == '=')
            return *env + n + 1;
    return NULL;
}

/* Fills *s from the frame. 0, or errno with *what set. The caller frees argv and env either way. */
static int parse(struct spec *s, struct cci_proto_reader *in, const char **what)
{
    uint32_t argc = 0, envc = 0;
    *what = "malformed request";
    s->flags = cci_proto_get32(in);
    s->limit = cci_proto_get32(in);
    s->user = get_cstr(in);
    s->dir = get_cstr(in);
    s->argv = get_list(in, &argc);
    if (!s->argv || !s->user || !s->dir)
        return EPROTO;
    s->env = get_list(in, &envc);
    if (!s->env || in->bad)
        return EPROTO;
    *what = "no program named";
    if (!argc)
        return EINVAL;
    *what = "the machine has its workload already";
    if ((s->flags & CCI_EXEC_WORKLOAD) && has_workload)
        return EBUSY;
    if (s->limit == 0 || s->limit > CCI_PROTO_INLINE)
        s->limit = CCI_PROTO_INLINE;
    s->path = env_get(s->env, "PATH");
    if (!s->path)
        s->path = DEFAULT_PATH;
    return user_find(*s->user ? s->user : agent.user ? agent.user : "0", &s->who, what);
}

/* A pipe of which we read without waiting. */
static int output_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC))
        return errno;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return 0;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

static int open_outputs(struct spec *s, int out[2], int err[2])
{
    int e = 0;
    if (s->flags & CCI_EXEC_STDOUT)
        e = output_pipe(out);
    if (!e && (s->flags & (CCI_EXEC_STDERR | CCI_EXEC_MERGE)) == CCI_EXEC_STDERR)
        e = output_pipe(err);
    if (s->flags & CCI_EXEC_WORKLOAD) {
        /* A machine without a console has /dev/null there. */
        if (agent.machine)
            s->in = s->out = s->err = open("/dev/console", O_RDWR | O_CLOEXEC | O_NOCTTY);
        return e;
    }
    s->out = out[1];
    s->err = s->flags & CCI_EXEC_MERGE ? out[1] : err[1];
    return e;
}

static void begin(uint64_t id, const struct spec *s, pid_t pid, int out, int err)
{
    struct exec *e = (struct exec *)request_new(sizeof *e, id);
    e->pid = pid;
    e->req.detach = detach;
    e->workload = (s->flags & CCI_EXEC_WORKLOAD) != 0;
    has_workload |= e->workload;
    if (out >= 0)
        feed_new(&e->req, CCI_CHANNEL_STDOUT, out, true, s->limit, settle);
    if (err >= 0)
        feed_new(&e->req, CCI_CHANNEL_STDERR, err, true, s->limit, settle);
    if (s->flags & CCI_EXEC_NOTIFY) {
        cci_proto_put32(frame_begin(CCI_MSG_STARTED, id, 4), (uint32_t)pid);
        frame_end();
    }
}

/* Returns 0 when the command runs, else errno with *what set. */
static int launch(uint64_t id, struct spec *s, const char **what)
{
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    volatile struct failure failed = {0, NULL};
    pid_t pid = -1;
    *what = "pipe";
    failed.err = open_outputs(s, out, err);
    if (!failed.err) {
        pid = start(s, &failed);
        *what = failed.what;
    }
    close_fd(out[1]);
    close_fd(err[1]);
    if (s->in >= 0)
        close(s->in);
    if (pid >= 0) {
        begin(id, s, pid, out[0], err[0]);
        return 0;
    }
    close_fd(out[0]);
    close_fd(err[0]);
    return failed.err;
}

void exec_request(uint64_t id, struct cci_proto_reader *in)
{
    struct spec s = {.in = -1, .out = -1, .err = -1};
    const char *what = "";
    char *home = NULL;
    int err = parse(&s, in, &what);
    if (!err && !env_get(s.env, "HOME")) {
        char **end = s.env;
        while (*end)
            end++;
        *end = home = join("HOME=", s.who.home, ""); /* get_list left room */
    }
    if (!err && (s.flags & CCI_EXEC_MAKE_DIR) && *s.dir) {
        err = make_dirs(s.dir, 0755);
        what = "mkdir";
    }
    if (!err)
        err = launch(id, &s, &what);
    if (err)
        reply(id, err, what);
    free(s.argv);
    free(s.env);
    free(home);
}
