/*
 * COPY_IN and COPY_OUT: trees, as one stream.
 *
 * Each copy has a connection of its own and a worker that does blocking I/O on it; the work itself is the library's
 * (src/control/xfer_out.h, xfer_in.h). The loop only hands the connection over, and answers at the end. A host that
 * gives up closes its end, or says DETACH: the connection is shut down, and the worker finds out.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/control/xfer_in.h"
#include "../../src/control/xfer_out.h"

struct copy {
    struct request req;
    struct work work;
    bool out, working, given_up;
    uint32_t flags;
    int stream;
    int err;
    char *path, *name; /* name: COPY_IN's source */
    char *what;        /* what failed */
};

static struct copy *copy_of(struct work *w)
{
    return (struct copy *)((char *)w - offsetof(struct copy, work));
}

static void copy_free(struct copy *c)
{
    if (c->stream >= 0)
        close(c->stream);
    free(c->path);
    free(c->name);
    free(c->what);
    request_free(&c->req);
}

static int no_step(void *ctx)
{
    (void)ctx;
    return 0;
}

/* ---- out ------------------------------------------------------------------------------------- */

static int send_some(void *ctx, const uint8_t *p, size_t n)
{
    return -stream_send(((struct copy *)ctx)->stream, p, n);
}

static void copy_out(struct copy *c)
{
    struct cci_xfer_out *t = must(calloc(1, sizeof *t));
    size_t n = strlen(c->path);
    t->send = send_some;
    t->step = no_step;
    t->ctx = c;
    bool follow = c->flags & CCI_COPY_CONTENTS || (n && c->path[n - 1] == '/');
    int r = cci_xfer_send(t, c->path, follow);
    if (t->buf)
        cci_xfer_put_end(t, -r, r && t->path.p ? (const char *)t->path.p : "");
    cci_xfer_out_free(t);
    free(t);
}

/* ---- in -------------------------------------------------------------------------------------- */

bool stream_receive(int fd, uint8_t *p, size_t n)
{
    while (n) {
        ssize_t k = recv(fd, p, n, MSG_WAITALL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static int take_frames(struct copy *c, struct cci_xfer_in *t, uint8_t *buf)
{
    uint8_t head[CCI_PROTO_HEADER];
    int r = 0;
    while (!r && !t->ended) {
        struct cci_proto_header h;
        if (!stream_receive(c->stream, head, sizeof head))
            return -ECONNRESET;
        h = cci_proto_load_header(head);
        if (h.length > CCI_PROTO_MAX_DATA)
            return -EPROTO;
        if (!stream_receive(c->stream, buf, h.length))
            return -ECONNRESET;
        r = cci_xfer_frame(t, h.type, buf, h.length);
    }
    return r ? r : -t->sys_errno;
}

static void copy_in(struct copy *c)
{
    struct cci_xfer_in *t = must(malloc(sizeof *t));
    uint8_t *buf = must(malloc(CCI_PROTO_MAX_DATA));
    cci_xfer_in_init(t);
    t->to = c->path;
    t->base = c->name;
    t->contents = c->flags & CCI_COPY_CONTENTS;
    t->keep_owner = c->flags & CCI_COPY_KEEP_OWNER;
    t->step = no_step;
    c->err = -take_frames(c, t, buf);
    if (c->err && t->path.p)
        c->what = join((const char *)t->path.p, "", "");
    cci_xfer_in_free(t);
    free(t);
    free(buf);
}

/* ---- their course ---------------------------------------------------------------------------- */

static void run(struct work *w)
{
    struct copy *c = copy_of(w);
    if (c->out)
        copy_out(c);
    else
        copy_in(c);
    shutdown(c->stream, SHUT_RDWR);
}

static void done(struct work *w)
{
    struct copy *c = copy_of(w);
    if (!c->out && !c->given_up)
        reply(c->req.id, c->err, c->what ? c->what : "");
    copy_free(c);
}

static void attached(struct request *r, int fd)
{
    struct copy *c = (struct copy *)r; /* req is the first member */
    c->stream = fd;
    c->working = true;
    c->work.run = run;
    c->work.done = done;
    work_start(&c->work);
}

static void detach(struct request *r)
{
    struct copy *c = (struct copy *)r;
    c->given_up = true;
    if (c->working)
        shutdown(c->stream, SHUT_RDWR);
    else
        copy_free(c);
}

void copy_request(uint64_t id, struct cci_proto_reader *in, bool out)
{
    const char *path = get_cstr(in), *name = out ? "" : get_cstr(in);
    uint32_t flags = (uint32_t)cci_proto_get64(in);
    struct copy *c;
    if (!path || !name || in->bad) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (work_too_much() || requests_too_many()) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    c = (struct copy *)request_new(sizeof *c, id);
    c->req.detach = detach;
    c->req.attached = attached;
    c->out = out;
    c->flags = flags;
    c->stream = -1;
    c->path = join(path, "", "");
    c->name = join(name, "", "");
    announce(id, CCI_CHANNEL_FILE, 0);
    if (out)
        reply(id, 0, "");
}
