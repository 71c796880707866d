/*
 * The split virtqueue by itself: chains, both kinds of suppression, wraparound, and every way in which a driver can
 * lie. The queue belongs to a device here only because the driver model sets queues up through one.
 */
#include "../check.h"
#include "driver.h"

static void sink_notify(struct cci_virtio_dev *d, unsigned q)
{
    (void)d;
    (void)q; /* the tests take the chains themselves */
}

static const struct cci_virtio_ops sink_ops = {
    .name = "sink", .id = 42, .queues = 1, .queue_size = 256, .notify = sink_notify};

struct fixture {
    struct drv_vm vm;
    struct cci_virtio_dev dev;
    struct drv d;
    struct cci_vq *vq;
};

static void setup(struct fixture *f, uint64_t features, unsigned size)
{
    drv_vm_init(&f->vm);
    cci_virtio_init(&f->dev, &sink_ops, &f->vm.mem, drv_irq(&f->vm));
    drv_init(&f->d, &f->vm, &f->dev);
    CHECK(drv_start(&f->d, features, size));
    f->vq = &f->dev.queue[0].vq;
}

static void teardown(struct fixture *f)
{
    cci_virtio_destroy(&f->dev);
    drv_vm_free(&f->vm);
}

static void chain_of_three(enum drv_how how)
{
    struct fixture f;
    setup(&f, DRV_ALL, 8);
    uint64_t a = drv_alloc(&f.vm, 100, 1), b = drv_alloc(&f.vm, 50, 1);
    memcpy(drv_ptr(&f.vm, a), "hello, ring", 11);
    const struct drv_buf bufs[] = {{a, 5, false}, {a + 5, 6, false}, {b, 50, true}};
    unsigned head = drv_add(&f.d, 0, bufs, 3, how);
    struct cci_vq_chain c;
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(c.head, head);
    CHECK_EQ_INT(c.out_count, 2);
    CHECK_EQ_INT(c.in_count, 1);
    CHECK_EQ_INT(c.out_len, 11);
    CHECK_EQ_INT(c.in_len, 50);
    char text[20];
    struct cci_iov out = cci_vq_out(&c), in = cci_vq_in(&c);
    CHECK_EQ_INT(cci_iov_read(&out, text, 4), 4);
    CHECK_EQ_INT(cci_iov_read(&out, text + 4, 16), 7);
    CHECK(memcmp(text, "hello, ring", 11) == 0);
    CHECK_EQ_INT(cci_iov_read(&out, text, 1), 0);
    CHECK_EQ_INT(cci_iov_skip(&in, 2), 2);
    CHECK_EQ_INT(cci_iov_write(&in, "xyz", 3), 3);
    CHECK(memcmp(drv_ptr(&f.vm, b), "\0\0xyz", 6) == 0);
    CHECK_EQ_INT(cci_iov_skip(&in, 100), 45);
    CHECK_EQ_INT(cci_iov_write(&in, "x", 1), 0);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 0);
    cci_vq_push(f.vq, (uint16_t)head, 5);
    unsigned got;
    uint32_t len;
    CHECK(!drv_poll(&f.d, 0, &got, &len)); /* not before the flush */
    (void)cci_vq_flush(f.vq);
    CHECK(drv_poll(&f.d, 0, &got, &len));
    CHECK_EQ_INT(got, head);
    CHECK_EQ_INT(len, 5);
    teardown(&f);
}

static void test_direct_chain(void)
{
    chain_of_three(DRV_DIRECT);
}

static void test_indirect_chain(void)
{
    chain_of_three(DRV_INDIRECT);
}

/* Ordinary descriptors, the last of which is indirect (section 2.7.5.3.1). */
static void test_direct_then_indirect(void)
{
    struct fixture f;
    setup(&f, DRV_ALL, 8);
    uint64_t buf = drv_alloc(&f.vm, 64, 16), table = drv_alloc(&f.vm, 32, 16);
    uint8_t *t = drv_ptr(&f.vm, table);
    cci_put_le64(t, buf + 16);
    cci_put_le32(t + 8, 16);
    cci_put_le16(t + 12, CCI_VQ_DESC_NEXT);
    cci_put_le16(t + 14, 1);
    cci_put_le64(t + 16, buf + 32);
    cci_put_le32(t + 24, 16);
    cci_put_le16(t + 28, CCI_VQ_DESC_WRITE);
    drv_desc(&f.d, 0, 3, buf, 16, CCI_VQ_DESC_NEXT, 5);
    drv_desc(&f.d, 0, 5, table, 32, CCI_VQ_DESC_INDIRECT, 0);
    drv_offer(&f.d, 0, 3);
    struct cci_vq_chain c;
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(c.out_len, 32);
    CHECK_EQ_INT(c.in_len, 16);
    teardown(&f);
}

static void test_longest_chains(void)
{
    struct fixture f;
    setup(&f, DRV_ALL, 256);
    uint64_t buf = drv_alloc(&f.vm, CCI_VQ_MAX, 1);
    static struct drv_buf bufs[CCI_VQ_MAX + 1];
    for (unsigned i = 0; i <= CCI_VQ_MAX; i++) {
        struct drv_buf b = {buf + i % CCI_VQ_MAX, 1, i >= 10};
        bufs[i] = b;
    }
    struct cci_vq_chain c;
    unsigned head = drv_add(&f.d, 0, bufs, CCI_VQ_MAX, DRV_DIRECT);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(c.out_count + c.in_count, CCI_VQ_MAX);
    cci_vq_push(f.vq, (uint16_t)head, 0);
    (void)cci_vq_flush(f.vq);
    uint32_t len;
    CHECK(drv_poll(&f.d, 0, &head, &len));
    (void)drv_add(&f.d, 0, bufs, CCI_VQ_MAX, DRV_INDIRECT);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(c.in_len, CCI_VQ_MAX - 10);
    (void)drv_add(&f.d, 0, bufs, CCI_VQ_MAX + 1, DRV_INDIRECT);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
    teardown(&f);
}

/* More than 65536 chains: every index wraps, with several chains under way and given back in another order. */
static void wrap(uint64_t features)
{
    struct fixture f;
    setup(&f, features, 4);
    uint64_t buf = drv_alloc(&f.vm, 16, 16);
    const struct drv_buf b[] = {{buf, 8, false}, {buf + 8, 8, true}};
    struct cci_vq_chain c;
    for (unsigned round = 0; round < 40000; round++) {
        unsigned h1 = drv_add(&f.d, 0, b, 2, DRV_DIRECT), h2 = drv_add(&f.d, 0, b, 2, DRV_DIRECT);
        CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
        CHECK_EQ_INT(c.head, h1);
        CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
        CHECK_EQ_INT(c.head, h2);
        CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 0);
        cci_vq_push(f.vq, (uint16_t)h2, round);
        cci_vq_push(f.vq, (uint16_t)h1, round + 1);
        drv_want_irq(&f.d, 0);
        CHECK(cci_vq_flush(f.vq));
        CHECK(!cci_vq_flush(f.vq));
        unsigned head;
        uint32_t len;
        CHECK(drv_poll(&f.d, 0, &head, &len) && head == h2 && len == round);
        CHECK(drv_poll(&f.d, 0, &head, &len) && head == h1 && len == round + 1);
        CHECK(!drv_poll(&f.d, 0, &head, &len));
    }
    teardown(&f);
}

static void test_wraparound(void)
{
    wrap(DRV_ALL);
}

static void test_wraparound_without_event_idx(void)
{
    wrap(CCI_VIRTIO_F_VERSION_1);
}

static void test_unpop(void)
{
    struct fixture f;
    setup(&f, DRV_ALL, 4);
    const struct drv_buf b[] = {{drv_alloc(&f.vm, 16, 16), 8, false}};
    unsigned head = drv_add(&f.d, 0, b, 1, DRV_DIRECT);
    struct cci_vq_chain c;
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    cci_vq_unpop(f.vq);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(c.head, head);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 0);
    teardown(&f);
}

static void test_interrupt_suppression(void)
{
    struct fixture f;
    setup(&f, CCI_VIRTIO_F_VERSION_1 | CCI_VIRTIO_F_EVENT_IDX, 8);
    const struct drv_buf b[] = {{drv_alloc(&f.vm, 16, 16), 8, false}};
    struct cci_vq_chain c;
    /* used_event 2: the driver wants to hear of the third entry, and of none before or after. */
    cci_gmem_store16(drv_ptr(&f.vm, f.d.q[0].avail + 4 + 8 * 2), 2);
    for (unsigned i = 0; i < 6; i++) {
        unsigned head = drv_add(&f.d, 0, b, 1, DRV_DIRECT);
        CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
        cci_vq_push(f.vq, (uint16_t)head, 0);
        CHECK_EQ_INT(cci_vq_flush(f.vq), i == 2);
    }
    teardown(&f);
    setup(&f, CCI_VIRTIO_F_VERSION_1, 8);
    for (unsigned i = 0; i < 4; i++) {
        cci_gmem_store16(drv_ptr(&f.vm, f.d.q[0].avail), i & 1 ? CCI_VQ_AVAIL_NO_INTERRUPT : 0);
        unsigned head = drv_add(&f.d, 0, b, 1, DRV_DIRECT);
        CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
        cci_vq_push(f.vq, (uint16_t)head, 0);
        CHECK_EQ_INT(cci_vq_flush(f.vq), !(i & 1));
    }
    teardown(&f);
}

static void doorbells(uint64_t features)
{
    struct fixture f;
    setup(&f, features, 8);
    const struct drv_buf b[] = {{drv_alloc(&f.vm, 16, 16), 8, false}};
    struct cci_vq_chain c;
    CHECK(!cci_vq_enable_notify(f.vq));
    (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT);
    CHECK(drv_kick(&f.d, 0));
    cci_vq_disable_notify(f.vq);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT);
    CHECK(!drv_kick(&f.d, 0));
    CHECK(cci_vq_enable_notify(f.vq)); /* that one came in silently */
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK(!cci_vq_enable_notify(f.vq));
    (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT);
    CHECK(drv_kick(&f.d, 0));
    teardown(&f);
}

static void test_notify_suppression(void)
{
    doorbells(DRV_ALL);
    doorbells(CCI_VIRTIO_F_VERSION_1);
}

static void test_two_ranges_of_ram(void)
{
    struct fixture f;
    setup(&f, DRV_ALL, 8);
    const struct drv_buf b[] = {{DRV_HIGH_GPA, 16, false}, {DRV_HIGH_GPA + DRV_HIGH_SIZE - 16, 16, true}};
    (void)drv_add(&f.d, 0, b, 2, DRV_DIRECT);
    struct cci_vq_chain c;
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK(c.iov[0].base == f.vm.mem.range[1].host);
    teardown(&f);
}

static void test_empty_pieces(void)
{
    struct fixture f;
    setup(&f, DRV_ALL, 8);
    uint64_t buf = drv_alloc(&f.vm, 16, 16);
    const struct drv_buf b[] = {
        {0, 0, false}, {buf, 4, false}, {UINT64_MAX, 0, true}, {buf + 8, 4, true}, {0, 0, true}};
    (void)drv_add(&f.d, 0, b, 5, DRV_DIRECT);
    struct cci_vq_chain c;
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(c.out_count, 1);
    CHECK_EQ_INT(c.in_count, 1);
    (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT); /* nothing at all */
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(c.out_count + c.in_count, 0);
    struct cci_iov out = cci_vq_out(&c);
    size_t bytes;
    struct cci_iovec v[2];
    CHECK_EQ_INT(cci_iov_take(&out, 10, v, 2, &bytes), 0);
    CHECK_EQ_INT(bytes, 0);
    teardown(&f);
}

static void test_take_pieces(void)
{
    char x[10], y[20], z[5];
    const struct cci_iovec v[] = {{x, 10}, {y, 20}, {z, 5}};
    struct cci_iov i = {v, 3, 0};
    struct cci_iovec out[3];
    size_t bytes;
    CHECK_EQ_INT(cci_iov_take(&i, 15, out, 3, &bytes), 2);
    CHECK_EQ_INT(bytes, 15);
    CHECK(out[0].base == x && out[0].len == 10 && out[1].base == y && out[1].len == 5);
    CHECK_EQ_INT(cci_iov_take(&i, 100, out, 1, &bytes), 1);
    CHECK_EQ_INT(bytes, 15);
    CHECK(out[0].base == y + 5);
    CHECK_EQ_INT(cci_iov_take(&i, 100, out, 3, &bytes), 1);
    CHECK(out[0].base == z && bytes == 5);
}

/* ---- Hostile drivers: one bad chain at descriptor 0, by name --------------------------------------------------- */

struct hostile {
    const char *name;
    void (*make)(struct fixture *f);
};

static void make_loop(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, 16, CCI_VQ_DESC_NEXT, 1);
    drv_desc(&f->d, 0, 1, DRV_RAM_GPA, 16, CCI_VQ_DESC_NEXT, 0);
}

static void make_empty_loop(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, 0, 0, CCI_VQ_DESC_NEXT, 0);
}

static void make_next_out_of_range(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, 16, CCI_VQ_DESC_NEXT, 8);
}

static void make_hole(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, 0xd0000000u, 16, 0, 0);
}

static void make_null(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, 0, 1, 0, 0);
}

static void make_straddle(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA + DRV_RAM_SIZE - 8, 9, 0, 0);
}

static void make_overflow(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, UINT64_MAX - 7, 16, 0, 0);
}

static void make_huge(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, UINT32_MAX, CCI_VQ_DESC_WRITE, 0);
}

static void make_read_after_write(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, 16, CCI_VQ_DESC_NEXT | CCI_VQ_DESC_WRITE, 1);
    drv_desc(&f->d, 0, 1, DRV_RAM_GPA, 16, 0, 0);
}

static void put_table(struct fixture *f, uint64_t table, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
    uint8_t *t = drv_ptr(&f->vm, table);
    cci_put_le64(t, addr);
    cci_put_le32(t + 8, len);
    cci_put_le16(t + 12, (uint16_t)flags);
    cci_put_le16(t + 14, (uint16_t)next);
}

static void make_nested_indirect(struct fixture *f)
{
    uint64_t table = drv_alloc(&f->vm, 16, 16);
    put_table(f, table, table, 16, CCI_VQ_DESC_INDIRECT, 0);
    drv_desc(&f->d, 0, 0, table, 16, CCI_VQ_DESC_INDIRECT, 0);
}

static void make_indirect_with_next(struct fixture *f)
{
    uint64_t table = drv_alloc(&f->vm, 16, 16);
    put_table(f, table, DRV_RAM_GPA, 16, 0, 0);
    drv_desc(&f->d, 0, 0, table, 16, CCI_VQ_DESC_INDIRECT | CCI_VQ_DESC_NEXT, 1);
}

static void make_indirect_odd_length(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, 24, CCI_VQ_DESC_INDIRECT, 0);
}

static void make_indirect_empty(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, 0, CCI_VQ_DESC_INDIRECT, 0);
}

static void make_indirect_too_long(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, 16 * (CCI_VQ_MAX + 1), CCI_VQ_DESC_INDIRECT, 0);
}

static void make_indirect_huge(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, DRV_RAM_GPA, 0xfffffff0u, CCI_VQ_DESC_INDIRECT, 0);
}

static void make_indirect_in_hole(struct fixture *f)
{
    drv_desc(&f->d, 0, 0, 0xd0000000u, 16, CCI_VQ_DESC_INDIRECT, 0);
}

static void make_indirect_next_out_of_range(struct fixture *f)
{
    uint64_t table = drv_alloc(&f->vm, 32, 16);
    put_table(f, table, DRV_RAM_GPA, 16, CCI_VQ_DESC_NEXT, 2); /* inside the queue, but not inside the table */
    drv_desc(&f->d, 0, 0, table, 32, CCI_VQ_DESC_INDIRECT, 0);
}

static void make_indirect_loop(struct fixture *f)
{
    uint64_t table = drv_alloc(&f->vm, 16, 16);
    put_table(f, table, 0, 0, CCI_VQ_DESC_NEXT, 0);
    drv_desc(&f->d, 0, 0, table, 16, CCI_VQ_DESC_INDIRECT, 0);
}

static const struct hostile hostiles[] = {
    {"loop", make_loop},
    {"loop of empty descriptors", make_empty_loop},
    {"next out of range", make_next_out_of_range},
    {"address in the hole", make_hole},
    {"address 0", make_null},
    {"across the end of RAM", make_straddle},
    {"address + length overflows", make_overflow},
    {"huge length", make_huge},
    {"readable after writable", make_read_after_write},
    {"indirect in indirect", make_nested_indirect},
    {"indirect with next", make_indirect_with_next},
    {"indirect table of odd length", make_indirect_odd_length},
    {"empty indirect table", make_indirect_empty},
    {"indirect table too long", make_indirect_too_long},
    {"indirect table huge", make_indirect_huge},
    {"indirect table in the hole", make_indirect_in_hole},
    {"next out of the indirect table", make_indirect_next_out_of_range},
    {"loop in an indirect table", make_indirect_loop},
};

/* Each breaks the queue, and stays broken; the device asks for a reset and works again after one. */
static void test_hostile_chains(void)
{
    for (unsigned i = 0; i < CCI_COUNT(hostiles); i++) {
        struct fixture f;
        struct cci_vq_chain c;
        setup(&f, DRV_ALL, 8);
        hostiles[i].make(&f);
        drv_offer(&f.d, 0, 0);
        (void)drv_irqs(&f.vm);
        bool popped = cci_virtio_pop(&f.dev, 0, &c);
        if (popped || !f.vq->broken)
            printf("# not refused: %s\n", hostiles[i].name);
        CHECK(!popped && f.vq->broken);
        CHECK(drv_broken(&f.d));
        CHECK_EQ_INT(drv_irqs(&f.vm), 1);
        CHECK_EQ_INT(drv_ack(&f.d), CCI_VIRTIO_INT_CONFIG);
        CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
        CHECK(drv_start(&f.d, DRV_ALL, 8));
        const struct drv_buf b[] = {{DRV_RAM_GPA, 8, false}};
        (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT);
        CHECK(cci_virtio_pop(&f.dev, 0, &c));
        teardown(&f);
    }
}

static void test_indirect_not_negotiated(void)
{
    struct fixture f;
    struct cci_vq_chain c;
    setup(&f, CCI_VIRTIO_F_VERSION_1, 8);
    const struct drv_buf b[] = {{DRV_RAM_GPA, 8, false}};
    (void)drv_add(&f.d, 0, b, 1, DRV_INDIRECT);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
    teardown(&f);
}

static void test_head_out_of_range(void)
{
    struct fixture f;
    struct cci_vq_chain c;
    setup(&f, DRV_ALL, 8);
    drv_offer(&f.d, 0, 8);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
    teardown(&f);
}

static void test_avail_index_jumps(void)
{
    struct fixture f;
    struct cci_vq_chain c;
    setup(&f, DRV_ALL, 8);
    cci_gmem_store16(drv_ptr(&f.vm, f.d.q[0].avail + 2), 9);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
    teardown(&f);
    setup(&f, DRV_ALL, 8); /* backwards */
    cci_gmem_store16(drv_ptr(&f.vm, f.d.q[0].avail + 2), UINT16_MAX);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
    teardown(&f);
}

/* A driver that offers chains without waiting to get any back cannot make the device hold more than the queue. */
static void test_outstanding_is_bounded(void)
{
    struct fixture f;
    struct cci_vq_chain c;
    setup(&f, DRV_ALL, 8);
    drv_desc(&f.d, 0, 0, DRV_RAM_GPA, 8, 0, 0);
    for (unsigned i = 0; i < 8; i++) {
        drv_offer(&f.d, 0, 0);
        CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    }
    drv_offer(&f.d, 0, 0);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
    teardown(&f);
}

/* While one chain is out, the index goes back by one: that is no invitation to take 65535 more. */
static void test_avail_index_goes_back(void)
{
    struct fixture f;
    struct cci_vq_chain c;
    setup(&f, DRV_ALL, 8);
    drv_desc(&f.d, 0, 0, DRV_RAM_GPA, 8, 0, 0);
    drv_offer(&f.d, 0, 0);
    drv_offer(&f.d, 0, 0);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1);
    cci_gmem_store16(drv_ptr(&f.vm, f.d.q[0].avail + 2), 1);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), -1);
    teardown(&f);
}

static void test_chain_of_2g(void)
{
    /* RAM is small here, so the same megabytes many times. */
    struct fixture f;
    struct cci_vq_chain c;
    setup(&f, DRV_ALL, 8);
    uint64_t table = drv_alloc(&f.vm, 256 * 16, 16);
    for (unsigned i = 0; i < 256; i++)
        put_table(&f, table + i * 16, DRV_RAM_GPA, DRV_RAM_SIZE, i < 255 ? CCI_VQ_DESC_NEXT : 0, i + 1);
    drv_desc(&f.d, 0, 0, table, 256 * 16, CCI_VQ_DESC_INDIRECT, 0);
    drv_offer(&f.d, 0, 0);
    CHECK_EQ_INT(cci_vq_pop(f.vq, &c), 1); /* 2 GiB: allowed */
    CHECK_EQ_INT(c.out_len, 256u * DRV_RAM_SIZE);
    teardown(&f);
}

static void test_chain_of_4g(void)
{
    struct cci_gmem mem = {{{0, (uint64_t)1 << 40, NULL}, {0, 0, NULL}}, 1};
    struct cci_vq q;
    struct cci_vq_chain c;
    cci_vq_init(&q, &mem, 8);
    mem.range[0].host = (uint8_t *)(uintptr_t)4096; /* never touched */
    memset(&c, 0, sizeof(c));
    const struct cci_vq_desc big = {0, 0x80000000u, 0, 0};
    CHECK(cci_vq_add_piece(&q, &c, &big) == NULL);
    CHECK(cci_vq_add_piece(&q, &c, &big) != NULL);
}

/* Tables that are not where tables may be. */
static void test_bad_rings(void)
{
    static const struct {
        unsigned size;
        uint64_t desc, avail, used;
    } bad[] = {
        {0, 0, 0, 0},
        {3, 0, 0, 0},
        {512, 0, 0, 0},
        {8, 8, 0, 0},
        {8, 0, 1, 0},
        {8, 0, 0, 2},
        {8, 0xd0000000u, 0, 0},
        {8, 0, DRV_RAM_SIZE - 4, 0},
        {8, 0, 0, DRV_RAM_SIZE - 64},
        {8, 0, 0, (uint64_t)0 - 0x1000 - DRV_RAM_GPA},
    };
    for (unsigned i = 0; i < CCI_COUNT(bad); i++) {
        struct fixture f;
        drv_vm_init(&f.vm);
        cci_virtio_init(&f.dev, &sink_ops, &f.vm.mem, drv_irq(&f.vm));
        drv_init(&f.d, &f.vm, &f.dev);
        CHECK(drv_negotiate(&f.d, DRV_ALL));
        f.d.q[0].size = bad[i].size;
        f.d.q[0].desc = DRV_RAM_GPA + bad[i].desc;
        f.d.q[0].avail = DRV_RAM_GPA + bad[i].avail;
        f.d.q[0].used = DRV_RAM_GPA + bad[i].used;
        CHECK(!drv_queue_start(&f.d, 0));
        CHECK(drv_broken(&f.d));
        drv_ok(&f.d);
        drv_kick_hard(&f.d, 0);
        teardown(&f);
    }
}

int main(void)
{
    RUN(test_direct_chain);
    RUN(test_indirect_chain);
    RUN(test_direct_then_indirect);
    RUN(test_longest_chains);
    RUN(test_wraparound);
    RUN(test_wraparound_without_event_idx);
    RUN(test_unpop);
    RUN(test_interrupt_suppression);
    RUN(test_notify_suppression);
    RUN(test_two_ranges_of_ram);
    RUN(test_empty_pieces);
    RUN(test_take_pieces);
    RUN(test_hostile_chains);
    RUN(test_indirect_not_negotiated);
    RUN(test_head_out_of_range);
    RUN(test_avail_index_jumps);
    RUN(test_outstanding_is_bounded);
    RUN(test_avail_index_goes_back);
    RUN(test_chain_of_2g);
    RUN(test_chain_of_4g);
    RUN(test_bad_rings);
    return check_done();
}
