/*
 * image/inflate.h - decompression of DEFLATE streams (RFC 1951), pushed and bounded.
 *
 * The caller feeds the compressed stream in pieces of any size; what comes out goes to a sink in pieces of up
 * to CCI_INFLATE_BUFFER bytes, large enough to amortise the sink's work and small enough to still be in the
 * second-level cache when it runs. Memory is the one struct: tables, and a buffer that holds the 32 KiB of
 * history that matches refer to, followed by the output that the sink has not seen yet.
 *
 * Input passes through a 64-bit buffer, first bit lowest. Two decoders share it:
 *
 *   inflate_fast.h  whole symbols while there is plenty of input and room for output, unchecked inside
 *   this file       one element at a time (a header field, a code length, a symbol), each of which is taken
 *                   only when all its bits are there; else feed returns and the next one takes up there.
 *
 * The second is why a stream cut at any byte decodes as the whole one does. Since an element that could not be
 * taken always ends inside the next piece, bytes left over behind the end of the stream are always in the last.
 *
 * What is accepted is what zlib accepts: complete codes (see inflate_table.h), no more than 286 and 30
 * symbols, an end-of-block code, distances that stay inside what came out so far.
 */
#ifndef CCI_IMAGE_INFLATE_H
#define CCI_IMAGE_INFLATE_H

#include "inflate_fast.h"

static void cci_inflate_init(struct cci_inflate *z)
{
    z->bits = 0;
    z->nbits = 0;
    z->state = CCI_INFLATE_HEADER;
    z->status = CCI_INFLATE_MORE;
    z->last = false;
    z->fixed = false;
    z->sink_code = 0;
    z->at = 0;
    z->sent = 0;
}

static const char *cci_inflate_strerror(enum cci_inflate_status status)
{
    switch (status) {
    case CCI_INFLATE_MORE:
        return "the compressed data end too early";
    case CCI_INFLATE_DONE:
        return "no error";
    case CCI_INFLATE_STOPPED:
        return "stopped by the receiver";
    case CCI_INFLATE_BAD_BLOCK:
        return "invalid block type";
    case CCI_INFLATE_BAD_STORED:
        return "invalid length of a stored block";
    case CCI_INFLATE_BAD_COUNTS:
        return "too many length or distance symbols";
    case CCI_INFLATE_BAD_LENGTHS:
        return "invalid code lengths";
    case CCI_INFLATE_BAD_SYMBOL:
        return "invalid literal or length code";
    case CCI_INFLATE_BAD_DISTANCE:
        return "invalid distance code";
    case CCI_INFLATE_TOO_FAR:
        return "distance beyond the start of the data";
    }
    return "unknown error";
}

/* Hand the new output to the sink, then move the history to the front of the buffer. */
static bool cci_inflate_flush(struct cci_inflate *z, cci_inflate_sink *sink, void *ctx)
{
    if (z->at > z->sent) {
        z->sink_code = sink(ctx, z->out + z->sent, z->at - z->sent);
        if (z->sink_code != 0)
            return false;
    }
    if (z->at > CCI_INFLATE_HISTORY) {
        memmove(z->out, z->out + z->at - CCI_INFLATE_HISTORY, CCI_INFLATE_HISTORY);
        z->at = CCI_INFLATE_HISTORY;
    }
    z->sent = z->at;
    return true;
}

/* Fill the bit buffer from the input: 56 to 63 bits, fewer only at the end of the input. */
static void cci_inflate_fill(struct cci_inflate *z, struct cci_inflate_input *in)
{
    while (z->nbits < 56 && in->p < in->end) {
        z->bits |= (uint64_t)*in->p++ << z->nbits;
        z->nbits += 8;
    }
}

/* Remove n <= 32 bits; they are known to be there. */
static uint32_t cci_inflate_take(struct cci_inflate *z, unsigned n)
{
    uint32_t value = (uint32_t)(z->bits & ((UINT64_C(1) << n) - 1));
    z->bits >>= n;
    z->nbits -= n;
    return value;
}

static enum cci_inflate_status cci_inflate_fixed(struct cci_inflate *z)
{
    if (!z->fixed) { /* tables of the last block are no longer these */
        memset(z->lens, 8, 144);
        memset(z->lens + 144, 9, 112);
        memset(z->lens + 256, 7, 24);
        memset(z->lens + 280, 8, 8);
        memset(z->lens + 288, 5, 32);
        (void)cci_inflate_build(z->litlen, CCI_INFLATE_LITLEN, CCI_INFLATE_LITLEN_BITS, z->lens, 288);
        (void)cci_inflate_build(z->dist, CCI_INFLATE_DIST, CCI_INFLATE_DIST_BITS, z->lens + 288, 32);
        z->fixed = true;
    }
    z->state = CCI_INFLATE_SYMBOLS;
    return CCI_INFLATE_DONE;
}

/*
 * The functions below each take one element. They return CCI_INFLATE_DONE when they took it,
 * CCI_INFLATE_MORE when its bits are not all there, or what is wrong with it.
 */

/* The header of a block (3.2.3), with what follows it that has a fixed size. */
static enum cci_inflate_status cci_inflate_header(struct cci_inflate *z)
{
    if (z->nbits < 3)
        return CCI_INFLATE_MORE;
    unsigned type = (unsigned)z->bits >> 1 & 3;
    if (type == 2 && z->nbits < 17)
        return CCI_INFLATE_MORE;
    z->last = z->bits & 1;
    (void)cci_inflate_take(z, 3);
    if (type == 0) {
        (void)cci_inflate_take(z, z->nbits & 7); /* stored blocks begin at a byte */
        z->state = CCI_INFLATE_STORED;
        return CCI_INFLATE_DONE;
    }
    if (type == 1)
        return cci_inflate_fixed(z);
    if (type == 3)
        return CCI_INFLATE_BAD_BLOCK;
    z->nlit = (uint16_t)(cci_inflate_take(z, 5) + 257);
    z->ndist = (uint16_t)(cci_inflate_take(z, 5) + 1);
    z->ncode = (uint16_t)(cci_inflate_take(z, 4) + 4);
    if (z->nlit > 286 || z->ndist > 30)
        return CCI_INFLATE_BAD_COUNTS;
    memset(z->lens, 0, 19);
    z->have = 0;
    z->state = CCI_INFLATE_CODE_LENGTHS;
    return CCI_INFLATE_DONE;
}

/* LEN and NLEN of a stored block (3.2.4). */
static enum cci_inflate_status cci_inflate_stored(struct cci_inflate *z)
{
    if (z->nbits < 32)
        return CCI_INFLATE_MORE;
    uint32_t len = cci_inflate_take(z, 16);
    uint32_t nlen = cci_inflate_take(z, 16);
    if (len != (nlen ^ 0xffff))
        return CCI_INFLATE_BAD_STORED;
    z->stored = len;
    z->state = CCI_INFLATE_COPY;
    return CCI_INFLATE_DONE;
}

/* Bytes of a stored block: as many as there are and fit. */
static enum cci_inflate_status cci_inflate_copy(struct cci_inflate *z, struct cci_inflate_input *in)
{
    while (z->stored > 0 && z->nbits > 0 && z->at < CCI_INFLATE_LIMIT) {
        z->out[z->at++] = (uint8_t)cci_inflate_take(z, 8);
        z->stored--;
    }
    size_t n = CCI_INFLATE_LIMIT - z->at;
    if (n > z->stored)
        n = z->stored;
    if (n > (size_t)(in->end - in->p))
        n = (size_t)(in->end - in->p);
    if (n > 0 && z->nbits == 0) {
        memcpy(z->out + z->at, in->p, n);
        in->p += n;
        z->at += n;
        z->stored -= (uint32_t)n;
    }
    if (z->stored > 0)
        return z->at < CCI_INFLATE_LIMIT ? CCI_INFLATE_MORE : CCI_INFLATE_DONE;
    z->state = CCI_INFLATE_HEADER;
    return CCI_INFLATE_DONE;
}

/* One length of the code length code (3.2.7). */
static enum cci_inflate_status cci_inflate_code_length(struct cci_inflate *z)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    if (z->have < z->ncode) {
        if (z->nbits < 3)
            return CCI_INFLATE_MORE;
        z->lens[order[z->have++]] = (uint8_t)cci_inflate_take(z, 3);
        return CCI_INFLATE_DONE;
    }
    /* Their table lies where the distance table will be built when it has done its work. */
    if (!cci_inflate_build(z->dist, CCI_INFLATE_CODE, CCI_INFLATE_CODE_BITS, z->lens, 19))
        return CCI_INFLATE_BAD_LENGTHS;
    z->fixed = false;
    z->have = 0;
    z->state = CCI_INFLATE_LENGTHS;
    return CCI_INFLATE_DONE;
}

/* All lengths of a dynamic block are known: build its tables. */
static enum cci_inflate_status cci_inflate_tables(struct cci_inflate *z)
{
    if (z->lens[256] == 0)
        return CCI_INFLATE_BAD_LENGTHS; /* such a block could not end */
    if (!cci_inflate_build(z->litlen, CCI_INFLATE_LITLEN, CCI_INFLATE_LITLEN_BITS, z->lens, z->nlit) ||
        !cci_inflate_build(z->dist, CCI_INFLATE_DIST, CCI_INFLATE_DIST_BITS, z->lens + z->nlit, z->ndist))
        return CCI_INFLATE_BAD_LENGTHS;
    z->state = CCI_INFLATE_SYMBOLS;
    return CCI_INFLATE_DONE;
}

/* One symbol of the code length code: a length, or the repetition of one (3.2.7). */
static enum cci_inflate_status cci_inflate_length(struct cci_inflate *z)
{
    unsigned total = (unsigned)z->nlit + z->ndist;
    if (z->have == total)
        return cci_inflate_tables(z);
    uint32_t entry = z->dist[z->bits & ((1u << CCI_INFLATE_CODE_BITS) - 1)];
    unsigned bits = entry & CCI_INFLATE_CONSUME;
    unsigned symbol = entry >> 16;
    if (z->nbits < bits)
        return CCI_INFLATE_MORE;
    if (entry & CCI_INFLATE_SPECIAL)
        return CCI_INFLATE_BAD_LENGTHS;
    if (symbol < 16) {
        (void)cci_inflate_take(z, bits);
        z->lens[z->have++] = (uint8_t)symbol;
        return CCI_INFLATE_DONE;
    }
    unsigned extra = symbol == 16 ? 2 : symbol == 17 ? 3 : 7;
    if (z->nbits < bits + extra)
        return CCI_INFLATE_MORE;
    (void)cci_inflate_take(z, bits);
    unsigned repeat = cci_inflate_take(z, extra) + (symbol == 18 ? 11 : 3);
    if ((symbol == 16 && z->have == 0) || repeat > total - z->have)
        return CCI_INFLATE_BAD_LENGTHS;
    memset(z->lens + z->have, symbol == 16 ? z->lens[z->have - 1] : 0, repeat);
    z->have = (uint16_t)(z->have + repeat);
    return CCI_INFLATE_DONE;
}

/* A symbol, looked up in TABLE behind the first SKIP bits; *USED counts the bits up to its end. */
static uint32_t cci_inflate_lookup(const struct cci_inflate *z, const uint32_t *table, unsigned primary, unsigned skip,
                                   unsigned *used)
{
    uint64_t bits = z->bits >> skip;
    uint32_t entry = table[bits & ((1u << primary) - 1)];
    if (entry & CCI_INFLATE_POINTER && entry & CCI_INFLATE_SPECIAL) {
        bits >>= primary;
        skip += primary;
        entry = table[(entry >> 16) + (bits & ((1u << (entry >> 8 & 15)) - 1))];
    }
    *used = skip + (entry & CCI_INFLATE_CONSUME);
    return entry;
}

/* The value of a length or distance symbol whose codeword and extra bits end USED bits into the buffer. */
static uint32_t cci_inflate_value(const struct cci_inflate *z, uint32_t entry, unsigned used)
{
    unsigned extra = (entry & CCI_INFLATE_CONSUME) - (entry >> 8 & 15);
    return (entry >> 16) + (uint32_t)(z->bits >> (used - extra) & ((UINT64_C(1) << extra) - 1));
}

/* A literal, the end of the block, or a length with its distance (3.2.5): at most 48 bits. */
static enum cci_inflate_status cci_inflate_symbols(struct cci_inflate *z)
{
    unsigned used;
    uint32_t entry = cci_inflate_lookup(z, z->litlen, CCI_INFLATE_LITLEN_BITS, 0, &used);
    if (used > z->nbits)
        return CCI_INFLATE_MORE;
    if (entry & CCI_INFLATE_LITERAL) {
        (void)cci_inflate_take(z, used);
        z->out[z->at++] = (uint8_t)(entry >> 16);
        return CCI_INFLATE_DONE;
    }
    if (entry & CCI_INFLATE_SPECIAL) {
        if (!(entry & CCI_INFLATE_EOB))
            return CCI_INFLATE_BAD_SYMBOL;
        (void)cci_inflate_take(z, used);
        z->state = CCI_INFLATE_HEADER;
        return CCI_INFLATE_DONE;
    }
    uint32_t length = cci_inflate_value(z, entry, used);
    entry = cci_inflate_lookup(z, z->dist, CCI_INFLATE_DIST_BITS, used, &used);
    if (used > z->nbits)
        return CCI_INFLATE_MORE;
    if (entry & CCI_INFLATE_SPECIAL)
        return CCI_INFLATE_BAD_DISTANCE;
    uint32_t distance = cci_inflate_value(z, entry, used);
    if (distance > z->at)
        return CCI_INFLATE_TOO_FAR;
    z->bits >>= used;
    z->nbits -= used;
    for (; length > 0; length--, z->at++)
        z->out[z->at] = z->out[z->at - distance];
    return CCI_INFLATE_DONE;
}

static enum cci_inflate_status cci_inflate_element(struct cci_inflate *z, struct cci_inflate_input *in)
{
    switch (z->state) {
    case CCI_INFLATE_HEADER:
        return cci_inflate_header(z);
    case CCI_INFLATE_STORED:
        return cci_inflate_stored(z);
    case CCI_INFLATE_COPY:
        return cci_inflate_copy(z, in);
    case CCI_INFLATE_CODE_LENGTHS:
        return cci_inflate_code_length(z);
    case CCI_INFLATE_LENGTHS:
        return cci_inflate_length(z);
    case CCI_INFLATE_SYMBOLS:
        break;
    }
    if (in->end - in->p >= CCI_INFLATE_FAST_INPUT)
        return cci_inflate_fast(z, in);
    return cci_inflate_symbols(z);
}

/*
 * Decompress the next piece of the stream. *USED tells how much of it belongs to the stream; it is all, unless
 * the result is CCI_INFLATE_DONE. Output reaches the sink when the buffer is full and at the end. Any result but
 * CCI_INFLATE_MORE is final and comes again if the call is repeated.
 */
static enum cci_inflate_status cci_inflate_feed(struct cci_inflate *z, const uint8_t *p, size_t n, size_t *used,
                                                cci_inflate_sink *sink, void *ctx)
{
    struct cci_inflate_input in = {p, p + n};
    *used = 0;
    while (z->status == CCI_INFLATE_MORE) {
        if (z->at >= CCI_INFLATE_LIMIT && !cci_inflate_flush(z, sink, ctx)) {
            z->status = CCI_INFLATE_STOPPED;
            break;
        }
        if (z->state != CCI_INFLATE_COPY)
            cci_inflate_fill(z, &in);
        enum cci_inflate_status status = cci_inflate_element(z, &in);
        if (status == CCI_INFLATE_MORE) {
            *used = n;
            return CCI_INFLATE_MORE;
        }
        if (status != CCI_INFLATE_DONE) {
            z->status = status;
        } else if (z->state == CCI_INFLATE_HEADER && z->last) {
            /* whole bytes in the bit buffer lie behind the end */
            in.p -= z->nbits / 8;
            z->bits = 0;
            z->nbits = 0;
            z->status = cci_inflate_flush(z, sink, ctx) ? CCI_INFLATE_DONE : CCI_INFLATE_STOPPED;
            *used = (size_t)(in.p - p);
        }
    }
    return z->status;
}

#endif
