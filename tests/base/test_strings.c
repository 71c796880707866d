/* String lists and environments. */
#include "../../src/base/strings.h"
#include "../check.h"

static void test_list(void)
{
    static const char *const more[] = {"b", "c", NULL};
    struct cci_strings s = {0};
    CHECK(cci_strings_add(&s, "a") && cci_strings_add_all(&s, more, SIZE_MAX) && cci_strings_add_all(&s, more, 1));
    CHECK_EQ_INT(s.count, 4);
    CHECK(strcmp(s.at[2], "c") == 0 && strcmp(s.at[3], "b") == 0 && !s.at[4]);
    CHECK(!cci_strings_take(&s, NULL));
    size_t n;
    char **v = cci_strings_release(&s, &n);
    CHECK(v && n == 4 && s.count == 0);
    struct cci_strings back = {v, n};
    cci_strings_free(&back);
    v = cci_strings_release(&s, &n);
    CHECK(v && !v[0] && n == 0);
    cci_mem_free(v);
}

static void test_environment(void)
{
    struct cci_strings e = {0};
    CHECK(!cci_env_get(&e, "PATH"));
    CHECK(cci_env_set(&e, "PATH", "/bin") && cci_env_set(&e, "PATHS", "x=y") && cci_env_set(&e, "A", ""));
    CHECK(cci_env_set(&e, "PATH", "/sbin"));
    CHECK_EQ_INT(e.count, 3);
    CHECK_EQ_STR(cci_env_get(&e, "PATH"), "/sbin");
    CHECK_EQ_STR(cci_env_get(&e, "PATHS"), "x=y");
    CHECK_EQ_STR(cci_env_get(&e, "A"), "");
    CHECK(!cci_env_get(&e, "PAT"));
    cci_env_remove(&e, "PATH");
    cci_env_remove(&e, "nothing");
    struct cci_strings twice = {0}, once = {0};
    CHECK(cci_strings_add(&twice, "A=1") && cci_strings_add(&twice, "B") && cci_strings_add(&twice, "=C") &&
          cci_strings_add(&twice, "A=2=3"));
    CHECK(cci_env_copy(&once, &twice) && once.count == 3);
    CHECK_EQ_STR(once.at[0], "A=2=3");
    CHECK_EQ_STR(once.at[1], "B");
    CHECK_EQ_STR(once.at[2], "=C");
    cci_strings_free(&once);
    cci_strings_free(&twice);
    CHECK(e.count == 2 && !cci_env_get(&e, "PATH") && !e.at[2]);
    cci_strings_free(&e);
}

/* An image may have 65536 variables whose names differ only at their ends: no string may be compared with all others,
 * or this takes minutes. */
static void test_large_environment(void)
{
    struct cci_strings from = {cci_mem_zalloc(65537, sizeof(*from.at)), 0};
    char text[140];
    memset(text, 'a', 110);
    for (int i = 0; i < 65536; i++) {
        (void)snprintf(text + 110, sizeof(text) - 110, "%05d=%d", i % 65000, i);
        from.at[from.count++] = cci_mem_strdup(text);
    }
    for (int round = 0; round < 10; round++) {
        struct cci_strings to = {0};
        CHECK(cci_env_copy(&to, &from) && to.count == 65000);
        CHECK(to.count == 65000 && strcmp(to.at[7] + 115, "=65007") == 0 && strcmp(to.at[64999] + 115, "=64999") == 0);
        cci_strings_free(&to);
    }
    cci_strings_free(&from);
}

int main(void)
{
    RUN(test_list);
    RUN(test_environment);
    RUN(test_large_environment);
    return check_done();
}
