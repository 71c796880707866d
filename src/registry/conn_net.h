/*
 * registry/conn_net.h - connections over the network: TCP (base/net.h), and TLS on top of it (tls.h).
 *
 * The authorities that servers are checked against are loaded when the first TLS connection is made, and kept: who only
 * talks to a plain registry on loopback needs none.
 */
#ifndef CCI_REGISTRY_CONN_NET_H
#define CCI_REGISTRY_CONN_NET_H

#include "../base/net.h"
#include "conn.h"
#include "tls.h"

/* What connections of one client share. */
struct cci_conn_net_dialer {
    char *ca_file; /* more authorities than the system's, or NULL */
    struct cci_mutex mutex;
    struct cci_trust *trust; /* under the mutex; NULL until it is needed */
};

struct cci_conn_net {
    struct cci_conn conn;
    struct cci_conn_net_dialer *dialer;
    struct cci_net *net; /* NULL once tls has it */
    struct cci_tls *tls;
};

static cc_error_code cci_conn_net_dialer_init(struct cci_conn_net_dialer *d, const char *ca_file, cc_error *err)
{
    memset(d, 0, sizeof(*d));
    cci_mutex_init(&d->mutex);
    d->ca_file = ca_file ? cci_mem_strdup(ca_file) : NULL;
    return d->ca_file || !ca_file ? CC_OK : cci_fail_nomem(err);
}

/* No connection may be open any more. */
static void cci_conn_net_dialer_destroy(struct cci_conn_net_dialer *d)
{
    cci_trust_free(d->trust);
    cci_mem_free(d->ca_file);
    cci_mutex_destroy(&d->mutex);
}

static cc_error_code cci_conn_net_read(struct cci_conn *conn, void *buf, size_t n, size_t *got,
                                       const struct cci_wait *wait, cc_error *err)
{
    struct cci_conn_net *c = (struct cci_conn_net *)conn;
    return c->tls ? cci_tls_read(c->tls, buf, n, got, wait, err) : cci_net_read(c->net, buf, n, got, wait, err);
}

static cc_error_code cci_conn_net_write(struct cci_conn *conn, const void *buf, size_t n, const struct cci_wait *wait,
                                        cc_error *err)
{
    struct cci_conn_net *c = (struct cci_conn_net *)conn;
    size_t done;
    return c->tls ? cci_tls_write(c->tls, buf, n, &done, wait, err) : cci_net_write(c->net, buf, n, &done, wait, err);
}

static cc_error_code cci_conn_net_secure(struct cci_conn *conn, const char *host, const struct cci_wait *wait,
                                         cc_error *err)
{
    struct cci_conn_net *c = (struct cci_conn_net *)conn;
    cc_error_code code = CC_OK;
    cci_mutex_lock(&c->dialer->mutex);
    if (!c->dialer->trust)
        code = cci_trust_load(c->dialer->ca_file, &c->dialer->trust, err);
    const struct cci_trust *trust = c->dialer->trust; /* stays as it is until the client goes */
    cci_mutex_unlock(&c->dialer->mutex);
    if (!code)
        code = cci_tls_connect(c->net, host, trust, wait, &c->tls, err);
    if (!code)
        c->net = NULL;
    return code;
}

static bool cci_conn_net_quiet(struct cci_conn *conn)
{
    const struct cci_conn_net *c = (const struct cci_conn_net *)conn;
    return c->tls ? cci_tls_is_quiet(c->tls) : cci_net_is_quiet(c->net);
}

static void cci_conn_net_close(struct cci_conn *conn)
{
    struct cci_conn_net *c = (struct cci_conn_net *)conn;
    cci_tls_close(c->tls);
    cci_net_close(c->net);
    cci_mem_free(c);
}

static const struct cci_conn_ops *cci_conn_net_ops(void)
{
    static const struct cci_conn_ops ops = {cci_conn_net_read, cci_conn_net_write, cci_conn_net_secure,
                                            cci_conn_net_quiet, cci_conn_net_close};
    return &ops;
}

static cc_error_code cci_conn_net_dial(void *ctx, const char *host, uint16_t port, const struct cci_wait *wait,
                                       struct cci_conn **out, cc_error *err)
{
    struct cci_conn_net *c = cci_mem_zalloc(1, sizeof(*c));
    if (!c)
        return cci_fail_nomem(err);
    cc_error_code code = cci_net_dial(host, port, wait, &c->net, err);
    if (code) {
        cci_mem_free(c);
        return code;
    }
    c->conn.ops = cci_conn_net_ops();
    c->dialer = ctx;
    c->net->idle_ns = 0; /* who calls has its own patience */
    *out = &c->conn;
    return CC_OK;
}

static struct cci_dialer cci_conn_net_dialer(struct cci_conn_net_dialer *d)
{
    struct cci_dialer dialer = {cci_conn_net_dial, d};
    return dialer;
}

#endif
