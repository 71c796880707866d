/*
 * WATCH: what happens to a file, or in a directory, as inotify(7) tells it.
 *
 * The inotify descriptor is the source of a stream (feed.c), which carries the kernel's records as they are. A host
 * that does not read them is not read from in turn: then the kernel's queue fills, and its last record says so.
 */
#include "agent.h"

#include <errno.h>
#include <sys/inotify.h>
#include <unistd.h>

static void settled(struct request *r)
{
    if (r->feeds[CCI_CHANNEL_FILE]->state == FEED_DONE)
        request_free(r);
}

static void detach(struct request *r)
{
    request_free(r);
}

void watch_request(uint64_t id, struct cci_proto_reader *in)
{
    const char *path = get_cstr(in);
    uint32_t mask = (uint32_t)cci_proto_get64(in);
    struct request *r;
    int fd;
    if (!path || in->bad) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (requests_too_many()) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0 || inotify_add_watch(fd, path, mask) < 0) {
        reply(id, errno, "inotify");
        if (fd >= 0)
            close(fd);
        return;
    }
    r = request_new(sizeof *r, id);
    r->detach = detach;
    feed_announce(feed_new(r, CCI_CHANNEL_FILE, fd, true, 0, settled));
    reply(id, 0, "");
}
