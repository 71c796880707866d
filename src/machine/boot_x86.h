/*
 * machine/boot_x86.h - everything that an x86-64 guest finds in its memory when its first CPU starts.
 *
 * There is no firmware: the kernel, its command line, the initrd, the memory map and the ACPI tables are put where the
 * kernel looks, and the CPU starts at the kernel's own entry point. Two ways in:
 *
 *   PVH      (ELF file with the PVH note) 32-bit, ebx = hvm_start_info, version 1 (Xen's
 * public/arch-x86/hvm/start_info.h) 64-bit   (bzImage, or an ELF file without the note) rsi = boot_params, identity
 * page tables (Documentation/x86/boot.rst, "64-bit Boot Protocol", and zero-page.rst)
 *
 * Guest-physical memory:
 *
 *   0x000500  segment table           0x007000  boot_params
 *   0x006000  PVH start info          0x009000  page tables (6 pages)
 *   0x020000  command line            0x0e0000  ACPI tables (not RAM in the map), reset vector
 *   0x100000  kernel (usually from 16 MiB)      top of the RAM below 3 GiB: initrd
 *   3 GiB to 4 GiB: the hole for devices; RAM goes on at 4 GiB.
 */
#ifndef CCI_MACHINE_BOOT_X86_H
#define CCI_MACHINE_BOOT_X86_H

#include "../hv/x86.h"
#include "acpi.h"
#include "bzimage.h"

#define CCI_BOOT_HOLE 0xc0000000u
#define CCI_BOOT_HIGH 0x100000000u
#define CCI_BOOT_GDT 0x500u
#define CCI_BOOT_START_INFO 0x6000u
#define CCI_BOOT_MODULES 0x6080u
#define CCI_BOOT_MEMMAP 0x6100u
#define CCI_BOOT_PARAMS 0x7000u
#define CCI_BOOT_TABLES 0x9000u
#define CCI_BOOT_STACK 0x8ff0u
#define CCI_BOOT_CMDLINE 0x20000u
#define CCI_BOOT_CMDLINE_MAX 2047u /* what every x86-64 Linux takes */
#define CCI_BOOT_EBDA 0x9fc00u     /* RAM ends here, and goes on at 1 MiB */

/* Kinds of memory in both maps. */
enum { CCI_BOOT_RAM = 1, CCI_BOOT_RESERVED = 2 };

struct cci_boot_range {
    uint64_t start, size;
    uint32_t kind;
};

/* What was loaded, by either way. */
struct cci_boot_kernel {
    bool pvh;
    uint64_t entry;
    uint64_t end;        /* first free byte behind the kernel */
    uint64_t initrd_max; /* highest address an initrd may have */
    unsigned cmdline_max;
    struct cci_bzimage bz; /* its header is all zero for an ELF file */
};

/* The initrd's place, once its size is known. */
struct cci_boot_initrd {
    uint64_t gpa, size;
};

/* Lays the guest's RAM out: `size` bytes at `host`, a multiple of 2 MiB. */
static void cci_boot_layout(struct cci_gmem *mem, uint8_t *host, uint64_t size)
{
    uint64_t low = CCI_MIN(size, (uint64_t)CCI_BOOT_HOLE);
    mem->range[0] = (struct cci_gmem_range){0, low, host};
    mem->range[1] = (struct cci_gmem_range){CCI_BOOT_HIGH, size - low, host + low};
    mem->count = size > low ? 2 : 1;
}

static unsigned cci_boot_map(const struct cci_gmem *mem, struct cci_boot_range *map)
{
    unsigned n = 0;
    map[n++] = (struct cci_boot_range){0, CCI_BOOT_EBDA, CCI_BOOT_RAM};
    map[n++] = (struct cci_boot_range){CCI_ACPI_BASE, CCI_ACPI_LIMIT - CCI_ACPI_BASE, CCI_BOOT_RESERVED};
    map[n++] = (struct cci_boot_range){CCI_ACPI_LIMIT, mem->range[0].size - CCI_ACPI_LIMIT, CCI_BOOT_RAM};
    if (mem->count > 1)
        map[n++] = (struct cci_boot_range){mem->range[1].gpa, mem->range[1].size, CCI_BOOT_RAM};
    return n;
}

#define CCI_BOOT_MAX_RANGES 4u

/* Loads the kernel image in fd, whatever its form. */
static cc_error_code cci_boot_load_kernel(cci_fd fd, const char *path, const struct cci_gmem *mem,
                                          struct cci_boot_kernel *k, cc_error *err)
{
    uint8_t magic[4];
    memset(k, 0, sizeof(*k));
    cc_error_code code = cci_elf_read(fd, magic, sizeof(magic), 0, path, err);
    if (code != CC_OK)
        return code;
    if (memcmp(magic, "\177ELF", 4) != 0) {
        code = cci_bzimage_load(fd, path, mem, &k->bz, err);
        k->entry = k->bz.entry;
        k->end = k->bz.end;
        k->initrd_max = k->bz.initrd_max;
        k->cmdline_max = CCI_MIN(k->bz.cmdline_max, CCI_BOOT_CMDLINE_MAX);
        return code;
    }
    struct cci_elf elf;
    code = cci_elf_load(fd, path, mem, &elf, err);
    k->pvh = elf.pvh;
    k->entry = elf.entry;
    k->end = elf.end;
    k->initrd_max = UINT32_MAX;
    k->cmdline_max = CCI_BOOT_CMDLINE_MAX;
    return code;
}

/* Finds room for an initrd of `size` bytes, as high as it may lie below the hole. */
static cc_error_code cci_boot_place_initrd(const struct cci_gmem *mem, const struct cci_boot_kernel *k, uint64_t size,
                                           struct cci_boot_initrd *out, cc_error *err)
{
    const struct cci_gmem_range *low = &mem->range[0];
    uint64_t top = CCI_MIN(low->size, k->initrd_max < UINT64_MAX ? k->initrd_max + 1 : UINT64_MAX);
    uint64_t bottom = CCI_ALIGN_UP(k->end, (uint64_t)4096);
    out->size = size;
    out->gpa = 0;
    if (size == 0)
        return CC_OK;
    if (top < bottom || size > top - bottom)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                        "the kernel and its initrd (%llu MiB) do not fit into the guest's memory: give the instance "
                        "more memory",
                        (unsigned long long)(size >> 20) + 1);
    out->gpa = (top - size) & ~(uint64_t)4095;
    if (out->gpa < bottom)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                        "the kernel and its initrd do not fit into the guest's memory: give the instance more memory");
    return CC_OK;
}

/* Flat 4 GiB segments: code at selector 0x10, data at 0x18. */
static void cci_boot_gdt(uint8_t *low, bool is_long)
{
    cci_put_le64(low + CCI_BOOT_GDT + CCI_X86_SEL_CODE, is_long ? 0x00af9b000000ffffu : 0x00cf9b000000ffffu);
    cci_put_le64(low + CCI_BOOT_GDT + CCI_X86_SEL_DATA, 0x00cf93000000ffffu);
}

/* The first 4 GiB, mapped to themselves in 2 MiB pages. */
static void cci_boot_page_tables(uint8_t *low)
{
    uint8_t *pml4 = low + CCI_BOOT_TABLES, *pdpt = pml4 + 4096, *pd = pdpt + 4096;
    cci_put_le64(pml4, (CCI_BOOT_TABLES + 4096) | 3u);
    for (unsigned i = 0; i < 4; i++)
        cci_put_le64(pdpt + i * 8, (CCI_BOOT_TABLES + (2 + i) * 4096) | 3u);
    for (unsigned i = 0; i < 2048; i++)
        cci_put_le64(pd + i * 8, (uint64_t)i << 21 | 0x83u);
}

static void cci_boot_start_info(uint8_t *low, const struct cci_gmem *mem, const struct cci_boot_initrd *initrd)
{
    struct cci_boot_range map[CCI_BOOT_MAX_RANGES];
    unsigned n = cci_boot_map(mem, map);
    uint8_t *s = low + CCI_BOOT_START_INFO;
    cci_put_le32(s, 0x336ec578); /* magic */
    cci_put_le32(s + 4, 1);      /* version */
    cci_put_le32(s + 12, initrd->size ? 1 : 0);
    cci_put_le64(s + 16, initrd->size ? CCI_BOOT_MODULES : 0);
    cci_put_le64(s + 24, CCI_BOOT_CMDLINE);
    cci_put_le64(s + 32, CCI_ACPI_BASE);
    cci_put_le64(s + 40, CCI_BOOT_MEMMAP);
    cci_put_le32(s + 48, n);
    cci_put_le64(low + CCI_BOOT_MODULES, initrd->gpa);
    cci_put_le64(low + CCI_BOOT_MODULES + 8, initrd->size);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = low + CCI_BOOT_MEMMAP + i * 24;
        cci_put_le64(e, map[i].start);
        cci_put_le64(e + 8, map[i].size);
        cci_put_le32(e + 16, map[i].kind);
    }
}

static void cci_boot_params(uint8_t *low, const struct cci_gmem *mem, const struct cci_boot_kernel *k,
                            const struct cci_boot_initrd *initrd, size_t cmdline_n)
{
    struct cci_boot_range map[CCI_BOOT_MAX_RANGES];
    unsigned n = cci_boot_map(mem, map);
    uint8_t *p = low + CCI_BOOT_PARAMS;
    memcpy(p, k->bz.header, sizeof(k->bz.header));
    if (cci_le32(p + CCI_BZ_HEADER) == 0) { /* an ELF file has no setup header */
        cci_put_le16(p + CCI_BZ_BOOT_FLAG, 0xaa55);
        memcpy(p + CCI_BZ_HEADER, "HdrS", 4);
        cci_put_le16(p + CCI_BZ_VERSION, 0x20f);
        p[CCI_BZ_LOADFLAGS] = 1;
        cci_put_le32(p + CCI_BZ_ALIGNMENT, 0x200000);
    }
    cci_put_le64(p + 0x70, CCI_ACPI_BASE); /* acpi_rsdp_addr */
    p[0x1e8] = (uint8_t)n;                 /* e820_entries */
    p[CCI_BZ_LOADER] = 0xff;               /* a loader with no number of its own */
    cci_put_le32(p + CCI_BZ_RAMDISK_IMAGE, (uint32_t)initrd->gpa);
    cci_put_le32(p + CCI_BZ_RAMDISK_SIZE, (uint32_t)initrd->size);
    cci_put_le32(p + CCI_BZ_CMDLINE, CCI_BOOT_CMDLINE);
    cci_put_le32(p + CCI_BZ_CMDLINE_SIZE, (uint32_t)cmdline_n);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = p + 0x2d0 + i * 20;
        cci_put_le64(e, map[i].start);
        cci_put_le64(e + 8, map[i].size);
        cci_put_le32(e + 16, map[i].kind);
    }
}

/* Where a PC starts after a reset, and where a kernel jumps, in real mode, that has the firmware reset the machine. A
 * kernel with support for EFI does so: on a hardware-reduced platform it does not try ACPI's reset register, but EFI,
 * which is not there, and then this. So there is code that writes to the register. */
static void cci_boot_reset_vector(uint8_t *low)
{
    static const uint8_t code[] = {
        0xba,
        (CCI_ACPI_PORT + 2) & 0xff,
        (CCI_ACPI_PORT + 2) >> 8, /* mov dx, the register */
        0xb0,
        CCI_ACPI_RESET_VALUE, /* mov al, the value */
        0xee,                 /* out dx, al */
        0xf4,                 /* hlt */
        0xeb,
        0xfd /* jmp to hlt */
    };
    memcpy(low + CCI_ACPI_RESET_VECTOR, code, sizeof(code));
}

/* Writes everything but the kernel and the initrd, and says how CPU 0 starts. `acpi` is from cci_acpi_build. */
static cc_error_code cci_boot_finish(const struct cci_gmem *mem, const struct cci_boot_kernel *k,
                                     const struct cci_boot_initrd *initrd, const char *cmdline,
                                     const struct cci_buf *acpi, struct cci_x86_start *start, cc_error *err)
{
    uint8_t *low = cci_gmem_at(mem, 0, CCI_ELF_LOWEST);
    size_t n = strlen(cmdline);
    if (!low || acpi->n > CCI_ACPI_RESET_VECTOR - CCI_ACPI_BASE)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "the guest's memory is too small");
    if (n > k->cmdline_max)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                        "the kernel command line has %zu bytes, and this kernel takes %u", n, k->cmdline_max);
    memcpy(low + CCI_BOOT_CMDLINE, cmdline, n + 1);
    memcpy(low + CCI_ACPI_BASE, acpi->p, acpi->n);
    cci_boot_reset_vector(low);
    cci_boot_gdt(low, !k->pvh);
    memset(start, 0, sizeof(*start));
    start->rip = k->entry;
    start->gdt = CCI_BOOT_GDT;
    if (k->pvh) {
        cci_boot_start_info(low, mem, initrd);
        start->mode = CCI_X86_PROTECTED;
        start->rbx = CCI_BOOT_START_INFO;
    } else {
        cci_boot_params(low, mem, k, initrd, n);
        cci_boot_page_tables(low);
        start->mode = CCI_X86_LONG;
        start->rsi = CCI_BOOT_PARAMS;
        start->rsp = CCI_BOOT_STACK;
        start->cr3 = CCI_BOOT_TABLES;
    }
    return CC_OK;
}

#endif
