/*
 * registry/trust_anchors.h - a set of certificate authorities, as BearSSL's trust anchors.
 *
 * Of each certificate (X.509, RFC 5280; DER or in PEM, RFC 7468) the subject's name and the public key are kept; its
 * dates, its signature and everything else in it are not. One that is no authority (a server's own, self-signed
 * certificate) is believed for that server alone ("direct trust").
 *
 * Certificates with a kind of key that BearSSL lacks (Ed25519, say) are common enough in a system's store. So "cannot
 * be used" is an answer here, and only who knows where the certificate comes from makes an error of it.
 */
#ifndef CCI_REGISTRY_TRUST_ANCHORS_H
#define CCI_REGISTRY_TRUST_ANCHORS_H

#include <bearssl.h>

#include "pem.h"

#define CCI_TRUST_MAX 10000 /* authorities */
#define CCI_TRUST_FULL (-1) /* in place of an error of BearSSL: there are CCI_TRUST_MAX of them already */

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

/* Adds one certificate (DER). *refused says why it could not be used, by BearSSL's error or CCI_TRUST_FULL, and is 0
 * when it was added; that is no failure. */
static cc_error_code cci_trust_add_der(struct cci_trust *t, const void *der, size_t n, int *refused, cc_error *err)
{
    br_x509_decoder_context decoder;
    struct cci_buf dn = {NULL, 0, 0, false};
    cc_error_code code = CC_OK;
    br_x509_decoder_init(&decoder, cci_trust_add_dn, &dn);
    br_x509_decoder_push(&decoder, der, n);
    const br_x509_pkey *key = br_x509_decoder_get_pkey(&decoder);
    *refused = 0;
    if (dn.failed)
        code = cci_fail_nomem(err);
    else if (!key)
        *refused = br_x509_decoder_last_error(&decoder);
    else if (key->key_type != BR_KEYTYPE_RSA && key->key_type != BR_KEYTYPE_EC)
        *refused = BR_ERR_X509_UNSUPPORTED;
    else if (t->count == CCI_TRUST_MAX)
        *refused = CCI_TRUST_FULL;
    else if (!cci_trust_keep(t, &dn, key, br_x509_decoder_isCA(&decoder) != 0))
        code = cci_fail_nomem(err);
    cci_buf_free(&dn);
    return code;
}

static cc_error_code cci_trust_fail_refused(int refused, const char *file, unsigned line, cc_error *err)
{
    if (refused == CCI_TRUST_FULL)
        return cci_fail(err, CC_ERR_IO, file, "%s: more than %d certificates", file, CCI_TRUST_MAX);
    return cci_fail(err, CC_ERR_IO, file,
                    "%s: the certificate that ends in line %u cannot be used (BearSSL's error %d)", file, line,
                    refused);
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
        int refused = 0;
        code = cci_pem_next(&reader, "CERTIFICATE", file, &der, &found, err);
        if (!code && found)
            code = cci_trust_add_der(t, der.p, der.n, &refused, err);
        if (!code && refused && strict)
            code = cci_trust_fail_refused(refused, file, reader.line, err);
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

#endif
