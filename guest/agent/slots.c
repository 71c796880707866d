/*
 * Numbers for what the host keeps open here.
 *
 * A number is {generation:32, slot:32}: what is taken out moves its slot's generation on, so that a stale number never
 * finds something newer. A slot whose generations are used up is not used again.
 */
#include "agent.h"

#include <stdlib.h>

static struct slot {
    void *what;
    uint32_t generation, next_free; /* next_free: slot number + 1 */
} * slots;
static uint32_t slot_count, slot_cap, first_free, in_use; /* first_free: the same */

uint64_t slot_put(void *what)
{
    uint32_t s;
    if (first_free) {
        s = first_free - 1;
        first_free = slots[s].next_free;
    } else {
        if (slot_count == slot_cap) {
            slot_cap = slot_cap ? slot_cap * 2 : 16;
            slots = must(realloc(slots, slot_cap * sizeof *slots));
        }
        s = slot_count++;
        slots[s].generation = 1;
    }
    in_use++;
    slots[s].what = what;
    return (uint64_t)slots[s].generation << 32 | s;
}

void *slot_find(uint64_t number)
{
    uint32_t s = (uint32_t)number;
    return s < slot_count && slots[s].generation == number >> 32 ? slots[s].what : NULL;
}

void slot_take(uint64_t number)
{
    struct slot *s = &slots[(uint32_t)number];
    s->what = NULL;
    in_use--;
    if (++s->generation == 0)
        return;
    s->next_free = first_free;
    first_free = (uint32_t)number + 1;
}

uint32_t slots_in_use(void)
{
    return in_use;
}
