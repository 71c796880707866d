/*
 * image/ext4_write.h - a tree of names and inodes becomes the metadata of a filesystem.
 *
 * Two passes. The plan (ext4_plan.h) numbers the inodes and gives every block of metadata its place; then everything is
 * written to the file once, from front to back, through a small buffer.
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
        groups[(cci_tree_inode(p->t, p->dirs[i])->number - 1) / per_group].dirs++;
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

/* The inode tables of all groups are one array. */
static cc_error_code cci_ext4_put_inodes(struct cci_ext4_plan *p, struct cci_ext4_out *out)
{
    uint8_t *block = NULL;
    for (uint32_t i = 0; i < CCI_EXT4_FIRST_INODE - 1 + p->order_count; i++) {
        cc_error_code code = cci_tree_check(p->t, p->err);
        if (code)
            return code;
        uint32_t number = i + 1;
        if (i % CCI_EXT4_INODES_PER_BLOCK == 0)
            block = cci_ext4_out_block(out);
        uint8_t *inode = block + i % CCI_EXT4_INODES_PER_BLOCK * CCI_EXT4_INODE_SIZE;
        if (number == CCI_EXT4_ROOT_INODE)
            cci_ext4_put_inode(p, inode, cci_tree_inode(p->t, CCI_TREE_ROOT));
        else if (number >= CCI_EXT4_FIRST_INODE)
            cci_ext4_put_inode(p, inode, &p->t->inodes[p->order[number - CCI_EXT4_FIRST_INODE]]);
    }
    cci_ext4_out_seek(out, p->g.tail);
    return CC_OK;
}

static void cci_ext4_put_nodes(struct cci_ext4_plan *p, struct cci_ext4_out *out, const struct cci_tree_inode *inode)
{
    struct cci_ext4_run run;
    uint64_t base;
    struct cci_view extents = cci_ext4_inode_extents(p, inode, &run, &base);
    if (inode->node_count)
        cci_ext4_put_tree(extents, base, p->g.tail + inode->blocks + inode->content_count, NULL, out);
}

/* The tail, in the order of the plan. */
static cc_error_code cci_ext4_put_tail(struct cci_ext4_plan *p, struct cci_ext4_out *out)
{
    for (uint32_t i = 0; i < p->dir_count; i++) {
        uint32_t blocks;
        cc_error_code code = cci_tree_check(p->t, p->err);
        if (code == CC_OK)
            code = cci_ext4_dir(p->t, p->dirs[i], p->id->hash_seed, out, &blocks, p->err);
        if (code != CC_OK)
            return code;
        cci_ext4_put_nodes(p, out, cci_tree_inode(p->t, p->dirs[i]));
    }
    for (uint32_t i = 0; i < p->order_count; i++) {
        const struct cci_tree_inode *inode = &p->t->inodes[p->order[i]];
        if (cci_tree_type(inode) == CCI_INDEX_DIR)
            continue;
        if (inode->content_count) {
            const char *target = cci_tree_meta(inode).target;
            memcpy(cci_ext4_out_block(out), target, strlen(target));
        }
        cci_ext4_put_nodes(p, out, inode);
    }
    for (uint32_t i = 0; i < p->shared_count; i++) {
        (void)cci_ext4_xattrs_read(p->shared[i].xattrs, &p->xattrs);
        cci_ext4_put_xattr_block(cci_ext4_out_block(out), &p->xattrs, p->shared[i].refs);
    }
    return CC_OK;
}

static cc_error_code cci_ext4_put_all(struct cci_ext4_plan *p, cci_fd fd, uint64_t size)
{
    struct cci_ext4_out out;
    if (!cci_ext4_out_init(&out, fd))
        return cci_fail_nomem(p->err);
    cc_error_code code = cci_ext4_put_groups(p, &out);
    if (code == CC_OK) {
        cci_ext4_put_bitmaps(p, &out);
        code = cci_ext4_put_inodes(p, &out);
    }
    if (code == CC_OK)
        code = cci_ext4_put_tail(p, &out);
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
 * Writes the metadata of a filesystem to an empty file. Behind its end, at *size bytes (a multiple of 4 KiB), the
 * layers' data follows on the disk: layer_blocks[i] blocks of 4 KiB of layer i, whose inodes' extents count from there.
 */
static cc_error_code cci_ext4_write(struct cci_tree *t, const uint64_t *layer_blocks, uint32_t layers,
                                    const struct cci_ext4_identity *id, cci_fd fd, uint64_t *size, cc_error *err)
{
    struct cci_ext4_plan *p = cci_mem_zalloc(1, sizeof(*p));
    if (!p)
        return cci_fail_nomem(err);
    p->t = t;
    p->id = id;
    p->err = err;
    cc_error_code code = cci_ext4_plan_numbers(p);
    if (code == CC_OK)
        code = cci_ext4_plan_tail(p);
    if (code == CC_OK)
        code = cci_ext4_plan_disk(p, layer_blocks, layers);
    if (code == CC_OK) {
        uint64_t data = 0;
        for (uint32_t i = 0; i < layers; i++)
            data += layer_blocks[i];
        *size = (p->g.blocks - data) * CCI_EXT4_BLOCK;
        code = cci_ext4_put_all(p, fd, *size);
    }
    cci_ext4_plan_free(p);
    cci_mem_free(p);
    return code;
}

#endif
