/*
 * image/archive_dir.h - an OCI image layout in a directory (image specification 1.1, "Image Layout"), as an archive.
 *
 * The members are index.json, oci-layout and the blobs called by a SHA-256 digest; everything else that lies in the
 * directory is none of the layout's. A blob that is a symbolic link, a device or anything else than a regular file is
 * not there: a layout from somebody else leads to no other file of this host.
 */
#ifndef CCI_IMAGE_ARCHIVE_DIR_H
#define CCI_IMAGE_ARCHIVE_DIR_H

#include "archive.h"

/* Listing a directory. */
struct cci_archive_listing {
    struct cci_archive *archive;
    cc_error_code code;
    cc_error *err;
};

/* Adds a file of the directory, if it is one. */
static cc_error_code cci_archive_dir_file(struct cci_archive *a, const char *name, cc_error *err)
{
    struct cci_archive_member m = {NULL, NULL, 0, 0, CCI_ARCHIVE_FILE, (uint32_t)a->count, 0, 0};
    struct cci_view view = {(const uint8_t *)name, strlen(name)};
    struct cci_os_stat st;
    char *path = cci_mem_printf("%s/%s", a->dir, name);
    int r = path ? cci_os_lstat(path, &st) : -ENOMEM;
    cci_mem_free(path);
    if (r == -ENOENT || (r == 0 && st.kind != CCI_OS_FILE))
        return CC_OK;
    if (r < 0)
        return cci_archive_fail_read(a, r, err);
    m.size = st.size;
    if (!cci_archive_name(a, view, &m.name_at))
        return cci_fail_nomem(err);
    return cci_archive_add(a, &m, err);
}

static int cci_archive_dir_blob(void *ctx, const char *name)
{
    struct cci_archive_listing *l = ctx;
    struct cci_digest digest;
    char path[14 + 64];
    if (!cci_digest_from_hex(name, strlen(name), &digest))
        return 0;
    (void)snprintf(path, sizeof(path), "blobs/sha256/%s", name);
    l->code = cci_wait_check(l->archive->wait, l->archive->path, "reading an image", l->err);
    if (!l->code)
        l->code = cci_archive_dir_file(l->archive, path, l->err);
    return l->code ? 1 : 0;
}

/* Whether the directory is an image layout: it has the file that says so. */
static bool cci_archive_dir_is_layout(const char *dir)
{
    struct cci_os_stat st;
    char *path = cci_mem_printf("%s/oci-layout", dir);
    bool is = path && cci_os_lstat(path, &st) == 0 && st.kind == CCI_OS_FILE;
    cci_mem_free(path);
    return is;
}

/* Opens a layout. `wait` must outlive the archive. Close it with cci_archive_close, on success only. */
static cc_error_code cci_archive_open_dir(struct cci_archive *a, const char *dir, const struct cci_wait *wait,
                                          cc_error *err)
{
    memset(a, 0, sizeof(*a));
    struct cci_archive_listing listing = {a, CC_OK, err};
    a->fd = CCI_NO_FD;
    a->wait = wait;
    a->path = cci_mem_strdup(dir);
    a->dir = cci_mem_strdup(dir);
    char *blobs = cci_mem_printf("%s/blobs/sha256", dir);
    cc_error_code code = a->path && a->dir && blobs ? CC_OK : cci_fail_nomem(err);
    if (!code)
        code = cci_archive_dir_file(a, "oci-layout", err);
    if (!code)
        code = cci_archive_dir_file(a, "index.json", err);
    if (!code) {
        int r = cci_os_read_dir(blobs, cci_archive_dir_blob, &listing);
        code = listing.code;
        if (!code && r < 0 && r != -ENOENT)
            code = cci_archive_fail_read(a, r, err);
    }
    cci_mem_free(blobs);
    if (code)
        cci_archive_close(a);
    else
        cci_archive_sort(a);
    return code;
}

#endif
