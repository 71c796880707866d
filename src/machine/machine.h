/*
 * machine/machine.h - a virtual machine put together: memory, CPUs, bus, interrupt lines, console; and its life.
 *
 * Made in three steps. cci_machine_new makes the RAM and the console. Then devices are added, each getting a window of
 * the bus and an interrupt line of its own; lines and doorbells are only noted, because there is no VM yet to connect
 * them to. cci_machine_start (start.h) makes the VM and the CPUs, boots, and starts a thread for each CPU. From then on
 * nothing of the structure changes but the state at its end, which the monitor guards.
 *
 * A machine that is paused has every CPU's thread parked outside the hypervisor, on the monitor. Its clock stands still
 * meanwhile, as far as the backend can do that; devices finish what they were at. Pausing and resuming is one thread's
 * business at a time.
 *
 * The machine ends once, for one reason: the guest switched off or reset itself, a CPU gave up, or cci_machine_stop was
 * called. Whoever finds the reason first records it, tells the other CPUs to leave, and calls end_fn. The threads are
 * joined and the memory goes in cci_machine_free, which is why neither stop nor free may be called by end_fn or
 * line_fn.
 */
#ifndef CCI_MACHINE_MACHINE_H
#define CCI_MACHINE_MACHINE_H

#include "../base/cancel.h"
#include "../hv/hv.h"
#include "acpi.h"
#include "boot_x86.h"
#include "bus.h"
#include "serial.h"

#define CCI_MACHINE_FIRST_GSI 5u /* below: the serial port's, and numbers that old kernels treat specially */
#define CCI_MACHINE_LAST_GSI 23u /* the IOAPIC's last pin */
#define CCI_MACHINE_MAX_DEVICES (CCI_MACHINE_LAST_GSI - CCI_MACHINE_FIRST_GSI + 1)
#define CCI_MACHINE_MAX_CPUS 254u
#define CCI_MACHINE_DOORBELL 0x50u /* QueueNotify: virtio 1.2, section 4.2.2 */

enum cci_machine_end {
    CCI_MACHINE_ALIVE,   /* not started, or running */
    CCI_MACHINE_OFF,     /* the guest switched off */
    CCI_MACHINE_RESET,   /* the guest asked for a reboot; also what a panic does */
    CCI_MACHINE_CRASHED, /* triple fault */
    CCI_MACHINE_FAILED,  /* the hypervisor gave up; why says more */
    CCI_MACHINE_STOPPED  /* cci_machine_stop */
};

struct cci_machine_config {
    const struct cci_hv_ops *hv;
    struct cci_hv_caps caps;                      /* what hv->probe said */
    unsigned cpus;                                /* 1 to CCI_MACHINE_MAX_CPUS */
    uint64_t ram_bytes;                           /* a multiple of 2 MiB, at least 32 MiB */
    bool console;                                 /* the guest has a serial port */
    void (*line_fn)(void *ctx, const char *line); /* each console line, on a vCPU thread; or NULL */
    void *line_ctx;
    void (*end_fn)(void *ctx); /* the machine has ended; on any thread, once, with no lock held; or NULL */
    void *end_ctx;
};

struct cci_machine;

/* An interrupt line: its signal goes through an eventfd, or through the backend where it has no such thing. */
struct cci_machine_line {
    struct cci_machine *machine;
    unsigned gsi;
    cci_fd fd;
};

/* A doorbell to be connected: see cci_machine_doorbell. */
struct cci_machine_bell {
    uint64_t gpa;
    uint32_t value;
    cci_fd fd;
};

#define CCI_MACHINE_MAX_BELLS (8u * CCI_MACHINE_MAX_DEVICES)

struct cci_machine_cpu {
    struct cci_machine *machine;
    struct cci_hv_vcpu *vcpu;
    struct cci_thread thread;
    bool has_thread; /* to be joined; owner's thread only */
    bool alive;      /* the thread has not left its loop: it may be kicked; under the monitor */
    bool parked;     /* it waits for the end of a pause; under the monitor */
};

struct cci_machine {
    struct cci_machine_config config;
    struct cci_hv_vm *vm; /* NULL until the start */
    struct cci_gmem mem;
    uint8_t *ram; /* all of it; mem has the pieces */
    struct cci_bus bus;
    struct cci_serial serial;
    struct cci_machine_line serial_line;
    struct cci_machine_line line[CCI_MACHINE_MAX_DEVICES];
    unsigned devices;
    struct cci_machine_bell bell[CCI_MACHINE_MAX_BELLS];
    unsigned bells;
    struct cci_machine_cpu *cpu; /* config.cpus of them */
    struct cci_monitor monitor;
    enum cci_machine_end end;
    char why[160];      /* of CCI_MACHINE_FAILED */
    bool paused;        /* CPUs are to park */
    uint32_t attention; /* atomic copy of `paused` or an end, for the CPUs' loops */
};

/* ---- The end ------------------------------------------------------------------------------------------ */

/* Sends every CPU out of the hypervisor, to see what is new. With the monitor locked. */
static void cci_machine_call_out(struct cci_machine *m)
{
    __atomic_store_n(&m->attention, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; m->cpu && i < m->config.cpus; i++)
        if (m->cpu[i].alive)
            m->config.hv->vcpu_kick(m->cpu[i].vcpu);
    cci_cond_wake(&m->monitor.cond);
}

/* Records the first reason, sends the CPUs out, and tells. From any thread. */
static void cci_machine_end(struct cci_machine *m, enum cci_machine_end end, const char *why)
{
    cci_monitor_lock(&m->monitor);
    bool first = m->end == CCI_MACHINE_ALIVE;
    if (first) {
        m->end = end;
        (void)snprintf(m->why, sizeof(m->why), "%s", why);
        cci_machine_call_out(m);
    }
    cci_monitor_unlock(&m->monitor);
    if (first && m->config.end_fn)
        m->config.end_fn(m->config.end_ctx);
}

/* What ended the machine; ALIVE if nothing has. `why` (or NULL) gets words for CCI_MACHINE_FAILED. */
static enum cci_machine_end cci_machine_state(struct cci_machine *m, char *why, size_t why_size)
{
    cci_monitor_lock(&m->monitor);
    enum cci_machine_end end = m->end;
    if (why)
        (void)snprintf(why, why_size, "%s", m->why);
    cci_monitor_unlock(&m->monitor);
    return end;
}

/* The platform's own ports (see acpi.h). */
static void cci_machine_power_read(void *ctx, uint64_t offset, unsigned size, uint8_t *data)
{
    (void)ctx;
    (void)offset;
    memset(data, 0, size);
}

static void cci_machine_power_write(void *ctx, uint64_t offset, unsigned size, const uint8_t *data)
{
    struct cci_machine *m = ctx;
    (void)size;
    if (offset == 0 && data[0] == (CCI_ACPI_SLEEP_GO | CCI_ACPI_S5 << 2))
        cci_machine_end(m, CCI_MACHINE_OFF, "");
    else if (offset == 2 && data[0] == CCI_ACPI_RESET_VALUE)
        cci_machine_end(m, CCI_MACHINE_RESET, "");
}

static const struct cci_bus_ops cci_machine_power_ops = {cci_machine_power_read, cci_machine_power_write};

/* ---- A CPU's thread ----------------------------------------------------------------------------------- */

static void cci_machine_answer(struct cci_machine *m, const struct cci_hv_exit *e)
{
    switch (e->kind) {
    case CCI_HV_EXIT_IO_IN:
    case CCI_HV_EXIT_IO_OUT:
        cci_bus_pio(&m->bus, e->kind == CCI_HV_EXIT_IO_OUT, (uint16_t)e->addr, e->size, e->count, e->data);
        return;
    case CCI_HV_EXIT_MMIO_IN:
    case CCI_HV_EXIT_MMIO_OUT:
        cci_bus_mmio(&m->bus, e->kind == CCI_HV_EXIT_MMIO_OUT, e->addr, e->size, e->data);
        return;
    case CCI_HV_EXIT_SHUTDOWN:
        cci_machine_end(m, CCI_MACHINE_CRASHED, "");
        return;
    case CCI_HV_EXIT_RESET:
        cci_machine_end(m, CCI_MACHINE_RESET, "");
        return;
    case CCI_HV_EXIT_FAIL:
        cci_machine_end(m, CCI_MACHINE_FAILED, e->why);
        return;
    case CCI_HV_EXIT_NONE:
    case CCI_HV_EXIT_KICKED:
        return;
    }
}

/* Parks while the machine is paused. False when it has ended. */
static bool cci_machine_attend(struct cci_machine_cpu *cpu)
{
    struct cci_machine *m = cpu->machine;
    cci_monitor_lock(&m->monitor);
    if (m->paused && m->end == CCI_MACHINE_ALIVE) {
        cpu->parked = true;
        cci_cond_wake(&m->monitor.cond);
        while (m->paused && m->end == CCI_MACHINE_ALIVE)
            (void)cci_cond_wait(&m->monitor.cond, &m->monitor.mutex, CCI_FOREVER);
        cpu->parked = false;
    }
    bool goes_on = m->end == CCI_MACHINE_ALIVE;
    cci_monitor_unlock(&m->monitor);
    return goes_on;
}

static void cci_machine_cpu_main(void *ctx)
{
    struct cci_machine_cpu *cpu = ctx;
    struct cci_machine *m = cpu->machine;
    struct cci_hv_exit e;
    while (!__atomic_load_n(&m->attention, __ATOMIC_SEQ_CST) || cci_machine_attend(cpu)) {
        m->config.hv->vcpu_run(cpu->vcpu, &e);
        cci_machine_answer(m, &e);
    }
    cci_monitor_lock(&m->monitor);
    cpu->alive = false;
    cci_monitor_unlock(&m->monitor);
}

/* ---- Lines and devices -------------------------------------------------------------------------------- */

static void cci_machine_line_raise(void *ctx)
{
    struct cci_machine_line *line = ctx;
    if (line->fd != CCI_NO_FD)
        cci_os_eventfd_signal(line->fd);
    else
        line->machine->config.hv->irq_raise(line->machine->vm, line->gsi);
}

static cc_error_code cci_machine_line_init(struct cci_machine *m, struct cci_machine_line *line, unsigned gsi,
                                           struct cci_irq *irq, cc_error *err)
{
    line->machine = m;
    line->gsi = gsi;
    line->fd = CCI_NO_FD;
    irq->raise = cci_machine_line_raise;
    irq->ctx = line;
    if (!m->config.caps.irqfd)
        return CC_OK;
    line->fd = cci_os_eventfd();
    if (line->fd < 0) {
        int e = -line->fd;
        line->fd = CCI_NO_FD;
        return cci_fail_errno(err, CC_ERR_IO, e, NULL, "cannot make an eventfd: %s", cci_errno_text(e));
    }
    return CC_OK;
}

/* Adds a virtio-mmio device before the start: *irq is its line, *index its number (counted from 0). */
static cc_error_code cci_machine_add_mmio_device(struct cci_machine *m, const struct cci_bus_ops *ops, void *ctx,
                                                 struct cci_irq *irq, unsigned *index, cc_error *err)
{
    unsigned n = m->devices;
    if (n == CCI_MACHINE_MAX_DEVICES)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "a machine has at most %u devices",
                        CCI_MACHINE_MAX_DEVICES);
    m->devices++; /* also if its line fails: free closes what there is */
    cc_error_code code = cci_machine_line_init(m, &m->line[n], CCI_MACHINE_FIRST_GSI + n, irq, err);
    if (code != CC_OK)
        return code;
    m->bus.window[n].ops = ops;
    m->bus.window[n].ctx = ctx;
    *index = n;
    return CC_OK;
}

/* The eventfd is signalled when the guest notifies that queue of the device; without this, the device's write function
 * gets the notification. Where the hypervisor has no such thing it is CC_OK all the same, and nothing changes. */
static cc_error_code cci_machine_doorbell(struct cci_machine *m, unsigned index, uint32_t queue, cci_fd fd,
                                          cc_error *err)
{
    if (!m->config.caps.irqfd)
        return CC_OK;
    if (m->bells == CCI_MACHINE_MAX_BELLS)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "a machine has at most %u doorbells",
                        CCI_MACHINE_MAX_BELLS);
    struct cci_machine_bell *bell = &m->bell[m->bells++];
    bell->gpa = CCI_BUS_MMIO_BASE + (uint64_t)index * CCI_BUS_WINDOW + CCI_MACHINE_DOORBELL;
    bell->value = queue;
    bell->fd = fd;
    return CC_OK;
}

/* ---- Making, stopping and freeing --------------------------------------------------------------------- */

static cc_error_code cci_machine_map(struct cci_machine *m, cc_error *err)
{
    m->ram = cci_os_ram_map(m->config.ram_bytes);
    if (!m->ram)
        return cci_fail(err, CC_ERR_UNKNOWN, NULL, "the host has no %llu MiB of address space for the guest's memory",
                        (unsigned long long)(m->config.ram_bytes >> 20));
    cci_boot_layout(&m->mem, m->ram, m->config.ram_bytes);
    return CC_OK;
}

/* Ends the machine if it is alive, sends the CPUs out and waits for their threads. Safe to call again. */
static void cci_machine_stop(struct cci_machine *m)
{
    cci_machine_end(m, CCI_MACHINE_STOPPED, "");
    for (unsigned i = 0; m->cpu && i < m->config.cpus; i++) {
        if (m->cpu[i].has_thread)
            cci_thread_join(&m->cpu[i].thread);
        m->cpu[i].has_thread = false;
    }
    cci_serial_flush(&m->serial);
}

static void cci_machine_free(struct cci_machine *m)
{
    if (!m)
        return;
    m->config.end_fn = NULL;
    cci_machine_stop(m);
    for (unsigned i = 0; m->cpu && i < m->config.cpus; i++)
        if (m->cpu[i].vcpu)
            m->config.hv->vcpu_free(m->cpu[i].vcpu);
    cci_mem_free(m->cpu);
    if (m->vm)
        m->config.hv->vm_free(m->vm);
    for (unsigned i = 0; i < m->devices; i++)
        cci_os_close(m->line[i].fd);
    cci_os_close(m->serial_line.fd);
    cci_os_ram_unmap(m->ram, m->config.ram_bytes);
    cci_serial_free(&m->serial);
    cci_monitor_destroy(&m->monitor);
    cci_mem_free(m);
}

static cc_error_code cci_machine_new(struct cci_machine **out, const struct cci_machine_config *config, cc_error *err)
{
    *out = NULL;
    if (config->cpus < 1 || config->cpus > CCI_MACHINE_MAX_CPUS)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "a machine has 1 to %u CPUs, not %u", CCI_MACHINE_MAX_CPUS,
                        config->cpus);
    if (config->cpus > config->caps.max_cpus)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "this host's hypervisor gives a guest at most %u CPUs",
                        config->caps.max_cpus);
    if (config->ram_bytes < (uint64_t)32 << 20 || config->ram_bytes % CCI_OS_HUGE_PAGE || config->ram_bytes >> 46)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                        "the guest's memory has to be a multiple of 2 MiB, and at "
                        "least 32 MiB");
    struct cci_machine *m = cci_mem_zalloc(1, sizeof(*m));
    if (!m)
        return cci_fail_nomem(err);
    m->config = *config;
    m->serial_line.fd = CCI_NO_FD;
    cci_monitor_init(&m->monitor);
    struct cci_irq irq;
    irq.raise = cci_machine_line_raise;
    irq.ctx = &m->serial_line;
    cci_serial_init(&m->serial, &irq, config->line_fn, config->line_ctx);
    cc_error_code code = cci_machine_map(m, err);
    if (code == CC_OK && config->console)
        code = cci_machine_line_init(m, &m->serial_line, CCI_SERIAL_IRQ, &irq, err);
    if (code != CC_OK) {
        cci_machine_free(m);
        return code;
    }
    (void)cci_bus_add_ports(&m->bus, CCI_ACPI_PORT, CCI_ACPI_PORTS, &cci_machine_power_ops, m);
    if (config->console)
        (void)cci_bus_add_ports(&m->bus, CCI_SERIAL_PORT, 8, cci_serial_ops(), &m->serial);
    *out = m;
    return CC_OK;
}

#endif
