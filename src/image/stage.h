/*
 * image/stage.h - the joint between two stages of a pipeline: bytes go in on one thread and come out on another.
 *
 * Decompression takes as long as everything behind it (hashing, tar, writing), so the two run side by side. The joint
 * is a ring of a few chunks: the producer fills one and hands it over, waiting when all are full, so memory is bounded
 * and the slower side sets the pace. When the consumer fails, the producer learns of it at its next chunk; when the
 * producer stops early, the consumer is told to stop as well.
 */
#ifndef CCI_IMAGE_STAGE_H
#define CCI_IMAGE_STAGE_H

#include "../base/cancel.h"

#define CCI_STAGE_CHUNK ((size_t)256 << 10)
#define CCI_STAGE_CHUNKS 6u

/* Takes the next bytes, on the consumer's thread. */
typedef cc_error_code cci_stage_consume(void *ctx, const uint8_t *p, size_t n, cc_error *err);

struct cci_stage {
    cci_stage_consume *consume;
    void *ctx;
    struct cci_monitor monitor; /* for what follows, up to the blank line */
    unsigned first, full;       /* the oldest full chunk, and how many there are */
    bool ended, stopped;        /* nothing more comes; what has come does not matter any more */
    bool failed;                /* the consumer returned an error: code and err */

    size_t fill[CCI_STAGE_CHUNKS]; /* bytes in each chunk; the producer's until it is full, then the consumer's */
    uint8_t *chunks;
    cc_error_code code; /* the consumer's until it is joined */
    cc_error err;
    struct cci_thread thread;
};

static void cci_stage_main(void *ctx)
{
    struct cci_stage *s = ctx;
    cci_monitor_lock(&s->monitor);
    while (!s->failed && !s->stopped) {
        if (s->full == 0 && s->ended)
            break;
        if (s->full == 0) {
            (void)cci_cond_wait(&s->monitor.cond, &s->monitor.mutex, CCI_FOREVER);
            continue;
        }
        unsigned at = s->first;
        cci_monitor_unlock(&s->monitor);
        s->code = s->consume(s->ctx, s->chunks + at * CCI_STAGE_CHUNK, s->fill[at], &s->err);
        cci_monitor_lock(&s->monitor);
        s->fill[at] = 0;
        s->first = (s->first + 1) % CCI_STAGE_CHUNKS;
        s->full--;
        s->failed = s->code != CC_OK;
        cci_cond_wake(&s->monitor.cond);
    }
    cci_monitor_unlock(&s->monitor);
}

/* Starts the consumer's thread. End it with cci_stage_end, on success only. */
static cc_error_code cci_stage_start(struct cci_stage *s, cci_stage_consume *consume, void *ctx, cc_error *err)
{
    memset(s, 0, sizeof(*s));
    s->consume = consume;
    s->ctx = ctx;
    s->chunks = cci_mem_alloc(CCI_STAGE_CHUNKS * CCI_STAGE_CHUNK);
    if (!s->chunks)
        return cci_fail_nomem(err);
    cci_monitor_init(&s->monitor);
    int r = cci_thread_new(&s->thread, "cc-import", cci_stage_main, s);
    if (r < 0) {
        cci_monitor_destroy(&s->monitor);
        cci_mem_free(s->chunks);
        return cci_fail_errno(err, CC_ERR_UNKNOWN, -r, NULL, "cannot start a thread");
    }
    return CC_OK;
}

/* The chunk that is being filled. Waits until there is room; NULL when the consumer has failed. */
static uint8_t *cci_stage_room(struct cci_stage *s, size_t **fill)
{
    cci_monitor_lock(&s->monitor);
    while (s->full == CCI_STAGE_CHUNKS && !s->failed)
        (void)cci_cond_wait(&s->monitor.cond, &s->monitor.mutex, CCI_FOREVER);
    bool failed = s->failed;
    unsigned at = (s->first + s->full) % CCI_STAGE_CHUNKS;
    cci_monitor_unlock(&s->monitor);
    *fill = &s->fill[at];
    return failed ? NULL : s->chunks + at * CCI_STAGE_CHUNK;
}

static void cci_stage_hand_over(struct cci_stage *s)
{
    cci_monitor_lock(&s->monitor);
    s->full++;
    cci_cond_wake(&s->monitor.cond);
    cci_monitor_unlock(&s->monitor);
}

/* Puts bytes in. False when the consumer has failed: cci_stage_end tells how. */
static bool cci_stage_put(struct cci_stage *s, const uint8_t *p, size_t n)
{
    while (n) {
        size_t *fill;
        uint8_t *chunk = cci_stage_room(s, &fill);
        if (!chunk)
            return false;
        size_t part = CCI_MIN(n, CCI_STAGE_CHUNK - *fill);
        memcpy(chunk + *fill, p, part);
        *fill += part;
        p += part;
        n -= part;
        if (*fill == CCI_STAGE_CHUNK)
            cci_stage_hand_over(s);
    }
    return true;
}

/* The consumer's error, if it has failed: moved to *err, so it is told once. */
static cc_error_code cci_stage_error(struct cci_stage *s, cc_error *err)
{
    cci_monitor_lock(&s->monitor);
    cc_error_code code = s->failed ? s->code : CC_OK;
    if (code && err && s->err.code) {
        cci_error_release(err);
        *err = s->err;
        memset(&s->err, 0, sizeof(s->err));
    }
    cci_monitor_unlock(&s->monitor);
    return code;
}

/* Ends the pipeline and frees it. With `whole` the consumer gets all that was put in, and the result is the
 * consumer's; without, it stops where it is. */
static cc_error_code cci_stage_end(struct cci_stage *s, bool whole, cc_error *err)
{
    size_t *fill;
    if (whole && cci_stage_room(s, &fill) && *fill)
        cci_stage_hand_over(s);
    cci_monitor_lock(&s->monitor);
    s->ended = true;
    s->stopped = !whole;
    cci_cond_wake(&s->monitor.cond);
    cci_monitor_unlock(&s->monitor);
    cci_thread_join(&s->thread);
    cc_error_code code = cci_stage_error(s, err);
    cci_error_release(&s->err);
    cci_monitor_destroy(&s->monitor);
    cci_mem_free(s->chunks);
    return code;
}

#endif
