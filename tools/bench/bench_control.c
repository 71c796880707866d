/*
 * bench_control: round trips to the agent as a process of this host, over a Unix socket, medians in microseconds.
 *
 * exec: /bin/true, from the request to the exit code and the end of standard error, as cc_cmd_run asks for; against
 * posix_spawn and waitpid of the same in this process.
 * read: a file of one byte; against open, fstat, read, close. What lies between is protocol, socket and threads.
 * pipe: MB/s of the output of `head -c 256M /dev/zero`, and of the input of `cat >/dev/null`; against popen of the
 * same.
 */
#include "../../tests/control/agent.h"

#include <spawn.h>
#include <time.h>

#define RUNS 201
#define PIPE_RUNS 5
#define PIPE_BYTES ((size_t)256 << 20)

extern char **environ;
static struct agent agent;
static char file[160];

static void exec_ours(void)
{
    static const char *const argv[] = {"/bin/true"};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    cc_error err = {0};
    int code = -1;
    s.argv = argv;
    s.argc = 1;
    s.stderr_tail = true;
    CHECK_OK(cci_exec_begin(agent.ctl, &s, &e, &err), err);
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, 0);
    cci_exec_free(e);
}

static void exec_peer(void)
{
    char program[] = "/bin/true", *argv[] = {program, NULL};
    pid_t pid;
    int status = -1;
    CHECK(posix_spawn(&pid, program, NULL, NULL, argv, environ) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void read_ours(void)
{
    cc_error err = {0};
    uint8_t *p = NULL;
    size_t n = 0;
    CHECK_OK(cci_file_read(agent.ctl, file, SIZE_MAX, &p, &n, &agent_forever, &err), err);
    CHECK(n == 1 && *p == 'x');
    cci_mem_free(p);
}

static void read_peer(void)
{
    char c = 0;
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    CHECK(fstat(fd, &st) == 0 && read(fd, &c, 1) == 1 && c == 'x');
    close(fd);
}

static double took(void (*fn)(void))
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    fn();
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, void (*fn)(void), void (*peer)(void))
{
    double ours[RUNS], theirs[RUNS];
    fn();
    peer();
    for (int i = 0; i < RUNS; i++) {
        ours[i] = took(fn);
        theirs[i] = took(peer);
    }
    qsort(ours, RUNS, sizeof(*ours), by_value);
    qsort(theirs, RUNS, sizeof(*theirs), by_value);
    printf("bench unix_socket_%s ours=%.1f peer=%.1f unit=us ratio=%.2f\n", name, ours[RUNS / 2], theirs[RUNS / 2],
           ours[RUNS / 2] / theirs[RUNS / 2]);
}

static uint8_t block[65536];

static struct cci_exec *begin_piped(const char *const argv[3], uint32_t channel, struct cci_pipe **p)
{
    static const char *const env[] = {"PATH=/usr/local/bin:/usr/bin:/bin"};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    cc_error err = {0};
    s.argv = argv;
    s.argc = 3;
    s.env = env;
    s.envc = 1;
    s.stdin_piped = channel == CCI_CHANNEL_STDIN;
    s.stdout_piped = !s.stdin_piped;
    CHECK_OK(cci_exec_begin(agent.ctl, &s, &e, &err), err);
    CHECK_OK(cci_exec_started(e, &agent_forever, &err), err);
    CHECK_OK(cci_exec_pipe(e, channel, p, &agent_forever, &err), err);
    return e;
}

static void end_piped(struct cci_exec *e)
{
    cc_error err = {0};
    int code = -1;
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, 0);
    cci_exec_free(e);
}

#define READ_SCRIPT "exec head -c 256M /dev/zero"
#define WRITE_SCRIPT "exec cat >/dev/null"

static void pipe_read_ours(void)
{
    static const char *const argv[3] = {"sh", "-c", READ_SCRIPT};
    struct cci_pipe *p = NULL;
    size_t n = 1, total = 0;
    struct cci_exec *e = begin_piped(argv, CCI_CHANNEL_STDOUT, &p);
    while (cci_pipe_read(p, block, sizeof(block), &n, &agent_forever, NULL) == CC_OK && n)
        total += n;
    CHECK_EQ_INT(total, PIPE_BYTES);
    cci_pipe_free(p);
    end_piped(e);
}

static void pipe_read_peer(void)
{
    FILE *f = popen(READ_SCRIPT, "r");
    ssize_t n;
    size_t total = 0;
    CHECK(f != NULL);
    while ((n = read(fileno(f), block, sizeof(block))) > 0)
        total += (size_t)n;
    CHECK_EQ_INT(total, PIPE_BYTES);
    CHECK(pclose(f) == 0);
}

static void pipe_write_ours(void)
{
    static const char *const argv[3] = {"sh", "-c", WRITE_SCRIPT};
    struct cci_pipe *p = NULL;
    cc_error err = {0};
    size_t n;
    struct cci_exec *e = begin_piped(argv, CCI_CHANNEL_STDIN, &p);
    for (size_t at = 0; at < PIPE_BYTES; at += n)
        CHECK_OK(cci_pipe_write(p, block, sizeof(block), &n, &agent_forever, &err), err);
    cci_pipe_free(p);
    end_piped(e);
}

static void pipe_write_peer(void)
{
    FILE *f = popen(WRITE_SCRIPT, "w");
    CHECK(f != NULL);
    for (size_t at = 0; at < PIPE_BYTES; at += sizeof(block))
        CHECK(write(fileno(f), block, sizeof(block)) == (ssize_t)sizeof(block));
    CHECK(pclose(f) == 0);
}

static void measure_pipe(const char *name, void (*fn)(void), void (*peer)(void))
{
    double ours[PIPE_RUNS], theirs[PIPE_RUNS];
    for (int i = 0; i < PIPE_RUNS; i++) {
        ours[i] = (double)PIPE_BYTES / took(fn);
        theirs[i] = (double)PIPE_BYTES / took(peer);
    }
    qsort(ours, PIPE_RUNS, sizeof(*ours), by_value);
    qsort(theirs, PIPE_RUNS, sizeof(*theirs), by_value);
    printf("bench unix_socket_pipe_%s ours=%.0f peer=%.0f unit=MB/s ratio=%.2f\n", name, ours[PIPE_RUNS / 2],
           theirs[PIPE_RUNS / 2], ours[PIPE_RUNS / 2] / theirs[PIPE_RUNS / 2]);
}

int main(void)
{
    agent_build();
    agent_start(&agent, NULL);
    (void)snprintf(file, sizeof(file), "%s/one", agent.dir);
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    CHECK(write(fd, "x", 1) == 1);
    close(fd);
    measure("exec", exec_ours, exec_peer);
    measure("read", read_ours, read_peer);
    measure_pipe("read", pipe_read_ours, pipe_read_peer);
    measure_pipe("write", pipe_write_ours, pipe_write_peer);
    unlink(file);
    agent_stop(&agent);
    agent_clean();
    return 0;
}
