/*
 * registry/trust.h - the certificate authorities that are believed.
 *
 * They come from the system's bundle, or from $SSL_CERT_FILE in its place, and from a PEM file that the caller names
 * beside it. Of each certificate the subject's name and the public key are kept as BearSSL's trust anchors. One that is
 * no authority (a server's own, self-signed certificate) is believed for that server alone ("direct trust").
 *
 * In a file that somebody has named, whatever cannot be read is an error that says where. The system's bundle is
 * nobody's doing: a certificate there that we cannot read (of a kind of key that BearSSL lacks) is passed over. A
 * system without a bundle is no error here, as all authorities may be the caller's; a server's certificate then fails,
 * with a message that says so (tls.h).
 */
#ifndef CCI_REGISTRY_TRUST_H
#define CCI_REGISTRY_TRUST_H

#include <bearssl.h>

#include "pem.h"
#if defined(__linux__)
#include "trust_linux.h"
#else
#error "cc.h: this platform has no registry/trust_*.h yet"
#endif

#define CCI_TRUST_MAX 10000 /* authorities */

/* Read-only once loaded: any number of threads may use it. */
struct cci_trust {
    br_x509_trust_anchor *anchors; /* their names and keys are allocated one by one */
    size_t count, cap;
};

static void cci_trust_anchor_free(br_x509_trust_anchor *a)
{
    cci_mem_free(a->dn.data);
    if (a->pkey.key_type == BR_KEYTYPE_RSA) {
        cci_mem_free(a->pkey.key.rsa.n);
        cci_mem_free(a->pkey.key.rsa.e);
    } else if (a->pkey.key_type == BR_KEYTYPE_EC) {
        cci_mem_free(a->pkey.key.ec.q);
    }
}

static void cci_trust_free(struct cci_trust *t)
{
    if (!t)
        return;
    while (t->count)
        cci_trust_anchor_free(&t->anchors[--t->count]);
    cci_mem_free(t->anchors);
    cci_mem_free(t);
}

static void cci_trust_add_dn(void *ctx, const void *bytes, size_t n)
{
    (void)cci_buf_add(ctx, bytes, n);
}

static unsigned char *cci_trust_copy(const void *bytes, size_t n, bool *ok)
{
    unsigned char *p = (unsigned char *)cci_mem_strndup(bytes, n);
    *ok = *ok && p;
    return p;
}

/* Room for one more anchor. */
static br_x509_trust_anchor *cci_trust_room(struct cci_trust *t)
{
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 16;
        br_x509_trust_anchor *p = cci_mem_resize(t->anchors, cap, sizeof(*p));
        if (!p)
            return NULL;
        t->anchors = p;
        t->cap = cap;
    }
    memset(&t->anchors[t->count], 0, sizeof(t->anchors[0]));
    return &t->anchors[t->count];
}

/* Keeps what a decoded certificate says. */
static bool cci_trust_keep(struct cci_trust *t, const struct cci_buf *dn, const br_x509_pkey *key, bool authority)
{
    br_x509_trust_anchor *a = cci_trust_room(t);
    bool ok = a != NULL;
    if (!ok)
        return false;
    a->flags = authority ? BR_X509_TA_CA : 0;
    a->dn.data = cci_trust_copy(dn->p, dn->n, &ok);
    a->dn.len = dn->n;
    a->pkey = *key;
    if (key->key_type == BR_KEYTYPE_RSA) {
        a->pkey.key.rsa.n = cci_trust_copy(key->key.rsa.n, key->key.rsa.nlen, &ok);
        a->pkey.key.rsa.e = cci_trust_copy(key->key.rsa.e, key->key.rsa.elen, &ok);
    } else {
        a->pkey.key.ec.q = cci_trust_copy(key->key.ec.q, key->key.ec.qlen, &ok);
    }
    if (ok)
        t->count++;
    else
        cci_trust_anchor_free(a);
    return ok;
}

/* Adds one certificate (DER). */
static cc_error_code cci_trust_add(struct cci_trust *t, const struct cci_buf *der, const char *file, unsigned line,
                                   cc_error *err)
{
    br_x509_decoder_context decoder;
    struct cci_buf dn = {NULL, 0, 0, false};
    cc_error_code code = CC_OK;
    br_x509_decoder_init(&decoder, cci_trust_add_dn, &dn);
    br_x509_decoder_push(&decoder, der->p, der->n);
    const br_x509_pkey *key = br_x509_decoder_get_pkey(&decoder);
    if (dn.failed)
        code = cci_fail_nomem(err);
    else if (!key || (key->key_type != BR_KEYTYPE_RSA && key->key_type != BR_KEYTYPE_EC))
        code = cci_fail(err, CC_ERR_IO, file,
                        "%s: the certificate that ends in line %u cannot be used (BearSSL's error %d)", file, line,
                        br_x509_decoder_last_error(&decoder));
    else if (t->count == CCI_TRUST_MAX)
        code = cci_fail(err, CC_ERR_IO, file, "%s: more than %d certificates", file, CCI_TRUST_MAX);
    else if (!cci_trust_keep(t, &dn, key, br_x509_decoder_isCA(&decoder) != 0))
        code = cci_fail_nomem(err);
    cci_buf_free(&dn);
    return code;
}

/* Adds every certificate of a PEM text. With `strict` false bad ones are passed over. */
static cc_error_code cci_trust_add_pem(struct cci_trust *t, const struct cci_buf *text, const char *file, bool strict,
                                       cc_error *err)
{
    struct cci_pem_reader reader;
    struct cci_buf der = {NULL, 0, 0, false};
    cc_error_code code = CC_OK;
    size_t before = t->count;
    cci_pem_begin(&reader, text->p, text->n);
    while (!code && reader.n) {
        bool found;
        code = cci_pem_next(&reader, "CERTIFICATE", file, &der, &found, err);
        if (!code && found)
            code = cci_trust_add(t, &der, file, reader.line, err);
        if (code == CC_ERR_IO && !strict) {
            cci_error_release(err);
            code = CC_OK;
        }
    }
    cci_buf_free(&der);
    if (!code && strict && t->count == before)
        code = cci_fail(err, CC_ERR_IO, file,
                        "%s has no certificate (a block that begins with "
                        "-----BEGIN CERTIFICATE-----)",
                        file);
    return code;
}

/* Adds what a named file has, or with file NULL the system's bundle, if there is one. */
static cc_error_code cci_trust_add_file(struct cci_trust *t, const char *file, cc_error *err)
{
    struct cci_buf text = {NULL, 0, 0, false};
    bool strict = file != NULL;
    int r = file ? cci_blob_read_file(file, 0, CCI_TRUST_MAX_FILE, &text) : cci_trust_read_system(&text, &file);
    cc_error_code code = CC_OK;
    if (r == -EFBIG)
        code = cci_fail(err, CC_ERR_IO, file, "%s is no file of certificates: it is not a file, or larger than 16 MiB",
                        file);
    else if (r < 0 && (strict || r != -ENOENT))
        code = cci_fail_errno(err, CC_ERR_IO, -r, file, "cannot read the certificates in %s: %s", file,
                              cci_errno_text(-r));
    else if (r == 0)
        code = cci_trust_add_pem(t, &text, file, strict, err);
    cci_buf_free(&text);
    return code;
}

/* The system's authorities (or those in $SSL_CERT_FILE), and those in extra_ca_file, unless that is NULL. Free *out
 * with cci_trust_free. */
static cc_error_code cci_trust_load(const char *extra_ca_file, struct cci_trust **out, cc_error *err)
{
    const char *named = getenv("SSL_CERT_FILE");
    struct cci_trust *t = cci_mem_zalloc(1, sizeof(*t));
    *out = NULL;
    if (!t)
        return cci_fail_nomem(err);
    cc_error_code code = cci_trust_add_file(t, named && *named ? named : NULL, err);
    if (!code && extra_ca_file)
        code = cci_trust_add_file(t, extra_ca_file, err);
    if (code) {
        cci_trust_free(t);
        return code;
    }
    *out = t;
    return CC_OK;
}

#endif
