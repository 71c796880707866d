/*
 * image/sha256_x86.h - SHA-256 with the SHA instructions of x86.
 *
 * SHA256RNDS2 does two rounds on a state that is spread over two registers as {a,b,e,f} and {c,d,g,h}, highest
 * word first; after it the two have swapped roles. SHA256MSG1/2 compute the message schedule, four words at a
 * time. Included by sha256.h.
 */
#ifndef CCI_IMAGE_SHA256_X86_H
#define CCI_IMAGE_SHA256_X86_H

#include "sha256_portable.h"

#include <immintrin.h>

#define CCI_SHA256_TARGET __attribute__((target("sha,sse4.1,ssse3")))

/* Four rounds with the message words W and the round constants from K. */
CCI_SHA256_TARGET static inline __attribute__((always_inline)) void cci_sha256_x86_rounds(__m128i *abef, __m128i *cdgh,
                                                                                          __m128i w, const uint32_t *k)
{
    __m128i wk = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)(const void *)k));
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, wk);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(wk, 0x0e));
}

/* The four message words after d, from the sixteen a, b, c, d. */
CCI_SHA256_TARGET static inline __attribute__((always_inline)) __m128i cci_sha256_x86_schedule(__m128i a, __m128i b,
                                                                                               __m128i c, __m128i d)
{
    __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8(d, c, 4));
    return _mm_sha256msg2_epu32(sum, d);
}

CCI_SHA256_TARGET static void cci_sha256_native(uint32_t state[8], const uint8_t *p, size_t n)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i dcba = _mm_loadu_si128((const __m128i *)(const void *)state);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(const void *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
    __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);

    for (; n > 0; n--, p += 64) {
        const __m128i *block = (const __m128i *)(const void *)p;
        __m128i abef0 = abef, cdgh0 = cdgh;
        __m128i a = _mm_shuffle_epi8(_mm_loadu_si128(block), swap);
        __m128i b = _mm_shuffle_epi8(_mm_loadu_si128(block + 1), swap);
        __m128i c = _mm_shuffle_epi8(_mm_loadu_si128(block + 2), swap);
        __m128i d = _mm_shuffle_epi8(_mm_loadu_si128(block + 3), swap);
        const uint32_t *k = cci_sha256_k;
        for (unsigned i = 0; i < 3; i++, k += 16) {
            cci_sha256_x86_rounds(&abef, &cdgh, a, k);
            a = cci_sha256_x86_schedule(a, b, c, d);
            cci_sha256_x86_rounds(&abef, &cdgh, b, k + 4);
            b = cci_sha256_x86_schedule(b, c, d, a);
            cci_sha256_x86_rounds(&abef, &cdgh, c, k + 8);
            c = cci_sha256_x86_schedule(c, d, a, b);
            cci_sha256_x86_rounds(&abef, &cdgh, d, k + 12);
            d = cci_sha256_x86_schedule(d, a, b, c);
        }
        cci_sha256_x86_rounds(&abef, &cdgh, a, k);
        cci_sha256_x86_rounds(&abef, &cdgh, b, k + 4);
        cci_sha256_x86_rounds(&abef, &cdgh, c, k + 8);
        cci_sha256_x86_rounds(&abef, &cdgh, d, k + 12);
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }

    __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

#endif
