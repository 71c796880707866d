/*
 * Requests about files by their path: one struct op each, filled from the message, run, answered.
 *
 * What is done in a moment is done on the loop, and costs one round trip and nothing more. What may take long goes to
 * a worker: always for those that free or write any number of blocks, and for all of them while something slow is
 * mounted (slow.c). Our root is the image's, so relative paths start there; our umask is 0, so modes are exact.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

struct op {
    struct work work;
    uint64_t id;
    uint32_t type;
    char *path, *other; /* other: a second path or a target */
    uint64_t n[4];      /* numbers of the request */
    int err;
    const char *what; /* the step that failed */
    struct stat st;
    struct statfs fs;
    int fd;    /* OPEN: the file */
    bool slow; /* it may keep one waiting */
    size_t target_len;
    char target[PATH_MAX];
};

/* What a request looks like, and how it is done. */
struct kind {
    void (*run)(struct op *o);
    void (*put)(const struct op *o, struct cci_proto_writer *w); /* result fields */
    size_t result;                                               /* room for them, besides the target */
    const char *what;
    bool two;     /* two paths */
    uint8_t n;    /* numbers */
    bool is_long; /* always for a worker */
};

static void check(struct op *o, int r)
{
    o->err = r < 0 ? errno : 0;
}

static void run_stat(struct op *o)
{
    check(o, fstatat(AT_FDCWD, o->path, &o->st, o->n[0] ? AT_SYMLINK_NOFOLLOW : 0));
}

static void put_stat(const struct op *o, struct cci_proto_writer *w)
{
    file_put_stat(w, &o->st);
}

static void run_remove(struct op *o)
{
    o->err = remove_one(AT_FDCWD, o->path);
}

static void run_remove_all(struct op *o)
{
    o->err = remove_all(o->path);
}

static void run_mkdir(struct op *o)
{
    check(o, make_dir(o->path, (mode_t)o->n[0] & 07777));
}

static void run_mkdir_all(struct op *o)
{
    o->err = make_dirs(o->path, (mode_t)o->n[0] & 07777);
}

/* Go's os.Rename: a directory is not replaced, and of two faults that of the old name is told. */
static void run_rename(struct op *o)
{
    struct stat from, to;
    if (lstat(o->other, &to) == 0 && S_ISDIR(to.st_mode)) {
        if (lstat(o->path, &from))
            o->err = errno;
        else if (!strcmp(o->path, o->other) || from.st_ino != to.st_ino || from.st_dev != to.st_dev)
            o->err = EEXIST;
    }
    if (!o->err)
        check(o, rename(o->path, o->other));
}

static void run_symlink(struct op *o)
{
    check(o, symlink(o->path, o->other));
}

static void run_readlink(struct op *o)
{
    ssize_t n = readlink(o->path, o->target, sizeof o->target);
    check(o, (int)n);
    o->target_len = n > 0 ? (size_t)n : 0;
}

static void put_target(const struct op *o, struct cci_proto_writer *w)
{
    cci_proto_put_bytes(w, o->target, o->target_len);
}

static void run_chmod(struct op *o)
{
    check(o, chmod(o->path, (mode_t)o->n[0] & 07777));
}

static void run_chown(struct op *o)
{
    check(o, chown(o->path, (uid_t)o->n[0], (gid_t)o->n[1]));
}

static void run_chtimes(struct op *o)
{
    const struct timespec t[2] = {{(time_t)o->n[0], (long)o->n[1]}, {(time_t)o->n[2], (long)o->n[3]}};
    check(o, utimensat(AT_FDCWD, o->path, t, 0));
}

static void run_statfs(struct op *o)
{
    check(o, statfs(o->path, &o->fs));
}

static void put_statfs(const struct op *o, struct cci_proto_writer *w)
{
    const uint64_t fields[] = {
        (uint32_t)o->fs.f_type, (uint64_t)o->fs.f_bsize, o->fs.f_blocks, o->fs.f_bfree,
        o->fs.f_bavail,         o->fs.f_files,           o->fs.f_ffree,  (uint64_t)o->fs.f_namelen,
        (uint64_t)o->fs.f_flags};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        cci_proto_put64(w, fields[i]);
}

/* A FIFO or a terminal must not keep us: reads and writes wait in the loop. */
static void run_open(struct op *o)
{
    uint64_t f = o->n[0];
    int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    flags |= (f & CCI_OPEN_ACCESS) == CCI_OPEN_WRONLY ? O_WRONLY
             : (f & CCI_OPEN_ACCESS) == CCI_OPEN_RDWR ? O_RDWR
                                                      : O_RDONLY;
    flags |= f & CCI_OPEN_APPEND ? O_APPEND : 0;
    flags |= f & CCI_OPEN_CREATE ? O_CREAT : 0;
    flags |= f & CCI_OPEN_TRUNC ? O_TRUNC : 0;
    flags |= f & CCI_OPEN_EXCL ? O_EXCL : 0;
    o->fd = open(o->path, flags, (mode_t)o->n[1] & 07777);
    check(o, o->fd);
    if (!o->err && fstat(o->fd, &o->st)) {
        o->err = errno;
        close(o->fd);
    }
    o->slow = !o->err && slow_file(o->fd);
}

static void put_open(const struct op *o, struct cci_proto_writer *w)
{
    cci_proto_put64(w, o->n[0]);
    cci_proto_put64(w, o->st.st_mode);
}

static const struct kind *kind_of(uint32_t type)
{
    static const struct kind kinds[] = {
        [CCI_MSG_REMOVE] = {run_remove, NULL, 0, "remove", false, 0, true},
        [CCI_MSG_REMOVE_ALL] = {run_remove_all, NULL, 0, "remove", false, 0, true},
        [CCI_MSG_MKDIR] = {run_mkdir, NULL, 0, "mkdir", false, 1, false},
        [CCI_MSG_MKDIR_ALL] = {run_mkdir_all, NULL, 0, "mkdir", false, 1, false},
        [CCI_MSG_RENAME] = {run_rename, NULL, 0, "rename", true, 0, true},
        [CCI_MSG_SYMLINK] = {run_symlink, NULL, 0, "symlink", true, 0, false},
        [CCI_MSG_READLINK] = {run_readlink, put_target, 4, "readlink", false, 0, false},
        [CCI_MSG_CHMOD] = {run_chmod, NULL, 0, "chmod", false, 1, false},
        [CCI_MSG_CHOWN] = {run_chown, NULL, 0, "chown", false, 2, false},
        [CCI_MSG_CHTIMES] = {run_chtimes, NULL, 0, "chtimes", false, 4, false},
        [CCI_MSG_STATFS] = {run_statfs, put_statfs, 9 * 8, "statfs", false, 0, false},
        [CCI_MSG_OPEN] = {run_open, put_open, 16, "open", false, 2, false},
    };
    static const struct kind stat_kind = {run_stat, put_stat, FILE_STAT_SIZE, "stat", false, 1, false};
    if (type == CCI_MSG_STAT)
        return &stat_kind;
    return type < sizeof kinds / sizeof *kinds && kinds[type].run ? &kinds[type] : NULL;
}

static void finish(struct op *o)
{
    const struct kind *k = kind_of(o->type);
    struct cci_proto_writer *w;
    if (o->type == CCI_MSG_OPEN && !o->err) /* the table of handles is the loop's */
        o->err = handle_new(o->fd, o->st.st_mode, o->slow, &o->n[0]);
    w = reply_begin(o->id, o->err, o->err ? k->what : "", o->err ? 0 : k->result + o->target_len);
    if (!o->err && k->put)
        k->put(o, w);
    frame_end();
}

static void work_run(struct work *w)
{
    struct op *o = (struct op *)w; /* work is the first member */
    kind_of(o->type)->run(o);
}

static void work_done(struct work *w)
{
    struct op *o = (struct op *)w;
    finish(o);
    free(o->path);
    free(o->other);
    free(o);
}

/* The message stays in the connection's buffer only until the next one. */
static void hand_over(const struct op *from)
{
    struct op *o = must(malloc(sizeof *o));
    *o = *from;
    o->path = join(from->path, "", "");
    o->other = join(from->other ? from->other : "", "", "");
    o->work.run = work_run;
    o->work.done = work_done;
    work_start(&o->work);
}

bool path_request(uint32_t type, uint64_t id, struct cci_proto_reader *in)
{
    const struct kind *k = kind_of(type);
    static struct op o; /* the loop's: it is not on the stack for its size */
    if (!k)
        return false;
    o = (struct op){.id = id, .type = type, .fd = -1};
    o.path = get_cstr(in);
    o.other = k->two ? get_cstr(in) : NULL;
    for (unsigned i = 0; i < k->n; i++)
        o.n[i] = cci_proto_get64(in);
    if (in->bad || !o.path || (k->two && !o.other))
        reply(id, EPROTO, "malformed request");
    else if (!k->is_long && !slow_anywhere()) {
        k->run(&o);
        finish(&o);
    } else if (work_too_much())
        reply(id, EAGAIN, "too many requests at once");
    else
        hand_over(&o);
    return true;
}
