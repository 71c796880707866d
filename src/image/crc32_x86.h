/*
 * image/crc32_x86.h - CRC-32 with carry-less multiplication.
 *
 * A CRC is the remainder of the message, read as a polynomial over GF(2), modulo P. Sixteen bytes at the front of a
 * message may be replaced by any sixteen bytes with the same remainder further on: multiply each half by x to the
 * power of the distance modulo P, and add (Gopal et al., "Fast CRC Computation Using PCLMULQDQ", 2009). Four such
 * accumulators run side by side, 64 bytes at a time; in the end they are folded into one, whose sixteen bytes go
 * through the portable version. The constants are bit-reversed x^(d+32) and x^(d-32) modulo P, times x, for the
 * distances d of 512 and 128 bits.
 */
#ifndef CCI_IMAGE_CRC32_X86_H
#define CCI_IMAGE_CRC32_X86_H

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

#endif
