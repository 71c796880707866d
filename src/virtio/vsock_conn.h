/*
 * virtio/vsock_conn.h - the connections of a vsock device: what they are made of, and their table.
 *
 * A connection is known by its pair of ports (both context IDs are fixed). It is in the table from the request on
 * until a reset was sent or received:
 *
 *     state        in table  means                                          ends by
 *     CONNECTING   yes       the host dialled; no RESPONSE yet              RESPONSE -> OPEN, RST -> GONE
 *     OPEN         yes       data flows; each direction may be shut down    RST or reset -> GONE, doomed -> DYING
 *     DYING        yes       a RST waits for a receive buffer               RST sent or received -> GONE
 *     GONE         no        the user still holds the stream                close
 *
 * A connection has a user ("owned") who holds it as a stream, or waits to be accepted ("listener" is set), or was
 * closed and only finishes: it delivers what was written, says SHUTDOWN and waits for the guest's RST. Of those the
 * oldest is cut off when the table is full, which needs no timer; so a guest that never answers costs little.
 *
 * What the guest can make the host hold is bounded: the number of connections, half of which at most the guest opened;
 * for each a receive ring of buf_alloc bytes and a send ring of CCI_VSOCK_SEND; and a fixed array of resets for
 * packets that belong to no connection. What a connection has to tell the guest is kept as flags, never queued.
 *
 * All of this is guarded by the device's mutex.
 */
#ifndef CCI_VIRTIO_VSOCK_CONN_H
#define CCI_VIRTIO_VSOCK_CONN_H

#include "../base/stream.h"
#include "device.h"
#include "vsock_packet.h"
#include "vsock_ring.h"

#define CCI_VSOCK_RECEIVE_MIN 65536u         /* receive buffer that every connection is given */
#define CCI_VSOCK_RECEIVE_MAX 262144u        /* what it grows to once its reader has proved to be one */
#define CCI_VSOCK_EXTRA ((uint64_t)64 << 20) /* limit on the sum of that growth, bytes */
#define CCI_VSOCK_SEND 131072u               /* bytes a connection holds for a guest that has no room */
#define CCI_VSOCK_CONNS 1024u                /* connections, unless the options say otherwise */
#define CCI_VSOCK_ORPHANS 128u               /* resets waiting for receive buffers */
#define CCI_VSOCK_BUCKETS 256u               /* of the table; a power of two */
#define CCI_VSOCK_FIRST_PORT (1u << 20)      /* the host's ports for dialling, from here on */

enum { CCI_VSOCK_RX, CCI_VSOCK_TX, CCI_VSOCK_EVENT, CCI_VSOCK_QUEUES };

enum cci_vsock_state { CCI_VSOCK_CONNECTING, CCI_VSOCK_OPEN, CCI_VSOCK_DYING, CCI_VSOCK_GONE };

/* What a connection has to tell the guest besides data. */
#define CCI_VSOCK_WANT_REQUEST 1u
#define CCI_VSOCK_WANT_RESPONSE 2u
#define CCI_VSOCK_WANT_CREDIT 4u
#define CCI_VSOCK_WANT_SHUTDOWN 8u /* behind all data */
#define CCI_VSOCK_WANT_RST 16u

/* A place in a circular list; of itself alone when in none. */
struct cci_vsock_link {
    struct cci_vsock_link *prev, *next;
};

/* Called on the I/O thread without locks for each connection that the guest opens. It owns the stream. */
typedef void (*cci_vsock_accept_fn)(void *ctx, struct cci_stream *s, uint32_t peer_port);

struct cci_vsock_listener {
    uint32_t port;
    cci_vsock_accept_fn fn;
    void *ctx;
    struct cci_vsock_listener *next;
};

struct cci_vsock_conn {
    struct cci_stream stream; /* first: what the user holds */
    struct cci_vsock *v;
    uint32_t host_port, guest_port;
    enum cci_vsock_state state;
    int error;                     /* why it broke, positive; 0 if it did not */
    bool owned;                    /* a user holds the stream */
    bool from_guest;               /* the guest opened it */
    bool no_more_writes;           /* the user shut down or closed */
    bool writer_waits;             /* a write found too little room */
    uint8_t peer_no;               /* CCI_VSOCK_NO_*, as the guest said */
    uint8_t want;                  /* CCI_VSOCK_WANT_* */
    struct cci_vsock_ring in, out; /* from the guest, unread; to the guest, unsent */
    uint32_t buf_alloc;            /* our receive buffer, as the guest is told */
    uint32_t fwd_cnt;              /* bytes read so far */
    uint32_t fwd_told;             /* fwd_cnt in the last header that we sent */
    uint32_t tx_cnt;               /* bytes sent so far */
    uint32_t peer_buf_alloc;       /* as the guest said last, both */
    uint32_t peer_fwd_cnt;
    cci_stream_watch_fn watch;
    void *watch_ctx;
    struct cci_vsock_listener *listener; /* waits to be accepted by it */
    struct cci_vsock_conn *next;         /* in its bucket */
    struct cci_vsock_link sending;       /* in v->sending: has something to send */
    struct cci_vsock_link ready;         /* in v->ready: its user is to be called */
    struct cci_vsock_link closing;       /* in v->closing: has no user any more, and is OPEN */
};

struct cci_vsock {
    struct cci_virtio_dev dev; /* first */
    bool dead;                 /* the machine ended */
    bool event_pending;        /* the guest is to be told that all connections are gone */
    bool transmit_held;        /* the transmit queue waits until there is room for replies */
    bool dispatching;          /* somebody is in cci_vsock_dispatch */
    bool rung;                 /* the I/O thread was asked to dispatch */
    uint32_t max_conns;
    uint32_t conns;       /* in the table */
    uint32_t guest_conns; /* of those, opened by the guest */
    uint32_t next_port;   /* candidate for the next dial */
    uint32_t first_count; /* what byte counters start from */
    uint64_t extra;       /* sum of buf_alloc beyond CCI_VSOCK_RECEIVE_MIN */
    struct cci_vsock_link sending, ready, closing;
    struct cci_vsock_conn *calling;       /* whose user is being called */
    struct cci_vsock_listener *accepting; /* which listener is being called */
    struct cci_cond called;               /* one of these two changed */
    struct cci_vsock_listener *listeners;
    unsigned orphan_count;
    struct cci_vsock_header orphan[CCI_VSOCK_ORPHANS]; /* resets to be sent */
    struct cci_vsock_conn *bucket[CCI_VSOCK_BUCKETS];
};

/* ---- Lists ----------------------------------------------------------------------------------------------- */

static void cci_vsock_link_init(struct cci_vsock_link *l)
{
    l->prev = l->next = l;
}

static bool cci_vsock_linked(const struct cci_vsock_link *l)
{
    return l->next != l;
}

static void cci_vsock_unlink(struct cci_vsock_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    cci_vsock_link_init(l);
}

static void cci_vsock_append(struct cci_vsock_link *list, struct cci_vsock_link *l)
{
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

/* The first connection of a list, by the offset of the list's link in a connection; NULL when it is empty. */
static struct cci_vsock_conn *cci_vsock_first(const struct cci_vsock_link *list, size_t offset)
{
    if (!cci_vsock_linked(list))
        return NULL;
    return (struct cci_vsock_conn *)(void *)((uint8_t *)list->next - offset);
}

/* ---- The table ------------------------------------------------------------------------------------------- */

static struct cci_vsock_conn **cci_vsock_bucket(struct cci_vsock *v, uint32_t host_port, uint32_t guest_port)
{
    uint32_t h = (host_port * 31u + guest_port) * 0x9e3779b1u;
    return &v->bucket[h >> 24 & (CCI_VSOCK_BUCKETS - 1)];
}

static struct cci_vsock_conn *cci_vsock_find(struct cci_vsock *v, uint32_t host_port, uint32_t guest_port)
{
    struct cci_vsock_conn *c = *cci_vsock_bucket(v, host_port, guest_port);
    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->next;
    return c;
}

static void cci_vsock_insert(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    struct cci_vsock_conn **b = cci_vsock_bucket(v, c->host_port, c->guest_port);
    c->next = *b;
    *b = c;
    v->conns++;
    v->guest_conns += c->from_guest;
}

/* Takes it out of the table: from now on the guest cannot reach it. */
static void cci_vsock_remove(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    struct cci_vsock_conn **p = cci_vsock_bucket(v, c->host_port, c->guest_port);
    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    v->conns--;
    v->guest_conns -= c->from_guest;
    v->extra -= c->buf_alloc - CCI_VSOCK_RECEIVE_MIN;
    c->buf_alloc = CCI_VSOCK_RECEIVE_MIN;
    cci_vsock_unlink(&c->sending);
    cci_vsock_unlink(&c->closing);
    cci_vsock_ring_free(&c->out);
    c->state = CCI_VSOCK_GONE;
}

/* A connection with no table entry yet; NULL when there is no memory. */
static struct cci_vsock_conn *cci_vsock_conn_new(struct cci_vsock *v, uint32_t host_port, uint32_t guest_port)
{
    struct cci_vsock_conn *c = cci_mem_zalloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->v = v;
    c->host_port = host_port;
    c->guest_port = guest_port;
    c->buf_alloc = CCI_VSOCK_RECEIVE_MIN;
    c->fwd_cnt = c->fwd_told = c->tx_cnt = c->peer_fwd_cnt = v->first_count;
    cci_vsock_link_init(&c->sending);
    cci_vsock_link_init(&c->ready);
    cci_vsock_link_init(&c->closing);
    return c;
}

/* Frees a connection that is GONE and that nobody holds. */
static void cci_vsock_conn_free(struct cci_vsock_conn *c)
{
    cci_vsock_unlink(&c->ready);
    cci_vsock_ring_free(&c->in);
    cci_mem_free(c);
}

/* ---- What happens to a connection ------------------------------------------------------------------------ */

/* Something changed that its user waits for. */
static void cci_vsock_tell(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    if (c->owned && c->watch && !cci_vsock_linked(&c->ready))
        cci_vsock_append(&v->ready, &c->ready);
}

/* Has the I/O thread call those who are to be called, unless somebody is at it already. */
static void cci_vsock_ring_dispatch(struct cci_vsock *v)
{
    if (v->dispatching || v->rung || !cci_vsock_linked(&v->ready))
        return;
    v->rung = true;
    cci_virtio_ring(&v->dev, CCI_VSOCK_TX);
}

static void cci_vsock_unlock(struct cci_vsock *v)
{
    cci_vsock_ring_dispatch(v);
    cci_mutex_unlock(&v->dev.mutex);
}

/* How much of the send ring may go now. */
static uint32_t cci_vsock_conn_credit(const struct cci_vsock_conn *c)
{
    return c->state == CCI_VSOCK_OPEN ? cci_vsock_credit(c->peer_buf_alloc, c->tx_cnt, c->peer_fwd_cnt) : 0;
}

/* Whether the connection could use a receive buffer now. */
static bool cci_vsock_has_output(const struct cci_vsock_conn *c)
{
    if (c->out.used && cci_vsock_conn_credit(c))
        return true;
    return (c->want & (c->out.used ? (uint8_t)~CCI_VSOCK_WANT_SHUTDOWN : UINT8_MAX)) != 0;
}

static void cci_vsock_schedule(struct cci_vsock *v, struct cci_vsock_conn *c)
{
    if (!cci_vsock_linked(&c->sending) && cci_vsock_has_output(c))
        cci_vsock_append(&v->sending, &c->sending);
}

/* It is over, and the guest knows: it leaves the table, and its user finds `error` (0 for an orderly end). */
static void cci_vsock_end(struct cci_vsock *v, struct cci_vsock_conn *c, int error)
{
    cci_vsock_remove(v, c);
    if (error)
        c->error = error;
    if (c->owned)
        cci_vsock_tell(v, c);
    else
        cci_vsock_conn_free(c);
}

/* It is over, and the guest is to be told by a RST. */
static void cci_vsock_doom(struct cci_vsock *v, struct cci_vsock_conn *c, int error)
{
    if (c->state == CCI_VSOCK_DYING)
        return;
    c->state = CCI_VSOCK_DYING;
    c->error = error;
    c->want = CCI_VSOCK_WANT_RST;
    if (c->listener) { /* nobody will accept it any more */
        c->listener = NULL;
        cci_vsock_unlink(&c->ready);
    }
    cci_vsock_unlink(&c->closing);
    cci_vsock_ring_free(&c->out);
    cci_vsock_schedule(v, c);
    cci_vsock_tell(v, c);
}

/* Whether packets from the guest have to wait: one may cause two resets (cci_vsock_make_room, and its own). */
static bool cci_vsock_orphans_full(const struct cci_vsock *v)
{
    return v->orphan_count > CCI_VSOCK_ORPHANS - 2;
}

/* A reset that belongs to no connection. The caller made sure that there is room. */
static void cci_vsock_orphan(struct cci_vsock *v, uint64_t host_cid, uint32_t host_port, uint32_t guest_port)
{
    struct cci_vsock_header *h = &v->orphan[v->orphan_count++];
    memset(h, 0, sizeof(*h));
    h->src_cid = host_cid;
    h->dst_cid = CCI_VSOCK_CID_GUEST;
    h->src_port = host_port;
    h->dst_port = guest_port;
    h->type = CCI_VSOCK_TYPE_STREAM;
    h->op = CCI_VSOCK_RST;
}

/* Whether one more connection fits, if need be in place of the closed one that has waited longest for its end. */
static bool cci_vsock_make_room(struct cci_vsock *v)
{
    if (v->conns < v->max_conns)
        return true;
    struct cci_vsock_conn *old = cci_vsock_first(&v->closing, offsetof(struct cci_vsock_conn, closing));
    if (!old || cci_vsock_orphans_full(v))
        return false;
    cci_vsock_orphan(v, CCI_VSOCK_CID_HOST, old->host_port, old->guest_port);
    cci_vsock_end(v, old, ECONNRESET);
    return true;
}

#endif
