/* As much of <wincrypt.h> as registry/trust_windows.h uses; see windows.h beside this file. */
#ifndef TESTS_FAKE_WINCRYPT_H
#define TESTS_FAKE_WINCRYPT_H

#include "windows.h"

#define CRYPT_E_NOT_FOUND ((HRESULT)0x80092004)
#define X509_ASN_ENCODING 0x00000001
#define PKCS_7_ASN_ENCODING 0x00010000
#define CERT_FIND_EXISTING (13 << 16)
#define szOID_PKIX_KP_SERVER_AUTH "1.3.6.1.5.5.7.3.1"
#define szOID_ANY_ENHANCED_KEY_USAGE "2.5.29.37.0"

typedef void *HCERTSTORE;
typedef uintptr_t HCRYPTPROV_LEGACY;
typedef struct {
    DWORD cUsageIdentifier;
    LPSTR *rgpszUsageIdentifier;
} CERT_ENHKEY_USAGE, *PCERT_ENHKEY_USAGE;
typedef struct {
    DWORD dwCertEncodingType;
    BYTE *pbCertEncoded;
    DWORD cbCertEncoded;
    void *pCertInfo;
    HCERTSTORE hCertStore;
} CERT_CONTEXT;
typedef const CERT_CONTEXT *PCCERT_CONTEXT;

HCERTSTORE CertOpenSystemStoreA(HCRYPTPROV_LEGACY provider, LPCSTR name);
BOOL CertCloseStore(HCERTSTORE store, DWORD flags);
PCCERT_CONTEXT CertEnumCertificatesInStore(HCERTSTORE store, PCCERT_CONTEXT before);
PCCERT_CONTEXT CertFindCertificateInStore(HCERTSTORE store, DWORD encoding, DWORD flags, DWORD type, const void *what,
                                          PCCERT_CONTEXT before);
BOOL CertFreeCertificateContext(PCCERT_CONTEXT cert);
BOOL CertGetEnhancedKeyUsage(PCCERT_CONTEXT cert, DWORD flags, PCERT_ENHKEY_USAGE usage, DWORD *size);

#endif
