/*
 * The register file, the status machine, configuration space, saving and restoring, with a small device that counts
 * what it is told.
 */
#include "../check.h"
#include "driver.h"

struct probe {
    struct cci_virtio_dev dev;
    unsigned notified, starts, resets, settled, config_writes;
    uint32_t secret; /* device state that is saved */
};

static struct probe *probe_of(struct cci_virtio_dev *d)
{
    return (struct probe *)d;
}

static void echo_chain(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c)
{
    uint8_t b[64];
    struct cci_iov out = cci_vq_out(c), in = cci_vq_in(c);
    size_t n = cci_iov_read(&out, b, sizeof(b));
    cci_virtio_push(d, q, c->head, (uint32_t)cci_iov_write(&in, b, n));
}

static void probe_notify(struct cci_virtio_dev *d, unsigned q)
{
    probe_of(d)->notified++;
    cci_virtio_serve(d, q, echo_chain);
}

static void probe_settle(struct cci_virtio_dev *d)
{
    cci_mutex_lock(&d->mutex); /* would hang if notify's caller still held it */
    probe_of(d)->settled++;
    cci_mutex_unlock(&d->mutex);
}

static void probe_start(struct cci_virtio_dev *d)
{
    probe_of(d)->starts++;
}

static void probe_reset(struct cci_virtio_dev *d)
{
    probe_of(d)->resets++;
}

static void probe_config_written(struct cci_virtio_dev *d, unsigned offset, unsigned n)
{
    (void)offset;
    (void)n;
    probe_of(d)->config_writes++;
}

static void probe_save(struct cci_virtio_dev *d, struct cci_buf *out)
{
    cci_virtio_put32(out, probe_of(d)->secret);
}

static cc_error_code probe_restore(struct cci_virtio_dev *d, struct cci_view *in, cc_error *err)
{
    if (!cci_view_u32(in, &probe_of(d)->secret))
        return cci_fail(err, CC_ERR_IO, NULL, "the probe's state is cut short");
    return CC_OK;
}

static const struct cci_virtio_ops probe_ops = {
    .name = "probe",
    .id = 42,
    .queues = 2,
    .queue_size = 64,
    .notify = probe_notify,
    .settle = probe_settle,
    .config_written = probe_config_written,
    .start = probe_start,
    .reset = probe_reset,
    .save = probe_save,
    .restore = probe_restore,
};

struct fixture {
    struct drv_vm vm;
    struct probe p;
    struct drv d;
};

static void make_probe(struct fixture *f, struct probe *p)
{
    memset(p, 0, sizeof(*p));
    cci_virtio_init(&p->dev, &probe_ops, &f->vm.mem, drv_irq(&f->vm));
    p->dev.offered |= 1u << 5;
    p->dev.config_size = 12;
    p->dev.config_writable = 0xf00;
    for (uint8_t i = 0; i < 12; i++)
        p->dev.config[i] = (uint8_t)(i + 1);
}

static void setup(struct fixture *f)
{
    drv_vm_init(&f->vm);
    make_probe(f, &f->p);
    drv_init(&f->d, &f->vm, &f->p.dev);
}

static void teardown(struct fixture *f)
{
    cci_virtio_destroy(&f->p.dev);
    drv_vm_free(&f->vm);
}

static void echo(struct drv *d, unsigned q, const char *text)
{
    uint64_t buf = drv_alloc(d->vm, 128, 1);
    uint32_t n = (uint32_t)strlen(text), len;
    unsigned head, got;
    memcpy(drv_ptr(d->vm, buf), text, n);
    const struct drv_buf b[] = {{buf, n, false}, {buf + 64, 64, true}};
    head = drv_add(d, q, b, 2, DRV_DIRECT);
    (void)drv_kick(d, q);
    CHECK(drv_wait(d, q, &got, &len));
    CHECK_EQ_INT(got, head);
    CHECK_EQ_INT(len, n);
    CHECK(memcmp(drv_ptr(d->vm, buf + 64), text, n) == 0);
}

static void test_identity(void)
{
    struct fixture f;
    setup(&f);
    CHECK_EQ_INT(drv_get(&f.d, 0), 0x74726976);
    CHECK_EQ_INT(drv_get(&f.d, 4), 2);
    CHECK_EQ_INT(drv_get(&f.d, 8), 42);
    CHECK(drv_offered(&f.d) == (CCI_VIRTIO_F_VERSION_1 | CCI_VIRTIO_F_EVENT_IDX | CCI_VIRTIO_F_INDIRECT_DESC | 32));
    drv_set(&f.d, CCI_VIRTIO_REG_DEVICE_FEATURES_SEL, 2);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_DEVICE_FEATURES), 0);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_SEL, 1);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_QUEUE_NUM_MAX), 64);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_SEL, 2);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_QUEUE_NUM_MAX), 0);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_READY, 1);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_QUEUE_READY), 0);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_SEL, UINT32_MAX);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_NUM, 4);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_QUEUE_NUM_MAX), 0);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_SHM_LEN_LOW), UINT32_MAX);
    teardown(&f);
}

static void test_echo(void)
{
    struct fixture f;
    setup(&f);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    CHECK_EQ_INT(f.p.starts, 1);
    for (unsigned i = 0; i < 100; i++) {
        drv_want_irq(&f.d, i & 1);
        echo(&f.d, i & 1, i & 1 ? "one" : "another");
        CHECK_EQ_INT(drv_irqs(&f.vm), 1);
        CHECK_EQ_INT(drv_ack(&f.d), CCI_VIRTIO_INT_USED);
        CHECK_EQ_INT(drv_ack(&f.d), 0);
    }
    CHECK_EQ_INT(f.p.settled, f.p.notified);
    teardown(&f);
}

static void test_features(void)
{
    struct fixture f;
    setup(&f);
    CHECK(!drv_negotiate(&f.d, CCI_VIRTIO_F_EVENT_IDX));           /* not version 1 */
    CHECK(!drv_negotiate(&f.d, CCI_VIRTIO_F_VERSION_1 | 1u << 6)); /* not offered */
    CHECK(drv_negotiate(&f.d, CCI_VIRTIO_F_VERSION_1));
    drv_set(&f.d, CCI_VIRTIO_REG_DRIVER_FEATURES_SEL, 0); /* too late */
    drv_set(&f.d, CCI_VIRTIO_REG_DRIVER_FEATURES, 32);
    CHECK(!cci_virtio_has(&f.p.dev, 32));
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 0);
    drv_set(&f.d, CCI_VIRTIO_REG_DRIVER_FEATURES_SEL, 7); /* no such half */
    drv_set(&f.d, CCI_VIRTIO_REG_DRIVER_FEATURES, 32);
    CHECK(f.p.dev.features == 0);
    teardown(&f);
}

static void test_status(void)
{
    struct fixture f;
    setup(&f);
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 1);
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 3);
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 2); /* bits are not taken back */
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_STATUS), 3);
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 7); /* DRIVER_OK without FEATURES_OK */
    CHECK(drv_broken(&f.d));
    CHECK_EQ_INT(f.p.starts, 0);
    CHECK_EQ_INT(drv_irqs(&f.vm), 0); /* there is no driver to tell */
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 0);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_STATUS), 0);
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, CCI_VIRTIO_NEEDS_RESET | 1); /* the device's own bit */
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_STATUS), 1);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 15 | CCI_VIRTIO_FAILED); /* the driver gave up */
    const struct drv_buf b[] = {{DRV_RAM_GPA, 8, false}};
    (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT);
    unsigned before = f.p.notified;
    drv_kick_hard(&f.d, 0);
    CHECK_EQ_INT(f.p.notified, before);
    teardown(&f);
}

static void test_queue_before_features_ok(void)
{
    struct fixture f;
    setup(&f);
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 3);
    drv_queue_make(&f.d, 0, 8);
    CHECK(!drv_queue_start(&f.d, 0));
    CHECK(drv_broken(&f.d));
    teardown(&f);
}

static void test_kick_before_driver_ok(void)
{
    struct fixture f;
    setup(&f);
    CHECK(drv_negotiate(&f.d, DRV_ALL));
    drv_queue_make(&f.d, 0, 8);
    CHECK(drv_queue_start(&f.d, 0));
    drv_kick_hard(&f.d, 0);
    CHECK_EQ_INT(f.p.notified, 0);
    drv_ok(&f.d);
    drv_kick_hard(&f.d, 1);                        /* not set up */
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_NOTIFY, 2); /* does not exist */
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_NOTIFY, UINT32_MAX);
    CHECK_EQ_INT(f.p.notified, 0);
    drv_kick_hard(&f.d, 0);
    CHECK_EQ_INT(f.p.notified, 1);
    teardown(&f);
}

/* A live queue's registers do not move it; switched off and set up anew it works in its new place. */
static void test_live_queue(void)
{
    struct fixture f;
    setup(&f);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    echo(&f.d, 0, "before");
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_SEL, 0);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_NUM, 16);
    drv_set_addr(&f.d, CCI_VIRTIO_REG_QUEUE_DESC_LOW, 0xd0000000u);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_READY, 1);
    echo(&f.d, 0, "still there");
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_READY, 0);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_QUEUE_READY), 0);
    unsigned before = f.p.notified;
    drv_kick_hard(&f.d, 0);
    CHECK_EQ_INT(f.p.notified, before);
    drv_queue_make(&f.d, 0, 32);
    CHECK(drv_queue_start(&f.d, 0));
    echo(&f.d, 0, "elsewhere");
    teardown(&f);
}

static void test_reset(void)
{
    struct fixture f;
    setup(&f);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    echo(&f.d, 0, "first life");
    unsigned resets = f.p.resets;
    drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 0);
    CHECK_EQ_INT(f.p.resets, resets + 1);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_INTERRUPT_STATUS), 0);
    drv_set(&f.d, CCI_VIRTIO_REG_QUEUE_SEL, 0);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_QUEUE_READY), 0);
    drv_kick_hard(&f.d, 0);
    CHECK(drv_start(&f.d, CCI_VIRTIO_F_VERSION_1, 64));
    echo(&f.d, 1, "second life");
    teardown(&f);
}

static void test_config_space(void)
{
    struct fixture f;
    setup(&f);
    CHECK_EQ_INT(drv_config(&f.d, 0, 1), 1);
    CHECK_EQ_INT(drv_config(&f.d, 1, 2), 0x0302);
    CHECK(drv_config(&f.d, 0, 8) == 0x0807060504030201u);
    CHECK_EQ_INT(drv_config(&f.d, 8, 8), 0x0c0b0a09); /* across the end */
    CHECK_EQ_INT(drv_config(&f.d, 12, 4), 0);
    CHECK_EQ_INT(drv_config(&f.d, 0xfc, 4), 0);
    uint8_t b[8] = {0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4};
    cci_virtio_mmio_write(&f.p.dev, 0x100, b, 4); /* not writable */
    cci_virtio_mmio_write(&f.p.dev, 0x106, b, 4); /* partly */
    cci_virtio_mmio_write(&f.p.dev, 0x108, b, 8); /* past the end */
    cci_virtio_mmio_write(&f.p.dev, 0x10c, b, 4);
    cci_virtio_mmio_write(&f.p.dev, 0xffffffffffffffffu, b, 8);
    CHECK_EQ_INT(f.p.config_writes, 0);
    uint32_t generation = drv_get(&f.d, CCI_VIRTIO_REG_CONFIG_GENERATION);
    CHECK_EQ_INT(drv_config(&f.d, 8, 4), 0x0c0b0a09);
    cci_virtio_mmio_write(&f.p.dev, 0x108, b, 4);
    cci_virtio_mmio_write(&f.p.dev, 0x109, b, 1);
    CHECK_EQ_INT(f.p.config_writes, 2);
    CHECK_EQ_INT(drv_get(&f.d, CCI_VIRTIO_REG_CONFIG_GENERATION), generation + 2);
    CHECK_EQ_INT(drv_config(&f.d, 8, 4), 0xddccaaaa);
    teardown(&f);
}

/* Every offset and size, both ways: nothing but aligned words reaches a register. */
static void test_odd_accesses(void)
{
    struct fixture f;
    setup(&f);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    static const unsigned sizes[] = {1, 2, 4, 8};
    for (unsigned s = 0; s < 4; s++)
        for (uint64_t offset = 0; offset < 0x100; offset++) {
            uint8_t b[8] = {0};
            if (sizes[s] == 4 && offset % 4 == 0)
                continue;
            cci_virtio_mmio_write(&f.p.dev, offset, b, sizes[s]);
            memset(b, 0xff, sizeof(b));
            cci_virtio_mmio_read(&f.p.dev, offset, b, sizes[s]);
            for (unsigned i = 0; i < sizes[s]; i++)
                CHECK_EQ_INT(b[i], 0);
        }
    echo(&f.d, 0, "still alive");
    teardown(&f);
}

/* A driver that keeps the queue full does not keep the I/O thread for ever: notify returns after a turn. */
static struct drv *refill_driver;
static unsigned refill_count;

static void refill_chain(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c)
{
    cci_virtio_push(d, q, c->head, 0);
    cci_virtio_flush(d, q);
    refill_count++;
    drv_offer(refill_driver, q, c->head);
}

static void refill_notify(struct cci_virtio_dev *d, unsigned q)
{
    cci_virtio_serve(d, q, refill_chain);
}

static const struct cci_virtio_ops refill_ops = {
    .name = "refill", .id = 43, .queues = 1, .queue_size = 8, .notify = refill_notify};

static void test_endless_driver(void)
{
    struct fixture f;
    struct cci_virtio_dev dev;
    setup(&f);
    cci_virtio_init(&dev, &refill_ops, &f.vm.mem, drv_irq(&f.vm));
    drv_init(&f.d, &f.vm, &dev);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    const struct drv_buf b[] = {{DRV_RAM_GPA, 8, false}};
    (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT);
    refill_driver = &f.d;
    refill_count = 0;
    drv_kick_hard(&f.d, 0);
    CHECK_EQ_INT(refill_count, 8);
    CHECK(!drv_broken(&f.d));
    cci_virtio_destroy(&dev);
    teardown(&f);
}

/* With a real I/O thread: the doorbell eventfd stands in for the hypervisor's ioeventfd. */
static void test_on_a_loop(void)
{
    struct fixture f;
    struct cci_loop loop;
    cc_error err = {0};
    setup(&f);
    CHECK_OK(cci_loop_init(&loop, &err), err);
    CHECK_OK(cci_virtio_attach(&f.p.dev, &loop, &err), err);
    CHECK_OK(cci_loop_start(&loop, "test-io", &err), err);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    for (unsigned i = 0; i < 200; i++)
        echo(&f.d, i & 1, "over the loop");
    uint64_t buf = drv_alloc(&f.vm, 64, 1);
    const struct drv_buf b[] = {{buf, 8, false}, {buf + 8, 8, true}};
    unsigned head;
    uint32_t len;
    (void)drv_add(&f.d, 0, b, 2, DRV_DIRECT);
    cci_os_eventfd_signal(f.p.dev.queue[0].doorbell);
    CHECK(drv_wait(&f.d, 0, &head, &len));
    /* Stopped, nothing moves; resumed, the missed doorbell is made up for. */
    cci_virtio_quiesce(&f.p.dev);
    (void)drv_add(&f.d, 0, b, 2, DRV_DIRECT);
    drv_kick_hard(&f.d, 0);
    CHECK(!drv_poll(&f.d, 0, &head, &len));
    cci_virtio_resume(&f.p.dev);
    CHECK(drv_wait(&f.d, 0, &head, &len));
    cci_loop_stop(&loop);
    cci_virtio_detach(&f.p.dev);
    cci_virtio_detach(&f.p.dev);
    cci_loop_destroy(&loop);
    teardown(&f);
}

/* ---- Saving and restoring ------------------------------------------------------------------------------------ */

static void save(struct cci_virtio_dev *d, struct cci_buf *out)
{
    cc_error err = {0};
    cci_virtio_quiesce(d);
    CHECK_OK(cci_virtio_save(d, out, &err), err);
    cci_virtio_resume(d);
}

/* Chains are waiting, an interrupt is not yet acknowledged, indices have wrapped: a new device goes on. */
static void test_save_in_traffic(void)
{
    struct fixture f;
    struct cci_buf state = {0};
    cc_error err = {0};
    setup(&f);
    f.p.secret = 0xc0ffee;
    CHECK(drv_start(&f.d, DRV_ALL, 4));
    for (unsigned i = 0; i < 3000; i++) {
        f.vm.next = DRV_RAM_GPA + 65536; /* the same few buffers over and over */
        echo(&f.d, 0, "warming up");
    }
    drv_want_irq(&f.d, 0);
    echo(&f.d, 0, "last before the save");
    uint64_t buf = drv_alloc(&f.vm, 64, 1);
    memcpy(drv_ptr(&f.vm, buf), "waiting!", 8);
    const struct drv_buf b[] = {{buf, 8, false}, {buf + 8, 8, true}};
    unsigned head = drv_add(&f.d, 0, b, 2, DRV_INDIRECT), got; /* made available, but the bell not yet rung */
    save(&f.p.dev, &state);

    struct probe second;
    make_probe(&f, &second);
    struct cci_view in = {state.p, state.n};
    (void)drv_irqs(&f.vm);
    cci_virtio_quiesce(&second.dev);
    CHECK_OK(cci_virtio_restore(&second.dev, &in, &err), err);
    CHECK_EQ_INT(in.n, 0);
    CHECK_EQ_INT(second.secret, 0xc0ffee);
    cci_virtio_resume(&second.dev);
    CHECK_EQ_INT(drv_irqs(&f.vm), 1); /* the interrupt that nobody had acknowledged */
    f.d.dev = &second.dev;
    CHECK_EQ_INT(drv_ack(&f.d), CCI_VIRTIO_INT_USED);
    drv_kick_hard(&f.d, 0);
    uint32_t len;
    CHECK(drv_poll(&f.d, 0, &got, &len));
    CHECK_EQ_INT(got, head);
    CHECK(memcmp(drv_ptr(&f.vm, buf + 8), "waiting!", 8) == 0);
    for (unsigned i = 0; i < 100; i++)
        echo(&f.d, i & 1, "in its second body");
    cci_virtio_destroy(&second.dev);
    cci_buf_free(&state);
    teardown(&f);
}

/* Every shorter state, and every state with one byte changed, is refused or at least harmless. */
static void test_damaged_state(void)
{
    struct fixture f;
    struct cci_buf state = {0};
    setup(&f);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    echo(&f.d, 0, "some traffic");
    save(&f.p.dev, &state);
    for (size_t n = 0; n < state.n; n++) {
        struct probe p;
        cc_error err = {0};
        make_probe(&f, &p);
        uint8_t *copy = malloc(n ? n : 1); /* exact, so that a read behind it is seen */
        memcpy(copy, state.p, n);
        struct cci_view in = {copy, n};
        CHECK_EQ_INT(cci_virtio_restore(&p.dev, &in, &err), CC_ERR_IO);
        CHECK(err.message != NULL);
        CHECK_EQ_INT(p.dev.status, 0);
        cci_error_release(&err);
        free(copy);
        cci_virtio_destroy(&p.dev);
    }
    unsigned refused = 0;
    for (size_t i = 0; i < state.n; i++) {
        struct probe p;
        make_probe(&f, &p);
        state.p[i] ^= 0x81;
        struct cci_view in = {state.p, state.n};
        refused += cci_virtio_restore(&p.dev, &in, NULL) != CC_OK;
        state.p[i] ^= 0x81;
        f.d.dev = &p.dev;
        drv_kick_hard(&f.d, 0);
        cci_virtio_destroy(&p.dev);
    }
    CHECK(refused > state.n / 3);
    cci_buf_free(&state);
    teardown(&f);
}

/* A device that failed is saved and restored as failed. */
static void test_save_failed_device(void)
{
    struct fixture f;
    struct cci_buf state = {0};
    cc_error err = {0};
    setup(&f);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    drv_offer(&f.d, 0, 1000);
    drv_kick_hard(&f.d, 0);
    CHECK(drv_broken(&f.d));
    save(&f.p.dev, &state);
    struct probe second;
    make_probe(&f, &second);
    struct cci_view in = {state.p, state.n};
    CHECK_OK(cci_virtio_restore(&second.dev, &in, &err), err);
    f.d.dev = &second.dev;
    CHECK(drv_broken(&f.d));
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    echo(&f.d, 1, "after a reset");
    cci_virtio_destroy(&second.dev);
    cci_buf_free(&state);
    teardown(&f);
}

static int alloc_left;

static void *failing_alloc(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size && alloc_left-- <= 0)
        return NULL;
    return cci_mem_default_alloc(NULL, old, size);
}

static void test_save_without_memory(void)
{
    struct fixture f;
    setup(&f);
    CHECK(drv_start(&f.d, DRV_ALL, 8));
    bool saved = false;
    for (int n = 0; !saved && n < 100; n++) {
        struct cci_buf state = {0};
        alloc_left = n;
        cci_mem_hook.realloc_fn = failing_alloc;
        cc_error_code code = cci_virtio_save(&f.p.dev, &state, NULL);
        cci_mem_hook.realloc_fn = cci_mem_default_alloc;
        CHECK(code == CC_OK || code == CC_ERR_UNKNOWN);
        CHECK(n > 0 || code != CC_OK);
        saved = code == CC_OK;
        cci_buf_free(&state);
    }
    CHECK(saved);
    teardown(&f);
}

int main(void)
{
    RUN(test_identity);
    RUN(test_echo);
    RUN(test_features);
    RUN(test_status);
    RUN(test_queue_before_features_ok);
    RUN(test_kick_before_driver_ok);
    RUN(test_live_queue);
    RUN(test_reset);
    RUN(test_config_space);
    RUN(test_odd_accesses);
    RUN(test_endless_driver);
    RUN(test_on_a_loop);
    RUN(test_save_in_traffic);
    RUN(test_damaged_state);
    RUN(test_save_failed_device);
    RUN(test_save_without_memory);
    return check_done();
}
