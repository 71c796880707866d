/*
 * image/sha256.h - SHA-256 (FIPS 180-4), streaming.
 *
 * Digests name everything in an image: manifests, configs, compressed layers and their contents. init, any
 * number of updates with pieces of any size, final. Whole blocks of 64 bytes are hashed where they lie, as many
 * as there are in one call, so that the state stays in registers from one to the next; only what does not fill a
 * block is copied. The function that does it is chosen at init: the portable one (sha256_portable.h),
 * or the processor's own rounds (sha256_x86.h, sha256_arm.h).
 */
#ifndef CCI_IMAGE_SHA256_H
#define CCI_IMAGE_SHA256_H

#include "cpu.h"
#include "sha256_portable.h"
#if defined(CCI_CPU_X86)
#include "sha256_x86.h"
#elif defined(CCI_CPU_ARM64)
#include "sha256_arm.h"
#else
#define cci_sha256_native cci_sha256_portable
#endif

struct cci_sha256 {
    uint32_t state[8];         /* a..h (5.3.3) */
    uint64_t size;             /* bytes so far */
    uint8_t block[64];         /* the first size % 64 are a block that is not full yet */
    cci_sha256_blocks *blocks; /* the version for this processor */
};

static void cci_sha256_init(struct cci_sha256 *h)
{
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h->state, initial, sizeof(initial));
    h->size = 0;
    h->blocks = cci_cpu_features() & CCI_CPU_SHA256 ? cci_sha256_native : cci_sha256_portable;
}

static void cci_sha256_update(struct cci_sha256 *h, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t fill = (size_t)(h->size % 64);
    h->size += n;
    if (fill > 0) {
        size_t part = n < 64 - fill ? n : 64 - fill;
        if (part > 0)
            memcpy(h->block + fill, p, part);
        if (fill + part < 64)
            return;
        h->blocks(h->state, h->block, 1);
        p += part;
        n -= part;
    }
    if (n >= 64)
        h->blocks(h->state, p, n / 64);
    if (n % 64 > 0)
        memcpy(h->block, p + (n - n % 64), n % 64);
}

/* The digest of everything so far. The struct needs init again before its next use. */
static void cci_sha256_final(struct cci_sha256 *h, uint8_t out[32])
{
    uint8_t tail[128] = {0}; /* what is left, 0x80, zeros, the size in bits: one block or two (5.1.1) */
    size_t left = (size_t)(h->size % 64);
    size_t n = left < 56 ? 64 : 128;
    memcpy(tail, h->block, left);
    tail[left] = 0x80;
    cci_put_be32(tail + n - 8, (uint32_t)(h->size >> 29));
    cci_put_be32(tail + n - 4, (uint32_t)(h->size << 3));
    h->blocks(h->state, tail, n / 64);
    for (unsigned i = 0; i < 8; i++)
        cci_put_be32(out + 4 * i, h->state[i]);
}

/* A digest as 64 lower-case hexadecimal digits and a NUL. */
static void cci_sha256_hex(const uint8_t digest[32], char out[65])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < 32; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[64] = '\0';
}

#endif
