/*
 * crumble_session.h - what all commands of crumble share: the image cache, failures, and interruptions.
 *
 * Signals that end a program are blocked in all threads and taken by one of its own. The first cancels what is under
 * way, so that it ends in order: a pull keeps what has come, a machine is closed. The second ends the program on the
 * spot. While a command runs in a guest, signals go to it instead (crumble_run.h).
 */
#ifndef TOOLS_CRUMBLE_SESSION_H
#define TOOLS_CRUMBLE_SESSION_H

#include "cc.h"
#include "crumble_terminal.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_TIMED_OUT = 124, /* of run, as timeout(1) has it */
    EXIT_CRUMBLE = 125,   /* of run, in place of both: 1 and 2 may be the command's own */
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127
};

static struct {
    cc_oci_client client;
    cc_cancel_token interrupt;         /* cancelled by the first signal */
    volatile sig_atomic_t interrupted; /* that signal; 0: none */
    sigset_t signals;                  /* those that are taken */
    bool (*on_signal)(int number);     /* asked first: whether that is all there is to do */
    const char *command;               /* "pull" */
} session;

static bool session_is_run(void)
{
    return session.command && strcmp(session.command, "run") == 0;
}

/* ---- Failures -------------------------------------------------------------------------------------------- */

/* A path may be a name in an image: as in messages, nothing of it is to control the terminal. */
static bool is_said(cc_error *err)
{
    for (char *p = err->path; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return strstr(err->message, err->path) != NULL;
}

/* Says what failed; returns the exit status. Releases *err. */
static int fail(cc_error *err)
{
    int status = session_is_run() ? EXIT_CRUMBLE : EXIT_FAILED;
    if (session.interrupted)
        status = 128 + session.interrupted;
    else if (err->path && err->message && !is_said(err))
        fprintf(stderr, "crumble: %s: %s\n", err->path, err->message);
    else
        fprintf(stderr, "crumble: %s\n", err->message ? err->message : "out of memory");
    cc_error_free(err);
    return status;
}

/* Says what is wrong with the arguments; returns the exit status. */
static int usage(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "crumble: ");
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "; see crumble --help\n");
    va_end(args);
    return session_is_run() ? EXIT_CRUMBLE : EXIT_USAGE;
}

/* ---- Interruptions --------------------------------------------------------------------------------------- */

static void *session_signals(void *unused)
{
    int number;
    (void)unused;
    while (sigwait(&session.signals, &number) == 0) {
        if (session.on_signal && session.on_signal(number))
            continue;
        if (session.interrupted) {
            terminal_restore();
            _exit(128 + number);
        }
        session.interrupted = number;
        cc_cancel_token_cancel(session.interrupt, NULL);
    }
    return NULL;
}

/* Before any other thread is started. What is ignored (nohup, a background job) stays ignored. */
static bool session_watch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
    size_t count = session.on_signal ? 7 : 4; /* the last mean something to a command in a guest only */
    pthread_t thread;
    sigemptyset(&session.signals);
    for (size_t i = 0; i < count; i++) {
        struct sigaction now;
        if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(&session.signals, numbers[i]);
    }
    if (pthread_sigmask(SIG_BLOCK, &session.signals, NULL) != 0 ||
        pthread_create(&thread, NULL, session_signals, NULL) != 0)
        return false;
    return pthread_detach(thread) == 0;
}

#endif
