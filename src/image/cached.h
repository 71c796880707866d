/*
 * image/cached.h - an image that was pulled before, opened with no network.
 *
 * From a reference (refs.h), or from the digest of a manifest or index that is in blobs/: the manifest, the
 * configuration, and every layer, locked. Nothing missing and nothing damaged gives an image; otherwise it is said
 * whether the cache never had it or has it no longer whole, as a caller who may not use the network needs to know.
 */
#ifndef CCI_IMAGE_CACHED_H
#define CCI_IMAGE_CACHED_H

#include "refs.h"
#include "source.h"

#define CCI_CACHED_MAX_NESTING 4 /* indexes in indexes */

enum cci_cached { CCI_CACHED_MISS, CCI_CACHED_INVALID, CCI_CACHED_HIT };

/* Which of an index's images is for this platform; NULL when none is. An index within counts like an image. */
static const struct cci_descriptor *cci_manifest_choose(const struct cci_manifest *m, const struct cci_platform *want)
{
    const struct cci_descriptor *best = NULL;
    int fit = 0;
    for (size_t i = 0; i < m->count; i++) {
        const struct cci_descriptor *d = &m->items[i];
        int f = d->media == CCI_MEDIA_IMAGE || d->media == CCI_MEDIA_INDEX ? cci_platform_fit(&d->platform, want) : 0;
        if (f > fit) {
            fit = f;
            best = d;
        }
    }
    return best;
}

/* Reads a blob of a cached image; a missing one makes *state CCI_CACHED_INVALID. */
static cc_error_code cci_cached_blob(const struct cci_store *s, const struct cci_digest *d, size_t max,
                                     struct cci_buf *out, enum cci_cached *state, cc_error *err)
{
    bool found;
    cc_error_code code = cci_blob_read(s, d, max, out, &found, err);
    if (!code && !found)
        *state = CCI_CACHED_INVALID;
    return code;
}

/* Parses a document; one that is in the cache and makes no sense is as good as missing. */
static cc_error_code cci_cached_parse(struct cci_manifest *m, const struct cci_buf *text, enum cci_cached *state,
                                      cc_error *err)
{
    cc_error_code code = cci_manifest_parse(m, text->p, text->n, CCI_MEDIA_UNKNOWN, err);
    if (code != CC_ERR_IO)
        return code;
    cci_error_release(err);
    *state = CCI_CACHED_INVALID;
    return CC_OK;
}

/* Opens the image of a manifest: *out when *state stays as it was. */
static cc_error_code cci_cached_image(struct cci_store *s, struct cci_buf *manifest_text, const struct cci_manifest *m,
                                      const struct cci_platform *want, struct cci_image **out, enum cci_cached *state,
                                      cc_error *err)
{
    struct cci_buf config_text;
    struct cci_image_config config;
    cc_error_code code = cci_cached_blob(s, &m->config.digest, CCI_CONFIG_MAX_SIZE, &config_text, state, err);
    if (code || *state == CCI_CACHED_INVALID)
        return code;
    code = cci_config_parse(&config, config_text.p, config_text.n, err);
    struct cci_image *image = code ? NULL : cci_image_new(s, &config);
    if (!code && !image)
        code = cci_fail_nomem(err);
    bool found = !code && cci_platform_fit(&image->config.platform, want) > 0;
    for (size_t i = 0; !code && found && i < image->layer_count; i++)
        code = cci_store_layer_open(s, &image->config.diff_ids[i], &image->layers[i], &found, err);
    if (!code && !found)
        *state = CCI_CACHED_INVALID;
    if (!code && found)
        cci_image_take_texts(image, manifest_text, &config_text);
    cci_buf_free(&config_text);
    if (code || !found)
        cci_image_free(image);
    else
        *out = image;
    return code;
}

/* Follows indexes from `digest` to the manifest for `want`. *state CCI_CACHED_INVALID when something is missing. */
static cc_error_code cci_cached_manifest(const struct cci_store *s, struct cci_digest digest,
                                         const struct cci_platform *want, struct cci_buf *text, struct cci_manifest *m,
                                         struct cci_digest *chosen, enum cci_cached *state, cc_error *err)
{
    for (int depth = 0; depth < CCI_CACHED_MAX_NESTING; depth++) {
        cc_error_code code = cci_cached_blob(s, &digest, CCI_MANIFEST_MAX_SIZE, text, state, err);
        if (!code && *state != CCI_CACHED_INVALID)
            code = cci_cached_parse(m, text, state, err);
        if (code || *state == CCI_CACHED_INVALID) {
            cci_buf_free(text);
            return code;
        }
        *chosen = digest;
        if (m->media == CCI_MEDIA_IMAGE)
            return CC_OK;
        const struct cci_descriptor *d = cci_manifest_choose(m, want);
        if (d)
            digest = d->digest;
        cci_manifest_free(m);
        cci_buf_free(text);
        if (!d)
            break;
    }
    *state = CCI_CACHED_INVALID;
    return CC_OK;
}

/*
 * Opens what `top`, an index or a manifest that was pulled before, is for `want`. *state is CCI_CACHED_HIT and *out the
 * image, or it is CCI_CACHED_INVALID. *manifest and *config are their digests, on a hit.
 */
static cc_error_code cci_cached_open(struct cci_store *s, const struct cci_digest *top, const struct cci_platform *want,
                                     struct cci_image **out, struct cci_digest *manifest, struct cci_digest *config,
                                     enum cci_cached *state, cc_error *err)
{
    struct cci_buf text = {NULL, 0, 0, false};
    struct cci_manifest m;
    *out = NULL;
    *state = CCI_CACHED_HIT;
    cc_error_code code = cci_cached_manifest(s, *top, want, &text, &m, manifest, state, err);
    if (code || *state != CCI_CACHED_HIT)
        return code;
    *config = m.config.digest;
    code = cci_cached_image(s, &text, &m, want, out, state, err);
    cci_manifest_free(&m);
    cci_buf_free(&text);
    return code;
}

#endif
