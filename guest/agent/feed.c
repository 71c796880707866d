/*
 * A feed carries bytes from a pipe or file towards the host.
 *
 *   GATHER     reads into buf; at end of file it is DONE and buf travels in the reply
 *   ANNOUNCED  (also the first state of a pipe, without the announcement) more than `limit` bytes came: STREAM has been
 * sent, nothing is read (so the writer blocks on its pipe) until the host attaches ATTACHED   buf holds one frame at a
 * time; END after the last TAIL       reads and keeps the last CCI_PROTO_TAIL bytes; what is there when the command
 * ends is part of the reply, and the rest is dropped DROP       the host does not want it: read and forget, so that the
 * writer is not blocked DONE       nothing more will be read
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* QUIET: epoll reports a hang-up whatever one asks for; edge-triggered, it does so once. */
enum { FRAMES_PER_TURN = 16 };
#define QUIET EPOLLET

/* Where a read goes whose size is not known before: most outputs are far smaller than they may be. */
static uint8_t scratch[CCI_PROTO_INLINE + 1];

static void feed_ready(struct source *s, uint32_t events);

struct feed *feed_new(struct request *r, uint32_t channel, int fd, bool pollable, size_t limit,
                      void (*done)(struct request *))
{
    struct feed *f = must(calloc(1, sizeof *f));
    f->src.fd = fd;
    f->request = r;
    f->channel = channel;
    f->pollable = pollable;
    f->limit = limit;
    f->done = done;
    r->feeds[channel] = f;
    if (pollable && loop_add(&f->src, fd, EPOLLIN, feed_ready))
        f->pollable = false;
    return f;
}

/* read, where a terminal whose other side is closed is at its end. */
static ssize_t take(struct feed *f, uint8_t *p, size_t n)
{
    ssize_t k;
    do {
        k = read(f->src.fd, p, n);
    } while (k < 0 && errno == EINTR);
    return k < 0 && errno == EIO && f->tty ? 0 : k;
}

static void finish(struct feed *f, int err)
{
    if (f->state == FEED_DONE)
        return;
    f->state = FEED_DONE;
    f->err = err;
    loop_close(&f->src);
    f->done(f->request);
}

static void grow(struct feed *f, size_t want)
{
    if (want <= f->cap)
        return;
    f->buf = must(realloc(f->buf, CCI_PROTO_HEADER + want));
    f->cap = want;
}

static void keep(struct feed *f, const uint8_t *p, size_t n)
{
    if (f->len + n > f->cap)
        grow(f, f->len ? (f->len + n) * 2 : n);
    memcpy(f->buf + CCI_PROTO_HEADER + f->len, p, n);
    f->len += n;
}

/* Reads until the end, the limit, or nothing more for now. */
static void gather(struct feed *f)
{
    for (;;) {
        /* One byte beyond the limit tells "exactly full" from "more to come". */
        size_t room = f->limit + 1 - f->len;
        ssize_t n = take(f, scratch, room);
        if (n < 0 && errno == EAGAIN && f->pollable)
            return; /* epoll says when there is more */
        if (n == 0 && f->fifo && !f->len && fifo_is_new(f->src.fd))
            return;
        if (n <= 0) {
            finish(f, n < 0 ? errno : 0);
            return;
        }
        keep(f, scratch, (size_t)n);
        if (f->len > f->limit) {
            loop_watch(&f->src, QUIET);
            f->state = FEED_ANNOUNCED;
            announce(f->request->id, f->channel, f->size);
            f->done(f->request);
            return;
        }
        /* A short read of a pipe: most likely drained. */
        if ((size_t)n < room && f->pollable)
            return;
    }
}

static void drop(struct feed *f)
{
    for (int turn = 0; turn < FRAMES_PER_TURN; turn++) {
        ssize_t n = take(f, scratch, sizeof scratch);
        if (n < 0 && errno == EAGAIN && f->pollable)
            break;
        if (n <= 0 || !f->pollable) {
            finish(f, 0);
            return;
        }
    }
    loop_watch(&f->src, EPOLLIN);
}

/* Keeps the end of what there is: a ring that begins at `oldest` once it is full. */
static void keep_tail(struct feed *f, const uint8_t *p, size_t n)
{
    size_t first = n < CCI_PROTO_TAIL - f->len ? n : CCI_PROTO_TAIL - f->len;
    if (first)
        keep(f, p, first);
    for (p += first, n -= first; n;) {
        size_t k = n < CCI_PROTO_TAIL - f->oldest ? n : CCI_PROTO_TAIL - f->oldest;
        memcpy(f->buf + CCI_PROTO_HEADER + f->oldest, p, k);
        f->oldest = (f->oldest + k) % CCI_PROTO_TAIL;
        p += k;
        n -= k;
    }
}

static void tail(struct feed *f)
{
    for (int turn = 0; turn < FRAMES_PER_TURN; turn++) {
        ssize_t n = take(f, scratch, CCI_PROTO_TAIL);
        if (n < 0 && errno == EAGAIN && f->pollable)
            return;
        if (n <= 0) {
            finish(f, 0);
            return;
        }
        keep_tail(f, scratch, (size_t)n);
        if (n < CCI_PROTO_TAIL)
            return; /* most likely all there is */
    }
}

static void stage(struct feed *f, uint32_t type, size_t len)
{
    cci_proto_store_header(f->buf, (uint32_t)len, type, f->request->id);
    f->staged = CCI_PROTO_HEADER + len;
    f->sent = 0;
}

static void stage_end(struct feed *f, int err)
{
    struct cci_proto_writer w = {f->buf + CCI_PROTO_HEADER, f->cap, 0};
    cci_proto_put32(&w, (uint32_t)err);
    cci_proto_put_str(&w, err ? "read" : "");
    stage(f, CCI_MSG_END, w.len);
    f->ended = true;
}

/* The connection is finished with, for better or worse. */
static void part(struct feed *f)
{
    struct conn *c = f->conn;
    f->conn = NULL;
    if (c) {
        c->feed = NULL;
        conn_close(c);
    }
    finish(f, 0);
}

/* Reads the next frame into buf. False when there is nothing to send now. */
static bool refill(struct feed *f)
{
    ssize_t n = take(f, f->buf + CCI_PROTO_HEADER, CCI_PROTO_MAX_DATA);
    if (n < 0 && errno == EAGAIN && f->pollable) {
        loop_watch(&f->src, EPOLLIN);
        loop_watch(&f->conn->src, EPOLLIN | EPOLLRDHUP);
        return false;
    }
    if (n > 0)
        stage(f, CCI_MSG_DATA, (size_t)n);
    else
        stage_end(f, n < 0 ? errno : 0);
    return true;
}

static void pump(struct feed *f)
{
    for (int turn = 0; turn < FRAMES_PER_TURN; turn++) {
        ssize_t n;
        if (f->sent == f->staged) {
            if (f->ended) {
                part(f);
                return;
            }
            if (!refill(f))
                return;
        }
        n = conn_send(f->conn, f->buf + f->sent, f->staged - f->sent);
        if (n == -2) {
            part(f);
            return;
        }
        if (n < 0)
            break;
        f->sent += (size_t)n;
    }
    /* Either the connection is full or others deserve a turn: it will say when it can take more. */
    loop_watch(&f->src, QUIET);
    loop_watch(&f->conn->src, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
}

static void feed_ready(struct source *s, uint32_t events)
{
    struct feed *f = (struct feed *)s; /* src is the first member */
    (void)events;
    if (f->state == FEED_GATHER)
        gather(f);
    else if (f->state == FEED_ATTACHED)
        pump(f);
    else if (f->state == FEED_TAIL)
        tail(f);
    else if (f->state == FEED_DROP)
        drop(f);
}

void feed_start(struct feed *f)
{
    if (f->state == FEED_GATHER)
        gather(f);
    else if (f->state == FEED_TAIL)
        tail(f);
}

void feed_hold(struct feed *f)
{
    f->held = true;
    f->state = FEED_ANNOUNCED;
    loop_watch(&f->src, QUIET);
}

void feed_tail(struct feed *f)
{
    f->state = FEED_TAIL;
}

void feed_announce(struct feed *f)
{
    loop_watch(&f->src, QUIET);
    grow(f, CCI_PROTO_MAX_DATA);
    f->state = FEED_ANNOUNCED;
    announce(f->request->id, f->channel, 0);
}

bool feed_inline(const struct feed *f)
{
    return f->state == FEED_DONE && !f->ended;
}

bool feed_settled(const struct feed *f)
{
    return f->state != FEED_GATHER && f->state != FEED_DROP;
}

/* The host attached. What was gathered goes first, in frames of the permitted size. */
void feed_attach(struct feed *f, struct conn *c)
{
    f->conn = c;
    c->feed = f;
    f->state = FEED_ATTACHED;
    grow(f, CCI_PROTO_MAX_DATA);
    /* limit + 1 bytes were gathered, and INLINE is less than MAX_DATA: one frame. */
    if (f->len || f->held)
        stage(f, CCI_MSG_DATA, f->len);
    f->len = 0;
    pump(f);
}

/* The stream's connection: writable, or the host closed it. */
void feed_conn_ready(struct feed *f, uint32_t events)
{
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        part(f); /* the host has nothing to say on this connection but goodbye */
    else if (events & EPOLLOUT)
        pump(f);
}

void feed_drop(struct feed *f)
{
    if (f->state == FEED_DONE || f->state == FEED_DROP)
        return;
    if (f->conn) {
        f->conn->feed = NULL;
        conn_close(f->conn);
        f->conn = NULL;
    }
    f->state = FEED_DROP;
    drop(f);
}

void feed_free(struct feed *f)
{
    if (!f)
        return;
    loop_close(&f->src);
    if (f->conn) {
        f->conn->feed = NULL;
        conn_close(f->conn);
    }
    free(f->buf);
    loop_free(f);
}
