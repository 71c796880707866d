/*
 * share/node.h - the files that the guest knows.
 *
 * A file is known by device, inode, mount and type. The guest may know any number of them, and its kernel forgets one
 * only when it wants its memory back, so a descriptor for each is out of the question. A node instead remembers its
 * directory and its name there. A descriptor is opened when an operation needs one, kept for the next, and closed when
 * there are too many of them, the least recently used first. Opening it goes down from the nearest directory that is
 * held open, and what is found has to be the very file that is looked for: if the host has moved or replaced it, the
 * answer is ESTALE, at which the guest's kernel looks the path up anew.
 *
 * A file that loses its last known name while the guest still uses it is held by its descriptor (keep_fd), up to a
 * limit; one that is open in the guest can always be had from the handle.
 *
 * The parents of a node are kept as long as it is. If the host turns a tree upside down, remembered parents may form a
 * circle; so no walk is longer than CCI_SHARE_DEPTH_MAX, and nodes in a circle stay until the share is reset.
 */
#ifndef CCI_SHARE_NODE_H
#define CCI_SHARE_NODE_H

#include "share.h"

static struct cci_share_key cci_share_key_of(const struct cci_os_statx *sx)
{
    struct cci_share_key k = {(uint64_t)sx->dev_major << 32 | sx->dev_minor, sx->ino, sx->spare[0],
                              sx->mode & 0170000u};
    return k;
}

static bool cci_share_key_same(const struct cci_share_key *a, const struct cci_share_key *b)
{
    return a->inode == b->inode && a->device == b->device && a->mount == b->mount && a->type == b->type;
}

static struct cci_share_node **cci_share_bucket(const struct cci_share *s, const struct cci_share_key *k)
{
    uint64_t h = (k->inode ^ k->device << 17 ^ k->mount << 31) * 0x9e3779b97f4a7c15u;
    return &s->buckets[(h >> 32) & (s->bucket_count - 1)];
}

/* ---- Descriptors; mutex held ------------------------------------------------------------------------------ */

static void cci_share_list_remove(struct cci_share *s, struct cci_share_node *n)
{
    *(n->newer ? &n->newer->older : &s->newest) = n->older;
    *(n->older ? &n->older->newer : &s->oldest) = n->newer;
    n->older = n->newer = NULL;
}

static void cci_share_list_add(struct cci_share *s, struct cci_share_node *n)
{
    n->newer = NULL;
    n->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = n;
    s->newest = n;
}

static bool cci_share_in_list(const struct cci_share_node *n)
{
    return n->fd >= 0 && !n->pins && !n->keep_fd;
}

static void cci_share_close_fd(struct cci_share *s, struct cci_share_node *n)
{
    if (n->fd < 0)
        return;
    cci_os_close(n->fd); /* of a descriptor that only names a file: never waits */
    n->fd = CCI_NO_FD;
    s->fds--;
}

/* Closes the descriptors that nobody uses until at most `most` of all are left. */
static void cci_share_trim(struct cci_share *s, uint32_t most)
{
    while (s->fds > most && s->oldest) {
        struct cci_share_node *n = s->oldest;
        cci_share_list_remove(s, n);
        cci_share_close_fd(s, n);
    }
}

static void cci_share_pin_fd(struct cci_share *s, struct cci_share_node *n)
{
    if (cci_share_in_list(n))
        cci_share_list_remove(s, n);
    n->pins++;
}

static void cci_share_unpin_fd(struct cci_share *s, struct cci_share_node *n)
{
    n->pins--;
    if (cci_share_in_list(n))
        cci_share_list_add(s, n);
    cci_share_trim(s, s->fds_max);
}

static void cci_share_set_keep(struct cci_share *s, struct cci_share_node *n, bool keep)
{
    if (n->keep_fd == keep || (keep && (n->fd < 0 || s->kept >= s->kept_max)))
        return;
    if (cci_share_in_list(n))
        cci_share_list_remove(s, n);
    n->keep_fd = keep;
    s->kept += keep ? 1u : UINT32_MAX;
    if (cci_share_in_list(n))
        cci_share_list_add(s, n);
}

/* ---- Life; mutex held --------------------------------------------------------------------------------------- */

/* Frees a node that nobody wants any more, and then its parents for which that became true. */
static void cci_share_drop(struct cci_share *s, struct cci_share_node *n)
{
    while (n && !n->lookups && !n->refs) {
        struct cci_share_node *parent = n->parent, **at = cci_share_bucket(s, &n->key);
        if (cci_share_in_list(n))
            cci_share_list_remove(s, n);
        cci_share_set_keep(s, n, false);
        if (cci_share_in_list(n))
            cci_share_list_remove(s, n);
        cci_share_close_fd(s, n);
        while (*at != n)
            at = &(*at)->next;
        *at = n->next;
        cci_share_slots_remove(&s->nodes, n->number);
        s->node_count--;
        cci_mem_free(n->name);
        cci_mem_free(n);
        if (parent)
            parent->refs--;
        n = parent;
    }
}

static void cci_share_unref(struct cci_share *s, struct cci_share_node *n)
{
    n->refs--;
    cci_share_drop(s, n);
}

/* The node is no longer where it was. `name` (which it takes over) in `parent`, or nowhere if that is NULL. */
static void cci_share_move(struct cci_share *s, struct cci_share_node *n, struct cci_share_node *parent, char *name)
{
    struct cci_share_node *old = n->parent;
    cci_mem_free(n->name);
    n->name = name;
    n->parent = parent;
    if (parent)
        parent->refs++;
    if (old)
        cci_share_unref(s, old);
}

static bool cci_share_grow_buckets(struct cci_share *s)
{
    const uint32_t old_count = s->bucket_count, count = old_count ? old_count * 2 : 256;
    struct cci_share_node **old = s->buckets, **fresh = cci_mem_zalloc(count, sizeof(*fresh));
    if (!fresh)
        return old_count != 0; /* fuller chains do as well */
    s->buckets = fresh;
    s->bucket_count = count;
    for (uint32_t i = 0; i < old_count; i++)
        for (struct cci_share_node *n = old[i], *next; n; n = next) {
            struct cci_share_node **b = cci_share_bucket(s, &n->key);
            next = n->next;
            n->next = *b;
            *b = n;
        }
    cci_mem_free(old);
    return true;
}

/* A node without a name, not yet counted by anybody; NULL when there is no memory. */
static struct cci_share_node *cci_share_new_node(struct cci_share *s, const struct cci_share_key *key)
{
    if (s->node_count >= s->bucket_count && !cci_share_grow_buckets(s))
        return NULL;
    struct cci_share_node *n = cci_mem_zalloc(1, sizeof(*n));
    if (n)
        n->number = cci_share_slots_add(&s->nodes, n);
    if (!n || !n->number) {
        cci_mem_free(n);
        return NULL;
    }
    n->key = *key;
    n->fd = CCI_NO_FD;
    struct cci_share_node **b = cci_share_bucket(s, key);
    n->next = *b;
    *b = n;
    s->node_count++;
    return n;
}

static struct cci_share_node *cci_share_find(const struct cci_share *s, const struct cci_share_key *key)
{
    struct cci_share_node *n = *cci_share_bucket(s, key);
    while (n && !cci_share_key_same(&n->key, key))
        n = n->next;
    return n;
}

/* ---- For requests -------------------------------------------------------------------------------------------- */

/* A file in use by a request: its node is counted, its descriptor stays open. */
struct cci_share_use {
    struct cci_share_node *node;
    cci_fd fd;
};

/* Gives the node a descriptor, which it takes over, unless another request was faster. Mutex held. */
static void cci_share_give_fd(struct cci_share *s, struct cci_share_node *n, cci_fd fd)
{
    if (n->fd >= 0) {
        cci_os_close(fd);
        return;
    }
    n->fd = fd;
    s->fds++;
    if (cci_share_in_list(n))
        cci_share_list_add(s, n);
}

/* Opens a descriptor for `n` by its name in `from`, both of them counted. Mutex held, and let go of meanwhile. */
static int cci_share_open_node(struct cci_share *s, struct cci_share_node *from, struct cci_share_node *n)
{
    char name[CCI_FUSE_NAME_MAX + 1];
    struct cci_os_statx sx;
    (void)snprintf(name, sizeof(name), "%s", n->name);
    cci_share_pin_fd(s, from);
    cci_mutex_unlock(&s->mutex);
    cci_fd fd = cci_os_open_at(from->fd, name, CCI_OS_PATH, 0);
    int r = fd < 0 ? fd : cci_os_statx_at(fd, "", &sx);
    if (r == 0) {
        const struct cci_share_key found = cci_share_key_of(&sx);
        r = cci_share_key_same(&found, &n->key) ? 0 : -ESTALE;
    }
    cci_mutex_lock(&s->mutex);
    cci_share_unpin_fd(s, from);
    if (r == 0)
        cci_share_give_fd(s, n, fd);
    else
        cci_os_close(fd);
    return r == -ENOENT || r == -ENOTDIR ? -ESTALE : r;
}

/* One step towards a descriptor for `n`, which has none: one for it, or for a directory above it. Mutex held, and let
 * go of meanwhile. 0, or an error number. */
static int cci_share_step(struct cci_share *s, struct cci_share_node *n)
{
    if (n->handles) {
        cci_fd fd = cci_os_reopen(n->handles->fd, CCI_OS_PATH);
        if (fd >= 0)
            cci_share_give_fd(s, n, fd);
        return fd < 0 ? fd : 0;
    }
    for (unsigned depth = 0; n->parent && n->parent->fd < 0; n = n->parent)
        if (++depth > CCI_SHARE_DEPTH_MAX)
            return -ESTALE;
    struct cci_share_node *from = n->parent;
    if (!from)
        return -ESTALE;
    from->refs++;
    n->refs++;
    int r = cci_share_open_node(s, from, n);
    cci_share_unref(s, n);
    cci_share_unref(s, from);
    return r;
}

/* Has descriptors closed when there are no more to be had (`r` says so). Returns whether trying again is worth it.
 * Mutex held. */
static bool cci_share_make_room(struct cci_share *s, int r)
{
    if ((r != -EMFILE && r != -ENFILE) || !s->oldest)
        return false;
    cci_share_trim(s, s->fds / 2);
    return true;
}

/* Opens the file for use: `use` is to be given to cci_share_done. The node is counted by the caller, who passes that
 * on also on failure. Mutex held. */
static int cci_share_use_node(struct cci_share *s, struct cci_share_node *n, struct cci_share_use *use)
{
    int r = 0;
    while (n->fd < 0 && r == 0) {
        r = cci_share_step(s, n);
        if (cci_share_make_room(s, r))
            r = 0;
    }
    if (r) {
        cci_share_unref(s, n);
        return r;
    }
    cci_share_pin_fd(s, n);
    use->node = n;
    use->fd = n->fd;
    return 0;
}

/* Counts the node with this number, without a descriptor; NULL if there is none. To be given to cci_share_put_node. */
static struct cci_share_node *cci_share_get_node(struct cci_share *s, uint64_t number)
{
    cci_mutex_lock(&s->mutex);
    struct cci_share_node *n = cci_share_slots_get(&s->nodes, number);
    if (n)
        n->refs++;
    cci_mutex_unlock(&s->mutex);
    return n;
}

static void cci_share_put_node(struct cci_share *s, struct cci_share_node *n)
{
    cci_mutex_lock(&s->mutex);
    cci_share_unref(s, n);
    cci_mutex_unlock(&s->mutex);
}

/* Opens the file with this number. 0, or an error number. */
static int cci_share_use(struct cci_share *s, uint64_t number, struct cci_share_use *use)
{
    cci_mutex_lock(&s->mutex);
    struct cci_share_node *n = cci_share_slots_get(&s->nodes, number);
    int r = -ESTALE;
    if (n) {
        n->refs++;
        r = cci_share_use_node(s, n, use);
    }
    cci_mutex_unlock(&s->mutex);
    return r;
}

static void cci_share_done(struct cci_share *s, struct cci_share_use *use)
{
    cci_mutex_lock(&s->mutex);
    cci_share_unpin_fd(s, use->node);
    cci_share_unref(s, use->node);
    cci_mutex_unlock(&s->mutex);
}

/* The guest is told of the file that was found as `name` in `parent` (NULL: it has no name yet): the node's number,
 * which counts as one lookup; 0 when there is no memory. */
static uint64_t cci_share_enter(struct cci_share *s, struct cci_share_node *parent, const char *name,
                                const struct cci_os_statx *sx)
{
    const struct cci_share_key key = cci_share_key_of(sx);
    cci_mutex_lock(&s->mutex);
    struct cci_share_node *n = cci_share_find(s, &key);
    bool known = n && parent && n->parent == parent && n->name && strcmp(n->name, name) == 0;
    char *copy = known || !parent || (n && n == s->root) ? NULL : cci_mem_strdup(name);
    if (!n && (copy || !parent))
        n = cci_share_new_node(s, &key);
    bool usable = n && (known || copy || !parent || n == s->root);
    uint64_t number = usable ? n->number : 0;
    if (usable) {
        n->lookups++;
        n->guest_size = sx->size;
    }
    if (usable && copy) {
        cci_share_move(s, n, parent, copy);
        cci_share_set_keep(s, n, false);
    } else {
        cci_mem_free(copy);
    }
    cci_mutex_unlock(&s->mutex);
    return number;
}

/* The guest is told of the file's size, or, if `grown`, takes it to be at least that, for what it has written. */
static void cci_share_size_told(struct cci_share *s, struct cci_share_node *n, uint64_t size, bool grown)
{
    cci_mutex_lock(&s->mutex);
    n->guest_size = grown ? CCI_MAX(size, n->guest_size) : size;
    cci_mutex_unlock(&s->mutex);
}

/* The guest forgets `count` lookups, or takes back one that it was not told of. */
static void cci_share_forget(struct cci_share *s, uint64_t number, uint64_t count)
{
    cci_mutex_lock(&s->mutex);
    struct cci_share_node *n = cci_share_slots_get(&s->nodes, number);
    if (n && n != s->root) {
        n->lookups -= CCI_MIN(count, n->lookups);
        cci_share_drop(s, n);
    }
    cci_mutex_unlock(&s->mutex);
}

/* ---- When names change --------------------------------------------------------------------------------------- */

/* Before the name is taken from a file that the guest knows: opens it, so that it can still be had. False, and nothing
 * to be given to cci_share_done, if the guest does not know it, or it cannot be opened. */
static bool cci_share_hold(struct cci_share *s, cci_fd dir, const char *name, struct cci_share_use *use)
{
    struct cci_os_statx sx;
    if (cci_os_statx_at(dir, name, &sx) < 0)
        return false;
    const struct cci_share_key key = cci_share_key_of(&sx);
    cci_mutex_lock(&s->mutex);
    struct cci_share_node *n = cci_share_find(s, &key);
    bool held = n && n != s->root;
    if (held) {
        n->refs++;
        held = cci_share_use_node(s, n, use) == 0;
    }
    cci_mutex_unlock(&s->mutex);
    return held;
}

/* The file that was held is no longer `name` in `parent`. */
static void cci_share_name_gone(struct cci_share *s, const struct cci_share_use *use,
                                const struct cci_share_node *parent, const char *name)
{
    cci_mutex_lock(&s->mutex);
    struct cci_share_node *n = use->node;
    if (n->parent == parent && strcmp(n->name, name) == 0) {
        cci_share_move(s, n, NULL, NULL);
        cci_share_set_keep(s, n, true);
    }
    cci_mutex_unlock(&s->mutex);
}

/* The file that was held is now `name` in `parent`. Without memory for that it counts as nameless. */
static void cci_share_name_is(struct cci_share *s, const struct cci_share_use *use, struct cci_share_node *parent,
                              const char *name)
{
    char *copy = cci_mem_strdup(name);
    cci_mutex_lock(&s->mutex);
    cci_share_move(s, use->node, copy ? parent : NULL, copy);
    cci_share_set_keep(s, use->node, !copy);
    cci_mutex_unlock(&s->mutex);
}

#endif
