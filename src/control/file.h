/*
 * control/file.h - whole files of the guest: read, write.
 *
 * Up to CCI_PROTO_INLINE bytes travel in the request or the reply; more comes (or goes) on a stream of its own. The
 * agent works as root with umask 0, and its root directory is the image's, so relative paths start there.
 */
#ifndef CCI_CONTROL_FILE_H
#define CCI_CONTROL_FILE_H

#include "../base/stream_io.h"
#include "path.h"

/* ---- Reading ---------------------------------------------------------------------------------------------- */

static void cci_file_put_path(struct cci_proto_writer *w, const void *ctx)
{
    cci_proto_put_str(w, ctx);
}

/* Moves the contents out of a finished call, with a NUL behind them. */
static cc_error_code cci_file_contents(struct cci_call *call, uint8_t **bytes, size_t *n, cc_error *err)
{
    struct cci_buf buf = {NULL, 0, 0, false};
    struct cci_collect *c = call->collect[CCI_CHANNEL_FILE];
    if (c) {
        buf = c->data;
        memset(&c->data, 0, sizeof(c->data));
    } else {
        struct cci_proto_reader in = cci_call_result(call);
        size_t len;
        const uint8_t *p = cci_proto_get_bytes(&in, &len);
        if (len)
            (void)cci_buf_add(&buf, p, len); /* without memory the reserve below fails as well */
    }
    uint8_t *end = cci_buf_reserve(&buf, 1);
    if (!end) {
        cci_buf_free(&buf);
        return cci_fail_nomem(err);
    }
    *end = 0;
    *bytes = buf.p;
    *n = buf.n;
    return CC_OK;
}

/* The whole file, to be freed with cci_mem_free. More than `limit` bytes (0 = CCI_CONTROL_LIMIT) is an error. */
static cc_error_code cci_file_read(struct cci_control *ctl, const char *path, size_t limit, uint8_t **bytes, size_t *n,
                                   const struct cci_wait *wait, cc_error *err)
{
    struct cci_call call;
    cci_call_begin(&call, ctl);
    call.to_host = true;
    call.channels = 1u << CCI_CHANNEL_FILE;
    if (limit)
        call.limit = limit;
    cc_error_code code = cci_call_send(&call, CCI_MSG_READ_FILE, cci_file_put_path, path, err);
    if (code == CC_OK)
        code = cci_call_wait(&call, wait, "a file of the guest", err);
    if (code == CC_OK)
        code = cci_call_check(&call, path, err);
    if (code == CC_OK)
        code = cci_control_collected(&call, CCI_CHANNEL_FILE, path, wait, err);
    if (code == CC_OK)
        code = cci_file_contents(&call, bytes, n, err);
    cci_call_end(&call);
    return code;
}

/* ---- Writing ---------------------------------------------------------------------------------------------- */

struct cci_file_writing {
    const char *path;
    const uint8_t *bytes;
    size_t n;
    uint32_t mode;
    bool streamed;
};

static void cci_file_put_write(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_file_writing *f = ctx;
    cci_proto_put_str(w, f->path);
    cci_proto_put32(w, f->mode);
    cci_proto_put32(w, f->streamed);
    cci_proto_put_bytes(w, f->bytes, f->streamed ? 0 : f->n);
}

static bool cci_file_is_invited(void *ctx)
{
    const struct cci_call *call = ctx;
    return call->invited || cci_call_is_over(ctx);
}

static cc_error_code cci_file_send_frame(struct cci_stream_io *io, uint32_t type, uint64_t id, const uint8_t *p,
                                         size_t n, const struct cci_wait *wait, cc_error *err)
{
    uint8_t head[CCI_PROTO_HEADER];
    size_t done;
    cci_proto_store_header(head, (uint32_t)n, type, id);
    cc_error_code code = cci_stream_io_write(io, head, sizeof(head), &done, wait, err);
    return code ? code : cci_stream_io_write(io, p, n, &done, wait, err);
}

/* ATTACH, the contents, END. */
static cc_error_code cci_file_send(struct cci_call *call, struct cci_stream *s, const struct cci_file_writing *f,
                                   const struct cci_wait *wait, cc_error *err)
{
    uint8_t small[12];
    struct cci_proto_writer w = {small, sizeof(small), 0};
    struct cci_stream_io io;
    cci_stream_io_begin(&io, s);
    cci_proto_put64(&w, call->id);
    cci_proto_put32(&w, CCI_CHANNEL_FILE);
    cc_error_code code = cci_file_send_frame(&io, CCI_MSG_ATTACH, call->id, small, w.len, wait, err);
    for (size_t at = 0; code == CC_OK && at < f->n;) {
        size_t n = CCI_MIN(f->n - at, (size_t)CCI_PROTO_MAX_DATA);
        code = cci_file_send_frame(&io, CCI_MSG_DATA, call->id, f->bytes + at, n, wait, err);
        at += n;
    }
    w.len = 0;
    cci_proto_put32(&w, 0);
    cci_proto_put_str(&w, "");
    if (code == CC_OK)
        code = cci_file_send_frame(&io, CCI_MSG_END, call->id, small, w.len, wait, err);
    cci_stream_io_end(&io);
    return code;
}

/* Sends the contents once the agent has opened the file. A connection that breaks meanwhile is most likely the agent
 * giving up (a full disk): its reply says why, so that is waited for in any case but our own giving up. */
static cc_error_code cci_file_send_contents(struct cci_call *call, const struct cci_file_writing *f,
                                            const struct cci_wait *wait, cc_error *err)
{
    struct cci_control *ctl = call->control;
    struct cci_stream *s = NULL;
    cc_error_code code = cci_call_wait_for(call, cci_file_is_invited, wait, "a file of the guest", err);
    if (code || !cci_call_is_invited(call))
        return code;
    code = ctl->dial(ctl->dial_ctx, CCI_PROTO_PORT, &s, err);
    if (code)
        return code;
    code = cci_file_send(call, s, f, wait, err);
    if (code == CC_OK || code == CC_ERR_IO) {
        cci_error_release(err);
        /* Not closed before the reply: a close could overtake the data. */
        code = cci_call_wait(call, wait, "a file of the guest", err);
    }
    cci_stream_close(s);
    return code;
}

/* As os.WriteFile: creates with exactly `mode` (07777), or truncates and leaves the mode alone. */
static cc_error_code cci_file_write(struct cci_control *ctl, const char *path, const void *bytes, size_t n,
                                    uint32_t mode, const struct cci_wait *wait, cc_error *err)
{
    struct cci_file_writing f = {path, bytes, n, mode, n > CCI_PROTO_INLINE};
    struct cci_call call;
    cci_call_begin(&call, ctl);
    call.channels = f.streamed ? 1u << CCI_CHANNEL_FILE : 0u;
    cc_error_code code = cci_call_send(&call, CCI_MSG_WRITE_FILE, cci_file_put_write, &f, err);
    if (code == CC_OK && f.streamed)
        code = cci_file_send_contents(&call, &f, wait, err);
    if (code == CC_OK)
        code = cci_call_wait(&call, wait, "a file of the guest", err);
    if (code == CC_OK)
        code = cci_call_check(&call, path, err);
    cci_call_end(&call);
    return code;
}

#endif
