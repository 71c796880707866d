/*
 * control/client.h - the connection to the agent as a whole: its start, what the guest is told, its end.
 *
 * Order: cci_control_new before the machine runs; cci_control_attach when the agent's connection arrives (or, over a
 * Unix socket, when it has been dialled); cci_control_handshake waits for both that and HELLO; cci_control_configure;
 * then commands and files; cci_control_fail as soon as the machine is known to have ended; cci_control_close.
 */
#ifndef CCI_CONTROL_CLIENT_H
#define CCI_CONTROL_CLIENT_H

#include "call.h"

/* What the guest is told at its start. NULL or empty strings leave things as the image has them. */
struct cci_control_config {
    const char *hostname;    /* also written to /etc/hostname */
    const char *hosts;       /* contents of /etc/hosts */
    const char *resolv_conf; /* contents of /etc/resolv.conf */
    const char *user;        /* of commands that name none; NULL = root */
};

/* Takes over the control stream. The second and later ones are closed: there is one per boot. Any thread. */
static void cci_control_attach(struct cci_control *ctl, struct cci_stream *stream)
{
    cci_mutex_lock(&ctl->mutex);
    bool taken = !ctl->closed && !ctl->stream && !ctl->dead;
    if (taken)
        ctl->stream = stream;
    cci_mutex_unlock(&ctl->mutex);
    if (taken)
        cci_stream_watch(stream, cci_control_ready, ctl);
    else
        cci_stream_close(stream);
}

static bool cci_control_has_greeted(void *ctx)
{
    const struct cci_control *ctl = ctx;
    return ctl->greeted || ctl->dead;
}

/* What HELLO said, as an error if need be. With the monitor `hello` locked. */
static cc_error_code cci_control_judge(const struct cci_control *ctl, cc_error *err)
{
    if (ctl->version < CCI_PROTO_OLDEST || ctl->oldest > CCI_PROTO_VERSION)
        return cci_fail(err, CC_ERR_IO, NULL,
                        "the guest's agent speaks protocol version %u and this library version %u; use an initramfs "
                        "of the same release as cc.h",
                        (unsigned)ctl->version, CCI_PROTO_VERSION);
    if (ctl->boot_errno)
        return cci_fail_errno(err, CC_ERR_IO, ctl->boot_errno, NULL, "the guest could not be prepared: %s: %s",
                              ctl->boot_what, cci_errno_text(ctl->boot_errno));
    return CC_OK;
}

/* Waits until the agent is there and has said who it is. */
static cc_error_code cci_control_handshake(struct cci_control *ctl, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code =
        cci_monitor_wait(&ctl->hello, wait, cci_control_has_greeted, ctl, "the guest's agent to start", err);
    bool dead = ctl->dead;
    if (code == CC_OK && !dead)
        code = cci_control_judge(ctl, err);
    cci_monitor_unlock(&ctl->hello);
    return code == CC_OK && dead ? cci_control_dead_error(ctl, err) : code;
}

static void cci_control_put_config(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_control_config *c = ctx;
    cci_proto_put64(w, cci_os_realtime());
    cci_proto_put_str(w, c->hostname);
    cci_proto_put_str(w, c->hosts);
    cci_proto_put_str(w, c->resolv_conf);
    cci_proto_put_str(w, c->user);
}

/* Sends one request and waits for its reply. */
static cc_error_code cci_control_ask(struct cci_control *ctl, uint32_t type, cci_control_put_fn put, const void *ctx,
                                     const struct cci_wait *wait, const char *what, cc_error *err)
{
    struct cci_call call;
    cci_call_begin(&call, ctl);
    cc_error_code code = cci_call_send(&call, type, put, ctx, err);
    if (code == CC_OK)
        code = cci_call_wait(&call, wait, what, err);
    if (code == CC_OK)
        code = cci_call_check(&call, NULL, err);
    cci_call_end(&call);
    return code;
}

/* A stream broke before its end: CC_ERR_NOT_RUNNING when the guest does not answer any more either, else CC_ERR_IO with
 * what is said here. */
static cc_error_code cci_control_lost(struct cci_control *ctl, int sys_errno, const char *path, const char *what,
                                      const struct cci_wait *wait, cc_error *err)
{
    cci_error_release(err);
    cc_error_code code =
        cci_control_ask(ctl, CCI_MSG_PING, cci_control_put_nothing, NULL, wait, "the guest's agent", err);
    return code ? code : cci_fail_errno(err, CC_ERR_IO, sys_errno, path, "%s", what);
}

/* How the collection of a channel went in a call that is over; CC_OK if there was none. */
static cc_error_code cci_control_collected(const struct cci_call *call, unsigned channel, const char *path,
                                           const struct cci_wait *wait, cc_error *err)
{
    const struct cci_collect *c = call->collect[channel];
    if (!c)
        return CC_OK;
    if (c->state == CCI_COLLECT_LOST)
        return cci_control_lost(call->control, EIO, path, CCI_COLLECT_BROKE, wait, err);
    return cci_collect_result(c, path, err);
}

/* Sets the guest's clock to the host's, and what the configuration says. May be repeated. */
static cc_error_code cci_control_configure(struct cci_control *ctl, const struct cci_control_config *config,
                                           const struct cci_wait *wait, cc_error *err)
{
    return cci_control_ask(ctl, CCI_MSG_CONFIGURE, cci_control_put_config, config, wait, "the guest's configuration",
                           err);
}

/* Sends a request whose reply nobody waits for. What is sent later is dealt with later. CC_ERR_NOT_RUNNING comes
 * without words, as from cci_control_send. */
static cc_error_code cci_control_tell(struct cci_control *ctl, uint32_t type, cci_control_put_fn put, const void *ctx,
                                      cc_error *err)
{
    cci_mutex_lock(&ctl->mutex);
    cc_error_code code = cci_control_send(ctl, type, ctl->next_id++, put, ctx, err);
    cci_mutex_unlock(&ctl->mutex);
    return code;
}

/* Sets the guest's clock to the host's again. A guest that cannot be told has no use for the time. */
static void cci_control_set_clock(struct cci_control *ctl)
{
    const struct cci_control_config clock_only = {NULL, NULL, NULL, NULL};
    (void)cci_control_tell(ctl, CCI_MSG_CONFIGURE, cci_control_put_config, &clock_only, NULL);
}

/* A collection whose stream is still open, or NULL. */
static struct cci_collect *cci_control_open_collect(struct cci_control *ctl)
{
    struct cci_collect *found = NULL;
    cci_mutex_lock(&ctl->mutex);
    for (struct cci_call *call = ctl->calls; call && !found; call = call->next) {
        cci_monitor_lock(&call->monitor);
        for (unsigned i = 0; i < CCI_CHANNELS; i++)
            if (call->collect[i] && call->collect[i]->stream)
                found = call->collect[i];
        cci_monitor_unlock(&call->monitor);
    }
    cci_mutex_unlock(&ctl->mutex);
    return found;
}

/* Ends the connection, every call, and the streams that calls collect from; then gives back the instance's
 * reference. Threads that wait in a call return soon after; a thread that sends a file uses a stream of its own until
 * it does. So: close, wait for the calls of other threads, then take the carrier down. Neither on the I/O thread nor
 * at the same time as cci_control_attach. */
static void cci_control_close(struct cci_control *ctl)
{
    struct cci_collect *c;
    cci_mutex_lock(&ctl->mutex);
    cci_control_die(ctl, "the instance was closed", false);
    struct cci_stream *stream = ctl->stream;
    ctl->stream = NULL;
    ctl->closed = true;
    ctl->closing = true; /* from here no call ends, so none is freed below */
    cci_mutex_unlock(&ctl->mutex);
    cci_stream_close(stream);
    while ((c = cci_control_open_collect(ctl)))
        cci_collect_stop(c);
    cci_mutex_lock(&ctl->mutex);
    ctl->closing = false;
    cci_cond_wake(&ctl->settled);
    cci_mutex_unlock(&ctl->mutex);
    cci_control_unref(ctl);
}

#endif
