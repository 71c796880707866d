/*
 * The protocol between the library and the agent that is PID 1 in the guest.
 *
 * Both sides include this file; it is the only definition. It uses ISO C alone.
 *
 * Connections
 *   The transport is any reliable byte stream: vsock in a machine, a Unix socket in tests.
 *   One *control* connection carries requests and replies. One more connection per larger byte
 *   stream carries that stream and nothing else, so a slow reader holds up its own stream only and
 *   flow control is the transport's.
 *
 *   Only the host dials, with one exception. A host that dials a guest in boot is refused until the
 *   agent listens, and would have to poll. So the agent, once it listens on CCI_PROTO_PORT, dials the
 *   host's CCI_PROTO_READY_PORT once, and that connection *is* the control connection. The host
 *   accepts exactly one connection on that port per boot. On a Unix socket the agent listens, and the
 *   first connection it accepts is the control connection. In both cases the agent speaks first
 *   (HELLO), and the agent lives as long as its control connection.
 *
 *   Every further connection is dialled by the host to CCI_PROTO_PORT and begins with ATTACH.
 *
 * Frames
 *   Integers are little-endian. A frame is a 16-byte header and a payload:
 *
 *       u32 payload length | u32 type | u64 request id | payload
 *
 *   The host picks request ids (not 0, not in use). Many requests may be outstanding; replies come in
 *   any order. Frames to the host never exceed CCI_PROTO_MAX_REPLY bytes of payload, frames to the
 *   agent CCI_PROTO_MAX_REQUEST (an argument list may be large).
 *   In payloads `str` and `bytes` are a u32 length and that many bytes, with no terminator.
 *   Fields are only ever appended: a reader ignores what follows the fields it knows, and takes fields
 *   that are missing at the end for zero or empty.
 *
 * Requests
 *   Each request ends with exactly one REPLY that carries its id and begins `u32 errno, str what`;
 *   errno is Linux's number (0 for success, and only then do result fields follow), `what` says more
 *   than the number can, or is empty. A type the agent does not know is answered ENOSYS. Before the
 *   REPLY there may be STARTED (a command runs) and STREAM (a channel needs a connection).
 *
 * Streams
 *   Bytes that fit CCI_PROTO_INLINE travel in the request or the reply: one round trip. When there
 *   are more, the agent sends STREAM {channel} with the request's id, keeps what it has and stops
 *   reading. The host dials, sends ATTACH {request id, channel}, and DATA frames follow in the
 *   channel's direction until END {errno, what}. Whoever closes the connection earlier has given up:
 *   the agent then closes the pipe or file behind it. REPLY does not wait for streams: a request is
 *   over when its REPLY and the END of every announced stream have been seen.
 *
 *   Pipes of a command are streams that need no announcement: once STARTED has come the host dials and
 *   attaches each. Until then the program's end of a pipe is neither read nor written to. The agent
 *   confirms each with an empty DATA frame: a connection that is closed before it has come about takes
 *   what was written to it along, and the program would wait for its stream for ever. Standard input
 *   carries DATA to the agent; that the host closes the connection is its END, and the agent closes it
 *   when the program has closed its end or has ended.
 */
#ifndef CCI_GUEST_PROTOCOL_H
#define CCI_GUEST_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../src/base/bytes.h"

#define CCI_PROTO_MAGIC 0x41434343u /* "CCCA", little-endian, first field of HELLO */
#define CCI_PROTO_VERSION 1u        /* also what cc_guest_protocol_version returns */
#define CCI_PROTO_OLDEST 1u         /* oldest version this side still speaks */
#define CCI_PROTO_PORT 1021u        /* vsock port the agent listens on */
#define CCI_PROTO_READY_PORT 1022u  /* vsock port of the host the agent dials once */

#define CCI_PROTO_HEADER 16u           /* bytes of a frame header */
#define CCI_PROTO_INLINE 65536u        /* bytes of one channel that travel inside a reply */
#define CCI_PROTO_TAIL 65536u          /* bytes kept of a standard error that nobody reads; at most INLINE */
#define CCI_PROTO_MAX_DATA 131072u     /* payload of one DATA frame; more than INLINE */
#define CCI_PROTO_MAX_REPLY 135168u    /* two inline channels and their fields */
#define CCI_PROTO_MAX_REQUEST 4194304u /* Linux refuses argument lists beyond about 2 MiB */

/* Frame types. A number, once used, keeps its meaning. */
enum cci_proto_type {
    /* agent → host, first frame of the control connection, id 0:
       u32 magic, u32 version, u32 oldest version spoken, u64 features (none defined yet),
       u32 boot errno, str boot message (set when the agent could not prepare the guest) */
    CCI_MSG_HELLO = 1,
    /* u64 realtime (ns since 1970, 0 = leave the clock), str hostname, str /etc/hosts,
       str /etc/resolv.conf (each left alone when empty), str user (for commands that name none) */
    CCI_MSG_CONFIGURE = 2,
    /* reply: the request's payload after errno and what */
    CCI_MSG_PING = 3,
    /* u32 flags (CCI_EXEC_*), u32 inline limit (0 = CCI_PROTO_INLINE), str user, str directory,
       u32 argc, argc × str, u32 envc, envc × str "NAME=value", u32 columns, u32 rows (of a terminal;
       0: the console's)
       WORKLOAD: one per boot (EBUSY after that); its standard streams are the guest's console. When it has ended the
       host answers the reply with SHUTDOWN, since power that goes at once could take the reply along.
       reply: u32 wait status (as wait(2) gives it), u64 user µs, u64 system µs, u64 max RSS KiB,
       bytes stdout, bytes stderr (empty where a stream was announced) */
    CCI_MSG_EXEC = 4,
    /* u64 request id of an EXEC, u32 signal: to the process group of the command */
    CCI_MSG_KILL = 5,
    /* u64 request id: the host is no longer interested. An EXEC goes on, its output is dropped;
       a file transfer is given up. Unattached streams of the request are void afterwards. */
    CCI_MSG_DETACH = 6,
    /* str path; reply: bytes contents, or STREAM {channel 0} before it */
    CCI_MSG_READ_FILE = 7,
    /* str path, u32 mode (when created), u32 streamed, bytes contents (when not streamed).
       Truncates, as os.WriteFile does. Streamed: STREAM {channel 0}, then DATA … END from the host,
       then the reply. */
    CCI_MSG_WRITE_FILE = 8,
    /* str path, u64 nofollow; reply: u64 dev, ino, mode, nlink, uid, gid, rdev, size, blksize,
       blocks, then u64 seconds (two's complement) and u32 ns of atime, mtime, ctime */
    CCI_MSG_STAT = 9,
    /* sync, end every process, power off; the reply comes before the power goes */
    CCI_MSG_SHUTDOWN = 10,
    /* u64 grace in ms: SIGTERM to the workload, or with none to every command; when they have ended, or were killed
       because the grace passed, the reply. The host answers it with SHUTDOWN, so that replies of commands are not lost.
       A second one, with its own reply at once, may shorten the grace. */
    CCI_MSG_STOP = 65,

    /* Files by path: str path, [str other path], u64 numbers; relative paths begin at the root. Modes are
       permission bits (07777) and are applied as they are. */
    CCI_MSG_REMOVE = 20,     /* str path: a file, or an empty directory */
    CCI_MSG_REMOVE_ALL = 21, /* str path: with everything below it; nothing there is success */
    CCI_MSG_MKDIR = 22,      /* str path, u64 mode */
    CCI_MSG_MKDIR_ALL = 23,  /* str path, u64 mode: and those above it */
    CCI_MSG_RENAME = 24,     /* str old, str new: as Go's os.Rename, which does not replace directories */
    CCI_MSG_SYMLINK = 25,    /* str target, str path */
    CCI_MSG_READLINK = 26,   /* str path; reply: bytes target */
    CCI_MSG_READ_DIR = 27,   /* str path; reply: bytes entries, or STREAM {channel 0} before it. An entry is u32 whole
                                st_mode, str name; their order is the directory's */
    CCI_MSG_CHMOD = 28,      /* str path, u64 mode */
    CCI_MSG_CHOWN = 29,      /* str path, u64 uid, u64 gid; 0xffffffff leaves one as it is */
    CCI_MSG_CHTIMES = 30,    /* str path, u64 seconds and u64 ns of atime, the same of mtime */
    CCI_MSG_STATFS = 31,     /* str path; reply: u64 type, block size, blocks, free, available, inodes, free inodes,
                                longest name, ST_* flags */

    /* Open files. A handle is a number of the agent's, never 0; one that is not open any more is EBADF.
       Requests on one handle begin in the order they are sent; those that wait (for a FIFO, say) are answered
       when they are done, those under way when the handle is closed with ECANCELED.
       A large transfer is made in pieces, sent one behind the other with the same chain number (not 0): when one of
       them comes out short or fails, the rest of the chain does nothing (a read gives 0 bytes, a write ECANCELED). */
    CCI_MSG_OPEN = 32,      /* str path, u64 flags (CCI_OPEN_*), u64 mode; reply: u64 handle, u64 whole st_mode */
    CCI_MSG_FILE_READ = 33, /* u64 handle, u64 n (up to CCI_PROTO_INLINE), u64 chain; reply: bytes; none: end of file */
    CCI_MSG_FILE_WRITE = 34, /* u64 handle, u64 chain, bytes; reply, also with an errno in it: u64 written, u32 errno
                                of what ended it early */
    CCI_MSG_FILE_SEEK = 35,  /* u64 handle, u64 offset (two's complement), u64 whence (0, 1, 2); reply: u64 position */
    CCI_MSG_FILE_SYNC = 36,  /* u64 handle */
    CCI_MSG_FILE_TRUNCATE = 37, /* u64 handle, u64 size */
    CCI_MSG_FILE_STAT = 38,     /* u64 handle; reply as STAT's */
    CCI_MSG_FILE_CLOSE = 39,    /* u64 handle */

    /* Trees, as one stream of the frames below ("Trees"), on channel 0. */
    CCI_MSG_COPY_IN = 40,  /* str destination, str name of the source, u64 flags (CCI_COPY_*): STREAM, then the frames
                              from the host, then the reply; `what` is the path that failed */
    CCI_MSG_COPY_OUT = 41, /* str path, u64 flags: STREAM and the reply, then the frames */
    CCI_MSG_WATCH = 42,    /* str path, u64 mask as inotify(7) has it: STREAM and the reply, then DATA: inotify's events
                              as the kernel gives them, until the host closes */

    /* u64 request id of an EXEC with a terminal, u32 columns, u32 rows. Id 0: the console, every terminal, and those
       to come that name no size */
    CCI_MSG_RESIZE = 50,

    /* str tag, str path, u64 flags (CCI_MOUNT_*): mounts a share of the host there; the directory is made if it is
       missing */
    CCI_MSG_MOUNT = 75,

    CCI_MSG_REPLY = 0x100,   /* u32 errno, str what, then the request's result */
    CCI_MSG_STARTED = 0x101, /* u32 pid; only when CCI_EXEC_NOTIFY asked for it */
    CCI_MSG_STREAM = 0x102,  /* u32 channel, u64 size in bytes if known, else 0 */

    CCI_MSG_ATTACH = 0x200, /* u64 request id, u32 channel; first frame of a stream connection */
    CCI_MSG_DATA = 0x201,   /* bytes, the whole payload */
    CCI_MSG_END = 0x202,    /* u32 errno, str what */

    /* Trees. The first ENTRY is what is copied. One that is a directory is entered, until its LEAVE; the contents of a
       regular file follow its ENTRY as DATA and HOLE. The names of entries below the first are one component each. */
    CCI_MSG_ENTRY = 0x203, /* u32 whole st_mode, u32 uid, u32 gid, u64 seconds and u32 ns of mtime, u64 size (a hint),
                              u32 CCI_ENTRY_*, str name, str target: of a symbolic link; of a hard link the path of an
                              earlier entry, from the first one on, without its name */
    CCI_MSG_LEAVE = 0x204, /* nothing: the directory entered last is complete */
    CCI_MSG_HOLE = 0x205   /* u64 bytes of zeroes */
};

enum { CCI_ENTRY_HARD_LINK = 1 };

/* Flags of COPY_IN and COPY_OUT. */
enum {
    CCI_COPY_KEEP_OWNER = 1, /* owners, and setuid and setgid bits; else the files are those of who makes them */
    CCI_COPY_CONTENTS = 2    /* the contents of the source, not the source under its name (a path that ends in "/.") */
};

/* Channels of a request. */
enum { CCI_CHANNEL_FILE = 0, CCI_CHANNEL_STDOUT = 1, CCI_CHANNEL_STDERR = 2, CCI_CHANNEL_STDIN = 3, CCI_CHANNELS = 4 };

/* Flags of OPEN: the API's CC_O_*. */
enum {
    CCI_OPEN_WRONLY = 1,
    CCI_OPEN_RDWR = 2,
    CCI_OPEN_ACCESS = 3, /* mask of the two; neither: read only */
    CCI_OPEN_APPEND = 0x8,
    CCI_OPEN_CREATE = 0x200,
    CCI_OPEN_TRUNC = 0x400,
    CCI_OPEN_EXCL = 0x800
};

/* Flags of MOUNT. */
enum {
    CCI_MOUNT_READ_ONLY = 1,
    CCI_MOUNT_NO_SET_ID = 2 /* programs on it do not run as their owner */
};

/* Flags of EXEC. What is neither captured nor piped is /dev/null. */
enum {
    CCI_EXEC_STDOUT = 1,        /* capture standard output */
    CCI_EXEC_STDERR = 2,        /* capture standard error */
    CCI_EXEC_MERGE = 4,         /* standard error goes where standard output goes, in order */
    CCI_EXEC_NOTIFY = 8,        /* send STARTED as soon as the program runs */
    CCI_EXEC_MAKE_DIR = 16,     /* create the directory if it is missing (an image's WorkingDir) */
    CCI_EXEC_WORKLOAD = 32,     /* what the machine is for: the machine ends when it does */
    CCI_EXEC_PIPE_STDIN = 64,   /* standard input comes on a stream, from the start */
    CCI_EXEC_PIPE_STDOUT = 128, /* standard output goes to a stream, from the start */
    CCI_EXEC_PIPE_STDERR = 256, /* the same of standard error */
    CCI_EXEC_STDERR_TAIL = 512, /* of standard error the last CCI_PROTO_TAIL bytes come with the reply */
    CCI_EXEC_TTY = 1024         /* the three are a terminal: output is standard output, input as PIPE_STDIN says */
};

/* ---- headers ------------------------------------------------------------------------------- */

struct cci_proto_header {
    uint32_t length; /* of the payload */
    uint32_t type;   /* enum cci_proto_type, or one from a newer peer */
    uint64_t id;     /* request the frame belongs to */
};

static void cci_proto_store_header(uint8_t *p, uint32_t length, uint32_t type, uint64_t id)
{
    cci_put_le32(p, length);
    cci_put_le32(p + 4, type);
    cci_put_le64(p + 8, id);
}

static struct cci_proto_header cci_proto_load_header(const uint8_t *p)
{
    struct cci_proto_header h;
    h.length = cci_le32(p);
    h.type = cci_le32(p + 4);
    h.id = cci_le64(p + 8);
    return h;
}

/* ---- writing a payload ----------------------------------------------------------------------
   `len` always counts, bytes are stored only while they fit `cap`: a first pass with cap 0 measures
   the message, a second one writes it. */

struct cci_proto_writer {
    uint8_t *at; /* buffer; may be NULL while cap is 0 */
    size_t cap;  /* its size */
    size_t len;  /* bytes the message takes so far */
};

static void cci_proto_put_raw(struct cci_proto_writer *w, const void *bytes, size_t n)
{
    if (n != 0 && w->len <= w->cap && n <= w->cap - w->len)
        memcpy(w->at + w->len, bytes, n);
    w->len += n;
}

static void cci_proto_put32(struct cci_proto_writer *w, uint32_t v)
{
    uint8_t b[4];
    cci_put_le32(b, v);
    cci_proto_put_raw(w, b, sizeof b);
}

static void cci_proto_put64(struct cci_proto_writer *w, uint64_t v)
{
    uint8_t b[8];
    cci_put_le64(b, v);
    cci_proto_put_raw(w, b, sizeof b);
}

static void cci_proto_put_bytes(struct cci_proto_writer *w, const void *bytes, size_t n)
{
    cci_proto_put32(w, (uint32_t)n);
    cci_proto_put_raw(w, bytes, n);
}

/* A string; NULL counts as empty. */
static void cci_proto_put_str(struct cci_proto_writer *w, const char *s)
{
    cci_proto_put_bytes(w, s, s ? strlen(s) : 0);
}

/* ---- reading a payload ----------------------------------------------------------------------
   A field that is missing altogether reads as zero or empty; one that is cut short, or a length
   beyond the payload, sets `bad` and everything after it reads as zero. */

struct cci_proto_reader {
    const uint8_t *at; /* next byte */
    size_t left;       /* bytes left */
    bool bad;          /* the payload contradicted itself */
};

static const uint8_t *cci_proto_take(struct cci_proto_reader *r, size_t n)
{
    const uint8_t *p = r->at;
    if (r->left < n) {
        if (r->left != 0)
            r->bad = true;
        r->left = 0;
        return NULL;
    }
    if (n != 0) { /* an empty reader may have no bytes at all */
        r->at += n;
        r->left -= n;
    }
    return p;
}

static uint32_t cci_proto_get32(struct cci_proto_reader *r)
{
    const uint8_t *p = cci_proto_take(r, 4);
    return p ? cci_le32(p) : 0;
}

static uint64_t cci_proto_get64(struct cci_proto_reader *r)
{
    const uint8_t *p = cci_proto_take(r, 8);
    return p ? cci_le64(p) : 0;
}

/* Returns the bytes in place and their number in *n. */
static const uint8_t *cci_proto_get_bytes(struct cci_proto_reader *r, size_t *n)
{
    uint32_t want = cci_proto_get32(r);
    const uint8_t *p;
    *n = 0;
    if (want > r->left) {
        r->bad = true;
        r->left = 0;
        return r->at;
    }
    p = cci_proto_take(r, want);
    *n = want;
    return p;
}

#endif
