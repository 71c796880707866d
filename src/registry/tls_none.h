/*
 * registry/tls_none.h - the functions of tls.h in a library that was built with CC_NO_TLS: there is no TLS, and a
 * program that asks for it is told so.
 */
#ifndef CCI_REGISTRY_TLS_NONE_H
#define CCI_REGISTRY_TLS_NONE_H

#include "../base/net.h"

struct cci_tls {
    struct cci_net *net; /* there is never one of these */
};

struct cci_trust {
    unsigned nobody; /* a structure must have something in it */
};

static cc_error_code cci_tls_none(cc_error *err)
{
    return cci_fail(err, CC_ERR_NETWORK, NULL,
                    "this library was built without TLS (CC_NO_TLS), so HTTPS does not work");
}

/* Succeeds, so that a client that only uses plain HTTP works. */
static cc_error_code cci_trust_load(const char *extra_ca_file, struct cci_trust **out, cc_error *err)
{
    (void)extra_ca_file;
    *out = cci_mem_zalloc(1, sizeof(**out));
    return *out ? CC_OK : cci_fail_nomem(err);
}

static void cci_trust_free(struct cci_trust *t)
{
    cci_mem_free(t);
}

static cc_error_code cci_tls_connect(struct cci_net *net, const char *host, const struct cci_trust *trust,
                                     const struct cci_wait *wait, struct cci_tls **out, cc_error *err)
{
    (void)net;
    (void)host;
    (void)trust;
    (void)wait;
    *out = NULL;
    return cci_tls_none(err);
}

static cc_error_code cci_tls_read(struct cci_tls *tls, void *buf, size_t n, size_t *done, const struct cci_wait *wait,
                                  cc_error *err)
{
    (void)tls;
    (void)buf;
    (void)n;
    (void)wait;
    *done = 0;
    return cci_tls_none(err);
}

static cc_error_code cci_tls_write(struct cci_tls *tls, const void *buf, size_t n, size_t *done,
                                   const struct cci_wait *wait, cc_error *err)
{
    (void)tls;
    (void)buf;
    (void)n;
    (void)wait;
    *done = 0;
    return cci_tls_none(err);
}

static bool cci_tls_is_quiet(struct cci_tls *tls)
{
    (void)tls;
    return false;
}

static void cci_tls_close(struct cci_tls *tls)
{
    (void)tls;
}

#endif
