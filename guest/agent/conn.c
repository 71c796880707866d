/*
 * Connections and requests.
 *
 * The control connection is read in large gulps; a new connection and one that carries bytes to us
 * are read frame by frame, header first, so that nothing of the next frame has to be kept.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_IN = 8192, ATTACH_SIZE = 12, END_MAX = 4096, GULPS_PER_TURN = 8 };

struct request *requests;
static unsigned request_count, conn_count;
static struct conn *control;
static struct cci_proto_writer frame; /* the frame being written to the control connection */
static uint32_t frame_type;
static uint64_t frame_id;

static void conn_ready(struct source *s, uint32_t events);

/* ---- requests ------------------------------------------------------------------------------ */

struct request *request_new(size_t size, uint64_t id)
{
    struct request *r = must(calloc(1, size));
    r->id = id;
    r->next = requests;
    requests = r;
    request_count++;
    return r;
}

bool requests_too_many(void)
{
    return request_count >= MAX_REQUESTS;
}

struct request *request_find(uint64_t id)
{
    struct request *r = requests;
    while (r && r->id != id)
        r = r->next;
    return r;
}

void request_free(struct request *r)
{
    struct request **at = &requests;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    request_count--;
    for (int i = 0; i < CCI_CHANNELS; i++)
        feed_free(r->feeds[i]);
    if (r->sink) {
        r->sink->request = NULL;
        conn_close(r->sink);
    }
    intake_free(r->intake);
    loop_free(r);
}

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

/* ---- dispatch ------------------------------------------------------------------------------ */

static void kill_request(uint64_t id, struct cci_proto_reader *in)
{
    uint64_t target = cci_proto_get64(in);
    exec_kill(id, target, (int)cci_proto_get32(in));
}

static void detach_request(uint64_t id, struct cci_proto_reader *in)
{
    struct request *r = request_find(cci_proto_get64(in));
    if (r)
        r->detach(r);
    reply(id, 0, "");
}

static void ping(uint64_t id, struct cci_proto_reader *in)
{
    struct cci_proto_writer *w = reply_begin(id, 0, "", in->left < 4096 ? in->left : 4096);
    cci_proto_put_raw(w, in->at, in->left < 4096 ? in->left : 4096);
    frame_end();
}

static void dispatch(uint32_t type, uint64_t id, struct cci_proto_reader *in)
{
    if (request_find(id)) {
        reply(id, EEXIST, "request id in use");
        return;
    }
    if (request_count >= MAX_REQUESTS &&
        (type == CCI_MSG_EXEC || type == CCI_MSG_READ_FILE || type == CCI_MSG_WRITE_FILE)) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    switch (type) {
    case CCI_MSG_CONFIGURE:
        system_configure(id, in);
        break;
    case CCI_MSG_PING:
        ping(id, in);
        break;
    case CCI_MSG_EXEC:
        exec_request(id, in);
        break;
    case CCI_MSG_KILL:
        kill_request(id, in);
        break;
    case CCI_MSG_DETACH:
        detach_request(id, in);
        break;
    case CCI_MSG_READ_FILE:
        file_read(id, in);
        break;
    case CCI_MSG_WRITE_FILE:
        file_write(id, in);
        break;
    case CCI_MSG_RESIZE:
        exec_resize(id, in);
        break;
    case CCI_MSG_STOP:
        stop_request(id, in);
        break;
    case CCI_MSG_SHUTDOWN:
        system_shutdown(id);
        break;
    case CCI_MSG_MOUNT:
        mount_request(id, in);
        break;
    case CCI_MSG_READ_DIR:
        dir_read(id, in);
        break;
    case CCI_MSG_COPY_IN:
    case CCI_MSG_COPY_OUT:
        copy_request(id, in, type == CCI_MSG_COPY_OUT);
        break;
    case CCI_MSG_WATCH:
        watch_request(id, in);
        break;
    default:
        if (!path_request(type, id, in) && !handle_request(type, id, in))
            reply(id, ENOSYS, "request unknown to this agent");
        break;
    }
}

/* ATTACH: finds what the connection is for. False drops the connection. */
static bool attach(struct conn *c, struct cci_proto_reader *in)
{
    struct request *r = request_find(cci_proto_get64(in));
    uint32_t channel = cci_proto_get32(in);
    if (!r || in->bad || channel >= CCI_CHANNELS)
        return false;
    if (r->feeds[channel]) {
        if (r->feeds[channel]->state != FEED_ANNOUNCED)
            return false;
        c->kind = CONN_FEED;
        feed_attach(r->feeds[channel], c);
        return true;
    }
    if (channel == CCI_CHANNEL_FILE && r->attached) {
        void (*attached)(struct request *, int) = r->attached;
        int fd = loop_release(&c->src);
        conn_close(c);
        fcntl(fd, F_SETFL, 0);
        r->attached = NULL; /* once */
        attached(r, fd);
        return true;
    }
    if (channel == CCI_CHANNEL_STDIN && r->intake) {
        if (intake_attached(r->intake))
            return false;
        c->kind = CONN_INTAKE;
        intake_attach(r->intake, c);
        return true;
    }
    if (channel != CCI_CHANNEL_FILE || !r->data || r->sink)
        return false;
    c->kind = CONN_SINK;
    c->request = r;
    r->sink = c;
    return true;
}

/* A frame for the request this connection fills. False when the connection has served its turn. */
static bool sink_frame(struct conn *c, uint32_t type, struct cci_proto_reader *in)
{
    struct request *r = c->request;
    if (type == CCI_MSG_DATA) {
        if (in->left)
            r->data(r, in->at, in->left, 0);
        return c->kind != CONN_DEAD;
    }
    r->sink = NULL;
    c->request = NULL;
    r->data(r, NULL, 0, type == CCI_MSG_END ? (int)cci_proto_get32(in) : EPROTO);
    return false;
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
            dispatch(h.type, h.id, &in);
        else if (c->kind == CONN_NEW)
            keep = h.type == CCI_MSG_ATTACH && attach(c, &in);
        else
            keep = sink_frame(c, h.type, &in);
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

static void lost(struct conn *c)
{
    struct request *r = c->request;
    if (r) {
        c->request = NULL;
        r->sink = NULL;
        r->data(r, NULL, 0, ECONNRESET);
    }
    conn_close(c);
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
            lost(c);
            return;
        }
        c->in_len += (size_t)n;
        if (!consume(c)) {
            lost(c);
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
