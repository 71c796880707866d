// @flags -DCC_WITH_ZSTD -lzstd
// @timeout 120
/*
 * Layers compressed with zstd, by libzstd: the same layer comes out as of the plain tar, in pieces of any size; and
 * nothing comes out of a file that is cut, damaged, followed by something else, or that asks for too much memory.
 */
#include "store_dir.h"

#include "../../src/image/source.h"
#include "../check.h"
#include "tar_make.h"

static struct cci_store *store;
static cc_error err;
static uint8_t packed[2 << 20];

static struct cci_import_spec spec_of(const void *content, size_t n)
{
    struct cci_import_spec spec;
    memset(&spec, 0, sizeof(spec));
    spec.diff_id = cci_digest_of(content, n);
    spec.media = CCI_MEDIA_LAYER_ZSTD;
    return spec;
}

static cc_error_code import(const struct cci_import_spec *spec, const uint8_t *p, size_t n, size_t step)
{
    struct cci_import *im;
    struct cci_layer l;
    cci_error_release(&err);
    cc_error_code code = cci_import_begin(store, spec, &im, &err);
    for (size_t at = 0; at < n && !code; at += step) {
        code = cci_import_feed(im, p + at, n - at < step ? n - at : step, &err);
        if (code)
            cci_import_abort(im);
    }
    if (!code)
        code = cci_import_finish(im, &l, &err);
    if (!code)
        cci_layer_close(&l);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
    return code;
}

static const char *refused(const struct cci_import_spec *spec, const uint8_t *p, size_t n)
{
    int layers = store_dir_count("layers");
    if (import(spec, p, n, 1000) == CC_OK)
        return "(accepted)";
    CHECK_EQ_INT(err.code, CC_ERR_IO);
    CHECK_EQ_INT(store_dir_count("layers"), layers);
    return err.message ? err.message : "(no message)";
}

static void forget_layers(void)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf %s/layers/*", store_dir);
    CHECK_EQ_INT(system(command), 0);
}

/* Half of it compresses. */
static void sample(void)
{
    static uint8_t data[300000];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof(data); i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = i < sizeof(data) / 2 ? (uint8_t)(x >> 24) : 'z';
    }
    tar_begin();
    tar_add('0', "data", "", data, sizeof(data));
    tar_add('0', "small", "", "small\n", 6);
    tar_end();
}

static size_t pack(const uint8_t *p, size_t n, uint8_t *out)
{
    size_t r = ZSTD_compress(out, sizeof(packed) / 2, p, n, 3);
    CHECK(!ZSTD_isError(r));
    return r;
}

static void test_pieces_of_any_size(void)
{
    static const size_t steps[] = {1, 7, 4096, 131072, sizeof(packed)};
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    size_t n = pack(tar.p, tar.n, packed);
    spec.has_digest = true;
    spec.digest = cci_digest_of(packed, n);
    spec.size = n;
    for (size_t i = 0; i < CCI_COUNT(steps); i++) {
        forget_layers();
        CHECK_OK(import(&spec, packed, n, steps[i]), err);
        CHECK_EQ_INT(store_dir_count("layers"), 1);
    }
    forget_layers();
    spec.media = CCI_MEDIA_UNKNOWN; /* docker-archive does not say */
    CHECK_OK(import(&spec, packed, n, 1000), err);
}

static size_t skippable(uint8_t *out, size_t n)
{
    cci_put_le32(out, 0x184d2a53);
    cci_put_le32(out + 4, (uint32_t)n);
    memset(out + 8, 'x', n);
    return n + 8;
}

static void test_several_frames(void)
{
    size_t n = 0, half = 0;
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    half = tar.n / 2;
    n += pack(tar.p, half, packed + n);
    n += skippable(packed + n, 1000);
    n += pack(tar.p + half, tar.n - half, packed + n);
    n += skippable(packed + n, 0);
    for (size_t step = 1; step < n; step = step * 13 + 1) {
        forget_layers();
        CHECK_OK(import(&spec, packed, n, step), err);
    }
}

static void test_cut(void)
{
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    size_t n = pack(tar.p, tar.n, packed);
    forget_layers();
    CHECK(strstr(refused(&spec, packed, 4), "end too early"));
    CHECK(strstr(refused(&spec, packed, n - 1), "end too early"));
    for (size_t cut = 5; cut < n; cut += n / 50)
        CHECK(strstr(refused(&spec, packed, cut), "end too early"));
    n += skippable(packed + n, 100);
    CHECK(strstr(refused(&spec, packed, n - 1), "end too early"));
    CHECK(strstr(refused(&spec, packed, n - 105), "end too early"));
}

static void test_damaged(void)
{
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    size_t n = pack(tar.p, tar.n, packed);
    forget_layers();
    for (size_t at = 5; at < n; at += 1 + n / 60) { /* the bit of byte 4 means nothing */
        packed[at] ^= 0x10;
        CHECK(strcmp(refused(&spec, packed, n), "(accepted)") != 0);
        packed[at] ^= 0x10;
    }
}

static void test_garbage(void)
{
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    size_t n = pack(tar.p, tar.n, packed);
    forget_layers();
    memcpy(packed + n, "garbage", 7);
    CHECK(strstr(refused(&spec, packed, n + 7), "not in zstd format follow"));
    CHECK(strstr(refused(&spec, packed, n + 1), "not in zstd format follow"));
    memset(packed + n, 0, 512);
    CHECK(strstr(refused(&spec, packed, n + 512), "not in zstd format follow"));
    size_t m = gzip(tar.p, 1000, packed + n);
    CHECK(strstr(refused(&spec, packed, n + m), "not in zstd format follow"));
}

static void test_media(void)
{
    static uint8_t zipped[sizeof(tar.p) + 1000];
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    size_t n = pack(tar.p, tar.n, packed), m = gzip(tar.p, tar.n, zipped);
    forget_layers();
    CHECK(strstr(refused(&spec, zipped, m), "is compressed with gzip, but its media type says compressed with zstd"));
    CHECK(strstr(refused(&spec, tar.p, tar.n), "is not compressed, but its media type says"));
    spec.media = CCI_MEDIA_LAYER_GZIP;
    CHECK(strstr(refused(&spec, packed, n), "compressed with zstd, but"));
    spec.media = CCI_MEDIA_LAYER;
    CHECK(strstr(refused(&spec, packed, n), "compressed with zstd, but"));
}

/* A frame of `blocks` blocks, each of one byte said 128 Ki times over: 4 bytes become 131072. */
static size_t bomb(uint8_t window, unsigned blocks, uint8_t *out)
{
    size_t n = 6;
    cci_put_le32(out, 0xfd2fb528);
    out[4] = 0;      /* no size, no checksum */
    out[5] = window; /* exponent in the upper five bits: 2^(10 + exponent) */
    for (unsigned i = 0; i < blocks; i++, n += 4) {
        uint32_t head = (131072u << 3) | 1u << 1 | (i + 1 == blocks); /* a run */
        out[n] = (uint8_t)head;
        out[n + 1] = (uint8_t)(head >> 8);
        out[n + 2] = (uint8_t)(head >> 16);
        out[n + 3] = 0;
    }
    return n;
}

static void test_bombs(void)
{
    struct cci_import_spec spec = spec_of("", 0);
    forget_layers();
    CHECK(strstr(refused(&spec, packed, bomb((28 - 10) << 3, 1, packed)), "too much memory"));
    CHECK(strstr(refused(&spec, packed, bomb((41 - 10) << 3, 1, packed)), "too much memory"));
    CHECK(strstr(refused(&spec, packed, bomb((27 - 10) << 3, 4, packed)), "diffID")); /* the largest that is read */
    spec.max_tar = 10 << 20;
    CHECK(strstr(refused(&spec, packed, bomb((17 - 10) << 3, 400000, packed)), "10485760 bytes when decompressed"));
}

/* 1.6 MB become 50 GB; one call takes them all, and ends with the deadline. */
static void test_a_bomb_ends_with_the_wait(void)
{
    struct cci_wait wait = {cci_os_now() + 100 * 1000000u, NULL};
    struct cci_import_spec spec = spec_of("", 0);
    spec.wait = &wait;
    size_t n = bomb((17 - 10) << 3, 400000, packed);
    CHECK_EQ_INT(import(&spec, packed, n, n), CC_ERR_TIMEOUT);
    CHECK(cci_os_now() < wait.deadline + 5 * 1000000000u);
    wait.deadline = CCI_FOREVER;
    wait.cancel = cci_cancel_new();
    cci_cancel_fire(wait.cancel);
    CHECK_EQ_INT(import(&spec, packed, n, n), CC_ERR_CANCELLED);
    cci_cancel_unref(wait.cancel);
}

int main(void)
{
    store_dir_make();
    int fds = count_fds();
    CHECK_EQ_INT(cci_store_open(store_dir, &store, &err), CC_OK);
    RUN(test_pieces_of_any_size);
    RUN(test_several_frames);
    RUN(test_cut);
    RUN(test_damaged);
    RUN(test_garbage);
    RUN(test_media);
    RUN(test_bombs);
    RUN(test_a_bomb_ends_with_the_wait);
    cci_store_close(store);
    cci_error_release(&err);
    CHECK_EQ_INT(count_fds(), fds);
    store_dir_remove();
    return check_done();
}
