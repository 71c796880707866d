/*
 * tests/asleep.h - a thread that is known to wait.
 *
 *     struct asleep t;
 *     asleep_start(&t, fn, arg);    returns when the thread sleeps in the kernel, or has ended
 *     void *result = asleep_join(&t);
 *
 * For tests of what ends a call that waits. The library tells nobody that a call of it waits, and the kernel tells it
 * only to those who ask: so this asks, until the thread sleeps and has not been woken between two looks. (One that has
 * to wait for a busy lock for longer than that looks the same; it is inside the call, too.)
 */
#ifndef TESTS_ASLEEP_H
#define TESTS_ASLEEP_H

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

struct asleep {
    pthread_t thread;
    void *(*fn)(void *arg);
    void *arg;
    int tid; /* atomic; 0 until it runs */
};

static void *asleep_main(void *ctx)
{
    struct asleep *t = (struct asleep *)ctx;
    __atomic_store_n(&t->tid, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
    return t->fn(t->arg);
}

/* How often the thread went to sleep so far; 0 when it does not sleep now, -1 when it has ended. */
static long asleep_look(int tid)
{
    char path[64], line[200];
    long times = 0;
    bool sleeps = false;
    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "State:\t", 7) == 0)
            sleeps = line[7] == 'S';
        (void)sscanf(line, "voluntary_ctxt_switches: %ld", &times);
    }
    (void)fclose(f);
    return sleeps ? times : 0;
}

static void asleep_wait(const struct asleep *t)
{
    const struct timespec moment = {0, 1000000};
    for (long before = 0, now;; before = now) {
        const int tid = __atomic_load_n(&t->tid, __ATOMIC_ACQUIRE);
        now = tid ? asleep_look(tid) : 0;
        if (now < 0 || (now && now == before))
            return;
        (void)nanosleep(&moment, NULL);
    }
}

static void asleep_begin(struct asleep *t, void *(*fn)(void *arg), void *arg)
{
    *t = (struct asleep){.fn = fn, .arg = arg};
    CHECK(pthread_create(&t->thread, NULL, asleep_main, t) == 0);
}

static void asleep_start(struct asleep *t, void *(*fn)(void *arg), void *arg)
{
    asleep_begin(t, fn, arg);
    asleep_wait(t);
}

static void *asleep_join(struct asleep *t)
{
    void *result = NULL;
    CHECK(pthread_join(t->thread, &result) == 0);
    return result;
}

#endif
