/* The closure of modules: order, soft dependencies, built-in ones, damage, and out of memory at each allocation. */
#include "../check.h"

#include "../../src/machine/modules.h"

static const char dep[] = "kernel/fs/overlayfs/overlay.ko:\n"
                          "kernel/drivers/virtio/virtio.ko:\n"
                          "kernel/drivers/virtio/virtio_ring.ko:\n"
                          "kernel/drivers/virtio/virtio_mmio.ko.gz: kernel/drivers/virtio/virtio.ko "
                          "kernel/drivers/virtio/virtio_ring.ko\n"
                          "kernel/net/vsock.ko.zst:\n"
                          "kernel/net/common.ko: kernel/net/vsock.ko.zst\n"
                          "kernel/net/vmw_vsock_virtio_transport.ko: kernel/net/common.ko kernel/net/vsock.ko.zst "
                          "kernel/drivers/virtio/virtio.ko\n"
                          "kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko\n"
                          "kernel/soft/main.ko:\n"
                          "kernel/soft/before.ko: kernel/soft/deeper.ko\n"
                          "kernel/soft/deeper.ko:\n"
                          "kernel/soft/after.ko:\n"
                          "kernel/bad/lost.ko: kernel/bad/nowhere.ko\n"
                          "kernel/bad/a.ko: kernel/bad/b.ko\n"
                          "kernel/bad/b.ko: kernel/bad/a.ko\n";
static const char soft[] = "# comment\n"
                           "softdep main pre: before unknown_alias post: after\n"
                           "softdep after pre: main\n"
                           "softdep unrelated pre: overlay\n";
static const char builtin[] = "kernel/fs/ext4/ext4.ko\nkernel/drivers/block/virtio_blk.ko\n";

static struct cci_modules m;
static cc_error err;

static void begin(void)
{
    cci_error_release(&err);
    CHECK_EQ_INT(cci_modules_init(&m, cci_modules_str(dep), cci_modules_str(soft), cci_modules_str(builtin), &err),
                 CC_OK);
}

/* The order as one string of names. */
static const char *order(void)
{
    static char text[1000];
    text[0] = '\0';
    for (size_t i = 0; i < m.count; i++) {
        struct cci_modules_text n = cci_modules_name(m.line[m.order[i]].path);
        size_t at = strlen(text);
        (void)snprintf(text + at, sizeof(text) - at, "%s%.*s", at ? " " : "", (int)n.n, n.p);
    }
    return text;
}

static void test_order(void)
{
    begin();
    CHECK_EQ_INT(cci_modules_want(&m, "virtio_mmio", true, &err), CC_OK);
    CHECK_EQ_INT(cci_modules_want(&m, "virtio_blk", true, &err), CC_OK); /* built in */
    CHECK_EQ_INT(cci_modules_want(&m, "vmw-vsock-virtio-transport", true, &err), CC_OK);
    CHECK_EQ_INT(cci_modules_want(&m, "ext4", true, &err), CC_OK);
    CHECK_EQ_INT(cci_modules_want(&m, "virtio_rng", false, &err), CC_OK);
    CHECK_EQ_INT(cci_modules_want(&m, "virtio_balloon", false, &err), CC_OK); /* not there, not needed */
    CHECK_EQ_INT(cci_modules_want(&m, "virtio_mmio", true, &err), CC_OK);     /* again */
    CHECK_EQ_STR(order(), "virtio virtio_ring virtio_mmio vsock common vmw_vsock_virtio_transport virtio-rng");
    cci_modules_free(&m);
}

static void test_soft(void)
{
    begin();
    CHECK_EQ_INT(cci_modules_want(&m, "main", true, &err), CC_OK);
    CHECK_EQ_STR(order(), "deeper before main after");
    cci_modules_free(&m);
}

static void test_errors(void)
{
    begin();
    CHECK_EQ_INT(cci_modules_want(&m, "virtio_gone", true, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "virtio_gone"));
    CHECK_EQ_INT(cci_modules_want(&m, "lost", true, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "nowhere.ko") && strstr(err.message, "depmod"));
    CHECK_EQ_INT(cci_modules_want(&m, "a", true, &err), CC_OK); /* a circle ends */
    CHECK_EQ_STR(order(), "b a");
    cci_modules_free(&m);
    cci_error_release(&err);
}

static void test_deep(void)
{
    static char text[20000];
    size_t n = 0;
    for (unsigned i = 0; i < 200; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "m%u.ko: m%u.ko\n", i, i + 1);
    n += (size_t)snprintf(text + n, sizeof(text) - n, "m200.ko:\n");
    struct cci_modules_text none = {NULL, 0};
    CHECK_EQ_INT(cci_modules_init(&m, cci_modules_str(text), none, none, &err), CC_OK);
    CHECK_EQ_INT(cci_modules_want(&m, "m0", true, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "too deeply"));
    cci_modules_free(&m);
    cci_error_release(&err);
}

/* Each dependency costs a look through the whole file, so a line with millions of them is not followed to its end. */
static void test_many(void)
{
    enum { WORDS = 2 << 20 };
    char *text = malloc(7 + WORDS * 2);
    memcpy(text, "a.ko:\nb:", 8);
    for (unsigned i = 0; i < WORDS - 1; i++)
        memcpy(text + 8 + i * 2, " a", 2);
    struct cci_modules_text none = {NULL, 0}, all = {text, 8 + (WORDS - 1) * 2};
    CHECK_EQ_INT(cci_modules_init(&m, all, none, none, &err), CC_OK);
    CHECK_EQ_INT(cci_modules_want(&m, "b", true, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "too many dependencies"));
    cci_modules_free(&m);
    memcpy(text, "softdep b pre: ", 15);
    for (unsigned i = 0; i < WORDS / 2; i++)
        memcpy(text + 15 + i * 2, "a ", 2);
    all.n = 15 + WORDS;
    CHECK_EQ_INT(cci_modules_init(&m, cci_modules_str("b:\na:\n"), all, none, &err), CC_OK);
    CHECK_EQ_INT(cci_modules_want(&m, "b", true, &err), CC_ERR_IO);
    cci_modules_free(&m);
    cci_error_release(&err);
    free(text);
}

static void test_damaged(void)
{
    static const char *const bad[] = {"", "\n\n\n", ":", "a.ko", "a.ko:", ": b.ko\n", "   \n", "a.ko:    \n/.ko:\n"};
    struct cci_modules_text none = {NULL, 0};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_EQ_INT(cci_modules_init(&m, cci_modules_str(bad[i]),
                                      cci_modules_str("softdep\nsoftdep a\nsoftdep a pre:"), none, &err),
                     CC_OK);
        (void)cci_modules_want(&m, "a", true, &err);
        (void)cci_modules_want(&m, "", true, &err);
        cci_modules_free(&m);
        cci_error_release(&err);
    }
}

static unsigned fail_at;

static void *failing(void *ctx, void *old, size_t size)
{
    if (size && fail_at && --fail_at == 0)
        return NULL;
    return cci_mem_default_alloc(ctx, old, size);
}

static void test_no_memory(void)
{
    cci_mem_hook.realloc_fn = failing;
    struct cci_modules_text none = {NULL, 0};
    unsigned n = 0;
    for (bool done = false; !done && n < 100; n++) {
        fail_at = n + 1;
        done = cci_modules_init(&m, cci_modules_str(dep), none, none, &err) == CC_OK;
        cci_modules_free(&m);
        cci_error_release(&err);
    }
    fail_at = 0;
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(n >= 3);
}

int main(void)
{
    RUN(test_order);
    RUN(test_soft);
    RUN(test_errors);
    RUN(test_deep);
    RUN(test_many);
    RUN(test_damaged);
    RUN(test_no_memory);
    return check_done();
}
