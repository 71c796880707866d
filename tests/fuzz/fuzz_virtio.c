/*
 * Hostile drivers: the input is a program of register writes, ring contents and doorbells for one device.
 *
 * The first byte picks the device; then operations follow, each a byte and its operands (see `step`). Rings may be
 * written byte by byte or, so that the fuzzer gets past the negotiation, by operations that do it properly. Guest RAM
 * is exact heap blocks, so that any access beside it is seen.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "../../src/virtio/balloon.h"
#include "../../src/virtio/blk.h"
#include "../../src/virtio/mmio.h"
#include "../../src/virtio/rng.h"
#include "../../src/virtio/state.h"
#include "../../src/virtio/vsock.h"

#define RAM_GPA 0x100000u
#define RAM_SIZE 0x10000u
#define HIGH_GPA 0x100000000u
#define HIGH_SIZE 0x2000u
#define STREAMS 4
#define SECTORS 64u

enum kind { BLK_RW, BLK_RO, BLK_VOLATILE, RNG, BALLOON, VSOCK, KINDS };

struct machine {
    struct cci_gmem mem;
    enum kind kind;
    struct cci_virtio_dev *dev;
    union {
        struct cci_blk blk;
        struct cci_rng rng;
        struct cci_balloon balloon;
        struct cci_vsock vsock;
    } u;
    struct cci_stream *stream[STREAMS]; /* of the vsock device */
    uint16_t avail[CCI_VIRTIO_QUEUES];
};

static struct cci_pool pool;
static struct cci_disk disk_rw, disk_ro;

static void on_irq(void *ctx)
{
    (void)ctx;
}

static cci_fd disk_file(void)
{
    const char *dir = getenv("TMPDIR");
    cci_fd fd = cci_os_tmpfile(dir ? dir : "/tmp");
    if (fd < 0 || cci_os_truncate(fd, 4096 + SECTORS * 512) < 0)
        abort();
    return fd;
}

static void once(void)
{
    if (disk_rw.count)
        return;
    cci_pool_init(&pool);
    disk_rw.writable = true;
    /* The last segment is longer than its file: what a truncated store file looks like. */
    if (!cci_disk_add(&disk_rw, disk_file(), 4096, SECTORS * 512) ||
        !cci_disk_add(&disk_ro, disk_file(), 512, 3 * 512) || !cci_disk_add(&disk_ro, disk_file(), 0, 40 * 512) ||
        !cci_disk_add(&disk_ro, disk_file(), 4096, 2 * SECTORS * 512))
        abort();
}

/* ---- The host's side of vsock: an echo ------------------------------------------------------------------------ */

static void echo_watch(void *ctx, struct cci_stream *s)
{
    uint8_t b[256];
    int64_t n;
    (void)ctx;
    for (unsigned i = 0; i < 4 && (n = cci_stream_read(s, b, sizeof(b))) > 0; i++)
        (void)cci_stream_write(s, b, (size_t)n);
}

static void keep(struct machine *m, struct cci_stream *s)
{
    for (unsigned i = 0; i < STREAMS; i++)
        if (!m->stream[i]) {
            m->stream[i] = s;
            cci_stream_watch(s, echo_watch, m);
            return;
        }
    cci_stream_close(s);
}

static void on_accept(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    (void)peer_port;
    keep(ctx, s);
}

/* ---- Devices ------------------------------------------------------------------------------------------------------
 */

static void device_init(struct machine *m)
{
    const struct cci_irq irq = {on_irq, NULL};
    const struct cci_vsock_options options = {8, 0xfffffff0u};
    memset(&m->u, 0, sizeof(m->u));
    switch (m->kind) {
    case RNG:
        cci_rng_init(&m->u.rng, &m->mem, irq);
        m->dev = &m->u.rng.dev;
        break;
    case BALLOON:
        cci_balloon_init(&m->u.balloon, &m->mem, irq);
        m->dev = &m->u.balloon.dev;
        break;
    case VSOCK:
        cci_vsock_init(&m->u.vsock, &m->mem, irq, &options);
        m->dev = &m->u.vsock.dev;
        if (cci_vsock_listen(&m->u.vsock, 1, on_accept, m, NULL) != CC_OK)
            abort();
        break;
    default:
        cci_blk_init(&m->u.blk, m->kind == BLK_RO ? &disk_ro : &disk_rw, "fuzz", m->kind == BLK_VOLATILE, &pool,
                     &m->mem, irq);
        m->dev = &m->u.blk.dev;
        break;
    }
}

static void device_destroy(struct machine *m)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        cci_stream_close(m->stream[i]);
        m->stream[i] = NULL;
    }
    if (m->kind == VSOCK)
        cci_vsock_destroy(&m->u.vsock);
    else
        cci_virtio_destroy(m->dev);
}

/* Saves the device, and restores it into a new one; or restores what the fuzzer makes of it. */
static void save_restore(struct machine *m, struct cci_view *in, bool tamper)
{
    struct cci_buf state = {0};
    cci_virtio_quiesce(m->dev);
    if (cci_virtio_save(m->dev, &state, NULL) != CC_OK)
        abort();
    cci_virtio_resume(m->dev);
    const uint8_t *change = tamper ? cci_view_take(in, 3) : NULL;
    if (change)
        state.p[(change[0] | (size_t)change[1] << 8) % state.n] = change[2];
    device_destroy(m);
    device_init(m);
    struct cci_view v = {state.p, state.n};
    cci_virtio_quiesce(m->dev);
    if (cci_virtio_restore(m->dev, &v, NULL) != CC_OK && !change)
        abort();
    cci_virtio_resume(m->dev);
    cci_buf_free(&state);
}

/* ---- The driver ----------------------------------------------------------------------------------------------------
 */

static void set32(struct machine *m, unsigned reg, uint32_t value)
{
    uint8_t b[4];
    cci_put_le32(b, value);
    cci_virtio_mmio_write(m->dev, reg, b, 4);
}

/* Where the proper operations put queue q's tables: 4 KiB each, in front of RAM. */
static uint64_t desc_gpa(unsigned q)
{
    return RAM_GPA + q * 0x1000u;
}

static void start(struct machine *m, unsigned flags)
{
    uint64_t features = m->dev->offered & ~((uint64_t)(flags & 3) << 28); /* with and without indirect, event index */
    set32(m, CCI_VIRTIO_REG_STATUS, 0);
    set32(m, CCI_VIRTIO_REG_STATUS, 3);
    for (unsigned half = 0; half < 2; half++) {
        set32(m, CCI_VIRTIO_REG_DRIVER_FEATURES_SEL, half);
        set32(m, CCI_VIRTIO_REG_DRIVER_FEATURES, (uint32_t)(features >> (half * 32)));
    }
    set32(m, CCI_VIRTIO_REG_STATUS, 11);
    for (unsigned q = 0; q < m->dev->ops->queues; q++) {
        set32(m, CCI_VIRTIO_REG_QUEUE_SEL, q);
        set32(m, CCI_VIRTIO_REG_QUEUE_NUM, 8);
        set32(m, CCI_VIRTIO_REG_QUEUE_DESC_LOW, (uint32_t)desc_gpa(q));
        set32(m, CCI_VIRTIO_REG_QUEUE_DRIVER_LOW, (uint32_t)desc_gpa(q) + 0x400);
        set32(m, CCI_VIRTIO_REG_QUEUE_DEVICE_LOW, (uint32_t)desc_gpa(q) + 0x800);
        set32(m, CCI_VIRTIO_REG_QUEUE_READY, 1);
        m->avail[q] = 0;
        memset(cci_gmem_at(&m->mem, desc_gpa(q), 0x1000), 0, 0x1000);
    }
    set32(m, CCI_VIRTIO_REG_STATUS, 15);
}

/* Descriptor `index` of queue q. Its buffer: 256 bytes a page behind the tables, or a place of the fuzzer's choice. */
static void put_desc(struct machine *m, const uint8_t *op)
{
    const unsigned q = op[0] % CCI_VIRTIO_QUEUES, index = op[1] % 8;
    uint8_t *d = cci_gmem_at(&m->mem, desc_gpa(q) + index * 16, 16);
    static const uint64_t places[] = {RAM_GPA + 0x5000, RAM_GPA + RAM_SIZE - 16, HIGH_GPA, HIGH_GPA + HIGH_SIZE - 1,
                                      0xd0000000u,      UINT64_MAX - 8,          0,        RAM_GPA};
    uint32_t len = op[3] == 0xff ? UINT32_MAX - op[4] : (uint32_t)op[3] * 16 + op[4] % 16u;
    cci_put_le64(d, places[op[2] >> 5] + (op[2] & 31u) * 256);
    cci_put_le32(d + 8, len);
    cci_put_le16(d + 12, op[5] & 7);
    cci_put_le16(d + 14, op[5] >> 4);
}

static void offer(struct machine *m, unsigned q, unsigned head)
{
    uint8_t *avail = cci_gmem_at(&m->mem, desc_gpa(q) + 0x400, 32);
    cci_gmem_store16(avail + 4 + (m->avail[q] % 8u) * 2, (uint16_t)head);
    m->avail[q]++;
    cci_gmem_store16(avail + 2, m->avail[q]);
}

static void poke(struct machine *m, const uint8_t *op, struct cci_view *in)
{
    const uint8_t *bytes = cci_view_take(in, op[2] % 64u);
    uint8_t *p = cci_gmem_at(&m->mem, RAM_GPA + (op[0] | (uint64_t)op[1] << 8), op[2] % 64u);
    if (bytes && p)
        memcpy(p, bytes, op[2] % 64u);
}

static void notify(struct machine *m, unsigned q)
{
    set32(m, CCI_VIRTIO_REG_QUEUE_NOTIFY, q);
    cci_virtio_quiesce(m->dev); /* each run of an input does the same: wait for the pool */
    cci_virtio_resume(m->dev);
}

static void use_stream(struct machine *m, unsigned what)
{
    struct cci_stream **s = &m->stream[what % STREAMS];
    if (m->kind != VSOCK)
        return;
    if (!*s) {
        if (cci_vsock_dial(&m->u.vsock, what >> 2 & 3, s, NULL) == CC_OK)
            cci_stream_watch(*s, echo_watch, m);
    } else if (what & 0x80) {
        cci_stream_close(*s);
        *s = NULL;
    } else if (what & 0x40) {
        cci_stream_shutdown(*s);
    } else {
        (void)cci_stream_write(*s, "hello", 5);
    }
}

static bool step(struct machine *m, struct cci_view *in)
{
    const uint8_t *op = cci_view_take(in, 7);
    if (!op)
        return false;
    uint8_t data[8] = {0};
    switch (op[0] % 10) {
    case 0:
        set32(m, (unsigned)op[1] % 64 * 4, cci_le32(op + 2));
        break;
    case 1:
        cci_virtio_mmio_write(m->dev, 0xf0u + op[1], op + 2, 1u << op[6] % 3);
        break;
    case 2:
        cci_virtio_mmio_read(m->dev, op[1] * 2u, data, 1u << op[6] % 4);
        break;
    case 3:
        start(m, op[1]);
        break;
    case 4:
        put_desc(m, op + 1);
        break;
    case 5:
        offer(m, op[1] % CCI_VIRTIO_QUEUES, op[2] & 15);
        if (op[3] & 1)
            notify(m, op[1] % CCI_VIRTIO_QUEUES);
        break;
    case 6:
        poke(m, op + 1, in);
        break;
    case 7:
        notify(m, op[1] % (CCI_VIRTIO_QUEUES + 1));
        break;
    case 8:
        save_restore(m, in, op[1] & 1);
        break;
    default:
        use_stream(m, op[1]);
        break;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_view in = {data, size};
    const uint8_t *kind = cci_view_take(&in, 1);
    if (!kind)
        return 0;
    once();
    struct machine *m = calloc(1, sizeof(*m));
    uint8_t *ram = aligned_alloc(4096, RAM_SIZE), *high = aligned_alloc(4096, HIGH_SIZE);
    if (!m || !ram || !high)
        abort();
    memset(ram, 0, RAM_SIZE);
    memset(high, 0, HIGH_SIZE);
    const struct cci_gmem mem = {{{RAM_GPA, RAM_SIZE, ram}, {HIGH_GPA, HIGH_SIZE, high}}, 2};
    m->mem = mem;
    m->kind = (enum kind)(*kind % KINDS);
    device_init(m);
    for (unsigned steps = 0; steps < 500 && step(m, &in); steps++)
        continue;
    device_destroy(m);
    free(m);
    free(ram);
    free(high);
    return 0;
}
