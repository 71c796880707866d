/*
 * The tar reader on any bytes, whole and in small pieces: the same entries, data and result. What it promises of
 * entries is checked as well. Blocks that look like headers get their checksum put right, so that a changed one still
 * counts.
 */
#include <stdlib.h>

#include "../../src/image/tar.h"

/* A summary of all that happened. */
struct trace {
    uint64_t hash;
    uint64_t at, size, stored;
    bool open, file;
};

static void note(struct trace *t, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        t->hash = (t->hash ^ b[i]) * UINT64_C(0x100000001b3);
}

static void expect(bool cond)
{
    if (!cond)
        abort();
}

static void check_string(struct trace *t, struct cci_view s, bool wanted)
{
    expect(s.n <= CCI_TAR_MAX_PATH && (s.n > 0 || !wanted));
    expect(s.n == 0 || !memchr(s.p, 0, s.n));
    note(t, s.p, s.n);
}

static cc_error_code on_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    struct trace *t = ctx;
    uint64_t end = 0, sum = 0;
    (void)err;
    expect(!t->open);
    check_string(t, e->path, true);
    check_string(t, e->link, e->type == CCI_TAR_SYMLINK || e->type == CCI_TAR_HARDLINK);
    expect(e->mode <= 07777 && e->mtime.nsec < 1000000000 && e->major <= 0xfff && e->minor <= 0xfffff);
    expect(e->size <= INT64_MAX && e->stored <= e->size && (e->type == CCI_TAR_FILE || e->size == 0));
    expect(e->sparse || e->stored == e->size);
    for (size_t i = 0; i < e->nregions; i++) {
        expect(e->regions[i].offset >= end && e->regions[i].size <= e->size);
        end = e->regions[i].offset + e->regions[i].size;
        sum += e->regions[i].size;
    }
    expect(end <= e->size && (!e->sparse || sum == e->stored));
    for (size_t i = 0; i < e->nxattrs; i++) {
        note(t, e->xattrs[i].name.p, e->xattrs[i].name.n);
        note(t, e->xattrs[i].value.p, e->xattrs[i].value.n);
        for (size_t k = 0; k < i; k++)
            expect(e->xattrs[i].name.n != e->xattrs[k].name.n ||
                   memcmp(e->xattrs[i].name.p, e->xattrs[k].name.p, e->xattrs[k].name.n) != 0);
    }
    uint64_t numbers[] = {(uint64_t)e->type,      e->mode,       e->uid,   e->gid,   e->size,
                          (uint64_t)e->mtime.sec, e->mtime.nsec, e->major, e->minor, e->nregions};
    note(t, numbers, sizeof(numbers));
    t->open = true;
    t->at = 0;
    t->size = e->size;
    t->stored = e->stored;
    return CC_OK;
}

static cc_error_code on_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    struct trace *t = ctx;
    (void)err;
    expect(t->open && n > 0 && n <= t->stored && offset >= t->at && offset + n <= t->size);
    t->at = offset + n;
    t->stored -= n;
    note(t, p, n);
    return CC_OK;
}

static cc_error_code on_end(void *ctx, cc_error *err)
{
    struct trace *t = ctx;
    (void)err;
    expect(t->open && t->stored == 0);
    t->open = false;
    return CC_OK;
}

static uint64_t read_in_steps(const uint8_t *p, size_t n, size_t step)
{
    static const struct cci_tar_ops ops = {on_entry, on_data, on_end};
    static struct cci_tar tar;
    struct trace t = {0};
    cc_error err = {0};
    cc_error_code code = CC_OK;
    memset(&tar, 0xa5, sizeof(tar));
    cci_tar_init(&tar, &ops, &t);
    for (size_t at = 0; at < n && code == CC_OK; at += step)
        code = cci_tar_feed(&tar, p + at, step < n - at ? step : n - at, &err);
    if (code == CC_OK)
        code = cci_tar_finish(&tar, &err);
    expect((code == CC_OK) == (err.message == NULL));
    cci_error_release(&err);
    cci_tar_free(&tar);
    note(&t, &code, sizeof(code));
    return t.hash;
}

static void fix_checksums(uint8_t *p, size_t n)
{
    for (; n >= 512; p += 512, n -= 512) {
        uint32_t sum = 0;
        if (memcmp(p + 257, "ustar", 5) != 0)
            continue;
        memset(p + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
            sum += p[i];
        for (size_t i = 6; i-- > 0; sum >>= 3)
            p[148 + i] = (uint8_t)('0' + (sum & 7));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    fix_checksums(copy, size);
    expect(read_in_steps(copy, size, size + 1) == read_in_steps(copy, size, 1 + size % 97));
    free(copy);
    return 0;
}
