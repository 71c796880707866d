/* Asking the guest to stop: what is signalled, the grace, the replies, the end. With the real agent, over a Unix
 * socket.
 * @timeout 60
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "agent.h"

static const char *const env_path[] = {"PATH=/usr/local/bin:/usr/bin:/bin"};
static struct agent a;
static cc_error err;
static const char *gate;

/* Starts `sh -c script` and returns when it has said that it is ready. */
static struct cci_exec *start_ready(const char *script, bool workload)
{
    const char *const argv[] = {"sh", "-c", script};
    struct cci_exec_spec s = {0};
    struct cci_exec *e = NULL;
    s.argv = argv;
    s.argc = 3;
    s.env = env_path;
    s.envc = 1;
    s.notify = true;
    s.workload = workload;
    CHECK_OK(cci_exec_begin(a.ctl, &s, &e, &err), err);
    CHECK_OK(cci_exec_started(e, &agent_forever, &err), err);
    agent_meet(gate, O_RDONLY);
    return e;
}

/* A script that comes to the gate where start_ready waits, and what goes before and behind that. */
static const char *script_of(const char *before, const char *behind)
{
    static char text[400];
    gate = agent_gate(&a, "ready");
    (void)snprintf(text, sizeof(text), "%s; : >%s; %s", before, gate, behind);
    return text;
}

static void check_end(struct cci_exec *e, int want)
{
    int code = -1;
    CHECK_OK(cci_exec_wait(e, &agent_forever, &code, &err), err);
    CHECK_EQ_INT(code, want);
    cci_exec_free(e);
}

/* The agent ended by itself. */
static void check_gone(struct cci_call *stop)
{
    int status = -1;
    CHECK(waitpid(a.pid, &status, 0) == a.pid);
    CHECK_EQ_INT(status, 0);
    cci_call_end(stop);
    agent_end_host(&a);
    (void)unlink(a.path);
    (void)rmdir(a.dir);
}

static void test_commands_end_well(void)
{
    struct cci_call stop;
    agent_start(&a, NULL);
    struct cci_exec *polite = start_ready(script_of("trap 'exit 3' TERM", "while :; do sleep 0.01; done"), false);
    struct cci_exec *plain = start_ready(script_of(":", "sleep 1000"), false);
    CHECK_OK(cci_control_stop(a.ctl, &stop, 60000, &err), err);
    check_end(polite, 3);
    check_end(plain, 128 + SIGTERM);
    check_gone(&stop);
}

static void test_nothing_runs(void)
{
    struct cci_call stop;
    agent_start(&a, NULL);
    CHECK_OK(cci_control_stop(a.ctl, &stop, 60000, &err), err);
    check_gone(&stop);
}

static void test_the_stubborn_are_killed(void)
{
    struct cci_call stop;
    agent_start(&a, NULL);
    struct cci_exec *e = start_ready(script_of("trap '' TERM", "while :; do sleep 0.01; done"), false);
    uint64_t begin = cci_os_now();
    CHECK_OK(cci_control_stop(a.ctl, &stop, 300, &err), err);
    check_end(e, 128 + SIGKILL);
    CHECK(cci_os_now() - begin >= 290000000u);
    check_gone(&stop);
}

static void test_no_grace(void)
{
    struct cci_call stop;
    agent_start(&a, NULL);
    struct cci_exec *e = start_ready(script_of("trap '' TERM", "while :; do sleep 0.01; done"), false);
    CHECK_OK(cci_control_stop(a.ctl, &stop, 0, &err), err);
    check_end(e, 128 + SIGKILL);
    check_gone(&stop);
}

static void test_hurry(void)
{
    struct cci_call stop;
    agent_start(&a, NULL);
    struct cci_exec *e = start_ready(script_of("trap '' TERM", "while :; do sleep 0.01; done"), false);
    CHECK_OK(cci_control_stop(a.ctl, &stop, 1000000, &err), err);
    CHECK_OK(cci_control_hurry(a.ctl, 2000000, &err), err); /* does not lengthen */
    CHECK_OK(cci_control_hurry(a.ctl, 0, &err), err);
    check_end(e, 128 + SIGKILL);
    check_gone(&stop);
}

/* Only the workload is asked; its status arrives, and others end with the guest. */
static void test_workload(void)
{
    struct cci_call stop;
    agent_start(&a, NULL);
    struct cci_exec *other = start_ready(script_of("trap 'exit 9' TERM", "while :; do sleep 0.01; done"), false);
    struct cci_exec *work = start_ready(script_of("trap 'exit 4' TERM", "while :; do sleep 0.01; done"), true);
    CHECK_OK(cci_control_stop(a.ctl, &stop, 60000, &err), err);
    check_end(work, 4);
    CHECK_EQ_INT(cci_exec_wait(other, &agent_forever, &(int){0}, &err), CC_ERR_NOT_RUNNING);
    cci_error_release(&err);
    cci_exec_free(other);
    check_gone(&stop);
}

int main(void)
{
    agent_build();
    RUN(test_commands_end_well);
    RUN(test_nothing_runs);
    RUN(test_the_stubborn_are_killed);
    RUN(test_no_grace);
    RUN(test_hurry);
    RUN(test_workload);
    agent_clean();
    return check_done();
}
