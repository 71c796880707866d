/*
 * base/cancel.h - what a blocking call waits under: a deadline and a cancel token.
 *
 * A token is a flag with a list of hooks. Whoever is about to block attaches a hook; cancelling runs every hook,
 * and a hook wakes its waiter's condition variable. Hooks run with the token's mutex held, so once cci_cancel_detach
 * has returned the hook will not run again and its memory may go. Lock order: token before waiter, so attach and
 * detach without holding the waiter's mutex.
 *
 * Tokens are counted: the API handle holds one reference and every call that waits under the token another.
 */
#ifndef CCI_BASE_CANCEL_H
#define CCI_BASE_CANCEL_H

#include "error.h"
#include "os.h"

struct cci_cancel_hook {
    void (*fn)(void *ctx); /* wakes the waiter; must not block, and must not touch the token */
    void *ctx;
    struct cci_cancel_hook *next, **link; /* the token's list; link is NULL when not attached */
};

struct cci_cancel {
    struct cci_mutex mutex;
    unsigned refs;
    bool cancelled;
    struct cci_cancel_hook *hooks;
};

/* How long a call may wait. */
struct cci_wait {
    uint64_t deadline;         /* in cci_os_now() nanoseconds, or CCI_FOREVER */
    struct cci_cancel *cancel; /* or NULL */
};

#define CCI_WAIT_FOREVER ((struct cci_wait){CCI_FOREVER, NULL})

static struct cci_cancel *cci_cancel_new(void)
{
    struct cci_cancel *c = cci_mem_zalloc(1, sizeof(*c));
    if (!c)
        return NULL;
    cci_mutex_init(&c->mutex);
    c->refs = 1;
    return c;
}

static struct cci_cancel *cci_cancel_ref(struct cci_cancel *c)
{
    if (!c)
        return NULL;
    cci_mutex_lock(&c->mutex);
    c->refs++;
    cci_mutex_unlock(&c->mutex);
    return c;
}

static void cci_cancel_unref(struct cci_cancel *c)
{
    if (!c)
        return;
    cci_mutex_lock(&c->mutex);
    bool last = --c->refs == 0;
    cci_mutex_unlock(&c->mutex);
    if (!last)
        return;
    cci_mutex_destroy(&c->mutex);
    cci_mem_free(c);
}

static void cci_cancel_fire(struct cci_cancel *c)
{
    cci_mutex_lock(&c->mutex);
    c->cancelled = true;
    for (struct cci_cancel_hook *h = c->hooks; h; h = h->next)
        h->fn(h->ctx);
    cci_mutex_unlock(&c->mutex);
}

/* A NULL token is never cancelled. */
static bool cci_cancel_is_set(struct cci_cancel *c)
{
    if (!c)
        return false;
    cci_mutex_lock(&c->mutex);
    bool set = c->cancelled;
    cci_mutex_unlock(&c->mutex);
    return set;
}

/* The hook runs at every later cancellation. Returns true if there was one already. */
static bool cci_cancel_attach(struct cci_cancel *c, struct cci_cancel_hook *h, void (*fn)(void *ctx), void *ctx)
{
    h->fn = fn;
    h->ctx = ctx;
    h->link = NULL;
    if (!c)
        return false;
    cci_mutex_lock(&c->mutex);
    h->next = c->hooks;
    h->link = &c->hooks;
    if (h->next)
        h->next->link = &h->next;
    c->hooks = h;
    bool cancelled = c->cancelled;
    cci_mutex_unlock(&c->mutex);
    return cancelled;
}

static void cci_cancel_detach(struct cci_cancel *c, struct cci_cancel_hook *h)
{
    if (!c)
        return;
    cci_mutex_lock(&c->mutex); /* neighbours in the list write h->link, too */
    if (h->link) {
        *h->link = h->next;
        if (h->next)
            h->next->link = h->link;
        h->link = NULL;
    }
    cci_mutex_unlock(&c->mutex);
}

/* CC_OK while the caller still wants the result: for work that does not block but takes long. `what` is what it is
 * doing: "reading an image". */
static cc_error_code cci_wait_check(const struct cci_wait *wait, const char *path, const char *what, cc_error *err)
{
    if (cci_cancel_is_set(wait->cancel))
        return cci_fail(err, CC_ERR_CANCELLED, path, "cancelled while %s", what);
    if (wait->deadline != CCI_FOREVER && cci_os_now() >= wait->deadline)
        return cci_fail(err, CC_ERR_TIMEOUT, path, "timed out while %s", what);
    return CC_OK;
}

/* A mutex and condition variable that a cancellation wakes as well: what most waiters want. */
struct cci_monitor {
    struct cci_mutex mutex;
    struct cci_cond cond;
};

static void cci_monitor_init(struct cci_monitor *m)
{
    cci_mutex_init(&m->mutex);
    cci_cond_init(&m->cond);
}

static void cci_monitor_destroy(struct cci_monitor *m)
{
    cci_cond_destroy(&m->cond);
    cci_mutex_destroy(&m->mutex);
}

static void cci_monitor_lock(struct cci_monitor *m)
{
    cci_mutex_lock(&m->mutex);
}

static void cci_monitor_unlock(struct cci_monitor *m)
{
    cci_mutex_unlock(&m->mutex);
}

/* One wait on a monitor, as a cancellation sees it. */
struct cci_monitor_waiter {
    struct cci_monitor *m;
    bool cancelled; /* under the monitor's mutex */
};

static void cci_monitor_on_cancel(void *ctx)
{
    struct cci_monitor_waiter *w = ctx;
    cci_mutex_lock(&w->m->mutex);
    w->cancelled = true;
    cci_cond_wake(&w->m->cond);
    cci_mutex_unlock(&w->m->mutex);
}

/*
 * Waits until done(ctx) holds, which is asked with the monitor locked. Called without the lock; returns with it held,
 * whatever the result: CC_OK (done(ctx) holds), CC_ERR_TIMEOUT or CC_ERR_CANCELLED. What was waited for is named in
 * the message: "timed out waiting for <what>".
 */
static cc_error_code cci_monitor_wait(struct cci_monitor *m, const struct cci_wait *wait, bool (*done)(void *ctx),
                                      void *ctx, const char *what, cc_error *err)
{
    struct cci_monitor_waiter w = {m, false};
    struct cci_cancel_hook hook;
    bool cancelled = cci_cancel_attach(wait->cancel, &hook, cci_monitor_on_cancel, &w);
    bool timed_out = false;
    cci_mutex_lock(&m->mutex);
    w.cancelled |= cancelled; /* or the token has fired since, before there was anybody to wake */
    while (!done(ctx) && !w.cancelled && !timed_out)
        timed_out = !cci_cond_wait(&m->cond, &m->mutex, wait->deadline);
    cancelled = w.cancelled;
    if (wait->cancel) { /* the token's mutex comes before the monitor's, so let go of that meanwhile */
        cci_mutex_unlock(&m->mutex);
        cci_cancel_detach(wait->cancel, &hook);
        cci_mutex_lock(&m->mutex);
    }
    if (done(ctx))
        return CC_OK;
    if (cancelled)
        return cci_fail(err, CC_ERR_CANCELLED, NULL, "cancelled while waiting for %s", what);
    if (timed_out)
        return cci_fail(err, CC_ERR_TIMEOUT, NULL, "timed out waiting for %s", what);
    /* It held, and somebody else took it while the lock was let go. */
    cci_mutex_unlock(&m->mutex);
    return cci_monitor_wait(m, wait, done, ctx, what, err);
}

#endif
