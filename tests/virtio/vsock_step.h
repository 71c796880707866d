/*
 * tests/virtio/vsock_step.h - the socket device and a guest, one step at a time: no loop and no threads, so every
 * packet is where it is expected.
 */
#ifndef TESTS_VIRTIO_VSOCK_STEP_H
#define TESTS_VIRTIO_VSOCK_STEP_H

#include "src/virtio/vsock_dial.h"
#include "vsock_guest.h"

#include "../check.h"

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

static struct cci_stream *held[64];
static unsigned held_count;

static void hold_it(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    (void)ctx;
    (void)peer_port;
    held[held_count++] = s;
}

#endif
