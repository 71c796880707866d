/*
 * api/fs_path.h - what Go's os does with paths: one request to the agent each (control/path.h).
 */
#ifndef CCI_API_FS_PATH_H
#define CCI_API_FS_PATH_H

#include "../control/listing.h"
#include "fs.h"

/* A call whose result is success or an error. */
static cc_error_code cci_fs_do(cc_instance inst, const char *op, const struct cci_path_request *r, cc_error *err)
{
    struct cci_instance *i = NULL;
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    cci_error_clear(err);
    cc_error_code code = cci_fs_enter(inst, r->path, "", &i, err);
    if (code == CC_OK) {
        code = cci_path_do(i->vm.control, r, &wait, err);
        cci_instance_leave(i);
    }
    return cci_api_end(op, code, err);
}

/* The same for those that take permission bits. */
static cc_error_code cci_fs_do_mode(cc_instance inst, const char *op, uint32_t type, const char *path,
                                    cc_file_mode mode, cc_error *err)
{
    const struct cci_path_request r = {type, path, NULL, 1, {mode}};
    if (!(mode & ~(cc_file_mode)07777))
        return cci_fs_do(inst, op, &r, err);
    cci_error_clear(err);
    return cci_api_end(op, cci_fail(err, CC_ERR_INVALID_ARGUMENT, path, "the mode has bits beyond 07777"), err);
}

CC_API cc_error_code cc_fs_remove(cc_instance inst, const char *path, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_REMOVE, path, NULL, 0, {0}};
    return cci_fs_do(inst, "remove", &r, err);
}

CC_API cc_error_code cc_fs_remove_all(cc_instance inst, const char *path, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_REMOVE_ALL, path, NULL, 0, {0}};
    return cci_fs_do(inst, "remove_all", &r, err);
}

CC_API cc_error_code cc_fs_mkdir(cc_instance inst, const char *path, cc_file_mode perm, cc_error *err)
{
    return cci_fs_do_mode(inst, "mkdir", CCI_MSG_MKDIR, path, perm, err);
}

CC_API cc_error_code cc_fs_mkdir_all(cc_instance inst, const char *path, cc_file_mode perm, cc_error *err)
{
    return cci_fs_do_mode(inst, "mkdir_all", CCI_MSG_MKDIR_ALL, path, perm, err);
}

CC_API cc_error_code cc_fs_chmod(cc_instance inst, const char *path, cc_file_mode mode, cc_error *err)
{
    return cci_fs_do_mode(inst, "chmod", CCI_MSG_CHMOD, path, mode, err);
}

/* rename and symlink. */
static cc_error_code cci_fs_do_two(cc_instance inst, const char *op, uint32_t type, const char *old, const char *new_,
                                   const char *null_name, cc_error *err)
{
    const struct cci_path_request r = {type, old, new_, 0, {0}};
    if (old && new_)
        return cci_fs_do(inst, op, &r, err);
    cci_error_clear(err);
    return cci_api_end(op, cci_api_null(null_name, err), err);
}

CC_API cc_error_code cc_fs_rename(cc_instance inst, const char *oldpath, const char *newpath, cc_error *err)
{
    return cci_fs_do_two(inst, "rename", CCI_MSG_RENAME, oldpath, newpath, oldpath ? "newpath" : "oldpath", err);
}

CC_API cc_error_code cc_fs_symlink(cc_instance inst, const char *oldname, const char *newname, cc_error *err)
{
    return cci_fs_do_two(inst, "symlink", CCI_MSG_SYMLINK, oldname, newname, oldname ? "newname" : "oldname", err);
}

CC_API cc_error_code cc_fs_chown(cc_instance inst, const char *path, int uid, int gid, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_CHOWN, path, NULL, 2, {(uint32_t)uid, (uint32_t)gid}};
    if (uid >= -1 && gid >= -1)
        return cci_fs_do(inst, "chown", &r, err);
    cci_error_clear(err);
    return cci_api_end("chown", cci_fail(err, CC_ERR_INVALID_ARGUMENT, path, "uid or gid is below -1"), err);
}

CC_API cc_error_code cc_fs_chtimes(cc_instance inst, const char *path, int64_t atime_unix, int64_t mtime_unix,
                                   cc_error *err)
{
    const struct cci_path_request r = {
        CCI_MSG_CHTIMES, path, NULL, 4, {(uint64_t)atime_unix, 0, (uint64_t)mtime_unix, 0}};
    return cci_fs_do(inst, "chtimes", &r, err);
}

CC_API cc_error_code cc_fs_readlink(cc_instance inst, const char *path, char **out, cc_error *err)
{
    struct cci_instance *i = NULL;
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    cci_error_clear(err);
    if (out)
        *out = NULL;
    cc_error_code code = cci_fs_enter(inst, path, out, &i, err);
    if (code == CC_OK) {
        code = cci_path_readlink(i->vm.control, path, out, &wait, err);
        cci_instance_leave(i);
    }
    return cci_api_end("readlink", code, err);
}

CC_API cc_error_code cc_fs_statfs(cc_instance inst, const char *path, cc_fs_info *out, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_STATFS, path, NULL, 0, {0}};
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_instance *i = NULL;
    uint64_t n[9];
    cci_error_clear(err);
    if (out)
        memset(out, 0, sizeof(*out));
    cc_error_code code = cci_fs_enter(inst, path, out, &i, err);
    if (code == CC_OK) {
        code = cci_path_ask(i->vm.control, &r, n, 9, &wait, err);
        cci_instance_leave(i);
    }
    if (code == CC_OK) {
        const cc_fs_info info = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], (n[8] & 1) != 0};
        *out = info;
    }
    return cci_api_end("statfs", code, err);
}

CC_API cc_error_code cc_fs_read_dir(cc_instance inst, const char *path, cc_dir_entry **out, size_t *count,
                                    cc_error *err)
{
    struct cci_instance *i = NULL;
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    cci_error_clear(err);
    if (out)
        *out = NULL;
    if (count)
        *count = 0;
    cc_error_code code = cci_fs_enter(inst, path, out && count ? out : NULL, &i, err);
    if (code == CC_OK) {
        code = cci_listing_read(i->vm.control, path, out, count, &wait, err);
        cci_instance_leave(i);
    }
    return cci_api_end("read_dir", code, err);
}

CC_API void cc_dir_entries_free(cc_dir_entry *entries, size_t count)
{
    cci_listing_free(entries, count);
}

#endif
