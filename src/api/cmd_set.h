/*
 * api/cmd_set.h - the settings of a command that has not started: os/exec's fields of Cmd.
 */
#ifndef CCI_API_CMD_SET_H
#define CCI_API_CMD_SET_H

#include "cmd.h"

CC_API cc_error_code cc_cmd_set_dir(cc_cmd cmd, const char *dir, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = CC_OK;
    if (!dir)
        code = cci_api_null("dir", err);
    else if (dir[0] != '/')
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, dir, "the working directory is not an absolute path");
    else
        code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code)
        return cci_api_end("set_dir", code, err);
    char *copy = cci_mem_strdup(dir);
    if (copy) {
        cci_mem_free(c->dir);
        c->dir = copy;
        c->image_dir = false;
    } else {
        code = cci_fail_nomem(err);
    }
    cci_cmd_leave_unlock(c);
    return cci_api_end("set_dir", code, err);
}

CC_API cc_error_code cc_cmd_set_env(cc_cmd cmd, const char *key, const char *value, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = CC_OK;
    if (!key)
        code = cci_api_null("key", err);
    else if (!key[0] || strchr(key, '='))
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "\"%s\" cannot be the name of a variable", key);
    else
        code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code)
        return cci_api_end("set_env", code, err);
    if (!value)
        cci_env_remove(&c->env, key);
    else if (!cci_env_set(&c->env, key, value))
        code = cci_fail_nomem(err);
    cci_cmd_leave_unlock(c);
    return cci_api_end("set_env", code, err);
}

CC_API char *cc_cmd_get_env(cc_cmd cmd, const char *key)
{
    struct cci_cmd *c = NULL;
    if (!key || cci_cmd_enter(cmd, &c, NULL) != CC_OK)
        return NULL;
    cci_monitor_lock(&c->monitor);
    const char *value = cci_env_get(&c->env, key);
    char *copy = value ? cci_mem_strdup(value) : NULL;
    cci_cmd_leave_unlock(c);
    return copy;
}

CC_API cc_error_code cc_cmd_environ(cc_cmd cmd, char ***out, size_t *count, cc_error *err)
{
    struct cci_cmd *c = NULL;
    struct cci_strings copy = {0};
    cci_error_clear(err);
    if (out)
        *out = NULL;
    if (count)
        *count = 0;
    cc_error_code code = out && count ? cci_cmd_enter(cmd, &c, err) : cci_api_null(out ? "count" : "out", err);
    if (code)
        return cci_api_end("environ", code, err);
    cci_monitor_lock(&c->monitor);
    bool ok = cci_strings_add_all(&copy, (const char *const *)c->env.at, c->env.count);
    cci_cmd_leave_unlock(c);
    if (ok)
        *out = cci_strings_release(&copy, count);
    if (!ok || !*out)
        code = cci_fail_nomem(err);
    cci_strings_free(&copy);
    return cci_api_end("environ", code, err);
}

CC_API cc_error_code cc_cmd_set_cancel(cc_cmd cmd, cc_cancel_token cancel, cc_error *err)
{
    struct cci_cmd *c = NULL;
    struct cci_cancel *token;
    cci_error_clear(err);
    cc_error_code code = cci_token_use(cancel, &token, err);
    if (code == CC_OK)
        code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code) {
        cci_cancel_unref(token);
        return cci_api_end("set_cancel", code, err);
    }
    struct cci_cancel *old = c->outer;
    c->outer = token;
    cci_cmd_leave_unlock(c);
    cci_cancel_unref(old);
    return cci_api_end("set_cancel", CC_OK, err);
}

CC_API cc_error_code cc_cmd_set_user(cc_cmd cmd, const char *user, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code)
        return cci_api_end("set_user", code, err);
    /* The agent takes an empty one for the instance's, which NULL is here. */
    char *copy = user ? cci_mem_strdup(user[0] ? user : "0") : NULL;
    if (user && !copy) {
        code = cci_fail_nomem(err);
    } else {
        cci_mem_free(c->user);
        c->user = copy;
    }
    cci_cmd_leave_unlock(c);
    return cci_api_end("set_user", code, err);
}

CC_API cc_error_code cc_cmd_set_timeout(cc_cmd cmd, double seconds, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = CC_OK;
    if (!(seconds >= 0) || seconds > 1e9)
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "seconds must be from 0 to 1e9");
    if (code == CC_OK)
        code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code == CC_OK) {
        c->timeout_seconds = seconds;
        cci_cmd_leave_unlock(c);
    }
    return cci_api_end("set_timeout", code, err);
}

CC_API cc_error_code cc_cmd_set_tty(cc_cmd cmd, int cols, int rows, cc_error *err)
{
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_check_size(cols, rows, err);
    if (code == CC_OK)
        code = cci_cmd_enter_unstarted(cmd, &c, err);
    if (code)
        return cci_api_end("set_tty", code, err);
    if (c->io[CCI_CHANNEL_STDERR].kind != CCI_CMD_IO_NONE) {
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "on a terminal there is no separate standard error");
    } else if (!cci_env_get(&c->env, "TERM") && !cci_env_set(&c->env, "TERM", "xterm")) {
        code = cci_fail_nomem(err);
    } else {
        c->tty = true;
        c->columns = (uint32_t)cols;
        c->rows = (uint32_t)rows;
    }
    cci_cmd_leave_unlock(c);
    return cci_api_end("set_tty", code, err);
}

#endif
