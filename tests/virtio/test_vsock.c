// @timeout 120
/*
 * The socket device, one step at a time: connections from both sides, halves, and ends. What several threads do to it
 * is in test_vsock_threads.c.
 */
#define _GNU_SOURCE
#include "tests/virtio/vsock_step.h"

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
    RUN(test_driver_reset);
    RUN(test_kill);
    RUN(test_save_restore);
    RUN(test_no_memory);
    return check_done();
}
