/*
 * A real distribution in a guest: Debian with Python, from a 120 MB layer, with the distribution's own kernel.
 * @vm
 * @timeout 200
 * @kernel stock
 * @setup tools/mkimage debian build/tests/debian.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include "guest_sh.h"

static cc_error err;
static cc_instance vm;

static const char *sh(const char *script)
{
    return guest_sh(vm, script, NULL);
}

static void test_boot(void)
{
    cc_oci_client client;
    cc_instance_source source;
    cc_image_config *config;
    cc_instance_options o = {0};
    o.memory_mb = 512;
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/debian.tar", NULL, &source, &err), err);
    CHECK_OK(cc_source_get_config(source, &config, &err), err);
    CHECK_EQ_STR(config->architecture, "amd64");
    CHECK(config->env_count > 0 && !config->env[config->env_count]);
    cc_image_config_free(config);
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
}

static void test_python(void)
{
    CHECK_EQ_STR(sh("python3 -c 'import ssl, sqlite3; print(\"ok\")'"), "ok\n");
}

static void test_dpkg(void)
{
    CHECK(atoi(sh("dpkg -l | wc -l")) > 80);
    /* The image leaves out manuals and translations. */
    CHECK_EQ_STR(
        sh("cd / && cat /var/lib/dpkg/info/dpkg.md5sums /var/lib/dpkg/info/libc6*.md5sums | "
           "grep -v -e share/doc -e share/locale -e share/man -e share/lintian | md5sum -c --quiet && echo intact"),
        "intact\n");
}

static void test_users(void)
{
    static const char *const args[] = {"-u", NULL};
    cc_cmd cmd;
    uint8_t *out;
    size_t len;
    CHECK_OK(cc_cmd_new(vm, "id", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_output(cmd, &out, &len, NULL, &err), err);
    CHECK_EQ_STR((const char *)out, "0\n");
    cc_free_bytes(out);
}

int main(void)
{
    (void)cc_init();
    RUN(test_boot);
    if (check_failures)
        return check_done();
    RUN(test_python);
    RUN(test_dpkg);
    RUN(test_users);
    cc_shutdown();
    return check_done();
}
