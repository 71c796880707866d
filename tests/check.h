/*
 * tests/check.h - the few words that C tests are written in.
 *
 *     static void test_something(void) { CHECK(1 + 1 == 2); }
 *     int main(void) { RUN(test_something); return check_done(); }
 *
 * A failed check prints where, and ends the current test (not the program). Output is one line a test:
 * "ok NAME", "not ok NAME", or "skip NAME: reason", which tests/run counts.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static jmp_buf check_escape;
static int check_failures;

static void check_fail(const char *file, int line, const char *what)
{
    printf("# %s:%d: %s\n", file, line, what);
    longjmp(check_escape, 1);
}

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            check_fail(__FILE__, __LINE__, "not true: " #cond);                                                        \
    } while (0)

#define CHECK_EQ_INT(got, want) check_eq_int(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
#define CHECK_EQ_STR(got, want) check_eq_str(__FILE__, __LINE__, #got, (got), (want))

/* For calls that fill a cc_error: shows its message. */
#define CHECK_OK(call, err)                                                                                            \
    do {                                                                                                               \
        int check_code = (int)(call); /* before err is looked at */                                                    \
        check_ok(__FILE__, __LINE__, #call, check_code, (err).message);                                                \
    } while (0)

static void check_eq_int(const char *file, int line, const char *expr, long long got, long long want)
{
    char text[400];
    if (got == want)
        return;
    (void)snprintf(text, sizeof(text), "%s is %lld, not %lld", expr, got, want);
    check_fail(file, line, text);
}

static void check_eq_str(const char *file, int line, const char *expr, const char *got, const char *want)
{
    char text[2000];
    if (got && want && strcmp(got, want) == 0)
        return;
    (void)snprintf(text, sizeof(text), "%s is \"%s\", not \"%s\"", expr, got ? got : "(null)", want ? want : "(null)");
    check_fail(file, line, text);
}

static void check_ok(const char *file, int line, const char *expr, int code, const char *message)
{
    char text[2000];
    if (code == 0)
        return;
    (void)snprintf(text, sizeof(text), "%s gave %d: %s", expr, code, message ? message : "(no message)");
    check_fail(file, line, text);
}

#define RUN(fn) check_run(#fn, fn)
#define SKIP(fn, reason) (void)(printf("skip %s: %s\n", #fn, (reason)), fflush(stdout))

static void check_run(const char *name, void (*fn)(void))
{
    if (setjmp(check_escape) == 0) {
        fn();
        printf("ok %s\n", name);
    } else {
        printf("not ok %s\n", name);
        check_failures++;
    }
    (void)fflush(stdout);
}

static int check_done(void)
{
    return check_failures ? 1 : 0;
}

#endif
