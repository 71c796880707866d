/*
 * tools/bench/bench_vsock.c - what the socket device itself costs: a guest in plain memory (tests/virtio), one thread,
 * no VM. The guest's own work is little: it takes packets and does not look at them.
 *
 *     cc -O2 tools/bench/bench_vsock.c -o bench_vsock -lpthread && ./bench_vsock
 */
#define _GNU_SOURCE
#include "../../tests/virtio/vsock_guest.h"

static struct cci_vsock v;
static struct vg g;
static struct cci_stream *s;
static uint8_t buf[65536];

static double seconds(void)
{
    return (double)cci_os_now() / 1e9;
}

/* Takes the next packet without copying it, and posts its buffer again. */
static bool take(struct cci_vsock_header *h)
{
    unsigned head;
    uint32_t len;
    if (!drv_poll(&g.d, CCI_VSOCK_RX, &head, &len))
        return false;
    *h = cci_vsock_header_get(drv_ptr(&g.vm, g.rx_gpa[head]));
    vg_post_rx(&g, g.rx_gpa[head]);
    return true;
}

static void to_guest(size_t size, uint64_t total)
{
    struct vg_conn *c = &g.conn[0];
    struct cci_vsock_header h;
    double start = seconds();
    for (uint64_t done = 0; done < total;) {
        int64_t n = cci_stream_write(s, buf, size);
        done += n > 0 ? (uint64_t)n : 0;
        while (take(&h)) {
            c->rx_cnt += h.len;
            vg_conn_read(&g, c, h.len);
        }
        (void)drv_kick(&g.d, CCI_VSOCK_RX);
    }
    printf("bench vsock-to-guest-%zu ours=%.0f unit=MB/s\n", size, (double)total / 1e6 / (seconds() - start));
}

static void to_host(uint32_t size, uint64_t total)
{
    struct vg_conn *c = &g.conn[0];
    struct cci_vsock_header h;
    double start = seconds();
    for (uint64_t done = 0; done < total; done += size) {
        while (vg_conn_room(c) < size)
            if (take(&h)) {
                c->peer_buf_alloc = h.buf_alloc;
                c->peer_fwd_cnt = h.fwd_cnt;
            } else if (cci_stream_read(s, buf, sizeof(buf)) <= 0) {
                abort();
            }
        vg_conn_send(&g, c, CCI_VSOCK_RW, 0, buf, size);
    }
    while (cci_stream_read(s, buf, sizeof(buf)) > 0)
        ;
    printf("bench vsock-from-guest-%u ours=%.0f unit=MB/s\n", size, (double)total / 1e6 / (seconds() - start));
}

static void round_trips(unsigned count)
{
    struct vg_conn *c = &g.conn[0];
    struct cci_vsock_header h;
    double start = seconds();
    for (unsigned i = 0; i < count; i++) {
        if (cci_stream_write(s, buf, 100) != 100)
            abort();
        while (take(&h)) {
            c->rx_cnt += h.len;
            c->peer_fwd_cnt = h.fwd_cnt;
            vg_conn_read(&g, c, h.len);
        }
        vg_conn_send(&g, c, CCI_VSOCK_RW, 0, buf, 100);
        if (cci_stream_read(s, buf, sizeof(buf)) != 100)
            abort();
    }
    printf("bench vsock-round-trip-100 ours=%.2f unit=us\n", (seconds() - start) * 1e6 / count);
}

int main(void)
{
    drv_vm_init(&g.vm);
    cci_vsock_init(&v, &g.vm.mem, drv_irq(&g.vm), NULL);
    if (!vg_start(&g, &v, DRV_ALL, 120) || cci_vsock_dial(&v, 7, &s, NULL) != CC_OK || !vg_recv(&g) || !vg_handle(&g))
        return 1;
    to_guest(1000, (uint64_t)256 << 20);
    to_guest(65536, (uint64_t)2 << 30);
    to_host(1000, (uint64_t)256 << 20);
    to_host(65536, (uint64_t)2 << 30);
    round_trips(500000);
    cci_stream_close(s);
    cci_vsock_destroy(&v);
    drv_vm_free(&g.vm);
    return 0;
}
