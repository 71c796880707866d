/*
 * virtio/balloon.h - the memory balloon (virtio 1.2, section 5.5), for free page reporting.
 *
 * The guest reports ranges that it does not use; their pages go back to the host, and read as zeroes when the guest
 * uses them again. That is all that is needed for an instance's memory to shrink, so the host never asks the guest to
 * inflate (num_pages stays 0); a guest that inflates all the same is taken at its word. DEFLATE_ON_OOM lets it take
 * such pages back whenever it wants.
 *
 * Queues: 0 inflate and 1 deflate, whose chains are lists of 32-bit page numbers to read; and the reporting queue,
 * whose chains are the free ranges themselves, as pieces to write. The specification numbers it 4 even where queues 2
 * and 3 do not exist (they belong to features that are not offered here), but most versions of Linux count only the
 * queues that they use and take 2. So every queue from 2 on is a reporting queue.
 *
 * Only whole pages of the host that lie within RAM are given back. A list of page numbers is followed for
 * CCI_BALLOON_PAGES entries, since each may be a system call of the I/O thread's; what lies behind stays as it is,
 * which is always allowed.
 */
#ifndef CCI_VIRTIO_BALLOON_H
#define CCI_VIRTIO_BALLOON_H

#include "device.h"

#define CCI_BALLOON_QUEUE_SIZE 64
#define CCI_BALLOON_INFLATE 0
#define CCI_BALLOON_DEFLATE 1
#define CCI_BALLOON_PAGE 4096u    /* of the lists, and of the host */
#define CCI_BALLOON_PAGES 256u    /* of one list: as many as Linux ever puts into one */
#define CCI_BALLOON_CONFIG_SIZE 8 /* num_pages 4, actual 4 */
#define CCI_BALLOON_F_DEFLATE_ON_OOM ((uint64_t)1 << 2)
#define CCI_BALLOON_F_REPORTING ((uint64_t)1 << 5)

struct cci_balloon {
    struct cci_virtio_dev dev;
};

/* A list of pages that the guest gives up. Neighbours are given back in one go. */
static void cci_balloon_inflate(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c)
{
    struct cci_iov out = cci_vq_out(c);
    uint64_t start = 0, n = 0; /* the run so far, in bytes */
    uint8_t entry[4];
    for (unsigned i = 0; i < CCI_BALLOON_PAGES && cci_iov_read(&out, entry, 4) == 4; i++) {
        uint64_t gpa = (uint64_t)cci_le32(entry) * CCI_BALLOON_PAGE;
        if (n && gpa == start + n && cci_gmem_at(d->mem, start, n + CCI_BALLOON_PAGE)) {
            n += CCI_BALLOON_PAGE;
            continue;
        }
        if (n)
            (void)cci_os_ram_discard(cci_gmem_at(d->mem, start, n), n);
        start = gpa;
        n = cci_gmem_at(d->mem, gpa, CCI_BALLOON_PAGE) ? CCI_BALLOON_PAGE : 0;
    }
    if (n)
        (void)cci_os_ram_discard(cci_gmem_at(d->mem, start, n), n);
    cci_virtio_push(d, q, c->head, 0);
}

/* The guest uses pages again: they are there. */
static void cci_balloon_deflate(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c)
{
    cci_virtio_push(d, q, c->head, 0);
}

/* Free ranges. They are in RAM, as every piece of a chain is. */
static void cci_balloon_report(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c)
{
    for (unsigned i = 0; i < c->in_count; i++) {
        const struct cci_iovec *v = &c->iov[c->out_count + i];
        uintptr_t end = ((uintptr_t)v->base + v->len) & ~(uintptr_t)(CCI_BALLOON_PAGE - 1);
        uintptr_t start = CCI_ALIGN_UP((uintptr_t)v->base, (uintptr_t)CCI_BALLOON_PAGE);
        if (start < end)
            (void)cci_os_ram_discard((void *)start, end - start);
    }
    cci_virtio_push(d, q, c->head, 0);
}

static void cci_balloon_notify(struct cci_virtio_dev *d, unsigned q)
{
    cci_virtio_serve(d, q,
                     q == CCI_BALLOON_INFLATE   ? cci_balloon_inflate
                     : q == CCI_BALLOON_DEFLATE ? cci_balloon_deflate
                                                : cci_balloon_report);
}

static const struct cci_virtio_ops cci_balloon_ops = {
    .name = "balloon",
    .id = CCI_VIRTIO_ID_BALLOON,
    .queues = 5,
    .queue_size = CCI_BALLOON_QUEUE_SIZE,
    .notify = cci_balloon_notify,
};

static void cci_balloon_init(struct cci_balloon *b, const struct cci_gmem *mem, struct cci_irq irq)
{
    cci_virtio_init(&b->dev, &cci_balloon_ops, mem, irq);
    b->dev.offered |= CCI_BALLOON_F_DEFLATE_ON_OOM | CCI_BALLOON_F_REPORTING;
    b->dev.config_size = CCI_BALLOON_CONFIG_SIZE;
    b->dev.config_writable = 0xf0; /* actual: how many pages the guest has given up */
}

static void cci_balloon_destroy(struct cci_balloon *b)
{
    cci_virtio_destroy(&b->dev);
}

#endif
