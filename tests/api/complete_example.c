/*
 * The "Complete Example" of the interface that cc.h implements, kept exactly as it was published: a program that was
 * written for libcc.h has to compile and run unchanged. Run by test_complete_example.py. Do not edit it, nor its
 * layout.
 */
// clang-format off
// example.c
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libcc.h"

int main(int argc, char** argv) {
    cc_error err = {0};

    // Initialize library
    if (cc_init() != CC_OK) {
        fprintf(stderr, "Failed to initialize cc\n");
        return 1;
    }

    // Check hypervisor availability
    if (cc_supports_hypervisor(&err) != CC_OK) {
        fprintf(stderr, "Hypervisor not available: %s\n", err.message);
        cc_error_free(&err);
        cc_shutdown();
        return 1;
    }

    // Create OCI client
    cc_oci_client client = 0;
    if (cc_oci_client_new(&client, &err) != CC_OK) {
        fprintf(stderr, "Failed to create client: %s\n", err.message);
        cc_error_free(&err);
        cc_shutdown();
        return 1;
    }

    // Pull image
    cc_instance_source source = 0;
    cc_pull_options pull_opts = {
        .platform_os = "linux",
        .platform_arch = NULL,  // Use host architecture
        .policy = CC_PULL_IF_NOT_PRESENT,
    };

    printf("Pulling alpine:latest...\n");
    if (cc_oci_client_pull(client, "alpine:latest", &pull_opts,
                           NULL, NULL, &source, &err) != CC_OK) {
        fprintf(stderr, "Failed to pull image: %s\n", err.message);
        cc_error_free(&err);
        cc_oci_client_free(client);
        cc_shutdown();
        return 1;
    }

    // Create instance
    cc_instance inst = 0;
    cc_instance_options inst_opts = {
        .memory_mb = 256,
        .cpus = 1,
        .timeout_seconds = 60.0,
    };

    printf("Creating instance...\n");
    if (cc_instance_new(source, &inst_opts, &inst, &err) != CC_OK) {
        fprintf(stderr, "Failed to create instance: %s\n", err.message);
        cc_error_free(&err);
        cc_instance_source_free(source);
        cc_oci_client_free(client);
        cc_shutdown();
        return 1;
    }

    // Write a file
    const char* content = "Hello from C!";
    if (cc_fs_write_file(inst, "/tmp/hello.txt",
                         (const uint8_t*)content, strlen(content),
                         0644, &err) != CC_OK) {
        fprintf(stderr, "Failed to write file: %s\n", err.message);
        cc_error_free(&err);
    }

    // Read it back
    uint8_t* data = NULL;
    size_t len = 0;
    if (cc_fs_read_file(inst, "/tmp/hello.txt", &data, &len, &err) == CC_OK) {
        printf("File contents: %.*s\n", (int)len, data);
        cc_free_bytes(data);
    }

    // Run a command
    const char* args[] = {"cat", "/etc/os-release", NULL};
    cc_cmd cmd = 0;
    if (cc_cmd_new(inst, "cat", args + 1, &cmd, &err) != CC_OK) {
        fprintf(stderr, "Failed to create command: %s\n", err.message);
        cc_error_free(&err);
    } else {
        uint8_t* output = NULL;
        size_t output_len = 0;
        int exit_code = 0;

        if (cc_cmd_output(cmd, &output, &output_len, &exit_code, &err) == CC_OK) {
            printf("OS Release:\n%.*s\n", (int)output_len, output);
            printf("Exit code: %d\n", exit_code);
            cc_free_bytes(output);
        } else {
            fprintf(stderr, "Command failed: %s\n", err.message);
            cc_error_free(&err);
        }
    }

    // Cleanup
    cc_instance_close(inst, &err);
    cc_instance_source_free(source);
    cc_oci_client_free(client);
    cc_shutdown();

    return 0;
}
