/*
 * Whole guests: both kernels, by PVH and by the 64-bit protocol, one CPU and four, little memory and more than 4 GiB;
 * every way to end; one after another without leaking.
 */
// @vm
// @one-cpu
// @timeout 240
// @sanitize none
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include "../check.h"
#include "guest.h"

static struct guest g;
static char init_path[200];

/* A virtio-mmio device that is a placeholder (device ID 0): drivers look at it and leave it. */
static unsigned looks;

static void placeholder_read(void *ctx, uint64_t offset, unsigned size, uint8_t *data)
{
    (void)ctx;
    memset(data, 0, size);
    if (offset == 0 && size == 4)
        cci_put_le32(data, 0x74726976);
    else if (offset == 4)
        data[0] = 2;
    __atomic_add_fetch(&looks, 1, __ATOMIC_SEQ_CST);
}

static void placeholder_write(void *ctx, uint64_t offset, unsigned size, const uint8_t *data)
{
    (void)ctx, (void)offset, (void)size, (void)data;
}

static const struct cci_bus_ops placeholder = {placeholder_read, placeholder_write};

/* Boots, waits for the end, and leaves the console in g.text. */
static enum cci_machine_end boot(const char *kernel, unsigned cpus, unsigned mb, const char *cmdline)
{
    char line[200];
    (void)snprintf(line, sizeof(line), "%s %s", cci_kernel_cmdline(false), cmdline);
    CHECK_OK(guest_new(&g, cpus, mb), g.err);
    struct cci_irq irq;
    unsigned index;
    looks = 0;
    for (unsigned i = 0; i < 3; i++)
        CHECK_OK(cci_machine_add_mmio_device(g.machine, &placeholder, NULL, &irq, &index, &g.err), g.err);
    uint64_t start = cci_os_now();
    CHECK_OK(guest_boot(&g, guest_cache(kernel), init_path, line), g.err);
    enum cci_machine_end end = guest_wait(&g, 60);
    guest_stop(&g);
    printf("# %s, %u CPUs, %u MiB: %.2f s\n", kernel, cpus, mb, (double)(cci_os_now() - start) / 1e9);
    if (!strstr(g.text, "init done"))
        printf("# %s\n", g.text);
    return end;
}

static bool has(const char *what)
{
    return strstr(g.text, what) != NULL;
}

static long memory_kb(void)
{
    const char *p = strstr(g.text, "MemTotal:");
    return p ? atol(p + 9) : 0;
}

static void own_pvh(void)
{
    CHECK_EQ_INT(boot("kernel/guest-x86_64/vmlinux", 1, 256, "end=off"), CCI_MACHINE_OFF);
    CHECK(has("cpu count: 1\n"));
    CHECK(has("clock: kvm-clock"));
    CHECK(memory_kb() > 225000);
    CHECK(!has("WARNING") && !has("XSAVE"));
    CHECK(has("virtio: MODALIAS=acpi:LNRO0005"));
    CHECK(looks >= 3 * 3); /* each device's magic number, version and ID were read */
    const char *serial = strstr(g.text, "serial: ");
    CHECK(serial && strstr(serial, "4-edge") && atoi(strchr(serial + 8, ':') + 1) > 0); /* interrupts arrive */
    CHECK_EQ_INT(g.ends, 1);
    guest_free(&g);
}

/* A copy of our vmlinux without the note: it is entered by the 64-bit protocol. */
static void own_elf_without_pvh(void)
{
    static const uint8_t note[] = {18, 0, 0, 0, 'X', 'e', 'n', 0};
    char path[220], line[200];
    struct cci_buf image = {NULL, 0, 0, false};
    CHECK_OK(cci_kernel_read(guest_cache("kernel/guest-x86_64/vmlinux"), (size_t)64 << 20, &image, NULL), g.err);
    uint8_t *at = memmem(image.p, image.n, note, sizeof(note));
    CHECK(at != NULL);
    at[4] = 'Z';
    (void)snprintf(path, sizeof(path), "%s.vmlinux", init_path);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(image.p, 1, image.n, f) == image.n && fclose(f) == 0);
    cci_buf_free(&image);
    (void)snprintf(line, sizeof(line), "%s end=off", cci_kernel_cmdline(false));
    CHECK_OK(guest_new(&g, 1, 128), g.err);
    CHECK_OK(guest_boot(&g, path, init_path, line), g.err);
    CHECK_EQ_INT(guest_wait(&g, 60), CCI_MACHINE_OFF);
    guest_stop(&g);
    CHECK(has("init done"));
    guest_free(&g);
    (void)unlink(path);
}

static void own_bzimage_four_cpus(void)
{
    CHECK_EQ_INT(boot("kernel/guest-x86_64/vmlinuz", 4, 256, "end=off"), CCI_MACHINE_OFF);
    CHECK(has("cpu count: 4\n"));
    guest_free(&g);
}

static void above_4_gib(void)
{
    CHECK_EQ_INT(boot("kernel/guest-x86_64/vmlinux", 2, 5120, "end=off"), CCI_MACHINE_OFF);
    CHECK(memory_kb() > 5000000);
    guest_free(&g);
}

static void little_memory(void)
{
    CHECK_EQ_INT(boot("kernel/guest-x86_64/vmlinux", 1, 64, "end=off"), CCI_MACHINE_OFF);
    CHECK(has("init done"));
    guest_free(&g);
}

static void stock_pvh(void)
{
    CHECK_EQ_INT(boot("kernel/stock-x86_64/vmlinux", 1, 256, "end=off"), CCI_MACHINE_OFF);
    CHECK(has("init done"));
    CHECK(has("virtio: MODALIAS=acpi:LNRO0005"));
    guest_free(&g);
}

static void stock_bzimage_two_cpus(void)
{
    CHECK_EQ_INT(boot("kernel/stock-x86_64/vmlinuz", 2, 192, "end=off"), CCI_MACHINE_OFF);
    CHECK(has("cpu count: 2\n"));
    guest_free(&g);
}

static void ends_by_reset(void)
{
    CHECK_EQ_INT(boot("kernel/guest-x86_64/vmlinux", 1, 128, "end=reboot"), CCI_MACHINE_RESET);
    guest_free(&g);
}

static void panics_are_quoted(void)
{
    CHECK_EQ_INT(boot("kernel/guest-x86_64/vmlinux", 1, 128, "end=panic"), CCI_MACHINE_RESET);
    char *tail = cci_serial_tail(&g.machine->serial, 2000);
    CHECK(strstr(tail, "Kernel panic - not syncing: Attempted to kill init!"));
    cci_mem_free(tail);
    guest_free(&g);
}

/* A panic in the kernel's own start: the wrong init. */
static void early_panic(void)
{
    CHECK_EQ_INT(boot("kernel/guest-x86_64/vmlinux", 1, 128, "rdinit=/nowhere"), CCI_MACHINE_RESET);
    char *tail = cci_serial_tail(&g.machine->serial, 4000);
    CHECK(strstr(tail, "Kernel panic"));
    cci_mem_free(tail);
    guest_free(&g);
}

static void stopped_while_it_runs(void)
{
    char line[] = "console=ttyS0 panic=-1 pci=off loglevel=3 end=hang";
    CHECK_OK(guest_new(&g, 2, 128), g.err);
    CHECK_OK(guest_boot(&g, guest_cache("kernel/guest-x86_64/vmlinux"), init_path, line), g.err);
    CHECK(guest_wait_for(&g, "init done", 60));
    CHECK_EQ_INT(guest_wait(&g, 1), CCI_MACHINE_ALIVE);
    uint64_t start = cci_os_now();
    guest_stop(&g);
    CHECK(cci_os_now() - start < 20000000000u);
    CHECK_EQ_INT(cci_machine_state(g.machine, NULL, 0), CCI_MACHINE_STOPPED);
    CHECK(has("init done"));
    CHECK_EQ_INT(g.ends, 1);
    guest_free(&g);
}

static volatile sig_atomic_t handled;

static void on_kick(int signal_number)
{
    (void)signal_number;
    handled = 1;
}

/* Stopped at once, before the guest has done anything, and freed without a stop; whatever the caller's program does
 * about the signal that sends CPUs out. */
static void stopped_at_once(void)
{
    void (*const how[])(int) = {SIG_DFL, SIG_IGN, on_kick};
    for (unsigned i = 0; i < 6; i++) {
        CHECK(signal(CCI_KVM_KICK_SIGNAL, how[i % 3]) != SIG_ERR);
        CHECK_OK(guest_new(&g, 2, 64), g.err);
        CHECK_OK(guest_boot(&g, guest_cache("kernel/guest-x86_64/vmlinux"), init_path, ""), g.err);
        if (i % 2)
            guest_stop(&g);
        guest_free(&g);
    }
    CHECK_EQ_INT(handled, 0);
    CHECK(signal(CCI_KVM_KICK_SIGNAL, SIG_DFL) != SIG_ERR);
}

static unsigned entries(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    while (d && readdir(d))
        n++;
    if (d)
        (void)closedir(d);
    return n;
}

static void leaks_nothing(void)
{
    unsigned fds = entries("/proc/self/fd");
    for (unsigned i = 0; i < 5; i++) {
        CHECK_OK(guest_new(&g, 2, 64), g.err);
        CHECK_OK(guest_boot(&g, guest_cache("kernel/guest-x86_64/vmlinux"), init_path, ""), g.err);
        guest_free(&g);
    }
    CHECK_EQ_INT(entries("/proc/self/fd"), fds);
    CHECK_EQ_INT(entries("/proc/self/task"), 3); /* this thread, . and .. */
}

/* A kernel that wants more memory than there is, and files that are no kernels. */
static void refused(void)
{
    CHECK_OK(guest_new(&g, 1, 32), g.err);
    CHECK_EQ_INT(guest_boot(&g, guest_cache("kernel/guest-x86_64/vmlinux"), init_path, ""), CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(g.err.message, "more memory"));
    guest_free(&g);
    CHECK_OK(guest_new(&g, 1, 64), g.err);
    CHECK_EQ_INT(guest_boot(&g, __FILE__, init_path, ""), CC_ERR_IO);
    CHECK(strstr(g.err.message, "neither an ELF file nor a bzImage"));
    guest_free(&g);
    CHECK_OK(guest_new(&g, 1, 64), g.err);
    CHECK_EQ_INT(guest_boot(&g, init_path, init_path, ""), CC_ERR_IO);
    CHECK(strstr(g.err.message, "a program and not a kernel"));
    guest_free(&g);
    struct guest h;
    CHECK_EQ_INT(guest_new(&h, 0, 64), CC_ERR_INVALID_ARGUMENT);
    guest_free(&h);
    CHECK_EQ_INT(guest_new(&h, 1, 33), CC_ERR_INVALID_ARGUMENT);
    guest_free(&h);
}

int main(void)
{
    if (!guest_make_init(init_path, sizeof(init_path)))
        return 1;
    RUN(own_pvh);
    RUN(own_elf_without_pvh);
    RUN(own_bzimage_four_cpus);
    RUN(above_4_gib);
    RUN(little_memory);
    RUN(ends_by_reset);
    RUN(panics_are_quoted);
    RUN(early_panic);
    RUN(stopped_while_it_runs);
    RUN(stopped_at_once);
    RUN(leaks_nothing);
    RUN(refused);
    RUN(stock_pvh);
    RUN(stock_bzimage_two_cpus);
    (void)unlink(init_path);
    return check_done();
}
