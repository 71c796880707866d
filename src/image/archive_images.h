/*
 * image/archive_images.h - which images a tar holds, and the choice among them.
 *
 * Two layouts are read. An OCI image layout (image specification 1.1, "Image Layout") has index.json, which lists
 * manifests, also through further indexes; names are in annotations. `docker save` before version 25, podman and skopeo
 * (docker-archive) have manifest.json, a list of configurations and layers; names are in RepoTags. Docker now writes
 * both into one tar: then the OCI one counts, which has the digests.
 *
 * An index often lists platforms whose blobs were left out of the tar; those are not there to be chosen. Attestations,
 * which look like images for the platform unknown/unknown, never fit.
 */
#ifndef CCI_IMAGE_ARCHIVE_IMAGES_H
#define CCI_IMAGE_ARCHIVE_IMAGES_H

#include "archive.h"
#include "config.h"
#include "reference.h"

#define CCI_ARCHIVE_MAX_NESTING 4 /* indexes in indexes */

/* One image of a tar. */
struct cci_archive_image {
    struct cci_strings names;
    struct cci_platform platform; /* as far as known */
    bool oci;
    struct cci_digest digest;  /* OCI: the manifest's */
    uint64_t size;             /* OCI: the manifest's */
    char *config;              /* docker-archive: member with the configuration */
    struct cci_strings layers; /* docker-archive: members with the layers, lowest first */
};

struct cci_archive_images {
    struct cci_archive *archive;
    struct cci_archive_image *at;
    size_t count, cap;
    size_t listed; /* entries of all indexes so far, */
    size_t absent; /* and those of them that are not there */
};

static void cci_archive_image_free(struct cci_archive_image *image)
{
    cci_strings_free(&image->names);
    cci_strings_free(&image->layers);
    cci_mem_free(image->config);
    memset(image, 0, sizeof(*image));
}

static void cci_archive_images_free(struct cci_archive_images *l)
{
    for (size_t i = 0; i < l->count; i++)
        cci_archive_image_free(&l->at[i]);
    cci_mem_free(l->at);
    memset(l, 0, sizeof(*l));
}

/* A new, zeroed image at the end of the list. */
static cc_error_code cci_archive_images_new(struct cci_archive_images *l, struct cci_archive_image **out, cc_error *err)
{
    if (l->count == CCI_MANIFEST_MAX_IMAGES)
        return cci_fail(err, CC_ERR_IO, l->archive->path, "the image file lists more than %d images",
                        CCI_MANIFEST_MAX_IMAGES);
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        struct cci_archive_image *at = cci_mem_resize(l->at, cap, sizeof(*at));
        if (!at)
            return cci_fail_nomem(err);
        l->at = at;
        l->cap = cap;
    }
    *out = &l->at[l->count++];
    memset(*out, 0, sizeof(**out));
    return CC_OK;
}

/* ---- OCI image layout -------------------------------------------------------------------------------- */

/* Adds an image, or another name to one that is there. */
static cc_error_code cci_archive_oci_image(struct cci_archive_images *l, const struct cci_descriptor *d,
                                           const struct cci_strings *names, cc_error *err)
{
    struct cci_archive_image *image = NULL;
    for (size_t i = 0; i < l->count && !image; i++)
        if (l->at[i].oci && cci_digest_equal(&l->at[i].digest, &d->digest))
            image = &l->at[i];
    if (!image) {
        cc_error_code code = cci_archive_images_new(l, &image, err);
        if (code)
            return code;
        image->oci = true;
        image->digest = d->digest;
        image->size = d->size;
        image->platform = d->platform;
    }
    return cci_strings_add_all(&image->names, (const char *const *)names->at, names->count) ? CC_OK
                                                                                            : cci_fail_nomem(err);
}

/* Lists what an index refers to. `names` are those of the index itself, which its images have too. */
static cc_error_code cci_archive_oci_index(struct cci_archive_images *l, struct cci_view text, enum cci_media expected,
                                           const struct cci_strings *names, int depth, cc_error *err);

static cc_error_code cci_archive_oci_nested(struct cci_archive_images *l, const struct cci_descriptor *d,
                                            const struct cci_strings *names, int depth, cc_error *err)
{
    struct cci_buf text;
    if (depth == CCI_ARCHIVE_MAX_NESTING)
        return cci_fail(err, CC_ERR_IO, l->archive->path, "the image file has indexes nested too deeply");
    cc_error_code code =
        cci_archive_read_blob(l->archive, &d->digest, d->size, CCI_MANIFEST_MAX_SIZE, "an image index", &text, err);
    if (code)
        return code;
    struct cci_view view = {text.p, text.n};
    code = cci_archive_oci_index(l, view, CCI_MEDIA_INDEX, names, depth + 1, err);
    cci_buf_free(&text);
    return code;
}

static cc_error_code cci_archive_oci_item(struct cci_archive_images *l, const struct cci_descriptor *d,
                                          const struct cci_strings *above, int depth, cc_error *err)
{
    struct cci_strings names = {NULL, 0};
    const char *name = d->name ? d->name : d->tag;
    if (l->listed++ == CCI_MANIFEST_MAX_IMAGES)
        return cci_fail(err, CC_ERR_IO, l->archive->path, "the image file lists more than %d images",
                        CCI_MANIFEST_MAX_IMAGES);
    /* One that is too long to be a name must not be copied to each image that an index lists. */
    bool ok = !name || strlen(name) >= CCI_REFERENCE_MAX || cci_strings_add(&names, name);
    if (above)
        ok = ok && cci_strings_add_all(&names, (const char *const *)above->at, above->count);
    cc_error_code code = CC_OK;
    if (!ok)
        code = cci_fail_nomem(err);
    else if (d->media == CCI_MEDIA_SCHEMA1)
        code = cci_fail(err, CC_ERR_IO, l->archive->path,
                        "the image file has a Docker schema 1 manifest, which is no "
                        "longer supported");
    else if (!cci_archive_blob(l->archive, &d->digest))
        l->absent++;
    else if (d->media == CCI_MEDIA_INDEX)
        code = cci_archive_oci_nested(l, d, &names, depth, err);
    else if (d->media == CCI_MEDIA_IMAGE)
        code = cci_archive_oci_image(l, d, &names, err);
    cci_strings_free(&names);
    return code;
}

static cc_error_code cci_archive_oci_index(struct cci_archive_images *l, struct cci_view text, enum cci_media expected,
                                           const struct cci_strings *names, int depth, cc_error *err)
{
    struct cci_manifest m;
    cc_error_code code = cci_manifest_parse(&m, text.p, text.n, expected, err);
    if (code)
        return code;
    for (size_t i = 0; i < m.count && !code; i++)
        code = cci_archive_oci_item(l, &m.items[i], names, depth, err);
    cci_manifest_free(&m);
    return code;
}

/* ---- docker-archive ----------------------------------------------------------------------------------- */

/* Fills an image from an entry of manifest.json. */
static cc_error_code cci_archive_docker_image(struct cci_archive_images *l, const struct cci_json *doc,
                                              const struct cci_json_value *v, cc_error *err)
{
    struct cci_archive_image *image;
    const char *config = cci_json_text(doc, cci_json_get(doc, v, "Config"));
    cc_error_code code = cci_archive_images_new(l, &image, err);
    if (!code && !config)
        code =
            cci_fail(err, CC_ERR_IO, l->archive->path, "manifest.json in the image file has an image with no Config");
    if (!code) {
        image->config = cci_mem_strdup(config);
        code = image->config ? CC_OK : cci_fail_nomem(err);
    }
    if (!code)
        code = cci_config_strings(&image->names, doc, v, "RepoTags", err);
    return code ? code : cci_config_strings(&image->layers, doc, v, "Layers", err);
}

static cc_error_code cci_archive_docker(struct cci_archive_images *l, struct cci_view text, cc_error *err)
{
    struct cci_json doc;
    cc_error_code code = cci_json_parse(&doc, text.p, text.n, "manifest.json in the image file", err);
    if (code)
        return code;
    const struct cci_json_value *root = cci_json_root(&doc);
    if (root->type != CCI_JSON_ARRAY)
        code = cci_fail(err, CC_ERR_IO, l->archive->path, "manifest.json in the image file is no list of images");
    for (const struct cci_json_value *v = cci_json_first(root); v && !code; v = cci_json_next(&doc, root, v))
        code = cci_archive_docker_image(l, &doc, v, err);
    cci_json_free(&doc);
    return code;
}

/* Lists the images of a tar. Free *l with cci_archive_images_free, also after a failure. */
static cc_error_code cci_archive_list(struct cci_archive_images *l, struct cci_archive *a, cc_error *err)
{
    const struct cci_archive_member *index = cci_archive_find(a, "index.json");
    const struct cci_archive_member *docker = cci_archive_find(a, "manifest.json");
    struct cci_buf text = {NULL, 0, 0, false};
    cc_error_code code = CC_OK;
    memset(l, 0, sizeof(*l));
    l->archive = a;
    if (index && cci_archive_find(a, "oci-layout")) {
        code = cci_archive_read(a, index, CCI_MANIFEST_MAX_SIZE, "index.json", &text, err);
        struct cci_view view = {text.p, text.n};
        if (!code)
            code = cci_archive_oci_index(l, view, CCI_MEDIA_INDEX, NULL, 0, err);
        cci_buf_free(&text);
    }
    if (!code && !l->count && docker) {
        code = cci_archive_read(a, docker, CCI_MANIFEST_MAX_SIZE, "manifest.json", &text, err);
        struct cci_view view = {text.p, text.n};
        if (!code)
            code = cci_archive_docker(l, view, err);
        cci_buf_free(&text);
    }
    if (!code && !l->count)
        code = cci_fail(
            err, CC_ERR_IO, a->path,
            l->absent ? "the image file lists images, but holds none of them"
            : index || docker
                ? "the image file lists no images"
                : "the file is no image: it has neither manifest.json (docker save) nor index.json (OCI layout)");
    return code;
}

/* ---- Reading one, and choosing ------------------------------------------------------------------------ */

static cc_error_code cci_archive_oci_config(struct cci_archive *a, const struct cci_archive_image *image,
                                            struct cci_manifest *m, struct cci_buf *manifest_text, struct cci_buf *text,
                                            cc_error *err)
{
    cc_error_code code = cci_archive_read_blob(a, &image->digest, image->size, CCI_MANIFEST_MAX_SIZE,
                                               "the image manifest", manifest_text, err);
    if (!code)
        code = cci_manifest_parse(m, manifest_text->p, manifest_text->n, CCI_MEDIA_IMAGE, err);
    if (!code)
        code = cci_archive_read_blob(a, &m->config.digest, m->config.size, CCI_CONFIG_MAX_SIZE,
                                     "the image configuration", text, err);
    return code;
}

/* The member of docker-archive that a path in manifest.json means. */
static cc_error_code cci_archive_docker_member(struct cci_archive *a, const char *path, const char *what,
                                               const struct cci_archive_member **out, cc_error *err)
{
    char clean[CCI_INDEX_MAX_PATH + 1];
    struct cci_view name = {(const uint8_t *)path, strlen(path)};
    *out = cci_layer_clean(name, clean, NULL) ? NULL : cci_archive_find(a, clean);
    if (!*out)
        return cci_fail(err, CC_ERR_IO, a->path, "%s \"%.200s\" is not in the image file", what, path);
    return CC_OK;
}

/* Its member is called by its digest: <hex>.json, or blobs/sha256/<hex>. */
static cc_error_code cci_archive_docker_config(struct cci_archive *a, const struct cci_archive_image *image,
                                               struct cci_buf *text, cc_error *err)
{
    const struct cci_archive_member *member;
    struct cci_digest want, got;
    const char *slash = strrchr(image->config, '/'), *base = slash ? slash + 1 : image->config;
    cc_error_code code = cci_archive_docker_member(a, image->config, "the image configuration", &member, err);
    if (!code)
        code = cci_archive_read(a, member, CCI_CONFIG_MAX_SIZE, "the image configuration", text, err);
    if (code || !cci_digest_from_hex(base, strcspn(base, "."), &want))
        return code;
    got = cci_digest_of(text->p, text->n);
    if (!cci_digest_equal(&want, &got))
        return cci_fail(err, CC_ERR_IO, a->path,
                        "the image configuration does not have its digest %s: it was damaged or "
                        "exchanged",
                        cci_digest_spell(&want).text);
    return CC_OK;
}

/* The manifest and configuration of an image, parsed and as they stand in the archive; the manifest is left empty for
 * docker-archive. Free all four on success. */
static cc_error_code cci_archive_image_read(struct cci_archive *a, const struct cci_archive_image *image,
                                            struct cci_manifest *m, struct cci_image_config *config,
                                            struct cci_buf *manifest_text, struct cci_buf *config_text, cc_error *err)
{
    memset(m, 0, sizeof(*m));
    memset(manifest_text, 0, sizeof(*manifest_text));
    memset(config_text, 0, sizeof(*config_text));
    cc_error_code code = image->oci ? cci_archive_oci_config(a, image, m, manifest_text, config_text, err)
                                    : cci_archive_docker_config(a, image, config_text, err);
    if (!code)
        code = cci_config_parse(config, config_text->p, config_text->n, err);
    if (code) {
        cci_manifest_free(m);
        cci_buf_free(manifest_text);
        cci_buf_free(config_text);
    }
    return code;
}

/* Finds out what an image is for, if its index does not say. */
static cc_error_code cci_archive_image_platform(struct cci_archive *a, struct cci_archive_image *image, cc_error *err)
{
    struct cci_manifest m;
    struct cci_image_config config;
    struct cci_buf manifest_text, config_text;
    if (image->platform.os[0] && image->platform.arch[0])
        return CC_OK;
    cc_error_code code = cci_archive_image_read(a, image, &m, &config, &manifest_text, &config_text, err);
    if (code)
        return code;
    image->platform = config.platform;
    cci_buf_free(&manifest_text);
    cci_buf_free(&config_text);
    cci_manifest_free(&m);
    cci_config_free(&config);
    return CC_OK;
}

static bool cci_archive_image_is(const struct cci_archive_image *image, const struct cci_reference *want)
{
    if (want->digest[0])
        return image->oci && strcmp(cci_digest_spell(&image->digest).text, want->digest) == 0;
    for (size_t i = 0; i < image->names.count; i++)
        if (cci_reference_matches(want, image->names.at[i]))
            return true;
    return false;
}

/* "NAME (PLATFORM), ..." of the images marked; as much as fits. */
static void cci_archive_images_spell(const struct cci_archive_images *l, const bool *marked, char *out, size_t n)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < l->count; i++) {
        const struct cci_archive_image *image = &l->at[i];
        const char *name = image->names.count ? image->names.at[0]
                           : image->oci       ? cci_digest_spell(&image->digest).text
                                              : image->config;
        if (!marked[i])
            continue;
        if (n - at < 300) {
            (void)snprintf(out + at, n - at, ", ...");
            return;
        }
        at += (size_t)snprintf(out + at, n - at, "%s%.150s%s (%s)", at ? ", " : "",
                               image->names.count || !image->oci ? "" : "@", name,
                               cci_platform_spell(&image->platform).text);
    }
}

/* Marks the images that fit best; returns how many. Their platforms are known. */
static size_t cci_archive_mark_platform(const struct cci_archive_images *l, bool *marked,
                                        const struct cci_platform *want)
{
    size_t count = 0;
    int best = 0;
    for (size_t i = 0; i < l->count; i++)
        if (marked[i])
            best = CCI_MAX(best, cci_platform_fit(&l->at[i].platform, want));
    for (size_t i = 0; i < l->count && best; i++) {
        marked[i] = marked[i] && cci_platform_fit(&l->at[i].platform, want) == best;
        count += marked[i];
    }
    return count;
}

static cc_error_code cci_archive_choose_marked(struct cci_archive_images *l, bool *marked, const char *reference,
                                               const struct cci_platform *want, size_t *chosen, cc_error *err)
{
    struct cci_reference ref;
    struct cci_platform platform = want ? *want : cci_platform_host();
    char list[1500];
    size_t count = 0;
    bool named = reference && cci_reference_parse(reference, &ref);
    cc_error_code code = CC_OK;
    for (size_t i = 0; i < l->count && !code; i++) {
        marked[i] = !reference || (named && cci_archive_image_is(&l->at[i], &ref));
        count += marked[i];
        if (marked[i])
            code = cci_archive_image_platform(l->archive, &l->at[i], err);
    }
    if (code)
        return code;
    if (count == 0) {
        for (size_t i = 0; i < l->count; i++)
            marked[i] = true;
        cci_archive_images_spell(l, marked, list, sizeof(list));
        return cci_fail(err, CC_ERR_IO, l->archive->path, "no image in the file is called \"%.200s\"; it holds %s",
                        reference, list);
    }
    cci_archive_images_spell(l, marked, list, sizeof(list));
    count = cci_archive_mark_platform(l, marked, &platform);
    if (count == 0)
        return cci_fail(err, CC_ERR_IO, l->archive->path, "no image in the file is for %s; it holds %s",
                        cci_platform_spell(&platform).text, list);
    if (count > 1) {
        cci_archive_images_spell(l, marked, list, sizeof(list));
        return cci_fail(err, CC_ERR_IO, l->archive->path,
                        "the file holds several images: put a colon and the name of one behind the path; there are %s",
                        list);
    }
    for (*chosen = 0; !marked[*chosen];)
        ++*chosen;
    return CC_OK;
}

/*
 * Chooses one image: by `reference`, if not NULL, and by platform: `want`, or this host's when NULL. An error lists
 * what there is.
 */
static cc_error_code cci_archive_choose(struct cci_archive_images *l, const char *reference,
                                        const struct cci_platform *want, size_t *chosen, cc_error *err)
{
    bool *marked = cci_mem_zalloc(l->count, sizeof(*marked));
    if (!marked)
        return cci_fail_nomem(err);
    cc_error_code code = cci_archive_choose_marked(l, marked, reference, want, chosen, err);
    cci_mem_free(marked);
    return code;
}

#endif
