/*
 * image/cache.h - care of the cache directory: which images it has, forgetting one, and giving up what nobody needs.
 *
 * Images live in the cache by their references (refs.h): a reference names a manifest and a configuration, and the
 * configuration names the layers. Removing an image removes its reference, nothing else. Pruning then removes what no
 * reference leads to:
 *
 *   layers     those that nobody has open. A layer is locked exclusively first; then the references are read again, as
 *              a pull that had it open may have written one meanwhile; then it moves to tmp/ and goes. Whoever waits
 * for its lock finds it gone, and imports it anew. So this is safe beside anything. blobs      under blobs/'s exclusive
 * lock, as a blob is not locked between its coming and its reference (blob.h). While a pull is under way the lock is
 * taken, and blobs are left for the next time. partial/   downloads that broke off: those that nobody goes on with,
 * each under its lock rootfs/    metadata for other chains of layers than the references'; who has it open keeps it,
 * and who needs it again makes it again
 *
 * A reference whose configuration is gone, or is none, names no image; pruning removes it.
 */
#ifndef CCI_IMAGE_CACHE_H
#define CCI_IMAGE_CACHE_H

#include "manifest_write.h"
#include "refs.h"

#define CCI_CACHE_MAX_LOCKS 64u /* layers that are locked at once: each takes a descriptor */

/* One reference, and what is known of its image. */
struct cci_cache_image {
    struct cci_ref ref;
    uint64_t size; /* bytes of its layers on disk */
    bool whole;    /* its configuration and all its layers are there */
};

struct cci_cache_list {
    const struct cci_store *store;
    struct cci_cache_image *at;
    size_t count, cap;
    struct cci_buf keep_blobs, keep_layers, keep_chains; /* arrays of struct cci_digest, for pruning; not sorted */
    cc_error_code code;
    cc_error *err;
};

static void cci_cache_list_free(struct cci_cache_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        cci_ref_free(&l->at[i].ref);
    cci_mem_free(l->at);
    cci_buf_free(&l->keep_blobs);
    cci_buf_free(&l->keep_layers);
    cci_buf_free(&l->keep_chains);
}

/* ---- Reading the references -------------------------------------------------------------------------- */

static bool cci_cache_keep(struct cci_buf *set, const struct cci_digest *d)
{
    return cci_buf_add(set, d->bytes, sizeof(d->bytes));
}

static bool cci_cache_keeps(const struct cci_buf *set, const char *hex)
{
    struct cci_digest d;
    if (strlen(hex) < 64 || !cci_digest_from_hex(hex, 64, &d))
        return false;
    for (size_t at = 0; at < set->n; at += sizeof(d.bytes))
        if (memcmp(set->p + at, d.bytes, sizeof(d.bytes)) == 0)
            return true;
    return false;
}

/* What the files of a layer take on disk; false when the layer is not there. */
static bool cci_cache_layer_size(const struct cci_store *s, const struct cci_digest *diff_id, uint64_t *size)
{
    static const char *const names[] = {"data", "index", "tar"};
    char *dir = cci_store_path(s, "layers", cci_digest_spell(diff_id).text + 7);
    bool there = dir != NULL;
    for (size_t i = 0; i < CCI_COUNT(names) && dir; i++) {
        struct cci_os_stat st;
        char *path = cci_layer_file(dir, names[i]);
        if (path && cci_os_lstat(path, &st) == 0)
            *size += st.allocated;
        else
            there = there && i == 2; /* an older version wrote no recipes */
        cci_mem_free(path);
    }
    cci_mem_free(dir);
    return there;
}

/* Notes the chain of an image's layers. */
static bool cci_cache_keep_chain(struct cci_cache_list *l, const struct cci_image_config *config)
{
    struct cci_layer *layers = cci_mem_zalloc(config->layer_count + 1, sizeof(*layers));
    if (!layers)
        return false;
    for (size_t i = 0; i < config->layer_count; i++)
        layers[i].diff_id = config->diff_ids[i];
    struct cci_digest chain = cci_rootfs_chain_id(layers, config->layer_count);
    cci_mem_free(layers);
    return cci_cache_keep(&l->keep_chains, &chain);
}

/* Reads an image's configuration: which layers it has. */
static cc_error_code cci_cache_read_config(struct cci_cache_list *l, struct cci_cache_image *image)
{
    struct cci_buf text;
    struct cci_image_config config;
    cc_error_code code = cci_blob_read(l->store, &image->ref.config, CCI_CONFIG_MAX_SIZE, &text, &image->whole, l->err);
    if (code || !image->whole)
        return code;
    image->whole = cci_config_parse(&config, text.p, text.n, NULL) == CC_OK;
    cci_buf_free(&text);
    if (!image->whole)
        return CC_OK;
    bool ok = cci_cache_keep_chain(l, &config);
    for (size_t i = 0; i < config.layer_count; i++) {
        image->whole = cci_cache_layer_size(l->store, &config.diff_ids[i], &image->size) && image->whole;
        ok = ok && cci_cache_keep(&l->keep_layers, &config.diff_ids[i]);
    }
    cci_config_free(&config);
    return ok ? CC_OK : cci_fail_nomem(l->err);
}

/* Reads an image's manifest: which compressed layers it has. One that is not there, or is no manifest, has none. */
static cc_error_code cci_cache_read_manifest(struct cci_cache_list *l, const struct cci_cache_image *image)
{
    struct cci_buf text;
    struct cci_manifest m;
    bool found, ok = cci_cache_keep(&l->keep_blobs, &image->ref.top) &&
                     cci_cache_keep(&l->keep_blobs, &image->ref.manifest) &&
                     cci_cache_keep(&l->keep_blobs, &image->ref.config);
    cc_error_code code = cci_blob_read(l->store, &image->ref.manifest, CCI_MANIFEST_MAX_SIZE, &text, &found, l->err);
    if (!code && found && cci_manifest_parse(&m, text.p, text.n, CCI_MEDIA_IMAGE, NULL) == CC_OK) {
        for (size_t i = 0; i < m.count; i++)
            ok = ok && cci_cache_keep(&l->keep_blobs, &m.items[i].digest);
        cci_manifest_free(&m);
    }
    if (!code)
        cci_buf_free(&text);
    return code ? code : ok ? CC_OK : cci_fail_nomem(l->err);
}

/* Adds the reference in a file of refs/. */
static int cci_cache_add_ref(void *ctx, const char *file)
{
    struct cci_cache_list *l = ctx;
    struct cci_ref ref;
    bool found;
    l->code = cci_ref_read_file(l->store, file, &ref, &found, l->err);
    if (l->code || !found)
        return l->code ? 1 : 0;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        struct cci_cache_image *at = cci_mem_resize(l->at, cap, sizeof(*at));
        if (!at) {
            cci_ref_free(&ref);
            l->code = cci_fail_nomem(l->err);
            return 1;
        }
        l->at = at;
        l->cap = cap;
    }
    struct cci_cache_image *image = &l->at[l->count++];
    memset(image, 0, sizeof(*image));
    image->ref = ref;
    l->code = cci_cache_read_config(l, image);
    if (!l->code)
        l->code = cci_cache_read_manifest(l, image);
    return l->code ? 1 : 0;
}

static int cci_cache_order(const void *a, const void *b)
{
    const struct cci_cache_image *x = a, *y = b;
    int order = strcmp(x->ref.name, y->ref.name);
    return order ? order : strcmp(cci_platform_spell(&x->ref.platform).text, cci_platform_spell(&y->ref.platform).text);
}

/* Reads all references, sorted by name. Free *l with cci_cache_list_free, on success only. */
static cc_error_code cci_cache_read(const struct cci_store *s, struct cci_cache_list *l, cc_error *err)
{
    memset(l, 0, sizeof(*l));
    l->store = s;
    l->err = err;
    char *dir = cci_store_path(s, "refs", "");
    int r = dir ? cci_os_read_dir(dir, cci_cache_add_ref, l) : -ENOMEM;
    if (r < 0 && !l->code)
        l->code = cci_store_fail(err, r, dir, "list the references");
    cci_mem_free(dir);
    if (l->code)
        cci_cache_list_free(l);
    else if (l->count)
        qsort(l->at, l->count, sizeof(*l->at), cci_cache_order);
    return l->code;
}

/* ---- Remembering and forgetting ---------------------------------------------------------------------- */

/*
 * Writes references for the names that a loaded image has, so that it opens again without its file. An image without a
 * name is not remembered. `want` is what was asked for.
 */
static cc_error_code cci_cache_remember(const struct cci_image *image, const struct cci_platform *want, cc_error *err)
{
    struct cci_manifest_layer *layers;
    struct cci_buf manifest;
    struct cci_ref ref;
    cci_fd lock;
    if (!image->names.count)
        return CC_OK;
    cc_error_code code = cci_blob_lock(image->store, CCI_OS_LOCK_SHARED, true, &lock, err);
    if (code)
        return code;
    code = cci_manifest_make(image, &layers, &manifest, err);
    if (!code) {
        ref.platform = *want;
        ref.config = cci_digest_of(image->config_text.p, image->config_text.n);
        ref.manifest = ref.top = cci_digest_of(manifest.p, manifest.n);
        code = cci_blob_write(image->store, &ref.config, image->config_text.p, image->config_text.n, err);
        if (!code)
            code = cci_blob_write(image->store, &ref.manifest, manifest.p, manifest.n, err);
        for (size_t i = 0; i < image->names.count && !code; i++) {
            ref.name = image->names.at[i];
            code = cci_ref_write(image->store, &ref, err);
        }
        cci_mem_free(layers);
        cci_buf_free(&manifest);
    }
    cci_os_close(lock);
    return code;
}

/* Whether a reference is what `text` means: a name, or the digest of the manifest or configuration, or its first
 * twelve digits or more. */
static bool cci_cache_is(const struct cci_ref *ref, const char *text, const struct cci_reference *want)
{
    const char *hex = strncmp(text, "sha256:", 7) == 0 ? text + 7 : text;
    size_t n = strlen(hex);
    if (n >= 12 && n <= 64 && strspn(hex, "0123456789abcdef") == n)
        if (strncmp(cci_digest_spell(&ref->config).text + 7, hex, n) == 0 ||
            strncmp(cci_digest_spell(&ref->manifest).text + 7, hex, n) == 0 ||
            strncmp(cci_digest_spell(&ref->top).text + 7, hex, n) == 0)
            return true;
    const char *at = strchr(ref->name, '@');
    return want && strcmp(want->digest, at ? at + 1 : "") == 0 && cci_reference_matches(want, ref->name);
}

static cc_error_code cci_cache_unlink_ref(const struct cci_store *s, const struct cci_ref *ref, cc_error *err)
{
    char file[72];
    cci_ref_file(ref->name, &ref->platform, file);
    char *path = cci_store_path(s, "refs", file);
    int r = path ? cci_os_unlink(path) : -ENOMEM;
    cci_mem_free(path);
    return r < 0 && r != -ENOENT ? cci_store_fail(err, r, ref->name, "remove a reference") : CC_OK;
}

/* Removes the references that `text` means, of every platform. CC_ERR_IO when there are none. */
static cc_error_code cci_cache_remove(const struct cci_store *s, const char *text, cc_error *err)
{
    struct cci_cache_list l;
    struct cci_reference want;
    bool named = cci_reference_parse(text, &want);
    size_t removed = 0;
    cc_error_code code = cci_cache_read(s, &l, err);
    if (code)
        return code;
    for (size_t i = 0; i < l.count && !code; i++) {
        if (!cci_cache_is(&l.at[i].ref, text, named ? &want : NULL))
            continue;
        code = cci_cache_unlink_ref(s, &l.at[i].ref, err);
        removed++;
    }
    cci_cache_list_free(&l);
    if (!code && !removed)
        code = cci_fail_errno(err, CC_ERR_IO, ENOENT, text, "no image called \"%.200s\" is in the cache", text);
    return code;
}

#endif
