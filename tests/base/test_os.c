/* The operating system's files and memory, through the interface of base/os.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/base/os.h"
#include "../check.h"

static char dir[256];

static const char *in_dir(const char *name)
{
    static char path[4][600];
    static unsigned next;
    char *p = path[next++ % 4];
    (void)snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

static void test_files(void)
{
    cci_fd fd = cci_os_open(in_dir("a"), CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_EXCL, 0640);
    CHECK(fd >= 0);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_EQ_INT(cci_os_open(in_dir("a"), CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_EXCL, 0640), -EEXIST);
    CHECK_EQ_INT(cci_os_open(in_dir("none"), CCI_OS_RDONLY, 0), -ENOENT);
    CHECK_EQ_INT(cci_os_write_all(fd, "hello world", 11), 0);
    CHECK_EQ_INT(cci_os_pwrite_all(fd, "W", 1, 6), 0);
    char buf[32] = "";
    CHECK_EQ_INT(cci_os_pread_all(fd, buf, sizeof(buf), 6), 5);
    CHECK_EQ_STR(buf, "World");
    char x[3] = "", y[9] = "";
    struct cci_iovec iov[2] = {{x, 2}, {y, 8}};
    CHECK_EQ_INT(cci_os_preadv(fd, iov, 2, 1, 0), 10);
    CHECK_EQ_STR(x, "el");
    CHECK_EQ_STR(y, "lo World");
    CHECK_EQ_INT(cci_os_truncate(fd, 1 << 20), 0);
    struct cci_os_stat st;
    CHECK_EQ_INT(cci_os_fstat(fd, &st), 0);
    CHECK(st.kind == CCI_OS_FILE && st.size == 1 << 20 && st.mode == 0640);
    CHECK(st.allocated < st.size);
    CHECK_EQ_INT(cci_os_punch_hole(fd, 0, 4096), 0);
    CHECK_EQ_INT(cci_os_pread_all(fd, buf, 5, 0), 5);
    CHECK(buf[0] == 0);
    cci_os_close(fd);
    CHECK_EQ_INT(cci_os_rename(in_dir("a"), in_dir("b")), 0);
    CHECK_EQ_INT(cci_os_stat(in_dir("a"), &st), -ENOENT);
    CHECK_EQ_INT(cci_os_unlink(in_dir("b")), 0);
}

static int count_names(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static int stop_at_once(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    return 42;
}

static void test_directories(void)
{
    CHECK_EQ_INT(cci_os_mkdir_all(in_dir("x/y/z"), 0755), 0);
    CHECK_EQ_INT(cci_os_mkdir_all(in_dir("x/y/z"), 0755), 0);
    for (int i = 0; i < 500; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "x/y/a-rather-long-name-%d", i);
        cci_os_close(cci_os_open(in_dir(name), CCI_OS_WRONLY | CCI_OS_CREATE, 0600));
    }
    int n = 0;
    CHECK_EQ_INT(cci_os_read_dir(in_dir("x/y"), count_names, &n), 0);
    CHECK_EQ_INT(n, 501);
    CHECK_EQ_INT(cci_os_read_dir(in_dir("x/y"), stop_at_once, NULL), 42);
    CHECK_EQ_INT(cci_os_read_dir(in_dir("nothing"), count_names, &n), -ENOENT);
    CHECK_EQ_INT(cci_os_mkdir_all(in_dir("x/y/a-rather-long-name-1/q"), 0755), -ENOTDIR);
    CHECK_EQ_INT(cci_os_rmdir(in_dir("x")), -ENOTEMPTY);
    CHECK_EQ_INT(cci_os_sync_dir(in_dir("x")), 0);
}

static void test_lock_excludes_other_processes(void)
{
    cci_fd fd = cci_os_open(in_dir("lock"), CCI_OS_RDWR | CCI_OS_CREATE, 0600);
    CHECK_EQ_INT(cci_os_flock(fd, CCI_OS_LOCK_EXCLUSIVE, true), 0);
    pid_t child = fork();
    if (child == 0) {
        cci_fd other = cci_os_open(in_dir("lock"), CCI_OS_RDWR, 0);
        _exit(cci_os_flock(other, CCI_OS_LOCK_SHARED, false) == -EWOULDBLOCK ? 7 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    cci_os_close(fd);
}

static void test_tmpfile_has_no_name(void)
{
    CHECK_EQ_INT(cci_os_mkdir(in_dir("t"), 0700), 0);
    cci_fd fd = cci_os_tmpfile(in_dir("t"));
    CHECK(fd >= 0);
    CHECK_EQ_INT(cci_os_write_all(fd, "x", 1), 0);
    int n = 0;
    CHECK_EQ_INT(cci_os_read_dir(in_dir("t"), count_names, &n), 0);
    CHECK_EQ_INT(n, 0);
    cci_os_close(fd);
    CHECK_EQ_INT(cci_os_tmpfile(in_dir("nowhere")), -ENOENT);
}

static void test_ram(void)
{
    size_t size = (size_t)64 << 20;
    uint8_t *p = cci_os_ram_map(size);
    CHECK(p && ((uintptr_t)p & (CCI_OS_HUGE_PAGE - 1)) == 0);
    p[0] = p[size - 1] = 1;
    CHECK_EQ_INT(cci_os_ram_discard(p, 4096), 0);
    CHECK(p[0] == 0 && p[size - 1] == 1);
    cci_os_ram_unmap(p, size);
    CHECK(!cci_os_ram_map(SIZE_MAX - 4095));
}

static void test_clock_and_random(void)
{
    uint64_t a = cci_os_now(), r1 = 0, r2 = 0;
    CHECK(cci_os_now() >= a && a > 0);
    CHECK(cci_os_realtime() > (uint64_t)1700000000 * 1000000000);
    CHECK(cci_os_random(&r1, sizeof(r1)) == 0 && cci_os_random(&r2, sizeof(r2)) == 0 && r1 != r2);
    CHECK(cci_os_cpu_count() >= 1);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/cc-os-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return 2;
    RUN(test_files);
    RUN(test_directories);
    RUN(test_lock_excludes_other_processes);
    RUN(test_tmpfile_has_no_name);
    RUN(test_ram);
    RUN(test_clock_and_random);
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) == 0 ? check_done() : 2;
}
