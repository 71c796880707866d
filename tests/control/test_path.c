/* Files by path through the real agent, over a Unix socket.
 * @timeout 120
 * @sanitize address,undefined
 */
#include "agent.h"

#include <sys/statvfs.h>

#include "../../src/control/listing.h"

static struct agent a;
static const struct cci_wait *const w = &agent_forever;

#include "fs_do.h"

static const char *name_in(const char *name)
{
    static char path[2][400];
    static unsigned turn;
    turn ^= 1;
    (void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", a.dir, name);
    return path[turn];
}

static void test_cases(void)
{
    fs_run_cases(a.dir);
}

static void test_both_names(void)
{
    cc_error err = {0};
    const struct cci_path_request r = {CCI_MSG_RENAME, "/no/one", "/no/two", 0, {0}};
    CHECK_EQ_INT(cci_path_do(a.ctl, &r, w, &err), CC_ERR_IO);
    CHECK_EQ_STR(err.message, "/no/one -> /no/two: no such file or directory");
    CHECK_EQ_STR(err.path, "/no/one");
    cci_error_release(&err);
}

static void test_owner_and_times(void)
{
    cc_error err = {0};
    struct stat st;
    const char *path = name_in("f");
    CHECK_OK(cci_file_write(a.ctl, path, "x", 1, 0600, w, &err), err);
    if (geteuid() == 0) {
        const struct cci_path_request uid = {CCI_MSG_CHOWN, path, NULL, 2, {12, 0xffffffff}};
        const struct cci_path_request gid = {CCI_MSG_CHOWN, path, NULL, 2, {0xffffffff, 34}};
        CHECK_OK(cci_path_do(a.ctl, &uid, w, &err), err);
        CHECK_OK(cci_path_do(a.ctl, &gid, w, &err), err);
        CHECK(stat(path, &st) == 0 && st.st_uid == 12 && st.st_gid == 34);
    }
    const struct cci_path_request times = {CCI_MSG_CHTIMES, path, NULL, 4, {(uint64_t)-5, 7, 4000000000u, 999999999}};
    CHECK_OK(cci_path_do(a.ctl, &times, w, &err), err);
    CHECK(stat(path, &st) == 0);
    CHECK_EQ_INT(st.st_atim.tv_sec, -5);
    CHECK_EQ_INT(st.st_atim.tv_nsec, 7);
    CHECK_EQ_INT(st.st_mtim.tv_sec, 4000000000);
    CHECK_EQ_INT(st.st_mtim.tv_nsec, 999999999);
    CHECK(unlink(path) == 0);
}

static void test_statfs(void)
{
    cc_error err = {0};
    struct statvfs fs;
    uint64_t n[9];
    const struct cci_path_request r = {CCI_MSG_STATFS, a.dir, NULL, 0, {0}};
    CHECK_OK(cci_path_ask(a.ctl, &r, n, 9, w, &err), err);
    CHECK(statvfs(a.dir, &fs) == 0);
    CHECK_EQ_INT(n[1], fs.f_bsize);
    CHECK_EQ_INT(n[2], fs.f_blocks);
    CHECK_EQ_INT(n[5], fs.f_files);
    CHECK_EQ_INT(n[7], fs.f_namemax);
}

/* A tree deeper than descriptors are kept open, and wider than one buffer; remove_all takes it away and nothing else.
 * The agent answers others meanwhile. */
static void test_remove_all_deep(void)
{
    char name[40], script[900];
    cc_error err = {0};
    struct cci_file_stat st;
    CHECK(mkdir(name_in("outside"), 0700) == 0 && mkdir(name_in("outside/x"), 0700) == 0);
    (void)snprintf(script, sizeof(script),
                   "cd %s && mkdir t && cd t && for i in $(seq 150); do mkdir d && touch a b && ln -s %s/outside l && "
                   "cd d; done; touch last",
                   a.dir, a.dir);
    CHECK(system(script) == 0);
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof(name), "t/file-%d", i);
        int fd = open(name_in(name), O_CREAT | O_WRONLY, 0600);
        CHECK(fd >= 0);
        close(fd);
    }
    CHECK_EQ_INT(ask(CCI_MSG_REMOVE_ALL, name_in("t"), NULL, 0, &err), 0);
    CHECK(access(name_in("t"), F_OK) != 0);
    CHECK(access(name_in("outside/x"), F_OK) == 0);
    CHECK(rmdir(name_in("outside/x")) == 0 && rmdir(name_in("outside")) == 0);
    CHECK_OK(cci_file_stat(a.ctl, "/", false, &st, w, &err), err);
}

/* Directories of all sizes about the limits, there and sorted; some entries are not files. */
static void test_read_dir(void)
{
    static const size_t sizes[] = {0, 1, 500, 600, 2000, 3000, 100000};
    char name[300];
    cc_error err = {0};
    cc_dir_entry *e;
    size_t n;
    for (size_t i = 0; i < CCI_COUNT(sizes); i++) {
        CHECK(mkdir(name_in("many"), 0700) == 0);
        int dir = open(name_in("many"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (size_t k = 0; k < sizes[i]; k++) {
            (void)snprintf(name, sizeof(name), "%06zu-\n\xff", k * 7919 % 100003);
            CHECK(k % 50 ? mknodat(dir, name, S_IFREG | 0640, 0) == 0 : mkdirat(dir, name, 0711) == 0);
        }
        close(dir);
        uint64_t t0 = cci_os_now();
        CHECK_OK(cci_listing_read(a.ctl, name_in("many"), &e, &n, w, &err), err);
        if (n == 100000)
            printf("# read_dir of 100000: %llu ms\n", (unsigned long long)(cci_os_now() - t0) / 1000000);
        CHECK_EQ_INT(n, sizes[i]);
        size_t dirs = 0, wrong = 0;
        for (size_t k = 0; k < n; k++) {
            dirs += e[k].is_dir;
            wrong += k && strcmp(e[k - 1].name, e[k].name) >= 0;
            wrong += e[k].mode != (e[k].is_dir ? 0040711u : 0100640u) || strlen(e[k].name) != 9;
        }
        CHECK_EQ_INT(dirs, (sizes[i] + 49) / 50);
        CHECK_EQ_INT(wrong, 0);
        cci_listing_free(e, n);
        CHECK_EQ_INT(ask(CCI_MSG_REMOVE_ALL, name_in("many"), NULL, 0, &err), 0);
    }
    /* The longest names there are, enough of them for a stream. */
    CHECK(mkdir(name_in("many"), 0700) == 0);
    for (int k = 0; k < 700; k++) {
        (void)snprintf(name, sizeof(name), "many/%03d%0252d", k, 0);
        CHECK(mkdir(name_in(name), 0700) == 0);
    }
    CHECK_OK(cci_listing_read(a.ctl, name_in("many"), &e, &n, w, &err), err);
    CHECK(n == 700 && strlen(e[699].name) == 255);
    cci_listing_free(e, n);
    CHECK_EQ_INT(ask(CCI_MSG_REMOVE_ALL, name_in("many"), NULL, 0, &err), 0);
    CHECK_EQ_INT(cci_listing_read(a.ctl, "/no/such", &e, &n, w, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ENOENT);
    CHECK_EQ_INT(cci_listing_read(a.ctl, "/etc/passwd", &e, &n, w, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ENOTDIR);
    cci_error_release(&err);
}

int main(void)
{
    agent_build();
    agent_start(&a, NULL);
    RUN(test_cases);
    RUN(test_both_names);
    RUN(test_owner_and_times);
    RUN(test_statfs);
    RUN(test_remove_all_deep);
    RUN(test_read_dir);
    agent_stop(&a);
    agent_clean();
    return check_done();
}
