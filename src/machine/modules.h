/*
 * machine/modules.h - which of a kernel's modules a guest needs before it can reach its disk, and in which order.
 *
 * Works on the files that depmod writes beside the modules (modules.dep(5), modprobe.d(5) for softdep):
 *
 *   modules.dep      "path.ko: path.ko path.ko ..."       what a module needs
 *   modules.softdep  "softdep name pre: a b post: c"      what it likes to have before and after it, if there
 *   modules.builtin  "path.ko"                            what the kernel image already contains
 *
 * Names are compared with - and _ alike, and without the ".ko", ".ko.gz", ".ko.xz" or ".ko.zst". The result is a list
 * of lines of modules.dep, each after everything that it needs. A wanted module that is neither there nor built in is
 * an error if nothing works without it. The files are not trusted: cycles end, and the depth, the number of modules and
 * the number of names that are looked up are bounded.
 */
#ifndef CCI_MACHINE_MODULES_H
#define CCI_MACHINE_MODULES_H

#include "../base/bytes.h"
#include "../base/error.h"

#define CCI_MODULES_MAX_DEPTH 32u
#define CCI_MODULES_MAX_LINES 65536u
#define CCI_MODULES_MAX_COUNT 256u
#define CCI_MODULES_MAX_LOOKUPS 2048u

/* A piece of one of the files. */
struct cci_modules_text {
    const char *p;
    size_t n;
};

struct cci_modules_line {
    struct cci_modules_text path; /* before the colon */
    struct cci_modules_text name; /* in the path */
    struct cci_modules_text needs;
    bool visited;
};

struct cci_modules {
    struct cci_modules_text softdep, builtin;
    struct cci_modules_line *line; /* of modules.dep */
    size_t lines;
    size_t *order; /* the result: indexes of lines, in the order of loading */
    size_t count;
    unsigned lookups; /* so far */
};

/* Takes what comes before the first `end` (or everything) off the front, with the `end`. */
static struct cci_modules_text cci_modules_take(struct cci_modules_text *t, char end)
{
    const char *stop = t->n ? memchr(t->p, end, t->n) : NULL;
    struct cci_modules_text head = {t->p, stop ? (size_t)(stop - t->p) : t->n};
    size_t used = head.n + (stop ? 1 : 0);
    if (used) {
        t->p += used;
        t->n -= used;
    }
    return head;
}

/* The next word; its n is 0 at the end. */
static struct cci_modules_text cci_modules_word(struct cci_modules_text *t)
{
    struct cci_modules_text word = {t->p, 0};
    while (t->n && word.n == 0)
        word = cci_modules_take(t, ' ');
    return word;
}

/* The module's name in a path: the last part, up to the first dot. */
static struct cci_modules_text cci_modules_name(struct cci_modules_text path)
{
    for (size_t i = path.n; i > 0; i--)
        if (path.p[i - 1] == '/') {
            path.p += i;
            path.n -= i;
            break;
        }
    const char *dot = path.n ? memchr(path.p, '.', path.n) : NULL;
    if (dot)
        path.n = (size_t)(dot - path.p);
    return path;
}

static bool cci_modules_same(struct cci_modules_text a, struct cci_modules_text b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (a.p[i] != b.p[i] && !((a.p[i] == '-' || a.p[i] == '_') && (b.p[i] == '-' || b.p[i] == '_')))
            return false;
    return true;
}

static struct cci_modules_text cci_modules_str(const char *s)
{
    struct cci_modules_text t = {s, strlen(s)};
    return t;
}

static void cci_modules_free(struct cci_modules *m)
{
    cci_mem_free(m->line);
    cci_mem_free(m->order);
    memset(m, 0, sizeof(*m));
}

/* Takes the three files, which stay where they are; softdep and builtin may be empty. */
static cc_error_code cci_modules_init(struct cci_modules *m, struct cci_modules_text dep,
                                      struct cci_modules_text softdep, struct cci_modules_text builtin, cc_error *err)
{
    memset(m, 0, sizeof(*m));
    size_t lines = 0;
    for (size_t i = 0; i < dep.n; i++)
        lines += dep.p[i] == '\n';
    if (lines >= CCI_MODULES_MAX_LINES)
        return cci_fail(err, CC_ERR_IO, NULL, "modules.dep has more than %u lines", CCI_MODULES_MAX_LINES);
    m->softdep = softdep;
    m->builtin = builtin;
    m->line = cci_mem_zalloc(lines + 1, sizeof(*m->line));
    m->order = cci_mem_zalloc(lines + 1, sizeof(*m->order));
    if (!m->line || !m->order) {
        cci_modules_free(m);
        return cci_fail_nomem(err);
    }
    while (dep.n) {
        struct cci_modules_text rest = cci_modules_take(&dep, '\n');
        struct cci_modules_text path = cci_modules_take(&rest, ':');
        if (path.n == 0)
            continue;
        m->line[m->lines].path = path;
        m->line[m->lines].name = cci_modules_name(path);
        m->line[m->lines++].needs = rest;
    }
    return CC_OK;
}

static struct cci_modules_line *cci_modules_find(const struct cci_modules *m, struct cci_modules_text name)
{
    for (size_t i = 0; i < m->lines; i++)
        if (cci_modules_same(m->line[i].name, name))
            return &m->line[i];
    return NULL;
}

static bool cci_modules_is_builtin(const struct cci_modules *m, struct cci_modules_text name)
{
    for (struct cci_modules_text t = m->builtin; t.n;)
        if (cci_modules_same(cci_modules_name(cci_modules_take(&t, '\n')), name))
            return true;
    return false;
}

static cc_error_code cci_modules_visit(struct cci_modules *m, struct cci_modules_line *l, unsigned depth,
                                       cc_error *err);

/* Finds a line for another; *out is NULL if there is none. Each look goes through all lines, so they are counted. */
static cc_error_code cci_modules_look(struct cci_modules *m, struct cci_modules_text name,
                                      struct cci_modules_line **out, cc_error *err)
{
    *out = NULL;
    if (m->lookups++ >= CCI_MODULES_MAX_LOOKUPS)
        return cci_fail(err, CC_ERR_IO, NULL, "the kernel's modules have too many dependencies");
    *out = cci_modules_find(m, name);
    return CC_OK;
}

/* Visits the modules that the softdep lines of `name` list behind `which` ("pre:" or "post:"). */
static cc_error_code cci_modules_soft(struct cci_modules *m, struct cci_modules_text name, const char *which,
                                      unsigned depth, cc_error *err)
{
    for (struct cci_modules_text all = m->softdep; all.n;) {
        struct cci_modules_text line = cci_modules_take(&all, '\n');
        if (!cci_modules_same(cci_modules_word(&line), cci_modules_str("softdep")) ||
            !cci_modules_same(cci_modules_word(&line), name))
            continue;
        bool on = strcmp(which, "pre:") == 0; /* words before either keyword count as pre, as for modprobe */
        for (struct cci_modules_text w = cci_modules_word(&line); w.n; w = cci_modules_word(&line)) {
            if (w.p[w.n - 1] == ':') {
                on = cci_modules_same(w, cci_modules_str(which));
                continue;
            }
            struct cci_modules_line *found = NULL;
            cc_error_code code = on ? cci_modules_look(m, w, &found, err) : CC_OK;
            if (found)
                code = cci_modules_visit(m, found, depth + 1, err);
            if (code != CC_OK)
                return code;
        }
    }
    return CC_OK;
}

/* Puts what a module needs, and then itself, into the order. */
static cc_error_code cci_modules_visit(struct cci_modules *m, struct cci_modules_line *l, unsigned depth, cc_error *err)
{
    if (l->visited)
        return CC_OK;
    if (depth > CCI_MODULES_MAX_DEPTH || m->count >= CCI_MODULES_MAX_COUNT)
        return cci_fail(err, CC_ERR_IO, NULL, "the kernel's modules depend on each other too deeply");
    l->visited = true;
    struct cci_modules_text name = l->name, needs = l->needs;
    cc_error_code code = cci_modules_soft(m, name, "pre:", depth, err);
    for (struct cci_modules_text w = cci_modules_word(&needs); w.n && code == CC_OK; w = cci_modules_word(&needs)) {
        struct cci_modules_line *other;
        code = cci_modules_look(m, cci_modules_name(w), &other, err);
        if (code != CC_OK)
            return code;
        if (!other)
            return cci_fail(err, CC_ERR_IO, NULL, "modules.dep: %.*s needs %.*s, which is not there: run depmod",
                            (int)CCI_MIN(name.n, 100u), name.p, (int)CCI_MIN(w.n, 200u), w.p);
        code = cci_modules_visit(m, other, depth + 1, err);
    }
    if (code != CC_OK)
        return code;
    m->order[m->count++] = (size_t)(l - m->line);
    return cci_modules_soft(m, name, "post:", depth, err);
}

/* Adds a module and all it needs to the order, unless the kernel has it built in. */
static cc_error_code cci_modules_want(struct cci_modules *m, const char *name, bool required, cc_error *err)
{
    struct cci_modules_text text = cci_modules_str(name);
    struct cci_modules_line *l = cci_modules_find(m, text);
    if (l)
        return cci_modules_visit(m, l, 0, err);
    if (!required || cci_modules_is_builtin(m, text))
        return CC_OK;
    return cci_fail(err, CC_ERR_IO, NULL,
                    "this kernel has no %s, neither built in nor as a module: use a kernel for virtual machines", name);
}

#endif
