/*
 * The Windows store of authorities, run on Linux against a fake of crypt32: which roots are believed, and that every
 * store and certificate is given back, also without memory. tests/registry/test_trust_build.py compiles the same part
 * with Windows' own headers.
 *
 * @flags -Itests/registry/fake_windows
 */
#include "../../src/registry/trust_windows.h"
#include "../check.h"
#include "authorities.h"

#define SERVER szOID_PKIX_KP_SERVER_AUTH
#define MAIL "1.3.6.1.5.5.7.3.4"

/* How CertGetEnhancedKeyUsage answers. */
enum answer { ANSWER_LIST, ANSWER_FAILS, ANSWER_FAILS_LATER };

struct item {
    const char *pem;
    DWORD encoding;       /* 0: X.509 */
    const char *usage[3]; /* none: no usage at all, unless `all` */
    bool all;             /* nothing restricts it */
    enum answer answer;
};

struct store {
    const struct item *items;
    size_t count;
    bool fails; /* to open */
    int open;
};

struct cert {
    CERT_CONTEXT context; /* first: what the caller sees */
    const struct item *item;
    size_t index;
};

static struct store root, disallowed;
static int certs_out;
static DWORD last_error;

DWORD GetLastError(void)
{
    return last_error;
}

void SetLastError(DWORD error)
{
    last_error = error;
}

HCERTSTORE CertOpenSystemStoreA(HCRYPTPROV_LEGACY provider, LPCSTR name)
{
    struct store *s = strcmp(name, "ROOT") == 0 ? &root : strcmp(name, "Disallowed") == 0 ? &disallowed : NULL;
    if (provider || !s || s->fails) {
        last_error = 5;
        return NULL;
    }
    s->open++;
    return s;
}

BOOL CertCloseStore(HCERTSTORE store, DWORD flags)
{
    if (flags || ((struct store *)store)->open-- != 1)
        abort();
    return 1;
}

static PCCERT_CONTEXT make(const struct store *s, size_t i)
{
    struct cert *c = calloc(1, sizeof(*c));
    struct cci_buf der = der_of(s->items[i].pem);
    if (!c)
        abort();
    c->context.dwCertEncodingType = s->items[i].encoding ? s->items[i].encoding : X509_ASN_ENCODING;
    c->context.pbCertEncoded = malloc(der.n); /* of its very size, for the address sanitizer */
    if (!c->context.pbCertEncoded)
        abort();
    memcpy(c->context.pbCertEncoded, der.p, der.n);
    c->context.cbCertEncoded = (DWORD)der.n;
    c->item = &s->items[i];
    c->index = i;
    cci_buf_free(&der);
    certs_out++;
    return &c->context;
}

BOOL CertFreeCertificateContext(PCCERT_CONTEXT cert)
{
    free(cert->pbCertEncoded);
    free((void *)(uintptr_t)cert);
    certs_out--;
    return 1;
}

/* As Windows: frees the one before, and sets the last error at the end. */
PCCERT_CONTEXT CertEnumCertificatesInStore(HCERTSTORE store, PCCERT_CONTEXT before)
{
    const struct store *s = store;
    size_t next = before ? ((const struct cert *)before)->index + 1 : 0;
    if (before)
        (void)CertFreeCertificateContext(before);
    if (!s->open)
        abort();
    if (next < s->count)
        return make(s, next);
    last_error = (DWORD)CRYPT_E_NOT_FOUND;
    return NULL;
}

PCCERT_CONTEXT CertFindCertificateInStore(HCERTSTORE store, DWORD encoding, DWORD flags, DWORD type, const void *what,
                                          PCCERT_CONTEXT before)
{
    const struct store *s = store;
    if (!s->open || encoding != X509_ASN_ENCODING || flags || type != CERT_FIND_EXISTING || before)
        abort();
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->items[i].pem, ((const struct cert *)what)->item->pem) == 0)
            return make(s, i);
    last_error = (DWORD)CRYPT_E_NOT_FOUND;
    return NULL;
}

/* One piece of memory, as Windows fills it: the structure, the pointers, the strings. */
BOOL CertGetEnhancedKeyUsage(PCCERT_CONTEXT cert, DWORD flags, PCERT_ENHKEY_USAGE usage, DWORD *size)
{
    const struct item *item = ((const struct cert *)cert)->item;
    size_t need = sizeof(*usage), n = 0;
    if (flags || item->answer == ANSWER_FAILS || (item->answer == ANSWER_FAILS_LATER && usage)) {
        last_error = (DWORD)CRYPT_E_NOT_FOUND; /* must not be taken for "all usages" */
        return 0;
    }
    for (; n < CCI_COUNT(item->usage) && item->usage[n]; n++)
        need += sizeof(LPSTR) + strlen(item->usage[n]) + 1;
    if (usage) {
        if (*size < need)
            abort();
        usage->cUsageIdentifier = (DWORD)n;
        usage->rgpszUsageIdentifier = (LPSTR *)(usage + 1);
        char *text = (char *)(usage->rgpszUsageIdentifier + n);
        for (size_t i = 0; i < n; i++) {
            usage->rgpszUsageIdentifier[i] = strcpy(text, item->usage[i]);
            text += strlen(text) + 1;
        }
        if (item->all)
            last_error = (DWORD)CRYPT_E_NOT_FOUND;
    }
    *size = (DWORD)need;
    return 1;
}

static int load(struct cci_trust **out, cc_error *err)
{
    struct cci_trust *t = calloc(1, sizeof(*t));
    if (!t)
        abort();
    last_error = (DWORD)CRYPT_E_NOT_FOUND; /* from whatever ran before */
    int code = (int)cci_trust_add_system(t, err);
    if (root.open || disallowed.open || certs_out)
        abort();
    *out = t;
    return code;
}

static void set(struct store *s, const struct item *items, size_t n)
{
    memset(s, 0, sizeof(*s));
    s->items = items;
    s->count = n;
}

static const struct item good[] = {
    {.pem = CERT_RSA, .all = true},
    {.pem = CERT_UNUSABLE, .all = true},
    {.pem = CERT_FIRST, .usage = {MAIL, SERVER}},
    {.pem = CERT_SECOND, .usage = {szOID_ANY_ENHANCED_KEY_USAGE}},
};

static void test_roots(void)
{
    struct cci_trust *t;
    cc_error err = {0};
    set(&root, good, CCI_COUNT(good));
    set(&disallowed, NULL, 0);
    CHECK_OK(load(&t, &err), err);
    CHECK_EQ_INT(t->count, 3);
    CHECK_EQ_INT(count_named(t, "rsa root"), 1);
    CHECK_EQ_INT(count_named(t, "first root"), 1);
    CHECK_EQ_INT(count_named(t, "second root"), 1);
    cci_trust_free(t);
}

static void test_not_for_servers(void)
{
    static const struct item items[] = {
        {.pem = CERT_FIRST, .usage = {MAIL}},                               /* other uses only */
        {.pem = CERT_SECOND},                                               /* no use at all: disabled */
        {.pem = CERT_RSA, .all = true, .answer = ANSWER_FAILS},             /* not to be found out */
        {.pem = CERT_RSA, .all = true, .answer = ANSWER_FAILS_LATER},       /* the same */
        {.pem = CERT_SERVER, .all = true, .encoding = PKCS_7_ASN_ENCODING}, /* not X.509 */
        {.pem = CERT_RSA, .usage = {szOID_PKIX_KP_SERVER_AUTH "0"}},        /* a longer name */
        {.pem = CERT_THIRD, .all = true, .encoding = X509_ASN_ENCODING | PKCS_7_ASN_ENCODING},
    };
    struct cci_trust *t;
    cc_error err = {0};
    set(&root, items, CCI_COUNT(items));
    set(&disallowed, NULL, 0);
    CHECK_OK(load(&t, &err), err);
    CHECK_EQ_INT(t->count, 1);
    CHECK_EQ_INT(count_named(t, "third root"), 1);
    cci_trust_free(t);
}

static void test_disallowed(void)
{
    static const struct item items[] = {{.pem = CERT_MIDDLE}, {.pem = CERT_FIRST}};
    struct cci_trust *t;
    cc_error err = {0};
    set(&root, good, CCI_COUNT(good));
    set(&disallowed, items, CCI_COUNT(items));
    CHECK_OK(load(&t, &err), err);
    CHECK_EQ_INT(t->count, 2);
    CHECK_EQ_INT(count_named(t, "first root"), 0);
    cci_trust_free(t);
}

static void test_empty(void)
{
    struct cci_trust *t;
    cc_error err = {0};
    set(&root, NULL, 0);
    set(&disallowed, NULL, 0);
    CHECK_OK(load(&t, &err), err);
    CHECK_EQ_INT(t->count, 0);
    cci_trust_free(t);
}

static void test_does_not_open(void)
{
    for (int which = 0; which < 2; which++) {
        struct cci_trust *t;
        cc_error err = {0};
        set(&root, good, CCI_COUNT(good));
        set(&disallowed, NULL, 0);
        *(which ? &disallowed.fails : &root.fails) = true;
        CHECK_EQ_INT(load(&t, &err), CC_ERR_IO);
        CHECK_EQ_STR(err.message,
                     which ? "cannot open the system's store of certificates \"Disallowed\" (Windows' error 5)"
                           : "cannot open the system's store of certificates \"ROOT\" (Windows' error 5)");
        cci_error_release(&err);
        cci_trust_free(t);
    }
}

static void test_no_memory(void)
{
    size_t n = 0;
    set(&root, good, CCI_COUNT(good));
    set(&disallowed, NULL, 0);
    cci_mem_hook.realloc_fn = failing;
    for (int code = -1; code != (int)CC_OK; n++) {
        struct cci_trust *t;
        cc_error err = {0};
        CHECK(n < 1000);
        fail_at = n + 1;
        code = load(&t, &err);
        fail_at = 0;
        CHECK(code == (int)CC_OK || code == (int)CC_ERR_UNKNOWN);
        if (code)
            CHECK_EQ_STR(err.message, "out of memory");
        cci_error_release(&err);
        cci_trust_free(t);
    }
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(n > 10);
}

int main(void)
{
    RUN(test_roots);
    RUN(test_not_for_servers);
    RUN(test_disallowed);
    RUN(test_empty);
    RUN(test_does_not_open);
    RUN(test_no_memory);
    return check_done();
}
