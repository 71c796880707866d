/*
 * complete.c - every step with its errors and its cleaning up: complete IMAGE.tar
 *
 * Where hello.c leaves the cleaning up to cc_shutdown, this gives everything back by itself, in the reverse order.
 */
#define CC_IMPLEMENTATION
#include "cc.h"

#include <stdio.h>
#include <string.h>

/* Says what went wrong, and releases the error for the next call. */
static int failed(const char *step, cc_error *err)
{
    fprintf(stderr, "%s: %s (%s%s%s)\n", step, err->message ? err->message : "out of memory", err->op ? err->op : "?",
            err->path ? " " : "", err->path ? err->path : "");
    cc_error_free(err);
    return 1;
}

/* Writes a file in the guest and reads it back. */
static int use_files(cc_instance inst)
{
    static const char text[] = "Hello from C!";
    cc_error err = {0};
    uint8_t *data = NULL;
    size_t len = 0;
    if (cc_fs_write_file(inst, "/tmp/hello.txt", (const uint8_t *)text, strlen(text), 0644, &err) != CC_OK)
        return failed("cannot write a file", &err);
    if (cc_fs_read_file(inst, "/tmp/hello.txt", &data, &len, &err) != CC_OK)
        return failed("cannot read a file", &err);
    printf("File contents: %.*s\n", (int)len, (const char *)data);
    cc_free_bytes(data);
    return 0;
}

/* Runs a command. It is not freed here: that comes with the instance's close. */
static int use_command(cc_instance inst)
{
    const char *args[] = {"/etc/passwd", NULL}; /* without the program's name */
    cc_error err = {0};
    cc_cmd cmd = 0;
    uint8_t *output = NULL;
    size_t len = 0;
    int exit_code = 0;
    if (cc_cmd_new(inst, "cat", args, &cmd, &err) != CC_OK)
        return failed("cannot make a command", &err);
    if (cc_cmd_output(cmd, &output, &len, &exit_code, &err) != CC_OK)
        return failed("cannot run the command", &err);
    printf("Users:\n%.*sExit code: %d\n", (int)len, (const char *)output, exit_code);
    cc_free_bytes(output);
    return exit_code;
}

static int use_image(cc_instance_source source)
{
    cc_error err = {0};
    cc_instance inst = 0;
    cc_instance_options options = {
        .memory_mb = 256,
        .cpus = 1,
        .timeout_seconds = 60.0,
    };
    printf("Creating instance...\n");
    if (cc_instance_new(source, &options, &inst, &err) != CC_OK)
        return failed("cannot create the instance", &err);
    int result = use_files(inst);
    if (result == 0)
        result = use_command(inst);
    if (cc_instance_close(inst, &err) != CC_OK)
        result = failed("cannot close the instance", &err);
    return result;
}

static int use_client(cc_oci_client client, const char *path)
{
    cc_error err = {0};
    cc_instance_source source = 0;
    cc_pull_options options = {
        .platform_os = "linux",
        .platform_arch = NULL, /* this host's */
        .policy = CC_PULL_IF_NOT_PRESENT,
    };
    printf("Loading %s...\n", path);
    if (cc_oci_client_load_tar(client, path, &options, &source, &err) != CC_OK)
        return failed("cannot load the image", &err);
    int result = use_image(source);
    cc_instance_source_free(source);
    return result;
}

int main(int argc, char **argv)
{
    cc_error err = {0};
    cc_oci_client client = 0;
    int result = 1;
    if (argc != 2) {
        fprintf(stderr, "usage: complete IMAGE.tar\n");
        return 2;
    }
    if (cc_init() != CC_OK)
        return 1;
    if (cc_supports_hypervisor(&err) != CC_OK) {
        result = failed("no hypervisor", &err);
    } else if (cc_oci_client_new(&client, &err) != CC_OK) {
        result = failed("cannot open the image cache", &err);
    } else {
        result = use_client(client, argv[1]);
        cc_oci_client_free(client);
    }
    cc_shutdown();
    return result;
}
