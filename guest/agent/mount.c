/*
 * MOUNT: a share of the host, at a path.
 *
 * On a worker: the mount makes the guest's kernel ask the host for the first time. Directories that are missing are
 * made, in the overlay; a link in the path leads where it leads in the image.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mount.h>

struct share {
    struct work work;
    uint64_t id;
    char *tag, *path;
    uint64_t flags;
    int err;
    const char *what;
};

static void run(struct work *w)
{
    struct share *s = (struct share *)w;
    const unsigned long flags =
        MS_NODEV | (s->flags & CCI_MOUNT_READ_ONLY ? MS_RDONLY : 0) | (s->flags & CCI_MOUNT_NO_SET_ID ? MS_NOSUID : 0);
    s->what = "cannot make the directory";
    s->err = make_dirs(s->path, 0755);
    if (s->err)
        return;
    s->what = "mount";
    if (!mount(s->tag, s->path, "virtiofs", flags, NULL))
        return;
    s->err = errno;
    if (s->err == ENODEV)
        s->what = "the guest's kernel has no virtiofs";
    else if (s->err == EINVAL)
        s->what = "no share has this tag";
}

static void done(struct work *w)
{
    struct share *s = (struct share *)w;
    reply(s->id, s->err, s->err ? s->what : "");
    free(s->tag);
    free(s->path);
    free(s);
}

void mount_request(uint64_t id, struct cci_proto_reader *in)
{
    const char *tag = get_cstr(in), *path = get_cstr(in);
    uint64_t flags = cci_proto_get64(in);
    if (in->bad || !tag || !path) {
        reply(id, EPROTO, "malformed request");
        return;
    }
    if (work_too_much()) {
        reply(id, EAGAIN, "too many requests at once");
        return;
    }
    struct share *s = must(calloc(1, sizeof *s));
    s->work.run = run;
    s->work.done = done;
    s->id = id;
    s->tag = join(tag, "", "");
    s->path = join(path, "", "");
    s->flags = flags;
    work_start(&s->work);
}
