/*
 * api/life.h - the calls about an instance's life: where it is, pauses, stopping it, waiting for its end.
 */
#ifndef CCI_API_LIFE_H
#define CCI_API_LIFE_H

#include "instance.h"
#include "vm_pause.h"

CC_API cc_error_code cc_instance_wait_with(cc_instance inst, cc_cancel_token cancel, cc_error *err)
{
    struct cci_instance *i = NULL;
    struct cci_cancel *token;
    cci_error_clear(err);
    cc_error_code code = cci_token_use(cancel, &token, err);
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        const struct cci_wait wait = {CCI_FOREVER, token};
        code = cci_state_wait(&i->vm.state, &wait, err);
        cci_instance_leave(i);
    }
    cci_cancel_unref(token);
    return cci_api_end("wait", code, err);
}

CC_API cc_error_code cc_instance_wait(cc_instance inst, cc_error *err)
{
    return cc_instance_wait_with(inst, 0, err);
}

CC_API char *cc_instance_id(cc_instance inst)
{
    struct cci_instance *i = NULL;
    if (cci_instance_enter(inst, &i, NULL) != CC_OK)
        return NULL;
    char *id = cci_mem_strdup(i->id);
    cci_instance_leave(i);
    return id;
}

CC_API bool cc_instance_is_running(cc_instance inst)
{
    struct cci_instance *i = NULL;
    if (cci_instance_enter(inst, &i, NULL) != CC_OK)
        return false;
    bool running = !cci_state_has_ended(&i->vm.state);
    cci_instance_leave(i);
    return running;
}

CC_API cc_error_code cc_instance_get_state(cc_instance inst, cc_instance_state *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    if (out)
        *out = CC_STATE_CREATED;
    cc_error_code code = out ? cci_instance_enter(inst, &i, err) : cci_api_null("out", err);
    if (code == CC_OK) {
        *out = cci_state_get(&i->vm.state);
        cci_instance_leave(i);
    }
    return cci_api_end("get_state", code, err);
}

CC_API cc_error_code cc_instance_set_state_callback(cc_instance inst, cc_state_callback callback, void *user_data,
                                                    cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        code = cci_state_watch(&i->vm.state, callback, user_data, err);
        cci_instance_leave(i);
    }
    return cci_api_end("set_state_callback", code, err);
}

CC_API char *cc_instance_end_reason(cc_instance inst)
{
    struct cci_instance *i = NULL;
    cc_error why = {CC_OK, NULL, NULL, NULL, 0};
    if (cci_instance_enter(inst, &i, NULL) != CC_OK)
        return NULL;
    if (cci_state_has_ended(&i->vm.state))
        (void)cci_control_dead_error(i->vm.control, &why);
    cci_instance_leave(i);
    char *reason = why.message;
    why.message = NULL;
    cci_error_release(&why);
    return reason;
}

CC_API cc_error_code cc_instance_done_fd(cc_instance inst, int *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    if (out)
        *out = -1;
    cc_error_code code = out ? cci_instance_enter(inst, &i, err) : cci_api_null("out", err);
    if (code == CC_OK) {
        code = cci_state_done_fd(&i->vm.state, out, err);
        cci_instance_leave(i);
    }
    return cci_api_end("done_fd", code, err);
}

/* ---- The console ------------------------------------------------------------------------------------------ */

/* With the instance entered. */
static cc_error_code cci_instance_console_input(struct cci_instance *i, const uint8_t *buf, size_t len, size_t *n,
                                                struct cci_cancel *token, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, token};
    if (cci_state_get(&i->vm.state) < CC_STATE_RUNNING || !i->vm.machine)
        return cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "the instance has not started yet");
    cc_error_code code = cci_serial_feed(&i->vm.machine->serial, buf, len, n, &wait, err);
    return code == CC_ERR_NOT_RUNNING ? cci_control_dead_error(i->vm.control, err) : code;
}

CC_API cc_error_code cc_instance_console_write_with(cc_instance inst, const uint8_t *buf, size_t len,
                                                    cc_cancel_token cancel, size_t *n, cc_error *err)
{
    struct cci_instance *i;
    struct cci_cancel *token = NULL;
    size_t done = 0;
    cci_error_clear(err);
    cc_error_code code = buf || !len ? cci_token_use(cancel, &token, err) : cci_api_null("buf", err);
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        code = cci_instance_console_input(i, buf, len, &done, token, err);
        cci_instance_leave(i);
    }
    if (n)
        *n = done;
    cci_cancel_unref(token);
    return cci_api_end("console_write", code, err);
}

CC_API cc_error_code cc_instance_console_write(cc_instance inst, const uint8_t *buf, size_t len, size_t *n,
                                               cc_error *err)
{
    return cc_instance_console_write_with(inst, buf, len, 0, n, err);
}

/* ---- Pausing and stopping --------------------------------------------------------------------------------- */

CC_API cc_error_code cc_instance_pause(cc_instance inst, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        code = cci_vm_pause(&i->vm, err);
        cci_instance_leave(i);
    }
    return cci_api_end("pause", code, err);
}

CC_API cc_error_code cc_instance_resume(cc_instance inst, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        code = cci_vm_resume(&i->vm, err);
        cci_instance_leave(i);
    }
    return cci_api_end("resume", code, err);
}

#define CCI_LIFE_GRACE_MAX 86400.0

CC_API cc_error_code cc_instance_request_stop(cc_instance inst, double grace_seconds, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    cc_error_code code = CC_OK;
    if (!(grace_seconds >= 0) || grace_seconds > CCI_LIFE_GRACE_MAX)
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "grace_seconds must be from 0 to %g", CCI_LIFE_GRACE_MAX);
    else
        code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        code = cci_vm_request_stop(&i->vm, (uint64_t)(grace_seconds * 1e9), err);
        cci_instance_leave(i);
    }
    return cci_api_end("request_stop", code, err);
}

#endif
