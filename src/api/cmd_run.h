/*
 * api/cmd_run.h - the one run of a command: start, wait, and what is known afterwards.
 */
#ifndef CCI_API_CMD_RUN_H
#define CCI_API_CMD_RUN_H

#include "cmd.h"

/* Sends the command to the guest; with `notify` also waits until it runs. */
static cc_error_code cci_cmd_begin(struct cci_cmd *c, enum cci_cmd_capture capture, bool notify, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, c->cancel};
    cci_monitor_lock(&c->monitor);
    bool again = c->started;
    c->started = true;
    cci_monitor_unlock(&c->monitor);
    if (again)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command was started before; it runs once");
    /* From here on the settings do not change, so no lock is needed to read them. */
    if (cci_cancel_attach(c->outer, &c->hook, cci_cmd_give_up, c))
        cci_cancel_fire(c->cancel);
    if (cci_cancel_is_set(c->cancel))
        return cci_fail(err, CC_ERR_CANCELLED, c->argv.at[0], "cancelled before the command was started");
    struct cci_exec_spec spec = cci_cmd_spec(c);
    spec.stdout_wanted = capture != CCI_CMD_DISCARD;
    spec.merge = capture == CCI_CMD_COMBINED;
    spec.notify = notify;
    struct cci_exec *exec;
    cc_error_code code = cci_exec_begin(c->inst->vm.control, &spec, &exec, err);
    if (code)
        return code;
    cci_monitor_lock(&c->monitor);
    c->exec = exec;
    cci_monitor_unlock(&c->monitor);
    if (cci_cancel_is_set(c->cancel)) /* given up when there was nothing to kill yet */
        cci_exec_kill(exec, CCI_CMD_SIGKILL);
    return notify ? cci_exec_started(exec, &wait, err) : CC_OK;
}

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
        return CC_OK;
    cc_error_code code = cci_exec_wait(exec, &wait, &result, err);
    cci_monitor_lock(&c->monitor);
    c->waiting = false;
    c->finished = code == CC_OK;
    c->exit_code = result;
    cci_cond_wake(&c->monitor.cond);
    cci_monitor_unlock(&c->monitor);
    *exit_code = result;
    return code;
}

CC_API cc_error_code cc_cmd_start(cc_cmd cmd, cc_error *err)
{
    struct cci_cmd *c;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code == CC_OK) {
        code = cci_cmd_begin(c, CCI_CMD_DISCARD, true, err);
        cci_cmd_leave(c);
    }
    return cci_api_end("start", code, err);
}

CC_API cc_error_code cc_cmd_wait(cc_cmd cmd, int *exit_code, cc_error *err)
{
    struct cci_cmd *c;
    int result = 0;
    cci_error_clear(err);
    if (exit_code)
        *exit_code = 0;
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code == CC_OK) {
        cci_monitor_lock(&c->monitor);
        bool started = c->exec != NULL;
        cci_monitor_unlock(&c->monitor);
        code = started ? cci_cmd_finish(c, &result, err)
                       : cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command was not started");
        cci_cmd_leave(c);
    }
    if (code == CC_OK && exit_code)
        *exit_code = result;
    return cci_api_end("wait", code, err);
}

/* What run, output and combined_output share. `out` and `len` are NULL together. */
static cc_error_code cci_cmd_run(cc_cmd cmd, enum cci_cmd_capture capture, uint8_t **out, size_t *len, int *exit_code,
                                 cc_error *err)
{
    struct cci_cmd *c;
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
    cci_cmd_leave(c);
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
    struct cci_cmd *c;
    if (cci_cmd_enter(cmd, &c, NULL) != CC_OK)
        return -1;
    cci_monitor_lock(&c->monitor);
    int result = c->finished ? c->exit_code : -1;
    cci_cmd_leave_unlock(c);
    return result;
}

#endif
