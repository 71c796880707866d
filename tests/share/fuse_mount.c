/*
 * Mounts a directory through our FUSE server, for tests by other programs and for measuring:
 *
 *     fuse_mount [-r] [-i] HOST_DIR MOUNT_POINT COMMAND [ARGUMENT...]
 *
 * runs the command, unmounts, and ends with the command's exit code. -r: read-only; -i: owners the same on both sides.
 */
#include "fuse_mount.h"

#include <sys/wait.h>

int main(int argc, char **argv)
{
    struct cci_share_config config = {.writable = true};
    struct fuse_mount m;
    int at = 1, status = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (argv[at][1] == 'r')
            config.writable = false;
        else
            config.identity = true;
    }
    if (argc - at < 3) {
        fprintf(stderr, "usage: fuse_mount [-r] [-i] HOST_DIR MOUNT_POINT COMMAND...\n");
        return 2;
    }
    config.host_path = argv[at];
    if (fuse_mount_begin(&m, &config, argv[at + 1]))
        return 2;
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[at + 2], argv + at + 2);
        _exit(127);
    }
    if (child > 0)
        waitpid(child, &status, 0);
    fuse_mount_end(&m);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
