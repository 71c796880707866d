/*
 * image/source.h - an image that instances can be made from: its configuration and its layers, open in the store.
 *
 * However an image came, it ends up as this: a configuration, and a chain of layers that are locked against removal.
 * Here is the way from an image tar: choose an image, read and check its manifest and configuration, and import the
 * layers that the store lacks, several at a time, each straight from its place in the tar.
 *
 * The compressed layers of a tar are not copied to blobs/: the caller has the file, and writing them a second time
 * would be a quarter of the import's disk traffic. Exporting such an image compresses anew: same diffIDs, other
 * digests.
 */
#ifndef CCI_IMAGE_SOURCE_H
#define CCI_IMAGE_SOURCE_H

#include "archive_images.h"
#include "import.h"
#include "rootfs.h"

#define CCI_SOURCE_MAX_WORKERS 4u /* layers imported at once; each takes two threads and about 3 MiB */

struct cci_image {
    struct cci_mutex mutex;
    unsigned refs;
    struct cci_store *store;
    struct cci_image_config config;
    struct cci_strings names;   /* what it is called, in full; none when that is not known */
    struct cci_buf config_text; /* the configuration byte for byte: its digest is the image's ID */
    struct cci_buf
        manifest_text;        /* the manifest as it came; empty when there was none (docker-archive, a plain tree) */
    struct cci_layer *layers; /* open, lowest first */
    size_t layer_count;
};

/* Where a layer comes from. */
struct cci_source_layer {
    const struct cci_archive_member *member;
    struct cci_import_spec spec;
};

/* The import of an image's layers, shared by the workers. */
struct cci_source_job {
    struct cci_image *image;
    struct cci_archive *archive;
    const struct cci_source_layer *layers;

    struct cci_mutex mutex; /* for the rest */
    size_t next;            /* layer that nobody has taken yet */
    cc_error_code code;     /* the first failure; nobody takes another layer then */
    cc_error err;
};

static struct cci_image *cci_image_ref(struct cci_image *image)
{
    cci_mutex_lock(&image->mutex);
    image->refs++;
    cci_mutex_unlock(&image->mutex);
    return image;
}

/* Gives up one reference; with the last one the layers are closed. NULL is fine. */
static void cci_image_free(struct cci_image *image)
{
    if (!image)
        return;
    cci_mutex_lock(&image->mutex);
    bool last = --image->refs == 0;
    cci_mutex_unlock(&image->mutex);
    if (!last)
        return;
    for (size_t i = 0; i < image->layer_count; i++)
        cci_layer_close(&image->layers[i]);
    cci_mem_free(image->layers);
    cci_config_free(&image->config);
    cci_strings_free(&image->names);
    cci_buf_free(&image->config_text);
    cci_buf_free(&image->manifest_text);
    cci_store_close(image->store);
    cci_mutex_destroy(&image->mutex);
    cci_mem_free(image);
}

static const struct cci_image_config *cci_image_config(const struct cci_image *image)
{
    return &image->config;
}

/* An image with no layers open yet; takes over the configuration, also on failure. */
static struct cci_image *cci_image_new(struct cci_store *store, struct cci_image_config *config)
{
    struct cci_image *image = cci_mem_zalloc(1, sizeof(*image));
    struct cci_layer *layers = cci_mem_zalloc(config->layer_count + 1, sizeof(*layers));
    if (!image || !layers) {
        cci_mem_free(image);
        cci_mem_free(layers);
        cci_config_free(config);
        return NULL;
    }
    cci_mutex_init(&image->mutex);
    image->refs = 1;
    image->store = cci_store_ref(store);
    image->config = *config;
    image->layers = layers;
    image->layer_count = config->layer_count;
    for (size_t i = 0; i < image->layer_count; i++)
        layers[i].fd = CCI_NO_FD;
    return image;
}

/* Gives an image the documents that it came with; they are empty afterwards. */
static void cci_image_take_texts(struct cci_image *image, struct cci_buf *manifest_text, struct cci_buf *config_text)
{
    image->manifest_text = *manifest_text;
    image->config_text = *config_text;
    memset(manifest_text, 0, sizeof(*manifest_text));
    memset(config_text, 0, sizeof(*config_text));
}

/* ---- Layers out of an archive ------------------------------------------------------------------------- */

static cc_error_code cci_source_feed(const struct cci_archive *a, const struct cci_archive_member *m, cci_fd fd,
                                     struct cci_import *im, uint8_t *chunk, cc_error *err)
{
    for (uint64_t at = 0; at < m->size;) {
        int64_t n = cci_os_pread_all(fd, chunk, (size_t)CCI_MIN(m->size - at, CCI_ARCHIVE_CHUNK), m->offset + at);
        if (n < 0)
            return cci_archive_fail_read(a, n, err);
        if (n == 0)
            return cci_fail(err, CC_ERR_IO, a->path, "the image file is cut short");
        cc_error_code code = cci_wait_check(a->wait, a->path, "reading an image", err);
        if (!code)
            code = cci_import_feed(im, chunk, (size_t)n, err);
        if (code)
            return code;
        at += (uint64_t)n;
    }
    return CC_OK;
}

static cc_error_code cci_source_import(struct cci_source_job *job, size_t i, cc_error *err)
{
    const struct cci_source_layer *from = &job->layers[i];
    struct cci_layer *to = &job->image->layers[i];
    struct cci_import *im;
    bool found;
    cc_error_code code = cci_store_layer_open(job->image->store, &from->spec.diff_id, to, &found, err);
    if (code || found)
        return code;
    uint8_t *chunk = cci_mem_alloc(CCI_ARCHIVE_CHUNK);
    if (!chunk)
        return cci_fail_nomem(err);
    cci_fd fd = CCI_NO_FD;
    code = cci_archive_enter(job->archive, from->member, &fd, err);
    if (!code)
        code = cci_import_begin(job->image->store, &from->spec, &im, err);
    if (!code) {
        code = cci_source_feed(job->archive, from->member, fd, im, chunk, err);
        if (code)
            cci_import_abort(im);
        else
            code = cci_import_finish(im, to, err);
    }
    cci_archive_leave(job->archive, fd);
    cci_mem_free(chunk);
    return code;
}

/* Imports layers until there are none left, or one failed. */
static void cci_source_work(void *ctx)
{
    struct cci_source_job *job = ctx;
    cci_mutex_lock(&job->mutex);
    while (!job->code && job->next < job->image->layer_count) {
        size_t i = job->next++;
        cc_error err;
        memset(&err, 0, sizeof(err));
        cci_mutex_unlock(&job->mutex);
        cc_error_code code = cci_source_import(job, i, &err);
        cci_mutex_lock(&job->mutex);
        if (code && !job->code) {
            job->code = code;
            job->err = err;
        } else {
            cci_error_release(&err);
        }
    }
    cci_mutex_unlock(&job->mutex);
}

static cc_error_code cci_source_run(struct cci_source_job *job, cc_error *err)
{
    struct cci_thread threads[CCI_SOURCE_MAX_WORKERS];
    size_t others = 0, most = CCI_MIN(cci_os_cpu_count(), CCI_SOURCE_MAX_WORKERS);
    cci_mutex_init(&job->mutex);
    /* This thread is one of the workers, so one that cannot be started is only missed. */
    while (others + 1 < CCI_MIN(most, job->image->layer_count) &&
           cci_thread_new(&threads[others], "cc-layer", cci_source_work, job) == 0)
        others++;
    cci_source_work(job);
    while (others)
        cci_thread_join(&threads[--others]);
    cci_mutex_destroy(&job->mutex);
    if (!job->code)
        return CC_OK;
    if (!err) {
        cci_error_release(&job->err);
        return job->code;
    }
    *err = job->err;
    return job->code;
}

/* ---- From an image tar -------------------------------------------------------------------------------- */

/* Finds layer i in an OCI layout. */
static cc_error_code cci_source_oci_layer(const struct cci_archive *a, const struct cci_descriptor *d, size_t i,
                                          struct cci_source_layer *out, cc_error *err)
{
    cc_error_code code = cci_import_check_media(d, i, a->path, err);
    if (code)
        return code;
    out->member = cci_archive_blob(a, &d->digest);
    if (!out->member)
        return cci_fail(err, CC_ERR_IO, a->path, "layer %zu (%s) is not in the image file%s", i + 1,
                        cci_digest_spell(&d->digest).text,
                        d->foreign ? ": it is one that is only found by its URL" : "");
    if (out->member->size != d->size)
        return cci_fail(err, CC_ERR_IO, a->path, "layer %zu (%s) has %llu bytes in place of %llu", i + 1,
                        cci_digest_spell(&d->digest).text, (unsigned long long)out->member->size,
                        (unsigned long long)d->size);
    out->spec.has_digest = true;
    out->spec.digest = d->digest;
    out->spec.size = d->size;
    out->spec.media = d->media;
    return CC_OK;
}

/* Finds all layers of an image. `layers` is zeroed and has room for them. */
static cc_error_code cci_source_find_layers(struct cci_archive *a, const struct cci_archive_image *from,
                                            const struct cci_manifest *m, const struct cci_image_config *config,
                                            struct cci_source_layer *layers, cc_error *err)
{
    cc_error_code code = CC_OK;
    for (size_t i = 0; i < config->layer_count && !code; i++) {
        layers[i].spec.diff_id = config->diff_ids[i];
        layers[i].spec.wait = a->wait;
        if (from->oci)
            code = cci_source_oci_layer(a, &m->items[i], i, &layers[i], err);
        else
            code = cci_archive_docker_member(a, from->layers.at[i], "the layer", &layers[i].member, err);
    }
    return code;
}

/* Makes an image of one of an archive's. */
static cc_error_code cci_source_load(struct cci_store *store, struct cci_archive *a,
                                     const struct cci_archive_image *from, struct cci_image **out, cc_error *err)
{
    struct cci_manifest m;
    struct cci_image_config config;
    struct cci_buf manifest_text, config_text;
    cc_error_code code = cci_archive_image_read(a, from, &m, &config, &manifest_text, &config_text, err);
    if (code)
        return code;
    size_t count = from->oci ? m.count : from->layers.count;
    struct cci_source_layer *layers = cci_mem_zalloc(count + 1, sizeof(*layers));
    struct cci_image *image = NULL;
    if (count != config.layer_count)
        code = cci_fail(err, CC_ERR_IO, a->path, "the image's manifest has %zu layers, and its configuration %zu",
                        count, config.layer_count);
    else if (layers)
        code = cci_source_find_layers(a, from, &m, &config, layers, err);
    if (code) {
        cci_config_free(&config);
    } else {
        image = cci_image_new(store, &config);
        if (!image || !layers)
            code = cci_fail_nomem(err);
        if (image)
            cci_image_take_texts(image, &manifest_text, &config_text);
    }
    if (!code) {
        struct cci_source_job job;
        memset(&job, 0, sizeof(job));
        job.image = image;
        job.archive = a;
        job.layers = layers;
        code = cci_source_run(&job, err);
    }
    cci_manifest_free(&m);
    cci_buf_free(&manifest_text);
    cci_buf_free(&config_text);
    cci_mem_free(layers);
    if (code)
        cci_image_free(image);
    else
        *out = image;
    return code;
}

/* Splits PATH[:REFERENCE]: the longest part before a colon that is there and of this kind, or all. *reference is NULL
 * if there is none. */
static char *cci_source_split(const char *path, enum cci_os_kind kind, const char **reference)
{
    struct cci_os_stat st;
    char *file = cci_mem_strdup(path);
    *reference = NULL;
    if (!file || cci_os_stat(file, &st) == 0)
        return file;
    for (size_t n = strlen(path); n-- > 1;) {
        if (path[n] != ':')
            continue;
        file[n] = '\0';
        if (path[n + 1] && cci_os_stat(file, &st) == 0 && st.kind == kind) {
            *reference = path + n + 1;
            return file;
        }
    }
    strcpy(file, path); /* it will be said that this does not exist */
    return file;
}

/* Makes the root filesystem's metadata if the store lacks it: an image that cannot become one is refused when it is
 * loaded, and the first instance of one that can does not wait for it. */
static cc_error_code cci_image_prepare(const struct cci_image *image, const struct cci_wait *wait, cc_error *err)
{
    struct cci_disk disk;
    cc_error_code code = cci_rootfs_open(image->store, image->layers, image->layer_count, wait, &disk, err);
    cci_disk_free(&disk);
    return code;
}

/* Whether a name has none but the characters that references are made of, and so fits into a line and into JSON. */
static bool cci_image_name_is_plain(const char *name)
{
    for (; *name; name++)
        if (*name <= ' ' || *name > '~' || *name == '"' || *name == '\\')
            return false;
    return true;
}

/* Notes what an image is called: names from an archive, some of which may be mere tags, and belong to no repository. */
static cc_error_code cci_image_set_names(struct cci_image *image, const struct cci_strings *names, cc_error *err)
{
    for (size_t i = 0; i < names->count; i++) {
        struct cci_reference r;
        const char *name = names->at[i];
        if (!strpbrk(name, ":/") || !cci_reference_parse(name, &r) || !cci_image_name_is_plain(r.name))
            continue;
        if (!cci_strings_add(&image->names, r.name))
            return cci_fail_nomem(err);
    }
    return CC_OK;
}

/* Loads the chosen image of an open archive. */
static cc_error_code cci_image_load_archive(struct cci_store *store, struct cci_archive *archive, const char *reference,
                                            const struct cci_platform *want, struct cci_image **out, cc_error *err)
{
    struct cci_archive_images images;
    size_t chosen = 0;
    cc_error_code code = cci_archive_list(&images, archive, err);
    if (!code)
        code = cci_archive_choose(&images, reference, want, &chosen, err);
    if (!code)
        code = cci_source_load(store, archive, &images.at[chosen], out, err);
    if (!code)
        code = cci_image_set_names(*out, &images.at[chosen].names, err);
    if (!code)
        code = cci_image_prepare(*out, archive->wait, err);
    if (code) {
        cci_image_free(*out);
        *out = NULL;
    }
    cci_archive_images_free(&images);
    return code;
}

/*
 * Loads an image from a tar, `path` with an optional colon and reference behind it. `want` NULL is this host's
 * platform. *wait is looked at throughout. Free the image with cci_image_free; it keeps the store.
 */
static cc_error_code cci_image_load_tar(struct cci_store *store, const char *path, const struct cci_platform *want,
                                        const struct cci_wait *wait, struct cci_image **out, cc_error *err)
{
    struct cci_archive archive;
    const char *reference;
    *out = NULL;
    char *file = cci_source_split(path, CCI_OS_FILE, &reference);
    if (!file)
        return cci_fail_nomem(err);
    cc_error_code code = cci_archive_open(&archive, store, file, wait, err);
    cci_mem_free(file);
    if (!code) {
        code = cci_image_load_archive(store, &archive, reference, want, out, err);
        cci_archive_close(&archive);
    }
    if (code && err && !err->path)
        err->path = cci_mem_strdup(path);
    return code;
}

#endif
