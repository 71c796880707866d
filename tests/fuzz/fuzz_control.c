/*
 * The host half of the agent protocol, fed with whatever a guest may send.
 *
 * The first two bytes of the input split the rest: so many bytes arrive on the control connection, what follows on
 * the streams that are dialled, in pieces whose sizes the input decides as well. There are no threads: connections
 * are structures whose watch function this file calls.
 */
#include "../../src/control/client.h"
#include "../../src/control/exec.h"
#include "../../src/control/file.h"

enum { STREAMS = 16 };

struct input {
    const uint8_t *p;
    size_t n;
};

struct fake {
    struct cci_stream stream;
    struct input *from; /* bytes it delivers */
    unsigned piece;     /* sizes of the pieces */
    cci_stream_watch_fn fn;
    void *ctx;
    bool open;
};

static struct fake fakes[STREAMS];
static struct input control_input, stream_input;

static int64_t fake_read(struct cci_stream *s, void *buf, size_t n)
{
    struct fake *f = (struct fake *)s;
    if (f->from->n == 0)
        return f->piece & 1 ? 0 : -EAGAIN;
    f->piece = f->piece * 5 + 3;
    n = CCI_MIN(n, f->from->n);
    if (f->piece & 4)
        n = CCI_MIN(n, (size_t)(f->piece >> 3) % 64 + 1);
    memcpy(buf, f->from->p, n);
    f->from->p += n;
    f->from->n -= n;
    return (int64_t)n;
}

static int64_t fake_write(struct cci_stream *s, const void *buf, size_t n)
{
    struct fake *f = (struct fake *)s;
    (void)buf;
    f->piece = f->piece * 5 + 3;
    if ((f->piece & 0x70) == 0x70)
        return -EAGAIN;
    return (int64_t)(f->piece & 8 ? 1 : n);
}

static void fake_shutdown(struct cci_stream *s)
{
    (void)s;
}

static void fake_watch(struct cci_stream *s, cci_stream_watch_fn fn, void *ctx)
{
    struct fake *f = (struct fake *)s;
    f->fn = fn;
    f->ctx = ctx;
}

static void fake_close(struct cci_stream *s)
{
    struct fake *f = (struct fake *)s;
    f->fn = NULL;
    f->open = false;
}

static const struct cci_stream_ops fake_ops = {fake_read, fake_write, fake_shutdown, fake_watch, fake_close};

static struct cci_stream *fake_open(struct input *from, unsigned seed)
{
    for (int i = 0; i < STREAMS; i++) {
        struct fake *f = &fakes[i];
        if (f->open)
            continue;
        f->stream.ops = &fake_ops;
        f->from = from;
        f->piece = seed + (unsigned)i;
        f->fn = NULL;
        f->open = true;
        return &f->stream;
    }
    return NULL;
}

static cc_error_code dial(void *ctx, uint32_t port, struct cci_stream **out, cc_error *err)
{
    (void)ctx;
    *out = fake_open(&stream_input, port);
    return *out ? CC_OK : cci_fail(err, CC_ERR_IO, NULL, "too many streams");
}

/* Calls the watch functions until nothing is left to deliver, or nobody takes it. */
static void drive(void)
{
    for (int round = 0; round < 400; round++)
        for (int i = 0; i < STREAMS; i++)
            if (fakes[i].open && fakes[i].fn)
                fakes[i].fn(fakes[i].ctx, &fakes[i].stream);
}

static const struct cci_wait past = {1, NULL};

static struct cci_exec *begin_exec(struct cci_control *ctl, bool merge)
{
    static const char *const argv[] = {"prog", "argument"};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    s.argv = argv;
    s.argc = 2;
    s.stdout_wanted = s.stderr_wanted = s.notify = true;
    s.merge = merge;
    s.limit = 100000;
    (void)cci_exec_begin(ctl, &s, &e, NULL);
    return e;
}

static void end_exec(struct cci_exec *e)
{
    cc_error err = {0};
    int code;
    uint8_t *bytes;
    size_t n;
    if (!e)
        return;
    (void)cci_exec_started(e, &past, &err);
    if (cci_exec_wait(e, &past, &code, &err) == CC_OK) {
        if (code < 0 || code > 255)
            abort();
        for (unsigned i = CCI_CHANNEL_STDOUT; i <= CCI_CHANNEL_STDERR; i++)
            if (cci_exec_take(e, i, &bytes, &n, &err) == CC_OK) {
                if (n > CCI_MAX(100000u, CCI_PROTO_MAX_REPLY))
                    abort();
                cci_mem_free(bytes);
            }
    }
    cci_error_release(&err);
    cci_exec_free(e);
}

/* A pipe takes what the streams have; whatever that is, it is bounded and comes to an end. */
static void use_pipe(struct cci_exec *e, uint32_t channel)
{
    static uint8_t block[5000];
    struct cci_pipe *p;
    size_t n;
    if (!e || cci_exec_pipe(e, channel, &p, &past, NULL))
        return;
    for (int i = 0; i < 100; i++) {
        if (channel == CCI_CHANNEL_STDIN && (cci_pipe_write(p, block, (size_t)i * 50, &n, &past, NULL) || i > 20))
            break;
        if (channel != CCI_CHANNEL_STDIN && (cci_pipe_read(p, block, sizeof(block), &n, &past, NULL) || n == 0))
            break;
        if (n > sizeof(block))
            abort();
    }
    cci_pipe_free(p);
}

static void read_results(struct cci_call *file, struct cci_call *stat)
{
    cc_error err = {0};
    struct cci_file_stat st;
    uint8_t *bytes;
    size_t n;
    if (cci_call_wait(file, &past, "file", &err) == CC_OK && cci_call_check(file, "/f", &err) == CC_OK &&
        cci_file_contents(file, &bytes, &n, &err) == CC_OK)
        cci_mem_free(bytes);
    if (cci_call_wait(stat, &past, "stat", &err) == CC_OK && cci_call_check(stat, "/f", &err) == CC_OK)
        (void)cci_file_parse_stat(stat, &st, &err);
    cci_error_release(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cc_error err = {0};
    struct cci_call file, stat;
    const struct cci_path_request query = {CCI_MSG_STAT, "/f", NULL, 1, {1}};
    if (size < 4)
        return 0;
    size_t split = CCI_MIN((size_t)(data[0] | data[1] << 8), size - 4);
    control_input = (struct input){data + 4, split};
    stream_input = (struct input){data + 4 + split, size - 4 - split};
    struct cci_control *ctl = cci_control_new(dial, NULL);
    if (!ctl)
        return 0;
    /* Requests 1 to 4, before anything arrives. */
    struct cci_exec *a = begin_exec(ctl, false), *b = begin_exec(ctl, true);
    cci_call_begin(&file, ctl);
    file.to_host = true;
    file.channels = 1u << CCI_CHANNEL_FILE;
    file.limit = 50000;
    (void)cci_call_send(&file, CCI_MSG_READ_FILE, cci_file_put_path, "/f", NULL);
    cci_call_begin(&stat, ctl);
    (void)cci_call_send(&stat, CCI_MSG_STAT, cci_path_put, &query, NULL);
    cci_control_attach(ctl, fake_open(&control_input, data[2]));
    drive();
    (void)cci_control_handshake(ctl, &past, &err);
    cci_error_release(&err);
    use_pipe(a, CCI_CHANNEL_STDIN);
    use_pipe(b, CCI_CHANNEL_STDERR);
    read_results(&file, &stat);
    end_exec(a);
    cci_call_end(&file);
    cci_call_end(&stat);
    cci_control_close(ctl);
    end_exec(b); /* outlives its instance */
    for (int i = 0; i < STREAMS; i++)
        if (fakes[i].open)
            abort();
    return 0;
}
