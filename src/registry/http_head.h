/*
 * registry/http_head.h - the head of a response: status line and fields (RFC 9112 sections 4, 5 and 6.3).
 *
 * The bytes are a server's, so hostile: bounded in size and number, and what is unclear is refused rather than guessed,
 * because two readers that guess differently are how one response becomes two. What the standard asks a client to
 * bear is borne: lines that end in a bare line feed, and fields folded over lines.
 *
 * The head is taken apart in place: names and values become strings inside its own bytes.
 */
#ifndef CCI_REGISTRY_HTTP_HEAD_H
#define CCI_REGISTRY_HTTP_HEAD_H

#include "http_reader.h"
#include "url.h"

#define CCI_HTTP_MAX_HEAD 65536u /* bytes of all heads that answer one request, interim ones included */
#define CCI_HTTP_MAX_FIELDS 256u

#define CCI_HTTP_SIZE_UNKNOWN UINT64_MAX

enum cci_http_framing {
    CCI_HTTP_NO_BODY,    /* whatever the fields say */
    CCI_HTTP_LENGTH,     /* `length` bytes */
    CCI_HTTP_CHUNKED,    /* chunks */
    CCI_HTTP_UNTIL_CLOSE /* all that comes */
};

/* A field, by where its strings are in `text`. */
struct cci_http_place {
    uint32_t name, value;
};

struct cci_http_head {
    struct cci_buf text; /* the lines, each cut into strings, and a NUL */
    struct cci_http_place *fields;
    size_t field_count;
    unsigned status;
    bool keep; /* the connection may carry another request after this response */
    enum cci_http_framing framing;
    uint64_t length; /* Content-Length, or CCI_HTTP_SIZE_UNKNOWN */
};

static void cci_http_head_free(struct cci_http_head *h)
{
    cci_buf_free(&h->text);
    cci_mem_free(h->fields);
    memset(h, 0, sizeof(*h));
}

static const char *cci_http_head_string(const struct cci_http_head *h, uint32_t at)
{
    return (const char *)h->text.p + at;
}

static bool cci_http_same_name(const char *a, const char *b)
{
    size_t n = strlen(a);
    return strlen(b) == n && cci_url_same_word(a, b, n);
}

/* The value of the nth field of that name, or NULL. */
static const char *cci_http_head_field(const struct cci_http_head *h, const char *name, size_t n)
{
    for (size_t i = 0; i < h->field_count; i++)
        if (cci_http_same_name(cci_http_head_string(h, h->fields[i].name), name) && n-- == 0)
            return cci_http_head_string(h, h->fields[i].value);
    return NULL;
}

/* Whether a comma-separated field has a word in one of its places (RFC 9110 section 5.6.1). */
static bool cci_http_head_has(const struct cci_http_head *h, const char *name, const char *word)
{
    const char *value;
    size_t word_n = strlen(word);
    for (size_t i = 0; (value = cci_http_head_field(h, name, i)) != NULL; i++)
        for (const char *p = value; *p;) {
            p += strspn(p, " \t,");
            size_t n = strcspn(p, " \t,");
            if (n == word_n && cci_url_same_word(p, word, n))
                return true;
            p += strcspn(p, ",");
        }
    return false;
}

static bool cci_http_is_token_char(char c)
{
    return cci_url_is_letter(c) || cci_url_is_digit(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* Whether a string can be a field's name (or a method). */
static bool cci_http_is_token(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!cci_http_is_token_char(s[i]))
            return false;
    return n > 0;
}

/* Whether bytes can be a field's value: no control characters but the tab. */
static bool cci_http_is_value(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (((uint8_t)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
            return false;
    return true;
}

/* ---- Parsing ------------------------------------------------------------------------------------------- */

static cc_error_code cci_http_head_bad(const char *why, cc_error *err)
{
    return cci_fail(err, CC_ERR_NETWORK, NULL, "this is not an HTTP response: %s", why);
}

/* "HTTP/1.1 200 OK", n bytes. */
static cc_error_code cci_http_head_status(struct cci_http_head *h, const char *line, size_t n, cc_error *err)
{
    if (n < 12 || memcmp(line, "HTTP/1.", 7) != 0 || !cci_url_is_digit(line[7]) || line[8] != ' ' ||
        (n > 12 && line[12] != ' '))
        return cci_http_head_bad("it does not begin with HTTP/1.1 and a status", err);
    for (size_t i = 9; i < 12; i++) {
        if (!cci_url_is_digit(line[i]))
            return cci_http_head_bad("its status is no number", err);
        h->status = h->status * 10 + (unsigned)(line[i] - '0');
    }
    if (h->status < 100 || h->status > 599)
        return cci_http_head_bad("its status is out of range", err);
    h->keep = line[7] != '0'; /* until a Connection field says otherwise */
    return CC_OK;
}

/* "Name: value" from `at`, n bytes without the line's end. */
static cc_error_code cci_http_head_add(struct cci_http_head *h, size_t at, size_t n, cc_error *err)
{
    char *line = (char *)h->text.p + at;
    const char *colon = memchr(line, ':', n);
    size_t name_n = colon ? (size_t)(colon - line) : 0, from = name_n + 1, to = n;
    if (!colon || !cci_http_is_token(line, name_n))
        return cci_http_head_bad("a line of its head is no header field", err);
    while (from < to && (line[from] == ' ' || line[from] == '\t'))
        from++;
    while (to > from && (line[to - 1] == ' ' || line[to - 1] == '\t'))
        to--;
    if (!cci_http_is_value(line + from, to - from))
        return cci_http_head_bad("a header field has control characters in it", err);
    if (h->field_count == CCI_HTTP_MAX_FIELDS)
        return cci_http_head_bad("it has more than 256 header fields", err);
    line[name_n] = '\0';
    line[to] = '\0'; /* at the latest the line's own end */
    h->fields[h->field_count].name = (uint32_t)at;
    h->fields[h->field_count++].value = (uint32_t)(at + from);
    return CC_OK;
}

/* Makes spaces of line ends that are followed by a space or tab: a field that was folded. */
static void cci_http_head_unfold(char *p, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        if (p[i] == '\n' && (p[i + 1] == ' ' || p[i + 1] == '\t')) {
            p[i] = ' ';
            if (i > 0 && p[i - 1] == '\r')
                p[i - 1] = ' ';
        }
}

/* A decimal number of bytes. */
static bool cci_http_number(const char *s, size_t n, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (!cci_url_is_digit(s[i]) || v > (uint64_t)INT64_MAX / 10 - 1)
            return false;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    *out = v;
    return n > 0;
}

/* Every Content-Length there is, in one field or several, must say the same (RFC 9110 section 8.6). */
static cc_error_code cci_http_head_length(struct cci_http_head *h, cc_error *err)
{
    const char *value;
    h->length = CCI_HTTP_SIZE_UNKNOWN;
    for (size_t i = 0; (value = cci_http_head_field(h, "content-length", i)) != NULL; i++)
        for (const char *p = value;; p++) {
            uint64_t length;
            p += strspn(p, " \t");
            size_t n = strcspn(p, " \t,");
            if (!cci_http_number(p, n, &length) || (h->length != CCI_HTTP_SIZE_UNKNOWN && h->length != length))
                return cci_http_head_bad("its Content-Length is not one number", err);
            h->length = length;
            p += n + strspn(p + n, " \t");
            if (*p == '\0')
                break;
            if (*p != ',')
                return cci_http_head_bad("its Content-Length is not one number", err);
        }
    return CC_OK;
}

/* How the body ends (RFC 9112 section 6.3) and whether the connection lasts. */
static cc_error_code cci_http_head_frame(struct cci_http_head *h, bool no_body, cc_error *err)
{
    bool old = !h->keep;
    cc_error_code code = cci_http_head_length(h, err);
    if (code)
        return code;
    if (cci_http_head_has(h, "connection", "close"))
        h->keep = false;
    else if (old)
        h->keep = cci_http_head_has(h, "connection", "keep-alive");
    const char *coding = cci_http_head_field(h, "transfer-encoding", 0);
    if (no_body || h->status < 200 || h->status == 204 || h->status == 304) {
        h->framing = CCI_HTTP_NO_BODY;
    } else if (coding) {
        if (!cci_http_same_name(coding, "chunked") || cci_http_head_field(h, "transfer-encoding", 1))
            return cci_http_head_bad("it has a transfer coding that was not asked for", err);
        h->framing = CCI_HTTP_CHUNKED;
        /* Both, or chunks from before they existed: the chunks count, and nothing after this is believed. */
        h->keep = h->keep && !old && h->length == CCI_HTTP_SIZE_UNKNOWN;
        h->length = CCI_HTTP_SIZE_UNKNOWN;
    } else if (h->length != CCI_HTTP_SIZE_UNKNOWN) {
        h->framing = CCI_HTTP_LENGTH;
    } else {
        h->framing = CCI_HTTP_UNTIL_CLOSE;
        h->keep = false;
    }
    return CC_OK;
}

/* Takes h->text apart: the lines of a head, without the empty one. `no_body`: it answers a HEAD or CONNECT. */
static cc_error_code cci_http_head_parse(struct cci_http_head *h, bool no_body, cc_error *err)
{
    char *p = (char *)h->text.p;
    size_t n = h->text.n;
    cci_http_head_unfold(p, n);
    h->fields = cci_mem_zalloc(CCI_HTTP_MAX_FIELDS, sizeof(*h->fields));
    if (!h->fields)
        return cci_fail_nomem(err);
    cc_error_code code = CC_OK;
    for (size_t at = 0; at < n && !code;) {
        const char *lf = memchr(p + at, '\n', n - at);
        size_t line_n = (lf ? (size_t)(lf - p) : n) - at;
        size_t next = at + line_n + 1;
        if (line_n && p[at + line_n - 1] == '\r')
            line_n--;
        code = at == 0 ? cci_http_head_status(h, p, line_n, err) : cci_http_head_add(h, at, line_n, err);
        at = next;
    }
    if (!code && h->status == 0)
        code = cci_http_head_bad("it is empty", err);
    return code ? code : cci_http_head_frame(h, no_body, err);
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

/* Whether an n byte line is empty but for its end. */
static bool cci_http_is_empty_line(const uint8_t *p, size_t n)
{
    return (n == 1 && p[0] == '\n') || (n == 2 && p[0] == '\r' && p[1] == '\n');
}

/* One head; *budget is what all heads together may still take. On failure *h may hold memory all the same. */
static cc_error_code cci_http_head_read_one(struct cci_http_head *h, struct cci_http_reader *r, bool no_body,
                                            size_t *budget, const struct cci_wait *wait, cc_error *err)
{
    for (;;) {
        size_t line = h->text.n;
        cc_error_code code = cci_http_reader_line(r, &h->text, *budget, "before it had answered", wait, err);
        if (code)
            return code;
        if (cci_http_is_empty_line(h->text.p + line, h->text.n - line)) {
            *budget -= h->text.n;
            h->text.n = line;
            if (!cci_buf_add(&h->text, "", 1))
                return cci_fail_nomem(err);
            h->text.n--; /* the NUL is beyond what is parsed */
            return cci_http_head_parse(h, no_body, err);
        }
    }
}

/* The head of the final response, past interim ones (RFC 9110 section 15.2). The whole of it must be there within the
 * reader's patience, so that a server cannot spin it out byte by byte. On success the caller frees *h. */
static cc_error_code cci_http_head_read(struct cci_http_head *h, struct cci_http_reader *r, bool no_body,
                                        const struct cci_wait *wait, cc_error *err)
{
    struct cci_wait shorter = cci_http_shorter(wait, r->idle_ns);
    size_t budget = CCI_HTTP_MAX_HEAD;
    cc_error_code code;
    memset(h, 0, sizeof(*h));
    do {
        cci_http_head_free(h);
        code = cci_http_head_read_one(h, r, no_body, &budget, &shorter, err);
        code = cci_http_shorter_end(code, wait, &shorter, r->idle_ns, "the server did not answer", err);
        if (!code && h->status == 101)
            code = cci_http_head_bad("it switches to a protocol that was not asked for", err);
    } while (!code && h->status < 200);
    if (code)
        cci_http_head_free(h);
    return code;
}

#endif
