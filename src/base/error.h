/*
 * base/error.h - errors as values.
 *
 * A function that can fail returns a cc_error_code and takes a `cc_error *err` last. The deepest function that
 * knows what went wrong fills the error once, with `return cci_fail(...)`; everything above passes the code on.
 * `op` is set once, at the API call. A NULL `err` is always allowed. Messages are sentences for a person: what
 * failed, and what to do if that is known.
 */
#ifndef CCI_BASE_ERROR_H
#define CCI_BASE_ERROR_H

#include "mem.h"

static void cci_error_clear(cc_error *err)
{
    if (err)
        memset(err, 0, sizeof(*err));
}

static void cci_error_release(cc_error *err)
{
    if (!err)
        return;
    cci_mem_free(err->message);
    cci_mem_free(err->op);
    cci_mem_free(err->path);
    memset(err, 0, sizeof(*err));
}

/* Messages may quote names out of images and guests, and end up on a terminal: no control characters but newline and
 * tab. */
static void cci_error_make_printable(char *text)
{
    for (; text && *text; text++)
        if (((unsigned char)*text < 0x20 && *text != '\n' && *text != '\t') || *text == 0x7f)
            *text = '?';
}

static cc_error_code cci_fail_v(cc_error *err, cc_error_code code, int sys_errno, const char *path, const char *fmt,
                                va_list args) CCI_PRINTF(5, 0);
static cc_error_code cci_fail_v(cc_error *err, cc_error_code code, int sys_errno, const char *path, const char *fmt,
                                va_list args)
{
    if (!err)
        return code;
    cci_error_release(err);
    err->code = code;
    err->sys_errno = sys_errno;
    err->path = path ? cci_mem_strdup(path) : NULL;
    err->message = cci_mem_vprintf(fmt, args);
    cci_error_make_printable(err->message);
    return code;
}

/* Fills *err (if not NULL) and returns `code`. `path` is the file, reference or address, or NULL. */
static cc_error_code cci_fail(cc_error *err, cc_error_code code, const char *path, const char *fmt, ...)
    CCI_PRINTF(4, 5);
static cc_error_code cci_fail(cc_error *err, cc_error_code code, const char *path, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)cci_fail_v(err, code, 0, path, fmt, args);
    va_end(args);
    return code;
}

/* The same for a failed system call, the host's or the guest's; `sys_errno` is positive. */
static cc_error_code cci_fail_errno(cc_error *err, cc_error_code code, int sys_errno, const char *path, const char *fmt,
                                    ...) CCI_PRINTF(5, 6);
static cc_error_code cci_fail_errno(cc_error *err, cc_error_code code, int sys_errno, const char *path, const char *fmt,
                                    ...)
{
    va_list args;
    va_start(args, fmt);
    (void)cci_fail_v(err, code, sys_errno, path, fmt, args);
    va_end(args);
    return code;
}

/* Out of memory: says so without needing any. */
static cc_error_code cci_fail_nomem(cc_error *err)
{
    return cci_fail(err, CC_ERR_UNKNOWN, NULL, "out of memory");
}

/* Puts `prefix: ` before the message of an error that passes by, to say in what larger step it happened. */
static cc_error_code cci_fail_within(cc_error *err, cc_error_code code, const char *prefix)
{
    if (err && err->message) {
        char *longer = cci_mem_printf("%s: %s", prefix, err->message);
        if (longer) {
            cci_mem_free(err->message);
            err->message = longer;
        }
    }
    return code;
}

#endif
