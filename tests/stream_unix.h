/*
 * tests/stream_unix.h - a connection (base/stream.h) over a Unix socket, for tests and tools.
 *
 * The agent runs as an ordinary process in tests and listens on a Unix socket in place of vsock; this is the host's
 * end of such a socket. The descriptor is registered with an I/O loop, edge-triggered, while somebody watches.
 *
 *     unix_stream_new(loop, fd)             a stream that owns a connected socket
 *     unix_stream_connect(loop, path)       connects
 *     unix_stream_pair(loop, s)             two streams connected with each other
 *     unix_listen(path), unix_accept(fd)    plain descriptors, blocking
 *
 * All return NULL (or -1) with errno set on failure. A stream must be closed before its loop is destroyed.
 */
#ifndef TESTS_STREAM_UNIX_H
#define TESTS_STREAM_UNIX_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../src/base/loop.h"
#include "../src/base/stream.h"

struct unix_stream {
    struct cci_stream stream; /* first: what the user holds */
    struct cci_loop *loop;
    struct cci_loop_source socket; /* the connection; registered while fn is set */
    struct cci_loop_source nudge;  /* an eventfd, for the first call that a watcher is promised */
    cci_stream_watch_fn fn;        /* on the loop's thread only */
    void *ctx;
};

static int64_t unix_stream_read(struct cci_stream *s, void *buf, size_t n)
{
    struct unix_stream *u = (struct unix_stream *)s;
    for (;;) {
        ssize_t r = recv(u->socket.fd, buf, n, 0);
        if (r >= 0 || errno != EINTR)
            return r >= 0 ? r : -errno;
    }
}

static int64_t unix_stream_write(struct cci_stream *s, const void *buf, size_t n)
{
    struct unix_stream *u = (struct unix_stream *)s;
    for (;;) {
        ssize_t r = send(u->socket.fd, buf, n, MSG_NOSIGNAL);
        if (r >= 0 || errno != EINTR)
            return r >= 0 ? r : -errno;
    }
}

static void unix_stream_shutdown(struct cci_stream *s)
{
    struct unix_stream *u = (struct unix_stream *)s;
    (void)shutdown(u->socket.fd, SHUT_WR);
}

static void unix_stream_ready(void *ctx, uint32_t events)
{
    struct unix_stream *u = ctx;
    (void)events;
    if (u->fn)
        u->fn(u->ctx, &u->stream); /* may free u */
}

static void unix_stream_nudged(void *ctx, uint32_t events)
{
    struct unix_stream *u = ctx;
    (void)cci_os_eventfd_take(u->nudge.fd);
    unix_stream_ready(ctx, events);
}

/* What another thread asks of the loop's thread: watching begins, changes or ends only there, so that it never
 * overlaps a running call. */
struct unix_stream_request {
    struct unix_stream *u;
    cci_stream_watch_fn fn;
    void *ctx;
};

static void unix_stream_apply(void *ctx)
{
    struct unix_stream_request *r = ctx;
    struct unix_stream *u = r->u;
    if (u->fn && !r->fn) {
        cci_loop_remove(u->loop, &u->socket);
        cci_loop_remove(u->loop, &u->nudge);
    }
    if (!u->fn && r->fn &&
        (cci_loop_add(u->loop, &u->socket, CCI_LOOP_READ | CCI_LOOP_WRITE | CCI_LOOP_EDGE, NULL) ||
         cci_loop_add(u->loop, &u->nudge, CCI_LOOP_READ, NULL)))
        abort();
    u->fn = r->fn;
    u->ctx = r->ctx;
    if (u->fn)
        cci_os_eventfd_signal(u->nudge.fd);
}

static void unix_stream_watch(struct cci_stream *s, cci_stream_watch_fn fn, void *ctx)
{
    struct unix_stream_request r = {(struct unix_stream *)s, fn, ctx};
    cci_loop_call(r.u->loop, unix_stream_apply, &r);
}

static void unix_stream_close(struct cci_stream *s)
{
    struct unix_stream *u = (struct unix_stream *)s;
    unix_stream_watch(s, NULL, NULL);
    close(u->socket.fd);
    close(u->nudge.fd);
    free(u);
}

static const struct cci_stream_ops unix_stream_ops = {unix_stream_read, unix_stream_write, unix_stream_shutdown,
                                                      unix_stream_watch, unix_stream_close};

/* Takes ownership of a connected socket (it is closed on failure, too). */
static struct cci_stream *unix_stream_new(struct cci_loop *loop, int fd)
{
    struct unix_stream *u = fd >= 0 ? calloc(1, sizeof(*u)) : NULL;
    if (!u)
        return NULL;
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    u->stream.ops = &unix_stream_ops;
    u->loop = loop;
    u->socket.fn = unix_stream_ready;
    u->socket.ctx = u;
    u->socket.fd = fd;
    u->nudge.fn = unix_stream_nudged;
    u->nudge.ctx = u;
    u->nudge.fd = cci_os_eventfd();
    if (u->nudge.fd < 0) {
        close(fd);
        free(u);
        return NULL;
    }
    return &u->stream;
}

static int unix_address(struct sockaddr_un *a, const char *path)
{
    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(a->sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(a->sun_path, path);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static struct cci_stream *unix_stream_connect(struct cci_loop *loop, const char *path)
{
    struct sockaddr_un a;
    int fd = unix_address(&a, path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        int e = errno;
        close(fd);
        errno = e;
        return NULL;
    }
    return unix_stream_new(loop, fd);
}

/* A listening socket at `path`. */
static int unix_listen(const char *path)
{
    struct sockaddr_un a;
    int fd = unix_address(&a, path);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 128) < 0)) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

/* Waits for the next connection to a listening socket. */
static int unix_accept(int listener)
{
    int fd;
    do
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int unix_stream_pair(struct cci_loop *loop, struct cci_stream *s[2])
{
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
        return -1;
    s[0] = unix_stream_new(loop, fd[0]);
    s[1] = unix_stream_new(loop, fd[1]);
    return s[0] && s[1] ? 0 : -1;
}

#endif
