// @flags -DCC_NO_TLS
/* Servers that answer with any bytes: the first byte says what is asked and in what pieces the rest arrives; a byte
 * 0xff ends one connection and begins the next. Whatever they say, the client ends, keeps its bounds, tells its
 * password to nobody else, and a body that ended well is as long as was announced. */
#include "../registry/script_conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_TEXTS 16

static size_t split(const uint8_t *data, size_t size, const char **texts, size_t *sizes)
{
    size_t n = 0;
    for (size_t at = 0; at <= size && n < MAX_TEXTS; n++) {
        const uint8_t *stop = at < size ? memchr(data + at, 0xff, size - at) : NULL;
        texts[n] = (const char *)data + at;
        sizes[n] = (stop ? (size_t)(stop - data) : size) - at;
        at += sizes[n] + 1;
    }
    return n;
}

static void read_body(struct cci_http_response *r, const struct cci_wait *wait)
{
    uint8_t buf[700];
    size_t got, total = 0, size = (size_t)r->head.length;
    cc_error_code code;
    do {
        code = cci_http_body_read(r, buf, sizeof(buf), &got, wait, NULL);
        total += got;
    } while (!code && got);
    if (!code && r->head.framing == CCI_HTTP_LENGTH && total != size)
        abort();
    if (r->head.framing == CCI_HTTP_NO_BODY && total)
        abort();
}

/* Up to three requests, so that kept connections are used. */
static void ask(struct cci_http *http, unsigned how)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    const struct cci_http_request req = {.method = how & 1 ? "HEAD" : NULL,
                                         .url = how & 2 ? "https://a.example/x" : "http://localhost:5000/x",
                                         .authorization = "Basic c2VjcmV0",
                                         .range_from = how & 4 ? 5 : 0};
    for (int i = 0; i < 3; i++) {
        struct cci_http_response *r;
        cc_error err = {CC_OK, NULL, NULL, NULL, 0};
        cc_error_code code = cci_http_request(http, &req, &wait, &r, &err);
        if (code && (code != CC_ERR_NETWORK || !err.message))
            abort();
        cci_error_release(&err);
        if (code)
            continue;
        if (cci_http_status(r) < 200 || cci_http_status(r) > 599 || r->head.field_count > CCI_HTTP_MAX_FIELDS)
            abort();
        if (!(how & 8) || i == 1)
            read_body(r, &wait);
        cci_http_finish(r);
    }
}

/* Every request that has the password names the host it is for, and comes after that host was dialled. */
static void check_secret(const struct cci_buf *said)
{
    const char *own_host = NULL, *text = (const char *)said->p;
    for (const char *p = text; (p = strstr(p, "Authorization: Basic c2VjcmV0")) != NULL; p++) {
        for (const char *q = p; q > text && !own_host; q--)
            if (strncmp(q, "Host: ", 6) == 0)
                own_host = q;
        if (!own_host || (strncmp(own_host, "Host: localhost:5000\r\n", 22) != 0 &&
                          strncmp(own_host, "Host: a.example\r\n", 17) != 0))
            abort();
        own_host = NULL;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *texts[MAX_TEXTS];
    size_t sizes[MAX_TEXTS];
    struct cci_http *http;
    if (size < 1)
        return 0;
    unsigned how = data[0];
    struct script script = {.texts = texts, .sizes = sizes, .piece = how >> 4};
    script.count = split(data + 1, size - 1, texts, sizes);
    const struct cci_http_options opts = {.dialer = {script_dial, &script}, .no_proxy = true, .max_connections = 2};
    if (cci_http_new(&opts, &http, NULL) != CC_OK)
        abort();
    ask(http, how);
    cci_http_free(http);
    if (script.open != 0 || !cci_buf_add(&script.said, "", 1))
        abort();
    check_secret(&script.said);
    cci_buf_free(&script.said);
    return 0;
}
