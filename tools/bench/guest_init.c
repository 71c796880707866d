/*
 * PID 1 of the peers' guests in the benchmarks of a cold start.
 *
 *     init            writes to port 0xf4 (naive_loader waits for that) and stops
 *     init DEVICE     mounts /dev/vda read-only, runs `/bin/busybox echo hello` in it with DEVICE (of /dev) as its
 *                     standard output, and resets the machine. This is less than our agent does for the same output: no
 * scratch disk and overlay, no /proc and /sys, no connection to the host.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

static void run(const char *device)
{
    static char *const argv[] = {"/bin/busybox", "echo", "hello", NULL};
    static char *const env[] = {NULL};
    int fd = mount("dev", "/dev", "devtmpfs", 0, NULL) || chdir("/dev") ? -1 : open(device, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || mount("/dev/vda", "/root", "ext4", MS_RDONLY | MS_NOATIME, NULL) || chroot("/root") || chdir("/"))
        return;
    if (vfork() == 0) {
        if (dup2(fd, 1) == 1)
            execve(argv[0], argv, env);
        _exit(127);
    }
    wait(NULL);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        int port = open("/dev/port", O_WRONLY);
        if (pwrite(port, "", 1, 0xf4) != 1)
            return 1;
    } else {
        run(argv[1]);
    }
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}
