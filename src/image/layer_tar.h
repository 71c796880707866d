/*
 * image/layer_tar.h - from a layer's tar to the layer store (image specification 1.1, "Image Layer Filesystem
 * Changeset").
 *
 * Takes the tar in pieces, and passes its entries on to the layer writer as the index wants them:
 *
 *   paths      relative to the image's root, without "." and "..", as Docker and containerd clean them. One that
 *              leads out of the root is an error, and so is such a hard link target. Targets of symbolic links stay
 *              as they are: they mean something inside the guest only.
 *   attributes "user." ones of anything but files and directories are left out: Linux knows none there (xattr(7)), and
 *              whoever unpacks is told so and goes on.
 *   whiteouts  ".wh.NAME" says that NAME of the layers below is gone, ".wh..wh..opq" that all in its directory is.
 *              Other names at the root that begin with ".wh..wh." are notes of the AUFS driver, and are skipped as
 *              Docker does.
 *
 * Everything is checked here or by the index writer before it is stored; what a later layer, or the same one, says
 * again about a path is for the merge to sort out.
 */
#ifndef CCI_IMAGE_LAYER_TAR_H
#define CCI_IMAGE_LAYER_TAR_H

#include "layer_recipe.h"
#include "layer_writer.h"
#include "tar.h"

struct cci_layer_tar {
    struct cci_layer_writer writer;
    struct cci_recipe_writer recipe;
    const uint8_t *passed; /* in the piece that is being fed: what the recipe has up to here */
    struct cci_tar tar;
    struct cci_index_entry entry; /* the current one, ready but for its extents */
    char path[CCI_INDEX_MAX_PATH + 1];
    char target[CCI_INDEX_MAX_PATH + 1];
    struct cci_buf xattrs; /* of the current entry, as in the index */
    bool skip;             /* the current entry is none of the layer's files */
};

/* For a message: enough of a path to find it, without bytes that a terminal would act on. */
struct cci_layer_path_text {
    char text[200];
};

static struct cci_layer_path_text cci_layer_path_spell(struct cci_view path)
{
    struct cci_layer_path_text t;
    size_t n = CCI_MIN(path.n, sizeof(t.text) - 1);
    for (size_t i = 0; i < n; i++)
        t.text[i] = (char)(path.p[i] < 0x20 || path.p[i] == 0x7f ? '?' : path.p[i]);
    t.text[n] = '\0';
    return t;
}

/* Cleans a path; `out` has room for CCI_INDEX_MAX_PATH bytes and a NUL. */
static cc_error_code cci_layer_clean(struct cci_view path, char *out, cc_error *err)
{
    size_t n = 0; /* of `out`, without a slash at its end */
    for (size_t at = 0; at < path.n;) {
        const uint8_t *part = path.p + at, *slash = memchr(part, '/', path.n - at);
        size_t len = slash ? (size_t)(slash - part) : path.n - at;
        at += len + 1;
        if (len == 0 || (len == 1 && part[0] == '.'))
            continue;
        if (len == 2 && part[0] == '.' && part[1] == '.') {
            if (n == 0)
                return cci_fail(err, CC_ERR_IO, NULL,
                                "path traversal: \"%s\" leads out of the image; the layer is refused",
                                cci_layer_path_spell(path).text);
            while (n && out[n - 1] != '/')
                n--;
            n -= n > 0; /* the slash */
            continue;
        }
        if (len > CCI_INDEX_MAX_NAME || n + 1 + len > CCI_INDEX_MAX_PATH)
            return cci_fail(err, CC_ERR_IO, NULL, "the layer has a name that is too long: \"%s...\"",
                            cci_layer_path_spell(path).text);
        if (n)
            out[n++] = '/';
        memcpy(out + n, part, len);
        n += len;
    }
    out[n] = '\0';
    return CC_OK;
}

/* Recognises whiteouts by the path, and turns it into what they are about. */
static void cci_layer_whiteout(struct cci_layer_tar *l)
{
    static const char prefix[] = ".wh.", notes[] = ".wh..wh.", opaque[] = ".wh..wh..opq";
    char *slash = strrchr(l->path, '/'), *base = slash ? slash + 1 : l->path;
    if (strcmp(base, opaque) == 0) {
        l->entry.type = CCI_INDEX_OPAQUE;
        *(slash ? slash : base) = '\0';
    } else if (strncmp(l->path, notes, sizeof(notes) - 1) == 0) {
        l->skip = true;
    } else if (strncmp(base, prefix, sizeof(prefix) - 1) == 0) {
        l->entry.type = CCI_INDEX_WHITEOUT;
        memmove(base, base + sizeof(prefix) - 1, strlen(base + sizeof(prefix) - 1) + 1);
    }
}

static cc_error_code cci_layer_target(struct cci_layer_tar *l, const struct cci_tar_entry *e, cc_error *err)
{
    if (e->type == CCI_TAR_HARDLINK)
        return cci_layer_clean(e->link, l->target, err);
    if (e->type != CCI_TAR_SYMLINK)
        return CC_OK;
    if (e->link.n > CCI_INDEX_MAX_PATH)
        return cci_fail(err, CC_ERR_IO, l->path,
                        "the layer has a symbolic link whose target is longer than 4095 bytes");
    memcpy(l->target, e->link.p, e->link.n);
    l->target[e->link.n] = '\0';
    return CC_OK;
}

/* The attributes of an entry; a hard link has its target's. */
static cc_error_code cci_layer_xattrs(struct cci_layer_tar *l, const struct cci_tar_entry *e, cc_error *err)
{
    static const char user[] = "user.";
    bool has_user = e->type == CCI_TAR_FILE || e->type == CCI_TAR_DIR;
    for (size_t i = 0; i < e->nxattrs && e->type != CCI_TAR_HARDLINK; i++) {
        const struct cci_tar_xattr *a = &e->xattrs[i];
        if (!has_user && a->name.n >= sizeof(user) - 1 && memcmp(a->name.p, user, sizeof(user) - 1) == 0)
            continue;
        if (!cci_index_put_xattr(&l->xattrs, (const char *)a->name.p, a->name.n, a->value.p, a->value.n))
            return cci_fail_nomem(err);
    }
    l->entry.xattrs.p = l->xattrs.p;
    l->entry.xattrs.n = l->xattrs.n;
    return CC_OK;
}

/* Begins an entry. What the reader shows of it is gone when its data come, so all of it is copied. */
static cc_error_code cci_layer_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    static const uint8_t types[] = {CCI_INDEX_FILE, CCI_INDEX_DIR,      CCI_INDEX_SYMLINK, CCI_INDEX_HARDLINK,
                                    CCI_INDEX_CHAR, CCI_INDEX_BLOCKDEV, CCI_INDEX_FIFO};
    struct cci_layer_tar *l = ctx;
    struct cci_index_entry *x = &l->entry;
    memset(x, 0, sizeof(*x));
    l->skip = false;
    l->target[0] = '\0';
    l->xattrs.n = 0;
    cc_error_code code = cci_layer_clean(e->path, l->path, err);
    if (!code)
        code = cci_layer_target(l, e, err);
    if (code)
        return code;
    x->type = (enum cci_index_type)types[e->type];
    x->path = l->path;
    x->target = l->target;
    cci_layer_whiteout(l);
    if (x->type == CCI_INDEX_WHITEOUT || x->type == CCI_INDEX_OPAQUE) {
        l->target[0] = '\0';
        return CC_OK;
    }
    x->mode = e->mode;
    x->uid = e->uid;
    x->gid = e->gid;
    x->mtime_sec = e->mtime.sec;
    x->mtime_nsec = e->mtime.nsec;
    x->size = e->size;
    if (e->type == CCI_TAR_CHARDEV || e->type == CCI_TAR_BLOCKDEV) {
        x->major = e->major;
        x->minor = e->minor;
    }
    return cci_layer_xattrs(l, e, err);
}

static cc_error_code cci_layer_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    struct cci_layer_tar *l = ctx;
    if (l->skip || l->entry.type != CCI_INDEX_FILE)
        return CC_OK; /* part of the recipe, like a header */
    cc_error_code code = cci_recipe_bytes(&l->recipe, l->passed, (size_t)(p - l->passed), err);
    if (!code)
        code = cci_layer_writer_data(&l->writer, offset, p, n, err);
    if (!code)
        code = cci_recipe_data(&l->recipe, l->writer.written + l->writer.fill - n, n, err);
    l->passed = p + n;
    return code;
}

static cc_error_code cci_layer_entry_end(void *ctx, cc_error *err)
{
    struct cci_layer_tar *l = ctx;
    return l->skip ? CC_OK : cci_layer_writer_add(&l->writer, &l->entry, err);
}

static const struct cci_tar_ops cci_layer_tar_ops = {cci_layer_entry, cci_layer_data, cci_layer_entry_end};

/* Begins a layer; `l` must stay where it is. End it with publish or drop, on success only. */
static cc_error_code cci_layer_tar_init(struct cci_layer_tar *l, struct cci_store *store, cc_error *err)
{
    memset(l, 0, sizeof(*l));
    cci_tar_init(&l->tar, &cci_layer_tar_ops, l);
    cc_error_code code = cci_layer_writer_init(&l->writer, store, err);
    if (code)
        return code;
    code = cci_recipe_init(&l->recipe, l->writer.tmp.path, err);
    if (code)
        cci_layer_writer_drop(&l->writer);
    return code;
}

static cc_error_code cci_layer_tar_feed(struct cci_layer_tar *l, const uint8_t *p, size_t n, cc_error *err)
{
    l->passed = p;
    cc_error_code code = cci_tar_feed(&l->tar, p, n, err);
    return code ? code : cci_recipe_bytes(&l->recipe, l->passed, (size_t)(p + n - l->passed), err);
}

static void cci_layer_tar_drop(struct cci_layer_tar *l)
{
    cci_recipe_drop(&l->recipe);
    cci_layer_writer_drop(&l->writer);
    cci_tar_free(&l->tar);
    cci_buf_free(&l->xattrs);
}

/* The tar ends here: makes the layer visible, if it was whole. Frees all, also on failure. */
static cc_error_code cci_layer_tar_publish(struct cci_layer_tar *l, const struct cci_digest *diff_id,
                                           struct cci_layer *out, cc_error *err)
{
    cc_error_code code = cci_tar_finish(&l->tar, err);
    if (!code)
        code = cci_recipe_finish(&l->recipe, err);
    if (!code)
        code = cci_layer_writer_publish(&l->writer, diff_id, out, err);
    cci_layer_tar_drop(l);
    return code;
}

#endif
