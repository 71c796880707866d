/* JSON of any bytes: accepted or refused, and what is accepted can be walked: every value once, strings UTF-8 and
 * whole. */
#include "../../src/image/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t walk(const struct cci_json *doc, const struct cci_json_value *v, unsigned depth)
{
    uint32_t seen = 1, members = 0;
    uint64_t n;
    if (depth > CCI_JSON_MAX_DEPTH)
        abort();
    const char *text = cci_json_text(doc, v);
    if (text && v->text + strlen(text) >= doc->text.n)
        abort();
    (void)cci_json_size(doc, v, &n);
    if (v->type != CCI_JSON_ARRAY && v->type != CCI_JSON_OBJECT)
        return seen;
    for (const struct cci_json_value *m = cci_json_first(v); m; m = cci_json_next(doc, v, m), members++) {
        seen += walk(doc, m, depth + 1);
        if (v->type == CCI_JSON_OBJECT && !cci_json_get(doc, v, (const char *)doc->text.p + m->name))
            abort();
    }
    if (members != v->count)
        abort();
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_json doc;
    if (size > 4096 || cci_json_parse(&doc, data, size, "the text", NULL) != CC_OK)
        return 0;
    if (walk(&doc, cci_json_root(&doc), 0) != doc.count)
        abort();
    cci_json_free(&doc);
    return 0;
}
