/*
 * control/openfile.h - an open file of the guest.
 *
 * The descriptor and its position are the guest's; each call is a request with the agent's number for it. Up to
 * CCI_PROTO_INLINE bytes are one request. A longer transfer of a regular file is a chain of requests, several of them
 * under way at a time, so that the connection is never idle; the agent ends the chain at the first that comes out
 * short, so it has the effect of one long read or write. Of a FIFO or terminal one request is under way at a time, and
 * a read ends with the first of them, as read(2) does.
 *
 * Turns: calls that move the position of a regular file wait for each other, so that a long one is not mixed with
 * others. Elsewhere there is no position, and a read that waits must not hold up a write: reads and writes take turns
 * apart, as in Go's poll.FD.
 */
#ifndef CCI_CONTROL_OPENFILE_H
#define CCI_CONTROL_OPENFILE_H

#include "path.h"

enum { CCI_OPENFILE_READING, CCI_OPENFILE_WRITING, CCI_OPENFILE_TURNS };
enum { CCI_OPENFILE_DEPTH = 8 }; /* requests under way at once */

struct cci_openfile {
    struct cci_control *control; /* outlives the calls, not the structure */
    uint64_t handle;             /* the agent's */
    uint32_t mode;               /* whole st_mode when it was opened */
    char *path;
    struct cci_monitor monitor; /* guards what follows */
    bool busy[CCI_OPENFILE_TURNS];
    bool closed;
    uint64_t chains; /* numbers given out */
};

static bool cci_openfile_is_regular(const struct cci_openfile *f)
{
    return (f->mode & 0170000u) == 0100000u;
}

/* ---- Opening and closing ---------------------------------------------------------------------------------- */

static cc_error_code cci_openfile_open(struct cci_openfile *f, struct cci_control *ctl, const char *path,
                                       unsigned flags, unsigned mode, const struct cci_wait *wait, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_OPEN, path, NULL, 2, {flags, mode}};
    uint64_t n[2];
    memset(f, 0, sizeof(*f));
    f->path = cci_mem_strdup(path);
    if (!f->path)
        return cci_fail_nomem(err);
    cc_error_code code = cci_path_ask(ctl, &r, n, 2, wait, err);
    if (code) {
        cci_mem_free(f->path);
        f->path = NULL;
        return code;
    }
    f->control = ctl;
    f->handle = n[0];
    f->mode = (uint32_t)n[1];
    cci_monitor_init(&f->monitor);
    return CC_OK;
}

/* Frees an opened structure; the guest's file is closed by cci_openfile_close, or ends with the agent. */
static void cci_openfile_destroy(struct cci_openfile *f)
{
    cci_mem_free(f->path);
    cci_monitor_destroy(&f->monitor);
}

/* What a call ended with, in the light of a close meanwhile. */
static cc_error_code cci_openfile_end(struct cci_openfile *f, cc_error_code code, cc_error *err)
{
    cci_monitor_lock(&f->monitor);
    bool closed = f->closed;
    cci_monitor_unlock(&f->monitor);
    if (closed && code == CC_ERR_IO)
        return cci_fail(err, CC_ERR_ALREADY_CLOSED, f->path, "the file was closed");
    if (code && err && !err->path)
        err->path = cci_mem_strdup(f->path);
    return code;
}

/* From here on calls on it end. One caller only. */
static cc_error_code cci_openfile_close(struct cci_openfile *f, const struct cci_wait *wait, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_FILE_CLOSE, NULL, NULL, 1, {f->handle}};
    cci_monitor_lock(&f->monitor);
    f->closed = true;
    cci_cond_wake(&f->monitor.cond);
    cci_monitor_unlock(&f->monitor);
    cc_error_code code = cci_path_do(f->control, &r, wait, err);
    if (code && err && !err->path)
        err->path = cci_mem_strdup(f->path);
    return code;
}

/* ---- Turns ------------------------------------------------------------------------------------------------ */

struct cci_openfile_turn {
    struct cci_openfile *file;
    unsigned which;
};

static bool cci_openfile_may_go(void *ctx)
{
    const struct cci_openfile_turn *t = ctx;
    return !t->file->busy[t->which] || t->file->closed;
}

static cc_error_code cci_openfile_enter(struct cci_openfile_turn *t, struct cci_openfile *f, unsigned which,
                                        const struct cci_wait *wait, cc_error *err)
{
    t->file = f;
    t->which = cci_openfile_is_regular(f) ? 0 : which;
    cc_error_code code = cci_monitor_wait(&f->monitor, wait, cci_openfile_may_go, t, "another call on the file", err);
    bool closed = f->closed;
    if (code == CC_OK && !closed)
        f->busy[t->which] = true;
    cci_monitor_unlock(&f->monitor);
    if (code == CC_OK && closed)
        return cci_fail(err, CC_ERR_ALREADY_CLOSED, f->path, "the file was closed");
    return code;
}

static void cci_openfile_leave(struct cci_openfile_turn *t)
{
    cci_monitor_lock(&t->file->monitor);
    t->file->busy[t->which] = false;
    cci_cond_wake(&t->file->monitor.cond);
    cci_monitor_unlock(&t->file->monitor);
}

/* ---- Reading and writing ---------------------------------------------------------------------------------- */

/* One request of a transfer. */
struct cci_openfile_piece {
    struct cci_call call;
    uint64_t handle, chain;
    const uint8_t *bytes; /* to be written; NULL: a read */
    size_t n;             /* asked for */
};

static void cci_openfile_put(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_openfile_piece *p = ctx;
    cci_proto_put64(w, p->handle);
    if (!p->bytes)
        cci_proto_put64(w, p->n);
    cci_proto_put64(w, p->chain);
    if (p->bytes)
        cci_proto_put_bytes(w, p->bytes, p->n);
}

/* A transfer: pieces in a ring, the oldest first. */
struct cci_openfile_transfer {
    struct cci_openfile *file;
    const struct cci_wait *wait;
    uint8_t *into;       /* a read: where the bytes go */
    const uint8_t *from; /* a write: where they are */
    size_t n;            /* wanted */
    size_t sent;         /* asked for so far */
    size_t done;         /* come about so far */
    bool over;           /* a piece came out short */
    int sys_errno;       /* why */
    uint64_t chain;
    unsigned depth, first, count;
    struct cci_openfile_piece pieces[CCI_OPENFILE_DEPTH];
};

static cc_error_code cci_openfile_send(struct cci_openfile_transfer *t, cc_error *err)
{
    struct cci_openfile_piece *p = &t->pieces[(t->first + t->count) % CCI_OPENFILE_DEPTH];
    p->handle = t->file->handle;
    p->chain = t->chain;
    p->n = CCI_MIN(t->n - t->sent, (size_t)CCI_PROTO_INLINE);
    p->bytes = t->from ? t->from + t->sent : NULL;
    cci_call_begin(&p->call, t->file->control);
    t->count++;
    t->sent += p->n;
    return cci_call_send(&p->call, t->from ? CCI_MSG_FILE_WRITE : CCI_MSG_FILE_READ, cci_openfile_put, p, err);
}

/* Takes a finished piece's result over. */
static cc_error_code cci_openfile_take(struct cci_openfile_transfer *t, struct cci_openfile_piece *p, cc_error *err)
{
    struct cci_proto_reader in = cci_call_result(&p->call);
    uint32_t sys_errno = 0;
    size_t n;
    if (p->call.result.failed)
        return cci_fail_nomem(err);
    if (p->call.sys_errno) {
        n = 0;
        sys_errno = (uint32_t)p->call.sys_errno;
    } else if (t->from) {
        uint64_t written = cci_proto_get64(&in);
        sys_errno = cci_proto_get32(&in);
        n = (size_t)CCI_MIN(written, (uint64_t)p->n + 1);
    } else {
        const uint8_t *bytes = cci_proto_get_bytes(&in, &n);
        if (!in.bad && n && n <= p->n && !t->over)
            memcpy(t->into + t->done, bytes, n);
    }
    if (in.bad || n > p->n || (t->over && n))
        return cci_path_broken(err);
    t->done += n;
    if (n < p->n && !t->over) {
        t->over = true;
        t->sys_errno = (int)sys_errno;
    }
    return CC_OK;
}

/* Waits for the oldest piece. */
static cc_error_code cci_openfile_receive(struct cci_openfile_transfer *t, cc_error *err)
{
    struct cci_openfile_piece *p = &t->pieces[t->first];
    cc_error_code code = cci_call_wait(&p->call, t->wait, "a file of the guest", err);
    if (code == CC_OK)
        code = cci_openfile_take(t, p, err);
    cci_call_end(&p->call);
    t->first = (t->first + 1) % CCI_OPENFILE_DEPTH;
    t->count--;
    return code;
}

/* All of it, in turn. */
static cc_error_code cci_openfile_move(struct cci_openfile_transfer *t, unsigned which, cc_error *err)
{
    struct cci_openfile *f = t->file;
    struct cci_openfile_turn turn;
    if (t->n == 0)
        return CC_OK;
    cc_error_code code = cci_openfile_enter(&turn, f, which, t->wait, err);
    if (code)
        return code;
    t->depth = cci_openfile_is_regular(f) ? CCI_OPENFILE_DEPTH : 1;
    if (t->n > CCI_PROTO_INLINE) {
        cci_monitor_lock(&f->monitor);
        t->chain = ++f->chains;
        cci_monitor_unlock(&f->monitor);
    }
    do {
        while (code == CC_OK && t->count < t->depth && t->sent < t->n && !t->over)
            code = cci_openfile_send(t, err);
        if (code == CC_OK)
            code = cci_openfile_receive(t, err);
        if (t->into && t->depth == 1)
            break; /* what is there */
    } while (code == CC_OK && (t->count || (t->sent < t->n && !t->over)));
    while (t->count) {
        cci_call_end(&t->pieces[t->first].call);
        t->first = (t->first + 1) % CCI_OPENFILE_DEPTH;
        t->count--;
    }
    cci_openfile_leave(&turn);
    if (code == CC_OK && t->over && t->sys_errno && (t->from || !t->done))
        code = cci_fail_errno(err, CC_ERR_IO, t->sys_errno, f->path, "%s", cci_errno_text(t->sys_errno));
    return cci_openfile_end(f, code, err);
}

/* What is there at the position, up to n bytes; *got is 0 at the end of the file only. */
static cc_error_code cci_openfile_read(struct cci_openfile *f, void *buf, size_t n, size_t *got,
                                       const struct cci_wait *wait, cc_error *err)
{
    struct cci_openfile_transfer t = {.file = f, .wait = wait, .into = buf, .n = n};
    cc_error_code code = cci_openfile_move(&t, CCI_OPENFILE_READING, err);
    *got = code ? 0 : t.done;
    return code;
}

/* Writes all of it; *done says how much was, also on failure. */
static cc_error_code cci_openfile_write(struct cci_openfile *f, const void *buf, size_t n, size_t *done,
                                        const struct cci_wait *wait, cc_error *err)
{
    struct cci_openfile_transfer t = {.file = f, .wait = wait, .from = n ? buf : (const void *)"", .n = n};
    cc_error_code code = cci_openfile_move(&t, CCI_OPENFILE_WRITING, err);
    *done = t.done;
    if (code == CC_OK && t.done < n) /* the agent says neither that it wrote all of it, nor why not */
        code = cci_path_broken(err);
    return code;
}

/* ---- The rest --------------------------------------------------------------------------------------------- */

static cc_error_code cci_openfile_seek(struct cci_openfile *f, int64_t offset, unsigned whence, uint64_t *position,
                                       const struct cci_wait *wait, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_FILE_SEEK, NULL, NULL, 3, {f->handle, (uint64_t)offset, whence}};
    struct cci_openfile_turn turn;
    cc_error_code code;
    if (!cci_openfile_is_regular(f))
        return cci_openfile_end(f, cci_path_ask(f->control, &r, position, 1, wait, err), err);
    code = cci_openfile_enter(&turn, f, 0, wait, err);
    if (code)
        return code;
    code = cci_path_ask(f->control, &r, position, 1, wait, err);
    cci_openfile_leave(&turn);
    return cci_openfile_end(f, code, err);
}

/* SYNC, and TRUNCATE with its size. */
static cc_error_code cci_openfile_do(struct cci_openfile *f, uint32_t type, uint64_t n, const struct cci_wait *wait,
                                     cc_error *err)
{
    const struct cci_path_request r = {type, NULL, NULL, 2, {f->handle, n}};
    return cci_openfile_end(f, cci_path_do(f->control, &r, wait, err), err);
}

static cc_error_code cci_openfile_stat(struct cci_openfile *f, struct cci_file_stat *out, const struct cci_wait *wait,
                                       cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_FILE_STAT, NULL, NULL, 1, {f->handle}};
    return cci_openfile_end(f, cci_path_stat(f->control, &r, out, wait, err), err);
}

#endif
