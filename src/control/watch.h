/*
 * control/watch.h - what happens to a file of the guest, event by event.
 *
 * The agent sends inotify(7)'s records on a stream of their own until we close it: struct inotify_event is i32 watch,
 * u32 mask, u32 cookie, u32 length, and so many bytes of a name with NULs behind it. We read them as they are asked
 * for; those not read yet wait in the connection, and then in the guest's kernel, which tells when it lost some. A
 * read that times out in the middle of a record goes on there the next time.
 */
#ifndef CCI_CONTROL_WATCH_H
#define CCI_CONTROL_WATCH_H

#include "../base/stream_io.h"
#include "listing.h"
#include "path.h"

enum { CCI_WATCH_RECORD = 16, CCI_WATCH_NAME = 1024, CCI_WATCH_BUFFER = 4096 };

/* inotify's mask. */
enum {
    CCI_IN_MODIFY = 0x2,
    CCI_IN_ATTRIB = 0x4,
    CCI_IN_CLOSE_WRITE = 0x8,
    CCI_IN_MOVED_FROM = 0x40,
    CCI_IN_MOVED_TO = 0x80,
    CCI_IN_CREATE = 0x100,
    CCI_IN_DELETE = 0x200,
    CCI_IN_DELETE_SELF = 0x400,
    CCI_IN_MOVE_SELF = 0x800,
    CCI_IN_WANTED = 0xfce,
    CCI_IN_OVERFLOW = 0x4000,
    CCI_IN_IGNORED = 0x8000,
    CCI_IN_ISDIR = 0x40000000
};

struct cci_watch {
    struct cci_control *control; /* there as long as the instance */
    char *path;
    struct cci_stream *stream;
    struct cci_stream_io io;
    struct cci_monitor monitor; /* guards the next two */
    bool busy, closed;          /* one reader at a time; all after that is the reader's */
    bool ended;                 /* the guest watches no longer */
    bool broken;                /* the stream makes no sense any more */
    uint8_t in[CCI_WATCH_BUFFER];
    size_t in_at, in_n;
    uint8_t head[CCI_PROTO_HEADER]; /* of the frame being read */
    size_t head_n;
    uint32_t left; /* bytes of its payload still to come */
    uint8_t record[CCI_WATCH_RECORD + CCI_WATCH_NAME];
    size_t record_n;
};

/* ---- Beginning and end ------------------------------------------------------------------------------------ */

static bool cci_watch_is_invited(void *ctx)
{
    const struct cci_call *call = ctx;
    return call->failed || (call->replied && (call->sys_errno || call->invited));
}

static cc_error_code cci_watch_attach(struct cci_watch *w, struct cci_call *call, const struct cci_wait *wait,
                                      cc_error *err)
{
    uint8_t attach[CCI_PROTO_HEADER + 12];
    struct cci_proto_writer out = {attach + CCI_PROTO_HEADER, 12, 0};
    size_t done;
    cc_error_code code = call->control->dial(call->control->dial_ctx, CCI_PROTO_PORT, &w->stream, err);
    if (code == CC_OK) {
        cci_stream_io_begin(&w->io, w->stream);
        cci_proto_store_header(attach, 12, CCI_MSG_ATTACH, call->id);
        cci_proto_put64(&out, call->id);
        cci_proto_put32(&out, CCI_CHANNEL_FILE);
        code = cci_stream_io_write(&w->io, attach, sizeof(attach), &done, wait, err);
    }
    return code;
}

static void cci_watch_destroy(struct cci_watch *w)
{
    if (w->stream) {
        cci_stream_io_end(&w->io);
        cci_stream_close(w->stream);
    }
    cci_mem_free(w->path);
    cci_monitor_destroy(&w->monitor);
}

/* On failure nothing is left to destroy. */
static cc_error_code cci_watch_open(struct cci_watch *w, struct cci_control *ctl, const char *path,
                                    const struct cci_wait *wait, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_WATCH, path, NULL, 1, {CCI_IN_WANTED}};
    struct cci_call call;
    memset(w, 0, sizeof(*w));
    w->control = ctl;
    w->path = cci_mem_strdup(path);
    if (!w->path)
        return cci_fail_nomem(err);
    cci_monitor_init(&w->monitor);
    cci_call_begin(&call, ctl);
    call.channels = 1u << CCI_CHANNEL_FILE;
    cc_error_code code = cci_call_send(&call, r.type, cci_path_put, &r, err);
    if (code == CC_OK)
        code = cci_call_wait_for(&call, cci_watch_is_invited, wait, "a watch to begin", err);
    if (code == CC_OK)
        code = cci_call_check(&call, path, err);
    if (code == CC_OK)
        code = cci_watch_attach(w, &call, wait, err);
    if (code)
        cci_call_forgo(&call);
    cci_call_end(&call);
    if (code)
        cci_watch_destroy(w);
    return code;
}

/* Reads of other threads end; the structure stays. */
static void cci_watch_close(struct cci_watch *w)
{
    cci_monitor_lock(&w->monitor);
    w->closed = true;
    cci_cond_wake(&w->monitor.cond);
    cci_monitor_unlock(&w->monitor);
    cci_stream_io_interrupt(&w->io);
}

/* ---- Reading ---------------------------------------------------------------------------------------------- */

static cc_error_code cci_watch_break(struct cci_watch *w, cc_error *err)
{
    w->broken = true;
    return cci_fail(err, CC_ERR_IO, w->path, "the guest's agent sent a stream that breaks the protocol");
}

/* Up to n bytes of what the stream carries, at least one. */
static cc_error_code cci_watch_fill(struct cci_watch *w, uint8_t *p, size_t n, size_t *got, const struct cci_wait *wait,
                                    cc_error *err)
{
    if (w->in_at == w->in_n) {
        w->in_at = w->in_n = 0;
        cc_error_code code = cci_stream_io_read(&w->io, w->in, sizeof(w->in), &w->in_n, wait, err);
        if (code == CC_ERR_IO || (code == CC_OK && w->in_n == 0))
            code = cci_control_lost(w->control, EIO, w->path, CCI_COLLECT_BROKE, wait, err);
        if (code)
            return code;
    }
    *got = CCI_MIN(n, w->in_n - w->in_at);
    memcpy(p, w->in + w->in_at, *got);
    w->in_at += *got;
    return CC_OK;
}

/* A frame's header is complete. */
static cc_error_code cci_watch_begin_frame(struct cci_watch *w, cc_error *err)
{
    struct cci_proto_header h = cci_proto_load_header(w->head);
    if (h.type == CCI_MSG_END) {
        w->ended = true;
        return CC_OK;
    }
    if (h.type != CCI_MSG_DATA || h.length > CCI_PROTO_MAX_DATA)
        return cci_watch_break(w, err);
    w->left = h.length;
    if (h.length == 0)
        w->head_n = 0;
    return CC_OK;
}

/* How many bytes the record has, as far as is known; 0: more than it may. */
static size_t cci_watch_record_size(const struct cci_watch *w)
{
    if (w->record_n < CCI_WATCH_RECORD)
        return CCI_WATCH_RECORD;
    uint32_t n = cci_le32(w->record + 12);
    return n > CCI_WATCH_NAME ? 0 : CCI_WATCH_RECORD + n;
}

/* One step towards a whole record. */
static cc_error_code cci_watch_step(struct cci_watch *w, const struct cci_wait *wait, cc_error *err)
{
    size_t got = 0, want = cci_watch_record_size(w) - w->record_n;
    cc_error_code code;
    if (w->head_n < sizeof(w->head)) {
        code = cci_watch_fill(w, w->head + w->head_n, sizeof(w->head) - w->head_n, &got, wait, err);
        w->head_n += got;
        return code || w->head_n < sizeof(w->head) ? code : cci_watch_begin_frame(w, err);
    }
    code = cci_watch_fill(w, w->record + w->record_n, CCI_MIN(want, (size_t)w->left), &got, wait, err);
    w->record_n += got;
    w->left -= (uint32_t)got;
    if (w->left == 0)
        w->head_n = 0;
    return code;
}

struct cci_watch_record {
    uint32_t mask, cookie;
    char name[256]; /* empty: the watched path itself */
};

static cc_error_code cci_watch_parse(struct cci_watch *w, struct cci_watch_record *out, cc_error *err)
{
    const uint8_t *name = w->record + CCI_WATCH_RECORD;
    size_t room = w->record_n - CCI_WATCH_RECORD;
    const uint8_t *end = room ? memchr(name, 0, room) : NULL;
    size_t n = end ? (size_t)(end - name) : room;
    w->record_n = 0;
    if (n && !cci_listing_is_name(name, n))
        return cci_watch_break(w, err);
    out->mask = cci_le32(w->record + 4);
    out->cookie = cci_le32(w->record + 8);
    if (n)
        memcpy(out->name, name, n);
    out->name[n] = '\0';
    if (out->mask & CCI_IN_IGNORED)
        w->ended = true;
    return CC_OK;
}

static cc_error_code cci_watch_read_record(struct cci_watch *w, struct cci_watch_record *out,
                                           const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = w->broken ? cci_watch_break(w, err) : CC_OK;
    while (code == CC_OK && !w->ended) {
        size_t size = cci_watch_record_size(w);
        if (size == 0)
            return cci_watch_break(w, err);
        if (w->record_n == size)
            return cci_watch_parse(w, out, err);
        code = cci_watch_step(w, wait, err);
    }
    *out = (struct cci_watch_record){.mask = CCI_IN_IGNORED};
    return code;
}

static bool cci_watch_may_read(void *ctx)
{
    const struct cci_watch *w = ctx;
    return !w->busy || w->closed;
}

/* The next event. Once the guest watches no longer every read gives IN_IGNORED. */
static cc_error_code cci_watch_read(struct cci_watch *w, struct cci_watch_record *out, const struct cci_wait *wait,
                                    cc_error *err)
{
    cc_error_code code = cci_monitor_wait(&w->monitor, wait, cci_watch_may_read, w, "another read of the watch", err);
    bool closed = w->closed;
    if (code == CC_OK && !closed)
        w->busy = true;
    cci_monitor_unlock(&w->monitor);
    if (code)
        return code;
    if (closed)
        return cci_fail(err, CC_ERR_ALREADY_CLOSED, w->path, "the watch was closed");
    code = cci_watch_read_record(w, out, wait, err);
    cci_monitor_lock(&w->monitor);
    w->busy = false;
    cci_cond_wake(&w->monitor.cond);
    cci_monitor_unlock(&w->monitor);
    return code;
}

#endif
