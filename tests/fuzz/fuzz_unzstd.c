// @flags -DCC_WITH_ZSTD -lzstd
/*
 * unzstd on any bytes: in one piece and byte by byte, with the same result and the same output. What is fuzzed is our
 * way of calling libzstd: where a file ends, and that nothing spins.
 */
#include <stdlib.h>

#include "../../src/image/unzstd.h"
#include "sink.h"

static enum cci_unpack_status unzstd(const uint8_t *p, size_t n, size_t step, struct sink *out)
{
    struct cci_unzstd z;
    enum cci_unpack_status status = CCI_UNPACK_OK;
    out->n = 0;
    if (!cci_unzstd_init(&z))
        abort();
    for (size_t at = 0; at < n && status == CCI_UNPACK_OK; at += step)
        status = cci_unzstd_feed(&z, p + at, step < n - at ? step : n - at, sink_take, out);
    status = cci_unzstd_finish(&z);
    if (!cci_unzstd_strerror(&z))
        abort();
    cci_unzstd_free(&z);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sink whole, cut;
    enum cci_unpack_status a = unzstd(data, size, size + 1, &whole);
    enum cci_unpack_status b = unzstd(data, size, 1, &cut);
    if (a == CCI_UNPACK_STOPPED || b == CCI_UNPACK_STOPPED)
        return 0;
    /* In pieces, libzstd does not hold a frame that ends in an empty block to the size that it declares; in one it
     * does. */
    if (a == CCI_UNPACK_BAD && b == CCI_UNPACK_OK)
        return 0;
    /* Of damaged data, how much comes out before it shows depends on the pieces. */
    if (a != b || (a == CCI_UNPACK_OK && sink_differs(&whole, &cut)))
        abort();
    return 0;
}
