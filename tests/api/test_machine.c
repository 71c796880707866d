/*
 * What a guest is given: CPUs, memory beyond 4 GiB, and memory that goes back to the host when the guest frees it.
 * @vm
 * @one-cpu
 * @timeout 150
 * @kernel own
 * @kernel stock
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <unistd.h>

#include "guest_sh.h"

static cc_error err;
static cc_oci_client client;
static cc_instance_source source;
static cc_instance vm;

static const char *sh(const char *script)
{
    return guest_sh(vm, script, NULL);
}

/* This process's resident memory in KiB. */
static long resident(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size = 0, pages = 0;
    CHECK(f && fscanf(f, "%ld %ld", &size, &pages) == 2);
    (void)fclose(f);
    return pages * 4;
}

static int lines;

static void count_line(cc_log_level level, const char *line, void *user_data)
{
    (void)user_data;
    if (level == CC_LOG_DMESG && strstr(line, "Linux version"))
        lines++;
}

static void start(uint64_t memory_mb, int cpus, bool dmesg)
{
    cc_instance_options o = {0};
    o.memory_mb = memory_mb;
    o.cpus = cpus;
    o.enable_dmesg = dmesg;
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
}

static void test_load(void)
{
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
}

static void test_four_cpus(void)
{
    start(256, 4, false);
    CHECK_EQ_STR(sh("nproc"), "4\n");
    CHECK_EQ_STR(sh("grep -c ^processor /proc/cpuinfo"), "4\n");
    CHECK_EQ_STR(sh("for c in 0 1 2 3; do taskset -c $c sh -c 'echo on' || echo no; done"), "on\non\non\non\n");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_memory_above_4_gib(void)
{
    start(5120, 1, false);
    long kib = atol(sh("awk '/MemTotal/ {print $2}' /proc/meminfo"));
    CHECK(kib > 4800l * 1024 && kib < 5120l * 1024);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_freed_memory_goes_back(void)
{
    start(512, 1, false);
    long before = resident();
    (void)sh("dd if=/dev/zero of=/dev/shm/fill bs=1M count=200 2>/dev/null; sync");
    long full = resident();
    CHECK(full - before > 150 * 1024);
    (void)sh("rm /dev/shm/fill");
    /* The guest reports free pages some seconds after they became free; there is no event for it on this side. */
    for (int i = 0; i < 300 && resident() > before + 60 * 1024; i++)
        usleep(100000);
    CHECK(resident() <= before + 60 * 1024);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_kernel_messages_reach_the_callback(void)
{
    cc_set_log_callback(count_line, NULL);
    start(128, 1, true);
    CHECK_OK(cc_instance_close(vm, &err), err);
    cc_set_log_callback(NULL, NULL);
    CHECK_EQ_INT(lines, 1);
}

static void test_disk_size(void)
{
    cc_instance_options o = {0};
    o.disk_mb = 64;
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
    CHECK_EQ_STR(sh("dd if=/dev/zero of=/big bs=1M count=100 2>&1 | grep -o 'No space left on device'"),
                 "No space left on device\n");
    CHECK_EQ_STR(sh("rm /big && dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null && wc -c </big"), "41943040\n");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

int main(void)
{
    (void)cc_init();
    RUN(test_load);
    if (check_failures)
        return check_done();
    RUN(test_four_cpus);
    RUN(test_memory_above_4_gib);
    RUN(test_freed_memory_goes_back);
    RUN(test_kernel_messages_reach_the_callback);
    RUN(test_disk_size);
    cc_shutdown();
    return check_done();
}
