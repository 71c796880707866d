/*
 * registry/http.h - an HTTP/1.1 client (RFC 9110, RFC 9112), for many requests to few servers.
 *
 *     request -> proxy.h (through which proxy?) -> http_pool.h (a connection that is open, or room for one)
 *             -> http_dial.h (TCP, CONNECT, TLS) -> http_request.h (its text) -> http_head.h (status and fields)
 *             -> http_body.h (the caller reads)
 *
 * Secrets. `authorization` goes to the scheme, host and port of the request's own URL. A redirect that leads elsewhere
 * loses it, for good: another server must not choose what is asked of the first one in our name. https never leads to
 * http. Plain http is spoken with loopback only, unless the caller allows more. URLs with a user in them are refused.
 *
 * Replay. A server may close a kept connection just as the next request is on its way. So a request that went out on a
 * connection used before, and that was lost before a single byte of an answer, is sent once more, on a new connection.
 * Only GET and HEAD without a body, as doing those twice is doing them once (RFC 9110 section 9.2.2, RFC 9112 section
 * 9.3.1); only once; and not when the server was merely silent. Every other failure is the caller's to judge.
 *
 * Limits. Heads 64 KiB and 256 fields, redirects 10, connections `max_connections`; no wait for the peer longer than
 * `idle_ms`. A body has no limit of its own: whoever reads it knows how long it may be. It is handed over as it was
 * sent; no content coding is asked for or undone.
 */
#ifndef CCI_REGISTRY_HTTP_H
#define CCI_REGISTRY_HTTP_H

#include "conn_net.h"
#include "http_body.h"
#include "http_dial.h"
#include "http_request.h"

#define CCI_HTTP_MAX_REDIRECTS 10u
#define CCI_HTTP_DRAIN 16384u /* bytes of a redirect's body that are worth reading to keep the connection */
#define CCI_HTTP_DRAIN_NS ((uint64_t)1000000000u)

/* How a client works; zeroed means the defaults. Strings are copied. */
struct cci_http_options {
    struct cci_dialer dialer; /* dial NULL: the network */
    const char *ca_file;      /* PEM file of authorities believed besides the system's, or NULL (see trust.h) */
    size_t max_connections;   /* open at once, kept ones included; requests wait for one; 0: 8 */
    uint32_t connect_ms;      /* for one connection, TLS included; 0: 30 s */
    uint32_t idle_ms;         /* for one read or write to move at all; 0: 60 s */
    bool allow_plain;         /* http:// also to hosts that are not loopback */
    bool no_proxy;            /* ignore HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment */
};

struct cci_http {
    struct cci_http_dial dial;
    struct cci_http_pool pool;
    struct cci_proxies proxies;
    struct cci_conn_net_dialer net; /* behind dial.dialer, unless the caller brought one */
    bool allow_plain;
};

struct cci_http_response {
    struct cci_http *http;
    struct cci_http_link *link; /* in use by this response */
    struct cci_http_head head;
    struct cci_http_body body;
    struct cci_url url; /* where it came from: the request's URL or the last redirect's */
    bool elsewhere;     /* a redirect led to another server than the request's; also when a further one led back */
};

/* ---- The client ---------------------------------------------------------------------------------------- */

/* No response may be open any more. NULL is fine. */
static void cci_http_free(struct cci_http *http)
{
    if (!http)
        return;
    cci_http_pool_destroy(&http->pool);
    cci_proxies_free(&http->proxies);
    cci_conn_net_dialer_destroy(&http->net);
    cci_mem_free(http);
}

/* A client that threads may share. */
static cc_error_code cci_http_new(const struct cci_http_options *opts, struct cci_http **out, cc_error *err)
{
    struct cci_http *http = cci_mem_zalloc(1, sizeof(*http));
    if (!http)
        return cci_fail_nomem(err);
    cci_http_pool_init(&http->pool, opts->max_connections ? opts->max_connections : 8);
    http->dial.connect_ns = (uint64_t)(opts->connect_ms ? opts->connect_ms : 30000) * 1000000u;
    http->dial.idle_ns = (uint64_t)(opts->idle_ms ? opts->idle_ms : 60000) * 1000000u;
    http->allow_plain = opts->allow_plain;
    cc_error_code code = cci_conn_net_dialer_init(&http->net, opts->ca_file, err);
    http->dial.dialer = opts->dialer.dial ? opts->dialer : cci_conn_net_dialer(&http->net);
    if (!code && !opts->no_proxy)
        code = cci_proxies_load(&http->proxies, err);
    if (code) {
        cci_http_free(http);
        return code;
    }
    *out = http;
    return CC_OK;
}

/* ---- Responses ----------------------------------------------------------------------------------------- */

static int cci_http_status(const struct cci_http_response *r)
{
    return (int)r->head.status;
}

/* Whether the answer is another server's than the one that was asked: what it demands is not that one's demand. */
static bool cci_http_is_elsewhere(const struct cci_http_response *r)
{
    return r->elsewhere;
}

static bool cci_http_by_tls(const struct cci_http_response *r)
{
    return r->url.secure;
}

/* The value of the nth field of that name (any case, n from 0), NULL if there is none. */
static const char *cci_http_field(const struct cci_http_response *r, const char *name, size_t n)
{
    return cci_http_head_field(&r->head, name, n);
}

/* Names the URL in an error that names nothing yet; without its query, which may hold a signature. */
static cc_error_code cci_http_blame(const struct cci_url *u, cc_error_code code, cc_error *err)
{
    if (code && err && !err->path)
        err->path = cci_url_text(u, false);
    return code;
}

/* Some bytes of the body, waiting for at least one; *got 0 when it has ended, and ended as it should. */
static cc_error_code cci_http_body_read(struct cci_http_response *r, void *buf, size_t n, size_t *got,
                                        const struct cci_wait *wait, cc_error *err)
{
    return cci_http_blame(&r->url, cci_http_body_next(&r->body, buf, n, got, wait, err), err);
}

/* After cci_http_body_read failed: whether the connection broke (cut, silent, reset) rather than the server talking
 * nonsense, so that asking for the rest by range makes sense. */
static bool cci_http_broken(const struct cci_http_response *r)
{
    return r->link->reader.broken;
}

/* The rest of the body, appended; CC_ERR_NETWORK if that is longer than `max`. */
static cc_error_code cci_http_body_all(struct cci_http_response *r, size_t max, struct cci_buf *out,
                                       const struct cci_wait *wait, cc_error *err)
{
    size_t got, total = 0;
    do {
        size_t room = CCI_MIN(max - total, (size_t)CCI_HTTP_READER_SIZE);
        uint8_t one_more, *p = room ? cci_buf_reserve(out, room) : &one_more;
        if (!p)
            return cci_fail_nomem(err);
        cc_error_code code = cci_http_body_read(r, p, room ? room : 1, &got, wait, err);
        if (code)
            return code;
        if (got && !room)
            return cci_http_blame(
                &r->url,
                cci_fail(err, CC_ERR_NETWORK, NULL, "the server sent more than the %zu bytes that this may have", max),
                err);
        out->n += got;
        total += got;
    } while (got);
    return CC_OK;
}

/* Ends with a response: its connection is kept for the next request when the body was read to its end (or the rest has
 * arrived already), closed otherwise. Never waits. NULL is fine. */
static void cci_http_finish(struct cci_http_response *r)
{
    const struct cci_wait never = CCI_WAIT_FOREVER;
    uint8_t rest[1024];
    size_t got = 0;
    if (!r)
        return;
    struct cci_http_reader *reader = &r->link->reader;
    reader->no_wait = true;
    do
        (void)(r->head.keep && cci_http_body_next(&r->body, rest, sizeof(rest), &got, &never, NULL));
    while (r->head.keep && !r->body.failed && !r->body.done);
    reader->no_wait = false;
    /* Bytes after the body were not asked for: whoever sent them would have them taken for the next response. */
    if (r->head.keep && r->body.done && !reader->broken && reader->at == reader->end)
        cci_http_pool_keep(&r->http->pool, r->link);
    else
        cci_http_pool_drop(&r->http->pool, r->link);
    cci_http_head_free(&r->head);
    cci_url_free(&r->url);
    cci_mem_free(r);
}

/* ---- One exchange -------------------------------------------------------------------------------------- */

/* Sends and reads the head, on a link that has a connection. */
static cc_error_code cci_http_talk(const struct cci_http_turn *t, struct cci_http_response *r,
                                   const struct cci_wait *wait, cc_error *err)
{
    struct cci_http_reader *reader = &r->link->reader;
    struct cci_buf text = {0};
    reader->touched = false;
    cc_error_code code = cci_http_compose(t, &text) ? CC_OK : cci_fail_nomem(err);
    if (!code) {
        code = cci_http_write(reader, text.p, text.n, wait, err);
        reader->broken = reader->broken || code;
    }
    if (!code)
        code = cci_http_head_read(&r->head, reader, strcmp(cci_http_method(t->req), "HEAD") == 0, wait, err);
    cci_buf_free(&text);
    if (!code)
        cci_http_body_begin(&r->body, reader, &r->head);
    return code;
}

/* On an idle link, or on a new one. *lost: the link had been used before, and broke before there was any answer. */
static cc_error_code cci_http_attempt(const struct cci_http_turn *t, struct cci_http_response *r, bool fresh,
                                      const struct cci_wait *wait, bool *lost, cc_error *err)
{
    struct cci_http *http = r->http;
    const char *via = t->proxy.host ? t->proxy.host : "";
    char *host = cci_url_host_text(t->url, true);
    char *place = host ? cci_mem_printf("%d %s %s:%u", t->url->secure, host, via, (unsigned)t->proxy.port) : NULL;
    cci_mem_free(host);
    if (!place)
        return cci_fail_nomem(err);
    cc_error_code code = cci_http_pool_take(&http->pool, place, fresh, wait, &r->link, err);
    cci_mem_free(place);
    if (code)
        return code;
    uint64_t start = cci_os_now();
    if (!r->link->reader.conn)
        code = cci_http_dial(&http->dial, t->url, &t->proxy, r->link, wait, err);
    if (!code)
        code = cci_http_talk(t, r, wait, err);
    if (code) {
        const struct cci_http_reader *reader = &r->link->reader;
        *lost = code == CC_ERR_NETWORK && r->link->reused && reader->broken && !reader->touched &&
                cci_os_now() - start < reader->idle_ns;
        cci_http_pool_drop(&http->pool, r->link);
        r->link = NULL;
    }
    return code;
}

/* One exchange with one server, replayed once if need be. On failure *r has no link. */
static cc_error_code cci_http_exchange(const struct cci_http_turn *t, struct cci_http_response *r,
                                       const struct cci_wait *wait, cc_error *err)
{
    bool lost = false;
    cc_error_code code = cci_http_attempt(t, r, false, wait, &lost, err);
    if (code && lost && cci_http_is_safe(t->req))
        code = cci_http_attempt(t, r, true, wait, &lost, err);
    if (code)
        return code;
    if (r->head.status == 407 && t->proxy.host)
        code = cci_http_tunnel_answer(&t->proxy, &r->link->reader, 407, err);
    return code ? code : cci_http_check_range(t->req, &r->head, err);
}

/* ---- Requests ------------------------------------------------------------------------------------------ */

static cc_error_code cci_http_check_url(const struct cci_http *http, const struct cci_url *u, cc_error *err)
{
    if (u->user)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "a URL must not have a user and password in it");
    if (!u->secure && !http->allow_plain && !cci_url_is_loopback(u->host))
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                        "plain http is for this machine only, as anybody on the way can read and change it; use https, "
                        "or allow it for this registry");
    return CC_OK;
}

static bool cci_http_is_redirect(const struct cci_http_request *req, const struct cci_http_response *r)
{
    unsigned s = r->head.status;
    return !req->no_redirect && cci_http_is_safe(req) && cci_http_field(r, "location", 0) &&
           (s == 301 || s == 302 || s == 303 || s == 307 || s == 308);
}

/* The URL that a redirect leads to, if it may be followed. */
static cc_error_code cci_http_follow(const struct cci_http_response *r, struct cci_url *next, cc_error *err)
{
    cc_error_code code = cci_url_resolve(&r->url, cci_http_field(r, "location", 0), next, err);
    if (!code && r->url.secure && !next->secure)
        code =
            cci_fail(err, CC_ERR_NETWORK, NULL, "it redirects from https to http, where anybody could change the data");
    if (!code)
        code = cci_http_check_url(r->http, next, err);
    if (!code)
        return CC_OK;
    cci_url_free(next);
    /* The server's fault, not the caller's argument. */
    return cci_fail_within(err, code == CC_ERR_INVALID_ARGUMENT ? CC_ERR_NETWORK : code, "redirect");
}

/* Reads the little that a redirect says, so that its connection may be kept. */
static void cci_http_drain(struct cci_http_response *r, const struct cci_wait *wait)
{
    struct cci_wait shorter = cci_http_shorter(wait, CCI_HTTP_DRAIN_NS);
    uint8_t rest[1024];
    size_t got = 1;
    for (size_t n = 0; n < CCI_HTTP_DRAIN && got && r->head.keep; n += got)
        if (cci_http_body_next(&r->body, rest, sizeof(rest), &got, &shorter, NULL) != CC_OK)
            return;
}

/* One server's answer to the request; takes over *url, also on failure. */
static cc_error_code cci_http_ask(struct cci_http *http, const struct cci_http_request *req, struct cci_url *url,
                                  bool authorized, const struct cci_wait *wait, struct cci_http_response **out,
                                  cc_error *err)
{
    struct cci_http_turn t = {.req = req, .authorized = authorized};
    struct cci_http_response *r = cci_mem_zalloc(1, sizeof(*r));
    if (!r) {
        cci_url_free(url);
        return cci_fail_nomem(err);
    }
    r->http = http;
    r->url = *url;
    t.url = &r->url;
    memset(url, 0, sizeof(*url));
    cc_error_code code = cci_proxy_choose(&http->proxies, t.url, &t.proxy, err);
    if (!code)
        code = cci_http_exchange(&t, r, wait, err);
    cci_proxy_free(&t.proxy);
    if (!code) {
        *out = r;
        return CC_OK;
    }
    (void)cci_http_blame(&r->url, code, err);
    if (r->link) /* what it answered with is of no use */
        cci_http_pool_drop(&http->pool, r->link);
    cci_http_head_free(&r->head);
    cci_url_free(&r->url);
    cci_mem_free(r);
    return code;
}

/*
 * Sends a request and reads the head of the answer, after redirects. Every status counts as an answer (CC_OK); a
 * failure is CC_ERR_NETWORK (anything between here and the server, TLS included), CC_ERR_CANCELLED, CC_ERR_TIMEOUT
 * (wait->deadline), CC_ERR_INVALID_ARGUMENT (a bad URL or proxy, http:// where it is not allowed). On CC_OK the caller
 * ends with cci_http_finish; until then it holds one of the client's connections.
 */
static cc_error_code cci_http_request(struct cci_http *http, const struct cci_http_request *req,
                                      const struct cci_wait *wait, struct cci_http_response **out, cc_error *err)
{
    struct cci_url url;
    struct cci_http_response *r = NULL;
    bool authorized = true;
    cc_error_code code = cci_http_check_request(req, err);
    if (!code)
        code = cci_url_parse(req->url, &url, err);
    if (code)
        return code;
    code = cci_http_blame(&url, cci_http_check_url(http, &url, err), err);
    if (code) {
        cci_url_free(&url);
        return code;
    }
    for (unsigned hops = 0;; hops++) {
        code = cci_http_ask(http, req, &url, authorized, wait, &r, err);
        if (code)
            return code;
        if (!cci_http_is_redirect(req, r)) {
            r->elsewhere = !authorized;
            *out = r;
            return CC_OK;
        }
        if (hops == CCI_HTTP_MAX_REDIRECTS)
            code = cci_fail(err, CC_ERR_NETWORK, NULL, "it redirects more than %u times", CCI_HTTP_MAX_REDIRECTS);
        else
            code = cci_http_follow(r, &url, err);
        if (!code) {
            authorized = authorized && cci_url_same_origin(&r->url, &url);
            cci_http_drain(r, wait);
        } else {
            (void)cci_http_blame(&r->url, code, err);
        }
        cci_http_finish(r);
        if (code)
            return code;
    }
}

#endif
