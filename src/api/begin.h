/*
 * api/begin.h - what every call of the API begins and ends with.
 *
 * A call clears *err first and names itself in err->op last, so that the parts below need not know which call they
 * serve. Out-parameters are set to zero before anything can fail.
 */
#ifndef CCI_API_BEGIN_H
#define CCI_API_BEGIN_H

#include "handle.h"

/* The end of a call: names it in the error, if there is one. */
static cc_error_code cci_api_end(const char *op, cc_error_code code, cc_error *err)
{
    if (code == CC_OK) {
        cci_error_release(err);
    } else if (err && !err->op) {
        err->code = code;
        err->op = cci_mem_strdup(op);
    }
    return code;
}

static cc_error_code cci_api_null(const char *what, cc_error *err)
{
    return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "%s is NULL", what);
}

/* The deadline that is `seconds` from now; 0 or less: none. */
static uint64_t cci_api_deadline(double seconds)
{
    if (!(seconds > 0) || seconds > 1e9)
        return CCI_FOREVER;
    return cci_os_now() + (uint64_t)(seconds * 1e9);
}

#endif
