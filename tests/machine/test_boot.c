/*
 * Loading a kernel into guest memory, with no VM: what the guest finds there, and headers of ELF files and bzImages
 * that lie. Every byte that a lying file makes us write has to stay in the guest's memory (what lies behind it may not
 * be touched).
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "../check.h"

#include "../../src/machine/boot_x86.h"

enum { RAM = 64 << 20 };

static uint8_t *ram;
static struct cci_gmem mem;
static struct cci_boot_kernel kernel;
static cc_error err;
static uint8_t file[1 << 20];
static size_t file_n;

static void begin(void)
{
    if (!ram) { /* with a page behind it that nobody may touch */
        ram = mmap(NULL, RAM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(ram != MAP_FAILED && mprotect(ram + RAM, 4096, PROT_NONE) == 0);
    }
    CHECK(madvise(ram, RAM, MADV_DONTNEED) == 0);
    cci_boot_layout(&mem, ram, RAM);
    memset(file, 0, sizeof(file));
    cci_error_release(&err);
}

static cc_error_code load(void)
{
    cci_error_release(&err);
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    CHECK(write(fd, file, file_n) == (ssize_t)file_n);
    cc_error_code code = cci_boot_load_kernel(fd, "kernel", &mem, &kernel, &err);
    (void)close(fd);
    CHECK((code != CC_OK) == (err.message != NULL));
    return code;
}

/* ---- ELF ---- */

static void put_phdr(unsigned i, uint32_t type, uint64_t offset, uint64_t paddr, uint64_t filesz, uint64_t memsz)
{
    uint8_t *p = file + 64 + i * 56;
    cci_put_le32(p, type);
    cci_put_le64(p + 8, offset);
    cci_put_le64(p + 16, 0xffffffff80000000u + paddr);
    cci_put_le64(p + 24, paddr);
    cci_put_le64(p + 32, filesz);
    cci_put_le64(p + 40, memsz);
}

static void make_elf(void)
{
    begin();
    memcpy(file, "\177ELF\2\1\1", 7);
    cci_put_le16(file + 18, 62);
    cci_put_le64(file + 24, 0x1000000);
    cci_put_le64(file + 32, 64);
    cci_put_le16(file + 54, 56);
    cci_put_le16(file + 56, 3);
    put_phdr(0, 1, 0x1000, 0x1000000, 0x2000, 0x5000);
    put_phdr(1, 1, 0x3000, 0x1800000, 0x10, 0x10);
    put_phdr(2, 4, 0x4000, 0, 20 + 20, 40);
    memset(file + 0x1000, 0xaa, 0x2000);
    memset(file + 0x3000, 0xbb, 0x10);
    /* Two notes: another's, and the one that is looked for. */
    cci_put_le32(file + 0x4000, 4);
    cci_put_le32(file + 0x4004, 4);
    cci_put_le32(file + 0x4008, 18);
    memcpy(file + 0x400c, "GNU", 4);
    cci_put_le32(file + 0x4014, 4);
    cci_put_le32(file + 0x4018, 4);
    cci_put_le32(file + 0x401c, 18);
    memcpy(file + 0x4020, "Xen", 4);
    cci_put_le32(file + 0x4024, 0x1000040);
    file_n = 0x5000;
}

static void test_elf(void)
{
    make_elf();
    CHECK_OK(load(), err);
    CHECK(kernel.pvh);
    CHECK_EQ_INT(kernel.entry, 0x1000040);
    CHECK_EQ_INT(kernel.end, 0x1800010);
    CHECK_EQ_INT(ram[0x1000000], 0xaa);
    CHECK_EQ_INT(ram[0x1001fff], 0xaa);
    CHECK_EQ_INT(ram[0x1002000], 0);
    CHECK_EQ_INT(ram[0x180000f], 0xbb);
    memcpy(file + 0x4020, "Zen", 4); /* without the note: the file's entry, 64-bit */
    CHECK_OK(load(), err);
    CHECK(!kernel.pvh);
    CHECK_EQ_INT(kernel.entry, 0x1000000);
}

/* A static program is an ELF file with segments where RAM is, too; only a kernel is linked that high. */
static void test_elf_is_no_program(void)
{
    make_elf();
    memcpy(file + 0x4020, "Zen", 4);
    cci_put_le64(file + 64 + 16, 0x1000000);
    CHECK_EQ_INT(load(), CC_ERR_IO);
    CHECK(strstr(err.message, "a program and not a kernel"));
    make_elf(); /* with a PVH entry it may lie where it likes */
    cci_put_le64(file + 64 + 16, 0x1000000);
    CHECK_OK(load(), err);
}

/* Many segments over each other, each as large as the RAM: a small sparse file that would take for ever to read. */
static void test_elf_overlaps(void)
{
    make_elf();
    const uint64_t n = RAM - 0x1000000;
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    cci_put_le16(file + 56, 9);
    for (unsigned i = 0; i < 9; i++)
        put_phdr(i, 1, 0x8000, 0x1000000, n, n);
    CHECK(write(fd, file, file_n) == (ssize_t)file_n && ftruncate(fd, RAM) == 0);
    CHECK_EQ_INT(cci_boot_load_kernel(fd, "kernel", &mem, &kernel, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "over each other"));
    (void)close(fd);
}

static void test_elf_lies(void)
{
    static const struct {
        size_t at;
        unsigned size;
        uint64_t value;
        const char *says;
    } lies[] = {
        {4, 1, 1, "64-bit"},              /* 32-bit */
        {18, 2, 183, "64-bit"},           /* arm64 */
        {32, 8, UINT64_MAX, "too early"}, /* headers outside the file */
        {32, 8, 0x4fff, "too early"},
        {54, 2, 8, "program headers"}, /* their size */
        {56, 2, 0, "program headers"}, /* their number */
        {56, 2, 0xffff, "program headers"},
        {24, 8, 0x2000000, NULL},                 /* the PVH note's entry counts */
        {64 + 8, 8, UINT64_MAX - 1, "too early"}, /* segment outside the file */
        {64 + 8, 8, 0x4000, "too early"},
        {64 + 24, 8, RAM - 0x1000, "more memory"}, /* outside the memory */
        {64 + 24, 8, UINT64_MAX - 0x1000, "more memory"},
        {64 + 24, 8, 0, "no sense"}, /* over the boot data */
        {64 + 24, 8, 0xff000, "no sense"},
        {64 + 32, 8, 0x6000, "no sense"}, /* more in the file than in memory */
        {64 + 40, 8, UINT64_MAX, "more memory"},
        {64 + 40, 8, 0x1000, "no sense"},
        {64 + 112 + 8, 8, 0x7000, "too early"}, /* notes outside the file */
        {64 + 112 + 32, 8, UINT64_MAX, NULL},   /* and far too long: taken as none */
        {0x4000, 4, UINT32_MAX, NULL},          /* a note's name passes the end: no note */
        {0x4018, 4, UINT32_MAX - 2, NULL},
        {0x4024, 4, 0x30, "entry point"}, /* entry outside */
        {0x4024, 4, 0x3000000, "entry point"},
    };
    for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        make_elf();
        for (unsigned b = 0; b < lies[i].size; b++)
            file[lies[i].at + b] = (uint8_t)(lies[i].value >> (8 * b));
        cc_error_code code = load();
        if ((code == CC_OK) != (lies[i].says == NULL) || (code && !strstr(err.message, lies[i].says)))
            printf("# lie %u: %d %s\n", i, code, err.message ? err.message : "");
        CHECK_EQ_INT(code == CC_OK, lies[i].says == NULL);
        CHECK(code == CC_OK || strstr(err.message, lies[i].says));
    }
    for (size_t n = 0; n < 0x400; n += n < 300 ? 1 : 61) { /* cut short */
        make_elf();
        file_n = n;
        CHECK_EQ_INT(load(), CC_ERR_IO);
    }
}

/* ---- bzImage ---- */

static void make_bz(void)
{
    begin();
    file[CCI_BZ_SETUP_SECTS] = 3;
    cci_put_le16(file + CCI_BZ_BOOT_FLAG, 0xaa55);
    file[CCI_BZ_JUMP] = 0x6a;
    memcpy(file + CCI_BZ_HEADER, "HdrS", 4);
    cci_put_le16(file + CCI_BZ_VERSION, 0x20f);
    file[CCI_BZ_LOADFLAGS] = 1;
    cci_put_le32(file + CCI_BZ_INITRD_MAX, 0x7fffffff);
    cci_put_le32(file + CCI_BZ_ALIGNMENT, 0x200000);
    file[CCI_BZ_RELOCATABLE] = 1;
    cci_put_le16(file + CCI_BZ_XLOADFLAGS, 1);
    cci_put_le32(file + CCI_BZ_CMDLINE_SIZE, 2047);
    cci_put_le64(file + CCI_BZ_PREF_ADDRESS, 0x1000000);
    cci_put_le32(file + CCI_BZ_INIT_SIZE, 0x800000);
    memset(file + 4 * 512, 0xcc, 0x4000);
    file_n = 4 * 512 + 0x4000;
}

static void test_bzimage(void)
{
    make_bz();
    CHECK_OK(load(), err);
    CHECK_EQ_INT(kernel.entry, 0x1000200);
    CHECK_EQ_INT(kernel.end, 0x1800000);
    CHECK_EQ_INT(kernel.cmdline_max, 2047);
    CHECK_EQ_INT(mem.range[0].host[0x1003fff], 0xcc);
    CHECK_EQ_INT(mem.range[0].host[0x1004000], 0);
    cci_put_le64(file + CCI_BZ_PREF_ADDRESS, 0x3c00000); /* no room there: lower */
    CHECK_OK(load(), err);
    CHECK_EQ_INT(kernel.entry, 0x200200);
    file[CCI_BZ_RELOCATABLE] = 0;
    CHECK_EQ_INT(load(), CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "more memory"));
}

static void test_bzimage_lies(void)
{
    static const struct {
        size_t at;
        unsigned size;
        uint64_t value;
        const char *says;
    } lies[] = {
        {CCI_BZ_BOOT_FLAG, 2, 0, "neither"},
        {CCI_BZ_HEADER, 4, 0, "neither"},
        {CCI_BZ_VERSION, 2, 0x20b, "64-bit"},
        {CCI_BZ_LOADFLAGS, 1, 0, "64-bit"},
        {CCI_BZ_XLOADFLAGS, 2, 0, "64-bit"},
        {CCI_BZ_SETUP_SECTS, 1, 255, "too early"},
        {CCI_BZ_JUMP, 1, 0x20, "setup header"},
        {CCI_BZ_JUMP, 1, 0xff, NULL}, /* longer than boot_params has room for: cut */
        {CCI_BZ_INIT_SIZE, 4, 0, "too early"},
        {CCI_BZ_INIT_SIZE, 4, UINT32_MAX, "more memory"},
        {CCI_BZ_INIT_SIZE, 4, 0x1000, NULL}, /* less than the file has: the file counts */
        {CCI_BZ_PREF_ADDRESS, 8, UINT64_MAX, NULL},
        {CCI_BZ_PREF_ADDRESS, 8, 0x1000, NULL},
        {CCI_BZ_CMDLINE_SIZE, 4, UINT32_MAX, NULL},
    };
    for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        make_bz();
        for (unsigned b = 0; b < lies[i].size; b++)
            file[lies[i].at + b] = (uint8_t)(lies[i].value >> (8 * b));
        cc_error_code code = load();
        if ((code == CC_OK) != (lies[i].says == NULL))
            printf("# lie %u: %d %s\n", i, code, err.message ? err.message : "");
        CHECK_EQ_INT(code == CC_OK, lies[i].says == NULL);
        CHECK(code == CC_OK || strstr(err.message, lies[i].says));
        CHECK(code != CC_OK || kernel.cmdline_max <= CCI_BOOT_CMDLINE_MAX);
    }
    make_bz();
    cci_put_le64(file + CCI_BZ_PREF_ADDRESS, UINT64_MAX);
    cci_put_le32(file + CCI_BZ_ALIGNMENT, 3);
    CHECK_EQ_INT(load(), CC_ERR_INVALID_ARGUMENT);
    for (size_t n = 0; n < 4 * 512; n += n < 0x300 ? 1 : 100) {
        make_bz();
        file_n = n;
        CHECK(load() != CC_OK);
    }
}

/* ---- What the guest finds ---- */

static struct cci_buf acpi;

static cc_error_code finish(const struct cci_boot_initrd *initrd, const char *cmdline, struct cci_x86_start *start)
{
    const struct cci_acpi_config config = {2, true, NULL, 0};
    cci_buf_free(&acpi);
    CHECK_OK(cci_acpi_build(&acpi, &config, &err), err);
    return cci_boot_finish(&mem, &kernel, initrd, cmdline, &acpi, start, &err);
}

static void test_boot_params(void)
{
    struct cci_x86_start start;
    const struct cci_boot_initrd initrd = {0x3000000, 0x1234};
    make_bz();
    CHECK_OK(load(), err);
    CHECK_OK(finish(&initrd, "some words", &start), err);
    const uint8_t *p = ram + start.rsi;
    CHECK_EQ_INT(start.mode, CCI_X86_LONG);
    CHECK_EQ_INT(start.rip, 0x1000200);
    CHECK(memcmp(p + 0x202, "HdrS", 4) == 0);
    CHECK_EQ_INT(p[0x210], 0xff);
    CHECK_EQ_INT(cci_le32(p + 0x218), 0x3000000);
    CHECK_EQ_INT(cci_le32(p + 0x21c), 0x1234);
    CHECK_EQ_STR((const char *)ram + cci_le32(p + 0x228), "some words");
    CHECK_EQ_INT(cci_le64(p + 0x258), 0x1000000); /* the kernel's own fields came along */
    CHECK(memcmp(ram + cci_le64(p + 0x70), "RSD PTR ", 8) == 0);
    CHECK_EQ_INT(p[0x1e8], 3);
    CHECK(memcmp(ram + 0xffff0, "\xba\x02\x06\xb0\x01\xee\xf4\xeb\xfd", 9) == 0); /* writes 1 to port 0x602 */
    /* RAM below 640 KiB; the tables; RAM from 1 MiB */
    CHECK_EQ_INT(cci_le64(p + 0x2d0), 0);
    CHECK_EQ_INT(cci_le32(p + 0x2d0 + 16), 1);
    CHECK_EQ_INT(cci_le64(p + 0x2d0 + 20), 0xe0000);
    CHECK_EQ_INT(cci_le32(p + 0x2d0 + 36), 2);
    CHECK_EQ_INT(cci_le64(p + 0x2d0 + 40), 0x100000);
    CHECK_EQ_INT(cci_le64(p + 0x2d0 + 48), RAM - 0x100000);
    CHECK_EQ_INT(cci_le32(p + 0x2d0 + 56), 1);
    /* The page tables map an address to itself. */
    uint64_t va = 0xfee01234, l4 = cci_le64(ram + start.cr3), l3, l2;
    l3 = cci_le64(ram + (l4 & ~(uint64_t)0xfff) + (va >> 30) * 8);
    l2 = cci_le64(ram + (l3 & ~(uint64_t)0xfff) + (va >> 21 & 511) * 8);
    CHECK_EQ_INT(l2 & 0x83, 0x83);
    CHECK_EQ_INT(l2 & ~(uint64_t)0x1fffff, va & ~(uint64_t)0x1fffff);
}

static void test_start_info(void)
{
    struct cci_x86_start start;
    const struct cci_boot_initrd initrd = {0x3000000, 0x1234};
    make_elf();
    CHECK_OK(load(), err);
    CHECK_OK(finish(&initrd, "words", &start), err);
    const uint8_t *s = ram + start.rbx;
    CHECK_EQ_INT(start.mode, CCI_X86_PROTECTED);
    CHECK_EQ_INT(start.rip, 0x1000040);
    CHECK_EQ_INT(cci_le32(s), 0x336ec578);
    CHECK_EQ_INT(cci_le32(s + 4), 1);
    CHECK_EQ_INT(cci_le32(s + 12), 1);
    CHECK_EQ_INT(cci_le64(ram + cci_le64(s + 16)), 0x3000000);
    CHECK_EQ_INT(cci_le64(ram + cci_le64(s + 16) + 8), 0x1234);
    CHECK_EQ_STR((const char *)ram + cci_le64(s + 24), "words");
    CHECK(memcmp(ram + cci_le64(s + 32), "RSD PTR ", 8) == 0);
    CHECK_EQ_INT(cci_le32(s + 48), 3);
    CHECK_EQ_INT(cci_le64(ram + cci_le64(s + 40) + 2 * 24 + 8), RAM - 0x100000);
}

static void test_too_much(void)
{
    static char cmdline[4000];
    struct cci_x86_start start;
    struct cci_boot_initrd initrd;
    make_elf();
    CHECK_OK(load(), err);
    memset(cmdline, 'a', 2047);
    CHECK_OK(cci_boot_place_initrd(&mem, &kernel, 0, &initrd, &err), err);
    CHECK_OK(finish(&initrd, cmdline, &start), err);
    memset(cmdline, 'a', 2048);
    CHECK_EQ_INT(finish(&initrd, cmdline, &start), CC_ERR_INVALID_ARGUMENT);
    uint64_t room = RAM - 0x1801000;
    CHECK_OK(cci_boot_place_initrd(&mem, &kernel, room, &initrd, &err), err);
    CHECK_EQ_INT(initrd.gpa, 0x1801000);
    CHECK_EQ_INT(cci_boot_place_initrd(&mem, &kernel, room + 1, &initrd, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cci_boot_place_initrd(&mem, &kernel, UINT64_MAX, &initrd, &err), CC_ERR_INVALID_ARGUMENT);
    kernel.initrd_max = 0x1ffffff; /* a kernel that wants it low */
    CHECK_OK(cci_boot_place_initrd(&mem, &kernel, 0x1000, &initrd, &err), err);
    CHECK_EQ_INT(initrd.gpa, 0x1fff000);
    kernel.initrd_max = 0x1000;
    CHECK_EQ_INT(cci_boot_place_initrd(&mem, &kernel, 0x1000, &initrd, &err), CC_ERR_INVALID_ARGUMENT);
    cci_error_release(&err);
}

/* The hole below 4 GiB; the addresses are only looked at. */
static void test_layout(void)
{
    struct cci_gmem m;
    struct cci_boot_range map[CCI_BOOT_MAX_RANGES];
    uint8_t *host = (uint8_t *)(uintptr_t)0x100000000000u;
    cci_boot_layout(&m, host, (uint64_t)5 << 30);
    CHECK_EQ_INT(m.count, 2);
    CHECK_EQ_INT(m.range[0].size, (long long)3 << 30);
    CHECK_EQ_INT(m.range[1].gpa, (long long)4 << 30);
    CHECK_EQ_INT(m.range[1].size, (long long)2 << 30);
    CHECK_EQ_INT(cci_boot_map(&m, map), 4);
    CHECK(cci_gmem_at(&m, ((uint64_t)3 << 30) - 8, 8) == host + ((uint64_t)3 << 30) - 8);
    CHECK(!cci_gmem_at(&m, ((uint64_t)3 << 30) - 8, 9));
    CHECK(!cci_gmem_at(&m, CCI_BUS_MMIO_BASE, 1));
    CHECK(cci_gmem_at(&m, (uint64_t)4 << 30, 1) == host + ((uint64_t)3 << 30));
    CHECK(!cci_gmem_at(&m, (uint64_t)6 << 30, 1));
    cci_boot_layout(&m, host, (uint64_t)3 << 30);
    CHECK_EQ_INT(m.count, 1);
}

int main(void)
{
    RUN(test_elf);
    RUN(test_elf_is_no_program);
    RUN(test_elf_overlaps);
    RUN(test_elf_lies);
    RUN(test_bzimage);
    RUN(test_bzimage_lies);
    RUN(test_boot_params);
    RUN(test_start_info);
    RUN(test_too_much);
    RUN(test_layout);
    cci_buf_free(&acpi);
    cci_error_release(&err);
    (void)munmap(ram, RAM + 4096);
    return check_done();
}
