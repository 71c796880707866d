/*
 * tar_dump [STEP [names]] < ARCHIVE: what our reader sees, one line an entry, for test_tar.py to compare:
 *
 *   type mode uid gid size sec.nsec major,minor path link SHA-256-of-contents xattr=value...
 *
 * Strings are percent-encoded; the contents are those of the whole file, holes as zeros. STEP is the size of the
 * pieces it reads in; with "names" the contents are left out. Ends with 1 and "error: ..." on an error.
 */
#include <inttypes.h>

#include "../../src/image/sha256.h"
#include "../../src/image/tar.h"

struct dump {
    struct cci_sha256 hash;
    uint64_t at; /* of the contents */
    uint64_t size;
    bool hash_file;
    bool names_only;
    struct cci_buf xattrs;
};

static void print_string(FILE *f, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] > 32 && p[i] < 127 && p[i] != '%' && p[i] != '=')
            fputc(p[i], f);
        else
            fprintf(f, "%%%02x", p[i]);
    }
    if (n == 0)
        fputc('-', f);
}

static void zeros(struct dump *d, uint64_t n)
{
    static const uint8_t zero[65536];
    for (; n > 0; n -= n < sizeof(zero) ? n : sizeof(zero))
        cci_sha256_update(&d->hash, zero, n < sizeof(zero) ? (size_t)n : sizeof(zero));
}

static cc_error_code on_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    struct dump *d = ctx;
    (void)err;
    printf("%c %o %u %u %" PRIu64 " %" PRId64 ".%09u %u,%u ", "fdlhcbp"[e->type], e -> mode, e -> uid, e -> gid,
           e -> size, e -> mtime.sec, e->mtime.nsec, e->major, e->minor);
    print_string(stdout, e->path.p, e->path.n);
    putchar(' ');
    if (e->type == CCI_TAR_SYMLINK || e->type == CCI_TAR_HARDLINK)
        print_string(stdout, e->link.p, e->link.n);
    else
        putchar('-');
    cci_sha256_init(&d->hash);
    d->at = 0;
    d->size = e->size;
    d->hash_file = e->type == CCI_TAR_FILE && !d->names_only;
    d->xattrs.n = 0;
    for (size_t i = 0; i < e->nxattrs; i++) {
        static const char digits[] = "0123456789abcdef";
        (void)cci_buf_str(&d->xattrs, " ");
        (void)cci_buf_add(&d->xattrs, e->xattrs[i].name.p, e->xattrs[i].name.n);
        (void)cci_buf_str(&d->xattrs, "=");
        for (size_t k = 0; k < e->xattrs[i].value.n; k++) {
            (void)cci_buf_add(&d->xattrs, &digits[e->xattrs[i].value.p[k] >> 4], 1);
            (void)cci_buf_add(&d->xattrs, &digits[e->xattrs[i].value.p[k] & 15], 1);
        }
    }
    return CC_OK;
}

static cc_error_code on_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    struct dump *d = ctx;
    if (offset < d->at || n == 0 || offset + n > d->size)
        return cci_fail(err, CC_ERR_UNKNOWN, NULL, "data out of order");
    if (d->hash_file) {
        zeros(d, offset - d->at);
        cci_sha256_update(&d->hash, p, n);
    }
    d->at = offset + n;
    return CC_OK;
}

static cc_error_code on_end(void *ctx, cc_error *err)
{
    struct dump *d = ctx;
    uint8_t digest[32];
    char hex[65] = "-";
    (void)err;
    if (d->hash_file) {
        zeros(d, d->size - d->at);
        cci_sha256_final(&d->hash, digest);
        cci_sha256_hex(digest, hex);
    }
    printf(" %s", hex);
    if (d->xattrs.n)
        fwrite(d->xattrs.p, 1, d->xattrs.n, stdout);
    putchar('\n');
    return CC_OK;
}

int main(int argc, char **argv)
{
    static const struct cci_tar_ops ops = {on_entry, on_data, on_end};
    static struct cci_tar tar;
    static struct dump dump;
    cc_error err = {0};
    size_t step = argc > 1 ? (size_t)atol(argv[1]) : 65536, n;
    uint8_t *piece = malloc(step ? step : 1);
    cc_error_code code = CC_OK;
    if (!piece)
        return 2;
    dump.names_only = argc > 2;
    cci_tar_init(&tar, &ops, &dump);
    while (code == CC_OK && (n = fread(piece, 1, step, stdin)) > 0)
        code = cci_tar_feed(&tar, piece, n, &err);
    if (code == CC_OK)
        code = cci_tar_finish(&tar, &err);
    if (code != CC_OK)
        printf("error: %s: %s\n", err.path ? err.path : "-", err.message);
    cci_error_release(&err);
    cci_tar_free(&tar);
    cci_buf_free(&dump.xattrs);
    free(piece);
    return code == CC_OK ? 0 : 1;
}
