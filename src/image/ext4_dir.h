/*
 * image/ext4_dir.h - directories: the contents of their blocks.
 *
 * A directory that fits into one block is a list of entries. A larger one is an htree: entries sorted by a hash of the
 * name into leaf blocks, and an index of one or two levels in front, so that a lookup reads two or three blocks of it.
 *
 *     block 0        "." and "..", then the index's root: up to 508 of (hash, block)
 *     blocks 1..n    with more than 508 leaves, the second level: up to 511 each
 *     the rest       leaves, in the order of the hash
 *
 * (hash, block) says that from this hash on names are in that block. Where names of equal hash lie across two leaves,
 * the second leaf's hash has its lowest bit set, which tells a reader to look further. The hash is half of MD4 over the
 * name as unsigned bytes, with the filesystem's seed (Linux: fs/ext4/hash.c describes it, lib/libext2fs too).
 */
#ifndef CCI_IMAGE_EXT4_DIR_H
#define CCI_IMAGE_EXT4_DIR_H

#include "ext4_layout.h"
#include "tree.h"

#define CCI_EXT4_DX_ROOT_MAX 508u /* (4096 - 32) / 8 */
#define CCI_EXT4_DX_NODE_MAX 511u /* (4096 - 8) / 8 */

/* ---- The hash --------------------------------------------------------------------------------------------- */

static uint32_t cci_ext4_rotl(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

/* Three rounds of eight steps over the state, each with its function, its order of the words and its shifts. */
static void cci_ext4_half_md4(uint32_t state[4], const uint32_t in[8])
{
    static const uint8_t order[3][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 3, 5, 7, 0, 2, 4, 6}, {3, 7, 2, 6, 1, 5, 0, 4}};
    static const uint8_t shift[3][4] = {{3, 7, 11, 19}, {3, 5, 9, 13}, {3, 9, 11, 15}};
    static const uint32_t constant[3] = {0, 0x5a827999, 0x6ed9eba1};
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 8; i++) {
            uint32_t f = round == 0 ? (d ^ (b & (c ^ d))) : round == 1 ? (b & c) + ((b ^ c) & d) : (b ^ c ^ d);
            uint32_t sum = cci_ext4_rotl(a + f + in[order[round][i]] + constant[round], shift[round][i % 4]);
            a = d;
            d = c;
            c = b;
            b = sum;
        }
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

/* The next 32 bytes of a name as eight words; where the name ends, its length (in every byte) goes on. */
static void cci_ext4_hash_words(const uint8_t *p, size_t n, uint32_t words[8])
{
    uint32_t pad = (uint32_t)(n & 0xff) * 0x01010101u;
    for (unsigned i = 0; i < 8; i++) {
        words[i] = pad;
        for (unsigned k = 4 * i; k < 4 * i + 4 && k < n; k++)
            words[i] = words[i] << 8 | p[k];
    }
}

static uint32_t cci_ext4_name_hash(const uint8_t seed[16], const char *text, size_t n)
{
    uint32_t state[4], words[8];
    const uint8_t *p = (const uint8_t *)text;
    for (unsigned i = 0; i < 4; i++)
        state[i] = cci_le32(seed + 4 * i);
    for (size_t at = 0; at < n; at += 32) {
        cci_ext4_hash_words(p + at, n - at, words);
        cci_ext4_half_md4(state, words);
    }
    uint32_t hash = state[1] & ~1u;
    return hash == 0xfffffffeu ? 0xfffffffcu : hash; /* the largest means "end of directory" to readdir */
}

/* ---- Sorting and packing ------------------------------------------------------------------------------------- */

static void cci_ext4_sort_few(uint64_t *a, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint64_t x = a[i];
        size_t k = i;
        for (; k > 0 && a[k - 1] > x; k--)
            a[k] = a[k - 1];
        a[k] = x;
    }
}

/*
 * A name to be sorted is a number, its hash above its number in the tree, so that no two are alike. The sort needs no
 * memory and, hashes being the image's choice, no luck: it parts a range by a bit, then both parts by the next lower
 * one. Ranges that wait are one for each bit at most.
 */
static void cci_ext4_sort(uint64_t *a, size_t n)
{
    struct {
        size_t low, high;
        unsigned bit;
    } wait[65] = {{0, n, 63}};
    for (unsigned waiting = 1; waiting;) {
        waiting--;
        size_t low = wait[waiting].low, high = wait[waiting].high, i = low, k = high;
        unsigned bit = wait[waiting].bit;
        if (high - low <= 16) {
            cci_ext4_sort_few(a + low, high - low);
            continue;
        }
        while (i < k) { /* below i the bit is 0, from k on it is 1 */
            uint64_t x = a[i];
            if (x >> bit & 1) {
                a[i] = a[--k];
                a[k] = x;
            } else {
                i++;
            }
        }
        wait[waiting].high = i;
        wait[waiting++].bit = bit - 1; /* more than 16 numbers differ in a bit below */
        wait[waiting].low = i;
        wait[waiting].high = high;
        wait[waiting++].bit = bit - 1;
    }
}

static uint32_t cci_ext4_entry_size(size_t text_len)
{
    return 8 + CCI_ALIGN_UP((uint32_t)text_len, 4u);
}

/* Where the leaf that begins with entry `at` ends. */
static size_t cci_ext4_leaf_end(const struct cci_tree *t, const uint64_t *names, size_t n, size_t at)
{
    uint32_t used = 0;
    for (; at < n; at++) {
        used += cci_ext4_entry_size(cci_tree_text(t, (uint32_t)names[at]).n);
        if (used > CCI_EXT4_BLOCK)
            break;
    }
    return at;
}

/* A directory's names in the order of their hashes, ready to be packed into leaves. */
struct cci_ext4_htree {
    uint64_t *names; /* hash and name, to be freed */
    size_t count;
    uint32_t leaves;
    uint32_t nodes; /* of the second level; 0 when there is none */
};

/* Prepares a directory of `count` names. Returns false when there is no memory. */
static bool cci_ext4_htree_make(struct cci_ext4_htree *h, const struct cci_tree *t, uint32_t dir, size_t count,
                                const uint8_t seed[16])
{
    size_t i = 0;
    h->names = cci_mem_resize(NULL, count, sizeof(*h->names));
    if (!h->names)
        return false;
    h->count = count;
    for (uint32_t id = cci_tree_at(t, dir)->first; id != CCI_TREE_NONE; id = cci_tree_at(t, id)->next) {
        struct cci_view text = cci_tree_text(t, id);
        h->names[i++] = (uint64_t)cci_ext4_name_hash(seed, (const char *)text.p, text.n) << 32 | id;
    }
    cci_ext4_sort(h->names, count);
    h->leaves = 0;
    for (size_t at = 0; at < count; at = cci_ext4_leaf_end(t, h->names, count, at))
        h->leaves++;
    h->nodes = h->leaves > CCI_EXT4_DX_ROOT_MAX ? (h->leaves + CCI_EXT4_DX_NODE_MAX - 1) / CCI_EXT4_DX_NODE_MAX : 0;
    return true;
}

/* ---- Blocks ---------------------------------------------------------------------------------------------------- */

/* Writes one directory entry of `size` bytes. */
static void cci_ext4_put_dirent(uint8_t *p, uint32_t number, uint32_t size, unsigned type, const void *text,
                                size_t text_len)
{
    cci_put_le32(p, number);
    cci_put_le16(p + 4, (uint16_t)size);
    p[6] = (uint8_t)text_len;
    p[7] = (uint8_t)type;
    memcpy(p + 8, text, text_len);
}

static unsigned cci_ext4_dirent_type(enum cci_index_type type)
{
    static const uint8_t types[] = {0, 1, 2, 7, 3, 4, 5, 6}; /* by enum cci_index_type */
    return (unsigned)type < CCI_COUNT(types) ? types[type] : 0;
}

static void cci_ext4_put_name(uint8_t *p, const struct cci_tree *t, uint32_t id, uint32_t size)
{
    const struct cci_tree_name *inode = cci_tree_at(t, cci_tree_inode(t, id));
    struct cci_view text = cci_tree_text(t, id);
    cci_ext4_put_dirent(p, inode->number, size, cci_ext4_dirent_type((enum cci_index_type)inode->type), text.p, text.n);
}

static void cci_ext4_put_dots(uint8_t *p, const struct cci_tree *t, uint32_t dir, uint32_t rest)
{
    cci_ext4_put_dirent(p, cci_tree_at(t, dir)->number, 12, 2, ".", 1);
    cci_ext4_put_dirent(p + 12, cci_tree_at(t, cci_tree_at(t, dir)->parent)->number, rest, 2, "..", 2);
}

/* A directory that fits into one block: the last entry takes all the space that is left. */
static void cci_ext4_put_small_dir(struct cci_ext4_out *out, const struct cci_tree *t, uint32_t dir)
{
    uint8_t *p = cci_ext4_out_block(out);
    uint32_t at = 24, id = cci_tree_at(t, dir)->first;
    cci_ext4_put_dots(p, t, dir, id == CCI_TREE_NONE ? CCI_EXT4_BLOCK - 12 : 12);
    for (; id != CCI_TREE_NONE; id = cci_tree_at(t, id)->next) {
        uint32_t size = cci_ext4_entry_size(cci_tree_text(t, id).n);
        if (cci_tree_at(t, id)->next == CCI_TREE_NONE)
            size = CCI_EXT4_BLOCK - at;
        cci_ext4_put_name(p + at, t, id, size);
        at += size;
    }
}

/* The header of an array of (hash, block); it takes the place of the first one's hash, which is 0. */
static void cci_ext4_put_dx(uint8_t *p, uint32_t max, uint32_t count)
{
    cci_put_le16(p, (uint16_t)max);
    cci_put_le16(p + 2, (uint16_t)count);
}

static uint8_t *cci_ext4_put_dx_root(struct cci_ext4_out *out, const struct cci_tree *t, uint32_t dir,
                                     const struct cci_ext4_htree *h)
{
    uint8_t *p = cci_ext4_out_block(out);
    cci_ext4_put_dots(p, t, dir, CCI_EXT4_BLOCK - 12);
    p[28] = CCI_EXT4_HASH_HALF_MD4;
    p[29] = 8; /* size of this */
    p[30] = h->nodes ? 1 : 0;
    cci_ext4_put_dx(p + 32, CCI_EXT4_DX_ROOT_MAX, h->nodes ? h->nodes : h->leaves);
    return p + 32;
}

static uint8_t *cci_ext4_put_dx_node(struct cci_ext4_out *out, uint32_t count)
{
    uint8_t *p = cci_ext4_out_block(out);
    cci_put_le16(p + 4, CCI_EXT4_BLOCK); /* an unused entry all over the block, for those who know no htree */
    cci_ext4_put_dx(p + 8, CCI_EXT4_DX_NODE_MAX, count);
    return p + 8;
}

/* What the index says of the leaf that begins with entry `at`. */
static uint32_t cci_ext4_leaf_hash(const struct cci_ext4_htree *h, size_t at)
{
    uint32_t hash = (uint32_t)(h->names[at] >> 32);
    return at > 0 && h->names[at - 1] >> 32 == hash ? hash | 1 : hash;
}

static void cci_ext4_put_index(struct cci_ext4_out *out, const struct cci_tree *t, uint32_t dir,
                               const struct cci_ext4_htree *h)
{
    uint8_t *array = cci_ext4_put_dx_root(out, t, dir, h);
    size_t at = 0;
    for (uint32_t node = 0; node < h->nodes; node++) {
        if (node > 0)
            cci_put_le32(array + 8 * node, cci_ext4_leaf_hash(h, at));
        cci_put_le32(array + 8 * node + 4, 1 + node);
        for (unsigned i = 0; i < CCI_EXT4_DX_NODE_MAX && at < h->count; i++)
            at = cci_ext4_leaf_end(t, h->names, h->count, at);
    }
    uint32_t max = h->nodes ? CCI_EXT4_DX_NODE_MAX : h->leaves;
    at = 0;
    for (uint32_t leaf = 0; leaf < h->leaves; leaf++) {
        if (h->nodes && leaf % max == 0)
            array = cci_ext4_put_dx_node(out, CCI_MIN(h->leaves - leaf, max));
        if (leaf % max)
            cci_put_le32(array + 8 * (leaf % max), cci_ext4_leaf_hash(h, at));
        cci_put_le32(array + 8 * (leaf % max) + 4, 1 + h->nodes + leaf);
        at = cci_ext4_leaf_end(t, h->names, h->count, at);
    }
}

static void cci_ext4_put_leaves(struct cci_ext4_out *out, const struct cci_tree *t, const struct cci_ext4_htree *h)
{
    for (size_t at = 0; at < h->count;) {
        size_t end = cci_ext4_leaf_end(t, h->names, h->count, at);
        uint8_t *p = cci_ext4_out_block(out);
        for (uint32_t used = 0; at < end; at++) {
            uint32_t id = (uint32_t)h->names[at];
            uint32_t size = at + 1 < end ? cci_ext4_entry_size(cci_tree_text(t, id).n) : CCI_EXT4_BLOCK - used;
            cci_ext4_put_name(p + used, t, id, size);
            used += size;
        }
    }
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

/* How many names a directory has, and in *small whether they fit into one block. */
static size_t cci_ext4_dir_count(const struct cci_tree *t, uint32_t dir, bool *small)
{
    uint64_t size = 24;
    size_t count = 0;
    for (uint32_t id = cci_tree_at(t, dir)->first; id != CCI_TREE_NONE; id = cci_tree_at(t, id)->next, count++)
        size += cci_ext4_entry_size(cci_tree_text(t, id).n);
    *small = size <= CCI_EXT4_BLOCK;
    return count;
}

/* How many blocks a directory takes; with `out`, writes them (inode numbers are known then). */
static cc_error_code cci_ext4_dir(const struct cci_tree *t, uint32_t dir, const uint8_t seed[16],
                                  struct cci_ext4_out *out, uint32_t *blocks, cc_error *err)
{
    struct cci_ext4_htree h;
    bool small;
    size_t count = cci_ext4_dir_count(t, dir, &small);
    *blocks = 1;
    if (small && out)
        cci_ext4_put_small_dir(out, t, dir);
    if (small)
        return CC_OK;
    if (!cci_ext4_htree_make(&h, t, dir, count, seed))
        return cci_fail_nomem(err);
    *blocks = 1 + h.nodes + h.leaves;
    bool fits = h.nodes <= CCI_EXT4_DX_ROOT_MAX;
    if (out && fits) {
        cci_ext4_put_index(out, t, dir, &h);
        cci_ext4_put_leaves(out, t, &h);
    }
    cci_mem_free(h.names);
    struct cci_view text = cci_tree_text(t, dir);
    return fits ? CC_OK
                : cci_fail(err, CC_ERR_IO, NULL, "a directory of the image, \"%.*s\", has too many names", (int)text.n,
                           (const char *)text.p);
}

#endif
