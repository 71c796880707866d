/*
 * base/bytes.h - integers in byte order, and bounded views of bytes.
 *
 * Every wire and disk format is read and written a byte at a time: no alignment, no aliasing and no
 * byte-order assumption, and compilers turn each of these into one load or store. A view is a pointer with
 * the number of bytes behind it; taking from it either stays inside or fails, so that a parser of hostile
 * bytes cannot run off the end.
 */
#ifndef CCI_BASE_BYTES_H
#define CCI_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static uint16_t cci_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | (unsigned)p[1] << 8);
}

static uint32_t cci_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t cci_le64(const uint8_t *p)
{
    return cci_le32(p) | (uint64_t)cci_le32(p + 4) << 32;
}

static uint32_t cci_be32(const uint8_t *p)
{
    return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}

static void cci_put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void cci_put_le32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

static void cci_put_le64(uint8_t *p, uint64_t v)
{
    cci_put_le32(p, (uint32_t)v);
    cci_put_le32(p + 4, (uint32_t)(v >> 32));
}

static void cci_put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* Some bytes that belong to somebody else. */
struct cci_view {
    const uint8_t *p; /* may be NULL when n is 0 */
    size_t n;
};

/* Takes the next n bytes off the front of a view; NULL, and nothing taken, when there are fewer. */
static const uint8_t *cci_view_take(struct cci_view *v, size_t n)
{
    const uint8_t *p = v->p;
    if (n > v->n || !p)
        return NULL;
    v->p += n;
    v->n -= n;
    return p;
}

static bool cci_view_u32(struct cci_view *v, uint32_t *out)
{
    const uint8_t *p = cci_view_take(v, 4);
    if (!p)
        return false;
    *out = cci_le32(p);
    return true;
}

#endif
