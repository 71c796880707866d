/* An agent that lies: every answer a guest may think of gives a clear error, and costs bounded memory.
 * @timeout 60
 * @sanitize address,undefined
 * @sanitize thread
 */
#define _GNU_SOURCE
#include <pthread.h>

#include "../../src/control/shutdown.h"
#include "../../src/control/copy.h"
#include "../../src/control/exec.h"
#include "../../src/control/file.h"
#include "../../src/control/openfile.h"
#include "../../src/control/watch.h"
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

/* ---- Greetings ------------------------------------------------------------------------------------------------ */

static void say_nothing_and_leave(struct liar *l)
{
    shutdown(l->control, SHUT_RDWR);
}
static void say_other_magic(struct liar *l)
{
    hello_with(l->control, 0x31454546, 1, 1, 0, "");
}
static void say_other_version(struct liar *l)
{
    hello_with(l->control, CCI_PROTO_MAGIC, 99, 98, 0, "");
}
static void say_cut_short(struct liar *l)
{
    FIELDS(l, CCI_MSG_HELLO, 0, CCI_PROTO_MAGIC, 1, 1, 0, 0, 0, 1000, 0);
}
static void say_boot_failed(struct liar *l)
{
    hello_with(l->control, CCI_PROTO_MAGIC, 1, 1, ENODEV, "cannot mount\n\x1b[31m/dev/vda");
}
static void say_reply_first(struct liar *l)
{
    honest(l, 1);
}
static void say_huge(struct liar *l)
{
    uint8_t head[CCI_PROTO_HEADER];
    cci_proto_store_header(head, 0xffffffffu, CCI_MSG_HELLO, 0);
    put(l->control, head, sizeof(head));
}

static void test_greetings(void)
{
    expect_handshake(say_nothing_and_leave, CC_ERR_NOT_RUNNING, "the guest's agent ended before it was ready");
    expect_handshake(say_other_magic, CC_ERR_NOT_RUNNING,
                     "the guest's agent broke the protocol: it is not an agent of this library");
    expect_handshake(say_other_version, CC_ERR_IO,
                     "the guest's agent speaks protocol version 99 and this library version 1; use an initramfs of "
                     "the same release as cc.h");
    expect_handshake(say_cut_short, CC_ERR_NOT_RUNNING,
                     "the guest's agent broke the protocol: it sent a greeting cut short");
    expect_handshake(say_boot_failed, CC_ERR_IO,
                     "the guest could not be prepared: cannot mount??[31m/dev/vda: no such device");
    expect_handshake(say_reply_first, CC_ERR_NOT_RUNNING, "the guest's agent broke the protocol: it did not greet");
    expect_handshake(say_huge, CC_ERR_NOT_RUNNING,
                     "the guest's agent broke the protocol: it sent a frame larger than it may");
}

/* The connection breaks, and then the instance learns why. Only the first such reason replaces the break. */
static void test_reason(void)
{
    static struct liar l;
    cc_error err = {0};
    liar_start(&l, say_nothing_and_leave);
    cc_error_code code = cci_control_handshake(l.ctl, &forever, &err);
    expect(code, &err, CC_ERR_NOT_RUNNING, "the guest's agent ended before it was ready");
    cci_control_fail(l.ctl, "the guest switched itself off");
    cci_control_fail(l.ctl, "the instance was closed");
    code = cci_control_handshake(l.ctl, &forever, &err);
    liar_stop(&l);
    expect(code, &err, CC_ERR_NOT_RUNNING, "the guest switched itself off");
}

static void test_silence(void)
{
    static struct liar l;
    cc_error err = {0};
    liar_start(&l, linger);
    const struct cci_wait brief = {cci_os_now() + 20000000u, NULL};
    cc_error_code code = cci_control_handshake(l.ctl, &brief, &err);
    cci_control_fail(l.ctl, "the kernel panicked");
    expect(code, &err, CC_ERR_TIMEOUT, "timed out waiting for the guest's agent to start");
    code = cci_control_handshake(l.ctl, &forever, &err);
    expect(code, &err, CC_ERR_NOT_RUNNING, "the kernel panicked");
    liar_stop(&l);
}

/* ---- Replies -------------------------------------------------------------------------------------------------- */

static void reply_well(struct liar *l)
{
    hello(l);
    honest(l, request(l));
}
static void reply_after_noise(struct liar *l)
{
    static uint8_t noise[CCI_PROTO_MAX_REPLY];
    hello(l);
    uint64_t id = request(l);
    for (int i = 0; i < 100; i++)
        frame(l->control, CCI_MSG_REPLY, id + 1000, noise, sizeof(noise)); /* to nobody */
    frame(l->control, 0x7777, id, noise, 10);                              /* a type of the future */
    frame(l->control, CCI_MSG_EXEC, id, noise, 10);                        /* a request, the wrong way */
    FIELDS(l, CCI_MSG_STARTED, id, 0);
    honest(l, id);
    FIELDS(l, CCI_MSG_REPLY, id, 5, 0); /* too late to change it */
}
static void reply_cut_short(struct liar *l)
{
    hello(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 100);
}
static void reply_with_cut_result(struct liar *l)
{
    hello(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xffffffffu);
}
static void reply_empty(struct liar *l)
{
    hello(l);
    frame(l->control, CCI_MSG_REPLY, request(l), NULL, 0); /* all fields missing: success, of exit code 0 */
}
static void reply_errno(struct liar *l)
{
    hello(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0xfffffffeu, 0);
}
static void greet_twice(struct liar *l)
{
    hello(l);
    request(l);
    hello(l);
}
static void leave(struct liar *l)
{
    hello(l);
    request(l);
    shutdown(l->control, SHUT_RDWR);
}

static void test_replies(void)
{
    expect_exec(reply_well, 0, CC_OK, "");
    expect_exec(reply_after_noise, 0, CC_OK, "");
    expect_exec(reply_cut_short, 0, CC_ERR_NOT_RUNNING,
                "the guest's agent broke the protocol: it sent a reply cut short");
    expect_exec(reply_with_cut_result, 0, CC_ERR_IO, "the guest's agent sent a result that breaks the protocol");
    expect_exec(reply_errno, 0, CC_ERR_IO, "unknown error");
    expect_exec(greet_twice, 0, CC_ERR_NOT_RUNNING, "the guest's agent broke the protocol: it greeted twice");
    expect_exec(leave, 0, CC_ERR_NOT_RUNNING, "the guest's agent ended");
}

/* Fields missing at the end count as zero. */
static void test_missing_fields(void)
{
    static struct liar l;
    cc_error err = {0};
    struct cci_file_stat st = {0};
    st.size = 1;
    liar_start(&l, reply_empty);
    cc_error_code code = cci_control_handshake(l.ctl, &forever, &err);
    if (code == CC_OK)
        code = cci_file_stat(l.ctl, "/x", false, &st, &forever, &err);
    liar_stop(&l);
    expect(code, &err, CC_OK, "");
    CHECK_EQ_INT(st.size, 0);
}

/* ---- Streams -------------------------------------------------------------------------------------------------- */

static void stream_to_nobody(struct liar *l)
{
    hello(l);
    FIELDS(l, CCI_MSG_STREAM, request(l), 7, 0, 0);
}
static void stream_twice(struct liar *l)
{
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_STDOUT, 0, 0);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_STDOUT, 0, 0);
}
static void stream_of_file(struct liar *l)
{
    hello(l);
    FIELDS(l, CCI_MSG_STREAM, request(l), CCI_CHANNEL_FILE, 0, 0);
}
static int open_stream(struct liar *l)
{
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_STDOUT, 0xffffffffu, 0xffffffffu);
    int fd = stream(l, 0);
    honest(l, id);
    return fd;
}
static void stream_bytewise(struct liar *l)
{
    uint8_t bytes[2 * CCI_PROTO_HEADER + 5 + 200] = {0};
    int fd = open_stream(l);
    cci_proto_store_header(bytes, 5, CCI_MSG_DATA, 0);
    cci_proto_store_header(bytes + CCI_PROTO_HEADER + 5, 200, CCI_MSG_END, 0); /* longer than what is kept of it */
    for (size_t i = 0; i < sizeof(bytes); i++)
        put(fd, bytes + i, 1);
}
static void stream_of_nothing(struct liar *l)
{
    int fd = open_stream(l);
    for (int i = 0; i < 10000; i++)
        frame(fd, CCI_MSG_DATA, 0, NULL, 0);
    frame(fd, CCI_MSG_END, 0, NULL, 0);
}
static void stream_too_much(struct liar *l)
{
    static uint8_t data[CCI_PROTO_MAX_DATA];
    int fd = open_stream(l);
    for (int i = 0; i < 100; i++)
        frame(fd, CCI_MSG_DATA, 0, data, sizeof(data));
}
static void stream_huge_frame(struct liar *l)
{
    uint8_t head[CCI_PROTO_HEADER];
    cci_proto_store_header(head, CCI_PROTO_MAX_DATA + 1, CCI_MSG_DATA, 0);
    put(open_stream(l), head, sizeof(head));
}
static void stream_wrong_type(struct liar *l)
{
    frame(open_stream(l), CCI_MSG_REPLY, 0, NULL, 0);
}
static void stream_breaks(struct liar *l)
{
    int fd = open_stream(l);
    put(fd, "abc", 3);
    shutdown(fd, SHUT_RDWR);
    honest(l, request(l)); /* whether the guest is still there */
}
static void stream_ends_badly(struct liar *l)
{
    uint8_t end[8] = {5};
    frame(open_stream(l), CCI_MSG_END, 0, end, sizeof(end));
}

static void test_streams(void)
{
    expect_exec(stream_to_nobody, 0, CC_ERR_NOT_RUNNING,
                "the guest's agent broke the protocol: it announced a stream nobody asked for");
    expect_exec(stream_twice, 0, CC_ERR_NOT_RUNNING,
                "the guest's agent broke the protocol: it announced a stream nobody asked for");
    expect_exec(stream_of_file, 0, CC_ERR_NOT_RUNNING,
                "the guest's agent broke the protocol: it announced a stream nobody asked for");
    expect_exec(stream_bytewise, 0, CC_OK, "");
    expect_exec(stream_of_nothing, 0, CC_OK, "");
    expect_exec(stream_too_much, 1000000, CC_ERR_IO, "the guest sent more than the limit of 1000000 bytes");
    expect_exec(stream_huge_frame, 0, CC_ERR_IO, "the guest's agent sent a stream that breaks the protocol");
    expect_exec(stream_wrong_type, 0, CC_ERR_IO, "the guest's agent sent a stream that breaks the protocol");
    expect_exec(stream_breaks, 0, CC_ERR_IO, "the connection to the guest broke in mid-transfer");
    expect_exec(stream_ends_badly, 0, CC_ERR_IO, "input/output error");
}

/* ---- Pipes ---------------------------------------------------------------------------------------------------- */

/* The program "runs", twice if one believes it; the pipe's connection. */
static int attached(struct liar *l)
{
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STARTED, id, 7);
    FIELDS(l, CCI_MSG_STARTED, id, 8);
    return stream(l, 0);
}
static int confirmed(struct liar *l)
{
    int fd = attached(l);
    frame(fd, CCI_MSG_DATA, 0, NULL, 0);
    return fd;
}
static void pipe_well(struct liar *l)
{
    int fd = confirmed(l);
    frame(fd, CCI_MSG_DATA, 0, "abc", 3);
    frame(fd, CCI_MSG_END, 0, NULL, 0);
    frame(fd, CCI_MSG_END, 0, NULL, 0); /* nobody looks any more */
    frame(fd, CCI_MSG_DATA, 0, "def", 3);
}
static void pipe_bytewise(struct liar *l)
{
    uint8_t bytes[2 * CCI_PROTO_HEADER + 3 + 200] = {0};
    int fd = confirmed(l);
    cci_proto_store_header(bytes, 3, CCI_MSG_DATA, 0);
    memcpy(bytes + CCI_PROTO_HEADER, "abc", 3);
    cci_proto_store_header(bytes + CCI_PROTO_HEADER + 3, 200, CCI_MSG_END, 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        put(fd, bytes + i, 1);
}
static void pipe_confirmed_by_data(struct liar *l)
{
    frame(attached(l), CCI_MSG_DATA, 0, "abc", 3);
}
static void pipe_confirmed_by_end(struct liar *l)
{
    frame(attached(l), CCI_MSG_END, 0, NULL, 0);
}
static void pipe_cut_in_confirmation(struct liar *l)
{
    int fd = attached(l);
    put(fd, "abc", 3);
    shutdown(fd, SHUT_RDWR);
    shutdown(l->control, SHUT_RDWR);
}
static void pipe_of_nothing(struct liar *l)
{
    int fd = confirmed(l);
    for (int i = 0; i < 10000; i++)
        frame(fd, CCI_MSG_DATA, 0, NULL, 0);
}
static void pipe_huge_frame(struct liar *l)
{
    uint8_t head[CCI_PROTO_HEADER];
    cci_proto_store_header(head, 0xffffffffu, CCI_MSG_DATA, 0);
    put(confirmed(l), head, sizeof(head));
}
static void pipe_huge_end(struct liar *l)
{
    uint8_t head[CCI_PROTO_HEADER];
    cci_proto_store_header(head, 0x7fffffffu, CCI_MSG_END, 0);
    put(confirmed(l), head, sizeof(head));
}
static void pipe_wrong_type(struct liar *l)
{
    frame(confirmed(l), CCI_MSG_ATTACH, 0, "abcdefghijkl", 12);
}
static void pipe_ends_badly(struct liar *l)
{
    uint8_t end[8] = {5};
    frame(confirmed(l), CCI_MSG_END, 0, end, sizeof(end));
}
static void pipe_breaks(struct liar *l)
{
    int fd = confirmed(l);
    uint8_t head[CCI_PROTO_HEADER];
    cci_proto_store_header(head, 100, CCI_MSG_DATA, 0);
    put(fd, head, sizeof(head));
    shutdown(fd, SHUT_RDWR);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0); /* the ping that asks whether we live */
}
static void pipe_announced(struct liar *l)
{
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_STDOUT, 0, 0);
}

static void expect_pipe(void (*script)(struct liar *l), cc_error_code want, const char *message)
{
    static struct liar l;
    static const char *const argv[] = {"prog"};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    struct cci_pipe *p = NULL;
    cc_error err = {0};
    char text[100];
    size_t n = 1, at = 0;
    s.argv = argv;
    s.argc = 1;
    s.stdout_piped = true;
    liar_start(&l, script);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    CHECK_EQ_INT(cci_exec_begin(l.ctl, &s, &e, &err), CC_OK);
    cc_error_code code = cci_exec_started(e, &forever, &err);
    if (code == CC_OK)
        code = cci_exec_pipe(e, CCI_CHANNEL_STDOUT, &p, &forever, &err);
    while (code == CC_OK && n && at < sizeof(text)) {
        code = cci_pipe_read(p, text + at, sizeof(text) - at, &n, &forever, &err);
        at += n;
    }
    if (want == CC_OK)
        CHECK(at == 3 && memcmp(text, "abc", 3) == 0);
    if (p && code) /* what is broken stays broken */
        CHECK_EQ_INT(cci_pipe_read(p, text, 1, &n, &(struct cci_wait){cci_os_now() + 20000000u, NULL}, NULL) == CC_OK,
                     0);
    cci_pipe_free(p);
    cci_exec_free(e);
    liar_stop(&l);
    expect(code, &err, want, message);
}

/* An agent that takes no input: a write waits for its deadline and no longer, and holds nothing. */
static void take_no_input(struct liar *l)
{
    (void)confirmed(l);
}

static void test_unread_input(void)
{
    static struct liar l;
    static uint8_t data[4000000];
    static const char *const argv[] = {"prog"};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    struct cci_pipe *p = NULL;
    size_t n;
    s.argv = argv;
    s.argc = 1;
    s.stdin_piped = true;
    liar_start(&l, take_no_input);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, NULL), CC_OK);
    CHECK_EQ_INT(cci_exec_begin(l.ctl, &s, &e, NULL), CC_OK);
    CHECK_EQ_INT(cci_exec_started(e, &forever, NULL), CC_OK);
    CHECK_EQ_INT(cci_exec_pipe(e, CCI_CHANNEL_STDIN, &p, &forever, NULL), CC_OK);
    const struct cci_wait brief = {cci_os_now() + 20000000u, NULL};
    CHECK_EQ_INT(cci_pipe_write(p, data, sizeof(data), &n, &brief, NULL), CC_ERR_TIMEOUT);
    CHECK(n < sizeof(data));
    cci_pipe_free(p);
    cci_exec_free(e);
    liar_stop(&l);
}

static void test_pipes(void)
{
    const char *broken = "the guest's agent sent a stream that breaks the protocol";
    expect_pipe(pipe_well, CC_OK, "");
    expect_pipe(pipe_bytewise, CC_OK, "");
    expect_pipe(pipe_confirmed_by_data, CC_ERR_IO, broken);
    expect_pipe(pipe_confirmed_by_end, CC_ERR_IO, broken);
    expect_pipe(pipe_cut_in_confirmation, CC_ERR_NOT_RUNNING, "the guest's agent ended");
    expect_pipe(pipe_of_nothing, CC_ERR_IO, broken);
    expect_pipe(pipe_huge_frame, CC_ERR_IO, broken);
    expect_pipe(pipe_huge_end, CC_ERR_IO, broken);
    expect_pipe(pipe_wrong_type, CC_ERR_IO, broken);
    expect_pipe(pipe_ends_badly, CC_ERR_IO, "input/output error");
    expect_pipe(pipe_breaks, CC_ERR_IO, "the connection to the guest broke in mid-transfer");
    expect_pipe(pipe_announced, CC_ERR_NOT_RUNNING,
                "the guest's agent broke the protocol: it announced a stream nobody asked for");
}

/* ---- Files we send -------------------------------------------------------------------------------------------- */

static void take_nothing(struct liar *l) /* invites, then answers without having read */
{
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_FILE, 0, 0);
    int fd = stream(l, 0);
    FIELDS(l, CCI_MSG_REPLY, id, ENOSPC, 0);
    shutdown(fd, SHUT_RDWR);
}
static void take_uninvited(struct liar *l) /* says that it is written, without having had it */
{
    hello(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), EDQUOT, 0);
}
static void take_and_leave(struct liar *l)
{
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_FILE, 0, 0);
    shutdown(stream(l, 0), SHUT_RDWR);
    shutdown(l->control, SHUT_RDWR);
}

static void expect_write(void (*script)(struct liar *l), cc_error_code want, const char *message)
{
    static struct liar l;
    static uint8_t contents[10000000];
    cc_error err = {0};
    liar_start(&l, script);
    cc_error_code code = cci_control_handshake(l.ctl, &forever, &err);
    if (code == CC_OK)
        code = cci_file_write(l.ctl, "/x", contents, sizeof(contents), 0644, &forever, &err);
    liar_stop(&l);
    expect(code, &err, want, message);
}

static void test_writes(void)
{
    expect_write(take_nothing, CC_ERR_IO, "no space left on device");
    expect_write(take_uninvited, CC_ERR_IO, "disk quota exceeded");
    expect_write(take_and_leave, CC_ERR_NOT_RUNNING, "the guest's agent ended");
}

/* ---- A guest that takes requests slowly, or not at all ---------------------------------------------------------- */

/* A stream that takes as many bytes as it is allowed to. */
struct slow_stream {
    struct cci_stream stream;
    size_t allowed;
};

static int64_t slow_write(struct cci_stream *s, const void *buf, size_t n)
{
    struct slow_stream *slow = (struct slow_stream *)s;
    (void)buf;
    n = n < slow->allowed ? n : slow->allowed;
    slow->allowed -= n;
    return n ? (int64_t)n : -EAGAIN;
}

static void slow_nothing(struct cci_stream *s)
{
    (void)s;
}

static const struct cci_stream_ops slow_ops = {NULL, slow_write, slow_nothing, NULL, slow_nothing};

static void put_much(struct cci_proto_writer *w, const void *ctx)
{
    static const uint8_t bytes[100000];
    (void)ctx;
    cci_proto_put_bytes(w, bytes, sizeof(bytes));
}

/* What was sent is not kept, though there is always something that was not; and what waits has a limit. */
static void test_backlog(void)
{
    struct slow_stream slow = {{&slow_ops}, 0};
    struct cci_control *ctl = cci_control_new(NULL, NULL);
    cc_error err = {0};
    cc_error_code code;
    unsigned taken = 0;
    CHECK(ctl != NULL);
    ctl->stream = &slow.stream;
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ_INT(cci_control_tell(ctl, CCI_MSG_PING, put_much, NULL, &err), CC_OK);
        slow.allowed = i ? 100020 : 20; /* always behind by most of a frame */
    }
    CHECK(ctl->out.cap < 1000000);
    slow.allowed = 0;
    while ((code = cci_control_tell(ctl, CCI_MSG_PING, put_much, NULL, &err)) == CC_OK && taken < 100000)
        taken++;
    CHECK(taken > 100 && ctl->out.n < 2 * (size_t)CCI_CONTROL_BACKLOG);
    CHECK_EQ_INT(err.sys_errno, EAGAIN);
    expect(code, &err, CC_ERR_IO, "the guest does not take requests, and too many wait for it already");
    slow.allowed = SIZE_MAX;
    cci_mutex_lock(&ctl->mutex);
    cci_control_flush(ctl);
    cci_mutex_unlock(&ctl->mutex);
    CHECK_EQ_INT(cci_control_tell(ctl, CCI_MSG_PING, put_much, NULL, &err), CC_OK);
    cci_control_close(ctl);
}

/* ---- Open files, directories, watches, copies ------------------------------------------------------------------- */

static const struct cci_copy_options no_options = {0};

/* The answer to an open: handle 7, a regular file. */
static void give_file(struct liar *l)
{
    hello(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0, 7, 0, 0100644, 0);
}
static void read_more_than_asked(struct liar *l)
{
    give_file(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0, 8, 0x41414141, 0x41414141);
}
static void read_cut_short(struct liar *l)
{
    give_file(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0, 400, 0x41414141);
}
static void write_more_than_sent(struct liar *l)
{
    give_file(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0, 5, 0, 0);
}
static void write_less_for_no_reason(struct liar *l)
{
    give_file(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0, 2, 0, 0);
}
static void read_after_the_end(struct liar *l) /* a short piece, and then a whole one */
{
    static uint8_t piece[12 + CCI_PROTO_INLINE];
    give_file(l);
    uint64_t first = request(l), second = request(l);
    FIELDS(l, CCI_MSG_REPLY, first, 0, 0, 1, 0x41);
    cci_put_le32(piece + 8, CCI_PROTO_INLINE);
    frame(l->control, CCI_MSG_REPLY, second, piece, sizeof(piece));
}

static void expect_open_file(void (*script)(struct liar *l), bool writing, size_t size, const char *message)
{
    static struct liar l;
    static uint8_t buf[200000];
    struct cci_openfile f;
    cc_error err = {0};
    size_t n;
    liar_start(&l, script);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    CHECK_EQ_INT(cci_openfile_open(&f, l.ctl, "/x", 0, 0, &forever, &err), CC_OK);
    cc_error_code code = writing ? cci_openfile_write(&f, buf, size, &n, &forever, &err)
                                 : cci_openfile_read(&f, buf, size, &n, &forever, &err);
    cci_openfile_destroy(&f);
    liar_stop(&l);
    expect(code, &err, CC_ERR_IO, message);
}

static const char *const broken_result = "the guest's agent sent a result that breaks the protocol";

static void test_open_files(void)
{
    expect_open_file(read_more_than_asked, false, 4, broken_result);
    expect_open_file(read_cut_short, false, 4, broken_result);
    expect_open_file(read_after_the_end, false, 200000, broken_result);
    expect_open_file(write_more_than_sent, true, 4, broken_result);
    expect_open_file(write_less_for_no_reason, true, 4, broken_result);
}

/* One entry with this name. */
static void list_one(struct liar *l, const char *name, size_t n)
{
    uint8_t b[400];
    struct cci_proto_writer w = {b, sizeof(b), 0};
    hello(l);
    cci_proto_put32(&w, 0);
    cci_proto_put32(&w, 0);
    cci_proto_put32(&w, (uint32_t)(8 + n));
    cci_proto_put32(&w, 0100644);
    cci_proto_put_bytes(&w, name, n);
    frame(l->control, CCI_MSG_REPLY, request(l), b, w.len);
}
static void list_up(struct liar *l)
{
    list_one(l, "..", 2);
}
static void list_slash(struct liar *l)
{
    list_one(l, "../../etc/passwd", 16);
}
static void list_nul(struct liar *l)
{
    list_one(l, "a\0b", 3);
}
static void list_nothing(struct liar *l)
{
    list_one(l, "", 0);
}
static void list_for_ever(struct liar *l)
{
    static uint8_t data[CCI_PROTO_MAX_DATA];
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_FILE, 0, 0);
    int fd = stream(l, 0);
    FIELDS(l, CCI_MSG_REPLY, id, 0, 0);
    for (int i = 0; i < 600; i++)
        frame(fd, CCI_MSG_DATA, 0, data, sizeof(data));
}

static void list_many(struct liar *l) /* so short that each takes several times its bytes */
{
    static uint8_t some[9 * 10000];
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_FILE, 0, 0);
    FIELDS(l, CCI_MSG_REPLY, id, 0, 0);
    int fd = stream(l, 0);
    for (int i = 0; i < 10000; i++) {
        cci_put_le32(some + 9 * i + 4, 1);
        some[9 * i + 8] = 'x';
    }
    for (int i = 0; i < 201; i++)
        frame(fd, CCI_MSG_DATA, id, some, sizeof(some));
    frame(fd, CCI_MSG_END, id, (const uint8_t[8]){0}, 8);
}

static void expect_list(void (*script)(struct liar *l), const char *message)
{
    static struct liar l;
    cc_dir_entry *entries;
    cc_error err = {0};
    size_t n;
    liar_start(&l, script);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    cc_error_code code = cci_listing_read(l.ctl, "/x", &entries, &n, &forever, &err);
    liar_stop(&l);
    expect(code, &err, CC_ERR_IO, message);
}

static void test_lists(void)
{
    expect_list(list_up, broken_result);
    expect_list(list_slash, broken_result);
    expect_list(list_nul, broken_result);
    expect_list(list_nothing, broken_result);
    expect_list(list_many, "the directory has more than 2000000 entries");
    expect_list(list_for_ever, "the guest sent more than the limit of 67108864 bytes");
}

/* The stream of a watch or a copy. */
static int begin_stream(struct liar *l)
{
    hello(l);
    uint64_t id = request(l);
    FIELDS(l, CCI_MSG_STREAM, id, CCI_CHANNEL_FILE, 0, 0);
    FIELDS(l, CCI_MSG_REPLY, id, 0, 0);
    return stream(l, 0);
}
static void watch_long_name(struct liar *l)
{
    const uint8_t record[16] = {[4] = 2, [14] = 1};
    frame(begin_stream(l), CCI_MSG_DATA, 0, record, sizeof(record));
}
static void watch_slash(struct liar *l)
{
    const uint8_t record[20] = {[4] = 2, [12] = 4, [16] = 'a', [17] = '/'};
    frame(begin_stream(l), CCI_MSG_DATA, 0, record, sizeof(record));
}
static void watch_wrong_frame(struct liar *l)
{
    frame(begin_stream(l), CCI_MSG_REPLY, 0, NULL, 0);
}

static void expect_watch(void (*script)(struct liar *l))
{
    static struct liar l;
    struct cci_watch_record r;
    struct cci_watch w;
    cc_error err = {0};
    liar_start(&l, script);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    CHECK_EQ_INT(cci_watch_open(&w, l.ctl, "/x", &forever, &err), CC_OK);
    cc_error_code code = cci_watch_read(&w, &r, &forever, &err);
    expect(code, &err, CC_ERR_IO, "the guest's agent sent a stream that breaks the protocol");
    code = cci_watch_read(&w, &r, &forever, &err); /* and stays so */
    expect(code, &err, CC_ERR_IO, "the guest's agent sent a stream that breaks the protocol");
    cci_watch_destroy(&w);
    liar_stop(&l);
}

static void test_watches(void)
{
    expect_watch(watch_long_name);
    expect_watch(watch_slash);
    expect_watch(watch_wrong_frame);
}

static void send_entry(int fd, uint32_t mode, const char *name, const char *target, uint32_t flags)
{
    uint8_t b[600];
    struct cci_proto_writer w = {b, sizeof(b), 0};
    cci_proto_put32(&w, mode);
    cci_proto_put64(&w, 0); /* uid, gid */
    cci_proto_put64(&w, 0);
    cci_proto_put32(&w, 0);
    cci_proto_put64(&w, 0);
    cci_proto_put32(&w, flags);
    cci_proto_put_str(&w, name);
    cci_proto_put_str(&w, target);
    frame(fd, CCI_MSG_ENTRY, 0, b, w.len);
}
static int copy_dir(struct liar *l)
{
    int fd = begin_stream(l);
    send_entry(fd, 0040755, "", "", 0);
    return fd;
}
static void copy_up(struct liar *l)
{
    send_entry(copy_dir(l), 0100644, "../escaped", "", 0);
}
static void copy_through_link(struct liar *l)
{
    int fd = copy_dir(l);
    send_entry(fd, 0120777, "x", "../../outside", 0);
    send_entry(fd, 0040755, "x", "", 0);
}
static void copy_onto_link(struct liar *l) /* allowed: the link is replaced */
{
    int fd = copy_dir(l);
    send_entry(fd, 0120777, "x", "../../outside/f", 0);
    send_entry(fd, 0100644, "x", "", 0);
    frame(fd, CCI_MSG_DATA, 0, "new", 3);
    frame(fd, CCI_MSG_LEAVE, 0, NULL, 0);
    frame(fd, CCI_MSG_END, 0, NULL, 0);
}
static void copy_hard_link_out(struct liar *l)
{
    int fd = copy_dir(l);
    send_entry(fd, 0120777, "x", "../../outside", 0);
    send_entry(fd, 0100644, "y", "x/f", CCI_ENTRY_HARD_LINK);
}
static void copy_hard_link_up(struct liar *l)
{
    send_entry(copy_dir(l), 0100644, "y", "../../outside/f", CCI_ENTRY_HARD_LINK);
}
static void copy_device(struct liar *l)
{
    send_entry(copy_dir(l), 0020666, "null", "", 0);
}
static void copy_two_tops(struct liar *l)
{
    int fd = copy_dir(l);
    frame(fd, CCI_MSG_LEAVE, 0, NULL, 0);
    send_entry(fd, 0100644, "second", "", 0);
}
static void copy_leave_too_often(struct liar *l)
{
    int fd = copy_dir(l);
    frame(fd, CCI_MSG_LEAVE, 0, NULL, 0);
    frame(fd, CCI_MSG_LEAVE, 0, NULL, 0);
}
static void copy_data_for_nothing(struct liar *l)
{
    frame(copy_dir(l), CCI_MSG_DATA, 0, "x", 1);
}
static void copy_unfinished(struct liar *l)
{
    frame(copy_dir(l), CCI_MSG_END, 0, NULL, 0);
}
static void copy_for_ever(struct liar *l)
{
    static uint8_t data[CCI_PROTO_MAX_DATA];
    int fd = copy_dir(l);
    send_entry(fd, 0100644, "f", "", 0);
    for (int i = 0; i < 200; i++)
        frame(fd, CCI_MSG_DATA, 0, data, sizeof(data));
}
static void copy_breaks(struct liar *l)
{
    shutdown(copy_dir(l), SHUT_RDWR);
    honest(l, request(l)); /* whether the guest is still there */
}

/* Copies what the script sends into `top`/to; what lies beside it must not change. */
static void expect_copy(void (*script)(struct liar *l), cc_error_code want, const char *message)
{
    static struct liar l;
    const struct cci_copy_options limited = {.max_bytes = 5000000};
    char top[] = "/tmp/cc-hostile-XXXXXX", path[300];
    cc_error err = {0};
    CHECK(mkdtemp(top) != NULL);
    (void)snprintf(path, sizeof(path), "cd %s && mkdir outside to && echo kept >outside/f", top);
    CHECK(system(path) == 0);
    (void)snprintf(path, sizeof(path), "%s/to", top);
    liar_start(&l, script);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    cc_error_code code =
        cci_copy_out(l.ctl, "/x", path, script == copy_for_ever ? &limited : &no_options, &forever, &err);
    liar_stop(&l);
    expect(code, &err, want, message);
    (void)snprintf(path, sizeof(path),
                   "cd %s && [ \"$(echo * outside/*)\" = 'outside to outside/f' ] && "
                   "[ \"$(cat outside/f)\" = kept ] && [ $(stat -c %%h outside/f) = 1 ] && rm -r %s",
                   top, top);
    CHECK(system(path) == 0);
}

static void test_copies(void)
{
    const char *const broken = "the guest's agent sent a copy that breaks the protocol";
    expect_copy(copy_up, CC_ERR_IO, broken);
    expect_copy(copy_through_link, CC_ERR_IO, "x: not a directory");
    expect_copy(copy_onto_link, CC_OK, "");
    expect_copy(copy_hard_link_out, CC_ERR_IO, "y: not a directory");
    expect_copy(copy_hard_link_up, CC_ERR_IO, broken);
    expect_copy(copy_device, CC_ERR_IO, broken);
    expect_copy(copy_two_tops, CC_ERR_IO, broken);
    expect_copy(copy_leave_too_often, CC_ERR_IO, broken);
    expect_copy(copy_data_for_nothing, CC_ERR_IO, broken);
    expect_copy(copy_unfinished, CC_ERR_IO, broken);
    expect_copy(copy_for_ever, CC_ERR_IO, "the guest sent more than the limits of the copy");
    expect_copy(copy_breaks, CC_ERR_IO, "the connection to the guest broke in mid-transfer");
}

/* A second control connection is refused: there is one per boot. */
static void test_second_control(void)
{
    static struct liar l;
    cc_error err = {0};
    int fd[2];
    char c;
    liar_start(&l, hello);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
    cci_control_attach(l.ctl, unix_stream_new(&l.loop, fd[0]));
    CHECK_EQ_INT(recv(fd[1], &c, 1, 0), 0);
    close(fd[1]);
    liar_stop(&l);
}

int main(void)
{
    RUN(test_greetings);
    RUN(test_reason);
    RUN(test_silence);
    RUN(test_replies);
    RUN(test_missing_fields);
    RUN(test_streams);
    RUN(test_pipes);
    RUN(test_unread_input);
    RUN(test_writes);
    RUN(test_backlog);
    RUN(test_open_files);
    RUN(test_lists);
    RUN(test_watches);
    RUN(test_copies);
    RUN(test_second_control);
    return check_done();
}
