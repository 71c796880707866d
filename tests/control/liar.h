/*
 * tests/control/liar.h - an agent that lies: a thread with the guest's end of each connection, and a script of what it
 * says.
 *
 *     static void say_nothing_and_leave(struct liar *l) { shutdown(l->control, SHUT_RDWR); }
 *     ...
 *     struct liar l;
 *     liar_start(&l, say_nothing_and_leave);
 *     code = cci_control_handshake(l.ctl, &forever, &err);
 *     liar_stop(&l);
 *     expect(code, &err, CC_ERR_NOT_RUNNING, "the guest's agent ended before it was ready");
 *
 * What the host makes of a script is the same however the two threads are timed.
 */
#ifndef TESTS_CONTROL_LIAR_H
#define TESTS_CONTROL_LIAR_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>

#include "../../src/control/shutdown.h"
#include "../../src/control/exec.h"
#include "../check.h"
#include "../stream_unix.h"

/* The liar: a thread with the other ends of the connections. */
struct liar {
    struct cci_loop loop;
    struct cci_control *ctl;
    int control;      /* its end of the control connection */
    int streams[4];   /* its ends of those we dialled */
    int stream_count; /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t dialled;
    pthread_t thread;
    void (*script)(struct liar *l);
};

static const struct cci_wait forever = {CCI_FOREVER, NULL};

static cc_error_code liar_dial(void *ctx, uint32_t port, struct cci_stream **out, cc_error *err)
{
    struct liar *l = ctx;
    int fd[2];
    (void)port;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
        return cci_fail(err, CC_ERR_IO, NULL, "socketpair");
    *out = unix_stream_new(&l->loop, fd[0]);
    pthread_mutex_lock(&l->lock);
    l->streams[l->stream_count++] = fd[1];
    pthread_cond_broadcast(&l->dialled);
    pthread_mutex_unlock(&l->lock);
    return CC_OK;
}

/* ---- What the liar's scripts are written with -------------------------------------------------------------- */

static void put(int fd, const void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = send(fd, (const uint8_t *)p + at, n - at, MSG_NOSIGNAL);
        if (k <= 0)
            return; /* the host had enough */
        at += (size_t)k;
    }
}

static void frame(int fd, uint32_t type, uint64_t id, const void *payload, size_t n)
{
    uint8_t head[CCI_PROTO_HEADER];
    cci_proto_store_header(head, (uint32_t)n, type, id);
    put(fd, head, sizeof(head));
    put(fd, payload, n);
}

static void hello_with(int fd, uint32_t magic, uint32_t version, uint32_t oldest, uint32_t boot, const char *what)
{
    uint8_t b[256];
    struct cci_proto_writer w = {b, sizeof(b), 0};
    cci_proto_put32(&w, magic);
    cci_proto_put32(&w, version);
    cci_proto_put32(&w, oldest);
    cci_proto_put64(&w, 0);
    cci_proto_put32(&w, boot);
    cci_proto_put_str(&w, what);
    frame(fd, CCI_MSG_HELLO, 0, b, w.len);
}

static void hello(struct liar *l)
{
    hello_with(l->control, CCI_PROTO_MAGIC, CCI_PROTO_VERSION, CCI_PROTO_OLDEST, 0, "");
}

/* Takes one request; returns its id, 0 when the host has closed. */
static uint64_t request(struct liar *l)
{
    uint8_t head[CCI_PROTO_HEADER], payload[65536];
    if (recv(l->control, head, sizeof(head), MSG_WAITALL) != sizeof(head))
        return 0;
    struct cci_proto_header h = cci_proto_load_header(head);
    if (h.length && recv(l->control, payload, h.length, MSG_WAITALL) != (ssize_t)h.length)
        return 0;
    return h.id;
}

static void fields(struct liar *l, uint32_t type, uint64_t id, size_t count, const uint32_t *values)
{
    uint8_t b[256];
    struct cci_proto_writer w = {b, sizeof(b), 0};
    for (size_t i = 0; i < count; i++)
        cci_proto_put32(&w, values[i]);
    frame(l->control, type, id, b, w.len);
}

#define FIELDS(l, type, id, ...)                                                                                       \
    fields((l), (type), (id), sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__})

/* The connection for a stream, once it was dialled and introduced. */
static int stream(struct liar *l, int number)
{
    uint8_t attach[CCI_COLLECT_ATTACH];
    pthread_mutex_lock(&l->lock);
    while (l->stream_count <= number)
        pthread_cond_wait(&l->dialled, &l->lock);
    int fd = l->streams[number];
    pthread_mutex_unlock(&l->lock);
    (void)recv(fd, attach, sizeof(attach), MSG_WAITALL);
    return fd;
}

/* Until the host closes. */
static void linger(struct liar *l)
{
    while (request(l)) {
    }
}

/* ---- The host's side of each case ---------------------------------------------------------------------------- */

static void *liar_main(void *ctx)
{
    struct liar *l = ctx;
    l->script(l);
    linger(l);
    return NULL;
}

static void liar_start(struct liar *l, void (*script)(struct liar *l))
{
    cc_error err = {0};
    int fd[2];
    memset(l, 0, sizeof(*l));
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->dialled, NULL);
    l->script = script;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
    l->control = fd[1];
    CHECK(cci_loop_init(&l->loop, &err) == CC_OK && cci_loop_start(&l->loop, "io", &err) == CC_OK);
    l->ctl = cci_control_new(liar_dial, l);
    CHECK(l->ctl != NULL);
    CHECK(pthread_create(&l->thread, NULL, liar_main, l) == 0);
    cci_control_attach(l->ctl, unix_stream_new(&l->loop, fd[0]));
}

static void liar_stop(struct liar *l)
{
    cci_control_close(l->ctl);
    pthread_join(l->thread, NULL);
    cci_loop_stop(&l->loop);
    cci_loop_destroy(&l->loop);
    close(l->control);
    for (int i = 0; i < l->stream_count; i++)
        close(l->streams[i]);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->dialled);
}

static void expect(cc_error_code code, cc_error *err, cc_error_code want, const char *message)
{
    char got[300];
    (void)snprintf(got, sizeof(got), "%s", err->message ? err->message : "");
    cci_error_release(err);
    CHECK_EQ_STR(got, message);
    CHECK_EQ_INT(code, want);
}

static void expect_handshake(void (*script)(struct liar *l), cc_error_code want, const char *message)
{
    static struct liar l;
    cc_error err = {0};
    liar_start(&l, script);
    cc_error_code code = cci_control_handshake(l.ctl, &forever, &err);
    liar_stop(&l);
    expect(code, &err, want, message);
}

/* Runs a command under the script, all output wanted, and expects the outcome. */
static void expect_exec(void (*script)(struct liar *l), size_t limit, cc_error_code want, const char *message)
{
    static struct liar l;
    static const char *const argv[] = {"prog"};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    cc_error err = {0};
    int exit_code = -1;
    s.argv = argv;
    s.argc = 1;
    s.stdout_wanted = s.stderr_wanted = true;
    s.limit = limit;
    liar_start(&l, script);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    CHECK_EQ_INT(cci_exec_begin(l.ctl, &s, &e, &err), CC_OK);
    cc_error_code code = cci_exec_wait(e, &forever, &exit_code, &err);
    cci_mutex_lock(&l.ctl->mutex);
    size_t held = l.ctl->in.cap;
    cci_mutex_unlock(&l.ctl->mutex);
    CHECK(held <= 2 * (CCI_PROTO_MAX_REPLY + CCI_PROTO_HEADER));
    cci_exec_free(e);
    liar_stop(&l);
    if (want == CC_OK)
        CHECK_EQ_INT(exit_code, 3);
    expect(code, &err, want, message);
}

/* The answer of an honest agent: exit status 3, no output. */
static void honest(struct liar *l, uint64_t id)
{
    FIELDS(l, CCI_MSG_REPLY, id, 0, 0, 3u << 8, 0, 0, 0, 0, 0, 0, 0, 0);
}

#endif
