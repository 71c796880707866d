/*
 * image/tree.h - a filesystem in memory: names, and the inodes they lead to.
 *
 * merge.h builds one from the layers of an image; ext4_write.h turns it into a disk. An image may have half a million
 * files, so what is kept of each is little: one record of 28 bytes, the text of its name, and a slot of a hash table.
 * Everything else about a file (owner, times, attributes, extents) stays in its layer's index, a file, of which the
 * record says the place; tree_entry.h reads it there when it is written. The owner of the tree keeps those files open.
 *
 * A record is a name and the inode as well. Further names of a file (hard links) are records that lead to the first
 * one, which stays as the inode when its own name is removed. Records and texts are in chunks that do not move: an
 * array that grows would leave holes of its former sizes in the heap. Some fields change their meaning when the tree is
 * complete (cci_tree_finish): until then names are looked up and siblings are chained newest first; then nothing is
 * looked up any more, inodes get numbers, and siblings are in the order in which they appeared.
 *
 * Names are found by a hash table over (directory, name). The hash is SipHash-1-3 with a random key: names come from
 * the image, and with a hash known beforehand an image could make every lookup walk one endless chain.
 *
 * Nothing is recursive: an image may nest directories deeper than a stack. The number of names ever made is limited.
 */
#ifndef CCI_IMAGE_TREE_H
#define CCI_IMAGE_TREE_H

#include "../base/cancel.h"
#include "index_reader.h"
#include "siphash.h"

#define CCI_TREE_NONE UINT32_MAX
#define CCI_TREE_ROOT 0u              /* the root's name */
#define CCI_TREE_MAX_NAMES (1u << 21) /* two million, 56 MiB: bounds what an image can make us allocate */
#define CCI_TREE_NAME_BITS 15u        /* names are in chunks of so many, 896 KiB */
#define CCI_TREE_NAME_CHUNKS (CCI_TREE_MAX_NAMES >> CCI_TREE_NAME_BITS)
#define CCI_TREE_CHUNK_BITS 20u /* texts are in chunks of 1 MiB, which do not move, */
#define CCI_TREE_CHUNKS 256u    /* at most so many */
#define CCI_TREE_PLACES 8192u   /* places of a layer begin at a multiple of this */

enum cci_tree_flag {
    CCI_TREE_GONE = 1,  /* the name was removed; as an inode it may live on */
    CCI_TREE_PLAIN = 2, /* nothing in the index asks for blocks of metadata: no attributes, few extents */
    CCI_TREE_SHARES = 4 /* ext4_plan.h's: has a block of attributes */
};

struct cci_tree_name {
    uint32_t text; /* place in the texts: its length, its bytes, and for a symbolic link the target and a NUL */
    uint32_t parent;
    uint32_t next; /* sibling */
    union {
        uint32_t chain;  /* next in the hash table's slot; in a complete tree, */
        uint32_t number; /* the inode's number (ext4_plan.h), 0 before it has one */
    };
    union {
        uint32_t first; /* directories: a child */
        uint32_t links; /* others: names that lead here; 0: gone */
    };
    union {
        uint32_t entry;  /* place of its entry in the layers' indexes; CCI_TREE_NONE: a directory that we made */
        uint32_t holder; /* hard links: the name that is the inode */
    };
    uint16_t layer; /* the last layer that had this path, or one below it */
    uint8_t type;   /* enum cci_index_type */
    uint8_t flags;  /* enum cci_tree_flag */
};

/* Whose index has which places. */
struct cci_tree_layer {
    cci_fd index; /* the caller's */
    uint32_t start, size;
    uint64_t data_blocks;
};

struct cci_tree {
    struct cci_tree_name *names[CCI_TREE_NAME_CHUNKS];
    uint32_t name_count;
    uint32_t inode_count, dir_count; /* of a complete tree */
    uint32_t *slots;                 /* hash table: the first name of each chain; its size is a power of two */
    uint32_t slot_count;
    struct cci_tree_layer *layers;
    uint32_t layer_count;
    uint32_t text_used; /* bytes, with what is left over at the ends of chunks */
    char *texts[CCI_TREE_CHUNKS];
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

/* ---- Names -------------------------------------------------------------------------------------------- */

static void cci_tree_free(struct cci_tree *t)
{
    for (uint32_t i = 0; i < CCI_TREE_CHUNKS; i++)
        cci_mem_free(t->texts[i]);
    for (uint32_t i = 0; i < CCI_TREE_NAME_CHUNKS; i++)
        cci_mem_free(t->names[i]);
    cci_mem_free(t->slots);
    cci_mem_free(t->layers);
    memset(t, 0, sizeof(*t));
}

static struct cci_tree_name *cci_tree_at(const struct cci_tree *t, uint32_t id)
{
    return &t->names[id >> CCI_TREE_NAME_BITS][id & ((1u << CCI_TREE_NAME_BITS) - 1)];
}

/* The text of a name. */
static struct cci_view cci_tree_text(const struct cci_tree *t, uint32_t id)
{
    uint32_t at = cci_tree_at(t, id)->text;
    const uint8_t *p = (const uint8_t *)t->texts[at >> CCI_TREE_CHUNK_BITS] + (at & ((1u << CCI_TREE_CHUNK_BITS) - 1));
    struct cci_view v = {p + 1, p[0]};
    return v;
}

/* The target of a symbolic link. */
static const char *cci_tree_target(const struct cci_tree *t, uint32_t id)
{
    struct cci_view text = cci_tree_text(t, id);
    return (const char *)text.p + text.n;
}

/* The record that is a name's inode. */
static uint32_t cci_tree_inode(const struct cci_tree *t, uint32_t id)
{
    return cci_tree_at(t, id)->type == CCI_INDEX_HARDLINK ? cci_tree_at(t, id)->holder : id;
}

static bool cci_tree_is_dir(const struct cci_tree *t, uint32_t id)
{
    return cci_tree_at(t, id)->type == CCI_INDEX_DIR;
}

static uint32_t *cci_tree_slot(struct cci_tree *t, uint32_t parent, struct cci_view text)
{
    return &t->slots[cci_siphash(t->key, parent, text.p, text.n) & (t->slot_count - 1)];
}

/* The name `text` in directory `parent`, or CCI_TREE_NONE. */
static uint32_t cci_tree_find(struct cci_tree *t, uint32_t parent, struct cci_view text)
{
    uint32_t id = *cci_tree_slot(t, parent, text);
    for (; id != CCI_TREE_NONE; id = cci_tree_at(t, id)->chain) {
        if (cci_tree_at(t, id)->parent != parent)
            continue;
        struct cci_view have = cci_tree_text(t, id);
        if (have.n == text.n && memcmp(have.p, text.p, text.n) == 0)
            return id;
    }
    return CCI_TREE_NONE;
}

/* ---- Growing ------------------------------------------------------------------------------------------ */

/* Doubles the hash table. */
static bool cci_tree_grow_slots(struct cci_tree *t)
{
    uint32_t count = t->slot_count ? t->slot_count * 2 : 1024;
    cci_mem_free(t->slots); /* what is in it follows from the names */
    t->slot_count = 0;
    t->slots = cci_mem_alloc((size_t)count * sizeof(*t->slots));
    if (!t->slots)
        return false;
    t->slot_count = count;
    memset(t->slots, 0xff, (size_t)count * sizeof(*t->slots)); /* CCI_TREE_NONE */
    for (uint32_t id = CCI_TREE_ROOT + 1; id < t->name_count; id++) {
        struct cci_tree_name *name = cci_tree_at(t, id);
        if (name->flags & CCI_TREE_GONE)
            continue;
        uint32_t *slot = cci_tree_slot(t, name->parent, cci_tree_text(t, id));
        name->chain = *slot;
        *slot = id;
    }
    return true;
}

/* Makes a record, of no directory yet. Returns CCI_TREE_NONE when there is no memory, or are too many. */
static uint32_t cci_tree_new(struct cci_tree *t)
{
    uint32_t chunk = t->name_count >> CCI_TREE_NAME_BITS;
    if (t->name_count >= 2 * t->slot_count && !cci_tree_grow_slots(t))
        return CCI_TREE_NONE;
    if (chunk == CCI_TREE_NAME_CHUNKS)
        return CCI_TREE_NONE;
    if (!t->names[chunk]) {
        t->names[chunk] = cci_mem_resize(NULL, (size_t)1 << CCI_TREE_NAME_BITS, sizeof(struct cci_tree_name));
        if (!t->names[chunk])
            return CCI_TREE_NONE;
    }
    return t->name_count++;
}

/* Stores a text. Returns false when there is no memory, or is too much text. */
static bool cci_tree_store(struct cci_tree *t, struct cci_view text, const char *target, uint32_t *at)
{
    const uint32_t chunk = 1u << CCI_TREE_CHUNK_BITS;
    size_t more = target ? strlen(target) + 1 : 0, size = 1 + text.n + more;
    uint32_t left = (chunk - t->text_used % chunk) % chunk;
    if (left < size) { /* at most 1 + 255 + 4096, so any chunk has room */
        uint32_t i = (t->text_used + left) / chunk;
        if (i == CCI_TREE_CHUNKS || !(t->texts[i] = cci_mem_alloc(chunk)))
            return false;
        t->text_used += left;
    }
    char *p = t->texts[t->text_used / chunk] + t->text_used % chunk;
    *p = (char)(uint8_t)text.n;
    if (text.n)
        memcpy(p + 1, text.p, text.n);
    if (more)
        memcpy(p + 1 + text.n, target, more);
    *at = t->text_used;
    t->text_used += (uint32_t)size;
    return true;
}

static cc_error_code cci_tree_full(const struct cci_tree *t, cc_error *err)
{
    if (t->name_count == CCI_TREE_MAX_NAMES || t->text_used > (CCI_TREE_CHUNKS - 1) << CCI_TREE_CHUNK_BITS)
        return cci_fail(err, CC_ERR_IO, NULL, "the image has more than %u files, or 255 MiB of names",
                        CCI_TREE_MAX_NAMES - 1);
    return cci_fail_nomem(err);
}

/* What a new name is. */
struct cci_tree_kind {
    enum cci_index_type type;
    uint32_t entry;     /* or the holder of a hard link */
    const char *target; /* of a symbolic link; else NULL */
    bool plain;
};

/* Makes a name in directory `parent`, where there is none like it. */
static cc_error_code cci_tree_add(struct cci_tree *t, uint32_t parent, struct cci_view text,
                                  const struct cci_tree_kind *kind, uint32_t *id, cc_error *err)
{
    uint32_t at;
    *id = CCI_TREE_NONE;
    if (!cci_tree_store(t, text, kind->target, &at) || (*id = cci_tree_new(t)) == CCI_TREE_NONE)
        return cci_tree_full(t, err);
    struct cci_tree_name *name = cci_tree_at(t, *id), *dir = cci_tree_at(t, parent);
    uint32_t *slot = cci_tree_slot(t, parent, text);
    name->text = at;
    name->parent = parent;
    name->next = dir->first;
    name->chain = *slot;
    name->entry = kind->entry;
    name->layer = UINT16_MAX;
    name->type = (uint8_t)kind->type;
    name->flags = kind->plain ? CCI_TREE_PLAIN : 0;
    *slot = *id;
    dir->first = *id;
    if (kind->type == CCI_INDEX_DIR)
        name->first = CCI_TREE_NONE;
    else
        name->links = kind->type != CCI_INDEX_HARDLINK;
    if (kind->type == CCI_INDEX_HARDLINK)
        cci_tree_at(t, kind->entry)->links++;
    return CC_OK;
}

/* A tree with nothing but a root, a directory that we made. */
static cc_error_code cci_tree_init(struct cci_tree *t, cc_error *err)
{
    const struct cci_tree_name root = {
        0,          CCI_TREE_ROOT, CCI_TREE_NONE, {CCI_TREE_NONE}, {CCI_TREE_NONE}, {CCI_TREE_NONE},
        UINT16_MAX, CCI_INDEX_DIR, CCI_TREE_PLAIN};
    struct cci_view none = {NULL, 0};
    memset(t, 0, sizeof(*t));
    int r = cci_os_random(t->key, sizeof(t->key));
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, -r, NULL, "cannot get random numbers");
    uint32_t text;
    if (!cci_tree_store(t, none, NULL, &text) || cci_tree_new(t) == CCI_TREE_NONE) {
        cci_tree_free(t);
        return cci_fail_nomem(err);
    }
    *cci_tree_at(t, CCI_TREE_ROOT) = root; /* in no chain and no list; its text is the first, at 0 */
    return CC_OK;
}

/* The next layer's index, whose entries get the places from *start on. */
static cc_error_code cci_tree_add_layer(struct cci_tree *t, const struct cci_index_reader *r, uint32_t *start,
                                        cc_error *err)
{
    const struct cci_tree_layer *last = t->layer_count ? &t->layers[t->layer_count - 1] : NULL;
    uint64_t at = last ? CCI_ALIGN_UP((uint64_t)last->start + last->size, CCI_TREE_PLACES) : 0;
    if (at + r->size >= CCI_TREE_NONE || t->layer_count + 1 >= UINT16_MAX)
        return cci_fail(err, CC_ERR_IO, NULL, "the image has too many layers or files");
    struct cci_tree_layer *p = cci_mem_resize(t->layers, t->layer_count + 1, sizeof(*p));
    if (!p)
        return cci_fail_nomem(err);
    p[t->layer_count] = (struct cci_tree_layer){r->fd, (uint32_t)at, (uint32_t)r->size, r->data_blocks};
    t->layers = p;
    t->layer_count++;
    *start = (uint32_t)at;
    return CC_OK;
}

/* The layer that has a place; there is one. */
static uint32_t cci_tree_layer_of(const struct cci_tree *t, uint32_t place)
{
    uint32_t low = 0, high = t->layer_count;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (t->layers[mid].start <= place)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* ---- Walking and removing ------------------------------------------------------------------------------ */

/* Where a list of siblings goes on. Names that were removed are taken out of it on the way. */
static uint32_t cci_tree_living(struct cci_tree *t, uint32_t *link)
{
    while (*link != CCI_TREE_NONE && cci_tree_at(t, *link)->flags & CCI_TREE_GONE)
        *link = cci_tree_at(t, *link)->next;
    return *link;
}

/* The first child, or CCI_TREE_NONE. */
static uint32_t cci_tree_first(struct cci_tree *t, uint32_t id)
{
    return cci_tree_is_dir(t, id) ? cci_tree_living(t, &cci_tree_at(t, id)->first) : CCI_TREE_NONE;
}

static uint32_t cci_tree_next(struct cci_tree *t, uint32_t id)
{
    return cci_tree_living(t, &cci_tree_at(t, id)->next);
}

/* What follows `id` and everything below it, in the order of a walk of `top`; CCI_TREE_NONE at the end. */
static uint32_t cci_tree_skip(struct cci_tree *t, uint32_t id, uint32_t top)
{
    while (id != top) {
        uint32_t next = cci_tree_next(t, id);
        if (next != CCI_TREE_NONE)
            return next;
        id = cci_tree_at(t, id)->parent;
    }
    return CCI_TREE_NONE;
}

/* What follows `id` in a walk of `top` that visits directories before their contents. */
static uint32_t cci_tree_walk(struct cci_tree *t, uint32_t id, uint32_t top)
{
    uint32_t first = cci_tree_first(t, id);
    return first != CCI_TREE_NONE ? first : cci_tree_skip(t, id, top);
}

/* Removes one name that has no children (left). Its directory's list keeps it until somebody comes by. */
static void cci_tree_unlink(struct cci_tree *t, uint32_t id)
{
    struct cci_tree_name *name = cci_tree_at(t, id);
    uint32_t *link = cci_tree_slot(t, name->parent, cci_tree_text(t, id));
    while (*link != id)
        link = &cci_tree_at(t, *link)->chain;
    *link = name->chain;
    name->flags |= CCI_TREE_GONE;
    if (!cci_tree_is_dir(t, id))
        cci_tree_at(t, cci_tree_inode(t, id))->links--;
}

/* Removes a name and everything below it. */
static void cci_tree_remove(struct cci_tree *t, uint32_t top)
{
    uint32_t id = top;
    for (;;) {
        for (uint32_t child; (child = cci_tree_first(t, id)) != CCI_TREE_NONE;)
            id = child;
        uint32_t parent = cci_tree_at(t, id)->parent;
        cci_tree_unlink(t, id);
        if (id == top)
            return;
        id = parent;
    }
}

/* Completes the tree: see above what that changes. */
static void cci_tree_finish(struct cci_tree *t)
{
    cci_mem_free(t->slots);
    t->slots = NULL;
    t->slot_count = 0;
    t->inode_count = t->dir_count = 0;
    for (uint32_t id = 0; id < t->name_count; id++) {
        cci_tree_at(t, id)->number = 0;
        if (cci_tree_is_dir(t, id))
            cci_tree_at(t, id)->first = CCI_TREE_NONE;
    }
    for (uint32_t id = t->name_count; id-- > 0;) {
        struct cci_tree_name *name = cci_tree_at(t, id);
        bool gone = name->flags & CCI_TREE_GONE;
        t->dir_count += cci_tree_is_dir(t, id) && !gone;
        t->inode_count += cci_tree_is_dir(t, id) ? !gone : name->type != CCI_INDEX_HARDLINK && name->links;
        if (gone || id == CCI_TREE_ROOT)
            continue;
        name->next = cci_tree_at(t, name->parent)->first;
        cci_tree_at(t, name->parent)->first = id;
    }
}

#endif
