/*
 * machine/kernel.h - which kernel the guest boots, and the modules that go with it.
 *
 * A kernel is an image file, or a bundle: a directory with "vmlinux" (an ELF file, preferred: it has not to unpack
 * itself) or "vmlinuz" (bzImage), and, if the kernel has modules, "modules": what its package has in
 * /lib/modules/VERSION. The first of these places that has one is used:
 *
 *   1. the instance's option      a path; it has to be right
 *   2. $CC_KERNEL                 likewise
 *   3. CC_EMBED_KERNEL            the name of an array in the program, when the library was compiled with it
 *   4. CACHE/kernel               a bundle, if it is there
 *   5. a download into CACHE/kernel, by a function of the caller's
 *   6. /boot/vmlinuz-VERSION      the newest that can be read, with /lib/modules/VERSION
 *
 * Modules go into a cpio behind the agent's initramfs: /lib/modules/cc/NNN-name.ko, and /lib/modules/cc/order with the
 * names in the order of loading. A .ko.gz is unpacked here; .ko.xz and .ko.zst are left to the kernel, which has to be
 * able to (CONFIG_MODULE_DECOMPRESS).
 */
#ifndef CCI_MACHINE_KERNEL_H
#define CCI_MACHINE_KERNEL_H

#include "../base/errno_text.h"
#include "../base/error.h"
#include "../base/os.h"
#include "cpio.h"
#include "modules.h"

#define CCI_KERNEL_MAX_PATH 4096u
#define CCI_KERNEL_MAX_DEP ((size_t)8 << 20)     /* of modules.dep */
#define CCI_KERNEL_MAX_TEXT ((size_t)1 << 20)    /* of the other text files beside a kernel */
#define CCI_KERNEL_MAX_MODULE ((size_t)64 << 20) /* of one module, unpacked */
#define CCI_KERNEL_MAX_ALL ((uint64_t)256 << 20) /* of all modules that a guest gets */

/* Unpacks gzip; a function of the image room, which this room does not know. Appends at most max bytes to out. */
typedef cc_error_code (*cci_kernel_gunzip_fn)(struct cci_view in, size_t max, struct cci_buf *out, cc_error *err);

/* Makes a bundle of this name, from where this room does not know. */
typedef cc_error_code (*cci_kernel_fetch_fn)(void *ctx, const char *bundle, cc_error *err);

struct cci_kernel {
    cci_fd fd;
    char path[CCI_KERNEL_MAX_PATH];    /* of the image, for messages */
    char modules[CCI_KERNEL_MAX_PATH]; /* directory with modules.dep; "" if the kernel has none */
    char config[CCI_KERNEL_MAX_PATH];  /* its configuration, which may not exist; "" if unknown */
};

/* ---- Finding it --------------------------------------------------------------------------------------- */

static bool cci_kernel_format(char *out, const char *a, const char *b, const char *c)
{
    int n = snprintf(out, CCI_KERNEL_MAX_PATH, "%s%s%s", a, b, c);
    return n >= 0 && (size_t)n < CCI_KERNEL_MAX_PATH;
}

/* Opens a file, and nothing else: a FIFO would be waited for, and a device might have no end. The descriptor (*size is
 * how long the file is), or an error number. */
static cci_fd cci_kernel_open_file(const char *path, uint64_t *size)
{
    struct cci_os_stat st;
    cci_fd fd = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    int r = cci_os_fstat(fd, &st);
    if (r == 0 && st.kind != CCI_OS_FILE)
        r = st.kind == CCI_OS_DIR ? -EISDIR : -EINVAL;
    if (r < 0)
        cci_os_close(fd);
    *size = st.size;
    return r < 0 ? r : fd;
}

/* Opens an image file; an error number if it cannot be opened or is no file. */
static int cci_kernel_open_image(struct cci_kernel *k)
{
    uint64_t size;
    cci_fd fd = cci_kernel_open_file(k->path, &size);
    k->fd = fd < 0 ? CCI_NO_FD : fd;
    return fd < 0 ? fd : 0;
}

/* Opens what `path` names, a file or a bundle. */
static int cci_kernel_open_path(struct cci_kernel *k, const char *path)
{
    struct cci_os_stat st;
    k->modules[0] = k->config[0] = '\0';
    if (!cci_kernel_format(k->path, path, "", ""))
        return -ENAMETOOLONG;
    int r = cci_kernel_open_image(k);
    if (r != -EISDIR)
        return r;
    if (!cci_kernel_format(k->modules, path, "/modules", "") || !cci_kernel_format(k->config, path, "/config", ""))
        return -ENAMETOOLONG;
    if (cci_os_stat(k->modules, &st) < 0)
        k->modules[0] = '\0';
    (void)cci_kernel_format(k->path, path, "/vmlinux", "");
    r = cci_kernel_open_image(k);
    if (r != -ENOENT)
        return r;
    (void)cci_kernel_format(k->path, path, "/vmlinuz", "");
    return cci_kernel_open_image(k);
}

/* One that the user named: it has to be there. `who` says where the name is from. */
static cc_error_code cci_kernel_open_named(struct cci_kernel *k, const char *path, const char *who, cc_error *err)
{
    int r = cci_kernel_open_path(k, path);
    if (r == 0)
        return CC_OK;
    return cci_fail_errno(err, CC_ERR_IO, -r, path,
                          "cannot open the guest kernel that %s names: %s (it has to be a kernel image, or a directory "
                          "with \"vmlinux\" or \"vmlinuz\")",
                          who, cci_errno_text(-r));
}

/* Takes a run of digits; one that is too long for a number wraps, which no version does. */
static uint64_t cci_kernel_number(const char **s)
{
    uint64_t n = 0;
    while (**s >= '0' && **s <= '9')
        n = n * 10 + (uint64_t)(*(*s)++ - '0');
    return n;
}

/* Compares versions: runs of digits by value, the rest by character. */
static bool cci_kernel_is_newer(const char *a, const char *b)
{
    while (*a && *b) {
        if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
            uint64_t x = cci_kernel_number(&a), y = cci_kernel_number(&b);
            if (x != y)
                return x > y;
        } else if (*a != *b) {
            return *a > *b;
        } else {
            a++;
            b++;
        }
    }
    return *a != '\0';
}

/* The newest readable kernel of the host, as the directory is read. */
static int cci_kernel_boot_entry(void *ctx, const char *name)
{
    struct cci_kernel *best = ctx;
    static const char prefix[] = "vmlinuz-";
    const char *version = name + sizeof(prefix) - 1;
    struct cci_kernel k;
    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0 || !cci_kernel_format(k.path, "/boot/", name, ""))
        return 0;
    if (best->fd != CCI_NO_FD && !cci_kernel_is_newer(version, best->path + strlen("/boot/") + sizeof(prefix) - 1))
        return 0;
    if (cci_kernel_open_image(&k) < 0)
        return 0;
    cci_os_close(best->fd);
    (void)cci_kernel_format(k.modules, "/lib/modules/", version, "");
    (void)cci_kernel_format(k.config, "/boot/config-", version, "");
    *best = k;
    return 0;
}

#ifdef CC_EMBED_KERNEL
/* The array becomes an unnamed file, because kernels are read from files. */
static cc_error_code cci_kernel_open_embedded(struct cci_kernel *k, cc_error *err)
{
    (void)cci_kernel_format(k->path, "(the kernel compiled in)", "", "");
    k->fd = cci_os_memfd("cc-kernel");
    int r = k->fd < 0 ? k->fd : cci_os_write_all(k->fd, CC_EMBED_KERNEL, sizeof(CC_EMBED_KERNEL));
    if (r == 0)
        return CC_OK;
    if (k->fd >= 0)
        cci_os_close(k->fd);
    k->fd = CCI_NO_FD;
    return cci_fail_errno(err, CC_ERR_IO, -r, NULL, "cannot unpack the kernel that is compiled in: %s",
                          cci_errno_text(-r));
}
#endif

/* The last places: a fetched bundle, then the host's own kernel. What went wrong with the first of them goes into the
 * message when the second has none either. */
static cc_error_code cci_kernel_open_default(struct cci_kernel *k, const char *cache_dir, cci_kernel_fetch_fn fetch,
                                             void *ctx, cc_error *err)
{
    char path[CCI_KERNEL_MAX_PATH];
    cc_error why;
    memset(&why, 0, sizeof(why));
    bool named = cci_kernel_format(path, cache_dir, "/kernel", "");
    if (named && cci_kernel_open_path(k, path) == 0)
        return CC_OK;
    cc_error_code code = fetch && named ? fetch(ctx, path, &why) : CC_ERR_IO;
    if (code == CC_OK)
        return cci_kernel_open_named(k, path, "the image cache", err);
    k->fd = CCI_NO_FD;
    if (code != CC_ERR_CANCELLED)
        (void)cci_os_read_dir("/boot", cci_kernel_boot_entry, k);
    if (k->fd != CCI_NO_FD)
        code = CC_OK;
    else if (code == CC_ERR_CANCELLED)
        (void)cci_fail(err, code, why.path, "cancelled while the guest's kernel was fetched");
    else
        code = cci_fail_errno(
            err, CC_ERR_IO, ENOENT, NULL,
            "there is no kernel for the guest: set the instance's option \"kernel\" or $CC_KERNEL to a kernel image or "
            "bundle, or put a bundle (vmlinux or vmlinuz, and modules) into %s/kernel; no /boot/vmlinuz-* is readable "
            "either%s%s",
            cache_dir, why.message ? "; and none could be fetched: " : "", why.message ? why.message : "");
    cci_error_release(&why);
    return code;
}

/* Finds and opens the kernel. `option` may be NULL or "", `fetch` NULL. */
static cc_error_code cci_kernel_open(struct cci_kernel *k, const char *option, const char *cache_dir,
                                     cci_kernel_fetch_fn fetch, void *ctx, cc_error *err)
{
    memset(k, 0, sizeof(*k));
    k->fd = CCI_NO_FD;
    if (option && *option)
        return cci_kernel_open_named(k, option, "the instance's option \"kernel\"", err);
    const char *named = getenv("CC_KERNEL");
    if (named && *named)
        return cci_kernel_open_named(k, named, "$CC_KERNEL", err);
#ifdef CC_EMBED_KERNEL
    if (sizeof(CC_EMBED_KERNEL) > 0)
        return cci_kernel_open_embedded(k, err);
#endif
    return cci_kernel_open_default(k, cache_dir, fetch, ctx, err);
}

static void cci_kernel_close(struct cci_kernel *k)
{
    cci_os_close(k->fd);
    k->fd = CCI_NO_FD;
}

/* ---- Its modules -------------------------------------------------------------------------------------- */

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

/* ---- Its command line --------------------------------------------------------------------------------- */

/*
 * Short, because every parameter costs a guest some fifty thousand instructions. What is there and why:
 *   console=ttyS0       a panic is reported at all times
 *   panic=-1            and then the guest resets at once, which ends the machine
 *   pci=off             there is no PCI; looking for it takes time
 *   cryptomgr.notests   distributions' kernels test every cipher at boot, which takes longer than all the rest
 *   loglevel=3          only what is critical goes to the console, which is slow; 7 with `verbose`
 * What machine.h adds: noreplace-smp with one CPU. Tried and left out, because they gain nothing on a machine with
 * kvm-clock, hardware-reduced ACPI and no legacy devices: tsc=reliable, no_timer_check, lpj=, 8250.nr_uarts=,
 * rcupdate.rcu_expedited=, random.trust_cpu=, nowatchdog, audit=0, nokaslr, reboot=.
 */
static const char *cci_kernel_cmdline(bool verbose)
{
    return verbose ? "console=ttyS0 panic=-1 pci=off cryptomgr.notests loglevel=7"
                   : "console=ttyS0 panic=-1 pci=off cryptomgr.notests loglevel=3";
}

#endif
