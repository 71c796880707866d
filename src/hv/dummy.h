/*
 * hv/dummy.h - a backend with no CPU, for tests of the machine and its devices.
 *
 * It implements struct cci_hv_ops as a whole, like cc_impl_kvm.h, and in place of it (both define the same structures).
 * A vCPU waits in vcpu_run until it is kicked, or until a test plays the guest: cci_dummy_access makes one access to a
 * port or to memory as if CPU 0 had made it, and returns when the machine has answered it. Interrupts are counted.
 * There are no eventfds, so doorbells and lines take the ways that a hypervisor without them needs.
 */
#ifndef CCI_HV_DUMMY_H
#define CCI_HV_DUMMY_H

#include "../base/cancel.h"
#include "hv.h"

#define CCI_DUMMY_LINES 24u

struct cci_hv_vm {
    struct cci_monitor monitor;       /* guards everything here, and the vCPUs */
    unsigned raised[CCI_DUMMY_LINES]; /* edges on each line */
    struct cci_gmem_range map[2];     /* what was mapped */
    struct cci_hv_vcpu *first;        /* CPU 0 */
    unsigned clock_stops, clock_starts, cpu_clock_starts;
};

struct cci_hv_vcpu {
    struct cci_hv_vm *vm;
    bool kicked;
    struct cci_hv_exit *access; /* to be made; NULL when there is none */
    bool answering;             /* it was made, and vcpu_run has not been called again */
    struct cci_x86_start start; /* of CPU 0, from x86_start */
};

static cc_error_code cci_dummy_probe(struct cci_hv_caps *caps, cc_error *err)
{
    (void)err;
    memset(caps, 0, sizeof(*caps));
    caps->max_cpus = 64;
    caps->name = "dummy";
    return CC_OK;
}

static cc_error_code cci_dummy_vm_new(struct cci_hv_vm **out, const struct cci_hv_config *config, cc_error *err)
{
    (void)config;
    *out = cci_mem_zalloc(1, sizeof(**out));
    if (!*out)
        return cci_fail_nomem(err);
    cci_monitor_init(&(*out)->monitor);
    return CC_OK;
}

static void cci_dummy_vm_free(struct cci_hv_vm *vm)
{
    cci_monitor_destroy(&vm->monitor);
    cci_mem_free(vm);
}

static cc_error_code cci_dummy_vm_map(struct cci_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
                                      cc_error *err)
{
    if (slot >= CCI_COUNT(vm->map))
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the dummy backend has two memory slots");
    vm->map[slot] = (struct cci_gmem_range){gpa, size, host};
    return CC_OK;
}

static void cci_dummy_irq_raise(struct cci_hv_vm *vm, unsigned gsi)
{
    cci_monitor_lock(&vm->monitor);
    if (gsi < CCI_DUMMY_LINES)
        vm->raised[gsi]++;
    cci_monitor_unlock(&vm->monitor);
}

static cc_error_code cci_dummy_no_eventfd(struct cci_hv_vm *vm, unsigned gsi, cci_fd fd, cc_error *err)
{
    (void)vm, (void)gsi, (void)fd;
    return cci_fail(err, CC_ERR_UNKNOWN, NULL, "the dummy backend has no irqfd");
}

static cc_error_code cci_dummy_no_doorbell(struct cci_hv_vm *vm, uint64_t gpa, uint32_t value, cci_fd fd, cc_error *err)
{
    (void)vm, (void)gpa, (void)value, (void)fd;
    return cci_fail(err, CC_ERR_UNKNOWN, NULL, "the dummy backend has no ioeventfd");
}

/* There is no state: a version, so that an empty blob is told from a saved one. */
static cc_error_code cci_dummy_save(struct cci_buf *out, cc_error *err)
{
    return cci_buf_add(out, "dummy 1", 7) ? CC_OK : cci_fail_nomem(err);
}

static cc_error_code cci_dummy_restore(struct cci_view in, cc_error *err)
{
    if (in.n == 7 && memcmp(in.p, "dummy 1", 7) == 0)
        return CC_OK;
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "this was not saved by the dummy backend");
}

static cc_error_code cci_dummy_vm_save(struct cci_hv_vm *vm, struct cci_buf *out, cc_error *err)
{
    (void)vm;
    return cci_dummy_save(out, err);
}

static cc_error_code cci_dummy_vm_restore(struct cci_hv_vm *vm, struct cci_view in, cc_error *err)
{
    (void)vm;
    return cci_dummy_restore(in, err);
}

static void cci_dummy_clock_stop(struct cci_hv_vm *vm, struct cci_hv_vcpu *first)
{
    (void)first;
    vm->clock_stops++;
}

static void cci_dummy_clock_start(struct cci_hv_vm *vm, struct cci_hv_vcpu *first)
{
    (void)first;
    vm->clock_starts++;
}

static void cci_dummy_vcpu_clock_start(struct cci_hv_vcpu *vcpu)
{
    vcpu->vm->cpu_clock_starts++;
}

static cc_error_code cci_dummy_vcpu_new(struct cci_hv_vm *vm, unsigned index, struct cci_hv_vcpu **out, cc_error *err)
{
    *out = cci_mem_zalloc(1, sizeof(**out));
    if (!*out)
        return cci_fail_nomem(err);
    (*out)->vm = vm;
    if (index == 0)
        vm->first = *out;
    return CC_OK;
}

static void cci_dummy_vcpu_free(struct cci_hv_vcpu *vcpu)
{
    if (vcpu->vm->first == vcpu)
        vcpu->vm->first = NULL;
    cci_mem_free(vcpu);
}

static void cci_dummy_vcpu_run(struct cci_hv_vcpu *vcpu, struct cci_hv_exit *exit)
{
    struct cci_monitor *m = &vcpu->vm->monitor;
    cci_monitor_lock(m);
    if (vcpu->answering) { /* the machine comes back: it has answered */
        vcpu->answering = false;
        vcpu->access = NULL;
        cci_cond_wake(&m->cond);
    }
    while (!vcpu->kicked && !vcpu->access)
        (void)cci_cond_wait(&m->cond, &m->mutex, CCI_FOREVER);
    if (vcpu->kicked) {
        vcpu->kicked = false;
        exit->kind = CCI_HV_EXIT_KICKED;
    } else {
        *exit = *vcpu->access;
        vcpu->answering = true;
    }
    cci_monitor_unlock(m);
}

static void cci_dummy_vcpu_kick(struct cci_hv_vcpu *vcpu)
{
    cci_monitor_lock(&vcpu->vm->monitor);
    vcpu->kicked = true;
    cci_cond_wake(&vcpu->vm->monitor.cond);
    cci_monitor_unlock(&vcpu->vm->monitor);
}

static cc_error_code cci_dummy_vcpu_save(struct cci_hv_vcpu *vcpu, struct cci_buf *out, cc_error *err)
{
    (void)vcpu;
    return cci_dummy_save(out, err);
}

static cc_error_code cci_dummy_vcpu_restore(struct cci_hv_vcpu *vcpu, struct cci_view in, cc_error *err)
{
    (void)vcpu;
    return cci_dummy_restore(in, err);
}

static cc_error_code cci_dummy_x86_cpuid(struct cci_hv_vcpu *vcpu, struct cci_x86_cpuid *out, cc_error *err)
{
    (void)vcpu, (void)err;
    memset(out, 0, sizeof(*out));
    return CC_OK;
}

static cc_error_code cci_dummy_x86_set_cpuid(struct cci_hv_vcpu *vcpu, const struct cci_x86_cpuid *cpuid, cc_error *err)
{
    (void)vcpu, (void)cpuid, (void)err;
    return CC_OK;
}

static cc_error_code cci_dummy_x86_start(struct cci_hv_vcpu *vcpu, const struct cci_x86_start *start, cc_error *err)
{
    (void)err;
    vcpu->start = *start;
    return CC_OK;
}

/* Plays the guest: CPU 0 leaves vcpu_run with this exit; returns when it was answered (e->data filled, if a read), or
 * false after two seconds, when the CPU no longer runs. */
static bool cci_dummy_access(struct cci_hv_vm *vm, struct cci_hv_exit *e)
{
    uint64_t deadline = cci_os_now() + 2000000000u;
    cci_monitor_lock(&vm->monitor);
    vm->first->access = e;
    cci_cond_wake(&vm->monitor.cond);
    while (vm->first->access == e && cci_cond_wait(&vm->monitor.cond, &vm->monitor.mutex, deadline))
        continue;
    bool answered = vm->first->access != e;
    if (!answered && !vm->first->answering)
        vm->first->access = NULL;
    cci_monitor_unlock(&vm->monitor);
    return answered;
}

static const struct cci_hv_ops *cci_dummy_ops(void)
{
    static const struct cci_hv_ops ops = {
        .probe = cci_dummy_probe,
        .vm_new = cci_dummy_vm_new,
        .vm_free = cci_dummy_vm_free,
        .vm_map = cci_dummy_vm_map,
        .irq_raise = cci_dummy_irq_raise,
        .irqfd = cci_dummy_no_eventfd,
        .ioeventfd = cci_dummy_no_doorbell,
        .vm_save = cci_dummy_vm_save,
        .vm_restore = cci_dummy_vm_restore,
        .clock_stop = cci_dummy_clock_stop,
        .clock_start = cci_dummy_clock_start,
        .vcpu_clock_start = cci_dummy_vcpu_clock_start,
        .vcpu_new = cci_dummy_vcpu_new,
        .vcpu_free = cci_dummy_vcpu_free,
        .vcpu_run = cci_dummy_vcpu_run,
        .vcpu_kick = cci_dummy_vcpu_kick,
        .vcpu_save = cci_dummy_vcpu_save,
        .vcpu_restore = cci_dummy_vcpu_restore,
        .x86_cpuid = cci_dummy_x86_cpuid,
        .x86_set_cpuid = cci_dummy_x86_set_cpuid,
        .x86_start = cci_dummy_x86_start,
    };
    return &ops;
}

#endif
