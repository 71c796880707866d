/*
 * bench_control: round trips to the agent as a process of this host, over a Unix socket, medians in microseconds.
 *
 * exec: /bin/true, from the request to the exit code; against posix_spawn and waitpid of the same in this process.
 * read: a file of one byte; against open, fstat, read, close. What lies between is protocol, socket and threads.
 */
#include "../../tests/control/agent.h"

#include <spawn.h>
#include <time.h>

#define RUNS 201

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
    unlink(file);
    agent_stop(&agent);
    agent_clean();
    return 0;
}
