/*
 * registry/http_request.h - what a request says: its parts, whether they may be said, and the text of them (RFC 9112
 * section 3); and whether a partial answer is the part that it asked for.
 */
#ifndef CCI_REGISTRY_HTTP_REQUEST_H
#define CCI_REGISTRY_HTTP_REQUEST_H

#include "http_head.h"
#include "proxy.h"

struct cci_http_field {
    const char *name, *value;
};

struct cci_http_request {
    const char *method;                  /* NULL: GET */
    const char *url;                     /* absolute, http or https */
    const struct cci_http_field *fields; /* sent to every host that a redirect leads to */
    size_t field_count;
    const char *authorization; /* value of that field, or NULL; goes to the host and port of `url` only */
    const void *body;          /* with a size; or NULL. A request with one is never sent twice */
    size_t body_size;
    uint64_t range_from; /* not 0: asks for the bytes from here on. 206 has checked Content-Range; 200 has all of it */
    bool no_redirect;    /* 3xx is an answer like any other */
};

/* What one exchange of a request needs to know. */
struct cci_http_turn {
    const struct cci_http_request *req;
    const struct cci_url *url;
    struct cci_proxy proxy;
    bool authorized; /* the request's authorization may be told to this server */
};

static const char *cci_http_method(const struct cci_http_request *req)
{
    return req->method ? req->method : "GET";
}

/* Whether doing a request twice is doing it once. */
static bool cci_http_is_safe(const struct cci_http_request *req)
{
    const char *m = cci_http_method(req);
    return !req->body && (strcmp(m, "GET") == 0 || strcmp(m, "HEAD") == 0);
}

static bool cci_http_add_field(struct cci_buf *b, const char *name, const char *value)
{
    return cci_buf_str(b, name) && cci_buf_str(b, ": ") && cci_buf_str(b, value) && cci_buf_str(b, "\r\n");
}

static bool cci_http_add_number(struct cci_buf *b, const char *name, const char *format, uint64_t n)
{
    char text[40];
    (void)snprintf(text, sizeof(text), format, (unsigned long long)n);
    return cci_http_add_field(b, name, text);
}

/* The request as it is sent, body and all. To a proxy that is no tunnel the whole URL is said (RFC 9112, 3.2.2). */
static bool cci_http_compose(const struct cci_http_turn *t, struct cci_buf *b)
{
    const struct cci_http_request *req = t->req;
    const bool proxied = t->proxy.host && !t->url->secure;
    char *host = cci_url_host_text(t->url, false);
    char *target = proxied ? cci_url_text(t->url, true) : cci_mem_strdup(t->url->target);
    bool ok = host && target && cci_buf_str(b, cci_http_method(req)) && cci_buf_str(b, " ") && cci_buf_str(b, target) &&
              cci_buf_str(b, " HTTP/1.1\r\n") && cci_http_add_field(b, "Host", host) &&
              cci_http_add_field(b, "User-Agent", "cc.h/" CC_VERSION_STRING) &&
              cci_http_add_field(b, "Accept-Encoding", "identity");
    for (size_t i = 0; ok && i < req->field_count; i++)
        ok = cci_http_add_field(b, req->fields[i].name, req->fields[i].value);
    if (ok && req->authorization && t->authorized)
        ok = cci_http_add_field(b, "Authorization", req->authorization);
    if (ok && proxied && t->proxy.authorization)
        ok = cci_http_add_field(b, "Proxy-Authorization", t->proxy.authorization);
    if (ok && req->range_from)
        ok = cci_http_add_number(b, "Range", "bytes=%llu-", req->range_from);
    if (ok && !cci_http_is_safe(req))
        ok = cci_http_add_number(b, "Content-Length", "%llu", req->body ? req->body_size : 0);
    if (ok)
        ok = cci_buf_str(b, "\r\n") && (!req->body || cci_buf_add(b, req->body, req->body_size));
    cci_mem_free(host);
    cci_mem_free(target);
    return ok;
}

static cc_error_code cci_http_check_request(const struct cci_http_request *req, cc_error *err)
{
    const char *method = cci_http_method(req);
    bool ok = cci_http_is_token(method, strlen(method)) && strcmp(method, "CONNECT") != 0 &&
              (!req->authorization || cci_http_is_value(req->authorization, strlen(req->authorization)));
    for (size_t i = 0; ok && i < req->field_count; i++)
        ok = cci_http_is_token(req->fields[i].name, strlen(req->fields[i].name)) &&
             cci_http_is_value(req->fields[i].value, strlen(req->fields[i].value));
    return ok ? CC_OK
              : cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL,
                         "a request's method or header field has characters in it that it cannot have (a line break?)");
}

/* A 206 must be the range that was asked for: "bytes 100-199/200" or with "*" for the total (RFC 9110, 14.4). */
static cc_error_code cci_http_check_range(const struct cci_http_request *req, const struct cci_http_head *h,
                                          cc_error *err)
{
    uint64_t first, last, total;
    const char *p = cci_http_head_field(h, "content-range", 0);
    if (h->status != 206)
        return CC_OK;
    if (!req->range_from || !p || strlen(p) < 6 || !cci_url_same_word(p, "bytes ", 6))
        return cci_http_head_bad("it is a part of something, but does not say which, or was not asked for one", err);
    p += 6;
    size_t first_n = strcspn(p, "-"), last_n = strcspn(p + first_n, "/");
    const char *slash = p + first_n + last_n;
    if (!cci_http_number(p, first_n, &first) || last_n < 2 || !cci_http_number(p + first_n + 1, last_n - 1, &last) ||
        *slash != '/' || (strcmp(slash, "/*") != 0 && !cci_http_number(slash + 1, strlen(slash + 1), &total)))
        return cci_http_head_bad("its Content-Range makes no sense", err);
    if (strcmp(slash, "/*") == 0)
        total = last + 1;
    if (first != req->range_from || last < first || last >= total ||
        (h->framing == CCI_HTTP_LENGTH && h->length != last - first + 1))
        return cci_http_head_bad("it is another range than the one that was asked for", err);
    return CC_OK;
}

#endif
