/*
 * image/siphash.h - SipHash-1-3 (Aumasson, Bernstein: one round a word, three at the end), for hash tables.
 *
 * What is hashed comes from an image; the key is random, so that nobody can make names whose hashes are alike.
 */
#ifndef CCI_IMAGE_SIPHASH_H
#define CCI_IMAGE_SIPHASH_H

#include "../base/bytes.h"

static uint64_t cci_siphash_rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static void cci_siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = cci_siphash_rotl(v[1], 13) ^ v[0];
    v[3] = cci_siphash_rotl(v[3], 16) ^ v[2];
    v[0] = cci_siphash_rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = cci_siphash_rotl(v[1], 17) ^ v[2];
    v[3] = cci_siphash_rotl(v[3], 21) ^ v[0];
    v[2] = cci_siphash_rotl(v[2], 32);
}

static void cci_siphash_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    cci_siphash_round(v);
    v[0] ^= word;
}

/* Hash of a number and some bytes; the number is the message's first word. */
static uint64_t cci_siphash(const uint64_t key[2], uint64_t number, const void *bytes, size_t n)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    const uint8_t *p = bytes;
    uint64_t last = (uint64_t)(n + 8) << 56;
    cci_siphash_word(v, number);
    for (; n >= 8; n -= 8, p += 8)
        cci_siphash_word(v, cci_le64(p));
    for (unsigned i = 0; i < n; i++)
        last |= (uint64_t)p[i] << (8 * i);
    cci_siphash_word(v, last);
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++)
        cci_siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
