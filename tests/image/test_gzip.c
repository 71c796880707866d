// @flags -lz
/*
 * gzip files: every optional header field, several members, padding; each kind of damage gets its own status; all of it
 * at every cut. The CRC-32 versions against zlib's.
 */
#include <zlib.h>

#include "../../src/image/gzip.h"
#include "../check.h"

struct bytes {
    uint8_t p[400000];
    size_t n;
    size_t stop_at;
};

static struct bytes out;
static struct cci_gunzip z;

static int collect(void *ctx, const uint8_t *p, size_t n)
{
    struct bytes *b = ctx;
    if (n > sizeof(b->p) - b->n)
        return 1;
    memcpy(b->p + b->n, p, n);
    b->n += n;
    return b->stop_at && b->n >= b->stop_at ? 42 : 0;
}

/* A growing file. */
struct file {
    uint8_t p[400000];
    size_t n;
};

static void add(struct file *f, const void *p, size_t n)
{
    memcpy(f->p + f->n, p, n);
    f->n += n;
}

/* A member with the header fields that `flags` asks for. */
static void add_member(struct file *f, const char *text, size_t n, unsigned flags)
{
    static uint8_t packed[400000];
    size_t start = f->n;
    const uint8_t fixed[10] = {0x1f, 0x8b, 8, (uint8_t)flags, 1, 2, 3, 4, 0, 3};
    add(f, fixed, 10);
    if (flags & 4)
        add(f, flags & 1 ? "\0\0" : "\5\0extra", flags & 1 ? 2 : 7);
    if (flags & 8)
        add(f, "name", 5);
    if (flags & 16)
        add(f, "comment", 8);
    if (flags & 2) {
        uint8_t crc[2];
        cci_put_le16(crc, (uint16_t)crc32(0, f->p + start, (uInt)(f->n - start)));
        add(f, crc, 2);
    }
    z_stream s = {0};
    if (deflateInit2(&s, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    s.next_in = (Bytef *)(uintptr_t)text;
    s.avail_in = (uInt)n;
    s.next_out = packed;
    s.avail_out = sizeof(packed);
    if (deflate(&s, Z_FINISH) != Z_STREAM_END)
        abort();
    add(f, packed, sizeof(packed) - s.avail_out);
    deflateEnd(&s);
    uint8_t trailer[8];
    cci_put_le32(trailer, (uint32_t)crc32(0, (const Bytef *)text, (uInt)n));
    cci_put_le32(trailer + 4, (uint32_t)n);
    add(f, trailer, 8);
}

/* The first piece has `first` bytes, the others `step`. */
static enum cci_gunzip_status gunzip(const uint8_t *p, size_t n, size_t first, size_t step)
{
    size_t at = 0, piece = first;
    enum cci_gunzip_status status = CCI_GUNZIP_OK;
    memset(&z, 0xa5, sizeof(z));
    cci_gunzip_init(&z);
    out.n = 0;
    while (at < n && status == CCI_GUNZIP_OK) {
        if (piece > n - at)
            piece = n - at;
        status = cci_gunzip_feed(&z, p + at, piece, collect, &out);
        at += piece;
        piece = step;
    }
    if (status != CCI_GUNZIP_OK && cci_gunzip_feed(&z, p, n, collect, &out) != status)
        abort(); /* errors stay */
    return cci_gunzip_finish(&z);
}

static struct file file;

static void test_header_fields(void)
{
    for (unsigned flags = 0; flags < 32; flags++) {
        file.n = 0;
        add_member(&file, "hello, hello, hello", 19, flags);
        for (size_t first = 0; first <= file.n; first++) {
            CHECK_EQ_INT(gunzip(file.p, file.n, first, file.n), CCI_GUNZIP_OK);
            CHECK(out.n == 19 && memcmp(out.p, "hello, hello, hello", 19) == 0);
        }
        CHECK_EQ_INT(gunzip(file.p, file.n, 1, 1), CCI_GUNZIP_OK);
        CHECK_EQ_INT(out.n, 19);
    }
}

static void test_truncated(void)
{
    file.n = 0;
    add_member(&file, "first", 5, 31);
    size_t end = file.n;
    add_member(&file, "second", 6, 30);
    for (size_t n = 0; n < file.n; n++)
        CHECK_EQ_INT(gunzip(file.p, n, n, n), n == end ? CCI_GUNZIP_OK : CCI_GUNZIP_TRUNCATED);
}

static void test_members_and_padding(void)
{
    file.n = 0;
    for (unsigned i = 0; i < 100; i++)
        add_member(&file, "0123456789", i % 11, i % 32);
    CHECK_EQ_INT(gunzip(file.p, file.n, 7, 13), CCI_GUNZIP_OK);
    CHECK_EQ_INT(out.n, 495);
    size_t end = file.n;
    memset(file.p + end, 0, 1000);
    CHECK_EQ_INT(gunzip(file.p, end + 1, end, 1), CCI_GUNZIP_OK);
    CHECK_EQ_INT(gunzip(file.p, end + 1000, 50, 50), CCI_GUNZIP_OK);
    file.p[end + 999] = 0x1f; /* a member behind padding is garbage */
    CHECK_EQ_INT(gunzip(file.p, end + 1000, 50, 50), CCI_GUNZIP_GARBAGE);
    file.p[end] = 'x';
    CHECK_EQ_INT(gunzip(file.p, end + 1, 50, 50), CCI_GUNZIP_GARBAGE);
    memset(file.p, 0, 20); /* padding with nothing before it */
    CHECK_EQ_INT(gunzip(file.p, 20, 20, 20), CCI_GUNZIP_BAD_MAGIC);
}

static void test_damage(void)
{
    file.n = 0;
    add_member(&file, "some text", 9, 2);
    static const struct {
        int at; /* from the end when negative */
        enum cci_gunzip_status status;
    } cases[] = {{0, CCI_GUNZIP_BAD_MAGIC},      {1, CCI_GUNZIP_BAD_MAGIC},       {2, CCI_GUNZIP_BAD_METHOD},
                 {4, CCI_GUNZIP_BAD_HEADER_CRC}, {10, CCI_GUNZIP_BAD_HEADER_CRC}, {11, CCI_GUNZIP_BAD_HEADER_CRC},
                 {-12, CCI_GUNZIP_BAD_CRC},      {-8, CCI_GUNZIP_BAD_CRC},        {-5, CCI_GUNZIP_BAD_CRC},
                 {-4, CCI_GUNZIP_BAD_SIZE},      {-1, CCI_GUNZIP_BAD_SIZE}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *byte = file.p + (cases[i].at < 0 ? (int)file.n + cases[i].at : cases[i].at);
        *byte ^= 0x10;
        enum cci_gunzip_status got = gunzip(file.p, file.n, 5, 5);
        CHECK_EQ_INT(got, cases[i].status);
        CHECK(strcmp(cci_gunzip_strerror(&z), "unknown error") != 0);
        *byte ^= 0x10;
    }
    file.p[3] |= 0x40;
    CHECK_EQ_INT(gunzip(file.p, file.n, 5, 5), CCI_GUNZIP_BAD_METHOD);
    file.p[3] = 2;
    file.p[12] = 0x07; /* no such block type */
    CHECK_EQ_INT(gunzip(file.p, file.n, 5, 5), CCI_GUNZIP_BAD_DATA);
    CHECK_EQ_STR(cci_gunzip_strerror(&z), "invalid block type");
}

static void test_sink_stops(void)
{
    file.n = 0;
    add_member(&file, "abc", 3, 0);
    add_member(&file, "def", 3, 0);
    out.stop_at = 2;
    CHECK_EQ_INT(gunzip(file.p, file.n, file.n, 1), CCI_GUNZIP_STOPPED);
    out.stop_at = 0;
    CHECK_EQ_INT(out.n, 3);
    CHECK_EQ_INT(z.inflate.sink_code, 42);
}

static void check_crc(cci_crc32_update_fn *update)
{
    static struct cci_crc32 c;
    static uint8_t data[3000];
    uint32_t random = 1;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)((random = random * 1664525u + 1013904223u) >> 24);
    cci_crc32_init(&c);
    c.update = update;
    for (size_t n = 0; n < 700; n++) {
        size_t at = n * 37 % 2000, cut = n * 13 % (n + 1);
        cci_crc32_restart(&c);
        cci_crc32_update(&c, data + at, cut);
        cci_crc32_update(&c, data + at + cut, n - cut);
        CHECK_EQ_INT(cci_crc32_value(&c), crc32(0, data + at, (uInt)n));
    }
}

static void test_crc_portable(void)
{
    check_crc(cci_crc32_portable);
}

/* Whatever this processor can do: take features away one by one. */
static void test_crc_choices(void)
{
    unsigned features = cci_cpu_features(), different = 0;
    cci_crc32_update_fn *last = NULL;
    for (unsigned without = 0; without < 16; without++) {
        cci_crc32_update_fn *update = cci_crc32_choose(features & ~without);
        different += update != last;
        last = update;
        check_crc(update);
    }
    CHECK(last == cci_crc32_portable);
    if (different == 1)
        SKIP(test_crc_instructions, "this processor has none for it");
}

int main(void)
{
    RUN(test_crc_portable);
    RUN(test_crc_choices);
    RUN(test_header_fields);
    RUN(test_truncated);
    RUN(test_members_and_padding);
    RUN(test_damage);
    RUN(test_sink_stops);
    return check_done();
}
