/*
 * image/json.h - a JSON reader (RFC 8259) for manifests, configurations and credential files.
 *
 * The whole text is parsed into one array of values in document order: an array or object is followed by its
 * members, and `next` leads past them. Names, strings and numbers are kept, decoded and NUL-terminated, in one text
 * buffer and referred to by offset. So a document costs two allocations, whatever its shape.
 *
 * The text is hostile. It is bounded in size, in nesting (CCI_JSON_MAX_DEPTH: the parser recurses) and in the number
 * of values (CCI_JSON_MAX_VALUES). Strings must be UTF-8 (RFC 3629) and are UTF-8 when decoded; \u escapes must pair
 * their surrogates. A NUL in a string is refused, so that a decoded string is what its C string is. Where a name
 * comes twice in an object the last one counts, as for the Go programs that write and check these documents: a digest
 * must not stand for one thing to them and another to us.
 */
#ifndef CCI_IMAGE_JSON_H
#define CCI_IMAGE_JSON_H

#include "../base/error.h"

#define CCI_JSON_MAX_SIZE ((size_t)16 << 20) /* bytes of text */
#define CCI_JSON_MAX_DEPTH 64                /* arrays and objects inside one another */
#define CCI_JSON_MAX_VALUES 262144           /* in the whole document */

enum cci_json_type {
    CCI_JSON_NULL,
    CCI_JSON_FALSE,
    CCI_JSON_TRUE,
    CCI_JSON_NUMBER,
    CCI_JSON_STRING,
    CCI_JSON_ARRAY,
    CCI_JSON_OBJECT
};

struct cci_json_value {
    enum cci_json_type type;
    uint32_t next;  /* index of the first value behind this one and its members */
    uint32_t count; /* members of an array or object */
    uint32_t name;  /* of an object's member: offset of its name in the text buffer */
    uint32_t text;  /* of a string or number: offset in the text buffer */
};

/* A parsed document; values[0] is its value. Zeroed is empty. */
struct cci_json {
    struct cci_json_value *values;
    uint32_t count, cap;
    struct cci_buf text;
};

struct cci_json_parser {
    struct cci_json *doc;
    const uint8_t *start, *p, *end;
    unsigned depth;
    const char *problem; /* what is wrong with the document; NULL: out of memory */
};

static bool cci_json_value(struct cci_json_parser *s, uint32_t name);

static bool cci_json_bad(struct cci_json_parser *s, const char *problem)
{
    s->problem = problem;
    return false;
}

static void cci_json_space(struct cci_json_parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

/* Takes one character after white space. */
static bool cci_json_take(struct cci_json_parser *s, char c)
{
    cci_json_space(s);
    if (s->p == s->end || *s->p != (uint8_t)c)
        return false;
    s->p++;
    return true;
}

/* The bytes of the UTF-8 character at p; 0 if there is no valid one. */
static unsigned cci_json_utf8(const uint8_t *p, const uint8_t *end)
{
    size_t n = (size_t)(end - p);
    unsigned c = p[0];
    if (c < 0x80)
        return 1;
    unsigned len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || n < len)
        return 0;
    for (unsigned i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (c == 0xe0 && p[1] < 0xa0) || (c == 0xf0 && p[1] < 0x90);
    bool surrogate = c == 0xed && p[1] > 0x9f;
    bool beyond = c == 0xf4 && p[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : len;
}

static bool cci_json_add_rune(struct cci_json_parser *s, uint32_t c)
{
    uint8_t b[4];
    size_t n = 0;
    if (c < 0x80) {
        b[n++] = (uint8_t)c;
    } else if (c < 0x800) {
        b[n++] = (uint8_t)(0xc0 | c >> 6);
        b[n++] = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        b[n++] = (uint8_t)(0xe0 | c >> 12);
        b[n++] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        b[n++] = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        b[n++] = (uint8_t)(0xf0 | c >> 18);
        b[n++] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        b[n++] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        b[n++] = (uint8_t)(0x80 | (c & 0x3f));
    }
    return cci_buf_add(&s->doc->text, b, n);
}

/* Four hexadecimal digits. */
static bool cci_json_hex4(struct cci_json_parser *s, uint32_t *out)
{
    uint32_t v = 0;
    if (s->end - s->p < 4)
        return cci_json_bad(s, "a \\u escape is cut short");
    for (int i = 0; i < 4; i++) {
        unsigned c = *s->p++;
        unsigned digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
        if (digit == 99)
            return cci_json_bad(s, "a \\u escape has a character that is no hexadecimal digit");
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}

/* What follows \u: one code point, or two that are a surrogate pair (RFC 8259, 7). */
static bool cci_json_unicode(struct cci_json_parser *s)
{
    uint32_t c, low;
    if (!cci_json_hex4(s, &c))
        return false;
    if (c == 0)
        return cci_json_bad(s, "a string contains a NUL character");
    if (c >= 0xdc00 && c <= 0xdfff)
        return cci_json_bad(s, "a \\u escape is half of a surrogate pair");
    if (c >= 0xd800 && c <= 0xdbff) {
        if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
            return cci_json_bad(s, "a \\u escape is half of a surrogate pair");
        s->p += 2;
        if (!cci_json_hex4(s, &low))
            return false;
        if (low < 0xdc00 || low > 0xdfff)
            return cci_json_bad(s, "a \\u escape is half of a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    return cci_json_add_rune(s, c);
}

static bool cci_json_escape(struct cci_json_parser *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->p == s->end)
        return cci_json_bad(s, "a string has no end");
    char c = (char)*s->p++;
    if (c == 'u')
        return cci_json_unicode(s);
    const char *at = c ? strchr(from, c) : NULL;
    if (!at)
        return cci_json_bad(s, "a string has an unknown escape");
    return cci_buf_add(&s->doc->text, &to[at - from], 1);
}

/* A string behind its opening quote, to the text buffer. */
static bool cci_json_string(struct cci_json_parser *s, uint32_t *text)
{
    *text = (uint32_t)s->doc->text.n;
    for (;;) {
        const uint8_t *run = s->p;
        while (s->p < s->end && *s->p >= 0x20 && *s->p < 0x80 && *s->p != '"' && *s->p != '\\')
            s->p++;
        if (s->p > run && !cci_buf_add(&s->doc->text, run, (size_t)(s->p - run)))
            return false;
        if (s->p == s->end)
            return cci_json_bad(s, "a string has no end");
        if (*s->p == '"')
            break;
        if (*s->p == '\\') {
            s->p++;
            if (!cci_json_escape(s))
                return false;
            continue;
        }
        unsigned n = *s->p < 0x20 ? 0 : cci_json_utf8(s->p, s->end);
        if (n == 0)
            return cci_json_bad(s, *s->p < 0x20 ? "a string has a bare control character" : "a string is not UTF-8");
        if (!cci_buf_add(&s->doc->text, s->p, n))
            return false;
        s->p += n;
    }
    s->p++;
    return cci_buf_add(&s->doc->text, "", 1);
}

static size_t cci_json_digits(struct cci_json_parser *s)
{
    const uint8_t *from = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return (size_t)(s->p - from);
}

/* A number keeps its spelling (RFC 8259, 6). */
static bool cci_json_number(struct cci_json_parser *s, uint32_t *text)
{
    const uint8_t *from = s->p;
    if (*s->p == '-')
        s->p++;
    bool zero = s->p < s->end && *s->p == '0';
    size_t whole = cci_json_digits(s);
    if (whole == 0 || (zero && whole > 1))
        return cci_json_bad(s, "this is no JSON value");
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        if (cci_json_digits(s) == 0)
            return cci_json_bad(s, "a number ends in a point");
    }
    if (s->p < s->end && (*s->p | 32) == 'e') {
        s->p++;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
            s->p++;
        if (cci_json_digits(s) == 0)
            return cci_json_bad(s, "a number has an empty exponent");
    }
    *text = (uint32_t)s->doc->text.n;
    return cci_buf_add(&s->doc->text, from, (size_t)(s->p - from)) && cci_buf_add(&s->doc->text, "", 1);
}

/* A new value at the end of the array; false when there may be no more. */
static bool cci_json_new(struct cci_json_parser *s, uint32_t name, uint32_t *index)
{
    struct cci_json *doc = s->doc;
    if (doc->count == CCI_JSON_MAX_VALUES)
        return cci_json_bad(s, "there are too many values");
    if (doc->count == doc->cap) {
        uint32_t cap = doc->cap ? doc->cap * 2 : 64;
        struct cci_json_value *v = cci_mem_resize(doc->values, cap, sizeof(*v));
        if (!v)
            return false;
        doc->values = v;
        doc->cap = cap;
    }
    *index = doc->count++;
    memset(&doc->values[*index], 0, sizeof(doc->values[*index]));
    doc->values[*index].name = name;
    return true;
}

/* The members of an array or object, behind its opening bracket. */
static bool cci_json_members(struct cci_json_parser *s, uint32_t *count, bool named, char close)
{
    if (++s->depth > CCI_JSON_MAX_DEPTH)
        return cci_json_bad(s, "it is nested too deeply");
    bool more = !cci_json_take(s, close);
    while (more) {
        uint32_t name = 0;
        if (named && !cci_json_take(s, '"'))
            return cci_json_bad(s, "an object's member has no name");
        if (named && !cci_json_string(s, &name))
            return false;
        if (named && !cci_json_take(s, ':'))
            return cci_json_bad(s, "a member's name has no colon behind it");
        if (!cci_json_value(s, name))
            return false;
        ++*count;
        more = cci_json_take(s, ',');
        if (!more && !cci_json_take(s, close))
            return cci_json_bad(s, "a comma or a closing bracket is missing");
    }
    s->depth--;
    return true;
}

static bool cci_json_word(struct cci_json_parser *s, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return cci_json_bad(s, "this is no JSON value");
    s->p += n;
    return true;
}

static bool cci_json_value(struct cci_json_parser *s, uint32_t name)
{
    uint32_t index, text = 0, count = 0;
    enum cci_json_type type;
    bool ok;
    cci_json_space(s);
    if (s->p == s->end)
        return cci_json_bad(s, "it ends too early");
    if (!cci_json_new(s, name, &index))
        return false;
    switch (*s->p) {
    case '{':
    case '[':
        type = *s->p == '{' ? CCI_JSON_OBJECT : CCI_JSON_ARRAY;
        s->p++;
        ok = cci_json_members(s, &count, type == CCI_JSON_OBJECT, type == CCI_JSON_OBJECT ? '}' : ']');
        break;
    case '"':
        type = CCI_JSON_STRING;
        s->p++;
        ok = cci_json_string(s, &text);
        break;
    case 't':
        type = CCI_JSON_TRUE;
        ok = cci_json_word(s, "true");
        break;
    case 'f':
        type = CCI_JSON_FALSE;
        ok = cci_json_word(s, "false");
        break;
    case 'n':
        type = CCI_JSON_NULL;
        ok = cci_json_word(s, "null");
        break;
    default:
        type = CCI_JSON_NUMBER;
        ok = cci_json_number(s, &text);
        break;
    }
    struct cci_json_value *v = &s->doc->values[index]; /* only now: the array may have moved */
    v->type = type;
    v->text = text;
    v->count = count;
    v->next = s->doc->count;
    return ok;
}

static void cci_json_free(struct cci_json *doc)
{
    cci_mem_free(doc->values);
    cci_buf_free(&doc->text);
    memset(doc, 0, sizeof(*doc));
}

/* Parses a document; `what` names it in the message. Free *doc with cci_json_free, on success only. */
static cc_error_code cci_json_parse(struct cci_json *doc, const void *text, size_t n, const char *what, cc_error *err)
{
    struct cci_json_parser s = {doc, text, text, (const uint8_t *)text + n, 0, NULL};
    memset(doc, 0, sizeof(*doc));
    if (n > CCI_JSON_MAX_SIZE)
        return cci_fail(err, CC_ERR_IO, NULL, "%s is too large: %zu bytes, at most %zu are read", what, n,
                        CCI_JSON_MAX_SIZE);
    bool ok = cci_json_value(&s, 0);
    cci_json_space(&s);
    if (ok && s.p < s.end)
        ok = cci_json_bad(&s, "something follows its end");
    if (ok)
        return CC_OK;
    cci_json_free(doc);
    if (!s.problem)
        return cci_fail_nomem(err);
    return cci_fail(err, CC_ERR_IO, NULL, "%s is not valid JSON: %s (at byte %zu)", what, s.problem,
                    (size_t)(s.p - s.start));
}

/* ---- Looking at a document: every function takes a NULL value, and gives NULL or nothing for it ---------- */

static const struct cci_json_value *cci_json_root(const struct cci_json *doc)
{
    return doc->count ? doc->values : NULL;
}

/* The first member of an array or object, or NULL. */
static const struct cci_json_value *cci_json_first(const struct cci_json_value *v)
{
    return v && v->count ? v + 1 : NULL;
}

/* The member behind `v` in its parent, or NULL. */
static const struct cci_json_value *cci_json_next(const struct cci_json *doc, const struct cci_json_value *parent,
                                                  const struct cci_json_value *v)
{
    return v->next < parent->next ? doc->values + v->next : NULL;
}

/* An object's member by name, or NULL. */
static const struct cci_json_value *cci_json_get(const struct cci_json *doc, const struct cci_json_value *object,
                                                 const char *name)
{
    const struct cci_json_value *found = NULL;
    if (!object || object->type != CCI_JSON_OBJECT)
        return NULL;
    for (const struct cci_json_value *v = cci_json_first(object); v; v = cci_json_next(doc, object, v))
        if (strcmp((const char *)doc->text.p + v->name, name) == 0)
            found = v;
    return found;
}

/* The text of a string value; NULL for anything else. */
static const char *cci_json_text(const struct cci_json *doc, const struct cci_json_value *v)
{
    return v && v->type == CCI_JSON_STRING ? (const char *)doc->text.p + v->text : NULL;
}

/* An integer from 0 to INT64_MAX, spelt as one. */
static bool cci_json_size(const struct cci_json *doc, const struct cci_json_value *v, uint64_t *out)
{
    if (!v || v->type != CCI_JSON_NUMBER)
        return false;
    uint64_t n = 0;
    for (const char *p = (const char *)doc->text.p + v->text; *p; p++) {
        if (*p < '0' || *p > '9' || n > ((uint64_t)INT64_MAX - 9) / 10)
            return false;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    *out = n;
    return true;
}

#endif
