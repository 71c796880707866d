/*
 * image/manifest_write.h - a manifest for an image that came without one, or whose layers are no longer compressed as
 * its own says (image specification 1.1, "Image Manifest").
 *
 * The cache keeps layers as files and recipes (layer_recipe.h), and, of a pulled image, the compressed blobs until they
 * are pruned. What a manifest can promise is therefore, for each layer: the descriptor that its own manifest has, if
 * that is of the plain tar or the blob is there; else the plain tar, whose digest is the diffID. When every layer keeps
 * its descriptor and the manifest is an OCI one, the manifest stays as it is, bit for bit.
 */
#ifndef CCI_IMAGE_MANIFEST_WRITE_H
#define CCI_IMAGE_MANIFEST_WRITE_H

#include "blob.h"
#include "json_write.h"
#include "source.h"

/* What stands in a manifest for a layer. */
struct cci_manifest_layer {
    struct cci_digest digest;
    uint64_t size;
    enum cci_media media;
    bool blob; /* the bytes are in blobs/; else they come from the recipe */
};

/* Whether blobs/ has a blob of this size. Its digest is checked when it is copied. */
static bool cci_manifest_has_blob(const struct cci_store *s, const struct cci_descriptor *d)
{
    struct cci_os_stat st;
    char *path = cci_blob_path(s, &d->digest);
    bool has = path && cci_os_lstat(path, &st) == 0 && st.kind == CCI_OS_FILE && st.size == d->size;
    cci_mem_free(path);
    return has;
}

/* A layer as plain tar. */
static cc_error_code cci_manifest_plain(const struct cci_layer *layer, struct cci_manifest_layer *out, cc_error *err)
{
    cci_fd fd;
    memset(out, 0, sizeof(*out));
    out->digest = layer->diff_id;
    out->media = CCI_MEDIA_LAYER;
    cc_error_code code = cci_recipe_open_file(layer->path, "tar", &fd, err);
    if (!code)
        code = cci_recipe_size(fd, &out->size, err);
    cci_os_close(fd);
    return code;
}

/* Decides on each layer; `layers` has room for them. *same says whether the image's own manifest still holds. */
static cc_error_code cci_manifest_plan(const struct cci_image *image, struct cci_manifest_layer *layers, bool *same,
                                       cc_error *err)
{
    struct cci_manifest m;
    cc_error_code code = CC_OK;
    memset(&m, 0, sizeof(m));
    if (image->manifest_text.n)
        code = cci_manifest_parse(&m, image->manifest_text.p, image->manifest_text.n, CCI_MEDIA_IMAGE, err);
    *same = !code && m.count == image->layer_count && m.config.media_text &&
            strcmp(m.config.media_text, "application/vnd.oci.image.config.v1+json") == 0;
    for (size_t i = 0; i < image->layer_count && !code; i++) {
        const struct cci_descriptor *d = m.count == image->layer_count ? &m.items[i] : NULL;
        bool plain = d && cci_digest_equal(&d->digest, &image->layers[i].diff_id);
        if (d && !plain && cci_manifest_has_blob(image->store, d)) {
            layers[i].digest = d->digest;
            layers[i].size = d->size;
            layers[i].media = d->media;
            layers[i].blob = true;
            continue;
        }
        *same = *same && plain;
        code = cci_manifest_plain(&image->layers[i], &layers[i], err);
    }
    cci_manifest_free(&m);
    return code;
}

static void cci_manifest_put_descriptor(struct cci_buf *out, const char *media, const struct cci_digest *digest,
                                        uint64_t size)
{
    char text[300];
    (void)snprintf(text, sizeof(text), "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%llu", media,
                   cci_digest_spell(digest).text, (unsigned long long)size);
    (void)cci_buf_str(out, text); /* the caller closes it */
}

static const char *cci_manifest_layer_media(enum cci_media media)
{
    return media == CCI_MEDIA_LAYER_GZIP   ? "application/vnd.oci.image.layer.v1.tar+gzip"
           : media == CCI_MEDIA_LAYER_ZSTD ? "application/vnd.oci.image.layer.v1.tar+zstd"
                                           : "application/vnd.oci.image.layer.v1.tar";
}

static cc_error_code cci_manifest_spell(const struct cci_image *image, const struct cci_manifest_layer *layers,
                                        struct cci_buf *out, cc_error *err)
{
    struct cci_digest config = cci_digest_of(image->config_text.p, image->config_text.n);
    (void)cci_buf_str(out,
                      "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":");
    cci_manifest_put_descriptor(out, "application/vnd.oci.image.config.v1+json", &config, image->config_text.n);
    (void)cci_buf_str(out, "},\"layers\":[");
    for (size_t i = 0; i < image->layer_count; i++) {
        (void)cci_buf_str(out, i ? "," : "");
        cci_manifest_put_descriptor(out, cci_manifest_layer_media(layers[i].media), &layers[i].digest, layers[i].size);
        (void)cci_buf_str(out, "}");
    }
    (void)cci_buf_str(out, "]}");
    return out->failed ? cci_fail_nomem(err) : CC_OK;
}

/*
 * The manifest that the image can be given under now, and where its layers come from: *layers, to be freed, one for
 * each. Free *text with cci_buf_free. Both on success only.
 */
static cc_error_code cci_manifest_make(const struct cci_image *image, struct cci_manifest_layer **layers,
                                       struct cci_buf *text, cc_error *err)
{
    bool same = false;
    memset(text, 0, sizeof(*text));
    *layers = cci_mem_zalloc(image->layer_count + 1, sizeof(**layers));
    if (!*layers)
        return cci_fail_nomem(err);
    cc_error_code code = cci_manifest_plan(image, *layers, &same, err);
    if (!code && same && !cci_buf_add(text, image->manifest_text.p, image->manifest_text.n))
        code = cci_fail_nomem(err);
    else if (!code && !same)
        code = cci_manifest_spell(image, *layers, text, err);
    if (code) {
        cci_mem_free(*layers);
        cci_buf_free(text);
    }
    return code;
}

#endif
