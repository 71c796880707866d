/*
 * api/cmd.h - commands: what will run, and the one run of it.
 *
 * A command is a list of settings until it starts; then it is a call on the control connection (control/exec.h). It
 * starts once. Any number of threads may wait: one of them waits for the guest, the others for that one, and the
 * result is kept. A command that is freed, or whose caller's token fires, is given up: its own token fires, which ends
 * the waits, and it is killed. It may be just about to be sent meanwhile; cci_cmd_begin then kills it.
 *
 * Every call on a command is also a call on its instance, so that closing the instance waits for it.
 */
#ifndef CCI_API_CMD_H
#define CCI_API_CMD_H

#include "../control/exec.h"
#include "instance.h"

#define CCI_CMD_SIGKILL 9

enum cci_cmd_capture { CCI_CMD_DISCARD, CCI_CMD_STDOUT, CCI_CMD_COMBINED };

struct cci_cmd {
    struct cci_object object;
    struct cci_instance *inst;     /* one reference to its object */
    struct cci_instance_item item; /* in the instance's list of what closing takes along */
    struct cci_cancel *cancel;     /* the command's own token */
    struct cci_cancel_hook hook;   /* gives the command up when `outer` fires; attached from the start on */
    struct cci_monitor monitor;    /* guards what follows; locked after a token, never before one that a caller holds */
    struct cci_cancel *outer;      /* the caller's token, or NULL; fixed once started */
    struct cci_strings argv, env;
    char *dir;
    bool image_dir; /* dir is the image's choice, which the guest makes if it is missing */
    bool started;
    struct cci_exec *exec; /* NULL before the start */
    bool waiting;          /* a thread is waiting for the guest; others wait for it */
    bool finished;         /* exit_code is known */
    int exit_code;
};

static void cci_cmd_destroy(struct cci_object *o)
{
    struct cci_cmd *c = (struct cci_cmd *)o;
    cci_cancel_detach(c->outer, &c->hook);
    cci_cancel_unref(c->outer);
    cci_cancel_unref(c->cancel);
    cci_exec_free(c->exec);
    cci_strings_free(&c->argv);
    cci_strings_free(&c->env);
    cci_mem_free(c->dir);
    cci_monitor_destroy(&c->monitor);
    if (c->inst) {
        cci_instance_forget(c->inst, &c->item);
        cci_object_unref(&c->inst->object);
    }
    cci_mem_free(c);
}

/* Ends the waits, and the program if it runs. */
static void cci_cmd_give_up(void *ctx)
{
    struct cci_cmd *c = ctx;
    cci_cancel_fire(c->cancel);
    cci_monitor_lock(&c->monitor);
    if (c->exec && !c->finished)
        cci_exec_kill(c->exec, CCI_CMD_SIGKILL);
    cci_monitor_unlock(&c->monitor);
}

CC_API void cc_cmd_free(cc_cmd cmd)
{
    struct cci_object *o;
    if (cci_handle_release(cmd, CCI_KIND_CMD, &o, NULL) != CC_OK)
        return;
    cci_cmd_give_up(o);
    cci_object_unref(o);
}

/* ---- Making one ------------------------------------------------------------------------------------------ */

/* Docker's, for images that set none. */
#define CCI_CMD_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static bool cci_cmd_fill(struct cci_cmd *c, const struct cci_image_config *config)
{
    struct cci_strings *env = &c->env;
    if (!cci_strings_add_all(env, (const char *const *)config->env.at, config->env.count))
        return false;
    if (!cci_env_get(env, "PATH") && !cci_env_set(env, "PATH", CCI_CMD_DEFAULT_PATH))
        return false;
    if (!cci_env_get(env, "HOSTNAME") && !cci_env_set(env, "HOSTNAME", c->inst->id))
        return false;
    c->image_dir = true;
    c->dir = cci_mem_strdup(config->working_dir[0] ? config->working_dir : "/");
    return c->dir != NULL;
}

/* A command with the image's settings and no words yet; NULL when there is no memory. */
static struct cci_cmd *cci_cmd_make(struct cci_instance *inst)
{
    struct cci_cmd *c = cci_mem_zalloc(1, sizeof(*c));
    if (!c)
        return NULL;
    cci_object_init(&c->object, cci_cmd_destroy);
    cci_monitor_init(&c->monitor);
    c->cancel = cci_cancel_new();
    c->inst = inst;
    cci_object_ref(&inst->object);
    if (!c->cancel || !cci_cmd_fill(c, cci_image_config(inst->image))) {
        cci_object_unref(&c->object);
        return NULL;
    }
    return c;
}

/* Gives the command its handle, and the instance the duty to free it. */
static cc_error_code cci_cmd_publish(struct cci_cmd *c, cc_cmd *out, cc_error *err)
{
    cci_object_ref(&c->object); /* a handle may be freed as soon as it exists */
    cc_error_code code = cci_handle_publish(&c->object, CCI_KIND_CMD, out, err);
    if (code == CC_OK)
        cci_instance_remember(c->inst, &c->item, c->object.handle);
    cci_object_unref(&c->object);
    return code;
}

CC_API cc_error_code cc_cmd_new(cc_instance inst, const char *name, const char *const *args, cc_cmd *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = !out ? cci_api_null("out", err) : !name ? cci_api_null("name", err) : CC_OK;
    if (code == CC_OK && !name[0])
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "name is empty");
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code)
        return cci_api_end("command", code, err);
    struct cci_cmd *c = cci_cmd_make(i);
    if (c && cci_strings_add(&c->argv, name) && (!args || cci_strings_add_all(&c->argv, args, SIZE_MAX))) {
        code = cci_cmd_publish(c, out, err);
    } else {
        code = cci_fail_nomem(err);
        if (c)
            cci_object_unref(&c->object);
    }
    cci_instance_leave(i);
    return cci_api_end("command", code, err);
}

/* The words of the image's own command. */
static cc_error_code cci_cmd_entrypoint_words(struct cci_cmd *c, const char *const *args, cc_error *err)
{
    const struct cci_image_config *config = cci_image_config(c->inst->image);
    const char *const *words = args ? args : (const char *const *)config->cmd.at;
    size_t count = args ? SIZE_MAX : config->cmd.count;
    if (!cci_strings_add_all(&c->argv, (const char *const *)config->entrypoint.at, config->entrypoint.count) ||
        !cci_strings_add_all(&c->argv, words, count))
        return cci_fail_nomem(err);
    if (c->argv.count == 0 || !c->argv.at[0][0])
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the image has no command of its own: name one");
    return CC_OK;
}

CC_API cc_error_code cc_cmd_entrypoint(cc_instance inst, const char *const *args, cc_cmd *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = out ? cci_instance_enter(inst, &i, err) : cci_api_null("out", err);
    if (code)
        return cci_api_end("entrypoint", code, err);
    struct cci_cmd *c = cci_cmd_make(i);
    code = c ? cci_cmd_entrypoint_words(c, args, err) : cci_fail_nomem(err);
    if (code == CC_OK)
        code = cci_cmd_publish(c, out, err);
    else if (c)
        cci_object_unref(&c->object);
    cci_instance_leave(i);
    return cci_api_end("entrypoint", code, err);
}

/* ---- Calls on one ---------------------------------------------------------------------------------------- */

/* The command behind a handle, for one call: with its instance entered. */
static cc_error_code cci_cmd_enter(cc_cmd cmd, struct cci_cmd **out, cc_error *err)
{
    struct cci_object *o;
    cc_error_code code = cci_handle_get(cmd, CCI_KIND_CMD, &o, err);
    if (code)
        return code;
    *out = (struct cci_cmd *)o;
    code = cci_instance_enter_object((*out)->inst, err);
    if (code)
        cci_object_unref(o);
    return code;
}

static void cci_cmd_leave(struct cci_cmd *c)
{
    struct cci_instance *inst = c->inst;
    cci_object_ref(&inst->object); /* the command may be the last to hold it */
    cci_object_unref(&c->object);
    cci_instance_leave(inst);
    cci_object_unref(&inst->object);
}

/* Enters with the monitor locked, and only before the start; for the setters. */
static cc_error_code cci_cmd_enter_unstarted(cc_cmd cmd, struct cci_cmd **out, cc_error *err)
{
    cc_error_code code = cci_cmd_enter(cmd, out, err);
    if (code)
        return code;
    cci_monitor_lock(&(*out)->monitor);
    if (!(*out)->started)
        return CC_OK;
    cci_monitor_unlock(&(*out)->monitor);
    cci_cmd_leave(*out);
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command was started before; it runs once");
}

static void cci_cmd_leave_unlock(struct cci_cmd *c)
{
    cci_monitor_unlock(&c->monitor);
    cci_cmd_leave(c);
}

/* ---- Settings -------------------------------------------------------------------------------------------- */

CC_API cc_error_code cc_cmd_set_dir(cc_cmd cmd, const char *dir, cc_error *err)
{
    struct cci_cmd *c;
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
    struct cci_cmd *c;
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
    struct cci_cmd *c;
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
    struct cci_cmd *c;
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
    struct cci_cmd *c;
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

/* ---- Running --------------------------------------------------------------------------------------------- */

/* Sends the command to the guest; with `notify` also waits until it runs. */
static cc_error_code cci_cmd_begin(struct cci_cmd *c, enum cci_cmd_capture capture, bool notify, cc_error *err)
{
    struct cci_exec_spec spec;
    const struct cci_wait wait = {CCI_FOREVER, c->cancel};
    cci_monitor_lock(&c->monitor);
    bool again = c->started;
    c->started = true;
    cci_monitor_unlock(&c->monitor);
    if (again)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command was started before; it runs once");
    /* From here on the settings do not change, so no lock is needed to read them. */
    if (cci_cancel_attach(c->outer, &c->hook, cci_cmd_give_up, c))
        cci_cancel_fire(c->cancel);
    if (cci_cancel_is_set(c->cancel))
        return cci_fail(err, CC_ERR_CANCELLED, c->argv.at[0], "cancelled before the command was started");
    memset(&spec, 0, sizeof(spec));
    spec.argv = (const char *const *)c->argv.at;
    spec.argc = c->argv.count;
    spec.env = (const char *const *)c->env.at;
    spec.envc = c->env.count;
    spec.dir = c->dir;
    spec.make_dir = c->image_dir;
    spec.stdout_wanted = capture != CCI_CMD_DISCARD;
    spec.merge = capture == CCI_CMD_COMBINED;
    spec.notify = notify;
    struct cci_exec *exec;
    cc_error_code code = cci_exec_begin(c->inst->vm.control, &spec, &exec, err);
    if (code)
        return code;
    cci_monitor_lock(&c->monitor);
    c->exec = exec;
    cci_monitor_unlock(&c->monitor);
    if (cci_cancel_is_set(c->cancel)) /* given up when there was nothing to kill yet */
        cci_exec_kill(exec, CCI_CMD_SIGKILL);
    return notify ? cci_exec_started(exec, &wait, err) : CC_OK;
}

static bool cci_cmd_may_wait(void *ctx)
{
    const struct cci_cmd *c = ctx;
    return c->finished || !c->waiting;
}

/* Waits for the end of a started command; the first of several threads waits for the guest. */
static cc_error_code cci_cmd_finish(struct cci_cmd *c, int *exit_code, cc_error *err)
{
    const struct cci_wait wait = {CCI_FOREVER, c->cancel};
    const struct cci_wait turn = CCI_WAIT_FOREVER; /* the thread that waits for the guest is cancelled for all */
    int result = 0;
    (void)cci_monitor_wait(&c->monitor, &turn, cci_cmd_may_wait, c, "another wait", NULL);
    struct cci_exec *exec = c->exec;
    bool finished = c->finished;
    if (finished)
        *exit_code = c->exit_code;
    else
        c->waiting = true;
    cci_monitor_unlock(&c->monitor);
    if (finished)
        return CC_OK;
    cc_error_code code = cci_exec_wait(exec, &wait, &result, err);
    cci_monitor_lock(&c->monitor);
    c->waiting = false;
    c->finished = code == CC_OK;
    c->exit_code = result;
    cci_cond_wake(&c->monitor.cond);
    cci_monitor_unlock(&c->monitor);
    *exit_code = result;
    return code;
}

CC_API cc_error_code cc_cmd_start(cc_cmd cmd, cc_error *err)
{
    struct cci_cmd *c;
    cci_error_clear(err);
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code == CC_OK) {
        code = cci_cmd_begin(c, CCI_CMD_DISCARD, true, err);
        cci_cmd_leave(c);
    }
    return cci_api_end("start", code, err);
}

CC_API cc_error_code cc_cmd_wait(cc_cmd cmd, int *exit_code, cc_error *err)
{
    struct cci_cmd *c;
    int result = 0;
    cci_error_clear(err);
    if (exit_code)
        *exit_code = 0;
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code == CC_OK) {
        cci_monitor_lock(&c->monitor);
        bool started = c->exec != NULL;
        cci_monitor_unlock(&c->monitor);
        code = started ? cci_cmd_finish(c, &result, err)
                       : cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the command was not started");
        cci_cmd_leave(c);
    }
    if (code == CC_OK && exit_code)
        *exit_code = result;
    return cci_api_end("wait", code, err);
}

/* What run, output and combined_output share. `out` and `len` are NULL together. */
static cc_error_code cci_cmd_run(cc_cmd cmd, enum cci_cmd_capture capture, uint8_t **out, size_t *len, int *exit_code,
                                 cc_error *err)
{
    struct cci_cmd *c;
    int result = 0;
    cci_error_clear(err);
    if (exit_code)
        *exit_code = 0;
    if (out)
        *out = NULL;
    if (len)
        *len = 0;
    if (capture != CCI_CMD_DISCARD && (!out || !len))
        return cci_api_null(out ? "len" : "out", err);
    cc_error_code code = cci_cmd_enter(cmd, &c, err);
    if (code)
        return code;
    code = cci_cmd_begin(c, capture, false, err);
    if (code == CC_OK)
        code = cci_cmd_finish(c, &result, err);
    if (code == CC_OK && out)
        code = cci_exec_take(c->exec, CCI_CHANNEL_STDOUT, out, len, err);
    if (code == CC_OK && exit_code)
        *exit_code = result;
    cci_cmd_leave(c);
    return code;
}

CC_API cc_error_code cc_cmd_run(cc_cmd cmd, int *exit_code, cc_error *err)
{
    return cci_api_end("run", cci_cmd_run(cmd, CCI_CMD_DISCARD, NULL, NULL, exit_code, err), err);
}

CC_API cc_error_code cc_cmd_output(cc_cmd cmd, uint8_t **out, size_t *len, int *exit_code, cc_error *err)
{
    return cci_api_end("output", cci_cmd_run(cmd, CCI_CMD_STDOUT, out, len, exit_code, err), err);
}

CC_API cc_error_code cc_cmd_combined_output(cc_cmd cmd, uint8_t **out, size_t *len, int *exit_code, cc_error *err)
{
    return cci_api_end("combined_output", cci_cmd_run(cmd, CCI_CMD_COMBINED, out, len, exit_code, err), err);
}

CC_API int cc_cmd_exit_code(cc_cmd cmd)
{
    struct cci_cmd *c;
    if (cci_cmd_enter(cmd, &c, NULL) != CC_OK)
        return -1;
    cci_monitor_lock(&c->monitor);
    int result = c->finished ? c->exit_code : -1;
    cci_cmd_leave_unlock(c);
    return result;
}

#endif
