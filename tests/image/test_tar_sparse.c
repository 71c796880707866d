/* The tar reader on sparse files made by hand: GNU's five forms, and how each may be damaged. */
#include "tar_blocks.h"

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

int main(void)
{
    RUN(test_sparse);
    RUN(test_sparse_damage);
    return check_done();
}
