/*
 * The events of a watch and the entries of a directory, as a guest may send them: the first byte decides which, and
 * the sizes of the pieces in which a stream comes.
 */
#include "../../src/control/watch.h"

static const uint8_t *next;
static size_t left;
static unsigned piece;

static int64_t fake_read(struct cci_stream *s, void *buf, size_t n)
{
    (void)s;
    piece = piece * 5 + 3;
    n = CCI_MIN(n, CCI_MIN(left, (size_t)(piece >> 3) % 64 + 1));
    if (n)
        memcpy(buf, next, n);
    next += n;
    left -= n;
    return (int64_t)n;
}
static int64_t fake_write(struct cci_stream *s, const void *buf, size_t n)
{
    (void)s;
    (void)buf;
    return (int64_t)n;
}
static void fake_nothing(struct cci_stream *s)
{
    (void)s;
}
static void fake_watch(struct cci_stream *s, cci_stream_watch_fn fn, void *ctx)
{
    (void)s;
    (void)fn;
    (void)ctx;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cci_stream_ops ops = {fake_read, fake_write, fake_nothing, fake_watch, fake_nothing};
    const struct cci_wait past = {1, NULL};
    struct cci_stream stream = {&ops};
    static struct cci_watch w;
    static struct cci_control *control; /* of a guest that has ended: what a stream that breaks asks for */
    struct cci_watch_record r;
    if (size < 1)
        return 0;
    if (data[0] & 1) {
        const struct cci_proto_reader in = {data + 1, size - 1, false};
        cc_dir_entry *e;
        size_t n;
        if (cci_listing_parse(in, &e, &n, NULL) == CC_OK) {
            for (size_t i = 0; i < n; i++)
                if (strchr(e[i].name, '/') || !e[i].name[0] || (i && strcmp(e[i - 1].name, e[i].name) > 0))
                    abort();
            cci_listing_free(e, n);
        }
        return 0;
    }
    if (!control) {
        control = cci_control_new(NULL, NULL);
        cci_control_fail(control, "ended");
    }
    memset(&w, 0, sizeof(w));
    w.control = control;
    cci_monitor_init(&w.monitor);
    piece = data[0];
    next = data + 1;
    left = size - 1;
    w.stream = &stream;
    cci_stream_io_begin(&w.io, &stream);
    for (int i = 0; i < 1000 && cci_watch_read(&w, &r, &past, NULL) == CC_OK; i++)
        if (strchr(r.name, '/') || strcmp(r.name, "..") == 0)
            abort();
    cci_watch_destroy(&w);
    return 0;
}
