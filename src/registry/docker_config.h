/*
 * registry/docker_config.h - who we are to a registry: Docker's client configuration and credential helpers.
 *
 * $DOCKER_CONFIG/config.json, else $HOME/.docker/config.json, as `docker login` and `podman login` write it:
 *
 *     {"auths": {"registry.example": {"auth": "<base64 of user:password>", "identitytoken": "..."}},
 *      "credHelpers": {"registry.example": "name"}, "credsStore": "name"}
 *
 * For a registry the first hit counts: its helper in credHelpers, credsStore, its entry in auths. A helper is the
 * program docker-credential-<name>, run with "get", which reads the registry's name and writes
 * {"Username": "...", "Secret": "..."} (docker-credential-helpers protocol); the user name <token> means that the
 * secret is an identity token, to be exchanged for access tokens (auth.h).
 *
 * Keys in auths are host names, or, older, URLs; Docker Hub is https://index.docker.io/v1/ to all of them. The file and
 * what helpers say is parsed as untrusted: it is bounded, and a helper's name is a plain word, so that it cannot lead
 * to a program elsewhere. A file that is not there is no credentials; one that is damaged is an error, as silently
 * going on without credentials would only give a puzzling refusal later.
 */
#ifndef CCI_REGISTRY_DOCKER_CONFIG_H
#define CCI_REGISTRY_DOCKER_CONFIG_H

#include "../base/process.h"
#include "../image/blob.h"
#include "../image/json.h"
#include "base64.h"

#define CCI_DOCKER_MAX_FILE ((size_t)4 << 20)
#define CCI_DOCKER_MAX_ANSWER ((size_t)64 << 10) /* bytes of a helper's output */
#define CCI_DOCKER_HELPER_TIME                                                                                         \
    ((uint64_t)30 * 1000000000u) /* a helper may have to unlock something, but not for ever */
#define CCI_DOCKER_HUB_KEY "https://index.docker.io/v1/"

/* How to prove who we are; all NULL is anonymous. */
struct cci_credentials {
    char *username, *password; /* both or none */
    char *identity_token;      /* takes the place of both */
};

/* Where a registry's credentials are to be had. */
struct cci_docker_hit {
    char *helper;                 /* ask docker-credential-<helper>; or NULL */
    struct cci_credentials creds; /* else these */
};

/* Overwrites a secret before its memory goes back. */
static void cci_credentials_wipe(char *secret)
{
    for (volatile char *p = secret; p && *p; p++)
        *p = '\0';
    cci_mem_free(secret);
}

static void cci_credentials_free(struct cci_credentials *c)
{
    cci_mem_free(c->username);
    cci_credentials_wipe(c->password);
    cci_credentials_wipe(c->identity_token);
    memset(c, 0, sizeof(*c));
}

static void cci_docker_hit_free(struct cci_docker_hit *h)
{
    cci_mem_free(h->helper);
    h->helper = NULL;
    cci_credentials_free(&h->creds);
}

/* ---- The file --------------------------------------------------------------------------------------------------- */

/* Whether a key of the file, a host or a URL, means this registry. */
static bool cci_docker_key_is(const char *key, const char *registry)
{
    if (strcmp(registry, "docker.io") == 0 && (strcmp(key, "index.docker.io") == 0 || strcmp(key, "docker.io") == 0))
        return true;
    if (strcmp(registry, "docker.io") == 0)
        return strcmp(key, CCI_DOCKER_HUB_KEY) == 0 || strcmp(key, "https://index.docker.io/v1") == 0;
    const char *host = strncmp(key, "https://", 8) == 0 ? key + 8 : strncmp(key, "http://", 7) == 0 ? key + 7 : key;
    size_t n = strcspn(host, "/");
    return n == strlen(registry) && memcmp(host, registry, n) == 0;
}

/* The member of an object whose name means this registry, or NULL. */
static const struct cci_json_value *cci_docker_find(const struct cci_json *doc, const struct cci_json_value *object,
                                                    const char *registry)
{
    const struct cci_json_value *found = NULL;
    if (!object || object->type != CCI_JSON_OBJECT)
        return NULL;
    for (const struct cci_json_value *v = cci_json_first(object); v; v = cci_json_next(doc, object, v)) {
        const char *key = (const char *)doc->text.p + v->name;
        if (strcmp(key, registry) == 0)
            return v;
        if (!found && cci_docker_key_is(key, registry))
            found = v;
    }
    return found;
}

/* A helper's name goes into a program's name: letters, digits, '-', '_' and '.'. */
static bool cci_docker_word(const char *name)
{
    size_t n = strlen(name);
    return n && n <= 100 && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

/* Splits base64 of "user:password". */
static cc_error_code cci_docker_basic(const char *text, const char *registry, struct cci_credentials *c, cc_error *err)
{
    struct cci_buf plain = {NULL, 0, 0, false};
    uint8_t *room = cci_buf_reserve(&plain, cci_base64_room(strlen(text)));
    bool ok = room && cci_base64_decode(text, strlen(text), room, &plain.n);
    const uint8_t *colon = ok && plain.n ? memchr(plain.p, ':', plain.n) : NULL;
    cc_error_code code = CC_OK;
    /* Some tools pad the password with NULs. */
    size_t n = plain.n;
    while (colon && n && plain.p[n - 1] == '\0')
        n--;
    if (!colon || memchr(plain.p, '\0', n)) {
        code = plain.failed
                   ? cci_fail_nomem(err)
                   : cci_fail(err, CC_ERR_IO, NULL,
                              "the entry for %s has an \"auth\" that is not base64 of user:password", registry);
    } else {
        size_t user = (size_t)(colon - plain.p);
        c->username = cci_mem_strndup((const char *)plain.p, user);
        c->password = cci_mem_strndup((const char *)colon + 1, n - user - 1);
        if (!c->username || !c->password)
            code = cci_fail_nomem(err);
    }
    if (plain.p)
        memset(plain.p, 0, plain.n);
    cci_buf_free(&plain);
    return code;
}

static cc_error_code cci_docker_entry(const struct cci_json *doc, const struct cci_json_value *v, const char *registry,
                                      struct cci_credentials *c, cc_error *err)
{
    const char *auth = cci_json_text(doc, cci_json_get(doc, v, "auth"));
    const char *token = cci_json_text(doc, cci_json_get(doc, v, "identitytoken"));
    const char *user = cci_json_text(doc, cci_json_get(doc, v, "username"));
    const char *password = cci_json_text(doc, cci_json_get(doc, v, "password"));
    if (token && *token) {
        c->identity_token = cci_mem_strdup(token);
        return c->identity_token ? CC_OK : cci_fail_nomem(err);
    }
    if (auth && *auth)
        return cci_docker_basic(auth, registry, c, err);
    if (!user || !*user || !password)
        return CC_OK;
    c->username = cci_mem_strdup(user);
    c->password = cci_mem_strdup(password);
    return c->username && c->password ? CC_OK : cci_fail_nomem(err);
}

/* Looks a registry ("docker.io", "host:port") up in the text of a configuration file. Free *hit, also after failure. */
static cc_error_code cci_docker_lookup(const void *text, size_t n, const char *registry, struct cci_docker_hit *hit,
                                       cc_error *err)
{
    struct cci_json doc;
    memset(hit, 0, sizeof(*hit));
    cc_error_code code = cci_json_parse(&doc, text, n, "it", err);
    if (code)
        return code;
    const struct cci_json_value *root = cci_json_root(&doc);
    const char *helper = cci_json_text(&doc, cci_docker_find(&doc, cci_json_get(&doc, root, "credHelpers"), registry));
    if (!helper)
        helper = cci_json_text(&doc, cci_json_get(&doc, root, "credsStore"));
    if (root->type != CCI_JSON_OBJECT) {
        code = cci_fail(err, CC_ERR_IO, NULL, "it is not an object");
    } else if (helper && *helper && !cci_docker_word(helper)) {
        code = cci_fail(err, CC_ERR_IO, NULL, "\"%.100s\" is no name of a credential helper", helper);
    } else {
        if (helper && *helper) {
            hit->helper = cci_mem_strdup(helper);
            code = hit->helper ? CC_OK : cci_fail_nomem(err);
        }
        const struct cci_json_value *entry = cci_docker_find(&doc, cci_json_get(&doc, root, "auths"), registry);
        if (!code && entry)
            code = cci_docker_entry(&doc, entry, registry, &hit->creds, err);
    }
    cci_json_free(&doc);
    return code;
}

/* ---- Helpers ---------------------------------------------------------------------------------------------------- */

/* What a helper answered. Fills *c, which stays empty when it knows the registry but not us. */
static cc_error_code cci_docker_answer(const struct cci_buf *text, struct cci_credentials *c, cc_error *err)
{
    struct cci_json doc;
    cc_error_code code = cci_json_parse(&doc, text->p, text->n, "the answer", err);
    if (code)
        return code;
    const char *user = cci_json_text(&doc, cci_json_get(&doc, cci_json_root(&doc), "Username"));
    const char *secret = cci_json_text(&doc, cci_json_get(&doc, cci_json_root(&doc), "Secret"));
    if (!user || !secret) {
        code = cci_fail(err, CC_ERR_IO, NULL, "the answer has no Username and Secret");
    } else if (strcmp(user, "<token>") == 0) {
        c->identity_token = cci_mem_strdup(secret);
        code = c->identity_token ? CC_OK : cci_fail_nomem(err);
    } else if (*user) {
        c->username = cci_mem_strdup(user);
        c->password = cci_mem_strdup(secret);
        code = c->username && c->password ? CC_OK : cci_fail_nomem(err);
    }
    if (doc.text.p)
        memset(doc.text.p, 0, doc.text.n);
    cci_json_free(&doc);
    return code;
}

/* "credentials not found in native keychain" and the like: the helper's way to say that there are none. */
static bool cci_docker_none(struct cci_buf *text)
{
    return cci_buf_add(text, "", 1) && strstr((const char *)text->p, "credentials not found") != NULL;
}

/* Asks docker-credential-<helper>. *found false when it has none for this registry. */
static cc_error_code cci_docker_ask(const char *helper, const char *registry, const struct cci_wait *wait,
                                    struct cci_credentials *c, bool *found, cc_error *err)
{
    char program[128], get[] = "get";
    char *argv[] = {program, get, NULL};
    struct cci_buf text = {NULL, 0, 0, false};
    struct cci_wait patience = {CCI_MIN(wait->deadline, cci_os_now() + CCI_DOCKER_HELPER_TIME), wait->cancel};
    int status;
    *found = false;
    (void)snprintf(program, sizeof(program), "docker-credential-%s", helper);
    const char *key = strcmp(registry, "docker.io") == 0 ? CCI_DOCKER_HUB_KEY : registry;
    cc_error_code code = cci_process_run(argv, key, CCI_DOCKER_MAX_ANSWER, &patience, &text, &status, err);
    bool bad = !code && status > 0;
    if (bad && cci_docker_none(&text))
        bad = false;
    else if (bad)
        code = cci_fail(err, CC_ERR_IO, program, "the credential helper %s failed with exit code %d: %.200s", program,
                        status, text.p ? (const char *)text.p : "");
    else if (!code) {
        code = cci_docker_answer(&text, c, err);
        if (code)
            (void)cci_fail_within(err, code, program);
        *found = !code;
    }
    if (text.p)
        memset(text.p, 0, text.n);
    cci_buf_free(&text);
    return code;
}

/* The path of the configuration file; NULL when nothing says where, or there is no memory. */
static char *cci_docker_config_path(void)
{
    const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    if (dir && *dir)
        return cci_mem_printf("%s/config.json", dir);
    return home && *home ? cci_mem_printf("%s/.docker/config.json", home) : NULL;
}

/* What the configuration says at present, as a digest: all zeroes when there is none that can be read. */
static struct cci_digest cci_docker_config_digest(void)
{
    struct cci_digest d;
    struct cci_buf text = {NULL, 0, 0, false};
    char *path = cci_docker_config_path();
    memset(&d, 0, sizeof(d));
    if (path && cci_blob_read_file(path, 0, CCI_DOCKER_MAX_FILE, &text) == 0)
        d = cci_digest_of(text.p, text.n);
    if (text.p)
        memset(text.p, 0, text.n);
    cci_buf_free(&text);
    cci_mem_free(path);
    return d;
}

/* The credentials for a registry, by its name in references. None are all NULL. Free *out, also after a failure. */
static cc_error_code cci_docker_credentials(const char *registry, const struct cci_wait *wait,
                                            struct cci_credentials *out, cc_error *err)
{
    struct cci_buf text = {NULL, 0, 0, false};
    struct cci_docker_hit hit = {NULL, {NULL, NULL, NULL}};
    cc_error_code code = CC_OK;
    bool found = false;
    memset(out, 0, sizeof(*out));
    char *path = cci_docker_config_path();
    int r = path ? cci_blob_read_file(path, 0, CCI_DOCKER_MAX_FILE, &text) : -ENOENT;
    if (r < 0 && r != -ENOENT && r != -ENOTDIR)
        code = cci_fail_errno(err, CC_ERR_IO, -r, path, "cannot read Docker's configuration: %s", cci_errno_text(-r));
    if (r == 0) {
        code = cci_docker_lookup(text.p, text.n, registry, &hit, err);
        if (code) {
            (void)cci_fail_within(err, code, "Docker's configuration cannot be used");
            if (err && !err->path)
                err->path = cci_mem_strdup(path);
        }
    }
    if (!code && hit.helper) {
        code = cci_docker_ask(hit.helper, registry, wait, out, &found, err);
        if (code == CC_ERR_IO) { /* a helper that is not there was hardly meant by who sees this */
            char *within = cci_mem_printf("asking the credential helper that %s names", path);
            (void)cci_fail_within(err, code, within ? within : "asking the credential helper");
            cci_mem_free(within);
        }
    }
    if (!code && !found) {
        *out = hit.creds;
        memset(&hit.creds, 0, sizeof(hit.creds));
    }
    cci_docker_hit_free(&hit);
    if (text.p)
        memset(text.p, 0, text.n);
    cci_buf_free(&text);
    cci_mem_free(path);
    return code;
}

#endif
