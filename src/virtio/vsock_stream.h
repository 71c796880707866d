/*
 * virtio/vsock_stream.h - a vsock connection as its user sees it: a struct cci_stream (base/stream.h).
 *
 * A read takes from the receive ring and, once the reader has freed half of what the guest may send, tells the guest
 * so; that is often enough that it never stalls (a guest without credit has a full window outstanding) and seldom
 * enough that most packets carry data. A write goes into guest buffers directly or into the send ring.
 *
 * Users are called by cci_vsock_dispatch on the I/O thread, never with the device's mutex held. Whoever makes a
 * connection "ready" on another thread rings the transmit queue's doorbell, which ends in cci_vsock_dispatch too.
 */
#ifndef CCI_VIRTIO_VSOCK_STREAM_H
#define CCI_VIRTIO_VSOCK_STREAM_H

#include "vsock_send.h"

static struct cci_vsock_conn *cci_vsock_of(struct cci_stream *s)
{
    return (struct cci_vsock_conn *)s;
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

/* The reader keeps up: let the guest have more under way, as long as all connections together stay within bounds. */
static void cci_vsock_widen(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    const uint32_t more = CCI_VSOCK_RECEIVE_MAX - CCI_VSOCK_RECEIVE_MIN;
    if (c->buf_alloc == CCI_VSOCK_RECEIVE_MAX || c->fwd_cnt - v->first_count < CCI_VSOCK_RECEIVE_MIN ||
        v->extra + more > CCI_VSOCK_EXTRA)
        return;
    c->buf_alloc = CCI_VSOCK_RECEIVE_MAX;
    v->extra += more;
    c->want |= CCI_VSOCK_WANT_CREDIT;
}

/* n bytes were taken from the receive ring. */
static void cci_vsock_was_read(struct cci_vsock *v, struct cci_vsock_conn *c, uint32_t n)
{
    c->fwd_cnt += n;
    if (c->state != CCI_VSOCK_OPEN || (c->peer_no & CCI_VSOCK_NO_SEND))
        return;
    cci_vsock_widen(v, c);
    if (c->fwd_cnt - c->fwd_told >= c->buf_alloc / 2)
        c->want |= CCI_VSOCK_WANT_CREDIT;
    if (!c->want)
        return;
    cci_vsock_schedule(v, c);
    cci_vsock_pump(v);
}

static int64_t cci_vsock_read_locked(struct cci_vsock *v, struct cci_vsock_conn *c, void *buf, size_t n)
{
    if (c->in.used) {
        uint32_t got = cci_vsock_ring_read(&c->in, buf, n);
        cci_vsock_was_read(v, c, got);
        return got;
    }
    if (c->peer_no & CCI_VSOCK_NO_SEND)
        return 0;
    return c->error ? -c->error : -EAGAIN;
}

static int64_t cci_vsock_stream_read(struct cci_stream *s, void *buf, size_t n)
{
    struct cci_vsock_conn *c = cci_vsock_of(s);
    struct cci_vsock *v = c->v;
    cci_mutex_lock(&v->dev.mutex);
    int64_t r = n ? cci_vsock_read_locked(v, c, buf, n) : 0;
    cci_vsock_unlock(v);
    return r;
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

/* Copies up to n bytes into the send ring; how much. No memory is no room. */
static size_t cci_vsock_buffer_write(struct cci_vsock_conn *c, const uint8_t *p, size_t n)
{
    uint32_t room = CCI_VSOCK_SEND - c->out.used, got;
    uint32_t take = (uint32_t)CCI_MIN(n, (size_t)room);
    if (!take || !cci_vsock_ring_reserve(&c->out, take, CCI_VSOCK_SEND))
        return 0;
    for (uint32_t at = 0; at < take; at += got) {
        uint8_t *to = cci_vsock_ring_back(&c->out, take - at, &got);
        memcpy(to, p + at, got);
        cci_vsock_ring_added(&c->out, got);
    }
    return take;
}

/* While the host's dial is unanswered, writes are kept, and sent as soon as it is. */
static int64_t cci_vsock_write_locked(struct cci_vsock *v, struct cci_vsock_conn *c, const uint8_t *p, size_t n)
{
    if (c->error)
        return -c->error;
    if (c->no_more_writes || c->state > CCI_VSOCK_OPEN)
        return -EPIPE;
    size_t done = cci_vsock_send_direct(v, c, p, n);
    const bool full = c->out.used == CCI_VSOCK_SEND; /* now: the guest may make room while we look */
    done += cci_vsock_buffer_write(c, p + done, n - done);
    c->writer_waits = done < n;
    cci_vsock_schedule(v, c);
    cci_vsock_pump(v);
    if (done)
        return (int64_t)done;
    return full ? -EAGAIN : -ENOMEM;
}

static int64_t cci_vsock_stream_write(struct cci_stream *s, const void *buf, size_t n)
{
    struct cci_vsock_conn *c = cci_vsock_of(s);
    struct cci_vsock *v = c->v;
    cci_mutex_lock(&v->dev.mutex);
    int64_t r = n ? cci_vsock_write_locked(v, c, buf, n) : 0;
    cci_vsock_unlock(v);
    return r;
}

static void cci_vsock_stream_shutdown(struct cci_stream *s)
{
    struct cci_vsock_conn *c = cci_vsock_of(s);
    struct cci_vsock *v = c->v;
    cci_mutex_lock(&v->dev.mutex);
    if (c->state <= CCI_VSOCK_OPEN && !c->no_more_writes) {
        c->no_more_writes = true;
        c->want |= CCI_VSOCK_WANT_SHUTDOWN;
        cci_vsock_schedule(v, c);
        cci_vsock_pump(v);
    }
    cci_vsock_unlock(v);
}

/* ---- Being called ---------------------------------------------------------------------------------------- */

/* On the thread that calls users, or there is none. */
static bool cci_vsock_on_loop(const struct cci_vsock *v)
{
    const struct cci_loop *l = v->dev.loop;
    return !l || !l->running || cci_loop_is_self(l);
}

/* Stops calls about the connection. Lets go of the mutex while one is under way on the I/O thread. */
static void cci_vsock_unwatch(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    while (v->calling == c && !cci_vsock_on_loop(v))
        (void)cci_cond_wait(&v->called, &v->dev.mutex, CCI_FOREVER);
    c->watch = NULL;
    cci_vsock_unlink(&c->ready);
}

static void cci_vsock_stream_watch(struct cci_stream *s, cci_stream_watch_fn fn, void *ctx)
{
    struct cci_vsock_conn *c = cci_vsock_of(s);
    struct cci_vsock *v = c->v;
    cci_mutex_lock(&v->dev.mutex);
    if (fn) {
        c->watch = fn;
        c->watch_ctx = ctx;
        cci_vsock_tell(v, c);
    } else {
        cci_vsock_unwatch(v, c);
    }
    cci_vsock_unlock(v);
}

/* The user lets go of a connection that is in the table. */
static void cci_vsock_abandon(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    bool unread = c->in.used != 0;
    cci_vsock_ring_free(&c->in);
    if (c->state == CCI_VSOCK_CONNECTING && (c->want & CCI_VSOCK_WANT_REQUEST)) {
        cci_vsock_end(v, c, 0); /* the guest never heard of it */
    } else if (c->state == CCI_VSOCK_CONNECTING || unread) {
        cci_vsock_doom(v, c, 0);
    } else if (c->state == CCI_VSOCK_OPEN) {
        c->want |= CCI_VSOCK_WANT_SHUTDOWN;
        cci_vsock_append(&v->closing, &c->closing);
        cci_vsock_schedule(v, c);
    }
    cci_vsock_pump(v);
}

static void cci_vsock_stream_close(struct cci_stream *s)
{
    struct cci_vsock_conn *c = cci_vsock_of(s);
    struct cci_vsock *v = c->v;
    cci_mutex_lock(&v->dev.mutex);
    cci_vsock_unwatch(v, c);
    c->owned = false;
    if (c->state == CCI_VSOCK_GONE)
        cci_vsock_conn_free(c);
    else
        cci_vsock_abandon(v, c);
    cci_vsock_unlock(v);
}

static const struct cci_stream_ops cci_vsock_stream_ops = {
    cci_vsock_stream_read,  cci_vsock_stream_write, cci_vsock_stream_shutdown,
    cci_vsock_stream_watch, cci_vsock_stream_close,
};

/* Hands a connection from the guest to its listener. Mutex held, and let go of meanwhile. */
static void cci_vsock_call_listener(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    struct cci_vsock_listener *l = c->listener;
    c->listener = NULL;
    c->owned = true;
    c->stream.ops = &cci_vsock_stream_ops;
    if (c->peer_no == CCI_VSOCK_NO_MORE) /* it has closed already: see cci_vsock_on_shutdown */
        cci_vsock_doom(v, c, 0);
    v->accepting = l;
    cci_mutex_unlock(&v->dev.mutex);
    l->fn(l->ctx, &c->stream, c->guest_port);
    cci_mutex_lock(&v->dev.mutex);
    v->accepting = NULL;
}

static void cci_vsock_call_user(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    cci_stream_watch_fn fn = c->watch;
    void *ctx = c->watch_ctx;
    v->calling = c;
    cci_mutex_unlock(&v->dev.mutex);
    fn(ctx, &c->stream);
    cci_mutex_lock(&v->dev.mutex);
    v->calling = NULL;
}

/* Calls everybody who is to be called. On the I/O thread, mutex not held. */
static void cci_vsock_dispatch(struct cci_virtio_dev *d)
{
    struct cci_vsock *v = (struct cci_vsock *)d;
    struct cci_vsock_conn *c;
    cci_mutex_lock(&d->mutex);
    if (v->dispatching) { /* a user's call led here; the loop further up the stack goes on */
        cci_mutex_unlock(&d->mutex);
        return;
    }
    v->dispatching = true;
    while ((c = cci_vsock_first(&v->ready, offsetof(struct cci_vsock_conn, ready))) != NULL) {
        cci_vsock_unlink(&c->ready);
        if (c->listener)
            cci_vsock_call_listener(v, c);
        else
            cci_vsock_call_user(v, c);
        cci_cond_wake(&v->called);
    }
    v->dispatching = v->rung = false;
    cci_vsock_pump(v);
    cci_mutex_unlock(&d->mutex);
}

#endif
