/*
 * registry/client.h - requests to a registry (distribution specification 1.1), and what its refusals mean.
 *
 *     {GET|HEAD} https://<host>/v2/<repository>/manifests/<tag or digest>
 *     GET        https://<host>/v2/<repository>/blobs/<digest>
 *
 * A request is sent again, a bounded number of times: after 401, with an answer to the challenge (auth.h); after 429
 * and 503, when Retry-After says; after other 5xx and after a broken connection, with rising pauses. A connection that
 * never worked is not tried again: what is wrong there (a name, a certificate) does not mend itself in seconds. Every
 * pause ends with the deadline or the cancel token. Each refusal has its own message, with what the registry said.
 *
 * Only the registry's own challenges are answered. A server that it redirects to (a store for blobs, a cache) must not
 * have our password by naming a token server of its own.
 *
 * The scheme is https. For a registry on this host (loopback), or when the caller allowed it, http is tried when the
 * first https connection fails; where both fail it is the first failure that is told.
 */
#ifndef CCI_REGISTRY_CLIENT_H
#define CCI_REGISTRY_CLIENT_H

#include "auth.h"

struct cci_registry_client {
    struct cci_http *http;
    const struct cci_name *name;
    const struct cci_wait *wait;
    struct cci_auth auth;
    bool may_plain; /* http is allowed for this host */
    struct cci_mutex mutex;
    bool plain, reached; /* under the mutex: by http; it answered once */
};

/* One request, through all its tries. */
struct cci_registry_call {
    const char *method; /* NULL: GET */
    const char *kind;   /* "manifests" or "blobs" */
    const char *what;   /* tag or digest */
    const char *accept; /* or NULL */
    uint64_t from;      /* first byte wanted */
};

static cc_error_code cci_registry_init(struct cci_registry_client *r, struct cci_http *http,
                                       const struct cci_name *name, bool allow_plain,
                                       const struct cci_auth_login *login, const struct cci_wait *wait, cc_error *err)
{
    memset(r, 0, sizeof(*r));
    r->http = http;
    r->name = name;
    r->wait = wait;
    r->may_plain = allow_plain || name->loopback;
    cci_mutex_init(&r->mutex);
    return cci_auth_init(&r->auth, http, name, login, err);
}

static void cci_registry_free(struct cci_registry_client *r)
{
    cci_auth_free(&r->auth);
    cci_mutex_destroy(&r->mutex);
}

/* ---- Refusals ------------------------------------------------------------------------------------------------- */

/* The error for a refusal of another server, to which the registry has redirected. */
static cc_error_code cci_registry_refused_elsewhere(const struct cci_registry_client *r,
                                                    const struct cci_registry_call *call,
                                                    const struct cci_http_response *resp, cc_error *err)
{
    return cci_fail(err, CC_ERR_NETWORK, r->name->full,
                    "the server %s, to which the registry %s leads for %s, answers with status %d%s", resp->url.host,
                    r->name->domain, call->what, cci_http_status(resp),
                    cci_http_status(resp) == 401 ? ": it wants a login, and the registry's is not for it" : "");
}

/* The error for an answer that is none of those wanted. */
static cc_error_code cci_registry_refused(const struct cci_registry_client *r, const struct cci_registry_call *call,
                                          struct cci_http_response *resp, cc_error *err)
{
    char why[300], when[40];
    int status = cci_http_status(resp);
    const char *name = r->name->full, *host = r->name->domain;
    bool blob = strcmp(call->kind, "blobs") == 0;
    if (cci_http_is_elsewhere(resp))
        return cci_registry_refused_elsewhere(r, call, resp, err);
    cci_registry_reason(resp, r->wait, why, sizeof(why));
    if (status == 403)
        return cci_fail(err, CC_ERR_NETWORK, name,
                        "the registry %s denies access to %s (403)%s: this user may not "
                        "read it",
                        host, r->name->repository, why);
    if (status == 404 && blob)
        return cci_fail(err, CC_ERR_NETWORK, name,
                        "the registry %s does not have the blob %s, which the image's "
                        "manifest lists (404)%s",
                        host, call->what, why);
    if (status == 404)
        return cci_fail(err, CC_ERR_NETWORK, name,
                        "there is no image %s in the registry %s (404)%s: check its name "
                        "and tag",
                        name, host, why);
    if (status == 429)
        return cci_fail(err, CC_ERR_NETWORK, name,
                        "the registry %s limits how often it is asked (429)%s: try again %s, or log in", host, why,
                        cci_registry_when(resp, when));
    if (status >= 500)
        return cci_fail(err, CC_ERR_NETWORK, name, "the registry %s has failed (%d)%s: try again %s", host, status, why,
                        cci_registry_when(resp, when));
    return cci_fail(err, CC_ERR_NETWORK, name, "the registry %s answers with status %d%s", host, status, why);
}

/* ---- Requests ------------------------------------------------------------------------------------------------- */

static bool cci_registry_is_plain(struct cci_registry_client *r, bool *reached)
{
    cci_mutex_lock(&r->mutex);
    bool plain = r->plain;
    *reached = r->reached;
    cci_mutex_unlock(&r->mutex);
    return plain;
}

static void cci_registry_note(struct cci_registry_client *r, bool plain, bool reached)
{
    cci_mutex_lock(&r->mutex);
    r->plain = plain;
    r->reached = r->reached || reached;
    cci_mutex_unlock(&r->mutex);
}

static cc_error_code cci_registry_send(struct cci_registry_client *r, const struct cci_registry_call *call, bool plain,
                                       unsigned *serial, bool *asked, struct cci_http_response **resp, cc_error *err)
{
    struct cci_http_field accept = {"Accept", call->accept};
    char *header = NULL;
    char *url = cci_mem_printf("%s://%s/v2/%s/%s/%s", plain ? "http" : "https", r->name->host, r->name->repository,
                               call->kind, call->what);
    *resp = NULL;
    cc_error_code code = url ? cci_auth_header(&r->auth, plain, r->wait, &header, serial, err) : cci_fail_nomem(err);
    *asked = !code;
    if (!code) {
        struct cci_http_request req = {.method = call->method,
                                       .url = url,
                                       .fields = &accept,
                                       .field_count = call->accept ? 1 : 0,
                                       .authorization = header,
                                       .range_from = call->from};
        code = cci_http_request(r->http, &req, r->wait, resp, err);
    }
    cci_credentials_wipe(header);
    cci_mem_free(url);
    return code;
}

/* Sends a request, by http where https fails and http may be tried. *asked false: it failed before, for a token. */
static cc_error_code cci_registry_try(struct cci_registry_client *r, const struct cci_registry_call *call,
                                      unsigned *serial, bool *asked, struct cci_http_response **resp, cc_error *err)
{
    bool reached, plain = cci_registry_is_plain(r, &reached);
    cc_error first;
    memset(&first, 0, sizeof(first));
    cc_error_code code = cci_registry_send(r, call, plain, serial, asked, resp, &first);
    if (code == CC_ERR_NETWORK && *asked && r->may_plain && !reached && !plain) {
        plain = true;
        code = cci_registry_send(r, call, plain, serial, asked, resp, NULL);
        /* 400 is what servers say to plain HTTP where they speak TLS. */
        if (code == CC_OK && cci_http_status(*resp) == 400) {
            cci_http_finish(*resp);
            *resp = NULL;
            code = CC_ERR_NETWORK;
        }
    }
    if (code == CC_OK)
        cci_registry_note(r, plain, true);
    if (code && !first.code)
        (void)cci_fail(&first, code, r->name->domain, "cannot ask the registry");
    if (code && err) {
        cci_error_release(err);
        *err = first;
        err->code = code;
    } else {
        cci_error_release(&first);
    }
    return code;
}

/* Whether a server does not know HEAD, which is an answer: the caller has to GET. */
static bool cci_registry_has_no_head(const struct cci_registry_call *call, int status)
{
    return call->method && strcmp(call->method, "HEAD") == 0 && (status == 405 || status == 501);
}

/* An answer has come: *again when the request is to be sent once more, the pause already over. Ends *resp then, and on
 * failure. */
static cc_error_code cci_registry_judge(struct cci_registry_client *r, const struct cci_registry_call *call,
                                        struct cci_http_response *resp, unsigned tries, unsigned serial,
                                        unsigned *refusals, bool *again, cc_error *err)
{
    int status = cci_http_status(resp);
    *again = false;
    bool reached;
    if (status == 200 || status == 206)
        cci_auth_worked(&r->auth, serial, cci_registry_is_plain(r, &reached));
    if (status == 200 || status == 206 || cci_registry_has_no_head(call, status))
        return CC_OK;
    cc_error_code code;
    uint64_t pause = cci_registry_patience(resp, tries);
    if (status == 401 && !cci_http_is_elsewhere(resp)) {
        /* Twice: the first token may just have run out. */
        code = cci_auth_answer(&r->auth, resp, serial, ++*refusals > 2, r->wait, err);
        *again = !code;
        cci_http_finish(resp);
    } else if (pause) {
        cci_http_finish(resp);
        code = cci_registry_pause(r->wait, pause, "the registry to be ready again", err);
        *again = !code;
    } else {
        code = cci_registry_refused(r, call, resp, err);
        cci_http_finish(resp);
    }
    if (code && err && err->path == NULL)
        err->path = cci_mem_strdup(r->name->full);
    return code;
}

/* Asks until there is a good answer (200 or 206; to HEAD also that there is no HEAD), which the caller finishes, or a
 * final failure. */
static cc_error_code cci_registry_call(struct cci_registry_client *r, const struct cci_registry_call *call,
                                       struct cci_http_response **resp, cc_error *err)
{
    unsigned serial = 0, refusals = 0;
    for (unsigned tries = 1;; tries++) {
        bool again, reached, asked;
        (void)cci_registry_is_plain(r, &reached);
        cc_error_code code = cci_registry_try(r, call, &serial, &asked, resp, err);
        if (code == CC_ERR_NETWORK && asked && reached && tries < CCI_REGISTRY_TRIES) {
            cci_error_release(err);
            code = cci_registry_pause(r->wait, CCI_REGISTRY_PAUSE << (tries - 1), "another try", err);
            if (!code)
                continue;
        }
        if (code)
            return code;
        code = cci_registry_judge(r, call, *resp, tries, serial, &refusals, &again, err);
        if (code || !again) {
            if (code)
                *resp = NULL;
            return code;
        }
    }
}

#endif
