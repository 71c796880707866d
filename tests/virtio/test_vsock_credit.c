// @timeout 120
/* The socket device, one step at a time: credit, buffers that are missing, and bytes in bulk. */
#define _GNU_SOURCE
#include "tests/virtio/vsock_step.h"

/* The guest's room: nothing more is sent than it allows, and what it frees is used at once. */
static void test_guest_credit(void)
{
    static uint8_t big[CCI_VSOCK_SEND + 5000];
    struct cci_vsock_header h = vg_header(7, HOST1, CCI_VSOCK_RESPONSE);
    boot();
    vg_fill(big, sizeof(big), 1, 0);
    struct cci_stream *s = dial(7);
    cci_stream_watch(s, on_change, NULL);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    h.buf_alloc = 1000;
    vg_send_header(&g, &h, NULL, 0);
    (void)called();
    /* 1000 bytes go, a full ring is kept, the rest is not taken */
    CHECK_EQ_INT(cci_stream_write(s, big, sizeof(big)), 1000 + CCI_VSOCK_SEND);
    CHECK_EQ_INT(cci_stream_write(s, big, 1), -EAGAIN);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    CHECK(g.p.n == 1000 && vg_same(g.p.data, 1000, 1, 0));
    CHECK(!vg_recv(&g));
    h.op = CCI_VSOCK_CREDIT_UPDATE;
    h.fwd_cnt = 300;
    vg_send_header(&g, &h, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    CHECK(g.p.n == 300 && vg_same(g.p.data, 300, 1, 1000));
    CHECK(!vg_recv(&g));
    CHECK_EQ_INT(called(), 0);
    h.buf_alloc = 10; /* less than is under way */
    vg_send_header(&g, &h, NULL, 0);
    CHECK(!vg_recv(&g));
    h.buf_alloc = 200000;
    h.fwd_cnt = 1300;
    vg_send_header(&g, &h, NULL, 0);
    CHECK_EQ_INT(called(), 1); /* there is room again */
    uint64_t at = 1300;
    while (vg_recv(&g)) {
        CHECK(g.p.h.op == CCI_VSOCK_RW && vg_same(g.p.data, g.p.n, 1, at));
        at += g.p.n;
    }
    CHECK_EQ_INT(at, 1000 + CCI_VSOCK_SEND);
    h.fwd_cnt = 12345678; /* a lie: more than was sent. It only stops its own connection. */
    vg_send_header(&g, &h, NULL, 0);
    CHECK_EQ_INT(cci_stream_write(s, big, 10), 10);
    CHECK(!vg_recv(&g));
    h.fwd_cnt = (uint32_t)at;
    vg_send_header(&g, &h, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    cci_stream_close(s);
    end_closed(HOST1, 7);
    halt();
}

/* Output that waits for buffers: it keeps its order with what is written later, and a connection whose credit goes away
 * meanwhile leaves the buffer to others. */
static void test_no_buffers(void)
{
    struct cci_vsock_header h = vg_header(7, HOST1, CCI_VSOCK_CREDIT_UPDATE);
    boot_with(NULL, DRV_ALL, 1);
    struct cci_stream *s = dial(7);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    g.keep = true;
    vg_send(&g, 7, HOST1, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK_EQ_INT(cci_stream_write(s, "1", 1), 1);
    CHECK_EQ_INT(cci_stream_write(s, "23", 2), 2);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    struct drv_buf b = {g.rx_buf, VG_RX_SIZE, true};
    g.rx_gpa[drv_add(&g.d, CCI_VSOCK_RX, &b, 1, DRV_DIRECT)] = g.rx_buf; /* and no kick */
    CHECK_EQ_INT(cci_stream_write(s, "4", 1), 1);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    CHECK(g.p.n == 3 && !memcmp(g.p.data, "234", 3));
    CHECK_EQ_INT(cci_stream_write(s, "5", 1), 1);
    h.buf_alloc = 0;
    vg_send_header(&g, &h, NULL, 0);
    vg_post_fresh(&g, 1);
    CHECK(!vg_recv(&g));
    vg_send(&g, 9, 99, CCI_VSOCK_RW, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, 99, 9)); /* takes that buffer */
    vg_post_fresh(&g, 8);
    h.buf_alloc = 100;
    vg_send_header(&g, &h, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    CHECK(g.p.n == 1 && g.p.data[0] == '5');
    cci_stream_close(s);
    end_closed(HOST1, 7);
    halt();
}

/* The host's room: told when half of it was freed, and on request; it grows with a reader that keeps up. */
static void test_host_credit(void)
{
    static uint8_t buf[CCI_VSOCK_RECEIVE_MAX];
    boot();
    struct cci_stream *s = dial_open(HOST1, 7);
    vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, buf, 60000);
    vg_send(&g, 7, HOST1, CCI_VSOCK_CREDIT_REQUEST, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_CREDIT_UPDATE, HOST1, 7));
    CHECK(g.p.h.fwd_cnt == 0 && g.p.h.buf_alloc == CCI_VSOCK_RECEIVE_MIN);
    CHECK_EQ_INT(cci_stream_read(s, buf, 32767), 32767);
    CHECK(!vg_recv(&g));
    CHECK_EQ_INT(cci_stream_read(s, buf, 1), 1);
    CHECK(vg_expect(&g, CCI_VSOCK_CREDIT_UPDATE, HOST1, 7));
    CHECK_EQ_INT(g.p.h.fwd_cnt, 32768);
    vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, buf, 30000);
    CHECK_EQ_INT(cci_stream_read(s, buf, sizeof(buf)), 57232);
    CHECK(vg_expect(&g, CCI_VSOCK_CREDIT_UPDATE, HOST1, 7));
    CHECK_EQ_INT(g.p.h.fwd_cnt, 90000);
    CHECK_EQ_INT(g.p.h.buf_alloc, CCI_VSOCK_RECEIVE_MAX);
    CHECK(v.extra > 0);
    for (int i = 0; i < 4; i++)
        vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, buf, 65536); /* all of it */
    CHECK(!vg_recv(&g));
    vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, buf, 1); /* and one too many */
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1, 7));
    CHECK_EQ_INT(cci_stream_read(s, buf, sizeof(buf)), CCI_VSOCK_RECEIVE_MAX);
    CHECK_EQ_INT(cci_stream_read(s, buf, sizeof(buf)), -EPROTO);
    cci_stream_close(s);
    CHECK_EQ_INT(v.extra, 0);
    halt();
}

/* Bulk in both directions over one connection, on one thread, in random pieces; *conn is the guest's end. */
static void exchange(struct cci_stream *s, struct vg_conn *c, uint64_t total, uint32_t random)
{
    static uint8_t buf[100000];
    uint64_t written = 0, read = 0;
    while (written < total || read < total || c->received < total) {
        size_t n = vg_random(&random) % sizeof(buf) + 1;
        n = CCI_MIN(n, total - written);
        vg_fill(buf, n, c->in_seed, written);
        int64_t r = n ? cci_stream_write(s, buf, n) : 0;
        CHECK(r >= 0 || r == -EAGAIN);
        written += (uint64_t)CCI_MAX(r, 0);
        while (vg_recv(&g))
            CHECK(vg_handle(&g));
        vg_conn_read(&g, c, vg_random(&random) % (c->rx_cnt - c->fwd_cnt + 1));
        if (c->rx_cnt - c->fwd_cnt == c->buf_alloc)
            vg_conn_read(&g, c, c->buf_alloc);
        n = vg_random(&random) % 65536 + 1;
        n = CCI_MIN(CCI_MIN(n, total - c->sent), vg_conn_room(c));
        vg_fill(buf, n, c->out_seed, c->sent);
        if (n && vg_can_send(&g))
            vg_conn_send(&g, c, CCI_VSOCK_RW, 0, buf, (uint32_t)n);
        r = cci_stream_read(s, buf, vg_random(&random) % sizeof(buf) + 1);
        CHECK(r > 0 || r == -EAGAIN);
        CHECK(r < 0 || vg_same(buf, (size_t)r, c->out_seed, read));
        read += (uint64_t)CCI_MAX(r, 0);
    }
    CHECK(!c->corrupt && !c->overrun);
    CHECK(written == total && read == total && c->received == total && c->sent == total);
}

static void exchange_all(uint64_t total)
{
    struct cci_stream *s = dial(7);
    while (vg_recv(&g))
        CHECK(vg_handle(&g));
    exchange(s, &g.conn[0], total, 1);
    cci_stream_close(s);
    while (vg_recv(&g))
        CHECK(vg_handle(&g));
    CHECK_EQ_INT(g.conn[0].peer_no, 3);
    vg_conn_send(&g, &g.conn[0], CCI_VSOCK_RST, 0, NULL, 0);
    CHECK_EQ_INT(v.conns, 0);
}

static void test_bulk(void)
{
    boot();
    exchange_all(100u << 20);
    halt();
}

static void test_bulk_without_event_idx(void)
{
    boot_with(NULL, CCI_VIRTIO_F_VERSION_1, 5);
    exchange_all(4u << 20);
    halt();
}

/* Byte counters that wrap in mid-transfer, at every alignment that the random pieces give. */
static void test_wrap(void)
{
    for (uint32_t before = 1; before < 300000; before = before * 7 + 1) {
        const struct cci_vsock_options o = {0, UINT32_MAX - before};
        boot_with(&o, DRV_ALL, 64);
        exchange_all(1u << 20);
        halt();
    }
}

/* A guest program that never reads holds up its own connection only. */
static void test_never_reads(void)
{
    static uint8_t buf[65536];
    boot();
    struct cci_stream *stuck = dial(7);
    while (vg_recv(&g))
        CHECK(vg_handle(&g));
    uint64_t taken = 0;
    int64_t r;
    vg_fill(buf, sizeof(buf), 0, 0);
    do {
        r = cci_stream_write(stuck, buf, sizeof(buf));
        taken += (uint64_t)CCI_MAX(r, 0);
        while (vg_recv(&g))
            CHECK(vg_handle(&g));
    } while (r > 0);
    CHECK_EQ_INT(r, -EAGAIN);
    CHECK_EQ_INT(taken, 262144 + CCI_VSOCK_SEND);
    struct cci_stream *s = dial(8);
    while (vg_recv(&g))
        CHECK(vg_handle(&g));
    exchange(s, &g.conn[1], 1u << 20, 2);
    cci_stream_close(s);
    cci_stream_close(stuck); /* waits for room that never comes */
    while (vg_recv(&g))
        CHECK(vg_handle(&g));
    vg_conn_send(&g, &g.conn[1], CCI_VSOCK_RST, 0, NULL, 0);
    CHECK_EQ_INT(v.conns, 1);
    vg_conn_send(&g, &g.conn[0], CCI_VSOCK_RST, 0, NULL, 0);
    CHECK_EQ_INT(v.conns, 0);
    halt();
}

int main(void)
{
    RUN(test_guest_credit);
    RUN(test_no_buffers);
    RUN(test_host_credit);
    RUN(test_bulk);
    RUN(test_bulk_without_event_idx);
    RUN(test_wrap);
    RUN(test_never_reads);
    return check_done();
}
