/*
 * api/new.h - making instances: options, and the start.
 */
#ifndef CCI_API_NEW_H
#define CCI_API_NEW_H

#include "instance.h"
#include "kernel.h"

#define CCI_INSTANCE_MEMORY_MB 256
#define CCI_INSTANCE_MEMORY_MIN_MB 64
#define CCI_INSTANCE_MEMORY_MAX_MB ((uint64_t)1 << 20)
#define CCI_INSTANCE_BOOT_SECONDS 60.0
#define CCI_INSTANCE_DISK_MB 16384
#define CCI_INSTANCE_DISK_MIN_MB 16
#define CCI_INSTANCE_DISK_MAX_MB ((uint64_t)1 << 24) /* 16 TiB */

static cc_error_code cci_instance_check_disks(const cc_instance_options *o, cc_error *err)
{
    const cc_error_code bad = CC_ERR_INVALID_ARGUMENT;
    if (o->disk_count > CC_MAX_DISKS)
        return cci_fail(err, bad, NULL, "an instance has at most %d disks of yours", CC_MAX_DISKS);
    if (o->disk_count && !o->disks)
        return cci_api_null("disks", err);
    for (size_t i = 0; i < o->disk_count; i++) {
        const char *name = o->disks[i].name;
        if (!o->disks[i].path)
            return cci_api_null("a disk's path", err);
        if (name && (!name[0] || strlen(name) > CCI_BLK_ID_SIZE))
            return cci_fail(err, bad, name, "a disk's name has to have 1 to %u bytes", CCI_BLK_ID_SIZE);
    }
    return CC_OK;
}

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
    if (o->enable_gpu)
        return cci_fail(err, bad, NULL, "enable_gpu is not in this version");
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
    if (o->console_fd < 0 || (o->console_fd && o->console_callback))
        return cci_fail(err, bad, NULL, "%s",
                        o->console_fd < 0 ? "console_fd is negative"
                                          : "console_fd and console_callback exclude each other");
    cc_error_code code = cci_instance_check_disks(o, err);
    return code ? code : cci_mounts_check(o->mounts, o->mount_count, err);
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
    cci_state_init(&i->vm.state);
    cci_console_init(&i->vm.console);
    (void)cci_os_random(random, sizeof(random));
    for (unsigned k = 0; k < sizeof(random); k++)
        (void)snprintf(i->id + 2 * k, 3, "%02x", random[k]);
    return i;
}

/* Starts the machine with a kernel; the deadline begins here. */
static cc_error_code cci_instance_boot(struct cci_instance *i, const cc_instance_options *o,
                                       const struct cci_kernel *kernel, struct cci_cancel *cancel, cc_error *err)
{
    const char *image_user = cci_image_config(i->image)->user;
    const struct cci_wait wait = {cci_api_deadline(o->boot_timeout_seconds), cancel};
    const struct cci_vm_config config = {
        .id = i->id,
        .image = i->image,
        .memory_bytes = o->memory_mb << 20,
        .cpus = (unsigned)o->cpus,
        .kernel = kernel,
        .dmesg = o->enable_dmesg,
        .user = o->user ? o->user : image_user,
        .disk_bytes = o->disk_mb << 20,
        .disk_dir = o->disk_dir,
        .timeout_seconds = o->timeout_seconds,
        .disks = o->disks,
        .disk_count = o->disk_count,
        .mounts = o->mounts,
        .mount_count = o->mount_count,
        .console = o->console_callback,
        .console_user_data = o->console_user_data,
        .console_fd = o->console_fd,
    };
    return cci_vm_start(&i->vm, &config, &wait, err);
}

static void cci_instance_on_stop(void *stop)
{
    cci_cancel_fire(stop);
}

/* Finds the kernel, which may have to be fetched: until the caller's token, or the instance's end, stops that. */
static cc_error_code cci_instance_kernel(struct cci_instance *i, const cc_instance_options *o,
                                         struct cci_cancel *cancel, struct cci_kernel *kernel, cc_error *err)
{
    struct cci_cancel_hook hooks[2];
    struct cci_cancel *tokens[2] = {i->vm.gone, cancel}, *stop = cci_cancel_new();
    const struct cci_wait wait = {CCI_FOREVER, stop};
    if (!stop)
        return cci_fail_nomem(err);
    for (unsigned n = 0; n < 2; n++)
        if (cci_cancel_attach(tokens[n], &hooks[n], cci_instance_on_stop, stop))
            cci_cancel_fire(stop); /* it had fired before */
    cc_error_code code = cci_kernel_choose(kernel, o->kernel, i->image->store, &wait, err);
    for (unsigned n = 0; n < 2; n++)
        cci_cancel_detach(tokens[n], &hooks[n]);
    cci_cancel_unref(stop);
    if (code == CC_ERR_CANCELLED && cci_cancel_is_set(i->vm.gone))
        code = cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "the instance was closed while its kernel was fetched");
    return code;
}

/* The kernel first, as fetching it takes its time; but not for a host that cannot run it. */
static cc_error_code cci_instance_start(struct cci_instance *i, const cc_instance_options *o, cc_error *err)
{
    struct cci_cancel *cancel;
    struct cci_kernel kernel;
    cc_error_code code = cci_token_use(o->cancel, &cancel, err);
    if (code)
        return code;
    code = cci_host_ask(NULL, err);
    if (code == CC_OK)
        code = cci_instance_kernel(i, o, cancel, &kernel, err);
    if (code == CC_OK) {
        code = cci_instance_boot(i, o, &kernel, cancel, err);
        cci_kernel_close(&kernel);
    }
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
    struct cci_state *state = &i->vm.state;
    cc_error_code code = cci_vm_begin(&i->vm, err);
    i->calls = 1; /* this one */
    if (code == CC_OK && o->state_callback)
        code = cci_state_watch(state, o->state_callback, o->state_user_data, err);
    if (code == CC_OK)
        code = cci_handle_new(&i->object, CCI_KIND_INSTANCE, &state->instance, err);
    if (code) {
        i->calls = 0;
        cci_instance_end(i);
        return code;
    }
    h = state->instance;
    (void)cci_state_move(state, CC_STATE_CREATED, CC_STATE_STARTING);
    code = cci_instance_start(i, o, err);
    (void)cci_state_move(state, CC_STATE_STARTING, code ? CC_STATE_FAILED : CC_STATE_RUNNING);
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

#endif
