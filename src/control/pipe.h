/*
 * control/pipe.h - one standard stream of a command, as a connection of its own.
 *
 *     cci_pipe_open        dials and attaches to a channel of a command that has started
 *     cci_pipe_read        what the program printed, as soon as there is some; 0 bytes at the end
 *     cci_pipe_write       to the program's standard input, all of it
 *     cci_pipe_interrupt   ends the waits of other threads, for good
 *     cci_pipe_free        closes: the program reads the end of its input, or gets SIGPIPE
 *
 * Nothing is kept here: a read takes bytes from the connection into the caller's buffer, and what is not read stays
 * with the connection, then with the agent, then with the program, which has to wait. It is the same with writes the
 * other way round. Only the frames (guest/protocol.h, "Streams") are taken apart and made; a wait that was given up may
 * leave one half done, and the next call goes on with it.
 *
 * Several threads may read one pipe, or write to it: each call has it to itself.
 *
 * A connection that breaks is the end of the program's side, or of the whole guest; a ping of the agent tells which.
 */
#ifndef CCI_CONTROL_PIPE_H
#define CCI_CONTROL_PIPE_H

#include "../base/stream_io.h"
#include "client.h"

enum { CCI_PIPE_ATTACH = CCI_PROTO_HEADER + 12, CCI_PIPE_SMALL = 2048 };

struct cci_pipe {
    struct cci_control *control; /* of the command, which lives longer */
    struct cci_stream *stream;
    struct cci_stream_io io;
    struct cci_monitor turn; /* guards busy and closed */
    bool busy;               /* a thread reads or writes; the rest is its alone */
    bool closed;
    uint8_t head[CCI_PROTO_HEADER]; /* of the frame under way */
    size_t head_done;               /* bytes of it received; or of it sent */
    uint32_t left;                  /* bytes of its payload still to come; or to be sent */
    bool ended;                     /* reading: END came, or something that breaks the protocol */
    uint8_t end[4];                 /* END's errno */
    size_t end_done;                /* bytes of it received */
};

static cc_error_code cci_pipe_attach(struct cci_pipe *p, uint64_t id, uint32_t channel, const struct cci_wait *wait,
                                     cc_error *err)
{
    uint8_t frame[CCI_PIPE_ATTACH];
    struct cci_proto_writer w = {frame + CCI_PROTO_HEADER, sizeof(frame) - CCI_PROTO_HEADER, 0};
    size_t done;
    cci_proto_store_header(frame, (uint32_t)w.cap, CCI_MSG_ATTACH, id);
    cci_proto_put64(&w, id);
    cci_proto_put32(&w, channel);
    return cci_stream_io_write(&p->io, frame, sizeof(frame), &done, wait, err);
}

static void cci_pipe_free(struct cci_pipe *p)
{
    if (!p)
        return;
    cci_stream_io_end(&p->io);
    cci_stream_close(p->stream);
    cci_monitor_destroy(&p->turn);
    cci_mem_free(p);
}

/* Waits for the agent's confirmation: an empty DATA frame. A program that has ended meanwhile has no input to confirm,
 * and its connection is closed; the first write will tell. */
static cc_error_code cci_pipe_confirm(struct cci_pipe *p, const struct cci_wait *wait, cc_error *err)
{
    size_t got = 1;
    for (size_t at = 0; at < sizeof(p->head) && got; at += got) {
        cc_error_code code = cci_stream_io_read(&p->io, p->head + at, sizeof(p->head) - at, &got, wait, err);
        if (code == CC_ERR_IO || code == CC_ERR_NOT_RUNNING)
            return cci_control_lost(p->control, EPIPE, NULL, "the connection to the guest broke as it was made", wait,
                                    err);
        if (code)
            return code;
    }
    const struct cci_proto_header h = cci_proto_load_header(p->head);
    if (got && (h.type != CCI_MSG_DATA || h.length))
        return cci_fail(err, CC_ERR_IO, NULL, "the guest's agent sent a stream that breaks the protocol");
    return CC_OK;
}

/* Attaches to channel `channel` of request `id`, an EXEC that has STARTED. */
static cc_error_code cci_pipe_open(struct cci_control *ctl, uint64_t id, uint32_t channel, struct cci_pipe **out,
                                   const struct cci_wait *wait, cc_error *err)
{
    struct cci_pipe *p = cci_mem_zalloc(1, sizeof(*p));
    *out = NULL;
    if (!p)
        return cci_fail_nomem(err);
    cc_error_code code = ctl->dial(ctl->dial_ctx, CCI_PROTO_PORT, &p->stream, err);
    if (code) {
        cci_mem_free(p);
        return code;
    }
    p->control = ctl;
    cci_monitor_init(&p->turn);
    cci_stream_io_begin(&p->io, p->stream);
    code = cci_pipe_attach(p, id, channel, wait, err);
    if (code == CC_OK)
        code = cci_pipe_confirm(p, wait, err);
    if (code)
        cci_pipe_free(p);
    else
        *out = p;
    return code;
}

/* ---- One call at a time ----------------------------------------------------------------------------------- */

static bool cci_pipe_is_free(void *ctx)
{
    const struct cci_pipe *p = ctx;
    return p->closed || !p->busy;
}

static cc_error_code cci_pipe_fail_closed(cc_error *err)
{
    return cci_fail(err, CC_ERR_ALREADY_CLOSED, NULL, "the pipe was closed meanwhile");
}

static cc_error_code cci_pipe_enter(struct cci_pipe *p, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = cci_monitor_wait(&p->turn, wait, cci_pipe_is_free, p, "another call on the pipe", err);
    bool closed = p->closed;
    if (code == CC_OK && !closed)
        p->busy = true;
    cci_monitor_unlock(&p->turn);
    return code == CC_OK && closed ? cci_pipe_fail_closed(err) : code;
}

/* `ended`: there is nothing to be had from the other side any more. If the pipe was closed meanwhile, that is why. */
static cc_error_code cci_pipe_leave(struct cci_pipe *p, bool ended, cc_error_code code, cc_error *err)
{
    cci_monitor_lock(&p->turn);
    p->busy = false;
    bool closed = p->closed;
    cci_cond_wake(&p->turn.cond);
    cci_monitor_unlock(&p->turn);
    return ended && closed ? cci_pipe_fail_closed(err) : code;
}

static void cci_pipe_interrupt(struct cci_pipe *p)
{
    cci_monitor_lock(&p->turn);
    p->closed = true;
    cci_cond_wake(&p->turn.cond);
    cci_monitor_unlock(&p->turn);
    cci_stream_io_interrupt(&p->io);
}

/* ---- Reading ---------------------------------------------------------------------------------------------- */

/* Reads what the connection has for `to`. */
static cc_error_code cci_pipe_take(struct cci_pipe *p, uint8_t *to, size_t n, size_t *got, const struct cci_wait *wait,
                                   cc_error *err)
{
    cc_error_code code = cci_stream_io_read(&p->io, to, n, got, wait, err);
    if (code == CC_ERR_IO || code == CC_ERR_NOT_RUNNING || (code == CC_OK && *got == 0))
        code = cci_control_lost(p->control, EPIPE, NULL, CCI_COLLECT_BROKE, wait, err);
    return code;
}

/* A header is complete. */
static void cci_pipe_on_header(struct cci_pipe *p)
{
    struct cci_proto_header h = cci_proto_load_header(p->head);
    p->ended = h.type != CCI_MSG_DATA;
    p->left = h.length;
    if (h.type == CCI_MSG_END && h.length <= CCI_PIPE_SMALL)
        return;
    /* A frame of nothing is refused: a flood of them would keep us from the deadline. */
    if (h.type == CCI_MSG_DATA && h.length && h.length <= CCI_PROTO_MAX_DATA)
        return;
    p->ended = true;
    p->left = 0;
    cci_put_le32(p->end, EPROTO);
    p->end_done = sizeof(p->end);
}

/* Takes END's payload, then tells how the stream ended. */
static cc_error_code cci_pipe_read_end(struct cci_pipe *p, const struct cci_wait *wait, cc_error *err)
{
    uint8_t rest[CCI_PIPE_SMALL];
    size_t got;
    while (p->left) {
        const size_t wanted = sizeof(p->end) - p->end_done;
        uint8_t *to = wanted ? p->end + p->end_done : rest;
        cc_error_code code = cci_pipe_take(p, to, CCI_MIN(wanted ? wanted : sizeof(rest), p->left), &got, wait, err);
        if (code)
            return code;
        p->left -= (uint32_t)got;
        p->end_done += wanted ? got : 0;
    }
    const int e = (int)cci_le32(p->end);
    if (e == 0)
        return CC_OK;
    if (e == EPROTO)
        return cci_fail_errno(err, CC_ERR_IO, e, NULL, "the guest's agent sent a stream that breaks the protocol");
    return cci_fail_errno(err, CC_ERR_IO, e, NULL, "%s", cci_errno_text(e));
}

static cc_error_code cci_pipe_read_turn(struct cci_pipe *p, uint8_t *buf, size_t n, size_t *got,
                                        const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = CC_OK;
    size_t k;
    while (code == CC_OK && !p->ended && p->left == 0) {
        code = cci_pipe_take(p, p->head + p->head_done, sizeof(p->head) - p->head_done, &k, wait, err);
        p->head_done += k;
        if (code == CC_OK && p->head_done == sizeof(p->head)) {
            p->head_done = 0;
            cci_pipe_on_header(p);
        }
    }
    if (code)
        return code;
    if (p->ended)
        return cci_pipe_read_end(p, wait, err);
    code = cci_pipe_take(p, buf, CCI_MIN(n, (size_t)p->left), got, wait, err);
    p->left -= (uint32_t)*got;
    return code;
}

/* Waits until there are bytes and takes up to n of them, n not being 0; *got is 0 at the end. */
static cc_error_code cci_pipe_read(struct cci_pipe *p, void *buf, size_t n, size_t *got, const struct cci_wait *wait,
                                   cc_error *err)
{
    *got = 0;
    cc_error_code code = cci_pipe_enter(p, wait, err);
    if (code)
        return code;
    code = cci_pipe_read_turn(p, buf, n, got, wait, err);
    return cci_pipe_leave(p, code || *got == 0, code, err);
}

/* ---- Writing ---------------------------------------------------------------------------------------------- */

/* Sends part of `buf`, which is not empty: what is left of a frame under way, or a frame. *taken says how much. */
static cc_error_code cci_pipe_send(struct cci_pipe *p, const uint8_t *buf, size_t n, size_t *taken,
                                   const struct cci_wait *wait, cc_error *err)
{
    uint8_t small[CCI_PIPE_SMALL];
    size_t done;
    if (p->left == 0) {
        p->left = (uint32_t)CCI_MIN(n, (size_t)CCI_PROTO_MAX_DATA);
        p->head_done = 0;
        cci_proto_store_header(p->head, p->left, CCI_MSG_DATA, 0);
    }
    n = CCI_MIN(n, (size_t)p->left);
    const size_t head = sizeof(p->head) - p->head_done;
    if (head) { /* with the first bytes, so that a short write is one packet */
        n = CCI_MIN(n, sizeof(small) - head);
        memcpy(small, p->head + p->head_done, head);
        memcpy(small + head, buf, n);
        buf = small;
    }
    cc_error_code code = cci_stream_io_write(&p->io, buf, head + n, &done, wait, err);
    p->head_done += CCI_MIN(done, head);
    *taken = done - CCI_MIN(done, head);
    p->left -= (uint32_t)*taken;
    return code;
}

/* Writes all of it, or says in *done how much of it was sent. */
static cc_error_code cci_pipe_write(struct cci_pipe *p, const void *buf, size_t n, size_t *done,
                                    const struct cci_wait *wait, cc_error *err)
{
    *done = 0;
    cc_error_code code = cci_pipe_enter(p, wait, err);
    if (code)
        return code;
    while (code == CC_OK && *done < n) {
        size_t taken;
        code = cci_pipe_send(p, (const uint8_t *)buf + *done, n - *done, &taken, wait, err);
        *done += taken;
    }
    if (code == CC_ERR_IO || code == CC_ERR_NOT_RUNNING)
        code = cci_control_lost(p->control, EPIPE, NULL,
                                "broken pipe: the program has closed its standard input, or has ended", wait, err);
    return cci_pipe_leave(p, code != CC_OK, code, err);
}

#endif
