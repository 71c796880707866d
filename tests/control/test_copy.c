/* Trees to and from the real agent, over a Unix socket.
 * @timeout 120
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "agent.h"

#include "../../src/control/copy.h"

static struct agent a;
static cc_error err;
static const struct cci_copy_options plain = {0};

static int in_shell(const char *script)
{
    char all[3000];
    (void)snprintf(all, sizeof(all), "cd %s && { %s\n}", a.dir, script);
    int status = system(all);
    return WEXITSTATUS(status);
}

static const char *at(const char *name)
{
    static char path[2][300];
    static unsigned turn;
    turn ^= 1;
    (void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", a.dir, name);
    return path[turn];
}

/* Copies and gives the error number. */
static int copies(bool in, const char *from, const char *to, const struct cci_copy_options *o)
{
    cc_error_code code = in ? cci_copy_in(a.ctl, at(from), at(to), o, &agent_forever, &err)
                            : cci_copy_out(a.ctl, at(from), at(to), o, &agent_forever, &err);
    int r = code == CC_OK ? 0 : err.sys_errno ? err.sys_errno : -(int)code;
    if (r < 0)
        printf("# %s\n", err.message);
    cci_error_release(&err);
    return r;
}

/* Everything there is in a tree: links, holes, odd names, times, read-only directories, hard links. */
static void make_tree(void)
{
    CHECK_EQ_INT(
        in_shell("mkdir -p t/sub/deep t/empty t/ro; echo hello >t/f; chmod 4751 t/f; : >t/sub/zero; ln t/f t/sub/hard; "
                 "ln t/sub/zero t/sub/deep/z2; ln -s /etc/passwd t/abs; ln -s nowhere t/sub/dangling; "
                 "ln -s . t/sub/self; head -c 3000000 /dev/urandom >t/sub/big; truncate -s 5G t/sparse; "
                 "printf x | dd of=t/sparse bs=1 seek=4500000000 conv=notrunc 2>/dev/null; mkfifo -m 640 t/fifo; "
                 "touch \"$(printf 't/nl\\nff\\377')\"; touch -d '2001-02-03 04:05:06.123456789' t/f t/sub/deep t/sub "
                 "t/abs -h; "
                 "echo in >t/ro/x; chmod 555 t/ro; chmod 1777 t/empty"),
        0);
}

/* What differs between two trees: names, types, modes, sizes, times, targets, contents. */
static int differ(const char *x, const char *y)
{
    char script[1500];
    (void)snprintf(
        script, sizeof(script),
        "list() { (cd $1 && find . -printf '%%P|%%y|%%m|%%T@|%%l|%%n' \\( -type f -printf '|%%s' , -true \\) "
        "-printf '\\n' | sed 's/|d|\\([0-9]*\\)|\\(.*\\)|[0-9]*$/|d|\\1|\\2/' | sort); }; "
        "list %s >a.list; list %s >b.list; diff a.list b.list && "
        "cmp %s/sub/big %s/sub/big && cmp %s/f %s/f && cmp -i 4499999000 -n 3000 %s/sparse %s/sparse; r=$?; rm -f "
        "?.list; exit $r",
        x, y, x, y, x, y, x, y);
    return in_shell(script);
}

static void test_there_and_back(void)
{
    make_tree();
    uint64_t t0 = cci_os_now();
    CHECK_EQ_INT(copies(true, "t", "u", &plain), 0);
    uint64_t t1 = cci_os_now();
    CHECK_EQ_INT(copies(false, "u", "v", &plain), 0);
    printf("# in %llu ms, out %llu ms\n", (unsigned long long)(t1 - t0) / 1000000u,
           (unsigned long long)(cci_os_now() - t1) / 1000000u);
    CHECK_EQ_INT(in_shell("stat -c %a u/f | grep -qx 751 && chmod 4751 u/f v/f && touch -hd '2001-02-03 "
                          "04:05:06.123456789' u/f v/f"),
                 0); /* somebody else's setuid program is none any more */
    CHECK_EQ_INT(differ("t", "u"), 0);
    CHECK_EQ_INT(differ("t", "v"), 0);
    CHECK_EQ_INT(in_shell("[ $(du -k v/sparse | cut -f1) -lt 1000 ]"), 0); /* the hole is one */
    const struct cci_copy_options keep = {.keep_owner = true};
    if (geteuid() == 0) {
        CHECK_EQ_INT(in_shell("chown 12:34 t/sub/zero; chown -h 12:34 t/abs; rm -rf u v"), 0);
        CHECK_EQ_INT(copies(true, "t", "u", &keep), 0);
        CHECK_EQ_INT(copies(false, "u", "v", &keep), 0);
        CHECK_EQ_INT(differ("t", "v"), 0);
        CHECK_EQ_INT(
            in_shell(
                "[ $(stat -c %u:%g v/sub/zero)$(stat -c %u:%g v/abs) = 12:3412:34 ] && [ $(stat -c %a v/f) = 4751 ]"),
            0);
    }
    CHECK_EQ_INT(in_shell("chmod -R u+w t u v; rm -rf t u v"), 0);
}

/* Where things go, both ways, as docker cp has it. */
static void test_destinations(void)
{
    static const struct {
        const char *from, *to;
        int want;
        const char *check;
    } cases[] = {
        {"s/f", "d", 0, "[ \"$(cat d/f)\" = one ]"},
        {"s/f", "d/", 0, "[ \"$(cat d/f)\" = one ]"},
        {"s/f", "new", 0, "[ \"$(cat new)\" = one ]"},
        {"s/f", "new/", 20, "[ ! -e new ]"},
        {"s/f", "no/new", 2, "[ ! -e no ]"},
        {"s/f", "old", 0, "[ \"$(cat old)\" = one ]"},
        {"s/f", "link", 0, "[ ! -L link ] && [ \"$(cat link)\" = one ] && [ \"$(cat old)\" = was ]"},
        {"s/f", "old/x", 20, "[ \"$(cat old)\" = was ]"},
        {"s/f", "dlink", 0, "[ \"$(cat d/f)\" = one ]"},
        {"s/f", "dangling", 0, "[ ! -L dangling ] && [ \"$(cat dangling)\" = one ]"},
        {"s/f", "", 0, "[ \"$(cat f)\" = one ]"},
        {"s", "d", 0, "[ \"$(cat d/s/sub/g)\" = two ]"},
        {"s/", "d", 0, "[ \"$(cat d/s/sub/g)\" = two ]"},
        {"s", "new", 0, "[ \"$(cat new/sub/g)\" = two ]"},
        {"s", "new/", 0, "[ \"$(cat new/sub/g)\" = two ]"},
        {"s/.", "d", 0, "[ \"$(cat d/sub/g)\" = two ] && [ \"$(stat -c %a d)\" = 750 ]"},
        {"s/.", "new", 0, "[ \"$(cat new/sub/g)\" = two ]"},
        {"s/.", "no/new", 2, "[ ! -e no ]"},
        {"s", "old", 20, "[ \"$(cat old)\" = was ]"},
        {"s/.", "old", 20, "[ \"$(cat old)\" = was ]"},
        {"s/none", "d", 2, "true"},
        {"s/f/", "d", 20, "true"},
        {"s/f/.", "d", 20, "true"},
        {"s/l", "d", 0, "[ -L d/l ]"},
        {"slink", "d", 0, "[ -L d/slink ]"},
        {"slink/", "d", 0, "[ \"$(cat d/slink/sub/g)\" = two ]"},
        {"slink/.", "d", 0, "[ \"$(cat d/sub/g)\" = two ]"},
        {"s/f", "hasdir", 21, "[ -d hasdir/f/x ]"},
        {"s", "hasfile", 20, "[ \"$(cat hasfile/s)\" = was ]"},
        {"s", "haslink", 20, "[ -L haslink/s ] && [ ! -e d/f ]"},
        {"s", "merge", 0,
         "[ \"$(cat merge/s/f)\" = one ] && [ \"$(cat merge/s/other)\" = was ] && "
         "[ \"$(stat -c %a merge/s)\" = 711 ]"},
    };
    for (int in = 0; in < 2; in++)
        for (size_t i = 0; i < CCI_COUNT(cases); i++) {
            CHECK_EQ_INT(
                in_shell("mkdir -p s/sub d hasdir/f/x hasfile haslink merge/s; chmod 750 d; chmod 711 merge/s; "
                         "echo one >s/f; echo two >s/sub/g; ln -s f s/l; ln -s s slink; ln -s d dlink; "
                         "echo was >old; ln -s old link; ln -s gone dangling; echo was >hasfile/s; "
                         "ln -s ../d haslink/s; echo was >merge/s/other; ln -s ../../old merge/s/f"),
                0);
            int got = copies(in, cases[i].from, cases[i].to, &plain);
            if (got != cases[i].want)
                printf("# %s %s to %s\n", in ? "in" : "out", cases[i].from, cases[i].to);
            CHECK_EQ_INT(got, cases[i].want);
            int good = in_shell(cases[i].check);
            if (good != 0)
                printf("# %s %s to %s\n", in ? "in" : "out", cases[i].from, cases[i].to);
            CHECK_EQ_INT(good, 0);
            CHECK_EQ_INT(in_shell("rm -rf s d hasdir hasfile haslink merge slink dlink old link dangling new f"), 0);
        }
}

/* ---- Progress and ends --------------------------------------------------------------------------------------- */

struct told {
    unsigned times;
    uint64_t bytes, entries, skipped;
    struct cci_cancel *cancel;
};

static void tell(void *ctx, uint64_t bytes, uint64_t entries, uint64_t skipped, const char *path)
{
    struct told *t = ctx;
    CHECK(bytes >= t->bytes && entries >= t->entries && path);
    *t = (struct told){t->times + 1, bytes, entries, skipped, t->cancel};
    if (t->cancel)
        cci_cancel_fire(t->cancel);
}

static void test_progress_and_ends(void)
{
    struct told told = {0};
    struct cci_copy_options o = {.progress = tell, .ctx = &told};
    CHECK_EQ_INT(in_shell("mkdir t; head -c 100000 /dev/zero >t/a; head -c 50 /dev/zero >t/b; truncate -s 1000000 t/c"),
                 0);
    CHECK_EQ_INT(copies(true, "t", "u", &o), 0);
    CHECK(told.times >= 1 && told.bytes == 1100050 && told.entries == 4);
    told = (struct told){0};
    CHECK_EQ_INT(copies(false, "t", "v", &o), 0);
    CHECK(told.times >= 1 && told.bytes == 1100050 && told.entries == 4);
    /* Limits on what a guest may send. */
    o = (struct cci_copy_options){.max_bytes = 1100050, .max_entries = 4};
    CHECK_EQ_INT(copies(false, "t", "w", &o), 0);
    o.max_bytes--;
    CHECK_EQ_INT(copies(false, "t", "x", &o), EDQUOT);
    o = (struct cci_copy_options){.max_entries = 3};
    CHECK_EQ_INT(copies(false, "t", "y", &o), EDQUOT);
    CHECK_EQ_INT(in_shell("rm -rf u v w x y"), 0);
    /* Cancelled in the middle, and too late from the start. */
    CHECK_EQ_INT(in_shell("head -c 200000000 /dev/zero >t/d"), 0);
    for (int in = 0; in < 2; in++) {
        told = (struct told){.cancel = cci_cancel_new()};
        o = (struct cci_copy_options){.progress = tell, .ctx = &told};
        const struct cci_wait w = {CCI_FOREVER, told.cancel}, late = {1, NULL};
        cc_error_code code = in ? cci_copy_in(a.ctl, at("t"), at("u"), &o, &w, &err)
                                : cci_copy_out(a.ctl, at("t"), at("u"), &o, &w, &err);
        CHECK_EQ_INT(code, CC_ERR_CANCELLED);
        cci_error_release(&err);
        cci_cancel_unref(told.cancel);
        code = in ? cci_copy_in(a.ctl, at("t"), at("u"), &plain, &late, &err)
                  : cci_copy_out(a.ctl, at("t"), at("u"), &plain, &late, &err);
        CHECK_EQ_INT(code, CC_ERR_TIMEOUT);
        cci_error_release(&err);
    }
    CHECK_EQ_INT(copies(false, "t/a", "u", &plain), 0); /* the agent goes on */
    CHECK_EQ_INT(in_shell("rm -rf t u"), 0);
}

/* As deep as it may be, and one more; both sides stop in time. */
static void test_depth(void)
{
    CHECK_EQ_INT(in_shell("mkdir t; cd t; for i in $(seq 255); do mkdir d; cd d; done; echo x >f"), 0);
    CHECK_EQ_INT(copies(true, "t", "u", &plain), 0);
    CHECK_EQ_INT(in_shell("diff -r t u"), 0);
    CHECK_EQ_INT(in_shell("mkdir s; mv t s/t; rm -rf u"), 0);
    CHECK_EQ_INT(copies(true, "s", "u", &plain), ELOOP);
    CHECK_EQ_INT(copies(false, "s", "v", &plain), ELOOP);
    CHECK_EQ_INT(in_shell("rm -rf s u v"), 0);
}

int main(void)
{
    agent_build();
    agent_start(&a, NULL);
    RUN(test_there_and_back);
    RUN(test_destinations);
    RUN(test_progress_and_ends);
    RUN(test_depth);
    agent_stop(&a);
    agent_clean();
    return check_done();
}
