/*
 * control/exec.h - commands in the guest.
 *
 *     cci_exec_begin      sends the request; returns at once
 *     cci_exec_started    waits until the program runs, or could not be started
 *     cci_exec_wait       waits until it has ended and its captured output is here
 *     cci_exec_take       hands over the captured bytes
 *     cci_exec_kill       signals the process group
 *     cci_exec_free       legal in any state; a command that still runs goes on, its output dropped
 *
 * A short command is one round trip: begin without `notify`, then wait. Output beyond what a reply holds comes on
 * streams and is gathered on the I/O thread meanwhile, standard output and error side by side.
 */
#ifndef CCI_CONTROL_EXEC_H
#define CCI_CONTROL_EXEC_H

#include "pipe.h"

struct cci_exec_spec {
    const char *const *argv; /* program and arguments; a program without "/" is searched in the PATH of env */
    size_t argc;             /* at least 1 */
    const char *const *env;  /* "NAME=value", the whole environment; HOME is added when missing */
    size_t envc;
    const char *dir;        /* working directory; NULL or "" = "/" */
    bool make_dir;          /* create it when missing (an image's WorkingDir) */
    const char *user;       /* "name", "uid", "name:group" ...; NULL or "" = the configured one */
    bool stdout_wanted;     /* capture standard output; else it goes to /dev/null */
    bool stderr_wanted;     /* the same of standard error */
    bool merge;             /* standard error goes where standard output goes, in order */
    bool stdin_piped;       /* standard input comes by cci_exec_pipe, else it is /dev/null; implies notify */
    bool stdout_piped;      /* standard output goes there, and is not captured */
    bool stderr_piped;      /* the same of standard error */
    bool stderr_tail;       /* keep the end of a standard error that is neither captured, merged nor piped */
    bool tty;               /* the three are a terminal, whose output is standard output */
    uint32_t columns, rows; /* of the terminal; 0: the console's */
    bool notify;            /* cci_exec_started will be called */
    bool workload;          /* the guest ends when this has; its standard streams are the guest's console */
    size_t limit;           /* most bytes kept of each output; 0 = CCI_CONTROL_LIMIT */
};

struct cci_exec {
    struct cci_call call;
    char *program; /* argv[0], for messages */
    char *dir;     /* or NULL */
    bool parsed;   /* the result has been taken from the reply */
    uint32_t status;
    uint64_t user_us, system_us, max_rss_kib;
    struct cci_buf inlined[CCI_CHANNELS]; /* output that came in the reply */
};

static void cci_exec_put_list(struct cci_proto_writer *w, const char *const *list, size_t n)
{
    cci_proto_put32(w, (uint32_t)n);
    for (size_t i = 0; i < n; i++)
        cci_proto_put_str(w, list[i]);
}

static void cci_exec_put(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_exec_spec *s = ctx;
    uint32_t flags = 0;
    flags |= s->stdout_wanted ? CCI_EXEC_STDOUT : 0u;
    flags |= s->stderr_wanted ? CCI_EXEC_STDERR : 0u;
    flags |= s->merge ? CCI_EXEC_MERGE : 0u;
    flags |= s->notify || s->stdin_piped || s->stdout_piped || s->stderr_piped ? CCI_EXEC_NOTIFY : 0u;
    flags |= s->workload ? CCI_EXEC_WORKLOAD : 0u;
    flags |= s->stdin_piped ? CCI_EXEC_PIPE_STDIN : 0u;
    flags |= s->stdout_piped ? CCI_EXEC_PIPE_STDOUT : 0u;
    flags |= s->stderr_piped ? CCI_EXEC_PIPE_STDERR : 0u;
    flags |= s->stderr_tail ? CCI_EXEC_STDERR_TAIL : 0u;
    flags |= s->tty ? CCI_EXEC_TTY : 0u;
    flags |= s->make_dir ? CCI_EXEC_MAKE_DIR : 0u;
    cci_proto_put32(w, flags);
    cci_proto_put32(w, 0); /* the usual inline limit */
    cci_proto_put_str(w, s->user);
    cci_proto_put_str(w, s->dir);
    cci_exec_put_list(w, s->argv, s->argc);
    cci_exec_put_list(w, s->env, s->envc);
    cci_proto_put32(w, s->columns);
    cci_proto_put32(w, s->rows);
}

static void cci_exec_free(struct cci_exec *e)
{
    if (!e)
        return;
    cci_call_end(&e->call);
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        cci_buf_free(&e->inlined[i]);
    cci_mem_free(e->program);
    cci_mem_free(e->dir);
    cci_mem_free(e);
}

/* Sends the request; *out is to be freed whatever becomes of it. The strings of `s` are needed only during the call. */
static cc_error_code cci_exec_begin(struct cci_control *ctl, const struct cci_exec_spec *s, struct cci_exec **out,
                                    cc_error *err)
{
    struct cci_exec *e = cci_mem_zalloc(1, sizeof(*e));
    *out = NULL;
    if (!e)
        return cci_fail_nomem(err);
    cci_call_begin(&e->call, ctl);
    e->call.to_host = true;
    e->call.farewell = s->workload;
    e->call.channels = (s->stdout_wanted ? 1u << CCI_CHANNEL_STDOUT : 0u) |
                       (s->stderr_wanted && !s->merge ? 1u << CCI_CHANNEL_STDERR : 0u);
    if (s->limit)
        e->call.limit = s->limit;
    e->program = cci_mem_strdup(s->argv[0]);
    e->dir = s->dir ? cci_mem_strdup(s->dir) : NULL;
    cc_error_code code = !e->program || (s->dir && !e->dir) ? cci_fail_nomem(err) : CC_OK;
    if (code == CC_OK)
        code = cci_call_send(&e->call, CCI_MSG_EXEC, cci_exec_put, s, err);
    if (code)
        cci_exec_free(e);
    else
        *out = e;
    return code;
}

/* The errno of a failed start, as an error about the thing that was at fault. */
static cc_error_code cci_exec_start_error(const struct cci_exec *e, cc_error *err)
{
    const struct cci_call *call = &e->call;
    const char *text = cci_errno_text(call->sys_errno);
    if (strcmp(call->what, "chdir") == 0 || strcmp(call->what, "mkdir") == 0)
        return cci_fail_errno(err, CC_ERR_IO, call->sys_errno, e->dir, "working directory: %s", text);
    return cci_call_check(call, e->program, err);
}

static bool cci_exec_has_started(void *ctx)
{
    const struct cci_call *call = ctx;
    return call->started || cci_call_is_over(ctx);
}

/* Waits until the program runs (or already ended); an error when it could not be started. */
static cc_error_code cci_exec_started(struct cci_exec *e, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code =
        cci_call_wait_for(&e->call, cci_exec_has_started, wait, "a command to start in the guest", err);
    cci_monitor_lock(&e->call.monitor);
    bool started = e->call.started; /* then its reply may be coming in at this moment */
    cci_monitor_unlock(&e->call.monitor);
    return code || started ? code : cci_exec_start_error(e, err);
}

static cc_error_code cci_exec_parse(struct cci_exec *e, cc_error *err)
{
    struct cci_proto_reader in = cci_call_result(&e->call);
    e->status = cci_proto_get32(&in);
    e->user_us = cci_proto_get64(&in);
    e->system_us = cci_proto_get64(&in);
    e->max_rss_kib = cci_proto_get64(&in);
    for (unsigned i = CCI_CHANNEL_STDOUT; i <= CCI_CHANNEL_STDERR; i++) {
        size_t n;
        const uint8_t *p = cci_proto_get_bytes(&in, &n);
        if (n && !cci_buf_add(&e->inlined[i], p, n))
            return cci_fail_nomem(err);
    }
    if (in.bad)
        return cci_fail(err, CC_ERR_IO, e->program, "the guest's agent sent a result that breaks the protocol");
    e->parsed = true;
    return CC_OK;
}

/* Whether the result is here; cci_exec_wait would not wait. */
static bool cci_exec_is_over(struct cci_exec *e)
{
    cci_monitor_lock(&e->call.monitor);
    bool over = cci_call_is_over(&e->call);
    cci_monitor_unlock(&e->call.monitor);
    return over;
}

/* The number of the process in the guest; 0 when STARTED was not asked for, or has not come. */
static int cci_exec_pid(struct cci_exec *e)
{
    cci_monitor_lock(&e->call.monitor);
    int pid = (int)e->call.pid;
    cci_monitor_unlock(&e->call.monitor);
    return pid;
}

/* 0 to 255 as the program's own; killed by signal N is 128 + N. */
static int cci_exec_code(uint32_t status)
{
    unsigned sig = status & 0x7f;
    return sig ? (int)(128 + sig) : (int)(status >> 8 & 0xff);
}

/* Waits for the end. May be repeated after a deadline, and after success gives the same again. */
static cc_error_code cci_exec_wait(struct cci_exec *e, const struct cci_wait *wait, int *exit_code, cc_error *err)
{
    cc_error_code code = CC_OK;
    if (!e->parsed) {
        code = cci_call_wait(&e->call, wait, "a command in the guest", err);
        if (code == CC_OK)
            code = cci_exec_start_error(e, err);
        if (code == CC_OK)
            code = cci_exec_parse(e, err);
    }
    for (unsigned i = 0; code == CC_OK && i < CCI_CHANNELS; i++)
        code = cci_control_collected(&e->call, i, e->program, wait, err);
    if (code == CC_OK)
        *exit_code = cci_exec_code(e->status);
    return code;
}

/* Hands over what was captured on CCI_CHANNEL_STDOUT or _STDERR of a command that has ended; free with cci_mem_free.
 * The bytes are followed by a NUL that does not count. A second time there is nothing left. */
static cc_error_code cci_exec_take(struct cci_exec *e, unsigned channel, uint8_t **bytes, size_t *n, cc_error *err)
{
    struct cci_buf *from = e->call.collect[channel] ? &e->call.collect[channel]->data : &e->inlined[channel];
    uint8_t *end = cci_buf_reserve(from, 1);
    if (!end)
        return cci_fail_nomem(err);
    *end = 0;
    *bytes = from->p;
    *n = from->n;
    memset(from, 0, sizeof(*from));
    return CC_OK;
}

struct cci_exec_signalling {
    uint64_t id;
    int sig;
};

static void cci_exec_put_signal(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_exec_signalling *s = ctx;
    cci_proto_put64(w, s->id);
    cci_proto_put32(w, (uint32_t)s->sig);
}

/* Sends a signal (Linux's number) to the command's process group; ESRCH when that has no process any more. */
static cc_error_code cci_exec_signal(struct cci_exec *e, int sig, const struct cci_wait *wait, cc_error *err)
{
    const struct cci_exec_signalling s = {e->call.id, sig};
    return cci_control_ask(e->call.control, CCI_MSG_KILL, cci_exec_put_signal, &s, wait, "a signal to be sent", err);
}

struct cci_exec_resizing {
    uint64_t id;
    uint32_t columns, rows;
};

static void cci_exec_put_resize(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_exec_resizing *r = ctx;
    cci_proto_put64(w, r->id);
    cci_proto_put32(w, r->columns);
    cci_proto_put32(w, r->rows);
}

/* Sets the size of a command's terminal; of all, and the console, when `e` is NULL. */
static cc_error_code cci_exec_resize(struct cci_control *ctl, const struct cci_exec *e, uint32_t columns, uint32_t rows,
                                     const struct cci_wait *wait, cc_error *err)
{
    const struct cci_exec_resizing r = {e ? e->call.id : 0, columns, rows};
    return cci_control_ask(ctl, CCI_MSG_RESIZE, cci_exec_put_resize, &r, wait, "a terminal to be resized", err);
}

/* Attaches to a piped channel of a command that has started: once each. The pipe is to be freed before the command. */
static cc_error_code cci_exec_pipe(struct cci_exec *e, uint32_t channel, struct cci_pipe **out,
                                   const struct cci_wait *wait, cc_error *err)
{
    return cci_pipe_open(e->call.control, e->call.id, channel, out, wait, err);
}

/* The same without an answer: nothing happens when the command has ended. */
static void cci_exec_kill(struct cci_exec *e, int sig)
{
    cci_call_aside(&e->call, CCI_MSG_KILL, (uint32_t)sig);
}

#endif
