/*
 * image/crc32_arm.h - CRC-32 with the instructions of ARMv8, written as assembler statements for the reason given in
 * sha256_arm.h.
 */
#ifndef CCI_IMAGE_CRC32_ARM_H
#define CCI_IMAGE_CRC32_ARM_H

#include "cpu.h"
#include "crc32_portable.h"

static uint32_t cci_crc32_native(const struct cci_crc32 *c, uint32_t state, const uint8_t *p, size_t n)
{
    (void)c;
    for (; n >= 8; n -= 8, p += 8)
        __asm__(".arch_extension crc\n\tcrc32x %w0, %w0, %x1" : "+r"(state) : "r"(cci_le64(p)));
    for (; n > 0; n--, p++)
        __asm__(".arch_extension crc\n\tcrc32b %w0, %w0, %w1" : "+r"(state) : "r"((uint32_t)*p));
    return state;
}

static cci_crc32_update_fn *cci_crc32_choose(unsigned features)
{
    return features & CCI_CPU_CRC32 ? cci_crc32_native : cci_crc32_portable;
}

#endif
