/*
 * control/shutdown.h - asking the guest to switch itself off, instead of cutting its power.
 */
#ifndef CCI_CONTROL_SHUTDOWN_H
#define CCI_CONTROL_SHUTDOWN_H

#include "client.h"

/* Asks the guest to end every process, write back its disks and power off. That it is gone before the reply has
 * arrived is what was asked for. */
static cc_error_code cci_control_shutdown(struct cci_control *ctl, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code =
        cci_control_ask(ctl, CCI_MSG_SHUTDOWN, cci_control_put_nothing, NULL, wait, "the guest to shut down", err);
    if (code != CC_ERR_NOT_RUNNING)
        return code;
    cci_error_release(err);
    return CC_OK;
}

#endif
