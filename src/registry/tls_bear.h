/*
 * registry/tls_bear.h - TLS 1.2 (RFC 5246) client connections by BearSSL; see tls.h for what callers may expect.
 *
 * BearSSL is an engine that never does I/O: it says which of four things it wants (records in or out, plain bytes in
 * or out) and hands over the place for them. cci_tls_pump moves records between it and the network until plain bytes
 * can move. Records arrive through a buffer of our own, because the engine asks for a record's 5-byte header and its
 * body apart, which would be two system calls for every 16 KiB.
 *
 * Suites: only those with forward secrecy and authenticated encryption. AES-GCM comes first where the processor has
 * instructions for it (it is several times as fast as the rest), ChaCha20 where not. Certificates: signatures by RSA of
 * at least 2048 bits or ECDSA, with SHA-256 or longer; validity and the host's name are checked. Revocation is not,
 * as BearSSL has none.
 */
#ifndef CCI_REGISTRY_TLS_BEAR_H
#define CCI_REGISTRY_TLS_BEAR_H

#include "../base/net.h"
#include "tls_name.h"
#include "trust.h"

#define CCI_TLS_RAW ((size_t)32 << 10) /* bytes fetched from the network at once */

struct cci_tls {
    struct cci_net *net;
    char *name;           /* of the peer, for messages: where a proxy's tunnel leads, too */
    bool broken;          /* a call has failed: there is nothing more to say to the peer */
    bool heard;           /* something has arrived */
    bool no_trust;        /* there is no authority at all: for the message */
    size_t raw_at, raw_n; /* the part of raw that the engine has not had yet */
    br_ssl_client_context client;
    struct cci_tls_x509 x509;
    unsigned char records[BR_SSL_BUFSIZE_BIDI]; /* the engine's */
    uint8_t raw[CCI_TLS_RAW];                   /* records as they came from the network */
};

/* ---- Setting up ------------------------------------------------------------------------------------------ */

/* Bulk encryption: the fastest implementations that run here. */
static void cci_tls_set_ciphers(br_ssl_engine_context *eng)
{
    static const uint16_t suites[] = {
        BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        /* again, for the other order */
        BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    };
    const br_block_ctr_class *ctr = br_aes_x86ni_ctr_get_vtable();
    br_ghash ghash = br_ghash_pclmul_get();
    br_chacha20_run chacha = br_chacha20_sse2_get();
    br_poly1305_run poly = br_poly1305_ctmulq_get();
    bool fast = ctr && ghash;
    br_ssl_engine_set_suites(eng, fast ? suites : suites + 4, 6);
    br_ssl_engine_set_gcm(eng, &br_sslrec_in_gcm_vtable, &br_sslrec_out_gcm_vtable);
    br_ssl_engine_set_aes_ctr(eng, ctr ? ctr : &br_aes_ct64_ctr_vtable);
    br_ssl_engine_set_ghash(eng, ghash ? ghash : br_ghash_ctmul64);
    br_ssl_engine_set_chapol(eng, &br_sslrec_in_chapol_vtable, &br_sslrec_out_chapol_vtable);
    br_ssl_engine_set_chacha20(eng, chacha ? chacha : br_chacha20_ct_run);
    br_ssl_engine_set_poly1305(eng, poly ? poly : br_poly1305_ctmul_run);
}

/* The fastest verification of RSA signatures that there is here. */
static br_rsa_pkcs1_vrfy cci_tls_rsa_verifier(void)
{
    br_rsa_pkcs1_vrfy rsa = br_rsa_i62_pkcs1_vrfy_get();
    return rsa ? rsa : br_rsa_i31_pkcs1_vrfy;
}

/* Key exchange, signatures and hashes, for the handshake and for certificates. */
static void cci_tls_set_keys(br_ssl_engine_context *eng, br_x509_minimal_context *minimal)
{
    br_rsa_pkcs1_vrfy rsa = cci_tls_rsa_verifier();
    br_ssl_engine_set_ec(eng, &br_ec_all_m31);
    br_ssl_engine_set_ecdsa(eng, br_ecdsa_i31_vrfy_asn1);
    br_ssl_engine_set_rsavrfy(eng, rsa);
    br_x509_minimal_set_ecdsa(minimal, &br_ec_all_m31, br_ecdsa_i31_vrfy_asn1);
    br_x509_minimal_set_rsa(minimal, rsa);
    br_x509_minimal_set_minrsa(minimal, 256);
    br_ssl_engine_set_hash(eng, br_sha256_ID, &br_sha256_vtable);
    br_ssl_engine_set_hash(eng, br_sha384_ID, &br_sha384_vtable);
    br_ssl_engine_set_hash(eng, br_sha512_ID, &br_sha512_vtable);
    br_x509_minimal_set_hash(minimal, br_sha256_ID, &br_sha256_vtable);
    br_x509_minimal_set_hash(minimal, br_sha384_ID, &br_sha384_vtable);
    br_x509_minimal_set_hash(minimal, br_sha512_ID, &br_sha512_vtable);
    br_ssl_engine_set_prf_sha256(eng, br_tls12_sha256_prf);
    br_ssl_engine_set_prf_sha384(eng, br_tls12_sha384_prf);
}

/* When `host` is an address: its bytes, for the certificate's names. */
static void cci_tls_take_address(struct cci_tls_x509 *x, const char *host)
{
    struct cci_net_addrs found;
    if (cci_net_ask(host, 0, CCI_NET_NUMERIC_HOST, &found) != 0 || !found.count)
        return;
    bool six = found.addr[0].family == CCI_NET_INET6;
    x->address_len = six ? 16 : 4;
    memcpy(x->address, found.addr[0].bytes + (six ? 8 : 4), x->address_len); /* sin6_addr, sin_addr */
}

static cc_error_code cci_tls_begin(struct cci_tls *tls, const char *host, const struct cci_trust *trust, cc_error *err)
{
    br_ssl_engine_context *eng = &tls->client.eng;
    br_x509_minimal_context *minimal = &tls->x509.minimal;
    uint8_t seed[32];
    uint64_t now = cci_os_realtime() / 1000000000u;
    int r = cci_os_random(seed, sizeof(seed));
    if (r < 0)
        return cci_fail_errno(err, CC_ERR_IO, -r, NULL, "the system gives no random numbers: %s", cci_errno_text(-r));
    tls->no_trust = trust->count == 0;
    br_ssl_client_zero(&tls->client);
    br_ssl_engine_set_versions(eng, BR_TLS12, BR_TLS12);
    br_x509_minimal_init(minimal, &br_sha256_vtable, trust->anchors, trust->count);
    br_x509_minimal_set_time(minimal, (uint32_t)(now / 86400 + 719528),
                             (uint32_t)(now % 86400)); /* days since year 0 */
    tls->x509.vtable = cci_tls_x509_class();
    cci_tls_take_address(&tls->x509, host);
    cci_tls_set_ciphers(eng);
    cci_tls_set_keys(eng, minimal);
    br_ssl_engine_set_x509(eng, &tls->x509.vtable);
    br_ssl_engine_set_buffer(eng, tls->records, sizeof(tls->records), 1);
    br_ssl_engine_add_flags(eng, BR_OPT_NO_RENEGOTIATION);
    br_ssl_engine_inject_entropy(eng, seed, sizeof(seed));
    memset(seed, 0, sizeof(seed));
    /* An address goes into no server name indication (RFC 6066 section 3). */
    if (!*host || !br_ssl_client_reset(&tls->client, tls->x509.address_len ? NULL : host, 0))
        return cci_fail(err, CC_ERR_NETWORK, host, "\"%.80s\" is no host name that TLS can use", host);
    return CC_OK;
}

/* ---- Moving records -------------------------------------------------------------------------------------- */

static const char *cci_tls_error_text(const struct cci_tls *tls, int e)
{
    switch (e) {
    case BR_ERR_X509_NOT_TRUSTED:
        return tls->no_trust
                   ? "no certificate authorities were found on this system; install its ca-certificates, or name"
                     " a file of them in SSL_CERT_FILE"
                   : "its certificate comes from an authority that is not trusted here; if it should be, add its"
                     " certificate to the system's, or name it as the extra CA file";
    case BR_ERR_X509_EXPIRED:
        return "its certificate has expired or is not valid yet (is this machine's clock right?)";
    case BR_ERR_X509_BAD_SERVER_NAME:
        return "its certificate is for another name";
    case BR_ERR_X509_WEAK_PUBLIC_KEY:
        return "its certificate has an RSA key of less than 2048 bits";
    case BR_ERR_UNSUPPORTED_VERSION:
    case BR_ERR_BAD_VERSION:
    case BR_ERR_RECV_FATAL_ALERT + 70: /* protocol_version */
        return "it does not speak TLS 1.2";
    case BR_ERR_UNKNOWN_TYPE:
        return "what it answers is not TLS";
    case BR_ERR_RECV_FATAL_ALERT + 40: /* handshake_failure */
        return "it refused the handshake (it may have no cipher suite in common)";
    case BR_ERR_RECV_FATAL_ALERT + 112: /* unrecognized_name */
        return "it knows no host of that name";
    case BR_ERR_BAD_MAC:
        return "what it sent was changed on the way";
    default:
        return NULL;
    }
}

/* The error that has ended the engine. */
static cc_error_code cci_tls_fail(const struct cci_tls *tls, cc_error *err)
{
    int e = br_ssl_engine_last_error(&tls->client.eng);
    const char *name = tls->name, *text = cci_tls_error_text(tls, e);
    if (tls->x509.leaf.failed)
        return cci_fail_nomem(err);
    if (text)
        return cci_fail(err, CC_ERR_NETWORK, name, "TLS with %s: %s", name, text);
    if (e > BR_ERR_RECV_FATAL_ALERT && e < BR_ERR_SEND_FATAL_ALERT)
        return cci_fail(err, CC_ERR_NETWORK, name, "TLS with %s: it ended the connection with alert %d", name,
                        e - BR_ERR_RECV_FATAL_ALERT);
    if (e >= BR_ERR_X509_INVALID_VALUE && e <= BR_ERR_X509_NOT_TRUSTED)
        return cci_fail(err, CC_ERR_NETWORK, name, "TLS with %s: its certificate is not valid (BearSSL's error %d)",
                        name, e);
    return cci_fail(err, CC_ERR_NETWORK, name, "TLS with %s: it does not keep to the protocol (BearSSL's error %d)",
                    name, e);
}

/* Gives the engine what has arrived, or waits for more. */
static cc_error_code cci_tls_feed(struct cci_tls *tls, const struct cci_wait *wait, cc_error *err)
{
    br_ssl_engine_context *eng = &tls->client.eng;
    size_t room;
    if (tls->raw_at == tls->raw_n) {
        tls->raw_at = tls->raw_n = 0;
        cc_error_code code = cci_net_read(tls->net, tls->raw, sizeof(tls->raw), &tls->raw_n, wait, err);
        if (code)
            return code;
        if (!tls->raw_n)
            return cci_fail_errno(err, CC_ERR_NETWORK, ECONNRESET, tls->name, "TLS with %s: the connection was cut",
                                  tls->name);
        /* As records these bytes would only be said to be of an unknown version. */
        if (!tls->heard && memcmp(tls->raw, "HTTP/1.", CCI_MIN(tls->raw_n, (size_t)7)) == 0)
            return cci_fail(err, CC_ERR_NETWORK, tls->name,
                            "TLS with %s: it answers in plain HTTP; a registry that has no TLS must be allowed to do "
                            "without (allow_http)",
                            tls->name);
        tls->heard = true;
    }
    unsigned char *to = br_ssl_engine_recvrec_buf(eng, &room);
    size_t n = CCI_MIN(room, tls->raw_n - tls->raw_at);
    memcpy(to, tls->raw + tls->raw_at, n);
    tls->raw_at += n;
    br_ssl_engine_recvrec_ack(eng, n);
    return CC_OK;
}

/* Sends the record that the engine has made. */
static cc_error_code cci_tls_drain(struct cci_tls *tls, const struct cci_wait *wait, cc_error *err)
{
    size_t n, done;
    const unsigned char *from = br_ssl_engine_sendrec_buf(&tls->client.eng, &n);
    cc_error_code code = cci_net_write(tls->net, from, n, &done, wait, err);
    if (code)
        tls->broken = true;
    else
        br_ssl_engine_sendrec_ack(&tls->client.eng, n);
    return code;
}

/* Moves records until everything is sent and the engine is in one of the `target` states (BR_SSL_SENDAPP, ...). *ended:
 * the peer has said goodbye before that. */
static cc_error_code cci_tls_pump(struct cci_tls *tls, unsigned target, bool *ended, const struct cci_wait *wait,
                                  cc_error *err)
{
    *ended = false;
    for (;;) {
        cc_error_code code = CC_OK;
        unsigned state = br_ssl_engine_current_state(&tls->client.eng);
        if (state & BR_SSL_CLOSED) {
            *ended = br_ssl_engine_last_error(&tls->client.eng) == BR_ERR_OK;
            tls->broken = true;
            return *ended ? CC_OK : cci_tls_fail(tls, err);
        }
        if (state & BR_SSL_SENDREC) {
            code = cci_tls_drain(tls, wait, err);
            /* After its goodbye a peer need not wait for ours (RFC 5246 section 7.2.1). */
            if (code == CC_ERR_NETWORK && tls->client.eng.shutdown_recv) {
                cci_error_release(err);
                *ended = true;
                return CC_OK;
            }
        } else if (state & target)
            return CC_OK;
        else if (state & BR_SSL_RECVREC)
            code = cci_tls_feed(tls, wait, err);
        else
            code = cci_fail(err, CC_ERR_NETWORK, tls->name, "TLS with %s: it sent data out of turn", tls->name);
        if (code) {
            tls->broken = true;
            return code;
        }
    }
}

/* ---- The connection --------------------------------------------------------------------------------------- */

/* What messages call the peer: the connection itself may only be one to a proxy. */
static char *cci_tls_make_name(const struct cci_net *net, const char *host)
{
    const char *at = net->name + (net->name[0] == '[');
    size_t n = strlen(host);
    bool direct = strncmp(at, host, n) == 0 && (at[n] == ':' || at[n] == ']');
    return direct ? cci_mem_strdup(net->name) : cci_mem_printf("%s (through the proxy %s)", host, net->name);
}

static void cci_tls_free(struct cci_tls *tls)
{
    cci_buf_free(&tls->x509.leaf);
    cci_mem_free(tls->name);
    memset(tls, 0, sizeof(*tls)); /* keys */
    cci_mem_free(tls);
}

static cc_error_code cci_tls_connect(struct cci_net *net, const char *host, const struct cci_trust *trust,
                                     const struct cci_wait *wait, struct cci_tls **out, cc_error *err)
{
    bool ended = false;
    struct cci_tls *tls = cci_mem_zalloc(1, sizeof(*tls));
    *out = NULL;
    if (!tls)
        return cci_fail_nomem(err);
    tls->net = net;
    tls->name = cci_tls_make_name(net, host);
    cc_error_code code = tls->name ? cci_tls_begin(tls, host, trust, err) : cci_fail_nomem(err);
    if (!code)
        code = cci_tls_pump(tls, BR_SSL_SENDAPP, &ended, wait, err);
    if (!code && ended)
        code = cci_fail_errno(err, CC_ERR_NETWORK, ECONNRESET, tls->name,
                              "TLS with %s: it ended the connection in the handshake", tls->name);
    if (code) {
        cci_tls_free(tls);
        return code;
    }
    *out = tls;
    return CC_OK;
}

static cc_error_code cci_tls_read(struct cci_tls *tls, void *buf, size_t n, size_t *done, const struct cci_wait *wait,
                                  cc_error *err)
{
    bool ended;
    size_t have;
    *done = 0;
    cc_error_code code = cci_net_check(wait, "reading from", tls->name, err);
    if (!code)
        code = cci_tls_pump(tls, BR_SSL_RECVAPP, &ended, wait, err);
    if (code || ended)
        return code;
    const unsigned char *from = br_ssl_engine_recvapp_buf(&tls->client.eng, &have);
    *done = CCI_MIN(n, have);
    memcpy(buf, from, *done);
    br_ssl_engine_recvapp_ack(&tls->client.eng, *done);
    return CC_OK;
}

static cc_error_code cci_tls_write(struct cci_tls *tls, const void *buf, size_t n, size_t *done,
                                   const struct cci_wait *wait, cc_error *err)
{
    br_ssl_engine_context *eng = &tls->client.eng;
    bool ended = false;
    *done = 0;
    cc_error_code code = CC_OK;
    while (!code && *done < n) {
        size_t room;
        code = cci_tls_pump(tls, BR_SSL_SENDAPP, &ended, wait, err);
        if (!code && ended)
            code = cci_fail_errno(err, CC_ERR_NETWORK, ECONNRESET, tls->name, "TLS with %s: it ended the connection",
                                  tls->name);
        if (code)
            return code;
        unsigned char *to = br_ssl_engine_sendapp_buf(eng, &room);
        room = CCI_MIN(room, n - *done);
        memcpy(to, (const uint8_t *)buf + *done, room);
        br_ssl_engine_sendapp_ack(eng, room);
        *done += room;
    }
    br_ssl_engine_flush(eng, 0);
    return cci_tls_pump(tls, BR_SSL_SENDAPP | BR_SSL_RECVAPP, &ended, wait, err);
}

static bool cci_tls_is_quiet(struct cci_tls *tls)
{
    unsigned state = br_ssl_engine_current_state(&tls->client.eng);
    return !(state & (BR_SSL_CLOSED | BR_SSL_RECVAPP | BR_SSL_SENDREC)) && tls->raw_at == tls->raw_n &&
           cci_net_is_quiet(tls->net);
}

/* Says goodbye if that can be had without waiting; servers do not insist. */
static void cci_tls_close(struct cci_tls *tls)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    if (!tls)
        return;
    if (!tls->broken) {
        tls->net->idle_ns = 1; /* try, but do not wait */
        br_ssl_engine_close(&tls->client.eng);
        while (!tls->broken && br_ssl_engine_current_state(&tls->client.eng) & BR_SSL_SENDREC)
            (void)cci_tls_drain(tls, &wait, NULL);
    }
    cci_net_close(tls->net);
    cci_tls_free(tls);
}

#endif
