/*
 * image/blob.h - blobs/: documents and compressed layers under their digests, as a registry has them.
 *
 * Manifests, indexes and configurations are kept byte for byte, so that an image opens again with no network and an
 * export repeats its digests. They are small; whoever reads one checks its digest again, and one that was damaged is
 * removed and counts as missing. Compressed layers come to blobs/ by way of partial/ (registry/layer_fetch.h).
 *
 * blobs/ itself is a lock (flock): held shared by each pull from before it looks until its reference is written, and
 * exclusively by whoever removes blobs that nothing refers to. So a blob never goes between its coming and the writing
 * of what refers to it.
 */
#ifndef CCI_IMAGE_BLOB_H
#define CCI_IMAGE_BLOB_H

#include "store.h"

/* The path of a blob; NULL when there is no memory. */
static char *cci_blob_path(const struct cci_store *s, const struct cci_digest *d)
{
    return cci_store_path(s, "blobs/sha256", cci_digest_spell(d).text + 7);
}

/* Locks blobs/, see above; close *out to unlock. With wait false -EWOULDBLOCK is no error, but *out CCI_NO_FD. */
static cc_error_code cci_blob_lock(const struct cci_store *s, enum cci_os_lock how, bool wait, cci_fd *out,
                                   cc_error *err)
{
    char *path = cci_store_path(s, "blobs", "");
    *out = path ? cci_os_open(path, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0) : -ENOMEM;
    int r = *out < 0 ? *out : cci_os_flock(*out, how, wait);
    if (r < 0) {
        cci_os_close(*out);
        *out = CCI_NO_FD;
    }
    cc_error_code code = CC_OK;
    if (r < 0 && (wait || r != -EWOULDBLOCK))
        code = cci_store_fail(err, r, path, "lock the blobs");
    cci_mem_free(path);
    return code;
}

/* Reads a whole file into *out, of at most `max` bytes: 0, -EFBIG when it is larger or no file, or another error
 * number. `flags` may have CCI_OS_NOFOLLOW. */
static int cci_blob_read_file(const char *path, int flags, size_t max, struct cci_buf *out)
{
    struct cci_os_stat st;
    cci_fd fd = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NONBLOCK | flags, 0);
    int r = fd < 0 ? fd : cci_os_fstat(fd, &st);
    if (r == 0 && (st.kind != CCI_OS_FILE || st.size > max))
        r = -EFBIG;
    uint8_t *p = r == 0 ? cci_buf_reserve(out, (size_t)st.size + 1) : NULL;
    if (r == 0 && !p)
        r = -ENOMEM;
    int64_t n = r == 0 ? cci_os_pread_all(fd, p, (size_t)st.size, 0) : r;
    cci_os_close(fd);
    if (n < 0)
        return (int)n;
    out->n = (size_t)n;
    return 0;
}

/*
 * Reads a document and checks its digest. *found false, and nothing to free, when the store does not have it, or has
 * it damaged; then it is removed. Free *out with cci_buf_free when it was found.
 */
static cc_error_code cci_blob_read(const struct cci_store *s, const struct cci_digest *d, size_t max,
                                   struct cci_buf *out, bool *found, cc_error *err)
{
    cc_error_code code = CC_OK;
    char *path = cci_blob_path(s, d);
    memset(out, 0, sizeof(*out));
    *found = false;
    if (!path)
        return cci_fail_nomem(err);
    int r = cci_blob_read_file(path, CCI_OS_NOFOLLOW, max, out);
    if (r == 0) {
        struct cci_digest got = cci_digest_of(out->p, out->n);
        *found = cci_digest_equal(&got, d);
    }
    if (!*found) {
        if (r == 0 || r == -EFBIG)
            (void)cci_os_unlink(path);
        else if (r != -ENOENT && r != -ELOOP)
            code = cci_store_fail(err, r, path, "read a document");
        cci_buf_free(out);
    }
    cci_mem_free(path);
    return code;
}

static int cci_blob_put(struct cci_store_tmp *tmp, const char *path, const void *p, size_t n)
{
    char *file = cci_layer_file(tmp->path, "blob");
    cci_fd fd = file ? cci_os_open(file, CCI_OS_WRONLY | CCI_OS_CREATE | CCI_OS_EXCL, 0600) : -ENOMEM;
    int r = fd < 0 ? fd : cci_os_write_all(fd, p, n);
    if (r == 0)
        r = cci_os_fsync(fd);
    cci_os_close(fd);
    if (r == 0)
        r = cci_os_rename(file, path);
    cci_mem_free(file);
    return r;
}

/* Writes a file of the store, whole or not at all, in place of one that may be there. `room` is its directory. */
static cc_error_code cci_blob_write_file(const struct cci_store *s, const char *room, const char *name, const void *p,
                                         size_t n, cc_error *err)
{
    struct cci_store_tmp tmp;
    char *path = cci_store_path(s, room, name), *dir = cci_store_path(s, room, "");
    cc_error_code code = path && dir ? cci_store_tmp_new(s, &tmp, err) : cci_fail_nomem(err);
    if (!code) {
        int r = cci_blob_put(&tmp, path, p, n);
        if (r == 0)
            r = cci_os_sync_dir(dir);
        if (r < 0)
            code = cci_store_fail(err, r, path, "write a document");
        cci_store_tmp_drop(&tmp);
    }
    cci_mem_free(path);
    cci_mem_free(dir);
    return code;
}

/* Stores a document whose digest the caller has checked. */
static cc_error_code cci_blob_write(const struct cci_store *s, const struct cci_digest *d, const void *p, size_t n,
                                    cc_error *err)
{
    return cci_blob_write_file(s, "blobs/sha256", cci_digest_spell(d).text + 7, p, n, err);
}

#endif
