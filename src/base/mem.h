/*
 * base/mem.h - memory, through the caller's hooks.
 *
 * Everything the library allocates comes through here, so that cc_set_allocator catches all of it and a test
 * can fail the Nth allocation. The hooks are set before cc_init and never change while anything is allocated,
 * so reading them needs no lock. Sizes are checked for overflow where a count is multiplied.
 */
#ifndef CCI_BASE_MEM_H
#define CCI_BASE_MEM_H

#include "base.h"

static void *cci_mem_default_alloc(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, size);
}

/* The hook in use; one of the library's two globals (the other is the handle table). */
static cc_allocator cci_mem_hook = {cci_mem_default_alloc, NULL};

/* Never returns memory for size 0: callers that may have nothing to store ask for at least one byte. */
static void *cci_mem_alloc(size_t size)
{
    return cci_mem_hook.realloc_fn(cci_mem_hook.ctx, NULL, size ? size : 1);
}

/* Zeroed memory for `count` things of `size` bytes. */
static void *cci_mem_zalloc(size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    void *p = cci_mem_alloc(count * size);
    if (p)
        memset(p, 0, count * size);
    return p;
}

/* Like realloc: on failure the old memory stays as it was. */
static void *cci_mem_resize(void *old, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    size_t total = count * size;
    return cci_mem_hook.realloc_fn(cci_mem_hook.ctx, old, total ? total : 1);
}

static void cci_mem_free(void *p)
{
    if (p)
        (void)cci_mem_hook.realloc_fn(cci_mem_hook.ctx, p, 0);
}

/* A copy of n bytes with a NUL behind them. */
static char *cci_mem_strndup(const char *s, size_t n)
{
    char *copy = n < SIZE_MAX ? cci_mem_alloc(n + 1) : NULL;
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

static char *cci_mem_strdup(const char *s)
{
    return cci_mem_strndup(s, strlen(s));
}

/* A printf into fresh memory; NULL when there is none. */
static char *cci_mem_vprintf(const char *fmt, va_list args) CCI_PRINTF(1, 0);
static char *cci_mem_vprintf(const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = CCI_VSNPRINTF(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0)
        return NULL;
    char *s = cci_mem_alloc((size_t)n + 1);
    if (s)
        (void)CCI_VSNPRINTF(s, (size_t)n + 1, fmt, args);
    return s;
}

static char *cci_mem_printf(const char *fmt, ...) CCI_PRINTF(1, 2);
static char *cci_mem_printf(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *s = cci_mem_vprintf(fmt, args);
    va_end(args);
    return s;
}

/* A byte buffer that grows at its end. */
struct cci_buf {
    uint8_t *p;
    size_t n;    /* bytes in use */
    size_t cap;  /* bytes allocated */
    bool failed; /* an append found no memory; all later ones fail too, so a writer may check once, at the end */
};

static void cci_buf_free(struct cci_buf *b)
{
    cci_mem_free(b->p);
    memset(b, 0, sizeof(*b));
}

/* Makes room for n more bytes and returns where they go; NULL (and b->failed) when there is no memory. */
static uint8_t *cci_buf_reserve(struct cci_buf *b, size_t n)
{
    if (b->failed || n > SIZE_MAX / 2 - b->n) {
        b->failed = true;
        return NULL;
    }
    if (b->n + n > b->cap || !b->p) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap < b->n + n)
            cap *= 2;
        uint8_t *p = cci_mem_resize(b->p, cap, 1);
        if (!p) {
            b->failed = true;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

/* Appends n bytes; `data` NULL appends zeroes. Returns false when there is no memory. */
static bool cci_buf_add(struct cci_buf *b, const void *data, size_t n)
{
    uint8_t *p = cci_buf_reserve(b, n);
    if (!p)
        return false;
    if (data && n)
        memcpy(p, data, n);
    else if (n)
        memset(p, 0, n);
    b->n += n;
    return true;
}

static bool cci_buf_str(struct cci_buf *b, const char *s)
{
    return cci_buf_add(b, s, strlen(s));
}

#endif
