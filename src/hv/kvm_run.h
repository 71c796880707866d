/*
 * hv/kvm_run.h - VMs and vCPUs on KVM: making them, running a vCPU, and getting it out again.
 *
 * A vCPU runs inside ioctl(KVM_RUN) on its own thread; the kernel comes back when the guest touches a port or memory
 * that is not RAM, with what it did in a structure that is mapped into both.
 *
 * Getting a vCPU out: the thread blocks every signal, but for the time inside KVM_RUN the kernel uses another mask
 * (KVM_SET_SIGNAL_MASK) in which the kick signal is not blocked. A kick that finds the thread inside makes KVM_RUN
 * return EINTR; the signal is then blocked again and still pending, so no handler ever runs, and is taken off with
 * rt_sigtimedwait. A kick that finds it outside is remembered in kvm_run.immediate_exit as well, so none is lost
 * between the decision to enter and the entry. The signal is number 16, which Linux defines and never sends, so
 * nobody else waits for it.
 */
#ifndef CCI_HV_KVM_RUN_H
#define CCI_HV_KVM_RUN_H

#include "kvm_clock_x86.h"
#include "kvm_cpu_x86.h"
#include "kvm_state_x86.h"

#define CCI_KVM_KICK_SIGNAL 16

static cc_error_code cci_kvm_open(cci_fd *out, cc_error *err)
{
    *out = cci_os_open("/dev/kvm", CCI_OS_RDWR, 0);
    if (*out >= 0)
        return CC_OK;
    int e = -*out;
    *out = CCI_NO_FD;
    if (e == ENOENT || e == ENODEV || e == ENXIO)
        return cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, e, "/dev/kvm",
                              "there is no KVM on this machine: switch virtualisation on in the firmware, or on the "
                              "host if this is a virtual machine, and load the kvm_intel or kvm_amd module");
    if (e == EACCES || e == EPERM)
        return cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, e, "/dev/kvm",
                              "no permission to use /dev/kvm: add this user to the group that owns it (often "
                              "\"kvm\") and log in again");
    return cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, e, "/dev/kvm", "cannot open /dev/kvm: %s",
                          cci_errno_text(e));
}

/* The version and the capabilities without which nothing here works. */
static cc_error_code cci_kvm_check(cci_fd kvm, cc_error *err)
{
    static const struct {
        unsigned capability;
        const char *name;
    } needed[] = {
        {KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
        {KVM_CAP_USER_MEMORY, "user memory"},
        {KVM_CAP_IRQFD, "irqfd"},
        {KVM_CAP_IOEVENTFD, "ioeventfd"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
        {KVM_CAP_MP_STATE, "CPU states"},
        {KVM_CAP_EXT_CPUID, "CPUID tables"},
    };
    int version = cci_kvm_number(kvm, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return cci_fail(err, CC_ERR_HYPERVISOR_UNAVAILABLE, "/dev/kvm",
                        "/dev/kvm speaks version %d of its interface and not %d", version, KVM_API_VERSION);
    for (unsigned i = 0; i < CCI_COUNT(needed); i++)
        if (cci_kvm_has(kvm, needed[i].capability) <= 0)
            return cci_fail(err, CC_ERR_HYPERVISOR_UNAVAILABLE, "/dev/kvm",
                            "this KVM lacks a feature that is needed (%s): a host kernel of 4.13 or later has it",
                            needed[i].name);
    return CC_OK;
}

static void cci_kvm_vm_free(struct cci_hv_vm *vm)
{
    if (!vm)
        return;
    cci_os_close(vm->fd);
    cci_os_close(vm->kvm);
    cci_mem_free(vm);
}

static cc_error_code cci_kvm_vm_new(struct cci_hv_vm **out, const struct cci_hv_config *config, cc_error *err)
{
    *out = NULL;
    struct cci_hv_vm *vm = cci_mem_zalloc(1, sizeof(*vm));
    if (!vm)
        return cci_fail_nomem(err);
    vm->kvm = vm->fd = CCI_NO_FD;
    vm->xsave = config->xsave;
    cc_error_code code = cci_kvm_open(&vm->kvm, err);
    if (code == CC_OK)
        code = cci_kvm_check(vm->kvm, err);
    if (code != CC_OK)
        goto fail;
    vm->fd = cci_kvm_number(vm->kvm, KVM_CREATE_VM, 0);
    int size = cci_kvm_number(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vm->fd < 0 || size < (int)sizeof(struct kvm_run)) {
        int e = vm->fd < 0 ? -vm->fd : EINVAL;
        code = cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, e, NULL, "KVM cannot create a virtual machine: %s",
                              cci_errno_text(e));
        goto fail;
    }
    vm->run_size = (size_t)size;
    code = cci_kvm_arch_vm(vm, err);
    if (code != CC_OK)
        goto fail;
    *out = vm;
    return CC_OK;
fail:
    cci_kvm_vm_free(vm);
    return code;
}

static cc_error_code cci_kvm_vm_map(struct cci_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
                                    cc_error *err)
{
    struct kvm_userspace_memory_region region;
    memset(&region, 0, sizeof(region));
    region.slot = slot;
    region.guest_phys_addr = gpa;
    region.memory_size = size;
    region.userspace_addr = (uintptr_t)host;
    return cci_kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &region, "map memory into the guest", err);
}

static void cci_kvm_vcpu_free(struct cci_hv_vcpu *vcpu)
{
    if (!vcpu)
        return;
    cci_os_unmap(vcpu->run, vcpu->vm->run_size);
    cci_os_close(vcpu->fd);
    cci_mem_free(vcpu);
}

/* The mask for the time inside KVM_RUN: what our threads always block, less the kick. */
static cc_error_code cci_kvm_signal_mask(struct cci_hv_vcpu *vcpu, cc_error *err)
{
    uint64_t mask = CCI_OS_MASK_ALL & ~CCI_OS_SIGNAL_BIT(CCI_KVM_KICK_SIGNAL);
    uint8_t arg[12]; /* struct kvm_signal_mask: a length, then that many bytes */
    uint32_t length = sizeof(mask);
    memcpy(arg, &length, 4);
    memcpy(arg + 4, &mask, 8);
    return cci_kvm_call(vcpu->fd, KVM_SET_SIGNAL_MASK, arg, "set a CPU's signal mask", err);
}

static cc_error_code cci_kvm_vcpu_new(struct cci_hv_vm *vm, unsigned index, struct cci_hv_vcpu **out, cc_error *err)
{
    *out = NULL;
    struct cci_hv_vcpu *vcpu = cci_mem_zalloc(1, sizeof(*vcpu));
    if (!vcpu)
        return cci_fail_nomem(err);
    vcpu->vm = vm;
    vcpu->fd = cci_kvm_number(vm->fd, KVM_CREATE_VCPU, index);
    vcpu->run = vcpu->fd < 0 ? NULL : cci_os_map_shared(vcpu->fd, vm->run_size);
    cc_error_code code = CC_OK;
    if (!vcpu->run) {
        int e = vcpu->fd < 0 ? -vcpu->fd : ENOMEM;
        code = cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, e, NULL, "KVM cannot create CPU %u: %s", index,
                              cci_errno_text(e));
    }
    if (code == CC_OK)
        code = cci_kvm_signal_mask(vcpu, err);
    if (code != CC_OK) {
        cci_kvm_vcpu_free(vcpu);
        return code;
    }
    *out = vcpu;
    return CC_OK;
}

static void cci_kvm_vcpu_kick(struct cci_hv_vcpu *vcpu)
{
    __atomic_store_n(&vcpu->kicked, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    long tid = __atomic_load_n(&vcpu->tid, __ATOMIC_SEQ_CST);
    if (tid)
        (void)syscall(SYS_tgkill, cci_os_pid(), tid, (long)CCI_KVM_KICK_SIGNAL);
}

/* KVM_RUN was interrupted: takes the kick's signal off. A kick that comes during this is seen by the next entry. */
static void cci_kvm_interrupted(struct cci_hv_vcpu *vcpu, struct cci_hv_exit *exit)
{
    struct cci_os_timespec now = {0, 0};
    uint64_t kick = CCI_OS_SIGNAL_BIT(CCI_KVM_KICK_SIGNAL);
    (void)syscall(SYS_rt_sigtimedwait, &kick, NULL, &now, sizeof(kick));
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    exit->kind = __atomic_exchange_n(&vcpu->kicked, 0, __ATOMIC_SEQ_CST) ? CCI_HV_EXIT_KICKED : CCI_HV_EXIT_NONE;
}

static void cci_kvm_exit_fail(struct cci_hv_exit *exit, const char *what, uint64_t number)
{
    exit->kind = CCI_HV_EXIT_FAIL;
    (void)snprintf(exit->why, sizeof(exit->why), "KVM stopped the guest: %s %llu", what, (unsigned long long)number);
}

static void cci_kvm_exit_io(const struct cci_hv_vcpu *vcpu, struct cci_hv_exit *exit)
{
    struct kvm_run *run = vcpu->run;
    if (run->io.data_offset > vcpu->vm->run_size ||
        (uint64_t)run->io.size * run->io.count > vcpu->vm->run_size - run->io.data_offset) {
        cci_kvm_exit_fail(exit, "port data outside its page, at", run->io.data_offset);
        return;
    }
    exit->kind = run->io.direction == KVM_EXIT_IO_OUT ? CCI_HV_EXIT_IO_OUT : CCI_HV_EXIT_IO_IN;
    exit->addr = run->io.port;
    exit->size = run->io.size;
    exit->count = run->io.count;
    exit->data = (uint8_t *)run + run->io.data_offset;
}

static void cci_kvm_vcpu_run(struct cci_hv_vcpu *vcpu, struct cci_hv_exit *exit)
{
    struct kvm_run *run = vcpu->run;
    if (!__atomic_load_n(&vcpu->tid, __ATOMIC_RELAXED)) {
        __atomic_store_n(&vcpu->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
        /* A kick that did not see the thread has left its mark in immediate_exit. */
    }
    exit->kind = CCI_HV_EXIT_NONE;
    int r = cci_os_ioctl_num(vcpu->fd, KVM_RUN, 0);
    if (r == -EINTR || r == -EAGAIN) {
        cci_kvm_interrupted(vcpu, exit);
        return;
    }
    if (r < 0) {
        cci_kvm_exit_fail(exit, "error", (uint64_t)-r);
        return;
    }
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        cci_kvm_exit_io(vcpu, exit);
        return;
    case KVM_EXIT_MMIO:
        exit->kind = run->mmio.is_write ? CCI_HV_EXIT_MMIO_OUT : CCI_HV_EXIT_MMIO_IN;
        exit->addr = run->mmio.phys_addr;
        exit->size = run->mmio.len;
        exit->count = 1;
        exit->data = run->mmio.data;
        return;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return;
    case KVM_EXIT_SHUTDOWN:
        exit->kind = CCI_HV_EXIT_SHUTDOWN;
        return;
    case KVM_EXIT_SYSTEM_EVENT:
        exit->kind = run->system_event.type == KVM_SYSTEM_EVENT_RESET ? CCI_HV_EXIT_RESET : CCI_HV_EXIT_SHUTDOWN;
        return;
    case KVM_EXIT_FAIL_ENTRY:
        cci_kvm_exit_fail(exit, "it could not be entered, reason", run->fail_entry.hardware_entry_failure_reason);
        return;
    case KVM_EXIT_INTERNAL_ERROR:
        cci_kvm_exit_fail(exit, "an instruction could not be emulated, error", run->internal.suberror);
        return;
    default:
        cci_kvm_exit_fail(exit, "unknown exit", run->exit_reason);
        return;
    }
}

#endif
