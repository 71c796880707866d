/*
 * image/dir_layer.h - a directory tree of the host as one layer.
 *
 *     walk -> tar_write.h -> SHA-256 (diffID) and layer_tar.h -> the store
 *
 * The tree becomes a tar, and the tar a layer like any other, so that there is one way into the store, and an export
 * gives that tar again. The tar depends on nothing but the tree: names in the order of their bytes; owners, modes,
 * times and devices as lstat(2) gives them; hard links after the first name; holes as the filesystem reports them, in
 * files that have at least CCI_DIR_MIN_HOLES of them. So a tree that did not change has the same diffID again.
 *
 * Left out are sockets, which no tar can hold, and extended attributes that belong to the host (SELinux labels, the
 * notes of overlayfs). Symbolic links are never followed. What cannot be read, or changes meanwhile, is an error:
 * a layer with parts missing would be found out in the guest only.
 */
#ifndef CCI_IMAGE_DIR_LAYER_H
#define CCI_IMAGE_DIR_LAYER_H

#include "../base/strings.h"
#include "archive.h"
#include "tar_write.h"

#define CCI_DIR_CHUNK ((size_t)256 << 10)
#define CCI_DIR_MIN_HOLES ((uint64_t)1 << 20) /* bytes; a map is not worth it for fewer */
#define CCI_DIR_MAX_PARTS 65536u              /* of a file with holes; one with more is stored whole */
#define CCI_DIR_XATTRS ((size_t)64 << 10)     /* bytes: the kernel's limit for names, and for a value */

/* The first name of a file that has several. */
struct cci_dir_link {
    uint64_t device, inode;
    char *path;
};

struct cci_dir_layer {
    const char *root;
    const struct cci_wait *wait;
    struct cci_layer_tar tar;
    struct cci_sha256 hash; /* of the tar */
    struct cci_tar_writer writer;
    struct cci_dir_link *links; /* a hash table; empty places have no path */
    size_t link_count, link_cap;
    struct cci_buf xattrs; /* of the current file, as in the index */
    char target[CCI_INDEX_MAX_PATH + 2];
    uint8_t chunk[CCI_DIR_CHUNK];
    char names[CCI_DIR_XATTRS];
    uint8_t value[CCI_DIR_XATTRS];
};

static cc_error_code cci_dir_fail(cc_error *err, int sys, const char *path)
{
    const char *advice = sys == -EACCES || sys == -EPERM ? "; load the tree as a user who may read all of it" : "";
    return cci_fail_errno(err, CC_ERR_IO, -sys, path, "cannot read a file of the directory tree: %s%s",
                          cci_errno_text(-sys), advice);
}

static cc_error_code cci_dir_changed(cc_error *err, const char *path)
{
    return cci_fail(err, CC_ERR_IO, path, "a file of the directory tree changed while it was read");
}

/* Where the tar goes. */
static cc_error_code cci_dir_sink(void *ctx, const uint8_t *p, size_t n, cc_error *err)
{
    struct cci_dir_layer *d = ctx;
    cci_sha256_update(&d->hash, p, n);
    return cci_layer_tar_feed(&d->tar, p, n, err);
}

/* ---- Hard links -------------------------------------------------------------------------------------- */

/* The place of a file in the table: its own, or the empty one where it belongs. */
static struct cci_dir_link *cci_dir_link_find(struct cci_dir_link *links, size_t cap, uint64_t device, uint64_t inode)
{
    size_t at = (size_t)((inode ^ device) * 0x9e3779b97f4a7c15u >> 20) & (cap - 1);
    while (links[at].path && (links[at].device != device || links[at].inode != inode))
        at = (at + 1) & (cap - 1);
    return &links[at];
}

static bool cci_dir_link_grow(struct cci_dir_layer *d)
{
    size_t cap = d->link_cap ? d->link_cap * 2 : 256;
    struct cci_dir_link *links = cci_mem_zalloc(cap, sizeof(*links));
    if (!links)
        return false;
    for (size_t i = 0; i < d->link_cap; i++)
        if (d->links[i].path)
            *cci_dir_link_find(links, cap, d->links[i].device, d->links[i].inode) = d->links[i];
    cci_mem_free(d->links);
    d->links = links;
    d->link_cap = cap;
    return true;
}

/* *first is the name that a file was stored under before, or NULL: then it is noted under this one. */
static cc_error_code cci_dir_link_note(struct cci_dir_layer *d, const struct cci_os_node *node, const char *path,
                                       const char **first, cc_error *err)
{
    if (d->link_count * 2 >= d->link_cap && !cci_dir_link_grow(d))
        return cci_fail_nomem(err);
    struct cci_dir_link *link = cci_dir_link_find(d->links, d->link_cap, node->device, node->inode);
    *first = link->path;
    if (link->path)
        return CC_OK;
    link->path = cci_mem_strdup(path);
    link->device = node->device;
    link->inode = node->inode;
    d->link_count++;
    return link->path ? CC_OK : cci_fail_nomem(err);
}

/* ---- One file ---------------------------------------------------------------------------------------- */

/* Whether an attribute is about the file, not about the host. */
static bool cci_dir_xattr_wanted(const char *name)
{
    static const char *const no[] = {"security.selinux", "security.ima", "security.evm", "trusted.overlay."};
    if (strncmp(name, "system.", 7) == 0)
        return strncmp(name, "system.posix_acl_", 17) == 0;
    for (size_t i = 0; i < CCI_COUNT(no); i++)
        if (strncmp(name, no[i], strlen(no[i])) == 0)
            return false;
    return true;
}

static cc_error_code cci_dir_xattrs(struct cci_dir_layer *d, const char *path, cc_error *err)
{
    d->xattrs.n = 0;
    int64_t n = cci_os_xattr_names(path, d->names, sizeof(d->names));
    if (n == -EOPNOTSUPP)
        return CC_OK;
    if (n < 0)
        return cci_dir_fail(err, (int)n, path);
    for (const char *name = d->names, *end = d->names + n; name < end; name += strlen(name) + 1) {
        if (!cci_dir_xattr_wanted(name))
            continue;
        int64_t size = cci_os_xattr_get(path, name, d->value, sizeof(d->value));
        if (size < 0)
            return size == -ENODATA ? cci_dir_changed(err, path) : cci_dir_fail(err, (int)size, path);
        if (!cci_index_put_xattr(&d->xattrs, name, strlen(name), d->value, (size_t)size))
            return cci_fail_nomem(err);
    }
    return CC_OK;
}

/* Passes on bytes of a file. */
static cc_error_code cci_dir_copy(struct cci_dir_layer *d, cci_fd fd, uint64_t at, uint64_t n, const char *path,
                                  cc_error *err)
{
    while (n) {
        cc_error_code code = cci_wait_check(d->wait, d->root, "reading an image", err);
        size_t part = (size_t)CCI_MIN(n, (uint64_t)sizeof(d->chunk));
        int64_t got = code ? 0 : cci_os_pread_all(fd, d->chunk, part, at);
        if (!code && got < 0)
            code = cci_dir_fail(err, (int)got, path);
        else if (!code && got != (int64_t)part)
            code = cci_dir_changed(err, path);
        if (!code)
            code = cci_dir_sink(d, d->chunk, part, err);
        if (code)
            return code;
        at += part;
        n -= part;
    }
    return CC_OK;
}

/* Finds the parts of a file between its holes; none when it is better stored whole. False: no memory. */
static bool cci_dir_parts(cci_fd fd, uint64_t size, struct cci_buf *parts)
{
    uint64_t data = 0, at = 0;
    parts->n = 0;
    while (at < size) {
        int64_t from = cci_os_seek_data(fd, at);
        int64_t to = from < 0 ? from : cci_os_seek_hole(fd, (uint64_t)from);
        if (to < 0 && to != -ENXIO)
            return true;
        struct cci_tar_part part = {size, 0};
        if (to >= 0 && (uint64_t)from < size) {
            part.offset = (uint64_t)from;
            part.size = CCI_MIN((uint64_t)to, size) - part.offset;
        }
        /* A hole at the end is shown by an empty part there, as GNU tar does it. */
        if (!cci_buf_add(parts, &part, sizeof(part)))
            return false;
        data += part.size;
        at = part.offset + part.size;
    }
    if (size - data < CCI_DIR_MIN_HOLES || parts->n / sizeof(struct cci_tar_part) > CCI_DIR_MAX_PARTS)
        parts->n = 0;
    return true;
}

/* The entry of a regular file, and its contents. */
static cc_error_code cci_dir_file(struct cci_dir_layer *d, const struct cci_index_entry *e,
                                  const struct cci_os_node *node, const char *path, cc_error *err)
{
    struct cci_buf found = {NULL, 0, 0, false};
    struct cci_os_stat st;
    cci_fd fd = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK, 0);
    int r = fd < 0 ? fd : cci_os_fstat(fd, &st);
    cc_error_code code = CC_OK;
    if (r < 0)
        code = cci_dir_fail(err, r, path);
    else if (st.inode != node->inode || st.device != node->device || st.size != node->size)
        code = cci_dir_changed(err, path);
    else if (node->size && node->allocated < node->size && !cci_dir_parts(fd, node->size, &found))
        code = cci_fail_nomem(err);
    size_t count = found.n / sizeof(struct cci_tar_part);
    struct cci_tar_part whole = {0, e->size}, *parts = count ? (void *)found.p : &whole;
    if (!code)
        code = cci_tar_write_entry(&d->writer, e, count ? parts : NULL, count, err);
    for (size_t i = 0; i < (count ? count : 1) && !code; i++)
        code = cci_dir_copy(d, fd, parts[i].offset, parts[i].size, path, err);
    uint64_t stored = 0;
    for (size_t i = 0; i < (count ? count : 1); i++)
        stored += parts[i].size;
    if (!code)
        code = cci_tar_write_pad(&d->writer, stored, err);
    cci_os_close(fd);
    cci_buf_free(&found);
    return code;
}

/* Fills what lstat(2) says. `name` is the path in the tree. */
static void cci_dir_entry(const struct cci_os_node *node, const char *name, struct cci_index_entry *e)
{
    static const uint8_t types[] = {CCI_INDEX_FILE,     CCI_INDEX_DIR,  CCI_INDEX_SYMLINK, CCI_INDEX_CHAR,
                                    CCI_INDEX_BLOCKDEV, CCI_INDEX_FIFO, CCI_INDEX_SOCKET};
    memset(e, 0, sizeof(*e));
    e->type = (enum cci_index_type)types[node->kind];
    e->mode = (uint16_t)node->mode;
    e->uid = node->uid;
    e->gid = node->gid;
    e->mtime_sec = node->mtime_sec;
    e->mtime_nsec = node->mtime_nsec;
    e->path = name;
    e->target = "";
    if (e->type == CCI_INDEX_FILE)
        e->size = node->size;
    if (e->type == CCI_INDEX_CHAR || e->type == CCI_INDEX_BLOCKDEV) {
        e->major = node->major;
        e->minor = node->minor;
    }
}

static cc_error_code cci_dir_symlink(struct cci_dir_layer *d, struct cci_index_entry *e, const char *path,
                                     cc_error *err)
{
    int64_t n = cci_os_readlink(path, d->target, sizeof(d->target));
    if (n < 0)
        return cci_dir_fail(err, (int)n, path);
    if ((size_t)n > CCI_INDEX_MAX_PATH)
        return cci_fail(err, CC_ERR_IO, path, "a symbolic link's target is longer than 4095 bytes");
    d->target[n] = '\0';
    e->target = d->target;
    return CC_OK;
}

/* Adds what is at `path`, called `name` in the tree. */
static cc_error_code cci_dir_add(struct cci_dir_layer *d, const struct cci_os_node *node, const char *path,
                                 const char *name, cc_error *err)
{
    struct cci_index_entry e;
    const char *first = NULL, *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    cc_error_code code = cci_wait_check(d->wait, d->root, "reading an image", err);
    cci_dir_entry(node, name, &e);
    if (code || e.type == CCI_INDEX_SOCKET)
        return code;
    if (strncmp(base, ".wh.", 4) == 0)
        return cci_fail(err, CC_ERR_IO, path,
                        "a file whose name begins with \".wh.\" cannot be in an image: it would be a whiteout");
    if (e.type != CCI_INDEX_DIR && node->links > 1)
        code = cci_dir_link_note(d, node, name, &first, err);
    if (!code && first) {
        e.type = CCI_INDEX_HARDLINK;
        e.target = first;
        e.size = 0;
        e.major = e.minor = 0;
        return cci_tar_write_entry(&d->writer, &e, NULL, 0, err);
    }
    if (!code && e.type == CCI_INDEX_SYMLINK)
        code = cci_dir_symlink(d, &e, path, err);
    if (!code)
        code = cci_dir_xattrs(d, path, err);
    e.xattrs.p = d->xattrs.p;
    e.xattrs.n = d->xattrs.n;
    if (code)
        return code;
    return e.type == CCI_INDEX_FILE ? cci_dir_file(d, &e, node, path, err)
                                    : cci_tar_write_entry(&d->writer, &e, NULL, 0, err);
}

/* ---- The walk ---------------------------------------------------------------------------------------- */

static int cci_dir_name(void *ctx, const char *name)
{
    return cci_strings_add(ctx, name) ? 0 : -ENOMEM;
}

static int cci_dir_name_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Adds a directory and all that is in it. The depth is bounded by the length of a path. */
static cc_error_code cci_dir_walk(struct cci_dir_layer *d, const char *name, cc_error *err)
{
    struct cci_os_node node;
    struct cci_strings names = {NULL, 0};
    char *path = cci_mem_printf("%s/%s", d->root, *name ? name : "."); /* the root may be called by a link to it */
    if (!path)
        return cci_fail_nomem(err);
    int r = cci_os_node(path, &node);
    cc_error_code code = r < 0 ? cci_dir_fail(err, r, path) : cci_dir_add(d, &node, path, name, err);
    if (!code && node.kind == CCI_OS_NODE_DIR) {
        r = cci_os_read_dir(path, cci_dir_name, &names);
        if (r < 0)
            code = cci_dir_fail(err, r, path);
        else if (names.count)
            qsort(names.at, names.count, sizeof(*names.at), cci_dir_name_order);
    }
    cci_mem_free(path);
    for (size_t i = 0; i < names.count && !code; i++) {
        char *below = cci_mem_printf("%s%s%s", name, *name ? "/" : "", names.at[i]);
        code = below ? cci_dir_walk(d, below, err) : cci_fail_nomem(err);
        cci_mem_free(below);
    }
    cci_strings_free(&names);
    return code;
}

/* Stores the tree at `root` as a layer and opens it; out->diff_id says which. */
static cc_error_code cci_dir_layer_make(struct cci_store *store, const char *root, const struct cci_wait *wait,
                                        struct cci_layer *out, cc_error *err)
{
    struct cci_digest digest;
    struct cci_dir_layer *d = cci_mem_alloc(sizeof(*d)); /* large: buffers */
    if (!d)
        return cci_fail_nomem(err);
    memset(d, 0, offsetof(struct cci_dir_layer, target));
    d->root = root;
    d->wait = wait;
    d->writer.sink = cci_dir_sink;
    d->writer.ctx = d;
    cci_sha256_init(&d->hash);
    cc_error_code code = cci_layer_tar_init(&d->tar, store, err);
    if (!code) {
        code = cci_dir_walk(d, "", err);
        if (!code)
            code = cci_tar_write_end(&d->writer, err);
        cci_sha256_final(&d->hash, digest.bytes);
        if (code)
            cci_layer_tar_drop(&d->tar);
        else
            code = cci_layer_tar_publish(&d->tar, &digest, out, err);
    }
    for (size_t i = 0; i < d->link_cap; i++)
        cci_mem_free(d->links[i].path);
    cci_mem_free(d->links);
    cci_buf_free(&d->xattrs);
    cci_tar_writer_free(&d->writer);
    cci_mem_free(d);
    return code;
}

#endif
