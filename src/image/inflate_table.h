/*
 * image/inflate_table.h - decoding tables for the Huffman codes of DEFLATE.
 *
 * DEFLATE (RFC 1951, 3.2.2) describes a canonical Huffman code by nothing but the length of each
 * symbol's codeword. This part turns such a list of lengths into a table that is looked up with the
 * next bits of the stream (first bit of a codeword = lowest bit of the index).
 *
 * A table has a primary part of 2^B entries. A codeword of at most B bits fills every primary entry
 * whose low bits equal it. Longer codewords share a primary entry per B-bit prefix, which points to a
 * subtable, placed behind the primary part and indexed with the bits after the prefix.
 *
 * An entry is 32 bits. The low five are always the number of bits to consume:
 *
 *   literal   bit 6 · bits 16-23: the byte
 *   length    bits 8-11: codeword bits · 16-24 base length        consumed: codeword and extra bits
 *   distance  bits 8-11: codeword bits · 16-31 base distance      consumed: codeword and extra bits
 *   code      bits 16-20: symbol of the code length alphabet
 *   special   bit 7, with bit 12: end of block · bit 13: pointer, 8-11 index bits of the subtable,
 *             16-31 its place in the table · neither: no symbol has this codeword
 *
 * (Two short literals in one entry, as other decoders have them, were tried: filling the table cost what they saved.)
 *
 * Which sets of lengths are accepted follows zlib: a code must be complete, except that the
 * literal/length and the distance code may be a single codeword of one bit or (distance) empty.
 */
#ifndef CCI_IMAGE_INFLATE_TABLE_H
#define CCI_IMAGE_INFLATE_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CCI_INFLATE_MAX_BITS 15u /* longest codeword of DEFLATE */

/* Index bits of the primary tables. Tables that stay in the first-level cache beat larger ones. */
#define CCI_INFLATE_LITLEN_BITS 11u
#define CCI_INFLATE_DIST_BITS 9u
#define CCI_INFLATE_CODE_BITS 7u

/*
 * Room for the worst case. A subtable of 2^k entries is filled by at least k+1 codewords, so 288
 * symbols make at most 57 subtables of 16 entries, and 32 symbols at most 4 of 64.
 */
#define CCI_INFLATE_LITLEN_SIZE ((1u << CCI_INFLATE_LITLEN_BITS) + 58u * 16u)
#define CCI_INFLATE_DIST_SIZE ((1u << CCI_INFLATE_DIST_BITS) + 5u * 64u)

#define CCI_INFLATE_CONSUME 0x1fu
#define CCI_INFLATE_LITERAL 0x40u
#define CCI_INFLATE_SPECIAL 0x80u
#define CCI_INFLATE_EOB 0x1000u
#define CCI_INFLATE_POINTER 0x2000u

enum cci_inflate_alphabet { CCI_INFLATE_CODE, CCI_INFLATE_LITLEN, CCI_INFLATE_DIST };

/* Base and extra bits of the symbols 257..285 (RFC 1951, 3.2.5), base << 16 | extra bits. */
static const uint32_t cci_inflate_lengths[29] = {
    3 << 16,       4 << 16,       5 << 16,       6 << 16,       7 << 16,      8 << 16,      9 << 16,      10 << 16,
    11 << 16 | 1,  13 << 16 | 1,  15 << 16 | 1,  17 << 16 | 1,  19 << 16 | 2, 23 << 16 | 2, 27 << 16 | 2, 31 << 16 | 2,
    35 << 16 | 3,  43 << 16 | 3,  51 << 16 | 3,  59 << 16 | 3,  67 << 16 | 4, 83 << 16 | 4, 99 << 16 | 4, 115 << 16 | 4,
    131 << 16 | 5, 163 << 16 | 5, 195 << 16 | 5, 227 << 16 | 5, 258 << 16,
};

/* What an entry of SYMBOL holds apart from the length of its codeword. */
static uint32_t cci_inflate_symbol(enum cci_inflate_alphabet alphabet, unsigned symbol)
{
    if (alphabet == CCI_INFLATE_CODE)
        return (uint32_t)symbol << 16;
    if (alphabet == CCI_INFLATE_DIST) {
        if (symbol < 4)
            return (uint32_t)(symbol + 1) << 16;
        if (symbol < 30) { /* two symbols for each number of extra bits */
            unsigned extra = symbol / 2 - 1;
            return (((2u + symbol % 2) << extra) + 1u) << 16 | extra;
        }
        return CCI_INFLATE_SPECIAL;
    }
    if (symbol < 256)
        return (uint32_t)symbol << 16 | CCI_INFLATE_LITERAL;
    if (symbol == 256)
        return CCI_INFLATE_SPECIAL | CCI_INFLATE_EOB;
    return symbol < 286 ? cci_inflate_lengths[symbol - 257] : CCI_INFLATE_SPECIAL;
}

/* Complete an entry with the number of bits that its codeword takes in this (sub)table. */
static uint32_t cci_inflate_entry(uint32_t symbol, unsigned bits)
{
    return symbol + bits + ((uint32_t)bits << 8); /* nobody looks at the second in a literal or special entry */
}

/*
 * The codeword after CODE in canonical order. Codewords are kept first bit lowest, so counting carries
 * downwards: clear the run of ones at the top, set the zero below it. 0 follows the last codeword.
 */
static uint32_t cci_inflate_next(uint32_t code, unsigned bits)
{
    uint32_t bit = 1u << (bits - 1);
    while (code & bit) {
        code ^= bit;
        bit >>= 1;
    }
    return code | bit;
}

/*
 * Check that COUNT[1..15] codewords of each length form a code that is acceptable. *EMPTY or *SINGLE tell
 * the two kinds of incomplete codes that are.
 */
static bool cci_inflate_check(enum cci_inflate_alphabet alphabet, const uint16_t count[16], unsigned *longest)
{
    unsigned max = CCI_INFLATE_MAX_BITS;
    while (max > 0 && count[max] == 0)
        max--;
    *longest = max;
    int32_t left = 1; /* codewords of the present length that are still free */
    for (unsigned bits = 1; bits <= max; bits++) {
        left = 2 * left - count[bits];
        if (left < 0)
            return false; /* over-subscribed */
    }
    if (left == 0)
        return true;
    return alphabet != CCI_INFLATE_CODE && max <= 1;
}

/*
 * Fill the subtables for the codewords longer than PRIMARY. SORTED are their symbols in canonical order,
 * CODE the first codeword at length BITS, which is the length of the first of them.
 */
static void cci_inflate_subtables(uint32_t *table, enum cci_inflate_alphabet alphabet, unsigned primary,
                                  const uint16_t *sorted, uint16_t count[16], uint32_t code, unsigned bits)
{
    uint32_t prefix_mask = (1u << primary) - 1u;
    uint32_t prefix = UINT32_MAX;
    uint32_t *sub = NULL;
    uint32_t sub_size = 0;
    uint32_t end = 1u << primary;
    for (;;) {
        while (bits <= CCI_INFLATE_MAX_BITS && count[bits] == 0)
            bits++;
        if (bits > CCI_INFLATE_MAX_BITS)
            return;
        if ((code & prefix_mask) != prefix) {
            /* A new prefix. Its subtable is as wide as the codewords that follow need to fill it. */
            prefix = code & prefix_mask;
            unsigned sub_bits = bits - primary;
            uint32_t filled = count[bits];
            while (filled < 1u << sub_bits) {
                sub_bits++;
                filled = 2 * filled + count[primary + sub_bits];
            }
            sub = table + end;
            sub_size = 1u << sub_bits;
            table[prefix] = CCI_INFLATE_SPECIAL | CCI_INFLATE_POINTER | primary | (uint32_t)sub_bits << 8 | end << 16;
            end += sub_size;
        }
        uint32_t entry = cci_inflate_entry(cci_inflate_symbol(alphabet, *sorted++), bits - primary);
        for (uint32_t i = code >> primary; i < sub_size; i += 1u << (bits - primary))
            sub[i] = entry;
        count[bits]--;
        code = cci_inflate_next(code, bits);
    }
}

/* Build the table of a code from the lengths of its N symbols. False: lengths that make no code. */
static bool cci_inflate_build(uint32_t *table, enum cci_inflate_alphabet alphabet, unsigned primary,
                              const uint8_t *lens, unsigned n)
{
    uint16_t count[16] = {0};
    uint16_t offset[17];
    uint16_t sorted[288];
    unsigned longest;

    for (unsigned i = 0; i < n; i++)
        count[lens[i]]++;
    count[0] = 0;
    if (!cci_inflate_check(alphabet, count, &longest))
        return false;
    offset[1] = 0;
    for (unsigned bits = 1; bits <= CCI_INFLATE_MAX_BITS; bits++)
        offset[bits + 1] = (uint16_t)(offset[bits] + count[bits]);
    for (unsigned i = 0; i < n; i++) {
        if (lens[i] != 0)
            sorted[offset[lens[i]]++] = (uint16_t)i;
    }

    /*
     * Grow the primary table from 1 to 2^B entries: at each size put in the codewords of that length,
     * then double it by repeating what is there.
     */
    table[0] = CCI_INFLATE_SPECIAL | 1u; /* for the codes that are not complete */
    uint32_t code = 0;
    const uint16_t *next = sorted;
    unsigned bits = 1;
    for (; bits <= primary; bits++) {
        memcpy(table + (1u << (bits - 1)), table, sizeof(*table) << (bits - 1));
        for (unsigned i = 0; i < count[bits]; i++) {
            table[code] = cci_inflate_entry(cci_inflate_symbol(alphabet, *next++), bits);
            code = cci_inflate_next(code, bits);
        }
    }
    if (longest > primary)
        cci_inflate_subtables(table, alphabet, primary, next, count, code, bits);
    return true;
}

#endif
