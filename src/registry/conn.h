/*
 * registry/conn.h - a byte connection to a server, plain or TLS: what HTTP talks over.
 *
 * A connection starts plain, as a TCP connection to the server or to a proxy, and may be secured once, in place (a
 * proxy's CONNECT lies between the two). Calls block under a cci_wait; a cancelled or late call ends at once and leaves
 * a connection that is only good for closing, as does every other failure. One thread at a time uses a connection.
 *
 * Behind the table of operations is normally the network (conn_net.h); tests put a script of bytes there.
 */
#ifndef CCI_REGISTRY_CONN_H
#define CCI_REGISTRY_CONN_H

#include "../base/cancel.h"

struct cci_conn;

struct cci_conn_ops {
    /* Waits for at least one byte; *got is 0 at the end of the peer's sending. With TLS an end that the peer did not
     * announce is an error: somebody may have cut the stream. */
    cc_error_code (*read)(struct cci_conn *c, void *buf, size_t n, size_t *got, const struct cci_wait *wait,
                          cc_error *err);
    /* Writes all of it. */
    cc_error_code (*write)(struct cci_conn *c, const void *buf, size_t n, const struct cci_wait *wait, cc_error *err);
    /* Everything after this goes through TLS; the peer must prove that it is `host`. */
    cc_error_code (*secure)(struct cci_conn *c, const char *host, const struct cci_wait *wait, cc_error *err);
    /* Whether a connection on which nothing is expected is quiet and open, as far as this side knows; never waits. */
    bool (*quiet)(struct cci_conn *c);
    /* Ends the connection and frees it. */
    void (*close)(struct cci_conn *c);
};

/* Carriers put this first in their own structure. */
struct cci_conn {
    const struct cci_conn_ops *ops;
};

/* How connections come about. */
struct cci_dialer {
    /* A plain connection to host (a name or an address, without brackets). */
    cc_error_code (*dial)(void *ctx, const char *host, uint16_t port, const struct cci_wait *wait,
                          struct cci_conn **out, cc_error *err);
    void *ctx;
};

static cc_error_code cci_conn_read(struct cci_conn *c, void *buf, size_t n, size_t *got, const struct cci_wait *wait,
                                   cc_error *err)
{
    return c->ops->read(c, buf, n, got, wait, err);
}

static cc_error_code cci_conn_write(struct cci_conn *c, const void *buf, size_t n, const struct cci_wait *wait,
                                    cc_error *err)
{
    return c->ops->write(c, buf, n, wait, err);
}

static cc_error_code cci_conn_secure(struct cci_conn *c, const char *host, const struct cci_wait *wait, cc_error *err)
{
    return c->ops->secure(c, host, wait, err);
}

static bool cci_conn_quiet(struct cci_conn *c)
{
    return c->ops->quiet(c);
}

static void cci_conn_close(struct cci_conn *c)
{
    if (c)
        c->ops->close(c);
}

#endif
