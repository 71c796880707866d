/*
 * What the import's scripts run: loads image tars into a store and says what came out.
 *
 *     load_tar STORE TAR[:REFERENCE] [ARCHITECTURE]
 *     load_tar STORE DIRECTORY[:REFERENCE] [ARCHITECTURE]     with DIR in the environment
 *
 * With ROOTFS in the environment it makes the root filesystem too; with EXPORT, it exports the image to that directory.
 * It prints the configuration and the layers; and, unless QUIET is in the environment, for each layer the lines of its
 * index: type, mode, owner, time, size, device, extents, digest of the contents, path, target, attributes, strings with
 * bytes that are not plain as %XX. Or the error; the exit code is the error's.
 */
#include "../../src/image/index_reader.h"
#include "../../src/image/export.h"
#include "../../src/image/load_dir.h"
#include "../../src/image/rootfs.h"
#include "../../src/image/source.h"

static void print_escaped(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf(s[i] > ' ' && s[i] < 0x7f && s[i] != '%' ? "%c" : "%%%02X", (unsigned char)s[i]);
}

/* The digest of a file's contents, holes as zeroes. */
static void print_contents(cci_fd data, const struct cci_index_entry *e)
{
    static const uint8_t zeroes[CCI_INDEX_BLOCK];
    uint8_t block[CCI_INDEX_BLOCK], digest[32];
    char hex[65];
    struct cci_sha256 h;
    struct cci_index_extent x = {0, 0, 0};
    struct cci_view extents = e->extents;
    cci_sha256_init(&h);
    for (uint64_t at = 0; at < e->size; at += CCI_INDEX_BLOCK) {
        uint64_t logical = at / CCI_INDEX_BLOCK;
        const uint8_t *p = zeroes;
        while (logical >= (uint64_t)x.logical + x.count && cci_index_take_extent(&extents, &x))
            continue;
        if (logical >= x.logical && logical < (uint64_t)x.logical + x.count) {
            if (cci_os_pread_all(data, block, sizeof(block), (x.block + logical - x.logical) * CCI_INDEX_BLOCK) !=
                (int64_t)sizeof(block))
                printf("(data is too short)");
            p = block;
        }
        cci_sha256_update(&h, p, (size_t)CCI_MIN(e->size - at, sizeof(block)));
    }
    cci_sha256_final(&h, digest);
    cci_sha256_hex(digest, hex);
    printf(" %s", hex);
}

static void print_entry(cci_fd data, struct cci_index_entry *e)
{
    static const char types[] = "?fdlcbpshwo";
    struct cci_index_xattr x;
    printf("entry %c %04o %u:%u %lld.%09u %llu %u,%u %zu", types[e->type], e->mode, e->uid, e->gid,
           (long long)e->mtime_sec, e->mtime_nsec, (unsigned long long)e->size, e->major, e->minor, e->extents.n / 16);
    if (e->type == CCI_INDEX_FILE)
        print_contents(data, e);
    else
        printf(" -");
    printf(" /");
    print_escaped(e->path, strlen(e->path));
    printf(" =");
    print_escaped(e->target, strlen(e->target));
    while (cci_index_take_xattr(&e->xattrs, &x)) {
        printf(" ");
        print_escaped(x.name, x.name_len);
        printf("=");
        print_escaped((const char *)x.value, x.value_len);
    }
    printf("\n");
}

static void print_index(const char *layer)
{
    struct cci_index_reader r = {0};
    struct cci_index_entry e;
    bool end = false;
    cc_error err = {0};
    char *index_path = cci_layer_file(layer, "index"), *data_path = cci_layer_file(layer, "data");
    cci_fd fd = cci_os_open(index_path, CCI_OS_RDONLY, 0), data = cci_os_open(data_path, CCI_OS_RDONLY, 0);
    if (fd < 0 || data < 0)
        exit(3);
    cc_error_code code = cci_index_open(&r, fd, &err);
    while (!code && !(code = cci_index_next(&r, &e, &end, &err)) && !end)
        print_entry(data, &e);
    if (code)
        printf("damaged index: %s\n", err.message);
    cci_error_release(&err);
    cci_index_close(&r);
    cci_os_close(fd);
    cci_os_close(data);
    cci_mem_free(index_path);
    cci_mem_free(data_path);
}

int main(int argc, char **argv)
{
    struct cci_store *store = NULL;
    struct cci_image *image = NULL;
    cc_error err = {0};
    if (argc < 3)
        return 2;
    struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_platform want = cci_platform_make("linux", argc > 3 ? argv[3] : NULL, NULL);
    cc_error_code code = cci_store_open(argv[1], &store, &err);
    if (!code)
        code = (getenv("DIR") ? cci_image_load_dir : cci_image_load_tar)(store, argv[2], argc > 3 ? &want : NULL, &wait,
                                                                         &image, &err);
    if (!code && getenv("EXPORT"))
        code = cci_image_export(image, getenv("EXPORT"), &wait, &err);
    if (!code && getenv("ROOTFS")) {
        struct cci_disk disk = {NULL, 0, 0, false};
        code = cci_rootfs_open(store, image->layers, image->layer_count, &wait, &disk, &err);
        if (!code)
            cci_disk_free(&disk);
    }
    if (code) {
        printf("error %d: %s\n", (int)code, err.message ? err.message : "(no memory)");
    } else {
        const struct cci_image_config *c = cci_image_config(image);
        printf("platform %s\n", cci_platform_spell(&c->platform).text);
        for (size_t i = 0; i < c->env.count; i++)
            printf("env %s\n", c->env.at[i]);
        for (size_t i = 0; i < c->entrypoint.count; i++)
            printf("entrypoint %s\n", c->entrypoint.at[i]);
        for (size_t i = 0; i < c->cmd.count; i++)
            printf("cmd %s\n", c->cmd.at[i]);
        printf("dir %s\nuser %s\n", c->working_dir, c->user);
        for (size_t i = 0; i < image->layer_count; i++) {
            printf("layer %s\n", cci_digest_spell(&image->layers[i].diff_id).text);
            if (!getenv("QUIET"))
                print_index(image->layers[i].path);
        }
    }
    cci_image_free(image);
    cci_store_close(store);
    cci_error_release(&err);
    return (int)code;
}
