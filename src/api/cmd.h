/*
 * api/cmd.h - commands: making one, giving it up, and the calls on it. The settings are in cmd_set.h, the run in
 * cmd_run.h, what it reads and writes in cmd_pipe.h and cmd_stdio.h.
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

/* A command of these words; its caller has entered the instance. */
static cc_error_code cci_cmd_make_named(struct cci_instance *i, const char *name, const char *const *args,
                                        struct cci_cmd **out, cc_error *err)
{
    *out = NULL;
    if (!name)
        return cci_api_null("name", err);
    if (!name[0])
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "name is empty");
    struct cci_cmd *c = cci_cmd_make(i);
    if (c && cci_strings_add(&c->argv, name) && (!args || cci_strings_add_all(&c->argv, args, SIZE_MAX))) {
        *out = c;
        return CC_OK;
    }
    if (c)
        cci_object_unref(&c->object);
    return cci_fail_nomem(err);
}

CC_API cc_error_code cc_cmd_new(cc_instance inst, const char *name, const char *const *args, cc_cmd *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    struct cci_cmd *c;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = out ? cci_instance_enter(inst, &i, err) : cci_api_null("out", err);
    if (code)
        return cci_api_end("command", code, err);
    code = cci_cmd_make_named(i, name, args, &c, err);
    if (code == CC_OK)
        code = cci_cmd_publish(c, out, err);
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

/* The image's own command; its caller has entered the instance. */
static cc_error_code cci_cmd_make_entrypoint(struct cci_instance *i, const char *const *args, struct cci_cmd **out,
                                             cc_error *err)
{
    struct cci_cmd *c = cci_cmd_make(i);
    cc_error_code code = c ? cci_cmd_entrypoint_words(c, args, err) : cci_fail_nomem(err);
    if (code && c)
        cci_object_unref(&c->object);
    *out = code ? NULL : c;
    return code;
}

CC_API cc_error_code cc_cmd_entrypoint(cc_instance inst, const char *const *args, cc_cmd *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    struct cci_cmd *c;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = out ? cci_instance_enter(inst, &i, err) : cci_api_null("out", err);
    if (code)
        return cci_api_end("entrypoint", code, err);
    code = cci_cmd_make_entrypoint(i, args, &c, err);
    if (code == CC_OK)
        code = cci_cmd_publish(c, out, err);
    cci_instance_leave(i);
    return cci_api_end("entrypoint", code, err);
}

/* What the agent is asked for, as far as the command itself says it. The strings are the command's. */
static struct cci_exec_spec cci_cmd_spec(const struct cci_cmd *c)
{
    struct cci_exec_spec spec;
    memset(&spec, 0, sizeof(spec));
    spec.argv = (const char *const *)c->argv.at;
    spec.argc = c->argv.count;
    spec.env = (const char *const *)c->env.at;
    spec.envc = c->env.count;
    spec.dir = c->dir;
    spec.make_dir = c->image_dir;
    return spec;
}

#define CCI_CMD_SIGNAL_MAX 64

static cc_error_code cci_cmd_check_signal(int sig, cc_error *err)
{
    if (sig >= 0 && sig <= CCI_CMD_SIGNAL_MAX)
        return CC_OK;
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "signals are 0 to %d", CCI_CMD_SIGNAL_MAX);
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

#endif
