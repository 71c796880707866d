/*
 * api/host.h - what this host can do, found out once.
 *
 * Whether guests can run is tested by running a small one; the answer, and the small VM (see cci_hv_caps.held), are
 * kept between the first question and cc_shutdown.
 */
#ifndef CCI_API_HOST_H
#define CCI_API_HOST_H

#include "../../cc_impl_kvm.h"
#include "../image/platform.h"
#include "lib.h"

static struct cci_host {
    struct cci_mutex mutex;
    bool asked;
    struct cci_hv_caps caps;
    cc_error_code code;
    char message[512];
} cci_host = {.mutex = CCI_MUTEX_INIT};

/* The hypervisor backend of this platform. */
static const struct cci_hv_ops *cci_host_hv(void)
{
    return cci_kvm_ops();
}

/* CC_OK if guests can run here; *caps (or NULL) gets the limits. */
static cc_error_code cci_host_ask(struct cci_hv_caps *caps, cc_error *err)
{
    cc_error why = {CC_OK, NULL, NULL, NULL, 0};
    cci_mutex_lock(&cci_host.mutex);
    if (!cci_host.asked) {
        cci_host.code = cci_host_hv()->probe(&cci_host.caps, &why);
        (void)snprintf(cci_host.message, sizeof(cci_host.message), "%s", why.message ? why.message : "out of memory");
        cci_host.asked = cci_host.code == CC_OK || cci_host.code == CC_ERR_HYPERVISOR_UNAVAILABLE;
        cci_error_release(&why);
    }
    if (caps)
        *caps = cci_host.caps;
    cc_error_code code = cci_host.code;
    if (code)
        (void)cci_fail(err, code, NULL, "%s", cci_host.message);
    cci_mutex_unlock(&cci_host.mutex);
    return code;
}

static void cci_host_forget(void)
{
    cci_mutex_lock(&cci_host.mutex);
    if (cci_host.caps.held)
        cci_host_hv()->vm_free(cci_host.caps.held);
    memset(&cci_host.caps, 0, sizeof(cci_host.caps));
    cci_host.asked = false;
    cci_mutex_unlock(&cci_host.mutex);
}

CC_API cc_error_code cc_supports_hypervisor(cc_error *err)
{
    cci_error_clear(err);
    cc_error_code code = cci_lib_enter(err);
    if (code == CC_OK) {
        code = cci_host_ask(NULL, err);
        cci_registry_leave();
    }
    return cci_api_end("supports_hypervisor", code, err);
}

CC_API cc_error_code cc_query_capabilities(cc_capabilities *out, cc_error *err)
{
    struct cci_hv_caps caps;
    cci_error_clear(err);
    if (out)
        memset(out, 0, sizeof(*out));
    cc_error_code code = out ? cci_lib_enter(err) : cci_api_null("out", err);
    if (code)
        return cci_api_end("query_capabilities", code, err);
    code = cci_host_ask(&caps, err);
    cci_registry_leave();
    if (code && code != CC_ERR_HYPERVISOR_UNAVAILABLE)
        return cci_api_end("query_capabilities", code, err);
    out->hypervisor_available = code == CC_OK;
    out->hypervisor = "kvm";
    out->architecture = CCI_PLATFORM_ARCH;
    out->max_memory_mb = cci_os_memory() >> 20;
    out->max_cpus = out->hypervisor_available ? (int)caps.max_cpus : 0;
    return cci_api_end("query_capabilities", CC_OK, err);
}

#endif
