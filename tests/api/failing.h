/*
 * tests/api/failing.h - an allocator that counts, and that fails when it is told to.
 */
#ifndef TESTS_API_FAILING_H
#define TESTS_API_FAILING_H

#include "no_vm.h"

#include <dirent.h>

static long failing_left;     /* allocations until one fails; negative: none does. Atomic, as are the others */
static bool failing_for_good; /* and all after it */
static long failing_live;     /* blocks allocated and not freed */

static void *failing_realloc(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size == 0) {
        if (old)
            __atomic_sub_fetch(&failing_live, 1, __ATOMIC_RELAXED);
        free(old);
        return NULL;
    }
    long left = __atomic_fetch_sub(&failing_left, 1, __ATOMIC_RELAXED);
    if (left == 0 || (left < 0 && __atomic_load_n(&failing_for_good, __ATOMIC_RELAXED)))
        return NULL;
    void *p = realloc(old, size);
    if (p && !old)
        __atomic_add_fetch(&failing_live, 1, __ATOMIC_RELAXED);
    return p;
}

/* From now on: allocation n fails (0 is the next), and with `for_good` all after it. */
static void failing_at(long n, bool for_good)
{
    __atomic_store_n(&failing_for_good, for_good, __ATOMIC_RELAXED);
    __atomic_store_n(&failing_left, n, __ATOMIC_RELAXED);
}

/* From now on none fails. Returns how many were to be left until one did, negative when it has. */
static long failing_stop(void)
{
    __atomic_store_n(&failing_for_good, false, __ATOMIC_RELAXED);
    return __atomic_exchange_n(&failing_left, -1, __ATOMIC_RELAXED);
}

static void failing_install(void)
{
    const cc_allocator a = {failing_realloc, NULL};
    failing_left = -1;
    CHECK_EQ_INT(cc_set_allocator(&a, NULL), CC_OK);
}

static int count_in(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        (void)closedir(d);
    return n;
}

/* What may be left behind. */
struct left_behind {
    int fds, threads;
    long blocks;
};

static struct left_behind left_behind(void)
{
    struct left_behind l = {count_in("/proc/self/fd"), count_in("/proc/self/task"), 0};
    l.blocks = __atomic_load_n(&failing_live, __ATOMIC_RELAXED);
    return l;
}

static void check_left_behind(struct left_behind before)
{
    struct left_behind now = left_behind();
    /* A thread that was joined stays listed until the kernel is through with it. */
    for (uint64_t end = cci_os_now() + 5000000000u; now.threads > before.threads && cci_os_now() < end;)
        now = left_behind();
    CHECK_EQ_INT(now.fds, before.fds);
    CHECK_EQ_INT(now.threads, before.threads);
    CHECK_EQ_INT(now.blocks, before.blocks);
}

#endif
