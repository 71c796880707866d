/*
 * EXEC while something is mounted that may keep one waiting (slow.c): a look ahead.
 *
 * A program is started by the loop, which waits for the child's chdir and execve. On a file system that does not answer
 * that would be for ever, and for everybody. So a worker goes there first: it opens the directory, and finds and opens
 * the program, and only when it is back the loop starts the command. Its own answer counts for nothing: what is wrong
 * is found out, and told, by the start.
 *
 * A command that is given up, or killed, meanwhile is not started.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct ahead {
    struct request req;
    struct work work;
    bool given_up, killed;
    size_t n;        /* bytes of the request */
    uint8_t bytes[]; /* twice: taking it apart changes it */
};

static void detach(struct request *r)
{
    ((struct ahead *)r)->given_up = true; /* req is the first member */
}

bool ahead_kill(struct request *r)
{
    if (r->detach != detach)
        return false;
    ((struct ahead *)r)->killed = true;
    return true;
}

static bool touch(const char *path, void *dir)
{
    char byte;
    int fd = openat(*(int *)dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bool there = fd >= 0 && read(fd, &byte, 1) >= 0;
    if (fd >= 0)
        close(fd);
    return there;
}

static void look(struct work *w)
{
    struct ahead *a = (struct ahead *)((char *)w - offsetof(struct ahead, work));
    struct cci_proto_reader in = {a->bytes + a->n, a->n, false};
    struct exec_spec s = {0};
    const char *what;
    int here = AT_FDCWD, dir;
    touch("/etc/passwd", &here);
    touch("/etc/group", &here);
    if (exec_parse(&s, &in, &what) == 0) {
        dir = *s.dir ? open(s.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : AT_FDCWD;
        if (dir >= 0 || dir == AT_FDCWD)
            program_search(s.argv[0], s.path, touch, &dir);
        if (dir >= 0)
            close(dir);
    }
    free(s.argv);
    free(s.env);
}

/* As if it had been started and killed at once. */
static void reply_killed(uint64_t id)
{
    struct cci_proto_writer *w = reply_begin(id, 0, "", 36);
    cci_proto_put32(w, SIGKILL);
    for (int i = 0; i < 4; i++)
        cci_proto_put64(w, 0); /* usage, and no output */
    frame_end();
}

static void go(struct work *w)
{
    struct ahead *a = (struct ahead *)((char *)w - offsetof(struct ahead, work));
    struct cci_proto_reader in = {a->bytes, a->n, false};
    uint64_t id = a->req.id;
    bool given_up = a->given_up, killed = a->killed;
    request_free(&a->req); /* the number is free again, and the memory stays for this turn of the loop */
    if (killed && !given_up)
        reply_killed(id);
    else if (!given_up)
        exec_start(id, &in);
}

void exec_request(uint64_t id, struct cci_proto_reader *in)
{
    struct ahead *a;
    if (!slow_anywhere()) {
        exec_start(id, in);
        return;
    }
    if (work_too_much()) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    a = (struct ahead *)request_new(sizeof *a + 2 * in->left, id);
    a->req.detach = detach;
    a->n = in->left;
    memcpy(a->bytes, in->at, a->n);
    memcpy(a->bytes + a->n, in->at, a->n);
    a->work.run = look;
    a->work.done = go;
    work_start(&a->work);
}
