// @timeout 60
// @flags -DCC_NO_TLS
// @sanitize address,undefined
// @sanitize thread
/* The HTTP client against scripts: other places that an answer or the environment sends it to. */
#define _GNU_SOURCE
#include "tests/registry/http_client.h"

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

/* ---- Proxies ------------------------------------------------------------------------------------------------ */

static void begin_proxied(const char *const *texts, size_t n, const char *proxy)
{
    struct cci_http_options opts = {.dialer = {script_dial, &c.script}, .allow_plain = true};
    memset(&c, 0, sizeof(c));
    c.script.texts = texts;
    c.script.count = n;
    set_proxy(proxy);
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

int main(void)
{
    RUN(test_redirect_credentials);
    RUN(test_redirect_refused);
    RUN(test_redirect_not_followed);
    RUN(test_proxy_tunnel);
    RUN(test_proxy_tunnel_refused);
    RUN(test_proxy_plain);
    return check_done();
}
