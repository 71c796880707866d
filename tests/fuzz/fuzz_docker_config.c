/* Docker configurations and helpers' answers of any bytes. What is accepted is a plain helper name or whole
 * credentials. */
#include "../../src/registry/docker_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_credentials(struct cci_credentials *c)
{
    if (!c->username != !c->password || (c->identity_token && c->username))
        abort();
    cci_credentials_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const registries[] = {"docker.io", "r.example", "localhost:5000"};
    struct cci_credentials c = {NULL, NULL, NULL};
    struct cci_buf answer = {NULL, 0, 0, false};
    if (size > 8192)
        return 0;
    for (size_t i = 0; i < CCI_COUNT(registries); i++) {
        struct cci_docker_hit hit;
        if (cci_docker_lookup(data, size, registries[i], &hit, NULL) == CC_OK) {
            if (hit.helper && !cci_docker_word(hit.helper))
                abort();
            check_credentials(&hit.creds);
        }
        cci_docker_hit_free(&hit);
    }
    if (!cci_buf_add(&answer, data, size))
        abort();
    if (cci_docker_answer(&answer, &c, NULL) == CC_OK)
        check_credentials(&c);
    cci_credentials_free(&c);
    cci_buf_free(&answer);
    return 0;
}
