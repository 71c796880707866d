/*
 * The console attached: bytes out to a function or a descriptor, bytes in, floods, and takers that are slow.
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

static void failed(int got, int want)
{
    cc_error_free(&err);
    CHECK_EQ_INT(got, want);
}

/* ---- A taker ---- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    char text[1 << 20];
    size_t n, total;
    bool stuck; /* it does not return */
    bool enough;
    int closed; /* what a close by it gave */
} got = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static bool on_console(const uint8_t *data, size_t len, void *user_data)
{
    CHECK(user_data == &got);
    pthread_mutex_lock(&got.mutex);
    const size_t n = CCI_MIN(len, sizeof(got.text) - 1 - got.n);
    memcpy(got.text + got.n, data, n);
    got.n += n;
    got.total += len;
    pthread_cond_broadcast(&got.cond);
    while (got.stuck)
        pthread_cond_wait(&got.cond, &got.mutex);
    const bool more = !got.enough;
    pthread_mutex_unlock(&got.mutex);
    return more;
}

static void set_stuck(bool stuck)
{
    pthread_mutex_lock(&got.mutex);
    got.stuck = stuck;
    pthread_cond_broadcast(&got.cond);
    pthread_mutex_unlock(&got.mutex);
}

/* Waits until the console has said so, which is then forgotten with all before it. */
static void expect(const char *what)
{
    char *at;
    pthread_mutex_lock(&got.mutex);
    while (got.text[got.n] = '\0', !(at = strstr(got.text, what)))
        pthread_cond_wait(&got.cond, &got.mutex);
    at += strlen(what);
    got.n -= (size_t)(at - got.text);
    memmove(got.text, at, got.n);
    pthread_mutex_unlock(&got.mutex);
}

static void type(const char *what)
{
    size_t n;
    CHECK_OK(cc_instance_console_write(vm, (const uint8_t *)what, strlen(what), &n, &err), err);
    CHECK_EQ_INT(n, strlen(what));
}

static void start(int fd)
{
    cc_instance_options o = {0};
    o.console_callback = fd ? NULL : on_console;
    o.console_user_data = &got;
    o.console_fd = fd;
    got.n = got.total = 0;
    got.enough = got.stuck = false;
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
}

static struct cci_serial *port(void)
{
    struct cci_object *o;
    CHECK_OK(cci_handle_get(vm, CCI_KIND_INSTANCE, &o, &err), err);
    cci_object_unref(o); /* the handle stays */
    return &((struct cci_instance *)o)->vm.machine->serial;
}

/* Bytes that wait for the guest, or for the taker. */
static size_t on_the_wire(bool in)
{
    struct cci_serial *s = port();
    cci_monitor_lock(&s->monitor);
    const size_t n = in ? s->in_n : s->out_n;
    cci_monitor_unlock(&s->monitor);
    return n;
}

/* The port tells nobody that it is full, or empty: these look, for as long as it takes. */
static void until_full(bool in)
{
    while (on_the_wire(in) < (in ? CCI_SERIAL_IN : CCI_SERIAL_OUT))
        (void)usleep(10000);
}

static void until_taken(void)
{
    while (on_the_wire(true))
        (void)usleep(10000);
}

/* ---- */

static void test_setup(void)
{
    cc_oci_client client;
    cc_instance_options o = {0};
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    o.console_fd = -1;
    failed(cc_instance_new(source, &o, &vm, &err), CC_ERR_INVALID_ARGUMENT);
    o.console_fd = 1;
    o.console_callback = on_console;
    failed(cc_instance_new(source, &o, &vm, &err), CC_ERR_INVALID_ARGUMENT);
    o.console_callback = NULL;
    o.console_fd = 1000000; /* not open */
    failed(cc_instance_new(source, &o, &vm, &err), CC_ERR_INVALID_ARGUMENT);
}

static void test_a_shell(void)
{
    start(0);
    (void)guest_sh(vm, "stty -F /dev/ttyS0 sane; (sh -i; echo gone) </dev/ttyS0 >/dev/ttyS0 2>&1 & echo ok", NULL);
    expect("# ");
    type("echo $((6 * 7)) answers\n");
    expect("echo $((6 * 7)) answers"); /* the terminal's echo */
    expect("42 answers\r\n");
    type("stty -echo; read line; echo \"read: $line\"\n");
    expect("read: $line");
    type("a line");
    type(" of two pieces\n");
    expect("read: a line of two pieces");
    type("exit\n");
    expect("gone\r\n"); /* and reads no more */
}

/* All 256 bytes, both ways, more than any buffer holds. */
static void test_raw_bytes(void)
{
    enum { N = 6000 };
    static uint8_t sent[N];
    size_t n;
    for (size_t i = 0; i < N; i++)
        sent[i] = (uint8_t)(i * 7 + i / 256);
    (void)guest_sh(vm,
                   "stty -F /dev/ttyS0 raw -echo; (echo ready >/dev/ttyS0; head -c 6000 </dev/ttyS0 >/tmp/in; "
                   "cat /tmp/in; echo done) >/dev/ttyS0 2>&1 & echo ok",
                   NULL);
    expect("ready\n");
    for (size_t at = 0; at < N; at += 100) /* a terminal loses what its reader is too slow for: see that it is not */
        CHECK_OK(cc_instance_console_write(vm, sent + at, 100, &n, &err), err);
    pthread_mutex_lock(&got.mutex);
    while (got.n < N + 5)
        pthread_cond_wait(&got.cond, &got.mutex);
    CHECK(memcmp(got.text, sent, N) == 0 && memcmp(got.text + N, "done\n", 5) == 0);
    got.n = 0;
    pthread_mutex_unlock(&got.mutex);
}

/* A taker that hangs makes programs wait, and nothing else; nothing of theirs is lost. */
static void test_a_slow_taker(void)
{
    enum { N = 24000 };
    size_t before;
    set_stuck(true);
    (void)guest_sh(
        vm, "(head -c 24000 /dev/zero | tr '\\0' x; echo end; echo over >/tmp/over) >/dev/ttyS0 2>&1 & echo ok", NULL);
    until_full(false);
    CHECK_EQ_STR(guest_sh(vm, "[ -e /tmp/over ] || echo waits", NULL), "waits\n");
    /* The kernel says something on its console all the same, and does not hang over it. */
    uint64_t t0 = cci_os_now();
    (void)guest_sh(vm, "for i in 1 2 3 4 5; do echo '<0>cctest: told' >/dev/kmsg; done", NULL);
    CHECK(cci_os_now() - t0 < 40000000000u);
    char *tail = cci_serial_tail(port(), 4000);
    CHECK(strstr(tail, "cctest: told"));
    cci_mem_free(tail);
    pthread_mutex_lock(&got.mutex);
    before = got.n;
    CHECK(before < N);
    pthread_mutex_unlock(&got.mutex);
    set_stuck(false);
    expect("end\n");
    pthread_mutex_lock(&got.mutex);
    CHECK(got.total >= N);
    pthread_mutex_unlock(&got.mutex);
    CHECK_EQ_STR(guest_sh(vm, "while [ ! -e /tmp/over ]; do sleep 0.02; done; echo over", NULL), "over\n");
}

static void *write_much(void *arg)
{
    static uint8_t zeros[20000];
    size_t n = 0;
    cc_error e = {0};
    int code = (int)cc_instance_console_write(vm, zeros, sizeof(zeros), &n, &e);
    cc_error_free(&e);
    *(int *)arg = n > 0 && n < sizeof(zeros) ? code : -1;
    return NULL;
}

/* A paused guest takes nothing: a write waits until its token fires, or the instance ends. */
static void test_writes_end(void)
{
    static uint8_t zeros[20000];
    cc_cancel_token token;
    pthread_t t;
    size_t n;
    int code = 0;
    CHECK_OK(cc_instance_pause(vm, &err), err);
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    CHECK_OK(cc_cancel_token_cancel(token, &err), err);
    failed(cc_instance_console_write_with(vm, zeros, sizeof(zeros), token, &n, &err), CC_ERR_CANCELLED);
    CHECK_EQ_INT(n, 4096);
    cc_cancel_token_free(token);
    CHECK_OK(cc_instance_resume(vm, &err), err);
    (void)guest_sh(vm, "cat </dev/ttyS0 >/dev/null 2>&1 & echo ok", NULL);
    for (int i = 0; i < 5; i++)
        CHECK_OK(cc_instance_console_write(vm, zeros, 4096, &n, &err), err);
    until_taken();
    CHECK_OK(cc_instance_pause(vm, &err), err);
    CHECK(pthread_create(&t, NULL, write_much, &code) == 0);
    until_full(true);
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK(pthread_join(t, NULL) == 0);
    CHECK_EQ_INT(code, CC_ERR_NOT_RUNNING);
    failed(cc_instance_console_write(vm, zeros, 1, &n, &err), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(n, 0);
}

static bool close_own(const uint8_t *data, size_t len, void *user_data)
{
    (void)data;
    (void)len;
    if (got.closed == -1)
        got.closed = (int)cc_instance_close(vm, NULL);
    (void)user_data;
    return true;
}

static void test_callback_may_not_close_its_own(void)
{
    cc_instance_options o = {0};
    o.console_callback = close_own;
    got.closed = -2;
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
    got.closed = -1;
    (void)guest_sh(vm, "echo hello >/dev/ttyS0", NULL);
    CHECK_OK(cc_instance_close(vm, &err), err); /* returns when the callback has been told all */
    CHECK_EQ_INT(got.closed, CC_ERR_INVALID_ARGUMENT);
}

static void test_taker_has_enough(void)
{
    start(0);
    pthread_mutex_lock(&got.mutex);
    got.enough = true;
    pthread_mutex_unlock(&got.mutex);
    CHECK_EQ_STR(guest_sh(vm, "head -c 40000 /dev/zero >/dev/ttyS0; echo $?", NULL), "0\n");
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK(got.total < 30000);
}

/* A pipe that nobody reads, while the guest floods: a close does not wait for it; what was written is whole. */
static void test_descriptor(void)
{
    int p[2];
    static char buf[100000];
    size_t n = 0;
    CHECK(pipe2(p, O_CLOEXEC) == 0 && fcntl(p[1], F_SETPIPE_SZ, 8192) == 8192);
    start(p[1]);
    close(p[1]);
    (void)guest_sh(vm, "stty -F /dev/ttyS0 raw -echo; echo begin >/dev/ttyS0; yes >/dev/ttyS0 2>&1 & echo ok", NULL);
    until_full(false);
    (void)guest_sh(vm, "echo other calls work", NULL);
    CHECK_OK(cc_instance_close(vm, &err), err);
    for (ssize_t r; (r = read(p[0], buf + n, sizeof(buf) - 1 - n)) > 0; n += (size_t)r)
        ;
    buf[n] = '\0'; /* the library's end of the pipe is closed, else this would still wait */
    CHECK(n >= 4096 && strstr(buf, "begin\ny\ny\n"));
    close(p[0]);
    CHECK(pipe2(p, O_CLOEXEC) == 0);
    start(p[1]);
    close(p[1]);
    close(p[0]); /* nobody will ever read */
    CHECK_EQ_STR(guest_sh(vm, "head -c 5000 /dev/zero >/dev/ttyS0; echo $?", NULL), "0\n");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

int main(void)
{
    (void)cc_init();
    RUN(test_setup);
    RUN(test_a_shell);
    RUN(test_raw_bytes);
    RUN(test_a_slow_taker);
    RUN(test_writes_end);
    RUN(test_callback_may_not_close_its_own);
    RUN(test_taker_has_enough);
    RUN(test_descriptor);
    cc_shutdown();
    return check_done();
}
