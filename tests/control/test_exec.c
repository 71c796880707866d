/* Commands through the real agent, over a Unix socket.
 * @timeout 120
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "agent.h"

#include <pthread.h>

static const char *const env_path[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "COLOUR=blue"};

struct outcome {
    cc_error_code code;
    int exit_code, sys_errno;
    char message[200];
    uint8_t *out, *err_out;
    size_t out_len, err_len;
};

static void outcome_free(struct outcome *o)
{
    cci_mem_free(o->out);
    cci_mem_free(o->err_out);
}

static struct cci_exec_spec spec_of(const char *const *argv, size_t argc)
{
    struct cci_exec_spec s = {0};
    s.argv = argv;
    s.argc = argc;
    s.env = env_path;
    s.envc = 2;
    s.stdout_wanted = s.stderr_wanted = true;
    return s;
}

static struct outcome run_spec(struct agent *a, const struct cci_exec_spec *s)
{
    struct outcome o = {CC_OK, -1, 0, "", NULL, NULL, 0, 0};
    cc_error err = {0};
    struct cci_exec *e = NULL;
    o.code = cci_exec_begin(a->ctl, s, &e, &err);
    if (o.code == CC_OK)
        o.code = cci_exec_wait(e, &agent_forever, &o.exit_code, &err);
    if (o.code == CC_OK) {
        if (cci_exec_take(e, CCI_CHANNEL_STDOUT, &o.out, &o.out_len, NULL) ||
            cci_exec_take(e, CCI_CHANNEL_STDERR, &o.err_out, &o.err_len, NULL))
            o.code = CC_ERR_UNKNOWN;
    }
    o.sys_errno = err.sys_errno;
    (void)snprintf(o.message, sizeof(o.message), "%s", err.message ? err.message : "");
    cci_exec_free(e);
    cci_error_release(&err);
    return o;
}

#define ARGV(...) ((const char *const[]){__VA_ARGS__})
#define RUN_IN(a, ...) run_args((a), ARGV(__VA_ARGS__), sizeof(ARGV(__VA_ARGS__)) / sizeof(char *))

static struct outcome run_args(struct agent *a, const char *const *argv, size_t argc)
{
    struct cci_exec_spec s = spec_of(argv, argc);
    return run_spec(a, &s);
}

static void check_output(struct outcome o, int exit_code, const char *out, const char *err_out)
{
    CHECK_EQ_STR(o.message, "");
    CHECK_EQ_INT(o.code, CC_OK);
    CHECK_EQ_INT(o.exit_code, exit_code);
    CHECK_EQ_STR((char *)o.out, out);
    CHECK_EQ_STR((char *)o.err_out, err_out);
    outcome_free(&o);
}

static void check_error(struct outcome o, int sys_errno, const char *message)
{
    CHECK_EQ_INT(o.code, CC_ERR_IO);
    CHECK_EQ_STR(o.message, message);
    CHECK_EQ_INT(o.sys_errno, sys_errno);
    outcome_free(&o);
}

static void test_simple(void)
{
    static struct agent a;
    agent_start(&a, NULL);
    check_output(RUN_IN(&a, "/bin/echo", "hello", "world"), 0, "hello world\n", "");
    check_output(RUN_IN(&a, "echo", ""), 0, "\n", "");
    check_output(RUN_IN(&a, "true"), 0, "", "");
    check_output(RUN_IN(&a, "sh", "-c", "exit 7"), 7, "", "");
    check_output(RUN_IN(&a, "sh", "-c", "echo out; echo err >&2; exit 255"), 255, "out\n", "err\n");
    check_output(RUN_IN(&a, "sh", "-c", "kill -9 $$"), 137, "", "");
    check_output(RUN_IN(&a, "sh", "-c", "kill -TERM $$"), 143, "", "");
    check_output(RUN_IN(&a, "cat"), 0, "", ""); /* standard input is empty */
    agent_stop(&a);
}

/* What a program finds: environment, directory, signals, umask, session, no foreign descriptors. */
static void test_surroundings(void)
{
    static struct agent a;
    agent_start(&a, NULL);
    const char *const env[] = {"A=1", "B=two words", "HOME=/h"};
    struct cci_exec_spec s = spec_of(ARGV("/usr/bin/env"), 1);
    s.env = env;
    s.envc = 3;
    check_output(run_spec(&a, &s), 0, "A=1\nB=two words\nHOME=/h\n", "");
    s = spec_of(ARGV("pwd"), 1);
    check_output(run_spec(&a, &s), 0, "/\n", "");
    s.dir = "/usr/bin";
    check_output(run_spec(&a, &s), 0, "/usr/bin\n", "");
    check_output(RUN_IN(&a, "sh", "-c", "umask"), 0, "0022\n", "");
    check_output(RUN_IN(&a, "sh", "-c", "ls /proc/self/fd | wc -l"), 0, "4\n", ""); /* 0 to 2, and the directory */
    /* Of signals 1 to 31: glibc's posix_spawn, by which we may have been started, leaves 32 and 33 ignored. */
    check_output(RUN_IN(&a, "sh", "-c",
                        "for s in $(sed -nE 's/Sig(Blk|Ign):.*(.{8})$/\\2/p' /proc/self/status); do "
                        "echo $((0x$s & 0x7fffffff)); done"),
                 0, "0\n0\n", "");
    agent_stop(&a);
}

static void test_search(void)
{
    static struct agent a;
    char dir[128], file[160];
    agent_start(&a, NULL);
    check_error(RUN_IN(&a, "no-such-program"), ENOENT, "no such file or directory");
    check_error(RUN_IN(&a, "/no/such/program"), ENOENT, "no such file or directory");
    check_error(RUN_IN(&a, ""), ENOENT, "no such file or directory");
    check_error(RUN_IN(&a, "/etc/passwd"), EACCES, "permission denied");
    check_error(RUN_IN(&a, "/etc"), EACCES, "permission denied");
    struct cci_exec_spec s = spec_of(ARGV("echo"), 1);
    s.env = ARGV("PATH=/etc:/nowhere");
    s.envc = 1;
    check_error(run_spec(&a, &s), ENOENT, "no such file or directory");
    s.argv = ARGV("passwd", "x"); /* found, not executable; then looked for further on */
    s.env = ARGV("PATH=/etc:/nowhere");
    check_error(run_spec(&a, &s), EACCES, "permission denied");
    s.argv = ARGV("true");
    s.env = ARGV("PATH=/etc:/nowhere:/bin");
    check_output(run_spec(&a, &s), 0, "", "");
    s.env = ARGV("NO=path"); /* the usual places */
    check_output(run_spec(&a, &s), 0, "", "");
    /* Relative to the command's directory, not to ours. */
    (void)snprintf(dir, sizeof(dir), "%s/here", a.dir);
    (void)snprintf(file, sizeof(file), "%s/prog", dir);
    CHECK(mkdir(dir, 0755) == 0);
    FILE *f = fopen(file, "w");
    CHECK(f && fputs("#!/bin/sh\necho found $1\n", f) > 0 && fclose(f) == 0 && chmod(file, 0755) == 0);
    s = spec_of(ARGV("./prog", "it"), 2);
    s.dir = dir;
    check_output(run_spec(&a, &s), 0, "found it\n", "");
    s.argv = ARGV("prog", "me");
    s.env = ARGV("PATH=/nowhere:");
    s.envc = 1;
    check_output(run_spec(&a, &s), 0, "found me\n", "");
    (void)unlink(file);
    (void)rmdir(dir);
    agent_stop(&a);
}

static void test_directory(void)
{
    static struct agent a;
    char dir[128], want[140];
    agent_start(&a, NULL);
    struct cci_exec_spec s = spec_of(ARGV("pwd"), 1);
    (void)snprintf(dir, sizeof(dir), "%s/a/b", a.dir);
    s.dir = dir;
    check_error(run_spec(&a, &s), ENOENT, "working directory: no such file or directory");
    s.make_dir = true;
    (void)snprintf(want, sizeof(want), "%s\n", dir);
    check_output(run_spec(&a, &s), 0, want, "");
    s.dir = "/etc/passwd";
    check_error(run_spec(&a, &s), ENOTDIR, "working directory: not a directory");
    (void)rmdir(dir);
    *strrchr(dir, '/') = 0;
    (void)rmdir(dir);
    agent_stop(&a);
}

static void test_merge(void)
{
    static struct agent a;
    agent_start(&a, NULL);
    struct cci_exec_spec s = spec_of(ARGV("sh", "-c", "echo 1; echo 2 >&2; echo 3; echo 4 >&2"), 3);
    s.merge = true;
    check_output(run_spec(&a, &s), 0, "1\n2\n3\n4\n", "");
    s.merge = false;
    s.stdout_wanted = false;
    check_output(run_spec(&a, &s), 0, "", "2\n4\n");
    s.stderr_wanted = false;
    check_output(run_spec(&a, &s), 0, "", "");
    agent_stop(&a);
}

/* Output sizes about the inline limit and far beyond; every byte must arrive, in order. */
static void test_sizes(void)
{
    static const size_t sizes[] = {1,     4095,   4096,   4097,   65535,   65536,    65537,
                                   65538, 131072, 196608, 196609, 1000000, 16777216, 100000000};
    static struct agent a;
    agent_start(&a, NULL);
    for (size_t i = 0; i < CCI_COUNT(sizes); i++) {
        char script[160];
        (void)snprintf(script, sizeof(script), "yes 'abcdefghijklmno' | head -c %zu", sizes[i]);
        struct outcome o = RUN_IN(&a, "sh", "-c", script);
        CHECK_EQ_STR(o.message, "");
        CHECK_EQ_INT(o.code, CC_OK);
        CHECK_EQ_INT(o.out_len, sizes[i]);
        for (size_t k = 0; k < o.out_len; k++)
            if (o.out[k] != (uint8_t) "abcdefghijklmno\n"[k % 16])
                CHECK_EQ_INT(k, -1);
        outcome_free(&o);
    }
    agent_stop(&a);
}

/* Both outputs large, written by turns: neither may hold up the other. */
static void test_two_streams(void)
{
    static struct agent a;
    agent_start(&a, NULL);
    struct outcome o = RUN_IN(&a, "sh", "-c",
                              "for i in 1 2 3 4 5 6 7 8; do head -c 200000 /dev/zero; "
                              "head -c 300000 /dev/zero >&2; done; exit 3");
    CHECK_EQ_STR(o.message, "");
    CHECK_EQ_INT(o.exit_code, 3);
    CHECK_EQ_INT(o.out_len, 1600000);
    CHECK_EQ_INT(o.err_len, 2400000);
    outcome_free(&o);
    agent_stop(&a);
}

static void test_limit(void)
{
    static struct agent a;
    agent_start(&a, NULL);
    struct cci_exec_spec s = spec_of(ARGV("head", "-c", "10000000", "/dev/zero"), 4);
    s.limit = 1000000;
    struct outcome o = run_spec(&a, &s);
    CHECK_EQ_INT(o.code, CC_ERR_IO);
    CHECK_EQ_STR(o.message, "the guest sent more than the limit of 1000000 bytes");
    outcome_free(&o);
    check_output(RUN_IN(&a, "echo", "well"), 0, "well\n", "");
    agent_stop(&a);
}

static void test_arguments(void)
{
    static struct agent a;
    static const char *argv[20002];
    static char big[120001];
    agent_start(&a, NULL);
    memset(big, 'x', sizeof(big) - 1);
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = "echo $#; echo ${#1}";
    argv[3] = "sh";
    argv[4] = big;
    for (size_t i = 5; i < CCI_COUNT(argv); i++)
        argv[i] = "abcdefgh";
    check_output(run_args(&a, argv, CCI_COUNT(argv)), 0, "19998\n120000\n", "");
    for (size_t i = 4; i < 40; i++)
        argv[i] = big;
    check_error(run_args(&a, argv, 40), E2BIG, "argument list too long"); /* the kernel's limit */
    for (size_t i = 4; i < 100; i++)
        argv[i] = big;
    check_error(run_args(&a, argv, 100), E2BIG, "argument list too long"); /* the protocol's */
    check_output(RUN_IN(&a, "echo", "well"), 0, "well\n", "");
    agent_stop(&a);
}

static void test_sequence(void)
{
    static struct agent a;
    agent_start(&a, NULL);
    uint64_t t0 = cci_os_now();
    for (int i = 0; i < 1000; i++)
        check_output(RUN_IN(&a, "/bin/true"), 0, "", "");
    printf("# exec of /bin/true: %llu us\n", (unsigned long long)(cci_os_now() - t0) / 1000000u);
    agent_stop(&a);
}

struct worker {
    struct agent *a;
    pthread_t thread;
    int number;
    bool good;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    char script[120], want[40];
    w->good = true;
    for (int i = 0; i < 4; i++) {
        int code = (w->number + i) % 100;
        (void)snprintf(script, sizeof(script), "echo n%d; head -c %d /dev/zero >&2; exit %d", w->number,
                       w->number * 3000, code);
        (void)snprintf(want, sizeof(want), "n%d\n", w->number);
        struct outcome o = RUN_IN(w->a, "sh", "-c", script);
        w->good = w->good && o.code == CC_OK && o.exit_code == code && strcmp((char *)o.out, want) == 0 &&
                  o.err_len == (size_t)w->number * 3000;
        outcome_free(&o);
    }
    return NULL;
}

static void test_concurrent(void)
{
    static struct agent a;
    struct worker w[64];
    agent_start(&a, NULL);
    for (int i = 0; i < 64; i++) {
        w[i].a = &a;
        w[i].number = i;
        CHECK(pthread_create(&w[i].thread, NULL, work, &w[i]) == 0);
    }
    int good = 0;
    for (int i = 0; i < 64; i++) {
        (void)pthread_join(w[i].thread, NULL);
        good += w[i].good;
    }
    CHECK_EQ_INT(good, 64);
    agent_stop(&a);
}

static void test_started(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_exec *e = NULL;
    int code = -1;
    agent_start(&a, NULL);
    struct cci_exec_spec s = spec_of(ARGV("sleep", "1000"), 2);
    s.notify = true;
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    CHECK_OK(cci_exec_started(e, &agent_forever, &err), err);
    CHECK(e->call.pid > 0);
    /* A deadline ends the wait, not the command. */
    const struct cci_wait brief = {cci_os_now() + 20000000u, NULL};
    CHECK_EQ_INT(cci_exec_wait(e, &brief, &code, &err), CC_ERR_TIMEOUT);
    cci_error_release(&err);
    cci_exec_kill(e, SIGTERM);
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, 143);
    cci_exec_kill(e, SIGTERM); /* nobody there: no harm */
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, 143);
    cci_exec_free(e);
    s.argv = ARGV("no-such-program");
    s.argc = 1;
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    CHECK_EQ_INT(cci_exec_started(e, &agent_forever, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ENOENT);
    CHECK_EQ_STR(err.path, "no-such-program");
    cci_error_release(&err);
    cci_exec_free(e);
    agent_stop(&a);
}

static void *cancel_it(void *arg)
{
    cci_cancel_fire(arg);
    return NULL;
}

static void test_cancel(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_exec *e = NULL;
    pthread_t t;
    int code;
    agent_start(&a, NULL);
    struct cci_cancel *token = cci_cancel_new();
    const struct cci_wait wait = {CCI_FOREVER, token};
    struct cci_exec_spec s = spec_of(ARGV("sh", "-c", "sleep 1000 & sleep 1000"), 3);
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    CHECK(pthread_create(&t, NULL, cancel_it, token) == 0);
    CHECK_EQ_INT(cci_exec_wait(e, &wait, &code, &err), CC_ERR_CANCELLED);
    (void)pthread_join(t, NULL);
    cci_error_release(&err);
    /* The whole group goes: the background sleep, too, or the pipe would stay open. */
    cci_exec_kill(e, SIGKILL);
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, 137);
    cci_exec_free(e);
    cci_cancel_unref(token);
    agent_stop(&a);
}

/* A shell that leaves while a grandchild holds the pipe: over at the end of file. Killing reaches it meanwhile. */
static void test_daemons(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_exec *e = NULL;
    char fifo[100];
    int code;
    agent_start(&a, NULL);
    /* The grandchild speaks when the shell is gone, and with it the only writer of the pipe that it reads. */
    (void)snprintf(fifo, sizeof(fifo), "%s/fifo", a.dir);
    CHECK(mkfifo(fifo, 0600) == 0);
    check_output(RUN_IN(&a, "sh", "-c", "(cat <\"$0\"; echo late) & exec 3>\"$0\"; echo soon", fifo), 0, "soon\nlate\n",
                 "");
    CHECK(unlink(fifo) == 0);
    check_output(RUN_IN(&a, "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo gone"), 0, "gone\n", "");
    struct cci_exec_spec s = spec_of(ARGV("sh", "-c", "sleep 1000 & exit 5"), 3);
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    const struct cci_wait brief = {cci_os_now() + 100000000u, NULL};
    CHECK_EQ_INT(cci_exec_wait(e, &brief, &code, &err), CC_ERR_TIMEOUT);
    cci_error_release(&err);
    cci_exec_kill(e, SIGKILL);
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, 5);
    cci_exec_free(e);
    for (int i = 0; i < 50; i++) /* orphans are reaped */
        check_output(RUN_IN(&a, "sh", "-c", "(true &) ; (true &)"), 0, "", "");
    check_output(RUN_IN(&a, "sh", "-c", "ps -eo stat,ppid,comm 2>/dev/null | grep -c '^Z.*agent' || true"), 0, "0\n",
                 "");
    agent_stop(&a);
}

/* Freed in mid-run: the command goes on, its output is dropped, and nothing leaks (ASan says). */
static void test_free_running(void)
{
    static struct agent a;
    char script[500];
    agent_start(&a, NULL);
    const char *gate = agent_gate(&a, "done");
    (void)snprintf(script, sizeof(script), "head -c 500000 /dev/zero; head -c 500000 /dev/zero >&2; : >%s", gate);
    struct cci_exec_spec s = spec_of(ARGV("sh", "-c", script), 3);
    cc_error err = {0};
    struct cci_exec *e = NULL;
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    cci_exec_free(e);
    agent_meet(gate, O_RDONLY);
    /* And with its streams under way. */
    s = spec_of(ARGV("sh", "-c", "cat /dev/zero"), 3);
    for (int i = 0; i < 20; i++) {
        CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
        check_output(RUN_IN(&a, "echo", "x"), 0, "x\n", "");
        if (i % 2)
            cci_exec_kill(e, SIGKILL);
        cci_exec_free(e);
    }
    check_output(RUN_IN(&a, "sh", "-c", "echo well"), 0, "well\n", "");
    agent_stop(&a);
}

static void *wait_for_end(void *arg)
{
    cc_error err = {0};
    int code;
    cc_error_code c = cci_exec_wait(arg, &agent_forever, &code, &err);
    /* What breaks first: the control connection, or the one for the output that was just being opened. */
    bool said = err.message && (strstr(err.message, "agent ended") || strstr(err.message, "cannot open a connection"));
    cci_error_release(&err);
    return (void *)(uintptr_t)(c == CC_ERR_NOT_RUNNING && said ? 1 : 0);
}

/* The agent dies: every call ends with CC_ERR_NOT_RUNNING, those under way and later ones. */
static void test_agent_killed(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_exec *e[4];
    pthread_t t[4];
    int status;
    agent_start(&a, NULL);
    for (int i = 0; i < 4; i++) {
        struct cci_exec_spec s = spec_of(ARGV("sh", "-c", i % 2 ? "cat /dev/zero" : "sleep 1000"), 3);
        s.notify = true;
        CHECK_OK(cci_exec_begin(a.ctl, &s, &e[i], &err), err);
        CHECK_OK(cci_exec_started(e[i], &agent_forever, &err), err);
        CHECK(pthread_create(&t[i], NULL, wait_for_end, e[i]) == 0);
    }
    CHECK(kill(a.pid, SIGKILL) == 0);
    for (int i = 0; i < 4; i++) {
        void *good = NULL;
        (void)pthread_join(t[i], &good);
        CHECK(good != NULL);
    }
    for (int i = 0; i < 3; i++)
        cci_exec_free(e[i]);
    struct outcome o = RUN_IN(&a, "true");
    CHECK_EQ_INT(o.code, CC_ERR_NOT_RUNNING);
    agent_end_host(&a);
    cci_exec_free(e[3]); /* a command may outlive its instance */
    CHECK(waitpid(a.pid, &status, 0) == a.pid);
    (void)unlink(a.path);
    (void)rmdir(a.dir);
}

/* Closing takes calls of other threads with it. */
static void test_close_under_way(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_exec *e = NULL;
    char script[200];
    int code;
    agent_start(&a, NULL);
    const char *gate = agent_gate(&a, "gate");
    (void)snprintf(script, sizeof(script), "head -c 1000000 /dev/zero; : >%s; cat /dev/zero", gate);
    struct cci_exec_spec s = spec_of(ARGV("sh", "-c", script), 3);
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    agent_meet(gate, O_RDONLY); /* its output is under way */
    agent_stop(&a);
    CHECK_EQ_INT(cci_exec_wait(e, &agent_forever, &code, &err), CC_ERR_NOT_RUNNING);
    CHECK_EQ_STR(err.message, "the instance was closed");
    cci_error_release(&err);
    cci_exec_free(e);
}

/* The guest ends with its workload, and the status is there; a daemon does not keep it. */
static void test_workload(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_exec *e, *other = NULL;
    char script[200];
    int code = -1, status = -1;
    agent_start(&a, NULL);
    const char *ready = agent_gate(&a, "ready");
    (void)snprintf(script, sizeof(script), "trap 'sleep 1000 & exit 5' USR1; : >%s; while :; do sleep 0.01; done",
                   ready);
    struct cci_exec_spec s = spec_of(ARGV("sh", "-c", script), 3);
    s.stdout_wanted = s.stderr_wanted = false;
    s.workload = s.notify = true;
    s.dir = "/no/such";
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    CHECK_EQ_INT(cci_exec_started(e, &agent_forever, &err), CC_ERR_IO);
    cci_error_release(&err);
    cci_exec_free(e);
    s.dir = NULL; /* one that could not be started was none */
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    CHECK_OK(cci_exec_started(e, &agent_forever, &err), err);
    CHECK_OK(cci_exec_begin(a.ctl, &s, &other, &err), err);
    CHECK_EQ_INT(cci_exec_started(other, &agent_forever, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, EBUSY);
    cci_error_release(&err);
    cci_exec_free(other);
    check_output(RUN_IN(&a, "echo", "meanwhile"), 0, "meanwhile\n", "");
    agent_meet(ready, O_RDONLY);
    CHECK(!cci_exec_is_over(e));
    CHECK_OK(cci_exec_signal(e, SIGUSR1, &agent_forever, &err), err);
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, 5);
    CHECK(waitpid(a.pid, &status, 0) == a.pid); /* by itself */
    CHECK_EQ_INT(status, 0);
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    agent_end_host(&a);
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err); /* what is known stays known */
    CHECK_EQ_INT(code, 5);
    cci_exec_free(e);
    (void)unlink(a.path);
    (void)rmdir(a.dir);
}

int main(void)
{
    agent_build();
    RUN(test_simple);
    RUN(test_surroundings);
    RUN(test_search);
    RUN(test_directory);
    RUN(test_merge);
    RUN(test_sizes);
    RUN(test_two_streams);
    RUN(test_limit);
    RUN(test_arguments);
    RUN(test_sequence);
    RUN(test_concurrent);
    RUN(test_started);
    RUN(test_cancel);
    RUN(test_daemons);
    RUN(test_free_running);
    RUN(test_agent_killed);
    RUN(test_close_under_way);
    RUN(test_workload);
    agent_clean();
    return check_done();
}
