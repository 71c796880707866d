/* Open files through the real agent, over a Unix socket.
 * @timeout 120
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "agent.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/resource.h>

#include "../../src/control/openfile.h"

static struct agent a;
static const struct cci_wait *const w = &agent_forever;
static cc_error err;

static const char *name_in(const char *name)
{
    static char path[2][200];
    static unsigned turn;
    turn ^= 1;
    (void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", a.dir, name);
    return path[turn];
}

static int opened(struct cci_openfile *f, const char *name, int flags, unsigned mode)
{
    int r = cci_openfile_open(f, a.ctl, name, (unsigned)flags, mode, w, &err) ? err.sys_errno : 0;
    cci_error_release(&err);
    return r;
}

static void closed(struct cci_openfile *f)
{
    CHECK_OK(cci_openfile_close(f, w, &err), err);
    cci_openfile_destroy(f);
}

static int wrote(struct cci_openfile *f, const void *p, size_t n)
{
    size_t done;
    int r = cci_openfile_write(f, p, n, &done, w, &err) ? err.sys_errno : 0;
    CHECK(r || done == n);
    cci_error_release(&err);
    return r;
}

/* What a read gives, as text, or "!" and the error number. */
static const char *reads(struct cci_openfile *f, size_t n)
{
    static char text[300];
    size_t got;
    if (cci_openfile_read(f, text, n, &got, w, &err))
        (void)snprintf(text, sizeof(text), "!%d", err.sys_errno);
    else
        text[got] = '\0';
    cci_error_release(&err);
    return text;
}

static int64_t seeks(struct cci_openfile *f, int64_t to, unsigned whence)
{
    uint64_t at = 0;
    int64_t r = cci_openfile_seek(f, to, whence, &at, w, &err) ? -err.sys_errno : (int64_t)at;
    cci_error_release(&err);
    return r;
}

static int does(struct cci_openfile *f, uint32_t type, uint64_t n)
{
    int r = cci_openfile_do(f, type, n, w, &err) ? err.sys_errno : 0;
    cci_error_release(&err);
    return r;
}

/* The same as open(2) with the flags says, on existing and missing files. */
static void test_flags(void)
{
    static const struct {
        int ours, native;
    } flags[] = {{0, O_RDONLY},
                 {CC_O_WRONLY, O_WRONLY},
                 {CC_O_RDWR, O_RDWR},
                 {CC_O_RDWR | CC_O_CREATE, O_RDWR | O_CREAT},
                 {CC_O_WRONLY | CC_O_CREATE | CC_O_EXCL, O_WRONLY | O_CREAT | O_EXCL},
                 {CC_O_RDWR | CC_O_TRUNC, O_RDWR | O_TRUNC},
                 {CC_O_WRONLY | CC_O_APPEND, O_WRONLY | O_APPEND},
                 {CC_O_RDWR | CC_O_CREATE | CC_O_TRUNC | CC_O_APPEND, O_RDWR | O_CREAT | O_TRUNC | O_APPEND}};
    static const char *const kinds[] = {"file", "none", "dir", "link", "file/x", "nodir/x"};
    (void)umask(0);
    for (size_t i = 0; i < CCI_COUNT(flags); i++)
        for (size_t k = 0; k < CCI_COUNT(kinds); k++) {
            struct stat st[2];
            int result[2];
            char contents[2][10] = {"", ""};
            for (int native = 0; native < 2; native++) {
                char script[400];
                struct cci_openfile f;
                (void)snprintf(script, sizeof(script),
                               "cd %s && rm -rf file none dir link && echo 12345 >file && mkdir dir && ln -s none link",
                               a.dir);
                CHECK(system(script) == 0);
                const char *path = name_in(kinds[k]);
                if (native) {
                    int fd = open(path, flags[i].native | O_CLOEXEC, 01640);
                    result[1] = fd < 0 ? errno : 0;
                    if (fd >= 0) {
                        if (write(fd, "ab", 2) != 2)
                            result[1] = -errno;
                        close(fd);
                    }
                } else {
                    result[0] = opened(&f, path, flags[i].ours, 01640);
                    if (!result[0]) {
                        result[0] = -wrote(&f, "ab", 2);
                        closed(&f);
                    }
                }
                if (stat(path, &st[native]))
                    st[native].st_mode = 0;
                int fd = open(path, O_RDONLY | O_CLOEXEC);
                if (fd >= 0 && read(fd, contents[native], 9) < 0)
                    contents[native][0] = '?';
                close(fd);
            }
            if (result[0] != result[1])
                printf("# flags %#x of %s\n", (unsigned)flags[i].ours, kinds[k]);
            CHECK_EQ_INT(result[0], result[1]);
            CHECK_EQ_INT(st[0].st_mode, st[1].st_mode);
            CHECK_EQ_STR(contents[0], contents[1]);
        }
    char script[300];
    (void)snprintf(script, sizeof(script), "cd %s && rm -rf file none dir link", a.dir);
    CHECK(system(script) == 0);
}

static void test_position(void)
{
    struct cci_openfile f;
    struct cci_file_stat st;
    struct stat host;
    CHECK_EQ_INT(opened(&f, name_in("f"), CC_O_RDWR | CC_O_CREATE, 0600), 0);
    CHECK_EQ_STR(reads(&f, 10), "");
    CHECK_EQ_INT(wrote(&f, "hello world", 11), 0);
    CHECK_EQ_INT(seeks(&f, 6, CC_SEEK_SET), 6);
    CHECK_EQ_STR(reads(&f, 3), "wor");
    CHECK_EQ_STR(reads(&f, 100), "ld");
    CHECK_EQ_STR(reads(&f, 100), "");
    CHECK_EQ_STR(reads(&f, 0), "");
    CHECK_EQ_INT(seeks(&f, -4, CC_SEEK_END), 7);
    CHECK_EQ_INT(seeks(&f, -2, CC_SEEK_CUR), 5);
    CHECK_EQ_INT(seeks(&f, -6, CC_SEEK_CUR), -EINVAL);
    CHECK_EQ_INT(wrote(&f, "", 0), 0);
    CHECK_EQ_INT(wrote(&f, "-", 1), 0);
    /* Beyond the end, and beyond 4 GiB: a hole. */
    CHECK_EQ_INT(seeks(&f, (int64_t)5 << 30, CC_SEEK_SET), (int64_t)5 << 30);
    CHECK_EQ_STR(reads(&f, 10), "");
    CHECK_EQ_INT(wrote(&f, "far", 3), 0);
    CHECK_EQ_INT(seeks(&f, -5, CC_SEEK_END), ((int64_t)5 << 30) - 2);
    size_t got;
    char far[6];
    CHECK_OK(cci_openfile_read(&f, far, 6, &got, w, &err), err);
    CHECK(got == 5 && memcmp(far, "\0\0far", 5) == 0);
    CHECK_OK(cci_openfile_stat(&f, &st, w, &err), err);
    CHECK_EQ_INT(st.size, ((int64_t)5 << 30) + 3);
    CHECK_EQ_INT(does(&f, CCI_MSG_FILE_TRUNCATE, 8), 0);
    CHECK_EQ_INT(does(&f, CCI_MSG_FILE_TRUNCATE, (uint64_t)-1), EINVAL);
    CHECK_EQ_INT(does(&f, CCI_MSG_FILE_SYNC, 0), 0);
    CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_SET), 0);
    CHECK_EQ_STR(reads(&f, 100), "hello-wo");
    /* Removed while open. */
    CHECK(stat(f.path, &host) == 0 && unlink(f.path) == 0);
    CHECK_EQ_INT(wrote(&f, "x", 1), 0);
    CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_SET), 0);
    CHECK_EQ_STR(reads(&f, 100), "hello-wox");
    CHECK_OK(cci_openfile_stat(&f, &st, w, &err), err);
    CHECK(st.nlink == 0 && st.ino == host.st_ino && st.size == 9);
    closed(&f);
}

static void test_append(void)
{
    struct cci_openfile f, g;
    CHECK_EQ_INT(opened(&f, name_in("f"), CC_O_RDWR | CC_O_CREATE | CC_O_APPEND, 0600), 0);
    CHECK_EQ_INT(opened(&g, f.path, CC_O_WRONLY | CC_O_APPEND, 0), 0);
    CHECK_EQ_INT(wrote(&f, "1", 1) + wrote(&g, "2", 1) + wrote(&f, "3", 1), 0);
    CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_SET), 0);
    CHECK_EQ_INT(wrote(&f, "4", 1), 0);
    CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_SET), 0);
    CHECK_EQ_STR(reads(&f, 9), "1234");
    CHECK_EQ_STR(reads(&g, 9), "!9"); /* EBADF: not open for reading */
    CHECK(unlink(f.path) == 0);
    closed(&f);
    closed(&g);
}

static void test_odd_files(void)
{
    struct cci_openfile f;
    CHECK_EQ_INT(opened(&f, "/etc", 0, 0), 0);
    CHECK_EQ_STR(reads(&f, 9), "!21");
    CHECK_EQ_INT(wrote(&f, "x", 1), EBADF);
    closed(&f);
    CHECK_EQ_INT(opened(&f, "/dev/full", CC_O_RDWR, 0), 0);
    CHECK_EQ_INT(wrote(&f, "x", 1), ENOSPC);
    closed(&f);
    CHECK_EQ_INT(opened(&f, "/dev/null", CC_O_RDWR, 0), 0);
    CHECK_EQ_STR(reads(&f, 9), "");
    CHECK_EQ_INT(wrote(&f, "x", 1), 0);
    closed(&f);
    CHECK_EQ_INT(opened(&f, "", 0, 0), ENOENT);
    CHECK_EQ_INT(opened(&f, "etc/passwd", 0, 0), 0); /* from the root */
    CHECK_EQ_INT(wrote(&f, "x", 1), EBADF);
    closed(&f);
    CHECK(mkfifo(name_in("fifo"), 0600) == 0);
    CHECK_EQ_INT(opened(&f, name_in("fifo"), CC_O_WRONLY, 0), ENXIO);
    CHECK_EQ_INT(opened(&f, name_in("fifo"), CC_O_RDWR, 0), 0);
    CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_SET), -ESPIPE);
    closed(&f);
    CHECK(unlink(name_in("fifo")) == 0);
}

static uint8_t *pattern(size_t n)
{
    uint8_t *p = malloc(n);
    uint32_t x = 4711;
    CHECK(p != NULL);
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
    return p;
}

static void test_large(void)
{
    static const size_t sizes[] = {65536, 65537, 1000000, 67108864};
    for (size_t i = 0; i < CCI_COUNT(sizes); i++) {
        size_t n = sizes[i], got = 0;
        uint8_t *sent = pattern(n), *back = malloc(n + 1);
        struct cci_openfile f;
        CHECK_EQ_INT(opened(&f, name_in("f"), CC_O_RDWR | CC_O_CREATE, 0600), 0);
        uint64_t t0 = cci_os_now();
        CHECK_EQ_INT(wrote(&f, sent, n), 0);
        uint64_t t1 = cci_os_now();
        CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_SET), 0);
        uint64_t t2 = cci_os_now();
        CHECK_OK(cci_openfile_read(&f, back, n + 1, &got, w, &err), err);
        uint64_t t3 = cci_os_now();
        CHECK_EQ_INT(got, n);
        CHECK(memcmp(sent, back, n) == 0);
        CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_CUR), (int64_t)n);
        if (n > 50000000)
            printf("# 64 MiB: write %llu MB/s, read %llu MB/s\n", (unsigned long long)(n * 1000u / (t1 - t0)),
                   (unsigned long long)(n * 1000u / (t3 - t2)));
        CHECK(unlink(f.path) == 0);
        closed(&f);
        free(sent);
        free(back);
    }
}

/* ---- Threads ------------------------------------------------------------------------------------------------ */

struct side {
    pthread_t thread;
    struct cci_openfile *f;
    uint8_t letter;
    cc_error_code code;
    char text[20];
    size_t n;
};

static void *read_it(void *arg)
{
    struct side *s = arg;
    s->code = cci_openfile_read(s->f, s->text, sizeof(s->text), &s->n, w, NULL);
    return NULL;
}

/* A read of a FIFO waits, and holds up neither another file nor a write to the same one; a close ends it. */
static void test_waiting(void)
{
    struct cci_openfile fifo, file, end;
    struct side s = {.f = &fifo};
    CHECK(mkfifo(name_in("fifo"), 0600) == 0);
    CHECK_EQ_INT(opened(&fifo, name_in("fifo"), 0, 0), 0);
    CHECK(pthread_create(&s.thread, NULL, read_it, &s) == 0);
    CHECK_EQ_INT(opened(&file, "/etc/passwd", 0, 0), 0);
    for (int i = 0; i < 50; i++)
        CHECK(reads(&file, 5)[0] != '!');
    closed(&file);
    /* Its first writer comes. */
    CHECK_EQ_INT(opened(&end, fifo.path, CC_O_WRONLY, 0), 0);
    CHECK_EQ_INT(wrote(&end, "abc", 3), 0);
    pthread_join(s.thread, NULL);
    CHECK(s.code == CC_OK && s.n == 3 && memcmp(s.text, "abc", 3) == 0);
    /* The last one goes. */
    CHECK(pthread_create(&s.thread, NULL, read_it, &s) == 0);
    closed(&end);
    pthread_join(s.thread, NULL);
    CHECK(s.code == CC_OK && s.n == 0);
    CHECK_EQ_STR(reads(&fifo, 5), "");
    closed(&fifo);
    /* Nobody comes: the close ends it, wherever the read is by then. */
    for (int i = 0; i < 20; i++) {
        CHECK_EQ_INT(opened(&fifo, name_in("fifo"), CC_O_RDWR, 0), 0);
        CHECK(pthread_create(&s.thread, NULL, read_it, &s) == 0);
        if (i & 1)
            CHECK_EQ_INT(does(&fifo, CCI_MSG_FILE_SYNC, 0), EINVAL);
        CHECK_OK(cci_openfile_close(&fifo, w, &err), err);
        pthread_join(s.thread, NULL);
        CHECK_EQ_INT(s.code, CC_ERR_ALREADY_CLOSED);
        cci_openfile_destroy(&fifo);
    }
    CHECK(unlink(name_in("fifo")) == 0);
}

/* More than a FIFO holds: the write waits for a reader, who gets all of it in order. */
static void *write_much(void *arg)
{
    struct side *s = arg;
    uint8_t *p = pattern(500000);
    s->code = cci_openfile_write(s->f, p, 500000, &s->n, w, NULL);
    free(p);
    return NULL;
}

static void test_full_fifo(void)
{
    struct cci_openfile in, out;
    struct side s = {.f = &out};
    uint8_t *want = pattern(500000), *got = malloc(500000);
    size_t n = 0, k;
    CHECK(mkfifo(name_in("fifo"), 0600) == 0);
    CHECK_EQ_INT(opened(&in, name_in("fifo"), 0, 0), 0);
    CHECK_EQ_INT(opened(&out, in.path, CC_O_WRONLY, 0), 0);
    CHECK(pthread_create(&s.thread, NULL, write_much, &s) == 0);
    while (n < 500000) {
        CHECK_OK(cci_openfile_read(&in, got + n, CCI_MIN((size_t)500000 - n, (size_t)70000), &k, w, &err), err);
        CHECK(k > 0);
        n += k;
    }
    pthread_join(s.thread, NULL);
    CHECK(s.code == CC_OK && s.n == 500000);
    CHECK(memcmp(want, got, n) == 0);
    closed(&in);
    CHECK_EQ_INT(wrote(&out, "x", 1), EPIPE);
    closed(&out);
    CHECK(unlink(name_in("fifo")) == 0);
    free(want);
    free(got);
}

/* Four threads write blocks of their letter to one file; each block comes out whole, and so do reads. */
static void *write_blocks(void *arg)
{
    struct side *s = arg;
    enum { SIZE = 200000 };
    uint8_t *p = malloc(SIZE);
    size_t n;
    memset(p, s->letter, SIZE);
    for (int i = 0; i < 10 && s->code == CC_OK; i++)
        s->code = cci_openfile_write(s->f, p, SIZE, &n, w, NULL);
    free(p);
    return NULL;
}

static void test_threads_on_one(void)
{
    struct cci_openfile f;
    struct side s[4];
    uint8_t *p = malloc(200000);
    size_t n;
    unsigned blocks = 0;
    CHECK_EQ_INT(opened(&f, name_in("f"), CC_O_RDWR | CC_O_CREATE, 0600), 0);
    for (unsigned i = 0; i < 4; i++) {
        s[i] = (struct side){.f = &f, .letter = (uint8_t)('a' + i)};
        CHECK(pthread_create(&s[i].thread, NULL, write_blocks, &s[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(s[i].thread, NULL);
        CHECK_EQ_INT(s[i].code, CC_OK);
    }
    CHECK_EQ_INT(seeks(&f, 0, CC_SEEK_SET), 0);
    for (;;) {
        CHECK_OK(cci_openfile_read(&f, p, 200000, &n, w, &err), err);
        if (n == 0)
            break;
        bool whole = n == 200000;
        for (size_t i = 1; i < n; i++)
            whole = whole && p[i] == p[0];
        CHECK(whole);
        blocks++;
    }
    CHECK_EQ_INT(blocks, 40);
    CHECK(unlink(f.path) == 0);
    closed(&f);
    free(p);
}

/* The process that serves: the child of the one that we started. */
static int agent_pid(void)
{
    char path[80], text[20] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)a.pid, (int)a.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    return atoi(text);
}

static int agent_files(void)
{
    char path[40];
    int n = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", agent_pid());
    DIR *d = opendir(path);
    while (d && readdir(d))
        n++;
    CHECK(d && closedir(d) == 0);
    return n;
}

/* The agent keeps none that was closed; a stale number is an error, and so is one file too many. */
static void test_many(void)
{
    static struct cci_openfile f[100];
    struct cci_openfile stale;
    int before = agent_files();
    for (int i = 0; i < 100; i++)
        CHECK_EQ_INT(opened(&f[i], "/etc/passwd", 0, 0), 0);
    CHECK_EQ_INT(agent_files(), before + 100);
    stale = f[7];
    for (int i = 0; i < 100; i++)
        closed(&f[i]);
    CHECK_EQ_INT(agent_files(), before);
    stale.path = cci_mem_strdup("/stale");
    cci_monitor_init(&stale.monitor);
    stale.closed = false;
    CHECK_EQ_STR(reads(&stale, 1), "!9");
    CHECK_EQ_INT(opened(&f[0], "/etc/passwd", 0, 0), 0);
    CHECK_EQ_STR(reads(&stale, 1), "!9"); /* though its place is taken again */
    closed(&f[0]);
    cci_openfile_destroy(&stale);
    const struct rlimit few = {80, 80};
    CHECK(prlimit(agent_pid(), RLIMIT_NOFILE, &few, NULL) == 0);
    int n = 0, r = 0;
    while (n < 100 && (r = opened(&f[n], "/etc/passwd", 0, 0)) == 0)
        n++;
    CHECK_EQ_INT(r, EMFILE);
    CHECK_EQ_INT(n, 40);
    while (n)
        closed(&f[--n]);
    CHECK_EQ_INT(agent_files(), before);
}

int main(void)
{
    agent_build();
    agent_start(&a, NULL);
    RUN(test_flags);
    RUN(test_position);
    RUN(test_append);
    RUN(test_odd_files);
    RUN(test_large);
    RUN(test_waiting);
    RUN(test_full_fifo);
    RUN(test_threads_on_one);
    RUN(test_many);
    agent_stop(&a);
    agent_clean();
    return check_done();
}
