/*
 * image/unpack.h - what a layer, or a whole image tar, is compressed with, and one way to undo it.
 *
 * The format shows in the first bytes. gzip.h is always there; unzstd.h when the program was built with it. What else
 * is known is refused by name.
 */
#ifndef CCI_IMAGE_UNPACK_H
#define CCI_IMAGE_UNPACK_H

#include "../base/error.h"
#include "gzip.h"
#include "unpack_status.h"
#include "unzstd.h"

#define CCI_UNPACK_HEAD 6u /* bytes that show the format */

enum cci_packing { CCI_PACKING_NONE, CCI_PACKING_GZIP, CCI_PACKING_ZSTD };

/* A decompressor; large. */
struct cci_unpack {
    enum cci_packing packing;
    union {
        struct cci_gunzip gunzip;
        struct cci_unzstd unzstd;
    } u;
};

/* Finds out the format by the first CCI_UNPACK_HEAD bytes (zeros where there are fewer). One that is not read is an
 * error; its message is to be put behind what it is about. */
static cc_error_code cci_packing_find(const uint8_t *head, enum cci_packing *out, cc_error *err)
{
    static const uint8_t gzip[2] = {0x1f, 0x8b}, zstd[4] = {0x28, 0xb5, 0x2f, 0xfd},
                         xz[CCI_UNPACK_HEAD] = {0xfd, '7', 'z', 'X', 'Z', 0}, bzip2[3] = {'B', 'Z', 'h'};
    *out = CCI_PACKING_NONE;
    if (memcmp(head, gzip, sizeof(gzip)) == 0)
        *out = CCI_PACKING_GZIP;
    else if (memcmp(head, zstd, sizeof(zstd)) == 0)
        *out = CCI_PACKING_ZSTD;
    else if (memcmp(head, xz, sizeof(xz)) == 0 || memcmp(head, bzip2, sizeof(bzip2)) == 0)
        return cci_fail(err, CC_ERR_IO, NULL, "it is compressed with %s, which is not supported: gzip and zstd are",
                        head[0] == 'B' ? "bzip2" : "xz");
    if (*out == CCI_PACKING_ZSTD && cci_unzstd_missing())
        return cci_fail(err, CC_ERR_IO, NULL, "it is %s", cci_unzstd_missing());
    return CC_OK;
}

static const char *cci_packing_name(enum cci_packing p)
{
    return p == CCI_PACKING_GZIP   ? "compressed with gzip"
           : p == CCI_PACKING_ZSTD ? "compressed with zstd"
                                   : "not compressed";
}

/* Not for CCI_PACKING_NONE. Free it, on success only. */
static cc_error_code cci_unpack_init(struct cci_unpack *z, enum cci_packing packing, cc_error *err)
{
    z->packing = packing;
    if (packing == CCI_PACKING_GZIP) {
        cci_gunzip_init(&z->u.gunzip);
        return CC_OK;
    }
    return cci_unzstd_init(&z->u.unzstd) ? CC_OK : cci_fail_nomem(err);
}

static void cci_unpack_free(struct cci_unpack *z)
{
    if (z->packing == CCI_PACKING_ZSTD)
        cci_unzstd_free(&z->u.unzstd);
}

/* The next bytes; what comes out goes to the sink. After anything but CCI_UNPACK_OK only free. */
static enum cci_unpack_status cci_unpack_feed(struct cci_unpack *z, const uint8_t *p, size_t n, cci_inflate_sink *sink,
                                              void *ctx)
{
    if (z->packing == CCI_PACKING_GZIP) {
        enum cci_gunzip_status s = cci_gunzip_feed(&z->u.gunzip, p, n, sink, ctx);
        return s == CCI_GUNZIP_OK ? CCI_UNPACK_OK : s == CCI_GUNZIP_STOPPED ? CCI_UNPACK_STOPPED : CCI_UNPACK_BAD;
    }
    return cci_unzstd_feed(&z->u.unzstd, p, n, sink, ctx);
}

/* There is no more. Only when this is CCI_UNPACK_OK was the output what had been compressed. */
static enum cci_unpack_status cci_unpack_finish(struct cci_unpack *z)
{
    if (z->packing == CCI_PACKING_GZIP)
        return cci_gunzip_finish(&z->u.gunzip) == CCI_GUNZIP_OK ? CCI_UNPACK_OK : CCI_UNPACK_BAD;
    return cci_unzstd_finish(&z->u.unzstd);
}

/* What is wrong, for an error message. */
static const char *cci_unpack_strerror(const struct cci_unpack *z)
{
    return z->packing == CCI_PACKING_GZIP ? cci_gunzip_strerror(&z->u.gunzip) : cci_unzstd_strerror(&z->u.unzstd);
}

#endif
