/*
 * control/collect.h - a byte stream from the guest, gathered into memory.
 *
 * What does not fit a reply comes on a connection of its own (guest/protocol.h, "Streams"): we dial, say ATTACH, and
 * read DATA frames until END. All of it happens in the stream's watch function on the I/O thread, which never blocks;
 * the thread that waits for the result sleeps on the monitor of the call the stream belongs to.
 *
 * The guest decides how much it sends, so the bytes kept are limited; what goes beyond ends the stream with an
 * error. A frame larger than the protocol allows, or of another type, does too.
 *
 * The stream is closed by whoever sees the end first: the watch function, or the owner who gives up. Either takes
 * the pointer out of the structure with the monitor locked and closes it without.
 */
#ifndef CCI_CONTROL_COLLECT_H
#define CCI_CONTROL_COLLECT_H

#include "../../guest/protocol.h"
#include "../base/cancel.h"
#include "../base/errno_text.h"
#include "../base/stream.h"

enum { CCI_COLLECT_ATTACH = CCI_PROTO_HEADER + 12, CCI_COLLECT_END_KEPT = 64 };

enum cci_collect_state {
    CCI_COLLECT_RUNNING,
    CCI_COLLECT_COMPLETE, /* END came; sys_errno says how it went */
    CCI_COLLECT_OVERFLOW, /* more than the limit */
    CCI_COLLECT_NO_MEMORY,
    CCI_COLLECT_BROKEN, /* the guest did not keep to the protocol */
    CCI_COLLECT_LOST    /* the connection ended before END */
};

struct cci_collect {
    struct cci_monitor *monitor; /* of the call; guards everything here */
    struct cci_stream *stream;   /* NULL once somebody closes it */
    enum cci_collect_state state;
    int sys_errno; /* END's */
    size_t limit;  /* bytes kept at most */
    struct cci_buf data;
    uint8_t attach[CCI_COLLECT_ATTACH]; /* our first and only frame */
    size_t attach_sent;
    uint8_t head[CCI_PROTO_HEADER]; /* header of the frame being read */
    size_t head_len;
    uint32_t left;                     /* bytes of its payload still to come */
    uint32_t type;                     /* its type */
    uint8_t end[CCI_COLLECT_END_KEPT]; /* payload of END, as much as matters */
    size_t end_len;
};

/* Sends what is left of ATTACH. False when it cannot go on now. */
static bool cci_collect_introduce(struct cci_collect *c)
{
    while (c->attach_sent < sizeof(c->attach)) {
        int64_t n = cci_stream_write(c->stream, c->attach + c->attach_sent, sizeof(c->attach) - c->attach_sent);
        if (n == -EAGAIN)
            return false;
        if (n <= 0) {
            c->state = CCI_COLLECT_LOST;
            return false;
        }
        c->attach_sent += (size_t)n;
    }
    return true;
}

/* A header is complete: checks it. */
static void cci_collect_begin_frame(struct cci_collect *c)
{
    struct cci_proto_header h = cci_proto_load_header(c->head);
    c->left = h.length;
    c->type = h.type;
    if (h.length > CCI_PROTO_MAX_DATA || (h.type != CCI_MSG_DATA && h.type != CCI_MSG_END))
        c->state = CCI_COLLECT_BROKEN;
    else if (h.type == CCI_MSG_DATA && h.length > c->limit - c->data.n)
        c->state = CCI_COLLECT_OVERFLOW;
}

/* A payload is complete. */
static void cci_collect_end_frame(struct cci_collect *c)
{
    c->head_len = 0;
    if (c->type != CCI_MSG_END)
        return;
    struct cci_proto_reader in = {c->end, c->end_len, false};
    c->sys_errno = (int)cci_proto_get32(&in);
    c->state = CCI_COLLECT_COMPLETE;
}

/* Where the next bytes go, and how many are wanted. NULL when there is no memory. */
static uint8_t *cci_collect_space(struct cci_collect *c, size_t *n)
{
    if (c->head_len < sizeof(c->head)) {
        *n = sizeof(c->head) - c->head_len;
        return c->head + c->head_len;
    }
    *n = c->left;
    if (c->type == CCI_MSG_DATA)
        return cci_buf_reserve(&c->data, c->left);
    /* Of a long END the surplus overwrites itself at the end of the kept part. */
    size_t at = CCI_MIN(c->end_len, sizeof(c->end) - 1);
    *n = CCI_MIN(*n, sizeof(c->end) - at);
    return c->end + at;
}

static void cci_collect_take(struct cci_collect *c, size_t n)
{
    if (c->head_len < sizeof(c->head)) {
        c->head_len += n;
        if (c->head_len < sizeof(c->head))
            return;
        cci_collect_begin_frame(c);
        if (c->state != CCI_COLLECT_RUNNING)
            return;
    } else {
        c->left -= (uint32_t)n;
        if (c->type == CCI_MSG_DATA)
            c->data.n += n;
        else
            c->end_len = CCI_MIN(c->end_len + n, sizeof(c->end));
    }
    if (c->left == 0)
        cci_collect_end_frame(c);
}

static void cci_collect_read(struct cci_collect *c)
{
    while (c->state == CCI_COLLECT_RUNNING) {
        size_t want;
        uint8_t *p = cci_collect_space(c, &want);
        if (!p) {
            c->state = CCI_COLLECT_NO_MEMORY;
            return;
        }
        int64_t n = cci_stream_read(c->stream, p, want);
        if (n == -EAGAIN)
            return;
        if (n <= 0)
            c->state = CCI_COLLECT_LOST;
        else
            cci_collect_take(c, (size_t)n);
    }
}

/* The watch function. */
static void cci_collect_ready(void *ctx, struct cci_stream *s)
{
    struct cci_collect *c = ctx;
    bool over = false;
    cci_monitor_lock(c->monitor);
    if (c->stream && cci_collect_introduce(c))
        cci_collect_read(c);
    if (c->stream && c->state != CCI_COLLECT_RUNNING) {
        c->stream = NULL;
        over = true;
        cci_cond_wake(&c->monitor->cond);
    }
    cci_monitor_unlock(c->monitor);
    if (over)
        cci_stream_close(s); /* and nothing of *c any more: its owner may be freeing it */
}

/* Starts collecting channel `channel` of request `id` from a fresh connection, which is the collector's from here. */
static struct cci_collect *cci_collect_new(struct cci_monitor *monitor, uint64_t id, uint32_t channel, size_t limit)
{
    struct cci_collect *c = cci_mem_zalloc(1, sizeof(*c));
    if (!c)
        return NULL;
    struct cci_proto_writer w = {c->attach + CCI_PROTO_HEADER, sizeof(c->attach) - CCI_PROTO_HEADER, 0};
    c->monitor = monitor;
    c->limit = limit;
    cci_proto_store_header(c->attach, (uint32_t)w.cap, CCI_MSG_ATTACH, id);
    cci_proto_put64(&w, id);
    cci_proto_put32(&w, channel);
    return c;
}

/* Ends the connection if it is still there; the bytes so far stay. Without the monitor locked. */
static void cci_collect_stop(struct cci_collect *c)
{
    if (!c)
        return;
    cci_monitor_lock(c->monitor);
    struct cci_stream *s = c->stream;
    c->stream = NULL;
    if (c->state == CCI_COLLECT_RUNNING)
        c->state = CCI_COLLECT_LOST;
    cci_cond_wake(&c->monitor->cond);
    cci_monitor_unlock(c->monitor);
    cci_stream_close(s);
}

static void cci_collect_free(struct cci_collect *c)
{
    if (!c)
        return;
    cci_collect_stop(c);
    cci_buf_free(&c->data);
    cci_mem_free(c);
}

#define CCI_COLLECT_BROKE "the connection to the guest broke in mid-transfer"

/* How a finished collection went. */
static cc_error_code cci_collect_result(const struct cci_collect *c, const char *path, cc_error *err)
{
    switch (c->state) {
    case CCI_COLLECT_COMPLETE:
        if (c->sys_errno == 0)
            return CC_OK;
        return cci_fail_errno(err, CC_ERR_IO, c->sys_errno, path, "%s", cci_errno_text(c->sys_errno));
    case CCI_COLLECT_OVERFLOW:
        return cci_fail(err, CC_ERR_IO, path, "the guest sent more than the limit of %zu bytes", c->limit);
    case CCI_COLLECT_NO_MEMORY:
        return cci_fail_nomem(err);
    case CCI_COLLECT_BROKEN:
        return cci_fail(err, CC_ERR_IO, path, "the guest's agent sent a stream that breaks the protocol");
    default:
        return cci_fail(err, CC_ERR_IO, path, CCI_COLLECT_BROKE);
    }
}

#endif
