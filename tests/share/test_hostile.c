// @sanitize address,undefined
// @sanitize thread
/*
 * The FUSE server and a guest that breaks the rules, a host that changes the tree meanwhile, and lack of everything.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../check.h"
#include "../scratch.h"

static char base[64];
static struct rq q;

static void host(const char *script)
{
    char line[500];
    (void)snprintf(line, sizeof(line), "cd %s && %s", base, script);
    CHECK_EQ_INT(system(line), 0);
}

static void begin_share(bool writable)
{
    char tree[80];
    scratch_make(base, sizeof(base), "share");
    host("mkdir tree tree/d && echo text >tree/f && echo secret >secret && ln -s ../secret tree/l && mkfifo tree/p");
    (void)snprintf(tree, sizeof(tree), "%s/tree", base);
    CHECK(rq_open(&q, tree, writable));
}

static void end_share(void)
{
    cci_share_free(q.share);
    host("test \"$(cat secret)\" = secret && test $(ls -A | wc -l) = 2");
    CHECK_EQ_INT(cci_remove_tree(base), 0);
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- Names, numbers, lengths ------------------------------------------------------------------------------------- */

static void test_names(void)
{
    char longest[300];
    begin_share(true);
    static const char *const bad[] = {"", ".", "..", "a/b", "/", "../secret", "d/../../secret"};
    for (unsigned i = 0; i < CCI_COUNT(bad); i++) {
        CHECK_EQ_INT(rq_lookup(&q, 1, bad[i]), 0);
        CHECK_EQ_INT(q.error, EINVAL);
        rq_begin(&q, CCI_FUSE_UNLINK, 1);
        rq_str(&q, bad[i]);
        CHECK_EQ_INT(rq_send(&q), EINVAL);
        rq_begin(&q, CCI_FUSE_RENAME, 1);
        rq_u64(&q, 1);
        rq_str(&q, "f");
        rq_str(&q, bad[i]);
        CHECK_EQ_INT(rq_send(&q), EINVAL);
        rq_begin(&q, CCI_FUSE_SYMLINK, 1);
        rq_str(&q, bad[i]);
        rq_str(&q, "target");
        CHECK_EQ_INT(rq_send(&q), EINVAL);
        rq_begin(&q, CCI_FUSE_CREATE, 1);
        for (unsigned k = 0; k < 4; k++)
            rq_u32(&q, k == 0 ? 2 : 0600);
        rq_str(&q, bad[i]);
        CHECK_EQ_INT(rq_send(&q), EINVAL);
    }
    memset(longest, 'x', sizeof(longest));
    longest[256] = '\0';
    CHECK_EQ_INT(rq_lookup(&q, 1, longest), 0);
    CHECK_EQ_INT(q.error, ENAMETOOLONG);
    rq_begin(&q, CCI_FUSE_LOOKUP, 1); /* no NUL */
    rq_bytes(&q, "f", 1);
    CHECK_EQ_INT(rq_send(&q), EINVAL);
    uint64_t link = rq_lookup(&q, 1, "l"); /* not followed, neither as a file nor as a directory */
    uint64_t handle;
    CHECK(link != 0);
    CHECK_EQ_INT(rq_open_file(&q, link, 0, &handle), ELOOP);
    CHECK_EQ_INT(rq_lookup(&q, link, "x"), 0);
    CHECK_EQ_INT(q.error, ENOTDIR);
    end_share();
}

/* Nothing but files and directories is opened, not even to see that it is something else (CVE-2020-35517). */
static void test_special_files(void)
{
    uint64_t handle;
    begin_share(true);
    uint64_t fifo = rq_lookup(&q, 1, "p");
    CHECK(fifo != 0);
    for (uint32_t flags = 0; flags < 3; flags++)
        CHECK_EQ_INT(rq_open_file(&q, fifo, flags, &handle), EACCES); /* and at once */
    rq_begin(&q, CCI_FUSE_OPENDIR, fifo);
    rq_u64(&q, 0);
    CHECK_EQ_INT(rq_send(&q), ENOTDIR);
    rq_begin(&q, CCI_FUSE_CREATE, 1); /* a name that is taken by one */
    rq_u32(&q, 1);
    rq_u32(&q, 0600);
    rq_u64(&q, 0);
    rq_str(&q, "p");
    CHECK_EQ_INT(rq_send(&q), EACCES);
    rq_begin(&q, CCI_FUSE_SETATTR, fifo); /* truncating opens, too */
    rq_u32(&q, CCI_FUSE_SET_SIZE);
    for (unsigned i = 0; i < 21; i++)
        rq_u32(&q, 0);
    CHECK_EQ_INT(rq_send(&q), EINVAL);
    static const uint32_t devices[] = {0020666, 0060666};
    for (unsigned i = 0; i < 2; i++) {
        rq_begin(&q, CCI_FUSE_MKNOD, 1);
        rq_u32(&q, devices[i]);
        rq_u32(&q, 259);
        rq_u64(&q, 0);
        rq_str(&q, "dev");
        CHECK_EQ_INT(rq_send(&q), EPERM);
    }
    end_share();
}

static void test_numbers(void)
{
    uint64_t handle, again;
    begin_share(true);
    uint64_t f = rq_lookup(&q, 1, "f"), d = rq_lookup(&q, 1, "d");
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), 0);
    static const uint64_t bad[] = {0, 4, 1000000, UINT32_MAX, UINT64_MAX, (uint64_t)1 << 32 | 1, (uint64_t)5 << 32 | 2};
    for (unsigned i = 0; i < CCI_COUNT(bad); i++) {
        CHECK_EQ_INT(rq_getattr(&q, bad[i]), ESTALE);
        CHECK_EQ_INT(rq_open_file(&q, bad[i], 0, &again), ESTALE);
        rq_transfer(&q, CCI_FUSE_READ, f, bad[i] + 1, 0, 100);
        CHECK_EQ_INT(rq_send(&q), bad[i] + 1 == handle ? 0 : EBADF);
        rq_forget(&q, bad[i], UINT64_MAX);
    }
    rq_transfer(&q, CCI_FUSE_READ, d, handle, 0, 100); /* another file's */
    CHECK_EQ_INT(rq_send(&q), EBADF);
    rq_transfer(&q, CCI_FUSE_READDIR, f, handle, 0, 1000); /* no directory */
    CHECK_EQ_INT(rq_send(&q), EBADF);
    CHECK_EQ_INT(rq_release(&q, d, handle), 0);
    rq_transfer(&q, CCI_FUSE_READ, f, handle, 0, 100); /* that was not his to release */
    CHECK_EQ_INT(rq_send(&q), 0);
    CHECK_EQ_INT(q.reply_n, 5);
    CHECK_EQ_INT(rq_release(&q, f, handle), 0);
    CHECK_EQ_INT(rq_release(&q, f, handle), 0); /* twice does nothing */
    rq_transfer(&q, CCI_FUSE_READ, f, handle, 0, 100);
    CHECK_EQ_INT(rq_send(&q), EBADF);
    rq_forget(&q, f, 1000); /* more often than it was told of */
    CHECK_EQ_INT(rq_getattr(&q, f), ESTALE);
    uint64_t anew = rq_lookup(&q, 1, "f");
    CHECK(anew != 0 && anew != f); /* a number is not used twice */
    rq_forget(&q, 1, UINT64_MAX);
    CHECK_EQ_INT(rq_getattr(&q, 1), 0);
    end_share();
}

static void test_lengths(void)
{
    uint64_t handle;
    begin_share(true);
    uint64_t f = rq_lookup(&q, 1, "f");
    CHECK_EQ_INT(rq_open_file(&q, f, 2, &handle), 0);
    for (uint32_t op = 0; op < 70; op++) /* every request cut short at every length, with every little room */
        for (unsigned n = 0; n < 100; n += 3) {
            if (op == CCI_FUSE_DESTROY || op == CCI_FUSE_INIT)
                continue;
            rq_begin(&q, op, 1);
            for (unsigned i = 0; i < n; i++)
                rq_bytes(&q, "", 1);
            q.room = n;
            q.piece = n % 7;
            (void)rq_send(&q);
        }
    for (unsigned n = 0; n < 40; n++) { /* not even a header */
        rq_begin(&q, CCI_FUSE_GETATTR, 1);
        q.n = n;
        CHECK_EQ_INT(rq_send(&q), -1);
    }
    q.piece = 0;
    rq_transfer(&q, CCI_FUSE_WRITE, f, handle, 0, 1000); /* more than there is */
    rq_bytes(&q, "short", 5);
    CHECK_EQ_INT(rq_send(&q), EINVAL);
    rq_transfer(&q, CCI_FUSE_WRITE, f, handle, UINT64_MAX - 2, 5);
    rq_bytes(&q, "short", 5);
    CHECK_EQ_INT(rq_send(&q), EINVAL);
    rq_transfer(&q, CCI_FUSE_READ, f, handle, 0, UINT32_MAX);
    q.room = 18;
    CHECK_EQ_INT(rq_send(&q), 0);
    CHECK_EQ_INT(q.reply_n, 2);
    rq_begin(&q, CCI_FUSE_SETXATTR, f);
    rq_u32(&q, UINT32_MAX);
    rq_u32(&q, 0);
    rq_str(&q, "user.x");
    CHECK_EQ_INT(rq_send(&q), E2BIG);
    rq_begin(&q, CCI_FUSE_BATCH_FORGET, 0);
    rq_u32(&q, UINT32_MAX); /* counts are not believed */
    rq_u32(&q, 0);
    CHECK_EQ_INT(rq_send(&q), -1);
    end_share();
}

/* Before INIT, after DESTROY, and INIT again. */
static void test_order(void)
{
    uint64_t handle;
    begin_share(true);
    unsigned before = open_fds();
    uint64_t f = rq_lookup(&q, 1, "f");
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), 0);
    rq_begin(&q, CCI_FUSE_DESTROY, 0);
    CHECK_EQ_INT(rq_send(&q), 0);
    CHECK_EQ_INT(open_fds(), before);
    CHECK_EQ_INT(rq_getattr(&q, 1), EIO);
    CHECK_EQ_INT(rq_init(&q), 0);
    CHECK_EQ_INT(rq_getattr(&q, f), ESTALE);
    rq_transfer(&q, CCI_FUSE_READ, f, handle, 0, 100);
    CHECK_EQ_INT(rq_send(&q), EBADF);
    CHECK(rq_lookup(&q, 1, "f") != 0);
    rq_begin(&q, CCI_FUSE_INIT, 0); /* a client that is too old */
    rq_u32(&q, 7);
    rq_u32(&q, 30);
    rq_u64(&q, 0);
    CHECK_EQ_INT(rq_send(&q), EPROTO);
    for (uint32_t op = 0; op < 80; op++) { /* what is not known */
        if (op < CCI_FUSE_OPCODES && cci_share_ops[op].fn)
            continue;
        rq_begin(&q, op, 1);
        CHECK_EQ_INT(rq_send(&q), op == CCI_FUSE_INTERRUPT ? -1 : ENOSYS);
    }
    end_share();
}

static void test_read_only(void)
{
    uint64_t handle;
    begin_share(false);
    uint64_t f = rq_lookup(&q, 1, "f");
    for (uint32_t op = 0; op < CCI_FUSE_OPCODES; op++) {
        if (!cci_share_ops[op].changes)
            continue;
        rq_begin(&q, op, op == CCI_FUSE_SETATTR ? f : 1);
        for (unsigned i = 0; i < cci_share_ops[op].args; i++)
            rq_bytes(&q, "\1", 1);
        rq_str(&q, "f");
        rq_str(&q, "g");
        CHECK_EQ_INT(rq_send(&q), EROFS);
    }
    CHECK_EQ_INT(rq_open_file(&q, f, 1, &handle), EROFS);
    CHECK_EQ_INT(rq_open_file(&q, f, 2, &handle), EROFS);
    CHECK_EQ_INT(rq_open_file(&q, f, 01000, &handle), EROFS);
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), 0);
    end_share();
}

/* ---- Bounds ---------------------------------------------------------------------------------------------------------
 */

/* Many files with few descriptors; each can still be used, and deep directories too. */
static void test_few_descriptors(void)
{
    enum { FILES = 5000, DEEP = 300 };
    static uint64_t nodes[FILES];
    char name[40];
    struct rlimit old, few = {256, 256};
    CHECK_EQ_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
    few.rlim_max = old.rlim_max;
    CHECK_EQ_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
    begin_share(true);
    host("cd tree && mkdir m && cd m && seq -f n%.0f 0 4999 | xargs touch");
    uint64_t m = rq_lookup(&q, 1, "m"), handle, handles[400];
    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof(name), "n%u", i);
        nodes[i] = rq_lookup(&q, m, name);
        CHECK(nodes[i] != 0 && rq_getattr(&q, nodes[i]) == 0);
    }
    CHECK(open_fds() < 150);
    for (unsigned i = 0; i < FILES; i += 97) {
        CHECK_EQ_INT(rq_open_file(&q, nodes[i], 2, &handle), 0);
        CHECK_EQ_INT(rq_release(&q, nodes[i], handle), 0);
    }
    unsigned opened = 0; /* open files come to an end, with a clear error; and everything else goes on */
    while (opened < 400 && rq_open_file(&q, nodes[opened], 0, &handles[opened]) == 0)
        opened++;
    CHECK_EQ_INT(q.error, ENFILE);
    CHECK(opened >= 100);
    CHECK(rq_lookup(&q, 1, "d") != 0 && rq_getattr(&q, nodes[FILES - 1]) == 0);
    for (unsigned i = 0; i < opened; i++)
        CHECK_EQ_INT(rq_release(&q, nodes[i], handles[i]), 0);
    uint64_t dir[DEEP] = {1};
    for (unsigned i = 1; i < DEEP; i++) {
        rq_begin(&q, CCI_FUSE_MKDIR, dir[i - 1]);
        rq_u32(&q, 0755);
        rq_u32(&q, 0);
        rq_str(&q, "deep");
        CHECK_EQ_INT(rq_send(&q), 0);
        dir[i] = cci_le64(q.reply);
    }
    for (unsigned i = 0; i < FILES; i += 11) /* takes all descriptors */
        CHECK_EQ_INT(rq_getattr(&q, nodes[i]), 0);
    CHECK_EQ_INT(rq_getattr(&q, dir[DEEP - 1]), 0);
    for (unsigned i = 0; i < FILES; i++) { /* removed files that the guest does not forget */
        (void)snprintf(name, sizeof(name), "n%u", i);
        rq_begin(&q, CCI_FUSE_UNLINK, m);
        rq_str(&q, name);
        CHECK_EQ_INT(rq_send(&q), 0);
    }
    CHECK(open_fds() < 150);
    CHECK(rq_lookup(&q, 1, "f") != 0);
    end_share();
    CHECK_EQ_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/* ---- The host moves things about
 * ------------------------------------------------------------------------------------- */

static void test_host_changes(void)
{
    uint64_t handle;
    begin_share(true);
    host("echo x >tree/d/x");
    uint64_t d = rq_lookup(&q, 1, "d"), x = rq_lookup(&q, d, "x"), f = rq_lookup(&q, 1, "f");
    host("mv tree/d tree/e && mkdir tree/d && echo other >tree/d/x"); /* another of the same name */
    CHECK_EQ_INT(rq_open_file(&q, x, 0, &handle), 0); /* the directory that the guest knows has moved, with x */
    uint64_t e = rq_lookup(&q, 1, "e");
    CHECK_EQ_INT(e, d);
    CHECK_EQ_INT(rq_lookup(&q, e, "x"), x);
    CHECK_EQ_INT(rq_open_file(&q, x, 0, &handle), 0);
    CHECK_EQ_INT(rq_getattr(&q, f), 0); /* has a descriptor from now on */
    host("echo replaced >tree/f.new && mv tree/f.new tree/f");
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), ESTALE);
    f = rq_lookup(&q, 1, "f");
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), 0);
    host("echo longer than before >tree/f"); /* has another size than the guest was told */
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), ESTALE);
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), 0);
    CHECK_EQ_INT(cci_le32(q.reply + 8), 0);
    CHECK_EQ_INT(rq_open_file(&q, f, 0, &handle), 0);
    CHECK_EQ_INT(cci_le32(q.reply + 8), CCI_FUSE_KEEP_CACHE);
    /* Parents in a circle: b goes below d, then d below b. */
    host("mkdir tree/b");
    uint64_t b = rq_lookup(&q, 1, "b");
    d = rq_lookup(&q, 1, "d");
    host("mv tree/b tree/d/b");
    CHECK_EQ_INT(rq_lookup(&q, d, "b"), b);
    host("mv tree/d/b tree/b && mv tree/d tree/b/d");
    rq_begin(&q, CCI_FUSE_LOOKUP, b);
    rq_str(&q, "d");
    (void)rq_send(&q);
    for (unsigned i = 0; i < 100; i++)
        (void)rq_getattr(&q, i & 1 ? b : d);
    end_share();
}

struct racer {
    bool stop;
    char at[80];
};

static void *race(void *ctx)
{
    struct racer *r = ctx;
    char a[100], b[100], c[100];
    (void)snprintf(a, sizeof(a), "%s/tree/d", r->at);
    (void)snprintf(b, sizeof(b), "%s/tree/link", r->at);
    (void)snprintf(c, sizeof(c), "%s/tree/real", r->at);
    while (!__atomic_load_n(&r->stop, __ATOMIC_SEQ_CST)) {
        (void)rename(a, c); /* a directory, and then a link out of the tree */
        (void)rename(b, a);
        (void)rename(a, b);
        (void)rename(c, a);
    }
    return NULL;
}

/* While "d" is now a directory and now a link to the directory outside, nothing outside is ever reached. */
static void test_symlink_race(void)
{
    struct racer r = {false, ""};
    pthread_t t;
    begin_share(true);
    host("ln -s .. tree/link && echo inside >tree/d/secret");
    (void)snprintf(r.at, sizeof(r.at), "%s", base);
    CHECK_EQ_INT(pthread_create(&t, NULL, race, &r), 0);
    unsigned read = 0;
    for (unsigned i = 0; i < 1500; i++) {
        uint64_t handle, d = rq_lookup(&q, 1, "d"), f = d ? rq_lookup(&q, d, "secret") : 0;
        if (f && rq_open_file(&q, f, 0, &handle) == 0) {
            rq_transfer(&q, CCI_FUSE_READ, f, handle, 0, 100);
            CHECK_EQ_INT(rq_send(&q), 0);
            CHECK(q.reply_n == 7 && memcmp(q.reply, "inside\n", 7) == 0);
            CHECK_EQ_INT(rq_release(&q, f, handle), 0);
            read++;
        }
        if (d) {
            rq_begin(&q, CCI_FUSE_MKDIR, d);
            rq_u64(&q, 0755);
            rq_str(&q, "made");
            (void)rq_send(&q);
        }
        if (i % 3 == 0) {
            rq_begin(&q, CCI_FUSE_DESTROY, 0);
            (void)rq_send(&q);
            CHECK_EQ_INT(rq_init(&q), 0);
        }
    }
    __atomic_store_n(&r.stop, true, __ATOMIC_SEQ_CST);
    CHECK_EQ_INT(pthread_join(t, NULL), 0);
    CHECK(read > 0);
    end_share();
}

/* ---- Several threads, and too little memory
 * ----------------------------------------------------------------------------- */

static void *busy(void *ctx)
{
    struct rq *mine = malloc(sizeof(*mine));
    unsigned seed = (unsigned)(uintptr_t)ctx;
    char name[20];
    *mine = q;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t handle;
        seed = seed * 1103515245u + 12345u;
        (void)snprintf(name, sizeof(name), "s%u", seed >> 16 & 7);
        switch (seed >> 20 & 7) {
        case 0:
            rq_begin(mine, CCI_FUSE_UNLINK, 1);
            rq_str(mine, name);
            (void)rq_send(mine);
            break;
        case 1:
            rq_begin(mine, CCI_FUSE_RENAME, 1);
            rq_u64(mine, 1);
            rq_str(mine, name);
            rq_str(mine, "s3");
            (void)rq_send(mine);
            break;
        case 2:
            if (i % 100 == 0) { /* everything is gone for everybody */
                rq_begin(mine, CCI_FUSE_DESTROY, 0);
                (void)rq_send(mine);
                (void)rq_init(mine);
            }
            break;
        default: {
            rq_begin(mine, CCI_FUSE_CREATE, 1);
            rq_u32(mine, 0102);
            rq_u32(mine, 0644);
            rq_u64(mine, 0);
            rq_str(mine, name);
            if (rq_send(mine) != 0)
                break;
            uint64_t node = cci_le64(mine->reply);
            handle = cci_le64(mine->reply + CCI_FUSE_ENTRY_SIZE);
            rq_transfer(mine, CCI_FUSE_WRITE, node, handle, 0, 4);
            rq_bytes(mine, "data", 4);
            (void)rq_send(mine);
            (void)rq_getattr(mine, node);
            (void)rq_release(mine, node, handle);
            rq_forget(mine, node, 1);
        }
        }
    }
    free(mine);
    return NULL;
}

static void test_threads(void)
{
    pthread_t t[4];
    begin_share(true);
    for (uintptr_t i = 0; i < 4; i++)
        CHECK_EQ_INT(pthread_create(&t[i], NULL, busy, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ_INT(pthread_join(t[i], NULL), 0);
    end_share();
}

static unsigned until_failure;

static void *failing(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(old);
        return NULL;
    }
    if (until_failure && --until_failure == 0)
        return NULL;
    return realloc(old, size);
}

/* One session that has something of everything. */
static void session(const char *tree)
{
    struct rq *s = malloc(sizeof(*s));
    uint64_t handle;
    if (rq_open(s, tree, true)) {
        uint64_t d = rq_lookup(s, 1, "d"), f = rq_lookup(s, 1, "f");
        (void)rq_getattr(s, f);
        (void)rq_open_file(s, f, 2, &handle);
        rq_begin(s, CCI_FUSE_CREATE, d);
        rq_u32(s, 0102);
        rq_u32(s, 0644);
        rq_u64(s, 0);
        rq_str(s, "new");
        (void)rq_send(s);
        rq_begin(s, CCI_FUSE_RENAME, d);
        rq_u64(s, 1);
        rq_str(s, "new");
        rq_str(s, "moved");
        (void)rq_send(s);
        rq_begin(s, CCI_FUSE_SETXATTR, f);
        rq_u32(s, 1);
        rq_u32(s, 0);
        rq_str(s, "user.x");
        rq_bytes(s, "y", 1);
        (void)rq_send(s);
        rq_begin(s, CCI_FUSE_LISTXATTR, f);
        rq_u64(s, 1000);
        (void)rq_send(s);
        rq_begin(s, CCI_FUSE_OPENDIR, 1);
        rq_u64(s, 0);
        if (rq_send(s) == 0) {
            rq_transfer(s, CCI_FUSE_READDIRPLUS, 1, cci_le64(s->reply), 0, 4096);
            (void)rq_send(s);
        }
        rq_begin(s, CCI_FUSE_UNLINK, 1);
        rq_str(s, "moved");
        (void)rq_send(s);
        rq_begin(s, CCI_FUSE_UNLINK, d);
        rq_str(s, "new");
        (void)rq_send(s);
    }
    cci_share_free(s->share);
    free(s);
}

static void test_no_memory(void)
{
    char tree[80];
    begin_share(true);
    (void)snprintf(tree, sizeof(tree), "%s/tree", base);
    unsigned before = open_fds(), n = 1;
    cci_mem_hook.realloc_fn = failing;
    for (until_failure = n; n < 500; until_failure = ++n) {
        session(tree);
        CHECK_EQ_INT(open_fds(), before);
        if (until_failure)
            break; /* it was not reached any more */
    }
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(n > 10 && n < 500);
    end_share();
}

/* Trees that no path reaches to the bottom of are removed, also where access is denied. */
static void test_remove_tree(void)
{
    begin_share(true);
    uint64_t dir = 1;
    for (unsigned i = 0; i < 1500; i++) {
        rq_begin(&q, CCI_FUSE_MKDIR, dir);
        rq_u32(&q, i % 7 ? 0755 : 0);
        rq_u32(&q, 0);
        rq_str(&q, "moved-up-1");
        CHECK_EQ_INT(rq_send(&q), 0);
        dir = cci_le64(q.reply);
        rq_begin(&q, CCI_FUSE_SYMLINK, dir);
        rq_str(&q, "l");
        rq_str(&q, "/");
        CHECK_EQ_INT(rq_send(&q), 0);
    }
    end_share();
}

int main(void)
{
    RUN(test_names);
    RUN(test_special_files);
    RUN(test_numbers);
    RUN(test_lengths);
    RUN(test_order);
    RUN(test_read_only);
    RUN(test_few_descriptors);
    RUN(test_host_changes);
    RUN(test_symlink_race);
    RUN(test_threads);
    RUN(test_no_memory);
    RUN(test_remove_tree);
    return check_done();
}
