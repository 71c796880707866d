/*
 * The tar reader on archives made by hand: the formats' particulars, every cut, every truncation, and out of memory at
 * each allocation. (Against GNU tar and Python: test_tar.py.)
 */
#include "tar_blocks.h"

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
    RUN(test_ends);
    RUN(test_every_cut);
    RUN(test_every_truncation);
    RUN(test_stop);
    RUN(test_no_memory);
    return check_done();
}
