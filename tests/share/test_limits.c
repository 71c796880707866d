// @sanitize address,undefined
/*
 * What a guest may cost and spoil: set-id programs of the host, names left behind by a failure, memory and descriptors.
 *
 * @root
 */
#define _GNU_SOURCE
#include "requests.h"

#include <sys/stat.h>
#include <unistd.h>

#include "../check.h"
#include "../scratch.h"

static char base[64];
static struct rq q;

static const char *in(const char *name)
{
    static char text[100];
    (void)snprintf(text, sizeof(text), "%s/%s", base, name);
    return text;
}

static void make(const char *name, unsigned mode)
{
    FILE *f = fopen(in(name), "w");
    CHECK(f && fputs("text", f) >= 0 && fclose(f) == 0);
    CHECK_EQ_INT(chmod(in(name), mode), 0);
}

static unsigned mode_of(const char *name)
{
    struct stat st;
    return stat(in(name), &st) ? 0 : st.st_mode & 07777u;
}

static void begin(struct cci_share_config config)
{
    scratch_make(base, sizeof(base), "share");
    config.host_path = base;
    config.writable = true;
    memset(&q, 0, sizeof(q));
    CHECK_EQ_INT(cci_share_new(&config, &q.share, NULL), CC_OK);
    CHECK_EQ_INT(rq_init(&q), 0);
}

static void end(void)
{
    cci_share_free(q.share);
    CHECK_EQ_INT(cci_remove_tree(base), 0);
}

static int set_size(uint64_t node, uint64_t size)
{
    static const uint8_t rest[88 - 24] = {0};
    rq_begin(&q, CCI_FUSE_SETATTR, node);
    rq_u64(&q, CCI_FUSE_SET_SIZE);
    rq_u64(&q, 0);
    rq_u64(&q, size);
    rq_bytes(&q, rest, sizeof(rest));
    return rq_send(&q);
}

/* A guest whose owners are not the host's must not put its own code into a program that runs as somebody else, even if
 * this process is root and the host's kernel would let the bits stand. */
static void test_set_id_programs(void)
{
    uint64_t handle = 0;
    begin((struct cci_share_config){.writable = true});
    make("opened", 04755);
    make("group", 02755);
    make("cut", 06755);
    make("read", 04755);
    uint64_t node = rq_lookup(&q, 1, "opened");
    CHECK_EQ_INT(rq_open_file(&q, node, 2, &handle), 0);
    rq_transfer(&q, CCI_FUSE_WRITE, node, handle, 0, 4);
    rq_bytes(&q, "code", 4);
    CHECK_EQ_INT(rq_send(&q), 0);
    CHECK_EQ_INT((int)mode_of("opened"), 0755);
    node = rq_lookup(&q, 1, "group");
    CHECK_EQ_INT(rq_open_file(&q, node, 01000 /* O_TRUNC */, &handle), 0);
    CHECK_EQ_INT((int)mode_of("group"), 0755);
    CHECK_EQ_INT(set_size(rq_lookup(&q, 1, "cut"), 2), 0);
    CHECK_EQ_INT((int)mode_of("cut"), 0755);
    CHECK_EQ_INT(rq_open_file(&q, rq_lookup(&q, 1, "read"), 0, &handle), 0);
    CHECK_EQ_INT((int)mode_of("read"), 04755);
    end();
}

/* With owners the same on both sides the guest's kernel says when the bits are to go: root keeps them. */
static void test_set_id_kept(void)
{
    uint64_t handle = 0;
    begin((struct cci_share_config){.identity = true});
    make("f", 04755);
    uint64_t node = rq_lookup(&q, 1, "f");
    CHECK_EQ_INT(rq_open_file(&q, node, 2, &handle), 0);
    CHECK_EQ_INT(set_size(node, 2), 0);
    CHECK_EQ_INT((int)mode_of("f"), 04755);
    end();
}

static int create(uint32_t opcode, const char *name)
{
    rq_begin(&q, opcode, 1);
    rq_u32(&q, 2);
    rq_u32(&q, 0644);
    rq_u32(&q, 0);
    rq_u32(&q, 0);
    rq_str(&q, name);
    return rq_send(&q);
}

/* A file that cannot be opened is not made. */
static void test_no_handle_left(void)
{
    begin((struct cci_share_config){.writable = true});
    q.share->handle_max = 2;
    CHECK_EQ_INT(create(CCI_FUSE_CREATE, "a"), 0);
    CHECK_EQ_INT(create(CCI_FUSE_CREATE, "b"), 0);
    CHECK_EQ_INT(create(CCI_FUSE_CREATE, "c"), ENFILE);
    CHECK(access(in("c"), F_OK) != 0);
    CHECK_EQ_INT(create(CCI_FUSE_TMPFILE, ""), ENFILE);
    /* One that fails otherwise gives its handle back. */
    q.share->handle_max = 3;
    for (int i = 0; i < 4; i++) {
        CHECK_EQ_INT(create(CCI_FUSE_CREATE, "missing/c"), EINVAL);
        rq_begin(&q, CCI_FUSE_CREATE, 1);
        rq_u32(&q, 2 | 0200 /* O_EXCL */);
        rq_u32(&q, 0644);
        rq_u64(&q, 0);
        rq_str(&q, "a");
        CHECK_EQ_INT(rq_send(&q), EEXIST);
    }
    CHECK_EQ_INT(create(CCI_FUSE_CREATE, "c"), 0);
    end();
}

/* The guest knows no more files than it is allowed to, and can go on when it has forgotten some. */
static void test_too_many_files(void)
{
    char name[20];
    uint64_t node = 0;
    begin((struct cci_share_config){.nodes_max = 100});
    for (int i = 0; i < 120; i++) {
        (void)snprintf(name, sizeof(name), "f%d", i);
        make(name, 0644);
    }
    int known = 0;
    for (int i = 0; i < 120; i++) {
        (void)snprintf(name, sizeof(name), "f%d", i);
        uint64_t n = rq_lookup(&q, 1, name);
        CHECK(n || q.error == ENOMEM);
        known += n != 0;
        node = n ? n : node;
    }
    CHECK(known >= 90 && known < 100);
    rq_forget(&q, node, 1);
    CHECK(rq_lookup(&q, 1, "f119") != 0);
    end();
}

/* Several shares of one process divide its descriptors among them. */
static void test_descriptors(void)
{
    begin((struct cci_share_config){.shares = 1});
    const uint32_t one = q.share->handle_max + q.share->fds_max;
    end();
    begin((struct cci_share_config){.shares = 8});
    const uint32_t eighth = q.share->handle_max + q.share->fds_max;
    CHECK(one <= cci_os_descriptor_limit() * 3 / 4);
    CHECK(eighth <= CCI_MAX(cci_os_descriptor_limit() * 3 / 32 + 1, 32) && eighth >= 32);
    end();
}

/* A list of files to forget that is longer than any request of a kernel: gigabytes of the same page, say. */
static void test_endless_forget(void)
{
    static uint8_t page[65536], head[CCI_FUSE_IN_HEADER + 8];
    static struct cci_iovec v[4001];
    begin((struct cci_share_config){.writable = true});
    make("f", 0644);
    uint64_t node = rq_lookup(&q, 1, "f");
    CHECK(node != 0);
    cci_put_le32(head + 4, CCI_FUSE_BATCH_FORGET);
    cci_put_le32(head + CCI_FUSE_IN_HEADER, UINT32_MAX);
    v[0] = (struct cci_iovec){head, sizeof(head)};
    for (unsigned i = 1; i < 4001; i++)
        v[i] = (struct cci_iovec){page, sizeof(page)};
    /* The last entry is one that counts; it is too far back to be looked at. */
    static uint8_t last[16];
    cci_put_le64(last, node);
    cci_put_le64(last + 8, 1);
    v[4000] = (struct cci_iovec){last, sizeof(last)};
    const size_t n = sizeof(head) + 3999 * sizeof(page) + sizeof(last);
    CHECK_EQ_INT(
        (long long)cci_share_request(q.share, (struct cci_iov){v, 4001, 0}, n, (struct cci_iov){NULL, 0, 0}, 0, NULL),
        0);
    CHECK_EQ_INT(rq_getattr(&q, node), 0);
    end();
}

int main(void)
{
    RUN(test_set_id_programs);
    RUN(test_set_id_kept);
    RUN(test_no_handle_left);
    RUN(test_too_many_files);
    RUN(test_descriptors);
    RUN(test_endless_forget);
    return check_done();
}
