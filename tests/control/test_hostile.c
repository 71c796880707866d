/* An agent that lies in its greetings and replies: each gives a clear error, and costs bounded memory.
 * @timeout 60
 * @sanitize address,undefined
 * @sanitize thread
 */
#define _GNU_SOURCE
#include "../../src/control/file.h"
#include "liar.h"

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
    RUN(test_backlog);
    RUN(test_second_control);
    return check_done();
}
