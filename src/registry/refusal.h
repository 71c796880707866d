/*
 * registry/refusal.h - answers of a registry, or of its token server, that are none: what they say, and whether to ask
 * again.
 *
 * After 429 and any 5xx (but 501) it is asked again, a bounded number of times, when Retry-After says or with rising
 * pauses. Nobody waits for a Retry-After of more than a minute: the message then tells it. Every pause ends with the
 * deadline or the cancel token.
 */
#ifndef CCI_REGISTRY_REFUSAL_H
#define CCI_REGISTRY_REFUSAL_H

#include "../image/json.h"
#include "http.h"
#include "http_date.h"

#define CCI_REGISTRY_SECOND ((uint64_t)1000000000u)
#define CCI_REGISTRY_TRIES 5u
#define CCI_REGISTRY_PAUSE ((uint64_t)250 * 1000000u)    /* the first one; each is twice the one before */
#define CCI_REGISTRY_MAX_PAUSE 60u                       /* seconds of Retry-After that we wait */
#define CCI_REGISTRY_MAX_TEXT ((size_t)64 << 10)         /* bytes of a refusal */
#define CCI_REGISTRY_TEXT_TIME (2 * CCI_REGISTRY_SECOND) /* for all of it; then the reason is left out */

static bool cci_registry_never(void *ctx)
{
    (void)ctx;
    return false;
}

/* A pause of `ns`, which the deadline and the cancel token end. */
static cc_error_code cci_registry_pause(const struct cci_wait *wait, uint64_t ns, const char *what, cc_error *err)
{
    struct cci_monitor m;
    uint64_t until = cci_os_now() + ns;
    struct cci_wait nap = {CCI_MIN(until, wait->deadline), wait->cancel};
    cci_monitor_init(&m);
    cc_error_code code = cci_monitor_wait(&m, &nap, cci_registry_never, NULL, what, err);
    cci_monitor_unlock(&m);
    cci_monitor_destroy(&m);
    if (code == CC_ERR_TIMEOUT && until <= wait->deadline) {
        cci_error_release(err);
        code = CC_OK;
    }
    return code;
}

/* What a refusal's body says ({"errors": [{"code", "message"}]}, or {"details": ""} of Docker Hub's token server),
 * printable, in `out`; "" when it says nothing. */
static void cci_registry_reason(struct cci_http_response *resp, const struct cci_wait *wait, char *out, size_t n)
{
    struct cci_json doc;
    struct cci_buf body = {NULL, 0, 0, false};
    const struct cci_wait brief = cci_http_shorter(wait, CCI_REGISTRY_TEXT_TIME);
    out[0] = '\0';
    cc_error_code code = cci_http_body_all(resp, CCI_REGISTRY_MAX_TEXT, &body, &brief, NULL);
    if (!code && body.n)
        code = cci_json_parse(&doc, body.p, body.n, "", NULL);
    bool none = code || !body.n;
    cci_buf_free(&body);
    if (none)
        return;
    const struct cci_json_value *first = cci_json_first(cci_json_get(&doc, cci_json_root(&doc), "errors"));
    const char *message = cci_json_text(&doc, cci_json_get(&doc, first, "message"));
    if (!message)
        message = cci_json_text(&doc, cci_json_get(&doc, cci_json_root(&doc), "details"));
    if (message && *message)
        (void)snprintf(out, n, ": %s", message);
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = ' ';
    cci_json_free(&doc);
}

/* Seconds of Retry-After, a number or a date (RFC 9110, 10.2.3); 0 when there is none. A date is compared with what the
 * server thinks it is now, if it says so: the two clocks may differ. */
static uint64_t cci_registry_retry_after(const struct cci_http_response *resp)
{
    const char *text = cci_http_field(resp, "Retry-After", 0), *date = cci_http_field(resp, "Date", 0);
    uint64_t n = 0, ours = cci_os_realtime() / CCI_REGISTRY_SECOND, now = ours, then;
    for (const char *p = text; p && *p >= '0' && *p <= '9' && n < 1000000; p++)
        n = n * 10 + (uint64_t)(*p - '0');
    if (n || !text || !cci_http_date_parse(text, ours, &then))
        return n;
    if (!date || !cci_http_date_parse(date, ours, &now))
        now = ours;
    return then > now ? CCI_MIN(then - now, (uint64_t)1000000) : 0;
}

/* "in 60 s", or "later": when to ask again, in words. */
static const char *cci_registry_when(const struct cci_http_response *resp, char room[40])
{
    uint64_t after = cci_registry_retry_after(resp);
    (void)snprintf(room, 40, "in %llu s", (unsigned long long)after);
    return after ? room : "later";
}

/* How long to pause before the next try; 0: there is none. */
static uint64_t cci_registry_patience(const struct cci_http_response *resp, unsigned tries)
{
    int status = cci_http_status(resp);
    uint64_t after = cci_registry_retry_after(resp);
    if ((status != 429 && status < 500) || status == 501 || tries >= CCI_REGISTRY_TRIES ||
        after > CCI_REGISTRY_MAX_PAUSE)
        return 0;
    return CCI_MAX(after * CCI_REGISTRY_SECOND, CCI_REGISTRY_PAUSE << (tries - 1));
}

#endif
