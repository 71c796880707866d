/*
 * image/archive.h - the members of an image tar: where in the file they lie.
 *
 * `docker save` tars and OCI layouts refer from one member to others in any order, so the tar is read twice: one pass
 * over its headers, which jumps over the contents, notes name, offset and size of every member; after that, members are
 * read in place, several at a time. A tar that is compressed as a whole is first decompressed to an unnamed file
 * in the cache directory. An OCI layout in a directory is the same with files for members (archive_dir.h).
 *
 * Members may be links to others: before version 25, Docker wrote layers that several images share as
 * `<id>/layer.tar -> ../<other>/layer.tar`. Links lead to members only, never to files of the host.
 */
#ifndef CCI_IMAGE_ARCHIVE_H
#define CCI_IMAGE_ARCHIVE_H

#include "layer_tar.h"
#include "store.h"
#include "unpack.h"

#define CCI_ARCHIVE_MAX_MEMBERS 262144u
#define CCI_ARCHIVE_MAX_NAMES ((size_t)32 << 20)       /* bytes of all names together */
#define CCI_ARCHIVE_MAX_PLAIN ((uint64_t)256 << 30)    /* bytes of a tar that came compressed */
#define CCI_ARCHIVE_MAX_DOCUMENTS ((uint64_t)64 << 20) /* bytes of manifests and configurations read, all together */
#define CCI_ARCHIVE_CHUNK ((size_t)256 << 10)

enum cci_archive_kind { CCI_ARCHIVE_FILE, CCI_ARCHIVE_LINK, CCI_ARCHIVE_OTHER };

struct cci_archive_member {
    const char *name;          /* cleaned */
    const char *link;          /* of a link: the name that it leads to, cleaned */
    uint32_t name_at, link_at; /* both as offsets in the archive's names, which move during the pass */
    enum cci_archive_kind kind;
    uint32_t order;  /* in the tar: of equal names, the last one counts */
    uint64_t offset; /* of the content */
    uint64_t size;
};

struct cci_archive {
    char *path;                         /* as the caller named it, for messages */
    char *dir;                          /* of a layout in a directory: its path, and fd is CCI_NO_FD; else NULL */
    cci_fd fd;                          /* the tar, or the decompressed copy */
    struct cci_archive_member *members; /* sorted by name, then order */
    size_t count, cap;
    struct cci_buf names; /* of the members */
    uint64_t documents;   /* bytes read of them so far */
    const struct cci_wait *wait;
};

/* One pass over the archive. */
struct cci_archive_pass {
    struct cci_archive *archive;
    struct cci_tar tar;
    struct cci_unpack unpack;
    uint64_t written; /* bytes of the decompressed copy */
    cc_error *err;    /* for the decompressor's sink */
    cc_error_code code;
    uint8_t chunk[CCI_ARCHIVE_CHUNK];
};

static cc_error_code cci_archive_fail_read(const struct cci_archive *a, int64_t r, cc_error *err)
{
    return cci_fail_errno(err, CC_ERR_IO, (int)-r, a->path, "cannot read the image file: %s", cci_errno_text((int)-r));
}

static void cci_archive_close(struct cci_archive *a)
{
    cci_os_close(a->fd);
    cci_mem_free(a->path);
    cci_mem_free(a->dir);
    cci_mem_free(a->members);
    cci_buf_free(&a->names);
    memset(a, 0, sizeof(*a));
    a->fd = CCI_NO_FD;
}

/* ---- The pass over the tar --------------------------------------------------------------------------- */

/* Keeps a cleaned name. False when it is none that anybody could refer to, or (a->names.failed) without memory. */
static bool cci_archive_name(struct cci_archive *a, struct cci_view name, uint32_t *out)
{
    char clean[CCI_INDEX_MAX_PATH + 1];
    if (cci_layer_clean(name, clean, NULL) != CC_OK || strlen(clean) >= CCI_ARCHIVE_MAX_NAMES - a->names.n)
        return false;
    *out = (uint32_t)a->names.n;
    return cci_buf_add(&a->names, clean, strlen(clean) + 1);
}

/* The name that a symbolic link leads to: its target, seen from the directory that it is in. */
static bool cci_archive_symlink(struct cci_archive *a, uint32_t name_at, struct cci_view target, uint32_t *out)
{
    const char *name = (const char *)a->names.p + name_at, *slash = strrchr(name, '/');
    struct cci_buf joined = {NULL, 0, 0, false};
    if (slash)
        (void)cci_buf_add(&joined, name, (size_t)(slash - name) + 1);
    bool ok = cci_buf_add(&joined, target.p, target.n);
    struct cci_view view = {joined.p, joined.n};
    ok = ok && cci_archive_name(a, view, out);
    a->names.failed |= joined.failed;
    cci_buf_free(&joined);
    return ok;
}

static cc_error_code cci_archive_add(struct cci_archive *a, const struct cci_archive_member *m, cc_error *err)
{
    if (a->count == CCI_ARCHIVE_MAX_MEMBERS)
        return cci_fail(err, CC_ERR_IO, a->path, "the image file has more than %u members", CCI_ARCHIVE_MAX_MEMBERS);
    if (a->count == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 64;
        struct cci_archive_member *members = cci_mem_resize(a->members, cap, sizeof(*members));
        if (!members)
            return cci_fail_nomem(err);
        a->members = members;
        a->cap = cap;
    }
    a->members[a->count++] = *m;
    return CC_OK;
}

static cc_error_code cci_archive_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    struct cci_archive_pass *pass = ctx;
    struct cci_archive *a = pass->archive;
    struct cci_archive_member m = {NULL, NULL, 0, 0, CCI_ARCHIVE_OTHER, (uint32_t)a->count, pass->tar.offset, e->size};
    if (e->type == CCI_TAR_DIR || !cci_archive_name(a, e->path, &m.name_at))
        return a->names.failed ? cci_fail_nomem(err) : CC_OK;
    if (e->type == CCI_TAR_FILE && !e->sparse)
        m.kind = CCI_ARCHIVE_FILE;
    if ((e->type == CCI_TAR_SYMLINK && cci_archive_symlink(a, m.name_at, e->link, &m.link_at)) ||
        (e->type == CCI_TAR_HARDLINK && cci_archive_name(a, e->link, &m.link_at)))
        m.kind = CCI_ARCHIVE_LINK;
    return a->names.failed ? cci_fail_nomem(err) : cci_archive_add(a, &m, err);
}

static cc_error_code cci_archive_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    (void)ctx, (void)offset, (void)p, (void)n, (void)err;
    return CC_OK; /* contents are read later, in place */
}

static cc_error_code cci_archive_entry_end(void *ctx, cc_error *err)
{
    (void)ctx, (void)err;
    return CC_OK;
}

/* Reads the headers of a plain tar. */
static cc_error_code cci_archive_scan(struct cci_archive_pass *pass, cc_error *err)
{
    struct cci_archive *a = pass->archive;
    uint64_t at = 0;
    for (;;) {
        cc_error_code code = cci_wait_check(a->wait, a->path, "reading an image", err);
        int64_t n = code ? 0 : cci_os_pread_all(a->fd, pass->chunk, 8192, at);
        if (code)
            return code;
        if (n < 0)
            return cci_archive_fail_read(a, n, err);
        if (n == 0)
            return CC_OK;
        code = cci_tar_feed(&pass->tar, pass->chunk, (size_t)n, err);
        if (code)
            return code;
        at += (uint64_t)n + cci_tar_jump(&pass->tar);
    }
}

static int cci_archive_sink(void *ctx, const uint8_t *p, size_t n)
{
    struct cci_archive_pass *pass = ctx;
    struct cci_archive *a = pass->archive;
    int r = 0;
    pass->code =
        cci_wait_check(a->wait, a->path, "reading an image", pass->err); /* a little input may become a lot of output */
    if (pass->code)
        return 1;
    if (n > CCI_ARCHIVE_MAX_PLAIN - pass->written)
        pass->code =
            cci_fail(pass->err, CC_ERR_IO, a->path, "the image file is larger than %llu bytes when decompressed",
                     (unsigned long long)CCI_ARCHIVE_MAX_PLAIN);
    else
        r = cci_os_pwrite_all(a->fd, p, n, pass->written);
    pass->written += n;
    if (r < 0)
        pass->code = cci_store_fail(pass->err, r, a->path, "decompress the image file");
    if (!pass->code)
        pass->code = cci_tar_feed(&pass->tar, p, n, pass->err);
    return pass->code ? 1 : 0;
}

/* Decompresses the file at `from` to a->fd, reading the headers as they pass. */
static cc_error_code cci_archive_unpack(struct cci_archive_pass *pass, cci_fd from, cc_error *err)
{
    struct cci_archive *a = pass->archive;
    pass->err = err;
    for (uint64_t at = 0;;) {
        cc_error_code code = cci_wait_check(a->wait, a->path, "reading an image", err);
        if (code)
            return code;
        int64_t n = cci_os_pread_all(from, pass->chunk, sizeof(pass->chunk), at);
        if (n < 0)
            return cci_archive_fail_read(a, n, err);
        enum cci_unpack_status status =
            n ? cci_unpack_feed(&pass->unpack, pass->chunk, (size_t)n, cci_archive_sink, pass)
              : cci_unpack_finish(&pass->unpack);
        if (pass->code)
            return pass->code;
        if (status != CCI_UNPACK_OK)
            return cci_fail(err, CC_ERR_IO, a->path, "the image file cannot be decompressed: %s",
                            cci_unpack_strerror(&pass->unpack));
        if (n == 0)
            return CC_OK;
        at += (uint64_t)n;
    }
}

static int cci_archive_order(const void *x, const void *y)
{
    const struct cci_archive_member *a = x, *b = y;
    int order = strcmp(a->name, b->name);
    return order ? order : a->order < b->order ? -1 : 1;
}

/* The pass is over: names do not move any more, and members can be sorted by them. */
static void cci_archive_sort(struct cci_archive *a)
{
    for (size_t i = 0; i < a->count; i++) {
        a->members[i].name = (const char *)a->names.p + a->members[i].name_at;
        a->members[i].link = (const char *)a->names.p + a->members[i].link_at;
    }
    if (a->count)
        qsort(a->members, a->count, sizeof(*a->members), cci_archive_order);
}

/* Opens the file and finds out whether it is compressed. */
static cc_error_code cci_archive_open_file(struct cci_archive *a, const char *path, enum cci_packing *packing,
                                           cc_error *err)
{
    struct cci_os_stat st;
    uint8_t head[CCI_UNPACK_HEAD] = {0};
    a->fd = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NONBLOCK, 0);
    int64_t r = a->fd < 0 ? a->fd : cci_os_fstat(a->fd, &st);
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, (int)-r, path, "cannot open the image file: %s", cci_errno_text((int)-r));
    if (st.kind != CCI_OS_FILE)
        return cci_fail(err, CC_ERR_IO, path, "the image file is not a regular file");
    r = cci_os_pread_all(a->fd, head, sizeof(head), 0);
    if (r < 0)
        return cci_archive_fail_read(a, r, err);
    cc_error_code code = cci_packing_find(head, packing, err);
    return code ? cci_fail_within(err, code, "the image file") : CC_OK;
}

/*
 * Opens an image tar and reads its table of contents. `path` and `wait` must outlive the archive. Close it with
 * cci_archive_close, on success only.
 */
static cc_error_code cci_archive_open(struct cci_archive *a, const struct cci_store *store, const char *path,
                                      const struct cci_wait *wait, cc_error *err)
{
    static const struct cci_tar_ops ops = {cci_archive_entry, cci_archive_data, cci_archive_entry_end};
    enum cci_packing packing = CCI_PACKING_NONE;
    cci_fd packed = CCI_NO_FD;
    memset(a, 0, sizeof(*a));
    a->fd = CCI_NO_FD;
    a->wait = wait;
    struct cci_archive_pass *pass = cci_mem_alloc(sizeof(*pass));
    a->path = cci_mem_strdup(path);
    cc_error_code code = pass && a->path ? cci_archive_open_file(a, path, &packing, err) : cci_fail_nomem(err);
    if (!code && packing != CCI_PACKING_NONE) {
        char *tmp = cci_store_path(store, "tmp", "");
        packed = a->fd;
        a->fd = tmp ? cci_os_tmpfile(tmp) : -ENOMEM;
        if (a->fd < 0)
            code = cci_store_fail(err, a->fd, tmp, "make a temporary file");
        cci_mem_free(tmp);
    }
    if (!code) {
        pass->archive = a;
        pass->written = 0;
        pass->code = CC_OK;
        cci_tar_init(&pass->tar, &ops, pass);
        if (packing == CCI_PACKING_NONE) {
            code = cci_archive_scan(pass, err);
        } else if (!(code = cci_unpack_init(&pass->unpack, packing, err))) {
            code = cci_archive_unpack(pass, packed, err);
            cci_unpack_free(&pass->unpack);
        }
        if (!code)
            code = cci_tar_finish(&pass->tar, err);
        if (code == CC_ERR_IO && err && !err->path) /* the tar's own words, which know of no file */
            (void)cci_fail_within(err, code, "this is no image file, or a damaged one");
        cci_tar_free(&pass->tar);
    }
    cci_os_close(packed);
    cci_mem_free(pass);
    if (code)
        cci_archive_close(a);
    else
        cci_archive_sort(a);
    return code;
}

/* ---- Members ----------------------------------------------------------------------------------------- */

/* The last member of a name, or NULL. */
static const struct cci_archive_member *cci_archive_named(const struct cci_archive *a, const char *name)
{
    size_t low = 0, high = a->count; /* members[low - 1] <= name < members[high] */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(a->members[mid].name, name) <= 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low && strcmp(a->members[low - 1].name, name) == 0 ? &a->members[low - 1] : NULL;
}

/* The file of a name, links followed; NULL when there is none. */
static const struct cci_archive_member *cci_archive_find(const struct cci_archive *a, const char *name)
{
    const struct cci_archive_member *m = cci_archive_named(a, name);
    for (int hops = 0; m && m->kind == CCI_ARCHIVE_LINK && hops < 8; hops++)
        m = cci_archive_named(a, m->link);
    return m && m->kind == CCI_ARCHIVE_FILE ? m : NULL;
}

/* The blob of a digest in an OCI layout, or NULL. */
static const struct cci_archive_member *cci_archive_blob(const struct cci_archive *a, const struct cci_digest *d)
{
    char name[14 + 64];
    (void)snprintf(name, sizeof(name), "blobs/sha256/%s", cci_digest_spell(d).text + 7);
    return cci_archive_find(a, name);
}

/* Opens what the bytes of a member are read from, at member->offset; cci_archive_leave closes it. */
static cc_error_code cci_archive_enter(const struct cci_archive *a, const struct cci_archive_member *m, cci_fd *fd,
                                       cc_error *err)
{
    *fd = a->fd;
    if (!a->dir)
        return CC_OK;
    char *path = cci_mem_printf("%s/%s", a->dir, m->name);
    *fd = path ? cci_os_open(path, CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK, 0) : -ENOMEM;
    cci_mem_free(path);
    return *fd < 0 ? cci_archive_fail_read(a, *fd, err) : CC_OK;
}

static void cci_archive_leave(const struct cci_archive *a, cci_fd fd)
{
    if (a->dir)
        cci_os_close(fd);
}

/* Reads a whole document. `what` names it in messages. Free *out. */
static cc_error_code cci_archive_read(struct cci_archive *a, const struct cci_archive_member *m, uint64_t most,
                                      const char *what, struct cci_buf *out, cc_error *err)
{
    memset(out, 0, sizeof(*out));
    if (m->size > most)
        return cci_fail(err, CC_ERR_IO, a->path, "%s is too large: %llu bytes, at most %llu are read", what,
                        (unsigned long long)m->size, (unsigned long long)most);
    a->documents += m->size;
    if (a->documents > CCI_ARCHIVE_MAX_DOCUMENTS)
        return cci_fail(err, CC_ERR_IO, a->path, "the image file has too many manifests; name one image");
    cc_error_code code = cci_wait_check(a->wait, a->path, "reading an image", err);
    uint8_t *p = code ? NULL : cci_buf_reserve(out, (size_t)m->size + 1);
    if (code || !p)
        return code ? code : cci_fail_nomem(err);
    cci_fd fd;
    code = cci_archive_enter(a, m, &fd, err);
    if (code) {
        cci_buf_free(out);
        return code;
    }
    int64_t n = cci_os_pread_all(fd, p, (size_t)m->size, m->offset);
    cci_archive_leave(a, fd);
    out->n = (size_t)m->size;
    if (n == (int64_t)m->size)
        return CC_OK;
    cci_buf_free(out);
    return n < 0 ? cci_archive_fail_read(a, n, err) : cci_fail(err, CC_ERR_IO, a->path, "the image file is cut short");
}

/* Reads a document of an OCI layout, and checks its size and digest. Free *out. */
static cc_error_code cci_archive_read_blob(struct cci_archive *a, const struct cci_digest *digest, uint64_t size,
                                           uint64_t most, const char *what, struct cci_buf *out, cc_error *err)
{
    const struct cci_archive_member *m = cci_archive_blob(a, digest);
    if (!m)
        return cci_fail(err, CC_ERR_IO, a->path, "%s (%s) is not in the image file", what,
                        cci_digest_spell(digest).text);
    if (m->size != size)
        return cci_fail(err, CC_ERR_IO, a->path, "%s (%s) has %llu bytes in place of %llu", what,
                        cci_digest_spell(digest).text, (unsigned long long)m->size, (unsigned long long)size);
    cc_error_code code = cci_archive_read(a, m, most, what, out, err);
    if (code)
        return code;
    struct cci_digest got = cci_digest_of(out->p, out->n);
    if (cci_digest_equal(&got, digest))
        return CC_OK;
    cci_buf_free(out);
    return cci_fail(err, CC_ERR_IO, a->path, "%s does not have its digest %s: it was damaged or exchanged", what,
                    cci_digest_spell(digest).text);
}

#endif
