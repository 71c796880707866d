/*
 * api/instance.h - instances: the handle's side of a virtual machine (api/vm.h).
 *
 * An instance is entered by every call that works on it or on something of its, and left at the call's end. Closing
 * takes the handle away, so that no further call enters; breaks the connection to the agent, which ends the calls that
 * wait; waits until all have left and every command is gone; and only then takes the machine down. So no call ever
 * finds a machine half gone, and every thread of the instance has ended when close returns.
 *
 * An instance has its handle from before its machine starts, though only cc_shutdown, which looks at the table, can
 * know it: a start that is under way then ends as any other call.
 *
 * A guest that ends by itself is not a close: the instance stays, its calls fail with CC_ERR_NOT_RUNNING and the
 * reason, and cc_instance_wait returns.
 *
 * new.h makes instances; life.h has the calls about their life.
 */
#ifndef CCI_API_INSTANCE_H
#define CCI_API_INSTANCE_H

#include "../control/exec.h"
#include "lib.h"
#include "source.h"
#include "vm_start.h"

/* Something with a handle that ends with its instance; its first member (part.h). */
struct cci_part {
    struct cci_object object;
    struct cci_instance *inst;     /* one reference to its object */
    bool interrupted, freed;       /* closing has been here; under the instance's monitor, as what follows */
    struct cci_part *next, **link; /* in the instance's list; link is NULL when not in it */
};

/* A function of the caller's that is being called, which the end of the instance has to wait for. */
struct cci_instance_callback {
    struct cci_thread_id thread;
    struct cci_instance_callback *next, **link;
};

struct cci_instance {
    struct cci_object object;
    char id[13]; /* 12 hexadecimal digits */
    struct cci_image *image;
    struct cci_vm vm;
    struct cci_monitor monitor; /* guards what follows */
    unsigned calls;             /* threads inside */
    bool closing;               /* no call enters any more */
    struct cci_part *parts;     /* what closing takes along */
    struct cci_instance_callback *callbacks;
    bool has_workload;         /* one was started, or is being started */
    struct cci_exec *workload; /* NULL until it runs */
};

/* ---- Entering and leaving -------------------------------------------------------------------------------- */

/* For somebody who has a reference to the object. */
static cc_error_code cci_instance_enter_object(struct cci_instance *i, cc_error *err)
{
    cci_monitor_lock(&i->monitor);
    bool closing = i->closing;
    if (!closing)
        i->calls++;
    cci_monitor_unlock(&i->monitor);
    return closing ? cci_handle_bad(CCI_KIND_INSTANCE, true, err) : CC_OK;
}

static cc_error_code cci_instance_enter(cc_instance inst, struct cci_instance **out, cc_error *err)
{
    struct cci_object *o;
    cc_error_code code = cci_handle_get(inst, CCI_KIND_INSTANCE, &o, err);
    *out = (struct cci_instance *)o;
    if (code)
        return code;
    code = cci_instance_enter_object(*out, err);
    cci_object_unref(o); /* while inside, the closing thread keeps the object */
    return code;
}

static void cci_instance_leave(struct cci_instance *i)
{
    cci_monitor_lock(&i->monitor);
    i->calls--;
    cci_cond_wake(&i->monitor.cond);
    cci_monitor_unlock(&i->monitor);
}

/* ---- Functions of the caller's ------------------------------------------------------------------------------- */

/* Around each call of a function of the caller's (what a command reads or prints, how far a copy is), so that a close
 * from inside it can be refused: it would wait for itself. `c` is the calling thread's. */
static void cci_instance_begin_callback(struct cci_instance *i, struct cci_instance_callback *c)
{
    c->thread = cci_thread_id_of_self();
    cci_monitor_lock(&i->monitor);
    c->next = i->callbacks;
    c->link = &i->callbacks;
    if (c->next)
        c->next->link = &c->next;
    i->callbacks = c;
    cci_monitor_unlock(&i->monitor);
}

static void cci_instance_end_callback(struct cci_instance *i, struct cci_instance_callback *c)
{
    cci_monitor_lock(&i->monitor);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    cci_monitor_unlock(&i->monitor);
}

/* Whether this thread is inside such a function. */
static bool cci_instance_is_callback(struct cci_instance *i)
{
    bool is = false;
    cci_monitor_lock(&i->monitor);
    for (const struct cci_instance_callback *c = i->callbacks; c && !is; c = c->next)
        is = cci_thread_id_is_self(&c->thread);
    cci_monitor_unlock(&i->monitor);
    return is;
}

/* ---- What closing takes along ---------------------------------------------------------------------------- */

static void cci_instance_remember(struct cci_part *p)
{
    struct cci_instance *i = p->inst;
    cci_monitor_lock(&i->monitor);
    p->next = i->parts;
    p->link = &i->parts;
    if (p->next)
        p->next->link = &p->next;
    i->parts = p;
    cci_monitor_unlock(&i->monitor);
}

/* Nothing happens to a part that was never remembered. */
static void cci_instance_forget(struct cci_part *p)
{
    struct cci_instance *i = p->inst;
    cci_monitor_lock(&i->monitor);
    if (p->link) {
        *p->link = p->next;
        if (p->next)
            p->next->link = p->link;
        p->link = NULL;
        cci_cond_wake(&i->monitor.cond);
    }
    cci_monitor_unlock(&i->monitor);
}

/* The handle of a part that has not been freed, or interrupted, before, marked so; 0 when there is none left. */
static cc_handle cci_instance_next_part(struct cci_instance *i, bool to_free)
{
    cc_handle handle = 0;
    cci_monitor_lock(&i->monitor);
    for (struct cci_part *p = i->parts; p && !handle; p = p->next) {
        bool *done = to_free ? &p->freed : &p->interrupted;
        handle = *done ? 0 : p->object.handle;
        *done = true;
    }
    cci_monitor_unlock(&i->monitor);
    return handle;
}

/* What keeps calls inside beyond the guest's end (functions and descriptors of the caller's) is told to end. No call
 * enters any more; those that are inside look whether they were told. */
static void cci_instance_interrupt(struct cci_instance *i)
{
    cc_handle handle;
    while ((handle = cci_instance_next_part(i, false)) != 0) {
        struct cci_object *o;
        (void)cci_handle_get(handle, (enum cci_kind)(handle >> 56), &o, NULL);
        if (o && o->interrupt)
            o->interrupt(o);
        cci_object_unref(o);
    }
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void cci_instance_destroy(struct cci_object *o)
{
    struct cci_instance *i = (struct cci_instance *)o;
    cci_image_free(i->image);
    cci_state_destroy(&i->vm.state);
    cci_console_destroy(&i->vm.console);
    cci_monitor_destroy(&i->monitor);
    cci_mem_free(i);
}

static bool cci_instance_is_left(void *ctx)
{
    return ((struct cci_instance *)ctx)->calls == 0;
}

static bool cci_instance_has_no_parts(void *ctx)
{
    return ((struct cci_instance *)ctx)->parts == NULL;
}

/* Ends an instance whose handle is gone, or never was; then gives the caller's reference back. */
static void cci_instance_end(struct cci_instance *i)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    cc_handle part;
    cci_monitor_lock(&i->monitor);
    i->closing = true;
    cci_monitor_unlock(&i->monitor);
    cci_vm_disconnect(&i->vm);
    cci_instance_interrupt(i);
    (void)cci_monitor_wait(&i->monitor, &forever, cci_instance_is_left, i, "calls to end", NULL);
    cci_monitor_unlock(&i->monitor);
    while ((part = cci_instance_next_part(i, true)) != 0)
        cci_handle_drop(part, (enum cci_kind)(part >> 56));
    /* Another thread may be freeing one, which closes streams of the machine. */
    (void)cci_monitor_wait(&i->monitor, &forever, cci_instance_has_no_parts, i, "commands to end", NULL);
    cci_monitor_unlock(&i->monitor);
    cci_exec_free(i->workload);
    i->workload = NULL;
    cci_vm_stop(&i->vm);
    cci_state_set(&i->vm.state, CC_STATE_STOPPED); /* one whose machine never ran */
    cci_state_finish(&i->vm.state);
    cci_object_unref(&i->object);
}

/* A close waits until the state callback has been told the last change, the console's was given the last bytes, and the
 * functions of commands and copies have returned: none of them can be the one who waits. */
static cc_error_code cci_instance_may_close(cc_instance inst, cc_error *err)
{
    struct cci_object *o;
    cc_error_code code = cci_handle_get(inst, CCI_KIND_INSTANCE, &o, err);
    struct cci_instance *i = (struct cci_instance *)o;
    if (code == CC_OK &&
        (cci_state_is_callback(&i->vm.state) || cci_console_is_callback(&i->vm.console) || cci_instance_is_callback(i)))
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                        "a callback cannot close its own instance: have another thread do it");
    cci_object_unref(o);
    return code;
}

CC_API cc_error_code cc_instance_close(cc_instance inst, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_instance_may_close(inst, err);
    if (code == CC_OK)
        code = cci_handle_release(inst, CCI_KIND_INSTANCE, &o, err);
    if (code == CC_OK)
        cci_instance_end((struct cci_instance *)o);
    return cci_api_end("close", code, err);
}

static void cci_instance_close_handle(cc_handle h)
{
    (void)cc_instance_close(h, NULL);
}

#endif
