/*
 * image/ext4_plan.h - numbers for inodes, and places for every block of metadata, before anything is written.
 *
 * Inodes are numbered directory by directory, so that those of one directory lie side by side in the table, and the
 * directories' blocks follow one another in the same order: what a boot reads first lies close together. Behind the
 * directories come link targets that are too long for an inode and nodes of large extent trees, then attribute blocks.
 * All of these are the "tail" of ext4_layout.h and are numbered from its beginning, because where it begins follows
 * from its size: more blocks need more groups, and those need more descriptors and bitmaps.
 */
#ifndef CCI_IMAGE_EXT4_PLAN_H
#define CCI_IMAGE_EXT4_PLAN_H

#include "ext4_dir.h"
#include "ext4_extent.h"
#include "ext4_xattr.h"

#define CCI_EXT4_FAST_LINK 60u /* link targets shorter than this are in the inode */

/* A block of attributes, and who has the same. */
struct cci_ext4_shared {
    struct cci_view xattrs; /* as in the index; equal sets are equal bytes */
    uint32_t block;         /* place in the tail */
    uint32_t refs;
    uint32_t chain; /* next in the hash slot */
};

struct cci_ext4_plan {
    struct cci_tree *t;
    const struct cci_ext4_identity *id;
    cc_error *err;
    struct cci_ext4_geometry g;
    uint32_t *order; /* inodes of the tree by number, from CCI_EXT4_FIRST_INODE */
    uint32_t order_count;
    uint32_t *dirs; /* names of directories, in the order of their blocks */
    uint32_t dir_count;
    uint32_t tail_blocks; /* metadata that is not in tables */
    struct cci_ext4_shared *shared;
    uint32_t shared_count, shared_cap;
    uint32_t *shared_slots;        /* hash table over them, of shared_cap slots */
    uint64_t *layers;              /* the first block of each layer's data */
    uint8_t *block_map;            /* a bit for each block, whole groups */
    struct cci_ext4_xattrs xattrs; /* the ones being looked at (a few KiB, too large for the stack) */
};

/* ---- Numbers ------------------------------------------------------------------------------------------------ */

static void cci_ext4_number_children(struct cci_ext4_plan *p, uint32_t dir)
{
    struct cci_tree *t = p->t;
    for (uint32_t id = t->names[dir].first; id != CCI_TREE_NONE; id = t->names[id].next) {
        struct cci_tree_inode *inode = cci_tree_inode(t, id);
        if (inode->number)
            continue; /* another name of the same file came first */
        inode->number = CCI_EXT4_FIRST_INODE + p->order_count;
        inode->name = id;
        p->order[p->order_count++] = t->names[id].inode;
    }
}

static cc_error_code cci_ext4_plan_numbers(struct cci_ext4_plan *p)
{
    struct cci_tree *t = p->t;
    p->order = cci_mem_zalloc(t->inode_count, sizeof(*p->order));
    p->dirs = cci_mem_zalloc(t->name_count, sizeof(*p->dirs));
    if (!p->order || !p->dirs)
        return cci_fail_nomem(p->err);
    cc_error_code code = CC_OK;
    cci_tree_inode(t, CCI_TREE_ROOT)->number = CCI_EXT4_ROOT_INODE;
    for (uint32_t id = CCI_TREE_ROOT; id != CCI_TREE_NONE && !code; id = cci_tree_walk(t, id, CCI_TREE_ROOT)) {
        code = cci_tree_check(t, p->err);
        if (!cci_tree_is_dir(t, id))
            continue;
        p->dirs[p->dir_count++] = id;
        cci_ext4_number_children(p, id);
    }
    return code;
}

/* ---- Blocks --------------------------------------------------------------------------------------------------- */

/* A run of blocks as a list of one extent. */
struct cci_ext4_run {
    uint8_t raw[16];
};

static struct cci_view cci_ext4_run_of(struct cci_ext4_run *run, uint32_t first, uint32_t count)
{
    struct cci_view v = {run->raw, sizeof(run->raw)};
    cci_put_le32(run->raw, 0);
    cci_put_le32(run->raw + 4, count);
    cci_put_le64(run->raw + 8, first);
    return v;
}

static bool cci_ext4_is_slow_link(const struct cci_tree_inode *inode)
{
    return cci_tree_type(inode) == CCI_INDEX_SYMLINK && strlen(cci_tree_meta(inode).target) >= CCI_EXT4_FAST_LINK;
}

/* Gives an inode its next blocks of the tail: for contents, and for an extent tree of so many pieces. */
static cc_error_code cci_ext4_take_tail(struct cci_ext4_plan *p, struct cci_tree_inode *inode, uint32_t content,
                                        uint64_t pieces)
{
    uint64_t nodes = cci_ext4_tree_blocks(pieces);
    if (content + nodes > UINT32_MAX / 2 - p->tail_blocks)
        return cci_fail(p->err, CC_ERR_IO, NULL, "the image has too much metadata for one filesystem");
    inode->blocks = p->tail_blocks;
    inode->content_count = content;
    inode->node_count = (uint32_t)nodes;
    p->tail_blocks += content + (uint32_t)nodes;
    return CC_OK;
}

static cc_error_code cci_ext4_plan_dir(struct cci_ext4_plan *p, uint32_t dir)
{
    uint32_t blocks;
    uint64_t sum;
    struct cci_ext4_run run;
    cc_error_code code = cci_tree_check(p->t, p->err);
    if (code == CC_OK)
        code = cci_ext4_dir(p->t, dir, p->id->hash_seed, NULL, &blocks, p->err);
    if (code != CC_OK)
        return code;
    uint64_t pieces = cci_ext4_count_pieces(cci_ext4_run_of(&run, 0, blocks), &sum);
    return cci_ext4_take_tail(p, cci_tree_inode(p->t, dir), blocks, pieces);
}

static cc_error_code cci_ext4_plan_inode(struct cci_ext4_plan *p, struct cci_tree_inode *inode)
{
    uint64_t sum;
    cc_error_code code = cci_tree_check(p->t, p->err);
    if (code)
        return code;
    if (inode->links > CCI_EXT4_MAX_LINKS && cci_tree_type(inode) != CCI_INDEX_DIR)
        return cci_fail(p->err, CC_ERR_IO, NULL, "a file of the image has more than %u names", CCI_EXT4_MAX_LINKS);
    if (cci_tree_type(inode) == CCI_INDEX_FILE)
        return cci_ext4_take_tail(p, inode, 0, cci_ext4_count_pieces(cci_tree_meta(inode).extents, &sum));
    return cci_ext4_is_slow_link(inode) ? cci_ext4_take_tail(p, inode, 1, 1) : CC_OK;
}

/* ---- Attributes ------------------------------------------------------------------------------------------------ */

static uint32_t *cci_ext4_shared_slot(struct cci_ext4_plan *p, struct cci_view xattrs)
{
    return &p->shared_slots[cci_tree_hash(p->t->key, 0, xattrs.p, xattrs.n) & (p->shared_cap - 1)];
}

static bool cci_ext4_grow_shared(struct cci_ext4_plan *p)
{
    uint32_t cap = p->shared_cap ? p->shared_cap * 2 : 64;
    struct cci_ext4_shared *shared = cci_mem_resize(p->shared, cap, sizeof(*shared));
    if (!shared)
        return false;
    p->shared = shared;
    uint32_t *slots = cci_mem_resize(p->shared_slots, cap, sizeof(*slots));
    if (!slots)
        return false;
    p->shared_slots = slots;
    p->shared_cap = cap;
    memset(slots, 0xff, cap * sizeof(*slots));
    for (uint32_t i = 0; i < p->shared_count; i++) {
        uint32_t *slot = cci_ext4_shared_slot(p, shared[i].xattrs);
        shared[i].chain = *slot;
        *slot = i;
    }
    return true;
}

/* Finds or makes the block for an inode's attributes; they are in p->xattrs. Blocks are numbered from 1 here. */
static bool cci_ext4_share(struct cci_ext4_plan *p, struct cci_tree_inode *inode, struct cci_view xattrs)
{
    if (p->shared_count == p->shared_cap && !cci_ext4_grow_shared(p))
        return false;
    uint32_t *slot = cci_ext4_shared_slot(p, xattrs), i = *slot;
    for (; i != UINT32_MAX; i = p->shared[i].chain) {
        const struct cci_ext4_shared *s = &p->shared[i];
        if (s->xattrs.n == xattrs.n && memcmp(s->xattrs.p, xattrs.p, xattrs.n) == 0)
            break;
    }
    if (i == UINT32_MAX || p->shared[i].refs == CCI_EXT4_XATTR_MAX_REFS) {
        struct cci_ext4_shared *s = &p->shared[p->shared_count];
        s->xattrs = xattrs;
        s->refs = 0;
        s->chain = *slot; /* before a full one, which is then no longer found */
        *slot = i = p->shared_count++;
    }
    p->shared[i].refs++;
    inode->shared = i + 1;
    return true;
}

static cc_error_code cci_ext4_plan_xattrs(struct cci_ext4_plan *p, struct cci_tree_inode *inode)
{
    struct cci_view xattrs = cci_tree_meta(inode).xattrs;
    if (xattrs.n == 0)
        return CC_OK;
    const char *wrong = cci_ext4_xattrs_read(xattrs, &p->xattrs);
    if (wrong) {
        const struct cci_tree_name *name = &p->t->names[inode->name];
        const struct cci_tree_name *dir = &p->t->names[name->parent];
        return cci_fail(p->err, CC_ERR_IO, NULL, "cannot store a file of the image, %s: \"%.*s/%.*s\"", wrong,
                        (int)dir->text_len, dir->text, (int)name->text_len, name->text);
    }
    if (p->xattrs.in_body < p->xattrs.count && !cci_ext4_share(p, inode, xattrs))
        return cci_fail_nomem(p->err);
    return CC_OK;
}

static cc_error_code cci_ext4_plan_tail(struct cci_ext4_plan *p)
{
    cc_error_code code = CC_OK;
    for (uint32_t i = 0; i < p->dir_count && code == CC_OK; i++)
        code = cci_ext4_plan_dir(p, p->dirs[i]);
    for (uint32_t i = 0; i < p->order_count && code == CC_OK; i++)
        code = cci_ext4_plan_inode(p, &p->t->inodes[p->order[i]]);
    if (code == CC_OK)
        code = cci_ext4_plan_xattrs(p, cci_tree_inode(p->t, CCI_TREE_ROOT));
    for (uint32_t i = 0; i < p->order_count && code == CC_OK; i++)
        code = cci_ext4_plan_xattrs(p, &p->t->inodes[p->order[i]]);
    for (uint32_t i = 0; i < p->shared_count; i++)
        p->shared[i].block = p->tail_blocks++;
    return code;
}

/* ---- The whole disk ---------------------------------------------------------------------------------------------- */

/* Fits everything together and marks the blocks that are in use. */
static cc_error_code cci_ext4_plan_disk(struct cci_ext4_plan *p, const uint64_t *layer_blocks, uint32_t layers)
{
    uint64_t data = 0;
    for (uint32_t i = 0; i < layers; i++)
        data += CCI_MIN(layer_blocks[i], UINT32_MAX); /* so that it cannot overflow */
    cc_error_code code = cci_ext4_fit(&p->g, CCI_EXT4_FIRST_INODE - 1 + p->order_count, p->tail_blocks, data, p->err);
    if (code != CC_OK)
        return code;
    p->layers = cci_mem_zalloc(layers, sizeof(*p->layers));
    p->block_map = cci_mem_zalloc(p->g.groups, CCI_EXT4_BLOCK);
    if (!p->layers || !p->block_map)
        return cci_fail_nomem(p->err);
    uint64_t next = p->g.blocks - data;
    for (uint32_t i = 0; i < layers; next += layer_blocks[i++])
        p->layers[i] = next;
    cci_ext4_mark(p->block_map, 0, p->g.tail + p->tail_blocks);
    cci_ext4_mark(p->block_map, p->g.blocks, (uint64_t)p->g.groups * CCI_EXT4_GROUP_BLOCKS - p->g.blocks);
    for (uint32_t i = 0; i < p->order_count; i++) {
        const struct cci_tree_inode *inode = &p->t->inodes[p->order[i]];
        struct cci_view v = cci_tree_meta(inode).extents;
        struct cci_index_extent x;
        while (cci_index_take_extent(&v, &x))
            cci_ext4_mark(p->block_map, p->layers[inode->layer] + x.block, x.count);
    }
    return CC_OK;
}

static void cci_ext4_plan_free(struct cci_ext4_plan *p)
{
    cci_mem_free(p->order);
    cci_mem_free(p->dirs);
    cci_mem_free(p->shared);
    cci_mem_free(p->shared_slots);
    cci_mem_free(p->layers);
    cci_mem_free(p->block_map);
}

#endif
