/*
 * virtio/vsock_ring.h - a byte queue that takes memory only while it holds something.
 *
 * Each connection has two: what the guest sent and nobody has read yet, and what was written and the guest had no
 * room for yet. Most connections are idle most of the time, so a ring grows by doubling up to the limit its owner
 * passes and gives a large buffer back when it runs empty.
 */
#ifndef CCI_VIRTIO_VSOCK_RING_H
#define CCI_VIRTIO_VSOCK_RING_H

#include "../base/mem.h"

#define CCI_VSOCK_RING_MIN 4096u   /* the first buffer */
#define CCI_VSOCK_RING_KEEP 16384u /* an empty ring keeps a buffer up to this size */

struct cci_vsock_ring {
    uint8_t *p;
    uint32_t cap;  /* bytes allocated: 0 or a power of two */
    uint32_t head; /* where the oldest byte is */
    uint32_t used; /* bytes held */
};

static void cci_vsock_ring_free(struct cci_vsock_ring *r)
{
    cci_mem_free(r->p);
    memset(r, 0, sizeof(*r));
}

/* The next piece of at most n bytes to be read, in place. */
static const uint8_t *cci_vsock_ring_front(const struct cci_vsock_ring *r, uint32_t n, uint32_t *got)
{
    *got = CCI_MIN(CCI_MIN(n, r->used), r->cap - r->head);
    return r->p + r->head;
}

/* Drops n bytes, at most r->used, from the front. */
static void cci_vsock_ring_drop(struct cci_vsock_ring *r, uint32_t n)
{
    r->used -= n;
    r->head = r->used ? (r->head + n) & (r->cap - 1) : 0;
    if (!r->used && r->cap > CCI_VSOCK_RING_KEEP)
        cci_vsock_ring_free(r);
}

/* Takes up to n bytes. */
static uint32_t cci_vsock_ring_read(struct cci_vsock_ring *r, uint8_t *buf, size_t n)
{
    uint32_t want = (uint32_t)CCI_MIN(n, r->used), got;
    for (uint32_t at = 0; at < want; at += got) {
        const uint8_t *from = cci_vsock_ring_front(r, want - at, &got);
        memcpy(buf + at, from, got);
        cci_vsock_ring_drop(r, got);
    }
    return want;
}

/* Makes room for n more bytes, as long as that is within `limit` (a power of two) in all. False: too many, or no
 * memory; what is held stays. */
static bool cci_vsock_ring_reserve(struct cci_vsock_ring *r, uint32_t n, uint32_t limit)
{
    if (n > limit || r->used > limit - n)
        return false;
    if (r->used + n <= r->cap)
        return true;
    uint32_t cap = r->cap ? r->cap : CCI_VSOCK_RING_MIN;
    while (cap < r->used + n)
        cap *= 2;
    uint8_t *p = cci_mem_alloc(cap);
    if (!p)
        return false;
    uint32_t first = CCI_MIN(r->used, r->cap - r->head);
    if (r->used) {
        memcpy(p, r->p + r->head, first);
        memcpy(p + first, r->p, r->used - first);
    }
    cci_mem_free(r->p);
    r->p = p;
    r->cap = cap;
    r->head = 0;
    return true;
}

/* Where up to n bytes that were reserved go, in one piece; cci_vsock_ring_added says that they are there. */
static uint8_t *cci_vsock_ring_back(const struct cci_vsock_ring *r, uint32_t n, uint32_t *got)
{
    uint32_t at = (r->head + r->used) & (r->cap - 1);
    *got = CCI_MIN(CCI_MIN(n, r->cap - r->used), r->cap - at);
    return r->p + at;
}

static void cci_vsock_ring_added(struct cci_vsock_ring *r, uint32_t n)
{
    r->used += n;
}

#endif
