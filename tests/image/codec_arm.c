/*
 * codec_arm PORTABLE|NATIVE < FILE: SHA-256 and CRC-32 of the input, read in uneven pieces. codec_arm GUNZIP < FILE:
 * decompresses it. For test_codec_arm.sh.
 */
#include <stdio.h>

#include "../../src/image/gzip.h"
#include "../../src/image/sha256.h"

static int write_out(void *ctx, const uint8_t *p, size_t n)
{
    (void)ctx;
    return fwrite(p, 1, n, stdout) == n ? 0 : 1;
}

static int gunzip(void)
{
    static struct cci_gunzip z;
    static uint8_t piece[5000];
    size_t n;
    cci_gunzip_init(&z);
    while ((n = fread(piece, 1, sizeof(piece), stdin)) > 0)
        if (cci_gunzip_feed(&z, piece, n, write_out, NULL) != CCI_GUNZIP_OK)
            break;
    if (cci_gunzip_finish(&z) == CCI_GUNZIP_OK)
        return 0;
    fprintf(stderr, "%s\n", cci_gunzip_strerror(&z));
    return 1;
}

int main(int argc, char **argv)
{
    static uint8_t piece[5000];
    static struct cci_crc32 crc;
    struct cci_sha256 hash;
    uint8_t digest[32];
    char hex[65];
    size_t n, step = 1;
    if (argc > 1 && argv[1][0] == 'G')
        return gunzip();
    cci_sha256_init(&hash);
    cci_crc32_init(&crc);
    if (argc > 1 && argv[1][0] == 'P') {
        hash.blocks = cci_sha256_portable;
        crc.update = cci_crc32_portable;
    } else if (hash.blocks != cci_sha256_native || crc.update != cci_crc32_native) {
        fprintf(stderr, "the processor's instructions were not chosen\n");
        return 1;
    }
    while ((n = fread(piece, 1, step, stdin)) > 0) {
        cci_sha256_update(&hash, piece, n);
        cci_crc32_update(&crc, piece, n);
        step = step * 7 % 4999 + 1;
    }
    cci_sha256_final(&hash, digest);
    cci_sha256_hex(digest, hex);
    printf("%s %08x\n", hex, (unsigned)cci_crc32_value(&crc));
    return 0;
}
