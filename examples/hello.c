/*
 * hello.c - runs a command in an image: hello IMAGE.tar [COMMAND [ARGUMENT...]]
 *
 * cc -I.. hello.c -o hello -lpthread -lbearssl      (from a checkout; with dist/cc.h alone: -I is its folder, and
 *                                                    no -lbearssl)
 */
#define CC_IMPLEMENTATION
#include "cc.h"

#include <stdio.h>

static int fail(const char *what, cc_error *err)
{
    fprintf(stderr, "hello: %s: %s\n", what, err->message ? err->message : "out of memory");
    cc_error_free(err);
    cc_shutdown(); /* closes and frees whatever there is */
    return 1;
}

int main(int argc, char **argv)
{
    static const char *const default_command[] = {"uname", "-srm", NULL};
    if (argc < 2) {
        fprintf(stderr, "usage: hello IMAGE.tar [COMMAND [ARGUMENT...]]\n");
        return 2;
    }
    const char *const *command = argc > 2 ? (const char *const *)argv + 2 : default_command;

    cc_error err = {0};
    cc_init();
    if (cc_supports_hypervisor(&err) != CC_OK)
        return fail("no hypervisor", &err);

    cc_oci_client client = 0;
    cc_instance_source source = 0;
    if (cc_oci_client_new(&client, &err) != CC_OK ||
        cc_oci_client_load_tar(client, argv[1], NULL, &source, &err) != CC_OK)
        return fail("cannot load the image", &err);

    cc_instance_options options = {0};
    options.memory_mb = 256;
    options.timeout_seconds = 60.0;
    cc_instance inst = 0;
    if (cc_instance_new(source, &options, &inst, &err) != CC_OK)
        return fail("cannot start the instance", &err);

    cc_cmd cmd = 0;
    uint8_t *output = NULL;
    size_t len = 0;
    int exit_code = 0;
    if (cc_cmd_new(inst, command[0], command + 1, &cmd, &err) != CC_OK ||
        cc_cmd_output(cmd, &output, &len, &exit_code, &err) != CC_OK)
        return fail("cannot run the command", &err);
    fwrite(output, 1, len, stdout);

    cc_free_bytes(output);
    cc_instance_close(inst, NULL);
    cc_shutdown();
    return exit_code;
}
