/*
 * What the import's scripts run: loads image tars into a store and says what came out.
 *
 *     load_tar STORE TAR[:REFERENCE] [ARCHITECTURE]
 *
 * prints the configuration and the layers, and for each layer the lines of its index; or the error. The exit code is the
 * error's.
 */
#include "../../src/image/source.h"

static void print_index(const char *layer)
{
    static const char types[] = "?fdlcbpshwo";
    struct cci_index_reader r = {{NULL, 0}, 0, 0};
    struct cci_index_entry e;
    struct cci_index_xattr x;
    struct cci_os_stat st;
    bool end = false;
    cc_error err = {0};
    char *path = cci_layer_file(layer, "index");
    cci_fd fd = cci_os_open(path, CCI_OS_RDONLY, 0);
    if (fd < 0 || cci_os_fstat(fd, &st) < 0)
        return;
    uint8_t *p = malloc(st.size);
    struct cci_view bytes = {p, (size_t)cci_os_pread_all(fd, p, st.size, 0)};
    cc_error_code code = cci_index_open(&r, bytes, &err);
    while (!code && !(code = cci_index_next(&r, &e, &end, &err)) && !end) {
        printf("%c %04o %u:%u %lld.%09u %llu %u,%u \"%s\"%s%s", types[e.type], e.mode, e.uid, e.gid,
               (long long)e.mtime_sec, e.mtime_nsec, (unsigned long long)e.size, e.major, e.minor, e.path,
               *e.target ? " -> " : "", e.target);
        while (cci_index_take_xattr(&e.xattrs, &x)) {
            printf(" %.*s=", (int)x.name_len, x.name);
            for (size_t i = 0; i < x.value_len; i++)
                printf("%02x", x.value[i]);
        }
        printf(" [%zu]\n", e.extents.n / 16);
    }
    if (code)
        printf("damaged index: %s\n", err.message);
    free(p);
    cci_os_close(fd);
    cci_mem_free(path);
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
        code = cci_image_load_tar(store, argv[2], argc > 3 ? &want : NULL, &wait, &image, &err);
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
