/*
 * control/call.h - the life of one call, from the thread that makes it.
 *
 *     cci_call_begin    prepares the structure, wherever it lives
 *     cci_call_send     puts it into the table and its request on its way
 *     cci_call_wait     sleeps until it is over, the deadline passes, or the token fires
 *     cci_call_check    turns an errno of the guest into an error
 *     cci_call_forgo    says that nobody will attach to the stream that it was to have
 *     cci_call_end      forgets it; the guest is told when it has not finished
 */
#ifndef CCI_CONTROL_CALL_H
#define CCI_CONTROL_CALL_H

#include "control.h"

static void cci_call_begin(struct cci_call *call, struct cci_control *ctl)
{
    memset(call, 0, sizeof(*call));
    cci_monitor_init(&call->monitor);
    cci_mutex_lock(&ctl->mutex);
    ctl->refs++;
    cci_mutex_unlock(&ctl->mutex);
    call->control = ctl;
    call->limit = CCI_CONTROL_LIMIT;
}

static cc_error_code cci_call_send(struct cci_call *call, uint32_t type, cci_control_put_fn put, const void *ctx,
                                   cc_error *err)
{
    struct cci_control *ctl = call->control;
    cci_mutex_lock(&ctl->mutex);
    call->id = ctl->next_id++;
    call->next = ctl->calls;
    call->link = &ctl->calls;
    if (call->next)
        call->next->link = &call->next;
    ctl->calls = call;
    cc_error_code code = cci_control_send(ctl, type, call->id, put, ctx, err);
    cci_mutex_unlock(&ctl->mutex);
    return code == CC_ERR_NOT_RUNNING ? cci_control_dead_error(ctl, err) : code;
}

/* Waits until done(call) holds; `what` completes "timed out waiting for". */
static cc_error_code cci_call_wait_for(struct cci_call *call, bool (*done)(void *ctx), const struct cci_wait *wait,
                                       const char *what, cc_error *err)
{
    cc_error_code code = cci_monitor_wait(&call->monitor, wait, done, call, what, err);
    bool failed = call->failed;
    cci_monitor_unlock(&call->monitor);
    if (code)
        return code;
    return failed ? cci_control_dead_error(call->control, err) : CC_OK;
}

static cc_error_code cci_call_wait(struct cci_call *call, const struct cci_wait *wait, const char *what, cc_error *err)
{
    return cci_call_wait_for(call, cci_call_is_over, wait, what, err);
}

/* The guest's answer to a call that is over: CC_OK, or its errno as an error. `path` is what the call was about. */
static cc_error_code cci_call_check(const struct cci_call *call, const char *path, cc_error *err)
{
    const char *text = cci_errno_text(call->sys_errno);
    if (call->result.failed)
        return cci_fail_nomem(err);
    if (call->sys_errno == 0)
        return CC_OK;
    /* One word names the system call, which the caller knows; more than that is worth saying. */
    if (!strchr(call->what, ' '))
        return cci_fail_errno(err, CC_ERR_IO, call->sys_errno, path, "%s", text);
    return cci_fail_errno(err, CC_ERR_IO, call->sys_errno, path, "%s (%s)", call->what, text);
}

/* A reader of the reply's result; valid until the call ends. */
static struct cci_proto_reader cci_call_result(const struct cci_call *call)
{
    struct cci_proto_reader in = {call->result.p, call->result.n, false};
    return in;
}

/* A request about another request, to which no answer is awaited. */
struct cci_call_aside {
    uint64_t id;
    uint32_t number;
};

static void cci_call_put_aside(struct cci_proto_writer *w, const void *ctx)
{
    const struct cci_call_aside *a = ctx;
    cci_proto_put64(w, a->id);
    cci_proto_put32(w, a->number);
}

/* Sends KILL or DETACH for this call; the reply is dropped as that of an unknown call. */
static void cci_call_aside(struct cci_call *call, uint32_t type, uint32_t number)
{
    struct cci_control *ctl = call->control;
    struct cci_call_aside a = {call->id, number};
    cci_mutex_lock(&ctl->mutex);
    if (!ctl->dead)
        (void)cci_control_send(ctl, type, ctl->next_id++, cci_call_put_aside, &a, NULL);
    cci_mutex_unlock(&ctl->mutex);
}

/* Whether the stream that the caller attaches to was announced. */
static bool cci_call_is_invited(struct cci_call *call)
{
    cci_monitor_lock(&call->monitor);
    bool invited = call->invited;
    cci_monitor_unlock(&call->monitor);
    return invited;
}

/* For a call to whose stream nobody attaches: unless it was refused, the guest waits there, or will, also when it has
 * replied. */
static void cci_call_forgo(struct cci_call *call)
{
    cci_monitor_lock(&call->monitor);
    bool refused = call->failed || (call->sys_errno && !call->invited);
    cci_monitor_unlock(&call->monitor);
    if (call->id && !refused)
        cci_call_aside(call, CCI_MSG_DETACH, 0);
}

/* Frees what the call holds; the structure itself is the caller's. */
static void cci_call_end(struct cci_call *call)
{
    struct cci_control *ctl = call->control;
    if (call->id) { /* it was sent */
        cci_monitor_lock(&call->monitor);
        bool over = cci_call_is_over(call);
        cci_monitor_unlock(&call->monitor);
        if (!over)
            cci_call_aside(call, CCI_MSG_DETACH, 0);
        cci_mutex_lock(&ctl->mutex);
        while (ctl->closing)
            (void)cci_cond_wait(&ctl->settled, &ctl->mutex, CCI_FOREVER);
        *call->link = call->next;
        if (call->next)
            call->next->link = call->link;
        cci_mutex_unlock(&ctl->mutex);
    }
    for (unsigned i = 0; i < CCI_CHANNELS; i++)
        cci_collect_free(call->collect[i]);
    cci_buf_free(&call->result);
    cci_monitor_destroy(&call->monitor);
    cci_control_unref(ctl);
}

#endif
