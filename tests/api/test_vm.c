/*
 * The whole of it: an image from a tar file, a guest, commands and files in it, through the public calls alone.
 * @vm
 * @one-cpu
 * @timeout 150
 * @kernel own
 * @kernel stock
 * @sanitize none
 * @sanitize address,undefined
 * @sanitize thread
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "../asleep.h"
#include "guest_sh.h"

static cc_oci_client client;
static cc_instance_source source;
static cc_instance vm;
static cc_error err;
static int code;

/* The call gave this code; what the error says was looked at, or does not matter. */
static void failed(int got, int want)
{
    cc_error_free(&err);
    CHECK_EQ_INT(got, want);
}

static const char *sh(const char *script)
{
    return guest_sh(vm, script, &code);
}

static void test_boot(void)
{
    cc_instance_options o = {0};
    o.memory_mb = 256;
    o.cpus = 2;
    CHECK_OK(cc_supports_hypervisor(&err), err);
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
    CHECK(cc_instance_is_running(vm));
}

static void test_output_and_exit_codes(void)
{
    CHECK_EQ_STR(sh("echo hello; echo world >&2"), "hello\nworld\n");
    CHECK_EQ_INT(code, 0);
    (void)sh("exit 7");
    CHECK_EQ_INT(code, 7);
    (void)sh("kill -9 $$");
    CHECK_EQ_INT(code, 128 + 9);
    CHECK_EQ_STR(sh("nproc"), "2\n");
}

static void test_only_stdout(void)
{
    const char *args[] = {"-c", "echo out; echo err >&2; exit 3", NULL};
    uint8_t *out;
    size_t len;
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "/bin/sh", args, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_exit_code(cmd), -1);
    CHECK_OK(cc_cmd_output(cmd, &out, &len, NULL, &err), err);
    CHECK(len == 4 && memcmp(out, "out\n", 5) == 0);
    CHECK_EQ_INT(cc_cmd_exit_code(cmd), 3);
    cc_free_bytes(out);
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "runs once"));
    cc_cmd_free(cmd);
    cc_error_free(&err);
    failed(cc_cmd_run(cmd, NULL, &err), CC_ERR_INVALID_HANDLE);
}

static void test_missing_programs(void)
{
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "no-such-program", NULL, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_start(cmd, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, 2);
    CHECK(strstr(err.message, "no such file") && strcmp(err.path, "no-such-program") == 0);
    cc_error_free(&err);
    cc_cmd_free(cmd);
    CHECK_OK(cc_cmd_new(vm, "/etc/passwd", NULL, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, 13);
    CHECK_EQ_STR(err.op, "run");
    cc_error_free(&err);
    cc_cmd_free(cmd);
}

static void test_settings(void)
{
    const char *args[] = {"-c", "echo $GREETING $PWD $HOME; echo $GONE", NULL};
    char **env, *value;
    size_t count, len;
    uint8_t *out;
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_set_env(cmd, "GREETING", "hi", &err), err);
    CHECK_OK(cc_cmd_set_env(cmd, "GONE", "x", &err), err);
    CHECK_OK(cc_cmd_set_env(cmd, "GONE", NULL, &err), err);
    CHECK_EQ_INT(cc_cmd_set_env(cmd, "A=B", "x", NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_OK(cc_cmd_set_dir(cmd, "/tmp", &err), err);
    CHECK_EQ_INT(cc_cmd_set_dir(cmd, "tmp", NULL), CC_ERR_INVALID_ARGUMENT);
    value = cc_cmd_get_env(cmd, "GREETING");
    CHECK_EQ_STR(value, "hi");
    cc_free_string(value);
    CHECK(!cc_cmd_get_env(cmd, "GONE"));
    CHECK_OK(cc_cmd_environ(cmd, &env, &count, &err), err);
    CHECK(count >= 2 && !env[count] && strchr(env[0], '='));
    cc_free_string_array(env, count);
    CHECK_OK(cc_cmd_output(cmd, &out, &len, NULL, &err), err);
    CHECK_EQ_STR((const char *)out, "hi /tmp /root\n\n");
    cc_free_bytes(out);
    CHECK_EQ_INT(cc_cmd_set_env(cmd, "A", "B", NULL), CC_ERR_INVALID_ARGUMENT);
    cc_cmd_free(cmd);
}

static void test_entrypoint(void)
{
    static const char *const args[] = {"sh", "-c", "exit 5", NULL};
    cc_cmd cmd;
    int result;
    CHECK_OK(cc_cmd_entrypoint(vm, args, &cmd, &err), err); /* the image has no entrypoint: the words are the command */
    CHECK_OK(cc_cmd_run(cmd, &result, &err), err);
    CHECK_EQ_INT(result, 5);
    CHECK_OK(cc_cmd_entrypoint(vm, NULL, &cmd, &err), err); /* "sh", whose input ends at once */
    CHECK_OK(cc_cmd_run(cmd, &result, &err), err);
    CHECK_EQ_INT(result, 0);
}

static void test_files(void)
{
    uint8_t *data, *big = malloc(3000000);
    size_t len;
    cc_file_info info;
    CHECK_OK(cc_fs_write_file(vm, "/tmp/a", (const uint8_t *)"Hello", 5, 0640, &err), err);
    CHECK_OK(cc_fs_read_file(vm, "tmp/a", &data, &len, &err), err);
    CHECK(len == 5 && memcmp(data, "Hello", 6) == 0);
    cc_free_bytes(data);
    CHECK_OK(cc_fs_stat(vm, "/tmp/a", &info, &err), err);
    CHECK(info.size == 5 && info.mode == 0100640 && !info.is_dir && !info.is_symlink && strcmp(info.name, "a") == 0);
    CHECK(info.mod_time_unix > 1700000000);
    cc_file_info_free(&info);
    CHECK_OK(cc_fs_stat(vm, "/", &info, &err), err);
    CHECK(info.is_dir && strcmp(info.name, "/") == 0);
    cc_file_info_free(&info);
    for (size_t i = 0; i < 3000000; i++)
        big[i] = (uint8_t)(i * 7 + i / 251);
    CHECK_OK(cc_fs_write_file(vm, "/tmp/big", big, 3000000, 0600, &err), err);
    CHECK_OK(cc_fs_read_file(vm, "/tmp/big", &data, &len, &err), err);
    CHECK(len == 3000000 && memcmp(data, big, len) == 0);
    cc_free_bytes(data);
    free(big);
    CHECK_EQ_INT(cc_fs_read_file(vm, "/none", &data, &len, &err), CC_ERR_IO);
    CHECK(err.sys_errno == 2 && !data && len == 0 && strcmp(err.path, "/none") == 0);
    cc_error_free(&err);
    CHECK_EQ_INT(cc_fs_write_file(vm, "/tmp", NULL, 0, 0644, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, 21);
    cc_error_free(&err);
}

static void test_the_guest_is_set_up(void)
{
    char expected[64], *id = cc_instance_id(vm);
    (void)snprintf(expected, sizeof(expected), "%s\n", id);
    CHECK(strlen(id) == 12);
    cc_free_string(id);
    CHECK_EQ_STR(sh("hostname"), expected);
    CHECK_EQ_STR(sh("cat /etc/hostname"), expected);
    CHECK_EQ_STR(sh("grep -c localhost /etc/hosts"), "2\n");
    CHECK_EQ_STR(sh("for d in /proc /sys /dev /dev/pts /dev/shm /sys/fs/cgroup; do grep -q \" $d \" /proc/mounts || "
                    "echo $d; done"),
                 "");
    CHECK_EQ_STR(sh("echo x >/dev/null && head -c 4 /dev/zero | wc -c; ls -d /dev/stdin /dev/fd /dev/ptmx | wc -l"),
                 "4\n3\n");
    CHECK_EQ_STR(sh("touch /newfile && mkdir -p /a/b/c && rm -r /a && echo fine"), "fine\n");
    CHECK_EQ_STR(sh("id -u; umask"), "0\n0022\n");
    CHECK(atoll(sh("date +%s")) > 1700000000);
}

static void *wait_on_it(void *cmd)
{
    int result = -1;
    return cc_cmd_wait(*(cc_cmd *)cmd, &result, NULL) == CC_OK && result == 9 ? cmd : NULL;
}

static void test_several_wait_for_one(void)
{
    const char *args[] = {"-c", ": </tmp/gate; exit 9", NULL};
    struct asleep t[3];
    cc_cmd cmd;
    (void)sh("mkfifo /tmp/gate");
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_wait(cmd, NULL, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_OK(cc_cmd_start(cmd, &err), err);
    for (int i = 0; i < 3; i++)
        asleep_start(&t[i], wait_on_it, &cmd);
    (void)sh(": >/tmp/gate");
    for (int i = 0; i < 3; i++)
        CHECK(asleep_join(&t[i]));
    CHECK_EQ_INT(cc_cmd_exit_code(cmd), 9);
    cc_cmd_free(cmd);
}

static void *wait_in_vain(void *cmd)
{
    return cc_cmd_wait(*(cc_cmd *)cmd, NULL, NULL) == CC_ERR_CANCELLED ? cmd : NULL;
}

static void test_cancelled_wait_kills(void)
{
    const char *args[] = {"-c", "echo $$ >/tmp/pid; : >/tmp/ready; sleep 1000", NULL};
    cc_cancel_token token;
    struct asleep t;
    cc_cmd cmd;
    (void)sh("mkfifo /tmp/ready");
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_set_cancel(cmd, token, &err), err);
    CHECK_OK(cc_cmd_start(cmd, &err), err);
    (void)sh("cat /tmp/ready");
    asleep_start(&t, wait_in_vain, &cmd);
    CHECK_OK(cc_cancel_token_cancel(token, &err), err);
    CHECK(asleep_join(&t));
    CHECK_EQ_STR(sh("p=$(cat /tmp/pid); while kill -0 $p 2>/dev/null; do sleep 0.05; done; echo gone: $((p > 1))"),
                 "gone: 1\n");
    failed(cc_instance_wait_with(vm, token, &err), CC_ERR_CANCELLED);
    cc_cmd_free(cmd);
    cc_cancel_token_free(token);
}

static void test_token_kills_without_a_wait(void)
{
    const char *args[] = {"1000", NULL};
    cc_cancel_token token;
    cc_cmd cmd;
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    CHECK_OK(cc_cmd_new(vm, "sleep", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_set_cancel(cmd, token, &err), err);
    CHECK_OK(cc_cmd_start(cmd, &err), err);
    CHECK_OK(cc_cancel_token_cancel(token, &err), err);
    CHECK_EQ_STR(sh("while pidof sleep >/dev/null; do usleep 50000; done; echo gone"), "gone\n");
    cc_cmd_free(cmd);
    cc_cancel_token_free(token);
}

static void test_freed_command_is_killed(void)
{
    const char *args[] = {"1000", NULL};
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "sleep", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_start(cmd, &err), err);
    cc_cmd_free(cmd);
    CHECK_EQ_STR(sh("while pidof sleep >/dev/null; do usleep 50000; done; echo gone"), "gone\n");
}

static void test_hungry_and_many(void)
{
    /* More memory than there is: the guest's kernel ends the program, and the guest goes on. */
    (void)sh("x=$(tail /dev/zero)");
    CHECK(code != 0);
    CHECK_EQ_STR(sh("echo alive"), "alive\n");
    CHECK_EQ_STR(sh("for i in $(seq 200); do sleep 1 & done; wait; echo done"), "done\n");
}

static void test_large_output(void)
{
    const char *args[] = {"-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' x", NULL};
    uint8_t *out;
    size_t len, wrong = 0;
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_output(cmd, &out, &len, NULL, &err), err);
    CHECK_EQ_INT(len, 8 << 20);
    for (size_t i = 0; i < len; i++)
        wrong += out[i] != 'x';
    CHECK_EQ_INT(wrong, 0);
    cc_free_bytes(out);
    cc_cmd_free(cmd);
}

static void *wait_for_end(void *arg)
{
    return cc_instance_wait(vm, NULL) == CC_OK ? arg : NULL;
}

/* Until another thread is inside a call on the instance. */
static void wait_for_caller(void)
{
    struct cci_object *o;
    CHECK_OK(cci_handle_get(vm, CCI_KIND_INSTANCE, &o, &err), err);
    struct cci_instance *i = (struct cci_instance *)o;
    cci_monitor_lock(&i->monitor);
    while (i->calls == 0) {
        cci_monitor_unlock(&i->monitor);
        (void)sched_yield();
        cci_monitor_lock(&i->monitor);
    }
    cci_monitor_unlock(&i->monitor);
    cci_object_unref(o);
}

static void test_close(void)
{
    const char *args[] = {"1000", NULL};
    pthread_t t;
    int here = 0;
    void *ok;
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "sleep", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_start(cmd, &err), err);
    CHECK(pthread_create(&t, NULL, wait_for_end, &here) == 0);
    wait_for_caller();
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK(pthread_join(t, &ok) == 0 && ok == &here);
    failed(cc_instance_close(vm, &err), CC_ERR_ALREADY_CLOSED);
    failed(cc_cmd_wait(cmd, NULL, &err), CC_ERR_INVALID_HANDLE); /* went with its instance */
    CHECK(!cc_instance_is_running(vm) && !cc_instance_id(vm));
}

static void test_shutdown_closes_all(void)
{
    cc_cmd cmd;
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
    CHECK_OK(cc_cmd_new(vm, "true", NULL, &cmd, &err), err);
    cc_shutdown();
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, NULL), CC_ERR_INVALID_HANDLE);
    CHECK_EQ_INT(cc_instance_new(source, NULL, &vm, NULL), CC_ERR_INVALID_HANDLE);
}

int main(void)
{
    (void)cc_init();
    RUN(test_boot);
    if (check_failures) /* nothing else can be right then */
        return check_done();
    RUN(test_output_and_exit_codes);
    RUN(test_only_stdout);
    RUN(test_missing_programs);
    RUN(test_settings);
    RUN(test_entrypoint);
    RUN(test_files);
    RUN(test_the_guest_is_set_up);
    RUN(test_several_wait_for_one);
    RUN(test_cancelled_wait_kills);
    RUN(test_token_kills_without_a_wait);
    RUN(test_freed_command_is_killed);
    RUN(test_hungry_and_many);
    RUN(test_large_output);
    RUN(test_close);
    RUN(test_shutdown_closes_all);
    return check_done();
}
