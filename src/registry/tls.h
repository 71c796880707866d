/*
 * registry/tls.h - TLS 1.2 client connections over base/net.h; chosen once, here.
 *
 * tls_bear.h has them by BearSSL; with CC_NO_TLS tls_none.h has the same functions, which fail with a message that says
 * why. The contract:
 *
 *     cci_trust_load(extra_ca_file, &trust, err)                  whom to believe; once for all connections
 *     cci_trust_free(trust)                                       after the last of them
 *     cci_tls_connect(net, host, trust, wait, &tls, err)          shakes hands
 *     cci_tls_read(tls, buf, n, &done, wait, err)                 at least one byte; CC_OK and done 0: the peer's end
 *     cci_tls_write(tls, buf, n, &done, wait, err)                all n bytes
 *     cci_tls_is_quiet(tls)                                       open, and nothing came: fit for another use
 *     cci_tls_close(tls)                                          and the connection below
 *
 * `host` is a name, or an address without brackets, and is what the server's certificate must be for. After a success
 * of cci_tls_connect *out owns net; after a failure net stays the caller's, only good for closing, as is a connection
 * after any other failure. Errors are net.h's, and CC_ERR_NETWORK for what the peer did wrong. An end without the
 * peer's close_notify is one of those (with sys_errno ECONNRESET): somebody may have cut the stream.
 */
#ifndef CCI_REGISTRY_TLS_H
#define CCI_REGISTRY_TLS_H

#ifdef CC_NO_TLS
#include "tls_none.h"
#else
#include "tls_bear.h"
#endif

#endif
