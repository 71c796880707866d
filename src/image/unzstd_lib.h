/*
 * image/unzstd_lib.h - unzstd.h by libzstd (link -lzstd), of its stable interface only.
 *
 * A frame says how far back its data refer: its window, which the decoder has to keep. More than 2^CCI_UNZSTD_WINDOW
 * bytes are refused, so a stream costs at most that and a few hundred KiB. It is what the zstd tool allows without
 * being asked (`zstd --long` makes it, the levels up to 19 need 8 MiB). libzstd takes this memory from malloc: its
 * stable interface knows no other way.
 */
#ifndef CCI_IMAGE_UNZSTD_LIB_H
#define CCI_IMAGE_UNZSTD_LIB_H

#include <zstd.h>

#include "../base/mem.h"
#include "inflate.h"
#include "unpack_status.h"

#define CCI_UNZSTD_WINDOW 27 /* 128 MiB */
#define CCI_UNZSTD_OUT ((size_t)128 << 10)

struct cci_unzstd {
    ZSTD_DStream *stream;
    uint8_t *out;                  /* CCI_UNZSTD_OUT bytes */
    enum cci_unpack_status status; /* the error, once there was one */
    const char *why;               /* of CCI_UNPACK_BAD */
    bool frame;                    /* a whole frame was read */
    bool between;                  /* the next byte begins a frame */
};

static const char *cci_unzstd_missing(void)
{
    return NULL;
}

static void cci_unzstd_free(struct cci_unzstd *z)
{
    (void)ZSTD_freeDStream(z->stream);
    cci_mem_free(z->out);
}

static bool cci_unzstd_init(struct cci_unzstd *z)
{
    memset(z, 0, sizeof(*z));
    z->between = true;
    z->stream = ZSTD_createDStream();
    z->out = cci_mem_alloc(CCI_UNZSTD_OUT);
    if (z->stream && z->out && !ZSTD_isError(ZSTD_DCtx_setParameter(z->stream, ZSTD_d_windowLogMax, CCI_UNZSTD_WINDOW)))
        return true;
    cci_unzstd_free(z);
    return false;
}

static const char *cci_unzstd_strerror(const struct cci_unzstd *z)
{
    return z->status == CCI_UNPACK_BAD ? z->why : z->status == CCI_UNPACK_STOPPED ? "stopped" : "no error";
}

static void cci_unzstd_bad(struct cci_unzstd *z, const char *why)
{
    z->status = CCI_UNPACK_BAD;
    z->why = why;
}

/* Whether what is there begins a frame, of data or to be skipped (RFC 8878, 3.1.1 and 3.1.2). */
static bool cci_unzstd_is_magic(const uint8_t *p, size_t n)
{
    static const uint8_t data[4] = {0x28, 0xb5, 0x2f, 0xfd}, skip[4] = {0x50, 0x2a, 0x4d, 0x18};
    if ((p[0] & 0xf0) == skip[0])
        return memcmp(p + 1, skip + 1, CCI_MIN(n, sizeof(skip)) - 1) == 0;
    return memcmp(p, data, CCI_MIN(n, sizeof(data))) == 0;
}

static enum cci_unpack_status cci_unzstd_feed(struct cci_unzstd *z, const uint8_t *p, size_t n, cci_inflate_sink *sink,
                                              void *ctx)
{
    ZSTD_inBuffer in = {p, n, 0};
    bool full = false; /* the output had no more room, so there may be more of it without any input */
    while (z->status == CCI_UNPACK_OK && (in.pos < n || full)) {
        ZSTD_outBuffer out = {z->out, CCI_UNZSTD_OUT, 0};
        if (z->between && !cci_unzstd_is_magic(p + in.pos, n - in.pos)) {
            cci_unzstd_bad(z, z->frame ? "data that are not in zstd format follow zstd data" : "not in zstd format");
            break;
        }
        size_t r = ZSTD_decompressStream(z->stream, &out, &in);
        if (ZSTD_isError(r)) {
            cci_unzstd_bad(z, ZSTD_getErrorName(r));
            break;
        }
        z->between = r == 0;
        z->frame = z->frame || z->between;
        full = out.pos == out.size && !z->between;
        if (out.pos && sink(ctx, z->out, out.pos) != 0)
            z->status = CCI_UNPACK_STOPPED;
    }
    return z->status;
}

static enum cci_unpack_status cci_unzstd_finish(struct cci_unzstd *z)
{
    if (z->status == CCI_UNPACK_OK && !(z->frame && z->between))
        cci_unzstd_bad(z, "the zstd data end too early");
    return z->status;
}

#endif
