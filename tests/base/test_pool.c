// @sanitize address,undefined
// @sanitize thread
/*
 * The pool: threads only when there is work, every job exactly once, the rest done before the end.
 */
#include "../../src/base/pool.h"
#include "../check.h"

struct counted {
    struct cci_job job;
    struct cci_mutex *mutex;
    unsigned *total;
    unsigned runs;
};

static void count(struct cci_job *job)
{
    struct counted *c = (struct counted *)job;
    cci_mutex_lock(c->mutex);
    c->runs++;
    ++*c->total;
    cci_mutex_unlock(c->mutex);
}

static void test_every_job_once(void)
{
    enum { JOBS = 2000 };
    static struct counted jobs[JOBS];
    struct cci_pool pool;
    struct cci_mutex mutex;
    unsigned total = 0;
    cci_mutex_init(&mutex);
    cci_pool_init(&pool);
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i] = (struct counted){{count, NULL}, &mutex, &total, 0};
        CHECK(cci_pool_submit(&pool, &jobs[i].job));
    }
    cci_pool_destroy(&pool); /* runs what is left */
    CHECK_EQ_INT(total, JOBS);
    for (unsigned i = 0; i < JOBS; i++)
        CHECK_EQ_INT(jobs[i].runs, 1);
    cci_mutex_destroy(&mutex);
}

struct meeting {
    struct cci_job job;
    struct cci_mutex *mutex;
    struct cci_cond *cond;
    unsigned *present;
};

/* Ends only when CCI_POOL_THREADS jobs run at once. */
static void meet(struct cci_job *job)
{
    struct meeting *m = (struct meeting *)job;
    cci_mutex_lock(m->mutex);
    ++*m->present;
    cci_cond_wake(m->cond);
    while (*m->present < CCI_POOL_THREADS)
        (void)cci_cond_wait(m->cond, m->mutex, CCI_FOREVER);
    cci_mutex_unlock(m->mutex);
}

static void test_jobs_run_side_by_side(void)
{
    struct cci_pool pool;
    struct cci_mutex mutex;
    struct cci_cond cond;
    struct meeting jobs[CCI_POOL_THREADS];
    unsigned present = 0;
    cci_mutex_init(&mutex);
    cci_cond_init(&cond);
    cci_pool_init(&pool);
    CHECK_EQ_INT(pool.threads, 0);
    for (unsigned i = 0; i < CCI_POOL_THREADS; i++) {
        jobs[i] = (struct meeting){{meet, NULL}, &mutex, &cond, &present};
        CHECK(cci_pool_submit(&pool, &jobs[i].job));
    }
    CHECK_EQ_INT(pool.threads, CCI_POOL_THREADS);
    cci_pool_destroy(&pool);
    CHECK_EQ_INT(present, CCI_POOL_THREADS);
    cci_cond_destroy(&cond);
    cci_mutex_destroy(&mutex);
}

static void *no_memory(void *ctx, void *old, size_t size)
{
    (void)ctx;
    return size ? NULL : cci_mem_default_alloc(NULL, old, 0);
}

/* Without a thread the job stays the caller's. */
static void test_no_thread(void)
{
    struct cci_pool pool;
    struct cci_mutex mutex;
    unsigned total = 0;
    struct counted job = {{count, NULL}, &mutex, &total, 0};
    cci_mutex_init(&mutex);
    cci_pool_init(&pool);
    cci_mem_hook.realloc_fn = no_memory;
    bool taken = cci_pool_submit(&pool, &job.job);
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(!taken);
    CHECK(cci_pool_submit(&pool, &job.job));
    cci_pool_destroy(&pool);
    CHECK_EQ_INT(job.runs, 1);
    cci_mutex_destroy(&mutex);
}

int main(void)
{
    RUN(test_every_job_once);
    RUN(test_jobs_run_side_by_side);
    RUN(test_no_thread);
    return check_done();
}
