/*
 * image/ext4_extent.h - extent trees: which blocks of the disk hold a file.
 *
 * A list of extents (layer_index.h's encoding) and the number to add to their block numbers become a tree: its root is
 * the 60 bytes of i_block in the inode, with room for four entries; deeper nodes are blocks of 340. An entry of a
 * leaf describes at most 32,768 blocks, so long extents are cut into pieces. Every node is full except the last
 * of its level, so how many blocks a tree takes follows from the number of pieces alone. The blocks are numbered level
 * by level, leaves first, and written in that order; entry i of level L covers the pieces from i * 340^L.
 */
#ifndef CCI_IMAGE_EXT4_EXTENT_H
#define CCI_IMAGE_EXT4_EXTENT_H

#include "ext4_layout.h"
#include "layer_index.h"

#define CCI_EXT4_PIECE 32768u    /* blocks that one entry can describe */
#define CCI_EXT4_ROOT_ENTRIES 4u /* in i_block */
#define CCI_EXT4_NODE_ENTRIES 340u

/* Walks through the pieces of a list of extents. */
struct cci_ext4_pieces {
    struct cci_view rest;
    struct cci_index_extent at; /* what is left of the current extent */
    uint64_t base;              /* added to block numbers */
};

static struct cci_ext4_pieces cci_ext4_pieces_of(struct cci_view extents, uint64_t base)
{
    struct cci_ext4_pieces it = {extents, {0, 0, 0}, base};
    return it;
}

static bool cci_ext4_next_piece(struct cci_ext4_pieces *it, struct cci_index_extent *piece)
{
    if (it->at.count == 0 && !cci_index_take_extent(&it->rest, &it->at))
        return false;
    piece->logical = it->at.logical;
    piece->block = it->base + it->at.block;
    piece->count = CCI_MIN(it->at.count, CCI_EXT4_PIECE);
    it->at.logical += piece->count;
    it->at.block += piece->count;
    it->at.count -= piece->count;
    return true;
}

/* How many pieces, and in *blocks how many blocks they hold. */
static uint64_t cci_ext4_count_pieces(struct cci_view extents, uint64_t *blocks)
{
    struct cci_index_extent x;
    uint64_t pieces = 0;
    for (*blocks = 0; cci_index_take_extent(&extents, &x); *blocks += x.count)
        pieces += ((uint64_t)x.count + CCI_EXT4_PIECE - 1) / CCI_EXT4_PIECE;
    return pieces;
}

/* The blocks that a tree of so many pieces takes beyond the inode. */
static uint64_t cci_ext4_tree_blocks(uint64_t pieces)
{
    uint64_t total = 0;
    for (uint64_t n = pieces; n > CCI_EXT4_ROOT_ENTRIES; total += n)
        n = (n + CCI_EXT4_NODE_ENTRIES - 1) / CCI_EXT4_NODE_ENTRIES;
    return total;
}

static void cci_ext4_put_node(uint8_t *node, uint64_t entries, uint32_t max, unsigned depth)
{
    cci_put_le16(node, 0xf30a); /* magic */
    cci_put_le16(node + 2, (uint16_t)entries);
    cci_put_le16(node + 4, (uint16_t)max);
    cci_put_le16(node + 6, (uint16_t)depth);
}

static void cci_ext4_put_entry(uint8_t *entry, unsigned depth, const struct cci_index_extent *piece, uint32_t child)
{
    cci_put_le32(entry, piece->logical);
    if (depth == 0) {
        cci_put_le16(entry + 4, (uint16_t)piece->count);
        cci_put_le32(entry + 8, (uint32_t)piece->block);
    } else {
        cci_put_le32(entry + 4, child);
    }
}

/*
 * Writes one level: `entries` of them, `stride` pieces apart, into nodes of `max` entries. `child` is the block of the
 * first node one level down. The nodes are taken from `out`, or there is only one, `root`.
 */
static void cci_ext4_put_level(struct cci_ext4_pieces it, unsigned depth, uint64_t entries, uint64_t stride,
                               uint32_t child, struct cci_ext4_out *out, uint8_t *root)
{
    struct cci_index_extent piece;
    uint32_t max = root ? CCI_EXT4_ROOT_ENTRIES : CCI_EXT4_NODE_ENTRIES;
    uint8_t *node = root;
    if (root)
        cci_ext4_put_node(root, entries, max, depth);
    for (uint64_t n = 0, i = 0; cci_ext4_next_piece(&it, &piece); n++) {
        if (n % stride)
            continue;
        if (!root && i % max == 0) {
            node = cci_ext4_out_block(out);
            cci_ext4_put_node(node, CCI_MIN(entries - i, max), max, depth);
        }
        cci_ext4_put_entry(node + 12 + 12 * (i % max), depth, &piece, child + (uint32_t)i);
        i++;
    }
}

/*
 * Writes a tree: the root into `root` (60 bytes, zeroed) if it is not NULL, and the blocks, which begin at block number
 * `first`, to `out` if it is not NULL.
 */
static void cci_ext4_put_tree(struct cci_view extents, uint64_t base, uint32_t first, uint8_t *root,
                              struct cci_ext4_out *out)
{
    struct cci_ext4_pieces it = cci_ext4_pieces_of(extents, base);
    uint64_t blocks, entries = cci_ext4_count_pieces(extents, &blocks), stride = 1;
    unsigned depth = 0;
    uint32_t child = 0, next = first;
    while (entries > CCI_EXT4_ROOT_ENTRIES) {
        if (out)
            cci_ext4_put_level(it, depth, entries, stride, child, out, NULL);
        child = next;
        entries = (entries + CCI_EXT4_NODE_ENTRIES - 1) / CCI_EXT4_NODE_ENTRIES;
        next += (uint32_t)entries;
        stride *= CCI_EXT4_NODE_ENTRIES;
        depth++;
    }
    if (root)
        cci_ext4_put_level(it, depth, entries, stride, child, NULL, root);
}

#endif
