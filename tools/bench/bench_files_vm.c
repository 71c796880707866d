/*
 * bench_files_vm IMAGE.tar KERNEL: files and trees of a running guest, medians of seven.
 *
 * read_1, write_1, stat: microseconds of one call. read_16m, write_16m, and the same of an open file: MB/s. read_dir:
 * 10,000 entries with their modes, sorted, in milliseconds. copy_in, copy_out: 500 files and 10 MB, in milliseconds.
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <stdlib.h>

#define RUNS 7
#define BIG ((size_t)16 << 20)

static cc_error err;
static cc_instance vm;
static uint8_t *bytes;
static char dir[] = "/tmp/bench-files-XXXXXX";
static char tree[80], back[80];

static void must(cc_error_code code)
{
    if (!code)
        return;
    fprintf(stderr, "bench_files_vm: %s: %s\n", err.op ? err.op : "?", err.message ? err.message : "?");
    exit(1);
}

static void read_1(void)
{
    uint8_t *p;
    size_t n;
    must(cc_fs_read_file(vm, "/one", &p, &n, &err));
    cc_free_bytes(p);
}
static void write_1(void)
{
    must(cc_fs_write_file(vm, "/one", (const uint8_t *)"x", 1, 0600, &err));
}
static void stat_1(void)
{
    cc_file_info info;
    must(cc_fs_stat(vm, "/one", &info, &err));
    cc_file_info_free(&info);
}
static void read_big(void)
{
    uint8_t *p;
    size_t n;
    must(cc_fs_read_file(vm, "/big", &p, &n, &err));
    cc_free_bytes(p);
}
static void write_big(void)
{
    must(cc_fs_write_file(vm, "/big", bytes, BIG, 0600, &err));
}
static void open_read(void)
{
    cc_file f;
    size_t n;
    must(cc_fs_open(vm, "/big", &f, &err));
    must(cc_file_read(f, bytes, BIG, &n, &err));
    must(cc_file_close(f, &err));
}
static void open_write(void)
{
    cc_file f;
    size_t n;
    must(cc_fs_create(vm, "/big", &f, &err));
    must(cc_file_write(f, bytes, BIG, &n, &err));
    must(cc_file_close(f, &err));
}
static void read_dir(void)
{
    cc_dir_entry *e;
    size_t n;
    must(cc_fs_read_dir(vm, "/many", &e, &n, &err));
    if (n != 10000)
        exit(1);
    cc_dir_entries_free(e, n);
}
static void copy_in(void)
{
    must(cc_fs_copy_in(vm, tree, "/tree", NULL, &err));
    must(cc_fs_remove_all(vm, "/copied", &err));
    must(cc_fs_rename(vm, "/tree", "/copied", &err));
}
static void copy_out(void)
{
    char command[120];
    (void)snprintf(command, sizeof(command), "rm -rf %s", back);
    if (system(command) != 0)
        exit(1);
    must(cc_fs_copy_out(vm, "/copied", back, NULL, &err));
}

static void sh(const char *script)
{
    const char *args[] = {"-c", script, NULL};
    cc_cmd cmd;
    int code;
    must(cc_cmd_new(vm, "sh", args, &cmd, &err));
    must(cc_cmd_run(cmd, &code, &err));
    cc_cmd_free(cmd);
    if (code)
        exit(1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* In microseconds, divided by `scale`; of a negative one that many bytes are worth a rate. */
static void measure(const char *name, const char *unit, double scale, int times, void (*fn)(void))
{
    double took[RUNS];
    fn();
    for (int i = 0; i < RUNS; i++) {
        uint64_t start = cci_os_now();
        for (int k = 0; k < times; k++)
            fn();
        took[i] = (double)(cci_os_now() - start) / 1e3 / times;
    }
    qsort(took, RUNS, sizeof(*took), by_value);
    double t = took[RUNS / 2];
    printf("bench rig_files_%s ours=%.1f unit=%s\n", name, scale < 0 ? -scale / t : t / scale, unit);
}

int main(int argc, char **argv)
{
    cc_oci_client client;
    cc_instance_source source;
    cc_instance_options o = {0};
    char command[300];
    if (argc != 3 || !mkdtemp(dir))
        return 2;
    bytes = calloc(1, BIG);
    (void)snprintf(tree, sizeof(tree), "%s/tree", dir);
    (void)snprintf(back, sizeof(back), "%s/back", dir);
    (void)snprintf(command, sizeof(command),
                   "mkdir %s && cd %s && for d in 1 2 3 4 5; do mkdir $d; i=0; while [ $i -lt 100 ]; do head -c 20000 "
                   "/dev/zero >$d/$i; i=$((i+1)); done; done",
                   tree, tree);
    if (!bytes || system(command) != 0)
        return 2;
    o.kernel = argv[2];
    must(cc_init());
    must(cc_oci_client_new_with_cache(dir, &client, &err));
    must(cc_oci_client_load_tar(client, argv[1], NULL, &source, &err));
    must(cc_instance_new(source, &o, &vm, &err));
    sh("mkdir /many && cd /many && i=0; while [ $i -lt 10000 ]; do : >f$i; i=$((i+1)); done");
    write_1();
    measure("read_1", "us", 1, 40, read_1);
    measure("write_1", "us", 1, 40, write_1);
    measure("stat", "us", 1, 40, stat_1);
    measure("write_16m", "MB/s", -(double)BIG, 1, write_big);
    measure("read_16m", "MB/s", -(double)BIG, 1, read_big);
    measure("open_write_16m", "MB/s", -(double)BIG, 1, open_write);
    measure("open_read_16m", "MB/s", -(double)BIG, 1, open_read);
    measure("read_dir_10000", "ms", 1000, 1, read_dir);
    measure("copy_in", "ms", 1000, 1, copy_in);
    measure("copy_out", "ms", 1000, 1, copy_out);
    must(cc_instance_close(vm, &err));
    cc_instance_source_free(source);
    cc_oci_client_free(client);
    cc_shutdown();
    free(bytes);
    return 0;
}
