/*
 * api/cmd_info.h - a command that was started: signals, the size of its terminal, and what is known of it.
 */
#ifndef CCI_API_CMD_INFO_H
#define CCI_API_CMD_INFO_H

#include "cmd.h"

/* Enters a command that was sent to the guest. */
static cc_error_code cci_cmd_enter_started(cc_cmd cmd, struct cci_cmd **out, cc_error *err)
{
    cc_error_code code = cci_cmd_enter(cmd, out, err);
    if (code)
        return code;
    cci_monitor_lock(&(*out)->monitor);
    bool started = (*out)->exec != NULL;
    cci_monitor_unlock(&(*out)->monitor);
    if (started)
        return CC_OK;
    cci_part_leave(&(*out)->part);
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command was not started");
}

/* Enters a command that has ended. */
static cc_error_code cci_cmd_enter_finished(cc_cmd cmd, struct cci_cmd **out, cc_error *err)
{
    cc_error_code code = cci_cmd_enter_started(cmd, out, err);
    if (code)
        return code;
    cci_monitor_lock(&(*out)->monitor);
    bool finished = (*out)->finished;
    cci_monitor_unlock(&(*out)->monitor);
    if (finished)
        return CC_OK;
    cci_part_leave(&(*out)->part);
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the end of the command was not waited for");
}

static cc_error_code cci_cmd_signal(cc_cmd cmd, int sig, cc_error *err)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_check_signal(sig, err);
    if (code == CC_OK)
        code = cci_cmd_enter_started(cmd, &c, err);
    if (code)
        return code;
    code = cci_exec_signal(c->exec, sig, &forever, err);
    cci_part_leave(&c->part);
    return code;
}

CC_API cc_error_code cc_cmd_signal(cc_cmd cmd, int sig, cc_error *err)
{
    return cci_api_end("signal", cci_cmd_signal(cmd, sig, err), err);
}

CC_API cc_error_code cc_cmd_kill(cc_cmd cmd, cc_error *err)
{
    return cci_api_end("kill", cci_cmd_signal(cmd, CCI_CMD_SIGKILL, err), err);
}

CC_API cc_error_code cc_cmd_resize(cc_cmd cmd, int cols, int rows, cc_error *err)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_check_size(cols, rows, err);
    if (code == CC_OK)
        code = cci_cmd_enter_started(cmd, &c, err);
    if (code)
        return cci_api_end("resize", code, err);
    if (c->tty)
        code = cci_exec_resize(c->part.inst->vm.control, c->exec, (uint32_t)cols, (uint32_t)rows, &forever, err);
    else
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command has no terminal: see cc_cmd_set_tty");
    cci_part_leave(&c->part);
    return cci_api_end("resize", code, err);
}

CC_API void cc_instance_set_console_size(cc_instance inst, int cols, int rows)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    struct cci_instance *i = NULL;
    if (cci_cmd_check_size(cols, rows, NULL) != CC_OK || cci_instance_enter(inst, &i, NULL) != CC_OK)
        return;
    (void)cci_exec_resize(i->vm.control, NULL, (uint32_t)cols, (uint32_t)rows, &forever, NULL);
    cci_instance_leave(i);
}

CC_API int cc_cmd_pid(cc_cmd cmd)
{
    struct cci_cmd *c = NULL;
    if (cci_cmd_enter_started(cmd, &c, NULL) != CC_OK)
        return 0;
    int pid = cci_exec_pid(c->exec);
    cci_part_leave(&c->part);
    return pid;
}

CC_API cc_error_code cc_cmd_usage(cc_cmd cmd, cc_resource_usage *out, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    if (out)
        memset(out, 0, sizeof(*out));
    cc_error_code code = out ? cci_cmd_enter_finished(cmd, &c, err) : cci_api_null("out", err);
    if (code)
        return cci_api_end("usage", code, err);
    out->user_us = c->exec->user_us; /* fixed since it has ended */
    out->system_us = c->exec->system_us;
    out->max_rss_kb = c->exec->max_rss_kib;
    cci_part_leave(&c->part);
    return cci_api_end("usage", CC_OK, err);
}

CC_API cc_error_code cc_cmd_stderr_tail(cc_cmd cmd, uint8_t **out, size_t *len, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    if (out)
        *out = NULL;
    if (len)
        *len = 0;
    cc_error_code code = out && len ? cci_cmd_enter_finished(cmd, &c, err) : cci_api_null(out ? "len" : "out", err);
    if (code)
        return cci_api_end("stderr_tail", code, err);
    cci_monitor_lock(&c->monitor);
    const struct cci_buf *from = c->io[CCI_CHANNEL_STDERR].kind ? &c->tail : &c->exec->inlined[CCI_CHANNEL_STDERR];
    const size_t n = CCI_MIN(from->n, (size_t)CCI_PROTO_TAIL);
    *out = from->failed ? NULL : cci_mem_alloc(n + 1);
    if (*out) {
        if (n)
            memcpy(*out, from->p + from->n - n, n);
        (*out)[n] = 0;
        *len = n;
    } else {
        code = cci_fail_nomem(err);
    }
    cci_cmd_leave_unlock(c);
    return cci_api_end("stderr_tail", code, err);
}

#endif
