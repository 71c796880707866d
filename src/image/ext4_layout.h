/*
 * image/ext4_layout.h - where things are in our ext4 filesystems: geometry, superblock, group descriptors, bitmaps.
 *
 * Format: Linux, Documentation/filesystems/ext4 (ondisk). 4 KiB blocks, so a group is 32,768 blocks (128 MiB), which is
 * what one block of bitmap describes; 256-byte inodes; 32-byte group descriptors, so at most 2^32 blocks.
 *
 * All metadata is at the front, in this order, however many groups there are:
 *
 *     superblock | group descriptors | block bitmaps | inode bitmaps | inode tables | the rest ("tail")
 *
 * flex_bg allows a group's bitmaps and inodes to be anywhere, so the tables of all groups form one array, and the
 * groups behind the metadata hold file data and nothing else. sparse_super2 with no backup groups keeps copies of the
 * superblock out of them. That is what lets a layer's data file be a range of the disk as it is.
 */
#ifndef CCI_IMAGE_EXT4_LAYOUT_H
#define CCI_IMAGE_EXT4_LAYOUT_H

#include "../base/bytes.h"
#include "../base/error.h"
#include "../base/os.h"

#define CCI_EXT4_BLOCK 4096u
#define CCI_EXT4_GROUP_BLOCKS 32768u
#define CCI_EXT4_INODE_SIZE 256u
#define CCI_EXT4_INODES_PER_BLOCK 16u
#define CCI_EXT4_DESC_SIZE 32u
#define CCI_EXT4_ROOT_INODE 2u
#define CCI_EXT4_FIRST_INODE 11u /* 1 to 10 are reserved, of which we use the root's */
#define CCI_EXT4_MAX_LINKS 65000u

#define CCI_EXT4_COMPAT 0x228u   /* ext_attr, dir_index, sparse_super2 */
#define CCI_EXT4_INCOMPAT 0x242u /* filetype, extents, flex_bg */
#define CCI_EXT4_RO_COMPAT 0x6au /* large_file, huge_file, dir_nlink, extra_isize */
#define CCI_EXT4_GDT_CSUM 0x10u  /* ro_compat "uninit_bg": checksummed group descriptors with the flags below */
#define CCI_EXT4_INODE_UNINIT 1u /* the group's inode bitmap is not written: all free */
#define CCI_EXT4_BLOCK_UNINIT 2u /* the same for its block bitmap */
#define CCI_EXT4_INODE_ZEROED 4u /* the group's inode table is zeroes where it is not used */

#define CCI_EXT4_HASH_HALF_MD4 1u

struct cci_ext4_geometry {
    uint32_t blocks; /* of the whole filesystem */
    uint32_t groups;
    uint32_t inodes_per_group; /* a multiple of 16 */
    uint32_t gdt_blocks;       /* from block 1 */
    uint32_t block_bitmaps;    /* first block of each part */
    uint32_t inode_bitmaps;
    uint32_t inode_tables;
    uint32_t tail;
};

/* What a filesystem is called and made with. */
struct cci_ext4_identity {
    uint8_t uuid[16];
    uint8_t hash_seed[16]; /* of directory hashes */
    const char *label;     /* at most 16 bytes */
    uint32_t ro_compat;
};

static uint32_t cci_ext4_inode_table_blocks(const struct cci_ext4_geometry *g)
{
    return g->inodes_per_group / CCI_EXT4_INODES_PER_BLOCK;
}

/* Fills in everything that follows from groups and a number of inodes, which is at most 32,768 a group. */
static void cci_ext4_place(struct cci_ext4_geometry *g, uint32_t inodes)
{
    uint32_t per_group = (inodes + g->groups - 1) / g->groups;
    g->inodes_per_group = CCI_ALIGN_UP(per_group, CCI_EXT4_INODES_PER_BLOCK);
    g->gdt_blocks = (g->groups * CCI_EXT4_DESC_SIZE + CCI_EXT4_BLOCK - 1) / CCI_EXT4_BLOCK;
    g->block_bitmaps = 1 + g->gdt_blocks;
    g->inode_bitmaps = g->block_bitmaps + g->groups;
    g->inode_tables = g->inode_bitmaps + g->groups;
    g->tail = g->inode_tables + g->groups * cci_ext4_inode_table_blocks(g);
}

/* Lays out a filesystem around its contents: inodes, further metadata blocks, data blocks at the end. There may be
 * unused blocks between the two. */
static cc_error_code cci_ext4_fit(struct cci_ext4_geometry *g, uint32_t inodes, uint64_t tail_blocks,
                                  uint64_t data_blocks, cc_error *err)
{
    uint64_t need = (inodes + CCI_EXT4_GROUP_BLOCKS - 1) / CCI_EXT4_GROUP_BLOCKS;
    uint64_t floor = (need - 1) * CCI_EXT4_GROUP_BLOCKS + 1; /* so that each group of inodes has a block */
    uint64_t blocks = 0;
    memset(g, 0, sizeof(*g));
    while (need > g->groups) { /* more groups need more descriptors and bitmaps, which may need more groups */
        if (need > UINT32_MAX / CCI_EXT4_GROUP_BLOCKS || tail_blocks > UINT32_MAX || data_blocks > UINT32_MAX)
            return cci_fail(err, CC_ERR_IO, NULL, "the image is larger than a disk can be, 16 TiB");
        g->groups = (uint32_t)need;
        cci_ext4_place(g, inodes);
        blocks = CCI_MAX(g->tail + tail_blocks + data_blocks, floor);
        need = CCI_MAX(need, (blocks + CCI_EXT4_GROUP_BLOCKS - 1) / CCI_EXT4_GROUP_BLOCKS);
    }
    g->blocks = (uint32_t)blocks;
    return CC_OK;
}

static void cci_ext4_put_super(uint8_t *p, const struct cci_ext4_geometry *g, const struct cci_ext4_identity *id,
                               uint32_t free_blocks, uint32_t free_inodes)
{
    cci_put_le32(p + 0x00, g->inodes_per_group * g->groups);
    cci_put_le32(p + 0x04, g->blocks);
    cci_put_le32(p + 0x0c, free_blocks);
    cci_put_le32(p + 0x10, free_inodes);
    cci_put_le32(p + 0x18, 2); /* block size: 1024 << 2 */
    cci_put_le32(p + 0x1c, 2); /* cluster size: the same */
    cci_put_le32(p + 0x20, CCI_EXT4_GROUP_BLOCKS);
    cci_put_le32(p + 0x24, CCI_EXT4_GROUP_BLOCKS);
    cci_put_le32(p + 0x28, g->inodes_per_group);
    cci_put_le16(p + 0x36, 0xffff); /* no check after so many mounts */
    cci_put_le16(p + 0x38, 0xef53); /* magic */
    cci_put_le16(p + 0x3a, 1);      /* state: clean */
    cci_put_le16(p + 0x3c, 1);      /* on errors: continue */
    cci_put_le32(p + 0x4c, 1);      /* revision: with features */
    cci_put_le32(p + 0x54, CCI_EXT4_FIRST_INODE);
    cci_put_le16(p + 0x58, CCI_EXT4_INODE_SIZE);
    cci_put_le32(p + 0x5c, CCI_EXT4_COMPAT);
    cci_put_le32(p + 0x60, CCI_EXT4_INCOMPAT);
    cci_put_le32(p + 0x64, id->ro_compat);
    memcpy(p + 0x68, id->uuid, 16);
    memcpy(p + 0x78, id->label, strlen(id->label));
    memcpy(p + 0xec, id->hash_seed, 16);
    p[0xfc] = CCI_EXT4_HASH_HALF_MD4;
    cci_put_le16(p + 0xfe, CCI_EXT4_DESC_SIZE);
    cci_put_le32(p + 0x100, 0xc); /* default mount options: user xattrs, ACLs */
    cci_put_le16(p + 0x15c, 32);  /* extra inode fields: at least, */
    cci_put_le16(p + 0x15e, 32);  /* and wanted */
    cci_put_le32(p + 0x160, 2);   /* directory hashes take names as unsigned bytes */
    p[0x174] = 4;                 /* 16 groups to a flexible group */
}

/* The CRC-16 of group descriptors (polynomial 0x8005, reflected). */
static uint16_t cci_ext4_crc16(uint16_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        crc = (uint16_t)(crc ^ p[i]);
        for (unsigned bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc >> 1 ^ (crc & 1 ? 0xa001u : 0));
    }
    return crc;
}

struct cci_ext4_group {
    uint32_t free_blocks;
    uint32_t free_inodes;
    uint32_t dirs;
    uint32_t flags;         /* CCI_EXT4_*_UNINIT, ..., with CCI_EXT4_GDT_CSUM */
    uint32_t unused_inodes; /* at the end of the table, never written; with CCI_EXT4_GDT_CSUM */
};

static void cci_ext4_put_group(uint8_t *p, const struct cci_ext4_geometry *g, const struct cci_ext4_identity *id,
                               uint32_t number, const struct cci_ext4_group *group)
{
    cci_put_le32(p + 0x00, g->block_bitmaps + number);
    cci_put_le32(p + 0x04, g->inode_bitmaps + number);
    cci_put_le32(p + 0x08, g->inode_tables + number * cci_ext4_inode_table_blocks(g));
    cci_put_le16(p + 0x0c, (uint16_t)group->free_blocks);
    cci_put_le16(p + 0x0e, (uint16_t)group->free_inodes);
    cci_put_le16(p + 0x10, (uint16_t)group->dirs);
    cci_put_le16(p + 0x12, (uint16_t)group->flags);
    cci_put_le16(p + 0x1c, (uint16_t)group->unused_inodes);
    if (id->ro_compat & CCI_EXT4_GDT_CSUM) {
        uint8_t le[4];
        cci_put_le32(le, number);
        uint16_t crc = cci_ext4_crc16(0xffff, id->uuid, 16);
        crc = cci_ext4_crc16(crc, le, 4);
        cci_put_le16(p + 0x1e, cci_ext4_crc16(crc, p, 0x1e));
    }
}

/* ---- Bitmaps: one bit a block or inode, the lowest bit of a byte first ------------------------------------ */

static void cci_ext4_mark(uint8_t *map, uint64_t first, uint64_t count)
{
    uint64_t end = first + count;
    for (; first < end && first % 8; first++)
        map[first / 8] = (uint8_t)(map[first / 8] | 1u << first % 8);
    if (end - first >= 8)
        memset(map + first / 8, 0xff, (size_t)((end - first) / 8));
    for (first += (end - first) / 8 * 8; first < end; first++)
        map[first / 8] = (uint8_t)(map[first / 8] | 1u << first % 8);
}

/* How many of a bitmap block's bits are not set. */
static uint32_t cci_ext4_count_free(const uint8_t *map)
{
    uint32_t used = 0;
    for (size_t i = 0; i < CCI_EXT4_BLOCK; i += 8) {
        uint64_t w = cci_le64(map + i);
        w -= w >> 1 & 0x5555555555555555u;
        w = (w & 0x3333333333333333u) + (w >> 2 & 0x3333333333333333u);
        w = (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu;
        used += (uint32_t)(w * 0x0101010101010101u >> 56);
    }
    return CCI_EXT4_BLOCK * 8 - used;
}

/* ---- Output: runs of whole blocks -------------------------------------------------------------------------- */

#define CCI_EXT4_OUT_BLOCKS 32u

struct cci_ext4_out {
    cci_fd fd;
    uint8_t *buf;
    uint32_t used;  /* blocks in buf */
    uint32_t block; /* number of the block that buf begins with */
    int failed;     /* the first error number, negative; nothing is written after it */
};

static bool cci_ext4_out_init(struct cci_ext4_out *o, cci_fd fd)
{
    memset(o, 0, sizeof(*o));
    o->fd = fd;
    o->buf = cci_mem_alloc((size_t)CCI_EXT4_OUT_BLOCKS * CCI_EXT4_BLOCK);
    return o->buf != NULL;
}

static void cci_ext4_out_flush(struct cci_ext4_out *o)
{
    if (o->used && !o->failed)
        o->failed =
            cci_os_pwrite_all(o->fd, o->buf, (size_t)o->used * CCI_EXT4_BLOCK, (uint64_t)o->block * CCI_EXT4_BLOCK);
    o->block += o->used;
    o->used = 0;
}

/* The next block, zeroed, to be filled in before the next call. */
static uint8_t *cci_ext4_out_block(struct cci_ext4_out *o)
{
    if (o->used == CCI_EXT4_OUT_BLOCKS)
        cci_ext4_out_flush(o);
    uint8_t *p = o->buf + (size_t)o->used * CCI_EXT4_BLOCK;
    memset(p, 0, CCI_EXT4_BLOCK);
    o->used++;
    return p;
}

/* Goes on at another block; what lies between is not written. */
static void cci_ext4_out_seek(struct cci_ext4_out *o, uint32_t block)
{
    if (o->block + o->used == block)
        return;
    cci_ext4_out_flush(o);
    o->block = block;
}

#endif
