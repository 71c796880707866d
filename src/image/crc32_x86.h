/*
 * image/crc32_x86.h - CRC-32 with carry-less multiplication.
 *
 * A CRC is the remainder of the message, read as a polynomial over GF(2), modulo P. Sixteen bytes at the front of a
 * message may be replaced by any sixteen bytes with the same remainder further on: multiply each half by x to the
 * power of the distance modulo P, and add (Gopal et al., "Fast CRC Computation Using PCLMULQDQ", 2009). Four such
 * accumulators run side by side, 64 bytes at a time; in the end they are folded into one, whose sixteen bytes go
 * through the portable version. Where there are 256-bit registers, eight accumulators are in four of them. The
 * constants are bit-reversed x^(d+32) and x^(d-32) modulo P, times x, for the distances d of 1024, 512 and 128 bits.
 */
#ifndef CCI_IMAGE_CRC32_X86_H
#define CCI_IMAGE_CRC32_X86_H

#include "cpu.h"
#include "crc32_portable.h"

#include <immintrin.h>

#define CCI_CRC32_TARGET __attribute__((target("pclmul,sse4.1")))

CCI_CRC32_TARGET static inline __attribute__((always_inline)) __m128i cci_crc32_x86_load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Move X on by the distance of K, onto Y. */
CCI_CRC32_TARGET static inline __attribute__((always_inline)) __m128i cci_crc32_x86_fold(__m128i x, __m128i k,
                                                                                         __m128i y)
{
    __m128i low = _mm_clmulepi64_si128(x, k, 0x00);
    __m128i high = _mm_clmulepi64_si128(x, k, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), y);
}

CCI_CRC32_TARGET static uint32_t cci_crc32_native(const struct cci_crc32 *c, uint32_t state, const uint8_t *p, size_t n)
{
    if (n < 128)
        return cci_crc32_portable(c, state, p, n);
    const __m128i by512 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
    const __m128i by128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m128i x0 = _mm_xor_si128(cci_crc32_x86_load(p), _mm_cvtsi32_si128((int)state));
    __m128i x1 = cci_crc32_x86_load(p + 16);
    __m128i x2 = cci_crc32_x86_load(p + 32);
    __m128i x3 = cci_crc32_x86_load(p + 48);
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
        x0 = cci_crc32_x86_fold(x0, by512, cci_crc32_x86_load(p));
        x1 = cci_crc32_x86_fold(x1, by512, cci_crc32_x86_load(p + 16));
        x2 = cci_crc32_x86_fold(x2, by512, cci_crc32_x86_load(p + 32));
        x3 = cci_crc32_x86_fold(x3, by512, cci_crc32_x86_load(p + 48));
    }
    x0 = cci_crc32_x86_fold(x0, by128, x1);
    x0 = cci_crc32_x86_fold(x0, by128, x2);
    x0 = cci_crc32_x86_fold(x0, by128, x3);
    uint8_t last[16];
    _mm_storeu_si128((__m128i *)(void *)last, x0);
    return cci_crc32_portable(c, cci_crc32_portable(c, 0, last, 16), p, n);
}

#define CCI_CRC32_WIDE_TARGET __attribute__((target("vpclmulqdq,avx2,pclmul,sse4.1")))

CCI_CRC32_WIDE_TARGET static inline __attribute__((always_inline)) __m256i cci_crc32_x86_load2(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

CCI_CRC32_WIDE_TARGET static inline __attribute__((always_inline)) __m256i cci_crc32_x86_fold2(__m256i x, __m256i k,
                                                                                               __m256i y)
{
    __m256i low = _mm256_clmulepi64_epi128(x, k, 0x00);
    __m256i high = _mm256_clmulepi64_epi128(x, k, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(low, high), y);
}

CCI_CRC32_WIDE_TARGET static uint32_t cci_crc32_wide(const struct cci_crc32 *c, uint32_t state, const uint8_t *p,
                                                     size_t n)
{
    if (n < 256)
        return cci_crc32_native(c, state, p, n);
    const __m256i by1024 = _mm256_set_epi64x(0x14a7fe880, 0x1e88ef372, 0x14a7fe880, 0x1e88ef372);
    const __m128i by128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m256i x[4] = {_mm256_xor_si256(cci_crc32_x86_load2(p), _mm256_set_epi32(0, 0, 0, 0, 0, 0, 0, (int)state)),
                    cci_crc32_x86_load2(p + 32), cci_crc32_x86_load2(p + 64), cci_crc32_x86_load2(p + 96)};
    for (p += 128, n -= 128; n >= 128; p += 128, n -= 128) {
        x[0] = cci_crc32_x86_fold2(x[0], by1024, cci_crc32_x86_load2(p));
        x[1] = cci_crc32_x86_fold2(x[1], by1024, cci_crc32_x86_load2(p + 32));
        x[2] = cci_crc32_x86_fold2(x[2], by1024, cci_crc32_x86_load2(p + 64));
        x[3] = cci_crc32_x86_fold2(x[3], by1024, cci_crc32_x86_load2(p + 96));
    }
    __m128i one = _mm256_castsi256_si128(x[0]);
    one = cci_crc32_x86_fold(one, by128, _mm256_extracti128_si256(x[0], 1));
    for (unsigned i = 1; i < 4; i++) {
        one = cci_crc32_x86_fold(one, by128, _mm256_castsi256_si128(x[i]));
        one = cci_crc32_x86_fold(one, by128, _mm256_extracti128_si256(x[i], 1));
    }
    uint8_t last[16];
    _mm_storeu_si128((__m128i *)(void *)last, one);
    return cci_crc32_portable(c, cci_crc32_portable(c, 0, last, 16), p, n);
}

static cci_crc32_update_fn *cci_crc32_choose(unsigned features)
{
    if (features & CCI_CPU_WIDE_CLMUL)
        return cci_crc32_wide;
    return features & CCI_CPU_CLMUL ? cci_crc32_native : cci_crc32_portable;
}

#endif
