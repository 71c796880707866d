/*
 * tests/fuzz/sink.h - where the fuzz targets for decompressors put the output, to compare it: up to 1 MiB, then it says
 * stop.
 */
#ifndef TESTS_FUZZ_SINK_H
#define TESTS_FUZZ_SINK_H

#include <stdint.h>
#include <string.h>

#define SINK_MOST (1024u * 1024u)

struct sink {
    uint8_t p[SINK_MOST];
    size_t n;
};

static int sink_take(void *ctx, const uint8_t *p, size_t n)
{
    struct sink *s = (struct sink *)ctx;
    if (n > SINK_MOST - s->n)
        return 1;
    memcpy(s->p + s->n, p, n);
    s->n += n;
    return 0;
}

static int sink_differs(const struct sink *a, const struct sink *b)
{
    return a->n != b->n || memcmp(a->p, b->p, a->n) != 0;
}

#endif
