// @flags -lcrypto
/*
 * SHA-256: the vectors of FIPS 180-4, and each version this processor can run against OpenSSL on random data, lengths
 * and cuts. (The ARM version: test_codec_arm.sh.)
 */
#include <openssl/evp.h>

#include "../../src/image/sha256.h"
#include "../check.h"

static uint64_t rng_state = 1;

static uint32_t rng(void)
{
    rng_state = rng_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(rng_state >> 33);
}

static void hex_of(cci_sha256_blocks *blocks, const char *text, size_t repeat, char out[65])
{
    struct cci_sha256 h;
    uint8_t digest[32];
    cci_sha256_init(&h);
    if (blocks)
        h.blocks = blocks;
    for (size_t i = 0; i < repeat; i++)
        cci_sha256_update(&h, text, strlen(text));
    cci_sha256_final(&h, digest);
    cci_sha256_hex(digest, out);
}

static void test_vectors(void)
{
    cci_sha256_blocks *versions[] = {NULL, cci_sha256_portable};
    char hex[65];
    for (size_t i = 0; i < 2; i++) {
        hex_of(versions[i], "", 1, hex);
        CHECK_EQ_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        hex_of(versions[i], "abc", 1, hex);
        CHECK_EQ_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        hex_of(versions[i], "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, hex);
        CHECK_EQ_STR(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        hex_of(versions[i], "aaaaaaaaaa", 100000, hex);
        CHECK_EQ_STR(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

/* n bytes in cuts of at most `most`, each from an exact allocation. */
static void digest_in_cuts(cci_sha256_blocks *blocks, const uint8_t *p, size_t n, size_t most, uint8_t digest[32])
{
    struct cci_sha256 h;
    memset(&h, 0xa5, sizeof(h));
    cci_sha256_init(&h);
    h.blocks = blocks;
    while (n > 0) {
        size_t part = rng() % (most + 1);
        if (part > n)
            part = n;
        uint8_t *copy = malloc(part ? part : 1);
        if (!copy)
            abort();
        memcpy(copy, p, part);
        cci_sha256_update(&h, copy, part);
        free(copy);
        p += part;
        n -= part;
    }
    cci_sha256_final(&h, digest);
}

static void check_against_openssl(cci_sha256_blocks *blocks)
{
    static uint8_t data[70000];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)rng();
    for (unsigned round = 0; round < 3000; round++) {
        size_t n = round < 300 ? round : rng() % (round % 10 ? 1000 : sizeof(data));
        size_t at = rng() % (sizeof(data) - n);
        uint8_t ours[32], theirs[32];
        digest_in_cuts(blocks, data + at, n, round % 3 ? n + 1 : 100, ours);
        CHECK(EVP_Digest(data + at, n, theirs, NULL, EVP_sha256(), NULL));
        CHECK(memcmp(ours, theirs, 32) == 0);
    }
}

static void test_portable(void)
{
    check_against_openssl(cci_sha256_portable);
}

static void test_native(void)
{
    if (!(cci_cpu_features() & CCI_CPU_SHA256)) {
        SKIP(test_native_instructions, "this processor has no SHA-256 instructions");
        return;
    }
    struct cci_sha256 h;
    cci_sha256_init(&h);
    CHECK(h.blocks == cci_sha256_native); /* chosen by itself */
    check_against_openssl(cci_sha256_native);
}

/* More than 2^32 bits: the size in the last block needs both of its words. */
static void test_long(void)
{
    static uint8_t zeros[1 << 20];
    struct cci_sha256 h;
    uint8_t digest[32];
    char hex[65];
    cci_sha256_init(&h);
    for (int i = 0; i < 513; i++)
        cci_sha256_update(&h, zeros, sizeof(zeros));
    cci_sha256_final(&h, digest);
    cci_sha256_hex(digest, hex);
    CHECK_EQ_STR(hex, "a3e2acbb469e4e59dde406f912e754c933c1ac0fb0092a3634d61d5073309c0c");
}

int main(void)
{
    RUN(test_vectors);
    RUN(test_portable);
    RUN(test_native);
    RUN(test_long);
    return check_done();
}
