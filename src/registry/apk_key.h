/*
 * registry/apk_key.h - the keys that an Alpine repository is signed with, and the verification of a signature.
 *
 * A key is a PEM block "PUBLIC KEY" (RFC 7468 section 13): a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) with an RSA key
 * (RFC 8017, A.1.1). Those of Alpine's builders are here, one for each architecture; $CC_KERNEL_KEY names a file to
 * believe instead. Whoever wants to check them finds the files, under the names below, at
 * https://alpinelinux.org/keys/, in /etc/apk/keys of every Alpine system of that architecture, and in the package
 * alpine-keys of its source tree; the SHA-256 below is of such a file, and tests/api/test_kernel_fetch.py holds it
 * against the text here.
 *
 * Signatures are RSASSA-PKCS1-v1_5 (RFC 8017, 8.2) with SHA-1, which is what Alpine still makes, or with SHA-256. With
 * SHA-1 somebody who may have texts of his choice signed could make a second one with the same digest; nobody can for
 * one that exists.
 */
#ifndef CCI_REGISTRY_APK_KEY_H
#define CCI_REGISTRY_APK_KEY_H

#include "../image/blob.h"
#include "pem.h"
#include "tls.h"

#define CCI_APK_MAX_KEYS 16u
#define CCI_APK_MAX_KEY_FILE ((size_t)256 << 10)
#define CCI_APK_MIN_MODULUS 256u /* bytes */
#define CCI_APK_MAX_MODULUS 512u

struct cci_apk_key {
    uint8_t n[CCI_APK_MAX_MODULUS], e[8]; /* modulus and exponent, big-endian */
    size_t n_size, e_size;
};

struct cci_apk_keys {
    struct cci_apk_key key[CCI_APK_MAX_KEYS];
    size_t count;
};

enum cci_apk_hash { CCI_APK_SHA1, CCI_APK_SHA256 };

/* The name of this machine's architecture there, and its builder's key. */
#if defined(__aarch64__)
#define CCI_APK_ARCH "aarch64"
/* alpine-devel@lists.alpinelinux.org-616ae350.rsa.pub
 * SHA-256 d11f6b21c61b4274e182eb888883a8ba8acdbf820dcc7a6d82a7d9fc2fd2836d */
#define CCI_APK_BUILTIN_KEY                                                                                            \
    "-----BEGIN PUBLIC KEY-----\n"                                                                                     \
    "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAyduVzi1mWm+lYo2Tqt/0\n"                                               \
    "XkCIWrDNP1QBMVPrE0/ZlU2bCGSoo2Z9FHQKz/mTyMRlhNqTfhJ5qU3U9XlyGOPJ\n"                                               \
    "piM+b91g26pnpXJ2Q2kOypSgOMOPA4cQ42PkHBEqhuzssfj9t7x47ppS94bboh46\n"                                               \
    "xLSDRff/NAbtwTpvhStV3URYkxFG++cKGGa5MPXBrxIp+iZf9GnuxVdST5PGiVGP\n"                                               \
    "ODL/b69sPJQNbJHVquqUTOh5Ry8uuD2WZuXfKf7/C0jC/ie9m2+0CttNu9tMciGM\n"                                               \
    "EyKG1/Xhk5iIWO43m4SrrT2WkFlcZ1z2JSf9Pjm4C2+HovYpihwwdM/OdP8Xmsnr\n"                                               \
    "DzVB4YvQiW+IHBjStHVuyiZWc+JsgEPJzisNY0Wyc/kNyNtqVKpX6dRhMLanLmy+\n"                                               \
    "f53cCSI05KPQAcGj6tdL+D60uKDkt+FsDa0BTAobZ31OsFVid0vCXtsbplNhW1IF\n"                                               \
    "HwsGXBTVcfXg44RLyL8Lk/2dQxDHNHzAUslJXzPxaHBLmt++2COa2EI1iWlvtznk\n"                                               \
    "Ok9WP8SOAIj+xdqoiHcC4j72BOVVgiITIJNHrbppZCq6qPR+fgXmXa+sDcGh30m6\n"                                               \
    "9Wpbr28kLMSHiENCWTdsFij+NQTd5S47H7XTROHnalYDuF1RpS+DpQidT5tUimaT\n"                                               \
    "JZDr++FjKrnnijbyNF8b98UCAwEAAQ==\n"                                                                               \
    "-----END PUBLIC KEY-----\n"
#else
#define CCI_APK_ARCH "x86_64"
/* alpine-devel@lists.alpinelinux.org-6165ee59.rsa.pub
 * SHA-256 207e4696d3c05f7cb05966aee557307151f1f00217af4143c1bcaf33b8df733f */
#define CCI_APK_BUILTIN_KEY                                                                                            \
    "-----BEGIN PUBLIC KEY-----\n"                                                                                     \
    "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAutQkua2CAig4VFSJ7v54\n"                                               \
    "ALyu/J1WB3oni7qwCZD3veURw7HxpNAj9hR+S5N/pNeZgubQvJWyaPuQDm7PTs1+\n"                                               \
    "tFGiYNfAsiibX6Rv0wci3M+z2XEVAeR9Vzg6v4qoofDyoTbovn2LztaNEjTkB+oK\n"                                               \
    "tlvpNhg1zhou0jDVYFniEXvzjckxswHVb8cT0OMTKHALyLPrPOJzVtM9C1ew2Nnc\n"                                               \
    "3848xLiApMu3NBk0JqfcS3Bo5Y2b1FRVBvdt+2gFoKZix1MnZdAEZ8xQzL/a0YS5\n"                                               \
    "Hd0wj5+EEKHfOd3A75uPa/WQmA+o0cBFfrzm69QDcSJSwGpzWrD1ScH3AK8nWvoj\n"                                               \
    "v7e9gukK/9yl1b4fQQ00vttwJPSgm9EnfPHLAtgXkRloI27H6/PuLoNvSAMQwuCD\n"                                               \
    "hQRlyGLPBETKkHeodfLoULjhDi1K2gKJTMhtbnUcAA7nEphkMhPWkBpgFdrH+5z4\n"                                               \
    "Lxy+3ek0cqcI7K68EtrffU8jtUj9LFTUC8dERaIBs7NgQ/LfDbDfGh9g6qVj1hZl\n"                                               \
    "k9aaIPTm/xsi8v3u+0qaq7KzIBc9s59JOoA8TlpOaYdVgSQhHHLBaahOuAigH+VI\n"                                               \
    "isbC9vmqsThF2QdDtQt37keuqoda2E6sL7PUvIyVXDRfwX7uMDjlzTxHTymvq2Ck\n"                                               \
    "htBqojBnThmjJQFgZXocHG8CAwEAAQ==\n"                                                                               \
    "-----END PUBLIC KEY-----\n"
#endif

/* ---- Keys ------------------------------------------------------------------------------------------------------ */

/* Takes one element of that tag off `in`; its contents. Lengths of up to two bytes (X.690, 8.1.3). */
static bool cci_apk_der(struct cci_view *in, uint8_t tag, struct cci_view *out)
{
    const uint8_t *head = cci_view_take(in, 2);
    if (!head || head[0] != tag)
        return false;
    size_t n = head[1];
    if (n > 0x82 || n == 0x80)
        return false;
    if (n > 0x80) {
        const uint8_t *more = cci_view_take(in, n - 0x80);
        if (!more)
            return false;
        n = n == 0x81 ? more[0] : (size_t)more[0] << 8 | more[1];
    }
    out->p = cci_view_take(in, n);
    out->n = n;
    return out->p != NULL;
}

/* A positive integer of min to max bytes. */
static bool cci_apk_der_number(struct cci_view *in, size_t min, size_t max, uint8_t *out, size_t *size)
{
    struct cci_view v;
    if (!cci_apk_der(in, 0x02, &v))
        return false;
    while (v.n > 0 && v.p[0] == 0)
        (void)cci_view_take(&v, 1);
    if (v.n < min || v.n > max)
        return false;
    memcpy(out, v.p, v.n);
    *size = v.n;
    return true;
}

static bool cci_apk_key_parse(struct cci_view der, struct cci_apk_key *key)
{
    static const uint8_t rsa[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};
    struct cci_view info, algorithm, bits, numbers;
    if (!cci_apk_der(&der, 0x30, &info) || !cci_apk_der(&info, 0x30, &algorithm) || !cci_apk_der(&info, 0x03, &bits))
        return false;
    if (algorithm.n != sizeof(rsa) || memcmp(algorithm.p, rsa, sizeof(rsa)) != 0)
        return false;
    const uint8_t *unused = cci_view_take(&bits, 1);
    return unused && *unused == 0 && cci_apk_der(&bits, 0x30, &numbers) &&
           cci_apk_der_number(&numbers, CCI_APK_MIN_MODULUS, CCI_APK_MAX_MODULUS, key->n, &key->n_size) &&
           cci_apk_der_number(&numbers, 1, sizeof(key->e), key->e, &key->e_size);
}

/* Adds every public key of a PEM text. `file` is named in messages. */
static cc_error_code cci_apk_keys_add(struct cci_apk_keys *keys, struct cci_view pem, const char *file, cc_error *err)
{
    struct cci_pem_reader reader;
    struct cci_buf der = {NULL, 0, 0, false};
    cc_error_code code = CC_OK;
    bool found = true;
    cci_pem_begin(&reader, pem.p, pem.n);
    while (!code && found) {
        code = cci_pem_next(&reader, "PUBLIC KEY", file, &der, &found, err);
        if (code || !found)
            break;
        if (keys->count == CCI_APK_MAX_KEYS)
            code = cci_pem_fail(&reader, file, "too many keys", err);
        else if (!cci_apk_key_parse((struct cci_view){der.p, der.n}, &keys->key[keys->count]))
            code = cci_pem_fail(&reader, file, "this is no RSA key of 2048 to 4096 bits", err);
        else
            keys->count++;
    }
    cci_buf_free(&der);
    if (!code && keys->count == 0)
        code = cci_fail(err, CC_ERR_IO, file,
                        "%s has no public key (a block that begins with "
                        "-----BEGIN PUBLIC KEY-----)",
                        file);
    return code;
}

/* The keys in `file`, or with NULL Alpine's. */
static cc_error_code cci_apk_keys_load(struct cci_apk_keys *keys, const char *file, cc_error *err)
{
    struct cci_buf text = {NULL, 0, 0, false};
    static const char builtin[] = CCI_APK_BUILTIN_KEY;
    keys->count = 0;
    if (!file)
        return cci_apk_keys_add(keys, (struct cci_view){(const uint8_t *)builtin, sizeof(builtin) - 1}, "Alpine's key",
                                err);
    int r = cci_blob_read_file(file, 0, CCI_APK_MAX_KEY_FILE, &text);
    cc_error_code code =
        r < 0 ? cci_fail_errno(err, CC_ERR_IO, -r, file, "cannot read the keys in %s: %s", file, cci_errno_text(-r))
              : cci_apk_keys_add(keys, (struct cci_view){text.p, text.n}, file, err);
    cci_buf_free(&text);
    return code;
}

/* ---- Signatures ------------------------------------------------------------------------------------------------ */

static void cci_apk_sha1(struct cci_view data, uint8_t out[20])
{
    br_sha1_context h;
    br_sha1_init(&h);
    br_sha1_update(&h, data.p, data.n);
    br_sha1_out(&h, out);
}

/* Whether the signature of `data` is by one of the keys. */
static bool cci_apk_keys_verify(const struct cci_apk_keys *keys, enum cci_apk_hash hash, struct cci_view data,
                                struct cci_view signature)
{
    static const unsigned char sha1_oid[] = {0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a};
    static const unsigned char sha256_oid[] = {0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01};
    const size_t size = hash == CCI_APK_SHA1 ? 20 : 32;
    uint8_t digest[32], signed_digest[32];
    if (hash == CCI_APK_SHA1) {
        cci_apk_sha1(data, digest);
    } else {
        struct cci_digest d = cci_digest_of(data.p, data.n);
        memcpy(digest, d.bytes, sizeof(digest));
    }
    for (size_t i = 0; i < keys->count; i++) {
        struct cci_apk_key key = keys->key[i]; /* BearSSL wants pointers to what may be changed */
        const br_rsa_public_key rsa = {key.n, key.n_size, key.e, key.e_size};
        if (signature.n == key.n_size &&
            cci_tls_rsa_verifier()(signature.p, signature.n, hash == CCI_APK_SHA1 ? sha1_oid : sha256_oid, size, &rsa,
                                   signed_digest) &&
            memcmp(digest, signed_digest, size) == 0)
            return true;
    }
    return false;
}

#endif
