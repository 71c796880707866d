/*
 * registry/tls_name.h - addresses in certificates: does one speak for 192.0.2.1 or ::1?
 *
 * BearSSL compares host names only. A server that is reached by its address must have that address among its
 * certificate's subject alternative names, as an iPAddress of 4 or 16 bytes (RFC 5280 section 4.2.1.6, RFC 2818 section
 * 3.1). So this engine stands before BearSSL's ("minimal") X.509 engine: it hands everything on, keeps the server's own
 * certificate, and looks into it once the chain is found good. X.690 (DER) is read by bounded views, since the
 * certificate is the peer's.
 */
#ifndef CCI_REGISTRY_TLS_NAME_H
#define CCI_REGISTRY_TLS_NAME_H

#include <bearssl.h>

#include "../base/mem.h"

#define CCI_TLS_MAX_LEAF ((size_t)64 << 10) /* bytes of a server's certificate */

struct cci_tls_x509 {
    const br_x509_class *vtable; /* first: this is the context that the TLS engine knows */
    br_x509_minimal_context minimal;
    uint8_t address[16];
    size_t address_len;  /* 4 or 16; 0: the host has a name, which BearSSL compares */
    unsigned certs;      /* certificates begun; the first is the server's own */
    struct cci_buf leaf; /* that one, when there is an address */
};

struct cci_der {
    const uint8_t *p;
    size_t n;
};

/* Takes one element off the front of *d; returns its tag, or -1 at the end and when it is not whole. */
static int cci_der_take(struct cci_der *d, struct cci_der *value)
{
    size_t head = 2, len;
    if (d->n < 2)
        return -1;
    int tag = d->p[0];
    len = d->p[1];
    if (len >= 0x80) { /* so many bytes of length follow; more than 3 fit in no certificate */
        size_t count = len & 0x7f;
        if (count == 0 || count > 3 || d->n < 2 + count)
            return -1;
        len = 0;
        for (size_t i = 0; i < count; i++)
            len = len << 8 | d->p[2 + i];
        head += count;
    }
    if (len > d->n - head)
        return -1;
    value->p = d->p + head;
    value->n = len;
    d->p += head + len;
    d->n -= head + len;
    return tag;
}

/* Takes elements until one has this tag. */
static bool cci_der_find(struct cci_der *d, int tag, struct cci_der *value)
{
    int got;
    do
        got = cci_der_take(d, value);
    while (got >= 0 && got != tag);
    return got == tag;
}

/* The content of the certificate's subjectAltName extension. */
static bool cci_tls_alt_names(struct cci_der cert, struct cci_der *names)
{
    static const uint8_t oid[3] = {0x55, 0x1d, 0x11}; /* 2.5.29.17 */
    struct cci_der whole, body, tagged, list, extension, id, octets;
    if (!cci_der_find(&cert, 0x30, &whole) || !cci_der_find(&whole, 0x30, &body)       /* Certificate, TBSCertificate */
        || !cci_der_find(&body, 0xa3, &tagged) || !cci_der_find(&tagged, 0x30, &list)) /* extensions [3] */
        return false;
    while (cci_der_find(&list, 0x30, &extension)) {
        if (cci_der_take(&extension, &id) != 0x06 || id.n != sizeof(oid) || memcmp(id.p, oid, sizeof(oid)) != 0)
            continue;
        return cci_der_find(&extension, 0x04, &octets) && cci_der_find(&octets, 0x30, names);
    }
    return false;
}

/* Whether a certificate (DER) has this address among its names. */
static bool cci_tls_has_address(const uint8_t *cert, size_t n, const uint8_t *address, size_t address_len)
{
    struct cci_der whole = {cert, n}, names, name;
    if (!cci_tls_alt_names(whole, &names))
        return false;
    while (cci_der_find(&names, 0x87, &name)) /* iPAddress [7] */
        if (name.n == address_len && memcmp(name.p, address, address_len) == 0)
            return true;
    return false;
}

/* ---- The engine ----------------------------------------------------------------------------------------- */

/* The vtable is the first member, so a pointer to it is a pointer to the whole. */
static struct cci_tls_x509 *cci_tls_x509_of(const br_x509_class **ctx)
{
    return (struct cci_tls_x509 *)(void *)ctx;
}

static void cci_tls_start_chain(const br_x509_class **ctx, const char *server_name)
{
    struct cci_tls_x509 *x = cci_tls_x509_of(ctx);
    x->certs = 0;
    x->leaf.n = 0;
    x->minimal.vtable->start_chain(&x->minimal.vtable, server_name);
}

static void cci_tls_start_cert(const br_x509_class **ctx, uint32_t length)
{
    struct cci_tls_x509 *x = cci_tls_x509_of(ctx);
    x->certs++;
    x->minimal.vtable->start_cert(&x->minimal.vtable, length);
}

static void cci_tls_append(const br_x509_class **ctx, const unsigned char *buf, size_t len)
{
    struct cci_tls_x509 *x = cci_tls_x509_of(ctx);
    if (x->certs == 1 && x->address_len && len <= CCI_TLS_MAX_LEAF - x->leaf.n)
        (void)cci_buf_add(&x->leaf, buf, len); /* without memory the handshake fails */
    x->minimal.vtable->append(&x->minimal.vtable, buf, len);
}

static void cci_tls_end_cert(const br_x509_class **ctx)
{
    struct cci_tls_x509 *x = cci_tls_x509_of(ctx);
    x->minimal.vtable->end_cert(&x->minimal.vtable);
}

static unsigned cci_tls_end_chain(const br_x509_class **ctx)
{
    struct cci_tls_x509 *x = cci_tls_x509_of(ctx);
    unsigned r = x->minimal.vtable->end_chain(&x->minimal.vtable);
    if (r == 0 && x->address_len &&
        (x->leaf.failed || !cci_tls_has_address(x->leaf.p, x->leaf.n, x->address, x->address_len)))
        r = BR_ERR_X509_BAD_SERVER_NAME;
    return r;
}

static const br_x509_pkey *cci_tls_get_pkey(const br_x509_class *const *ctx, unsigned *usages)
{
    const struct cci_tls_x509 *x = (const struct cci_tls_x509 *)(const void *)ctx;
    const br_x509_class *const *minimal = &x->minimal.vtable;
    return (*minimal)->get_pkey(minimal, usages);
}

static const br_x509_class *cci_tls_x509_class(void)
{
    static const br_x509_class engine = {
        sizeof(struct cci_tls_x509), cci_tls_start_chain, cci_tls_start_cert, cci_tls_append, cci_tls_end_cert,
        cci_tls_end_chain,           cci_tls_get_pkey,
    };
    return &engine;
}

#endif
