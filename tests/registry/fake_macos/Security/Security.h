/* As much of the Security framework as registry/trust_macos.h uses; see CoreFoundation.h in the directory beside. */
#ifndef TESTS_FAKE_SECURITY_H
#define TESTS_FAKE_SECURITY_H

#include <CoreFoundation/CoreFoundation.h>

typedef struct __SecCertificate *SecCertificateRef;
typedef struct __SecPolicy *SecPolicyRef;

enum { errSecSuccess = 0, errSecItemNotFound = -25300, errSecNoTrustSettings = -25263 };

typedef uint32_t SecTrustSettingsResult;
#define kSecTrustSettingsResultInvalid ((SecTrustSettingsResult)0)
#define kSecTrustSettingsResultTrustRoot ((SecTrustSettingsResult)1)
#define kSecTrustSettingsResultTrustAsRoot ((SecTrustSettingsResult)2)
#define kSecTrustSettingsResultDeny ((SecTrustSettingsResult)3)
#define kSecTrustSettingsResultUnspecified ((SecTrustSettingsResult)4)

typedef uint32_t SecTrustSettingsDomain;
#define kSecTrustSettingsDomainUser ((SecTrustSettingsDomain)0)
#define kSecTrustSettingsDomainAdmin ((SecTrustSettingsDomain)1)

typedef uint32_t SecTrustSettingsKeyUsage;
#define kSecTrustSettingsKeyUseSignature ((SecTrustSettingsKeyUsage)1)
#define kSecTrustSettingsKeyUseSignCert ((SecTrustSettingsKeyUsage)8)
#define kSecTrustSettingsKeyUseAny ((SecTrustSettingsKeyUsage)0xffffffff)

#define kSecTrustSettingsPolicy CFSTR("kSecTrustSettingsPolicy")
#define kSecTrustSettingsApplication CFSTR("kSecTrustSettingsApplication")
#define kSecTrustSettingsPolicyString CFSTR("kSecTrustSettingsPolicyString")
#define kSecTrustSettingsKeyUsage CFSTR("kSecTrustSettingsKeyUsage")
#define kSecTrustSettingsResult CFSTR("kSecTrustSettingsResult")
#define kSecPolicyOid CFSTR("SecPolicyOid") /* variables on macOS */
#define kSecPolicyAppleSSL CFSTR("1.2.840.113635.100.1.3")

OSStatus SecTrustCopyAnchorCertificates(CFArrayRef *anchors);
OSStatus SecTrustSettingsCopyCertificates(SecTrustSettingsDomain domain, CFArrayRef *certificates);
OSStatus SecTrustSettingsCopyTrustSettings(SecCertificateRef certificate, SecTrustSettingsDomain domain,
                                           CFArrayRef *settings);
CFDictionaryRef SecPolicyCopyProperties(SecPolicyRef policy);
CFDataRef SecCertificateCopyData(SecCertificateRef certificate);
CFDataRef SecCertificateCopyNormalizedSubjectSequence(SecCertificateRef certificate);
CFDataRef SecCertificateCopyNormalizedIssuerSequence(SecCertificateRef certificate);

#endif
