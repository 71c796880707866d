/*
 * image/ext4_inode.h - inodes: the 256 bytes that say everything about a file but its name and its contents.
 *
 * 128 old bytes, 32 newer ones (the rest of the times), and 96 for attributes (ext4_xattr.h). The tar format has one
 * time for a file, so all four times of an inode are that.
 */
#ifndef CCI_IMAGE_EXT4_INODE_H
#define CCI_IMAGE_EXT4_INODE_H

#include "ext4_plan.h"

#define CCI_EXT4_EXTENTS_FL 0x80000u
#define CCI_EXT4_INDEX_FL 0x1000u /* a directory that is an htree */

/* Seconds as the old 32 bits, and above the nanoseconds two bits that carry them to the year 2446. */
static void cci_ext4_put_time(uint8_t *seconds, uint8_t *extra, int64_t sec, uint32_t nsec)
{
    const int64_t lowest = -((int64_t)1 << 31), highest = ((int64_t)1 << 34) - ((int64_t)1 << 31) - 1;
    if (sec < lowest || sec > highest) {
        sec = sec < lowest ? lowest : highest;
        nsec = 0;
    }
    uint32_t low = (uint32_t)((uint64_t)sec & 0xffffffffu);
    uint32_t epoch = (uint32_t)(((uint64_t)sec + 0x80000000u) >> 32) & 3u;
    cci_put_le32(seconds, low);
    cci_put_le32(extra, nsec << 2 | epoch);
}

static void cci_ext4_put_device(uint8_t *block, uint32_t major, uint32_t minor)
{
    if (major < 256 && minor < 256)
        cci_put_le32(block, major << 8 | minor);
    else
        cci_put_le32(block + 4, (minor & 0xffu) | (major & 0xfffu) << 8 | (minor & 0xfff00u) << 12);
}

/* The fields that every inode has. */
static void cci_ext4_put_inode_base(uint8_t *p, const struct cci_index_entry *e, uint64_t size, uint64_t blocks)
{
    static const uint16_t types[] = {0, 0100000, 0040000, 0120000, 0020000, 0060000, 0010000, 0140000};
    uint64_t sectors = blocks * (CCI_EXT4_BLOCK / 512);
    cci_put_le16(p, (uint16_t)(types[e->type] | e->mode));
    cci_put_le16(p + 0x02, (uint16_t)e->uid);
    cci_put_le32(p + 0x04, (uint32_t)size);
    cci_put_le16(p + 0x18, (uint16_t)e->gid);
    cci_put_le32(p + 0x1c, (uint32_t)sectors);
    cci_put_le32(p + 0x6c, (uint32_t)(size >> 32));
    cci_put_le16(p + 0x74, (uint16_t)(sectors >> 32));
    cci_put_le16(p + 0x78, (uint16_t)(e->uid >> 16));
    cci_put_le16(p + 0x7a, (uint16_t)(e->gid >> 16));
    cci_put_le16(p + 0x80, 32); /* extra fields */
    cci_ext4_put_time(p + 0x08, p + 0x8c, e->mtime_sec, e->mtime_nsec);
    cci_ext4_put_time(p + 0x0c, p + 0x84, e->mtime_sec, e->mtime_nsec);
    cci_ext4_put_time(p + 0x10, p + 0x88, e->mtime_sec, e->mtime_nsec);
    cci_ext4_put_time(p + 0x90, p + 0x94, e->mtime_sec, e->mtime_nsec);
}

/* An inode as it is written. */
struct cci_ext4_inode {
    uint32_t id;              /* in the tree */
    struct cci_index_entry e; /* what the index says of it */
    uint32_t blocks;          /* the blocks it has in the tail, */
    uint32_t content;         /* how many with contents (of a directory, of a long link), */
    uint32_t nodes;           /* how many nodes of its extent tree behind them, */
    uint32_t shared;          /* and which block of attributes, from 1; 0 if it has none */
};

/* Where an inode's contents are: extents, and the number to add to their blocks. */
static struct cci_view cci_ext4_inode_extents(const struct cci_ext4_plan *p, const struct cci_ext4_inode *n,
                                              struct cci_ext4_run *run, uint64_t *base)
{
    *base = p->g.tail;
    if (n->content)
        return cci_ext4_run_of(run, n->blocks, n->content);
    if (n->e.type == CCI_INDEX_FILE)
        *base = p->layers[cci_tree_layer_of(p->t, cci_tree_at(p->t, n->id)->entry)];
    return n->e.extents;
}

/* Writes 256 zeroed bytes; p->xattrs are the inode's. */
static void cci_ext4_put_inode(const struct cci_ext4_plan *p, uint8_t *out, const struct cci_ext4_inode *n)
{
    const struct cci_tree_name *name = cci_tree_at(p->t, n->id);
    struct cci_ext4_run run;
    uint64_t base, blocks, size = n->e.size;
    struct cci_view extents = cci_ext4_inode_extents(p, n, &run, &base);
    (void)cci_ext4_count_pieces(extents, &blocks);
    if (n->e.type == CCI_INDEX_DIR)
        size = blocks * CCI_EXT4_BLOCK;
    if (n->e.type == CCI_INDEX_SYMLINK)
        size = strlen(cci_tree_target(p->t, n->id));
    cci_ext4_put_inode_base(out, &n->e, size, blocks + n->nodes + (n->shared ? 1 : 0));
    uint32_t links = n->e.type == CCI_INDEX_DIR ? p->dirs[name->entry].links : name->links;
    cci_put_le16(out + 0x1a, (uint16_t)(links > CCI_EXT4_MAX_LINKS ? 1 : links)); /* 1: nobody counted (dir_nlink) */
    if (n->e.type == CCI_INDEX_FILE || n->content) {
        bool index = n->e.type == CCI_INDEX_DIR && blocks > 1;
        cci_put_le32(out + 0x20, CCI_EXT4_EXTENTS_FL | (index ? CCI_EXT4_INDEX_FL : 0));
        cci_ext4_put_tree(extents, base, p->g.tail + n->blocks + n->content, out + 0x28, NULL);
    } else if (n->e.type == CCI_INDEX_SYMLINK) {
        memcpy(out + 0x28, cci_tree_target(p->t, n->id), (size_t)size);
    } else if (n->e.type == CCI_INDEX_CHAR || n->e.type == CCI_INDEX_BLOCKDEV) {
        cci_ext4_put_device(out + 0x28, n->e.major, n->e.minor);
    }
    cci_ext4_put_xattr_body(out + 160, &p->xattrs);
    if (n->shared)
        cci_put_le32(out + 0x68, p->g.tail + p->tail_shared + n->shared - 1);
}

#endif
