/*
 * image/tar_write.h - writes a tar: POSIX.1-2001 (pax), as GNU tar, Go's archive/tar and libarchive read it.
 *
 * An entry is a ustar header, with an extended header before it for what does not fit: long names, large numbers,
 * fractions of seconds, extended attributes (SCHILY.xattr.NAME), and holes (GNU.sparse, format 1.0: the map of the
 * regions that are stored stands before them). Equal entries give equal bytes: records have a fixed order, and nothing
 * is written that the entry does not say, such as the names of owners.
 */
#ifndef CCI_IMAGE_TAR_WRITE_H
#define CCI_IMAGE_TAR_WRITE_H

#include "layer_index.h"

/* Takes the next bytes of the tar. */
typedef cc_error_code cci_tar_sink(void *ctx, const uint8_t *p, size_t n, cc_error *err);

/* A part of a file that is stored; what lies between them are holes. */
struct cci_tar_part {
    uint64_t offset, size;
};

struct cci_tar_writer {
    cci_tar_sink *sink;
    void *ctx;
    struct cci_buf pax; /* records of the next extended header */
};

static void cci_tar_writer_free(struct cci_tar_writer *w)
{
    cci_buf_free(&w->pax);
}

/* Zeroes up to the next block, behind n bytes. */
static cc_error_code cci_tar_write_pad(const struct cci_tar_writer *w, uint64_t n, cc_error *err)
{
    static const uint8_t zeroes[512];
    size_t rest = (size_t)(-n & 511);
    return rest ? w->sink(w->ctx, zeroes, rest, err) : CC_OK;
}

/* The two blocks that end an archive. */
static cc_error_code cci_tar_write_end(const struct cci_tar_writer *w, cc_error *err)
{
    static const uint8_t zeroes[1024];
    return w->sink(w->ctx, zeroes, sizeof(zeroes), err);
}

/* Adds a record "LENGTH KEY=VALUE\n", whose length counts its own digits. */
static void cci_tar_pax_record(struct cci_tar_writer *w, const char *prefix, struct cci_view key, const void *value,
                               size_t n)
{
    char digits[24];
    size_t rest = 1 + strlen(prefix) + key.n + 1 + n + 1, length = rest + 1;
    for (size_t with = 0; with != length;) {
        with = length;
        length = rest + (size_t)snprintf(digits, sizeof(digits), "%zu", with);
    }
    (void)cci_buf_str(&w->pax, digits);
    (void)cci_buf_str(&w->pax, " ");
    (void)cci_buf_str(&w->pax, prefix);
    (void)cci_buf_add(&w->pax, key.p, key.n);
    (void)cci_buf_str(&w->pax, "=");
    (void)cci_buf_add(&w->pax, value, n);
    (void)cci_buf_str(&w->pax, "\n");
}

static void cci_tar_pax_text(struct cci_tar_writer *w, const char *key, const char *value)
{
    struct cci_view none = {NULL, 0};
    cci_tar_pax_record(w, key, none, value, strlen(value));
}

static void cci_tar_pax_number(struct cci_tar_writer *w, const char *key, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    cci_tar_pax_text(w, key, text);
}

/* A number in octal digits with a NUL behind them; one that does not fit becomes 0, and a record has it. */
static bool cci_tar_octal(uint8_t *field, size_t n, uint64_t value)
{
    bool fits = value >> (3 * (n - 1)) == 0;
    if (!fits)
        value = 0;
    for (size_t i = n - 1; i-- > 0; value >>= 3)
        field[i] = (uint8_t)('0' + (value & 7));
    return fits;
}

static void cci_tar_write_number(struct cci_tar_writer *w, uint8_t *field, size_t n, const char *key, uint64_t value)
{
    if (!cci_tar_octal(field, n, value))
        cci_tar_pax_number(w, key, value);
}

/* A name of at most 100 bytes; a longer one is cut, and a record has it. */
static void cci_tar_write_name(struct cci_tar_writer *w, uint8_t *field, const char *key, const char *name)
{
    size_t n = strlen(name);
    memcpy(field, name, CCI_MIN(n, (size_t)100));
    if (n > 100)
        cci_tar_pax_text(w, key, name);
}

static void cci_tar_write_time(struct cci_tar_writer *w, uint8_t *field, int64_t sec, uint32_t nsec)
{
    char text[40];
    bool before = sec < 0 && nsec; /* -0.25 is 1 second before 1970 and 750000000 ns after that */
    if (cci_tar_octal(field, 12, sec < 0 ? UINT64_MAX : (uint64_t)sec) && !nsec)
        return;
    (void)snprintf(text, sizeof(text), "%s%llu.%09u", sec < 0 ? "-" : "",
                   sec < 0 ? (unsigned long long)-(sec + before) : (unsigned long long)sec,
                   before ? 1000000000u - nsec : nsec);
    if (!nsec)
        *strchr(text, '.') = '\0';
    cci_tar_pax_text(w, "mtime", text);
}

static void cci_tar_write_checksum(uint8_t *h)
{
    unsigned sum = 0;
    memset(h + 148, ' ', 8);
    for (size_t i = 0; i < 512; i++)
        sum += h[i];
    (void)cci_tar_octal(h + 148, 7, sum);
    h[154] = '\0';
}

/* Writes the records that were collected as an extended header. */
static cc_error_code cci_tar_write_pax(struct cci_tar_writer *w, cc_error *err)
{
    uint8_t h[512] = {0};
    if (w->pax.failed)
        return cci_fail_nomem(err);
    if (w->pax.n == 0)
        return CC_OK;
    memcpy(h, "PaxHeaders/entry", 16);
    (void)cci_tar_octal(h + 100, 8, 0644);
    (void)cci_tar_octal(h + 108, 8, 0);
    (void)cci_tar_octal(h + 116, 8, 0);
    (void)cci_tar_octal(h + 124, 12, w->pax.n);
    (void)cci_tar_octal(h + 136, 12, 0);
    h[156] = 'x';
    memcpy(h + 257, "ustar\00000", 8);
    cci_tar_write_checksum(h);
    cc_error_code code = w->sink(w->ctx, h, sizeof(h), err);
    if (!code)
        code = w->sink(w->ctx, w->pax.p, w->pax.n, err);
    if (!code)
        code = cci_tar_write_pad(w, w->pax.n, err);
    w->pax.n = 0;
    return code;
}

/* The map of a sparse file: the count of parts, then offset and size of each, in decimal lines up to a full block. */
static void cci_tar_sparse_map(const struct cci_tar_part *parts, size_t count, struct cci_buf *out)
{
    char line[48];
    (void)snprintf(line, sizeof(line), "%zu\n", count);
    (void)cci_buf_str(out, line);
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(line, sizeof(line), "%llu\n%llu\n", (unsigned long long)parts[i].offset,
                       (unsigned long long)parts[i].size);
        (void)cci_buf_str(out, line);
    }
    (void)cci_buf_add(out, NULL, (size_t)(-out->n & 511));
}

/* Fills the header; what does not fit in it becomes records. `stored` is how many bytes follow the header. */
static void cci_tar_fill(struct cci_tar_writer *w, uint8_t *h, const struct cci_index_entry *e, uint64_t stored,
                         bool sparse)
{
    static const char flags[] = {
        [CCI_INDEX_FILE] = '0', [CCI_INDEX_DIR] = '5',      [CCI_INDEX_SYMLINK] = '2', [CCI_INDEX_CHAR] = '3',
        [CCI_INDEX_FIFO] = '6', [CCI_INDEX_BLOCKDEV] = '4', [CCI_INDEX_HARDLINK] = '1'};
    struct cci_index_xattr x;
    char path[CCI_INDEX_MAX_PATH + 4];
    (void)snprintf(path, sizeof(path), "%s%s", e->path[0] ? e->path : ".", e->type == CCI_INDEX_DIR ? "/" : "");
    if (sparse) {
        cci_tar_pax_text(w, "GNU.sparse.major", "1");
        cci_tar_pax_text(w, "GNU.sparse.minor", "0");
        cci_tar_pax_text(w, "GNU.sparse.name", path);
        cci_tar_pax_number(w, "GNU.sparse.realsize", e->size);
        (void)snprintf(path, sizeof(path), "GNUSparseFile.0/entry");
    }
    cci_tar_write_name(w, h, "path", path);
    (void)cci_tar_octal(h + 100, 8, e->mode);
    cci_tar_write_number(w, h + 108, 8, "uid", e->uid);
    cci_tar_write_number(w, h + 116, 8, "gid", e->gid);
    cci_tar_write_number(w, h + 124, 12, "size", stored);
    cci_tar_write_time(w, h + 136, e->mtime_sec, e->mtime_nsec);
    h[156] = (uint8_t)flags[e->type];
    cci_tar_write_name(w, h + 157, "linkpath", e->target);
    memcpy(h + 257, "ustar\00000", 8);
    (void)cci_tar_octal(h + 329, 8, e->major);
    (void)cci_tar_octal(h + 337, 8, e->minor);
    for (struct cci_view v = e->xattrs; cci_index_take_xattr(&v, &x);) {
        struct cci_view name = {(const uint8_t *)x.name, x.name_len};
        cci_tar_pax_record(w, "SCHILY.xattr.", name, x.value, x.value_len);
    }
    cci_tar_write_checksum(h);
}

/*
 * Begins an entry that a tar can hold (no whiteout, no socket). The contents of a file come next, through the sink and
 * padded by cci_tar_write_pad: e->size bytes; or, when `parts` is not NULL, the parts, which the rest are holes
 * between.
 */
static cc_error_code cci_tar_write_entry(struct cci_tar_writer *w, const struct cci_index_entry *e,
                                         const struct cci_tar_part *parts, size_t count, cc_error *err)
{
    uint8_t h[512] = {0};
    struct cci_buf map = {NULL, 0, 0, false};
    uint64_t stored = e->size;
    if (parts) {
        cci_tar_sparse_map(parts, count, &map);
        stored = map.n;
        for (size_t i = 0; i < count; i++)
            stored += parts[i].size;
    }
    cci_tar_fill(w, h, e, stored, parts != NULL);
    cc_error_code code = map.failed ? cci_fail_nomem(err) : cci_tar_write_pax(w, err);
    if (!code)
        code = w->sink(w->ctx, h, sizeof(h), err);
    if (!code && map.n)
        code = w->sink(w->ctx, map.p, map.n, err);
    cci_buf_free(&map);
    return code;
}

#endif
