/*
 * base/strings.h - lists of strings that grow, in the shape that C programs expect: an array that ends with NULL.
 */
#ifndef CCI_BASE_STRINGS_H
#define CCI_BASE_STRINGS_H

#include "mem.h"

struct cci_strings {
    char **at; /* count strings and a NULL; NULL itself while the list is empty and was never added to */
    size_t count;
};

static void cci_strings_free(struct cci_strings *s)
{
    for (size_t i = 0; i < s->count; i++)
        cci_mem_free(s->at[i]);
    cci_mem_free(s->at);
    s->at = NULL;
    s->count = 0;
}

/* Appends a string that the list takes over, also on failure; NULL counts as failure, so that the result of an
 * allocation may be passed on unseen. */
static bool cci_strings_take(struct cci_strings *s, char *string)
{
    char **v = string ? cci_mem_resize(s->at, s->count + 2, sizeof(*v)) : NULL;
    if (!v) {
        cci_mem_free(string);
        return false;
    }
    s->at = v;
    v[s->count++] = string;
    v[s->count] = NULL;
    return true;
}

/* Appends a copy. */
static bool cci_strings_add(struct cci_strings *s, const char *string)
{
    return cci_strings_take(s, cci_mem_strdup(string));
}

/* Appends copies of the first `count` of `from`, or, with count SIZE_MAX, of all up to a NULL. */
static bool cci_strings_add_all(struct cci_strings *s, const char *const *from, size_t count)
{
    for (size_t i = 0; i < count && (count != SIZE_MAX || from[i]); i++)
        if (!cci_strings_add(s, from[i]))
            return false;
    return true;
}

/* Gives the array away, to be freed as cc_free_string_array does; an empty list gives an array of one NULL. NULL when
 * there is no memory. */
static char **cci_strings_release(struct cci_strings *s, size_t *count)
{
    char **v = s->at ? s->at : cci_mem_zalloc(1, sizeof(*v));
    *count = v ? s->count : 0;
    if (v) {
        s->at = NULL;
        s->count = 0;
    }
    return v;
}

/* ---- The same as an environment: "KEY=VALUE" --------------------------------------------------------------- */

/* Where KEY stands in the list; count if nowhere. */
static size_t cci_env_find(const struct cci_strings *env, const char *key)
{
    size_t n = strlen(key), i = 0;
    while (i < env->count && !(strncmp(env->at[i], key, n) == 0 && env->at[i][n] == '='))
        i++;
    return i;
}

/* The value of KEY, inside the list; NULL when it is not set. */
static const char *cci_env_get(const struct cci_strings *env, const char *key)
{
    size_t i = cci_env_find(env, key);
    return i < env->count ? env->at[i] + strlen(key) + 1 : NULL;
}

static void cci_env_remove(struct cci_strings *env, const char *key)
{
    size_t i = cci_env_find(env, key);
    if (i == env->count)
        return;
    cci_mem_free(env->at[i]);
    memmove(env->at + i, env->at + i + 1, (env->count - i) * sizeof(*env->at)); /* the NULL moves too */
    env->count--;
}

static bool cci_env_set(struct cci_strings *env, const char *key, const char *value)
{
    size_t i = cci_env_find(env, key);
    char *both = cci_mem_printf("%s=%s", key, value);
    if (i == env->count)
        return cci_strings_take(env, both);
    if (!both)
        return false;
    cci_mem_free(env->at[i]);
    env->at[i] = both;
    return true;
}

/* A string of an environment, for sorting. */
struct cci_env_entry {
    const char *text;
    size_t key_n; /* bytes of "KEY="; 0 when it has none */
    size_t at;    /* its place in the list */
};

static int cci_env_order(const void *x, const void *y)
{
    const struct cci_env_entry *a = x, *b = y;
    int d = memcmp(a->text, b->text, CCI_MIN(a->key_n, b->key_n));
    if (d == 0 && a->key_n != b->key_n)
        return a->key_n < b->key_n ? -1 : 1;
    return d ? d : a->at < b->at ? -1 : 1;
}

/* Of the strings that stay, texts[] gets each in its place; the others are NULL. */
static void cci_env_choose(struct cci_env_entry *entries, size_t count, const char **texts)
{
    qsort(entries, count, sizeof(*entries), cci_env_order);
    for (size_t first = 0, next; first < count; first = next) {
        const struct cci_env_entry *f = &entries[first];
        for (next = first + 1; next < count && f->key_n && entries[next].key_n == f->key_n &&
                               memcmp(entries[next].text, f->text, f->key_n) == 0;)
            next++;
        texts[f->at] = entries[next - 1].text;
    }
}

/* Fills an empty list with copies of the strings of `from`; of several of one KEY the last one stays, in the place of
 * the first, as os/exec has it. They are sorted for that, as an image may bring tens of thousands. */
static bool cci_env_copy(struct cci_strings *env, const struct cci_strings *from)
{
    struct cci_env_entry *entries = cci_mem_zalloc(from->count + 1, sizeof(*entries));
    const char **texts = cci_mem_zalloc(from->count + 1, sizeof(*texts));
    bool ok = entries && texts && (env->at = cci_mem_zalloc(from->count + 1, sizeof(*env->at))) != NULL;
    for (size_t i = 0; i < from->count && ok; i++) {
        const char *text = from->at[i], *value = strchr(text, '=');
        entries[i] = (struct cci_env_entry){text, value ? (size_t)(value - text) + 1 : 0, i};
    }
    if (ok)
        cci_env_choose(entries, from->count, texts);
    for (size_t i = 0; i < from->count && ok; i++)
        if (texts[i] && (ok = (env->at[env->count] = cci_mem_strdup(texts[i])) != NULL))
            env->count++;
    cci_mem_free(entries);
    cci_mem_free(texts);
    return ok;
}

#endif
