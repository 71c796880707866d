/*
 * registry/trust_macos.h - the authorities that a macOS system trusts: those that come with the system, less those that
 * the user or the administrator has forbidden, and others that one of them trusts. A program links the frameworks
 * Security and CoreFoundation for it.
 *
 * The Security framework keeps "trust settings" of a certificate in the domains user and admin; a user's overrule an
 * administrator's. They are an array of dictionaries, each with a result and the use that it is for; the first that is
 * for our use (SSL, any host, any program, any use of the key) and says something counts. An empty array means "trusted
 * as a root", and so does a dictionary without a result. A certificate that issued itself can only be a "root", any
 * other one only be trusted "as a root".
 *
 * What CoreFoundation allocates comes from its own allocator, as its callers cannot choose.
 */
#ifndef CCI_REGISTRY_TRUST_MACOS_H
#define CCI_REGISTRY_TRUST_MACOS_H

#include <CoreFoundation/CoreFoundation.h>
#include <Security/Security.h>

#include "trust_anchors.h"

enum { CCI_TRUST_MACOS_USER, CCI_TRUST_MACOS_ADMIN, CCI_TRUST_MACOS_SYSTEM, CCI_TRUST_MACOS_LISTS };

struct cci_trust_macos {
    CFArrayRef list[CCI_TRUST_MACOS_LISTS]; /* of certificates: with settings of the user, of the administrator; the
                                               system's. NULL: there are none */
};

static void cci_trust_macos_release(CFTypeRef object)
{
    if (object)
        CFRelease(object);
}

/* The settings that count for a certificate, to be released; NULL: there are none. */
static CFArrayRef cci_trust_macos_settings(SecCertificateRef cert)
{
    static const SecTrustSettingsDomain domains[] = {kSecTrustSettingsDomainUser, kSecTrustSettingsDomainAdmin};
    for (size_t i = 0; i < CCI_COUNT(domains); i++) {
        CFArrayRef settings = NULL;
        if (SecTrustSettingsCopyTrustSettings(cert, domains[i], &settings) == errSecSuccess && settings)
            return settings;
        cci_trust_macos_release(settings);
    }
    return NULL;
}

/* Whether a policy is the one for TLS. */
static bool cci_trust_macos_is_ssl(SecPolicyRef policy)
{
    CFDictionaryRef properties = SecPolicyCopyProperties(policy);
    if (!properties)
        return false;
    CFTypeRef oid = CFDictionaryGetValue(properties, kSecPolicyOid);
    bool ssl = oid && CFEqual(oid, kSecPolicyAppleSSL);
    CFRelease(properties);
    return ssl;
}

static SInt32 cci_trust_macos_number(CFTypeRef number, SInt32 otherwise)
{
    SInt32 value = otherwise;
    if (number && !CFNumberGetValue((CFNumberRef)number, kCFNumberSInt32Type, &value))
        value = otherwise;
    return value;
}

/* What one dictionary says of our use. */
static SInt32 cci_trust_macos_result(CFDictionaryRef setting)
{
    CFTypeRef policy = CFDictionaryGetValue(setting, kSecTrustSettingsPolicy);
    CFTypeRef usage = CFDictionaryGetValue(setting, kSecTrustSettingsKeyUsage);
    CFTypeRef result = CFDictionaryGetValue(setting, kSecTrustSettingsResult);
    if (policy && !cci_trust_macos_is_ssl((SecPolicyRef)policy))
        return kSecTrustSettingsResultUnspecified;
    if (CFDictionaryGetValue(setting, kSecTrustSettingsPolicyString) || /* one host */
        CFDictionaryGetValue(setting, kSecTrustSettingsApplication))
        return kSecTrustSettingsResultUnspecified;
    if (usage && !(cci_trust_macos_number(usage, 0) & (SInt32)kSecTrustSettingsKeyUseSignCert))
        return kSecTrustSettingsResultUnspecified;
    return result ? cci_trust_macos_number(result, kSecTrustSettingsResultUnspecified)
                  : (SInt32)kSecTrustSettingsResultTrustRoot;
}

/* What the user, or else the administrator, says of a certificate. */
static SInt32 cci_trust_macos_verdict(SecCertificateRef cert)
{
    CFArrayRef settings = cci_trust_macos_settings(cert);
    SInt32 verdict = kSecTrustSettingsResultUnspecified;
    if (!settings)
        return verdict;
    CFIndex n = CFArrayGetCount(settings);
    if (!n)
        verdict = kSecTrustSettingsResultTrustRoot;
    for (CFIndex i = 0; i < n && verdict == (SInt32)kSecTrustSettingsResultUnspecified; i++)
        verdict = cci_trust_macos_result((CFDictionaryRef)CFArrayGetValueAtIndex(settings, i));
    CFRelease(settings);
    return verdict;
}

static bool cci_trust_macos_is_self_issued(SecCertificateRef cert)
{
    CFDataRef subject = SecCertificateCopyNormalizedSubjectSequence(cert);
    CFDataRef issuer = SecCertificateCopyNormalizedIssuerSequence(cert);
    bool same = subject && issuer && CFEqual(subject, issuer);
    cci_trust_macos_release(subject);
    cci_trust_macos_release(issuer);
    return same;
}

static bool cci_trust_macos_has(const struct cci_trust_macos *m, int list, SecCertificateRef cert)
{
    CFArrayRef a = m->list[list];
    return a && CFArrayContainsValue(a, CFRangeMake(0, CFArrayGetCount(a)), cert);
}

/* Whether a certificate, met in this list, is to be believed. One that is in several lists is judged in one of them. */
static bool cci_trust_macos_believes(const struct cci_trust_macos *m, int list, SecCertificateRef cert)
{
    bool of_user = cci_trust_macos_has(m, CCI_TRUST_MACOS_USER, cert);
    bool of_admin = cci_trust_macos_has(m, CCI_TRUST_MACOS_ADMIN, cert);
    if (list == CCI_TRUST_MACOS_SYSTEM)
        return !(of_user || of_admin) || cci_trust_macos_verdict(cert) != (SInt32)kSecTrustSettingsResultDeny;
    if (cci_trust_macos_has(m, CCI_TRUST_MACOS_SYSTEM, cert) || (list == CCI_TRUST_MACOS_ADMIN && of_user))
        return false;
    SInt32 wanted = cci_trust_macos_is_self_issued(cert) ? (SInt32)kSecTrustSettingsResultTrustRoot
                                                         : (SInt32)kSecTrustSettingsResultTrustAsRoot;
    return cci_trust_macos_verdict(cert) == wanted;
}

static cc_error_code cci_trust_macos_take(struct cci_trust *t, const struct cci_trust_macos *m, int list, cc_error *err)
{
    CFIndex n = m->list[list] ? CFArrayGetCount(m->list[list]) : 0;
    cc_error_code code = CC_OK;
    for (CFIndex i = 0; i < n && !code; i++) {
        SecCertificateRef cert = (SecCertificateRef)CFArrayGetValueAtIndex(m->list[list], i);
        CFDataRef der = cci_trust_macos_believes(m, list, cert) ? SecCertificateCopyData(cert) : NULL;
        int refused; /* not used for what it says: bad certificates in the system's store are passed over */
        if (der)
            code = cci_trust_add_der(t, CFDataGetBytePtr(der), (size_t)CFDataGetLength(der), &refused, err);
        cci_trust_macos_release(der);
    }
    return code;
}

static cc_error_code cci_trust_add_system(struct cci_trust *t, cc_error *err)
{
    struct cci_trust_macos m = {{NULL, NULL, NULL}};
    cc_error_code code = CC_OK;
    OSStatus status = SecTrustCopyAnchorCertificates(&m.list[CCI_TRUST_MACOS_SYSTEM]);
    if (status == errSecSuccess)
        status = SecTrustSettingsCopyCertificates(kSecTrustSettingsDomainUser, &m.list[CCI_TRUST_MACOS_USER]);
    if (status == errSecSuccess || status == errSecNoTrustSettings)
        status = SecTrustSettingsCopyCertificates(kSecTrustSettingsDomainAdmin, &m.list[CCI_TRUST_MACOS_ADMIN]);
    if (status != errSecSuccess && status != errSecNoTrustSettings)
        code = cci_fail(err, CC_ERR_IO, NULL,
                        "the system does not say which certificate authorities it trusts (Security's error %ld)",
                        (long)status);
    for (int list = 0; list < CCI_TRUST_MACOS_LISTS && !code; list++)
        code = cci_trust_macos_take(t, &m, list, err);
    for (int list = 0; list < CCI_TRUST_MACOS_LISTS; list++)
        cci_trust_macos_release(m.list[list]);
    return code;
}

#endif
