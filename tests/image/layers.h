/*
 * tests/image/layers.h - layers made of a few words, for tests of the merge and of the filesystem writer.
 *
 *     layer_begin(); layer_dir("usr"); layer_file("usr/a", 5000); layer_whiteout("etc/b"); struct cci_view v =
 * layer_end();
 *
 * A file takes its blocks from the layer's data in order; nobody fills them. The view lives until free_layers, as do
 * the files in memory that index_file makes of views. Whoever includes this defines _GNU_SOURCE first.
 */
#ifndef TESTS_IMAGE_LAYERS_H
#define TESTS_IMAGE_LAYERS_H

#include <sys/mman.h>
#include <unistd.h>

#include "../../src/image/index_reader.h"
#include "../check.h"

static struct cci_index_writer layer_writer;
static uint64_t layer_data; /* bytes */
static uint8_t *layer_kept[64];
static size_t layer_kept_count;
static int layer_fds[64];
static size_t layer_fd_count;

static void layer_begin(void)
{
    cci_index_writer_free(&layer_writer);
    memset(&layer_writer, 0, sizeof(layer_writer));
    layer_data = 0;
}

static void layer_entry(const struct cci_index_entry *e)
{
    cc_error err = {0};
    CHECK_OK(cci_index_add(&layer_writer, e, &err), err);
}

static struct cci_index_entry layer_default(enum cci_index_type type, const char *path)
{
    struct cci_index_entry e;
    memset(&e, 0, sizeof(e));
    e.type = type;
    e.mode = type == CCI_INDEX_DIR ? 0755 : 0644;
    e.mtime_sec = 1700000000;
    e.path = path;
    return e;
}

static void layer_simple(enum cci_index_type type, const char *path)
{
    struct cci_index_entry e = layer_default(type, path);
    layer_entry(&e);
}

#define layer_dir(path) layer_simple(CCI_INDEX_DIR, path)
#define layer_whiteout(path) layer_simple(CCI_INDEX_WHITEOUT, path)
#define layer_opaque(path) layer_simple(CCI_INDEX_OPAQUE, path)

static void layer_link(enum cci_index_type type, const char *path, const char *target)
{
    struct cci_index_entry e = layer_default(type, path);
    e.target = target;
    layer_entry(&e);
}

#define layer_symlink(path, target) layer_link(CCI_INDEX_SYMLINK, path, target)
#define layer_hardlink(path, target) layer_link(CCI_INDEX_HARDLINK, path, target)

static void layer_file(const char *path, uint64_t size)
{
    struct cci_index_entry e = layer_default(CCI_INDEX_FILE, path);
    struct cci_buf extents = {NULL, 0, 0, false};
    uint64_t blocks = (size + CCI_INDEX_BLOCK - 1) / CCI_INDEX_BLOCK;
    e.size = size;
    if (blocks)
        CHECK(cci_index_put_extent(&extents, 0, (uint32_t)blocks, layer_data / CCI_INDEX_BLOCK));
    layer_data += blocks * CCI_INDEX_BLOCK;
    e.extents = (struct cci_view){extents.p, extents.n};
    layer_entry(&e);
    cci_buf_free(&extents);
}

static struct cci_view layer_end(void)
{
    cc_error err = {0};
    uint8_t header[CCI_INDEX_HEADER];
    CHECK_OK(cci_index_end(&layer_writer, layer_data, header, &err), err);
    struct cci_view v = {layer_writer.out.p, layer_writer.out.n};
    memcpy(layer_writer.out.p, header, sizeof(header));
    CHECK(layer_kept_count < CCI_COUNT(layer_kept));
    uint8_t *copy = malloc(v.n); /* of the exact size, so that a read behind its end is seen */
    CHECK(copy != NULL);
    memcpy(copy, v.p, v.n);
    layer_kept[layer_kept_count++] = copy;
    v.p = copy;
    layer_begin();
    return v;
}

/* An index as a file. */
static cci_fd index_file(struct cci_view v)
{
    int fd = memfd_create("index", MFD_CLOEXEC);
    CHECK(fd >= 0 && layer_fd_count < CCI_COUNT(layer_fds));
    CHECK(cci_os_pwrite_all(fd, v.p, v.n, 0) == 0);
    layer_fds[layer_fd_count++] = fd;
    return fd;
}

static void free_layers(void)
{
    layer_begin();
    while (layer_fd_count)
        close(layer_fds[--layer_fd_count]);
    while (layer_kept_count)
        free(layer_kept[--layer_kept_count]);
}

#endif
