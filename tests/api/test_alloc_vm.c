/*
 * Allocations that fail while an instance with two mounts, one of them without a directory of the host, starts, runs a
 * command and is closed: a sample of them; and every one while commands run with pipes, descriptors and functions
 * behind their streams. Each is an error or a success, and nothing is left behind.
 * @vm
 * @timeout 240
 * @kernel own
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#include "failing.h"

#include <unistd.h>

static cc_error err;
static cc_instance_source source;

static bool on_console(const uint8_t *data, size_t len, void *user_data)
{
    (void)data, (void)len, (void)user_data;
    return true;
}

static void on_state(cc_instance inst, cc_instance_state state, void *user_data)
{
    (void)inst, (void)state, (void)user_data;
}

/* The calls about an instance's life, in a row. */
static cc_error_code live(cc_instance vm)
{
    cc_listener listener = 0;
    cc_conn conn = 0;
    int fd = -1;
    size_t n;
    cc_error_code code = cc_instance_pause(vm, &err);
    if (code == CC_OK)
        code = cc_instance_resume(vm, &err);
    if (code == CC_OK)
        code = cc_instance_done_fd(vm, &fd, &err);
    if (code == CC_OK)
        code = cc_instance_console_write(vm, (const uint8_t *)"x", 1, &n, &err);
    if (code == CC_OK)
        code = cc_vsock_listen(vm, 4000, &listener, &err);
    CHECK((fd >= 0 && listener) || code != CC_OK);
    if (code == CC_OK) {
        code = cc_vsock_dial(vm, 4001, &conn, &err);
        CHECK(code != CC_OK && !conn);
        if (code == CC_ERR_NETWORK) { /* nobody listens there */
            cc_error_free(&err);
            code = CC_OK;
        }
    }
    if (fd >= 0)
        (void)close(fd);
    if (listener)
        CHECK_EQ_INT(cc_listener_close(listener, NULL), CC_OK);
    return code ? code : cc_instance_request_stop(vm, 0, &err);
}

static cc_error_code one_life(void)
{
    static const char *const args[] = {"/empty/f", NULL};
    static const cc_mount_config mounts[] = {{.host_path = "/tmp", .guest_path = "/mnt"}, {.guest_path = "/empty"}};
    cc_instance_options options = {0};
    cc_instance vm = 0;
    cc_cmd cmd = 0;
    uint8_t *out = NULL;
    size_t len = 0;
    options.console_callback = on_console;
    options.state_callback = on_state;
    options.mounts = mounts;
    options.mount_count = 2;
    cc_error_code code = cc_instance_new(source, &options, &vm, &err);
    CHECK((code == CC_OK) == (vm != 0));
    if (code == CC_OK)
        code = cc_fs_write_file(vm, "/empty/f", (const uint8_t *)"hello\n", 6, 0644, &err);
    if (code == CC_OK)
        code = cc_cmd_new(vm, "cat", args, &cmd, &err);
    if (code == CC_OK)
        code = cc_cmd_output(cmd, &out, &len, NULL, &err);
    CHECK((code == CC_OK) == (out != NULL));
    CHECK(!out || (len == 6 && memcmp(out, "hello\n", 6) == 0));
    if (code == CC_OK)
        code = live(vm);
    CHECK(err.code == code);
    cc_free_bytes(out);
    cc_error_free(&err);
    if (vm)
        CHECK_EQ_INT(cc_instance_close(vm, &err), CC_OK);
    return code;
}

static void test_sample(void)
{
    cc_oci_client client;
    int failures = 0;
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    CHECK_OK(cc_supports_hypervisor(&err), err);
    CHECK_EQ_INT(one_life(), CC_OK); /* what is made once is made */
    failing_at(1000000, false);
    CHECK_EQ_INT(one_life(), CC_OK);
    long count = 1000000 - failing_stop();
    printf("# %ld allocations\n", count);
    CHECK(count > 20);
    for (long i = 0; i < 24; i++) {
        struct left_behind before = left_behind();
        failing_at(i * count / 24, i % 4 == 3);
        failures += one_life() != CC_OK;
        (void)failing_stop();
        check_left_behind(before);
    }
    printf("# %d of 24 failed\n", failures);
    CHECK(failures > 6);
    CHECK_EQ_INT(one_life(), CC_OK);
    char tmp[400], *cache = cc_oci_client_cache_dir(client);
    (void)snprintf(tmp, sizeof(tmp), "%s/tmp", cache);
    cc_free_string(cache);
    CHECK_EQ_INT(count_in(tmp), 2); /* "." and "..": the empty directories that were shared have gone */
}

/* ---- Streams of commands ---------------------------------------------------------------------------------------- */

static bool count_output(const uint8_t *buf, size_t len, void *user_data)
{
    (void)buf;
    *(size_t *)user_data += len;
    return true;
}

/* Standard input by a pipe, output by another, errors to a function. */
static cc_error_code with_pipes(cc_cmd cmd)
{
    cc_write_pipe in = 0;
    cc_read_pipe out = 0;
    uint8_t got[16];
    size_t errors = 0, n = 0;
    int status = -1;
    cc_error_code code = cc_cmd_stdin_pipe(cmd, &in, &err);
    if (code == CC_OK)
        code = cc_cmd_stdout_pipe(cmd, &out, &err);
    if (code == CC_OK)
        code = cc_cmd_set_stderr_callback(cmd, count_output, &errors, &err);
    if (code == CC_OK)
        code = cc_cmd_start(cmd, &err);
    if (code == CC_OK)
        code = cc_write_pipe_write(in, (const uint8_t *)"abc", 3, &n, &err);
    if (code == CC_OK)
        code = cc_write_pipe_close(in, &err);
    if (code == CC_OK)
        code = cc_read_pipe_read(out, got, sizeof(got), &n, &err);
    if (code == CC_OK)
        CHECK(n > 0 && memcmp(got, "abc", n) == 0);
    if (code == CC_OK)
        code = cc_cmd_wait(cmd, &status, &err);
    if (code == CC_OK)
        CHECK(status == 0 && errors == 2);
    cc_cmd_free(cmd);
    return code;
}

/* Input from a descriptor, output to one. */
static cc_error_code with_descriptors(cc_cmd cmd)
{
    char got[16];
    int in[2], out[2], status = -1;
    CHECK(pipe(in) == 0 && pipe(out) == 0 && write(in[1], "abc", 3) == 3);
    close(in[1]);
    cc_error_code code = cc_cmd_set_stdin_fd(cmd, in[0], &err);
    if (code == CC_OK)
        code = cc_cmd_set_stdout_fd(cmd, out[1], &err);
    if (code == CC_OK)
        code = cc_cmd_run(cmd, &status, &err);
    if (code == CC_OK)
        CHECK(status == 0 && read(out[0], got, sizeof(got)) == 3);
    cc_cmd_free(cmd);
    close(in[0]);
    close(out[0]);
    close(out[1]);
    return code;
}

static cc_error_code one_command(cc_instance vm, bool pipes)
{
    static const char *const args[] = {"-c", "cat; echo x >&2", NULL};
    cc_cmd cmd = 0;
    cc_error_code code = cc_cmd_new(vm, "sh", args, &cmd, &err);
    if (code == CC_OK)
        code = pipes ? with_pipes(cmd) : with_descriptors(cmd);
    CHECK(err.code == code);
    cc_error_free(&err);
    return code;
}

/* What fails on the I/O thread may cost the instance; then there is a new one. */
static cc_instance alive(cc_instance vm)
{
    static const char *const none[] = {NULL};
    cc_cmd cmd;
    if (vm && cc_cmd_new(vm, "true", none, &cmd, &err) == CC_OK) {
        cc_error_code code = cc_cmd_run(cmd, NULL, &err);
        cc_cmd_free(cmd);
        if (code == CC_OK)
            return vm;
    }
    cc_error_free(&err);
    if (vm)
        CHECK_EQ_INT(cc_instance_close(vm, &err), CC_OK);
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
    return vm;
}

static void test_streams(void)
{
    cc_instance vm = alive(0);
    for (int pipes = 0; pipes < 2; pipes++) {
        int failures = 0;
        long count, i;
        CHECK_EQ_INT(one_command(vm, pipes), CC_OK);
        failing_at(1000000, false);
        CHECK_EQ_INT(one_command(vm, pipes), CC_OK);
        count = 1000000 - failing_stop();
        for (i = 0; i < count; i++) {
            failing_at(i, false);
            failures += one_command(vm, pipes) != CC_OK;
            (void)failing_stop();
            vm = alive(vm);
        }
        printf("# %d of %ld failed\n", failures, count);
        CHECK(count > 10 && failures > count / 2);
    }
    CHECK_EQ_INT(cc_instance_close(vm, &err), CC_OK);
}

static void test_nothing_is_left(void)
{
    cc_shutdown();
    CHECK_EQ_INT(failing_live, 0);
}

int main(void)
{
    failing_install();
    (void)cc_init();
    struct left_behind before = {0};
    RUN(test_sample);
    before = left_behind();
    RUN(test_streams);
    check_left_behind(before);
    RUN(test_nothing_is_left);
    return check_done();
}
