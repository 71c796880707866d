// @timeout 120
/* The socket device, one step at a time: a guest that breaks the rules. */
#define _GNU_SOURCE
#include "tests/virtio/vsock_step.h"

static void expect_reset(struct cci_stream *s, uint32_t host_port)
{
    char text[101];
    CHECK(vg_expect(&g, CCI_VSOCK_RST, host_port, 7));
    CHECK(!vg_recv(&g));
    CHECK_EQ_INT(read_s(s, text), -EPROTO);
    cci_stream_close(s);
    CHECK_EQ_INT(v.conns, 0);
}

static void test_bad_ops(void)
{
    static const uint16_t ops[] = {0, CCI_VSOCK_REQUEST, CCI_VSOCK_RESPONSE, 8, 0xffff};
    boot();
    uint32_t port = HOST1;
    for (unsigned i = 0; i < CCI_COUNT(ops); i++, port++) {
        struct cci_stream *s = dial_open(port, 7);
        vg_send(&g, 7, port, ops[i], 0, NULL, 0);
        expect_reset(s, port);
    }
    static const uint16_t early[] = {0, CCI_VSOCK_REQUEST, CCI_VSOCK_RW, CCI_VSOCK_SHUTDOWN, 9};
    for (unsigned i = 0; i < CCI_COUNT(early); i++, port++) {
        struct cci_stream *s = dial(7);
        CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, port, 7));
        vg_send(&g, 7, port, early[i], 3, NULL, 0);
        expect_reset(s, port);
    }
    g.keep = true; /* a RESPONSE to a REQUEST that was not delivered: use up all buffers first */
    for (unsigned i = 0; i < 64; i++)
        vg_send(&g, 7, 99, CCI_VSOCK_RW, 0, NULL, 0);
    struct cci_stream *s = dial(7);
    vg_send(&g, 7, port, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK_EQ_INT(cci_vsock_dial_status(s), -EPROTO);
    while (vg_recv(&g))
        CHECK_EQ_INT(g.p.h.op, CCI_VSOCK_RST);
    vg_post_fresh(&g, 8);
    expect_reset(s, port);
    halt();
}

static void test_bad_data(void)
{
    boot();
    struct cci_stream *s = dial_open(HOST1, 7);
    struct cci_vsock_header h = vg_header(7, HOST1, CCI_VSOCK_RW);
    h.len = 11; /* more than the chain has */
    vg_send_header(&g, &h, (const uint8_t *)"0123456789", 10);
    expect_reset(s, HOST1);
    s = dial_open(HOST1 + 1, 7);
    h.dst_port++;
    h.len = UINT32_MAX;
    vg_send_header(&g, &h, NULL, 0);
    expect_reset(s, HOST1 + 1);
    s = dial_open(HOST1 + 2, 7);
    vg_send(&g, 7, HOST1 + 2, CCI_VSOCK_SHUTDOWN, 2, NULL, 0);
    vg_send(&g, 7, HOST1 + 2, CCI_VSOCK_RW, 0, "x", 1); /* after it said that it would not */
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1 + 2, 7));
    cci_stream_close(s);
    s = dial_open(HOST1 + 3, 7);
    h.dst_port = HOST1 + 3;
    h.len = 4; /* shorter than the chain: the rest is not looked at */
    vg_send_header(&g, &h, (const uint8_t *)"0123456789", 10);
    char text[101];
    CHECK_EQ_INT(read_s(s, text), 4);
    CHECK_EQ_STR(text, "0123");
    h.op = CCI_VSOCK_CREDIT_UPDATE; /* a payload where none belongs */
    h.len = 10;
    vg_send_header(&g, &h, (const uint8_t *)"0123456789", 10);
    CHECK_EQ_INT(read_s(s, text), -EAGAIN);
    cci_stream_close(s);
    end_closed(HOST1 + 3, 7);
    halt();
}

static void test_bad_addresses(void)
{
    boot();
    struct cci_vsock_header h = vg_header(7, 8, CCI_VSOCK_REQUEST);
    h.src_cid = 4; /* somebody else's */
    vg_send_header(&g, &h, NULL, 0);
    CHECK(!vg_recv(&g));
    h = vg_header(7, 8, CCI_VSOCK_REQUEST);
    h.dst_cid = 1234; /* not the host */
    vg_send_header(&g, &h, NULL, 0);
    CHECK(vg_recv(&g));
    CHECK(g.p.h.op == CCI_VSOCK_RST && g.p.h.src_cid == 1234 && g.p.h.src_port == 8 && g.p.h.dst_port == 7);
    h = vg_header(7, 8, CCI_VSOCK_REQUEST);
    h.type = 2; /* SEQPACKET was not offered */
    vg_send_header(&g, &h, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, 8, 7));
    struct cci_stream *s = dial_open(HOST1, 7); /* the same ports at another address are another connection */
    for (uint16_t type = 1; type <= 2; type++) {
        char text[101];
        h = vg_header(7, HOST1, CCI_VSOCK_RW);
        h.dst_cid = type == 1 ? 0 : CCI_VSOCK_CID_HOST;
        h.type = type;
        h.len = 1;
        vg_send_header(&g, &h, (const uint8_t *)"x", 1);
        CHECK(vg_recv(&g) && g.p.h.op == CCI_VSOCK_RST && g.p.h.src_cid == h.dst_cid);
        CHECK_EQ_INT(read_s(s, text), -EAGAIN);
    }
    cci_stream_close(s);
    end_closed(HOST1, 7);
    for (uint16_t op = 0; op < 10; op++) { /* no connection: a RST, but never in answer to one */
        vg_send(&g, 7, 8, op, 3, NULL, 0);
        CHECK(op == CCI_VSOCK_RST ? !vg_recv(&g) : vg_expect(&g, CCI_VSOCK_RST, 8, 7));
    }
    uint8_t raw[CCI_VSOCK_HEADER] = {0};
    vg_send_raw(&g, raw, CCI_VSOCK_HEADER - 1, NULL, 0); /* shorter than a header */
    CHECK(!vg_recv(&g));
    (void)vg_reap(&g);
    CHECK_EQ_INT(g.tx_free_count, VG_TX_SLOTS);
    CHECK(!drv_broken(&g.d));
    halt();
}

/* A header in pieces is a header. */
static void test_split_header(void)
{
    boot();
    struct cci_stream *s = dial(7);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    struct cci_vsock_header h = vg_header(7, HOST1, CCI_VSOCK_RESPONSE);
    uint8_t raw[CCI_VSOCK_HEADER];
    cci_vsock_header_put(raw, &h);
    vg_send_raw(&g, raw, 3, raw + 3, 41);
    CHECK_EQ_INT(cci_vsock_dial_status(s), 0);
    cci_stream_close(s);
    end_closed(HOST1, 7);
    halt();
}

static void test_small_buffer(void)
{
    boot_with(NULL, DRV_ALL, 0);
    struct drv_buf b = {drv_alloc(&g.vm, 64, 8), CCI_VSOCK_HEADER, true};
    (void)drv_add(&g.d, CCI_VSOCK_RX, &b, 1, DRV_DIRECT);
    struct cci_stream *s = dial(7);
    CHECK(drv_broken(&g.d));
    CHECK_EQ_INT(cci_stream_write(s, "x", 1), 1); /* kept for a driver that comes back */
    cci_stream_close(s);
    halt();
}

/* Replies that find no buffer are bounded: the transmit queue waits, and goes on when there are buffers. */
static void test_reply_flood(void)
{
    boot_with(NULL, DRV_ALL, 0);
    unsigned sent = 0, answered = 0;
    while (vg_can_send(&g) && sent < 1000)
        vg_send(&g, sent++, 8, CCI_VSOCK_RW, 0, NULL, 0);
    CHECK_EQ_INT(sent, CCI_VSOCK_ORPHANS - 1 + VG_TX_SLOTS);
    CHECK_EQ_INT(v.orphan_count, CCI_VSOCK_ORPHANS - 1);
    vg_post_fresh(&g, 4);
    for (; vg_recv(&g) || (cci_virtio_notify(&v.dev, CCI_VSOCK_TX), vg_recv(&g)); answered++)
        CHECK(g.p.h.op == CCI_VSOCK_RST && g.p.h.src_port == 8);
    CHECK_EQ_INT(answered, sent);
    (void)vg_reap(&g);
    CHECK_EQ_INT(g.tx_free_count, VG_TX_SLOTS);
    halt();
}

/* Control packets of a connection make no queue however many there are. */
static void test_credit_flood(void)
{
    boot_with(NULL, DRV_ALL, 1);
    g.keep = true;
    struct cci_stream *s = dial(7);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    vg_send(&g, 7, HOST1, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    for (int i = 0; i < 1000; i++)
        vg_send(&g, 7, HOST1, CCI_VSOCK_CREDIT_REQUEST, 0, NULL, 0);
    vg_post_fresh(&g, 8);
    CHECK(vg_expect(&g, CCI_VSOCK_CREDIT_UPDATE, HOST1, 7));
    CHECK(!vg_recv(&g));
    cci_stream_close(s);
    end_closed(HOST1, 7);
    halt();
}

/* The guest may open half of the connections; a full table cuts off closed ones, oldest first, and then refuses. */
static void test_limits(void)
{
    const struct cci_vsock_options o = {16, 0};
    struct cci_stream *s[16];
    cc_error err = {0};
    boot_with(&o, DRV_ALL, 64);
    held_count = 0;
    CHECK_OK(cci_vsock_listen(&v, 1022, hold_it, NULL, &err), err);
    for (uint32_t i = 0; i < 12; i++) {
        vg_send(&g, 5000 + i, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
        CHECK(vg_expect(&g, i < 8 ? CCI_VSOCK_RESPONSE : CCI_VSOCK_RST, 1022, 5000 + i));
    }
    CHECK_EQ_INT(held_count, 8);
    for (uint32_t i = 0; i < 8; i++)
        s[i] = dial_open(HOST1 + i, 7);
    CHECK_EQ_INT(cci_vsock_dial(&v, 7, &s[8], &err), CC_ERR_IO);
    CHECK(s[8] == NULL);
    cci_error_release(&err);
    cci_stream_close(s[3]); /* closed, but the guest does not confirm it */
    cci_stream_close(s[5]);
    CHECK(vg_expect(&g, CCI_VSOCK_SHUTDOWN, HOST1 + 3, 7));
    CHECK(vg_expect(&g, CCI_VSOCK_SHUTDOWN, HOST1 + 5, 7));
    s[3] = dial(7);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1 + 3, 7));
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1 + 8, 7));
    s[5] = dial(7);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1 + 5, 7));
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1 + 9, 7));
    for (uint32_t i = 0; i < 8; i++)
        cci_stream_close(s[i]);
    for (uint32_t i = 0; i < 8; i++)
        cci_stream_close(held[i]);
    while (vg_recv(&g))
        vg_send(&g, g.p.h.dst_port, g.p.h.src_port, CCI_VSOCK_RST, 0, NULL, 0);
    CHECK_EQ_INT(v.conns, 0);
    halt();
}

int main(void)
{
    RUN(test_bad_ops);
    RUN(test_bad_data);
    RUN(test_bad_addresses);
    RUN(test_split_header);
    RUN(test_small_buffer);
    RUN(test_reply_flood);
    RUN(test_credit_flood);
    RUN(test_limits);
    return check_done();
}
