/*
 * registry/kernel_fetch_spec.h - what a caller of kernel_fetch.h says.
 */
#ifndef CCI_REGISTRY_KERNEL_FETCH_SPEC_H
#define CCI_REGISTRY_KERNEL_FETCH_SPEC_H

#include "../base/cancel.h"

struct cci_kernel_fetch;

struct cci_kernel_fetch_spec {
    const char *mirror;                       /* a repository's URL, or NULL: Alpine's */
    const char *key_file;                     /* keys to believe, or NULL: Alpine's */
    const struct cci_wait *wait;              /* until close */
    void (*say)(void *ctx, const char *what); /* progress, a line at a time */
    void *ctx;
};

#endif
