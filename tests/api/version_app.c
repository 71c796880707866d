/*
 * For test_embed.sh, test_modules_gz.sh and test_kernel_default.sh: runs `cat /proc/version` in a guest, and prints
 * that and which kernel the library said it took. With -DEMBED it carries that kernel in itself (embed_kernel.h is made
 * by kernel_build.py).
 */
#define _GNU_SOURCE
#ifdef EMBED
#include "embed_kernel.h"
#define CC_EMBED_KERNEL embedded_kernel
#endif
#define CC_IMPLEMENTATION
#include "cc.h"

static void on_log(cc_log_level level, const char *line, void *user_data)
{
    (void)level, (void)user_data;
    printf("# %s\n", line);
}

static cc_error_code print_version(cc_instance vm, cc_error *err)
{
    const char *args[] = {"/proc/version", NULL};
    cc_cmd cmd;
    uint8_t *out;
    size_t len;
    cc_error_code code = cc_cmd_new(vm, "cat", args, &cmd, err);
    if (code == CC_OK)
        code = cc_cmd_output(cmd, &out, &len, NULL, err);
    if (code != CC_OK)
        return code;
    printf("# %.*s", (int)len, (const char *)out);
    cc_free_bytes(out);
    return CC_OK;
}

int main(int argc, char **argv)
{
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    cc_oci_client client;
    cc_instance_source source;
    cc_instance vm;
    if (argc != 3)
        return 2;
    (void)cc_init();
    cc_set_log_callback(on_log, NULL);
    cc_error_code code = cc_oci_client_new_with_cache(argv[2], &client, &err);
    if (code == CC_OK)
        code = cc_oci_client_load_tar(client, argv[1], NULL, &source, &err);
    if (code == CC_OK)
        code = cc_instance_new(source, NULL, &vm, &err);
    if (code == CC_OK)
        code = print_version(vm, &err);
    if (code != CC_OK)
        printf("# %s\n", err.message ? err.message : "(no memory)");
    cc_shutdown();
    return code == CC_OK ? 0 : 1;
}
