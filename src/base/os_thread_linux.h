/*
 * base/os_thread_linux.h - threads, mutexes and condition variables on Linux, by pthreads.
 *
 * Condition variables wait on the monotonic clock, so that a change of the host's date neither ends nor extends a
 * deadline. A new thread starts with every signal blocked: the library's threads must not steal signals that the
 * caller's program expects, and no handler of the caller ever runs on one of them.
 */
#ifndef CCI_BASE_OS_THREAD_LINUX_H
#define CCI_BASE_OS_THREAD_LINUX_H

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "mem.h"

/* Declared by libc only on request; the same types, so a second declaration is harmless. */
extern int pthread_condattr_setclock(pthread_condattr_t *attr, int clock);
extern long syscall(long number, ...);

struct cci_mutex {
    pthread_mutex_t m;
};

#define CCI_MUTEX_INIT                                                                                                 \
    {                                                                                                                  \
        PTHREAD_MUTEX_INITIALIZER                                                                                      \
    } /* for a static one */

struct cci_cond {
    pthread_cond_t c;
};

#define CCI_COND_INIT                                                                                                  \
    {                                                                                                                  \
        PTHREAD_COND_INITIALIZER                                                                                       \
    } /* for a static one, and only for waits without a deadline */

struct cci_thread {
    pthread_t t;
};

/* With default attributes none of these can fail on the platforms this file is for. */
static void cci_mutex_init(struct cci_mutex *m)
{
    (void)pthread_mutex_init(&m->m, NULL);
}

static void cci_mutex_destroy(struct cci_mutex *m)
{
    (void)pthread_mutex_destroy(&m->m);
}

static void cci_mutex_lock(struct cci_mutex *m)
{
    (void)pthread_mutex_lock(&m->m);
}

static void cci_mutex_unlock(struct cci_mutex *m)
{
    (void)pthread_mutex_unlock(&m->m);
}

static void cci_cond_init(struct cci_cond *c)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, 1 /* CLOCK_MONOTONIC */);
    (void)pthread_cond_init(&c->c, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static void cci_cond_destroy(struct cci_cond *c)
{
    (void)pthread_cond_destroy(&c->c);
}

/* To every waiter: conditions here have few waiters, and one woken in vain just waits again. */
static void cci_cond_wake(struct cci_cond *c)
{
    (void)pthread_cond_broadcast(&c->c);
}

#define CCI_FOREVER UINT64_MAX

/* Waits, with m held, until woken (also by nothing at all) or until cci_os_now() reaches `deadline_ns`. Returns
 * false when the deadline has passed. CCI_FOREVER never passes. */
static bool cci_cond_wait(struct cci_cond *c, struct cci_mutex *m, uint64_t deadline_ns)
{
    if (deadline_ns == CCI_FOREVER) {
        (void)pthread_cond_wait(&c->c, &m->m);
        return true;
    }
    struct timespec ts;
    ts.tv_sec = (time_t)(deadline_ns / 1000000000u);
    ts.tv_nsec = (long)(deadline_ns % 1000000000u);
    return pthread_cond_timedwait(&c->c, &m->m, &ts) != ETIMEDOUT;
}

/* What a thread of ours blocks: all but the faults (ILL TRAP BUS FPE SEGV SYS), which belong to the instruction that
 * made them, and 32 to 34, which libc uses among threads (a setuid in the caller waits for every thread to answer). */
#define CCI_OS_SIGNAL_BIT(n) ((uint64_t)1 << ((n)-1))
#define CCI_OS_MASK_ALL                                                                                                \
    (~(CCI_OS_SIGNAL_BIT(4) | CCI_OS_SIGNAL_BIT(5) | CCI_OS_SIGNAL_BIT(7) | CCI_OS_SIGNAL_BIT(8) |                     \
       CCI_OS_SIGNAL_BIT(11) | CCI_OS_SIGNAL_BIT(31) | CCI_OS_SIGNAL_BIT(32) | CCI_OS_SIGNAL_BIT(33) |                 \
       CCI_OS_SIGNAL_BIT(34)))

struct cci_thread_start {
    void (*fn)(void *ctx);
    void *ctx;
    char name[16];
};

/* Sets the calling thread's blocked signals (a kernel mask: bit n-1 is signal n); returns the old ones. */
static uint64_t cci_os_block_signals(uint64_t mask)
{
    uint64_t old = 0;
    (void)syscall(SYS_rt_sigprocmask, 2L /* SETMASK */, &mask, &old, 8L);
    return old;
}

static void *cci_thread_main(void *arg)
{
    struct cci_thread_start s = *(struct cci_thread_start *)arg;
    cci_mem_free(arg);
    (void)syscall(SYS_prctl, 15L /* SET_NAME */, s.name, 0L, 0L, 0L);
    s.fn(s.ctx);
    return NULL;
}

/* The name shows in debuggers and in ps; at most 15 bytes are kept. Returns 0 or an error number. */
static int cci_thread_new(struct cci_thread *t, const char *name, void (*fn)(void *ctx), void *ctx)
{
    struct cci_thread_start *s = cci_mem_alloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->fn = fn;
    s->ctx = ctx;
    (void)snprintf(s->name, sizeof(s->name), "%s", name);
    uint64_t old = cci_os_block_signals(CCI_OS_MASK_ALL);
    int r = pthread_create(&t->t, NULL, cci_thread_main, s);
    (void)cci_os_block_signals(old);
    if (r != 0)
        cci_mem_free(s);
    return -r;
}

static void cci_thread_join(struct cci_thread *t)
{
    (void)pthread_join(t->t, NULL);
}

/* Lets the thread end by itself, unwaited for. Only for one that touches nothing but memory of its own. */
static void cci_thread_detach(struct cci_thread *t)
{
    (void)pthread_detach(t->t);
}

static bool cci_thread_is_self(const struct cci_thread *t)
{
    return pthread_equal(t->t, pthread_self()) != 0;
}

/* Which thread it is, of any that there are. */
struct cci_thread_id {
    pthread_t t;
};

static struct cci_thread_id cci_thread_id_of_self(void)
{
    struct cci_thread_id id = {pthread_self()};
    return id;
}

static bool cci_thread_id_is_self(const struct cci_thread_id *id)
{
    return pthread_equal(id->t, pthread_self()) != 0;
}

#endif
