/*
 * virtio/state.h - a device's state as bytes, for checkpoints.
 *
 * The device is quiesced first, so every chain that was taken has been given back, and what the rings say is the whole
 * truth. Layout, all little-endian: "vdev" 4, version 4, device id 4, queue count 4, status 4, interrupts 4,
 * generation 4, three selectors 4 each, features 8, configuration size 4 and bytes, then for each queue: size 4,
 * ready 4, three addresses 8 each, next_avail 4, next_used 4; then whatever ops->save writes. RAM is saved by others
 * and must be back before a restore.
 *
 * cci_virtio_quiesce, cci_virtio_save or cci_virtio_restore, cci_virtio_resume: in this order, on the old device as on
 * the new one.
 *
 * A checkpoint file may be damaged or hostile: restore checks what the registers would have checked, and an error
 * leaves a device that a reset makes whole again.
 */
#ifndef CCI_VIRTIO_STATE_H
#define CCI_VIRTIO_STATE_H

#include "device.h"

#define CCI_VIRTIO_STATE_MAGIC 0x76656476u /* "vdev" */
#define CCI_VIRTIO_STATE_VERSION 1u

static bool cci_view_u64(struct cci_view *v, uint64_t *out)
{
    const uint8_t *p = cci_view_take(v, 8);
    if (!p)
        return false;
    *out = cci_le64(p);
    return true;
}

/* Stops, and lets what is in flight end well: from here on the device does not touch guest RAM. */
static void cci_virtio_quiesce(struct cci_virtio_dev *d)
{
    cci_mutex_lock(&d->mutex);
    cci_virtio_stop_locked(d);
    cci_mutex_unlock(&d->mutex);
}

/* Goes on after cci_virtio_quiesce: looks at every queue, since doorbells may have rung in vain, and repeats an
 * interrupt that a restored driver has not seen. */
static void cci_virtio_resume(struct cci_virtio_dev *d)
{
    cci_mutex_lock(&d->mutex);
    bool going = --d->stopped == 0;
    cci_mutex_unlock(&d->mutex);
    for (unsigned q = 0; going && q < d->ops->queues; q++)
        cci_virtio_ring(d, q);
    if (__atomic_load_n(&d->interrupts, __ATOMIC_SEQ_CST))
        cci_irq_raise(&d->irq);
}

static void cci_virtio_put32(struct cci_buf *out, uint32_t v)
{
    uint8_t b[4];
    cci_put_le32(b, v);
    (void)cci_buf_add(out, b, sizeof(b));
}

static void cci_virtio_put64(struct cci_buf *out, uint64_t v)
{
    cci_virtio_put32(out, (uint32_t)v);
    cci_virtio_put32(out, (uint32_t)(v >> 32));
}

/* Appends the state of a quiesced device. */
static cc_error_code cci_virtio_save(struct cci_virtio_dev *d, struct cci_buf *out, cc_error *err)
{
    cci_mutex_lock(&d->mutex);
    const uint32_t interrupts = __atomic_load_n(&d->interrupts, __ATOMIC_SEQ_CST);
    const uint32_t head[] = {
        CCI_VIRTIO_STATE_MAGIC, CCI_VIRTIO_STATE_VERSION, d->ops->id,      d->ops->queues, d->status, interrupts,
        d->generation,          d->offered_sel,           d->features_sel, d->queue_sel};
    for (unsigned i = 0; i < CCI_COUNT(head); i++)
        cci_virtio_put32(out, head[i]);
    cci_virtio_put64(out, d->features);
    cci_virtio_put32(out, d->config_size);
    (void)cci_buf_add(out, d->config, d->config_size);
    for (unsigned i = 0; i < d->ops->queues; i++) {
        const struct cci_vq *vq = &d->queue[i].vq;
        cci_virtio_put32(out, vq->size);
        cci_virtio_put32(out, vq->ready);
        cci_virtio_put64(out, vq->desc_gpa);
        cci_virtio_put64(out, vq->avail_gpa);
        cci_virtio_put64(out, vq->used_gpa);
        cci_virtio_put32(out, vq->next_avail);
        cci_virtio_put32(out, vq->next_used);
    }
    if (d->ops->save)
        d->ops->save(d, out);
    cci_mutex_unlock(&d->mutex);
    return out->failed ? cci_fail_nomem(err) : CC_OK;
}

static bool cci_virtio_restore_queue(struct cci_virtio_dev *d, struct cci_vq *vq, struct cci_view *in)
{
    uint32_t size, ready, next_avail, next_used;
    cci_vq_reset(vq);
    if (!cci_view_u32(in, &size) || !cci_view_u32(in, &ready) || !cci_view_u64(in, &vq->desc_gpa) ||
        !cci_view_u64(in, &vq->avail_gpa) || !cci_view_u64(in, &vq->used_gpa) || !cci_view_u32(in, &next_avail) ||
        !cci_view_u32(in, &next_used))
        return false;
    if (size > vq->size_max || ready > 1 || next_avail > UINT16_MAX || next_used > UINT16_MAX)
        return false;
    if (next_used != next_avail && !(d->status & CCI_VIRTIO_NEEDS_RESET)) /* a failed device kept the bad chain */
        return false;
    vq->size = (uint16_t)size;
    vq->indirect = cci_virtio_has(d, CCI_VIRTIO_F_INDIRECT_DESC);
    vq->event_idx = cci_virtio_has(d, CCI_VIRTIO_F_EVENT_IDX);
    vq->next_avail = vq->avail_seen = (uint16_t)next_avail;
    vq->next_used = vq->flushed = (uint16_t)next_used;
    return !ready || cci_vq_start(vq);
}

/* The common part; false if it makes no sense for this device. */
static bool cci_virtio_restore_common(struct cci_virtio_dev *d, struct cci_view *in)
{
    uint32_t head[10], config_size;
    for (unsigned i = 0; i < CCI_COUNT(head); i++)
        if (!cci_view_u32(in, &head[i]))
            return false;
    if (head[0] != CCI_VIRTIO_STATE_MAGIC || head[1] != CCI_VIRTIO_STATE_VERSION || head[2] != d->ops->id ||
        head[3] != d->ops->queues || head[4] > UINT8_MAX || head[5] > (CCI_VIRTIO_INT_USED | CCI_VIRTIO_INT_CONFIG))
        return false;
    d->status = (uint8_t)head[4];
    __atomic_store_n(&d->interrupts, head[5], __ATOMIC_SEQ_CST);
    d->generation = head[6];
    d->offered_sel = head[7];
    d->features_sel = head[8];
    d->queue_sel = head[9];
    if (!cci_view_u64(in, &d->features) || !cci_view_u32(in, &config_size) || config_size != d->config_size)
        return false;
    if ((d->status & CCI_VIRTIO_FEATURES_OK) && !cci_virtio_features_ok(d))
        return false;
    if ((d->status & CCI_VIRTIO_DRIVER_OK) && !(d->status & CCI_VIRTIO_FEATURES_OK))
        return false;
    const uint8_t *config = cci_view_take(in, config_size);
    if (config_size && !config)
        return false;
    for (unsigned i = 0; i < config_size; i++) /* what the driver may not write is the new device's own */
        if (d->config_writable >> i & 1)
            d->config[i] = config[i];
        else if (d->config[i] != config[i])
            return false;
    for (unsigned i = 0; i < d->ops->queues; i++)
        if (!cci_virtio_restore_queue(d, &d->queue[i].vq, in))
            return false;
    return true;
}

/* Reads it into a new device of the same kind and configuration, which is quiesced; cci_virtio_resume sets it going.
 * `in` moves on behind the state. */
static cc_error_code cci_virtio_restore(struct cci_virtio_dev *d, struct cci_view *in, cc_error *err)
{
    cc_error_code code = CC_OK;
    cci_mutex_lock(&d->mutex);
    if (!cci_virtio_restore_common(d, in))
        code = cci_fail(err, CC_ERR_IO, NULL,
                        "the checkpoint's state of virtio device \"%s\" does not fit this machine, or is damaged",
                        d->ops->name);
    else if (d->ops->restore)
        code = d->ops->restore(d, in, err);
    if (code != CC_OK)
        cci_virtio_reset(d);
    cci_mutex_unlock(&d->mutex);
    return code;
}

#endif
