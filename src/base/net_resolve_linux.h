/*
 * base/net_resolve_linux.h - from a host name to addresses, by the system's resolver, under a deadline and a token.
 *
 * getaddrinfo knows what no resolver of ours would (the hosts file, nsswitch, local name services), but it cannot be
 * interrupted. So a name is looked up on a thread of its own; when the caller stops waiting, the thread is left to
 * end by itself within the resolver's time-outs. It touches only its struct cci_net_lookup, which both sides count
 * and which is plain malloc's, because it may be freed after the caller's allocator has gone. An address in place of
 * a name needs no thread.
 *
 * libc hides getaddrinfo and its structure under -std=c11, and we may not ask for them; hence our own declaration,
 * under a name of its own, bound to the same symbol.
 */
#ifndef CCI_BASE_NET_RESOLVE_LINUX_H
#define CCI_BASE_NET_RESOLVE_LINUX_H

#include "net_linux.h"

#define CCI_NET_MAX_ADDRS 16
#define CCI_NET_MAX_HOST 254 /* RFC 1035, 2.3.4; with the NUL */

/* Linux's struct addrinfo. */
struct cci_net_addrinfo {
    int flags, family, socktype, protocol;
    unsigned addrlen;
    void *addr; /* a struct sockaddr */
    char *canonname;
    struct cci_net_addrinfo *next;
};

extern int cci_net_getaddrinfo(const char *host, const char *service, const struct cci_net_addrinfo *hints,
                               struct cci_net_addrinfo **out) __asm__("getaddrinfo");
extern void cci_net_freeaddrinfo(struct cci_net_addrinfo *list) __asm__("freeaddrinfo");

#define CCI_NET_INET 2
#define CCI_NET_INET6 10
#define CCI_NET_STREAM 1
#define CCI_NET_NUMERIC_HOST 4
#define CCI_NET_NUMERIC_SERVICE 0x400

/* What a lookup found, in the order to try it. */
struct cci_net_addrs {
    unsigned count;
    struct cci_net_addr {
        int family;
        unsigned len;
        uint8_t bytes[28]; /* a struct sockaddr_in or sockaddr_in6 */
    } addr[CCI_NET_MAX_ADDRS];
};

struct cci_net_lookup {
    struct cci_monitor monitor; /* guards what follows */
    unsigned refs;              /* the caller and the thread */
    bool started;               /* the thread runs, and touches nothing but this any more */
    bool done;
    int result; /* of getaddrinfo */
    uint16_t port;
    char host[CCI_NET_MAX_HOST];
    struct cci_net_addrs addrs;
};

/* Takes up to CCI_NET_MAX_ADDRS addresses, families alternating (RFC 8305, 4): one that leads nowhere is then
 * followed by one of the other kind. */
static void cci_net_take_addrs(const struct cci_net_addrinfo *list, struct cci_net_addrs *out)
{
    const struct cci_net_addrinfo *next[2] = {list, list}; /* where each family is looked for further */
    int first = list ? list->family : CCI_NET_INET;
    out->count = 0;
    for (unsigned turn = 0; out->count < CCI_NET_MAX_ADDRS && (next[0] || next[1]); turn ^= 1) {
        const struct cci_net_addrinfo *a = next[turn];
        while (a && (a->family == first) != (turn == 0))
            a = a->next;
        next[turn] = a ? a->next : NULL;
        if (!a || a->addrlen > sizeof(out->addr[0].bytes) || (a->family != CCI_NET_INET && a->family != CCI_NET_INET6))
            continue;
        struct cci_net_addr *to = &out->addr[out->count++];
        to->family = a->family;
        to->len = a->addrlen;
        memcpy(to->bytes, a->addr, a->addrlen);
    }
}

/* One call of getaddrinfo; returns its result, 0 when there are addresses. */
static int cci_net_ask(const char *host, uint16_t port, int flags, struct cci_net_addrs *out)
{
    struct cci_net_addrinfo hints, *list = NULL;
    char service[8];
    memset(&hints, 0, sizeof(hints));
    hints.flags = flags | CCI_NET_NUMERIC_SERVICE;
    hints.socktype = CCI_NET_STREAM;
    (void)snprintf(service, sizeof(service), "%u", (unsigned)port);
    int r = cci_net_getaddrinfo(host, service, &hints, &list);
    if (r != 0)
        return r;
    cci_net_take_addrs(list, out);
    cci_net_freeaddrinfo(list);
    return 0;
}

static void cci_net_lookup_unref(struct cci_net_lookup *l)
{
    cci_monitor_lock(&l->monitor);
    bool last = --l->refs == 0;
    cci_monitor_unlock(&l->monitor);
    if (!last)
        return;
    cci_monitor_destroy(&l->monitor);
    free(l);
}

static void cci_net_lookup_main(void *ctx)
{
    struct cci_net_lookup *l = ctx;
    struct cci_net_addrs addrs = {0, {{0, 0, {0}}}};
    cci_monitor_lock(&l->monitor);
    l->started = true;
    cci_cond_wake(&l->monitor.cond);
    cci_monitor_unlock(&l->monitor);
    int r = cci_net_ask(l->host, l->port, 0, &addrs);
    cci_monitor_lock(&l->monitor);
    l->addrs = addrs;
    l->result = r;
    l->done = true;
    cci_cond_wake(&l->monitor.cond);
    cci_monitor_unlock(&l->monitor);
    cci_net_lookup_unref(l);
}

static bool cci_net_lookup_done(void *ctx)
{
    return ((struct cci_net_lookup *)ctx)->done;
}

static bool cci_net_lookup_started(void *ctx)
{
    return ((struct cci_net_lookup *)ctx)->started;
}

/* The words for getaddrinfo's result. */
static cc_error_code cci_net_lookup_fail(const char *host, int r, cc_error *err)
{
    if (r == -3) /* EAI_AGAIN */
        return cci_fail(err, CC_ERR_NETWORK, host, "the name server did not answer when asked for %s", host);
    if (r == -2 || r == -5 || r == 0) /* EAI_NONAME, EAI_NODATA */
        return cci_fail(err, CC_ERR_NETWORK, host, "no host of the name %s is known; check its spelling", host);
    return cci_fail(err, CC_ERR_NETWORK, host, "cannot look up the name %s (the resolver's error %d)", host, r);
}

static cc_error_code cci_net_lookup_wait(struct cci_net_lookup *l, const struct cci_wait *wait,
                                         struct cci_net_addrs *out, cc_error *err)
{
    struct cci_thread thread;
    char what[CCI_NET_MAX_HOST + 32];
    (void)snprintf(what, sizeof(what), "the address of %s", l->host);
    int r = cci_thread_new(&thread, "cc-resolve", cci_net_lookup_main, l);
    if (r < 0) {
        cci_net_lookup_unref(l); /* the thread's */
        return cci_fail_errno(err, CC_ERR_IO, -r, NULL, "cannot start a thread: %s", cci_errno_text(-r));
    }
    cc_error_code code = cci_monitor_wait(&l->monitor, wait, cci_net_lookup_done, l, what, err);
    if (!code)
        *out = l->addrs;
    r = l->result;
    cci_monitor_unlock(&l->monitor);
    if (code) {
        const struct cci_wait forever = CCI_WAIT_FOREVER; /* no longer than a thread takes to begin */
        (void)cci_monitor_wait(&l->monitor, &forever, cci_net_lookup_started, l, "a thread", NULL);
        cci_monitor_unlock(&l->monitor);
        cci_thread_detach(&thread);
        return code;
    }
    cci_thread_join(&thread);
    return r != 0 || out->count == 0 ? cci_net_lookup_fail(l->host, r, err) : CC_OK;
}

/* The addresses of a name, or the one that `host` spells. */
static cc_error_code cci_net_resolve(const char *host, uint16_t port, const struct cci_wait *wait,
                                     struct cci_net_addrs *out, cc_error *err)
{
    if (!*host || strlen(host) >= CCI_NET_MAX_HOST)
        return cci_fail(err, CC_ERR_NETWORK, host, "\"%.80s\" is no host name: it must have 1 to %d characters", host,
                        CCI_NET_MAX_HOST - 1);
    if (cci_net_ask(host, port, CCI_NET_NUMERIC_HOST, out) == 0 && out->count)
        return CC_OK;
    struct cci_net_lookup *l = malloc(sizeof(*l));
    if (!l)
        return cci_fail_nomem(err);
    memset(l, 0, sizeof(*l));
    cci_monitor_init(&l->monitor);
    l->refs = 2;
    l->port = port;
    memcpy(l->host, host, strlen(host) + 1);
    cc_error_code code = cci_net_lookup_wait(l, wait, out, err);
    cci_net_lookup_unref(l);
    return code;
}

#endif
