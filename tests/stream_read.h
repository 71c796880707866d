/*
 * tests/stream_read.h - blocking reads from a stream, for tests; the library itself only writes in this way so far.
 */
#ifndef TESTS_STREAM_READ_H
#define TESTS_STREAM_READ_H

#include "../src/base/stream_io.h"

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

/* Reads exactly n bytes; an earlier end is an error. */
static cc_error_code cci_stream_io_read_all(struct cci_stream_io *io, void *buf, size_t n, const struct cci_wait *wait,
                                            cc_error *err)
{
    for (size_t at = 0; at < n;) {
        size_t got;
        cc_error_code code = cci_stream_io_read(io, (uint8_t *)buf + at, n - at, &got, wait, err);
        if (code)
            return code;
        if (got == 0)
            return cci_fail(err, CC_ERR_IO, NULL, "the guest closed a connection in mid-message");
        at += got;
    }
    return CC_OK;
}

#endif
