/*
 * api/cmd_run.h - the one run of a command: start, wait, and what is known afterwards.
 */
#ifndef CCI_API_CMD_RUN_H
#define CCI_API_CMD_RUN_H

#include "cmd_new.h"
#include "cmd_stdio.h"

enum cci_cmd_capture { CCI_CMD_DISCARD, CCI_CMD_STDOUT, CCI_CMD_COMBINED };

/* ---- The time-out ---------------------------------------------------------------------------------------- */

/* On the I/O thread. */
static void cci_cmd_on_timeout(void *ctx)
{
    struct cci_cmd *c = ctx;
    cci_monitor_lock(&c->monitor);
    bool over = cci_cmd_is_over(c); /* or nobody has asked yet */
    c->timed_out = !over && !c->given_up;
    cci_monitor_unlock(&c->monitor);
    if (!over)
        cci_cmd_give_up(c);
}

static void cci_cmd_start_timer(struct cci_cmd *c)
{
    if (c->timeout_seconds == 0)
        return;
    c->timeout.fn = cci_cmd_on_timeout;
    c->timeout.ctx = c;
    cci_loop_set_alarm(&c->part.inst->vm.loop, &c->timeout, cci_api_deadline(c->timeout_seconds));
}

/* A wait ended with `code`: what ended it or the program, if that was the time-out or a cancel. */
static cc_error_code cci_cmd_why(struct cci_cmd *c, cc_error_code code, cc_error *err)
{
    cci_monitor_lock(&c->monitor);
    bool timed_out = c->timed_out, given_up = c->given_up;
    cci_monitor_unlock(&c->monitor);
    if (code == CC_OK ? !given_up : code != CC_ERR_CANCELLED)
        return code;
    if (!timed_out)
        return cci_fail(err, CC_ERR_CANCELLED, c->argv.at[0], "cancelled, so the command was killed");
    return cci_fail(err, CC_ERR_TIMEOUT, c->argv.at[0], "the command's time-out of %g seconds passed, so it was killed",
                    c->timeout_seconds);
}

/* ---- Starting -------------------------------------------------------------------------------------------- */

/* Claims the one start. */
static cc_error_code cci_cmd_claim(struct cci_cmd *c, enum cci_cmd_capture capture, cc_error *err)
{
    const char *wrong = NULL;
    cci_monitor_lock(&c->monitor);
    if (c->started)
        wrong = "the command was started before; it runs once";
    else if (capture != CCI_CMD_DISCARD && c->io[CCI_CHANNEL_STDOUT].kind)
        wrong = "the command's standard output was set before, so it cannot be captured";
    else if (capture == CCI_CMD_COMBINED && c->io[CCI_CHANNEL_STDERR].kind)
        wrong = "the command's standard error was set before, so it cannot be captured";
    else
        c->started = true;
    c->merged |= !wrong && (c->tty || capture == CCI_CMD_COMBINED);
    cci_monitor_unlock(&c->monitor);
    return wrong ? cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "%s", wrong) : CC_OK;
}

/* Sends the command to the guest. */
static cc_error_code cci_cmd_send(struct cci_cmd *c, enum cci_cmd_capture capture, bool notify, cc_error *err)
{
    struct cci_exec_spec spec = cci_cmd_spec(c);
    spec.stdout_wanted = capture != CCI_CMD_DISCARD;
    spec.merge = capture == CCI_CMD_COMBINED;
    spec.stdin_piped = c->io[CCI_CHANNEL_STDIN].kind != CCI_CMD_IO_NONE;
    spec.stdout_piped = c->io[CCI_CHANNEL_STDOUT].kind != CCI_CMD_IO_NONE;
    spec.stderr_piped = c->io[CCI_CHANNEL_STDERR].kind != CCI_CMD_IO_NONE;
    spec.stderr_tail = !spec.stderr_piped;
    spec.notify = notify;
    struct cci_exec *exec;
    cc_error_code code = cci_exec_begin(c->part.inst->vm.control, &spec, &exec, err);
    if (code)
        return code;
    cci_monitor_lock(&c->monitor);
    c->exec = exec;
    cci_monitor_unlock(&c->monitor);
    if (cci_cancel_is_set(c->cancel)) /* given up when there was nothing to kill yet */
        cci_exec_kill(exec, CCI_CMD_SIGKILL);
    return CC_OK;
}

static bool cci_cmd_has_io(const struct cci_cmd *c)
{
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        if (c->io[i].kind != CCI_CMD_IO_NONE)
            return true;
    return false;
}

/* Waits until the program runs, and connects its streams. A program whose streams cannot be connected is killed. */
static cc_error_code cci_cmd_connect(struct cci_cmd *c, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, c->cancel};
    cc_error_code code = cci_exec_started(c->exec, &wait, err);
    if (code)
        return code;
    code = cci_cmd_attach_io(c, err);
    if (code)
        cci_cmd_give_up(c);
    else if (cci_cancel_is_set(c->cancel)) /* given up while there was nothing to stop yet */
        cci_cmd_give_up(c);
    return code;
}

/* Starts the command; with `notify` also waits until it runs. */
static cc_error_code cci_cmd_begin(struct cci_cmd *c, enum cci_cmd_capture capture, bool notify, cc_error *err)
{
    cc_error_code code = cci_cmd_claim(c, capture, err);
    if (code)
        return code;
    /* From here on the settings do not change, so no lock is needed to read them. */
    if (cci_cancel_attach(c->outer, &c->hook, cci_cmd_give_up, c))
        cci_cancel_fire(c->cancel);
    if (cci_cancel_is_set(c->cancel))
        return cci_fail(err, CC_ERR_CANCELLED, c->argv.at[0], "cancelled before the command was started");
    notify |= cci_cmd_has_io(c);
    cci_cmd_start_timer(c);
    code = cci_cmd_send(c, capture, notify, err);
    if (code == CC_OK && notify)
        code = cci_cmd_connect(c, err);
    return cci_cmd_why(c, code, err);
}

/* ---- Waiting --------------------------------------------------------------------------------------------- */

static bool cci_cmd_may_wait(void *ctx)
{
    const struct cci_cmd *c = ctx;
    return c->finished || !c->waiting;
}

/* Waits for the end of a started command; the first of several threads waits for the guest. */
static cc_error_code cci_cmd_finish(struct cci_cmd *c, int *exit_code, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, c->cancel};
    const struct cci_wait turn = CCI_WAIT_FOREVER; /* the thread that waits for the guest is cancelled for all */
    int result = 0;
    (void)cci_monitor_wait(&c->monitor, &turn, cci_cmd_may_wait, c, "another wait", NULL);
    struct cci_exec *exec = c->exec;
    bool finished = c->finished;
    if (finished)
        *exit_code = c->exit_code;
    else
        c->waiting = true;
    cci_monitor_unlock(&c->monitor);
    if (finished)
        return cci_cmd_why(c, CC_OK, err);
    cc_error_code code = cci_exec_wait(exec, &wait, &result, err);
    if (code == CC_OK)
        code = cci_cmd_finish_io(c, &wait, err);
    cci_monitor_lock(&c->monitor);
    c->waiting = false;
    c->finished = code == CC_OK;
    c->exit_code = result;
    cci_cond_wake(&c->monitor.cond);
    cci_monitor_unlock(&c->monitor);
    *exit_code = result;
    return cci_cmd_why(c, code, err);
}

CC_API cc_error_code cc_cmd_start(cc_cmd cmd, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code == CC_OK) {
        code = cci_cmd_begin(c, CCI_CMD_DISCARD, true, err);
        cci_part_leave(&c->part);
    }
    return cci_api_end("start", code, err);
}

/* Whether there is an end to wait for, and the caller is none of those whom it waits for. */
static cc_error_code cci_cmd_check_wait(struct cci_cmd *c, cc_error *err)
{
    const char *wrong = NULL;
    cci_monitor_lock(&c->monitor);
    if (!c->exec)
        wrong = "the command was not started";
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        if (c->io[i].copying && !c->io[i].is_input && cci_thread_is_self(&c->io[i].thread))
            wrong =
                "a function that is given a command's output cannot wait for the command: have another thread do it";
    cci_monitor_unlock(&c->monitor);
    return wrong ? cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "%s", wrong) : CC_OK;
}

CC_API cc_error_code cc_cmd_wait(cc_cmd cmd, int *exit_code, cc_error *err)
{
    struct cci_cmd *c = NULL;
    int result = 0;
    cci_error_clear(err);
    if (exit_code)
        *exit_code = 0;
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code == CC_OK) {
        code = cci_cmd_check_wait(c, err);
        if (code == CC_OK)
            code = cci_cmd_finish(c, &result, err);
        cci_part_leave(&c->part);
    }
    if (code == CC_OK && exit_code)
        *exit_code = result;
    return cci_api_end("wait", code, err);
}

/* What run, output and combined_output share. `out` and `len` are NULL together. */
static cc_error_code cci_cmd_run(cc_cmd cmd, enum cci_cmd_capture capture, uint8_t **out, size_t *len, int *exit_code,
                                 cc_error *err)
{
    struct cci_cmd *c = NULL;
    int result = 0;
    cci_error_clear(err);
    if (exit_code)
        *exit_code = 0;
    if (out)
        *out = NULL;
    if (len)
        *len = 0;
    if (capture != CCI_CMD_DISCARD && (!out || !len))
        return cci_api_null(out ? "len" : "out", err);
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code)
        return code;
    code = cci_cmd_begin(c, capture, false, err);
    if (code == CC_OK)
        code = cci_cmd_finish(c, &result, err);
    if (code == CC_OK && out)
        code = cci_exec_take(c->exec, CCI_CHANNEL_STDOUT, out, len, err);
    if (code == CC_OK && exit_code)
        *exit_code = result;
    cci_part_leave(&c->part);
    return code;
}

CC_API cc_error_code cc_cmd_run(cc_cmd cmd, int *exit_code, cc_error *err)
{
    return cci_api_end("run", cci_cmd_run(cmd, CCI_CMD_DISCARD, NULL, NULL, exit_code, err), err);
}

CC_API cc_error_code cc_cmd_output(cc_cmd cmd, uint8_t **out, size_t *len, int *exit_code, cc_error *err)
{
    return cci_api_end("output", cci_cmd_run(cmd, CCI_CMD_STDOUT, out, len, exit_code, err), err);
}

CC_API cc_error_code cc_cmd_combined_output(cc_cmd cmd, uint8_t **out, size_t *len, int *exit_code, cc_error *err)
{
    return cci_api_end("combined_output", cci_cmd_run(cmd, CCI_CMD_COMBINED, out, len, exit_code, err), err);
}

CC_API int cc_cmd_exit_code(cc_cmd cmd)
{
    struct cci_cmd *c = NULL;
    if (cci_cmd_enter(cmd, &c, NULL) != CC_OK)
        return -1;
    cci_monitor_lock(&c->monitor);
    int result = c->finished && !c->given_up ? c->exit_code : -1;
    cci_cmd_leave_unlock(c);
    return result;
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static bool cci_cmd_is_quiet(void *ctx)
{
    const struct cci_cmd *c = ctx;
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        if (c->io[i].copying && !cci_thread_is_self(&c->io[i].thread))
            return false;
    return true;
}

CC_API void cc_cmd_free(cc_cmd cmd)
{
    struct cci_object *o;
    if (cci_handle_release(cmd, CCI_KIND_CMD, &o, NULL) != CC_OK)
        return;
    struct cci_cmd *c = (struct cci_cmd *)o;
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    cci_cmd_close_pipes(c); /* first: who waits for one is told that, not how the program's death looks from outside */
    cci_cmd_give_up(c);
    /* So that no function of the caller's is running any more. */
    (void)cci_monitor_wait(&c->monitor, &forever, cci_cmd_is_quiet, c, "copies to end", NULL);
    cci_monitor_unlock(&c->monitor);
    cci_object_unref(o);
}

#endif
