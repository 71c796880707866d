/*
 * hv/x86.h - the x86-64 side of the hypervisor interface: what a CPU says of itself, and how it starts.
 *
 * A backend that runs x86-64 guests fills a table of CPUID leaves with what its host supports; machine/cpuid_x86.h
 * turns that into what each virtual CPU shall say, and hands it back. The first CPU starts in one of two states that
 * the boot protocols ask for; the others wait for INIT and SIPI, as real ones do.
 */
#ifndef CCI_HV_X86_H
#define CCI_HV_X86_H

#include "../base/base.h"

/* One CPUID leaf. */
struct cci_x86_leaf {
    uint32_t function; /* eax of the query */
    uint32_t index;    /* ecx of the query */
    uint32_t indexed;  /* 1: index counts; 0: the answer is the same for every ecx */
    uint32_t eax, ebx, ecx, edx;
};

#define CCI_X86_MAX_LEAVES 256u

/* A CPU's answers; about 7 KiB. */
struct cci_x86_cpuid {
    struct cci_x86_leaf leaf[CCI_X86_MAX_LEAVES];
    unsigned count;
    bool tsc_deadline; /* in: the local APIC has a timer that compares with the time-stamp counter */
    bool xsave;        /* in: XSAVE can be offered (see cci_hv_caps) */
    uint32_t tsc_khz;  /* in: the guest's time-stamp counter; 0 if unknown */
};

enum cci_x86_mode {
    CCI_X86_PROTECTED, /* 32-bit, flat segments, no paging */
    CCI_X86_LONG       /* 64-bit, flat segments, paging from cr3 */
};

/* The state in which the first CPU starts; every register that is not named is 0. Interrupts are off. */
struct cci_x86_start {
    enum cci_x86_mode mode;
    uint64_t rip;
    uint64_t rsp;
    uint64_t rbx; /* PVH: address of the start info */
    uint64_t rsi; /* Linux 64-bit boot protocol: address of the boot_params */
    uint64_t cr3; /* CCI_X86_LONG */
    uint64_t gdt; /* address of a table that the machine wrote with cci_x86_gdt */
};

/* Segment selectors of that table; PVH wants none in particular, the Linux protocol wants these two. */
#define CCI_X86_SEL_CODE 0x10u
#define CCI_X86_SEL_DATA 0x18u
#define CCI_X86_GDT_BYTES 32u

#endif
