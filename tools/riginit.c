/*
 * PID 1 of the rig's outer machine: takes one job from the host, runs it, sends back what it printed.
 *
 * The machine is QEMU's microvm in software emulation, with KVM inside (see tools/rig). This program is the whole
 * of its initramfs besides the kernel modules of a stock kernel. It works in one of two ways:
 *
 *   template   It opens the one virtio-serial port, says "ready" and waits there. In that state tools/rig saves the
 *              machine; every later run resumes the saved copy, so nothing of the boot is paid again. The job that
 *              then arrives names the 9p shares to mount (they must not be mounted before: QEMU refuses to save a
 *              machine with a mounted 9p), the command, its directory and environment.
 *   virtual    (`rig.virtual` on the kernel's command line.) The job lies in the initramfs as /rig.job, together
 *              with every file the command needs. There is no 9p, no overlay and no traffic with the host until the
 *              command has ended: output is kept in files, so that a machine in instruction-count mode repeats
 *              exactly.
 *
 * The port carries frames both ways: one type byte, a 32-bit little-endian length, the payload.
 *   to the guest:  'j' job, 'i' bytes for standard input ('i' of length 0 ends it)
 *   to the host:   'r' ready, 's' the command starts now, 'o' / 'e' bytes of standard output / error, 'x' wait status
 * in decimal, 'f' failure of the rig itself, in words A job is a list of strings, each with one leading type letter and
 * ended by a NUL: t SECONDS.NANOS  the time of day      s HEX   seed for the kernel's random pool (a resumed machine
 * has a stale one) w TAG PATH       a writable share     d DIR   working directory    e NAME=VALUE    a ARGUMENT i
 * standard input follows in frames (without it: /dev/null)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STRINGS = 4096, MAX_SHARES = 8, MAX_JOB = 4 << 20, CHUNK = 32768 };

struct job {
    char *arguments[MAX_STRINGS]; /* argv of the command, NULL-terminated */
    int argument_count;
    char *environment[MAX_STRINGS]; /* its whole environment, NULL-terminated */
    int environment_count;
    char *shares[MAX_SHARES]; /* "TAG PATH" of each writable share */
    int share_count;
    const char *directory; /* where the command starts */
    const char *time;      /* time of day, or NULL to leave the clock alone */
    const char *seed;      /* random bytes in hex, or NULL */
    int wants_input;       /* standard input comes in frames */
};

static int port = -1; /* the virtio-serial port; -1 until it is open */

/* ---- the port ---------------------------------------------------------------------------------------------- */

static void write_all(int fd, const void *data, size_t size)
{
    const char *next = data;
    while (size > 0) {
        ssize_t n = write(fd, next, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the host has gone: nobody is left to tell */
        next += n;
        size -= (size_t)n;
    }
}

static void send_frame(char type, const void *data, size_t size)
{
    unsigned char frame[5 + CHUNK];
    frame[0] = (unsigned char)type;
    for (int i = 0; i < 4; i++)
        frame[1 + i] = (unsigned char)(size >> (8 * i));
    memcpy(frame + 5, data, size);
    write_all(port, frame, 5 + size);
}

/* Reports a failure of the rig (not of the command) and stops the machine for good. */
static void fail(const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (port >= 0)
        send_frame('f', text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    else
        fprintf(stderr, "rig init: %s\n", text);
    for (;;)
        pause();
}

static void read_all(int fd, void *data, size_t size)
{
    char *next = data;
    while (size > 0) {
        ssize_t n = read(fd, next, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fail("the port to the host ended early");
        next += n;
        size -= (size_t)n;
    }
}

static size_t read_frame_header(char *type)
{
    unsigned char header[5];
    read_all(port, header, sizeof header);
    *type = (char)header[0];
    return (size_t)header[1] | (size_t)header[2] << 8 | (size_t)header[3] << 16 | (size_t)header[4] << 24;
}

/* The port's node appears when the host's control message has been handled, a little after the driver came up. */
static void open_port(void)
{
    for (int tries = 0; tries < 5000; tries++) {
        port = open("/dev/vport0p1", O_RDWR | O_CLOEXEC);
        if (port >= 0)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    fail("no /dev/vport0p1: the kernel lacks virtio-console or virtio-mmio");
}

/* ---- machine set-up ---------------------------------------------------------------------------------------- */

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

static void mount_shares(struct job *job)
{
    for (int i = 0; i < job->share_count; i++) {
        char *path = strchr(job->shares[i], ' ');
        if (!path)
            fail("bad share in the job: %s", job->shares[i]);
        *path++ = 0;
        mount_or_fail(job->shares[i], path, "9p", 0,
                      "trans=virtio,version=9p2000.L,cache=mmap,access=any,msize=512000");
        job->shares[i] = path;
    }
}

static void flush_shares(const struct job *job)
{
    for (int i = 0; i < job->share_count; i++) {
        int fd = open(job->shares[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            syncfs(fd);
            close(fd);
        }
    }
}

/* ---- the job ----------------------------------------------------------------------------------------------- */

static char *read_job_from_port(size_t *size)
{
    char type;
    *size = read_frame_header(&type);
    if (type != 'j' || *size > MAX_JOB)
        fail("expected a job from the host");
    char *text = malloc(*size + 1);
    if (!text)
        fail("out of memory");
    read_all(port, text, *size);
    text[*size] = 0;
    return text;
}

static char *read_job_from_file(size_t *size)
{
    struct stat info;
    int fd = open("/rig.job", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0 || info.st_size > MAX_JOB)
        fail("no job in the initramfs");
    *size = (size_t)info.st_size;
    char *text = malloc(*size + 1);
    if (!text)
        fail("out of memory");
    read_all(fd, text, *size);
    close(fd);
    text[*size] = 0;
    return text;
}

static void parse_job(struct job *job, char *text, size_t size)
{
    for (char *line = text; line < text + size; line += strlen(line) + 1) {
        char *value = line + (*line ? 1 : 0);
        if (job->argument_count + 1 >= MAX_STRINGS || job->environment_count + 1 >= MAX_STRINGS)
            fail("too many arguments or environment variables");
        switch (*line) {
        case 'a':
            job->arguments[job->argument_count++] = value;
            break;
        case 'e':
            job->environment[job->environment_count++] = value;
            break;
        case 'd':
            job->directory = value;
            break;
        case 't':
            job->time = value;
            break;
        case 's':
            job->seed = value;
            break;
        case 'i':
            job->wants_input = 1;
            break;
        case 'w':
            if (job->share_count == MAX_SHARES)
                fail("too many writable shares");
            job->shares[job->share_count++] = value;
            break;
        default:
            fail("unknown letter '%c' in the job", *line);
        }
    }
    if (job->argument_count == 0)
        fail("the job names no command");
}

/* In the child: becomes the command. Exit 127 and 126 as a shell would for a command that cannot be started. */
static void exec_command(const struct job *job, int input, int output, int error)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    dup2(input, 0);
    dup2(output, 1);
    dup2(error, 2);
    if (job->directory && chdir(job->directory) != 0) {
        dprintf(2, "rig: cannot enter %s: %s\n", job->directory, strerror(errno));
        _exit(126);
    }
    execvpe(job->arguments[0], job->arguments, job->environment);
    int reason = errno;
    dprintf(2, "rig: cannot run %s: %s\n", job->arguments[0], strerror(reason));
    _exit(reason == ENOENT ? 127 : 126);
}

static pid_t start_command(const struct job *job, int input, int output, int error)
{
    for (int i = 0; i < job->environment_count; i++) /* execvpe searches the PATH of this process */
        if (strncmp(job->environment[i], "PATH=", 5) == 0)
            putenv(job->environment[i]);
    pid_t child = fork();
    if (child < 0)
        fail("cannot fork: %s", strerror(errno));
    if (child == 0)
        exec_command(job, input, output, error);
    return child;
}

/* Reaps whatever ended (PID 1 inherits orphans). Returns true once `child` is among it. */
static int reap(pid_t child, int *status)
{
    int done = 0, one;
    pid_t pid;
    while ((pid = waitpid(-1, &one, WNOHANG)) > 0)
        if (pid == child) {
            *status = one;
            done = 1;
        }
    return done;
}

static void report_status(int status)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%d", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    send_frame('x', text, (size_t)n);
}

/* Passes on what a pipe holds now. Returns false at its end. */
static int relay(int fd, char type)
{
    char buffer[CHUNK];
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n > 0)
        send_frame(type, buffer, (size_t)n);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Passes one input frame on to the command; a command that no longer reads loses it, as with a closed pipe. */
static void relay_input(int *pipe_end)
{
    char type, buffer[CHUNK];
    size_t size = read_frame_header(&type);
    if (type != 'i' || size > sizeof buffer)
        fail("unexpected frame from the host");
    read_all(port, buffer, size);
    if (*pipe_end < 0)
        return;
    if (size > 0)
        write_all(*pipe_end, buffer, size);
    else {
        close(*pipe_end);
        *pipe_end = -1;
    }
}

static void make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) != 0)
        fail("cannot make a pipe: %s", strerror(errno));
}

/* Runs the command with pipes to the host until it ends and everything it printed has been passed on. */
static int run_with_pipes(const struct job *job)
{
    int out[2], err[2], in[2] = {-1, -1}, status = 0, running = 1;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int children = signalfd(-1, &set, SFD_CLOEXEC);
    make_pipe(out);
    make_pipe(err);
    if (job->wants_input)
        make_pipe(in);
    else
        in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t child = start_command(job, in[0], out[1], err[1]);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    struct pollfd set_of[4] = {
        {.fd = out[0], .events = POLLIN},
        {.fd = err[0], .events = POLLIN},
        {.fd = children, .events = POLLIN},
        {.fd = job->wants_input ? port : -1, .events = POLLIN},
    };
    /* After the command's end a background process may hold the pipes open: take what is there and go. */
    for (;;) {
        int n = poll(set_of, 4, running ? -1 : 0);
        if (n < 0 && errno != EINTR)
            fail("poll: %s", strerror(errno));
        if (!running && (n <= 0 || !(set_of[0].revents | set_of[1].revents)))
            break;
        if (n <= 0)
            continue;
        if (set_of[0].revents && !relay(out[0], 'o'))
            set_of[0].fd = -1;
        if (set_of[1].revents && !relay(err[0], 'e'))
            set_of[1].fd = -1;
        if (set_of[3].revents)
            relay_input(&in[1]);
        if (set_of[2].revents) {
            struct signalfd_siginfo info;
            if (read(children, &info, sizeof info) == (ssize_t)sizeof info && running)
                running = !reap(child, &status);
            else
                reap(child, &status);
            if (!running)
                set_of[2].fd = set_of[3].fd = -1;
        }
    }
    return status;
}

static void send_file(int fd, char type)
{
    lseek(fd, 0, SEEK_SET);
    char buffer[CHUNK];
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        send_frame(type, buffer, (size_t)n);
}

/* Virtual time: nothing goes to the host before the command has ended. */
static int run_with_files(const struct job *job, int files[2])
{
    int status = 0, null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    files[0] = open("/rig.out", O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    files[1] = open("/rig.err", O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (null < 0 || files[0] < 0 || files[1] < 0)
        fail("cannot make the output files: %s", strerror(errno));
    pid_t child = start_command(job, null, files[0], files[1]);
    while (waitpid(-1, &status, 0) != child) {
    }
    return status;
}

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

int main(void)
{
    static struct job job;
    size_t size;
    struct rlimit files = {.rlim_cur = 65536, .rlim_max = 1 << 20};
    int outputs[2], status;

    if (getpid() != 1)
        return print_tsc_khz();
    mount_kernel_filesystems();
    load_modules();
    signal(SIGPIPE, SIG_IGN);
    bring_up_loopback();
    sethostname("rig", 3);
    setrlimit(RLIMIT_NOFILE, &files);
    if (kernel_argument("rig.virtual")) {
        char *text = read_job_from_file(&size);
        parse_job(&job, text, size);
        status = run_with_files(&job, outputs);
        open_port();
        send_file(outputs[0], 'o');
        send_file(outputs[1], 'e');
    } else {
        const char *trouble = kernel_argument("rig.stock") ? NULL : clock_trouble();
        open_port();
        if (trouble)
            send_frame('f', trouble, strlen(trouble));
        send_frame('r', "", 0);
        char *text = read_job_from_port(&size);
        parse_job(&job, text, size);
        if (job.time)
            set_clock(job.time);
        if (job.seed)
            seed_random(job.seed);
        enter_host_root();
        mount_shares(&job);
        send_frame('s', "", 0);
        status = run_with_pipes(&job);
        flush_shares(&job);
    }
    report_status(status);
    for (;;) /* the host ends the machine; PID 1 must not return */
        pause();
}
