/* tests/virtio/blk_disk.h - a block device with a disk on plain files, and a driver for it. */
#ifndef TESTS_VIRTIO_BLK_DISK_H
#define TESTS_VIRTIO_BLK_DISK_H

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

#endif
