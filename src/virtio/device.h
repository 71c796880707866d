/*
 * virtio/device.h - what every virtio device has in common (virtio 1.2, chapters 2 and 3).
 *
 * A device is a const table of operations (struct cci_virtio_ops) and a state that begins with struct cci_virtio_dev:
 * status, negotiated features, configuration space, interrupt status and queues. The transport (mmio.h) turns register
 * accesses into the calls of this file.
 *
 * Threads. Doorbells are eventfds watched by the instance's I/O thread (a bare register write rings the same eventfd
 * where the hypervisor has no ioeventfd), so ops->notify runs there. Register accesses come on vCPU threads, and work
 * that a device hands to a pool completes on the pool's threads. One mutex in the device guards all of its state and
 * queues; each operation below says whether it is called with the mutex held. Interrupt status alone is atomic, because
 * the driver reads it at every interrupt and should not wait for a request that the I/O thread is serving.
 *
 * Stopping. Chains that are being worked on outside the mutex are counted in `in_flight`. A reset, the end, and a save
 * (state.h) stop taking new chains and wait for these; then guest RAM is no longer touched. Only the save lets them end
 * well, the others have them cut short.
 *
 * Failing. A driver that breaks the rules gets DEVICE_NEEDS_RESET and a configuration interrupt (section 2.1.2); until
 * it resets the device nothing more is served. The process carries on.
 */
#ifndef CCI_VIRTIO_DEVICE_H
#define CCI_VIRTIO_DEVICE_H

#include "../base/error.h"
#include "../base/loop.h"
#include "../hv/irq.h"
#include "queue.h"

#define CCI_VIRTIO_QUEUES 5  /* the most that any device here has */
#define CCI_VIRTIO_CONFIG 64 /* bytes of configuration space, the most that any device here has */

/* Device status (section 2.1). */
#define CCI_VIRTIO_ACKNOWLEDGE 1
#define CCI_VIRTIO_DRIVER 2
#define CCI_VIRTIO_DRIVER_OK 4
#define CCI_VIRTIO_FEATURES_OK 8
#define CCI_VIRTIO_NEEDS_RESET 64
#define CCI_VIRTIO_FAILED 128

/* Interrupt status (section 4.2.2). */
#define CCI_VIRTIO_INT_USED 1u
#define CCI_VIRTIO_INT_CONFIG 2u

/* Features of every device (chapter 6). */
#define CCI_VIRTIO_F_INDIRECT_DESC ((uint64_t)1 << 28)
#define CCI_VIRTIO_F_EVENT_IDX ((uint64_t)1 << 29)
#define CCI_VIRTIO_F_VERSION_1 ((uint64_t)1 << 32)

#define CCI_VIRTIO_ID_BLOCK 2
#define CCI_VIRTIO_ID_RNG 4
#define CCI_VIRTIO_ID_BALLOON 5
#define CCI_VIRTIO_ID_VSOCK 19

struct cci_virtio_dev;

/* What makes a device the device that it is. Members marked "or NULL" may be left out. */
struct cci_virtio_ops {
    const char *name; /* for messages */
    uint32_t id;      /* CCI_VIRTIO_ID_* */
    unsigned queues;
    uint16_t queue_size; /* the largest, for each queue; at most CCI_VQ_MAX */
    /* The driver may have put chains on queue q. On the I/O thread, mutex held; not while the device is stopped. */
    void (*notify)(struct cci_virtio_dev *d, unsigned q);
    /* Or NULL. On the I/O thread after each notify, mutex not held: for calls into others that may call back. */
    void (*settle)(struct cci_virtio_dev *d);
    /* Or NULL. The driver wrote n bytes of d->config at `offset`, all of them writable. Mutex held; any thread. */
    void (*config_written)(struct cci_virtio_dev *d, unsigned offset, unsigned n);
    /* Or NULL. The driver said DRIVER_OK: features and queues are known. Mutex held; any thread. */
    void (*start)(struct cci_virtio_dev *d);
    /* Or NULL. The driver reset the device: forget what belonged to it. Nothing is in flight and the queues are
     * empty. Mutex held; any thread. */
    void (*reset)(struct cci_virtio_dev *d);
    /* Or NULL, both. The device's own state, behind the common one, with a version in front if it may ever change.
     * Quiesced, mutex held; any thread. A failed append is found by the caller (cci_buf.failed). restore comes
     * after features, configuration space and queues have been restored, and takes exactly what save wrote. */
    void (*save)(struct cci_virtio_dev *d, struct cci_buf *out);
    cc_error_code (*restore)(struct cci_virtio_dev *d, struct cci_view *in, cc_error *err);
    /* Or NULL, both: for a device that has threads of its own in place of the loop. attach makes the doorbells and has
     * them watched; detach undoes that, also after a failed attach, and twice. Mutex not held; the owner's thread. */
    cc_error_code (*attach)(struct cci_virtio_dev *d, cc_error *err);
    void (*detach)(struct cci_virtio_dev *d);
};

struct cci_virtio_queue {
    struct cci_vq vq;
    struct cci_virtio_dev *dev;
    unsigned index;
    cci_fd doorbell; /* signalled by a guest write of `index` to QueueNotify; CCI_NO_FD until attached */
    struct cci_loop_source source;
};

struct cci_virtio_dev {
    const struct cci_virtio_ops *ops;
    const struct cci_gmem *mem;
    struct cci_irq irq;
    struct cci_loop *loop;  /* NULL until attached */
    struct cci_mutex mutex; /* guards everything below, unless it says otherwise */
    struct cci_cond idle;   /* in_flight became 0 */
    unsigned in_flight;     /* chains that are worked on outside the mutex */
    unsigned stopped;       /* quiesces under way or not yet resumed */
    uint32_t dropping;      /* atomic: while it is not 0, nobody wants to know how what is in flight ends */
    uint64_t offered;       /* features; set by the device's maker */
    uint64_t features;      /* accepted by the driver; final from FEATURES_OK on */
    uint32_t offered_sel;   /* registers DeviceFeaturesSel, DriverFeaturesSel, QueueSel */
    uint32_t features_sel;
    uint32_t queue_sel;
    uint8_t status;
    uint32_t interrupts; /* CCI_VIRTIO_INT_*: atomic, not under the mutex */
    uint32_t generation; /* of the configuration space */
    uint8_t config[CCI_VIRTIO_CONFIG];
    unsigned config_size;
    uint64_t config_writable; /* bit n: the driver may write byte n */
    const char *why;          /* what the driver did wrong last; NULL if nothing */
    struct cci_virtio_queue queue[CCI_VIRTIO_QUEUES];
};

/* ---- Interrupts and failure ------------------------------------------------------------------------------ */

/* Any thread, with or without the mutex. */
static void cci_virtio_interrupt(struct cci_virtio_dev *d, uint32_t which)
{
    (void)__atomic_fetch_or(&d->interrupts, which, __ATOMIC_SEQ_CST);
    cci_irq_raise(&d->irq);
}

static bool cci_virtio_has(const struct cci_virtio_dev *d, uint64_t feature)
{
    return (d->features & feature) == feature;
}

/* Whether chains may be taken at all. Mutex held. */
static bool cci_virtio_running(const struct cci_virtio_dev *d)
{
    return (d->status & CCI_VIRTIO_DRIVER_OK) && !(d->status & (CCI_VIRTIO_NEEDS_RESET | CCI_VIRTIO_FAILED)) &&
           !d->stopped;
}

/* The driver broke a rule. `why` is a string constant. Mutex held. */
static void cci_virtio_fail(struct cci_virtio_dev *d, const char *why)
{
    if (d->status & CCI_VIRTIO_NEEDS_RESET)
        return;
    d->status |= CCI_VIRTIO_NEEDS_RESET;
    d->why = why;
    if (d->status & CCI_VIRTIO_DRIVER_OK)
        cci_virtio_interrupt(d, CCI_VIRTIO_INT_CONFIG);
}

/* ---- Queues, with the mutex held ------------------------------------------------------------------------- */

/* Takes the next chain of queue q, if the device may run. A bad one fails the device, and reads as none. */
static bool cci_virtio_pop(struct cci_virtio_dev *d, unsigned q, struct cci_vq_chain *c)
{
    struct cci_vq *vq = &d->queue[q].vq;
    if (!cci_virtio_running(d))
        return false;
    int r = cci_vq_pop(vq, c);
    if (r < 0)
        cci_virtio_fail(d, vq->broken);
    return r > 0;
}

/* Gives a chain back; the driver sees it after cci_virtio_flush. */
static void cci_virtio_push(struct cci_virtio_dev *d, unsigned q, uint16_t head, uint32_t written)
{
    cci_vq_push(&d->queue[q].vq, head, written);
}

/* Publishes what was pushed, with an interrupt if the driver wants one. */
static void cci_virtio_flush(struct cci_virtio_dev *d, unsigned q)
{
    if (cci_vq_flush(&d->queue[q].vq))
        cci_virtio_interrupt(d, CCI_VIRTIO_INT_USED);
}

/* Has queue q looked at again soon, on the I/O thread. Any thread, mutex not needed; a device without a loop (in
 * tests) is served when its driver rings next. */
static void cci_virtio_ring(struct cci_virtio_dev *d, unsigned q)
{
    if (d->queue[q].doorbell != CCI_NO_FD)
        cci_os_eventfd_signal(d->queue[q].doorbell);
}

/* What most devices do when notified: fn deals with each chain in turn (pushing it now or later), with the doorbell
 * off meanwhile. It ends after as many chains as the queue has entries, so that a driver that never stops does not
 * keep the I/O thread from others; the queue then gets another turn. */
static void cci_virtio_serve(struct cci_virtio_dev *d, unsigned q,
                             void (*fn)(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c))
{
    struct cci_vq *vq = &d->queue[q].vq;
    struct cci_vq_chain chain;
    unsigned left = vq->size;
    do {
        cci_vq_disable_notify(vq);
        for (; left && cci_virtio_pop(d, q, &chain); left--)
            fn(d, q, &chain);
        cci_virtio_flush(d, q);
    } while (cci_vq_enable_notify(vq) && left && cci_virtio_running(d));
    if (vq->broken)
        cci_virtio_fail(d, vq->broken);
    else if (!left)
        cci_virtio_ring(d, q);
}

/* The doorbell of queue q rang. On the I/O thread, mutex not held. */
static void cci_virtio_notify(struct cci_virtio_dev *d, unsigned q)
{
    cci_mutex_lock(&d->mutex);
    if (q < d->ops->queues && cci_virtio_running(d) && d->queue[q].vq.ready)
        d->ops->notify(d, q);
    cci_mutex_unlock(&d->mutex);
    if (d->ops->settle)
        d->ops->settle(d);
}

/* ---- Stopping ------------------------------------------------------------------------------------------- */

/* Work on one chain goes on outside the mutex: begin and end, mutex held. */
static void cci_virtio_begin(struct cci_virtio_dev *d)
{
    d->in_flight++;
}

static void cci_virtio_end(struct cci_virtio_dev *d)
{
    if (--d->in_flight == 0)
        cci_cond_wake(&d->idle);
}

/* Takes no more chains and waits until none is in flight. Mutex held, and let go of while waiting. */
static void cci_virtio_stop_locked(struct cci_virtio_dev *d)
{
    d->stopped++;
    while (d->in_flight)
        (void)cci_cond_wait(&d->idle, &d->mutex, CCI_FOREVER);
}

/* The same, for a driver that will not look at the results, or is gone: what takes long is cut short. */
static void cci_virtio_drop_locked(struct cci_virtio_dev *d)
{
    (void)__atomic_fetch_add(&d->dropping, 1, __ATOMIC_SEQ_CST);
    cci_virtio_stop_locked(d);
    (void)__atomic_fetch_sub(&d->dropping, 1, __ATOMIC_SEQ_CST);
}

/* For whoever works on a chain outside the mutex: whether to give it back as failed at once. */
static bool cci_virtio_dropping(const struct cci_virtio_dev *d)
{
    return __atomic_load_n(&d->dropping, __ATOMIC_SEQ_CST) != 0;
}

/* ---- What the driver does through the transport; mutex held ---------------------------------------------- */

/* Section 2.4. Waits for what is in flight. */
static void cci_virtio_reset(struct cci_virtio_dev *d)
{
    cci_virtio_drop_locked(d);
    for (unsigned q = 0; q < d->ops->queues; q++)
        cci_vq_reset(&d->queue[q].vq);
    d->status = 0;
    d->features = 0;
    d->offered_sel = d->features_sel = d->queue_sel = 0;
    __atomic_store_n(&d->interrupts, 0, __ATOMIC_SEQ_CST);
    if (d->ops->reset)
        d->ops->reset(d);
    d->stopped--;
}

/* Section 3.1.1: FEATURES_OK stays clear if the driver accepted what was not offered, or not version 1. */
static bool cci_virtio_features_ok(const struct cci_virtio_dev *d)
{
    return !(d->features & ~d->offered) && cci_virtio_has(d, CCI_VIRTIO_F_VERSION_1);
}

/* A write to the status register. Bits are only ever added; 0 resets. */
static void cci_virtio_set_status(struct cci_virtio_dev *d, uint8_t value)
{
    if (value == 0) {
        cci_virtio_reset(d);
        return;
    }
    uint8_t added = (uint8_t)(value & ~(d->status | CCI_VIRTIO_NEEDS_RESET));
    if ((added & CCI_VIRTIO_FEATURES_OK) && !cci_virtio_features_ok(d))
        added &= (uint8_t) ~(unsigned)(CCI_VIRTIO_FEATURES_OK | CCI_VIRTIO_DRIVER_OK);
    d->status |= added & (uint8_t) ~(unsigned)CCI_VIRTIO_DRIVER_OK;
    if (!(added & CCI_VIRTIO_DRIVER_OK))
        return;
    if (!(d->status & CCI_VIRTIO_FEATURES_OK)) {
        cci_virtio_fail(d, "DRIVER_OK without FEATURES_OK");
        return;
    }
    d->status |= CCI_VIRTIO_DRIVER_OK;
    if (d->ops->start)
        d->ops->start(d);
    for (unsigned q = 0; q < d->ops->queues; q++)
        cci_virtio_ring(d, q);
}

/* One half of the driver's features; refused once they are final. */
static void cci_virtio_set_features(struct cci_virtio_dev *d, unsigned half, uint32_t value)
{
    if (d->status & CCI_VIRTIO_FEATURES_OK || half > 1)
        return;
    unsigned shift = half * 32;
    d->features = (d->features & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)value << shift;
}

/* A write to QueueReady: 1 starts the queue, 0 ends it, after what is in flight. */
static void cci_virtio_set_ready(struct cci_virtio_dev *d, unsigned q, bool ready)
{
    struct cci_vq *vq = &d->queue[q].vq;
    if (!ready && vq->ready) {
        cci_virtio_drop_locked(d);
        cci_vq_reset(vq);
        d->stopped--;
        for (unsigned i = 0; i < d->ops->queues; i++) /* the others' doorbells may have rung in vain meanwhile */
            cci_virtio_ring(d, i);
    } else if (ready && !vq->ready) {
        if (!(d->status & CCI_VIRTIO_FEATURES_OK)) {
            cci_virtio_fail(d, "a queue was set up before FEATURES_OK");
            return;
        }
        vq->indirect = cci_virtio_has(d, CCI_VIRTIO_F_INDIRECT_DESC);
        vq->event_idx = cci_virtio_has(d, CCI_VIRTIO_F_EVENT_IDX);
        if (!cci_vq_start(vq))
            cci_virtio_fail(d, vq->broken);
    }
}

/* Reads n bytes of configuration space; what lies behind its end reads as zero. */
static void cci_virtio_config_read(const struct cci_virtio_dev *d, uint64_t offset, uint8_t *data, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        data[i] = offset + i < d->config_size ? d->config[offset + i] : 0;
}

/* Writes n bytes of it, if the driver may write all of them. */
static void cci_virtio_config_write(struct cci_virtio_dev *d, uint64_t offset, const uint8_t *data, unsigned n)
{
    if (offset >= d->config_size || n > d->config_size - offset)
        return;
    for (unsigned i = 0; i < n; i++)
        if (!(d->config_writable >> (offset + i) & 1))
            return;
    memcpy(d->config + offset, data, n);
    d->generation++;
    if (d->ops->config_written)
        d->ops->config_written(d, (unsigned)offset, n);
}

/* ---- Life ------------------------------------------------------------------------------------------------- */

/* Prepares the common part, which the device's maker then completes: offered (device features are added to the
 * common ones), config, config_size, config_writable. mem and what irq refers to must outlive it. Cannot fail. */
static void cci_virtio_init(struct cci_virtio_dev *d, const struct cci_virtio_ops *ops, const struct cci_gmem *mem,
                            struct cci_irq irq)
{
    memset(d, 0, sizeof(*d));
    d->ops = ops;
    d->mem = mem;
    d->irq = irq;
    d->offered = CCI_VIRTIO_F_VERSION_1 | CCI_VIRTIO_F_INDIRECT_DESC | CCI_VIRTIO_F_EVENT_IDX;
    cci_mutex_init(&d->mutex);
    cci_cond_init(&d->idle);
    for (unsigned q = 0; q < CCI_VIRTIO_QUEUES; q++) {
        d->queue[q].dev = d;
        d->queue[q].index = q;
        d->queue[q].doorbell = CCI_NO_FD;
        cci_vq_init(&d->queue[q].vq, mem, ops->queue_size);
    }
}

static void cci_virtio_on_doorbell(void *ctx, uint32_t events)
{
    struct cci_virtio_queue *q = ctx;
    (void)events;
    if (cci_os_eventfd_take(q->doorbell))
        cci_virtio_notify(q->dev, q->index);
}

/* Takes the device off its loop. Safe after a failed attach, and twice. On the loop's thread, or while that does not
 * run. */
static void cci_virtio_detach(struct cci_virtio_dev *d)
{
    if (d->ops->detach) {
        d->ops->detach(d);
        return;
    }
    for (unsigned q = 0; q < d->ops->queues; q++) {
        struct cci_virtio_queue *vq = &d->queue[q];
        if (vq->source.fn)
            cci_loop_remove(d->loop, &vq->source);
        vq->source.fn = NULL;
        cci_os_close(vq->doorbell);
        vq->doorbell = CCI_NO_FD;
    }
    d->loop = NULL;
}

/* Makes the doorbells and has the loop watch them. The machine connects queue[i].doorbell to guest writes of i to
 * QueueNotify where it can. On the loop's thread, or while that does not run. */
static cc_error_code cci_virtio_attach(struct cci_virtio_dev *d, struct cci_loop *loop, cc_error *err)
{
    cc_error_code code = CC_OK;
    if (d->ops->attach)
        return d->ops->attach(d, err);
    d->loop = loop;
    for (unsigned i = 0; code == CC_OK && i < d->ops->queues; i++) {
        struct cci_virtio_queue *q = &d->queue[i];
        q->doorbell = cci_os_eventfd();
        if (q->doorbell < 0) {
            code = cci_fail_errno(err, CC_ERR_IO, -q->doorbell, NULL, "cannot make a doorbell: too many open files?");
            break;
        }
        struct cci_loop_source source = {cci_virtio_on_doorbell, q, q->doorbell};
        q->source = source;
        code = cci_loop_add(loop, &q->source, CCI_LOOP_READ, err);
        if (code != CC_OK)
            q->source.fn = NULL;
    }
    if (code != CC_OK)
        cci_virtio_detach(d);
    return code;
}

/* The end of the common part: detached, no vCPU running; waits for what is in flight. */
static void cci_virtio_destroy(struct cci_virtio_dev *d)
{
    cci_mutex_lock(&d->mutex);
    cci_virtio_drop_locked(d);
    cci_mutex_unlock(&d->mutex);
    cci_cond_destroy(&d->idle);
    cci_mutex_destroy(&d->mutex);
}

#endif
