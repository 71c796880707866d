/*
 * bench_inflate FILE.gz [RUNS]: speed of our gunzip against igzip and zlib, all streaming, on one core.
 *
 * Each decoder gets the file in pieces of 64 KiB, checks CRC and size, and hands its output on in pieces to
 * something that only counts them. Runs alternate; the medians are printed as MB/s of output.
 */
#define _GNU_SOURCE
#include <isa-l/igzip_lib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zlib.h>

#include "../../src/image/gzip.h"

#define PIECE 65536u
#define MAX_RUNS 99

struct input {
    uint8_t *p;
    size_t n;
};

static uint64_t total;

static int count_output(void *ctx, const uint8_t *p, size_t n)
{
    (void)ctx;
    (void)p;
    total += n;
    return 0;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_inflate: %s failed\n", what);
    exit(1);
}

static void run_ours(const struct input *in)
{
    struct cci_gunzip *z = malloc(sizeof(*z));
    if (!z)
        die("malloc");
    cci_gunzip_init(z);
    for (size_t at = 0; at < in->n; at += PIECE) {
        size_t n = in->n - at < PIECE ? in->n - at : PIECE;
        if (cci_gunzip_feed(z, in->p + at, n, count_output, NULL) != CCI_GUNZIP_OK)
            die("our gunzip");
    }
    if (cci_gunzip_finish(z) != CCI_GUNZIP_OK)
        die("our gunzip");
    free(z);
}

static void run_igzip(const struct input *in)
{
    static uint8_t out[256 * 1024];
    struct inflate_state z;
    isal_inflate_init(&z);
    z.crc_flag = ISAL_GZIP;
    for (size_t at = 0; at < in->n; at += PIECE) {
        z.next_in = in->p + at;
        z.avail_in = (uint32_t)(in->n - at < PIECE ? in->n - at : PIECE);
        do {
            z.next_out = out;
            z.avail_out = sizeof(out);
            if (isal_inflate(&z) != ISAL_DECOMP_OK)
                die("igzip");
            total += sizeof(out) - z.avail_out;
        } while (z.avail_out == 0);
    }
    if (z.block_state != ISAL_BLOCK_FINISH)
        die("igzip");
}

static void run_zlib(const struct input *in)
{
    static uint8_t out[256 * 1024];
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 16) != Z_OK)
        die("zlib");
    int status = Z_OK;
    for (size_t at = 0; at < in->n; at += PIECE) {
        z.next_in = in->p + at;
        z.avail_in = (uInt)(in->n - at < PIECE ? in->n - at : PIECE);
        do {
            z.next_out = out;
            z.avail_out = sizeof(out);
            status = inflate(&z, Z_NO_FLUSH);
            if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
                die("zlib");
            total += sizeof(out) - z.avail_out;
        } while (z.avail_out == 0);
    }
    if (status != Z_STREAM_END)
        die("zlib");
    inflateEnd(&z);
}

static double measure(void (*run)(const struct input *), const struct input *in, uint64_t *size)
{
    struct timespec a, b;
    total = 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    run(in);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    if (*size != 0 && *size != total)
        die("comparison of the sizes");
    *size = total;
    return (double)total / 1e6 / ((double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof(*v), by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static struct input read_file(const char *path)
{
    struct input in = {NULL, 0};
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        die(path);
    long size = ftell(f);
    rewind(f);
    if (size <= 0 || !(in.p = malloc((size_t)size)) || fread(in.p, 1, (size_t)size, f) != (size_t)size)
        die(path);
    in.n = (size_t)size;
    fclose(f);
    return in;
}

int main(int argc, char **argv)
{
    int runs = argc > 2 ? atoi(argv[2]) : 5;
    if (argc < 2 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: bench_inflate FILE.gz [RUNS]\n");
        return 2;
    }
    struct input in = read_file(argv[1]);
    double ours[MAX_RUNS], igzip[MAX_RUNS], zlib[MAX_RUNS];
    uint64_t size = 0;
    for (int i = 0; i < runs; i++) {
        ours[i] = measure(run_ours, &in, &size);
        igzip[i] = measure(run_igzip, &in, &size);
        zlib[i] = measure(run_zlib, &in, &size);
    }
    double o = median(ours, runs), g = median(igzip, runs), z = median(zlib, runs);
    printf("bench inflate_igzip ours=%.0f peer=%.0f unit=MB/s ratio=%.2f\n", o, g, o / g);
    printf("bench inflate_zlib ours=%.0f peer=%.0f unit=MB/s ratio=%.2f\n", o, z, o / z);
    free(in.p);
    return 0;
}
