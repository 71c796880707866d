/*
 * Files in a guest through the public calls: the table of tests/fs_cases.h, open files, directories.
 * @vm
 * @one-cpu
 * @timeout 150
 * @kernel own
 * @sanitize none
 * @sanitize address,undefined
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <pthread.h>
#include <unistd.h>

#include "../fs_cases.h"
#include "guest_sh.h"

static cc_oci_client client;
static cc_instance_source source;
static cc_instance vm;
static cc_error err;
static int code;

static const char *sh(const char *script)
{
    return guest_sh(vm, script, &code);
}

/* The error number of a call, which must name itself and the path. */
static int outcome(cc_error_code got, const char *op, const char *path)
{
    int n = got == CC_OK ? 0 : err.sys_errno ? err.sys_errno : -1;
    if (got) {
        CHECK_EQ_STR(err.op, op);
        CHECK_EQ_STR(err.path, path);
    }
    cc_error_free(&err);
    return n;
}

static int is_text(const char *got, const char *want)
{
    return strcmp(got, want) == 0 ? 0 : -1;
}

static int fs_do(const struct fs_case *c, const char *a, const char *b)
{
    cc_file_info info;
    uint8_t *bytes;
    size_t len;
    char *target;
    int r;
    switch (c->op) {
    case FS_WRITE:
        return outcome(cc_fs_write_file(vm, a, (const uint8_t *)c->text, strlen(c->text), c->n, &err), "write_file", a);
    case FS_READ:
        r = outcome(cc_fs_read_file(vm, a, &bytes, &len, &err), "read_file", a);
        r = r ? r : is_text((char *)bytes, c->text);
        cc_free_bytes(bytes);
        return r;
    case FS_REMOVE:
        return outcome(cc_fs_remove(vm, a, &err), "remove", a);
    case FS_REMOVE_ALL:
        return outcome(cc_fs_remove_all(vm, a, &err), "remove_all", a);
    case FS_MKDIR:
        return outcome(cc_fs_mkdir(vm, a, c->n, &err), "mkdir", a);
    case FS_MKDIR_ALL:
        return outcome(cc_fs_mkdir_all(vm, a, c->n, &err), "mkdir_all", a);
    case FS_RENAME:
        return outcome(cc_fs_rename(vm, a, b, &err), "rename", a);
    case FS_SYMLINK:
        return outcome(cc_fs_symlink(vm, a, b, &err), "symlink", a);
    case FS_READLINK:
        r = outcome(cc_fs_readlink(vm, a, &target, &err), "readlink", a);
        r = r ? r : is_text(target, c->text);
        cc_free_string(target);
        return r;
    case FS_CHMOD:
        return outcome(cc_fs_chmod(vm, a, c->n, &err), "chmod", a);
    default:
        r = c->op == FS_STAT ? outcome(cc_fs_stat(vm, a, &info, &err), "stat", a)
                             : outcome(cc_fs_lstat(vm, a, &info, &err), "lstat", a);
        r = r ? r : info.mode == c->n ? 0 : -1;
        cc_file_info_free(&info);
        return r;
    }
}

static void test_boot(void)
{
    CHECK_OK(cc_supports_hypervisor(&err), err);
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    CHECK_OK(cc_instance_new(source, NULL, &vm, &err), err);
}

static void test_cases(void)
{
    CHECK_OK(cc_fs_mkdir(vm, "/cases", 0777, &err), err);
    fs_run_cases("/cases");
    CHECK_OK(cc_fs_remove_all(vm, "cases", &err), err); /* from the root */
    CHECK_EQ_STR(sh("ls -d /cases 2>/dev/null"), "");
}

static void test_owner_times_and_space(void)
{
    cc_fs_info info;
    cc_file_info st;
    CHECK_OK(cc_fs_write_file(vm, "/f", (const uint8_t *)"x", 1, 0644, &err), err);
    CHECK_OK(cc_fs_chown(vm, "/f", 12, -1, &err), err);
    CHECK_OK(cc_fs_chown(vm, "/f", -1, 34, &err), err);
    CHECK_EQ_INT(cc_fs_chown(vm, "/f", -2, 0, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cc_fs_chmod(vm, "/f", 0100644, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_OK(cc_fs_chtimes(vm, "/f", 1000, 2000000000, &err), err);
    CHECK_EQ_STR(sh("stat -c '%u %g %X %Y' /f"), "12 34 1000 2000000000\n");
    CHECK_OK(cc_fs_stat(vm, "/f", &st, &err), err);
    CHECK(st.mod_time_unix == 2000000000 && st.size == 1 && !st.is_dir && strcmp(st.name, "f") == 0);
    cc_file_info_free(&st);
    CHECK_OK(cc_fs_statfs(vm, "/", &info, &err), err);
    CHECK(info.type == 0x794c7630 && info.name_max == 255 && !info.read_only); /* overlayfs */
    CHECK(info.blocks * info.block_size > (uint64_t)8 << 30 && info.blocks_available <= info.blocks);
    CHECK_EQ_INT(cc_fs_statfs(vm, "/no", &info, NULL), CC_ERR_IO);
    CHECK_OK(cc_fs_remove(vm, "/f", &err), err);
}

static void test_open_file(void)
{
    uint8_t buf[200];
    cc_file_info st;
    cc_file f;
    size_t n;
    int64_t at;
    CHECK_OK(cc_fs_create(vm, "/tmp/open", &f, &err), err);
    CHECK_EQ_STR(sh("stat -c %a /tmp/open"), "666\n");
    CHECK_OK(cc_file_write(f, (const uint8_t *)"hello world", 11, &n, &err), err);
    CHECK_EQ_INT(n, 11);
    CHECK_OK(cc_file_seek(f, -5, CC_SEEK_END, &at, &err), err);
    CHECK_EQ_INT(at, 6);
    CHECK_OK(cc_file_read(f, buf, sizeof(buf), &n, &err), err);
    CHECK(n == 5 && memcmp(buf, "world", 5) == 0);
    CHECK_OK(cc_file_read(f, buf, sizeof(buf), &n, &err), err);
    CHECK_EQ_INT(n, 0);
    CHECK_OK(cc_file_truncate(f, 5, &err), err);
    CHECK_OK(cc_file_sync(f, &err), err);
    CHECK_OK(cc_file_stat(f, &st, &err), err);
    CHECK(st.size == 5 && strcmp(st.name, "open") == 0 && st.mode == 0100666);
    cc_file_info_free(&st);
    char *name = cc_file_name(f);
    CHECK_EQ_STR(name, "/tmp/open");
    cc_free_string(name);
    CHECK_EQ_INT(cc_file_seek(f, 0, (cc_seek_whence)3, NULL, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(outcome(cc_file_seek(f, -1, CC_SEEK_SET, &at, &err), "seek", "/tmp/open"), 22);
    CHECK_OK(cc_file_close(f, &err), err);
    CHECK_EQ_INT(cc_file_close(f, NULL), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(cc_file_read(f, buf, 1, &n, NULL), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(cc_file_read(vm, buf, 1, &n, NULL), CC_ERR_INVALID_HANDLE);
    CHECK(!cc_file_name(f));
    CHECK_EQ_INT(outcome(cc_fs_open(vm, "/no/file", &f, &err), "open", "/no/file"), 2);
    CHECK_EQ_INT(f, 0);
    CHECK_EQ_INT(cc_fs_open_file(vm, "/x", 3, 0, &f, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cc_fs_open_file(vm, "/x", 0x4000, 0, &f, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cc_fs_open_file(vm, "/x", CC_O_CREATE, 010000, &f, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(outcome(cc_fs_open_file(vm, "/tmp/open", CC_O_WRONLY | CC_O_CREATE | CC_O_EXCL, 0600, &f, &err),
                         "open_file", "/tmp/open"),
                 17);
    CHECK_OK(cc_fs_remove(vm, "/tmp/open", &err), err);
}

/* 8 MiB through an open file, and beyond 4 GiB. */
static void test_large(void)
{
    const size_t size = 8 << 20;
    uint8_t *out = malloc(size), *in = malloc(size);
    cc_file f;
    size_t n;
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(i * 2654435761u >> 21);
    CHECK_OK(cc_fs_create(vm, "/big", &f, &err), err);
    CHECK_OK(cc_file_seek(f, (int64_t)5 << 30, CC_SEEK_SET, NULL, &err), err);
    uint64_t t0 = cci_os_now();
    CHECK_OK(cc_file_write(f, out, size, &n, &err), err);
    uint64_t t1 = cci_os_now();
    CHECK_EQ_INT(n, size);
    CHECK_OK(cc_file_seek(f, (int64_t)5 << 30, CC_SEEK_SET, NULL, &err), err);
    uint64_t t2 = cci_os_now();
    CHECK_OK(cc_file_read(f, in, size, &n, &err), err);
    printf("# 8 MiB: write %llu MB/s, read %llu MB/s\n", (unsigned long long)(size * 1000u / (t1 - t0)),
           (unsigned long long)(size * 1000u / (cci_os_now() - t2)));
    CHECK(n == size && memcmp(in, out, size) == 0);
    CHECK_EQ_STR(sh("stat -c %s /big; rm /big"), "5377097728\n");
    CHECK_OK(cc_file_close(f, &err), err);
    free(out);
    free(in);
}

static void test_read_dir(void)
{
    cc_dir_entry *e;
    size_t n, wrong = 0;
    (void)sh("mkdir /d && cd /d && i=0; while [ $i -lt 3000 ]; do : > f$i; i=$((i+1)); done; mkdir a; ln -s a z");
    CHECK_OK(cc_fs_read_dir(vm, "/d", &e, &n, &err), err);
    CHECK_EQ_INT(n, 3002);
    for (size_t i = 1; i < n; i++)
        wrong += strcmp(e[i - 1].name, e[i].name) >= 0;
    CHECK_EQ_INT(wrong, 0);
    CHECK(strcmp(e[0].name, "a") == 0 && e[0].is_dir && strcmp(e[n - 1].name, "z") == 0 && !e[n - 1].is_dir);
    cc_dir_entries_free(e, n);
    cc_dir_entries_free(NULL, 0);
    CHECK_OK(cc_fs_remove_all(vm, "/d", &err), err);
    CHECK_EQ_INT(outcome(cc_fs_read_dir(vm, "/d", &e, &n, &err), "read_dir", "/d"), 2);
    CHECK(!e && n == 0);
}

static void told(const cc_copy_progress *p, void *user_data)
{
    cc_copy_progress *last = user_data;
    CHECK(p->bytes >= last->bytes && p->path);
    *last = *p;
    last->path = NULL;
}

/* A tree into the guest, changed there, and out again. */
static void test_copies(void)
{
    char dir[] = "/tmp/cc-copy-XXXXXX", path[400];
    cc_copy_progress last = {0};
    cc_copy_options o = {0};
    cc_cancel_token token;
    CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof(path),
                   "cd %s && mkdir -p t/sub && echo hello >t/f && ln t/f t/sub/hard && ln -s ../f t/sub/l && "
                   "head -c 3000000 /dev/urandom >t/big && chmod 750 t/sub && chmod 4711 t/f",
                   dir);
    CHECK(system(path) == 0);
    o.progress = told;
    o.user_data = &last;
    (void)snprintf(path, sizeof(path), "%s/t", dir);
    CHECK_OK(cc_fs_copy_in(vm, path, "/srv", &o, &err), err);
    CHECK(last.bytes == 3000006 && last.entries == 6 && last.skipped == 0);
    CHECK_EQ_STR(sh("cd /srv; stat -c '%a %u %g %h' f sub; readlink sub/l; cat sub/hard; md5sum <big >big.md5"),
                 "711 0 0 2\n750 0 0 2\n../f\nhello\n");
    CHECK_EQ_INT(code, 0);
    (void)snprintf(path, sizeof(path), "%s/back", dir);
    CHECK_OK(cc_fs_copy_out(vm, "/srv/.", path, NULL, &err), err);
    (void)snprintf(
        path, sizeof(path),
        "cd %s && [ \"$(cat back/big.md5)\" = \"$(md5sum <back/big)\" ] && rm back/big.md5 && diff -r t back && "
        "[ $(stat -c %%h back/f) = 2 ]",
        dir);
    CHECK(system(path) == 0);
    CHECK_EQ_INT(outcome(cc_fs_copy_out(vm, "/no/such", dir, NULL, &err), "copy_out", "/no/such"), 2);
    CHECK_EQ_INT(outcome(cc_fs_copy_in(vm, dir, "/no/such/place", NULL, &err), "copy_in", "/no/such/place"), 2);
    CHECK_EQ_INT(cc_fs_copy_in(vm, NULL, "/x", NULL, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    CHECK_OK(cc_cancel_token_cancel(token, &err), err);
    o = (cc_copy_options){0};
    o.cancel = token;
    CHECK_EQ_INT(cc_fs_copy_out(vm, "/srv", dir, &o, NULL), CC_ERR_CANCELLED);
    cc_cancel_token_free(token);
    (void)snprintf(path, sizeof(path), "rm -rf %s", dir);
    CHECK(system(path) == 0);
}

static void expect_event(cc_watch w, uint32_t kind, const char *name)
{
    cc_watch_event e;
    CHECK_OK(cc_watch_read(w, &e, &err), err);
    CHECK_EQ_INT(e.kind, kind);
    CHECK_EQ_STR(e.name, name);
    cc_watch_event_free(&e);
}

static void test_watch(void)
{
    cc_watch_event e;
    cc_watch w;
    (void)sh("mkdir /w");
    CHECK_OK(cc_fs_watch(vm, "/w", &w, &err), err);
    CHECK_EQ_INT(cc_watch_read_with(w, 0.05, 0, &e, NULL), CC_ERR_TIMEOUT);
    CHECK_OK(cc_fs_write_file(vm, "/w/f", (const uint8_t *)"x", 1, 0600, &err), err);
    expect_event(w, CC_WATCH_CREATE, "f");
    expect_event(w, CC_WATCH_MODIFY, "f");
    expect_event(w, CC_WATCH_CLOSE_WRITE, "f");
    CHECK_OK(cc_fs_rename(vm, "/w/f", "/w/g", &err), err);
    expect_event(w, CC_WATCH_MOVED_FROM, "f");
    expect_event(w, CC_WATCH_MOVED_TO, "g");
    CHECK_OK(cc_fs_remove_all(vm, "/w", &err), err);
    expect_event(w, CC_WATCH_DELETE, "g");
    expect_event(w, CC_WATCH_DELETE_SELF, "");
    expect_event(w, CC_WATCH_END, "");
    expect_event(w, CC_WATCH_END, "");
    CHECK_OK(cc_watch_close(w, &err), err);
    CHECK_EQ_INT(cc_watch_close(w, NULL), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(cc_watch_read(w, &e, NULL), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(outcome(cc_fs_watch(vm, "/w", &w, &err), "watch", "/w"), 2);
}

struct reader {
    pthread_t thread;
    cc_file f;
    cc_error_code code;
};

static void *read_one(void *arg)
{
    struct reader *r = arg;
    uint8_t c;
    size_t n;
    r->code = cc_file_read(r->f, &c, 1, &n, NULL);
    return NULL;
}

static void *read_event(void *arg)
{
    struct reader *r = arg;
    cc_watch_event e;
    r->code = cc_watch_read(r->f, &e, NULL);
    return NULL;
}

/* A read that waits ends with the file, or with the instance. */
static void test_ends(void)
{
    struct reader r[3];
    cc_file left;
    CHECK_OK(cc_fs_watch(vm, "/etc", &r[2].f, &err), err);
    CHECK(pthread_create(&r[2].thread, NULL, read_event, &r[2]) == 0);
    (void)sh("mkfifo /fifo");
    for (int i = 0; i < 2; i++) {
        CHECK_OK(cc_fs_open(vm, "/fifo", &r[i].f, &err), err);
        CHECK(pthread_create(&r[i].thread, NULL, read_one, &r[i]) == 0);
    }
    CHECK_OK(cc_fs_open(vm, "/etc/passwd", &left, &err), err);
    CHECK_OK(cc_file_close(r[0].f, &err), err);
    pthread_join(r[0].thread, NULL);
    CHECK_EQ_INT(r[0].code, CC_ERR_ALREADY_CLOSED);
    CHECK_OK(cc_instance_close(vm, &err), err);
    pthread_join(r[1].thread, NULL);
    CHECK(r[1].code == CC_ERR_NOT_RUNNING || r[1].code == CC_ERR_ALREADY_CLOSED);
    pthread_join(r[2].thread, NULL);
    CHECK(r[2].code == CC_ERR_NOT_RUNNING || r[2].code == CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(cc_file_sync(left, NULL), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_INT(cc_file_close(left, NULL), CC_ERR_ALREADY_CLOSED);
    cc_shutdown();
}

int main(void)
{
    (void)cc_init();
    RUN(test_boot);
    RUN(test_cases);
    RUN(test_owner_times_and_space);
    RUN(test_open_file);
    RUN(test_large);
    RUN(test_read_dir);
    RUN(test_copies);
    RUN(test_watch);
    RUN(test_ends);
    return check_done();
}
