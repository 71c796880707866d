// @timeout 30
/* URLs: taken apart, put together, resolved against a base, compared; proxies chosen by the environment's rules. */
#define _GNU_SOURCE
#include "src/registry/proxy.h"

#include "tests/check.h"

/* "scheme host port target", or the error's message. */
static const char *apart(const char *text)
{
    static char out[4096];
    struct cci_url u;
    cc_error err = {0};
    if (cci_url_parse(text, &u, &err) == CC_OK)
        (void)snprintf(out, sizeof(out), "%s %s %u %s%s%s", u.secure ? "https" : "http", u.host, u.port, u.target,
                       u.user ? " user " : "", u.user ? u.user : "");
    else
        (void)snprintf(out, sizeof(out), "error %d", (int)err.code);
    cci_url_free(&u);
    cci_error_release(&err);
    return out;
}

static void test_parse(void)
{
    CHECK_EQ_STR(apart("https://registry.example/v2/"), "https registry.example 443 /v2/");
    CHECK_EQ_STR(apart("HTTP://Registry.EXAMPLE:5000"), "http registry.example 5000 /");
    CHECK_EQ_STR(apart("https://a?x=1#frag"), "https a 443 /?x=1");
    CHECK_EQ_STR(apart("https://a:/b"), "https a 443 /b");
    CHECK_EQ_STR(apart("http://[::1]:8080/x"), "http ::1 8080 /x");
    CHECK_EQ_STR(apart("http://[FE80::1]/"), "http fe80::1 80 /");
    CHECK_EQ_STR(apart("http://me:pa%20ss@host/x@y"), "http host 80 /x@y user me:pa%20ss");
    CHECK_EQ_STR(apart("http://a@b@host/"), "http host 80 / user a@b");
    CHECK_EQ_STR(apart("https://h/\xc3\xa4"), "https h 443 /%C3%A4");
    CHECK_EQ_STR(apart("https://under_score.example/"), "https under_score.example 443 /");
}

static void test_parse_refuses(void)
{
    static const char *const bad[] = {"",
                                      "registry.example/x",
                                      "ftp://a/",
                                      "https:/a",
                                      "https://",
                                      "https:///x",
                                      "https://a:0/",
                                      "https://a:65536/",
                                      "https://a:123456/",
                                      "https://a:1x/",
                                      "https://a b/",
                                      "https://a/b c",
                                      "https://a/\r\nHost: evil",
                                      "https://a/\tb",
                                      "https://a\x7f/",
                                      "https://[::1/",
                                      "https://[::1]x/",
                                      "https://[1]/",
                                      "https://[::1%25eth0]/",
                                      "https://.a/",
                                      "https://\xc3\xa4/",
                                      "https://u\r\n@a/",
                                      "https://a%00b/",
                                      "javascript:alert(1)"};
    char *text = malloc(CCI_URL_MAX + 100);
    for (size_t i = 0; i < CCI_COUNT(bad); i++) {
        CHECK_EQ_STR(apart(bad[i]), "error 2");
    }
    memset(text, 'a', CCI_URL_MAX + 99);
    memcpy(text, "https://a/", 10);
    text[CCI_URL_MAX + 99] = '\0';
    CHECK_EQ_STR(apart(text), "error 2");
    text[CCI_URL_MAX] = '\0';
    CHECK(strncmp(apart(text), "https a 443 /aaa", 16) == 0);
    memset(text + 8, 'h', 256);
    memcpy(text + 8 + 256, "/", 2);
    CHECK_EQ_STR(apart(text), "error 2");
    free(text);
}

/* Neither a password nor a signature gets into a message. */
static void test_errors_keep_secrets(void)
{
    struct cci_url u;
    cc_error err = {0};
    CHECK(cci_url_parse("https://me:secret@a:99999/", &u, &err) == CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "secret") == NULL);
    cci_error_release(&err);
    CHECK(cci_url_parse("https://a:99999/x?signature=secret", &u, &err) == CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(err.message, "secret") == NULL && strstr(err.message, "https://a:99999/x") != NULL);
    cci_error_release(&err);
}

static void is_resolved(const char *base_text, const char *reference, const char *want)
{
    struct cci_url base, u;
    cc_error err = {0};
    CHECK_OK(cci_url_parse(base_text, &base, &err), err);
    cc_error_code code = cci_url_resolve(&base, reference, &u, &err);
    if (!want) {
        CHECK_EQ_INT(code, CC_ERR_INVALID_ARGUMENT);
    } else {
        CHECK_OK(code, err);
        char *text = cci_url_text(&u, true);
        CHECK_EQ_STR(text, want);
        cci_mem_free(text);
    }
    cci_error_release(&err);
    cci_url_free(&base);
    cci_url_free(&u);
}

/* RFC 3986 section 5.4 has these, with another scheme. */
static void test_resolve(void)
{
    static const char base[] = "http://a/b/c/d;p?q";
    static const char *const cases[][2] = {{"g", "http://a/b/c/g"},
                                           {"./g", "http://a/b/c/g"},
                                           {"g/", "http://a/b/c/g/"},
                                           {"/g", "http://a/g"},
                                           {"//g", "http://g/"},
                                           {"?y", "http://a/b/c/d;p?y"},
                                           {"g?y", "http://a/b/c/g?y"},
                                           {"#s", "http://a/b/c/d;p?q"},
                                           {"g#s", "http://a/b/c/g"},
                                           {"g?y#s", "http://a/b/c/g?y"},
                                           {";x", "http://a/b/c/;x"},
                                           {"", "http://a/b/c/d;p?q"},
                                           {".", "http://a/b/c/"},
                                           {"./", "http://a/b/c/"},
                                           {"..", "http://a/b/"},
                                           {"../", "http://a/b/"},
                                           {"../g", "http://a/b/g"},
                                           {"../..", "http://a/"},
                                           {"../../g", "http://a/g"},
                                           {"../../../g", "http://a/g"},
                                           {"/./g", "http://a/g"},
                                           {"/../g", "http://a/g"},
                                           {"g.", "http://a/b/c/g."},
                                           {"..g", "http://a/b/c/..g"},
                                           {"./../g", "http://a/b/g"},
                                           {"./g/.", "http://a/b/c/g/"},
                                           {"g/./h", "http://a/b/c/g/h"},
                                           {"g/../h", "http://a/b/c/h"},
                                           {"g;x=1/../y", "http://a/b/c/y"},
                                           {"g?y/../x", "http://a/b/c/g?y/../x"},
                                           {"https://b:44/x", "https://b:44/x"},
                                           {"//b:44/x", "http://b:44/x"},
                                           {"//[::1]:44", "http://[::1]:44/"}};
    for (size_t i = 0; i < CCI_COUNT(cases); i++)
        is_resolved(base, cases[i][0], cases[i][1]);
    is_resolved("https://a:5000/v2/x", "/v2/y?z", "https://a:5000/v2/y?z");
    is_resolved("http://[::1]:5000/v2/x", "y", "http://[::1]:5000/v2/y");
    is_resolved(base, "ftp://x/", NULL);
    is_resolved(base, "http:g", NULL);
    is_resolved(base, "//x y/", NULL);
    is_resolved(base, "/a\r\nb", NULL);
    is_resolved(base, "//:80/", NULL);
}

static void test_loopback(void)
{
    static const char *const here[] = {"localhost", "x.localhost", "127.0.0.1", "127.255.0.9", "::1"};
    static const char *const there[] = {
        "localhost.example", "127.0.0.1.example", "127.1",      "0127.0.0.1", "128.0.0.1", "127.0.0.256",
        "xlocalhost",        "127.0.0.1.",        "1270.0.0.1", "::2",        ""};
    for (size_t i = 0; i < CCI_COUNT(here); i++)
        CHECK(cci_url_is_loopback(here[i]));
    for (size_t i = 0; i < CCI_COUNT(there); i++)
        CHECK(!cci_url_is_loopback(there[i]));
}

static bool excepted(const char *rules, const char *url)
{
    struct cci_url u;
    CHECK(cci_url_parse(url, &u, NULL) == CC_OK);
    bool r = cci_proxy_excepted(rules, &u);
    cci_url_free(&u);
    return r;
}

static void test_no_proxy(void)
{
    CHECK(excepted("*", "https://a/"));
    CHECK(excepted("b, a.example", "https://a.example/"));
    CHECK(excepted("A.Example", "https://x.a.example/"));
    CHECK(excepted(".a.example", "https://a.example/"));
    CHECK(excepted(".a.example,", "https://x.a.example/"));
    CHECK(excepted("*.a.example", "https://x.a.example/"));
    CHECK(!excepted("*.a.example", "https://a.example/"));
    CHECK(!excepted("a.example", "https://xa.example/"));
    CHECK(!excepted("a.example", "https://a.example.evil/"));
    CHECK(!excepted("x.a.example", "https://a.example/"));
    CHECK(excepted("a:443", "https://a/"));
    CHECK(!excepted("a:80", "https://a/"));
    CHECK(!excepted("a:x", "https://a/"));
    CHECK(excepted("10.0.0.0/8", "https://10.1.2.3/"));
    CHECK(!excepted("10.0.0.0/8", "https://11.1.2.3/"));
    CHECK(excepted("0.0.0.0/0", "https://11.1.2.3/"));
    CHECK(!excepted("10.0.0.0/33", "https://10.0.0.0/"));
    CHECK(!excepted("10.0.0.0/", "https://10.0.0.0/"));
    CHECK(!excepted("10.0.0.0/8", "https://a/"));
    CHECK(excepted("10.1.2.3", "https://10.1.2.3/"));
    CHECK(excepted("::2", "https://[::2]/"));
    CHECK(excepted("[::2]:443", "https://[::2]/"));
    CHECK(!excepted("[::2]:80", "https://[::2]/"));
    CHECK(!excepted("[::2", "https://[::2]/"));
    CHECK(excepted("fd00::/8", "https://[fd12:3456::1]/"));
    CHECK(excepted("10.0.0.0/8,FD12:3456::/31", "https://[fd12:3457:0:0:1::]:5000/"));
    CHECK(!excepted("fd12:3456::/32", "https://[fd12:3457::1]/"));
    CHECK(!excepted("fd00::/8", "https://10.0.0.1/"));
    CHECK(!excepted("10.0.0.0/8", "https://[a00::1]/"));
    CHECK(excepted("::/0", "https://[fe80::1]/"));
    CHECK(!excepted("::/0", "https://10.0.0.1/"));
    CHECK(!excepted("fd00::/129", "https://[fd00::]/"));
    CHECK(!excepted("fd00::/", "https://[fd00::]/"));
    CHECK(!excepted("fd00::/1x", "https://[fd00::]/"));
    /* One address has many spellings. */
    CHECK(excepted("2001:db8::1", "https://[2001:0DB8:0:0:0:0:0:1]/"));
    CHECK(excepted("1:2:3:4:5:6:7:8", "https://[1:2:3:4:5:6:7:8]/"));
    CHECK(excepted("::ffff:10.1.2.3", "https://[::ffff:a01:203]/"));
    CHECK(excepted("1:2:3:4:5:6:10.1.2.3", "https://[1:2:3:4:5:6:a01:203]/"));
    CHECK(excepted("1::", "https://[1:0:0:0:0:0:0:0]/"));
    static const char *const no_addresses[] = {"1::/00000",         ":1::",      "1:",      "1:2:3:4:5:6:7",
                                               "1:2:3:4:5:6:7:8:9", "1:::2",     "1::2::3", "12345::",
                                               "1:2:3:4:5:6:7::8",  "1::10.1.2", ":",       "1::g"};
    for (size_t i = 0; i < CCI_COUNT(no_addresses); i++)
        CHECK(!excepted(no_addresses[i], "https://[1::2]/"));
    CHECK(!excepted("", "https://a/"));
    CHECK(!excepted(" , .,*.,:", "https://a/"));
}

/* "host port authorization", "-" for none, "error N". */
static const char *chosen(const char *proxy, const char *url)
{
    static char out[512];
    struct cci_proxies p = {NULL, NULL, NULL};
    struct cci_proxy got;
    struct cci_url u;
    cc_error err = {0};
    char *copy = strdup(proxy);
    CHECK(cci_url_parse(url, &u, NULL) == CC_OK);
    *(u.secure ? &p.https : &p.http) = copy;
    cc_error_code code = cci_proxy_choose(&p, &u, &got, &err);
    if (code)
        (void)snprintf(out, sizeof(out), "error %d", (int)code);
    else if (!got.host)
        (void)snprintf(out, sizeof(out), "-");
    else
        (void)snprintf(out, sizeof(out), "%s %u %s", got.host, got.port, got.authorization ? got.authorization : "-");
    CHECK(!err.message || !strstr(err.message, "secret"));
    cci_proxy_free(&got);
    cci_error_release(&err);
    cci_url_free(&u);
    free(copy);
    return out;
}

static void test_proxy_url(void)
{
    CHECK_EQ_STR(chosen("http://p:3128", "https://a/"), "p 3128 -");
    CHECK_EQ_STR(chosen("p:3128", "http://a/"), "p 3128 -");
    CHECK_EQ_STR(chosen("http://[::5]:3128/", "https://a/"), "::5 3128 -");
    CHECK_EQ_STR(chosen("http://Aladdin:open%20sesame@p", "https://a/"), "p 80 Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    CHECK_EQ_STR(chosen("http://me@p", "https://a/"), "p 80 Basic bWU6");
    CHECK_EQ_STR(chosen("http://p:3128", "https://localhost/"), "-");
    CHECK_EQ_STR(chosen("http://p:3128", "http://127.0.0.1:5000/"), "-");
    CHECK_EQ_STR(chosen("https://me:secret@p:3128", "https://a/"), "error 2");
    CHECK_EQ_STR(chosen("socks5://me:secret@p:1080", "https://a/"), "error 2");
    CHECK_EQ_STR(chosen("http://me:secret@:1", "https://a/"), "error 2");
}

static void test_proxy_environment(void)
{
    struct cci_proxies p;
    setenv("https_proxy", "", 1);
    setenv("HTTPS_PROXY", "upper", 1);
    setenv("http_proxy", "lower", 1);
    setenv("HTTP_PROXY", "upper", 1);
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    CHECK(cci_proxies_load(&p, NULL) == CC_OK);
    CHECK_EQ_STR(p.https, "upper");
    CHECK_EQ_STR(p.http, "lower");
    CHECK(p.none == NULL);
    cci_proxies_free(&p);
    /* In a CGI program HTTP_PROXY is what a client's "Proxy:" field said. */
    unsetenv("http_proxy");
    setenv("REQUEST_METHOD", "GET", 1);
    CHECK(cci_proxies_load(&p, NULL) == CC_OK);
    CHECK(p.http == NULL);
    cci_proxies_free(&p);
    unsetenv("REQUEST_METHOD");
    CHECK(cci_proxies_load(&p, NULL) == CC_OK);
    CHECK_EQ_STR(p.http, "upper");
    cci_proxies_free(&p);
}

static void test_base64(void)
{
    static const char *const cases[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xff\xef\xbe", "/+++"}};
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        char *text = cci_base64_encode(cases[i][0], strlen(cases[i][0]));
        CHECK_EQ_STR(text, cases[i][1]);
        cci_mem_free(text);
    }
}

int main(void)
{
    RUN(test_parse);
    RUN(test_parse_refuses);
    RUN(test_errors_keep_secrets);
    RUN(test_resolve);
    RUN(test_loopback);
    RUN(test_no_proxy);
    RUN(test_proxy_url);
    RUN(test_proxy_environment);
    RUN(test_base64);
    return check_done();
}
