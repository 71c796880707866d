/*
 * Worker threads, for what may take long: the loop must not be held up by one request.
 *
 * A worker runs work->run, which touches nothing but its own structure and the files it is about; then the
 * loop runs work->done, which answers. Threads are made when there is work and none is idle, up to WORKERS,
 * and the first few of them stay. More work than threads waits in a queue, in order. There may be many: a file system
 * that never answers keeps one for each request about it, and a copy has one for as long as it takes.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WORKERS = 512, KEPT = 4, STACK = 128 << 10 };

struct work_list {
    struct work *first, **last;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct work_list todo = {NULL, &todo.first}, finished = {NULL, &finished.first};
static unsigned workers, idle, waiting; /* threads; those without work; length of todo */
static unsigned unfinished;             /* the loop's: started, done not yet called */
static struct source bell;              /* an eventfd that workers ring */

static void put(struct work_list *l, struct work *w)
{
    w->next = NULL;
    *l->last = w;
    l->last = &w->next;
}

static struct work *take(struct work_list *l)
{
    struct work *w = l->first;
    if (w && !(l->first = w->next))
        l->last = &l->first;
    return w;
}

/* On the loop. */
static void bell_ready(struct source *s, uint32_t events)
{
    uint64_t n;
    struct work *w;
    (void)events;
    if (read(s->fd, &n, sizeof n) < 0)
        return;
    do {
        pthread_mutex_lock(&mutex);
        w = take(&finished);
        pthread_mutex_unlock(&mutex);
        if (w) {
            unfinished--;
            w->done(w);
        }
    } while (w);
}

static void *worker(void *arg)
{
    const uint64_t one = 1;
    (void)arg;
    pthread_mutex_lock(&mutex);
    for (;;) {
        struct work *w = take(&todo);
        if (!w && idle >= KEPT)
            break;
        if (!w) {
            idle++;
            pthread_cond_wait(&more, &mutex);
            idle--;
            continue;
        }
        waiting--;
        pthread_mutex_unlock(&mutex);
        w->run(w);
        pthread_mutex_lock(&mutex);
        put(&finished, w);
        if (write(bell.fd, &one, sizeof one) < 0)
            die("eventfd", errno);
    }
    workers--;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

/* With the mutex held. Without a thread the work waits for one of those there are. */
static void add_worker(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK);
    if (pthread_create(&thread, &attr, worker, NULL) == 0)
        workers++;
    else if (workers == 0)
        die("thread", EAGAIN);
    pthread_attr_destroy(&attr);
}

void work_init(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0 || loop_add(&bell, fd, EPOLLIN, bell_ready))
        die("eventfd", errno);
}

bool work_too_much(void)
{
    return unfinished >= MAX_REQUESTS;
}

void work_start(struct work *w)
{
    unfinished++;
    pthread_mutex_lock(&mutex);
    put(&todo, w);
    waiting++;
    if (waiting > idle && workers < WORKERS)
        add_worker();
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&mutex);
}
