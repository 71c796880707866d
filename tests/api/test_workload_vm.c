/*
 * The workload: the command that an instance ends with.
 * @vm
 * @kernel own
 * @timeout 60
 * @sanitize none
 * @sanitize address,undefined
 * @sanitize thread
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include "guest_sh.h"

static cc_oci_client client;
static cc_instance_source source;
static cc_error err;

static cc_instance boot(void)
{
    cc_instance vm = 0;
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
    return vm;
}

static cc_error_code exec_sh(cc_instance vm, const char *script)
{
    const char *args[] = {"-c", script, NULL};
    return cc_instance_exec(vm, "sh", args, &err);
}

static void expect(cc_error_code got, cc_error_code want, int sys_errno)
{
    CHECK_EQ_INT(got, want);
    CHECK_EQ_INT(err.sys_errno, sys_errno);
    cc_error_free(&err);
}

static void test_setup(void)
{
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
}

static void test_ends_the_instance(void)
{
    cc_instance vm = boot();
    expect(cc_instance_signal(vm, 15, &err), CC_ERR_INVALID_ARGUMENT, 0);
    expect(cc_instance_exec(vm, "no-such-program", NULL, &err), CC_ERR_IO, 2);
    CHECK_EQ_INT(cc_instance_exit_code(vm), -1);
    /* A daemon of its own session does not keep the instance. */
    (void)guest_sh(vm, "mkfifo /ready", NULL);
    CHECK_OK(exec_sh(vm, "setsid sleep 1000 & trap 'exit 42' TERM; : >/ready; while :; do sleep 0.01; done"), err);
    expect(exec_sh(vm, "true"), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_EQ_STR(guest_sh(vm, "cat /ready; echo beside it", NULL), "beside it\n");
    CHECK_EQ_INT(cc_instance_exit_code(vm), -1);
    expect(cc_instance_signal(vm, 65, &err), CC_ERR_INVALID_ARGUMENT, 0);
    CHECK_OK(cc_instance_signal(vm, 0, &err), err);
    CHECK_OK(cc_instance_signal(vm, 15, &err), err);
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK_EQ_INT(cc_instance_exit_code(vm), 42);
    CHECK(!cc_instance_is_running(vm));
    CHECK_EQ_INT(cc_instance_signal(vm, 15, &err), CC_ERR_NOT_RUNNING);
    cc_error_free(&err);
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK_EQ_INT(cc_instance_exit_code(vm), -1);
}

static void test_killed_at_once_and_closed(void)
{
    cc_instance vm = boot();
    CHECK_OK(exec_sh(vm, "kill -9 $$"), err);
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK_EQ_INT(cc_instance_exit_code(vm), 128 + 9);
    CHECK_OK(cc_instance_close(vm, &err), err);
    vm = boot();
    CHECK_OK(exec_sh(vm, "sleep 1000"), err);
    CHECK_OK(cc_instance_close(vm, &err), err); /* while it runs */
    expect(cc_instance_exec(vm, "true", NULL, &err), CC_ERR_ALREADY_CLOSED, 0);
}

int main(void)
{
    (void)cc_init();
    RUN(test_setup);
    if (check_failures)
        return check_done();
    RUN(test_ends_the_instance);
    RUN(test_killed_at_once_and_closed);
    cc_shutdown();
    return check_done();
}
