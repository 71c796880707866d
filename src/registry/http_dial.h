/*
 * registry/http_dial.h - opens a link: to the server or its proxy, through the proxy if it is one, and TLS on top.
 */
#ifndef CCI_REGISTRY_HTTP_DIAL_H
#define CCI_REGISTRY_HTTP_DIAL_H

#include "http_head.h"
#include "http_pool.h"
#include "proxy.h"

/* How the links of a client come about. */
struct cci_http_dial {
    struct cci_dialer dialer;
    uint64_t connect_ns; /* for all of it */
    uint64_t idle_ns;    /* for one read or write after that */
};

/* Writes all of it, with the reader's patience for every piece of it. */
static cc_error_code cci_http_write(struct cci_http_reader *r, const void *data, size_t n, const struct cci_wait *wait,
                                    cc_error *err)
{
    const uint8_t *p = data;
    cc_error_code code = CC_OK;
    while (n && !code) {
        size_t piece = CCI_MIN(n, (size_t)65536);
        struct cci_wait shorter = cci_http_shorter(wait, r->idle_ns);
        code = cci_wait_check(wait, NULL, "talking to a server", err);
        if (!code)
            code = cci_conn_write(r->conn, p, piece, &shorter, err);
        code = cci_http_shorter_end(code, wait, &shorter, r->idle_ns, "the server took nothing", err);
        p += piece;
        n -= piece;
    }
    return code;
}

/* What the proxy answered a CONNECT with. */
static cc_error_code cci_http_tunnel_answer(const struct cci_proxy *proxy, const struct cci_http_reader *r,
                                            unsigned status, cc_error *err)
{
    if (status == 407)
        return cci_fail(err, CC_ERR_NETWORK, proxy->host, "the proxy %s; put them into HTTPS_PROXY as user:password@",
                        proxy->authorization ? "refuses this user and password" : "wants a user and a password");
    if (status / 100 != 2)
        return cci_fail(err, CC_ERR_NETWORK, proxy->host, "the proxy refused the connection with status %u", status);
    if (r->at != r->end)
        return cci_fail(err, CC_ERR_NETWORK, proxy->host, "the proxy sent data before the server could have");
    return CC_OK;
}

/* Asks the proxy for a tunnel to the URL's host. */
static cc_error_code cci_http_tunnel(struct cci_http_reader *r, const struct cci_url *u, const struct cci_proxy *proxy,
                                     const struct cci_wait *wait, cc_error *err)
{
    struct cci_http_head head;
    char *host = cci_url_host_text(u, true);
    char *text =
        host ? cci_mem_printf("CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s%s%s\r\n", host, host,
                              proxy->authorization ? "Proxy-Authorization: " : "",
                              proxy->authorization ? proxy->authorization : "", proxy->authorization ? "\r\n" : "")
             : NULL;
    cci_mem_free(host);
    if (!text)
        return cci_fail_nomem(err);
    cc_error_code code = cci_http_write(r, text, strlen(text), wait, err);
    cci_mem_free(text);
    if (!code)
        code = cci_http_head_read(&head, r, true, wait, err);
    if (code)
        return cci_fail_within(err, code, "proxy");
    code = cci_http_tunnel_answer(proxy, r, head.status, err);
    cci_http_head_free(&head);
    return code;
}

static cc_error_code cci_http_dial_steps(const struct cci_http_dial *d, const struct cci_url *u,
                                         const struct cci_proxy *proxy, struct cci_http_reader *r,
                                         const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = cci_wait_check(wait, NULL, "talking to a server", err);
    if (!code)
        code = d->dialer.dial(d->dialer.ctx, proxy->host ? proxy->host : u->host, proxy->host ? proxy->port : u->port,
                              wait, &r->conn, err);
    if (code)
        return proxy->host ? cci_fail_within(err, code, "proxy") : code;
    if (u->secure && proxy->host)
        code = cci_http_tunnel(r, u, proxy, wait, err);
    if (u->secure && !code)
        code = cci_conn_secure(r->conn, u->host, wait, err);
    return code;
}

/* Opens a link that was taken from the pool; on failure it may only be dropped. */
static cc_error_code cci_http_dial(const struct cci_http_dial *d, const struct cci_url *u,
                                   const struct cci_proxy *proxy, struct cci_http_link *link,
                                   const struct cci_wait *wait, cc_error *err)
{
    struct cci_wait shorter = cci_http_shorter(wait, d->connect_ns);
    link->reader.idle_ns = d->connect_ns;
    cc_error_code code = cci_http_dial_steps(d, u, proxy, &link->reader, &shorter, err);
    link->reader.idle_ns = d->idle_ns;
    link->reader.touched = false;
    return cci_http_shorter_end(code, wait, &shorter, d->connect_ns, "no connection came about", err);
}

#endif
