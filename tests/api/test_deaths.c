/*
 * How guests die, and what is told of it: the state, the reason, the kernel's last words, calls that wait.
 * @vm
 * @timeout 100
 * @kernel own
 * @kernel stock
 * @sanitize none
 * @sanitize thread
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "guest_sh.h"

static cc_instance_source source;
static cc_instance vm;
static cc_error err;

static void start(void)
{
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
}

static bool has(const char *text, const char *part)
{
    if (text && strstr(text, part))
        return true;
    printf("# no \"%s\" in: %s\n", part, text ? text : "(nothing)");
    return false;
}

/* Runs what the guest does not survive. The call ends with the reason, also when the guest takes its devices down in
 * good order first, and so breaks the connection before it ends. */
static void run_fatal(const char *script, const char *reason)
{
    const char *args[] = {"-c", script, NULL};
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, &err), CC_ERR_NOT_RUNNING);
    CHECK(has(err.message, reason));
    cc_error_free(&err);
    cc_cmd_free(cmd);
}

/* The instance has ended so, and closes. */
static void check_end(cc_instance_state want, const char *reason, const char *last_words)
{
    cc_instance_state state;
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK_OK(cc_instance_get_state(vm, &state, &err), err);
    CHECK_EQ_INT(state, want);
    CHECK_EQ_INT(cc_instance_exit_code(vm), -1);
    char *why = cc_instance_end_reason(vm);
    CHECK(has(why, reason) && has(why, last_words));
    cc_free_string(why);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_setup(void)
{
    cc_oci_client client;
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
}

/* The guest's root cannot kill the agent, but can break it; PID 1 gone, the kernel gives up. */
static void test_agent_crashes(void)
{
    start();
    CHECK_EQ_STR(guest_sh(vm, "kill -9 1; kill -SEGV 1; echo alive", NULL), "alive\n");
    run_fatal(
        "a=$(grep -m1 r-xp /proc/1/maps | cut -d- -f1); "
        "dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((0x$a / 4096)) count=16 conv=notrunc 2>/dev/null", /* its next
                                                                                                             event, the
                                                                                                             end of
                                                                                                             this, finds
                                                                                                             no code */
        "Attempted to kill init");
    check_end(CC_STATE_FAILED, "the guest's kernel gave up: Attempted to kill init", "Kernel panic");
}

static void test_reboot_and_power_off(void)
{
    start();
    run_fatal("reboot -f", "rebooted");
    check_end(CC_STATE_STOPPED, "rebooted, which ends an instance", "");
    start();
    run_fatal("poweroff -f", "switched itself off");
    check_end(CC_STATE_STOPPED, "switched itself off", "");
}

static void test_panic(void)
{
    start();
    if (atoi(guest_sh(vm, "[ -e /proc/sysrq-trigger ] && echo 1", NULL))) {
        run_fatal("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger", "gave up: sysrq triggered crash");
        check_end(CC_STATE_FAILED, "gave up: sysrq triggered crash", "Kernel panic");
        return;
    }
    SKIP(test_panic, "this kernel has no SysRq; test_agent_crashes has it panic");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_triple_fault(void)
{
    start();
    if (atoi(guest_sh(vm, "[ -e /sys/kernel/reboot/type ] && echo 1", NULL))) {
        run_fatal("echo triple >/sys/kernel/reboot/type; echo 1 >/sys/kernel/reboot/force; reboot -f", "triple fault");
        check_end(CC_STATE_FAILED, "triple fault", "");
        return;
    }
    SKIP(test_triple_fault, "this kernel does not let one choose how to reboot");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static struct cci_instance *inside(void)
{
    struct cci_object *o;
    CHECK_OK(cci_handle_get(vm, CCI_KIND_INSTANCE, &o, &err), err);
    cci_object_unref(o); /* the handle stays */
    return (struct cci_instance *)o;
}

static void *wait_it(void *arg)
{
    return cc_instance_wait(vm, NULL) == CC_OK ? arg : NULL;
}

static void test_agent_gone_and_guest_not(void)
{
    struct cci_control *ctl;
    pthread_t t;
    void *ok;
    start();
    CHECK(pthread_create(&t, NULL, wait_it, &source) == 0);
    ctl = inside()->vm.control;
    cci_mutex_lock(&ctl->mutex);
    cci_control_on_protocol_error(ctl, "answered with a song"); /* as if it had */
    cci_mutex_unlock(&ctl->mutex);
    CHECK(pthread_join(t, &ok) == 0 && ok); /* its machine is ended, too */
    char *why = cc_instance_end_reason(vm);
    CHECK(has(why, "the guest's agent broke the protocol: it answered with a song"));
    cc_free_string(why);
    cc_instance_state state;
    CHECK_OK(cc_instance_get_state(vm, &state, &err), err);
    CHECK(state == CC_STATE_FAILED || state == CC_STATE_STOPPED); /* an agent without a connection switches off */
    CHECK_OK(cc_instance_close(vm, &err), err);
}

/* A guest that goes on without its agent is ended. It is paused, as else its agent would switch it off. */
static void test_agent_gone_for_good(void)
{
    struct cci_control *ctl;
    start();
    CHECK_OK(cc_instance_pause(vm, &err), err);
    ctl = inside()->vm.control;
    cci_mutex_lock(&ctl->mutex);
    cci_control_on_break(ctl);
    cci_mutex_unlock(&ctl->mutex);
    run_fatal("echo never", "the guest's agent ended, and the guest went on without it");
    check_end(CC_STATE_FAILED, "the guest's agent ended, and the guest went on without it", "");
}

/* A guest that was asked to stop and hangs. Its half minute is shortened. */
static void test_guest_does_not_stop(void)
{
    struct cci_vm *v;
    start();
    v = &inside()->vm;
    cci_machine_pause(v->machine); /* as if it hung: nobody knows that it is paused */
    const uint64_t before = cci_os_now();
    CHECK_OK(cc_instance_request_stop(vm, 2, &err), err);
    CHECK(v->stop_at >= before + 32000000000u && v->stop_at <= cci_os_now() + 32000000000u);
    cci_loop_set_alarm(&v->loop, &v->stop, cci_os_now());
    run_fatal("echo never", "the guest did not stop when it was asked to, and its power was cut");
    check_end(CC_STATE_FAILED, "its power was cut", "");
}

static void test_hypervisor_gives_up(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    start();
    CHECK(dup3(null, inside()->vm.machine->cpu[0].vcpu->fd, O_CLOEXEC) >= 0); /* the next KVM_RUN fails */
    run_fatal("sleep 100", "the hypervisor gave up: KVM stopped the guest: error 25");
    check_end(CC_STATE_FAILED, "the hypervisor gave up", "");
    close(null);
}

/* A command that eats the memory is the guest's own affair. */
static void test_out_of_memory_is_no_death(void)
{
    const char *args[] = {"/dev/zero", NULL};
    cc_cmd cmd;
    cc_instance_state state;
    int code = 0;
    start();
    for (int i = 0; i < 2; i++) {
        CHECK_OK(cc_cmd_new(vm, "tail", args, &cmd, &err), err);
        CHECK_OK(cc_cmd_run(cmd, &code, &err), err);
        CHECK_EQ_INT(code, 128 + 9);
        cc_cmd_free(cmd);
    }
    CHECK_EQ_STR(guest_sh(vm, "echo alive", NULL), "alive\n");
    CHECK_OK(cc_instance_get_state(vm, &state, &err), err);
    CHECK_EQ_INT(state, CC_STATE_RUNNING);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

int main(void)
{
    (void)cc_init();
    RUN(test_setup);
    RUN(test_agent_crashes);
    RUN(test_reboot_and_power_off);
    RUN(test_panic);
    RUN(test_triple_fault);
    RUN(test_agent_gone_and_guest_not);
    RUN(test_agent_gone_for_good);
    RUN(test_guest_does_not_stop);
    RUN(test_hypervisor_gives_up);
    RUN(test_out_of_memory_is_no_death);
    cc_shutdown();
    return check_done();
}
