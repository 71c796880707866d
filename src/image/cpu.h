/*
 * image/cpu.h - which instructions beyond the architecture's base this processor has.
 *
 * Hashing, checksums and decompression have a portable version and faster ones, compiled for their instructions
 * with function attributes (never with the whole program's flags) and chosen here at run time.
 */
#ifndef CCI_IMAGE_CPU_H
#define CCI_IMAGE_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define CCI_CPU_SHA256 1u     /* SHA-256 rounds */
#define CCI_CPU_CLMUL 2u      /* carry-less multiplication */
#define CCI_CPU_CRC32 4u      /* CRC-32 with the polynomial of gzip */
#define CCI_CPU_WIDE_CLMUL 8u /* carry-less multiplication, two at a time in 256-bit registers */

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define CCI_CPU_X86 1
#include <cpuid.h>

#if defined(_WIN32)
/* GCC does not align such variables on Windows' stack (its bug 54412). */
static bool cci_cpu_ymm_usable(void)
{
    return false;
}
#else
/* Whether the system saves 256-bit registers, given that it uses XSAVE at all. */
static bool cci_cpu_ymm_usable(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}
#endif

static unsigned cci_cpu_features(void)
{
    unsigned a, b, c, d, features = 0;
    unsigned base = 0; /* ECX of leaf 1: the vector instructions that the fast versions also need */
    if (__get_cpuid(1, &a, &b, &c, &d))
        base = c;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        b = 0;
        c = 0;
    }
    const unsigned ssse3 = 1u << 9, sse41 = 1u << 19, clmul = 1u << 1, osxsave = 1u << 27;
    if ((base & ssse3) && (base & sse41) && (b & 1u << 29))
        features |= CCI_CPU_SHA256;
    if ((base & sse41) && (base & clmul))
        features |= CCI_CPU_CLMUL;
    if ((features & CCI_CPU_CLMUL) && (base & osxsave) && (b & 1u << 5) && (c & 1u << 10) && cci_cpu_ymm_usable())
        features |= CCI_CPU_WIDE_CLMUL;
    return features;
}

#elif defined(__aarch64__) && defined(__linux__)
#define CCI_CPU_ARM64 1

/* From the C library; declared here because its header is not ISO C. */
extern unsigned long getauxval(unsigned long type);

static unsigned cci_cpu_features(void)
{
    const unsigned long hwcap = getauxval(16); /* AT_HWCAP */
    unsigned features = 0;
    if (hwcap & 1ul << 6) /* HWCAP_SHA2 */
        features |= CCI_CPU_SHA256;
    if (hwcap & 1ul << 7) /* HWCAP_CRC32 */
        features |= CCI_CPU_CRC32;
    return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)
#define CCI_CPU_ARM64 1

static unsigned cci_cpu_features(void)
{
    return CCI_CPU_SHA256 | CCI_CPU_CRC32; /* every Mac with this architecture has them */
}

#else

static unsigned cci_cpu_features(void)
{
    return 0;
}

#endif

#endif
