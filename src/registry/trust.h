/*
 * registry/trust.h - the certificate authorities that are believed; the system's store is chosen once, here.
 *
 * They come from the system, or from $SSL_CERT_FILE in its place, and from a PEM file that the caller names beside it.
 * Where the system keeps them is a whole file a platform, with one function:
 *
 *     cci_trust_add_system(t, err)      adds those that the system trusts to vouch for TLS servers
 *
 * It passes over what BearSSL cannot use. A system without any is no error here, as all authorities may be the
 * caller's; a server's certificate then fails, with a message that says so (tls_bear.h).
 */
#ifndef CCI_REGISTRY_TRUST_H
#define CCI_REGISTRY_TRUST_H

#include "trust_anchors.h"
#include "trust_file.h"
#if defined(__linux__)
#include "trust_linux.h"
#elif defined(__APPLE__)
#include "trust_macos.h"
#elif defined(_WIN32)
#include "trust_windows.h"
#else
#error "cc.h: this platform has no registry/trust_*.h yet"
#endif

/* The system's authorities (or those in $SSL_CERT_FILE), and those in extra_ca_file, unless that is NULL. Free *out
 * with cci_trust_free. */
static cc_error_code cci_trust_load(const char *extra_ca_file, struct cci_trust **out, cc_error *err)
{
    const char *named = getenv("SSL_CERT_FILE");
    struct cci_trust *t = cci_mem_zalloc(1, sizeof(*t));
    *out = NULL;
    if (!t)
        return cci_fail_nomem(err);
    cc_error_code code = named && *named ? cci_trust_add_file(t, named, NULL, err) : cci_trust_add_system(t, err);
    if (!code && extra_ca_file)
        code = cci_trust_add_file(t, extra_ca_file, NULL, err);
    if (code) {
        cci_trust_free(t);
        return code;
    }
    *out = t;
    return CC_OK;
}

#endif
