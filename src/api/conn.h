/*
 * api/conn.h - connections (Go's net.Conn): a stream of the base (base/stream.h) behind a handle.
 *
 * Whoever makes one knows what carries it and what its ends are called; nothing here does. Reads and writes block on
 * the monitor beside the stream (base/stream_io.h), each direction under a deadline of its own. A deadline that is set
 * counts as a change of the stream, so that calls that sleep look again and sleep under the new one. When the instance
 * ends, the stream breaks, which ends them, too.
 */
#ifndef CCI_API_CONN_H
#define CCI_API_CONN_H

#include "../base/stream_io.h"
#include "part.h"

#define CCI_CONNECTION_ADDR 40 /* bytes of an address with its NUL */

struct cci_connection {
    struct cci_part part;
    struct cci_stream_io io;                                      /* its monitor guards what follows */
    char local[CCI_CONNECTION_ADDR], remote[CCI_CONNECTION_ADDR]; /* fixed */
    uint64_t read_deadline, write_deadline;                       /* in cci_os_now(), or CCI_FOREVER */
    bool writing;                                                 /* a write is under way; others wait for it */
};

static void cci_connection_destroy(struct cci_object *o)
{
    struct cci_connection *c = (struct cci_connection *)o;
    cci_stream_io_end(&c->io);
    cci_stream_close(c->io.stream);
    cci_part_end(&c->part);
    cci_mem_free(c);
}

/* Gives a stream its handle; the stream is taken over in any case. With the instance entered. */
static cc_error_code cci_connection_new(struct cci_instance *i, struct cci_stream *stream, const char *local,
                                        const char *remote, cc_conn *out, cc_error *err)
{
    struct cci_connection *c = cci_mem_zalloc(1, sizeof(*c));
    if (!c) {
        cci_stream_close(stream);
        return cci_fail_nomem(err);
    }
    cci_part_init(&c->part, i, cci_connection_destroy);
    (void)snprintf(c->local, sizeof(c->local), "%s", local);
    (void)snprintf(c->remote, sizeof(c->remote), "%s", remote);
    c->read_deadline = c->write_deadline = CCI_FOREVER;
    cci_stream_io_begin(&c->io, stream);
    return cci_part_publish(&c->part, CCI_KIND_CONN, out, err);
}

/* ---- Calls on one ------------------------------------------------------------------------------------------ */

/* The connection behind a handle, for one call: with its instance entered. */
static cc_error_code cci_connection_enter(cc_conn conn, struct cci_connection **out, cc_error *err)
{
    struct cci_part *p;
    cc_error_code code = cci_part_enter(conn, CCI_KIND_CONN, &p, err);
    *out = (struct cci_connection *)p;
    return code;
}

/* What a read or write failed with; r is negative. */
static cc_error_code cci_connection_fail(struct cci_connection *c, int64_t r, cc_error *err)
{
    const int e = (int)-r;
    if (e == ENOTCONN)
        return cci_control_dead_error(c->part.inst->vm.control, err);
    if (e == ENOMEM)
        return cci_fail_nomem(err);
    return cci_fail_errno(err, CC_ERR_NETWORK, e, c->remote, "%s", cci_errno_text(e));
}

/* One look at the connection before a try: the count of changes, the deadline. Fails when either is against a try. */
static cc_error_code cci_connection_look(struct cci_connection *c, const uint64_t *deadline,
                                         struct cci_stream_io_turn *t, struct cci_wait *wait, cc_error *err)
{
    cci_monitor_lock(&c->io.monitor);
    *t = (struct cci_stream_io_turn){&c->io, c->io.changes};
    *wait = (struct cci_wait){*deadline, NULL};
    bool closed = c->io.closed;
    cci_monitor_unlock(&c->io.monitor);
    if (closed)
        return cci_handle_bad(CCI_KIND_CONN, true, err);
    if (wait->deadline != CCI_FOREVER && wait->deadline <= cci_os_now())
        return cci_fail(err, CC_ERR_TIMEOUT, c->remote, "the connection's deadline passed");
    return CC_OK;
}

static cc_error_code cci_connection_read_some(struct cci_connection *c, uint8_t *buf, size_t len, size_t *n,
                                              cc_error *err)
{
    struct cci_stream_io_turn t;
    struct cci_wait wait;
    for (;;) {
        cc_error_code code = cci_connection_look(c, &c->read_deadline, &t, &wait, err);
        if (code)
            return code;
        int64_t r = cci_stream_read(c->io.stream, buf, len);
        if (r >= 0) {
            *n = (size_t)r;
            return CC_OK;
        }
        code = r == -EAGAIN ? cci_stream_io_sleep(&c->io, &t, &wait, err) : cci_connection_fail(c, r, err);
        if (code)
            return code;
    }
}

/* Waits for its turn to write. */
static cc_error_code cci_connection_claim(struct cci_connection *c, cc_error *err)
{
    struct cci_stream_io_turn t;
    struct cci_wait wait;
    for (;;) {
        cc_error_code code = cci_connection_look(c, &c->write_deadline, &t, &wait, err);
        if (code)
            return code;
        cci_monitor_lock(&c->io.monitor);
        bool mine = !c->writing;
        c->writing = true;
        cci_monitor_unlock(&c->io.monitor);
        if (mine)
            return CC_OK;
        code = cci_stream_io_sleep(&c->io, &t, &wait, err); /* the end of a write is a change, too */
        if (code)
            return code;
    }
}

static void cci_connection_yield(struct cci_connection *c)
{
    cci_monitor_lock(&c->io.monitor);
    c->writing = false;
    c->io.changes++;
    cci_cond_wake(&c->io.monitor.cond);
    cci_monitor_unlock(&c->io.monitor);
}

static cc_error_code cci_connection_write_all(struct cci_connection *c, const uint8_t *buf, size_t len, size_t *n,
                                              cc_error *err)
{
    struct cci_stream_io_turn t;
    struct cci_wait wait;
    cc_error_code code = cci_connection_claim(c, err);
    if (code)
        return code;
    while (code == CC_OK && *n < len) {
        code = cci_connection_look(c, &c->write_deadline, &t, &wait, err);
        int64_t r = code ? 0 : cci_stream_write(c->io.stream, buf + *n, len - *n);
        if (r >= 0)
            *n += (size_t)r;
        else
            code = r == -EAGAIN ? cci_stream_io_sleep(&c->io, &t, &wait, err) : cci_connection_fail(c, r, err);
    }
    cci_connection_yield(c);
    return code;
}

CC_API cc_error_code cc_conn_read(cc_conn c, uint8_t *buf, size_t len, size_t *n, cc_error *err)
{
    struct cci_connection *conn = NULL;
    cci_error_clear(err);
    if (n)
        *n = 0;
    cc_error_code code = n && (buf || !len) ? cci_connection_enter(c, &conn, err) : cci_api_null(n ? "buf" : "n", err);
    if (code == CC_OK) {
        code = cci_connection_read_some(conn, buf, len, n, err);
        cci_part_leave(&conn->part);
    }
    return cci_api_end("read", code, err);
}

CC_API cc_error_code cc_conn_write(cc_conn c, const uint8_t *buf, size_t len, size_t *n, cc_error *err)
{
    struct cci_connection *conn = NULL;
    size_t done = 0;
    cci_error_clear(err);
    cc_error_code code = buf || !len ? cci_connection_enter(c, &conn, err) : cci_api_null("buf", err);
    if (code == CC_OK) {
        code = cci_connection_write_all(conn, buf, len, &done, err);
        cci_part_leave(&conn->part);
    }
    if (n)
        *n = done;
    return cci_api_end("write", code, err);
}

CC_API cc_error_code cc_conn_close_write(cc_conn c, cc_error *err)
{
    struct cci_connection *conn = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_connection_enter(c, &conn, err);
    if (code == CC_OK) {
        cci_stream_shutdown(conn->io.stream);
        cci_part_leave(&conn->part);
    }
    return cci_api_end("close_write", code, err);
}

CC_API cc_error_code cc_conn_close(cc_conn c, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_handle_release(c, CCI_KIND_CONN, &o, err);
    if (code == CC_OK) {
        cci_stream_io_interrupt(&((struct cci_connection *)o)->io);
        cci_object_unref(o);
    }
    return cci_api_end("close", code, err);
}

/* ---- Settings and questions -------------------------------------------------------------------------------- */

/* The time of day as a deadline; 0: none. */
static uint64_t cci_connection_deadline(int64_t unix_time)
{
    const uint64_t now = cci_os_realtime();
    if (unix_time == 0)
        return CCI_FOREVER;
    if (unix_time < 0 || (uint64_t)unix_time <= now / 1000000000u)
        return 1; /* has passed */
    if ((uint64_t)unix_time - now / 1000000000u > 1000000000u)
        return CCI_FOREVER; /* in thirty years */
    return cci_os_now() + ((uint64_t)unix_time * 1000000000u - now);
}

static cc_error_code cci_connection_set_deadline(cc_conn c, bool write, int64_t unix_time, cc_error *err)
{
    struct cci_connection *conn = NULL;
    cc_error_code code = cci_connection_enter(c, &conn, err);
    if (code)
        return code;
    cci_monitor_lock(&conn->io.monitor);
    *(write ? &conn->write_deadline : &conn->read_deadline) = cci_connection_deadline(unix_time);
    conn->io.changes++;
    cci_cond_wake(&conn->io.monitor.cond);
    cci_monitor_unlock(&conn->io.monitor);
    cci_part_leave(&conn->part);
    return CC_OK;
}

CC_API cc_error_code cc_conn_set_read_deadline(cc_conn c, int64_t unix_time, cc_error *err)
{
    cci_error_clear(err);
    return cci_api_end("set_read_deadline", cci_connection_set_deadline(c, false, unix_time, err), err);
}

CC_API cc_error_code cc_conn_set_write_deadline(cc_conn c, int64_t unix_time, cc_error *err)
{
    cci_error_clear(err);
    return cci_api_end("set_write_deadline", cci_connection_set_deadline(c, true, unix_time, err), err);
}

static char *cci_connection_addr(cc_conn c, bool remote)
{
    struct cci_connection *conn = NULL;
    if (cci_connection_enter(c, &conn, NULL) != CC_OK)
        return NULL;
    char *addr = cci_mem_strdup(remote ? conn->remote : conn->local);
    cci_part_leave(&conn->part);
    return addr;
}

CC_API char *cc_conn_local_addr(cc_conn c)
{
    return cci_connection_addr(c, false);
}

CC_API char *cc_conn_remote_addr(cc_conn c)
{
    return cci_connection_addr(c, true);
}

#endif
