/*
 * api/pull.h - cc_oci_client_pull: a reference and options in, a source out (registry/pull.h).
 */
#ifndef CCI_API_PULL_H
#define CCI_API_PULL_H

#include "../registry/pull.h"
#include "source.h"

/* What the options say, with the defaults filled in. Their cancel token is resolved by the caller. */
static struct cci_pull_spec cci_pull_spec_make(const char *image_ref, const cc_pull_options *opts)
{
    struct cci_pull_spec spec;
    memset(&spec, 0, sizeof(spec));
    spec.reference = image_ref;
    spec.platform = cci_platform_host();
    spec.wait.deadline = CCI_FOREVER;
    if (!opts)
        return spec;
    if (opts->platform_os || opts->platform_arch)
        spec.platform = cci_platform_make(opts->platform_os ? opts->platform_os : "linux",
                                          opts->platform_arch ? opts->platform_arch : spec.platform.arch, NULL);
    spec.username = opts->username;
    spec.password = opts->password;
    spec.policy = opts->policy;
    spec.ca_file = opts->ca_file;
    spec.allow_plain = opts->allow_http;
    spec.wait.deadline = cci_api_deadline(opts->timeout_seconds);
    return spec;
}

static cc_error_code cci_pull_source(struct cci_client *c, const char *image_ref, const cc_pull_options *opts,
                                     cc_progress_callback progress_cb, void *progress_user_data,
                                     cc_instance_source *out, cc_error *err)
{
    struct cci_pull_spec spec = cci_pull_spec_make(image_ref, opts);
    struct cci_image *image;
    if (spec.policy != CC_PULL_IF_NOT_PRESENT && spec.policy != CC_PULL_ALWAYS && spec.policy != CC_PULL_NEVER)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "%d is no pull policy", (int)spec.policy);
    spec.auth_memory = &c->auth;
    spec.progress = progress_cb;
    spec.progress_ctx = progress_user_data;
    cc_error_code code = cci_token_use(opts ? opts->cancel : 0, &spec.wait.cancel, err);
    if (code)
        return code;
    code = cci_pull_image(c->store, &spec, &image, err);
    cci_cancel_unref(spec.wait.cancel);
    return code ? code : cci_source_publish(image, out, err);
}

CC_API cc_error_code cc_oci_client_pull(cc_oci_client client, const char *image_ref, const cc_pull_options *opts,
                                        cc_progress_callback progress_cb, void *progress_user_data,
                                        cc_instance_source *out, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = CC_OK;
    if (!out || !image_ref)
        code = cci_api_null(out ? "image_ref" : "out", err);
    else
        code = cci_handle_get(client, CCI_KIND_CLIENT, &o, err);
    if (code == CC_OK) {
        code = cci_pull_source((struct cci_client *)o, image_ref, opts, progress_cb, progress_user_data, out, err);
        cci_object_unref(o);
    }
    return cci_api_end("pull", code, err);
}

#endif
