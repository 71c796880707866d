// @timeout 120
// @sanitize address,undefined
// @sanitize thread
// @flags -Wno-tsan -Wno-unknown-warning-option
/*
 * The socket device with everybody at once: its I/O thread, a guest on a thread of its own that sleeps until it is
 * interrupted, and users on several threads. A lost doorbell, interrupt or call shows as a deadline that passes.
 */
#define _GNU_SOURCE
#include <poll.h>

#include "tests/virtio/vsock_guest.h"
#include "src/virtio/vsock_dial.h"

#include "tests/stream_read.h"
#include "tests/check.h"

#define PATIENCE 60000u /* milliseconds: far more than anything here takes */

#if defined(__SANITIZE_THREAD__)
#define BULK ((uint64_t)16 << 20)
#else
#define BULK ((uint64_t)100 << 20)
#endif

struct machine {
    struct cci_loop loop;
    struct cci_vsock v;
    struct vg g;
    struct cci_thread guest;
    struct cci_monitor monitor; /* guards what follows */
    cci_fd irq;                 /* wakes the guest */
    bool stop;
    bool deaf;            /* the guest answers nothing */
    unsigned opens;       /* connections that the guest is to open to port 1022 */
    bool reset;           /* the guest's driver is to start anew */
    uint64_t guest_sends; /* bytes on each connection */
    unsigned guest_failures;
    unsigned guest_finished; /* connections whose both directions came to their end */
    bool flooding;           /* a test of that: replies are only counted */
    unsigned floods;         /* packets to be sent that belong to no connection */
    unsigned flood_answers;
};

static struct machine m;

static struct cci_wait patience(void)
{
    struct cci_wait w = {cci_os_now() + PATIENCE * (uint64_t)1000000, NULL};
    return w;
}

/* ---- The guest ------------------------------------------------------------------------------------------------- */

static void on_irq(void *ctx)
{
    cci_os_eventfd_signal(((struct machine *)ctx)->irq);
}

/* Sends what there is room for; when everything went, says so once. */
static bool guest_push(struct vg_conn *c, uint64_t total)
{
    static uint8_t buf[65536];
    bool moved = false;
    while (c->used && c->open && c->sent < total && vg_conn_room(c) && vg_can_send(&m.g)) {
        uint32_t n = (uint32_t)CCI_MIN(CCI_MIN(total - c->sent, (uint64_t)vg_conn_room(c)), sizeof(buf));
        n = CCI_MIN(n, (uint32_t)(c->sent % 60000) + 1);
        vg_fill(buf, n, c->out_seed, c->sent);
        vg_conn_send(&m.g, c, CCI_VSOCK_RW, 0, buf, n);
        moved = true;
    }
    return moved;
}

/* The program in the guest: sends its bytes and shuts down; closes when the host has shut down too. */
static bool guest_step(struct vg_conn *c, uint64_t total)
{
    if (c->used && c->open && c->peer_no == CCI_VSOCK_NO_MORE && vg_can_send(&m.g) && c->sent < total) {
        c->used = false; /* nobody listens any more */
        vg_conn_send(&m.g, c, CCI_VSOCK_RST, 0, NULL, 0);
        return true;
    }
    bool moved = guest_push(c, total);
    if (!c->used || !c->open || c->sent < total || !vg_can_send(&m.g))
        return moved;
    if (!c->done) {
        c->done = true;
        vg_conn_send(&m.g, c, CCI_VSOCK_SHUTDOWN, CCI_VSOCK_NO_SEND, NULL, 0);
        return true;
    }
    if ((c->peer_no & CCI_VSOCK_NO_SEND) && !c->closed) {
        c->closed = true;
        m.guest_finished++;
        vg_conn_send(&m.g, c, c->peer_no == 3 ? CCI_VSOCK_RST : CCI_VSOCK_SHUTDOWN, CCI_VSOCK_NO_MORE, NULL, 0);
        c->used = c->peer_no != 3;
        return true;
    }
    return moved;
}

static bool guest_receive(void)
{
    bool moved = false;
    while ((m.g.tx_free_count > 2 || m.flooding) && vg_recv(&m.g)) {
        moved = true;
        if (m.g.p.h.op == CCI_VSOCK_RST && m.g.p.h.src_port == 99)
            m.flood_answers++;
        if (!vg_handle(&m.g) && m.g.p.h.op != CCI_VSOCK_RST)
            vg_send(&m.g, m.g.p.h.dst_port, m.g.p.h.src_port, CCI_VSOCK_RST, 0, NULL, 0);
        struct vg_conn *c = vg_find(&m.g, m.g.p.h.src_port, m.g.p.h.dst_port);
        if (c && c->rx_cnt != c->fwd_cnt)
            vg_conn_read(&m.g, c, c->rx_cnt - c->fwd_cnt);
        (void)vg_reap(&m.g);
    }
    return moved;
}

static bool guest_orders(void)
{
    bool moved = false;
    if (m.reset) {
        for (unsigned i = 0; i < m.g.conns; i++)
            m.g.conn[i].used = false;
        m.reset = false;
        m.guest_failures += !vg_start(&m.g, &m.v, DRV_ALL, 64);
        moved = true;
    }
    for (; m.opens && vg_can_send(&m.g); m.opens--, moved = true)
        vg_conn_send(&m.g, vg_conn_new(&m.g, 1022, 5000 + m.g.conns), CCI_VSOCK_REQUEST, 0, NULL, 0);
    for (; m.floods && vg_can_send(&m.g); m.floods--, moved = true)
        vg_send(&m.g, 9, 99, CCI_VSOCK_RW, 0, NULL, 0);
    return moved;
}

static void guest_main(void *ctx)
{
    bool stop = false;
    (void)ctx;
    while (!stop) {
        cci_monitor_lock(&m.monitor);
        stop = m.stop;
        (void)vg_reap(&m.g);
        bool moved = guest_orders();
        if (!m.deaf)
            moved |= guest_receive();
        for (unsigned i = 0; i < m.g.conns; i++)
            moved |= guest_step(&m.g.conn[i], m.guest_sends);
        for (unsigned q = 0; q < 2 && !moved; q++)
            drv_want_irq(&m.g.d, q);
        moved |= vg_reap(&m.g); /* what came before the wish was known makes no interrupt */
        moved |= !m.deaf && guest_receive();
        cci_monitor_unlock(&m.monitor);
        struct pollfd p = {m.irq, POLLIN, 0};
        if (!moved && !stop)
            (void)poll(&p, 1, -1);
        (void)cci_os_eventfd_take(m.irq);
    }
}

static void guest_wake(void)
{
    cci_os_eventfd_signal(m.irq);
}

/* ---- The machine ------------------------------------------------------------------------------------------------ */

static void power_on(uint64_t guest_sends)
{
    cc_error err = {0};
    memset(&m, 0, sizeof(m));
    m.guest_sends = guest_sends;
    m.irq = cci_os_eventfd();
    cci_monitor_init(&m.monitor);
    drv_vm_init(&m.g.vm);
    struct cci_irq irq = {on_irq, &m};
    CHECK_OK(cci_loop_init(&m.loop, &err), err);
    cci_vsock_init(&m.v, &m.g.vm.mem, irq, NULL);
    CHECK_OK(cci_virtio_attach(&m.v.dev, &m.loop, &err), err);
    CHECK_OK(cci_loop_start(&m.loop, "test-io", &err), err);
    CHECK(vg_start(&m.g, &m.v, DRV_ALL, 64));
    CHECK(cci_thread_new(&m.guest, "test-guest", guest_main, NULL) == 0);
}

static void power_off(void)
{
    cci_monitor_lock(&m.monitor);
    m.stop = true;
    cci_monitor_unlock(&m.monitor);
    guest_wake();
    cci_thread_join(&m.guest);
    cci_vsock_kill(&m.v);
    cci_loop_stop(&m.loop);
    cci_virtio_detach(&m.v.dev);
    cci_vsock_destroy(&m.v);
    cci_loop_destroy(&m.loop);
    cci_monitor_destroy(&m.monitor);
    cci_os_close(m.irq);
    drv_vm_free(&m.g.vm);
    for (unsigned i = 0; i < m.g.conns; i++)
        CHECK(!m.g.conn[i].corrupt && !m.g.conn[i].overrun);
    CHECK_EQ_INT(m.guest_failures, 0);
}

/* ---- A user of one connection: one thread writes, one reads --------------------------------------------------------
 */

struct user {
    struct cci_stream_io io;
    struct cci_stream *s;
    uint64_t total;
    uint32_t seed;
    cc_error_code wrote, read;
    uint64_t got;
    bool corrupt;
};

static void user_write(void *ctx)
{
    struct user *u = ctx;
    size_t size = (size_t)CCI_MIN(u->total, (uint64_t)299999) + 1, done;
    uint8_t *buf = malloc(size);
    uint32_t random = u->seed;
    struct cci_wait wait = patience();
    for (uint64_t at = 0; at < u->total && u->wrote == CC_OK; at += done) {
        size_t n = vg_random(&random) % size + 1;
        n = (size_t)CCI_MIN(n, u->total - at);
        vg_fill(buf, n, u->seed, at);
        u->wrote = cci_stream_io_write(&u->io, buf, n, &done, &wait, NULL);
    }
    cci_stream_shutdown(u->s);
    free(buf);
}

static void user_read(struct user *u, uint64_t limit)
{
    size_t size = (size_t)CCI_MIN(limit, (uint64_t)299999) + 1, n = 1;
    uint8_t *buf = malloc(size);
    uint32_t random = u->seed;
    struct cci_wait wait = patience();
    while (n && u->read == CC_OK && u->got <= limit) {
        u->read = cci_stream_io_read(&u->io, buf, vg_random(&random) % size + 1, &n, &wait, NULL);
        u->corrupt |= !vg_same(buf, n, u->seed + 7, u->got);
        u->got += n;
    }
    free(buf);
}

static void user_begin(struct user *u, struct cci_stream *s, uint64_t total)
{
    const struct cci_vsock_conn *c = cci_vsock_of(s);
    memset(u, 0, sizeof(*u));
    u->s = s;
    u->total = total;
    u->seed = c->host_port ^ c->guest_port;
    cci_stream_io_begin(&u->io, s);
}

static void user_end(struct user *u)
{
    cci_stream_io_end(&u->io);
    cci_stream_close(u->s);
}

static void test_bulk(void)
{
    struct user u[2];
    struct cci_thread writer[2];
    cc_error err = {0};
    power_on(BULK / 2);
    for (int i = 0; i < 2; i++) {
        struct cci_stream *s;
        struct cci_wait wait = patience();
        CHECK_OK(cci_vsock_dial_wait(&m.v, 7, &wait, &s, &err), err);
        user_begin(&u[i], s, BULK / 2);
        CHECK(cci_thread_new(&writer[i], "writer", user_write, &u[i]) == 0);
    }
    for (int i = 0; i < 2; i++)
        user_read(&u[i], BULK / 2);
    for (int i = 0; i < 2; i++) {
        cci_thread_join(&writer[i]);
        CHECK_EQ_INT(u[i].wrote, CC_OK);
        CHECK_EQ_INT(u[i].read, CC_OK);
        CHECK_EQ_INT(u[i].got, BULK / 2);
        CHECK(!u[i].corrupt);
        user_end(&u[i]);
    }
    power_off();
    for (int i = 0; i < 2; i++)
        CHECK_EQ_INT(m.g.conn[i].received, BULK / 2);
}

/* ---- Many
 * ------------------------------------------------------------------------------------------------------------ */

#define MANY 500u
#define EACH 3000u

static unsigned many_failures; /* atomic */

static void dial_many(void *ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < MANY / 4; i++) {
        struct cci_stream *s;
        struct cci_wait wait = patience();
        struct user u;
        if (cci_vsock_dial_wait(&m.v, 7, &wait, &s, NULL)) {
            (void)__atomic_fetch_add(&many_failures, 1, __ATOMIC_SEQ_CST);
            continue;
        }
        user_begin(&u, s, EACH);
        user_write(&u);
        user_read(&u, EACH);
        if (u.wrote || u.read || u.got != EACH || u.corrupt)
            (void)__atomic_fetch_add(&many_failures, 1, __ATOMIC_SEQ_CST);
        user_end(&u);
    }
}

/* A connection from the guest, served on the I/O thread alone. */
struct server {
    uint32_t seed;
    uint64_t got, sent;
    bool ended;
};

static unsigned served; /* atomic */

static void serve(void *ctx, struct cci_stream *s)
{
    struct server *sv = ctx;
    uint8_t buf[1000];
    int64_t n;
    while ((n = cci_stream_read(s, buf, sizeof(buf))) > 0) {
        if (!vg_same(buf, (size_t)n, sv->seed + 7, sv->got))
            (void)__atomic_fetch_add(&many_failures, 1, __ATOMIC_SEQ_CST);
        sv->got += (uint64_t)n;
    }
    sv->ended |= n == 0;
    while (sv->sent < EACH) {
        size_t part = (size_t)CCI_MIN(EACH - sv->sent, sizeof(buf));
        vg_fill(buf, part, sv->seed, sv->sent);
        int64_t r = cci_stream_write(s, buf, part);
        if (r <= 0)
            return;
        sv->sent += (uint64_t)r;
    }
    if (!sv->ended)
        return;
    if (sv->got != EACH)
        (void)__atomic_fetch_add(&many_failures, 1, __ATOMIC_SEQ_CST);
    cci_stream_close(s);
    free(sv);
    (void)__atomic_fetch_add(&served, 1, __ATOMIC_SEQ_CST);
}

static void accept_server(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    struct server *sv = calloc(1, sizeof(*sv));
    (void)ctx;
    sv->seed = 1022 ^ peer_port;
    cci_stream_watch(s, serve, sv);
}

static bool all_finished(void *ctx)
{
    (void)ctx;
    return m.guest_finished == 2 * MANY;
}

/* The guest thread does not wake the monitor: asks again until it holds. */
static bool wait_until(bool (*done)(void *ctx))
{
    for (uint64_t end = cci_os_now() + PATIENCE * (uint64_t)1000000; cci_os_now() < end; (void)poll(NULL, 0, 1)) {
        cci_monitor_lock(&m.monitor);
        bool ok = done(NULL);
        cci_monitor_unlock(&m.monitor);
        if (ok)
            return true;
    }
    return false;
}

static void test_many(void)
{
    struct cci_thread t[4];
    cc_error err = {0};
    many_failures = served = 0;
    power_on(EACH);
    CHECK_OK(cci_vsock_listen(&m.v, 1022, accept_server, NULL, &err), err);
    cci_monitor_lock(&m.monitor);
    m.opens = MANY;
    cci_monitor_unlock(&m.monitor);
    guest_wake();
    for (int i = 0; i < 4; i++)
        CHECK(cci_thread_new(&t[i], "dialler", dial_many, NULL) == 0);
    for (int i = 0; i < 4; i++)
        cci_thread_join(&t[i]);
    CHECK(wait_until(all_finished));
    power_off();
    CHECK_EQ_INT(many_failures, 0);
    CHECK_EQ_INT(served, MANY);
}

/* ---- Ends
 * ---------------------------------------------------------------------------------------------------------------- */

struct blocked {
    struct cci_thread thread;
    struct user u;
    cc_error_code code;
};

static void block_in_dial(void *ctx)
{
    struct blocked *b = ctx;
    struct cci_stream *s;
    struct cci_wait wait = patience();
    b->code = cci_vsock_dial_wait(&m.v, 7, &wait, &s, NULL);
}

static void block_in_read(void *ctx)
{
    struct blocked *b = ctx;
    char c;
    size_t n;
    struct cci_wait wait = patience();
    b->code = cci_stream_io_read(&b->u.io, &c, 1, &n, &wait, NULL);
}

static void block_in_write(void *ctx)
{
    struct blocked *b = ctx;
    b->u.total = UINT64_MAX;
    user_write(&b->u);
    b->code = b->u.wrote;
}

/* Every kind of waiting ends with the machine. */
static void test_kill_wakes(void)
{
    static void (*const kinds[])(void *) = {block_in_dial, block_in_read, block_in_write};
    struct blocked b[3];
    struct cci_wait wait = patience();
    cc_error err = {0};
    memset(b, 0, sizeof(b));
    power_on(0);
    for (int i = 1; i < 3; i++) {
        struct cci_stream *s;
        CHECK_OK(cci_vsock_dial_wait(&m.v, 7, &wait, &s, &err), err);
        user_begin(&b[i].u, s, 0);
    }
    uint8_t eof;
    size_t n;
    CHECK_OK(cci_stream_io_read(&b[1].u.io, &eof, 1, &n, &wait, &err), err); /* the guest has said its bit */
    CHECK_OK(cci_stream_io_read(&b[2].u.io, &eof, 1, &n, &wait, &err), err);
    cci_monitor_lock(&m.monitor);
    m.deaf = true;
    cci_monitor_unlock(&m.monitor);
    struct cci_stream *s;
    CHECK_OK(cci_vsock_dial(&m.v, 7, &s, &err), err);
    cci_stream_io_end(&b[1].u.io);
    cci_stream_close(b[1].u.s);
    user_begin(&b[1].u, s, 0); /* reads from a dial that nobody answers */
    for (int i = 0; i < 3; i++)
        CHECK(cci_thread_new(&b[i].thread, "blocked", kinds[i], &b[i]) == 0);
    (void)poll(NULL, 0, 20); /* most likely they wait now; it must be right either way */
    cci_vsock_kill(&m.v);
    for (int i = 0; i < 3; i++) {
        cci_thread_join(&b[i].thread);
        CHECK_EQ_INT(b[i].code, CC_ERR_NOT_RUNNING);
        if (i)
            user_end(&b[i].u);
    }
    power_off();
}

static void fire(void *ctx)
{
    cci_cancel_fire(ctx);
}

static void test_dial_wait_gives_up(void)
{
    struct cci_stream *s;
    struct cci_thread t;
    cc_error err = {0};
    power_on(0);
    cci_monitor_lock(&m.monitor);
    m.deaf = true;
    cci_monitor_unlock(&m.monitor);
    struct cci_wait wait = {cci_os_now() + 20000000u, NULL};
    CHECK_EQ_INT(cci_vsock_dial_wait(&m.v, 7, &wait, &s, &err), CC_ERR_TIMEOUT);
    CHECK(s == NULL);
    wait.deadline = CCI_FOREVER;
    wait.cancel = cci_cancel_new();
    CHECK(cci_thread_new(&t, "fire", fire, wait.cancel) == 0);
    CHECK_EQ_INT(cci_vsock_dial_wait(&m.v, 7, &wait, &s, &err), CC_ERR_CANCELLED);
    cci_thread_join(&t);
    cci_cancel_unref(wait.cancel);
    cci_error_release(&err);
    power_off();
}

/* The driver starts anew again and again while users are at it: each gets an error or its bytes, and goes on. */
static void dial_through_resets(void *ctx)
{
    unsigned *ok = ctx;
    for (int i = 0; i < 40; i++) {
        struct cci_stream *s;
        struct cci_wait wait = patience();
        struct user u;
        if (cci_vsock_dial_wait(&m.v, 7, &wait, &s, NULL))
            continue;
        user_begin(&u, s, EACH);
        user_write(&u);
        user_read(&u, EACH);
        *ok += !u.wrote && !u.read && u.got == EACH && !u.corrupt;
        if (u.wrote == CC_ERR_TIMEOUT || u.read == CC_ERR_TIMEOUT || u.corrupt)
            (void)__atomic_fetch_add(&many_failures, 1, __ATOMIC_SEQ_CST);
        user_end(&u);
    }
}

static bool reset_done(void *ctx)
{
    (void)ctx;
    return !m.reset;
}

static void test_resets(void)
{
    struct cci_thread t[2];
    unsigned ok[2] = {0, 0};
    many_failures = 0;
    power_on(EACH);
    for (int i = 0; i < 2; i++)
        CHECK(cci_thread_new(&t[i], "dialler", dial_through_resets, &ok[i]) == 0);
    for (int i = 0; i < 20; i++) {
        cci_monitor_lock(&m.monitor);
        m.reset = true;
        cci_monitor_unlock(&m.monitor);
        guest_wake();
        CHECK(wait_until(reset_done));
    }
    for (int i = 0; i < 2; i++)
        cci_thread_join(&t[i]);
    power_off();
    CHECK_EQ_INT(many_failures, 0);
    CHECK(ok[0] + ok[1] > 0);
}

/* Packets for nobody, more than the replies that are kept, to a guest that posts buffers late. */
static bool flood_answered(void *ctx)
{
    (void)ctx;
    return m.flood_answers == 1000;
}

static bool flood_stuck(void *ctx)
{
    (void)ctx;
    return m.floods < 1000 - CCI_VSOCK_ORPHANS && !m.g.tx_free_count;
}

static void test_flood(void)
{
    power_on(0);
    cci_monitor_lock(&m.monitor);
    m.deaf = true;
    m.flooding = true;
    m.floods = 1000;
    cci_monitor_unlock(&m.monitor);
    guest_wake();
    CHECK(wait_until(flood_stuck));
    cci_monitor_lock(&m.monitor);
    m.deaf = false;
    cci_monitor_unlock(&m.monitor);
    guest_wake();
    CHECK(wait_until(flood_answered));
    power_off();
}

/* ---- Calls that are over when they should be
 * ------------------------------------------------------------------------------ */

static void touch(void *ctx, struct cci_stream *s)
{
    (void)s;
    ++*(unsigned *)ctx; /* freed memory, if a call comes late */
}

static void touch_and_close(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    (void)peer_port;
    cci_stream_close(s);
    for (int i = 0; i < 100; i++) {
        (void)__atomic_fetch_add((unsigned *)ctx, 1, __ATOMIC_SEQ_CST);
        (void)syscall(SYS_sched_yield); /* gives the other side time to be wrong */
    }
}

/* No call after watch(NULL), close or unlisten has returned: what they would touch has been freed. */
static void test_no_late_calls(void)
{
    cc_error err = {0};
    power_on(1u << 30);
    for (int i = 0; i < 300; i++) {
        struct cci_stream *s;
        struct cci_wait wait = patience();
        CHECK_OK(cci_vsock_dial_wait(&m.v, 7, &wait, &s, &err), err);
        unsigned *count = calloc(1, sizeof(*count));
        cci_stream_watch(s, touch, count);
        uint8_t buf[4096];
        for (int k = 0; k < i % 7; k++)
            (void)cci_stream_read(s, buf, sizeof(buf)); /* so that more comes */
        if (i & 1)
            cci_stream_watch(s, NULL, NULL);
        else
            cci_stream_close(s);
        free(count);
        if (i & 1)
            cci_stream_close(s);
    }
    for (int i = 0; i < 30; i++) {
        unsigned *count = calloc(1, sizeof(*count));
        CHECK_OK(cci_vsock_listen(&m.v, 1022, touch_and_close, count, &err), err);
        cci_monitor_lock(&m.monitor);
        m.opens = 5;
        cci_monitor_unlock(&m.monitor);
        guest_wake();
        while (!__atomic_load_n(count, __ATOMIC_SEQ_CST)) /* the first call has begun */
            (void)syscall(SYS_sched_yield);
        cci_vsock_unlisten(&m.v, 1022);
        free(count);
    }
    power_off();
}

int main(void)
{
    RUN(test_bulk);
    RUN(test_many);
    RUN(test_kill_wakes);
    RUN(test_dial_wait_gives_up);
    RUN(test_resets);
    RUN(test_flood);
    RUN(test_no_late_calls);
    return check_done();
}
