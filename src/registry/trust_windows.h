/*
 * registry/trust_windows.h - the authorities that a Windows system trusts: the certificate store "ROOT" of the user,
 * which shows the machine's and those of the group policy, too. A program links crypt32 for it.
 *
 * Not every certificate there may vouch for a TLS server. Its "enhanced key usage" is what both the certificate's own
 * extension (RFC 5280 section 4.2.1.12) and the property that a user or the root program has set on it allow, and
 * CertGetEnhancedKeyUsage puts the two together. Nor may one that is in the store "Disallowed", wherever else it is.
 * What cannot be found out counts as no.
 *
 * Two things that Windows' own TLS does are not done: roots that Windows would only fetch when it first meets them are
 * not in the store until something has made it do so, and an intermediate authority in "Disallowed" is not looked for
 * in a server's chain.
 */
#ifndef CCI_REGISTRY_TRUST_WINDOWS_H
#define CCI_REGISTRY_TRUST_WINDOWS_H

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#include <wincrypt.h>

#include "trust_anchors.h"

static cc_error_code cci_trust_windows_open(const char *name, HCERTSTORE *out, cc_error *err)
{
    *out = CertOpenSystemStoreA(0, name);
    if (*out)
        return CC_OK;
    return cci_fail(err, CC_ERR_IO, NULL, "cannot open the system's store of certificates \"%s\" (Windows' error %lu)",
                    name, (unsigned long)GetLastError());
}

/* Whether a list of usages has that of TLS servers. An empty one means all when the last error says that there is none
 * to be found, and no usage at all otherwise. */
static bool cci_trust_windows_lists_servers(const CERT_ENHKEY_USAGE *usage, DWORD error)
{
    if (usage->cUsageIdentifier == 0)
        return error == (DWORD)CRYPT_E_NOT_FOUND;
    for (DWORD i = 0; i < usage->cUsageIdentifier; i++) {
        const char *oid = usage->rgpszUsageIdentifier[i];
        if (strcmp(oid, szOID_PKIX_KP_SERVER_AUTH) == 0 || strcmp(oid, szOID_ANY_ENHANCED_KEY_USAGE) == 0)
            return true;
    }
    return false;
}

/* Whether the certificate may vouch for TLS servers, as far as its usages go. */
static cc_error_code cci_trust_windows_is_for_servers(PCCERT_CONTEXT cert, bool *yes, cc_error *err)
{
    DWORD size = 0;
    *yes = false;
    if (!CertGetEnhancedKeyUsage(cert, 0, NULL, &size) || size < sizeof(CERT_ENHKEY_USAGE))
        return CC_OK;
    CERT_ENHKEY_USAGE *usage = cci_mem_alloc(size);
    if (!usage)
        return cci_fail_nomem(err);
    SetLastError(ERROR_SUCCESS); /* so that "not found" is this call's answer and no older one */
    if (CertGetEnhancedKeyUsage(cert, 0, usage, &size))
        *yes = cci_trust_windows_lists_servers(usage, GetLastError());
    cci_mem_free(usage);
    return CC_OK;
}

static bool cci_trust_windows_is_disallowed(HCERTSTORE disallowed, PCCERT_CONTEXT cert)
{
    PCCERT_CONTEXT same = CertFindCertificateInStore(disallowed, X509_ASN_ENCODING, 0, CERT_FIND_EXISTING, cert, NULL);
    if (same)
        (void)CertFreeCertificateContext(same);
    return same != NULL;
}

static cc_error_code cci_trust_windows_take(struct cci_trust *t, HCERTSTORE disallowed, PCCERT_CONTEXT cert,
                                            cc_error *err)
{
    bool yes;
    int refused; /* not used for what it says: bad certificates in the system's store are passed over */
    if (!(cert->dwCertEncodingType & X509_ASN_ENCODING) || cci_trust_windows_is_disallowed(disallowed, cert))
        return CC_OK;
    cc_error_code code = cci_trust_windows_is_for_servers(cert, &yes, err);
    if (!code && yes)
        code = cci_trust_add_der(t, cert->pbCertEncoded, cert->cbCertEncoded, &refused, err);
    return code;
}

static cc_error_code cci_trust_windows_take_all(struct cci_trust *t, HCERTSTORE root, HCERTSTORE disallowed,
                                                cc_error *err)
{
    cc_error_code code = CC_OK;
    PCCERT_CONTEXT cert = NULL;
    /* Each call releases the certificate before. */
    while (!code && (cert = CertEnumCertificatesInStore(root, cert)) != NULL)
        code = cci_trust_windows_take(t, disallowed, cert, err);
    if (cert)
        (void)CertFreeCertificateContext(cert);
    return code;
}

static cc_error_code cci_trust_add_system(struct cci_trust *t, cc_error *err)
{
    HCERTSTORE root = NULL, disallowed = NULL;
    cc_error_code code = cci_trust_windows_open("ROOT", &root, err);
    if (!code)
        code = cci_trust_windows_open("Disallowed", &disallowed, err);
    if (!code)
        code = cci_trust_windows_take_all(t, root, disallowed, err);
    if (disallowed)
        (void)CertCloseStore(disallowed, 0);
    if (root)
        (void)CertCloseStore(root, 0);
    return code;
}

#endif
