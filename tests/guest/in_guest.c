/*
 * The agent as PID 1 of a machine: in_guest IMAGE.tar POKE, run by test_guest.sh where KVM is usable.
 * One instance for all cases: what is tested is the guest, not the library.
 */
#define CC_IMPLEMENTATION
#include "cc.h"

#include <time.h>

#include "../check.h"

static cc_instance inst;
static const char *poke_path;

/* Runs a shell line, both outputs together; returns its output (static) and checks the exit code. */
static const char *shell(const char *line, int want)
{
    static char text[1 << 16];
    const char *args[] = {"-c", line, NULL};
    cc_error err = {0};
    cc_cmd cmd = 0;
    uint8_t *out = NULL;
    size_t n = 0;
    int code = -1;
    CHECK_OK(cc_cmd_new(inst, "sh", args, &cmd, &err), err);
    CHECK_OK(cc_cmd_combined_output(cmd, &out, &n, &code, &err), err);
    if (n > sizeof(text) - 1)
        n = sizeof(text) - 1;
    memcpy(text, out, n);
    text[n] = 0;
    cc_free_bytes(out);
    cc_cmd_free(cmd);
    CHECK_EQ_INT(code, want);
    return text;
}

static void test_mounts(void)
{
    CHECK_EQ_STR(shell("awk '{print $2, $3}' /proc/mounts", 0), "/dev devtmpfs\n/ overlay\n/proc proc\n/sys sysfs\n"
                                                                "/sys/fs/cgroup cgroup2\n/dev/pts devpts\n"
                                                                "/dev/shm tmpfs\n/dev/mqueue mqueue\n");
    CHECK_EQ_STR(shell("ls -d /lower /upper /init 2>/dev/null; touch /new && rm /new && echo writable", 0),
                 "writable\n");
    CHECK_EQ_STR(shell("readlink /dev/stdout; echo x > /dev/shm/a && cat /dev/shm/a; echo y | cat /dev/fd/0", 0),
                 "/proc/self/fd/1\nx\ny\n");
    CHECK_EQ_STR(shell("mkdir /sys/fs/cgroup/t && rmdir /sys/fs/cgroup/t && echo cgroup", 0), "cgroup\n");
}

static void test_identity(void)
{
    char want[100];
    char *id = cc_instance_id(inst);
    CHECK(id != NULL);
    (void)snprintf(want, sizeof(want), "%s\n%s\n", id, id);
    CHECK_EQ_STR(shell("hostname; cat /etc/hostname", 0), want);
    CHECK(strstr(shell("cat /etc/hosts", 0), "127.0.0.1\tlocalhost\n") != NULL);
    (void)snprintf(want, sizeof(want), "%s", shell("date +%s", 0));
    long long ours = (long long)time(NULL), guests = atoll(want);
    CHECK(guests >= ours - 5 && guests <= ours + 5);
    cc_free_string(id);
}

static void test_network_loopback(void)
{
    CHECK(strstr(shell("ip addr show lo 2>&1 || ifconfig lo", 0), "127.0.0.1") != NULL);
}

/* PID 1 is the agent, survives every signal, and reaps orphans. */
static void test_init(void)
{
    CHECK_EQ_STR(shell("cat /proc/1/comm; for s in 1 2 3 9 11 15 17; do kill -$s 1; done; cat /proc/1/comm", 0),
                 "init\ninit\n");
    CHECK_EQ_STR(shell("for i in 1 2 3 4 5 6 7 8; do (true &); done; "
                       "while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do :; done; echo reaped",
                       0),
                 "reaped\n");
    CHECK_EQ_STR(shell("ulimit -Sn; ulimit -Hn; umask", 0), "1024\n524288\n0022\n");
}

/* Output of every size by vsock, whole. */
static void test_output(void)
{
    static const int sizes[] = {65536, 65537, 3000000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        char line[80];
        const char *args[] = {"-c", line, NULL};
        cc_error err = {0};
        cc_cmd cmd = 0;
        uint8_t *out = NULL;
        size_t n = 0;
        int code = -1;
        (void)snprintf(line, sizeof(line), "yes 'abcdefghijklmno' | head -c %d", sizes[i]);
        CHECK_OK(cc_cmd_new(inst, "sh", args, &cmd, &err), err);
        CHECK_OK(cc_cmd_output(cmd, &out, &n, &code, &err), err);
        CHECK_EQ_INT(n, sizes[i]);
        for (size_t k = 0; k < n; k++)
            CHECK(out[k] == (uint8_t) "abcdefghijklmno\n"[k % 16]);
        cc_free_bytes(out);
        cc_cmd_free(cmd);
    }
}

static void test_files(void)
{
    const size_t n = 2000000;
    cc_error err = {0};
    uint8_t *bytes = malloc(n), *back = NULL;
    size_t got = 0;
    CHECK(bytes != NULL);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 >> 3);
    CHECK_OK(cc_fs_write_file(inst, "/big", bytes, n, 0600, &err), err);
    CHECK_OK(cc_fs_read_file(inst, "/big", &back, &got, &err), err);
    CHECK_EQ_INT(got, n);
    CHECK(memcmp(bytes, back, n) == 0);
    cc_free_bytes(back);
    free(bytes);
    CHECK_EQ_STR(shell("stat -c %a /big; rm /big", 0), "600\n");
}

/* What runs in the guest cannot pass for the host. */
static void test_workload_and_agent(void)
{
    static uint8_t program[1 << 20];
    cc_error err = {0};
    FILE *f = fopen(poke_path, "rb");
    CHECK(f != NULL);
    size_t n = fread(program, 1, sizeof(program), f);
    (void)fclose(f);
    CHECK_OK(cc_fs_write_file(inst, "/poke", program, n, 0755, &err), err);
    const char *said = shell("/poke", 0);
    CHECK(strstr(said, "ANSWERED") == NULL && strstr(said, "silent") == NULL);
    CHECK(strstr(said, "host's ready port: refused") != NULL);
    CHECK_EQ_STR(shell("echo well", 0), "well\n");
}

static void test_round_trip(void)
{
    struct timespec a, b;
    enum { TIMES = 50 };
    cc_error err = {0};
    (void)timespec_get(&a, TIME_UTC);
    for (int i = 0; i < TIMES; i++) {
        cc_cmd cmd = 0;
        int code = -1;
        CHECK_OK(cc_cmd_new(inst, "/bin/true", NULL, &cmd, &err), err);
        CHECK_OK(cc_cmd_run(cmd, &code, &err), err);
        cc_cmd_free(cmd);
    }
    (void)timespec_get(&b, TIME_UTC);
    printf("# exec of /bin/true: %.0f us\n",
           ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3) / TIMES);
}

/* The last: a guest that goes away takes the call under way with it, and says why. */
static void test_power_off(void)
{
    const char *args[] = {"-f", NULL};
    cc_error err = {0};
    cc_cmd cmd = 0;
    int code = -1;
    CHECK_OK(cc_cmd_new(inst, "poweroff", args, &cmd, &err), err);
    CHECK_EQ_INT(cc_cmd_run(cmd, &code, &err), CC_ERR_NOT_RUNNING);
    cc_error_free(&err);
    cc_cmd_free(cmd);
    CHECK_OK(cc_instance_wait(inst, &err), err);
    uint8_t *bytes = NULL;
    size_t n = 0;
    CHECK_EQ_INT(cc_fs_read_file(inst, "/etc/hosts", &bytes, &n, &err), CC_ERR_NOT_RUNNING);
    CHECK_EQ_STR(err.message, "the guest switched itself off");
    cc_error_free(&err);
}

int main(int argc, char **argv)
{
    cc_error err = {0};
    cc_oci_client client = 0;
    cc_instance_source source = 0;
    cc_instance_options options = {0};
    if (argc != 3)
        return 2;
    poke_path = argv[2];
    options.memory_mb = 256;
    cc_init();
    if (cc_oci_client_new(&client, &err) || cc_oci_client_load_tar(client, argv[1], NULL, &source, &err) ||
        cc_instance_new(source, &options, &inst, &err)) {
        printf("not ok start\n# %s\n", err.message ? err.message : "");
        return 1;
    }
    RUN(test_mounts);
    RUN(test_identity);
    RUN(test_network_loopback);
    RUN(test_init);
    RUN(test_output);
    RUN(test_files);
    RUN(test_workload_and_agent);
    RUN(test_round_trip);
    RUN(test_power_off);
    (void)cc_instance_close(inst, NULL);
    cc_shutdown();
    return check_done();
}
