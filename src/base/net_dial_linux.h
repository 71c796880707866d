/*
 * base/net_dial_linux.h - connecting to a host by whichever of its addresses answers first; see net.h.
 *
 * Addresses are tried as RFC 8305 has it: a new attempt starts when one fails, or a quarter of a second after the
 * last one, and those under way go on. The first that connects is kept and the others are closed. So a network
 * that swallows IPv6 costs 250 ms and not a time-out.
 */
#ifndef CCI_BASE_NET_DIAL_LINUX_H
#define CCI_BASE_NET_DIAL_LINUX_H

#include "net_resolve_linux.h"

#define CCI_NET_CONNECT_NS ((uint64_t)30 * 1000000000u) /* for all addresses together */
#define CCI_NET_STAGGER_NS ((uint64_t)250 * 1000000u)   /* RFC 8305, 5 */

struct cci_net_dialing {
    struct cci_net *net;
    struct cci_net_addrs addrs;
    struct cci_net_poll polls[CCI_NET_MAX_ADDRS + 1]; /* the attempts under way; and one for the token */
    unsigned next;                                    /* the address to try next */
    unsigned pending;                                 /* attempts under way: polls[0..pending-1] */
    int error;                                        /* of the first attempt that failed */
};

static void cci_net_attempt_failed(struct cci_net_dialing *d, long r)
{
    if (!d->error)
        d->error = (int)-r;
}

/* Begins to connect to the next address; one that fails at once is only noted. */
static void cci_net_attempt(struct cci_net_dialing *d)
{
    const struct cci_net_addr *a = &d->addrs.addr[d->next++];
    int on = 1;
    cci_fd fd = (cci_fd)cci_os_result(
        syscall(SYS_socket, (long)a->family, (long)(CCI_NET_STREAM | CCI_OS_NONBLOCK | CCI_OS_O_CLOEXEC), 0L));
    if (fd < 0) {
        cci_net_attempt_failed(d, fd);
        return;
    }
    /* Requests are written whole: waiting for more to send with them only costs a round trip. */
    (void)syscall(SYS_setsockopt, (long)fd, 6L /* TCP */, 1L /* NODELAY */, &on, (long)sizeof(on));
    long r = cci_os_result(syscall(SYS_connect, (long)fd, a->bytes, (long)a->len));
    if (r < 0 && r != -EINPROGRESS && r != -EINTR) {
        cci_net_attempt_failed(d, r);
        cci_os_close(fd);
        return;
    }
    d->polls[d->pending].fd = fd;
    d->polls[d->pending++].events = CCI_NET_WRITABLE;
}

/* Looks at the attempts that poll found; returns the descriptor of one that is connected. */
static cci_fd cci_net_attempts_look(struct cci_net_dialing *d)
{
    for (unsigned i = d->pending; i-- > 0;) {
        int error = 0;
        unsigned len = sizeof(error);
        cci_fd fd = d->polls[i].fd;
        if (!d->polls[i].found)
            continue;
        long r = cci_os_result(syscall(SYS_getsockopt, (long)fd, 1L /* SOL_SOCKET */, 4L /* SO_ERROR */, &error, &len));
        d->polls[i] = d->polls[--d->pending];
        if (r == 0 && error == 0)
            return fd;
        cci_net_attempt_failed(d, r < 0 ? r : -(long)error);
        cci_os_close(fd);
    }
    return CCI_NO_FD;
}

static cc_error_code cci_net_connect(struct cci_net_dialing *d, const struct cci_wait *wait, cc_error *err)
{
    const char *name = d->net->name;
    uint64_t end = cci_os_now() + CCI_NET_CONNECT_NS;
    cc_error_code code = cci_net_check(wait, "connecting to", name, err);
    while (!code && d->net->fd < 0) {
        uint64_t now = cci_os_now();
        if (d->next < d->addrs.count)
            cci_net_attempt(d);
        if (!d->pending && d->next < d->addrs.count)
            continue;
        if (!d->pending)
            return cci_fail_errno(err, CC_ERR_NETWORK, d->error, name, "cannot connect to %s: %s", name,
                                  cci_errno_text(d->error));
        if (now >= end)
            return cci_fail_errno(err, CC_ERR_NETWORK, ETIMEDOUT, name, "%s did not answer for %d seconds", name,
                                  (int)(CCI_NET_CONNECT_NS / 1000000000u));
        uint64_t until = d->next < d->addrs.count ? CCI_MIN(end, now + CCI_NET_STAGGER_NS) : end;
        code = cci_net_wait_any(d->polls, d->pending, &d->net->wake, until, wait, "connecting to", name, err);
        if (!code)
            d->net->fd = cci_net_attempts_look(d);
    }
    return code;
}

/* Connects to a host name or an address without brackets. Close *out with cci_net_close. */
static cc_error_code cci_net_dial(const char *host, uint16_t port, const struct cci_wait *wait, struct cci_net **out,
                                  cc_error *err)
{
    struct cci_net_dialing d;
    memset(&d, 0, sizeof(d));
    *out = NULL;
    struct cci_net *net = d.net = cci_mem_zalloc(1, sizeof(*net));
    if (!net)
        return cci_fail_nomem(err);
    net->fd = CCI_NO_FD;
    net->wake = cci_os_eventfd();
    net->idle_ns = CCI_NET_IDLE_NS;
    net->name = cci_mem_printf(strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, (unsigned)port);
    cc_error_code code = CC_OK;
    if (!net->name)
        code = cci_fail_nomem(err);
    else if (net->wake < 0)
        code =
            cci_fail_errno(err, CC_ERR_IO, -net->wake, NULL, "cannot make an eventfd: %s", cci_errno_text(-net->wake));
    if (!code)
        code = cci_net_resolve(host, port, wait, &d.addrs, err);
    if (!code)
        code = cci_net_connect(&d, wait, err);
    while (d.pending)
        cci_os_close(d.polls[--d.pending].fd);
    if (code) {
        cci_net_close(net);
        return code;
    }
    *out = net;
    return CC_OK;
}

#endif
