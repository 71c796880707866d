/*
 * registry/trust_linux.h - where a Linux system keeps the authorities it trusts: one PEM file, whose place depends on
 * the distribution.
 */
#ifndef CCI_REGISTRY_TRUST_LINUX_H
#define CCI_REGISTRY_TRUST_LINUX_H

#include "../image/blob.h"

#define CCI_TRUST_MAX_FILE ((size_t)16 << 20)

/* Reads the system's bundle. 0 and its place in *path, or -ENOENT, or another error number (with *path). */
static int cci_trust_read_system(struct cci_buf *out, const char **path)
{
    static const char *const places[] = {
        "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Arch, Gentoo, NixOS */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora, RHEL */
        "/etc/pki/tls/certs/ca-bundle.crt",                  /* their older releases */
        "/etc/ssl/ca-bundle.pem",                            /* openSUSE */
        "/etc/ssl/cert.pem",                                 /* Alpine, Void */
        "/var/lib/ca-certificates/ca-bundle.pem",            /* SUSE's newer releases */
    };
    int r = -ENOENT;
    for (size_t i = 0; i < CCI_COUNT(places) && r == -ENOENT; i++) {
        *path = places[i];
        r = cci_blob_read_file(places[i], 0, CCI_TRUST_MAX_FILE, out);
    }
    return r;
}

#endif
