/*
 * hv/kvm_probe_x86.h - can this KVM run a stock guest? Finds out by running one, a very small one.
 *
 * Some machines have a /dev/kvm that cannot run 64-bit kernels (paravirtual ones that run the guest's kernel in user
 * mode, for example): they create VMs and even run simple code, and then a real kernel hangs in its first steps. So
 * the probe does in 64-bit ring 0 what a kernel does first: it loads its own interrupt table, reloads CR3 with its own
 * page tables, and takes a breakpoint through its own handler. It says so on a port. A real KVM needs well under a
 * millisecond; a guest that has not answered after two seconds is kicked out and counts as one that cannot run.
 *
 * It also looks whether an XCR0 that the guest sets (which vector registers XSAVE handles) outlives an exit. Under
 * QEMU's emulation of nested AMD virtualisation it does not, because KVM never learns of it; guests must then not be
 * offered XSAVE, or they would lose register contents.
 */
#ifndef CCI_HV_KVM_PROBE_X86_H
#define CCI_HV_KVM_PROBE_X86_H

#include "../base/cancel.h"
#include "kvm_run.h"

#define CCI_KVM_PROBE_NS 2000000000u
#define CCI_KVM_PROBE_RAM 0x10000u
#define CCI_KVM_PROBE_PORT 0xf4u
#define CCI_KVM_PROBE_ANSWER 0x5au   /* all is well */
#define CCI_KVM_PROBE_NO_XSAVE 0x5bu /* all is well but XCR0 */

/* Where things lie in the probe's memory. */
enum {
    CCI_KVM_PROBE_PML4 = 0x1000,
    CCI_KVM_PROBE_PDPT = 0x2000,
    CCI_KVM_PROBE_PD = 0x3000,
    CCI_KVM_PROBE_GDT = 0x4000,
    CCI_KVM_PROBE_IDT = 0x5000,
    CCI_KVM_PROBE_CODE = 0x6000,
    CCI_KVM_PROBE_STACK = 0x8000
};

struct cci_kvm_probe {
    struct cci_hv_vcpu *vcpu;
    struct cci_monitor monitor;
    bool done;               /* the thread has left vcpu_run for good; under the monitor */
    struct cci_hv_exit exit; /* how */
};

/* Fills the guest's memory: page tables that map the first 2 MiB to themselves, a segment table, an interrupt table
 * with the breakpoint, and the code. */
static void cci_kvm_probe_fill(uint8_t *ram)
{
    static const uint8_t code[] = {
        0x0f,
        0x01,
        0x1c,
        0x25,
        0x00,
        0x50,
        0x00,
        0x00, /* lidt [0x5000] */
        0x0f,
        0x20,
        0xd8, /* mov rax, cr3 */
        0x0f,
        0x22,
        0xd8, /* mov cr3, rax */
        0x45,
        0x31,
        0xc0, /* xor r8d, r8d */
        0xcc, /* int3: the handler sets r8b */
        0xb8,
        1,
        0,
        0,
        0,
        0x0f,
        0xa2, /* mov eax, 1; cpuid */
        0x0f,
        0xba,
        0xe1,
        26,
        0x73,
        36, /* bt ecx, XSAVE; jnc done */
        0x0f,
        0x20,
        0xe0,
        0x0d,
        0,
        0,
        4,
        0, /* mov rax, cr4; or eax, OSXSAVE */
        0x0f,
        0x22,
        0xe0,
        0x31,
        0xc9,
        0x31,
        0xd2, /* mov cr4, rax; xor ecx, ecx; xor edx, edx */
        0xb8,
        3,
        0,
        0,
        0,
        0x0f,
        0x01,
        0xd1, /* mov eax, 3; xsetbv */
        0x0f,
        0xa2,
        0x31,
        0xc9,
        0x0f,
        0x01,
        0xd0, /* cpuid (an exit); xor ecx, ecx; xgetbv */
        0x3c,
        3,
        0x74,
        3, /* cmp al, 3; je done */
        0x41,
        0xb0,
        CCI_KVM_PROBE_NO_XSAVE, /* mov r8b, no xsave */
        0x44,
        0x88,
        0xc0, /* done: mov al, r8b */
        0xe6,
        CCI_KVM_PROBE_PORT, /* out port, al */
        0xf4,               /* hlt */
        0x41,
        0xb0,
        CCI_KVM_PROBE_ANSWER, /* handler: mov r8b, answer */
        0x48,
        0xcf /* iretq */
    };
    const uint32_t handler = CCI_KVM_PROBE_CODE + sizeof(code) - 5;
    cci_put_le64(ram + CCI_KVM_PROBE_PML4, CCI_KVM_PROBE_PDPT | 3);
    cci_put_le64(ram + CCI_KVM_PROBE_PDPT, CCI_KVM_PROBE_PD | 3);
    cci_put_le64(ram + CCI_KVM_PROBE_PD, 0x83); /* present, writable, 2 MiB */
    cci_put_le64(ram + CCI_KVM_PROBE_GDT + CCI_X86_SEL_CODE, 0x00af9b000000ffffu);
    cci_put_le64(ram + CCI_KVM_PROBE_GDT + CCI_X86_SEL_DATA, 0x00cf93000000ffffu);
    /* The operand of lidt, then behind it the table: limit, base; entry 3 is an interrupt gate. */
    const uint32_t table = CCI_KVM_PROBE_IDT + 16;
    cci_put_le16(ram + CCI_KVM_PROBE_IDT, 4 * 16 - 1);
    cci_put_le64(ram + CCI_KVM_PROBE_IDT + 2, table);
    cci_put_le16(ram + table + 48, (uint16_t)handler);
    cci_put_le16(ram + table + 50, CCI_X86_SEL_CODE);
    ram[table + 53] = 0x8e;
    cci_put_le16(ram + table + 54, (uint16_t)(handler >> 16));
    memcpy(ram + CCI_KVM_PROBE_CODE, code, sizeof(code));
}

static void cci_kvm_probe_thread(void *ctx)
{
    struct cci_kvm_probe *p = ctx;
    struct cci_hv_exit exit;
    do
        cci_kvm_vcpu_run(p->vcpu, &exit);
    while (exit.kind == CCI_HV_EXIT_NONE);
    cci_mutex_lock(&p->monitor.mutex);
    p->exit = exit;
    p->done = true;
    cci_cond_wake(&p->monitor.cond);
    cci_mutex_unlock(&p->monitor.mutex);
}

/* Runs the vCPU on a thread of its own until it answers or the time is up; false if there is no thread. */
static bool cci_kvm_probe_run(struct cci_kvm_probe *p)
{
    struct cci_thread thread;
    if (cci_thread_new(&thread, "cc-probe", cci_kvm_probe_thread, p) != 0)
        return false;
    uint64_t deadline = cci_os_now() + CCI_KVM_PROBE_NS;
    cci_monitor_lock(&p->monitor);
    while (!p->done && cci_cond_wait(&p->monitor.cond, &p->monitor.mutex, deadline))
        continue;
    if (!p->done)
        cci_kvm_vcpu_kick(p->vcpu); /* the thread still needs this lock to end, so it is there to be kicked */
    cci_monitor_unlock(&p->monitor);
    cci_thread_join(&thread);
    return true;
}

static cc_error_code cci_kvm_probe_judge(const struct cci_hv_exit *exit, struct cci_hv_caps *caps, cc_error *err)
{
    bool answered = exit->kind == CCI_HV_EXIT_IO_OUT && exit->addr == CCI_KVM_PROBE_PORT && exit->size == 1;
    unsigned answer = answered ? exit->data[0] : 0;
    caps->xsave = answer == CCI_KVM_PROBE_ANSWER;
    if (answer == CCI_KVM_PROBE_ANSWER || answer == CCI_KVM_PROBE_NO_XSAVE)
        return CC_OK;
    const char *how = exit->kind == CCI_HV_EXIT_KICKED     ? "it hung"
                      : exit->kind == CCI_HV_EXIT_SHUTDOWN ? "it crashed"
                      : exit->kind == CCI_HV_EXIT_FAIL     ? exit->why
                                                           : "it went astray";
    return cci_fail(err, CC_ERR_HYPERVISOR_UNAVAILABLE, "/dev/kvm",
                    "/dev/kvm is there but cannot run a stock 64-bit guest (a small one was tried: %s): this is not "
                    "hardware virtualisation. Use a bare-metal machine, or a virtual one with nested virtualisation",
                    how);
}

static cc_error_code cci_kvm_probe_guest(struct cci_hv_vm *vm, uint8_t *ram, struct cci_hv_caps *caps, cc_error *err)
{
    struct cci_kvm_probe p;
    memset(&p, 0, sizeof(p));
    cci_kvm_probe_fill(ram);
    cc_error_code code = cci_kvm_vm_map(vm, 0, 0, ram, CCI_KVM_PROBE_RAM, err);
    if (code == CC_OK)
        code = cci_kvm_vcpu_new(vm, 0, &p.vcpu, err);
    if (code != CC_OK)
        return code;
    /* The host's features as they are: 64-bit mode has to be among them before EFER may say so. */
    struct cci_x86_cpuid *cpuid = cci_mem_zalloc(1, sizeof(*cpuid));
    code = cpuid ? cci_kvm_x86_cpuid(p.vcpu, cpuid, err) : cci_fail_nomem(err);
    if (code == CC_OK)
        code = cci_kvm_x86_set_cpuid(p.vcpu, cpuid, err);
    cci_mem_free(cpuid);
    const struct cci_x86_start start = {CCI_X86_LONG,       CCI_KVM_PROBE_CODE, CCI_KVM_PROBE_STACK, 0, 0,
                                        CCI_KVM_PROBE_PML4, CCI_KVM_PROBE_GDT};
    if (code == CC_OK)
        code = cci_kvm_x86_start(p.vcpu, &start, err);
    if (code == CC_OK) {
        cci_monitor_init(&p.monitor);
        if (cci_kvm_probe_run(&p))
            code = cci_kvm_probe_judge(&p.exit, caps, err);
        else
            code = cci_fail_nomem(err);
        cci_monitor_destroy(&p.monitor);
    }
    cci_kvm_vcpu_free(p.vcpu);
    return code;
}

static cc_error_code cci_kvm_probe(struct cci_hv_caps *caps, cc_error *err)
{
    memset(caps, 0, sizeof(*caps));
    caps->name = "kvm";
    caps->irqfd = true;
    const struct cci_hv_config config = {1, true};
    struct cci_hv_vm *vm;
    cc_error_code code = cci_kvm_vm_new(&vm, &config, err);
    if (code != CC_OK)
        return code;
    int max = cci_kvm_has(vm->kvm, KVM_CAP_MAX_VCPUS);
    caps->max_cpus = max < 1 ? 4 : (unsigned)CCI_MIN(max, 254); /* xAPIC numbers; 255 is everybody */
    uint8_t *ram = cci_os_ram_map(CCI_KVM_PROBE_RAM);
    code = ram ? cci_kvm_probe_guest(vm, ram, caps, err) : cci_fail_nomem(err);
    if (code == CC_OK)
        code = cci_kvm_vm_map(vm, 0, 0, ram, 0, err); /* size 0 takes the memory away */
    cci_os_ram_unmap(ram, CCI_KVM_PROBE_RAM);
    if (code == CC_OK)
        caps->held = vm;
    else
        cci_kvm_vm_free(vm);
    return code;
}

#endif
