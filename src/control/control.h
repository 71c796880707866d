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

#include "collect.h"

/* Opens a connection to a port of the guest. Must not block: until the guest has answered, writes give -EAGAIN. */
typedef cc_error_code (*cci_control_dial_fn)(void *ctx, uint32_t port, struct cci_stream **out, cc_error *err);

enum { CCI_CONTROL_WHAT_MAX = 200, CCI_CONTROL_FIRST_IN = 4096 };

/* The most bytes of one output or file kept in memory, unless the caller says otherwise. */
#define CCI_CONTROL_LIMIT ((size_t)1 << 30)

struct cci_control {
    struct cci_mutex mutex;
    unsigned refs;
    cci_control_dial_fn dial;
    void *dial_ctx;
    void (*lost_fn)(void *ctx); /* called once with dial_ctx when `dead` is set, the mutex held; or NULL */
    struct cci_stream *stream;  /* NULL before attach and after close */
    bool closed;                /* nobody may attach a stream any more */
    bool closing;               /* cci_control_close is at the calls: they must stay */
    struct cci_cond settled;    /* closing has become false */
    struct cci_buf in;          /* received, not yet understood; the I/O thread's alone */
    struct cci_buf out;         /* frames not yet taken by the stream */
    size_t out_sent;            /* bytes at its start that were */
    uint64_t next_id;
    struct cci_call *calls;
    struct cci_monitor hello; /* guards the rest; taken after mutex */
    bool greeted;             /* HELLO came */
    uint32_t version, oldest; /* what it said */
    int boot_errno;
    char boot_what[CCI_CONTROL_WHAT_MAX + 1];
    bool dead;    /* no reply will ever come */
    char *reason; /* why; NULL if there was no memory to say */
    bool broke;   /* because the connection ended, for a reason not known here */
};

struct cci_call {
    struct cci_control *control;
    struct cci_call *next, **link; /* the control's table */
    uint64_t id;
    size_t limit;      /* bytes kept of each stream */
    unsigned channels; /* bit set of the streams the guest may announce */
    struct cci_monitor monitor;
    bool started;  /* STARTED came */
    uint32_t pid;  /* what it said */
    bool to_host;  /* announced streams carry bytes to us; else the caller sends them */
    bool invited;  /* the stream on which the caller sends was announced */
    bool farewell; /* the guest ends with this call: SHUTDOWN is the answer to its reply */
    bool replied;
    bool failed;   /* it never will be: the control connection is dead */
    int sys_errno; /* the reply's; result follows only when 0 */
    char what[CCI_CONTROL_WHAT_MAX + 1];
    struct cci_buf result; /* the reply's fields after errno and what; `failed` when there was no memory */
    struct cci_collect *collect[CCI_CHANNELS];
};

/* ---- Lifetime ------------------------------------------------------------------------------------------- */

static struct cci_control *cci_control_new(cci_control_dial_fn dial, void *dial_ctx)
{
    struct cci_control *ctl = cci_mem_zalloc(1, sizeof(*ctl));
    if (!ctl)
        return NULL;
    cci_mutex_init(&ctl->mutex);
    cci_monitor_init(&ctl->hello);
    cci_cond_init(&ctl->settled);
    ctl->refs = 1;
    ctl->next_id = 1;
    ctl->dial = dial;
    ctl->dial_ctx = dial_ctx;
    return ctl;
}

static void cci_control_unref(struct cci_control *ctl)
{
    cci_mutex_lock(&ctl->mutex);
    bool last = --ctl->refs == 0;
    cci_mutex_unlock(&ctl->mutex);
    if (!last)
        return;
    cci_buf_free(&ctl->in);
    cci_buf_free(&ctl->out);
    cci_mem_free(ctl->reason);
    cci_monitor_destroy(&ctl->hello);
    cci_cond_destroy(&ctl->settled);
    cci_mutex_destroy(&ctl->mutex);
    cci_mem_free(ctl);
}

/* Nothing more will come for this call. With its monitor locked. */
static bool cci_call_is_over(void *ctx)
{
    const struct cci_call *call = ctx;
    if (call->failed)
        return true;
    if (!call->replied)
        return false;
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        if (call->sys_errno == 0 && call->collect[i] && call->collect[i]->state == CCI_COLLECT_RUNNING)
            return false;
    return true;
}

/* What was all here before stays good. */
static void cci_call_fail(struct cci_call *call)
{
    cci_monitor_lock(&call->monitor);
    if (!cci_call_is_over(call))
        call->failed = true;
    cci_cond_wake(&call->monitor.cond);
    cci_monitor_unlock(&call->monitor);
}

/* Ends all calls, and tells the agent, which ends with its control connection. The first reason stays. With the mutex
 * held. */
static void cci_control_die(struct cci_control *ctl, const char *reason)
{
    if (ctl->dead)
        return;
    cci_monitor_lock(&ctl->hello);
    ctl->reason = cci_mem_strdup(reason);
    ctl->dead = true;
    cci_cond_wake(&ctl->hello.cond);
    cci_monitor_unlock(&ctl->hello);
    if (ctl->stream)
        cci_stream_shutdown(ctl->stream);
    for (struct cci_call *call = ctl->calls; call; call = call->next)
        cci_call_fail(call);
    if (ctl->lost_fn)
        ctl->lost_fn(ctl->dial_ctx);
}

/* The instance ended, and knows why: every call ends with CC_ERR_NOT_RUNNING and that reason. The connection often
 * breaks a moment before the machine is known to have ended; from here on the better reason is told. */
static void cci_control_fail(struct cci_control *ctl, const char *reason)
{
    cci_mutex_lock(&ctl->mutex);
    cci_control_die(ctl, reason);
    cci_monitor_lock(&ctl->hello);
    char *better = ctl->broke ? cci_mem_strdup(reason) : NULL;
    if (better) {
        cci_mem_free(ctl->reason);
        ctl->reason = better;
        ctl->broke = false;
    }
    cci_monitor_unlock(&ctl->hello);
    cci_mutex_unlock(&ctl->mutex);
}

static cc_error_code cci_control_dead_error(struct cci_control *ctl, cc_error *err)
{
    cci_monitor_lock(&ctl->hello);
    (void)cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "%s", ctl->reason ? ctl->reason : "the instance ended");
    cci_monitor_unlock(&ctl->hello);
    return CC_ERR_NOT_RUNNING;
}

/* The guest cannot be reached; why may yet be known. With the mutex held. */
static void cci_control_lose(struct cci_control *ctl, const char *reason)
{
    if (ctl->dead)
        return;
    cci_control_die(ctl, reason);
    cci_monitor_lock(&ctl->hello);
    ctl->broke = true;
    cci_monitor_unlock(&ctl->hello);
}

/* The stream has ended or failed. With the mutex held. */
static void cci_control_on_break(struct cci_control *ctl)
{
    cci_control_lose(ctl, ctl->greeted ? "the guest's agent ended" : "the guest's agent ended before it was ready");
}

/* ---- Sending ---------------------------------------------------------------------------------------------- */

/* Passes queued frames to the stream, as far as it takes them. With the mutex held. */
static void cci_control_flush(struct cci_control *ctl)
{
    while (ctl->stream && ctl->out_sent < ctl->out.n) {
        int64_t n = cci_stream_write(ctl->stream, ctl->out.p + ctl->out_sent, ctl->out.n - ctl->out_sent);
        if (n == -EAGAIN)
            return;
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

/* Queues a frame. With the mutex held. */
static cc_error_code cci_control_send(struct cci_control *ctl, uint32_t type, uint64_t id, cci_control_put_fn put,
                                      const void *ctx, cc_error *err)
{
    struct cci_proto_writer measure = {NULL, 0, 0};
    put(&measure, ctx);
    if (measure.len > CCI_PROTO_MAX_REQUEST)
        return cci_fail_errno(err, CC_ERR_IO, E2BIG, NULL, "%s", cci_errno_text(E2BIG));
    if (ctl->dead)
        return cci_control_dead_error(ctl, err);
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
    cci_control_die(ctl, reason);
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
            cci_control_die(ctl, "out of memory for what the guest sends");
        }
    }
    cci_mutex_unlock(&ctl->mutex);
}

#endif
