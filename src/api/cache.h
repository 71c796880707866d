/*
 * api/cache.h - exports, and care of the cache: handles over image/export.h, cache.h and prune.h.
 */
#ifndef CCI_API_CACHE_H
#define CCI_API_CACHE_H

#include "../image/export.h"
#include "../image/prune.h"
#include "source.h"

/* The store of a client, counted: close it. */
static cc_error_code cci_client_store(cc_oci_client client, struct cci_store **out, cc_error *err)
{
    struct cci_object *o;
    cc_error_code code = cci_handle_get(client, CCI_KIND_CLIENT, &o, err);
    if (code)
        return code;
    *out = cci_store_ref(((struct cci_client *)o)->store);
    cci_object_unref(o);
    return CC_OK;
}

CC_API cc_error_code cc_oci_client_export_dir(cc_oci_client client, cc_instance_source source, const char *dir_path,
                                              cc_error *err)
{
    struct cci_store *store = NULL;
    struct cci_object *o;
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    cci_error_clear(err);
    cc_error_code code = dir_path ? cci_client_store(client, &store, err) : cci_api_null("dir_path", err);
    if (!code && !*dir_path)
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "dir_path is empty");
    if (!code)
        code = cci_handle_get(source, CCI_KIND_SOURCE, &o, err);
    if (!code) {
        code = cci_image_export(((struct cci_source *)o)->image, dir_path, &wait, err);
        cci_object_unref(o);
    }
    cci_store_close(store);
    return cci_api_end("export_dir", code, err);
}

/* ---- The list -------------------------------------------------------------------------------------------- */

CC_API void cc_image_info_free(cc_image_info *images, size_t count)
{
    for (size_t i = 0; images && i < count; i++) {
        cci_mem_free(images[i].reference);
        cci_mem_free(images[i].platform);
        cci_mem_free(images[i].digest);
        cci_mem_free(images[i].id);
        cci_mem_free(images[i].ref_digest);
    }
    cci_mem_free(images);
}

static bool cci_cache_copy_info(const struct cci_cache_image *from, cc_image_info *to)
{
    to->reference = cci_mem_strdup(from->ref.name);
    to->platform = cci_mem_strdup(cci_platform_spell(&from->ref.platform).text);
    to->digest = cci_mem_strdup(cci_digest_spell(&from->ref.manifest).text);
    to->id = cci_mem_strdup(cci_digest_spell(&from->ref.config).text);
    to->size = from->size;
    to->last_used_unix = from->ref.used_ns / 1000000000;
    to->complete = from->whole;
    to->ref_digest = cci_mem_strdup(cci_digest_spell(&from->ref.top).text);
    return to->reference && to->platform && to->digest && to->id && to->ref_digest;
}

static cc_error_code cci_cache_list_images(const struct cci_store *store, cc_image_info **out, size_t *count,
                                           cc_error *err)
{
    struct cci_cache_list l;
    cc_error_code code = cci_cache_read(store, &l, err);
    if (code)
        return code;
    cc_image_info *images = cci_mem_zalloc(l.count + 1, sizeof(*images));
    bool ok = images != NULL;
    for (size_t i = 0; i < l.count && ok; i++)
        ok = cci_cache_copy_info(&l.at[i], &images[i]);
    if (ok) {
        *out = images;
        *count = l.count;
    } else {
        cc_image_info_free(images, l.count);
        code = cci_fail_nomem(err);
    }
    cci_cache_list_free(&l);
    return code;
}

CC_API cc_error_code cc_oci_client_list(cc_oci_client client, cc_image_info **out, size_t *count, cc_error *err)
{
    struct cci_store *store = NULL;
    cci_error_clear(err);
    if (out)
        *out = NULL;
    if (count)
        *count = 0;
    cc_error_code code =
        out && count ? cci_client_store(client, &store, err) : cci_api_null(out ? "count" : "out", err);
    if (!code)
        code = cci_cache_list_images(store, out, count, err);
    cci_store_close(store);
    return cci_api_end("list", code, err);
}

/* ---- Removing -------------------------------------------------------------------------------------------- */

CC_API cc_error_code cc_oci_client_remove(cc_oci_client client, const char *image_ref, cc_error *err)
{
    struct cci_store *store = NULL;
    cci_error_clear(err);
    cc_error_code code = image_ref ? cci_client_store(client, &store, err) : cci_api_null("image_ref", err);
    if (!code)
        code = cci_cache_remove(store, image_ref, err);
    cci_store_close(store);
    return cci_api_end("remove", code, err);
}

CC_API cc_error_code cc_oci_client_prune(cc_oci_client client, cc_prune_result *out, cc_error *err)
{
    struct cci_store *store = NULL;
    struct cci_prune_result result;
    cci_error_clear(err);
    if (out)
        memset(out, 0, sizeof(*out));
    cc_error_code code = cci_client_store(client, &store, err);
    if (!code)
        code = cci_cache_prune(store, &result, err);
    if (!code && out) {
        out->bytes_freed = result.bytes;
        out->layers_removed = result.layers;
        out->blobs_removed = result.blobs;
        out->references_removed = result.references;
        out->blobs_busy = result.blobs_busy;
    }
    cci_store_close(store);
    return cci_api_end("prune", code, err);
}

#endif
