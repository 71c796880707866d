/*
 * From the kernel's first exec to a root filesystem that is the image's.
 *
 *   initramfs   this program, and the modules the host appended (/lib/modules/cc, file "order")
 *   /lower      the image's disk, read-only
 *   /upper      the scratch disk, for changes
 *   /root       overlay of both; becomes /
 *
 * Every system call here is paid at each start of a machine, so there are no probes and no retries:
 * device nodes exist once the drivers have been loaded, since virtio devices are found synchronously.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODULE_DIR "/lib/modules/cc/"
#define OVERLAY                                                                                                        \
    "lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work,"                                                       \
    "redirect_dir=off,metacopy=off,index=off"
enum { MODULE_COMPRESSED = 4 }; /* MODULE_INIT_COMPRESSED_FILE */

struct mounting {
    const char *source, *target, *type;
    unsigned long flags;
    const char *options;
    bool optional; /* a kernel without this filesystem is fine */
};

/* ---- modules --------------------------------------------------------------------------------- */

static void load_module(const char *name)
{
    char *path = join(MODULE_DIR, name, "");
    size_t n = strlen(name);
    bool plain = n > 3 && !strcmp(name + n - 3, ".ko");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", plain ? 0 : MODULE_COMPRESSED)) {
        /* ENODEV: a driver whose device this machine does not have. */
        if (errno != EEXIST && errno != ENODEV) {
            say("module", name, errno);
            end_agent();
        }
    }
    if (fd >= 0)
        close(fd);
    unlink(path); /* its memory is the guest's */
    free(path);
}

static void load_modules(void)
{
    char list[8192], *line = list, *end;
    ssize_t n;
    int fd = open(MODULE_DIR "order", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* the kernel has everything built in */
    n = read(fd, list, sizeof list - 1);
    close(fd);
    if (n < 0 || n == sizeof list - 1)
        die(MODULE_DIR "order", n < 0 ? errno : EFBIG);
    list[n] = 0;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        if (*line)
            load_module(line);
        line = end + 1;
    }
}

/* ---- mounts ---------------------------------------------------------------------------------- */

static bool failed(const char *what, int err)
{
    agent.boot_errno = err;
    agent.boot_what = what;
    say(what, NULL, err);
    return false;
}

static bool mount_one(const struct mounting *m)
{
    int err = 0;
    if (mount(m->source, m->target, m->type, m->flags, m->options))
        err = errno;
    /* The image may lack the directory; it may be the device that is missing, too. */
    if (err == ENOENT && mkdir(m->target, 0755) == 0)
        err = mount(m->source, m->target, m->type, m->flags, m->options) ? errno : 0;
    if (!err || (m->optional && (err == ENODEV || err == ENOENT)))
        return true;
    return failed(join(join("cannot mount ", m->source, " on "), m->target, ""), err);
}

static bool mount_disks(const struct boot_options *o)
{
    bool memory = !strcmp(o->scratch, "tmpfs");
    const struct mounting disks[] = {
        {o->root, "/lower", "ext4", MS_RDONLY | MS_NOATIME, NULL, false},
        /* What is written is gone with the machine: a file that is rewritten need not be flushed when it is closed. */
        {o->scratch, "/upper", memory ? "tmpfs" : "ext4", MS_NOATIME, memory ? NULL : "discard,noauto_da_alloc", false},
    };
    const struct mounting overlay = {"overlay", "/root", "overlay", 0, OVERLAY, false};
    if (!mount_one(&disks[0]) || !mount_one(&disks[1]))
        return false;
    mkdir("/upper/upper", 0755); /* on a scratch disk the host has made them */
    mkdir("/upper/work", 0755);
    return mount_one(&overlay);
}

/* The overlay becomes the root; /dev moves along. */
static bool switch_root(void)
{
    const struct mounting dev = {"/dev", "/root/dev", NULL, MS_MOVE, NULL, false};
    if (!mount_one(&dev))
        return false;
    if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        return failed("cannot change to the image's root", errno);
    agent.own_root = true;
    return true;
}

static bool mount_kernel_filesystems(void)
{
    static const struct mounting list[] = {
        {"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
        {"sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
        {"cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
        {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", true},
        {"shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false},
        {"mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
    };
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"}, {"/proc/kcore", "/dev/core"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!mount_one(&list[i]))
            return false;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) && errno != EEXIST)
            return failed("/dev links", errno);
    return true;
}

/* 127.0.0.1 comes by itself with the interface. A kernel without IPv4 has nothing to bring up. */
static void loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (ioctl(fd, SIOCSIFFLAGS, &r))
        say("lo", NULL, errno);
    close(fd);
}

void boot_machine(const struct boot_options *o)
{
    const struct mounting dev = {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755", false};
    load_modules();
    serve_vsock(); /* the host takes the connection while we mount */
    if (mount_one(&dev) && mount_disks(o) && switch_root() && mount_kernel_filesystems())
        loopback_up();
    conn_hello();
}

/* ---- as a process on the host ---------------------------------------------------------------- */

static void write_map(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path, errno);
    close(fd);
}

static char *decimal(unsigned n)
{
    static char digits[16];
    char *p = digits + sizeof digits - 1;
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    return p;
}

/* Own mounts and process numbers; for an ordinary user, in a user namespace where he is root. */
static void enter_namespaces(void)
{
    unsigned uid = geteuid(), gid = getegid();
    int flags = CLONE_NEWNS | CLONE_NEWPID | (uid ? CLONE_NEWUSER : 0);
    pid_t pid;
    int status;
    if (unshare(flags))
        die("namespaces", errno);
    if (uid) {
        write_map("/proc/self/setgroups", "deny");
        write_map("/proc/self/uid_map", join("0 ", decimal(uid), " 1"));
        write_map("/proc/self/gid_map", join("0 ", decimal(gid), " 1"));
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        die("private mounts", errno);
    pid = fork();
    if (pid < 0)
        die("fork", errno);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* who ends the parent means us */
        return;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static void enter_root(const char *root)
{
    char *proc = join(root, "/proc", ""), *dev = join(root, "/dev", "");
    /* A tree without these directories does without the mounts. */
    if (mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) && errno != ENOENT)
        die(proc, errno);
    if (mount("/dev", dev, NULL, MS_BIND | MS_REC, NULL) && errno != ENOENT)
        die(dev, errno);
    if (chroot(root))
        die(root, errno);
    free(proc);
    free(dev);
    agent.own_root = true;
}

void boot_process(const char *socket_path, const char *root)
{
    /* Whatever else we were started with is no business of the commands'. */
    if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC))
        die("close_range", errno);
    serve_unix(socket_path);
    if (setgroups(0, NULL) && errno != EPERM)
        die("groups", errno);
    enter_namespaces();
    if (root)
        enter_root(root);
    if (chdir("/"))
        die("/", errno);
    if (write(1, "ready\n", 6) < 0)
        die("standard output", errno);
}
