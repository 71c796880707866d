// @flags -lz
/*
 * Inflate against zlib: what zlib wrote in all its ways comes back, however it is cut; what zlib rejects, or finds too
 * short, is rejected or found too short; what it accepts gives the same bytes.
 */
#include <zlib.h>

#include "../../src/image/inflate.h"
#include "../check.h"

struct bytes {
    uint8_t *p;
    size_t n, cap;
    size_t calls;
    size_t largest; /* piece */
    size_t stop_at; /* stop when this many bytes came, 0 never */
};

static int collect(void *ctx, const uint8_t *p, size_t n)
{
    struct bytes *b = ctx;
    b->calls++;
    if (n > b->largest)
        b->largest = n;
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        if (!b->p)
            abort();
    }
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return b->stop_at && b->n >= b->stop_at ? 42 : 0;
}

static uint64_t rng_state;

static uint32_t rng(void)
{
    rng_state = rng_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(rng_state >> 33);
}

/* Compress like zlib; raw DEFLATE. */
static struct bytes deflate_bytes(const uint8_t *p, size_t n, int level, int strategy, int window)
{
    struct bytes out = {0};
    z_stream z = {0};
    if (deflateInit2(&z, level, Z_DEFLATED, -window, 8, strategy) != Z_OK)
        abort();
    out.cap = deflateBound(&z, (uLong)n) + 64;
    out.p = malloc(out.cap);
    if (!out.p)
        abort();
    z.next_in = (Bytef *)(uintptr_t)p;
    z.avail_in = (uInt)n;
    z.next_out = out.p;
    z.avail_out = (uInt)out.cap;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END)
        abort();
    out.n = out.cap - z.avail_out;
    deflateEnd(&z);
    return out;
}

/* 0: more input wanted, 1: complete, -1: bad. */
static int zlib_verdict(const uint8_t *p, size_t n, struct bytes *out, size_t *used)
{
    static uint8_t piece[65536];
    z_stream z = {0};
    int status;
    if (inflateInit2(&z, -15) != Z_OK)
        abort();
    z.next_in = (Bytef *)(uintptr_t)p;
    z.avail_in = (uInt)n;
    do {
        z.next_out = piece;
        z.avail_out = sizeof(piece);
        status = inflate(&z, Z_NO_FLUSH);
        (void)collect(out, piece, sizeof(piece) - z.avail_out);
    } while (status == Z_OK && z.avail_out == 0);
    *used = n - z.avail_in;
    inflateEnd(&z);
    return status == Z_STREAM_END ? 1 : status == Z_OK || status == Z_BUF_ERROR ? 0 : -1;
}

/* Feed in pieces of `step` bytes, the first of `first`. */
static enum cci_inflate_status inflate_bytes(const uint8_t *p, size_t n, size_t first, size_t step, struct bytes *out,
                                             size_t *used)
{
    static struct cci_inflate state;
    struct cci_inflate *z = &state;
    enum cci_inflate_status status;
    size_t at = 0, piece = first, part;
    memset(z, 0xa5, offsetof(struct cci_inflate, out)); /* init must not rely on zeros */
    cci_inflate_init(z);
    do {
        if (piece > n - at)
            piece = n - at;
        /* an exact copy, so that the sanitizer sees a read past the end */
        uint8_t *copy = malloc(piece ? piece : 1);
        if (!copy)
            abort();
        if (piece)
            memcpy(copy, p + at, piece);
        status = cci_inflate_feed(z, copy, piece, &part, collect, out);
        free(copy);
        at += part;
        piece = step;
    } while (status == CCI_INFLATE_MORE && at < n);
    *used = at;
    if (status != CCI_INFLATE_MORE) { /* final results stay */
        if (cci_inflate_feed(z, p, n, &part, collect, out) != status || part != 0)
            abort();
    }
    return status;
}

/* Something with runs, repetitions near and far, text and noise in it. */
static uint8_t *make_data(size_t n, unsigned seed)
{
    uint8_t *p = malloc(n ? n : 1);
    if (!p)
        abort();
    rng_state = seed;
    for (size_t i = 0; i < n;) {
        size_t len = 1 + rng() % 600;
        unsigned kind = rng() % 5;
        size_t back = i ? 1 + rng() % (i < 32768 ? i : 32768) : 0;
        unsigned near = 1 + rng() % 20;
        for (; len > 0 && i < n; len--, i++) {
            if (kind == 0 || i < near)
                p[i] = (uint8_t)rng();
            else if (kind == 1)
                p[i] = (uint8_t)("etaoin shrdlu\n"[rng() % 14]);
            else if (kind == 2)
                p[i] = p[i - near];
            else
                p[i] = back ? p[i - back] : 0;
        }
    }
    return p;
}

static void check_round_trip(const uint8_t *p, size_t n, struct bytes *packed, size_t first, size_t step)
{
    struct bytes out = {0};
    size_t used;
    CHECK_EQ_INT(inflate_bytes(packed->p, packed->n, first, step, &out, &used), CCI_INFLATE_DONE);
    CHECK_EQ_INT(used, packed->n);
    CHECK_EQ_INT(out.n, n);
    CHECK(out.largest <= CCI_INFLATE_BUFFER);
    CHECK(n == 0 || memcmp(out.p, p, n) == 0);
    free(out.p);
}

static void test_what_zlib_writes(void)
{
    static const int strategies[] = {Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED};
    static const size_t sizes[] = {0, 1, 2, 3, 100, 5000, 32768, 32769, 300000, 1200000};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        uint8_t *data = make_data(sizes[s], (unsigned)s);
        for (int level = 0; level <= 9; level += 3) {
            for (size_t k = 0; k < 5; k++) {
                struct bytes packed = deflate_bytes(data, sizes[s], level, strategies[k], k == 1 ? 9 : 15);
                check_round_trip(data, sizes[s], &packed, packed.n, packed.n);
                check_round_trip(data, sizes[s], &packed, 1 + rng() % 100, 1 + rng() % 5000);
                free(packed.p);
            }
        }
        free(data);
    }
}

static void test_extremes(void)
{
    size_t n = 3000000;
    uint8_t *data = malloc(n);
    CHECK(data != NULL);
    memset(data, 7, n); /* longest matches, distance 1 */
    struct bytes packed = deflate_bytes(data, n, 9, Z_DEFAULT_STRATEGY, 15);
    check_round_trip(data, n, &packed, packed.n, packed.n);
    check_round_trip(data, n, &packed, 1, 1);
    free(packed.p);
    for (unsigned period = 2; period < 40; period++) {
        for (size_t i = 0; i < 100000; i++)
            data[i] = i < period ? (uint8_t)(i * 37) : data[i - period];
        packed = deflate_bytes(data, 100000, 9, Z_DEFAULT_STRATEGY, 15);
        check_round_trip(data, 100000, &packed, packed.n, packed.n);
        free(packed.p);
    }
    for (size_t i = 0; i < n; i++) /* skewed: the longest codewords */
        data[i] = (uint8_t)(rng() % 65536 ? (unsigned)__builtin_ctz(rng() | 1u << 30) : rng());
    packed = deflate_bytes(data, n, 6, Z_HUFFMAN_ONLY, 15);
    check_round_trip(data, n, &packed, packed.n, packed.n);
    free(packed.p);
    free(data);
}

static void test_every_split(void)
{
    for (int level = 0; level <= 9; level += 9) {
        uint8_t *data = make_data(3000, 99);
        struct bytes packed = deflate_bytes(data, 3000, level, Z_DEFAULT_STRATEGY, 15);
        for (size_t i = 0; i <= packed.n; i++)
            check_round_trip(data, 3000, &packed, i, packed.n);
        check_round_trip(data, 3000, &packed, 1, 1);
        free(packed.p);
        free(data);
    }
}

static void test_truncated(void)
{
    uint8_t *data = make_data(3000, 5);
    struct bytes packed = deflate_bytes(data, 3000, 9, Z_DEFAULT_STRATEGY, 15);
    for (size_t n = 0; n < packed.n; n++) {
        struct bytes out = {0};
        size_t used;
        CHECK_EQ_INT(inflate_bytes(packed.p, n, n, n, &out, &used), CCI_INFLATE_MORE);
        CHECK_EQ_INT(used, n);
        free(out.p);
    }
    free(packed.p);
    free(data);
}

static void test_bytes_behind_the_end(void)
{
    uint8_t *data = make_data(5000, 6);
    struct bytes packed = deflate_bytes(data, 5000, 6, Z_DEFAULT_STRATEGY, 15);
    uint8_t *longer = malloc(packed.n + 100);
    CHECK(longer != NULL);
    memcpy(longer, packed.p, packed.n);
    for (size_t extra = 0; extra <= 100; extra++) {
        memset(longer + packed.n, 0xee, extra);
        for (size_t step = 1; step < 40; step += 6) {
            struct bytes out = {0};
            size_t used;
            CHECK_EQ_INT(inflate_bytes(longer, packed.n + extra, step, extra % 3 ? step : packed.n, &out, &used),
                         CCI_INFLATE_DONE);
            CHECK_EQ_INT(used, packed.n);
            CHECK_EQ_INT(out.n, 5000);
            free(out.p);
        }
    }
    free(longer);
    free(packed.p);
    free(data);
}

static void test_sink_stops(void)
{
    uint8_t *data = make_data(1000000, 8);
    struct bytes packed = deflate_bytes(data, 1000000, 6, Z_DEFAULT_STRATEGY, 15);
    struct bytes out = {0};
    size_t used;
    out.stop_at = 300000;
    CHECK_EQ_INT(inflate_bytes(packed.p, packed.n, 4096, 4096, &out, &used), CCI_INFLATE_STOPPED);
    CHECK(out.n >= 300000 && out.n < 1000000);
    free(out.p);
    free(packed.p);
    free(data);
}

static void check_same_verdict(const uint8_t *p, size_t n, size_t step)
{
    struct bytes theirs = {0}, ours = {0};
    size_t their_use, our_use;
    int verdict = zlib_verdict(p, n, &theirs, &their_use);
    enum cci_inflate_status status = inflate_bytes(p, n, step, step, &ours, &our_use);
    CHECK_EQ_INT(status == CCI_INFLATE_DONE ? 1 : status == CCI_INFLATE_MORE ? 0 : -1, verdict);
    if (verdict == 1) {
        CHECK_EQ_INT(our_use, their_use);
        CHECK_EQ_INT(ours.n, theirs.n);
    }
    CHECK(ours.n <= theirs.n);
    CHECK(ours.n == 0 || memcmp(ours.p, theirs.p, ours.n) == 0);
    CHECK(strcmp(cci_inflate_strerror(status), "unknown error") != 0);
    free(theirs.p);
    free(ours.p);
}

/* Damage streams at random; also their headers only, where the codes are described. */
static void test_damage(void)
{
    for (unsigned round = 0; round < 4000; round++) {
        size_t n = round % 2 ? 400 : 4000;
        uint8_t *data = make_data(n, round);
        struct bytes packed = deflate_bytes(data, n, round % 3 ? 9 : 1, round % 7 ? Z_DEFAULT_STRATEGY : Z_FIXED, 15);
        size_t range = round % 4 < 2 && packed.n > 60 ? 60 : packed.n;
        for (unsigned k = 0; k < 1 + round % 3; k++)
            packed.p[rng() % range] ^= (uint8_t)(1u << rng() % 8);
        check_same_verdict(packed.p, packed.n, round % 5 ? packed.n : 1 + rng() % 50);
        free(packed.p);
        free(data);
    }
}

/* Bit by bit, first bit lowest. */
struct bit_writer {
    uint8_t p[4096];
    size_t n; /* bits */
};

static void put_bits(struct bit_writer *w, unsigned value, unsigned count)
{
    for (; count > 0; count--, value >>= 1, w->n++)
        w->p[w->n / 8] = (uint8_t)(w->p[w->n / 8] | (value & 1) << w->n % 8);
}

/* Random dynamic headers, whose codes are sometimes complete and often not, followed by noise. */
static void test_random_codes(void)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    unsigned accepted = 0;
    rng_state = 77;
    for (unsigned round = 0; round < 20000; round++) {
        struct bit_writer w = {{0}, 0};
        uint8_t lens[320] = {0};
        unsigned nlit = 257 + rng() % 30, ndist = 1 + rng() % 30;
        /* Split the unit interval at random: complete codes; then spoil some of them. */
        for (unsigned part = 0; part < 2; part++) {
            uint8_t *l = part ? lens + nlit : lens;
            unsigned limit = part ? ndist : nlit, used = 0;
            unsigned depth = 0, want = 1 + rng() % limit;
            uint8_t leaves[320] = {0};
            used = 1; /* one leaf of depth 0 */
            while (used < want) {
                unsigned i = rng() % used;
                if (leaves[i] >= 15)
                    break;
                leaves[i]++;
                leaves[used++] = leaves[i];
            }
            if (used == 1 && rng() % 2)
                leaves[0] = 1;
            for (unsigned i = 0; i < used; i++) {
                do
                    depth = part == 0 && i == 0 ? 256 : rng() % limit;
                while (l[depth] && used <= limit / 2);
                l[depth] = leaves[i];
            }
        }
        if (rng() % 3 == 0)
            lens[rng() % (nlit + ndist)] = (uint8_t)(rng() % 16);
        put_bits(&w, 1 | 2 << 1, 3);
        put_bits(&w, nlit - 257, 5);
        put_bits(&w, ndist - 1, 5);
        put_bits(&w, 15, 4);
        for (unsigned i = 0; i < 19; i++) /* all sixteen lengths with four bits each: codeword = length, reversed */
            put_bits(&w, order[i] < 16 ? 4 : 0, 3);
        for (unsigned i = 0; i < nlit + ndist; i++)
            for (unsigned bit = 4; bit-- > 0;)
                put_bits(&w, (unsigned)lens[i] >> bit & 1u, 1);
        unsigned noise = rng() % 400;
        for (unsigned i = 0; i < noise; i++)
            put_bits(&w, rng() & 255, 8);
        size_t n = (w.n + 7) / 8;
        struct bytes out = {0};
        size_t used;
        accepted += zlib_verdict(w.p, n, &out, &used) == 1;
        free(out.p);
        check_same_verdict(w.p, n, round % 2 ? n : 7);
    }
    CHECK(accepted > 200);
}

static void test_stored_and_types(void)
{
    static const uint8_t bad_type[] = {0x07};
    static const uint8_t bad_stored[] = {0x01, 0x05, 0x00, 0x05, 0x00};
    static const uint8_t stored[] = {0x01, 0x03, 0x00, 0xfc, 0xff, 'a', 'b', 'c', 'X'};
    static const uint8_t too_far[] = {0x63, 0x00, 0x42, 0x00}; /* fixed code; a literal, a match from 2 back */
    struct bytes out = {0};
    size_t used;
    CHECK_EQ_INT(inflate_bytes(bad_type, 1, 1, 1, &out, &used), CCI_INFLATE_BAD_BLOCK);
    CHECK_EQ_INT(inflate_bytes(bad_stored, 5, 5, 5, &out, &used), CCI_INFLATE_BAD_STORED);
    CHECK_EQ_INT(inflate_bytes(stored, 9, 9, 9, &out, &used), CCI_INFLATE_DONE);
    CHECK_EQ_INT(used, 8);
    CHECK(out.n == 3 && memcmp(out.p, "abc", 3) == 0);
    CHECK_EQ_INT(inflate_bytes(too_far, 4, 4, 4, &out, &used), CCI_INFLATE_TOO_FAR);
    free(out.p);
}

int main(void)
{
    RUN(test_stored_and_types);
    RUN(test_what_zlib_writes);
    RUN(test_extremes);
    RUN(test_every_split);
    RUN(test_truncated);
    RUN(test_bytes_behind_the_end);
    RUN(test_sink_stops);
    RUN(test_damage);
    RUN(test_random_codes);
    return check_done();
}
