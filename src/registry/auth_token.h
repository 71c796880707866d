/*
 * registry/auth_token.h - what is known of who we are (struct cci_auth), and tokens for it.
 *
 * A token is fetched from the challenge's realm: by GET with service and scope in the query, and with user name and
 * password if there are any; or, with an identity token, by POST of grant_type=refresh_token (distribution
 * specification, "Token Authentication" and "OAuth2").
 *
 * The realm is the registry's word, and gets our password if we have one. So a registry that was asked over TLS may
 * name no realm without it then; and the server there is asked again when it is overloaded or fails, as the registry
 * itself is (refusal.h).
 */
#ifndef CCI_REGISTRY_AUTH_TOKEN_H
#define CCI_REGISTRY_AUTH_TOKEN_H

#include "auth_memory.h"
#include "base64.h"
#include "challenge.h"
#include "name.h"
#include "refusal.h"

#define CCI_AUTH_MAX_ANSWER ((size_t)1 << 20)
#define CCI_AUTH_SECOND ((uint64_t)1000000000u)

/* Who we are. */
struct cci_auth_login {
    const char *username, *password; /* username NULL: by Docker's configuration */
    const char *ca_file;             /* authorities believed besides the system's, or NULL: for the memory */
    struct cci_auth_memory *memory;  /* or NULL */
};

struct cci_auth {
    struct cci_mutex mutex; /* for all that follows */
    struct cci_http *http;
    const struct cci_name *name;
    struct cci_credentials creds;
    bool asked;                     /* where the credentials come from was looked at */
    struct cci_challenge challenge; /* the last one */
    bool by_tls;                    /* it came over TLS */
    bool token_reached;             /* its token server has answered once */
    char *header;                   /* what Authorization says; NULL: nothing */
    uint64_t renew;                 /* when to fetch another token, in cci_os_now() nanoseconds */
    unsigned serial;                /* counts headers: one that was refused may be an old one */
    bool recalled, plain;           /* the header is from the memory; it was accepted without TLS */
    unsigned kept;                  /* the serial that is in the memory; 0 is none */
    struct cci_digest key;          /* for the memory */
    struct cci_auth_memory *memory; /* or NULL */
};

static bool cci_auth_has_credentials(const struct cci_auth *a)
{
    return a->creds.username || a->creds.identity_token;
}

/* A value in a query or a form: all but the unreserved characters is percent-encoded (RFC 3986, 2.3). */
static bool cci_auth_encode(struct cci_buf *to, const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        char three[3] = {'%', hex[c >> 4], hex[c & 15]};
        bool plain = cci_name_alnum(*p) || strchr("-._~", *p);
        if (!cci_buf_add(to, plain ? p : three, plain ? 1 : 3))
            return false;
    }
    return true;
}

/* Makes `header` what is sent from now on; takes it over. NULL is out of memory. */
static cc_error_code cci_auth_set(struct cci_auth *a, char *header, uint64_t renew, cc_error *err)
{
    if (!header)
        return cci_fail_nomem(err);
    cci_credentials_wipe(a->header);
    a->header = header;
    a->renew = renew;
    a->serial++;
    return CC_OK;
}

/* "Basic <base64 of user:password>"; NULL when there is no memory. */
static char *cci_auth_basic(const struct cci_credentials *c)
{
    char *both = cci_mem_printf("%s:%s", c->username, c->password);
    char *text = both ? cci_base64_encode(both, strlen(both)) : NULL;
    char *header = text ? cci_mem_printf("Basic %s", text) : NULL;
    cci_credentials_wipe(both);
    cci_credentials_wipe(text);
    return header;
}

/* ---- Tokens --------------------------------------------------------------------------------------------------- */

/* The token of an answer, for a header, and how long it is good. The text is the server's: a token must be one word. */
static cc_error_code cci_auth_token_parse(const void *text, size_t n, char **token, uint64_t *seconds, cc_error *err)
{
    struct cci_json doc;
    *token = NULL;
    *seconds = 60; /* the specification's default */
    cc_error_code code = cci_json_parse(&doc, text, n, "the token server's answer", err);
    if (code)
        return code;
    const struct cci_json_value *root = cci_json_root(&doc);
    const char *t = cci_json_text(&doc, cci_json_get(&doc, root, "token"));
    if (!t || !*t)
        t = cci_json_text(&doc, cci_json_get(&doc, root, "access_token"));
    uint64_t said;
    if (cci_json_size(&doc, cci_json_get(&doc, root, "expires_in"), &said) && said > 0)
        *seconds = CCI_MIN(said, (uint64_t)86400 * 365);
    bool word = t && *t;
    for (const char *p = t; word && *p; p++)
        word = *p > ' ' && *p < 127;
    if (!word)
        code = cci_fail(err, CC_ERR_NETWORK, NULL, "the token server's answer has no token");
    else if (!(*token = cci_mem_strdup(t)))
        code = cci_fail_nomem(err);
    if (doc.text.p)
        memset(doc.text.p, 0, doc.text.n);
    cci_json_free(&doc);
    return code;
}

/* What we want to do, when the challenge does not say: read the repository. */
static const char *cci_auth_scope(const struct cci_auth *a, char *room, size_t n)
{
    if (a->challenge.scope[0])
        return a->challenge.scope;
    (void)snprintf(room, n, "repository:%s:pull", a->name->repository);
    return room;
}

/* Appends "service=...&scope=..."; a scope of several is one parameter each in a query, one list in a form. */
static bool cci_auth_put_scope(const struct cci_auth *a, struct cci_buf *to, bool form)
{
    char room[CCI_NAME_MAX_REPOSITORY + 32];
    const char *scope = cci_auth_scope(a, room, sizeof(room));
    bool ok = cci_buf_str(to, "service=") && cci_auth_encode(to, a->challenge.service);
    if (form)
        return ok && cci_buf_str(to, "&scope=") && cci_auth_encode(to, scope);
    while (ok && *scope) {
        size_t n = strcspn(scope, " ");
        char *one = cci_mem_strndup(scope, n);
        ok = one && (!n || (cci_buf_str(to, "&scope=") && cci_auth_encode(to, one)));
        cci_mem_free(one);
        scope += n + (scope[n] == ' ');
    }
    return ok;
}

/* The request for a token: URL, and a form when there is an identity token. */
static bool cci_auth_token_request(const struct cci_auth *a, struct cci_buf *url, struct cci_buf *form)
{
    bool ok = cci_buf_str(url, a->challenge.realm);
    if (a->creds.identity_token)
        return ok && cci_buf_add(url, "", 1) && cci_buf_str(form, "grant_type=refresh_token&client_id=cc.h&") &&
               cci_auth_put_scope(a, form, true) && cci_buf_str(form, "&refresh_token=") &&
               cci_auth_encode(form, a->creds.identity_token);
    return ok && cci_buf_str(url, strchr(a->challenge.realm, '?') ? "&" : "?") && cci_auth_put_scope(a, url, false) &&
           (!a->creds.username || (cci_buf_str(url, "&account=") && cci_auth_encode(url, a->creds.username))) &&
           cci_buf_add(url, "", 1);
}

static cc_error_code cci_auth_token_refused(const struct cci_auth *a, struct cci_http_response *resp,
                                            const struct cci_wait *wait, cc_error *err)
{
    char why[300], when[40];
    int status = cci_http_status(resp);
    const char *host = a->name->domain;
    cci_registry_reason(resp, wait, why, sizeof(why));
    if (status == 401 || status == 403)
        return cci_fail(err, CC_ERR_NETWORK, host, "the registry's token server refuses %s%s: %s",
                        cci_auth_has_credentials(a) ? "the user name and password (or token)" : "anonymous access", why,
                        cci_auth_has_credentials(a) ? "log in again"
                                                    : "log in (docker login), or give a user name and password");
    if (status == 429)
        return cci_fail(err, CC_ERR_NETWORK, host,
                        "the registry's token server limits how often it is asked (429)%s: try again %s", why,
                        cci_registry_when(resp, when));
    if (status >= 500)
        return cci_fail(err, CC_ERR_NETWORK, host, "the registry's token server has failed (%d)%s: try again %s",
                        status, why, cci_registry_when(resp, when));
    return cci_fail(err, CC_ERR_NETWORK, host, "the registry's token server answers with status %d%s", status, why);
}

/* A request to the token server came to nothing. A realm that makes no sense is the registry's fault, not the caller's
 * argument. */
static cc_error_code cci_auth_token_failed(cc_error_code code, cc_error *err)
{
    if (code != CC_ERR_NETWORK && code != CC_ERR_INVALID_ARGUMENT)
        return code;
    return cci_fail_within(err, CC_ERR_NETWORK, "the token server that the registry names");
}

/* Whether the realm may be told who we are. Who is nobody may ask anywhere: what a registry behind a proxy that ends
 * TLS takes for its own address often has none. */
static cc_error_code cci_auth_check_realm(const struct cci_auth *a, cc_error *err)
{
    struct cci_url u;
    cc_error_code code = cci_url_parse(a->challenge.realm, &u, err);
    if (code)
        return cci_auth_token_failed(code, err);
    if (cci_auth_has_credentials(a) && a->by_tls && !u.secure && !cci_url_is_loopback(u.host))
        code = cci_fail(err, CC_ERR_NETWORK, a->name->domain,
                        "the registry is asked over TLS, but names a token server without, %s, where anybody on the "
                        "way could read who we are",
                        u.host);
    cci_url_free(&u);
    return code;
}

/* One request to the token server; *text is its answer. After a failure *pause says how long to wait before the next
 * request, 0: there is none. */
static cc_error_code cci_auth_token_ask(struct cci_auth *a, const struct cci_http_request *req, unsigned tries,
                                        const struct cci_wait *wait, struct cci_buf *text, uint64_t *pause,
                                        cc_error *err)
{
    struct cci_http_response *resp = NULL;
    cc_error_code code = cci_http_request(a->http, req, wait, &resp, err);
    bool again = a->token_reached;
    *pause = 0;
    if (!code && cci_http_status(resp) != 200) {
        *pause = cci_registry_patience(resp, tries);
        code = cci_auth_token_refused(a, resp, wait, err);
    } else {
        if (!code) {
            code = cci_http_body_all(resp, CCI_AUTH_MAX_ANSWER, text, wait, err);
            again = cci_http_broken(resp);
        }
        if (code == CC_ERR_NETWORK && again && tries < CCI_REGISTRY_TRIES)
            *pause = CCI_REGISTRY_PAUSE << (tries - 1);
        code = code ? cci_auth_token_failed(code, err) : CC_OK;
    }
    a->token_reached = a->token_reached || resp;
    cci_http_finish(resp);
    return code;
}

/* Asks the token server until it answers, or has failed for good. Free *text, also after a failure. */
static cc_error_code cci_auth_token_get(struct cci_auth *a, const struct cci_http_request *req,
                                        const struct cci_wait *wait, struct cci_buf *text, cc_error *err)
{
    uint64_t pause;
    cc_error_code code = cci_auth_check_realm(a, err);
    for (unsigned tries = 1; !code; tries++) {
        code = cci_auth_token_ask(a, req, tries, wait, text, &pause, err);
        if (!code || !pause)
            break;
        cci_error_release(err);
        text->n = 0;
        code = cci_registry_pause(wait, pause, "the registry's token server to be ready again", err);
    }
    return code;
}

/* Fetches a token for the challenge. With the mutex held. */
static cc_error_code cci_auth_fetch(struct cci_auth *a, const struct cci_wait *wait, cc_error *err)
{
    static const struct cci_http_field form_type = {"Content-Type", "application/x-www-form-urlencoded"};
    struct cci_buf url = {NULL, 0, 0, false}, form = {NULL, 0, 0, false}, answer = {NULL, 0, 0, false};
    char *basic = a->creds.username ? cci_auth_basic(&a->creds) : NULL, *token = NULL;
    uint64_t seconds = 0;
    cc_error_code code = CC_OK;
    if (!cci_auth_token_request(a, &url, &form) || (a->creds.username && !basic))
        code = cci_fail_nomem(err);
    if (!code) {
        struct cci_http_request req = {.url = (const char *)url.p, .authorization = basic};
        if (form.n) {
            req.method = "POST";
            req.fields = &form_type;
            req.field_count = 1;
            req.body = form.p;
            req.body_size = form.n;
        }
        code = cci_auth_token_get(a, &req, wait, &answer, err);
    }
    if (!code)
        code = cci_auth_token_parse(answer.p, answer.n, &token, &seconds, err);
    if (!code) /* a tenth of its time early, so that it does not end on the way */
        code = cci_auth_set(a, cci_mem_printf("Bearer %s", token),
                            cci_os_now() + (seconds - seconds / 10) * CCI_AUTH_SECOND - CCI_AUTH_SECOND / 2, err);
    cci_credentials_wipe(basic);
    cci_credentials_wipe(token);
    cci_buf_free(&url);
    if (form.p)
        memset(form.p, 0, form.n);
    cci_buf_free(&form);
    if (answer.p)
        memset(answer.p, 0, answer.n);
    cci_buf_free(&answer);
    return code;
}

#endif
