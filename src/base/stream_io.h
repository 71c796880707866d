/*
 * base/stream_io.h - blocking reads and writes on a stream, under a deadline and a cancel token.
 *
 * Streams themselves never block (stream.h). This puts a monitor beside one: its watch function counts changes, and
 * whoever found no room to write, or nothing to read, sleeps until the count has moved since before it tried. Any
 * number of threads may do so; a closing thread ends their sleep with cci_stream_io_interrupt.
 *
 * A stream that ended because its instance did reports ENOTCONN; that becomes CC_ERR_NOT_RUNNING here.
 */
#ifndef CCI_BASE_STREAM_IO_H
#define CCI_BASE_STREAM_IO_H

#include "cancel.h"
#include "errno_text.h"
#include "stream.h"

struct cci_stream_io {
    struct cci_stream *stream; /* not owned */
    struct cci_monitor monitor;
    uint64_t changes; /* calls of the watch function so far; under the monitor */
    bool closed;      /* nobody sleeps any more; under the monitor */
};

/* One wait: until the count is no longer what it was. */
struct cci_stream_io_turn {
    const struct cci_stream_io *io;
    uint64_t seen;
};

static void cci_stream_io_changed(void *ctx, struct cci_stream *s)
{
    struct cci_stream_io *io = ctx;
    (void)s;
    cci_monitor_lock(&io->monitor);
    io->changes++;
    cci_cond_wake(&io->monitor.cond);
    cci_monitor_unlock(&io->monitor);
}

/* Starts watching the stream: nobody else may do so until cci_stream_io_end. */
static void cci_stream_io_begin(struct cci_stream_io *io, struct cci_stream *s)
{
    io->stream = s;
    io->changes = 0;
    io->closed = false;
    cci_monitor_init(&io->monitor);
    cci_stream_watch(s, cci_stream_io_changed, io);
}

/* Stops watching; no call may be under way. The stream stays open. */
static void cci_stream_io_end(struct cci_stream_io *io)
{
    cci_stream_watch(io->stream, NULL, NULL);
    cci_monitor_destroy(&io->monitor);
}

static bool cci_stream_io_moved(void *ctx)
{
    const struct cci_stream_io_turn *t = ctx;
    return t->io->closed || t->io->changes != t->seen;
}

static struct cci_stream_io_turn cci_stream_io_turn(struct cci_stream_io *io)
{
    cci_monitor_lock(&io->monitor);
    struct cci_stream_io_turn t = {io, io->changes};
    cci_monitor_unlock(&io->monitor);
    return t;
}

static cc_error_code cci_stream_io_sleep(struct cci_stream_io *io, struct cci_stream_io_turn *t,
                                         const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = cci_monitor_wait(&io->monitor, wait, cci_stream_io_moved, t, "data from the guest", err);
    bool closed = io->closed;
    cci_monitor_unlock(&io->monitor);
    if (code == CC_OK && closed)
        return cci_fail(err, CC_ERR_ALREADY_CLOSED, NULL, "it was closed meanwhile");
    return code;
}

/* Threads that sleep in a read or write return with CC_ERR_ALREADY_CLOSED, and none sleeps from now on. */
static void cci_stream_io_interrupt(struct cci_stream_io *io)
{
    cci_monitor_lock(&io->monitor);
    io->closed = true;
    cci_cond_wake(&io->monitor.cond);
    cci_monitor_unlock(&io->monitor);
}

/* The error for what read or write returned; r is negative. */
static cc_error_code cci_stream_io_fail(int64_t r, cc_error *err)
{
    int e = (int)-r;
    if (e == ENOTCONN)
        return cci_fail_errno(err, CC_ERR_NOT_RUNNING, e, NULL, "the instance ended");
    return cci_fail_errno(err, CC_ERR_IO, e, NULL, "connection to the guest: %s", cci_errno_text(e));
}

/* Waits for at least one byte and takes up to n: *got of them, 0 at the end of the peer's sending. */
static cc_error_code cci_stream_io_read(struct cci_stream_io *io, void *buf, size_t n, size_t *got,
                                        const struct cci_wait *wait, cc_error *err)
{
    *got = 0;
    for (;;) {
        struct cci_stream_io_turn t = cci_stream_io_turn(io);
        int64_t r = cci_stream_read(io->stream, buf, n);
        if (r >= 0) {
            *got = (size_t)r;
            return CC_OK;
        }
        cc_error_code code = r == -EAGAIN ? cci_stream_io_sleep(io, &t, wait, err) : cci_stream_io_fail(r, err);
        if (code)
            return code;
    }
}

/* Writes all of it; *done says how much was taken, also on failure. */
static cc_error_code cci_stream_io_write(struct cci_stream_io *io, const void *buf, size_t n, size_t *done,
                                         const struct cci_wait *wait, cc_error *err)
{
    *done = 0;
    while (*done < n) {
        struct cci_stream_io_turn t = cci_stream_io_turn(io);
        int64_t r = cci_stream_write(io->stream, (const uint8_t *)buf + *done, n - *done);
        cc_error_code code = CC_OK;
        if (r >= 0)
            *done += (size_t)r;
        else
            code = r == -EAGAIN ? cci_stream_io_sleep(io, &t, wait, err) : cci_stream_io_fail(r, err);
        if (code)
            return code;
    }
    return CC_OK;
}

#endif
