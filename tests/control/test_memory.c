/* A session in which the Nth allocation fails, for every N: an error or a success, never a crash, a hang or a leak.
 * @timeout 120
 */
#include "agent.h"

static long countdown; /* allocations until one fails; negative = none does */
static bool for_good;  /* and all after it */

static void *counted(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(old);
        return NULL;
    }
    long left = __atomic_fetch_sub(&countdown, 1, __ATOMIC_RELAXED);
    if (left == 0 || (left < 0 && __atomic_load_n(&for_good, __ATOMIC_RELAXED)))
        return NULL;
    return realloc(old, size);
}

static cc_error_code run(struct cci_control *ctl, const char *script, size_t want)
{
    const char *const argv[] = {"sh", "-c", script};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    cc_error err = {0};
    uint8_t *out = NULL;
    size_t n = 0;
    int code;
    s.argv = argv;
    s.argc = 3;
    s.dir = "/";
    s.stdout_wanted = s.stderr_wanted = s.notify = true;
    cc_error_code c = cci_exec_begin(ctl, &s, &e, &err);
    if (c == CC_OK)
        c = cci_exec_started(e, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_exec_wait(e, &agent_forever, &code, &err);
    if (c == CC_OK)
        c = cci_exec_take(e, CCI_CHANNEL_STDOUT, &out, &n, &err);
    if (c == CC_OK && n != want)
        abort(); /* a success must be a whole one */
    cci_mem_free(out);
    cci_exec_free(e);
    cci_error_release(&err);
    return c;
}

static cc_error_code files(struct cci_control *ctl, const char *path, size_t size)
{
    static uint8_t bytes[200000];
    cc_error err = {0};
    uint8_t *got = NULL;
    size_t n = 0;
    struct cci_file_stat st;
    cc_error_code c = cci_file_write(ctl, path, bytes, size, 0600, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_file_read(ctl, path, 0, &got, &n, &agent_forever, &err);
    if (c == CC_OK && n != size)
        abort();
    if (c == CC_OK)
        c = cci_file_stat(ctl, path, false, &st, &agent_forever, &err);
    cci_mem_free(got);
    cci_error_release(&err);
    return c;
}

/* Five steps with allocation n failing; returns how many of them succeeded. */
static int session(long n, bool all_after)
{
    static struct agent a;
    char path[120];
    int good = 0;
    agent_start(&a, NULL);
    (void)snprintf(path, sizeof(path), "%s/file", a.dir);
    __atomic_store_n(&for_good, all_after, __ATOMIC_RELAXED);
    __atomic_store_n(&countdown, n, __ATOMIC_RELAXED);
    good += run(a.ctl, "echo hello", 6) == CC_OK;
    good += run(a.ctl, "head -c 150000 /dev/zero", 150000) == CC_OK;
    good += files(a.ctl, path, 1000) == CC_OK;
    good += files(a.ctl, path, 200000) == CC_OK;
    good += run(a.ctl, "true", 0) == CC_OK;
    __atomic_store_n(&for_good, false, __ATOMIC_RELAXED);
    __atomic_store_n(&countdown, -1, __ATOMIC_RELAXED);
    (void)unlink(path);
    agent_stop(&a);
    return good;
}

static void every(bool all_after)
{
    for (long n = 0; n < 500; n++)
        if (session(n, all_after) == 5) {
            printf("# %ld allocations\n", n);
            CHECK(n > 20);
            return;
        }
    CHECK(!"an end");
}

static void test_one_fails(void)
{
    every(false);
}

static void test_all_fail(void)
{
    every(true);
}

int main(void)
{
    cci_mem_hook = (cc_allocator){counted, NULL};
    countdown = -1;
    agent_build();
    RUN(test_one_fails);
    RUN(test_all_fail);
    agent_clean();
    return check_done();
}
