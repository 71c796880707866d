/* tests/registry/http_client.h - a client of HTTP whose servers speak from scripts, for the tests of the client. */
#ifndef TESTS_REGISTRY_HTTP_CLIENT_H
#define TESTS_REGISTRY_HTTP_CLIENT_H

#include "script_conn.h"

#include "../check.h"

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

#define REDIRECT(where) "HTTP/1.1 307 There\r\nLocation: " where "\r\nContent-Length: 4\r\n\r\nmove"

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

static void set_proxy(const char *proxy)
{
    unsetenv("https_proxy");
    unsetenv("http_proxy");
    unsetenv("no_proxy");
    setenv("HTTPS_PROXY", proxy, 1);
    setenv("HTTP_PROXY", proxy, 1);
    setenv("NO_PROXY", "direct.example", 1);
}

#endif
