/*
 * api/cmd.h - a command: the object, how it is given up, and what calls on it begin and end with.
 *
 *     cmd_new.h     making one                     cmd_pipe.h    pipes to its standard streams
 *     cmd_set.h     settings                       cmd_stdio.h   descriptors and functions behind them
 *     cmd_run.h     start, wait, free              cmd_info.h    signals, and what is known of it
 *
 * A command is a list of settings until it starts; then it is a call on the control connection (control/exec.h). It
 * starts once. Any number of threads may wait: one of them waits for the guest, the others for that one, and the
 * result is kept. A command that is freed, or whose caller's token fires, is given up: its own token fires, which ends
 * the waits, and it is killed; a wait that sees its death first does not tell of that either. It may be just about to
 * be sent meanwhile; cci_cmd_begin then kills it.
 */
#ifndef CCI_API_CMD_H
#define CCI_API_CMD_H

#include "../control/exec.h"
#include "part.h"

#define CCI_CMD_SIGKILL 9

/* Where a standard stream leads; NONE is /dev/null, or what run and output do with it. */
enum cci_cmd_io_kind { CCI_CMD_IO_NONE, CCI_CMD_IO_PIPE, CCI_CMD_IO_FD, CCI_CMD_IO_CALLBACK };

/* One standard stream. What is set before the start stays; the rest is under the command's monitor. */
struct cci_cmd_io {
    enum cci_cmd_io_kind kind;
    cc_handle handle;          /* PIPE: its handle (cmd_pipe.h) */
    cci_fd fd;                 /* FD: our own duplicate */
    cc_output_callback output; /* CALLBACK: one of the two */
    cc_input_callback input;
    void *ctx;
    /* From here on: what copies (cmd_stdio.h), for FD and CALLBACK. */
    struct cci_cmd *cmd;
    bool is_input, is_stderr;
    uint8_t *buf;
    cci_fd stop;           /* an eventfd; CCI_NO_FD before the start */
    struct cci_pipe *pipe; /* NULL when there is none any more */
    struct cci_thread thread;
    bool has_thread;    /* it was started; it has a reference to the command */
    bool copying;       /* it has not come to its end */
    cc_error_code code; /* how that was */
    int sys_errno;
};

struct cci_cmd {
    struct cci_part part;
    struct cci_cancel *cancel;   /* the command's own token */
    struct cci_cancel_hook hook; /* gives the command up when `outer` fires; attached from the start on */
    struct cci_monitor monitor;  /* guards what follows; locked after a token, never before one that a caller holds */
    struct cci_cancel *outer;    /* the caller's token, or NULL; fixed once started */
    struct cci_strings argv, env;
    char *dir;
    bool image_dir; /* dir is the image's choice, which the guest makes if it is missing */
    char *user;     /* or NULL: the instance's */
    bool tty;
    uint32_t columns, rows; /* of it; 0: the instance's */
    double timeout_seconds; /* 0: none */
    struct cci_cmd_io io[CCI_CHANNELS];
    struct cci_buf tail; /* of a standard error that passes through here; at its end up to CCI_PROTO_TAIL bytes count */
    struct cci_loop_alarm timeout; /* set at the start */
    bool timed_out;                /* given up for that reason */
    bool given_up;                 /* before it was over: no wait tells how the program then ended */
    bool interrupted;              /* given up, or the instance is being closed: no copy starts any more */
    bool merged;                   /* standard error went where standard output did */
    bool started;
    struct cci_exec *exec; /* NULL before the start */
    bool waiting;          /* a thread is waiting for the guest; others wait for it */
    bool finished;         /* exit_code is known */
    int exit_code;
};

/* On the I/O thread: the time-out does not come any more. */
static void cci_cmd_disarm(void *ctx)
{
    struct cci_cmd *c = ctx;
    cci_loop_drop_alarm(&c->part.inst->vm.loop, &c->timeout);
}

/* Ends a copy: what it waits for, and what it would wait for. With the monitor locked. */
static void cci_cmd_io_stop(struct cci_cmd_io *io)
{
    if (!io->copying)
        return;
    cci_os_eventfd_signal(io->stop);
    if (io->pipe)
        cci_pipe_interrupt(io->pipe);
}

/* Its thread, if there was one, has given back its reference, or is doing so at this moment: here. */
static void cci_cmd_io_free(struct cci_cmd_io *io)
{
    if (io->has_thread && cci_thread_is_self(&io->thread))
        cci_thread_detach(&io->thread);
    else if (io->has_thread)
        cci_thread_join(&io->thread);
    cci_pipe_free(io->pipe);
    cci_os_close(io->stop);
    cci_os_close(io->fd);
    cci_mem_free(io->buf);
}

static void cci_cmd_destroy(struct cci_object *o)
{
    struct cci_cmd *c = (struct cci_cmd *)o;
    if (c->timeout.listed)
        cci_loop_call(&c->part.inst->vm.loop, cci_cmd_disarm, c);
    cci_cancel_detach(c->outer, &c->hook);
    cci_cancel_unref(c->outer);
    cci_cancel_unref(c->cancel);
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        cci_cmd_io_free(&c->io[i]);
    cci_exec_free(c->exec);
    cci_mem_free(c->user);
    cci_buf_free(&c->tail);
    cci_strings_free(&c->argv);
    cci_strings_free(&c->env);
    cci_mem_free(c->dir);
    cci_monitor_destroy(&c->monitor);
    cci_part_end(&c->part);
    cci_mem_free(c);
}

static bool cci_cmd_outputs_are_copied(void *ctx)
{
    const struct cci_cmd *c = ctx;
    return !c->io[CCI_CHANNEL_STDOUT].copying && !c->io[CCI_CHANNEL_STDERR].copying;
}

/* A wait would not wait: it has the result, or would find it. With the monitor locked. */
static bool cci_cmd_is_over(struct cci_cmd *c)
{
    return c->finished || (c->exec && cci_exec_is_over(c->exec) && cci_cmd_outputs_are_copied(c));
}

/* Ends the waits, and the program if it runs. */
static void cci_cmd_give_up(void *ctx)
{
    struct cci_cmd *c = ctx;
    cci_monitor_lock(&c->monitor);
    c->given_up |= !cci_cmd_is_over(c);
    cci_monitor_unlock(&c->monitor);
    cci_cancel_fire(c->cancel);
    cci_monitor_lock(&c->monitor);
    if (c->exec && !c->finished)
        cci_exec_kill(c->exec, CCI_CMD_SIGKILL);
    c->interrupted = true; /* so that cc_cmd_free has seen every copy that there will be */
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        cci_cmd_io_stop(&c->io[i]);
    cci_monitor_unlock(&c->monitor);
}

/* The instance is being closed. */
static void cci_cmd_interrupt(struct cci_object *o)
{
    struct cci_cmd *c = (struct cci_cmd *)o;
    cci_monitor_lock(&c->monitor);
    c->interrupted = true;
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        cci_cmd_io_stop(&c->io[i]);
    cci_monitor_unlock(&c->monitor);
}

/* Keeps the end of what passes. Without memory what is there is all there will be. */
static void cci_cmd_keep_tail(struct cci_cmd *c, const uint8_t *p, size_t n)
{
    if (n > CCI_PROTO_TAIL) {
        p += n - CCI_PROTO_TAIL;
        n = CCI_PROTO_TAIL;
    }
    cci_monitor_lock(&c->monitor);
    if (c->tail.n + n > 2 * CCI_PROTO_TAIL) { /* seldom enough that moving costs nothing */
        memmove(c->tail.p, c->tail.p + c->tail.n - CCI_PROTO_TAIL, CCI_PROTO_TAIL);
        c->tail.n = CCI_PROTO_TAIL;
    }
    (void)cci_buf_add(&c->tail, p, n);
    cci_monitor_unlock(&c->monitor);
}

#define CCI_CMD_SIGNAL_MAX 64
#define CCI_CMD_SIZE_MAX 65535

/* The size of a terminal; 0 is the default. */
static cc_error_code cci_cmd_check_size(int cols, int rows, cc_error *err)
{
    if (cols >= 0 && cols <= CCI_CMD_SIZE_MAX && rows >= 0 && rows <= CCI_CMD_SIZE_MAX)
        return CC_OK;
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "columns and rows are 0 to %d", CCI_CMD_SIZE_MAX);
}

static cc_error_code cci_cmd_check_signal(int sig, cc_error *err)
{
    if (sig >= 0 && sig <= CCI_CMD_SIGNAL_MAX)
        return CC_OK;
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "signals are 0 to %d", CCI_CMD_SIGNAL_MAX);
}

/* ---- Calls on one ---------------------------------------------------------------------------------------- */

/* The command behind a handle, for one call: with its instance entered. */
static cc_error_code cci_cmd_enter(cc_cmd cmd, struct cci_cmd **out, cc_error *err)
{
    struct cci_part *p;
    cc_error_code code = cci_part_enter(cmd, CCI_KIND_CMD, &p, err);
    *out = (struct cci_cmd *)p;
    return code;
}

/* Enters with the monitor locked, and only before the start; for the setters. */
static cc_error_code cci_cmd_enter_unstarted(cc_cmd cmd, struct cci_cmd **out, cc_error *err)
{
    cc_error_code code = cci_cmd_enter(cmd, out, err);
    if (code)
        return code;
    cci_monitor_lock(&(*out)->monitor);
    if (!(*out)->started)
        return CC_OK;
    cci_monitor_unlock(&(*out)->monitor);
    cci_part_leave(&(*out)->part);
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command was started before; it runs once");
}

static void cci_cmd_leave_unlock(struct cci_cmd *c)
{
    cci_monitor_unlock(&c->monitor);
    cci_part_leave(&c->part);
}

#endif
