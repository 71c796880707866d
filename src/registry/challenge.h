/*
 * registry/challenge.h - what a server wants to see before it answers: WWW-Authenticate (RFC 9110, 11.6.1).
 *
 *     Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"
 *     Basic realm="Registry"
 *
 * A field holds a list of challenges, each a scheme with parameters or one token68, all separated by commas: whether a
 * comma begins a parameter or a challenge shows only behind the word that follows it. Of what there is, Bearer counts
 * before Basic (RFC 6750, distribution specification "token authentication"); other schemes are passed over. The text
 * is the server's, so hostile: it is bounded by the HTTP client, and what does not parse ends the list.
 */
#ifndef CCI_REGISTRY_CHALLENGE_H
#define CCI_REGISTRY_CHALLENGE_H

#include "../base/error.h"

enum cci_challenge_scheme { CCI_CHALLENGE_NONE, CCI_CHALLENGE_BASIC, CCI_CHALLENGE_BEARER };

#define CCI_CHALLENGE_MAX_VALUE 2048u

/* The best challenge so far; zeroed is none. Strings are "" when not said. */
struct cci_challenge {
    enum cci_challenge_scheme scheme;
    char realm[CCI_CHALLENGE_MAX_VALUE];
    char service[CCI_CHALLENGE_MAX_VALUE];
    char scope[CCI_CHALLENGE_MAX_VALUE];
};

static bool cci_challenge_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static void cci_challenge_space(const char **p)
{
    while (**p == ' ' || **p == '\t')
        ++*p;
}

/* A token; its length, 0 when there is none. */
static size_t cci_challenge_token(const char **p, const char **token)
{
    *token = *p;
    while (cci_challenge_token_char(**p))
        ++*p;
    return (size_t)(*p - *token);
}

static bool cci_challenge_word_is(const char *p, size_t n, const char *word)
{
    size_t i = 0;
    for (; i < n && word[i]; i++)
        if ((p[i] | 32) != word[i])
            return false;
    return i == n && !word[i];
}

/* A token or a quoted string, as far as it fits. False when there is neither, or it does not fit. */
static bool cci_challenge_value(const char **p, char out[CCI_CHALLENGE_MAX_VALUE])
{
    size_t n = 0;
    if (**p != '"') {
        const char *token;
        n = cci_challenge_token(p, &token);
        if (n == 0 || n >= CCI_CHALLENGE_MAX_VALUE)
            return false;
        memcpy(out, token, n);
        out[n] = '\0';
        return true;
    }
    for (++*p; **p && **p != '"'; ++*p) {
        if (**p == '\\' && (*p)[1])
            ++*p;
        if (n + 1 >= CCI_CHALLENGE_MAX_VALUE)
            return false;
        out[n++] = **p;
    }
    out[n] = '\0';
    if (**p != '"')
        return false;
    ++*p;
    return true;
}

/* token68: a token with '/' and '=' in it; the credentials-like form that none of the schemes here uses. */
static void cci_challenge_skip68(const char **p)
{
    while (cci_challenge_token_char(**p) || **p == '/' || **p == '=')
        ++*p;
}

/* One parameter: its name ends at *p, before '='. */
static bool cci_challenge_param(const char **p, const char *name, size_t n, struct cci_challenge *c, char *value)
{
    ++*p;
    cci_challenge_space(p);
    if (!cci_challenge_value(p, value))
        return false;
    char *to = cci_challenge_word_is(name, n, "realm")     ? c->realm
               : cci_challenge_word_is(name, n, "service") ? c->service
               : cci_challenge_word_is(name, n, "scope")   ? c->scope
                                                           : NULL;
    if (to)
        memcpy(to, value, strlen(value) + 1);
    return true;
}

/* What is behind a scheme: parameters up to the next scheme. False when the rest makes no sense. */
static bool cci_challenge_params(const char **p, struct cci_challenge *c, char *value)
{
    bool first = true;
    for (;;) {
        const char *before = *p, *name;
        while (**p == ',' || **p == ' ' || **p == '\t')
            ++*p;
        const char *start = *p;
        size_t n = cci_challenge_token(p, &name);
        if (n == 0)
            return **p == '\0';
        const char *behind = *p;
        cci_challenge_space(p);
        if (**p == '=' && (*p)[1] != '=' && !(first && ((*p)[1] == '\0' || (*p)[1] == ','))) {
            if (!cci_challenge_param(p, name, n, c, value))
                return false;
        } else if (first && behind > start && (*behind == '/' || *behind == '=')) {
            *p = start;
            cci_challenge_skip68(p);
        } else {
            *p = before; /* the next challenge's scheme */
            return true;
        }
        first = false;
    }
}

/* Reads one field's value; what it offers is kept when it is better than what *best has. False: out of memory. */
static bool cci_challenge_parse(const char *text, struct cci_challenge *best)
{
    struct cci_challenge *c = cci_mem_alloc(sizeof(*c));
    char *value = cci_mem_alloc(CCI_CHALLENGE_MAX_VALUE);
    const char *p = text;
    while (c && value && *p) {
        const char *scheme;
        while (*p == ',' || *p == ' ' || *p == '\t')
            p++;
        size_t n = cci_challenge_token(&p, &scheme);
        if (n == 0)
            break;
        memset(c, 0, sizeof(*c));
        c->scheme = cci_challenge_word_is(scheme, n, "bearer")  ? CCI_CHALLENGE_BEARER
                    : cci_challenge_word_is(scheme, n, "basic") ? CCI_CHALLENGE_BASIC
                                                                : CCI_CHALLENGE_NONE;
        bool ok = cci_challenge_params(&p, c, value);
        if (ok && c->scheme > best->scheme && (c->scheme != CCI_CHALLENGE_BEARER || c->realm[0]))
            *best = *c;
        if (!ok)
            break;
    }
    bool ok = c && value;
    cci_mem_free(c);
    cci_mem_free(value);
    return ok;
}

#endif
