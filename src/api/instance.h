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
 */
#ifndef CCI_API_INSTANCE_H
#define CCI_API_INSTANCE_H

#include "../control/exec.h"
#include "lib.h"
#include "source.h"
#include "vm.h"

/* Something with a handle that ends with its instance. */
struct cci_instance_item {
    cc_handle handle;                       /* 0 once the instance has freed it */
    struct cci_instance_item *next, **link; /* link is NULL when not in the list */
};

struct cci_instance {
    struct cci_object object;
    char id[13]; /* 12 hexadecimal digits */
    struct cci_image *image;
    struct cci_vm vm;
    struct cci_monitor monitor; /* guards what follows */
    unsigned calls;             /* threads inside */
    bool closing;               /* no call enters any more */
    struct cci_instance_item *items;
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
    if (code)
        return code;
    *out = (struct cci_instance *)o;
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

/* ---- What closing takes along ---------------------------------------------------------------------------- */

static void cci_instance_remember(struct cci_instance *i, struct cci_instance_item *item, cc_handle handle)
{
    cci_monitor_lock(&i->monitor);
    item->handle = handle;
    item->next = i->items;
    item->link = &i->items;
    if (item->next)
        item->next->link = &item->next;
    i->items = item;
    cci_monitor_unlock(&i->monitor);
}

/* Nothing happens to an item that was never remembered. */
static void cci_instance_forget(struct cci_instance *i, struct cci_instance_item *item)
{
    cci_monitor_lock(&i->monitor);
    if (item->link) {
        *item->link = item->next;
        if (item->next)
            item->next->link = item->link;
        item->link = NULL;
        cci_cond_wake(&i->monitor.cond);
    }
    cci_monitor_unlock(&i->monitor);
}

/* The handle of one item, which is the caller's to free; 0 when there is none left. */
static cc_handle cci_instance_next_item(struct cci_instance *i)
{
    cc_handle handle = 0;
    cci_monitor_lock(&i->monitor);
    for (struct cci_instance_item *item = i->items; item && !handle; item = item->next) {
        handle = item->handle;
        item->handle = 0;
    }
    cci_monitor_unlock(&i->monitor);
    return handle;
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void cci_instance_destroy(struct cci_object *o)
{
    struct cci_instance *i = (struct cci_instance *)o;
    cci_image_free(i->image);
    cci_monitor_destroy(&i->monitor);
    cci_mem_free(i);
}

static bool cci_instance_is_left(void *ctx)
{
    return ((struct cci_instance *)ctx)->calls == 0;
}

static bool cci_instance_has_no_items(void *ctx)
{
    return ((struct cci_instance *)ctx)->items == NULL;
}

/* Ends an instance whose handle is gone, or never was; then gives the caller's reference back. */
static void cci_instance_end(struct cci_instance *i)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    cc_handle item;
    cci_monitor_lock(&i->monitor);
    i->closing = true;
    cci_monitor_unlock(&i->monitor);
    cci_vm_disconnect(&i->vm);
    (void)cci_monitor_wait(&i->monitor, &forever, cci_instance_is_left, i, "calls to end", NULL);
    cci_monitor_unlock(&i->monitor);
    while ((item = cci_instance_next_item(i)) != 0)
        cci_handle_drop(item, (enum cci_kind)(item >> 56));
    /* Another thread may be freeing one, which closes streams of the machine. */
    (void)cci_monitor_wait(&i->monitor, &forever, cci_instance_has_no_items, i, "commands to end", NULL);
    cci_monitor_unlock(&i->monitor);
    cci_exec_free(i->workload);
    i->workload = NULL;
    cci_vm_stop(&i->vm);
    cci_object_unref(&i->object);
}

CC_API cc_error_code cc_instance_close(cc_instance inst, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_handle_release(inst, CCI_KIND_INSTANCE, &o, err);
    if (code == CC_OK)
        cci_instance_end((struct cci_instance *)o);
    return cci_api_end("close", code, err);
}

static void cci_instance_close_handle(cc_handle h)
{
    (void)cc_instance_close(h, NULL);
}

/* ---- The beginning --------------------------------------------------------------------------------------- */

#define CCI_INSTANCE_MEMORY_MB 256
#define CCI_INSTANCE_MEMORY_MIN_MB 64
#define CCI_INSTANCE_MEMORY_MAX_MB ((uint64_t)1 << 20)
#define CCI_INSTANCE_BOOT_SECONDS 60.0
#define CCI_INSTANCE_DISK_MB 16384
#define CCI_INSTANCE_DISK_MIN_MB 16
#define CCI_INSTANCE_DISK_MAX_MB ((uint64_t)1 << 24) /* 16 TiB */

/* Checks the options, puts the defaults in their place. */
static cc_error_code cci_instance_resolve(const cc_instance_options *from, cc_instance_options *o, cc_error *err)
{
    const cc_error_code bad = CC_ERR_INVALID_ARGUMENT;
    memset(o, 0, sizeof(*o));
    if (from)
        *o = *from;
    o->memory_mb = o->memory_mb ? o->memory_mb : CCI_INSTANCE_MEMORY_MB;
    o->disk_mb = o->disk_mb ? o->disk_mb : CCI_INSTANCE_DISK_MB;
    o->cpus = o->cpus ? o->cpus : 1;
    if (o->boot_timeout_seconds == 0)
        o->boot_timeout_seconds = CCI_INSTANCE_BOOT_SECONDS;
    if (o->enable_gpu || o->mounts || o->mount_count)
        return cci_fail(err, bad, NULL, "%s is not in this version", o->enable_gpu ? "enable_gpu" : "mounts");
    if (o->memory_mb < CCI_INSTANCE_MEMORY_MIN_MB || o->memory_mb > CCI_INSTANCE_MEMORY_MAX_MB)
        return cci_fail(err, bad, NULL, "memory_mb must be 0 (for %d) or from %d to %llu", CCI_INSTANCE_MEMORY_MB,
                        CCI_INSTANCE_MEMORY_MIN_MB, (unsigned long long)CCI_INSTANCE_MEMORY_MAX_MB);
    if (o->disk_mb < CCI_INSTANCE_DISK_MIN_MB || o->disk_mb > CCI_INSTANCE_DISK_MAX_MB)
        return cci_fail(err, bad, NULL, "disk_mb must be 0 (for %d) or from %d to %llu", CCI_INSTANCE_DISK_MB,
                        CCI_INSTANCE_DISK_MIN_MB, (unsigned long long)CCI_INSTANCE_DISK_MAX_MB);
    if (o->cpus < 0)
        return cci_fail(err, bad, NULL, "cpus is negative");
    if (!(o->timeout_seconds >= 0) || !(o->boot_timeout_seconds >= 0))
        return cci_fail(err, bad, NULL, "a time-out is negative");
    return CC_OK;
}

/* An instance with nothing running in it; NULL when there is no memory. */
static struct cci_instance *cci_instance_make(struct cci_image *image)
{
    uint8_t random[6] = {0};
    struct cci_instance *i = cci_mem_zalloc(1, sizeof(*i));
    if (!i)
        return NULL;
    cci_object_init(&i->object, cci_instance_destroy);
    i->image = cci_image_ref(image);
    cci_monitor_init(&i->monitor);
    (void)cci_os_random(random, sizeof(random));
    for (unsigned k = 0; k < sizeof(random); k++)
        (void)snprintf(i->id + 2 * k, 3, "%02x", random[k]);
    return i;
}

static cc_error_code cci_instance_start(struct cci_instance *i, const cc_instance_options *o, cc_error *err)
{
    struct cci_cancel *cancel;
    cc_error_code code = cci_token_use(o->cancel, &cancel, err);
    if (code)
        return code;
    const char *image_user = cci_image_config(i->image)->user;
    const struct cci_wait wait = {cci_api_deadline(o->boot_timeout_seconds), cancel};
    const struct cci_vm_config config = {
        .id = i->id,
        .image = i->image,
        .memory_bytes = o->memory_mb << 20,
        .cpus = (unsigned)o->cpus,
        .kernel = o->kernel,
        .dmesg = o->enable_dmesg,
        .user = o->user ? o->user : image_user,
        .disk_bytes = o->disk_mb << 20,
        .disk_dir = o->disk_dir,
        .timeout_seconds = o->timeout_seconds,
    };
    code = cci_vm_start(&i->vm, &config, &wait, err);
    cci_cancel_unref(cancel);
    return code;
}

/* Whether the image can run here at all. */
static cc_error_code cci_instance_check_platform(const struct cci_image *image, cc_error *err)
{
    const struct cci_platform *have = &cci_image_config(image)->platform;
    const struct cci_platform here = cci_platform_host();
    if (strcmp(have->arch, here.arch) == 0 || !have->arch[0])
        return CC_OK;
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the image is for %s, and guests here are %s",
                    cci_platform_spell(have).text, cci_platform_spell(&here).text);
}

/* Starts an instance that nobody knows yet. On failure it is ended; the caller's reference is used up in any case. */
static cc_error_code cci_instance_launch(struct cci_instance *i, const cc_instance_options *o, cc_instance *out,
                                         cc_error *err)
{
    cc_handle h;
    cc_error_code code = cci_vm_begin(&i->vm, err);
    i->calls = 1; /* this one */
    if (code == CC_OK)
        code = cci_handle_new(&i->object, CCI_KIND_INSTANCE, &h, err);
    if (code) {
        i->calls = 0;
        cci_instance_end(i);
        return code;
    }
    code = cci_instance_start(i, o, err);
    cci_instance_leave(i);
    if (code == CC_OK)
        *out = h;
    else
        cci_instance_close_handle(h);
    return code;
}

CC_API cc_error_code cc_instance_new(cc_instance_source source, const cc_instance_options *opts, cc_instance *out,
                                     cc_error *err)
{
    struct cci_object *o;
    cc_instance_options resolved;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = out ? cci_instance_resolve(opts, &resolved, err) : cci_api_null("out", err);
    if (code == CC_OK)
        code = cci_handle_get(source, CCI_KIND_SOURCE, &o, err);
    if (code)
        return cci_api_end("new", code, err);
    struct cci_image *image = ((struct cci_source *)o)->image;
    code = cci_instance_check_platform(image, err);
    if (code == CC_OK) {
        struct cci_instance *i = cci_instance_make(image);
        code = i ? cci_instance_launch(i, &resolved, out, err) : cci_fail_nomem(err);
    }
    cci_object_unref(o);
    return cci_api_end("new", code, err);
}

/* ---- Questions ------------------------------------------------------------------------------------------- */

CC_API cc_error_code cc_instance_wait_with(cc_instance inst, cc_cancel_token cancel, cc_error *err)
{
    struct cci_instance *i;
    struct cci_cancel *token;
    cci_error_clear(err);
    cc_error_code code = cci_token_use(cancel, &token, err);
    if (code == CC_OK)
        code = cci_instance_enter(inst, &i, err);
    if (code == CC_OK) {
        const struct cci_wait wait = {CCI_FOREVER, token};
        code = cci_vm_wait(&i->vm, &wait, err);
        cci_instance_leave(i);
    }
    cci_cancel_unref(token);
    return cci_api_end("wait", code, err);
}

CC_API cc_error_code cc_instance_wait(cc_instance inst, cc_error *err)
{
    return cc_instance_wait_with(inst, 0, err);
}

CC_API char *cc_instance_id(cc_instance inst)
{
    struct cci_instance *i;
    if (cci_instance_enter(inst, &i, NULL) != CC_OK)
        return NULL;
    char *id = cci_mem_strdup(i->id);
    cci_instance_leave(i);
    return id;
}

CC_API bool cc_instance_is_running(cc_instance inst)
{
    struct cci_instance *i;
    if (cci_instance_enter(inst, &i, NULL) != CC_OK)
        return false;
    bool running = !cci_vm_has_ended(&i->vm);
    cci_instance_leave(i);
    return running;
}

#endif
