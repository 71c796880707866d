/* WWW-Authenticate fields and token servers' answers of any bytes: strings end, and a token is one word. */
#include "../../src/registry/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cci_challenge c;
    char *text = cci_mem_strndup((const char *)data, size), *token;
    uint64_t seconds;
    if (!text)
        abort();
    memset(&c, 0, sizeof(c));
    if (!cci_challenge_parse(text, &c))
        abort();
    if (!memchr(c.realm, '\0', sizeof(c.realm)) || !memchr(c.service, '\0', sizeof(c.service)) ||
        !memchr(c.scope, '\0', sizeof(c.scope)) || (c.scheme == CCI_CHALLENGE_BEARER && !c.realm[0]))
        abort();
    if (cci_auth_token_parse(data, size, &token, &seconds, NULL) == CC_OK) {
        if (!*token || strpbrk(token, " \t\r\n") || seconds == 0)
            abort();
        cci_mem_free(token);
    }
    cci_mem_free(text);
    return 0;
}
