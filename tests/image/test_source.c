// @timeout 120
// @sanitize address,undefined
// @sanitize thread
/*
 * Loading an image tar: layers in parallel, cancellation and deadlines, what stays open and for how long, no memory.
 */
#include "store_dir.h"

#include "../../src/image/source.h"
#include "../check.h"
#include "tar_make.h"

static struct cci_store *store;
static cc_error err;
static char image_path[300];

#define LAYERS 7
#define PAYLOAD 200000

/* Writes docker-archive with LAYERS layers, each of a file with PAYLOAD bytes. */
static void make_image(void)
{
    static uint8_t payload[PAYLOAD], layers[LAYERS][PAYLOAD + 4096];
    static char config[4096], manifest[4096], hex[80];
    size_t sizes[LAYERS], c = 0, m = 0;
    c += (size_t)sprintf(config,
                         "{\"os\":\"linux\",\"architecture\":\"%s\",\"config\":{\"Cmd\":[\"sh\"]},\"rootfs\":{\"type\":"
                         "\"layers\",\"diff_ids\":[",
                         cci_platform_host().arch);
    for (int i = 0; i < LAYERS; i++) {
        char name[40];
        for (size_t k = 0; k < PAYLOAD; k++)
            payload[k] = (uint8_t)(k * 31 + (k >> 7) * (size_t)(i + 1));
        (void)snprintf(name, sizeof(name), "file-%d", i);
        tar_begin();
        tar_add('0', name, "", payload, PAYLOAD);
        tar_end();
        memcpy(layers[i], tar.p, tar.n);
        sizes[i] = tar.n;
        struct cci_digest d = cci_digest_of(tar.p, tar.n);
        c += (size_t)sprintf(config + c, "%s\"%s\"", i ? "," : "", cci_digest_spell(&d).text);
    }
    c += (size_t)sprintf(config + c, "]}}");
    struct cci_digest d = cci_digest_of(config, c);
    cci_sha256_hex(d.bytes, hex);
    m += (size_t)sprintf(manifest, "[{\"Config\":\"%s.json\",\"RepoTags\":[\"test:1\"],\"Layers\":[", hex);
    strcat(hex, ".json");
    FILE *f = fopen(image_path, "wb");
    CHECK(f != NULL);
    for (int i = 0; i < LAYERS; i++) {
        char name[40];
        (void)snprintf(name, sizeof(name), "%d/layer.tar", i);
        m += (size_t)sprintf(manifest + m, "%s\"%s\"", i ? "," : "", name);
        tar_begin();
        tar_add('0', name, "", layers[i], sizes[i]);
        CHECK(fwrite(tar.p, 1, tar.n, f) == tar.n);
    }
    m += (size_t)sprintf(manifest + m, "]}]");
    tar_begin();
    tar_add('0', hex, "", config, c);
    tar_add('0', "manifest.json", "", manifest, m);
    tar_end();
    CHECK(fwrite(tar.p, 1, tar.n, f) == tar.n && fclose(f) == 0);
}

static void clear_store(void)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'/layers/*", store_dir);
    CHECK(system(command) == 0);
}

static void test_layers_in_parallel(void)
{
    struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_image *image, *again;
    clear_store();
    CHECK_OK(cci_image_load_tar(store, image_path, NULL, &wait, &image, &err), err);
    CHECK_EQ_INT(image->layer_count, LAYERS);
    for (size_t i = 0; i < LAYERS; i++) {
        CHECK(image->layers[i].fd >= 0 && cci_digest_equal(&image->layers[i].diff_id, &image->config.diff_ids[i]));
        CHECK(cci_layer_is_whole(image->layers[i].path) == 1);
    }
    CHECK_EQ_STR(cci_image_config(image)->cmd.at[0], "sh");
    CHECK_EQ_INT(store_dir_count("layers"), LAYERS);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
    /* A second one finds all of it; the two share nothing but the store. */
    CHECK_OK(cci_image_load_tar(store, image_path, NULL, &wait, &again, &err), err);
    cci_image_free(cci_image_ref(image));
    cci_image_free(image);
    CHECK(again->layers[0].fd >= 0);
    cci_image_free(again);
    cci_image_free(NULL);
}

/* An image keeps what it needs of the store. */
static void test_outlives_the_store_handle(void)
{
    struct cci_store *own;
    struct cci_image *image;
    struct cci_wait wait = CCI_WAIT_FOREVER;
    CHECK_OK(cci_store_open(store_dir, &own, &err), err);
    CHECK_OK(cci_image_load_tar(own, image_path, NULL, &wait, &image, &err), err);
    cci_store_close(own);
    CHECK(strcmp(image->store->dir, store->dir) == 0);
    cci_image_free(image);
}

static void test_errors_name_the_file(void)
{
    struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_platform riscv = cci_platform_make("linux", "riscv64", NULL);
    struct cci_image *image;
    char path[400];
    CHECK_EQ_INT(cci_image_load_tar(store, image_path, &riscv, &wait, &image, &err), CC_ERR_IO);
    CHECK(image == NULL && strstr(err.message, "for linux/riscv64; it holds test:1 (linux/"));
    CHECK_EQ_STR(err.path, image_path);
    cci_error_release(&err);
    (void)snprintf(path, sizeof(path), "%s:other", image_path);
    CHECK_EQ_INT(cci_image_load_tar(store, path, NULL, &wait, &image, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "no image in the file is called \"other\"; it holds test:1"));
    cci_error_release(&err);
    CHECK_EQ_INT(cci_image_load_tar(store, store_dir, NULL, &wait, &image, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "not a regular file"));
    cci_error_release(&err);
    CHECK_EQ_INT(cci_image_load_tar(store, "/nonexistent:x:y", NULL, &wait, &image, &err), CC_ERR_IO);
    CHECK_EQ_STR(err.path, "/nonexistent:x:y");
    CHECK_EQ_INT(err.sys_errno, 2);
    cci_error_release(&err);
    CHECK_EQ_INT(cci_image_load_tar(store, "/nonexistent", NULL, &wait, &image, NULL), CC_ERR_IO);
}

static void test_a_deadline_that_has_passed(void)
{
    struct cci_wait wait = {cci_os_now(), NULL};
    struct cci_image *image;
    CHECK_EQ_INT(cci_image_load_tar(store, image_path, NULL, &wait, &image, &err), CC_ERR_TIMEOUT);
    cci_error_release(&err);
}

static void cancel_soon(void *ctx)
{
    uint64_t until = cci_os_now() + 5000000u;
    while (cci_os_now() < until)
        continue;
    cci_cancel_fire(ctx);
}

/* A tar that is compressed as a whole, 270 MB of it, is left when the token fires. */
static void test_cancelled_in_the_middle(void)
{
    static uint8_t zipped[1 << 20], zeroes[900000];
    char path[300];
    struct cci_image *image;
    struct cci_thread t;
    struct cci_cancel *cancel = cci_cancel_new();
    struct cci_wait wait = {CCI_FOREVER, cancel};
    (void)snprintf(path, sizeof(path), "%s/endless.tar.gz", store_dir);
    FILE *f = fopen(path, "wb");
    size_t n = gzip(zeroes, sizeof(zeroes), zipped);
    for (int i = 0; i < 300; i++)
        CHECK(fwrite(zipped, 1, n, f) == n);
    CHECK(fclose(f) == 0);
    CHECK(cci_thread_new(&t, "cancel", cancel_soon, cancel) == 0);
    uint64_t start = cci_os_now();
    cc_error_code code = cci_image_load_tar(store, path, NULL, &wait, &image, &err);
    uint64_t took = cci_os_now() - start;
    cci_thread_join(&t);
    CHECK_EQ_INT(code, CC_ERR_CANCELLED);
    CHECK(took < 20000000000u);
    cci_error_release(&err);
    CHECK_EQ_INT(cci_image_load_tar(store, image_path, NULL, &wait, &image, &err), CC_ERR_CANCELLED);
    cci_error_release(&err);
    cci_cancel_unref(cancel);
    CHECK(unlink(path) == 0);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
}

static long allocations_left; /* atomic: several threads allocate */

static void *failing(void *ctx, void *old, size_t size)
{
    if (size && __atomic_sub_fetch(&allocations_left, 1, __ATOMIC_SEQ_CST) < 0)
        return NULL;
    return cci_mem_default_alloc(ctx, old, size);
}

/* With the Nth allocation and all after it failing: an error and nothing leaked, for N up to where it works. */
static void test_no_memory(void)
{
    struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_image *image;
    int failures = 0;
    for (long n = 0; n < 2000; n += n < 200 ? 1 : 7) {
        clear_store();
        cci_mem_hook.realloc_fn = failing;
        __atomic_store_n(&allocations_left, n, __ATOMIC_SEQ_CST);
        cc_error_code code = cci_image_load_tar(store, image_path, NULL, &wait, &image, &err);
        cci_mem_hook.realloc_fn = cci_mem_default_alloc;
        cci_error_release(&err);
        if (code == CC_OK) {
            cci_image_free(image);
            CHECK(failures > 50);
            return;
        }
        CHECK(image == NULL);
        failures++;
        struct cci_store *again;
        CHECK_OK(cci_store_open(store_dir, &again, &err), err);
        cci_store_close(again);
        CHECK_EQ_INT(store_dir_count("tmp"), 0);
    }
    check_fail(__FILE__, __LINE__, "it does not work even with 2000 allocations");
}

int main(void)
{
    store_dir_make();
    int fds = count_fds();
    (void)snprintf(image_path, sizeof(image_path), "%s/image.tar", store_dir);
    if (cci_store_open(store_dir, &store, &err) != CC_OK)
        return 2;
    RUN(make_image);
    RUN(test_layers_in_parallel);
    RUN(test_outlives_the_store_handle);
    RUN(test_errors_name_the_file);
    RUN(test_a_deadline_that_has_passed);
    RUN(test_cancelled_in_the_middle);
    RUN(test_no_memory);
    cci_store_close(store);
    if (count_fds() != fds) {
        printf("not ok no_descriptor_leaked\n");
        return 1;
    }
    store_dir_remove();
    return check_done();
}
