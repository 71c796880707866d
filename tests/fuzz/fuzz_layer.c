/*
 * A layer's tar of any bytes, as the import reads it: what is accepted is an index that its reader accepts too, with
 * every path inside the root. Checksums of headers are made right, so that the fuzzer gets behind them.
 */
#include "../../src/image/index_reader.h"
#include "../../src/image/layer_tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file without a name, for the writer to use again and again: making a store each time would be most of it. */
static cci_fd nameless(void)
{
    const char *tmp = getenv("TMPDIR");
    cci_fd fd = cci_os_tmpfile(tmp ? tmp : "/tmp");
    if (fd < 0)
        abort();
    return fd;
}

static void begin(struct cci_layer_tar *l)
{
    static uint8_t batch[CCI_LAYER_BATCH];
    static cci_fd data = CCI_NO_FD, index = CCI_NO_FD;
    if (data < 0) {
        data = nameless();
        index = nameless();
    }
    memset(l, 0, sizeof(*l));
    cci_tar_init(&l->tar, &cci_layer_tar_ops, l);
    l->writer.tmp.fd = CCI_NO_FD;
    l->writer.data = data;
    l->writer.index_fd = index;
    l->writer.batch = batch;
}

static void end(struct cci_layer_tar *l)
{
    if (cci_os_truncate(l->writer.data, 0) < 0)
        abort();
    l->writer.data = l->writer.index_fd = CCI_NO_FD;
    l->writer.batch = NULL;
    cci_layer_tar_drop(l);
}

static void check_index(struct cci_layer_writer *w)
{
    uint8_t header[CCI_INDEX_HEADER];
    struct cci_index_reader r;
    struct cci_index_entry e;
    bool over = false;
    if (w->fill > CCI_LAYER_BATCH || cci_index_end(&w->index, w->written + w->fill, header, NULL) != CC_OK ||
        cci_layer_writer_flush_index(w, NULL) || cci_layer_writer_put_index(w, header, sizeof(header), 0, NULL))
        abort();
    if (cci_os_truncate(w->index_fd, w->index.taken) < 0 || cci_index_open(&r, w->index_fd, NULL) != CC_OK)
        abort();
    while (!over)
        if (cci_index_next(&r, &e, &over, NULL) != CC_OK)
            abort();
    cci_index_close(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cci_layer_tar l;
    static uint8_t copy[65536];
    if (size < 2 || size > sizeof(copy))
        return 0;
    begin(&l);
    memcpy(copy, data, size);
    for (size_t at = 0; at + 512 <= size; at += 512) {
        if (memcmp(copy + at + 257, "ustar", 5) != 0)
            continue;
        unsigned sum = 0;
        memset(copy + at + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
            sum += copy[at + i];
        (void)snprintf((char *)copy + at + 148, 8, "%06o", sum);
    }
    size_t step = 1 + (size_t)data[size - 1] * 16;
    cc_error_code code = CC_OK;
    for (size_t at = 0; at < size && !code; at += step)
        code = cci_layer_tar_feed(&l, copy + at, CCI_MIN(step, size - at), NULL);
    if (!code && cci_tar_finish(&l.tar, NULL) == CC_OK)
        check_index(&l.writer);
    end(&l);
    return 0;
}
