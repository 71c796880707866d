/*
 * base/stream.h - a connection: bytes in order, both ways, whatever carries them.
 *
 * The control room talks to the guest's agent over streams and does not know whether they are vsock connections
 * (virtio/vsock*.h) or Unix sockets (base/stream_unix.h, in tests). Nothing here blocks. A reader takes what has
 * arrived; a writer is told how much was taken; and whoever watches is called when either may have become possible
 * again. Flow control is the carrier's own: what is not read is, in the end, not sent.
 *
 * read, write, shutdown and close may be called from any thread. The watch function is called on the instance's I/O
 * thread, with none of the carrier's locks held, and may call read, write and shutdown; it must not block.
 */
#ifndef CCI_BASE_STREAM_H
#define CCI_BASE_STREAM_H

#include "base.h"

struct cci_stream;

typedef void (*cci_stream_watch_fn)(void *ctx, struct cci_stream *s);

struct cci_stream_ops {
    /* Up to n bytes that have arrived: how many; 0 at the end of the peer's sending; -EAGAIN when there are none now;
     * -ECONNRESET or another error number when the connection broke. */
    int64_t (*read)(struct cci_stream *s, void *buf, size_t n);
    /* How many bytes were taken, at least one; -EAGAIN when there is no room now; -EPIPE or another error number. */
    int64_t (*write)(struct cci_stream *s, const void *buf, size_t n);
    /* No more will be written; what was written still arrives, followed by end of file. */
    void (*shutdown)(struct cci_stream *s);
    /* Sets who is called after something has changed. The first call comes even if nothing has, so that nothing is
     * missed in between. A NULL fn stops the calls: none is running on another thread, and none comes, once this has
     * returned. */
    void (*watch)(struct cci_stream *s, cci_stream_watch_fn fn, void *ctx);
    /* Ends the connection (a reset if bytes are still unread) and frees the stream; stops the calls as above. From
     * within the watch function of the same stream this is allowed as the last thing done with it. */
    void (*close)(struct cci_stream *s);
};

/* Carriers put this first in their own structure. */
struct cci_stream {
    const struct cci_stream_ops *ops;
};

static int64_t cci_stream_read(struct cci_stream *s, void *buf, size_t n)
{
    return s->ops->read(s, buf, n);
}

static int64_t cci_stream_write(struct cci_stream *s, const void *buf, size_t n)
{
    return s->ops->write(s, buf, n);
}

static void cci_stream_shutdown(struct cci_stream *s)
{
    s->ops->shutdown(s);
}

static void cci_stream_watch(struct cci_stream *s, cci_stream_watch_fn fn, void *ctx)
{
    s->ops->watch(s, fn, ctx);
}

static void cci_stream_close(struct cci_stream *s)
{
    if (s)
        s->ops->close(s);
}

#endif
