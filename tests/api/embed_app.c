/*
 * For test_embed.sh: a program with a guest kernel in it, which runs a command without any other.
 */
#define _GNU_SOURCE
#include "embed_kernel.h"
#define CC_EMBED_KERNEL embedded_kernel
#define CC_IMPLEMENTATION
#include "cc.h"

static bool embedded;

static void on_log(cc_log_level level, const char *line, void *user_data)
{
    (void)level, (void)user_data;
    if (strstr(line, "(the kernel compiled in)"))
        embedded = true;
}

/* Runs `cat /proc/version`; what it printed, or NULL. */
static char *version(cc_instance_source source, cc_error *err)
{
    const char *args[] = {"/proc/version", NULL};
    static char text[1000];
    cc_instance vm;
    cc_cmd cmd;
    uint8_t *out;
    size_t len;
    if (cc_instance_new(source, NULL, &vm, err) != CC_OK)
        return NULL;
    cc_error_code code = cc_cmd_new(vm, "cat", args, &cmd, err);
    if (code == CC_OK)
        code = cc_cmd_output(cmd, &out, &len, NULL, err);
    if (code == CC_OK) {
        (void)snprintf(text, sizeof(text), "%.*s", (int)len, (const char *)out);
        cc_free_bytes(out);
    }
    (void)cc_instance_close(vm, NULL);
    return code == CC_OK ? text : NULL;
}

int main(int argc, char **argv)
{
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    cc_oci_client client;
    cc_instance_source source;
    (void)cc_init();
    cc_set_log_callback(on_log, NULL);
    if (argc != 3 || cc_oci_client_new_with_cache(argv[2], &client, &err) != CC_OK ||
        cc_oci_client_load_tar(client, argv[1], NULL, &source, &err) != CC_OK) {
        printf("# %s\n", err.message ? err.message : "usage: embed_app IMAGE CACHE");
        return 2;
    }
    const char *text = version(source, &err);
    printf("# %s\n", text ? text : err.message);
    bool ok = text && strncmp(text, "Linux version", 13) == 0 && embedded;
    printf("%s embedded_kernel_runs\n", ok ? "ok" : "not ok");
    cc_shutdown();
    return ok ? 0 : 1;
}
