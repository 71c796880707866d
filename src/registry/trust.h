#ifndef CCI_REGISTRY_TRUST_H
#define CCI_REGISTRY_TRUST_H

#include "../base/error.h"

struct cci_trust; /* the certificate authorities that are believed; read-only once loaded, so threads may share it */

/* The system's store (or $SSL_CERT_FILE), and those in the PEM file extra_ca_file (or NULL). */
static cc_error_code cci_trust_load(const char *extra_ca_file, struct cci_trust **out, cc_error *err);
static void cci_trust_free(struct cci_trust *t);

#endif
