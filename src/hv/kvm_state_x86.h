/*
 * hv/kvm_state_x86.h - saving and restoring a VM and its vCPUs on x86-64 KVM.
 *
 * A blob is a header (magic, version) and records {id, length, bytes}, each the kernel's own structure for one part of
 * the state, so a blob is good for another VM on the same kind of host. A record is looked up by its id, and its length
 * has to be what this build knows. Restoring follows the order that the parts depend on each other in: features, then
 * registers, then the local APIC, then model-specific registers (the timer's deadline needs both the APIC and the
 * time-stamp counter), then what is being delivered.
 *
 * KVM finishes an access to a port or to MMIO only when KVM_RUN is entered again; vcpu_save enters it with
 * immediate_exit set, which finishes the access and runs nothing.
 */
#ifndef CCI_HV_KVM_STATE_X86_H
#define CCI_HV_KVM_STATE_X86_H

#include "kvm_vm.h"

#define CCI_KVM_STATE_MAGIC 0x4d564b43u /* "CKVM" */
#define CCI_KVM_STATE_VERSION 1u
#define CCI_KVM_MSR_TSC 0x10u
#define CCI_KVM_MSR_TSC_DEADLINE 0x6e0u
#define CCI_KVM_MAX_MSRS 1024u

enum cci_kvm_record {
    CCI_KVM_REC_TSC_KHZ = 1,
    CCI_KVM_REC_MP_STATE,
    CCI_KVM_REC_REGS,
    CCI_KVM_REC_SREGS,
    CCI_KVM_REC_XSAVE,
    CCI_KVM_REC_XCRS,
    CCI_KVM_REC_DEBUGREGS,
    CCI_KVM_REC_LAPIC,
    CCI_KVM_REC_MSRS, /* pairs of 8 bytes: number, value */
    CCI_KVM_REC_EVENTS,
    CCI_KVM_REC_CLOCK,
    CCI_KVM_REC_IRQCHIP = 0x100 /* plus the chip's number */
};

/* One part of the state that is one structure and two ioctls. */
struct cci_kvm_part {
    enum cci_kvm_record id;
    size_t size;
    unsigned long get, set;
    const char *name;
};

union cci_kvm_any {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp_state;
    struct kvm_vcpu_events events;
    struct kvm_irqchip irqchip;
    struct kvm_clock_data clock;
};

/* In the order of restoring; the model-specific registers go before the last one. */
static const struct cci_kvm_part *cci_kvm_parts(unsigned *count)
{
    static const struct cci_kvm_part parts[] = {
        {CCI_KVM_REC_MP_STATE, sizeof(struct kvm_mp_state), KVM_GET_MP_STATE, KVM_SET_MP_STATE, "run state"},
        {CCI_KVM_REC_REGS, sizeof(struct kvm_regs), KVM_GET_REGS, KVM_SET_REGS, "registers"},
        {CCI_KVM_REC_SREGS, sizeof(struct kvm_sregs), KVM_GET_SREGS, KVM_SET_SREGS, "system registers"},
        {CCI_KVM_REC_XSAVE, sizeof(struct kvm_xsave), KVM_GET_XSAVE, KVM_SET_XSAVE, "vector registers"},
        {CCI_KVM_REC_XCRS, sizeof(struct kvm_xcrs), KVM_GET_XCRS, KVM_SET_XCRS, "XCR0"},
        {CCI_KVM_REC_DEBUGREGS, sizeof(struct kvm_debugregs), KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, "debug registers"},
        {CCI_KVM_REC_LAPIC, sizeof(struct kvm_lapic_state), KVM_GET_LAPIC, KVM_SET_LAPIC, "local APIC"},
        {CCI_KVM_REC_EVENTS, sizeof(struct kvm_vcpu_events), KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, "events"},
    };
    *count = (unsigned)CCI_COUNT(parts);
    return parts;
}

static void cci_kvm_put(struct cci_buf *out, unsigned id, const void *data, size_t n)
{
    uint8_t head[8];
    cci_put_le32(head, id);
    cci_put_le32(head + 4, (uint32_t)n);
    (void)cci_buf_add(out, head, sizeof(head));
    (void)cci_buf_add(out, data, n);
}

static void cci_kvm_put_header(struct cci_buf *out)
{
    cci_kvm_put(out, CCI_KVM_STATE_MAGIC, NULL, 4);
    if (!out->failed)
        cci_put_le32(out->p + out->n - 4, CCI_KVM_STATE_VERSION);
}

/* Finds a record; its bytes, or an empty view with p NULL. Checks the header on the way. */
static struct cci_view cci_kvm_find(struct cci_view in, unsigned id)
{
    const struct cci_view none = {NULL, 0};
    uint32_t kind, length, version;
    if (!cci_view_u32(&in, &kind) || !cci_view_u32(&in, &length) || !cci_view_u32(&in, &version) ||
        kind != CCI_KVM_STATE_MAGIC || length != 4 || version != CCI_KVM_STATE_VERSION)
        return none;
    while (cci_view_u32(&in, &kind) && cci_view_u32(&in, &length)) {
        const uint8_t *p = cci_view_take(&in, length);
        if (!p)
            return none;
        if (kind == id)
            return (struct cci_view){p, length};
    }
    return none;
}

static cc_error_code cci_kvm_bad_state(const char *name, cc_error *err)
{
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                    "the saved machine cannot be restored: its %s is missing or of another version", name);
}

static cc_error_code cci_kvm_save_part(cci_fd fd, const struct cci_kvm_part *part, struct cci_buf *out, cc_error *err)
{
    union cci_kvm_any any;
    memset(&any, 0, sizeof(any));
    cc_error_code code = cci_kvm_call(fd, part->get, &any, "save a CPU", err);
    if (code == CC_OK)
        cci_kvm_put(out, part->id, &any, part->size);
    return code;
}

static cc_error_code cci_kvm_restore_part(cci_fd fd, const struct cci_kvm_part *part, struct cci_view in, cc_error *err)
{
    struct cci_view v = cci_kvm_find(in, part->id);
    if (!v.p || v.n != part->size)
        return cci_kvm_bad_state(part->name, err);
    union cci_kvm_any any;
    memset(&any, 0, sizeof(any));
    memcpy(&any, v.p, v.n);
    cc_error_code code = cci_kvm_call(fd, part->set, &any, "restore a CPU", err);
    return code == CC_OK ? CC_OK : cci_fail_within(err, code, part->name);
}

/* Room for a kvm_msrs or kvm_msr_list with `count` entries. */
static void *cci_kvm_msr_room(size_t count)
{
    return cci_mem_zalloc(1, sizeof(struct kvm_msrs) + count * sizeof(struct kvm_msr_entry));
}

/* The numbers of all registers that KVM would save, as a kvm_msr_list; NULL when there is no memory. */
static struct kvm_msr_list *cci_kvm_msr_list(cci_fd kvm)
{
    struct kvm_msr_list *list = cci_kvm_msr_room(CCI_KVM_MAX_MSRS);
    if (!list)
        return NULL;
    list->nmsrs = CCI_KVM_MAX_MSRS;
    if (cci_os_ioctl(kvm, KVM_GET_MSR_INDEX_LIST, list) < 0)
        list->nmsrs = 0;
    return list;
}

/* The list has registers that this guest's CPU does not have: KVM stops at such a one, and it is passed over. */
static cc_error_code cci_kvm_save_msrs(struct cci_hv_vcpu *vcpu, struct cci_buf *out, cc_error *err)
{
    struct kvm_msr_list *list = cci_kvm_msr_list(vcpu->vm->kvm);
    struct kvm_msrs *msrs = list ? cci_kvm_msr_room(list->nmsrs) : NULL;
    uint8_t *pairs = msrs ? cci_mem_zalloc(list->nmsrs + 1, 16) : NULL;
    cc_error_code code = CC_OK;
    size_t n = 0;
    if (!pairs) {
        code = cci_fail_nomem(err);
        goto out;
    }
    for (unsigned next = 0; next < list->nmsrs;) {
        unsigned count = list->nmsrs - next;
        msrs->nmsrs = count;
        for (unsigned i = 0; i < count; i++)
            msrs->entries[i].index = list->indices[next + i];
        int got = cci_os_ioctl(vcpu->fd, KVM_GET_MSRS, msrs);
        if (got < 0 || (unsigned)got > count) {
            code = cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, got < 0 ? -got : 0, NULL,
                                  "KVM cannot save a CPU's model-specific registers");
            goto out;
        }
        for (unsigned i = 0; i < (unsigned)got; i++, n++) {
            cci_put_le64(pairs + n * 16, msrs->entries[i].index);
            cci_put_le64(pairs + n * 16 + 8, msrs->entries[i].data);
        }
        next += (unsigned)got + 1;
    }
    cci_kvm_put(out, CCI_KVM_REC_MSRS, pairs, n * 16);
out:
    cci_mem_free(pairs);
    cci_mem_free(msrs);
    cci_mem_free(list);
    return code;
}

static int cci_kvm_set_msr(cci_fd fd, uint32_t index, uint64_t value)
{
    uint8_t one[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] = {1}; /* a count of one, then the entry */
    cci_put_le32(one + sizeof(struct kvm_msrs), index);
    cci_put_le64(one + sizeof(struct kvm_msrs) + 8, value);
    int r = cci_os_ioctl(fd, KVM_SET_MSRS, one);
    return r < 0 ? r : r == 1 ? 0 : -EINVAL;
}

/* KVM lets some registers be read and not written; that such a one is 0 in the new CPU too is all that is needed. */
static cc_error_code cci_kvm_restore_msr(struct cci_hv_vcpu *vcpu, const uint8_t *pair, cc_error *err)
{
    int r = cci_kvm_set_msr(vcpu->fd, (uint32_t)cci_le64(pair), cci_le64(pair + 8));
    if (r == 0 || cci_le64(pair + 8) == 0)
        return CC_OK;
    return cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, -r, NULL,
                          "KVM does not accept the saved model-specific register %#llx",
                          (unsigned long long)cci_le64(pair));
}

static cc_error_code cci_kvm_restore_msrs(struct cci_hv_vcpu *vcpu, struct cci_view in, cc_error *err)
{
    struct cci_view v = cci_kvm_find(in, CCI_KVM_REC_MSRS);
    if (!v.p || v.n % 16)
        return cci_kvm_bad_state("model-specific registers", err);
    /* The counter first, its deadline last, whatever their place in the list. */
    for (unsigned pass = 0; pass < 3; pass++) {
        for (const uint8_t *p = v.p; p < v.p + v.n; p += 16) {
            uint64_t index = cci_le64(p);
            unsigned when = index == CCI_KVM_MSR_TSC ? 0 : index == CCI_KVM_MSR_TSC_DEADLINE ? 2 : 1;
            cc_error_code code = when == pass ? cci_kvm_restore_msr(vcpu, p, err) : CC_OK;
            if (code != CC_OK)
                return code;
        }
    }
    return CC_OK;
}

static cc_error_code cci_kvm_vcpu_save(struct cci_hv_vcpu *vcpu, struct cci_buf *out, cc_error *err)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    (void)cci_os_ioctl_num(vcpu->fd, KVM_RUN, 0);
    /* In this order: a kick sets the one and then the other, and one that comes now must not be lost. */
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&vcpu->kicked, __ATOMIC_SEQ_CST))
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);

    cci_kvm_put_header(out);
    unsigned count;
    const struct cci_kvm_part *parts = cci_kvm_parts(&count);
    for (unsigned i = 0; i < count; i++) {
        cc_error_code code = cci_kvm_save_part(vcpu->fd, &parts[i], out, err);
        if (code != CC_OK)
            return code;
    }
    uint8_t khz[4];
    cci_put_le32(khz, (uint32_t)CCI_MAX(cci_kvm_number(vcpu->fd, KVM_GET_TSC_KHZ, 0), 0));
    cci_kvm_put(out, CCI_KVM_REC_TSC_KHZ, khz, sizeof(khz));
    cc_error_code code = cci_kvm_save_msrs(vcpu, out, err);
    if (code == CC_OK && out->failed)
        code = cci_fail_nomem(err);
    return code;
}

/* The CPU's features (CPUID) were set when it was made, from the same options: they are not part of the blob. */
static cc_error_code cci_kvm_vcpu_restore(struct cci_hv_vcpu *vcpu, struct cci_view in, cc_error *err)
{
    struct cci_view khz = cci_kvm_find(in, CCI_KVM_REC_TSC_KHZ);
    if (khz.n != 4)
        return cci_kvm_bad_state("clock frequency", err);
    /* Scaling needs hardware help only when the frequency differs, so try only then. */
    uint32_t want = cci_le32(khz.p);
    if (want && cci_kvm_number(vcpu->fd, KVM_GET_TSC_KHZ, 0) != (int)want &&
        cci_kvm_number(vcpu->fd, KVM_SET_TSC_KHZ, want) < 0)
        return cci_fail(err, CC_ERR_HYPERVISOR_UNAVAILABLE, NULL,
                        "this host cannot run a clock of %u kHz, with which the machine was saved", want);
    unsigned count;
    const struct cci_kvm_part *parts = cci_kvm_parts(&count);
    for (unsigned i = 0; i < count; i++) {
        cc_error_code code = parts[i].id == CCI_KVM_REC_EVENTS ? cci_kvm_restore_msrs(vcpu, in, err) : CC_OK;
        if (code == CC_OK)
            code = cci_kvm_restore_part(vcpu->fd, &parts[i], in, err);
        if (code != CC_OK)
            return code;
    }
    return CC_OK;
}

static cc_error_code cci_kvm_vm_save(struct cci_hv_vm *vm, struct cci_buf *out, cc_error *err)
{
    cci_kvm_put_header(out);
    for (unsigned chip = 0; chip < 3; chip++) {
        struct kvm_irqchip irqchip;
        memset(&irqchip, 0, sizeof(irqchip));
        irqchip.chip_id = chip;
        cc_error_code code = cci_kvm_call(vm->fd, KVM_GET_IRQCHIP, &irqchip, "save an interrupt controller", err);
        if (code != CC_OK)
            return code;
        cci_kvm_put(out, CCI_KVM_REC_IRQCHIP + chip, &irqchip, sizeof(irqchip));
    }
    struct kvm_clock_data clock;
    memset(&clock, 0, sizeof(clock));
    cc_error_code code = cci_kvm_call(vm->fd, KVM_GET_CLOCK, &clock, "save the clock", err);
    if (code != CC_OK)
        return code;
    cci_kvm_put(out, CCI_KVM_REC_CLOCK, &clock, sizeof(clock));
    return out->failed ? cci_fail_nomem(err) : CC_OK;
}

static cc_error_code cci_kvm_vm_restore(struct cci_hv_vm *vm, struct cci_view in, cc_error *err)
{
    for (unsigned chip = 0; chip < 3; chip++) {
        struct cci_view v = cci_kvm_find(in, CCI_KVM_REC_IRQCHIP + chip);
        struct kvm_irqchip irqchip;
        if (!v.p || v.n != sizeof(irqchip))
            return cci_kvm_bad_state("interrupt controller", err);
        memcpy(&irqchip, v.p, sizeof(irqchip));
        cc_error_code code = cci_kvm_call(vm->fd, KVM_SET_IRQCHIP, &irqchip, "restore an interrupt controller", err);
        if (code != CC_OK)
            return code;
    }
    struct cci_view v = cci_kvm_find(in, CCI_KVM_REC_CLOCK);
    struct kvm_clock_data clock;
    if (!v.p || v.n != sizeof(clock))
        return cci_kvm_bad_state("clock", err);
    memcpy(&clock, v.p, sizeof(clock));
    clock.flags = 0; /* those of GET only inform */
    return cci_kvm_call(vm->fd, KVM_SET_CLOCK, &clock, "restore the clock", err);
}

#endif
