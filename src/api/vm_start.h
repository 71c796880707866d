/*
 * api/vm_start.h - starting a virtual machine, and taking it apart.
 *
 * Start: devices are made and plugged in, the machine runs, the agent connects by itself to the one port that is open
 * to the guest, and is told who it is. End, in this order: cci_vm_disconnect breaks the control connection, so that
 * whoever waits returns; cci_vm_stop, when all have, ends the CPUs, then the I/O thread, and takes everything apart.
 * Both may be called at any stage of a start that failed.
 */
#ifndef CCI_API_VM_START_H
#define CCI_API_VM_START_H

#include "../../guest/initramfs.h"
#include "../image/gunzip_buf.h"
#include "../machine/kernel_modules.h"
#include "../machine/start.h"
#include "host.h"
#include "vm_end.h"

/* ---- Starting -------------------------------------------------------------------------------------------- */

static cc_error_code cci_vm_dial(void *ctx, uint32_t port, struct cci_stream **out, cc_error *err)
{
    return cci_vsock_dial(&((struct cci_vm *)ctx)->vsock, port, out, err);
}

/* The agent is there: its connection is the control connection. */
static void cci_vm_on_ready(void *ctx, struct cci_stream *s, uint32_t peer_port)
{
    (void)peer_port;
    cci_control_attach(((struct cci_vm *)ctx)->control, s);
}

/* On the I/O thread: the host's clock was set, or the host slept. A paused guest is told when it goes on. */
static void cci_vm_on_clock_set(void *ctx, uint32_t events)
{
    struct cci_vm *vm = ctx;
    (void)events;
    (void)cci_os_clock_change_arm(vm->clock.fd);
    if (cci_state_get(&vm->state) == CC_STATE_RUNNING)
        cci_control_set_clock(vm->control);
}

/* Before the I/O thread runs. */
static cc_error_code cci_vm_watch_clock(struct cci_vm *vm, cc_error *err)
{
    vm->clock.fd = cci_os_clock_change();
    int r = vm->clock.fd < 0 ? vm->clock.fd : cci_os_clock_change_arm(vm->clock.fd);
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, -r, NULL, "cannot watch the clock: %s", cci_errno_text(-r));
    return cci_loop_add(&vm->loop, &vm->clock, CCI_LOOP_READ, err);
}

/* Prepares a zeroed vm. */
static cc_error_code cci_vm_begin(struct cci_vm *vm, cc_error *err)
{
    cci_monitor_init(&vm->monitor);
    cci_mutex_init(&vm->stop_mutex);
    cci_pool_init(&vm->pool);
    vm->timeout = (struct cci_loop_alarm){.fn = cci_vm_on_timeout, .ctx = vm};
    vm->lost = (struct cci_loop_alarm){.fn = cci_vm_on_lost, .ctx = vm};
    vm->stop = (struct cci_loop_alarm){.fn = cci_vm_on_no_stop, .ctx = vm};
    vm->clock = (struct cci_loop_source){cci_vm_on_clock_set, vm, CCI_NO_FD};
    vm->begun = true;
    cc_error_code code = cci_loop_init(&vm->loop, err);
    if (code)
        return code;
    vm->gone = cci_cancel_new();
    vm->control = cci_control_new(cci_vm_dial, vm);
    if (!vm->gone || !vm->control)
        return cci_fail_nomem(err);
    vm->control->lost_fn = cci_vm_on_control_lost;
    return CC_OK;
}

/* The caller's disks. */
static cc_error_code cci_vm_open_data(struct cci_vm *vm, const struct cci_vm_config *c, cc_error *err)
{
    cc_error_code code = CC_OK;
    vm->disks = c->disk_count ? cci_mem_zalloc(c->disk_count, sizeof(*vm->disks)) : NULL;
    if (c->disk_count && !vm->disks)
        return cci_fail_nomem(err);
    vm->disk_count = c->disk_count;
    for (size_t i = 0; i < c->disk_count && code == CC_OK; i++) {
        struct cci_vm_disk *d = &vm->disks[i];
        if (c->disks[i].name)
            (void)snprintf(d->name, sizeof(d->name), "%s", c->disks[i].name);
        else
            (void)snprintf(d->name, sizeof(d->name), "disk%u", (unsigned)i);
        code = cci_disk_open_file(c->disks[i].path, c->disks[i].writable, &d->disk, err);
    }
    return code;
}

static cc_error_code cci_vm_open_disks(struct cci_vm *vm, const struct cci_vm_config *c, const struct cci_wait *wait,
                                       cc_error *err)
{
    cc_error_code code =
        cci_rootfs_open(c->image->store, c->image->layers, c->image->layer_count, wait, &vm->root_disk, err);
    if (code)
        return cci_fail_within(err, code, "the image's root filesystem");
    code = cci_vm_open_data(vm, c, err);
    if (code)
        return code;
    return cci_scratch_new(c->disk_dir ? c->disk_dir : c->image->store->dir, c->disk_bytes, &vm->scratch_disk, err);
}

static cc_error_code cci_vm_boot(struct cci_vm *vm, const struct cci_vm_config *c, cc_error *err)
{
    const struct cci_kernel *kernel = c->kernel;
    struct cci_initrd initrd = {0};
    cc_error_code code = CC_OK;
    cci_log_printf(CC_LOG_INFO, "instance %s: kernel %s", c->id, kernel->path);
    if (!cci_initrd_add(&initrd, CCI_INITRAMFS, sizeof(CCI_INITRAMFS)))
        code = cci_fail_nomem(err);
    if (code == CC_OK)
        code = cci_kernel_add_modules(kernel, c->mount_count > 0, &initrd, cci_gunzip_buf, err);
    if (code == CC_OK)
        code = cci_machine_start(vm->machine, kernel->fd, kernel->path, &initrd, cci_kernel_cmdline(c->dmesg), err);
    cci_initrd_free(&initrd);
    return code;
}

static void cci_vm_on_line(void *ctx, const char *line)
{
    (void)ctx;
    cci_log_line(CC_LOG_DMESG, line);
}

static cc_error_code cci_vm_make_machine(struct cci_vm *vm, const struct cci_vm_config *c, cc_error *err)
{
    struct cci_hv_caps caps;
    cc_error_code code = cci_host_ask(&caps, err);
    if (code)
        return code;
    const struct cci_machine_config machine = {
        .hv = cci_host_hv(),
        .caps = caps,
        .cpus = c->cpus,
        .ram_bytes = CCI_ALIGN_UP(c->memory_bytes, (uint64_t)CCI_OS_HUGE_PAGE),
        .console = true,
        .line_fn = c->dmesg ? cci_vm_on_line : NULL,
        .end_fn = cci_vm_on_machine_end,
        .end_ctx = vm,
    };
    code = cci_machine_new(&vm->machine, &machine, err);
    if (code == CC_OK)
        code =
            cci_console_start(&vm->console, &vm->machine->serial, c->console, c->console_user_data, c->console_fd, err);
    if (code == CC_OK)
        code = cci_vm_plug(vm, err);
    if (code == CC_OK)
        code = cci_vsock_listen(&vm->vsock, CCI_PROTO_READY_PORT, cci_vm_on_ready, vm, err);
    return code;
}

/* The guest runs: waits for its agent and tells it who it is. */
static cc_error_code cci_vm_greet(struct cci_vm *vm, const struct cci_vm_config *c, const struct cci_wait *wait,
                                  cc_error *err)
{
    char hosts[200];
    (void)snprintf(hosts, sizeof(hosts),
                   "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%s\n", c->id);
    const struct cci_control_config config = {c->id, hosts, NULL, c->user};
    cc_error_code code = cci_control_handshake(vm->control, wait, err);
    if (code == CC_ERR_TIMEOUT) {
        char *tail = cci_serial_tail(&vm->machine->serial, CCI_VM_TAIL);
        (void)cci_fail(err, code, NULL, "the guest did not start in time; its last messages:\n%s",
                       tail && *tail ? tail : "(none)");
        cci_mem_free(tail);
    }
    if (code == CC_OK)
        cci_vsock_unlisten(&vm->vsock, CCI_PROTO_READY_PORT);
    return code ? code : cci_control_configure(vm->control, &config, wait, err);
}

/* Starts a vm after cci_vm_begin, and returns when its agent takes commands. After a failure cci_vm_disconnect and
 * cci_vm_stop take apart what there is. */
static cc_error_code cci_vm_start(struct cci_vm *vm, const struct cci_vm_config *c, const struct cci_wait *wait,
                                  cc_error *err)
{
    cc_error_code code = cci_vm_open_disks(vm, c, wait, err);
    if (code == CC_OK)
        code = cci_mounts_open(&vm->mounts, c->mounts, c->mount_count, c->memory_bytes, c->image->store, err);
    if (code == CC_OK)
        code = cci_vm_make_machine(vm, c, err);
    if (code == CC_OK)
        code = cci_vm_watch_clock(vm, err);
    if (code == CC_OK)
        code = cci_loop_start(&vm->loop, "cc-io", err);
    if (code == CC_OK)
        code = cci_vm_boot(vm, c, err);
    if (code == CC_OK)
        code = cci_vm_greet(vm, c, wait, err);
    if (code == CC_OK)
        code = cci_mounts_mount(&vm->mounts, vm->control, wait, err);
    if (code == CC_OK && c->timeout_seconds > 0) {
        vm->timeout_seconds = c->timeout_seconds;
        cci_loop_set_alarm(&vm->loop, &vm->timeout, cci_api_deadline(c->timeout_seconds));
    }
    return code;
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* Breaks the connection to the agent: every call that waits ends, and none succeeds any more. Any thread, also while
 * another is in cci_vm_start. */
static void cci_vm_disconnect(struct cci_vm *vm)
{
    cci_state_close(&vm->state);
    if (vm->begun && vm->control && vm->gone)
        cci_vm_break(vm, "the instance was closed");
}

/* Ends the machine and its threads, and takes everything apart. Nobody else uses the vm. */
static void cci_vm_stop(struct cci_vm *vm)
{
    if (!vm->begun)
        return;
    if (vm->machine)
        cci_machine_stop(vm->machine);
    cci_console_stop(&vm->console);
    if (vm->has_devices)
        cci_vsock_unlisten(&vm->vsock, CCI_PROTO_READY_PORT);
    if (vm->stops)
        cci_call_end(&vm->stop_call);
    if (vm->control)
        cci_control_close(vm->control);
    cci_loop_stop(&vm->loop);
    cci_vm_unplug(vm);
    cci_mounts_free(&vm->mounts);
    cci_machine_free(vm->machine);
    cci_pool_destroy(&vm->pool);
    cci_disk_free(&vm->root_disk);
    cci_disk_free(&vm->scratch_disk);
    for (size_t i = 0; i < vm->disk_count; i++)
        cci_disk_free(&vm->disks[i].disk);
    cci_mem_free(vm->disks);
    cci_cancel_unref(vm->gone);
    cci_os_close(vm->clock.fd);
    cci_loop_destroy(&vm->loop);
    cci_mutex_destroy(&vm->stop_mutex);
    cci_monitor_destroy(&vm->monitor);
}

#endif
