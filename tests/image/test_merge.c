/*
 * Layers over one another: what the OCI image specification's layer.md says, and where it is silent, what umoci does.
 * Each test merges a few layers and compares the tree, written as one line: names in order, "/" behind directories,
 * "@" and the target behind links, "=" and the layer behind files; the contents of a directory in brackets.
 */
#define _GNU_SOURCE
#include "../../src/image/merge.h"
#include "../../src/image/tree_entry.h"
#include "layers.h"

static struct cci_tree tree;
static cc_error err;

static void begin(void)
{
    layer_begin();
    cci_error_release(&err);
    CHECK_OK(cci_tree_init(&tree, &err), err);
}

static cc_error_code merge_end(void)
{
    uint64_t blocks;
    return cci_merge_layer(&tree, index_file(layer_end()), &blocks, &err);
}

static void next(void)
{
    CHECK_OK(merge_end(), err);
}

static bool is_symlink(uint32_t id)
{
    return cci_tree_at(&tree, cci_tree_inode(&tree, id))->type == CCI_INDEX_SYMLINK;
}

/* Of a complete tree. */
static void show(uint32_t dir, char *out, size_t size)
{
    for (uint32_t id = cci_tree_first(&tree, dir); id != CCI_TREE_NONE; id = cci_tree_next(&tree, id)) {
        uint32_t inode = cci_tree_inode(&tree, id);
        struct cci_view text = cci_tree_text(&tree, id);
        size_t n = strlen(out);
        (void)snprintf(out + n, size - n, "%s%.*s", n && out[n - 1] != '[' ? " " : "", (int)text.n,
                       (const char *)text.p);
        n = strlen(out);
        if (is_symlink(id))
            (void)snprintf(out + n, size - n, "@%s", cci_tree_target(&tree, inode));
        else if (cci_tree_is_dir(&tree, id))
            (void)snprintf(out + n, size - n, "/[");
        else
            (void)snprintf(out + n, size - n, "=%u", cci_tree_layer_of(&tree, cci_tree_at(&tree, inode)->entry));
        if (cci_tree_is_dir(&tree, id)) {
            show(id, out, size);
            (void)snprintf(out + strlen(out), size - strlen(out), "]");
        }
    }
}

static uint32_t find(uint32_t dir, const char *name)
{
    return cci_tree_find(&tree, dir, (struct cci_view){(const uint8_t *)name, strlen(name)});
}

static void expect(const char *want)
{
    char got[2000] = "";
    cci_tree_finish(&tree);
    show(CCI_TREE_ROOT, got, sizeof(got));
    cci_tree_free(&tree);
    free_layers();
    CHECK_EQ_STR(got, want);
}

static void expect_error(const char *part)
{
    CHECK(merge_end() == CC_ERR_IO);
    cci_tree_free(&tree);
    free_layers();
    CHECK(err.message && strstr(err.message, part));
    cci_error_release(&err);
}

static void test_whiteout_removes_from_lower_layers(void)
{
    begin();
    layer_dir("etc");
    layer_file("etc/a", 1);
    layer_file("etc/b", 1);
    layer_dir("gone");
    layer_file("gone/x", 1);
    next();
    layer_whiteout("etc/a");
    layer_whiteout("gone");
    layer_whiteout("never/was");
    next();
    expect("etc/[b=0]");
}

static void test_whiteout_leaves_its_own_layer_alone(void)
{
    begin();
    layer_dir("d");
    layer_file("d/a", 1);
    layer_file("d/b", 1);
    layer_file("d/sub/low", 1);
    next();
    layer_file("d/a", 2); /* before its whiteout */
    layer_whiteout("d/a");
    layer_whiteout("d/b");
    layer_file("d/b", 2); /* behind it */
    layer_file("d/sub/new", 1);
    layer_whiteout("d/sub"); /* touched by this layer: only what is below from the lower one goes */
    next();
    expect("d/[sub/[new=1] a=1 b=1]");
}

static void test_opaque_hides_the_lower_contents(void)
{
    begin();
    layer_file("d/a", 1);
    layer_file("d/deep/b", 1);
    layer_file("e/c", 1);
    next();
    layer_file("d/new", 1);
    layer_opaque("d");
    next();
    expect("d/[new=1] e/[c=0]");
}

static void test_opaque_root(void)
{
    begin();
    layer_file("a", 1);
    layer_file("b/c", 1);
    next();
    layer_opaque("");
    layer_file("d", 1);
    next();
    expect("d=1");
}

static void test_types_replace_one_another(void)
{
    begin();
    layer_file("dir/child", 1);
    layer_file("file", 1);
    layer_symlink("link", "dir");
    next();
    layer_file("dir", 1);
    layer_dir("file");
    layer_file("file/inside", 1);
    layer_dir("link");
    next();
    expect("dir=1 file/[inside=1] link/[]");
}

static void test_directory_keeps_contents_and_takes_metadata(void)
{
    begin();
    layer_file("d/a", 1);
    next();
    struct cci_index_entry e = layer_default(CCI_INDEX_DIR, "d");
    e.mode = 01777;
    e.uid = 70000;
    layer_entry(&e);
    e.path = "";
    e.mode = 0700;
    layer_entry(&e);
    next();
    struct cci_tree_reader r;
    struct cci_index_entry got, root;
    CHECK_OK(cci_tree_reader_init(&r, &tree, &err), err);
    uint32_t d = find(CCI_TREE_ROOT, "d");
    CHECK_OK(cci_tree_entry(&r, CCI_TREE_ROOT, cci_tree_at(&tree, CCI_TREE_ROOT)->entry, &root, &err), err);
    CHECK_OK(cci_tree_entry(&r, d, cci_tree_at(&tree, d)->entry, &got, &err), err);
    cci_tree_reader_free(&r);
    expect("d/[a=0]");
    CHECK_EQ_INT(got.mode, 01777);
    CHECK_EQ_INT(got.uid, 70000);
    CHECK_EQ_INT(root.mode, 0700);
}

static void test_later_of_two_in_a_layer_wins(void)
{
    begin();
    layer_file("a", 1);
    layer_symlink("a", "first");
    layer_symlink("a", "second");
    next();
    expect("a@second");
}

static void test_parents_through_links(void)
{
    begin();
    layer_dir("usr/lib");
    layer_symlink("lib", "usr/lib");
    layer_symlink("abs", "/usr");
    layer_symlink("usr/up", "../../../usr/lib"); /* ".." at the root stays there */
    layer_symlink("dangling", "not/there");
    next();
    layer_file("lib/a", 1);
    layer_file("abs/lib/b", 1);
    layer_file("usr/up/c", 1);
    layer_file("dangling/d", 1);
    layer_whiteout("abs/lib/never");
    next();
    layer_whiteout("lib/a");
    layer_whiteout("abs"); /* the link itself */
    next();
    expect("usr/[lib/[b=1 c=1] up@../../../usr/lib] lib@usr/lib dangling@not/there not/[there/[d=1]]");
}

/* What a path led to before is not what it leads to now: links and directories change within a layer. */
static void test_parents_that_change(void)
{
    begin();
    layer_dir("one");
    layer_dir("two");
    layer_symlink("lib", "one");
    layer_file("lib/a", 1);
    layer_symlink("lib", "two");
    layer_file("lib/b", 1);
    layer_dir("lib");
    layer_file("lib/c", 1);
    layer_file("deep/er/d", 1);
    next();
    layer_file("deep/er/e", 1);
    layer_symlink("deep", "one");
    layer_file("deep/er/f", 1);
    layer_whiteout("lib/c");
    layer_whiteout("lib");
    layer_file("lib/g", 1);
    next();
    expect("one/[a=0 er/[f=1]] two/[b=0] deep@one lib/[g=1]");
}

static void test_hard_links(void)
{
    begin();
    layer_file("a", 1);
    layer_hardlink("b", "a");
    next();
    layer_hardlink("c", "b");
    layer_whiteout("a");
    layer_hardlink("c", "c"); /* to itself: nothing happens */
    next();
    uint32_t b = cci_tree_inode(&tree, find(CCI_TREE_ROOT, "b")), c = cci_tree_inode(&tree, find(CCI_TREE_ROOT, "c"));
    bool same = b == c;
    uint32_t links = cci_tree_at(&tree, b)->links;
    expect("b=0 c=0");
    CHECK(same);
    CHECK_EQ_INT(links, 2);
}

static void test_errors_say_what(void)
{
    begin();
    layer_hardlink("b", "nothing");
    expect_error("hard link to something that is not there");
    begin();
    layer_dir("d");
    layer_hardlink("b", "d");
    expect_error("or is a directory");
    begin();
    layer_file("d/a", 1);
    layer_hardlink("d", "d/a");
    expect_error("it replaces");
    begin();
    layer_file("a", 1);
    layer_file("a/b", 1);
    expect_error("what should be its directory is none");
    begin();
    layer_symlink("x", "y");
    layer_symlink("y", "x");
    layer_file("x/b", 1);
    expect_error("too many symbolic links");
}

/* Paths as deep as they can be, directories that go away with all below them: nothing here may recurse. */
static void test_depth(void)
{
    static char path[CCI_INDEX_MAX_PATH + 1];
    begin();
    for (size_t i = 0; i < CCI_INDEX_MAX_PATH; i++)
        path[i] = i % 2 ? '/' : 'd';
    layer_file(path, 1);
    layer_symlink("s", path);
    next();
    CHECK_EQ_INT(tree.name_count, 1 + CCI_INDEX_MAX_PATH / 2 + 1 + 1);
    layer_whiteout("d");
    next();
    uint32_t s = cci_tree_first(&tree, CCI_TREE_ROOT);
    bool only = cci_tree_next(&tree, s) == CCI_TREE_NONE && is_symlink(s);
    cci_tree_free(&tree);
    free_layers();
    CHECK(only);
}

/* Links that lead through thousands of components, over and over: an error, soon. */
static void test_links_cost_is_bounded(void)
{
    static char longest[CCI_INDEX_MAX_PATH + 1];
    begin();
    for (size_t i = 0; i + 1 < sizeof(longest); i += 2)
        memcpy(longest + i, "./", 2);
    longest[sizeof(longest) - 2] = '\0';
    char name[64], target[CCI_INDEX_MAX_PATH + 1];
    for (unsigned i = 0; i < 39; i++) {
        (void)snprintf(name, sizeof(name), "l%u", i);
        size_t n = (size_t)snprintf(target, sizeof(target), "l%u/", i + 1);
        memcpy(target + n, longest, sizeof(longest) - 16);
        target[n + sizeof(longest) - 16] = '\0';
        layer_symlink(name, i < 38 ? target : longest);
    }
    for (unsigned i = 0; i < 5000; i++)
        layer_file("l0/x", 0);
    expect_error("follows too many links");
}

static void test_a_million_whiteouts_cost_is_bounded(void)
{
    char name[64];
    begin();
    for (unsigned i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "f%u", i);
        layer_file(name, 0);
    }
    for (unsigned i = 0; i < 20000; i++)
        layer_opaque("");
    expect_error("repeats too many whiteouts");
}

/* ---- The index itself --------------------------------------------------------------------------------- */

static cc_error_code add(struct cci_index_entry *e)
{
    layer_begin();
    cci_error_release(&err);
    return cci_index_add(&layer_writer, e, &err);
}

static void test_index_refuses_bad_entries(void)
{
    static const char *const paths[] = {"/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "./a"};
    char name[300];
    for (size_t i = 0; i < CCI_COUNT(paths); i++) {
        struct cci_index_entry e = layer_default(CCI_INDEX_FILE, paths[i]);
        CHECK_EQ_INT(add(&e), CC_ERR_IO);
        e = layer_default(CCI_INDEX_HARDLINK, "ok");
        e.target = paths[i];
        CHECK_EQ_INT(add(&e), CC_ERR_IO);
    }
    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    struct cci_index_entry e = layer_default(CCI_INDEX_FILE, name);
    CHECK_EQ_INT(add(&e), CC_ERR_IO);
    e.path = name + 1;
    CHECK_EQ_INT(add(&e), CC_OK);
    e = layer_default(CCI_INDEX_FILE, "");
    CHECK_EQ_INT(add(&e), CC_ERR_IO); /* the root as a file */
    e = layer_default(CCI_INDEX_SYMLINK, "a");
    CHECK_EQ_INT(add(&e), CC_ERR_IO); /* no target */
    e = layer_default(CCI_INDEX_FILE, "a");
    e.size = CCI_INDEX_MAX_SIZE + 1;
    CHECK_EQ_INT(add(&e), CC_ERR_IO);
    e = layer_default(CCI_INDEX_FIFO, "a");
    e.size = 1;
    CHECK_EQ_INT(add(&e), CC_ERR_IO);
    CHECK(err.message && strstr(err.message, "not a regular file"));
    cci_error_release(&err);
    layer_begin();
}

static void test_index_checks_extents(void)
{
    static const struct {
        uint32_t logical, count;
        uint64_t block;
        cc_error_code want;
    } cases[] = {{0, 2, 0, CC_OK},
                 {1, 1, 7, CC_OK},
                 {0, 3, 0, CC_ERR_IO},
                 {2, 1, 0, CC_ERR_IO},
                 {0, 0, 0, CC_ERR_IO},
                 {UINT32_MAX, 1, 0, CC_ERR_IO},
                 {0, 1, UINT64_MAX, CC_ERR_IO}};
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        struct cci_buf list = {NULL, 0, 0, false};
        struct cci_index_entry e = layer_default(CCI_INDEX_FILE, "a");
        e.size = 5000;
        CHECK(cci_index_put_extent(&list, cases[i].logical, cases[i].count, cases[i].block));
        e.extents = (struct cci_view){list.p, list.n};
        CHECK_EQ_INT(add(&e), cases[i].want);
        cci_buf_free(&list);
    }
    cci_error_release(&err);
    layer_begin();
}

/* An index that is full to the byte takes nothing more: sizes are the image's choice. */
static void test_index_has_a_limit(void)
{
    char path[CCI_INDEX_MAX_PATH + 1];
    struct cci_buf xattrs = {NULL, 0, 0, false};
    uint8_t *value = calloc(1, 60000);
    CHECK(value && cci_index_put_xattr(&xattrs, "user.n", 6, value, 60000));
    struct cci_index_entry e = layer_default(CCI_INDEX_FILE, "a");
    e.xattrs = (struct cci_view){xattrs.p, xattrs.n};
    const size_t each = CCI_INDEX_FIXED + 3 + xattrs.n;
    layer_begin();
    while (CCI_INDEX_MAX_BYTES - CCI_MAX(layer_writer.out.n, CCI_INDEX_HEADER) > each + 2000)
        layer_entry(&e);
    e.xattrs.n = 0;
    size_t left = CCI_INDEX_MAX_BYTES - layer_writer.out.n;
    while (left > 3000) {
        layer_entry(&e);
        left = CCI_INDEX_MAX_BYTES - layer_writer.out.n;
    }
    for (size_t i = 0; i < left - CCI_INDEX_FIXED - 2; i++)
        path[i] = i % 2 ? '/' : 'p';
    path[left - CCI_INDEX_FIXED - 2] = '\0';
    if (path[left - CCI_INDEX_FIXED - 3] == '/')
        path[left - CCI_INDEX_FIXED - 3] = 'p';
    e.path = path;
    layer_entry(&e);
    CHECK_EQ_INT(layer_writer.out.n, CCI_INDEX_MAX_BYTES);
    e.path = "b";
    for (int i = 0; i < 3; i++) {
        CHECK_EQ_INT(cci_index_add(&layer_writer, &e, &err), CC_ERR_IO);
        CHECK(strstr(err.message, "too many files"));
        cci_error_release(&err);
    }
    CHECK_EQ_INT(layer_writer.out.n, CCI_INDEX_MAX_BYTES);
    layer_begin();
    cci_buf_free(&xattrs);
    free(value);
}

static void test_xattrs_stay_sorted_and_unique(void)
{
    struct cci_buf set = {NULL, 0, 0, false};
    struct cci_index_xattr x;
    char got[100] = "";
    CHECK(cci_index_put_xattr(&set, "user.b", 6, "1", 1));
    CHECK(cci_index_put_xattr(&set, "user.a", 6, "22", 2));
    CHECK(cci_index_put_xattr(&set, "user.bb", 7, "", 0));
    CHECK(cci_index_put_xattr(&set, "user.b", 6, "333", 3));
    CHECK(!cci_index_check_xattrs((struct cci_view){set.p, set.n}));
    for (struct cci_view v = {set.p, set.n}; cci_index_take_xattr(&v, &x);)
        (void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%.*s=%.*s ", (int)x.name_len, x.name,
                       (int)x.value_len, (const char *)x.value);
    CHECK_EQ_STR(got, "user.a=22 user.b=333 user.bb= ");
    cci_buf_free(&set);
}

static cc_error_code merge_bytes(struct cci_tree *t, struct cci_view v)
{
    uint64_t blocks;
    cc_error_code code = cci_merge_layer(t, index_file(v), &blocks, NULL);
    close(layer_fds[--layer_fd_count]);
    return code;
}

/* Every byte of an index damaged in turn: an error or another index, never a crash (the sanitizers watch). */
static void test_damaged_indexes(void)
{
    layer_begin();
    struct cci_buf xattrs = {NULL, 0, 0, false};
    struct cci_index_entry e = layer_default(CCI_INDEX_SYMLINK, "x/link");
    e.target = "target";
    CHECK(cci_index_put_xattr(&xattrs, "user.name", 9, "value", 5));
    e.xattrs = (struct cci_view){xattrs.p, xattrs.n};
    layer_file("a", 9000);
    layer_entry(&e);
    struct cci_view v = layer_end();
    uint8_t *bytes = layer_kept[layer_kept_count - 1];
    unsigned refused = 0;
    for (size_t cut = 0; cut < v.n; cut++) {
        struct cci_tree t;
        CHECK_OK(cci_tree_init(&t, &err), err);
        CHECK(merge_bytes(&t, (struct cci_view){bytes, cut}) == CC_ERR_IO);
        cci_tree_free(&t);
    }
    for (size_t at = 0; at < v.n * 3; at++) {
        static const uint8_t flips[3] = {0xff, 0x01, 0x80};
        struct cci_tree t;
        CHECK_OK(cci_tree_init(&t, &err), err);
        bytes[at / 3] ^= flips[at % 3];
        refused += merge_bytes(&t, v) != CC_OK;
        bytes[at / 3] ^= flips[at % 3];
        cci_tree_free(&t);
    }
    cci_buf_free(&xattrs);
    free_layers();
    CHECK(refused > v.n);
}

int main(void)
{
    RUN(test_whiteout_removes_from_lower_layers);
    RUN(test_whiteout_leaves_its_own_layer_alone);
    RUN(test_opaque_hides_the_lower_contents);
    RUN(test_opaque_root);
    RUN(test_types_replace_one_another);
    RUN(test_directory_keeps_contents_and_takes_metadata);
    RUN(test_later_of_two_in_a_layer_wins);
    RUN(test_parents_through_links);
    RUN(test_parents_that_change);
    RUN(test_hard_links);
    RUN(test_errors_say_what);
    RUN(test_depth);
    RUN(test_links_cost_is_bounded);
    RUN(test_a_million_whiteouts_cost_is_bounded);
    RUN(test_index_refuses_bad_entries);
    RUN(test_index_checks_extents);
    RUN(test_index_has_a_limit);
    RUN(test_xattrs_stay_sorted_and_unique);
    RUN(test_damaged_indexes);
    return check_done();
}
