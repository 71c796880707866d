/*
 * Challenges, tokens and references: the small grammars around a registry.
 */
#include "../../src/registry/client.h"
#include "../check.h"

static struct cci_challenge parsed(const char *a, const char *b)
{
    struct cci_challenge c;
    memset(&c, 0, sizeof(c));
    CHECK(cci_challenge_parse(a, &c));
    if (b)
        CHECK(cci_challenge_parse(b, &c));
    return c;
}

static void is(const char *a, const char *b, int scheme, const char *realm, const char *service, const char *scope)
{
    struct cci_challenge c = parsed(a, b);
    CHECK_EQ_INT(c.scheme, scheme);
    CHECK_EQ_STR(c.realm, realm);
    CHECK_EQ_STR(c.service, service);
    CHECK_EQ_STR(c.scope, scope);
}

static void test_challenge(void)
{
    is("Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\"", NULL, CCI_CHALLENGE_BEARER,
       "https://a/t", "s", "repository:a/b:pull,push");
    is("bEARER  Realm = x , SERVICE=y", NULL, CCI_CHALLENGE_BEARER, "x", "y", "");
    is("Basic realm=\"a \\\"quoted\\\" \\\\ realm\", charset=\"UTF-8\"", NULL, CCI_CHALLENGE_BASIC,
       "a \"quoted\" \\ realm", "", "");
    is("Basic", NULL, CCI_CHALLENGE_BASIC, "", "", "");
    /* Several in one field, and in several fields: Bearer counts. */
    is("Basic realm=\"b\", Bearer realm=\"t\", service=\"s\"", NULL, CCI_CHALLENGE_BEARER, "t", "s", "");
    is("Bearer realm=\"t\", Basic realm=\"b\"", NULL, CCI_CHALLENGE_BEARER, "t", "", "");
    is("Basic realm=\"b\"", "Bearer realm=\"t\"", CCI_CHALLENGE_BEARER, "t", "", "");
    is("Negotiate, Basic realm=\"b\"", NULL, CCI_CHALLENGE_BASIC, "b", "", "");
    is("Negotiate YWJj/d==, Basic realm=\"b\"", NULL, CCI_CHALLENGE_BASIC, "b", "", "");
    is("Digest qop=\"auth, auth-int\", Basic realm=\"b\"", NULL, CCI_CHALLENGE_BASIC, "b", "", "");
    is(", ,Basic realm=\"b\",,", NULL, CCI_CHALLENGE_BASIC, "b", "", "");
    /* Without a realm a Bearer is of no use; nor is what does not parse. */
    is("Bearer service=\"s\"", NULL, CCI_CHALLENGE_NONE, "", "", "");
    is("", NULL, CCI_CHALLENGE_NONE, "", "", "");
    is("Bearer realm=\"never closed", NULL, CCI_CHALLENGE_NONE, "", "", "");
    is("Bearer realm=", NULL, CCI_CHALLENGE_NONE, "", "", "");
    is("@@", NULL, CCI_CHALLENGE_NONE, "", "", "");
}

static void test_challenge_is_bounded(void)
{
    char text[CCI_CHALLENGE_MAX_VALUE + 100];
    memset(text, 'a', sizeof(text));
    memcpy(text, "Bearer realm=\"", 14);
    memcpy(text + sizeof(text) - 2, "\"", 2);
    is(text, NULL, CCI_CHALLENGE_NONE, "", "", "");
    memcpy(text + 14 + CCI_CHALLENGE_MAX_VALUE - 1, "\"", 2); /* just fits */
    struct cci_challenge c = parsed(text, NULL);
    CHECK_EQ_INT(c.scheme, CCI_CHALLENGE_BEARER);
    CHECK_EQ_INT(strlen(c.realm), CCI_CHALLENGE_MAX_VALUE - 1);
}

static void token_is(const char *text, const char *want, uint64_t want_seconds)
{
    char *token = NULL;
    uint64_t seconds = 0;
    cc_error err = {0};
    cc_error_code code = cci_auth_token_parse(text, strlen(text), &token, &seconds, &err);
    cci_error_release(&err);
    if (!want) {
        CHECK(code != CC_OK && !token);
        return;
    }
    CHECK_EQ_INT(code, CC_OK);
    CHECK_EQ_STR(token, want);
    CHECK_EQ_INT(seconds, want_seconds);
    cci_mem_free(token);
}

static void test_token(void)
{
    token_is("{\"token\":\"abc\"}", "abc", 60);
    token_is("{\"access_token\":\"abc\",\"expires_in\":300}", "abc", 300);
    token_is("{\"token\":\"one\",\"access_token\":\"two\",\"expires_in\":0}", "one", 60);
    token_is("{\"token\":\"\",\"access_token\":\"two\"}", "two", 60);
    token_is("{\"token\":\"abc\",\"expires_in\":9000000000000000}", "abc", 86400 * 365);
    token_is("{\"token\":\"abc\",\"expires_in\":\"300\"}", "abc", 60);
    token_is("{\"token\":\"a\\r\\nX-Evil: 1\"}", NULL, 0); /* would become a field of its own */
    token_is("{\"token\":\"a b\"}", NULL, 0);
    token_is("{\"token\":\"a\\u00e9\"}", NULL, 0);
    token_is("{}", NULL, 0);
    token_is("[]", NULL, 0);
    token_is("{\"token\":5}", NULL, 0);
    token_is("<html>", NULL, 0);
}

static void request_is(struct cci_auth *a, const char *want_url, const char *want_form)
{
    struct cci_buf url = {NULL, 0, 0, false}, form = {NULL, 0, 0, false};
    CHECK(cci_auth_token_request(a, &url, &form));
    CHECK_EQ_STR((const char *)url.p, want_url);
    if (want_form) {
        CHECK(cci_buf_add(&form, "", 1));
        CHECK_EQ_STR((const char *)form.p, want_form);
    } else {
        CHECK_EQ_INT(form.n, 0);
    }
    cci_buf_free(&url);
    cci_buf_free(&form);
}

static void test_token_request(void)
{
    const struct cci_auth_login nobody = {NULL, NULL, NULL, NULL}, somebody = {"us er", "pw", NULL, NULL};
    struct cci_name name;
    struct cci_auth a;
    cc_error err = {0};
    CHECK_OK(cci_name_parse(&name, "r.example/team/app:1", &err), err);
    CHECK_OK(cci_auth_init(&a, NULL, &name, &nobody, &err), err);
    a.challenge = parsed("Bearer realm=\"https://t/x\",service=\"reg & co\"", NULL);
    request_is(&a, "https://t/x?service=reg%20%26%20co&scope=repository%3Ateam%2Fapp%3Apull", NULL);
    a.challenge =
        parsed("Bearer realm=\"https://t/x?y=1\",service=\"s\",scope=\"repository:a:pull repository:b:pull\"", NULL);
    request_is(&a, "https://t/x?y=1&service=s&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull", NULL);
    a.creds.identity_token = cci_mem_strdup("t=/+k");
    request_is(&a, "https://t/x?y=1",
               "grant_type=refresh_token&client_id=cc.h&service=s&scope=repository%3Aa%3Apull%20repository%3Ab%3Apull"
               "&refresh_token=t%3D%2F%2Bk");
    cci_auth_free(&a);
    CHECK_OK(cci_auth_init(&a, NULL, &name, &somebody, &err), err);
    a.challenge = parsed("Bearer realm=\"https://t/x\",service=\"s\",scope=\"z\"", NULL);
    request_is(&a, "https://t/x?service=s&scope=z&account=us%20er", NULL);
    char *basic = cci_auth_basic(&a.creds);
    CHECK_EQ_STR(basic, "Basic dXMgZXI6cHc=");
    cci_mem_free(basic);
    cci_auth_free(&a);
}

/* ---- What is kept between pulls -------------------------------------------------------------------------------- */

static struct cci_auth_memory memory;

/* What a pull would send first; "" for nothing. */
static const char *recalled(const char *reference, const char *user, const char *password, const char *ca, bool plain)
{
    static char text[100];
    const struct cci_auth_login login = {user, password, ca, &memory};
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_name name;
    struct cci_auth a;
    unsigned serial;
    char *header = NULL;
    cc_error err = {0};
    CHECK_OK(cci_name_parse(&name, reference, &err), err);
    CHECK_OK(cci_auth_init(&a, NULL, &name, &login, &err), err);
    CHECK_OK(cci_auth_header(&a, plain, &wait, &header, &serial, &err), err);
    (void)snprintf(text, sizeof(text), "%s", header ? header : "");
    cci_credentials_wipe(header);
    cci_auth_free(&a);
    return text;
}

/* A pull that the registry accepts with this header, good for `ns` from now. */
static void accepted(const char *reference, const char *user, const char *password, const char *header, uint64_t ns)
{
    const struct cci_auth_login login = {user, password, NULL, &memory};
    struct cci_name name;
    struct cci_auth a;
    cc_error err = {0};
    CHECK_OK(cci_name_parse(&name, reference, &err), err);
    CHECK_OK(cci_auth_init(&a, NULL, &name, &login, &err), err);
    if (a.recalled)
        cci_auth_unrecall(&a);
    CHECK_OK(cci_auth_set(&a, cci_mem_strdup(header), cci_os_now() + ns, &err), err);
    cci_auth_worked(&a, a.serial, false);
    cci_auth_free(&a);
}

static void test_memory(void)
{
    const uint64_t hour = 3600 * CCI_AUTH_SECOND;
    cci_auth_memory_init(&memory);
    CHECK_EQ_STR(recalled("r.example/a", NULL, NULL, NULL, false), "");
    accepted("r.example/a", NULL, NULL, "Bearer x", hour);
    CHECK_EQ_STR(recalled("r.example/a:2", NULL, NULL, NULL, false), "Bearer x");
    CHECK_EQ_STR(recalled("r.example/a", NULL, NULL, NULL, true), ""); /* never without TLS */
    CHECK_EQ_STR(recalled("r.example/b", NULL, NULL, NULL, false), "");
    CHECK_EQ_STR(recalled("q.example/a", NULL, NULL, NULL, false), "");
    CHECK_EQ_STR(recalled("r.example/a", "u", NULL, NULL, false), "");
    CHECK_EQ_STR(recalled("r.example/a", NULL, NULL, "ca.pem", false), "");
    accepted("r.example/a", "u", "p", "Basic 1", hour);
    accepted("r.example/a", "u", "p", "Basic 2", hour);
    CHECK_EQ_STR(recalled("r.example/a", "u", "p", NULL, false), "Basic 2");
    CHECK_EQ_STR(recalled("r.example/a", "u", "q", NULL, false), "");
    CHECK_EQ_STR(recalled("r.example/a", NULL, NULL, NULL, false), "Bearer x");
    accepted("r.example/gone", NULL, NULL, "Bearer y", 0);
    CHECK_EQ_STR(recalled("r.example/gone", NULL, NULL, NULL, false), "");
    for (int i = 0; i < 100; i++) { /* bounded; what is used stays */
        char name[40];
        (void)snprintf(name, sizeof(name), "r.example/n%d", i);
        accepted(name, NULL, NULL, "Bearer n", hour);
        CHECK_EQ_STR(recalled("r.example/a", NULL, NULL, NULL, false), "Bearer x");
    }
    CHECK_EQ_STR(recalled("r.example/n99", NULL, NULL, NULL, false), "Bearer n");
    CHECK_EQ_STR(recalled("r.example/n1", NULL, NULL, NULL, false), "");
    CHECK_EQ_STR(recalled("r.example/a", "u", "p", NULL, false), "");
    cci_auth_memory_destroy(&memory);
}

/* ---- Dates --------------------------------------------------------------------------------------------------- */

static void date_is(const char *text, uint64_t want)
{
    uint64_t got = 0;
    CHECK(cci_http_date_parse(text, 1700000000, &got));
    CHECK_EQ_INT(got, want);
}

static void test_dates(void)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "Sun",
                                      "Sun, ",
                                      "3600",
                                      "Sun, 06 Nov 1994 08:49:37",
                                      "Sun, 06 Nov 1994 08:49:37 UTC",
                                      "Sun, 06 Nov 1994 08:49:37 GMT ",
                                      "Sun, 6 Nov 1994 08:49:37 GMT",
                                      "Sun, 31 Nov 1994 08:49:37 GMT",
                                      "Sun, 00 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 24:00:00 GMT",
                                      "Sun, 06 Nov 1994 08:60:00 GMT",
                                      "Sun, 29 Feb 2023 00:00:00 GMT",
                                      "Sun, 29 Feb 2100 00:00:00 GMT",
                                      "Sun, 06 Nov 1969 08:49:37 GMT",
                                      "Xun, 06 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Xov 1994 08:49:37 GMT",
                                      "Sunday, 06 Nov 1994 08:49:37 GMT",
                                      "Sunday, 06-Nov-1994 08:49:37 GMT",
                                      "Sun Nov 6 08:49:37 1994",
                                      "Sun Nov 16 08:49:37 94",
                                      "Sun, -6 Nov 1994 08:49:37 GMT"};
    uint64_t got;
    date_is("Sun, 06 Nov 1994 08:49:37 GMT", 784111777);
    date_is("Sunday, 06-Nov-94 08:49:37 GMT", 784111777);
    date_is("Sun Nov  6 08:49:37 1994", 784111777);
    date_is("Wed Nov 16 08:49:37 1994", 784975777);
    date_is("Thu, 01 Jan 1970 00:00:00 GMT", 0);
    date_is("Thu, 29 Feb 2024 23:59:60 GMT", 1709251200);
    date_is("Fri, 01 Mar 2024 00:00:00 GMT", 1709251200);
    date_is("Tue, 29 Feb 2000 00:00:00 GMT", 951782400);
    date_is("Mon, 01 Mar 2100 00:00:00 GMT", 4107542400);
    date_is("Friday, 31-Dec-99 23:59:59 GMT", 946684799);  /* 2099 is too far ahead of 2023 */
    date_is("Friday, 31-Dec-73 23:59:59 GMT", 3281990399); /* 2073 is not */
    date_is("Sunday, 31-Dec-74 23:59:59 GMT", 157766399);  /* 2074 is again */
    date_is("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799);
    for (size_t i = 0; i < CCI_COUNT(bad); i++)
        if (cci_http_date_parse(bad[i], 1700000000, &got))
            check_fail(__FILE__, __LINE__, bad[i]);
}

/* ---- References ------------------------------------------------------------------------------------------------ */

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void name_is(const char *text, const char *full, const char *host, const char *repository, const char *tag,
                    bool loopback)
{
    struct cci_name n;
    cc_error err = {0};
    CHECK_OK(cci_name_parse(&n, text, &err), err);
    CHECK_EQ_STR(n.full, full);
    CHECK_EQ_STR(n.host, host);
    CHECK_EQ_STR(n.repository, repository);
    CHECK_EQ_STR(n.tag, tag);
    CHECK_EQ_INT(n.loopback, loopback);
}

static void test_names(void)
{
    name_is("alpine", "docker.io/library/alpine:latest", "registry-1.docker.io", "library/alpine", "latest", false);
    name_is("user/app:1", "docker.io/user/app:1", "registry-1.docker.io", "user/app", "1", false);
    name_is("docker.io/alpine", "docker.io/library/alpine:latest", "registry-1.docker.io", "library/alpine", "latest",
            false);
    name_is("index.docker.io/a/b", "docker.io/a/b:latest", "registry-1.docker.io", "a/b", "latest", false);
    name_is("ghcr.io/org/img@" DIGEST, "ghcr.io/org/img@" DIGEST, "ghcr.io", "org/img", "", false);
    name_is("ghcr.io/org/img:t@" DIGEST, "ghcr.io/org/img:t@" DIGEST, "ghcr.io", "org/img", "t", false);
    name_is("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000", "x", "latest", true);
    name_is("localhost/x", "localhost/x:latest", "localhost", "x", "latest", true);
    name_is("127.0.0.1:5000/a/b_c/d__e-f.g:T_1.x-y", "127.0.0.1:5000/a/b_c/d__e-f.g:T_1.x-y", "127.0.0.1:5000",
            "a/b_c/d__e-f.g", "T_1.x-y", true);
    name_is("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000", "x", "latest", true);
    name_is("[2001:db8::1]/x", "[2001:db8::1]/x:latest", "[2001:db8::1]", "x", "latest", false);
    name_is("127.evil.example/x", "127.evil.example/x:latest", "127.evil.example", "x", "latest", false);
    name_is("localhost.example/x", "localhost.example/x:latest", "localhost.example", "x", "latest", false);
    name_is("Reg.Example:443/a---b", "Reg.Example:443/a---b:latest", "Reg.Example:443", "a---b", "latest", false);
}

static void name_bad(const char *text, const char *part)
{
    struct cci_name n;
    cc_error err = {0};
    cc_error_code code = cci_name_parse(&n, text, &err);
    bool said = err.message && strstr(err.message, part);
    if (!said)
        printf("# %s: %s\n", text, err.message ? err.message : "(taken)");
    cci_error_release(&err);
    CHECK_EQ_INT(code, CC_ERR_INVALID_ARGUMENT);
    CHECK(said);
}

static void test_bad_names(void)
{
    char text[2000];
    name_bad("", "empty");
    name_bad("Alpine", "repository \"Alpine\"");
    name_bad("a//b", "repository");
    name_bad("/a", "repository");
    name_bad("a/", "repository");
    name_bad("a/../b", "repository");
    name_bad("a..b", "repository");
    name_bad("a___b", "repository");
    name_bad("a._b", "repository");
    name_bad("-a", "repository");
    name_bad("a-", "repository");
    name_bad("a b", "repository");
    name_bad("a?b=c", "repository");
    name_bad("a%2f", "repository");
    name_bad("a:", "tag");
    name_bad("a:.x", "tag");
    name_bad("a:x y", "tag");
    name_bad("a:x\r\nHost: evil", "tag");
    name_bad("a@", "digest");
    name_bad("a@sha512:00", "digest");
    name_bad("a@" DIGEST "0", "digest");
    name_bad("a@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", "digest");
    name_bad("reg.example:0/a", "registry");
    name_bad("reg.example:65536/a", "registry");
    name_bad("reg.example:/a", "registry");
    name_bad("reg..example/a", "registry");
    name_bad("-reg.example/a", "registry");
    name_bad("user@reg.example/a", "digest");
    name_bad("[::1/a:1", "registry");
    name_bad("[zz::]:1/a", "registry");
    name_bad("http://reg.example/a", "registry");
    memset(text, 'a', sizeof(text));
    text[256] = '\0';
    name_bad(text, "repository");
    text[256] = 'a';
    text[sizeof(text) - 1] = '\0';
    name_bad(text, "too long");
    memcpy(text, "a:", 2);
    text[2 + 129] = '\0';
    name_bad(text, "tag");
}

int main(void)
{
    RUN(test_challenge);
    RUN(test_challenge_is_bounded);
    RUN(test_token);
    RUN(test_token_request);
    RUN(test_memory);
    RUN(test_dates);
    RUN(test_names);
    RUN(test_bad_names);
    return check_done();
}
