/* Pipes to commands, their terminals and the end of their standard error, through the real agent over a Unix socket.
 * @timeout 120
 * @sanitize none
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "agent.h"

#include <dirent.h>
#include <pthread.h>

#include "../asleep.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { BULK_MB = 64 };
#else
enum { BULK_MB = 1024 };
#endif

static const char *const env_path[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "TERM=xterm"};

#define SH(script) ((const char *const[]){"sh", "-c", script})

/* A running command and what is attached to it. */
struct run {
    struct cci_exec *e;
    struct cci_pipe *in, *out, *err;
};

static struct cci_exec_spec spec_sh(const char *const *argv)
{
    struct cci_exec_spec s = {0};
    s.argv = argv;
    s.argc = 3;
    s.env = env_path;
    s.envc = 2;
    return s;
}

static void start_spec(struct agent *a, struct run *r, const struct cci_exec_spec *s)
{
    cc_error err = {0};
    memset(r, 0, sizeof(*r));
    CHECK_OK(cci_exec_begin(a->ctl, s, &r->e, &err), err);
    CHECK_OK(cci_exec_started(r->e, &agent_forever, &err), err);
    if (s->stdin_piped)
        CHECK_OK(cci_exec_pipe(r->e, CCI_CHANNEL_STDIN, &r->in, &agent_forever, &err), err);
    if (s->stdout_piped)
        CHECK_OK(cci_exec_pipe(r->e, CCI_CHANNEL_STDOUT, &r->out, &agent_forever, &err), err);
    if (s->stderr_piped)
        CHECK_OK(cci_exec_pipe(r->e, CCI_CHANNEL_STDERR, &r->err, &agent_forever, &err), err);
}

/* With the pipes named in `which`: i, o, e. */
static void start(struct agent *a, struct run *r, const char *const *argv, const char *which)
{
    struct cci_exec_spec s = spec_sh(argv);
    s.stdin_piped = strchr(which, 'i') != NULL;
    s.stdout_piped = strchr(which, 'o') != NULL;
    s.stderr_piped = strchr(which, 'e') != NULL;
    start_spec(a, r, &s);
}

static int wait_for(struct run *r)
{
    cc_error err = {0};
    int code = -1;
    CHECK_OK(cci_exec_wait(r->e, &agent_forever, &code, &err), err);
    return code;
}

static void end(struct run *r)
{
    cci_pipe_free(r->in);
    cci_pipe_free(r->out);
    cci_pipe_free(r->err);
    cci_exec_free(r->e);
}

static void feed(struct cci_pipe *p, const char *text)
{
    cc_error err = {0};
    size_t done;
    CHECK_OK(cci_pipe_write(p, text, strlen(text), &done, &agent_forever, &err), err);
    CHECK_EQ_INT(done, strlen(text));
}

static void close_in(struct run *r)
{
    cci_pipe_free(r->in);
    r->in = NULL;
}

/* Everything up to the end of file, or to `stop` (of a terminal whose program goes on). */
static const char *drain_until(struct cci_pipe *p, const char *stop)
{
    static char text[200000];
    cc_error err = {0};
    size_t at = 0, n = 1;
    text[0] = 0;
    while (n && at < sizeof(text) - 1 && !(stop && strstr(text, stop))) {
        if (cci_pipe_read(p, text + at, sizeof(text) - 1 - at, &n, &agent_forever, &err))
            break;
        at += n;
        text[at] = 0;
    }
    CHECK_EQ_STR(err.message ? err.message : "", "");
    cci_error_release(&err);
    return text;
}

static const char *drain(struct cci_pipe *p)
{
    return drain_until(p, NULL);
}

static struct cci_wait soon(unsigned ms)
{
    struct cci_wait w = {cci_os_now() + ms * 1000000ull, NULL};
    return w;
}

static void test_all_three(void)
{
    static struct agent a;
    struct run r;
    agent_start(&a, NULL);
    start(&a, &r, SH("read x; echo got $x; echo oops >&2; cat; exit 3"), "ioe");
    feed(r.in, "one\ntwo\n");
    feed(r.in, "three");
    close_in(&r);
    CHECK_EQ_INT(wait_for(&r), 3);
    CHECK_EQ_STR(drain(r.out), "got one\ntwo\nthree"); /* after the end: nothing is lost */
    CHECK_EQ_STR(drain(r.err), "oops\n");
    CHECK_EQ_STR(drain(r.out), ""); /* the end stays the end */
    end(&r);
    start(&a, &r, SH("cat"), "io"); /* nothing is written at all */
    close_in(&r);
    CHECK_EQ_STR(drain(r.out), "");
    CHECK_EQ_INT(wait_for(&r), 0);
    end(&r);
    agent_stop(&a);
}

/* ---- Much, and checked ---------------------------------------------------------------------------------------- */

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at ^ at >> 8 ^ at >> 17 ^ at >> 26);
}

static void *write_much(void *ctx)
{
    static uint8_t block[100003];
    struct run *r = ctx;
    uint64_t at = 0, total = (uint64_t)BULK_MB << 20;
    while (at < total) {
        size_t n = (size_t)CCI_MIN(total - at, (uint64_t)sizeof(block)), done;
        for (size_t i = 0; i < n; i++)
            block[i] = pattern(at + i);
        if (cci_pipe_write(r->in, block, n, &done, &agent_forever, NULL))
            break;
        at += n;
    }
    close_in(r);
    return NULL;
}

static void test_bulk(void)
{
    static struct agent a;
    static uint8_t block[70001];
    struct run r;
    pthread_t writer;
    uint64_t at = 0, wrong = 0;
    size_t n = 1;
    agent_start(&a, NULL);
    start(&a, &r, SH("exec cat"), "io");
    CHECK(pthread_create(&writer, NULL, write_much, &r) == 0);
    while (cci_pipe_read(r.out, block, sizeof(block), &n, &agent_forever, NULL) == CC_OK && n) {
        for (size_t i = 0; i < n; i++)
            wrong += block[i] != pattern(at + i);
        at += n;
    }
    pthread_join(writer, NULL);
    CHECK_EQ_INT(at, (uint64_t)BULK_MB << 20);
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(wait_for(&r), 0);
    end(&r);
    agent_stop(&a);
}

/* ---- Pace ----------------------------------------------------------------------------------------------------- */

/* A program whose output nobody reads waits, and nobody else does. */
static void test_unread_output(void)
{
    static struct agent a;
    struct run r, other;
    char byte;
    size_t n, total = 0;
    int code;
    agent_start(&a, NULL);
    start(&a, &r, SH("head -c 3000000 /dev/zero; echo done >&2"), "oe");
    start(&a, &other, SH("echo hello"), "o");
    CHECK_EQ_STR(drain(other.out), "hello\n");
    CHECK_EQ_INT(wait_for(&other), 0);
    end(&other);
    struct cci_wait brief = soon(100);
    CHECK_EQ_INT(cci_exec_wait(r.e, &brief, &code, NULL), CC_ERR_TIMEOUT);
    brief = soon(20);
    CHECK_EQ_INT(cci_pipe_read(r.err, &byte, 1, &n, &brief, NULL), CC_ERR_TIMEOUT);
    static char block[65536];
    while (cci_pipe_read(r.out, block, sizeof(block), &n, &agent_forever, NULL) == CC_OK && n)
        total += n;
    CHECK_EQ_INT(total, 3000000);
    CHECK_EQ_STR(drain(r.err), "done\n");
    CHECK_EQ_INT(wait_for(&r), 0);
    end(&r);
    agent_stop(&a);
}

/* A write that times out in the middle of a frame loses and repeats nothing. */
static void test_interrupted_writes(void)
{
    static struct agent a;
    static uint8_t data[5000000];
    static char expected[80], script[300];
    struct run r;
    cc_error err = {0};
    size_t at = 0, done;
    uint32_t sum = 0;
    agent_start(&a, NULL);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 7 + (i >> 10));
        sum += data[i];
    }
    (void)snprintf(expected, sizeof(expected), "%u\n", (unsigned)sum);
    const char *gate = agent_gate(&a, "gate");
    (void)snprintf(script, sizeof(script),
                   ": <%s; od -An -v -tu1 | awk '{for (i = 1; i <= NF; i++) s += $i} END {print s}'", gate);
    start(&a, &r, SH(script), "io");
    struct cci_wait brief = soon(50);
    CHECK_EQ_INT(cci_pipe_write(r.in, data, sizeof(data), &done, &brief, NULL), CC_ERR_TIMEOUT);
    CHECK(done > 0 && done < sizeof(data));
    at = done;
    brief = soon(1);
    CHECK_EQ_INT(cci_pipe_write(r.in, data + at, 1000000, &done, &brief, NULL), CC_ERR_TIMEOUT);
    at += done;
    agent_meet(gate, O_WRONLY); /* it begins to read */
    CHECK_OK(cci_pipe_write(r.in, data + at, 1, &done, &agent_forever, &err), err);
    at += done;
    CHECK_OK(cci_pipe_write(r.in, data + at, sizeof(data) - at, &done, &agent_forever, &err), err);
    close_in(&r);
    CHECK_EQ_STR(drain(r.out), expected);
    CHECK_EQ_INT(wait_for(&r), 0);
    end(&r);
    agent_stop(&a);
}

/* What is on its way when the writer closes still arrives, also of a frame half written. */
static void test_close_after_timeout(void)
{
    static struct agent a;
    static uint8_t data[5000000];
    char expected[40], script[200];
    struct run r;
    size_t done;
    agent_start(&a, NULL);
    const char *gate = agent_gate(&a, "gate");
    (void)snprintf(script, sizeof(script), ": <%s; wc -c", gate);
    start(&a, &r, SH(script), "io");
    struct cci_wait brief = soon(50);
    CHECK_EQ_INT(cci_pipe_write(r.in, data, sizeof(data), &done, &brief, NULL), CC_ERR_TIMEOUT);
    close_in(&r);
    agent_meet(gate, O_WRONLY);
    (void)snprintf(expected, sizeof(expected), "%zu\n", done);
    CHECK_EQ_STR(drain(r.out), expected);
    end(&r);
    agent_stop(&a);
}

/* ---- Ends ----------------------------------------------------------------------------------------------------- */

static void test_closed_early(void)
{
    static struct agent a;
    struct run r;
    cc_error err = {0};
    char script[200];
    size_t done;
    agent_start(&a, NULL);
    start(&a, &r, SH("exec yes"), "o");
    CHECK(strlen(drain_until(r.out, "y\ny\n")) >= 4);
    cci_pipe_free(r.out);
    r.out = NULL;
    CHECK_EQ_INT(wait_for(&r), 128 + SIGPIPE);
    end(&r);
    /* The program closes its input, then it ends. */
    static uint8_t data[1000000];
    const char *gate = agent_gate(&a, "gate");
    (void)snprintf(script, sizeof(script), "exec <&-; : <%s; exit 4", gate);
    start(&a, &r, SH(script), "i");
    cc_error_code code = CC_OK;
    while (code == CC_OK)
        code = cci_pipe_write(r.in, data, sizeof(data), &done, &agent_forever, &err);
    CHECK_EQ_INT(code, CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, EPIPE);
    cci_error_release(&err);
    agent_meet(gate, O_WRONLY);
    CHECK_EQ_INT(wait_for(&r), 4);
    CHECK_EQ_INT(cci_pipe_write(r.in, data, 1, &done, &agent_forever, &err), CC_ERR_IO);
    cci_error_release(&err);
    end(&r);
    /* A program that cannot be started has no pipes, and leaves none behind. */
    struct cci_exec_spec s = spec_sh(SH("true"));
    s.dir = "/no/such";
    s.stdin_piped = s.stdout_piped = s.stderr_piped = true;
    CHECK_OK(cci_exec_begin(a.ctl, &s, &r.e, &err), err);
    CHECK_EQ_INT(cci_exec_started(r.e, &agent_forever, &err), CC_ERR_IO);
    cci_error_release(&err);
    cci_exec_free(r.e);
    agent_stop(&a);
}

/* A child that stays keeps the pipe, but neither the wait nor, its process being gone, the input. */
static void test_left_behind(void)
{
    static struct agent a;
    struct run r;
    char byte;
    size_t n;
    agent_start(&a, NULL);
    start(&a, &r, SH("(trap '' TERM; echo child; sleep 1000) & echo parent"), "o");
    CHECK_EQ_INT(wait_for(&r), 0);
    CHECK(strstr(drain_until(r.out, "child\n"), "child\n"));
    struct cci_wait brief = soon(30);
    (void)cci_pipe_read(r.out, &byte, 1, &n, &brief, NULL);
    cci_exec_kill(r.e, SIGKILL); /* the group outlives its leader */
    CHECK(strlen(drain(r.out)) < 10);
    end(&r);
    agent_stop(&a);
}

struct blocked {
    struct cci_pipe *pipe;
    bool write;
    cc_error_code code;
    char message[100];
    struct asleep thread;
};

static void *block(void *ctx)
{
    static uint8_t data[10000000];
    struct blocked *b = ctx;
    cc_error err = {0};
    char byte;
    size_t n;
    b->code = b->write ? cci_pipe_write(b->pipe, data, sizeof(data), &n, &agent_forever, &err)
                       : cci_pipe_read(b->pipe, &byte, 1, &n, &agent_forever, &err);
    (void)snprintf(b->message, sizeof(b->message), "%s", err.message ? err.message : "");
    cci_error_release(&err);
    return NULL;
}

static void block_all(struct blocked b[4], struct run *r)
{
    for (int i = 0; i < 4; i++) {
        b[i] = (struct blocked){.pipe = i & 1 ? r->in : r->out, .write = i & 1};
        asleep_start(&b[i].thread, block, &b[i]);
    }
}

static void expect_all(struct blocked b[4], cc_error_code code)
{
    for (int i = 0; i < 4; i++) {
        (void)asleep_join(&b[i].thread);
        CHECK_EQ_INT(b[i].code, code);
    }
}

/* Calls that wait end when their pipe is interrupted, when the agent dies, and when the instance closes. */
static void test_blocked_calls(void)
{
    static struct agent a;
    struct blocked b[4];
    struct run r;
    agent_start(&a, NULL);
    start(&a, &r, SH("exec sleep 1000"), "io");
    block_all(b, &r);
    cci_pipe_interrupt(r.in);
    cci_pipe_interrupt(r.out);
    expect_all(b, CC_ERR_ALREADY_CLOSED);
    end(&r);
    start(&a, &r, SH("exec sleep 1000"), "io");
    block_all(b, &r);
    CHECK(kill(a.pid, SIGKILL) == 0);
    expect_all(b, CC_ERR_NOT_RUNNING);
    end(&r);
    agent_end_host(&a);
    CHECK(waitpid(a.pid, NULL, 0) == a.pid);
    (void)unlink(a.path);
    (void)rmdir(a.dir);
}

/* Several threads on one pipe: each write is whole. */
static void *write_lines(void *ctx)
{
    static const char line[] = "a line of which no byte may be anywhere else\n";
    struct cci_pipe *p = ctx;
    size_t done;
    for (int i = 0; i < 500; i++)
        (void)cci_pipe_write(p, line, sizeof(line) - 1, &done, &agent_forever, NULL);
    return NULL;
}

static void test_many_writers(void)
{
    static struct agent a;
    pthread_t threads[4];
    struct run r;
    agent_start(&a, NULL);
    start(&a, &r, SH("sort | uniq -c"), "io");
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, write_lines, r.in) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    close_in(&r);
    CHECK_EQ_STR(drain(r.out), "   2000 a line of which no byte may be anywhere else\n");
    end(&r);
    agent_stop(&a);
}

/* ---- The end of standard error -------------------------------------------------------------------------------- */

static void check_tail(struct agent *a, const char *script, size_t n, const char *first, const char *last)
{
    struct cci_exec_spec s = spec_sh(SH(script));
    struct run r;
    cc_error err = {0};
    uint8_t *bytes;
    size_t got;
    s.stderr_tail = s.notify = true;
    start_spec(a, &r, &s);
    CHECK_EQ_INT(wait_for(&r), 0);
    CHECK_OK(cci_exec_take(r.e, CCI_CHANNEL_STDERR, &bytes, &got, &err), err);
    CHECK_EQ_INT(got, n);
    CHECK(got >= strlen(first) && memcmp(bytes, first, strlen(first)) == 0);
    CHECK(got >= strlen(last) && strcmp((char *)bytes + got - strlen(last), last) == 0);
    cci_mem_free(bytes);
    end(&r);
}

static void test_tail(void)
{
    static struct agent a;
    char script[400];
    agent_start(&a, NULL);
    check_tail(&a, "true", 0, "", "");
    check_tail(&a, "echo first >&2; echo ignored; echo last >&2", 11, "first\n", "last\n");
    check_tail(&a, "head -c 65535 /dev/zero | tr '\\0' a >&2; printf b >&2", 65536, "aaa", "aab");
    check_tail(&a, "head -c 65536 /dev/zero | tr '\\0' a >&2; printf b >&2", 65536, "aaa", "aab");
    check_tail(&a, "i=100000; while [ $i -lt 140000 ]; do echo $i; i=$((i+1)); done >&2; echo x >&2", 65536,
               "130638\n130639", "139999\nx\n");
    /* What a child that stays says later is not waited for, and does not block it. */
    const char *go = agent_gate(&a, "go"), *over = agent_gate(&a, "over");
    (void)snprintf(script, sizeof(script), "(: <%s; head -c 1000000 /dev/zero >&2; : >%s) & echo now >&2", go, over);
    check_tail(&a, script, 4, "now\n", "now\n");
    agent_meet(go, O_WRONLY);
    agent_meet(over, O_RDONLY);
    agent_stop(&a);
}

/* ---- Terminals ------------------------------------------------------------------------------------------------ */

static void start_tty(struct agent *a, struct run *r, const char *script, unsigned columns, unsigned rows)
{
    struct cci_exec_spec s = spec_sh(SH(script));
    s.tty = s.stdin_piped = s.stdout_piped = true;
    s.columns = columns;
    s.rows = rows;
    start_spec(a, r, &s);
}

static void test_tty(void)
{
    static struct agent a;
    struct run r;
    cc_error err = {0};
    agent_start(&a, NULL);
    start_tty(&a, &r, "test -t 0 && test -t 1 && test -t 2 && stty size; echo oops >&2; exec 3</dev/tty && exit 5", 132,
              50);
    CHECK_EQ_STR(drain(r.out), "50 132\r\noops\r\n");
    CHECK_EQ_INT(wait_for(&r), 5);
    end(&r);
    /* Input is echoed; closing it types ^D, which ends a line begun and then the input. */
    start_tty(&a, &r, "stty -echo; echo ready; read x; echo got $x; cat; echo end", 0, 0);
    CHECK_EQ_STR(drain_until(r.out, "ready\r\n"), "ready\r\n");
    feed(r.in, "one\ntwo");
    close_in(&r);
    CHECK_EQ_STR(drain(r.out), "got one\r\ntwoend\r\n");
    CHECK_EQ_INT(wait_for(&r), 0);
    end(&r);
    /* ^C reaches the foreground program; a resize does, too. */
    start_tty(&a, &r, "trap 'stty size' WINCH; trap 'exit 9' INT; stty -echo; echo ready; while :; do sleep 0.01; done",
              0, 0);
    (void)drain_until(r.out, "ready\r\n");
    CHECK_OK(cci_exec_resize(a.ctl, r.e, 100, 30, &agent_forever, &err), err);
    CHECK_EQ_STR(drain_until(r.out, "\n"), "30 100\r\n");
    CHECK_OK(cci_exec_resize(a.ctl, NULL, 90, 20, &agent_forever, &err), err);
    CHECK_EQ_STR(drain_until(r.out, "\n"), "20 90\r\n");
    feed(r.in, "\003");
    CHECK_EQ_INT(wait_for(&r), 9);
    (void)drain(r.out);
    CHECK_EQ_INT(cci_exec_resize(a.ctl, r.e, 1, 1, &agent_forever, &err), CC_ERR_IO);
    CHECK_EQ_INT(cci_exec_resize(a.ctl, r.e, 1, 1, &agent_forever, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ESRCH);
    cci_error_release(&err);
    end(&r);
    start_tty(&a, &r, "stty size", 0, 0); /* what was said of all holds for new ones */
    CHECK_EQ_STR(drain(r.out), "20 90\r\n");
    end(&r);
    /* Who closes a terminal's output hangs up, though the input is open still. */
    start_tty(&a, &r, "exec sleep 1000", 0, 0);
    cci_pipe_free(r.out);
    r.out = NULL;
    CHECK_EQ_INT(wait_for(&r), 128 + SIGHUP);
    end(&r);
    agent_stop(&a);
}

/* A terminal whose output is captured, and one that nobody looks at. */
static void test_tty_without_pipes(void)
{
    static struct agent a;
    struct cci_exec_spec s = spec_sh(SH("seq 20000; exit 1"));
    struct run r;
    cc_error err = {0};
    uint8_t *bytes;
    size_t n;
    agent_start(&a, NULL);
    s.tty = s.stdout_wanted = true;
    start_spec(&a, &r, &s);
    CHECK_EQ_INT(wait_for(&r), 1);
    CHECK_OK(cci_exec_take(r.e, CCI_CHANNEL_STDOUT, &bytes, &n, &err), err);
    CHECK_EQ_INT(n, 108894 + 20000);
    cci_mem_free(bytes);
    end(&r);
    s.stdout_wanted = false;
    start_spec(&a, &r, &s);
    CHECK_EQ_INT(wait_for(&r), 1);
    end(&r);
    agent_stop(&a);
}

/* ---- What is left over ---------------------------------------------------------------------------------------- */

static unsigned count_entries(const char *path)
{
    DIR *d = opendir(path);
    unsigned n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* The agent proper is a child of the process that was started. */
static pid_t agent_child(const struct agent *a)
{
    char path[64];
    int pid = -1;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)a->pid, (int)a->pid);
    FILE *f = fopen(path, "r");
    CHECK(f && fscanf(f, "%d", &pid) == 1);
    if (f)
        (void)fclose(f);
    return pid;
}

static void test_nothing_left(void)
{
    static struct agent a;
    struct run r;
    char path[64];
    unsigned agent_before = 0, host_before = 0;
    agent_start(&a, NULL);
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)agent_child(&a));
    for (int i = 0; i < 210; i++) {
        if (i == 10) {
            agent_before = count_entries(path);
            host_before = count_entries("/proc/self/fd");
        }
        if (i % 4 == 3)
            start_tty(&a, &r, "head -n 1", 0, 0);
        else
            start(&a, &r, SH("cat; echo y >&2"), "ioe");
        if (i % 3) {
            feed(r.in, "hello\n");
            close_in(&r);
            (void)wait_for(&r);
        }
        if (i % 4 == 3)
            cci_exec_kill(r.e, SIGKILL); /* nobody will ever type in the terminal */
        end(&r);                         /* also of one that still runs */
    }
    start(&a, &r, SH("true"), "");
    CHECK_EQ_INT(wait_for(&r), 0);
    end(&r);
    /* Those that were abandoned are on their way out; only the agent sees them go. */
    for (int i = 0; i < 3000 && count_entries(path) > agent_before; i++)
        (void)usleep(10000);
    CHECK(count_entries(path) <= agent_before);
    CHECK(count_entries("/proc/self/fd") <= host_before);
    agent_stop(&a);
}

int main(void)
{
    agent_build();
    RUN(test_all_three);
    RUN(test_bulk);
    RUN(test_unread_output);
    RUN(test_interrupted_writes);
    RUN(test_close_after_timeout);
    RUN(test_closed_early);
    RUN(test_left_behind);
    RUN(test_blocked_calls);
    RUN(test_many_writers);
    RUN(test_tail);
    RUN(test_tty);
    RUN(test_tty_without_pipes);
    RUN(test_nothing_left);
    agent_clean();
    return check_done();
}
