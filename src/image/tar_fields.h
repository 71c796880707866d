/*
 * image/tar_fields.h - numbers as tar archives write them.
 *
 * Header blocks hold octal digits with spaces and NULs around them (POSIX.1-1988, "ustar"), or, where those do not
 * suffice, a big-endian two's complement number in all bits but the first of the field (GNU "base-256"). Extended
 * headers (POSIX.1-2001, "pax") hold decimal digits; times have fractions. Extended attributes that libarchive
 * writes are in base64. Every function here says false to what it cannot represent.
 */
#ifndef CCI_IMAGE_TAR_FIELDS_H
#define CCI_IMAGE_TAR_FIELDS_H

#include "../base/bytes.h"

#include <string.h>

struct cci_tar_time {
    int64_t sec;   /* since 1970, may be negative */
    uint32_t nsec; /* 0..999999999, always forward */
};

/* A string that may fill its field or end at a NUL. */
static struct cci_view cci_tar_string(const uint8_t *field, size_t n)
{
    const uint8_t *nul = memchr(field, 0, n);
    struct cci_view v = {field, nul ? (size_t)(nul - field) : n};
    return v;
}

static bool cci_tar_base256(const uint8_t *field, size_t n, int64_t *value)
{
    bool negative = field[0] & 0x40;
    uint64_t v = negative ? UINT64_MAX : 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = i > 0 ? field[i] : (uint8_t)(negative ? field[0] : field[0] & 0x7f);
        uint64_t top = v >> 55; /* the bits that leave, and the sign that stays, must all be the sign */
        if (top != (negative ? 0x1ff : 0))
            return false;
        v = v << 8 | byte;
    }
    *value = negative ? -(int64_t)~v - 1 : (int64_t)v;
    return true;
}

/* A number of a header block. An empty field is 0. */
static bool cci_tar_number(const uint8_t *field, size_t n, int64_t *value)
{
    size_t i = 0;
    uint64_t v = 0;
    if (field[0] & 0x80)
        return cci_tar_base256(field, n, value);
    while (i < n && (field[i] == ' ' || field[i] == 0))
        i++;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) {
        if (v >> 60)
            return false;
        v = v << 3 | (uint64_t)(field[i] - '0');
    }
    if (i < n && field[i] == 0)
        i = n;
    while (i < n && (field[i] == ' ' || field[i] == 0))
        i++;
    *value = (int64_t)v;
    return i == n;
}

/* Whether the sum of the block's bytes is as its header says; some old writers summed signed characters. */
static bool cci_tar_checksum(const uint8_t block[512])
{
    uint32_t sum = 0, high = 0;
    int64_t want;
    for (size_t i = 0; i < 512; i++) {
        sum += block[i];
        high += block[i] >> 7;
    }
    for (size_t i = 148; i < 156; i++) { /* the checksum itself counts as spaces */
        sum += 32u - block[i];
        high -= block[i] >> 7;
    }
    return cci_tar_number(block + 148, 8, &want) &&
           (want == (int64_t)sum || want == (int64_t)sum - 256 * (int64_t)high);
}

/* A decimal number without sign, up to 2^63-1. */
static bool cci_tar_decimal(struct cci_view text, uint64_t *value)
{
    uint64_t v = 0;
    if (text.n == 0)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned digit = (unsigned)text.p[i] - '0';
        if (digit > 9 || v > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *value = v;
    return true;
}

/* A decimal number with sign and fraction. What is finer than a nanosecond is dropped, towards the past. */
static bool cci_tar_decimal_time(struct cci_view text, struct cci_tar_time *time)
{
    bool negative = text.n > 0 && text.p[0] == '-';
    if (negative)
        (void)cci_view_take(&text, 1);
    const uint8_t *dot = text.n > 0 ? memchr(text.p, '.', text.n) : NULL;
    struct cci_view whole = {text.p, dot ? (size_t)(dot - text.p) : text.n};
    uint64_t sec;
    uint32_t nsec = 0;
    bool rest = false;
    if (!cci_tar_decimal(whole, &sec) || sec > INT64_MAX / 2)
        return false;
    for (size_t i = whole.n + 1, place = 100000000; i < text.n; i++, place /= 10) {
        unsigned digit = (unsigned)text.p[i] - '0';
        if (digit > 9)
            return false;
        nsec += (uint32_t)(digit * place);
        rest |= place == 0 && digit > 0;
    }
    if (negative && rest && ++nsec == 1000000000) {
        nsec = 0;
        sec++;
    }
    time->sec = negative ? -(int64_t)sec - (nsec > 0) : (int64_t)sec;
    time->nsec = negative && nsec > 0 ? 1000000000 - nsec : nsec;
    return true;
}

/* Decode base64 into `out`, which may lie at the text or before it, and has room for 3/4 of it. '=' are optional. */
static bool cci_tar_base64(struct cci_view text, uint8_t *out, size_t *n)
{
    uint32_t bits = 0;
    unsigned have = 0;
    *n = 0;
    while (text.n > 0 && text.p[text.n - 1] == '=')
        text.n--;
    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = text.p[i];
        unsigned digit = c >= 'A' && c <= 'Z'   ? (unsigned)c - 'A'
                         : c >= 'a' && c <= 'z' ? (unsigned)c - 'a' + 26
                         : c >= '0' && c <= '9' ? (unsigned)c - '0' + 52
                         : c == '+'             ? 62
                         : c == '/'             ? 63
                                                : 64;
        if (digit == 64)
            return false;
        bits = bits << 6 | digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[(*n)++] = (uint8_t)(bits >> have);
        }
    }
    return true;
}

#endif
