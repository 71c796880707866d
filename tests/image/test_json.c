/* The JSON reader: what RFC 8259 allows, and what hostile text tries. */
#include "../check.h"

#include "../../src/image/json.h"

static struct cci_json doc;
static cc_error err;

static cc_error_code parse(const char *text)
{
    cci_error_release(&err);
    cci_json_free(&doc);
    return cci_json_parse(&doc, text, strlen(text), "the text", &err);
}

/* The message of a text that must be refused. */
static const char *refused(const char *text)
{
    return parse(text) == CC_ERR_IO && err.message ? err.message : "(accepted)";
}

static const struct cci_json_value *get(const char *name)
{
    return cci_json_get(&doc, cci_json_root(&doc), name);
}

static void test_values(void)
{
    uint64_t n;
    CHECK_OK(parse(" {\"a\": 1, \"b\" : [true,false,null,\"x\",{}], \"c\":{\"d\":\"e\"}, \"big\":-1.5e+9 }\r\n"), err);
    CHECK_EQ_INT(cci_json_root(&doc)->count, 4);
    CHECK(cci_json_size(&doc, get("a"), &n) && n == 1);
    CHECK(!cci_json_size(&doc, get("big"), &n) && get("big")->type == CCI_JSON_NUMBER);
    const struct cci_json_value *b = get("b"), *v = cci_json_first(b);
    static const enum cci_json_type types[] = {CCI_JSON_TRUE, CCI_JSON_FALSE, CCI_JSON_NULL, CCI_JSON_STRING,
                                               CCI_JSON_OBJECT};
    for (size_t i = 0; i < CCI_COUNT(types); i++, v = cci_json_next(&doc, b, v)) {
        CHECK(v != NULL);
        CHECK_EQ_INT(v->type, types[i]);
    }
    CHECK(v == NULL);
    CHECK_EQ_STR(cci_json_text(&doc, cci_json_get(&doc, get("c"), "d")), "e");
    CHECK(get("missing") == NULL && cci_json_text(&doc, get("missing")) == NULL && cci_json_first(NULL) == NULL);
    CHECK(cci_json_text(&doc, get("a")) == NULL && cci_json_get(&doc, get("a"), "a") == NULL);
}

static void test_strings(void)
{
    CHECK_OK(parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\ude00 \xc3\xa9\xf0\x9f\x98\x80\""), err);
    CHECK_EQ_STR(cci_json_text(&doc, cci_json_root(&doc)),
                 "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \xc3\xa9\xf0\x9f\x98\x80");
    CHECK_OK(parse("\"\""), err);
    CHECK_EQ_STR(cci_json_text(&doc, cci_json_root(&doc)), "");
}

static void test_last_of_equal_names_counts(void)
{
    CHECK_OK(parse("{\"a\":\"x\",\"a\":\"y\",\"\\u0061\":\"z\"}"), err);
    CHECK_EQ_STR(cci_json_text(&doc, get("a")), "z");
}

static void test_sizes(void)
{
    uint64_t n;
    CHECK_OK(parse("[9223372036854775799, 9223372036854775808, 0, -1, 1.0, 1e3, \"1\"]"), err);
    const struct cci_json_value *root = cci_json_root(&doc), *v = cci_json_first(root);
    CHECK(cci_json_size(&doc, v, &n) && n == 9223372036854775799u);
    v = cci_json_next(&doc, root, v);
    CHECK(!cci_json_size(&doc, v, &n));
    v = cci_json_next(&doc, root, v);
    CHECK(cci_json_size(&doc, v, &n) && n == 0);
    while ((v = cci_json_next(&doc, root, v)) != NULL)
        CHECK(!cci_json_size(&doc, v, &n));
}

static void test_refused(void)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "tru",
        "nul",
        "TRUE",
        "+1",
        "01",
        "-",
        "-01",
        ".5",
        "1.",
        "1.e1",
        "1e",
        "1e+",
        "0x10",
        "NaN",
        "1 1",
        "[]]",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\u0041\"",
        "\"\t\"",
        "\"\n\"",
        "\"\x7f",
        "\"\x80\"",
        "\"\xc0\xaf\"",
        "\"\xc3\"",
        "\"\xe0\x80\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xf0\x80\x80\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xf5\x80\x80\x80\"",
        "\"\xff\"",
        "{\"a\":1]",
        "[1}",
        "'a'",
        "//",
        "\xef\xbb\xbf{}",
    };
    for (size_t i = 0; i < CCI_COUNT(bad); i++)
        if (strcmp(refused(bad[i]), "(accepted)") == 0)
            check_fail(__FILE__, __LINE__, bad[i]);
    CHECK_EQ_STR(refused("[1,\"\xff\"]"), "the text is not valid JSON: a string is not UTF-8 (at byte 4)");
    CHECK(cci_json_parse(&doc, "{}\0", 3, "the text", NULL) == CC_ERR_IO);
}

/* Every prefix of a document is refused, and read no further than its end (the sanitizer watches). */
static void test_cut_anywhere(void)
{
    static const char whole[] = "{\"a\":[1,-2.5e3,\"\\ud83d\\ude00\xe2\x82\xac\"],\"b\":{\"c\":null,\"d\":true}}";
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        char *part = malloc(n + 1);
        memcpy(part, whole, n);
        char *exact = realloc(part, n ? n : 1);
        CHECK_EQ_INT(cci_json_parse(&doc, exact, n, "the text", NULL), CC_ERR_IO);
        free(exact);
    }
    CHECK_OK(parse(whole), err);
}

static void test_deep(void)
{
    enum { N = 1000000 };
    char *text = malloc(N + 1);
    memset(text, '[', N);
    text[N] = 0;
    CHECK(strstr(refused(text), "nested too deeply"));
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    text[128] = 0;
    CHECK_OK(parse(text), err);
    free(text);
}

static void test_many(void)
{
    enum { N = 1000000 };
    char *text = malloc(2 * N + 2);
    for (size_t i = 0; i < N; i++)
        memcpy(text + 2 * i, i ? ",1" : "[1", 2);
    memcpy(text + 2 * N, "]", 2);
    CHECK(strstr(refused(text), "too many values"));
    free(text);
    text = malloc(CCI_JSON_MAX_SIZE + 2);
    memset(text, ' ', CCI_JSON_MAX_SIZE + 1);
    text[CCI_JSON_MAX_SIZE + 1] = 0;
    CHECK(strstr(refused(text), "too large"));
    free(text);
}

static unsigned allocations_left;

static void *failing(void *ctx, void *old, size_t size)
{
    if (size && allocations_left == 0)
        return NULL;
    if (size)
        allocations_left--;
    return cci_mem_default_alloc(ctx, old, size);
}

static void test_no_memory(void)
{
    static const char text[] =
        "{\"a\":[1,2,3,\"a longer string that needs more room than the first bytes have, really\"]}";
    cci_json_free(&doc);
    for (unsigned n = 0; n < 5; n++) {
        struct cci_json d;
        cci_mem_hook.realloc_fn = failing;
        allocations_left = n;
        cc_error_code code = cci_json_parse(&d, text, strlen(text), "the text", NULL);
        cci_mem_hook.realloc_fn = cci_mem_default_alloc;
        if (code == CC_OK) {
            cci_json_free(&d);
            CHECK(n >= 2);
            return;
        }
        CHECK_EQ_INT(code, CC_ERR_UNKNOWN);
    }
    check_fail(__FILE__, __LINE__, "it does not parse even with five allocations");
}

int main(void)
{
    RUN(test_values);
    RUN(test_strings);
    RUN(test_last_of_equal_names_counts);
    RUN(test_sizes);
    RUN(test_refused);
    RUN(test_cut_anywhere);
    RUN(test_deep);
    RUN(test_many);
    RUN(test_no_memory);
    cci_json_free(&doc);
    cci_error_release(&err);
    return check_done();
}
