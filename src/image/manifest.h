/*
 * image/manifest.h - image manifests and indexes.
 *
 * Reads the OCI image manifest and image index (image specification 1.1), Docker's image manifest version 2 schema 2
 * and manifest list, which differ in their media types only, and the manifest.json of `docker save`. All become
 * lists of descriptors: what a document refers to, with digest and size, so that it can be checked when it is read.
 *
 * Media type and content must agree (CVE-2021-41190): a document that is both an index and an image, or whose
 * mediaType differs from the one it was referred to by, would mean different things to different readers.
 */
#ifndef CCI_IMAGE_MANIFEST_H
#define CCI_IMAGE_MANIFEST_H

#include "digest.h"
#include "json.h"
#include "platform.h"

#define CCI_MANIFEST_MAX_SIZE ((uint64_t)4 << 20) /* bytes of a manifest or index, as registries limit them */
#define CCI_MANIFEST_MAX_LAYERS 512
#define CCI_MANIFEST_MAX_IMAGES 4096 /* in one index */

enum cci_media {
    CCI_MEDIA_UNKNOWN = 0, /* any other type; also: not said */
    CCI_MEDIA_INDEX,
    CCI_MEDIA_IMAGE,
    CCI_MEDIA_SCHEMA1, /* Docker's first manifests: refused */
    CCI_MEDIA_CONFIG,
    CCI_MEDIA_LAYER,      /* plain tar */
    CCI_MEDIA_LAYER_GZIP, /* gzip-compressed tar */
    CCI_MEDIA_LAYER_ZSTD, /* zstd-compressed tar */
};

struct cci_descriptor {
    enum cci_media media;
    char *media_text; /* as spelt; "" when not said */
    struct cci_digest digest;
    uint64_t size;                /* bytes */
    struct cci_platform platform; /* of an index's images, as far as said */
    char *name;                   /* a full image name from an annotation, or NULL */
    char *tag;                    /* org.opencontainers.image.ref.name: a tag, or a whole reference; or NULL */
    bool foreign;                 /* a layer that lies elsewhere, by URLs */
};

struct cci_manifest {
    enum cci_media media;         /* CCI_MEDIA_INDEX or CCI_MEDIA_IMAGE */
    struct cci_descriptor config; /* of an image */
    struct cci_descriptor *items; /* the images of an index, or the layers of an image, lowest first */
    size_t count;
};

static enum cci_media cci_media_parse(const char *text)
{
    static const struct {
        const char *text;
        enum cci_media media;
    } table[] = {
        {"application/vnd.oci.image.index.v1+json", CCI_MEDIA_INDEX},
        {"application/vnd.docker.distribution.manifest.list.v2+json", CCI_MEDIA_INDEX},
        {"application/vnd.oci.image.manifest.v1+json", CCI_MEDIA_IMAGE},
        {"application/vnd.docker.distribution.manifest.v2+json", CCI_MEDIA_IMAGE},
        {"application/vnd.docker.distribution.manifest.v1+json", CCI_MEDIA_SCHEMA1},
        {"application/vnd.docker.distribution.manifest.v1+prettyjws", CCI_MEDIA_SCHEMA1},
        {"application/vnd.oci.image.config.v1+json", CCI_MEDIA_CONFIG},
        {"application/vnd.docker.container.image.v1+json", CCI_MEDIA_CONFIG},
        {"application/vnd.oci.image.layer.v1.tar", CCI_MEDIA_LAYER},
        {"application/vnd.oci.image.layer.v1.tar+gzip", CCI_MEDIA_LAYER_GZIP},
        {"application/vnd.oci.image.layer.v1.tar+zstd", CCI_MEDIA_LAYER_ZSTD},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar", CCI_MEDIA_LAYER},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", CCI_MEDIA_LAYER_GZIP},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", CCI_MEDIA_LAYER_ZSTD},
        {"application/vnd.docker.image.rootfs.diff.tar", CCI_MEDIA_LAYER},
        {"application/vnd.docker.image.rootfs.diff.tar.gzip", CCI_MEDIA_LAYER_GZIP},
        {"application/vnd.docker.image.rootfs.diff.tar.zstd", CCI_MEDIA_LAYER_ZSTD},
        {"application/vnd.docker.image.rootfs.foreign.diff.tar", CCI_MEDIA_LAYER},
        {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", CCI_MEDIA_LAYER_GZIP},
    };
    for (size_t i = 0; text && i < CCI_COUNT(table); i++)
        if (strcmp(text, table[i].text) == 0)
            return table[i].media;
    return CCI_MEDIA_UNKNOWN;
}

static void cci_descriptor_free(struct cci_descriptor *d)
{
    cci_mem_free(d->media_text);
    cci_mem_free(d->name);
    cci_mem_free(d->tag);
    memset(d, 0, sizeof(*d));
}

static void cci_manifest_free(struct cci_manifest *m)
{
    for (size_t i = 0; i < m->count; i++)
        cci_descriptor_free(&m->items[i]);
    cci_mem_free(m->items);
    cci_descriptor_free(&m->config);
    memset(m, 0, sizeof(*m));
}

/* A copy of a string value to *out, NULL for any other. False when there is no memory. */
static bool cci_manifest_copy(const struct cci_json *doc, const struct cci_json_value *v, char **out)
{
    const char *text = cci_json_text(doc, v);
    *out = text ? cci_mem_strdup(text) : NULL;
    return !text || *out;
}

/* Fills a zeroed descriptor; `what` names what it describes. The caller frees it, also after a failure. */
static cc_error_code cci_descriptor_parse(struct cci_descriptor *d, const struct cci_json *doc,
                                          const struct cci_json_value *v, const char *what, cc_error *err)
{
    if (!v || v->type != CCI_JSON_OBJECT)
        return cci_fail(err, CC_ERR_IO, NULL, "the manifest's entry for %s is missing or no object", what);
    const char *media = cci_json_text(doc, cci_json_get(doc, v, "mediaType"));
    d->media = cci_media_parse(media);
    d->media_text = cci_mem_strdup(media ? media : "");
    const struct cci_json_value *notes = cci_json_get(doc, v, "annotations");
    const struct cci_json_value *urls = cci_json_get(doc, v, "urls");
    d->foreign = urls && urls->count > 0;
    if (!d->media_text || !cci_manifest_copy(doc, cci_json_get(doc, notes, "io.containerd.image.name"), &d->name) ||
        !cci_manifest_copy(doc, cci_json_get(doc, notes, "org.opencontainers.image.ref.name"), &d->tag))
        return cci_fail_nomem(err);
    const struct cci_json_value *p = cci_json_get(doc, v, "platform");
    d->platform = cci_platform_make(cci_json_text(doc, cci_json_get(doc, p, "os")),
                                    cci_json_text(doc, cci_json_get(doc, p, "architecture")),
                                    cci_json_text(doc, cci_json_get(doc, p, "variant")));
    if (!cci_json_size(doc, cci_json_get(doc, v, "size"), &d->size))
        return cci_fail(err, CC_ERR_IO, NULL, "the manifest's entry for %s has no valid size", what);
    return cci_digest_parse(cci_json_text(doc, cci_json_get(doc, v, "digest")), what, &d->digest, err);
}

/* Which kind of document this is, by its content, which `expected` and its own mediaType must not contradict. */
static cc_error_code cci_manifest_kind(const struct cci_json *doc, enum cci_media expected, enum cci_media *kind,
                                       cc_error *err)
{
    const struct cci_json_value *root = cci_json_root(doc);
    if (!root || root->type != CCI_JSON_OBJECT)
        return cci_fail(err, CC_ERR_IO, NULL, "the image manifest is not an object");
    const char *own = cci_json_text(doc, cci_json_get(doc, root, "mediaType"));
    uint64_t version = 0;
    (void)cci_json_size(doc, cci_json_get(doc, root, "schemaVersion"), &version);
    if (version == 1 || expected == CCI_MEDIA_SCHEMA1 || cci_media_parse(own) == CCI_MEDIA_SCHEMA1)
        return cci_fail(err, CC_ERR_IO, NULL,
                        "the image has a Docker schema 1 manifest, which is no longer supported: push it again with a "
                        "current tool");
    bool index = cci_json_get(doc, root, "manifests") != NULL;
    bool image = cci_json_get(doc, root, "layers") || cci_json_get(doc, root, "config");
    if (version != 2 || index == image)
        return cci_fail(err, CC_ERR_IO, NULL, "the image manifest is %s",
                        index && image ? "both an index and an image"
                        : version != 2 ? "of an unknown schemaVersion"
                                       : "neither an index nor an image");
    *kind = index ? CCI_MEDIA_INDEX : CCI_MEDIA_IMAGE;
    if (own && cci_media_parse(own) != *kind)
        return cci_fail(err, CC_ERR_IO, NULL,
                        "the image manifest's media type \"%.100s\" does not agree with its content", own);
    if (expected != CCI_MEDIA_UNKNOWN && expected != *kind)
        return cci_fail(err, CC_ERR_IO, NULL, "the image manifest is an %s, and what refers to it says otherwise",
                        index ? "index" : "image");
    return CC_OK;
}

static cc_error_code cci_manifest_items(struct cci_manifest *m, const struct cci_json *doc, const char *list,
                                        size_t most, cc_error *err)
{
    const char *what = m->media == CCI_MEDIA_INDEX ? "an image" : "a layer";
    const struct cci_json_value *items = cci_json_get(doc, cci_json_root(doc), list);
    if (!items || items->type != CCI_JSON_ARRAY)
        return cci_fail(err, CC_ERR_IO, NULL, "the image manifest has no array of %s", list);
    if (items->count > most)
        return cci_fail(err, CC_ERR_IO, NULL, "the image manifest has %u %s; at most %zu are read",
                        (unsigned)items->count, list, most);
    m->items = cci_mem_zalloc(items->count, sizeof(*m->items));
    if (!m->items)
        return cci_fail_nomem(err);
    for (const struct cci_json_value *v = cci_json_first(items); v; v = cci_json_next(doc, items, v)) {
        cc_error_code code = cci_descriptor_parse(&m->items[m->count++], doc, v, what, err);
        if (code)
            return code;
    }
    return CC_OK;
}

/* Whether the configuration is a container image's. Old tools pushed Docker manifests that say nothing useful of it;
 * Docker takes those for images, so they still are pulled. In OCI manifests the same words mean something else. */
static bool cci_manifest_config_is_image(const struct cci_json *doc, const struct cci_descriptor *config)
{
    static const char *const said[] = {"", "application/octet-stream", "application/json", "text/html"};
    const char *own = cci_json_text(doc, cci_json_get(doc, cci_json_root(doc), "mediaType"));
    bool docker = own && strcmp(own, "application/vnd.docker.distribution.manifest.v2+json") == 0;
    bool is = config->media == CCI_MEDIA_CONFIG;
    for (size_t i = 0; i < CCI_COUNT(said) && docker && !is; i++)
        is = strcmp(config->media_text, said[i]) == 0;
    return is;
}

/*
 * Parses a manifest or index whose digest was checked. `expected` is the kind it was referred to as, or
 * CCI_MEDIA_UNKNOWN. Free *m with cci_manifest_free, on success only.
 */
static cc_error_code cci_manifest_parse(struct cci_manifest *m, const void *text, size_t n, enum cci_media expected,
                                        cc_error *err)
{
    struct cci_json doc;
    memset(m, 0, sizeof(*m));
    cc_error_code code = cci_json_parse(&doc, text, n, "the image manifest", err);
    if (code)
        return code;
    code = cci_manifest_kind(&doc, expected, &m->media, err);
    if (!code && m->media == CCI_MEDIA_INDEX) {
        code = cci_manifest_items(m, &doc, "manifests", CCI_MANIFEST_MAX_IMAGES, err);
    } else if (!code) {
        const struct cci_json_value *config = cci_json_get(&doc, cci_json_root(&doc), "config");
        code = cci_descriptor_parse(&m->config, &doc, config, "the configuration", err);
        if (!code && !cci_manifest_config_is_image(&doc, &m->config))
            code = cci_fail(err, CC_ERR_IO, NULL,
                            "this is no container image: its configuration's media type is \"%.100s\"",
                            m->config.media_text);
        if (!code)
            code = cci_manifest_items(m, &doc, "layers", CCI_MANIFEST_MAX_LAYERS, err);
    }
    cci_json_free(&doc);
    if (code)
        cci_manifest_free(m);
    return code;
}

#endif
