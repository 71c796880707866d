/*
 * api/lib.h - the library as a whole: start and end, memory, strings, versions, log lines, cancel tokens.
 */
#ifndef CCI_API_LIB_H
#define CCI_API_LIB_H

#include "../base/cancel.h"
#include "begin.h"
#include "log.h"

/* ---- Memory that crosses the API ---------------------------------------------------------------------- */

CC_API void cc_error_free(cc_error *err)
{
    cci_error_release(err);
}

CC_API void cc_free_string(char *str)
{
    cci_mem_free(str);
}

CC_API void cc_free_bytes(uint8_t *buf)
{
    cci_mem_free(buf);
}

CC_API void cc_free_string_array(char **array, size_t count)
{
    for (size_t i = 0; array && i < count; i++)
        cci_mem_free(array[i]);
    cci_mem_free(array);
}

CC_API cc_error_code cc_set_allocator(const cc_allocator *allocator, cc_error *err)
{
    cci_error_clear(err);
    cc_error_code code = CC_OK;
    if (allocator && !allocator->realloc_fn)
        return cci_api_end("set_allocator", cci_api_null("realloc_fn", err), err);
    cci_mutex_lock(&cci_registry.mutex);
    if (cci_registry.init_count || cci_registry.stopping)
        code = CC_ERR_INVALID_ARGUMENT;
    else
        cci_mem_hook = allocator ? *allocator : (cc_allocator){cci_mem_default_alloc, NULL};
    cci_mutex_unlock(&cci_registry.mutex);
    if (code)
        (void)cci_fail(err, code, NULL, "the allocator can be changed only before cc_init or after cc_shutdown");
    return cci_api_end("set_allocator", code, err);
}

/* ---- Start and end -------------------------------------------------------------------------------------- */

CC_API cc_error_code cc_init(void)
{
    cci_mutex_lock(&cci_registry.mutex);
    while (cci_registry.stopping)
        (void)cci_cond_wait(&cci_registry.changed, &cci_registry.mutex, CCI_FOREVER);
    cci_registry.init_count++;
    cci_mutex_unlock(&cci_registry.mutex);
    return CC_OK;
}

/* For calls that work on no object: cc_shutdown waits until cci_registry_leave. */
static cc_error_code cci_lib_enter(cc_error *err)
{
    cci_mutex_lock(&cci_registry.mutex);
    bool up = cci_registry.init_count > 0;
    if (up)
        cci_registry.live++;
    cci_mutex_unlock(&cci_registry.mutex);
    return up ? CC_OK : cci_handle_fail_down(err);
}

/* One cc_shutdown. True for the last: no handle can be made any more, and the caller ends what there is. */
static bool cci_lib_stop(void)
{
    struct cci_registry *r = &cci_registry;
    cci_mutex_lock(&r->mutex);
    bool last = r->init_count == 1;
    r->stopping |= last;
    if (r->init_count)
        r->init_count--;
    cci_mutex_unlock(&r->mutex);
    return last;
}

/* Every handle is gone: waits until the calls under way are, too. */
static void cci_lib_wait_idle(void)
{
    cci_mutex_lock(&cci_registry.mutex);
    while (cci_registry.live)
        (void)cci_cond_wait(&cci_registry.changed, &cci_registry.mutex, CCI_FOREVER);
    cci_mutex_unlock(&cci_registry.mutex);
}

/* The library is down. */
static void cci_lib_drop_table(void)
{
    struct cci_registry *r = &cci_registry;
    cci_mutex_lock(&r->mutex);
    for (uint32_t i = 0; i < r->count; i++)
        r->first_generation = CCI_MAX(r->first_generation, r->slots[i].generation);
    if (r->first_generation > CCI_GENERATION_MAX)
        r->first_generation = 1;
    cci_mem_free(r->slots);
    r->slots = NULL;
    r->count = r->cap = r->free_list = 0;
    r->stopping = false;
    cci_cond_wake(&r->changed);
    cci_mutex_unlock(&r->mutex);
}

static void cci_lib_close_kind(enum cci_kind kind, void (*close_fn)(cc_handle h))
{
    cc_handle h;
    while ((h = cci_handle_any(kind)) != 0)
        close_fn(h);
}

/* ---- Versions ------------------------------------------------------------------------------------------ */

CC_API const char *cc_api_version(void)
{
    return CC_VERSION_STRING;
}

CC_API bool cc_api_version_compatible(int major, int minor)
{
    return major == CC_VERSION_MAJOR && minor >= 0 && minor <= CC_VERSION_MINOR;
}

/* ---- Cancel tokens -------------------------------------------------------------------------------------- */

struct cci_token {
    struct cci_object object;
    struct cci_cancel *cancel;
};

static void cci_token_destroy(struct cci_object *o)
{
    struct cci_token *t = (struct cci_token *)o;
    cci_cancel_unref(t->cancel);
    cci_mem_free(t);
}

CC_API cc_error_code cc_cancel_token_new(cc_cancel_token *out, cc_error *err)
{
    cci_error_clear(err);
    if (!out)
        return cci_api_end("cancel_token_new", cci_api_null("out", err), err);
    *out = 0;
    struct cci_token *t = cci_mem_zalloc(1, sizeof(*t));
    struct cci_cancel *cancel = cci_cancel_new();
    if (!t || !cancel) {
        cci_mem_free(t);
        cci_cancel_unref(cancel);
        return cci_api_end("cancel_token_new", cci_fail_nomem(err), err);
    }
    cci_object_init(&t->object, cci_token_destroy);
    t->cancel = cancel;
    return cci_api_end("cancel_token_new", cci_handle_publish(&t->object, CCI_KIND_TOKEN, out, err), err);
}

CC_API cc_error_code cc_cancel_token_cancel(cc_cancel_token token, cc_error *err)
{
    struct cci_object *o;
    cci_error_clear(err);
    cc_error_code code = cci_handle_get(token, CCI_KIND_TOKEN, &o, err);
    if (code == CC_OK) {
        cci_cancel_fire(((struct cci_token *)o)->cancel);
        cci_object_unref(o);
    }
    return cci_api_end("cancel_token_cancel", code, err);
}

CC_API bool cc_cancel_token_is_cancelled(cc_cancel_token token)
{
    struct cci_object *o;
    if (cci_handle_get(token, CCI_KIND_TOKEN, &o, NULL) != CC_OK)
        return false;
    bool set = cci_cancel_is_set(((struct cci_token *)o)->cancel);
    cci_object_unref(o);
    return set;
}

CC_API void cc_cancel_token_free(cc_cancel_token token)
{
    cci_handle_drop(token, CCI_KIND_TOKEN);
}

/* A reference to a token's flag for as long as a call needs it (cci_cancel_unref); *out is NULL for handle 0. */
static cc_error_code cci_token_use(cc_cancel_token token, struct cci_cancel **out, cc_error *err)
{
    struct cci_object *o;
    *out = NULL;
    if (!token)
        return CC_OK;
    cc_error_code code = cci_handle_get(token, CCI_KIND_TOKEN, &o, err);
    if (code == CC_OK) {
        *out = cci_cancel_ref(((struct cci_token *)o)->cancel);
        cci_object_unref(o);
    }
    return code;
}

#endif
