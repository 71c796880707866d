/* An agent that lies about files: what it takes, reads, lists, watches and copies out.
 * @timeout 60
 * @sanitize address,undefined
 * @sanitize thread
 */
#define _GNU_SOURCE
#include <sched.h>

#include "../../src/control/copy.h"
#include "../../src/control/file.h"
#include "../../src/control/openfile.h"
#include "../../src/control/watch.h"
#include "../scratch.h"
#include "liar.h"

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
    char top[200], path[900];
    cc_error err = {0};
    scratch_make(top, sizeof(top), "hostile");
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
                   "[ \"$(cat outside/f)\" = kept ] && [ $(stat -c %%h outside/f) = 1 ]",
                   top);
    CHECK(system(path) == 0);
    scratch_remove(top);
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

/* ---- Streams that nobody attaches to -------------------------------------------------------------------------- */

static struct cci_cancel *token;
static uint32_t last_word; /* the type of what the host sends after it was cancelled */

static bool is_answered(struct liar *l)
{
    cci_mutex_lock(&l->ctl->mutex);
    struct cci_call *call = l->ctl->calls;
    cci_monitor_lock(&call->monitor);
    bool answered = call->replied;
    cci_monitor_unlock(&call->monitor);
    cci_mutex_unlock(&l->ctl->mutex);
    return answered;
}

/* Answers, and has yet to announce the stream when the host gives up. */
static void answer_only(struct liar *l)
{
    uint8_t head[CCI_PROTO_HEADER];
    hello(l);
    FIELDS(l, CCI_MSG_REPLY, request(l), 0, 0);
    while (!is_answered(l))
        (void)sched_yield();
    cci_cancel_fire(token);
    if (recv(l->control, head, sizeof(head), MSG_WAITALL) == sizeof(head))
        last_word = cci_proto_load_header(head).type;
}

static void expect_forgone(bool watch)
{
    static struct liar l;
    struct cci_watch w;
    cc_error err = {0};
    token = cci_cancel_new();
    last_word = 0;
    const struct cci_wait wait = {CCI_FOREVER, token};
    liar_start(&l, answer_only);
    CHECK_EQ_INT(cci_control_handshake(l.ctl, &forever, &err), CC_OK);
    cc_error_code code = watch ? cci_watch_open(&w, l.ctl, "/x", &wait, &err)
                               : cci_copy_out(l.ctl, "/x", "/dev/null/x", &no_options, &wait, &err);
    CHECK_EQ_INT(code, CC_ERR_CANCELLED);
    cci_error_release(&err);
    liar_stop(&l);
    CHECK_EQ_INT(last_word, CCI_MSG_DETACH); /* or the guest would wait for ever */
    cci_cancel_unref(token);
}

static void test_forgone(void)
{
    expect_forgone(true);
    expect_forgone(false);
}

int main(void)
{
    RUN(test_writes);
    RUN(test_open_files);
    RUN(test_lists);
    RUN(test_watches);
    RUN(test_copies);
    RUN(test_forgone);
    return check_done();
}
