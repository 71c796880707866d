/*
 * api/file.h - open files: the handle's side of control/openfile.h.
 *
 * A file is a call's worth of state: the guest has the descriptor and its position. Closing takes the handle away, so
 * one thread closes; those inside end with CC_ERR_ALREADY_CLOSED.
 */
#ifndef CCI_API_FILE_H
#define CCI_API_FILE_H

#include "../control/openfile.h"
#include "fs.h"
#include "part.h"

struct cci_file {
    struct cci_part part;
    struct cci_openfile open;
};

static void cci_file_destroy(struct cci_object *o)
{
    struct cci_file *f = (struct cci_file *)o;
    cci_openfile_destroy(&f->open);
    cci_part_end(&f->part);
    cci_mem_free(f);
}

/* ---- Opening ---------------------------------------------------------------------------------------------- */

/* With the instance entered. */
static cc_error_code cci_file_open(struct cci_instance *i, const char *path, int flags, cc_file_mode perm, cc_file *out,
                                   cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_file *f = cci_mem_zalloc(1, sizeof(*f));
    if (!f)
        return cci_fail_nomem(err);
    cc_error_code code = cci_openfile_open(&f->open, i->vm.control, path, (unsigned)flags, perm, &wait, err);
    if (code) {
        cci_mem_free(f);
        return code;
    }
    cci_part_init(&f->part, i, cci_file_destroy);
    cci_object_ref(&f->part.object); /* for the close, should there be no handle */
    code = cci_part_publish(&f->part, CCI_KIND_FILE, out, err);
    if (code)
        (void)cci_openfile_close(&f->open, &wait, NULL);
    cci_object_unref(&f->part.object);
    return code;
}

static cc_error_code cci_file_new(cc_instance inst, const char *path, int flags, cc_file_mode perm, cc_file *out,
                                  cc_error *err)
{
    const int known = CC_O_WRONLY | CC_O_RDWR | CC_O_APPEND | CC_O_CREATE | CC_O_TRUNC | CC_O_EXCL;
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    if (out)
        *out = 0;
    if ((flags & ~known) || (flags & (CC_O_WRONLY | CC_O_RDWR)) == (CC_O_WRONLY | CC_O_RDWR))
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, path,
                        "flags has bits that are no CC_O_ flags, or WRONLY and RDWR");
    if (perm & ~(cc_file_mode)07777)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, path, "perm has bits beyond 07777");
    cc_error_code code = cci_fs_enter(inst, path, out, &i, err);
    if (code)
        return code;
    code = cci_file_open(i, path, flags, perm, out, err);
    cci_instance_leave(i);
    return code;
}

CC_API cc_error_code cc_fs_open_file(cc_instance inst, const char *path, int flags, cc_file_mode perm, cc_file *out,
                                     cc_error *err)
{
    return cci_api_end("open_file", cci_file_new(inst, path, flags, perm, out, err), err);
}

CC_API cc_error_code cc_fs_open(cc_instance inst, const char *path, cc_file *out, cc_error *err)
{
    return cci_api_end("open", cci_file_new(inst, path, CC_O_RDONLY, 0, out, err), err);
}

CC_API cc_error_code cc_fs_create(cc_instance inst, const char *path, cc_file *out, cc_error *err)
{
    return cci_api_end("create", cci_file_new(inst, path, CC_O_RDWR | CC_O_CREATE | CC_O_TRUNC, 0666, out, err), err);
}

/* ---- Calls on one ----------------------------------------------------------------------------------------- */

/* The file behind a handle, for one call: with its instance entered. */
static cc_error_code cci_file_enter(cc_file file, struct cci_file **out, cc_error *err)
{
    struct cci_part *p;
    cc_error_code code = cci_part_enter(file, CCI_KIND_FILE, &p, err);
    *out = (struct cci_file *)p;
    return code;
}

CC_API cc_error_code cc_file_close(cc_file file, cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_handle_release(file, CCI_KIND_FILE, &o, err);
    if (code == CC_OK) {
        struct cci_file *f = (struct cci_file *)o;
        code = cci_instance_enter_object(f->part.inst, err);
        if (code == CC_OK) {
            code = cci_openfile_close(&f->open, &wait, err);
            cci_part_leave(&f->part);
        } else {
            cci_object_unref(o);
        }
    }
    return cci_api_end("close", code, err);
}

/* The beginning of a read or write: its arguments, then the file. */
static cc_error_code cci_file_enter_for(cc_file file, const uint8_t *buf, size_t len, size_t *n, struct cci_file **out,
                                        cc_error *err)
{
    cci_error_clear(err);
    if (!n)
        return cci_api_null("n", err);
    *n = 0;
    return buf || !len ? cci_file_enter(file, out, err) : cci_api_null("buf", err);
}

CC_API cc_error_code cc_file_read(cc_file file, uint8_t *buf, size_t len, size_t *n, cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_file *f = NULL;
    cc_error_code code = cci_file_enter_for(file, buf, len, n, &f, err);
    if (code == CC_OK) {
        code = cci_openfile_read(&f->open, buf, len, n, &wait, err);
        cci_part_leave(&f->part);
    }
    return cci_api_end("read", code, err);
}

CC_API cc_error_code cc_file_write(cc_file file, const uint8_t *buf, size_t len, size_t *n, cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_file *f = NULL;
    cc_error_code code = cci_file_enter_for(file, buf, len, n, &f, err);
    if (code == CC_OK) {
        code = cci_openfile_write(&f->open, buf, len, n, &wait, err);
        cci_part_leave(&f->part);
    }
    return cci_api_end("write", code, err);
}

CC_API cc_error_code cc_file_seek(cc_file file, int64_t offset, cc_seek_whence whence, int64_t *new_offset,
                                  cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_file *f = NULL;
    uint64_t at = 0;
    cci_error_clear(err);
    if (new_offset)
        *new_offset = 0;
    cc_error_code code = (unsigned)whence > CC_SEEK_END
                             ? cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "whence is none of CC_SEEK_SET, CUR, END")
                             : cci_file_enter(file, &f, err);
    if (code == CC_OK) {
        code = cci_openfile_seek(&f->open, offset, (unsigned)whence, &at, &wait, err);
        cci_part_leave(&f->part);
    }
    if (code == CC_OK && new_offset)
        *new_offset = (int64_t)at;
    return cci_api_end("seek", code, err);
}

/* sync and truncate. */
static cc_error_code cci_file_do(cc_file file, const char *op, uint32_t type, uint64_t n, cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_file *f = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_file_enter(file, &f, err);
    if (code == CC_OK) {
        code = cci_openfile_do(&f->open, type, n, &wait, err);
        cci_part_leave(&f->part);
    }
    return cci_api_end(op, code, err);
}

CC_API cc_error_code cc_file_sync(cc_file file, cc_error *err)
{
    return cci_file_do(file, "sync", CCI_MSG_FILE_SYNC, 0, err);
}

CC_API cc_error_code cc_file_truncate(cc_file file, int64_t size, cc_error *err)
{
    return cci_file_do(file, "truncate", CCI_MSG_FILE_TRUNCATE, (uint64_t)size, err);
}

CC_API cc_error_code cc_file_stat(cc_file file, cc_file_info *out, cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_file_stat st;
    struct cci_file *f = NULL;
    cci_error_clear(err);
    if (out)
        memset(out, 0, sizeof(*out));
    cc_error_code code = out ? cci_file_enter(file, &f, err) : cci_api_null("out", err);
    if (code == CC_OK) {
        code = cci_openfile_stat(&f->open, &st, &wait, err);
        if (code == CC_OK)
            code = cci_fs_info(f->open.path, &st, out, err);
        cci_part_leave(&f->part);
    }
    return cci_api_end("stat", code, err);
}

CC_API char *cc_file_name(cc_file file)
{
    struct cci_file *f = NULL;
    if (cci_file_enter(file, &f, NULL) != CC_OK)
        return NULL;
    char *name = cci_mem_strdup(f->open.path);
    cci_part_leave(&f->part);
    return name;
}

#endif
