/*
 * machine/cpio.h - an initrd put together from pieces: archives as they are, and a cpio of files made on the way.
 *
 * The kernel unpacks any number of archives that follow one another (Documentation/driver-api/early-userspace/
 * buffer-format.rst), each beginning at a multiple of four bytes. The format of the files is cpio "newc": a header of
 * 110 characters (magic "070701", thirteen numbers of eight hex digits), the name with its NUL, padding to four, the
 * contents, padding to four; an entry named TRAILER!!! ends an archive.
 *
 * Pieces are only listed until the place in the guest's RAM is known; then each is written there once: bytes are
 * copied, files are read straight to their place.
 */
#ifndef CCI_MACHINE_CPIO_H
#define CCI_MACHINE_CPIO_H

#include "../base/errno_text.h"
#include "../base/error.h"
#include "../base/os.h"

#define CCI_CPIO_HEADER 110u
#define CCI_CPIO_MAX_FILE 0x7fffffffu

struct cci_initrd_piece {
    const uint8_t *bytes; /* somebody else's, until the initrd is written; or NULL */
    cci_fd fd;            /* a file, read from its start; owned; or CCI_NO_FD */
    size_t text;          /* neither: offset in the initrd's own text */
    size_t n;             /* bytes */
};

struct cci_initrd {
    struct cci_initrd_piece *piece;
    size_t count;
    struct cci_buf text; /* headers, names, padding, small files */
    uint64_t size;       /* of all pieces */
    uint32_t inode;      /* of the last file: each has its own, or the kernel takes them for links */
};

static void cci_initrd_free(struct cci_initrd *r)
{
    for (size_t i = 0; i < r->count; i++)
        cci_os_close(r->piece[i].fd);
    cci_mem_free(r->piece);
    cci_buf_free(&r->text);
    memset(r, 0, sizeof(*r));
}

static struct cci_initrd_piece *cci_initrd_piece(struct cci_initrd *r, size_t n)
{
    struct cci_initrd_piece *p = cci_mem_resize(r->piece, r->count + 1, sizeof(*p));
    if (!p)
        return NULL;
    r->piece = p;
    p += r->count++;
    p->bytes = NULL;
    p->fd = CCI_NO_FD;
    p->text = 0;
    p->n = n;
    r->size += n;
    return p;
}

/* Appends bytes that are copied now; `data` NULL appends zeroes. */
static bool cci_initrd_text(struct cci_initrd *r, const void *data, size_t n)
{
    size_t at = r->text.n;
    struct cci_initrd_piece *last = r->count ? &r->piece[r->count - 1] : NULL;
    if (!cci_buf_add(&r->text, data, n))
        return false;
    if (last && !last->bytes && last->fd == CCI_NO_FD && last->text + last->n == at) {
        last->n += n;
        r->size += n;
        return true;
    }
    struct cci_initrd_piece *p = cci_initrd_piece(r, n);
    if (p)
        p->text = at;
    return p != NULL;
}

static bool cci_initrd_pad(struct cci_initrd *r)
{
    return r->size % 4 == 0 || cci_initrd_text(r, NULL, (size_t)(4 - r->size % 4));
}

/* Appends a whole archive (cpio, compressed or not), which has to stay where it is until the initrd is written. */
static bool cci_initrd_add(struct cci_initrd *r, const void *archive, size_t n)
{
    if (n == 0)
        return true;
    if (!cci_initrd_pad(r))
        return false;
    struct cci_initrd_piece *p = cci_initrd_piece(r, n);
    if (p)
        p->bytes = archive;
    return p != NULL;
}

static bool cci_cpio_header(struct cci_initrd *r, const char *name, unsigned mode, size_t n)
{
    char head[CCI_CPIO_HEADER + 1];
    size_t name_n = strlen(name) + 1;
    if (n > CCI_CPIO_MAX_FILE || name_n > 4096)
        return false;
    /* magic, inode, mode, uid, gid, links, mtime, size, device (2), node's device (2), name size, checksum */
    (void)snprintf(head, sizeof(head), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ++r->inode, mode,
                   0u, 0u, 1u, 0u, (unsigned)n, 0u, 0u, 0u, 0u, (unsigned)name_n, 0u);
    return cci_initrd_pad(r) && cci_initrd_text(r, head, CCI_CPIO_HEADER) && cci_initrd_text(r, name, name_n) &&
           cci_initrd_pad(r);
}

static bool cci_cpio_dir(struct cci_initrd *r, const char *name)
{
    return cci_cpio_header(r, name, 040755, 0);
}

/* A file whose contents are copied now. */
static bool cci_cpio_bytes(struct cci_initrd *r, const char *name, const void *data, size_t n)
{
    return cci_cpio_header(r, name, 0100644, n) && cci_initrd_text(r, data, n);
}

/* A file whose first n bytes are read when the initrd is written. Takes over the descriptor, also on failure. */
static bool cci_cpio_file(struct cci_initrd *r, const char *name, cci_fd fd, size_t n)
{
    struct cci_initrd_piece *p = cci_cpio_header(r, name, 0100644, n) ? cci_initrd_piece(r, n) : NULL;
    if (p)
        p->fd = fd;
    else
        cci_os_close(fd);
    return p != NULL;
}

static bool cci_cpio_end(struct cci_initrd *r)
{
    r->inode = UINT32_MAX; /* wraps to 0, the trailer's */
    return cci_cpio_header(r, "TRAILER!!!", 0, 0);
}

/* Writes all pieces to `dest`, which has room for r->size bytes. */
static cc_error_code cci_initrd_write(const struct cci_initrd *r, uint8_t *dest, cc_error *err)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct cci_initrd_piece *p = &r->piece[i];
        if (p->fd != CCI_NO_FD) {
            int64_t got = cci_os_pread_all(p->fd, dest, p->n, 0);
            if (got != (int64_t)p->n)
                return cci_fail_errno(err, CC_ERR_IO, got < 0 ? (int)-got : 0, NULL,
                                      "cannot read a file for the initrd: %s",
                                      got < 0 ? cci_errno_text((int)-got) : "it has become shorter");
        } else if (p->n) {
            memcpy(dest, p->bytes ? p->bytes : r->text.p + p->text, p->n);
        }
        dest += p->n;
    }
    return CC_OK;
}

#endif
