/*
 * registry/base64.h - base64 (RFC 4648 section 4), as the Basic scheme spells user and password.
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

#endif
