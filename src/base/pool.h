/*
 * base/pool.h - a few threads for work that may block on a disk.
 *
 * The I/O thread of an instance never waits for a disk: it hands such work to this pool. Threads are made when work is
 * waiting and none is idle, up to the pool's limit, so an instance whose files are all cached has none. A job is part
 * of its owner's structure; it runs once, on any thread of the pool, and belongs to its owner again as soon as its
 * function has been entered.
 */
#ifndef CCI_BASE_POOL_H
#define CCI_BASE_POOL_H

#include "os.h"

#define CCI_POOL_THREADS 2

struct cci_job {
    void (*fn)(struct cci_job *job);
    struct cci_job *next;
};

struct cci_pool {
    struct cci_mutex mutex; /* guards everything */
    struct cci_cond more;   /* a job was added, or stop was set */
    struct cci_job *first, **last;
    unsigned waiting; /* jobs in the list */
    unsigned idle;    /* threads without a job */
    unsigned threads;
    bool stop;
    struct cci_thread thread[CCI_POOL_THREADS];
};

static void cci_pool_init(struct cci_pool *p)
{
    memset(p, 0, sizeof(*p));
    cci_mutex_init(&p->mutex);
    cci_cond_init(&p->more);
    p->last = &p->first;
}

static void cci_pool_main(void *ctx)
{
    struct cci_pool *p = ctx;
    cci_mutex_lock(&p->mutex);
    for (;;) {
        p->idle++;
        while (!p->first && !p->stop)
            (void)cci_cond_wait(&p->more, &p->mutex, CCI_FOREVER);
        p->idle--;
        struct cci_job *job = p->first;
        if (!job)
            break;
        p->first = job->next;
        if (!p->first)
            p->last = &p->first;
        p->waiting--;
        cci_mutex_unlock(&p->mutex);
        job->fn(job);
        cci_mutex_lock(&p->mutex);
    }
    cci_mutex_unlock(&p->mutex);
}

/* Has job->fn(job) called on a thread of the pool. False, and nothing happens, when there is no thread and none can be
 * made: the caller then does the work itself. */
static bool cci_pool_submit(struct cci_pool *p, struct cci_job *job)
{
    cci_mutex_lock(&p->mutex);
    if (p->idle <= p->waiting && p->threads < CCI_POOL_THREADS &&
        cci_thread_new(&p->thread[p->threads], "cc-disk", cci_pool_main, p) == 0)
        p->threads++;
    bool taken = p->threads > 0;
    if (taken) {
        job->next = NULL;
        *p->last = job;
        p->last = &job->next;
        p->waiting++;
        cci_cond_wake(&p->more);
    }
    cci_mutex_unlock(&p->mutex);
    return taken;
}

/* Runs what is waiting, then ends the threads. No job may be submitted any more. */
static void cci_pool_destroy(struct cci_pool *p)
{
    cci_mutex_lock(&p->mutex);
    p->stop = true;
    cci_cond_wake(&p->more);
    cci_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->threads; i++)
        cci_thread_join(&p->thread[i]);
    cci_cond_destroy(&p->more);
    cci_mutex_destroy(&p->mutex);
}

#endif
