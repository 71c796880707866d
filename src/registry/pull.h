/*
 * registry/pull.h - from a reference to an image in the store.
 *
 *     reference -> cache? -> manifest (through an index, by platform) -> configuration -> which layers the store lacks
 *               -> those, several at once (layer_fetch.h) -> root filesystem -> refs/
 *
 * The documents are pull_documents.h's. Layers that are only found by URL are refused.
 *
 * The calling thread fetches the documents, then waits and reports progress while workers fetch layers. Each worker
 * takes the next layer; the first failure ends the others at once, by a cancel token of the pull's own, which the
 * caller's fires as well. A layer that a manifest lists twice is fetched once.
 */
#ifndef CCI_REGISTRY_PULL_H
#define CCI_REGISTRY_PULL_H

#include "pull_documents.h"

/* ---- Layers --------------------------------------------------------------------------------------------------- */

static cc_error_code cci_pull_check_layer(const struct cci_pull *p, size_t i, cc_error *err)
{
    const struct cci_descriptor *d = &p->manifest.items[i];
    if (d->foreign)
        return cci_fail(err, CC_ERR_IO, p->name.full,
                        "layer %zu (%s) is one that is only found by its URL (foreign), which is not supported", i + 1,
                        cci_digest_spell(&d->digest).text);
    return cci_import_check_media(d, i, p->name.full, err);
}

/* Whether an earlier layer of the image is the same one, so that it is only waited for. */
static bool cci_pull_is_repeated(const struct cci_pull *p, size_t i)
{
    for (size_t k = 0; k < p->todo_count; k++)
        if (cci_digest_equal(&p->specs[k].diff_id, &p->image->config.diff_ids[i]))
            return true;
    return false;
}

/* Opens the layers that the store has, and lists those that it lacks. */
static cc_error_code cci_pull_plan(struct cci_pull *p, cc_error *err)
{
    size_t count = p->image->layer_count;
    p->todo = cci_mem_zalloc(count, sizeof(*p->todo));
    p->specs = cci_mem_zalloc(count, sizeof(*p->specs));
    p->names = cci_mem_zalloc(count, sizeof(*p->names));
    if (!p->todo || !p->specs || !p->names)
        return cci_fail_nomem(err);
    for (size_t i = 0; i < count; i++) {
        const struct cci_descriptor *d = &p->manifest.items[i];
        bool found = false;
        cc_error_code code = cci_pull_check_layer(p, i, err);
        if (!code)
            code = cci_store_layer_open(p->store, &p->image->config.diff_ids[i], &p->image->layers[i], &found, err);
        if (code)
            return code;
        if (found || cci_pull_is_repeated(p, i))
            continue;
        struct cci_import_spec *spec = &p->specs[p->todo_count];
        spec->diff_id = p->image->config.diff_ids[i];
        spec->has_digest = true;
        spec->digest = d->digest;
        spec->size = d->size;
        spec->media = d->media;
        spec->wait = &p->wait;
        p->names[p->todo_count] = d->digest;
        p->todo[p->todo_count++] = i;
        if (d->size > (uint64_t)INT64_MAX - p->progress.total)
            return cci_fail(err, CC_ERR_IO, p->name.full, "the image's layers are impossibly large");
        p->progress.total += d->size;
    }
    p->progress.count = p->todo_count;
    p->progress.names = p->names;
    return CC_OK;
}

/* Keeps the first failure, and ends all that goes on. Takes over *err. */
static void cci_pull_fail(struct cci_pull *p, cc_error_code code, cc_error *err)
{
    cci_mutex_lock(&p->mutex);
    bool first = !p->code;
    if (first) {
        p->code = code;
        p->err = *err;
    } else {
        cci_error_release(err);
    }
    cci_mutex_unlock(&p->mutex);
    if (first)
        cci_cancel_fire(p->wait.cancel);
}

/* Takes the next layer; false when there is none, or it does not matter any more. */
static bool cci_pull_next(struct cci_pull *p, size_t *k)
{
    cci_mutex_lock(&p->mutex);
    bool more = !p->code && p->next < p->todo_count;
    if (more)
        *k = p->next++;
    cci_mutex_unlock(&p->mutex);
    return more;
}

static void cci_pull_work(void *ctx)
{
    struct cci_pull *p = ctx;
    size_t k = 0;
    while (cci_pull_next(p, &k)) {
        struct cci_fetch f;
        cc_error err;
        memset(&f, 0, sizeof(f));
        memset(&err, 0, sizeof(err));
        f.registry = &p->registry;
        f.store = p->store;
        f.progress = &p->progress;
        f.index = k;
        f.spec = &p->specs[k];
        cc_error_code code = cci_fetch_layer(&f, &p->image->layers[p->todo[k]], &err);
        if (code)
            cci_pull_fail(p, code, &err);
    }
    cci_progress_worker_ends(&p->progress);
}

/* Fetches the layers of the list. */
static cc_error_code cci_pull_fetch(struct cci_pull *p, cc_error *err)
{
    struct cci_thread threads[CCI_PULL_MAX_WORKERS];
    size_t count = 0, want = CCI_MIN(p->todo_count, CCI_PULL_MAX_WORKERS);
    int r = 0;
    while (count < want && r == 0) {
        cci_monitor_lock(&p->progress.monitor);
        p->progress.workers++;
        cci_monitor_unlock(&p->progress.monitor);
        r = cci_thread_new(&threads[count], "cc-pull", cci_pull_work, p);
        if (r == 0)
            count++;
        else
            cci_progress_worker_ends(&p->progress);
    }
    if (want && !count)
        return cci_fail_errno(err, CC_ERR_UNKNOWN, -r, p->name.full, "cannot start a thread: %s", cci_errno_text(-r));
    cci_progress_wait(&p->progress);
    while (count)
        cci_thread_join(&threads[--count]);
    if (!p->code)
        return CC_OK;
    if (err)
        *err = p->err;
    else
        cci_error_release(&p->err);
    return p->code;
}

/* Opens the layers that the manifest lists more than once. */
static cc_error_code cci_pull_repeated(struct cci_pull *p, cc_error *err)
{
    for (size_t i = 0; i < p->image->layer_count; i++) {
        struct cci_layer *l = &p->image->layers[i];
        bool found = true;
        cc_error_code code = CC_OK;
        if (l->fd == CCI_NO_FD)
            code = cci_store_layer_open(p->store, &p->image->config.diff_ids[i], l, &found, err);
        if (!code && !found)
            code = cci_fail(err, CC_ERR_IO, p->store->dir, "a layer disappeared from the image cache during the pull");
        if (code)
            return code;
    }
    return CC_OK;
}

/* ---- The whole ------------------------------------------------------------------------------------------------ */

static void cci_pull_on_cancel(void *ctx)
{
    cci_cancel_fire(((struct cci_pull *)ctx)->wait.cancel);
}

static cc_error_code cci_pull_connect(struct cci_pull *p, cc_error *err)
{
    struct cci_http_options options;
    memset(&options, 0, sizeof(options));
    options.ca_file = p->spec->ca_file;
    options.allow_plain = p->spec->allow_plain;
    cc_error_code code = cci_http_new(&options, &p->http, err);
    if (code)
        return code;
    const struct cci_auth_login login = {p->spec->username, p->spec->password, p->spec->ca_file, p->spec->auth_memory};
    p->has_registry = true;
    return cci_registry_init(&p->registry, p->http, &p->name, p->spec->allow_plain, &login, &p->wait, err);
}

/* What the cache has of the reference. With a digest it does not matter under which name it came. */
static cc_error_code cci_pull_cached(struct cci_pull *p, struct cci_image **out, enum cci_cached *state, cc_error *err)
{
    struct cci_ref ref;
    struct cci_digest manifest, config;
    bool found;
    *state = CCI_CACHED_MISS;
    *out = NULL;
    cc_error_code code = cci_ref_read(p->store, p->name.full, &p->spec->platform, &ref, &found, err);
    if (code)
        return code;
    if (found) {
        code = cci_cached_open(p->store, &ref.manifest, &p->spec->platform, out, &manifest, &config, state, err);
        if (!code && *out)
            cci_ref_touch(p->store, &ref);
        p->ref.top = ref.top;
        cci_ref_free(&ref);
    } else if (p->name.has_digest) {
        code = cci_cached_open(p->store, &p->name.digest, &p->spec->platform, out, &manifest, &config, state, err);
        if (!code && *out) {
            p->ref.top = p->name.digest;
            p->ref.manifest = manifest;
            p->ref.config = config;
            code = cci_ref_write(p->store, &p->ref, err);
        } else if (!code) {
            *state = CCI_CACHED_MISS;
        }
    }
    if (code) {
        cci_image_free(*out);
        *out = NULL;
    }
    return code;
}

/* Asks, with one request, whether the tag still means what is in the cache. A registry that has no HEAD, or does not
 * say the digest, leaves that open: then it is pulled, which fetches documents at most. */
static cc_error_code cci_pull_unchanged(struct cci_pull *p, bool *same, cc_error *err)
{
    struct cci_registry_call call = {"HEAD", "manifests", p->name.tag, CCI_PULL_ACCEPT, 0};
    struct cci_http_response *resp;
    struct cci_digest said;
    *same = false;
    cc_error_code code = cci_registry_call(&p->registry, &call, &resp, err);
    if (code)
        return code;
    *same = cci_http_status(resp) == 200 && cci_pull_said_digest(resp, &said) && cci_digest_equal(&said, &p->ref.top);
    cci_http_finish(resp);
    return CC_OK;
}

static cc_error_code cci_pull_never(const struct cci_pull *p, enum cci_cached state, cc_error *err)
{
    if (state == CCI_CACHED_INVALID)
        return cci_fail(err, CC_ERR_IO, p->name.full,
                        "the image is no longer whole in the cache, and the pull policy is never: pull it again");
    return cci_fail(err, CC_ERR_IO, p->name.full,
                    "the image is not in the cache for %s, and the pull policy is never: pull it first",
                    cci_platform_spell(&p->spec->platform).text);
}

/* Everything over the network. */
static cc_error_code cci_pull_remote(struct cci_pull *p, cc_error *err)
{
    cc_error_code code = cci_pull_manifest(p, err);
    if (!code)
        code = cci_pull_config(p, err);
    if (!code)
        code = cci_pull_plan(p, err);
    if (!code)
        code = cci_pull_fetch(p, err);
    if (!code)
        code = cci_pull_repeated(p, err);
    if (!code)
        code = cci_image_prepare(p->image, &p->wait, err);
    if (!code)
        code = cci_ref_write(p->store, &p->ref, err);
    if (!code)
        cci_image_take_texts(p->image, &p->manifest_text, &p->config_text);
    return code;
}

/* The cache, then the registry, as the policy has it. */
static cc_error_code cci_pull_run(struct cci_pull *p, cc_error *err)
{
    enum cci_cached state;
    struct cci_image *cached;
    bool same = true;
    cc_error_code code = cci_pull_cached(p, &cached, &state, err);
    if (code)
        return code;
    if (!cached && p->spec->policy == CC_PULL_NEVER)
        return cci_pull_never(p, state, err);
    bool ask = !cached || (p->spec->policy == CC_PULL_ALWAYS && !p->name.has_digest);
    if (ask)
        code = cci_pull_connect(p, err);
    if (!code && cached && ask)
        code = cci_pull_unchanged(p, &same, err);
    if (cached && same && !code) {
        p->image = cached;
        return cci_image_prepare(cached, &p->wait, err);
    }
    cci_image_free(cached);
    return code ? code : cci_pull_remote(p, err);
}

static void cci_pull_free(struct cci_pull *p)
{
    cci_cancel_detach(p->spec->wait.cancel, &p->hook);
    if (p->has_registry)
        cci_registry_free(&p->registry);
    if (p->http)
        cci_http_free(p->http);
    cci_manifest_free(&p->manifest);
    cci_buf_free(&p->manifest_text);
    cci_buf_free(&p->config_text);
    cci_image_free(p->image);
    cci_progress_destroy(&p->progress);
    cci_mem_free(p->todo);
    cci_mem_free(p->specs);
    cci_mem_free(p->names);
    cci_mutex_destroy(&p->mutex);
    cci_cancel_unref(p->wait.cancel);
    cci_mem_free(p);
}

/* Pulls an image. Free it with cci_image_free; it keeps the store. */
static cc_error_code cci_pull_image(struct cci_store *store, const struct cci_pull_spec *spec, struct cci_image **out,
                                    cc_error *err)
{
    cci_fd lock = CCI_NO_FD;
    *out = NULL;
    struct cci_pull *p = cci_mem_zalloc(1, sizeof(*p)); /* large: a name */
    struct cci_cancel *own = cci_cancel_new();
    if (!p || !own) {
        cci_mem_free(p);
        cci_cancel_unref(own);
        return cci_fail_nomem(err);
    }
    p->spec = spec;
    p->store = store;
    p->wait = (struct cci_wait){spec->wait.deadline, own};
    p->ref.platform = spec->platform;
    p->ref.name = p->name.full;
    cci_mutex_init(&p->mutex);
    cci_progress_init(&p->progress, spec->progress, spec->progress_ctx);
    if (cci_cancel_attach(spec->wait.cancel, &p->hook, cci_pull_on_cancel, p))
        cci_cancel_fire(own);
    cc_error_code code = cci_name_parse(&p->name, spec->reference, err);
    if (!code)
        code = cci_blob_lock(store, CCI_OS_LOCK_SHARED, true, &lock, err);
    if (!code)
        code = cci_pull_run(p, err);
    if (!code && !p->image->names.count && !cci_strings_add(&p->image->names, p->name.full))
        code = cci_fail_nomem(err); /* an export names the image as it was pulled */
    if (!code) {
        *out = p->image;
        p->image = NULL;
        cci_progress_done(&p->progress);
    }
    cci_os_close(lock);
    cci_pull_free(p);
    if (code && err && !err->path)
        err->path = cci_mem_strdup(spec->reference);
    return code;
}

#endif
