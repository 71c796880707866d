/*
 * image/digest.h - digests, as image specification 1.1 ("Digests") spells them: algorithm, colon, lower-case
 * hexadecimal digits. SHA-256 is the only algorithm read; another one is an error that names it.
 */
#ifndef CCI_IMAGE_DIGEST_H
#define CCI_IMAGE_DIGEST_H

#include "../base/error.h"
#include "sha256.h"

struct cci_digest {
    uint8_t bytes[32];
};

/* A digest spelt out, with room for its NUL. */
struct cci_digest_text {
    char text[72]; /* "sha256:" and 64 digits */
};

static bool cci_digest_equal(const struct cci_digest *a, const struct cci_digest *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static struct cci_digest cci_digest_of(const void *data, size_t n)
{
    struct cci_digest d;
    struct cci_sha256 h;
    cci_sha256_init(&h);
    cci_sha256_update(&h, data, n);
    cci_sha256_final(&h, d.bytes);
    return d;
}

static struct cci_digest_text cci_digest_spell(const struct cci_digest *d)
{
    struct cci_digest_text t;
    memcpy(t.text, "sha256:", 7);
    cci_sha256_hex(d->bytes, t.text + 7);
    return t;
}

/* Exactly 64 lower-case hexadecimal digits. */
static bool cci_digest_from_hex(const char *hex, size_t n, struct cci_digest *out)
{
    if (n != 64)
        return false;
    for (size_t i = 0; i < 64; i++) {
        char c = hex[i];
        unsigned v = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
        if (v == 16)
            return false;
        out->bytes[i / 2] = (uint8_t)(i % 2 ? out->bytes[i / 2] | v : v << 4);
    }
    return true;
}

/* `what` says in the message whose digest it is. A NULL text is a missing one. */
static cc_error_code cci_digest_parse(const char *text, const char *what, struct cci_digest *out, cc_error *err)
{
    if (!text)
        return cci_fail(err, CC_ERR_IO, NULL, "the digest of %s is missing", what);
    const char *colon = strchr(text, ':');
    if (colon && (colon - text != 6 || memcmp(text, "sha256", 6) != 0))
        return cci_fail(err, CC_ERR_IO, NULL, "the digest of %s uses \"%.*s\"; only sha256 is supported", what,
                        (int)CCI_MIN(colon - text, 32), text);
    if (!colon || !cci_digest_from_hex(colon + 1, strlen(colon + 1), out))
        return cci_fail(err, CC_ERR_IO, NULL, "the digest of %s is not valid: \"%.80s\"", what, text);
    return CC_OK;
}

#endif
