/*
 * registry/trust_linux.h - the authorities that a Linux system trusts: one PEM file, whose place depends on the
 * distribution. There may be none, in a container or on a small system: that is no error here.
 */
#ifndef CCI_REGISTRY_TRUST_LINUX_H
#define CCI_REGISTRY_TRUST_LINUX_H

#include "trust_file.h"

static cc_error_code cci_trust_add_system(struct cci_trust *t, cc_error *err)
{
    static const char *const places[] = {
        "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Arch, Gentoo, NixOS */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora, RHEL */
        "/etc/pki/tls/certs/ca-bundle.crt",                  /* their older releases */
        "/etc/ssl/ca-bundle.pem",                            /* openSUSE */
        "/etc/ssl/cert.pem",                                 /* Alpine, Void */
        "/var/lib/ca-certificates/ca-bundle.pem",            /* SUSE's newer releases */
    };
    cc_error_code code = CC_OK;
    bool missing = true;
    for (size_t i = 0; i < CCI_COUNT(places) && !code && missing; i++)
        code = cci_trust_add_file(t, places[i], &missing, err);
    return code;
}

#endif
