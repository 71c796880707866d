/*
 * image/crc32_portable.h - the state of a CRC-32 and its update in plain C, eight bytes at a time.
 */
#ifndef CCI_IMAGE_CRC32_PORTABLE_H
#define CCI_IMAGE_CRC32_PORTABLE_H

#include "../base/bytes.h"

#include <stddef.h>

struct cci_crc32;

/* Advances a state over n bytes. */
typedef uint32_t cci_crc32_update_fn(const struct cci_crc32 *c, uint32_t state, const uint8_t *p, size_t n);

struct cci_crc32 {
    uint32_t state;              /* complement of the checksum */
    cci_crc32_update_fn *update; /* the version for this processor */
    uint32_t table[8][256];      /* remainders of a byte followed by 0..7 zero bytes */
};

static uint32_t cci_crc32_portable(const struct cci_crc32 *c, uint32_t state, const uint8_t *p, size_t n)
{
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t a = state ^ cci_le32(p), b = cci_le32(p + 4);
        state = c->table[7][a & 255] ^ c->table[6][a >> 8 & 255] ^ c->table[5][a >> 16 & 255] ^ c->table[4][a >> 24] ^
                c->table[3][b & 255] ^ c->table[2][b >> 8 & 255] ^ c->table[1][b >> 16 & 255] ^ c->table[0][b >> 24];
    }
    for (; n > 0; n--, p++)
        state = state >> 8 ^ c->table[0][(state ^ *p) & 255];
    return state;
}

#endif
