// @sanitize address,undefined
// @sanitize thread
/*
 * The file system device: requests in chains cut in every way, on its own threads and without; drivers that lie, flood
 * and reset while requests are under way.
 */
#define _GNU_SOURCE
#include "driver.h"

#include "../../src/base/remove.h"
#include "../../src/virtio/fs.h"
#include "../check.h"
#include "../scratch.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    struct drv_vm vm;
    struct cci_share *share;
    struct cci_fs fs;
    struct drv d;
    uint64_t out, in; /* 64 KiB each */
    bool threads;
    char base[64];
};

static void put_file(const struct fixture *f, const char *name, const char *text)
{
    char path[120];
    (void)snprintf(path, sizeof(path), "%s/%s", f->base, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK_EQ_INT(close(fd), 0);
}

static void setup(struct fixture *f, bool threads)
{
    memset(f, 0, sizeof(*f));
    scratch_make(f->base, sizeof(f->base), "fs");
    put_file(f, "f", "0123456789");
    const struct cci_share_config config = {.host_path = f->base, .writable = true};
    CHECK_EQ_INT(cci_share_new(&config, &f->share, NULL), CC_OK);
    drv_vm_init(&f->vm);
    cci_fs_init(&f->fs, f->share, "tag", &f->vm.mem, drv_irq(&f->vm));
    f->threads = threads;
    if (threads)
        CHECK_EQ_INT(cci_virtio_attach(&f->fs.dev, NULL, NULL), CC_OK);
    drv_init(&f->d, &f->vm, &f->fs.dev);
    CHECK(drv_start(&f->d, DRV_ALL, 64));
    f->out = drv_alloc(&f->vm, 65536, 16);
    f->in = drv_alloc(&f->vm, 65536, 16);
}

static void teardown(struct fixture *f)
{
    if (f->threads)
        cci_virtio_detach(&f->fs.dev);
    cci_fs_destroy(&f->fs);
    cci_share_free(f->share);
    drv_vm_free(&f->vm);
    CHECK_EQ_INT(cci_remove_tree(f->base), 0);
}

/* Writes a request's header; its arguments, n bytes, go behind it. */
static uint8_t *header(struct fixture *f, uint32_t opcode, uint64_t node, size_t n)
{
    uint8_t *p = drv_ptr(&f->vm, f->out);
    memset(p, 0, CCI_FUSE_IN_HEADER + n);
    cci_put_le32(p, (uint32_t)(CCI_FUSE_IN_HEADER + n));
    cci_put_le32(p + 4, opcode);
    cci_put_le64(p + 8, 77);
    cci_put_le64(p + 16, node);
    return p + CCI_FUSE_IN_HEADER;
}

/* Sends the request with n bytes of arguments and room for a reply, cut into pieces of about that many bytes. */
static int send_it(struct fixture *f, size_t n, uint32_t room, uint32_t piece)
{
    struct drv_buf b[60];
    unsigned count = 0, got;
    uint32_t len, total = (uint32_t)(CCI_FUSE_IN_HEADER + n);
    for (uint32_t at = 0; at < total; at += piece)
        b[count++] = (struct drv_buf){f->out + at, CCI_MIN(piece, total - at), false};
    for (uint32_t at = 0; at < room; at += piece)
        b[count++] = (struct drv_buf){f->in + at, CCI_MIN(piece, room - at), true};
    memset(drv_ptr(&f->vm, f->in), 0, room ? room : 1);
    unsigned head = drv_add(&f->d, 1, b, count, DRV_INDIRECT);
    (void)drv_kick(&f->d, 1);
    CHECK(drv_wait(&f->d, 1, &got, &len));
    CHECK_EQ_INT(got, head);
    if (len < 16)
        return -1;
    CHECK_EQ_INT(cci_le32(drv_ptr(&f->vm, f->in)), len);
    CHECK_EQ_INT(cci_le64(drv_ptr(&f->vm, f->in + 8)), 77);
    return -(int)cci_le32(drv_ptr(&f->vm, f->in + 4));
}

static void start_session(struct fixture *f, uint64_t *node, uint64_t *handle)
{
    uint8_t *a = header(f, CCI_FUSE_INIT, 0, 64);
    cci_put_le32(a, 7);
    cci_put_le32(a + 4, 38);
    CHECK_EQ_INT(send_it(f, 64, 80, 1000), 0);
    memcpy(header(f, CCI_FUSE_LOOKUP, 1, 2), "f", 2);
    CHECK_EQ_INT(send_it(f, 2, 16 + CCI_FUSE_ENTRY_SIZE, 1000), 0);
    *node = cci_le64(drv_ptr(&f->vm, f->in + 16));
    cci_put_le32(header(f, CCI_FUSE_OPEN, *node, 8), 2);
    CHECK_EQ_INT(send_it(f, 8, 32, 1000), 0);
    *handle = cci_le64(drv_ptr(&f->vm, f->in + 16));
}

static uint8_t *transfer(struct fixture *f, uint32_t opcode, uint64_t node, uint64_t handle, uint64_t at, uint32_t size)
{
    uint8_t *a = header(f, opcode, node, 40 + (opcode == CCI_FUSE_WRITE ? size : 0));
    cci_put_le64(a, handle);
    cci_put_le64(a + 8, at);
    cci_put_le32(a + 16, size);
    return a + 40;
}

static void session(struct fixture *f)
{
    uint64_t node, handle;
    start_session(f, &node, &handle);
    for (uint32_t piece = 3; piece < 40; piece++) {
        (void)transfer(f, CCI_FUSE_READ, node, handle, 2, 50);
        CHECK_EQ_INT(send_it(f, 40, 66, piece), 0);
        CHECK_EQ_INT(cci_le32(drv_ptr(&f->vm, f->in)), 16 + 8);
        CHECK(memcmp(drv_ptr(&f->vm, f->in + 16), "23456789", 8) == 0);
        memcpy(transfer(f, CCI_FUSE_WRITE, node, handle, 4, 3), "456", 3);
        CHECK_EQ_INT(send_it(f, 43, 24, piece), 0);
    }
}

static void test_session(void)
{
    struct fixture f;
    setup(&f, false);
    CHECK_EQ_INT(drv_config(&f.d, 0, 4), 'g' << 16 | 'a' << 8 | 't');
    CHECK_EQ_INT(drv_config(&f.d, 36, 4), 1);
    session(&f);
    teardown(&f);
}

static void test_session_on_threads(void)
{
    struct fixture f;
    setup(&f, true);
    session(&f);
    teardown(&f);
}

/* FORGET has no reply, and comes on either queue. */
static void test_forget(void)
{
    struct fixture f;
    uint64_t node, handle;
    unsigned got;
    uint32_t len;
    setup(&f, true);
    start_session(&f, &node, &handle);
    cci_put_le64(header(&f, CCI_FUSE_FORGET, node, 8), 1);
    const struct drv_buf b = {f.out, 48, false};
    (void)drv_add(&f.d, 0, &b, 1, DRV_DIRECT);
    (void)drv_kick(&f.d, 0);
    CHECK(drv_wait(&f.d, 0, &got, &len));
    CHECK_EQ_INT(len, 0);
    CHECK_EQ_INT(send_it(&f, 8, 0, 1000), -1);
    teardown(&f);
}

/* What is no request is given back, and harms nobody: chains without a header, without room, with lies in the header.
 */
static void test_nonsense(void)
{
    struct fixture f;
    uint64_t node, handle;
    setup(&f, true);
    start_session(&f, &node, &handle);
    for (uint32_t n = 1; n < 40; n++) {
        (void)header(&f, CCI_FUSE_GETATTR, 1, 16);
        const struct drv_buf b[] = {{f.out, n, false}, {f.in, 100, true}};
        unsigned got;
        uint32_t len;
        (void)drv_add(&f.d, 1, b, 2, DRV_DIRECT);
        (void)drv_kick(&f.d, 1);
        CHECK(drv_wait(&f.d, 1, &got, &len));
        CHECK_EQ_INT(len, 0);
    }
    for (uint32_t room = 0; room < 120; room++) {
        (void)header(&f, CCI_FUSE_GETATTR, 1, 16);
        int r = send_it(&f, 16, room, 1000);
        CHECK_EQ_INT(r, room < 16 ? -1 : room < 120 ? EINVAL : 0);
    }
    (void)header(&f, CCI_FUSE_GETATTR, 1, 16);
    cci_put_le32(drv_ptr(&f.vm, f.out), UINT32_MAX); /* the length is the chain's, whatever the header says */
    CHECK_EQ_INT(send_it(&f, 16, 120, 1000), 0);
    const struct drv_buf only_in[] = {{f.in, 100, true}};
    unsigned got;
    uint32_t len;
    (void)drv_add(&f.d, 1, only_in, 1, DRV_DIRECT);
    (void)drv_kick(&f.d, 1);
    CHECK(drv_wait(&f.d, 1, &got, &len));
    CHECK_EQ_INT(len, 0);
    CHECK(!(drv_get(&f.d, CCI_VIRTIO_REG_STATUS) & CCI_VIRTIO_NEEDS_RESET));
    drv_desc(&f.d, 1, 0, UINT64_MAX - 5, 100, 0, 0); /* this does fail the device */
    drv_offer(&f.d, 1, 0);
    (void)drv_kick(&f.d, 1);
    uint64_t deadline = cci_os_now() + 20000000000u; /* as drv_wait does: the device works on another thread */
    while (!drv_broken(&f.d) && cci_os_now() < deadline)
        (void)sched_yield();
    CHECK(drv_broken(&f.d));
    CHECK(drv_start(&f.d, DRV_ALL, 64)); /* and a reset mends it */
    f.vm.next = f.in + 65536;
    start_session(&f, &node, &handle);
    teardown(&f);
}

/* A full queue at once, over and over; each chain comes back once. */
static void test_flood(void)
{
    struct fixture f;
    uint64_t node, handle;
    setup(&f, true);
    start_session(&f, &node, &handle);
    (void)transfer(&f, CCI_FUSE_READ, node, handle, 0, 10);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 32; i++) {
            const struct drv_buf b[] = {{f.out, 80, false}, {f.in + i * 64, 26, true}};
            (void)drv_add(&f.d, 1, b, 2, DRV_DIRECT);
        }
        (void)drv_kick(&f.d, 1);
        for (unsigned i = 0; i < 32; i++) {
            unsigned got;
            uint32_t len;
            CHECK(drv_wait(&f.d, 1, &got, &len));
            CHECK_EQ_INT(len, 26);
        }
        for (unsigned i = 0; i < 32; i++)
            CHECK(memcmp(drv_ptr(&f.vm, f.in + i * 64 + 16), "01234", 5) == 0);
    }
    teardown(&f);
}

/* Resets, and stops, with requests under way: then guest RAM is not touched, and nothing is left open. */
static void test_reset_under_way(void)
{
    struct fixture f;
    uint64_t node, handle;
    for (unsigned round = 0; round < 20; round++) {
        setup(&f, true);
        start_session(&f, &node, &handle);
        (void)transfer(&f, CCI_FUSE_READ, node, handle, 0, 10);
        for (unsigned i = 0; i < 32; i++) {
            const struct drv_buf b[] = {{f.out, 80, false}, {f.in + i * 64, 26, true}};
            (void)drv_add(&f.d, 1, b, 2, DRV_DIRECT);
        }
        (void)drv_kick(&f.d, 1);
        if (round & 1) {
            drv_set(&f.d, CCI_VIRTIO_REG_STATUS, 0);
            memset(drv_ptr(&f.vm, f.in), 0x55, 65536);
            (void)usleep(1000); /* time for what would still be written */
            for (unsigned i = 0; i < 65536; i++)
                CHECK_EQ_INT(drv_ptr(&f.vm, f.in)[i], 0x55);
            CHECK(drv_start(&f.d, DRV_ALL, 64));
            f.vm.next = f.in + 65536;
            start_session(&f, &node, &handle);
        } else {
            cci_virtio_quiesce(&f.fs.dev);
            cci_virtio_resume(&f.fs.dev);
        }
        teardown(&f);
    }
}

static void test_save(void)
{
    struct fixture f;
    uint64_t node, handle;
    struct cci_buf state = {0};
    cc_error err = {0};
    for (unsigned mounted = 0; mounted < 2; mounted++) {
        setup(&f, true);
        if (mounted)
            start_session(&f, &node, &handle);
        cci_virtio_quiesce(&f.fs.dev);
        CHECK_EQ_INT(cci_virtio_save(&f.fs.dev, &state, NULL), CC_OK);
        struct cci_view in = {state.p, state.n};
        CHECK_EQ_INT(cci_virtio_restore(&f.fs.dev, &in, &err), mounted ? CC_ERR_IO : CC_OK);
        CHECK(!mounted || strstr(err.message, "\"tag\"") != NULL);
        cci_virtio_resume(&f.fs.dev);
        cci_error_release(&err);
        cci_buf_free(&state);
        teardown(&f);
    }
}

int main(void)
{
    RUN(test_session);
    RUN(test_session_on_threads);
    RUN(test_forget);
    RUN(test_nonsense);
    RUN(test_flood);
    RUN(test_reset_under_way);
    RUN(test_save);
    return check_done();
}
