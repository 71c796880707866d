/*
 * share/request.h - one request: taking it apart, and putting the reply together.
 *
 * The arguments and names of a request are copied once, so that they cannot change while they are looked at; the data
 * of a WRITE and the bytes of a READ stay where they are and go straight to and from the file. What an operation
 * replies is put behind the place of the header, which is written last.
 */
#ifndef CCI_SHARE_REQUEST_H
#define CCI_SHARE_REQUEST_H

#include "handle.h"

#define CCI_SHARE_ARGS_MAX 4608u /* the longest copied: a symbolic link's name and target, each with its NUL */

/* Who wants to know that a request is about to wait for a disk. Both NULL: nobody. */
struct cci_share_slow {
    void (*fn)(void *ctx);
    void *ctx;
};

struct cci_share_req {
    struct cci_share *share;
    struct cci_share_slow slow; /* fn NULL once it was told */
    uint64_t unique;
    uint64_t node;
    uint32_t opcode;
    uint32_t uid, gid;    /* who asks, in the guest */
    const uint8_t *args;  /* as many bytes as the operation is listed with */
    struct cci_view rest; /* what follows them, up to CCI_SHARE_ARGS_MAX in all, without the names below */
    const char *name[2];  /* as many as the operation is listed with: sound single components */
    struct cci_iov data;  /* everything behind the arguments, in place */
    size_t data_len;      /* bytes of it */
    struct cci_iov out;   /* where the next bytes of the reply go */
    size_t room;          /* bytes that still fit */
    size_t filled;        /* bytes of the reply so far, without the header */
};

/* Before something that is likely to wait. */
static void cci_share_is_slow(struct cci_share_req *r)
{
    if (r->slow.fn)
        r->slow.fn(r->slow.ctx);
    r->slow.fn = NULL;
}

/* Appends to the reply what is known to fit (the operation is listed with it, or looked at r->room). */
static void cci_share_put(struct cci_share_req *r, const void *data, size_t n)
{
    size_t done = cci_iov_write(&r->out, data, CCI_MIN(n, r->room));
    r->filled += done;
    r->room -= done;
}

/* A string with its NUL off the front of what follows the arguments; NULL if there is no NUL. */
static const char *cci_share_take_string(struct cci_share_req *r)
{
    const uint8_t *end = r->rest.n ? memchr(r->rest.p, 0, r->rest.n) : NULL;
    return end ? (const char *)cci_view_take(&r->rest, (size_t)(end - r->rest.p) + 1) : NULL;
}

/* The same for the name of a file in a directory. 0, or an error number. */
static int cci_share_take_name(struct cci_share_req *r, const char **out)
{
    const char *name = *out = cci_share_take_string(r);
    if (!name || !*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EINVAL;
    return strlen(name) > CCI_FUSE_NAME_MAX ? -ENAMETOOLONG : 0;
}

#endif
