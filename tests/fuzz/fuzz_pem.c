/* PEM of any bytes: read or refused, never more than the text can hold, always moving on; and what was read as a
 * certificate is given to the trust store and to the search for addresses, as it is by a server. */
#include "../../src/registry/tls_name.h"
#include "../../src/registry/trust.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t address[4] = {127, 0, 0, 1};
    struct cci_pem_reader r;
    struct cci_buf der = {NULL, 0, 0, false};
    struct cci_trust *trust = cci_mem_zalloc(1, sizeof(*trust));
    struct cci_buf text = {(uint8_t *)(uintptr_t)data, size, size, false};
    size_t total = 0;
    cci_pem_begin(&r, data, size);
    while (r.n) {
        size_t before = r.n;
        bool found;
        cc_error_code code = cci_pem_next(&r, "CERTIFICATE", "text", &der, &found, NULL);
        if (r.n >= before || (code && found) || der.n > CCI_PEM_MAX_BLOCK)
            abort();
        if (found) {
            total += der.n;
            (void)cci_tls_has_address(der.p, der.n, address, sizeof(address));
        }
    }
    if (total > size)
        abort();
    (void)cci_tls_has_address(data, size, address, sizeof(address));
    if (trust && cci_trust_add_pem(trust, &text, "text", false, NULL) != CC_OK && trust->count < CCI_TRUST_MAX)
        abort(); /* not strict: whatever cannot be read is passed over */
    cci_trust_free(trust);
    cci_buf_free(&der);
    return 0;
}
