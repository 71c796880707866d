/*
 * WATCH: what happens to a file, or in a directory, as inotify(7) tells it.
 *
 * The inotify descriptor is the source of a stream (feed.c), which carries the kernel's records as they are. A host
 * that does not read them is not read from in turn: then the kernel's queue fills, and its last record says so.
 *
 * The path is looked up by a worker while something is mounted that may keep one waiting (slow.c).
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

struct watch {
    struct request req;
    struct work work;
    char *path; /* NULL once it was looked up */
    uint32_t mask;
    int fd; /* inotify's; then the feed's */
    int err;
    bool given_up;
};

static void watch_free(struct watch *t)
{
    free(t->path);
    request_free(&t->req);
}

static void settled(struct request *r)
{
    if (r->feeds[CCI_CHANNEL_FILE]->state == FEED_DONE)
        watch_free((struct watch *)r); /* req is the first member */
}

static void detach(struct request *r)
{
    struct watch *t = (struct watch *)r;
    t->given_up = true;
    if (!t->path)
        watch_free(t);
}

static void look_up(struct work *w)
{
    struct watch *t = (struct watch *)((char *)w - offsetof(struct watch, work));
    t->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    t->err = t->fd < 0 || inotify_add_watch(t->fd, t->path, t->mask) < 0 ? errno : 0;
}

static void begin(struct work *w)
{
    struct watch *t = (struct watch *)((char *)w - offsetof(struct watch, work));
    uint64_t id = t->req.id;
    if (t->err || t->given_up) {
        if (t->fd >= 0)
            close(t->fd);
        if (!t->given_up)
            reply(id, t->err, "inotify");
        watch_free(t);
        return;
    }
    free(t->path);
    t->path = NULL;
    feed_announce(feed_new(&t->req, CCI_CHANNEL_FILE, t->fd, true, 0, settled));
    reply(id, 0, "");
}

void watch_request(uint64_t id, struct cci_proto_reader *in)
{
    const char *path = get_cstr(in);
    uint32_t mask = (uint32_t)cci_proto_get64(in);
    struct watch *t;
    if (!path || in->bad) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (requests_too_many() || work_too_much()) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    t = (struct watch *)request_new(sizeof *t, id);
    t->req.detach = detach;
    t->path = join(path, "", "");
    t->mask = mask;
    t->work.run = look_up;
    t->work.done = begin;
    if (slow_anywhere()) {
        work_start(&t->work);
        return;
    }
    look_up(&t->work);
    begin(&t->work);
}
