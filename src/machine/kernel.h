/*
 * machine/kernel.h - which kernel the guest boots, and its command line.
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
 * kernel_modules.h has what is done with the modules.
 */
#ifndef CCI_MACHINE_KERNEL_H
#define CCI_MACHINE_KERNEL_H

#include "../base/errno_text.h"
#include "../base/error.h"
#include "../base/os.h"

#define CCI_KERNEL_MAX_PATH 4096u

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

/* ---- Its command line --------------------------------------------------------------------------------- */

/*
 * Short, because every parameter costs a guest some fifty thousand instructions. What is there and why:
 *   console=ttyS0       a panic is reported at all times
 *   panic=-1            and then the guest resets at once, which ends the machine
 *   pci=off             there is no PCI; looking for it takes time
 *   cryptomgr.notests   distributions' kernels test every cipher at boot, which takes longer than all the rest
 *   loglevel=3          only what is critical goes to the console, which is slow; 7 with `verbose`
 * What start.h adds: noreplace-smp with one CPU. Tried and left out, because they gain nothing on a machine with
 * kvm-clock, hardware-reduced ACPI and no legacy devices: tsc=reliable, no_timer_check, lpj=, 8250.nr_uarts=,
 * rcupdate.rcu_expedited=, random.trust_cpu=, nowatchdog, audit=0, nokaslr, reboot=.
 */
static const char *cci_kernel_cmdline(bool verbose)
{
    return verbose ? "console=ttyS0 panic=-1 pci=off cryptomgr.notests loglevel=7"
                   : "console=ttyS0 panic=-1 pci=off cryptomgr.notests loglevel=3";
}

#endif
