/*
 * image/tar_sparse.h - the maps of sparse files in tar archives.
 *
 * A map lists the regions of a file that are stored, in order; the rest are holes. GNU tar writes it in four ways:
 * in the header block and blocks behind it (type 'S'), as pairs of extended header records (0.0), in one such
 * record (0.1), or as lines of decimal numbers before the data (1.0).
 */
#ifndef CCI_IMAGE_TAR_SPARSE_H
#define CCI_IMAGE_TAR_SPARSE_H

#include "../base/mem.h"
#include "tar_fields.h"

#define CCI_TAR_MAX_REGIONS 262144u /* of one file: 4 MiB of memory */

struct cci_tar_region {
    uint64_t offset; /* in the file */
    uint64_t size;
};

struct cci_tar_map {
    struct cci_tar_region *regions; /* what is stored */
    size_t n;
    size_t cap;
    bool half;      /* of the last region only the offset is there so far */
    uint64_t lines; /* 1.0: numbers that are still to come, UINT64_MAX before the count of regions */
    uint64_t line;  /* the number that is being read */
    unsigned digits;
};

static void cci_tar_map_free(struct cci_tar_map *m)
{
    cci_mem_free(m->regions);
    memset(m, 0, sizeof(*m));
}

/* Forget the map, keep the memory. */
static void cci_tar_map_clear(struct cci_tar_map *m)
{
    m->n = 0;
    m->half = false;
    m->lines = UINT64_MAX;
    m->line = 0;
    m->digits = 0;
}

/* Append an offset or, after one, a size. NULL or what is wrong. */
static const char *cci_tar_map_add(struct cci_tar_map *m, uint64_t number)
{
    if (m->half) {
        m->regions[m->n - 1].size = number;
        m->half = false;
        return NULL;
    }
    if (m->n == CCI_TAR_MAX_REGIONS)
        return "sparse file with too many regions";
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 16;
        struct cci_tar_region *regions = cci_mem_resize(m->regions, cap, sizeof(*regions));
        if (!regions)
            return "out of memory";
        m->regions = regions;
        m->cap = cap;
    }
    m->regions[m->n].offset = number;
    m->regions[m->n].size = 0;
    m->n++;
    m->half = true;
    return NULL;
}

/* Numbers between commas (0.1). */
static const char *cci_tar_map_list(struct cci_tar_map *m, struct cci_view text)
{
    while (text.n > 0) {
        const uint8_t *comma = memchr(text.p, ',', text.n);
        struct cci_view item = {text.p, comma ? (size_t)(comma - text.p) : text.n};
        uint64_t number;
        if (!cci_tar_decimal(item, &number))
            return "invalid sparse file map";
        const char *wrong = cci_tar_map_add(m, number);
        if (wrong)
            return wrong;
        (void)cci_view_take(&text, item.n + (comma ? 1 : 0));
    }
    return NULL;
}

/*
 * The regions that one block has, at most `most` of them at `p` (type 'S'). An empty one ends the list; the blocks
 * that follow are still read, as GNU tar does.
 */
static const char *cci_tar_map_block(struct cci_tar_map *m, const uint8_t *p, unsigned most)
{
    for (unsigned i = 0; i < most && p[24 * i] != 0; i++) {
        int64_t offset, size;
        if (!cci_tar_number(p + 24 * i, 12, &offset) || !cci_tar_number(p + 24 * i + 12, 12, &size) || offset < 0 ||
            size < 0)
            return "invalid sparse file map";
        const char *wrong = cci_tar_map_add(m, (uint64_t)offset);
        if (!wrong)
            wrong = cci_tar_map_add(m, (uint64_t)size);
        if (wrong)
            return wrong;
    }
    return NULL;
}

/* Take bytes of a map in lines (1.0) off the data until it is complete: m->lines is 0 then. */
static const char *cci_tar_map_lines(struct cci_tar_map *m, struct cci_view *data)
{
    const uint8_t *p;
    while (m->lines > 0 && (p = cci_view_take(data, 1)) != NULL) {
        unsigned digit = (unsigned)*p - '0';
        if (digit <= 9 && m->line <= ((uint64_t)INT64_MAX - digit) / 10 && m->digits < 20) {
            m->line = m->line * 10 + digit;
            m->digits++;
            continue;
        }
        if (*p != '\n' || m->digits == 0)
            return "invalid sparse file map";
        if (m->lines == UINT64_MAX) {
            if (m->line > CCI_TAR_MAX_REGIONS)
                return "sparse file with too many regions";
            m->lines = 2 * m->line;
        } else {
            const char *wrong = cci_tar_map_add(m, m->line);
            if (wrong)
                return wrong;
            m->lines--;
        }
        m->line = 0;
        m->digits = 0;
    }
    return NULL;
}

/* Whether the regions are in order, inside a file of `size` bytes, and add up to the `stored` ones. */
static bool cci_tar_map_valid(const struct cci_tar_map *m, uint64_t size, uint64_t stored)
{
    uint64_t end = 0, sum = 0;
    if (m->half)
        return false;
    for (size_t i = 0; i < m->n; i++) {
        const struct cci_tar_region *r = &m->regions[i];
        if (r->offset < end || r->offset > size || r->size > size - r->offset)
            return false;
        end = r->offset + r->size;
        sum += r->size; /* no overflow: they lie side by side in the file */
    }
    return sum == stored;
}

#endif
