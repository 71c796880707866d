/*
 * share/dispatch.h - making a share, and answering requests.
 *
 * One table says for each operation how long its arguments are, how many names follow, how much room its reply needs
 * and whether it changes anything; all that is checked before the operation is called. What the table does not know is
 * answered with ENOSYS, at which the guest's kernel does without, or by itself, and does not ask again: FLUSH (writes
 * have gone through long before a file is closed), ACCESS (the guest's kernel decides by the attributes), file locks
 * (they hold among the guest's own programs), SYNCFS (it would make the guest wait for the whole disk of the host;
 * fsync works), IOCTL, POLL.
 */
#ifndef CCI_SHARE_DISPATCH_H
#define CCI_SHARE_DISPATCH_H

#include "dir.h"
#include "file.h"
#include "xattr.h"

struct cci_share_op {
    int (*fn)(struct cci_share_req *r); /* 0, or an error number */
    uint16_t args;                      /* bytes of arguments in front of names */
    uint16_t reply;                     /* bytes of a reply, where that is fixed */
    uint8_t names;
    bool changes; /* refused with EROFS where nothing may be written */
};

/* ---- INIT, FORGET ------------------------------------------------------------------------------------------------ */

static void cci_share_reset(struct cci_share *s);

#define CCI_SHARE_WANTED                                                                                               \
    (CCI_FUSE_ASYNC_READ | CCI_FUSE_ATOMIC_O_TRUNC | CCI_FUSE_BIG_WRITES | CCI_FUSE_AUTO_INVAL_DATA |                  \
     CCI_FUSE_DO_READDIRPLUS | CCI_FUSE_READDIRPLUS_AUTO | CCI_FUSE_ASYNC_DIO | CCI_FUSE_PARALLEL_DIROPS |             \
     CCI_FUSE_MAX_PAGES | CCI_FUSE_HANDLE_KILLPRIV_V2)

/* INIT: major 4, minor 4, max_readahead 4, flags 4, and more that we have no use for. Replies major 4, minor 4,
 * max_readahead 4, flags 4, max_background 2, congestion_threshold 2, max_write 4, time_gran 4, max_pages 2, and 34
 * bytes for what was not wanted. */
static int cci_share_init(struct cci_share_req *r)
{
    const uint32_t minor = cci_le32(r->args + 4);
    uint8_t reply[64] = {0};
    if (cci_le32(r->args) != CCI_FUSE_MAJOR || minor < CCI_FUSE_MINOR_MIN)
        return -EPROTO;
    cci_share_reset(r->share);
    cci_mutex_lock(&r->share->mutex);
    r->share->started = true;
    cci_mutex_unlock(&r->share->mutex);
    cci_put_le32(reply, CCI_FUSE_MAJOR);
    cci_put_le32(reply + 4, CCI_MIN(minor, CCI_FUSE_MINOR));
    cci_put_le32(reply + 8, CCI_MIN(cci_le32(r->args + 8), CCI_SHARE_TRANSFER));
    cci_put_le32(reply + 12, cci_le32(r->args + 12) & CCI_SHARE_WANTED);
    cci_put_le16(reply + 16, 64); /* requests that the guest's kernel makes ahead of time */
    cci_put_le16(reply + 18, 48);
    cci_put_le32(reply + 20, CCI_SHARE_TRANSFER);
    cci_put_le32(reply + 24, 1); /* nanoseconds */
    cci_put_le16(reply + 28, CCI_SHARE_TRANSFER / 4096);
    cci_share_put(r, reply, sizeof(reply));
    return 0;
}

static int cci_share_destroy(struct cci_share_req *r)
{
    cci_share_reset(r->share);
    return 0;
}

/* FORGET: count 8. */
static int cci_share_op_forget(struct cci_share_req *r)
{
    cci_share_forget(r->share, r->node, cci_le64(r->args));
    return 0;
}

/* BATCH_FORGET: how many 4, padding 4; then for each: node 8, count 8. Not more than a kernel sends at once: a chain
 * could repeat the same memory for gigabytes. */
static int cci_share_op_batch_forget(struct cci_share_req *r)
{
    uint8_t one[16];
    for (uint32_t left = CCI_MIN(cci_le32(r->args), CCI_SHARE_TRANSFER / 16);
         left && cci_iov_read(&r->data, one, sizeof(one)) == sizeof(one); left--)
        cci_share_forget(r->share, cci_le64(one), cci_le64(one + 8));
    return 0;
}

static const struct cci_share_op cci_share_ops[CCI_FUSE_OPCODES] = {
    [CCI_FUSE_LOOKUP] = {cci_share_lookup, 0, CCI_FUSE_ENTRY_SIZE, 1, false},
    [CCI_FUSE_FORGET] = {cci_share_op_forget, 8, 0, 0, false},
    [CCI_FUSE_GETATTR] = {cci_share_getattr, 16, CCI_FUSE_ATTR_REPLY_SIZE, 0, false},
    [CCI_FUSE_SETATTR] = {cci_share_setattr, 88, CCI_FUSE_ATTR_REPLY_SIZE, 0, true},
    [CCI_FUSE_READLINK] = {cci_share_readlink, 0, 0, 0, false},
    [CCI_FUSE_SYMLINK] = {cci_share_symlink, 0, CCI_FUSE_ENTRY_SIZE, 1, true},
    [CCI_FUSE_MKNOD] = {cci_share_mknod, 16, CCI_FUSE_ENTRY_SIZE, 1, true},
    [CCI_FUSE_MKDIR] = {cci_share_mkdir, 8, CCI_FUSE_ENTRY_SIZE, 1, true},
    [CCI_FUSE_UNLINK] = {cci_share_unlink, 0, 0, 1, true},
    [CCI_FUSE_RMDIR] = {cci_share_rmdir, 0, 0, 1, true},
    [CCI_FUSE_RENAME] = {cci_share_rename, 8, 0, 2, true},
    [CCI_FUSE_LINK] = {cci_share_link, 8, CCI_FUSE_ENTRY_SIZE, 1, true},
    [CCI_FUSE_OPEN] = {cci_share_open, 8, CCI_FUSE_OPEN_REPLY_SIZE, 0, false},
    [CCI_FUSE_READ] = {cci_share_read, 40, 0, 0, false},
    [CCI_FUSE_WRITE] = {cci_share_write, 40, 8, 0, true},
    [CCI_FUSE_STATFS] = {cci_share_statfs, 0, 80, 0, false},
    [CCI_FUSE_RELEASE] = {cci_share_release, 24, 0, 0, false},
    [CCI_FUSE_FSYNC] = {cci_share_fsync, 16, 0, 0, false},
    [CCI_FUSE_SETXATTR] = {cci_share_setxattr, 8, 0, 0, true},
    [CCI_FUSE_GETXATTR] = {cci_share_getxattr, 8, 8, 0, false},
    [CCI_FUSE_LISTXATTR] = {cci_share_listxattr, 8, 8, 0, false},
    [CCI_FUSE_REMOVEXATTR] = {cci_share_removexattr, 0, 0, 0, true},
    [CCI_FUSE_INIT] = {cci_share_init, 16, 64, 0, false},
    [CCI_FUSE_OPENDIR] = {cci_share_opendir, 8, CCI_FUSE_OPEN_REPLY_SIZE, 0, false},
    [CCI_FUSE_READDIR] = {cci_share_readdir, 40, 0, 0, false},
    [CCI_FUSE_RELEASEDIR] = {cci_share_release, 24, 0, 0, false},
    [CCI_FUSE_FSYNCDIR] = {cci_share_fsync, 16, 0, 0, false},
    [CCI_FUSE_CREATE] = {cci_share_create, 16, CCI_FUSE_ENTRY_SIZE + CCI_FUSE_OPEN_REPLY_SIZE, 1, true},
    [CCI_FUSE_DESTROY] = {cci_share_destroy, 0, 0, 0, false},
    [CCI_FUSE_BATCH_FORGET] = {cci_share_op_batch_forget, 8, 0, 0, false},
    [CCI_FUSE_FALLOCATE] = {cci_share_fallocate, 32, 0, 0, true},
    [CCI_FUSE_READDIRPLUS] = {cci_share_readdirplus, 40, 0, 0, false},
    [CCI_FUSE_RENAME2] = {cci_share_rename2, 16, 0, 2, true},
    [CCI_FUSE_LSEEK] = {cci_share_lseek, 24, 8, 0, false},
    [CCI_FUSE_COPY_FILE_RANGE] = {cci_share_copy_file_range, 56, 8, 0, true},
    [CCI_FUSE_TMPFILE] = {cci_share_create, 16, CCI_FUSE_ENTRY_SIZE + CCI_FUSE_OPEN_REPLY_SIZE, 0, true},
};

/* ---- Answering -----------------------------------------------------------------------------------------------------
 */

/* Whether the guest has it mounted. */
static bool cci_share_is_started(struct cci_share *s)
{
    cci_mutex_lock(&s->mutex);
    bool started = s->started;
    cci_mutex_unlock(&s->mutex);
    return started;
}

/* Checks the request against the table, and calls its operation. 0, or an error number. */
static int cci_share_call(struct cci_share_req *r, const struct cci_share_op *op, struct cci_view args)
{
    if (!op || !op->fn)
        return -ENOSYS;
    if (!cci_share_is_started(r->share) && r->opcode != CCI_FUSE_INIT)
        return -EIO;
    r->args = cci_view_take(&args, op->args);
    if ((!r->args && op->args) || r->room < op->reply)
        return -EINVAL;
    (void)cci_iov_skip(&r->data, op->args);
    r->data_len -= op->args;
    r->rest = args;
    for (unsigned i = 0; i < op->names; i++) {
        int result = cci_share_take_name(r, &r->name[i]);
        if (result)
            return result;
    }
    if (op->changes && !r->share->config.writable)
        return -EROFS;
    return op->fn(r);
}

/* Whether the guest's kernel waits for an answer. */
static bool cci_share_has_reply(uint32_t opcode)
{
    return opcode != CCI_FUSE_FORGET && opcode != CCI_FUSE_BATCH_FORGET && opcode != CCI_FUSE_INTERRUPT;
}

/* Answers the request of in_len bytes at `in` with at most out_len bytes at `out`; returns how many, 0 for a request
 * that has no answer or no room for one. Nothing of it is kept. `slow` may be NULL; it is told before a wait, on the
 * same thread. Any thread that cci_share_enter_thread was called on.
 */
static size_t cci_share_request(struct cci_share *s, struct cci_iov in, size_t in_len, struct cci_iov out,
                                size_t out_len, const struct cci_share_slow *slow)
{
    uint8_t head[CCI_FUSE_IN_HEADER], args[CCI_SHARE_ARGS_MAX], reply[CCI_FUSE_OUT_HEADER];
    if (in_len < sizeof(head) || cci_iov_read(&in, head, sizeof(head)) != sizeof(head))
        return 0;
    struct cci_share_req r;
    memset(&r, 0, sizeof(r));
    r.share = s;
    if (slow)
        r.slow = *slow;
    r.opcode = cci_le32(head + 4);
    r.unique = cci_le64(head + 8);
    r.node = cci_le64(head + 16);
    r.uid = cci_le32(head + 24);
    r.gid = cci_le32(head + 28);
    const bool answered = cci_share_has_reply(r.opcode);
    if (answered && out_len < sizeof(reply))
        return 0;
    r.data = in;
    r.data_len = in_len - sizeof(head);
    r.out = out;
    (void)cci_iov_skip(&r.out, sizeof(reply));
    r.room = answered ? out_len - sizeof(reply) : 0;
    const struct cci_share_op *op = r.opcode < CCI_FUSE_OPCODES ? &cci_share_ops[r.opcode] : NULL;
    /* Of a request with data only the fixed part is copied. */
    const size_t limit = r.opcode == CCI_FUSE_WRITE || r.opcode == CCI_FUSE_BATCH_FORGET ? op->args : sizeof(args);
    struct cci_view copy = {args, cci_iov_read(&in, args, CCI_MIN(limit, r.data_len))};
    int result = cci_share_call(&r, op, copy);
    if (!answered)
        return 0;
    const size_t total = sizeof(reply) + (result < 0 ? 0 : r.filled);
    cci_put_le32(reply, (uint32_t)total);
    cci_put_le32(reply + 4, result < 0 ? (uint32_t)result : 0);
    cci_put_le64(reply + 8, r.unique);
    (void)cci_iov_write(&out, reply, sizeof(reply));
    return total;
}

/* Prepares the calling thread, which must be the library's own: files are made with exactly the modes asked for. */
static void cci_share_enter_thread(void)
{
    cci_os_own_umask();
}

/* ---- Life
 * -------------------------------------------------------------------------------------------------------------- */

/* The guest has gone, or begins anew: closes its files and forgets what it knew. */
static void cci_share_reset(struct cci_share *s)
{
    for (uint32_t i = 1;; i++) {
        cci_mutex_lock(&s->mutex);
        if (i >= s->handles.size) {
            cci_mutex_unlock(&s->mutex);
            break;
        }
        struct cci_share_handle *h = s->handles.at[i].thing;
        if (h)
            cci_share_slots_remove(&s->handles, h->number);
        cci_mutex_unlock(&s->mutex);
        if (h)
            cci_share_handle_put(s, h);
    }
    cci_mutex_lock(&s->mutex);
    s->started = false;
    for (uint32_t i = 2; i < s->nodes.size; i++) { /* 1 is the root; circles of parents are undone first */
        struct cci_share_node *n = s->nodes.at[i].thing;
        if (n)
            cci_share_move(s, n, NULL, NULL);
    }
    for (uint32_t i = 2; i < s->nodes.size; i++) {
        struct cci_share_node *n = s->nodes.at[i].thing;
        if (n) {
            n->lookups = 0;
            cci_share_drop(s, n);
        }
    }
    cci_mutex_unlock(&s->mutex);
}

/* After the last request. NULL is fine. */
static void cci_share_free(struct cci_share *s)
{
    if (!s)
        return;
    cci_share_reset(s);
    if (s->root) {
        s->root->lookups = 0;
        cci_share_drop(s, s->root);
    }
    cci_share_slots_free(&s->nodes);
    cci_share_slots_free(&s->handles);
    cci_mem_free(s->buckets);
    cci_mutex_destroy(&s->mutex);
    cci_mem_free(s);
}

static void cci_share_set_limits(struct cci_share *s)
{
    const uint64_t all = cci_os_descriptor_limit() / CCI_MAX(s->config.shares, 1);
    s->fds_max = (uint32_t)CCI_MIN(CCI_MAX(all / 4, 16), 4096);
    s->kept_max = s->fds_max / 2;
    s->handle_max = (uint32_t)CCI_MIN(CCI_MAX(all / 2, 16), 65536);
    cci_share_slots_init(&s->nodes, s->config.nodes_max ? s->config.nodes_max : CCI_SHARE_NODES_MAX);
    cci_share_slots_init(&s->handles, s->handle_max + 1);
}

static cc_error_code cci_share_open_root(struct cci_share *s, cc_error *err)
{
    const char *path = s->config.host_path;
    struct cci_os_statx sx;
    cci_fd fd = cci_os_open(path, CCI_OS_PATH | CCI_OS_DIRECTORY, 0);
    int r = fd < 0 ? fd : cci_os_statx_at(fd, "", &sx);
    if (r < 0) {
        cci_os_close(fd);
        return cci_fail_errno(err, r == -ENOENT || r == -ENOTDIR ? CC_ERR_INVALID_ARGUMENT : CC_ERR_IO, -r, path,
                              "cannot share \"%s\": %s", path,
                              r == -ENOENT    ? "there is no such directory"
                              : r == -ENOTDIR ? "it is not a directory"
                                              : "it cannot be opened");
    }
    cci_fd check = cci_os_reopen(fd, CCI_OS_PATH);
    cci_os_close(check);
    const struct cci_share_key key = cci_share_key_of(&sx);
    s->root = check < 0 ? NULL : cci_share_new_node(s, &key);
    if (!s->root) {
        cci_os_close(fd);
        return check < 0 ? cci_fail_errno(err, CC_ERR_IO, -check, path,
                                          "sharing a directory needs /proc, which is not there, or more open files")
                         : cci_fail_nomem(err);
    }
    s->root->lookups = 1;
    s->root->fd = fd;
    s->root->keep_fd = true;
    s->fds = s->kept = 1;
    return CC_OK;
}

/* Makes a share of config->host_path. */
static cc_error_code cci_share_new(const struct cci_share_config *config, struct cci_share **out, cc_error *err)
{
    struct cci_share *s = cci_mem_zalloc(1, sizeof(*s));
    if (!s)
        return cci_fail_nomem(err);
    s->config = *config;
    cci_mutex_init(&s->mutex);
    cci_share_set_limits(s);
    cc_error_code code = cci_share_open_root(s, err);
    s->config.host_path = NULL; /* the caller's, and not needed any more */
    if (code) {
        cci_share_free(s);
        s = NULL;
    }
    *out = s;
    return code;
}

#endif
