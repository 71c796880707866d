/*
 * image/gunzip_buf.h - a gzip file that is in memory, unpacked into memory.
 */
#ifndef CCI_IMAGE_GUNZIP_BUF_H
#define CCI_IMAGE_GUNZIP_BUF_H

#include "../base/error.h"
#include "gzip.h"

struct cci_gunzip_buf {
    struct cci_buf *out;
    size_t left; /* bytes that may still come */
};

enum { CCI_GUNZIP_BUF_LARGE = 1, CCI_GUNZIP_BUF_NOMEM = 2 };

static int cci_gunzip_buf_sink(void *ctx, const uint8_t *p, size_t n)
{
    struct cci_gunzip_buf *b = ctx;
    if (n > b->left)
        return CCI_GUNZIP_BUF_LARGE;
    b->left -= n;
    return cci_buf_add(b->out, p, n) ? 0 : CCI_GUNZIP_BUF_NOMEM;
}

/* Appends what `in` unpacks to, at most `max` bytes, to `out`. */
static cc_error_code cci_gunzip_buf(struct cci_view in, size_t max, struct cci_buf *out, cc_error *err)
{
    struct cci_gunzip_buf b = {out, max};
    struct cci_gunzip *z = cci_mem_alloc(sizeof(*z));
    if (!z)
        return cci_fail_nomem(err);
    cci_gunzip_init(z);
    enum cci_gunzip_status status = cci_gunzip_feed(z, in.p, in.n, cci_gunzip_buf_sink, &b);
    if (status == CCI_GUNZIP_OK)
        status = cci_gunzip_finish(z);
    cc_error_code code = CC_OK;
    if (status == CCI_GUNZIP_STOPPED && out->failed)
        code = cci_fail_nomem(err);
    else if (status == CCI_GUNZIP_STOPPED)
        code = cci_fail(err, CC_ERR_IO, NULL, "unpacks to more than %zu bytes", max);
    else if (status != CCI_GUNZIP_OK)
        code = cci_fail(err, CC_ERR_IO, NULL, "%s", cci_gunzip_strerror(z));
    cci_mem_free(z);
    return code;
}

#endif
