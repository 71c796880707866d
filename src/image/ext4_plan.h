/*
 * image/ext4_plan.h - numbers for inodes, and places for every block of metadata, before anything is written.
 *
 * Inodes are numbered directory by directory, so that those of one directory lie side by side in the table, and the
 * directories' blocks follow one another in the same order: what a boot reads first lies close together. Behind the
 * directories come link targets that are too long for an inode and nodes of large extent trees, then attribute blocks.
 * All of these are the "tail" of ext4_layout.h and are numbered from its beginning, because where it begins follows
 * from its size: more blocks need more groups, and those need more descriptors and bitmaps.
 *
 * Little is remembered of each inode, as there may be half a million: the order of numbers, and for directories their
 * place. What the others have in the tail follows one another in the order of numbers, so the writer (ext4_write.h)
 * counts along. Only entries of the index that ask for blocks (the tree knows which) are read here.
 */
#ifndef CCI_IMAGE_EXT4_PLAN_H
#define CCI_IMAGE_EXT4_PLAN_H

#include "ext4_dir.h"
#include "ext4_extent.h"
#include "ext4_xattr.h"
#include "tree_entry.h"

#define CCI_EXT4_FAST_LINK 60u /* link targets shorter than this are in the inode */

/* A block of attributes, and who has the same. */
struct cci_ext4_shared {
    uint64_t hash;  /* of the attributes as in the index; equal sets are equal bytes */
    uint32_t place; /* where they are in an index: */
    uint32_t n;     /* so many bytes */
    uint32_t refs;
    uint32_t chain; /* next in the hash slot */
};

/* A directory; the `entry` of its name in the tree is the number of this. */
struct cci_ext4_dir_plan {
    uint32_t name;
    uint32_t entry;  /* place of its entry, as the tree had it */
    uint32_t blocks; /* place in the tail */
    uint32_t count;  /* of blocks with names */
    uint32_t links;
};

struct cci_ext4_plan {
    struct cci_tree *t;
    const struct cci_ext4_identity *id;
    cc_error *err;
    struct cci_tree_reader reader;
    struct cci_ext4_geometry g;
    uint32_t *order; /* names by number of the inode, from CCI_EXT4_FIRST_INODE */
    uint32_t order_count;
    struct cci_ext4_dir_plan *dirs; /* in the order of their numbers */
    uint32_t dir_count;
    uint32_t tail_blocks; /* metadata that is not in tables: directories, */
    uint32_t tail_files;  /* from here link targets and extents, */
    uint32_t tail_shared; /* from here attributes */
    struct cci_ext4_shared *shared;
    uint32_t shared_count, shared_cap;
    uint32_t *shared_slots;        /* hash table over them, of shared_cap slots */
    struct cci_buf sharing;        /* which of them each inode with CCI_TREE_SHARES has, u32 each, by number */
    struct cci_buf set;            /* attributes that are being looked for */
    uint64_t *layers;              /* the first block of each layer's data */
    uint8_t *block_map;            /* a bit for each block, whole groups */
    struct cci_ext4_xattrs xattrs; /* the ones being looked at (a few KiB, too large for the stack) */
};

/* Where the entry of an inode is. */
static uint32_t cci_ext4_entry_place(const struct cci_ext4_plan *p, uint32_t inode)
{
    uint32_t entry = cci_tree_at(p->t, inode)->entry;
    return cci_tree_is_dir(p->t, inode) ? p->dirs[entry].entry : entry;
}

/* ---- Numbers ------------------------------------------------------------------------------------------------ */

/* Gives a directory its plan, and inode number `number`. */
static void cci_ext4_number_dir(struct cci_ext4_plan *p, uint32_t name, uint32_t number)
{
    struct cci_tree_name *dir = cci_tree_at(p->t, name);
    p->dirs[p->dir_count] = (struct cci_ext4_dir_plan){name, dir->entry, 0, 0, 2};
    dir->number = number;
    dir->entry = p->dir_count++;
}

static void cci_ext4_number_children(struct cci_ext4_plan *p, uint32_t dir)
{
    struct cci_tree *t = p->t;
    struct cci_ext4_dir_plan *plan = &p->dirs[cci_tree_at(t, dir)->entry];
    for (uint32_t id = cci_tree_at(t, dir)->first; id != CCI_TREE_NONE; id = cci_tree_at(t, id)->next) {
        uint32_t inode = cci_tree_inode(t, id);
        if (cci_tree_at(t, inode)->number)
            continue; /* another name of the same file came first */
        cci_tree_at(t, inode)->number = CCI_EXT4_FIRST_INODE + p->order_count;
        if (cci_tree_is_dir(t, id)) {
            cci_ext4_number_dir(p, id, cci_tree_at(t, inode)->number);
            plan->links++;
        }
        p->order[p->order_count++] = id;
    }
}

static cc_error_code cci_ext4_plan_numbers(struct cci_ext4_plan *p)
{
    struct cci_tree *t = p->t;
    p->order = cci_mem_resize(NULL, t->inode_count, sizeof(*p->order));
    p->dirs = cci_mem_resize(NULL, t->dir_count, sizeof(*p->dirs));
    if (!p->order || !p->dirs)
        return cci_fail_nomem(p->err);
    cc_error_code code = CC_OK;
    cci_ext4_number_dir(p, CCI_TREE_ROOT, CCI_EXT4_ROOT_INODE);
    for (uint32_t id = CCI_TREE_ROOT; id != CCI_TREE_NONE && !code; id = cci_tree_walk(t, id, CCI_TREE_ROOT)) {
        code = cci_tree_check(t, p->err);
        if (cci_tree_is_dir(t, id))
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

/* The blocks of the extent tree of one run. */
static uint32_t cci_ext4_run_nodes(uint32_t count)
{
    return (uint32_t)cci_ext4_tree_blocks(((uint64_t)count + CCI_EXT4_PIECE - 1) / CCI_EXT4_PIECE);
}

static bool cci_ext4_is_slow_link(const struct cci_tree *t, uint32_t inode)
{
    return cci_tree_at(t, inode)->type == CCI_INDEX_SYMLINK && strlen(cci_tree_target(t, inode)) >= CCI_EXT4_FAST_LINK;
}

/* Takes the next blocks of the tail. */
static cc_error_code cci_ext4_take_tail(struct cci_ext4_plan *p, uint64_t count)
{
    if (count > UINT32_MAX / 2 - p->tail_blocks)
        return cci_fail(p->err, CC_ERR_IO, NULL, "the image has too much metadata for one filesystem");
    p->tail_blocks += (uint32_t)count;
    return CC_OK;
}

static cc_error_code cci_ext4_plan_dir(struct cci_ext4_plan *p, uint32_t name)
{
    struct cci_ext4_dir_plan *dir = &p->dirs[cci_tree_at(p->t, name)->entry];
    cc_error_code code = cci_tree_check(p->t, p->err);
    if (code == CC_OK)
        code = cci_ext4_dir(p->t, name, p->id->hash_seed, NULL, &dir->count, p->err);
    dir->blocks = p->tail_blocks;
    return code ? code : cci_ext4_take_tail(p, (uint64_t)dir->count + cci_ext4_run_nodes(dir->count));
}

/* ---- Attributes ------------------------------------------------------------------------------------------------ */

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
        uint32_t *slot = &slots[shared[i].hash & (cap - 1)];
        shared[i].chain = *slot;
        *slot = i;
    }
    return true;
}

/* Finds a block with the attributes p->set; *found is UINT32_MAX when there is none. */
static cc_error_code cci_ext4_find_shared(struct cci_ext4_plan *p, uint64_t hash, uint32_t *found)
{
    struct cci_view v;
    for (uint32_t i = p->shared_slots[hash & (p->shared_cap - 1)]; i != UINT32_MAX; i = p->shared[i].chain) {
        if (p->shared[i].hash != hash || p->shared[i].n != p->set.n)
            continue;
        cc_error_code code = cci_tree_bytes(&p->reader, p->shared[i].place, p->set.n, &v, p->err);
        if (code)
            return code;
        if (memcmp(v.p, p->set.p, v.n) == 0) {
            *found = i;
            return CC_OK;
        }
    }
    *found = UINT32_MAX;
    return CC_OK;
}

/* Finds or makes the block for an inode's attributes, which are at `place`. */
static cc_error_code cci_ext4_share(struct cci_ext4_plan *p, uint32_t inode, uint32_t place, struct cci_view xattrs)
{
    uint64_t hash = cci_siphash(p->t->key, 0, xattrs.p, xattrs.n);
    uint32_t i;
    p->set.n = 0;
    if (!cci_buf_add(&p->set, xattrs.p, xattrs.n) || (p->shared_count == p->shared_cap && !cci_ext4_grow_shared(p)))
        return cci_fail_nomem(p->err);
    cc_error_code code = cci_ext4_find_shared(p, hash, &i);
    if (code)
        return code;
    if (i == UINT32_MAX || p->shared[i].refs == CCI_EXT4_XATTR_MAX_REFS) {
        uint32_t *slot = &p->shared_slots[hash & (p->shared_cap - 1)];
        i = p->shared_count++;
        p->shared[i] = (struct cci_ext4_shared){hash, place, (uint32_t)p->set.n, 0,
                                                *slot}; /* before a full one, which is then no longer found */
        *slot = i;
    }
    p->shared[i].refs++;
    cci_tree_at(p->t, inode)->flags |= CCI_TREE_SHARES;
    return cci_buf_add(&p->sharing, &i, sizeof(i)) ? CC_OK : cci_fail_nomem(p->err);
}

/* Plans the attributes of an inode, whose entry is *e. */
static cc_error_code cci_ext4_plan_xattrs(struct cci_ext4_plan *p, uint32_t name, const struct cci_index_entry *e)
{
    uint32_t inode = cci_tree_inode(p->t, name);
    if (e->xattrs.n == 0)
        return CC_OK;
    const char *wrong = cci_ext4_xattrs_read(e->xattrs, &p->xattrs);
    if (wrong) {
        struct cci_view text = cci_tree_text(p->t, name), dir = cci_tree_text(p->t, cci_tree_at(p->t, name)->parent);
        return cci_fail(p->err, CC_ERR_IO, NULL, "cannot store a file of the image, %s: \"%.*s/%.*s\"", wrong,
                        (int)dir.n, (const char *)dir.p, (int)text.n, (const char *)text.p);
    }
    if (p->xattrs.in_body == p->xattrs.count)
        return CC_OK;
    const uint8_t *entry = (const uint8_t *)e->path - CCI_INDEX_FIXED;
    return cci_ext4_share(p, inode, e->place + (uint32_t)(e->xattrs.p - entry), e->xattrs);
}

static cc_error_code cci_ext4_plan_inode(struct cci_ext4_plan *p, uint32_t name)
{
    struct cci_tree *t = p->t;
    uint32_t inode = cci_tree_inode(t, name);
    struct cci_index_entry e;
    uint64_t sum;
    cc_error_code code = cci_tree_check(t, p->err);
    if (!code && !cci_tree_is_dir(t, inode) && cci_tree_at(t, inode)->links > CCI_EXT4_MAX_LINKS)
        code = cci_fail(p->err, CC_ERR_IO, NULL, "a file of the image has more than %u names", CCI_EXT4_MAX_LINKS);
    if (!code && cci_ext4_is_slow_link(t, inode))
        code = cci_ext4_take_tail(p, 1);
    if (code || cci_tree_at(t, inode)->flags & CCI_TREE_PLAIN)
        return code;
    code = cci_tree_entry(&p->reader, inode, cci_ext4_entry_place(p, inode), &e, p->err);
    if (!code)
        code = cci_ext4_take_tail(p, cci_ext4_tree_blocks(cci_ext4_count_pieces(e.extents, &sum)));
    return code ? code : cci_ext4_plan_xattrs(p, name, &e);
}

static cc_error_code cci_ext4_plan_tail(struct cci_ext4_plan *p)
{
    struct cci_tree *t = p->t;
    cc_error_code code = CC_OK;
    for (uint32_t id = CCI_TREE_ROOT; id != CCI_TREE_NONE && !code; id = cci_tree_walk(t, id, CCI_TREE_ROOT))
        if (cci_tree_is_dir(t, id))
            code = cci_ext4_plan_dir(p, id);
    p->tail_files = p->tail_blocks;
    if (code == CC_OK)
        code = cci_ext4_plan_inode(p, CCI_TREE_ROOT);
    for (uint32_t i = 0; i < p->order_count && code == CC_OK; i++)
        code = cci_ext4_plan_inode(p, p->order[i]);
    p->tail_shared = p->tail_blocks;
    return code ? code : cci_ext4_take_tail(p, p->shared_count);
}

/* ---- The whole disk ---------------------------------------------------------------------------------------------- */

/* Fits everything together. *size is that of the metadata. */
static cc_error_code cci_ext4_plan_disk(struct cci_ext4_plan *p, uint64_t *size)
{
    const struct cci_tree *t = p->t;
    uint64_t data = 0;
    for (uint32_t i = 0; i < t->layer_count; i++)
        data += CCI_MIN(t->layers[i].data_blocks, UINT32_MAX); /* so that it cannot overflow */
    cc_error_code code = cci_ext4_fit(&p->g, CCI_EXT4_FIRST_INODE - 1 + p->order_count, p->tail_blocks, data, p->err);
    if (code != CC_OK)
        return code;
    p->layers = cci_mem_zalloc(t->layer_count, sizeof(*p->layers));
    p->block_map = cci_mem_zalloc(p->g.groups, CCI_EXT4_BLOCK);
    if (!p->layers || !p->block_map)
        return cci_fail_nomem(p->err);
    uint64_t next = p->g.blocks - data;
    *size = next * CCI_EXT4_BLOCK;
    for (uint32_t i = 0; i < t->layer_count; next += t->layers[i++].data_blocks)
        p->layers[i] = next;
    cci_ext4_mark(p->block_map, 0, p->g.tail + p->tail_blocks);
    cci_ext4_mark(p->block_map, p->g.blocks, (uint64_t)p->g.groups * CCI_EXT4_GROUP_BLOCKS - p->g.blocks);
    return CC_OK;
}

static void cci_ext4_plan_free(struct cci_ext4_plan *p)
{
    cci_tree_reader_free(&p->reader);
    cci_mem_free(p->order);
    cci_mem_free(p->dirs);
    cci_mem_free(p->shared);
    cci_mem_free(p->shared_slots);
    cci_buf_free(&p->sharing);
    cci_buf_free(&p->set);
    cci_mem_free(p->layers);
    cci_mem_free(p->block_map);
}

#endif
