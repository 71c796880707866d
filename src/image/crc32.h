/*
 * image/crc32.h - the CRC-32 of gzip (RFC 1952, section 8).
 *
 * The polynomial is 0xedb88320 in reflected form. The portable version takes eight bytes per step through eight
 * tables (entry t[k][b] is the remainder of byte b followed by k zero bytes), which are computed at init: 8 KiB in
 * the struct instead of 2048 numbers in the source. crc32_x86.h and crc32_arm.h have the faster ones.
 */
#ifndef CCI_IMAGE_CRC32_H
#define CCI_IMAGE_CRC32_H

#include "cpu.h"
#include "crc32_portable.h"

#if defined(CCI_CPU_X86)
#include "crc32_x86.h"
#elif defined(CCI_CPU_ARM64)
#include "crc32_arm.h"
#else
static cci_crc32_update_fn *cci_crc32_choose(unsigned features)
{
    (void)features;
    return cci_crc32_portable;
}
#endif

static void cci_crc32_init(struct cci_crc32 *c)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t r = i;
        for (unsigned bit = 0; bit < 8; bit++)
            r = r >> 1 ^ (r & 1 ? 0xedb88320 : 0);
        c->table[0][i] = r;
    }
    for (unsigned k = 1; k < 8; k++)
        for (uint32_t i = 0; i < 256; i++)
            c->table[k][i] = c->table[k - 1][i] >> 8 ^ c->table[0][c->table[k - 1][i] & 255];
    c->state = UINT32_MAX;
    c->update = cci_crc32_choose(cci_cpu_features());
}

/* Begin another checksum with a struct that had init. */
static void cci_crc32_restart(struct cci_crc32 *c)
{
    c->state = UINT32_MAX;
}

static void cci_crc32_update(struct cci_crc32 *c, const uint8_t *p, size_t n)
{
    c->state = c->update(c, c->state, p, n);
}

/* The checksum of everything so far. */
static uint32_t cci_crc32_value(const struct cci_crc32 *c)
{
    return ~c->state;
}

#endif
