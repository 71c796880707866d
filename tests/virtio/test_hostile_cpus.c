// @sanitize address,undefined
// @sanitize thread
// @timeout 60
/*
 * Several CPUs of a guest that write any register of a device at the same time, resets and queues going on and off
 * among them, while the I/O thread and the pool serve what that leads to. Nothing may hang, and the device has to work
 * afterwards. The rings are laid out once and hold valid requests, so that there is always something in flight.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>

#include "driver.h"

#include "../../src/virtio/balloon.h"
#include "../../src/virtio/blk.h"
#include "../../src/virtio/vsock.h"
#include "../check.h"

enum { CPUS = 3, ROUNDS = 20000 };

static struct drv_vm vm;
static struct cci_loop loop;
static struct cci_pool pool;
static struct drv d;
static cc_error err;

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

/* What a driver writes, in the order in which it would: at random places of it there is something to be served. */
static void one_write(struct drv *cpu, uint32_t r)
{
    const unsigned q = r >> 8 & 3;
    static const uint8_t status[] = {1, 3, 11, 15, 15, 15, 15, 0};
    switch (r & 15) {
    case 0:
    case 1:
        drv_set(cpu, CCI_VIRTIO_REG_STATUS, status[r >> 16 & 7]);
        break;
    case 2:
        drv_set(cpu, CCI_VIRTIO_REG_DRIVER_FEATURES_SEL, r >> 16 & 1);
        break;
    case 3:
        drv_set(cpu, CCI_VIRTIO_REG_DRIVER_FEATURES, 1);
        break;
    case 4:
        drv_set(cpu, CCI_VIRTIO_REG_QUEUE_SEL, q);
        break;
    case 5:
        drv_set(cpu, CCI_VIRTIO_REG_QUEUE_READY, r >> 16 & 1);
        break;
    case 6: {
        uint8_t bytes[8] = {0};
        cci_virtio_mmio_write(cpu->dev, CCI_VIRTIO_MMIO_CONFIG + (r >> 16 & 63), bytes, 1 + (r >> 24 & 7));
        break;
    }
    case 7:
        (void)drv_get(cpu, CCI_VIRTIO_REG_STATUS);
        (void)drv_config(cpu, r >> 16 & 63, 8);
        (void)drv_ack(cpu);
        break;
    case 8: /* enough of the right order that the device often runs */
        if (drv_negotiate(cpu, CCI_VIRTIO_F_VERSION_1) && cpu->q[0].size)
            (void)drv_queue_start(cpu, 0);
        drv_ok(cpu);
        break;
    default:
        drv_set(cpu, CCI_VIRTIO_REG_QUEUE_NOTIFY, q);
        break;
    }
}

static void *cpu_main(void *arg)
{
    struct drv mine = d;
    uint32_t seed = 0x1234567u * (uint32_t)(uintptr_t)arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        one_write(&mine, next_random(&seed));
    return NULL;
}

/* A ring full of chains that nobody changes any more: a header to read, then room to write. */
static void lay_out(uint32_t type)
{
    uint64_t head = drv_alloc(&vm, 16, 16), room = drv_alloc(&vm, 16384 + 1, 16);
    drv_queue_make(&d, 0, 64);
    cci_put_le32(drv_ptr(&vm, head), type);
    for (unsigned i = 0; i < 64; i += 2) {
        drv_desc(&d, 0, i, head, 16, CCI_VQ_DESC_NEXT, i + 1);
        drv_desc(&d, 0, i + 1, room, 16384 + 1, CCI_VQ_DESC_WRITE, 0);
        drv_offer(&d, 0, i);
    }
}

static void hammer(struct cci_virtio_dev *dev, uint32_t type)
{
    pthread_t cpu[CPUS];
    drv_init(&d, &vm, dev);
    CHECK_OK(cci_virtio_attach(dev, &loop, &err), err);
    CHECK_OK(cci_loop_start(&loop, "loop", &err), err);
    lay_out(type);
    for (uintptr_t i = 0; i < CPUS; i++)
        CHECK_EQ_INT(pthread_create(&cpu[i], NULL, cpu_main, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < CPUS; i++)
        CHECK_EQ_INT(pthread_join(cpu[i], NULL), 0);
    if (dev->ops->id != CCI_VIRTIO_ID_VSOCK) /* which has nothing to say to these chains */
        CHECK(drv_irqs(&vm) > 0);
    /* The driver comes to its senses. */
    CHECK(drv_start(&d, DRV_ALL, 64));
    CHECK(!drv_broken(&d));
    CHECK_EQ_INT(dev->stopped, 0);
    drv_set(&d, CCI_VIRTIO_REG_STATUS, 0);
    cci_loop_stop(&loop);
    cci_virtio_detach(dev);
    CHECK_EQ_INT(dev->in_flight, 0);
}

static void begin(void)
{
    drv_vm_init(&vm);
    cci_pool_init(&pool);
    CHECK_OK(cci_loop_init(&loop, &err), err);
}

static void end(void)
{
    cci_loop_destroy(&loop);
    cci_pool_destroy(&pool);
    drv_vm_free(&vm);
}

static void test_block(void)
{
    static const uint32_t types[] = {CCI_BLK_T_IN, CCI_BLK_T_FLUSH};
    for (unsigned i = 0; i < 2; i++) {
        struct cci_disk disk = {0};
        struct cci_blk blk;
        begin();
        cci_fd fd = cci_os_tmpfile(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        CHECK(fd >= 0 && cci_os_truncate(fd, 1 << 20) == 0 && cci_disk_add(&disk, fd, 0, 1 << 20));
        disk.writable = true;
        cci_blk_init(&blk, &disk, "", false, &pool, &vm.mem, drv_irq(&vm));
        hammer(&blk.dev, types[i]);
        cci_blk_destroy(&blk);
        cci_disk_free(&disk);
        end();
    }
}

static void test_balloon(void)
{
    struct cci_balloon balloon;
    begin();
    cci_balloon_init(&balloon, &vm.mem, drv_irq(&vm));
    hammer(&balloon.dev, 0);
    cci_balloon_destroy(&balloon);
    end();
}

static void test_socket(void)
{
    struct cci_vsock vsock;
    begin();
    cci_vsock_init(&vsock, &vm.mem, drv_irq(&vm), NULL);
    hammer(&vsock.dev, 0);
    cci_vsock_destroy(&vsock);
    end();
}

int main(void)
{
    RUN(test_block);
    RUN(test_balloon);
    RUN(test_socket);
    cci_error_release(&err);
    return check_done();
}
