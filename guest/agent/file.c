/* Files of the guest. Paths are the image's, since our root is; our umask is 0, so modes are exact. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- reading --------------------------------------------------------------------------------- */

static void read_settled(struct request *r)
{
    struct feed *f = r->feeds[CCI_CHANNEL_FILE];
    if (f->state == FEED_ANNOUNCED) {
        reply(r->id, 0, "");
    } else if (f->state == FEED_DONE) {
        if (feed_inline(f) && !f->err) {
            struct cci_proto_writer *w = reply_begin(r->id, 0, "", 4 + f->len);
            cci_proto_put_bytes(w, f->buf + CCI_PROTO_HEADER, f->len);
            frame_end();
        } else if (feed_inline(f)) {
            reply(r->id, f->err, "read");
        }
        request_free(r);
    }
}

static void read_detach(struct request *r)
{
    request_free(r);
}

void file_read_open(uint64_t id, int fd, const struct stat *st)
{
    struct request *r = request_new(sizeof *r, id);
    struct feed *f;
    r->detach = read_detach;
    f = feed_new(r, CCI_CHANNEL_FILE, fd, !S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode), CCI_PROTO_INLINE,
                 read_settled);
    if (S_ISREG(st->st_mode))
        f->size = (uint64_t)st->st_size;
    f->fifo = S_ISFIFO(st->st_mode);
    feed_start(f);
}

void file_read(uint64_t id, struct cci_proto_reader *in)
{
    const char *path = get_cstr(in);
    struct stat st;
    int fd;
    if (!path) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (slow_anywhere()) {
        slow_read(id, path);
        return;
    }
    /* Without O_NONBLOCK a FIFO with no writer would hold up everyone. */
    fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st)) {
        reply(id, errno, "open");
        if (fd >= 0)
            close(fd);
        return;
    }
    file_read_open(id, fd, &st);
}

/* ---- writing --------------------------------------------------------------------------------- */

struct writing {
    struct request req;
    int fd;
};

int write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        ssize_t k = write(fd, p, n);
        if (k < 0 && (errno == EINTR || (errno == EAGAIN && poll(&room, 1, -1) >= 0)))
            continue;
        if (k < 0)
            return errno;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static void write_end(struct writing *w, int err, const char *what)
{
    if (close(w->fd) && !err) {
        err = errno;
        what = "close";
    }
    reply(w->req.id, err, err ? what : "");
    request_free(&w->req);
}

static void write_data(struct request *r, const uint8_t *p, size_t n, int err)
{
    struct writing *w = (struct writing *)r; /* req is the first member */
    if (n == 0) {
        write_end(w, err, "the rest of the contents did not come");
        return;
    }
    err = write_all(w->fd, p, n);
    if (err)
        write_end(w, err, "write");
}

static void write_detach(struct request *r)
{
    close(((struct writing *)r)->fd);
    request_free(r);
}

void file_write(uint64_t id, struct cci_proto_reader *in)
{
    const char *path = get_cstr(in);
    mode_t mode = cci_proto_get32(in) & 07777;
    uint32_t streamed = cci_proto_get32(in);
    size_t n;
    const uint8_t *p = cci_proto_get_bytes(in, &n);
    struct writing *w;
    struct stat st;
    int fd, err;
    if (!path || in->bad) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (slow_anywhere()) {
        slow_write(id, path, -1, mode, streamed, p, n);
        return;
    }
    fd = openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, mode);
    if (fd < 0) {
        reply(id, errno, "open");
        return;
    }
    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
        slow_write(id, path, fd, mode, streamed, p, n); /* a FIFO or terminal may be full */
        return;
    }
    if (streamed) {
        w = (struct writing *)request_new(sizeof *w, id);
        w->fd = fd;
        w->req.data = write_data;
        w->req.detach = write_detach;
        announce(id, CCI_CHANNEL_FILE, 0);
        return;
    }
    err = write_all(fd, p, n);
    if (close(fd) && !err)
        err = errno;
    reply(id, err, err ? "write" : "");
}

/* ---- attributes ------------------------------------------------------------------------------ */

static void put_time(struct cci_proto_writer *w, struct timespec t)
{
    cci_proto_put64(w, (uint64_t)t.tv_sec);
    cci_proto_put32(w, (uint32_t)t.tv_nsec);
}

void file_put_stat(struct cci_proto_writer *w, const struct stat *st)
{
    cci_proto_put64(w, st->st_dev);
    cci_proto_put64(w, st->st_ino);
    cci_proto_put64(w, st->st_mode);
    cci_proto_put64(w, st->st_nlink);
    cci_proto_put64(w, st->st_uid);
    cci_proto_put64(w, st->st_gid);
    cci_proto_put64(w, st->st_rdev);
    cci_proto_put64(w, (uint64_t)st->st_size);
    cci_proto_put64(w, (uint64_t)st->st_blksize);
    cci_proto_put64(w, (uint64_t)st->st_blocks);
    put_time(w, st->st_atim);
    put_time(w, st->st_mtim);
    put_time(w, st->st_ctim);
}
