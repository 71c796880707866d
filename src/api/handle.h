/*
 * api/handle.h - handles: numbers for objects, checked at every use.
 *
 * A handle is {kind:8, generation:24, slot:32}. The table's slot knows the object and the generation that is valid
 * now; freeing moves the generation on, so an old handle never finds a newer object. A slot whose generations are
 * used up is retired. Objects are counted: the table holds one reference, and every call that works on an object
 * another, so that a close in one thread never takes the object from under a call in another.
 *
 * The table is the library's one registry. It is a global because handles are plain numbers; its mutex is
 * statically initialised, so that calls before cc_init find an empty table and not a crash. It also counts the objects
 * that live, so that cc_shutdown can wait until the calls of other threads have let go of theirs.
 */
#ifndef CCI_API_HANDLE_H
#define CCI_API_HANDLE_H

#include "../base/error.h"
#include "../base/os.h"

enum cci_kind {
    CCI_KIND_NONE,
    CCI_KIND_TOKEN,
    CCI_KIND_CLIENT,
    CCI_KIND_SOURCE,
    CCI_KIND_INSTANCE,
    CCI_KIND_CMD,
    CCI_KIND_READ_PIPE,
    CCI_KIND_WRITE_PIPE,
    CCI_KIND_FILE,
    CCI_KIND_WATCH,
    CCI_KIND_CONN,
    CCI_KIND_LISTENER
};

/* First member of every object behind a handle. */
struct cci_object {
    unsigned refs;                           /* under the table's mutex */
    cc_handle handle;                        /* its own */
    void (*interrupt)(struct cci_object *o); /* its instance is being closed: end what keeps calls inside; or NULL */
    void (*destroy)(struct cci_object *o);   /* called once, when the last reference goes, without the mutex */
};

struct cci_slot {
    struct cci_object *object; /* NULL: free */
    uint32_t generation;       /* of the object, or of the next one; 1 to CCI_GENERATION_MAX */
    uint32_t next_free;        /* slot number + 1; 0 ends the list */
};

#define CCI_GENERATION_MAX 0xffffffu
#define CCI_SLOTS_MAX (1u << 20)

static struct cci_registry {
    struct cci_mutex mutex;
    struct cci_slot *slots;
    uint32_t count, cap;
    uint32_t free_list;        /* slot number + 1 */
    uint32_t first_generation; /* of new slots: beyond those of tables before, so that their handles stay invalid */
    unsigned init_count;       /* cc_init calls without their cc_shutdown */
    bool stopping;             /* the last cc_shutdown is under way */
    unsigned live;             /* objects, and calls that work on none, which cc_shutdown waits for */
    struct cci_cond changed;   /* live became 0, or stopping false */
} cci_registry = {.mutex = CCI_MUTEX_INIT, .first_generation = 1, .changed = CCI_COND_INIT};

static const char *cci_kind_name(enum cci_kind kind)
{
    static const char *const names[] = {
        [CCI_KIND_NONE] = "handle",       [CCI_KIND_TOKEN] = "cancel token",
        [CCI_KIND_CLIENT] = "OCI client", [CCI_KIND_SOURCE] = "instance source",
        [CCI_KIND_INSTANCE] = "instance", [CCI_KIND_CMD] = "command",
        [CCI_KIND_READ_PIPE] = "pipe",    [CCI_KIND_WRITE_PIPE] = "pipe",
        [CCI_KIND_FILE] = "file",         [CCI_KIND_WATCH] = "watch",
        [CCI_KIND_CONN] = "connection",   [CCI_KIND_LISTENER] = "listener",
    };
    return names[kind];
}

/* Of these a stale handle is "already closed"; of the others it is "invalid". */
static bool cci_kind_is_closed(enum cci_kind kind)
{
    return kind == CCI_KIND_INSTANCE || kind == CCI_KIND_READ_PIPE || kind == CCI_KIND_WRITE_PIPE ||
           kind == CCI_KIND_FILE || kind == CCI_KIND_WATCH || kind == CCI_KIND_CONN || kind == CCI_KIND_LISTENER;
}

static cc_handle cci_handle_make(enum cci_kind kind, uint32_t generation, uint32_t slot)
{
    return (uint64_t)kind << 56 | (uint64_t)generation << 32 | slot;
}

/* Takes a free slot, or grows the table. With the mutex held; false when there is no memory or no number left. */
static bool cci_handle_take_slot(uint32_t *out)
{
    struct cci_registry *r = &cci_registry;
    if (r->free_list) {
        *out = r->free_list - 1;
        r->free_list = r->slots[*out].next_free;
        return true;
    }
    if (r->count == r->cap) {
        uint32_t cap = r->cap ? r->cap * 2 : 32;
        struct cci_slot *slots = cap <= CCI_SLOTS_MAX ? cci_mem_resize(r->slots, cap, sizeof(*slots)) : NULL;
        if (!slots)
            return false;
        r->slots = slots;
        r->cap = cap;
    }
    *out = r->count++;
    r->slots[*out] = (struct cci_slot){NULL, r->first_generation, 0};
    return true;
}

/* A new object, with one reference: its maker's. */
static void cci_object_init(struct cci_object *o, void (*destroy)(struct cci_object *o))
{
    o->refs = 1;
    o->handle = 0;
    o->interrupt = NULL;
    o->destroy = destroy;
    cci_mutex_lock(&cci_registry.mutex);
    cci_registry.live++;
    cci_mutex_unlock(&cci_registry.mutex);
}

/* Something that cc_shutdown waits for is no more. */
static void cci_registry_leave(void)
{
    cci_mutex_lock(&cci_registry.mutex);
    if (--cci_registry.live == 0)
        cci_cond_wake(&cci_registry.changed);
    cci_mutex_unlock(&cci_registry.mutex);
}

static cc_error_code cci_handle_fail_down(cc_error *err)
{
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the library is not initialised: call cc_init first");
}

/* Gives an object its handle. On success the table takes over the maker's reference; on failure it stays. */
static cc_error_code cci_handle_new(struct cci_object *o, enum cci_kind kind, cc_handle *out, cc_error *err)
{
    struct cci_registry *r = &cci_registry;
    uint32_t slot = 0;
    cci_mutex_lock(&r->mutex);
    bool inited = r->init_count > 0;
    bool ok = inited && cci_handle_take_slot(&slot);
    if (ok) {
        r->slots[slot].object = o;
        o->handle = cci_handle_make(kind, r->slots[slot].generation, slot);
        *out = o->handle;
    }
    cci_mutex_unlock(&r->mutex);
    if (ok)
        return CC_OK;
    return inited ? cci_fail_nomem(err) : cci_handle_fail_down(err);
}

/* Whether slot s holds the object of this handle. With the mutex held. */
static struct cci_object *cci_handle_find(cc_handle h)
{
    uint32_t slot = (uint32_t)h;
    if (slot >= cci_registry.count)
        return NULL;
    struct cci_object *o = cci_registry.slots[slot].object;
    return o && o->handle == h ? o : NULL;
}

/* Whether this was a handle once. With the mutex held. */
static bool cci_handle_was_valid(cc_handle h)
{
    uint32_t slot = (uint32_t)h, generation = (uint32_t)(h >> 32) & CCI_GENERATION_MAX;
    return slot < cci_registry.count && generation > 0 && generation < cci_registry.slots[slot].generation;
}

/* What is wrong with a handle that found nothing; `closed` when it was one of this kind once. */
static cc_error_code cci_handle_bad(enum cci_kind kind, bool closed, cc_error *err)
{
    if (closed)
        return cci_fail(err, CC_ERR_ALREADY_CLOSED, NULL, "the %s was closed before", cci_kind_name(kind));
    return cci_fail(err, CC_ERR_INVALID_HANDLE, NULL, "not a valid %s handle", cci_kind_name(kind));
}

/* The object of a handle of this kind, with a reference for the caller (cci_object_unref). On failure *out is NULL. */
static cc_error_code cci_handle_get(cc_handle h, enum cci_kind kind, struct cci_object **out, cc_error *err)
{
    bool right_kind = (enum cci_kind)(h >> 56) == kind, closed = false;
    cci_mutex_lock(&cci_registry.mutex);
    struct cci_object *o = right_kind ? cci_handle_find(h) : NULL;
    if (o)
        o->refs++;
    else
        closed = right_kind && cci_kind_is_closed(kind) && cci_handle_was_valid(h);
    cci_mutex_unlock(&cci_registry.mutex);
    *out = o;
    return o ? CC_OK : cci_handle_bad(kind, closed, err);
}

static void cci_object_ref(struct cci_object *o)
{
    cci_mutex_lock(&cci_registry.mutex);
    o->refs++;
    cci_mutex_unlock(&cci_registry.mutex);
}

static void cci_object_unref(struct cci_object *o)
{
    if (!o)
        return;
    cci_mutex_lock(&cci_registry.mutex);
    bool last = --o->refs == 0;
    cci_mutex_unlock(&cci_registry.mutex);
    if (!last)
        return;
    o->destroy(o);
    cci_registry_leave();
}

/* Makes the handle invalid. The object, with the table's reference, is the caller's now: of several calls at once one
 * gets it, and for the others *out is NULL. */
static cc_error_code cci_handle_release(cc_handle h, enum cci_kind kind, struct cci_object **out, cc_error *err)
{
    bool right_kind = (enum cci_kind)(h >> 56) == kind, closed = false;
    cci_mutex_lock(&cci_registry.mutex);
    struct cci_object *o = right_kind ? cci_handle_find(h) : NULL;
    if (o) {
        struct cci_slot *s = &cci_registry.slots[(uint32_t)h];
        s->object = NULL;
        if (++s->generation <= CCI_GENERATION_MAX) {
            s->next_free = cci_registry.free_list;
            cci_registry.free_list = (uint32_t)h + 1;
        }
    } else {
        closed = right_kind && cci_kind_is_closed(kind) && cci_handle_was_valid(h);
    }
    cci_mutex_unlock(&cci_registry.mutex);
    *out = o;
    return o ? CC_OK : cci_handle_bad(kind, closed, err);
}

/* For the calls that free: a bad handle is left alone. */
static void cci_handle_drop(cc_handle h, enum cci_kind kind)
{
    struct cci_object *o;
    if (cci_handle_release(h, kind, &o, NULL) == CC_OK)
        cci_object_unref(o);
}

/* The same as cci_handle_new, but the object goes if it fails: for those that need nothing else to end. */
static cc_error_code cci_handle_publish(struct cci_object *o, enum cci_kind kind, cc_handle *out, cc_error *err)
{
    cc_error_code code = cci_handle_new(o, kind, out, err);
    if (code)
        cci_object_unref(o);
    return code;
}

/* Some handle of this kind that is valid now; 0 when there is none. */
static cc_handle cci_handle_any(enum cci_kind kind)
{
    cc_handle h = 0;
    cci_mutex_lock(&cci_registry.mutex);
    for (uint32_t i = 0; i < cci_registry.count && !h; i++) {
        const struct cci_object *o = cci_registry.slots[i].object;
        if (o && (enum cci_kind)(o->handle >> 56) == kind)
            h = o->handle;
    }
    cci_mutex_unlock(&cci_registry.mutex);
    return h;
}

#endif
