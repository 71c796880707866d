/*
 * Connections between host and guest through vsock: dial, listen, accept, deadlines, half-close, ends.
 * @vm
 * @timeout 120
 * @kernel own
 * @sanitize address,undefined
 * @sanitize thread
 * @setup tools/mkimage busybox build/tests/busybox.tar
 * @setup gcc -static -O1 -Wall -Wextra -o build/tests/vsock_peer tests/api/vsock_peer.c
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

#include "../asleep.h"
#include "guest_sh.h"

static cc_instance vm;
static cc_error err;

static void failed(int got, int want)
{
    cc_error_free(&err);
    CHECK_EQ_INT(got, want);
}

static void test_setup(void)
{
    static uint8_t program[4 << 20];
    cc_oci_client client;
    cc_instance_source source;
    FILE *f = fopen("build/tests/vsock_peer", "rb");
    size_t n = f ? fread(program, 1, sizeof(program), f) : 0;
    CHECK(f && n > 1000 && n < sizeof(program));
    if (f)
        (void)fclose(f);
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
    CHECK_OK(cc_fs_write_file(vm, "/bin/peer", program, n, 0755, &err), err);
    (void)guest_sh(
        vm,
        "mkfifo /tmp/ready; for a in 'echo 5000' 'deaf 5001'; do peer $a >/tmp/ready 2>&1 & read x </tmp/ready; done",
        NULL);
}

static void test_dial_and_echo(void)
{
    cc_conn c;
    uint8_t buf[100];
    size_t n;
    CHECK_OK(cc_vsock_dial(vm, 5000, &c, &err), err);
    char *local = cc_conn_local_addr(c), *remote = cc_conn_remote_addr(c);
    CHECK(local && strncmp(local, "vsock:2:", 8) == 0 && atol(local + 8) > 0);
    CHECK_EQ_STR(remote, "vsock:3:5000");
    cc_free_string(local);
    cc_free_string(remote);
    CHECK_OK(cc_conn_write(c, (const uint8_t *)"hello", 5, &n, &err), err);
    CHECK_EQ_INT(n, 5);
    for (size_t at = 0; at < 5; at += n) {
        CHECK_OK(cc_conn_read(c, buf + at, sizeof(buf) - at, &n, &err), err);
        CHECK(n > 0);
    }
    CHECK(memcmp(buf, "hello", 5) == 0);
    CHECK_OK(cc_conn_read(c, buf, 0, &n, &err), err);
    CHECK_OK(cc_conn_close_write(c, &err), err);
    CHECK_EQ_INT(cc_conn_write(c, (const uint8_t *)"x", 1, &n, &err), CC_ERR_NETWORK);
    CHECK_EQ_INT(err.sys_errno, EPIPE);
    cc_error_free(&err);
    CHECK_OK(cc_conn_read(c, buf, sizeof(buf), &n, &err), err);
    CHECK_EQ_INT(n, 0); /* the end */
    CHECK_OK(cc_conn_close(c, &err), err);
    failed(cc_conn_close(c, &err), CC_ERR_ALREADY_CLOSED);
    failed(cc_conn_read(c, buf, 1, &n, &err), CC_ERR_ALREADY_CLOSED);
    CHECK(!cc_conn_local_addr(c));
}

struct transfer {
    cc_conn conn;
    size_t total;
    bool ok;
};

static void *send_all(void *ctx)
{
    struct transfer *t = ctx;
    uint8_t *p = malloc(t->total);
    size_t n;
    for (size_t i = 0; i < t->total; i++)
        p[i] = (uint8_t)(i * 7 + i / 251);
    t->ok = cc_conn_write(t->conn, p, t->total, &n, NULL) == CC_OK && n == t->total &&
            cc_conn_close_write(t->conn, NULL) == CC_OK;
    free(p);
    return NULL;
}

static void test_much_both_ways(void)
{
    struct transfer t = {0, 8 << 20, false};
    static uint8_t buf[100000];
    size_t n, at = 0, wrong = 0;
    pthread_t thread;
    CHECK_OK(cc_vsock_dial(vm, 5000, &t.conn, &err), err);
    CHECK(pthread_create(&thread, NULL, send_all, &t) == 0);
    while (cc_conn_read(t.conn, buf, sizeof(buf), &n, &err) == CC_OK && n) {
        for (size_t i = 0; i < n; i++, at++)
            wrong += buf[i] != (uint8_t)(at * 7 + at / 251);
    }
    CHECK(pthread_join(thread, NULL) == 0 && t.ok);
    CHECK(at == t.total && wrong == 0);
    CHECK_OK(cc_conn_close(t.conn, &err), err);
}

static void test_refusals(void)
{
    cc_conn c = 1;
    cc_listener l = 1;
    CHECK_EQ_INT(cc_vsock_dial(vm, 4999, &c, &err), CC_ERR_NETWORK);
    CHECK(err.sys_errno == ECONNREFUSED && c == 0);
    cc_error_free(&err);
    failed(cc_vsock_dial(vm, 1021, &c, &err), CC_ERR_INVALID_ARGUMENT);
    failed(cc_vsock_dial(vm, 1022, &c, &err), CC_ERR_INVALID_ARGUMENT);
    failed(cc_vsock_dial(vm, 0, &c, &err), CC_ERR_INVALID_ARGUMENT);
    failed(cc_vsock_dial(vm, UINT32_MAX, &c, &err), CC_ERR_INVALID_ARGUMENT);
    failed(cc_vsock_listen(vm, 1022, &l, &err), CC_ERR_INVALID_ARGUMENT);
    failed(cc_vsock_listen(vm, 0, &l, &err), CC_ERR_INVALID_ARGUMENT);
    failed(cc_vsock_listen(vm, 1u << 20, &l, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_STR(guest_sh(vm, "peer say 4000 x 2>/dev/null || echo refused", NULL), "refused\n");
    CHECK_EQ_STR(guest_sh(vm, "peer say 1022 x 2>/dev/null || echo refused", NULL), "refused\n");
}

static void *accept_one(void *ctx)
{
    cc_conn c;
    uint8_t buf[100];
    size_t n, at = 0;
    bool ok = cc_listener_accept(*(cc_listener *)ctx, &c, NULL) == CC_OK;
    while (ok && cc_conn_read(c, buf + at, sizeof(buf) - at, &n, NULL) == CC_OK && n)
        at += n;
    ok = ok && at == 4 && memcmp(buf, "ping", 4) == 0 &&
         cc_conn_write(c, (const uint8_t *)"pong\n", 5, NULL, NULL) == CC_OK;
    char *remote = cc_conn_remote_addr(c), *local = cc_conn_local_addr(c);
    ok = ok && strncmp(remote, "vsock:3:", 8) == 0 && strcmp(local, "vsock:2:4000") == 0;
    cc_free_string(remote);
    cc_free_string(local);
    (void)cc_conn_close(c, NULL);
    return ok ? ctx : NULL;
}

static void test_listen(void)
{
    cc_listener l, again;
    pthread_t t;
    void *ok;
    CHECK_OK(cc_vsock_listen(vm, 4000, &l, &err), err);
    CHECK_EQ_INT(cc_vsock_listen(vm, 4000, &again, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, EADDRINUSE);
    cc_error_free(&err);
    char *addr = cc_listener_addr(l);
    CHECK_EQ_STR(addr, "vsock:2:4000");
    cc_free_string(addr);
    CHECK(pthread_create(&t, NULL, accept_one, &l) == 0);
    CHECK_EQ_STR(guest_sh(vm, "peer say 4000 ping", NULL), "pong\n");
    CHECK(pthread_join(t, &ok) == 0 && ok);
    CHECK_OK(cc_listener_close(l, &err), err);
    failed(cc_listener_close(l, &err), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_STR(guest_sh(vm, "peer say 4000 ping 2>/dev/null || echo refused", NULL), "refused\n");
    CHECK_OK(cc_vsock_listen(vm, 4000, &l, &err), err); /* the port is free again */
    CHECK_EQ_STR(guest_sh(vm, "peer flood 4000 200", NULL), "64\n");
    CHECK_OK(cc_listener_close(l, &err), err);
}

/* ---- Waiting ---- */

#define MUCH ((size_t)4 << 20) /* more than a guest takes that does not read */

struct waiter {
    cc_conn conn;
    cc_listener listener;
    cc_cancel_token token;
    int code;
    size_t written;
};

static void *wait_to_read(void *ctx)
{
    struct waiter *w = ctx;
    uint8_t byte;
    size_t n;
    w->code = (int)cc_conn_read(w->conn, &byte, 1, &n, NULL);
    return NULL;
}

static void *wait_to_write(void *ctx)
{
    struct waiter *w = ctx;
    static uint8_t much[MUCH];
    w->code = (int)cc_conn_write(w->conn, much, MUCH, &w->written, NULL);
    return NULL;
}

static void *wait_to_accept(void *ctx)
{
    struct waiter *w = ctx;
    cc_conn c;
    w->code = (int)cc_listener_accept_with(w->listener, w->token, &c, NULL);
    return NULL;
}

static void test_deadlines(void)
{
    struct waiter w = {.code = -1};
    uint8_t byte;
    size_t n;
    struct asleep t;
    CHECK_OK(cc_vsock_dial(vm, 5000, &w.conn, &err), err);
    CHECK_OK(cc_conn_set_read_deadline(w.conn, 1, &err), err); /* long ago */
    failed(cc_conn_read(w.conn, &byte, 1, &n, &err), CC_ERR_TIMEOUT);
    CHECK_OK(cc_conn_set_read_deadline(w.conn, (int64_t)time(NULL) + 2, &err), err);
    uint64_t begin = cci_os_now();
    failed(cc_conn_read(w.conn, &byte, 1, &n, &err), CC_ERR_TIMEOUT);
    CHECK(cci_os_now() - begin > 500000000u && cci_os_now() - begin < 60000000000u);
    CHECK_OK(cc_conn_set_read_deadline(w.conn, 0, &err), err);
    asleep_start(&t, wait_to_read, &w);
    CHECK_OK(cc_conn_set_read_deadline(w.conn, 1, &err), err); /* reaches a call that waits */
    (void)asleep_join(&t);
    CHECK_EQ_INT(w.code, CC_ERR_TIMEOUT);
    CHECK_OK(cc_conn_set_read_deadline(w.conn, 0, &err), err);
    CHECK_OK(cc_conn_write(w.conn, (const uint8_t *)"x", 1, &n, &err), err);
    CHECK_OK(cc_conn_read(w.conn, &byte, 1, &n, &err), err); /* and is over */
    CHECK_OK(cc_conn_close(w.conn, &err), err);

    CHECK_OK(cc_vsock_dial(vm, 5001, &w.conn, &err), err);
    asleep_start(&t, wait_to_write, &w);
    CHECK_OK(cc_conn_set_write_deadline(w.conn, -5, &err), err);
    (void)asleep_join(&t);
    CHECK_EQ_INT(w.code, CC_ERR_TIMEOUT);
    CHECK(w.written > 0 && w.written < MUCH);
    CHECK_OK(cc_conn_close(w.conn, &err), err);
}

static void test_closing_ends_waits(void)
{
    struct waiter r = {.code = -1}, a = {.code = -1};
    struct asleep t, u;
    CHECK_OK(cc_vsock_dial(vm, 5000, &r.conn, &err), err);
    CHECK_OK(cc_vsock_listen(vm, 4001, &a.listener, &err), err);
    asleep_start(&t, wait_to_read, &r);
    asleep_start(&u, wait_to_accept, &a);
    CHECK_OK(cc_conn_close(r.conn, &err), err);
    CHECK_OK(cc_listener_close(a.listener, &err), err);
    (void)asleep_join(&t);
    (void)asleep_join(&u);
    CHECK_EQ_INT(r.code, CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(a.code, CC_ERR_ALREADY_CLOSED);
    CHECK_OK(cc_vsock_listen(vm, 4001, &a.listener, &err), err);
    CHECK_OK(cc_cancel_token_new(&a.token, &err), err);
    asleep_start(&u, wait_to_accept, &a);
    CHECK_OK(cc_cancel_token_cancel(a.token, &err), err);
    (void)asleep_join(&u);
    CHECK_EQ_INT(a.code, CC_ERR_CANCELLED);
    failed(cc_vsock_dial_with(vm, 5001, a.token, &r.conn, &err), CC_ERR_CANCELLED);
    cc_cancel_token_free(a.token);
    CHECK_OK(cc_listener_close(a.listener, &err), err);
}

static sem_t rounds; /* how often the threads below went around */

/* Everything at once, from several threads, until the instance is gone. */
static void *hammer(void *ctx)
{
    cc_listener l;
    cc_conn c;
    uint8_t buf[10];
    size_t n;
    cc_error_code code;
    do {
        code = cc_vsock_dial(vm, 5000, &c, NULL);
        (void)cc_conn_write(c, buf, sizeof(buf), &n, NULL);
        (void)cc_conn_set_read_deadline(c, (int64_t)time(NULL) + 1, NULL);
        (void)cc_conn_read(c, buf, sizeof(buf), &n, NULL);
        (void)cc_conn_close_write(c, NULL);
        if (cc_vsock_listen(vm, 4100, &l, NULL) == CC_OK)
            (void)cc_listener_close(l, NULL);
        (void)cc_conn_close(c, NULL);
        (void)cc_instance_pause(vm, NULL);
        (void)cc_instance_console_write(vm, (const uint8_t *)"x", 1, &n, NULL);
        (void)cc_instance_resume(vm, NULL);
        (void)sem_post(&rounds);
    } while (code == CC_OK);
    *(int *)ctx = (int)code;
    return NULL;
}

static void test_the_end(void)
{
    struct waiter r = {.code = -1}, w = {.code = -1}, a = {.code = -1};
    struct asleep t[3];
    pthread_t h[3];
    int codes[3];
    CHECK_OK(cc_vsock_dial(vm, 5000, &r.conn, &err), err);
    CHECK_OK(cc_vsock_dial(vm, 5001, &w.conn, &err), err);
    CHECK_OK(cc_vsock_listen(vm, 4001, &a.listener, &err), err);
    asleep_start(&t[0], wait_to_read, &r);
    asleep_start(&t[1], wait_to_write, &w);
    asleep_start(&t[2], wait_to_accept, &a);
    CHECK(sem_init(&rounds, 0, 0) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&h[i], NULL, hammer, &codes[i]) == 0);
    for (int i = 0; i < 12; i++)
        (void)sem_wait(&rounds);
    CHECK_OK(cc_instance_close(vm, &err), err);
    for (int i = 0; i < 3; i++) {
        (void)asleep_join(&t[i]);
        CHECK(pthread_join(h[i], NULL) == 0);
    }
    CHECK_EQ_INT(r.code, CC_ERR_NOT_RUNNING);
    CHECK_EQ_INT(w.code, CC_ERR_NOT_RUNNING);
    CHECK(w.written > 0 && w.written < MUCH);
    CHECK_EQ_INT(a.code, CC_ERR_NOT_RUNNING);
    for (int i = 0; i < 3; i++)
        CHECK(codes[i] == CC_ERR_NOT_RUNNING || codes[i] == CC_ERR_ALREADY_CLOSED);
    failed(cc_conn_close(r.conn, &err), CC_ERR_ALREADY_CLOSED); /* went with its instance */
    failed(cc_listener_close(a.listener, &err), CC_ERR_ALREADY_CLOSED);
}

int main(void)
{
    (void)cc_init();
    RUN(test_setup);
    if (check_failures)
        return check_done();
    RUN(test_dial_and_echo);
    RUN(test_much_both_ways);
    RUN(test_refusals);
    RUN(test_listen);
    RUN(test_deadlines);
    RUN(test_closing_ends_waits);
    RUN(test_the_end);
    cc_shutdown();
    return check_done();
}
