/*
 * machine/kernel_modules.h - the modules that go with a guest's kernel (kernel.h), into its initrd.
 *
 * Which ones, and in which order, modules.h makes of the kernel's modules.dep. They go into a cpio behind the agent's
 * initramfs: /lib/modules/cc/NNN-name.ko, and /lib/modules/cc/order with the names in the order of loading. A .ko.gz is
 * unpacked here; .ko.xz and .ko.zst are left to the kernel, which has to be able to (CONFIG_MODULE_DECOMPRESS).
 */
#ifndef CCI_MACHINE_KERNEL_MODULES_H
#define CCI_MACHINE_KERNEL_MODULES_H

#include "cpio.h"
#include "kernel.h"
#include "modules.h"

#define CCI_KERNEL_MAX_DEP ((size_t)8 << 20)     /* of modules.dep */
#define CCI_KERNEL_MAX_TEXT ((size_t)1 << 20)    /* of the other text files beside a kernel */
#define CCI_KERNEL_MAX_MODULE ((size_t)64 << 20) /* of one module, unpacked */
#define CCI_KERNEL_MAX_ALL ((uint64_t)256 << 20) /* of all modules that a guest gets */

/* Unpacks gzip; a function of the image room, which this room does not know. Appends at most max bytes to out. */
typedef cc_error_code (*cci_kernel_gunzip_fn)(struct cci_view in, size_t max, struct cci_buf *out, cc_error *err);

/* Reads a file of at most `max` bytes into an empty buffer. */
static cc_error_code cci_kernel_read(const char *path, size_t max, struct cci_buf *out, cc_error *err)
{
    uint64_t size;
    cci_fd fd = cci_kernel_open_file(path, &size);
    int r = fd < 0 ? fd : 0;
    cc_error_code code = CC_OK;
    if (r == 0 && size > max) {
        code = cci_fail(err, CC_ERR_IO, path, "the file is larger than makes sense (%zu MiB)", max >> 20);
    } else if (r == 0) {
        uint8_t *p = cci_buf_reserve(out, (size_t)size + 1);
        int64_t got = p ? cci_os_pread_all(fd, p, (size_t)size, 0) : 0;
        if (!p)
            code = cci_fail_nomem(err);
        else if (got < 0)
            r = (int)got;
        else
            out->n += (size_t)got;
    }
    if (r < 0)
        code = cci_fail_errno(err, CC_ERR_IO, -r, path, "cannot read a file of the guest's kernel: %s",
                              cci_errno_text(-r));
    cci_os_close(fd);
    return code;
}

static bool cci_kernel_ends_with(struct cci_modules_text t, const char *end)
{
    size_t n = strlen(end);
    return t.n >= n && memcmp(t.p + t.n - n, end, n) == 0;
}

/* If the kernel's configuration is there to be asked: can it unpack modules itself? */
static cc_error_code cci_kernel_check_decompress(const struct cci_kernel *k, const char *path, cc_error *err)
{
    struct cci_buf config = {NULL, 0, 0, false};
    bool can = true;
    if (k->config[0] && cci_kernel_read(k->config, CCI_KERNEL_MAX_TEXT, &config, NULL) == CC_OK &&
        cci_buf_add(&config, "", 1))
        can = strstr((const char *)config.p, "CONFIG_MODULE_DECOMPRESS=y") != NULL;
    cci_buf_free(&config);
    if (can)
        return CC_OK;
    return cci_fail(err, CC_ERR_IO, path,
                    "the kernel's modules are compressed, and it cannot unpack them (CONFIG_MODULE_DECOMPRESS is "
                    "off): unpack the bundle's modules, or use another kernel");
}

/* A compressed module that the host unpacks. */
static cc_error_code cci_kernel_add_gz(struct cci_initrd *initrd, const char *name, const char *path,
                                       cci_kernel_gunzip_fn gunzip, cc_error *err)
{
    struct cci_buf packed = {NULL, 0, 0, false}, plain = {NULL, 0, 0, false};
    cc_error_code code = cci_kernel_read(path, CCI_KERNEL_MAX_MODULE, &packed, err);
    if (code == CC_OK)
        code = gunzip((struct cci_view){packed.p, packed.n}, CCI_KERNEL_MAX_MODULE, &plain, err);
    if (code == CC_OK && !cci_cpio_bytes(initrd, name, plain.p, plain.n))
        code = cci_fail_nomem(err);
    cci_buf_free(&packed);
    cci_buf_free(&plain);
    return code;
}

static cc_error_code cci_kernel_add_file(struct cci_initrd *initrd, const char *name, const char *path, cc_error *err)
{
    uint64_t size;
    cci_fd fd = cci_kernel_open_file(path, &size);
    int r = fd < 0 ? fd : size > CCI_KERNEL_MAX_MODULE ? -EFBIG : 0;
    if (r < 0) {
        cci_os_close(fd);
        return cci_fail_errno(err, CC_ERR_IO, -r, path, "cannot read a module of the guest's kernel: %s",
                              cci_errno_text(-r));
    }
    return cci_cpio_file(initrd, name, fd, (size_t)size) ? CC_OK : cci_fail_nomem(err);
}

/* Whether a path of modules.dep is one within the directory that the file is in. */
static bool cci_kernel_is_inside(struct cci_modules_text file)
{
    for (size_t i = 0; i + 1 < file.n; i++)
        if (file.p[i] == '.' && file.p[i + 1] == '.' && (i == 0 || file.p[i - 1] == '/'))
            return false;
    return file.n < CCI_KERNEL_MAX_PATH && file.p[0] != '/';
}

/* Adds the module of one line of modules.dep as number n, and its name to `order`. */
static cc_error_code cci_kernel_add_module(const struct cci_kernel *k, struct cci_modules_text file, size_t n,
                                           struct cci_initrd *initrd, struct cci_buf *order,
                                           cci_kernel_gunzip_fn gunzip, cc_error *err)
{
    char path[2 * CCI_KERNEL_MAX_PATH], name[256];
    bool gz = cci_kernel_ends_with(file, ".gz");
    const char *end = cci_kernel_ends_with(file, ".xz") ? ".xz" : cci_kernel_ends_with(file, ".zst") ? ".zst" : "";
    struct cci_modules_text base = cci_modules_name(file);
    int n_path = snprintf(path, sizeof(path), "%s/%.*s", k->modules, (int)file.n, file.p);
    if (!cci_kernel_is_inside(file) || n_path < 0 || (size_t)n_path >= sizeof(path) || base.n == 0 || base.n > 200)
        return cci_fail(err, CC_ERR_IO, k->modules, "modules.dep has a path that makes no sense: run depmod");
    (void)snprintf(name, sizeof(name), "lib/modules/cc/%03u-%.*s.ko%s", (unsigned)(n % 1000), (int)base.n, base.p, end);
    if (!cci_buf_str(order, strrchr(name, '/') + 1) || !cci_buf_str(order, "\n"))
        return cci_fail_nomem(err);
    cc_error_code code = *end ? cci_kernel_check_decompress(k, path, err) : CC_OK;
    if (code != CC_OK)
        return code;
    return gz ? cci_kernel_add_gz(initrd, name, path, gunzip, err) : cci_kernel_add_file(initrd, name, path, err);
}

static cc_error_code cci_kernel_want(struct cci_modules *m, bool shares, cc_error *err)
{
    static const struct {
        const char *name;
        bool required;
    } wanted[] = {
        {"virtio_mmio", true},
        {"virtio_blk", true},
        {"vmw_vsock_virtio_transport", true},
        {"ext4", true},
        {"overlay", true},
        {"virtio_rng", false},
        {"virtio_balloon", false},
    };
    /* A modular ext4 wants "crc32c", which is an alias of these. */
    cc_error_code code = CC_OK;
    if (cci_modules_find(m, cci_modules_str("ext4"))) {
        code = cci_modules_want(m, "crc32c_generic", false, err);
        if (code == CC_OK)
            code = cci_modules_want(m, "crc32c_intel", false, err);
    }
    for (size_t i = 0; i < CCI_COUNT(wanted) && code == CC_OK; i++)
        code = cci_modules_want(m, wanted[i].name, wanted[i].required, err);
    if (code == CC_OK && shares)
        code = cci_modules_want(m, "virtiofs", false, err);
    return code;
}

/* The archive, once the order is known. */
static cc_error_code cci_kernel_pack(const struct cci_kernel *k, const struct cci_modules *m, struct cci_initrd *initrd,
                                     cci_kernel_gunzip_fn gunzip, cc_error *err)
{
    struct cci_buf order = {NULL, 0, 0, false};
    const uint64_t before = initrd->size;
    cc_error_code code = CC_OK;
    if (!cci_cpio_dir(initrd, "lib") || !cci_cpio_dir(initrd, "lib/modules") || !cci_cpio_dir(initrd, "lib/modules/cc"))
        code = cci_fail_nomem(err);
    for (size_t i = 0; i < m->count && code == CC_OK; i++)
        code = initrd->size - before > CCI_KERNEL_MAX_ALL
                   ? cci_fail(err, CC_ERR_IO, k->modules, "the modules take more than %llu MiB",
                              (unsigned long long)CCI_KERNEL_MAX_ALL >> 20)
                   : cci_kernel_add_module(k, m->line[m->order[i]].path, i, initrd, &order, gunzip, err);
    if (code == CC_OK && (!cci_cpio_bytes(initrd, "lib/modules/cc/order", order.p, order.n) || !cci_cpio_end(initrd)))
        code = cci_fail_nomem(err);
    cci_buf_free(&order);
    return code;
}

static struct cci_modules_text cci_kernel_text(const struct cci_buf *b)
{
    struct cci_modules_text t = {(const char *)b->p, b->n};
    return t;
}

/* Appends the modules that the guest needs to the initrd, with `shares` also those for shares, which take time to load;
 * nothing if the kernel has none. */
static cc_error_code cci_kernel_add_modules(const struct cci_kernel *k, bool shares, struct cci_initrd *initrd,
                                            cci_kernel_gunzip_fn gunzip, cc_error *err)
{
    static const char *const name[3] = {"/modules.dep", "/modules.softdep", "/modules.builtin"};
    struct cci_buf text[3];
    struct cci_modules m;
    cc_error_code code = CC_OK;
    if (!k->modules[0])
        return CC_OK;
    memset(text, 0, sizeof(text));
    memset(&m, 0, sizeof(m));
    for (unsigned i = 0; i < 3 && code == CC_OK; i++) {
        char path[2 * CCI_KERNEL_MAX_PATH];
        struct cci_os_stat st;
        (void)snprintf(path, sizeof(path), "%s%s", k->modules, name[i]);
        if (i == 0 && cci_os_stat(path, &st) == -ENOENT)
            code = cci_fail_errno(err, CC_ERR_IO, ENOENT, path,
                                  "there is no modules.dep, so nobody knows what belongs to what: run depmod, or use a "
                                  "kernel that needs no modules, in a directory without \"modules\"");
        else if (i == 0 || cci_os_stat(path, &st) == 0) /* only the first has to be there */
            code = cci_kernel_read(path, i == 0 ? CCI_KERNEL_MAX_DEP : CCI_KERNEL_MAX_TEXT, &text[i], err);
    }
    if (code == CC_OK)
        code =
            cci_modules_init(&m, cci_kernel_text(&text[0]), cci_kernel_text(&text[1]), cci_kernel_text(&text[2]), err);
    if (code == CC_OK)
        code = cci_kernel_want(&m, shares, err);
    if (code == CC_OK && m.count)
        code = cci_kernel_pack(k, &m, initrd, gunzip, err);
    cci_modules_free(&m);
    for (unsigned i = 0; i < 3; i++)
        cci_buf_free(&text[i]);
    return code == CC_OK ? CC_OK : cci_fail_within(err, code, "the guest kernel's modules");
}

#endif
