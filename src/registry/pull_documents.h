/*
 * registry/pull_documents.h - a pull's state, and its first half: from a reference to a manifest and a configuration.
 *
 * Manifests and configurations are checked against the digest they were asked for by, and kept in blobs/ byte for byte.
 * What a tag stands for is only what the registry says; from there on every step is by digest. A manifest's media type,
 * the Content-Type it came with and its content must agree (CVE-2021-41190). Of an index, the image that fits the
 * platform best is taken; the error when there is none lists what there is.
 */
#ifndef CCI_REGISTRY_PULL_DOCUMENTS_H
#define CCI_REGISTRY_PULL_DOCUMENTS_H

#include "../image/cached.h"
#include "layer_fetch.h"

#define CCI_PULL_MAX_WORKERS 4u
#define CCI_PULL_ACCEPT                                                                                                \
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "             \
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

/* What is pulled, and how. */
struct cci_pull_spec {
    const char *reference;
    struct cci_platform platform;
    const char *username, *password;     /* or NULL */
    struct cci_auth_memory *auth_memory; /* of the client, or NULL */
    cc_pull_policy policy;
    const char *ca_file; /* or NULL */
    bool allow_plain;
    cc_progress_callback progress; /* or NULL */
    void *progress_ctx;
    struct cci_wait wait;
};

/* One pull. */
struct cci_pull {
    const struct cci_pull_spec *spec;
    struct cci_store *store;
    struct cci_name name;
    struct cci_wait wait;        /* the caller's deadline; the cancel token is the pull's own */
    struct cci_cancel_hook hook; /* on the caller's token */
    struct cci_http *http;
    struct cci_registry_client registry;
    bool has_registry;  /* it was initialised */
    struct cci_ref ref; /* what refs/ will say; its name is not its own */
    struct cci_buf manifest_text, config_text;
    struct cci_manifest manifest;
    struct cci_image *image;
    struct cci_progress progress;

    size_t *todo;                  /* layers to fetch: their numbers in the image */
    struct cci_import_spec *specs; /* of the same */
    struct cci_digest *names;      /* the same */
    size_t todo_count;
    struct cci_mutex mutex; /* for the rest */
    size_t next;            /* of todo, that nobody has taken */
    cc_error_code code;     /* the first failure */
    cc_error err;
};

/* The digest that a registry says a document has. */
static bool cci_pull_said_digest(const struct cci_http_response *resp, struct cci_digest *out)
{
    const char *text = cci_http_field(resp, "Docker-Content-Digest", 0);
    return text && cci_digest_parse(text, "the manifest", out, NULL) == CC_OK;
}

/* The kind of document that Content-Type says, its parameters aside. */
static enum cci_media cci_pull_said_media(const struct cci_http_response *resp)
{
    char type[128];
    const char *text = cci_http_field(resp, "Content-Type", 0);
    (void)snprintf(type, sizeof(type), "%.*s", text ? (int)CCI_MIN(strcspn(text, "; \t"), 127u) : 0, text ? text : "");
    return cci_media_parse(type);
}

/* Asks for a document of at most `max` bytes, and again when the connection breaks in the middle of it: documents are
 * too short to be taken up by range. Finish *resp and free *text, on success only. */
static cc_error_code cci_pull_get_document(struct cci_pull *p, const struct cci_registry_call *call, uint64_t max,
                                           struct cci_http_response **resp, struct cci_buf *text, cc_error *err)
{
    for (unsigned tries = 1;; tries++) {
        cc_error_code code = cci_registry_call(&p->registry, call, resp, err);
        if (code)
            return code;
        code = cci_http_body_all(*resp, (size_t)max, text, &p->wait, err);
        if (!code)
            return CC_OK;
        bool again = code == CC_ERR_NETWORK && cci_http_broken(*resp) && tries < CCI_REGISTRY_TRIES;
        cci_http_finish(*resp);
        cci_buf_free(text);
        if (!again)
            return code;
        cci_error_release(err);
        code = cci_registry_pause(&p->wait, CCI_REGISTRY_PAUSE << (tries - 1), "another try", err);
        if (code)
            return code;
    }
}

/* Reads a manifest or index: `what` is a tag or, with `want`, a digest. Free *text, on success only. */
static cc_error_code cci_pull_get_manifest(struct cci_pull *p, const char *what, const struct cci_digest *want,
                                           struct cci_buf *text, struct cci_digest *got, enum cci_media *media,
                                           cc_error *err)
{
    struct cci_registry_call call = {"GET", "manifests", what, CCI_PULL_ACCEPT, 0};
    struct cci_http_response *resp;
    struct cci_digest said;
    memset(text, 0, sizeof(*text));
    cc_error_code code = cci_pull_get_document(p, &call, CCI_MANIFEST_MAX_SIZE, &resp, text, err);
    if (code)
        return code;
    *media = cci_pull_said_media(resp);
    *got = cci_digest_of(text->p, text->n);
    if (!want && cci_pull_said_digest(resp, &said))
        want = &said;
    if (want && !cci_digest_equal(got, want))
        code = cci_fail(err, CC_ERR_IO, p->name.full,
                        "the image manifest from the registry does not have its digest %s: it was damaged or exchanged",
                        cci_digest_spell(want).text);
    cci_http_finish(resp);
    if (code)
        cci_buf_free(text);
    return code;
}

/* "linux/amd64, linux/arm64": what an index has. */
static void cci_pull_spell_platforms(const struct cci_manifest *m, char *out, size_t n)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < m->count && n - at > 100; i++) {
        struct cci_platform_text t = cci_platform_spell(&m->items[i].platform);
        if (strcmp(t.text, "unknown/unknown") != 0) /* attestations */
            at += (size_t)snprintf(out + at, n - at, "%s%s", at ? ", " : "", t.text);
    }
}

static cc_error_code cci_pull_no_platform(const struct cci_pull *p, const char *list, cc_error *err)
{
    return cci_fail(err, CC_ERR_IO, p->name.full, "the image is not there for %s; it is for %s",
                    cci_platform_spell(&p->spec->platform).text, *list ? list : "no platform at all");
}

/* From the tag or digest to the image manifest, through indexes; all are kept in the store. */
static cc_error_code cci_pull_manifest(struct cci_pull *p, cc_error *err)
{
    struct cci_digest want = p->name.digest, got;
    bool by_digest = p->name.has_digest;
    for (int depth = 0; depth < CCI_CACHED_MAX_NESTING; depth++) {
        struct cci_digest_text text = cci_digest_spell(&want);
        enum cci_media media;
        cc_error_code code = cci_pull_get_manifest(p, by_digest ? text.text : p->name.tag, by_digest ? &want : NULL,
                                                   &p->manifest_text, &got, &media, err);
        if (!code)
            code = cci_manifest_parse(&p->manifest, p->manifest_text.p, p->manifest_text.n, media, err);
        if (!code)
            code = cci_blob_write(p->store, &got, p->manifest_text.p, p->manifest_text.n, err);
        if (code)
            return code;
        if (depth == 0)
            p->ref.top = got;
        p->ref.manifest = got;
        if (p->manifest.media == CCI_MEDIA_IMAGE)
            return CC_OK;
        const struct cci_descriptor *d = cci_manifest_choose(&p->manifest, &p->spec->platform);
        char list[600];
        cci_pull_spell_platforms(&p->manifest, list, sizeof(list));
        if (d)
            want = d->digest;
        by_digest = true;
        cci_manifest_free(&p->manifest);
        cci_buf_free(&p->manifest_text);
        if (!d)
            return cci_pull_no_platform(p, list, err);
    }
    return cci_fail(err, CC_ERR_IO, p->name.full, "the image has indexes nested too deeply");
}

/* Reads a blob that is a document. */
static cc_error_code cci_pull_get_config(struct cci_pull *p, cc_error *err)
{
    const struct cci_descriptor *d = &p->manifest.config;
    struct cci_digest_text text = cci_digest_spell(&d->digest);
    struct cci_registry_call call = {"GET", "blobs", text.text, NULL, 0};
    struct cci_http_response *resp;
    if (d->size > CCI_CONFIG_MAX_SIZE)
        return cci_fail(err, CC_ERR_IO, p->name.full, "the image configuration is too large: %llu bytes",
                        (unsigned long long)d->size);
    cc_error_code code = cci_pull_get_document(p, &call, d->size, &resp, &p->config_text, err);
    if (code)
        return code;
    cci_http_finish(resp);
    struct cci_digest got = cci_digest_of(p->config_text.p, p->config_text.n);
    if (!cci_digest_equal(&got, &d->digest))
        return cci_fail(err, CC_ERR_IO, p->name.full,
                        "the image configuration from the registry does not have its digest %s: it was damaged or "
                        "exchanged",
                        text.text);
    return cci_blob_write(p->store, &got, p->config_text.p, p->config_text.n, err);
}

/* The configuration, from the store or the registry, and an image of it without its layers. */
static cc_error_code cci_pull_config(struct cci_pull *p, cc_error *err)
{
    struct cci_image_config config;
    bool found;
    p->ref.config = p->manifest.config.digest;
    cc_error_code code = cci_blob_read(p->store, &p->ref.config, CCI_CONFIG_MAX_SIZE, &p->config_text, &found, err);
    if (!code && !found)
        code = cci_pull_get_config(p, err);
    if (!code)
        code = cci_config_parse(&config, p->config_text.p, p->config_text.n, err);
    if (code)
        return code;
    if (cci_platform_fit(&config.platform, &p->spec->platform) == 0)
        code = cci_pull_no_platform(p, cci_platform_spell(&config.platform).text, err);
    else if (config.layer_count != p->manifest.count)
        code = cci_fail(err, CC_ERR_IO, p->name.full, "the image's manifest has %zu layers, and its configuration %zu",
                        p->manifest.count, config.layer_count);
    if (code) {
        cci_config_free(&config);
        return code;
    }
    p->image = cci_image_new(p->store, &config);
    return p->image ? CC_OK : cci_fail_nomem(err);
}

#endif
