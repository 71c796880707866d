/*
 * image/inflate_fast.h - the state of a decompression, and its inner loop.
 *
 * The loop decodes symbols while at least CCI_INFLATE_FAST_INPUT bytes of input are left and the output stands
 * before CCI_INFLATE_LIMIT, which leaves CCI_INFLATE_SLACK bytes for what one round may write: up to four literals
 * and a match of 258, rounded up to whole words. So nothing inside needs checking but the data.
 *
 * Bits are refilled without a branch: eight bytes are or-ed in above the bits that are there, and the input moves on
 * by as many bytes as fitted in whole. What of the next byte came in as well is or-ed in again later, with the same
 * value. A refill leaves 56 bits or more: enough for three literals and the lookup of the next symbol (4 * 11), or for
 * a length and its distance (20 + 28).
 *
 * Of nbits only the low six bits count inside the loop, so whole entries can be subtracted from it: bit 5 of an entry
 * is never set, and what the rest does to the upper bits does not matter.
 *
 * Where time goes (measured): half a misprediction a match, on whether a literal or a match is next. So there are few
 * branches on anything else: 32 bytes of a match are copied whatever its length.
 */
#ifndef CCI_IMAGE_INFLATE_FAST_H
#define CCI_IMAGE_INFLATE_FAST_H

#include "../base/bytes.h"
#include "inflate_table.h"

#include <stddef.h>

#define CCI_INFLATE_HISTORY 32768u        /* the farthest distance */
#define CCI_INFLATE_BUFFER (288u * 1024u) /* history and new output */
#define CCI_INFLATE_SLACK 320u            /* what may be written behind the limit */
#define CCI_INFLATE_LIMIT (CCI_INFLATE_BUFFER - CCI_INFLATE_SLACK)
#define CCI_INFLATE_FAST_INPUT 32 /* more than a round can read */

enum cci_inflate_status {
    CCI_INFLATE_MORE,    /* all input was taken, the stream goes on */
    CCI_INFLATE_DONE,    /* the stream is complete */
    CCI_INFLATE_STOPPED, /* the sink returned something other than 0, now in sink_code */
    /* The rest are errors in the data. */
    CCI_INFLATE_BAD_BLOCK,
    CCI_INFLATE_BAD_STORED,
    CCI_INFLATE_BAD_COUNTS,
    CCI_INFLATE_BAD_LENGTHS,
    CCI_INFLATE_BAD_SYMBOL,
    CCI_INFLATE_BAD_DISTANCE,
    CCI_INFLATE_TOO_FAR,
};

/* What the next element of the stream is. */
enum cci_inflate_state {
    CCI_INFLATE_HEADER,       /* of a block */
    CCI_INFLATE_STORED,       /* sizes of a stored block */
    CCI_INFLATE_COPY,         /* its bytes */
    CCI_INFLATE_CODE_LENGTHS, /* lengths of the code length code */
    CCI_INFLATE_LENGTHS,      /* lengths of the two codes of a dynamic block */
    CCI_INFLATE_SYMBOLS,
};

struct cci_inflate_input {
    const uint8_t *p;
    const uint8_t *end;
};

/* Takes n bytes of output; anything but 0 stops the decompression. */
typedef int cci_inflate_sink(void *ctx, const uint8_t *p, size_t n);

struct cci_inflate {
    uint64_t bits;                  /* input not yet decoded, first bit lowest, zero above nbits */
    unsigned nbits;                 /* how many */
    enum cci_inflate_state state;   /* what comes next */
    enum cci_inflate_status status; /* MORE until something final happened */
    bool last;                      /* the present block is the last one */
    bool fixed;                     /* the tables are those of the fixed codes */
    uint16_t nlit, ndist, ncode;    /* symbols of the three codes of a dynamic block */
    uint16_t have;                  /* lengths read so far */
    uint32_t stored;                /* bytes left in a stored block */
    int sink_code;                  /* what the sink stopped with */
    size_t at;                      /* end of the output in out */
    size_t sent;                    /* up to here the sink has it */
    uint8_t lens[320];              /* code lengths, literal/length then distance */
    uint32_t litlen[CCI_INFLATE_LITLEN_SIZE];
    uint32_t dist[CCI_INFLATE_DIST_SIZE];
    uint8_t out[CCI_INFLATE_BUFFER];
};

/* Eight bytes of the stream. Like cci_le64, but sure to become one instruction inside the loop. */
static inline __attribute__((always_inline)) uint64_t cci_inflate_load(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
           (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

/* The low DISTANCE < 8 bytes of a word, repeated to fill it. */
static uint64_t cci_inflate_repeat(uint64_t word, unsigned distance)
{
    word &= (UINT64_C(1) << 8 * distance) - 1;
    word |= word << 8 * distance;
    if (distance < 4)
        word |= word << 16 * distance;
    return distance == 1 ? word | word << 32 : word;
}

struct cci_inflate_words {
    uint64_t word[2];
};

/* Copy sixteen bytes, which may overlap their source from behind. */
static inline __attribute__((always_inline)) void cci_inflate_copy16(uint8_t *out, const uint8_t *from)
{
    struct cci_inflate_words words;
    memcpy(&words, from, sizeof(words));
    memcpy(out, &words, sizeof(words));
}

/* Copy a match of LENGTH bytes from DISTANCE < 16 back, in words, up to 7 bytes too far. */
static void cci_inflate_match_near(uint8_t *out, size_t distance, size_t length)
{
    /* How many of eight bytes are whole repetitions. */
    static const uint8_t steps[8] = {8, 8, 8, 6, 8, 5, 6, 7};
    const uint8_t *from = out - distance;
    uint8_t *end = out + length;
    if (distance >= 8) {
        do {
            cci_put_le64(out, cci_inflate_load(from));
            from += 8;
            out += 8;
        } while (out < end);
        return;
    }
    uint64_t word = cci_inflate_repeat(cci_inflate_load(from), (unsigned)distance);
    do {
        cci_put_le64(out, word);
        out += steps[distance];
    } while (out < end);
}

/* The same from any distance, up to 31 bytes too far. Most matches are short: 32 bytes are copied in any case. */
static inline __attribute__((always_inline)) void cci_inflate_match(uint8_t *out, size_t distance, size_t length)
{
    const uint8_t *from = out - distance;
    uint8_t *end = out + length;
    if (distance < 16) {
        cci_inflate_match_near(out, distance, length);
        return;
    }
    cci_inflate_copy16(out, from);
    cci_inflate_copy16(out + 16, from + 16);
    for (out += 32, from += 32; out < end; out += 16, from += 16)
        cci_inflate_copy16(out, from);
}

/* As the functions in inflate.h: CCI_INFLATE_DONE means that something was decoded. The input must be long enough. */
static enum cci_inflate_status cci_inflate_fast(struct cci_inflate *z, struct cci_inflate_input *input)
{
    const uint32_t litlen_mask = (1u << CCI_INFLATE_LITLEN_BITS) - 1;
    const uint32_t dist_mask = (1u << CCI_INFLATE_DIST_BITS) - 1;
    enum cci_inflate_status status = CCI_INFLATE_DONE;
    const uint32_t *litlen = z->litlen;
    const uint32_t *dist = z->dist;
    const uint8_t *in = input->p;
    const uint8_t *in_limit = input->end - CCI_INFLATE_FAST_INPUT;
    uint8_t *out = z->out + z->at;
    uint8_t *out_limit = z->out + CCI_INFLATE_LIMIT;
    uint64_t bits = z->bits;
    unsigned nbits = z->nbits;
    uint64_t saved;
    size_t length, distance;
    uint32_t entry;

    bits |= cci_inflate_load(in) << (nbits & 63);
    in += ~nbits >> 3 & 7;
    nbits |= 56;
    entry = litlen[bits & litlen_mask];
    do {
        if (entry & CCI_INFLATE_LITERAL) {
            bits >>= entry & 63;
            nbits -= entry;
            *out++ = (uint8_t)(entry >> 16);
            entry = litlen[bits & litlen_mask];
            if (entry & CCI_INFLATE_LITERAL) {
                bits >>= entry & 63;
                nbits -= entry;
                *out++ = (uint8_t)(entry >> 16);
                entry = litlen[bits & litlen_mask];
                if (entry & CCI_INFLATE_LITERAL) {
                    bits >>= entry & 63;
                    nbits -= entry;
                    *out++ = (uint8_t)(entry >> 16);
                    entry = litlen[bits & litlen_mask];
                }
            }
            bits |= cci_inflate_load(in) << (nbits & 63);
            in += ~nbits >> 3 & 7;
            nbits |= 56;
            if (entry & CCI_INFLATE_LITERAL)
                continue;
        }
        if (entry & CCI_INFLATE_SPECIAL) {
            if (entry & CCI_INFLATE_POINTER) {
                bits >>= CCI_INFLATE_LITLEN_BITS;
                nbits -= CCI_INFLATE_LITLEN_BITS;
                entry = litlen[(entry >> 16) + (bits & ((1u << (entry >> 8 & 15)) - 1))];
            }
            if (entry & CCI_INFLATE_LITERAL) {
                bits >>= entry & 63;
                nbits -= entry;
                *out++ = (uint8_t)(entry >> 16);
                entry = litlen[bits & litlen_mask];
                bits |= cci_inflate_load(in) << (nbits & 63);
                in += ~nbits >> 3 & 7;
                nbits |= 56;
                continue;
            }
            if (entry & CCI_INFLATE_SPECIAL) {
                bits >>= entry & 63;
                nbits -= entry;
                if (entry & CCI_INFLATE_EOB)
                    z->state = CCI_INFLATE_HEADER;
                else
                    status = CCI_INFLATE_BAD_SYMBOL;
                break;
            }
        }
        saved = bits;
        bits >>= entry & 63;
        nbits -= entry;
        length = (entry >> 16) + ((saved & ((UINT64_C(1) << (entry & 63)) - 1)) >> (entry >> 8 & 15));
        entry = dist[bits & dist_mask];
        if (entry & CCI_INFLATE_SPECIAL) {
            if (!(entry & CCI_INFLATE_POINTER)) {
                status = CCI_INFLATE_BAD_DISTANCE;
                break;
            }
            bits >>= CCI_INFLATE_DIST_BITS;
            nbits -= CCI_INFLATE_DIST_BITS;
            entry = dist[(entry >> 16) + (bits & ((1u << (entry >> 8 & 15)) - 1))];
            if (entry & CCI_INFLATE_SPECIAL) {
                status = CCI_INFLATE_BAD_DISTANCE;
                break;
            }
        }
        saved = bits;
        bits >>= entry & 63;
        nbits -= entry;
        distance = (entry >> 16) + ((saved & ((UINT64_C(1) << (entry & 63)) - 1)) >> (entry >> 8 & 15));
        if (distance > (size_t)(out - z->out)) {
            status = CCI_INFLATE_TOO_FAR;
            break;
        }
        bits |= cci_inflate_load(in) << (nbits & 63);
        in += ~nbits >> 3 & 7;
        nbits |= 56;
        entry = litlen[bits & litlen_mask];
        cci_inflate_match(out, distance, length);
        out += length;
    } while (in < in_limit && out < out_limit);

    input->p = in;
    z->at = (size_t)(out - z->out);
    z->nbits = nbits & 63;
    z->bits = bits & ((UINT64_C(1) << z->nbits) - 1);
    return status;
}

#endif
