/*
 * virtio/vsock_send.h - packets to the guest: the receive queue of a vsock device.
 *
 * The guest posts empty buffers; each takes one packet. Connections that have something to send stand in a line and
 * take turns, one packet each, so that one of them cannot starve the others. What a write brings goes straight from the
 * caller's memory into guest buffers when the line is empty and there is credit; otherwise into the connection's send
 * ring. When buffers run out, the guest is asked to ring when there are new ones; while there is nothing to send it is
 * asked not to.
 */
#ifndef CCI_VIRTIO_VSOCK_SEND_H
#define CCI_VIRTIO_VSOCK_SEND_H

#include "vsock_conn.h"

/* The next buffer, with room for a header and at least one byte; a smaller one fails the device. */
static bool cci_vsock_buffer(struct cci_vsock *v, struct cci_vq_chain *chain)
{
    if (!cci_virtio_pop(&v->dev, CCI_VSOCK_RX, chain))
        return false;
    if (chain->in_len > CCI_VSOCK_HEADER)
        return true;
    cci_virtio_fail(&v->dev, "a receive buffer has no room for a packet");
    return false;
}

static void cci_vsock_put(struct cci_vsock *v, const struct cci_vq_chain *chain, const struct cci_vsock_header *h,
                          struct cci_iov *to)
{
    uint8_t raw[CCI_VSOCK_HEADER];
    cci_vsock_header_put(raw, h);
    *to = cci_vq_in(chain);
    (void)cci_iov_write(to, raw, sizeof(raw));
    cci_virtio_push(&v->dev, CCI_VSOCK_RX, chain->head, CCI_VSOCK_HEADER + h->len);
}

/* Writes the header of one of the connection's packets, and leaves *to behind it. Every header carries credit. */
static void cci_vsock_put_op(struct cci_vsock_conn *c, const struct cci_vq_chain *chain, enum cci_vsock_op op,
                             uint32_t flags, uint32_t len, struct cci_iov *to)
{
    struct cci_vsock_header h = {
        .src_cid = CCI_VSOCK_CID_HOST,
        .dst_cid = CCI_VSOCK_CID_GUEST,
        .src_port = c->host_port,
        .dst_port = c->guest_port,
        .len = len,
        .type = CCI_VSOCK_TYPE_STREAM,
        .op = (uint16_t)op,
        .flags = flags,
        .buf_alloc = c->buf_alloc,
        .fwd_cnt = c->fwd_cnt,
    };
    c->fwd_told = c->fwd_cnt;
    c->want &= (uint8_t)~CCI_VSOCK_WANT_CREDIT;
    c->tx_cnt += len;
    cci_vsock_put(c->v, chain, &h, to);
}

/* Data from the send ring: as much as there is, as credit allows and as the buffer holds. */
static void cci_vsock_put_data(struct cci_vsock_conn *c, const struct cci_vq_chain *chain)
{
    struct cci_iov to;
    uint32_t n = CCI_MIN(CCI_MIN(c->out.used, cci_vsock_conn_credit(c)), chain->in_len - CCI_VSOCK_HEADER), got;
    cci_vsock_put_op(c, chain, CCI_VSOCK_RW, 0, n, &to);
    for (; n; n -= got) {
        const uint8_t *p = cci_vsock_ring_front(&c->out, n, &got);
        (void)cci_iov_write(&to, p, got);
        cci_vsock_ring_drop(&c->out, got);
    }
    if (c->writer_waits && c->out.used <= CCI_VSOCK_SEND / 2) {
        c->writer_waits = false;
        cci_vsock_tell(c->v, c);
    }
}

/* Sends the one packet of the connection that comes next. It may be gone afterwards: true if it is still there. */
static bool cci_vsock_send_one(struct cci_vsock_conn *c, const struct cci_vq_chain *chain)
{
    struct cci_iov to;
    if (c->want & CCI_VSOCK_WANT_RST) {
        cci_vsock_put_op(c, chain, CCI_VSOCK_RST, 0, 0, &to);
        cci_vsock_end(c->v, c, 0);
        return false;
    }
    if (c->want & CCI_VSOCK_WANT_REQUEST) {
        c->want &= (uint8_t)~CCI_VSOCK_WANT_REQUEST;
        cci_vsock_put_op(c, chain, CCI_VSOCK_REQUEST, 0, 0, &to);
    } else if (c->want & CCI_VSOCK_WANT_RESPONSE) {
        c->want &= (uint8_t)~CCI_VSOCK_WANT_RESPONSE;
        cci_vsock_put_op(c, chain, CCI_VSOCK_RESPONSE, 0, 0, &to);
    } else if (c->out.used && cci_vsock_conn_credit(c)) {
        cci_vsock_put_data(c, chain);
    } else if (!c->out.used && (c->want & CCI_VSOCK_WANT_SHUTDOWN)) {
        c->want &= (uint8_t)~CCI_VSOCK_WANT_SHUTDOWN;
        cci_vsock_put_op(c, chain, CCI_VSOCK_SHUTDOWN, c->owned ? CCI_VSOCK_NO_SEND : CCI_VSOCK_NO_MORE, 0, &to);
    } else {
        cci_vsock_put_op(c, chain, CCI_VSOCK_CREDIT_UPDATE, 0, 0, &to);
    }
    return true;
}

static bool cci_vsock_any_output(const struct cci_vsock *v)
{
    return v->orphan_count || cci_vsock_linked(&v->sending);
}

/* One packet into the buffer, of whoever's turn it is. */
static void cci_vsock_take_turn(struct cci_vsock *v, const struct cci_vq_chain *chain)
{
    if (v->orphan_count) {
        struct cci_iov to;
        cci_vsock_put(v, chain, &v->orphan[--v->orphan_count], &to);
        return;
    }
    struct cci_vsock_conn *c = cci_vsock_first(&v->sending, offsetof(struct cci_vsock_conn, sending));
    cci_vsock_unlink(&c->sending);
    if (!cci_vsock_has_output(c)) { /* it lost what it had; the buffer is still there for the next */
        cci_vq_unpop(&v->dev.queue[CCI_VSOCK_RX].vq);
        return;
    }
    if (cci_vsock_send_one(c, chain))
        cci_vsock_schedule(v, c);
}

/* Tells the guest that no connection survived a restore (section 5.10.6.7). */
static void cci_vsock_send_event(struct cci_vsock *v)
{
    struct cci_vq *vq = &v->dev.queue[CCI_VSOCK_EVENT].vq;
    struct cci_vq_chain chain;
    const uint8_t transport_reset[4] = {0, 0, 0, 0};
    if (!v->event_pending)
        return;
    while (!cci_virtio_pop(&v->dev, CCI_VSOCK_EVENT, &chain))
        if (!cci_virtio_running(&v->dev) || !cci_vq_enable_notify(vq))
            return;
    struct cci_iov to = cci_vq_in(&chain);
    uint32_t n = (uint32_t)cci_iov_write(&to, transport_reset, sizeof(transport_reset));
    cci_virtio_push(&v->dev, CCI_VSOCK_EVENT, chain.head, n);
    cci_virtio_flush(&v->dev, CCI_VSOCK_EVENT);
    v->event_pending = false;
}

/* Sends what can be sent, and publishes it with one interrupt. Called after anything that may have added output. */
static void cci_vsock_pump(struct cci_vsock *v)
{
    struct cci_vq *vq = &v->dev.queue[CCI_VSOCK_RX].vq;
    struct cci_vq_chain chain;
    if (!cci_virtio_running(&v->dev))
        return;
    do {
        cci_vq_disable_notify(vq);
        while (cci_vsock_any_output(v) && cci_vsock_buffer(v, &chain))
            cci_vsock_take_turn(v, &chain);
        cci_virtio_flush(&v->dev, CCI_VSOCK_RX);
    } while (cci_vsock_any_output(v) && cci_virtio_running(&v->dev) && cci_vq_enable_notify(vq));
    if (v->transmit_held && !cci_vsock_orphans_full(v)) {
        v->transmit_held = false;
        cci_virtio_ring(&v->dev, CCI_VSOCK_TX);
    }
}

/* Sends from the caller's memory for as long as there are credit and buffers; how much went. */
static size_t cci_vsock_send_direct(struct cci_vsock *v, struct cci_vsock_conn *c, const uint8_t *p, size_t n)
{
    struct cci_vq_chain chain;
    size_t done = 0;
    if (cci_vsock_any_output(v) || c->want || c->out.used)
        return 0;
    while (done < n && cci_vsock_conn_credit(c) && cci_vsock_buffer(v, &chain)) {
        struct cci_iov to;
        uint32_t room = CCI_MIN(cci_vsock_conn_credit(c), chain.in_len - CCI_VSOCK_HEADER);
        uint32_t len = (uint32_t)CCI_MIN(n - done, (size_t)room);
        cci_vsock_put_op(c, &chain, CCI_VSOCK_RW, 0, len, &to);
        (void)cci_iov_write(&to, p + done, len);
        done += len;
    }
    return done;
}

#endif
