/*
 * tests/image/flatten.c - writes an image's root filesystem as one plain file, for e2fsck and a loop mount.
 *
 *     flatten CACHE OUTPUT DIFFID...     the disk of these layers (hexadecimal digits, lowest first)
 *     flatten --scratch OUTPUT SIZE      a scratch disk of SIZE bytes
 *
 * Holes stay holes where a segment's file has them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "../../src/image/rootfs.h"
#include "../../src/image/scratch.h"

static const struct cci_wait forever = CCI_WAIT_FOREVER;

static int fail(const char *what, const cc_error *err)
{
    fprintf(stderr, "flatten: %s: %s\n", what, err && err->message ? err->message : "failed");
    return 1;
}

static int copy_segment(const struct cci_disk_segment *s, int out)
{
    static uint8_t buf[1 << 20];
    uint64_t at = 0;
    while (at < s->length) {
        off_t data = lseek(s->fd, (off_t)(s->file_offset + at), SEEK_DATA);
        if (data < 0)
            break; /* nothing but a hole up to the end */
        at = (uint64_t)data - s->file_offset;
        if (at >= s->length)
            break;
        size_t n = (size_t)CCI_MIN(sizeof(buf), s->length - at);
        ssize_t got = pread(s->fd, buf, n, data);
        if (got <= 0 || pwrite(out, buf, (size_t)got, (off_t)(s->start + at)) != got)
            return -1;
        at += (uint64_t)got;
    }
    return 0;
}

static int write_disk(struct cci_disk *disk, const char *path)
{
    int out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644), bad = out < 0 || ftruncate(out, (off_t)disk->size) != 0;
    for (size_t i = 0; i < disk->count && !bad; i++)
        bad = copy_segment(&disk->segments[i], out) != 0;
    if (out >= 0)
        close(out);
    cci_disk_free(disk);
    if (bad)
        perror(path);
    return bad;
}

static int write_scratch(const char *path, uint64_t size, cc_error *err)
{
    uint8_t seed[32];
    int out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (out < 0 || cci_os_random(seed, sizeof(seed)) < 0)
        return fail(path, NULL);
    if (cci_scratch_format(out, size, seed, 1700000000, err))
        return fail(path, err);
    return close(out) ? fail(path, NULL) : 0;
}

int main(int argc, char **argv)
{
    cc_error err = {0};
    if (argc == 4 && strcmp(argv[1], "--scratch") == 0)
        return write_scratch(argv[2], strtoull(argv[3], NULL, 10), &err);
    struct cci_disk disk;
    struct cci_store *store;
    struct cci_layer layers[128];
    size_t count = (size_t)argc - 3;
    if (argc < 3 || count > CCI_COUNT(layers))
        return fail("usage: flatten CACHE OUTPUT DIFFID...", NULL);
    if (cci_store_open(argv[1], &store, &err))
        return fail(argv[1], &err);
    for (size_t i = 0; i < count; i++) {
        struct cci_digest id;
        bool found;
        if (!cci_digest_from_hex(argv[3 + i], strlen(argv[3 + i]), &id))
            return fail("not a diffID", NULL);
        if (cci_store_layer_open(store, &id, &layers[i], &found, &err) || !found)
            return fail(argv[3 + i], &err);
    }
    if (cci_rootfs_open(store, layers, count, &forever, &disk, &err))
        return fail("the root filesystem", &err);
    for (size_t i = 0; i < count; i++)
        cci_layer_close(&layers[i]);
    cci_store_close(store);
    return write_disk(&disk, argv[2]);
}
