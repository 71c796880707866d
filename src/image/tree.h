/*
 * image/tree.h - a filesystem in memory: names, and the inodes they lead to.
 *
 * merge.h builds one from the layers of an image; ext4_write.h turns it into a disk. A name knows its directory, its
 * neighbours there and, when it is a directory itself, its first and last child; several names may share an inode
 * (hard links). Everything lives in two arrays and is named by its index, because arrays move as they grow. What an
 * inode is (owner, times, link target, attributes, extents) and the texts of names are not copied: they point into the
 * layer indexes, which the owner of the tree keeps until the tree is gone. So a file costs less than 100 bytes beside
 * its entry there.
 *
 * Names are found by a hash table over (directory, name). The hash is SipHash-1-3 with a random key: names come from
 * the image, and with a hash known beforehand an image could make every lookup walk one endless chain.
 *
 * Nothing is recursive: an image may nest directories deeper than a stack. The number of names ever made is limited.
 */
#ifndef CCI_IMAGE_TREE_H
#define CCI_IMAGE_TREE_H

#include "../base/cancel.h"
#include "layer_index.h"

#define CCI_TREE_NONE UINT32_MAX
#define CCI_TREE_ROOT 0u              /* the root's name, and its inode */
#define CCI_TREE_MAX_NAMES (1u << 21) /* two million, 200 MiB: bounds what an image can make us allocate */

struct cci_tree_inode {
    const uint8_t *entry;   /* its entry in the layer's index, see cci_tree_meta; NULL: a directory that we made */
    uint32_t layer;         /* whose data the extents point into */
    uint32_t links;         /* names that lead here; 0: gone */
    uint32_t number;        /* the rest is ext4_plan.h's: the inode's number, */
    uint32_t name;          /* a name that leads here, a directory's only one, */
    uint32_t blocks;        /* the blocks it has in the tail, */
    uint32_t content_count; /* how many with contents (of a directory, of a long link), */
    uint32_t node_count;    /* how many nodes of its extent tree behind them, */
    uint32_t shared;        /* and which block of attributes, from 1; 0 if it has none */
};

struct cci_tree_name {
    const char *text; /* no NUL behind it */
    uint32_t text_len;
    uint32_t inode;
    uint32_t parent;      /* the directory's name; the root is its own */
    uint32_t prev, next;  /* neighbours in the directory, in order of appearance */
    uint32_t first, last; /* children */
    uint32_t chain;       /* next in the hash table's slot */
    uint32_t layer;       /* the last layer that had this path, or one below it */
};

struct cci_tree {
    struct cci_tree_name *names;
    struct cci_tree_inode *inodes;
    uint32_t name_count, name_cap;
    uint32_t inode_count, inode_cap;
    uint32_t *slots; /* hash table: the first name of each chain; its size is a power of two */
    uint32_t slot_count;
    uint64_t key[2];             /* of the hash */
    const struct cci_wait *wait; /* what work on the tree is done under; NULL: for as long as it takes */
    uint32_t turns;              /* of cci_tree_check */
};

#define CCI_TREE_TURNS 4096u /* between two looks at the wait: well under a millisecond of work */

/* To be called for each name or inode by whoever goes through all of them: CC_OK while the caller wants the result. */
static cc_error_code cci_tree_check(struct cci_tree *t, cc_error *err)
{
    if (!t->wait || ++t->turns % CCI_TREE_TURNS)
        return CC_OK;
    return cci_wait_check(t->wait, NULL, "preparing the root filesystem", err);
}

/* ---- SipHash-1-3 (Aumasson, Bernstein: one round a word, three at the end) ------------------------------ */

static uint64_t cci_tree_rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static void cci_tree_sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = cci_tree_rotl(v[1], 13) ^ v[0];
    v[3] = cci_tree_rotl(v[3], 16) ^ v[2];
    v[0] = cci_tree_rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = cci_tree_rotl(v[1], 17) ^ v[2];
    v[3] = cci_tree_rotl(v[3], 21) ^ v[0];
    v[2] = cci_tree_rotl(v[2], 32);
}

static void cci_tree_sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    cci_tree_sip_round(v);
    v[0] ^= word;
}

/* Hash of a number and some bytes; the number is the message's first word. */
static uint64_t cci_tree_hash(const uint64_t key[2], uint64_t number, const void *bytes, size_t n)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    const uint8_t *p = bytes;
    uint64_t last = (uint64_t)(n + 8) << 56;
    cci_tree_sip_word(v, number);
    for (; n >= 8; n -= 8, p += 8)
        cci_tree_sip_word(v, cci_le64(p));
    for (unsigned i = 0; i < n; i++)
        last |= (uint64_t)p[i] << (8 * i);
    cci_tree_sip_word(v, last);
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++)
        cci_tree_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- Names -------------------------------------------------------------------------------------------- */

static void cci_tree_free(struct cci_tree *t)
{
    cci_mem_free(t->names);
    cci_mem_free(t->inodes);
    cci_mem_free(t->slots);
    memset(t, 0, sizeof(*t));
}

static uint32_t *cci_tree_slot(struct cci_tree *t, uint32_t parent, const char *text, size_t n)
{
    return &t->slots[cci_tree_hash(t->key, parent, text, n) & (t->slot_count - 1)];
}

/* The name `text` in directory `parent`, or CCI_TREE_NONE. */
static uint32_t cci_tree_find(struct cci_tree *t, uint32_t parent, const char *text, size_t n)
{
    uint32_t id = *cci_tree_slot(t, parent, text, n);
    for (; id != CCI_TREE_NONE; id = t->names[id].chain) {
        const struct cci_tree_name *name = &t->names[id];
        if (name->parent == parent && name->text_len == n && memcmp(name->text, text, n) == 0)
            return id;
    }
    return CCI_TREE_NONE;
}

static struct cci_tree_inode *cci_tree_inode(struct cci_tree *t, uint32_t name)
{
    return &t->inodes[t->names[name].inode];
}

static enum cci_index_type cci_tree_type(const struct cci_tree_inode *inode)
{
    return inode->entry ? (enum cci_index_type)inode->entry[4] : CCI_INDEX_DIR;
}

/* What an inode is. The path is not used: names are in struct cci_tree_name. */
static struct cci_index_entry cci_tree_meta(const struct cci_tree_inode *inode)
{
    struct cci_index_entry e;
    if (inode->entry) {
        cci_index_entry_at(inode->entry, &e);
        return e;
    }
    memset(&e, 0, sizeof(e)); /* as umoci makes one: mode 0755, owner root, time 0 */
    e.type = CCI_INDEX_DIR;
    e.mode = 0755;
    e.target = "";
    return e;
}

static bool cci_tree_is_dir(struct cci_tree *t, uint32_t name)
{
    return cci_tree_type(cci_tree_inode(t, name)) == CCI_INDEX_DIR;
}

/* Doubles the hash table when names outnumber slots. The old one is left as it was when there is no memory. */
static bool cci_tree_grow_slots(struct cci_tree *t)
{
    uint32_t count = t->slot_count ? t->slot_count * 2 : 1024;
    uint32_t *slots = cci_mem_alloc((size_t)count * sizeof(*slots));
    if (!slots)
        return false;
    memset(slots, 0xff, (size_t)count * sizeof(*slots)); /* CCI_TREE_NONE */
    uint32_t *old = t->slots, old_count = t->slot_count;
    t->slots = slots;
    t->slot_count = count;
    for (uint32_t i = 0; i < old_count; i++) {
        for (uint32_t id = old[i], after; id != CCI_TREE_NONE; id = after) {
            struct cci_tree_name *name = &t->names[id];
            uint32_t *slot = cci_tree_slot(t, name->parent, name->text, name->text_len);
            after = name->chain;
            name->chain = *slot;
            *slot = id;
        }
    }
    cci_mem_free(old);
    return true;
}

/* Makes room for `names` more names and as many inodes, so that the arrays need not grow by copying. That there is no
 * memory is found when it is used. */
static void cci_tree_expect(struct cci_tree *t, uint64_t names)
{
    uint32_t cap = (uint32_t)CCI_MIN(names + t->name_count, CCI_TREE_MAX_NAMES);
    if (cap > t->name_cap) {
        struct cci_tree_name *p = cci_mem_resize(t->names, cap, sizeof(*p));
        t->names = p ? p : t->names;
        t->name_cap = p ? cap : t->name_cap;
    }
    if (cap > t->inode_cap) {
        struct cci_tree_inode *p = cci_mem_resize(t->inodes, cap, sizeof(*p));
        t->inodes = p ? p : t->inodes;
        t->inode_cap = p ? cap : t->inode_cap;
    }
}

/* A new inode with no names; CCI_TREE_NONE when there is no memory. */
static uint32_t cci_tree_new_inode(struct cci_tree *t, const uint8_t *entry, uint32_t layer)
{
    if (t->inode_count == t->inode_cap) {
        uint32_t cap = t->inode_cap ? t->inode_cap * 2 : 1024;
        struct cci_tree_inode *p = cci_mem_resize(t->inodes, cap, sizeof(*p));
        if (!p)
            return CCI_TREE_NONE;
        t->inodes = p;
        t->inode_cap = cap;
    }
    struct cci_tree_inode *inode = &t->inodes[t->inode_count];
    memset(inode, 0, sizeof(*inode));
    inode->entry = entry;
    inode->layer = layer;
    return t->inode_count++;
}

static uint32_t cci_tree_new_name(struct cci_tree *t)
{
    if (t->name_count == t->name_cap) {
        uint32_t cap = t->name_cap ? CCI_MIN(t->name_cap * 2, CCI_TREE_MAX_NAMES) : 1024;
        struct cci_tree_name *p = cap > t->name_count ? cci_mem_resize(t->names, cap, sizeof(*p)) : NULL;
        if (!p)
            return CCI_TREE_NONE;
        t->names = p;
        t->name_cap = cap;
    }
    if (t->name_count >= t->slot_count && !cci_tree_grow_slots(t))
        return CCI_TREE_NONE;
    return t->name_count++;
}

static cc_error_code cci_tree_full(struct cci_tree *t, cc_error *err)
{
    if (t->name_count >= CCI_TREE_MAX_NAMES)
        return cci_fail(err, CC_ERR_IO, NULL, "the image has more than %u files", CCI_TREE_MAX_NAMES);
    return cci_fail_nomem(err);
}

/* Gives an inode a name at the end of directory `parent`, where there is none like it. */
static cc_error_code cci_tree_add(struct cci_tree *t, uint32_t parent, const char *text, size_t n, uint32_t inode,
                                  uint32_t *id, cc_error *err)
{
    *id = inode == CCI_TREE_NONE ? CCI_TREE_NONE : cci_tree_new_name(t);
    if (*id == CCI_TREE_NONE)
        return cci_tree_full(t, err);
    struct cci_tree_name *name = &t->names[*id], *dir = &t->names[parent];
    uint32_t *slot = cci_tree_slot(t, parent, text, n);
    name->text = text;
    name->text_len = (uint32_t)n;
    name->inode = inode;
    name->parent = parent;
    name->first = name->last = name->next = CCI_TREE_NONE;
    name->layer = CCI_TREE_NONE;
    name->prev = dir->last;
    name->chain = *slot;
    *slot = *id;
    if (dir->last != CCI_TREE_NONE)
        t->names[dir->last].next = *id;
    else
        dir->first = *id;
    dir->last = *id;
    t->inodes[inode].links++;
    return CC_OK;
}

/* A tree with nothing but a root, a directory that we made. */
static cc_error_code cci_tree_init(struct cci_tree *t, cc_error *err)
{
    memset(t, 0, sizeof(*t));
    int r = cci_os_random(t->key, sizeof(t->key));
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, -r, NULL, "cannot get random numbers");
    uint32_t inode = cci_tree_new_inode(t, NULL, 0);
    uint32_t id = inode == CCI_TREE_NONE ? CCI_TREE_NONE : cci_tree_new_name(t);
    if (id == CCI_TREE_NONE) {
        cci_tree_free(t);
        return cci_fail_nomem(err);
    }
    struct cci_tree_name *name = &t->names[id];
    memset(name, 0xff, sizeof(*name)); /* CCI_TREE_NONE all over; the root is in no chain and no list */
    name->text = "";
    name->text_len = 0;
    name->inode = inode;
    name->parent = CCI_TREE_ROOT;
    t->inodes[inode].links = 1;
    return CC_OK;
}

/* ---- Walking and removing ------------------------------------------------------------------------------ */

/* What follows `id` and everything below it, in the order of a walk of `top`; CCI_TREE_NONE at the end. */
static uint32_t cci_tree_skip(const struct cci_tree *t, uint32_t id, uint32_t top)
{
    while (id != top) {
        if (t->names[id].next != CCI_TREE_NONE)
            return t->names[id].next;
        id = t->names[id].parent;
    }
    return CCI_TREE_NONE;
}

/* What follows `id` in a walk of `top` that visits directories before their contents. */
static uint32_t cci_tree_walk(const struct cci_tree *t, uint32_t id, uint32_t top)
{
    return t->names[id].first != CCI_TREE_NONE ? t->names[id].first : cci_tree_skip(t, id, top);
}

/* Removes one name that has no children (left). */
static void cci_tree_unlink(struct cci_tree *t, uint32_t id)
{
    struct cci_tree_name *name = &t->names[id], *dir = &t->names[name->parent];
    uint32_t *link = cci_tree_slot(t, name->parent, name->text, name->text_len);
    while (*link != id)
        link = &t->names[*link].chain;
    *link = name->chain;
    *(name->prev != CCI_TREE_NONE ? &t->names[name->prev].next : &dir->first) = name->next;
    *(name->next != CCI_TREE_NONE ? &t->names[name->next].prev : &dir->last) = name->prev;
    t->inodes[name->inode].links--;
}

/* Removes a name and everything below it. */
static void cci_tree_remove(struct cci_tree *t, uint32_t top)
{
    uint32_t id = top;
    for (;;) {
        while (t->names[id].first != CCI_TREE_NONE)
            id = t->names[id].first;
        uint32_t parent = t->names[id].parent;
        cci_tree_unlink(t, id);
        if (id == top)
            return;
        id = parent;
    }
}

#endif
