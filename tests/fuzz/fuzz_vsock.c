/*
 * A hostile guest on vsock, by packets (fuzz_virtio.c does the same by descriptors): the input is a program of packets
 * from the guest, receive buffers posted, and calls of the host's users. What must hold after every step: no more is
 * held than the limits allow, nothing is sent beyond the guest's credit, and packets to the guest are well-formed.
 *
 * Each operation is a byte and its operands; ports are drawn from a few, so that packets meet connections.
 */
#define _GNU_SOURCE
#include "../virtio/vsock_guest.h"

#define STREAMS 8
#define MOST_CONNS 12

static struct cci_vsock v;
static struct vg g;
static struct cci_stream *stream[STREAMS];
static uint8_t scratch[70000];
static uint8_t *kept_ram[2]; /* mapped once: the model's RAM is large */

static uint8_t byte(struct cci_view *in)
{
    const uint8_t *p = cci_view_take(in, 1);
    return p ? *p : 0;
}

static uint32_t word(struct cci_view *in)
{
    uint32_t w = 0;
    (void)cci_view_u32(in, &w);
    return w;
}

static void on_change(void *ctx, struct cci_stream *s)
{
    (void)ctx;
    (void)cci_stream_read(s, scratch, 100);
}

/* A connection from the guest: into a free place, or closed at once. */
static void on_accept(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    (void)ctx;
    for (unsigned i = 0; i < STREAMS; i++)
        if (!stream[i]) {
            stream[i] = s;
            if (peer_port & 1)
                cci_stream_watch(s, on_change, NULL);
            return;
        }
    cci_stream_close(s);
}

/* A packet with ports that somebody may know; the header's other fields as they come, or as they should be. */
static void packet(struct cci_view *in)
{
    uint8_t how = byte(in), ports = byte(in);
    struct cci_vsock_header h = vg_header(5 + (ports & 3u), 1022, (uint16_t)(byte(in) & 15));
    uint32_t n = how & 1 ? word(in) % 66000 : byte(in) % 16u;
    h.dst_port = ports & 4 ? 1020 + (ports >> 3 & 3u) : CCI_VSOCK_FIRST_PORT + (ports >> 3 & 15u);
    h.len = how & 2 ? word(in) : n;
    h.flags = byte(in);
    if (how & 4)
        h.buf_alloc = word(in);
    if (how & 8)
        h.fwd_cnt = word(in);
    if (how & 16) {
        h.type = byte(in);
        h.src_cid = byte(in);
        h.dst_cid = byte(in);
    }
    n = CCI_MIN(n, 65536u);
    if (!vg_can_send(&g))
        return;
    if (how & 32) { /* cut off in the header */
        uint8_t raw[CCI_VSOCK_HEADER];
        cci_vsock_header_put(raw, &h);
        vg_send_raw(&g, raw, 1 + byte(in) % CCI_VSOCK_HEADER, NULL, 0);
    } else {
        vg_send_header(&g, &h, scratch, n);
    }
}

/* The guest takes packets, and posts their buffers again or keeps them. */
static void receive(struct cci_view *in)
{
    uint8_t how = byte(in);
    for (unsigned i = how & 63; i; i--) {
        if (!vg_recv(&g))
            return;
        if (g.p.h.op == 0 || g.p.h.op > 7 || g.p.h.type != 1 || g.p.h.dst_cid != CCI_VSOCK_CID_GUEST)
            abort();
    }
}

static void use(struct cci_view *in)
{
    struct cci_stream **s = &stream[byte(in) % STREAMS];
    uint8_t what = byte(in) % 6;
    if (!*s) {
        if (cci_vsock_dial(&v, 5 + what % 4u, s, NULL) != CC_OK)
            *s = NULL;
        return;
    }
    switch (what) {
    case 0:
        (void)cci_stream_read(*s, scratch, word(in) % sizeof(scratch));
        break;
    case 1:
        (void)cci_stream_write(*s, scratch, word(in) % sizeof(scratch));
        break;
    case 2:
        cci_stream_shutdown(*s);
        break;
    case 3:
        cci_stream_watch(*s, on_change, NULL);
        break;
    case 4:
        cci_stream_watch(*s, NULL, NULL);
        break;
    default:
        cci_stream_close(*s);
        *s = NULL;
        break;
    }
}

/* The limits that the device states, counted anew. */
static void check_limits(void)
{
    uint32_t conns = 0, guest_conns = 0;
    uint64_t extra = 0;
    for (unsigned i = 0; i < CCI_VSOCK_BUCKETS; i++)
        for (const struct cci_vsock_conn *c = v.bucket[i]; c; c = c->next) {
            conns++;
            guest_conns += c->from_guest;
            extra += c->buf_alloc - CCI_VSOCK_RECEIVE_MIN;
            if (c->in.used > c->buf_alloc || c->in.cap > CCI_VSOCK_RECEIVE_MAX || c->out.cap > CCI_VSOCK_SEND)
                abort();
            if (c->state == CCI_VSOCK_GONE || cci_vsock_linked(&c->sending) < (cci_vsock_has_output(c) != 0))
                abort(); /* has something to say, and nobody would ask */
        }
    if (conns != v.conns || guest_conns != v.guest_conns || extra != v.extra || conns > MOST_CONNS ||
        guest_conns > MOST_CONNS / 2 || v.orphan_count > CCI_VSOCK_ORPHANS)
        abort();
}

static void step(struct cci_view *in)
{
    switch (byte(in) % 8) {
    case 0:
    case 1:
    case 2:
        packet(in);
        break;
    case 3:
        receive(in);
        break;
    case 4:
    case 5:
        use(in);
        break;
    case 6:
        if (byte(in) & 1 && g.rx_slots < 100)
            vg_post_fresh(&g, 1 + byte(in) % 20u);
        else
            cci_virtio_notify(&v.dev, byte(in) % 3);
        break;
    default:
        if (byte(in) == 77) { /* rarely: the driver starts anew */
            if (!vg_start(&g, &v, DRV_ALL, 4))
                abort();
        } else {
            g.keep = byte(in) & 1;
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_view in = {data, size};
    const struct cci_vsock_options o = {MOST_CONNS, 0};
    memset(&g, 0, sizeof(g));
    if (!kept_ram[0]) {
        drv_vm_init(&g.vm);
        kept_ram[0] = g.vm.mem.range[0].host;
        kept_ram[1] = g.vm.mem.range[1].host;
    } else {
        g.vm.mem.count = 2;
        g.vm.mem.range[0] = (struct cci_gmem_range){DRV_RAM_GPA, DRV_RAM_SIZE, kept_ram[0]};
        g.vm.mem.range[1] = (struct cci_gmem_range){DRV_HIGH_GPA, DRV_HIGH_SIZE, kept_ram[1]};
        g.vm.next = DRV_RAM_GPA;
    }
    cci_vsock_init(&v, &g.vm.mem, drv_irq(&g.vm), &o);
    if (!vg_start(&g, &v, DRV_ALL, byte(&in) % 64u) || cci_vsock_listen(&v, 1022, on_accept, NULL, NULL) != CC_OK)
        abort();
    while (in.n) {
        step(&in);
        cci_vsock_dispatch(&v.dev);
        check_limits();
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        cci_stream_close(stream[i]);
        stream[i] = NULL;
    }
    cci_vsock_destroy(&v);
    return 0;
}
