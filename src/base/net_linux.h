#ifndef CCI_BASE_NET_LINUX_H
#define CCI_BASE_NET_LINUX_H

#include "cancel.h"
#include "errno_text.h"

struct cci_net {
    cci_fd fd;
    cci_fd wake;      /* an eventfd that a cancellation signals */
    uint64_t idle_ns; /* how long one wait for the peer may last; set by cci_net_dial, may be changed; 0: no limit */
    char *name;       /* "host:port", for messages */
};

static cc_error_code cci_net_dial(const char *host, uint16_t port, const struct cci_wait *wait, struct cci_net **out,
                                  cc_error *err);
static cc_error_code cci_net_read(struct cci_net *net, void *buf, size_t n, size_t *done, const struct cci_wait *wait,
                                  cc_error *err);
static cc_error_code cci_net_write(struct cci_net *net, const void *buf, size_t n, size_t *done,
                                   const struct cci_wait *wait, cc_error *err);
static void cci_net_close(struct cci_net *net);

#endif
