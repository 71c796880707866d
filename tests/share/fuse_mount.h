/*
 * tests/share/fuse_mount.h - a share mounted natively: requests come from /dev/fuse instead of a virtqueue.
 */
#ifndef TESTS_SHARE_FUSE_MOUNT_H
#define TESTS_SHARE_FUSE_MOUNT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/share/dispatch.h"

#define FUSE_MOUNT_BUFFER ((size_t)(1 << 20) + 8192)
#define FUSE_MOUNT_THREADS 4

struct fuse_mount {
    struct cci_share *share;
    int fd; /* /dev/fuse */
    const char *at;
    struct cci_thread thread[FUSE_MOUNT_THREADS];
};

/* Answers requests until the filesystem is unmounted. */
static void fuse_mount_serve(void *ctx)
{
    struct fuse_mount *m = ctx;
    uint8_t *in = malloc(FUSE_MOUNT_BUFFER), *out = malloc(FUSE_MOUNT_BUFFER);
    cci_share_enter_thread();
    for (;;) {
        ssize_t n = read(m->fd, in, FUSE_MOUNT_BUFFER);
        if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
            continue;
        if (n < 0)
            break;
        struct cci_iovec from = {in, (size_t)n}, to = {out, FUSE_MOUNT_BUFFER};
        struct cci_iov in_iov = {&from, 1, 0}, out_iov = {&to, 1, 0};
        size_t len = cci_share_request(m->share, in_iov, (size_t)n, out_iov, FUSE_MOUNT_BUFFER, NULL);
        if (len && write(m->fd, out, len) < 0 && errno != ENOENT)
            perror("answering /dev/fuse");
    }
    free(in);
    free(out);
}

/* Mounts a share of `from` at `at`. 0, or -1 with a message. */
static int fuse_mount_begin(struct fuse_mount *m, const struct cci_share_config *config, const char *at)
{
    char options[200];
    cc_error err = {0};
    memset(m, 0, sizeof(*m));
    m->at = at;
    if (cci_share_new(config, &m->share, &err)) {
        fprintf(stderr, "%s\n", err.message);
        cci_error_release(&err);
        return -1;
    }
    m->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
             m->fd);
    if (m->fd < 0 || mount("share", at, "fuse.share", 0, options)) {
        perror("mounting");
        return -1;
    }
    for (unsigned i = 0; i < FUSE_MOUNT_THREADS; i++)
        if (cci_thread_new(&m->thread[i], "fuse", fuse_mount_serve, m))
            return -1;
    return 0;
}

static void fuse_mount_end(struct fuse_mount *m)
{
    if (umount2(m->at, MNT_DETACH))
        perror("unmounting");
    for (unsigned i = 0; i < FUSE_MOUNT_THREADS; i++)
        cci_thread_join(&m->thread[i]);
    close(m->fd);
    cci_share_free(m->share);
}

#endif
