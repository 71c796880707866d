/* Initrds: an archive given as it is, then files made here; unpacked by the cpio program and compared. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "../check.h"

#include "../../src/machine/cpio.h"

static char dir[64];

static int shell(const char *fmt, const char *arg)
{
    char command[512];
    (void)snprintf(command, sizeof(command), fmt, dir, arg);
    return system(command);
}

static char *slurp(const char *name)
{
    static char text[200000];
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
    if (f)
        (void)fclose(f);
    text[n] = '\0';
    return text;
}

static cci_fd file_of(const char *text)
{
    cci_fd fd = memfd_create("test", MFD_CLOEXEC);
    (void)cci_os_write_all(fd, text, strlen(text));
    return fd;
}

static void test_unpacks(void)
{
    static const uint8_t archive[5] = {1, 2, 3, 4, 5};
    struct cci_initrd r = {0};
    cc_error err = {0};
    char long_text[100001];
    memset(long_text, 'q', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    CHECK(cci_initrd_add(&r, archive, sizeof(archive)));
    CHECK(cci_cpio_dir(&r, "lib"));
    CHECK(cci_cpio_dir(&r, "lib/deep"));
    CHECK(cci_cpio_bytes(&r, "lib/deep/a", "hello", 5));
    CHECK(cci_cpio_bytes(&r, "lib/deep/empty", "", 0));
    CHECK(cci_cpio_file(&r, "lib/deep/file", file_of(long_text), strlen(long_text)));
    CHECK(cci_cpio_file(&r, "lib/deep/odd", file_of("abc"), 3));
    CHECK(cci_cpio_end(&r));
    uint8_t *out = malloc(r.size);
    CHECK_EQ_INT(cci_initrd_write(&r, out, &err), CC_OK);
    CHECK(memcmp(out, archive, 5) == 0);
    CHECK(memcmp(out + 5,
                 "\0\0\0"
                 "070701",
                 9) == 0); /* the next archive at a multiple of four */

    char path[100];
    (void)snprintf(path, sizeof(path), "%s/x.cpio", dir);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(out + 8, 1, r.size - 8, f) == r.size - 8);
    CHECK(fclose(f) == 0);
    free(out);
    cci_initrd_free(&r);
    CHECK_EQ_INT(shell("cd %s && cpio -i --quiet --no-absolute-filenames < x.cpio%s", ""), 0);
    CHECK_EQ_STR(slurp("lib/deep/a"), "hello");
    CHECK_EQ_STR(slurp("lib/deep/odd"), "abc");
    CHECK_EQ_STR(slurp("lib/deep/empty"), "");
    CHECK_EQ_STR(slurp("lib/deep/file"), long_text);
    CHECK_EQ_INT(shell("test \"$(find %s/lib -type f -links 1 | wc -l)\" = %s", "4"), 0);
}

/* A file that became shorter after it was listed is an error, not a wrong initrd. */
static void test_shrunk(void)
{
    struct cci_initrd r = {0};
    cc_error err = {0};
    uint8_t out[1000];
    cci_fd fd = file_of("12345678");
    CHECK(cci_cpio_file(&r, "f", fd, 8));
    CHECK(r.size < sizeof(out));
    CHECK_EQ_INT(cci_os_truncate(fd, 4), 0);
    CHECK_EQ_INT(cci_initrd_write(&r, out, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "shorter"));
    cci_error_release(&err);
    cci_initrd_free(&r);
}

static unsigned fail_at;

static void *failing(void *ctx, void *old, size_t size)
{
    if (size && fail_at && --fail_at == 0)
        return NULL;
    return cci_mem_default_alloc(ctx, old, size);
}

static void test_no_memory(void)
{
    cci_mem_hook.realloc_fn = failing;
    unsigned n = 0;
    for (bool done = false; !done; n++) {
        struct cci_initrd r = {0};
        fail_at = n + 1;
        done = cci_initrd_add(&r, "abc", 3) && cci_cpio_dir(&r, "d") && cci_cpio_bytes(&r, "d/a", "x", 1) &&
               cci_cpio_file(&r, "d/b", file_of("y"), 1) && cci_cpio_end(&r);
        cci_initrd_free(&r);
    }
    fail_at = 0;
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(n > 4);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/cc-cpio-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return 1;
    RUN(test_unpacks);
    RUN(test_shrunk);
    RUN(test_no_memory);
    (void)shell("rm -rf %s%s", "");
    return check_done();
}
