#ifndef CCI_REGISTRY_TLS_H
#define CCI_REGISTRY_TLS_H

#include "../base/net.h"
#include "trust.h"

struct cci_tls; /* one TLS connection */

/* Shakes hands with `host` (name or address without brackets) over `net`. On success *out owns net; on failure net
 * stays the caller's to close. The trust must outlive the connection. With CC_NO_TLS: fails with a message. */
static cc_error_code cci_tls_connect(struct cci_net *net, const char *host, const struct cci_trust *trust,
                                     const struct cci_wait *wait, struct cci_tls **out, cc_error *err);
/* As cci_net_read and cci_net_write. An end without the peer's close_notify is CC_ERR_NETWORK (ECONNRESET). */
static cc_error_code cci_tls_read(struct cci_tls *tls, void *buf, size_t n, size_t *done, const struct cci_wait *wait,
                                  cc_error *err);
static cc_error_code cci_tls_write(struct cci_tls *tls, const void *buf, size_t n, size_t *done,
                                   const struct cci_wait *wait, cc_error *err);
/* Closes net as well. NULL is fine. */
static void cci_tls_close(struct cci_tls *tls);

#endif
