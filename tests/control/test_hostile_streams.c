/* An agent that lies in the streams of a program: its collected output, and its pipes.
 * @timeout 60
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "liar.h"

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

int main(void)
{
    RUN(test_streams);
    RUN(test_pipes);
    RUN(test_unread_input);
    return check_done();
}
