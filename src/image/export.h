/*
 * image/export.h - an image as an OCI image layout in a directory (image specification 1.1, "Image Layout").
 *
 * The configuration is kept byte for byte, so the image ID stays the same. A layer whose compressed blob is in the
 * cache is copied, and its digest checked on the way; any other is put together from its files and its recipe, bit for
 * bit the tar that it came as, and stored as plain tar. See manifest_write.h for what that does to the manifest.
 *
 * The directory is made, or must be empty, and every file in it is new and called by a name of ours: oci-layout,
 * index.json, blobs/sha256/<digits>. So whatever an image says, nothing is written elsewhere. index.json comes last: a
 * directory without it is no layout yet. After a failure all that was written is removed.
 */
#ifndef CCI_IMAGE_EXPORT_H
#define CCI_IMAGE_EXPORT_H

#include "manifest_write.h"

#define CCI_EXPORT_CHUNK ((size_t)256 << 10)

struct cci_export {
    const struct cci_image *image;
    const char *dir;
    char *blobs; /* dir/blobs/sha256 */
    bool made;   /* the directory is new */
    const struct cci_wait *wait;
    cci_fd fd;              /* of the blob being written */
    struct cci_sha256 hash; /* of what was written to it */
    uint64_t size;          /* bytes of it */
};

static cc_error_code cci_export_fail(const char *path, int sys, cc_error *err)
{
    return cci_fail_errno(err, CC_ERR_IO, -sys, path, "cannot write the exported image: %s", cci_errno_text(-sys));
}

/* ---- The directory ----------------------------------------------------------------------------------- */

static int cci_export_not_empty(void *ctx, const char *name)
{
    (void)ctx, (void)name;
    return 1;
}

static cc_error_code cci_export_begin(struct cci_export *x, cc_error *err)
{
    char *above = cci_mem_printf("%s/blobs", x->dir);
    x->blobs = cci_mem_printf("%s/blobs/sha256", x->dir);
    if (!x->blobs || !above) {
        cci_mem_free(above);
        return cci_fail_nomem(err);
    }
    int r = cci_os_mkdir(x->dir, 0777);
    x->made = r == 0;
    if (r == -EEXIST)
        r = cci_os_read_dir(x->dir, cci_export_not_empty, NULL);
    cc_error_code code = CC_OK;
    if (r > 0)
        code = cci_fail(err, CC_ERR_IO, x->dir, "the directory to export to is not empty");
    if (r == 0)
        r = cci_os_mkdir(above, 0777);
    if (r == 0)
        r = cci_os_mkdir(x->blobs, 0777);
    if (r < 0)
        code = cci_export_fail(x->dir, r, err);
    cci_mem_free(above);
    return code;
}

/* Without the allocator, so that it works when memory was what failed. */
static void cci_export_unlink(const char *dir, const char *name)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (n > 0 && (size_t)n < sizeof(path) && cci_os_unlink(path) == -EISDIR)
        (void)cci_os_rmdir(path);
}

static int cci_export_unlink_blob(void *ctx, const char *name)
{
    cci_export_unlink(ctx, name);
    return 0;
}

/* Removes what was written. The directory was empty, so all that is there is ours. */
static void cci_export_undo(struct cci_export *x)
{
    static const char *const names[] = {"index.json", "oci-layout", "blobs/sha256", "blobs"};
    (void)cci_os_read_dir(x->blobs, cci_export_unlink_blob, x->blobs);
    for (size_t i = 0; i < CCI_COUNT(names); i++)
        cci_export_unlink(x->dir, names[i]);
    if (x->made)
        (void)cci_os_rmdir(x->dir);
}

/* ---- Files ------------------------------------------------------------------------------------------- */

static cc_error_code cci_export_open(struct cci_export *x, const char *path, cc_error *err)
{
    x->fd = cci_os_open(path, CCI_OS_WRONLY | CCI_OS_CREATE | CCI_OS_EXCL | CCI_OS_NOFOLLOW, 0666);
    cci_sha256_init(&x->hash);
    x->size = 0;
    return x->fd < 0 ? cci_export_fail(path, x->fd, err) : CC_OK;
}

/* The next bytes of the file: a recipe's sink. */
static cc_error_code cci_export_put(void *ctx, const uint8_t *p, size_t n, cc_error *err)
{
    struct cci_export *x = ctx;
    cc_error_code code = cci_wait_check(x->wait, x->dir, "writing an image", err);
    if (code)
        return code;
    cci_sha256_update(&x->hash, p, n);
    x->size += n;
    int r = cci_os_write_all(x->fd, p, n);
    return r < 0 ? cci_export_fail(x->dir, r, err) : CC_OK;
}

static cc_error_code cci_export_close(struct cci_export *x, cc_error *err)
{
    int r = cci_os_fsync(x->fd);
    cci_os_close(x->fd);
    return r < 0 ? cci_export_fail(x->dir, r, err) : CC_OK;
}

static cc_error_code cci_export_file(struct cci_export *x, const char *path, const void *p, size_t n, cc_error *err)
{
    cc_error_code code = cci_export_open(x, path, err);
    if (code)
        return code;
    code = cci_export_put(x, p, n, err);
    cc_error_code closed = cci_export_close(x, code ? NULL : err);
    return code ? code : closed;
}

static cc_error_code cci_export_document(struct cci_export *x, const struct cci_buf *text, cc_error *err)
{
    struct cci_digest d = cci_digest_of(text->p, text->n);
    char *path = cci_layer_file(x->blobs, cci_digest_spell(&d).text + 7);
    cc_error_code code = path ? cci_export_file(x, path, text->p, text->n, err) : cci_fail_nomem(err);
    cci_mem_free(path);
    return code;
}

/* ---- Layers ------------------------------------------------------------------------------------------ */

static cc_error_code cci_export_copy(struct cci_export *x, const struct cci_manifest_layer *l, cc_error *err)
{
    char *from = cci_blob_path(x->image->store, &l->digest);
    uint8_t *chunk = cci_mem_alloc(CCI_EXPORT_CHUNK);
    cci_fd fd = from ? cci_os_open(from, CCI_OS_RDONLY | CCI_OS_NOFOLLOW, 0) : -ENOMEM;
    cc_error_code code = chunk ? CC_OK : cci_fail_nomem(err);
    if (!code && fd < 0)
        code = cci_store_fail(err, fd, from, "open a compressed layer");
    while (!code) {
        int64_t n = cci_os_pread_all(fd, chunk, CCI_EXPORT_CHUNK, x->size);
        if (n == 0)
            break;
        code = n < 0 ? cci_store_fail(err, (int)n, from, "read a compressed layer")
                     : cci_export_put(x, chunk, (size_t)n, err);
    }
    cci_os_close(fd);
    cci_mem_free(chunk);
    cci_mem_free(from);
    return code;
}

static cc_error_code cci_export_replay(struct cci_export *x, const struct cci_layer *layer, cc_error *err)
{
    struct cci_recipe_reader r;
    cc_error_code code = cci_recipe_open(&r, layer->path, CCI_IMPORT_MAX_TAR, err);
    if (code)
        return code;
    code = cci_recipe_replay(&r, cci_export_put, x, err);
    cci_recipe_close(&r);
    return code;
}

static cc_error_code cci_export_layer(struct cci_export *x, size_t i, const struct cci_manifest_layer *l, cc_error *err)
{
    struct cci_digest got;
    struct cci_os_stat st;
    char *path = cci_layer_file(x->blobs, cci_digest_spell(&l->digest).text + 7);
    if (!path)
        return cci_fail_nomem(err);
    cc_error_code code = CC_OK;
    if (cci_os_lstat(path, &st) == 0)
        goto done; /* an image may have a layer twice */
    code = cci_export_open(x, path, err);
    if (code)
        goto done;
    code = l->blob ? cci_export_copy(x, l, err) : cci_export_replay(x, &x->image->layers[i], err);
    cci_sha256_final(&x->hash, got.bytes);
    if (!code && (!cci_digest_equal(&got, &l->digest) || x->size != l->size))
        code = cci_fail(err, CC_ERR_IO, NULL,
                        "layer %s is damaged in the image cache: remove the image, prune the cache, and get it again",
                        cci_digest_spell(&l->digest).text);
    cc_error_code closed = cci_export_close(x, code ? NULL : err);
    code = code ? code : closed;
done:
    cci_mem_free(path);
    return code;
}

/* ---- index.json -------------------------------------------------------------------------------------- */

/* The tag that the layout calls the image by: that of its name where it is one, else "latest". */
static void cci_export_tag(const char *name, char tag[129])
{
    const char *slash = name ? strrchr(name, '/') : NULL, *colon = slash ? strchr(slash, ':') : NULL;
    size_t n = 0;
    for (; colon && n < 128 && colon[1 + n] && colon[1 + n] != '@'; n++) {
        char c = colon[1 + n];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (!word && (n == 0 || (c != '.' && c != '-')))
            break;
        tag[n] = c;
    }
    bool whole = n && (!colon[1 + n] || colon[1 + n] == '@');
    (void)snprintf(tag + (whole ? n : 0), 129 - (whole ? n : 0), "%s", whole ? "" : "latest");
}

static cc_error_code cci_export_index(struct cci_export *x, const struct cci_buf *manifest, cc_error *err)
{
    struct cci_buf out = {NULL, 0, 0, false};
    const struct cci_platform *p = &x->image->config.platform;
    struct cci_digest digest = cci_digest_of(manifest->p, manifest->n);
    const char *name = x->image->names.count ? x->image->names.at[0] : NULL;
    char tag[129];
    cci_export_tag(name, tag);
    (void)cci_buf_str(&out,
                      "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[");
    cci_manifest_put_descriptor(&out, "application/vnd.oci.image.manifest.v1+json", &digest, manifest->n);
    (void)cci_buf_str(&out, ",\"platform\":{\"architecture\":");
    cci_json_put_string(&out, p->arch);
    (void)cci_buf_str(&out, ",\"os\":");
    cci_json_put_string(&out, p->os);
    if (p->variant[0]) {
        (void)cci_buf_str(&out, ",\"variant\":");
        cci_json_put_string(&out, p->variant);
    }
    (void)cci_buf_str(&out, "},\"annotations\":{\"org.opencontainers.image.ref.name\":");
    cci_json_put_string(&out, tag);
    if (name) {
        (void)cci_buf_str(&out, ",\"io.containerd.image.name\":");
        cci_json_put_string(&out, name);
    }
    (void)cci_buf_str(&out, "}}]}");
    char *path = cci_layer_file(x->dir, "index.json");
    cc_error_code code = out.failed || !path ? cci_fail_nomem(err) : cci_export_file(x, path, out.p, out.n, err);
    cci_mem_free(path);
    cci_buf_free(&out);
    return code;
}

static cc_error_code cci_export_all(struct cci_export *x, cc_error *err)
{
    static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    struct cci_manifest_layer *layers;
    struct cci_buf manifest;
    cc_error_code code = cci_manifest_make(x->image, &layers, &manifest, err);
    if (code)
        return code;
    for (size_t i = 0; i < x->image->layer_count && !code; i++)
        code = cci_export_layer(x, i, &layers[i], err);
    if (!code)
        code = cci_export_document(x, &x->image->config_text, err);
    if (!code)
        code = cci_export_document(x, &manifest, err);
    char *path = cci_layer_file(x->dir, "oci-layout");
    if (!code)
        code = path ? cci_export_file(x, path, layout, sizeof(layout) - 1, err) : cci_fail_nomem(err);
    if (!code)
        code = cci_export_index(x, &manifest, err);
    cci_mem_free(path);
    cci_mem_free(layers);
    cci_buf_free(&manifest);
    return code;
}

/* Writes the image to a directory that is new or empty. */
static cc_error_code cci_image_export(const struct cci_image *image, const char *dir, const struct cci_wait *wait,
                                      cc_error *err)
{
    struct cci_export x;
    cci_fd lock;
    memset(&x, 0, sizeof(x));
    x.image = image;
    x.dir = dir;
    x.wait = wait;
    cc_error_code code = cci_blob_lock(image->store, CCI_OS_LOCK_SHARED, true, &lock, err);
    if (code)
        return code;
    code = cci_export_begin(&x, err);
    if (!code) {
        code = cci_export_all(&x, err);
        if (code)
            cci_export_undo(&x);
    } else if (x.made && x.blobs) {
        cci_export_undo(&x);
    }
    cci_mem_free(x.blobs);
    cci_os_close(lock);
    return code;
}

#endif
