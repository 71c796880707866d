/*
 * api/source.h - clients and instance sources: handles over the store and the images in it (image/source.h).
 */
#ifndef CCI_API_SOURCE_H
#define CCI_API_SOURCE_H

#include "../image/cache.h"
#include "../image/load_dir.h"
#include "../image/source.h"
#include "../registry/auth_memory.h"
#include "../registry/name.h"
#include "lib.h"

struct cci_client {
    struct cci_object object;
    struct cci_store *store;
    struct cci_auth_memory auth; /* what registries accepted */
};

struct cci_source {
    struct cci_object object;
    struct cci_image *image;
};

/* ---- Clients --------------------------------------------------------------------------------------------- */

static void cci_client_destroy(struct cci_object *o)
{
    struct cci_client *c = (struct cci_client *)o;
    cci_auth_memory_destroy(&c->auth);
    cci_store_close(c->store);
    cci_mem_free(c);
}

/* `dir` NULL is the default. */
static cc_error_code cci_client_make(const char *dir, cc_oci_client *out, cc_error *err)
{
    struct cci_client *c = cci_mem_zalloc(1, sizeof(*c));
    if (!c)
        return cci_fail_nomem(err);
    cc_error_code code = cci_store_open(dir, &c->store, err);
    if (code) {
        cci_mem_free(c);
        return code;
    }
    cci_auth_memory_init(&c->auth);
    cci_object_init(&c->object, cci_client_destroy);
    return cci_handle_publish(&c->object, CCI_KIND_CLIENT, out, err);
}

CC_API cc_error_code cc_oci_client_new(cc_oci_client *out, cc_error *err)
{
    cci_error_clear(err);
    if (out)
        *out = 0;
    return cci_api_end("client_new", out ? cci_client_make(NULL, out, err) : cci_api_null("out", err), err);
}

CC_API cc_error_code cc_oci_client_new_with_cache(const char *cache_dir, cc_oci_client *out, cc_error *err)
{
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = CC_OK;
    if (!out || !cache_dir)
        code = cci_api_null(out ? "cache_dir" : "out", err);
    else if (!cache_dir[0])
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "cache_dir is empty");
    else
        code = cci_client_make(cache_dir, out, err);
    return cci_api_end("client_new", code, err);
}

CC_API void cc_oci_client_free(cc_oci_client client)
{
    cci_handle_drop(client, CCI_KIND_CLIENT);
}

CC_API char *cc_oci_client_cache_dir(cc_oci_client client)
{
    struct cci_object *o;
    if (cci_handle_get(client, CCI_KIND_CLIENT, &o, NULL) != CC_OK)
        return NULL;
    char *dir = cci_mem_strdup(((struct cci_client *)o)->store->dir);
    cci_object_unref(o);
    return dir;
}

/* ---- Sources --------------------------------------------------------------------------------------------- */

static void cci_source_destroy(struct cci_object *o)
{
    cci_image_free(((struct cci_source *)o)->image);
    cci_mem_free(o);
}

/* Gives an image its handle; takes over the image, also on failure. */
static cc_error_code cci_source_publish(struct cci_image *image, cc_instance_source *out, cc_error *err)
{
    struct cci_source *s = cci_mem_zalloc(1, sizeof(*s));
    if (!s) {
        cci_image_free(image);
        return cci_fail_nomem(err);
    }
    cci_object_init(&s->object, cci_source_destroy);
    s->image = image;
    return cci_handle_publish(&s->object, CCI_KIND_SOURCE, out, err);
}

/* Forgets those of an image's names that a pull would not find it by: a file may call its images anything. One with a
 * digest goes too, as what is in the file need not be what that digest stands for. */
static void cci_source_keep_references(struct cci_strings *names)
{
    size_t kept = 0;
    for (size_t i = 0; i < names->count; i++) {
        struct cci_name name;
        if (cci_name_parse(&name, names->at[i], NULL) == CC_OK && strcmp(name.full, names->at[i]) == 0)
            names->at[kept++] = names->at[i];
        else
            cci_mem_free(names->at[i]);
    }
    for (size_t i = kept; i < names->count; i++)
        names->at[i] = NULL;
    names->count = kept;
}

/* cci_image_load_tar or cci_image_load_dir. */
typedef cc_error_code cci_source_loader(struct cci_store *store, const char *path, const struct cci_platform *want,
                                        const struct cci_wait *wait, struct cci_image **out, cc_error *err);

static cc_error_code cci_source_load_path(struct cci_client *c, cci_source_loader *load, const char *path,
                                          const cc_pull_options *opts, cc_instance_source *out, cc_error *err)
{
    struct cci_image *image;
    struct cci_cancel *cancel;
    struct cci_platform want = cci_platform_host();
    if (opts && (opts->platform_os || opts->platform_arch))
        want = cci_platform_make(opts->platform_os ? opts->platform_os : "linux",
                                 opts->platform_arch ? opts->platform_arch : want.arch, NULL);
    cc_error_code code = cci_token_use(opts ? opts->cancel : 0, &cancel, err);
    if (code)
        return code;
    const struct cci_wait wait = {CCI_FOREVER, cancel};
    code = load(c->store, path, &want, &wait, &image, err);
    if (!code) {
        cci_source_keep_references(&image->names);
        code = cci_cache_remember(image, &want, err);
        if (code)
            cci_image_free(image);
    }
    cci_cancel_unref(cancel);
    return code ? code : cci_source_publish(image, out, err);
}

static cc_error_code cci_source_load_call(cc_oci_client client, cci_source_loader *load, const char *path,
                                          const char *path_name, const cc_pull_options *opts, cc_instance_source *out,
                                          cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    if (out)
        *out = 0;
    if (!out || !path)
        return cci_api_null(out ? path_name : "out", err);
    cc_error_code code = cci_handle_get(client, CCI_KIND_CLIENT, &o, err);
    if (code)
        return code;
    code = cci_source_load_path((struct cci_client *)o, load, path, opts, out, err);
    cci_object_unref(o);
    return code;
}

CC_API cc_error_code cc_oci_client_load_tar(cc_oci_client client, const char *tar_path, const cc_pull_options *opts,
                                            cc_instance_source *out, cc_error *err)
{
    return cci_api_end("load_tar",
                       cci_source_load_call(client, cci_image_load_tar, tar_path, "tar_path", opts, out, err), err);
}

CC_API cc_error_code cc_oci_client_load_dir(cc_oci_client client, const char *dir_path, const cc_pull_options *opts,
                                            cc_instance_source *out, cc_error *err)
{
    return cci_api_end("load_dir",
                       cci_source_load_call(client, cci_image_load_dir, dir_path, "dir_path", opts, out, err), err);
}

CC_API void cc_instance_source_free(cc_instance_source source)
{
    cci_handle_drop(source, CCI_KIND_SOURCE);
}

/* ---- Configuration --------------------------------------------------------------------------------------- */

static bool cci_source_copy_list(const struct cci_strings *from, char ***out, size_t *count)
{
    struct cci_strings copy = {0};
    if (cci_strings_add_all(&copy, (const char *const *)from->at, from->count))
        *out = cci_strings_release(&copy, count);
    cci_strings_free(&copy);
    return *out != NULL;
}

static bool cci_source_copy_config(const struct cci_image *image, cc_image_config *to)
{
    const struct cci_image_config *from = &image->config;
    struct cci_digest id = cci_digest_of(image->config_text.p, image->config_text.n);
    to->os = cci_mem_strdup(from->platform.os);
    to->architecture = cci_mem_strdup(from->platform.arch);
    to->working_dir = cci_mem_strdup(from->working_dir);
    to->user = cci_mem_strdup(from->user);
    to->id = cci_mem_strdup(cci_digest_spell(&id).text);
    return to->os && to->architecture && to->working_dir && to->user && to->id &&
           cci_source_copy_list(&from->env, &to->env, &to->env_count) &&
           cci_source_copy_list(&from->entrypoint, &to->entrypoint, &to->entrypoint_count) &&
           cci_source_copy_list(&from->cmd, &to->cmd, &to->cmd_count) &&
           cci_source_copy_list(&image->names, &to->names, &to->names_count);
}

CC_API void cc_image_config_free(cc_image_config *config)
{
    if (!config)
        return;
    cci_mem_free(config->os);
    cci_mem_free(config->architecture);
    cci_mem_free(config->working_dir);
    cci_mem_free(config->user);
    cci_mem_free(config->id);
    cc_free_string_array(config->env, config->env_count);
    cc_free_string_array(config->entrypoint, config->entrypoint_count);
    cc_free_string_array(config->cmd, config->cmd_count);
    cc_free_string_array(config->names, config->names_count);
    cci_mem_free(config);
}

CC_API cc_error_code cc_source_get_config(cc_instance_source source, cc_image_config **out, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    if (out)
        *out = NULL;
    cc_error_code code = out ? cci_handle_get(source, CCI_KIND_SOURCE, &o, err) : cci_api_null("out", err);
    if (code == CC_OK) {
        cc_image_config *copy = cci_mem_zalloc(1, sizeof(*copy));
        if (copy && cci_source_copy_config(((struct cci_source *)o)->image, copy)) {
            *out = copy;
        } else {
            cc_image_config_free(copy);
            code = cci_fail_nomem(err);
        }
        cci_object_unref(o);
    }
    return cci_api_end("source_get_config", code, err);
}

#endif
