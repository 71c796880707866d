/*
 * tests/image/tar_blocks.h - tar archives made by hand, block by block, and what the reader says of them as text.
 */
#ifndef TESTS_IMAGE_TAR_BLOCKS_H
#define TESTS_IMAGE_TAR_BLOCKS_H

#include "../../src/image/tar.h"
#include "../check.h"

/* ---- Archives ---- */

static uint8_t archive[8u << 20];
static size_t size;

static void put(const void *p, size_t n)
{
    memcpy(archive + size, p, n);
    size += n;
}

static void pad(void)
{
    while (size % 512)
        archive[size++] = 0;
}

static void end(void)
{
    memset(archive + size, 0, 1024);
    size += 1024;
}

static void fix_checksum(uint8_t *h)
{
    unsigned sum = 0;
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += h[i];
    (void)snprintf((char *)h + 148, 8, "%06o", sum & 0777777);
}

/* A header of ustar format; callers may change it and fix the checksum again. */
static uint8_t *header(char flag, const char *name, uint64_t n)
{
    uint8_t *h = archive + size;
    memset(h, 0, 512);
    size += 512;
    memcpy(h, name, strlen(name) < 100 ? strlen(name) : 100);
    memcpy(h + 100,
           "0000640\0"
           "0001750\0"
           "0000144\0",
           24);
    (void)snprintf((char *)h + 124, 12, "%011llo", (unsigned long long)n);
    memcpy(h + 136, "14371023300", 12);
    h[156] = (uint8_t)flag;
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    fix_checksum(h);
    return h;
}

static void gnu(uint8_t *h)
{
    memcpy(h + 257, "ustar  ", 8);
    fix_checksum(h);
}

static void file(const char *name, const char *text)
{
    header('0', name, strlen(text));
    put(text, strlen(text));
    pad();
}

static void payload(char flag, const void *p, size_t n)
{
    header(flag, "extended", n);
    put(p, n);
    pad();
}

static uint8_t pax[3u << 20];
static size_t pax_n;

static void record_bytes(const char *key, const void *value, size_t n)
{
    size_t body = strlen(key) + n + 3, len = body + 1, digits;
    do {
        digits = (size_t)snprintf(NULL, 0, "%zu", len);
    } while (len != body + digits && (len = body + digits) != 0);
    pax_n += (size_t)snprintf((char *)pax + pax_n, 300, "%zu %s=", len, key);
    memcpy(pax + pax_n, value, n);
    pax_n += n;
    pax[pax_n++] = '\n';
}

static void record(const char *key, const char *value)
{
    record_bytes(key, value, strlen(value));
}

static void flush_pax(char flag)
{
    payload(flag, pax, pax_n);
    pax_n = 0;
}

static void begin(void)
{
    size = 0;
    pax_n = 0;
}

/* ---- What the reader says, as text ---- */

static char seen[1u << 20];
static size_t seen_n;
static size_t stop_after; /* calls, 0 never */

static void say(const char *fmt, ...) CCI_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    if (seen_n < sizeof(seen) - 1000)
        seen_n += (size_t)vsnprintf(seen + seen_n, 900, fmt, args);
    va_end(args);
}

static cc_error_code maybe_stop(cc_error *err)
{
    if (stop_after && --stop_after == 0)
        return cci_fail(err, CC_ERR_CANCELLED, NULL, "enough");
    return CC_OK;
}

static cc_error_code on_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    (void)ctx;
    say("%c %o %u %u %llu %lld.%09u %.*s", "fdlhcbp"[e->type], e -> mode, e -> uid, e -> gid,
        (unsigned long long)e -> size, (long long)e -> mtime.sec, e->mtime.nsec, (int)e->path.n,
        (const char *)e->path.p);
    if (e->type == CCI_TAR_SYMLINK || e->type == CCI_TAR_HARDLINK)
        say(" -> %.*s", (int)e->link.n, (const char *)e->link.p);
    if (e->type == CCI_TAR_CHARDEV || e->type == CCI_TAR_BLOCKDEV)
        say(" %u:%u", e->major, e->minor);
    if (e->has_atime)
        say(" a=%lld.%09u", (long long)e->atime.sec, e->atime.nsec);
    if (e->has_ctime)
        say(" c=%lld.%09u", (long long)e->ctime.sec, e->ctime.nsec);
    for (size_t i = 0; i < e->nxattrs; i++)
        say(" %.*s=%.*s", (int)e->xattrs[i].name.n, (const char *)e->xattrs[i].name.p, (int)e->xattrs[i].value.n,
            (const char *)e->xattrs[i].value.p);
    say("\n");
    return maybe_stop(err);
}

static uint64_t data_end;

static cc_error_code on_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    (void)ctx;
    if (offset != data_end || offset == 0)
        say("@%llu:", (unsigned long long)offset);
    say("%.*s", (int)n, (const char *)p);
    data_end = offset + n;
    return maybe_stop(err);
}

static cc_error_code on_end(void *ctx, cc_error *err)
{
    (void)ctx;
    say(";\n");
    data_end = 0;
    return maybe_stop(err);
}

static const struct cci_tar_ops ops = {on_entry, on_data, on_end};
static char message[500];

/* The first piece has `first` bytes, the others `step`. */
static cc_error_code read_cut(size_t n, size_t first, size_t step)
{
    static struct cci_tar t;
    cc_error err = {0};
    cc_error_code code = CC_OK;
    memset(&t, 0xa5, sizeof(t));
    seen_n = 0;
    seen[0] = '\0';
    data_end = 0;
    message[0] = '\0';
    cci_tar_init(&t, &ops, NULL);
    for (size_t at = 0, piece = first; at < n && code == CC_OK; at += piece, piece = step) {
        if (piece > n - at)
            piece = n - at;
        uint8_t *copy = malloc(piece ? piece : 1);
        if (!copy)
            abort();
        memcpy(copy, archive + at, piece);
        code = cci_tar_feed(&t, copy, piece, &err);
        free(copy);
    }
    if (code == CC_OK)
        code = cci_tar_finish(&t, &err);
    if (code != CC_OK && cci_tar_feed(&t, archive, 512, NULL) != code)
        abort(); /* errors stay */
    if (err.message)
        (void)snprintf(message, sizeof(message), "%s: %s", err.path ? err.path : "-", err.message);
    cci_error_release(&err);
    cci_tar_free(&t);
    return code;
}

static void expect(const char *want)
{
    cc_error_code code = read_cut(size, size, size);
    CHECK_EQ_STR(message, "");
    CHECK_EQ_INT(code, CC_OK);
    CHECK_EQ_STR(seen, want);
}

static void expect_error(const char *part)
{
    CHECK_EQ_INT(read_cut(size, size, size), CC_ERR_IO);
    if (!strstr(message, part))
        CHECK_EQ_STR(message, part);
}

#define LINE "640 1000 100 "
#define TIME "1675896512.000000000 "

/* Four maps of the same file: 10 bytes, "ab" at 2, "c" at 9. */
static void sparse_files(void)
{
    begin();
    uint8_t *h = header('S', "old", 3);
    memcpy(h + 386,
           "00000000002\0"
           "00000000002\0"
           "00000000011\0"
           "00000000001\0",
           48);
    memcpy(h + 483, "00000000012", 11);
    gnu(h);
    put("abc", 3);
    pad();

    h = header('S', "more", 3); /* the last region in a block behind the header; the block says there is one more */
    memcpy(h + 386,
           "00000000002\0"
           "00000000002\0",
           24);
    h[482] = 1;
    memcpy(h + 483, "00000000012", 11);
    gnu(h);
    memset(archive + size, 0, 1024);
    memcpy(archive + size,
           "00000000011\0"
           "00000000001\0",
           24);
    archive[size + 504] = 1;
    size += 1024;
    put("abc", 3);
    pad();

    record("GNU.sparse.size", "10");
    record("GNU.sparse.numblocks", "2");
    record("GNU.sparse.offset", "2");
    record("GNU.sparse.numbytes", "2");
    record("GNU.sparse.offset", "9");
    record("GNU.sparse.numbytes", "1");
    flush_pax('x');
    file("0.0", "abc");

    record("GNU.sparse.size", "10");
    record("GNU.sparse.name", "0.1");
    record("GNU.sparse.numblocks", "2");
    record("GNU.sparse.map", "2,2,9,1");
    flush_pax('x');
    file("other", "abc");

    record("GNU.sparse.major", "1");
    record("GNU.sparse.minor", "0");
    record("GNU.sparse.realsize", "10");
    record("GNU.sparse.name", "1.0");
    flush_pax('x');
    header('0', "other", 515);
    memset(archive + size, 0, 512);
    memcpy(archive + size, "2\n2\n2\n9\n1\n", 10);
    size += 512;
    put("abc", 3);
    pad();
    end();
}

#endif
