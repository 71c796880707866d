/*
 * virtio/vsock.h - the socket device (virtio 1.2, section 5.10): stream connections between host and guest.
 *
 * The host end of every connection is a struct cci_stream. cci_vsock_dial connects to a port on which something in the
 * guest listens; cci_vsock_listen opens a host port to the guest. There is no socket of the host's operating system
 * behind any of it, and nobody outside this process can reach it.
 *
 *     vsock_packet.h  headers and credit arithmetic         vsock_send.h    packets to the guest
 *     vsock_ring.h    byte queues                           vsock_recv.h    packets from the guest
 *     vsock_conn.h    connections and their table           vsock_stream.h  what users of a connection call
 *
 * Sequence sockets are not offered. Connections do not survive a save and restore: the driver is told by a
 * TRANSPORT_RESET event and breaks its ends; listening sockets in the guest stay. A reset by the driver breaks all
 * connections but dials that the guest has not been told of, so that the host may dial before the guest has booted.
 *
 * The end: cci_vsock_kill, while the I/O thread still runs, breaks everything with ENOTCONN and wakes everybody; then
 * streams are closed; then cci_virtio_detach and cci_vsock_destroy.
 */
#ifndef CCI_VIRTIO_VSOCK_H
#define CCI_VIRTIO_VSOCK_H

#include "vsock_recv.h"
#include "vsock_stream.h"

struct cci_vsock_options {
    uint32_t max_conns;   /* 0: CCI_VSOCK_CONNS. Half of them at most may be opened by the guest. */
    uint32_t first_count; /* what byte counters start from; 0 outside tests of their wrapping */
};

/* ---- The device ------------------------------------------------------------------------------------------ */

static void cci_vsock_on_notify(struct cci_virtio_dev *d, unsigned q)
{
    struct cci_vsock *v = (struct cci_vsock *)d;
    if (q == CCI_VSOCK_TX)
        cci_vsock_transmit(v);
    cci_vsock_pump(v);
    cci_vsock_send_event(v);
}

/* Breaks every connection; with `keep_unsent`, except dials that the guest has not seen. */
static void cci_vsock_break_all(struct cci_vsock *v, int error, bool keep_unsent)
{
    for (unsigned i = 0; i < CCI_VSOCK_BUCKETS; i++) {
        struct cci_vsock_conn *next;
        for (struct cci_vsock_conn *c = v->bucket[i]; c; c = next) {
            next = c->next;
            if (!keep_unsent || !(c->want & CCI_VSOCK_WANT_REQUEST))
                cci_vsock_end(v, c, c->error ? 0 : error);
        }
    }
    v->orphan_count = 0;
    v->transmit_held = false;
}

static void cci_vsock_on_reset(struct cci_virtio_dev *d)
{
    struct cci_vsock *v = (struct cci_vsock *)d;
    cci_vsock_break_all(v, ECONNRESET, true);
    v->event_pending = false;
    cci_vsock_ring_dispatch(v);
}

static void cci_vsock_on_save(struct cci_virtio_dev *d, struct cci_buf *out)
{
    uint8_t state[4];
    cci_put_le32(state, ((struct cci_vsock *)d)->next_port);
    (void)cci_buf_add(out, state, sizeof(state));
}

static cc_error_code cci_vsock_on_restore(struct cci_virtio_dev *d, struct cci_view *in, cc_error *err)
{
    struct cci_vsock *v = (struct cci_vsock *)d;
    uint32_t next_port;
    if (!cci_view_u32(in, &next_port) || next_port < CCI_VSOCK_FIRST_PORT || next_port == UINT32_MAX)
        return cci_fail(err, CC_ERR_IO, NULL, "the saved state of the socket device is damaged");
    cci_vsock_break_all(v, ECONNRESET, true);
    v->next_port = next_port; /* so that no new dial meets an old connection of the guest's */
    v->event_pending = true;
    cci_vsock_ring_dispatch(v);
    return CC_OK;
}

static const struct cci_virtio_ops cci_vsock_ops = {
    .name = "socket device",
    .id = CCI_VIRTIO_ID_VSOCK,
    .queues = CCI_VSOCK_QUEUES,
    .queue_size = 256,
    .notify = cci_vsock_on_notify,
    .settle = cci_vsock_dispatch,
    .reset = cci_vsock_on_reset,
    .save = cci_vsock_on_save,
    .restore = cci_vsock_on_restore,
};

/* The device is v->dev. NULL or zeroed options are the defaults. */
static void cci_vsock_init(struct cci_vsock *v, const struct cci_gmem *mem, struct cci_irq irq,
                           const struct cci_vsock_options *options)
{
    memset(v, 0, sizeof(*v));
    cci_virtio_init(&v->dev, &cci_vsock_ops, mem, irq);
    v->dev.config_size = 8;
    cci_put_le64(v->dev.config, CCI_VSOCK_CID_GUEST);
    v->max_conns = options && options->max_conns ? options->max_conns : CCI_VSOCK_CONNS;
    v->first_count = options ? options->first_count : 0;
    v->next_port = CCI_VSOCK_FIRST_PORT;
    cci_vsock_link_init(&v->sending);
    cci_vsock_link_init(&v->ready);
    cci_vsock_link_init(&v->closing);
    cci_cond_init(&v->called);
}

/* The machine ended: every connection and dial breaks with ENOTCONN, and new ones fail. The users are called on the
 * I/O thread, which must still run. From any thread; more than once is harmless. */
static void cci_vsock_kill(struct cci_vsock *v)
{
    cci_mutex_lock(&v->dev.mutex);
    v->dead = true;
    cci_vsock_break_all(v, ENOTCONN, false);
    cci_vsock_unlock(v);
}

/* The end. The device is detached, and every stream that a user was given has been closed. */
static void cci_vsock_destroy(struct cci_vsock *v)
{
    cci_vsock_kill(v);
    while (v->listeners) {
        struct cci_vsock_listener *l = v->listeners;
        v->listeners = l->next;
        cci_mem_free(l);
    }
    cci_cond_destroy(&v->called);
    cci_virtio_destroy(&v->dev);
}

/* ---- Connections to the guest ---------------------------------------------------------------------------- */

/* A host port that makes a new pair with the guest's. There are far more ports than connections. */
static uint32_t cci_vsock_pick_port(struct cci_vsock *v, uint32_t guest_port)
{
    uint32_t port;
    do {
        port = v->next_port++;
        if (v->next_port == UINT32_MAX) /* that is "any port" */
            v->next_port = CCI_VSOCK_FIRST_PORT;
    } while (cci_vsock_find(v, port, guest_port));
    return port;
}

static cc_error_code cci_vsock_dial_locked(struct cci_vsock *v, uint32_t port, struct cci_stream **out, cc_error *err)
{
    if (v->dead)
        return cci_fail_errno(err, CC_ERR_NOT_RUNNING, ENOTCONN, NULL, "the instance ended");
    if (!cci_vsock_make_room(v))
        return cci_fail(err, CC_ERR_IO, NULL, "too many connections to the guest: close some first");
    struct cci_vsock_conn *c = cci_vsock_conn_new(v, cci_vsock_pick_port(v, port), port);
    if (!c)
        return cci_fail_nomem(err);
    c->stream.ops = &cci_vsock_stream_ops;
    c->owned = true;
    c->state = CCI_VSOCK_CONNECTING;
    c->want = CCI_VSOCK_WANT_REQUEST;
    cci_vsock_insert(v, c);
    cci_vsock_schedule(v, c);
    cci_vsock_pump(v);
    *out = &c->stream;
    return CC_OK;
}

/* Begins to connect to a port of the guest and returns at once. The stream can be written to right away: what is
 * written arrives if the guest accepts. Its watcher is called when it has answered. A refused connection reads, and
 * writes, as -ECONNREFUSED. */
static cc_error_code cci_vsock_dial(struct cci_vsock *v, uint32_t port, struct cci_stream **out, cc_error *err)
{
    *out = NULL;
    cci_mutex_lock(&v->dev.mutex);
    cc_error_code code = cci_vsock_dial_locked(v, port, out, err);
    cci_vsock_unlock(v);
    return code;
}

/* ---- Connections from the guest -------------------------------------------------------------------------- */

/* Opens a host port to the guest; each connection is handed to fn, on the I/O thread, until cci_vsock_unlisten. A guest
 * that connects to any other port is refused. */
static cc_error_code cci_vsock_listen(struct cci_vsock *v, uint32_t port, cci_vsock_accept_fn fn, void *ctx,
                                      cc_error *err)
{
    struct cci_vsock_listener *l = cci_mem_alloc(sizeof(*l));
    cc_error_code code = CC_OK;
    if (!l)
        return cci_fail_nomem(err);
    cci_mutex_lock(&v->dev.mutex);
    if (v->dead)
        code = cci_fail_errno(err, CC_ERR_NOT_RUNNING, ENOTCONN, NULL, "the instance ended");
    else if (cci_vsock_listener_of(v, port))
        code = cci_fail_errno(err, CC_ERR_IO, EADDRINUSE, NULL, "vsock port %u is already open", (unsigned)port);
    if (code == CC_OK) {
        struct cci_vsock_listener fresh = {port, fn, ctx, v->listeners};
        *l = fresh;
        v->listeners = l;
    }
    cci_vsock_unlock(v);
    if (code)
        cci_mem_free(l);
    return code;
}

/* Resets the connections that wait for this listener. */
static void cci_vsock_refuse_waiting(struct cci_vsock *v, const struct cci_vsock_listener *l)
{
    struct cci_vsock_link *next;
    for (struct cci_vsock_link *i = v->ready.next; i != &v->ready; i = next) {
        struct cci_vsock_conn *c =
            (struct cci_vsock_conn *)(void *)((uint8_t *)i - offsetof(struct cci_vsock_conn, ready));
        next = i->next;
        if (c->listener == l)
            cci_vsock_doom(v, c, ECONNRESET);
    }
}

/* Closes the port. fn is not running on another thread, and not called again, once this has returned. Connections that
 * it was handed stay. */
static void cci_vsock_unlisten(struct cci_vsock *v, uint32_t port)
{
    cci_mutex_lock(&v->dev.mutex);
    struct cci_vsock_listener **p = &v->listeners, *l;
    while (*p && (*p)->port != port)
        p = &(*p)->next;
    l = *p;
    if (l) {
        *p = l->next;
        cci_vsock_refuse_waiting(v, l);
        while (v->accepting == l && !cci_vsock_on_loop(v))
            (void)cci_cond_wait(&v->called, &v->dev.mutex, CCI_FOREVER);
        cci_vsock_pump(v);
    }
    cci_vsock_unlock(v);
    cci_mem_free(l);
}

#endif
