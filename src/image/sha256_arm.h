/*
 * image/sha256_arm.h - SHA-256 with the cryptographic instructions of ARMv8.
 *
 * SHA256H and SHA256H2 do four rounds on {a,b,c,d} and {e,f,g,h}; SHA256SU0/1 compute the message schedule, four
 * words at a time. They are written as assembler statements because compilers disagree on how a single function
 * may use their intrinsics when the whole program may not. Included by sha256.h.
 */
#ifndef CCI_IMAGE_SHA256_ARM_H
#define CCI_IMAGE_SHA256_ARM_H

#include "sha256_portable.h"

#include <arm_neon.h>

/* Four rounds with the message words W and the round constants from K. */
static inline __attribute__((always_inline)) void cci_sha256_arm_rounds(uint32x4_t *abcd, uint32x4_t *efgh,
                                                                        uint32x4_t w, const uint32_t *k)
{
    uint32x4_t wk = vaddq_u32(w, vld1q_u32(k));
    uint32x4_t before = *abcd;
    __asm__(".arch_extension sha2\n\tsha256h %q0, %q1, %2.4s" : "+w"(*abcd) : "w"(*efgh), "w"(wk));
    __asm__(".arch_extension sha2\n\tsha256h2 %q0, %q1, %2.4s" : "+w"(*efgh) : "w"(before), "w"(wk));
}

/* The four message words after d, from the sixteen a, b, c, d. */
static inline __attribute__((always_inline)) uint32x4_t cci_sha256_arm_schedule(uint32x4_t a, uint32x4_t b,
                                                                                uint32x4_t c, uint32x4_t d)
{
    __asm__(".arch_extension sha2\n\tsha256su0 %0.4s, %1.4s" : "+w"(a) : "w"(b));
    __asm__(".arch_extension sha2\n\tsha256su1 %0.4s, %1.4s, %2.4s" : "+w"(a) : "w"(c), "w"(d));
    return a;
}

static uint32x4_t cci_sha256_arm_load(const uint8_t *p)
{
    return vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p)));
}

static void cci_sha256_native(uint32_t state[8], const uint8_t *p, size_t n)
{
    uint32x4_t abcd = vld1q_u32(state);
    uint32x4_t efgh = vld1q_u32(state + 4);

    for (; n > 0; n--, p += 64) {
        uint32x4_t abcd0 = abcd, efgh0 = efgh;
        uint32x4_t a = cci_sha256_arm_load(p), b = cci_sha256_arm_load(p + 16);
        uint32x4_t c = cci_sha256_arm_load(p + 32), d = cci_sha256_arm_load(p + 48);
        const uint32_t *k = cci_sha256_k;
        for (unsigned i = 0; i < 3; i++, k += 16) {
            cci_sha256_arm_rounds(&abcd, &efgh, a, k);
            a = cci_sha256_arm_schedule(a, b, c, d);
            cci_sha256_arm_rounds(&abcd, &efgh, b, k + 4);
            b = cci_sha256_arm_schedule(b, c, d, a);
            cci_sha256_arm_rounds(&abcd, &efgh, c, k + 8);
            c = cci_sha256_arm_schedule(c, d, a, b);
            cci_sha256_arm_rounds(&abcd, &efgh, d, k + 12);
            d = cci_sha256_arm_schedule(d, a, b, c);
        }
        cci_sha256_arm_rounds(&abcd, &efgh, a, k);
        cci_sha256_arm_rounds(&abcd, &efgh, b, k + 4);
        cci_sha256_arm_rounds(&abcd, &efgh, c, k + 8);
        cci_sha256_arm_rounds(&abcd, &efgh, d, k + 12);
        abcd = vaddq_u32(abcd, abcd0);
        efgh = vaddq_u32(efgh, efgh0);
    }

    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

#endif
