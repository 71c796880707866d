/* TEMPORARY, lead's integration shim: helper HV replaces this file. */
#ifndef CCI_MACHINE_KERNEL_H
#define CCI_MACHINE_KERNEL_H
#include "cpio.h"
struct cci_kernel { char *path; cci_fd fd; };
static cc_error_code cci_kernel_open(struct cci_kernel *k, const char *opt, const char *cache, cc_error *err)
{
    (void)cache;
    const char *p = opt ? opt : getenv("CC_KERNEL");
    k->path = cci_mem_printf("%s/vmlinux", p ? p : "");
    k->fd = cci_os_open(k->path, CCI_OS_RDONLY, 0);
    if (k->fd < 0) return cci_fail(err, CC_ERR_IO, k->path, "no kernel");
    return CC_OK;
}
static cc_error_code cci_kernel_add_modules(struct cci_kernel *k, struct cci_initrd *r, cc_error *err) { (void)k; (void)r; (void)err; return CC_OK; }
static const char *cci_kernel_cmdline(struct cci_kernel *k, bool dmesg) { (void)k; return dmesg ? "console=ttyS0 panic=-1 reboot=t pci=off cc.root=/dev/vda cc.scratch=/dev/vdb" : "console=ttyS0 quiet panic=-1 reboot=t pci=off cc.root=/dev/vda cc.scratch=/dev/vdb"; }
static void cci_kernel_close(struct cci_kernel *k) { cci_mem_free(k->path); cci_os_close(k->fd); }
#endif
