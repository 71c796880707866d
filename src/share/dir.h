/*
 * share/dir.h - open directories: OPENDIR, READDIR, READDIRPLUS.
 *
 * Entries go from the kernel's records straight into the reply. The position behind each entry is the host's own, which
 * stays valid while the directory changes; the guest gives it back to go on. Entries that did not fit into a reply are
 * read again. READDIRPLUS adds to each entry what LOOKUP would have said.
 */
#ifndef CCI_SHARE_DIR_H
#define CCI_SHARE_DIR_H

#include "entry.h"

#define CCI_SHARE_DIRENT 24u      /* struct fuse_dirent: inode 8, offset 8, name's length 4, type 4, name, to 8 bytes */
#define CCI_SHARE_RECORD_MAX 280u /* the longest record of the kernel: 19 bytes, a name, its NUL, to 8 bytes */

static int cci_share_opendir(struct cci_share_req *r)
{
    struct cci_share_use use;
    struct cci_share_handle *h;
    uint8_t reply[CCI_FUSE_OPEN_REPLY_SIZE] = {0};
    int result = cci_share_use(r->share, r->node, &use);
    if (result)
        return result;
    cci_fd fd = use.node->key.type == 0040000 ? cci_share_open_fd(r->share, &use, CCI_OS_DIRECTORY) : -ENOTDIR;
    result = fd < 0 ? fd : cci_share_handle_reserve(r->share, &h);
    if (result == 0) {
        cci_put_le64(reply, h->number);
        cci_share_handle_open(r->share, h, use.node, fd, true, false);
    } else {
        cci_os_close(fd);
    }
    cci_share_done(r->share, &use);
    if (result)
        return result;
    cci_share_put(r, reply, sizeof(reply));
    return 0;
}

/* One record of the kernel: inode 8, offset 8, length 2, type 1, name. */
struct cci_share_record {
    uint64_t inode, offset;
    const char *name;
    size_t name_len;
    uint32_t type;
};

static size_t cci_share_take_record(const uint8_t *p, struct cci_share_record *out)
{
    memcpy(&out->inode, p, 8);
    memcpy(&out->offset, p + 8, 8);
    uint16_t length;
    memcpy(&length, p + 16, 2);
    out->type = p[18];
    out->name = (const char *)p + 19;
    out->name_len = strlen(out->name);
    return length;
}

/* What LOOKUP says of an entry; nothing for "." and "..", which the guest knows. False: it is gone. */
static bool cci_share_fill_plus(struct cci_share_req *r, const struct cci_share_handle *h, struct cci_share_record *e,
                                uint8_t *entry)
{
    struct cci_os_statx sx;
    memset(entry, 0, CCI_FUSE_ENTRY_SIZE);
    if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
        return true;
    int result = cci_os_statx_at(h->fd, e->name, &sx);
    if (result)
        return result != -ENOENT; /* what cannot be looked at is listed all the same */
    uint64_t number = cci_share_enter(r->share, h->node, e->name, &sx);
    if (number) {
        cci_share_fill_entry(r->share, number, &sx, entry);
        e->inode = cci_share_inode(r->share, &sx);
    }
    return true;
}

static void cci_share_put_record(struct cci_share_req *r, const struct cci_share_handle *h, struct cci_share_record *e,
                                 bool plus)
{
    static const uint8_t zero[8] = {0};
    uint8_t entry[CCI_FUSE_ENTRY_SIZE], head[CCI_SHARE_DIRENT];
    if (plus) {
        if (!cci_share_fill_plus(r, h, e, entry))
            return;
        cci_share_put(r, entry, sizeof(entry));
    }
    cci_put_le64(head, e->inode);
    cci_put_le64(head + 8, e->offset);
    cci_put_le32(head + 16, (uint32_t)e->name_len);
    cci_put_le32(head + 20, e->type);
    cci_share_put(r, head, sizeof(head));
    cci_share_put(r, e->name, e->name_len);
    cci_share_put(r, zero, CCI_ALIGN_UP(e->name_len, (size_t)8) - e->name_len);
}

/* Fills the reply from where the directory's descriptor stands. The handle's mutex is held. */
static int cci_share_fill_dir(struct cci_share_req *r, struct cci_share_handle *h, size_t size, bool plus)
{
    uint64_t buf[32768 / 8];
    const size_t fixed = plus ? CCI_FUSE_ENTRY_SIZE + CCI_SHARE_DIRENT : CCI_SHARE_DIRENT;
    const size_t end = r->filled + size;
    for (;;) {
        /* About as much as the reply has room for: what is read too much is read again. */
        size_t want = plus ? (end - r->filled) / 4 : end - r->filled;
        want = CCI_MIN(CCI_MAX(want, CCI_SHARE_RECORD_MAX), sizeof(buf));
        int64_t n = cci_os_getdents(h->fd, buf, want);
        if (n <= 0)
            return r->filled ? 0 : (int)n;
        const uint8_t *p = (const uint8_t *)buf;
        for (size_t at = 0; at < (size_t)n;) {
            struct cci_share_record e;
            at += cci_share_take_record(p + at, &e);
            if (fixed + CCI_ALIGN_UP(e.name_len, (size_t)8) > end - r->filled) {
                h->position = UINT64_MAX; /* further than the guest has read */
                return r->filled ? 0 : -EINVAL;
            }
            cci_share_put_record(r, h, &e, plus);
            h->position = e.offset;
        }
        if (end - r->filled < fixed + CCI_FUSE_NAME_MAX)
            return 0;
    }
}

/* READDIR, READDIRPLUS: as READ. */
static int cci_share_read_dir(struct cci_share_req *r, bool plus)
{
    const uint64_t offset = cci_le64(r->args + 8);
    const size_t size = CCI_MIN(CCI_MIN(cci_le32(r->args + 16), r->room), CCI_SHARE_TRANSFER);
    struct cci_share_handle *h = cci_share_handle_get(r->share, cci_le64(r->args), r->node, true);
    if (!h)
        return -EBADF;
    cci_mutex_lock(&h->mutex);
    int64_t result = 0;
    if (h->position != offset) {
        result = offset > INT64_MAX ? -EINVAL : cci_os_lseek(h->fd, offset, 0);
        h->position = result < 0 ? UINT64_MAX : offset;
    }
    if (result >= 0)
        result = cci_share_fill_dir(r, h, size, plus);
    cci_mutex_unlock(&h->mutex);
    cci_share_handle_put(r->share, h);
    return (int)result;
}

static int cci_share_readdir(struct cci_share_req *r)
{
    return cci_share_read_dir(r, false);
}

static int cci_share_readdirplus(struct cci_share_req *r)
{
    return cci_share_read_dir(r, true);
}

#endif
