/* Waiting, cancelling, and the I/O thread.
 * @sanitize address,undefined
 * @sanitize thread
 */
#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>

#include "../../src/base/loop.h"
#include "../asleep.h"

/* ---- Monitors and tokens ---- */

struct box {
    struct cci_monitor m;
    bool full;
    struct cci_cancel *token;
};

static bool box_full(void *ctx)
{
    return ((struct box *)ctx)->full;
}

static void fill_box(void *ctx)
{
    struct box *b = ctx;
    cci_monitor_lock(&b->m);
    b->full = true;
    cci_cond_wake(&b->m.cond);
    cci_monitor_unlock(&b->m);
}

static void cancel_box(void *ctx)
{
    cci_cancel_fire(((struct box *)ctx)->token);
}

static cc_error_code wait_for_box(struct box *b, uint64_t deadline)
{
    struct cci_wait w = {deadline, b->token};
    cc_error_code code = cci_monitor_wait(&b->m, &w, box_full, b, "the box", NULL);
    cci_monitor_unlock(&b->m);
    return code;
}

static void test_wait_ends_by_what_comes_first(void)
{
    for (int i = 0; i < 200; i++) {
        struct box b = {.full = false, .token = cci_cancel_new()};
        cci_monitor_init(&b.m);
        struct cci_thread t;
        CHECK_EQ_INT(cci_thread_new(&t, "filler", i % 2 ? fill_box : cancel_box, &b), 0);
        CHECK_EQ_INT(wait_for_box(&b, CCI_FOREVER), i % 2 ? CC_OK : CC_ERR_CANCELLED);
        cci_thread_join(&t);
        CHECK_EQ_INT(wait_for_box(&b, cci_os_now()), i % 2 ? CC_OK : CC_ERR_CANCELLED);
        cci_cancel_unref(b.token);
        b.token = NULL;
        b.full = false;
        CHECK_EQ_INT(wait_for_box(&b, cci_os_now() + 1000000), CC_ERR_TIMEOUT);
        cci_monitor_destroy(&b.m);
    }
}

static void *wait_ten_seconds(void *ctx)
{
    return (void *)(intptr_t)wait_for_box(ctx, cci_os_now() + 10000000000u);
}

/* A token that fires when the waiter is known to it, and does not sleep yet: there is nobody to wake. */
static void test_token_fires_before_the_sleep(void)
{
    struct box b = {.full = false, .token = cci_cancel_new()};
    struct asleep t;
    cci_monitor_init(&b.m);
    cci_monitor_lock(&b.m);
    asleep_start(&t, wait_ten_seconds, &b); /* its hook is attached, and it sleeps for the monitor's lock */
    uint64_t began = cci_os_now();
    /* What cci_cancel_fire does, by who has the lock already. */
    cci_mutex_lock(&b.token->mutex);
    b.token->cancelled = true;
    ((struct cci_monitor_waiter *)b.token->hooks->ctx)->cancelled = true;
    cci_mutex_unlock(&b.token->mutex);
    cci_cond_wake(&b.m.cond);
    cci_monitor_unlock(&b.m);
    CHECK_EQ_INT((intptr_t)asleep_join(&t), CC_ERR_CANCELLED);
    CHECK(cci_os_now() - began < 5000000000u);
    cci_cancel_unref(b.token);
    cci_monitor_destroy(&b.m);
}

static void test_error_says_what_was_waited_for(void)
{
    struct box b = {.full = false};
    cc_error err = {0};
    cci_monitor_init(&b.m);
    struct cci_wait w = {0, NULL};
    CHECK_EQ_INT(cci_monitor_wait(&b.m, &w, box_full, &b, "the box", &err), CC_ERR_TIMEOUT);
    cci_monitor_unlock(&b.m);
    CHECK_EQ_STR(err.message, "timed out waiting for the box");
    cci_error_release(&err);
    cci_monitor_destroy(&b.m);
}

/* ---- The loop ---- */

struct counter {
    struct cci_loop *loop;
    struct cci_loop_source source, other;
    int calls, other_calls;
    bool remove_other;
    struct cci_monitor m;
};

static void count_event(void *ctx, uint32_t events)
{
    struct counter *c = ctx;
    (void)events;
    (void)cci_os_eventfd_take(c->source.fd);
    if (c->remove_other)
        cci_loop_remove(c->loop, &c->other);
    cci_monitor_lock(&c->m);
    c->calls++;
    cci_cond_wake(&c->m.cond);
    cci_monitor_unlock(&c->m);
}

static void count_other(void *ctx, uint32_t events)
{
    struct counter *c = ctx;
    (void)events;
    (void)cci_os_eventfd_take(c->other.fd);
    c->other_calls++;
}

static bool was_called(void *ctx)
{
    return ((struct counter *)ctx)->calls > 0;
}

static void counter_init(struct counter *c, struct cci_loop *l)
{
    memset(c, 0, sizeof(*c));
    c->loop = l;
    c->source.fn = count_event;
    c->other.fn = count_other;
    c->source.ctx = c->other.ctx = c;
    c->source.fd = cci_os_eventfd();
    c->other.fd = cci_os_eventfd();
    cci_monitor_init(&c->m);
}

static void counter_free(struct counter *c)
{
    cci_os_close(c->source.fd);
    cci_os_close(c->other.fd);
    cci_monitor_destroy(&c->m);
}

static void add_source(void *ctx)
{
    struct counter *c = ctx;
    (void)cci_loop_add(c->loop, &c->source, CCI_LOOP_READ, NULL);
}

static void test_loop_dispatches_and_calls(void)
{
    struct cci_loop l;
    cc_error err = {0};
    struct counter c;
    CHECK_OK(cci_loop_init(&l, &err), err);
    counter_init(&c, &l);
    CHECK_OK(cci_loop_start(&l, "io", &err), err);
    cci_loop_call(&l, add_source, &c);
    cci_os_eventfd_signal(c.source.fd);
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    CHECK_EQ_INT(cci_monitor_wait(&c.m, &forever, was_called, &c, "a call", NULL), CC_OK);
    cci_monitor_unlock(&c.m);
    cci_loop_stop(&l);
    cci_loop_destroy(&l);
    counter_free(&c);
}

static void test_removed_source_is_not_called_in_the_same_batch(void)
{
    struct cci_loop l;
    cc_error err = {0};
    struct counter c;
    CHECK_OK(cci_loop_init(&l, &err), err);
    counter_init(&c, &l);
    c.remove_other = true;
    CHECK_OK(cci_loop_add(&l, &c.source, CCI_LOOP_READ, &err), err);
    CHECK_OK(cci_loop_add(&l, &c.other, CCI_LOOP_READ, &err), err);
    cci_os_eventfd_signal(c.source.fd); /* becomes ready first, so it is dispatched first */
    cci_os_eventfd_signal(c.other.fd);
    CHECK_OK(cci_loop_start(&l, "io", &err), err);
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    CHECK_EQ_INT(cci_monitor_wait(&c.m, &forever, was_called, &c, "a call", NULL), CC_OK);
    cci_monitor_unlock(&c.m);
    cci_loop_stop(&l);
    CHECK_EQ_INT(c.other_calls, 0);
    cci_loop_destroy(&l);
    counter_free(&c);
}

static void note_mask(void *ctx)
{
    sigset_t *set = ctx;
    (void)pthread_sigmask(SIG_BLOCK, NULL, set);
}

static void test_threads_take_no_signals(void)
{
    struct cci_loop l;
    cc_error err = {0};
    sigset_t set;
    CHECK_OK(cci_loop_init(&l, &err), err);
    CHECK_OK(cci_loop_start(&l, "io", &err), err);
    cci_loop_call(&l, note_mask, &set);
    cci_loop_stop(&l);
    cci_loop_destroy(&l);
    CHECK(sigismember(&set, SIGINT) == 1 && sigismember(&set, SIGUSR1) == 1 && sigismember(&set, SIGCHLD) == 1);
    CHECK(sigismember(&set, SIGSEGV) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &set) == 0 && sigismember(&set, SIGINT) == 0);
}

int main(void)
{
    RUN(test_wait_ends_by_what_comes_first);
    RUN(test_token_fires_before_the_sleep);
    RUN(test_error_says_what_was_waited_for);
    RUN(test_loop_dispatches_and_calls);
    RUN(test_removed_source_is_not_called_in_the_same_batch);
    RUN(test_threads_take_no_signals);
    return check_done();
}
