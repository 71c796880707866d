/*
 * api/part.h - what belongs to an instance and has a handle of its own: its commands and their pipes, open files,
 * watches, connections and listeners.
 *
 * Each begins with a struct cci_part (instance.h has it, because closing takes the parts along). Every call on one is
 * also a call on its instance, so that closing the instance waits for it. A part keeps its instance's object until it
 * is gone; what it has of the machine goes before it leaves the instance's list (cci_part_end), which closing waits
 * for.
 */
#ifndef CCI_API_PART_H
#define CCI_API_PART_H

#include "instance.h"

/* Begins a part, of zeroes, of an instance that is entered: its one reference is the maker's. */
static void cci_part_init(struct cci_part *p, struct cci_instance *i, void (*destroy)(struct cci_object *o))
{
    cci_object_init(&p->object, destroy);
    p->inst = i;
    cci_object_ref(&i->object);
}

/* Gives it its handle, and the instance the duty to free it. The maker's reference is given away in any case. */
static cc_error_code cci_part_publish(struct cci_part *p, enum cci_kind kind, cc_handle *out, cc_error *err)
{
    cci_object_ref(&p->object); /* a handle may be freed as soon as it exists */
    cc_error_code code = cci_handle_publish(&p->object, kind, out, err);
    if (code == CC_OK)
        cci_instance_remember(p);
    cci_object_unref(&p->object);
    return code;
}

/* The last that its destroy function does before it frees the memory. */
static void cci_part_end(struct cci_part *p)
{
    cci_instance_forget(p);
    cci_object_unref(&p->inst->object);
}

/* The part behind a handle, for one call: with its instance entered. On failure *out is NULL. */
static cc_error_code cci_part_enter(cc_handle h, enum cci_kind kind, struct cci_part **out, cc_error *err)
{
    struct cci_object *o;
    cc_error_code code = cci_handle_get(h, kind, &o, err);
    *out = (struct cci_part *)o;
    if (code)
        return code;
    code = cci_instance_enter_object((*out)->inst, err);
    if (code) {
        cci_object_unref(o);
        *out = NULL;
    }
    return code;
}

static void cci_part_leave(struct cci_part *p)
{
    struct cci_instance *inst = p->inst;
    cci_object_ref(&inst->object); /* the part may be the last to hold it */
    cci_object_unref(&p->object);
    cci_instance_leave(inst);
    cci_object_unref(&inst->object);
}

#endif
