/*
 * image/sha256_portable.h - the compression function of SHA-256 (FIPS 180-4, 6.2.2) in plain C.
 */
#ifndef CCI_IMAGE_SHA256_PORTABLE_H
#define CCI_IMAGE_SHA256_PORTABLE_H

#include "../base/bytes.h"

#include <stddef.h>
#include <string.h>

/* Hash n blocks of 64 bytes into the state. */
typedef void cci_sha256_blocks(uint32_t state[8], const uint8_t *p, size_t n);

/* The round constants (4.2.2). */
static const uint32_t cci_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t cci_sha256_rotate(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

/* Replace w[i] in a ring of 16 message words by the one 16 places later (step 1). */
static void cci_sha256_schedule(uint32_t w[16], unsigned i)
{
    uint32_t s0 = w[(i + 1) & 15], s1 = w[(i + 14) & 15];
    s0 = cci_sha256_rotate(s0, 7) ^ cci_sha256_rotate(s0, 18) ^ s0 >> 3;
    s1 = cci_sha256_rotate(s1, 17) ^ cci_sha256_rotate(s1, 19) ^ s1 >> 10;
    w[i] += s0 + w[(i + 9) & 15] + s1;
}

/*
 * Round i of eight (step 3). The standard moves every word of the state one place on in each round; here the
 * words stay and their roles move: a is at index -i, b at 1-i, and so on, modulo eight.
 */
static inline __attribute__((always_inline)) void cci_sha256_round(uint32_t s[8], unsigned i, uint32_t kw)
{
    uint32_t a = s[(0u - i) & 7], b = s[(1u - i) & 7], c = s[(2u - i) & 7], *d = &s[(3u - i) & 7];
    uint32_t e = s[(4u - i) & 7], f = s[(5u - i) & 7], g = s[(6u - i) & 7], *h = &s[(7u - i) & 7];
    kw += *h + (cci_sha256_rotate(e, 6) ^ cci_sha256_rotate(e, 11) ^ cci_sha256_rotate(e, 25)) + (g ^ (e & (f ^ g)));
    *d += kw;
    *h = kw + (cci_sha256_rotate(a, 2) ^ cci_sha256_rotate(a, 13) ^ cci_sha256_rotate(a, 22)) +
         ((a & b) | (c & (a | b)));
}

static void cci_sha256_portable(uint32_t state[8], const uint8_t *p, size_t n)
{
    for (; n > 0; n--, p += 64) {
        uint32_t w[16], s[8];
        for (unsigned i = 0; i < 16; i++)
            w[i] = cci_be32(p + 4 * i);
        memcpy(s, state, sizeof(s));
        for (unsigned t = 0; t < 64; t += 16) {
            for (unsigned i = 0; t > 0 && i < 16; i++)
                cci_sha256_schedule(w, i);
            for (unsigned i = 0; i < 16; i += 8) {
                const uint32_t *k = cci_sha256_k + t + i;
                cci_sha256_round(s, 0, k[0] + w[i]);
                cci_sha256_round(s, 1, k[1] + w[i + 1]);
                cci_sha256_round(s, 2, k[2] + w[i + 2]);
                cci_sha256_round(s, 3, k[3] + w[i + 3]);
                cci_sha256_round(s, 4, k[4] + w[i + 4]);
                cci_sha256_round(s, 5, k[5] + w[i + 5]);
                cci_sha256_round(s, 6, k[6] + w[i + 6]);
                cci_sha256_round(s, 7, k[7] + w[i + 7]);
            }
        }
        for (unsigned i = 0; i < 8; i++)
            state[i] += s[i];
    }
}

#endif
