/*
 * Saving and restoring at the hypervisor's interface: a Linux guest with two CPUs that prints a tick every 20 ms is
 * stopped in between, saved, restored into a new machine with a copy of its memory, and goes on until it is told to
 * end.
 */
// @vm
// @one-cpu
// @timeout 120
#define _GNU_SOURCE
#include "../../src/machine/serial_wire.h"
#include "../check.h"
#include "guest.h"

static struct guest a, b;
static char init_path[200];

static void save(struct guest *g, struct cci_buf *vm, struct cci_buf *cpu)
{
    struct cci_machine *m = g->machine;
    for (unsigned i = 0; i < m->config.cpus; i++)
        CHECK_OK(m->config.hv->vcpu_save(m->cpu[i].vcpu, &cpu[i], &g->err), g->err);
    CHECK_OK(m->config.hv->vm_save(m->vm, vm, &g->err), g->err);
}

static int last_tick(const struct guest *g)
{
    int last = -1;
    for (const char *p = g->text; (p = strstr(p, "tick ")); p++)
        last = atoi(p + 5);
    return last;
}

static void test_goes_on_elsewhere(void)
{
    struct cci_buf vm = {0}, cpu[2] = {{0}, {0}};
    const struct cci_x86_start start = {.mode = CCI_X86_PROTECTED};
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    char next[32];
    size_t n;
    CHECK_OK(guest_new(&a, 2, 128), a.err);
    CHECK_OK(guest_boot(&a, guest_cache("kernel/guest-x86_64/vmlinux"), init_path,
                        "console=ttyS0 panic=-1 pci=off loglevel=3 end=ticks"),
             a.err);
    CHECK(guest_wait_for(&a, "tick 5\n", 60));
    guest_stop(&a);
    (void)snprintf(next, sizeof(next), "tick %d\n", last_tick(&a) + 2); /* the one before may have been half written */
    save(&a, &vm, cpu);
    printf("# saved: %zu bytes of the VM, %zu of a CPU\n", vm.n, cpu[0].n);

    CHECK_OK(guest_new(&b, 2, 128), b.err);
    memcpy(b.machine->ram, a.machine->ram, a.machine->config.ram_bytes);
    b.machine->serial.ier = a.machine->serial.ier;
    b.machine->serial.mcr = a.machine->serial.mcr;
    b.machine->serial.lcr = a.machine->serial.lcr;
    b.machine->serial.fcr = a.machine->serial.fcr;
    b.machine->serial.sent_pending = a.machine->serial.sent_pending;
    guest_free(&a);
    CHECK_OK(cci_machine_make_cpus(b.machine, &start, &b.err), b.err);
    const struct cci_hv_ops *hv = b.machine->config.hv;
    CHECK_OK(hv->vm_restore(b.machine->vm, (struct cci_view){vm.p, vm.n}, &b.err), b.err);
    for (unsigned i = 0; i < 2; i++)
        CHECK_OK(hv->vcpu_restore(b.machine->cpu[i].vcpu, (struct cci_view){cpu[i].p, cpu[i].n}, &b.err), b.err);
    CHECK_OK(cci_machine_run(b.machine, &b.err), b.err);
    CHECK(guest_wait_for(&b, next, 60));
    CHECK_OK(cci_serial_feed(&b.machine->serial, (const uint8_t *)"\n", 1, &n, &forever, &b.err), b.err);
    CHECK_EQ_INT(guest_wait(&b, 60), CCI_MACHINE_OFF);
    guest_stop(&b);
    CHECK(!strstr(b.text, "init done"));
    guest_free(&b);
    for (unsigned i = 0; i < 2; i++)
        cci_buf_free(&cpu[i]);
    cci_buf_free(&vm);
}

/* Blobs that are cut, of another version, or empty are refused; nothing crashes. */
static void test_damaged(void)
{
    struct cci_buf vm = {0}, cpu = {0};
    const struct cci_x86_start start = {.mode = CCI_X86_PROTECTED};
    CHECK_OK(guest_new(&a, 1, 64), a.err);
    CHECK_OK(cci_machine_make_cpus(a.machine, &start, &a.err), a.err);
    const struct cci_hv_ops *hv = a.machine->config.hv;
    save(&a, &vm, &cpu);
    for (size_t n = 0; n < cpu.n; n += n < 40 ? 1 : 97) {
        CHECK_EQ_INT(hv->vcpu_restore(a.machine->cpu[0].vcpu, (struct cci_view){cpu.p, n}, &a.err),
                     CC_ERR_INVALID_ARGUMENT);
        cci_error_release(&a.err);
    }
    for (size_t n = 0; n < vm.n; n += 31) {
        CHECK_EQ_INT(hv->vm_restore(a.machine->vm, (struct cci_view){vm.p, n}, &a.err), CC_ERR_INVALID_ARGUMENT);
        cci_error_release(&a.err);
    }
    vm.p[8]++; /* the version */
    CHECK_EQ_INT(hv->vm_restore(a.machine->vm, (struct cci_view){vm.p, vm.n}, &a.err), CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(a.err.message, "version"));
    cci_buf_free(&vm);
    cci_buf_free(&cpu);
    guest_free(&a);
}

int main(void)
{
    if (!guest_make_init(init_path, sizeof(init_path)))
        return 1;
    RUN(test_goes_on_elsewhere);
    RUN(test_damaged);
    (void)unlink(init_path);
    return check_done();
}
