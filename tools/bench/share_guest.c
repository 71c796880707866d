/*
 * share_guest [DIRECTORY]: what bench_share_vm.sh measures in a guest, on a share with the files "big" and "more" of 24
 * MB, the directory "tree", git with its libraries in "tools", and the checkout "repo". As PID 1 it mounts the share
 * "bench" itself, and resets the machine in the end, which ends it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
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

/* Copies what is in "tools" into the guest's memory. */
static int copy_tools(void)
{
    char path[300];
    const struct dirent *e;
    DIR *d = opendir("tools");
    (void)mkdir("/tools", 0755);
    if (!d || mount("tmpfs", "/tools", "tmpfs", 0, NULL))
        return -1;
    while ((e = readdir(d))) {
        struct stat st;
        (void)snprintf(path, sizeof(path), "tools/%s", e->d_name);
        int in = open(path, O_RDONLY);
        if (in < 0 || fstat(in, &st) || !S_ISREG(st.st_mode)) {
            if (in >= 0)
                close(in);
            continue;
        }
        (void)snprintf(path, sizeof(path), "/tools/%s", e->d_name);
        int out = open(path, O_WRONLY | O_CREAT, 0755);
        while (sendfile(out, in, NULL, 1 << 30) > 0)
            ;
        close(in);
        close(out);
    }
    return closedir(d);
}

/* Runs git's command in the directory, its output thrown away: 0 when it succeeded. */
static int git(const char *dir, const char *command)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        (void)dup2(null, 1);
        (void)setenv("HOME", "/", 1);
        (void)setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
        (void)execl("/tools/ld.so", "ld.so", "--library-path", "/tools", "/tools/git", "-C", dir, command,
                    (char *)NULL);
        _exit(127);
    }
    return pid < 0 || waitpid(pid, &status, 0) < 0 || status;
}

static void measure_git(void)
{
    if (copy_tools() || git("/", "version")) {
        printf("share failed git\n");
        return;
    }
    double t = now();
    if (git("repo", "status"))
        printf("share failed git_status\n");
    else
        printf("share git_status %.4f\n", now() - t);
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
    measure_git();
    if (n < 2 * MB)
        printf("share failed 0\n");
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : "/mnt";
    if (getpid() == 1) {
        (void)mkdir("/mnt", 0755);
        (void)mkdir("/dev", 0755);
        (void)mknod("/dev/null", S_IFCHR | 0666, makedev(1, 3)); /* git opens it */
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
