/*
 * The rig's init (riginit.c): the machine around the command. Modules, clock, randomness, file systems.
 */
#ifndef RIGINIT_MACHINE_H
#define RIGINIT_MACHINE_H

#include <linux/random.h>
#include <net/if.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "riginit_port.h"

static int kernel_argument(const char *word)
{
    char line[4096] = "";
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    return n > 0 && strstr(line, word) != NULL;
}

static void mount_or_fail(const char *what, const char *where, const char *type, unsigned long flags, const char *data)
{
    mkdir(where, 0755);
    if (mount(what, where, type, flags, data) != 0)
        fail("cannot mount %s on %s: %s", what, where, strerror(errno));
}

/* Loads the modules of a stock kernel, listed in dependency order. Our own rig kernel has none. */
static void load_modules(void)
{
    char path[256];
    FILE *list = fopen("/modules.list", "re");
    while (list && fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
            fprintf(stderr, "rig init: cannot load %s: %s\n", path, strerror(errno));
        close(fd);
    }
    if (list)
        fclose(list);
}

static void set_clock(const char *text)
{
    struct timespec now = {0};
    char *end;
    now.tv_sec = strtoll(text, &end, 10);
    if (*end == '.')
        now.tv_nsec = strtol(end + 1, NULL, 10);
    clock_settime(CLOCK_REALTIME, &now);
}

/* Every resume starts from the same saved random pool; without this, two runs would draw the same "random" names. */
static void seed_random(const char *hex)
{
    int pool[2 + 16] = {0}; /* a struct rand_pool_info: bits of entropy, bytes that follow, the bytes */
    unsigned char *bytes = (unsigned char *)(pool + 2);
    int n = 0;
    while (n < 64 && hex[2 * n] && hex[2 * n + 1]) {
        char pair[3] = {hex[2 * n], hex[2 * n + 1], 0};
        bytes[n++] = (unsigned char)strtoul(pair, NULL, 16);
    }
    pool[0] = n * 8;
    pool[1] = n;
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    ioctl(fd, RNDADDENTROPY, pool);
    ioctl(fd, RNDRESEEDCRNG);
    close(fd);
}

static void bring_up_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (fd >= 0) {
        ioctl(fd, SIOCSIFFLAGS, &request);
        close(fd);
    }
}

/* The usual kernel filesystems under the root in which the command will run. */
static void mount_kernel_filesystems(void)
{
    mount_or_fail("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL);
    mount_or_fail("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620");
    mount_or_fail("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    symlink("/proc/self/fd", "/dev/fd");
    symlink("/proc/self/fd/0", "/dev/stdin");
    symlink("/proc/self/fd/1", "/dev/stdout");
    symlink("/proc/self/fd/2", "/dev/stderr");
    symlink("pts/ptmx", "/dev/ptmx");
}

/*
 * The host's whole root, read-only over 9p, under an overlay that keeps every write in memory: a program built on the
 * host finds its libraries, its data and its own absolute path, and cannot harm them.
 */
static void enter_host_root(void)
{
    mount_or_fail("tmpfs", "/overlay", "tmpfs", 0, "mode=0755");
    mkdir("/overlay/host", 0755);
    mkdir("/overlay/upper", 0755);
    mkdir("/overlay/work", 0755);
    mkdir("/overlay/root", 0755);
    mount_or_fail("host", "/overlay/host", "9p", MS_RDONLY,
                  "trans=virtio,version=9p2000.L,cache=loose,access=any,msize=512000");
    mount_or_fail("overlay", "/overlay/root", "overlay", 0,
                  "lowerdir=/overlay/host,upperdir=/overlay/upper,workdir=/overlay/work");
    if (chdir("/overlay/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0)
        fail("cannot enter the host's root: %s", strerror(errno));
    mount_kernel_filesystems();
    mount_or_fail("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
}

/* ---- clocks ------------------------------------------------------------------------------------------------ */

/* The time-stamp counter's frequency, for tools/rig: emulation hands the host's counter to the machine, whose kernel
 * would calibrate it against an emulated timer, and fail on a busy host. */
static int print_tsc_khz(void)
{
    struct timespec from, to;
    uint64_t ns, ticks = 0, start;
    clock_gettime(CLOCK_MONOTONIC_RAW, &from);
    start = __builtin_ia32_rdtsc();
    do {
        clock_gettime(CLOCK_MONOTONIC_RAW, &to);
        ticks = __builtin_ia32_rdtsc() - start;
        ns = (uint64_t)(to.tv_sec - from.tv_sec) * 1000000000u + (uint64_t)to.tv_nsec - (uint64_t)from.tv_nsec;
    } while (ns < 20000000);
    return printf("%llu\n", (unsigned long long)((double)ticks * 1e6 / (double)ns)) < 0;
}

/* Whether a file of the kernel's has this text; for short ones. */
static int file_has(const char *path, const char *text)
{
    char buffer[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buffer, sizeof buffer - 1);
    close(fd);
    buffer[n < 0 ? 0 : n] = 0;
    return strstr(buffer, text) != NULL;
}

/* Why this machine's clocks are not good enough to be saved for all later runs; NULL if they are. A kernel whose
 * calibration was disturbed goes on with a coarse clock, or without a timer in each processor. */
static const char *clock_trouble(void)
{
    if (!file_has("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"))
        return "its kernel did not take the time-stamp counter for a clock";
    if (!file_has("/sys/devices/system/clockevents/clockevent0/current_device", "lapic"))
        return "its kernel could not calibrate the processor's timer";
    return NULL;
}

#endif
