/*
 * virtio/vsock_recv.h - packets from the guest: the transmit queue of a vsock device.
 *
 * Each chain is one packet. Its header is copied once and judged by the copy; the payload of RW goes from guest memory
 * into the connection's receive ring. What each packet may do depends on the connection's state:
 *
 *                      no connection   CONNECTING      OPEN                        DYING
 *     REQUEST          accept or RST   reset           reset                       ignored
 *     RESPONSE         RST             now OPEN        reset                       ignored
 *     RST              ignored         refused         broken, or its orderly end  gone
 *     SHUTDOWN         RST             reset           end of a direction          ignored
 *     RW               RST             reset           data                        ignored
 *     CREDIT_*         RST             ignored         credit                      ignored
 *
 * "reset": the connection breaks and the guest gets a RST. A guest that sends more than its credit is reset, as is one
 * whose payload is longer than its chain. Replies for no connection go to a fixed array; when that is full the queue
 * waits until the guest has posted receive buffers, so a flood of packets only holds up its sender.
 */
#ifndef CCI_VIRTIO_VSOCK_RECV_H
#define CCI_VIRTIO_VSOCK_RECV_H

#include "vsock_send.h"

/* ---- New connections ------------------------------------------------------------------------------------- */

static struct cci_vsock_listener *cci_vsock_listener_of(struct cci_vsock *v, uint32_t port)
{
    struct cci_vsock_listener *l = v->listeners;
    while (l && l->port != port)
        l = l->next;
    return l;
}

/* A REQUEST from the guest; false if it is refused. */
static bool cci_vsock_accept(struct cci_vsock *v, const struct cci_vsock_header *h)
{
    struct cci_vsock_listener *l = cci_vsock_listener_of(v, h->dst_port);
    if (!l || v->guest_conns >= v->max_conns / 2 || !cci_vsock_make_room(v))
        return false;
    struct cci_vsock_conn *c = cci_vsock_conn_new(v, h->dst_port, h->src_port);
    if (!c)
        return false;
    c->from_guest = true;
    c->state = CCI_VSOCK_OPEN;
    c->want = CCI_VSOCK_WANT_RESPONSE;
    c->peer_buf_alloc = h->buf_alloc;
    c->peer_fwd_cnt = h->fwd_cnt;
    c->listener = l;
    cci_vsock_append(&v->ready, &c->ready);
    cci_vsock_insert(v, c);
    cci_vsock_schedule(v, c);
    return true;
}

/* ---- Packets of a connection ----------------------------------------------------------------------------- */

/* Copies n payload bytes, which are within the guest's credit, into the receive ring; false if there is no memory. */
static bool cci_vsock_take_data(struct cci_vsock_conn *c, struct cci_iov *from, uint32_t n)
{
    if (!cci_vsock_ring_reserve(&c->in, n, c->buf_alloc))
        return false;
    for (uint32_t got; n; n -= got) {
        uint8_t *to = cci_vsock_ring_back(&c->in, n, &got);
        (void)cci_iov_read(from, to, got);
        cci_vsock_ring_added(&c->in, got);
    }
    return true;
}

/* The caller checked that the chain holds `n` bytes of payload. */
static void cci_vsock_on_data(struct cci_vsock *v, struct cci_vsock_conn *c, struct cci_iov *from, uint32_t n)
{
    if (c->peer_no & CCI_VSOCK_NO_SEND) {
        cci_vsock_doom(v, c, EPROTO);
    } else if (!c->owned && !c->listener) {
        /* Its user has closed it: nobody reads this, and the guest learns that from our SHUTDOWN. */
    } else if (n > c->buf_alloc - c->in.used) {
        cci_vsock_doom(v, c, EPROTO);
    } else if (!cci_vsock_take_data(c, from, n)) {
        cci_vsock_doom(v, c, ENOMEM);
    } else if (n) {
        cci_vsock_tell(v, c);
    }
}

static void cci_vsock_on_shutdown(struct cci_vsock *v, struct cci_vsock_conn *c, uint32_t flags)
{
    c->peer_no |= (uint8_t)(flags & CCI_VSOCK_NO_MORE);
    if (c->peer_no & CCI_VSOCK_NO_RECEIVE) {
        cci_vsock_ring_free(&c->out);
        c->no_more_writes = true;
        c->want &= (uint8_t)~CCI_VSOCK_WANT_SHUTDOWN;
    }
    if (c->peer_no == CCI_VSOCK_NO_MORE && !c->listener)
        cci_vsock_doom(v, c, 0); /* section 5.10.6.6: acknowledged by a RST; what arrived can still be read */
    else
        cci_vsock_tell(v, c);
}

static void cci_vsock_on_rst(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    int error = c->state == CCI_VSOCK_CONNECTING ? ECONNREFUSED : ECONNRESET;
    if (c->state == CCI_VSOCK_DYING)
        error = 0; /* has its reason already */
    cci_vsock_end(v, c, error);
}

static void cci_vsock_on_open(struct cci_vsock *v, struct cci_vsock_conn *c, const struct cci_vsock_header *h,
                              struct cci_iov *payload)
{
    switch (h->op) {
    case CCI_VSOCK_SHUTDOWN:
        cci_vsock_on_shutdown(v, c, h->flags);
        break;
    case CCI_VSOCK_RW:
        cci_vsock_on_data(v, c, payload, h->len);
        break;
    case CCI_VSOCK_CREDIT_UPDATE:
        break;
    case CCI_VSOCK_CREDIT_REQUEST:
        c->want |= CCI_VSOCK_WANT_CREDIT;
        break;
    default:
        cci_vsock_doom(v, c, EPROTO);
        break;
    }
}

static void cci_vsock_on_connecting(struct cci_vsock *v, struct cci_vsock_conn *c, uint16_t op)
{
    if (op == CCI_VSOCK_RESPONSE && !(c->want & CCI_VSOCK_WANT_REQUEST)) {
        c->state = CCI_VSOCK_OPEN;
        cci_vsock_tell(v, c);
    } else if (op != CCI_VSOCK_CREDIT_UPDATE && op != CCI_VSOCK_CREDIT_REQUEST) {
        cci_vsock_doom(v, c, EPROTO);
    }
}

static void cci_vsock_on_packet(struct cci_vsock *v, struct cci_vsock_conn *c, const struct cci_vsock_header *h,
                                struct cci_iov *payload)
{
    if (h->op == CCI_VSOCK_RST) {
        cci_vsock_on_rst(v, c);
        return;
    }
    if (c->state == CCI_VSOCK_DYING)
        return;
    c->peer_buf_alloc = h->buf_alloc;
    c->peer_fwd_cnt = h->fwd_cnt;
    if (c->state == CCI_VSOCK_CONNECTING)
        cci_vsock_on_connecting(v, c, h->op);
    else
        cci_vsock_on_open(v, c, h, payload);
    cci_vsock_schedule(v, c);
}

/* ---- The queue ------------------------------------------------------------------------------------------- */

/* One packet. There is room for two orphans, the most that one packet can make. */
static void cci_vsock_receive(struct cci_vsock *v, const struct cci_vq_chain *chain)
{
    uint8_t raw[CCI_VSOCK_HEADER];
    struct cci_iov from = cci_vq_out(chain);
    if (cci_iov_read(&from, raw, sizeof(raw)) < sizeof(raw))
        return;
    struct cci_vsock_header h = cci_vsock_header_get(raw);
    if (h.src_cid != CCI_VSOCK_CID_GUEST) /* not from this guest, so there is nobody to answer */
        return;
    bool known = h.dst_cid == CCI_VSOCK_CID_HOST && h.type == CCI_VSOCK_TYPE_STREAM;
    struct cci_vsock_conn *c = known ? cci_vsock_find(v, h.dst_port, h.src_port) : NULL;
    if (c && h.op == CCI_VSOCK_RW && h.len > chain->out_len - CCI_VSOCK_HEADER)
        cci_vsock_doom(v, c, EPROTO);
    else if (c)
        cci_vsock_on_packet(v, c, &h, &from);
    else if (h.op != CCI_VSOCK_RST && !(known && h.op == CCI_VSOCK_REQUEST && cci_vsock_accept(v, &h)))
        cci_vsock_orphan(v, h.dst_cid, h.dst_port, h.src_port);
}

/* Takes packets while there is room for replies, and as many as the queue has entries at most. */
static void cci_vsock_transmit(struct cci_vsock *v)
{
    struct cci_virtio_dev *d = &v->dev;
    struct cci_vq *vq = &d->queue[CCI_VSOCK_TX].vq;
    struct cci_vq_chain chain;
    unsigned left = vq->size;
    bool more = true;
    while (more && left && !cci_vsock_orphans_full(v)) {
        cci_vq_disable_notify(vq);
        for (; left && !cci_vsock_orphans_full(v) && cci_virtio_pop(d, CCI_VSOCK_TX, &chain); left--) {
            cci_vsock_receive(v, &chain);
            cci_virtio_push(d, CCI_VSOCK_TX, chain.head, 0);
        }
        cci_virtio_flush(d, CCI_VSOCK_TX);
        cci_vsock_pump(v);
        more = cci_virtio_running(d) && cci_vq_enable_notify(vq);
    }
    if (vq->broken)
        cci_virtio_fail(d, vq->broken);
    else if (cci_vsock_orphans_full(v))
        v->transmit_held = true;
    else if (more)
        cci_virtio_ring(d, CCI_VSOCK_TX);
}

#endif
