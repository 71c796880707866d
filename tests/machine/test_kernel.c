/* Which kernel is taken, and the archive of its modules: bundles made on the spot. */
#define _GNU_SOURCE
#include <sys/stat.h>
#include <unistd.h>

#include "../check.h"

#include "../../src/machine/kernel_modules.h"

static char dir[100], path[300];
static struct cci_kernel k;
static cc_error err;

static const char *in(const char *name)
{
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(in(name), "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void begin(void)
{
    char command[400];
    (void)snprintf(command, sizeof(command), "rm -rf %s && mkdir -p %s/cache %s/bundle/modules/kernel", dir, dir, dir);
    CHECK_EQ_INT(system(command), 0);
    CHECK_EQ_INT(unsetenv("CC_KERNEL"), 0);
    cci_error_release(&err);
}

static cc_error_code open_it(const char *option)
{
    char option_path[300], cache[300];
    (void)snprintf(option_path, sizeof(option_path), "%s/%s", dir, option ? option : "");
    (void)snprintf(cache, sizeof(cache), "%s/cache", dir);
    cci_error_release(&err);
    return cci_kernel_open(&k, option ? option_path : NULL, cache, NULL, NULL, &err);
}

static bool ends(const char *s, const char *end)
{
    return strlen(s) >= strlen(end) && strcmp(s + strlen(s) - strlen(end), end) == 0;
}

static void test_option_first(void)
{
    begin();
    write_file("image", "x");
    write_file("other", "x");
    CHECK_EQ_INT(setenv("CC_KERNEL", in("other"), 1), 0);
    CHECK_OK(open_it("image"), err);
    CHECK(ends(k.path, "/image"));
    CHECK_EQ_STR(k.modules, "");
    cci_kernel_close(&k);
    CHECK_OK(open_it(NULL), err);
    CHECK(ends(k.path, "/other"));
    cci_kernel_close(&k);
    CHECK_EQ_INT(open_it("missing"), CC_ERR_IO); /* one that is named has to be there */
    CHECK_EQ_INT(err.sys_errno, 2);
    CHECK(strstr(err.message, "option"));
    CHECK_EQ_INT(setenv("CC_KERNEL", in("missing"), 1), 0);
    CHECK_EQ_INT(open_it(NULL), CC_ERR_IO);
    CHECK(strstr(err.message, "$CC_KERNEL") && ends(err.path, "/missing"));
}

static void test_bundle(void)
{
    begin();
    CHECK_EQ_INT(open_it("bundle"), CC_ERR_IO); /* nothing in it yet */
    CHECK(strstr(err.message, "vmlinux"));
    write_file("bundle/vmlinuz", "x");
    CHECK_OK(open_it("bundle"), err);
    CHECK(ends(k.path, "/bundle/vmlinuz") && ends(k.modules, "/bundle/modules"));
    cci_kernel_close(&k);
    write_file("bundle/vmlinux", "x");
    CHECK_OK(open_it("bundle"), err);
    CHECK(ends(k.path, "/bundle/vmlinux"));
    cci_kernel_close(&k);
}

static void test_cache_and_none(void)
{
    begin();
    CHECK_EQ_INT(mkdir(in("cache/kernel"), 0755), 0);
    write_file("cache/kernel/vmlinux", "x");
    CHECK_OK(open_it(NULL), err);
    CHECK(ends(k.path, "/cache/kernel/vmlinux"));
    CHECK_EQ_STR(k.modules, "");
    cci_kernel_close(&k);
    CHECK_EQ_INT(unlink(in("cache/kernel/vmlinux")), 0);
    cc_error_code code = open_it(NULL); /* this host's own, if it has one */
    if (code == CC_OK) {
        CHECK(strncmp(k.path, "/boot/vmlinuz-", 14) == 0);
        cci_kernel_close(&k);
    } else {
        CHECK_EQ_INT(code, CC_ERR_IO);
        CHECK(strstr(err.message, "CC_KERNEL"));
    }
}

static void test_versions(void)
{
    CHECK(cci_kernel_is_newer("6.1.10", "6.1.9"));
    CHECK(!cci_kernel_is_newer("6.1.9", "6.1.10"));
    CHECK(cci_kernel_is_newer("6.1.0-13-amd64", "6.1.0-9-amd64"));
    CHECK(!cci_kernel_is_newer("6.1", "6.1"));
    CHECK(cci_kernel_is_newer("6.10", "6.9-rc1"));
}

static const char dep[] = "kernel/virtio.ko:\nkernel/virtio_mmio.ko: kernel/virtio.ko\nkernel/overlay.ko.gz:\n"
                          "kernel/vmw_vsock_virtio_transport.ko.zst: kernel/virtio.ko\n"
                          "kernel/fuse.ko:\nkernel/virtiofs.ko: kernel/fuse.ko kernel/virtio.ko\n";

static cc_error_code fake_gunzip(struct cci_view in_view, size_t max, struct cci_buf *out, cc_error *e)
{
    if (in_view.n != 6 || memcmp(in_view.p, "packed", 6) != 0 || max < 8)
        return cci_fail(e, CC_ERR_IO, NULL, "not packed");
    return cci_buf_add(out, "unpacked", 8) ? CC_OK : cci_fail_nomem(e);
}

static void make_modules(void)
{
    begin();
    write_file("bundle/vmlinux", "x");
    write_file("bundle/modules/modules.dep", dep);
    write_file("bundle/modules/modules.builtin", "kernel/virtio_blk.ko\nkernel/ext4.ko\n");
    write_file("bundle/modules/kernel/virtio.ko", "one");
    write_file("bundle/modules/kernel/virtio_mmio.ko", "two");
    write_file("bundle/modules/kernel/overlay.ko.gz", "packed");
    write_file("bundle/modules/kernel/vmw_vsock_virtio_transport.ko.zst", "zst");
    write_file("bundle/modules/kernel/fuse.ko", "four");
    write_file("bundle/modules/kernel/virtiofs.ko", "five");
    CHECK_OK(open_it("bundle"), err);
}

static cc_error_code add_with(struct cci_initrd *r, bool shares)
{
    memset(r, 0, sizeof(*r));
    cc_error_code code = cci_kernel_add_modules(&k, shares, r, fake_gunzip, &err);
    cci_kernel_close(&k);
    return code;
}

static cc_error_code add(struct cci_initrd *r)
{
    return add_with(r, false);
}

static void test_modules(void)
{
    struct cci_initrd r;
    make_modules();
    CHECK_OK(add(&r), err);
    char *text = calloc(1, r.size + 1);
    CHECK_OK(cci_initrd_write(&r, (uint8_t *)text, &err), err);
    size_t size = r.size;
    cci_initrd_free(&r);
    CHECK(memmem(text, size, "001-virtio_mmio.ko\n002-vmw_vsock_virtio_transport.ko.zst\n003-overlay.ko\n", 73));
    CHECK(memmem(text, size, "000-virtio.ko\n", 14));
    CHECK(memmem(text, size, "unpacked", 8) && !memmem(text, size, "packedTR", 8));
    CHECK(memmem(text, size, "lib/modules/cc/order", 20));
    free(text);
}

/* What only shares need is not loaded without them. */
static void test_modules_of_shares(void)
{
    for (int shares = 0; shares < 2; shares++) {
        struct cci_initrd r;
        make_modules();
        CHECK_OK(add_with(&r, shares), err);
        char *text = calloc(1, r.size + 1);
        CHECK_OK(cci_initrd_write(&r, (uint8_t *)text, &err), err);
        CHECK_EQ_INT(memmem(text, r.size, "fuse.ko\n", 8) != NULL, shares);
        CHECK_EQ_INT(memmem(text, r.size, "virtiofs.ko\n", 12) != NULL, shares);
        free(text);
        cci_initrd_free(&r);
    }
}

static void test_cannot_decompress(void)
{
    struct cci_initrd r;
    make_modules();
    write_file("bundle/config", "CONFIG_X=y\n# CONFIG_MODULE_DECOMPRESS is not set\n");
    CHECK_EQ_INT(add(&r), CC_ERR_IO);
    CHECK(strstr(err.message, "CONFIG_MODULE_DECOMPRESS"));
    cci_initrd_free(&r);
    write_file("bundle/config", "CONFIG_MODULE_DECOMPRESS=y\n");
    CHECK_OK(open_it("bundle"), err);
    CHECK_OK(add(&r), err);
    cci_initrd_free(&r);
}

static void test_bad_modules(void)
{
    struct cci_initrd r;
    make_modules();
    CHECK_EQ_INT(unlink(in("bundle/modules/kernel/virtio.ko")), 0);
    CHECK_EQ_INT(add(&r), CC_ERR_IO);
    CHECK(ends(err.path, "kernel/virtio.ko"));
    cci_initrd_free(&r);
    make_modules();
    write_file("bundle/modules/kernel/overlay.ko.gz", "broken");
    CHECK_EQ_INT(add(&r), CC_ERR_IO);
    CHECK(strstr(err.message, "not packed"));
    cci_initrd_free(&r);
    make_modules();
    write_file("bundle/modules/modules.builtin", "");
    CHECK_EQ_INT(add(&r), CC_ERR_IO);
    CHECK(strstr(err.message, "virtio_blk"));
    cci_initrd_free(&r);
    make_modules();
    CHECK_EQ_INT(unlink(in("bundle/modules/modules.dep")), 0);
    CHECK_EQ_INT(add(&r), CC_ERR_IO);
    CHECK(strstr(err.message, "run depmod"));
    cci_initrd_free(&r);
    cci_error_release(&err);
}

/* A bundle of somebody who means ill. */
static void refuses(const char *what)
{
    struct cci_initrd r;
    cci_error_release(&err);
    CHECK_OK(open_it("bundle"), err);
    CHECK_EQ_INT(add(&r), CC_ERR_IO);
    if (!err.message || !strstr(err.message, what))
        printf("# %s\n", err.message ? err.message : "(none)");
    CHECK(err.message && strstr(err.message, what));
    cci_initrd_free(&r);
}

static void test_hostile_bundle(void)
{
    make_modules(); /* FIFOs, which an open would wait for */
    cci_kernel_close(&k);
    CHECK_EQ_INT(unlink(in("bundle/modules/kernel/virtio.ko")), 0);
    CHECK_EQ_INT(mkfifo(in("bundle/modules/kernel/virtio.ko"), 0600), 0);
    refuses("cannot read a module");
    CHECK_EQ_INT(unlink(in("bundle/modules/modules.dep")), 0);
    CHECK_EQ_INT(mkfifo(in("bundle/modules/modules.dep"), 0600), 0);
    refuses("cannot read a file");
    make_modules(); /* a file of the host's that is none of the bundle's */
    cci_kernel_close(&k);
    write_file("secret.ko", "secret");
    write_file("bundle/modules/modules.dep", "kernel/virtio_mmio.ko: ../../secret.ko\n../../secret.ko:\n"
                                             "kernel/overlay.ko.gz:\nkernel/vmw_vsock_virtio_transport.ko.zst:\n");
    refuses("makes no sense");
    write_file("bundle/modules/modules.dep", "kernel/virtio_mmio.ko: kernel/../../../secret.ko\n"
                                             "kernel/../../../secret.ko:\n"
                                             "kernel/overlay.ko.gz:\nkernel/vmw_vsock_virtio_transport.ko.zst:\n");
    refuses("makes no sense");
    /* Each module is within its limit, and there are many (none has a byte on the disk). */
    write_file("bundle/modules/modules.dep",
               "kernel/virtio_mmio.ko: kernel/1.ko kernel/2.ko kernel/3.ko kernel/4.ko kernel/5.ko\nkernel/1.ko:\n"
               "kernel/2.ko:\nkernel/3.ko:\nkernel/4.ko:\nkernel/5.ko:\n"
               "kernel/overlay.ko.gz:\nkernel/vmw_vsock_virtio_transport.ko.zst:\n");
    for (unsigned i = 1; i <= 5; i++) {
        char name[60];
        (void)snprintf(name, sizeof(name), "bundle/modules/kernel/%u.ko", i);
        write_file(name, "");
        CHECK_EQ_INT(truncate(in(name), 60 << 20), 0);
    }
    refuses("take more than 256 MiB");
    cci_error_release(&err);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/cc-kernel-XXXXXX", tmp && strlen(tmp) < 60 ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return 1;
    RUN(test_option_first);
    RUN(test_bundle);
    RUN(test_cache_and_none);
    RUN(test_versions);
    RUN(test_modules);
    RUN(test_modules_of_shares);
    RUN(test_cannot_decompress);
    RUN(test_bad_modules);
    RUN(test_hostile_bundle);
    cci_error_release(&err);
    char command[200];
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) == 0 ? check_done() : 1;
}
