/*
 * What test_pull_stress.py runs, with a registry's reference:
 *
 *     pull_stress alloc REFERENCE      every allocation of a pull fails once: an error, and nothing is lost
 *     pull_stress threads REFERENCE    pulls of one image by several clients in threads, some of them cancelled
 *
 * CA_FILE, USERNAME and PASSWORD are in the environment.
 */
#include "../api/failing.h"

#include <pthread.h>

static const char *reference;
static int other_errors; /* than those of memory */

static cc_pull_options options(void)
{
    cc_pull_options o;
    memset(&o, 0, sizeof(o));
    o.ca_file = getenv("CA_FILE");
    o.username = getenv("USERNAME");
    o.password = getenv("PASSWORD");
    return o;
}

static void empty_cache(void)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'/*", no_vm_cache);
    CHECK(system(command) == 0);
}

/* ---- Allocations that fail ------------------------------------------------------------------------------------- */

/* A whole pull with a client of its own; what came of it. */
static cc_error_code pull(void)
{
    cc_pull_options opts = options();
    cc_oci_client client = 0;
    cc_instance_source source = 0;
    cc_error err = {0};
    CHECK_EQ_INT(cc_init(), CC_OK);
    cc_error_code code = cc_oci_client_new_with_cache(no_vm_cache, &client, &err);
    if (!code)
        code = cc_oci_client_pull(client, reference, &opts, NULL, NULL, &source, &err);
    CHECK_EQ_INT(err.code, code);
    if (code && code != CC_ERR_UNKNOWN && !(code == CC_ERR_IO && err.sys_errno == ENOMEM)) {
        printf("# %d (%d) %s\n", (int)code, err.sys_errno, err.message ? err.message : "(no message)");
        other_errors++;
    }
    CHECK((code == CC_OK) == (source != 0));
    CHECK(!err.message || err.message[0]);
    cc_error_free(&err);
    cc_shutdown();
    return code;
}

static void every_allocation(bool for_good)
{
    empty_cache();
    failing_at(1000000, false);
    CHECK_EQ_INT(pull(), CC_OK);
    long count = 1000000 - failing_stop(), survived = 0, runs = 0;
    /* All of the first ones, then some: what comes later is mostly the same again, for each layer. */
    for (long n = 0; n < count; n += n < 50 ? 1 : 1 + count / 80, runs++) {
        empty_cache();
        struct left_behind before = left_behind();
        failing_at(n, for_good);
        cc_error_code code = pull();
        bool reached = failing_stop() < 0;
        check_left_behind(before);
        if (reached && code == CC_OK)
            survived++; /* what is only useful, such as a connection to be kept, may be missing */
        if (!reached)
            CHECK_EQ_INT(code, CC_OK); /* threads: this time there were fewer */
        if (runs % 8 == 0)
            CHECK_EQ_INT(pull(), CC_OK); /* from what the failed one left */
        check_left_behind(before);
    }
    printf("# %ld allocations, %ld runs, %ld worked all the same\n", count, runs, survived);
    CHECK(count > 300 && runs > 100);
    CHECK_EQ_INT(other_errors, 0);
    CHECK(for_good ? survived == 0 : survived * 5 < runs);
}

static void test_one_allocation_fails(void)
{
    every_allocation(false);
}

static void test_all_allocations_fail(void)
{
    every_allocation(true);
}

/* ---- Threads ----------------------------------------------------------------------------------------------------- */

#define THREADS 4

static cc_cancel_token token;

struct puller {
    pthread_t thread;
    cc_oci_client client;
    bool cancelled; /* it pulls under the token */
    cc_error_code code;
};

/* Ends the pulls under the token, from the thread of one that is not. */
static void on_progress(const cc_download_progress *p, void *user_data)
{
    (void)user_data;
    if (p->current > p->total / 3)
        CHECK_EQ_INT(cc_cancel_token_cancel(token, NULL), CC_OK);
}

static void *puller_main(void *ctx)
{
    struct puller *p = ctx;
    cc_pull_options opts = options();
    cc_instance_source source = 0;
    cc_error err = {0};
    opts.policy = CC_PULL_ALWAYS;
    opts.cancel = p->cancelled ? token : 0;
    p->code = cc_oci_client_pull(p->client, reference, &opts, p->cancelled ? NULL : on_progress, NULL, &source, &err);
    if (p->code && p->code != CC_ERR_CANCELLED)
        printf("# %d %s\n", (int)p->code, err.message ? err.message : "");
    cc_error_free(&err);
    cc_instance_source_free(source);
    return NULL;
}

/* Two clients of one store, each in two threads; every second time one thread of each is cancelled by another one. */
static void test_threads(void)
{
    int cancelled = 0;
    CHECK_EQ_INT(cc_init(), CC_OK);
    for (int round = 0; round < 8; round++) {
        struct puller p[THREADS];
        cc_error err = {0};
        empty_cache();
        CHECK_OK(cc_cancel_token_new(&token, &err), err);
        memset(p, 0, sizeof(p));
        for (int i = 0; i < 2; i++)
            CHECK_OK(cc_oci_client_new_with_cache(no_vm_cache, &p[i].client, &err), err);
        for (int i = 0; i < THREADS; i++) {
            p[i].client = p[i % 2].client;
            p[i].cancelled = round % 2 && i >= 2;
            CHECK_EQ_INT(pthread_create(&p[i].thread, NULL, puller_main, &p[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            (void)pthread_join(p[i].thread, NULL);
            cancelled += p[i].code == CC_ERR_CANCELLED;
            CHECK(p[i].code == CC_OK || (p[i].cancelled && p[i].code == CC_ERR_CANCELLED));
        }
        cc_oci_client_free(p[0].client);
        cc_oci_client_free(p[1].client);
        cc_cancel_token_free(token);
    }
    CHECK(cancelled > 0);
    cc_shutdown();
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 100;
    reference = argv[2];
    if (strcmp(argv[1], "alloc") == 0) {
        failing_install();
        RUN(no_vm_make_cache);
        RUN(test_one_allocation_fails);
        RUN(test_all_allocations_fail);
    } else {
        RUN(no_vm_make_cache);
        RUN(test_threads);
    }
    RUN(no_vm_clean);
    return check_done();
}
