/* URLs of any bytes: line one is a base, line two a reference from it, line three a NO_PROXY. What is accepted is fit
 * for a request line, and means the same when it is spelt and taken apart again. */
#include "../../src/registry/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct cci_url *u)
{
    struct cci_url again;
    char *text = cci_url_text(u, true);
    if (!text || u->target[0] != '/' || !u->port || !*u->host || strpbrk(u->host, "/@?#[] \r\n") ||
        strpbrk(u->target, "# \r\n\t"))
        abort();
    for (const char *p = u->target; *p; p++)
        if ((uint8_t)*p >= 0x7f || (uint8_t)*p <= 0x20)
            abort();
    /* Percent-encoding may have made it longer than what is accepted. */
    if (strlen(text) <= CCI_URL_MAX) {
        if (cci_url_parse(text, &again, NULL) != CC_OK || !cci_url_same_origin(u, &again) ||
            strcmp(u->target, again.target) != 0 || again.user)
            abort();
        cci_url_free(&again);
    }
    cci_mem_free(text);
}

static void check_proxy(const struct cci_url *u, char *rules, char *proxy)
{
    struct cci_proxies p = {proxy, proxy, rules};
    struct cci_proxy chosen;
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    if (cci_proxy_choose(&p, u, &chosen, &err) == CC_OK && chosen.host) {
        if (cci_url_is_loopback(u->host) || (chosen.authorization && strpbrk(chosen.authorization, "\r\n")))
            abort();
    }
    cci_proxy_free(&chosen);
    cci_error_release(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cci_url base, u;
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    char *text = cci_mem_strndup((const char *)data, size), *lines[3] = {text, NULL, NULL};
    if (!text)
        abort();
    for (int i = 0; i < 2 && (lines[i + 1] = strchr(lines[i], '\n')) != NULL; i++)
        *lines[i + 1]++ = '\0';
    if (cci_url_parse(lines[0], &base, &err) == CC_OK) {
        check(&base);
        if (lines[1] && cci_url_resolve(&base, lines[1], &u, &err) == CC_OK) {
            check(&u);
            check_proxy(&u, lines[2], lines[1]);
            cci_url_free(&u);
        }
        cci_url_free(&base);
    } else if (!err.message || base.host || base.target || base.user) {
        abort();
    }
    cci_error_release(&err);
    cci_mem_free(text);
    return 0;
}
