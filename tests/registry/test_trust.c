/*
 * The store of authorities: what is kept of a certificate, named files against the system's bundle, $SSL_CERT_FILE, and
 * no memory at each allocation.
 */
#define _GNU_SOURCE
#include "../../src/registry/trust.h"
#include "../check.h"
#include "authorities.h"

#include <unistd.h>

static char path[200];

static void write_file(const char *text)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(path, sizeof(path), "%s/cc-trust-XXXXXX", tmp ? tmp : "/tmp");
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static int add_pem(struct cci_trust *t, const char *pem, bool strict, cc_error *err)
{
    struct cci_buf text = {(uint8_t *)(uintptr_t)pem, strlen(pem), 0, false};
    return (int)cci_trust_add_pem(t, &text, "file", strict, err);
}

static void test_what_is_kept(void)
{
    struct cci_trust *t = cci_mem_zalloc(1, sizeof(*t));
    cc_error err = {0};
    CHECK(t);
    CHECK_OK(add_pem(t, CERT_RSA CERT_FIRST CERT_SERVER, true, &err), err);
    CHECK_EQ_INT(t->count, 3);
    CHECK_EQ_INT(count_named(t, "rsa root"), 1);
    CHECK_EQ_INT(t->anchors[0].pkey.key_type, BR_KEYTYPE_RSA);
    CHECK_EQ_INT(t->anchors[0].pkey.key.rsa.nlen, 256);
    CHECK_EQ_INT(t->anchors[1].pkey.key_type, BR_KEYTYPE_EC);
    CHECK_EQ_INT(t->anchors[1].pkey.key.ec.curve, BR_EC_secp256r1);
    CHECK_EQ_INT(t->anchors[1].flags, BR_X509_TA_CA);
    CHECK_EQ_INT(t->anchors[2].flags, 0); /* no authority: trusted for itself alone */
    cci_trust_free(t);
}

/* A named file must be sound; the system's bundle may have what we cannot use. */
static void test_strict_or_not(void)
{
    static const char bad[] = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";
    struct cci_trust *t = cci_mem_zalloc(1, sizeof(*t));
    cc_error err = {0};
    CHECK(t);
    CHECK_OK(add_pem(t, bad, false, &err), err);
    CHECK_EQ_INT(t->count, 0);
    CHECK_EQ_INT(add_pem(t, bad, true, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "file: the certificate that ends in line 3"));
    CHECK_EQ_INT(add_pem(t, "", true, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "has no certificate"));
    CHECK_EQ_INT(add_pem(t, CERT_UNUSABLE, true, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "cannot be used (BearSSL's error"));
    cci_error_release(&err);
    CHECK_OK(add_pem(t, CERT_FIRST CERT_UNUSABLE CERT_SECOND, false, &err), err);
    CHECK_EQ_INT(t->count, 2);
    CHECK_EQ_INT(count_named(t, "unusable root"), 0);
    cci_trust_free(t);
}

static void test_limit(void)
{
    struct cci_trust *t = cci_mem_zalloc(1, sizeof(*t));
    struct cci_buf der = der_of(CERT_FIRST);
    cc_error err = {0};
    int refused = 0;
    CHECK(t);
    while (t->count < CCI_TRUST_MAX && !refused)
        CHECK_OK(cci_trust_add_der(t, der.p, der.n, &refused, &err), err);
    CHECK_EQ_INT(t->count, CCI_TRUST_MAX);
    CHECK_OK(cci_trust_add_der(t, der.p, der.n, &refused, &err), err);
    CHECK_EQ_INT(refused, CCI_TRUST_FULL);
    CHECK_EQ_INT(add_pem(t, CERT_SECOND, true, &err), CC_ERR_IO);
    CHECK_EQ_STR(err.message, "file: more than 10000 certificates");
    cci_error_release(&err);
    CHECK_OK(add_pem(t, CERT_SECOND, false, &err), err);
    CHECK_EQ_INT(t->count, CCI_TRUST_MAX);
    cci_buf_free(&der);
    cci_trust_free(t);
}

/* A bundle is in one of these places, or there is none. */
static void test_system(void)
{
    struct cci_trust *t = NULL;
    cc_error err = {0};
    bool bundle = access("/etc/ssl/certs/ca-certificates.crt", R_OK) == 0;
    CHECK(unsetenv("SSL_CERT_FILE") == 0);
    CHECK_OK(cci_trust_load(NULL, &t, &err), err);
    if (bundle)
        CHECK(t->count > 20);
    cci_trust_free(t);
}

static void test_files(void)
{
    struct cci_trust *t = NULL;
    cc_error err = {0};
    char first[sizeof(path)];
    write_file(CERT_FIRST);
    memcpy(first, path, sizeof(first));
    write_file(CERT_SECOND);
    CHECK(setenv("SSL_CERT_FILE", first, 1) == 0);
    CHECK_OK(cci_trust_load(NULL, &t, &err), err);
    CHECK_EQ_INT(t->count, 1); /* in place of the system's */
    CHECK_EQ_INT(count_named(t, "first root"), 1);
    cci_trust_free(t);
    CHECK_OK(cci_trust_load(path, &t, &err), err);
    CHECK_EQ_INT(t->count, 2);
    CHECK_EQ_INT(count_named(t, "second root"), 1);
    cci_trust_free(t);
    CHECK_EQ_INT(cci_trust_load("/nowhere/ca.pem", &t, &err), CC_ERR_IO);
    CHECK(!t);
    CHECK_EQ_INT(err.sys_errno, ENOENT);
    CHECK_EQ_STR(err.path, "/nowhere/ca.pem");
    CHECK(setenv("SSL_CERT_FILE", "/tmp", 1) == 0);
    CHECK_EQ_INT(cci_trust_load(NULL, &t, &err), CC_ERR_IO);
    CHECK(strstr(err.message, "/tmp is no file of certificates"));
    cci_error_release(&err);
    (void)unlink(first);
    (void)unlink(path);
}

static void test_no_memory(void)
{
    size_t n = 0;
    write_file(CERT_RSA CERT_FIRST CERT_UNUSABLE CERT_SECOND);
    CHECK(setenv("SSL_CERT_FILE", path, 1) == 0);
    cci_mem_hook.realloc_fn = failing;
    for (int code = -1; code != (int)CC_ERR_IO; n++) {
        struct cci_trust *t;
        cc_error err = {0};
        CHECK(n < 1000);
        fail_at = n + 1;
        code = (int)cci_trust_load(path, &t, &err);
        fail_at = 0;
        CHECK(!t && err.message); /* the file has one that cannot be used: at last that is the error */
        CHECK(code == (int)CC_ERR_IO || code == (int)CC_ERR_UNKNOWN);
        if (code == (int)CC_ERR_IO && strstr(err.message, "memory"))
            code = -1;
        cci_error_release(&err);
    }
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(n > 10);
    (void)unlink(path);
}

int main(void)
{
    RUN(test_what_is_kept);
    RUN(test_strict_or_not);
    RUN(test_limit);
    RUN(test_system);
    RUN(test_files);
    RUN(test_no_memory);
    return check_done();
}
