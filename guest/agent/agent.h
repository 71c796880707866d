/*
 * The guest agent: shared declarations of its parts.
 *
 * One thread, one epoll loop. A `source` is a descriptor in the loop with a callback; connections,
 * pipes of commands and the signal descriptor are sources. Nothing in the loop waits for anything
 * but epoll, except for disk reads and writes of regular files and for a child's execve. What may
 * take long is done by worker threads.
 *
 *   main.c     arguments, start, the end
 *   boot.c     modules, mounts, the switch into the image's root
 *   loop.c     epoll, deferred frees
 *   listen.c   accepting connections, and dialling the host once
 *   conn.c     connections: frames in and out
 *   request.c  the table of requests, and what a frame leads to
 *   feed.c     bytes from a descriptor to the host: gathered inline, or pumped into a stream
 *   intake.c   bytes from the host to a command's standard input
 *   exec.c     commands: what is asked for, reap, report, signal
 *   spawn.c    the start of a program
 *   ahead.c    a look at what is to be started, where that may take long
 *   tty.c      terminals
 *   user.c     users and groups of the image
 *   file.c     reading and writing whole files
 *   work.c     worker threads, for what may take long
 *   path.c     requests about files by path
 *   tree.c     mkdir_all, remove_all
 *   dir.c      directories
 *   copy.c     trees, in and out
 *   watch.c    what happens to files
 *   handle.c   open files
 *   slots.c    their numbers
 *   slow.c     which file systems may keep one waiting
 *   slowfile.c reading and writing whole files there
 *   mount.c    shares of the host
 *   system.c   CONFIGURE and SHUTDOWN
 *   stop.c     STOP
 *
 * Memory that cannot be had ends the agent with a message: its buffers are small and bounded, and a
 * PID 1 that cannot get 64 KiB has nothing left to serve.
 */
#ifndef CCI_AGENT_H
#define CCI_AGENT_H

#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "../protocol.h"

enum {
    MAX_CONNS = 1024,    /* connections at once */
    MAX_REQUESTS = 4096, /* unfinished requests at once */
    OUT_HIGH = 1 << 20   /* queued reply bytes at which no further request is read */
};

/* ---- loop.c -------------------------------------------------------------------------------- */

struct source {
    int fd;                                           /* -1 when closed */
    uint32_t events;                                  /* what epoll watches now */
    void (*ready)(struct source *s, uint32_t events); /* NULL while epoll does not watch it */
};

void loop_init(void);
int loop_add(struct source *s, int fd, uint32_t events, void (*ready)(struct source *, uint32_t));
void loop_watch(struct source *s, uint32_t events); /* change what is watched */
void loop_close(struct source *s);                  /* stop watching and close; idempotent */
int loop_release(struct source *s);                 /* stop watching; the descriptor is the caller's */
void loop_free(void *p);                            /* free(p) when no event can refer to it */
void loop_run(void);

/* ---- main.c: the way out ------------------------------------------------------------------- */

struct agent {
    bool machine;          /* PID 1 of a machine; else a process on the host */
    bool own_root;         /* the root directory is the image's, ours to write to */
    int null_fd;           /* /dev/null, for commands */
    int boot_errno;        /* why boot failed, 0 if it did not */
    const char *boot_what; /* the step that failed */
    char *user;            /* for commands that name none; NULL = root */
};
extern struct agent agent;

void die(const char *what, int err) __attribute__((noreturn)); /* one console line, then the end */
void end_agent(void) __attribute__((noreturn));                /* power off, or exit */
void say(const char *what, const char *arg, int err);          /* one line on the console */
void *must(void *p);                                           /* p, or die if NULL */
char *join(const char *a, const char *b, const char *c);       /* a malloc'd concatenation */

/* ---- boot.c -------------------------------------------------------------------------------- */

struct boot_options {
    const char *root;    /* block device of the image's root filesystem */
    const char *scratch; /* block device for changes, or "tmpfs" */
};
void boot_machine(const struct boot_options *options);
void boot_process(const char *socket_path, const char *root); /* namespaces, chroot; root may be NULL */

/* ---- conn.c, request.c --------------------------------------------------------------------- */

struct request;

enum conn_kind { CONN_CONTROL, CONN_NEW, CONN_FEED, CONN_SINK, CONN_INTAKE, CONN_DEAD };

struct conn {
    struct source src;
    enum conn_kind kind;
    bool connecting; /* our own dial has not been answered yet */
    uint8_t *in;     /* received, not yet understood */
    size_t in_len, in_cap;
    uint8_t *out; /* queued for sending */
    size_t out_off, out_len, out_cap;
    struct feed *feed;       /* CONN_FEED: what fills it */
    struct request *request; /* CONN_SINK: what it fills */
    struct intake *intake;   /* CONN_INTAKE: the same */
};

/* A request that outlives its first handling: a command or a file transfer. */
struct request {
    struct request *next;
    uint64_t id;
    void (*detach)(struct request *r); /* the host lost interest */
    struct feed *feeds[CCI_CHANNELS];  /* bytes for the host, by channel */
    /* bytes from the host; NULL when the request takes none. n == 0 is the end, err its status
       (0, the peer's, or ECONNRESET when the connection broke). */
    void (*data)(struct request *r, const uint8_t *p, size_t n, int err);
    struct conn *sink; /* connection attached for `data` */
    /* takes the connection attached to the file channel over: fd is its own, and blocks; NULL as above */
    void (*attached)(struct request *r, int fd);
    struct intake *intake; /* a command's piped standard input, or NULL */
};

void serve_unix(const char *path);                     /* listen.c */
void serve_vsock(void);                                /* listens, and dials the host; HELLO is still to be sent */
void conn_hello(void);                                 /* HELLO, with the outcome of boot */
struct request *request_new(size_t size, uint64_t id); /* request.c: zeroed, in the table */
struct request *request_find(uint64_t id);
bool requests_too_many(void);
void request_free(struct request *r); /* out of the table; its sink is closed */
extern struct request *requests;
/* A frame of the control connection. */
void request_received(uint32_t type, uint64_t id, struct cci_proto_reader *in);
/* ATTACH: finds what the connection is for. False drops the connection. */
bool request_attach(struct conn *c, struct cci_proto_reader *in);
/* A frame for the request this connection fills. False when the connection has served its turn. */
bool request_fill(struct conn *c, uint32_t type, struct cci_proto_reader *in);
void request_cut_off(struct conn *c); /* the connection broke: a request that it fills is told */

/* Frames to the control connection: begin with room for `need` payload bytes, write, end. */
struct cci_proto_writer *frame_begin(uint32_t type, uint64_t id, size_t need);
void frame_end(void);
/* The common start of a reply; `extra` is room for result fields. */
struct cci_proto_writer *reply_begin(uint64_t id, int err, const char *what, size_t extra);
void reply(uint64_t id, int err, const char *what);
void announce(uint64_t id, uint32_t channel, uint64_t size);   /* STREAM */
char *get_cstr(struct cci_proto_reader *in);                   /* NUL-terminated in place; NULL if it has a NUL */
ssize_t conn_send(struct conn *c, const uint8_t *p, size_t n); /* -1: would block; -2: broken */
struct conn *conn_new(int fd, enum conn_kind kind, uint32_t events);
bool conn_has_control(void); /* the control connection is there */
bool conn_too_many(void);
void conn_close(struct conn *c);

/* ---- feed.c -------------------------------------------------------------------------------- */

struct feed {
    struct source src;
    struct request *request;
    uint32_t channel;
    enum { FEED_GATHER, FEED_ANNOUNCED, FEED_ATTACHED, FEED_TAIL, FEED_DROP, FEED_DONE } state;
    bool held;       /* a pipe: ATTACH is confirmed */
    bool tty;        /* a terminal: EIO is its end */
    bool fifo;       /* it has no end before the first writer came */
    bool pollable;   /* epoll can watch the descriptor (a regular file it cannot) */
    bool ended;      /* END is staged or sent */
    uint8_t *buf;    /* CCI_PROTO_HEADER spare bytes, then data */
    size_t len, cap; /* data bytes, and room for them */
    size_t oldest;   /* TAIL: where they begin; they go around at CCI_PROTO_TAIL */
    size_t limit;    /* inline limit */
    size_t sent;     /* attached: bytes of the staged frame already sent */
    size_t staged;   /* attached: bytes of the staged frame, header included */
    int err;         /* why reading ended early */
    uint64_t size;   /* size hint for the announcement */
    struct conn *conn;
    /* told once: everything gathered inline or handed to the stream (or dropped) */
    void (*done)(struct request *r);
};
struct feed *feed_new(struct request *r, uint32_t channel, int fd, bool pollable, size_t limit,
                      void (*done)(struct request *));
void feed_start(struct feed *f);         /* reads what is there already */
void feed_hold(struct feed *f);          /* a pipe: nothing is read until the host attaches */
void feed_tail(struct feed *f);          /* keep the last bytes only */
bool feed_inline(const struct feed *f);  /* done, and its bytes are in buf */
bool feed_settled(const struct feed *f); /* done or announced: the reply need not wait for it */
void feed_announce(struct feed *f);      /* instead of feed_start: a stream from the first byte on */
void feed_attach(struct feed *f, struct conn *c);
void feed_conn_ready(struct feed *f, uint32_t events);
void feed_drop(struct feed *f); /* the host does not want the rest */
void feed_free(struct feed *f);

/* ---- user.c ------------------------------------------------------------------------------------ */

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[64]; /* supplementary */
    size_t ngroups;
    char home[256];
};
/* Resolves "user", "uid", "user:group" … as docker does. 0, or an errno with *what set. */
int user_find(const char *spec, struct identity *out, const char **what);

/* ---- intake.c -------------------------------------------------------------------------------- */

void intake_new(struct request *r, int fd, bool tty); /* fd: the pipe's end, or the terminal, in non-blocking mode */
void intake_attach(struct intake *t, struct conn *c);
bool intake_attached(const struct intake *t);
void intake_conn_ready(struct intake *t, uint32_t events);
void intake_end(struct intake *t); /* closes both ends; idempotent */
void intake_free(struct intake *t);

/* ---- tty.c ----------------------------------------------------------------------------------- */

/* A new terminal of that size (0: the default), the user's. 0, or errno. */
int tty_open(uint32_t columns, uint32_t rows, uid_t user, int *master, int *slave);
int tty_resize(int master, uint32_t columns, uint32_t rows); /* 0, or errno */
void tty_set_default(uint32_t columns, uint32_t rows);       /* and the console */

/* ---- spawn.c --------------------------------------------------------------------------------- */

struct spawn {
    char **argv, **env;
    const char *path; /* PATH to search */
    const char *dir;
    const struct identity *who;
    int in, out, err; /* the child's standard streams, or -1 for /dev/null */
    bool tty;         /* they are a terminal, which is to be the child's */
};
/* Starts a program in a session of its own: its pid; or -1 with *err and the step that failed in *what. */
pid_t spawn(const struct spawn *s, int *err, const char **what);
/* Calls `try` for each place where the program may be until it says true. 0, or the errno to tell. */
int program_search(const char *name, const char *dirs, bool (*try)(const char *path, void *ctx), void *ctx);

/* ---- exec.c, ahead.c, file.c, system.c ------------------------------------------------------ */

/* What EXEC asks for, pointing into the received frame. */
struct exec_spec {
    uint32_t flags, limit;
    const char *user, *dir;
    char **argv, **env;
    const char *path; /* PATH to search */
    struct identity who;
    uint32_t columns, rows;
};
/* Fills all but `who`, and touches nothing else. 0, or errno with *what set. The caller frees argv and env either way.
 */
int exec_parse(struct exec_spec *s, struct cci_proto_reader *in, const char **what);
void exec_start(uint64_t id, struct cci_proto_reader *in);
void exec_request(uint64_t id, struct cci_proto_reader *in); /* ahead.c */
bool ahead_kill(struct request *r);                          /* false: it is no command that is still to start */
void exec_kill(uint64_t id, uint64_t target, int sig);
void exec_resize(uint64_t id, struct cci_proto_reader *in);
void exec_reap(void);
void exec_kill_all(void); /* every command's process group */
/* Signals the workload's process group; with no workload, that of every command. How many still run: 0 tells that
   what was asked to end has ended, and signal 0 only asks. */
unsigned exec_terminate(int sig);

void file_read(uint64_t id, struct cci_proto_reader *in);
void file_write(uint64_t id, struct cci_proto_reader *in);
void file_put_stat(struct cci_proto_writer *w, const struct stat *st);
enum { FILE_STAT_SIZE = 10 * 8 + 3 * 12 };

/* ---- work.c: what runs beside the loop ----------------------------------------------------- */

struct work {
    struct work *next;
    void (*run)(struct work *w);  /* on a worker */
    void (*done)(struct work *w); /* on the loop, afterwards; frees it */
};
void work_init(void);
void work_start(struct work *w);
bool work_too_much(void); /* refuse requests that need a worker */

/* ---- slots.c: numbers for what the host keeps open ----------------------------------------- */

uint64_t slot_put(void *what);    /* a number that nothing had before */
void *slot_find(uint64_t number); /* NULL: it was taken out, or never was one */
void slot_take(uint64_t number);  /* one that finds something */
uint32_t slots_in_use(void);

/* ---- tree.c, path.c, slow.c, handle.c ------------------------------------------------------ */

int make_dir(const char *path, mode_t mode);  /* -1 and errno */
int make_dirs(const char *path, mode_t mode); /* mkdir -p; 0 or errno */
int remove_one(int dir, const char *path);    /* a file or an empty directory; 0 or errno */
int remove_all(const char *path);             /* rm -rf; 0 or errno */

/* Requests about files: STAT and those from REMOVE on. False when the type is none of them. */
bool path_request(uint32_t type, uint64_t id, struct cci_proto_reader *in);
bool handle_request(uint32_t type, uint64_t id, struct cci_proto_reader *in);
/* Gives an open descriptor a handle. 0, or an errno, and the descriptor is closed. */
int handle_new(int fd, mode_t mode, bool slow, uint64_t *handle);
bool fifo_is_new(int fd); /* it gave no bytes, because nobody has opened it for writing yet */

void dir_read(uint64_t id, struct cci_proto_reader *in);
void copy_request(uint64_t id, struct cci_proto_reader *in, bool out);
void watch_request(uint64_t id, struct cci_proto_reader *in);
/* On a connection that was taken over, by a worker; 0 or errno. */
int stream_send(int fd, const uint8_t *p, size_t n);
int stream_end(int fd, uint64_t id, int status, const char *what);

void file_read_open(uint64_t id, int fd, const struct stat *st); /* READ_FILE from here on; fd is taken over */
int write_all(int fd, const uint8_t *p, size_t n);               /* 0 or errno; waits, where it is no regular file */
bool stream_receive(int fd, uint8_t *p, size_t n);               /* as stream_send */

void slow_read(uint64_t id, const char *path);
/* fd: the file if it is open, which is taken over; else -1 */
void slow_write(uint64_t id, const char *path, int fd, mode_t mode, bool streamed, const uint8_t *p, size_t n);
void slow_init(void);
bool slow_anywhere(void); /* somewhere a file system is mounted that may keep one waiting for long */
bool slow_file(int fd);   /* this file is on one */

void system_configure(uint64_t id, struct cci_proto_reader *in);
void system_shutdown(uint64_t id);

void stop_request(uint64_t id, struct cci_proto_reader *in);  /* stop.c */
void stop_check(void);                                        /* commands may have ended */
void mount_request(uint64_t id, struct cci_proto_reader *in); /* mount.c */

#endif
