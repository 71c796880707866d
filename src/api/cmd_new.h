/*
 * api/cmd_new.h - making a command: of words, or the image's own.
 */
#ifndef CCI_API_CMD_NEW_H
#define CCI_API_CMD_NEW_H

#include "cmd.h"

/* Docker's, for images that set none. */
#define CCI_CMD_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static bool cci_cmd_fill(struct cci_cmd *c, const struct cci_image_config *config)
{
    struct cci_strings *env = &c->env;
    if (!cci_env_copy(env, &config->env))
        return false;
    if (!cci_env_get(env, "PATH") && !cci_env_set(env, "PATH", CCI_CMD_DEFAULT_PATH))
        return false;
    if (!cci_env_get(env, "HOSTNAME") && !cci_env_set(env, "HOSTNAME", c->part.inst->id))
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
    cci_part_init(&c->part, inst, cci_cmd_destroy);
    c->part.object.interrupt = cci_cmd_interrupt;
    cci_monitor_init(&c->monitor);
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        c->io[i].fd = c->io[i].stop = CCI_NO_FD;
    c->cancel = cci_cancel_new();
    if (!c->cancel || !cci_cmd_fill(c, cci_image_config(inst->image))) {
        cci_object_unref(&c->part.object);
        return NULL;
    }
    return c;
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
        cci_object_unref(&c->part.object);
    return cci_fail_nomem(err);
}

/* The words of the image's own command. */
static cc_error_code cci_cmd_entrypoint_words(struct cci_cmd *c, const char *const *args, cc_error *err)
{
    const struct cci_image_config *config = cci_image_config(c->part.inst->image);
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
        cci_object_unref(&c->part.object);
    *out = code ? NULL : c;
    return code;
}

/* A command that has a handle: the image's own, or of these words. */
static cc_error_code cci_cmd_new(cc_instance inst, bool own, const char *name, const char *const *args, cc_cmd *out,
                                 cc_error *err)
{
    struct cci_instance *i = NULL;
    struct cci_cmd *c = NULL;
    cci_error_clear(err);
    if (!out)
        return cci_api_null("out", err);
    *out = 0;
    cc_error_code code = cci_instance_enter(inst, &i, err);
    if (code)
        return code;
    code = own ? cci_cmd_make_entrypoint(i, args, &c, err) : cci_cmd_make_named(i, name, args, &c, err);
    if (code == CC_OK)
        code = cci_part_publish(&c->part, CCI_KIND_CMD, out, err);
    cci_instance_leave(i);
    return code;
}

CC_API cc_error_code cc_cmd_new(cc_instance inst, const char *name, const char *const *args, cc_cmd *out, cc_error *err)
{
    return cci_api_end("command", cci_cmd_new(inst, false, name, args, out, err), err);
}

CC_API cc_error_code cc_cmd_entrypoint(cc_instance inst, const char *const *args, cc_cmd *out, cc_error *err)
{
    return cci_api_end("entrypoint", cci_cmd_new(inst, true, NULL, args, out, err), err);
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
    spec.user = c->user;
    spec.tty = c->tty;
    spec.columns = c->columns;
    spec.rows = c->rows;
    return spec;
}

#endif
