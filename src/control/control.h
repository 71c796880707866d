/*
 * control/control.h - the host's end of the control connection, and the calls under way on it.
 *
 * A call is one request: an id, a place for its reply, and the streams its reply announced. A thread of the API
 * makes it, sends it, and sleeps on the call's monitor; the watch function of the control stream (on the I/O thread)
 * takes frames apart and wakes whom they concern. Nothing on the I/O thread blocks.
 *
 * Trust: the agent is the guest's, so it may answer anything. Frames have a maximum size; replies to calls nobody
 * makes any more are dropped (that is normal after a deadline); a frame that contradicts the protocol (too long, cut
 * short, HELLO twice, a stream nobody asked for) ends the connection, and with it every call, with CC_ERR_NOT_RUNNING
 * and the reason. Frame types this version does not know are skipped.
 *
 * Locks: the control's mutex guards the table of calls and the output; a call's monitor guards its state. The
 * control's comes first. Streams are never closed with either held, since closing waits for their watch function,
 * which takes them. The watch function keeps the mutex while it handles a frame, so a call that has been unlinked
 * under the mutex is not touched any more.
 *
 * Lifetime: the control is counted. The instance has one reference, which cci_control_close gives back; each call
 * holds one, so a command handle may outlive its instance.
 */
#ifndef CCI_CONTROL_CONTROL_H
#define CCI_CONTROL_CONTROL_H

#include "calls.h"

/* ---- Sending ---------------------------------------------------------------------------------------------- */

/* What was sent makes room. Half of it all at a time, so that each byte is moved once or so. */
static void cci_control_close_ranks(struct cci_control *ctl)
{
    if (ctl->out_sent < ctl->out.n - ctl->out_sent)
        return;
    ctl->out.n -= ctl->out_sent;
    memmove(ctl->out.p, ctl->out.p + ctl->out_sent, ctl->out.n);
    ctl->out_sent = 0;
}

/* Passes queued frames to the stream, as far as it takes them. With the mutex held. */
static void cci_control_flush(struct cci_control *ctl)
{
    while (ctl->stream && ctl->out_sent < ctl->out.n) {
        int64_t n = cci_stream_write(ctl->stream, ctl->out.p + ctl->out_sent, ctl->out.n - ctl->out_sent);
        if (n == -EAGAIN) {
            cci_control_close_ranks(ctl);
            return;
        }
        if (n <= 0) {
            cci_control_on_break(ctl);
            return;
        }
        ctl->out_sent += (size_t)n;
    }
    ctl->out.n = 0;
    ctl->out_sent = 0;
}

/* Writes the payload of a request. Called twice: to measure, and to write. */
typedef void (*cci_control_put_fn)(struct cci_proto_writer *w, const void *ctx);

/* Queues a frame. With the mutex held, so CC_ERR_NOT_RUNNING comes without words: cci_control_dead_error has them. */
static cc_error_code cci_control_send(struct cci_control *ctl, uint32_t type, uint64_t id, cci_control_put_fn put,
                                      const void *ctx, cc_error *err)
{
    struct cci_proto_writer measure = {NULL, 0, 0};
    put(&measure, ctx);
    if (measure.len > CCI_PROTO_MAX_REQUEST)
        return cci_fail_errno(err, CC_ERR_IO, E2BIG, NULL, "%s", cci_errno_text(E2BIG));
    if (ctl->dead)
        return CC_ERR_NOT_RUNNING;
    bool ends = type == CCI_MSG_KILL || type == CCI_MSG_DETACH || type == CCI_MSG_SHUTDOWN; /* small, and few */
    if (!ends && ctl->out.n - ctl->out_sent > CCI_CONTROL_BACKLOG)
        return cci_fail_errno(err, CC_ERR_IO, EAGAIN, NULL,
                              "the guest does not take requests, and too many wait for it already");
    uint8_t *p = cci_buf_reserve(&ctl->out, CCI_PROTO_HEADER + measure.len);
    if (!p) {
        ctl->out.failed = false; /* this request is lost, the next may do better */
        return cci_fail_nomem(err);
    }
    struct cci_proto_writer w = {p + CCI_PROTO_HEADER, measure.len, 0};
    put(&w, ctx);
    cci_proto_store_header(p, (uint32_t)w.len, type, id);
    ctl->out.n += CCI_PROTO_HEADER + w.len;
    cci_control_flush(ctl);
    return CC_OK;
}

/* ---- Receiving, on the I/O thread, with the mutex held ---------------------------------------------------- */

/* Copies guest text for a message: short, and without control characters. */
static void cci_control_copy_text(char out[CCI_CONTROL_WHAT_MAX + 1], const uint8_t *p, size_t n)
{
    n = CCI_MIN(n, CCI_CONTROL_WHAT_MAX);
    for (size_t i = 0; i < n; i++)
        out[i] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
    out[n] = '\0';
}

static const char *cci_control_on_hello(struct cci_control *ctl, struct cci_proto_reader *in)
{
    const char *wrong = NULL;
    size_t n;
    if (ctl->greeted)
        return "greeted twice";
    if (cci_proto_get32(in) != CCI_PROTO_MAGIC)
        return "is not an agent of this library";
    cci_monitor_lock(&ctl->hello);
    ctl->version = cci_proto_get32(in);
    ctl->oldest = cci_proto_get32(in);
    (void)cci_proto_get64(in); /* features: none are defined yet */
    ctl->boot_errno = (int)cci_proto_get32(in);
    const uint8_t *what = cci_proto_get_bytes(in, &n);
    cci_control_copy_text(ctl->boot_what, what, n);
    if (in->bad)
        wrong = "sent a greeting cut short";
    ctl->greeted = !in->bad;
    cci_cond_wake(&ctl->hello.cond);
    cci_monitor_unlock(&ctl->hello);
    return wrong;
}

static void cci_control_put_nothing(struct cci_proto_writer *w, const void *ctx)
{
    (void)w;
    (void)ctx;
}

/* The workload's status is here: the guest may power off. One that cannot be told ends with its connection. */
static void cci_control_dismiss(struct cci_control *ctl)
{
    if (!ctl->dead && cci_control_send(ctl, CCI_MSG_SHUTDOWN, ctl->next_id++, cci_control_put_nothing, NULL, NULL))
        cci_control_lose(ctl, "out of memory as the workload ended");
}

static const char *cci_control_on_reply(struct cci_call *call, struct cci_proto_reader *in)
{
    const char *wrong = NULL;
    bool dismiss = false;
    size_t n;
    cci_monitor_lock(&call->monitor);
    if (!call->replied) {
        call->sys_errno = (int)cci_proto_get32(in);
        const uint8_t *what = cci_proto_get_bytes(in, &n);
        cci_control_copy_text(call->what, what, n);
        if (in->left)
            (void)cci_buf_add(&call->result, in->at, in->left);
        call->replied = !in->bad;
        cci_cond_wake(&call->monitor.cond);
        wrong = in->bad ? "sent a reply cut short" : NULL;
        dismiss = !wrong && call->farewell && call->sys_errno == 0;
    }
    cci_monitor_unlock(&call->monitor);
    if (dismiss)
        cci_control_dismiss(call->control);
    return wrong;
}

static const char *cci_control_on_started(struct cci_call *call, struct cci_proto_reader *in)
{
    cci_monitor_lock(&call->monitor);
    call->pid = cci_proto_get32(in);
    call->started = true;
    cci_cond_wake(&call->monitor.cond);
    cci_monitor_unlock(&call->monitor);
    return in->bad ? "sent a notice cut short" : NULL;
}

/* The guest has more for us than a reply holds: opens a connection for it. */
static const char *cci_control_on_stream(struct cci_control *ctl, struct cci_call *call, struct cci_proto_reader *in)
{
    uint32_t channel = cci_proto_get32(in);
    if (in->bad || channel >= CCI_CHANNELS || !(call->channels & 1u << channel))
        return "announced a stream nobody asked for";
    call->channels &= ~(1u << channel);
    if (!call->to_host) {
        cci_monitor_lock(&call->monitor);
        call->invited = true;
        cci_cond_wake(&call->monitor.cond);
        cci_monitor_unlock(&call->monitor);
        return NULL;
    }
    struct cci_stream *s = NULL;
    struct cci_collect *c = cci_collect_new(&call->monitor, call->id, channel, call->limit);
    if (!c || ctl->dial(ctl->dial_ctx, CCI_PROTO_PORT, &s, NULL)) {
        cci_mem_free(c);
        cci_control_lose(ctl, "cannot open a connection to the guest for the output of a command or file");
        return NULL;
    }
    cci_monitor_lock(&call->monitor);
    call->collect[channel] = c;
    c->stream = s;
    cci_monitor_unlock(&call->monitor);
    cci_stream_watch(s, cci_collect_ready, c);
    return NULL;
}

/* Handles one frame; returns what was wrong with it, or NULL. */
static const char *cci_control_on_frame(struct cci_control *ctl, const struct cci_proto_header *h, const uint8_t *p)
{
    struct cci_proto_reader in = {p, h->length, false};
    struct cci_call *call = ctl->calls;
    if (h->type == CCI_MSG_HELLO)
        return cci_control_on_hello(ctl, &in);
    if (!ctl->greeted)
        return "did not greet";
    while (call && call->id != h->id)
        call = call->next;
    if (!call)
        return NULL;
    switch (h->type) {
    case CCI_MSG_REPLY:
        return cci_control_on_reply(call, &in);
    case CCI_MSG_STARTED:
        return cci_control_on_started(call, &in);
    case CCI_MSG_STREAM:
        return cci_control_on_stream(ctl, call, &in);
    default:
        return NULL;
    }
}

static void cci_control_on_protocol_error(struct cci_control *ctl, const char *wrong)
{
    char reason[160];
    (void)snprintf(reason, sizeof(reason), "the guest's agent broke the protocol: it %s", wrong);
    cci_control_die(ctl, reason, false);
}

/* Handles the complete frames in ctl->in. */
static void cci_control_parse(struct cci_control *ctl)
{
    size_t used = 0;
    while (!ctl->dead && ctl->in.n - used >= CCI_PROTO_HEADER) {
        struct cci_proto_header h = cci_proto_load_header(ctl->in.p + used);
        const char *wrong = NULL;
        if (h.length > CCI_PROTO_MAX_REPLY)
            wrong = "sent a frame larger than it may";
        else if (h.length > ctl->in.n - used - CCI_PROTO_HEADER)
            break;
        else
            wrong = cci_control_on_frame(ctl, &h, ctl->in.p + used + CCI_PROTO_HEADER);
        if (wrong)
            cci_control_on_protocol_error(ctl, wrong);
        used += CCI_PROTO_HEADER + h.length;
    }
    if (ctl->dead)
        used = ctl->in.n;
    ctl->in.n -= used;
    if (used && ctl->in.n)
        memmove(ctl->in.p, ctl->in.p + used, ctl->in.n);
}

/* Room for the next read: the rest of the frame under way, or a handful of small ones. */
static size_t cci_control_room(const struct cci_control *ctl)
{
    size_t want = CCI_CONTROL_FIRST_IN;
    if (ctl->in.n >= CCI_PROTO_HEADER)
        want = CCI_MAX(want, CCI_PROTO_HEADER + (size_t)cci_le32(ctl->in.p));
    return want - ctl->in.n;
}

/* The watch function of the control stream. */
static void cci_control_ready(void *ctx, struct cci_stream *s)
{
    struct cci_control *ctl = ctx;
    cci_mutex_lock(&ctl->mutex);
    cci_control_flush(ctl);
    while (!ctl->dead) {
        size_t room = cci_control_room(ctl);
        uint8_t *p = cci_buf_reserve(&ctl->in, room);
        int64_t n = p ? cci_stream_read(s, p, room) : -ENOMEM;
        if (n == -EAGAIN)
            break;
        if (n > 0) {
            ctl->in.n += (size_t)n;
            cci_control_parse(ctl);
        } else if (p) {
            cci_control_on_break(ctl);
        } else {
            cci_control_die(ctl, "out of memory for what the guest sends", false);
        }
    }
    cci_mutex_unlock(&ctl->mutex);
}

#endif
