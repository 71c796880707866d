/* What CPUID says on each CPU: topology, the hypervisor's leaves, and no XSAVE where it cannot be offered. */
#include "../check.h"

#include "../../src/machine/cpuid_x86.h"

static struct cci_x86_cpuid host, c;

static void add(uint32_t function, uint32_t index, bool indexed, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    host.leaf[host.count++] = (struct cci_x86_leaf){function, index, indexed, eax, ebx, ecx, edx};
}

/* The leaves of a host that has everything, all bits on. */
static void begin(bool amd, bool xsave)
{
    memset(&host, 0, sizeof(host));
    add(0, 0, false, 0x1f, amd ? 0x68747541u : 0x756e6547u, 0, 0);
    add(1, 0, false, 0x800f12, 0x12345678, ~0u, ~0u);
    add(4, 0, true, 0x1c004121, 1, 2, 3);
    add(4, 3, true, 0xfc1fc163, 1, 2, 3);
    add(4, 4, true, 0, 0, 0, 0);
    add(7, 0, true, 1, ~0u, ~0u, ~0u);
    add(0xb, 0, true, 1, 2, 0x100, 17);
    add(0xd, 0, true, 7, 832, 832, 0);
    add(0xd, 1, true, 15, 832, 0, 0);
    add(0x1f, 0, true, 1, 2, 0x100, 17);
    add(0x40000000, 0, false, 0x40000001, 1, 2, 3);
    add(0x40000001, 0, false, 0x1007efb, 0, 0, 0);
    add(0x80000001, 0, false, 0, 0, ~0u, ~0u);
    add(0x80000008, 0, false, 0x3030, 0, 0x7fff, 0);
    add(0x8000001e, 0, false, 99, 99, 99, 0);
    host.tsc_khz = 2600000;
    host.tsc_deadline = true;
    host.xsave = xsave;
}

static const struct cci_x86_leaf *leaf(uint32_t function, uint32_t index)
{
    static const struct cci_x86_leaf none = {0xffffffff, 0, 0, 0, 0, 0, 0};
    const struct cci_x86_leaf *l = cci_cpuid_find(&c, function, index);
    return l ? l : &none;
}

static void fix(unsigned index, unsigned cpus)
{
    c = host;
    cci_cpuid_fix(&c, index, cpus);
}

static void test_topology(void)
{
    begin(false, true);
    fix(2, 4);
    CHECK_EQ_INT(leaf(1, 0)->ebx >> 24, 2);
    CHECK_EQ_INT(leaf(1, 0)->ebx >> 16 & 0xff, 4);
    CHECK_EQ_INT(leaf(1, 0)->ebx & 0xffff, 0x5678);
    CHECK(leaf(1, 0)->edx >> 28 & 1);
    CHECK_EQ_INT(leaf(4, 0)->eax >> 26, 3);         /* four cores in the package */
    CHECK_EQ_INT(leaf(4, 0)->eax >> 14 & 0xfff, 0); /* the first cache is a core's own */
    CHECK_EQ_INT(leaf(4, 3)->eax >> 14 & 0xfff, 3); /* the third is everybody's */
    CHECK_EQ_INT(leaf(4, 4)->eax, 0);
    for (unsigned f = 0xb; f <= 0x1f; f += 0x14) {
        CHECK_EQ_INT(leaf(f, 0)->eax, 0);
        CHECK_EQ_INT(leaf(f, 0)->ebx, 1);
        CHECK_EQ_INT(leaf(f, 1)->eax, 2);
        CHECK_EQ_INT(leaf(f, 1)->ebx, 4);
        CHECK_EQ_INT(leaf(f, 1)->ecx, 0x201);
        CHECK_EQ_INT(leaf(f, 2)->ebx, 0);
        CHECK_EQ_INT(leaf(f, 1)->edx, 2);
    }
    fix(0, 1);
    CHECK(!(leaf(1, 0)->edx >> 28 & 1));
    CHECK_EQ_INT(leaf(4, 3)->eax >> 14, 0);
    fix(4, 5); /* five CPUs need three bits */
    CHECK_EQ_INT(leaf(0xb, 1)->eax, 3);
    CHECK_EQ_INT(leaf(0xb, 1)->ebx, 5);
}

static void test_amd(void)
{
    begin(true, true);
    fix(3, 4);
    CHECK_EQ_INT(leaf(0x80000008, 0)->ecx & 0xff, 3);
    CHECK_EQ_INT(leaf(0x80000008, 0)->ecx >> 12 & 15, 2);
    CHECK(leaf(0x80000001, 0)->ecx & 2);
    CHECK_EQ_INT(leaf(0x8000001e, 0)->eax, 3);
    CHECK_EQ_INT(leaf(0x8000001e, 0)->ebx, 3);
    CHECK_EQ_INT(leaf(0x8000001e, 0)->ecx, 0);
    fix(0, 1);
    CHECK(!(leaf(0x80000001, 0)->ecx & 2));
}

static void test_hypervisor(void)
{
    begin(true, true);
    fix(0, 1);
    CHECK_EQ_INT(leaf(0x40000000, 0)->eax, 0x40000010);
    CHECK_EQ_INT(leaf(0x40000000, 0)->ebx, 0x4b4d564b);
    CHECK_EQ_INT(leaf(0x40000001, 0)->eax, 0x1007efb);
    CHECK_EQ_INT(leaf(0x40000010, 0)->eax, 2600000);
    CHECK(leaf(1, 0)->ecx >> 31 && (leaf(1, 0)->ecx >> 24 & 1) && (leaf(1, 0)->ecx >> 21 & 1));
    host.tsc_deadline = false;
    fix(0, 1);
    CHECK(!(leaf(1, 0)->ecx >> 24 & 1));
    CHECK(leaf(1, 0)->ecx >> 26 & 1); /* XSAVE is offered, and described as the host does */
    CHECK_EQ_INT(leaf(0xd, 0)->ebx, 832);
}

static void test_no_xsave(void)
{
    begin(true, false);
    fix(0, 1);
    CHECK(!(leaf(1, 0)->ecx >> 26 & 1) && !(leaf(1, 0)->ecx >> 28 & 1) && !(leaf(1, 0)->ecx >> 12 & 1));
    CHECK(leaf(1, 0)->ecx >> 25 & 1); /* AES needs no XSAVE */
    CHECK(!cci_cpuid_find(&c, 0xd, 0) && !cci_cpuid_find(&c, 0xd, 1));
    CHECK(!(leaf(7, 0)->ebx >> 5 & 1) && !(leaf(7, 0)->ebx >> 16 & 1) && (leaf(7, 0)->ebx >> 3 & 1));
}

/* A table that is full: what does not fit is left out, and nothing is written behind it. */
static void test_full(void)
{
    begin(true, true);
    while (host.count < CCI_X86_MAX_LEAVES)
        add(0x100 + host.count, 0, false, 0, 0, 0, 0);
    fix(1, 2);
    CHECK(c.count <= CCI_X86_MAX_LEAVES);
    CHECK_EQ_INT(c.tsc_khz, 2600000);
}

int main(void)
{
    RUN(test_topology);
    RUN(test_amd);
    RUN(test_hypervisor);
    RUN(test_no_xsave);
    RUN(test_full);
    return check_done();
}
