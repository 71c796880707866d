/*
 * crumble_run.h - crumble run: an image's command in a machine of its own, with this program's standard streams,
 * signals and terminal as far as it is to have them.
 *
 * Signals are forwarded as `docker run` does it: while the command runs they are its, and whether they end it is its
 * own affair. So is ^C on a terminal of its own. The third SIGINT or SIGTERM ends the machine, since a command may
 * ignore them and a guest may hang. The latter is also why each is forwarded by a thread of its own.
 */
#ifndef TOOLS_CRUMBLE_RUN_H
#define TOOLS_CRUMBLE_RUN_H

#include "crumble_images.h"

#include <errno.h>
#include <stdatomic.h>

enum { ENOUGH_SIGNALS = 3 };

static _Atomic(cc_cmd) running; /* the command that signals go to; 0: none */

/* ---- Signals ----------------------------------------------------------------------------------------------- */

static void *forward_main(void *number)
{
    int columns, rows;
    cc_cmd cmd = running;
    if ((int)(intptr_t)number != SIGWINCH) {
        cc_cmd_signal(cmd, (int)(intptr_t)number, NULL);
    } else {
        terminal_size(&columns, &rows);
        cc_cmd_resize(cmd, columns, rows, NULL); /* of one that has no terminal it is refused */
    }
    return NULL;
}

static bool forward_signal(int number)
{
    static int seen;
    pthread_t thread;
    bool for_commands = number == SIGUSR1 || number == SIGUSR2 || number == SIGWINCH;
    if (!running)
        return for_commands;
    if ((number == SIGINT || number == SIGTERM) && ++seen == ENOUGH_SIGNALS)
        return false;
    if (pthread_create(&thread, NULL, forward_main, (void *)(intptr_t)number) != 0)
        return for_commands;
    return pthread_detach(thread) == 0;
}

/* ---- The command ------------------------------------------------------------------------------------------- */

/* Gives the command its directory, environment and time. */
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
    if (!code && o->timeout > 0)
        code = cc_cmd_set_timeout(cmd, o->timeout, err);
    return code ? code : cc_cmd_set_cancel(cmd, session.interrupt, err);
}

/* Connects its standard streams. */
static cc_error_code connect_streams(cc_cmd cmd, const struct options *o, cc_error *err)
{
    cc_error_code code = CC_OK;
    if (o->tty) {
        int columns, rows;
        terminal_size(&columns, &rows);
        code = cc_cmd_set_tty(cmd, columns, rows, err);
    } else {
        code = cc_cmd_set_stderr_fd(cmd, STDERR_FILENO, err);
    }
    if (!code && o->interactive)
        code = cc_cmd_set_stdin_fd(cmd, STDIN_FILENO, err);
    return code ? code : cc_cmd_set_stdout_fd(cmd, STDOUT_FILENO, err);
}

static cc_error_code make_command(cc_instance inst, const struct options *o, const char *const *words, cc_cmd *cmd,
                                  cc_error *err)
{
    cc_error_code code = o->entrypoint ? cc_cmd_new(inst, o->entrypoint, words, cmd, err)
                                       : cc_cmd_entrypoint(inst, *words ? words : NULL, cmd, err);
    if (!code)
        code = prepare(*cmd, o, err);
    return code ? code : connect_streams(*cmd, o, err);
}

/* Runs a command to its end; its exit status, or crumble's. */
static int run_command_in_guest(cc_cmd cmd, const struct options *o, cc_error *err)
{
    int status = 0;
    if (cc_cmd_start(cmd, err)) {
        int why = err->code == CC_ERR_IO ? err->sys_errno : 0;
        status = fail(err);
        if (session.interrupted)
            return status;
        return why == ENOENT ? EXIT_NOT_FOUND : why == EACCES ? EXIT_NOT_EXECUTABLE : status;
    }
    running = cmd;
    if (o->tty && o->interactive)
        terminal_make_raw();
    cc_error_code code = cc_cmd_wait(cmd, &status, err);
    terminal_restore();
    running = 0;
    if (code == CC_ERR_IO && err->sys_errno == EPIPE) { /* `crumble run ... | head`: nothing to complain of */
        cc_error_free(err);
        return 128 + SIGPIPE;
    }
    if (code)
        status = fail(err);
    return code == CC_ERR_TIMEOUT ? EXIT_TIMED_OUT : status;
}

static int cmd_run(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_instance inst = 0;
    cc_cmd cmd = 0;
    cc_error err = {0};
    if (count < 1)
        return usage("run takes an image");
    if (o->tty && o->interactive && !isatty(STDIN_FILENO))
        return usage("-i and -t together need a terminal as standard input");
    o->machine.cancel = session.interrupt;
    if (open_image(args[0], o, &source, NULL, &err) || cc_instance_new(source, &o->machine, &inst, &err) ||
        make_command(inst, o, (const char *const *)args + 1, &cmd, &err))
        return fail(&err);
    int status = run_command_in_guest(cmd, o, &err);
    cc_instance_close(inst, NULL);
    cc_instance_source_free(source);
    return status;
}

#endif
