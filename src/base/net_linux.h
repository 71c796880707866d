/*
 * base/net_linux.h - reading and writing TCP sockets on Linux; see net.h.
 *
 * Sockets never block. A call tries first and, when nothing moves, polls the socket beside an eventfd of the
 * connection. For that long a hook hangs on the cancel token, which signals the eventfd: so a cancellation ends the
 * wait at once, from any thread. What a hook signalled late is taken back before the next wait. Before each try the
 * token and the deadline are looked at, so that no byte is moved after either.
 */
#ifndef CCI_BASE_NET_LINUX_H
#define CCI_BASE_NET_LINUX_H

#include "cancel.h"
#include "errno_text.h"

#define CCI_NET_IDLE_NS ((uint64_t)60 * 1000000000u) /* how long a peer may be silent, unless changed */
#define CCI_NET_READABLE 0x1                         /* POLLIN */
#define CCI_NET_WRITABLE 0x4                         /* POLLOUT */

struct cci_net {
    cci_fd fd;
    cci_fd wake;      /* an eventfd that a cancellation signals */
    uint64_t idle_ns; /* how long one wait for the peer may last; set by cci_net_dial, may be changed; 0: no limit */
    char *name;       /* "host:port", for messages */
};

/* The layout of POSIX's struct pollfd. */
struct cci_net_poll {
    int fd;
    short events;
    short found;
};

static void cci_net_on_cancel(void *ctx)
{
    cci_os_eventfd_signal(*(cci_fd *)ctx);
}

/* The error when the wait's time is over, before or while doing something with `name`; else CC_OK. */
static cc_error_code cci_net_check(const struct cci_wait *wait, const char *doing, const char *name, cc_error *err)
{
    if (cci_cancel_is_set(wait->cancel))
        return cci_fail(err, CC_ERR_CANCELLED, name, "cancelled while %s %s", doing, name);
    if (wait->deadline != CCI_FOREVER && cci_os_now() >= wait->deadline)
        return cci_fail(err, CC_ERR_TIMEOUT, name, "timed out while %s %s", doing, name);
    return CC_OK;
}

/*
 * Waits until a descriptor of polls[0..count-1] is ready, or until `until` (CC_OK as well, with nothing found), the
 * deadline, or a cancellation, for which polls[count] is used. `doing` and `name` make the message.
 */
static cc_error_code cci_net_wait_any(struct cci_net_poll *polls, size_t count, cci_fd *wake, uint64_t until,
                                      const struct cci_wait *wait, const char *doing, const char *name, cc_error *err)
{
    struct cci_cancel_hook hook;
    uint64_t end = CCI_MIN(until, wait->deadline);
    long r = 0;
    polls[count].fd = *wake;
    polls[count].events = CCI_NET_READABLE;
    bool cancelled = cci_cancel_attach(wait->cancel, &hook, cci_net_on_cancel, wake);
    while (!cancelled) {
        uint64_t now = cci_os_now(), left = end > now ? end - now : 0;
        struct cci_os_timespec ts = {(int64_t)(left / 1000000000u), (int64_t)(left % 1000000000u)};
        for (size_t i = 0; i <= count; i++)
            polls[i].found = 0;
        r = cci_os_result(syscall(SYS_ppoll, polls, (long)(count + 1), end == CCI_FOREVER ? NULL : &ts, NULL, 8L));
        if (r != -EINTR)
            break;
    }
    cci_cancel_detach(wait->cancel, &hook);
    (void)cci_os_eventfd_take(*wake);
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, (int)-r, name, "cannot wait for %s: %s", name, cci_errno_text((int)-r));
    return cci_net_check(wait, doing, name, err);
}

/* Waits until the peer lets the connection move on. */
static cc_error_code cci_net_wait(struct cci_net *net, short events, const char *doing, const struct cci_wait *wait,
                                  cc_error *err)
{
    struct cci_net_poll polls[2] = {{net->fd, events, 0}, {0, 0, 0}};
    uint64_t until = net->idle_ns ? cci_os_now() + net->idle_ns : CCI_FOREVER;
    cc_error_code code = cci_net_wait_any(polls, 1, &net->wake, until, wait, doing, net->name, err);
    if (!code && !polls[0].found && cci_os_now() >= until)
        code = cci_fail_errno(err, CC_ERR_NETWORK, ETIMEDOUT, net->name, "%s was silent for %llu seconds while %s it",
                              net->name, (unsigned long long)(net->idle_ns / 1000000000u), doing);
    return code;
}

static cc_error_code cci_net_fail(const struct cci_net *net, long r, const char *doing, cc_error *err)
{
    return cci_fail_errno(err, CC_ERR_NETWORK, (int)-r, net->name, "%s %s: %s", doing, net->name,
                          cci_errno_text((int)-r));
}

/* Reads up to n > 0 bytes: at least one, unless the peer has ended its sending: then *done is 0. */
static cc_error_code cci_net_read(struct cci_net *net, void *buf, size_t n, size_t *done, const struct cci_wait *wait,
                                  cc_error *err)
{
    static const char doing[] = "reading from";
    *done = 0;
    for (;;) {
        cc_error_code code = cci_net_check(wait, doing, net->name, err);
        if (code)
            return code;
        long r = cci_os_result(syscall(SYS_recvfrom, (long)net->fd, buf, n, 0L, NULL, NULL));
        if (r >= 0) {
            *done = (size_t)r;
            return CC_OK;
        }
        if (r == -EAGAIN)
            code = cci_net_wait(net, CCI_NET_READABLE, doing, wait, err);
        else if (r != -EINTR)
            code = cci_net_fail(net, r, doing, err);
        if (code)
            return code;
    }
}

/* Writes all n bytes; *done says how many were taken, also on failure. */
static cc_error_code cci_net_write(struct cci_net *net, const void *buf, size_t n, size_t *done,
                                   const struct cci_wait *wait, cc_error *err)
{
    static const char doing[] = "writing to";
    *done = 0;
    while (*done < n) {
        cc_error_code code = cci_net_check(wait, doing, net->name, err);
        if (code)
            return code;
        long r = cci_os_result(syscall(SYS_sendto, (long)net->fd, (const uint8_t *)buf + *done, n - *done,
                                       0x4000L /* MSG_NOSIGNAL */, NULL, 0L));
        if (r >= 0)
            *done += (size_t)r;
        else if (r == -EAGAIN)
            code = cci_net_wait(net, CCI_NET_WRITABLE, doing, wait, err);
        else if (r != -EINTR)
            code = cci_net_fail(net, r, doing, err);
        if (code)
            return code;
    }
    return CC_OK;
}

/* Whether the connection is open as far as is known here and nothing unread has arrived: between two requests, both
 * the peer's farewell and words out of turn mean that it cannot be used again. */
static bool cci_net_is_quiet(const struct cci_net *net)
{
    uint8_t byte;
    return cci_os_result(syscall(SYS_recvfrom, (long)net->fd, &byte, 1L, 2L /* MSG_PEEK */, NULL, NULL)) == -EAGAIN;
}

static void cci_net_close(struct cci_net *net)
{
    if (!net)
        return;
    if (net->fd >= 0)
        cci_os_close(net->fd);
    if (net->wake >= 0)
        cci_os_close(net->wake);
    cci_mem_free(net->name);
    cci_mem_free(net);
}

#endif
