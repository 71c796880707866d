/*
 * Every public call with handles and pointers that it must refuse; counting of cc_init; and calls in one thread while
 * another closes, frees, cancels or shuts down. No hypervisor is needed.
 * @setup tools/mkimage busybox build/tests/busybox.tar
 * @sanitize address,undefined
 * @sanitize thread
 */
#define _GNU_SOURCE
#include "no_vm.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "../asleep.h"

#define IMAGE "build/tests/busybox.tar"

static cc_error err;
static cc_oci_client client;
static cc_instance_source source;

/* Fails with this code, names an operation, and says something. */
static void refused(cc_error_code got, cc_error_code want, int line)
{
    if (got != want || err.code != want || !err.op || !err.message || !err.message[0])
        printf("# line %d: %d (%s: %s)\n", line, (int)got, err.op ? err.op : "", err.message ? err.message : "");
    CHECK(got == want && err.code == want && err.op && err.message && err.message[0]);
    cc_error_free(&err);
    CHECK(err.code == CC_OK && !err.op && !err.message && !err.path && !err.sys_errno);
}

#define REFUSED(call, want) refused((call), (want), __LINE__)

/* ---- Arguments -------------------------------------------------------------------------------------------- */

/* Every call that takes a handle, with one that is wrong. */
static void try_bad_handle(cc_handle h, cc_error_code as_instance)
{
    const cc_error_code bad = CC_ERR_INVALID_HANDLE;
    cc_instance_source s = 7;
    cc_instance i = 7;
    cc_cmd c = 7;
    cc_image_config *config = (cc_image_config *)&s;
    uint8_t *bytes = (uint8_t *)&s;
    char **list = (char **)&s;
    size_t n = 7;
    int code = 7;
    cc_file_info info;
    memset(&info, 7, sizeof(info));
    REFUSED(cc_cancel_token_cancel(h, &err), bad);
    CHECK(!cc_cancel_token_is_cancelled(h));
    cc_cancel_token_free(h);
    cc_oci_client_free(h);
    CHECK(!cc_oci_client_cache_dir(h));
    REFUSED(cc_oci_client_load_tar(h, IMAGE, NULL, &s, &err), bad);
    cc_instance_source_free(h);
    REFUSED(cc_source_get_config(h, &config, &err), bad);
    REFUSED(cc_instance_new(h, NULL, &i, &err), bad);
    CHECK(s == 0 && !config && i == 0);
    REFUSED(cc_instance_close(h, &err), as_instance);
    REFUSED(cc_instance_wait(h, &err), as_instance);
    REFUSED(cc_instance_wait_with(h, 0, &err), as_instance);
    CHECK(!cc_instance_id(h) && !cc_instance_is_running(h));
    REFUSED(cc_cmd_new(h, "true", NULL, &c, &err), as_instance);
    CHECK(c == 0);
    c = 7;
    REFUSED(cc_cmd_entrypoint(h, NULL, &c, &err), as_instance);
    REFUSED(cc_fs_read_file(h, "/", &bytes, &n, &err), as_instance);
    CHECK(c == 0 && !bytes && n == 0);
    REFUSED(cc_fs_write_file(h, "/x", NULL, 0, 0644, &err), as_instance);
    REFUSED(cc_fs_stat(h, "/", &info, &err), as_instance);
    CHECK(!info.name && !info.size && !info.mode);
    cc_cmd_free(h);
    REFUSED(cc_cmd_set_dir(h, "/", &err), bad);
    REFUSED(cc_cmd_set_env(h, "A", "b", &err), bad);
    CHECK(!cc_cmd_get_env(h, "A"));
    n = 7;
    REFUSED(cc_cmd_environ(h, &list, &n, &err), bad);
    CHECK(!list && n == 0);
    REFUSED(cc_cmd_set_cancel(h, 0, &err), bad);
    REFUSED(cc_cmd_start(h, &err), bad);
    REFUSED(cc_cmd_wait(h, &code, &err), bad);
    CHECK_EQ_INT(code, 0);
    code = 7;
    REFUSED(cc_cmd_run(h, &code, &err), bad);
    bytes = (uint8_t *)&s, n = 7;
    REFUSED(cc_cmd_output(h, &bytes, &n, &code, &err), bad);
    CHECK(!bytes && n == 0 && code == 0);
    bytes = (uint8_t *)&s, n = 7;
    REFUSED(cc_cmd_combined_output(h, &bytes, &n, &code, &err), bad);
    CHECK(!bytes && n == 0);
    CHECK_EQ_INT(cc_cmd_exit_code(h), -1);
    /* And nobody has to ask why. */
    CHECK_EQ_INT(cc_instance_close(h, NULL), as_instance);
    CHECK_EQ_INT(cc_cmd_run(h, NULL, NULL), bad);
}

static void test_bad_handles(void)
{
    const cc_handle zero = 0, foreign = 0x1234567890abcdefu, all = UINT64_MAX;
    cc_cancel_token token;
    cc_cmd cmd;
    try_bad_handle(zero, CC_ERR_INVALID_HANDLE);
    try_bad_handle(foreign, CC_ERR_INVALID_HANDLE);
    try_bad_handle(all, CC_ERR_INVALID_HANDLE);
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    cc_cancel_token_free(token);
    try_bad_handle(token, CC_ERR_INVALID_HANDLE);
    cc_instance vm = no_vm_instance(source, NULL);
    CHECK_OK(cc_cmd_new(vm, "true", NULL, &cmd, &err), err);
    CHECK_OK(cc_instance_close(vm, &err), err);
    try_bad_handle(vm, CC_ERR_ALREADY_CLOSED);
    try_bad_handle(cmd, CC_ERR_INVALID_HANDLE);
}

/* A bad token where the other handle is good; and a good handle of another kind. */
static void test_bad_tokens_and_kinds(void)
{
    cc_instance vm = no_vm_instance(source, NULL), other;
    cc_instance_source s;
    cc_cmd cmd;
    cc_pull_options pull = {0};
    cc_instance_options o = {0};
    CHECK_OK(cc_cmd_new(vm, "true", NULL, &cmd, &err), err);
    pull.cancel = o.cancel = vm;
    REFUSED(cc_oci_client_load_tar(client, IMAGE, &pull, &s, &err), CC_ERR_INVALID_HANDLE);
    REFUSED(cc_instance_new(source, &o, &other, &err), CC_ERR_INVALID_HANDLE);
    REFUSED(cc_instance_wait_with(vm, client, &err), CC_ERR_INVALID_HANDLE);
    REFUSED(cc_cmd_set_cancel(cmd, vm, &err), CC_ERR_INVALID_HANDLE);
    REFUSED(cc_cmd_run(vm, NULL, &err), CC_ERR_INVALID_HANDLE);
    REFUSED(cc_instance_close(cmd, &err), CC_ERR_INVALID_HANDLE);
    cc_cmd_free(vm);
    cc_oci_client_free(source);
    cc_instance_source_free(client);
    CHECK(cc_instance_is_running(vm));
    cc_cmd_free(cmd);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

static void test_null_arguments(void)
{
    const cc_error_code bad = CC_ERR_INVALID_ARGUMENT;
    cc_instance vm = no_vm_instance(source, NULL);
    uint8_t *bytes;
    char **list;
    size_t n;
    cc_handle h = 7;
    cc_cmd cmd;
    cc_allocator none = {NULL, NULL};
    REFUSED(cc_set_allocator(&none, &err), bad);
    REFUSED(cc_set_allocator(NULL, &err), bad); /* not now */
    REFUSED(cc_query_capabilities(NULL, &err), bad);
    REFUSED(cc_cancel_token_new(NULL, &err), bad);
    REFUSED(cc_oci_client_new(NULL, &err), bad);
    REFUSED(cc_oci_client_new_with_cache(NULL, &h, &err), bad);
    CHECK(h == 0);
    REFUSED(cc_oci_client_new_with_cache("", &h, &err), bad);
    REFUSED(cc_oci_client_new_with_cache("/tmp", NULL, &err), bad);
    REFUSED(cc_oci_client_load_tar(client, NULL, NULL, &h, &err), bad);
    REFUSED(cc_oci_client_load_tar(client, IMAGE, NULL, NULL, &err), bad);
    REFUSED(cc_source_get_config(source, NULL, &err), bad);
    REFUSED(cc_instance_new(source, NULL, NULL, &err), bad);
    REFUSED(cc_cmd_new(vm, NULL, NULL, &h, &err), bad);
    REFUSED(cc_cmd_new(vm, "", NULL, &h, &err), bad);
    REFUSED(cc_cmd_new(vm, "true", NULL, NULL, &err), bad);
    REFUSED(cc_cmd_entrypoint(vm, NULL, NULL, &err), bad);
    REFUSED(cc_fs_read_file(vm, NULL, &bytes, &n, &err), bad);
    REFUSED(cc_fs_read_file(vm, "/x", NULL, &n, &err), bad);
    REFUSED(cc_fs_read_file(vm, "/x", &bytes, NULL, &err), bad);
    REFUSED(cc_fs_write_file(vm, NULL, NULL, 0, 0, &err), bad);
    REFUSED(cc_fs_write_file(vm, "/x", NULL, 1, 0, &err), bad);
    REFUSED(cc_fs_write_file(vm, "/x", NULL, 0, 010000, &err), bad);
    REFUSED(cc_fs_stat(vm, "/", NULL, &err), bad);
    REFUSED(cc_fs_stat(vm, NULL, &(cc_file_info){0}, &err), bad);
    CHECK_OK(cc_cmd_new(vm, "true", NULL, &cmd, &err), err);
    REFUSED(cc_cmd_set_dir(cmd, NULL, &err), bad);
    REFUSED(cc_cmd_set_env(cmd, NULL, "x", &err), bad);
    REFUSED(cc_cmd_set_env(cmd, "", "x", &err), bad);
    CHECK(!cc_cmd_get_env(cmd, NULL));
    REFUSED(cc_cmd_environ(cmd, NULL, &n, &err), bad);
    REFUSED(cc_cmd_environ(cmd, &list, NULL, &err), bad);
    REFUSED(cc_cmd_output(cmd, NULL, &n, NULL, &err), bad);
    REFUSED(cc_cmd_combined_output(cmd, &bytes, NULL, NULL, &err), bad);
    REFUSED(cc_cmd_wait(cmd, NULL, &err), bad); /* not started: the refusals above did not start it */
    CHECK_OK(cc_instance_close(vm, &err), err);
    cc_error_free(NULL);
    cc_free_string(NULL);
    cc_free_bytes(NULL);
    cc_free_string_array(NULL, 3);
    cc_image_config_free(NULL);
    cc_file_info_free(NULL);
}

static void test_success_leaves_the_error_zero(void)
{
    cc_cancel_token token;
    memset(&err, 0x55, sizeof(err)); /* never looked at */
    CHECK_EQ_INT(cc_cancel_token_new(&token, &err), CC_OK);
    CHECK(err.code == CC_OK && !err.message && !err.op && !err.path && !err.sys_errno);
    cc_cancel_token_free(token);
}

static void test_instance_options(void)
{
    static const struct {
        cc_instance_options o;
        const char *says;
    } bad[] = {
        {{.memory_mb = 63}, "memory_mb"},
        {{.memory_mb = UINT64_MAX}, "memory_mb"},
        {{.cpus = -1}, "cpus"},
        {{.timeout_seconds = -1}, "negative"},
        {{.boot_timeout_seconds = -0.5}, "negative"},
        {{.enable_gpu = true}, "enable_gpu"},
        {{.mount_count = 1}, "mounts"},
        {{.disk_mb = 15}, "disk_mb"},
        {{.disk_mb = UINT64_MAX}, "disk_mb"},
    };
    cc_instance vm = 7;
    for (size_t i = 0; i < CCI_COUNT(bad); i++) {
        CHECK_EQ_INT(cc_instance_new(source, &bad[i].o, &vm, &err), CC_ERR_INVALID_ARGUMENT);
        CHECK(vm == 0 && strstr(err.message, bad[i].says));
        cc_error_free(&err);
    }
}

/* ---- Images ------------------------------------------------------------------------------------------------ */

static void test_image(void)
{
    cc_image_config *c;
    cc_pull_options o = {0};
    cc_instance_source none;
    char *dir = cc_oci_client_cache_dir(client);
    CHECK_EQ_STR(dir, no_vm_cache);
    cc_free_string(dir);
    CHECK_OK(cc_source_get_config(source, &c, &err), err);
    CHECK_EQ_STR(c->os, "linux");
    CHECK_EQ_STR(c->architecture, CCI_PLATFORM_ARCH);
    CHECK(c->env_count == 1 && strncmp(c->env[0], "PATH=", 5) == 0 && !c->env[1]);
    CHECK(c->entrypoint_count == 0 && c->entrypoint && !c->entrypoint[0]);
    CHECK(c->cmd_count == 1 && strcmp(c->cmd[0], "sh") == 0 && !c->cmd[1]);
    CHECK(c->working_dir && c->user && !c->user[0]);
    CHECK(c->names_count == 1 && strcmp(c->names[0], "docker.io/cc/busybox:latest") == 0 && !c->names[1]);
    cc_image_info *list = NULL;
    size_t count = 0;
    CHECK_OK(cc_oci_client_list(client, &list, &count, &err), err);
    CHECK(count == 1 && strcmp(list[0].reference, c->names[0]) == 0 && strcmp(list[0].id, c->id) == 0);
    CHECK(count == 1 && strcmp(list[0].ref_digest, list[0].digest) == 0);
    cc_image_info_free(list, count);
    cc_image_config_free(c);
    o.platform_arch = "riscv64";
    REFUSED(cc_oci_client_load_tar(client, IMAGE, &o, &none, &err), CC_ERR_IO);
    REFUSED(cc_oci_client_load_tar(client, "/no/such.tar", NULL, &none, &err), CC_ERR_IO);
    CHECK(none == 0);
}

static void test_image_of_another_architecture(void)
{
    struct cci_object *o;
    cc_image_config *c;
    cc_instance vm = 7;
    CHECK_OK(cci_handle_get(source, CCI_KIND_SOURCE, &o, &err), err);
    struct cci_platform *p = &((struct cci_source *)o)->image->config.platform, kept = *p;
    *p = cci_platform_make("freebsd", "riscv64", NULL);
    CHECK_OK(cc_source_get_config(source, &c, &err), err);
    CHECK(strcmp(c->os, "freebsd") == 0 && strcmp(c->architecture, "riscv64") == 0);
    cc_image_config_free(c);
    CHECK_EQ_INT(cc_instance_new(source, NULL, &vm, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK(vm == 0 && strstr(err.message, "freebsd/riscv64"));
    cc_error_free(&err);
    *p = kept;
    cci_object_unref(o);
}

static void test_no_hypervisor(void)
{
    cc_capabilities c;
    cc_instance vm = 7;
    CHECK_OK(cc_query_capabilities(&c, &err), err);
    CHECK(c.max_memory_mb > 100 && !strcmp(c.architecture, CCI_PLATFORM_ARCH) && !strcmp(c.hypervisor, "kvm"));
    if (c.hypervisor_available) {
        CHECK(c.max_cpus > 0 && cc_supports_hypervisor(&err) == CC_OK);
        return; /* instances are tested elsewhere */
    }
    CHECK_EQ_INT(c.max_cpus, 0);
    REFUSED(cc_supports_hypervisor(&err), CC_ERR_HYPERVISOR_UNAVAILABLE);
    REFUSED(cc_instance_new(source, NULL, &vm, &err), CC_ERR_HYPERVISOR_UNAVAILABLE);
    CHECK(vm == 0);
}

/* ---- Commands before they start ------------------------------------------------------------------------------ */

static void test_settings(void)
{
    cc_instance vm = no_vm_instance(source, NULL);
    cc_cmd cmd;
    char **env, *value;
    size_t count;
    CHECK_OK(cc_cmd_entrypoint(vm, NULL, &cmd, &err), err);
    CHECK_OK(cc_cmd_set_env(cmd, "A", "1", &err), err);
    CHECK_OK(cc_cmd_set_env(cmd, "A", "2=3", &err), err);
    value = cc_cmd_get_env(cmd, "A");
    CHECK_EQ_STR(value, "2=3");
    cc_free_string(value);
    char *id = cc_instance_id(vm), *host = cc_cmd_get_env(cmd, "HOSTNAME");
    CHECK_EQ_STR(host, id);
    cc_free_string(id);
    cc_free_string(host);
    CHECK_OK(cc_cmd_environ(cmd, &env, &count, &err), err);
    CHECK(count == 3 && !env[3]); /* PATH, HOSTNAME, A */
    cc_free_string_array(env, count);
    CHECK_OK(cc_cmd_set_env(cmd, "PATH", NULL, &err), err);
    CHECK(!cc_cmd_get_env(cmd, "PATH"));
    CHECK_EQ_INT(cc_cmd_exit_code(cmd), -1);
    CHECK_OK(cc_instance_close(vm, &err), err);
}

/* ---- Other threads ------------------------------------------------------------------------------------------- */

struct job {
    struct asleep thread;
    cc_error_code (*fn)(struct job *job);
    cc_handle h, token;
    cc_error_code code;
    bool done; /* atomic */
};

static void *job_main(void *arg)
{
    struct job *j = arg;
    j->code = j->fn(j);
    __atomic_store_n(&j->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void job_start(struct job *j, cc_error_code (*fn)(struct job *job), cc_handle h)
{
    j->fn = fn;
    j->h = h;
    j->done = false;
    asleep_begin(&j->thread, job_main, j);
}

static cc_error_code job_end(struct job *j)
{
    (void)asleep_join(&j->thread);
    return j->code;
}

static cc_error_code do_run(struct job *j)
{
    cc_cmd cmd;
    cc_error_code code = cc_cmd_new(j->h, "true", NULL, &cmd, NULL);
    if (code == CC_OK && j->token)
        code = cc_cmd_set_cancel(cmd, j->token, NULL);
    return code ? code : cc_cmd_run(cmd, NULL, NULL);
}

static cc_error_code do_start(struct job *j)
{
    return cc_cmd_start(j->h, NULL);
}

static cc_error_code do_read(struct job *j)
{
    uint8_t *p;
    size_t n;
    return cc_fs_read_file(j->h, "/x", &p, &n, NULL);
}

static cc_error_code do_write(struct job *j)
{
    static const uint8_t zeroes[300000];
    return cc_fs_write_file(j->h, "/x", zeroes, sizeof(zeroes), 0644, NULL);
}

static cc_error_code do_wait(struct job *j)
{
    return cc_instance_wait_with(j->h, j->token, NULL);
}

static cc_error_code do_close(struct job *j)
{
    return cc_instance_close(j->h, NULL);
}

static cc_error_code do_shutdown(struct job *j)
{
    (void)j;
    cc_shutdown();
    return CC_OK;
}

static cc_error_code do_load(struct job *j)
{
    cc_instance_source s;
    cc_error_code code = cc_oci_client_load_tar(j->h, IMAGE, NULL, &s, NULL);
    return code;
}

/* Until `n` calls are inside the instance. */
static void wait_for_callers(cc_instance vm, unsigned n)
{
    struct cci_object *o;
    CHECK_EQ_INT(cci_handle_get(vm, CCI_KIND_INSTANCE, &o, NULL), CC_OK);
    struct cci_instance *i = (struct cci_instance *)o;
    for (unsigned calls = 0; calls < n;) {
        (void)sched_yield();
        cci_monitor_lock(&i->monitor);
        calls = i->calls;
        cci_monitor_unlock(&i->monitor);
    }
    cci_object_unref(o);
}

static void test_close_ends_every_call(void)
{
    struct job job[5] = {0};
    cc_instance vm = no_vm_instance(source, NULL);
    job_start(&job[0], do_run, vm);
    job_start(&job[1], do_read, vm);
    job_start(&job[2], do_write, vm);
    job_start(&job[3], do_wait, vm);
    wait_for_callers(vm, 4);
    CHECK_OK(cc_instance_close(vm, &err), err);
    for (int k = 0; k < 3; k++) {
        cc_error_code code = job_end(&job[k]);
        /* The first may be between new and run, with its command or without. */
        if (k || (code != CC_ERR_ALREADY_CLOSED && code != CC_ERR_INVALID_HANDLE))
            CHECK_EQ_INT(code, CC_ERR_NOT_RUNNING);
    }
    CHECK_EQ_INT(job_end(&job[3]), CC_OK);
}

static void test_many_close_at_once(void)
{
    for (int round = 0; round < 30; round++) {
        struct job job[6] = {0};
        int closed = 0;
        cc_instance vm = no_vm_instance(source, NULL);
        job_start(&job[0], do_run, vm);
        job_start(&job[1], do_read, vm);
        job_start(&job[2], do_wait, vm);
        for (int k = 3; k < 6; k++)
            job_start(&job[k], do_close, vm);
        for (int k = 0; k < 6; k++) {
            cc_error_code code = job_end(&job[k]);
            if (k >= 3)
                closed += code == CC_OK;
            CHECK(code == CC_OK || code == CC_ERR_NOT_RUNNING || code == CC_ERR_ALREADY_CLOSED ||
                  code == CC_ERR_INVALID_HANDLE);
        }
        CHECK_EQ_INT(closed, 1);
    }
}

/* A thread that is freeing a command when the instance closes still closes the command's streams: close waits. */
static void test_close_waits_for_commands(void)
{
    struct job job = {0};
    struct cci_object *o;
    cc_cmd cmd;
    cc_instance vm = no_vm_instance(source, NULL);
    CHECK_OK(cc_cmd_new(vm, "true", NULL, &cmd, &err), err);
    CHECK_OK(cci_handle_release(cmd, CCI_KIND_CMD, &o, &err), err); /* as cc_cmd_free begins */
    job_start(&job, do_close, vm);
    while (cc_instance_is_running(vm))
        (void)sched_yield();
    asleep_wait(&job.thread);
    bool early = __atomic_load_n(&job.done, __ATOMIC_ACQUIRE);
    cci_object_unref(o);
    CHECK_EQ_INT(job_end(&job), CC_OK);
    CHECK(!early);
}

static void test_free_ends_the_start(void)
{
    for (int round = 0; round < 30; round++) {
        struct job job = {0};
        cc_cmd cmd;
        cc_instance vm = no_vm_instance(source, NULL);
        CHECK_OK(cc_cmd_new(vm, "true", NULL, &cmd, &err), err);
        job_start(&job, do_start, cmd);
        if (round % 2)
            wait_for_callers(vm, 1);
        cc_cmd_free(cmd);
        cc_error_code code = job_end(&job);
        CHECK(code == CC_ERR_CANCELLED || code == CC_ERR_INVALID_HANDLE);
        CHECK_OK(cc_instance_close(vm, &err), err);
    }
}

static void test_one_token_for_many(void)
{
    for (int round = 0; round < 20; round++) {
        struct job job[6] = {0};
        cc_cancel_token token;
        cc_instance vm = no_vm_instance(source, NULL);
        CHECK_OK(cc_cancel_token_new(&token, &err), err);
        for (int k = 0; k < 6; k++) {
            job[k].token = token;
            job_start(&job[k], k % 2 ? do_run : do_wait, vm);
        }
        if (round % 2)
            wait_for_callers(vm, 6);
        CHECK_OK(cc_cancel_token_cancel(token, &err), err);
        CHECK(cc_cancel_token_is_cancelled(token));
        for (int k = 0; k < 6; k++)
            CHECK_EQ_INT(job_end(&job[k]), CC_ERR_CANCELLED);
        cc_cancel_token_free(token);
        CHECK_OK(cc_instance_close(vm, &err), err);
    }
}

static void test_freed_token_fires_no_more(void)
{
    struct job job = {0};
    cc_cancel_token token;
    cc_instance vm = no_vm_instance(source, NULL);
    CHECK_OK(cc_cancel_token_new(&token, &err), err);
    job.token = token;
    job_start(&job, do_wait, vm);
    wait_for_callers(vm, 1);
    cc_cancel_token_free(token);
    REFUSED(cc_cancel_token_cancel(token, &err), CC_ERR_INVALID_HANDLE);
    CHECK_OK(cc_instance_close(vm, &err), err);
    CHECK_EQ_INT(job_end(&job), CC_OK);
}

/* ---- The library's beginning and end -------------------------------------------------------------------------- */

static void open_all(void)
{
    CHECK_OK(cc_oci_client_new_with_cache(no_vm_cache, &client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, IMAGE, NULL, &source, &err), err);
}

static void test_before_init(void)
{
    cc_handle h = 7;
    cc_capabilities c;
    REFUSED(cc_oci_client_new_with_cache(no_vm_cache, &h, &err), CC_ERR_INVALID_ARGUMENT);
    REFUSED(cc_cancel_token_new(&h, &err), CC_ERR_INVALID_ARGUMENT);
    REFUSED(cc_supports_hypervisor(&err), CC_ERR_INVALID_ARGUMENT);
    REFUSED(cc_query_capabilities(&c, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK(h == 0);
    try_bad_handle(1, CC_ERR_INVALID_HANDLE);
    cc_shutdown(); /* one too many */
}

static void test_init_is_counted(void)
{
    cc_cancel_token a, b;
    CHECK_EQ_INT(cc_init(), CC_OK);
    CHECK_OK(cc_cancel_token_new(&a, &err), err);
    cc_shutdown();
    CHECK(!cc_cancel_token_is_cancelled(a));
    CHECK_OK(cc_cancel_token_cancel(a, &err), err);
    cc_shutdown();
    REFUSED(cc_cancel_token_cancel(a, &err), CC_ERR_INVALID_HANDLE);
    REFUSED(cc_cancel_token_new(&b, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK_EQ_INT(cc_init(), CC_OK);
    CHECK_OK(cc_cancel_token_new(&b, &err), err); /* in the same place, but not the same handle */
    REFUSED(cc_cancel_token_cancel(a, &err), CC_ERR_INVALID_HANDLE);
    CHECK(!cc_cancel_token_is_cancelled(b));
    open_all();
}

static void test_shutdown_ends_every_call(void)
{
    for (int round = 0; round < 10; round++) {
        struct job job[6] = {0};
        cc_instance vm = no_vm_instance(source, NULL);
        job_start(&job[0], do_run, vm);
        job_start(&job[1], do_read, vm);
        job_start(&job[2], do_wait, vm);
        job_start(&job[3], do_load, client);
        if (round % 2)
            wait_for_callers(vm, 3);
        job_start(&job[4], do_shutdown, 0);
        job_start(&job[5], do_shutdown, 0); /* one too many */
        for (int k = 0; k < 6; k++)
            (void)job_end(&job[k]);
        for (int k = 0; k < 2; k++)
            CHECK(job[k].code == CC_ERR_NOT_RUNNING || job[k].code == CC_ERR_INVALID_HANDLE ||
                  job[k].code == CC_ERR_ALREADY_CLOSED || job[k].code == CC_ERR_INVALID_ARGUMENT);
        CHECK(job[3].code == CC_OK || job[3].code == CC_ERR_INVALID_HANDLE || job[3].code == CC_ERR_INVALID_ARGUMENT);
        CHECK(cci_registry.live == 0 && !cci_registry.slots);
        CHECK_EQ_INT(cc_init(), CC_OK);
        open_all();
    }
}

int main(void)
{
    RUN(no_vm_make_cache);
    RUN(test_before_init);
    if (cc_init() != CC_OK)
        return 2;
    RUN(test_init_is_counted);
    if (check_failures)
        return check_done();
    RUN(test_bad_handles);
    RUN(test_bad_tokens_and_kinds);
    RUN(test_null_arguments);
    RUN(test_success_leaves_the_error_zero);
    RUN(test_instance_options);
    RUN(test_image);
    RUN(test_image_of_another_architecture);
    RUN(test_no_hypervisor);
    RUN(test_settings);
    RUN(test_close_ends_every_call);
    RUN(test_many_close_at_once);
    RUN(test_close_waits_for_commands);
    RUN(test_free_ends_the_start);
    RUN(test_one_token_for_many);
    RUN(test_freed_token_fires_no_more);
    RUN(test_shutdown_ends_every_call);
    cc_shutdown();
    RUN(no_vm_clean);
    return check_done();
}
