/*
 * control/copy.h - files and trees between host and guest, as one stream.
 *
 * The agent opens the stream's connection to the thread that makes the call, and both ends work on it directly:
 * xfer_out.h on the side that reads, xfer_in.h on the side that writes. Memory is one buffer and the path at work.
 */
#ifndef CCI_CONTROL_COPY_H
#define CCI_CONTROL_COPY_H

#include "../base/stream_io.h"
#include "path.h"
#include "xfer_in.h"
#include "xfer_out.h"

struct cci_copy_options {
    bool keep_owner;
    uint64_t max_bytes, max_entries; /* what a guest may send; 0: no limit */
    void (*progress)(void *ctx, uint64_t bytes, uint64_t entries, uint64_t skipped, const char *path);
    void *ctx;
};

#define CCI_COPY_PROGRESS_NS 50000000u

struct cci_copy {
    struct cci_call call;
    struct cci_path_request request;
    struct cci_stream *stream; /* NULL before it is dialled */
    bool attached;             /* the agent knows what it is for */
    struct cci_stream_io io;
    const struct cci_copy_options *options;
    const struct cci_wait *wait;
    struct cci_xfer_out *out; /* one of the two */
    struct cci_xfer_in *in;
    uint64_t told_at;   /* when progress was told last */
    cc_error_code code; /* why the stream ended early, with *err filled; CC_OK: it did not */
    cc_error *err;
};

/* ---- What both directions share --------------------------------------------------------------------------- */

static void cci_copy_tell(struct cci_copy *c)
{
    const struct cci_copy_options *o = c->options;
    if (!o->progress)
        return;
    if (c->out)
        o->progress(o->ctx, c->out->bytes, c->out->entries, c->out->skipped,
                    c->out->path.n ? (char *)c->out->path.p : "");
    else
        o->progress(o->ctx, c->in->bytes, c->in->entries, 0, c->in->path.n ? (char *)c->in->path.p : "");
}

/* Now and then: tells how far it is, and looks whether it is to end. */
static int cci_copy_step(void *ctx)
{
    struct cci_copy *c = ctx;
    uint64_t now = cci_os_now();
    if (cci_cancel_is_set(c->wait->cancel))
        c->code = cci_fail(c->err, CC_ERR_CANCELLED, NULL, "cancelled while copying");
    else if (now >= c->wait->deadline)
        c->code = cci_fail(c->err, CC_ERR_TIMEOUT, NULL, "timed out while copying");
    if (c->code)
        return -ECANCELED;
    if (now - c->told_at >= CCI_COPY_PROGRESS_NS) {
        c->told_at = now;
        cci_copy_tell(c);
    }
    return 0;
}

static bool cci_copy_is_invited(void *ctx)
{
    const struct cci_call *call = ctx;
    return call->invited || call->failed || (call->replied && call->sys_errno);
}

/* Sends the request, and opens the stream once the agent is ready. *ready: it is; else the reply says why not. */
static cc_error_code cci_copy_open(struct cci_copy *c, struct cci_control *ctl, bool *ready)
{
    uint8_t attach[CCI_PROTO_HEADER + 12];
    struct cci_proto_writer w = {attach + CCI_PROTO_HEADER, 12, 0};
    size_t done;
    *ready = false;
    c->call.channels = 1u << CCI_CHANNEL_FILE;
    cc_error_code code = cci_call_send(&c->call, c->request.type, cci_path_put, &c->request, c->err);
    if (code == CC_OK)
        code = cci_call_wait_for(&c->call, cci_copy_is_invited, c->wait, "a copy to begin", c->err);
    if (code || !cci_call_is_invited(&c->call))
        return code;
    code = ctl->dial(ctl->dial_ctx, CCI_PROTO_PORT, &c->stream, c->err);
    if (code)
        return code;
    cci_stream_io_begin(&c->io, c->stream);
    cci_proto_store_header(attach, 12, CCI_MSG_ATTACH, c->call.id);
    cci_proto_put64(&w, c->call.id);
    cci_proto_put32(&w, CCI_CHANNEL_FILE);
    *ready = true;
    code = cci_stream_io_write(&c->io, attach, sizeof(attach), &done, c->wait, c->err);
    c->attached = code == CC_OK;
    return code;
}

static void cci_copy_close(struct cci_copy *c)
{
    if (c->stream) {
        cci_stream_io_end(&c->io);
        cci_stream_close(c->stream);
    }
    if (!c->attached)
        cci_call_forgo(&c->call);
    cci_call_end(&c->call);
}

/* An error about `top`, at `rest` below it. */
static cc_error_code cci_copy_fail(cc_error *err, int sys_errno, const char *top, const char *rest)
{
    const char *text = cci_errno_text(sys_errno);
    while (*rest == '/')
        rest++;
    if (!*rest)
        return cci_fail_errno(err, CC_ERR_IO, sys_errno, top, "%s", text);
    return cci_fail_errno(err, CC_ERR_IO, sys_errno, top, "%s: %s", rest, text);
}

/* The last element of a path into `name`, and whether it is none that a copy could have, so that the contents are
 * meant. */
static bool cci_copy_base(const char *path, char name[256])
{
    size_t end = strlen(path), start;
    while (end > 0 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/';)
        start--;
    bool is_name = cci_xfer_is_name((const uint8_t *)path + start, end - start);
    (void)snprintf(name, 256, "%.*s", is_name ? (int)(end - start) : 0, path + start);
    return is_name || end - start > 255;
}

static bool cci_copy_ends_in_slash(const char *path)
{
    size_t n = strlen(path);
    return n > 0 && path[n - 1] == '/';
}

/* ---- Host to guest ---------------------------------------------------------------------------------------- */

static int cci_copy_send(void *ctx, const uint8_t *p, size_t n)
{
    struct cci_copy *c = ctx;
    size_t done;
    c->code = cci_stream_io_write(&c->io, p, n, &done, c->wait, c->err);
    return c->code ? -ECANCELED : 0;
}

/* What the agent says in the end. */
static cc_error_code cci_copy_reply(struct cci_copy *c)
{
    cc_error_code code = cci_call_wait(&c->call, c->wait, "a copy to end", c->err);
    if (code || c->call.sys_errno == 0)
        return code;
    return cci_copy_fail(c->err, c->call.sys_errno, c->request.path, c->call.what);
}

static cc_error_code cci_copy_in_run(struct cci_copy *c, struct cci_control *ctl, const char *from, bool follow)
{
    bool ready;
    cc_error_code code = cci_copy_open(c, ctl, &ready);
    if (code == CC_OK && ready) {
        int r = cci_xfer_send(c->out, from, follow);
        if (r == 0)
            r = cci_xfer_put_end(c->out, 0, "");
        if (r && !c->code)
            return r == -ENOMEM ? cci_fail_nomem(c->err)
                                : cci_copy_fail(c->err, -r, from, c->out->path.n ? (char *)c->out->path.p : "");
        code = c->code;
    }
    /* A connection that breaks is most likely the agent giving up: its reply says why. */
    if (code && code != CC_ERR_IO)
        return code;
    cci_error_release(c->err);
    code = cci_copy_reply(c);
    if (code == CC_OK)
        cci_copy_tell(c);
    return code;
}

/* Copies `from`, of this host, to `to` in the guest. */
static cc_error_code cci_copy_in(struct cci_control *ctl, const char *from, const char *to,
                                 const struct cci_copy_options *options, const struct cci_wait *wait, cc_error *err)
{
    char name[256];
    bool contents = !cci_copy_base(from, name);
    struct cci_copy c = {.options = options, .wait = wait, .err = err};
    c.request = (struct cci_path_request){
        CCI_MSG_COPY_IN,
        to,
        name,
        1,
        {(options->keep_owner ? CCI_COPY_KEEP_OWNER : 0u) | (contents ? CCI_COPY_CONTENTS : 0u)}};
    c.out = cci_mem_zalloc(1, sizeof(*c.out));
    if (!c.out)
        return cci_fail_nomem(err);
    c.out->send = cci_copy_send;
    c.out->step = cci_copy_step;
    c.out->ctx = &c;
    cci_call_begin(&c.call, ctl);
    cc_error_code code = cci_copy_in_run(&c, ctl, from, contents || cci_copy_ends_in_slash(from));
    cci_copy_close(&c);
    cci_xfer_out_free(c.out);
    cci_mem_free(c.out);
    return code;
}

/* ---- Guest to host ---------------------------------------------------------------------------------------- */

/* Takes the complete frames in buf apart; *used of its bytes. */
static int cci_copy_take(struct cci_copy *c, const uint8_t *p, size_t n, size_t *used)
{
    int r = 0;
    *used = 0;
    while (r == 0 && !c->in->ended && n - *used >= CCI_PROTO_HEADER) {
        struct cci_proto_header h = cci_proto_load_header(p + *used);
        if (h.length > CCI_PROTO_MAX_DATA)
            return -EPROTO;
        if (n - *used - CCI_PROTO_HEADER < h.length)
            break;
        r = cci_xfer_frame(c->in, h.type, p + *used + CCI_PROTO_HEADER, h.length);
        *used += CCI_PROTO_HEADER + h.length;
    }
    return r;
}

/* Why our side failed; r is negative. */
static cc_error_code cci_copy_out_fail(struct cci_copy *c, int r)
{
    const struct cci_xfer_in *t = c->in;
    if (c->code)
        return c->code;
    if (r == -ENOMEM)
        return cci_fail_nomem(c->err);
    if (r == -EPROTO)
        return cci_fail(c->err, CC_ERR_IO, c->request.path, "the guest's agent sent a copy that breaks the protocol");
    if (t->over_limit)
        return cci_fail_errno(c->err, CC_ERR_IO, EDQUOT, t->to, "the guest sent more than the limits of the copy");
    return cci_copy_fail(c->err, -r, t->to, t->path.n ? (char *)t->path.p : "");
}

static cc_error_code cci_copy_receive(struct cci_copy *c)
{
    size_t n = 0, got, used;
    cc_error_code code = CC_OK;
    uint8_t *buf = cci_mem_alloc(CCI_XFER_BUFFER);
    if (!buf)
        return cci_fail_nomem(c->err);
    while (code == CC_OK && !c->in->ended) {
        code = cci_stream_io_read(&c->io, buf + n, CCI_XFER_BUFFER - n, &got, c->wait, c->err);
        if (code == CC_ERR_IO || (code == CC_OK && got == 0))
            code = cci_control_lost(c->call.control, EIO, c->request.path, CCI_COLLECT_BROKE, c->wait, c->err);
        if (code)
            break;
        n += got;
        int r = cci_copy_take(c, buf, n, &used);
        if (r)
            code = cci_copy_out_fail(c, r);
        n -= used;
        memmove(buf, buf + used, n);
    }
    cci_mem_free(buf);
    if (code == CC_OK && c->in->sys_errno) {
        cci_error_make_printable(c->in->what);
        code = cci_copy_fail(c->err, c->in->sys_errno, c->request.path, c->in->what);
    }
    return code;
}

/* Copies `from`, of the guest, to `to` on this host. */
static cc_error_code cci_copy_out(struct cci_control *ctl, const char *from, const char *to,
                                  const struct cci_copy_options *options, const struct cci_wait *wait, cc_error *err)
{
    char name[256];
    bool ready, contents = !cci_copy_base(from, name);
    struct cci_copy c = {.options = options, .wait = wait, .err = err};
    c.request = (struct cci_path_request){CCI_MSG_COPY_OUT, from, NULL, 1, {contents ? CCI_COPY_CONTENTS : 0u}};
    c.in = cci_mem_alloc(sizeof(*c.in));
    if (!c.in)
        return cci_fail_nomem(err);
    cci_xfer_in_init(c.in);
    c.in->to = to;
    c.in->base = name;
    c.in->contents = contents;
    c.in->keep_owner = options->keep_owner;
    c.in->max_bytes = options->max_bytes;
    c.in->max_entries = options->max_entries;
    c.in->step = cci_copy_step;
    c.in->ctx = &c;
    cci_call_begin(&c.call, ctl);
    cc_error_code code = cci_copy_open(&c, ctl, &ready);
    if (code == CC_OK)
        code = ready ? cci_copy_receive(&c) : cci_copy_reply(&c);
    if (code == CC_OK)
        cci_copy_tell(&c);
    cci_copy_close(&c);
    cci_xfer_in_free(c.in);
    cci_mem_free(c.in);
    return code;
}

#endif
