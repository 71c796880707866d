/*
 * machine/cpuid_x86.h - what the CPUID instruction says on each virtual CPU.
 *
 * The host's features come from the hypervisor (struct cci_x86_cpuid); here they are made true of this guest's CPU:
 * its number, how many there are, that they are one core each in one package, and at what frequency its clock runs. The
 * leaves are those of Intel's SDM (volume 2A, CPUID) and AMD's APM (volume 3, appendix E); the hypervisor leaves are
 * KVM's (Documentation/virt/kvm/x86/cpuid.rst) with the timing leaf 0x40000010 that VMware defined.
 */
#ifndef CCI_MACHINE_CPUID_X86_H
#define CCI_MACHINE_CPUID_X86_H

#include "../hv/x86.h"

#define CCI_CPUID_HV 0x40000000u
#define CCI_CPUID_HV_TIMING 0x40000010u

static struct cci_x86_leaf *cci_cpuid_find(struct cci_x86_cpuid *c, uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->leaf[i].function == function && (!c->leaf[i].indexed || c->leaf[i].index == index))
            return &c->leaf[i];
    return NULL;
}

/* The leaf, made if it is not there; NULL when the table is full. */
static struct cci_x86_leaf *cci_cpuid_make(struct cci_x86_cpuid *c, uint32_t function, uint32_t index, bool indexed)
{
    struct cci_x86_leaf *l = cci_cpuid_find(c, function, index);
    if (l || c->count == CCI_X86_MAX_LEAVES)
        return l;
    l = &c->leaf[c->count++];
    memset(l, 0, sizeof(*l));
    l->function = function;
    l->index = index;
    l->indexed = indexed;
    return l;
}

/* Removes every index of a leaf. */
static void cci_cpuid_drop(struct cci_x86_cpuid *c, uint32_t function)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < c->count; i++)
        if (c->leaf[i].function != function)
            c->leaf[kept++] = c->leaf[i];
    c->count = kept;
}

/* Bits needed to number n things. */
static unsigned cci_cpuid_bits(unsigned n)
{
    unsigned bits = 0;
    while (1u << bits < n)
        bits++;
    return bits;
}

/* Extended topology (leaves 0xb and 0x1f): level 0 has one thread to a core, level 1 all cores. */
static void cci_cpuid_topology(struct cci_x86_cpuid *c, uint32_t function, unsigned index, unsigned cpus)
{
    const uint32_t level[3][3] = {{0, 1, 0x100}, {cci_cpuid_bits(cpus), cpus, 0x201}, {0, 0, 2}};
    cci_cpuid_drop(c, function);
    for (unsigned i = 0; i < 3; i++) {
        struct cci_x86_leaf *l = cci_cpuid_make(c, function, i, true);
        if (!l)
            return;
        l->eax = level[i][0];
        l->ebx = level[i][1];
        l->ecx = level[i][2];
        l->edx = index;
    }
}

/* Who shares caches: bits 14 to 25 of eax, in Intel's leaf 4 and AMD's 0x8000001d; 31 to 26 are Intel's cores. */
static void cci_cpuid_caches(struct cci_x86_cpuid *c, unsigned cpus)
{
    for (unsigned i = 0; i < c->count; i++) {
        struct cci_x86_leaf *l = &c->leaf[i];
        if (l->function != 4 && l->function != 0x8000001d)
            continue;
        unsigned level = l->eax >> 5 & 7;
        uint32_t sharing = level >= 3 ? (1u << cci_cpuid_bits(cpus)) - 1 : 0; /* the outer cache is everybody's */
        if ((l->eax & 0x1f) == 0)
            continue;
        l->eax = (l->eax & 0x3fffu) | (sharing & 0xfff) << 14;
        if (l->function == 4)
            l->eax |= (CCI_MIN((1u << cci_cpuid_bits(cpus)) - 1, 63u)) << 26;
    }
}

static void cci_cpuid_basic(struct cci_x86_cpuid *c, unsigned index, unsigned cpus)
{
    struct cci_x86_leaf *l = cci_cpuid_find(c, 1, 0);
    if (l) {
        l->ebx = (l->ebx & 0xffffu) | (cpus & 0xff) << 16 | index << 24;
        l->ecx |= 1u << 31 | 1u << 21; /* a hypervisor is present; the local APIC has an x2APIC mode */
        l->ecx = c->tsc_deadline ? l->ecx | 1u << 24 : l->ecx & ~(1u << 24);
        l->edx = cpus > 1 ? l->edx | 1u << 28 : l->edx & ~(1u << 28); /* ebx has the number of CPUs */
    }
}

/* AMD's forms of the same: 0x80000001, 0x80000008, 0x8000001e. */
static void cci_cpuid_amd(struct cci_x86_cpuid *c, unsigned index, unsigned cpus)
{
    const struct cci_x86_leaf *vendor = cci_cpuid_find(c, 0, 0);
    bool is_amd = vendor && (vendor->ebx == 0x68747541u /* "Auth" */ || vendor->ebx == 0x6f677948u /* "Hygo" */);
    struct cci_x86_leaf *l = cci_cpuid_find(c, 0x80000001u, 0);
    if (l && is_amd)
        l->ecx = cpus > 1 ? l->ecx | 2 : l->ecx & ~2u; /* its CPUs are cores, not threads */
    l = cci_cpuid_find(c, 0x80000008u, 0);
    if (l && is_amd)
        l->ecx = (l->ecx & ~0xf0ffu) | cci_cpuid_bits(cpus) << 12 | ((cpus - 1) & 0xff);
    l = cci_cpuid_find(c, 0x8000001eu, 0);
    if (l) {
        l->eax = index;
        l->ebx = index & 0xff; /* one thread to a core */
        l->ecx = 0;            /* one node */
    }
}

/* Where XSAVE cannot be offered, the vector extensions whose registers it would save go too. */
static void cci_cpuid_xsave(struct cci_x86_cpuid *c)
{
    if (c->xsave)
        return;
    cci_cpuid_drop(c, 0xd);
    struct cci_x86_leaf *l = cci_cpuid_find(c, 1, 0);
    if (l)
        l->ecx &= ~(1u << 26 | 1u << 27 | 1u << 12 | 1u << 28 | 1u << 29); /* XSAVE, OSXSAVE, FMA, AVX, F16C */
    l = cci_cpuid_find(c, 7, 0);
    if (l) {
        l->eax = 0;                                         /* no further part of this leaf */
        l->ebx &= ~(1u << 5 | 1u << 14 | 0xdc230000u);      /* AVX2, MPX, the AVX-512 family */
        l->ecx &= ~(1u << 1 | 1u << 3 | 1u << 4 | 0x5e40u); /* more of it, and protection keys */
        l->edx &= ~(3u << 2 | 1u << 8 | 0x3c00000u);        /* more of it, and AMX */
    }
    l = cci_cpuid_find(c, 0x80000001u, 0);
    if (l)
        l->ecx &= ~(1u << 11 | 1u << 15 | 1u << 16); /* XOP, LWP, FMA4 */
}

static void cci_cpuid_hypervisor(struct cci_x86_cpuid *c)
{
    struct cci_x86_leaf *l = cci_cpuid_make(c, CCI_CPUID_HV, 0, false);
    if (l) {
        l->eax = CCI_CPUID_HV_TIMING;
        l->ebx = 0x4b4d564b; /* "KVMKVMKVM\0\0\0" */
        l->ecx = 0x564b4d56;
        l->edx = 0x4d;
    }
    l = c->tsc_khz ? cci_cpuid_make(c, CCI_CPUID_HV_TIMING, 0, false) : NULL;
    if (l) {
        l->eax = c->tsc_khz;
        l->ebx = 1000000; /* the local APIC's bus, kHz: KVM's is 1 GHz */
    }
}

/* Turns the host's table into that of CPU `index` of `cpus`. */
static void cci_cpuid_fix(struct cci_x86_cpuid *c, unsigned index, unsigned cpus)
{
    cci_cpuid_basic(c, index, cpus);
    cci_cpuid_caches(c, cpus);
    cci_cpuid_topology(c, 0xb, index, cpus);
    if (cci_cpuid_find(c, 0x1f, 0))
        cci_cpuid_topology(c, 0x1f, index, cpus);
    cci_cpuid_amd(c, index, cpus);
    cci_cpuid_xsave(c);
    cci_cpuid_hypervisor(c);
}

#endif
