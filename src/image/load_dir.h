/*
 * image/load_dir.h - an image from a directory: an OCI image layout, or a plain root filesystem tree.
 *
 * A directory with a file oci-layout in it is a layout, and is read as a tar of one would be. Any other is a tree: its
 * files become the one layer of an image whose configuration says no more than the platform and a PATH.
 */
#ifndef CCI_IMAGE_LOAD_DIR_H
#define CCI_IMAGE_LOAD_DIR_H

#include "archive_dir.h"
#include "dir_layer.h"
#include "json_write.h"
#include "source.h"

/* The configuration of a tree's image. */
static cc_error_code cci_load_dir_config(const struct cci_platform *platform, const struct cci_digest *diff_id,
                                         struct cci_buf *out, cc_error *err)
{
    (void)cci_buf_str(out, "{\"architecture\":");
    cci_json_put_string(out, platform->arch);
    if (platform->variant[0]) {
        (void)cci_buf_str(out, ",\"variant\":");
        cci_json_put_string(out, platform->variant);
    }
    (void)cci_buf_str(out, ",\"os\":");
    cci_json_put_string(out, platform->os);
    (void)cci_buf_str(out,
                      ",\"config\":{\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]},"
                      "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"");
    (void)cci_buf_str(out, cci_digest_spell(diff_id).text);
    (void)cci_buf_str(out, "\"]}}");
    return out->failed ? cci_fail_nomem(err) : CC_OK;
}

static cc_error_code cci_load_dir_tree(struct cci_store *store, const char *dir, const struct cci_platform *want,
                                       const struct cci_wait *wait, struct cci_image **out, cc_error *err)
{
    struct cci_layer layer;
    struct cci_image_config config;
    struct cci_buf text = {NULL, 0, 0, false}, none = {NULL, 0, 0, false};
    struct cci_platform host = cci_platform_host();
    cc_error_code code = cci_dir_layer_make(store, dir, wait, &layer, err);
    if (code)
        return code;
    code = cci_load_dir_config(want ? want : &host, &layer.diff_id, &text, err);
    if (!code)
        code = cci_config_parse(&config, text.p, text.n, err);
    if (!code) {
        *out = cci_image_new(store, &config);
        code = *out ? CC_OK : cci_fail_nomem(err);
    }
    if (code) {
        cci_layer_close(&layer);
    } else {
        (*out)->layers[0] = layer;
        cci_image_take_texts(*out, &none, &text);
        code = cci_image_prepare(*out, wait, err);
    }
    cci_buf_free(&text);
    return code;
}

/*
 * Loads an image from a directory, `path` with an optional colon and reference behind it when it is an image layout.
 * `want` NULL is this host's platform. Free the image with cci_image_free; it keeps the store.
 */
static cc_error_code cci_image_load_dir(struct cci_store *store, const char *path, const struct cci_platform *want,
                                        const struct cci_wait *wait, struct cci_image **out, cc_error *err)
{
    struct cci_archive archive;
    struct cci_os_stat st;
    const char *reference;
    *out = NULL;
    char *dir = cci_source_split(path, CCI_OS_DIR, &reference);
    if (!dir)
        return cci_fail_nomem(err);
    int r = cci_os_stat(dir, &st);
    cc_error_code code = CC_OK;
    if (r < 0)
        code = cci_fail_errno(err, CC_ERR_IO, -r, path, "cannot open the image directory: %s", cci_errno_text(-r));
    else if (st.kind != CCI_OS_DIR)
        code = cci_fail(err, CC_ERR_IO, path, "this is no directory; load an image file with load_tar");
    else if (cci_archive_dir_is_layout(dir)) {
        code = cci_archive_open_dir(&archive, dir, wait, err);
        if (!code) {
            code = cci_image_load_archive(store, &archive, reference, want, out, err);
            cci_archive_close(&archive);
        }
    } else if (reference)
        code = cci_fail(err, CC_ERR_IO, path, "the directory is no image layout, so it has no image called \"%.200s\"",
                        reference);
    else
        code = cci_load_dir_tree(store, dir, want, wait, out, err);
    cci_mem_free(dir);
    if (code) {
        cci_image_free(*out);
        *out = NULL;
    }
    if (code && err && !err->path)
        err->path = cci_mem_strdup(path);
    return code;
}

#endif
