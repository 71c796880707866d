/*
 * registry/auth.h - proving who we are to a registry, request by request.
 *
 * Nothing is sent until the registry asks (a 401 with a challenge), but for what it accepted in an earlier pull
 * (auth_memory.h). Then, by what it asks for:
 *
 *   Basic    user name and password with every request (RFC 7617).
 *   Bearer   a token with every request (RFC 6750), fetched from a token server (auth_token.h). A token has a scope and
 *            an end; one that ends soon is fetched anew before it is used.
 *
 * Credentials come from the caller or, when first asked for, from Docker's configuration (docker_config.h). The
 * workers of a pull share one cci_auth. Its mutex is held while a token is fetched, so the others wait for it and do
 * not fetch their own; their deadline and cancel token are the same, so nobody waits longer than it may.
 */
#ifndef CCI_REGISTRY_AUTH_H
#define CCI_REGISTRY_AUTH_H

#include "auth_token.h"

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
    else {
        a->by_tls = cci_http_by_tls(resp);
        code = cci_auth_meet(a, wait, err);
    }
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
