/*
 * READ_FILE and WRITE_FILE while something slow is mounted (slow.c), and WRITE_FILE of what is no regular file: all
 * that may wait is done by workers.
 *
 * A worker opens the file, and reads or writes what fits a message. What is larger is announced, and a worker does
 * blocking I/O between file and connection once the host has attached. A file that is not a regular one after all
 * (a FIFO, a terminal) is read by the loop, which can wait for it.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct slow {
    struct request req;
    struct work work;
    bool writing, streamed, working, given_up;
    bool attached; /* the connection is there */
    bool all;      /* a read: the file is at its end */
    bool special;  /* a read: it is not a regular file */
    int fd, stream;
    int err;
    const char *what;
    char *path;
    mode_t mode;
    struct stat st;
    size_t len;                                          /* bytes in data */
    uint8_t data[CCI_PROTO_HEADER + CCI_PROTO_MAX_DATA]; /* room for a header, and contents */
};

static struct slow *slow_of(struct work *w)
{
    return (struct slow *)((char *)w - offsetof(struct slow, work));
}

static void slow_free(struct slow *s)
{
    if (s->fd >= 0)
        close(s->fd);
    if (s->stream >= 0)
        close(s->stream);
    free(s->path);
    request_free(&s->req);
}

static void fail(struct slow *s, int err, const char *what)
{
    if (err && !s->err) {
        s->err = err;
        s->what = what;
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Reads until there are `limit` bytes, or no more. */
static void gather(struct slow *s, size_t limit)
{
    while (!s->all && s->len < limit) {
        ssize_t n = read(s->fd, s->data + CCI_PROTO_HEADER + s->len, limit - s->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            fail(s, errno, "read");
        s->all = n <= 0;
        s->len += n > 0 ? (size_t)n : 0;
    }
}

static void start_read(struct slow *s)
{
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (s->fd < 0 || fstat(s->fd, &s->st)) {
        fail(s, errno, "open");
        return;
    }
    s->special = !S_ISREG(s->st.st_mode) && !S_ISDIR(s->st.st_mode);
    /* One byte beyond the limit tells "exactly full" from "more to come". */
    if (!s->special)
        gather(s, CCI_PROTO_INLINE + 1);
}

static void stream_read(struct slow *s)
{
    int gone = 0;
    while (!gone && s->len) {
        cci_proto_store_header(s->data, (uint32_t)s->len, CCI_MSG_DATA, s->req.id);
        gone = stream_send(s->stream, s->data, CCI_PROTO_HEADER + s->len);
        s->len = 0;
        gather(s, CCI_PROTO_MAX_DATA);
    }
    if (!gone)
        stream_end(s->stream, s->req.id, s->err, s->err ? s->what : "");
}

/* ---- writing --------------------------------------------------------------------------------- */

static void finish_write(struct slow *s)
{
    if (s->fd >= 0 && close(s->fd))
        fail(s, errno, "close");
    s->fd = -1;
}

static void start_write(struct slow *s)
{
    if (s->fd < 0)
        s->fd = open(s->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, s->mode);
    if (s->fd < 0)
        fail(s, errno, "open");
    if (s->err || s->streamed)
        return;
    fail(s, write_all(s->fd, s->data, s->len), "write");
    finish_write(s);
}

static void stream_write(struct slow *s)
{
    bool ended = false;
    while (!ended && !s->err) {
        struct cci_proto_header h;
        bool came = stream_receive(s->stream, s->data, CCI_PROTO_HEADER);
        h = cci_proto_load_header(s->data);
        if (!came || h.length > CCI_PROTO_MAX_DATA || !stream_receive(s->stream, s->data, h.length))
            fail(s, ECONNRESET, "the rest of the contents did not come");
        else if (h.type == CCI_MSG_DATA)
            fail(s, write_all(s->fd, s->data, h.length), "write");
        else
            ended = true;
    }
    finish_write(s);
    shutdown(s->stream, SHUT_RDWR);
}

/* ---- their course ---------------------------------------------------------------------------- */

static void run(struct work *w)
{
    struct slow *s = slow_of(w);
    if (s->writing)
        (s->attached ? stream_write : start_write)(s);
    else
        (s->attached ? stream_read : start_read)(s);
}

static void start(struct slow *s);

/* What was opened is ready, or has been dealt with. */
static void settle(struct slow *s)
{
    uint64_t id = s->req.id;
    if (s->special && !s->err) {
        int fd = s->fd;
        struct stat st = s->st;
        s->fd = -1;
        slow_free(s);
        file_read_open(id, fd, &st);
        return;
    }
    if (!s->err && (s->writing ? s->streamed : s->len > CCI_PROTO_INLINE)) {
        announce(id, CCI_CHANNEL_FILE, 0);
        if (!s->writing)
            reply(id, 0, "");
        return;
    }
    if (s->err || s->writing) {
        reply(id, s->err, s->err ? s->what : "");
    } else {
        struct cci_proto_writer *w = reply_begin(id, 0, "", 4 + s->len);
        cci_proto_put_bytes(w, s->data + CCI_PROTO_HEADER, s->len);
        frame_end();
    }
    slow_free(s);
}

static void done(struct work *w)
{
    struct slow *s = slow_of(w);
    s->working = false;
    if (!s->given_up && !s->attached) {
        settle(s);
        return;
    }
    if (!s->given_up && s->writing)
        reply(s->req.id, s->err, s->err ? s->what : "");
    slow_free(s);
}

static void attached(struct request *r, int fd)
{
    struct slow *s = (struct slow *)r; /* req is the first member */
    s->stream = fd;
    s->attached = true;
    start(s);
}

static void detach(struct request *r)
{
    struct slow *s = (struct slow *)r;
    s->given_up = true;
    if (!s->working)
        slow_free(s);
    else if (s->attached)
        shutdown(s->stream, SHUT_RDWR);
}

static void start(struct slow *s)
{
    s->work.run = run;
    s->work.done = done;
    s->working = true;
    work_start(&s->work);
}

static struct slow *slow_new(uint64_t id, const char *path)
{
    struct slow *s;
    if (work_too_much()) {
        reply(id, EAGAIN, "too many requests at once");
        return NULL;
    }
    s = (struct slow *)request_new(sizeof *s, id);
    s->req.detach = detach;
    s->req.attached = attached;
    s->fd = s->stream = -1;
    s->path = join(path, "", "");
    return s;
}

void slow_read(uint64_t id, const char *path)
{
    struct slow *s = slow_new(id, path);
    if (s)
        start(s);
}

void slow_write(uint64_t id, const char *path, int fd, mode_t mode, bool streamed, const uint8_t *p, size_t n)
{
    struct slow *s = NULL;
    if (n > CCI_PROTO_MAX_DATA)
        reply(id, EMSGSIZE, "contents larger than one message may carry");
    else
        s = slow_new(id, path);
    if (!s) {
        if (fd >= 0)
            close(fd);
        return;
    }
    s->fd = fd;
    s->writing = true;
    s->mode = mode;
    s->streamed = streamed;
    s->len = n;
    if (n)
        memcpy(s->data, p, n);
    start(s);
}
