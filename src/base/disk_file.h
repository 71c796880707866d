/*
 * base/disk_file.h - a caller's file, or block device, as a disk.
 *
 * It is taken byte for byte: what format its contents have is the guest's business and never looked at, so no contents
 * can make the host open another file.
 *
 * A disk that somebody writes to has one user. That is seen to as QEMU does it, so that a disk in use by either is left
 * alone by the other (qemu's docs, "disk image file locking"): locks of the open file, shared ones, on single bytes
 * that stand for what one does with the disk (from 100 on) and what one does not want others to do (from 200 on).
 * Having taken our own, we look whether anybody else's contradict them. A filesystem that knows no such locks has none.
 */
#ifndef CCI_BASE_DISK_FILE_H
#define CCI_BASE_DISK_FILE_H

#include "disk.h"
#include "errno_text.h"
#include "error.h"

#define CCI_DISK_DOES 100     /* + one of these */
#define CCI_DISK_UNWANTED 200 /* + one of these */

enum { CCI_DISK_READS = 0, CCI_DISK_WRITES = 1, CCI_DISK_RESIZES = 3 };

static bool cci_disk_lock_of(cci_fd fd, int64_t base, unsigned what, bool *busy)
{
    int r = cci_os_lock_byte(fd, base + what);
    *busy |= r == -EAGAIN || r == -EACCES;
    return r == 0;
}

/* Whether the disk may be used in this way. The locks go with the descriptor. */
static bool cci_disk_lock(cci_fd fd, bool writable)
{
    bool busy = false;
    bool known = cci_disk_lock_of(fd, CCI_DISK_DOES, CCI_DISK_READS, &busy) &&
                 (!writable || cci_disk_lock_of(fd, CCI_DISK_DOES, CCI_DISK_WRITES, &busy)) &&
                 cci_disk_lock_of(fd, CCI_DISK_UNWANTED, CCI_DISK_WRITES, &busy) &&
                 cci_disk_lock_of(fd, CCI_DISK_UNWANTED, CCI_DISK_RESIZES, &busy);
    if (!known)
        return !busy;
    return !cci_os_byte_is_locked(fd, CCI_DISK_UNWANTED + CCI_DISK_READS) &&
           !(writable && cci_os_byte_is_locked(fd, CCI_DISK_UNWANTED + CCI_DISK_WRITES)) &&
           !cci_os_byte_is_locked(fd, CCI_DISK_DOES + CCI_DISK_WRITES) &&
           !cci_os_byte_is_locked(fd, CCI_DISK_DOES + CCI_DISK_RESIZES);
}

/* The size of what can be a disk. */
static cc_error_code cci_disk_measure(cci_fd fd, const char *path, uint64_t *size, cc_error *err)
{
    struct cci_os_stat st;
    int r = cci_os_fstat(fd, &st);
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, -r, path, "%s", cci_errno_text(-r));
    *size = st.size;
    if (st.kind != CCI_OS_FILE && cci_os_block_size(fd, size) < 0)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, path, "a disk has to be a file or a block device");
    if (*size == 0 || *size % 512)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, path,
                        "a disk's size has to be a multiple of 512 bytes and more than none, and is %llu",
                        (unsigned long long)*size);
    return CC_OK;
}

/* Opens a zeroed disk. */
static cc_error_code cci_disk_open_file(const char *path, bool writable, struct cci_disk *out, cc_error *err)
{
    uint64_t size;
    /* NONBLOCK: a FIFO would have us wait for its other end; for files and disks it means nothing. */
    cci_fd fd = cci_os_open(path, (writable ? CCI_OS_RDWR : CCI_OS_RDONLY) | CCI_OS_NONBLOCK, 0);
    if (fd < 0)
        return cci_fail_errno(err, CC_ERR_IO, -fd, path, "cannot open the disk%s: %s", writable ? " for writing" : "",
                              cci_errno_text(-fd));
    cc_error_code code = cci_disk_measure(fd, path, &size, err);
    if (code == CC_OK && !cci_disk_lock(fd, writable))
        code =
            cci_fail_errno(err, CC_ERR_IO, EBUSY, path,
                           "the disk is in use by another virtual machine; only one may write to it, or several read");
    if (code) {
        cci_os_close(fd);
        return code;
    }
    out->writable = writable;
    return cci_disk_add(out, fd, 0, size) ? CC_OK : cci_fail_nomem(err);
}

#endif
