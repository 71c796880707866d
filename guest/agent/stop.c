/*
 * STOP: the end in good order. Whoever is to end is asked to, and killed when the grace has passed; the reply says that
 * all have ended, or that what is left cannot be killed, and the host then has the machine power off.
 */
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { UNKILLABLE_MS = 2000 }; /* how long a process may take to die of SIGKILL */

static struct {
    enum { STOP_NO, STOP_ASKED, STOP_KILLED, STOP_DONE } state;
    uint64_t id;         /* of the request */
    uint64_t deadline;   /* CLOCK_MONOTONIC, ms */
    struct source timer; /* fires then */
} stop;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void arm(uint64_t deadline)
{
    const struct itimerspec when = {{0, 0}, {(time_t)(deadline / 1000), (long)(deadline % 1000) * 1000000}};
    stop.deadline = deadline;
    timerfd_settime(stop.timer.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void finish(void)
{
    stop.state = STOP_DONE;
    loop_close(&stop.timer);
    reply(stop.id, 0, "");
}

void stop_check(void)
{
    if ((stop.state == STOP_ASKED || stop.state == STOP_KILLED) && exec_terminate(0) == 0)
        finish();
}

static void too_long(void)
{
    if (stop.state == STOP_KILLED) {
        finish();
        return;
    }
    stop.state = STOP_KILLED;
    exec_terminate(SIGKILL);
    arm(now_ms() + UNKILLABLE_MS);
}

static void timer_ready(struct source *s, uint32_t events)
{
    uint64_t unused;
    (void)events;
    if (read(s->fd, &unused, sizeof unused) > 0)
        too_long();
}

void stop_request(uint64_t id, struct cci_proto_reader *in)
{
    uint64_t grace = cci_proto_get64(in), deadline = now_ms() + (grace < 1u << 30 ? grace : 1u << 30);
    bool first = stop.state == STOP_NO;
    int fd;
    if (in->bad) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (first) {
        fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0 || loop_add(&stop.timer, fd, EPOLLIN, timer_ready))
            die("timer", errno);
        stop.state = STOP_ASKED;
        stop.id = id;
        exec_terminate(SIGTERM);
    } else {
        reply(id, 0, "");
    }
    if (stop.state == STOP_ASKED && grace == 0)
        too_long();
    else if (stop.state == STOP_ASKED && (first || deadline < stop.deadline))
        arm(deadline);
    stop_check();
}
