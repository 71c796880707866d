/*
 * Allocation N fails, for every N, and then all after it as well: every call gives an error or succeeds, nothing is
 * lost, and the cache can be used afterwards. No hypervisor is needed.
 * @timeout 150
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#include "failing.h"

#define IMAGE "build/tests/busybox.tar"

static cc_error err;
static int failures; /* calls that failed in this round */

/* One call's result: an error is complete, as far as there was memory, and left nothing in *out. */
static bool worked(cc_error_code code, bool out_is_zero, const char *what)
{
    if (code == CC_OK)
        return true;
    failures++;
    bool memory = code == CC_ERR_UNKNOWN || (code == CC_ERR_IO && err.sys_errno == 12 /* ENOMEM */);
    bool whole = err.code == code && out_is_zero && (!err.message || err.message[0]);
    if (!memory || !whole)
        printf("# %s gave %d: %s\n", what, (int)code, err.message ? err.message : "(no message)");
    CHECK(memory && whole);
    cc_error_free(&err);
    return false;
}

#define WORKED(call, out_is_zero) (code = (call), worked(code, (out_is_zero), #call))

/* A session without a guest; true when all of it worked. */
static bool session(void)
{
    cc_error_code code;
    cc_cancel_token token = 0;
    cc_oci_client client = 0;
    cc_instance_source source = 0;
    cc_image_config *config = NULL;
    cc_capabilities caps;
    failures = 0;
    CHECK_EQ_INT(cc_init(), CC_OK);
    if (WORKED(cc_cancel_token_new(&token, &err), token == 0))
        (void)WORKED(cc_cancel_token_cancel(token, &err), true);
    (void)WORKED(cc_query_capabilities(&caps, &err), !caps.hypervisor_available);
    if (WORKED(cc_oci_client_new_with_cache(no_vm_cache, &client, &err), client == 0)) {
        cc_free_string(cc_oci_client_cache_dir(client));
        if (WORKED(cc_oci_client_load_tar(client, IMAGE, NULL, &source, &err), source == 0) &&
            WORKED(cc_source_get_config(source, &config, &err), config == NULL)) {
            CHECK(config->cmd_count == 1 && config->env_count == 1);
            cc_image_config_free(config);
        }
    }
    cc_shutdown();
    return failures == 0;
}

static void empty_cache(void)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'/*", no_vm_cache);
    CHECK(system(command) == 0);
}

static void every_session(bool for_good)
{
    for (long n = 0; n < 5000; n++) {
        empty_cache();
        struct left_behind before = left_behind();
        failing_at(n, for_good);
        bool good = session();
        bool reached = failing_stop() < 0;
        check_left_behind(before);
        if (!reached) {
            CHECK(good && n > 50);
            printf("# %ld allocations\n", n);
            return;
        }
        if (n % 8 == 0) {
            CHECK(session());
            check_left_behind(before);
        }
    }
    CHECK(!"an end");
}

static void test_session_one_fails(void)
{
    every_session(false);
}

static void test_session_all_fail(void)
{
    every_session(true);
}

/* Commands up to their start, which a token forbids. */
static void commands(cc_instance vm, cc_cancel_token token)
{
    static const char *const args[] = {"a", "b", NULL};
    cc_error_code code;
    cc_cmd cmd = 0;
    char **env = NULL;
    size_t count = 0;
    (void)WORKED(cc_cmd_entrypoint(vm, args, &cmd, &err), cmd == 0);
    cc_cmd_free(cmd);
    cmd = 0;
    if (!WORKED(cc_cmd_new(vm, "true", args, &cmd, &err), cmd == 0))
        return;
    (void)WORKED(cc_cmd_set_env(cmd, "NAME", "value", &err), true);
    (void)WORKED(cc_cmd_set_env(cmd, "PATH", "/bin", &err), true);
    (void)WORKED(cc_cmd_set_env(cmd, "HOSTNAME", NULL, &err), true);
    (void)WORKED(cc_cmd_set_dir(cmd, "/tmp", &err), true);
    (void)WORKED(cc_cmd_set_cancel(cmd, token, &err), true);
    cc_free_string(cc_cmd_get_env(cmd, "PATH"));
    if (WORKED(cc_cmd_environ(cmd, &env, &count, &err), !env && count == 0))
        cc_free_string_array(env, count);
    CHECK_EQ_INT(cc_cmd_run(cmd, NULL, &err), CC_ERR_CANCELLED);
    cc_error_free(&err);
    cc_free_string(cc_instance_id(vm));
    cc_cmd_free(cmd);
}

static void test_commands(void)
{
    cc_oci_client client;
    cc_instance_source source;
    cc_cancel_token token;
    CHECK_EQ_INT(cc_init(), CC_OK);
    CHECK_OK(cc_oci_client_new_with_cache(no_vm_cache, &client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, IMAGE, NULL, &source, &err), err);
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    CHECK_OK(cc_cancel_token_cancel(token, &err), err);
    cc_instance vm = no_vm_instance(source, NULL);
    bool reached = true;
    for (long n = 0; reached; n++) {
        struct left_behind before = left_behind();
        failing_at(n, n % 2);
        failures = 0;
        commands(vm, token);
        reached = failing_stop() < 0;
        check_left_behind(before);
        CHECK(reached || (failures == 0 && n > 20));
    }
    cc_shutdown();
}

static void test_nothing_is_left(void)
{
    CHECK_EQ_INT(failing_live, 0);
}

int main(void)
{
    failing_install();
    RUN(no_vm_make_cache);
    RUN(test_session_one_fails);
    RUN(test_session_all_fail);
    RUN(test_commands);
    RUN(test_nothing_is_left);
    RUN(no_vm_clean);
    return check_done();
}
