/* A session in which the Nth allocation fails, for every N: an error or a success, never a crash, a hang or a leak.
 * @timeout 120
 */
#include "agent.h"

#include "../../src/control/copy.h"
#include "../../src/control/openfile.h"
#include "../../src/control/watch.h"

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

/* All three pipes, and a terminal. */
static cc_error_code pipes(struct cci_control *ctl, bool tty)
{
    const char *const argv[] = {"sh", "-c", "exec cat"};
    struct cci_exec_spec s = {0};
    struct cci_pipe *in = NULL, *out = NULL;
    struct cci_exec *e = NULL;
    cc_error err = {0};
    uint8_t block[100];
    size_t n;
    int code;
    s.argv = argv;
    s.argc = 3;
    s.dir = "/";
    s.stdin_piped = s.stdout_piped = true;
    s.stderr_tail = !tty;
    s.tty = tty;
    cc_error_code c = cci_exec_begin(ctl, &s, &e, &err);
    if (c == CC_OK)
        c = cci_exec_started(e, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_exec_pipe(e, CCI_CHANNEL_STDIN, &in, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_exec_pipe(e, CCI_CHANNEL_STDOUT, &out, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_pipe_write(in, "x\n", 2, &n, &agent_forever, &err);
    cci_pipe_free(in);
    if (c == CC_OK)
        c = cci_pipe_read(out, block, sizeof(block), &n, &agent_forever, &err);
    if (c == CC_OK && block[0] != 'x')
        abort();
    if (c == CC_OK)
        c = cci_exec_wait(e, &agent_forever, &code, &err);
    else if (e)
        cci_exec_kill(e, SIGKILL);
    cci_pipe_free(out);
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

/* An open file: more than one piece out and in. */
static cc_error_code open_file(struct cci_control *ctl, const char *path)
{
    static uint8_t out[200000], in[200000];
    struct cci_openfile f;
    cc_error err = {0};
    uint64_t at;
    size_t n;
    cc_error_code c = cci_openfile_open(&f, ctl, path, 0x202, 0600, &agent_forever, &err);
    if (c == CC_OK) {
        c = cci_openfile_write(&f, out, sizeof(out), &n, &agent_forever, &err);
        if (c == CC_OK)
            c = cci_openfile_seek(&f, 0, 0, &at, &agent_forever, &err);
        if (c == CC_OK)
            c = cci_openfile_read(&f, in, sizeof(in), &n, &agent_forever, &err);
        if (c == CC_OK && n != sizeof(in))
            abort();
        (void)cci_openfile_close(&f, &agent_forever, NULL);
        cci_openfile_destroy(&f);
    }
    cci_error_release(&err);
    return c;
}

/* A directory, a link, and what happens there. */
static cc_error_code paths(struct cci_control *ctl, const char *dir)
{
    char link[150];
    (void)snprintf(link, sizeof(link), "%s/link", dir);
    const struct cci_path_request make = {CCI_MSG_SYMLINK, "target", link, 0, {0}};
    struct cci_watch_record r;
    struct cci_watch w;
    cc_error err = {0};
    cc_dir_entry *entries = NULL;
    char *target = NULL;
    size_t n = 0;
    (void)unlink(link);
    cc_error_code c = cci_watch_open(&w, ctl, dir, &agent_forever, &err);
    if (c)
        goto out;
    c = cci_path_do(ctl, &make, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_watch_read(&w, &r, &agent_forever, &err);
    cci_watch_destroy(&w);
    if (c == CC_OK)
        c = cci_path_readlink(ctl, link, &target, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_listing_read(ctl, dir, &entries, &n, &agent_forever, &err);
    if (c == CC_OK && (n < 2 || strcmp(target, "target") != 0))
        abort();
out:
    cci_listing_free(entries, n);
    cci_mem_free(target);
    cci_error_release(&err);
    return c;
}

/* The agent's directory with a file in it, there and back. */
static cc_error_code copies(struct cci_control *ctl, const char *dir)
{
    char from[150], to[150], back[150], script[800];
    const struct cci_copy_options o = {0};
    cc_error err = {0};
    (void)snprintf(from, sizeof(from), "%s/t", dir);
    (void)snprintf(to, sizeof(to), "%s/u", dir);
    (void)snprintf(back, sizeof(back), "%s/v", dir);
    (void)snprintf(script, sizeof(script), "mkdir -p %s/d && echo x >%s/f && ln -f %s/f %s/d/h", from, from, from,
                   from);
    if (system(script) != 0)
        abort();
    cc_error_code c = cci_copy_in(ctl, from, to, &o, &agent_forever, &err);
    if (c == CC_OK)
        c = cci_copy_out(ctl, to, back, &o, &agent_forever, &err);
    (void)snprintf(script, sizeof(script), "diff -r %s %s", from, back);
    if (c == CC_OK && system(script) != 0)
        abort();
    (void)snprintf(script, sizeof(script), "rm -rf %s %s %s", from, to, back);
    if (system(script) != 0)
        abort();
    cci_error_release(&err);
    return c;
}

enum { STEPS = 10 };

/* The steps with allocation n failing; returns how many of them succeeded. */
static int session(long n, bool all_after, bool *reached)
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
    good += pipes(a.ctl, false) == CC_OK;
    good += pipes(a.ctl, true) == CC_OK;
    good += files(a.ctl, path, 1000) == CC_OK;
    good += files(a.ctl, path, 200000) == CC_OK;
    good += open_file(a.ctl, path) == CC_OK;
    good += paths(a.ctl, a.dir) == CC_OK;
    good += copies(a.ctl, a.dir) == CC_OK;
    good += run(a.ctl, "true", 0) == CC_OK;
    __atomic_store_n(&for_good, false, __ATOMIC_RELAXED);
    *reached = __atomic_exchange_n(&countdown, -1, __ATOMIC_RELAXED) < 0;
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/link", a.dir);
    (void)unlink(path);
    agent_stop(&a);
    return good;
}

static void every(bool all_after)
{
    bool reached = true;
    for (long n = 0; n < 1000; n++) {
        int good = session(n, all_after, &reached);
        if (!reached) { /* none failed any more: that is all of them */
            printf("# %ld allocations\n", n);
            CHECK_EQ_INT(good, STEPS);
            CHECK(n > 50);
            return;
        }
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
