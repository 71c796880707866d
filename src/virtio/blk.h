/*
 * virtio/blk.h - the block device (virtio 1.2, section 5.2), over a row of file segments (base/disk.h).
 *
 * A request is a chain: 16 bytes to read (type, sector), then data to read or to write, and a last byte to write, the
 * status. Data never passes through a buffer of ours: preadv and pwritev work on the guest's own pages, one call for
 * each file segment that a request touches.
 *
 * Who does the work. A read is tried on the I/O thread with RWF_NOWAIT, which succeeds when the bytes are in the page
 * cache and costs no change of threads; what would block (or what the filesystem cannot do that way) continues on the
 * pool. Buffered writes only copy to the page cache, and ext4 knows no RWF_NOWAIT for them, so they are made on the
 * I/O thread as well, until one takes longer than CCI_BLK_SLOW_NS: the kernel is then holding the writer back because
 * too much is dirty, and for CCI_BLK_AVOID_NS writes go to the pool, so that other devices of the instance are not
 * held back, too. Flush, discard and write-zeroes always go to the pool, as does what moves more than CCI_BLK_PIECE: a
 * chain may name the same page of RAM any number of times and so ask for 4 GiB. The pool moves one such piece after
 * the other and stops in between when the device is reset or ends, so neither has to wait for a queue full of those.
 * Requests may complete in any order, as the specification allows; a flush covers the writes that had completed before
 * it was sent.
 *
 * A `volatile` disk is an unlinked scratch file that ends with its instance: durability means nothing there, so FLUSH
 * is not offered, and the guest does not spend requests on it.
 *
 * What is wrong with a request as such (alignment, range, a write to a read-only disk) is its status, IOERR or UNSUPP;
 * only a chain with no room for header or status fails the device. Nothing of the device's own needs saving.
 */
#ifndef CCI_VIRTIO_BLK_H
#define CCI_VIRTIO_BLK_H

#include "../base/disk.h"
#include "../base/pool.h"
#include "device.h"

#define CCI_BLK_SECTOR 512u
#define CCI_BLK_QUEUE_SIZE 128
#define CCI_BLK_SEG_MAX (CCI_BLK_QUEUE_SIZE - 2) /* data pieces of a request: header and status also take one each */
#define CCI_BLK_ID_SIZE 20u
#define CCI_BLK_RANGES 32u           /* of one discard or write-zeroes request */
#define CCI_BLK_RANGE_SIZE 16u       /* sector 8, sectors 4, flags 4 */
#define CCI_BLK_RANGE_MAX 0x400000u  /* sectors: 2 GiB */
#define CCI_BLK_PIECE 0x400000u      /* bytes that are moved in one go */
#define CCI_BLK_SLOW_NS 2000000u     /* a write that took longer was held back */
#define CCI_BLK_AVOID_NS 1000000000u /* how long the I/O thread then makes no writes */

#define CCI_BLK_F_SEG_MAX ((uint64_t)1 << 2)
#define CCI_BLK_F_RO ((uint64_t)1 << 5)
#define CCI_BLK_F_FLUSH ((uint64_t)1 << 9)
#define CCI_BLK_F_DISCARD ((uint64_t)1 << 13)
#define CCI_BLK_F_WRITE_ZEROES ((uint64_t)1 << 14)

enum cci_blk_type {
    CCI_BLK_T_IN = 0,
    CCI_BLK_T_OUT = 1,
    CCI_BLK_T_FLUSH = 4,
    CCI_BLK_T_GET_ID = 8,
    CCI_BLK_T_DISCARD = 11,
    CCI_BLK_T_WRITE_ZEROES = 13
};

enum cci_blk_status { CCI_BLK_S_OK = 0, CCI_BLK_S_IOERR = 1, CCI_BLK_S_UNSUPP = 2 };

struct cci_blk {
    struct cci_virtio_dev dev;
    const struct cci_disk *disk;
    struct cci_pool *pool;
    bool is_volatile;
    uint8_t id[CCI_BLK_ID_SIZE]; /* what GET_ID gives; padded with zeroes */
    uint64_t avoid_until;        /* cci_os_now() until which writes go to the pool; under the device's mutex */
};

/* One request. It begins on the I/O thread's stack and moves to the heap if it has to wait. */
struct cci_blk_req {
    struct cci_job job;
    struct cci_blk *blk;
    uint16_t head;
    uint32_t type;
    uint64_t offset;    /* on the disk, in bytes, of what is still to do */
    uint64_t left;      /* bytes of data still to do */
    uint32_t written;   /* bytes written at the front of the chain's "in" pieces so far */
    uint32_t status_at; /* bytes of "in" pieces before the status */
    struct cci_iov data;
    uint8_t *status;
};

/* ---- Data -------------------------------------------------------------------------------------------------- */

/* The segment with this byte of the disk; there is one, as ranges are checked before. */
static const struct cci_disk_segment *cci_blk_segment(const struct cci_disk *disk, uint64_t offset)
{
    size_t low = 0, high = disk->count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (disk->segments[mid].start <= offset)
            low = mid;
        else
            high = mid;
    }
    return &disk->segments[low];
}

/* Whether n bytes at a sector are whole sectors on the disk. */
static bool cci_blk_in_range(const struct cci_disk *disk, uint64_t sector, uint64_t n)
{
    return n % CCI_BLK_SECTOR == 0 && sector <= disk->size / CCI_BLK_SECTOR &&
           n <= disk->size - sector * CCI_BLK_SECTOR;
}

/* Reads or writes the rest of the request's data, as far as that goes with these flags (0 or CCI_OS_NOWAIT). What is
 * done is recorded, so that another call continues. 0, or an error number; -EAGAIN: would block. */
static int cci_blk_transfer(struct cci_blk_req *r, long flags)
{
    while (r->left) {
        if (cci_virtio_dropping(&r->blk->dev))
            return -EIO;
        const struct cci_disk_segment *s = cci_blk_segment(r->blk->disk, r->offset);
        const uint64_t within = r->offset - s->start;
        const uint64_t here = CCI_MIN(CCI_MIN(r->left, s->length - within), CCI_BLK_PIECE);
        struct cci_iovec v[CCI_VQ_MAX];
        struct cci_iov at = r->data;
        size_t n;
        unsigned count = cci_iov_take(&at, (size_t)here, v, CCI_VQ_MAX, &n);
        int64_t got = r->type == CCI_BLK_T_IN ? cci_os_preadv(s->fd, v, count, s->file_offset + within, flags)
                                              : cci_os_pwritev(s->fd, v, count, s->file_offset + within, flags);
        if (got <= 0)
            return got == 0 ? -EIO : (int)got; /* 0: behind the file's end */
        (void)cci_iov_skip(&r->data, (size_t)got);
        r->offset += (uint64_t)got;
        r->left -= (uint64_t)got;
        if (r->type == CCI_BLK_T_IN)
            r->written += (uint32_t)got;
    }
    return 0;
}

/* The ranges of a discard or write-zeroes request. Both punch a hole: it reads as zeroes and takes no space. All
 * ranges are copied and checked before the first is touched. */
static int cci_blk_ranges(struct cci_blk_req *r)
{
    const struct cci_disk *disk = r->blk->disk;
    uint8_t list[CCI_BLK_RANGES * CCI_BLK_RANGE_SIZE];
    if (r->left > sizeof(list) || r->left % CCI_BLK_RANGE_SIZE || !disk->writable)
        return -EINVAL;
    size_t n = cci_iov_read(&r->data, list, (size_t)r->left);
    const uint32_t known_flags = r->type == CCI_BLK_T_WRITE_ZEROES ? 1 : 0; /* unmap: we always do */
    for (size_t i = 0; i < n; i += CCI_BLK_RANGE_SIZE) {
        const uint32_t sectors = cci_le32(list + i + 8);
        if (cci_le32(list + i + 12) & ~known_flags)
            return -EOPNOTSUPP;
        if (sectors > CCI_BLK_RANGE_MAX ||
            !cci_blk_in_range(disk, cci_le64(list + i), (uint64_t)sectors * CCI_BLK_SECTOR))
            return -EINVAL;
    }
    const struct cci_disk_segment *s = &disk->segments[0];
    int result = 0;
    for (size_t i = 0; i < n && result == 0; i += CCI_BLK_RANGE_SIZE) {
        const uint64_t bytes = (uint64_t)cci_le32(list + i + 8) * CCI_BLK_SECTOR;
        if (bytes)
            result = cci_os_punch_hole(s->fd, s->file_offset + cci_le64(list + i) * CCI_BLK_SECTOR, bytes);
    }
    return result;
}

/* ---- Requests ---------------------------------------------------------------------------------------------- */

/* Gives the request back with the status that an error number, or 0, stands for. Mutex held. */
static void cci_blk_finish(struct cci_blk_req *r, int result)
{
    enum cci_blk_status status = result == 0             ? CCI_BLK_S_OK
                                 : result == -EOPNOTSUPP ? CCI_BLK_S_UNSUPP
                                                         : CCI_BLK_S_IOERR;
    *r->status = (uint8_t)status;
    /* The status comes last, so it counts only if everything before it was written as well. */
    cci_virtio_push(&r->blk->dev, 0, r->head, r->written + (r->written == r->status_at));
}

/* What may block: usually on a thread of the pool, without the mutex. */
static int cci_blk_blocking(struct cci_blk_req *r)
{
    switch (r->type) {
    case CCI_BLK_T_IN:
    case CCI_BLK_T_OUT:
        return cci_blk_transfer(r, 0);
    case CCI_BLK_T_FLUSH:
        return cci_os_fdatasync(r->blk->disk->segments[0].fd);
    default:
        return cci_blk_ranges(r);
    }
}

static void cci_blk_on_pool(struct cci_job *job)
{
    struct cci_blk_req *r = (struct cci_blk_req *)job; /* its first member */
    struct cci_virtio_dev *d = &r->blk->dev;
    int result = cci_virtio_dropping(d) ? -EIO : cci_blk_blocking(r);
    cci_mutex_lock(&d->mutex);
    cci_blk_finish(r, result);
    cci_virtio_flush(d, 0);
    cci_virtio_end(d);
    cci_mutex_unlock(&d->mutex);
    cci_mem_free(r);
}

/* Moves the request to the pool; without memory or threads it is done right here. */
static void cci_blk_hand_over(const struct cci_blk_req *r)
{
    const size_t pieces = r->data.count;
    struct cci_blk_req *copy = cci_mem_alloc(sizeof(*copy) + pieces * sizeof(struct cci_iovec));
    if (copy) {
        struct cci_iovec *v = (struct cci_iovec *)(void *)(copy + 1);
        *copy = *r;
        if (pieces)
            memcpy(v, r->data.v, pieces * sizeof(*v));
        copy->data.v = v;
        copy->job.fn = cci_blk_on_pool;
        cci_virtio_begin(&r->blk->dev);
        if (cci_pool_submit(r->blk->pool, &copy->job))
            return;
        cci_virtio_end(&r->blk->dev);
        cci_mem_free(copy);
    }
    struct cci_blk_req here = *r;
    int result = cci_blk_blocking(&here);
    cci_blk_finish(&here, result);
}

static void cci_blk_read(struct cci_blk_req *r)
{
    int result = r->left > CCI_BLK_PIECE ? -EAGAIN : cci_blk_transfer(r, CCI_OS_NOWAIT);
    if (result == -EAGAIN || result == -EOPNOTSUPP)
        cci_blk_hand_over(r);
    else
        cci_blk_finish(r, result);
}

static void cci_blk_write(struct cci_blk_req *r)
{
    uint64_t begin = cci_os_now();
    if (r->left > CCI_BLK_PIECE || begin < r->blk->avoid_until) {
        cci_blk_hand_over(r);
        return;
    }
    int result = cci_blk_transfer(r, 0);
    uint64_t end = cci_os_now();
    if (end - begin > CCI_BLK_SLOW_NS)
        r->blk->avoid_until = end + CCI_BLK_AVOID_NS;
    cci_blk_finish(r, result);
}

static void cci_blk_get_id(struct cci_blk_req *r)
{
    r->written = (uint32_t)cci_iov_write(&r->data, r->blk->id, CCI_MIN(r->left, sizeof(r->blk->id)));
    cci_blk_finish(r, 0);
}

/* Begins the request by its type. `sector` is from its header; r->left is its data's length. */
static void cci_blk_begin(struct cci_blk_req *r, uint64_t sector)
{
    const struct cci_disk *disk = r->blk->disk;
    switch (r->type) {
    case CCI_BLK_T_IN:
    case CCI_BLK_T_OUT:
        if (!cci_blk_in_range(disk, sector, r->left) || (r->type == CCI_BLK_T_OUT && !disk->writable)) {
            cci_blk_finish(r, -EINVAL);
            return;
        }
        r->offset = sector * CCI_BLK_SECTOR;
        if (r->type == CCI_BLK_T_IN)
            cci_blk_read(r);
        else
            cci_blk_write(r);
        return;
    case CCI_BLK_T_FLUSH:
        if (disk->writable && !r->blk->is_volatile)
            cci_blk_hand_over(r);
        else
            cci_blk_finish(r, 0);
        return;
    case CCI_BLK_T_GET_ID:
        cci_blk_get_id(r);
        return;
    case CCI_BLK_T_DISCARD:
    case CCI_BLK_T_WRITE_ZEROES:
        cci_blk_hand_over(r);
        return;
    default:
        cci_blk_finish(r, -EOPNOTSUPP);
        return;
    }
}

/* One chain. */
static void cci_blk_chain(struct cci_virtio_dev *d, unsigned q, const struct cci_vq_chain *c)
{
    uint8_t header[16];
    (void)q;
    if (c->out_len < sizeof(header) || c->in_len < 1) {
        cci_virtio_fail(d, "a block request has no room for its header or its status");
        return;
    }
    struct cci_iov out = cci_vq_out(c);
    (void)cci_iov_read(&out, header, sizeof(header));
    const struct cci_iovec *last = &c->iov[c->out_count + c->in_count - 1];
    struct cci_blk_req r;
    memset(&r, 0, sizeof(r));
    r.blk = (struct cci_blk *)d; /* its first member */
    r.head = c->head;
    r.type = cci_le32(header);
    r.status = (uint8_t *)last->base + last->len - 1;
    r.status_at = c->in_len - 1;
    const bool to_guest = r.type == CCI_BLK_T_IN || r.type == CCI_BLK_T_GET_ID;
    r.data = to_guest ? cci_vq_in(c) : out;
    r.left = to_guest ? r.status_at : c->out_len - sizeof(header);
    cci_blk_begin(&r, cci_le64(header + 8));
}

static void cci_blk_notify(struct cci_virtio_dev *d, unsigned q)
{
    cci_virtio_serve(d, q, cci_blk_chain);
}

static const struct cci_virtio_ops cci_blk_ops = {
    .name = "block",
    .id = CCI_VIRTIO_ID_BLOCK,
    .queues = 1,
    .queue_size = CCI_BLK_QUEUE_SIZE,
    .notify = cci_blk_notify,
};

/* Section 5.2.4. Fields that no offered feature speaks of stay zero. */
static void cci_blk_configure(struct cci_blk *b)
{
    uint8_t *config = b->dev.config;
    b->dev.config_size = 60;
    cci_put_le64(config, b->disk->size / CCI_BLK_SECTOR);
    cci_put_le32(config + 12, CCI_BLK_SEG_MAX);
    b->dev.offered |= CCI_BLK_F_SEG_MAX;
    if (!b->disk->writable) {
        b->dev.offered |= CCI_BLK_F_RO;
        return;
    }
    if (!b->is_volatile)
        b->dev.offered |= CCI_BLK_F_FLUSH;
    b->dev.offered |= CCI_BLK_F_DISCARD | CCI_BLK_F_WRITE_ZEROES;
    cci_put_le32(config + 36, CCI_BLK_RANGE_MAX); /* max_discard_sectors */
    cci_put_le32(config + 40, CCI_BLK_RANGES);    /* max_discard_seg */
    cci_put_le32(config + 44, 8);                 /* discard_sector_alignment: holes are made of 4 KiB blocks */
    cci_put_le32(config + 48, CCI_BLK_RANGE_MAX); /* max_write_zeroes_sectors */
    cci_put_le32(config + 52, CCI_BLK_RANGES);    /* max_write_zeroes_seg */
    config[56] = 1;                               /* write_zeroes_may_unmap */
}

/* Makes a block device. `disk` (at least one segment) and `pool` must outlive it and stay the caller's. `id` is the
 * serial number that the guest sees, of at most 20 bytes. A volatile disk's file need not survive the instance. */
static void cci_blk_init(struct cci_blk *b, const struct cci_disk *disk, const char *id, bool is_volatile,
                         struct cci_pool *pool, const struct cci_gmem *mem, struct cci_irq irq)
{
    cci_virtio_init(&b->dev, &cci_blk_ops, mem, irq);
    b->disk = disk;
    b->pool = pool;
    b->is_volatile = is_volatile;
    b->avoid_until = 0;
    memset(b->id, 0, sizeof(b->id));
    memcpy(b->id, id, CCI_MIN(strlen(id), sizeof(b->id)));
    cci_blk_configure(b);
}

/* Detached before; waits for requests under way. */
static void cci_blk_destroy(struct cci_blk *b)
{
    cci_virtio_destroy(&b->dev);
}

#endif
