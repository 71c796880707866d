/*
 * tests/virtio/vsock_guest.h - the guest's end of vsock in plain memory, on top of tests/virtio/driver.h.
 *
 * Packets by hand (vg_send, vg_recv, vg_expect), for tests that say exactly what the other side does; and connections
 * (struct vg_conn) with flow control of their own, for tests that move data. The pattern functions give every byte of
 * a stream a value that depends on where it is, so that a lost, doubled or reordered byte shows.
 */
#ifndef TESTS_VIRTIO_VSOCK_GUEST_H
#define TESTS_VIRTIO_VSOCK_GUEST_H

#include "../../src/virtio/vsock.h"
#include "driver.h"

#define VG_RX_SIZE 4096u  /* as Linux 6.1 posts them */
#define VG_TX_SIZE 65580u /* header and 64 KiB */
#define VG_TX_SLOTS 8u
#define VG_CONNS 2100u

struct vg_packet {
    struct cci_vsock_header h;
    uint8_t data[65536];
    uint32_t n; /* payload bytes in data */
};

/* A guest's connection. */
struct vg_conn {
    uint32_t host_port, guest_port;
    bool used, open, refused, reset;
    uint32_t peer_no;       /* SHUTDOWN flags seen */
    uint32_t buf_alloc;     /* what we tell the host */
    uint32_t rx_cnt;        /* bytes received */
    uint32_t fwd_cnt, told; /* bytes "read", and what the host was told of that */
    uint32_t tx_cnt;        /* bytes sent */
    uint32_t peer_buf_alloc, peer_fwd_cnt;
    uint64_t received, sent; /* the same without wrapping */
    bool done, closed;       /* for the test: said that it sends no more; closed */
    uint32_t in_seed, out_seed;
    bool corrupt, overrun; /* a byte was not as it should be; the host ignored our credit */
};

struct vg {
    struct drv_vm vm;
    struct drv d;
    struct cci_vsock *v;
    unsigned rx_slots;
    uint64_t rx_buf;
    uint64_t rx_gpa[CCI_VQ_MAX]; /* by head */
    uint64_t tx_buf;
    unsigned tx_free[VG_TX_SLOTS], tx_free_count;
    unsigned tx_slot_of[CCI_VQ_MAX]; /* by head */
    uint64_t event_buf;
    bool keep; /* do not post receive buffers again */
    uint32_t first_count;
    struct vg_conn conn[VG_CONNS];
    unsigned conns;
    struct vg_packet p; /* the last one received */
};

/* ---- Pattern ---------------------------------------------------------------------------------------------- */

static void vg_fill(uint8_t *p, size_t n, uint32_t seed, uint64_t offset)
{
    for (size_t i = 0; i < n; i++, offset++)
        p[i] = (uint8_t)((offset ^ offset >> 8 ^ offset >> 16) * 31 + seed);
}

static bool vg_same(const uint8_t *p, size_t n, uint32_t seed, uint64_t offset)
{
    for (size_t i = 0; i < n; i++, offset++)
        if (p[i] != (uint8_t)((offset ^ offset >> 8 ^ offset >> 16) * 31 + seed))
            return false;
    return true;
}

static uint32_t vg_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* ---- Buffers ---------------------------------------------------------------------------------------------- */

static void vg_post_rx(struct vg *g, uint64_t gpa)
{
    struct drv_buf b = {gpa, VG_RX_SIZE, true};
    unsigned head = drv_add(&g->d, CCI_VSOCK_RX, &b, 1, DRV_DIRECT);
    g->rx_gpa[head] = gpa;
}

/* Posts `n` receive buffers that were never posted. */
static void vg_post_fresh(struct vg *g, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        vg_post_rx(g, g->rx_buf + (uint64_t)VG_RX_SIZE * g->rx_slots++);
    (void)drv_kick(&g->d, CCI_VSOCK_RX);
}

/* Starts the driver, with `rx` receive buffers and one event buffer. */
static bool vg_start(struct vg *g, struct cci_vsock *v, uint64_t features, unsigned rx)
{
    g->v = v;
    g->vm.next = DRV_RAM_GPA;
    g->rx_slots = 0;
    drv_init(&g->d, &g->vm, &v->dev);
    if (!drv_start(&g->d, features, 128))
        return false;
    g->rx_buf = drv_alloc(&g->vm, VG_RX_SIZE * 128, 4096);
    g->tx_buf = drv_alloc(&g->vm, VG_TX_SIZE * VG_TX_SLOTS, 4096);
    g->event_buf = drv_alloc(&g->vm, 4, 4);
    for (g->tx_free_count = 0; g->tx_free_count < VG_TX_SLOTS; g->tx_free_count++)
        g->tx_free[g->tx_free_count] = g->tx_free_count;
    struct drv_buf event = {g->event_buf, 4, true};
    cci_put_le32(drv_ptr(&g->vm, g->event_buf), 0xffffffffu);
    (void)drv_add(&g->d, CCI_VSOCK_EVENT, &event, 1, DRV_DIRECT);
    (void)drv_kick(&g->d, CCI_VSOCK_EVENT);
    vg_post_fresh(g, rx);
    return true;
}

/* Takes back what the device has done with; whether there was any. */
static bool vg_reap(struct vg *g)
{
    unsigned head, before = g->tx_free_count;
    uint32_t len;
    while (drv_poll(&g->d, CCI_VSOCK_TX, &head, &len))
        g->tx_free[g->tx_free_count++] = g->tx_slot_of[head];
    return g->tx_free_count != before;
}

static bool vg_can_send(struct vg *g)
{
    if (!g->tx_free_count)
        (void)vg_reap(g);
    return g->tx_free_count != 0;
}

/* Sends bytes as they are, as one chain of one or two descriptors; there must be a slot (vg_can_send). */
static void vg_send_raw(struct vg *g, const uint8_t *header, uint32_t header_n, const uint8_t *data, uint32_t n)
{
    if (!vg_can_send(g))
        abort();
    unsigned slot = g->tx_free[--g->tx_free_count];
    uint64_t gpa = g->tx_buf + (uint64_t)slot * VG_TX_SIZE;
    memcpy(drv_ptr(&g->vm, gpa), header, header_n);
    if (n)
        memcpy(drv_ptr(&g->vm, gpa + header_n), data, n);
    struct drv_buf b[2] = {{gpa, header_n, false}, {gpa + header_n, n, false}};
    unsigned head = drv_add(&g->d, CCI_VSOCK_TX, b, n ? 2 : 1, DRV_DIRECT);
    g->tx_slot_of[head] = slot;
    (void)drv_kick(&g->d, CCI_VSOCK_TX);
}

static void vg_send_header(struct vg *g, const struct cci_vsock_header *h, const uint8_t *data, uint32_t n)
{
    uint8_t raw[CCI_VSOCK_HEADER];
    cci_vsock_header_put(raw, h);
    vg_send_raw(g, raw, sizeof(raw), data, n);
}

static struct cci_vsock_header vg_header(uint32_t guest_port, uint32_t host_port, uint16_t op)
{
    struct cci_vsock_header h = {
        CCI_VSOCK_CID_GUEST, CCI_VSOCK_CID_HOST, guest_port, host_port, 0, 1, op, 0, 262144, 0};
    return h;
}

/* A packet with a window of 256 KiB and nothing read. */
static void vg_send(struct vg *g, uint32_t guest_port, uint32_t host_port, uint16_t op, uint32_t flags,
                    const void *data, uint32_t n)
{
    struct cci_vsock_header h = vg_header(guest_port, host_port, op);
    h.flags = flags;
    h.len = n;
    h.fwd_cnt = g->first_count;
    vg_send_header(g, &h, data, n);
}

/* The next packet from the host, in g->p; false when there is none. */
static bool vg_recv(struct vg *g)
{
    unsigned head;
    uint32_t len;
    if (!drv_poll(&g->d, CCI_VSOCK_RX, &head, &len))
        return false;
    uint64_t gpa = g->rx_gpa[head];
    const uint8_t *p = drv_ptr(&g->vm, gpa);
    g->p.h = cci_vsock_header_get(p);
    g->p.n = len - CCI_VSOCK_HEADER;
    if (len < CCI_VSOCK_HEADER || g->p.n > VG_RX_SIZE - CCI_VSOCK_HEADER || g->p.n != g->p.h.len)
        abort(); /* the host's own mistake: nothing here can go on */
    memcpy(g->p.data, p + CCI_VSOCK_HEADER, g->p.n);
    if (!g->keep) {
        vg_post_rx(g, gpa);
        (void)drv_kick(&g->d, CCI_VSOCK_RX);
    }
    return true;
}

/* Whether the next packet is `op` between these ports. */
static bool vg_expect(struct vg *g, uint16_t op, uint32_t host_port, uint32_t guest_port)
{
    if (!vg_recv(g))
        return false;
    const struct cci_vsock_header *h = &g->p.h;
    return h->src_cid == CCI_VSOCK_CID_HOST && h->dst_cid == CCI_VSOCK_CID_GUEST && h->type == 1 && h->op == op &&
           h->src_port == host_port && h->dst_port == guest_port;
}

/* ---- Connections ------------------------------------------------------------------------------------------ */

static struct vg_conn *vg_find(struct vg *g, uint32_t host_port, uint32_t guest_port)
{
    for (unsigned i = 0; i < g->conns; i++)
        if (g->conn[i].used && g->conn[i].host_port == host_port && g->conn[i].guest_port == guest_port)
            return &g->conn[i];
    return NULL;
}

static struct vg_conn *vg_conn_new(struct vg *g, uint32_t host_port, uint32_t guest_port)
{
    if (g->conns == VG_CONNS)
        abort();
    struct vg_conn *c = &g->conn[g->conns++];
    memset(c, 0, sizeof(*c));
    c->used = true;
    c->host_port = host_port;
    c->guest_port = guest_port;
    c->buf_alloc = 262144;
    c->rx_cnt = c->fwd_cnt = c->told = c->tx_cnt = c->peer_fwd_cnt = g->first_count;
    c->in_seed = host_port ^ guest_port;
    c->out_seed = c->in_seed + 7;
    return c;
}

static void vg_conn_send(struct vg *g, struct vg_conn *c, uint16_t op, uint32_t flags, const uint8_t *data, uint32_t n)
{
    struct cci_vsock_header h = vg_header(c->guest_port, c->host_port, op);
    h.flags = flags;
    h.len = n;
    h.buf_alloc = c->buf_alloc;
    h.fwd_cnt = c->told = c->fwd_cnt;
    c->tx_cnt += n;
    c->sent += n;
    vg_send_header(g, &h, data, n);
}

/* How much the host lets us send now. */
static uint32_t vg_conn_room(const struct vg_conn *c)
{
    uint32_t under_way = c->tx_cnt - c->peer_fwd_cnt;
    return c->open && under_way < c->peer_buf_alloc ? c->peer_buf_alloc - under_way : 0;
}

/* The guest's program reads n bytes of what was received; the host is told when its view of our room is below 64 KiB,
 * as Linux does it. */
static void vg_conn_read(struct vg *g, struct vg_conn *c, uint32_t n)
{
    c->fwd_cnt += n;
    if (c->buf_alloc - (c->fwd_cnt - c->told) < 65536)
        vg_conn_send(g, c, CCI_VSOCK_CREDIT_UPDATE, 0, NULL, 0);
}

/* What connections do about g->p; false if it belongs to none. Accepts every REQUEST. */
static bool vg_handle(struct vg *g)
{
    const struct cci_vsock_header *h = &g->p.h;
    struct vg_conn *c = vg_find(g, h->src_port, h->dst_port);
    if (!c && h->op == CCI_VSOCK_REQUEST) {
        c = vg_conn_new(g, h->src_port, h->dst_port);
        c->open = true;
        c->peer_buf_alloc = h->buf_alloc;
        c->peer_fwd_cnt = h->fwd_cnt;
        vg_conn_send(g, c, CCI_VSOCK_RESPONSE, 0, NULL, 0);
        return true;
    }
    if (!c)
        return false;
    c->peer_buf_alloc = h->buf_alloc;
    c->peer_fwd_cnt = h->fwd_cnt;
    switch (h->op) {
    case CCI_VSOCK_RESPONSE:
        c->open = true;
        break;
    case CCI_VSOCK_RST:
        c->refused = !c->open;
        c->open = false;
        c->reset = true;
        c->used = false;
        break;
    case CCI_VSOCK_SHUTDOWN:
        c->peer_no |= h->flags;
        break;
    case CCI_VSOCK_RW:
        c->corrupt |= !vg_same(g->p.data, g->p.n, c->in_seed, c->received);
        c->rx_cnt += g->p.n;
        c->received += g->p.n;
        c->overrun |= c->rx_cnt - c->fwd_cnt > c->buf_alloc;
        break;
    case CCI_VSOCK_CREDIT_REQUEST:
        vg_conn_send(g, c, CCI_VSOCK_CREDIT_UPDATE, 0, NULL, 0);
        break;
    default:
        break;
    }
    return true;
}

#endif
