/*
 * control/listing.h - the entries of a directory of the guest.
 *
 * They come as bytes, in a reply or as a stream (guest/protocol.h, READ_DIR), and are sorted here: the guest's memory
 * is smaller than ours. Callers put names behind paths of their own, so a name that is none ("..", or one with a slash)
 * is taken for what it is: an attack.
 */
#ifndef CCI_CONTROL_LISTING_H
#define CCI_CONTROL_LISTING_H

#include "path.h"

/* Bytes of one directory's entries, and how many: each takes several times its bytes here. */
#define CCI_LISTING_LIMIT ((size_t)64 << 20)
#define CCI_LISTING_ENTRIES 2000000

static void cci_listing_free(cc_dir_entry *entries, size_t count)
{
    for (size_t i = 0; entries && i < count; i++)
        cci_mem_free(entries[i].name);
    cci_mem_free(entries);
}

static bool cci_listing_is_name(const uint8_t *p, size_t n)
{
    if (n == 0 || n > 255 || memchr(p, '/', n) || memchr(p, 0, n))
        return false;
    return !(p[0] == '.' && (n == 1 || (n == 2 && p[1] == '.')));
}

/* Walks the entries; fills `out` when it is not NULL. How many there are; -1 when the bytes contradict themselves, -2
 * without memory (then those filled are to be freed: *filled of them), -3 when there are too many. */
static int64_t cci_listing_walk(struct cci_proto_reader in, cc_dir_entry *out, size_t *filled)
{
    int64_t count = 0;
    while (in.left) {
        uint32_t mode = cci_proto_get32(&in);
        size_t n;
        const uint8_t *name = cci_proto_get_bytes(&in, &n);
        if (in.bad || !cci_listing_is_name(name, n))
            return -1;
        if (count == CCI_LISTING_ENTRIES)
            return -3;
        if (out) {
            cc_dir_entry *e = &out[count];
            e->mode = mode;
            e->is_dir = (mode & 0170000u) == 0040000u;
            e->name = cci_mem_strndup((const char *)name, n);
            if (!e->name)
                return -2;
            (*filled)++;
        }
        count++;
    }
    return count;
}

static int cci_listing_by_name(const void *a, const void *b)
{
    return strcmp(((const cc_dir_entry *)a)->name, ((const cc_dir_entry *)b)->name);
}

static cc_error_code cci_listing_parse(struct cci_proto_reader in, cc_dir_entry **out, size_t *count, cc_error *err)
{
    size_t filled = 0;
    int64_t n = cci_listing_walk(in, NULL, NULL);
    if (n == -3)
        return cci_fail(err, CC_ERR_IO, NULL, "the directory has more than %d entries", CCI_LISTING_ENTRIES);
    if (n < 0)
        return cci_path_broken(err);
    cc_dir_entry *entries = cci_mem_zalloc((size_t)n, sizeof(*entries));
    if (!entries || cci_listing_walk(in, entries, &filled) < 0) {
        cci_listing_free(entries, filled);
        return cci_fail_nomem(err);
    }
    qsort(entries, (size_t)n, sizeof(*entries), cci_listing_by_name);
    *out = entries;
    *count = (size_t)n;
    return CC_OK;
}

/* The entries without "." and "..", sorted by the bytes of their names, to be freed with cci_listing_free. */
static cc_error_code cci_listing_read(struct cci_control *ctl, const char *path, cc_dir_entry **out, size_t *count,
                                      const struct cci_wait *wait, cc_error *err)
{
    const struct cci_path_request r = {CCI_MSG_READ_DIR, path, NULL, 0, {0}};
    struct cci_call call;
    cci_call_begin(&call, ctl);
    call.to_host = true;
    call.channels = 1u << CCI_CHANNEL_FILE;
    call.limit = CCI_LISTING_LIMIT;
    cc_error_code code = cci_call_send(&call, r.type, cci_path_put, &r, err);
    if (code == CC_OK)
        code = cci_call_wait(&call, wait, "a directory of the guest", err);
    if (code == CC_OK)
        code = cci_call_check(&call, path, err);
    const struct cci_collect *c = call.collect[CCI_CHANNEL_FILE];
    if (code == CC_OK)
        code = cci_control_collected(&call, CCI_CHANNEL_FILE, path, wait, err);
    if (code == CC_OK) {
        struct cci_proto_reader in = cci_call_result(&call);
        if (c) {
            in = (struct cci_proto_reader){c->data.p, c->data.n, false};
        } else {
            size_t n;
            const uint8_t *p = cci_proto_get_bytes(&in, &n);
            in = (struct cci_proto_reader){p, n, in.bad};
        }
        code = in.bad ? cci_path_broken(err) : cci_listing_parse(in, out, count, err);
    }
    cci_call_end(&call);
    return code;
}

#endif
