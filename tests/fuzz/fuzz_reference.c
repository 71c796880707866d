/* Image references of any bytes. What is accepted has only what may stand in a URL, and parses again as itself. */
#include "../../src/registry/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_name a, b;
    struct cci_reference r;
    char *text = cci_mem_strndup((const char *)data, size);
    if (!text)
        abort();
    (void)cci_reference_parse(text, &r);
    if (cci_name_parse(&a, text, NULL) == CC_OK) {
        static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:/[]@";
        if (strspn(a.full, plain) != strlen(a.full) || strstr(a.repository, "..") || !a.repository[0] ||
            (!a.tag[0] && !a.has_digest))
            abort();
        if (cci_name_parse(&b, a.full, NULL) != CC_OK || strcmp(a.full, b.full) != 0 || strcmp(a.host, b.host) != 0 ||
            strcmp(a.repository, b.repository) != 0 || strcmp(a.tag, b.tag) != 0)
            abort();
    }
    cci_mem_free(text);
    return 0;
}
