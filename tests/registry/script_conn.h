/*
 * tests/registry/script_conn.h - connections that are a script: what each says, and a record of what was said to it.
 *
 * Every dial takes the next text of the script. What stands behind a '\1' in it is said only once something more was
 * written to the connection, so a text can answer several requests. At the end of the text the peer closes.
 */
#ifndef TESTS_REGISTRY_SCRIPT_CONN_H
#define TESTS_REGISTRY_SCRIPT_CONN_H

#include "src/registry/http.h"

struct script {
    const char *const *texts;
    const size_t *sizes; /* NULL: they are strings */
    size_t count, dials;
    size_t piece;  /* a read gives at most so much; 0: all */
    unsigned open; /* connections that are open now */
    bool refuse_secure;
    struct cci_cancel *cancel_at_read; /* fires in the next read */
    struct cci_buf said;               /* "[dial host port]", "[tls host]" and what was written, in order */
};

struct script_conn {
    struct cci_conn conn;
    struct script *script;
    const char *text;
    size_t n, at;
};

static cc_error_code script_read(struct cci_conn *conn, void *buf, size_t n, size_t *got, const struct cci_wait *wait,
                                 cc_error *err)
{
    struct script_conn *c = (struct script_conn *)conn;
    if (c->script->cancel_at_read)
        cci_cancel_fire(c->script->cancel_at_read);
    *got = 0;
    cc_error_code code = cci_wait_check(wait, NULL, "talking to a server", err);
    if (code)
        return code;
    if (c->at < c->n && c->text[c->at] == '\1')
        return cci_fail(err, CC_ERR_NETWORK, NULL, "the script waits for a request");
    const char *stop = memchr(c->text + c->at, '\1', c->n - c->at);
    size_t have = (stop ? (size_t)(stop - c->text) : c->n) - c->at;
    *got = CCI_MIN(CCI_MIN(n, have), c->script->piece ? c->script->piece : SIZE_MAX);
    memcpy(buf, c->text + c->at, *got);
    c->at += *got;
    return CC_OK;
}

static cc_error_code script_write(struct cci_conn *conn, const void *buf, size_t n, const struct cci_wait *wait,
                                  cc_error *err)
{
    struct script_conn *c = (struct script_conn *)conn;
    cc_error_code code = cci_wait_check(wait, NULL, "talking to a server", err);
    if (code)
        return code;
    if (c->at < c->n && c->text[c->at] == '\1')
        c->at++;
    return cci_buf_add(&c->script->said, buf, n) ? CC_OK : cci_fail_nomem(err);
}

static cc_error_code script_secure(struct cci_conn *conn, const char *host, const struct cci_wait *wait, cc_error *err)
{
    struct script_conn *c = (struct script_conn *)conn;
    (void)wait;
    if (c->script->refuse_secure)
        return cci_fail(err, CC_ERR_NETWORK, NULL, "not the server it says it is");
    bool ok = cci_buf_str(&c->script->said, "[tls ") && cci_buf_str(&c->script->said, host) &&
              cci_buf_str(&c->script->said, "]");
    return ok ? CC_OK : cci_fail_nomem(err);
}

static bool script_quiet(struct cci_conn *conn)
{
    const struct script_conn *c = (const struct script_conn *)conn;
    return c->at == c->n || c->text[c->at] == '\1'; /* an end has not been noticed yet */
}

static void script_close(struct cci_conn *conn)
{
    ((struct script_conn *)conn)->script->open--;
    cci_mem_free(conn);
}

static cc_error_code script_dial(void *ctx, const char *host, uint16_t port, const struct cci_wait *wait,
                                 struct cci_conn **out, cc_error *err)
{
    static const struct cci_conn_ops ops = {script_read, script_write, script_secure, script_quiet, script_close};
    struct script *s = ctx;
    char line[400];
    (void)wait;
    if (s->dials == s->count)
        return cci_fail(err, CC_ERR_NETWORK, NULL, "nobody answers any more");
    struct script_conn *c = cci_mem_zalloc(1, sizeof(*c));
    (void)snprintf(line, sizeof(line), "[dial %s %u]", host, (unsigned)port);
    if (!c || !cci_buf_str(&s->said, line)) {
        cci_mem_free(c);
        return cci_fail_nomem(err);
    }
    c->conn.ops = &ops;
    c->script = s;
    c->text = s->texts[s->dials];
    c->n = s->sizes ? s->sizes[s->dials] : strlen(c->text);
    s->dials++;
    s->open++;
    *out = &c->conn;
    return CC_OK;
}

#endif
