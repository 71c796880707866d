/*
 * The macOS store of authorities, run on Linux against a fake of the Security framework: which certificates are
 * believed by what the user, the administrator and the system say, and that every object is given back, also without
 * memory.
 *
 * @flags -Itests/registry/fake_macos
 */
#define _GNU_SOURCE
#include "../../src/registry/trust_macos.h"
#include "../check.h"
#include "authorities.h"

#define SSL_OID "1.2.840.113635.100.1.3"
#define MAIL_OID "1.2.840.113635.100.1.8"

/* ---- What a test says ------------------------------------------------------------------------------------- */

/* One dictionary of trust settings. */
struct setting {
    const char *policy; /* its OID; "" for one without properties; NULL: for all */
    const char *host;
    const char *application;
    int64_t usage;  /* 0: not restricted */
    int64_t result; /* 0: none; -1: one that is no number */
};

enum { MAX_SETTINGS = 4 };

/* A certificate, and what is said of it in the domains user and admin. */
struct item {
    const char *pem, *subject, *issuer; /* the names are NULL for one that the framework cannot read */
    bool system;                        /* comes with the system */
    int said[2];                        /* how many settings; -1: it is in the domain with none; 0: it is not in it */
    struct setting setting[2][MAX_SETTINGS];
};

static const struct item *items;
static size_t item_count;
static OSStatus anchors_status, domain_status[2];

/* ---- The fake --------------------------------------------------------------------------------------------- */

enum kind { STRING, ARRAY, DATA, DICTIONARY, NUMBER, CERTIFICATE, POLICY };

/* Any object. */
struct object {
    enum kind kind;
    int references;
    char *text;              /* a string's; a policy's OID; the bytes of data */
    size_t n;                /* of bytes, or entries */
    const void *entry[16];   /* of an array; a dictionary's values */
    const char *key[16];     /* a dictionary's */
    const struct item *item; /* a certificate's */
    int64_t number;
};

static struct object strings[16];
static int objects_out;

static struct object *new_object(enum kind kind)
{
    struct object *o = calloc(1, sizeof(*o));
    if (!o)
        abort();
    o->kind = kind;
    o->references = 1;
    objects_out++;
    return o;
}

CFStringRef fake_string(const char *text)
{
    for (size_t i = 0; i < CCI_COUNT(strings); i++) {
        if (!strings[i].text)
            strings[i].text = (char *)(uintptr_t)text;
        if (strcmp(strings[i].text, text) == 0)
            return (CFStringRef)&strings[i];
    }
    abort();
}

static bool is_constant(const struct object *o)
{
    return o >= strings && o < strings + CCI_COUNT(strings);
}

void CFRelease(CFTypeRef object)
{
    struct object *o = (struct object *)(uintptr_t)object;
    if (is_constant(o) || o->references < 1)
        abort();
    if (--o->references)
        return;
    for (size_t i = 0; i < o->n && (o->kind == ARRAY || o->kind == DICTIONARY); i++)
        if (!is_constant(o->entry[i]))
            CFRelease(o->entry[i]);
    free(o->text);
    free(o);
    objects_out--;
}

Boolean CFEqual(CFTypeRef a, CFTypeRef b)
{
    const struct object *x = a, *y = b;
    if (x->kind != y->kind)
        return 0;
    switch (x->kind) {
    case STRING:
        return strcmp(x->text, y->text) == 0;
    case DATA:
        return x->n == y->n && memcmp(x->text, y->text, x->n) == 0;
    case CERTIFICATE:
        return strcmp(x->item->pem, y->item->pem) == 0;
    default:
        return x == y;
    }
}

static const struct object *of_kind(const void *object, enum kind kind)
{
    const struct object *o = object;
    if (o->kind != kind)
        abort();
    return o;
}

CFIndex CFArrayGetCount(CFArrayRef array)
{
    return (CFIndex)of_kind(array, ARRAY)->n;
}

const void *CFArrayGetValueAtIndex(CFArrayRef array, CFIndex i)
{
    if (i < 0 || i >= CFArrayGetCount(array))
        abort();
    return of_kind(array, ARRAY)->entry[i];
}

Boolean CFArrayContainsValue(CFArrayRef array, CFRange range, const void *value)
{
    if (range.location || range.length != CFArrayGetCount(array))
        abort();
    for (CFIndex i = 0; i < range.length; i++)
        if (CFEqual(CFArrayGetValueAtIndex(array, i), value))
            return 1;
    return 0;
}

const void *CFDictionaryGetValue(CFDictionaryRef dictionary, const void *key)
{
    const struct object *d = of_kind(dictionary, DICTIONARY);
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->key[i], of_kind(key, STRING)->text) == 0)
            return d->entry[i];
    return NULL;
}

Boolean CFNumberGetValue(CFNumberRef number, CFNumberType type, void *out)
{
    const struct object *o = (const void *)number;
    if (type != kCFNumberSInt32Type || o->kind != NUMBER || o->number < 0)
        return 0;
    SInt32 value = (SInt32)(uint32_t)o->number;
    memcpy(out, &value, sizeof(value));
    return 1;
}

const uint8_t *CFDataGetBytePtr(CFDataRef data)
{
    return (const uint8_t *)of_kind(data, DATA)->text;
}

CFIndex CFDataGetLength(CFDataRef data)
{
    return (CFIndex)of_kind(data, DATA)->n;
}

static CFDataRef new_data(const void *bytes, size_t n)
{
    struct object *o = new_object(DATA);
    o->text = malloc(n);
    if (!o->text)
        abort();
    memcpy(o->text, bytes, n);
    o->n = n;
    return (CFDataRef)o;
}

static void append(struct object *to, const char *key, const void *value)
{
    if (to->n == CCI_COUNT(to->entry))
        abort();
    to->key[to->n] = key;
    to->entry[to->n++] = value;
}

static struct object *new_number(int64_t number)
{
    struct object *o = new_object(NUMBER);
    o->number = number;
    return o;
}

static struct object *new_setting(const struct setting *s)
{
    struct object *d = new_object(DICTIONARY);
    if (s->policy) {
        struct object *policy = new_object(POLICY);
        policy->text = strdup(s->policy);
        append(d, "kSecTrustSettingsPolicy", policy);
    }
    if (s->host)
        append(d, "kSecTrustSettingsPolicyString", fake_string("a host"));
    if (s->application)
        append(d, "kSecTrustSettingsApplication", new_object(DATA));
    if (s->usage)
        append(d, "kSecTrustSettingsKeyUsage", new_number(s->usage));
    if (s->result)
        append(d, "kSecTrustSettingsResult", new_number(s->result));
    return d;
}

CFDictionaryRef SecPolicyCopyProperties(SecPolicyRef policy)
{
    const char *oid = of_kind(policy, POLICY)->text;
    if (!*oid)
        return NULL;
    struct object *d = new_object(DICTIONARY);
    append(d, "SecPolicyOid", fake_string(strcmp(oid, SSL_OID) == 0 ? SSL_OID : MAIL_OID));
    return (CFDictionaryRef)d;
}

/* The certificates of a domain, or with -1 the system's. */
static CFArrayRef new_list(int domain)
{
    struct object *array = new_object(ARRAY);
    for (size_t i = 0; i < item_count; i++) {
        if (domain < 0 ? !items[i].system : !items[i].said[domain])
            continue;
        struct object *cert = new_object(CERTIFICATE);
        cert->item = &items[i];
        append(array, NULL, cert);
    }
    return (CFArrayRef)array;
}

OSStatus SecTrustCopyAnchorCertificates(CFArrayRef *anchors)
{
    if (anchors_status == errSecSuccess)
        *anchors = new_list(-1);
    return anchors_status;
}

OSStatus SecTrustSettingsCopyCertificates(SecTrustSettingsDomain domain, CFArrayRef *certificates)
{
    CFArrayRef list = domain < 2 ? new_list((int)domain) : NULL;
    if (!list)
        abort();
    if (domain_status[domain] == errSecSuccess && CFArrayGetCount(list)) {
        *certificates = list;
        return errSecSuccess;
    }
    CFRelease(list);
    return domain_status[domain] ? domain_status[domain] : (OSStatus)errSecNoTrustSettings;
}

OSStatus SecTrustSettingsCopyTrustSettings(SecCertificateRef certificate, SecTrustSettingsDomain domain,
                                           CFArrayRef *settings)
{
    const struct item *item = of_kind(certificate, CERTIFICATE)->item;
    if (domain >= 2)
        abort();
    if (!item->said[domain])
        return errSecItemNotFound;
    struct object *array = new_object(ARRAY);
    for (int i = 0; i < item->said[domain]; i++)
        append(array, NULL, new_setting(&item->setting[domain][i]));
    *settings = (CFArrayRef)array;
    return errSecSuccess;
}

CFDataRef SecCertificateCopyData(SecCertificateRef certificate)
{
    struct cci_buf der = der_of(of_kind(certificate, CERTIFICATE)->item->pem);
    CFDataRef data = new_data(der.p, der.n);
    cci_buf_free(&der);
    return data;
}

CFDataRef SecCertificateCopyNormalizedSubjectSequence(SecCertificateRef certificate)
{
    const char *name = of_kind(certificate, CERTIFICATE)->item->subject;
    return name ? new_data(name, strlen(name)) : NULL;
}

CFDataRef SecCertificateCopyNormalizedIssuerSequence(SecCertificateRef certificate)
{
    const char *name = of_kind(certificate, CERTIFICATE)->item->issuer;
    return name ? new_data(name, strlen(name)) : NULL;
}

/* ---- Tests ------------------------------------------------------------------------------------------------ */

static int load(const struct item *list, size_t n, struct cci_trust **out, cc_error *err)
{
    struct cci_trust *t = calloc(1, sizeof(*t));
    if (!t)
        abort();
    items = list;
    item_count = n;
    int code = (int)cci_trust_add_system(t, err);
    if (objects_out)
        abort();
    *out = t;
    return code;
}

/* Loads the list and compares the believed names, which end with ';', in any order. */
static void check_believed(const struct item *list, size_t n, const char *names)
{
    struct cci_trust *t;
    cc_error err = {0};
    size_t count = 0;
    CHECK_OK(load(list, n, &t, &err), err);
    for (const char *end; (end = strchr(names, ';')) != NULL; names = end + 1, count++) {
        char name[40];
        (void)snprintf(name, sizeof(name), "%.*s", (int)(end - names), names);
        CHECK_EQ_INT(count_named(t, name), 1);
    }
    CHECK_EQ_INT(t->count, count);
    cci_trust_free(t);
}

#define ROOT(pem_, name_) .pem = pem_, .subject = name_, .issuer = name_

static const struct item good[] = {
    {ROOT(CERT_RSA, "rsa"), .system = true},
    {ROOT(CERT_UNUSABLE, "unusable"), .system = true},
    {ROOT(CERT_FIRST, "first"), .system = true},
    {ROOT(CERT_SECOND, "second"), .said = {-1, 0}}, /* the user trusts it for anything */
    {ROOT(CERT_THIRD, "third"), .said = {0, 1}, .setting = {{{0}}, {{.policy = SSL_OID}}}}, /* the administrator, SSL */
};

static void test_roots(void)
{
    check_believed(good, CCI_COUNT(good), "rsa root;first root;second root;third root;");
    check_believed(good, 3, "rsa root;first root;"); /* nobody has settings */
    check_believed(good + 4, 1, "third root;");      /* the administrator alone has some */
    check_believed(NULL, 0, "");
}

static void test_forbidden(void)
{
    static const struct item list[] = {
        {ROOT(CERT_FIRST, "first"), .system = true, .said = {1, 0}, .setting = {{{.policy = SSL_OID, .result = 3}}}},
        {ROOT(CERT_SECOND, "second"), .system = true, .said = {0, 1}, .setting = {{{0}}, {{.result = 3}}}},
        {ROOT(CERT_THIRD, "third"), .said = {1, 0}, .setting = {{{.result = 3}}}},
        {ROOT(CERT_RSA, "rsa"), .system = true},
    };
    check_believed(list, CCI_COUNT(list), "rsa root;");
}

/* Settings for something else than TLS with any host change nothing. */
static void test_other_uses(void)
{
    static const struct item list[] = {
        {ROOT(CERT_FIRST, "first"), .system = true, .said = {1, 0}, .setting = {{{.policy = MAIL_OID, .result = 3}}}},
        {ROOT(CERT_SECOND, "second"), .said = {1, 0}, .setting = {{{.policy = MAIL_OID, .result = 1}}}},
        {ROOT(CERT_THIRD, "third"), .said = {4, 0},
         .setting = {{{.policy = SSL_OID, .host = "one.example", .result = 1},
                      {.application = "one program", .result = 1},
                      {.policy = "", .result = 1},
                      {.usage = 1, .result = 1}}}},
        {ROOT(CERT_RSA, "rsa"), .said = {3, 0},
         .setting = {{{.policy = MAIL_OID, .result = 3},
                      {.usage = 0xffffffff, .result = 4},
                      {.usage = 8, .result = 1}}}},
    };
    check_believed(list, CCI_COUNT(list), "first root;rsa root;");
}

static void test_result_that_is_no_number(void)
{
    static const struct item list[] = {
        {ROOT(CERT_FIRST, "first"), .said = {1, 0}, .setting = {{{.result = -1}}}},
        {ROOT(CERT_SECOND, "second"), .said = {1, 0}, .setting = {{{.result = 77}}}},
    };
    check_believed(list, CCI_COUNT(list), "");
}

/* The first that says something counts, and a user's overrule an administrator's. */
static void test_which_counts(void)
{
    static const struct item list[] = {
        {ROOT(CERT_FIRST, "first"), .said = {2, 0}, .setting = {{{.policy = SSL_OID, .result = 1}, {.result = 3}}}},
        {ROOT(CERT_SECOND, "second"), .said = {-1, 1}, .setting = {{{0}}, {{.result = 3}}}},
        {ROOT(CERT_THIRD, "third"), .said = {1, 1}, .setting = {{{.result = 3}}, {{.result = 1}}}},
        {ROOT(CERT_RSA, "rsa"), .system = true, .said = {1, 1}, .setting = {{{.result = 1}}, {{.result = 1}}}},
    };
    check_believed(list, CCI_COUNT(list), "first root;second root;rsa root;");
}

/* Only what issued itself is a root; other certificates are trusted as if they were. */
static void test_no_roots(void)
{
    static const struct item list[] = {
        {.pem = CERT_MIDDLE, .subject = "middle", .issuer = "first", .said = {1, 0}, .setting = {{{.result = 2}}}},
        {.pem = CERT_SECOND, .subject = "second", .issuer = "first", .said = {-1, 0}},
        {ROOT(CERT_THIRD, "third"), .said = {1, 0}, .setting = {{{.result = 2}}}},
        {ROOT(CERT_RSA, NULL), .said = {-1, 0}},
        {ROOT(CERT_SERVER, "server"), .said = {-1, 0}},
    };
    struct cci_trust *t;
    cc_error err = {0};
    check_believed(list, CCI_COUNT(list), "middle;server alone;");
    CHECK_OK(load(list + 4, 1, &t, &err), err);
    CHECK_EQ_INT(t->anchors[0].flags, 0); /* for itself alone */
    cci_trust_free(t);
}

static void test_framework_fails(void)
{
    OSStatus *const places[] = {&anchors_status, &domain_status[0], &domain_status[1]};
    for (size_t i = 0; i < CCI_COUNT(places); i++) {
        struct cci_trust *t;
        cc_error err = {0};
        *places[i] = -50;
        int code = load(good, CCI_COUNT(good), &t, &err);
        *places[i] = errSecSuccess;
        CHECK_EQ_INT(code, CC_ERR_IO);
        CHECK_EQ_STR(err.message,
                     "the system does not say which certificate authorities it trusts (Security's error -50)");
        CHECK_EQ_INT(t->count, 0);
        cci_error_release(&err);
        cci_trust_free(t);
    }
}

static void test_no_memory(void)
{
    size_t n = 0;
    cci_mem_hook.realloc_fn = failing;
    for (int code = -1; code != (int)CC_OK; n++) {
        struct cci_trust *t;
        cc_error err = {0};
        CHECK(n < 1000);
        fail_at = n + 1;
        code = load(good, CCI_COUNT(good), &t, &err);
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
    RUN(test_forbidden);
    RUN(test_other_uses);
    RUN(test_result_that_is_no_number);
    RUN(test_which_counts);
    RUN(test_no_roots);
    RUN(test_framework_fails);
    RUN(test_no_memory);
    return check_done();
}
