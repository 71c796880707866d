/*
 * machine/start.h - the start of a machine (machine.h): the VM, what the guest finds in its memory, and the CPUs.
 *
 * The kernel is loaded (boot_x86.h) by a thread of its own while the hypervisor makes the VM: KVM_CREATE_VM spends
 * several timer ticks waiting (its helper thread changes control groups, for which Linux waits until every CPU has
 * passed through its scheduler), about half of what the host needs for a start. The CPUs come when both are done, and
 * their threads when all CPUs are there.
 */
#ifndef CCI_MACHINE_START_H
#define CCI_MACHINE_START_H

#include "cpio.h"
#include "cpuid_x86.h"
#include "machine.h"

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
