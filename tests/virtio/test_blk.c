// @sanitize address,undefined
// @sanitize thread
// @timeout 120
/*
 * The block device: every request type, chains cut in every way, disks of several segments, requests that have to
 * wait, resets and saves in the middle of traffic, and drivers that ask for nonsense.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

#include "../../src/virtio/blk.h"
#include "../check.h"

#define DISK_SECTORS 4096u

struct fixture {
    struct drv_vm vm;
    struct cci_pool pool;
    struct cci_disk disk;
    struct cci_blk blk;
    struct drv d;
    uint8_t *model; /* what the disk should contain */
};

static int temp_file(void)
{
    const char *dir = getenv("TMPDIR");
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/cc-blk-XXXXXX", dir ? dir : "/tmp");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        abort();
    (void)unlink(path);
    return fd;
}

/* A disk cut into segments of these numbers of sectors, each at some offset of its own file. */
static void make_disk(struct fixture *f, const unsigned *sectors, unsigned count, bool writable)
{
    uint64_t size = 0;
    for (unsigned i = 0; i < count; i++)
        size += (uint64_t)sectors[i] * 512;
    f->model = malloc(size);
    for (uint64_t i = 0; i < size; i++)
        f->model[i] = (uint8_t)(i * 31 + i / 512 * 7);
    uint64_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        int fd = temp_file();
        uint64_t n = (uint64_t)sectors[i] * 512, offset = i * 1000u;
        if (pwrite(fd, f->model + at, n, (off_t)offset) != (ssize_t)n)
            abort();
        if (!cci_disk_add(&f->disk, fd, offset, n))
            abort();
        at += n;
    }
    f->disk.writable = writable;
}

static void setup(struct fixture *f, const unsigned *sectors, unsigned count, bool writable)
{
    memset(f, 0, sizeof(*f));
    drv_vm_init(&f->vm);
    cci_pool_init(&f->pool);
    make_disk(f, sectors, count, writable);
    cci_blk_init(&f->blk, &f->disk, "serial-0123456789-abc", false, &f->pool, &f->vm.mem, drv_irq(&f->vm));
    drv_init(&f->d, &f->vm, &f->blk.dev);
    CHECK(drv_start(&f->d, DRV_ALL, 128));
}

static void setup_rw(struct fixture *f)
{
    const unsigned one[] = {DISK_SECTORS};
    setup(f, one, 1, true);
}

static void teardown_host(struct fixture *f)
{
    cci_pool_destroy(&f->pool);
    cci_disk_free(&f->disk);
    free(f->model);
    drv_vm_free(&f->vm);
}

static void teardown(struct fixture *f)
{
    cci_blk_destroy(&f->blk);
    teardown_host(f);
}

static uint64_t put_header(struct drv *d, uint32_t type, uint64_t sector)
{
    uint64_t gpa = drv_alloc(d->vm, 16, 16);
    uint8_t *p = drv_ptr(d->vm, gpa);
    cci_put_le32(p, type);
    cci_put_le32(p + 4, 0);
    cci_put_le64(p + 8, sector);
    return gpa;
}

struct result {
    unsigned status;
    uint32_t len;
};

/* One request with these data pieces (up to 30); waits for it. */
static struct result request(struct fixture *f, uint32_t type, uint64_t sector, const struct drv_buf *data, unsigned n,
                             enum drv_how how)
{
    struct drv_buf b[32];
    uint64_t status = drv_alloc(f->d.vm, 1, 1);
    *drv_ptr(&f->vm, status) = 0xee;
    b[0] = (struct drv_buf){put_header(&f->d, type, sector), 16, false};
    for (unsigned i = 0; i < n; i++)
        b[i + 1] = data[i];
    b[n + 1] = (struct drv_buf){status, 1, true};
    unsigned head = drv_add(&f->d, 0, b, n + 2, how), got;
    struct result r = {0xff, 0};
    (void)drv_kick(&f->d, 0);
    CHECK(drv_wait(&f->d, 0, &got, &r.len));
    CHECK_EQ_INT(got, head);
    r.status = *drv_ptr(&f->vm, status);
    return r;
}

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

/* ---- Threads ------------------------------------------------------------------------------------------------------
 */

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
