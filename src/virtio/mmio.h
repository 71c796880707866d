/*
 * virtio/mmio.h - the register file of a device on the memory-mapped transport (virtio 1.2, section 4.2.2).
 *
 * A device shows 0x100 bytes of registers, each 4 bytes wide, and its configuration space behind them. Exits of vCPUs
 * end here, so the two functions may be called from any thread. Registers answer to aligned 4-byte accesses only:
 * others read as zero and are ignored when written, as are accesses to registers that do not exist. The configuration
 * space takes any size up to 8. The legacy interface (version 1) is not supported.
 *
 * QueueNotify usually does not arrive here, because the hypervisor signals the doorbell itself (ioeventfd).
 */
#ifndef CCI_VIRTIO_MMIO_H
#define CCI_VIRTIO_MMIO_H

#include "device.h"

#define CCI_VIRTIO_MMIO_SIZE 0x200u /* bytes of guest-physical space that one device takes */
#define CCI_VIRTIO_MMIO_CONFIG 0x100u
#define CCI_VIRTIO_MMIO_MAGIC 0x74726976u  /* "virt" */
#define CCI_VIRTIO_MMIO_VENDOR 0x2e686363u /* "cch." */

enum cci_virtio_reg {
    CCI_VIRTIO_REG_MAGIC = 0x00,
    CCI_VIRTIO_REG_VERSION = 0x04,
    CCI_VIRTIO_REG_DEVICE_ID = 0x08,
    CCI_VIRTIO_REG_VENDOR_ID = 0x0c,
    CCI_VIRTIO_REG_DEVICE_FEATURES = 0x10,
    CCI_VIRTIO_REG_DEVICE_FEATURES_SEL = 0x14,
    CCI_VIRTIO_REG_DRIVER_FEATURES = 0x20,
    CCI_VIRTIO_REG_DRIVER_FEATURES_SEL = 0x24,
    CCI_VIRTIO_REG_QUEUE_SEL = 0x30,
    CCI_VIRTIO_REG_QUEUE_NUM_MAX = 0x34,
    CCI_VIRTIO_REG_QUEUE_NUM = 0x38,
    CCI_VIRTIO_REG_QUEUE_READY = 0x44,
    CCI_VIRTIO_REG_QUEUE_NOTIFY = 0x50,
    CCI_VIRTIO_REG_INTERRUPT_STATUS = 0x60,
    CCI_VIRTIO_REG_INTERRUPT_ACK = 0x64,
    CCI_VIRTIO_REG_STATUS = 0x70,
    CCI_VIRTIO_REG_QUEUE_DESC_LOW = 0x80,
    CCI_VIRTIO_REG_QUEUE_DESC_HIGH = 0x84,
    CCI_VIRTIO_REG_QUEUE_DRIVER_LOW = 0x90,
    CCI_VIRTIO_REG_QUEUE_DRIVER_HIGH = 0x94,
    CCI_VIRTIO_REG_QUEUE_DEVICE_LOW = 0xa0,
    CCI_VIRTIO_REG_QUEUE_DEVICE_HIGH = 0xa4,
    CCI_VIRTIO_REG_SHM_LEN_LOW = 0xb0,
    CCI_VIRTIO_REG_SHM_LEN_HIGH = 0xb4,
    CCI_VIRTIO_REG_SHM_BASE_LOW = 0xb8,
    CCI_VIRTIO_REG_SHM_BASE_HIGH = 0xbc,
    CCI_VIRTIO_REG_CONFIG_GENERATION = 0xfc
};

/* The queue that QueueSel names; NULL if there is none. */
static struct cci_vq *cci_virtio_mmio_queue(struct cci_virtio_dev *d)
{
    return d->queue_sel < d->ops->queues ? &d->queue[d->queue_sel].vq : NULL;
}

static uint32_t cci_virtio_mmio_get(struct cci_virtio_dev *d, uint64_t reg)
{
    const struct cci_vq *vq = cci_virtio_mmio_queue(d);
    switch (reg) {
    case CCI_VIRTIO_REG_MAGIC:
        return CCI_VIRTIO_MMIO_MAGIC;
    case CCI_VIRTIO_REG_VERSION:
        return 2;
    case CCI_VIRTIO_REG_DEVICE_ID:
        return d->ops->id;
    case CCI_VIRTIO_REG_VENDOR_ID:
        return CCI_VIRTIO_MMIO_VENDOR;
    case CCI_VIRTIO_REG_DEVICE_FEATURES:
        return d->offered_sel > 1 ? 0 : (uint32_t)(d->offered >> (d->offered_sel * 32));
    case CCI_VIRTIO_REG_QUEUE_NUM_MAX:
        return vq ? vq->size_max : 0;
    case CCI_VIRTIO_REG_QUEUE_READY:
        return vq && vq->ready;
    case CCI_VIRTIO_REG_STATUS:
        return d->status;
    case CCI_VIRTIO_REG_SHM_LEN_LOW: /* no shared memory regions: length and base of all ones */
    case CCI_VIRTIO_REG_SHM_LEN_HIGH:
    case CCI_VIRTIO_REG_SHM_BASE_LOW:
    case CCI_VIRTIO_REG_SHM_BASE_HIGH:
        return UINT32_MAX;
    case CCI_VIRTIO_REG_CONFIG_GENERATION:
        return d->generation;
    default:
        return 0;
    }
}

static void cci_virtio_mmio_set_half(uint64_t *to, unsigned shift, uint32_t value)
{
    *to = (*to & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)value << shift;
}

/* Registers that describe the selected queue. They do not change while it is in use. */
static void cci_virtio_mmio_set_queue(struct cci_vq *vq, uint64_t reg, uint32_t value)
{
    if (!vq || vq->ready)
        return;
    switch (reg) {
    case CCI_VIRTIO_REG_QUEUE_NUM:
        vq->size = value <= vq->size_max ? (uint16_t)value : 0;
        break;
    case CCI_VIRTIO_REG_QUEUE_DESC_LOW:
    case CCI_VIRTIO_REG_QUEUE_DESC_HIGH:
        cci_virtio_mmio_set_half(&vq->desc_gpa, reg == CCI_VIRTIO_REG_QUEUE_DESC_HIGH ? 32 : 0, value);
        break;
    case CCI_VIRTIO_REG_QUEUE_DRIVER_LOW:
    case CCI_VIRTIO_REG_QUEUE_DRIVER_HIGH:
        cci_virtio_mmio_set_half(&vq->avail_gpa, reg == CCI_VIRTIO_REG_QUEUE_DRIVER_HIGH ? 32 : 0, value);
        break;
    case CCI_VIRTIO_REG_QUEUE_DEVICE_LOW:
    case CCI_VIRTIO_REG_QUEUE_DEVICE_HIGH:
        cci_virtio_mmio_set_half(&vq->used_gpa, reg == CCI_VIRTIO_REG_QUEUE_DEVICE_HIGH ? 32 : 0, value);
        break;
    default:
        break;
    }
}

static void cci_virtio_mmio_set(struct cci_virtio_dev *d, uint64_t reg, uint32_t value)
{
    switch (reg) {
    case CCI_VIRTIO_REG_DEVICE_FEATURES_SEL:
        d->offered_sel = value;
        break;
    case CCI_VIRTIO_REG_DRIVER_FEATURES:
        cci_virtio_set_features(d, d->features_sel, value);
        break;
    case CCI_VIRTIO_REG_DRIVER_FEATURES_SEL:
        d->features_sel = value;
        break;
    case CCI_VIRTIO_REG_QUEUE_SEL:
        d->queue_sel = value;
        break;
    case CCI_VIRTIO_REG_QUEUE_READY:
        if (cci_virtio_mmio_queue(d))
            cci_virtio_set_ready(d, d->queue_sel, value & 1);
        break;
    case CCI_VIRTIO_REG_STATUS:
        cci_virtio_set_status(d, (uint8_t)value);
        break;
    default:
        cci_virtio_mmio_set_queue(cci_virtio_mmio_queue(d), reg, value);
        break;
    }
}

/* The guest reads `size` bytes (1 to 8) at `offset` from the device's base. */
static void cci_virtio_mmio_read(struct cci_virtio_dev *d, uint64_t offset, uint8_t *data, unsigned size)
{
    memset(data, 0, size);
    if (offset == CCI_VIRTIO_REG_INTERRUPT_STATUS && size == 4) {
        cci_put_le32(data, __atomic_load_n(&d->interrupts, __ATOMIC_SEQ_CST));
        return;
    }
    cci_mutex_lock(&d->mutex);
    if (offset >= CCI_VIRTIO_MMIO_CONFIG)
        cci_virtio_config_read(d, offset - CCI_VIRTIO_MMIO_CONFIG, data, size);
    else if (size == 4)
        cci_put_le32(data, cci_virtio_mmio_get(d, offset));
    cci_mutex_unlock(&d->mutex);
}

/* The doorbell, where no ioeventfd catches it. */
static void cci_virtio_mmio_notify(struct cci_virtio_dev *d, uint32_t q)
{
    if (q >= d->ops->queues)
        return;
    if (d->queue[q].doorbell != CCI_NO_FD)
        cci_virtio_ring(d, q);
    else
        cci_virtio_notify(d, q);
}

/* The guest writes. */
static void cci_virtio_mmio_write(struct cci_virtio_dev *d, uint64_t offset, const uint8_t *data, unsigned size)
{
    if (offset < CCI_VIRTIO_MMIO_CONFIG && size != 4)
        return;
    if (offset == CCI_VIRTIO_REG_INTERRUPT_ACK) {
        (void)__atomic_fetch_and(&d->interrupts, ~cci_le32(data), __ATOMIC_SEQ_CST);
        return;
    }
    if (offset == CCI_VIRTIO_REG_QUEUE_NOTIFY) {
        cci_virtio_mmio_notify(d, cci_le32(data));
        return;
    }
    cci_mutex_lock(&d->mutex);
    if (offset >= CCI_VIRTIO_MMIO_CONFIG)
        cci_virtio_config_write(d, offset - CCI_VIRTIO_MMIO_CONFIG, data, size);
    else
        cci_virtio_mmio_set(d, offset, cci_le32(data));
    cci_mutex_unlock(&d->mutex);
}

#endif
