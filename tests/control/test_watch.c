/* Watches through the real agent, over a Unix socket.
 * @timeout 60
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "agent.h"

#include <pthread.h>

#include "../../src/control/watch.h"

static struct agent a;
static cc_error err;

static const char *at(const char *name)
{
    static char path[400];
    (void)snprintf(path, sizeof(path), "%s/%s", a.dir, name);
    return path;
}

static int in_shell(const char *script)
{
    char all[1000];
    (void)snprintf(all, sizeof(all), "cd %s && { %s\n}", a.dir, script);
    return system(all);
}

static void opened(struct cci_watch *w, const char *name)
{
    CHECK_OK(cci_watch_open(w, a.ctl, at(name), &agent_forever, &err), err);
}

static void expect(struct cci_watch *w, uint32_t mask, const char *name)
{
    struct cci_watch_record r;
    CHECK_OK(cci_watch_read(w, &r, &agent_forever, &err), err);
    CHECK_EQ_INT(r.mask, mask);
    CHECK_EQ_STR(r.name, name);
}

static void test_events(void)
{
    struct cci_watch w;
    struct cci_watch_record from, to;
    CHECK_EQ_INT(in_shell("mkdir d"), 0);
    opened(&w, "d");
    const struct cci_wait brief = {cci_os_now() + 20000000, NULL};
    CHECK_EQ_INT(cci_watch_read(&w, &from, &brief, &err), CC_ERR_TIMEOUT);
    cci_error_release(&err);
    CHECK_EQ_INT(in_shell("echo x >d/f; chmod 600 d/f; mkdir \"$(printf 'd/s\\377\\n.')\"; mv d/f d/g; rm d/g"), 0);
    expect(&w, CCI_IN_CREATE, "f");
    expect(&w, CCI_IN_MODIFY, "f");
    expect(&w, CCI_IN_CLOSE_WRITE, "f");
    expect(&w, CCI_IN_ATTRIB, "f");
    expect(&w, CCI_IN_CREATE | CCI_IN_ISDIR, "s\xff\n.");
    CHECK_OK(cci_watch_read(&w, &from, &agent_forever, &err), err);
    CHECK_OK(cci_watch_read(&w, &to, &agent_forever, &err), err);
    CHECK(from.mask == CCI_IN_MOVED_FROM && to.mask == CCI_IN_MOVED_TO && from.cookie && from.cookie == to.cookie);
    CHECK_EQ_STR(to.name, "g");
    expect(&w, CCI_IN_DELETE, "g");
    CHECK_EQ_INT(in_shell("rm -r d"), 0);
    expect(&w, CCI_IN_DELETE | CCI_IN_ISDIR, "s\xff\n.");
    expect(&w, CCI_IN_DELETE_SELF, "");
    for (int i = 0; i < 3; i++)
        expect(&w, CCI_IN_IGNORED, "");
    cci_watch_destroy(&w);
    CHECK_EQ_INT(cci_watch_open(&w, a.ctl, "/no/such", &agent_forever, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, ENOENT);
    CHECK_EQ_STR(err.path, "/no/such");
    cci_error_release(&err);
}

/* More than the connection and the kernel keep: the last event says so, and the agent serves others meanwhile. */
static void test_overflow(void)
{
    struct cci_watch w;
    struct cci_watch_record r;
    struct cci_file_stat st;
    unsigned n = 0;
    char name[300];
    CHECK_EQ_INT(in_shell("mkdir d"), 0);
    opened(&w, "d");
    for (int i = 0; i < 10500; i++) {
        (void)snprintf(name, sizeof(name), "d/%0200d", i);
        CHECK(mkdir(at(name), 0700) == 0 && rmdir(at(name)) == 0);
    }
    CHECK_OK(cci_file_stat(a.ctl, "/", false, &st, &agent_forever, &err), err);
    do {
        CHECK_OK(cci_watch_read(&w, &r, &agent_forever, &err), err);
        n++;
    } while (!(r.mask & CCI_IN_OVERFLOW) && n < 200000);
    CHECK(r.mask & CCI_IN_OVERFLOW);
    printf("# %u events before the overflow\n", n);
    CHECK(n > 1000 && n < 21000);
    cci_watch_destroy(&w);
    CHECK_EQ_INT(in_shell("rmdir d"), 0);
}

struct side {
    pthread_t thread;
    struct cci_watch *w;
    cc_error_code code;
};

static void *read_one(void *arg)
{
    struct side *s = arg;
    struct cci_watch_record r;
    s->code = cci_watch_read(s->w, &r, &agent_forever, NULL);
    return NULL;
}

/* Closed while threads read; the agent forgets it, so that any number can follow. */
static void test_close(void)
{
    struct cci_watch w;
    struct side s[2];
    for (int round = 0; round < 200; round++) {
        opened(&w, "");
        for (int i = 0; i < 2; i++) {
            s[i] = (struct side){.w = &w};
            CHECK(pthread_create(&s[i].thread, NULL, read_one, &s[i]) == 0);
        }
        cci_watch_close(&w);
        for (int i = 0; i < 2; i++) {
            pthread_join(s[i].thread, NULL);
            CHECK_EQ_INT(s[i].code, CC_ERR_ALREADY_CLOSED);
        }
        cci_watch_destroy(&w);
    }
}

/* The agent is killed while somebody reads. */
static void test_agent_ends(void)
{
    struct cci_watch w;
    struct side s = {.w = &w};
    int status;
    opened(&w, "");
    CHECK(pthread_create(&s.thread, NULL, read_one, &s) == 0);
    CHECK(kill(a.pid, SIGKILL) == 0 && waitpid(a.pid, &status, 0) == a.pid);
    pthread_join(s.thread, NULL);
    CHECK_EQ_INT(s.code, CC_ERR_NOT_RUNNING);
    cci_watch_destroy(&w);
    agent_end_host(&a);
    (void)unlink(a.path);
    (void)rmdir(a.dir);
}

int main(void)
{
    agent_build();
    agent_start(&a, NULL);
    RUN(test_events);
    RUN(test_overflow);
    RUN(test_close);
    RUN(test_agent_ends);
    agent_clean();
    return check_done();
}
