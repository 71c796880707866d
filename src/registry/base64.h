/*
 * registry/base64.h - base64 (RFC 4648 section 4): logins, keys and checksums are spelt in it.
 */
#ifndef CCI_REGISTRY_BASE64_H
#define CCI_REGISTRY_BASE64_H

#include "../base/mem.h"

/* The n bytes, spelt with padding; NULL when there is no memory. */
static char *cci_base64_encode(const void *data, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = data;
    char *text = n < SIZE_MAX / 2 ? cci_mem_alloc((n + 2) / 3 * 4 + 1) : NULL;
    char *out = text;
    for (size_t i = 0; text && i < n; i += 3) {
        size_t have = CCI_MIN(n - i, (size_t)3);
        uint32_t v = (uint32_t)p[i] << 16;
        v |= have > 1 ? (uint32_t)p[i + 1] << 8 : 0;
        v |= have > 2 ? p[i + 2] : 0u;
        *out++ = digit[v >> 18];
        *out++ = digit[v >> 12 & 63];
        *out++ = have > 1 ? digit[v >> 6 & 63] : '=';
        *out++ = have > 2 ? digit[v & 63] : '=';
    }
    if (text)
        *out = '\0';
    return text;
}

/* The value of a digit; 64 for anything else. */
static unsigned cci_base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* The bytes that n digits take at most. */
static size_t cci_base64_room(size_t n)
{
    return n / 4 * 3 + 3;
}

/* Decodes n digits to `out`, which has that room; padding may be missing. False when it is no base64. */
static bool cci_base64_decode(const char *text, size_t n, uint8_t *out, size_t *out_n)
{
    uint32_t bits = 0;
    unsigned have = 0;
    *out_n = 0;
    while (n && text[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        unsigned d = cci_base64_digit(text[i]);
        if (d > 63)
            return false;
        bits = bits << 6 | d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[(*out_n)++] = (uint8_t)(bits >> have);
        }
    }
    return n % 4 != 1;
}

#endif
