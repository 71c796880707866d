/*
 * api/fs_copy.h - copies of trees between host and guest (control/copy.h).
 */
#ifndef CCI_API_FS_COPY_H
#define CCI_API_FS_COPY_H

#include "../control/copy.h"
#include "fs.h"

/* Whom a copy tells how far it is. */
struct cci_fs_copy_listener {
    struct cci_instance *inst;
    cc_copy_progress_callback fn;
    void *user_data;
};

static void cci_fs_copy_tell(void *ctx, uint64_t bytes, uint64_t entries, uint64_t skipped, const char *path)
{
    const struct cci_fs_copy_listener *l = ctx;
    const cc_copy_progress p = {bytes, entries, skipped, path};
    struct cci_instance_callback c;
    cci_instance_begin_callback(l->inst, &c);
    l->fn(&p, l->user_data);
    cci_instance_end_callback(l->inst, &c);
}

typedef cc_error_code (*cci_fs_copy_fn)(struct cci_control *ctl, const char *from, const char *to,
                                        const struct cci_copy_options *options, const struct cci_wait *wait,
                                        cc_error *err);

static cc_error_code cci_fs_copy(cc_instance inst, cci_fs_copy_fn fn, const char *from, const char *to,
                                 const cc_copy_options *opts, cc_error *err)
{
    cc_copy_options o = {0};
    struct cci_instance *i = NULL;
    struct cci_cancel *token = NULL;
    cci_error_clear(err);
    if (!from || !to)
        return cci_api_null(from ? "the destination" : "the source", err);
    if (opts)
        o = *opts;
    if (!(o.timeout_seconds >= 0))
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "timeout_seconds is negative");
    cc_error_code code = cci_token_use(o.cancel, &token, err);
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        const struct cci_wait wait = {cci_api_deadline(o.timeout_seconds), token};
        struct cci_fs_copy_listener listener = {i, o.progress, o.user_data};
        const struct cci_copy_options options = {o.keep_owner, o.max_bytes, o.max_entries,
                                                 o.progress ? cci_fs_copy_tell : NULL, &listener};
        code = fn(i->vm.control, from, to, &options, &wait, err);
        cci_instance_leave(i);
    }
    cci_cancel_unref(token);
    return code;
}

CC_API cc_error_code cc_fs_copy_in(cc_instance inst, const char *host_path, const char *guest_path,
                                   const cc_copy_options *opts, cc_error *err)
{
    return cci_api_end("copy_in", cci_fs_copy(inst, cci_copy_in, host_path, guest_path, opts, err), err);
}

CC_API cc_error_code cc_fs_copy_out(cc_instance inst, const char *guest_path, const char *host_path,
                                    const cc_copy_options *opts, cc_error *err)
{
    return cci_api_end("copy_out", cci_fs_copy(inst, cci_copy_out, guest_path, host_path, opts, err), err);
}

#endif
