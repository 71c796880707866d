/*
 * api/vm.h - a virtual machine with everything that an instance is made of: disks, devices, machine, agent.
 *
 *     guest                     device          what is behind it
 *     /dev/vda  (read-only)     virtio-blk      the image's root filesystem, out of the store      image/rootfs.h
 *     /dev/vdb                  virtio-blk      a sparse file of its own                            image/scratch.h
 *     vsock                     virtio-vsock    streams of the control connection                   control/
 *     /dev/hwrng                virtio-rng      the host's randomness
 *     free memory               virtio-balloon  given back to the host
 *     ttyS0                     8250            the log, and the last lines for error messages      machine/serial.h
 *
 * Start: devices are made and plugged in, the machine runs, the agent connects by itself to the one port that is open
 * to the guest, and is told who it is. End, in this order: cci_vm_disconnect breaks the control connection, so that
 * whoever waits returns; cci_vm_stop, when all have, ends the CPUs, then the I/O thread, and takes everything apart.
 * Both may be called at any stage of a start that failed.
 */
#ifndef CCI_API_VM_H
#define CCI_API_VM_H

#include "../../guest/initramfs.h"
#include "../control/client.h"
#include "../image/gunzip_buf.h"
#include "../image/rootfs.h"
#include "../image/scratch.h"
#include "../image/source.h"
#include "../machine/kernel.h"
#include "../machine/machine.h"
#include "../virtio/balloon.h"
#include "../virtio/blk.h"
#include "../virtio/mmio.h"
#include "../virtio/rng.h"
#include "../virtio/vsock.h"
#include "host.h"

struct cci_vm_config {
    const char *id; /* also the host name */
    const struct cci_image *image;
    uint64_t memory_bytes;
    unsigned cpus;
    const char *kernel; /* or NULL */
    bool dmesg;
    const char *user; /* "" is root */
    uint64_t disk_bytes;
    const char *disk_dir;   /* or NULL: the store's */
    double timeout_seconds; /* 0: none */
};

/* How far the start came; everything up to there is to be taken apart. */
struct cci_vm {
    bool begun; /* loop, pool and monitor are there */
    struct cci_loop loop;
    struct cci_pool pool;
    struct cci_disk root_disk, scratch_disk;
    struct cci_machine *machine;
    struct cci_blk root, scratch;
    struct cci_vsock vsock;
    struct cci_rng rng;
    struct cci_balloon balloon;
    struct cci_control *control;
    cci_fd timer; /* of timeout_seconds */
    struct cci_loop_source timer_source;
    double timeout_seconds;
    struct cci_monitor monitor; /* guards what follows */
    bool has_devices;           /* a disconnect may come while they are made */
    bool ended;
};

#define CCI_VM_DEVICES 5u
#define CCI_VM_TAIL 1200u /* bytes of the console that an error quotes */

/* ---- The end by itself ----------------------------------------------------------------------------------- */

/* Nothing runs any more, for this reason: calls fail with it, and whoever waits for the end returns. */
static void cci_vm_ended(struct cci_vm *vm, const char *reason)
{
    cci_control_fail(vm->control, reason);
    cci_monitor_lock(&vm->monitor);
    vm->ended = true;
    cci_cond_wake(&vm->monitor.cond);
    cci_monitor_unlock(&vm->monitor);
}

/* Why the machine ended, in words, with the kernel's last lines where they explain it. */
static void cci_vm_reason(struct cci_vm *vm, char *out, size_t size)
{
    static const char *const words[] = {
        "the guest runs",
        "the guest switched itself off",
        "the guest's kernel gave up or was rebooted",
        "the guest crashed (triple fault)",
        "the hypervisor gave up",
        "the instance was stopped",
    };
    char why[160];
    enum cci_machine_end end = cci_machine_state(vm->machine, why, sizeof(why));
    char *tail = end == CCI_MACHINE_OFF || end == CCI_MACHINE_STOPPED
                     ? NULL
                     : cci_serial_tail(&vm->machine->serial, CCI_VM_TAIL);
    (void)snprintf(out, size, "%s%s%s%s%s", words[end], why[0] ? ": " : "", why,
                   tail && *tail ? "; its last messages:\n" : "", tail ? tail : "");
    cci_mem_free(tail);
}

/* The machine's end_fn: on any of its threads. */
static void cci_vm_on_machine_end(void *ctx)
{
    struct cci_vm *vm = ctx;
    char reason[2048];
    cci_vm_reason(vm, reason, sizeof(reason));
    cci_vm_ended(vm, reason);
}

/* On the I/O thread. */
static void cci_vm_on_timeout(void *ctx, uint32_t events)
{
    struct cci_vm *vm = ctx;
    char reason[100];
    (void)events;
    cci_loop_remove(&vm->loop, &vm->timer_source);
    (void)snprintf(reason, sizeof(reason), "the instance's time-out of %g seconds passed", vm->timeout_seconds);
    cci_control_fail(vm->control, reason);
    cci_machine_end(vm->machine, CCI_MACHINE_STOPPED, "");
}

static void cci_vm_on_line(void *ctx, const char *line)
{
    (void)ctx;
    cci_log_line(CC_LOG_DMESG, line);
}

/* ---- Plugging in ----------------------------------------------------------------------------------------- */

static void cci_vm_mmio_read(void *ctx, uint64_t offset, unsigned size, uint8_t *data)
{
    cci_virtio_mmio_read(ctx, offset, data, size);
}

static void cci_vm_mmio_write(void *ctx, uint64_t offset, unsigned size, const uint8_t *data)
{
    cci_virtio_mmio_write(ctx, offset, data, size);
}

static const struct cci_bus_ops cci_vm_mmio_ops = {cci_vm_mmio_read, cci_vm_mmio_write};

/* Connects a device that was made with slot `index`'s interrupt line: doorbells to the loop, and to the hypervisor. */
static cc_error_code cci_vm_attach(struct cci_vm *vm, struct cci_virtio_dev *d, unsigned index, cc_error *err)
{
    cc_error_code code = cci_virtio_attach(d, &vm->loop, err);
    for (unsigned q = 0; code == CC_OK && q < d->ops->queues; q++)
        code = cci_machine_doorbell(vm->machine, index, q, d->queue[q].doorbell, err);
    return code;
}

static struct cci_virtio_dev *cci_vm_device(struct cci_vm *vm, unsigned i)
{
    struct cci_virtio_dev *all[CCI_VM_DEVICES] = {&vm->root.dev, &vm->scratch.dev, &vm->vsock.dev, &vm->rng.dev,
                                                  &vm->balloon.dev};
    return all[i];
}

static cc_error_code cci_vm_plug(struct cci_vm *vm, cc_error *err)
{
    struct cci_irq irq[CCI_VM_DEVICES];
    const struct cci_gmem *mem = &vm->machine->mem;
    cc_error_code code = CC_OK;
    for (unsigned i = 0, index; i < CCI_VM_DEVICES && code == CC_OK; i++)
        code = cci_machine_add_mmio_device(vm->machine, &cci_vm_mmio_ops, cci_vm_device(vm, i), &irq[i], &index, err);
    if (code)
        return code;
    cci_blk_init(&vm->root, &vm->root_disk, "root", false, &vm->pool, mem, irq[0]);
    cci_blk_init(&vm->scratch, &vm->scratch_disk, "scratch", true, &vm->pool, mem, irq[1]);
    cci_vsock_init(&vm->vsock, mem, irq[2], NULL);
    cci_rng_init(&vm->rng, mem, irq[3]);
    cci_balloon_init(&vm->balloon, mem, irq[4]);
    cci_monitor_lock(&vm->monitor);
    vm->has_devices = true;
    cci_monitor_unlock(&vm->monitor);
    for (unsigned i = 0; i < CCI_VM_DEVICES && code == CC_OK; i++)
        code = cci_vm_attach(vm, cci_vm_device(vm, i), i, err);
    return code;
}

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

/* Prepares a zeroed vm. */
static cc_error_code cci_vm_begin(struct cci_vm *vm, cc_error *err)
{
    cci_monitor_init(&vm->monitor);
    cci_pool_init(&vm->pool);
    vm->timer = CCI_NO_FD;
    vm->begun = true;
    cc_error_code code = cci_loop_init(&vm->loop, err);
    if (code)
        return code;
    vm->control = cci_control_new(cci_vm_dial, vm);
    return vm->control ? CC_OK : cci_fail_nomem(err);
}

static cc_error_code cci_vm_open_disks(struct cci_vm *vm, const struct cci_vm_config *c, cc_error *err)
{
    cc_error_code code = cci_rootfs_open(c->image->store, c->image->layers, c->image->layer_count, &vm->root_disk, err);
    if (code)
        return cci_fail_within(err, code, "the image's root filesystem");
    return cci_scratch_new(c->disk_dir ? c->disk_dir : c->image->store->dir, c->disk_bytes, &vm->scratch_disk, err);
}

static cc_error_code cci_vm_boot(struct cci_vm *vm, const struct cci_vm_config *c, cc_error *err)
{
    struct cci_kernel kernel;
    struct cci_initrd initrd = {0};
    cc_error_code code = cci_kernel_open(&kernel, c->kernel, c->image->store->dir, err);
    if (code)
        return code;
    cci_log_printf(CC_LOG_INFO, "instance %s: kernel %s", c->id, kernel.path);
    if (!cci_initrd_add(&initrd, CCI_INITRAMFS, sizeof(CCI_INITRAMFS)))
        code = cci_fail_nomem(err);
    if (code == CC_OK)
        code = cci_kernel_add_modules(&kernel, &initrd, cci_gunzip_buf, err);
    if (code == CC_OK)
        code = cci_machine_start(vm->machine, kernel.fd, kernel.path, &initrd, cci_kernel_cmdline(c->dmesg), err);
    cci_initrd_free(&initrd);
    cci_kernel_close(&kernel);
    return code;
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

/* On the I/O thread. */
static void cci_vm_arm_timer(void *ctx)
{
    struct cci_vm *vm = ctx;
    vm->timer = cci_os_timer((uint64_t)(vm->timeout_seconds * 1e9));
    vm->timer_source.fn = cci_vm_on_timeout;
    vm->timer_source.ctx = vm;
    vm->timer_source.fd = vm->timer;
    if (vm->timer >= 0 && cci_loop_add(&vm->loop, &vm->timer_source, CCI_LOOP_READ, NULL)) {
        cci_os_close(vm->timer);
        vm->timer = CCI_NO_FD;
    }
}

/* On the I/O thread: the time-out does not fire any more, and is not being dealt with. */
static void cci_vm_disarm_timer(void *ctx)
{
    struct cci_vm *vm = ctx;
    cci_loop_remove(&vm->loop, &vm->timer_source);
}

/* The time-out of an instance that has started. */
static cc_error_code cci_vm_start_timer(struct cci_vm *vm, double seconds, cc_error *err)
{
    if (!(seconds > 0) || seconds > 1e9)
        return CC_OK;
    vm->timeout_seconds = seconds;
    cci_loop_call(&vm->loop, cci_vm_arm_timer, vm);
    return vm->timer >= 0 ? CC_OK : cci_fail(err, CC_ERR_IO, NULL, "cannot make a timer: too many open files?");
}

/* Starts a vm after cci_vm_begin, and returns when its agent takes commands. After a failure cci_vm_disconnect and
 * cci_vm_stop take apart what there is. */
static cc_error_code cci_vm_start(struct cci_vm *vm, const struct cci_vm_config *c, const struct cci_wait *wait,
                                  cc_error *err)
{
    cc_error_code code = cci_vm_open_disks(vm, c, err);
    if (code == CC_OK)
        code = cci_vm_make_machine(vm, c, err);
    if (code == CC_OK)
        code = cci_loop_start(&vm->loop, "cc-io", err);
    if (code == CC_OK)
        code = cci_vm_boot(vm, c, err);
    if (code == CC_OK)
        code = cci_vm_greet(vm, c, wait, err);
    return code ? code : cci_vm_start_timer(vm, c->timeout_seconds, err);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* Breaks the connection to the agent: every call that waits ends, and none succeeds any more. Any thread, also while
 * another is in cci_vm_start. */
static void cci_vm_disconnect(struct cci_vm *vm)
{
    if (!vm->begun)
        return;
    if (vm->control)
        cci_vm_ended(vm, "the instance was closed");
    cci_monitor_lock(&vm->monitor);
    bool has_devices = vm->has_devices;
    cci_monitor_unlock(&vm->monitor);
    if (has_devices)
        cci_vsock_kill(&vm->vsock);
}

/* Ends the machine and its threads, and takes everything apart. Nobody else uses the vm. */
static void cci_vm_stop(struct cci_vm *vm)
{
    if (!vm->begun)
        return;
    if (vm->machine)
        cci_machine_stop(vm->machine);
    if (vm->has_devices)
        cci_vsock_unlisten(&vm->vsock, CCI_PROTO_READY_PORT);
    if (vm->timer >= 0)
        cci_loop_call(&vm->loop, cci_vm_disarm_timer, vm);
    if (vm->control)
        cci_control_close(vm->control);
    cci_loop_stop(&vm->loop);
    if (vm->has_devices) {
        for (unsigned i = 0; i < CCI_VM_DEVICES; i++)
            cci_virtio_detach(cci_vm_device(vm, i));
        cci_blk_destroy(&vm->root);
        cci_blk_destroy(&vm->scratch);
        cci_vsock_destroy(&vm->vsock);
        cci_rng_destroy(&vm->rng);
        cci_balloon_destroy(&vm->balloon);
    }
    cci_machine_free(vm->machine);
    cci_pool_destroy(&vm->pool);
    cci_disk_free(&vm->root_disk);
    cci_disk_free(&vm->scratch_disk);
    cci_os_close(vm->timer);
    cci_loop_destroy(&vm->loop);
    cci_monitor_destroy(&vm->monitor);
}

static bool cci_vm_is_over(void *ctx)
{
    return ((struct cci_vm *)ctx)->ended;
}

static bool cci_vm_has_ended(struct cci_vm *vm)
{
    cci_monitor_lock(&vm->monitor);
    bool ended = vm->ended;
    cci_monitor_unlock(&vm->monitor);
    return ended;
}

/* Waits for the end, whatever its cause. */
static cc_error_code cci_vm_wait(struct cci_vm *vm, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = cci_monitor_wait(&vm->monitor, wait, cci_vm_is_over, vm, "the instance to end", err);
    cci_monitor_unlock(&vm->monitor);
    return code;
}

#endif
