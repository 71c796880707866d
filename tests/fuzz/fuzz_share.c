/*
 * Requests of a hostile guest to the FUSE server: a few on one small tree. A request is five bytes (operation, which
 * node, which handle, how the memory is cut, how many bytes of arguments follow) and arguments, in which the handle
 * takes the first eight bytes if they are there. Nothing outside the tree may change.
 */
#define _GNU_SOURCE
#include "../share/requests.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KNOWN = 16 };

static char base[64], tree[80], outside[80];
static struct rq q;

/* What LOOKUP and others told: the latest few. */
struct known {
    uint64_t at[KNOWN];
    unsigned next;
};

static void remember(struct known *k, uint64_t number)
{
    k->at[k->next++ % KNOWN] = number;
}

static void make(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        abort();
    close(fd);
}

static void make_tree(void)
{
    if (mkdir(tree, 0755) || chdir(tree) || mkdir("d", 0755) || symlink("../secret", "l") || mkfifo("p", 0600))
        abort();
    make("f", "some text in a file");
    make("d/g", "x");
}

/* "secret" is as it was, and nothing stands beside it. */
static void check_outside(void)
{
    char text[16] = "";
    unsigned names = 0;
    int fd = open(outside, O_RDONLY);
    DIR *d = opendir(base);
    if (fd < 0 || read(fd, text, sizeof(text)) != 6 || memcmp(text, "secret", 6) != 0 || !d)
        abort();
    close(fd);
    while (readdir(d))
        names++;
    closedir(d);
    if (names != 4)
        abort();
}

static void clean(void)
{
    (void)cci_remove_tree(base);
}

static void begin(void)
{
    const struct rlimit small = {1 << 20, 1 << 20};
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)setrlimit(RLIMIT_FSIZE, &small);
    (void)snprintf(base, sizeof(base), "%s/cc-fuzz-share-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(base))
        abort();
    (void)atexit(clean);
    (void)snprintf(tree, sizeof(tree), "%s/tree", base);
    (void)snprintf(outside, sizeof(outside), "%s/secret", base);
    make(outside, "secret");
}

static void one_request(const uint8_t *head, const uint8_t *args, size_t n, struct known *nodes, struct known *handles)
{
    uint8_t number[8];
    const uint32_t opcode = head[0] % (CCI_FUSE_OPCODES + 4);
    rq_begin(&q, opcode, nodes->at[head[1] % KNOWN]);
    q.piece = head[3] & 15;
    q.room = head[3] & 128 ? head[3] & 127 : 5000;
    if (head[2] & 128 && n >= 8) {
        cci_put_le64(number, handles->at[head[2] % KNOWN]);
        rq_bytes(&q, number, 8);
        args += 8;
        n -= 8;
    } else if (head[2] & 64 && n >= 8) { /* LINK and RENAME name another node there */
        cci_put_le64(number, nodes->at[head[2] % KNOWN]);
        rq_bytes(&q, number, 8);
        args += 8;
        n -= 8;
    }
    rq_bytes(&q, args, n);
    if (rq_send(&q) != 0)
        return;
    if (q.reply_n >= CCI_FUSE_ENTRY_SIZE && opcode != CCI_FUSE_READ)
        remember(nodes, cci_le64(q.reply));
    if (opcode == CCI_FUSE_OPEN || opcode == CCI_FUSE_OPENDIR)
        remember(handles, cci_le64(q.reply));
    if (opcode == CCI_FUSE_CREATE || opcode == CCI_FUSE_TMPFILE)
        remember(handles, cci_le64(q.reply + CCI_FUSE_ENTRY_SIZE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct known nodes = {{1, 1}, 2}, handles = {{0}, 0};
    static uint64_t f;
    if (!base[0])
        begin();
    make_tree();
    if (!rq_open(&q, tree, size ? !(data[0] & 1) : true))
        abort();
    const uint8_t *at = data + (size ? 1 : 0), *end = data + size;
    remember(&nodes, rq_lookup(&q, 1, "f"));
    remember(&nodes, rq_lookup(&q, 1, "d"));
    remember(&nodes, rq_lookup(&q, 1, "l"));
    remember(&nodes, rq_lookup(&q, 1, "p"));
    if (rq_open_file(&q, nodes.at[2], 2, &f) == 0)
        remember(&handles, f);
    while (end - at >= 5) {
        const uint8_t *head = at;
        const size_t n = CCI_MIN((size_t)head[4], (size_t)(end - at - 5));
        one_request(head, at + 5, n, &nodes, &handles);
        at += 5 + n;
    }
    cci_share_free(q.share);
    (void)chdir("/");
    check_outside();
    if (cci_remove_tree(tree) != 0)
        abort();
    return 0;
}
