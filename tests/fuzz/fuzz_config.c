/* Image configurations of any bytes. What is accepted has strings everywhere, and lists that end with NULL. */
#include "../../src/image/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t total(const struct cci_strings *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++)
        n += strlen(s->at[i]);
    if (!s->at || s->at[s->count])
        abort();
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_image_config c;
    if (size > 8192 || cci_config_parse(&c, data, size, NULL) != CC_OK)
        return 0;
    if (total(&c.env) + total(&c.entrypoint) + total(&c.cmd) + strlen(c.working_dir) + strlen(c.user) > size)
        abort();
    if (c.layer_count > CCI_MANIFEST_MAX_LAYERS)
        abort();
    cci_config_free(&c);
    return 0;
}
