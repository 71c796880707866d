/* Exits with 0 when virtual machines can run on this host directly; else says why not. Used by tests/run and tools/demo
 * to choose between the host and the rig. */
#define CC_IMPLEMENTATION
#include "cc.h"

#include <stdio.h>

int main(void)
{
    cc_error err = {0};
    cc_init();
    cc_error_code code = cc_supports_hypervisor(&err);
    if (code != CC_OK)
        fprintf(stderr, "%s\n", err.message ? err.message : "unknown reason");
    cc_error_free(&err);
    cc_shutdown();
    return code == CC_OK ? 0 : 1;
}
