/* The probe in the rig: this KVM is real and must pass. */
// @vm
// @timeout 30
#include "../check.h"

#include "../../cc_impl_kvm.h"

static void test_probe_passes(void)
{
    cc_error err = {0};
    struct cci_hv_caps caps;
    uint64_t start = cci_os_now();
    CHECK_OK(cci_kvm_ops()->probe(&caps, &err), err);
    printf("# probe took %llu us\n", (unsigned long long)(cci_os_now() - start) / 1000);
    CHECK(caps.max_cpus >= 4);
    CHECK(caps.irqfd);
    CHECK(err.code == CC_OK && !err.message);
    CHECK(caps.held);
    cci_kvm_ops()->vm_free(caps.held);
}

int main(void)
{
    RUN(test_probe_passes);
    return check_done();
}
