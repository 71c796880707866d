// @sanitize address,undefined
// @sanitize thread
// @timeout 120
/*
 * The block device: every request type, chains cut in every way, disks of several segments, and drivers that ask for
 * nonsense. What happens while requests are under way is in test_blk_threads.c.
 */
#define _GNU_SOURCE
#include "blk_disk.h"

/* ---- Honest requests ------------------------------------------------------------------------------------------- */

static void test_config(void)
{
    struct fixture f;
    setup_rw(&f);
    CHECK_EQ_INT(drv_config(&f.d, 0, 8), DISK_SECTORS);
    CHECK_EQ_INT(drv_config(&f.d, 12, 4), 126);
    CHECK_EQ_INT(drv_config(&f.d, 36, 4), 0x400000);
    CHECK_EQ_INT(drv_config(&f.d, 56, 1), 1);
    CHECK_EQ_INT(drv_config(&f.d, 60, 4), 0);
    uint64_t want = CCI_BLK_F_FLUSH | CCI_BLK_F_DISCARD | CCI_BLK_F_WRITE_ZEROES | CCI_BLK_F_SEG_MAX;
    CHECK((f.d.features & (want | CCI_BLK_F_RO)) == want);
    teardown(&f);
    const unsigned two[] = {8, 8};
    setup(&f, two, 2, false);
    CHECK((f.d.features & (want | CCI_BLK_F_RO)) == (CCI_BLK_F_RO | CCI_BLK_F_SEG_MAX));
    teardown(&f);
    setup_rw(&f);
    struct cci_blk scratch;
    cci_blk_init(&scratch, &f.disk, "", true, &f.pool, &f.vm.mem, drv_irq(&f.vm));
    CHECK(!(scratch.dev.offered & CCI_BLK_F_FLUSH));
    cci_blk_destroy(&scratch);
    teardown(&f);
}

/* Reads of many places and lengths, over segment boundaries, in one piece and in odd ones. */
static void test_read_segments(void)
{
    const unsigned sectors[] = {8, 1, 100, 3, 900, 64};
    struct fixture f;
    setup(&f, sectors, 6, false);
    unsigned total = 8 + 1 + 100 + 3 + 900 + 64;
    unsigned seed = 1;
    for (unsigned i = 0; i < 300; i++) {
        f.vm.next = DRV_RAM_GPA + 65536;
        seed = seed * 1103515245u + 12345u;
        unsigned at = (seed >> 8) % total, n = 1 + (seed >> 20) % CCI_MIN(total - at, 200u);
        uint64_t buf = drv_alloc(&f.vm, n * 512u + 16, 16);
        memset(drv_ptr(&f.vm, buf), 0x55, n * 512u + 16);
        unsigned cut = 1 + seed % (n * 512u - 1);
        const struct drv_buf b[] = {{buf, cut, true}, {buf + cut, n * 512u - cut, true}};
        const struct drv_buf whole[] = {{buf, n * 512u, true}};
        struct result r = i & 1 ? request(&f, CCI_BLK_T_IN, at, b, 2, i & 2 ? DRV_INDIRECT : DRV_DIRECT)
                                : request(&f, CCI_BLK_T_IN, at, whole, 1, DRV_DIRECT);
        CHECK_EQ_INT(r.status, CCI_BLK_S_OK);
        CHECK_EQ_INT(r.len, n * 512u + 1);
        CHECK(memcmp(drv_ptr(&f.vm, buf), f.model + at * 512u, n * 512u) == 0);
        CHECK_EQ_INT(*drv_ptr(&f.vm, buf + n * 512u), 0x55);
    }
    teardown(&f);
}

static void test_write_read(void)
{
    struct fixture f;
    setup_rw(&f);
    for (unsigned i = 0; i < 200; i++) {
        f.vm.next = DRV_RAM_GPA + 65536;
        unsigned at = i * 977 % (DISK_SECTORS - 64), n = 1 + i % 64;
        uint64_t buf = drv_alloc(&f.vm, n * 512u, 16);
        for (unsigned k = 0; k < n * 512u; k++)
            f.model[at * 512u + k] = *drv_ptr(&f.vm, buf + k) = (uint8_t)(i + k);
        f.blk.avoid_until = i & 1 ? CCI_FOREVER : 0; /* on the pool, or inline */
        const struct drv_buf out[] = {{buf, 100, false}, {buf + 100, n * 512u - 100, false}};
        struct result r = request(&f, CCI_BLK_T_OUT, at, out, 2, DRV_DIRECT);
        CHECK_EQ_INT(r.status, CCI_BLK_S_OK);
        CHECK_EQ_INT(r.len, 1);
    }
    static uint8_t all[DISK_SECTORS * 512u];
    CHECK_EQ_INT(pread(f.disk.segments[0].fd, all, sizeof(all), 0), (ssize_t)sizeof(all));
    CHECK(memcmp(all, f.model, sizeof(all)) == 0);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_FLUSH, 0, NULL, 0, DRV_DIRECT).status, CCI_BLK_S_OK);
    teardown(&f);
}

static void test_get_id(void)
{
    struct fixture f;
    setup_rw(&f);
    uint64_t buf = drv_alloc(&f.vm, 64, 16);
    const struct drv_buf b[] = {{buf, 20, true}};
    struct result r = request(&f, CCI_BLK_T_GET_ID, 0, b, 1, DRV_DIRECT);
    CHECK_EQ_INT(r.status, CCI_BLK_S_OK);
    CHECK_EQ_INT(r.len, 21);
    CHECK(memcmp(drv_ptr(&f.vm, buf), "serial-0123456789-abc", 20) == 0);
    const struct drv_buf small[] = {{buf + 32, 3, true}};
    CHECK_EQ_INT(request(&f, CCI_BLK_T_GET_ID, 0, small, 1, DRV_DIRECT).len, 4);
    CHECK(memcmp(drv_ptr(&f.vm, buf + 32), "ser\0", 4) == 0);
    teardown(&f);
}

static uint64_t put_range(struct fixture *f, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    uint64_t gpa = drv_alloc(&f->vm, 16, 16);
    uint8_t *p = drv_ptr(&f->vm, gpa);
    cci_put_le64(p, sector);
    cci_put_le32(p + 8, sectors);
    cci_put_le32(p + 12, flags);
    return gpa;
}

static void test_discard_and_zeroes(void)
{
    struct fixture f;
    setup_rw(&f);
    const struct drv_buf discard[] = {{put_range(&f, 64, 1024, 0), 16, false}};
    struct stat before, after;
    CHECK_EQ_INT(fstat(f.disk.segments[0].fd, &before), 0);
    struct result r = request(&f, CCI_BLK_T_DISCARD, 0, discard, 1, DRV_DIRECT);
    if (r.status == CCI_BLK_S_UNSUPP) {
        SKIP(test_discard_and_zeroes, "the filesystem of TMPDIR punches no holes");
        teardown(&f);
        return;
    }
    CHECK_EQ_INT(r.status, CCI_BLK_S_OK);
    CHECK_EQ_INT(fstat(f.disk.segments[0].fd, &after), 0);
    CHECK(after.st_blocks <= before.st_blocks - 1000);
    CHECK_EQ_INT(after.st_size, before.st_size);
    /* Two ranges in two pieces, with and without leave to unmap. */
    const struct drv_buf zero[] = {{put_range(&f, 2000, 1, 0), 16, false}, {put_range(&f, 3000, 5, 1), 16, false}};
    CHECK_EQ_INT(request(&f, CCI_BLK_T_WRITE_ZEROES, 0, zero, 2, DRV_DIRECT).status, CCI_BLK_S_OK);
    const struct drv_buf nothing[] = {{put_range(&f, 2000, 0, 0), 16, false}};
    CHECK_EQ_INT(request(&f, CCI_BLK_T_DISCARD, 0, nothing, 1, DRV_DIRECT).status, CCI_BLK_S_OK);
    memset(f.model + 64 * 512, 0, 1024 * 512);
    memset(f.model + 2000 * 512, 0, 512);
    memset(f.model + 3000 * 512, 0, 5 * 512);
    static uint8_t all[DISK_SECTORS * 512u];
    CHECK_EQ_INT(pread(f.disk.segments[0].fd, all, sizeof(all), 0), (ssize_t)sizeof(all));
    CHECK(memcmp(all, f.model, sizeof(all)) == 0);
    teardown(&f);
}

/* A batch is served with one interrupt, and what cannot block starts no thread. */
static void test_batch(void)
{
    struct fixture f;
    setup_rw(&f);
    uint64_t buf = drv_alloc(&f.vm, 32 * 21, 16);
    for (unsigned i = 0; i < 32; i++) {
        const struct drv_buf b[] = {{put_header(&f.d, CCI_BLK_T_GET_ID, 0), 16, false}, {buf + i * 21, 21, true}};
        (void)drv_add(&f.d, 0, b, 2, DRV_DIRECT);
    }
    drv_want_irq(&f.d, 0);
    (void)drv_irqs(&f.vm);
    drv_kick_hard(&f.d, 0);
    unsigned head;
    uint32_t len;
    for (unsigned i = 0; i < 32; i++)
        CHECK(drv_poll(&f.d, 0, &head, &len) && len == 21);
    CHECK_EQ_INT(drv_irqs(&f.vm), 1);
    CHECK_EQ_INT(f.pool.threads, 0);
    teardown(&f);
}

/* ---- Requests that make no sense ----------------------------------------------------------------------------------
 */

static void test_bad_ranges(void)
{
    struct fixture f;
    setup_rw(&f);
    uint64_t buf = drv_alloc(&f.vm, 4096, 16);
    const struct drv_buf in[] = {{buf, 1024, true}}, out[] = {{buf, 1024, false}};
    const struct drv_buf odd_in[] = {{buf, 1000, true}}, odd_out[] = {{buf, 511, false}};
    static const uint64_t bad[] = {DISK_SECTORS - 1, DISK_SECTORS,         DISK_SECTORS + 1,  UINT64_MAX,
                                   UINT64_MAX / 512, UINT64_MAX / 512 + 1, (uint64_t)1 << 55, (uint64_t)1 << 63};
    for (unsigned i = 0; i < CCI_COUNT(bad); i++) {
        CHECK_EQ_INT(request(&f, CCI_BLK_T_IN, bad[i], in, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
        struct result r = request(&f, CCI_BLK_T_OUT, bad[i], out, 1, DRV_DIRECT);
        CHECK_EQ_INT(r.status, CCI_BLK_S_IOERR);
        CHECK_EQ_INT(r.len, 1);
    }
    CHECK_EQ_INT(request(&f, CCI_BLK_T_IN, 0, odd_in, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_OUT, 0, odd_out, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_IN, DISK_SECTORS, NULL, 0, DRV_DIRECT).status, CCI_BLK_S_OK); /* nothing */
    CHECK_EQ_INT(request(&f, CCI_BLK_T_IN, DISK_SECTORS - 2, in, 1, DRV_DIRECT).status, CCI_BLK_S_OK);
    CHECK_EQ_INT(request(&f, 99, 0, in, 1, DRV_DIRECT).status, CCI_BLK_S_UNSUPP);
    /* The data of a read is what the driver gave to be read: there is no room for it. */
    CHECK_EQ_INT(request(&f, CCI_BLK_T_IN, 0, out, 1, DRV_DIRECT).len, 1);
    /* The data of a write is what the driver gave to be written: nothing is written to the disk, nor to the buffer. */
    memset(drv_ptr(&f.vm, buf), 0x77, 1024);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_OUT, 0, in, 1, DRV_DIRECT).status, CCI_BLK_S_OK);
    CHECK_EQ_INT(*drv_ptr(&f.vm, buf), 0x77);
    uint8_t first;
    CHECK_EQ_INT(pread(f.disk.segments[0].fd, &first, 1, 0), 1);
    CHECK_EQ_INT(first, f.model[0]);
    CHECK(!drv_broken(&f.d));
    teardown(&f);
}

static void test_bad_discards(void)
{
    struct fixture f;
    setup_rw(&f);
    static const struct {
        uint64_t sector;
        uint32_t sectors, flags;
        unsigned status;
    } bad[] = {
        {DISK_SECTORS, 1, 0, CCI_BLK_S_IOERR},      {0, DISK_SECTORS + 1, 0, CCI_BLK_S_IOERR},
        {0, UINT32_MAX, 0, CCI_BLK_S_IOERR},        {UINT64_MAX, 1, 0, CCI_BLK_S_IOERR},
        {(uint64_t)1 << 55, 8, 0, CCI_BLK_S_IOERR}, {0, 8, 2, CCI_BLK_S_UNSUPP},
    };
    for (unsigned i = 0; i < CCI_COUNT(bad); i++) {
        /* A good range in front: nothing of the request may be done. */
        const struct drv_buf b[] = {{put_range(&f, 0, 8, 0), 16, false},
                                    {put_range(&f, bad[i].sector, bad[i].sectors, bad[i].flags), 16, false}};
        CHECK_EQ_INT(request(&f, CCI_BLK_T_DISCARD, 0, b, 2, DRV_DIRECT).status, bad[i].status);
        CHECK_EQ_INT(request(&f, CCI_BLK_T_WRITE_ZEROES, 0, b, 2, DRV_DIRECT).status, bad[i].status);
    }
    const struct drv_buf unmap[] = {{put_range(&f, 0, 8, 1), 16, false}};
    CHECK_EQ_INT(request(&f, CCI_BLK_T_DISCARD, 0, unmap, 1, DRV_DIRECT).status, CCI_BLK_S_UNSUPP);
    const struct drv_buf odd[] = {{put_range(&f, 0, 8, 0), 15, false}};
    CHECK_EQ_INT(request(&f, CCI_BLK_T_DISCARD, 0, odd, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
    const struct drv_buf many[] = {{drv_alloc(&f.vm, 33 * 16, 16), 33 * 16, false}};
    CHECK_EQ_INT(request(&f, CCI_BLK_T_DISCARD, 0, many, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
    uint8_t first[8 * 512];
    CHECK_EQ_INT(pread(f.disk.segments[0].fd, first, sizeof(first), 0), (ssize_t)sizeof(first));
    CHECK(memcmp(first, f.model, sizeof(first)) == 0);
    teardown(&f);
}

static void test_read_only(void)
{
    struct fixture f;
    const unsigned two[] = {8, 8};
    setup(&f, two, 2, false);
    uint64_t buf = drv_alloc(&f.vm, 512, 16);
    const struct drv_buf out[] = {{buf, 512, false}}, range[] = {{put_range(&f, 0, 8, 0), 16, false}};
    CHECK_EQ_INT(request(&f, CCI_BLK_T_OUT, 0, out, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_DISCARD, 0, range, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_WRITE_ZEROES, 0, range, 1, DRV_DIRECT).status, CCI_BLK_S_IOERR);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_FLUSH, 0, NULL, 0, DRV_DIRECT).status, CCI_BLK_S_OK);
    uint8_t first[512];
    CHECK_EQ_INT(pread(f.disk.segments[0].fd, first, 512, 0), 512);
    CHECK(memcmp(first, f.model, 512) == 0);
    teardown(&f);
}

/* A store file that somebody truncated is an I/O error in the guest, also when the read begins well. */
static void test_truncated_file(void)
{
    struct fixture f;
    const unsigned two[] = {64, 64};
    setup(&f, two, 2, false);
    CHECK_EQ_INT(ftruncate(f.disk.segments[0].fd, 8 * 512), 0);
    uint64_t buf = drv_alloc(&f.vm, 64 * 512, 16);
    const struct drv_buf in[] = {{buf, 64 * 512, true}};
    struct result r = request(&f, CCI_BLK_T_IN, 0, in, 1, DRV_DIRECT);
    CHECK_EQ_INT(r.status, CCI_BLK_S_IOERR);
    CHECK_EQ_INT(r.len, 8 * 512);
    CHECK_EQ_INT(request(&f, CCI_BLK_T_IN, 64, in, 1, DRV_DIRECT).status, CCI_BLK_S_OK);
    teardown(&f);
}

/* A file that can be read no longer (here: opened for writing only) is an error, not a crash. */
static void test_host_error(void)
{
    struct fixture f;
    setup_rw(&f);
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", f.disk.segments[0].fd);
    int wronly = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(wronly >= 0);
    CHECK(dup3(wronly, f.disk.segments[0].fd, O_CLOEXEC) >= 0);
    (void)close(wronly);
    const struct drv_buf in[] = {{drv_alloc(&f.vm, 512, 16), 512, true}};
    struct result r = request(&f, CCI_BLK_T_IN, 0, in, 1, DRV_DIRECT);
    CHECK_EQ_INT(r.status, CCI_BLK_S_IOERR);
    CHECK_EQ_INT(r.len, 0);
    teardown(&f);
}

static void malformed(const struct drv_buf *b, unsigned n)
{
    struct fixture f;
    setup_rw(&f);
    (void)drv_add(&f.d, 0, b, n, DRV_DIRECT);
    drv_kick_hard(&f.d, 0);
    CHECK(drv_broken(&f.d));
    CHECK(f.blk.dev.why != NULL);
    CHECK(drv_start(&f.d, DRV_ALL, 128));
    CHECK_EQ_INT(request(&f, CCI_BLK_T_FLUSH, 0, NULL, 0, DRV_DIRECT).status, CCI_BLK_S_OK);
    teardown(&f);
}

static void test_malformed_chains(void)
{
    const struct drv_buf short_header[] = {{DRV_RAM_GPA, 15, false}, {DRV_RAM_GPA + 64, 1, true}};
    const struct drv_buf no_status[] = {{DRV_RAM_GPA, 16, false}};
    const struct drv_buf empty_status[] = {{DRV_RAM_GPA, 16, false}, {DRV_RAM_GPA, 0, true}};
    const struct drv_buf only_status[] = {{DRV_RAM_GPA, 1, true}};
    const struct drv_buf nothing[] = {{DRV_RAM_GPA, 0, false}};
    malformed(short_header, 2);
    malformed(no_status, 1);
    malformed(empty_status, 2);
    malformed(only_status, 1);
    malformed(nothing, 1);
}

/* Header and status cut into single bytes. */
static void test_any_framing(void)
{
    struct fixture f;
    setup_rw(&f);
    uint64_t header = put_header(&f.d, CCI_BLK_T_IN, 5), buf = drv_alloc(&f.vm, 513, 1);
    struct drv_buf b[18];
    for (unsigned i = 0; i < 16; i++)
        b[i] = (struct drv_buf){header + i, 1, false};
    b[16] = (struct drv_buf){buf, 513, true}; /* data and status in one */
    (void)drv_add(&f.d, 0, b, 17, DRV_DIRECT);
    drv_kick_hard(&f.d, 0);
    unsigned head;
    uint32_t len;
    CHECK(drv_wait(&f.d, 0, &head, &len));
    CHECK_EQ_INT(len, 513);
    CHECK(memcmp(drv_ptr(&f.vm, buf), f.model + 5 * 512, 512) == 0);
    CHECK_EQ_INT(*drv_ptr(&f.vm, buf + 512), CCI_BLK_S_OK);
    teardown(&f);
}

static void *no_alloc(void *ctx, void *old, size_t size)
{
    (void)ctx;
    return size ? NULL : cci_mem_default_alloc(NULL, old, 0);
}

/* Without memory for a request that should wait, it is done at once instead. */
static void test_without_memory(void)
{
    struct fixture f;
    setup_rw(&f);
    cci_mem_hook.realloc_fn = no_alloc;
    f.blk.avoid_until = CCI_FOREVER;
    const struct drv_buf out[] = {{drv_alloc(&f.vm, 512, 16), 512, false}};
    struct result w = request(&f, CCI_BLK_T_OUT, 0, out, 1, DRV_DIRECT);
    struct result s = request(&f, CCI_BLK_T_FLUSH, 0, NULL, 0, DRV_DIRECT);
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK_EQ_INT(w.status, CCI_BLK_S_OK);
    CHECK_EQ_INT(s.status, CCI_BLK_S_OK);
    CHECK_EQ_INT(f.pool.threads, 0);
    teardown(&f);
}

int main(void)
{
    RUN(test_config);
    RUN(test_read_segments);
    RUN(test_write_read);
    RUN(test_get_id);
    RUN(test_discard_and_zeroes);
    RUN(test_batch);
    RUN(test_bad_ranges);
    RUN(test_bad_discards);
    RUN(test_read_only);
    RUN(test_truncated_file);
    RUN(test_host_error);
    RUN(test_malformed_chains);
    RUN(test_any_framing);
    RUN(test_without_memory);
    return check_done();
}
