/*
 * hv/kvm_vm.h - what the files of the KVM backend share: its two structures, and calls with an error message.
 *
 * KVM is a tree of descriptors (Documentation/virt/kvm/api.rst in the kernel's source): /dev/kvm makes VMs, a VM makes
 * vCPUs, and each has its own ioctls. Everything here goes through cci_os_ioctl.
 */
#ifndef CCI_HV_KVM_VM_H
#define CCI_HV_KVM_VM_H

#include <linux/kvm.h>

#include "../base/errno_text.h"
#include "hv.h"

struct cci_hv_vm {
    cci_fd kvm;      /* /dev/kvm */
    cci_fd fd;       /* the VM */
    size_t run_size; /* bytes of each vCPU's shared structure */
    bool xsave;      /* guests are offered XSAVE */

    struct kvm_clock_data clock; /* when it was stopped; all zero if that could not be told */
    uint64_t tsc;                /* CPU 0's time-stamp counter then; 0: not known */
    uint64_t tsc_missed;         /* what it has counted since */
};

struct cci_hv_vcpu {
    struct cci_hv_vm *vm;
    cci_fd fd;
    struct kvm_run *run; /* shared with the kernel */
    long tid;            /* atomic: the kernel's number of the thread that runs it; 0 before the first run */
    uint32_t kicked;     /* atomic: vcpu_kick was called and vcpu_run has not said so yet */
};

/* An ioctl that must succeed: `what` completes "KVM cannot ...". */
static cc_error_code cci_kvm_call(cci_fd fd, unsigned long request, const void *arg, const char *what, cc_error *err)
{
    int r = cci_os_ioctl(fd, request, (void *)(uintptr_t)arg);
    if (r >= 0)
        return CC_OK;
    return cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, -r, NULL, "KVM cannot %s: %s", what, cci_errno_text(-r));
}

/* One whose argument and result are numbers. Made again when a signal of the caller's interrupts it: making a VM gives
 * up for any that is pending, and some runtimes send their threads a hundred a second. */
static int cci_kvm_number(cci_fd fd, unsigned long request, unsigned long arg)
{
    return cci_os_ioctl(fd, request, (void *)(uintptr_t)arg);
}

static int cci_kvm_has(cci_fd fd, unsigned long capability)
{
    return cci_kvm_number(fd, KVM_CHECK_EXTENSION, capability);
}

#endif
