/*
 * registry/kernel_unpack.h - a kernel package's files, as the tar reader gives them, into a kernel bundle.
 *
 *     in the package                         in the bundle (machine/kernel.h)
 *     boot/vmlinuz-virt                      vmlinuz
 *     boot/config-VERSION                    config
 *     [usr/]lib/modules/VERSION/PATH         modules/PATH
 *
 * Everything else, and whatever is no plain file, is left out. All modules are kept: which of them a guest needs is
 * found when it starts, and another version of this library may need more. Names are the package's, and nothing was
 * verified yet: a PATH has plain components only, none beginning with a dot, so it cannot leave the directory; no file
 * is opened that is there already; and the number and the sizes of files are bounded.
 */
#ifndef CCI_REGISTRY_KERNEL_UNPACK_H
#define CCI_REGISTRY_KERNEL_UNPACK_H

#include "../base/errno_text.h"
#include "../base/os.h"
#include "../image/tar.h"

#define CCI_KERNEL_UNPACK_MAX_FILES 20000u
#define CCI_KERNEL_UNPACK_MAX_FILE ((uint64_t)256 << 20)
#define CCI_KERNEL_UNPACK_MAX_ALL ((uint64_t)1 << 30)
#define CCI_KERNEL_UNPACK_MAX_PATH 300u /* within the bundle */
#define CCI_KERNEL_UNPACK_MAX_DEPTH 16u

struct cci_kernel_unpack {
    const char *dir;   /* the bundle; there, and empty */
    char version[100]; /* of the modules; "" before the first */
    uint64_t total;    /* bytes of all files so far */
    unsigned files;
    bool kernel; /* vmlinuz is there */
    cci_fd fd;   /* the file being written, or CCI_NO_FD */
    char *path;  /* its name */
};

static void cci_kernel_unpack_init(struct cci_kernel_unpack *u, const char *dir)
{
    memset(u, 0, sizeof(*u));
    u->dir = dir;
    u->fd = CCI_NO_FD;
}

static void cci_kernel_unpack_close(struct cci_kernel_unpack *u)
{
    cci_os_close(u->fd);
    cci_mem_free(u->path);
    u->fd = CCI_NO_FD;
    u->path = NULL;
}

static bool cci_kernel_unpack_begins(struct cci_view *path, const char *prefix)
{
    size_t n = strlen(prefix);
    if (path->n < n || memcmp(path->p, prefix, n) != 0)
        return false;
    (void)cci_view_take(path, n);
    return true;
}

/* Whether a path has plain components only. */
static bool cci_kernel_unpack_is_plain(struct cci_view path)
{
    unsigned depth = 1;
    bool first = true; /* of a component */
    for (size_t i = 0; i < path.n; i++) {
        char c = (char)path.p[i];
        bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (c == '/')
            depth++;
        if (!word && (first || !c || !strchr("/.-+,@=:~", c)))
            return false;
        first = c == '/';
    }
    return !first && path.n <= CCI_KERNEL_UNPACK_MAX_PATH && depth <= CCI_KERNEL_UNPACK_MAX_DEPTH;
}

/* Takes VERSION and a slash off a module's path. All have to be of the same kernel. */
static bool cci_kernel_unpack_version(struct cci_kernel_unpack *u, struct cci_view *path)
{
    const uint8_t *slash = path->n ? memchr(path->p, '/', path->n) : NULL;
    size_t n = slash ? (size_t)(slash - path->p) : 0;
    if (n == 0 || n >= sizeof(u->version) || !cci_kernel_unpack_is_plain((struct cci_view){path->p, n}))
        return false;
    if (!u->version[0])
        memcpy(u->version, path->p, n); /* zeros follow */
    if (strlen(u->version) != n || memcmp(u->version, path->p, n) != 0)
        return false;
    (void)cci_view_take(path, n + 1);
    return true;
}

/* The name in the bundle, allocated: NULL in *out when the file is not wanted. */
static cc_error_code cci_kernel_unpack_name(struct cci_kernel_unpack *u, struct cci_view path, char **out,
                                            cc_error *err)
{
    struct cci_view rest = path;
    *out = NULL;
    if (path.n == 17 && memcmp(path.p, "boot/vmlinuz-virt", 17) == 0) {
        *out = cci_mem_printf("%s/vmlinuz", u->dir);
        u->kernel = true;
    } else if (cci_kernel_unpack_begins(&rest, "boot/config-")) {
        *out = cci_mem_printf("%s/config", u->dir);
    } else if (cci_kernel_unpack_begins(&rest, "lib/modules/") || cci_kernel_unpack_begins(&rest, "usr/lib/modules/")) {
        if (!cci_kernel_unpack_version(u, &rest) || !cci_kernel_unpack_is_plain(rest))
            return cci_fail(err, CC_ERR_NETWORK, NULL,
                            "the kernel's package has a file with a name that makes no sense");
        *out = cci_mem_printf("%s/modules/%.*s", u->dir, (int)rest.n, (const char *)rest.p);
    } else {
        return CC_OK;
    }
    return *out ? CC_OK : cci_fail_nomem(err);
}

static cc_error_code cci_kernel_unpack_fail(int r, const char *path, cc_error *err)
{
    if (r == -EEXIST)
        return cci_fail(err, CC_ERR_NETWORK, NULL, "the kernel's package has a file twice");
    return cci_fail_errno(err, CC_ERR_IO, -r, path, "cannot write a file of the guest's kernel: %s",
                          cci_errno_text(-r));
}

/* Makes the directories above u->path and the file itself. */
static cc_error_code cci_kernel_unpack_open(struct cci_kernel_unpack *u, cc_error *err)
{
    char *slash = strrchr(u->path, '/');
    *slash = '\0';
    int r = cci_os_mkdir_all(u->path, 0700);
    *slash = '/';
    if (r == 0) {
        cci_fd fd = cci_os_open(u->path, CCI_OS_WRONLY | CCI_OS_CREATE | CCI_OS_EXCL | CCI_OS_NOFOLLOW, 0600);
        u->fd = fd < 0 ? CCI_NO_FD : fd;
        r = fd < 0 ? fd : 0;
    }
    return r < 0 ? cci_kernel_unpack_fail(r, u->path, err) : CC_OK;
}

static cc_error_code cci_kernel_unpack_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    struct cci_kernel_unpack *u = ctx;
    if (e->type != CCI_TAR_FILE)
        return CC_OK;
    cc_error_code code = cci_kernel_unpack_name(u, e->path, &u->path, err);
    if (code || !u->path)
        return code;
    if (e->sparse || e->size > CCI_KERNEL_UNPACK_MAX_FILE || e->size > CCI_KERNEL_UNPACK_MAX_ALL - u->total ||
        u->files == CCI_KERNEL_UNPACK_MAX_FILES)
        return cci_fail(err, CC_ERR_NETWORK, NULL, "the kernel's package has more, or larger, files than makes sense");
    u->total += e->size;
    u->files++;
    return cci_kernel_unpack_open(u, err);
}

static cc_error_code cci_kernel_unpack_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    struct cci_kernel_unpack *u = ctx;
    int r = u->fd == CCI_NO_FD ? 0 : cci_os_pwrite_all(u->fd, p, n, offset);
    return r < 0 ? cci_kernel_unpack_fail(r, u->path, err) : CC_OK;
}

static cc_error_code cci_kernel_unpack_end(void *ctx, cc_error *err)
{
    (void)err;
    cci_kernel_unpack_close(ctx);
    return CC_OK;
}

static const struct cci_tar_ops *cci_kernel_unpack_ops(void)
{
    static const struct cci_tar_ops ops = {cci_kernel_unpack_entry, cci_kernel_unpack_data, cci_kernel_unpack_end};
    return &ops;
}

#endif
