/* Files through the real agent, over a Unix socket.
 * @timeout 120
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "agent.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

static uint8_t *pattern(size_t n)
{
    uint8_t *p = malloc(n + 1);
    uint32_t x = 12345;
    CHECK(p != NULL);
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
    return p;
}

static const char *name_in(const struct agent *a, const char *name)
{
    static char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s", a->dir, name);
    return path;
}

static void check_file_error(cc_error_code code, cc_error *err, int sys_errno, const char *path)
{
    CHECK_EQ_INT(code, CC_ERR_IO);
    CHECK_EQ_INT(err->sys_errno, sys_errno);
    CHECK_EQ_STR(err->message, cci_errno_text(sys_errno));
    CHECK_EQ_STR(err->path, path);
    cci_error_release(err);
}

/* Sizes about the inline limit and beyond, there and back; the file on disk is looked at too. */
static void test_round_trip(void)
{
    static const size_t sizes[] = {0, 1, 4096, 65535, 65536, 65537, 131072, 131073, 1000000, 67108864};
    static struct agent a;
    cc_error err = {0};
    agent_start(&a, NULL);
    for (size_t i = 0; i < CCI_COUNT(sizes); i++) {
        uint8_t *sent = pattern(sizes[i]), *got = NULL;
        size_t n = 0;
        struct stat st;
        const char *path = name_in(&a, "file");
        uint64_t t0 = cci_os_now();
        CHECK_OK(cci_file_write(a.ctl, path, sent, sizes[i], 0640, &agent_forever, &err), err);
        uint64_t t1 = cci_os_now();
        CHECK(stat(path, &st) == 0);
        CHECK_EQ_INT(st.st_size, sizes[i]);
        CHECK_EQ_INT(st.st_mode & 07777, 0640);
        uint64_t t2 = cci_os_now();
        CHECK_OK(cci_file_read(a.ctl, path, 0, &got, &n, &agent_forever, &err), err);
        uint64_t t3 = cci_os_now();
        CHECK_EQ_INT(n, sizes[i]);
        CHECK(memcmp(got, sent, n) == 0);
        CHECK(got[n] == 0);
        if (n > 50000000)
            printf("# 64 MiB: write %llu MB/s, read %llu MB/s\n", (unsigned long long)(n * 1000u / (t1 - t0)),
                   (unsigned long long)(n * 1000u / (t3 - t2)));
        cci_mem_free(got);
        free(sent);
        CHECK(unlink(path) == 0);
    }
    agent_stop(&a);
}

/* Truncation leaves the mode; creation takes it exactly, whatever bits. */
static void test_modes(void)
{
    static struct agent a;
    cc_error err = {0};
    struct stat st;
    agent_start(&a, NULL);
    const char *path = name_in(&a, "file");
    CHECK_OK(cci_file_write(a.ctl, path, "abcdef", 6, 0666, &agent_forever, &err), err);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0666);
    CHECK_OK(cci_file_write(a.ctl, path, "x", 1, 0600, &agent_forever, &err), err);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0666 && st.st_size == 1);
    CHECK(unlink(path) == 0);
    CHECK_OK(cci_file_write(a.ctl, path, "", 0, 04755, &agent_forever, &err), err);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 04755 && st.st_size == 0);
    CHECK(unlink(path) == 0);
    agent_stop(&a);
}

static void test_errors(void)
{
    static struct agent a;
    static uint8_t big[100000];
    cc_error err = {0};
    uint8_t *got;
    size_t n;
    struct cci_file_stat st;
    const struct cci_wait *w = &agent_forever;
    agent_start(&a, NULL);
    check_file_error(cci_file_read(a.ctl, "/no/such/file", 0, &got, &n, w, &err), &err, ENOENT, "/no/such/file");
    check_file_error(cci_file_read(a.ctl, "/etc/passwd/x", 0, &got, &n, w, &err), &err, ENOTDIR, "/etc/passwd/x");
    check_file_error(cci_file_read(a.ctl, "/etc", 0, &got, &n, w, &err), &err, EISDIR, "/etc");
    check_file_error(cci_file_read(a.ctl, "", 0, &got, &n, w, &err), &err, ENOENT, "");
    check_file_error(cci_file_write(a.ctl, "/no/such/file", "x", 1, 0644, w, &err), &err, ENOENT, "/no/such/file");
    check_file_error(cci_file_write(a.ctl, "/no/such/file", big, sizeof(big), 0644, w, &err), &err, ENOENT,
                     "/no/such/file");
    check_file_error(cci_file_write(a.ctl, "/etc", "x", 1, 0644, w, &err), &err, EISDIR, "/etc");
    check_file_error(cci_file_stat(a.ctl, "/no/such/file", false, &st, w, &err), &err, ENOENT, "/no/such/file");
    /* A full disk: in the reply's place at once, or in mid-stream. */
    check_file_error(cci_file_write(a.ctl, "/dev/full", "x", 1, 0644, w, &err), &err, ENOSPC, "/dev/full");
    check_file_error(cci_file_write(a.ctl, "/dev/full", big, sizeof(big), 0644, w, &err), &err, ENOSPC, "/dev/full");
    /* Larger than we want to hold. */
    CHECK_EQ_INT(cci_file_read(a.ctl, "/dev/zero", 1000000, &got, &n, w, &err), CC_ERR_IO);
    CHECK_EQ_STR(err.message, "the guest sent more than the limit of 1000000 bytes");
    cci_error_release(&err);
    agent_stop(&a);
}

static void test_stat(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_file_stat got;
    struct stat st;
    agent_start(&a, NULL);
    char link[200];
    (void)snprintf(link, sizeof(link), "%s", name_in(&a, "link"));
    CHECK(symlink("/etc/passwd", link) == 0);
    for (int nofollow = 0; nofollow < 2; nofollow++) {
        CHECK((nofollow ? lstat(link, &st) : stat(link, &st)) == 0);
        CHECK_OK(cci_file_stat(a.ctl, link, nofollow, &got, &agent_forever, &err), err);
        CHECK_EQ_INT(got.dev, st.st_dev);
        CHECK_EQ_INT(got.ino, st.st_ino);
        CHECK_EQ_INT(got.mode, st.st_mode);
        CHECK_EQ_INT(got.nlink, st.st_nlink);
        if (geteuid() == 0) { /* else the agent's user namespace has other numbers */
            CHECK_EQ_INT(got.uid, st.st_uid);
            CHECK_EQ_INT(got.gid, st.st_gid);
        }
        CHECK_EQ_INT(got.size, st.st_size);
        CHECK_EQ_INT(got.blocks, st.st_blocks);
        CHECK_EQ_INT(got.blksize, st.st_blksize);
        CHECK_EQ_INT(got.mtime.seconds, st.st_mtim.tv_sec);
        CHECK_EQ_INT(got.mtime.ns, st.st_mtim.tv_nsec);
        CHECK_EQ_INT(got.ctime.seconds, st.st_ctim.tv_sec);
        CHECK_EQ_INT(got.ctime.ns, st.st_ctim.tv_nsec);
    }
    CHECK_OK(cci_file_stat(a.ctl, "/dev/null", false, &got, &agent_forever, &err), err);
    CHECK_EQ_INT(got.mode, S_IFCHR | 0666);
    CHECK_EQ_INT(got.rdev, makedev(1, 3));
    CHECK_OK(cci_file_stat(a.ctl, "etc/passwd", false, &got, &agent_forever, &err), err); /* from the root */
    CHECK(unlink(link) == 0);
    agent_stop(&a);
}

/* Names with any byte but NUL and "/". */
static void test_names(void)
{
    static struct agent a;
    cc_error err = {0};
    uint8_t *got;
    size_t n;
    agent_start(&a, NULL);
    char name[256];
    for (unsigned from = 1; from < 256; from += 100) {
        size_t k = 0;
        for (unsigned c = from; c < from + 100 && c < 256; c++)
            if (c != '/')
                name[k++] = (char)c;
        name[k] = 0;
        const char *path = name_in(&a, name);
        CHECK_OK(cci_file_write(a.ctl, path, "x", 1, 0600, &agent_forever, &err), err);
        CHECK(access(path, F_OK) == 0);
        CHECK_OK(cci_file_read(a.ctl, path, 0, &got, &n, &agent_forever, &err), err);
        CHECK_EQ_INT(n, 1);
        cci_mem_free(got);
        CHECK(unlink(path) == 0);
    }
    agent_stop(&a);
}

struct fifo_call {
    pthread_t thread;
    const char *path;
    const uint8_t *bytes; /* to be written; NULL: a read */
    size_t n;
    uint8_t *got;
    cc_error_code code;
};

static struct agent fifo_agent;

static void *call_on_fifo(void *ctx)
{
    struct fifo_call *c = ctx;
    c->code = c->bytes ? cci_file_write(fifo_agent.ctl, c->path, c->bytes, c->n, 0600, &agent_forever, NULL)
                       : cci_file_read(fifo_agent.ctl, c->path, 0, &c->got, &c->n, &agent_forever, NULL);
    return NULL;
}

/* A read waits for the first writer, a write for room; other calls go on meanwhile. */
/* Until the FIFO is full, or has all `n` bytes. */
static void wait_for_fill(int fd, size_t n)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int held = 0;
    while (poll(&p, 1, 0) == 1 && ioctl(fd, FIONREAD, &held) == 0 && (size_t)held < n)
        (void)sched_yield();
}

static void test_fifo(void)
{
    static const size_t sizes[] = {60000, 65536, 1000000};
    cc_error err = {0};
    struct cci_file_stat st;
    char path[200];
    agent_start(&fifo_agent, NULL);
    (void)snprintf(path, sizeof(path), "%s", name_in(&fifo_agent, "fifo"));
    CHECK(mkfifo(path, 0600) == 0);
    check_file_error(cci_file_write(fifo_agent.ctl, path, "x", 1, 0600, &agent_forever, &err), &err, ENXIO, path);
    struct fifo_call r = {.path = path};
    CHECK(pthread_create(&r.thread, NULL, call_on_fifo, &r) == 0);
    CHECK_OK(cci_file_stat(fifo_agent.ctl, path, false, &st, &agent_forever, &err), err);
    int fd = open(path, O_WRONLY); /* when the agent has it open */
    CHECK(fd >= 0 && write(fd, "hello", 5) == 5);
    close(fd);
    pthread_join(r.thread, NULL);
    CHECK(r.code == CC_OK && r.n == 5 && memcmp(r.got, "hello", 5) == 0);
    cci_mem_free(r.got);
    for (size_t i = 0; i < CCI_COUNT(sizes); i++) {
        uint8_t *bytes = pattern(sizes[i]), *got = malloc(sizes[i]);
        struct fifo_call w = {.path = path, .bytes = bytes, .n = sizes[i]};
        fd = open(path, O_RDWR);
        CHECK(fd >= 0 && got);
        CHECK(write(fd, "full", 4) == 4); /* so that not all of it fits */
        CHECK(pthread_create(&w.thread, NULL, call_on_fifo, &w) == 0);
        CHECK_OK(cci_file_stat(fifo_agent.ctl, path, false, &st, &agent_forever, &err), err);
        wait_for_fill(fd, 4 + sizes[i]);
        CHECK(read(fd, got, 4) == 4);
        for (size_t at = 0; at < sizes[i];) {
            ssize_t k = read(fd, got + at, sizes[i] - at);
            CHECK(k > 0);
            at += k > 0 ? (size_t)k : sizes[i];
        }
        pthread_join(w.thread, NULL);
        CHECK_EQ_INT(w.code, CC_OK);
        CHECK(memcmp(got, bytes, sizes[i]) == 0);
        close(fd);
        free(got);
        free(bytes);
    }
    CHECK(unlink(path) == 0);
    agent_stop(&fifo_agent);
}

/* Given up half-way: the deadline passes while the guest cannot take more. Others are not held up. */
static void test_deadline(void)
{
    static struct agent a;
    cc_error err = {0};
    struct cci_file_stat st;
    uint8_t *got;
    size_t n;
    agent_start(&a, NULL);
    CHECK(mkfifo(name_in(&a, "fifo"), 0600) == 0);
    int fd = open(name_in(&a, "fifo"), O_RDWR | O_CLOEXEC); /* a writer that never writes */
    CHECK(fd >= 0);
    const struct cci_wait brief = {cci_os_now() + 50000000u, NULL};
    CHECK_EQ_INT(cci_file_read(a.ctl, name_in(&a, "fifo"), 0, &got, &n, &brief, &err), CC_ERR_TIMEOUT);
    CHECK_EQ_STR(err.message, "timed out waiting for a file of the guest");
    cci_error_release(&err);
    CHECK_OK(cci_file_stat(a.ctl, "/", false, &st, &agent_forever, &err), err);
    close(fd);
    CHECK(unlink(name_in(&a, "fifo")) == 0);
    agent_stop(&a);
}

struct reader {
    struct agent *a;
    pthread_t thread;
    const char *path;
    const uint8_t *want;
    size_t n;
    bool good;
};

static void *read_many(void *arg)
{
    struct reader *r = arg;
    r->good = true;
    for (int i = 0; i < 5; i++) {
        uint8_t *got = NULL;
        size_t n = 0;
        if (cci_file_read(r->a->ctl, r->path, 0, &got, &n, &agent_forever, NULL) || n != r->n ||
            memcmp(got, r->want, n) != 0)
            r->good = false;
        cci_mem_free(got);
    }
    return NULL;
}

static void test_concurrent(void)
{
    static struct agent a;
    static char path[200];
    cc_error err = {0};
    struct reader r[16];
    const size_t n = 3000000;
    agent_start(&a, NULL);
    uint8_t *bytes = pattern(n);
    (void)snprintf(path, sizeof(path), "%s", name_in(&a, "file"));
    CHECK_OK(cci_file_write(a.ctl, path, bytes, n, 0600, &agent_forever, &err), err);
    for (int i = 0; i < 16; i++) {
        r[i] = (struct reader){&a, 0, path, bytes, n, false};
        CHECK(pthread_create(&r[i].thread, NULL, read_many, &r[i]) == 0);
    }
    for (int i = 0; i < 16; i++) {
        (void)pthread_join(r[i].thread, NULL);
        CHECK(r[i].good);
    }
    CHECK(unlink(path) == 0);
    free(bytes);
    agent_stop(&a);
}

static void test_latency(void)
{
    static struct agent a;
    cc_error err = {0};
    uint8_t *got;
    size_t n;
    agent_start(&a, NULL);
    CHECK_OK(cci_file_write(a.ctl, name_in(&a, "one"), "x", 1, 0600, &agent_forever, &err), err);
    uint64_t t0 = cci_os_now();
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(cci_file_read(a.ctl, name_in(&a, "one"), 0, &got, &n, &agent_forever, &err), err);
        cci_mem_free(got);
    }
    printf("# 1-byte read_file: %llu us\n", (unsigned long long)(cci_os_now() - t0) / 1000000u);
    CHECK(unlink(name_in(&a, "one")) == 0);
    agent_stop(&a);
}

int main(void)
{
    agent_build();
    RUN(test_round_trip);
    RUN(test_modes);
    RUN(test_errors);
    RUN(test_stat);
    RUN(test_names);
    RUN(test_fifo);
    RUN(test_deadline);
    RUN(test_concurrent);
    RUN(test_latency);
    agent_clean();
    return check_done();
}
