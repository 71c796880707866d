/*
 * tests/control/fs_do.h - tests/fs_cases.h through the agent; the includer has an agent `a` and a wait `w`.
 */
#ifndef TESTS_CONTROL_FS_DO_H
#define TESTS_CONTROL_FS_DO_H

#include "../fs_cases.h"

static int read_is(const char *path, const char *text, cc_error *err)
{
    uint8_t *got = NULL;
    size_t n = 0;
    if (cci_file_read(a.ctl, path, 0, &got, &n, w, err))
        return err->sys_errno;
    int same = strcmp((char *)got, text) == 0;
    cci_mem_free(got);
    return same ? 0 : -1;
}

static int readlink_is(const char *path, const char *text, cc_error *err)
{
    char *got = NULL;
    if (cci_path_readlink(a.ctl, path, &got, w, err))
        return err->sys_errno;
    int same = strcmp(got, text) == 0;
    cci_mem_free(got);
    return same ? 0 : -1;
}

static int stat_is(const char *path, bool nofollow, unsigned mode, cc_error *err)
{
    struct cci_file_stat st;
    if (cci_file_stat(a.ctl, path, nofollow, &st, w, err))
        return err->sys_errno;
    return st.mode == mode ? 0 : -1;
}

static int ask(uint32_t type, const char *path, const char *other, unsigned n, cc_error *err)
{
    const struct cci_path_request r = {type, path, other, 1, {n}};
    return cci_path_do(a.ctl, &r, w, err) ? err->sys_errno : 0;
}

static int fs_do(const struct fs_case *c, const char *path, const char *other)
{
    static const uint32_t types[] = {
        [FS_REMOVE] = CCI_MSG_REMOVE,       [FS_REMOVE_ALL] = CCI_MSG_REMOVE_ALL, [FS_MKDIR] = CCI_MSG_MKDIR,
        [FS_MKDIR_ALL] = CCI_MSG_MKDIR_ALL, [FS_RENAME] = CCI_MSG_RENAME,         [FS_SYMLINK] = CCI_MSG_SYMLINK,
        [FS_CHMOD] = CCI_MSG_CHMOD};
    cc_error err = {0};
    int r;
    if (c->op == FS_WRITE)
        r = cci_file_write(a.ctl, path, c->text, strlen(c->text), c->n, w, &err) ? err.sys_errno : 0;
    else if (c->op == FS_READ)
        r = read_is(path, c->text, &err);
    else if (c->op == FS_READLINK)
        r = readlink_is(path, c->text ? c->text : "", &err);
    else if (c->op == FS_STAT || c->op == FS_LSTAT)
        r = stat_is(path, c->op == FS_LSTAT, c->n, &err);
    else
        r = ask(types[c->op], path, c->op == FS_RENAME || c->op == FS_SYMLINK ? other : NULL, c->n, &err);
    if (r > 0)
        CHECK_EQ_STR(err.path, path);
    cci_error_release(&err);
    return r;
}

#endif
