/*
 * machine/bzimage.h - loading a compressed kernel (vmlinuz) by Linux's 64-bit boot protocol.
 *
 * Follows Documentation/x86/boot.rst of the kernel's source ("The Linux/x86 Boot Protocol", 2.12 and later). The file
 * is the real-mode setup code, which is skipped, with the setup header in it, and the protected-mode code, which is
 * read straight into the guest's RAM and decompresses itself. The 64-bit entry point is 0x200 behind its start. A
 * relocatable kernel whose preferred address leaves too little room is put lower.
 *
 * The setup header goes back to the kernel inside its boot_params (see boot_x86.h). The file is not trusted.
 */
#ifndef CCI_MACHINE_BZIMAGE_H
#define CCI_MACHINE_BZIMAGE_H

#include "elf.h"

/* Offsets in the file, and in boot_params: they are the same. */
enum {
    CCI_BZ_SETUP_SECTS = 0x1f1,
    CCI_BZ_BOOT_FLAG = 0x1fe,
    CCI_BZ_JUMP = 0x201, /* the header ends this many bytes behind 0x202 */
    CCI_BZ_HEADER = 0x202,
    CCI_BZ_VERSION = 0x206,
    CCI_BZ_LOADER = 0x210,
    CCI_BZ_LOADFLAGS = 0x211,
    CCI_BZ_RAMDISK_IMAGE = 0x218,
    CCI_BZ_RAMDISK_SIZE = 0x21c,
    CCI_BZ_CMDLINE = 0x228,
    CCI_BZ_INITRD_MAX = 0x22c,
    CCI_BZ_ALIGNMENT = 0x230,
    CCI_BZ_RELOCATABLE = 0x234,
    CCI_BZ_XLOADFLAGS = 0x236,
    CCI_BZ_CMDLINE_SIZE = 0x238,
    CCI_BZ_PREF_ADDRESS = 0x258,
    CCI_BZ_INIT_SIZE = 0x260,
    CCI_BZ_HEADER_END = 0x268, /* of what is used here */
    CCI_BZ_HEADER_MAX = 0x290  /* boot_params has no room for more */
};

struct cci_bzimage {
    uint8_t header[CCI_BZ_HEADER_MAX]; /* from CCI_BZ_SETUP_SECTS on, at its own offset; the rest is 0 */
    uint64_t entry;                    /* 64-bit */
    uint64_t end;                      /* first byte behind what it needs to decompress itself */
    uint64_t initrd_max;               /* highest address of an initrd */
    unsigned cmdline_max;              /* bytes of command line without the NUL */
};

/* Where to load it: the preferred address, else the lowest. 0 when nothing fits. */
static uint64_t cci_bzimage_place(const uint8_t *h, const struct cci_gmem *mem)
{
    uint64_t pref = cci_le64(h + CCI_BZ_PREF_ADDRESS), need = cci_le32(h + CCI_BZ_INIT_SIZE);
    if (pref >= CCI_ELF_LOWEST && cci_gmem_at(mem, pref, need))
        return pref;
    uint64_t align = cci_le32(h + CCI_BZ_ALIGNMENT);
    if (!h[CCI_BZ_RELOCATABLE] || align == 0 || (align & (align - 1)))
        return 0;
    uint64_t low = CCI_ALIGN_UP((uint64_t)CCI_ELF_LOWEST, align);
    return cci_gmem_at(mem, low, need) ? low : 0;
}

static cc_error_code cci_bzimage_check(const uint8_t *h, const char *path, cc_error *err)
{
    if (cci_le16(h + CCI_BZ_BOOT_FLAG) != 0xaa55 || memcmp(h + CCI_BZ_HEADER, "HdrS", 4) != 0)
        return cci_elf_bad(path, "it is neither an ELF file nor a bzImage", err);
    if (cci_le16(h + CCI_BZ_VERSION) < 0x20c || !(h[CCI_BZ_LOADFLAGS] & 1) || !(h[CCI_BZ_XLOADFLAGS] & 1))
        return cci_fail(err, CC_ERR_IO, path,
                        "the guest kernel cannot be entered in 64-bit mode: it has to be an x86-64 bzImage of Linux "
                        "3.8 or later");
    return CC_OK;
}

/* Loads the kernel in fd. The file's size bounds what is read. */
static cc_error_code cci_bzimage_load(cci_fd fd, const char *path, const struct cci_gmem *mem, struct cci_bzimage *out,
                                      cc_error *err)
{
    uint8_t h[CCI_BZ_HEADER_MAX];
    struct cci_os_stat st;
    memset(out, 0, sizeof(*out));
    memset(&st, 0, sizeof(st));
    int r = cci_os_fstat(fd, &st);
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, -r, path, "cannot read the guest kernel: %s", cci_errno_text(-r));
    cc_error_code code = cci_elf_read(fd, h, sizeof(h), 0, path, err);
    if (code == CC_OK)
        code = cci_bzimage_check(h, path, err);
    if (code != CC_OK)
        return code;

    uint64_t setup = ((uint64_t)(h[CCI_BZ_SETUP_SECTS] ? h[CCI_BZ_SETUP_SECTS] : 4) + 1) * 512;
    uint64_t init = cci_le32(h + CCI_BZ_INIT_SIZE);
    if (st.size <= setup || init < 0x1000)
        return cci_elf_bad(path, "the file ends too early", err);
    uint64_t size = st.size - setup, load = cci_bzimage_place(h, mem);
    uint64_t need = CCI_MAX(init, size);
    uint8_t *host = load ? cci_gmem_at(mem, load, need) : NULL;
    if (!host)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, path,
                        "the guest kernel does not fit into the guest's memory (it needs %llu MiB to unpack itself): "
                        "give the instance more memory",
                        (unsigned long long)(need >> 20) + 17);
    code = cci_elf_read(fd, host, (size_t)size, setup, path, err);
    if (code != CC_OK)
        return code;

    size_t end = CCI_MIN((size_t)CCI_BZ_HEADER + h[CCI_BZ_JUMP], (size_t)CCI_BZ_HEADER_MAX);
    if (end < CCI_BZ_HEADER_END)
        return cci_elf_bad(path, "its setup header is too short", err);
    memcpy(out->header + CCI_BZ_SETUP_SECTS, h + CCI_BZ_SETUP_SECTS, end - CCI_BZ_SETUP_SECTS);
    out->entry = load + 0x200;
    out->end = load + need;
    out->initrd_max = cci_le32(h + CCI_BZ_INITRD_MAX);
    out->cmdline_max = cci_le32(h + CCI_BZ_CMDLINE_SIZE);
    return CC_OK;
}

#endif
