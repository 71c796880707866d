/*
 * Commands.
 *
 * A command is over when its process has been reaped and each captured output is at its end or has
 * become a stream; the latter also when grandchildren hold the pipe longer than the process lives, as
 * os/exec has it. Outputs that are pipes of the host's from the start, and the kept tail of a standard
 * error that nobody reads, hold up nothing.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct exec {
    struct request req;
    pid_t pid;
    bool exited; /* reaped; status and usage are known */
    bool replied;
    bool workload, tty;
    bool hold; /* several feeds are being changed: settle when all are */
    int status;
    struct rusage usage;
};

static bool has_workload; /* there is one, or was */

/* ---- the end of a command -------------------------------------------------------------------- */

static uint64_t microseconds(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void put_output(struct cci_proto_writer *w, const struct feed *f)
{
    if (!f || !(feed_inline(f) || f->state == FEED_TAIL)) {
        cci_proto_put32(w, 0);
        return;
    }
    cci_proto_put32(w, (uint32_t)f->len);
    cci_proto_put_raw(w, f->buf + CCI_PROTO_HEADER + f->oldest, f->len - f->oldest);
    cci_proto_put_raw(w, f->buf + CCI_PROTO_HEADER, f->oldest);
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
    if (e->req.feeds[CCI_CHANNEL_STDERR] && e->req.feeds[CCI_CHANNEL_STDERR]->state == FEED_TAIL)
        e->req.feeds[CCI_CHANNEL_STDERR]->state = FEED_DROP; /* of those that it left behind */
}

/* Something ended: report when all that the report needs is there, and forget when all is over. */
static void settle(struct request *r)
{
    struct exec *e = (struct exec *)r; /* req is the first member */
    bool settled = true, over = true;
    /* The host looks at a terminal no more: it is gone. */
    if (e->tty && r->intake && r->feeds[CCI_CHANNEL_STDOUT]->state == FEED_DONE)
        intake_end(r->intake);
    if (e->hold || !e->exited)
        return;
    for (int i = 0; i < CCI_CHANNELS; i++)
        if (r->feeds[i] && !feed_settled(r->feeds[i]))
            settled = false;
    if (settled && !e->replied)
        send_result(e);
    for (int i = 0; i < CCI_CHANNELS; i++)
        if (r->feeds[i] && r->feeds[i]->state != FEED_DONE)
            over = false;
    if (e->replied && over)
        request_free(r);
}

static void detach(struct request *r)
{
    struct exec *e = (struct exec *)r;
    e->hold = true;
    for (int i = 0; i < CCI_CHANNELS; i++)
        if (r->feeds[i])
            feed_drop(r->feeds[i]);
    if (r->intake)
        intake_end(r->intake);
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
            if (e->req.feeds[i])
                feed_start(e->req.feeds[i]);
        if (e->req.intake)
            intake_end(e->req.intake); /* as Cmd.Wait closes it */
        e->hold = false;
        settle(&e->req);
    }
}

void exec_kill(uint64_t id, uint64_t target, int sig)
{
    struct request *r = request_find(target);
    struct exec *e = (struct exec *)r;
    int err = 0;
    if (r && sig == SIGKILL && ahead_kill(r))
        ;
    else if (!r || r->detach != detach)
        err = ESRCH;
    /* The number of a process group stays taken while the group has members. When it has none and the
       number went to another command, that is not the one meant. */
    else if (e->exited && find_pid(e->pid))
        err = ESRCH;
    else if (kill(-e->pid, sig))
        err = errno;
    reply(id, err, err ? "kill" : "");
}

void exec_resize(uint64_t id, struct cci_proto_reader *in)
{
    uint64_t target = cci_proto_get64(in);
    uint32_t columns = cci_proto_get32(in), rows = cci_proto_get32(in);
    int err = target ? ESRCH : 0;
    if (in->bad) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (!target)
        tty_set_default(columns, rows);
    for (struct request *r = requests; r; r = r->next) {
        struct exec *e = (struct exec *)r;
        if ((target && r->id != target) || r->detach != detach || !e->tty || r->feeds[CCI_CHANNEL_STDOUT]->src.fd < 0)
            continue;
        err = tty_resize(r->feeds[CCI_CHANNEL_STDOUT]->src.fd, columns, rows);
        if (!target)
            err = 0;
    }
    reply(id, err, err ? "terminal" : "");
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

int exec_parse(struct exec_spec *s, struct cci_proto_reader *in, const char **what)
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
    s->columns = cci_proto_get32(in);
    s->rows = cci_proto_get32(in);
    if (!s->env || in->bad)
        return EPROTO;
    *what = "no program named";
    if (!argc)
        return EINVAL;
    if (s->limit == 0 || s->limit > CCI_PROTO_INLINE)
        s->limit = CCI_PROTO_INLINE;
    s->path = env_get(s->env, "PATH");
    if (!s->path)
        s->path = DEFAULT_PATH;
    return 0;
}

/* What of the request depends on the guest. 0, or errno with *what set. */
static int resolve(struct exec_spec *s, const char **what)
{
    *what = "the machine has its workload already";
    if ((s->flags & CCI_EXEC_WORKLOAD) && has_workload)
        return EBUSY;
    return user_find(*s->user ? s->user : agent.user ? agent.user : "0", &s->who, what);
}

/* The ends of a command's standard streams; -1 where there is none. */
struct streams {
    int ours[CCI_CHANNELS]; /* by channel */
    int in, out, err;       /* the child's */
    bool tty;               /* in, out and err are one descriptor */
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_child_ends(struct streams *t)
{
    if (t->out == t->in)
        t->out = -1;
    if (t->err == t->in || t->err == t->out)
        t->err = -1;
    close_fd(&t->in);
    close_fd(&t->out);
    close_fd(&t->err);
}

static void close_our_ends(struct streams *t)
{
    for (int i = 0; i < CCI_CHANNELS; i++)
        close_fd(&t->ours[i]);
}

/* A pipe of whose two ends ours never waits. */
static int make_pipe(int *ours, int *childs, bool child_reads)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return errno;
    *ours = ends[child_reads];
    *childs = ends[!child_reads];
    fcntl(*ours, F_SETFL, O_NONBLOCK);
    return 0;
}

static int open_tty(const struct exec_spec *s, struct streams *t)
{
    int *master = &t->ours[CCI_CHANNEL_STDOUT];
    int err = tty_open(s->columns, s->rows, s->who.uid, master, &t->in);
    t->tty = true;
    t->out = t->err = t->in;
    if (!err && (s->flags & CCI_EXEC_PIPE_STDIN)) {
        t->ours[CCI_CHANNEL_STDIN] = fcntl(*master, F_DUPFD_CLOEXEC, 3);
        err = t->ours[CCI_CHANNEL_STDIN] < 0 ? errno : 0;
    }
    return err;
}

static int open_streams(const struct exec_spec *s, struct streams *t)
{
    const uint32_t out = CCI_EXEC_STDOUT | CCI_EXEC_PIPE_STDOUT;
    const uint32_t err = CCI_EXEC_STDERR | CCI_EXEC_PIPE_STDERR | CCI_EXEC_STDERR_TAIL;
    int e = 0;
    if (s->flags & CCI_EXEC_WORKLOAD) {
        /* A machine without a console has /dev/null there. */
        if (agent.machine)
            t->in = t->out = t->err = open("/dev/console", O_RDWR | O_CLOEXEC | O_NOCTTY);
        return 0;
    }
    if (s->flags & CCI_EXEC_TTY)
        return open_tty(s, t);
    if (s->flags & CCI_EXEC_PIPE_STDIN)
        e = make_pipe(&t->ours[CCI_CHANNEL_STDIN], &t->in, true);
    if (!e && (s->flags & out))
        e = make_pipe(&t->ours[CCI_CHANNEL_STDOUT], &t->out, false);
    if (s->flags & CCI_EXEC_MERGE)
        t->err = t->out;
    else if (!e && (s->flags & err))
        e = make_pipe(&t->ours[CCI_CHANNEL_STDERR], &t->err, false);
    return e;
}

static void watch_output(struct exec *e, const struct exec_spec *s, const struct streams *t, uint32_t channel)
{
    const bool is_out = channel == CCI_CHANNEL_STDOUT;
    struct feed *f;
    if (t->ours[channel] < 0)
        return;
    f = feed_new(&e->req, channel, t->ours[channel], true, s->limit, settle);
    f->tty = t->tty;
    if (s->flags & (is_out ? CCI_EXEC_PIPE_STDOUT : CCI_EXEC_PIPE_STDERR))
        feed_hold(f);
    else if (!is_out && !(s->flags & CCI_EXEC_STDERR))
        feed_tail(f);
    else if (is_out && !(s->flags & CCI_EXEC_STDOUT))
        f->state = FEED_DROP; /* a terminal that nobody looks at */
}

/* The program runs. */
static void begin(uint64_t id, const struct exec_spec *s, pid_t pid, const struct streams *t)
{
    struct exec *e = (struct exec *)request_new(sizeof *e, id);
    e->pid = pid;
    e->req.detach = detach;
    e->tty = t->tty;
    e->workload = (s->flags & CCI_EXEC_WORKLOAD) != 0;
    has_workload |= e->workload;
    watch_output(e, s, t, CCI_CHANNEL_STDOUT);
    watch_output(e, s, t, CCI_CHANNEL_STDERR);
    if (t->ours[CCI_CHANNEL_STDIN] >= 0)
        intake_new(&e->req, t->ours[CCI_CHANNEL_STDIN], t->tty);
    if (s->flags & CCI_EXEC_NOTIFY) {
        cci_proto_put32(frame_begin(CCI_MSG_STARTED, id, 4), (uint32_t)pid);
        frame_end();
    }
}

/* Returns 0 when the command runs, else errno with *what set. */
static int launch(uint64_t id, struct exec_spec *s, const char **what)
{
    struct streams t = {{-1, -1, -1, -1}, -1, -1, -1, false};
    int err = open_streams(s, &t);
    pid_t pid = -1;
    *what = s->flags & CCI_EXEC_TTY ? "terminal" : "pipe";
    if (!err) {
        const struct spawn child = {s->argv, s->env, s->path, s->dir, &s->who, t.in, t.out, t.err, t.tty};
        pid = spawn(&child, &err, what);
    }
    close_child_ends(&t);
    if (pid >= 0) {
        begin(id, s, pid, &t);
        return 0;
    }
    close_our_ends(&t);
    return err;
}

void exec_start(uint64_t id, struct cci_proto_reader *in)
{
    struct exec_spec s = {0};
    const char *what = "";
    char *home = NULL;
    int err = exec_parse(&s, in, &what);
    if (!err)
        err = resolve(&s, &what);
    if (!err && !env_get(s.env, "HOME")) {
        char **end = s.env;
        while (*end)
            end++;
        *end = home = join("HOME=", s.who.home, ""); /* get_list left room */
    }
    if (!err && (s.flags & CCI_EXEC_MAKE_DIR) && *s.dir && strcmp(s.dir, "/")) {
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
