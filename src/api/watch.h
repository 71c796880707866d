/*
 * api/watch.h - watches: the handle's side of control/watch.h.
 */
#ifndef CCI_API_WATCH_H
#define CCI_API_WATCH_H

#include "../control/watch.h"
#include "fs.h"
#include "part.h"

struct cci_watch_object {
    struct cci_part part;
    struct cci_watch watch;
};

static void cci_watch_object_destroy(struct cci_object *o)
{
    struct cci_watch_object *w = (struct cci_watch_object *)o;
    cci_watch_destroy(&w->watch);
    cci_part_end(&w->part);
    cci_mem_free(w);
}

/* With the instance entered. */
static cc_error_code cci_watch_new(struct cci_instance *i, const char *path, cc_watch *out, cc_error *err)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_watch_object *w = cci_mem_zalloc(1, sizeof(*w));
    if (!w)
        return cci_fail_nomem(err);
    cc_error_code code = cci_watch_open(&w->watch, i->vm.control, path, &wait, err);
    if (code) {
        cci_mem_free(w);
        return code;
    }
    cci_part_init(&w->part, i, cci_watch_object_destroy);
    return cci_part_publish(&w->part, CCI_KIND_WATCH, out, err);
}

CC_API cc_error_code cc_fs_watch(cc_instance inst, const char *path, cc_watch *out, cc_error *err)
{
    struct cci_instance *i = NULL;
    cci_error_clear(err);
    if (out)
        *out = 0;
    cc_error_code code = cci_fs_enter(inst, path, out, &i, err);
    if (code == CC_OK) {
        code = cci_watch_new(i, path, out, err);
        cci_instance_leave(i);
    }
    return cci_api_end("watch", code, err);
}

CC_API cc_error_code cc_watch_close(cc_watch watch, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_handle_release(watch, CCI_KIND_WATCH, &o, err);
    if (code == CC_OK) {
        cci_watch_close(&((struct cci_watch_object *)o)->watch);
        cci_object_unref(o);
    }
    return cci_api_end("close", code, err);
}

/* ---- Events ----------------------------------------------------------------------------------------------- */

static uint32_t cci_watch_kind(uint32_t mask)
{
    static const struct {
        uint32_t theirs, ours;
    } kinds[] = {{CCI_IN_CREATE, CC_WATCH_CREATE},
                 {CCI_IN_MODIFY, CC_WATCH_MODIFY},
                 {CCI_IN_CLOSE_WRITE, CC_WATCH_CLOSE_WRITE},
                 {CCI_IN_DELETE, CC_WATCH_DELETE},
                 {CCI_IN_MOVED_FROM, CC_WATCH_MOVED_FROM},
                 {CCI_IN_MOVED_TO, CC_WATCH_MOVED_TO},
                 {CCI_IN_ATTRIB, CC_WATCH_ATTRIB},
                 {CCI_IN_DELETE_SELF, CC_WATCH_DELETE_SELF},
                 {CCI_IN_MOVE_SELF, CC_WATCH_MOVE_SELF},
                 {CCI_IN_OVERFLOW, CC_WATCH_OVERFLOW},
                 {CCI_IN_IGNORED, CC_WATCH_END}};
    uint32_t kind = 0;
    for (unsigned i = 0; i < CCI_COUNT(kinds); i++)
        if (mask & kinds[i].theirs)
            kind |= kinds[i].ours;
    return kind;
}

/* With the instance entered. Events of kinds nobody asked for are passed over. */
static cc_error_code cci_watch_next(struct cci_watch *w, cc_watch_event *out, const struct cci_wait *wait,
                                    cc_error *err)
{
    struct cci_watch_record r;
    cc_error_code code;
    do
        code = cci_watch_read(w, &r, wait, err);
    while (code == CC_OK && cci_watch_kind(r.mask) == 0);
    if (code)
        return code;
    out->name = cci_mem_strdup(r.name);
    if (!out->name)
        return cci_fail_nomem(err);
    out->kind = cci_watch_kind(r.mask);
    out->cookie = r.cookie;
    out->is_dir = (r.mask & CCI_IN_ISDIR) != 0;
    return CC_OK;
}

CC_API cc_error_code cc_watch_read_with(cc_watch watch, double timeout_seconds, cc_cancel_token cancel,
                                        cc_watch_event *out, cc_error *err)
{
    struct cci_part *p;
    struct cci_cancel *token = NULL;
    cci_error_clear(err);
    if (out)
        memset(out, 0, sizeof(*out));
    cc_error_code code = out ? cci_token_use(cancel, &token, err) : cci_api_null("out", err);
    if (code == CC_OK && !(timeout_seconds >= 0))
        code = cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "timeout_seconds is negative");
    if (code == CC_OK)
        code = cci_part_enter(watch, CCI_KIND_WATCH, &p, err);
    if (code == CC_OK) {
        const struct cci_wait wait = {cci_api_deadline(timeout_seconds), token};
        code = cci_watch_next(&((struct cci_watch_object *)p)->watch, out, &wait, err);
        cci_part_leave(p);
    }
    cci_cancel_unref(token);
    return cci_api_end("watch_read", code, err);
}

CC_API cc_error_code cc_watch_read(cc_watch watch, cc_watch_event *out, cc_error *err)
{
    return cc_watch_read_with(watch, 0, 0, out, err);
}

CC_API void cc_watch_event_free(cc_watch_event *event)
{
    if (!event)
        return;
    cci_mem_free(event->name);
    memset(event, 0, sizeof(*event));
}

#endif
