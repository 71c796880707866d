/*
 * The entropy device: what is filled, how much, and what is left alone.
 */
#include "../../src/virtio/rng.h"
#include "../check.h"
#include "driver.h"

struct fixture {
    struct drv_vm vm;
    struct cci_rng rng;
    struct drv d;
};

static void setup(struct fixture *f)
{
    drv_vm_init(&f->vm);
    cci_rng_init(&f->rng, &f->vm.mem, drv_irq(&f->vm));
    drv_init(&f->d, &f->vm, &f->rng.dev);
    CHECK(drv_start(&f->d, DRV_ALL, 8));
}

static void teardown(struct fixture *f)
{
    cci_rng_destroy(&f->rng);
    drv_vm_free(&f->vm);
}

static uint32_t ask(struct fixture *f, const struct drv_buf *b, unsigned n)
{
    unsigned head = drv_add(&f->d, 0, b, n, DRV_DIRECT), got;
    uint32_t len;
    (void)drv_kick(&f->d, 0);
    CHECK(drv_poll(&f->d, 0, &got, &len));
    CHECK_EQ_INT(got, head);
    return len;
}

/* In 64 random bytes every bit is set in some byte and clear in another, but for one chance in 2^60. */
static bool looks_random(const uint8_t *p)
{
    uint8_t any = 0, all = 0xff;
    for (unsigned i = 0; i < 64; i++) {
        any |= p[i];
        all &= p[i];
    }
    return any == 0xff && all == 0;
}

static void test_fills(void)
{
    struct fixture f;
    setup(&f);
    uint64_t buf = drv_alloc(&f.vm, 256, 16);
    const struct drv_buf b[] = {{buf, 64, true}, {buf + 100, 64, true}};
    CHECK_EQ_INT(ask(&f, b, 2), 128);
    CHECK(looks_random(drv_ptr(&f.vm, buf)) && looks_random(drv_ptr(&f.vm, buf + 100)));
    CHECK(memcmp(drv_ptr(&f.vm, buf), drv_ptr(&f.vm, buf + 100), 64) != 0);
    for (unsigned i = 64; i < 100; i++)
        CHECK_EQ_INT(*drv_ptr(&f.vm, buf + i), 0);
    teardown(&f);
}

static void test_bounded(void)
{
    struct fixture f;
    setup(&f);
    uint64_t buf = drv_alloc(&f.vm, 1 << 20, 16);
    const struct drv_buf b[] = {{buf, 1 << 20, true}};
    CHECK_EQ_INT(ask(&f, b, 1), CCI_RNG_MAX);
    CHECK(looks_random(drv_ptr(&f.vm, buf + CCI_RNG_MAX - 64)));
    CHECK_EQ_INT(*drv_ptr(&f.vm, buf + CCI_RNG_MAX), 0);
    teardown(&f);
}

/* Nothing to write: an empty answer, and the readable part stays as it was. */
static void test_no_room(void)
{
    struct fixture f;
    setup(&f);
    uint64_t buf = drv_alloc(&f.vm, 64, 16);
    const struct drv_buf readable[] = {{buf, 64, false}}, empty[] = {{buf, 0, true}};
    CHECK_EQ_INT(ask(&f, readable, 1), 0);
    CHECK_EQ_INT(ask(&f, empty, 1), 0);
    CHECK_EQ_INT(*drv_ptr(&f.vm, buf), 0);
    CHECK(!drv_broken(&f.d));
    teardown(&f);
}

static void test_bad_chain(void)
{
    struct fixture f;
    setup(&f);
    const struct drv_buf b[] = {{0xd0000000u, 64, true}};
    (void)drv_add(&f.d, 0, b, 1, DRV_DIRECT);
    drv_kick_hard(&f.d, 0);
    CHECK(drv_broken(&f.d));
    teardown(&f);
}

int main(void)
{
    RUN(test_fills);
    RUN(test_bounded);
    RUN(test_no_room);
    RUN(test_bad_chain);
    return check_done();
}
