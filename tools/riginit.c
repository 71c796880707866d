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
 * riginit_port.h carries frames between the two; riginit_machine.h sets the machine up. A job is a list of strings,
 * each with one leading type letter and ended by a NUL:
 *
 *   t SECONDS.NANOS  the time of day
 *   s HEX            seed for the kernel's random pool (a resumed machine has a stale one)
 *   w TAG PATH       a writable share
 *   d DIR            working directory
 *   e NAME=VALUE     environment
 *   a ARGUMENT       a word of the command
 *   i                standard input follows in frames (without it: /dev/null)
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "riginit_machine.h"
#include "riginit_port.h"

enum { MAX_STRINGS = 4096, MAX_SHARES = 8, MAX_JOB = 4 << 20 };

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

/* ---- shares ------------------------------------------------------------------------------------------------ */

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
