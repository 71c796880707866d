/*
 * tests/stream_read.h - reads of a known number of bytes from a stream, for tests.
 */
#ifndef TESTS_STREAM_READ_H
#define TESTS_STREAM_READ_H

#include "../src/base/stream_io.h"

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
