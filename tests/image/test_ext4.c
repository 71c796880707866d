// @timeout 120
/*
 * The filesystem writer on trees of awkward shapes, judged by e2fsck, which needs no root; and its parts against values
 * from debugfs. (Contents and metadata through the kernel: test_rootfs.py.) Layer data are sparse files: what is
 * in them does not matter here.
 */
#define _GNU_SOURCE
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/image/merge.h"
#include "../../src/image/rootfs.h"
#include "../../src/image/scratch.h"
#include "layers.h"

static cc_error err;
static const struct cci_wait forever = CCI_WAIT_FOREVER;

/* ---- Parts ---------------------------------------------------------------------------------------------- */

static void test_directory_hash(void)
{
    /* debugfs -R "dx_hash -h half_md4 -s 01020304-0506-0708-090a-0b0c0d0e0f10 NAME" */
    static const uint8_t seed[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    char longest[241] = "";
    for (unsigned i = 0; i < 240; i++)
        longest[i] = "xyz"[i % 3];
    CHECK_EQ_INT(cci_ext4_name_hash(seed, "a", 1), 0x8d08ec4c);
    CHECK_EQ_INT(cci_ext4_name_hash(seed, "hello", 5), 0xe2ddf968);
    CHECK_EQ_INT(cci_ext4_name_hash(seed, "exactly-thirty-two-bytes-long-abc", 33), 0x9e8fc8e0);
    CHECK_EQ_INT(cci_ext4_name_hash(seed, longest, 240), 0x1fda53b2);
}

static void test_crc16(void)
{
    CHECK_EQ_INT(cci_ext4_crc16(0, (const uint8_t *)"123456789", 9), 0xbb3d); /* the CRC-16/ARC check value */
}

static void test_marking_bits(void)
{
    for (unsigned first = 0; first < 20; first++) {
        for (unsigned count = 0; count < 40; count++) {
            uint8_t map[8] = {0};
            cci_ext4_mark(map, first, count);
            for (unsigned i = 0; i < 64; i++)
                CHECK((map[i / 8] >> i % 8 & 1) == (i >= first && i < first + count));
        }
    }
}

static void test_tree_sizes(void)
{
    CHECK_EQ_INT(cci_ext4_tree_blocks(4), 0);
    CHECK_EQ_INT(cci_ext4_tree_blocks(5), 1);
    CHECK_EQ_INT(cci_ext4_tree_blocks(341), 2);
    CHECK_EQ_INT(cci_ext4_tree_blocks(4 * 340), 4);
    CHECK_EQ_INT(cci_ext4_tree_blocks(4 * 340 + 1), 5 + 1);
}

/* ---- Whole filesystems ------------------------------------------------------------------------------------ */

static char dir[200];

/* Writes the filesystem of one layer to "<dir>/fs", data as a hole behind the metadata. */
static cc_error_code write_fs(struct cci_view index, uint64_t *meta)
{
    static const struct cci_ext4_identity id = {
        {1, 2, 3, 4, 5, 6, 0x87, 8, 0x89}, {9, 8, 7}, "test", CCI_EXT4_RO_COMPAT};
    struct cci_tree tree;
    uint64_t blocks = 0;
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/fs", dir);
    CHECK_OK(cci_tree_init(&tree, &err), err);
    cc_error_code code = cci_merge_layer(&tree, index_file(index), &blocks, &err);
    cci_fd fd = cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_TRUNC, 0600);
    if (!code)
        code = cci_ext4_write(&tree, &id, fd, meta, &err);
    if (!code)
        CHECK(cci_os_truncate(fd, *meta + blocks * CCI_EXT4_BLOCK) == 0);
    cci_os_close(fd);
    cci_tree_free(&tree);
    return code;
}

static bool fsck_clean(void)
{
    char command[400];
    (void)snprintf(command, sizeof(command), "PATH=$PATH:/sbin:/usr/sbin e2fsck -fn '%s/fs' >/dev/null 2>&1", dir);
    return system(command) == 0;
}

static void check_fs(void)
{
    uint64_t meta = 0;
    struct cci_view index = layer_end();
    cc_error_code code = write_fs(index, &meta);
    free_layers();
    CHECK_OK(code, err);
    CHECK(fsck_clean());
}

static void test_empty(void)
{
    layer_begin();
    check_fs();
}

static void test_every_type(void)
{
    static const enum cci_index_type types[] = {CCI_INDEX_CHAR, CCI_INDEX_BLOCKDEV, CCI_INDEX_FIFO, CCI_INDEX_SOCKET};
    static const int64_t times[] = {
        0, -1, -2147483648LL, -2147483649LL, 2147483648LL, 15032385535LL, 15032385536LL, INT64_MAX, INT64_MIN};
    char name[300], target[CCI_INDEX_MAX_PATH + 1];
    layer_begin();
    for (unsigned i = 0; i < CCI_COUNT(types); i++) {
        struct cci_index_entry e = layer_default(types[i], "old");
        e.major = i < 2 ? 8 : 0;
        e.minor = i < 2 ? 1 : 0;
        layer_entry(&e);
        e.path = i == 0 ? "c" : i == 1 ? "b" : i == 2 ? "f" : "s";
        e.major = i < 2 ? 4095 : 0;
        e.minor = i < 2 ? 1048575 : 0;
        layer_entry(&e);
    }
    for (unsigned i = 0; i < CCI_COUNT(times); i++) {
        (void)snprintf(name, sizeof(name), "time%u", i);
        struct cci_index_entry e = layer_default(CCI_INDEX_FILE, name);
        e.mtime_sec = times[i];
        e.mtime_nsec = 999999999;
        layer_entry(&e);
    }
    static const size_t lengths[] = {1, 59, 60, 61, 4095};
    for (unsigned i = 0; i < CCI_COUNT(lengths); i++) {
        memset(target, 't', sizeof(target));
        target[lengths[i]] = '\0';
        (void)snprintf(name, sizeof(name), "link%u", i);
        layer_symlink(name, target);
    }
    check_fs();
}

/* Data in every other block: pieces of one block each. */
static void fragmented_file(const char *path, uint32_t pieces)
{
    struct cci_buf extents = {NULL, 0, 0, false};
    struct cci_index_entry e = layer_default(CCI_INDEX_FILE, path);
    for (uint32_t i = 0; i < pieces; i++)
        CHECK(cci_index_put_extent(&extents, 2 * i + 1, 1, layer_data / CCI_INDEX_BLOCK + i));
    layer_data += (uint64_t)pieces * CCI_INDEX_BLOCK;
    e.size = (uint64_t)pieces * 2 * CCI_INDEX_BLOCK + 100; /* ends in a hole */
    e.extents = (struct cci_view){extents.p, extents.n};
    layer_entry(&e);
    cci_buf_free(&extents);
}

static void test_extent_trees(void)
{
    char name[32];
    static const uint32_t pieces[] = {1, 4, 5, 340, 341, 1360, 1361, 340 * 340, 4 * 340 * 340 + 1};
    layer_begin();
    for (unsigned i = 0; i < CCI_COUNT(pieces); i++) {
        (void)snprintf(name, sizeof(name), "pieces%u", i);
        fragmented_file(name, pieces[i]);
    }
    check_fs();
}

static void test_large_files_and_many_groups(void)
{
    layer_begin();
    layer_file("exact", 32768ull * 4096);
    layer_file("more", 32768ull * 4096 + 1);
    layer_file("huge", 40ull << 30); /* 321 groups: more than one block of descriptors, two levels of extents */
    check_fs();
}

/* The end of the data anywhere around the end of a group. */
static void test_group_ends(void)
{
    for (unsigned i = 0; i < 12; i++) {
        layer_begin();
        layer_file("a", (32768ull - 12 + i) * 4096);
        check_fs();
    }
}

static void names(const char *dir_name, unsigned count, unsigned pad, enum cci_index_type type)
{
    char path[600];
    for (unsigned i = 0; i < count; i++) {
        int n = snprintf(path, sizeof(path), "%s/%u-", dir_name, i);
        memset(path + n, 'p', pad);
        path[n + (int)pad] = '\0';
        layer_simple(type, path);
    }
}

static void test_directory_sizes(void)
{
    char name[16];
    layer_begin();
    for (unsigned i = 0; i < 30; i++) { /* around the end of the first block, and of a root's 508 leaves */
        (void)snprintf(name, sizeof(name), "s%u", i);
        names(name, 180 + i, 5, CCI_INDEX_FILE);
    }
    names("few", 60, 200, CCI_INDEX_FIFO);
    names("two-levels", 100000, 10, CCI_INDEX_FILE);
    names("long", 8000, 240, CCI_INDEX_FILE);
    check_fs();
}

/* A directory around where the index becomes two levels high. */
static void test_index_levels(void)
{
    for (unsigned i = 0; i < 3; i++) {
        layer_begin();
        names("d", 7600 + 5 * i, 244, CCI_INDEX_FILE); /* 15 or 16 a leaf */
        check_fs();
    }
}

static void test_many_subdirectories(void)
{
    layer_begin();
    names("d", 65010, 0, CCI_INDEX_DIR); /* more than a link count can say */
    check_fs();
}

static void test_too_many_links(void)
{
    char name[32];
    uint64_t meta;
    layer_begin();
    layer_file("a", 1);
    for (unsigned i = 0; i < 65000; i++) {
        (void)snprintf(name, sizeof(name), "l%u", i);
        layer_hardlink(name, "a");
    }
    struct cci_view v = layer_end();
    CHECK_EQ_INT(write_fs(v, &meta), CC_ERR_IO);
    CHECK(err.message && strstr(err.message, "more than 65000 names"));
    cci_error_release(&err);
    free_layers();
}

static void file_with_xattrs(const char *path, unsigned count, size_t size, uint8_t fill)
{
    static uint8_t value[65536];
    struct cci_buf set = {NULL, 0, 0, false};
    struct cci_index_entry e = layer_default(CCI_INDEX_FILE, path);
    char name[32];
    memset(value, fill, sizeof(value));
    for (unsigned i = 0; i < count; i++) {
        int n = snprintf(name, sizeof(name), "user.name%u", i);
        CHECK(cci_index_put_xattr(&set, name, (size_t)n, value, size));
    }
    e.xattrs = (struct cci_view){set.p, set.n};
    layer_entry(&e);
    cci_buf_free(&set);
}

static void test_attributes(void)
{
    char name[32];
    layer_begin();
    for (unsigned i = 0; i < 3000; i++) { /* shared blocks, more often than one block may be */
        (void)snprintf(name, sizeof(name), "shared%u", i);
        file_with_xattrs(name, 2, 100, 's');
    }
    for (unsigned i = 0; i < 100; i++) { /* around what fits into an inode */
        (void)snprintf(name, sizeof(name), "inode%u", i);
        file_with_xattrs(name, 1, i, 'i');
    }
    file_with_xattrs("full", 1, 4096 - 32 - 4 - 16 - 8, 'f');
    file_with_xattrs("both", 2, 4096 - 32 - 4 - 16 - 8, 'b'); /* too large: replaced below */
    file_with_xattrs("both", 1, 4000, 'b');
    file_with_xattrs("many", 93, 20, 'm'); /* the block alone is too small */
    file_with_xattrs("empty", 3, 0, 'e');
    check_fs();
}

static void test_attributes_too_large(void)
{
    static const struct {
        unsigned count;
        size_t size;
    } cases[] = {{1, 4100}, {2, 3000}, {120, 20}, {300, 0}, {1, 60000}};
    for (unsigned i = 0; i < CCI_COUNT(cases); i++) {
        uint64_t meta;
        layer_begin();
        file_with_xattrs("dir/the-file", cases[i].count, cases[i].size, 'x');
        struct cci_view v = layer_end();
        CHECK_EQ_INT(write_fs(v, &meta), CC_ERR_IO);
        CHECK(err.message && strstr(err.message, "dir/the-file") && strstr(err.message, "4096"));
        cci_error_release(&err);
        free_layers();
    }
}

/* A list that Linux could not read makes a file that nobody can open. */
static void test_access_control_lists(void)
{
    static const uint8_t good[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
    static const struct {
        size_t at, n;
        uint8_t byte;
    } cases[] = {{0, 20, 2}, {0, 20, 1},   {0, 19, 2}, {0, 2, 2}, {4, 20, 3},
                 {4, 20, 0}, {12, 20, 64}, {6, 20, 8}, {7, 20, 1}};
    static const char name[] = "system.posix_acl_access";
    for (unsigned i = 0; i < CCI_COUNT(cases); i++) {
        uint64_t meta;
        uint8_t value[sizeof(good)];
        struct cci_buf set = {NULL, 0, 0, false};
        struct cci_index_entry e = layer_default(CCI_INDEX_FILE, "the-file");
        memcpy(value, good, sizeof(good));
        value[cases[i].at] = cases[i].byte;
        CHECK(cci_index_put_xattr(&set, name, sizeof(name) - 1, value, cases[i].n));
        e.xattrs = (struct cci_view){set.p, set.n};
        layer_begin();
        layer_entry(&e);
        struct cci_view v = layer_end();
        CHECK_EQ_INT(write_fs(v, &meta), i == 0 ? CC_OK : CC_ERR_IO);
        CHECK(i == 0 || (err.message && strstr(err.message, "access control list is malformed: \"/the-file\"")));
        cci_error_release(&err);
        cci_buf_free(&set);
        free_layers();
    }
}

static void test_too_large_for_a_disk(void)
{
    uint64_t meta;
    layer_begin();
    struct cci_buf extents = {NULL, 0, 0, false};
    struct cci_index_entry e = layer_default(CCI_INDEX_FILE, "a");
    e.size = CCI_INDEX_MAX_SIZE;
    CHECK(cci_index_put_extent(&extents, 0, UINT32_MAX, 0));
    e.extents = (struct cci_view){extents.p, extents.n};
    layer_entry(&e);
    layer_data = CCI_INDEX_MAX_SIZE;
    struct cci_view v = layer_end();
    CHECK_EQ_INT(write_fs(v, &meta), CC_ERR_IO);
    CHECK(err.message && strstr(err.message, "16 TiB"));
    cci_error_release(&err);
    cci_buf_free(&extents);
    free_layers();
}

/* Every byte of an index changed after it was merged: an error, or a filesystem of other files, never a crash. */
static void test_an_index_that_changes(void)
{
    static const struct cci_ext4_identity id = {{1}, {2}, "test", CCI_EXT4_RO_COMPAT};
    char target[100];
    unsigned refused = 0;
    layer_begin();
    fragmented_file("f", 5);
    file_with_xattrs("x", 1, 200, 'x'); /* in a block, */
    file_with_xattrs("y", 1, 200, 'x'); /* which is shared, */
    file_with_xattrs("z", 1, 20, 'z');  /* in the inode */
    memset(target, 't', sizeof(target));
    target[sizeof(target) - 1] = '\0';
    layer_symlink("l", target);
    layer_dir("d");
    layer_file("d/plain", 5000);
    struct cci_view v = layer_end();
    cci_fd index = index_file(v), out = cci_os_tmpfile(dir);
    CHECK(out >= 0);
    for (size_t at = 0; at < v.n; at++) {
        struct cci_tree tree;
        uint64_t blocks, size;
        uint8_t other = v.p[at] ^ (at % 2 ? 0x01 : 0xff);
        CHECK_OK(cci_tree_init(&tree, &err), err);
        CHECK_OK(cci_merge_layer(&tree, index, &blocks, &err), err);
        CHECK(cci_os_pwrite_all(index, &other, 1, at) == 0);
        cc_error_code code = cci_ext4_write(&tree, &id, out, &size, &err);
        CHECK(code == CC_OK || (code == CC_ERR_IO && strstr(err.message, "damaged")) ||
              (code == CC_ERR_IO && strstr(err.message, "cannot store a file")));
        refused += code != CC_OK;
        CHECK(cci_os_pwrite_all(index, v.p + at, 1, at) == 0);
        cci_error_release(&err);
        cci_tree_free(&tree);
    }
    struct cci_tree cut;
    uint64_t blocks, size;
    CHECK_OK(cci_tree_init(&cut, &err), err);
    CHECK_OK(cci_merge_layer(&cut, index, &blocks, &err), err);
    CHECK(cci_os_truncate(index, v.n / 2) == 0);
    CHECK_EQ_INT(cci_ext4_write(&cut, &id, out, &size, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "it changed while it was read"));
    cci_error_release(&err);
    cci_tree_free(&cut);
    cci_os_close(out);
    free_layers();
    CHECK(refused > v.n / 4);
}

/* ---- Memory --------------------------------------------------------------------------------------------------- */

static size_t in_use, most_in_use;

/* Counts what is in use; the size is in front of each piece. */
static void *counting(void *ctx, void *old, size_t size)
{
    size_t *head = old ? (size_t *)old - 2 : NULL;
    (void)ctx;
    in_use -= head ? *head : 0;
    if (size == 0) {
        free(head);
        return NULL;
    }
    head = realloc(head, size + 2 * sizeof(*head));
    *head = size;
    in_use += size;
    most_in_use = CCI_MAX(most_in_use, in_use);
    return head + 2;
}

/* The most that making a filesystem of so many files takes, in directories of `each`. */
static size_t memory_of(unsigned files, unsigned each)
{
    cc_allocator usual = cci_mem_hook;
    char name[20];
    uint64_t meta;
    layer_begin();
    for (unsigned i = 0; i < files / each; i++) {
        (void)snprintf(name, sizeof(name), "directory%u", i);
        names(name, each, 8, CCI_INDEX_FILE);
    }
    struct cci_view v = layer_end();
    in_use = most_in_use = 0;
    cci_mem_hook.realloc_fn = counting;
    cc_error_code code = write_fs(v, &meta);
    cci_mem_hook = usual;
    free_layers();
    CHECK_OK(code, err);
    CHECK_EQ_INT(in_use, 0);
    return most_in_use;
}

/* A file's record, name (here 14 bytes), number and slot are about 50 bytes; its entry in the index, 100 and more, and
 * its inode, 256, are not held. A directory's names are sorted by themselves. */
static void test_memory_for_each_file(void)
{
    size_t few = memory_of(20000, 100), many = memory_of(200000, 100), flat = memory_of(200000, 200000);
    CHECK(few < (6u << 20));
    CHECK((many - few) / 180000 < 64);
    CHECK((flat - few) / 180000 < 72);
}

/* ---- The root filesystem in its store ------------------------------------------------------------------------ */

static struct cci_store *store;
static struct cci_layer layers[2];

static void put_layer(struct cci_layer *l, char digit, struct cci_view index)
{
    char hex[65], path[600];
    struct cci_digest id;
    bool found = false;
    memset(hex, digit, 64);
    hex[64] = '\0';
    CHECK(cci_digest_from_hex(hex, 64, &id));
    for (unsigned file = 0; file < 2; file++) {
        (void)snprintf(path, sizeof(path), "%s/layers/%s", store->dir, hex);
        (void)cci_os_mkdir(path, 0700);
        (void)snprintf(path, sizeof(path), "%s/layers/%s/%s", store->dir, hex, file ? "data" : "index");
        cci_fd fd = cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_TRUNC, 0600);
        CHECK(fd >= 0);
        if (file)
            CHECK(cci_os_truncate(fd, cci_le64(index.p + 24) * CCI_INDEX_BLOCK) == 0);
        else
            CHECK(cci_os_pwrite_all(fd, index.p, index.n, 0) == 0);
        cci_os_close(fd);
    }
    CHECK_OK(cci_store_layer_open(store, &id, l, &found, &err), err);
    CHECK(found);
}

static void open_store(void)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/cache", dir);
    CHECK_OK(cci_store_open(path, &store, &err), err);
    layer_begin();
    layer_file("a/b", 10000);
    layer_file("c", 100);
    put_layer(&layers[0], '1', layer_end());
    layer_begin();
    layer_whiteout("c");
    names("d", 300, 20, CCI_INDEX_FILE);
    file_with_xattrs("x", 1, 500, 'x');
    put_layer(&layers[1], '2', layer_end());
    free_layers();
}

static void close_store(void)
{
    cci_layer_close(&layers[0]);
    cci_layer_close(&layers[1]);
    cci_store_close(store);
}

static char *meta_path(void)
{
    struct cci_digest chain = cci_rootfs_chain_id(layers, 2);
    return cci_mem_printf("%s/rootfs/%s.%u", store->dir, cci_digest_spell(&chain).text + 7, CCI_ROOTFS_VERSION);
}

/* Opens the disk and returns a digest of its metadata. */
static struct cci_digest open_rootfs(void)
{
    struct cci_disk disk;
    static uint8_t buf[1 << 20];
    CHECK_OK(cci_rootfs_open(store, layers, 2, &forever, &disk, &err), err);
    CHECK_EQ_INT(disk.count, 2); /* the second layer has no data */
    CHECK(!disk.writable && disk.size == disk.segments[0].length + disk.segments[1].length);
    CHECK(disk.segments[0].length <= sizeof(buf));
    CHECK(disk.segments[1].start == disk.segments[0].length && disk.segments[1].length == 4 * 4096);
    int64_t n = cci_os_pread_all(disk.segments[0].fd, buf, sizeof(buf), 0);
    CHECK_EQ_INT(n, disk.segments[0].length);
    cci_disk_free(&disk);
    return cci_digest_of(buf, (size_t)n);
}

static void test_rootfs_is_cached_and_repeatable(void)
{
    struct cci_os_stat first, second, third;
    open_store();
    char *path = meta_path();
    struct cci_digest a = open_rootfs();
    CHECK(cci_os_stat(path, &first) == 0);
    struct cci_digest b = open_rootfs();
    CHECK(cci_os_stat(path, &second) == 0);
    CHECK(first.inode == second.inode && first.mtime_ns == second.mtime_ns);
    CHECK(truncate(path, 8192) == 0); /* damaged: made again */
    struct cci_digest c = open_rootfs();
    CHECK(cci_os_stat(path, &third) == 0);
    CHECK(third.size == first.size);
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0); /* and this is not waited for */
    struct cci_digest d = open_rootfs();
    CHECK(cci_digest_equal(&a, &b) && cci_digest_equal(&a, &c) && cci_digest_equal(&a, &d));
    cci_mem_free(path);
    close_store();
}

/* An index with a wrong byte in its midst: which layer it is must be said, for it is to be removed. */
static void test_rootfs_of_a_damaged_index(void)
{
    struct cci_disk disk;
    open_store();
    char *path = cci_layer_file(layers[1].path, "index"), *meta = meta_path();
    CHECK(unlink(meta) == 0); /* the test before made it */
    cci_fd fd = cci_os_open(path, CCI_OS_WRONLY, 0);
    CHECK(fd >= 0 && cci_os_pwrite_all(fd, "\xff", 1, CCI_INDEX_HEADER + 4) == 0);
    cci_os_close(fd);
    CHECK_EQ_INT(cci_rootfs_open(store, layers, 2, &forever, &disk, &err), CC_ERR_IO);
    CHECK(err.message && strstr(err.message, "damaged (its type is unknown)"));
    CHECK_EQ_STR(err.path, layers[1].path);
    cci_error_release(&err);
    cci_mem_free(path);
    cci_mem_free(meta);
    close_store();
}

static void test_chain_id(void)
{
    struct cci_layer chain[3];
    for (unsigned i = 0; i < 3; i++)
        memset(chain[i].diff_id.bytes, (int)(0x11 * (i + 1)), 32);
    struct cci_digest one = cci_rootfs_chain_id(chain, 1), three = cci_rootfs_chain_id(chain, 3);
    char text[200], hex[65];
    CHECK(cci_digest_equal(&one, &chain[0].diff_id));
    struct cci_digest two = cci_rootfs_chain_id(chain, 2);
    cci_sha256_hex(two.bytes, hex);
    (void)snprintf(text, sizeof(text), "sha256:%s sha256:%064d", hex, 0);
    memset(text + 71 + 1 + 7, '3', 64);
    struct cci_digest want = cci_digest_of(text, 71 + 1 + 71);
    CHECK(cci_digest_equal(&three, &want));
}

static void test_no_layers(void)
{
    struct cci_disk disk;
    open_store();
    CHECK_OK(cci_rootfs_open(store, NULL, 0, &forever, &disk, &err), err);
    CHECK_EQ_INT(disk.count, 1);
    cci_disk_free(&disk);
    close_store();
}

static unsigned allocations;
static unsigned fail_at;

static void *failing(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(old);
        return NULL;
    }
    return ++allocations == fail_at ? NULL : realloc(old, size);
}

/* Each allocation fails once: an error, nothing lost (the sanitizer counts), nothing left in the store. */
static void test_every_allocation_may_fail(void)
{
    cc_allocator usual = cci_mem_hook;
    cc_error_code code = CC_ERR_UNKNOWN;
    open_store();
    char *path = meta_path();
    for (fail_at = 1; code && fail_at < 1000; fail_at++) {
        struct cci_disk disk;
        (void)unlink(path);
        allocations = 0;
        cci_mem_hook.realloc_fn = failing;
        code = cci_rootfs_open(store, layers, 2, &forever, &disk, &err);
        cci_mem_hook = usual;
        if (code)
            CHECK(disk.count == 0);
        cci_disk_free(&disk);
        cci_error_release(&err);
    }
    CHECK(!code && fail_at > 15);
    cci_mem_free(path);
    close_store();
}

/* A hundred thousand names: making the metadata ends with the wait, wherever it has got to, and leaves nothing. */
static void test_making_metadata_ends_with_the_wait(void)
{
    struct cci_wait wait = {CCI_FOREVER, cci_cancel_new()};
    struct cci_disk disk;
    cc_error_code code = CC_ERR_TIMEOUT;
    char path[300];
    int timeouts = 0;
    (void)snprintf(path, sizeof(path), "%s/cache/tmp", dir);
    open_store();
    layer_begin();
    for (int i = 0; i < 100; i++) {
        char name[20];
        (void)snprintf(name, sizeof(name), "n%d", i);
        names(name, 1000, 30, CCI_INDEX_FILE);
    }
    cci_layer_close(&layers[1]);
    put_layer(&layers[1], '3', layer_end());
    free_layers();
    cci_cancel_fire(wait.cancel);
    CHECK_EQ_INT(cci_rootfs_open(store, layers, 2, &wait, &disk, &err), CC_ERR_CANCELLED);
    CHECK_EQ_INT(disk.count, 0);
    cci_error_release(&err);
    cci_cancel_unref(wait.cancel);
    wait.cancel = NULL;
    for (uint64_t us = 500; code == CC_ERR_TIMEOUT; us += us / 4) {
        wait.deadline = cci_os_now() + us * 1000;
        code = cci_rootfs_open(store, layers, 2, &wait, &disk, &err);
        timeouts += code == CC_ERR_TIMEOUT;
        CHECK_EQ_INT(rmdir(path), 0); /* nothing is left in it */
        CHECK_EQ_INT(mkdir(path, 0700), 0);
        cci_error_release(&err);
    }
    CHECK_EQ_INT(code, CC_OK);
    CHECK(timeouts > 3);
    cci_disk_free(&disk);
    close_store();
}

/* Each stage of the writing looks. */
static void test_writing_ends_with_the_wait(void)
{
    struct cci_wait wait = {CCI_FOREVER, cci_cancel_new()};
    const struct cci_ext4_identity id = {{0}, {0}, "", CCI_EXT4_RO_COMPAT};
    uint64_t size, stopped = 0;
    cci_cancel_fire(wait.cancel);
    cc_error_code code = CC_ERR_CANCELLED;
    for (uint32_t ahead = 1; code == CC_ERR_CANCELLED; ahead += 1 + ahead / 8, stopped++) {
        struct cci_tree tree;
        uint64_t data;
        layer_begin();
        names("d", 300, 20, CCI_INDEX_DIR);
        names("e", 300, 20, CCI_INDEX_FILE);
        struct cci_view index = layer_end();
        CHECK_OK(cci_tree_init(&tree, &err), err);
        CHECK_OK(cci_merge_layer(&tree, index_file(index), &data, &err), err);
        tree.wait = &wait;
        tree.turns = CCI_TREE_TURNS - ahead; /* the only look is at this name */
        cci_fd fd = cci_os_tmpfile(dir);
        CHECK(fd >= 0);
        code = cci_ext4_write(&tree, &id, fd, &size, &err);
        CHECK(code == CC_OK || code == CC_ERR_CANCELLED);
        cci_error_release(&err);
        cci_os_close(fd);
        cci_tree_free(&tree);
        free_layers();
    }
    CHECK(stopped > 20);
    cci_cancel_unref(wait.cancel);
}

/* ---- Scratch --------------------------------------------------------------------------------------------------- */

static void test_scratch_sizes(void)
{
    static const uint64_t sizes[] = {16ull << 20,           100ull << 20,
                                     (128ull << 20) + 4096, (256ull << 20) + 12345,
                                     16ull << 30,           (16ull << 30) + (5ull << 20),
                                     300ull << 30};
    static const uint8_t seed[32] = {1, 2, 3};
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/fs", dir);
    for (unsigned i = 0; i < CCI_COUNT(sizes); i++) {
        struct cci_os_stat st;
        cci_fd fd = cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_TRUNC, 0600);
        CHECK_OK(cci_scratch_format(fd, sizes[i], seed, 1700000000, &err), err);
        CHECK(cci_os_fstat(fd, &st) == 0 && st.size == sizes[i] / 4096 * 4096);
        CHECK(st.allocated <= (300u << 10));
        cci_os_close(fd);
        CHECK(fsck_clean());
    }
}

static void test_scratch_limits(void)
{
    struct cci_disk disk;
    CHECK_EQ_INT(cci_scratch_new(dir, 1 << 20, &disk, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cci_scratch_new(dir, UINT64_MAX, &disk, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cci_scratch_new("/nonexistent", CCI_SCRATCH_SIZE, &disk, &err), CC_ERR_IO);
    CHECK(err.message && strstr(err.message, "/nonexistent"));
    cci_error_release(&err);
    CHECK_OK(cci_scratch_new(dir, CCI_SCRATCH_SIZE, &disk, &err), err);
    CHECK(disk.writable && disk.count == 1 && disk.size == CCI_SCRATCH_SIZE);
    cci_disk_free(&disk);
}

/* e2fsck has to notice something wrong, or the tests above prove nothing. */
static void test_the_judge_is_awake(void)
{
    char path[300];
    uint64_t meta;
    layer_begin();
    layer_file("a", 100);
    CHECK_OK(write_fs(layer_end(), &meta), err);
    free_layers();
    CHECK(fsck_clean());
    (void)snprintf(path, sizeof(path), "%s/fs", dir);
    cci_fd fd = cci_os_open(path, CCI_OS_RDWR, 0);
    CHECK(cci_os_pwrite_all(fd, "\1", 1, 2 * 4096 + 100) == 0); /* a free block, marked as used */
    cci_os_close(fd);
    CHECK(!fsck_clean());
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/cc-ext4-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return 2;
    RUN(test_directory_hash);
    RUN(test_crc16);
    RUN(test_marking_bits);
    RUN(test_tree_sizes);
    RUN(test_the_judge_is_awake);
    RUN(test_empty);
    RUN(test_every_type);
    RUN(test_extent_trees);
    RUN(test_large_files_and_many_groups);
    RUN(test_group_ends);
    RUN(test_directory_sizes);
    RUN(test_index_levels);
    RUN(test_many_subdirectories);
    RUN(test_too_many_links);
    RUN(test_attributes);
    RUN(test_attributes_too_large);
    RUN(test_access_control_lists);
    RUN(test_too_large_for_a_disk);
    RUN(test_an_index_that_changes);
    RUN(test_memory_for_each_file);
    RUN(test_rootfs_is_cached_and_repeatable);
    RUN(test_rootfs_of_a_damaged_index);
    RUN(test_chain_id);
    RUN(test_no_layers);
    RUN(test_every_allocation_may_fail);
    RUN(test_making_metadata_ends_with_the_wait);
    RUN(test_writing_ends_with_the_wait);
    RUN(test_scratch_sizes);
    RUN(test_scratch_limits);
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (system(command) != 0)
        return 1;
    return check_done();
}
