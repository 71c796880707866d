/*
 * bench_memory IMAGE.tar KERNEL: memory of this process with a guest running in it, less the guest's own RAM.
 *
 * Private_Dirty of every mapping, in kB: before the start, and with an instance that has run a command and answered.
 * The guest's RAM is the mapping of at least 128 MiB of which anything is dirty; what it has touched is told apart.
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <stdlib.h>

static cc_error err;

static void must(cc_error_code code, const char *what)
{
    if (!code)
        return;
    fprintf(stderr, "bench_memory: %s: %s\n", what, err.message ? err.message : "?");
    exit(1);
}

static void look(unsigned long *own, unsigned long *ram)
{
    char line[512];
    unsigned long size = 0, dirty;
    FILE *f = fopen("/proc/self/smaps", "r");
    *own = *ram = 0;
    while (f && fgets(line, sizeof(line), f)) {
        (void)sscanf(line, "Size: %lu", &size);
        if (sscanf(line, "Private_Dirty: %lu", &dirty) == 1)
            *(size >= 128 * 1024 ? ram : own) += dirty;
    }
    if (f)
        fclose(f);
}

int main(int argc, char **argv)
{
    static const char *const args[] = {"hello", NULL};
    char dir[] = "/tmp/bench-memory-XXXXXX";
    unsigned long before, with, ram;
    cc_oci_client client;
    cc_instance_source image;
    cc_instance_options o = {0};
    cc_instance vm;
    cc_cmd cmd;
    uint8_t *out;
    size_t len;
    if (argc != 3 || !mkdtemp(dir))
        return 2;
    o.kernel = argv[2];
    must(cc_init(), "init");
    must(cc_supports_hypervisor(&err), "hypervisor");
    must(cc_oci_client_new_with_cache(dir, &client, &err), "cache");
    must(cc_oci_client_load_tar(client, argv[1], NULL, &image, &err), argv[1]);
    look(&before, &ram);
    must(cc_instance_new(image, &o, &vm, &err), "start");
    must(cc_cmd_new(vm, "echo", args, &cmd, &err), "command");
    must(cc_cmd_output(cmd, &out, &len, NULL, &err), "output");
    look(&with, &ram);
    printf("bench memory_before_start ours=%lu unit=kB\n", before);
    printf("bench memory_beyond_guest_ram ours=%lu unit=kB\n", with);
    printf("bench memory_guest_ram_touched ours=%lu unit=kB\n", ram);
    cc_free_bytes(out);
    cc_cmd_free(cmd);
    must(cc_instance_close(vm, &err), "close");
    cc_instance_source_free(image);
    cc_oci_client_free(client);
    cc_shutdown();
    return 0;
}
