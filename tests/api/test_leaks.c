/*
 * What instances leave behind: two at once, twenty one after another, and ones that cannot start. Nothing may remain:
 * no descriptor, no thread, no memory, no file.
 * @vm
 * @timeout 200
 * @kernel own
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

#include "../check.h"

static cc_error err;
static cc_oci_client client;
static cc_instance_source source;

/* ---- Counting ---- */

static int count_in(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        (void)closedir(d);
    return n;
}

static size_t live; /* blocks that were allocated and not freed; atomic */

static void *counting(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (!size) {
        if (old)
            __atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
        free(old);
        return NULL;
    }
    void *p = realloc(old, size);
    if (p && !old)
        __atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
    return p;
}

struct count {
    int fds, threads, maps;
    size_t blocks;
};

static int count_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    int n = 0;
    while (f && fgets(line, sizeof(line), f))
        n++;
    if (f)
        (void)fclose(f);
    return n;
}

static struct count count_all(void)
{
    struct count c = {count_in("/proc/self/fd"), count_in("/proc/self/task"), count_maps(), 0};
    c.blocks = __atomic_load_n(&live, __ATOMIC_RELAXED);
    return c;
}

static void same_as(const struct count *before)
{
    struct count now = count_all();
    /* The kernel lists a thread for a moment longer than it takes to join it. */
    for (int i = 0; i < 20000 && now.threads > before->threads; i++) {
        (void)usleep(1000);
        now = count_all();
    }
    CHECK_EQ_INT(now.fds, before->fds);
    CHECK_EQ_INT(now.threads, before->threads);
    CHECK_EQ_INT(now.blocks, before->blocks);
    CHECK(now.maps <= before->maps + 4); /* libc keeps stacks of ended threads */
}

/* ---- Using instances ---- */

static cc_instance start(const cc_instance_options *o)
{
    cc_instance vm = 0;
    CHECK_OK(cc_instance_new(source, o, &vm, &err), err);
    return vm;
}

static void echo(cc_instance vm, const char *word)
{
    const char *args[] = {word, NULL};
    uint8_t *out;
    size_t len;
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "echo", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_output(cmd, &out, &len, NULL, &err), err);
    CHECK(len == strlen(word) + 1 && strncmp((char *)out, word, len - 1) == 0);
    cc_free_bytes(out);
}

static void test_first(void)
{
    CHECK_OK(cc_supports_hypervisor(&err), err);
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    cc_instance vm = start(NULL); /* whatever is made once is made now */
    echo(vm, "first");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_two_at_once(void)
{
    struct count before = count_all();
    uint8_t *data;
    size_t len;
    cc_instance a = start(NULL), b = start(NULL);
    CHECK_OK(cc_fs_write_file(a, "/who", (const uint8_t *)"a", 1, 0600, &err), err);
    CHECK_OK(cc_fs_write_file(b, "/who", (const uint8_t *)"b", 1, 0600, &err), err);
    CHECK_OK(cc_fs_read_file(a, "/who", &data, &len, &err), err);
    CHECK(len == 1 && data[0] == 'a');
    cc_free_bytes(data);
    echo(a, "one");
    echo(b, "two");
    CHECK_OK(cc_instance_close(a, &err), err);
    echo(b, "three");
    CHECK_OK(cc_instance_close(b, &err), err);
    same_as(&before);
}

static void *start_and_stop(void *arg)
{
    cc_instance vm = 0;
    if (cc_instance_new(source, NULL, &vm, NULL) != CC_OK || cc_instance_close(vm, NULL) != CC_OK)
        return NULL;
    return arg;
}

static void test_started_by_two_threads(void)
{
    struct count before = count_all();
    pthread_t t[2];
    int here = 0;
    void *ok;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&t[i], NULL, start_and_stop, &here) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(t[i], &ok) == 0 && ok);
    same_as(&before);
}

static void test_twenty_in_a_row(void)
{
    struct count before = count_all();
    for (int i = 0; i < 20; i++) {
        cc_instance vm = start(NULL);
        echo(vm, "again");
        CHECK_OK(cc_instance_close(vm, &err), err);
    }
    same_as(&before);
}

static void test_time_out_ends_it(void)
{
    struct count before = count_all();
    const char *args[] = {"1000", NULL};
    cc_instance_options o = {0};
    o.timeout_seconds = 0.5;
    cc_instance vm = start(&o);
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "sleep", args, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, &err), CC_ERR_NOT_RUNNING);
    CHECK(strstr(err.message, "time-out of 0.5 seconds"));
    cc_error_free(&err);
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK(!cc_instance_is_running(vm));
    CHECK_EQ_INT(cc_fs_stat(vm, "/", &(cc_file_info){0}, &err), CC_ERR_NOT_RUNNING);
    cc_error_free(&err);
    CHECK_OK(cc_instance_close(vm, &err), err);
    same_as(&before);
}

static void test_guest_that_dies_says_why(void)
{
    struct count before = count_all();
    const char *args[] = {"-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000", NULL};
    cc_instance vm = start(NULL);
    cc_cmd cmd;
    CHECK_OK(cc_cmd_new(vm, "sh", args, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, &err), CC_ERR_NOT_RUNNING);
    CHECK(strstr(err.message, "sysrq triggered crash"));
    cc_error_free(&err);
    CHECK_OK(cc_instance_wait(vm, &err), err);
    CHECK_OK(cc_instance_close(vm, &err), err);
    same_as(&before);
}

/* ---- Starts that fail ---- */

static void test_missing_kernel(void)
{
    struct count before = count_all();
    cc_instance_options o = {0};
    cc_instance vm;
    o.kernel = "/no/such/kernel";
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_IO);
    CHECK(vm == 0 && err.sys_errno == 2 && strcmp(err.path, "/no/such/kernel") == 0);
    cc_error_free(&err);
    o.kernel = "tests/check.h";
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "kernel"));
    cc_error_free(&err);
    same_as(&before);
}

/* A kernel of a few bytes: says something on the serial port and then goes on with `end`. ELF with a PVH note: entered
 * in 32-bit protected mode at 1 MiB. */
static void write_kernel(const char *path, const char *says, const uint8_t *end, size_t end_n)
{
    static const uint8_t speak[] = {
        0xbe, 0x00, 0x01, 0x10, 0x00, /* mov esi, 0x100100: the text */
        0x66, 0xba, 0xf8, 0x03,       /* mov dx, 0x3f8 */
        0xac, 0x84, 0xc0, 0x74, 0x03, /* next: lodsb; test al, al; jz end */
        0xee, 0xeb, 0xf8              /* out dx, al; jmp next */
    };
    uint8_t image[0x1200] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    uint8_t *load = image + 64, *note = load + 56, *code = image + 0x1000;
    cci_put_le16(image + 16, 2);  /* executable */
    cci_put_le16(image + 18, 62); /* x86-64 */
    cci_put_le32(image + 20, 1);
    cci_put_le64(image + 24, 0x100000);
    cci_put_le64(image + 32, 64); /* program headers: where, their size, two */
    cci_put_le16(image + 52, 64);
    cci_put_le16(image + 54, 56);
    cci_put_le16(image + 56, 2);
    cci_put_le32(load, 1);
    cci_put_le32(load + 4, 5);
    cci_put_le64(load + 8, 0x1000);
    cci_put_le64(load + 16, 0x100000);
    cci_put_le64(load + 24, 0x100000);
    cci_put_le64(load + 32, 0x200);
    cci_put_le64(load + 40, 0x200);
    cci_put_le32(note, 4);
    cci_put_le64(note + 8, 0x200);
    cci_put_le64(note + 32, 20);
    cci_put_le64(note + 40, 20);
    cci_put_le32(image + 0x200, 4); /* "Xen", type 18, the entry point */
    cci_put_le32(image + 0x204, 4);
    cci_put_le32(image + 0x208, 18);
    memcpy(image + 0x20c, "Xen", 4);
    cci_put_le32(image + 0x210, 0x100000);
    memcpy(code, speak, sizeof(speak));
    memcpy(code + sizeof(speak), end, end_n);
    memcpy(code + 0x100, says, strlen(says));
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(image, sizeof(image), 1, f) == 1 && fclose(f) == 0);
}

static void test_kernel_that_dies(void)
{
    /* lidt of an empty table at 0x1001f0, then int3: a triple fault */
    static const uint8_t crash[] = {0x0f, 0x01, 0x1d, 0xf0, 0x01, 0x10, 0x00, 0xcc};
    struct count before = count_all();
    cc_instance_options o = {0};
    cc_instance vm;
    o.kernel = "/tmp/dies";
    write_kernel(o.kernel, "hello\nKernel panic - not syncing: for a test\n", crash, sizeof(crash));
    uint64_t start_time = cci_os_now();
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_NOT_RUNNING);
    CHECK(strstr(err.message, "triple fault") && strstr(err.message, "Kernel panic - not syncing: for a test"));
    CHECK(cci_os_now() - start_time < 20000000000u);
    cc_error_free(&err);
    same_as(&before);
}

static void test_kernel_that_hangs(void)
{
    static const uint8_t hang[] = {0xfa, 0xf4, 0xeb, 0xfd}; /* cli; hlt; jmp back */
    struct count before = count_all();
    cc_instance_options o = {0};
    cc_instance vm;
    o.kernel = "/tmp/hangs";
    o.boot_timeout_seconds = 0.5;
    write_kernel(o.kernel, "still here\n", hang, sizeof(hang));
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_TIMEOUT);
    CHECK(strstr(err.message, "did not start in time") && strstr(err.message, "still here"));
    cc_error_free(&err);
    same_as(&before);
}

static void test_little_memory(void)
{
    cc_instance_options o = {0};
    o.memory_mb = 64;
    cc_instance vm = start(&o);
    echo(vm, "small");
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_bad_options(void)
{
    cc_instance_options o = {0};
    cc_instance vm;
    o.memory_mb = 1;
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, NULL), CC_ERR_INVALID_ARGUMENT);
    o.memory_mb = 0;
    o.cpus = -1;
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, NULL), CC_ERR_INVALID_ARGUMENT);
    o.cpus = 100000;
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, NULL), CC_ERR_INVALID_ARGUMENT);
    o.cpus = 0;
    o.enable_gpu = true;
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, NULL), CC_ERR_INVALID_ARGUMENT);
    o.enable_gpu = false;
    o.disk_dir = "/no/such/directory";
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_IO);
    CHECK_EQ_STR(err.path, "/no/such/directory");
    cc_error_free(&err);
}

static void *cancel_at_once(void *token)
{
    (void)cc_cancel_token_cancel(*(cc_cancel_token *)token, NULL);
    return NULL;
}

static void test_cancelled_start(void)
{
    cc_cancel_token token;
    cc_instance_options o = {0};
    pthread_t t;
    cc_instance vm;
    struct count before = count_all();
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    o.cancel = token;
    CHECK(pthread_create(&t, NULL, cancel_at_once, &token) == 0);
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_CANCELLED);
    CHECK(pthread_join(t, NULL) == 0);
    cc_error_free(&err);
    cc_cancel_token_free(token);
    same_as(&before);
}

static void test_nothing_is_left(void)
{
    cc_instance_source_free(source);
    cc_oci_client_free(client);
    cc_shutdown();
    CHECK_EQ_INT(live, 0);
}

int main(void)
{
    const cc_allocator a = {counting, NULL};
    (void)mallopt(M_ARENA_MAX, 1); /* an arena for each thread would look like a leak */
    (void)cc_set_allocator(&a, NULL);
    (void)cc_init();
    RUN(test_first);
    if (check_failures)
        return check_done();
    RUN(test_two_at_once);
    RUN(test_started_by_two_threads);
    RUN(test_twenty_in_a_row);
    RUN(test_time_out_ends_it);
    RUN(test_guest_that_dies_says_why);
    RUN(test_missing_kernel);
    RUN(test_kernel_that_dies);
    RUN(test_kernel_that_hangs);
    RUN(test_little_memory);
    RUN(test_bad_options);
    RUN(test_cancelled_start);
    RUN(test_nothing_is_left);
    return check_done();
}
