/*
 * cc_impl_kvm.h - the KVM backend: struct cci_hv_ops over /dev/kvm.
 *
 * This file has the table and the interrupt lines and doorbells: eventfds that the kernel connects itself (irqfd,
 * ioeventfd), so that device traffic leaves KVM_RUN rarely. The rest is in src/hv: kvm_run.h runs vCPUs, kvm_cpu_x86.h
 * sets them up, kvm_clock_x86.h holds their clocks, kvm_state_x86.h saves and restores them, kvm_probe_x86.h finds out
 * whether any of it works here.
 */
#ifndef CCI_IMPL_KVM_H
#define CCI_IMPL_KVM_H

#include "src/hv/kvm_probe_x86.h"

static void cci_kvm_irq_raise(struct cci_hv_vm *vm, unsigned gsi)
{
    struct kvm_irq_level line;
    memset(&line, 0, sizeof(line));
    line.irq = gsi;
    line.level = 1;
    (void)cci_os_ioctl(vm->fd, KVM_IRQ_LINE, &line);
    line.level = 0;
    (void)cci_os_ioctl(vm->fd, KVM_IRQ_LINE, &line);
}

static cc_error_code cci_kvm_irqfd(struct cci_hv_vm *vm, unsigned gsi, cci_fd fd, cc_error *err)
{
    struct kvm_irqfd irqfd;
    memset(&irqfd, 0, sizeof(irqfd));
    irqfd.fd = (uint32_t)fd;
    irqfd.gsi = gsi;
    return cci_kvm_call(vm->fd, KVM_IRQFD, &irqfd, "connect an interrupt line", err);
}

static cc_error_code cci_kvm_ioeventfd(struct cci_hv_vm *vm, uint64_t gpa, uint32_t value, cci_fd fd, cc_error *err)
{
    struct kvm_ioeventfd io;
    memset(&io, 0, sizeof(io));
    io.datamatch = value;
    io.addr = gpa;
    io.len = 4;
    io.fd = fd;
    io.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
    return cci_kvm_call(vm->fd, KVM_IOEVENTFD, &io, "connect a doorbell", err);
}

/* The backend's table. */
static const struct cci_hv_ops *cci_kvm_ops(void)
{
    static const struct cci_hv_ops ops = {
        .probe = cci_kvm_probe,
        .vm_new = cci_kvm_vm_new,
        .vm_free = cci_kvm_vm_free,
        .vm_map = cci_kvm_vm_map,
        .irq_raise = cci_kvm_irq_raise,
        .irqfd = cci_kvm_irqfd,
        .ioeventfd = cci_kvm_ioeventfd,
        .vm_save = cci_kvm_vm_save,
        .vm_restore = cci_kvm_vm_restore,
        .clock_stop = cci_kvm_clock_stop,
        .clock_start = cci_kvm_clock_start,
        .vcpu_clock_start = cci_kvm_vcpu_clock_start,
        .vcpu_new = cci_kvm_vcpu_new,
        .vcpu_free = cci_kvm_vcpu_free,
        .vcpu_run = cci_kvm_vcpu_run,
        .vcpu_kick = cci_kvm_vcpu_kick,
        .vcpu_save = cci_kvm_vcpu_save,
        .vcpu_restore = cci_kvm_vcpu_restore,
        .x86_cpuid = cci_kvm_x86_cpuid,
        .x86_set_cpuid = cci_kvm_x86_set_cpuid,
        .x86_start = cci_kvm_x86_start,
    };
    return &ops;
}

#endif
