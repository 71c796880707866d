/*
 * image/ext4_xattr.h - extended attributes: in the inode, or in a block.
 *
 * A 256-byte inode has 96 bytes behind its fields for attributes; file capabilities fit there. What does not fit goes
 * into one block, which files with the same attributes share. There is no third place (we do not use ea_inode): an
 * image with a file whose attributes are larger than that is refused, by name.
 *
 * Both places hold entries from the front and values from the back:
 *
 *     entry   u8 length of name, u8 prefix, u16 offset of value, u32 0, u32 size of value, u32 hash, name
 *
 * The prefix ("user." and so on) is a number and not part of the name. In a block, entries are sorted and hashed. POSIX
 * ACLs have a form of their own on disk: the 8-byte entries of the system call become 4 bytes where there is no id.
 * Attributes with a prefix that ext4 does not know are left out, as whoever unpacks on Linux leaves them out.
 */
#ifndef CCI_IMAGE_EXT4_XATTR_H
#define CCI_IMAGE_EXT4_XATTR_H

#include "ext4_layout.h"
#include "layer_index.h"

#define CCI_EXT4_XATTR_MAGIC 0xea020000u
#define CCI_EXT4_XATTR_BODY 96u       /* bytes in the inode, the magic included */
#define CCI_EXT4_XATTR_HEADER 32u     /* of a block */
#define CCI_EXT4_XATTR_MAX_REFS 1024u /* inodes that share a block */
#define CCI_EXT4_XATTR_MAX_ITEMS 256u /* of at least 16 bytes each: more do not fit anyway */

struct cci_ext4_xattr {
    const char *name; /* behind the prefix */
    uint32_t name_len;
    uint32_t prefix;
    const uint8_t *value; /* in the image's form */
    uint32_t value_len;   /* in ext4's form */
};

/* The attributes of one inode, as they will be stored. */
struct cci_ext4_xattrs {
    struct cci_ext4_xattr items[CCI_EXT4_XATTR_MAX_ITEMS];
    uint32_t count;
    uint32_t in_body; /* how many of them, from the front, go into the inode; the rest go into a block */
};

enum { CCI_EXT4_ACL_ACCESS = 2, CCI_EXT4_ACL_DEFAULT = 3 };

static uint32_t cci_ext4_xattr_prefix(const char *name, size_t n, size_t *prefix_len)
{
    static const struct {
        const char *text;
        uint32_t number;
        bool whole; /* the name is nothing but the prefix */
    } table[] = {
        {"user.", 1, false},
        {"system.posix_acl_access", CCI_EXT4_ACL_ACCESS, true},
        {"system.posix_acl_default", CCI_EXT4_ACL_DEFAULT, true},
        {"trusted.", 4, false},
        {"security.", 6, false},
    };
    for (size_t i = 0; i < CCI_COUNT(table); i++) {
        *prefix_len = strlen(table[i].text);
        if (table[i].whole ? n == *prefix_len && memcmp(name, table[i].text, n) == 0
                           : n > *prefix_len && memcmp(name, table[i].text, *prefix_len) == 0)
            return table[i].number;
    }
    return 0;
}

/* ---- POSIX ACLs: u32 version 2, then (u16 tag, u16 permissions, u32 id) each; on disk version 1 ----------------- */

static bool cci_ext4_acl_has_id(const uint8_t *entry)
{
    return cci_le16(entry) == 2 || cci_le16(entry) == 8; /* a named user, a named group */
}

/* The size of an ACL on disk; 0 when it is malformed: Linux then lets nobody at the file. */
static uint32_t cci_ext4_acl_size(const uint8_t *value, size_t n)
{
    if (n < 4 || n % 8 != 4 || cci_le32(value) != 2)
        return 0;
    uint32_t size = 4;
    for (size_t at = 4; at < n; at += 8) {
        uint32_t tag = cci_le16(value + at); /* owner 1, user 2, owning group 4, group 8, mask 16, others 32 */
        if (tag == 0 || tag > 32 || (tag & (tag - 1)) || cci_le16(value + at + 2) > 7)
            return 0;
        size += cci_ext4_acl_has_id(value + at) ? 8 : 4;
    }
    return size;
}

static void cci_ext4_put_acl(uint8_t *p, const uint8_t *value, uint32_t size)
{
    cci_put_le32(p, 1);
    for (uint32_t at = 4; at < size; value += 8) {
        uint32_t n = cci_ext4_acl_has_id(value + 4) ? 8 : 4;
        memcpy(p + at, value + 4, n);
        at += n;
    }
}

/* ---- Choosing ---------------------------------------------------------------------------------------------------- */

static uint32_t cci_ext4_xattr_size(const struct cci_ext4_xattr *x)
{
    return CCI_ALIGN_UP(16 + x->name_len, 4u) + CCI_ALIGN_UP(x->value_len, 4u);
}

/* The order that lookups in a block rely on. */
static bool cci_ext4_xattr_after(const struct cci_ext4_xattr *a, const struct cci_ext4_xattr *b)
{
    if (a->prefix != b->prefix)
        return a->prefix > b->prefix;
    if (a->name_len != b->name_len)
        return a->name_len > b->name_len;
    return memcmp(a->name, b->name, a->name_len) > 0;
}

/* Puts items [from, to) into order. */
static void cci_ext4_xattr_sort(struct cci_ext4_xattrs *set, uint32_t from, uint32_t to)
{
    for (uint32_t i = from + 1; i < to; i++) {
        struct cci_ext4_xattr x = set->items[i];
        uint32_t k = i;
        for (; k > from && cci_ext4_xattr_after(&set->items[k - 1], &x); k--)
            set->items[k] = set->items[k - 1];
        set->items[k] = x;
    }
}

/* Chooses what goes into the inode: everything, else nothing, else (the block being too small) what fits. Returns false
 * when that is not enough. */
static bool cci_ext4_xattr_split(struct cci_ext4_xattrs *set)
{
    const uint32_t body = CCI_EXT4_XATTR_BODY - 8, block = CCI_EXT4_BLOCK - CCI_EXT4_XATTR_HEADER - 4;
    uint32_t total = 0, left = body;
    for (uint32_t i = 0; i < set->count; i++)
        total += cci_ext4_xattr_size(&set->items[i]);
    set->in_body = total <= body ? set->count : 0;
    for (uint32_t i = 0; total > block && i < set->count; i++) {
        struct cci_ext4_xattr x = set->items[i];
        uint32_t size = cci_ext4_xattr_size(&x);
        if (size > left)
            continue;
        left -= size;
        total -= size;
        set->items[i] = set->items[set->in_body];
        set->items[set->in_body++] = x;
    }
    cci_ext4_xattr_sort(set, 0, set->in_body);
    cci_ext4_xattr_sort(set, set->in_body, set->count);
    return set->in_body == set->count || total <= block;
}

/* Reads an entry's attributes. What is wrong with them, or NULL. */
static const char *cci_ext4_xattrs_read(struct cci_view v, struct cci_ext4_xattrs *set)
{
    static const char too_large[] = "its extended attributes do not fit into a block of 4096 bytes";
    struct cci_index_xattr raw;
    set->count = 0;
    while (cci_index_take_xattr(&v, &raw)) {
        size_t skip;
        uint32_t prefix = cci_ext4_xattr_prefix(raw.name, raw.name_len, &skip);
        bool acl = prefix == CCI_EXT4_ACL_ACCESS || prefix == CCI_EXT4_ACL_DEFAULT;
        if (prefix == 0)
            continue;
        if (set->count == CCI_EXT4_XATTR_MAX_ITEMS || raw.value_len > CCI_EXT4_BLOCK * 2)
            return too_large;
        struct cci_ext4_xattr *x = &set->items[set->count++];
        x->prefix = prefix;
        x->name = raw.name + skip;
        x->name_len = (uint32_t)(raw.name_len - skip);
        x->value = raw.value;
        x->value_len = acl ? cci_ext4_acl_size(raw.value, raw.value_len) : (uint32_t)raw.value_len;
        if (acl && x->value_len == 0)
            return "its access control list is malformed";
    }
    return cci_ext4_xattr_split(set) ? NULL : too_large;
}

/* ---- Writing ------------------------------------------------------------------------------------------------------
 */

/* Mixes one attribute's name and value (stored, padded with zeroes) into its hash. */
static uint32_t cci_ext4_xattr_hash(const struct cci_ext4_xattr *x, const uint8_t *stored)
{
    uint32_t hash = 0;
    for (uint32_t i = 0; i < x->name_len; i++)
        hash = (hash << 5 | hash >> 27) ^ (uint8_t)x->name[i];
    for (uint32_t at = 0; at < x->value_len; at += 4)
        hash = (hash << 16 | hash >> 16) ^ cci_le32(stored + at);
    return hash;
}

/* Puts items [from, to) between `first` and `end`; offsets of values are counted from `origin`. The hash of all of
 * them is the result. */
static uint32_t cci_ext4_xattr_put(const struct cci_ext4_xattrs *set, uint32_t from, uint32_t to, uint8_t *first,
                                   uint8_t *end, const uint8_t *origin)
{
    uint32_t all = 0;
    for (uint32_t i = from; i < to; i++) {
        const struct cci_ext4_xattr *x = &set->items[i];
        end -= CCI_ALIGN_UP(x->value_len, 4u);
        if (x->prefix == CCI_EXT4_ACL_ACCESS || x->prefix == CCI_EXT4_ACL_DEFAULT)
            cci_ext4_put_acl(end, x->value, x->value_len);
        else if (x->value_len)
            memcpy(end, x->value, x->value_len);
        uint32_t hash = cci_ext4_xattr_hash(x, end);
        all = (all << 16 | all >> 16) ^ hash;
        first[0] = (uint8_t)x->name_len;
        first[1] = (uint8_t)x->prefix;
        cci_put_le16(first + 2, x->value_len ? (uint16_t)(end - origin) : 0);
        cci_put_le32(first + 8, x->value_len);
        cci_put_le32(first + 12, hash);
        memcpy(first + 16, x->name, x->name_len);
        first += CCI_ALIGN_UP(16 + x->name_len, 4u);
    }
    return all;
}

/* Writes the part in the inode: 96 zeroed bytes at its end. */
static void cci_ext4_put_xattr_body(uint8_t *body, const struct cci_ext4_xattrs *set)
{
    if (set->in_body == 0)
        return;
    cci_put_le32(body, CCI_EXT4_XATTR_MAGIC);
    (void)cci_ext4_xattr_put(set, 0, set->in_body, body + 4, body + CCI_EXT4_XATTR_BODY, body + 4);
}

/* Writes the part in a block: 4096 zeroed bytes. */
static void cci_ext4_put_xattr_block(uint8_t *block, const struct cci_ext4_xattrs *set, uint32_t refs)
{
    cci_put_le32(block, CCI_EXT4_XATTR_MAGIC);
    cci_put_le32(block + 4, refs);
    cci_put_le32(block + 8, 1); /* blocks */
    cci_put_le32(block + 12, cci_ext4_xattr_put(set, set->in_body, set->count, block + CCI_EXT4_XATTR_HEADER,
                                                block + CCI_EXT4_BLOCK, block));
}

#endif
