/*
 * tests/share/requests.h - a guest's FUSE client that writes its requests by hand.
 *
 *     struct rq q; rq_open(&q, directory, writable);
 *     uint64_t node = rq_lookup(&q, 1, "name");                 0: q.error says why
 *     rq_begin(&q, CCI_FUSE_OPEN, node); rq_u32(&q, 0); rq_u32(&q, 0); CHECK_EQ_INT(rq_send(&q), 0);
 *     uint64_t handle = cci_le64(q.reply);
 */
#ifndef TESTS_SHARE_REQUESTS_H
#define TESTS_SHARE_REQUESTS_H

#include "../../src/base/remove.h"
#include "../../src/share/dispatch.h"

#define RQ_ROOM 70000u

struct rq {
    struct cci_share *share;
    uint8_t in[RQ_ROOM], out[RQ_ROOM];
    size_t n;       /* bytes of the request */
    size_t room;    /* for the reply */
    size_t piece;   /* memory is given in pieces of so many bytes; 0: one */
    uint8_t *reply; /* behind its header */
    size_t reply_n;
    int error; /* of the last reply; -1: there was none */
};

static void rq_begin(struct rq *q, uint32_t opcode, uint64_t node)
{
    memset(q->in, 0, CCI_FUSE_IN_HEADER);
    cci_put_le32(q->in + 4, opcode);
    cci_put_le64(q->in + 8, 0x1122334455667788u);
    cci_put_le64(q->in + 16, node);
    q->n = CCI_FUSE_IN_HEADER;
    q->room = sizeof(q->out);
}

static void rq_bytes(struct rq *q, const void *p, size_t n)
{
    n = CCI_MIN(n, sizeof(q->in) - q->n);
    if (n)
        memcpy(q->in + q->n, p, n);
    q->n += n;
}

static void rq_u32(struct rq *q, uint32_t v)
{
    uint8_t b[4];
    cci_put_le32(b, v);
    rq_bytes(q, b, 4);
}

static void rq_u64(struct rq *q, uint64_t v)
{
    rq_u32(q, (uint32_t)v);
    rq_u32(q, (uint32_t)(v >> 32));
}

static void rq_str(struct rq *q, const char *s)
{
    rq_bytes(q, s, strlen(s) + 1);
}

static unsigned rq_pieces(const struct rq *q, uint8_t *p, size_t n, struct cci_iovec v[256])
{
    const size_t piece = q->piece ? CCI_MAX(q->piece, n / 255 + 1) : n;
    unsigned count = 0;
    for (size_t at = 0; at < n; at += piece) {
        v[count].base = p + at;
        v[count++].len = CCI_MIN(piece, n - at);
    }
    return count;
}

/* The error number of the reply, 0 for success, -1 for none. What the reply's header must be is checked. */
static int rq_send(struct rq *q)
{
    struct cci_iovec in_v[256], out_v[256];
    uint8_t *copy = malloc(q->n ? q->n : 1), *out = malloc(q->room ? q->room : 1); /* so that overruns are found */
    if (!copy || !out)
        abort();
    cci_put_le32(q->in, (uint32_t)q->n);
    memcpy(copy, q->in, q->n);
    struct cci_iov in_iov = {in_v, rq_pieces(q, copy, q->n, in_v), 0};
    struct cci_iov out_iov = {out_v, rq_pieces(q, out, q->room, out_v), 0};
    size_t n = cci_share_request(q->share, in_iov, q->n, out_iov, q->room, NULL);
    if (n > q->room || (n && (n < 16 || cci_le32(out) != n || cci_le64(out + 8) != cci_le64(q->in + 8))))
        abort();
    if (n)
        memcpy(q->out, out, n);
    q->reply = q->out + 16;
    q->reply_n = n ? n - 16 : 0;
    q->error = n ? -(int)cci_le32(out + 4) : -1;
    if (n && (q->error < 0 || q->error > 4095 || (q->error && n != 16)))
        abort();
    free(copy);
    free(out);
    return q->error;
}

static int rq_init(struct rq *q)
{
    rq_begin(q, CCI_FUSE_INIT, 0);
    rq_u32(q, 7);
    rq_u32(q, 38);
    rq_u32(q, 131072);
    rq_u32(q, UINT32_MAX);
    return rq_send(q);
}

/* A share of the directory, which the guest has mounted. False: it cannot be had. */
static bool rq_open(struct rq *q, const char *directory, bool writable)
{
    const struct cci_share_config config = {.host_path = directory, .writable = writable};
    memset(q, 0, sizeof(*q));
    return cci_share_new(&config, &q->share, NULL) == CC_OK && rq_init(q) == 0;
}

static uint64_t rq_lookup(struct rq *q, uint64_t dir, const char *name)
{
    rq_begin(q, CCI_FUSE_LOOKUP, dir);
    rq_str(q, name);
    return rq_send(q) == 0 ? cci_le64(q->reply) : 0;
}

static int rq_open_file(struct rq *q, uint64_t node, uint32_t flags, uint64_t *handle)
{
    rq_begin(q, CCI_FUSE_OPEN, node);
    rq_u32(q, flags);
    rq_u32(q, 0);
    *handle = rq_send(q) == 0 ? cci_le64(q->reply) : 0;
    return q->error;
}

/* READ, WRITE (without its data), READDIR: their arguments. */
static void rq_transfer(struct rq *q, uint32_t opcode, uint64_t node, uint64_t handle, uint64_t offset, uint32_t size)
{
    rq_begin(q, opcode, node);
    rq_u64(q, handle);
    rq_u64(q, offset);
    rq_u32(q, size);
    rq_u32(q, 0);
    rq_u64(q, 0);
    rq_u64(q, 0);
}

static int rq_release(struct rq *q, uint64_t node, uint64_t handle)
{
    rq_begin(q, CCI_FUSE_RELEASE, node);
    rq_u64(q, handle);
    rq_u64(q, 0);
    rq_u64(q, 0);
    return rq_send(q);
}

static void rq_forget(struct rq *q, uint64_t node, uint64_t count)
{
    rq_begin(q, CCI_FUSE_FORGET, node);
    rq_u64(q, count);
    (void)rq_send(q);
}

static int rq_getattr(struct rq *q, uint64_t node)
{
    rq_begin(q, CCI_FUSE_GETATTR, node);
    rq_u64(q, 0);
    rq_u64(q, 0);
    return rq_send(q);
}

#endif
