/*
 * registry/progress.h - how far a pull is, told to the caller.
 *
 * Workers count bytes here; the thread that called the pull waits here for them to end, and meanwhile calls the
 * caller's function: so it is called on the caller's own thread, never by two at once, and never with a lock held. It
 * is called when something has changed, at most every 50 ms, and once more at the end of a pull that succeeded, with
 * everything there. A pull that has no such function waits just as well.
 *
 * The speed is that of the last seconds: an average in which what was a time constant ago counts a third. Bytes that
 * were there from an earlier, broken pull count as fetched, but not for the speed.
 */
#ifndef CCI_REGISTRY_PROGRESS_H
#define CCI_REGISTRY_PROGRESS_H

#include "../base/cancel.h"
#include "../image/digest.h"

#define CCI_PROGRESS_STEP ((uint64_t)50 * 1000000u) /* nanoseconds between calls */
#define CCI_PROGRESS_CONSTANT 2.0                   /* seconds that the speed is an average of */

struct cci_progress {
    cc_progress_callback fn; /* or NULL */
    void *ctx;
    struct cci_monitor monitor; /* for what follows, up to the blank line */
    uint64_t have, total;       /* bytes, of all blobs */
    uint64_t came;              /* bytes of them over the network in this pull */
    size_t at;                  /* the blob that bytes came for last */
    size_t workers;             /* that have not ended */
    bool changed;

    size_t count;                   /* blobs to fetch */
    const struct cci_digest *names; /* of each */
    uint64_t measured;              /* when the speed was; 0: not yet */
    uint64_t measured_came;
    double speed; /* bytes a second */
};

static void cci_progress_init(struct cci_progress *p, cc_progress_callback fn, void *ctx)
{
    memset(p, 0, sizeof(*p));
    p->fn = fn;
    p->ctx = ctx;
    cci_monitor_init(&p->monitor);
}

static void cci_progress_destroy(struct cci_progress *p)
{
    cci_monitor_destroy(&p->monitor);
}

/* Bytes of blob `at` are there; `network` when they came just now. */
static void cci_progress_add(struct cci_progress *p, size_t at, uint64_t n, bool network)
{
    cci_monitor_lock(&p->monitor);
    p->have += n;
    p->came += network ? n : 0;
    p->at = at;
    p->changed = true;
    cci_monitor_unlock(&p->monitor);
}

/* Bytes that were counted turned out to be bad, and are to be fetched again. */
static void cci_progress_take_back(struct cci_progress *p, uint64_t n)
{
    cci_monitor_lock(&p->monitor);
    p->have -= n;
    p->changed = true;
    cci_monitor_unlock(&p->monitor);
}

static void cci_progress_worker_ends(struct cci_progress *p)
{
    cci_monitor_lock(&p->monitor);
    p->workers--;
    cci_cond_wake(&p->monitor.cond);
    cci_monitor_unlock(&p->monitor);
}

/* Brings the speed up to date. On the calling thread only. */
static void cci_progress_measure(struct cci_progress *p, uint64_t came, uint64_t now)
{
    double seconds = (double)(now - p->measured) / 1e9;
    if (p->measured && seconds > 0) {
        double current = (double)(came - p->measured_came) / seconds;
        double weight = seconds / (seconds + CCI_PROGRESS_CONSTANT);
        p->speed = p->speed > 0 ? p->speed + (current - p->speed) * weight : current;
    }
    p->measured = now;
    p->measured_came = came;
}

/* Calls the caller's function. With the monitor held, which is let go of meanwhile. */
static void cci_progress_tell(struct cci_progress *p, uint64_t now)
{
    cc_download_progress d;
    struct cci_digest_text name;
    uint64_t came = p->came, left = p->total - CCI_MIN(p->have, p->total);
    memset(&d, 0, sizeof(d));
    p->changed = false;
    d.current = (int64_t)p->have;
    d.total = (int64_t)p->total;
    d.blob_index = (int)p->at;
    d.blob_count = (int)p->count;
    cci_monitor_unlock(&p->monitor);
    cci_progress_measure(p, came, now);
    name.text[0] = '\0';
    if (p->count)
        name = cci_digest_spell(&p->names[d.blob_index]);
    d.filename = name.text;
    d.bytes_per_second = p->speed;
    d.eta_seconds = left == 0 ? 0 : p->speed > 0 ? (double)left / p->speed : -1;
    p->fn(&d, p->ctx);
    cci_monitor_lock(&p->monitor);
}

/* Waits until all workers have ended, and tells the caller meanwhile. */
static void cci_progress_wait(struct cci_progress *p)
{
    uint64_t next = cci_os_now() + CCI_PROGRESS_STEP;
    p->measured = cci_os_now();
    cci_monitor_lock(&p->monitor);
    while (p->workers) {
        if (cci_cond_wait(&p->monitor.cond, &p->monitor.mutex, p->fn ? next : CCI_FOREVER) || !p->fn)
            continue;
        next = cci_os_now() + CCI_PROGRESS_STEP;
        if (p->changed)
            cci_progress_tell(p, cci_os_now());
    }
    cci_monitor_unlock(&p->monitor);
}

/* The last call, with everything there. */
static void cci_progress_done(struct cci_progress *p)
{
    if (!p->fn)
        return;
    cci_monitor_lock(&p->monitor);
    p->have = p->total;
    p->at = p->count ? p->count - 1 : 0;
    cci_progress_tell(p, cci_os_now());
    cci_monitor_unlock(&p->monitor);
}

#endif
