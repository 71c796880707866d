/*
 * The care of the cache: what is remembered, listed, forgotten and pruned; pruning beside loads, open images and pulls.
 * @timeout 120
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "store_dir.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>

#include "../../src/image/cached.h"
#include "../../src/image/export.h"
#include "../../src/image/load_dir.h"
#include "../../src/image/prune.h"
#include "../check.h"

static struct cci_store *store;
static cc_error err;
static struct cci_prune_result result;
static const struct cci_wait forever = CCI_WAIT_FOREVER;

/* Makes a tree with one file, and loads it under a name, or without one when that is NULL. */
static struct cci_image *load_tree(const char *text, const char *name)
{
    char dir[300], file[320];
    struct cci_image *image;
    struct cci_platform host = cci_platform_host();
    (void)snprintf(dir, sizeof(dir), "%s/tree-%s", store_dir, text);
    (void)snprintf(file, sizeof(file), "%s/file", dir);
    if (mkdir(dir, 0755) == 0) { /* else it is there, and must keep its times */
        FILE *f = fopen(file, "w");
        CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
    }
    CHECK_OK(cci_image_load_dir(store, dir, NULL, &forever, &image, &err), err);
    if (name) {
        CHECK(cci_strings_add(&image->names, name));
        CHECK_OK(cci_cache_remember(image, &host, &err), err);
    }
    return image;
}

static void prune(void)
{
    CHECK_OK(cci_cache_prune(store, &result, &err), err);
}

/* Empties the cache but for what is open. */
static void clear(void)
{
    struct cci_cache_list l;
    CHECK_OK(cci_cache_read(store, &l, &err), err);
    for (size_t i = 0; i < l.count; i++)
        CHECK_OK(cci_cache_unlink_ref(store, &l.at[i].ref, &err), err);
    cci_cache_list_free(&l);
    prune();
}

/* Whether the reference opens an image from the cache. */
static bool opens(const char *name)
{
    struct cci_platform host = cci_platform_host();
    struct cci_ref ref;
    struct cci_image *image;
    struct cci_digest manifest, config;
    enum cci_cached state;
    bool found;
    CHECK_OK(cci_ref_read(store, name, &host, &ref, &found, &err), err);
    if (!found)
        return false;
    CHECK_OK(cci_cached_open(store, &ref.manifest, &host, &image, &manifest, &config, &state, &err), err);
    cci_ref_free(&ref);
    cci_image_free(image);
    return state == CCI_CACHED_HIT;
}

static void test_list(void)
{
    struct cci_cache_list l;
    cci_image_free(load_tree("two", "docker.io/test/two:1"));
    cci_image_free(load_tree("one", "docker.io/test/one:1"));
    cci_image_free(load_tree("none", NULL));
    CHECK_OK(cci_cache_read(store, &l, &err), err);
    CHECK_EQ_INT(l.count, 2);
    CHECK_EQ_STR(l.at[0].ref.name, "docker.io/test/one:1");
    CHECK_EQ_STR(l.at[1].ref.name, "docker.io/test/two:1");
    CHECK(l.at[0].whole && l.at[0].size > 0 && l.at[0].size < 100000);
    CHECK(l.at[0].ref.used_ns > 1700000000 * (int64_t)1000000000);
    cci_cache_list_free(&l);
    CHECK(opens("docker.io/test/one:1"));
}

static void test_prune_unreferenced(void)
{
    CHECK_EQ_INT(store_dir_count("layers"), 3);
    prune();
    CHECK_EQ_INT(result.layers, 1);
    CHECK_EQ_INT(result.blobs, 0);
    CHECK(result.bytes > 0 && !result.blobs_busy);
    CHECK_EQ_INT(store_dir_count("layers"), 2);
    CHECK_EQ_INT(store_dir_count("rootfs"), 2);
    CHECK(opens("docker.io/test/one:1") && opens("docker.io/test/two:1"));
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
}

static void test_remove(void)
{
    char id[80];
    struct cci_image *image = load_tree("one", "docker.io/test/alias:2");
    struct cci_digest config = cci_digest_of(image->config_text.p, image->config_text.n);
    cci_image_free(image);
    (void)snprintf(id, sizeof(id), "%s", cci_digest_spell(&config).text);
    CHECK_EQ_INT(cci_cache_remove(store, "test/two:2", &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ENOENT);
    cci_error_release(&err);
    CHECK_EQ_INT(cci_cache_remove(store, "", NULL), CC_ERR_IO);
    CHECK_EQ_INT(cci_cache_remove(store, "sha256:12", NULL), CC_ERR_IO);
    id[7 + 11] = '\0'; /* one digit too few */
    CHECK_EQ_INT(cci_cache_remove(store, id, NULL), CC_ERR_IO);
    CHECK_OK(cci_cache_remove(store, "test/two:1", &err), err);
    CHECK(!opens("docker.io/test/two:1"));
    CHECK_OK(cci_cache_remove(store, cci_digest_spell(&config).text, &err), err);
    CHECK_EQ_INT(store_dir_count("refs"), 0);
    CHECK_EQ_INT(store_dir_count("layers"), 2);
    prune();
    CHECK_EQ_INT(result.layers, 2);
    CHECK_EQ_INT(result.blobs, 4);
    CHECK_EQ_INT(store_dir_count("layers") + store_dir_count("blobs/sha256") + store_dir_count("rootfs"), 0);
}

/* What an instance had in tmp/ when its process died, such as an empty directory that it shared, with what the guest
 * put there; and what a process that lives has there. */
static void test_left_by_a_crash(void)
{
    struct cci_store_tmp ours, left;
    char file[1000];
    CHECK_OK(cci_store_tmp_new(store, &ours, &err), err);
    CHECK_OK(cci_store_tmp_new(store, &left, &err), err);
    (void)snprintf(file, sizeof(file), "mkdir -p %s/share/a/b && echo x >%s/share/a/b/c && chmod 0 %s/share/a",
                   left.path, left.path, left.path);
    CHECK_EQ_INT(system(file), 0);
    cci_os_close(left.fd); /* as the end of a process does, with the lock */
    cci_mem_free(left.path);
    CHECK_EQ_INT(store_dir_count("tmp"), 2);
    prune();
    CHECK_EQ_INT(store_dir_count("tmp"), 1);
    cci_store_tmp_drop(&ours);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
}

static void test_open_images_stay(void)
{
    struct cci_image *image = load_tree("open", NULL);
    prune();
    CHECK_EQ_INT(result.layers, 0);
    struct cci_disk disk;
    CHECK_OK(cci_rootfs_open(store, image->layers, image->layer_count, &forever, &disk, &err),
             err); /* metadata made again */
    cci_disk_free(&disk);
    cci_image_free(image);
    prune();
    CHECK_EQ_INT(result.layers, 1);
}

static void test_blobs_under_a_pull(void)
{
    cci_fd lock;
    cci_image_free(load_tree("pulled", "docker.io/test/pulled:1"));
    CHECK_OK(cci_cache_remove(store, "test/pulled:1", &err), err);
    CHECK_OK(cci_blob_lock(store, CCI_OS_LOCK_SHARED, true, &lock, &err), err);
    prune();
    CHECK(result.blobs_busy && result.blobs == 0 && result.layers == 1);
    CHECK_EQ_INT(store_dir_count("blobs/sha256"), 2);
    cci_os_close(lock);
    prune();
    CHECK(!result.blobs_busy && result.blobs == 2);
}

static void test_partial(void)
{
    char busy[300], idle[300];
    (void)snprintf(busy, sizeof(busy), "%s/partial/busy", store_dir);
    (void)snprintf(idle, sizeof(idle), "%s/partial/idle", store_dir);
    int a = open(busy, O_RDWR | O_CREAT, 0600), b = open(idle, O_RDWR | O_CREAT, 0600);
    CHECK(a >= 0 && b >= 0 && flock(a, LOCK_EX) == 0 && write(b, "x", 1) == 1 && close(b) == 0);
    prune();
    CHECK(access(busy, F_OK) == 0 && access(idle, F_OK) != 0);
    CHECK(close(a) == 0);
    prune();
    CHECK(access(busy, F_OK) != 0);
}

static void test_incomplete(void)
{
    struct cci_cache_list l;
    cci_image_free(load_tree("lost", "docker.io/test/lost:1"));
    cci_image_free(load_tree("kept", "docker.io/test/kept:1"));
    CHECK_OK(cci_cache_read(store, &l, &err), err);
    char *config = cci_blob_path(store, &l.at[1].ref.config);
    cci_cache_list_free(&l);
    CHECK(unlink(config) == 0);
    cci_mem_free(config);
    CHECK_OK(cci_cache_read(store, &l, &err), err);
    CHECK(l.count == 2 && l.at[0].whole && !l.at[1].whole);
    cci_cache_list_free(&l);
    prune();
    CHECK_EQ_INT(result.references, 1);
    CHECK_EQ_INT(result.layers, 1);
    CHECK(opens("docker.io/test/kept:1"));
    clear();
}

static void test_strange_files(void)
{
    static const char *const names[] = {"refs/notes", "layers/notes", "blobs/sha256/notes", "rootfs/notes"};
    struct cci_cache_list l;
    for (size_t i = 0; i < CCI_COUNT(names); i++) {
        char path[300];
        (void)snprintf(path, sizeof(path), "%s/%s", store_dir, names[i]);
        FILE *f = fopen(path, "w");
        CHECK(f && fputs("cc.h reference 1\nname x\nplatform", f) >= 0 && fclose(f) == 0);
    }
    CHECK_OK(cci_cache_read(store, &l, &err), err);
    CHECK_EQ_INT(l.count, 0);
    cci_cache_list_free(&l);
    prune();
    CHECK_EQ_INT(store_dir_count("blobs/sha256") + store_dir_count("rootfs"), 0);
}

/* ---- At the same time -------------------------------------------------------------------------------- */

static volatile int stop;
static int prunes;

static void *prune_main(void *ctx)
{
    struct cci_store *own = NULL;
    (void)ctx;
    if (cci_store_open(store_dir, &own, NULL))
        return "cannot open the store";
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        struct cci_prune_result r;
        if (cci_cache_prune(own, &r, NULL))
            return "a pruning failed";
        prunes++;
    }
    cci_store_close(own);
    return NULL;
}

static void test_prune_beside_loads(void)
{
    pthread_t thread;
    void *failed;
    CHECK(pthread_create(&thread, NULL, prune_main, NULL) == 0);
    for (int i = 0; i < 60; i++) {
        char name[40];
        (void)snprintf(name, sizeof(name), "docker.io/test/many:%d", i % 5);
        cci_image_free(load_tree(i % 2 ? "odd" : "even", name));
        CHECK(opens(name)); /* whatever the other thread removed, it was nothing of this */
        if (i % 3 == 0)
            CHECK_OK(cci_cache_remove(store, name, &err), err);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    CHECK(pthread_join(thread, &failed) == 0);
    CHECK_EQ_STR(failed ? failed : "", "");
    CHECK(prunes > 0);
    clear();
}

/* ---- No memory --------------------------------------------------------------------------------------- */

static size_t allowed;

static void *few(void *ctx, void *old, size_t size)
{
    if (size && !allowed)
        return NULL;
    allowed -= size != 0;
    return cci_mem_default_alloc(ctx, old, size);
}

static void test_no_memory(void)
{
    int fds = count_fds();
    cci_image_free(load_tree("memory", "docker.io/test/memory:1"));
    cci_image_free(load_tree("loose", NULL));
    bool done = false;
    for (size_t n = 0; !done; n++) {
        cci_mem_hook.realloc_fn = few;
        allowed = n;
        done = cci_cache_prune(store, &result, NULL) == CC_OK;
        cci_mem_hook.realloc_fn = cci_mem_default_alloc;
        CHECK(n < 10000);
    }
    CHECK_EQ_INT(count_fds(), fds);
    CHECK(opens("docker.io/test/memory:1"));
}

/* A tree is loaded, remembered and exported with n allocations that succeed, for every n. */
static void test_load_and_export_without_memory(void)
{
    char dir[300], out[320], link_path[320];
    struct cci_platform host = cci_platform_host();
    int fds = count_fds();
    bool done = false;
    (void)snprintf(dir, sizeof(dir), "%s/tree-all", store_dir);
    (void)snprintf(out, sizeof(out), "%s/exported", store_dir);
    (void)snprintf(link_path, sizeof(link_path), "%s/another", dir);
    cci_image_free(load_tree("all", NULL));
    (void)snprintf(out, sizeof(out), "%s/file", dir);
    CHECK(link(out, link_path) == 0);
    (void)snprintf(out, sizeof(out), "%s/exported", store_dir);
    for (size_t n = 0; !done; n++) {
        struct cci_image *image = NULL;
        prune();
        cci_mem_hook.realloc_fn = few;
        allowed = n;
        bool ok = cci_image_load_dir(store, dir, NULL, &forever, &image, NULL) == CC_OK &&
                  cci_strings_add(&image->names, "docker.io/test/all:1") &&
                  cci_cache_remember(image, &host, NULL) == CC_OK;
        done = ok && cci_image_export(image, out, &forever, NULL) == CC_OK;
        cci_mem_hook.realloc_fn = cci_mem_default_alloc;
        cci_image_free(image);
        if (ok)
            CHECK_OK(cci_cache_remove(store, "test/all:1", &err), err);
        CHECK((access(out, F_OK) == 0) == done);
        CHECK(n < 10000);
    }
    CHECK_EQ_INT(count_fds(), fds);
    CHECK_EQ_INT(store_dir_count("exported/blobs/sha256"), 3);
    struct cci_store *next; /* whoever opens the cache next sweeps up what could not be removed without memory */
    CHECK_OK(cci_store_open(store_dir, &next, &err), err);
    cci_store_close(next);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
}

static void test_cancelled(void)
{
    struct cci_cancel *cancel = cci_cancel_new();
    struct cci_image *image = load_tree("cancelled", NULL), *again;
    struct cci_wait wait = {CCI_FOREVER, cancel}, late = {1, NULL};
    char dir[300], out[300];
    (void)snprintf(dir, sizeof(dir), "%s/tree-cancelled", store_dir);
    (void)snprintf(out, sizeof(out), "%s/cancelled", store_dir);
    CHECK_EQ_INT(cci_image_load_dir(store, dir, NULL, &late, &again, NULL), CC_ERR_TIMEOUT);
    cci_cancel_fire(cancel);
    CHECK_EQ_INT(cci_image_load_dir(store, dir, NULL, &wait, &again, NULL), CC_ERR_CANCELLED);
    CHECK_EQ_INT(cci_image_export(image, out, &wait, NULL), CC_ERR_CANCELLED);
    CHECK(access(out, F_OK) != 0);
    cci_cancel_unref(cancel);
    cci_image_free(image);
}

int main(void)
{
    store_dir_make();
    if (cci_store_open(store_dir, &store, &err) != CC_OK)
        return 2;
    RUN(test_list);
    RUN(test_prune_unreferenced);
    RUN(test_remove);
    RUN(test_left_by_a_crash);
    RUN(test_open_images_stay);
    RUN(test_blobs_under_a_pull);
    RUN(test_partial);
    RUN(test_incomplete);
    RUN(test_strange_files);
    RUN(test_prune_beside_loads);
    RUN(test_no_memory);
    RUN(test_load_and_export_without_memory);
    RUN(test_cancelled);
    cci_store_close(store);
    store_dir_remove();
    return check_done();
}
