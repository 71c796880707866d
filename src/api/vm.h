/*
 * api/vm.h - a virtual machine with everything that an instance is made of: disks, devices, machine, agent.
 *
 *     guest                     device          what is behind it
 *     /dev/vda  (read-only)     virtio-blk      the image's root filesystem, out of the store      image/rootfs.h
 *     /dev/vdb                  virtio-blk      a sparse file of its own                            image/scratch.h
 *     /dev/vdc ...              virtio-blk      the caller's disks                                  base/disk_file.h
 *     shares                    virtio-fs       directories of the host                             api/mounts.h
 *     vsock                     virtio-vsock    control/, and connections of callers                api/conn.h
 *     /dev/hwrng                virtio-rng      the host's randomness
 *     free memory               virtio-balloon  given back to the host
 *     ttyS0                     8250            the log, the last lines for error messages, and
 *                                               who attached to it                                 api/console.h
 *
 *     vm.h          what it consists of, and plugging it together
 *     vm_end.h      how it ends, by itself or by us, and what is told of that
 *     vm_start.h    starting it, and taking it apart
 *     vm_pause.h    pausing, resuming, asking it to stop
 */
#ifndef CCI_API_VM_H
#define CCI_API_VM_H

#include "../base/disk_file.h"
#include "../control/client.h"
#include "../image/rootfs.h"
#include "../image/scratch.h"
#include "../image/source.h"
#include "../machine/machine.h"
#include "../virtio/balloon.h"
#include "../virtio/blk.h"
#include "../virtio/mmio.h"
#include "../virtio/rng.h"
#include "../virtio/vsock.h"
#include "console.h"
#include "mounts.h"
#include "state.h"

#define CCI_VM_TAIL 1200u          /* bytes of the console that an error quotes */
#define CCI_VM_REASON 1800u        /* bytes of a reason */
#define CCI_VM_LOST_NS 2000000000u /* between the loss of the agent and that of the machine */

/* A disk of the caller's. */
struct cci_vm_disk {
    struct cci_disk disk;
    struct cci_blk blk;
    bool made; /* blk was */
    char name[CCI_BLK_ID_SIZE + 1];
};

struct cci_vm_config {
    const char *id; /* also the host name */
    const struct cci_image *image;
    uint64_t memory_bytes;
    unsigned cpus;
    const struct cci_kernel *kernel; /* open, and the caller's */
    bool dmesg;
    const char *user; /* "" is root */
    uint64_t disk_bytes;
    const char *disk_dir;   /* or NULL: the store's */
    double timeout_seconds; /* 0: none */
    const cc_disk_config *disks;
    size_t disk_count;
    const cc_mount_config *mounts; /* checked */
    size_t mount_count;
    cc_output_callback console; /* see cci_console_start */
    void *console_user_data;
    int console_fd;
};

/* How far the start came; everything up to there is to be taken apart. */
struct cci_vm {
    struct cci_state state;
    bool begun; /* loop, pool and monitor are there */
    struct cci_loop loop;
    struct cci_pool pool;
    struct cci_disk root_disk, scratch_disk;
    struct cci_machine *machine;
    struct cci_console console; /* lives as long as the state */
    struct cci_blk root, scratch;
    struct cci_vm_disk *disks; /* the caller's */
    size_t disk_count;
    struct cci_vsock vsock;
    struct cci_rng rng;
    struct cci_balloon balloon;
    struct cci_mounts mounts;
    struct cci_virtio_dev *device[CCI_MACHINE_MAX_DEVICES]; /* those that were made, in the guest's order */
    unsigned devices;
    struct cci_control *control;
    struct cci_cancel *gone; /* fires when nothing of the guest can be reached any more */
    double timeout_seconds;
    struct cci_loop_alarm timeout; /* timeout_seconds have passed */
    struct cci_loop_alarm lost;    /* the agent went, and its machine did not */
    struct cci_loop_alarm stop;    /* the guest was asked to stop, and did not */
    struct cci_loop_source clock;  /* the host's clock was set */
    struct cci_monitor monitor;    /* guards what follows */
    bool has_devices;              /* a disconnect may come while they are made */
    cc_instance_state verdict;     /* STOPPED or FAILED when it is we who end the machine; else CREATED */
    char why[CCI_VM_REASON];       /* we did */
    struct cci_mutex stop_mutex;   /* guards what follows; before the control's */
    bool stops;                    /* the guest was asked to stop */
    struct cci_call stop_call;     /* that; until the end */
    uint64_t stop_at;              /* when it has to have stopped, at the latest */
};

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

/* Gives a device that is about to be made its place in the machine and its interrupt line. */
static cc_error_code cci_vm_place(struct cci_vm *vm, struct cci_virtio_dev *d, struct cci_irq *irq, cc_error *err)
{
    unsigned index;
    return cci_machine_add_mmio_device(vm->machine, &cci_vm_mmio_ops, d, irq, &index, err);
}

/* The device of the last place was made: it is to be attached, and in the end detached. */
static void cci_vm_made(struct cci_vm *vm, struct cci_virtio_dev *d)
{
    vm->device[vm->devices++] = d;
}

/* Connects a device: doorbells to the loop, and to the hypervisor. */
static cc_error_code cci_vm_attach(struct cci_vm *vm, unsigned index, cc_error *err)
{
    struct cci_virtio_dev *d = vm->device[index];
    cc_error_code code = cci_virtio_attach(d, &vm->loop, err);
    for (unsigned q = 0; code == CC_OK && q < d->ops->queues; q++)
        code = cci_machine_doorbell(vm->machine, index, q, d->queue[q].doorbell, err);
    return code;
}

/* The devices that every guest has. */
static cc_error_code cci_vm_plug_basics(struct cci_vm *vm, cc_error *err)
{
    struct cci_virtio_dev *basics[] = {&vm->root.dev, &vm->scratch.dev, &vm->vsock.dev, &vm->rng.dev, &vm->balloon.dev};
    struct cci_irq irq[CCI_COUNT(basics)];
    const struct cci_gmem *mem = &vm->machine->mem;
    cc_error_code code = CC_OK;
    for (unsigned i = 0; i < CCI_COUNT(basics) && code == CC_OK; i++)
        code = cci_vm_place(vm, basics[i], &irq[i], err);
    if (code)
        return code;
    cci_blk_init(&vm->root, &vm->root_disk, "root", false, &vm->pool, mem, irq[0]);
    cci_blk_init(&vm->scratch, &vm->scratch_disk, "scratch", true, &vm->pool, mem, irq[1]);
    cci_vsock_init(&vm->vsock, mem, irq[2], NULL);
    cci_rng_init(&vm->rng, mem, irq[3]);
    cci_balloon_init(&vm->balloon, mem, irq[4]);
    for (unsigned i = 0; i < CCI_COUNT(basics); i++)
        cci_vm_made(vm, basics[i]);
    cci_monitor_lock(&vm->monitor);
    vm->has_devices = true;
    cci_monitor_unlock(&vm->monitor);
    cci_control_expect_reason(vm->control, CCI_VM_LOST_NS + CCI_VM_LOST_NS / 2); /* see vm_end.h */
    return CC_OK;
}

static cc_error_code cci_vm_plug_disk(struct cci_vm *vm, struct cci_vm_disk *d, cc_error *err)
{
    struct cci_irq irq;
    cc_error_code code = cci_vm_place(vm, &d->blk.dev, &irq, err);
    if (code)
        return code;
    cci_blk_init(&d->blk, &d->disk, d->name, false, &vm->pool, &vm->machine->mem, irq);
    d->made = true;
    cci_vm_made(vm, &d->blk.dev);
    return CC_OK;
}

static cc_error_code cci_vm_plug_mounts(struct cci_vm *vm, cc_error *err)
{
    struct cci_irq irq;
    for (size_t i = 0; i < vm->mounts.count; i++) {
        struct cci_mount *m = vm->mounts.at[i];
        cc_error_code code = cci_vm_place(vm, &m->fs.dev, &irq, err);
        if (code)
            return cci_fail_within(err, code, "too many mounts");
        cci_fs_init(&m->fs, m->share, m->tag, &vm->machine->mem, irq);
        m->has_fs = true;
        cci_vm_made(vm, &m->fs.dev);
    }
    return CC_OK;
}

static cc_error_code cci_vm_plug(struct cci_vm *vm, cc_error *err)
{
    cc_error_code code = cci_vm_plug_basics(vm, err);
    for (size_t i = 0; i < vm->disk_count && code == CC_OK; i++)
        code = cci_vm_plug_disk(vm, &vm->disks[i], err);
    if (code == CC_OK)
        code = cci_vm_plug_mounts(vm, err);
    for (unsigned i = 0; i < vm->devices && code == CC_OK; i++)
        code = cci_vm_attach(vm, i, err);
    return code;
}

/* The machine and the loop have stopped. */
static void cci_vm_unplug(struct cci_vm *vm)
{
    for (unsigned i = 0; i < vm->devices; i++)
        cci_virtio_detach(vm->device[i]);
    if (!vm->has_devices)
        return;
    for (size_t i = 0; i < vm->disk_count; i++)
        if (vm->disks[i].made)
            cci_blk_destroy(&vm->disks[i].blk);
    cci_blk_destroy(&vm->root);
    cci_blk_destroy(&vm->scratch);
    cci_vsock_destroy(&vm->vsock);
    cci_rng_destroy(&vm->rng);
    cci_balloon_destroy(&vm->balloon);
}

#endif
