/*
 * api/state.h - where an instance is in its life, who is told of it, and the descriptor that says when it is over.
 *
 *     created -> starting -> running <-> pausing, paused, resuming
 *                   |           |
 *                   |           +-> stopping -> stopped     asked for: a close, a stop, the time-out
 *                   |           +-> stopped                 the guest switched itself off
 *                   +-----------+-> failed                  anything else
 *
 * Changes come from any thread: a CPU's that sees the guest end, the I/O thread, callers'. A callback on such a thread
 * could neither take its time nor call the library, so each change is put in a queue, and a thread that exists only for
 * instances with a callback tells them one after the other. The queue always has room for the changes that cannot fail;
 * a pause, which may, reserves its own beforehand.
 */
#ifndef CCI_API_STATE_H
#define CCI_API_STATE_H

#include "../base/cancel.h"

#define CCI_STATE_RESERVE 4u /* changes that one reservation makes room for: two of its own, and the end's two */

struct cci_state {
    struct cci_monitor monitor; /* guards everything here; no other lock is taken under it */
    cc_instance_state now;
    bool closing;       /* a close is under way: nobody waits for the end any more */
    cc_handle instance; /* what the callback is told */
    cc_state_callback fn;
    void *user_data;
    struct cci_thread thread;
    bool has_thread;
    bool stop;          /* the thread ends when it has told everything */
    bool calling;       /* the callback runs */
    uint8_t *queue;     /* states to be told */
    size_t count, room; /* in it, and that fit */
    cci_fd done[2];     /* for who polls, once somebody asked; the end that is written is closed at the end */
};

static void cci_state_init(struct cci_state *s)
{
    memset(s, 0, sizeof(*s));
    cci_monitor_init(&s->monitor);
    s->now = CC_STATE_CREATED;
    s->done[0] = s->done[1] = CCI_NO_FD;
}

static bool cci_state_is_end(cc_instance_state state)
{
    return state == CC_STATE_STOPPED || state == CC_STATE_FAILED;
}

/* ---- Changes ---------------------------------------------------------------------------------------------- */

/* Makes room for a pause's changes. With the monitor locked. */
static bool cci_state_reserve(struct cci_state *s)
{
    if (!s->fn || s->count + CCI_STATE_RESERVE <= s->room)
        return true;
    uint8_t *queue = cci_mem_resize(s->queue, s->count * 2 + 16, 1);
    if (!queue)
        return false;
    s->queue = queue;
    s->room = s->count * 2 + 16;
    return true;
}

/* Whoever polls finds the end: a byte, for who waits for one, and the end of file behind it, which nobody can take
 * away from the others. With the monitor locked. */
static void cci_state_signal_done(struct cci_state *s)
{
    if (s->done[1] == CCI_NO_FD)
        return;
    (void)cci_os_write(s->done[1], "", 1);
    cci_os_close(s->done[1]);
    s->done[1] = CCI_NO_FD;
}

/* With the monitor locked. There is no way out of an end. */
static void cci_state_enter(struct cci_state *s, cc_instance_state next)
{
    if (s->now == next || cci_state_is_end(s->now))
        return;
    s->now = next;
    if (s->fn && s->count < s->room)
        s->queue[s->count++] = (uint8_t)next;
    if (cci_state_is_end(next))
        cci_state_signal_done(s);
    cci_cond_wake(&s->monitor.cond);
}

static void cci_state_set(struct cci_state *s, cc_instance_state next)
{
    cci_monitor_lock(&s->monitor);
    cci_state_enter(s, next);
    cci_monitor_unlock(&s->monitor);
}

/* Changes the state only if it is `from`; whether it was. */
static bool cci_state_move(struct cci_state *s, cc_instance_state from, cc_instance_state next)
{
    cci_monitor_lock(&s->monitor);
    bool was = s->now == from;
    if (was)
        cci_state_enter(s, next);
    cci_monitor_unlock(&s->monitor);
    return was;
}

static cc_instance_state cci_state_get(struct cci_state *s)
{
    cci_monitor_lock(&s->monitor);
    cc_instance_state now = s->now;
    cci_monitor_unlock(&s->monitor);
    return now;
}

static bool cci_state_has_ended(struct cci_state *s)
{
    return cci_state_is_end(cci_state_get(s));
}

static bool cci_state_is_over(void *ctx)
{
    const struct cci_state *s = ctx;
    return s->closing || cci_state_is_end(s->now);
}

/* Waits for the end, whatever its cause. */
static cc_error_code cci_state_wait(struct cci_state *s, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = cci_monitor_wait(&s->monitor, wait, cci_state_is_over, s, "the instance to end", err);
    cci_monitor_unlock(&s->monitor);
    return code;
}

/* A close begins: whoever waits returns. */
static void cci_state_close(struct cci_state *s)
{
    cci_monitor_lock(&s->monitor);
    s->closing = true;
    if (s->now != CC_STATE_CREATED)
        cci_state_enter(s, CC_STATE_STOPPING);
    cci_cond_wake(&s->monitor.cond);
    cci_monitor_unlock(&s->monitor);
}

static const char *cci_state_name(cc_instance_state state)
{
    static const char *const names[] = {"created",  "starting", "running", "pausing", "paused",
                                        "resuming", "stopping", "stopped", "failed"};
    return names[state];
}

/* ---- The callback ----------------------------------------------------------------------------------------- */

static void cci_state_main(void *ctx)
{
    struct cci_state *s = ctx;
    cci_monitor_lock(&s->monitor);
    for (;;) {
        while (!s->count && !s->stop)
            (void)cci_cond_wait(&s->monitor.cond, &s->monitor.mutex, CCI_FOREVER);
        if (!s->count)
            break;
        const cc_instance_state next = (cc_instance_state)s->queue[0];
        const cc_state_callback fn = s->fn;
        void *const user_data = s->user_data;
        memmove(s->queue, s->queue + 1, --s->count);
        s->calling = true;
        cci_monitor_unlock(&s->monitor);
        if (fn)
            fn(s->instance, next, user_data);
        cci_monitor_lock(&s->monitor);
        s->calling = false;
        cci_cond_wake(&s->monitor.cond);
    }
    cci_monitor_unlock(&s->monitor);
}

/* On the thread that calls the callback. */
static bool cci_state_is_callback(struct cci_state *s)
{
    cci_monitor_lock(&s->monitor);
    bool is = s->has_thread && cci_thread_is_self(&s->thread);
    cci_monitor_unlock(&s->monitor);
    return is;
}

/* Waits until everything so far was told, if there is another thread that does so. With the monitor locked. */
static void cci_state_drain(struct cci_state *s)
{
    while (s->has_thread && !cci_thread_is_self(&s->thread) && (s->count || s->calling))
        (void)cci_cond_wait(&s->monitor.cond, &s->monitor.mutex, CCI_FOREVER);
}

/* Sets who is told of the changes from now on; NULL: nobody. Who was told before is not being called any more. */
static cc_error_code cci_state_watch(struct cci_state *s, cc_state_callback fn, void *user_data, cc_error *err)
{
    int r = 0;
    cci_monitor_lock(&s->monitor);
    cci_state_drain(s);
    const cc_state_callback old = s->fn;
    s->fn = fn;
    bool ok = cci_state_reserve(s);
    if (ok && fn && !s->has_thread) {
        r = cci_thread_new(&s->thread, "cc-state", cci_state_main, s);
        s->has_thread = r == 0;
    }
    if (ok && r == 0)
        s->user_data = user_data;
    else
        s->fn = old;
    cci_monitor_unlock(&s->monitor);
    if (!ok)
        return cci_fail_nomem(err);
    return r ? cci_fail_errno(err, CC_ERR_UNKNOWN, -r, NULL, "cannot start a thread for the state callback") : CC_OK;
}

/* The last change was made: tells what is left and ends the thread. Not from the callback. */
static void cci_state_finish(struct cci_state *s)
{
    cci_monitor_lock(&s->monitor);
    s->stop = true;
    cci_cond_wake(&s->monitor.cond);
    cci_monitor_unlock(&s->monitor);
    if (s->has_thread)
        cci_thread_join(&s->thread);
    s->has_thread = false;
}

static void cci_state_destroy(struct cci_state *s)
{
    cci_os_close(s->done[0]);
    cci_os_close(s->done[1]);
    cci_mem_free(s->queue);
    cci_monitor_destroy(&s->monitor);
}

/* ---- The descriptor ---------------------------------------------------------------------------------------- */

/* A new descriptor, the caller's, that becomes readable at the end and stays so. */
static cc_error_code cci_state_done_fd(struct cci_state *s, cci_fd *out, cc_error *err)
{
    cci_monitor_lock(&s->monitor);
    int r = s->done[0] == CCI_NO_FD ? cci_os_end_pair(s->done) : 0;
    if (r == 0 && cci_state_is_end(s->now))
        cci_state_signal_done(s);
    const cci_fd fd = r == 0 ? cci_os_dup(s->done[0]) : r;
    cci_monitor_unlock(&s->monitor);
    if (fd < 0)
        return cci_fail_errno(err, CC_ERR_IO, -fd, NULL, "cannot make a descriptor: too many open files?");
    *out = fd;
    return CC_OK;
}

#endif
