/*
 * hv/kvm_cpu_x86.h - x86-64 on KVM: what a new VM needs, what the host's CPUs can do, and the state a CPU starts in.
 *
 * The interrupt controllers (PIC, IOAPIC, a local APIC per CPU) are the kernel's; the PIC is there because it comes
 * with the others, and a guest with our ACPI tables does not use it. There is no interval timer (PIT): guests of KVM
 * take the frequency of the time-stamp counter from the kvm-clock page and need nothing to calibrate against.
 */
#ifndef CCI_HV_KVM_CPU_X86_H
#define CCI_HV_KVM_CPU_X86_H

#include "kvm_state_x86.h"

/* Guest-physical pages that some Intel CPUs need for real mode; just below the BIOS area, where no RAM is. */
#define CCI_KVM_IDENTITY_MAP 0xfffbc000u
#define CCI_KVM_TSS 0xfffbd000u

static cc_error_code cci_kvm_arch_vm(struct cci_hv_vm *vm, cc_error *err)
{
    uint64_t identity = CCI_KVM_IDENTITY_MAP;
    cc_error_code code = cci_kvm_call(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity, "place its identity map", err);
    if (code != CC_OK)
        return code;
    int r = cci_kvm_number(vm->fd, KVM_SET_TSS_ADDR, CCI_KVM_TSS);
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_HYPERVISOR_UNAVAILABLE, -r, NULL, "KVM cannot place its task segment: %s",
                              cci_errno_text(-r));
    return cci_kvm_call(vm->fd, KVM_CREATE_IRQCHIP, NULL, "create interrupt controllers", err);
}

/* Room for KVM's form of the table with as many entries as it can have. */
static struct kvm_cpuid2 *cci_kvm_cpuid_room(void)
{
    return cci_mem_zalloc(1, sizeof(struct kvm_cpuid2) + CCI_X86_MAX_LEAVES * sizeof(struct kvm_cpuid_entry2));
}

static cc_error_code cci_kvm_x86_cpuid(struct cci_hv_vcpu *vcpu, struct cci_x86_cpuid *out, cc_error *err)
{
    struct kvm_cpuid2 *raw = cci_kvm_cpuid_room();
    if (!raw)
        return cci_fail_nomem(err);
    raw->nent = CCI_X86_MAX_LEAVES;
    cc_error_code code = cci_kvm_call(vcpu->vm->kvm, KVM_GET_SUPPORTED_CPUID, raw, "tell what this CPU supports", err);
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; code == CC_OK && i < raw->nent && i < CCI_X86_MAX_LEAVES; i++) {
        const struct kvm_cpuid_entry2 *e = &raw->entries[i];
        struct cci_x86_leaf *leaf = &out->leaf[out->count++];
        leaf->function = e->function;
        leaf->index = e->index;
        leaf->indexed = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        leaf->eax = e->eax;
        leaf->ebx = e->ebx;
        leaf->ecx = e->ecx;
        leaf->edx = e->edx;
    }
    cci_mem_free(raw);
    out->tsc_deadline = cci_kvm_has(vcpu->vm->kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    out->tsc_khz = (uint32_t)CCI_MAX(cci_kvm_number(vcpu->fd, KVM_GET_TSC_KHZ, 0), 0);
    out->xsave = vcpu->vm->xsave;
    return code;
}

/* What firmware leaves behind: memory is write-back unless said otherwise (Linux switches PAT off where the MTRRs are
 * disabled), and string instructions are fast (Linux on Intel avoids them else). A host whose CPU lacks one of these
 * registers refuses to set it, and its guests do not look at it. */
static void cci_kvm_firmware_msrs(struct cci_hv_vcpu *vcpu)
{
    (void)cci_kvm_set_msr(vcpu->fd, 0x2ff /* MTRRdefType */, 0x806 /* enabled, write-back */);
    (void)cci_kvm_set_msr(vcpu->fd, 0x1a0 /* IA32_MISC_ENABLE */, 1 /* fast strings */);
}

static cc_error_code cci_kvm_x86_set_cpuid(struct cci_hv_vcpu *vcpu, const struct cci_x86_cpuid *cpuid, cc_error *err)
{
    struct kvm_cpuid2 *raw = cci_kvm_cpuid_room();
    if (!raw)
        return cci_fail_nomem(err);
    raw->nent = cpuid->count;
    for (unsigned i = 0; i < cpuid->count; i++) {
        const struct cci_x86_leaf *leaf = &cpuid->leaf[i];
        struct kvm_cpuid_entry2 *e = &raw->entries[i];
        e->function = leaf->function;
        e->index = leaf->index;
        e->flags = leaf->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
        e->eax = leaf->eax;
        e->ebx = leaf->ebx;
        e->ecx = leaf->ecx;
        e->edx = leaf->edx;
    }
    cc_error_code code = cci_kvm_call(vcpu->fd, KVM_SET_CPUID2, raw, "set the CPU's features", err);
    cci_mem_free(raw);
    if (code == CC_OK)
        cci_kvm_firmware_msrs(vcpu);
    return code;
}

static void cci_kvm_segment(struct kvm_segment *s, bool is_code, bool is_long)
{
    memset(s, 0, sizeof(*s));
    s->selector = is_code ? CCI_X86_SEL_CODE : CCI_X86_SEL_DATA;
    s->limit = 0xffffffff;
    s->type = is_code ? 11 : 3; /* execute/read or read/write, accessed */
    s->present = 1;
    s->s = 1;
    s->l = is_long;
    s->db = !is_long;
    s->g = 1;
}

static cc_error_code cci_kvm_x86_start(struct cci_hv_vcpu *vcpu, const struct cci_x86_start *start, cc_error *err)
{
    struct kvm_sregs sregs;
    memset(&sregs, 0, sizeof(sregs));
    cc_error_code code = cci_kvm_call(vcpu->fd, KVM_GET_SREGS, &sregs, "read a CPU's registers", err);
    if (code != CC_OK)
        return code;
    bool is_long = start->mode == CCI_X86_LONG;
    cci_kvm_segment(&sregs.cs, true, is_long);
    cci_kvm_segment(&sregs.ds, false, false);
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    memset(&sregs.tr, 0, sizeof(sregs.tr));
    sregs.tr.limit = 0x67;
    sregs.tr.type = 11; /* a busy TSS, which entering the guest insists on */
    sregs.tr.present = 1;
    sregs.gdt.base = start->gdt;
    sregs.gdt.limit = CCI_X86_GDT_BYTES - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = 0x11; /* PE, ET */
    sregs.cr3 = sregs.cr4 = sregs.efer = 0;
    if (is_long) {
        sregs.cr0 |= 0x80000000u; /* PG */
        sregs.cr3 = start->cr3;
        sregs.cr4 = 0x20;   /* PAE */
        sregs.efer = 0x500; /* LME, LMA */
    }
    code = cci_kvm_call(vcpu->fd, KVM_SET_SREGS, &sregs, "set a CPU's registers", err);
    if (code != CC_OK)
        return code;
    struct kvm_regs regs;
    memset(&regs, 0, sizeof(regs));
    regs.rip = start->rip;
    regs.rsp = start->rsp;
    regs.rbx = start->rbx;
    regs.rsi = start->rsi;
    regs.rflags = 2; /* the bit that is always set */
    return cci_kvm_call(vcpu->fd, KVM_SET_REGS, &regs, "set a CPU's registers", err);
}

#endif
