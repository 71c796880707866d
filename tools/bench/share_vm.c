/*
 * share_vm IMAGE.tar KERNEL DIRECTORY: runs DIRECTORY/share_guest in a guest of ours that has the directory as a share.
 */
#define CC_IMPLEMENTATION
#include "cc.h"

int main(int argc, char **argv)
{
    cc_error err = {0};
    cc_oci_client client = 0;
    cc_instance_source source = 0;
    cc_instance vm = 0;
    cc_cmd cmd = 0;
    uint8_t *out = NULL;
    size_t n = 0;
    int status = 1;
    if (argc != 4)
        return 2;
    const cc_mount_config mount = {.host_path = argv[3], .writable = true, .guest_path = "/mnt"};
    cc_instance_options o = {0};
    o.memory_mb = 512;
    o.mounts = &mount;
    o.mount_count = 1;
    o.kernel = argv[2];
    const char *args[] = {"/mnt", NULL};
    if (cc_init() || cc_oci_client_new(&client, &err) || cc_oci_client_load_tar(client, argv[1], NULL, &source, &err) ||
        cc_instance_new(source, &o, &vm, &err) || cc_cmd_new(vm, "/mnt/share_guest", args, &cmd, &err) ||
        cc_cmd_output(cmd, &out, &n, &status, &err))
        fprintf(stderr, "%s\n", err.message ? err.message : "failed");
    printf("%.*s", (int)n, out ? (const char *)out : "");
    cc_free_bytes(out);
    cc_cmd_free(cmd);
    (void)cc_instance_close(vm, NULL);
    cc_instance_source_free(source);
    cc_oci_client_free(client);
    cc_error_free(&err);
    cc_shutdown();
    return status;
}
