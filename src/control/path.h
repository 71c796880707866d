/*
 * control/path.h - requests about files of the guest by their path, and what they answer.
 *
 * All of them look alike on the wire (guest/protocol.h): one or two strings, then numbers. The guest's error numbers
 * come back as they are, with the path that was asked for.
 */
#ifndef CCI_CONTROL_PATH_H
#define CCI_CONTROL_PATH_H

#include "client.h"

struct cci_path_request {
    uint32_t type;     /* CCI_MSG_... */
    const char *path;  /* NULL: the request has none */
    const char *other; /* the second; NULL: none */
    unsigned count;    /* of the numbers */
    uint64_t n[4];
};

static void cci_path_put(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_path_request *r = ctx;
    if (r->path)
        cci_proto_put_str(w, r->path);
    if (r->other)
        cci_proto_put_str(w, r->other);
    for (unsigned i = 0; i < r->count; i++)
        cci_proto_put64(w, r->n[i]);
}

/* An error about two paths names both. */
static cc_error_code cci_path_check(const struct cci_call *call, const struct cci_path_request *r, cc_error *err)
{
    if (!r->other || call->sys_errno == 0 || call->result.failed)
        return cci_call_check(call, r->path, err);
    return cci_fail_errno(err, CC_ERR_IO, call->sys_errno, r->path, "%s -> %s: %s", r->path, r->other,
                          cci_errno_text(call->sys_errno));
}

/* Sends the request and waits. On success the reply is in *call, which the caller ends in any case. */
static cc_error_code cci_path_call(struct cci_control *ctl, const struct cci_path_request *r, struct cci_call *call,
                                   const struct cci_wait *wait, cc_error *err)
{
    cci_call_begin(call, ctl);
    cc_error_code code = cci_call_send(call, r->type, cci_path_put, r, err);
    if (code == CC_OK)
        code = cci_call_wait(call, wait, "a file of the guest", err);
    if (code == CC_OK)
        code = cci_path_check(call, r, err);
    return code;
}

static cc_error_code cci_path_broken(cc_error *err)
{
    return cci_fail(err, CC_ERR_IO, NULL, "the guest's agent sent a result that breaks the protocol");
}

/* The same for a request whose answer is success or an error. */
static cc_error_code cci_path_do(struct cci_control *ctl, const struct cci_path_request *r, const struct cci_wait *wait,
                                 cc_error *err)
{
    struct cci_call call;
    cc_error_code code = cci_path_call(ctl, r, &call, wait, err);
    cci_call_end(&call);
    return code;
}

/* For a request whose answer is numbers. */
static cc_error_code cci_path_ask(struct cci_control *ctl, const struct cci_path_request *r, uint64_t *out,
                                  unsigned count, const struct cci_wait *wait, cc_error *err)
{
    struct cci_call call;
    cc_error_code code = cci_path_call(ctl, r, &call, wait, err);
    if (code == CC_OK) {
        struct cci_proto_reader in = cci_call_result(&call);
        for (unsigned i = 0; i < count; i++)
            out[i] = cci_proto_get64(&in);
        if (in.bad)
            code = cci_path_broken(err);
    }
    cci_call_end(&call);
    return code;
}

/* ---- Attributes ------------------------------------------------------------------------------------------- */

struct cci_file_time {
    int64_t seconds; /* since 1970 */
    uint32_t ns;
};

struct cci_file_stat {
    uint64_t dev, ino;
    uint32_t mode; /* a whole st_mode */
    uint64_t nlink;
    uint32_t uid, gid;
    uint64_t rdev;
    uint64_t size;
    uint64_t blksize, blocks; /* blocks of 512 bytes */
    struct cci_file_time atime, mtime, ctime;
};

static struct cci_file_time cci_file_get_time(struct cci_proto_reader *in)
{
    struct cci_file_time t;
    t.seconds = (int64_t)cci_proto_get64(in);
    t.ns = cci_proto_get32(in);
    return t;
}

static cc_error_code cci_file_parse_stat(const struct cci_call *call, struct cci_file_stat *out, cc_error *err)
{
    struct cci_proto_reader in = cci_call_result(call);
    memset(out, 0, sizeof(*out));
    out->dev = cci_proto_get64(&in);
    out->ino = cci_proto_get64(&in);
    out->mode = (uint32_t)cci_proto_get64(&in);
    out->nlink = cci_proto_get64(&in);
    out->uid = (uint32_t)cci_proto_get64(&in);
    out->gid = (uint32_t)cci_proto_get64(&in);
    out->rdev = cci_proto_get64(&in);
    out->size = cci_proto_get64(&in);
    out->blksize = cci_proto_get64(&in);
    out->blocks = cci_proto_get64(&in);
    out->atime = cci_file_get_time(&in);
    out->mtime = cci_file_get_time(&in);
    out->ctime = cci_file_get_time(&in);
    return in.bad ? cci_path_broken(err) : CC_OK;
}

/* For STAT and FILE_STAT. */
static cc_error_code cci_path_stat(struct cci_control *ctl, const struct cci_path_request *r, struct cci_file_stat *out,
                                   const struct cci_wait *wait, cc_error *err)
{
    struct cci_call call;
    cc_error_code code = cci_path_call(ctl, r, &call, wait, err);
    if (code == CC_OK)
        code = cci_file_parse_stat(&call, out, err);
    cci_call_end(&call);
    return code;
}

/* The attributes of a file; with `nofollow` those of a symbolic link itself. */
static cc_error_code cci_file_stat(struct cci_control *ctl, const char *path, bool nofollow, struct cci_file_stat *out,
                                   const struct cci_wait *wait, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_STAT, path, NULL, 1, {nofollow}};
    return cci_path_stat(ctl, &r, out, wait, err);
}

/* The target of a symbolic link, to be freed with cci_mem_free. It is cut at a NUL, which no link has. */
static cc_error_code cci_path_readlink(struct cci_control *ctl, const char *path, char **out,
                                       const struct cci_wait *wait, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_READLINK, path, NULL, 0, {0}};
    struct cci_call call;
    size_t n;
    cc_error_code code = cci_path_call(ctl, &r, &call, wait, err);
    if (code == CC_OK) {
        struct cci_proto_reader in = cci_call_result(&call);
        const char *p = (const char *)cci_proto_get_bytes(&in, &n);
        *out = in.bad ? NULL : cci_mem_strndup(p, n);
        if (!*out)
            code = in.bad ? cci_path_broken(err) : cci_fail_nomem(err);
    }
    cci_call_end(&call);
    return code;
}

#endif
