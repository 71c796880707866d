/*
 * registry/http.h - an HTTP/1.1 client (RFC 9110, RFC 9112).
 */
#ifndef CCI_REGISTRY_HTTP_H
#define CCI_REGISTRY_HTTP_H

#include "conn.h"

#define CCI_HTTP_SIZE_UNKNOWN UINT64_MAX

struct cci_http;
struct cci_http_response;

/* How a client works; zeroed means the defaults. Strings are copied. */
struct cci_http_options {
    struct cci_dialer dialer; /* dial NULL: the network (then `trust` and the time-outs below are used) */
    const void *trust;        /* registry/trust.h's anchors for TLS; not owned; NULL: the system's */
    size_t max_connections;   /* open at once, kept ones included; requests wait for one; 0: 8 */
    uint32_t connect_ms;      /* for one connection, TLS included; 0: 30 s */
    uint32_t idle_ms;         /* for one read or write to move at all; 0: 60 s */
    bool allow_plain;         /* http:// also to hosts that are not loopback */
    bool no_proxy;            /* ignore HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment */
};

struct cci_http_field {
    const char *name, *value;
};

struct cci_http_request {
    const char *method;                  /* NULL: GET */
    const char *url;                     /* absolute, http or https */
    const struct cci_http_field *fields; /* sent to every host that a redirect leads to */
    size_t field_count;
    const char *authorization; /* value of that field, or NULL; goes to the host and port of `url` only */
    const void *body;          /* with a size; or NULL. A request with one is never sent twice */
    size_t body_size;
    uint64_t range_from; /* not 0: asks for the bytes from here on. 206 has checked Content-Range; 200 has all of it */
    bool no_redirect;    /* 3xx is an answer like any other */
};

/* Never NULL on CC_OK. Threads may share a client. */
static cc_error_code cci_http_new(const struct cci_http_options *opts, struct cci_http **out, cc_error *err);
/* No response may be open any more. */
static void cci_http_free(struct cci_http *http);

/*
 * Sends a request and reads the head of the answer, after redirects. Every status counts as an answer (CC_OK); a
 * failure is CC_ERR_NETWORK (anything between here and the server, TLS included), _CANCELLED, _TIMEOUT (wait->deadline),
 * _INVALID_ARGUMENT (a bad URL, http:// where it is not allowed).
 */
static cc_error_code cci_http_request(struct cci_http *http, const struct cci_http_request *req,
                                      const struct cci_wait *wait, struct cci_http_response **out, cc_error *err);

static int cci_http_status(const struct cci_http_response *r);
/* Where the answer came from: the request's URL or the last redirect's. */
static const char *cci_http_url(const struct cci_http_response *r);
/* The value of the nth field of that name (any case, n from 0), NULL if there is none. */
static const char *cci_http_field(const struct cci_http_response *r, const char *name, size_t n);
/* Bytes of the body, CCI_HTTP_SIZE_UNKNOWN when only its end will tell. For HEAD: what GET would have. */
static uint64_t cci_http_size(const struct cci_http_response *r);

/* Some bytes of the body, waiting for at least one; *got 0 when it has ended, and ended as it should. */
static cc_error_code cci_http_body_read(struct cci_http_response *r, void *buf, size_t n, size_t *got,
                                        const struct cci_wait *wait, cc_error *err);
/* After cci_http_body_read failed: whether the connection broke (cut, idle, reset) rather than the server talking
 * nonsense, so that asking for the rest by range makes sense. */
static bool cci_http_broken(const struct cci_http_response *r);
/* The rest of the body, appended; CC_ERR_NETWORK if it is longer than `max`. */
static cc_error_code cci_http_body_all(struct cci_http_response *r, size_t max, struct cci_buf *out,
                                       const struct cci_wait *wait, cc_error *err);
/* Ends with a response: its connection is kept for the next request when the body was read to its end (or little is
 * left of it), closed otherwise. NULL is fine. */
static void cci_http_finish(struct cci_http_response *r);

#endif
