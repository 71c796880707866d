/*
 * api/cmd_pipe.h - handles for the standard streams of a command: os/exec's StdinPipe, StdoutPipe and StderrPipe.
 *
 * A pipe is asked for before the start and gets its connection at the start (control/pipe.h). Its object keeps the
 * command's, so that a call in a pipe never loses what it works on. The handle goes with the command's or the
 * instance's, or by a close of its own, which wakes the calls that are inside; the connection is closed when the last
 * of them has left.
 */
#ifndef CCI_API_CMD_PIPE_H
#define CCI_API_CMD_PIPE_H

#include "cmd.h"

struct cci_cmd_pipe {
    struct cci_part part;
    struct cci_cmd *cmd;   /* one reference to its object */
    uint32_t channel;      /* CCI_CHANNEL_STDIN, _STDOUT or _STDERR */
    struct cci_pipe *pipe; /* NULL before the start; under the command's monitor */
    bool closed;           /* the same */
};

static void cci_cmd_pipe_destroy(struct cci_object *o)
{
    struct cci_cmd_pipe *p = (struct cci_cmd_pipe *)o;
    cci_pipe_free(p->pipe);
    cci_object_unref(&p->cmd->part.object);
    cci_part_end(&p->part);
    cci_mem_free(p);
}

/* ---- Making and closing ---------------------------------------------------------------------------------- */

/* Whether a stream may be given a place to go: once, and not on what a terminal has not. With the monitor locked. */
static cc_error_code cci_cmd_claim_io(struct cci_cmd *c, uint32_t channel, enum cci_cmd_io_kind kind, cc_error *err)
{
    static const char *const names[CCI_CHANNELS] = {"", "standard output", "standard error", "standard input"};
    if (c->io[channel].kind != CCI_CMD_IO_NONE)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command's %s was set before", names[channel]);
    if (c->tty && channel == CCI_CHANNEL_STDERR)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "on a terminal there is no separate standard error");
    c->io[channel].kind = kind;
    return CC_OK;
}

static cc_error_code cci_cmd_pipe_new(struct cci_cmd *c, uint32_t channel, cc_handle *out, cc_error *err)
{
    struct cci_cmd_pipe *p = cci_mem_zalloc(1, sizeof(*p));
    if (!p)
        return cci_fail_nomem(err);
    cci_part_init(&p->part, c->part.inst, cci_cmd_pipe_destroy);
    cci_object_ref(&c->part.object);
    p->cmd = c;
    p->channel = channel;
    enum cci_kind kind = channel == CCI_CHANNEL_STDIN ? CCI_KIND_WRITE_PIPE : CCI_KIND_READ_PIPE;
    return cci_part_publish(&p->part, kind, out, err);
}

static cc_error_code cci_cmd_pipe_make(cc_cmd cmd, uint32_t channel, cc_handle *out, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    if (!out)
        return cci_api_null("out", err);
    *out = 0;
    cc_error_code code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code)
        return code;
    code = cci_cmd_claim_io(c, channel, CCI_CMD_IO_PIPE, err);
    if (code == CC_OK) {
        code = cci_cmd_pipe_new(c, channel, out, err);
        c->io[channel].kind = code ? CCI_CMD_IO_NONE : CCI_CMD_IO_PIPE;
        c->io[channel].handle = *out;
    }
    cci_cmd_leave_unlock(c);
    return code;
}

CC_API cc_error_code cc_cmd_stdin_pipe(cc_cmd cmd, cc_write_pipe *out, cc_error *err)
{
    return cci_api_end("stdin_pipe", cci_cmd_pipe_make(cmd, CCI_CHANNEL_STDIN, out, err), err);
}

CC_API cc_error_code cc_cmd_stdout_pipe(cc_cmd cmd, cc_read_pipe *out, cc_error *err)
{
    return cci_api_end("stdout_pipe", cci_cmd_pipe_make(cmd, CCI_CHANNEL_STDOUT, out, err), err);
}

CC_API cc_error_code cc_cmd_stderr_pipe(cc_cmd cmd, cc_read_pipe *out, cc_error *err)
{
    return cci_api_end("stderr_pipe", cci_cmd_pipe_make(cmd, CCI_CHANNEL_STDERR, out, err), err);
}

/* Closes a pipe whose handle has been taken out of the table. */
static void cci_cmd_pipe_close(struct cci_object *o)
{
    struct cci_cmd_pipe *p = (struct cci_cmd_pipe *)o;
    cci_monitor_lock(&p->cmd->monitor);
    p->closed = true;
    if (p->pipe)
        cci_pipe_interrupt(p->pipe);
    cci_monitor_unlock(&p->cmd->monitor);
    cci_object_unref(o);
}

static cc_error_code cci_cmd_pipe_close_handle(cc_handle h, enum cci_kind kind, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_handle_release(h, kind, &o, err);
    if (code == CC_OK)
        cci_cmd_pipe_close(o);
    return cci_api_end("close", code, err);
}

CC_API cc_error_code cc_write_pipe_close(cc_write_pipe p, cc_error *err)
{
    return cci_cmd_pipe_close_handle(p, CCI_KIND_WRITE_PIPE, err);
}

CC_API cc_error_code cc_read_pipe_close(cc_read_pipe p, cc_error *err)
{
    return cci_cmd_pipe_close_handle(p, CCI_KIND_READ_PIPE, err);
}

/* The command is freed: its pipes are closed. */
static void cci_cmd_close_pipes(struct cci_cmd *c)
{
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        if (c->io[i].kind == CCI_CMD_IO_PIPE)
            (void)cci_cmd_pipe_close_handle(c->io[i].handle, (enum cci_kind)(c->io[i].handle >> 56), NULL);
}

/* The program runs: connects a pipe, unless it was closed meanwhile; then the program sees that. */
static cc_error_code cci_cmd_pipe_attach(struct cci_cmd *c, uint32_t channel, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, c->cancel};
    struct cci_pipe *pipe;
    struct cci_object *o = NULL;
    cc_error_code code = cci_exec_pipe(c->exec, channel, &pipe, &wait, err);
    if (code)
        return code;
    cc_handle h = c->io[channel].handle;
    (void)cci_handle_get(h, (enum cci_kind)(h >> 56), &o, NULL);
    struct cci_cmd_pipe *p = (struct cci_cmd_pipe *)o;
    cci_monitor_lock(&c->monitor);
    bool wanted = p && !p->closed;
    if (wanted)
        p->pipe = pipe;
    cci_monitor_unlock(&c->monitor);
    if (!wanted)
        cci_pipe_free(pipe);
    cci_object_unref(o);
    return CC_OK;
}

/* ---- Reading and writing --------------------------------------------------------------------------------- */

/* One call on a pipe: what it works on, and under which token and deadline. */
struct cci_cmd_pipe_call {
    struct cci_cmd_pipe *p;
    struct cci_pipe *pipe;
    struct cci_cancel *token;
    struct cci_wait wait;
};

static void cci_cmd_pipe_leave(struct cci_cmd_pipe_call *call)
{
    cci_part_leave(&call->p->part);
    cci_cancel_unref(call->token);
}

static cc_error_code cci_cmd_pipe_enter(cc_handle h, enum cci_kind kind, cc_cancel_token cancel, double seconds,
                                        struct cci_cmd_pipe_call *call, cc_error *err)
{
    struct cci_part *p;
    cc_error_code code = cci_token_use(cancel, &call->token, err);
    if (code)
        return code;
    code = cci_part_enter(h, kind, &p, err);
    if (code) {
        cci_cancel_unref(call->token);
        return code;
    }
    call->p = (struct cci_cmd_pipe *)p;
    call->wait = (struct cci_wait){cci_api_deadline(seconds), call->token};
    cci_monitor_lock(&call->p->cmd->monitor);
    call->pipe = call->p->pipe; /* stays as long as the object */
    cci_monitor_unlock(&call->p->cmd->monitor);
    if (call->pipe)
        return CC_OK;
    cci_cmd_pipe_leave(call);
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the pipe's command has not been started");
}

CC_API cc_error_code cc_write_pipe_write_with(cc_write_pipe p, const uint8_t *buf, size_t len, cc_cancel_token cancel,
                                              double timeout_seconds, size_t *n, cc_error *err)
{
    struct cci_cmd_pipe_call call;
    size_t done = 0;
    cci_error_clear(err);
    if (n)
        *n = 0;
    cc_error_code code = buf || !len ? CC_OK : cci_api_null("buf", err);
    if (code == CC_OK)
        code = cci_cmd_pipe_enter(p, CCI_KIND_WRITE_PIPE, cancel, timeout_seconds, &call, err);
    if (code == CC_OK) {
        code = cci_pipe_write(call.pipe, buf, len, &done, &call.wait, err);
        cci_cmd_pipe_leave(&call);
    }
    if (n)
        *n = done;
    return cci_api_end("write", code, err);
}

CC_API cc_error_code cc_write_pipe_write(cc_write_pipe p, const uint8_t *buf, size_t len, size_t *n, cc_error *err)
{
    return cc_write_pipe_write_with(p, buf, len, 0, 0, n, err);
}

CC_API cc_error_code cc_read_pipe_read_with(cc_read_pipe p, uint8_t *buf, size_t len, cc_cancel_token cancel,
                                            double timeout_seconds, size_t *n, cc_error *err)
{
    struct cci_cmd_pipe_call call;
    cci_error_clear(err);
    if (n)
        *n = 0;
    cc_error_code code = !n ? cci_api_null("n", err) : buf || !len ? CC_OK : cci_api_null("buf", err);
    if (code == CC_OK)
        code = cci_cmd_pipe_enter(p, CCI_KIND_READ_PIPE, cancel, timeout_seconds, &call, err);
    if (code)
        return cci_api_end("read", code, err);
    if (len)
        code = cci_pipe_read(call.pipe, buf, len, n, &call.wait, err);
    if (call.p->channel == CCI_CHANNEL_STDERR)
        cci_cmd_keep_tail(call.p->cmd, buf, *n);
    cci_cmd_pipe_leave(&call);
    return cci_api_end("read", code, err);
}

CC_API cc_error_code cc_read_pipe_read(cc_read_pipe p, uint8_t *buf, size_t len, size_t *n, cc_error *err)
{
    return cc_read_pipe_read_with(p, buf, len, 0, 0, n, err);
}

#endif
