// @timeout 120
// @sanitize address,undefined
// @sanitize thread
/*
 * The import of a layer: what comes out for honest ones in pieces of any size, and that nothing comes out, and nothing
 * is left behind, for any other.
 */
#include "store_dir.h"

#include "../../src/image/index_reader.h"
#include "../../src/image/source.h"
#include "../check.h"
#include "tar_make.h"

static struct cci_store *store;
static cc_error err;

/* ---- Importing ------------------------------------------------------------------------------------------ */

static struct cci_import_spec spec_of(const void *content, size_t n)
{
    struct cci_import_spec spec;
    memset(&spec, 0, sizeof(spec));
    spec.diff_id = cci_digest_of(content, n);
    return spec;
}

static cc_error_code import(const struct cci_import_spec *spec, const uint8_t *p, size_t n, size_t step,
                            struct cci_layer *out)
{
    struct cci_import *im;
    cc_error_code code = cci_import_begin(store, spec, &im, &err);
    for (size_t at = 0; at < n && !code; at += step) {
        code = cci_import_feed(im, p + at, n - at < step ? n - at : step, &err);
        if (code)
            cci_import_abort(im);
    }
    return code ? code : cci_import_finish(im, out, &err);
}

/* The message of an import that must fail and leave nothing. */
static const char *refused(const struct cci_import_spec *spec, const uint8_t *p, size_t n)
{
    struct cci_layer l;
    int layers = store_dir_count("layers");
    cci_error_release(&err);
    cc_error_code code = import(spec, p, n, 1000, &l);
    if (code == CC_OK) {
        cci_layer_close(&l);
        return "(accepted)";
    }
    CHECK_EQ_INT(code, CC_ERR_IO);
    CHECK_EQ_INT(store_dir_count("layers"), layers);
    CHECK_EQ_INT(store_dir_count("tmp"), 0);
    return err.message ? err.message : "(no message)";
}

/* The whole of a layer's file; free it. */
static uint8_t *slurp(const struct cci_layer *l, const char *name, size_t *n)
{
    char *path = cci_layer_file(l->path, name);
    struct cci_os_stat st;
    cci_fd fd = cci_os_open(path, CCI_OS_RDONLY, 0);
    cci_mem_free(path);
    CHECK(fd >= 0 && cci_os_fstat(fd, &st) == 0);
    uint8_t *p = malloc(st.size + 1);
    *n = (size_t)cci_os_pread_all(fd, p, st.size, 0);
    cci_os_close(fd);
    CHECK(*n == st.size);
    return p;
}

/* The entry of a path; its views point into *window, which the caller frees. */
static bool find(const struct cci_layer *l, const char *path, uint8_t **window, struct cci_index_entry *e)
{
    struct cci_index_reader r;
    bool end = false;
    char *file = cci_layer_file(l->path, "index");
    cci_fd fd = cci_os_open(file, CCI_OS_RDONLY, 0);
    cci_mem_free(file);
    CHECK_OK(cci_index_open(&r, fd, &err), err);
    do
        CHECK_OK(cci_index_next(&r, e, &end, &err), err);
    while (!end && strcmp(e->path, path) != 0);
    cci_os_close(fd);
    *window = r.window;
    return !end;
}

static void remove_layers(void)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'/layers/*", store_dir);
    CHECK(system(command) == 0);
}

/* ---- Honest layers --------------------------------------------------------------------------------------- */

static uint8_t noise[300000];

static void sample(void)
{
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)(i * 197 + (i >> 8) * 31);
    tar_begin();
    tar_add('5', "./", "", NULL, 0);
    tar_add('5', "d/", "", NULL, 0);
    tar_add('0', "d/big", "", noise, 250001);
    tar_add('0', "d/empty", "", NULL, 0);
    tar_add('0', "/abs//./small", "", "hello", 5);
    tar_add('2', "link", "../../outside/is fine", NULL, 0);
    tar_add('1', "hard", "./d/../d/big", NULL, 0);
    tar_add('3', "null", "", NULL, 0);
    tar_add('6', "fifo", "", NULL, 0);
    tar_add('0', "d/.wh.gone", "", NULL, 0);
    tar_add('0', "d/.wh..wh..opq", "", NULL, 0);
    tar_add('0', ".wh..wh.aufs", "", NULL, 0);
    tar_end();
}

/* Whatever the pieces and whatever the compression, the two files are the same to the byte. */
static void test_pieces_of_any_size(void)
{
    static uint8_t zipped[sizeof(tar.p) + 1000];
    static const size_t steps[] = {SIZE_MAX / 2, 100000, 513, 512, 7};
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    size_t zipped_n = gzip(tar.p, tar.n, zipped), n[2] = {0, 0}, m;
    uint8_t *first[2] = {NULL, NULL};
    for (size_t i = 0; i < 2 * CCI_COUNT(steps); i++) {
        struct cci_layer l;
        bool gz = i >= CCI_COUNT(steps);
        spec.media = gz ? CCI_MEDIA_LAYER_GZIP : CCI_MEDIA_UNKNOWN;
        spec.has_digest = gz;
        spec.digest = cci_digest_of(zipped, zipped_n);
        spec.size = zipped_n;
        CHECK_OK(import(&spec, gz ? zipped : tar.p, gz ? zipped_n : tar.n, steps[i % CCI_COUNT(steps)], &l), err);
        for (int f = 0; f < 2; f++) {
            uint8_t *p = slurp(&l, f ? "index" : "data", &m);
            if (!first[f]) {
                first[f] = p;
                n[f] = m;
                continue;
            }
            CHECK(m == n[f] && memcmp(p, first[f], m) == 0);
            free(p);
        }
        cci_layer_close(&l);
        remove_layers();
    }
    free(first[0]);
    free(first[1]);
}

static void test_what_is_in_the_index(void)
{
    static const struct {
        const char *path;
        enum cci_index_type type;
        const char *target;
    } want[] = {{"", CCI_INDEX_DIR, ""},
                {"d", CCI_INDEX_DIR, ""},
                {"d/big", CCI_INDEX_FILE, ""},
                {"abs/small", CCI_INDEX_FILE, ""},
                {"link", CCI_INDEX_SYMLINK, "../../outside/is fine"},
                {"hard", CCI_INDEX_HARDLINK, "d/big"},
                {"null", CCI_INDEX_CHAR, ""},
                {"fifo", CCI_INDEX_FIFO, ""},
                {"d/gone", CCI_INDEX_WHITEOUT, ""}};
    struct cci_layer l;
    uint8_t *index, *data;
    struct cci_index_entry e;
    struct cci_index_extent x;
    size_t n;
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    CHECK_OK(import(&spec, tar.p, tar.n, 4096, &l), err);
    for (size_t i = 0; i < CCI_COUNT(want); i++) {
        CHECK(find(&l, want[i].path, &index, &e));
        CHECK_EQ_INT(e.type, want[i].type);
        CHECK_EQ_STR(e.target, want[i].target);
        free(index);
    }
    CHECK(!find(&l, ".wh..wh.aufs", &index, &e));
    free(index);
    data = slurp(&l, "data", &n);
    CHECK(find(&l, "d/big", &index, &e));
    CHECK(e.size == 250001 && e.extents.n == 16 && e.uid == 1000 && e.mode == 0644 && e.mtime_sec == 1700000000);
    CHECK(cci_index_take_extent(&e.extents, &x) && x.logical == 0 && x.count == 62);
    CHECK(memcmp(data + x.block * CCI_INDEX_BLOCK, noise, 250001) == 0);
    free(index);
    CHECK(find(&l, "abs/small", &index, &e));
    CHECK(cci_index_take_extent(&e.extents, &x) && memcmp(data + x.block * CCI_INDEX_BLOCK, "hello\0\0\0", 8) == 0);
    free(index);
    free(data);
    cci_layer_close(&l);
    remove_layers();
}

/* Linux has no "user." attributes of anything but files and directories: listed, they could not be read. */
static void test_user_attributes_where_there_are_none(void)
{
    static const char pax[] = "25 SCHILY.xattr.user.a=v\n28 SCHILY.xattr.trusted.a=v\n", types[] = "0526";
    tar_begin();
    for (int i = 0; i < 4; i++) {
        char name[2] = {types[i], '\0'};
        tar_add('x', "pax", "", pax, sizeof(pax) - 1);
        tar_add(types[i], name, types[i] == '2' ? "target" : "", NULL, 0);
    }
    tar_end();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    struct cci_layer l;
    CHECK_OK(import(&spec, tar.p, tar.n, 4096, &l), err);
    for (int i = 0; i < 4; i++) {
        char name[2] = {types[i], '\0'}, got[60] = "";
        uint8_t *index;
        struct cci_index_entry e;
        struct cci_index_xattr x;
        CHECK(find(&l, name, &index, &e));
        while (cci_index_take_xattr(&e.xattrs, &x))
            (void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%.*s ", (int)x.name_len, x.name);
        CHECK_EQ_STR(got, i < 2 ? "trusted.a user.a " : "trusted.a ");
        free(index);
    }
    cci_layer_close(&l);
    remove_layers();
}

static void test_empty_layers(void)
{
    static uint8_t zeros[10240];
    static const size_t sizes[] = {0, 512, 1024, 10240};
    for (size_t i = 0; i < CCI_COUNT(sizes); i++) {
        uint8_t zipped[11000];
        struct cci_layer l;
        size_t n = gzip(zeros, sizes[i], zipped);
        struct cci_import_spec spec = spec_of(zeros, sizes[i]);
        CHECK_OK(import(&spec, zeros, sizes[i], 5, &l), err);
        cci_layer_close(&l);
        remove_layers();
        CHECK_OK(import(&spec, zipped, n, 5, &l), err);
        cci_layer_close(&l);
        remove_layers();
    }
}

/* Pieces with holes between them, at any place in a block. */
static void test_holes(void)
{
    static const struct {
        uint64_t at;
        size_t n;
    } pieces[] = {{100, 50}, {200, 4000}, {4200, 10}, {12288, 4096}, {16384, 1}, {16390, 5}, {1u << 30, 8000}};
    static const uint64_t extents[][2] = {{0, 2}, {3, 2}, {1u << 18, 2}};
    struct cci_layer_writer w;
    struct cci_layer l;
    struct cci_index_entry e;
    struct cci_index_extent x;
    uint8_t *index, *data, block[8192] = {0};
    size_t n;
    memset(&e, 0, sizeof(e));
    e.type = CCI_INDEX_FILE;
    e.path = "sparse";
    e.size = (1u << 30) + 8000;
    CHECK_OK(cci_layer_writer_init(&w, store, &err), err);
    for (size_t i = 0; i < CCI_COUNT(pieces); i++)
        CHECK_OK(cci_layer_writer_data(&w, pieces[i].at, noise + pieces[i].at % 1000, pieces[i].n, &err), err);
    CHECK_EQ_INT(cci_layer_writer_data(&w, 5, "x", 1, NULL), CC_ERR_IO); /* backwards */
    CHECK_OK(cci_layer_writer_add(&w, &e, &err), err);
    struct cci_digest id = cci_digest_of("holes", 5);
    CHECK_OK(cci_layer_writer_publish(&w, &id, &l, &err), err);
    data = slurp(&l, "data", &n);
    CHECK(find(&l, "sparse", &index, &e));
    CHECK_EQ_INT(n, 6 * 4096);
    for (size_t i = 0; i < CCI_COUNT(extents); i++) {
        CHECK(cci_index_take_extent(&e.extents, &x));
        CHECK(x.logical == extents[i][0] && x.count == extents[i][1]);
        if (i == 0) {
            memcpy(block + 100, noise + 100, 50);
            memcpy(block + 200, noise + 200, 4000);
            memcpy(block + 4200, noise + 200, 10);
            CHECK(memcmp(data + x.block * 4096, block, 8192) == 0);
        }
    }
    CHECK_EQ_INT(e.extents.n, 0);
    free(index);
    free(data);
    cci_layer_close(&l);
    remove_layers();
}

/* ---- Paths ------------------------------------------------------------------------------------------------ */

static const char *clean(const char *path)
{
    static char out[CCI_INDEX_MAX_PATH + 1];
    struct cci_view v = {(const uint8_t *)path, strlen(path)};
    cci_error_release(&err);
    return cci_layer_clean(v, out, &err) ? NULL : out;
}

static void test_paths(void)
{
    static const char *const same[][2] = {
        {"a", "a"}, {"/a/b/", "a/b"}, {"./a//b/./c", "a/b/c"}, {"a/../b", "b"},        {"a/b/../../c", "c"}, {".", ""},
        {"/", ""},  {"a/..", ""},     {"...", "..."},          {"..a/b..", "..a/b.."}, {"a/b/..", "a"}};
    static const char *const out[] = {"..", "../a", "/..", "a/../..", "a/../../b", "./../a", "//../etc/passwd"};
    char longest[5000];
    for (size_t i = 0; i < CCI_COUNT(same); i++)
        CHECK_EQ_STR(clean(same[i][0]), same[i][1]);
    for (size_t i = 0; i < CCI_COUNT(out); i++)
        CHECK(clean(out[i]) == NULL && strstr(err.message, "path traversal"));
    memset(longest, 'a', sizeof(longest));
    longest[255] = 0;
    CHECK_EQ_STR(clean(longest), longest);
    longest[255] = 'a';
    longest[256] = 0;
    CHECK(clean(longest) == NULL && strstr(err.message, "too long"));
    for (size_t i = 0; i < sizeof(longest); i++)
        longest[i] = i % 2 ? '/' : 'a';
    longest[4095] = 0;
    CHECK_EQ_INT(strlen(clean(longest)), 4095);
    longest[4095] = '/';
    longest[4097] = 0;
    CHECK(clean(longest) == NULL);
    CHECK(clean("a\033[31m/../../b") == NULL && !strchr(err.message, '\033'));
}

/* ---- Dishonest layers -------------------------------------------------------------------------------------- */

static void test_digests(void)
{
    static uint8_t zipped[sizeof(tar.p) + 1000];
    sample();
    size_t n = gzip(tar.p, tar.n, zipped);
    struct cci_import_spec spec = spec_of("x", 1);
    CHECK(strstr(refused(&spec, tar.p, tar.n), "has the diffID"));
    CHECK(strstr(refused(&spec, zipped, n), "has the diffID"));
    spec = spec_of(tar.p, tar.n);
    spec.has_digest = true;
    spec.digest = cci_digest_of("x", 1);
    spec.size = n;
    CHECK(strstr(refused(&spec, zipped, n), "damaged or exchanged"));
    spec.size = tar.n;
    CHECK(strstr(refused(&spec, tar.p, tar.n), "damaged or exchanged"));
    spec.digest = cci_digest_of(zipped, n);
    spec.size = n - 1;
    CHECK(strstr(refused(&spec, zipped, n), "larger than"));
    spec.size = n + 1;
    CHECK(strstr(refused(&spec, zipped, n), "ends after"));
    spec.size = n;
    spec.media = CCI_MEDIA_LAYER;
    CHECK(strstr(refused(&spec, zipped, n), "is compressed with gzip, but its media type says not compressed"));
}

static void test_formats(void)
{
    static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0}, xz[] = {0xfd, '7', 'z', 'X', 'Z', 0, 0, 0};
    struct cci_import_spec spec = spec_of("x", 1);
    CHECK(strstr(refused(&spec, zstd, sizeof(zstd)), "compressed with zstd, which this program was built without"));
    CHECK(strstr(refused(&spec, xz, sizeof(xz)), "compressed with xz"));
    CHECK(strstr(refused(&spec, (const uint8_t *)"BZh9", 4), "bzip2"));
    spec.media = CCI_MEDIA_LAYER_GZIP;
    sample();
    CHECK(strstr(refused(&spec, tar.p, tar.n), "is not compressed, but its media type says compressed with gzip"));
}

static void test_cut_and_damaged(void)
{
    static uint8_t zipped[sizeof(tar.p) + 1000];
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    size_t n = gzip(tar.p, tar.n, zipped);
    for (size_t cut = 1; cut < n; cut += 7919)
        CHECK(strcmp(refused(&spec, zipped, cut), "(accepted)") != 0);
    for (size_t at = 0; at < n; at += 7907) {
        zipped[at] ^= 0x10;
        const char *message = refused(&spec, zipped, n);
        zipped[at] ^= 0x10;
        if (at >= 10) /* the header has bytes that mean nothing */
            CHECK(strcmp(message, "(accepted)") != 0);
        else
            remove_layers();
    }
}

static void test_bomb(void)
{
    static uint8_t zipped[sizeof(tar.p) + 1000];
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    spec.max_tar = 100000;
    CHECK(strstr(refused(&spec, tar.p, tar.n), "100000 bytes when decompressed"));
    CHECK(strstr(refused(&spec, zipped, gzip(tar.p, tar.n, zipped)), "100000 bytes when decompressed"));
}

static void one(char type, const char *path, const char *link)
{
    tar_begin();
    tar_add(type, path, link, NULL, 0);
    tar_end();
}

static void test_hostile_entries(void)
{
    static const struct {
        char type;
        const char *path, *link, *message;
    } bad[] = {{'0', "../../etc/passwd", "", "path traversal: \"../../etc/passwd\" leads out of the image"},
               {'1', "x", "../../etc/passwd", "path traversal"},
               {'0', "a/../../x", "", "path traversal"},
               {'2', "..", "x", "path traversal"},
               {'0', "d/.wh...", "", "\"..\""},
               {'0', "d/.wh..", "", "\".\""},
               {'0', ".wh.", "", "root is not a directory"},
               {'0', ".", "", "root is not a directory"},
               {'2', "./", "x", "root is not a directory"},
               {'1', "x", "/", "hard link to the root"},
               {'Z', "x", "", "unknown type"}};
    for (size_t i = 0; i < CCI_COUNT(bad); i++) {
        one(bad[i].type, bad[i].path, bad[i].link);
        struct cci_import_spec spec = spec_of(tar.p, tar.n);
        const char *message = refused(&spec, tar.p, tar.n);
        if (!strstr(message, bad[i].message))
            check_fail(__FILE__, __LINE__, message);
    }
}

static void test_abort_anywhere(void)
{
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    for (size_t cut = 0; cut < tar.n; cut += 60000) {
        struct cci_import *im;
        CHECK_OK(cci_import_begin(store, &spec, &im, &err), err);
        CHECK_OK(cci_import_feed(im, tar.p, cut, &err), err);
        cci_import_abort(im);
        CHECK_EQ_INT(store_dir_count("tmp"), 0);
    }
    cci_import_abort(NULL);
    CHECK_EQ_INT(store_dir_count("layers"), 0);
}

/* ---- No memory ---------------------------------------------------------------------------------------------- */

static long allocations_left; /* atomic: two threads allocate */

static void *failing(void *ctx, void *old, size_t size)
{
    if (size && __atomic_sub_fetch(&allocations_left, 1, __ATOMIC_SEQ_CST) < 0)
        return NULL;
    return cci_mem_default_alloc(ctx, old, size);
}

/* With the Nth allocation and all after it failing, for every N: an error, and nothing left. */
static void test_no_memory(void)
{
    struct cci_layer l;
    sample();
    struct cci_import_spec spec = spec_of(tar.p, tar.n);
    for (long n = 0; n < 1000; n++) {
        cci_error_release(&err);
        cci_mem_hook.realloc_fn = failing;
        __atomic_store_n(&allocations_left, n, __ATOMIC_SEQ_CST);
        cc_error_code code = import(&spec, tar.p, tar.n, 30000, &l);
        cci_mem_hook.realloc_fn = cci_mem_default_alloc;
        if (code == CC_OK) {
            cci_layer_close(&l);
            CHECK(n > 10);
            return;
        }
        /* What failed to be removed for want of memory is removed by the next to open the store. */
        struct cci_store *again;
        CHECK_OK(cci_store_open(store_dir, &again, &err), err);
        cci_store_close(again);
        CHECK_EQ_INT(store_dir_count("tmp"), 0);
        remove_layers();
    }
    check_fail(__FILE__, __LINE__, "it does not work even with 1000 allocations");
}

int main(void)
{
    store_dir_make();
    int fds = count_fds();
    CHECK_EQ_INT(cci_store_open(store_dir, &store, &err), CC_OK);
    RUN(test_pieces_of_any_size);
    RUN(test_what_is_in_the_index);
    RUN(test_user_attributes_where_there_are_none);
    RUN(test_empty_layers);
    RUN(test_holes);
    RUN(test_paths);
    RUN(test_digests);
    RUN(test_formats);
    RUN(test_cut_and_damaged);
    RUN(test_bomb);
    RUN(test_hostile_entries);
    RUN(test_abort_anywhere);
    RUN(test_no_memory);
    cci_store_close(store);
    cci_error_release(&err);
    if (count_fds() != fds) {
        printf("not ok no_descriptor_leaked\n");
        return 1;
    }
    store_dir_remove();
    return check_done();
}
