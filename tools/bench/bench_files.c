/*
 * bench_files: files through the agent as a process of this host, over a Unix socket, each against the same done by
 * this process itself; medians of seven alternating runs.
 *
 * read_1, write_1, stat: microseconds of one call. read_64m, write_64m, and the same of an open file: MB/s. read_dir:
 * 10,000 entries with their modes, sorted, in milliseconds. copy_in, copy_out: a tree of 2,000 files and 40 MB, in
 * milliseconds, against tar c | tar x.
 */
#include "../../tests/control/agent.h"

#include <dirent.h>
#include <time.h>

#include "../../src/control/copy.h"
#include "../../src/control/openfile.h"
#include "../../src/control/listing.h"

#define RUNS 7
#define BIG ((size_t)64 << 20)

static struct agent agent;
static char one[160], big[160], many[160], tree[160], copy[160], peer_copy[160];
static uint8_t *bytes;
static cc_error err;
static const struct cci_wait *const w = &agent_forever;
static const struct cci_copy_options plain = {0};

static void read_ours(const char *path, size_t want)
{
    uint8_t *p = NULL;
    size_t n = 0;
    CHECK_OK(cci_file_read(agent.ctl, path, 0, &p, &n, w, &err), err);
    CHECK(n == want);
    cci_mem_free(p);
}

static void read_peer(const char *path, size_t want)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *p = malloc((size_t)st.st_size);
    CHECK(p && read(fd, p, (size_t)st.st_size) == (ssize_t)want);
    close(fd);
    free(p);
}

static void write_peer(const char *path, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && close(fd) == 0);
}

static void read_1_ours(void)
{
    read_ours(one, 1);
}
static void read_1_peer(void)
{
    read_peer(one, 1);
}
static void write_1_ours(void)
{
    CHECK_OK(cci_file_write(agent.ctl, one, "x", 1, 0600, w, &err), err);
}
static void write_1_peer(void)
{
    write_peer(one, 1);
}
static void read_big_ours(void)
{
    read_ours(big, BIG);
}
static void read_big_peer(void)
{
    read_peer(big, BIG);
}
static void write_big_ours(void)
{
    CHECK_OK(cci_file_write(agent.ctl, big, bytes, BIG, 0600, w, &err), err);
}
static void write_big_peer(void)
{
    write_peer(big, BIG);
}

static void open_big(bool writing)
{
    struct cci_openfile f;
    size_t n;
    CHECK_OK(cci_openfile_open(&f, agent.ctl, big, writing ? 0x401 : 0, 0, w, &err), err);
    cc_error_code code =
        writing ? cci_openfile_write(&f, bytes, BIG, &n, w, &err) : cci_openfile_read(&f, bytes, BIG, &n, w, &err);
    CHECK_OK(code, err);
    CHECK(n == BIG);
    CHECK_OK(cci_openfile_close(&f, w, &err), err);
    cci_openfile_destroy(&f);
}
static void open_read_ours(void)
{
    open_big(false);
}
static void open_write_ours(void)
{
    open_big(true);
}

static void stat_ours(void)
{
    struct cci_file_stat st;
    CHECK_OK(cci_file_stat(agent.ctl, one, false, &st, w, &err), err);
}
static void stat_peer(void)
{
    struct stat st;
    CHECK(stat(one, &st) == 0);
}

static void dir_ours(void)
{
    cc_dir_entry *e;
    size_t n;
    CHECK_OK(cci_listing_read(agent.ctl, many, &e, &n, w, &err), err);
    CHECK(n == 10000);
    cci_listing_free(e, n);
}

static void dir_peer(void)
{
    struct dirent **names;
    struct stat st;
    int n = scandir(many, &names, NULL, alphasort);
    int dir = open(many, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(n == 10002);
    for (int i = 0; i < n; i++) {
        CHECK(fstatat(dir, names[i]->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
        free(names[i]);
    }
    free(names);
    close(dir);
}

static void run(const char *fmt, const char *a, const char *b)
{
    char command[600];
    (void)snprintf(command, sizeof(command), fmt, a, b);
    CHECK(system(command) == 0);
}

static void copy_in_ours(void)
{
    CHECK_OK(cci_copy_in(agent.ctl, tree, copy, &plain, w, &err), err);
}
static void copy_out_ours(void)
{
    CHECK_OK(cci_copy_out(agent.ctl, tree, copy, &plain, w, &err), err);
}
static void copy_peer(void)
{
    run("mkdir %2$s && tar -C %1$s -c . | tar -C %2$s -x", tree, peer_copy);
}

/* ---- Measuring ---------------------------------------------------------------------------------------------- */

static double took(void (*fn)(void), int times)
{
    uint64_t start = cci_os_now();
    for (int i = 0; i < times; i++)
        fn();
    return (double)(cci_os_now() - start) / 1e3 / times;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* In microseconds, divided by `scale`; of a negative one that many bytes are worth a rate. */
static void measure(const char *name, const char *unit, double scale, int times, void (*fn)(void), void (*peer)(void))
{
    double ours[RUNS], theirs[RUNS];
    for (int i = 0; i < RUNS; i++) {
        run("rm -rf %s %s", copy, peer_copy);
        ours[i] = took(fn, times);
        theirs[i] = took(peer, times);
    }
    qsort(ours, RUNS, sizeof(*ours), by_value);
    qsort(theirs, RUNS, sizeof(*theirs), by_value);
    double a = ours[RUNS / 2], b = theirs[RUNS / 2];
    a = scale < 0 ? -scale / a : a / scale;
    b = scale < 0 ? -scale / b : b / scale;
    printf("bench files_%s ours=%.1f peer=%.1f unit=%s ratio=%.2f\n", name, a, b, unit, a / b);
    (void)fflush(stdout);
}

int main(void)
{
    agent_build();
    agent_start(&agent, NULL);
    const struct {
        char *path;
        const char *name;
    } names[] = {{one, "one"}, {big, "big"}, {many, "many"}, {tree, "tree"}, {copy, "copy"}, {peer_copy, "peer"}};
    for (size_t i = 0; i < CCI_COUNT(names); i++)
        (void)snprintf(names[i].path, 160, "%s/%s", agent.dir, names[i].name);
    bytes = malloc(BIG);
    CHECK(bytes != NULL);
    memset(bytes, 'x', BIG);
    write_1_peer();
    write_big_peer();
    run("mkdir %s && cd %s && seq 10000 | xargs touch", many, many);
    run("mkdir %s && cd %s && for d in $(seq 20); do mkdir $d; for f in $(seq 100); do head -c 20000 /dev/zero >$d/$f; "
        "done; "
        "done",
        tree, tree);
    measure("read_1", "us", 1, 500, read_1_ours, read_1_peer);
    measure("write_1", "us", 1, 500, write_1_ours, write_1_peer);
    measure("stat", "us", 1, 500, stat_ours, stat_peer);
    measure("read_64m", "MB/s", -(double)BIG, 1, read_big_ours, read_big_peer);
    measure("write_64m", "MB/s", -(double)BIG, 1, write_big_ours, write_big_peer);
    measure("open_read_64m", "MB/s", -(double)BIG, 1, open_read_ours, read_big_peer);
    measure("open_write_64m", "MB/s", -(double)BIG, 1, open_write_ours, write_big_peer);
    measure("read_dir_10000", "ms", 1000, 1, dir_ours, dir_peer);
    measure("copy_in_vs_tar", "ms", 1000, 1, copy_in_ours, copy_peer);
    measure("copy_out_vs_tar", "ms", 1000, 1, copy_out_ours, copy_peer);
    free(bytes);
    run("cd %s && rm -rf one big many tree copy peer # %s", agent.dir, "");
    agent_stop(&agent);
    agent_clean();
    return 0;
}
