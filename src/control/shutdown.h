/*
 * control/shutdown.h - asking the guest to stop, instead of cutting its power.
 *
 * STOP is a call whose reply is a farewell (control.h): the guest has ended its commands, and SHUTDOWN is the answer.
 * So the call has to live until the guest has ended, and nobody waits for it.
 */
#ifndef CCI_CONTROL_SHUTDOWN_H
#define CCI_CONTROL_SHUTDOWN_H

#include "client.h"

static void cci_control_put_grace(struct cci_proto_writer *w, const void *ctx)
{
    cci_proto_put64(w, *(const uint64_t *)ctx);
}

/* Has the guest stop after so many milliseconds at most. On success the call is the caller's to end (cci_call_end) once
 * the guest has, or is to be given up. */
static cc_error_code cci_control_stop(struct cci_control *ctl, struct cci_call *call, uint64_t grace_ms, cc_error *err)
{
    cci_call_begin(call, ctl);
    call->farewell = true;
    cc_error_code code = cci_call_send(call, CCI_MSG_STOP, cci_control_put_grace, &grace_ms, err);
    if (code)
        cci_call_end(call);
    return code;
}

/* Shortens the grace of a stop under way. */
static cc_error_code cci_control_hurry(struct cci_control *ctl, uint64_t grace_ms, cc_error *err)
{
    cc_error_code code = cci_control_tell(ctl, CCI_MSG_STOP, cci_control_put_grace, &grace_ms, err);
    return code == CC_ERR_NOT_RUNNING ? cci_control_dead_error(ctl, err) : code;
}

#endif
