/*
 * image/ext4_write.h - a tree of names and inodes becomes the metadata of a filesystem.
 *
 * Two passes. The plan (ext4_plan.h) numbers the inodes and gives every block of metadata its place; then everything is
 * written to the file once, through small buffers: the inodes and what they have in the tail, as their entries are read
 * from the indexes; the directories; and last the tables at the front, whose block bitmaps follow from the inodes.
 *
 * File data is not written: layer data follows behind the metadata as it is, layer after layer, and the extents point
 * there. Data that no file has any more (it was replaced by a higher layer) is free space in the filesystem's eyes.
 */
#ifndef CCI_IMAGE_EXT4_WRITE_H
#define CCI_IMAGE_EXT4_WRITE_H

#include "../base/errno_text.h"
#include "ext4_inode.h"

/* Counts and writes the superblock and the group descriptors. Only the first groups have used inodes. */
static cc_error_code cci_ext4_put_groups(struct cci_ext4_plan *p, struct cci_ext4_out *out)
{
    uint32_t used = CCI_EXT4_FIRST_INODE - 1 + p->order_count, per_group = p->g.inodes_per_group, free_blocks = 0;
    struct cci_ext4_group *groups = cci_mem_zalloc(p->g.groups, sizeof(*groups));
    if (!groups)
        return cci_fail_nomem(p->err);
    for (uint32_t i = 0; i < p->g.groups; i++) {
        uint64_t first = (uint64_t)i * per_group;
        groups[i].free_blocks = cci_ext4_count_free(p->block_map + (size_t)i * CCI_EXT4_BLOCK);
        groups[i].free_inodes = first >= used ? per_group : per_group - (uint32_t)CCI_MIN(used - first, per_group);
        free_blocks += groups[i].free_blocks;
    }
    for (uint32_t i = 0; i < p->dir_count; i++)
        groups[(cci_tree_at(p->t, p->dirs[i].name)->number - 1) / per_group].dirs++;
    cci_ext4_put_super(cci_ext4_out_block(out) + 1024, &p->g, p->id, free_blocks, p->g.groups * per_group - used);
    uint8_t *block = NULL;
    const uint32_t each = CCI_EXT4_BLOCK / CCI_EXT4_DESC_SIZE;
    for (uint32_t i = 0; i < p->g.groups; i++) {
        if (i % each == 0)
            block = cci_ext4_out_block(out);
        cci_ext4_put_group(block + i % each * CCI_EXT4_DESC_SIZE, &p->g, p->id, i, &groups[i]);
    }
    cci_mem_free(groups);
    return CC_OK;
}

static void cci_ext4_put_bitmaps(struct cci_ext4_plan *p, struct cci_ext4_out *out)
{
    uint64_t used = CCI_EXT4_FIRST_INODE - 1 + p->order_count, per_group = p->g.inodes_per_group;
    for (uint32_t i = 0; i < p->g.groups; i++)
        memcpy(cci_ext4_out_block(out), p->block_map + (size_t)i * CCI_EXT4_BLOCK, CCI_EXT4_BLOCK);
    for (uint32_t i = 0; i < p->g.groups; i++) {
        uint8_t *map = cci_ext4_out_block(out);
        uint64_t first = i * per_group;
        if (first < used)
            cci_ext4_mark(map, 0, CCI_MIN(used - first, per_group));
        cci_ext4_mark(map, per_group, CCI_EXT4_BLOCK * 8 - per_group);
    }
}

/* ---- Inodes -------------------------------------------------------------------------------------------------- */

/* Where the writing has got to in what the inodes have in the tail, as the plan counted it. */
struct cci_ext4_cursor {
    uint32_t tail;    /* the next block */
    uint32_t sharing; /* the next of p->sharing, in bytes */
};

/* Reads an inode's attributes into p->xattrs, and finds its block of them. */
static cc_error_code cci_ext4_take_xattrs(struct cci_ext4_plan *p, struct cci_ext4_inode *n, struct cci_ext4_cursor *c)
{
    unsigned flags = cci_tree_at(p->t, n->id)->flags;
    const char *wrong = cci_ext4_xattrs_read(n->e.xattrs, &p->xattrs);
    bool block = p->xattrs.in_body < p->xattrs.count;
    if (wrong || (n->e.xattrs.n && flags & CCI_TREE_PLAIN) || block != ((flags & CCI_TREE_SHARES) != 0))
        return cci_tree_changed(p->err);
    n->shared = 0;
    if (block) {
        memcpy(&n->shared, p->sharing.p + c->sharing, sizeof(n->shared));
        c->sharing += (uint32_t)sizeof(n->shared);
        n->shared++;
    }
    return CC_OK;
}

/* Reads what is to be written of an inode. The index may have changed since the plan was made: then it does not fit. */
static cc_error_code cci_ext4_take_inode(struct cci_ext4_plan *p, uint32_t id, struct cci_ext4_inode *n,
                                         struct cci_ext4_cursor *c)
{
    const struct cci_tree_name *name = cci_tree_at(p->t, id);
    cc_error_code code = cci_tree_entry(&p->reader, id, cci_ext4_entry_place(p, id), &n->e, p->err);
    if (code)
        return code;
    n->id = id;
    if (n->e.type == CCI_INDEX_DIR) {
        const struct cci_ext4_dir_plan *dir = &p->dirs[name->entry];
        n->blocks = dir->blocks;
        n->content = dir->count;
        n->nodes = cci_ext4_run_nodes(dir->count);
    } else {
        uint64_t sum, nodes = cci_ext4_tree_blocks(cci_ext4_count_pieces(n->e.extents, &sum));
        n->blocks = c->tail;
        n->content = cci_ext4_is_slow_link(p->t, id) ? 1 : 0;
        if (nodes + n->content > p->tail_shared - c->tail || (nodes && name->flags & CCI_TREE_PLAIN))
            return cci_tree_changed(p->err);
        n->nodes = (uint32_t)nodes;
        c->tail += n->content + n->nodes;
    }
    return cci_ext4_take_xattrs(p, n, c);
}

/* Writes an inode's blocks of the tail, unless it is a directory, and marks its data as used. */
static void cci_ext4_put_contents(struct cci_ext4_plan *p, const struct cci_ext4_inode *n, struct cci_ext4_out *tail)
{
    struct cci_ext4_run run;
    struct cci_index_extent x;
    uint64_t base;
    struct cci_view extents = cci_ext4_inode_extents(p, n, &run, &base);
    if (n->e.type == CCI_INDEX_DIR)
        return;
    if (n->content) {
        const char *target = cci_tree_target(p->t, n->id);
        memcpy(cci_ext4_out_block(tail), target, strlen(target));
    }
    if (n->nodes)
        cci_ext4_put_tree(extents, base, p->g.tail + n->blocks + n->content, NULL, tail);
    for (struct cci_view v = n->e.extents; cci_index_take_extent(&v, &x);)
        cci_ext4_mark(p->block_map, base + x.block, x.count);
}

/* The inode tables of all groups are one array. */
static cc_error_code cci_ext4_put_inodes(struct cci_ext4_plan *p, struct cci_ext4_out *out, struct cci_ext4_out *tail)
{
    uint8_t *block = NULL;
    struct cci_ext4_inode n;
    struct cci_ext4_cursor c = {p->tail_files, 0};
    cci_ext4_out_seek(out, p->g.inode_tables);
    cci_ext4_out_seek(tail, p->g.tail + p->tail_files);
    for (uint32_t i = 0; i < CCI_EXT4_FIRST_INODE - 1 + p->order_count; i++) {
        uint32_t number = i + 1;
        if (i % CCI_EXT4_INODES_PER_BLOCK == 0)
            block = cci_ext4_out_block(out);
        if (number != CCI_EXT4_ROOT_INODE && number < CCI_EXT4_FIRST_INODE)
            continue;
        uint32_t name = number == CCI_EXT4_ROOT_INODE ? CCI_TREE_ROOT : p->order[number - CCI_EXT4_FIRST_INODE];
        cc_error_code code = cci_tree_check(p->t, p->err);
        if (code == CC_OK)
            code = cci_ext4_take_inode(p, cci_tree_inode(p->t, name), &n, &c);
        if (code)
            return code;
        cci_ext4_put_inode(p, block + i % CCI_EXT4_INODES_PER_BLOCK * CCI_EXT4_INODE_SIZE, &n);
        cci_ext4_put_contents(p, &n, tail);
    }
    return c.tail == p->tail_shared && c.sharing == p->sharing.n ? CC_OK : cci_tree_changed(p->err);
}

/* ---- The rest of the tail ------------------------------------------------------------------------------------ */

static cc_error_code cci_ext4_put_shared(struct cci_ext4_plan *p, struct cci_ext4_out *out)
{
    struct cci_view v;
    cci_ext4_out_seek(out, p->g.tail + p->tail_shared);
    for (uint32_t i = 0; i < p->shared_count; i++) {
        cc_error_code code = cci_tree_bytes(&p->reader, p->shared[i].place, p->shared[i].n, &v, p->err);
        if (code)
            return code;
        if (cci_index_check_xattrs(v) || cci_ext4_xattrs_read(v, &p->xattrs) || p->xattrs.in_body == p->xattrs.count)
            return cci_tree_changed(p->err);
        cci_ext4_put_xattr_block(cci_ext4_out_block(out), &p->xattrs, p->shared[i].refs);
    }
    return CC_OK;
}

/* The directories, in the order of the plan. */
static cc_error_code cci_ext4_put_dirs(struct cci_ext4_plan *p, struct cci_ext4_out *out)
{
    struct cci_tree *t = p->t;
    cci_ext4_out_seek(out, p->g.tail);
    for (uint32_t id = CCI_TREE_ROOT; id != CCI_TREE_NONE; id = cci_tree_walk(t, id, CCI_TREE_ROOT)) {
        uint32_t blocks;
        if (!cci_tree_is_dir(t, id))
            continue;
        cc_error_code code = cci_tree_check(t, p->err);
        if (code == CC_OK)
            code = cci_ext4_dir(t, id, p->id->hash_seed, out, &blocks, p->err);
        if (code != CC_OK)
            return code;
        const struct cci_ext4_dir_plan *dir = &p->dirs[cci_tree_at(t, id)->entry];
        struct cci_ext4_run run;
        if (cci_ext4_run_nodes(dir->count))
            cci_ext4_put_tree(cci_ext4_run_of(&run, dir->blocks, dir->count), p->g.tail,
                              p->g.tail + dir->blocks + dir->count, NULL, out);
    }
    return CC_OK;
}

/* ---- All of it ----------------------------------------------------------------------------------------------- */

/* What is read from the indexes; the memory that this takes is free for the directories then. */
static cc_error_code cci_ext4_put_files(struct cci_ext4_plan *p, struct cci_ext4_out *out)
{
    struct cci_ext4_out tail;
    if (!cci_ext4_out_init(&tail, out->fd))
        return cci_fail_nomem(p->err);
    cc_error_code code = cci_ext4_put_inodes(p, out, &tail);
    cci_ext4_out_flush(&tail);
    if (tail.failed && !out->failed)
        out->failed = tail.failed;
    cci_mem_free(tail.buf);
    if (code == CC_OK)
        code = cci_ext4_put_shared(p, out);
    cci_tree_reader_free(&p->reader);
    cci_mem_free(p->order);
    p->order = NULL;
    return code;
}

static cc_error_code cci_ext4_put_all(struct cci_ext4_plan *p, cci_fd fd, uint64_t size)
{
    struct cci_ext4_out out;
    if (!cci_ext4_out_init(&out, fd))
        return cci_fail_nomem(p->err);
    cc_error_code code = cci_ext4_put_files(p, &out);
    if (code == CC_OK)
        code = cci_ext4_put_dirs(p, &out);
    cci_ext4_out_seek(&out, 0);
    if (code == CC_OK)
        code = cci_ext4_put_groups(p, &out);
    if (code == CC_OK)
        cci_ext4_put_bitmaps(p, &out);
    cci_ext4_out_flush(&out);
    if (code == CC_OK && !out.failed)
        out.failed = cci_os_truncate(fd, size);
    if (code == CC_OK && out.failed)
        code = cci_fail_errno(p->err, CC_ERR_IO, -out.failed, NULL,
                              "cannot write the metadata of the root filesystem: %s", cci_errno_text(-out.failed));
    cci_mem_free(out.buf);
    return code;
}

/*
 * Writes the metadata of a filesystem to an empty file, and completes the tree, which is good for nothing but
 * cci_tree_free then. Behind the metadata's end, at *size bytes (a multiple of 4 KiB), the layers' data follows on the
 * disk, as many blocks of 4 KiB as their indexes say; inodes' extents count from there.
 */
static cc_error_code cci_ext4_write(struct cci_tree *t, const struct cci_ext4_identity *id, cci_fd fd, uint64_t *size,
                                    cc_error *err)
{
    struct cci_ext4_plan *p = cci_mem_zalloc(1, sizeof(*p));
    if (!p)
        return cci_fail_nomem(err);
    p->t = t;
    p->id = id;
    p->err = err;
    cci_tree_finish(t);
    cc_error_code code = cci_tree_reader_init(&p->reader, t, err);
    if (code == CC_OK)
        code = cci_ext4_plan_numbers(p);
    if (code == CC_OK)
        code = cci_ext4_plan_tail(p);
    if (code == CC_OK)
        code = cci_ext4_plan_disk(p, size);
    if (code == CC_OK)
        code = cci_ext4_put_all(p, fd, *size);
    cci_ext4_plan_free(p);
    cci_mem_free(p);
    return code;
}

#endif
