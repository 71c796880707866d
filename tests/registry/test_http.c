// @timeout 60
// @flags -DCC_NO_TLS
// @sanitize address,undefined
// @sanitize thread
/* The HTTP client against scripts: what it says, what it understands, what it refuses, and when it says it again. */
#define _GNU_SOURCE
#include "tests/registry/script_conn.h"

#include "tests/check.h"

static const struct cci_wait forever = CCI_WAIT_FOREVER;

#define OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#define GET(target, host)                                                                                              \
    "GET " target " HTTP/1.1\r\nHost: " host "\r\nUser-Agent: cc.h/" CC_VERSION_STRING                                 \
    "\r\nAccept-Encoding: identity\r\n"

struct client {
    struct script script;
    struct cci_http *http;
    struct cci_http_response *r;
    cc_error err;
    char body[70000];
};

static struct client c;

/* A client whose servers say `texts`, one a dial. */
static void begin(const char *const *texts, size_t count)
{
    struct cci_http_options opts = {.dialer = {script_dial, &c.script}, .no_proxy = true, .max_connections = 2};
    memset(&c, 0, sizeof(c));
    c.script.texts = texts;
    c.script.count = count;
    CHECK(cci_http_new(&opts, &c.http, NULL) == CC_OK);
}

static void end(void)
{
    cci_http_finish(c.r);
    c.r = NULL;
    cci_http_free(c.http);
    CHECK_EQ_INT(c.script.open, 0);
    cci_buf_free(&c.script.said);
    cci_error_release(&c.err);
}

static cc_error_code ask(const struct cci_http_request *req)
{
    cci_http_finish(c.r);
    c.r = NULL;
    cci_error_release(&c.err);
    return cci_http_request(c.http, req, &forever, &c.r, &c.err);
}

static cc_error_code get(const char *url)
{
    const struct cci_http_request req = {.url = url};
    return ask(&req);
}

/* The whole body into c.body. */
static cc_error_code body(void)
{
    struct cci_buf b = {0};
    cc_error_code code = cci_http_body_all(c.r, sizeof(c.body) - 1, &b, &forever, &c.err);
    memcpy(c.body, b.n ? (const char *)b.p : "", b.n);
    c.body[b.n] = '\0';
    cci_buf_free(&b);
    return code;
}

static const char *said(void)
{
    CHECK(cci_buf_add(&c.script.said, "", 1));
    c.script.said.n--;
    return (const char *)c.script.said.p;
}

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

/* A text of `n` times the same line between a head and an end. */
static char *repeated(const char *before, const char *line, size_t n, const char *after)
{
    struct cci_buf b = {0};
    bool ok = cci_buf_str(&b, before);
    for (size_t i = 0; i < n; i++)
        ok = ok && cci_buf_str(&b, line);
    CHECK(ok && cci_buf_str(&b, after) && cci_buf_add(&b, "", 1));
    return (char *)b.p;
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

static void test_reuse(void)
{
    static const char *const texts[] = {
        OK_HELLO "\1HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n\1" OK_HELLO};
    begin(texts, 1);
    CHECK_OK(get("http://localhost/1"), c.err);
    CHECK_OK(body(), c.err);
    CHECK_OK(get("http://localhost/2"), c.err); /* its body is not read, but has arrived */
    CHECK_EQ_INT(cci_http_status(c.r), 404);
    CHECK_OK(get("http://localhost/3"), c.err);
    CHECK_EQ_INT(c.script.dials, 1);
    end();
}

/* Connections that must not carry another request. */
static void test_no_reuse(void)
{
    static const char *const firsts[] = {
        "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\nhello\1" OK_HELLO,
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello\1" OK_HELLO,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" OK_HELLO "\1" OK_HELLO, /* spoke out of turn */
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\1!" OK_HELLO,            /* not read to its end */
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\1" OK_HELLO,
    };
    for (size_t i = 0; i < CCI_COUNT(firsts); i++) {
        const char *const texts[] = {firsts[i], OK_HELLO};
        begin(texts, 2);
        CHECK_OK(get("http://localhost/"), c.err);
        CHECK_OK(get("http://localhost/"), c.err);
        CHECK_EQ_INT(c.script.dials, 2);
        CHECK_OK(body(), c.err);
        CHECK_EQ_STR(c.body, "hello");
        end();
    }
    /* What was sent out of turn is still in the connection. */
    begin(firsts + 2, 1);
    c.script.piece = sizeof(OK_HELLO) - 1;
    CHECK_OK(get("http://localhost/"), c.err);
    CHECK_EQ_INT(get("http://localhost/"), CC_ERR_NETWORK);
    CHECK_EQ_STR(c.err.message, "nobody answers any more");
    end();
    /* HTTP/1.0 with keep-alive, and other places. */
    const char *const texts[] = {("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n\1" OK_HELLO),
                                 OK_HELLO, OK_HELLO};
    begin(texts, 3);
    CHECK_OK(get("http://localhost/"), c.err);
    CHECK_OK(get("http://localhost/"), c.err);
    CHECK_EQ_INT(c.script.dials, 1);
    CHECK_OK(get("http://localhost:81/"), c.err);
    CHECK_EQ_INT(c.script.dials, 2);
    CHECK_OK(get("https://localhost:81/"), c.err); /* more places than connections: the oldest goes */
    CHECK_EQ_INT(c.script.dials, 3);
    CHECK_EQ_INT(c.script.open, 2);
    end();
}

/* A kept connection that the server closed meanwhile: the request goes out again, once, if it may. */
static void test_replay(void)
{
    static const char *const texts[] = {OK_HELLO, OK_HELLO};
    begin(texts, 2);
    CHECK_OK(get("http://localhost/1"), c.err);
    CHECK_OK(get("http://localhost/2"), c.err);
    CHECK_EQ_INT(c.script.dials, 2);
    CHECK_EQ_STR(said(), "[dial localhost 80]" GET("/1", "localhost") "\r\n" GET(
                             "/2", "localhost") "\r\n[dial localhost 80]" GET("/2", "localhost") "\r\n");
    end();

    /* Both kept ones are gone: the second try is not made on the other of them. */
    static const char *const both[] = {OK_HELLO, OK_HELLO, OK_HELLO};
    const struct cci_http_request req = {.url = "http://localhost/1"};
    struct cci_http_response *other;
    begin(both, 3);
    CHECK_OK(ask(&req), c.err);
    CHECK_OK(cci_http_request(c.http, &req, &forever, &other, &c.err), c.err);
    cci_http_finish(other);
    CHECK_OK(get("http://localhost/2"), c.err); /* gives the first back and takes it */
    CHECK_EQ_INT(c.script.dials, 3);
    CHECK_EQ_INT(cci_http_status(c.r), 200);
    end();

    static const char *const dead[] = {OK_HELLO, "", OK_HELLO};
    begin(dead, 3);
    CHECK_OK(get("http://localhost/1"), c.err);
    CHECK_EQ_INT(get("http://localhost/2"), CC_ERR_NETWORK); /* the new connection is no old one */
    CHECK_EQ_INT(c.script.dials, 2);
    end();

    const struct cci_http_request post = {.method = "POST", .url = "http://localhost/", .body = "x", .body_size = 1};
    begin(texts, 2);
    CHECK_OK(get("http://localhost/1"), c.err);
    CHECK_EQ_INT(ask(&post), CC_ERR_NETWORK);
    CHECK_EQ_INT(c.script.dials, 1);
    end();

    static const char *const begun[] = {OK_HELLO "\1HTTP/1.1 2", OK_HELLO};
    begin(begun, 2);
    CHECK_OK(get("http://localhost/1"), c.err);
    CHECK_EQ_INT(get("http://localhost/2"), CC_ERR_NETWORK); /* it had begun to answer */
    CHECK_EQ_INT(c.script.dials, 1);
    end();
}

static void test_range(void)
{
    static const struct {
        const char *text;
        cc_error_code code;
    } cases[] = {
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nhello", CC_OK},
        {"HTTP/1.1 206 P\r\nContent-Range: Bytes 5-9/*\r\nContent-Length: 5\r\n\r\nhello", CC_OK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\n\r\nhello", CC_OK},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nxxxxxhello", CC_OK},
        {"HTTP/1.1 416 R\r\nContent-Range: bytes */3\r\nContent-Length: 0\r\n\r\n", CC_OK},
        {"HTTP/1.1 206 P\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 4-8/10\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/9\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-4/10\r\nContent-Length: 0\r\n\r\n", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 4\r\n\r\nhell", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-/10\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
        {"HTTP/1.1 206 P\r\nContent-Range: items 5-9/10\r\nContent-Length: 5\r\n\r\nhello", CC_ERR_NETWORK},
    };
    const struct cci_http_request req = {.url = "http://localhost/", .range_from = 5};
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        begin(&cases[i].text, 1);
        CHECK_EQ_INT(ask(&req), cases[i].code);
        CHECK(strstr(said(), "\r\nRange: bytes=5-\r\n") != NULL);
        if (i < 3) {
            CHECK_OK(body(), c.err);
            CHECK_EQ_STR(c.body, "hello");
        }
        end();
    }
}

#define REDIRECT(where) "HTTP/1.1 307 There\r\nLocation: " where "\r\nContent-Length: 4\r\n\r\nmove"

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

/* Who is told the password when `first` answers with a redirect to somewhere else. */
static void test_redirect_credentials(void)
{
    static const struct {
        const char *where, *dialled;
        size_t told;
        size_t dials;
    } cases[] = {
        {"/b", "", 2, 1},
        {"https://a.example/b", "", 2, 1},
        {"https://A.example:443/b", "", 2, 1},
        {"//a.example/b", "", 2, 1},
        {"https://b.example/b", "[dial b.example 443][tls b.example]", 1, 2},
        {"https://a.example:444/b", "[dial a.example 444][tls a.example]", 1, 2},
        {"https://sub.a.example/b", "[dial sub.a.example 443]", 1, 2},
        {"https://a.example.b/b", "[dial a.example.b 443]", 1, 2},
    };
    const struct cci_http_request req = {.url = "https://a.example/a", .authorization = "Bearer secret"};
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        char *text = cci_mem_printf("HTTP/1.1 302 There\r\nLocation: %s\r\nContent-Length: 4\r\n\r\nmove%s",
                                    cases[i].where, cases[i].dials == 1 ? "\1" OK_HELLO : "");
        const char *const texts[] = {text, OK_HELLO};
        begin(texts, 2);
        CHECK_OK(ask(&req), c.err);
        CHECK_EQ_INT(cci_http_status(c.r), 200);
        CHECK_EQ_INT(c.script.dials, cases[i].dials);
        CHECK(strstr(said(), cases[i].dialled) != NULL);
        CHECK_EQ_INT(count(said(), "Bearer secret"), cases[i].told);
        CHECK_EQ_STR(c.r->url.target, "/b");
        end();
        cci_mem_free(text);
    }
    /* There and back again: the first server is not told a second time, either. */
    static const char *const back[] = {REDIRECT("https://b.example/") "\1" OK_HELLO, REDIRECT("https://a.example/x")};
    begin(back, 2);
    CHECK_OK(ask(&req), c.err);
    CHECK_EQ_INT(count(said(), "Bearer secret"), 1);
    CHECK_EQ_INT(count(said(), "Host: a.example"), 2);
    end();
    /* From one to another, and on within the other. */
    static const char *const on[] = {REDIRECT("https://b.example/"), REDIRECT("/x") "\1" OK_HELLO};
    begin(on, 2);
    CHECK_OK(ask(&req), c.err);
    CHECK_EQ_INT(count(said(), "Bearer secret"), 1);
    CHECK_EQ_INT(count(said(), "Host: b.example"), 2);
    end();
    /* The same host and port, but another scheme. */
    static const char *const up[] = {REDIRECT("https://localhost:5000/"), OK_HELLO};
    const struct cci_http_request plain = {.url = "http://localhost:5000/a", .authorization = "Bearer secret"};
    begin(up, 2);
    CHECK_OK(ask(&plain), c.err);
    CHECK_EQ_INT(count(said(), "Bearer secret"), 1);
    CHECK_EQ_INT(count(said(), "Host: localhost:5000"), 2);
    end();
}

static void test_redirect_refused(void)
{
    static const struct {
        const char *text, *url, *why;
    } cases[] = {
        {REDIRECT("http://localhost/"), "https://a.example/", "from https to http"},
        {REDIRECT("http://a.example/"), "http://localhost/", "plain http"},
        {REDIRECT("https://u:p@b.example/"), "https://a.example/", "user and password"},
        {REDIRECT("file:///etc/passwd"), "https://a.example/", "neither https:// nor http://"},
        {REDIRECT("https://b example/"), "https://a.example/", "not a URL"},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        const char *const texts[] = {cases[i].text, OK_HELLO};
        begin(texts, 2);
        CHECK_EQ_INT(get(cases[i].url), CC_ERR_NETWORK);
        CHECK(c.err.message && strstr(c.err.message, cases[i].why) != NULL);
        CHECK_EQ_INT(c.script.dials, 1);
        end();
    }
    char *loop = repeated(REDIRECT("/x"), "\1" REDIRECT("/x"), 50, "");
    const char *const texts[] = {loop};
    begin(texts, 1);
    CHECK_EQ_INT(get("https://a.example/"), CC_ERR_NETWORK);
    CHECK(strstr(c.err.message, "10 times") != NULL);
    CHECK_EQ_INT(count(said(), "GET "), 11);
    end();
    cci_mem_free(loop);
}

/* Redirects that are answers. */
static void test_redirect_not_followed(void)
{
    static const char *const texts[] = {
        REDIRECT("/b") "\1HTTP/1.1 302 Nowhere\r\nContent-Length: 0\r\n\r\n\1" REDIRECT("/b")};
    const struct cci_http_request plain = {.url = "https://a/", .no_redirect = true};
    const struct cci_http_request post = {.method = "POST", .url = "https://a/", .body = "x", .body_size = 1};
    begin(texts, 1);
    CHECK_OK(ask(&plain), c.err);
    CHECK_EQ_INT(cci_http_status(c.r), 307);
    CHECK_EQ_STR(cci_http_field(c.r, "location", 0), "/b");
    CHECK_OK(get("https://a/"), c.err);
    CHECK_EQ_INT(cci_http_status(c.r), 302);
    CHECK_OK(ask(&post), c.err);
    CHECK_EQ_INT(cci_http_status(c.r), 307);
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

/* ---- Proxies ------------------------------------------------------------------------------------------------ */

static void begin_proxied(const char *const *texts, size_t n, const char *proxy)
{
    struct cci_http_options opts = {.dialer = {script_dial, &c.script}, .allow_plain = true};
    memset(&c, 0, sizeof(c));
    c.script.texts = texts;
    c.script.count = n;
    unsetenv("https_proxy");
    unsetenv("http_proxy");
    unsetenv("no_proxy");
    setenv("HTTPS_PROXY", proxy, 1);
    setenv("HTTP_PROXY", proxy, 1);
    setenv("NO_PROXY", "direct.example", 1);
    CHECK(cci_http_new(&opts, &c.http, NULL) == CC_OK);
}

static void test_proxy_tunnel(void)
{
    static const char *const texts[] = {"HTTP/1.1 200 Connected\r\nTransfer-Encoding: chunked\r\n\r\n\1" OK_HELLO
                                        "\1" OK_HELLO};
    const struct cci_http_request req = {.url = "https://a.example/x", .authorization = "Basic QQ=="};
    begin_proxied(texts, 1, "http://me:pw@proxy:3128");
    CHECK_OK(ask(&req), c.err);
    CHECK_OK(body(), c.err);
    CHECK_EQ_STR(said(), "[dial proxy 3128]CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n"
                         "Proxy-Authorization: Basic bWU6cHc=\r\n\r\n[tls a.example]" GET(
                             "/x", "a.example") "Authorization: Basic QQ==\r\n\r\n");
    CHECK_OK(get("https://a.example/y"), c.err); /* through the same tunnel */
    CHECK_EQ_INT(c.script.dials, 1);
    end();
}

static void test_proxy_tunnel_refused(void)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"HTTP/1.1 407 Who\r\nContent-Length: 3\r\n\r\nwho", "wants a user and a password"},
        {"HTTP/1.1 403 No\r\n\r\n", "with status 403"},
        {"HTTP/1.1 302 There\r\nLocation: https://evil/\r\n\r\n", "with status 302"},
        {"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "before the server could have"},
        {"", "closed the connection"},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        const char *const texts[] = {cases[i].text};
        begin_proxied(texts, 1, "proxy:3128");
        CHECK_EQ_INT(get("https://a.example/"), CC_ERR_NETWORK);
        CHECK(strstr(c.err.message, cases[i].why) != NULL);
        CHECK(strstr(said(), "[tls") == NULL);
        end();
    }
}

static void test_proxy_plain(void)
{
    static const char *const texts[] = {OK_HELLO "\1HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", OK_HELLO, OK_HELLO};
    begin_proxied(texts, 3, "http://me:pw@proxy:3128");
    CHECK_OK(get("http://a.example:8080/x?y"), c.err);
    CHECK(strstr(said(), "[dial proxy 3128]GET http://a.example:8080/x?y HTTP/1.1\r\nHost: a.example:8080\r\n") ==
          said());
    CHECK(strstr(said(), "\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n") != NULL);
    CHECK_EQ_INT(get("http://a.example:8080/x"), CC_ERR_NETWORK);
    CHECK(strstr(c.err.message, "refuses this user and password") != NULL);
    c.script.said.n = 0;
    CHECK_OK(get("http://direct.example/"), c.err);
    CHECK_OK(get("http://localhost/"), c.err);
    CHECK(strstr(said(), "[dial direct.example 80]GET / HTTP/1.1") == said());
    CHECK(strstr(said(), "[dial localhost 80]GET / HTTP/1.1") != NULL);
    CHECK(strstr(said(), "Proxy-Authorization") == NULL);
    end();
}

/* ---- Ends ---------------------------------------------------------------------------------------------------- */

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

static void test_cancel_and_deadline(void)
{
    static const char *const texts[] = {OK_HELLO, OK_HELLO, OK_HELLO};
    const struct cci_http_request req = {.url = "http://localhost/"};
    struct cci_wait wait = {1, NULL}; /* long past */
    size_t got;
    begin(texts, 3);
    CHECK_EQ_INT(cci_http_request(c.http, &req, &wait, &c.r, &c.err), CC_ERR_TIMEOUT);
    wait.deadline = CCI_FOREVER;
    wait.cancel = cci_cancel_new();
    /* In the middle of the body: what has arrived already is not handed over either. */
    CHECK_OK(cci_http_request(c.http, &req, &wait, &c.r, &c.err), c.err);
    CHECK_OK(cci_http_body_read(c.r, c.body, 2, &got, &wait, &c.err), c.err);
    cci_cancel_fire(wait.cancel);
    CHECK_EQ_INT(cci_http_body_read(c.r, c.body, 2, &got, &wait, &c.err), CC_ERR_CANCELLED);
    CHECK_EQ_INT(got, 0);
    cci_http_finish(c.r);
    c.r = NULL;
    cci_cancel_unref(wait.cancel);
    wait.cancel = cci_cancel_new();
    c.script.cancel_at_read = wait.cancel;
    CHECK_EQ_INT(cci_http_request(c.http, &req, &wait, &c.r, &c.err), CC_ERR_CANCELLED);
    cci_cancel_unref(wait.cancel);
    end();
}

/* With every connection in use a request waits, as long as it may. */
static void test_room(void)
{
    static const char *const texts[] = {OK_HELLO, OK_HELLO, OK_HELLO};
    const struct cci_http_request req = {.url = "http://localhost/"};
    struct cci_http_response *other, *third;
    begin(texts, 3);
    CHECK_OK(get("http://localhost/"), c.err);
    CHECK_OK(cci_http_request(c.http, &req, &forever, &other, &c.err), c.err);
    struct cci_wait soon = {cci_os_now() + 20000000u, NULL};
    CHECK_EQ_INT(cci_http_request(c.http, &req, &soon, &third, &c.err), CC_ERR_TIMEOUT);
    CHECK_EQ_INT(c.script.dials, 2);
    cci_http_finish(other);
    CHECK_OK(cci_http_request(c.http, &req, &forever, &third, &c.err), c.err); /* replayed: the kept one had ended */
    CHECK_EQ_INT(c.script.dials, 3);
    cci_http_finish(third);
    end();
}

/* ---- Threads ------------------------------------------------------------------------------------------------- */

/* A server that answers every request at once, and hangs up on every seventh. */
struct crowd {
    struct cci_mutex mutex;
    unsigned open, most, asked; /* under the mutex */
    struct cci_http *http;
    unsigned failed; /* under the mutex */
};

struct crowd_conn {
    struct cci_conn conn;
    struct crowd *crowd;
    size_t left; /* of the answer */
};

static cc_error_code crowd_read(struct cci_conn *conn, void *buf, size_t n, size_t *got, const struct cci_wait *wait,
                                cc_error *err)
{
    struct crowd_conn *cc = (struct crowd_conn *)conn;
    (void)wait;
    (void)err;
    *got = CCI_MIN(n, cc->left);
    memcpy(buf, &OK_HELLO[sizeof(OK_HELLO) - 1 - cc->left], *got);
    cc->left -= *got;
    return CC_OK;
}

static cc_error_code crowd_write(struct cci_conn *conn, const void *buf, size_t n, const struct cci_wait *wait,
                                 cc_error *err)
{
    struct crowd_conn *cc = (struct crowd_conn *)conn;
    (void)buf;
    (void)n;
    (void)wait;
    (void)err;
    cci_mutex_lock(&cc->crowd->mutex);
    cc->left = ++cc->crowd->asked % 7 ? sizeof(OK_HELLO) - 1 : 0;
    cci_mutex_unlock(&cc->crowd->mutex);
    return CC_OK;
}

static bool crowd_quiet(struct cci_conn *conn)
{
    return ((struct crowd_conn *)conn)->left == 0;
}

static void crowd_close(struct cci_conn *conn)
{
    struct crowd_conn *cc = (struct crowd_conn *)conn;
    cci_mutex_lock(&cc->crowd->mutex);
    cc->crowd->open--;
    cci_mutex_unlock(&cc->crowd->mutex);
    cci_mem_free(cc);
}

static cc_error_code crowd_dial(void *ctx, const char *host, uint16_t port, const struct cci_wait *wait,
                                struct cci_conn **out, cc_error *err)
{
    static const struct cci_conn_ops ops = {crowd_read, crowd_write, NULL, crowd_quiet, crowd_close};
    struct crowd *crowd = ctx;
    struct crowd_conn *cc = cci_mem_zalloc(1, sizeof(*cc));
    (void)host;
    (void)port;
    (void)wait;
    if (!cc)
        return cci_fail_nomem(err);
    cc->conn.ops = &ops;
    cc->crowd = crowd;
    cci_mutex_lock(&crowd->mutex);
    crowd->open++;
    crowd->most = CCI_MAX(crowd->most, crowd->open);
    cci_mutex_unlock(&crowd->mutex);
    *out = &cc->conn;
    return CC_OK;
}

static void crowd_ask(void *ctx)
{
    struct crowd *crowd = ctx;
    for (int i = 0; i < 200; i++) {
        struct cci_http_request req = {.url = i & 1 ? "http://localhost:1/" : "http://localhost:2/"};
        struct cci_http_response *r = NULL;
        struct cci_buf b = {0};
        cc_error_code code = cci_http_request(crowd->http, &req, &forever, &r, NULL);
        if (!code)
            code = cci_http_body_all(r, 5, &b, &forever, NULL);
        cci_http_finish(r);
        cci_mutex_lock(&crowd->mutex);
        crowd->failed += code || b.n != 5;
        cci_mutex_unlock(&crowd->mutex);
        cci_buf_free(&b);
    }
}

/* Six threads over three connections to two places: never more open than allowed, and every request is answered but
 * those that met a hang-up on a new connection. */
static void test_threads(void)
{
    struct crowd crowd = {.open = 0};
    const struct cci_http_options opts = {.dialer = {crowd_dial, &crowd}, .no_proxy = true, .max_connections = 3};
    struct cci_thread threads[6];
    cci_mutex_init(&crowd.mutex);
    CHECK(cci_http_new(&opts, &crowd.http, NULL) == CC_OK);
    for (size_t i = 0; i < CCI_COUNT(threads); i++)
        CHECK(cci_thread_new(&threads[i], "ask", crowd_ask, &crowd) == 0);
    for (size_t i = 0; i < CCI_COUNT(threads); i++)
        cci_thread_join(&threads[i]);
    cci_http_free(crowd.http);
    CHECK_EQ_INT(crowd.open, 0);
    CHECK(crowd.most <= 3 && crowd.most > 0);
    CHECK(crowd.asked >= 1200 && crowd.failed <= crowd.asked / 7);
    cci_mutex_destroy(&crowd.mutex);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static long allocations_left;

static void *failing(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size && allocations_left-- <= 0)
        return NULL;
    return cci_mem_default_alloc(NULL, old, size);
}

static cc_error_code everything(cc_error *err)
{
    static const char *const texts[] = {"HTTP/1.1 200 OK\r\n\r\n\1" REDIRECT("https://b.example/y"),
                                        "HTTP/1.1 200 OK\r\n\r\n\1HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\n"
                                        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"};
    struct script script = {.texts = texts, .count = 2};
    const struct cci_http_options opts = {.dialer = {script_dial, &script}, .ca_file = "x.pem"};
    const struct cci_http_field field = {"Accept", "x"};
    const struct cci_http_request req = {.url = "https://a.example/x",
                                         .fields = &field,
                                         .field_count = 1,
                                         .authorization = "Basic QQ==",
                                         .range_from = 5};
    struct cci_http *http = NULL;
    struct cci_http_response *r = NULL;
    struct cci_buf out = {0};
    cc_error_code code = cci_http_new(&opts, &http, err);
    if (!code)
        code = cci_http_request(http, &req, &forever, &r, err);
    if (!code)
        code = cci_http_body_all(r, 100, &out, &forever, err);
    if (!code && (out.n != 5 || memcmp(out.p, "hello", 5) != 0))
        code = CC_ERR_IO;
    cci_http_finish(r);
    cci_http_free(http);
    cci_buf_free(&out);
    cci_buf_free(&script.said);
    return script.open ? CC_ERR_ALREADY_CLOSED : code;
}

static void test_out_of_memory(void)
{
    cc_error err = {0};
    cc_error_code code;
    long n = 0;
    cci_mem_hook.realloc_fn = failing;
    do {
        allocations_left = n++;
        code = everything(&err);
        if (code != CC_OK && code != CC_ERR_UNKNOWN)
            break;
        cci_error_release(&err);
    } while (code != CC_OK && n < 1000);
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK_OK(code, err);
    CHECK(n > 30);
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
    RUN(test_reuse);
    RUN(test_no_reuse);
    RUN(test_replay);
    RUN(test_range);
    RUN(test_redirect_credentials);
    RUN(test_redirect_refused);
    RUN(test_redirect_not_followed);
    RUN(test_arguments);
    RUN(test_proxy_tunnel);
    RUN(test_proxy_tunnel_refused);
    RUN(test_proxy_plain);
    RUN(test_secure_refused);
    RUN(test_cancel_and_deadline);
    RUN(test_room);
    RUN(test_threads);
    RUN(test_out_of_memory);
    return check_done();
}
