/* Handles: what is valid, what was, and races with freeing; tokens and the library's own calls.
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "../../src/api/lib.h"
#include "../check.h"

/* What cc_shutdown does, where there are neither instances nor images. */
static void end_library(void)
{
    CHECK(cci_lib_stop());
    cci_lib_wait_idle();
    cci_lib_drop_table();
}

struct thing {
    struct cci_object object;
    int *destroyed;
};

static void thing_destroy(struct cci_object *o)
{
    struct thing *t = (struct thing *)o;
    __atomic_add_fetch(t->destroyed, 1, __ATOMIC_RELAXED);
    cci_mem_free(t);
}

static cc_handle thing_new(enum cci_kind kind, int *destroyed)
{
    struct thing *t = cci_mem_zalloc(1, sizeof(*t));
    cc_handle h = 0;
    cci_object_init(&t->object, thing_destroy);
    t->destroyed = destroyed;
    return cci_handle_publish(&t->object, kind, &h, NULL) == CC_OK ? h : 0;
}

static void test_lookup_checks_everything(void)
{
    int destroyed = 0;
    struct cci_object *o, *p;
    cc_handle h = thing_new(CCI_KIND_CMD, &destroyed);
    CHECK(h != 0 && cci_handle_get(h, CCI_KIND_CMD, &o, NULL) == CC_OK && o);
    CHECK_EQ_INT(cci_handle_get(0, CCI_KIND_CMD, &p, NULL), CC_ERR_INVALID_HANDLE);
    CHECK_EQ_INT(cci_handle_get(h, CCI_KIND_SOURCE, &p, NULL), CC_ERR_INVALID_HANDLE);
    CHECK_EQ_INT(cci_handle_get(h + 1, CCI_KIND_CMD, &p, NULL), CC_ERR_INVALID_HANDLE);
    CHECK_EQ_INT(cci_handle_get(h ^ (1ull << 32), CCI_KIND_CMD, &p, NULL), CC_ERR_INVALID_HANDLE);
    CHECK_EQ_INT(cci_handle_get(UINT64_MAX, CCI_KIND_CMD, &p, NULL), CC_ERR_INVALID_HANDLE);
    CHECK_EQ_INT(cci_handle_get((cc_handle)CCI_KIND_CMD << 56 | 0xffffffffu, CCI_KIND_CMD, &p, NULL),
                 CC_ERR_INVALID_HANDLE);
    cci_handle_drop(h, CCI_KIND_CMD);
    CHECK_EQ_INT(destroyed, 0); /* o still counts */
    CHECK_EQ_INT(cci_handle_get(h, CCI_KIND_CMD, &p, NULL), CC_ERR_INVALID_HANDLE);
    cci_object_unref(o);
    CHECK_EQ_INT(destroyed, 1);
    cci_handle_drop(h, CCI_KIND_CMD);
    CHECK_EQ_INT(destroyed, 1);
}

static void test_closed_kinds_say_so(void)
{
    int destroyed = 0;
    struct cci_object *o;
    cc_error err = {0};
    cc_handle h = thing_new(CCI_KIND_INSTANCE, &destroyed);
    cci_handle_drop(h, CCI_KIND_INSTANCE);
    CHECK_EQ_INT(cci_handle_get(h, CCI_KIND_INSTANCE, &o, &err), CC_ERR_ALREADY_CLOSED);
    CHECK_EQ_STR(err.message, "the instance was closed before");
    cci_error_release(&err);
    cc_handle again = thing_new(CCI_KIND_INSTANCE, &destroyed);
    CHECK((uint32_t)again == (uint32_t)h && again != h); /* the slot is used again, under another number */
    CHECK_EQ_INT(cci_handle_release(h, CCI_KIND_INSTANCE, &o, NULL), CC_ERR_ALREADY_CLOSED);
    cci_handle_drop(again, CCI_KIND_INSTANCE);
    CHECK_EQ_INT(destroyed, 2);
}

static void test_generations_run_out(void)
{
    int destroyed = 0;
    cc_handle h = thing_new(CCI_KIND_CMD, &destroyed);
    uint32_t slot = (uint32_t)h;
    cci_handle_drop(h, CCI_KIND_CMD);
    cci_registry.slots[slot].generation = CCI_GENERATION_MAX;
    h = thing_new(CCI_KIND_CMD, &destroyed);
    CHECK((uint32_t)h == slot);
    cci_handle_drop(h, CCI_KIND_CMD);
    h = thing_new(CCI_KIND_CMD, &destroyed);
    CHECK((uint32_t)h != slot); /* retired: its next handle would repeat an old one */
    cci_handle_drop(h, CCI_KIND_CMD);
}

/* ---- Races ---- */

struct race {
    cc_handle h;
    int destroyed;
    int released;
};

static void use_and_release(void *ctx)
{
    struct race *r = ctx;
    struct cci_object *o;
    if (cci_handle_get(r->h, CCI_KIND_CMD, &o, NULL) == CC_OK)
        cci_object_unref(o);
    if (cci_handle_release(r->h, CCI_KIND_CMD, &o, NULL) == CC_OK) {
        __atomic_add_fetch(&r->released, 1, __ATOMIC_RELAXED);
        cci_object_unref(o);
    }
}

static void test_one_of_many_closes_wins(void)
{
    for (int i = 0; i < 200; i++) {
        struct race r = {0};
        struct cci_thread t[4];
        r.h = thing_new(CCI_KIND_CMD, &r.destroyed);
        for (int k = 0; k < 4; k++)
            CHECK_EQ_INT(cci_thread_new(&t[k], "race", use_and_release, &r), 0);
        for (int k = 0; k < 4; k++)
            cci_thread_join(&t[k]);
        CHECK(r.released == 1 && r.destroyed == 1);
    }
}

/* ---- Tokens and the library ---- */

static void test_tokens(void)
{
    cc_cancel_token t = 0;
    cc_error err = {0};
    CHECK_OK(cc_cancel_token_new(&t, &err), err);
    CHECK(!cc_cancel_token_is_cancelled(t));
    CHECK_OK(cc_cancel_token_cancel(t, &err), err);
    CHECK(cc_cancel_token_is_cancelled(t));
    cc_cancel_token_free(t);
    CHECK(!cc_cancel_token_is_cancelled(t));
    CHECK_EQ_INT(cc_cancel_token_cancel(t, &err), CC_ERR_INVALID_HANDLE);
    CHECK_EQ_STR(err.op, "cancel_token_cancel");
    cc_error_free(&err);
    CHECK_EQ_INT(cc_cancel_token_new(NULL, NULL), CC_ERR_INVALID_ARGUMENT);
}

static void test_nothing_before_init(void)
{
    cc_cancel_token t = 7;
    cc_error err = {0};
    CHECK_EQ_INT(cc_cancel_token_new(&t, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK(t == 0 && strstr(err.message, "cc_init"));
    cc_error_free(&err);
}

static void *counting(void *ctx, void *old, size_t size)
{
    ++*(int *)ctx;
    return cci_mem_default_alloc(NULL, old, size);
}

static void test_allocator_hook(void)
{
    int calls = 0;
    cc_allocator a = {counting, &calls}, bad = {NULL, NULL};
    CHECK_EQ_INT(cc_set_allocator(&bad, NULL), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cc_set_allocator(&a, NULL), CC_OK);
    CHECK_EQ_INT(cc_init(), CC_OK);
    CHECK_EQ_INT(cc_set_allocator(NULL, NULL), CC_ERR_INVALID_ARGUMENT);
    cc_cancel_token t;
    CHECK_EQ_INT(cc_cancel_token_new(&t, NULL), CC_OK);
    cc_cancel_token_free(t);
    CHECK(calls > 0);
    end_library();
    CHECK_EQ_INT(cc_set_allocator(NULL, NULL), CC_OK);
}

static void test_versions(void)
{
    CHECK_EQ_STR(cc_api_version(), CC_VERSION_STRING);
    CHECK(cc_api_version_compatible(CC_VERSION_MAJOR, CC_VERSION_MINOR));
    CHECK(!cc_api_version_compatible(CC_VERSION_MAJOR + 1, 0));
    CHECK(!cc_api_version_compatible(CC_VERSION_MAJOR, CC_VERSION_MINOR + 1));
    CHECK(!cc_api_version_compatible(CC_VERSION_MAJOR, -1));
}

int main(void)
{
    RUN(test_nothing_before_init);
    RUN(test_allocator_hook);
    RUN(test_versions);
    (void)cc_init();
    RUN(test_lookup_checks_everything);
    RUN(test_closed_kinds_say_so);
    RUN(test_generations_run_out);
    RUN(test_one_of_many_closes_wins);
    RUN(test_tokens);
    end_library();
    return check_done();
}
