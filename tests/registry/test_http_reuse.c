// @timeout 60
// @flags -DCC_NO_TLS
// @sanitize address,undefined
// @sanitize thread
/* The HTTP client against scripts: connections used again, requests said again, many at once, and how they end. */
#define _GNU_SOURCE
#include "tests/registry/http_client.h"

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

/* A tunnel through a proxy, a redirect, another tunnel, a range, chunks. */
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
    set_proxy("http://proxy.example:3128");
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
    RUN(test_reuse);
    RUN(test_no_reuse);
    RUN(test_replay);
    RUN(test_range);
    RUN(test_cancel_and_deadline);
    RUN(test_room);
    RUN(test_threads);
    RUN(test_out_of_memory);
    return check_done();
}
