/*
 * registry/http_pool.h - the connections of a client: a bounded number, kept open between requests.
 *
 * A request takes a link (a connection and what was read ahead from it) and gives it back. One that is still good goes
 * to the list of idle ones; the next request to the same place takes the one used last. There are never more links
 * than `max`, idle ones included: a request that finds no room closes the idle link that was used longest ago, or waits
 * until another request has ended. So a thread must not hold `max` responses and ask for one more.
 *
 * A server closes idle connections when it likes, also while a request is on its way. Links that were idle for long,
 * or that are readable (the server closed, or spoke unasked), are not used again; the rest of that race is replayed
 * (http.h).
 */
#ifndef CCI_REGISTRY_HTTP_POOL_H
#define CCI_REGISTRY_HTTP_POOL_H

#include "http_reader.h"

#define CCI_HTTP_MAX_IDLE_NS ((uint64_t)30 * 1000000000u) /* how long idle links are kept */

struct cci_http_link {
    struct cci_http_link *next;    /* the next in the list of idle ones: the one used last comes first */
    char *place;                   /* scheme, host, port and proxy: requests to the same place may share a link */
    uint64_t since;                /* idle since */
    bool reused;                   /* this is not its first request */
    struct cci_http_reader reader; /* has the connection; NULL while it is not open */
};

struct cci_http_pool {
    struct cci_monitor monitor; /* for the rest */
    size_t count, max;          /* links there are and may be */
    struct cci_http_link *idle;
};

static void cci_http_pool_init(struct cci_http_pool *pool, size_t max)
{
    memset(pool, 0, sizeof(*pool));
    cci_monitor_init(&pool->monitor);
    pool->max = max;
}

static void cci_http_link_free(struct cci_http_link *link)
{
    cci_conn_close(link->reader.conn);
    cci_mem_free(link->place);
    cci_mem_free(link);
}

/* Whether an idle link is worth another request. */
static bool cci_http_link_is_good(const struct cci_http_link *link)
{
    return cci_os_now() - link->since < CCI_HTTP_MAX_IDLE_NS && cci_conn_quiet(link->reader.conn);
}

/* No link may be in use. */
static void cci_http_pool_destroy(struct cci_http_pool *pool)
{
    while (pool->idle) {
        struct cci_http_link *link = pool->idle;
        pool->idle = link->next;
        cci_http_link_free(link);
    }
    cci_monitor_destroy(&pool->monitor);
}

/* Takes an idle link out of the list: the first to `place`, or the last of all when place is NULL. Called locked. */
static struct cci_http_link *cci_http_pool_pick(struct cci_http_pool *pool, const char *place)
{
    struct cci_http_link **at = &pool->idle;
    while (*at && (place ? strcmp((*at)->place, place) != 0 : (*at)->next != NULL))
        at = &(*at)->next;
    struct cci_http_link *link = *at;
    if (link)
        *at = link->next;
    return link;
}

/* Gives up a link that was taken. */
static void cci_http_pool_drop(struct cci_http_pool *pool, struct cci_http_link *link)
{
    cci_http_link_free(link);
    cci_monitor_lock(&pool->monitor);
    pool->count--;
    cci_cond_wake(&pool->monitor.cond);
    cci_monitor_unlock(&pool->monitor);
}

/* Gives back a link whose response has been read to its end. */
static void cci_http_pool_keep(struct cci_http_pool *pool, struct cci_http_link *link)
{
    link->since = cci_os_now();
    link->reused = true;
    cci_monitor_lock(&pool->monitor);
    link->next = pool->idle;
    pool->idle = link;
    cci_cond_wake(&pool->monitor.cond);
    cci_monitor_unlock(&pool->monitor);
}

static bool cci_http_pool_has_room(void *ctx)
{
    const struct cci_http_pool *pool = ctx;
    return pool->idle || pool->count < pool->max;
}

/* An idle link to `place` that looks good, or NULL. */
static struct cci_http_link *cci_http_pool_reuse(struct cci_http_pool *pool, const char *place)
{
    for (;;) {
        cci_monitor_lock(&pool->monitor);
        struct cci_http_link *link = cci_http_pool_pick(pool, place);
        cci_monitor_unlock(&pool->monitor);
        if (!link || cci_http_link_is_good(link))
            return link;
        cci_http_pool_drop(pool, link);
    }
}

/* A link to `place`: an idle one unless `fresh`, or one that has yet to be opened (no connection). */
static cc_error_code cci_http_pool_take(struct cci_http_pool *pool, const char *place, bool fresh,
                                        const struct cci_wait *wait, struct cci_http_link **out, cc_error *err)
{
    *out = fresh ? NULL : cci_http_pool_reuse(pool, place);
    if (*out)
        return CC_OK;
    struct cci_http_link *link = cci_mem_zalloc(1, sizeof(*link)), *old = NULL;
    if (!link || !(link->place = cci_mem_strdup(place))) {
        cci_mem_free(link);
        return cci_fail_nomem(err);
    }
    cc_error_code code = cci_monitor_wait(&pool->monitor, wait, cci_http_pool_has_room, pool, "a connection", err);
    if (!code && pool->count == pool->max) {   /* then one is idle: its place among the counted becomes this one's */
        old = cci_http_pool_pick(pool, place); /* it may have come while this waited */
        old = old ? old : cci_http_pool_pick(pool, NULL);
    } else if (!code) {
        pool->count++;
    }
    cci_monitor_unlock(&pool->monitor);
    if (!code && old && !fresh && strcmp(old->place, place) == 0 && cci_http_link_is_good(old)) {
        *out = old;
        old = link;
    } else if (!code) {
        *out = link;
    }
    if (code || old)
        cci_http_link_free(code ? link : old);
    return code;
}

#endif
