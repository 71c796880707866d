/*
 * api/workload.h - the workload: the one command that an instance is for.
 *
 * It is a command as any other (cmd.h), except that the instance ends with it. The agent stays PID 1. When the
 * workload's process has ended, the agent sends its status and waits to be told to power off (control.h, "farewell"),
 * so that the status is here before the instance's end is. The instance keeps the call until it is closed.
 */
#ifndef CCI_API_WORKLOAD_H
#define CCI_API_WORKLOAD_H

#include "cmd_new.h"

/* Claims the one place for a workload. */
static cc_error_code cci_workload_claim(struct cci_instance *i, cc_error *err)
{
    cci_monitor_lock(&i->monitor);
    bool taken = i->has_workload;
    i->has_workload = true;
    cci_monitor_unlock(&i->monitor);
    return taken ? cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the instance has its workload already") : CC_OK;
}

/* Starts c as the workload; a failed start leaves the place free. */
static cc_error_code cci_workload_start(struct cci_instance *i, const struct cci_cmd *c, cc_error *err)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    struct cci_exec_spec spec = cci_cmd_spec(c);
    struct cci_exec *exec = NULL;
    spec.workload = true;
    spec.notify = true;
    cc_error_code code = cci_workload_claim(i, err);
    if (code)
        return code;
    code = cci_exec_begin(i->vm.control, &spec, &exec, err);
    if (code == CC_OK)
        code = cci_exec_started(exec, &forever, err);
    if (code) {
        cci_exec_free(exec);
        exec = NULL;
    }
    cci_monitor_lock(&i->monitor);
    i->workload = exec;
    i->has_workload = exec != NULL;
    cci_monitor_unlock(&i->monitor);
    return code;
}

CC_API cc_error_code cc_instance_exec(cc_instance inst, const char *name, const char *const *args, cc_error *err)
{
    struct cci_instance *i = NULL;
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_instance_enter(inst, &i, err);
    if (code)
        return cci_api_end("exec", code, err);
    code = name ? cci_cmd_make_named(i, name, args, &c, err) : cci_cmd_make_entrypoint(i, args, &c, err);
    if (code == CC_OK) {
        code = cci_workload_start(i, c, err);
        cci_object_unref(&c->part.object);
    }
    cci_instance_leave(i);
    return cci_api_end("exec", code, err);
}

/* The workload, which stays as long as the instance is entered; NULL when there is none. */
static struct cci_exec *cci_workload_of(struct cci_instance *i)
{
    cci_monitor_lock(&i->monitor);
    struct cci_exec *exec = i->workload;
    cci_monitor_unlock(&i->monitor);
    return exec;
}

CC_API cc_error_code cc_instance_signal(cc_instance inst, int sig, cc_error *err)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_check_signal(sig, err);
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code)
        return cci_api_end("signal", code, err);
    struct cci_exec *exec = cci_workload_of(i);
    code = exec ? cci_exec_signal(exec, sig, &forever, err)
                : cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the instance has no workload: see cc_instance_exec");
    cci_instance_leave(i);
    return cci_api_end("signal", code, err);
}

CC_API int cc_instance_exit_code(cc_instance inst)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    struct cci_instance *i = NULL;
    int result = -1;
    if (cci_instance_enter(inst, &i, NULL) != CC_OK)
        return -1;
    cci_monitor_lock(&i->monitor); /* one thread at a time takes the result apart */
    if (i->workload && cci_exec_is_over(i->workload) && cci_exec_wait(i->workload, &forever, &result, NULL) != CC_OK)
        result = -1;
    cci_monitor_unlock(&i->monitor);
    cci_instance_leave(i);
    return result;
}

#endif
