/*
 * machine/machine.h - a virtual machine put together: memory, CPUs, bus, interrupt lines, console, boot; and its life.
 *
 * Made in three steps. cci_machine_new makes the RAM and the console. Then devices are added, each getting a window of
 * the bus and an interrupt line of its own. cci_machine_start makes the VM, writes what the guest finds in its memory
 * (boot_x86.h), makes the CPUs and starts a thread for each. From then on nothing of the structure changes but the
 * state at its end, which the monitor guards.
 *
 * The kernel is loaded by a thread of its own while the hypervisor makes the VM: KVM_CREATE_VM spends several timer
 * ticks waiting (its helper thread changes control groups, for which Linux waits until every CPU has passed through its
 * scheduler), about half of what the host needs for a start. So lines and doorbells are only noted when devices are
 * added, and connected when there is a VM.
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
#include "boot_x86.h"
#include "bus.h"
#include "cpio.h"
#include "cpuid_x86.h"
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
    struct cci_hv_vm *vm; /* NULL until cci_machine_connect */
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

/* ---- Making and starting ------------------------------------------------------------------------------ */

static cc_error_code cci_machine_map(struct cci_machine *m, cc_error *err)
{
    m->ram = cci_os_ram_map(m->config.ram_bytes);
    if (!m->ram)
        return cci_fail(err, CC_ERR_UNKNOWN, NULL, "the host has no %llu MiB of address space for the guest's memory",
                        (unsigned long long)(m->config.ram_bytes >> 20));
    cci_boot_layout(&m->mem, m->ram, m->config.ram_bytes);
    return CC_OK;
}

/* Makes the VM and gives it the memory, the interrupt lines and the doorbells. */
static cc_error_code cci_machine_connect(struct cci_machine *m, cc_error *err)
{
    const struct cci_hv_ops *hv = m->config.hv;
    const struct cci_hv_config config = {m->config.cpus, m->config.caps.xsave};
    cc_error_code code = hv->vm_new(&m->vm, &config, err);
    for (unsigned i = 0; i < m->mem.count && code == CC_OK; i++) {
        const struct cci_gmem_range *r = &m->mem.range[i];
        code = hv->vm_map(m->vm, i, r->gpa, r->host, r->size, err);
    }
    if (code == CC_OK && m->serial_line.fd != CCI_NO_FD)
        code = hv->irqfd(m->vm, m->serial_line.gsi, m->serial_line.fd, err);
    for (unsigned i = 0; i < m->devices && code == CC_OK; i++)
        if (m->line[i].fd != CCI_NO_FD)
            code = hv->irqfd(m->vm, m->line[i].gsi, m->line[i].fd, err);
    for (unsigned i = 0; i < m->bells && code == CC_OK; i++)
        code = hv->ioeventfd(m->vm, m->bell[i].gpa, m->bell[i].value, m->bell[i].fd, err);
    return code;
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

/* The tables, the kernel, its command line and the initrd. */
static cc_error_code cci_machine_load(struct cci_machine *m, cci_fd kernel, const char *kernel_path,
                                      const struct cci_initrd *initrd, const char *cmdline, struct cci_x86_start *start,
                                      cc_error *err)
{
    struct cci_acpi_device device[CCI_MACHINE_MAX_DEVICES];
    for (unsigned i = 0; i < m->devices; i++)
        device[i] = (struct cci_acpi_device){CCI_BUS_MMIO_BASE + i * CCI_BUS_WINDOW, m->line[i].gsi};
    const struct cci_acpi_config acpi = {m->config.cpus, m->config.console, device, m->devices};
    struct cci_buf tables = {NULL, 0, 0, false}, line = {NULL, 0, 0, false};
    struct cci_boot_kernel loaded;
    struct cci_boot_initrd place;
    cc_error_code code = cci_acpi_build(&tables, &acpi, err);
    /* With one CPU the kernel would patch every lock prefix out of its own code, which takes longer than it saves. */
    if (!cci_buf_str(&line, cmdline) || !cci_buf_str(&line, m->config.cpus == 1 ? " noreplace-smp" : "") ||
        !cci_buf_add(&line, NULL, 1))
        code = cci_fail_nomem(err);
    if (code == CC_OK)
        code = cci_boot_load_kernel(kernel, kernel_path, &m->mem, &loaded, err);
    if (code == CC_OK)
        code = cci_boot_place_initrd(&m->mem, &loaded, initrd->size, &place, err);
    if (code == CC_OK && place.size)
        code = cci_initrd_write(initrd, cci_gmem_at(&m->mem, place.gpa, place.size), err);
    if (code == CC_OK)
        code = cci_boot_finish(&m->mem, &loaded, &place, (const char *)line.p, &tables, start, err);
    cci_buf_free(&line);
    cci_buf_free(&tables);
    return code;
}

static cc_error_code cci_machine_make_cpus(struct cci_machine *m, const struct cci_x86_start *start, cc_error *err)
{
    const struct cci_hv_ops *hv = m->config.hv;
    struct cci_x86_cpuid *host = cci_mem_zalloc(2, sizeof(*host)), *mine = host ? host + 1 : NULL;
    m->cpu = host ? cci_mem_zalloc(m->config.cpus, sizeof(*m->cpu)) : NULL;
    if (!m->cpu) {
        cci_mem_free(host);
        return cci_fail_nomem(err);
    }
    cc_error_code code = m->vm ? CC_OK : cci_machine_connect(m, err);
    for (unsigned i = 0; i < m->config.cpus && code == CC_OK; i++) {
        m->cpu[i].machine = m;
        code = hv->vcpu_new(m->vm, i, &m->cpu[i].vcpu, err);
        if (code == CC_OK && i == 0)
            code = hv->x86_cpuid(m->cpu[0].vcpu, host, err);
        if (code != CC_OK)
            break;
        *mine = *host;
        cci_cpuid_fix(mine, i, m->config.cpus);
        code = hv->x86_set_cpuid(m->cpu[i].vcpu, mine, err);
    }
    if (code == CC_OK)
        code = hv->x86_start(m->cpu[0].vcpu, start, err);
    cci_mem_free(host);
    return code;
}

/* Starts a thread for each CPU. */
static cc_error_code cci_machine_run(struct cci_machine *m, cc_error *err)
{
    for (unsigned i = 0; i < m->config.cpus; i++) {
        struct cci_machine_cpu *cpu = &m->cpu[i];
        char name[16];
        (void)snprintf(name, sizeof(name), "cc-vcpu%u", i % 1000);
        cci_monitor_lock(&m->monitor);
        int r = cci_thread_new(&cpu->thread, name, cci_machine_cpu_main, cpu);
        cpu->has_thread = cpu->alive = r == 0;
        cci_monitor_unlock(&m->monitor);
        if (r < 0)
            return cci_fail_errno(err, CC_ERR_UNKNOWN, -r, NULL, "cannot start a thread for a CPU: %s",
                                  cci_errno_text(-r));
    }
    return CC_OK;
}

/* What the loading thread is told, and what it says. */
struct cci_machine_loading {
    struct cci_machine *machine;
    cci_fd kernel;
    const char *kernel_path;
    const struct cci_initrd *initrd;
    const char *cmdline;
    struct cci_x86_start start;
    cc_error_code code;
    cc_error err;
};

static void cci_machine_loader_main(void *ctx)
{
    struct cci_machine_loading *l = ctx;
    l->code = cci_machine_load(l->machine, l->kernel, l->kernel_path, l->initrd, l->cmdline, &l->start, &l->err);
}

/* Loads and starts. The kernel's descriptor and the initrd stay the caller's and are no longer needed afterwards. On
 * failure the machine can only be freed. */
static cc_error_code cci_machine_start(struct cci_machine *m, cci_fd kernel, const char *kernel_path,
                                       const struct cci_initrd *initrd, const char *cmdline, cc_error *err)
{
    struct cci_machine_loading l = {
        .machine = m, .kernel = kernel, .kernel_path = kernel_path, .initrd = initrd, .cmdline = cmdline};
    struct cci_thread loader;
    int r = cci_thread_new(&loader, "cc-load", cci_machine_loader_main, &l);
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_UNKNOWN, -r, NULL, "cannot start a thread that loads the kernel: %s",
                              cci_errno_text(-r));
    cc_error_code code = cci_machine_connect(m, err);
    cci_thread_join(&loader);
    if (code == CC_OK && l.code != CC_OK && err) {
        *err = l.err;
        memset(&l.err, 0, sizeof(l.err));
    }
    cci_error_release(&l.err);
    if (code == CC_OK)
        code = l.code;
    if (code == CC_OK)
        code = cci_machine_make_cpus(m, &l.start, err);
    return code == CC_OK ? cci_machine_run(m, err) : code;
}

#endif
