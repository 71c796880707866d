/*
 * An intake carries bytes from the host to a command's standard input.
 *
 * What the connection gives is written to the pipe, and while the pipe is full the connection is not
 * read: so the program's pace is the host's. The host ends by closing the connection; what it sent
 * before is still delivered. When the program closes its end, or ends, the connection is closed, and
 * the host's next write fails.
 *
 * A terminal cannot be closed on one side: there the end of input is typed, as a user would.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

enum { INTAKE_SIZE = 65536, STEPS_PER_TURN = 32 };
#define QUIET EPOLLET /* as in feed.c */

struct intake {
    struct source src; /* the pipe or terminal */
    struct conn *conn; /* NULL before the host attached, and after the end */
    bool attached;     /* it did */
    bool tty;
    bool ended;     /* the host sends no more */
    bool mid_line;  /* tty: the last byte was no newline */
    uint8_t *buf;   /* received, headers included */
    size_t at, len; /* bytes dealt with, and received */
    uint8_t head[CCI_PROTO_HEADER];
    size_t head_len; /* bytes of the next header so far */
    uint32_t left;   /* payload bytes of the current frame still to come */
};

static void step(struct intake *t);

static void pipe_ready(struct source *s, uint32_t events)
{
    struct intake *t = (struct intake *)s; /* src is the first member */
    if (events & (EPOLLERR | EPOLLHUP))
        intake_end(t); /* nobody reads any more */
    else if (t->conn)
        step(t);
}

void intake_new(struct request *r, int fd, bool tty)
{
    struct intake *t = must(calloc(1, sizeof *t));
    t->tty = tty;
    r->intake = t;
    if (loop_add(&t->src, fd, QUIET, pipe_ready))
        die("epoll", errno);
}

bool intake_attached(const struct intake *t)
{
    return t->attached;
}

void intake_attach(struct intake *t, struct conn *c)
{
    t->attached = true;
    t->conn = c;
    c->intake = t;
    cci_proto_store_header(t->head, 0, CCI_MSG_DATA, 0);
    /* A fresh connection takes that much. The program may have been quicker, and be gone. */
    if (conn_send(c, t->head, CCI_PROTO_HEADER) != CCI_PROTO_HEADER || t->src.fd < 0) {
        intake_end(t);
        return;
    }
    t->buf = must(malloc(INTAKE_SIZE));
    step(t);
}

void intake_end(struct intake *t)
{
    struct conn *c = t->conn;
    t->conn = NULL;
    loop_close(&t->src);
    if (c) {
        c->intake = NULL;
        conn_close(c);
    }
}

void intake_free(struct intake *t)
{
    if (!t)
        return;
    intake_end(t);
    free(t->buf);
    loop_free(t);
}

/* Takes header bytes. False when the host broke the protocol. */
static bool take_header(struct intake *t)
{
    struct cci_proto_header h;
    size_t n = CCI_PROTO_HEADER - t->head_len;
    if (n > t->len - t->at)
        n = t->len - t->at;
    memcpy(t->head + t->head_len, t->buf + t->at, n);
    t->head_len += n;
    t->at += n;
    if (t->head_len < CCI_PROTO_HEADER)
        return true;
    t->head_len = 0;
    h = cci_proto_load_header(t->head);
    t->ended = h.type == CCI_MSG_END;
    t->left = t->ended ? 0 : h.length;
    return t->ended || (h.type == CCI_MSG_DATA && h.length <= CCI_PROTO_MAX_DATA);
}

/* Writes payload to the program. False when it cannot go on now. */
static bool deliver(struct intake *t)
{
    size_t n = t->len - t->at < t->left ? t->len - t->at : t->left;
    ssize_t k;
    do {
        k = write(t->src.fd, t->buf + t->at, n);
    } while (k < 0 && errno == EINTR);
    if (k < 0 && errno == EAGAIN) {
        loop_watch(&t->conn->src, QUIET);
        loop_watch(&t->src, EPOLLOUT);
        return false;
    }
    if (k < 0) {
        intake_end(t);
        return false;
    }
    t->mid_line = t->buf[t->at + (size_t)k - 1] != '\n';
    t->at += (size_t)k;
    t->left -= (uint32_t)k;
    return true;
}

/* Receives more. False when there is none now. */
static bool receive(struct intake *t)
{
    ssize_t n;
    do {
        n = recv(t->conn->src.fd, t->buf, INTAKE_SIZE, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        loop_watch(&t->src, QUIET);
        loop_watch(&t->conn->src, EPOLLIN);
        return false;
    }
    t->at = 0;
    t->len = n > 0 ? (size_t)n : 0;
    t->ended = n <= 0;
    return true;
}

/* The end of input: a pipe is closed; on a terminal in line mode the end-of-file character is typed, twice when the
   first only sends the line begun. */
static void finish(struct intake *t)
{
    struct termios mode;
    if (!t->tty || tcgetattr(t->src.fd, &mode) || !(mode.c_lflag & ICANON)) {
        intake_end(t);
        return;
    }
    uint8_t eof[2] = {mode.c_cc[VEOF], mode.c_cc[VEOF]};
    size_t n = t->mid_line ? 2 : 1;
    ssize_t k = write(t->src.fd, eof, n);
    if (k < 0 && errno == EAGAIN) {
        loop_watch(&t->conn->src, QUIET);
        loop_watch(&t->src, EPOLLOUT);
        return;
    }
    if (k == 1 && n == 2) { /* the line was sent; the rest when there is room */
        t->mid_line = false;
        loop_watch(&t->conn->src, QUIET);
        loop_watch(&t->src, EPOLLOUT);
        return;
    }
    intake_end(t);
}

static void step(struct intake *t)
{
    for (int turn = 0; turn < STEPS_PER_TURN; turn++) {
        if (t->at < t->len && t->left) {
            if (!deliver(t))
                return;
        } else if (t->ended) {
            finish(t);
            return;
        } else if (t->at < t->len) {
            if (!take_header(t)) {
                intake_end(t);
                return;
            }
        } else if (!receive(t)) {
            return;
        }
    }
    /* Others deserve a turn; what is left to write is reason enough to be called again. */
    loop_watch(&t->conn->src, QUIET);
    loop_watch(&t->src, EPOLLOUT);
}

void intake_conn_ready(struct intake *t, uint32_t events)
{
    (void)events; /* a host that hung up is seen when all that it sent has been read */
    step(t);
}
