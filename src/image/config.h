/*
 * image/config.h - an image's configuration: how to run it, and which layers it is made of.
 *
 * The document of the image specification 1.1, "Image Configuration", which Docker's is a superset of. What is not
 * about running (history, labels, author) is passed over. rootfs.diff_ids lists the digests of the uncompressed
 * layers, lowest first; they are what the layer store is addressed by.
 */
#ifndef CCI_IMAGE_CONFIG_H
#define CCI_IMAGE_CONFIG_H

#include "../base/strings.h"
#include "digest.h"
#include "json.h"
#include "manifest.h"
#include "platform.h"

#define CCI_CONFIG_MAX_SIZE ((uint64_t)8 << 20) /* bytes; the largest in the wild have long histories */
#define CCI_CONFIG_MAX_STRINGS 65536            /* in one list */

/* What an image says about how to run it. Strings are never NULL. */
struct cci_image_config {
    struct cci_platform platform;
    struct cci_strings env;        /* "KEY=VALUE" */
    struct cci_strings entrypoint; /* empty when the image has none */
    struct cci_strings cmd;
    char *working_dir;           /* "" when the image names none */
    char *user;                  /* "" when the image names none: root */
    struct cci_digest *diff_ids; /* layers, lowest first */
    size_t layer_count;
};

static void cci_config_free(struct cci_image_config *c)
{
    cci_strings_free(&c->env);
    cci_strings_free(&c->entrypoint);
    cci_strings_free(&c->cmd);
    cci_mem_free(c->working_dir);
    cci_mem_free(c->user);
    cci_mem_free(c->diff_ids);
    memset(c, 0, sizeof(*c));
}

/* A list of strings; missing and null are the empty list. The caller frees it, also after a failure. */
static cc_error_code cci_config_strings(struct cci_strings *out, const struct cci_json *doc,
                                        const struct cci_json_value *from, const char *name, cc_error *err)
{
    const struct cci_json_value *list = cci_json_get(doc, from, name);
    bool none = !list || list->type == CCI_JSON_NULL;
    if (!none && (list->type != CCI_JSON_ARRAY || list->count > CCI_CONFIG_MAX_STRINGS))
        return cci_fail(err, CC_ERR_IO, NULL, "the image configuration's %s is no list of strings, or too long", name);
    out->at = cci_mem_zalloc((none ? 0 : list->count) + 1, sizeof(char *));
    if (!out->at)
        return cci_fail_nomem(err);
    for (const struct cci_json_value *v = none ? NULL : cci_json_first(list); v; v = cci_json_next(doc, list, v)) {
        const char *text = cci_json_text(doc, v);
        if (!text)
            return cci_fail(err, CC_ERR_IO, NULL, "the image configuration's %s has an entry that is no string", name);
        out->at[out->count] = cci_mem_strdup(text);
        if (!out->at[out->count])
            return cci_fail_nomem(err);
        out->count++;
    }
    return CC_OK;
}

static cc_error_code cci_config_string(char **out, const struct cci_json *doc, const struct cci_json_value *from,
                                       const char *name, cc_error *err)
{
    const struct cci_json_value *v = cci_json_get(doc, from, name);
    if (v && v->type != CCI_JSON_STRING && v->type != CCI_JSON_NULL)
        return cci_fail(err, CC_ERR_IO, NULL, "the image configuration's %s is no string", name);
    const char *text = cci_json_text(doc, v);
    *out = cci_mem_strdup(text ? text : "");
    return *out ? CC_OK : cci_fail_nomem(err);
}

static cc_error_code cci_config_layers(struct cci_image_config *c, const struct cci_json *doc, cc_error *err)
{
    const struct cci_json_value *rootfs = cci_json_get(doc, cci_json_root(doc), "rootfs");
    const struct cci_json_value *list = cci_json_get(doc, rootfs, "diff_ids");
    const char *type = cci_json_text(doc, cci_json_get(doc, rootfs, "type"));
    bool none = !list || list->type == CCI_JSON_NULL; /* a scratch image: Go writes null */
    if (!rootfs || !type || strcmp(type, "layers") != 0 || (!none && list->type != CCI_JSON_ARRAY))
        return cci_fail(err, CC_ERR_IO, NULL, "the image configuration has no list of layers (rootfs)");
    if (!none && list->count > CCI_MANIFEST_MAX_LAYERS)
        return cci_fail(err, CC_ERR_IO, NULL, "the image has %u layers; at most %d are read", (unsigned)list->count,
                        CCI_MANIFEST_MAX_LAYERS);
    c->diff_ids = cci_mem_zalloc(none ? 1 : list->count, sizeof(*c->diff_ids));
    if (!c->diff_ids)
        return cci_fail_nomem(err);
    for (const struct cci_json_value *v = none ? NULL : cci_json_first(list); v; v = cci_json_next(doc, list, v)) {
        cc_error_code code =
            cci_digest_parse(cci_json_text(doc, v), "a layer (diffID)", &c->diff_ids[c->layer_count], err);
        if (code)
            return code;
        c->layer_count++;
    }
    return CC_OK;
}

static cc_error_code cci_config_fill(struct cci_image_config *c, const struct cci_json *doc, cc_error *err)
{
    const struct cci_json_value *root = cci_json_root(doc);
    const struct cci_json_value *run = cci_json_get(doc, root, "config");
    if (!root || root->type != CCI_JSON_OBJECT || (run && run->type != CCI_JSON_OBJECT && run->type != CCI_JSON_NULL))
        return cci_fail(err, CC_ERR_IO, NULL, "the image configuration is not an object");
    c->platform = cci_platform_make(cci_json_text(doc, cci_json_get(doc, root, "os")),
                                    cci_json_text(doc, cci_json_get(doc, root, "architecture")),
                                    cci_json_text(doc, cci_json_get(doc, root, "variant")));
    cc_error_code code = cci_config_strings(&c->env, doc, run, "Env", err);
    if (!code)
        code = cci_config_strings(&c->entrypoint, doc, run, "Entrypoint", err);
    if (!code)
        code = cci_config_strings(&c->cmd, doc, run, "Cmd", err);
    if (!code)
        code = cci_config_string(&c->working_dir, doc, run, "WorkingDir", err);
    if (!code)
        code = cci_config_string(&c->user, doc, run, "User", err);
    return code ? code : cci_config_layers(c, doc, err);
}

/* Parses a configuration whose digest was checked. Free *c with cci_config_free, on success only. */
static cc_error_code cci_config_parse(struct cci_image_config *c, const void *text, size_t n, cc_error *err)
{
    struct cci_json doc;
    memset(c, 0, sizeof(*c));
    cc_error_code code = cci_json_parse(&doc, text, n, "the image configuration", err);
    if (code)
        return code;
    code = cci_config_fill(c, &doc, err);
    cci_json_free(&doc);
    if (code)
        cci_config_free(c);
    return code;
}

#endif
