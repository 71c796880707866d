/*
 * Open files of the host.
 *
 * A handle is a number of slots.c. The kernel keeps the position: one request is one read or write, and those of
 * several threads of the host never mix.
 *
 * Where a request is done:
 *   - of a file on a disk: at once, on the loop; what may take long (sync, truncate) by a worker;
 *   - of a file that may keep one waiting (slow.c): by a worker, one request at a time in the order they came;
 *   - of anything that cannot be read or written now (FIFO, terminal): in a queue until epoll says that it can. Reads
 *     and writes wait apart.
 * A closed handle is gone at once; its descriptor goes when the last request is through, and those that wait are
 * answered ECANCELED.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MAX_HANDLES = 65536 };

struct task {
    struct work work;
    struct task *next; /* in a queue of the handle */
    struct handle *h;
    uint64_t id;
    uint32_t type;
    uint64_t n;     /* READ: bytes; SEEK: offset; TRUNCATE: size */
    uint64_t extra; /* READ, WRITE: chain; SEEK: whence */
    size_t done;    /* READ, WRITE: bytes so far */
    int err;
    struct stat st;
    uint8_t data[]; /* READ, WRITE */
};

struct queue {
    struct task *first, **last;
};

struct handle {
    struct source src; /* fd; in the loop while something waits for it */
    struct work work;  /* slow: the closing */
    uint64_t number;
    unsigned refs; /* the table's, and one for each task */
    bool closed;
    bool regular, fifo, slow;
    bool watched, busy;   /* epoll knows the descriptor; a worker is at it (slow only) */
    uint64_t dead_chain;  /* chain that does nothing any more */
    struct queue in_turn; /* slow: all tasks; else unused */
    struct queue reads, writes;
    uint64_t close_id; /* the request that closed it, answered at the end */
    int err;           /* of closing */
};

static unsigned tasks;

/* ---- opening and closing --------------------------------------------------------------------- */

static bool too_many(void)
{
    struct rlimit files;
    uint64_t limit = MAX_HANDLES;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur / 2 < limit)
        limit = files.rlim_cur / 2; /* the rest is for commands and streams */
    return slots_in_use() >= limit;
}

int handle_new(int fd, mode_t mode, bool slow, uint64_t *out)
{
    struct handle *h;
    if (too_many()) {
        close(fd);
        return EMFILE;
    }
    h = must(calloc(1, sizeof *h));
    h->src.fd = fd;
    h->refs = 1;
    h->regular = S_ISREG(mode) || S_ISDIR(mode) || S_ISBLK(mode);
    h->fifo = S_ISFIFO(mode);
    h->slow = h->regular && slow;
    h->in_turn.last = &h->in_turn.first;
    h->reads.last = &h->reads.first;
    h->writes.last = &h->writes.first;
    *out = h->number = slot_put(h);
    return 0;
}

static void closed(struct handle *h, int err)
{
    reply(h->close_id, err, err ? "close" : "");
    loop_free(h);
}

static void close_run(struct work *w)
{
    struct handle *h = (struct handle *)((char *)w - offsetof(struct handle, work));
    if (close(h->src.fd))
        h->err = errno;
}

static void close_done(struct work *w)
{
    struct handle *h = (struct handle *)((char *)w - offsetof(struct handle, work));
    closed(h, h->err);
}

static void handle_unref(struct handle *h)
{
    if (--h->refs)
        return;
    if (h->slow) {
        h->work.run = close_run;
        h->work.done = close_done;
        work_start(&h->work);
        return;
    }
    if (h->watched)
        loop_close(&h->src);
    else
        h->err = close(h->src.fd) ? errno : 0;
    closed(h, h->err);
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static void queue_put(struct queue *q, struct task *t)
{
    t->next = NULL;
    *q->last = t;
    q->last = &t->next;
}

static struct task *queue_take(struct queue *q)
{
    struct task *t = q->first;
    if (t && !(q->first = t->next))
        q->last = &q->first;
    return t;
}

/* A FIFO that nobody writes to gives end of file; before the first writer came, as Go's open, it waits. One may have
 * come just now, and written. */
bool fifo_is_new(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 0 || (p.revents & POLLIN);
}

static void run_read(struct task *t)
{
    ssize_t k;
    do {
        k = read(t->h->src.fd, t->data, t->n);
    } while (k < 0 && errno == EINTR);
    t->err = k < 0 ? errno : k == 0 && t->n && t->h->fifo && fifo_is_new(t->h->src.fd) ? EAGAIN : 0;
    t->done = k > 0 ? (size_t)k : 0;
}

static void run_write(struct task *t)
{
    t->err = 0;
    while (t->done < t->n && !t->err) {
        ssize_t k = write(t->h->src.fd, t->data + t->done, t->n - t->done);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            t->err = k < 0 ? errno : EIO;
        else
            t->done += (size_t)k;
    }
}

static void task_run(struct task *t)
{
    int fd = t->h->src.fd, r = 0;
    off_t at;
    switch (t->type) {
    case CCI_MSG_FILE_READ:
        run_read(t);
        return;
    case CCI_MSG_FILE_WRITE:
        run_write(t);
        return;
    case CCI_MSG_FILE_SEEK:
        at = lseek(fd, (off_t)t->n, (int)t->extra);
        r = at < 0 ? -1 : 0;
        t->n = (uint64_t)at;
        break;
    case CCI_MSG_FILE_SYNC:
        r = fsync(fd);
        break;
    case CCI_MSG_FILE_TRUNCATE:
        r = ftruncate(fd, (off_t)t->n);
        break;
    default:
        r = fstat(fd, &t->st);
        break;
    }
    t->err = r ? errno : 0;
}

static void answer_write(const struct task *t)
{
    struct cci_proto_writer *w = reply_begin(t->id, 0, "", 12);
    cci_proto_put64(w, t->done);
    cci_proto_put32(w, (uint32_t)t->err);
    frame_end();
}

/* Answers, and ends the task. */
static void task_end(struct task *t)
{
    static const char *const names[] = {"read", "write", "seek", "sync", "truncate", "stat"};
    struct handle *h = t->h;
    struct cci_proto_writer *w;
    bool moves = t->type == CCI_MSG_FILE_READ || t->type == CCI_MSG_FILE_WRITE;
    if (moves && t->extra && t->done < t->n)
        h->dead_chain = t->extra;
    if (t->type == CCI_MSG_FILE_WRITE) {
        answer_write(t);
    } else if (t->err) {
        reply(t->id, t->err, names[t->type - CCI_MSG_FILE_READ]);
    } else {
        w = reply_begin(t->id, 0, "", FILE_STAT_SIZE + t->done);
        if (t->type == CCI_MSG_FILE_READ)
            cci_proto_put_bytes(w, t->data, t->done);
        else if (t->type == CCI_MSG_FILE_SEEK)
            cci_proto_put64(w, t->n);
        else if (t->type == CCI_MSG_FILE_STAT)
            file_put_stat(w, &t->st);
        frame_end();
    }
    free(t);
    tasks--;
    handle_unref(h);
}

/* ---- what waits for the descriptor ----------------------------------------------------------- */

static void serve(struct queue *q)
{
    while (q->first) {
        task_run(q->first);
        if (q->first->err == EAGAIN)
            return;
        task_end(queue_take(q));
    }
}

static void watch(struct handle *h)
{
    if (h->watched && !h->closed)
        loop_watch(&h->src, (h->reads.first ? EPOLLIN : 0u) | (h->writes.first ? EPOLLOUT : 0u) | EPOLLET);
}

static void handle_ready(struct source *s, uint32_t events)
{
    struct handle *h = (struct handle *)s; /* src is the first member */
    (void)events;
    h->refs++;
    serve(&h->reads);
    serve(&h->writes);
    watch(h);
    handle_unref(h);
}

/* It would have blocked: waits for its turn. */
static void wait_for_it(struct task *t)
{
    struct handle *h = t->h;
    if (!h->watched && loop_add(&h->src, h->src.fd, EPOLLET, handle_ready)) {
        task_end(t); /* nothing that can be waited for: the error stands */
        return;
    }
    h->watched = true;
    queue_put(t->type == CCI_MSG_FILE_READ ? &h->reads : &h->writes, t);
    watch(h);
    /* Edges that came before it was watched are not told again. */
    serve(t->type == CCI_MSG_FILE_READ ? &h->reads : &h->writes);
}

/* ---- workers --------------------------------------------------------------------------------- */

static void in_turn_next(struct handle *h);

static void work_run(struct work *w)
{
    task_run((struct task *)w); /* work is the first member */
}

static void work_done(struct work *w)
{
    struct task *t = (struct task *)w;
    struct handle *h = t->h;
    h->refs++;
    task_end(t);
    if (h->slow) {
        h->busy = false;
        in_turn_next(h);
    }
    handle_unref(h);
}

static bool chain_is_dead(struct task *t)
{
    bool moves = t->type == CCI_MSG_FILE_READ || t->type == CCI_MSG_FILE_WRITE;
    if (!moves || !t->extra || t->extra != t->h->dead_chain)
        return false;
    t->err = t->type == CCI_MSG_FILE_WRITE ? ECANCELED : 0;
    return true;
}

/* The next of a slow file's tasks goes to a worker. */
static void in_turn_next(struct handle *h)
{
    struct task *t;
    while (!h->busy && (t = queue_take(&h->in_turn))) {
        if (chain_is_dead(t)) {
            task_end(t);
            continue;
        }
        h->busy = true;
        work_start(&t->work);
    }
}

static void task_start(struct task *t)
{
    struct handle *h = t->h;
    t->work.run = work_run;
    t->work.done = work_done;
    if (h->slow) {
        queue_put(&h->in_turn, t);
        h->refs++;
        in_turn_next(h);
        handle_unref(h);
    } else if (chain_is_dead(t)) {
        task_end(t);
    } else if (t->type == CCI_MSG_FILE_SYNC || t->type == CCI_MSG_FILE_TRUNCATE) {
        work_start(&t->work);
    } else if ((t->type == CCI_MSG_FILE_READ && h->reads.first) || (t->type == CCI_MSG_FILE_WRITE && h->writes.first)) {
        wait_for_it(t); /* others were here before */
    } else {
        task_run(t);
        if (t->err == EAGAIN && !h->regular)
            wait_for_it(t);
        else
            task_end(t);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static void cancel(struct queue *q)
{
    struct task *t;
    while ((t = queue_take(q))) {
        t->err = ECANCELED;
        task_end(t);
    }
}

static void handle_close(struct handle *h, uint64_t id)
{
    slot_take(h->number);
    h->closed = true;
    h->close_id = id;
    cancel(&h->reads);
    cancel(&h->writes);
    cancel(&h->in_turn);
    handle_unref(h);
}

static struct task *task_new(struct handle *h, uint32_t type, uint64_t id, size_t data)
{
    struct task *t = must(malloc(sizeof *t + data));
    memset(t, 0, sizeof *t);
    t->h = h;
    t->type = type;
    t->id = id;
    h->refs++;
    tasks++;
    return t;
}

bool handle_request(uint32_t type, uint64_t id, struct cci_proto_reader *in)
{
    struct handle *h;
    struct task *t;
    uint64_t first, second;
    const uint8_t *bytes = NULL;
    size_t n = 0;
    if (type < CCI_MSG_FILE_READ || type > CCI_MSG_FILE_CLOSE)
        return false;
    h = slot_find(cci_proto_get64(in));
    first = cci_proto_get64(in);
    second = type == CCI_MSG_FILE_WRITE ? 0 : cci_proto_get64(in);
    if (type == CCI_MSG_FILE_WRITE)
        bytes = cci_proto_get_bytes(in, &n);
    if (in->bad) {
        reply(id, EPROTO, "malformed request");
    } else if (!h) {
        reply(id, EBADF, "handle");
    } else if (type == CCI_MSG_FILE_CLOSE) {
        handle_close(h, id);
    } else if (work_too_much() || tasks >= MAX_REQUESTS) {
        reply(id, EAGAIN, "too many requests at once");
    } else {
        if (type == CCI_MSG_FILE_READ)
            n = first < CCI_PROTO_INLINE ? (size_t)first : CCI_PROTO_INLINE;
        t = task_new(h, type, id, n);
        t->n = n;
        t->extra = type == CCI_MSG_FILE_WRITE ? first : second;
        if (type != CCI_MSG_FILE_READ && type != CCI_MSG_FILE_WRITE)
            t->n = first;
        if (n && bytes)
            memcpy(t->data, bytes, n);
        task_start(t);
    }
    return true;
}
