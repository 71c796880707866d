/* An Alpine mirror that sends any bytes. The first byte says as what they are read: an index's text, a .PKGINFO, keys,
 * an index file, a package in pieces, or the name of a file in one. What was taken keeps its bounds, and no name leaves
 * the bundle's directory. */
#include "../../src/registry/apk.h"
#include "../../src/registry/kernel_unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void index_text(struct cci_view text)
{
    struct cci_apk_entry e;
    if (cci_apk_index_find(text, "linux-virt", &e, NULL) != CC_OK)
        return;
    if (e.size == 0 || e.size > CCI_APK_MAX_PACKAGE || !e.version[0] || strlen(e.version) > CCI_APK_MAX_VERSION ||
        strpbrk(e.version, "/ %?#\\:@") || e.version[0] == '.')
        abort();
}

static void keys(struct cci_view text, bool index)
{
    struct cci_apk_entry e;
    struct cci_apk_keys *k = cci_mem_zalloc(1, sizeof(*k));
    if (k && !index && cci_apk_keys_add(k, text, "text", NULL) == CC_OK &&
        (k->count == 0 || k->count > CCI_APK_MAX_KEYS))
        abort();
    for (size_t i = 0; k && i < k->count; i++)
        if (k->key[i].n_size < CCI_APK_MIN_MODULUS || k->key[i].n_size > CCI_APK_MAX_MODULUS)
            abort();
    /* Nobody finds a signature by Alpine's key. */
    if (k && index && cci_apk_keys_load(k, NULL, NULL) == CC_OK &&
        cci_apk_index_read(text, k, "linux-virt", &e, NULL) == CC_OK)
        abort();
    cci_mem_free(k);
}

static cc_error_code on_entry(void *ctx, const struct cci_tar_entry *e, cc_error *err)
{
    (void)ctx, (void)e, (void)err;
    abort(); /* nothing comes before the control segment was verified */
}

static cc_error_code on_data(void *ctx, uint64_t offset, const uint8_t *p, size_t n, cc_error *err)
{
    (void)ctx, (void)offset, (void)p, (void)n, (void)err;
    abort();
}

static cc_error_code on_end(void *ctx, cc_error *err)
{
    (void)ctx, (void)err;
    abort();
}

static void package(struct cci_view v)
{
    static const struct cci_tar_ops ops = {on_entry, on_data, on_end};
    static const struct cci_apk_entry entry = {"1", {0}, 1};
    struct cci_apk *a = cci_mem_alloc(sizeof(*a));
    cc_error_code code = CC_OK;
    if (!a)
        return;
    cci_apk_init(a, &entry, &ops, NULL);
    for (size_t n = 1; v.n > 0 && !code; n = n * 3 % 1000 + 1) {
        size_t part = n < v.n ? n : v.n;
        code = cci_apk_feed(a, cci_view_take(&v, part), part, NULL);
    }
    if (!code && cci_apk_finish(a, NULL) == CC_OK)
        abort();
    cci_apk_free(a);
    cci_mem_free(a);
}

static void name(struct cci_view path)
{
    struct cci_kernel_unpack u;
    char *out;
    cci_kernel_unpack_init(&u, "d");
    if (cci_kernel_unpack_name(&u, path, &out, NULL) == CC_OK && out &&
        (strncmp(out, "d/", 2) != 0 || strstr(out, "/.") || strstr(out, "//") || strlen(out) > 400 ||
         out[strlen(out) - 1] == '/'))
        abort();
    cci_mem_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_digest digest;
    if (size == 0)
        return 0;
    const struct cci_view v = {data + 1, size - 1};
    switch (data[0] % 6) {
    case 0:
        index_text(v);
        break;
    case 1:
        (void)cci_apk_datahash(v, &digest);
        break;
    case 2:
    case 3:
        keys(v, data[0] % 6 == 3);
        break;
    case 4:
        package(v);
        break;
    default:
        name(v);
    }
    return 0;
}
