/*
 * image/tar_header.h - the header block of a tar entry.
 *
 * Fields of a block, offset and size: name 0 100 · mode 100 8 · uid 108 8 · gid 116 8 · size 124 12 · mtime 136 12 ·
 * checksum 148 8 · type 156 1 · link name 157 100 · magic 257 6 · version 263 2 · user and group name 265 32 each ·
 * device major 329 8, minor 337 8. What follows differs: "ustar\0" has a name prefix 345 155 (131 when the block ends
 * in "tar\0", Schilling's star); GNU ("ustar  \0") has atime 345 12, ctime 357 12, four regions of a sparse file
 * 386 96, whether more follow 482 1, and its real size 483 12. Without magic (Version 7), nothing follows the link
 * name.
 */
#ifndef CCI_IMAGE_TAR_HEADER_H
#define CCI_IMAGE_TAR_HEADER_H

#include "tar_pax.h"

enum cci_tar_type {
    CCI_TAR_FILE,
    CCI_TAR_DIR,
    CCI_TAR_SYMLINK,
    CCI_TAR_HARDLINK, /* `link` is the path of an entry before */
    CCI_TAR_CHARDEV,
    CCI_TAR_BLOCKDEV,
    CCI_TAR_FIFO,
};

/* What an archive says of one file. Views point into the reader and last until the next call to it. */
struct cci_tar_entry {
    enum cci_tar_type type;
    struct cci_view path; /* as it is in the archive: any bytes but NUL, at least one; slashes are not cleaned */
    struct cci_view link; /* target of a symbolic or hard link, at least one byte */
    uint16_t mode;        /* permission bits, 07777 */
    uint32_t uid, gid;
    uint64_t size;   /* bytes in the file, holes included; 0 unless it is a file */
    uint64_t stored; /* bytes that data() will get */
    struct cci_tar_time mtime;
    bool has_atime, has_ctime;
    struct cci_tar_time atime, ctime;
    uint32_t major, minor;              /* of a device: at most 12 and 20 bits, as in Linux */
    const struct cci_tar_xattr *xattrs; /* no name twice */
    size_t nxattrs;
    bool sparse;                          /* only the regions are stored, the rest are holes */
    const struct cci_tar_region *regions; /* in order, not overlapping, inside the size */
    size_t nregions;
};

enum cci_tar_magic { CCI_TAR_V7, CCI_TAR_USTAR, CCI_TAR_STAR, CCI_TAR_GNU };

static enum cci_tar_magic cci_tar_magic(const uint8_t block[512])
{
    if (memcmp(block + 257, "ustar  ", 8) == 0)
        return CCI_TAR_GNU;
    if (memcmp(block + 257, "ustar", 6) != 0)
        return CCI_TAR_V7;
    return memcmp(block + 508, "tar", 4) == 0 ? CCI_TAR_STAR : CCI_TAR_USTAR;
}

/* Times that GNU headers may have. False: they are no numbers. */
static bool cci_tar_gnu_times(struct cci_tar_entry *e, const uint8_t block[512])
{
    bool good = true;
    e->has_atime = block[345] != 0;
    e->has_ctime = block[357] != 0;
    if (e->has_atime)
        good &= cci_tar_number(block + 345, 12, &e->atime.sec);
    if (e->has_ctime)
        good &= cci_tar_number(block + 357, 12, &e->ctime.sec);
    if (!good) {
        e->has_atime = false;
        e->has_ctime = false;
    }
    return good;
}

/*
 * The path of an entry, joined in `room` (256 bytes) if it has a prefix. Archives by Go before 1.9 have a prefix in
 * GNU headers also: taken as one where there should be times and is text.
 */
static struct cci_view cci_tar_header_path(struct cci_tar_entry *e, const uint8_t block[512], uint8_t *room)
{
    struct cci_view name = cci_tar_string(block, 100), prefix = {NULL, 0};
    switch (cci_tar_magic(block)) {
    case CCI_TAR_V7:
        break;
    case CCI_TAR_USTAR:
        prefix = cci_tar_string(block + 345, 155);
        break;
    case CCI_TAR_STAR:
        prefix = cci_tar_string(block + 345, 131);
        break;
    case CCI_TAR_GNU:
        if (!cci_tar_gnu_times(e, block))
            prefix = cci_tar_string(block + 345, 155);
        for (size_t i = 0; i < prefix.n; i++)
            if (prefix.p[i] >= 128)
                prefix.n = 0;
        break;
    }
    if (prefix.n > 0) {
        memcpy(room, prefix.p, prefix.n);
        room[prefix.n] = '/';
        memcpy(room + prefix.n + 1, name.p, name.n);
        name.p = room;
        name.n += prefix.n + 1;
    }
    return name;
}

static const char *cci_tar_header_device(struct cci_tar_entry *e, const uint8_t block[512])
{
    int64_t major = 0, minor = 0;
    if (cci_tar_magic(block) != CCI_TAR_V7 &&
        (!cci_tar_number(block + 329, 8, &major) || !cci_tar_number(block + 337, 8, &minor)))
        return "invalid device number";
    if (major < 0 || minor < 0 || major > 0xfff || minor > 0xfffff)
        return "device number too large";
    e->major = (uint32_t)major;
    e->minor = (uint32_t)minor;
    return NULL;
}

/* The type of an entry that stands for a file; false for all others. */
static bool cci_tar_header_type(char flag, enum cci_tar_type *type)
{
    static const char flags[] = "0\0"
                                "7"
                                "S1"
                                "2"
                                "3"
                                "4"
                                "5"
                                "D"
                                "6";
    static const uint8_t types[] = {CCI_TAR_FILE,     CCI_TAR_FILE,    CCI_TAR_FILE,    CCI_TAR_FILE,
                                    CCI_TAR_HARDLINK, CCI_TAR_SYMLINK, CCI_TAR_CHARDEV, CCI_TAR_BLOCKDEV,
                                    CCI_TAR_DIR,      CCI_TAR_DIR,     CCI_TAR_FIFO};
    for (size_t i = 0; i < sizeof(types); i++) {
        if (flags[i] == flag) {
            *type = (enum cci_tar_type)types[i];
            return true;
        }
    }
    return false;
}

/* Owner, mode and time, where the extended headers (x) do not say. */
static const char *cci_tar_header_attributes(struct cci_tar_entry *e, const uint8_t block[512], const struct cci_pax *x)
{
    int64_t mode, uid = 0, gid = 0;
    if (!cci_tar_number(block + 100, 8, &mode))
        return "invalid mode";
    e->mode = (uint16_t)(mode & 07777);
    if (!(x->set & CCI_PAX_UID) && !cci_tar_number(block + 108, 8, &uid))
        return "invalid user id";
    if (!(x->set & CCI_PAX_GID) && !cci_tar_number(block + 116, 8, &gid))
        return "invalid group id";
    if (x->set & CCI_PAX_UID)
        uid = (int64_t)x->uid;
    if (x->set & CCI_PAX_GID)
        gid = (int64_t)x->gid;
    if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX)
        return "user or group id out of range";
    e->uid = (uint32_t)uid;
    e->gid = (uint32_t)gid;
    if (x->set & CCI_PAX_MTIME)
        e->mtime = x->mtime;
    else if (!cci_tar_number(block + 136, 12, &e->mtime.sec))
        return "invalid modification time";
    return NULL;
}

/*
 * Fill *e from a header block and the extended headers before it, apart from sparse files. `stored` is what the size
 * field says, whatever the type; `room` has 256 bytes for the path. NULL or what is wrong.
 */
static const char *cci_tar_header(struct cci_tar_entry *e, const uint8_t block[512], const struct cci_pax *x,
                                  uint64_t stored, uint8_t *room)
{
    e->path = cci_tar_header_path(e, block, room);
    if (x->set & CCI_PAX_PATH)
        e->path = x->path;
    e->link = x->set & CCI_PAX_LINK ? x->link : cci_tar_string(block + 157, 100);
    const char *wrong = cci_tar_header_attributes(e, block, x);
    if (!wrong && (e->type == CCI_TAR_CHARDEV || e->type == CCI_TAR_BLOCKDEV))
        wrong = cci_tar_header_device(e, block);
    if (wrong)
        return wrong;
    if (x->set & CCI_PAX_ATIME) {
        e->has_atime = true;
        e->atime = x->atime;
    }
    if (x->set & CCI_PAX_CTIME) {
        e->has_ctime = true;
        e->ctime = x->ctime;
    }
    e->xattrs = x->xattrs;
    e->nxattrs = x->nxattrs;
    if (e->type == CCI_TAR_FILE) {
        e->size = stored;
        e->stored = stored;
    }
    return NULL;
}

#endif
