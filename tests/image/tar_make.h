/*
 * tests/image/tar_make.h - small tars and gzip files in memory, by nothing that the library uses to read them.
 */
#ifndef TESTS_IMAGE_TAR_MAKE_H
#define TESTS_IMAGE_TAR_MAKE_H

#include "../../src/base/bytes.h"
#include "../../src/image/crc32.h"

struct tar {
    uint8_t p[1 << 20];
    size_t n;
};

static struct tar tar;

static void tar_add(char type, const char *path, const char *link, const void *data, size_t n)
{
    uint8_t *h = tar.p + tar.n;
    unsigned sum = 0;
    memset(h, 0, 512);
    memcpy(h, path, strlen(path) < 100 ? strlen(path) : 100);
    (void)snprintf((char *)h + 100, 8, "%07o", 0644u);
    (void)snprintf((char *)h + 108, 8, "%07o", 1000u);
    (void)snprintf((char *)h + 116, 8, "%07o", 1000u);
    (void)snprintf((char *)h + 124, 12, "%011o", (unsigned)n);
    (void)snprintf((char *)h + 136, 12, "%011o", 1700000000u);
    h[156] = (uint8_t)type;
    memcpy(h + 157, link, strlen(link));
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += h[i];
    (void)snprintf((char *)h + 148, 8, "%06o", sum);
    tar.n += 512;
    if (n)
        memcpy(tar.p + tar.n, data, n);
    memset(tar.p + tar.n + n, 0, 512);
    tar.n += (n + 511) / 512 * 512;
}

static void tar_end(void)
{
    memset(tar.p + tar.n, 0, 1024);
    tar.n += 1024;
}

static void tar_begin(void)
{
    tar.n = 0;
}

/* A gzip file of stored blocks. */
static size_t gzip(const uint8_t *p, size_t n, uint8_t *out)
{
    static const uint8_t head[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
    struct cci_crc32 crc;
    size_t at = sizeof(head);
    memcpy(out, head, sizeof(head));
    cci_crc32_init(&crc);
    cci_crc32_update(&crc, p, n);
    for (size_t done = 0; done == 0 || done < n;) {
        size_t part = n - done < 60000 ? n - done : 60000;
        out[at] = done + part == n;
        cci_put_le16(out + at + 1, (uint16_t)part);
        cci_put_le16(out + at + 3, (uint16_t)~part);
        memcpy(out + at + 5, p + done, part);
        at += 5 + part;
        done += part;
        if (n == 0)
            break;
    }
    cci_put_le32(out + at, cci_crc32_value(&crc));
    cci_put_le32(out + at + 4, (uint32_t)n);
    return at + 8;
}

#endif
