// @timeout 60
// @sanitize address,undefined
// @sanitize thread
/* Streams over Unix sockets (tests/stream_unix.h) and blocking calls on them (base/stream_io.h). */
#define _GNU_SOURCE
#include "tests/stream_unix.h"

#include "tests/stream_read.h"
#include "tests/check.h"

struct pair {
    struct cci_loop loop;
    struct cci_stream *s[2];
    struct cci_stream_io io[2];
};

static void pair_open(struct pair *p)
{
    cc_error err = {0};
    CHECK_OK(cci_loop_init(&p->loop, &err), err);
    CHECK_OK(cci_loop_start(&p->loop, "test-io", &err), err);
    CHECK(unix_stream_pair(&p->loop, p->s) == 0);
    for (int i = 0; i < 2; i++)
        cci_stream_io_begin(&p->io[i], p->s[i]);
}

static void pair_close_end(struct pair *p, int i)
{
    cci_stream_io_end(&p->io[i]);
    cci_stream_close(p->s[i]);
    p->s[i] = NULL;
}

static void pair_close(struct pair *p)
{
    for (int i = 0; i < 2; i++)
        if (p->s[i])
            pair_close_end(p, i);
    cci_loop_stop(&p->loop);
    cci_loop_destroy(&p->loop);
}

static struct cci_wait in_ms(uint64_t ms)
{
    struct cci_wait w = {cci_os_now() + ms * 1000000u, NULL};
    return w;
}

#define BULK ((size_t)8 << 20)

static void pump(void *ctx)
{
    struct pair *p = ctx;
    uint8_t *data = malloc(BULK);
    size_t done;
    struct cci_wait wait = in_ms(30000);
    for (size_t i = 0; i < BULK; i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    (void)cci_stream_io_write(&p->io[0], data, BULK, &done, &wait, NULL);
    cci_stream_shutdown(p->s[0]);
    free(data);
}

static void test_bulk(void)
{
    struct pair p;
    struct cci_thread thread;
    struct cci_wait wait = in_ms(30000);
    cc_error err = {0};
    size_t at = 0, got;
    pair_open(&p);
    CHECK(cci_thread_new(&thread, "pump", pump, &p) == 0);
    uint8_t *data = malloc(BULK);
    CHECK_OK(cci_stream_io_read_all(&p.io[1], data, 10, &wait, &err), err);
    for (at = 10;; at += got) {
        CHECK_OK(cci_stream_io_read(&p.io[1], data + at, CCI_MIN(BULK - at + 1, (size_t)77777), &got, &wait, &err),
                 err);
        if (got == 0)
            break;
    }
    CHECK_EQ_INT(at, BULK);
    for (size_t i = 0; i < BULK; i++)
        CHECK(data[i] == (uint8_t)(i * 31 >> 3));
    CHECK_EQ_INT(cci_stream_io_read_all(&p.io[1], data, 1, &wait, &err), CC_ERR_IO);
    cci_error_release(&err);
    free(data);
    cci_thread_join(&thread);
    pair_close(&p);
}

static void test_deadline(void)
{
    struct pair p;
    char c;
    size_t n;
    cc_error err = {0};
    struct cci_wait wait = in_ms(20);
    pair_open(&p);
    CHECK_EQ_INT(cci_stream_io_read(&p.io[0], &c, 1, &n, &wait, &err), CC_ERR_TIMEOUT);
    cci_error_release(&err);
    uint8_t *data = calloc(1, BULK);
    wait = in_ms(20);
    CHECK_EQ_INT(cci_stream_io_write(&p.io[0], data, BULK, &n, &wait, &err), CC_ERR_TIMEOUT);
    CHECK(n > 0 && n < BULK);
    cci_error_release(&err);
    free(data);
    pair_close(&p);
}

static void fire(void *ctx)
{
    cci_cancel_fire(ctx);
}

static void test_cancel(void)
{
    struct pair p;
    char c;
    size_t n;
    struct cci_thread thread;
    struct cci_wait wait = {CCI_FOREVER, cci_cancel_new()};
    cc_error err = {0};
    pair_open(&p);
    CHECK(cci_thread_new(&thread, "fire", fire, wait.cancel) == 0);
    CHECK_EQ_INT(cci_stream_io_read(&p.io[0], &c, 1, &n, &wait, &err), CC_ERR_CANCELLED);
    cci_error_release(&err);
    cci_thread_join(&thread);
    cci_cancel_unref(wait.cancel);
    pair_close(&p);
}

static void test_broken(void)
{
    struct pair p;
    size_t n;
    char c = 0;
    struct cci_wait wait = in_ms(10000);
    cc_error err = {0};
    pair_open(&p);
    CHECK_OK(cci_stream_io_write(&p.io[0], &c, 1, &n, &wait, &err), err);
    pair_close_end(&p, 1);
    CHECK_EQ_INT(cci_stream_io_read(&p.io[0], &c, 1, &n, &wait, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ECONNRESET);
    CHECK_EQ_INT(cci_stream_io_write(&p.io[0], &c, 1, &n, &wait, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, EPIPE);
    cci_error_release(&err);
    pair_close(&p);
}

/* A stream that is closed from within its own watch function. */
struct self_close {
    struct cci_monitor monitor;
    bool closed;
};

static void close_it(void *ctx, struct cci_stream *s)
{
    struct self_close *c = ctx;
    cci_stream_close(s);
    cci_monitor_lock(&c->monitor);
    c->closed = true;
    cci_cond_wake(&c->monitor.cond);
    cci_monitor_unlock(&c->monitor);
}

static bool is_closed(void *ctx)
{
    return ((struct self_close *)ctx)->closed;
}

static void test_close_within(void)
{
    struct pair p;
    struct self_close c = {.closed = false};
    struct cci_wait wait = in_ms(10000);
    char byte;
    size_t n;
    cc_error err = {0};
    pair_open(&p);
    cci_monitor_init(&c.monitor);
    cci_stream_io_end(&p.io[0]);
    cci_stream_watch(p.s[0], close_it, &c);
    CHECK_OK(cci_monitor_wait(&c.monitor, &wait, is_closed, &c, "the close", &err), err);
    cci_monitor_unlock(&c.monitor);
    p.s[0] = NULL;
    CHECK_OK(cci_stream_io_read(&p.io[1], &byte, 1, &n, &wait, &err), err);
    CHECK_EQ_INT(n, 0);
    pair_close(&p);
    cci_monitor_destroy(&c.monitor);
}

int main(void)
{
    RUN(test_bulk);
    RUN(test_deadline);
    RUN(test_cancel);
    RUN(test_broken);
    RUN(test_close_within);
    return check_done();
}
