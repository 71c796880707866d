// @timeout 60
// @flags -DCC_NO_TLS
// @sanitize address,undefined
// @sanitize thread
/* The HTTP client against scripts: what it says, what it understands and what it refuses. */
#define _GNU_SOURCE
#include "tests/registry/http_client.h"

static void test_get(void)
{
    static const char *const texts[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: \t one \r\nx-a: two\r\n\r\nhello"};
    const struct cci_http_field fields[] = {{"Accept", "text/plain"}};
    const struct cci_http_request req = {
        .url = "http://localhost:5000/v2/?n=1#f", .fields = fields, .field_count = 1, .authorization = "Basic eDp5"};
    begin(texts, 1);
    CHECK_OK(ask(&req), c.err);
    CHECK_EQ_STR(said(), "[dial localhost 5000]" GET(
                             "/v2/?n=1", "localhost:5000") "Accept: text/plain\r\nAuthorization: Basic eDp5\r\n\r\n");
    CHECK_EQ_INT(cci_http_status(c.r), 200);
    CHECK_EQ_INT(c.r->head.length, 5);
    CHECK_EQ_STR(c.r->url.target, "/v2/?n=1");
    CHECK_EQ_STR(cci_http_field(c.r, "X-a", 0), "one");
    CHECK_EQ_STR(cci_http_field(c.r, "X-A", 1), "two");
    CHECK(cci_http_field(c.r, "X-A", 2) == NULL);
    CHECK_OK(body(), c.err);
    CHECK_EQ_STR(c.body, "hello");
    end();
}

static void test_post(void)
{
    static const char *const texts[] = {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
    const struct cci_http_request req = {
        .method = "POST", .url = "https://auth.example/token", .body = "a=b", .body_size = 3};
    begin(texts, 1);
    CHECK_OK(ask(&req), c.err);
    CHECK(strstr(said(), "[dial auth.example 443][tls auth.example]POST /token HTTP/1.1\r\nHost: auth.example\r\n") ==
          said());
    CHECK(strstr(said(), "\r\nContent-Length: 3\r\n\r\na=b") != NULL);
    end();
}

/* Every way of saying one body, whatever the pieces it arrives in. */
static void test_framings(void)
{
    static const char *const texts[] = {
        OK_HELLO,
        "HTTP/1.1 200 OK\nContent-Length:5\n\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n1;x=\"y\"\r\nh\r\n0004 \r\nello\r\n00;z\r\nTrailer: "
        "t\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nX: folded\r\n over\r\n\t lines\r\n\r\nhello",
        ("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" OK_HELLO)};
    for (size_t piece = 0; piece < 8; piece++) {
        for (size_t i = 0; i < CCI_COUNT(texts); i++) {
            begin(texts + i, 1);
            c.script.piece = piece;
            CHECK_OK(get("http://localhost/"), c.err);
            CHECK_EQ_INT(cci_http_status(c.r), 200);
            CHECK_OK(body(), c.err);
            CHECK_EQ_STR(c.body, "hello");
            if (i == 7)
                CHECK_EQ_STR(cci_http_field(c.r, "x", 0), "folded   over  \t lines");
            end();
        }
    }
}

static void test_no_body(void)
{
    static const char *const texts[] = {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                                        "HTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 304 Not\r\nContent-Length: 7\r\n\r\n"};
    for (size_t i = 0; i < CCI_COUNT(texts); i++) {
        const struct cci_http_request req = {.method = i == 0 ? "HEAD" : "GET", .url = "http://localhost/"};
        begin(texts + i, 1);
        CHECK_OK(ask(&req), c.err);
        CHECK_OK(body(), c.err);
        CHECK_EQ_STR(c.body, "");
        if (i == 0)
            CHECK_EQ_INT(c.r->head.length, 5);
        end();
    }
}

/* What is not HTTP, or says two things at once, is an error and never a body. */
static void test_bad_heads(void)
{
    static const char *const texts[] = {
        "",
        "\r\n\r\n",
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 999 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        "HTTP/1.1 200 OK\r\nName : value\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\x02: value\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: val\rue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: val\x02ue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        ("HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n" OK_HELLO),
        "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\n\r\nhello",
    };
    for (size_t i = 0; i < CCI_COUNT(texts); i++) {
        begin(texts + i, 1);
        CHECK_EQ_INT(get("http://localhost/x?secret"), CC_ERR_NETWORK);
        CHECK(c.err.message && c.r == NULL);
        CHECK_EQ_STR(c.err.path, "http://localhost/x");
        CHECK_EQ_INT(c.script.dials, 1);
        end();
    }
}

static void test_bad_bodies(void)
{
    static const struct {
        const char *text;
        bool broken; /* the connection's fault, so worth going on from there */
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", true},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe\1llo", true}, /* the connection itself fails there */
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello", true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloxyz\r\n0\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 x\r\nhello\r\n0\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", false},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        begin(&cases[i].text, 1);
        CHECK_OK(get("http://localhost/"), c.err);
        CHECK_EQ_INT(body(), CC_ERR_NETWORK);
        CHECK_EQ_INT(cci_http_broken(c.r), cases[i].broken);
        size_t got;
        CHECK_EQ_INT(cci_http_body_read(c.r, c.body, 1, &got, &forever, NULL), CC_ERR_NETWORK); /* it stays failed */
        end();
    }
}

static void test_bounds(void)
{
    static const struct {
        const char *before, *line;
        size_t n;
        const char *after;
        bool fine; /* head, body, or both too large */
    } cases[] = {
        {"HTTP/1.1 200 OK\r\n", "A: b\r\n", 255, "Content-Length: 0\r\n\r\n", true},
        {"HTTP/1.1 200 OK\r\n", "A: b\r\n", 256, "Content-Length: 0\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nA: ", "0123456789abcdef", 4000, "\r\nContent-Length: 0\r\n\r\n", true},
        {"HTTP/1.1 200 OK\r\nA: ", "0123456789abcdef", 4096, "\r\nContent-Length: 0\r\n\r\n", false},
        {"HTTP/1.1 200 OK", "0123456789abcdef", 1000000, "", false},
        {"", "HTTP/1.1 100 Continue\r\n\r\n", 1000, OK_HELLO, true},
        {"", "HTTP/1.1 100 Continue\r\n\r\n", 4000, OK_HELLO, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n", 1000, "\r\n", true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n", 20000, "\r\n", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", "x", 2000, "\r\nhello\r\n0\r\n\r\n", false},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        char *text = repeated(cases[i].before, cases[i].line, cases[i].n, cases[i].after);
        const char *const texts[] = {text};
        begin(texts, 1);
        cc_error_code code = get("http://localhost/");
        code = code ? code : body();
        CHECK_EQ_INT(code, cases[i].fine ? CC_OK : CC_ERR_NETWORK);
        end();
        cci_mem_free(text);
    }
}

static void test_body_limit(void)
{
    static const char *const texts[] = {OK_HELLO "\1" OK_HELLO};
    struct cci_buf b = {0};
    begin(texts, 1);
    CHECK_OK(get("http://localhost/"), c.err);
    CHECK_OK(cci_http_body_all(c.r, 5, &b, &forever, &c.err), c.err);
    CHECK_OK(get("http://localhost/"), c.err);
    CHECK_EQ_INT(cci_http_body_all(c.r, 4, &b, &forever, &c.err), CC_ERR_NETWORK);
    CHECK_EQ_INT(b.n, 9); /* the five, and up to the limit */
    cci_buf_free(&b);
    end();
}

static void test_arguments(void)
{
    static const char *const urls[] = {"http://registry.example/", "https://u:p@a/", "a", "ftp://a/",
                                       "https://a/\r\nX: y"};
    const struct cci_http_field bad[][1] = {{{"X", "a\r\nY: b"}}, {{"X y", "a"}}, {{"", "a"}}, {{"X:", "a"}}};
    begin(NULL, 0);
    for (size_t i = 0; i < CCI_COUNT(urls); i++)
        CHECK_EQ_INT(get(urls[i]), CC_ERR_INVALID_ARGUMENT);
    for (size_t i = 0; i < CCI_COUNT(bad); i++) {
        const struct cci_http_request req = {.url = "https://a/", .fields = bad[i], .field_count = 1};
        CHECK_EQ_INT(ask(&req), CC_ERR_INVALID_ARGUMENT);
    }
    const struct cci_http_request secret = {.url = "https://a/", .authorization = "Basic a\nb"};
    CHECK_EQ_INT(ask(&secret), CC_ERR_INVALID_ARGUMENT);
    const struct cci_http_request method = {.url = "https://a/", .method = "GET /x HTTP/1.1\r\n"};
    CHECK_EQ_INT(ask(&method), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(c.script.said.n, 0);
    end();
}

static void test_secure_refused(void)
{
    static const char *const texts[] = {OK_HELLO, OK_HELLO};
    begin(texts, 2);
    c.script.refuse_secure = true;
    CHECK_EQ_INT(get("https://a/"), CC_ERR_NETWORK);
    CHECK(strstr(said(), "GET") == NULL);
    CHECK_EQ_INT(c.script.dials, 1);
    end();
}

int main(void)
{
    RUN(test_get);
    RUN(test_post);
    RUN(test_framings);
    RUN(test_no_body);
    RUN(test_bad_heads);
    RUN(test_bad_bodies);
    RUN(test_bounds);
    RUN(test_body_limit);
    RUN(test_arguments);
    RUN(test_secure_refused);
    return check_done();
}
