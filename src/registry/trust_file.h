/*
 * registry/trust_file.h - certificate authorities from a PEM file.
 *
 * In a file that somebody has named, whatever cannot be read is an error that says where. A bundle of the system's is
 * nobody's doing: a certificate there that we cannot use is passed over, and the whole bundle may be absent.
 */
#ifndef CCI_REGISTRY_TRUST_FILE_H
#define CCI_REGISTRY_TRUST_FILE_H

#include "../image/blob.h"
#include "trust_anchors.h"

#define CCI_TRUST_MAX_FILE ((size_t)16 << 20)

/* Adds what a file has. With `missing` NULL somebody has named it; otherwise it is one of the system's, and *missing
 * says that it is not there. */
static cc_error_code cci_trust_add_file(struct cci_trust *t, const char *file, bool *missing, cc_error *err)
{
    struct cci_buf text = {NULL, 0, 0, false};
    int r = cci_blob_read_file(file, 0, CCI_TRUST_MAX_FILE, &text);
    cc_error_code code = CC_OK;
    if (missing)
        *missing = r == -ENOENT;
    if (r == -EFBIG)
        code = cci_fail(err, CC_ERR_IO, file, "%s is no file of certificates: it is not a file, or larger than 16 MiB",
                        file);
    else if (r < 0 && !(missing && *missing))
        code = cci_fail_errno(err, CC_ERR_IO, -r, file, "cannot read the certificates in %s: %s", file,
                              cci_errno_text(-r));
    else if (r == 0)
        code = cci_trust_add_pem(t, &text, file, !missing, err);
    cci_buf_free(&text);
    return code;
}

#endif
