/* The epoll loop. Events come in batches, so an object may be closed while a later event of the same
   batch still points to it: closing clears the callback, and memory is freed after the batch. */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH = 32 };

static int epoll_fd;
static void **doomed; /* to be freed after this batch */
static size_t doomed_len, doomed_cap;

void loop_init(void)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll", errno);
}

int loop_add(struct source *s, int fd, uint32_t events, void (*ready)(struct source *, uint32_t))
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    s->fd = fd;
    s->events = events;
    s->ready = ready;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0)
        return 0;
    s->ready = NULL; /* regular files and some devices cannot be watched */
    return errno;
}

void loop_watch(struct source *s, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    if (!s->ready || s->events == events)
        return;
    s->events = events;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &ev))
        die("epoll", errno);
}

void loop_close(struct source *s)
{
    if (s->fd < 0)
        return;
    /* Closing alone does not take it out of the set while somebody shares the open file, and a child
       does for a moment: execve wakes a vfork parent before it closes what is close-on-exec. */
    if (s->ready)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
    close(s->fd);
    s->fd = -1;
    s->ready = NULL;
}

int loop_release(struct source *s)
{
    int fd = s->fd;
    if (s->ready)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    s->fd = -1;
    s->ready = NULL;
    return fd;
}

void loop_free(void *p)
{
    if (!p)
        return;
    if (doomed_len == doomed_cap) {
        doomed_cap = doomed_cap ? doomed_cap * 2 : 64;
        doomed = must(realloc(doomed, doomed_cap * sizeof *doomed));
    }
    doomed[doomed_len++] = p;
}

void loop_run(void)
{
    struct epoll_event events[BATCH];
    for (;;) {
        int n = epoll_wait(epoll_fd, events, BATCH, -1);
        if (n < 0 && errno != EINTR)
            die("epoll", errno);
        for (int i = 0; i < n; i++) {
            struct source *s = events[i].data.ptr;
            if (s->ready)
                s->ready(s, events[i].events);
        }
        while (doomed_len)
            free(doomed[--doomed_len]);
    }
}
