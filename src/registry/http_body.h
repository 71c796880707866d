/*
 * registry/http_body.h - the body of a response, out of whichever framing it came in (RFC 9112 sections 6 and 7).
 *
 * A body has ended only when its framing says so: one cut short is an error, never a short body. What a trailer says is
 * dropped. The number of bytes is the caller's to bound.
 */
#ifndef CCI_REGISTRY_HTTP_BODY_H
#define CCI_REGISTRY_HTTP_BODY_H

#include "http_head.h"

#define CCI_HTTP_MAX_CHUNK_LINE 1024u /* of a chunk's size and extensions */

struct cci_http_body {
    struct cci_http_reader *reader; /* not owned */
    enum cci_http_framing framing;
    uint64_t left;        /* of the body, or of the current chunk */
    bool in_chunks;       /* a chunk has begun: a line end follows its data */
    bool done;            /* ended as it should */
    cc_error_code failed; /* what an earlier read failed with */
};

static void cci_http_body_begin(struct cci_http_body *b, struct cci_http_reader *r, const struct cci_http_head *h)
{
    memset(b, 0, sizeof(*b));
    b->reader = r;
    b->framing = h->framing;
    b->left = h->framing == CCI_HTTP_LENGTH ? h->length : 0;
    b->done = h->framing == CCI_HTTP_NO_BODY || (h->framing == CCI_HTTP_LENGTH && h->length == 0);
}

/* "1a2b;extension\r\n", n bytes: the chunk's size. */
static bool cci_http_chunk_size(const uint8_t *p, size_t n, uint64_t *size)
{
    size_t i = 0;
    *size = 0;
    for (int d; i < n && (d = cci_url_hex((char)p[i])) >= 0; i++) {
        if (*size >> 58) /* with the next digit it would not be a size that a file can have */
            return false;
        *size = *size << 4 | (unsigned)d;
    }
    if (i == 0)
        return false;
    while (i < n && (p[i] == ' ' || p[i] == '\t'))
        i++;
    return i < n && (p[i] == ';' || cci_http_is_empty_line(p + i, n - i));
}

/* Goes on to the next chunk's data, or past the last chunk and the trailer. */
static cc_error_code cci_http_chunk_next(struct cci_http_body *b, const struct cci_wait *wait, cc_error *err)
{
    static const char where[] = "in the middle of the body";
    struct cci_buf line = {0};
    cc_error_code code = CC_OK;
    if (b->in_chunks) {
        code = cci_http_reader_line(b->reader, &line, 2, where, wait, err);
        if (code ? code == CC_ERR_NETWORK && !b->reader->broken : !cci_http_is_empty_line(line.p, line.n))
            code = cci_http_head_bad("a chunk does not end where its size says", err);
        line.n = 0;
    }
    if (!code)
        code = cci_http_reader_line(b->reader, &line, CCI_HTTP_MAX_CHUNK_LINE, where, wait, err);
    if (!code && !cci_http_chunk_size(line.p, line.n, &b->left))
        code = cci_http_head_bad("a chunk's size is no number", err);
    b->in_chunks = true;
    if (!code && b->left == 0) {
        size_t from; /* of the trailer, which as a whole is bounded like a head */
        do {
            from = line.n;
            code = cci_http_reader_line(b->reader, &line, CCI_HTTP_MAX_HEAD, where, wait, err);
        } while (!code && !cci_http_is_empty_line(line.p + from, line.n - from));
        b->done = !code;
    }
    cci_buf_free(&line);
    return code;
}

static cc_error_code cci_http_body_step(struct cci_http_body *b, void *buf, size_t n, size_t *got,
                                        const struct cci_wait *wait, cc_error *err)
{
    if (b->framing == CCI_HTTP_CHUNKED && b->left == 0) {
        cc_error_code code = cci_http_chunk_next(b, wait, err);
        if (code || b->done)
            return code;
    }
    size_t want = b->framing == CCI_HTTP_UNTIL_CLOSE ? n : (size_t)CCI_MIN((uint64_t)n, b->left);
    cc_error_code code = cci_http_reader_read(b->reader, buf, want, got, wait, err);
    if (code)
        return code;
    if (b->framing == CCI_HTTP_UNTIL_CLOSE) {
        b->done = *got == 0;
        return CC_OK;
    }
    if (*got == 0)
        return cci_http_reader_cut(b->reader, "in the middle of the body", err);
    b->left -= *got;
    if (b->framing == CCI_HTTP_LENGTH && b->left == 0)
        b->done = true;
    return CC_OK;
}

/* Some bytes of the body; *got 0 when it has ended as it should. After a failure every later call fails, too. */
static cc_error_code cci_http_body_next(struct cci_http_body *b, void *buf, size_t n, size_t *got,
                                        const struct cci_wait *wait, cc_error *err)
{
    *got = 0;
    if (b->failed)
        return cci_fail(err, b->failed, NULL, "an earlier read of this response failed");
    if (b->done || n == 0)
        return CC_OK;
    b->failed = cci_http_body_step(b, buf, n, got, wait, err);
    return b->failed;
}

#endif
