/*
 * bench_sha256 [RUNS]: speed of our SHA-256 against OpenSSL's, on one core, in pieces of 256 KiB as an import
 * hashes them. Runs alternate; the medians are printed.
 */
#define _GNU_SOURCE
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../src/image/sha256.h"

#define PIECE (256u * 1024u)
#define PIECES 512
#define MAX_RUNS 99

static uint8_t data[PIECE];

static void die(const char *what)
{
    fprintf(stderr, "bench_sha256: %s failed\n", what);
    exit(1);
}

static void run_ours(cci_sha256_blocks *blocks, uint8_t digest[32])
{
    struct cci_sha256 h;
    cci_sha256_init(&h);
    if (blocks)
        h.blocks = blocks;
    for (int i = 0; i < PIECES; i++)
        cci_sha256_update(&h, data, sizeof(data));
    cci_sha256_final(&h, digest);
}

static void run_openssl(uint8_t digest[32])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || !EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
        die("OpenSSL");
    for (int i = 0; i < PIECES; i++)
        if (!EVP_DigestUpdate(ctx, data, sizeof(data)))
            die("OpenSSL");
    if (!EVP_DigestFinal_ex(ctx, digest, NULL))
        die("OpenSSL");
    EVP_MD_CTX_free(ctx);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
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

int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 5;
    if (runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: bench_sha256 [RUNS]\n");
        return 2;
    }
    const double megabytes = (double)PIECE * PIECES / 1e6;
    double ours[MAX_RUNS], peer[MAX_RUNS];
    uint8_t a[32], b[32];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (int i = 0; i < runs; i++) {
        double start = now();
        run_ours(NULL, a);
        double middle = now();
        run_openssl(b);
        double end = now();
        ours[i] = megabytes / (middle - start);
        peer[i] = megabytes / (end - middle);
        if (memcmp(a, b, sizeof(a)) != 0)
            die("comparison of the digests");
    }
    double o = median(ours, runs), p = median(peer, runs);
    printf("bench sha256_openssl ours=%.0f peer=%.0f unit=MB/s ratio=%.2f\n", o, p, o / p);
    double start = now();
    run_ours(cci_sha256_portable, a);
    o = megabytes / (now() - start);
    if (memcmp(a, b, sizeof(a)) != 0)
        die("comparison of the digests");
    printf("bench sha256_portable_openssl ours=%.0f peer=%.0f unit=MB/s ratio=%.2f\n", o, p, o / p);
    return 0;
}
