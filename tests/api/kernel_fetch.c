/*
 * What test_kernel_fetch.py runs: opens the kernel that an instance would start with, from a cache directory.
 *
 *     kernel_fetch STORE
 *
 * In the environment: CC_KERNEL_MIRROR, CC_KERNEL_KEY; CANCEL_AT: the token is cancelled when a log line has this in
 * it; KILL_AT: the process kills itself then; PRUNE_AT: another client of the cache comes then, and prunes it, or with
 * "start" before anything else. Prints the log's lines, then "kernel PATH" and "modules PATH", or "error CODE MESSAGE".
 */
#define CC_IMPLEMENTATION
#include <signal.h>

#include "../../cc.h"

static const char *cache;

static void prune(void)
{
    cc_oci_client client = 0;
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    cc_error_code code = cc_init();
    if (!code)
        code = cc_oci_client_new_with_cache(cache, &client, &err);
    if (!code)
        code = cc_oci_client_prune(client, NULL, &err);
    printf("pruned %d %s\n", (int)code, err.message ? err.message : "");
    cc_error_free(&err);
    cc_shutdown();
}

static void on_log(cc_log_level level, const char *line, void *user_data)
{
    const char *at = getenv("CANCEL_AT"), *end = getenv("KILL_AT"), *pruned = getenv("PRUNE_AT");
    printf("log %d %s\n", (int)level, line);
    (void)fflush(stdout);
    if (at && strstr(line, at))
        cci_cancel_fire(user_data);
    if (pruned && strstr(line, pruned))
        prune();
    if (end && strstr(line, end))
        (void)raise(SIGKILL);
}

int main(int argc, char **argv)
{
    struct cci_store *store;
    struct cci_kernel kernel;
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    struct cci_cancel *cancel = cci_cancel_new();
    const struct cci_wait wait = {CCI_FOREVER, cancel};
    if (argc != 2 || !cancel)
        return 100;
    cache = argv[1];
    if (getenv("PRUNE_AT") && strcmp(getenv("PRUNE_AT"), "start") == 0)
        prune();
    cc_set_log_callback(on_log, cancel);
    cc_error_code code = cci_store_open(argv[1], &store, &err);
    if (code == CC_OK) {
        code = cci_kernel_choose(&kernel, NULL, store, &wait, &err);
        if (code == CC_OK) {
            printf("kernel %s\nmodules %s\n", kernel.path, kernel.modules);
            cci_kernel_close(&kernel);
        }
        cci_store_close(store);
    }
    if (code)
        printf("error %d %s\n", (int)code, err.message ? err.message : "(no memory)");
    cci_cancel_unref(cancel);
    cci_error_release(&err);
    return (int)code;
}
