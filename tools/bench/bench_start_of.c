/*
 * bench_start_of COMMAND...: ticks of the time-stamp counter from starting the command to "hello\n" in its output,
 * twice. For a peer that is a program; see bench_start.c.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

extern char **environ;

static int start(const char *name, char **argv)
{
    char text[4096];
    size_t n = 0;
    ssize_t got;
    pid_t pid;
    int out[2], status;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (pipe2(out, O_CLOEXEC) || posix_spawn_file_actions_adddup2(&actions, out[1], 1))
        return 1;
    uint64_t began = __rdtsc(), ended = 0;
    if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ)) {
        perror(argv[0]);
        return 1;
    }
    close(out[1]);
    while ((got = read(out[0], text + n, sizeof(text) - 1 - n)) > 0) {
        n += (size_t)got;
        text[n] = 0;
        if (strstr(text, "hello\n") || strstr(text, "hello\r\n")) {
            ended = __rdtsc();
            break;
        }
    }
    while (read(out[0], text, sizeof(text)) > 0)
        ;
    close(out[0]);
    waitpid(pid, &status, 0);
    if (!ended) {
        fprintf(stderr, "bench_start_of: no \"hello\"; status %#x\n", (unsigned)status);
        return 1;
    }
    printf("%s total=%.6f\n", name, (double)(ended - began) / 1e6);
    return 0;
}

int main(int argc, char **argv)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), kept = ioctl(kvm, KVM_CREATE_VM, 0);
    if (argc < 2 || kept < 0)
        return 2;
    return start("first", argv + 1) || start("second", argv + 1);
}
