/*
 * base/disk.h - a disk as the image room hands it to a block device: file segments in a row.
 *
 * A read-only disk is [metadata][layer 1 data][layer 2 data]..., each a range of some file in the store; a writable
 * disk is one range of one file. Segments follow one another without gaps; each length is a multiple of 512, and the
 * part of a segment behind its file's end reads as an I/O error, never as other data. Files are read with preadv
 * and never mapped, so a file that somebody truncates is an I/O error in the guest and not a fault in the caller.
 */
#ifndef CCI_BASE_DISK_H
#define CCI_BASE_DISK_H

#include "mem.h"
#include "os.h"

struct cci_disk_segment {
    cci_fd fd;
    uint64_t file_offset;
    uint64_t start;  /* where the segment begins on the disk */
    uint64_t length; /* bytes */
};

struct cci_disk {
    struct cci_disk_segment *segments; /* by start; owned, with their descriptors */
    size_t count;
    uint64_t size; /* bytes, the sum of the lengths */
    bool writable; /* then count is 1 */
};

/* Appends a segment; the disk takes over the descriptor, also on failure. Returns false when there is no memory. */
static bool cci_disk_add(struct cci_disk *d, cci_fd fd, uint64_t file_offset, uint64_t length)
{
    struct cci_disk_segment *s = cci_mem_resize(d->segments, d->count + 1, sizeof(*s));
    if (!s) {
        cci_os_close(fd);
        return false;
    }
    d->segments = s;
    s[d->count].fd = fd;
    s[d->count].file_offset = file_offset;
    s[d->count].start = d->size;
    s[d->count].length = length;
    d->count++;
    d->size += length;
    return true;
}

static void cci_disk_free(struct cci_disk *d)
{
    for (size_t i = 0; i < d->count; i++)
        cci_os_close(d->segments[i].fd);
    cci_mem_free(d->segments);
    memset(d, 0, sizeof(*d));
}

#endif
