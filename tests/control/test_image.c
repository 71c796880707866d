/* The agent with a root directory of its own: users and groups of the image, what CONFIGURE writes.
 * @timeout 60
 * @root
 */
#include "agent.h"

static char root[100];

static void put(const char *name, const char *text)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    CHECK(fputs(text, f) >= 0);
    CHECK(fclose(f) == 0);
}

static void get(const char *name, char *text, size_t size)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    text[fread(text, 1, size - 1, f)] = 0;
    (void)fclose(f);
}

/* busybox and a few accounts. */
static void make_root(void)
{
    char command[800];
    (void)snprintf(root, sizeof(root), "%s/root", agent_tmp);
    (void)snprintf(command, sizeof(command),
                   "mkdir -p %s/bin %s/etc %s/proc %s/dev && cp /bin/busybox %s/bin/ && "
                   "for p in id sh cat pwd env ls echo; do ln -s busybox %s/bin/$p; done",
                   root, root, root, root, root, root);
    CHECK(system(command) == 0);
    put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
                      "# a comment\n"
                      "broken line\n"
                      "daemon:x:1:1::/:/bin/false\n"
                      "app:x:1000:1001:An app,,,:/home/app:/bin/sh\n"
                      "big:x:4000000000:4000000001::/home/big:/bin/sh\n"
                      "1234:x:77:78::/odd:/bin/sh"); /* no newline at the end */
    put("etc/group", "root:x:0:\nadm:x:4:root,app\nstaff:x:50:app\nother:x:60:apple,xapp\nappgroup:x:1001:\n"
                     "last:x:99:daemon,app");
}

static void check_shell(struct agent *a, const char *user, const char *script, const char *want)
{
    const char *argv[] = {"sh", "-c", script};
    const char *env[] = {"PATH=/bin"};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    cc_error err = {0};
    uint8_t *out = NULL;
    size_t n = 0;
    int code = -1;
    s.argv = argv;
    s.argc = 3;
    s.env = env;
    s.envc = 1;
    s.user = user;
    s.stdout_wanted = s.stderr_wanted = s.merge = true;
    CHECK_OK(cci_exec_begin(a->ctl, &s, &e, &err), err);
    cc_error_code c = cci_exec_wait(e, &agent_forever, &code, &err);
    if (c == CC_OK)
        c = cci_exec_take(e, CCI_CHANNEL_STDOUT, &out, &n, &err);
    cci_exec_free(e);
    CHECK_EQ_STR(c ? err.message : (char *)out, want);
    cci_mem_free(out);
    cci_error_release(&err);
}

#define QUIET_ID "id() { busybox id $1 2>/dev/null; }; " /* it finds fault with the broken line */
#define WHO QUIET_ID "echo $(id -u):$(id -g) $(id -G) $HOME"

static void test_users(void)
{
    static struct agent a;
    agent_start(&a, root);
    check_shell(&a, NULL, WHO, "0:0 0 4 /root\n");
    check_shell(&a, "", WHO, "0:0 0 4 /root\n");
    check_shell(&a, "root", WHO, "0:0 0 4 /root\n");
    check_shell(&a, "app", WHO, "1000:1001 1001 4 50 99 /home/app\n");
    check_shell(&a, "1000", WHO, "1000:1001 1001 4 50 99 /home/app\n");
    check_shell(&a, "app:staff", WHO, "1000:50 50 /home/app\n");
    check_shell(&a, "app:7", WHO, "1000:7 7 /home/app\n");
    check_shell(&a, "1000:staff", WHO, "1000:50 50 /home/app\n");
    check_shell(&a, "5555", WHO, "5555:0 0 /\n");
    check_shell(&a, "5555:6666", WHO, "5555:6666 6666 /\n");
    check_shell(&a, "big", WHO, "4000000000:4000000001 4000000001 /home/big\n");
    check_shell(&a, "77", WHO, "77:78 78 /odd\n");
    check_shell(&a, "1234", WHO, "77:78 78 /odd\n"); /* a name that looks like a number */
    check_shell(&a, "nobody", WHO, "no such user in the image's /etc/passwd (invalid argument)");
    check_shell(&a, "app:nogroup", WHO, "no such group in the image's /etc/group (invalid argument)");
    check_shell(&a, "4294967295", WHO, "no such user in the image's /etc/passwd (invalid argument)");
    check_shell(&a, "99999999999999999999", WHO, "no such user in the image's /etc/passwd (invalid argument)");
    /* The image has no accounts at all. */
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/etc/passwd", root);
    CHECK(unlink(path) == 0);
    check_shell(&a, NULL, WHO, "0:0 0 /\n");
    check_shell(&a, "12:13", WHO, "12:13 13 /\n");
    check_shell(&a, "root", WHO, "no such user in the image's /etc/passwd (invalid argument)");
    agent_stop(&a);
}

static void test_configure(void)
{
    static struct agent a;
    cc_error err = {0};
    char text[200], path[200];
    struct cci_control_config c = {"box", "127.0.0.1 localhost box\n", "nameserver 10.0.2.3\n", "1000:50"};
    agent_start(&a, root);
    /* Ubuntu's way: a link to where nothing is yet. */
    (void)snprintf(path, sizeof(path), "%s/etc/resolv.conf", root);
    CHECK(symlink("../run/systemd/resolve/stub-resolv.conf", path) == 0);
    CHECK_OK(cci_control_configure(a.ctl, &c, &agent_forever, &err), err);
    get("etc/hostname", text, sizeof(text));
    CHECK_EQ_STR(text, "box\n");
    get("etc/hosts", text, sizeof(text));
    CHECK_EQ_STR(text, c.hosts);
    get("etc/resolv.conf", text, sizeof(text));
    CHECK_EQ_STR(text, c.resolv_conf);
    struct stat st;
    CHECK(lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0644);
    check_shell(&a, NULL, QUIET_ID "echo $(id -u):$(id -g)", "1000:50\n"); /* the configured user */
    check_shell(&a, "0", QUIET_ID "echo $(id -u):$(id -g)", "0:0\n");
    /* Again, with nothing to write: files stay, so does the user. */
    struct cci_control_config nothing = {NULL, NULL, "", NULL};
    CHECK_OK(cci_control_configure(a.ctl, &nothing, &agent_forever, &err), err);
    get("etc/resolv.conf", text, sizeof(text));
    CHECK_EQ_STR(text, "nameserver 10.0.2.3\n");
    agent_stop(&a);
}

/* It is a root of its own, with its own processes. */
static void test_confined(void)
{
    static struct agent a;
    agent_start(&a, root);
    check_shell(&a, NULL, "ls /", "bin\ndev\netc\nproc\n");
    check_shell(&a, NULL, "cd ../../..; ls", "bin\ndev\netc\nproc\n");
    check_shell(&a, NULL, "ls -d /proc/1 && cat /proc/1/comm", "/proc/1\nagent\n");
    check_shell(&a, NULL, "echo x >/dev/null && ls /dev/zero", "/dev/zero\n");
    check_shell(&a, NULL, "kill -9 1; cat /proc/1/comm", "agent\n"); /* PID 1 of its namespace cannot be killed */
    agent_stop(&a);
}

int main(void)
{
    char command[200];
    if (access("/bin/busybox", X_OK)) {
        SKIP(test_users, "needs busybox-static");
        return check_done();
    }
    agent_build();
    RUN(make_root);
    RUN(test_configure);
    RUN(test_confined);
    RUN(test_users);
    (void)snprintf(command, sizeof(command), "rm -rf %s", root);
    if (system(command))
        return 1;
    agent_clean();
    return check_done();
}
