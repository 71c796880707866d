/*
 * base/iov.h - a walk through bytes that lie in several pieces of memory (a virtqueue's chain, a request's buffers).
 */
#ifndef CCI_BASE_IOV_H
#define CCI_BASE_IOV_H

#include "os.h"

struct cci_iov {
    const struct cci_iovec *v; /* the pieces that are left */
    unsigned count;
    size_t at; /* bytes of v[0] already behind us */
};

/* Up to n bytes in one piece, or up to the piece's end; *got is 0 when nothing is left. Moves on behind them. */
static uint8_t *cci_iov_piece(struct cci_iov *i, size_t n, size_t *got)
{
    while (i->count && i->at == i->v->len) {
        i->v++;
        i->count--;
        i->at = 0;
    }
    if (!i->count) {
        *got = 0;
        return NULL;
    }
    uint8_t *p = (uint8_t *)i->v->base + i->at;
    *got = CCI_MIN(n, i->v->len - i->at);
    i->at += *got;
    return p;
}

/* Each of these three gives how many bytes it covered: fewer than n only at the chain's end. */
static size_t cci_iov_read(struct cci_iov *i, void *buf, size_t n)
{
    size_t done = 0, got;
    for (uint8_t *p; done < n && (p = cci_iov_piece(i, n - done, &got)) != NULL; done += got)
        memcpy((uint8_t *)buf + done, p, got);
    return done;
}

static size_t cci_iov_write(struct cci_iov *i, const void *buf, size_t n)
{
    size_t done = 0, got;
    for (uint8_t *p; done < n && (p = cci_iov_piece(i, n - done, &got)) != NULL; done += got)
        memcpy(p, (const uint8_t *)buf + done, got);
    return done;
}

static size_t cci_iov_skip(struct cci_iov *i, size_t n)
{
    size_t done = 0, got;
    while (done < n && cci_iov_piece(i, n - done, &got) != NULL)
        done += got;
    return done;
}

/* The next n bytes as at most `max` pieces, for vectored I/O; *bytes is how many they cover. */
static unsigned cci_iov_take(struct cci_iov *i, size_t n, struct cci_iovec *out, unsigned max, size_t *bytes)
{
    unsigned count = 0;
    size_t got;
    for (*bytes = 0; count < max && *bytes < n; *bytes += got) {
        uint8_t *p = cci_iov_piece(i, n - *bytes, &got);
        if (!p)
            break;
        out[count].base = p;
        out[count++].len = got;
    }
    return count;
}

#endif
