/*
 * The balloon: which pages go back to the host, seen in what they read as and in mincore, and that no other ever does.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "../../src/virtio/balloon.h"
#include "../check.h"
#include "driver.h"

#define PAGE 4096u
#define PAGES 256u /* under test, from `base` on */

struct fixture {
    struct drv_vm vm;
    struct cci_balloon balloon;
    struct drv d;
    uint64_t base;
};

static void setup(struct fixture *f)
{
    drv_vm_init(&f->vm);
    cci_balloon_init(&f->balloon, &f->vm.mem, drv_irq(&f->vm));
    drv_init(&f->d, &f->vm, &f->balloon.dev);
    CHECK(drv_start(&f->d, DRV_ALL, 64));
    f->base = drv_alloc(&f->vm, (PAGES + 2) * PAGE, PAGE);
    memset(drv_ptr(&f->vm, f->base), 0xaa, PAGES * PAGE);
}

static void teardown(struct fixture *f)
{
    cci_balloon_destroy(&f->balloon);
    drv_vm_free(&f->vm);
}

static void give(struct fixture *f, unsigned q, const struct drv_buf *b, unsigned n)
{
    unsigned head = drv_add(&f->d, q, b, n, DRV_INDIRECT), got;
    uint32_t len;
    (void)drv_kick(&f->d, q);
    CHECK(drv_poll(&f->d, q, &got, &len));
    CHECK_EQ_INT(got, head);
    CHECK_EQ_INT(len, 0);
}

/* Whether the page was given back: then it reads as zeroes. */
static bool gone(struct fixture *f, unsigned page)
{
    const uint8_t *p = drv_ptr(&f->vm, f->base + page * (uint64_t)PAGE);
    for (unsigned i = 1; i < PAGE; i++)
        if (p[i] != p[0])
            return false;
    return p[0] == 0;
}

/* Exactly the pages [from, to) are gone. */
static bool gone_are(struct fixture *f, unsigned from, unsigned to)
{
    for (unsigned i = 0; i < PAGES; i++)
        if (gone(f, i) != (i >= from && i < to))
            return false;
    return true;
}

static void test_features(void)
{
    struct fixture f;
    setup(&f);
    CHECK(f.d.features & CCI_BALLOON_F_REPORTING);
    CHECK(f.d.features & CCI_BALLOON_F_DEFLATE_ON_OOM);
    CHECK_EQ_INT(drv_config(&f.d, 0, 4), 0);
    uint8_t actual[4] = {5, 0, 0, 0};
    cci_virtio_mmio_write(&f.balloon.dev, CCI_VIRTIO_MMIO_CONFIG + 4, actual, 4);
    cci_virtio_mmio_write(&f.balloon.dev, CCI_VIRTIO_MMIO_CONFIG, actual, 4);
    CHECK_EQ_INT(drv_config(&f.d, 0, 4), 0);
    CHECK_EQ_INT(drv_config(&f.d, 4, 4), 5);
    teardown(&f);
}

static void report_on(unsigned q)
{
    struct fixture f;
    setup(&f);
    const struct drv_buf b[] = {{f.base + 8 * PAGE, 16 * PAGE, true}, {f.base + 24 * PAGE, PAGE, true}};
    unsigned char *resident = malloc(PAGES);
    give(&f, q, b, 2);
    CHECK_EQ_INT(mincore(drv_ptr(&f.vm, f.base), PAGES * PAGE, resident), 0);
    for (unsigned i = 0; i < PAGES; i++)
        CHECK_EQ_INT(resident[i] & 1, i < 8 || i >= 25);
    free(resident);
    CHECK(gone_are(&f, 8, 25));
    teardown(&f);
}

/* By the specification's number, and by that of Linux. */
static void test_reporting(void)
{
    report_on(4);
    report_on(2);
}

/* Ranges that are not whole pages: only the whole ones in them. What is to be read is no report. */
static void test_partial_pages(void)
{
    struct fixture f;
    setup(&f);
    const struct drv_buf b[] = {
        {f.base + 100, PAGE, true}, {f.base + 10 * PAGE - 1, 2 * PAGE, true}, {f.base + 20 * PAGE, PAGE - 1, true}};
    give(&f, 2, b, 3);
    CHECK(gone_are(&f, 10, 11));
    const struct drv_buf readable[] = {{f.base, 4 * PAGE, false}};
    give(&f, 2, readable, 1);
    CHECK(gone_are(&f, 10, 11));
    teardown(&f);
}

static void put_pfns(struct fixture *f, uint64_t list, const uint32_t *pfn, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        cci_put_le32(drv_ptr(&f->vm, list + i * 4), pfn[i]);
}

static void test_inflate(void)
{
    struct fixture f;
    setup(&f);
    const uint32_t first = (uint32_t)(f.base / PAGE);
    uint64_t list = drv_alloc(&f.vm, 64, 4);
    /* A run, a stranger in the hole, one beyond all memory, and the run goes on; the last entry is cut short. */
    const uint32_t pfn[] = {first + 30, first + 31, first + 32, 0xd0000, UINT32_MAX, 0, first + 33, first + 34};
    put_pfns(&f, list, pfn, CCI_COUNT(pfn));
    const struct drv_buf b[] = {{list, 10, false}, {list + 10, 20, false}};
    give(&f, CCI_BALLOON_INFLATE, b, 2);
    CHECK(gone_are(&f, 30, 34)); /* the entry of `first + 34` has only two of its bytes */
    memset(drv_ptr(&f.vm, f.base), 0xaa, PAGES * PAGE);
    give(&f, CCI_BALLOON_DEFLATE, b, 2);
    CHECK(gone_are(&f, 0, 0));
    teardown(&f);
}

/* The run stops at the end of a range of RAM. */
static void test_inflate_at_the_edge(void)
{
    struct fixture f;
    setup(&f);
    uint64_t list = drv_alloc(&f.vm, 64, 4);
    const uint32_t end = (DRV_RAM_GPA + DRV_RAM_SIZE) / PAGE;
    const uint32_t pfn[] = {end - 2, end - 1, end, end + 1};
    put_pfns(&f, list, pfn, CCI_COUNT(pfn));
    uint8_t *last = drv_ptr(&f.vm, (uint64_t)(end - 1) * PAGE);
    *last = 1;
    const struct drv_buf b[] = {{list, 16, false}};
    give(&f, CCI_BALLOON_INFLATE, b, 1);
    CHECK_EQ_INT(*last, 0);
    teardown(&f);
}

/* A list of two million entries is not followed to its end. */
static void test_long_list(void)
{
    struct fixture f;
    setup(&f);
    const uint32_t first = (uint32_t)(f.base / PAGE);
    uint64_t list = drv_alloc(&f.vm, 1 << 20, 4);
    for (unsigned i = 0; i < (1 << 18); i++)
        cci_put_le32(drv_ptr(&f.vm, list + i * 4), first + (i < CCI_BALLOON_PAGES ? 0 : 1));
    struct drv_buf b[8];
    for (unsigned i = 0; i < 8; i++)
        b[i] = (struct drv_buf){list, 1 << 20, false};
    give(&f, CCI_BALLOON_INFLATE, b, 8);
    CHECK(gone_are(&f, 0, 1));
    teardown(&f);
}

int main(void)
{
    RUN(test_features);
    RUN(test_reporting);
    RUN(test_partial_pages);
    RUN(test_inflate);
    RUN(test_inflate_at_the_edge);
    RUN(test_long_list);
    return check_done();
}
