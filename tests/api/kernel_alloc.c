/*
 * What test_kernel_fetch.py runs: every allocation of fetching a kernel fails once, then all after it as well. What
 * comes of it is the kernel, whole, or an error; nothing is lost, and the next try works.
 *
 *     kernel_alloc      with CC_KERNEL_MIRROR and CC_KERNEL_KEY in the environment
 */
#define _GNU_SOURCE
#include "failing.h"

static cc_error err;

static void empty_cache(void)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'/*", no_vm_cache);
    CHECK(system(command) == 0);
}

/* Whether the cache has a name in it that is neither the bundle nor a room of the store. */
static bool is_littered(void)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/tmp", no_vm_cache);
    return count_in(path) > 2; /* . and .. */
}

/* Finds a kernel with a store of its own; whether it is the fetched one, with its modules. Fills err otherwise. */
static bool fetch(void)
{
    const struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_store *store;
    struct cci_kernel kernel;
    cc_error_code code = cci_store_open(no_vm_cache, &store, &err);
    if (code)
        return false;
    code = cci_kernel_choose(&kernel, NULL, store, &wait, &err);
    bool fetched = !code && strncmp(kernel.path, no_vm_cache, strlen(no_vm_cache)) == 0 && kernel.modules[0];
    CHECK_EQ_INT(err.code, code);
    if (!code)
        cci_kernel_close(&kernel);
    cci_store_close(store);
    return fetched;
}

static void every_allocation(bool for_good)
{
    int other = 0; /* errors that do not say what is wrong */
    for (long n = 0; n < 5000; n++) {
        empty_cache();
        struct left_behind before = left_behind();
        failing_at(n, for_good);
        bool fetched = fetch();
        bool reached = failing_stop() < 0;
        if (!fetched && err.message && !strstr(err.message, "memory")) {
            printf("# %ld: %s\n", n, err.message);
            other++;
        }
        cci_error_release(&err);
        check_left_behind(before);
        CHECK(!is_littered());
        if (!reached) {
            CHECK(fetched && n > 50);
            printf("# %ld allocations\n", n);
            break;
        }
        if (n % 8 == 0)
            CHECK(fetch());
        cci_error_release(&err);
    }
    CHECK_EQ_INT(other, 0);
}

static void test_one_allocation_fails(void)
{
    every_allocation(false);
}

static void test_all_allocations_fail(void)
{
    every_allocation(true);
}

int main(void)
{
    failing_install();
    RUN(no_vm_make_cache);
    RUN(test_one_allocation_fails);
    RUN(test_all_allocations_fail);
    RUN(no_vm_clean);
    return check_done();
}
