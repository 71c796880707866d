/*
 * machine/pause.h - stopping a machine's CPUs, and setting them going again (see machine.h).
 */
#ifndef CCI_MACHINE_PAUSE_H
#define CCI_MACHINE_PAUSE_H

#include "machine.h"

/* Whether nothing of the guest runs any more. With the monitor locked. */
static bool cci_machine_is_parked(void *ctx)
{
    const struct cci_machine *m = ctx;
    for (unsigned i = 0; i < m->config.cpus && m->end == CCI_MACHINE_ALIVE; i++)
        if (m->cpu[i].alive && !m->cpu[i].parked)
            return false;
    return true;
}

/* Lets the CPUs go on. The machine may have ended. */
static void cci_machine_go_on(struct cci_machine *m)
{
    cci_monitor_lock(&m->monitor);
    m->paused = false;
    if (m->end == CCI_MACHINE_ALIVE)
        __atomic_store_n(&m->attention, 0, __ATOMIC_SEQ_CST);
    cci_cond_wake(&m->monitor.cond);
    cci_monitor_unlock(&m->monitor);
}

/* Stops the CPUs of a machine that runs, and waits until they have. A machine that ends meanwhile is no error: its
 * state tells. */
static void cci_machine_pause(struct cci_machine *m)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER; /* a kick takes no longer than the device access under way */
    cci_monitor_lock(&m->monitor);
    m->paused = true;
    cci_machine_call_out(m);
    cci_monitor_unlock(&m->monitor);
    (void)cci_monitor_wait(&m->monitor, &forever, cci_machine_is_parked, m, "the CPUs to stop", NULL);
    bool alive = m->end == CCI_MACHINE_ALIVE;
    cci_monitor_unlock(&m->monitor);
    if (alive)
        m->config.hv->clock_stop(m->vm, m->cpu[0].vcpu);
}

static void cci_machine_resume(struct cci_machine *m)
{
    m->config.hv->clock_start(m->vm, m->cpu[0].vcpu);
    for (unsigned i = 0; i < m->config.cpus; i++)
        m->config.hv->vcpu_clock_start(m->cpu[i].vcpu);
    cci_machine_go_on(m);
}

#endif
