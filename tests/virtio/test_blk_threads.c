// @sanitize address,undefined
// @sanitize thread
// @timeout 120
/* The block device with requests under way: on several threads, waiting, reset and saved in the middle of traffic. */
#define _GNU_SOURCE
#include "blk_disk.h"

/* On a real loop with both pool threads busy: a model check with many requests under way, each to its own place. */
static void traffic(struct fixture *f, unsigned rounds)
{
    enum { SLOTS = 24, SECTORS = 8 };
    static struct {
        uint64_t buf, status;
        unsigned type;
    } slot[SLOTS];
    unsigned owner[CCI_VQ_MAX];
    unsigned busy = 0, started = 0, seed = 7;
    for (unsigned i = 0; i < SLOTS; i++) {
        slot[i].buf = drv_alloc(&f->vm, SECTORS * 512, 16);
        slot[i].status = drv_alloc(&f->vm, 1, 1);
        slot[i].type = 99; /* idle */
    }
    uint64_t scratch = f->vm.next;
    while (started < rounds || busy) {
        for (unsigned i = 0; i < SLOTS && started < rounds; i++) {
            if (slot[i].type != 99)
                continue;
            seed = seed * 1103515245u + 12345u;
            unsigned type = seed >> 16 & 1 ? CCI_BLK_T_OUT : CCI_BLK_T_IN, at = i * 100;
            if (started % 50 == 49)
                type = CCI_BLK_T_FLUSH;
            if (f->d.q[0].free_count < 3)
                break;
            if (f->vm.next > DRV_RAM_GPA + DRV_RAM_SIZE / 2)
                f->vm.next = scratch; /* headers of long ago */
            slot[i].type = type;
            uint8_t *p = drv_ptr(&f->vm, slot[i].buf);
            if (type == CCI_BLK_T_OUT)
                for (unsigned k = 0; k < SECTORS * 512; k++)
                    f->model[at * 512 + k] = p[k] = (uint8_t)(seed >> 8) ^ (uint8_t)k;
            struct drv_buf b[] = {{put_header(&f->d, type, at), 16, false},
                                  {slot[i].buf, SECTORS * 512, type == CCI_BLK_T_IN},
                                  {slot[i].status, 1, true}};
            if (type == CCI_BLK_T_FLUSH)
                b[1] = b[2];
            owner[drv_add(&f->d, 0, b, type == CCI_BLK_T_FLUSH ? 2 : 3, DRV_DIRECT)] = i;
            busy++;
            started++;
            (void)drv_kick(&f->d, 0);
        }
        unsigned head;
        uint32_t len;
        CHECK(drv_wait(&f->d, 0, &head, &len));
        unsigned i = owner[head];
        CHECK_EQ_INT(*drv_ptr(&f->vm, slot[i].status), CCI_BLK_S_OK);
        if (slot[i].type == CCI_BLK_T_IN)
            CHECK(memcmp(drv_ptr(&f->vm, slot[i].buf), f->model + i * 100 * 512, SECTORS * 512) == 0);
        slot[i].type = 99;
        busy--;
    }
}

static void on_loop(struct fixture *f, struct cci_loop *loop)
{
    cc_error err = {0};
    CHECK_OK(cci_loop_init(loop, &err), err);
    CHECK_OK(cci_virtio_attach(&f->blk.dev, loop, &err), err);
    CHECK_OK(cci_loop_start(loop, "test-io", &err), err);
}

static void off_loop(struct fixture *f, struct cci_loop *loop)
{
    cci_loop_stop(loop);
    cci_virtio_detach(&f->blk.dev);
    cci_loop_destroy(loop);
}

static void test_traffic_on_threads(void)
{
    struct fixture f;
    struct cci_loop loop;
    setup_rw(&f);
    on_loop(&f, &loop);
    traffic(&f, 1500);
    cci_mutex_lock(&f.blk.dev.mutex);
    f.blk.avoid_until = CCI_FOREVER; /* all writes on the pool */
    cci_mutex_unlock(&f.blk.dev.mutex);
    traffic(&f, 1500);
    off_loop(&f, &loop);
    CHECK(f.pool.threads > 0);
    teardown(&f);
}

/* Reads that are not in the page cache continue on the pool. */
static void test_cold_reads(void)
{
    struct fixture f;
    const unsigned sectors[] = {2048, 2048};
    setup(&f, sectors, 2, false);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ_INT(fsync(f.disk.segments[i].fd), 0);
        CHECK_EQ_INT(posix_fadvise(f.disk.segments[i].fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    }
    uint64_t buf = drv_alloc(&f.vm, 64 * 512, 16);
    const struct drv_buf in[] = {{buf, 64 * 512, true}};
    for (unsigned at = 2016; at < 4000; at += 64) {
        struct result r = request(&f, CCI_BLK_T_IN, at, in, 1, DRV_DIRECT);
        CHECK_EQ_INT(r.status, CCI_BLK_S_OK);
        CHECK_EQ_INT(r.len, 64 * 512 + 1);
        CHECK(memcmp(drv_ptr(&f.vm, buf), f.model + at * 512, 64 * 512) == 0);
    }
    if (f.pool.threads == 0)
        printf("# every read came from the page cache\n");
    teardown(&f);
}

/* A gate in front of the pool: holds every request back until it is opened. */
struct gate {
    struct cci_job job;
    struct cci_mutex mutex;
    struct cci_cond cond;
    unsigned inside;
    bool open;
};

struct gate_job {
    struct cci_job job;
    struct gate *gate;
};

static void gate_run(struct cci_job *job)
{
    struct gate *g = ((struct gate_job *)job)->gate;
    cci_mutex_lock(&g->mutex);
    g->inside++;
    cci_cond_wake(&g->cond);
    while (!g->open)
        (void)cci_cond_wait(&g->cond, &g->mutex, CCI_FOREVER);
    cci_mutex_unlock(&g->mutex);
}

static void gate_close(struct gate *g, struct gate_job jobs[CCI_POOL_THREADS], struct cci_pool *pool)
{
    memset(g, 0, sizeof(*g));
    cci_mutex_init(&g->mutex);
    cci_cond_init(&g->cond);
    for (unsigned i = 0; i < CCI_POOL_THREADS; i++) {
        jobs[i].job.fn = gate_run;
        jobs[i].gate = g;
        CHECK(cci_pool_submit(pool, &jobs[i].job));
    }
    cci_mutex_lock(&g->mutex);
    while (g->inside < CCI_POOL_THREADS)
        (void)cci_cond_wait(&g->cond, &g->mutex, CCI_FOREVER);
    cci_mutex_unlock(&g->mutex);
}

static void gate_open(struct gate *g)
{
    cci_mutex_lock(&g->mutex);
    g->open = true;
    cci_cond_wake(&g->cond);
    cci_mutex_unlock(&g->mutex);
}

static void gate_destroy(struct gate *g)
{
    cci_cond_destroy(&g->cond);
    cci_mutex_destroy(&g->mutex);
}

static void *reset_thread(void *arg)
{
    drv_set(arg, CCI_VIRTIO_REG_STATUS, 0);
    return NULL;
}

static void wait_stopped(struct cci_virtio_dev *d)
{
    unsigned stopped;
    do {
        (void)sched_yield();
        cci_mutex_lock(&d->mutex);
        stopped = d->stopped;
        cci_mutex_unlock(&d->mutex);
    } while (!stopped);
}

/* Waits until `n` requests are on the pool (with a loop they arrive there some time after the kick). */
static void wait_in_flight(struct cci_virtio_dev *d, unsigned n)
{
    unsigned now;
    do {
        (void)sched_yield();
        cci_mutex_lock(&d->mutex);
        now = d->in_flight;
        cci_mutex_unlock(&d->mutex);
    } while (now != n);
}

/* A reset waits for what is under way, and afterwards nothing of the past comes back. */
static void test_reset_in_flight(void)
{
    struct fixture f;
    struct gate gate;
    struct gate_job jobs[CCI_POOL_THREADS];
    pthread_t thread;
    setup_rw(&f);
    gate_close(&gate, jobs, &f.pool);
    for (unsigned i = 0; i < 3; i++) {
        const struct drv_buf b[] = {{put_header(&f.d, CCI_BLK_T_FLUSH, 0), 16, false},
                                    {drv_alloc(&f.vm, 1, 1), 1, true}};
        (void)drv_add(&f.d, 0, b, 2, DRV_DIRECT);
    }
    drv_kick_hard(&f.d, 0);
    wait_in_flight(&f.blk.dev, 3);
    struct drv second = f.d;
    CHECK_EQ_INT(pthread_create(&thread, NULL, reset_thread, &second), 0);
    wait_stopped(&f.blk.dev);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_STATUS), 15); /* not yet */
    gate_open(&gate);
    CHECK_EQ_INT(pthread_join(thread, NULL), 0);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_STATUS), 0);
    CHECK_EQ_INT(f.blk.dev.in_flight, 0);
    CHECK(drv_start(&f.d, DRV_ALL, 128));
    unsigned head;
    uint32_t len;
    CHECK(!drv_poll(&f.d, 0, &head, &len));
    CHECK_EQ_INT(request(&f, CCI_BLK_T_FLUSH, 0, NULL, 0, DRV_DIRECT).status, CCI_BLK_S_OK);
    teardown(&f);
    gate_destroy(&gate);
}

/* Opens the gate once the device is being stopped. */
struct opener {
    struct cci_virtio_dev *dev;
    struct gate *gate;
};

static void *opener_thread(void *arg)
{
    wait_stopped(((struct opener *)arg)->dev);
    gate_open(((struct opener *)arg)->gate);
    return NULL;
}

/* Requests as large as a chain can make them, out of little RAM: the thread that serves the queue leaves them to
 * others, and a reset does not wait until their gigabytes have been moved. */
static void large_requests(uint32_t type, bool destroy)
{
    struct fixture f;
    struct gate gate;
    struct gate_job jobs[CCI_POOL_THREADS];
    pthread_t thread;
    const unsigned one[] = {2 * CCI_BLK_PIECE / 512};
    struct drv_buf b[6];
    setup(&f, one, 1, true);
    gate_close(&gate, jobs, &f.pool);
    uint64_t data = drv_alloc(&f.vm, CCI_BLK_PIECE / 2, 16), status = drv_alloc(&f.vm, 4, 1);
    memset(drv_ptr(&f.vm, data), 0x11, CCI_BLK_PIECE / 2);
    memset(drv_ptr(&f.vm, status), 0xee, 4);
    for (unsigned i = 0; i < 4; i++) {
        b[0] = (struct drv_buf){put_header(&f.d, type, 0), 16, false};
        for (unsigned k = 1; k < 5; k++)
            b[k] = (struct drv_buf){data, CCI_BLK_PIECE / 2, type == CCI_BLK_T_IN};
        b[5] = (struct drv_buf){status + i, 1, true};
        (void)drv_add(&f.d, 0, b, 6, DRV_DIRECT);
    }
    drv_kick_hard(&f.d, 0);
    cci_mutex_lock(&f.blk.dev.mutex);
    CHECK_EQ_INT(f.blk.dev.in_flight, 4);
    cci_mutex_unlock(&f.blk.dev.mutex);
    struct opener opener = {&f.blk.dev, &gate};
    CHECK_EQ_INT(pthread_create(&thread, NULL, opener_thread, &opener), 0);
    if (!destroy)
        drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 0);
    cci_blk_destroy(&f.blk);
    CHECK_EQ_INT(pthread_join(thread, NULL), 0);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ_INT(*drv_ptr(&f.vm, status + i), CCI_BLK_S_IOERR);
    CHECK_EQ_INT(*drv_ptr(&f.vm, data), 0x11);
    teardown_host(&f);
    gate_destroy(&gate);
}

static void test_large_requests(void)
{
    large_requests(CCI_BLK_T_IN, false);
    large_requests(CCI_BLK_T_OUT, false);
    large_requests(CCI_BLK_T_OUT, true);
}

/* One of them that nothing disturbs is done as any other. */
static void test_large_read(void)
{
    struct fixture f;
    const unsigned one[] = {3 * CCI_BLK_PIECE / 512};
    setup(&f, one, 1, false);
    uint64_t data = drv_alloc(&f.vm, CCI_BLK_PIECE + 4096, 16);
    const struct drv_buf in[] = {{data, CCI_BLK_PIECE + 512, true}};
    struct result r = request(&f, CCI_BLK_T_IN, 1, in, 1, DRV_DIRECT);
    CHECK_EQ_INT(r.status, CCI_BLK_S_OK);
    CHECK_EQ_INT(r.len, CCI_BLK_PIECE + 512 + 1);
    CHECK(memcmp(drv_ptr(&f.vm, data), f.model + 512, CCI_BLK_PIECE + 512) == 0);
    teardown(&f);
}

/* The queue alone is switched off in mid-request. */
static void *unready_thread(void *arg)
{
    drv_set(arg, CCI_VIRTIO_REG_QUEUE_SEL, 0);
    drv_set(arg, CCI_VIRTIO_REG_QUEUE_READY, 0);
    return NULL;
}

static void test_queue_off_in_flight(void)
{
    struct fixture f;
    struct gate gate;
    struct gate_job jobs[CCI_POOL_THREADS];
    pthread_t thread;
    setup_rw(&f);
    gate_close(&gate, jobs, &f.pool);
    const struct drv_buf b[] = {{put_header(&f.d, CCI_BLK_T_FLUSH, 0), 16, false}, {drv_alloc(&f.vm, 1, 1), 1, true}};
    (void)drv_add(&f.d, 0, b, 2, DRV_DIRECT);
    drv_kick_hard(&f.d, 0);
    struct drv second = f.d;
    CHECK_EQ_INT(pthread_create(&thread, NULL, unready_thread, &second), 0);
    wait_stopped(&f.blk.dev);
    gate_open(&gate);
    CHECK_EQ_INT(pthread_join(thread, NULL), 0);
    unsigned head;
    uint32_t len;
    CHECK(drv_poll(&f.d, 0, &head, &len)); /* it completed before the queue went */
    drv_queue_make(&f.d, 0, 64);
    CHECK(drv_queue_start(&f.d, 0));
    CHECK_EQ_INT(request(&f, CCI_BLK_T_FLUSH, 0, NULL, 0, DRV_DIRECT).status, CCI_BLK_S_OK);
    teardown(&f);
    gate_destroy(&gate);
}

/* Saved while requests wait for the pool and others have not been seen yet: the second device does the rest. */
static void *quiesce_thread(void *arg)
{
    cci_virtio_quiesce(arg);
    return NULL;
}

static void test_save_in_flight(void)
{
    struct fixture f;
    struct gate gate;
    struct gate_job jobs[CCI_POOL_THREADS];
    struct cci_loop loop;
    pthread_t thread;
    struct cci_buf state = {0};
    cc_error err = {0};
    setup_rw(&f);
    on_loop(&f, &loop);
    traffic(&f, 300);
    gate_close(&gate, jobs, &f.pool);
    uint64_t status = drv_alloc(&f.vm, 8, 1);
    memset(drv_ptr(&f.vm, status), 0xee, 8);
    for (unsigned i = 0; i < 4; i++) {
        const struct drv_buf b[] = {{put_header(&f.d, CCI_BLK_T_FLUSH, 0), 16, false}, {status + i, 1, true}};
        (void)drv_add(&f.d, 0, b, 2, i & 1 ? DRV_DIRECT : DRV_INDIRECT);
    }
    drv_kick_hard(&f.d, 0);
    wait_in_flight(&f.blk.dev, 4);
    CHECK_EQ_INT(pthread_create(&thread, NULL, quiesce_thread, &f.blk.dev), 0);
    wait_stopped(&f.blk.dev);
    for (unsigned i = 4; i < 8; i++) { /* the guest goes on meanwhile; the device no longer looks */
        const struct drv_buf b[] = {{put_header(&f.d, CCI_BLK_T_FLUSH, 0), 16, false}, {status + i, 1, true}};
        (void)drv_add(&f.d, 0, b, 2, DRV_DIRECT);
    }
    drv_kick_hard(&f.d, 0);
    gate_open(&gate);
    CHECK_EQ_INT(pthread_join(thread, NULL), 0);
    CHECK_OK(cci_virtio_save(&f.blk.dev, &state, &err), err);
    cci_loop_stop(&loop);
    cci_virtio_detach(&f.blk.dev);

    struct cci_blk second;
    cci_blk_init(&second, &f.disk, "second", false, &f.pool, &f.vm.mem, drv_irq(&f.vm));
    struct cci_view in = {state.p, state.n};
    struct cci_loop loop2;
    CHECK_OK(cci_loop_init(&loop2, &err), err);
    CHECK_OK(cci_virtio_attach(&second.dev, &loop2, &err), err);
    CHECK_OK(cci_loop_start(&loop2, "test-io", &err), err);
    cci_virtio_quiesce(&second.dev);
    CHECK_OK(cci_virtio_restore(&second.dev, &in, &err), err);
    cci_virtio_resume(&second.dev);
    f.d.dev = &second.dev;
    unsigned head;
    uint32_t len;
    for (unsigned i = 0; i < 8; i++)
        CHECK(drv_wait(&f.d, 0, &head, &len));
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ_INT(*drv_ptr(&f.vm, status + i), CCI_BLK_S_OK);
    CHECK(!drv_poll(&f.d, 0, &head, &len));
    traffic(&f, 300);
    cci_loop_stop(&loop2);
    cci_virtio_detach(&second.dev);
    cci_loop_destroy(&loop2);
    cci_blk_destroy(&second);
    cci_loop_destroy(&loop);
    cci_buf_free(&state);
    teardown(&f);
    gate_destroy(&gate);
}

/* A checkpoint of another disk is refused. */
static void test_restore_other_size(void)
{
    struct fixture f, g;
    struct cci_buf state = {0};
    cc_error err = {0};
    setup_rw(&f);
    cci_virtio_quiesce(&f.blk.dev);
    CHECK_OK(cci_virtio_save(&f.blk.dev, &state, &err), err);
    const unsigned other[] = {DISK_SECTORS + 8};
    setup(&g, other, 1, true);
    struct cci_view in = {state.p, state.n};
    CHECK_EQ_INT(cci_virtio_restore(&g.blk.dev, &in, &err), CC_ERR_IO);
    cci_error_release(&err);
    cci_buf_free(&state);
    teardown(&f);
    teardown(&g);
}

int main(void)
{
    RUN(test_traffic_on_threads);
    RUN(test_cold_reads);
    RUN(test_reset_in_flight);
    RUN(test_large_requests);
    RUN(test_large_read);
    RUN(test_queue_off_in_flight);
    RUN(test_save_in_flight);
    RUN(test_restore_other_size);
    return check_done();
}
