/*
 * hv/kvm_clock_x86.h - holding a guest's clocks on x86-64 KVM while it is paused.
 *
 * A guest reads the time from a page that KVM keeps (kvm-clock), or, where the counter is good enough, from the
 * time-stamp counter itself. The first is read when the guest stops and set to the same value when it goes on. The
 * counter is moved back by what it has counted meanwhile: by the same amount on every CPU, through its offset from the
 * host's counter (Linux 5.16; before that it runs on), so that CPUs that agree go on agreeing. What a guest has set as
 * a deadline fires early then, by the host's clock; its kernel looks at the time, and sets it again.
 */
#ifndef CCI_HV_KVM_CLOCK_X86_H
#define CCI_HV_KVM_CLOCK_X86_H

#include "kvm_state_x86.h"

/* The counter as the guest sees it; 0 when KVM does not tell. */
static uint64_t cci_kvm_tsc(const struct cci_hv_vcpu *vcpu)
{
    uint8_t one[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] = {1}; /* a count of one, then the entry */
    cci_put_le32(one + sizeof(struct kvm_msrs), CCI_KVM_MSR_TSC);
    return cci_os_ioctl(vcpu->fd, KVM_GET_MSRS, one) == 1 ? cci_le64(one + sizeof(struct kvm_msrs) + 8) : 0;
}

static void cci_kvm_clock_stop(struct cci_hv_vm *vm, struct cci_hv_vcpu *first)
{
    memset(&vm->clock, 0, sizeof(vm->clock));
    if (cci_os_ioctl(vm->fd, KVM_GET_CLOCK, &vm->clock) < 0)
        vm->clock.clock = 0;
    vm->tsc = cci_kvm_tsc(first);
}

static void cci_kvm_clock_start(struct cci_hv_vm *vm, struct cci_hv_vcpu *first)
{
    uint64_t now = vm->tsc ? cci_kvm_tsc(first) : 0;
    vm->tsc_missed = now > vm->tsc ? now - vm->tsc : 0;
}

/* KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET: both are 0, and older headers do not know them. */
static void cci_kvm_vcpu_clock_start(struct cci_hv_vcpu *vcpu)
{
    struct cci_hv_vm *vm = vcpu->vm;
    uint64_t offset = 0;
    struct kvm_device_attr attr = {0, 0, 0, (uintptr_t)&offset};
    if (vm->tsc_missed && cci_os_ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) >= 0) {
        offset -= vm->tsc_missed;
        (void)cci_os_ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr);
    }
    /* Behind the counter, which it is computed from; the last CPU's is the one that counts. */
    vm->clock.flags = 0; /* those of GET only inform */
    if (vm->clock.clock)
        (void)cci_os_ioctl(vm->fd, KVM_SET_CLOCK, &vm->clock);
    /* Tells the guest's watchdog that the time it lacks was not its fault; -EINVAL from a guest without kvm-clock. */
    (void)cci_os_ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, NULL);
}

#endif
