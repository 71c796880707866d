/*
 * registry/auth_memory.h - what proved who we are, from one pull to the next.
 *
 * A registry that wants a login costs each pull more requests than the pull itself needs: one that is refused, and one
 * to the token server. So what a registry accepted is kept, with the client, in memory only, until it runs out; a few
 * of them, the ones used last. The next pull says it without being asked, and if that is refused it goes on as if
 * nothing had been kept.
 *
 * What is kept is found again only by a pull that would have come to the same: same registry and repository, same user
 * name and password, or without them the same Docker configuration (whoever logs out, or in as somebody else, is not
 * taken for the one before), same additional authorities; and it is sent over TLS only if it was accepted there. The
 * name under which it is kept is a digest of all these.
 */
#ifndef CCI_REGISTRY_AUTH_MEMORY_H
#define CCI_REGISTRY_AUTH_MEMORY_H

#include "../base/os.h"
#include "../image/digest.h"
#include "docker_config.h"

#define CCI_AUTH_KEPT 16u

struct cci_auth_kept {
    struct cci_digest key;
    char *header;   /* NULL: nothing */
    uint64_t until; /* cci_os_now() nanoseconds */
    bool plain;     /* it was accepted without TLS */
    uint64_t used;  /* by the memory's clock */
};

struct cci_auth_memory {
    struct cci_mutex mutex; /* for the rest */
    struct cci_auth_kept kept[CCI_AUTH_KEPT];
    uint64_t clock; /* counts uses */
};

static void cci_auth_memory_init(struct cci_auth_memory *m)
{
    memset(m, 0, sizeof(*m));
    cci_mutex_init(&m->mutex);
}

static void cci_auth_memory_destroy(struct cci_auth_memory *m)
{
    for (size_t i = 0; i < CCI_AUTH_KEPT; i++)
        cci_credentials_wipe(m->kept[i].header);
    cci_mutex_destroy(&m->mutex);
}

/* Strings may be NULL, which differs from empty. */
static struct cci_digest cci_auth_memory_key(const char *const *strings, size_t count)
{
    struct cci_sha256 h;
    struct cci_digest key;
    cci_sha256_init(&h);
    for (size_t i = 0; i < count; i++) {
        cci_sha256_update(&h, strings[i] ? "+" : "-", 1);
        if (strings[i])
            cci_sha256_update(&h, strings[i], strlen(strings[i]) + 1);
    }
    cci_sha256_final(&h, key.bytes);
    return key;
}

static struct cci_auth_kept *cci_auth_memory_find(struct cci_auth_memory *m, const struct cci_digest *key)
{
    for (size_t i = 0; i < CCI_AUTH_KEPT; i++)
        if (m->kept[i].header && cci_digest_equal(&m->kept[i].key, key))
            return &m->kept[i];
    return NULL;
}

static void cci_auth_memory_drop(struct cci_auth_kept *k)
{
    cci_credentials_wipe(k->header);
    memset(k, 0, sizeof(*k));
}

/* A copy of what is kept, for cci_credentials_wipe; NULL when there is nothing. */
static char *cci_auth_memory_get(struct cci_auth_memory *m, const struct cci_digest *key, uint64_t *until, bool *plain)
{
    char *header = NULL;
    cci_mutex_lock(&m->mutex);
    struct cci_auth_kept *k = cci_auth_memory_find(m, key);
    if (k && cci_os_now() >= k->until) {
        cci_auth_memory_drop(k);
    } else if (k) {
        header = cci_mem_strdup(k->header);
        *until = k->until;
        *plain = k->plain;
        k->used = ++m->clock;
    }
    cci_mutex_unlock(&m->mutex);
    return header;
}

/* Keeps a copy, if there is memory for it. */
static void cci_auth_memory_put(struct cci_auth_memory *m, const struct cci_digest *key, const char *header,
                                uint64_t until, bool plain)
{
    char *copy = cci_mem_strdup(header);
    if (!copy)
        return;
    cci_mutex_lock(&m->mutex);
    struct cci_auth_kept *k = cci_auth_memory_find(m, key);
    for (size_t i = 0; i < CCI_AUTH_KEPT && (!k || !cci_digest_equal(&k->key, key)); i++)
        if (!k || m->kept[i].used < k->used)
            k = &m->kept[i]; /* one that is free, or was not used for longest */
    cci_auth_memory_drop(k);
    *k = (struct cci_auth_kept){*key, copy, until, plain, ++m->clock};
    cci_mutex_unlock(&m->mutex);
}

/* It was refused. */
static void cci_auth_memory_forget(struct cci_auth_memory *m, const struct cci_digest *key)
{
    cci_mutex_lock(&m->mutex);
    struct cci_auth_kept *k = cci_auth_memory_find(m, key);
    if (k)
        cci_auth_memory_drop(k);
    cci_mutex_unlock(&m->mutex);
}

#endif
