/*
 * gunzip on any bytes: in one piece and byte by byte, with the same result and the same output. Checksums are the one
 * thing that a fuzzer cannot guess, so output is compared whatever they say.
 */
#include <stdlib.h>

#include "../../src/image/gzip.h"
#include "sink.h"

static enum cci_gunzip_status gunzip(const uint8_t *p, size_t n, size_t step, struct sink *out)
{
    static struct cci_gunzip z;
    enum cci_gunzip_status status = CCI_GUNZIP_OK;
    out->n = 0;
    cci_gunzip_init(&z);
    for (size_t at = 0; at < n && status == CCI_GUNZIP_OK; at += step)
        status = cci_gunzip_feed(&z, p + at, step < n - at ? step : n - at, sink_take, out);
    return cci_gunzip_finish(&z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sink whole, cut;
    enum cci_gunzip_status a = gunzip(data, size, size + 1, &whole);
    enum cci_gunzip_status b = gunzip(data, size, 1, &cut);
    if (a == CCI_GUNZIP_STOPPED || b == CCI_GUNZIP_STOPPED)
        return 0;
    if (a != b || sink_differs(&whole, &cut))
        abort();
    return 0;
}
