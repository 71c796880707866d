/* File systems that may keep one waiting: one that a program serves, and one whose program never answers.
 * @root
 * @timeout 60
 * @sanitize address,undefined
 */
#include "agent.h"

#include <pthread.h>

#include "../../src/control/listing.h"
#include "../../src/control/openfile.h"
#include "../../src/control/watch.h"
#include "../scratch.h"
#include "../share/fuse_mount.h"

static struct agent a;
static const struct cci_wait *const w = &agent_forever;

#include "fs_do.h"

static cc_error err;
static char top[64], host[80], at[80], hung[80];
static struct fuse_mount served;
static int hung_fd;

static void test_cases(void)
{
    fs_run_cases(at);
}

/* Whole files about the limits, and what is no regular file. */
static void test_whole_files(void)
{
    static const size_t sizes[] = {0, 1, 65536, 65537, 131072, 3000000};
    char path[120];
    cc_dir_entry *e;
    uint8_t *got;
    size_t n;
    (void)snprintf(path, sizeof(path), "%s/f", at);
    for (size_t i = 0; i < CCI_COUNT(sizes); i++) {
        uint8_t *p = malloc(sizes[i] + 1);
        for (size_t k = 0; k < sizes[i]; k++)
            p[k] = (uint8_t)(k * 2654435761u >> 13);
        CHECK_OK(cci_file_write(a.ctl, path, p, sizes[i], 0640, w, &err), err);
        CHECK_OK(cci_file_read(a.ctl, path, 0, &got, &n, w, &err), err);
        CHECK(n == sizes[i] && memcmp(got, p, n) == 0);
        cci_mem_free(got);
        free(p);
    }
    CHECK_OK(cci_listing_read(a.ctl, at, &e, &n, w, &err), err);
    CHECK(n == 1 && strcmp(e[0].name, "f") == 0);
    cci_listing_free(e, n);
    CHECK_EQ_INT(cci_file_read(a.ctl, at, 0, &got, &n, w, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, EISDIR);
    CHECK_EQ_INT(cci_file_read(a.ctl, "/no/such", 0, &got, &n, w, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ENOENT);
    CHECK_EQ_INT(cci_file_write(a.ctl, "/dev/full", at, 70, 0, w, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ENOSPC);
    cci_error_release(&err);
    CHECK_OK(cci_file_read(a.ctl, "/dev/null", 0, &got, &n, w, &err), err);
    CHECK_EQ_INT(n, 0);
    cci_mem_free(got);
}

/* An open file: long transfers in pieces keep their order though workers do them. */
static void test_open_file(void)
{
    enum { SIZE = 2000000 };
    uint8_t *out = malloc(SIZE), *in = malloc(SIZE);
    char path[120];
    struct cci_openfile f;
    uint64_t position;
    size_t n;
    for (size_t k = 0; k < SIZE; k++)
        out[k] = (uint8_t)(k * 2654435761u >> 13);
    (void)snprintf(path, sizeof(path), "%s/g", at);
    CHECK_OK(cci_openfile_open(&f, a.ctl, path, CC_O_RDWR | CC_O_CREATE, 0600, w, &err), err);
    CHECK_OK(cci_openfile_write(&f, out, SIZE, &n, w, &err), err);
    CHECK_OK(cci_openfile_seek(&f, 0, CC_SEEK_SET, &position, w, &err), err);
    CHECK_OK(cci_openfile_read(&f, in, SIZE, &n, w, &err), err);
    CHECK(n == SIZE && memcmp(in, out, SIZE) == 0);
    CHECK_OK(cci_openfile_read(&f, in, SIZE, &n, w, &err), err);
    CHECK_EQ_INT(n, 0);
    CHECK_OK(cci_openfile_do(&f, CCI_MSG_FILE_SYNC, 0, w, &err), err);
    CHECK_OK(cci_openfile_do(&f, CCI_MSG_FILE_TRUNCATE, 3, w, &err), err);
    CHECK_OK(cci_openfile_close(&f, w, &err), err);
    cci_openfile_destroy(&f);
    struct cci_file_stat st;
    CHECK_OK(cci_file_stat(a.ctl, path, false, &st, w, &err), err);
    CHECK_EQ_INT(st.size, 3);
    free(out);
    free(in);
}

/* Nobody answers: those calls wait, and no other. */
static void test_hung(void)
{
    struct cci_file_stat st;
    cc_dir_entry *e;
    uint8_t *got;
    size_t n;
    char path[120];
    (void)snprintf(path, sizeof(path), "%s/x", hung);
    for (int i = 0; i < 5; i++) {
        const struct cci_wait brief = {cci_os_now() + 20000000, NULL};
        CHECK_EQ_INT(cci_file_stat(a.ctl, path, false, &st, &brief, &err), CC_ERR_TIMEOUT);
        CHECK_EQ_INT(cci_file_read(a.ctl, path, 0, &got, &n, &brief, &err), CC_ERR_TIMEOUT);
        CHECK_EQ_INT(cci_file_write(a.ctl, path, "x", 1, 0600, &brief, &err), CC_ERR_TIMEOUT);
        CHECK_EQ_INT(cci_listing_read(a.ctl, hung, &e, &n, &brief, &err), CC_ERR_TIMEOUT);
        cci_error_release(&err);
        CHECK_OK(cci_file_stat(a.ctl, "/etc", false, &st, w, &err), err);
        CHECK_OK(cci_file_read(a.ctl, "/etc/passwd", 0, &got, &n, w, &err), err);
        cci_mem_free(got);
    }
}

/* Runs a program there; the error, or 0, with its exit code. */
static int run_in(const char *dir, const char *program, const struct cci_wait *wait, int *code)
{
    const char *const argv[] = {program};
    const char *const env[] = {"PATH=.:/bin:/usr/bin"};
    struct cci_exec_spec s = {.argv = argv, .argc = 1, .env = env, .envc = 1, .dir = dir};
    struct cci_exec *e;
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    int result = (int)cci_exec_wait(e, wait, code, &err);
    if (result == CC_ERR_IO)
        result = err.sys_errno;
    cci_error_release(&err);
    cci_exec_free(e);
    return result;
}

/* Commands there are found, started and refused as elsewhere. */
static void test_commands(void)
{
    char path[120];
    int code = -1;
    (void)snprintf(path, sizeof(path), "%s/say", at);
    CHECK_OK(cci_file_write(a.ctl, path, "#!/bin/sh\nexit 7\n", 17, 0755, w, &err), err);
    CHECK(run_in(at, "say", w, &code) == 0 && code == 7);
    CHECK(run_in(at, "./say", w, &code) == 0 && code == 7);
    CHECK(run_in("/", path, w, &code) == 0 && code == 7);
    CHECK(run_in("", "true", w, &code) == 0 && code == 0);
    CHECK_EQ_INT(run_in(at, "./said", w, &code), ENOENT);
    CHECK_EQ_INT(run_in("/", "say", w, &code), ENOENT);
    CHECK_EQ_INT(run_in(path, "true", w, &code), ENOTDIR);
    CHECK_EQ_INT(chmod(path, 0644), 0);
    CHECK_EQ_INT(run_in(at, "say", w, &code), EACCES);
}

/* Many calls that nobody answers use up neither the workers nor the loop. */
static void test_many_hung(void)
{
    struct cci_file_stat st;
    struct cci_watch watch;
    cc_dir_entry *e;
    char path[120];
    size_t n;
    int code = -1;
    (void)snprintf(path, sizeof(path), "%s/x", hung);
    for (int i = 0; i < 100; i++) {
        const struct cci_wait brief = {cci_os_now() + 1000000, NULL};
        CHECK_EQ_INT(cci_file_stat(a.ctl, path, false, &st, &brief, &err), CC_ERR_TIMEOUT);
        cci_error_release(&err);
    }
    const struct cci_wait brief = {cci_os_now() + 50000000, NULL};
    CHECK_EQ_INT(cci_watch_open(&watch, a.ctl, path, &brief, &err), CC_ERR_TIMEOUT);
    cci_error_release(&err);
    CHECK_EQ_INT(run_in(path, "true", &brief, &code), CC_ERR_TIMEOUT);
    CHECK_EQ_INT(run_in("/", path, &brief, &code), CC_ERR_TIMEOUT);
    const struct cci_wait soon = {cci_os_now() + 10000000000u, NULL};
    CHECK_OK(cci_file_stat(a.ctl, "/etc", false, &st, &soon, &err), err);
    CHECK_OK(cci_listing_read(a.ctl, "/etc", &e, &n, &soon, &err), err);
    cci_listing_free(e, n);
    CHECK(run_in("/tmp", "true", &soon, &code) == 0 && code == 0);
}

/* One that is killed before it could be started is not started. */
static void test_killed_early(void)
{
    char path[120];
    const char *const argv[] = {path};
    struct cci_exec_spec s = {.argv = argv, .argc = 1};
    const struct cci_wait soon = {cci_os_now() + 10000000000u, NULL};
    struct cci_exec *e;
    int code = -1;
    (void)snprintf(path, sizeof(path), "%s/x", hung);
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    CHECK_EQ_INT(cci_exec_signal(e, SIGTERM, &soon, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ESRCH);
    CHECK_OK(cci_exec_signal(e, SIGKILL, &soon, &err), err);
    close(hung_fd); /* what waited is answered */
    hung_fd = -1;
    CHECK_OK(cci_exec_wait(e, &soon, &code, &err), err);
    CHECK_EQ_INT(code, 128 + SIGKILL);
    cci_exec_free(e);
}

static int prepare(void)
{
    struct cci_share_config config = {0};
    scratch_make(top, sizeof(top), "slow");
    (void)snprintf(host, sizeof(host), "%s/host", top);
    (void)snprintf(at, sizeof(at), "%s/at", top);
    (void)snprintf(hung, sizeof(hung), "%s/hung", top);
    CHECK(mkdir(host, 0755) == 0 && mkdir(at, 0755) == 0 && mkdir(hung, 0755) == 0);
    config.host_path = host;
    config.identity = true;
    config.writable = true;
    return fuse_mount_begin(&served, &config, at);
}

int main(void)
{
    char options[80];
    (void)umask(0);
    if (prepare() != 0) {
        SKIP(test_slow, "no /dev/fuse here");
        return check_done();
    }
    hung_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", hung_fd);
    CHECK(hung_fd >= 0 && mount("hung", hung, "fuse", 0, options) == 0);
    agent_build();
    agent_start(&a, NULL);
    RUN(test_cases);
    RUN(test_whole_files);
    RUN(test_open_file);
    RUN(test_commands);
    RUN(test_hung);
    RUN(test_many_hung);
    RUN(test_killed_early);
    agent_stop(&a);
    agent_clean();
    fuse_mount_end(&served);
    (void)umount(hung);
    scratch_remove(top);
    return check_done();
}
