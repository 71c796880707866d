/*
 * Commands in a guest, all that os/exec has and more: pipes, descriptors, functions, terminals, signals, time-outs.
 * @vm
 * @kernel own
 * @timeout 150
 * @sanitize none
 * @sanitize address,undefined
 * @sanitize thread
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../asleep.h"
#include "guest_sh.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { BULK_MB = 4, MANY = 100 };
#else
enum { BULK_MB = 64, MANY = 1000 };
#endif

static cc_oci_client client;
static cc_instance_source source;
static cc_instance vm;
static cc_error err;

/* The call gave this code, and this error number of the guest's. */
static void failed(cc_error_code got, cc_error_code want, int sys_errno)
{
    CHECK_EQ_INT(got, want);
    CHECK_EQ_INT(err.sys_errno, sys_errno);
    cc_error_free(&err);
}

static cc_cmd make(const char *script)
{
    const char *args[] = {"-c", script, NULL};
    cc_cmd cmd = 0;
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    return cmd;
}

static void start(cc_cmd cmd)
{
    CHECK_OK(cc_cmd_start(cmd, &err), err);
}

static int finish(cc_cmd cmd)
{
    int code = -1;
    CHECK_OK(cc_cmd_wait(cmd, &code, &err), err);
    return code;
}

/* All that a pipe has, or up to a line that ends with `stop`. */
static const char *drain_until(cc_read_pipe p, const char *stop)
{
    static uint8_t text[100000];
    size_t at = 0, n = 1;
    text[0] = 0;
    while (n && at < sizeof(text) - 1 && !(stop && strstr((char *)text, stop))) {
        CHECK_OK(cc_read_pipe_read(p, text + at, sizeof(text) - 1 - at, &n, &err), err);
        at += n;
        text[at] = 0;
    }
    return (const char *)text;
}

static const char *drain(cc_read_pipe p)
{
    return drain_until(p, NULL);
}

static void feed(cc_write_pipe p, const char *text)
{
    size_t n;
    CHECK_OK(cc_write_pipe_write(p, (const uint8_t *)text, strlen(text), &n, &err), err);
    CHECK_EQ_INT(n, strlen(text));
}

static const char *tail_of(cc_cmd cmd)
{
    static char text[70000];
    uint8_t *p;
    size_t n;
    CHECK_OK(cc_cmd_stderr_tail(cmd, &p, &n, &err), err);
    (void)snprintf(text, sizeof(text), "%s", (char *)p);
    CHECK_EQ_INT(strlen(text), n);
    cc_free_bytes(p);
    return text;
}

static void test_boot(void)
{
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
}

static void test_pipes(void)
{
    cc_write_pipe in;
    cc_read_pipe out, errors;
    uint8_t byte;
    size_t n;
    cc_cmd cmd = make("read x; echo got $x; echo oops >&2; cat; exit 3");
    CHECK_OK(cc_cmd_stdin_pipe(cmd, &in, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    CHECK_OK(cc_cmd_stderr_pipe(cmd, &errors, &err), err);
    failed(cc_cmd_stdout_pipe(cmd, &out + 0, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_EQ_INT(out, 0); /* results are zero after a failure */
    cc_cmd_free(cmd);
    cmd = make("read x; echo got $x; echo oops >&2; cat; exit 3");
    CHECK_OK(cc_cmd_stdin_pipe(cmd, &in, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    CHECK_OK(cc_cmd_stderr_pipe(cmd, &errors, &err), err);
    failed(cc_read_pipe_read(out, &byte, 1, &n, &err), CC_ERR_INVALID_ARGUMENT, 0); /* before the start */
    CHECK_EQ_INT(cc_cmd_pid(cmd), 0);
    start(cmd);
    CHECK(cc_cmd_pid(cmd) > 1);
    feed(in, "one\ntwo\n");
    feed(in, "three");
    CHECK_OK(cc_write_pipe_close(in, &err), err);
    failed(cc_write_pipe_close(in, &err), CC_ERR_ALREADY_CLOSED, 0);
    failed(cc_write_pipe_write(in, &byte, 1, &n, &err), CC_ERR_ALREADY_CLOSED, 0);
    failed(cc_write_pipe_write(out, &byte, 1, &n, &err), CC_ERR_INVALID_HANDLE, 0);
    CHECK_EQ_INT(finish(cmd), 3);
    CHECK_EQ_STR(drain(out), "got one\ntwo\nthree");
    CHECK_EQ_STR(drain(errors), "oops\n");
    CHECK_EQ_STR(tail_of(cmd), "oops\n");
    failed(cc_cmd_stdin_pipe(cmd, &in, &err), CC_ERR_INVALID_ARGUMENT, 0); /* after the start */
    cc_cmd_free(cmd);
    failed(cc_read_pipe_read(out, &byte, 1, &n, &err), CC_ERR_ALREADY_CLOSED, 0);
    failed(cc_read_pipe_close(errors, &err), CC_ERR_ALREADY_CLOSED, 0);
}

static void test_pipes_closed_early(void)
{
    static uint8_t data[1000000];
    cc_write_pipe in;
    cc_read_pipe out;
    size_t n;
    cc_error_code got = CC_OK;
    cc_cmd cmd = make("exec yes");
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    start(cmd);
    (void)drain_until(out, "y\ny\n");
    CHECK_OK(cc_read_pipe_close(out, &err), err);
    CHECK_EQ_INT(finish(cmd), 128 + 13);
    cc_cmd_free(cmd);
    cmd = make("exit 4");
    CHECK_OK(cc_cmd_stdin_pipe(cmd, &in, &err), err);
    start(cmd);
    while (got == CC_OK)
        got = cc_write_pipe_write(in, data, sizeof(data), &n, &err);
    failed(got, CC_ERR_IO, 32);
    CHECK_EQ_INT(finish(cmd), 4);
    cc_cmd_free(cmd);
    /* One that was closed before the start. */
    cmd = make("cat; echo x");
    CHECK_OK(cc_cmd_stdin_pipe(cmd, &in, &err), err);
    CHECK_OK(cc_write_pipe_close(in, &err), err);
    start(cmd);
    CHECK_EQ_INT(finish(cmd), 0);
    cc_cmd_free(cmd);
}

/* ---- Much, and pace -------------------------------------------------------------------------------------------- */

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at ^ at >> 8 ^ at >> 17);
}

static void *write_much(void *ctx)
{
    static uint8_t block[100003];
    cc_write_pipe in = *(cc_write_pipe *)ctx;
    uint64_t at = 0, total = (uint64_t)BULK_MB << 20;
    while (at < total) {
        size_t n = total - at < sizeof(block) ? (size_t)(total - at) : sizeof(block), done;
        for (size_t i = 0; i < n; i++)
            block[i] = pattern(at + i);
        if (cc_write_pipe_write(in, block, n, &done, NULL))
            break;
        at += n;
    }
    (void)cc_write_pipe_close(in, NULL);
    return NULL;
}

static void test_bulk(void)
{
    static uint8_t block[70001];
    uint64_t at = 0, wrong = 0;
    cc_write_pipe in;
    cc_read_pipe out;
    pthread_t writer;
    size_t n = 1;
    cc_cmd cmd = make("exec cat");
    CHECK_OK(cc_cmd_stdin_pipe(cmd, &in, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    start(cmd);
    CHECK(pthread_create(&writer, NULL, write_much, &in) == 0);
    while (cc_read_pipe_read(out, block, sizeof(block), &n, NULL) == CC_OK && n) {
        for (size_t i = 0; i < n; i++)
            wrong += block[i] != pattern(at + i);
        at += n;
    }
    pthread_join(writer, NULL);
    CHECK_EQ_INT(at, (uint64_t)BULK_MB << 20);
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(finish(cmd), 0);
    cc_cmd_free(cmd);
}

static void test_pace(void)
{
    static uint8_t data[3000000];
    cc_write_pipe in;
    cc_read_pipe out;
    cc_cancel_token token;
    size_t n, total = 0;
    cc_cmd idle = make("exec sleep 1000"), busy = make("head -c 2000000 /dev/zero; touch /tmp/paced");
    CHECK_OK(cc_cmd_stdin_pipe(idle, &in, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(busy, &out, &err), err);
    start(idle);
    start(busy);
    failed(cc_write_pipe_write_with(in, data, sizeof(data), 0, 0.3, &n, &err), CC_ERR_TIMEOUT, 0);
    CHECK(n > 0 && n < sizeof(data));
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    CHECK_OK(cc_cancel_token_cancel(token, &err), err);
    failed(cc_write_pipe_write_with(in, data, sizeof(data), token, 0, &n, &err), CC_ERR_CANCELLED, 0);
    cc_cancel_token_free(token);
    CHECK_EQ_STR(guest_sh(vm, "ls /tmp/paced 2>/dev/null; echo free", NULL), "free\n"); /* others go on */
    while (cc_read_pipe_read(out, data, sizeof(data), &n, &err) == CC_OK && n)
        total += n;
    CHECK_EQ_INT(total, 2000000);
    CHECK_EQ_INT(finish(busy), 0);
    CHECK_EQ_STR(guest_sh(vm, "ls /tmp/paced", NULL), "/tmp/paced\n");
    cc_cmd_free(busy);
    CHECK_OK(cc_cmd_kill(idle, &err), err);
    CHECK_EQ_INT(finish(idle), 128 + 9);
    cc_cmd_free(idle);
}

/* ---- Descriptors and functions ---------------------------------------------------------------------------------- */

struct collected {
    char text[20000];
    size_t len, stop_at;
};

static bool collect(const uint8_t *data, size_t len, void *user_data)
{
    struct collected *c = user_data;
    if (len > sizeof(c->text) - 1 - c->len)
        len = sizeof(c->text) - 1 - c->len;
    memcpy(c->text + c->len, data, len);
    c->len += len;
    return !c->stop_at || c->len < c->stop_at;
}

static int64_t count_down(uint8_t *buf, size_t size, void *user_data)
{
    int *left = user_data;
    return *left ? snprintf((char *)buf, size, "%d\n", (*left)--) : 0;
}

static void test_functions(void)
{
    static struct collected out, errors;
    int left = 5;
    cc_cmd cmd = make("cat; echo oops >&2; exit 2");
    memset(&out, 0, sizeof(out));
    memset(&errors, 0, sizeof(errors));
    CHECK_OK(cc_cmd_set_stdin_callback(cmd, count_down, &left, &err), err);
    CHECK_OK(cc_cmd_set_stdout_callback(cmd, collect, &out, &err), err);
    CHECK_OK(cc_cmd_set_stderr_callback(cmd, collect, &errors, &err), err);
    failed(cc_cmd_set_stdout_fd(cmd, 1, &err), CC_ERR_INVALID_ARGUMENT, 0);
    failed(cc_cmd_output(cmd, &(uint8_t *){NULL}, &(size_t){0}, NULL, &err), CC_ERR_INVALID_ARGUMENT, 0);
    start(cmd);
    CHECK_EQ_INT(finish(cmd), 2); /* then all has been passed on */
    CHECK_EQ_STR(out.text, "5\n4\n3\n2\n1\n");
    CHECK_EQ_STR(errors.text, "oops\n");
    CHECK_EQ_STR(tail_of(cmd), "oops\n");
    cc_cmd_free(cmd);
    /* One that has had enough closes the pipe. */
    memset(&out, 0, sizeof(out));
    out.stop_at = 4;
    cmd = make("exec yes");
    CHECK_OK(cc_cmd_set_stdout_callback(cmd, collect, &out, &err), err);
    CHECK_OK(cc_cmd_run(cmd, &left, &err), err);
    CHECK_EQ_INT(left, 128 + 13);
    cc_cmd_free(cmd);
}

static int scratch_file(const char *contents)
{
    int fd = memfd_create("scratch", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, contents, strlen(contents)) == (ssize_t)strlen(contents));
    (void)lseek(fd, 0, SEEK_SET);
    return fd;
}

static void test_descriptors(void)
{
    char got[100] = "";
    int in = scratch_file("from a file\n"), out = scratch_file(""), full = open("/dev/full", O_WRONLY), code;
    cc_cmd cmd = make("cat; echo more; echo oops >&2");
    CHECK(fcntl(out, F_SETFL, O_APPEND) == 0); /* two writers, and a memfd's position is not locked as a file's is */
    CHECK_OK(cc_cmd_set_stdin_fd(cmd, in, &err), err);
    CHECK_OK(cc_cmd_set_stdout_fd(cmd, out, &err), err);
    CHECK_OK(cc_cmd_set_stderr_fd(cmd, out, &err), err);
    close(in); /* the command has its own */
    CHECK_OK(cc_cmd_run(cmd, &code, &err), err);
    cc_cmd_free(cmd);
    CHECK(pread(out, got, sizeof(got) - 1, 0) == 22);
    CHECK(strstr(got, "from a file\n") && strstr(got, "more\n") && strstr(got, "oops\n"));
    close(out);
    cmd = make("echo x");
    failed(cc_cmd_set_stdin_fd(cmd, -1, &err), CC_ERR_INVALID_ARGUMENT, 9);
    CHECK_OK(cc_cmd_set_stdout_fd(cmd, full, &err), err);
    failed(cc_cmd_run(cmd, &code, &err), CC_ERR_IO, 28);
    cc_cmd_free(cmd);
    close(full);
    cmd = make("exec cat");
    in = open("/", O_RDONLY | O_DIRECTORY);
    CHECK_OK(cc_cmd_set_stdin_fd(cmd, in, &err), err);
    failed(cc_cmd_run(cmd, &code, &err), CC_ERR_IO, 21); /* which would else look like no input */
    cc_cmd_free(cmd);
    close(in);
}

/* A descriptor that nobody serves holds up its own command, and no close. */
static void test_slow_descriptors(void)
{
    int in[2], out[2];
    size_t n;
    static char block[65536];
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    cc_cmd cmd = make("exec head -c 1000000 /dev/zero"), reader = make("exec cat");
    CHECK_OK(cc_cmd_set_stdout_fd(cmd, out[1], &err), err);
    CHECK_OK(cc_cmd_set_stdin_fd(reader, in[0], &err), err);
    start(cmd);
    start(reader);
    CHECK_EQ_STR(guest_sh(vm, "echo free", NULL), "free\n");
    close(out[1]);
    for (n = 0; n < 500000;)
        n += (size_t)read(out[0], block, sizeof(block));
    cc_cmd_free(cmd);
    ssize_t k;
    while ((k = read(out[0], block, sizeof(block))) > 0)
        n += (size_t)k; /* to the end: the command's duplicate is closed */
    CHECK(n < 1000000);
    CHECK_OK(cc_cmd_kill(reader, &err), err);
    CHECK_EQ_INT(finish(reader), 128 + 9); /* its input does not keep it */
    cc_cmd_free(reader);
    close(out[0]);
    close(in[0]);
    close(in[1]);
}

static bool free_own(const uint8_t *data, size_t len, void *user_data)
{
    (void)data;
    (void)len;
    cc_cmd_free(*(cc_cmd *)user_data);
    return true;
}

static void test_freed_by_its_function(void)
{
    cc_cmd cmd = make("echo x; exec sleep 1000");
    CHECK_OK(cc_cmd_set_stdout_callback(cmd, free_own, &cmd, &err), err);
    cc_error_code got = cc_cmd_start(cmd, &err);
    if (got == CC_OK)
        got = cc_cmd_wait(cmd, NULL, &err);
    CHECK(got == CC_ERR_CANCELLED || got == CC_ERR_INVALID_HANDLE);
    cc_error_free(&err);
}

struct own {
    cc_cmd cmd;
    cc_error_code close, wait;
};

static bool end_own(const uint8_t *data, size_t len, void *user_data)
{
    struct own *o = user_data;
    (void)data;
    (void)len;
    o->close = cc_instance_close(vm, NULL);
    o->wait = cc_cmd_wait(o->cmd, NULL, NULL);
    return true;
}

static int64_t close_own(uint8_t *buf, size_t size, void *user_data)
{
    (void)buf;
    (void)size;
    ((struct own *)user_data)->close = cc_instance_close(vm, NULL);
    return 0;
}

static void close_by_copy(const cc_copy_progress *p, void *user_data)
{
    (void)p;
    ((struct own *)user_data)->close = cc_instance_close(vm, NULL);
}

/* What would wait for itself is refused. */
static void test_functions_that_wait_for_themselves(void)
{
    struct own o = {.cmd = make("echo x")};
    CHECK_OK(cc_cmd_set_stdout_callback(o.cmd, end_own, &o, &err), err);
    CHECK_OK(cc_cmd_run(o.cmd, NULL, &err), err);
    CHECK_EQ_INT(o.close, CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(o.wait, CC_ERR_INVALID_ARGUMENT);
    cc_cmd_free(o.cmd);
    o = (struct own){.cmd = make("exec cat")};
    CHECK_OK(cc_cmd_set_stdin_callback(o.cmd, close_own, &o, &err), err);
    CHECK_OK(cc_cmd_run(o.cmd, NULL, &err), err);
    CHECK_EQ_INT(o.close, CC_ERR_INVALID_ARGUMENT);
    cc_cmd_free(o.cmd);
    o.close = CC_OK;
    const cc_copy_options options = {.progress = close_by_copy, .user_data = &o};
    CHECK_OK(cc_fs_copy_in(vm, "tests/check.h", "/tmp/copied", &options, &err), err);
    CHECK_EQ_INT(o.close, CC_ERR_INVALID_ARGUMENT);
}

/* ---- Terminals -------------------------------------------------------------------------------------------------- */

static void test_terminal(void)
{
    cc_write_pipe in;
    cc_read_pipe out;
    cc_cmd cmd = make("tty; stty size; echo $TERM; trap 'stty size' WINCH; trap 'exit 9' INT; stty -echo; echo ready; "
                      "while :; do sleep 0.01; done");
    failed(cc_cmd_set_tty(cmd, -1, 24, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_OK(cc_cmd_set_tty(cmd, 132, 50, &err), err);
    failed(cc_cmd_stderr_pipe(cmd, &out, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_OK(cc_cmd_stdin_pipe(cmd, &in, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    start(cmd);
    CHECK_EQ_STR(drain_until(out, "ready\r\n"), "/dev/pts/0\r\n50 132\r\nxterm\r\nready\r\n");
    CHECK_OK(cc_cmd_resize(cmd, 100, 30, &err), err);
    CHECK_EQ_STR(drain_until(out, "\n"), "30 100\r\n");
    cc_instance_set_console_size(vm, 90, 20);
    CHECK_EQ_STR(drain_until(out, "\n"), "20 90\r\n");
    feed(in, "\003");
    CHECK_EQ_INT(finish(cmd), 9);
    CHECK_EQ_STR(tail_of(cmd), "");
    cc_cmd_free(cmd);
    cmd = make("stty -echo; echo ready; cat; stty size");
    CHECK_OK(cc_cmd_set_tty(cmd, 0, 0, &err), err);
    CHECK_OK(cc_cmd_stdin_pipe(cmd, &in, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    start(cmd);
    (void)drain_until(out, "ready\r\n");
    feed(in, "half a line");
    CHECK_OK(cc_write_pipe_close(in, &err), err);
    CHECK_EQ_STR(drain(out), "half a line20 90\r\n");
    CHECK_EQ_INT(finish(cmd), 0);
    cc_cmd_free(cmd);
    cmd = make("true");
    start(cmd);
    failed(cc_cmd_resize(cmd, 80, 24, &err), CC_ERR_INVALID_ARGUMENT, 0);
    cc_cmd_free(cmd);
}

/* ---- Signals, time, users, use ---------------------------------------------------------------------------------- */

static void test_signals(void)
{
    cc_read_pipe out;
    cc_cmd cmd = make("sleep 1000 & trap 'echo usr1' USR1; echo ready; wait; wait; exit 1");
    failed(cc_cmd_kill(cmd, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    start(cmd);
    (void)drain_until(out, "ready\n");
    failed(cc_cmd_signal(cmd, 65, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_OK(cc_cmd_signal(cmd, 0, &err), err);
    CHECK_OK(cc_cmd_kill(cmd, &err), err); /* the child, too: the pipe comes to its end */
    CHECK_EQ_INT(finish(cmd), 128 + 9);
    CHECK_EQ_STR(drain(out), "");
    cc_cmd_free(cmd);
    cmd = make("exit 0");
    CHECK_OK(cc_cmd_run(cmd, NULL, &err), err);
    failed(cc_cmd_signal(cmd, 15, &err), CC_ERR_IO, 3);
    cc_cmd_free(cmd);
}

static bool ignore_output(const uint8_t *buf, size_t len, void *user_data)
{
    (void)buf;
    (void)len;
    (void)user_data;
    return true;
}

static void test_timeout(void)
{
    cc_read_pipe out;
    cc_cmd cmd = make("exec sleep 1000");
    failed(cc_cmd_set_timeout(cmd, -1, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_OK(cc_cmd_set_timeout(cmd, 0.2, &err), err);
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, &err), CC_ERR_TIMEOUT);
    CHECK(strstr(err.message, "0.2 seconds"));
    cc_error_free(&err);
    CHECK_EQ_INT(cc_cmd_exit_code(cmd), -1);
    cc_cmd_free(cmd);
    /* Also while nobody waits: the output ends with the program. */
    cmd = make("sleep 1000; echo never");
    CHECK_OK(cc_cmd_set_timeout(cmd, 0.2, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(cmd, &out, &err), err);
    start(cmd);
    CHECK_EQ_STR(drain(out), "");
    failed(cc_cmd_wait(cmd, NULL, &err), CC_ERR_TIMEOUT, 0);
    cc_cmd_free(cmd);
    cmd = make("exit 6"); /* in time */
    CHECK_OK(cc_cmd_set_timeout(cmd, 100, &err), err);
    start(cmd);
    CHECK_EQ_INT(finish(cmd), 6);
    cc_cmd_free(cmd);
    /* What it leaves behind keeps its output open: that is not waited for any longer, and is killed too. */
    cmd = make("sleep 1000 & exit 0");
    CHECK_OK(cc_cmd_set_stdout_callback(cmd, ignore_output, NULL, &err), err);
    CHECK_OK(cc_cmd_set_timeout(cmd, 0.3, &err), err);
    failed(cc_cmd_run(cmd, NULL, &err), CC_ERR_TIMEOUT, 0);
    failed(cc_cmd_wait(cmd, NULL, &err), CC_ERR_TIMEOUT, 0);
    cc_cmd_free(cmd);
}

/* What the image says of users may change at any time, also without a change of size. */
static void test_users_change(void)
{
    for (int uid = 71; uid < 75; uid++) {
        char script[120], want[20];
        uint8_t *out;
        size_t n;
        (void)snprintf(script, sizeof(script), "echo 'ann:x:%d:0::/:/bin/sh' > /etc/passwd", uid);
        (void)snprintf(want, sizeof(want), "%d\n", uid);
        CHECK_EQ_STR(guest_sh(vm, script, NULL), "");
        for (int again = 0; again < 2; again++) {
            cc_cmd cmd = make("id -u");
            CHECK_OK(cc_cmd_set_user(cmd, "ann", &err), err);
            CHECK_OK(cc_cmd_output(cmd, &out, &n, NULL, &err), err);
            CHECK_EQ_STR((char *)out, want);
            cc_free_bytes(out);
            cc_cmd_free(cmd);
        }
    }
}

static void test_user_and_use(void)
{
    cc_resource_usage used;
    uint8_t *out;
    size_t n;
    cc_cmd cmd = make("echo $(id -u):$(id -g)");
    CHECK_OK(cc_cmd_set_user(cmd, "1234:5678", &err), err);
    CHECK_OK(cc_cmd_output(cmd, &out, &n, NULL, &err), err);
    CHECK_EQ_STR((char *)out, "1234:5678\n");
    cc_free_bytes(out);
    cc_cmd_free(cmd);
    cmd = make("true");
    CHECK_OK(cc_cmd_set_user(cmd, "nosuchuser", &err), err);
    failed(cc_cmd_start(cmd, &err), CC_ERR_IO, 22);
    cc_cmd_free(cmd);
    cmd = make("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done");
    failed(cc_cmd_usage(cmd, &used, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_OK(cc_cmd_run(cmd, NULL, &err), err);
    CHECK_OK(cc_cmd_usage(cmd, &used, &err), err);
    CHECK(used.user_us + used.system_us > 0 && used.max_rss_kb > 100 && used.max_rss_kb < 100000);
    cc_cmd_free(cmd);
}

static void test_tails(void)
{
    cc_cmd cmd = make("echo quiet; echo loud >&2; (sleep 1000) & exit 1");
    uint8_t *out;
    size_t n;
    failed(cc_cmd_stderr_tail(cmd, &out, &n, &err), CC_ERR_INVALID_ARGUMENT, 0);
    start(cmd);
    failed(cc_cmd_stderr_tail(cmd, &out, &n, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_EQ_INT(finish(cmd), 1); /* a child that stays is not waited for */
    CHECK_EQ_STR(tail_of(cmd), "loud\n");
    CHECK_OK(cc_cmd_kill(cmd, &err), err); /* the group is still there */
    cc_cmd_free(cmd);
    cmd = make("i=100000; while [ $i -lt 111000 ]; do echo $i; i=$((i+1)); done >&2");
    CHECK_OK(cc_cmd_output(cmd, &out, &n, NULL, &err), err);
    cc_free_bytes(out);
    CHECK(strlen(tail_of(cmd)) == 65536 && strcmp(tail_of(cmd) + 65536 - 14, "110998\n110999\n") == 0);
    cc_cmd_free(cmd);
    cmd = make("echo x >&2");
    CHECK_OK(cc_cmd_combined_output(cmd, &out, &n, NULL, &err), err);
    CHECK_EQ_STR((char *)out, "x\n");
    cc_free_bytes(out);
    CHECK_EQ_STR(tail_of(cmd), "");
    cc_cmd_free(cmd);
}

/* ---- Many, and nothing left ------------------------------------------------------------------------------------- */

static unsigned descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static void *one_of_many(void *ctx)
{
    char text[32], want[40];
    int number = (int)(intptr_t)ctx, code = -1;
    cc_write_pipe in;
    cc_read_pipe out;
    const char *args[] = {"-c", "read x; echo got $x; exit $x", NULL};
    cc_cmd cmd;
    uint8_t got[64] = "";
    size_t n, at = 0;
    (void)snprintf(text, sizeof(text), "%d\n", number);
    (void)snprintf(want, sizeof(want), "got %d\n", number);
    if (cc_cmd_new(vm, "sh", args, &cmd, NULL) || cc_cmd_stdin_pipe(cmd, &in, NULL) ||
        cc_cmd_stdout_pipe(cmd, &out, NULL) || cc_cmd_start(cmd, NULL) ||
        cc_write_pipe_write(in, (const uint8_t *)text, strlen(text), &n, NULL))
        return NULL;
    while (cc_read_pipe_read(out, got + at, sizeof(got) - 1 - at, &n, NULL) == CC_OK && n)
        at += n;
    bool good = cc_cmd_wait(cmd, &code, NULL) == CC_OK && code == number && strcmp((char *)got, want) == 0;
    cc_cmd_free(cmd);
    return good ? ctx : NULL;
}

static void test_many(void)
{
    pthread_t threads[64];
    unsigned before = descriptors();
    int good = 0;
    for (int i = 0; i < MANY; i++) {
        cc_cmd cmd;
        CHECK_OK(cc_cmd_new(vm, "true", NULL, &cmd, &err), err);
        good += cc_cmd_run(cmd, NULL, NULL) == CC_OK;
        cc_cmd_free(cmd);
    }
    CHECK_EQ_INT(good, MANY);
    for (int i = 0; i < 64; i++)
        CHECK(pthread_create(&threads[i], NULL, one_of_many, (void *)(intptr_t)(i + 1)) == 0);
    for (int i = 0; i < 64; i++) {
        void *result;
        pthread_join(threads[i], &result);
        CHECK_EQ_INT((intptr_t)result, i + 1);
    }
    CHECK_EQ_INT(descriptors(), before);
    CHECK_EQ_STR(guest_sh(vm, "ls /proc/1/fd | wc -l > /tmp/n; [ $(cat /tmp/n) -lt 40 ] || cat /tmp/n", NULL), "");
}

/* ---- The end of the guest --------------------------------------------------------------------------------------- */

/* Calls that wait for a command, each in a thread of its own. */
enum { READS, WRITES, WAITS, CALLS };

struct blocked {
    cc_cmd cmd;
    cc_read_pipe out;
    cc_write_pipe in;
    struct asleep threads[CALLS];
    cc_error_code results[CALLS];
};

static void *blocked_read(void *ctx)
{
    struct blocked *b = ctx;
    uint8_t byte;
    size_t n;
    b->results[READS] = cc_read_pipe_read(b->out, &byte, 1, &n, NULL);
    return NULL;
}

static void *blocked_write(void *ctx)
{
    static uint8_t data[10000000];
    struct blocked *b = ctx;
    size_t n;
    b->results[WRITES] = cc_write_pipe_write(b->in, data, sizeof(data), &n, NULL);
    return NULL;
}

static void *blocked_wait(void *ctx)
{
    struct blocked *b = ctx;
    b->results[WAITS] = cc_cmd_wait(b->cmd, NULL, NULL);
    return NULL;
}

/* Starts a command that does nothing, and the calls that wait for it; returns when they wait. */
static void block(struct blocked *b)
{
    static void *(*const calls[CALLS])(void *) = {blocked_read, blocked_write, blocked_wait};
    memset(b, 0, sizeof(*b));
    b->cmd = make("exec sleep 1000");
    CHECK_OK(cc_cmd_stdin_pipe(b->cmd, &b->in, &err), err);
    CHECK_OK(cc_cmd_stdout_pipe(b->cmd, &b->out, &err), err);
    start(b->cmd);
    for (int i = 0; i < CALLS; i++)
        asleep_begin(&b->threads[i], calls[i], b);
    for (int i = 0; i < CALLS; i++)
        asleep_wait(&b->threads[i]);
}

/* Waits until they have returned; each pipe's call with `pipes` or `or`, the wait with `wait` or `or`. */
static void unblock(struct blocked *b, cc_error_code pipes, cc_error_code wait, cc_error_code or)
{
    for (int i = 0; i < CALLS; i++) {
        (void)asleep_join(&b->threads[i]);
        if (b->results[i] != or)
            CHECK_EQ_INT(b->results[i], i == WAITS ? wait : pipes);
    }
}

static void test_ends(void)
{
    struct blocked b;
    cc_cmd served;
    int never[2];
    for (int i = 0; i < 20; i++) { /* the pipes are closed, whatever the program's death does to them meanwhile */
        block(&b);
        cc_cmd_free(b.cmd);
        unblock(&b, CC_ERR_ALREADY_CLOSED, CC_ERR_CANCELLED, CC_ERR_INVALID_HANDLE);
    }
    block(&b);
    CHECK_EQ_STR(guest_sh(vm, "(sleep 0.2; echo o > /proc/sysrq-trigger) >/dev/null 2>&1 &", NULL), "");
    unblock(&b, CC_ERR_NOT_RUNNING, CC_ERR_NOT_RUNNING, CC_ERR_NOT_RUNNING);
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
    /* A close while descriptors that nobody serves are being copied. */
    CHECK(pipe(never) == 0);
    served = make("exec yes");
    CHECK_OK(cc_cmd_set_stdout_fd(served, never[1], &err), err);
    start(served);
    served = make("exec cat");
    CHECK_OK(cc_cmd_set_stdin_fd(served, never[0], &err), err);
    start(served);
    block(&b);
    CHECK_OK(cc_instance_close(vm, &err), err);
    unblock(&b, CC_ERR_NOT_RUNNING, CC_ERR_NOT_RUNNING, CC_ERR_ALREADY_CLOSED);
    failed(cc_read_pipe_close(b.out, &err), CC_ERR_ALREADY_CLOSED, 0);
    close(never[0]);
    close(never[1]);
}

int main(void)
{
    (void)cc_init();
    RUN(test_boot);
    if (check_failures)
        return check_done();
    RUN(test_pipes);
    RUN(test_pipes_closed_early);
    RUN(test_bulk);
    RUN(test_pace);
    RUN(test_functions);
    RUN(test_descriptors);
    RUN(test_slow_descriptors);
    RUN(test_freed_by_its_function);
    RUN(test_functions_that_wait_for_themselves);
    RUN(test_terminal);
    RUN(test_signals);
    RUN(test_timeout);
    RUN(test_user_and_use);
    RUN(test_users_change);
    RUN(test_tails);
    RUN(test_many);
    RUN(test_ends);
    cc_shutdown();
    return check_done();
}
