// @flags -lz
/*
 * Inflate against zlib on any bytes, cut as the first two of them say: same verdict, same bytes, same end.
 */
#include <stdlib.h>
#include <zlib.h>

#include "../../src/image/inflate.h"

#define MOST (4u * 1024u * 1024u)

static uint8_t out[MOST];
static size_t out_n;

static int collect(void *ctx, const uint8_t *p, size_t n)
{
    (void)ctx;
    if (n > MOST - out_n)
        return 1;
    memcpy(out + out_n, p, n);
    out_n += n;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cci_inflate ours;
    static uint8_t theirs[MOST];
    enum cci_inflate_status status = CCI_INFLATE_MORE;
    size_t used = 0, at = 0;
    if (size < 2)
        return 0;
    size_t step = (size_t)data[0] << (data[1] & 7);
    size_t shift = data[1] >> 3;
    data += 2;
    size -= 2;
    out_n = 0;
    cci_inflate_init(&ours);
    while (at < size && status == CCI_INFLATE_MORE) {
        size_t n = step + 1 + at % (shift + 1);
        if (n > size - at)
            n = size - at;
        uint8_t *copy = malloc(n);
        if (!copy)
            abort();
        memcpy(copy, data + at, n);
        status = cci_inflate_feed(&ours, copy, n, &used, collect, NULL);
        free(copy);
        if (used > n)
            abort();
        at += used;
    }
    if (status == CCI_INFLATE_STOPPED)
        return 0;

    z_stream z = {0};
    if (inflateInit2(&z, -15) != Z_OK)
        abort();
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)size;
    z.next_out = theirs;
    z.avail_out = MOST;
    int verdict = inflate(&z, Z_NO_FLUSH);
    if (status == CCI_INFLATE_BAD_LENGTHS && (verdict == Z_OK || verdict == Z_BUF_ERROR)) {
        /* An empty code length code: zlib reads on and rejects the zeros it takes from it. */
        static uint8_t zeros[64];
        z.next_in = zeros;
        z.avail_in = sizeof(zeros);
        verdict = inflate(&z, Z_NO_FLUSH);
    }
    size_t theirs_n = MOST - z.avail_out;
    inflateEnd(&z);
    if (z.avail_out == 0 && status != CCI_INFLATE_DONE)
        return 0;
    if ((verdict == Z_STREAM_END) != (status == CCI_INFLATE_DONE) ||
        (verdict == Z_OK || verdict == Z_BUF_ERROR) != (status == CCI_INFLATE_MORE))
        abort();
    if (status == CCI_INFLATE_DONE && (out_n != theirs_n || at != size - z.avail_in))
        abort();
    if (out_n > theirs_n || memcmp(out, theirs, out_n) != 0)
        abort();
    return 0;
}
