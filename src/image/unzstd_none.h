/*
 * image/unzstd_none.h - unzstd.h in a program that was built without CC_WITH_ZSTD: there is no way to read zstd.
 */
#ifndef CCI_IMAGE_UNZSTD_NONE_H
#define CCI_IMAGE_UNZSTD_NONE_H

#include "inflate.h"
#include "unpack_status.h"

struct cci_unzstd {
    char none; /* C has no empty structures */
};

static const char *cci_unzstd_missing(void)
{
    return "compressed with zstd, which this program was built without: define CC_WITH_ZSTD where cc.h is compiled and "
           "link libzstd (-lzstd), or have the image compressed with gzip";
}

static bool cci_unzstd_init(struct cci_unzstd *z)
{
    z->none = 0;
    return true;
}

static enum cci_unpack_status cci_unzstd_feed(struct cci_unzstd *z, const uint8_t *p, size_t n, cci_inflate_sink *sink,
                                              void *ctx)
{
    (void)z;
    (void)p;
    (void)n;
    (void)sink;
    (void)ctx;
    return CCI_UNPACK_BAD;
}

static enum cci_unpack_status cci_unzstd_finish(struct cci_unzstd *z)
{
    (void)z;
    return CCI_UNPACK_BAD;
}

static const char *cci_unzstd_strerror(const struct cci_unzstd *z)
{
    (void)z;
    return cci_unzstd_missing();
}

static void cci_unzstd_free(struct cci_unzstd *z)
{
    (void)z;
}

#endif
