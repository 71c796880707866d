/*
 * registry/http_reader.h - what arrives on a connection, line by line or as it comes, with a limit to patience.
 *
 * Every wait for the peer ends after `idle_ns` even when the caller would wait for ever. That is not the caller's
 * deadline, so it is CC_ERR_NETWORK, and says so.
 */
#ifndef CCI_REGISTRY_HTTP_READER_H
#define CCI_REGISTRY_HTTP_READER_H

#include "conn.h"

#define CCI_HTTP_READER_SIZE 16384u /* one TLS record */

struct cci_http_reader {
    struct cci_conn *conn; /* owned by whoever owns the reader */
    uint64_t idle_ns;      /* how long the peer may stay silent */
    bool no_wait;          /* only what has arrived already; then CC_ERR_TIMEOUT */
    bool touched;          /* a byte has arrived since this was last cleared */
    bool broken;           /* the connection failed, or ended where it should not have */
    uint32_t at, end;      /* bytes not taken yet */
    uint8_t buf[CCI_HTTP_READER_SIZE];
};

/* The caller's wait, shortened to `ns` from now. */
static struct cci_wait cci_http_shorter(const struct cci_wait *wait, uint64_t ns)
{
    uint64_t now = cci_os_now(), end = ns < CCI_FOREVER - now ? now + ns : CCI_FOREVER;
    struct cci_wait w = {CCI_MIN(wait->deadline, end), wait->cancel};
    return w;
}

/* What a shortened wait ended with, in the caller's terms: its time-out is the peer's fault unless it was the
 * caller's own deadline. */
static cc_error_code cci_http_shorter_end(cc_error_code code, const struct cci_wait *wait,
                                          const struct cci_wait *shorter, uint64_t ns, const char *what, cc_error *err)
{
    if (code != CC_ERR_TIMEOUT || shorter->deadline == wait->deadline)
        return code;
    return cci_fail(err, CC_ERR_NETWORK, NULL, "%s for %llu s", what,
                    (unsigned long long)((ns + 999999999u) / 1000000000u));
}

/* Reads from the connection itself. */
static cc_error_code cci_http_reader_pull(struct cci_http_reader *r, void *buf, size_t n, size_t *got,
                                          const struct cci_wait *wait, cc_error *err)
{
    *got = 0;
    cc_error_code code = cci_wait_check(wait, NULL, "talking to a server", err);
    if (code)
        return code;
    if (r->no_wait)
        return cci_fail(err, CC_ERR_TIMEOUT, NULL, "nothing more has arrived");
    struct cci_wait shorter = cci_http_shorter(wait, r->idle_ns);
    code = cci_conn_read(r->conn, buf, n, got, &shorter, err);
    code = cci_http_shorter_end(code, wait, &shorter, r->idle_ns, "the server sent nothing", err);
    r->touched = r->touched || *got;
    r->broken = r->broken || code;
    return code;
}

/* Up to n bytes; *got 0 at the end of the peer's sending. Large reads go past the buffer. */
static cc_error_code cci_http_reader_read(struct cci_http_reader *r, void *buf, size_t n, size_t *got,
                                          const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = cci_wait_check(wait, NULL, "talking to a server", err);
    *got = 0;
    if (code || n == 0)
        return code;
    if (r->at == r->end && n >= CCI_HTTP_READER_SIZE)
        return cci_http_reader_pull(r, buf, n, got, wait, err);
    if (r->at == r->end) {
        size_t more;
        code = cci_http_reader_pull(r, r->buf, sizeof(r->buf), &more, wait, err);
        r->at = 0;
        r->end = (uint32_t)more;
        if (code)
            return code;
    }
    *got = CCI_MIN(n, (size_t)(r->end - r->at));
    memcpy(buf, r->buf + r->at, *got);
    r->at += (uint32_t)*got;
    return CC_OK;
}

/* The connection ended in the middle of something. */
static cc_error_code cci_http_reader_cut(struct cci_http_reader *r, const char *where, cc_error *err)
{
    r->broken = true;
    return cci_fail(err, CC_ERR_NETWORK, NULL, "the server closed the connection %s", where);
}

/* Appends a line with its line feed; never lets `out` grow past `max` bytes in all. `where` is for messages. */
static cc_error_code cci_http_reader_line(struct cci_http_reader *r, struct cci_buf *out, size_t max, const char *where,
                                          const struct cci_wait *wait, cc_error *err)
{
    for (;;) {
        if (r->at == r->end) {
            size_t got;
            cc_error_code code = cci_http_reader_pull(r, r->buf, sizeof(r->buf), &got, wait, err);
            r->at = 0;
            r->end = (uint32_t)got;
            if (code)
                return code;
            if (got == 0)
                return cci_http_reader_cut(r, where, err);
        }
        const uint8_t *from = r->buf + r->at, *lf = memchr(from, '\n', r->end - r->at);
        size_t n = lf ? (size_t)(lf - from) + 1 : r->end - r->at;
        if (n > max || out->n > max - n)
            return cci_fail(err, CC_ERR_NETWORK, NULL, "the server sent more than %zu bytes of header", max);
        if (!cci_buf_add(out, from, n))
            return cci_fail_nomem(err);
        r->at += (uint32_t)n;
        if (lf)
            return CC_OK;
    }
}

#endif
