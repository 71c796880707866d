/*
 * virtio/fs.h - the file system device (virtio 1.2, section 5.11): a share for the guest.
 *
 * A request of the FUSE protocol is a chain: bytes to read, the request, and bytes to write, where the reply goes.
 * Queue 0 is for requests that must not wait behind others (FORGET), queue 1 for all others. share/ answers them; what
 * is read and written goes straight between the guest's memory and the host's files.
 *
 * Who does the work. Calls to a file system may take any time, so the device has threads of its own, at most
 * CCI_FS_THREADS, made when they are needed. One of them leads: it sleeps on the doorbell, takes a chain and answers it
 * right there, so that a single request costs one change of threads. It gives the lead away, to a thread that has
 * nothing to do or to a new one, when another chain waits behind the one that it took, or when the request turns out to
 * be one that waits for a disk (cci_share's slow_fn). Whoever has finished leads again if nobody does. Doorbells are
 * switched off as long as nobody sleeps on them. Requests may complete in any order.
 *
 * A checkpoint of a guest that has the share mounted cannot be restored: what its kernel knows of files are numbers of
 * this process.
 */
#ifndef CCI_VIRTIO_FS_H
#define CCI_VIRTIO_FS_H

#include "../share/dispatch.h"
#include "device.h"

#define CCI_VIRTIO_ID_FS 26
#define CCI_FS_TAG_SIZE 36u /* bytes of a tag, padded with zeroes */
#define CCI_FS_QUEUES 2u
#define CCI_FS_THREADS 4u

struct cci_fs {
    struct cci_virtio_dev dev;
    struct cci_share *share;
    cci_fd bell;          /* of both queues; blocks. CCI_NO_FD until attached */
    struct cci_cond lead; /* there is no leader any more, or stop was set */
    bool has_leader;      /* this and all below under the device's mutex */
    unsigned waiting;     /* threads that wait for the lead */
    unsigned threads;     /* that were made */
    bool stop;
    struct cci_thread thread[CCI_FS_THREADS];
};

/* What one thread is doing. */
struct cci_fs_work {
    struct cci_fs *fs;
    bool leads; /* under the device's mutex */
    unsigned queue;
    struct cci_vq_chain chain;
};

static void cci_fs_main(void *ctx);

/* ---- The lead; mutex held ------------------------------------------------------------------------------------- */

/* Lets another thread lead, if there is one or can be one. */
static void cci_fs_pass_lead(struct cci_fs_work *w)
{
    struct cci_fs *fs = w->fs;
    if (!w->leads || fs->stop)
        return;
    if (!fs->waiting) {
        if (fs->threads == CCI_FS_THREADS || cci_thread_new(&fs->thread[fs->threads], "cc-share", cci_fs_main, fs) != 0)
            return;
        fs->threads++;
    }
    w->leads = fs->has_leader = false;
    cci_cond_wake(&fs->lead);
}

/* The share's slow_fn: the request of this thread is going to wait. */
static void cci_fs_on_slow(void *ctx)
{
    struct cci_fs_work *w = ctx;
    cci_mutex_lock(&w->fs->dev.mutex);
    cci_fs_pass_lead(w);
    cci_mutex_unlock(&w->fs->dev.mutex);
}

/* ---- Requests --------------------------------------------------------------------------------------------------- */

/* Takes the next chain, of queue 0 first. */
static bool cci_fs_take(struct cci_fs_work *w)
{
    struct cci_virtio_dev *d = &w->fs->dev;
    for (w->queue = 0; w->queue < CCI_FS_QUEUES; w->queue++)
        if (d->queue[w->queue].vq.ready && cci_virtio_pop(d, w->queue, &w->chain))
            return true;
    return false;
}

/* Answers the chain that was taken. Mutex held, and let go of meanwhile. */
static void cci_fs_answer(struct cci_fs_work *w)
{
    struct cci_virtio_dev *d = &w->fs->dev;
    struct cci_vq_chain *c = &w->chain;
    cci_virtio_begin(d);
    cci_mutex_unlock(&d->mutex);
    const struct cci_share_slow slow = {cci_fs_on_slow, w};
    size_t n = cci_virtio_dropping(d)
                   ? 0
                   : cci_share_request(w->fs->share, cci_vq_out(c), c->out_len, cci_vq_in(c), c->in_len, &slow);
    cci_mutex_lock(&d->mutex);
    cci_virtio_push(d, w->queue, c->head, (uint32_t)n);
    cci_virtio_flush(d, w->queue);
    cci_virtio_end(d);
}

/* Doorbells on or off. On: whether a chain came in meanwhile, or the device failed. */
static bool cci_fs_bells(struct cci_fs *fs, bool on)
{
    struct cci_virtio_dev *d = &fs->dev;
    bool more = false;
    for (unsigned q = 0; q < CCI_FS_QUEUES && cci_virtio_running(d); q++) {
        struct cci_vq *vq = &d->queue[q].vq;
        if (!vq->ready)
            continue;
        if (!on)
            cci_vq_disable_notify(vq);
        else if (cci_vq_enable_notify(vq))
            more = true;
        if (vq->broken)
            cci_virtio_fail(d, vq->broken);
    }
    return more && cci_virtio_running(d);
}

/* Works for as long as it leads. Mutex held. */
static void cci_fs_lead(struct cci_fs_work *w)
{
    struct cci_fs *fs = w->fs;
    struct cci_virtio_dev *d = &fs->dev;
    while (w->leads && !fs->stop) {
        if (cci_fs_take(w)) {
            if (cci_vq_has_more(&d->queue[w->queue].vq))
                cci_fs_pass_lead(w);
            cci_fs_answer(w);
            continue;
        }
        if (cci_fs_bells(fs, true))
            continue;
        cci_mutex_unlock(&d->mutex);
        (void)cci_os_eventfd_take(fs->bell); /* sleeps */
        cci_mutex_lock(&d->mutex);
        (void)cci_fs_bells(fs, false);
    }
}

static void cci_fs_main(void *ctx)
{
    struct cci_fs_work w;
    struct cci_fs *fs = w.fs = ctx;
    cci_share_enter_thread();
    cci_mutex_lock(&fs->dev.mutex);
    while (!fs->stop) {
        fs->waiting++;
        while (fs->has_leader && !fs->stop)
            (void)cci_cond_wait(&fs->lead, &fs->dev.mutex, CCI_FOREVER);
        fs->waiting--;
        if (fs->stop)
            break;
        w.leads = fs->has_leader = true;
        cci_fs_lead(&w);
    }
    cci_mutex_unlock(&fs->dev.mutex);
}

/* ---- The device ---------------------------------------------------------------------------------------------------
 */

/* The driver rang, and the device has no threads (in tests). Mutex held, and let go of meanwhile. */
static void cci_fs_notify(struct cci_virtio_dev *d, unsigned q)
{
    struct cci_fs_work w;
    w.fs = (struct cci_fs *)d; /* its first member */
    w.leads = false;
    (void)q;
    do {
        while (cci_fs_take(&w))
            cci_fs_answer(&w);
    } while (cci_fs_bells(w.fs, true));
}

static void cci_fs_reset(struct cci_virtio_dev *d)
{
    cci_share_reset(((struct cci_fs *)d)->share);
}

/* Makes the doorbell and the first thread. */
static cc_error_code cci_fs_attach(struct cci_virtio_dev *d, cc_error *err)
{
    struct cci_fs *fs = (struct cci_fs *)d;
    fs->bell = cci_os_eventfd_blocking();
    if (fs->bell < 0)
        return cci_fail_errno(err, CC_ERR_IO, -fs->bell, NULL, "cannot make a doorbell: too many open files?");
    for (unsigned q = 0; q < CCI_FS_QUEUES; q++)
        d->queue[q].doorbell = fs->bell;
    cci_mutex_lock(&d->mutex);
    bool made = cci_thread_new(&fs->thread[0], "cc-share", cci_fs_main, fs) == 0;
    fs->threads = made;
    cci_mutex_unlock(&d->mutex);
    return made ? CC_OK : cci_fail(err, CC_ERR_UNKNOWN, NULL, "cannot make a thread for a share");
}

/* Ends the threads, each after the request that it is at. Any number of times. */
static void cci_fs_detach(struct cci_virtio_dev *d)
{
    struct cci_fs *fs = (struct cci_fs *)d;
    cci_mutex_lock(&d->mutex);
    fs->stop = true;
    cci_cond_wake(&fs->lead);
    const unsigned threads = fs->threads;
    fs->threads = 0;
    cci_mutex_unlock(&d->mutex);
    if (fs->bell >= 0)
        cci_os_eventfd_signal(fs->bell);
    for (unsigned i = 0; i < threads; i++)
        cci_thread_join(&fs->thread[i]);
    for (unsigned q = 0; q < CCI_FS_QUEUES; q++)
        d->queue[q].doorbell = CCI_NO_FD;
    cci_os_close(fs->bell);
    fs->bell = CCI_NO_FD;
}

static void cci_fs_save(struct cci_virtio_dev *d, struct cci_buf *out)
{
    const uint8_t mounted = cci_share_is_started(((struct cci_fs *)d)->share);
    (void)cci_buf_add(out, &mounted, 1);
}

static cc_error_code cci_fs_restore(struct cci_virtio_dev *d, struct cci_view *in, cc_error *err)
{
    const uint8_t *mounted = cci_view_take(in, 1);
    if (!mounted || *mounted)
        return cci_fail(err, CC_ERR_IO, NULL,
                        "the checkpoint is of a guest that has the share \"%.36s\" mounted, which cannot be restored: "
                        "unmount it before",
                        (const char *)d->config);
    return CC_OK;
}

static const struct cci_virtio_ops cci_fs_ops = {
    .name = "file system",
    .id = CCI_VIRTIO_ID_FS,
    .queues = CCI_FS_QUEUES,
    .queue_size = CCI_VQ_MAX,
    .notify = cci_fs_notify,
    .reset = cci_fs_reset,
    .save = cci_fs_save,
    .restore = cci_fs_restore,
    .attach = cci_fs_attach,
    .detach = cci_fs_detach,
};

/* Makes a device for `share`, which must outlive it and stays the caller's. `tag` (up to 36 bytes) is what the guest
 * mounts it by. */
static void cci_fs_init(struct cci_fs *fs, struct cci_share *share, const char *tag, const struct cci_gmem *mem,
                        struct cci_irq irq)
{
    memset(fs, 0, sizeof(*fs));
    cci_virtio_init(&fs->dev, &cci_fs_ops, mem, irq);
    fs->share = share;
    fs->bell = CCI_NO_FD;
    cci_cond_init(&fs->lead);
    fs->dev.config_size = CCI_FS_TAG_SIZE + 4;
    memcpy(fs->dev.config, tag, CCI_MIN(strlen(tag), CCI_FS_TAG_SIZE));
    cci_put_le32(fs->dev.config + CCI_FS_TAG_SIZE, CCI_FS_QUEUES - 1);
}

/* Detached before. */
static void cci_fs_destroy(struct cci_fs *fs)
{
    cci_virtio_destroy(&fs->dev);
    cci_cond_destroy(&fs->lead);
}

#endif
