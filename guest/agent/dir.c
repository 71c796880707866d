/*
 * READ_DIR: the entries of a directory, with their modes.
 *
 * A small directory is read on the loop and answered at once. A larger one goes to a worker, and what does not fit a
 * reply becomes a stream, which the worker fills by itself once the host has attached: the connection is its own then.
 * Memory is one frame and one buffer of the kernel's entries, whatever the directory's size.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    AT_ONCE = 16384,    /* bytes of entries that are read on the loop */
    ENTRY_MAX = 8 + 256 /* bytes of one */
};

struct listing {
    struct request req;
    struct work work;
    char *path; /* until it is opened; NULL then */
    int dir, stream;
    enum { GATHERING, ANNOUNCED, STREAMING } state;
    bool working, given_up; /* a worker is at it; the host is not interested any more */
    bool all;               /* the directory is at its end */
    int err;
    size_t got, at; /* bytes in raw, and taken from it */
    size_t len;     /* bytes of entries in out */
    _Alignas(8) uint8_t raw[32768];
    uint8_t out[CCI_PROTO_HEADER + CCI_PROTO_INLINE];
};

static struct listing *listing_of(struct work *w)
{
    return (struct listing *)((char *)w - offsetof(struct listing, work));
}

static void listing_free(struct listing *l)
{
    if (l->dir >= 0)
        close(l->dir);
    if (l->stream >= 0)
        close(l->stream);
    free(l->path);
    request_free(&l->req);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* One entry as the kernel gives it: ino 8, offset 8, length 2, type 1, name. */
static void add(struct listing *l, const uint8_t *raw)
{
    const char *name = (const char *)raw + 19;
    struct cci_proto_writer w = {l->out + CCI_PROTO_HEADER + l->len, ENTRY_MAX, 0};
    struct stat st;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return;
    if (fstatat(l->dir, name, &st, AT_SYMLINK_NOFOLLOW)) {
        if (errno == ENOENT)
            return; /* gone meanwhile */
        st.st_mode = (mode_t)raw[18] << 12;
    }
    cci_proto_put32(&w, st.st_mode);
    cci_proto_put_str(&w, name);
    l->len += w.len;
}

/* Reads entries until there are `limit` bytes of them, or no more. */
static void gather(struct listing *l, size_t limit)
{
    if (l->dir < 0) {
        l->dir = open(l->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        l->err = l->dir < 0 ? errno : 0;
        l->all = l->dir < 0;
    }
    while (!l->all && l->len + ENTRY_MAX <= limit) {
        if (l->at == l->got) {
            long n = syscall(SYS_getdents64, l->dir, l->raw, sizeof l->raw);
            l->at = 0;
            l->got = n > 0 ? (size_t)n : 0;
            l->err = n < 0 ? errno : 0;
            l->all = n <= 0;
            continue;
        }
        add(l, l->raw + l->at);
        l->at += (size_t)(l->raw[l->at + 16] | l->raw[l->at + 17] << 8);
    }
}

/* ---- the stream ------------------------------------------------------------------------------ */

int stream_send(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return errno;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

int stream_end(int fd, uint64_t id, int status, const char *what)
{
    uint8_t end[CCI_PROTO_HEADER + 8 + 4096];
    struct cci_proto_writer w = {end + CCI_PROTO_HEADER, sizeof end - CCI_PROTO_HEADER, 0};
    size_t n = strlen(what);
    cci_proto_put32(&w, (uint32_t)status);
    cci_proto_put_bytes(&w, what, n < 4096 ? n : 4096);
    cci_proto_store_header(end, (uint32_t)w.len, CCI_MSG_END, id);
    return stream_send(fd, end, CCI_PROTO_HEADER + w.len);
}

static void stream_out(struct listing *l)
{
    int gone = 0;
    do {
        cci_proto_store_header(l->out, (uint32_t)l->len, CCI_MSG_DATA, l->req.id);
        if (l->len)
            gone = stream_send(l->stream, l->out, CCI_PROTO_HEADER + l->len);
        l->len = 0;
        gather(l, CCI_PROTO_INLINE);
    } while (!gone && (l->len || !l->all));
    if (!gone)
        stream_end(l->stream, l->req.id, l->err, l->err ? "readdir" : "");
}

/* ---- its course ------------------------------------------------------------------------------ */

static void run(struct work *w)
{
    struct listing *l = listing_of(w);
    if (l->state == STREAMING)
        stream_out(l);
    else
        gather(l, CCI_PROTO_INLINE);
}

static void answer(struct listing *l)
{
    struct cci_proto_writer *w;
    if (l->err) {
        reply(l->req.id, l->err, "readdir");
        return;
    }
    w = reply_begin(l->req.id, 0, "", 4 + l->len);
    cci_proto_put_bytes(w, l->out + CCI_PROTO_HEADER, l->len);
    frame_end();
}

static void done(struct work *w)
{
    struct listing *l = listing_of(w);
    l->working = false;
    if (l->given_up || l->state == STREAMING) {
        listing_free(l);
    } else if (l->all) {
        answer(l);
        listing_free(l);
    } else {
        l->state = ANNOUNCED;
        announce(l->req.id, CCI_CHANNEL_FILE, 0);
        reply(l->req.id, 0, "");
    }
}

static void start(struct listing *l)
{
    l->work.run = run;
    l->work.done = done;
    l->working = true;
    work_start(&l->work);
}

static void attached(struct request *r, int fd)
{
    struct listing *l = (struct listing *)r; /* req is the first member */
    l->stream = fd;
    l->state = STREAMING;
    start(l);
}

static void detach(struct request *r)
{
    struct listing *l = (struct listing *)r;
    l->given_up = true;
    if (!l->working)
        listing_free(l);
    else if (l->state == STREAMING)
        shutdown(l->stream, SHUT_RDWR);
}

void dir_read(uint64_t id, struct cci_proto_reader *in)
{
    const char *path = get_cstr(in);
    struct listing *l;
    if (!path) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (work_too_much() || requests_too_many()) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    l = (struct listing *)request_new(sizeof *l, id);
    l->req.detach = detach;
    l->req.attached = attached;
    l->path = join(path, "", "");
    l->dir = l->stream = -1;
    if (!slow_anywhere())
        gather(l, AT_ONCE);
    if (!l->all) {
        start(l);
        return;
    }
    answer(l);
    listing_free(l);
}
