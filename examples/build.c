/*
 * build.c - builds a C project of this host in a guest, and fetches the program: build IMAGE.tar PROJECT PROGRAM
 *
 * The image has make and a compiler. The guest sees the project's directory read-only, builds in a copy of its own, and
 * leaves no trace on the host but PROGRAM, in the current directory.
 */
#define CC_IMPLEMENTATION
#include "cc.h"

#include <stdio.h>

static int fail(const char *what, cc_error *err)
{
    fprintf(stderr, "build: %s: %s\n", what, err->message ? err->message : "out of memory");
    cc_error_free(err);
    cc_shutdown(); /* closes and frees whatever there is */
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: build IMAGE.tar PROJECT PROGRAM\n");
        return 2;
    }
    cc_error err = {0};
    cc_oci_client client = 0;
    cc_instance_source source = 0;
    cc_init();
    if (cc_oci_client_new(&client, &err) != CC_OK ||
        cc_oci_client_load_tar(client, argv[1], NULL, &source, &err) != CC_OK)
        return fail("cannot load the image", &err);

    cc_mount_config project = {.host_path = argv[2], .guest_path = "/src"};
    cc_instance_options options = {.memory_mb = 512, .mounts = &project, .mount_count = 1};
    cc_instance inst = 0;
    if (cc_instance_new(source, &options, &inst, &err) != CC_OK)
        return fail("cannot start the instance", &err);

    const char *args[] = {"-c", "cp -r /src /build && make -C /build", NULL};
    cc_cmd make = 0;
    int exit_code = 0;
    if (cc_cmd_new(inst, "sh", args, &make, &err) != CC_OK || cc_cmd_set_stdout_fd(make, 1, &err) != CC_OK ||
        cc_cmd_set_stderr_fd(make, 2, &err) != CC_OK || cc_cmd_run(make, &exit_code, &err) != CC_OK)
        return fail("cannot run make", &err);

    char from[256];
    (void)snprintf(from, sizeof(from), "/build/%s", argv[3]);
    if (exit_code == 0 && cc_fs_copy_out(inst, from, argv[3], NULL, &err) != CC_OK)
        return fail("cannot fetch the program", &err);
    cc_instance_close(inst, NULL);
    cc_shutdown();
    return exit_code;
}
