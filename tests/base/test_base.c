/* Bytes, buffers, errors and the error words. */
#include "../../src/base/bytes.h"
#include "../../src/base/errno_text.h"
#include "../../src/base/error.h"
#include "../check.h"

static void test_integers(void)
{
    uint8_t b[8];
    cci_put_le64(b, 0x0102030405060708u);
    CHECK(b[0] == 8 && b[7] == 1);
    CHECK(cci_le64(b) == 0x0102030405060708u && cci_le32(b) == 0x05060708u && cci_le16(b) == 0x0708u);
    cci_put_be32(b, 0xa1b2c3d4u);
    CHECK(b[0] == 0xa1 && b[3] == 0xd4 && cci_be32(b) == 0xa1b2c3d4u);
    cci_put_le16(b, 0xffee);
    CHECK(b[0] == 0xee && b[1] == 0xff);
}

static void test_views_never_run_over(void)
{
    uint8_t b[7] = {1, 0, 0, 0, 2, 0, 0};
    struct cci_view v = {b, sizeof(b)};
    uint32_t x = 0;
    CHECK(cci_view_u32(&v, &x) && x == 1);
    CHECK(!cci_view_u32(&v, &x) && x == 1 && v.n == 3);
    CHECK(cci_view_take(&v, 3) == b + 4 && v.n == 0);
    CHECK(!cci_view_take(&v, 1));
    struct cci_view none = {NULL, 0};
    CHECK(!cci_view_u32(&none, &x));
}

static void test_buffer_grows(void)
{
    struct cci_buf b = {0};
    for (unsigned i = 0; i < 1000; i++) {
        uint8_t byte = (uint8_t)i;
        CHECK(cci_buf_add(&b, &byte, 1));
    }
    CHECK(cci_buf_add(&b, NULL, 5) && b.n == 1005 && b.p[999] == (uint8_t)999 && b.p[1004] == 0);
    CHECK(!cci_buf_reserve(&b, SIZE_MAX) && b.failed);
    CHECK(!cci_buf_add(&b, "x", 1));
    cci_buf_free(&b);
}

static void test_multiplication_overflow(void)
{
    CHECK(!cci_mem_zalloc(SIZE_MAX / 2, 3));
    CHECK(!cci_mem_resize(NULL, SIZE_MAX / 2, 3));
}

static void *no_memory(void *ctx, void *old, size_t size)
{
    (void)ctx;
    (void)old;
    (void)size;
    return NULL;
}

static void test_errors(void)
{
    cc_error err = {0};
    CHECK(cci_fail_errno(&err, CC_ERR_IO, 2, "/x", "cannot open: %s", cci_errno_text(2)) == CC_ERR_IO);
    CHECK_EQ_STR(err.message, "cannot open: no such file or directory");
    CHECK_EQ_STR(err.path, "/x");
    CHECK_EQ_INT(err.sys_errno, 2);
    (void)cci_fail_within(&err, err.code, "image");
    CHECK_EQ_STR(err.message, "image: cannot open: no such file or directory");
    CHECK(cci_fail(&err, CC_ERR_NETWORK, NULL, "other") == CC_ERR_NETWORK && !err.path && err.sys_errno == 0);
    CHECK(cci_fail(&err, CC_ERR_IO, NULL, "%s", "a\033[31mb\r\n\tc\177") == CC_ERR_IO);
    CHECK_EQ_STR(err.message, "a?[31mb?\n\tc?");
    CHECK(cci_fail(NULL, CC_ERR_TIMEOUT, "p", "no place to put it") == CC_ERR_TIMEOUT);
    cci_error_release(&err);
    CHECK(err.code == CC_OK && !err.message);
    cc_allocator old = cci_mem_hook;
    cci_mem_hook.realloc_fn = no_memory;
    cc_error_code code = cci_fail(&err, CC_ERR_IO, "/y", "message");
    cci_mem_hook = old;
    CHECK(code == CC_ERR_IO && err.code == CC_ERR_IO && !err.message && !err.path);
}

static void test_errno_words(void)
{
    CHECK_EQ_STR(cci_errno_text(13), "permission denied");
    CHECK_EQ_STR(cci_errno_text(99999), "unknown error");
}

int main(void)
{
    RUN(test_integers);
    RUN(test_views_never_run_over);
    RUN(test_buffer_grows);
    RUN(test_multiplication_overflow);
    RUN(test_errors);
    RUN(test_errno_words);
    return check_done();
}
