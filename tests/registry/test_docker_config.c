/*
 * Docker's client configuration, and credential helpers run as programs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/registry/docker_config.h"
#include "../check.h"

static char folder[200];

static struct cci_docker_hit lookup(const char *text, const char *registry)
{
    struct cci_docker_hit hit;
    cc_error err = {0};
    CHECK_OK(cci_docker_lookup(text, strlen(text), registry, &hit, &err), err);
    return hit;
}

/* Whether the file is refused with these words. */
static void refused(const char *text, const char *words)
{
    struct cci_docker_hit hit;
    cc_error err = {0};
    cc_error_code code = cci_docker_lookup(text, strlen(text), "r.example", &hit, &err);
    bool said = err.message && strstr(err.message, words);
    cci_docker_hit_free(&hit);
    cci_error_release(&err);
    CHECK_EQ_INT(code, CC_ERR_IO);
    CHECK(said);
}

static void check_user(const char *text, const char *registry, const char *user, const char *password)
{
    struct cci_docker_hit hit = lookup(text, registry);
    char *got_user = hit.creds.username ? strdup(hit.creds.username) : NULL;
    char *got_password = hit.creds.password ? strdup(hit.creds.password) : NULL;
    cci_docker_hit_free(&hit);
    if (!user) {
        CHECK(!got_user);
        return;
    }
    CHECK_EQ_STR(got_user, user);
    CHECK_EQ_STR(got_password, password);
    free(got_user);
    free(got_password);
}

static void test_auths(void)
{
    /* YTpiOmM= is a:b:c, dTpw is u:p. */
    static const char file[] = "{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"},\"other:5000\":{\"auth\":\"YTpiOmM=\"},"
                               "\"https://url.example/v1/\":{\"auth\":\"dTpw\"},"
                               "\"https://index.docker.io/v1/\":{\"auth\":\"aHViOnB3\"},"
                               "\"plain.example\":{\"username\":\"x\",\"password\":\"y\"},\"empty.example\":{}}}";
    check_user(file, "r.example", "u", "p");
    check_user(file, "other:5000", "a", "b:c");
    check_user(file, "other", NULL, NULL);
    check_user(file, "url.example", "u", "p");
    check_user(file, "docker.io", "hub", "pw");
    check_user(file, "plain.example", "x", "y");
    check_user(file, "empty.example", NULL, NULL);
    check_user(file, "example", NULL, NULL);
    check_user("{}", "r.example", NULL, NULL);
    check_user("{\"auths\":[]}", "r.example", NULL, NULL);
    /* A name as it stands counts before one that only means the same host. */
    check_user("{\"auths\":{\"https://r.example\":{\"auth\":\"YTpi\"},\"r.example\":{\"auth\":\"dTpw\"}}}", "r.example",
               "u", "p");
    /* Padded with NULs, as some tools write it: base64 of "u:p\0\0". */
    check_user("{\"auths\":{\"r.example\":{\"auth\":\"dTpwAAA=\"}}}", "r.example", "u", "p");
}

static void test_identity_token(void)
{
    struct cci_docker_hit hit =
        lookup("{\"auths\":{\"r.example\":{\"auth\":\"dTpw\",\"identitytoken\":\"tok\"}}}", "r.example");
    CHECK_EQ_STR(hit.creds.identity_token, "tok");
    CHECK(!hit.creds.username);
    cci_docker_hit_free(&hit);
}

static void test_helpers_are_chosen(void)
{
    static const char file[] = "{\"credHelpers\":{\"r.example\":\"one\"},\"credsStore\":\"two\"}";
    struct cci_docker_hit hit = lookup(file, "r.example");
    CHECK_EQ_STR(hit.helper, "one");
    cci_docker_hit_free(&hit);
    hit = lookup(file, "s.example");
    CHECK_EQ_STR(hit.helper, "two");
    cci_docker_hit_free(&hit);
    hit = lookup("{\"credsStore\":\"\"}", "s.example");
    CHECK(!hit.helper);
    cci_docker_hit_free(&hit);
}

static void test_refused(void)
{
    refused("", "ends too early");
    refused("[]", "not an object");
    refused("{\"auths\":", "ends too early");
    refused("{\"credsStore\":\"../../bin/sh\"}", "no name of a credential helper");
    refused("{\"credsStore\":\"a b\"}", "no name of a credential helper");
    refused("{\"credsStore\":\".\"}", "no name of a credential helper");
    refused("{\"auths\":{\"r.example\":{\"auth\":\"!!!!\"}}}", "not base64");
    refused("{\"auths\":{\"r.example\":{\"auth\":\"dTpwd\"}}}", "not base64"); /* 5 digits */
    refused("{\"auths\":{\"r.example\":{\"auth\":\"bm9jb2xvbg==\"}}}", "not base64 of user:password");
    refused("{\"auths\":{\"r.example\":{\"auth\":\"dQA6cA==\"}}}", "not base64 of user:password"); /* u NUL : p */
}

/* ---- Helpers ---------------------------------------------------------------------------------------------------- */

static void write_helper(const char *name, const char *script)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/docker-credential-%s", folder, name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    CHECK(fputs("#!/bin/sh\n", f) >= 0 && fputs(script, f) >= 0);
    CHECK(fclose(f) == 0 && chmod(path, 0755) == 0);
}

static cc_error_code ask(const char *helper, const char *registry, const struct cci_wait *wait,
                         struct cci_credentials *c, bool *found, cc_error *err)
{
    memset(c, 0, sizeof(*c));
    memset(err, 0, sizeof(*err));
    return cci_docker_ask(helper, registry, wait, c, found, err);
}

static void test_helper_answers(void)
{
    struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_credentials c;
    cc_error err;
    bool found;
    write_helper("good", "[ \"$1\" = get ] && printf '{\"Username\":\"%s\",\"Secret\":\"s;$(x)\"}' \"$(cat)\"\n");
    CHECK_OK(ask("good", "r.example;rm", &wait, &c, &found, &err), err);
    CHECK(found);
    CHECK_EQ_STR(c.username, "r.example;rm"); /* no shell has seen it */
    CHECK_EQ_STR(c.password, "s;$(x)");
    cci_credentials_free(&c);
    CHECK_OK(ask("good", "docker.io", &wait, &c, &found, &err), err);
    CHECK_EQ_STR(c.username, "https://index.docker.io/v1/");
    cci_credentials_free(&c);
    write_helper("token", "echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}'\n"); /* does not read its input */
    CHECK_OK(ask("token", "r.example", &wait, &c, &found, &err), err);
    CHECK_EQ_STR(c.identity_token, "t");
    CHECK(!c.username);
    cci_credentials_free(&c);
    write_helper("none", "echo 'credentials not found in native keychain'; exit 1\n");
    CHECK_OK(ask("none", "r.example", &wait, &c, &found, &err), err);
    CHECK(!found && !c.username);
}

static void helper_fails(const char *helper, const struct cci_wait *wait, cc_error_code want, const char *words)
{
    struct cci_credentials c;
    cc_error err;
    bool found, said;
    cc_error_code code = ask(helper, "r.example", wait, &c, &found, &err);
    said = err.message && strstr(err.message, words);
    if (!said)
        printf("# %s\n", err.message ? err.message : "(none)");
    cci_error_release(&err);
    cci_credentials_free(&c);
    CHECK_EQ_INT(code, want);
    CHECK(said && !found);
}

static void test_helper_fails(void)
{
    struct cci_wait wait = CCI_WAIT_FOREVER;
    helper_fails("that-is-not-there", &wait, CC_ERR_IO, "no such file");
    write_helper("broken", "echo oops; exit 7\n");
    helper_fails("broken", &wait, CC_ERR_IO, "exit code 7: oops");
    write_helper("killed", "kill -9 $$\n");
    helper_fails("killed", &wait, CC_ERR_IO, "137");
    write_helper("nonsense", "echo hello\n");
    helper_fails("nonsense", &wait, CC_ERR_IO, "not valid JSON");
    write_helper("lacking", "echo '{}'\n");
    helper_fails("lacking", &wait, CC_ERR_IO, "no Username and Secret");
    write_helper("endless", "exec yes\n");
    helper_fails("endless", &wait, CC_ERR_IO, "writes more than");
}

struct canceller {
    struct cci_cancel *token;
    char ready[300]; /* a named pipe: the helper opens it when it runs */
};

static void cancel_when_ready(void *ctx)
{
    struct canceller *c = ctx;
    close(open(c->ready, O_RDONLY | O_CLOEXEC));
    cci_cancel_fire(c->token);
}

static void test_helper_hangs(void)
{
    char script[400], gate[300];
    struct cci_wait wait = {cci_os_now() + 200000000u, NULL};
    write_helper("hangs", "exec sleep 1000\n");
    helper_fails("hangs", &wait, CC_ERR_TIMEOUT, "did not end in time");
    /* It closes its output and goes on. */
    write_helper("quiet", "exec >&-; exec sleep 1000\n");
    wait.deadline = cci_os_now() + 200000000u;
    helper_fails("quiet", &wait, CC_ERR_TIMEOUT, "did not end in time");
    /* Its child keeps the output open: that is not waited for. */
    (void)snprintf(gate, sizeof(gate), "%s/gate", folder);
    CHECK(mkfifo(gate, 0600) == 0);
    (void)snprintf(script, sizeof(script), "cat %s & echo '{\"Username\":\"u\",\"Secret\":\"p\"}'\n", gate);
    write_helper("leaves", script);
    struct cci_credentials c;
    cc_error err;
    bool found;
    wait.deadline = cci_os_now() + (uint64_t)30 * 1000000000u;
    CHECK_OK(ask("leaves", "r.example", &wait, &c, &found, &err), err);
    close(open(gate, O_WRONLY | O_CLOEXEC)); /* now the child may end */
    CHECK_EQ_STR(c.username, "u");
    cci_credentials_free(&c);
    struct canceller k = {cci_cancel_new(), ""};
    struct cci_thread t;
    (void)snprintf(k.ready, sizeof(k.ready), "%s/ready", folder);
    (void)snprintf(script, sizeof(script), ": >%s; exec sleep 1000\n", k.ready);
    CHECK(mkfifo(k.ready, 0600) == 0);
    write_helper("cancelled", script);
    CHECK(cci_thread_new(&t, "test", cancel_when_ready, &k) == 0);
    wait = (struct cci_wait){CCI_FOREVER, k.token};
    helper_fails("cancelled", &wait, CC_ERR_CANCELLED, "cancelled");
    cci_thread_join(&t);
    helper_fails("cancelled", &wait, CC_ERR_CANCELLED, "cancelled"); /* before it starts */
    cci_cancel_unref(k.token);
}

static void test_whole_file(void)
{
    struct cci_wait wait = CCI_WAIT_FOREVER;
    struct cci_credentials c;
    cc_error err = {0};
    char path[300];
    CHECK(setenv("DOCKER_CONFIG", folder, 1) == 0);
    CHECK_OK(cci_docker_credentials("r.example", &wait, &c, &err), err);
    CHECK(!c.username && !c.identity_token);
    (void)snprintf(path, sizeof(path), "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    CHECK(fputs("{\"credHelpers\":{\"r.example\":\"good\",\"n.example\":\"none\",\"h.example\":\"absent\"},\"auths\":{"
                "\"n.example\":{\"auth\":"
                "\"dTpw\"}}}",
                f) >= 0);
    CHECK(fclose(f) == 0);
    CHECK_OK(cci_docker_credentials("r.example", &wait, &c, &err), err);
    CHECK_EQ_STR(c.username, "r.example");
    cci_credentials_free(&c);
    CHECK_OK(cci_docker_credentials("n.example", &wait, &c, &err), err); /* the helper has none; the file has */
    CHECK_EQ_STR(c.username, "u");
    cci_credentials_free(&c);
    CHECK_EQ_INT(cci_docker_credentials("h.example", &wait, &c, &err), CC_ERR_IO); /* which file to mend is said */
    CHECK(strstr(err.message, path) && strstr(err.message, "docker-credential-absent"));
    cci_error_release(&err);
    cci_credentials_free(&c);
    CHECK(truncate(path, 20) == 0);
    CHECK_EQ_INT(cci_docker_credentials("r.example", &wait, &c, &err), CC_ERR_IO);
    CHECK(err.path && strcmp(err.path, path) == 0 && strstr(err.message, "Docker's configuration"));
    cci_error_release(&err);
    cci_credentials_free(&c);
}

int main(void)
{
    char path[4000], command[300];
    (void)snprintf(folder, sizeof(folder), "%s/cc-docker-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
    if (!mkdtemp(folder))
        return 2;
    (void)snprintf(path, sizeof(path), "%s:%s", folder, getenv("PATH"));
    (void)setenv("PATH", path, 1);
    RUN(test_auths);
    RUN(test_identity_token);
    RUN(test_helpers_are_chosen);
    RUN(test_refused);
    RUN(test_helper_answers);
    RUN(test_helper_fails);
    RUN(test_helper_hangs);
    RUN(test_whole_file);
    (void)snprintf(command, sizeof(command), "rm -r %s", folder);
    if (system(command) != 0)
        return 2;
    return check_done();
}
