/*
 * The store: what several processes do to it at once, and what dead ones leave behind.
 */
#include "store_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "../../src/image/index_reader.h"
#include "../../src/image/layer_writer.h"
#include "../check.h"

static struct cci_store *store;
static cc_error err;

/* A layer of one file, under a diffID of our choice: the store does not look into layers. */
static cc_error_code publish(const char *seed, struct cci_layer *out)
{
    struct cci_layer_writer w;
    struct cci_digest id = cci_digest_of(seed, strlen(seed));
    cc_error_code code = cci_layer_writer_init(&w, store, &err);
    if (code)
        return code;
    struct cci_index_entry e;
    memset(&e, 0, sizeof(e));
    e.type = CCI_INDEX_FILE;
    e.path = "file";
    e.size = strlen(seed);
    code = cci_layer_writer_data(&w, 0, seed, strlen(seed), &err);
    if (!code)
        code = cci_layer_writer_add(&w, &e, &err);
    if (!code)
        return cci_layer_writer_publish(&w, &id, out, &err);
    cci_layer_writer_drop(&w);
    return code;
}

static bool present(const char *seed)
{
    struct cci_layer l;
    struct cci_digest id = cci_digest_of(seed, strlen(seed));
    bool found = false;
    CHECK_OK(cci_store_layer_open(store, &id, &l, &found, &err), err);
    cci_layer_close(&l);
    return found;
}

static void test_open_makes_it(void)
{
    CHECK_OK(cci_store_open(store_dir, &store, &err), err);
    CHECK(store_dir_count("layers") == 0 && store_dir_count("tmp") == 0 && store_dir_count("blobs/sha256") == 0);
    struct cci_store *again;
    CHECK_OK(cci_store_open(store_dir, &again, &err), err);
    cci_store_close(again);
}

static void test_relative_paths_survive_chdir(void)
{
    char cwd[400];
    struct cci_store *s;
    CHECK(getcwd(cwd, sizeof(cwd)) && chdir(store_dir) == 0);
    cc_error_code code = cci_store_open("inner/cache", &s, &err);
    CHECK(chdir(cwd) == 0);
    CHECK_OK(code, err);
    CHECK(s->dir[0] == '/');
    struct cci_store_tmp tmp;
    code = cci_store_tmp_new(s, &tmp, &err);
    CHECK_OK(code, err);
    CHECK_EQ_INT(store_dir_count("inner/cache/tmp"), 1);
    cci_store_tmp_drop(&tmp);
    CHECK_EQ_INT(store_dir_count("inner/cache/tmp"), 0);
    cci_store_close(s);
}

static void test_default_directory(void)
{
    bool known;
    CHECK(setenv("HOME", "/home/somebody", 1) == 0 && unsetenv("XDG_CACHE_HOME") == 0 && unsetenv("CC_CACHE_DIR") == 0);
    char *dir = cci_store_default_dir(&known);
    CHECK_EQ_STR(dir, "/home/somebody/.cache/cc.h");
    cci_mem_free(dir);
    CHECK(setenv("XDG_CACHE_HOME", "/x", 1) == 0);
    dir = cci_store_default_dir(&known);
    CHECK_EQ_STR(dir, "/x/cc.h");
    cci_mem_free(dir);
    CHECK(setenv("CC_CACHE_DIR", "/y", 1) == 0);
    dir = cci_store_default_dir(&known);
    CHECK_EQ_STR(dir, "/y");
    cci_mem_free(dir);
    CHECK(unsetenv("HOME") == 0 && unsetenv("XDG_CACHE_HOME") == 0 && unsetenv("CC_CACHE_DIR") == 0);
    struct cci_store *s;
    CHECK_EQ_INT(cci_store_open(NULL, &s, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "set HOME or CC_CACHE_DIR"));
    cci_error_release(&err);
}

static void test_not_a_directory(void)
{
    char path[400];
    struct cci_store *s;
    (void)snprintf(path, sizeof(path), "%s/plain", store_dir);
    (void)close(open(path, O_CREAT | O_WRONLY, 0600));
    CHECK_EQ_INT(cci_store_open(path, &s, &err), CC_ERR_IO);
    CHECK(s == NULL && err.sys_errno == ENOTDIR && strstr(err.message, "not a directory"));
    cci_error_release(&err);
}

static void test_publish_and_find(void)
{
    struct cci_layer a, b;
    CHECK(!present("one"));
    CHECK_OK(publish("one", &a), err);
    CHECK(present("one"));
    CHECK_EQ_INT(store_dir_count("layers"), 1);
    /* A second of the same content loses, and gets the first. */
    CHECK_OK(publish("one", &b), err);
    CHECK_EQ_STR(a.path, b.path);
    CHECK_EQ_INT(store_dir_count("layers"), 1);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
    cci_layer_close(&a);
    cci_layer_close(&b);
}

/* A layer in use is locked against removal, and free when it is closed. */
/* Of a layer with very many files, the index goes to the disk as it grows, and is whole there. */
static void test_a_long_index(void)
{
    enum { FILES = 30000 };
    struct cci_layer_writer w;
    struct cci_digest id = cci_digest_of("long", 4);
    struct cci_index_reader r;
    struct cci_index_entry e;
    struct cci_layer l;
    char path[64];
    bool end = false;
    memset(&e, 0, sizeof(e));
    e.type = CCI_INDEX_FILE;
    e.path = path;
    CHECK_OK(cci_layer_writer_init(&w, store, &err), err);
    size_t most = 0;
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof(path), "a-file-with-a-name-of-some-length-%d", i);
        e.size = 1;
        CHECK_OK(cci_layer_writer_data(&w, 0, "x", 1, &err), err);
        CHECK_OK(cci_layer_writer_add(&w, &e, &err), err);
        most = CCI_MAX(most, w.index.out.cap);
    }
    CHECK(most < 4 * CCI_LAYER_INDEX_BATCH && w.index.taken > 20 * CCI_LAYER_INDEX_BATCH);
    CHECK_OK(cci_layer_writer_publish(&w, &id, &l, &err), err);
    char *file = cci_layer_file(l.path, "index");
    cci_fd fd = cci_os_open(file, CCI_OS_RDONLY, 0);
    CHECK_OK(cci_index_open(&r, fd, &err), err);
    CHECK(r.size > 20 * CCI_INDEX_WINDOW && r.cap == CCI_INDEX_WINDOW);
    CHECK_EQ_INT(r.data_blocks, FILES);
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof(path), "a-file-with-a-name-of-some-length-%d", i);
        CHECK_OK(cci_index_next(&r, &e, &end, &err), err);
        CHECK(!end);
        CHECK_EQ_STR(e.path, path);
    }
    CHECK_OK(cci_index_next(&r, &e, &end, &err), err);
    CHECK(end);
    cci_index_close(&r);
    cci_os_close(fd);
    cci_mem_free(file);
    cci_layer_close(&l);
}

static void test_a_layer_in_use_is_locked(void)
{
    struct cci_layer l;
    CHECK_OK(publish("locked", &l), err);
    int fd = open(l.path, O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0);
    CHECK(flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
    cci_layer_close(&l);
    CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
    (void)close(fd);
}

/* Who waits for the lock of a layer that is then removed finds that it is gone. */
static void test_a_layer_removed_under_the_lock(void)
{
    struct cci_layer l;
    char away[400];
    CHECK_OK(publish("removed", &l), err);
    int fd = open(l.path, O_RDONLY | O_DIRECTORY), ready[2];
    CHECK(fd >= 0 && pipe(ready) == 0);
    (void)snprintf(away, sizeof(away), "%s/away", store_dir);
    char *path = strdup(l.path);
    cci_layer_close(&l);
    CHECK(flock(fd, LOCK_EX) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)!write(ready[1], "x", 1);
        _exit(present("removed") ? 1 : 0);
    }
    char c;
    CHECK(read(ready[0], &c, 1) == 1);
    CHECK(rename(path, away) == 0);
    (void)close(fd);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
    free(path);
}

static void damage(const char *seed, const char *file, long size)
{
    struct cci_layer l;
    char path[600];
    CHECK_OK(publish(seed, &l), err);
    (void)snprintf(path, sizeof(path), "%s/%s", l.path, file);
    cci_layer_close(&l);
    CHECK(size < 0 ? unlink(path) == 0 : truncate(path, size) == 0);
    CHECK(!present(seed));
    CHECK_OK(publish(seed, &l), err);
    cci_layer_close(&l);
    CHECK(present(seed));
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
}

static void test_damaged_layers_are_replaced(void)
{
    damage("d1", "data", 0);
    damage("d2", "data", 4095);
    damage("d3", "data", -1);
    damage("d4", "index", 10);
    damage("d5", "index", -1);
    damage("d6", "index", 50);
}

/* A FIFO in the place of an index holds nobody up. */
static void test_a_fifo_for_an_index(void)
{
    struct cci_layer l;
    char path[600];
    CHECK_OK(publish("fifo", &l), err);
    (void)snprintf(path, sizeof(path), "%s/index", l.path);
    cci_layer_close(&l);
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    CHECK(!present("fifo"));
    CHECK_OK(publish("fifo", &l), err);
    cci_layer_close(&l);
}

/* Two find the same layer damaged. When the second one moves it away, the first has put a whole one there. */
static void test_a_layer_that_was_replaced_meanwhile(void)
{
    struct cci_layer damaged, whole;
    char away[400];
    CHECK_OK(publish("twice", &damaged), err);
    (void)snprintf(away, sizeof(away), "%s/away-too", store_dir);
    CHECK(rename(damaged.path, away) == 0);
    CHECK_OK(publish("twice", &whole), err);
    CHECK_OK(cci_store_evict(store, &damaged, &err), err);
    CHECK(present("twice"));
    CHECK_OK(cci_store_evict(store, &whole, &err), err);
    CHECK(!present("twice"));
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
    cci_layer_close(&damaged);
    cci_layer_close(&whole);
}

/* A process that dies leaves its temporary directory to the next one to open the store; one that lives keeps it. */
static void test_sweep(void)
{
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct cci_layer_writer w;
        bool ok = cci_layer_writer_init(&w, store, NULL) == CC_OK;
        (void)!write(ready[1], ok ? "y" : "n", 1);
        for (;;)
            (void)pause();
    }
    char c;
    CHECK(read(ready[0], &c, 1) == 1 && c == 'y');
    CHECK_EQ_INT(store_dir_count("tmp"), 1);
    struct cci_store *other;
    CHECK_OK(cci_store_open(store_dir, &other, &err), err);
    cci_store_close(other);
    CHECK_EQ_INT(store_dir_count("tmp"), 1);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    CHECK_OK(cci_store_open(store_dir, &other, &err), err);
    cci_store_close(other);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
}

/* Things in tmp/ that nobody of ours put there. */
static void test_sweep_of_strange_things(void)
{
    char path[400], target[400];
    (void)snprintf(path, sizeof(path), "%s/tmp/file", store_dir);
    (void)close(open(path, O_CREAT | O_WRONLY, 0600));
    (void)snprintf(target, sizeof(target), "%s/kept", store_dir);
    (void)close(open(target, O_CREAT | O_WRONLY, 0600));
    (void)snprintf(path, sizeof(path), "%s/tmp/link", store_dir);
    CHECK(symlink(target, path) == 0);
    (void)snprintf(path, sizeof(path), "%s/tmp/fifo", store_dir);
    CHECK(mkfifo(path, 0600) == 0);
    struct cci_store *other;
    CHECK_OK(cci_store_open(store_dir, &other, &err), err);
    cci_store_close(other);
    CHECK(access(target, F_OK) == 0);
    CHECK(unlink(target) == 0);
    (void)snprintf(path, sizeof(path), "%s/tmp/link", store_dir);
    (void)unlink(path);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
}

/* Many processes publish the same few layers at once, opening and sweeping between. */
static void test_a_crowd(void)
{
    enum { PROCESSES = 6, ROUNDS = 15 };
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        if (pids[i] != 0)
            continue;
        for (int round = 0; round < ROUNDS; round++) {
            char seed[20];
            struct cci_layer l;
            (void)snprintf(seed, sizeof(seed), "crowd %d", round);
            if (cci_store_open(store_dir, &store, NULL) != CC_OK)
                _exit(1);
            if (publish(seed, &l) != CC_OK)
                _exit(2);
            if (!cci_layer_is_whole(l.path))
                _exit(3);
            cci_layer_close(&l);
        }
        _exit(0);
    }
    int failures = 0, status;
    for (int i = 0; i < PROCESSES; i++)
        failures += waitpid(pids[i], &status, 0) != pids[i] || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    CHECK_EQ_INT(failures, 0);
    CHECK(present("crowd 0") && present("crowd 14"));
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
}

int main(void)
{
    store_dir_make();
    int fds = count_fds();
    RUN(test_open_makes_it);
    RUN(test_relative_paths_survive_chdir);
    RUN(test_default_directory);
    RUN(test_not_a_directory);
    RUN(test_publish_and_find);
    RUN(test_a_long_index);
    RUN(test_a_layer_in_use_is_locked);
    RUN(test_a_layer_removed_under_the_lock);
    RUN(test_damaged_layers_are_replaced);
    RUN(test_a_fifo_for_an_index);
    RUN(test_a_layer_that_was_replaced_meanwhile);
    RUN(test_sweep);
    RUN(test_sweep_of_strange_things);
    RUN(test_a_crowd);
    cci_store_close(store);
    if (count_fds() != fds) {
        printf("not ok no_descriptor_leaked\n");
        return 1;
    }
    store_dir_remove();
    return check_done();
}
