/*
 * virtio/queue.h - split virtqueues, the device's side (virtio 1.2, sections 2.6 and 2.7).
 *
 * A queue is three tables in guest RAM. The driver fills descriptors (address, length, flags, next), puts the number
 * of a chain's first descriptor into the available ring and moves its index on; the device works through the chain
 * and puts the same number, with how many bytes it wrote, into the used ring. A chain is what may be read ("out",
 * driver to device) followed by what may be written ("in"). One descriptor of a chain, its last, may be indirect: it
 * names a table of further descriptors elsewhere in RAM.
 *
 * How data moves: cci_vq_pop takes the next chain as host pointers; cci_iov_* copy bytes out of or into it, or it goes
 * straight to preadv; cci_vq_push puts it on the used ring; and cci_vq_flush publishes everything pushed since the
 * last flush with a single move of the index and says whether the driver wants an interrupt. In the other direction
 * cci_vq_disable_notify and cci_vq_enable_notify tell the driver whether to ring the doorbell. Both directions follow
 * the event indices where VIRTIO_F_RING_EVENT_IDX was negotiated, else the flags.
 *
 * Everything here is written by the guest and may change while it is looked at. Each descriptor is copied once and the
 * copy is checked; a chain has at most CCI_VQ_MAX pieces, which also ends a loop; every piece is RAM in one range; and
 * no more chains are ever outstanding than the queue has entries. The first violation marks the queue broken for
 * good, with the reason; the device then asks to be reset (device.h). Nothing here locks: the device's mutex does.
 */
#ifndef CCI_VIRTIO_QUEUE_H
#define CCI_VIRTIO_QUEUE_H

#include "../base/iov.h"
#include "../hv/mem.h"

/* The largest queue, and the longest chain. */
#define CCI_VQ_MAX 256

#define CCI_VQ_DESC_SIZE 16 /* address 8, length 4, flags 2, next 2 */
#define CCI_VQ_DESC_NEXT 1
#define CCI_VQ_DESC_WRITE 2
#define CCI_VQ_DESC_INDIRECT 4
#define CCI_VQ_AVAIL_NO_INTERRUPT 1
#define CCI_VQ_USED_NO_NOTIFY 1

struct cci_vq {
    const struct cci_gmem *mem;
    uint16_t size_max; /* the device's offer */
    uint16_t size;     /* the driver's choice: a power of two, at most size_max */
    bool ready;        /* the driver finished setting it up: the pointers below are valid */
    bool indirect;     /* VIRTIO_F_RING_INDIRECT_DESC was negotiated */
    bool event_idx;    /* VIRTIO_F_RING_EVENT_IDX was negotiated */
    uint64_t desc_gpa; /* where the driver says that the tables are */
    uint64_t avail_gpa;
    uint64_t used_gpa;
    uint8_t *desc;       /* size * 16 bytes */
    uint8_t *avail;      /* flags 2, idx 2, ring size * 2, used_event 2 */
    uint8_t *used;       /* flags 2, idx 2, ring size * 8, avail_event 2 */
    uint16_t avail_seen; /* the driver's index when last read */
    uint16_t next_avail; /* the next entry to take; counts on through 65535, as do the next two */
    uint16_t next_used;  /* the next entry to fill */
    uint16_t flushed;    /* next_used when it was last published */
    const char *broken;  /* what the driver did wrong; NULL while all is well */
};

/* One chain, as host memory. */
struct cci_vq_chain {
    uint16_t head;                    /* its name on the rings */
    uint16_t out_count;               /* pieces to read: iov[0 .. out_count) */
    uint16_t in_count;                /* pieces to write: iov[out_count .. out_count + in_count) */
    uint32_t out_len;                 /* bytes to read */
    uint32_t in_len;                  /* bytes to write; out_len + in_len fits 32 bits too */
    struct cci_iovec iov[CCI_VQ_MAX]; /* no piece is empty */
};

static struct cci_iov cci_vq_out(const struct cci_vq_chain *c)
{
    struct cci_iov i = {c->iov, c->out_count, 0};
    return i;
}

static struct cci_iov cci_vq_in(const struct cci_vq_chain *c)
{
    struct cci_iov i = {c->iov + c->out_count, c->in_count, 0};
    return i;
}

/* ---- Setting up ------------------------------------------------------------------------------------------ */

static void cci_vq_init(struct cci_vq *q, const struct cci_gmem *mem, uint16_t size_max)
{
    memset(q, 0, sizeof(*q));
    q->mem = mem;
    q->size_max = size_max;
}

/* Back to what it was before the driver touched it. */
static void cci_vq_reset(struct cci_vq *q)
{
    cci_vq_init(q, q->mem, q->size_max);
}

/* Finds the tables in RAM, once for the life of the queue. Returns false, and q->broken says why, if they are not
 * aligned as section 2.7 asks, or not RAM. */
static bool cci_vq_start(struct cci_vq *q)
{
    uint64_t size = q->size;
    if (!size || size > q->size_max || (size & (size - 1)))
        q->broken = "queue size is no power of two within the limit";
    else if (q->desc_gpa % 16 || q->avail_gpa % 2 || q->used_gpa % 4)
        q->broken = "queue tables are not aligned";
    if (q->broken)
        return false;
    q->desc = cci_gmem_at(q->mem, q->desc_gpa, size * CCI_VQ_DESC_SIZE);
    q->avail = cci_gmem_at(q->mem, q->avail_gpa, 6 + size * 2);
    q->used = cci_gmem_at(q->mem, q->used_gpa, 6 + size * 8);
    q->ready = q->desc && q->avail && q->used;
    if (!q->ready)
        q->broken = "queue tables are not in RAM";
    return q->ready;
}

/* ---- Taking chains --------------------------------------------------------------------------------------- */

struct cci_vq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

static struct cci_vq_desc cci_vq_desc_at(const uint8_t *table, unsigned index)
{
    uint8_t copy[CCI_VQ_DESC_SIZE];
    memcpy(copy, table + (size_t)index * CCI_VQ_DESC_SIZE, sizeof(copy));
    struct cci_vq_desc d = {cci_le64(copy), cci_le32(copy + 8), cci_le16(copy + 12), cci_le16(copy + 14)};
    return d;
}

/* Adds one piece; NULL, or what is wrong with it. */
static const char *cci_vq_add_piece(const struct cci_vq *q, struct cci_vq_chain *c, const struct cci_vq_desc *d)
{
    bool write = d->flags & CCI_VQ_DESC_WRITE;
    if (!write && c->in_count)
        return "a readable descriptor follows a writable one";
    if (d->len == 0)
        return NULL;
    if (d->len > UINT32_MAX - c->out_len - c->in_len)
        return "a chain is longer than 2^32 bytes";
    void *p = cci_gmem_at(q->mem, d->addr, d->len);
    if (!p)
        return "a descriptor points outside RAM";
    struct cci_iovec *v = &c->iov[c->out_count + c->in_count];
    v->base = p;
    v->len = d->len;
    if (write) {
        c->in_count++;
        c->in_len += d->len;
    } else {
        c->out_count++;
        c->out_len += d->len;
    }
    return NULL;
}

/* Walks the chain that begins at descriptor `index`; NULL, or what is wrong with it. */
static const char *cci_vq_walk(const struct cci_vq *q, struct cci_vq_chain *c, unsigned index)
{
    const uint8_t *table = q->desc;
    unsigned entries = q->size;
    bool inside = false; /* an indirect table */
    for (unsigned steps = 0; steps < CCI_VQ_MAX + (inside ? 1u : 0u); steps++) {
        if (index >= entries)
            return "a descriptor number is out of range";
        struct cci_vq_desc d = cci_vq_desc_at(table, index);
        if (d.flags & CCI_VQ_DESC_INDIRECT) {
            if (!q->indirect || inside || (d.flags & CCI_VQ_DESC_NEXT))
                return "an indirect descriptor where none may be";
            if (d.len == 0 || d.len % CCI_VQ_DESC_SIZE || d.len / CCI_VQ_DESC_SIZE > CCI_VQ_MAX)
                return "an indirect table has a bad length";
            table = cci_gmem_at(q->mem, d.addr, d.len);
            if (!table)
                return "an indirect table is not in RAM";
            entries = d.len / CCI_VQ_DESC_SIZE;
            index = 0;
            inside = true;
            continue;
        }
        const char *wrong = cci_vq_add_piece(q, c, &d);
        if (wrong || !(d.flags & CCI_VQ_DESC_NEXT))
            return wrong;
        index = d.next;
    }
    return "a chain is too long, or a loop";
}

/* Whether a chain waits. Reads the driver's index only when the last known entries are used up. */
static bool cci_vq_has_more(struct cci_vq *q)
{
    if (!q->ready || q->broken)
        return false;
    if (q->avail_seen == q->next_avail) {
        q->avail_seen = cci_gmem_load16(q->avail + 2);
        /* What is out counts, too: what the driver has not got back, it may not offer again. The sum must not wrap, or
         * an index that goes back behind ours would pass and let the driver offer 65535 chains. */
        const uint16_t fresh = (uint16_t)(q->avail_seen - q->next_avail);
        if (fresh + (unsigned)(uint16_t)(q->next_avail - q->next_used) > q->size)
            q->broken = "more chains are offered than the queue has entries";
    }
    return !q->broken && q->avail_seen != q->next_avail;
}

/* Takes the next chain: 1, or 0 when there is none, or -1 when the queue is broken. */
static int cci_vq_pop(struct cci_vq *q, struct cci_vq_chain *c)
{
    if (!cci_vq_has_more(q))
        return q->broken ? -1 : 0;
    c->head = cci_gmem_load16(q->avail + 4 + (size_t)(q->next_avail & (q->size - 1)) * 2);
    c->out_count = c->in_count = 0;
    c->out_len = c->in_len = 0;
    q->broken = cci_vq_walk(q, c, c->head);
    if (q->broken)
        return -1;
    q->next_avail++;
    return 1;
}

/* Puts the chain taken last back, to be taken again: there is no room for it now. Only while no other was taken. */
static void cci_vq_unpop(struct cci_vq *q)
{
    q->next_avail--;
}

/* ---- Giving them back ------------------------------------------------------------------------------------ */

/* Fills the next used entry: `written` bytes at the front of the chain's "in" pieces. Seen by the driver after
 * cci_vq_flush. */
static void cci_vq_push(struct cci_vq *q, uint16_t head, uint32_t written)
{
    uint8_t entry[8];
    cci_put_le32(entry, head);
    cci_put_le32(entry + 4, written);
    memcpy(q->used + 4 + (size_t)(q->next_used & (q->size - 1)) * 8, entry, sizeof(entry));
    q->next_used++;
}

/* Publishes what was pushed; true if the driver wants an interrupt for it (section 2.7.7). */
static bool cci_vq_flush(struct cci_vq *q)
{
    uint16_t old = q->flushed;
    if (!q->ready || q->next_used == old)
        return false;
    cci_gmem_store16(q->used + 2, q->next_used);
    q->flushed = q->next_used;
    cci_gmem_fence(); /* the driver writes its wish and then looks at our index; we do it the other way round */
    if (!q->event_idx)
        return !(cci_gmem_load16(q->avail) & CCI_VQ_AVAIL_NO_INTERRUPT);
    uint16_t event = cci_gmem_load16(q->avail + 4 + (size_t)q->size * 2);
    return (uint16_t)(q->flushed - event - 1) < (uint16_t)(q->flushed - old);
}

/* ---- Doorbells ------------------------------------------------------------------------------------------- */

/* The driver need not ring while the device is looking anyway. With event indices there is nothing to do: the index
 * that was asked for has passed, and the next ring comes after the next cci_vq_enable_notify. */
static void cci_vq_disable_notify(struct cci_vq *q)
{
    if (q->ready && !q->event_idx)
        cci_gmem_store16(q->used, CCI_VQ_USED_NO_NOTIFY);
}

/* Asks for a doorbell at the next chain. True if one came in meanwhile, for which the driver may not ring: look
 * again. */
static bool cci_vq_enable_notify(struct cci_vq *q)
{
    if (!q->ready || q->broken)
        return false;
    if (q->event_idx)
        cci_gmem_store16(q->used + 4 + (size_t)q->size * 8, q->next_avail);
    else
        cci_gmem_store16(q->used, 0);
    cci_gmem_fence();
    return cci_vq_has_more(q);
}

#endif
