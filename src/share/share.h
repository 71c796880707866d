/*
 * share/share.h - a host directory that is served to a guest: what it consists of.
 *
 * The guest's kernel is a FUSE client. It names files by node numbers that LOOKUP gave it (node.h) and open files by
 * handle numbers (handle.h), and says when it has forgotten them. request.h takes a request apart, the operations are
 * in attr.h, entry.h, file.h, dir.h and xattr.h, and dispatch.h chooses among them. The state knows nothing of where
 * requests come from: a virtqueue of a virtual machine, /dev/fuse in the tests.
 *
 * Threads. Requests may come on any number of threads at once. One mutex guards nodes, handles and all that is in
 * them; it is never held during a call that may wait for a disk. A thread calls cci_share_enter_thread once before.
 *
 * Confinement. The guest cannot name anything but files below the shared directory: names are single components,
 * looked up below a directory that is held open, links are never followed on the host, and what is found under a name
 * later must be the file that was found at first. Only regular files and directories are ever opened; a device, FIFO or
 * socket is only ever named (CVE-2020-35517). A directory that somebody on the host moves out of the share while the
 * guest knows it stays reachable until the guest forgets it. Mount points below the directory are part of the share.
 *
 * Owners. Squashed (the default): every file shows as owned by one configured user and group, and files are made as the
 * user that the host process runs as; the guest cannot change owners, and bits that run a program as its owner are
 * neither shown nor set; a file that has them loses them when it is opened for writing or cut. Identity: numbers are
 * the same on both sides; this wants root.
 *
 * Caching. Attributes and names are good for CCI_SHARE_VALID_SECONDS in the guest, so it sees what was changed on the
 * host after that time. Opening a file looks anew: cached pages are dropped if the file has changed since it was last
 * opened; and if its size is not what the guest takes it for, the answer is ESTALE, once, at which the guest's kernel
 * looks the name up again, and so learns the size, before it opens. That a name does not exist is never cached. Writes
 * go through to the host at once (no writeback cache: with it the guest would take itself for the only one who changes
 * sizes).
 *
 * What a guest can make the host hold. A file that it knows takes some 220 bytes, and its name (at most 255) beside
 * that: half a KiB at worst, times nodes_max. Its open files and what is kept open to find others are descriptors, at
 * most three quarters of those that the process may have.
 */
#ifndef CCI_SHARE_SHARE_H
#define CCI_SHARE_SHARE_H

#include "../base/error.h"
#include "../base/iov.h"
#include "slots.h"
#include "wire.h"

#define CCI_SHARE_VALID_SECONDS 1u
#define CCI_SHARE_NODES_MAX ((uint32_t)1 << 21)
#define CCI_SHARE_DEPTH_MAX 4096u    /* directories between two that are held open */
#define CCI_SHARE_TRANSFER 0x100000u /* bytes of the largest read or write */

struct cci_share_config {
    const char *host_path;
    bool writable;
    bool identity;      /* owners are the same on both sides; else all files are uid's and gid's in the guest */
    uint32_t uid, gid;  /* unless identity */
    uint32_t nodes_max; /* files that the guest may know; 0: CCI_SHARE_NODES_MAX */
    uint32_t shares;    /* of this guest, which divide the process's descriptors among them; 0: this one */
};

/* Which file something is. */
struct cci_share_key {
    uint64_t device, inode, mount;
    uint32_t type; /* S_IFMT */
};

struct cci_share_handle;

/* A file that the guest knows, or on the way to one. */
struct cci_share_node {
    uint64_t number; /* what the guest calls it */
    struct cci_share_key key;
    struct cci_share_node *next; /* in its hash chain */
    struct cci_share_node
        *parent;      /* where it was last seen, counted in the parent's refs; NULL: nowhere, or the root */
    char *name;       /* what it was called there */
    uint64_t lookups; /* how often the guest was told of it and has not forgotten it */
    uint32_t refs;    /* children and requests under way */
    uint32_t pins;    /* requests that use fd */
    cci_fd fd;        /* CCI_OS_PATH, or CCI_NO_FD */
    bool keep_fd;     /* no name leads to it any more, or it is the root: fd is not given up */
    struct cci_share_node *older, *newer; /* in the list of descriptors that could be closed */
    struct cci_share_handle *handles;     /* the guest's open files of this node */
    bool opened;                          /* the guest has opened it before, when it was changed last at: */
    struct cci_os_statx_time changed;
    uint64_t guest_size; /* of a file: what the guest takes for its size */
};

/* An open file or directory of the guest. */
struct cci_share_handle {
    uint64_t number;
    struct cci_share_node *node; /* counted in its refs */
    struct cci_share_handle *next, **link;
    cci_fd fd;
    bool directory;
    bool writable;
    uint32_t refs;          /* the guest's, and requests under way */
    struct cci_mutex mutex; /* of a directory: guards the descriptor's position */
    uint64_t position;      /* where the descriptor stands */
};

struct cci_share {
    struct cci_share_config config;
    struct cci_mutex mutex; /* guards everything below */
    struct cci_share_slots nodes, handles;
    struct cci_share_node *root;
    struct cci_share_node **buckets;
    uint32_t bucket_count; /* a power of two */
    uint32_t node_count;
    struct cci_share_node *newest, *oldest; /* nodes whose descriptor could be closed, by last use */
    uint32_t fds, fds_max;                  /* descriptors of nodes */
    uint32_t kept, kept_max;                /* of those, such as keep_fd holds */
    uint32_t handle_count, handle_max;
    bool started; /* INIT was answered */
};

#endif
