/*
 * Any bytes as modules.dep, modules.softdep and modules.builtin (separated by NULs): an order in which every line comes
 * once, or a refusal.
 */
#include <stdlib.h>

#include "../../src/machine/modules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const wanted[] = {"a", "b", "virtio_mmio", "ext4"};
    struct cci_modules m;
    struct cci_modules_text all = {(const char *)data, n}, file[3];
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    for (unsigned i = 0; i < 3; i++)
        file[i] = cci_modules_take(&all, '\0');
    if (cci_modules_init(&m, file[0], file[1], file[2], &err) == CC_OK) {
        for (unsigned i = 0; i < CCI_COUNT(wanted); i++) {
            (void)cci_modules_want(&m, wanted[i], i % 2, &err);
            cci_error_release(&err);
        }
        if (m.count > CCI_MODULES_MAX_COUNT || m.count > m.lines)
            abort();
        for (size_t i = 0; i < m.count; i++) {
            if (m.order[i] >= m.lines || !m.line[m.order[i]].visited)
                abort();
            for (size_t k = 0; k < i; k++)
                if (m.order[k] == m.order[i])
                    abort();
        }
        cci_modules_free(&m);
    }
    cci_error_release(&err);
    return 0;
}
