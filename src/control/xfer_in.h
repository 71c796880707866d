/*
 * control/xfer_in.h - a stream of frames made into a file or tree again: the receiving side of a copy.
 *
 * Both ends of the protocol use this file: the agent for cc_fs_copy_in, the host for cc_fs_copy_out. On the host the
 * stream comes from a guest and may say anything, so nothing in it is a path: each name is one component, made below a
 * directory that is open, and opened without following links. What is there already under a name is replaced when it
 * is a file or a link, entered when it is a directory and a directory comes, and an error otherwise; never written
 * through. So whatever comes, nothing outside the destination is touched. The one path there is, of a hard link, is
 * walked in the same way from the top of the copy.
 *
 * Where the copy goes follows docker cp: into the destination, if that is a directory, under the source's name (or,
 * with `contents`, directly); else it becomes the destination, whose directory must exist.
 *
 * A directory gets its mode and times when it is complete, and only if it was made here.
 *
 * Functions return 0 or a negative error number; `path` and `name` then say of what.
 */
#ifndef CCI_CONTROL_XFER_IN_H
#define CCI_CONTROL_XFER_IN_H

#include "xfer_out.h"

/* What an ENTRY says. */
struct cci_xfer_entry {
    uint32_t mode; /* a whole st_mode */
    uint32_t uid, gid;
    int64_t mtime_sec;
    uint32_t mtime_nsec;
    bool hard_link;
    char name[256];
    char target[CCI_XFER_DEPTH * 256]; /* long enough for a hard link's path */
};

/* A directory that was entered, or below which the first entry stands (number 0). */
struct cci_xfer_level {
    cci_fd fd;
    bool made; /* here; else it is left as it was */
    uint32_t mode, uid, gid, mtime_nsec;
    int64_t mtime_sec;
    size_t path_len;
};

struct cci_xfer_in {
    const char *to;   /* the destination, as it was given */
    const char *base; /* the source's own name */
    bool contents, keep_owner;
    int (*step)(void *ctx); /* called for each entry and each piece of a file; negative ends the copy */
    void *ctx;
    uint64_t max_bytes, max_entries; /* 0: no limit */
    uint64_t bytes, entries;         /* so far */
    bool over_limit;                 /* it failed because of those */
    bool begun, ended;               /* the first entry came; END did */
    int sys_errno;                   /* END's */
    char what[256];                  /* END's */
    cci_fd file;                     /* the regular file that is being filled, or CCI_NO_FD */
    uint64_t at;                     /* bytes in it */
    bool hole;                       /* the last of them are one */
    char file_name[256];             /* in the lowest level */
    unsigned depth;                  /* levels in use */
    struct cci_buf path;             /* of what is at work, for messages, with a NUL behind it */
    struct cci_xfer_level levels[CCI_XFER_DEPTH + 1];
    struct cci_xfer_entry entry; /* the last one */
};

static void cci_xfer_in_init(struct cci_xfer_in *t)
{
    memset(t, 0, sizeof(*t));
    t->file = CCI_NO_FD;
}

/* What is complete stays, also after a failure; a file that is not goes. */
static void cci_xfer_in_free(struct cci_xfer_in *t)
{
    if (t->file >= 0)
        (void)cci_os_unlink_at(t->levels[t->depth - 1].fd, t->file_name, false);
    cci_os_close(t->file);
    while (t->depth)
        cci_os_close(t->levels[--t->depth].fd);
    cci_buf_free(&t->path);
}

/* Whether it is one name of a directory entry. */
static bool cci_xfer_is_name(const uint8_t *p, size_t n)
{
    if (n == 0 || n > 255 || memchr(p, '/', n) || memchr(p, 0, n))
        return false;
    return !(p[0] == '.' && (n == 1 || (n == 2 && p[1] == '.')));
}

/* ---- Attributes ------------------------------------------------------------------------------------------- */

static unsigned cci_xfer_mode(const struct cci_xfer_in *t, uint32_t mode)
{
    /* A program that runs as its owner must not become one of somebody else's. */
    return mode & (t->keep_owner ? 07777u : 01777u);
}

/* The owner first: changing it takes setuid bits away. */
static int cci_xfer_finish_fd(const struct cci_xfer_in *t, cci_fd fd, uint32_t mode, uint32_t uid, uint32_t gid,
                              int64_t sec, uint32_t nsec)
{
    int r = t->keep_owner ? cci_os_fchown(fd, uid, gid) : 0;
    if (r == 0)
        r = cci_os_fchmod(fd, cci_xfer_mode(t, mode));
    return r ? r : cci_os_set_mtime(fd, NULL, sec, nsec);
}

/* The file that is being filled is complete. */
static int cci_xfer_finish_file(struct cci_xfer_in *t)
{
    const struct cci_xfer_entry *e = &t->entry;
    if (t->file < 0)
        return 0;
    int r = t->hole ? cci_os_truncate(t->file, t->at) : 0;
    if (r == 0)
        r = cci_xfer_finish_fd(t, t->file, e->mode, e->uid, e->gid, e->mtime_sec, e->mtime_nsec);
    cci_os_close(t->file);
    t->file = CCI_NO_FD;
    return r;
}

static int cci_xfer_finish_dir(struct cci_xfer_in *t)
{
    struct cci_xfer_level *l = &t->levels[--t->depth];
    int r = l->made ? cci_xfer_finish_fd(t, l->fd, l->mode, l->uid, l->gid, l->mtime_sec, l->mtime_nsec) : 0;
    cci_os_close(l->fd);
    t->path.n = l->path_len;
    return r;
}

/* ---- Making ----------------------------------------------------------------------------------------------- */

/* Enters an open directory, which is taken over. */
static int cci_xfer_push(struct cci_xfer_in *t, cci_fd fd, bool made)
{
    const struct cci_xfer_entry *e = &t->entry;
    if (t->depth > CCI_XFER_DEPTH) {
        cci_os_close(fd);
        return -ELOOP;
    }
    t->levels[t->depth++] =
        (struct cci_xfer_level){fd, made, e->mode, e->uid, e->gid, e->mtime_nsec, e->mtime_sec, t->path.n};
    return 0;
}

static int cci_xfer_make_dir(struct cci_xfer_in *t, cci_fd dir, const char *name)
{
    int r = cci_os_mkdir_at(dir, name, 0700);
    if (r && r != -EEXIST)
        return r;
    cci_fd fd = cci_os_open_at(dir, name, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
    if (fd < 0)
        return fd == -ELOOP ? -ENOTDIR : fd; /* a link there is not followed */
    return cci_xfer_push(t, fd, r == 0);
}

/* Makes room for a name: a file or link there goes, a directory is -EISDIR. */
static int cci_xfer_clear(cci_fd dir, const char *name)
{
    int r = cci_os_unlink_at(dir, name, false);
    return r == -ENOENT ? 0 : r;
}

static int cci_xfer_make_file(struct cci_xfer_in *t, cci_fd dir, const char *name)
{
    const int flags = CCI_OS_WRONLY | CCI_OS_CREATE | CCI_OS_EXCL;
    cci_fd fd = cci_os_open_at(dir, name, flags, 0600);
    if (fd == -EEXIST) {
        int r = cci_xfer_clear(dir, name);
        if (r)
            return r;
        fd = cci_os_open_at(dir, name, flags, 0600);
    }
    if (fd < 0)
        return fd;
    t->file = fd;
    t->at = 0;
    t->hole = false;
    (void)snprintf(t->file_name, sizeof(t->file_name), "%s", name);
    return 0;
}

/* Opens the directory of a hard link's target and finds its last component. */
static int cci_xfer_find(const struct cci_xfer_in *t, char *path, cci_fd *dir, const char **last)
{
    cci_fd at = cci_os_open_at(t->levels[1].fd, ".", CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
    for (char *slash; at >= 0 && (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        *slash = '\0';
        bool good = cci_xfer_is_name((const uint8_t *)path, strlen(path));
        cci_fd next = good ? cci_os_open_at(at, path, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0) : -EPROTO;
        cci_os_close(at);
        at = next;
    }
    if (at >= 0 && !cci_xfer_is_name((const uint8_t *)path, strlen(path))) {
        cci_os_close(at);
        at = -EPROTO;
    }
    *dir = at;
    *last = path;
    return at < 0 ? at : 0;
}

static int cci_xfer_make_hard_link(struct cci_xfer_in *t, cci_fd dir, const char *name)
{
    cci_fd from;
    const char *last;
    if (t->depth < 2)
        return -EPROTO; /* there is nothing earlier */
    int r = cci_xfer_find(t, t->entry.target, &from, &last);
    if (r)
        return r;
    r = cci_xfer_clear(dir, name);
    if (r == 0)
        r = cci_os_link_at(from, last, dir, name);
    cci_os_close(from);
    return r;
}

static int cci_xfer_make_other(struct cci_xfer_in *t, cci_fd dir, const char *name)
{
    const struct cci_xfer_entry *e = &t->entry;
    bool link = (e->mode & 0170000u) == 0120000u;
    int r = cci_xfer_clear(dir, name);
    if (r)
        return r;
    r = link ? cci_os_symlink_at(e->target, dir, name) : cci_os_mknod_at(dir, name, 0010000u | (e->mode & 0777u));
    if (r == 0 && t->keep_owner)
        r = cci_os_lchown_at(dir, name, e->uid, e->gid);
    return r ? r : cci_os_set_mtime(dir, name, e->mtime_sec, e->mtime_nsec);
}

static int cci_xfer_make(struct cci_xfer_in *t, cci_fd dir, const char *name)
{
    unsigned type = t->entry.mode & 0170000u;
    if (t->entry.hard_link)
        return cci_xfer_make_hard_link(t, dir, name);
    if (type == 0040000u)
        return cci_xfer_make_dir(t, dir, name);
    if (type == 0100000u)
        return cci_xfer_make_file(t, dir, name);
    if (type == 0120000u || type == 0010000u)
        return cci_xfer_make_other(t, dir, name);
    return -EPROTO; /* the other side leaves out all else */
}

/* ---- The first entry -------------------------------------------------------------------------------------- */

/* The destination is not a directory yet: it is made below the one it names. */
static int cci_xfer_begin_new(struct cci_xfer_in *t, bool is_dir, bool missing)
{
    char *copy = cci_mem_strdup(t->to), *name = copy, *slash;
    size_t n = copy ? strlen(copy) : 0;
    bool slashed = n > 0 && copy[n - 1] == '/';
    if (!copy)
        return -ENOMEM;
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    slash = strrchr(copy, '/');
    if (slash)
        *slash = '\0', name = slash + 1;
    int r = n == 0 ? -ENOENT : (is_dir ? !missing : slashed) ? -ENOTDIR : 0;
    if (r == 0 && !cci_xfer_is_name((const uint8_t *)name, strlen(name)))
        r = -ENOENT;
    if (r == 0) {
        cci_fd fd = cci_os_open(!slash ? "." : *copy ? copy : "/", CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
        r = fd < 0 ? fd : cci_xfer_push(t, fd, false);
    }
    if (r == 0)
        r = cci_xfer_make(t, t->levels[0].fd, name);
    cci_mem_free(copy);
    return r;
}

static int cci_xfer_begin(struct cci_xfer_in *t)
{
    bool is_dir = (t->entry.mode & 0170000u) == 0040000u;
    t->begun = true;
    cci_fd fd = cci_os_open(t->to, CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
    if (fd == -ENOENT || fd == -ENOTDIR)
        return cci_xfer_begin_new(t, is_dir, fd == -ENOENT);
    int r = fd < 0 ? fd : cci_xfer_push(t, fd, false);
    if (r)
        return r;
    if (!t->contents)
        return cci_xfer_is_name((const uint8_t *)t->base, strlen(t->base)) ? cci_xfer_make(t, fd, t->base) : -EINVAL;
    if (!is_dir)
        return -ENOTDIR;
    fd = cci_os_open_at(fd, ".", CCI_OS_RDONLY | CCI_OS_DIRECTORY, 0);
    return fd < 0 ? fd : cci_xfer_push(t, fd, false);
}

/* ---- Frames ----------------------------------------------------------------------------------------------- */

static int cci_xfer_parse_entry(struct cci_xfer_entry *e, const uint8_t *p, size_t len)
{
    struct cci_proto_reader in = {p, len, false};
    size_t n;
    e->mode = cci_proto_get32(&in);
    e->uid = cci_proto_get32(&in);
    e->gid = cci_proto_get32(&in);
    e->mtime_sec = (int64_t)cci_proto_get64(&in);
    e->mtime_nsec = cci_proto_get32(&in);
    (void)cci_proto_get64(&in); /* the size is only a hint */
    e->hard_link = (cci_proto_get32(&in) & CCI_ENTRY_HARD_LINK) != 0;
    const uint8_t *name = cci_proto_get_bytes(&in, &n);
    if (in.bad || n >= sizeof(e->name) || e->mtime_nsec >= 1000000000u)
        return -EPROTO;
    if (n)
        memcpy(e->name, name, n);
    e->name[n] = '\0';
    if (n && !cci_xfer_is_name(name, n))
        return -EPROTO;
    const uint8_t *target = cci_proto_get_bytes(&in, &n);
    bool link = (e->mode & 0170000u) == 0120000u && !e->hard_link;
    if (in.bad || n >= (link ? CCI_XFER_TARGET : sizeof(e->target)) || (n && memchr(target, 0, n)) || (link && n == 0))
        return -EPROTO;
    if (n)
        memcpy(e->target, target, n);
    e->target[n] = '\0';
    return 0;
}

static bool cci_xfer_in_path(struct cci_xfer_in *t)
{
    t->path.n = t->depth ? t->levels[t->depth - 1].path_len : 0;
    bool ok = (t->path.n == 0 || cci_buf_str(&t->path, "/")) && cci_buf_str(&t->path, t->entry.name) &&
              cci_buf_add(&t->path, "", 1);
    if (ok)
        t->path.n--; /* the NUL is not counted */
    return ok;
}

static int cci_xfer_on_entry(struct cci_xfer_in *t, const uint8_t *p, size_t n)
{
    int r = cci_xfer_finish_file(t);
    if (r == 0)
        r = cci_xfer_parse_entry(&t->entry, p, n);
    if (r)
        return r;
    if (!t->begun)
        t->entry.name[0] = '\0'; /* its name is ours to choose */
    else if (!t->entry.name[0] || t->depth < 2)
        return -EPROTO; /* a second first one */
    if (!cci_xfer_in_path(t))
        return -ENOMEM;
    t->entries++;
    t->over_limit = t->max_entries && t->entries > t->max_entries;
    if (t->over_limit)
        return -EDQUOT;
    r = t->begun ? cci_xfer_make(t, t->levels[t->depth - 1].fd, t->entry.name) : cci_xfer_begin(t);
    return r ? r : t->step(t->ctx);
}

/* DATA, or with `p` NULL a HOLE. */
static int cci_xfer_on_bytes(struct cci_xfer_in *t, const uint8_t *p, uint64_t n)
{
    if (t->file < 0 || n == 0)
        return -EPROTO;
    if (n > (uint64_t)INT64_MAX - t->at)
        return -EFBIG;
    t->over_limit = t->max_bytes && (n > t->max_bytes || t->bytes > t->max_bytes - n);
    if (t->over_limit)
        return -EDQUOT;
    int r = p ? cci_os_pwrite_all(t->file, p, (size_t)n, t->at) : 0;
    t->hole = !p;
    t->at += n;
    t->bytes += n;
    return r ? r : t->step(t->ctx);
}

static int cci_xfer_on_leave(struct cci_xfer_in *t)
{
    int r = cci_xfer_finish_file(t);
    if (t->depth < 2)
        return -EPROTO;
    return r ? r : cci_xfer_finish_dir(t);
}

static int cci_xfer_on_end(struct cci_xfer_in *t, const uint8_t *p, size_t len)
{
    struct cci_proto_reader in = {p, len, false};
    size_t n;
    t->sys_errno = (int)cci_proto_get32(&in);
    const uint8_t *what = cci_proto_get_bytes(&in, &n);
    n = CCI_MIN(n, sizeof(t->what) - 1);
    if (n)
        memcpy(t->what, what, n);
    t->ended = true;
    if (in.bad)
        return -EPROTO;
    if (t->sys_errno)
        return 0;
    int r = cci_xfer_finish_file(t);
    return r ? r : t->depth > 1 ? -EPROTO : 0;
}

/* Takes one frame. */
static int cci_xfer_frame(struct cci_xfer_in *t, uint32_t type, const uint8_t *p, size_t n)
{
    switch (type) {
    case CCI_MSG_ENTRY:
        return cci_xfer_on_entry(t, p, n);
    case CCI_MSG_DATA:
        return cci_xfer_on_bytes(t, p, n);
    case CCI_MSG_HOLE:
        return n == 8 ? cci_xfer_on_bytes(t, NULL, cci_le64(p)) : -EPROTO;
    case CCI_MSG_LEAVE:
        return cci_xfer_on_leave(t);
    case CCI_MSG_END:
        return cci_xfer_on_end(t, p, n);
    default:
        return -EPROTO;
    }
}

#endif
