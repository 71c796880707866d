/*
 * base/loop_linux.h - the I/O thread on epoll; see loop.h.
 */
#ifndef CCI_BASE_LOOP_LINUX_H
#define CCI_BASE_LOOP_LINUX_H

#include <sys/epoll.h>

#include "cancel.h"

#define CCI_LOOP_READ 0x1u             /* EPOLLIN */
#define CCI_LOOP_WRITE 0x4u            /* EPOLLOUT */
#define CCI_LOOP_EDGE (1u << 31)       /* EPOLLET */
#define CCI_LOOP_HANGUP (0x8u | 0x10u) /* EPOLLERR | EPOLLHUP: always reported */
#define CCI_LOOP_BATCH 16

/* Something to be called about; embedded in its owner's structure. */
struct cci_loop_source {
    void (*fn)(void *ctx, uint32_t events);
    void *ctx;
    cci_fd fd;
};

/* A time at which to be called; embedded in its owner's structure. fn and ctx are set once, the rest is the loop's. */
struct cci_loop_alarm {
    void (*fn)(void *ctx);
    void *ctx;
    uint64_t at; /* in cci_os_now(); CCI_FOREVER when it is set no more */
    struct cci_loop_alarm *next;
    bool listed;
};

/* A function that another thread wants run on the loop's thread. Lives on the asking thread's stack. */
struct cci_loop_call {
    void (*fn)(void *ctx);
    void *ctx;
    bool done;
    struct cci_loop_call *next;
};

struct cci_loop {
    struct cci_thread thread;
    cci_fd epoll, wake;
    struct cci_loop_source wake_source;
    struct epoll_event batch[CCI_LOOP_BATCH];
    int batch_count;            /* events fetched */
    int batch_next;             /* the next of them to be dispatched */
    struct cci_monitor monitor; /* guards what follows */
    struct cci_loop_call *calls;
    struct cci_loop_alarm *alarms; /* that were ever set: a few */
    uint64_t sleeps_until;         /* when the thread looks at the alarms by itself */
    bool running, stop;
};

/* ---- Sources: on the loop's thread, or while it does not run ------------------------------------------ */

/* Starts calling s->fn for `events` of s->fd. */
static cc_error_code cci_loop_add(struct cci_loop *l, struct cci_loop_source *s, uint32_t events, cc_error *err)
{
    struct epoll_event e;
    memset(&e, 0, sizeof(e));
    e.events = events;
    e.data.ptr = s;
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, s->fd, &e) < 0)
        return cci_fail_errno(err, CC_ERR_IO, errno, NULL, "cannot watch a descriptor");
    return CC_OK;
}

static void cci_loop_remove(struct cci_loop *l, struct cci_loop_source *s)
{
    struct epoll_event unused;
    memset(&unused, 0, sizeof(unused));
    (void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, s->fd, &unused);
    for (int i = l->batch_next; i < l->batch_count; i++)
        if (l->batch[i].data.ptr == s)
            l->batch[i].data.ptr = NULL;
}

/* ---- Alarms ---------------------------------------------------------------------------------------------- */

/* Has a->fn called on the loop's thread at that time, in place of an earlier one; CCI_FOREVER takes it back, though a
 * call may be under way (not when on the loop's thread). Any thread; the alarm has to live as long as the loop runs, or
 * until cci_loop_drop_alarm. */
static void cci_loop_set_alarm(struct cci_loop *l, struct cci_loop_alarm *a, uint64_t at)
{
    cci_monitor_lock(&l->monitor);
    a->at = at;
    if (!a->listed) {
        a->next = l->alarms;
        l->alarms = a;
        a->listed = true;
    }
    bool sooner = at < l->sleeps_until;
    cci_monitor_unlock(&l->monitor);
    if (sooner)
        cci_os_eventfd_signal(l->wake);
}

/* Forgets an alarm, which may go then. On the loop's thread, or while it does not run. */
static void cci_loop_drop_alarm(struct cci_loop *l, struct cci_loop_alarm *a)
{
    cci_monitor_lock(&l->monitor);
    struct cci_loop_alarm **at = &l->alarms;
    while (*at && *at != a)
        at = &(*at)->next;
    if (*at)
        *at = a->next;
    a->listed = false;
    cci_monitor_unlock(&l->monitor);
}

/* The first alarm that is due, which it no longer is then. With the monitor locked. */
static struct cci_loop_alarm *cci_loop_due(struct cci_loop *l, uint64_t now)
{
    struct cci_loop_alarm *a = l->alarms;
    while (a && (a->at == CCI_FOREVER || a->at > now))
        a = a->next;
    if (a)
        a->at = CCI_FOREVER;
    return a;
}

/* Calls what is due, and says how many milliseconds there are until the next; -1: none. With the monitor locked, and
 * let go of meanwhile. */
static int cci_loop_alarms(struct cci_loop *l)
{
    struct cci_loop_alarm *a;
    l->sleeps_until = CCI_FOREVER;
    if (!l->alarms)
        return -1;
    uint64_t now = cci_os_now();
    while ((a = cci_loop_due(l, now)) != NULL) {
        cci_monitor_unlock(&l->monitor);
        a->fn(a->ctx);
        cci_monitor_lock(&l->monitor);
    }
    for (a = l->alarms; a; a = a->next)
        l->sleeps_until = CCI_MIN(l->sleeps_until, a->at);
    if (l->sleeps_until == CCI_FOREVER)
        return -1;
    now = cci_os_now();
    uint64_t ms = l->sleeps_until > now ? (l->sleeps_until - now) / 1000000u + 1 : 0;
    return (int)CCI_MIN(ms, (uint64_t)INT32_MAX);
}

/* ---- The thread ---------------------------------------------------------------------------------------- */

static bool cci_loop_is_self(const struct cci_loop *l)
{
    return l->running && cci_thread_is_self(&l->thread);
}

static void cci_loop_run_calls(void *ctx, uint32_t events)
{
    struct cci_loop *l = ctx;
    (void)events;
    (void)cci_os_eventfd_take(l->wake);
    cci_monitor_lock(&l->monitor);
    while (l->calls) {
        struct cci_loop_call *c = l->calls;
        l->calls = c->next;
        cci_monitor_unlock(&l->monitor);
        c->fn(c->ctx);
        cci_monitor_lock(&l->monitor);
        c->done = true;
        cci_cond_wake(&l->monitor.cond);
    }
    cci_monitor_unlock(&l->monitor);
}

static void cci_loop_main(void *ctx)
{
    struct cci_loop *l = ctx;
    cci_monitor_lock(&l->monitor); /* until cci_loop_start has set l->thread and l->running */
    while (!l->stop) {
        int ms = cci_loop_alarms(l);
        cci_monitor_unlock(&l->monitor);
        l->batch_count = epoll_wait(l->epoll, l->batch, CCI_LOOP_BATCH, ms);
        for (l->batch_next = 0; l->batch_next < l->batch_count;) {
            const struct epoll_event *e = &l->batch[l->batch_next++];
            struct cci_loop_source *s = e->data.ptr;
            if (s)
                s->fn(s->ctx, e->events);
        }
        cci_monitor_lock(&l->monitor);
    }
    cci_monitor_unlock(&l->monitor);
}

static bool cci_loop_call_done(void *ctx)
{
    return ((struct cci_loop_call *)ctx)->done;
}

/* Runs fn(ctx) on the loop's thread and returns when it has; directly when called there, or when the thread does not
 * run. The functions called must not wait for the calling thread. */
static void cci_loop_call(struct cci_loop *l, void (*fn)(void *ctx), void *ctx)
{
    if (!l->running || cci_loop_is_self(l)) {
        fn(ctx);
        return;
    }
    struct cci_loop_call call = {fn, ctx, false, NULL};
    const struct cci_wait forever = {CCI_FOREVER, NULL};
    cci_monitor_lock(&l->monitor);
    struct cci_loop_call **last = &l->calls;
    while (*last)
        last = &(*last)->next;
    *last = &call;
    cci_monitor_unlock(&l->monitor);
    cci_os_eventfd_signal(l->wake);
    (void)cci_monitor_wait(&l->monitor, &forever, cci_loop_call_done, &call, "the I/O thread", NULL);
    cci_monitor_unlock(&l->monitor);
}

/* Prepares a loop whose thread does not run yet. */
static cc_error_code cci_loop_init(struct cci_loop *l, cc_error *err)
{
    memset(l, 0, sizeof(*l));
    cci_monitor_init(&l->monitor);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = cci_os_eventfd();
    l->wake_source.fn = cci_loop_run_calls;
    l->wake_source.ctx = l;
    l->wake_source.fd = l->wake;
    if (l->epoll < 0 || l->wake < 0) {
        int e = l->epoll < 0 ? errno : -l->wake;
        return cci_fail_errno(err, CC_ERR_IO, e, NULL, "cannot make the I/O thread's poller: too many open files?");
    }
    return cci_loop_add(l, &l->wake_source, CCI_LOOP_READ, err);
}

static cc_error_code cci_loop_start(struct cci_loop *l, const char *name, cc_error *err)
{
    /* Under the lock, so that the new thread and its first callers see l->thread set. */
    cci_monitor_lock(&l->monitor);
    int r = cci_thread_new(&l->thread, name, cci_loop_main, l);
    l->running = r == 0;
    cci_monitor_unlock(&l->monitor);
    return r ? cci_fail_errno(err, CC_ERR_UNKNOWN, -r, NULL, "cannot start the I/O thread") : CC_OK;
}

/* Ends the thread, if it runs, and waits for it. Not from the loop's own thread; no calls may be under way. */
static void cci_loop_stop(struct cci_loop *l)
{
    if (!l->running)
        return;
    cci_monitor_lock(&l->monitor);
    l->stop = true;
    cci_monitor_unlock(&l->monitor);
    cci_os_eventfd_signal(l->wake);
    cci_thread_join(&l->thread);
    l->running = false;
}

/* After cci_loop_stop, or after a failed cci_loop_init. */
static void cci_loop_destroy(struct cci_loop *l)
{
    cci_os_close(l->wake);
    cci_os_close(l->epoll);
    cci_monitor_destroy(&l->monitor);
}

#endif
