/*
 * image/scratch.h - the disk that an instance writes to: an empty ext4 in a sparse file without a name.
 *
 * Whatever its size, little is written: the group descriptors say of nearly every group that its bitmaps
 * are not initialised and its inodes are zeroes (uninit_bg), and the file is zeroes where nothing was written. So the
 * kernel has no tables to initialise in the background after the mount either. 16 GiB take 11 blocks. There is no
 * journal: when the instance is gone, so is the file.
 *
 * The root has two directories, "upper" and "work", which overlayfs needs, so that the guest has to make none.
 */
#ifndef CCI_IMAGE_SCRATCH_H
#define CCI_IMAGE_SCRATCH_H

#include "../base/disk.h"
#include "../base/errno_text.h"
#include "ext4_inode.h"

#define CCI_SCRATCH_SIZE ((uint64_t)16 << 30) /* what an instance gets if nobody says otherwise */
#define CCI_SCRATCH_MIN_SIZE ((uint64_t)16 << 20)
#define CCI_SCRATCH_MAX_SIZE                                                                                           \
    (((uint64_t)1 << 44) - ((uint64_t)1 << 30)) /* 2^32 blocks, and what files can be, less some */
#define CCI_SCRATCH_BYTES_PER_INODE 16384u      /* as mke2fs */
#define CCI_SCRATCH_INODES 12u /* in use: ten reserved, of which one is the root, and two directories */
#define CCI_SCRATCH_DIRS 3u

struct cci_scratch {
    struct cci_ext4_geometry g;
    struct cci_ext4_identity id;
    uint32_t used; /* blocks of metadata, at the front */
    int64_t now;   /* the time of the directories */
    struct cci_ext4_out out;
};

/* The blocks of group `i` that are metadata. */
static uint32_t cci_scratch_used(const struct cci_scratch *s, uint32_t i)
{
    uint64_t first = (uint64_t)i * CCI_EXT4_GROUP_BLOCKS;
    return first >= s->used ? 0 : (uint32_t)CCI_MIN(s->used - first, CCI_EXT4_GROUP_BLOCKS);
}

/* The blocks that there are in group `i`: the last one may be shorter. */
static uint32_t cci_scratch_size(const struct cci_scratch *s, uint32_t i)
{
    return (uint32_t)CCI_MIN(s->g.blocks - (uint64_t)i * CCI_EXT4_GROUP_BLOCKS, CCI_EXT4_GROUP_BLOCKS);
}

/* Whether group `i` has a bitmap of blocks: it has metadata, or it is the last one, which may end anywhere. */
static bool cci_scratch_has_map(const struct cci_scratch *s, uint32_t i)
{
    return cci_scratch_used(s, i) > 0 || i + 1 == s->g.groups;
}

static void cci_scratch_put_super(struct cci_scratch *s)
{
    const uint32_t each = CCI_EXT4_BLOCK / CCI_EXT4_DESC_SIZE;
    uint8_t *block = cci_ext4_out_block(&s->out);
    cci_ext4_put_super(block + 1024, &s->g, &s->id, s->g.blocks - s->used,
                       s->g.groups * s->g.inodes_per_group - CCI_SCRATCH_INODES);
    for (uint32_t i = 0; i < s->g.groups; i++) {
        struct cci_ext4_group group;
        uint32_t inodes = i == 0 ? CCI_SCRATCH_INODES : 0;
        group.free_blocks = cci_scratch_size(s, i) - cci_scratch_used(s, i);
        group.free_inodes = group.unused_inodes = s->g.inodes_per_group - inodes;
        group.dirs = i == 0 ? CCI_SCRATCH_DIRS : 0;
        group.flags = CCI_EXT4_INODE_ZEROED | (i ? CCI_EXT4_INODE_UNINIT : 0) |
                      (cci_scratch_has_map(s, i) ? 0 : CCI_EXT4_BLOCK_UNINIT);
        if (i % each == 0)
            block = cci_ext4_out_block(&s->out);
        cci_ext4_put_group(block + i % each * CCI_EXT4_DESC_SIZE, &s->g, &s->id, i, &group);
    }
}

static void cci_scratch_put_bitmaps(struct cci_scratch *s)
{
    for (uint32_t i = 0; i < s->g.groups; i++) {
        if (!cci_scratch_has_map(s, i))
            continue;
        cci_ext4_out_seek(&s->out, s->g.block_bitmaps + i);
        uint8_t *map = cci_ext4_out_block(&s->out);
        uint32_t size = cci_scratch_size(s, i);
        cci_ext4_mark(map, 0, cci_scratch_used(s, i));
        cci_ext4_mark(map, size, CCI_EXT4_GROUP_BLOCKS - size);
    }
    cci_ext4_out_seek(&s->out, s->g.inode_bitmaps);
    uint8_t *map = cci_ext4_out_block(&s->out);
    cci_ext4_mark(map, 0, CCI_SCRATCH_INODES);
    cci_ext4_mark(map, s->g.inodes_per_group, CCI_EXT4_BLOCK * 8 - s->g.inodes_per_group);
}

/* An inode of an empty directory in block `block`. */
static void cci_scratch_put_inode(const struct cci_scratch *s, uint8_t *table, uint32_t number, uint32_t links,
                                  uint32_t block)
{
    uint8_t *p = table + (number - 1) * CCI_EXT4_INODE_SIZE;
    struct cci_ext4_run run;
    struct cci_index_entry e;
    memset(&e, 0, sizeof(e));
    e.type = CCI_INDEX_DIR;
    e.mode = 0755;
    e.mtime_sec = s->now;
    cci_ext4_put_inode_base(p, &e, CCI_EXT4_BLOCK, 1);
    cci_put_le16(p + 0x1a, (uint16_t)links);
    cci_put_le32(p + 0x20, CCI_EXT4_EXTENTS_FL);
    cci_ext4_put_tree(cci_ext4_run_of(&run, block, 1), 0, 0, p + 0x28, NULL);
}

static void cci_scratch_put_dirs(struct cci_scratch *s)
{
    const uint32_t root = CCI_EXT4_ROOT_INODE, upper = CCI_EXT4_FIRST_INODE, work = upper + 1;
    cci_ext4_out_seek(&s->out, s->g.inode_tables);
    uint8_t *p = cci_ext4_out_block(&s->out);
    cci_scratch_put_inode(s, p, root, 4, s->g.tail);
    cci_scratch_put_inode(s, p, upper, 2, s->g.tail + 1);
    cci_scratch_put_inode(s, p, work, 2, s->g.tail + 2);
    cci_ext4_out_seek(&s->out, s->g.tail);
    p = cci_ext4_out_block(&s->out);
    cci_ext4_put_dirent(p, root, 12, 2, ".", 1);
    cci_ext4_put_dirent(p + 12, root, 12, 2, "..", 2);
    cci_ext4_put_dirent(p + 24, upper, 16, 2, "upper", 5);
    cci_ext4_put_dirent(p + 40, work, CCI_EXT4_BLOCK - 40, 2, "work", 4);
    for (uint32_t number = upper; number <= work; number++) {
        p = cci_ext4_out_block(&s->out);
        cci_ext4_put_dirent(p, number, 12, 2, ".", 1);
        cci_ext4_put_dirent(p + 12, root, CCI_EXT4_BLOCK - 12, 2, "..", 2);
    }
}

/*
 * Writes an empty filesystem to an empty file. `seed` (32 bytes) becomes its UUID and the key of its directory hashes;
 * `now` is in seconds since 1970. Equal arguments give equal bytes.
 */
static cc_error_code cci_scratch_format(cci_fd fd, uint64_t size, const uint8_t seed[32], int64_t now, cc_error *err)
{
    struct cci_scratch s;
    if (size < CCI_SCRATCH_MIN_SIZE || size > CCI_SCRATCH_MAX_SIZE)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "a scratch disk has between 16 MiB and 16383 GiB");
    memset(&s, 0, sizeof(s));
    memcpy(s.id.uuid, seed, 16);
    s.id.uuid[6] = (uint8_t)((s.id.uuid[6] & 0x0f) | 0x40); /* RFC 9562: version 4, random */
    s.id.uuid[8] = (uint8_t)((s.id.uuid[8] & 0x3f) | 0x80);
    memcpy(s.id.hash_seed, seed + 16, 16);
    s.id.label = "cc-scratch";
    s.id.ro_compat = CCI_EXT4_RO_COMPAT | CCI_EXT4_GDT_CSUM;
    s.now = now;
    s.g.blocks = (uint32_t)(size / CCI_EXT4_BLOCK);
    s.g.groups = (s.g.blocks + CCI_EXT4_GROUP_BLOCKS - 1) / CCI_EXT4_GROUP_BLOCKS;
    cci_ext4_place(&s.g, (uint32_t)(size / CCI_SCRATCH_BYTES_PER_INODE));
    s.used = s.g.tail + CCI_SCRATCH_DIRS;
    if (!cci_ext4_out_init(&s.out, fd))
        return cci_fail_nomem(err);
    cci_scratch_put_super(&s);
    cci_scratch_put_bitmaps(&s);
    cci_scratch_put_dirs(&s);
    cci_ext4_out_flush(&s.out);
    cci_mem_free(s.out.buf);
    if (!s.out.failed)
        s.out.failed = cci_os_truncate(fd, (uint64_t)s.g.blocks * CCI_EXT4_BLOCK);
    if (s.out.failed)
        return cci_fail_errno(err, CC_ERR_IO, -s.out.failed, NULL, "cannot write a scratch disk of %llu MiB: %s",
                              (unsigned long long)(size >> 20), cci_errno_text(-s.out.failed));
    return CC_OK;
}

/* A new scratch disk in directory `dir`, writable, gone with its descriptor. Free it with cci_disk_free. */
static cc_error_code cci_scratch_new(const char *dir, uint64_t size, struct cci_disk *out, cc_error *err)
{
    uint8_t seed[32];
    memset(out, 0, sizeof(*out));
    int r = cci_os_random(seed, sizeof(seed));
    cci_fd fd = r < 0 ? r : cci_os_tmpfile(dir);
    if (fd < 0)
        return cci_fail_errno(err, CC_ERR_IO, -fd, dir, "cannot make a scratch disk in \"%s\": %s", dir,
                              cci_errno_text(-fd));
    cc_error_code code = cci_scratch_format(fd, size, seed, (int64_t)(cci_os_realtime() / 1000000000u), err);
    if (code) {
        cci_os_close(fd);
        return code;
    }
    if (!cci_disk_add(out, fd, 0, size / CCI_EXT4_BLOCK * CCI_EXT4_BLOCK))
        return cci_fail_nomem(err);
    out->writable = true;
    return CC_OK;
}

#endif
