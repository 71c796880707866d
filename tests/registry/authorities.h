/*
 * Certificates for the tests of the trust stores, as PEM. What openssl made, whose keys were thrown away:
 *
 *     openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout /dev/null -subj "/CN=first root"
 *         -days 36500 -addext basicConstraints=critical,CA:TRUE
 */
#ifndef TESTS_REGISTRY_AUTHORITIES_H
#define TESTS_REGISTRY_AUTHORITIES_H

#include "../../src/registry/trust_anchors.h"

/* "rsa root", RSA of 2048 bits */
#define CERT_RSA                                                                                                       \
    "-----BEGIN CERTIFICATE-----\n"                                                                                    \
    "MIIDCTCCAfGgAwIBAgIUWJfi+sH7JwTfqDkpqToJ74Hpg4AwDQYJKoZIhvcNAQEL\n"                                               \
    "BQAwEzERMA8GA1UEAwwIcnNhIHJvb3QwIBcNMjYxMTIyMDYyOTIwWhgPMjEyNjEw\n"                                               \
    "MjkwNjI5MjBaMBMxETAPBgNVBAMMCHJzYSByb290MIIBIjANBgkqhkiG9w0BAQEF\n"                                               \
    "AAOCAQ8AMIIBCgKCAQEAwtICrtG9h1GLt0oNo8QTWwvYIc5oalCMjJtj0j+hFh8+\n"                                               \
    "LQRyp5PhuD5+63fJmz57G6/5cY+SBTp4D+CmbMu4nN3HZE4fHgeugUqOgd8lYacq\n"                                               \
    "Tc0CPPrVJ/YWA1hKYKoHU2Lwf4J/T/TIweDByV6SnKsmrh1zDKaDrlcKHXawJGt6\n"                                               \
    "GzQ5Zh4AlkW/QLSd/vQ0Z7PHGXYvQhs8H5HvO7qWSz4/Io2ZAX7ZVaOE5YfmAzD9\n"                                               \
    "TQT0YCssB6+OEpotZ/Qd1mJxGF4MIi3FgFpbm728s1LVfT53jEGrk3uy14/90dgg\n"                                               \
    "QHFNWgKOvoraxrzD5BVqoj38p3CUWKHzfGycEsOsNQIDAQABo1MwUTAdBgNVHQ4E\n"                                               \
    "FgQUs4BDpFd8rxx51fTvH3GdYMkENlgwHwYDVR0jBBgwFoAUs4BDpFd8rxx51fTv\n"                                               \
    "H3GdYMkENlgwDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOCAQEAH/f8\n"                                               \
    "YgTOvmbv7KUNLKq+C6yHTJlUYr/4bk/TQ4wfPxL72eD3i9CkGT5GdcVjEpCJhS+C\n"                                               \
    "M3j2pFHKI14iS6h3Mu/eSqEvoHkt/JX6bCS0n1SA9Gfv4ra6XyWv3RkjZSYfQpu1\n"                                               \
    "EAJTtn/TVmwvbDPm8T+doy6IuISdLn9/8MKo0NanRpiuHgA4hnT45hy5tN0yYYWX\n"                                               \
    "nQ47TufTG1xM77DN4bytnCED4L5QDm6IO4wonhNiNzyA/IZzqTikkVjITDAvfFUY\n"                                               \
    "BoJ15b2Zg/37jbiJG4sVmV3bANsOx4R2GYcRtjmwqEMYwo5fCZQHFUoMvhxxsuR1\n"                                               \
    "nSwr1ZYh1aeLeAYfCA==\n"                                                                                           \
    "-----END CERTIFICATE-----\n"

/* "first root", P-256, as most here */
#define CERT_FIRST                                                                                                     \
    "-----BEGIN CERTIFICATE-----\n"                                                                                    \
    "MIIBgjCCASegAwIBAgIUcViPb/VV1G3PSn8Qwg/PV4wJa/UwCgYIKoZIzj0EAwIw\n"                                               \
    "FTETMBEGA1UEAwwKZmlyc3Qgcm9vdDAgFw0yNjExMjIwNjI5MjBaGA8yMTI2MTAy\n"                                               \
    "OTA2MjkyMFowFTETMBEGA1UEAwwKZmlyc3Qgcm9vdDBZMBMGByqGSM49AgEGCCqG\n"                                               \
    "SM49AwEHA0IABKGs5TLALTWsxqwYvI7yelyMsz2El0yJvL3LwPl/tKpeTrXkgbTF\n"                                               \
    "MFxABoScBRT2ezKHvXq1m85+fTEKuz5pMR+jUzBRMB0GA1UdDgQWBBT5tMiweLFc\n"                                               \
    "9xFOt4WJhmostMWg+zAfBgNVHSMEGDAWgBT5tMiweLFc9xFOt4WJhmostMWg+zAP\n"                                               \
    "BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQDzkAx310nj59aThg/8\n"                                               \
    "SFWwWVSrYvW+PIh1SZ9wxBkogQIhANVjYRRUhMRFqj3E+j2EFeNnSLtuiQj5GfLC\n"                                               \
    "6vMBNCzW\n"                                                                                                       \
    "-----END CERTIFICATE-----\n"

/* "second root" */
#define CERT_SECOND                                                                                                    \
    "-----BEGIN CERTIFICATE-----\n"                                                                                    \
    "MIIBhDCCASmgAwIBAgIUEykJCTZ7C4nh7y14lszJ3epM6fkwCgYIKoZIzj0EAwIw\n"                                               \
    "FjEUMBIGA1UEAwwLc2Vjb25kIHJvb3QwIBcNMjYxMTIyMDYyOTIwWhgPMjEyNjEw\n"                                               \
    "MjkwNjI5MjBaMBYxFDASBgNVBAMMC3NlY29uZCByb290MFkwEwYHKoZIzj0CAQYI\n"                                               \
    "KoZIzj0DAQcDQgAEG6vn2b6lBfiIxMmHPwa5gss6gNNYWx6GRlWgsFocxqc95T9F\n"                                               \
    "/C26J7+jrW+wzwOTjLHNL1flhyalL0VcuKFFHqNTMFEwHQYDVR0OBBYEFE8UvefJ\n"                                               \
    "kYBU0/hMdQApUscXJJRTMB8GA1UdIwQYMBaAFE8UvefJkYBU0/hMdQApUscXJJRT\n"                                               \
    "MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAP44Ff69qUEU43TP\n"                                               \
    "K1FeYNPyWgrkZI3/sXa7YfWsFoXiAiEAghvbNkkDyBU2NEHQC3KpUpen0SVHAbVH\n"                                               \
    "F8plzXZPXs8=\n"                                                                                                   \
    "-----END CERTIFICATE-----\n"

/* "third root" */
#define CERT_THIRD                                                                                                     \
    "-----BEGIN CERTIFICATE-----\n"                                                                                    \
    "MIIBgjCCASegAwIBAgIUbszmn1fKxzaJfzKh3VCbxuKgatEwCgYIKoZIzj0EAwIw\n"                                               \
    "FTETMBEGA1UEAwwKdGhpcmQgcm9vdDAgFw0yNjExMjIwNjI5MjBaGA8yMTI2MTAy\n"                                               \
    "OTA2MjkyMFowFTETMBEGA1UEAwwKdGhpcmQgcm9vdDBZMBMGByqGSM49AgEGCCqG\n"                                               \
    "SM49AwEHA0IABI6otPUc3roG+5sTrfFwQivPdzXSSO2tbKlAiDjZsUoC++n5IWXy\n"                                               \
    "PNc8RnnENOseOxFIwMczVF8z119m0ThlptOjUzBRMB0GA1UdDgQWBBTRXEbA3crX\n"                                               \
    "DePohT9EvwKtr/sQhzAfBgNVHSMEGDAWgBTRXEbA3crXDePohT9EvwKtr/sQhzAP\n"                                               \
    "BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCs4yBBFR16Sr8bxvYe\n"                                               \
    "mXCvHaovEednkvtqjyh0LVqB+wIhAI39rVmMdKiekQtm3DoDgbNrW0sfeeO3VDK0\n"                                               \
    "WFnsbuEY\n"                                                                                                       \
    "-----END CERTIFICATE-----\n"

/* "unusable root": Ed25519, which BearSSL lacks */
#define CERT_UNUSABLE                                                                                                  \
    "-----BEGIN CERTIFICATE-----\n"                                                                                    \
    "MIIBRjCB+aADAgECAhR/KCbJAsPfjGxRyaGm9aTsRHrPcjAFBgMrZXAwGDEWMBQG\n"                                               \
    "A1UEAwwNdW51c2FibGUgcm9vdDAgFw0yNjExMjIwNjI5MjBaGA8yMTI2MTAyOTA2\n"                                               \
    "MjkyMFowGDEWMBQGA1UEAwwNdW51c2FibGUgcm9vdDAqMAUGAytlcAMhAGS5BiFv\n"                                               \
    "2oR/oK7JEobkwUhCvIx6XapzrOGLYl/PoPtDo1MwUTAdBgNVHQ4EFgQUxHdxnZ4z\n"                                               \
    "a+Mo73DespOREtHOSoAwHwYDVR0jBBgwFoAUxHdxnZ4za+Mo73DespOREtHOSoAw\n"                                               \
    "DwYDVR0TAQH/BAUwAwEB/zAFBgMrZXADQQCj/RYZKpFEU/7fJcE982eI33pppr78\n"                                               \
    "13GJ7jlmZwUMprWSEzKj/9CGnLkhK8hekkiecdzbb9QmIIgIXYFNdMgE\n"                                                       \
    "-----END CERTIFICATE-----\n"

/* "middle", no root: issued by "first root" */
#define CERT_MIDDLE                                                                                                    \
    "-----BEGIN CERTIFICATE-----\n"                                                                                    \
    "MIIBfDCCASOgAwIBAgIUdN3xGArLDV3AOpAoDtprZdWUFGIwCgYIKoZIzj0EAwIw\n"                                               \
    "FTETMBEGA1UEAwwKZmlyc3Qgcm9vdDAgFw0yNjExMjIwNjI5MjBaGA8yMTI2MTAy\n"                                               \
    "OTA2MjkyMFowETEPMA0GA1UEAwwGbWlkZGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0D\n"                                               \
    "AQcDQgAEHujOlf3ir6s7UGdyk47WStHLXw/wHLh4NMSutEWtojED8XoOgOEJnvHb\n"                                               \
    "3rW+yHeCXri0WH13Q34S7khWO/xh3aNTMFEwDwYDVR0TAQH/BAUwAwEB/zAdBgNV\n"                                               \
    "HQ4EFgQU70vhSzAiOrCbnH4bVxEI3YtinWwwHwYDVR0jBBgwFoAU+bTIsHixXPcR\n"                                               \
    "TreFiYZqLLTFoPswCgYIKoZIzj0EAwIDRwAwRAIgDUdvfo70A8dahm7dm7rvi1NP\n"                                               \
    "fdAVCs2Q3lg47jxNMmcCIGxWKJp/wrCUMRc8uZkqngg/eSWS5ronKfK4xS/vH4uI\n"                                               \
    "-----END CERTIFICATE-----\n"

/* "server alone": its own issuer, and no authority (CA:FALSE) */
#define CERT_SERVER                                                                                                    \
    "-----BEGIN CERTIFICATE-----\n"                                                                                    \
    "MIIBgTCCASigAwIBAgIUBEPQFF8P/ghf7BFkId7MDghdE/wwCgYIKoZIzj0EAwIw\n"                                               \
    "FzEVMBMGA1UEAwwMc2VydmVyIGFsb25lMCAXDTI2MTEyMjA2MjkyMFoYDzIxMjYx\n"                                               \
    "MDI5MDYyOTIwWjAXMRUwEwYDVQQDDAxzZXJ2ZXIgYWxvbmUwWTATBgcqhkjOPQIB\n"                                               \
    "BggqhkjOPQMBBwNCAASZjhGKYJYC5su/RnjTX4+AR+dlaUqXpyrXpThcDtPola5J\n"                                               \
    "pIryd3tW6EMn5lCp7TimpeZW6jRU/JwXwCgGsOoWo1AwTjAdBgNVHQ4EFgQUCDpS\n"                                               \
    "yRrtt6rgZgjt6WK6pc8Z/KIwHwYDVR0jBBgwFoAUCDpSyRrtt6rgZgjt6WK6pc8Z\n"                                               \
    "/KIwDAYDVR0TAQH/BAIwADAKBggqhkjOPQQDAgNHADBEAiBO4VSw0NDpNE16hX3W\n"                                               \
    "++DcUUNeEuYw8KAnPmQ/gGXb8AIgdwaxjqgCTsrS6dLuR049cZPmVLxt2ZCMCoTs\n"                                               \
    "eBlVxwc=\n"                                                                                                       \
    "-----END CERTIFICATE-----\n"

/* How many anchors have this common name (the last thing in the names above). */
static size_t count_named(const struct cci_trust *t, const char *name)
{
    size_t n = strlen(name), count = 0;
    for (size_t i = 0; i < t->count; i++)
        count += t->anchors[i].dn.len >= n && memcmp(t->anchors[i].dn.data + t->anchors[i].dn.len - n, name, n) == 0;
    return count;
}

/* An allocator that fails once, at the fail_at-th call (0: never). */
static size_t fail_at;

static void *failing(void *ctx, void *old, size_t size)
{
    if (size && fail_at && --fail_at == 0)
        return NULL;
    return cci_mem_default_alloc(ctx, old, size);
}

/* The DER of a certificate above; free it with cci_buf_free. Always has memory. */
static struct cci_buf der_of(const char *pem)
{
    struct cci_pem_reader r;
    struct cci_buf der = {NULL, 0, 0, false};
    bool found = false;
    size_t kept = fail_at;
    fail_at = 0;
    cci_pem_begin(&r, pem, strlen(pem));
    if (cci_pem_next(&r, "CERTIFICATE", "pem", &der, &found, NULL) != CC_OK || !found)
        abort();
    fail_at = kept;
    return der;
}

#endif
