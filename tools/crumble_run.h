/*
 * crumble_run.h - crumble run: an image's command in a machine of its own.
 */
#ifndef TOOLS_CRUMBLE_RUN_H
#define TOOLS_CRUMBLE_RUN_H

#include "crumble_images.h"

#include <errno.h>

/* Gives the command its directory and environment. */
static cc_error_code prepare(cc_cmd cmd, const struct options *o, cc_error *err)
{
    cc_error_code code = o->workdir ? cc_cmd_set_dir(cmd, o->workdir, err) : CC_OK;
    for (size_t i = 0; i < o->env_count && !code; i++) {
        char *name = strdup(o->env[i]), *equals = name ? strchr(name, '=') : NULL;
        if (equals)
            *equals = '\0';
        const char *value = equals ? equals + 1 : name ? getenv(name) : NULL;
        if (value) /* one that is not set here is not passed on, as with Docker */
            code = cc_cmd_set_env(cmd, name, value, err);
        free(name);
    }
    return code ? code : cc_cmd_set_cancel(cmd, session.interrupt, err);
}

static int run_in(cc_instance inst, const struct options *o, char **words, cc_error *err)
{
    cc_cmd cmd = 0;
    uint8_t *out = NULL;
    size_t len = 0;
    int code = 0;
    const char *const *args = (const char *const *)words;
    bool failed = o->entrypoint ? cc_cmd_new(inst, o->entrypoint, args, &cmd, err) != CC_OK
                                : cc_cmd_entrypoint(inst, *words ? args : NULL, &cmd, err) != CC_OK;
    if (failed || prepare(cmd, o, err))
        return fail(err);
    if (cc_cmd_combined_output(cmd, &out, &len, &code, err)) {
        int why = err->code == CC_ERR_IO ? err->sys_errno : 0, status = fail(err);
        if (session.interrupted)
            return status;
        return why == ENOENT ? EXIT_NOT_FOUND : why == EACCES ? EXIT_NOT_EXECUTABLE : status;
    }
    fwrite(out, 1, len, stdout);
    cc_free_bytes(out);
    return code;
}

static int cmd_run(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_instance inst = 0;
    cc_error err = {0};
    if (count < 1)
        return usage("run takes an image");
    o->machine.cancel = session.interrupt;
    if (open_image(args[0], o, &source, NULL, &err) || cc_instance_new(source, &o->machine, &inst, &err))
        return fail(&err);
    int status = run_in(inst, o, args + 1, &err);
    cc_instance_close(inst, NULL);
    cc_instance_source_free(source);
    return status;
}

#endif
