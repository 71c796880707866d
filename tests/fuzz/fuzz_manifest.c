/* Manifests and indexes of any bytes, referred to as either kind. What is accepted is of one kind, and within bounds.
 */
#include "../../src/image/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_manifest m;
    if (size == 0 || size > 8192)
        return 0;
    enum cci_media expected = (enum cci_media)(data[0] % 3);
    if (cci_manifest_parse(&m, data + 1, size - 1, expected, NULL) != CC_OK)
        return 0;
    if ((m.media != CCI_MEDIA_INDEX && m.media != CCI_MEDIA_IMAGE) || (expected && m.media != expected))
        abort();
    if (m.media == CCI_MEDIA_IMAGE && (m.config.media != CCI_MEDIA_CONFIG || m.count > CCI_MANIFEST_MAX_LAYERS))
        abort();
    for (size_t i = 0; i < m.count; i++)
        if (!m.items[i].media_text || m.items[i].size > INT64_MAX)
            abort();
    cci_manifest_free(&m);
    return 0;
}
