/*
 * image/rootfs.h - from a chain of layers to a disk.
 *
 * The disk is one read-only ext4: [metadata][layer 1 data][layer 2 data]... The data are the layers' files in the
 * store, as they are; the metadata is made once for each chain (merge.h, ext4_write.h) and kept in the store as
 * rootfs/<chainID>.<version>. The chainID is the OCI image specification's (config.md, "Layer ChainID"): the diffID of
 * the first layer, then the digest of "chainID diffID" for each further one. Equal chains give equal bytes.
 *
 * The metadata is written in tmp/, fsynced and renamed; of two processes that make the same, the later one's replaces
 * the first one's, with the same contents. What is found is believed when its superblock fits its size and the data.
 */
#ifndef CCI_IMAGE_ROOTFS_H
#define CCI_IMAGE_ROOTFS_H

#include "../base/disk.h"
#include "ext4_write.h"
#include "merge.h"
#include "store.h"

#define CCI_ROOTFS_VERSION 1u                    /* of the metadata that we make; part of its name */
#define CCI_ROOTFS_MAX_INDEX CCI_INDEX_MAX_BYTES /* of all layers together */

/* How files of the store are opened: a FIFO in the place of one must not hold us. */
#define CCI_ROOTFS_READ (CCI_OS_RDONLY | CCI_OS_NOFOLLOW | CCI_OS_NONBLOCK)

struct cci_rootfs_layer {
    cci_fd data;
    cci_fd index; /* while metadata is made */
};

/* An image being opened. */
struct cci_rootfs {
    const struct cci_store *store;
    const struct cci_layer *layers;
    size_t count;
    struct cci_rootfs_layer *open; /* one for each layer */
    uint64_t *blocks;              /* and the blocks of its data */
    struct cci_digest chain;
    char *path; /* of the metadata */
    const struct cci_wait *wait;
    cc_error *err;
};

static struct cci_digest cci_rootfs_chain_id(const struct cci_layer *layers, size_t count)
{
    struct cci_digest chain = count ? layers[0].diff_id : cci_digest_of("", 0);
    for (size_t i = 1; i < count; i++) {
        struct cci_digest_text lower = cci_digest_spell(&chain), upper = cci_digest_spell(&layers[i].diff_id);
        struct cci_sha256 h;
        cci_sha256_init(&h);
        cci_sha256_update(&h, lower.text, strlen(lower.text));
        cci_sha256_update(&h, " ", 1);
        cci_sha256_update(&h, upper.text, strlen(upper.text));
        cci_sha256_final(&h, chain.bytes);
    }
    return chain;
}

/* ---- Making the metadata ---------------------------------------------------------------------------- */

/* Opens a layer's index. *total is the size of all of them so far. */
static cc_error_code cci_rootfs_open_index(struct cci_rootfs *r, size_t i, uint64_t *total)
{
    struct cci_os_stat st;
    char *path = cci_layer_file(r->layers[i].path, "index");
    cci_fd fd = path ? cci_os_open(path, CCI_ROOTFS_READ, 0) : -ENOMEM;
    int bad = fd < 0 ? fd : cci_os_fstat(fd, &st);
    cc_error_code code = CC_OK;
    r->open[i].index = fd;
    if (bad < 0)
        code = cci_store_fail(r->err, bad, path, "open the index of a layer");
    else if (st.size > CCI_ROOTFS_MAX_INDEX - *total)
        code = cci_fail(r->err, CC_ERR_IO, r->layers[i].path,
                        "the image has too many files: its indexes are larger than 256 MiB");
    else
        *total += st.size;
    cci_mem_free(path);
    return code;
}

static cc_error_code cci_rootfs_merge(struct cci_rootfs *r, struct cci_tree *tree)
{
    uint64_t total = 0;
    cc_error_code code = CC_OK;
    for (size_t i = 0; i < r->count && !code; i++) {
        uint64_t data_blocks = 0;
        code = cci_rootfs_open_index(r, i, &total);
        if (!code)
            code = cci_merge_layer(tree, r->open[i].index, &data_blocks, r->err);
        if (!code && data_blocks != r->blocks[i])
            code = cci_index_bad(r->err, "its data has another size");
        if (code && r->err && !r->err->path)
            r->err->path = cci_mem_strdup(r->layers[i].path); /* which layer to remove */
    }
    return code;
}

/* The filesystem's UUID and hash seed come from the chainID, so that equal chains give equal bytes. */
static struct cci_ext4_identity cci_rootfs_identity(const struct cci_digest *chain)
{
    struct cci_ext4_identity id;
    memcpy(id.uuid, chain->bytes, 16);
    id.uuid[6] = (uint8_t)((id.uuid[6] & 0x0f) | 0x80); /* RFC 9562: version 8, made in a way of one's own */
    id.uuid[8] = (uint8_t)((id.uuid[8] & 0x3f) | 0x80);
    memcpy(id.hash_seed, chain->bytes + 16, 16);
    id.label = "cc-rootfs";
    id.ro_compat = CCI_EXT4_RO_COMPAT;
    return id;
}

/* On success *meta is the file, open. */
static cc_error_code cci_rootfs_write(struct cci_rootfs *r, struct cci_tree *tree, const char *path, cci_fd *meta,
                                      uint64_t *size)
{
    struct cci_ext4_identity id = cci_rootfs_identity(&r->chain);
    cci_fd fd = cci_os_open(path, CCI_OS_RDWR | CCI_OS_CREATE | CCI_OS_EXCL, 0600);
    if (fd < 0)
        return cci_store_fail(r->err, fd, path, "write the metadata of a root filesystem");
    cc_error_code code = cci_ext4_write(tree, &id, fd, size, r->err);
    int bad = code ? 0 : cci_os_fsync(fd);
    if (bad == 0 && !code)
        bad = cci_os_rename(path, r->path);
    if (bad < 0)
        code = cci_store_fail(r->err, bad, r->path, "store the metadata of a root filesystem");
    if (code)
        cci_os_close(fd);
    else
        *meta = fd;
    return code;
}

/* The new file stays open, as a pruning of the cache may take its name away again at any time. */
static cc_error_code cci_rootfs_make(struct cci_rootfs *r, cci_fd *meta, uint64_t *size)
{
    struct cci_tree tree;
    struct cci_store_tmp tmp;
    cc_error_code code = cci_tree_init(&tree, r->err);
    if (code)
        return code;
    tree.wait = r->wait;
    code = cci_rootfs_merge(r, &tree);
    if (!code)
        code = cci_store_tmp_new(r->store, &tmp, r->err);
    if (!code) {
        char *path = cci_layer_file(tmp.path, "meta");
        code = path ? cci_rootfs_write(r, &tree, path, meta, size) : cci_fail_nomem(r->err);
        cci_mem_free(path);
        cci_store_tmp_drop(&tmp);
    }
    cci_tree_free(&tree);
    return code;
}

/* ---- Opening ---------------------------------------------------------------------------------------- */

static cc_error_code cci_rootfs_open_data(struct cci_rootfs *r)
{
    for (size_t i = 0; i < r->count; i++) {
        struct cci_os_stat st;
        char *path = cci_layer_file(r->layers[i].path, "data");
        r->open[i].data = path ? cci_os_open(path, CCI_ROOTFS_READ, 0) : -ENOMEM;
        int bad = r->open[i].data < 0 ? r->open[i].data : cci_os_fstat(r->open[i].data, &st);
        cc_error_code code = CC_OK;
        if (bad < 0)
            code = cci_store_fail(r->err, bad, path, "open the data of a layer");
        else if (st.kind != CCI_OS_FILE || st.size % CCI_INDEX_BLOCK)
            code = cci_fail(r->err, CC_ERR_IO, path, "the data of a layer in the cache is damaged; remove the layer");
        cci_mem_free(path);
        if (code)
            return code;
        r->blocks[i] = st.size / CCI_INDEX_BLOCK;
    }
    return CC_OK;
}

/* Whether an open file is the metadata for these layers, by what its superblock says. An error number if it cannot be
 * read. */
static int cci_rootfs_meta_fits(const struct cci_rootfs *r, cci_fd fd, uint64_t *size)
{
    uint8_t super[1024];
    struct cci_os_stat st;
    uint64_t data = 0;
    for (size_t i = 0; i < r->count; i++)
        data += r->blocks[i];
    int bad = cci_os_fstat(fd, &st);
    if (bad == 0 && st.kind != CCI_OS_FILE)
        return 0;
    int64_t n = bad < 0 ? bad : cci_os_pread_all(fd, super, sizeof(super), 1024);
    if (n < 0)
        return (int)n;
    *size = st.size;
    return n == (int64_t)sizeof(super) && st.size % CCI_EXT4_BLOCK == 0 && cci_le16(super + 0x38) == 0xef53 &&
           st.size / CCI_EXT4_BLOCK + data == cci_le32(super + 4);
}

/* Opens the metadata; *fd is CCI_NO_FD if it is not there or does not fit. */
static cc_error_code cci_rootfs_open_meta(const struct cci_rootfs *r, cci_fd *fd, uint64_t *size)
{
    *fd = cci_os_open(r->path, CCI_ROOTFS_READ, 0);
    int fits = *fd < 0 ? *fd : cci_rootfs_meta_fits(r, *fd, size);
    if (fits > 0)
        return CC_OK;
    cci_os_close(*fd);
    *fd = CCI_NO_FD;
    if (fits == 0 || fits == -ENOENT || fits == -ELOOP)
        return CC_OK;
    return cci_store_fail(r->err, fits, r->path, "read the metadata of a root filesystem");
}

static cc_error_code cci_rootfs_assemble(struct cci_rootfs *r, struct cci_disk *out)
{
    uint64_t size = 0;
    cci_fd meta;
    cc_error_code code = cci_rootfs_open_meta(r, &meta, &size);
    if (!code && meta < 0)
        code = cci_rootfs_make(r, &meta, &size);
    if (code)
        return code;
    bool ok = cci_disk_add(out, meta, 0, size);
    for (size_t i = 0; i < r->count && ok; i++) {
        cci_fd data = r->open[i].data;
        if (r->blocks[i] == 0)
            continue;
        r->open[i].data = CCI_NO_FD; /* it is the disk's now */
        ok = cci_disk_add(out, data, 0, r->blocks[i] * CCI_INDEX_BLOCK);
    }
    return ok ? CC_OK : cci_fail_nomem(r->err);
}

/*
 * Opens the root filesystem of an image as a read-only disk, making its metadata if the store does not have it. The
 * layers, lowest first, are open (and so locked); the disk has descriptors of its own and outlives them. Free it with
 * cci_disk_free. Making the metadata of millions of files takes seconds, which *wait ends.
 */
static cc_error_code cci_rootfs_open(const struct cci_store *store, const struct cci_layer *layers, size_t count,
                                     const struct cci_wait *wait, struct cci_disk *out, cc_error *err)
{
    struct cci_rootfs r = {store, layers, count, NULL, NULL, cci_rootfs_chain_id(layers, count), NULL, wait, err};
    char name[80];
    cc_error_code code = CC_OK;
    memset(out, 0, sizeof(*out));
    (void)snprintf(name, sizeof(name), "%s.%u", cci_digest_spell(&r.chain).text + 7, CCI_ROOTFS_VERSION);
    r.path = cci_store_path(store, "rootfs", name);
    r.open = cci_mem_zalloc(count, sizeof(*r.open));
    r.blocks = cci_mem_zalloc(count, sizeof(*r.blocks));
    for (size_t i = 0; i < count && r.open; i++)
        r.open[i].data = r.open[i].index = CCI_NO_FD;
    if (!r.path || !r.open || !r.blocks)
        code = cci_fail_nomem(err);
    if (!code)
        code = cci_rootfs_open_data(&r);
    if (!code)
        code = cci_rootfs_assemble(&r, out);
    if (code)
        cci_disk_free(out);
    for (size_t i = 0; i < count && r.open; i++) {
        cci_os_close(r.open[i].data);
        cci_os_close(r.open[i].index);
    }
    cci_mem_free(r.open);
    cci_mem_free(r.blocks);
    cci_mem_free(r.path);
    return code;
}

#endif
