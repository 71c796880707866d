/*
 * api/vm_end.h - how an instance's guest ends, and what is told of that.
 *
 * By itself: its kernel switches off, resets, or crashes; the hypervisor gives up. By us: a close, a time-out, a guest
 * that does not do what it was asked to. cci_vm_cut is how we end it: the machine stops, with a verdict that was
 * recorded before. In each case cci_vm_on_machine_end comes to know, on any of the machine's threads, and says so to
 * everybody: calls fail with the reason, connections break, the state changes.
 *
 * The agent may go without its machine: the connection broke, or it was cut for something that the agent said. Mostly
 * the guest's kernel then panics, as PID 1 is gone, or is going down anyway, and says more about it; so that is given a
 * moment. Calls whose connection broke wait for what comes of it (cci_control_dead_error).
 */
#ifndef CCI_API_VM_END_H
#define CCI_API_VM_END_H

#include "vm.h"

#define CCI_VM_PANIC "Kernel panic - not syncing: " /* what a kernel's last words begin with */
#define CCI_VM_BEFORE_PANIC 300u                    /* bytes of the console before them that are quoted */

/* Nothing of the guest answers any more, for this reason: calls fail with it, and what waits for the guest ends. */
static void cci_vm_break(struct cci_vm *vm, const char *reason)
{
    cci_control_fail(vm->control, reason);
    cci_monitor_lock(&vm->monitor);
    bool has_devices = vm->has_devices;
    cci_monitor_unlock(&vm->monitor);
    if (has_devices) {
        cci_vsock_kill(&vm->vsock);
        cci_serial_hang_up(&vm->machine->serial);
    }
    cci_cancel_fire(vm->gone);
}

/* Where the kernel said last that it gave up; NULL: nowhere. The console is the guest's, so a guest may put there what
 * it likes; only its own instance's message is made of it. */
static char *cci_vm_find_panic(char *console)
{
    char *found = NULL;
    for (char *at = console; at && (at = strstr(at, CCI_VM_PANIC)) != NULL; at++)
        found = at;
    return found;
}

/* The part of the console that is worth quoting, from the start of a line: what led to the panic and its beginning,
 * since the trace that follows may be long; else the end. Cuts the text off behind it. */
static const char *cci_vm_quote(char *console, const char *panic)
{
    const size_t n = strlen(console), at = panic ? (size_t)(panic - console) : n;
    size_t start = panic ? at - CCI_MIN(at, (size_t)CCI_VM_BEFORE_PANIC) : n - CCI_MIN(n, (size_t)CCI_VM_TAIL);
    while (start > 0 && start < at && console[start - 1] != '\n')
        start++;
    if (n - start > CCI_VM_TAIL)
        console[start + CCI_VM_TAIL] = '\0';
    return console + start;
}

/* Why the machine ended by itself, in words, with the kernel's last lines where they explain it; and what to call it.
 */
static cc_instance_state cci_vm_explain(struct cci_vm *vm, enum cci_machine_end end, const char *why, char *out)
{
    char text[400];
    char *console = end == CCI_MACHINE_OFF ? NULL : cci_serial_tail(&vm->machine->serial, CCI_SERIAL_KEEP);
    const char *panic = cci_vm_find_panic(console), *words = panic ? panic + sizeof(CCI_VM_PANIC) - 1 : NULL;
    switch (end) {
    case CCI_MACHINE_OFF:
        (void)snprintf(text, sizeof(text), "the guest switched itself off");
        break;
    case CCI_MACHINE_RESET:
        if (words)
            (void)snprintf(text, sizeof(text), "the guest's kernel gave up: %.*s",
                           (int)CCI_MIN(strcspn(words, "\n"), (size_t)120), words);
        else
            (void)snprintf(text, sizeof(text), "the guest was rebooted, which ends an instance");
        break;
    case CCI_MACHINE_CRASHED:
        (void)snprintf(text, sizeof(text), "the guest crashed (triple fault)");
        break;
    default:
        (void)snprintf(text, sizeof(text), "the hypervisor gave up: %s", why);
        break;
    }
    const char *quote = console ? cci_vm_quote(console, panic) : "";
    (void)snprintf(out, CCI_VM_REASON, "%s%s%s", text, *quote ? "; its last messages:\n" : "", quote);
    cci_mem_free(console);
    return end == CCI_MACHINE_OFF || (end == CCI_MACHINE_RESET && !words) ? CC_STATE_STOPPED : CC_STATE_FAILED;
}

/* The machine's end_fn: on any of its threads. */
static void cci_vm_on_machine_end(void *ctx)
{
    struct cci_vm *vm = ctx;
    char why[160], reason[CCI_VM_REASON];
    enum cci_machine_end end = cci_machine_state(vm->machine, why, sizeof(why));
    cc_instance_state state = CC_STATE_STOPPED;
    (void)snprintf(reason, sizeof(reason), "the instance was closed");
    if (end != CCI_MACHINE_STOPPED) {
        state = cci_vm_explain(vm, end, why, reason);
    } else {
        cci_monitor_lock(&vm->monitor);
        if (vm->verdict != CC_STATE_CREATED) {
            state = vm->verdict;
            memcpy(reason, vm->why, sizeof(reason));
        }
        cci_monitor_unlock(&vm->monitor);
    }
    cci_vm_break(vm, reason);
    cci_state_set(&vm->state, state);
}

/* Cuts the guest's power, for this reason. Any thread but a CPU's. */
static void cci_vm_cut(struct cci_vm *vm, cc_instance_state verdict, const char *reason)
{
    cci_monitor_lock(&vm->monitor);
    if (vm->verdict == CC_STATE_CREATED) {
        vm->verdict = verdict;
        (void)snprintf(vm->why, sizeof(vm->why), "%s", reason);
    }
    cci_monitor_unlock(&vm->monitor);
    cci_machine_end(vm->machine, CCI_MACHINE_STOPPED, "");
}

/* ---- Alarms, on the I/O thread --------------------------------------------------------------------------- */

static void cci_vm_on_timeout(void *ctx)
{
    struct cci_vm *vm = ctx;
    char reason[100];
    (void)snprintf(reason, sizeof(reason), "the instance's time-out of %g seconds passed", vm->timeout_seconds);
    cci_state_set(&vm->state, CC_STATE_STOPPING);
    cci_vm_cut(vm, CC_STATE_STOPPED, reason);
}

static void cci_vm_on_lost(void *ctx)
{
    struct cci_vm *vm = ctx;
    char reason[CCI_VM_REASON];
    char *tail = cci_serial_tail(&vm->machine->serial, CCI_VM_TAIL);
    (void)snprintf(reason, sizeof(reason), "the guest's agent ended, and the guest went on without it%s%s",
                   tail && *tail ? "; its last messages:\n" : "", tail ? tail : "");
    cci_mem_free(tail);
    cci_vm_cut(vm, CC_STATE_FAILED, reason);
}

static void cci_vm_on_no_stop(void *ctx)
{
    cci_vm_cut(ctx, CC_STATE_FAILED, "the guest did not stop when it was asked to, and its power was cut");
}

/* The control connection is gone. Any thread, with its lock held. */
static void cci_vm_on_control_lost(void *ctx)
{
    struct cci_vm *vm = ctx;
    cci_monitor_lock(&vm->monitor);
    bool has_devices = vm->has_devices; /* and so a machine */
    cci_monitor_unlock(&vm->monitor);
    if (has_devices)
        cci_loop_set_alarm(&vm->loop, &vm->lost, cci_os_now() + CCI_VM_LOST_NS);
}

#endif
