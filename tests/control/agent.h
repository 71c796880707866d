/*
 * tests/control/agent.h - the real agent as a child process, and a control connection to it over a Unix socket.
 *
 *     struct agent a;
 *     agent_start(&a, NULL);       builds nothing: the agent must have been built (agent_build in main)
 *     ... cci_exec_begin(a.ctl, ...) ...
 *     agent_stop(&a);
 *
 * A gate is where a program and the test wait for each other: a named pipe, which opens for each side when the other
 * opens it, too. The shell's `: >gate` meets agent_meet(gate, O_RDONLY), and `: <gate` meets agent_meet(gate,
 * O_WRONLY).
 */
#ifndef TESTS_CONTROL_AGENT_H
#define TESTS_CONTROL_AGENT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/control/shutdown.h"
#include "../../src/control/exec.h"
#include "../../src/control/file.h"
#include "../check.h"
#include "../stream_unix.h"

struct agent {
    pid_t pid;
    char dir[80];  /* scratch directory, with the socket in it */
    char path[96]; /* the socket */
    struct cci_loop loop;
    struct cci_control *ctl;
};

static char agent_binary[256];
static char agent_tmp[64];

static const struct cci_wait agent_forever = {CCI_FOREVER, NULL};

#if defined(__SANITIZE_ADDRESS__)
#define AGENT_FLAGS "--debug" /* the agent is looked at as well */
#else
#define AGENT_FLAGS "" /* the agent as it is shipped */
#endif

/* Builds the agent. The path goes to agent_binary. */
static void agent_build(void)
{
    char command[600];
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(agent_tmp, sizeof(agent_tmp), "%s/cc-agent-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(agent_tmp)) {
        perror("mkdtemp");
        exit(1);
    }
    (void)snprintf(agent_binary, sizeof(agent_binary), "%s/agent", agent_tmp);
    (void)snprintf(command, sizeof(command), "guest/build --agent %s %s", agent_binary, AGENT_FLAGS);
    if (system(command) != 0) {
        (void)fprintf(stderr, "the agent does not build\n");
        exit(1);
    }
}

static void agent_clean(void)
{
    (void)unlink(agent_binary);
    (void)rmdir(agent_tmp);
}

static cc_error_code agent_dial(void *ctx, uint32_t port, struct cci_stream **out, cc_error *err)
{
    struct agent *a = ctx;
    (void)port;
    *out = unix_stream_connect(&a->loop, a->path);
    return *out ? CC_OK : cci_fail_errno(err, CC_ERR_IO, errno, a->path, "connect");
}

/* Runs the agent until it says that it listens. */
static void agent_spawn(struct agent *a, const char *root)
{
    int out[2];
    char ready[8] = "";
    (void)snprintf(a->dir, sizeof(a->dir), "%s/run-XXXXXX", agent_tmp);
    CHECK(mkdtemp(a->dir) != NULL);
    (void)snprintf(a->path, sizeof(a->path), "%s/socket", a->dir);
    CHECK(pipe2(out, O_CLOEXEC) == 0);
    a->pid = fork();
    if (a->pid == 0) {
        (void)dup2(out[1], 1);
        if (root)
            (void)execl(agent_binary, "agent", "--socket", a->path, "--root", root, (char *)NULL);
        else
            (void)execl(agent_binary, "agent", "--socket", a->path, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    CHECK(a->pid > 0);
    CHECK(read(out[0], ready, sizeof(ready)) == 6);
    close(out[0]);
}

static void agent_start(struct agent *a, const char *root)
{
    cc_error err = {0};
    struct cci_stream *s = NULL;
    memset(a, 0, sizeof(*a));
    agent_spawn(a, root);
    CHECK_OK(cci_loop_init(&a->loop, &err), err);
    CHECK_OK(cci_loop_start(&a->loop, "io", &err), err);
    a->ctl = cci_control_new(agent_dial, a);
    CHECK(a->ctl != NULL);
    CHECK_OK(agent_dial(a, CCI_PROTO_PORT, &s, &err), err);
    cci_control_attach(a->ctl, s);
    CHECK_OK(cci_control_handshake(a->ctl, &agent_forever, &err), err);
}

static void agent_end_host(struct agent *a)
{
    cci_control_close(a->ctl);
    cci_loop_stop(&a->loop);
    cci_loop_destroy(&a->loop);
}

/* Makes a gate; its path, in one of four buffers. */
static const char *agent_gate(const struct agent *a, const char *name)
{
    static char paths[4][100];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, sizeof(paths[0]), "%s/%s", a->dir, name);
    CHECK(mkfifo(path, 0600) == 0);
    return path;
}

/* Waits until a program is at the gate, which is then gone. */
static void agent_meet(const char *gate, int mode)
{
    int fd = open(gate, mode | O_CLOEXEC);
    CHECK(fd >= 0);
    close(fd);
    CHECK(unlink(gate) == 0);
}

/* Closes the connection; the agent must then end by itself, and well. */
static void agent_stop(struct agent *a)
{
    int status = -1;
    agent_end_host(a);
    CHECK(waitpid(a->pid, &status, 0) == a->pid);
    CHECK_EQ_INT(status, 0);
    (void)unlink(a->path);
    (void)rmdir(a->dir);
}

#endif
