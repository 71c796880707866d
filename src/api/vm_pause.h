/*
 * api/vm_pause.h - pausing and resuming a running instance, and asking it to stop.
 *
 * The state decides who may do what: a pause begins by taking "running" away, a resume by taking "paused" away, so
 * there is never more than one of them. Ends do not ask: a stop, or the guest's end, changes the state under a pause,
 * which then lets the CPUs go.
 */
#ifndef CCI_API_VM_PAUSE_H
#define CCI_API_VM_PAUSE_H

#include "../control/shutdown.h"
#include "../machine/pause.h"
#include "vm_end.h"

#define CCI_VM_STOP_NS 30000000000u /* for a guest to power off, beyond the grace of its commands */

/* Why nothing can be done in that state. */
static cc_error_code cci_vm_refuse(struct cci_vm *vm, cc_instance_state now, const char *what, cc_error *err)
{
    if (cci_state_is_end(now))
        return cci_control_dead_error(vm->control, err);
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the instance is %s: %s", cci_state_name(now), what);
}

/* Whatever a pause or resume was interrupted by, it is an end. */
static cc_error_code cci_vm_interrupted(struct cci_vm *vm, const char *what, cc_error *err)
{
    if (cci_state_has_ended(&vm->state))
        return cci_control_dead_error(vm->control, err);
    return cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "the instance was stopped %s", what);
}

static cc_error_code cci_vm_pause(struct cci_vm *vm, cc_error *err)
{
    struct cci_state *s = &vm->state;
    cci_monitor_lock(&s->monitor);
    const cc_instance_state now = s->now;
    const bool room = cci_state_reserve(s);
    if (now == CC_STATE_RUNNING && room)
        cci_state_enter(s, CC_STATE_PAUSING);
    cci_monitor_unlock(&s->monitor);
    if (now != CC_STATE_RUNNING)
        return cci_vm_refuse(vm, now, "only one that is running can be paused", err);
    if (!room)
        return cci_fail_nomem(err);
    cci_machine_pause(vm->machine);
    if (cci_state_move(s, CC_STATE_PAUSING, CC_STATE_PAUSED))
        return CC_OK;
    cci_machine_resume(vm->machine);
    return cci_vm_interrupted(vm, "while it was being paused", err);
}

static cc_error_code cci_vm_resume(struct cci_vm *vm, cc_error *err)
{
    struct cci_state *s = &vm->state;
    cci_monitor_lock(&s->monitor);
    const cc_instance_state now = s->now;
    const bool room = cci_state_reserve(s);
    if (now == CC_STATE_PAUSED && room)
        cci_state_enter(s, CC_STATE_RESUMING);
    cci_monitor_unlock(&s->monitor);
    if (now != CC_STATE_PAUSED)
        return cci_vm_refuse(vm, now, "only one that is paused can be resumed", err);
    if (!room)
        return cci_fail_nomem(err);
    cci_control_set_clock(vm->control); /* first in the guest's queue, so that what runs next finds the time right */
    cci_machine_resume(vm->machine);
    if (cci_state_move(s, CC_STATE_RESUMING, CC_STATE_RUNNING))
        return CC_OK;
    return cci_vm_interrupted(vm, "while it was being resumed", err);
}

/* Tells the guest, or tells it to hurry. With stop_mutex locked. */
static cc_error_code cci_vm_tell_stop(struct cci_vm *vm, uint64_t grace_ns, cc_error *err)
{
    const uint64_t ms = (grace_ns + 999999u) / 1000000u, at = cci_os_now() + grace_ns + CCI_VM_STOP_NS;
    cc_error_code code =
        vm->stops ? cci_control_hurry(vm->control, ms, err) : cci_control_stop(vm->control, &vm->stop_call, ms, err);
    if (code)
        return code;
    vm->stop_at = vm->stops ? CCI_MIN(vm->stop_at, at) : at;
    vm->stops = true;
    cci_loop_set_alarm(&vm->loop, &vm->stop, vm->stop_at);
    return CC_OK;
}

static cc_error_code cci_vm_request_stop(struct cci_vm *vm, uint64_t grace_ns, cc_error *err)
{
    struct cci_state *s = &vm->state;
    cc_instance_state now = cci_state_get(s);
    if (now < CC_STATE_RUNNING || cci_state_is_end(now))
        return cci_vm_refuse(vm, now, "it cannot be asked to stop yet; cancel its start, or close it", err);
    cci_mutex_lock(&vm->stop_mutex);
    cc_error_code code = cci_vm_tell_stop(vm, grace_ns, err);
    cci_mutex_unlock(&vm->stop_mutex);
    if (code)
        return code;
    cci_monitor_lock(&s->monitor);
    now = s->now;
    cci_state_enter(s, CC_STATE_STOPPING);
    cci_monitor_unlock(&s->monitor);
    if (now == CC_STATE_PAUSED)
        cci_machine_resume(vm->machine);
    return CC_OK;
}

#endif
