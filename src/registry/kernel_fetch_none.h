/*
 * registry/kernel_fetch_none.h - the functions of kernel_fetch.h in a library that was built with CC_NO_TLS.
 */
#ifndef CCI_REGISTRY_KERNEL_FETCH_NONE_H
#define CCI_REGISTRY_KERNEL_FETCH_NONE_H

#include "kernel_fetch_spec.h"

static cc_error_code cci_kernel_fetch_open(const struct cci_kernel_fetch_spec *spec, struct cci_kernel_fetch **out,
                                           cc_error *err)
{
    (void)spec;
    *out = NULL;
    return cci_fail(err, CC_ERR_NETWORK, NULL,
                    "this library was built without TLS (CC_NO_TLS), so it cannot fetch a kernel and verify it");
}

static cc_error_code cci_kernel_fetch_into(struct cci_kernel_fetch *f, const char *dir, cc_error *err)
{
    (void)f;
    return cci_fail(err, CC_ERR_NETWORK, dir, "there is no TLS");
}

static void cci_kernel_fetch_close(struct cci_kernel_fetch *f)
{
    (void)f;
}

#endif
