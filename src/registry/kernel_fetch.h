/*
 * registry/kernel_fetch.h - a guest kernel from a distribution's mirror; chosen once, here.
 *
 * kernel_fetch_apk.h has it; with CC_NO_TLS, where neither HTTPS nor signatures are to be had, kernel_fetch_none.h has
 * the same functions, which fail with a message that says why. The contract:
 *
 *     cci_kernel_fetch_open(spec, &fetch, err)     keys and settings
 *     cci_kernel_fetch_into(fetch, dir, err)       a bundle into an empty directory, verified when this succeeds
 *     cci_kernel_fetch_close(fetch)
 */
#ifndef CCI_REGISTRY_KERNEL_FETCH_H
#define CCI_REGISTRY_KERNEL_FETCH_H

/* Parts that others need as well, and so must not be joined under the condition below alone. */
#include "../image/gunzip_buf.h"
#include "../image/tar.h"
#include "kernel_fetch_spec.h"

#ifdef CC_NO_TLS
#include "kernel_fetch_none.h"
#else
#include "kernel_fetch_apk.h"
#endif

#endif
