/*
 * hv/hv.h - the hypervisor: the small interface that every backend implements as one whole file
 * (cc_impl_kvm.h, cc_impl_hvf.h, cc_impl_whp.h; hv/dummy.h has one with no CPU, for tests).
 *
 * A backend makes a virtual machine, maps memory into it, and runs virtual CPUs: cci_hv_ops.vcpu_run returns whenever
 * the guest did something that the machine has to answer (an access to a port or to unmapped memory), halted for good,
 * or was kicked out. Interrupt controllers and timers are the backend's (in the kernel on KVM). Doorbells and
 * interrupt lines are descriptors where the hypervisor can connect them directly (irqfd, ioeventfd); a backend that
 * cannot reports that, and the machine then does the same through exits and cci_hv_ops.irq_raise.
 *
 * Whoever owns a vCPU thread calls vcpu_run from that thread only; vcpu_kick may come from any thread, as long as the
 * thread that runs the vCPU has not ended (the owner sees to that with a lock of its own).
 */
#ifndef CCI_HV_HV_H
#define CCI_HV_HV_H

#include "../base/error.h"
#include "../base/os.h"
#include "mem.h"
#include "x86.h"

/* Owned by the backend; each begins with nothing in common. */
struct cci_hv_vm;
struct cci_hv_vcpu;

enum cci_hv_exit_kind {
    CCI_HV_EXIT_NONE,     /* nothing to answer: run again */
    CCI_HV_EXIT_KICKED,   /* vcpu_kick was called since the last CCI_HV_EXIT_KICKED */
    CCI_HV_EXIT_IO_IN,    /* read of a port: answer in data */
    CCI_HV_EXIT_IO_OUT,   /* write of a port */
    CCI_HV_EXIT_MMIO_IN,  /* read of memory that is no RAM: answer in data */
    CCI_HV_EXIT_MMIO_OUT, /* write of memory that is no RAM */
    CCI_HV_EXIT_SHUTDOWN, /* triple fault, or the guest switched off */
    CCI_HV_EXIT_RESET,    /* the guest asked for a reboot */
    CCI_HV_EXIT_FAIL      /* the hypervisor gave up: see why */
};

/* Why vcpu_run came back. */
struct cci_hv_exit {
    enum cci_hv_exit_kind kind;
    uint64_t addr;  /* port, or guest-physical address */
    unsigned size;  /* of one access: 1 to 8 bytes (other than 1, 2, 4 or 8 for a part of one that crosses a page) */
    unsigned count; /* port accesses of a string instruction; else 1 */
    uint8_t *data;  /* size * count bytes to be read, or to be filled before the next vcpu_run */
    char why[160];  /* of CCI_HV_EXIT_FAIL */
};

/* What a backend can do, and the limits of this host. */
struct cci_hv_caps {
    unsigned max_cpus;
    bool irqfd;       /* irqfd and ioeventfd below work */
    bool xsave;       /* x86-64: guests can be offered XSAVE and the vector registers that depend on it */
    const char *name; /* "kvm", "hvf", "whp", "dummy" */
    /* The VM that the probe ran in, kept: the first VM of a host switches the hypervisor on and the last one off again,
     * which takes longer than everything else that a start needs. NULL if there is none; free it with vm_free. */
    struct cci_hv_vm *held;
};

/* What vm_new is told. */
struct cci_hv_config {
    unsigned cpus;
    bool xsave; /* from cci_hv_caps */
};

/* The blobs that save writes and restore reads are the backend's own, with a version. A vCPU is saved and restored by
 * the thread that runs it or while that thread is parked outside vcpu_run. */
struct cci_hv_ops {
    /* Tells whether guests can run here, by running one; the error says why not and what to do. */
    cc_error_code (*probe)(struct cci_hv_caps *caps, cc_error *err);

    cc_error_code (*vm_new)(struct cci_hv_vm **out, const struct cci_hv_config *config, cc_error *err);
    void (*vm_free)(struct cci_hv_vm *vm); /* after every vCPU was freed */
    /* Gives the guest RAM; `slot` counts from 0. */
    cc_error_code (*vm_map)(struct cci_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
                            cc_error *err);
    /* One edge on an interrupt line; from any thread. */
    void (*irq_raise)(struct cci_hv_vm *vm, unsigned gsi);
    /* Each signal of the eventfd is one edge on the line. */
    cc_error_code (*irqfd)(struct cci_hv_vm *vm, unsigned gsi, cci_fd fd, cc_error *err);
    /* A 4-byte guest write of `value` at gpa signals the eventfd instead of leaving vcpu_run. */
    cc_error_code (*ioeventfd)(struct cci_hv_vm *vm, uint64_t gpa, uint32_t value, cci_fd fd, cc_error *err);
    /* Interrupt controllers and clock: everything of the machine that is not a vCPU's. */
    cc_error_code (*vm_save)(struct cci_hv_vm *vm, struct cci_buf *out, cc_error *err);
    cc_error_code (*vm_restore)(struct cci_hv_vm *vm, struct cci_view in, cc_error *err);
    /* Every vCPU is parked outside vcpu_run: the guest's clocks stand still from clock_stop to clock_start, as far as
     * the hypervisor can do that; then vcpu_clock_start, for each vCPU. `first` is CPU 0. */
    void (*clock_stop)(struct cci_hv_vm *vm, struct cci_hv_vcpu *first);
    void (*clock_start)(struct cci_hv_vm *vm, struct cci_hv_vcpu *first);
    void (*vcpu_clock_start)(struct cci_hv_vcpu *vcpu);

    /* The vCPU's local APIC has the number `index`; 0 is the one that boots. */
    cc_error_code (*vcpu_new)(struct cci_hv_vm *vm, unsigned index, struct cci_hv_vcpu **out, cc_error *err);
    void (*vcpu_free)(struct cci_hv_vcpu *vcpu);
    /* Runs until something needs the machine; on the vCPU's own thread. */
    void (*vcpu_run)(struct cci_hv_vcpu *vcpu, struct cci_hv_exit *exit);
    /* Makes the vCPU's current or next vcpu_run return CCI_HV_EXIT_KICKED soon; from any thread. */
    void (*vcpu_kick)(struct cci_hv_vcpu *vcpu);
    cc_error_code (*vcpu_save)(struct cci_hv_vcpu *vcpu, struct cci_buf *out, cc_error *err);
    cc_error_code (*vcpu_restore)(struct cci_hv_vcpu *vcpu, struct cci_view in, cc_error *err);

    /* x86-64 only, before the first vcpu_run: what the host supports; what this CPU shall say; where CPU 0 starts. */
    cc_error_code (*x86_cpuid)(struct cci_hv_vcpu *vcpu, struct cci_x86_cpuid *out, cc_error *err);
    cc_error_code (*x86_set_cpuid)(struct cci_hv_vcpu *vcpu, const struct cci_x86_cpuid *cpuid, cc_error *err);
    cc_error_code (*x86_start)(struct cci_hv_vcpu *vcpu, const struct cci_x86_start *start, cc_error *err);
};

#endif
