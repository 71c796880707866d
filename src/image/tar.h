/*
 * image/tar.h - reader of tar archives, pushed and bounded.
 *
 * The archive comes in pieces of any size; for each entry the caller's functions get what it is, its data as they
 * pass (never copied), and its end. Formats: Version 7, POSIX ustar and pax (tar_pax.h), star's prefix, and GNU's long
 * names, large numbers and sparse files (tar_sparse.h); where readers differ it does as Go's archive/tar, which other
 * tools read images with, and says in the comments where not.
 *
 * Everything is made of blocks of 512 bytes: headers, from which tar_entry.h makes the entries, and what follows each.
 * Here the input is taken apart, by the state that a header leads to. The archive ends with two blocks of zeros; what
 * follows is ignored. Its end without them is accepted between two entries.
 *
 * Paths are given as they are: absolute, with "..", with slashes behind. To judge them is the caller's part.
 */
#ifndef CCI_IMAGE_TAR_H
#define CCI_IMAGE_TAR_H

#include "tar_entry.h"

/* Complete a block from the input; false while it is not. */
static bool cci_tar_collect(struct cci_tar *t, uint8_t block[512], struct cci_view *in)
{
    size_t n = 512 - t->have < in->n ? 512 - t->have : in->n;
    memcpy(block + t->have, in->p, n);
    (void)cci_view_take(in, n);
    t->have += n;
    t->offset += n;
    if (t->have < 512)
        return false;
    t->have = 0;
    return true;
}

static cc_error_code cci_tar_read_zeros(struct cci_tar *t, struct cci_view *in, cc_error *err)
{
    if (!cci_tar_collect(t, t->more, in))
        return CC_OK;
    t->state = CCI_TAR_END;
    for (size_t i = 0; i < 512; i++)
        if (t->more[i] != 0)
            return cci_tar_fail(t, err, "block of zeros between two headers");
    return CC_OK;
}

static cc_error_code cci_tar_read_payload(struct cci_tar *t, struct cci_view *in, cc_error *err)
{
    size_t n = t->left < in->n ? (size_t)t->left : in->n;
    if (!cci_buf_add(cci_tar_payload(t), in->p, n))
        return cci_fail_nomem(err);
    (void)cci_view_take(in, n);
    t->left -= n;
    t->offset += n;
    return t->left > 0 ? CC_OK : cci_tar_end_payload(t, err);
}

static cc_error_code cci_tar_read_map_block(struct cci_tar *t, struct cci_view *in, cc_error *err)
{
    if (!cci_tar_collect(t, t->more, in))
        return CC_OK;
    const char *wrong = cci_tar_map_block(&t->map, t->more, 21);
    if (wrong)
        return cci_tar_fail(t, err, wrong);
    return t->more[504] != 0 ? CC_OK : cci_tar_begin_entry(t, err);
}

/* The map is a part of the data, in whole blocks. */
static cc_error_code cci_tar_read_map_lines(struct cci_tar *t, struct cci_view *in, cc_error *err)
{
    struct cci_view part = {in->p, t->left < in->n ? (size_t)t->left : in->n};
    size_t n = part.n;
    const char *wrong = cci_tar_map_lines(&t->map, &part);
    if (wrong)
        return cci_tar_fail(t, err, wrong);
    if (t->map.lines == 0) {
        size_t rest = (size_t)(-(t->entry.stored - t->left + (n - part.n)) & 511);
        (void)cci_view_take(&part, rest < part.n ? rest : part.n);
    }
    n -= part.n;
    (void)cci_view_take(in, n);
    t->left -= n;
    t->offset += n;
    if (t->map.lines == 0 && ((t->entry.stored - t->left) & 511) == 0) {
        t->entry.stored = t->left;
        return cci_tar_begin_entry(t, err);
    }
    return t->left > 0 ? CC_OK : cci_tar_fail(t, err, "invalid sparse file map");
}

static cc_error_code cci_tar_read_data(struct cci_tar *t, struct cci_view *in, cc_error *err)
{
    uint64_t offset = t->region_done;
    uint64_t most = t->left;
    if (t->entry.sparse) {
        /* Not at the end: the regions add up to what is stored. */
        while (t->region_done == t->map.regions[t->region].size) {
            t->region++;
            t->region_done = 0;
        }
        offset = t->map.regions[t->region].offset + t->region_done;
        most = t->map.regions[t->region].size - t->region_done;
    }
    size_t n = most < in->n ? (size_t)most : in->n;
    const uint8_t *p = cci_view_take(in, n);
    t->region_done += n;
    t->left -= n;
    t->offset += n;
    cc_error_code code = t->ops->data(t->ctx, offset, p, n, err);
    return code == CC_OK && t->left == 0 ? cci_tar_end_entry(t, err) : code;
}

static cc_error_code cci_tar_step(struct cci_tar *t, struct cci_view *in, cc_error *err)
{
    size_t n;
    switch (t->state) {
    case CCI_TAR_HEADER:
        return cci_tar_collect(t, t->block, in) ? cci_tar_header_block(t, err) : CC_OK;
    case CCI_TAR_ZEROS:
        return cci_tar_read_zeros(t, in, err);
    case CCI_TAR_PAYLOAD:
        return cci_tar_read_payload(t, in, err);
    case CCI_TAR_MAP_BLOCK:
        return cci_tar_read_map_block(t, in, err);
    case CCI_TAR_MAP_LINES:
        return cci_tar_read_map_lines(t, in, err);
    case CCI_TAR_DATA:
        return cci_tar_read_data(t, in, err);
    case CCI_TAR_SKIP:
        n = t->left < in->n ? (size_t)t->left : in->n;
        (void)cci_view_take(in, n);
        t->offset += n;
        cci_tar_skip(t, t->left - n);
        return CC_OK;
    case CCI_TAR_END:
        break;
    }
    t->offset += in->n;
    in->n = 0;
    return CC_OK;
}

/*
 * Read the next piece of the archive. All of it is taken, unless the result is an error, the reader's own or one that
 * an operation returned. That is final: later calls return the same code, with a short message.
 */
static cc_error_code cci_tar_feed(struct cci_tar *t, const uint8_t *p, size_t n, cc_error *err)
{
    struct cci_view in = {p, n};
    if (t->failed != CC_OK)
        return cci_fail(err, t->failed, NULL, "the tar archive could not be read");
    while (in.n > 0 && t->failed == CC_OK)
        t->failed = cci_tar_step(t, &in, err);
    return t->failed;
}

/*
 * How many bytes the caller may leave out before it goes on feeding, because they are contents of a file (which data()
 * then does not get) or padding. The last of them is always wanted, so that an archive that is cut short is noticed.
 */
static uint64_t cci_tar_jump(struct cci_tar *t)
{
    bool contents = t->state == CCI_TAR_DATA && !t->entry.sparse;
    if (t->failed != CC_OK || (!contents && t->state != CCI_TAR_SKIP) || t->left < 2)
        return 0;
    uint64_t n = t->left - 1;
    t->left = 1;
    t->offset += n;
    if (contents)
        t->region_done += n;
    return n;
}

/* The archive ends here: an error if that is within something. */
static cc_error_code cci_tar_finish(struct cci_tar *t, cc_error *err)
{
    bool between = t->state == CCI_TAR_HEADER && !t->extended;
    if (t->failed != CC_OK)
        return cci_fail(err, t->failed, NULL, "the tar archive could not be read");
    if (t->state != CCI_TAR_END && !((between || t->state == CCI_TAR_ZEROS) && t->have == 0)) {
        if (t->state == CCI_TAR_HEADER || t->state == CCI_TAR_SKIP)
            t->entry.path.n = 0;
        t->failed = cci_tar_fail(t, err, "unexpected end");
    }
    return t->failed;
}

#endif
