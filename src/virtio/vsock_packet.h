/*
 * virtio/vsock_packet.h - the packets of virtio-vsock (virtio 1.2, section 5.10.6), and the credit arithmetic.
 *
 * Every packet on the receive and transmit queues is a header of 44 bytes, little-endian, and for RW a payload. A
 * connection is a pair of (context ID, port) addresses; the host is CID 2.
 *
 * Flow control (5.10.6.3): each side tells the other, in every header, the size of its receive buffer (buf_alloc) and
 * how many bytes its reader has taken out of it in all (fwd_cnt). The sender counts what it sent (tx_cnt) and never
 * has more than buf_alloc under way. The counters are 32 bits and wrap; only differences mean anything.
 */
#ifndef CCI_VIRTIO_VSOCK_PACKET_H
#define CCI_VIRTIO_VSOCK_PACKET_H

#include "../base/bytes.h"

#define CCI_VSOCK_HEADER 44
#define CCI_VSOCK_CID_HOST 2
#define CCI_VSOCK_CID_GUEST 3 /* the same for every guest: each talks to its own host process only */
#define CCI_VSOCK_TYPE_STREAM 1

enum cci_vsock_op {
    CCI_VSOCK_REQUEST = 1,
    CCI_VSOCK_RESPONSE = 2,
    CCI_VSOCK_RST = 3,
    CCI_VSOCK_SHUTDOWN = 4,
    CCI_VSOCK_RW = 5,
    CCI_VSOCK_CREDIT_UPDATE = 6,
    CCI_VSOCK_CREDIT_REQUEST = 7
};

/* Flags of SHUTDOWN: the sender of the packet will not ... any more. */
#define CCI_VSOCK_NO_RECEIVE 1u
#define CCI_VSOCK_NO_SEND 2u
#define CCI_VSOCK_NO_MORE 3u

struct cci_vsock_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;       /* payload bytes */
    uint16_t type;      /* CCI_VSOCK_TYPE_STREAM */
    uint16_t op;        /* enum cci_vsock_op */
    uint32_t flags;     /* of SHUTDOWN */
    uint32_t buf_alloc; /* the sender's receive buffer, bytes */
    uint32_t fwd_cnt;   /* what its reader has taken from that so far */
};

static struct cci_vsock_header cci_vsock_header_get(const uint8_t p[CCI_VSOCK_HEADER])
{
    struct cci_vsock_header h = {
        .src_cid = cci_le64(p),
        .dst_cid = cci_le64(p + 8),
        .src_port = cci_le32(p + 16),
        .dst_port = cci_le32(p + 20),
        .len = cci_le32(p + 24),
        .type = cci_le16(p + 28),
        .op = cci_le16(p + 30),
        .flags = cci_le32(p + 32),
        .buf_alloc = cci_le32(p + 36),
        .fwd_cnt = cci_le32(p + 40),
    };
    return h;
}

static void cci_vsock_header_put(uint8_t p[CCI_VSOCK_HEADER], const struct cci_vsock_header *h)
{
    cci_put_le64(p, h->src_cid);
    cci_put_le64(p + 8, h->dst_cid);
    cci_put_le32(p + 16, h->src_port);
    cci_put_le32(p + 20, h->dst_port);
    cci_put_le32(p + 24, h->len);
    cci_put_le16(p + 28, h->type);
    cci_put_le16(p + 30, h->op);
    cci_put_le32(p + 32, h->flags);
    cci_put_le32(p + 36, h->buf_alloc);
    cci_put_le32(p + 40, h->fwd_cnt);
}

/* How many bytes may be sent now to a peer with a receive buffer of buf_alloc whose reader has taken fwd_cnt of the
 * tx_cnt sent so far. None when the peer made its buffer smaller than what is under way, or is lying. */
static uint32_t cci_vsock_credit(uint32_t buf_alloc, uint32_t tx_cnt, uint32_t fwd_cnt)
{
    uint32_t under_way = tx_cnt - fwd_cnt;
    return under_way < buf_alloc ? buf_alloc - under_way : 0;
}

#endif
