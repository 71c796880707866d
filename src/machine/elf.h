/*
 * machine/elf.h - loading an uncompressed kernel: a 64-bit ELF file (vmlinux).
 *
 * The file header and the program headers are read and checked; each PT_LOAD segment is then read from the file
 * straight to its physical address in the guest's RAM, in one pread and with no copy between. What a segment has in
 * memory beyond the file is zero already, because the RAM is fresh.
 *
 * A kernel that can be entered without firmware says so in a note (PT_NOTE, name "Xen", type XEN_ELFNOTE_PHYS32_ENTRY,
 * 18): its value is the 32-bit entry point of the PVH boot ABI (Xen's docs/misc/pvh.pandoc). Without that note the
 * file's own entry point is used, with Linux's 64-bit boot protocol. That has to be a Linux kernel, then, and not some
 * program: its entry (a physical address) lies in a segment that is linked to the kernel's half of the address space,
 * which no program has.
 *
 * The file is not trusted: every offset, count and address is checked against the file and the RAM, and no more is
 * read than the RAM holds.
 */
#ifndef CCI_MACHINE_ELF_H
#define CCI_MACHINE_ELF_H

#include "../base/errno_text.h"
#include "../base/error.h"
#include "../base/os.h"
#include "../hv/mem.h"

#define CCI_ELF_HEADER 64u
#define CCI_ELF_PHDR 56u
#define CCI_ELF_MAX_PHDRS 64u
#define CCI_ELF_MAX_NOTES 65536u
#define CCI_ELF_PT_LOAD 1u
#define CCI_ELF_PT_NOTE 4u
#define CCI_ELF_NOTE_PVH 18u
#define CCI_ELF_LOWEST 0x100000u /* below lie the boot data and the ACPI tables */

struct cci_elf {
    uint64_t entry; /* physical */
    uint64_t end;   /* first byte behind what was loaded, zeroed parts included */
    uint64_t read;  /* bytes of all segments so far */
    bool pvh;       /* entry is a PVH entry point */
};

static cc_error_code cci_elf_bad(const char *path, const char *what, cc_error *err)
{
    return cci_fail(err, CC_ERR_IO, path, "the guest kernel is damaged or not a kernel: %s", what);
}

/* Reads exactly n bytes. */
static cc_error_code cci_elf_read(cci_fd fd, void *buf, size_t n, uint64_t offset, const char *path, cc_error *err)
{
    int64_t got = offset <= INT64_MAX - n ? cci_os_pread_all(fd, buf, n, offset) : 0;
    if (got < 0)
        return cci_fail_errno(err, CC_ERR_IO, (int)-got, path, "cannot read the guest kernel: %s",
                              cci_errno_text((int)-got));
    return (size_t)got == n ? CC_OK : cci_elf_bad(path, "the file ends too early", err);
}

static cc_error_code cci_elf_load_segment(cci_fd fd, const uint8_t *ph, const struct cci_gmem *mem, struct cci_elf *out,
                                          const char *path, cc_error *err)
{
    uint64_t offset = cci_le64(ph + 8), paddr = cci_le64(ph + 24), filesz = cci_le64(ph + 32);
    uint64_t memsz = cci_le64(ph + 40);
    if (memsz == 0)
        return CC_OK;
    if (filesz > memsz || paddr < CCI_ELF_LOWEST)
        return cci_elf_bad(path, "a segment of the ELF file makes no sense", err);
    uint8_t *host = cci_gmem_at(mem, paddr, memsz);
    if (!host)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, path,
                        "the guest kernel does not fit into the guest's memory (it wants %#llx to %#llx): give the "
                        "instance more memory",
                        (unsigned long long)paddr, (unsigned long long)(paddr + memsz));
    out->end = CCI_MAX(out->end, paddr + memsz);
    out->read += filesz;
    if (out->read > mem->range[0].size + (mem->count > 1 ? mem->range[1].size : 0))
        return cci_elf_bad(path, "the segments of the ELF file lie over each other", err);
    return filesz ? cci_elf_read(fd, host, (size_t)filesz, offset, path, err) : CC_OK;
}

/* Looks through one PT_NOTE segment (ELF-64, "Note Section"): name size, value size, type, name, value, both padded
 * to 4 bytes. */
static bool cci_elf_find_pvh(struct cci_view notes, uint64_t *entry)
{
    uint32_t name_n, value_n, type;
    while (cci_view_u32(&notes, &name_n) && cci_view_u32(&notes, &value_n) && cci_view_u32(&notes, &type)) {
        const uint8_t *name = cci_view_take(&notes, CCI_ALIGN_UP((size_t)name_n, (size_t)4));
        const uint8_t *value = name ? cci_view_take(&notes, CCI_ALIGN_UP((size_t)value_n, (size_t)4)) : NULL;
        if (!value)
            return false;
        if (type == CCI_ELF_NOTE_PVH && name_n == 4 && memcmp(name, "Xen", 4) == 0 && (value_n == 4 || value_n == 8)) {
            *entry = value_n == 4 ? cci_le32(value) : cci_le64(value);
            return true;
        }
    }
    return false;
}

static cc_error_code cci_elf_load_notes(cci_fd fd, const uint8_t *ph, struct cci_elf *out, const char *path,
                                        cc_error *err)
{
    uint64_t size = cci_le64(ph + 32), entry;
    if (out->pvh || size == 0 || size > CCI_ELF_MAX_NOTES)
        return CC_OK;
    uint8_t *notes = cci_mem_alloc((size_t)size);
    if (!notes)
        return cci_fail_nomem(err);
    cc_error_code code = cci_elf_read(fd, notes, (size_t)size, cci_le64(ph + 8), path, err);
    if (code == CC_OK && cci_elf_find_pvh((struct cci_view){notes, (size_t)size}, &entry)) {
        out->pvh = true;
        out->entry = entry;
    }
    cci_mem_free(notes);
    return code;
}

/* Whether the file's own entry point is that of a Linux kernel. */
static bool cci_elf_is_linux(const uint8_t *ph, unsigned count, uint64_t entry)
{
    for (unsigned i = 0; i < count; i++, ph += CCI_ELF_PHDR) {
        uint64_t vaddr = cci_le64(ph + 16), paddr = cci_le64(ph + 24);
        if (cci_le32(ph) == CCI_ELF_PT_LOAD && entry >= paddr && entry - paddr < cci_le64(ph + 40))
            return vaddr >> 63;
    }
    return false;
}

/* Loads the kernel in fd, whose first bytes are the ELF magic. `path` is for messages. */
static cc_error_code cci_elf_load(cci_fd fd, const char *path, const struct cci_gmem *mem, struct cci_elf *out,
                                  cc_error *err)
{
    uint8_t h[CCI_ELF_HEADER], ph[CCI_ELF_MAX_PHDRS * CCI_ELF_PHDR];
    memset(out, 0, sizeof(*out));
    cc_error_code code = cci_elf_read(fd, h, sizeof(h), 0, path, err);
    if (code != CC_OK)
        return code;
    unsigned count = cci_le16(h + 56);
    if (h[4] != 2 || h[5] != 1 || cci_le16(h + 18) != 62)
        return cci_elf_bad(path, "it is an ELF file, but not for 64-bit x86", err);
    if (cci_le16(h + 54) != CCI_ELF_PHDR || count == 0 || count > CCI_ELF_MAX_PHDRS)
        return cci_elf_bad(path, "the ELF program headers make no sense", err);
    code = cci_elf_read(fd, ph, (size_t)count * CCI_ELF_PHDR, cci_le64(h + 32), path, err);
    out->entry = cci_le64(h + 24);
    for (unsigned i = 0; i < count && code == CC_OK; i++) {
        const uint8_t *p = ph + i * CCI_ELF_PHDR;
        if (cci_le32(p) == CCI_ELF_PT_LOAD)
            code = cci_elf_load_segment(fd, p, mem, out, path, err);
        else if (cci_le32(p) == CCI_ELF_PT_NOTE)
            code = cci_elf_load_notes(fd, p, out, path, err);
    }
    if (code == CC_OK && !out->pvh && !cci_elf_is_linux(ph, count, out->entry))
        code = cci_fail(err, CC_ERR_IO, path,
                        "this ELF file is a program and not a kernel: it has no PVH entry point, and the address at "
                        "which it starts is not one of a Linux kernel (vmlinux)");
    if (code == CC_OK &&
        (out->entry < CCI_ELF_LOWEST || out->entry >= out->end || (out->pvh && out->entry > UINT32_MAX)))
        code = cci_elf_bad(path, "its entry point lies outside of what it loads", err);
    return code;
}

#endif
