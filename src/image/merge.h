/*
 * image/merge.h - the layers of an image, one over the other (OCI image specification, layer.md).
 *
 * Layers are applied from the lowest up, each entry in the order of its archive, onto one tree:
 *
 *   whiteout    removes a path that lower layers made, and leaves what this layer made there, whichever came first
 *   opaque      the same for everything inside a directory
 *   directory   over a directory: takes its mode, owner, time and attributes, and keeps the contents
 *   hard link   a further name for the inode that the target has now; the entry's own mode and owner do not count
 *   otherwise   what was there, a whole directory perhaps, is gone, and the new one takes its place
 *
 * Missing parents are made as 0755 root:root. A parent that is a symbolic link is followed, never out of the root:
 * layers do rely on it (a package that puts files below /lib, on a base where /lib is a link to usr/lib). The last
 * component of a path is never followed. umoci unpacks in the same way, which the tests compare with.
 *
 * What an image can cost: each layer may spend a fixed number of steps on following links and on walking through
 * its own files for whiteouts, far more than an honest one needs.
 */
#ifndef CCI_IMAGE_MERGE_H
#define CCI_IMAGE_MERGE_H

#include "tree.h"

#define CCI_MERGE_MAX_LINKS 40         /* symbolic links on the way to one file, as in Linux */
#define CCI_MERGE_MAX_STEPS (1u << 26) /* a second or so */

struct cci_merge {
    struct cci_tree *tree;
    uint16_t layer;
    uint32_t start;     /* place of the layer's index */
    uint32_t steps;     /* still to spend */
    char *known;        /* a path that led to a directory, mostly the next entry's too: CCI_INDEX_MAX_PATH bytes, */
    size_t known_len;   /* so many of them in use, and */
    uint32_t known_dir; /* that directory; forgotten when a name is removed */
    cc_error *err;
};

static cc_error_code cci_merge_fail(struct cci_merge *m, const struct cci_index_entry *e, const char *why)
{
    return cci_fail(m->err, CC_ERR_IO, e->path, "cannot put layer %u's \"%.200s\" in its place: %s", m->layer + 1,
                    e->path, why);
}

static cc_error_code cci_merge_spend(struct cci_merge *m)
{
    if (m->steps == 0)
        return cci_fail(m->err, CC_ERR_IO, NULL, "layer %u follows too many links or repeats too many whiteouts",
                        m->layer + 1);
    m->steps--;
    return cci_tree_check(m->tree, m->err);
}

static void cci_merge_remove(struct cci_merge *m, uint32_t id)
{
    m->known_dir = CCI_TREE_NONE;
    cci_tree_remove(m->tree, id);
}

/* Marks a name and the directories above it as this layer's. A marked name's directories are marked. */
static void cci_merge_touch(struct cci_merge *m, uint32_t id)
{
    for (; cci_tree_at(m->tree, id)->layer != m->layer; id = cci_tree_at(m->tree, id)->parent)
        cci_tree_at(m->tree, id)->layer = m->layer;
}

static cc_error_code cci_merge_make_dir(struct cci_merge *m, uint32_t parent, struct cci_view name, uint32_t *id)
{
    const struct cci_tree_kind made = {CCI_INDEX_DIR, CCI_TREE_NONE, NULL, true};
    return cci_tree_add(m->tree, parent, name, &made, id, m->err);
}

/* Takes the first component and the slashes behind it off a path. */
static struct cci_view cci_merge_component(struct cci_view *path)
{
    struct cci_view part = *path;
    const uint8_t *slash = path->n ? memchr(path->p, '/', path->n) : NULL;
    part.n = slash ? (size_t)(slash - path->p) : path->n;
    (void)cci_view_take(path, part.n);
    while (path->n && path->p[0] == '/')
        (void)cci_view_take(path, 1);
    return part;
}

/* Where the way to a directory has got to. */
struct cci_merge_way {
    struct cci_view rest[CCI_MERGE_MAX_LINKS + 1]; /* what is to be walked: the path, then each link's target */
    unsigned depth;                                /* the last of them that is in use */
    unsigned links;                                /* links followed so far */
};

/* Goes one component on from directory *at. *at becomes CCI_TREE_NONE when it is not there and `make` is false. */
static cc_error_code cci_merge_step(struct cci_merge *m, const struct cci_index_entry *e, struct cci_merge_way *w,
                                    bool make, uint32_t *at)
{
    struct cci_view part = cci_merge_component(&w->rest[w->depth]);
    if (part.n == 0 || (part.n == 1 && part.p[0] == '.'))
        return CC_OK;
    if (part.n == 2 && part.p[0] == '.' && part.p[1] == '.') {
        *at = cci_tree_at(m->tree, *at)->parent;
        return CC_OK;
    }
    if (part.n > CCI_INDEX_MAX_NAME)
        return cci_merge_fail(m, e, "a link on the way has a name longer than 255 bytes in it");
    uint32_t id = cci_tree_find(m->tree, *at, part);
    if (id == CCI_TREE_NONE && make)
        return cci_merge_make_dir(m, *at, part, at);
    if (id == CCI_TREE_NONE || cci_tree_is_dir(m->tree, id)) {
        *at = id;
        return CC_OK;
    }
    id = cci_tree_inode(m->tree, id);
    bool link = cci_tree_at(m->tree, id)->type == CCI_INDEX_SYMLINK;
    if (!link && make)
        return cci_merge_fail(m, e, "what should be its directory is none");
    if (!link) {
        *at = CCI_TREE_NONE;
        return CC_OK;
    }
    if (w->links == CCI_MERGE_MAX_LINKS)
        return cci_merge_fail(m, e, "too many symbolic links on the way to it");
    const char *target = cci_tree_target(m->tree, id); /* stays where it is */
    w->links++;
    w->rest[++w->depth] = (struct cci_view){(const uint8_t *)target, strlen(target)};
    if (target[0] == '/')
        *at = CCI_TREE_ROOT;
    return CC_OK;
}

/* The directory that `path` leads to, links followed within the root; missing ones are made, or the answer is
 * CCI_TREE_NONE. */
static cc_error_code cci_merge_resolve(struct cci_merge *m, const struct cci_index_entry *e, const char *path, size_t n,
                                       bool make, uint32_t *dir)
{
    struct cci_merge_way w;
    w.rest[0] = (struct cci_view){(const uint8_t *)path, n};
    w.depth = w.links = 0;
    *dir = m->known_dir;
    cc_error_code code = CC_OK;
    if (*dir != CCI_TREE_NONE && n == m->known_len && memcmp(path, m->known, n) == 0)
        return CC_OK;
    *dir = CCI_TREE_ROOT;
    while (code == CC_OK && *dir != CCI_TREE_NONE) {
        while (w.rest[w.depth].n == 0 && w.depth > 0)
            w.depth--;
        if (w.rest[w.depth].n == 0)
            break;
        if (w.links)
            code = cci_merge_spend(m);
        if (code == CC_OK)
            code = cci_merge_step(m, e, &w, make, dir);
    }
    if (code == CC_OK) {
        memcpy(m->known, path, n);
        m->known_len = n;
        m->known_dir = *dir;
    }
    return code;
}

/* Splits a path that is not the root into its directory and its name, and resolves the former. */
static cc_error_code cci_merge_split(struct cci_merge *m, const struct cci_index_entry *e, const char *path, bool make,
                                     uint32_t *dir, struct cci_view *name)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    *name = (struct cci_view){(const uint8_t *)base, strlen(base)};
    return cci_merge_resolve(m, e, path, slash ? (size_t)(slash - path) : 0, make, dir);
}

static uint32_t cci_merge_find(struct cci_merge *m, uint32_t dir, struct cci_view name)
{
    return dir == CCI_TREE_NONE ? CCI_TREE_NONE : cci_tree_find(m->tree, dir, name);
}

/* Removes what lower layers made below `top`, and top itself when it is theirs and not to be kept. */
static cc_error_code cci_merge_hide(struct cci_merge *m, uint32_t top, bool keep_top)
{
    struct cci_tree *t = m->tree;
    if (!keep_top && cci_tree_at(t, top)->layer != m->layer) {
        cci_merge_remove(m, top);
        return CC_OK;
    }
    for (uint32_t id = cci_tree_first(t, top), next; id != CCI_TREE_NONE; id = next) {
        cc_error_code code = cci_merge_spend(m);
        if (code != CC_OK)
            return code;
        if (cci_tree_at(t, id)->layer == m->layer) {
            next = cci_tree_walk(t, id, top);
        } else {
            next = cci_tree_skip(t, id, top);
            cci_merge_remove(m, id);
        }
    }
    return CC_OK;
}

static cc_error_code cci_merge_whiteout(struct cci_merge *m, const struct cci_index_entry *e)
{
    uint32_t at;
    struct cci_view name;
    cc_error_code code;
    if (e->type == CCI_INDEX_OPAQUE) {
        code = cci_merge_resolve(m, e, e->path, strlen(e->path), false, &at);
    } else {
        code = cci_merge_split(m, e, e->path, false, &at, &name);
        if (code == CC_OK)
            at = cci_merge_find(m, at, name);
    }
    if (code != CC_OK || at == CCI_TREE_NONE)
        return code;
    return cci_merge_hide(m, at, e->type == CCI_INDEX_OPAQUE);
}

static cc_error_code cci_merge_hardlink(struct cci_merge *m, const struct cci_index_entry *e, uint32_t dir,
                                        struct cci_view name)
{
    uint32_t target_dir, target, id = cci_merge_find(m, dir, name);
    struct cci_view target_name;
    cc_error_code code = cci_merge_split(m, e, e->target, false, &target_dir, &target_name);
    if (code != CC_OK)
        return code;
    target = cci_merge_find(m, target_dir, target_name);
    if (target == CCI_TREE_NONE || cci_tree_is_dir(m->tree, target))
        return cci_merge_fail(m, e, "it is a hard link to something that is not there, or is a directory");
    if (target != id) {
        const struct cci_tree_kind link = {CCI_INDEX_HARDLINK, cci_tree_inode(m->tree, target), NULL, false};
        if (id != CCI_TREE_NONE)
            cci_merge_remove(m, id);
        if (cci_tree_at(m->tree, link.entry)->links == 0)
            return cci_merge_fail(m, e, "it is a hard link to something that it replaces");
        code = cci_tree_add(m->tree, dir, name, &link, &id, m->err);
    }
    if (code == CC_OK)
        cci_merge_touch(m, id);
    return code;
}

/* Whether the extents fit into the inode as they are: a few, none of them so long that it would be cut. */
static bool cci_merge_is_plain(const struct cci_index_entry *e)
{
    struct cci_view v = e->extents;
    struct cci_index_extent x;
    bool plain = e->xattrs.n == 0 && v.n <= 16 * 4;
    while (plain && cci_index_take_extent(&v, &x))
        plain = x.count <= 32768;
    return plain;
}

static cc_error_code cci_merge_entry(struct cci_merge *m, const struct cci_index_entry *e)
{
    struct cci_tree *t = m->tree;
    uint32_t dir, id = CCI_TREE_ROOT;
    struct cci_view name = {NULL, 0};
    const struct cci_tree_kind kind = {e->type, m->start + e->place, e->type == CCI_INDEX_SYMLINK ? e->target : NULL,
                                       cci_merge_is_plain(e)};
    cc_error_code code = CC_OK;
    if (e->type == CCI_INDEX_WHITEOUT || e->type == CCI_INDEX_OPAQUE)
        return cci_merge_whiteout(m, e);
    if (e->path[0]) {
        code = cci_merge_split(m, e, e->path, true, &dir, &name);
        if (code == CC_OK && e->type == CCI_INDEX_HARDLINK)
            return cci_merge_hardlink(m, e, dir, name);
        if (code != CC_OK)
            return code;
        id = cci_merge_find(m, dir, name);
    }
    if (id != CCI_TREE_NONE && e->type == CCI_INDEX_DIR && cci_tree_is_dir(t, id)) {
        cci_tree_at(t, id)->entry = kind.entry;
        cci_tree_at(t, id)->flags = kind.plain ? CCI_TREE_PLAIN : 0;
    } else {
        if (id != CCI_TREE_NONE)
            cci_merge_remove(m, id);
        code = cci_tree_add(t, dir, name, &kind, &id, m->err);
    }
    if (code == CC_OK)
        cci_merge_touch(m, id);
    return code;
}

static cc_error_code cci_merge_all(struct cci_merge *m, struct cci_index_reader *r)
{
    struct cci_index_entry e;
    bool end = false;
    cc_error_code code = cci_tree_add_layer(m->tree, r, &m->start, m->err);
    while (code == CC_OK && (code = cci_index_next(r, &e, &end, m->err)) == CC_OK && !end) {
        code = cci_tree_check(m->tree, m->err);
        if (code == CC_OK)
            code = cci_merge_entry(m, &e);
    }
    return code;
}

/*
 * Puts the next layer (lowest first) over the tree. The file of its index is the caller's, and stays open until the
 * tree is freed. After a failure the tree is good for nothing but cci_tree_free.
 */
static cc_error_code cci_merge_layer(struct cci_tree *t, cci_fd index, uint64_t *data_blocks, cc_error *err)
{
    struct cci_merge m = {t, (uint16_t)t->layer_count, 0, CCI_MERGE_MAX_STEPS, NULL, 0, CCI_TREE_NONE, err};
    struct cci_index_reader r;
    cc_error_code code = cci_index_open(&r, index, err);
    if (code)
        return code;
    *data_blocks = r.data_blocks;
    cci_tree_at(t, CCI_TREE_ROOT)->layer = m.layer; /* so that touching ends there */
    m.known = cci_mem_alloc(CCI_INDEX_MAX_PATH);
    code = m.known ? cci_merge_all(&m, &r) : cci_fail_nomem(err);
    cci_mem_free(m.known);
    cci_index_close(&r);
    return code;
}

#endif
