/*
 * The life of an instance: states and their callback, pause and resume, stopping, the descriptor for the end,
 * time-outs.
 * @vm
 * @one-cpu
 * @timeout 150
 * @kernel own
 * @sanitize none
 * @sanitize thread
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "guest_sh.h"

static cc_instance_source source;
static cc_instance vm;
static cc_error err;

static void failed(int got, int want)
{
    cc_error_free(&err);
    CHECK_EQ_INT(got, want);
}

/* ---- What the callback is told ---- */

struct told {
    pthread_mutex_t mutex;
    char text[400]; /* states by their numbers */
    cc_instance instance;
    bool overlap, inside;
};

static struct told told = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void on_state(cc_instance inst, cc_instance_state state, void *user_data)
{
    struct told *t = user_data;
    pthread_mutex_lock(&t->mutex);
    t->overlap |= t->inside;
    t->inside = true;
    t->instance = inst;
    size_t n = strlen(t->text);
    (void)snprintf(t->text + n, sizeof(t->text) - n, "%d", (int)state);
    pthread_mutex_unlock(&t->mutex);
    (void)usleep(1000); /* a slow callback: changes pile up meanwhile, and a second call would be seen */
    pthread_mutex_lock(&t->mutex);
    t->inside = false;
    pthread_mutex_unlock(&t->mutex);
}

static const char *heard(void)
{
    static char text[400];
    pthread_mutex_lock(&told.mutex);
    memcpy(text, told.text, sizeof(text));
    told.text[0] = '\0';
    pthread_mutex_unlock(&told.mutex);
    return text;
}

static void start(double timeout_seconds)
{
    cc_instance_options o = {0};
    o.cpus = 2;
    o.timeout_seconds = timeout_seconds;
    o.state_callback = on_state;
    o.state_user_data = &told;
    (void)heard();
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
}

static cc_instance_state state_of(cc_instance inst)
{
    cc_instance_state state;
    CHECK_OK(cc_instance_get_state(inst, &state, &err), err);
    return state;
}

static void test_setup(void)
{
    cc_oci_client client;
    CHECK_OK(cc_supports_hypervisor(&err), err);
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    start(0);
    CHECK_EQ_INT(state_of(vm), CC_STATE_RUNNING);
    CHECK(!cc_instance_end_reason(vm));
}

static uint64_t now_ms(void)
{
    return cci_os_now() / 1000000;
}

static void *run_echo(void *arg)
{
    cc_cmd cmd;
    const char *args[] = {"hello", NULL};
    uint8_t *out = NULL;
    size_t len;
    if (cc_cmd_new(vm, "echo", args, &cmd, NULL) == CC_OK)
        (void)cc_cmd_output(cmd, &out, &len, NULL, NULL);
    *(uint64_t *)arg = now_ms();
    void *ok = out && strcmp((char *)out, "hello\n") == 0 ? arg : NULL;
    cc_free_bytes(out);
    cc_cmd_free(cmd);
    return ok;
}

static void test_pause(void)
{
    pthread_t t;
    uint64_t ended = 0, resumed;
    void *ok;
    /* A process that counts: it must not while the guest is paused. */
    (void)guest_sh(vm, "(while :; do echo x; usleep 2000; done) >/tmp/count 2>&1 & echo $! >/tmp/counter", NULL);
    const uint64_t begin = now_ms();
    const double before = atof(guest_sh(vm, "cut -d' ' -f1 /proc/uptime", NULL));
    CHECK_OK(cc_instance_pause(vm, &err), err);
    const uint64_t paused = now_ms();
    CHECK_EQ_INT(state_of(vm), CC_STATE_PAUSED);
    CHECK(cc_instance_is_running(vm));
    CHECK_EQ_INT(cc_instance_pause(vm, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "paused"));
    cc_error_free(&err);
    CHECK(pthread_create(&t, NULL, run_echo, &ended) == 0);
    (void)usleep(1500000); /* what is tested is that this time does not pass in the guest */
    resumed = now_ms();
    CHECK_OK(cc_instance_resume(vm, &err), err);
    CHECK_EQ_INT(state_of(vm), CC_STATE_RUNNING);
    CHECK(pthread_join(t, &ok) == 0 && ok);
    CHECK(ended >= resumed);
    failed(cc_instance_resume(vm, &err), CC_ERR_INVALID_ARGUMENT);
    /* For the guest the pause took no time, however long everything else took; its time of day is right all the same.
     */
    const double after = atof(guest_sh(vm, "cut -d' ' -f1 /proc/uptime", NULL));
    CHECK((after - before) * 1000 < (double)(now_ms() - begin - (resumed - paused)) + 500);
    const long long earlier = (long long)time(NULL), date = atoll(guest_sh(vm, "date +%s", NULL));
    CHECK(date >= earlier - 1 && date <= (long long)time(NULL) + 1);
    CHECK_EQ_STR(guest_sh(vm,
                          "a=$(wc -l </tmp/count); until [ $(wc -l </tmp/count) -gt $a ]; do :; done; echo counts; "
                          "kill $(cat /tmp/counter)",
                          NULL),
                 "counts\n");
}

static void test_a_paused_guest_stands_still(void)
{
    struct cci_object *o;
    (void)guest_sh(vm, "(while :; do :; done) >/dev/null 2>&1 & echo $! >/tmp/busy", NULL);
    CHECK_OK(cc_instance_pause(vm, &err), err);
    CHECK_OK(cci_handle_get(vm, CCI_KIND_INSTANCE, &o, &err), err);
    const struct cci_machine *m = ((struct cci_instance *)o)->vm.machine;
    uint8_t *copy = malloc(m->config.ram_bytes);
    memcpy(copy, m->ram, m->config.ram_bytes);
    (void)usleep(300000); /* long enough for a CPU that runs, or a device, to change something */
    CHECK(memcmp(copy, m->ram, m->config.ram_bytes) == 0);
    free(copy);
    cci_object_unref(o);
    CHECK_OK(cc_instance_resume(vm, &err), err);
    (void)guest_sh(vm, "kill $(cat /tmp/busy)", NULL);
}

static void *pause_and_resume(void *arg)
{
    for (int i = 0; i < 30; i++) {
        cc_error_code code = cc_instance_pause(vm, NULL);
        if (code != CC_OK && code != CC_ERR_INVALID_ARGUMENT)
            return NULL;
        code = cc_instance_resume(vm, NULL);
        if (code != CC_OK && code != CC_ERR_INVALID_ARGUMENT)
            return NULL;
    }
    return arg;
}

static void test_many_pauses(void)
{
    pthread_t t[3];
    void *ok;
    (void)cc_instance_set_state_callback(vm, NULL, NULL, NULL);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&t[i], NULL, pause_and_resume, &t) == 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ_STR(guest_sh(vm, "echo on", NULL), "on\n");
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(t[i], &ok) == 0 && ok);
    CHECK_EQ_INT(state_of(vm), CC_STATE_RUNNING);
}

static void test_callback_is_told_everything(void)
{
    CHECK_OK(cc_instance_set_state_callback(vm, NULL, NULL, &err), err); /* waits until all was told */
    CHECK_EQ_STR(heard(), "1234523452");
    CHECK_OK(cc_instance_set_state_callback(vm, on_state, &told, &err), err);
    for (int i = 0; i < 20; i++) {
        CHECK_OK(cc_instance_pause(vm, &err), err);
        CHECK_OK(cc_instance_resume(vm, &err), err);
    }
    CHECK_OK(cc_instance_set_state_callback(vm, NULL, NULL, &err), err);
    char want[100] = "";
    for (int i = 0; i < 20; i++)
        (void)strcat(want, "3452");
    CHECK_EQ_STR(heard(), want);
    CHECK(!told.overlap && told.instance == vm);
}

static void close_own(cc_instance inst, cc_instance_state state, void *user_data)
{
    if (state == CC_STATE_PAUSED) {
        *(int *)user_data = (int)cc_instance_close(inst, NULL);
        (void)cc_instance_resume(inst, NULL); /* other calls work */
    }
}

static void test_callback_may_call(void)
{
    int result = -1;
    CHECK_OK(cc_instance_set_state_callback(vm, close_own, &result, &err), err);
    CHECK_OK(cc_instance_pause(vm, &err), err);
    CHECK_EQ_STR(guest_sh(vm, "echo resumed", NULL), "resumed\n"); /* waits until it is */
    CHECK_OK(cc_instance_set_state_callback(vm, on_state, &told, &err), err);
    CHECK_EQ_INT(result, CC_ERR_INVALID_ARGUMENT);
}

/* When the host's clock is set, the guest's is, too. The rig's clock may be set; another host's is left alone. */
static void test_clock_follows(void)
{
    struct timespec t;
    if (!getenv("CC_RIG")) {
        SKIP(test_clock_follows, "this is no machine whose clock may be set");
        return;
    }
    CHECK(clock_gettime(CLOCK_REALTIME, &t) == 0);
    t.tv_sec += 5000;
    CHECK(clock_settime(CLOCK_REALTIME, &t) == 0);
    char script[100];
    (void)snprintf(script, sizeof(script), "until [ $(date +%%s) -ge %lld ]; do :; done; date +%%s",
                   (long long)t.tv_sec);
    const long long seen = atoll(guest_sh(vm, script, NULL));
    CHECK(seen <= (long long)time(NULL) + 1);
}

/* ---- Ends ---- */

static int poll_now(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

static void test_close(void)
{
    int fd, other;
    char byte;
    (void)heard();
    CHECK_OK(cc_instance_done_fd(vm, &fd, &err), err);
    CHECK_OK(cc_instance_done_fd(vm, &other, &err), err);
    CHECK(fd != other && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    CHECK_EQ_INT(poll_now(fd), 0);
    CHECK_OK(cc_instance_pause(vm, &err), err); /* closing a paused instance works */
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK_EQ_STR(heard(), "3467");
    CHECK_EQ_INT(poll_now(fd), 1);
    CHECK(read(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 0);
    CHECK(poll_now(fd) == 1 && poll_now(other) == 1); /* for ever, also without the byte */
    close(fd);
    close(other);
    failed(cc_instance_get_state(vm, &(cc_instance_state){0}, &err), CC_ERR_ALREADY_CLOSED);
    failed(cc_instance_pause(vm, &err), CC_ERR_ALREADY_CLOSED);
    failed(cc_instance_done_fd(vm, &fd, &err), CC_ERR_ALREADY_CLOSED);
    failed(cc_instance_request_stop(vm, 1, &err), CC_ERR_ALREADY_CLOSED);
}

static void check_ended(cc_instance_state want, const char *reason)
{
    int fd;
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK_EQ_INT(state_of(vm), want);
    char *why = cc_instance_end_reason(vm);
    if (!why || !strstr(why, reason))
        printf("# %s\n", why ? why : "(null)");
    CHECK(why && strstr(why, reason));
    cc_free_string(why);
    CHECK_OK(cc_instance_done_fd(vm, &fd, &err), err);
    CHECK_EQ_INT(poll_now(fd), 1);
    close(fd);
    CHECK(!cc_instance_is_running(vm));
    CHECK_EQ_INT(cc_instance_pause(vm, &err), CC_ERR_NOT_RUNNING);
    CHECK(err.message && strstr(err.message, reason));
    cc_error_free(&err);
    failed(cc_instance_request_stop(vm, 0, &err), CC_ERR_NOT_RUNNING);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_request_stop(void)
{
    const char *args[] = {"-c", "trap 'echo bye >/tmp/x; exit 7' TERM; : >/tmp/ready; while :; do sleep 0.05; done",
                          NULL};
    start(0);
    (void)guest_sh(vm, "mkfifo /tmp/ready", NULL);
    failed(cc_instance_request_stop(vm, -1, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK_OK(cc_instance_exec(vm, "sh", args, &err), err);
    (void)guest_sh(vm, "cat /tmp/ready", NULL);
    CHECK_OK(cc_instance_request_stop(vm, 50, &err), err);
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK_EQ_INT(cc_instance_exit_code(vm), 7);
    check_ended(CC_STATE_STOPPED, "switched itself off");
    CHECK_EQ_STR(heard(), "1267");
}

static void test_stop_hurries_and_wakes_the_paused(void)
{
    const char *args[] = {"-c", "trap '' TERM; : >/tmp/ready; while :; do sleep 0.05; done", NULL};
    cc_cmd cmd;
    int code = 0;
    start(0);
    (void)guest_sh(vm, "mkfifo /tmp/ready", NULL);
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_start(cmd, &err), err);
    (void)guest_sh(vm, "cat /tmp/ready", NULL);
    CHECK_OK(cc_instance_pause(vm, &err), err);
    CHECK_OK(cc_instance_request_stop(vm, 5000, &err), err);
    CHECK_EQ_INT(state_of(vm), CC_STATE_STOPPING);
    failed(cc_instance_pause(vm, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK_OK(cc_instance_request_stop(vm, 0.2, &err), err);
    CHECK_OK(cc_cmd_wait(cmd, &code, &err), err);
    CHECK_EQ_INT(code, 128 + 9);
    check_ended(CC_STATE_STOPPED, "switched itself off");
    CHECK_EQ_STR(heard(), "123467");
}

static void test_timeout(void)
{
    start(1);
    CHECK_OK(cc_instance_pause(vm, &err), err); /* its time passes all the same */
    check_ended(CC_STATE_STOPPED, "time-out of 1 seconds");
    CHECK_EQ_STR(heard(), "123467");
}

static void test_a_start_that_fails(void)
{
    cc_instance_options o = {0};
    o.state_callback = on_state;
    o.state_user_data = &told;
    o.kernel = "/no/such/kernel";
    (void)heard();
    failed(cc_instance_new(source, &o, &vm, &err), CC_ERR_IO);
    CHECK_EQ_STR(heard(), "18");
}

static sem_t rounds; /* how often the threads below went around */

/* Threads that do everything to an instance that is being closed. */
static void *hammer(void *arg)
{
    for (;;) {
        cc_instance_state state;
        int fd = -1;
        cc_error_code code = cc_instance_pause(vm, NULL);
        (void)cc_instance_resume(vm, NULL);
        (void)cc_instance_set_state_callback(vm, on_state, &told, NULL);
        if (cc_instance_done_fd(vm, &fd, NULL) == CC_OK)
            close(fd);
        (void)cc_instance_request_stop(vm, 1000, NULL);
        cc_free_string(cc_instance_end_reason(vm));
        (void)sem_post(&rounds);
        if (code == CC_ERR_ALREADY_CLOSED && cc_instance_get_state(vm, &state, NULL) == code)
            return arg;
    }
}

static void test_close_races_all(void)
{
    pthread_t t[4];
    void *ok;
    for (int round = 0; round < 3; round++) {
        start(0);
        CHECK(sem_init(&rounds, 0, 0) == 0);
        for (int i = 0; i < 4; i++)
            CHECK(pthread_create(&t[i], NULL, hammer, &t) == 0);
        for (int i = 0; i < round * 4; i++)
            (void)sem_wait(&rounds);
        CHECK_OK(cc_instance_close(vm, &err), err);
        for (int i = 0; i < 4; i++)
            CHECK(pthread_join(t[i], &ok) == 0 && ok);
    }
}

int main(void)
{
    (void)cc_init();
    RUN(test_setup);
    if (check_failures)
        return check_done();
    RUN(test_pause);
    RUN(test_a_paused_guest_stands_still);
    RUN(test_callback_is_told_everything);
    RUN(test_many_pauses);
    RUN(test_callback_may_call);
    RUN(test_clock_follows);
    RUN(test_close);
    RUN(test_request_stop);
    RUN(test_stop_hurries_and_wakes_the_paused);
    RUN(test_timeout);
    RUN(test_a_start_that_fails);
    RUN(test_close_races_all);
    cc_shutdown();
    return check_done();
}
