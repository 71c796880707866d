/*
 * PEM: blocks among other text, lax white space, and what is wrong in which line.
 */
#include "../../src/registry/pem.h"
#include "../check.h"

static cc_error_code read_all(const char *text, struct cci_buf *all, cc_error *err)
{
    struct cci_pem_reader r;
    struct cci_buf one = {NULL, 0, 0, false};
    bool found = true;
    cc_error_code code = CC_OK;
    all->n = 0;
    cci_pem_begin(&r, text, strlen(text));
    while (!code && found) {
        code = cci_pem_next(&r, "CERTIFICATE", "file", &one, &found, err);
        if (!code && found && (!cci_buf_add(all, one.p, one.n) || !cci_buf_str(all, ";")))
            code = CC_ERR_UNKNOWN;
    }
    cci_buf_free(&one);
    return code;
}

static void test_good(void)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", ""},
        {"no block at all\n", ""},
        {"-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n", "abc;"},
        {"-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----", "abc;"},
        {"x\r\n-----BEGIN CERTIFICATE-----\r\nYW\r\n \tJjZ A==  \r\n-----END CERTIFICATE-----\r\ny\r\n", "abcd;"},
        {"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", ";"},
        {"-----BEGIN CERTIFICATE-----\nYWJjZGU=\n-----END CERTIFICATE-----\n"
         "-----BEGIN PRIVATE KEY-----\n%%%\n-----END PRIVATE KEY-----\n"
         "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n",
         "abcde;a;"},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        struct cci_buf all = {NULL, 0, 0, false};
        cc_error err = {0};
        CHECK_OK(read_all(cases[i].text, &all, &err), err);
        CHECK(cci_buf_add(&all, "", 1));
        CHECK_EQ_STR((const char *)all.p, cases[i].want);
        cci_buf_free(&all);
    }
}

static void test_bad(void)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"\n-----BEGIN CERTIFICATE-----\nYWJj\n", "file, line 3: the text ends within a block"},
        {"-----BEGIN CERTIFICATE-----\nYW!j\n-----END CERTIFICATE-----\n",
         "file, line 2: a character that is not base64"},
        {"-----BEGIN CERTIFICATE-----\nYWJjZ\n-----END CERTIFICATE-----\n",
         "file, line 3: the block ends within a group of base64 digits"},
        {"-----BEGIN CERTIFICATE-----\nYQ==YQ==\n-----END CERTIFICATE-----\n",
         "file, line 2: padding in the wrong place"},
        {"-----BEGIN CERTIFICATE-----\nY===\n-----END CERTIFICATE-----\n", "file, line 2: padding in the wrong place"},
        {"-----BEGIN CERTIFICATE-----\nYQ=j\n-----END CERTIFICATE-----\n", "file, line 2: padding in the wrong place"},
        {"-----BEGIN CERTIFICATE-----\nYWJj\n-----END OTHER-----\n", "file, line 3: this END belongs to another BEGIN"},
        {"-----BEGIN CERTIFICATE-----\nYWJj\n-----BEGIN CERTIFICATE-----\n",
         "file, line 3: a character that is not base64"},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        struct cci_buf all = {NULL, 0, 0, false};
        cc_error err = {0};
        CHECK_EQ_INT(read_all(cases[i].text, &all, &err), CC_ERR_IO);
        CHECK_EQ_STR(err.message, cases[i].want);
        cci_error_release(&err);
        cci_buf_free(&all);
    }
}

static void test_too_large(void)
{
    enum { LINES = 1400 };
    char *text = malloc(100 + LINES * 65), *p = text;
    struct cci_buf all = {NULL, 0, 0, false};
    cc_error err = {0};
    CHECK(text);
    p += sprintf(p, "-----BEGIN CERTIFICATE-----\n");
    for (unsigned i = 0; i < LINES; i++, p += 65) {
        memset(p, 'A', 64);
        p[64] = '\n';
    }
    *p = '\0';
    CHECK_EQ_INT(read_all(text, &all, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "larger than 64 KiB"));
    cci_error_release(&err);
    cci_buf_free(&all);
    free(text);
}

int main(void)
{
    RUN(test_good);
    RUN(test_bad);
    RUN(test_too_large);
    return check_done();
}
