/*
 * registry/kernel_fetch_apk.h - Alpine's kernel for virtual machines, the package linux-virt, from a mirror.
 *
 *     GET <repository>/<arch>/APKINDEX.tar.gz        into memory; verified by its signature (apk.h)
 *     GET <repository>/<arch>/linux-virt-<v>.apk     streamed: hashes, gzip, tar, files (kernel_unpack.h)
 *
 * The repository is one release branch of Alpine's, or what the user names, in the form of a line in Alpine's
 * /etc/apk/repositories. What the signature promises: the kernel is one that Alpine published as linux-virt for this
 * architecture. What it does not: that it is the newest, or of that branch. An old index is signed as well, all
 * branches are signed with the same key, and an index has no end of its validity; so a mirror, or whoever can speak for
 * it in TLS, can hold back updates, and pick an old kernel with known faults.
 *
 * https, or http to loopback only, as everywhere (http.h). A connection that breaks is taken up where it stopped.
 */
#ifndef CCI_REGISTRY_KERNEL_FETCH_APK_H
#define CCI_REGISTRY_KERNEL_FETCH_APK_H

#include "apk.h"
#include "http.h"
#include "kernel_fetch_spec.h"
#include "kernel_unpack.h"

#define CCI_KERNEL_FETCH_MIRROR "https://dl-cdn.alpinelinux.org/alpine/v3.24/main"
#define CCI_KERNEL_FETCH_PACKAGE "linux-virt"
#define CCI_KERNEL_FETCH_MAX_INDEX ((size_t)16 << 20) /* of its file */
#define CCI_KERNEL_FETCH_CHUNK ((size_t)64 << 10)
#define CCI_KERNEL_FETCH_RESUMES 4u        /* broken connections in a row that brought nothing new */
#define CCI_KERNEL_FETCH_CONNECT_MS 10000u /* there may be another kernel to start with */

struct cci_kernel_fetch {
    struct cci_kernel_fetch_spec spec;
    struct cci_apk_keys keys;
    struct cci_http *http;
    char *base; /* <repository>/<arch>, without a slash at its end */
};

/* The package on its way. */
struct cci_kernel_download {
    struct cci_kernel_fetch *fetch;
    const char *url;
    uint64_t at, size; /* bytes that are here, and of all */
    unsigned quarter;  /* told about */
    struct cci_apk apk;
    uint8_t chunk[CCI_KERNEL_FETCH_CHUNK];
};

/* NULL is fine. */
static void cci_kernel_fetch_close(struct cci_kernel_fetch *f)
{
    if (!f)
        return;
    cci_http_free(f->http);
    cci_mem_free(f->base);
    cci_mem_free(f);
}

static cc_error_code cci_kernel_fetch_open(const struct cci_kernel_fetch_spec *spec, struct cci_kernel_fetch **out,
                                           cc_error *err)
{
    const struct cci_http_options http = {.max_connections = 1, .connect_ms = CCI_KERNEL_FETCH_CONNECT_MS};
    const char *repository = spec->mirror ? spec->mirror : CCI_KERNEL_FETCH_MIRROR;
    size_t n = strlen(repository);
    struct cci_kernel_fetch *f = cci_mem_zalloc(1, sizeof(*f));
    *out = NULL;
    if (!f)
        return cci_fail_nomem(err);
    while (n > 0 && repository[n - 1] == '/')
        n--;
    f->spec = *spec;
    f->base = cci_mem_printf("%.*s/%s", (int)n, repository, CCI_APK_ARCH);
    cc_error_code code = f->base ? cci_apk_keys_load(&f->keys, spec->key_file, err) : cci_fail_nomem(err);
    if (!code)
        code = cci_http_new(&http, &f->http, err);
    if (code) {
        cci_kernel_fetch_close(f);
        return code;
    }
    *out = f;
    return CC_OK;
}

/* Asks for a file, from a byte on; an answer that has it. */
static cc_error_code cci_kernel_fetch_get(struct cci_kernel_fetch *f, const char *url, uint64_t from,
                                          struct cci_http_response **out, cc_error *err)
{
    const struct cci_http_request req = {.url = url, .range_from = from};
    cc_error_code code = cci_http_request(f->http, &req, f->spec.wait, out, err);
    if (code)
        return code;
    int status = cci_http_status(*out);
    if (status == 200 || (status == 206 && from))
        return CC_OK;
    cci_http_finish(*out);
    *out = NULL;
    return cci_fail(err, CC_ERR_NETWORK, url, "the mirror answers with status %d for %s", status, url);
}

/* The index: which linux-virt there is. */
static cc_error_code cci_kernel_fetch_index(struct cci_kernel_fetch *f, struct cci_apk_entry *entry, cc_error *err)
{
    struct cci_http_response *resp = NULL;
    struct cci_buf file = {NULL, 0, 0, false};
    char *url = cci_mem_printf("%s/APKINDEX.tar.gz", f->base);
    cc_error_code code = url ? cci_kernel_fetch_get(f, url, 0, &resp, err) : cci_fail_nomem(err);
    if (!code) {
        code = cci_http_body_all(resp, CCI_KERNEL_FETCH_MAX_INDEX, &file, f->spec.wait, err);
        cci_http_finish(resp);
    }
    if (!code)
        code = cci_apk_index_read((struct cci_view){file.p, file.n}, &f->keys, CCI_KERNEL_FETCH_PACKAGE, entry, err);
    cci_buf_free(&file);
    cci_mem_free(url);
    return code;
}

/* ---- The package ------------------------------------------------------------------------------------------------ */

static void cci_kernel_download_say(struct cci_kernel_download *d)
{
    char line[100];
    unsigned quarter = (unsigned)(d->at * 4 / d->size);
    if (quarter == d->quarter)
        return;
    d->quarter = quarter;
    (void)snprintf(line, sizeof(line), "guest kernel: %llu of %llu KiB fetched", (unsigned long long)d->at >> 10,
                   (unsigned long long)d->size >> 10);
    d->fetch->spec.say(d->fetch->spec.ctx, line);
}

/* Takes n bytes that have come. */
static cc_error_code cci_kernel_download_take(struct cci_kernel_download *d, const uint8_t *p, size_t n, cc_error *err)
{
    if (n > d->size - d->at)
        return cci_fail(err, CC_ERR_NETWORK, d->url, "the mirror sends more than the %llu bytes that its index says",
                        (unsigned long long)d->size);
    cc_error_code code = cci_apk_feed(&d->apk, p, n, err);
    d->at += n;
    if (!code)
        cci_kernel_download_say(d);
    return code;
}

/* One request for what is missing. *broken: the connection broke, and another request makes sense. */
static cc_error_code cci_kernel_download_go_on(struct cci_kernel_download *d, bool *broken, cc_error *err)
{
    struct cci_http_response *resp;
    size_t n = 1;
    *broken = false;
    cc_error_code code = cci_kernel_fetch_get(d->fetch, d->url, d->at, &resp, err);
    if (code)
        return code;
    uint64_t skip = cci_http_status(resp) == 206 ? 0 : d->at; /* a server that knows no ranges sends all again */
    while (!code && n > 0) {
        code = cci_http_body_read(resp, d->chunk, sizeof(d->chunk), &n, d->fetch->spec.wait, err);
        if (code) {
            *broken = code == CC_ERR_NETWORK && cci_http_broken(resp);
            break;
        }
        size_t old = (size_t)CCI_MIN(skip, (uint64_t)n);
        skip -= old;
        if (n > old)
            code = cci_kernel_download_take(d, d->chunk + old, n - old, err);
    }
    cci_http_finish(resp);
    if (!code && d->at < d->size)
        code = cci_fail(err, CC_ERR_NETWORK, d->url, "the mirror sends %llu bytes where its index says %llu",
                        (unsigned long long)d->at, (unsigned long long)d->size);
    return code;
}

static cc_error_code cci_kernel_download_all(struct cci_kernel_download *d, cc_error *err)
{
    cc_error_code code = CC_OK;
    for (unsigned idle = 0; !code && d->at < d->size;) {
        uint64_t before = d->at;
        bool broken;
        code = cci_kernel_download_go_on(d, &broken, err);
        idle = d->at > before ? 0 : idle + 1;
        if (code && broken && idle < CCI_KERNEL_FETCH_RESUMES) {
            cci_error_release(err);
            code = CC_OK;
        }
    }
    return code ? code : cci_apk_finish(&d->apk, err);
}

/* Fetches the package that the index names into `dir`. */
static cc_error_code cci_kernel_fetch_package(struct cci_kernel_fetch *f, const struct cci_apk_entry *entry,
                                              const char *dir, cc_error *err)
{
    struct cci_kernel_unpack unpack;
    struct cci_kernel_download *d = cci_mem_zalloc(1, sizeof(*d));
    char *url = cci_mem_printf("%s/%s-%s.apk", f->base, CCI_KERNEL_FETCH_PACKAGE, entry->version);
    char *line = url ? cci_mem_printf("guest kernel: fetching %s (%llu KiB), as none is configured", url,
                                      (unsigned long long)entry->size >> 10)
                     : NULL;
    cc_error_code code = d && line ? CC_OK : cci_fail_nomem(err);
    if (!code) {
        f->spec.say(f->spec.ctx, line);
        d->fetch = f;
        d->url = url;
        d->size = entry->size;
        cci_kernel_unpack_init(&unpack, dir);
        cci_apk_init(&d->apk, entry, cci_kernel_unpack_ops(), &unpack);
        code = cci_kernel_download_all(d, err);
        cci_apk_free(&d->apk);
        cci_kernel_unpack_close(&unpack);
        if (!code && !unpack.kernel)
            code = cci_fail(err, CC_ERR_NETWORK, url, "the package has no boot/vmlinuz-virt");
    }
    cci_mem_free(line);
    cci_mem_free(url);
    cci_mem_free(d);
    return code;
}

static cc_error_code cci_kernel_fetch_into(struct cci_kernel_fetch *f, const char *dir, cc_error *err)
{
    struct cci_apk_entry entry;
    cc_error_code code = cci_kernel_fetch_index(f, &entry, err);
    return code ? code : cci_kernel_fetch_package(f, &entry, dir, err);
}

#endif
