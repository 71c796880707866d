/*
 * registry/pem.h - PEM (RFC 7468): certificates as text, many in one file, with anything in between.
 *
 * Lines outside of blocks say nothing and are passed over. A block goes from "-----BEGIN label-----" to the END line of
 * the same label; between them stands base64 (RFC 4648 section 4) with white space wherever it likes (the lax form of
 * RFC 7468 section 3). Blocks of other labels (private keys, parameters) are passed over whole.
 *
 * The reader moves forward only, so that after a failure the next call goes on behind the bad line.
 */
#ifndef CCI_REGISTRY_PEM_H
#define CCI_REGISTRY_PEM_H

#include "../base/error.h"
#include "base64.h"

#define CCI_PEM_MAX_BLOCK ((size_t)64 << 10) /* bytes of one decoded block */

struct cci_pem_reader {
    const char *p; /* the text that is left */
    size_t n;      /* its length */
    unsigned line; /* the number of the last line taken, from 1 */
};

struct cci_pem_line {
    const char *p;
    size_t n; /* without the line's end and white space before it */
};

/* Base64 under way: bits collected, and how far the end has come. */
struct cci_pem_base64 {
    uint32_t bits;
    unsigned digits; /* of the current group of four, padding among them */
    unsigned pads;
};

static bool cci_pem_next_line(struct cci_pem_reader *r, struct cci_pem_line *out)
{
    if (!r->n)
        return false;
    const char *end = memchr(r->p, '\n', r->n);
    size_t whole = end ? (size_t)(end - r->p) + 1 : r->n;
    out->p = r->p;
    out->n = end ? whole - 1 : whole;
    while (out->n && (out->p[out->n - 1] == '\r' || out->p[out->n - 1] == ' ' || out->p[out->n - 1] == '\t'))
        out->n--;
    r->p += whole;
    r->n -= whole;
    r->line++;
    return true;
}

/* Whether the line is "-----<word> label-----"; *label is then its label. */
static bool cci_pem_is_border(const struct cci_pem_line *l, const char *word, struct cci_pem_line *label)
{
    size_t n = strlen(word);
    if (l->n < 5 + n + 1 + 5 || memcmp(l->p, "-----", 5) != 0 || memcmp(l->p + l->n - 5, "-----", 5) != 0)
        return false;
    if (memcmp(l->p + 5, word, n) != 0 || l->p[5 + n] != ' ')
        return false;
    label->p = l->p + 5 + n + 1;
    label->n = l->n - (5 + n + 1 + 5);
    return true;
}

/* The value of a base64 digit; 64 for padding, 65 for white space, 66 for anything else. */
static unsigned cci_pem_digit(char c)
{
    unsigned d = cci_base64_digit(c);
    return d < 64 ? d : c == '=' ? 64 : c == ' ' || c == '\t' ? 65 : 66;
}

/* Decodes one line to the end of *out. Returns what is wrong with it, or NULL. */
static const char *cci_pem_decode(struct cci_pem_base64 *b, const struct cci_pem_line *l, struct cci_buf *out)
{
    for (size_t i = 0; i < l->n; i++) {
        unsigned d = cci_pem_digit(l->p[i]);
        if (d == 65)
            continue;
        if (d == 66)
            return "a character that is not base64";
        if ((b->pads && (d != 64 || !b->digits)) || (d == 64 && b->digits < 2))
            return "padding in the wrong place";
        b->pads += d == 64;
        b->bits = b->bits << 6 | (d & 63);
        if (++b->digits < 4)
            continue;
        const uint8_t bytes[3] = {(uint8_t)(b->bits >> 16), (uint8_t)(b->bits >> 8), (uint8_t)b->bits};
        if (out->n + 3 > CCI_PEM_MAX_BLOCK)
            return "a block larger than 64 KiB";
        (void)cci_buf_add(out, bytes, 3 - b->pads); /* a failure stays noted in out->failed */
        b->bits = 0;
        b->digits = 0;
    }
    return NULL;
}

static cc_error_code cci_pem_fail(const struct cci_pem_reader *r, const char *file, const char *what, cc_error *err)
{
    return cci_fail(err, CC_ERR_IO, file, "%s, line %u: %s", file, r->line, what);
}

/* Decodes the lines up to the END of `label`; with out NULL they are only passed over. */
static cc_error_code cci_pem_block(struct cci_pem_reader *r, const char *file, const struct cci_pem_line *label,
                                   struct cci_buf *out, cc_error *err)
{
    struct cci_pem_base64 b = {0, 0, 0};
    struct cci_pem_line l, end;
    while (cci_pem_next_line(r, &l)) {
        if (cci_pem_is_border(&l, "END", &end)) {
            if (end.n != label->n || memcmp(end.p, label->p, end.n) != 0)
                return cci_pem_fail(r, file, "this END belongs to another BEGIN", err);
            if (b.digits)
                return cci_pem_fail(r, file, "the block ends within a group of base64 digits", err);
            return out && out->failed ? cci_fail_nomem(err) : CC_OK;
        }
        const char *wrong = out ? cci_pem_decode(&b, &l, out) : NULL;
        if (wrong)
            return cci_pem_fail(r, file, wrong, err);
    }
    return cci_pem_fail(r, file, "the text ends within a block", err);
}

static void cci_pem_begin(struct cci_pem_reader *r, const void *text, size_t n)
{
    r->p = text;
    r->n = n;
    r->line = 0;
}

/* The next block of this label, into *out, which is emptied first and stays the caller's to free. *found false: there
 * is none left. `file` is named in messages. */
static cc_error_code cci_pem_next(struct cci_pem_reader *r, const char *label, const char *file, struct cci_buf *out,
                                  bool *found, cc_error *err)
{
    struct cci_pem_line l, got;
    *found = false;
    while (cci_pem_next_line(r, &l)) {
        if (!cci_pem_is_border(&l, "BEGIN", &got))
            continue;
        bool wanted = got.n == strlen(label) && memcmp(got.p, label, got.n) == 0;
        out->n = 0;
        cc_error_code code = cci_pem_block(r, file, &got, wanted ? out : NULL, err);
        if (code)
            return code;
        *found = wanted;
        if (wanted)
            return CC_OK;
    }
    return CC_OK;
}

#endif
