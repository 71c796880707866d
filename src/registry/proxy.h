/*
 * registry/proxy.h - which proxy a request goes through, as the environment says.
 *
 *     HTTPS_PROXY, HTTP_PROXY   http://[user:password@]host[:port], for URLs of that scheme; the http:// may be missing
 *     NO_PROXY                  hosts that are reached directly, with commas between:
 *                               name, .name   the host and those below it; *.name only those below it
 *                               10.0.0.0/8, fd00::/8    addresses; one alone stands for itself
 *                               name:port     that port only;   *   everything
 *
 * Lower-case names count before upper-case ones, as everywhere. HTTP_PROXY is not believed in a CGI program, where
 * a request can set it ("httpoxy"). Loopback is never reached through a proxy. https URLs go through a tunnel (CONNECT,
 * RFC 9110 section 9.3.6), so the proxy sees the host's name and nothing else.
 */
#ifndef CCI_REGISTRY_PROXY_H
#define CCI_REGISTRY_PROXY_H

#include "../base/bytes.h"
#include "base64.h"
#include "url.h"

/* What the environment said when a client was made. */
struct cci_proxies {
    char *https, *http, *none; /* the variables' values, or NULL */
};

/* One proxy, ready for use. */
struct cci_proxy {
    char *host;
    uint16_t port;
    char *authorization; /* value of Proxy-Authorization, or NULL */
};

static void cci_proxies_free(struct cci_proxies *p)
{
    cci_mem_free(p->https);
    cci_mem_free(p->http);
    cci_mem_free(p->none);
    memset(p, 0, sizeof(*p));
}

static void cci_proxy_free(struct cci_proxy *p)
{
    cci_mem_free(p->host);
    cci_mem_free(p->authorization);
    memset(p, 0, sizeof(*p));
}

/* A copy of a variable in *out, NULL when it is unset or empty under both names. False: no memory. */
static bool cci_proxies_env(const char *lower, const char *upper, char **out)
{
    const char *value = getenv(lower);
    if (!value || !*value)
        value = getenv(upper);
    *out = value && *value ? cci_mem_strdup(value) : NULL;
    return *out || !value || !*value;
}

static cc_error_code cci_proxies_load(struct cci_proxies *p, cc_error *err)
{
    bool cgi = getenv("REQUEST_METHOD") != NULL;
    memset(p, 0, sizeof(*p));
    if (cci_proxies_env("https_proxy", "HTTPS_PROXY", &p->https) &&
        cci_proxies_env("http_proxy", cgi ? "http_proxy" : "HTTP_PROXY", &p->http) &&
        cci_proxies_env("no_proxy", "NO_PROXY", &p->none))
        return CC_OK;
    cci_proxies_free(p);
    return cci_fail_nomem(err);
}

/* ---- NO_PROXY ------------------------------------------------------------------------------------------ */

/* An IPv6 address of n bytes as text (RFC 4291 section 2.2), "::" and an IPv4 address at its end included. */
static bool cci_proxy_ipv6(const char *s, size_t n, uint8_t out[16])
{
    size_t have = 0, gap = SIZE_MAX; /* bytes so far; those in front of the "::" */
    for (size_t i = 0; i < n || have == 0;) {
        uint32_t v = 0, v4;
        size_t digits = 0;
        if (n - i >= 2 && s[i] == ':' && s[i + 1] == ':' && gap == SIZE_MAX) {
            gap = have;
            i += 2;
            if (i == n)
                break;
        } else if (have && (s[i] != ':' || ++i == n)) {
            return false;
        }
        if (have <= 12 && cci_url_ipv4(s + i, n - i, &v4)) {
            cci_put_be32(out + have, v4);
            have += 4;
            break;
        }
        for (int d; i < n && digits < 5 && (d = cci_url_hex(s[i])) >= 0; i++, digits++)
            v = v << 4 | (uint32_t)d;
        if (digits == 0 || digits > 4 || have == 16)
            return false;
        out[have++] = (uint8_t)(v >> 8);
        out[have++] = (uint8_t)v;
    }
    if (gap == SIZE_MAX)
        return have == 16;
    if (have == 16)
        return false;
    memmove(out + 16 - (have - gap), out + gap, have - gap);
    memset(out + gap, 0, 16 - have);
    return true;
}

/* The bytes of an address as text: 4 or 16; 0 when it is none. */
static size_t cci_proxy_address(const char *s, size_t n, uint8_t out[16])
{
    uint32_t v4;
    if (!cci_url_ipv4(s, n, &v4))
        return n >= 2 && memchr(s, ':', n) && cci_proxy_ipv6(s, n, out) ? 16 : 0;
    cci_put_be32(out, v4);
    return 4;
}

/* Whether a rule of n bytes, "10.0.0.0/8" or an address, has the host in it, if that is an address, too. */
static bool cci_proxy_in_network(const char *rule, size_t n, const char *host)
{
    uint8_t network[16], address[16];
    const char *slash = memchr(rule, '/', n);
    size_t network_n = slash ? (size_t)(slash - rule) : n, bits_n = n - network_n, bits = 0;
    size_t size = cci_proxy_address(rule, network_n, network);
    if (!size || cci_proxy_address(host, strlen(host), address) != size || bits_n == 1 || bits_n > 4)
        return false;
    for (size_t i = 1; i < bits_n; i++) {
        if (!cci_url_is_digit(slash[i]))
            return false;
        bits = bits * 10 + (size_t)(slash[i] - '0');
    }
    if (!slash)
        bits = size * 8;
    if (bits > size * 8 || memcmp(network, address, bits / 8) != 0)
        return false;
    return bits % 8 == 0 || (network[bits / 8] ^ address[bits / 8]) >> (8 - bits % 8) == 0;
}

/* Whether one rule of n bytes names the host of u. */
static bool cci_proxy_rule(const char *rule, size_t n, const struct cci_url *u)
{
    size_t host_n = strlen(u->host);
    uint16_t port = u->port;
    if (n == 1 && rule[0] == '*')
        return true;
    if (cci_proxy_in_network(rule, n, u->host))
        return true;
    bool brackets = n > 1 && rule[0] == '[';
    const char *end = memchr(rule, brackets ? ']' : ':', n);
    if (brackets && !end)
        return false;
    const char *colon = brackets ? end + 1 : end;
    if (colon && !brackets && memchr(colon + 1, ':', n - (size_t)(colon - rule) - 1))
        colon = NULL; /* an IPv6 address without brackets */
    if (colon && colon < rule + n && (*colon != ':' || !cci_url_port(colon + 1, n - (size_t)(colon - rule) - 1, &port)))
        return false;
    if (port != u->port)
        return false;
    if (brackets) {
        rule++;
        n = (size_t)(end - rule);
    } else if (colon) {
        n = (size_t)(colon - rule);
    }
    bool below_only = n > 1 && rule[0] == '*' && rule[1] == '.';
    size_t skip = below_only ? 2 : n && rule[0] == '.' ? 1 : 0;
    rule += skip;
    n -= skip;
    if (n == 0 || n > host_n || !cci_url_same_word(u->host + host_n - n, rule, n))
        return false;
    return n == host_n ? !below_only : u->host[host_n - n - 1] == '.';
}

static bool cci_proxy_excepted(const char *rules, const struct cci_url *u)
{
    for (const char *p = rules; p && *p;) {
        p += strspn(p, " \t,");
        size_t n = strcspn(p, " \t,");
        if (n && cci_proxy_rule(p, n, u))
            return true;
        p += n;
    }
    return false;
}

/* ---- Choosing ------------------------------------------------------------------------------------------ */

/* "user:password" with percent-encodings becomes the value of Proxy-Authorization; NULL when there is no memory. */
static char *cci_proxy_basic(const char *user)
{
    struct cci_buf plain = {0};
    bool colon = false;
    for (const char *p = user; *p; p++) {
        char c = *p;
        colon = colon || c == ':';
        if (c == '%' && cci_url_hex(p[1]) >= 0 && cci_url_hex(p[2]) >= 0) {
            c = (char)(cci_url_hex(p[1]) << 4 | cci_url_hex(p[2]));
            p += 2;
        }
        (void)cci_buf_add(&plain, &c, 1);
    }
    if (!colon)
        (void)cci_buf_add(&plain, ":", 1); /* a name without a password */
    char *code = plain.failed ? NULL : cci_base64_encode(plain.p, plain.n);
    char *value = code ? cci_mem_printf("Basic %s", code) : NULL;
    cci_mem_free(code);
    cci_buf_free(&plain);
    return value;
}

/* Its URL. Errors never show the value: there may be a password in it. */
static cc_error_code cci_proxy_parse(const char *name, const char *value, struct cci_proxy *out, cc_error *err)
{
    struct cci_url u;
    char *text = strstr(value, "://") ? cci_mem_strdup(value) : cci_mem_printf("http://%s", value);
    if (!text)
        return cci_fail_nomem(err);
    cc_error_code code = cci_url_parse(text, &u, NULL);
    cci_mem_free(text);
    if (code)
        return code == CC_ERR_INVALID_ARGUMENT
                   ? cci_fail(err, code, NULL, "%s is not of the form http://[user:password@]host[:port]", name)
                   : cci_fail_nomem(err);
    out->port = u.port;
    out->host = cci_mem_strdup(u.host);
    out->authorization = u.user ? cci_proxy_basic(u.user) : NULL;
    bool secure = u.secure, ok = out->host && (out->authorization || !u.user);
    cci_url_free(&u);
    if (ok && !secure)
        return CC_OK;
    cci_proxy_free(out);
    return secure ? cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                             "%s names a proxy that is itself reached over TLS; only http:// proxies are supported "
                             "(https registries are reached through them in a tunnel)",
                             name)
                  : cci_fail_nomem(err);
}

/* The proxy for a URL; out->host NULL when it is reached directly. */
static cc_error_code cci_proxy_choose(const struct cci_proxies *p, const struct cci_url *u, struct cci_proxy *out,
                                      cc_error *err)
{
    const char *value = u->secure ? p->https : p->http;
    memset(out, 0, sizeof(*out));
    if (!value || cci_url_is_loopback(u->host) || cci_proxy_excepted(p->none, u))
        return CC_OK;
    return cci_proxy_parse(u->secure ? "HTTPS_PROXY" : "HTTP_PROXY", value, out, err);
}

#endif
