/*
 * bench_roundtrip IMAGE.tar KERNEL PREFIX: round trips into a running guest, medians in microseconds.
 *
 * exec: cc_cmd_new, cc_cmd_run of /bin/true, cc_cmd_free. read: cc_fs_read_file of a file of one byte. In
 * `tools/rig --icount` the clock counts instructions, 1000 to a microsecond; else it is the emulated machine's own.
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <stdlib.h>
#include <time.h>

#define RUNS 41

static cc_error err;
static cc_instance vm;

static void must(cc_error_code code, const char *what)
{
    if (!code)
        return;
    fprintf(stderr, "bench_roundtrip: %s: %s\n", what, err.message ? err.message : "?");
    exit(1);
}

static void exec_true(void)
{
    cc_cmd cmd;
    int code = -1;
    must(cc_cmd_new(vm, "/bin/true", NULL, &cmd, &err), "command");
    must(cc_cmd_run(cmd, &code, &err), "run");
    if (code != 0)
        exit(1);
    cc_cmd_free(cmd);
}

static void read_one(void)
{
    uint8_t *p;
    size_t n;
    must(cc_fs_read_file(vm, "/tmp/one", &p, &n, &err), "read_file");
    if (n != 1 || *p != 'x')
        exit(1);
    cc_free_bytes(p);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void measure(const char *prefix, const char *name, void (*fn)(void))
{
    double took[RUNS];
    fn();
    for (int i = 0; i < RUNS; i++) {
        double start = now();
        fn();
        took[i] = now() - start;
    }
    qsort(took, RUNS, sizeof(*took), by_value);
    printf("bench %s_%s ours=%.1f unit=us\n", prefix, name, took[RUNS / 2]);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/bench-roundtrip-XXXXXX";
    cc_oci_client client;
    cc_instance_source image;
    cc_instance_options o = {0};
    if (argc != 4 || !mkdtemp(dir))
        return 2;
    o.kernel = argv[2];
    must(cc_init(), "init");
    must(cc_oci_client_new_with_cache(dir, &client, &err), "cache");
    must(cc_oci_client_load_tar(client, argv[1], NULL, &image, &err), argv[1]);
    must(cc_instance_new(image, &o, &vm, &err), "start");
    must(cc_fs_write_file(vm, "/tmp/one", (const uint8_t *)"x", 1, 0644, &err), "write_file");
    measure(argv[3], "exec", exec_true);
    measure(argv[3], "read", read_one);
    must(cc_instance_close(vm, &err), "close");
    cc_instance_source_free(image);
    cc_oci_client_free(client);
    cc_shutdown();
    return 0;
}
