/*
 * share_guest [DIRECTORY]: what bench_share_vm.sh measures in a guest, on a share with the files "big" and "more" of 24
 * MB and the directory "tree". As PID 1 it mounts the share "bench" itself, and resets the machine in the end, which
 * ends it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MB = 24, RANDOM = 1000 };

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A page that no other i has. */
static off_t page(int i)
{
    return (off_t)(i * 2503 % (MB * 256)) * 4096;
}

static int seen(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)path;
    (void)st;
    (void)type;
    (void)f;
    return 0;
}

static void measure(void)
{
    static char buf[1 << 20];
    ssize_t n = 0;
    int fd = open("big", O_RDONLY);
    double t = now();
    while (read(fd, buf, sizeof(buf)) > 0)
        n++;
    printf("share read_1M %.3f\n", MB * 1.048576 / (now() - t));
    int out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    t = now();
    for (int i = 0; i < MB; i++)
        n += write(out, buf, sizeof(buf));
    printf("share write_1M %.3f\n", MB * 1.048576 / (now() - t));
    int more = open("more", O_RDWR);
    (void)posix_fadvise(more, 0, 0, POSIX_FADV_RANDOM);
    t = now();
    for (int i = 0; i < RANDOM; i++)
        n += pread(more, buf, 4096, page(i));
    printf("share random_read_4k %.3f\n", RANDOM / (now() - t));
    t = now();
    for (int i = 0; i < RANDOM; i++)
        n += pwrite(out, buf, 4096, page(i));
    printf("share random_write_4k %.3f\n", RANDOM / (now() - t));
    t = now();
    (void)nftw("tree", seen, 20, FTW_PHYS);
    printf("share walk %.4f\n", now() - t);
    if (n < 2 * MB)
        printf("share failed 0\n");
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : "/mnt";
    if (getpid() == 1) {
        (void)mkdir("/mnt", 0755);
        if (mount("bench", "/mnt", "virtiofs", MS_NODEV | MS_NOSUID, NULL))
            perror("mount");
    }
    if (chdir(dir))
        perror(dir);
    else
        measure();
    (void)fflush(stdout);
    if (getpid() == 1)
        (void)reboot(RB_AUTOBOOT);
    return 0;
}
