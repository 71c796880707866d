/*
 * Connections: frames in and out.
 *
 * The control connection is read in large gulps; a new connection and one that carries bytes to us
 * are read frame by frame, header first, so that nothing of the next frame has to be kept. What a
 * frame means is the business of request.c.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_IN = 8192, ATTACH_SIZE = 12, GULPS_PER_TURN = 8 };

static unsigned conn_count;
static struct conn *control;
static struct cci_proto_writer frame; /* the frame being written to the control connection */
static uint32_t frame_type;
static uint64_t frame_id;

static void conn_ready(struct source *s, uint32_t events);

/* ---- connections --------------------------------------------------------------------------- */

struct conn *conn_new(int fd, enum conn_kind kind, uint32_t events)
{
    struct conn *c = must(calloc(1, sizeof *c));
    c->kind = kind;
    conn_count++;
    if (kind == CONN_CONTROL)
        control = c;
    if (loop_add(&c->src, fd, events, conn_ready))
        die("epoll", errno);
    return c;
}

bool conn_has_control(void)
{
    return control != NULL;
}

bool conn_too_many(void)
{
    return conn_count >= MAX_CONNS;
}

void conn_close(struct conn *c)
{
    if (c->kind == CONN_DEAD)
        return;
    if (c->kind == CONN_CONTROL)
        end_agent(); /* the host is gone, or its library closed us */
    c->kind = CONN_DEAD;
    conn_count--;
    loop_close(&c->src);
    free(c->in);
    free(c->out);
    loop_free(c);
}

ssize_t conn_send(struct conn *c, const uint8_t *p, size_t n)
{
    ssize_t sent;
    do {
        sent = send(c->src.fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN ? -1 : -2;
}

/* Sends what is queued on the control connection. */
static void flush(struct conn *c)
{
    while (!c->connecting && c->out_len) {
        ssize_t n = conn_send(c, c->out + c->out_off, c->out_len);
        if (n == -2)
            end_agent();
        if (n < 0)
            break;
        c->out_off += (size_t)n;
        c->out_len -= (size_t)n;
    }
    if (!c->out_len)
        c->out_off = 0;
    /* A host that does not read its replies is not read either. */
    loop_watch(&c->src, (c->out_len < OUT_HIGH ? EPOLLIN : 0u) | (c->out_len || c->connecting ? EPOLLOUT : 0u));
}

struct cci_proto_writer *frame_begin(uint32_t type, uint64_t id, size_t need)
{
    struct conn *c = control;
    size_t end = c->out_off + c->out_len;
    need += CCI_PROTO_HEADER;
    if (end + need > c->out_cap) {
        if (c->out_len)
            memmove(c->out, c->out + c->out_off, c->out_len);
        c->out_off = 0;
        end = c->out_len;
    }
    if (end + need > c->out_cap) {
        size_t cap = c->out_cap * 2 > end + need ? c->out_cap * 2 : end + need + 1024;
        c->out = must(realloc(c->out, cap));
        c->out_cap = cap;
    }
    frame_type = type;
    frame_id = id;
    frame.at = c->out + end + CCI_PROTO_HEADER;
    frame.cap = need - CCI_PROTO_HEADER;
    frame.len = 0;
    return &frame;
}

void frame_end(void)
{
    if (frame.len > frame.cap)
        die("reply larger than its estimate", 0);
    cci_proto_store_header(frame.at - CCI_PROTO_HEADER, (uint32_t)frame.len, frame_type, frame_id);
    control->out_len += CCI_PROTO_HEADER + frame.len;
    flush(control);
}

struct cci_proto_writer *reply_begin(uint64_t id, int err, const char *what, size_t extra)
{
    struct cci_proto_writer *w = frame_begin(CCI_MSG_REPLY, id, 8 + strlen(what) + extra);
    cci_proto_put32(w, (uint32_t)err);
    cci_proto_put_str(w, what);
    return w;
}

void reply(uint64_t id, int err, const char *what)
{
    reply_begin(id, err, what, 0);
    frame_end();
}

void announce(uint64_t id, uint32_t channel, uint64_t size)
{
    struct cci_proto_writer *w = frame_begin(CCI_MSG_STREAM, id, 12);
    cci_proto_put32(w, channel);
    cci_proto_put64(w, size);
    frame_end();
}

void conn_hello(void)
{
    const char *what = agent.boot_what ? agent.boot_what : "";
    struct cci_proto_writer *w = frame_begin(CCI_MSG_HELLO, 0, 28 + strlen(what));
    cci_proto_put32(w, CCI_PROTO_MAGIC);
    cci_proto_put32(w, CCI_PROTO_VERSION);
    cci_proto_put32(w, CCI_PROTO_OLDEST);
    cci_proto_put64(w, 0);
    cci_proto_put32(w, (uint32_t)agent.boot_errno);
    cci_proto_put_str(w, what);
    frame_end();
}

char *get_cstr(struct cci_proto_reader *in)
{
    size_t n;
    /* The length before the string has been read: the string moves over it, and has room for NUL. */
    char *p = (char *)(uintptr_t)cci_proto_get_bytes(in, &n);
    static char empty[1];
    if (in->bad || n == 0)
        return in->bad ? NULL : empty;
    memmove(p - 4, p, n);
    p[n - 4] = 0;
    return strlen(p - 4) == n ? p - 4 : NULL;
}

/* ---- receiving ----------------------------------------------------------------------------- */

static uint32_t frame_limit(const struct conn *c)
{
    if (c->kind == CONN_CONTROL)
        return CCI_PROTO_MAX_REQUEST;
    return c->kind == CONN_NEW ? ATTACH_SIZE : CCI_PROTO_MAX_DATA;
}

/* Bytes to read next: a gulp for control, else exactly the rest of the header or of the frame. */
static size_t want(struct conn *c)
{
    size_t need = CCI_PROTO_HEADER;
    if (c->in_len >= CCI_PROTO_HEADER)
        need += cci_le32(c->in);
    if (c->kind == CONN_CONTROL && need < FIRST_IN)
        need = FIRST_IN;
    if (need > c->in_cap) {
        c->in = must(realloc(c->in, need));
        c->in_cap = need;
    }
    return (c->kind == CONN_CONTROL ? c->in_cap : need) - c->in_len;
}

/* Handles the complete frames received. False when the connection is to be closed. */
static bool consume(struct conn *c)
{
    size_t used = 0;
    while (c->in_len - used >= CCI_PROTO_HEADER) {
        struct cci_proto_header h = cci_proto_load_header(c->in + used);
        struct cci_proto_reader in = {c->in + used + CCI_PROTO_HEADER, h.length, false};
        bool keep = true;
        if (h.length > frame_limit(c))
            return false;
        if (c->in_len - used - CCI_PROTO_HEADER < h.length)
            break;
        used += CCI_PROTO_HEADER + h.length;
        if (c->kind == CONN_CONTROL)
            request_received(h.type, h.id, &in);
        else if (c->kind == CONN_NEW)
            keep = h.type == CCI_MSG_ATTACH && request_attach(c, &in);
        else
            keep = request_fill(c, h.type, &in);
        if (c->kind == CONN_DEAD)
            return true;
        if (!keep)
            return false;
    }
    c->in_len -= used;
    if (used && c->in_len)
        memmove(c->in, c->in + used, c->in_len);
    return true;
}

static void receive(struct conn *c)
{
    for (int turn = 0; turn < GULPS_PER_TURN; turn++) {
        size_t room = want(c);
        ssize_t n = recv(c->src.fd, c->in + c->in_len, room, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            request_cut_off(c);
            conn_close(c);
            return;
        }
        c->in_len += (size_t)n;
        if (!consume(c)) {
            request_cut_off(c);
            conn_close(c);
            return;
        }
        if (c->kind == CONN_DEAD || c->kind == CONN_FEED || c->kind == CONN_INTAKE)
            return;
        if ((size_t)n < room || (c->kind == CONN_CONTROL && c->out_len >= OUT_HIGH))
            return;
    }
}

/* Our dial was answered, one way or the other. */
static void connected(struct conn *c)
{
    int err = 0;
    socklen_t n = sizeof err;
    getsockopt(c->src.fd, SOL_SOCKET, SO_ERROR, &err, &n);
    if (err)
        die("the host does not take the agent's connection", err);
    c->connecting = false;
    flush(c);
}

static void conn_ready(struct source *s, uint32_t events)
{
    struct conn *c = (struct conn *)s; /* src is the first member */
    if (c->kind == CONN_FEED) {
        if (c->feed)
            feed_conn_ready(c->feed, events);
        return;
    }
    if (c->kind == CONN_INTAKE) {
        if (c->intake)
            intake_conn_ready(c->intake, events);
        return;
    }
    if (c->connecting)
        connected(c);
    else if (events & EPOLLOUT)
        flush(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(c);
}
