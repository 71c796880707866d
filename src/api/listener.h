/*
 * api/listener.h - vsock for callers: dialling the guest, and listening for it (Go's net.Listener).
 *
 * A listener queues the connections that the guest makes, which arrive on the I/O thread, for cc_listener_accept. The
 * queue is bounded: a connection beyond that is reset, as are those that are in it when the listener is closed.
 */
#ifndef CCI_API_LISTENER_H
#define CCI_API_LISTENER_H

#include "../virtio/vsock_dial.h"
#include "conn.h"

#define CCI_LISTENER_BACKLOG 64u

struct cci_listener {
    struct cci_part part;
    uint32_t port;
    struct cci_cancel_hook hook; /* the instance ended */
    struct cci_monitor monitor;  /* guards what follows */
    bool listens;                /* the port is open to the guest */
    bool closed, ended;          /* nothing is accepted any more: the listener was closed, the instance has ended */
    struct cci_stream *queue[CCI_LISTENER_BACKLOG]; /* a ring */
    unsigned first, count;
};

/* ---- Addresses --------------------------------------------------------------------------------------------- */

static void cci_vsock_addr(char out[CCI_CONNECTION_ADDR], unsigned cid, uint32_t port)
{
    (void)snprintf(out, CCI_CONNECTION_ADDR, "vsock:%u:%u", cid, (unsigned)port);
}

/* The library's own ports are between it and its agent; the host's above those are for dialling. */
static cc_error_code cci_vsock_check_port(uint32_t port, uint32_t limit, cc_error *err)
{
    if (port == CCI_PROTO_PORT || port == CCI_PROTO_READY_PORT)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "vsock port %u is the library's own", (unsigned)port);
    if (port == 0 || port >= limit)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "a vsock port has to be from 1 to %u",
                        (unsigned)(limit - 1));
    return CC_OK;
}

static cc_error_code cci_vsock_conn_of(struct cci_instance *i, struct cci_stream *s, cc_conn *out, cc_error *err)
{
    const struct cci_vsock_conn *v = cci_vsock_of(s);
    char local[CCI_CONNECTION_ADDR], remote[CCI_CONNECTION_ADDR];
    cci_vsock_addr(local, CCI_VSOCK_CID_HOST, v->host_port);
    cci_vsock_addr(remote, CCI_VSOCK_CID_GUEST, v->guest_port);
    return cci_connection_new(i, s, local, remote, out, err);
}

/* Why there is no machine behind the device, as calls on the agent say it. */
static cc_error_code cci_vsock_why(struct cci_instance *i, cc_error_code code, cc_error *err)
{
    if (code != CC_ERR_NOT_RUNNING)
        return code;
    cci_error_release(err);
    return cci_control_dead_error(i->vm.control, err);
}

/* ---- Dialling ---------------------------------------------------------------------------------------------- */

/* With the instance entered. */
static cc_error_code cci_vsock_dial_conn(struct cci_instance *i, uint32_t port, struct cci_cancel *token, cc_conn *out,
                                         cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, token};
    struct cci_stream *s;
    cc_instance_state now = cci_state_get(&i->vm.state);
    if (now < CC_STATE_RUNNING)
        return cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "the instance has not started yet");
    if (cci_cancel_is_set(token)) /* the guest may be quick to answer */
        return cci_fail(err, CC_ERR_CANCELLED, NULL, "cancelled before the guest was dialled");
    cc_error_code code = cci_vsock_dial_wait(&i->vm.vsock, port, &wait, &s, err);
    return code ? cci_vsock_why(i, code, err) : cci_vsock_conn_of(i, s, out, err);
}

CC_API cc_error_code cc_vsock_dial_with(cc_instance inst, uint32_t port, cc_cancel_token cancel, cc_conn *out,
                                        cc_error *err)
{
    struct cci_instance *i = NULL;
    struct cci_cancel *token = NULL;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = out ? cci_vsock_check_port(port, UINT32_MAX, err) : cci_api_null("out", err);
    if (code == CC_OK)
        code = cci_token_use(cancel, &token, err);
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        code = cci_vsock_dial_conn(i, port, token, out, err);
        cci_instance_leave(i);
    }
    cci_cancel_unref(token);
    return cci_api_end("dial", code, err);
}

CC_API cc_error_code cc_vsock_dial(cc_instance inst, uint32_t port, cc_conn *out, cc_error *err)
{
    return cc_vsock_dial_with(inst, port, 0, out, err);
}

/* ---- Listening --------------------------------------------------------------------------------------------- */

/* On the I/O thread: a connection from the guest, which is ours. */
static void cci_listener_on_conn(void *ctx, struct cci_stream *s, uint32_t guest_port)
{
    struct cci_listener *l = ctx;
    (void)guest_port; /* the stream knows */
    cci_monitor_lock(&l->monitor);
    bool room = !l->closed && l->count < CCI_LISTENER_BACKLOG;
    if (room)
        l->queue[(l->first + l->count++) % CCI_LISTENER_BACKLOG] = s;
    cci_cond_wake(&l->monitor.cond);
    cci_monitor_unlock(&l->monitor);
    if (!room)
        cci_stream_close(s);
}

static void cci_listener_on_end(void *ctx)
{
    struct cci_listener *l = ctx;
    cci_monitor_lock(&l->monitor);
    l->ended = true;
    cci_cond_wake(&l->monitor.cond);
    cci_monitor_unlock(&l->monitor);
}

/* Closes the port, once; calls that wait end. */
static void cci_listener_shut(struct cci_object *o)
{
    struct cci_listener *l = (struct cci_listener *)o;
    cci_monitor_lock(&l->monitor);
    bool listens = l->listens;
    l->listens = false;
    l->closed = true;
    cci_cond_wake(&l->monitor.cond);
    cci_monitor_unlock(&l->monitor);
    if (listens)
        cci_vsock_unlisten(&l->part.inst->vm.vsock, l->port);
}

static void cci_listener_destroy(struct cci_object *o)
{
    struct cci_listener *l = (struct cci_listener *)o;
    cci_listener_shut(o);
    cci_cancel_detach(l->part.inst->vm.gone, &l->hook);
    for (; l->count; l->count--, l->first = (l->first + 1) % CCI_LISTENER_BACKLOG)
        cci_stream_close(l->queue[l->first]);
    cci_monitor_destroy(&l->monitor);
    cci_part_end(&l->part);
    cci_mem_free(l);
}

/* With the instance entered. */
static cc_error_code cci_listener_new(struct cci_instance *i, uint32_t port, cc_listener *out, cc_error *err)
{
    if (cci_state_get(&i->vm.state) < CC_STATE_RUNNING)
        return cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "the instance has not started yet");
    struct cci_listener *l = cci_mem_zalloc(1, sizeof(*l));
    if (!l)
        return cci_fail_nomem(err);
    cci_part_init(&l->part, i, cci_listener_destroy);
    l->port = port;
    cci_monitor_init(&l->monitor);
    if (cci_cancel_attach(i->vm.gone, &l->hook, cci_listener_on_end, l))
        cci_listener_on_end(l);
    cc_error_code code = cci_vsock_listen(&i->vm.vsock, port, cci_listener_on_conn, l, err);
    l->listens = code == CC_OK;
    if (code == CC_OK)
        return cci_part_publish(&l->part, CCI_KIND_LISTENER, out, err);
    cci_object_unref(&l->part.object);
    return cci_vsock_why(i, code, err);
}

CC_API cc_error_code cc_vsock_listen(cc_instance inst, uint32_t port, cc_listener *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = out ? cci_vsock_check_port(port, CCI_VSOCK_FIRST_PORT, err) : cci_api_null("out", err);
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        code = cci_listener_new(i, port, out, err);
        cci_instance_leave(i);
    }
    return cci_api_end("listen", code, err);
}

/* The listener behind a handle, for one call: with its instance entered. */
static cc_error_code cci_listener_enter(cc_listener ln, struct cci_listener **out, cc_error *err)
{
    struct cci_part *p;
    cc_error_code code = cci_part_enter(ln, CCI_KIND_LISTENER, &p, err);
    *out = (struct cci_listener *)p;
    return code;
}

static bool cci_listener_has_news(void *ctx)
{
    const struct cci_listener *l = ctx;
    return l->count || l->closed || l->ended;
}

static cc_error_code cci_listener_take(struct cci_listener *l, struct cci_cancel *token, cc_conn *out, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, token};
    struct cci_stream *s = NULL;
    cc_error_code code = cci_monitor_wait(&l->monitor, &wait, cci_listener_has_news, l, "a connection", err);
    const bool closed = l->closed;
    if (code == CC_OK && !closed && l->count) {
        s = l->queue[l->first];
        l->first = (l->first + 1) % CCI_LISTENER_BACKLOG;
        l->count--;
    }
    cci_monitor_unlock(&l->monitor);
    if (code)
        return code;
    if (closed)
        return cci_handle_bad(CCI_KIND_LISTENER, true, err);
    return s ? cci_vsock_conn_of(l->part.inst, s, out, err) : cci_control_dead_error(l->part.inst->vm.control, err);
}

CC_API cc_error_code cc_listener_accept_with(cc_listener ln, cc_cancel_token cancel, cc_conn *out, cc_error *err)
{
    struct cci_listener *l;
    struct cci_cancel *token = NULL;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = out ? cci_token_use(cancel, &token, err) : cci_api_null("out", err);
    if (code == CC_OK)
        code = cci_listener_enter(ln, &l, err);
    if (code == CC_OK) {
        code = cci_listener_take(l, token, out, err);
        cci_part_leave(&l->part);
    }
    cci_cancel_unref(token);
    return cci_api_end("accept", code, err);
}

CC_API cc_error_code cc_listener_accept(cc_listener ln, cc_conn *out, cc_error *err)
{
    return cc_listener_accept_with(ln, 0, out, err);
}

CC_API cc_error_code cc_listener_close(cc_listener ln, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_handle_release(ln, CCI_KIND_LISTENER, &o, err);
    if (code == CC_OK) {
        cci_listener_shut(o);
        cci_object_unref(o);
    }
    return cci_api_end("close", code, err);
}

CC_API char *cc_listener_addr(cc_listener ln)
{
    struct cci_listener *l;
    char addr[CCI_CONNECTION_ADDR];
    if (cci_listener_enter(ln, &l, NULL) != CC_OK)
        return NULL;
    cci_vsock_addr(addr, CCI_VSOCK_CID_HOST, l->port);
    cci_part_leave(&l->part);
    return cci_mem_strdup(addr);
}

#endif
