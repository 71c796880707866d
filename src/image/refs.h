/*
 * image/refs.h - refs/: what references mean, so that a pulled image opens again with no network.
 *
 * One file for each reference and platform that was asked for, refs/<hex>, the hexadecimal SHA-256 of both. It holds
 *
 *     cc.h reference 1
 *     name docker.io/library/alpine:latest       the reference with everything filled in
 *     platform linux/amd64                       what was asked for
 *     top sha256:...                             what the reference stands for in the registry: an index or a manifest
 *     manifest sha256:...                        the image manifest that was chosen; the same when there is no index
 *     config sha256:...
 *
 * The documents are in blobs/, the layers, which the configuration names by their diffIDs, in layers/. A reference's
 * time of modification is the time of its last use.
 */
#ifndef CCI_IMAGE_REFS_H
#define CCI_IMAGE_REFS_H

#include "blob.h"
#include "platform.h"

#define CCI_REF_MAX_FILE 4096u /* bytes */
#define CCI_REF_MAGIC "cc.h reference 1\n"

struct cci_ref {
    char *name;
    struct cci_platform platform;
    struct cci_digest top, manifest, config;
    int64_t used_ns; /* last use, since 1970; set by reading */
};

static void cci_ref_free(struct cci_ref *r)
{
    cci_mem_free(r->name);
    memset(r, 0, sizeof(*r));
}

/* The file name of a reference: 64 digits and a NUL. */
static void cci_ref_file(const char *name, const struct cci_platform *platform, char out[72])
{
    struct cci_sha256 h;
    struct cci_digest d;
    struct cci_platform_text p = cci_platform_spell(platform);
    cci_sha256_init(&h);
    cci_sha256_update(&h, name, strlen(name) + 1);
    cci_sha256_update(&h, p.text, strlen(p.text));
    cci_sha256_final(&h, d.bytes);
    (void)snprintf(out, 72, "%s", cci_digest_spell(&d).text + 7);
}

static cc_error_code cci_ref_write(const struct cci_store *s, const struct cci_ref *r, cc_error *err)
{
    char file[72];
    cci_ref_file(r->name, &r->platform, file);
    char *text = cci_mem_printf(CCI_REF_MAGIC "name %s\nplatform %s\ntop %s\nmanifest %s\nconfig %s\n", r->name,
                                cci_platform_spell(&r->platform).text, cci_digest_spell(&r->top).text,
                                cci_digest_spell(&r->manifest).text, cci_digest_spell(&r->config).text);
    if (!text)
        return cci_fail_nomem(err);
    cc_error_code code = cci_blob_write_file(s, "refs", file, text, strlen(text), err);
    cci_mem_free(text);
    return code;
}

/* The rest of the next line, which begins with `key`; NULL when it does not. Ends the line with a NUL. */
static char *cci_ref_line(char **at, const char *key)
{
    size_t n = strlen(key);
    char *line = *at, *end = strchr(line, '\n');
    if (!end || strncmp(line, key, n) != 0)
        return NULL;
    *end = '\0';
    *at = end + 1;
    return line + n;
}

static bool cci_ref_digest(char **at, const char *key, struct cci_digest *out)
{
    const char *text = cci_ref_line(at, key);
    return text && cci_digest_parse(text, "a reference", out, NULL) == CC_OK;
}

/* Fills *r from a file's text, which is changed. False when it is none, or there is no memory. */
static bool cci_ref_parse(char *text, struct cci_ref *r)
{
    if (strncmp(text, CCI_REF_MAGIC, sizeof(CCI_REF_MAGIC) - 1) != 0)
        return false;
    char *at = text + sizeof(CCI_REF_MAGIC) - 1;
    const char *name = cci_ref_line(&at, "name ");
    char *platform = name ? cci_ref_line(&at, "platform ") : NULL;
    char *arch = platform ? strchr(platform, '/') : NULL;
    if (!arch || !cci_ref_digest(&at, "top ", &r->top) || !cci_ref_digest(&at, "manifest ", &r->manifest) ||
        !cci_ref_digest(&at, "config ", &r->config))
        return false;
    *arch = '\0';
    r->platform = cci_platform_make(platform, arch + 1, NULL);
    r->name = cci_mem_strdup(name);
    return r->name != NULL;
}

/* Reads the reference in refs/`file`. *found false, and nothing to free, when it is not there or cannot be read. */
static cc_error_code cci_ref_read_file(const struct cci_store *s, const char *file, struct cci_ref *r, bool *found,
                                       cc_error *err)
{
    struct cci_buf text = {NULL, 0, 0, false};
    struct cci_os_stat st;
    memset(r, 0, sizeof(*r));
    *found = false;
    char *path = cci_store_path(s, "refs", file);
    if (!path)
        return cci_fail_nomem(err);
    int n = cci_blob_read_file(path, CCI_OS_NOFOLLOW, CCI_REF_MAX_FILE, &text);
    if (n == 0)
        n = cci_os_lstat(path, &st);
    if (n == 0 && cci_buf_add(&text, "", 1) && cci_ref_parse((char *)text.p, r)) {
        r->used_ns = st.mtime_ns;
        *found = true;
    }
    cc_error_code code = CC_OK;
    if (n < 0 && n != -ENOENT && n != -EFBIG && n != -ELOOP)
        code = cci_store_fail(err, n, path, "read a reference");
    cci_buf_free(&text);
    cci_mem_free(path);
    return code;
}

/* Reads what `name` was for `platform` when it was pulled. Free *r when it was found. */
static cc_error_code cci_ref_read(const struct cci_store *s, const char *name, const struct cci_platform *platform,
                                  struct cci_ref *r, bool *found, cc_error *err)
{
    char file[72];
    cci_ref_file(name, platform, file);
    return cci_ref_read_file(s, file, r, found, err);
}

/* Notes that a reference is used now. A failure loses the note and nothing else. */
static void cci_ref_touch(const struct cci_store *s, const struct cci_ref *r)
{
    char file[72];
    cci_ref_file(r->name, &r->platform, file);
    char *path = cci_store_path(s, "refs", file);
    if (path)
        (void)cci_os_touch(path);
    cci_mem_free(path);
}

#endif
