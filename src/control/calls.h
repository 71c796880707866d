/*
 * control/calls.h - a control connection and the calls on it: what is known of them, and how they end.
 *
 * control.h explains them.
 */
#ifndef CCI_CONTROL_CALLS_H
#define CCI_CONTROL_CALLS_H

#include "collect.h"

/* Opens a connection to a port of the guest. Must not block: until the guest has answered, writes give -EAGAIN. */
typedef cc_error_code (*cci_control_dial_fn)(void *ctx, uint32_t port, struct cci_stream **out, cc_error *err);

enum { CCI_CONTROL_WHAT_MAX = 200, CCI_CONTROL_FIRST_IN = 4096 };

/* The most bytes of one output or file kept in memory, unless the caller says otherwise. */
#define CCI_CONTROL_LIMIT ((size_t)1 << 30)

/* The most bytes of requests that wait for the guest to take them. One that takes none fails what is asked beyond. */
#define CCI_CONTROL_BACKLOG ((size_t)128 << 20)

struct cci_control {
    struct cci_mutex mutex;
    unsigned refs;
    cci_control_dial_fn dial;
    void *dial_ctx;
    void (*lost_fn)(void *ctx); /* called once with dial_ctx when `dead` is set, the mutex held; or NULL */
    struct cci_stream *stream;  /* NULL before attach and after close */
    bool closed;                /* nobody may attach a stream any more */
    bool closing;               /* cci_control_close is at the calls: they must stay */
    struct cci_cond settled;    /* closing has become false */
    struct cci_buf in;          /* received, not yet understood; the I/O thread's alone */
    struct cci_buf out;         /* frames not yet taken by the stream */
    size_t out_sent;            /* bytes at its start that were */
    uint64_t next_id;
    struct cci_call *calls;
    struct cci_monitor hello; /* guards the rest; taken after mutex */
    bool greeted;             /* HELLO came */
    uint32_t version, oldest; /* what it said */
    int boot_errno;
    char boot_what[CCI_CONTROL_WHAT_MAX + 1];
    bool dead;         /* no reply will ever come */
    char *reason;      /* why; NULL if there was no memory to say */
    bool broke;        /* because the connection ended, for a reason not known here */
    uint64_t patience; /* nanoseconds after that in which cci_control_fail tells the reason; 0: nobody does */
};

struct cci_call {
    struct cci_control *control;
    struct cci_call *next, **link; /* the control's table */
    uint64_t id;
    size_t limit;      /* bytes kept of each stream */
    unsigned channels; /* bit set of the streams the guest may announce */
    struct cci_monitor monitor;
    bool started;  /* STARTED came */
    uint32_t pid;  /* what it said */
    bool to_host;  /* announced streams carry bytes to us; else the caller sends them */
    bool invited;  /* the stream on which the caller sends was announced */
    bool farewell; /* the guest ends with this call: SHUTDOWN is the answer to its reply */
    bool replied;
    bool failed;   /* it never will be: the control connection is dead */
    int sys_errno; /* the reply's; result follows only when 0 */
    char what[CCI_CONTROL_WHAT_MAX + 1];
    struct cci_buf result; /* the reply's fields after errno and what; `failed` when there was no memory */
    struct cci_collect *collect[CCI_CHANNELS];
};

/* ---- Lifetime ------------------------------------------------------------------------------------------- */

static struct cci_control *cci_control_new(cci_control_dial_fn dial, void *dial_ctx)
{
    struct cci_control *ctl = cci_mem_zalloc(1, sizeof(*ctl));
    if (!ctl)
        return NULL;
    cci_mutex_init(&ctl->mutex);
    cci_monitor_init(&ctl->hello);
    cci_cond_init(&ctl->settled);
    ctl->refs = 1;
    ctl->next_id = 1;
    ctl->dial = dial;
    ctl->dial_ctx = dial_ctx;
    return ctl;
}

static void cci_control_unref(struct cci_control *ctl)
{
    cci_mutex_lock(&ctl->mutex);
    bool last = --ctl->refs == 0;
    cci_mutex_unlock(&ctl->mutex);
    if (!last)
        return;
    cci_buf_free(&ctl->in);
    cci_buf_free(&ctl->out);
    cci_mem_free(ctl->reason);
    cci_monitor_destroy(&ctl->hello);
    cci_cond_destroy(&ctl->settled);
    cci_mutex_destroy(&ctl->mutex);
    cci_mem_free(ctl);
}

/* Nothing more will come for this call. With its monitor locked. */
static bool cci_call_is_over(void *ctx)
{
    const struct cci_call *call = ctx;
    if (call->failed)
        return true;
    if (!call->replied)
        return false;
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        if (call->sys_errno == 0 && call->collect[i] && call->collect[i]->state == CCI_COLLECT_RUNNING)
            return false;
    return true;
}

/* What was all here before stays good. */
static void cci_call_fail(struct cci_call *call)
{
    cci_monitor_lock(&call->monitor);
    if (!cci_call_is_over(call))
        call->failed = true;
    cci_cond_wake(&call->monitor.cond);
    cci_monitor_unlock(&call->monitor);
}

/* Ends all calls, and tells the agent, which ends with its control connection. The first reason stays;
 * `broke`: it is not the whole of it. With the mutex held. */
static void cci_control_die(struct cci_control *ctl, const char *reason, bool broke)
{
    if (ctl->dead)
        return;
    cci_monitor_lock(&ctl->hello);
    ctl->reason = cci_mem_strdup(reason);
    ctl->dead = true;
    ctl->broke = broke;
    cci_cond_wake(&ctl->hello.cond);
    cci_monitor_unlock(&ctl->hello);
    if (ctl->stream)
        cci_stream_shutdown(ctl->stream);
    for (struct cci_call *call = ctl->calls; call; call = call->next)
        cci_call_fail(call);
    if (ctl->lost_fn)
        ctl->lost_fn(ctl->dial_ctx);
}

/* The instance ended, and knows why: every call ends with CC_ERR_NOT_RUNNING and that reason. The connection often
 * breaks a moment before the machine is known to have ended; from here on the better reason is told. */
static void cci_control_fail(struct cci_control *ctl, const char *reason)
{
    cci_mutex_lock(&ctl->mutex);
    cci_control_die(ctl, reason, false);
    cci_monitor_lock(&ctl->hello);
    char *better = ctl->broke ? cci_mem_strdup(reason) : NULL;
    if (better) {
        cci_mem_free(ctl->reason);
        ctl->reason = better;
    }
    ctl->broke = false;
    cci_cond_wake(&ctl->hello.cond);
    cci_monitor_unlock(&ctl->hello);
    cci_mutex_unlock(&ctl->mutex);
}

/* Whoever tells the machine's end will: from now on calls whose connection broke wait for that so long. */
static void cci_control_expect_reason(struct cci_control *ctl, uint64_t patience)
{
    cci_monitor_lock(&ctl->hello);
    ctl->patience = patience;
    cci_monitor_unlock(&ctl->hello);
}

static bool cci_control_knows_why(void *ctx)
{
    const struct cci_control *ctl = ctx;
    return !ctl->patience || (ctl->dead && !ctl->broke);
}

/* The error of a call that the guest does not answer any more. A guest that goes down breaks its connections first, and
 * says why a moment later, so this waits for the reason; not on the I/O thread or a CPU's, which may be the one that
 * tells it, and not with the mutex held. A stream may break before the control connection does. */
static cc_error_code cci_control_dead_error(struct cci_control *ctl, cc_error *err)
{
    cci_monitor_lock(&ctl->hello);
    const struct cci_wait moment = {cci_os_now() + ctl->patience, NULL};
    cci_monitor_unlock(&ctl->hello);
    (void)cci_monitor_wait(&ctl->hello, &moment, cci_control_knows_why, ctl, "the reason", NULL);
    (void)cci_fail(err, CC_ERR_NOT_RUNNING, NULL, "%s", ctl->reason ? ctl->reason : "the instance ended");
    cci_monitor_unlock(&ctl->hello);
    return CC_ERR_NOT_RUNNING;
}

/* The guest cannot be reached; why may yet be known. With the mutex held. */
static void cci_control_lose(struct cci_control *ctl, const char *reason)
{
    cci_control_die(ctl, reason, true);
}

/* The stream has ended or failed. With the mutex held. */
static void cci_control_on_break(struct cci_control *ctl)
{
    cci_control_lose(ctl, ctl->greeted ? "the guest's agent ended" : "the guest's agent ended before it was ready");
}

#endif
