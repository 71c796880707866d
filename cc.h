/*
 * cc.h - pull an OCI image and run it as a Linux microVM inside this process.
 *
 * SPDX-License-Identifier: MIT
 *
 * HOW TO USE IT
 *
 *     In exactly one C file:              In every other file that needs it:
 *
 *         #define CC_IMPLEMENTATION           #include "cc.h"
 *         #include "cc.h"
 *
 *     cc app.c -lpthread
 *
 * That file must be C11 or newer; the declarations alone are also C99 and C++. There is no daemon, no
 * helper program and no build system. The program needs access to the hypervisor: on Linux a readable
 * and writable /dev/kvm (be in the group that owns it), no root.
 *
 * BUILD DEFINES (set them before the include that has CC_IMPLEMENTATION, and CC_STATIC before all)
 *
 *     CC_IMPLEMENTATION   compile the library here
 *     CC_STATIC           every function is static: the library is private to this one file
 *     CC_API              your own linkage for every public function (for example a dllexport)
 *
 * ENVIRONMENT
 *
 *     CC_KERNEL           the guest kernel when cc_instance_options.kernel is NULL: a kernel image, or a
 *                         directory with "vmlinux" or "vmlinuz" and, for a kernel with modules, "modules"
 *     CC_CACHE_DIR        the default cache directory (else $XDG_CACHE_HOME/cc.h, else ~/.cache/cc.h)
 *
 * RULES THAT HOLD FOR EVERY CALL
 *
 *   Errors   Every call that can fail returns a cc_error_code and takes a `cc_error *err` last. `err` may
 *            be NULL. On success *err is all zero; on failure it is filled, and cc_error_free releases it.
 *            `message` says what failed and what to do about it.
 *   Out      Results are written through pointers, on success only; on failure they are set to zero.
 *   NULL     A NULL result pointer or a NULL required string is CC_ERR_INVALID_ARGUMENT.
 *   Strings  Input strings are copied: they may be freed as soon as the call returns. Strings that the
 *            library returns are freed with cc_free_string, byte buffers with cc_free_bytes, arrays of
 *            strings with cc_free_string_array.
 *   Structs  Structs that you fill are valid when zeroed, and zero always means "the default". New fields
 *            are added at the end.
 *   Handles  64-bit numbers, never pointers. 0 is no handle. A handle that is zero, foreign, freed or of
 *            another kind gives CC_ERR_INVALID_HANDLE; one that was closed gives CC_ERR_ALREADY_CLOSED.
 *   Threads  Every call may be made from any thread at any time, also on the same handle and also while
 *            another thread closes it.
 *   Blocking A call that waits ends when its work ends, its deadline passes (CC_ERR_TIMEOUT), its cancel
 *            token fires (CC_ERR_CANCELLED) or its instance dies (CC_ERR_NOT_RUNNING).
 *   Manners  No signal handlers, no change of directory, umask, locale or environment; every descriptor is
 *            close-on-exec; nothing is written to stdout; stderr only where this header says so.
 */
#ifndef CC_H
#define CC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CC_VERSION_MAJOR 0
#define CC_VERSION_MINOR 1
#define CC_VERSION_PATCH 0
#define CC_VERSION_STRING "0.1.0"

#ifndef CC_API
#ifdef CC_STATIC
#define CC_API static
#else
#define CC_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== Handles ======================================================================================== */

typedef uint64_t cc_handle;

#define CC_INVALID_HANDLE 0

typedef cc_handle cc_oci_client;      /* an image cache and, later, its registry connections */
typedef cc_handle cc_instance_source; /* an image that instances can be made from */
typedef cc_handle cc_instance;        /* a virtual machine */
typedef cc_handle cc_cmd;             /* a command to run in an instance */
typedef cc_handle cc_cancel_token;    /* ends waiting calls from another thread */

/* ==== Errors ========================================================================================= */

typedef enum {
    CC_OK = 0,
    CC_ERR_INVALID_HANDLE = 1,         /* zero, foreign, freed, or a handle of another kind */
    CC_ERR_INVALID_ARGUMENT = 2,       /* a parameter is out of its range, or a required one is NULL */
    CC_ERR_NOT_RUNNING = 3,            /* the instance has ended, or ended during the call */
    CC_ERR_ALREADY_CLOSED = 4,         /* the handle was closed before */
    CC_ERR_TIMEOUT = 5,                /* a deadline passed */
    CC_ERR_HYPERVISOR_UNAVAILABLE = 6, /* no usable hypervisor; the message says why and what to do */
    CC_ERR_IO = 7,                     /* a file, an image, the guest's operating system; see sys_errno */
    CC_ERR_NETWORK = 8,                /* a connection or a registry */
    CC_ERR_CANCELLED = 9,              /* a cancel token fired */
    CC_ERR_UNKNOWN = 99                /* out of memory, or a failure that fits nothing above */
} cc_error_code;

typedef struct {
    cc_error_code code;
    char *message; /* what failed and what to do; NULL when there was no memory for it */
    char *op;      /* the call in short form, such as "load_tar"; may be NULL */
    char *path;    /* the file, image reference or address involved; may be NULL */
    int sys_errno; /* the operating system's error number, the host's or the guest's; 0 if none */
} cc_error;

/* ---- Memory -------------------------------------------------------------------------------------------- */

/*
 * Where the library's memory comes from. One function does it all, as realloc does: `old` NULL allocates, `size` 0
 * frees (and returns NULL), otherwise the block is resized. It is called from any thread.
 */
typedef struct {
    void *(*realloc_fn)(void *ctx, void *old, size_t size);
    void *ctx;
} cc_allocator;

#ifdef __cplusplus
}
#endif

#endif /* CC_H */
