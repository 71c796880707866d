/*
 * Requests: the table of those that are not finished, and what a frame from the host leads to.
 *
 * A frame of the control connection is a request, which a part of the agent answers at once or keeps in the table. A
 * new connection says with its first frame, ATTACH, which request it is for; from then on it carries bytes of that one,
 * to the host (a feed) or from it (a sink or an intake).
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

struct request *requests;
static unsigned request_count;

/* ---- the table ----------------------------------------------------------------------------- */

struct request *request_new(size_t size, uint64_t id)
{
    struct request *r = must(calloc(1, size));
    r->id = id;
    r->next = requests;
    requests = r;
    request_count++;
    return r;
}

bool requests_too_many(void)
{
    return request_count >= MAX_REQUESTS;
}

struct request *request_find(uint64_t id)
{
    struct request *r = requests;
    while (r && r->id != id)
        r = r->next;
    return r;
}

void request_free(struct request *r)
{
    struct request **at = &requests;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    request_count--;
    for (int i = 0; i < CCI_CHANNELS; i++)
        feed_free(r->feeds[i]);
    if (r->sink) {
        r->sink->request = NULL;
        conn_close(r->sink);
    }
    intake_free(r->intake);
    loop_free(r);
}

/* ---- frames of the control connection ------------------------------------------------------ */

static void kill_request(uint64_t id, struct cci_proto_reader *in)
{
    uint64_t target = cci_proto_get64(in);
    exec_kill(id, target, (int)cci_proto_get32(in));
}

static void detach_request(uint64_t id, struct cci_proto_reader *in)
{
    struct request *r = request_find(cci_proto_get64(in));
    if (r)
        r->detach(r);
    reply(id, 0, "");
}

static void ping(uint64_t id, struct cci_proto_reader *in)
{
    struct cci_proto_writer *w = reply_begin(id, 0, "", in->left < 4096 ? in->left : 4096);
    cci_proto_put_raw(w, in->at, in->left < 4096 ? in->left : 4096);
    frame_end();
}

void request_received(uint32_t type, uint64_t id, struct cci_proto_reader *in)
{
    if (request_find(id)) {
        reply(id, EEXIST, "request id in use");
        return;
    }
    if (requests_too_many() && (type == CCI_MSG_EXEC || type == CCI_MSG_READ_FILE || type == CCI_MSG_WRITE_FILE)) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    switch (type) {
    case CCI_MSG_CONFIGURE:
        system_configure(id, in);
        break;
    case CCI_MSG_PING:
        ping(id, in);
        break;
    case CCI_MSG_EXEC:
        exec_request(id, in);
        break;
    case CCI_MSG_KILL:
        kill_request(id, in);
        break;
    case CCI_MSG_DETACH:
        detach_request(id, in);
        break;
    case CCI_MSG_READ_FILE:
        file_read(id, in);
        break;
    case CCI_MSG_WRITE_FILE:
        file_write(id, in);
        break;
    case CCI_MSG_RESIZE:
        exec_resize(id, in);
        break;
    case CCI_MSG_STOP:
        stop_request(id, in);
        break;
    case CCI_MSG_SHUTDOWN:
        system_shutdown(id);
        break;
    case CCI_MSG_MOUNT:
        mount_request(id, in);
        break;
    case CCI_MSG_READ_DIR:
        dir_read(id, in);
        break;
    case CCI_MSG_COPY_IN:
    case CCI_MSG_COPY_OUT:
        copy_request(id, in, type == CCI_MSG_COPY_OUT);
        break;
    case CCI_MSG_WATCH:
        watch_request(id, in);
        break;
    default:
        if (!path_request(type, id, in) && !handle_request(type, id, in))
            reply(id, ENOSYS, "request unknown to this agent");
        break;
    }
}

/* ---- connections for one -------------------------------------------------------------------- */

bool request_attach(struct conn *c, struct cci_proto_reader *in)
{
    struct request *r = request_find(cci_proto_get64(in));
    uint32_t channel = cci_proto_get32(in);
    if (!r || in->bad || channel >= CCI_CHANNELS)
        return false;
    if (r->feeds[channel]) {
        if (r->feeds[channel]->state != FEED_ANNOUNCED)
            return false;
        c->kind = CONN_FEED;
        feed_attach(r->feeds[channel], c);
        return true;
    }
    if (channel == CCI_CHANNEL_FILE && r->attached) {
        void (*attached)(struct request *, int) = r->attached;
        int fd = loop_release(&c->src);
        conn_close(c);
        fcntl(fd, F_SETFL, 0);
        r->attached = NULL; /* once */
        attached(r, fd);
        return true;
    }
    if (channel == CCI_CHANNEL_STDIN && r->intake) {
        if (intake_attached(r->intake))
            return false;
        c->kind = CONN_INTAKE;
        intake_attach(r->intake, c);
        return true;
    }
    if (channel != CCI_CHANNEL_FILE || !r->data || r->sink)
        return false;
    c->kind = CONN_SINK;
    c->request = r;
    r->sink = c;
    return true;
}

bool request_fill(struct conn *c, uint32_t type, struct cci_proto_reader *in)
{
    struct request *r = c->request;
    if (type == CCI_MSG_DATA) {
        if (in->left)
            r->data(r, in->at, in->left, 0);
        return c->kind != CONN_DEAD;
    }
    r->sink = NULL;
    c->request = NULL;
    r->data(r, NULL, 0, type == CCI_MSG_END ? (int)cci_proto_get32(in) : EPROTO);
    return false;
}

void request_cut_off(struct conn *c)
{
    struct request *r = c->request;
    if (!r)
        return;
    c->request = NULL;
    r->sink = NULL;
    r->data(r, NULL, 0, ECONNRESET);
}
