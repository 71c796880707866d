/*
 * base/net.h - TCP connections that end when their deadline passes or their token is cancelled; chosen once, here.
 *
 * Each platform is one whole file with the same functions; the comments in net_linux.h (reading and
 * writing) and net_dial_linux.h are the contract:
 *
 *     cci_net_dial(host, port, wait, &net, err)         resolves and connects
 *     cci_net_read(net, buf, n, &done, wait, err)       at least one byte; CC_OK with done 0 is the peer's end
 *     cci_net_write(net, buf, n, &done, wait, err)      all n bytes
 *     cci_net_is_quiet(net)                             open and nothing has arrived: fit for another use
 *     cci_net_close(net)                                NULL is fine
 *
 * One thread at a time uses a connection. Failures: CC_ERR_TIMEOUT (the wait's deadline), CC_ERR_CANCELLED, and
 * CC_ERR_NETWORK with sys_errno for the rest, ETIMEDOUT among them when nothing moved for net->idle_ns.
 */
#ifndef CCI_BASE_NET_H
#define CCI_BASE_NET_H

#if defined(__linux__)
#include "net_dial_linux.h"
#else
#error "cc.h: this platform has no base/net_*.h yet"
#endif

#endif
