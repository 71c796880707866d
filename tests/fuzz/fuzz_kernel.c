/*
 * Any file as a guest kernel (ELF file, bzImage): loaded or refused, and nothing written outside the guest's memory.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/machine/boot_x86.h"

enum { RAM = 32 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t *ram;
    static int fd = -1;
    struct cci_gmem mem;
    struct cci_boot_kernel k;
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    if (fd < 0) { /* memory between two pages that may not be touched */
        fd = memfd_create("kernel", 0);
        ram = mmap(NULL, RAM + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        ram += 4096;
        (void)mprotect(ram, RAM, PROT_READ | PROT_WRITE);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, n, 0) != (ssize_t)n)
        return 0;
    cci_boot_layout(&mem, ram, RAM);
    cc_error_code code = cci_boot_load_kernel(fd, "kernel", &mem, &k, &err);
    if ((code == CC_OK) != (err.message == NULL))
        abort();
    if (code == CC_OK &&
        (!cci_gmem_at(&mem, k.entry & ~(uint64_t)0xfff, 1) || k.end > RAM || k.cmdline_max > CCI_BOOT_CMDLINE_MAX))
        abort();
    cci_error_release(&err);
    return 0;
}
