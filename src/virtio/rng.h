/*
 * virtio/rng.h - the entropy device (virtio 1.2, section 5.4).
 *
 * One queue; each chain is room that the device fills with the operating system's randomness, straight into the
 * guest's memory. A chain gets at most CCI_RNG_MAX bytes, and the used entry says how many: a driver that wants more
 * asks again, and one that asks for gigabytes does not keep the I/O thread busy.
 */
#ifndef CCI_VIRTIO_RNG_H
#define CCI_VIRTIO_RNG_H

#include "device.h"

#define CCI_RNG_QUEUE_SIZE 8
#define CCI_RNG_MAX 4096u

struct cci_rng {
    struct cci_virtio_dev dev;
};

static void cci_rng_chain(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c)
{
    struct cci_iov in = cci_vq_in(c);
    uint32_t done = 0;
    size_t got;
    for (uint8_t *p; done < CCI_RNG_MAX && (p = cci_iov_piece(&in, CCI_RNG_MAX - done, &got)) != NULL;) {
        if (cci_os_random(p, got) < 0)
            break;
        done += (uint32_t)got;
    }
    cci_virtio_push(d, q, c->head, done);
}

static void cci_rng_notify(struct cci_virtio_dev *d, unsigned q)
{
    cci_virtio_serve(d, q, cci_rng_chain);
}

static const struct cci_virtio_ops cci_rng_ops = {
    .name = "rng",
    .id = CCI_VIRTIO_ID_RNG,
    .queues = 1,
    .queue_size = CCI_RNG_QUEUE_SIZE,
    .notify = cci_rng_notify,
};

static void cci_rng_init(struct cci_rng *r, const struct cci_gmem *mem, struct cci_irq irq)
{
    cci_virtio_init(&r->dev, &cci_rng_ops, mem, irq);
}

static void cci_rng_destroy(struct cci_rng *r)
{
    cci_virtio_destroy(&r->dev);
}

#endif
