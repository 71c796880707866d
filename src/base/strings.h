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

/* Appends copies of the strings of `from`; of several of one KEY the last one stays, in the place of the first, as
 * os/exec has it. */
static bool cci_env_add_all(struct cci_strings *env, const struct cci_strings *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const char *value = strchr(from->at[i], '=');
        char *key = value ? cci_mem_strndup(from->at[i], (size_t)(value - from->at[i])) : NULL;
        const bool ok = value ? key && cci_env_set(env, key, value + 1) : cci_strings_add(env, from->at[i]);
        cci_mem_free(key);
        if (!ok)
            return false;
    }
    return true;
}

#endif
