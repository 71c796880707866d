/*
 * image/unzstd.h - decompression of zstd files (RFC 8878), pushed and bounded; chosen once, here.
 *
 * With CC_WITH_ZSTD unzstd_lib.h has it by libzstd; otherwise unzstd_none.h has the same functions, which fail with a
 * message that says why. The contract:
 *
 *     cci_unzstd_missing()                  why zstd cannot be read by this program; NULL when it can
 *     cci_unzstd_init(z)                    false: no memory; cci_unzstd_free(z) after a success
 *     cci_unzstd_feed(z, p, n, sink, ctx)   takes all n bytes, unless the result is an error, which is final
 *     cci_unzstd_finish(z)                  the file ends here; only when this is OK was the output what was compressed
 *     cci_unzstd_strerror(z)                what is wrong, for an error message
 *
 * A file is one or more frames, data and skippable ones in any order (zstd:chunked layers end with the latter); what
 * comes out of all of them is one stream. Anything else behind a frame is an error.
 */
#ifndef CCI_IMAGE_UNZSTD_H
#define CCI_IMAGE_UNZSTD_H

#ifdef CC_WITH_ZSTD
#include "unzstd_lib.h"
#else
#include "unzstd_none.h"
#endif

#endif
