/*
 * The tar reader on archives made by hand, block by block: every format's particulars, every limit, every kind of
 * damage, cut everywhere, and out of memory at each allocation. (Against GNU tar and Python: test_tar.py.)
 */
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

/* ---- Tests ---- */

static void test_types(void)
{
    begin();
    file("a", "hello");
    header('0', "empty", 0);
    memcpy(header('1', "hard", 5) + 157, "a", 1); /* with a size, but no data */
    fix_checksum(archive + size - 512);
    memcpy(header('2', "soft", 0) + 157, "../a", 4);
    fix_checksum(archive + size - 512);
    memcpy(header('3', "null", 0) + 329,
           "0000001\0"
           "0000003",
           16);
    fix_checksum(archive + size - 512);
    memcpy(header('4', "disk", 0) + 329,
           "0007777\0"
           "3777777",
           16);
    fix_checksum(archive + size - 512);
    header('5', "dir/", 0);
    header('6', "fifo", 0);
    file("b", "x");
    archive[size - 1024 + 156] = '7';
    fix_checksum(archive + size - 1024);
    end();
    put("garbage behind the end", 22);
    expect("f " LINE "5 " TIME "a\n@0:hello;\n"
           "f " LINE "0 " TIME "empty\n;\n"
           "h " LINE "0 " TIME "hard -> a\n;\n"
           "l " LINE "0 " TIME "soft -> ../a\n;\n"
           "c " LINE "0 " TIME "null 1:3\n;\n"
           "b " LINE "0 " TIME "disk 4095:1048575\n;\n"
           "d " LINE "0 " TIME "dir/\n;\n"
           "p " LINE "0 " TIME "fifo\n;\n"
           "f " LINE "1 " TIME "b\n@0:x;\n");
}

static void test_old_formats(void)
{
    begin();
    uint8_t *h = header(0, "v7", 0);
    memset(h + 257, 'x', 255); /* nothing here means anything */
    fix_checksum(h);
    h = header(0, "v7dir/", 512); /* a directory by its name only; has no data */
    memset(h + 257, 0, 255);
    fix_checksum(h);
    h = header('0', "name", 0);
    memcpy(h + 345, "some/prefix", 11);
    fix_checksum(h);
    h = header('0', "star", 0);
    memset(h + 345, 'p', 131);
    memcpy(h + 476, "00000000000 00000000000 ", 24);
    memcpy(h + 508, "tar", 4);
    fix_checksum(h);
    h = header('0', "", 0);
    memset(h, 'n', 100);
    memset(h + 345, 'q', 155);
    fix_checksum(h);
    end();
    char want[1000];
    (void)snprintf(want, sizeof(want),
                   "f " LINE "0 " TIME "v7\n;\nd " LINE "0 " TIME "v7dir/\n;\nf " LINE "0 " TIME
                   "some/prefix/name\n;\nf " LINE "0 " TIME "%.131s/star\n;\nf " LINE "0 " TIME "%.155s/%.100s\n;\n",
                   (const char *)archive + 3 * 512 + 345, (const char *)archive + 4 * 512 + 345,
                   (const char *)archive + 4 * 512);
    expect(want);
}

static void test_gnu_format(void)
{
    begin();
    uint8_t *h = header('0', "times", 0);
    memcpy(h + 345,
           "00000000012\0"
           "00000000013",
           24);
    gnu(h);
    h = header('0', "not-times", 0); /* Go before 1.9 */
    memcpy(h + 345, "pre/fix", 7);
    gnu(h);
    h = header('0', "large", 0);
    memcpy(h + 108, "\x80\0\0\0\xff\xff\xff\xff", 8);
    memcpy(h + 116, "\x80\0\0\0\0\1\0\0", 8);
    memset(h + 136, 0xff, 12);
    h[147] = 0xfe;
    gnu(h);
    payload('L', "a very long path", 17);
    payload('K', "a very long target", 18); /* without NUL */
    memcpy(header('2', "short", 0) + 157, "short", 5);
    fix_checksum(archive + size - 512);
    header('0', "after", 0);
    payload('V', "label", 5);
    payload('D', "Yname", 5);
    end();
    expect("f " LINE "0 " TIME "times a=10.000000000 c=11.000000000\n;\n"
           "f " LINE "0 " TIME "pre/fix/not-times\n;\n"
           "f 640 4294967295 65536 0 -2.000000000 large\n;\n"
           "l " LINE "0 " TIME "a very long path -> a very long target\n;\n"
           "f " LINE "0 " TIME "after\n;\n"
           "d " LINE "0 " TIME "extended\n;\n");
}

static void test_numbers(void)
{
    static const struct {
        const char *field;
        size_t n;
        long long value;
        bool good;
    } cases[] = {
        {"00000644", 8, 0644, true},
        {"   644 \0", 8, 0644, true},
        {"644\0junk", 8, 0644, true},
        {"        ", 8, 0, true},
        {"\0\0\0\0\0\0\0\0", 8, 0, true},
        {"0000008 ", 8, 0, false},
        {"644 junk", 8, 0, false},
        {"-0000644", 8, 0, false},
        {"\0\0 0644 ", 8, 0644, true},
        {"\x80\0\0\0\0\0\1\2", 8, 258, true},
        {"\xff\xff\xff\xff\xff\xff\xff\xff", 8, -1, true},
        {"\xc0\0\0\0\0\0\0\0", 8, -(1ll << 62), true},
        {"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12, INT64_MAX, true},
        {"\x80\0\0\0\x80\0\0\0\0\0\0\0", 12, 0, false},
        {"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", 12, INT64_MIN, true},
        {"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 12, 0, false},
        {"777777777777", 12, 0777777777777, true},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        int64_t value = 0;
        bool good = cci_tar_number((const uint8_t *)cases[i].field, cases[i].n, &value);
        CHECK_EQ_INT(good, cases[i].good);
        CHECK_EQ_INT(good ? value : 0, cases[i].value);
    }
}

static void test_times(void)
{
    static const struct {
        const char *text;
        bool good;
        long long sec;
        unsigned nsec;
    } cases[] = {
        {"0", true, 0, 0},
        {"1.5", true, 1, 500000000},
        {"1.", true, 1, 0},
        {"1.0000000019", true, 1, 1},
        {"1.123456789123456789", true, 1, 123456789},
        {"-1", true, -1, 0},
        {"-1.5", true, -2, 500000000},
        {"-0.25", true, -1, 750000000},
        {"-0.9999999999", true, -1, 0},
        {"4611686018427387903", true, 4611686018427387903, 0},
        {"-4611686018427387903.9999999999", true, -4611686018427387904, 0},
        {"9223372036854775807", false, 0, 0},
        {"99999999999999999999", false, 0, 0},
        {"", false, 0, 0},
        {"-", false, 0, 0},
        {".5", false, 0, 0},
        {"1.x", false, 0, 0},
        {"1.5.5", false, 0, 0},
        {"+1", false, 0, 0},
        {"1e5", false, 0, 0},
    };
    for (size_t i = 0; i < CCI_COUNT(cases); i++) {
        struct cci_view text = {(const uint8_t *)cases[i].text, strlen(cases[i].text)};
        struct cci_tar_time time = {0, 0};
        CHECK_EQ_INT(cci_tar_decimal_time(text, &time), cases[i].good);
        if (cases[i].good) {
            CHECK_EQ_INT(time.sec, cases[i].sec);
            CHECK_EQ_INT(time.nsec, cases[i].nsec);
        }
    }
}

static void test_checksums(void)
{
    begin();
    uint8_t *h = header('0',
                        "\xfc"
                        "ber",
                        0);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? 32u : (unsigned)(int)(int8_t)h[i];
    (void)snprintf((char *)h + 148, 8, "%06o", sum); /* signed */
    end();
    expect("f " LINE "0 " TIME "\xfc"
           "ber\n;\n");
    h[0]++;
    expect_error("checksum");
}

static void test_pax(void)
{
    begin();
    record("comment", "nothing");
    record("path", "first");
    record("path", "the/path");
    record("linkpath", "the target");
    record("uid", "4000000000");
    record("gid", "0");
    record("mtime", "1.25");
    record("atime", "-1.25");
    record("ctime", "3");
    record("hdrcharset", "BINARY");
    record("SCHILY.xattr.user.a", "1");
    record("SCHILY.xattr.user.b", "=x\n");
    record("SCHILY.xattr.user.a", "2");
    record("SCHILY.xattr.user.empty", "");
    record("LIBARCHIVE.xattr.user.a", "bm8=");
    record("LIBARCHIVE.xattr.user%2Ec%25", "YmFzZTY0");
    flush_pax('x');
    header('2', "short", 0);
    file("next", "x");
    record("size", "3");
    record("uid", "5");
    record("uid", ""); /* taken back */
    flush_pax('x');
    header('0', "sized", 0);
    put("abc", 3);
    pad();
    end();
    expect("l 640 4000000000 0 0 1.250000000 the/path -> the target a=-2.750000000 c=3.000000000 user.a=2 user.b==x\n "
           "user.empty= user.c%=base64\n;\n"
           "f " LINE "1 " TIME "next\n@0:x;\n"
           "f " LINE "3 " TIME "sized\n@0:abc;\n");
}

static void test_pax_global(void)
{
    begin();
    record("uid", "1");
    record("gid", "2");
    record("SCHILY.xattr.user.g", "global");
    flush_pax('g');
    header('0', "a", 0);
    record("gid", "3");
    record("SCHILY.xattr.user.g", "local");
    flush_pax('x');
    header('0', "b", 0);
    record("uid", "");
    record("LIBARCHIVE.xattr.user.h", "aA");
    flush_pax('g');
    header('0', "c", 0);
    header('0', "d", 0);
    end();
    expect("f 640 1 2 0 " TIME "a user.g=global\n;\n"
           "f 640 1 3 0 " TIME "b user.g=local\n;\n"
           "f 640 1000 2 0 " TIME "c user.g=global user.h=h\n;\n"
           "f 640 1000 2 0 " TIME "d user.g=global user.h=h\n;\n");
}

static void test_pax_damage(void)
{
    static const char *const bad[] = {"x",
                                      "5",
                                      "5 a=b\n",
                                      "7 a=b\n",
                                      "6 a=b",
                                      "6 a=bc",
                                      "6 =bcd\n",
                                      "6 abc\n",
                                      " 6 a=b\n",
                                      "-6 a=b\n",
                                      "06 a=bb",
                                      "99999999999999999999999 a=b\n",
                                      "18446744073709551622 a=b\n",
                                      "0 a=b\n",
                                      "3 \n",
                                      "6 a=b\n\0"};
    for (size_t i = 0; i < CCI_COUNT(bad); i++) {
        begin();
        payload('x', bad[i], strlen(bad[i]) + (i == CCI_COUNT(bad) - 1));
        header('0', "f", 0);
        end();
        expect_error("damaged extended header");
    }
    static const char *const values[][3] = {
        {"uid", "-1", "number"},
        {"uid", "4294967296", "out of range"},
        {"gid", "1x", "number"},
        {"size", "9223372036854775808", "number"},
        {"mtime", "soon", "time"},
        {"LIBARCHIVE.xattr.a", "?", "encoding"},
        {"LIBARCHIVE.xattr.%zz", "aa", "encoding"},
        {"LIBARCHIVE.xattr.a%2", "aa", "encoding"},
        {"GNU.sparse.map", "1,2,x", "sparse"},
        {"GNU.sparse.map", "1", "sparse"},
        {"GNU.sparse.numbytes", "1", "sparse"},
        {"GNU.sparse.major", "2", "unknown version"},
        {"GNU.sparse.minor", "2", "unknown version"},
    };
    for (size_t i = 0; i < CCI_COUNT(values); i++) {
        begin();
        record(values[i][0], values[i][1]);
        flush_pax('x');
        header('0', "f", 0);
        end();
        expect_error(values[i][2]);
    }
    begin();
    record_bytes("path", "a\0b", 3);
    flush_pax('x');
    header('0', "f", 0);
    expect_error("NUL");
}

static void test_limits(void)
{
    static char big[70000];
    memset(big, 'a', sizeof(big));
    begin();
    record_bytes("SCHILY.xattr.user.big", big, 65536);
    flush_pax('x');
    header('0', "f", 0);
    end();
    CHECK_EQ_INT(read_cut(size, 1000, 1000), CC_OK);
    begin();
    record_bytes("SCHILY.xattr.user.big", big, 65537);
    flush_pax('x');
    header('0', "f", 0);
    expect_error("attribute too large");

    for (int n = 256; n <= 257; n++) {
        begin();
        for (int i = 0; i < n; i++) {
            char key[50];
            (void)snprintf(key, sizeof(key), "SCHILY.xattr.user.%d", i);
            record(key, "v");
        }
        flush_pax('x');
        header('0', "f", 0);
        end();
        if (n == 256)
            CHECK_EQ_INT(read_cut(size, size, size), CC_OK);
        else
            expect_error("too many extended attributes");
    }

    begin();
    record_bytes("path", big, 65535);
    flush_pax('x');
    header('0', "f", 0);
    end();
    CHECK_EQ_INT(read_cut(size, size, size), CC_OK);
    begin();
    record_bytes("path", big, 65536);
    flush_pax('x');
    header('0', "f", 0);
    expect_error("path too long");
    begin();
    payload('L', big, 65537);
    expect_error("extended header too large");
    begin();
    header('x', "x", (1u << 20) + 1);
    expect_error("extended header too large");
    begin();
    for (int i = 0; i < 2; i++) {
        record_bytes("comment", big, 40000);
        flush_pax('g');
    }
    expect_error("extended header too large");

    begin();
    header('0', "", 0);
    expect_error("without a path");
    begin();
    header('2', "l", 0);
    expect_error("without a target");
    begin();
    header('Q', "strange", 0);
    expect_error("strange: unknown type of entry (flag 0x51)");
    begin();
    memcpy(header('3', "dev", 0) + 329, "0010000", 7);
    fix_checksum(archive);
    expect_error("device number");
    begin();
    memcpy(header('0', "f", 0) + 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
    fix_checksum(archive);
    expect_error("invalid size");
    begin();
    memcpy(header('0', "f", 0) + 124, "\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12); /* 2^63-1: only too short */
    fix_checksum(archive);
    expect_error("f: unexpected end");
}

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

static const char sparse_want[] = "f " LINE "10 " TIME "old\n@2:ab@9:c;\n"
                                  "f " LINE "10 " TIME "more\n@2:ab@9:c;\n"
                                  "f " LINE "10 " TIME "0.0\n@2:ab@9:c;\n"
                                  "f " LINE "10 " TIME "0.1\n@2:ab@9:c;\n"
                                  "f " LINE "10 " TIME "1.0\n@2:ab@9:c;\n";

static void test_sparse(void)
{
    sparse_files();
    expect(sparse_want);
    for (size_t step = 1; step < 600; step += 37) {
        CHECK_EQ_INT(read_cut(size, step, step), CC_OK);
        CHECK_EQ_STR(seen, sparse_want);
    }
}

static void test_sparse_damage(void)
{
    static const char *const maps[] = {"2,2,3,1", "9,1,2,2",   "2,2,10,1",
                                       "2,2,9,2", "2,2",       "2,4",
                                       "11,0",    "2,2,9,1,9", "9223372036854775807,9223372036854775807"};
    for (size_t i = 0; i < CCI_COUNT(maps); i++) {
        begin();
        record("GNU.sparse.size", "10");
        record("GNU.sparse.map", maps[i]);
        flush_pax('x');
        file("f", "abc");
        expect_error("invalid sparse file map");
    }
    static const char *const lines[] = {"x\n",
                                        "1\n2\n2\n",
                                        "1\n0\n-3\n",
                                        "\n",
                                        "1\n\n",
                                        "262145\n",
                                        "99999999999999999999\n",
                                        "1\n000000000000000000000000\n"};
    for (size_t i = 0; i < CCI_COUNT(lines); i++) {
        begin();
        record("GNU.sparse.major", "1");
        record("GNU.sparse.minor", "0");
        record("GNU.sparse.realsize", "10");
        flush_pax('x');
        file("f", lines[i]);
        expect_error("sparse file");
    }
    /* A map that wants more regions than anyone gets. */
    begin();
    uint8_t *h = header('S', "f", 0);
    h[482] = 1;
    gnu(h);
    for (int i = 0; i < 262144 / 21 + 2; i++) {
        memset(archive + size, 0, 512);
        for (int k = 0; k < 21; k++)
            memcpy(archive + size + 24 * k,
                   "00000000000\0"
                   "00000000000",
                   24);
        archive[size + 504] = 1;
        size += 512;
    }
    expect_error("too many regions");
}

static void test_ends(void)
{
    begin();
    expect(""); /* nothing at all, as an empty layer sometimes is */
    file("a", "x");
    expect("f " LINE "1 " TIME "a\n@0:x;\n"); /* no zeros at the end */
    memset(archive + size, 0, 512);
    size += 512;
    expect("f " LINE "1 " TIME "a\n@0:x;\n"); /* one block of them */
    file("b", "x");
    expect_error("block of zeros between");
    begin();
    payload('L', "name", 4);
    end();
    expect_error("extended header without an entry");
}

/* Everything at once: cut everywhere, and truncated everywhere. */
static void mixed(void)
{
    sparse_files();
    size -= 1024;
    record("SCHILY.xattr.user.a", "1");
    flush_pax('g');
    file("plain", "data");
    record("LIBARCHIVE.xattr.user.b", "Yg==");
    flush_pax('x');
    payload('L', "long", 5);
    payload('K', "target", 6);
    header('2', "l", 0);
    payload('D', "Yx", 3);
    end();
}

static void test_every_cut(void)
{
    mixed();
    CHECK_EQ_INT(read_cut(size, size, size), CC_OK);
    char *want = malloc(seen_n + 1);
    CHECK(want != NULL);
    memcpy(want, seen, seen_n + 1);
    for (size_t first = 0; first <= size; first++) {
        CHECK_EQ_INT(read_cut(size, first, size), CC_OK);
        CHECK_EQ_STR(seen, want);
    }
    CHECK_EQ_INT(read_cut(size, 1, 1), CC_OK);
    CHECK_EQ_STR(seen, want);
    free(want);
}

static void test_every_truncation(void)
{
    size_t good = 0;
    mixed();
    for (size_t n = 0; n < size; n++) {
        cc_error_code code = read_cut(n, n, n);
        if (code == CC_OK) {
            CHECK_EQ_INT(n % 512, 0);
            CHECK(seen_n == 0 || strcmp(seen + seen_n - 2, ";\n") == 0);
            good++;
        } else {
            CHECK_EQ_INT(code, CC_ERR_IO);
            CHECK(strstr(message, "unexpected end") != NULL);
        }
    }
    CHECK_EQ_INT(good, 11); /* at the start, behind 8 entries and the global header, between the zeros */
}

/* A caller that stops gets its own error back, whenever it stops. */
static void test_stop(void)
{
    sparse_files();
    for (size_t i = 1; i <= 10 + 10; i++) {
        stop_after = i;
        CHECK_EQ_INT(read_cut(size, size, size), CC_ERR_CANCELLED);
        CHECK_EQ_STR(message, "-: enough");
    }
    stop_after = 0;
}

static size_t allocations_left;

static void *failing_alloc(void *ctx, void *old, size_t n)
{
    if (n && allocations_left-- == 0) {
        allocations_left = 0;
        return NULL;
    }
    return cci_mem_default_alloc(ctx, old, n);
}

static void test_no_memory(void)
{
    mixed();
    cci_mem_hook.realloc_fn = failing_alloc;
    size_t n = 0;
    cc_error_code code;
    do {
        allocations_left = n++;
        code = read_cut(size, 100, 100);
    } while (code != CC_OK && n < 1000);
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK_EQ_INT(code, CC_OK);
    CHECK(n > 5);
}

int main(void)
{
    RUN(test_types);
    RUN(test_old_formats);
    RUN(test_gnu_format);
    RUN(test_numbers);
    RUN(test_times);
    RUN(test_checksums);
    RUN(test_pax);
    RUN(test_pax_global);
    RUN(test_pax_damage);
    RUN(test_limits);
    RUN(test_sparse);
    RUN(test_sparse_damage);
    RUN(test_ends);
    RUN(test_every_cut);
    RUN(test_every_truncation);
    RUN(test_stop);
    RUN(test_no_memory);
    return check_done();
}
