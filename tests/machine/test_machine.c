/* The machine over the backend with no CPU: bus, interrupt lines, the platform's ports, limits, ends, out of memory. */
// @sanitize address,undefined
// @sanitize thread
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../check.h"

#include "../../src/hv/dummy.h"
#include "../../src/machine/pause.h"
#include "../../src/machine/start.h"

static struct cci_machine *m;
static cc_error err;
static unsigned ends;
static uint8_t elf[0x2000];

static void on_end(void *ctx)
{
    (void)ctx;
    ends++;
}

struct device {
    uint64_t offset;
    unsigned size;
    uint8_t written[8];
};

static void device_read(void *ctx, uint64_t offset, unsigned size, uint8_t *data)
{
    struct device *d = ctx;
    d->offset = offset;
    d->size = size;
    for (unsigned i = 0; i < size; i++)
        data[i] = (uint8_t)(0x10 + i);
}

static void device_write(void *ctx, uint64_t offset, unsigned size, const uint8_t *data)
{
    struct device *d = ctx;
    d->offset = offset;
    d->size = size;
    memcpy(d->written, data, size);
}

static const struct cci_bus_ops device_ops = {device_read, device_write};

static cc_error_code make(unsigned cpus)
{
    struct cci_machine_config c = {
        .hv = cci_dummy_ops(), .cpus = cpus, .ram_bytes = 32 << 20, .console = true, .end_fn = on_end};
    (void)c.hv->probe(&c.caps, &err);
    ends = 0;
    return cci_machine_new(&m, &c, &err);
}

/* A kernel of one page. */
static cc_error_code start(void)
{
    struct cci_initrd none = {0};
    memcpy(elf, "\177ELF\2\1\1", 7);
    cci_put_le16(elf + 18, 62);
    cci_put_le64(elf + 24, 0x1000000);
    cci_put_le64(elf + 32, 64);
    cci_put_le16(elf + 54, 56);
    cci_put_le16(elf + 56, 1);
    cci_put_le32(elf + 64, 1);
    cci_put_le64(elf + 64 + 8, 0x1000);
    cci_put_le64(elf + 64 + 16, 0xffffffff81000000u);
    cci_put_le64(elf + 64 + 24, 0x1000000);
    cci_put_le64(elf + 64 + 32, 0x1000);
    cci_put_le64(elf + 64 + 40, 0x1000);
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    CHECK(write(fd, elf, sizeof(elf)) == (ssize_t)sizeof(elf));
    cc_error_code code = cci_machine_start(m, fd, "kernel", &none, "words", &err);
    (void)close(fd);
    return code;
}

static void access_of(enum cci_hv_exit_kind kind, uint64_t addr, unsigned size, uint8_t *data)
{
    struct cci_hv_exit e = {.kind = kind, .addr = addr, .size = size, .count = 1, .data = data};
    CHECK(cci_dummy_access(m->vm, &e));
}

static void test_bus_and_lines(void)
{
    struct device d[3];
    struct cci_irq irq[3];
    unsigned index = 99;
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    memset(d, 0, sizeof(d));
    CHECK_OK(make(2), err);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_OK(cci_machine_add_mmio_device(m, &device_ops, &d[i], &irq[i], &index, &err), err);
        CHECK_EQ_INT(index, i);
    }
    CHECK_OK(cci_machine_doorbell(m, 1, 0, CCI_NO_FD, &err), err); /* no ioeventfd: the write function gets it */
    CHECK_OK(start(), err);
    access_of(CCI_HV_EXIT_MMIO_OUT, CCI_BUS_MMIO_BASE + CCI_BUS_WINDOW + 0x50, 4, data);
    CHECK_EQ_INT(d[1].offset, 0x50);
    CHECK_EQ_INT(cci_le32(d[1].written), 0x04030201);
    access_of(CCI_HV_EXIT_MMIO_IN, CCI_BUS_MMIO_BASE + 2 * CCI_BUS_WINDOW + 0xfff, 1, data);
    CHECK_EQ_INT(d[2].offset, 0xfff);
    CHECK_EQ_INT(data[0], 0x10);
    CHECK_EQ_INT(data[1], 2);
    access_of(CCI_HV_EXIT_MMIO_IN, CCI_BUS_MMIO_BASE + 3 * CCI_BUS_WINDOW, 8, data); /* nobody there */
    CHECK_EQ_INT(cci_le64(data), -1);
    access_of(CCI_HV_EXIT_MMIO_IN, UINT64_MAX - 3, 4, data);
    access_of(CCI_HV_EXIT_MMIO_OUT, 0xc0000000, 4, data);
    data[0] = 0;
    access_of(CCI_HV_EXIT_IO_IN, 0x70, 1, data);
    CHECK_EQ_INT(data[0], 0xff);
    access_of(CCI_HV_EXIT_IO_IN, CCI_SERIAL_PORT + CCI_SERIAL_LSR, 1, data);
    CHECK_EQ_INT(data[0], 0x60);
    cci_irq_raise(&irq[2]);
    cci_irq_raise(&irq[2]);
    CHECK_EQ_INT(m->vm->raised[CCI_MACHINE_FIRST_GSI + 2], 2);
    CHECK_EQ_INT(m->vm->raised[CCI_MACHINE_FIRST_GSI], 0);
    /* A string of writes to the console. */
    struct cci_hv_exit e = {
        .kind = CCI_HV_EXIT_IO_OUT, .addr = CCI_SERIAL_PORT, .size = 1, .count = 6, .data = (uint8_t *)"hello\n"};
    CHECK(cci_dummy_access(m->vm, &e));
    char *tail = cci_serial_tail(&m->serial, 100);
    CHECK_EQ_STR(tail, "hello\n");
    cci_mem_free(tail);
    CHECK_EQ_INT(cci_machine_state(m, NULL, 0), CCI_MACHINE_ALIVE);
    cci_machine_free(m);
    CHECK_EQ_INT(ends, 0); /* freed: nobody is told */
}

static void test_starts_as_told(void)
{
    CHECK_OK(make(1), err);
    CHECK_OK(start(), err);
    CHECK_EQ_INT(m->vm->first->start.rip, 0x1000000);
    CHECK_EQ_INT(m->vm->map[0].size, 32 << 20);
    CHECK_EQ_STR((const char *)m->ram + CCI_BOOT_CMDLINE, "words noreplace-smp");
    cci_machine_free(m);
}

/* Each way to end: by a port, or by an exit of its own. */
static void test_ends(void)
{
    static const struct {
        enum cci_hv_exit_kind kind;
        uint16_t port;
        uint8_t value;
        enum cci_machine_end end;
    } ways[] = {
        {CCI_HV_EXIT_IO_OUT, CCI_ACPI_PORT, CCI_ACPI_SLEEP_GO | CCI_ACPI_S5 << 2, CCI_MACHINE_OFF},
        {CCI_HV_EXIT_IO_OUT, CCI_ACPI_PORT + 2, CCI_ACPI_RESET_VALUE, CCI_MACHINE_RESET},
        {CCI_HV_EXIT_SHUTDOWN, 0, 0, CCI_MACHINE_CRASHED},
        {CCI_HV_EXIT_RESET, 0, 0, CCI_MACHINE_RESET},
        {CCI_HV_EXIT_FAIL, 0, 0, CCI_MACHINE_FAILED},
        {CCI_HV_EXIT_IO_OUT, CCI_ACPI_PORT, CCI_ACPI_S5 << 2, CCI_MACHINE_ALIVE}, /* not "go" */
        {CCI_HV_EXIT_IO_OUT, CCI_ACPI_PORT + 2, 0, CCI_MACHINE_ALIVE},
        {CCI_HV_EXIT_NONE, 0, 0, CCI_MACHINE_ALIVE},
    };
    for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        char why[160];
        uint8_t value = ways[i].value;
        struct cci_hv_exit e = {.kind = ways[i].kind, .addr = ways[i].port, .size = 1, .count = 1, .data = &value};
        (void)snprintf(e.why, sizeof(e.why), "broken");
        CHECK_OK(make(4), err);
        CHECK_OK(start(), err);
        bool answered = true;
        if (ways[i].end == CCI_MACHINE_ALIVE) {
            answered = cci_dummy_access(m->vm, &e);
        } else {
            cci_monitor_lock(&m->vm->monitor);
            m->vm->first->access = &e; /* nobody comes back to say that it was answered */
            cci_cond_wake(&m->vm->monitor.cond);
            cci_monitor_unlock(&m->vm->monitor);
            cci_monitor_lock(&m->monitor);
            uint64_t deadline = cci_os_now() + 5000000000u;
            while (m->end == CCI_MACHINE_ALIVE && cci_cond_wait(&m->monitor.cond, &m->monitor.mutex, deadline))
                continue;
            cci_monitor_unlock(&m->monitor);
        }
        CHECK(answered);
        CHECK_EQ_INT(cci_machine_state(m, why, sizeof(why)), ways[i].end);
        CHECK_EQ_STR(why, ways[i].end == CCI_MACHINE_FAILED ? "broken" : "");
        cci_machine_stop(m);
        cci_machine_stop(m); /* again: nothing */
        CHECK_EQ_INT(cci_machine_state(m, NULL, 0),
                     ways[i].end == CCI_MACHINE_ALIVE ? CCI_MACHINE_STOPPED : ways[i].end);
        CHECK_EQ_INT(ends, 1);
        cci_machine_free(m);
    }
}

static void test_limits(void)
{
    struct cci_irq irq;
    unsigned index;
    CHECK_EQ_INT(make(0), CC_ERR_INVALID_ARGUMENT);
    cci_error_release(&err);
    CHECK_EQ_INT(make(65), CC_ERR_INVALID_ARGUMENT); /* the dummy's own limit */
    CHECK(strstr(err.message, "64"));
    cci_error_release(&err);
    CHECK_OK(make(1), err);
    for (unsigned i = 0; i < CCI_MACHINE_MAX_DEVICES; i++)
        CHECK_OK(cci_machine_add_mmio_device(m, &device_ops, NULL, &irq, &index, &err), err);
    CHECK_EQ_INT(m->line[index].gsi, CCI_MACHINE_LAST_GSI);
    CHECK_EQ_INT(cci_machine_add_mmio_device(m, &device_ops, NULL, &irq, &index, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "19"));
    cci_error_release(&err);
    cci_machine_free(m);
}

static int fail_at;

static void *failing(void *ctx, void *old, size_t size)
{
    /* Also on the thread that loads the kernel. The count goes on below zero, past everything that is to come. */
    if (size && __atomic_fetch_sub(&fail_at, 1, __ATOMIC_RELAXED) == 1)
        return NULL;
    return cci_mem_default_alloc(ctx, old, size);
}

static void test_no_memory(void)
{
    cci_mem_hook.realloc_fn = failing;
    unsigned n = 0;
    for (bool done = false; !done && n < 200; n++) {
        struct cci_irq irq;
        unsigned index;
        m = NULL;
        __atomic_store_n(&fail_at, (int)n + 1, __ATOMIC_RELAXED);
        done = make(3) == CC_OK && cci_machine_add_mmio_device(m, &device_ops, NULL, &irq, &index, &err) == CC_OK &&
               start() == CC_OK;
        __atomic_store_n(&fail_at, 0, __ATOMIC_RELAXED);
        cci_machine_free(m);
        cci_error_release(&err);
    }
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(n > 8 && n < 200);
}

/* ---- Pauses ---- */

static void *access_port(void *arg)
{
    uint8_t value = 0;
    struct cci_hv_exit e = {.kind = CCI_HV_EXIT_IO_IN, .addr = CCI_SERIAL_PORT, .size = 1, .count = 1, .data = &value};
    *(bool *)arg = cci_dummy_access(m->vm, &e);
    return NULL;
}

static bool all_parked(void)
{
    bool parked = true;
    cci_monitor_lock(&m->monitor);
    for (unsigned i = 0; i < m->config.cpus; i++)
        parked = parked && m->cpu[i].parked;
    cci_monitor_unlock(&m->monitor);
    return parked;
}

static void test_pause(void)
{
    bool answered = false;
    pthread_t t;
    CHECK_OK(make(5), err);
    CHECK_OK(start(), err);
    for (unsigned i = 1; i <= 100; i++) {
        cci_machine_pause(m);
        CHECK(all_parked());
        CHECK_EQ_INT(m->vm->clock_stops, i);
        CHECK_EQ_INT(m->vm->clock_starts, i - 1);
        cci_machine_resume(m);
        CHECK_EQ_INT(m->vm->clock_starts, i);
        CHECK_EQ_INT(m->vm->cpu_clock_starts, 5 * i);
    }
    cci_machine_pause(m);
    CHECK(pthread_create(&t, NULL, access_port, &answered) == 0);
    CHECK(all_parked()); /* the guest's access waits for the end of the pause */
    cci_machine_resume(m);
    CHECK(pthread_join(t, NULL) == 0 && answered);
    cci_machine_free(m);
}

/* A machine that ends while it is paused, or paused when it has ended. */
static void test_pause_and_end(void)
{
    CHECK_OK(make(3), err);
    CHECK_OK(start(), err);
    cci_machine_pause(m);
    cci_machine_end(m, CCI_MACHINE_RESET, "");
    cci_machine_resume(m);
    cci_machine_stop(m);
    CHECK_EQ_INT(ends, 1);
    cci_machine_pause(m); /* there is nobody to wait for */
    cci_machine_resume(m);
    CHECK_EQ_INT(cci_machine_state(m, NULL, 0), CCI_MACHINE_RESET);
    cci_machine_free(m);
}

static void *end_it(void *arg)
{
    cci_machine_end(m, CCI_MACHINE_OFF, "");
    return arg;
}

static void test_pause_races_end(void)
{
    for (unsigned i = 0; i < 50; i++) {
        pthread_t t;
        CHECK_OK(make(4), err);
        CHECK_OK(start(), err);
        CHECK(pthread_create(&t, NULL, end_it, NULL) == 0);
        cci_machine_pause(m);
        cci_machine_resume(m);
        CHECK(pthread_join(t, NULL) == 0);
        cci_machine_free(m);
    }
}

int main(void)
{
    RUN(test_bus_and_lines);
    RUN(test_starts_as_told);
    RUN(test_ends);
    RUN(test_limits);
    RUN(test_no_memory);
    RUN(test_pause);
    RUN(test_pause_and_end);
    RUN(test_pause_races_end);
    return check_done();
}
