/*
 * api/fs.h - files in the guest, through the agent (control/file.h).
 */
#ifndef CCI_API_FS_H
#define CCI_API_FS_H

#include "../control/file.h"
#include "instance.h"

/* The beginning of every call here: arguments, then the instance. */
static cc_error_code cci_fs_enter(cc_instance inst, const char *path, const void *out, struct cci_instance **i,
                                  cc_error *err)
{
    if (!path || !out)
        return cci_api_null(path ? "out" : "path", err);
    return cci_instance_enter(inst, i, err);
}

CC_API cc_error_code cc_fs_read_file(cc_instance inst, const char *path, uint8_t **out, size_t *len, cc_error *err)
{
    struct cci_instance *i = NULL;
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    cci_error_clear(err);
    if (out)
        *out = NULL;
    if (len)
        *len = 0;
    cc_error_code code = cci_fs_enter(inst, path, out && len ? out : NULL, &i, err);
    if (code == CC_OK) {
        code = cci_file_read(i->vm.control, path, 0, out, len, &wait, err);
        cci_instance_leave(i);
    }
    return cci_api_end("read_file", code, err);
}

CC_API cc_error_code cc_fs_write_file(cc_instance inst, const char *path, const uint8_t *data, size_t len,
                                      cc_file_mode perm, cc_error *err)
{
    struct cci_instance *i = NULL;
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    cci_error_clear(err);
    cc_error_code code = CC_OK;
    if (len && !data)
        code = cci_api_null("data", err);
    else if (perm & ~(cc_file_mode)07777)
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, path, "perm has bits beyond 07777");
    else
        code = cci_fs_enter(inst, path, "", &i, err);
    if (code == CC_OK) {
        code = cci_file_write(i->vm.control, path, data, len, perm, &wait, err);
        cci_instance_leave(i);
    }
    return cci_api_end("write_file", code, err);
}

/* The last element of a path, as Go's filepath.Base has it. */
static char *cci_fs_base_name(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (end == 0)
        return cci_mem_strdup(".");
    return start == end ? cci_mem_strdup("/") : cci_mem_strndup(path + start, end - start);
}

static cc_error_code cci_fs_info(const char *path, const struct cci_file_stat *st, cc_file_info *out, cc_error *err)
{
    out->name = cci_fs_base_name(path);
    if (!out->name)
        return cci_fail_nomem(err);
    out->size = (int64_t)CCI_MIN(st->size, (uint64_t)INT64_MAX);
    out->mode = st->mode;
    out->mod_time_unix = st->mtime.seconds;
    out->is_dir = (st->mode & 0170000u) == 0040000u;
    out->is_symlink = (st->mode & 0170000u) == 0120000u;
    return CC_OK;
}

/* stat and lstat. */
static cc_error_code cci_fs_stat(cc_instance inst, const char *path, bool nofollow, cc_file_info *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    struct cci_file_stat st;
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    cci_error_clear(err);
    if (out)
        memset(out, 0, sizeof(*out));
    cc_error_code code = cci_fs_enter(inst, path, out, &i, err);
    if (code == CC_OK) {
        code = cci_file_stat(i->vm.control, path, nofollow, &st, &wait, err);
        cci_instance_leave(i);
    }
    return code ? code : cci_fs_info(path, &st, out, err);
}

CC_API cc_error_code cc_fs_stat(cc_instance inst, const char *path, cc_file_info *out, cc_error *err)
{
    return cci_api_end("stat", cci_fs_stat(inst, path, false, out, err), err);
}

CC_API cc_error_code cc_fs_lstat(cc_instance inst, const char *path, cc_file_info *out, cc_error *err)
{
    return cci_api_end("lstat", cci_fs_stat(inst, path, true, out, err), err);
}

CC_API void cc_file_info_free(cc_file_info *info)
{
    if (!info)
        return;
    cci_mem_free(info->name);
    memset(info, 0, sizeof(*info));
}

#endif
