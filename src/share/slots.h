/*
 * share/slots.h - numbers that a guest is given for things of ours.
 *
 * A number is a place in a table and, in its upper half, how often that place was used before, so that one which was
 * given back, or made up, names nothing. Place 0 is never used; the first number given out is 1. Nothing here locks.
 */
#ifndef CCI_SHARE_SLOTS_H
#define CCI_SHARE_SLOTS_H

#include "../base/mem.h"

struct cci_share_slot {
    void *thing;   /* NULL: free, or not there yet */
    uint32_t uses; /* before this one */
    uint32_t next; /* the next free place; 0: none */
};

struct cci_share_slots {
    struct cci_share_slot *at;
    uint32_t size; /* places that there are */
    uint32_t free; /* the first free one; 0: none */
    uint32_t max;  /* places that there may be */
};

static void cci_share_slots_init(struct cci_share_slots *s, uint32_t max)
{
    memset(s, 0, sizeof(*s));
    s->max = max;
}

static bool cci_share_slots_grow(struct cci_share_slots *s)
{
    uint32_t size = s->size ? s->size * 2 : 64;
    size = CCI_MIN(size, s->max);
    struct cci_share_slot *at = size > s->size ? cci_mem_resize(s->at, size, sizeof(*at)) : NULL;
    if (!at)
        return false;
    s->at = at;
    memset(at + s->size, 0, (size - s->size) * sizeof(*at));
    for (uint32_t i = size - 1; i >= CCI_MAX(s->size, 1); i--) {
        at[i].next = s->free;
        s->free = i;
    }
    s->size = size;
    return true;
}

/* A number for `thing` (NULL: to be set later); 0 when there is no memory, or there are too many. */
static uint64_t cci_share_slots_add(struct cci_share_slots *s, void *thing)
{
    if (!s->free && !cci_share_slots_grow(s))
        return 0;
    const uint32_t i = s->free;
    s->free = s->at[i].next;
    s->at[i].thing = thing;
    return (uint64_t)s->at[i].uses << 32 | i;
}

/* What the number names; NULL: nothing. */
static void *cci_share_slots_get(const struct cci_share_slots *s, uint64_t number)
{
    const uint32_t i = (uint32_t)number;
    return i < s->size && s->at[i].uses == number >> 32 ? s->at[i].thing : NULL;
}

/* What a number in use names from now on. */
static void cci_share_slots_set(struct cci_share_slots *s, uint64_t number, void *thing)
{
    s->at[(uint32_t)number].thing = thing;
}

static void cci_share_slots_remove(struct cci_share_slots *s, uint64_t number)
{
    struct cci_share_slot *slot = &s->at[(uint32_t)number];
    slot->thing = NULL;
    slot->uses++;
    slot->next = s->free;
    s->free = (uint32_t)number;
}

static void cci_share_slots_free(struct cci_share_slots *s)
{
    cci_mem_free(s->at);
    memset(s, 0, sizeof(*s));
}

#endif
