/*
 * registry/auth.h - proving who we are to a registry, request by request.
 *
 * Nothing is sent until the registry asks (a 401 with a challenge), but for what it accepted in an earlier pull
 * (auth_memory.h). Then, by what it asks for:
 *
 *   Basic    user name and password with every request (RFC 7617).
 *   Bearer   a token with every request (RFC 6750), fetched from the challenge's realm: by GET with service and scope
 *            in the query, and with user name and password if there are any; or, with an identity token, by POST of
 *            grant_type=refresh_token (distribution specification, "Token Authentication" and "OAuth2"). A token has a
 *            scope and an end; one that ends soon is fetched anew before it is used.
 *
 * Credentials come from the caller or, when first asked for, from Docker's configuration (docker_config.h). The
 * workers of a pull share one cci_auth. Its mutex is held while a token is fetched, so the others wait for it and do
 * not fetch their own; their deadline and cancel token are the same, so nobody waits longer than it may.
 */
#ifndef CCI_REGISTRY_AUTH_H
#define CCI_REGISTRY_AUTH_H

#include "auth_memory.h"
#include "base64.h"
#include "challenge.h"
#include "docker_config.h"
#include "http.h"
#include "name.h"

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
    char *header;                   /* what Authorization says; NULL: nothing */
    uint64_t renew;                 /* when to fetch another token, in cci_os_now() nanoseconds */
    unsigned serial;                /* counts headers: one that was refused may be an old one */
    bool recalled, plain;           /* the header is from the memory; it was accepted without TLS */
    unsigned kept;                  /* the serial that is in the memory; 0 is none */
    struct cci_digest key;          /* for the memory */
    struct cci_auth_memory *memory; /* or NULL */
};

/* Sends what an earlier pull came to, until it is refused or runs out. */
static void cci_auth_recall(struct cci_auth *a, const struct cci_auth_login *login)
{
    struct cci_digest config = {{0}};
    a->memory = login->memory;
    if (!a->memory)
        return;
    if (!login->username)
        config = cci_docker_config_digest();
    const struct cci_digest_text said = cci_digest_spell(&config);
    const char *const about[] = {a->name->host,   a->name->repository, login->username,
                                 login->password, login->ca_file,      said.text};
    a->key = cci_auth_memory_key(about, CCI_COUNT(about));
    a->header = cci_auth_memory_get(a->memory, &a->key, &a->renew, &a->plain);
    a->recalled = a->header != NULL;
}

/* Free it, also after a failure. */
static cc_error_code cci_auth_init(struct cci_auth *a, struct cci_http *http, const struct cci_name *name,
                                   const struct cci_auth_login *login, cc_error *err)
{
    memset(a, 0, sizeof(*a));
    cci_mutex_init(&a->mutex);
    a->http = http;
    a->name = name;
    a->renew = CCI_FOREVER;
    cci_auth_recall(a, login);
    if (!login->username)
        return CC_OK;
    a->asked = true;
    a->creds.username = cci_mem_strdup(login->username);
    a->creds.password = cci_mem_strdup(login->password ? login->password : "");
    return a->creds.username && a->creds.password ? CC_OK : cci_fail_nomem(err);
}

static void cci_auth_free(struct cci_auth *a)
{
    cci_credentials_free(&a->creds);
    cci_credentials_wipe(a->header);
    cci_mutex_destroy(&a->mutex);
}

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

static cc_error_code cci_auth_token_refused(const struct cci_auth *a, int status, cc_error *err)
{
    if (status == 401 || status == 403)
        return cci_fail(err, CC_ERR_NETWORK, a->name->domain, "%s",
                        cci_auth_has_credentials(a)
                            ? "the registry's token server refuses the user name and password (or token): log in again"
                            : "the registry's token server refuses anonymous access: log in (docker login), or give a "
                              "user name and password");
    return cci_fail(err, CC_ERR_NETWORK, a->name->domain, "the registry's token server answers with status %d", status);
}

/* Fetches a token for the challenge. With the mutex held. */
static cc_error_code cci_auth_fetch(struct cci_auth *a, const struct cci_wait *wait, cc_error *err)
{
    static const struct cci_http_field form_type = {"Content-Type", "application/x-www-form-urlencoded"};
    struct cci_buf url = {NULL, 0, 0, false}, form = {NULL, 0, 0, false}, answer = {NULL, 0, 0, false};
    struct cci_http_response *resp = NULL;
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
        code = cci_http_request(a->http, &req, wait, &resp, err);
    }
    if (!code && cci_http_status(resp) != 200)
        code = cci_auth_token_refused(a, cci_http_status(resp), err);
    if (!code)
        code = cci_http_body_all(resp, CCI_AUTH_MAX_ANSWER, &answer, wait, err);
    cci_http_finish(resp);
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

/* ---- Around a request ----------------------------------------------------------------------------------------- */

/* What was recalled is no good: begin as if there had been nothing. */
static void cci_auth_unrecall(struct cci_auth *a)
{
    cci_auth_memory_forget(a->memory, &a->key);
    cci_credentials_wipe(a->header);
    a->header = NULL;
    a->renew = CCI_FOREVER;
    a->recalled = false;
}

/* What to send as Authorization: a copy, for cci_credentials_wipe; *header NULL is nothing. What is recalled goes the
 * way it went before: never without TLS if it was accepted with it. */
static cc_error_code cci_auth_header(struct cci_auth *a, bool plain, const struct cci_wait *wait, char **header,
                                     unsigned *serial, cc_error *err)
{
    cc_error_code code = CC_OK;
    *header = NULL;
    cci_mutex_lock(&a->mutex);
    if (a->recalled && cci_os_now() >= a->renew)
        cci_auth_unrecall(a); /* the challenge that another one is fetched for is not known */
    else if (a->header && cci_os_now() >= a->renew)
        code = cci_auth_fetch(a, wait, err);
    if (!code && a->header && !(a->recalled && a->plain != plain)) {
        *header = cci_mem_strdup(a->header);
        code = *header ? CC_OK : cci_fail_nomem(err);
    }
    *serial = a->serial;
    cci_mutex_unlock(&a->mutex);
    return code;
}

/* The best challenge of an answer. */
static bool cci_auth_read_challenge(const struct cci_http_response *resp, struct cci_challenge *c)
{
    const char *field;
    memset(c, 0, sizeof(*c));
    for (size_t i = 0; i < 16 && (field = cci_http_field(resp, "WWW-Authenticate", i)) != NULL; i++)
        if (!cci_challenge_parse(field, c))
            return false;
    return true;
}

/* Acts on a challenge. With the mutex held. */
static cc_error_code cci_auth_meet(struct cci_auth *a, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = CC_OK;
    if (!a->asked) {
        code = cci_docker_credentials(a->name->domain, wait, &a->creds, err);
        a->asked = !code;
    }
    if (code)
        return code;
    if (a->challenge.scheme == CCI_CHALLENGE_BEARER)
        return cci_auth_fetch(a, wait, err);
    if (a->challenge.scheme == CCI_CHALLENGE_NONE)
        return cci_fail(err, CC_ERR_NETWORK, a->name->domain,
                        "the registry wants a login of a kind that is not supported (neither Basic nor Bearer)");
    if (!a->creds.username)
        return cci_fail(err, CC_ERR_NETWORK, a->name->domain,
                        "the registry wants a user name and password: log in (docker login), or give them");
    return cci_auth_set(a, cci_auth_basic(&a->creds), CCI_FOREVER, err);
}

/*
 * The registry answered 401 to a request with header number `serial`. CC_OK: send it again, there is something better
 * to say now. `refused` is set when this request was answered so before.
 */
static cc_error_code cci_auth_answer(struct cci_auth *a, const struct cci_http_response *resp, unsigned serial,
                                     bool refused, const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = CC_OK;
    cci_mutex_lock(&a->mutex);
    if (serial != a->serial && !refused)
        goto done; /* somebody has met the challenge meanwhile */
    if (a->recalled)
        cci_auth_unrecall(a);
    bool basic = a->header && strncmp(a->header, "Basic ", 6) == 0;
    if (refused || basic)
        code = cci_fail(err, CC_ERR_NETWORK, a->name->domain, "%s",
                        cci_auth_has_credentials(a) ? "the registry refuses the user name and password"
                                                    : "the registry refuses anonymous access: log in (docker login), "
                                                      "or give a user name and password");
    else if (!cci_auth_read_challenge(resp, &a->challenge))
        code = cci_fail_nomem(err);
    else
        code = cci_auth_meet(a, wait, err);
done:
    cci_mutex_unlock(&a->mutex);
    return code;
}

/* The registry accepted a request with header number `serial`, sent without TLS or with: keep it for the next pull. */
static void cci_auth_worked(struct cci_auth *a, unsigned serial, bool plain)
{
    cci_mutex_lock(&a->mutex);
    if (a->memory && a->header && !a->recalled && serial == a->serial && serial != a->kept) {
        cci_auth_memory_put(a->memory, &a->key, a->header, a->renew, plain);
        a->kept = serial;
    }
    cci_mutex_unlock(&a->mutex);
}

#endif
