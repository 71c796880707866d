// @timeout 120
/*
 * The socket device, one step at a time: no loop and no threads, so every packet is where it is expected. What several
 * threads do to it is in test_vsock_threads.c.
 */
#define _GNU_SOURCE
#include "tests/virtio/vsock_guest.h"
#include "tests/virtio/vsock_dial.h"

#include "tests/check.h"

#define HOST1 CCI_VSOCK_FIRST_PORT /* the first port that a dial gets */

static struct cci_vsock v;
static struct vg g;
static unsigned calls; /* of watch functions */

static void boot_with(const struct cci_vsock_options *o, uint64_t features, unsigned rx)
{
    memset(&g, 0, sizeof(g));
    g.first_count = o ? o->first_count : 0;
    calls = 0;
    drv_vm_init(&g.vm);
    cci_vsock_init(&v, &g.vm.mem, drv_irq(&g.vm), o);
    CHECK(vg_start(&g, &v, features, rx));
}

static void boot(void)
{
    boot_with(NULL, DRV_ALL, 64);
}

/* The end of every test, which has closed its streams and answered for the guest. */
static void halt(void)
{
    CHECK_EQ_INT(v.conns, 0);
    cci_vsock_destroy(&v);
    drv_vm_free(&g.vm);
}

static void on_change(void *ctx, struct cci_stream *s)
{
    (void)ctx;
    (void)s;
    calls++;
}

/* How many calls came, of those that are due by now. */
static unsigned called(void)
{
    cci_vsock_dispatch(&v.dev);
    unsigned n = calls;
    calls = 0;
    return n;
}

static struct cci_stream *dial(uint32_t port)
{
    struct cci_stream *s;
    cc_error err = {0};
    CHECK_OK(cci_vsock_dial(&v, port, &s, &err), err);
    return s;
}

/* A connection from the host that the guest has accepted. */
static struct cci_stream *dial_open(uint32_t host_port, uint32_t port)
{
    struct cci_stream *s = dial(port);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, host_port, port));
    vg_send(&g, port, host_port, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK_EQ_INT(cci_vsock_dial_status(s), 0);
    return s;
}

static int64_t read_s(struct cci_stream *s, char *text)
{
    int64_t n = cci_stream_read(s, text, 100);
    text[n > 0 ? n : 0] = '\0';
    return n;
}

/* The guest answers a close; nothing of the connection stays. */
static void end_closed(uint32_t host_port, uint32_t guest_port)
{
    CHECK(vg_expect(&g, CCI_VSOCK_SHUTDOWN, host_port, guest_port));
    CHECK_EQ_INT(g.p.h.flags, 3);
    vg_send(&g, guest_port, host_port, CCI_VSOCK_RST, 0, NULL, 0);
}

/* ---- Connections from the host ------------------------------------------------------------------------------ */

static void test_identity(void)
{
    boot();
    CHECK_EQ_INT(drv_get(&g.d, CCI_VIRTIO_REG_DEVICE_ID), 19);
    CHECK_EQ_INT(drv_config(&g.d, 0, 8), 3);
    CHECK_EQ_INT(drv_offered(&g.d) & 0xffffff, 0); /* neither STREAM, which is implied, nor SEQPACKET */
    halt();
}

static void test_dial(void)
{
    char text[101];
    boot();
    struct cci_stream *s = dial(1021);
    cci_stream_watch(s, on_change, NULL);
    CHECK_EQ_INT(called(), 1); /* the promised first call */
    CHECK_EQ_INT(called(), 0);
    CHECK_EQ_INT(cci_vsock_dial_status(s), -EAGAIN);
    CHECK_EQ_INT(read_s(s, text), -EAGAIN);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 1021));
    CHECK_EQ_INT(g.p.h.buf_alloc, CCI_VSOCK_RECEIVE_MIN);
    vg_send(&g, 1021, HOST1, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK_EQ_INT(called(), 1);
    CHECK_EQ_INT(cci_vsock_dial_status(s), 0);
    (void)drv_irqs(&g.vm);
    drv_want_irq(&g.d, CCI_VSOCK_RX);
    CHECK_EQ_INT(cci_stream_write(s, "hello", 5), 5);
    CHECK_EQ_INT(drv_irqs(&g.vm), 1);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 1021));
    CHECK(g.p.n == 5 && !memcmp(g.p.data, "hello", 5));
    vg_send(&g, 1021, HOST1, CCI_VSOCK_RW, 0, "hi", 2);
    vg_send(&g, 1021, HOST1, CCI_VSOCK_RW, 0, " there", 6);
    CHECK(called() >= 1);
    CHECK_EQ_INT(read_s(s, text), 8);
    CHECK_EQ_STR(text, "hi there");
    CHECK_EQ_INT(read_s(s, text), -EAGAIN);
    CHECK_EQ_INT(cci_stream_read(s, text, 0), 0);
    CHECK_EQ_INT(cci_stream_write(s, text, 0), 0);
    CHECK(!vg_recv(&g)); /* no credit update for so little */
    cci_stream_close(s);
    end_closed(HOST1, 1021);
    CHECK_EQ_INT(v.conns, 0);
    halt();
}

static void test_refused(void)
{
    char text[101];
    boot();
    struct cci_stream *s = dial(7);
    cci_stream_watch(s, on_change, NULL);
    (void)called();
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    vg_send(&g, 7, HOST1, CCI_VSOCK_RST, 0, NULL, 0);
    CHECK_EQ_INT(called(), 1);
    CHECK_EQ_INT(cci_vsock_dial_status(s), -ECONNREFUSED);
    CHECK_EQ_INT(read_s(s, text), -ECONNREFUSED);
    CHECK_EQ_INT(cci_stream_write(s, "x", 1), -ECONNREFUSED);
    cci_stream_shutdown(s);
    cci_stream_close(s);
    CHECK(!vg_recv(&g));
    halt();
}

static void test_write_before_response(void)
{
    boot();
    struct cci_stream *s = dial(7);
    CHECK_EQ_INT(cci_stream_write(s, "early", 5), 5);
    cci_stream_shutdown(s);
    CHECK_EQ_INT(cci_stream_write(s, "x", 1), -EPIPE);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    CHECK(!vg_recv(&g));
    vg_send(&g, 7, HOST1, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    CHECK(g.p.n == 5 && !memcmp(g.p.data, "early", 5));
    CHECK(vg_expect(&g, CCI_VSOCK_SHUTDOWN, HOST1, 7));
    CHECK_EQ_INT(g.p.h.flags, 2);
    cci_stream_close(s);
    end_closed(HOST1, 7);
    halt();
}

/* The host may dial before the guest's driver is there, and before it has posted a buffer. */
static void test_dial_before_boot(void)
{
    memset(&g, 0, sizeof(g));
    drv_vm_init(&g.vm);
    cci_vsock_init(&v, &g.vm.mem, drv_irq(&g.vm), NULL);
    struct cci_stream *s = dial(7), *gone = dial(8);
    cci_stream_close(gone); /* the guest never hears of it */
    CHECK(vg_start(&g, &v, DRV_ALL, 0));
    vg_post_fresh(&g, 4);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    CHECK(!vg_recv(&g));
    vg_send(&g, 7, HOST1, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK_EQ_INT(cci_vsock_dial_status(s), 0);
    cci_stream_close(s);
    end_closed(HOST1, 7);
    halt();
}

static void test_close(void)
{
    boot();
    struct cci_stream *s = dial(7); /* before an answer */
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1, 7));
    cci_stream_close(s);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1, 7));
    vg_send(&g, 7, HOST1, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1, 7));
    s = dial_open(HOST1 + 1, 7); /* with bytes unread */
    vg_send(&g, 7, HOST1 + 1, CCI_VSOCK_RW, 0, "abc", 3);
    cci_stream_close(s);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1 + 1, 7));
    s = dial_open(HOST1 + 2, 7); /* what was written arrives; what the guest sends meanwhile is dropped */
    CHECK_EQ_INT(cci_stream_write(s, "last", 4), 4);
    cci_stream_close(s);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1 + 2, 7));
    vg_send(&g, 7, HOST1 + 2, CCI_VSOCK_RW, 0, "late", 4);
    end_closed(HOST1 + 2, 7);
    s = dial_open(HOST1 + 3, 7); /* both ends at once */
    cci_stream_close(s);
    vg_send(&g, 7, HOST1 + 3, CCI_VSOCK_SHUTDOWN, 3, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_SHUTDOWN, HOST1 + 3, 7));
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1 + 3, 7));
    CHECK_EQ_INT(v.conns, 0);
    halt();
}

static void close_it(void *ctx, struct cci_stream *s)
{
    (void)ctx;
    calls++;
    cci_stream_close(s);
}

static void test_close_within_call(void)
{
    boot();
    struct cci_stream *s = dial_open(HOST1, 7);
    cci_stream_watch(s, close_it, NULL);
    CHECK_EQ_INT(called(), 1);
    end_closed(HOST1, 7);
    CHECK_EQ_INT(called(), 0);
    halt();
}

/* ---- Halves -------------------------------------------------------------------------------------------------- */

static void test_half_close(void)
{
    char text[101];
    boot();
    struct cci_stream *s = dial_open(HOST1, 7);
    cci_stream_watch(s, on_change, NULL);
    (void)called();
    CHECK_EQ_INT(cci_stream_write(s, "q", 1), 1);
    cci_stream_shutdown(s);
    cci_stream_shutdown(s);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    CHECK(vg_expect(&g, CCI_VSOCK_SHUTDOWN, HOST1, 7));
    CHECK_EQ_INT(g.p.h.flags, 2);
    CHECK(!vg_recv(&g));
    CHECK_EQ_INT(read_s(s, text), -EAGAIN); /* the other direction goes on */
    vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, "answer", 6);
    vg_send(&g, 7, HOST1, CCI_VSOCK_SHUTDOWN, 2, NULL, 0);
    CHECK(called() >= 1);
    CHECK_EQ_INT(read_s(s, text), 6);
    CHECK_EQ_INT(read_s(s, text), 0);
    CHECK_EQ_INT(read_s(s, text), 0);
    cci_stream_close(s);
    end_closed(HOST1, 7);
    halt();
}

/* The guest's close is a SHUTDOWN of both directions, which a RST acknowledges at once; data stays readable. */
static void test_guest_closes(void)
{
    char text[101];
    boot();
    struct cci_stream *s = dial_open(HOST1, 7);
    vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, "bye", 3);
    vg_send(&g, 7, HOST1, CCI_VSOCK_SHUTDOWN, 3, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1, 7));
    CHECK_EQ_INT(v.conns, 0);
    CHECK_EQ_INT(cci_stream_write(s, "x", 1), -EPIPE);
    CHECK_EQ_INT(read_s(s, text), 3);
    CHECK_EQ_INT(read_s(s, text), 0);
    cci_stream_close(s);
    s = dial_open(HOST1 + 1, 7); /* one direction after the other, and the peer that no longer receives first */
    vg_send(&g, 7, HOST1 + 1, CCI_VSOCK_SHUTDOWN, 1, NULL, 0);
    CHECK_EQ_INT(cci_stream_write(s, "x", 1), -EPIPE);
    CHECK_EQ_INT(read_s(s, text), -EAGAIN);
    vg_send(&g, 7, HOST1 + 1, CCI_VSOCK_RW, 0, "more", 4);
    vg_send(&g, 7, HOST1 + 1, CCI_VSOCK_SHUTDOWN, 2, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1 + 1, 7));
    CHECK_EQ_INT(read_s(s, text), 4);
    CHECK_EQ_INT(read_s(s, text), 0);
    cci_stream_close(s);
    CHECK(!vg_recv(&g));
    halt();
}

static void test_guest_resets(void)
{
    char text[101];
    boot();
    struct cci_stream *s = dial_open(HOST1, 7);
    cci_stream_watch(s, on_change, NULL);
    (void)called();
    vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, "abc", 3);
    vg_send(&g, 7, HOST1, CCI_VSOCK_RST, 0, NULL, 0);
    CHECK(called() >= 1);
    CHECK_EQ_INT(cci_stream_write(s, "x", 1), -ECONNRESET);
    CHECK_EQ_INT(read_s(s, text), 3);
    CHECK_EQ_INT(read_s(s, text), -ECONNRESET);
    cci_stream_close(s);
    CHECK(!vg_recv(&g));
    halt();
}

/* ---- Connections from the guest ------------------------------------------------------------------------------ */

static struct cci_stream *accepted[4];
static unsigned accepted_count;

static void on_accept(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    CHECK(ctx == &g);
    CHECK(peer_port >= 5000);
    accepted[accepted_count++ % 4] = s;
}

static void refuse_it(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    (void)ctx;
    (void)peer_port;
    cci_stream_close(s);
}

static void test_listen(void)
{
    char text[101];
    cc_error err = {0};
    boot();
    accepted_count = 0;
    CHECK_OK(cci_vsock_listen(&v, 1022, on_accept, &g, &err), err);
    CHECK_EQ_INT(cci_vsock_listen(&v, 1022, on_accept, &g, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, EADDRINUSE);
    cci_error_release(&err);
    vg_send(&g, 5000, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    CHECK_EQ_INT(accepted_count, 1);
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5000));
    vg_send(&g, 5000, 1022, CCI_VSOCK_RW, 0, "hello", 5);
    CHECK_EQ_INT(read_s(accepted[0], text), 5);
    vg_send(&g, 5001, 1023, CCI_VSOCK_REQUEST, 0, NULL, 0); /* nobody opened that */
    CHECK(vg_expect(&g, CCI_VSOCK_RST, 1023, 5001));
    vg_send(&g, 5001, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5001));
    CHECK_EQ_INT(accepted_count, 2);
    cci_vsock_unlisten(&v, 1022);
    cci_vsock_unlisten(&v, 1022);
    vg_send(&g, 5002, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, 1022, 5002));
    CHECK_EQ_INT(cci_stream_write(accepted[0], "x", 1), 1); /* those that were accepted stay */
    CHECK(vg_expect(&g, CCI_VSOCK_RW, 1022, 5000));
    cci_stream_close(accepted[0]);
    end_closed(1022, 5000);
    cci_stream_close(accepted[1]);
    end_closed(1022, 5001);
    CHECK_OK(cci_vsock_listen(&v, 1022, refuse_it, NULL, &err), err);
    vg_send(&g, 5000, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5000));
    end_closed(1022, 5000);
    CHECK_EQ_INT(v.conns, 0);
    halt();
}

/* Connections that are not accepted yet when something happens to them. */
static void test_listen_waiting(void)
{
    char text[101];
    cc_error err = {0};
    boot();
    accepted_count = 0;
    CHECK_OK(cci_vsock_listen(&v, 1022, on_accept, &g, &err), err);
    v.dispatching = true; /* as if the I/O thread were in somebody's call */
    vg_send(&g, 5000, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    vg_send(&g, 5000, 1022, CCI_VSOCK_RW, 0, "all", 3);
    vg_send(&g, 5000, 1022, CCI_VSOCK_SHUTDOWN, 3, NULL, 0);
    vg_send(&g, 5001, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    vg_send(&g, 5001, 1022, CCI_VSOCK_RST, 0, NULL, 0);
    CHECK_EQ_INT(accepted_count, 0);
    v.dispatching = false;
    cci_vsock_dispatch(&v.dev);
    CHECK_EQ_INT(accepted_count, 1); /* the one that was reset is gone; the other closed in good order */
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5000));
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5001));
    CHECK(vg_expect(&g, CCI_VSOCK_RST, 1022, 5000));
    CHECK_EQ_INT(read_s(accepted[0], text), 3);
    CHECK_EQ_INT(read_s(accepted[0], text), 0);
    cci_stream_close(accepted[0]);
    v.dispatching = true;
    vg_send(&g, 5002, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    vg_send(&g, 5003, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    vg_send(&g, 5003, 1022, CCI_VSOCK_RW, 0, "x", 1);
    v.dispatching = false;
    cci_vsock_unlisten(&v, 1022);
    cci_vsock_dispatch(&v.dev);
    CHECK_EQ_INT(accepted_count, 1);
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5002));
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5003));
    CHECK(vg_expect(&g, CCI_VSOCK_RST, 1022, 5002));
    CHECK(vg_expect(&g, CCI_VSOCK_RST, 1022, 5003));
    CHECK_EQ_INT(v.conns, 0);
    halt();
}

/* ---- Credit -------------------------------------------------------------------------------------------------- */

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

/* ---- A guest that breaks the rules ---------------------------------------------------------------------------- */

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

static struct cci_stream *held[64];
static unsigned held_count;

static void hold_it(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    (void)ctx;
    (void)peer_port;
    held[held_count++] = s;
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

/* ---- Ends ----------------------------------------------------------------------------------------------------- */

/* One connection in each state. */
static void open_all(struct cci_stream *s[5])
{
    cc_error err = {0};
    held_count = 0;
    CHECK_OK(cci_vsock_listen(&v, 1022, hold_it, NULL, &err), err);
    vg_send(&g, 5000, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5000));
    s[0] = held[0];
    vg_send(&g, 5000, 1022, CCI_VSOCK_RW, 0, "kept", 4);
    s[1] = dial_open(HOST1, 7);
    CHECK_EQ_INT(cci_stream_write(s[1], "out", 3), 3);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1, 7));
    s[2] = dial(7); /* unanswered */
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1 + 1, 7));
    s[3] = dial_open(HOST1 + 2, 7); /* shut down both ways, the RST under way */
    struct cci_stream *closed = dial_open(HOST1 + 3, 7);
    g.keep = true;
    for (unsigned i = 0; i < 64; i++)
        vg_send(&g, 9, 99, CCI_VSOCK_RW, 0, NULL, 0); /* no buffers are left from here on */
    vg_send(&g, 7, HOST1 + 2, CCI_VSOCK_SHUTDOWN, 3, NULL, 0);
    cci_stream_close(closed); /* its SHUTDOWN under way */
    s[4] = dial(7);           /* the guest has not heard of it */
    CHECK(v.conns == 6);
    for (int i = 0; i < 5; i++)
        cci_stream_watch(s[i], on_change, NULL);
    (void)called();
}

static void check_all(struct cci_stream *s[5], int error, bool fifth_too)
{
    char text[101];
    CHECK_EQ_INT(read_s(s[0], text), 4);
    CHECK_EQ_INT(read_s(s[0], text), -error);
    CHECK_EQ_INT(cci_stream_write(s[0], "x", 1), -error);
    CHECK_EQ_INT(read_s(s[1], text), -error);
    CHECK_EQ_INT(cci_vsock_dial_status(s[2]), -error);
    CHECK_EQ_INT(read_s(s[3], text), 0);
    CHECK_EQ_INT(cci_vsock_dial_status(s[4]), fifth_too ? -error : -EAGAIN);
    CHECK_EQ_INT(v.conns, fifth_too ? 0 : 1);
}

static void test_driver_reset(void)
{
    struct cci_stream *s[5];
    boot();
    open_all(s);
    CHECK(vg_start(&g, &v, DRV_ALL, 64));
    CHECK_EQ_INT(called(), 4);
    check_all(s, ECONNRESET, false);
    g.keep = false;
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1 + 4, 7)); /* the one that had not been sent */
    CHECK(!vg_recv(&g));
    vg_send(&g, 7, HOST1 + 4, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK_EQ_INT(cci_vsock_dial_status(s[4]), 0);
    vg_send(&g, 5009, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0); /* listeners stay */
    CHECK(vg_expect(&g, CCI_VSOCK_RESPONSE, 1022, 5009));
    cci_stream_close(held[1]);
    end_closed(1022, 5009);
    for (int i = 0; i < 5; i++)
        cci_stream_close(s[i]);
    end_closed(HOST1 + 4, 7);
    CHECK_EQ_INT(v.conns, 0);
    halt();
}

static void test_kill(void)
{
    struct cci_stream *s[5], *none;
    cc_error err = {0};
    boot();
    open_all(s);
    cci_vsock_kill(&v);
    CHECK_EQ_INT(called(), 5);
    check_all(s, ENOTCONN, true);
    CHECK_EQ_INT(cci_vsock_dial(&v, 7, &none, &err), CC_ERR_NOT_RUNNING);
    CHECK_EQ_INT(cci_vsock_listen(&v, 7, hold_it, NULL, &err), CC_ERR_NOT_RUNNING);
    cci_vsock_kill(&v);
    CHECK_EQ_INT(called(), 0);
    for (int i = 0; i < 5; i++)
        cci_stream_close(s[i]);
    cci_error_release(&err);
    halt();
}

/* Saved in mid-traffic and restored into a new device: connections end, the rings carry on. */
static void test_save_restore(void)
{
    static struct cci_vsock fresh;
    struct cci_stream *s[5], *t;
    cc_error err = {0};
    struct cci_buf state = {0};
    uint8_t *ram;
    boot();
    open_all(s);
    cci_virtio_quiesce(&v.dev);
    vg_send(&g, 7, HOST1, CCI_VSOCK_RW, 0, "unseen", 6); /* waits on the ring */
    CHECK_EQ_INT(cci_stream_write(s[1], "unsent", 6), 6);
    CHECK_OK(cci_virtio_save(&v.dev, &state, &err), err);
    ram = malloc(DRV_RAM_SIZE);
    memcpy(ram, g.vm.mem.range[0].host, DRV_RAM_SIZE);
    cci_virtio_resume(&v.dev); /* the saved machine itself goes on */
    CHECK_EQ_INT(cci_vsock_dial_status(s[1]), 0);
    cci_vsock_kill(&v);
    for (int i = 0; i < 5; i++)
        cci_stream_close(s[i]);
    cci_vsock_destroy(&v);
    memcpy(g.vm.mem.range[0].host, ram, DRV_RAM_SIZE);
    free(ram);

    cci_vsock_init(&fresh, &g.vm.mem, drv_irq(&g.vm), NULL);
    cci_virtio_quiesce(&fresh.dev);
    struct cci_view in = {state.p, state.n};
    CHECK_OK(cci_virtio_restore(&fresh.dev, &in, &err), err);
    CHECK_EQ_INT(in.n, 0);
    cci_virtio_resume(&fresh.dev);
    for (unsigned q = 0; q < 3; q++) /* without a loop nobody rings */
        cci_virtio_notify(&fresh.dev, q);
    g.v = &fresh;
    g.d.dev = &fresh.dev;
    unsigned head;
    uint32_t len;
    CHECK(drv_poll(&g.d, CCI_VSOCK_EVENT, &head, &len));
    CHECK(len == 4 && cci_le32(drv_ptr(&g.vm, g.event_buf)) == 0);
    while (vg_recv(&g)) /* from before the save */
        CHECK_EQ_INT(g.p.h.op, CCI_VSOCK_RST);
    g.keep = false;
    vg_post_fresh(&g, 16);
    CHECK(vg_expect(&g, CCI_VSOCK_RST, HOST1, 7)); /* for the packet that waited */
    CHECK(!vg_recv(&g));
    CHECK_OK(cci_vsock_dial(&fresh, 7, &t, &err), err);
    CHECK(vg_expect(&g, CCI_VSOCK_REQUEST, HOST1 + 5, 7)); /* a port that the guest has not seen */
    vg_send(&g, 7, HOST1 + 5, CCI_VSOCK_RESPONSE, 0, NULL, 0);
    CHECK_EQ_INT(cci_stream_write(t, "on", 2), 2);
    CHECK(vg_expect(&g, CCI_VSOCK_RW, HOST1 + 5, 7));
    cci_stream_close(t);
    end_closed(HOST1 + 5, 7);
    in.p = state.p;
    in.n = state.n - 1;
    cci_virtio_quiesce(&fresh.dev);
    CHECK_EQ_INT(cci_virtio_restore(&fresh.dev, &in, &err), CC_ERR_IO);
    cci_put_le32(state.p + state.n - 4, UINT32_MAX); /* the next port would be "any", and then those below the first */
    in.p = state.p;
    in.n = state.n;
    CHECK_EQ_INT(cci_virtio_restore(&fresh.dev, &in, &err), CC_ERR_IO);
    cci_error_release(&err);
    cci_vsock_destroy(&fresh);
    drv_vm_free(&g.vm);
    cci_buf_free(&state);
}

/* ---- No memory ------------------------------------------------------------------------------------------------ */

static long allow = LONG_MAX; /* allocations until one fails */

static void *limited(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(old);
        return NULL;
    }
    return allow-- > 0 ? realloc(old, size) : NULL;
}

/* Fails every allocation in turn; the guest and the host's user get errors, and nothing leaks. */
static void test_no_memory(void)
{
    static uint8_t buf[65536];
    cci_mem_hook.realloc_fn = limited;
    for (long n = 0; n < 40; n++) {
        struct cci_stream *s = NULL;
        allow = LONG_MAX;
        boot();
        held_count = 0;
        allow = n;
        (void)cci_vsock_listen(&v, 1022, hold_it, NULL, NULL);
        vg_send(&g, 5000, 1022, CCI_VSOCK_REQUEST, 0, NULL, 0);
        for (int i = 0; i < 4; i++)
            vg_send(&g, 5000, 1022, CCI_VSOCK_RW, 0, buf, 10000);
        if (cci_vsock_dial(&v, 7, &s, NULL) == CC_OK)
            for (int i = 0; i < 3; i++)
                CHECK(cci_stream_write(s, buf, 40000) != 0);
        while (vg_recv(&g))
            if (g.p.h.op == CCI_VSOCK_REQUEST)
                vg_send(&g, 7, g.p.h.src_port, CCI_VSOCK_RESPONSE, 0, NULL, 0);
        cci_stream_close(s);
        if (held_count)
            cci_stream_close(held[0]);
        cci_vsock_destroy(&v);
        drv_vm_free(&g.vm);
    }
    allow = LONG_MAX;
}

int main(void)
{
    RUN(test_identity);
    RUN(test_dial);
    RUN(test_refused);
    RUN(test_write_before_response);
    RUN(test_dial_before_boot);
    RUN(test_close);
    RUN(test_close_within_call);
    RUN(test_half_close);
    RUN(test_guest_closes);
    RUN(test_guest_resets);
    RUN(test_listen);
    RUN(test_listen_waiting);
    RUN(test_guest_credit);
    RUN(test_no_buffers);
    RUN(test_host_credit);
    RUN(test_bulk);
    RUN(test_bulk_without_event_idx);
    RUN(test_wrap);
    RUN(test_never_reads);
    RUN(test_bad_ops);
    RUN(test_bad_data);
    RUN(test_bad_addresses);
    RUN(test_split_header);
    RUN(test_small_buffer);
    RUN(test_reply_flood);
    RUN(test_credit_flood);
    RUN(test_limits);
    RUN(test_driver_reset);
    RUN(test_kill);
    RUN(test_save_restore);
    RUN(test_no_memory);
    return check_done();
}
