/* The tar reader on pax records made by hand: what they change, how they may be damaged, and every limit. */
#include "tar_blocks.h"

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

static char big[70000]; /* letters */

/* What is begun, with one file behind it, is read. */
static void expect_read(void)
{
    header('0', "f", 0);
    end();
    CHECK_EQ_INT(read_cut(size, size, size), CC_OK);
}

static void test_attribute_limits(void)
{
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
        if (n == 256) {
            expect_read();
        } else {
            header('0', "f", 0);
            expect_error("too many extended attributes");
        }
    }
}

static void test_header_limits(void)
{
    begin();
    record_bytes("path", big, 65535);
    flush_pax('x');
    expect_read();
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
}

static void test_strange_headers(void)
{
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

int main(void)
{
    RUN(test_pax);
    RUN(test_pax_global);
    RUN(test_pax_damage);
    memset(big, 'a', sizeof(big));
    RUN(test_attribute_limits);
    RUN(test_header_limits);
    RUN(test_strange_headers);
    return check_done();
}
