/*
 * image/tree_entry.h - what a tree's inodes are: their entries, read again from the layers' indexes.
 *
 * The tree knows places (tree.h). Whoever writes it goes through it directory by directory, which in an archive's
 * order is mostly forwards, with jumps over and back to subdirectories. So what was read is kept as 32 windows of
 * 8 KiB, found by place. A window has 1 KiB of the next one at its end, so that an entry that begins in it is in it as
 * a whole; one that is larger than that is read on its own.
 *
 * An index may have been changed since it was merged, so an entry gets the same checks again, and must still be of its
 * type. What the plan found out about it beyond that, whoever relies on it compares.
 */
#ifndef CCI_IMAGE_TREE_ENTRY_H
#define CCI_IMAGE_TREE_ENTRY_H

#include "tree.h"

#define CCI_TREE_WINDOW CCI_TREE_PLACES /* so none has places of two layers */
#define CCI_TREE_OVERLAP 1024u
#define CCI_TREE_WINDOWS 32u

struct cci_tree_reader {
    const struct cci_tree *t;
    uint8_t *windows;
    uint32_t number[CCI_TREE_WINDOWS]; /* which each of them is: its place / CCI_TREE_WINDOW */
    uint32_t filled[CCI_TREE_WINDOWS]; /* bytes; 0: not read */
    uint8_t *large;                    /* an entry that no window has as a whole */
    size_t large_cap;
};

static cc_error_code cci_tree_changed(cc_error *err)
{
    return cci_index_bad(err, "it changed while it was read");
}

/* Zeroed memory is a reader too, of no tree. */
static cc_error_code cci_tree_reader_init(struct cci_tree_reader *r, const struct cci_tree *t, cc_error *err)
{
    memset(r, 0, sizeof(*r));
    r->t = t;
    r->windows = cci_mem_alloc((size_t)CCI_TREE_WINDOWS * (CCI_TREE_WINDOW + CCI_TREE_OVERLAP));
    return r->windows ? CC_OK : cci_fail_nomem(err);
}

static void cci_tree_reader_free(struct cci_tree_reader *r)
{
    cci_mem_free(r->windows);
    cci_mem_free(r->large);
    memset(r, 0, sizeof(*r));
}

/* Sees to it that the window with a place is read. */
static cc_error_code cci_tree_window(struct cci_tree_reader *r, const struct cci_tree_layer *layer, uint32_t place,
                                     cc_error *err)
{
    uint32_t number = place / CCI_TREE_WINDOW, slot = number % CCI_TREE_WINDOWS;
    if (r->number[slot] == number && r->filled[slot])
        return CC_OK;
    uint32_t offset = number * CCI_TREE_WINDOW - layer->start;
    size_t want = CCI_MIN(CCI_TREE_WINDOW + CCI_TREE_OVERLAP, layer->size - offset);
    int64_t got =
        cci_os_pread_all(layer->index, r->windows + (size_t)slot * (CCI_TREE_WINDOW + CCI_TREE_OVERLAP), want, offset);
    r->filled[slot] = got < 0 ? 0 : (uint32_t)got;
    r->number[slot] = number;
    return got < 0 ? cci_index_unreadable(err, got) : CC_OK;
}

static cc_error_code cci_tree_read_large(struct cci_tree_reader *r, const struct cci_tree_layer *layer, uint32_t place,
                                         size_t n, cc_error *err)
{
    if (n > r->large_cap) {
        uint8_t *p = cci_mem_resize(r->large, n, 1);
        if (!p)
            return cci_fail_nomem(err);
        r->large = p;
        r->large_cap = n;
    }
    int64_t got = cci_os_pread_all(layer->index, r->large, n, place - layer->start);
    if (got < 0)
        return cci_index_unreadable(err, got);
    return (size_t)got == n ? CC_OK : cci_tree_changed(err);
}

/* The n bytes from a place on, which are there until the next call. */
static cc_error_code cci_tree_bytes(struct cci_tree_reader *r, uint32_t place, size_t n, struct cci_view *v,
                                    cc_error *err)
{
    const struct cci_tree_layer *layer = &r->t->layers[cci_tree_layer_of(r->t, place)];
    uint32_t slot = place / CCI_TREE_WINDOW % CCI_TREE_WINDOWS, at = place % CCI_TREE_WINDOW;
    cc_error_code code;
    if (n > layer->size - (place - layer->start))
        return cci_tree_changed(err);
    if (n > CCI_TREE_WINDOW + CCI_TREE_OVERLAP - at) {
        code = cci_tree_read_large(r, layer, place, n, err);
        *v = (struct cci_view){r->large, n};
        return code;
    }
    code = cci_tree_window(r, layer, place, err);
    if (!code && at + n > r->filled[slot])
        code = cci_tree_changed(err); /* it became shorter */
    *v = (struct cci_view){r->windows + (size_t)slot * (CCI_TREE_WINDOW + CCI_TREE_OVERLAP) + at, n};
    return code;
}

/* The entry at a place where one was; what it points to is there until the next call. */
static cc_error_code cci_tree_entry_at(struct cci_tree_reader *r, uint32_t place, struct cci_index_entry *e,
                                       cc_error *err)
{
    struct cci_view v;
    cc_error_code code = cci_tree_bytes(r, place, CCI_INDEX_FIXED, &v, err);
    if (code)
        return code;
    size_t length = cci_le32(v.p);
    if (length < CCI_INDEX_FIXED)
        return cci_tree_changed(err);
    code = cci_tree_bytes(r, place, length, &v, err);
    if (!code && cci_le32(v.p) != length)
        code = cci_tree_changed(err);
    e->place = place;
    return code ? code : cci_index_parse(v, r->t->layers[cci_tree_layer_of(r->t, place)].data_blocks, e, err);
}

/* The entry of an inode; what it points to is there until the next call. */
static cc_error_code cci_tree_entry(struct cci_tree_reader *r, uint32_t inode, uint32_t place,
                                    struct cci_index_entry *e, cc_error *err)
{
    if (place == CCI_TREE_NONE) {
        memset(e, 0, sizeof(*e)); /* as umoci makes one: mode 0755, owner root, time 0 */
        e->type = CCI_INDEX_DIR;
        e->mode = 0755;
        e->path = e->target = "";
        return CC_OK;
    }
    cc_error_code code = cci_tree_entry_at(r, place, e, err);
    return code || e->type == (enum cci_index_type)cci_tree_at(r->t, inode)->type ? code : cci_tree_changed(err);
}

#endif
