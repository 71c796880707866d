/*
 * naive_loader KERNEL INITRAMFS [COMMAND LINE]: the least that boots a kernel to its first program.
 *
 * A floor for bench_start: guest RAM on 2 MiB pages, an ELF kernel by its PVH entry, an uncompressed initramfs, one
 * CPU, interrupt controllers in KVM; no devices, no ACPI, no threads, no errors handled. The initramfs' /init writes to
 * port 0xf4. Like bench_start it counts from before the first call to that write, and does all of it twice; a VM that
 * is kept open spares both the switching on of the processor's virtualisation, as cc_supports_hypervisor's does there.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#define RAM (256ul << 20)
#define HUGE (2ul << 20)
#define RUN 8192ul /* struct kvm_run and the page of port data */
#define PORT 0xf4
#define INFO 0x6000 /* hvm_start_info; behind it the module and the memory map */
#define LINE 0x7000
#define INITRD (RAM - (16ul << 20))

static void *at(uint8_t *ram, uint64_t address, uint64_t value, int size)
{
    return memcpy(ram + address, &value, (size_t)size);
}

static uint32_t load_elf(uint8_t *ram, int fd)
{
    Elf64_Ehdr e;
    Elf64_Phdr p[16];
    uint32_t entry = 0;
    (void)!pread(fd, &e, sizeof(e), 0);
    (void)!pread(fd, p, e.e_phnum * sizeof(*p), (off_t)e.e_phoff);
    for (int i = 0; i < e.e_phnum; i++) {
        if (p[i].p_type == PT_LOAD)
            (void)!pread(fd, ram + p[i].p_paddr, p[i].p_filesz, (off_t)p[i].p_offset);
        for (uint8_t *n = ram + p[i].p_paddr, *end = n + p[i].p_filesz; p[i].p_type == PT_NOTE && n < end;) {
            uint32_t h[3];
            memcpy(h, n, sizeof(h));
            if (h[2] == 18 && !memcmp(n + 12, "Xen", 4)) /* XEN_ELFNOTE_PHYS32_ENTRY */
                memcpy(&entry, n + 16, 4);
            n += 12 + ((h[0] + 3) & ~3u) + ((h[1] + 3) & ~3u);
        }
    }
    return entry;
}

static void load(uint8_t *ram, struct kvm_regs *regs, char **argv)
{
    static const uint64_t map[][2] = {{0, 0x9f000}, {0x100000, RAM - 0x100000}};
    struct stat st;
    int kernel = open(argv[1], O_RDONLY), initrd = open(argv[2], O_RDONLY);
    regs->rip = load_elf(ram, kernel);
    fstat(initrd, &st);
    (void)!read(initrd, ram + INITRD, (size_t)st.st_size);
    strcpy((char *)ram + LINE, argv[3] ? argv[3] : "pci=off");
    at(ram, INFO, 0x336ec578, 4);
    at(ram, INFO + 4, 1, 4);
    at(ram, INFO + 12, 1, 4); /* one module */
    at(ram, INFO + 16, INFO + 0x100, 8);
    at(ram, INFO + 24, LINE, 8);
    at(ram, INFO + 40, INFO + 0x200, 8);
    at(ram, INFO + 48, 2, 4);
    at(ram, INFO + 0x100, INITRD, 8);
    at(ram, INFO + 0x108, (uint64_t)st.st_size, 8);
    for (int i = 0; i < 2; i++) {
        at(ram, INFO + 0x200 + 24 * (uint64_t)i, map[i][0], 8);
        at(ram, INFO + 0x208 + 24 * (uint64_t)i, map[i][1], 8);
        at(ram, INFO + 0x210 + 24 * (uint64_t)i, 1, 4);
    }
    close(kernel);
    close(initrd);
}

static uint64_t boot(int kvm, char **argv)
{
    uint64_t began = __rdtsc(), exits = 0;
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    uint8_t *map = mmap(NULL, RAM + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *ram = (uint8_t *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
    struct kvm_userspace_memory_region region = {.memory_size = RAM, .userspace_addr = (uintptr_t)ram};
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    struct kvm_sregs s;
    struct kvm_regs regs = {.rflags = 2, .rbx = INFO};
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entry[100];
    } cpuid = {.head.nent = 100};
    madvise(ram, RAM, MADV_HUGEPAGE);
    ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
    ioctl(vm, KVM_CREATE_IRQCHIP, 0);
    ioctl(vm, KVM_CREATE_PIT2, &pit);
    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
    load(ram, &regs, argv);
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_run *run = mmap(NULL, RUN, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
    for (uint32_t i = 0; i < cpuid.head.nent; i++)
        if (cpuid.entry[i].function == 1)
            cpuid.entry[i].ecx |= 1u << 31 | 1u << 24; /* a hypervisor's clock, a timer that needs no calibration */
    ioctl(cpu, KVM_SET_CPUID2, &cpuid);
    ioctl(cpu, KVM_GET_SREGS, &s);
    s.cs = (struct kvm_segment){0, 0xffffffff, 8, 11, 1, 0, 1, 1, 0, 1, 0, 0, 0};
    s.ds = s.es = s.fs = s.gs = s.ss = (struct kvm_segment){0, 0xffffffff, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0};
    s.cr0 = 1;
    ioctl(cpu, KVM_SET_SREGS, &s);
    ioctl(cpu, KVM_SET_REGS, &regs);
    do {
        if (ioctl(cpu, KVM_RUN, 0) < 0 || (run->exit_reason != KVM_EXIT_IO && run->exit_reason != KVM_EXIT_MMIO)) {
            fprintf(stderr, "naive_loader: exit reason %u\n", run->exit_reason);
            exit(1);
        }
        if (run->exit_reason == KVM_EXIT_IO && !run->io.direction)
            memset((uint8_t *)run + run->io.data_offset, run->io.port == 0x71 ? 0 : 0xff,
                   run->io.size); /* nobody there */
        exits++;
    } while (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT);
    uint64_t ticks = __rdtsc() - began;
    printf("total=%.6f exits=%llu\n", (double)ticks / 1e6, (unsigned long long)exits);
    munmap(run, RUN);
    close(cpu);
    close(vm);
    munmap(map, RAM + HUGE);
    return ticks;
}

int main(int argc, char **argv)
{
    int kvm = open("/dev/kvm", O_RDWR), kept = ioctl(kvm, KVM_CREATE_VM, 0);
    if (argc < 3 || kept < 0)
        return 2;
    for (int i = 0; i < 2; i++) {
        printf(i ? "second " : "first ");
        (void)boot(kvm, argv);
    }
    return 0;
}
