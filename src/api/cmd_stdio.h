/*
 * api/cmd_stdio.h - standard streams that come from, or go to, a descriptor or a function of the host's: os/exec's
 * Cmd.Stdin, Cmd.Stdout and Cmd.Stderr.
 *
 * Behind each is a pipe (control/pipe.h) and a thread of its own that copies, so that a slow reader, or a function that
 * takes its time, holds up its own command only. A descriptor is polled together with an eventfd before each step, so
 * that a copy that is no longer wanted ends; small steps keep a write from waiting after the poll has allowed it.
 *
 * The command is over for its waiters when its outputs have been copied to their end. A copy of input ends with the
 * program. A copy that fails (the descriptor's reader has gone, the function gives up) closes its pipe, as it would be
 * closed for the program; the error of an output, or of reading the input's descriptor, is that of the wait.
 */
#ifndef CCI_API_CMD_STDIO_H
#define CCI_API_CMD_STDIO_H

#include "cmd_pipe.h"

enum { CCI_CMD_COPY = 65536, CCI_CMD_STEP = 4096 };

/* ---- Settings -------------------------------------------------------------------------------------------- */

static cc_error_code cci_cmd_set_io(cc_cmd cmd, uint32_t channel, const struct cci_cmd_io *io, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cc_error_code code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code)
        return code;
    code = cci_cmd_claim_io(c, channel, io->kind, err);
    if (code == CC_OK)
        c->io[channel] = *io;
    cci_cmd_leave_unlock(c);
    return code;
}

static cc_error_code cci_cmd_set_fd(cc_cmd cmd, uint32_t channel, int fd, const char *op, cc_error *err)
{
    struct cci_cmd_io io = {.kind = CCI_CMD_IO_FD, .stop = CCI_NO_FD};
    cci_error_clear(err);
    io.fd = cci_os_dup(fd);
    cc_error_code code = io.fd < 0 ? cci_fail_errno(err, CC_ERR_INVALID_ARGUMENT, -io.fd, NULL,
                                                    "the descriptor cannot be used: %s", cci_errno_text(-io.fd))
                                   : cci_cmd_set_io(cmd, channel, &io, err);
    if (code && io.fd >= 0)
        cci_os_close(io.fd);
    return cci_api_end(op, code, err);
}

CC_API cc_error_code cc_cmd_set_stdin_fd(cc_cmd cmd, int fd, cc_error *err)
{
    return cci_cmd_set_fd(cmd, CCI_CHANNEL_STDIN, fd, "set_stdin_fd", err);
}

CC_API cc_error_code cc_cmd_set_stdout_fd(cc_cmd cmd, int fd, cc_error *err)
{
    return cci_cmd_set_fd(cmd, CCI_CHANNEL_STDOUT, fd, "set_stdout_fd", err);
}

CC_API cc_error_code cc_cmd_set_stderr_fd(cc_cmd cmd, int fd, cc_error *err)
{
    return cci_cmd_set_fd(cmd, CCI_CHANNEL_STDERR, fd, "set_stderr_fd", err);
}

static cc_error_code cci_cmd_set_output_fn(cc_cmd cmd, uint32_t channel, cc_output_callback fn, void *ctx,
                                           const char *op, cc_error *err)
{
    const struct cci_cmd_io io = {
        .kind = CCI_CMD_IO_CALLBACK, .fd = CCI_NO_FD, .stop = CCI_NO_FD, .output = fn, .ctx = ctx};
    cci_error_clear(err);
    return cci_api_end(op, fn ? cci_cmd_set_io(cmd, channel, &io, err) : cci_api_null("callback", err), err);
}

CC_API cc_error_code cc_cmd_set_stdout_callback(cc_cmd cmd, cc_output_callback callback, void *user_data, cc_error *err)
{
    return cci_cmd_set_output_fn(cmd, CCI_CHANNEL_STDOUT, callback, user_data, "set_stdout_callback", err);
}

CC_API cc_error_code cc_cmd_set_stderr_callback(cc_cmd cmd, cc_output_callback callback, void *user_data, cc_error *err)
{
    return cci_cmd_set_output_fn(cmd, CCI_CHANNEL_STDERR, callback, user_data, "set_stderr_callback", err);
}

CC_API cc_error_code cc_cmd_set_stdin_callback(cc_cmd cmd, cc_input_callback callback, void *user_data, cc_error *err)
{
    const struct cci_cmd_io io = {
        .kind = CCI_CMD_IO_CALLBACK, .fd = CCI_NO_FD, .stop = CCI_NO_FD, .input = callback, .ctx = user_data};
    cci_error_clear(err);
    cc_error_code code = callback ? cci_cmd_set_io(cmd, CCI_CHANNEL_STDIN, &io, err) : cci_api_null("callback", err);
    return cci_api_end("set_stdin_callback", code, err);
}

/* ---- Copying, on a thread of its own --------------------------------------------------------------------- */

/* Waits until the descriptor is ready. False when the copy is to end. */
static bool cci_cmd_io_ready(struct cci_cmd_io *io, bool write)
{
    return cci_os_poll_until(io->fd, write, io->stop);
}

/* What the caller's function says: bytes of input, or 0 at its end. */
static int64_t cci_cmd_io_ask(struct cci_cmd_io *io, uint8_t *buf)
{
    struct cci_instance_callback c;
    cci_instance_begin_callback(io->cmd->part.inst, &c);
    int64_t n = io->input(buf, CCI_CMD_COPY, io->ctx);
    cci_instance_end_callback(io->cmd->part.inst, &c);
    return n > CCI_CMD_COPY ? -EINVAL : n;
}

/* Whether the caller's function wants more than this output. */
static bool cci_cmd_io_tell(struct cci_cmd_io *io, const uint8_t *buf, size_t n)
{
    struct cci_instance_callback c;
    cci_instance_begin_callback(io->cmd->part.inst, &c);
    bool more = io->output(buf, n, io->ctx);
    cci_instance_end_callback(io->cmd->part.inst, &c);
    return more;
}

/* More input: how many bytes, 0 at the end, or a negative error number. */
static int64_t cci_cmd_io_input(struct cci_cmd_io *io, uint8_t *buf)
{
    if (io->input)
        return cci_cmd_io_ask(io, buf);
    for (;;) {
        if (!cci_cmd_io_ready(io, false))
            return 0;
        int64_t n = cci_os_read(io->fd, buf, CCI_CMD_COPY);
        if (n != -EAGAIN)
            return n;
    }
}

/* Passes output on: 0, or a negative error number. */
static int cci_cmd_io_output(struct cci_cmd_io *io, const uint8_t *buf, size_t n)
{
    if (io->output)
        return cci_cmd_io_tell(io, buf, n) ? 0 : -EPIPE;
    while (n) {
        if (!cci_cmd_io_ready(io, true))
            return -ECANCELED;
        int64_t k = cci_os_write(io->fd, buf, CCI_MIN(n, (size_t)CCI_CMD_STEP));
        if (k < 0 && k != -EAGAIN)
            return (int)k;
        if (k > 0) {
            buf += k;
            n -= (size_t)k;
        }
    }
    return 0;
}

/* Whether a negative number is an end of the input as any other: a function's is, and EIO of a terminal whose other
 * side was closed. */
static bool cci_cmd_io_is_end(const struct cci_cmd_io *io, int e)
{
    struct cci_os_statx sx;
    return io->input ||
           (e == -EIO && cci_os_statx_at(io->fd, "", &sx) == 0 && (sx.mode & 0170000u) == 0020000u /* S_IFCHR */);
}

static void cci_cmd_copy_in(struct cci_cmd_io *io, uint8_t *buf)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    size_t done;
    int64_t n;
    while ((n = cci_cmd_io_input(io, buf)) > 0)
        if (cci_pipe_write(io->pipe, buf, (size_t)n, &done, &forever, NULL))
            return; /* the program does not want it, which is its own business */
    if (n < 0 && !cci_cmd_io_is_end(io, (int)n)) {
        cci_monitor_lock(&io->cmd->monitor);
        io->sys_errno = (int)-n;
        cci_monitor_unlock(&io->cmd->monitor);
    }
}

/* Copies until the output ends, or nobody wants more. */
static void cci_cmd_copy_out(struct cci_cmd_io *io, uint8_t *buf)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    size_t n;
    for (;;) {
        io->code = cci_pipe_read(io->pipe, buf, CCI_CMD_COPY, &n, &forever, NULL);
        if (io->code || n == 0)
            return;
        if (io->is_stderr)
            cci_cmd_keep_tail(io->cmd, buf, n);
        int e = cci_cmd_io_output(io, buf, n);
        if (e == -ECANCELED)
            io->code = CC_ERR_ALREADY_CLOSED; /* we were told to end */
        else if (e && !io->output)
            io->sys_errno = -e;
        if (e)
            return;
    }
}

static void cci_cmd_io_main(void *ctx)
{
    struct cci_cmd_io *io = ctx;
    struct cci_cmd *c = io->cmd;
    if (io->is_input)
        cci_cmd_copy_in(io, io->buf);
    else
        cci_cmd_copy_out(io, io->buf);
    cci_monitor_lock(&c->monitor);
    struct cci_pipe *pipe = io->pipe;
    io->pipe = NULL;
    cci_monitor_unlock(&c->monitor);
    cci_pipe_free(pipe); /* the program sees the end of its input, or that nobody reads */
    cci_monitor_lock(&c->monitor);
    io->copying = false;
    cci_cond_wake(&c->monitor.cond);
    cci_monitor_unlock(&c->monitor);
    cci_object_unref(&c->part.object);
}

/* The program runs: starts the copy of one stream. */
static cc_error_code cci_cmd_io_start(struct cci_cmd *c, uint32_t channel, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, c->cancel};
    struct cci_cmd_io *io = &c->io[channel];
    io->cmd = c;
    io->is_input = channel == CCI_CHANNEL_STDIN;
    io->is_stderr = channel == CCI_CHANNEL_STDERR;
    io->buf = cci_mem_alloc(CCI_CMD_COPY);
    if (!io->buf)
        return cci_fail_nomem(err);
    io->stop = cci_os_eventfd();
    if (io->stop < 0)
        return cci_fail_errno(err, CC_ERR_IO, -io->stop, NULL, "cannot make a descriptor: too many open files?");
    cc_error_code code = cci_exec_pipe(c->exec, channel, &io->pipe, &wait, err);
    if (code)
        return code;
    cci_object_ref(&c->part.object); /* the thread's */
    cci_monitor_lock(&c->monitor);
    const bool interrupted = c->interrupted;
    int r = interrupted ? -ECANCELED : cci_thread_new(&io->thread, "cc-stdio", cci_cmd_io_main, io);
    io->has_thread = io->copying = r == 0;
    cci_monitor_unlock(&c->monitor);
    if (r == 0)
        return CC_OK;
    cci_object_unref(&c->part.object);
    if (!interrupted)
        return cci_fail_errno(err, CC_ERR_UNKNOWN, -r, NULL, "cannot start a thread");
    if (cci_cancel_is_set(c->cancel))
        return cci_fail(err, CC_ERR_CANCELLED, c->argv.at[0], "cancelled as the command was started");
    return cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "the instance was closed");
}

/* The program runs: connects whatever the command's standard streams are. */
static cc_error_code cci_cmd_attach_io(struct cci_cmd *c, cc_error *err)
{
    cc_error_code code = CC_OK;
    for (uint32_t i = 0; i < CCI_CHANNELS && code == CC_OK; i++) {
        if (c->io[i].kind == CCI_CMD_IO_PIPE)
            code = cci_cmd_pipe_attach(c, i, err);
        else if (c->io[i].kind != CCI_CMD_IO_NONE)
            code = cci_cmd_io_start(c, i, err);
    }
    return code;
}

/* ---- The end of the copies ------------------------------------------------------------------------------- */

/* A copy of output was told to end. */
static bool cci_cmd_was_stopped(const struct cci_cmd *c)
{
    return c->io[CCI_CHANNEL_STDOUT].code == CC_ERR_ALREADY_CLOSED ||
           c->io[CCI_CHANNEL_STDERR].code == CC_ERR_ALREADY_CLOSED;
}

/* How the copy of an output ended, as an error if it did not copy all of it. */
static cc_error_code cci_cmd_io_result(const struct cci_cmd_io *io, cc_error *err)
{
    if (io->sys_errno)
        return cci_fail_errno(err, CC_ERR_IO, io->sys_errno, NULL, "cannot pass on the command's output: %s",
                              cci_errno_text(io->sys_errno));
    if (io->code == CC_OK)
        return CC_OK;
    if (io->code == CC_ERR_IO)
        return cci_fail(err, CC_ERR_IO, NULL, "the command's output did not come whole");
    return cci_fail(err, CC_ERR_NOT_RUNNING, NULL,
                    "the instance ended before all of the command's output was passed on");
}

/* The program has ended: ends the copy of its input, and waits for those of its outputs. */
static cc_error_code cci_cmd_finish_io(struct cci_cmd *c, const struct cci_wait *wait, cc_error *err)
{
    cci_monitor_lock(&c->monitor);
    cci_cmd_io_stop(&c->io[CCI_CHANNEL_STDIN]);
    cci_monitor_unlock(&c->monitor);
    cc_error_code code =
        cci_monitor_wait(&c->monitor, wait, cci_cmd_outputs_are_copied, c, "a command's output to be passed on", err);
    bool stopped = code == CC_OK && cci_cmd_was_stopped(c);
    const int input_errno = c->io[CCI_CHANNEL_STDIN].sys_errno; /* its copy may be under way */
    cci_monitor_unlock(&c->monitor);
    /* The copies are over: nothing here changes any more. A token is never looked at under the monitor. */
    if (stopped && cci_cancel_is_set(c->cancel))
        code = cci_fail(err, CC_ERR_CANCELLED, NULL, "cancelled before all of the command's output was passed on");
    if (code == CC_OK)
        code = cci_cmd_io_result(&c->io[CCI_CHANNEL_STDOUT], err);
    if (code == CC_OK)
        code = cci_cmd_io_result(&c->io[CCI_CHANNEL_STDERR], err);
    if (code == CC_OK && input_errno)
        code = cci_fail_errno(err, CC_ERR_IO, input_errno, NULL, "cannot read the command's input: %s",
                              cci_errno_text(input_errno));
    return code;
}

#endif
