/*
 * virtio/vsock_dial.h - dials that wait for their answer.
 */
#ifndef CCI_VIRTIO_VSOCK_DIAL_H
#define CCI_VIRTIO_VSOCK_DIAL_H

#include "../base/errno_text.h"
#include "vsock.h"

/* How a dial stands: 0 when the guest has accepted, -EAGAIN before it answered, or why the connection broke. */
static int cci_vsock_dial_status(struct cci_stream *s)
{
    struct cci_vsock_conn *c = cci_vsock_of(s);
    cci_mutex_lock(&c->v->dev.mutex);
    int r = c->state == CCI_VSOCK_CONNECTING ? -EAGAIN : -c->error;
    cci_mutex_unlock(&c->v->dev.mutex);
    return r;
}

struct cci_vsock_dialling {
    struct cci_monitor monitor;
    struct cci_stream *stream;
};

static bool cci_vsock_dial_answered(void *ctx)
{
    return cci_vsock_dial_status(((struct cci_vsock_dialling *)ctx)->stream) != -EAGAIN;
}

static void cci_vsock_dial_changed(void *ctx, struct cci_stream *s)
{
    struct cci_vsock_dialling *d = ctx;
    (void)s;
    cci_monitor_lock(&d->monitor);
    cci_cond_wake(&d->monitor.cond);
    cci_monitor_unlock(&d->monitor);
}

/* Connects and waits for the answer. Not on the I/O thread. */
static cc_error_code cci_vsock_dial_wait(struct cci_vsock *v, uint32_t port, const struct cci_wait *wait,
                                         struct cci_stream **out, cc_error *err)
{
    struct cci_vsock_dialling d;
    *out = NULL;
    cc_error_code code = cci_vsock_dial(v, port, &d.stream, err);
    if (code)
        return code;
    cci_monitor_init(&d.monitor);
    cci_stream_watch(d.stream, cci_vsock_dial_changed, &d);
    code = cci_monitor_wait(&d.monitor, wait, cci_vsock_dial_answered, &d, "the guest to accept a connection", err);
    cci_monitor_unlock(&d.monitor);
    cci_stream_watch(d.stream, NULL, NULL);
    cci_monitor_destroy(&d.monitor);
    int status = code ? 0 : cci_vsock_dial_status(d.stream);
    if (status == -ENOTCONN)
        code = cci_fail_errno(err, CC_ERR_NOT_RUNNING, ENOTCONN, NULL, "the instance ended");
    else if (status)
        code = cci_fail_errno(err, CC_ERR_NETWORK, -status, NULL, "connecting to port %u of the guest: %s",
                              (unsigned)port, cci_errno_text(-status));
    if (code)
        cci_stream_close(d.stream);
    else
        *out = d.stream;
    return code;
}

#endif
