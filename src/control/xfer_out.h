/*
 * control/xfer_out.h - a file or tree as a stream of frames (guest/protocol.h, "Trees"): the sending side of a copy.
 *
 * Both ends of the protocol use this file: the host for cc_fs_copy_in, the agent for cc_fs_copy_out. It knows files,
 * and a function that takes bytes.
 *
 * The walk is depth first. Every directory on the way stays open and entries are reached from it by their last name
 * without following links, so nothing that is renamed or replaced meanwhile leads it outside. What vanishes meanwhile
 * is left out; sockets and devices are left out and counted. Files with several names are remembered, up to a limit,
 * beyond which each name becomes a file of its own.
 *
 * Functions return 0 or a negative error number; `path` then says of what.
 */
#ifndef CCI_CONTROL_XFER_OUT_H
#define CCI_CONTROL_XFER_OUT_H

#include "../../guest/protocol.h"
#include "../base/os.h"
#include "../base/os_copy_linux.h"

enum {
    CCI_XFER_DEPTH = 256,        /* directories in each other */
    CCI_XFER_BUFFER = 256 << 10, /* bytes sent at once */
    CCI_XFER_NAMES = 8192,       /* bytes of a directory's entries read at once */
    CCI_XFER_TARGET = 4096,      /* bytes of a link's target, and its NUL */
    CCI_XFER_LINKS = 8 << 20     /* bytes of the memory of hard links */
};

/* A file that has more names than one. */
struct cci_xfer_link {
    uint64_t device, inode;
    struct cci_xfer_link *next;
    char path[]; /* from the first entry on */
};

struct cci_xfer_dir {
    cci_fd fd;
    size_t path_len; /* of the path to it */
    size_t at, got;  /* bytes taken from names, and in it */
    uint8_t *names;
};

struct cci_xfer_out {
    int (*send)(void *ctx, const uint8_t *p, size_t n); /* 0, or a negative error number that ends the copy */
    int (*step)(void *ctx);                             /* called for each entry and each piece of a file; the same */
    void *ctx;
    uint8_t *buf;
    size_t n;                /* bytes in it */
    struct cci_buf path;     /* from the first entry on, each component with a slash before it; then a NUL */
    uint64_t bytes, entries; /* sent so far */
    uint64_t skipped;        /* sockets and devices */
    unsigned depth;
    struct cci_xfer_dir dirs[CCI_XFER_DEPTH];
    struct cci_xfer_link *links[256]; /* by inode */
    size_t links_size;
};

/* ---- Frames ----------------------------------------------------------------------------------------------- */

static int cci_xfer_flush(struct cci_xfer_out *t)
{
    size_t n = t->n;
    t->n = 0;
    return n ? t->send(t->ctx, t->buf, n) : 0;
}

/* Room for a frame with n bytes of payload; the payload's place in *p. */
static int cci_xfer_room(struct cci_xfer_out *t, size_t n, uint8_t **p)
{
    int r = t->n + CCI_PROTO_HEADER + n > CCI_XFER_BUFFER ? cci_xfer_flush(t) : 0;
    *p = t->buf + t->n + CCI_PROTO_HEADER;
    return r;
}

static void cci_xfer_add(struct cci_xfer_out *t, uint32_t type, size_t n)
{
    cci_proto_store_header(t->buf + t->n, (uint32_t)n, type, 0);
    t->n += CCI_PROTO_HEADER + n;
}

static int cci_xfer_put_entry(struct cci_xfer_out *t, const struct cci_os_statx *sx, uint32_t flags, const char *name,
                              const char *target, size_t target_len)
{
    uint8_t *p;
    size_t room = 48 + strlen(name) + target_len;
    int r = cci_xfer_room(t, room, &p);
    if (r)
        return r;
    struct cci_proto_writer w = {p, room, 0};
    cci_proto_put32(&w, sx->mode);
    cci_proto_put32(&w, sx->uid);
    cci_proto_put32(&w, sx->gid);
    cci_proto_put64(&w, (uint64_t)sx->mtime.sec);
    cci_proto_put32(&w, sx->mtime.nsec);
    cci_proto_put64(&w, sx->size);
    cci_proto_put32(&w, flags);
    cci_proto_put_str(&w, name);
    cci_proto_put_bytes(&w, target, target_len);
    cci_xfer_add(t, CCI_MSG_ENTRY, w.len);
    t->entries++;
    return t->step(t->ctx);
}

static int cci_xfer_put_hole(struct cci_xfer_out *t, uint64_t n)
{
    uint8_t *p;
    int r = cci_xfer_room(t, 8, &p);
    if (r)
        return r;
    cci_put_le64(p, n);
    cci_xfer_add(t, CCI_MSG_HOLE, 8);
    return 0;
}

static int cci_xfer_put_leave(struct cci_xfer_out *t)
{
    uint8_t *p;
    int r = cci_xfer_room(t, 0, &p);
    if (r == 0)
        cci_xfer_add(t, CCI_MSG_LEAVE, 0);
    return r;
}

/* The last frame, and everything before it, on its way. */
static int cci_xfer_put_end(struct cci_xfer_out *t, int sys_errno, const char *what)
{
    uint8_t *p;
    size_t n = CCI_MIN(strlen(what), (size_t)4096);
    int r = cci_xfer_room(t, 8 + n, &p);
    if (r)
        return r;
    struct cci_proto_writer w = {p, 8 + n, 0};
    cci_proto_put32(&w, (uint32_t)sys_errno);
    cci_proto_put_bytes(&w, what, n);
    cci_xfer_add(t, CCI_MSG_END, w.len);
    return cci_xfer_flush(t);
}

/* ---- One file --------------------------------------------------------------------------------------------- */

/* The bytes of a range, or as many as there are: *end is set when the file is shorter. */
static int cci_xfer_put_range(struct cci_xfer_out *t, cci_fd fd, uint64_t at, uint64_t to, bool *end)
{
    while (at < to && !*end) {
        uint8_t *p;
        int r = cci_xfer_room(t, (size_t)CCI_MIN(to - at, (uint64_t)16384), &p);
        if (r)
            return r;
        size_t room = CCI_MIN((size_t)CCI_XFER_BUFFER - t->n - CCI_PROTO_HEADER, (size_t)CCI_PROTO_MAX_DATA);
        int64_t n = cci_os_pread(fd, p, (size_t)CCI_MIN(to - at, (uint64_t)room), at);
        if (n < 0)
            return (int)n;
        *end = n == 0;
        if (n > 0)
            cci_xfer_add(t, CCI_MSG_DATA, (size_t)n);
        at += (uint64_t)n;
        t->bytes += (uint64_t)n;
        r = t->step(t->ctx);
        if (r)
            return r;
    }
    return 0;
}

/* The contents of a file as large as it was when it was looked at. */
static int cci_xfer_put_contents(struct cci_xfer_out *t, cci_fd fd, const struct cci_os_statx *sx)
{
    bool sparse = sx->blocks * 512 < sx->size, end = false;
    uint64_t at = 0;
    while (at < sx->size && !end) {
        int64_t data = sparse ? cci_os_seek_data(fd, at) : (int64_t)at;
        int64_t hole = data >= 0 && sparse ? cci_os_seek_hole(fd, (uint64_t)data) : (int64_t)sx->size;
        if (data == -ENXIO)
            data = hole = (int64_t)sx->size;
        if (data < 0 || hole < 0) { /* a file system that does not know of holes */
            sparse = false;
            continue;
        }
        uint64_t from = CCI_MIN((uint64_t)data, sx->size), to = CCI_MIN((uint64_t)hole, sx->size);
        int r = from > at ? cci_xfer_put_hole(t, from - at) : 0;
        if (r == 0)
            r = cci_xfer_put_range(t, fd, from, to, &end);
        if (r)
            return r;
        t->bytes += from - at;
        at = CCI_MAX(to, from);
    }
    return 0;
}

/* Whether this file was sent under another name, which then stands in *found; else it is remembered. */
static int cci_xfer_seen(struct cci_xfer_out *t, const struct cci_os_statx *sx, const char **found)
{
    uint64_t device = (uint64_t)sx->dev_major << 32 | sx->dev_minor;
    struct cci_xfer_link **at = &t->links[sx->ino % 256], *l = *at;
    *found = NULL;
    if (sx->nlink < 2)
        return 0;
    while (l && (l->inode != sx->ino || l->device != device))
        l = l->next;
    if (l) {
        *found = l->path;
        return 0;
    }
    size_t n = strlen((const char *)t->path.p + (t->path.n > 1)), size = sizeof(*l) + n + 1;
    if (t->links_size + size > CCI_XFER_LINKS)
        return 0;
    l = cci_mem_alloc(size);
    if (!l)
        return -ENOMEM;
    t->links_size += size;
    l->device = device;
    l->inode = sx->ino;
    memcpy(l->path, t->path.p + (t->path.n > 1), n + 1);
    l->next = *at;
    *at = l;
    return 0;
}

static int cci_xfer_put_file(struct cci_xfer_out *t, cci_fd dir, const char *name, const char *shown, bool follow)
{
    struct cci_os_statx sx;
    const char *other;
    const int flags = CCI_OS_RDONLY | CCI_OS_NONBLOCK | CCI_OS_NOCTTY;
    cci_fd fd = dir == CCI_OS_AT_CWD ? cci_os_open(name, flags | (follow ? 0 : CCI_OS_NOFOLLOW), 0)
                                     : cci_os_open_at(dir, name, flags, 0);
    if (fd < 0)
        return fd;
    int r = cci_os_statx_at(fd, "", &sx);
    if (r == 0 && (sx.mode & 0170000u) != 0100000u)
        r = -ENOENT; /* it was replaced meanwhile */
    if (r == 0)
        r = cci_xfer_seen(t, &sx, &other);
    if (r == 0)
        r = cci_xfer_put_entry(t, &sx, other ? CCI_ENTRY_HARD_LINK : 0, shown, other, other ? strlen(other) : 0);
    if (r == 0 && !other)
        r = cci_xfer_put_contents(t, fd, &sx);
    cci_os_close(fd);
    return r;
}

static int cci_xfer_put_symlink(struct cci_xfer_out *t, cci_fd dir, const char *name, const char *shown,
                                const struct cci_os_statx *sx)
{
    char target[CCI_XFER_TARGET];
    int64_t n = cci_os_readlink_at(dir, name, target, sizeof(target));
    if (n < 0)
        return n == -EINVAL ? -ENOENT : (int)n; /* it was replaced meanwhile */
    return cci_xfer_put_entry(t, sx, 0, shown, target, (size_t)n);
}

/* ---- The walk --------------------------------------------------------------------------------------------- */

/* Enters an open directory, which is taken over. */
static int cci_xfer_enter(struct cci_xfer_out *t, cci_fd fd, const char *shown)
{
    struct cci_os_statx sx;
    struct cci_xfer_dir *d = &t->dirs[t->depth];
    int r = t->depth == CCI_XFER_DEPTH ? -ELOOP : cci_os_statx_at(fd, "", &sx);
    uint8_t *names = r ? NULL : cci_mem_alloc(CCI_XFER_NAMES);
    if (r == 0)
        r = names ? cci_xfer_put_entry(t, &sx, 0, shown, NULL, 0) : -ENOMEM;
    if (r) {
        cci_mem_free(names);
        cci_os_close(fd);
        return r;
    }
    *d = (struct cci_xfer_dir){fd, t->path.n, 0, 0, names};
    t->depth++;
    return 0;
}

static void cci_xfer_leave(struct cci_xfer_out *t)
{
    struct cci_xfer_dir *d = &t->dirs[--t->depth];
    cci_os_close(d->fd);
    cci_mem_free(d->names);
}

/* Something below an open directory, or with CCI_OS_AT_CWD at a path: with `follow` also where a link leads. */
static int cci_xfer_put(struct cci_xfer_out *t, cci_fd dir, const char *name, const char *shown, bool follow)
{
    struct cci_os_statx sx;
    struct cci_os_stat st = {.kind = CCI_OS_OTHER};
    int r = cci_os_statx_at(dir, name, &sx);
    unsigned type = sx.mode & 0170000u;
    if (r == 0 && follow && type == 0120000u) {
        r = cci_os_stat(name, &st);
        type = st.kind == CCI_OS_DIR ? 0040000u : st.kind == CCI_OS_FILE ? 0100000u : 0;
    }
    if (r)
        return r;
    if (type == 0040000u) {
        const int flags = CCI_OS_RDONLY | CCI_OS_DIRECTORY;
        cci_fd fd = dir == CCI_OS_AT_CWD ? cci_os_open(name, flags | (follow ? 0 : CCI_OS_NOFOLLOW), 0)
                                         : cci_os_open_at(dir, name, flags, 0);
        return fd < 0 ? fd : cci_xfer_enter(t, fd, shown);
    }
    if (type == 0100000u)
        return cci_xfer_put_file(t, dir, name, shown, follow);
    if (type == 0120000u)
        return cci_xfer_put_symlink(t, dir, name, shown, &sx);
    if (type == 0010000u)
        return cci_xfer_put_entry(t, &sx, 0, shown, NULL, 0);
    t->skipped++;
    return 0;
}

/* The next name in the lowest directory, and whether it is known to be a regular file; NULL at its end, or with *r
 * set. */
static const char *cci_xfer_next(struct cci_xfer_dir *d, bool *is_file, int *r)
{
    for (;;) {
        if (d->at == d->got) {
            int64_t n = cci_os_getdents(d->fd, d->names, CCI_XFER_NAMES);
            *r = n < 0 ? (int)n : 0;
            if (n <= 0)
                return NULL;
            d->at = 0;
            d->got = (size_t)n;
        }
        const char *name = (const char *)d->names + d->at + 19;
        *is_file = d->names[d->at + 18] == 8; /* DT_REG; a file system need not say */
        d->at += cci_le16(d->names + d->at + 16);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
            return name;
    }
}

static bool cci_xfer_set_path(struct cci_xfer_out *t, size_t n, const char *name)
{
    t->path.n = n;
    bool ok = (!*name || cci_buf_str(&t->path, "/")) && cci_buf_str(&t->path, name) && cci_buf_add(&t->path, "", 1);
    if (ok)
        t->path.n--; /* the NUL is not counted */
    return ok;
}

/* Sends the file or tree at a path. One that ends in "/" or "." is where a link leads, else a link is sent itself. */
static int cci_xfer_send(struct cci_xfer_out *t, const char *path, bool follow)
{
    t->buf = cci_mem_alloc(CCI_XFER_BUFFER);
    if (!t->buf || !cci_xfer_set_path(t, 0, ""))
        return -ENOMEM;
    int r = cci_xfer_put(t, CCI_OS_AT_CWD, path, "", follow);
    while (r == 0 && t->depth) {
        struct cci_xfer_dir *d = &t->dirs[t->depth - 1];
        bool is_file = false;
        const char *name = cci_xfer_next(d, &is_file, &r);
        if (name) {
            if (!cci_xfer_set_path(t, d->path_len, name))
                return -ENOMEM;
            r = is_file ? cci_xfer_put_file(t, d->fd, name, name, false) : cci_xfer_put(t, d->fd, name, name, false);
            if (r == -ENOENT)
                r = 0; /* gone meanwhile */
        } else if (r == 0) {
            (void)cci_xfer_set_path(t, d->path_len, "");
            cci_xfer_leave(t);
            r = cci_xfer_put_leave(t);
        }
    }
    return r;
}

static void cci_xfer_out_free(struct cci_xfer_out *t)
{
    while (t->depth)
        cci_xfer_leave(t);
    for (unsigned i = 0; i < 256; i++)
        while (t->links[i]) {
            struct cci_xfer_link *l = t->links[i];
            t->links[i] = l->next;
            cci_mem_free(l);
        }
    cci_buf_free(&t->path);
    cci_mem_free(t->buf);
}

#endif
