/*
 * Disks of the caller's: reading, writing, flushing, discarding, read-only, names and order, locks, what is refused.
 * @vm
 * @timeout 100
 * @kernel own
 * @kernel stock
 * @sanitize address,undefined
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest_sh.h"

static cc_instance_source source;
static cc_instance vm;
static cc_error err;
static char dir[] = "/dev/shm/cc-disks-XXXXXX";
static char path[3][64];

static void make(int i, off_t size, char fill)
{
    (void)snprintf(path[i], sizeof(path[i]), "%s/disk%d", dir, i);
    int fd = open(path[i], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    char page[4096];
    memset(page, fill, sizeof(page));
    for (off_t at = 0; fill && at < size; at += (off_t)sizeof(page))
        CHECK(pwrite(fd, page, (size_t)CCI_MIN((off_t)sizeof(page), size - at), at) > 0);
    CHECK(fd >= 0 && ftruncate(fd, size) == 0);
    close(fd);
}

static cc_error_code start(const cc_disk_config *disks, size_t n, cc_instance *out)
{
    cc_instance_options o = {0};
    o.disks = disks;
    o.disk_count = n;
    return cc_instance_new(source, &o, out, &err);
}

static void refused(const cc_disk_config *disks, size_t n, cc_error_code want, int sys_errno)
{
    cc_instance other = 1;
    CHECK_EQ_INT(start(disks, n, &other), want);
    CHECK_EQ_INT(err.sys_errno, sys_errno);
    CHECK(other == 0 && err.message);
    cc_error_free(&err);
}

static void test_setup(void)
{
    cc_oci_client client;
    CHECK(mkdtemp(dir));
    make(0, 8 << 20, 'a');
    make(1, 1536, 'b'); /* three sectors */
    make(2, 4 << 20, 0);
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    const cc_disk_config disks[] = {{path[0], true, "data of mine"}, {path[1], false, NULL}};
    CHECK_OK(start(disks, 2, &vm), err);
}

static void test_in_order_and_by_name(void)
{
    CHECK_EQ_STR(guest_sh(vm, "cd /sys/block; for d in vdc vdd; do cat $d/serial; echo; cat $d/size $d/ro; done", NULL),
                 "data of mine\n16384\n0\ndisk1\n3\n1\n");
    CHECK_EQ_STR(guest_sh(vm, "head -c 3 /dev/vdc; head -c 2 /dev/vdd; wc -c </dev/vdd", NULL), "aaabb1536\n");
}

static void test_writes_reach_the_file(void)
{
    char buf[8] = "";
    struct stat st;
    CHECK_EQ_STR(guest_sh(vm,
                          "printf hello | dd of=/dev/vdc bs=1 seek=5000 conv=notrunc 2>/dev/null; sync; "
                          "echo x 2>/dev/null >/dev/vdd || echo read-only",
                          NULL),
                 "read-only\n");
    int fd = open(path[0], O_RDONLY | O_CLOEXEC);
    CHECK(pread(fd, buf, 7, 4999) == 7 && memcmp(buf, "ahelloa", 7) == 0);
    CHECK(fstat(fd, &st) == 0);
    blkcnt_t before = st.st_blocks;
    int code = -1;
    (void)guest_sh(vm, "blkdiscard -o 4194304 -l 2097152 /dev/vdc", &code);
    CHECK_EQ_INT(code, 0);
    CHECK(fstat(fd, &st) == 0 && before - st.st_blocks >= 2 * 2048 && st.st_size == 8 << 20);
    CHECK(pread(fd, buf, 1, 4194304) == 1 && buf[0] == 0 && pread(fd, buf, 1, 4194303) == 1 && buf[0] == 'a');
    close(fd);
}

static void test_a_filesystem_on_one(void)
{
    CHECK_EQ_STR(guest_sh(vm,
                          "mke2fs /dev/vdc >/dev/null 2>&1 && mkdir -p /mnt/d && mount -t ext4 /dev/vdc /mnt/d && "
                          "echo kept >/mnt/d/f && umount /mnt/d && echo fine",
                          NULL),
                 "fine\n");
}

static void test_locks(void)
{
    cc_instance other;
    const cc_disk_config write0 = {path[0], true, NULL}, read0 = {path[0], false, NULL}, write1 = {path[1], true, NULL},
                         read1 = {path[1], false, NULL}, twice[] = {{path[2], true, NULL}, {path[2], true, NULL}};
    refused(&write0, 1, CC_ERR_IO, EBUSY);
    refused(&read0, 1, CC_ERR_IO, EBUSY);
    refused(&write1, 1, CC_ERR_IO, EBUSY);
    refused(twice, 2, CC_ERR_IO, EBUSY);
    CHECK_OK(start(&read1, 1, &other), err); /* two may read */
    CHECK_OK(cc_instance_close(other, &err), err);
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK_OK(start(&write0, 1, &vm), err); /* free again; and what was written is there */
    CHECK_EQ_STR(guest_sh(vm, "mkdir -p /mnt/d && mount -t ext4 /dev/vdc /mnt/d && cat /mnt/d/f", NULL), "kept\n");
    CHECK_OK(cc_instance_request_stop(vm, 1, &err), err);
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

/* Locks as QEMU takes them keep us away, and ours QEMU. */
static void test_locks_of_qemu(void)
{
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    const cc_disk_config read0 = {path[0], false, NULL};
    int fd = open(path[0], O_RDWR | O_CLOEXEC);
    CHECK(fcntl(fd, F_OFD_SETLK, &l) == 0); /* "I write" */
    refused(&read0, 1, CC_ERR_IO, EBUSY);
    close(fd);
}

static void test_what_is_no_disk(void)
{
    char fifo[80], odd[80];
    cc_disk_config many[CC_MAX_DISKS + 1] = {{path[2], false, NULL}};
    const cc_disk_config missing = {"/no/such", true, NULL}, folder = {dir, false, NULL}, none = {NULL, false, NULL},
                         pipe_disk = {fifo, false, NULL}, odd_disk = {odd, true, NULL},
                         long_name = {path[2], true, "a name of 21 bytes..."};
    (void)snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    (void)snprintf(odd, sizeof(odd), "%s/odd", dir);
    CHECK(mkfifo(fifo, 0600) == 0);
    refused(&missing, 1, CC_ERR_IO, ENOENT);
    refused(&folder, 1, CC_ERR_INVALID_ARGUMENT, 0);
    refused(&none, 1, CC_ERR_INVALID_ARGUMENT, 0);
    refused(&pipe_disk, 1, CC_ERR_INVALID_ARGUMENT, 0);
    refused(&long_name, 1, CC_ERR_INVALID_ARGUMENT, 0);
    refused(NULL, 1, CC_ERR_INVALID_ARGUMENT, 0);
    for (int i = 0; i <= CC_MAX_DISKS; i++)
        many[i] = many[0];
    refused(many, CC_MAX_DISKS + 1, CC_ERR_INVALID_ARGUMENT, 0);
    int fd = open(odd, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    refused(&odd_disk, 1, CC_ERR_INVALID_ARGUMENT, 0); /* empty */
    CHECK(ftruncate(fd, 1000) == 0);
    refused(&odd_disk, 1, CC_ERR_INVALID_ARGUMENT, 0);
    close(fd);
}

static void test_as_many_as_fit(void)
{
    cc_disk_config many[CC_MAX_DISKS];
    for (int i = 0; i < CC_MAX_DISKS; i++)
        many[i] = (cc_disk_config){path[2], false, NULL};
    CHECK_OK(start(many, CC_MAX_DISKS, &vm), err);
    CHECK_EQ_STR(guest_sh(vm, "ls -d /dev/vd? | wc -l; cat /sys/block/vdp/serial", NULL), "16\ndisk13");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

int main(void)
{
    char command[100];
    (void)cc_init();
    RUN(test_setup);
    if (check_failures)
        return check_done();
    RUN(test_in_order_and_by_name);
    RUN(test_writes_reach_the_file);
    RUN(test_a_filesystem_on_one);
    RUN(test_locks);
    RUN(test_locks_of_qemu);
    RUN(test_what_is_no_disk);
    RUN(test_as_many_as_fit);
    cc_shutdown();
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    return check_done();
}
