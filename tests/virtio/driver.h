/*
 * tests/virtio/driver.h - a guest's virtio driver in plain memory: what the device tests drive devices with.
 *
 *     struct drv_vm vm; drv_vm_init(&vm);                     guest RAM, and an interrupt line that counts
 *     ... make a device on &vm.mem and drv_irq(&vm) ...
 *     struct drv d; drv_init(&d, &vm, &device->dev);
 *     CHECK(drv_start(&d, DRV_ALL, 64));                      the init sequence of section 3.1.1, all queues of 64
 *     uint64_t buf = drv_alloc(&vm, 512, 16);                 guest-physical memory
 *     struct drv_buf b[] = {{buf, 512, true}};                true: the device writes it
 *     unsigned head = drv_add(&d, 0, b, 1, DRV_DIRECT);       makes a chain available
 *     drv_kick(&d, 0);                                        rings the doorbell if the device wants it
 *     CHECK(drv_wait(&d, 0, &head, &len));                    the next used entry
 *
 * The driver is honest unless a test writes descriptors itself (drv_desc, drv_offer). Not thread-safe: one thread
 * drives a device, whatever threads that device has.
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

/* gcc warns that ThreadSanitizer does not model fences; what it would miss is ordered by the ring indices. Include this
 * file before the product's parts. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#include "../../src/virtio/mmio.h"
#include "../../src/virtio/state.h"

#define DRV_RAM_GPA 0x100000u /* below it, and between the two ranges, there is no RAM */
#define DRV_RAM_SIZE (8u << 20)
#define DRV_HIGH_GPA 0x100000000u
#define DRV_HIGH_SIZE (64u << 10)
#define DRV_ALL UINT64_MAX /* every feature that is offered */

struct drv_vm {
    struct cci_gmem mem;
    uint64_t next;   /* free RAM begins here */
    unsigned raised; /* interrupts; atomic */
};

struct drv_queue {
    unsigned size;
    uint64_t desc, avail, used; /* guest-physical */
    uint16_t avail_idx, used_idx;
    uint16_t free_head, free_count; /* chained through the descriptors' next */
    uint16_t kicked;                /* avail_idx at the last kick */
    uint16_t length[CCI_VQ_MAX];    /* descriptors of the chain with this head */
};

struct drv_buf {
    uint64_t gpa;
    uint32_t len;
    bool write;
};

enum drv_how { DRV_DIRECT, DRV_INDIRECT };

struct drv {
    struct drv_vm *vm;
    struct cci_virtio_dev *dev;
    uint64_t features;
    struct drv_queue q[CCI_VIRTIO_QUEUES];
};

/* ---- Memory and interrupts -------------------------------------------------------------------------------- */

static void drv_vm_init(struct drv_vm *vm)
{
    memset(vm, 0, sizeof(*vm));
    vm->mem.count = 2;
    vm->mem.range[0].gpa = DRV_RAM_GPA;
    vm->mem.range[0].size = DRV_RAM_SIZE;
    vm->mem.range[0].host = aligned_alloc(4096, DRV_RAM_SIZE);
    vm->mem.range[1].gpa = DRV_HIGH_GPA;
    vm->mem.range[1].size = DRV_HIGH_SIZE;
    vm->mem.range[1].host = aligned_alloc(4096, DRV_HIGH_SIZE);
    if (!vm->mem.range[0].host || !vm->mem.range[1].host)
        abort();
    memset(vm->mem.range[0].host, 0, DRV_RAM_SIZE);
    memset(vm->mem.range[1].host, 0, DRV_HIGH_SIZE);
    vm->next = DRV_RAM_GPA;
}

static void drv_vm_free(struct drv_vm *vm)
{
    free(vm->mem.range[0].host);
    free(vm->mem.range[1].host);
}

static uint64_t drv_alloc(struct drv_vm *vm, uint64_t n, uint64_t align)
{
    uint64_t gpa = CCI_ALIGN_UP(vm->next, align);
    if (gpa + n > DRV_RAM_GPA + DRV_RAM_SIZE)
        abort();
    vm->next = gpa + n;
    return gpa;
}

static uint8_t *drv_ptr(struct drv_vm *vm, uint64_t gpa)
{
    uint8_t *p = cci_gmem_at(&vm->mem, gpa, 1);
    if (!p)
        abort();
    return p;
}

static void drv_on_irq(void *ctx)
{
    struct drv_vm *vm = ctx;
    (void)__atomic_fetch_add(&vm->raised, 1, __ATOMIC_SEQ_CST);
}

static struct cci_irq drv_irq(struct drv_vm *vm)
{
    struct cci_irq irq = {drv_on_irq, vm};
    return irq;
}

/* How many interrupts came since the last call. */
static unsigned drv_irqs(struct drv_vm *vm)
{
    return __atomic_exchange_n(&vm->raised, 0, __ATOMIC_SEQ_CST);
}

/* ---- Registers -------------------------------------------------------------------------------------------- */

static uint32_t drv_get(struct drv *d, unsigned reg)
{
    uint8_t b[4];
    cci_virtio_mmio_read(d->dev, reg, b, 4);
    return cci_le32(b);
}

static void drv_set(struct drv *d, unsigned reg, uint32_t value)
{
    uint8_t b[4];
    cci_put_le32(b, value);
    cci_virtio_mmio_write(d->dev, reg, b, 4);
}

static void drv_set_addr(struct drv *d, unsigned reg, uint64_t gpa)
{
    drv_set(d, reg, (uint32_t)gpa);
    drv_set(d, reg + 4, (uint32_t)(gpa >> 32));
}

static uint64_t drv_config(struct drv *d, unsigned offset, unsigned size)
{
    uint8_t b[8] = {0};
    cci_virtio_mmio_read(d->dev, CCI_VIRTIO_MMIO_CONFIG + offset, b, size);
    return cci_le64(b);
}

static uint64_t drv_offered(struct drv *d)
{
    drv_set(d, CCI_VIRTIO_REG_DEVICE_FEATURES_SEL, 1);
    uint64_t high = drv_get(d, CCI_VIRTIO_REG_DEVICE_FEATURES);
    drv_set(d, CCI_VIRTIO_REG_DEVICE_FEATURES_SEL, 0);
    return high << 32 | drv_get(d, CCI_VIRTIO_REG_DEVICE_FEATURES);
}

static void drv_init(struct drv *d, struct drv_vm *vm, struct cci_virtio_dev *dev)
{
    memset(d, 0, sizeof(*d));
    d->vm = vm;
    d->dev = dev;
}

/* Reset, then up to FEATURES_OK; false if the device refused. */
static bool drv_negotiate(struct drv *d, uint64_t want)
{
    drv_set(d, CCI_VIRTIO_REG_STATUS, 0);
    drv_set(d, CCI_VIRTIO_REG_STATUS, CCI_VIRTIO_ACKNOWLEDGE);
    drv_set(d, CCI_VIRTIO_REG_STATUS, CCI_VIRTIO_ACKNOWLEDGE | CCI_VIRTIO_DRIVER);
    d->features = want == DRV_ALL ? drv_offered(d) : want;
    drv_set(d, CCI_VIRTIO_REG_DRIVER_FEATURES_SEL, 0);
    drv_set(d, CCI_VIRTIO_REG_DRIVER_FEATURES, (uint32_t)d->features);
    drv_set(d, CCI_VIRTIO_REG_DRIVER_FEATURES_SEL, 1);
    drv_set(d, CCI_VIRTIO_REG_DRIVER_FEATURES, (uint32_t)(d->features >> 32));
    drv_set(d, CCI_VIRTIO_REG_STATUS, CCI_VIRTIO_ACKNOWLEDGE | CCI_VIRTIO_DRIVER | CCI_VIRTIO_FEATURES_OK);
    return drv_get(d, CCI_VIRTIO_REG_STATUS) & CCI_VIRTIO_FEATURES_OK;
}

static void drv_desc(struct drv *d, unsigned q, unsigned index, uint64_t addr, uint32_t len, unsigned flags,
                     unsigned next)
{
    uint8_t *p = drv_ptr(d->vm, d->q[q].desc + index * 16);
    cci_put_le64(p, addr);
    cci_put_le32(p + 8, len);
    cci_put_le16(p + 12, (uint16_t)flags);
    cci_put_le16(p + 14, (uint16_t)next);
}

/* Empty rings of `size` entries, in fresh memory. */
static void drv_queue_make(struct drv *d, unsigned q, unsigned size)
{
    struct drv_queue *v = &d->q[q];
    memset(v, 0, sizeof(*v));
    v->size = size;
    v->desc = drv_alloc(d->vm, size * 16, 16);
    v->avail = drv_alloc(d->vm, 6 + size * 2, 2);
    v->used = drv_alloc(d->vm, 6 + size * 8, 4);
    memset(drv_ptr(d->vm, v->avail), 0, 6 + size * 2);
    memset(drv_ptr(d->vm, v->used), 0, 6 + size * 8);
    for (unsigned i = 0; i < size; i++)
        drv_desc(d, q, i, 0, 0, 0, i + 1);
    v->free_count = (uint16_t)size;
}

/* Tells the device about the rings; false if it does not take them. */
static bool drv_queue_start(struct drv *d, unsigned q)
{
    drv_set(d, CCI_VIRTIO_REG_QUEUE_SEL, q);
    drv_set(d, CCI_VIRTIO_REG_QUEUE_NUM, d->q[q].size);
    drv_set_addr(d, CCI_VIRTIO_REG_QUEUE_DESC_LOW, d->q[q].desc);
    drv_set_addr(d, CCI_VIRTIO_REG_QUEUE_DRIVER_LOW, d->q[q].avail);
    drv_set_addr(d, CCI_VIRTIO_REG_QUEUE_DEVICE_LOW, d->q[q].used);
    drv_set(d, CCI_VIRTIO_REG_QUEUE_READY, 1);
    return drv_get(d, CCI_VIRTIO_REG_QUEUE_READY) == 1;
}

static void drv_ok(struct drv *d)
{
    drv_set(d, CCI_VIRTIO_REG_STATUS, drv_get(d, CCI_VIRTIO_REG_STATUS) | CCI_VIRTIO_DRIVER_OK);
}

/* The whole sequence, every queue with `size` entries (or the device's limit if that is less). */
static bool drv_start(struct drv *d, uint64_t want, unsigned size)
{
    if (!drv_negotiate(d, want))
        return false;
    for (unsigned q = 0; q < CCI_VIRTIO_QUEUES; q++) {
        drv_set(d, CCI_VIRTIO_REG_QUEUE_SEL, q);
        unsigned max = drv_get(d, CCI_VIRTIO_REG_QUEUE_NUM_MAX);
        if (max == 0)
            break;
        drv_queue_make(d, q, CCI_MIN(size, max));
        if (!drv_queue_start(d, q))
            return false;
    }
    drv_ok(d);
    return drv_get(d, CCI_VIRTIO_REG_STATUS) ==
           (CCI_VIRTIO_ACKNOWLEDGE | CCI_VIRTIO_DRIVER | CCI_VIRTIO_FEATURES_OK | CCI_VIRTIO_DRIVER_OK);
}

/* Whether the device asked to be reset. */
static bool drv_broken(struct drv *d)
{
    return drv_get(d, CCI_VIRTIO_REG_STATUS) & CCI_VIRTIO_NEEDS_RESET;
}

/* Acknowledges, and gives, what InterruptStatus says. */
static uint32_t drv_ack(struct drv *d)
{
    uint32_t is = drv_get(d, CCI_VIRTIO_REG_INTERRUPT_STATUS);
    drv_set(d, CCI_VIRTIO_REG_INTERRUPT_ACK, is);
    return is;
}

/* ---- Chains ------------------------------------------------------------------------------------------------ */

/* Puts `head` on the available ring, whatever it names. */
static void drv_offer(struct drv *d, unsigned q, unsigned head)
{
    struct drv_queue *v = &d->q[q];
    cci_gmem_store16(drv_ptr(d->vm, v->avail + 4 + (v->avail_idx & (v->size - 1)) * 2u), (uint16_t)head);
    v->avail_idx++;
    cci_gmem_store16(drv_ptr(d->vm, v->avail + 2), v->avail_idx);
}

/* Makes n buffers available as one chain; its head. The caller sees to it that there is room (free_count). */
static unsigned drv_add(struct drv *d, unsigned q, const struct drv_buf *b, unsigned n, enum drv_how how)
{
    struct drv_queue *v = &d->q[q];
    unsigned head = v->free_head, index = head;
    unsigned take = how == DRV_INDIRECT ? 1 : n;
    if (take > v->free_count || take == 0)
        abort();
    v->free_count = (uint16_t)(v->free_count - take);
    v->length[head] = (uint16_t)take;
    if (how == DRV_INDIRECT) {
        uint64_t table = drv_alloc(d->vm, n * 16, 16);
        for (unsigned i = 0; i < n; i++) {
            uint8_t *p = drv_ptr(d->vm, table + i * 16);
            cci_put_le64(p, b[i].gpa);
            cci_put_le32(p + 8, b[i].len);
            cci_put_le16(p + 12, (uint16_t)((b[i].write ? 2 : 0) | (i + 1 < n ? 1 : 0)));
            cci_put_le16(p + 14, (uint16_t)(i + 1));
        }
        v->free_head = cci_le16(drv_ptr(d->vm, v->desc + index * 16u) + 14);
        drv_desc(d, q, index, table, n * 16, CCI_VQ_DESC_INDIRECT, v->free_head);
    } else {
        for (unsigned i = 0; i < n; i++) {
            unsigned next = cci_le16(drv_ptr(d->vm, v->desc + index * 16u) + 14);
            drv_desc(d, q, index, b[i].gpa, b[i].len, (b[i].write ? 2u : 0u) | (i + 1 < n ? 1u : 0u), next);
            index = next;
        }
        v->free_head = (uint16_t)index;
    }
    drv_offer(d, q, head);
    return head;
}

/* Rings the doorbell in any case. */
static void drv_kick_hard(struct drv *d, unsigned q)
{
    d->q[q].kicked = d->q[q].avail_idx;
    drv_set(d, CCI_VIRTIO_REG_QUEUE_NOTIFY, q);
}

/* Rings it if the device asked for that; whether it did. */
static bool drv_kick(struct drv *d, unsigned q)
{
    struct drv_queue *v = &d->q[q];
    cci_gmem_fence();
    uint16_t event = cci_gmem_load16(drv_ptr(d->vm, v->used + 4 + v->size * 8));
    bool wanted = d->features & CCI_VIRTIO_F_EVENT_IDX
                      ? (uint16_t)(v->avail_idx - event - 1) < (uint16_t)(v->avail_idx - v->kicked)
                      : !(cci_gmem_load16(drv_ptr(d->vm, v->used)) & CCI_VQ_USED_NO_NOTIFY);
    if (wanted)
        drv_kick_hard(d, q);
    v->kicked = v->avail_idx;
    return wanted;
}

/* Asks for an interrupt at the next used entry (with event indices; without, they always come). */
static void drv_want_irq(struct drv *d, unsigned q)
{
    cci_gmem_store16(drv_ptr(d->vm, d->q[q].avail + 4 + d->q[q].size * 2), d->q[q].used_idx);
    cci_gmem_fence();
}

/* Takes the next used entry, if there is one. */
static bool drv_poll(struct drv *d, unsigned q, unsigned *head, uint32_t *len)
{
    struct drv_queue *v = &d->q[q];
    if (cci_gmem_load16(drv_ptr(d->vm, v->used + 2)) == v->used_idx)
        return false;
    const uint8_t *p = drv_ptr(d->vm, v->used + 4 + (v->used_idx & (v->size - 1)) * 8u);
    *head = cci_le32(p);
    *len = cci_le32(p + 4);
    v->used_idx++;
    unsigned index = *head, n = *head < v->size ? v->length[*head] : 0;
    if (n) { /* back to the free list, unless the test made the chain by hand */
        for (unsigned i = 1; i < n; i++)
            index = cci_le16(drv_ptr(d->vm, v->desc + index * 16u) + 14);
        cci_put_le16(drv_ptr(d->vm, v->desc + index * 16u) + 14, v->free_head);
        v->free_head = (uint16_t)*head;
        v->free_count = (uint16_t)(v->free_count + n);
        v->length[*head] = 0;
    }
    return true;
}

/* The same, waiting up to 10 s for a device that works on other threads. */
static bool drv_wait(struct drv *d, unsigned q, unsigned *head, uint32_t *len)
{
    uint64_t deadline = cci_os_now() + 10000000000u;
    while (!drv_poll(d, q, head, len)) {
        if (cci_os_now() > deadline)
            return false;
        (void)syscall(SYS_sched_yield);
    }
    return true;
}

#endif
