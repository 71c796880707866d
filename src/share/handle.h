/*
 * share/handle.h - the guest's open files and directories.
 *
 * Each is a descriptor of ours, at most handle_max of them. Only regular files and directories are opened: the type is
 * looked at on a descriptor that merely names the file, and that very file is then opened through it, so nothing can
 * take its place in between.
 */
#ifndef CCI_SHARE_HANDLE_H
#define CCI_SHARE_HANDLE_H

#include "node.h"

/* A handle without a file, before one is opened or even made: what can fail of it has been done then. Its number names
 * nothing yet. 0, or an error number. */
static int cci_share_handle_reserve(struct cci_share *s, struct cci_share_handle **out)
{
    struct cci_share_handle *h = cci_mem_zalloc(1, sizeof(*h));
    cci_mutex_lock(&s->mutex);
    int r = !h ? -ENOMEM : s->handle_count >= s->handle_max ? -ENFILE : 0;
    if (r == 0) {
        h->number = cci_share_slots_add(&s->handles, NULL);
        r = h->number ? 0 : -ENOMEM;
    }
    if (r == 0)
        s->handle_count++;
    cci_mutex_unlock(&s->mutex);
    if (r) {
        cci_mem_free(h);
        h = NULL;
    }
    *out = h;
    return r;
}

/* A reserved handle that is not needed after all. */
static void cci_share_handle_cancel(struct cci_share *s, struct cci_share_handle *h)
{
    cci_mutex_lock(&s->mutex);
    cci_share_slots_remove(&s->handles, h->number);
    s->handle_count--;
    cci_mutex_unlock(&s->mutex);
    cci_mem_free(h);
}

/* A reserved handle gets its open file `fd`, which it takes over, and may be released by the guest from now on. */
static void cci_share_handle_open(struct cci_share *s, struct cci_share_handle *h, struct cci_share_node *n, cci_fd fd,
                                  bool directory, bool writable)
{
    h->fd = fd;
    h->directory = directory;
    h->writable = writable;
    h->refs = 1;
    cci_mutex_init(&h->mutex);
    cci_mutex_lock(&s->mutex);
    cci_share_slots_set(&s->handles, h->number, h);
    h->node = n;
    n->refs++;
    h->next = n->handles;
    h->link = &n->handles;
    if (h->next)
        h->next->link = &h->next;
    n->handles = h;
    cci_mutex_unlock(&s->mutex);
}

/* One use less. The last closes the file, which may take long on some filesystems. */
static void cci_share_handle_put(struct cci_share *s, struct cci_share_handle *h)
{
    cci_mutex_lock(&s->mutex);
    bool last = --h->refs == 0;
    if (last) {
        *h->link = h->next;
        if (h->next)
            h->next->link = h->link;
        s->handle_count--;
        cci_share_unref(s, h->node);
    }
    cci_mutex_unlock(&s->mutex);
    if (!last)
        return;
    cci_os_close(h->fd);
    cci_mutex_destroy(&h->mutex);
    cci_mem_free(h);
}

/* The handle with this number, if it is of this file and of this kind; to be given back with cci_share_handle_put.
 * NULL if there is none. */
static struct cci_share_handle *cci_share_handle_get(struct cci_share *s, uint64_t number, uint64_t node,
                                                     bool directory)
{
    cci_mutex_lock(&s->mutex);
    struct cci_share_handle *h = cci_share_slots_get(&s->handles, number);
    if (h && (h->directory != directory || h->node->number != node))
        h = NULL;
    if (h)
        h->refs++;
    cci_mutex_unlock(&s->mutex);
    return h;
}

/* The guest closes it. Requests that still use it end first. */
static void cci_share_handle_release(struct cci_share *s, uint64_t number, uint64_t node, bool directory)
{
    cci_mutex_lock(&s->mutex);
    struct cci_share_handle *h = cci_share_slots_get(&s->handles, number);
    if (h && (h->directory != directory || h->node->number != node))
        h = NULL;
    if (h)
        cci_share_slots_remove(&s->handles, number);
    cci_mutex_unlock(&s->mutex);
    if (h)
        cci_share_handle_put(s, h);
}

/* Opens the file in use, by the guest's flags. The descriptor, or an error number. */
static cci_fd cci_share_open_fd(struct cci_share *s, const struct cci_share_use *use, int flags)
{
    const uint32_t type = use->node->key.type;
    if (type != 0100000 && type != 0040000)
        return type == 0120000 ? -ELOOP : -EACCES; /* never opened, not even to look */
    for (;;) {
        cci_fd fd = cci_os_reopen(use->fd, flags | CCI_OS_NONBLOCK | CCI_OS_NOCTTY);
        if (fd >= 0)
            return fd;
        cci_mutex_lock(&s->mutex);
        bool again = cci_share_make_room(s, fd);
        cci_mutex_unlock(&s->mutex);
        if (!again)
            return fd;
    }
}

#endif
