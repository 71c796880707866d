/*
 * share/wire.h - the FUSE protocol, version 7.31 to 7.38, as numbers and byte offsets (linux/fuse.h).
 *
 * A request is a header of 40 bytes (length 4, opcode 4, unique 8, node 8, uid 4, gid 4, pid 4, lengths of extensions
 * 2, padding 2), the arguments of its kind, and names, each with its NUL, or data. A reply is a header of 16 bytes
 * (length 4, error number negated 4, unique 8) and what the kind asks for. All numbers are the machine's own, which is
 * little-endian on every machine that runs here. Each operation's arguments are told beside the code that reads them.
 */
#ifndef CCI_SHARE_WIRE_H
#define CCI_SHARE_WIRE_H

#include "../base/bytes.h"

#define CCI_FUSE_MAJOR 7u
#define CCI_FUSE_MINOR_MIN 31u
#define CCI_FUSE_MINOR 38u
#define CCI_FUSE_IN_HEADER 40u
#define CCI_FUSE_OUT_HEADER 16u
#define CCI_FUSE_ROOT 1u
#define CCI_FUSE_NAME_MAX 255u

enum cci_fuse_opcode {
    CCI_FUSE_LOOKUP = 1,
    CCI_FUSE_FORGET = 2,
    CCI_FUSE_GETATTR = 3,
    CCI_FUSE_SETATTR = 4,
    CCI_FUSE_READLINK = 5,
    CCI_FUSE_SYMLINK = 6,
    CCI_FUSE_MKNOD = 8,
    CCI_FUSE_MKDIR = 9,
    CCI_FUSE_UNLINK = 10,
    CCI_FUSE_RMDIR = 11,
    CCI_FUSE_RENAME = 12,
    CCI_FUSE_LINK = 13,
    CCI_FUSE_OPEN = 14,
    CCI_FUSE_READ = 15,
    CCI_FUSE_WRITE = 16,
    CCI_FUSE_STATFS = 17,
    CCI_FUSE_RELEASE = 18,
    CCI_FUSE_FSYNC = 20,
    CCI_FUSE_SETXATTR = 21,
    CCI_FUSE_GETXATTR = 22,
    CCI_FUSE_LISTXATTR = 23,
    CCI_FUSE_REMOVEXATTR = 24,
    CCI_FUSE_INIT = 26,
    CCI_FUSE_OPENDIR = 27,
    CCI_FUSE_READDIR = 28,
    CCI_FUSE_RELEASEDIR = 29,
    CCI_FUSE_FSYNCDIR = 30,
    CCI_FUSE_CREATE = 35,
    CCI_FUSE_INTERRUPT = 36,
    CCI_FUSE_DESTROY = 38,
    CCI_FUSE_BATCH_FORGET = 42,
    CCI_FUSE_FALLOCATE = 43,
    CCI_FUSE_READDIRPLUS = 44,
    CCI_FUSE_RENAME2 = 45,
    CCI_FUSE_LSEEK = 46,
    CCI_FUSE_COPY_FILE_RANGE = 47,
    CCI_FUSE_TMPFILE = 51,
    CCI_FUSE_OPCODES = 52 /* one more than the last we know */
};

/* What INIT negotiates. */
#define CCI_FUSE_ASYNC_READ (1u << 0)
#define CCI_FUSE_ATOMIC_O_TRUNC (1u << 3)
#define CCI_FUSE_BIG_WRITES (1u << 5)
#define CCI_FUSE_AUTO_INVAL_DATA (1u << 12)
#define CCI_FUSE_DO_READDIRPLUS (1u << 13)
#define CCI_FUSE_READDIRPLUS_AUTO (1u << 14)
#define CCI_FUSE_ASYNC_DIO (1u << 15)
#define CCI_FUSE_PARALLEL_DIROPS (1u << 18)
#define CCI_FUSE_MAX_PAGES (1u << 22)
#define CCI_FUSE_HANDLE_KILLPRIV_V2 (1u << 28)

/* Which members of SETATTR count. */
#define CCI_FUSE_SET_MODE (1u << 0)
#define CCI_FUSE_SET_UID (1u << 1)
#define CCI_FUSE_SET_GID (1u << 2)
#define CCI_FUSE_SET_SIZE (1u << 3)
#define CCI_FUSE_SET_ATIME (1u << 4)
#define CCI_FUSE_SET_MTIME (1u << 5)
#define CCI_FUSE_SET_HANDLE (1u << 6)
#define CCI_FUSE_SET_ATIME_NOW (1u << 7)
#define CCI_FUSE_SET_MTIME_NOW (1u << 8)
#define CCI_FUSE_SET_KILL_PRIV (1u << 11)

#define CCI_FUSE_OPEN_KILL_PRIV 1u  /* in OPEN's and CREATE's open_flags */
#define CCI_FUSE_WRITE_CACHED 1u    /* in WRITE's write_flags: the page cache writes, no program */
#define CCI_FUSE_WRITE_KILL_PRIV 4u /* the same */
#define CCI_FUSE_KEEP_CACHE 2u      /* in OPEN's reply: what is in the page cache is still right */

#define CCI_FUSE_ATTR_SIZE 88u
#define CCI_FUSE_ENTRY_SIZE 128u      /* node 8, generation 8, entry_valid 8, attr_valid 8, nanoseconds 4 + 4, attr */
#define CCI_FUSE_ATTR_REPLY_SIZE 104u /* attr_valid 8, nanoseconds 4, padding 4, attr */
#define CCI_FUSE_OPEN_REPLY_SIZE 16u  /* handle 8, flags 4, padding 4 */

#endif
