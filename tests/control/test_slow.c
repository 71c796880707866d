/* File systems that may keep one waiting: one that a program serves, and one whose program never answers.
 * @root
 * @timeout 60
 * @sanitize address,undefined
 */
#include "agent.h"

#include <pthread.h>

#include "../../src/control/listing.h"
#include "../../src/control/openfile.h"
#include "../share/fuse_mount.h"

static struct agent a;
static const struct cci_wait *const w = &agent_forever;

#include "fs_do.h"

static cc_error err;
static char top[64], host[80], at[80], hung[80];
static struct fuse_mount served;

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

static int prepare(void)
{
    struct cci_share_config config = {0};
    (void)snprintf(top, sizeof(top), "/tmp/cc-slow-XXXXXX");
    CHECK(mkdtemp(top) != NULL);
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
    char command[200], options[80];
    (void)umask(0);
    if (prepare() != 0) {
        SKIP(test_slow, "no /dev/fuse here");
        return check_done();
    }
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    CHECK(fd >= 0 && mount("hung", hung, "fuse", 0, options) == 0);
    agent_build();
    agent_start(&a, NULL);
    RUN(test_cases);
    RUN(test_whole_files);
    RUN(test_open_file);
    RUN(test_hung);
    close(fd); /* what waited is answered */
    agent_stop(&a);
    agent_clean();
    fuse_mount_end(&served);
    (void)snprintf(command, sizeof(command), "umount %s; rm -rf %s", hung, top);
    CHECK(system(command) == 0);
    return check_done();
}
