/*
 * base/remove.h - removes a directory with all that is in it, however deep, whatever is in it, links as links.
 *
 * Trees that guests made may be deeper than any path, and directories may deny access to their owner. So nothing here
 * goes down: a directory within a directory of the tree is moved up to the top, under a new name, and removed from
 * there later. Memory and descriptors are the same for every tree. Nobody else makes files in the tree meanwhile, or
 * it may not end up empty.
 */
#ifndef CCI_BASE_REMOVE_H
#define CCI_BASE_REMOVE_H

#include "os.h"

struct cci_remove {
    cci_fd top;
    uint64_t names; /* of directories that were moved up */
    int failed;     /* the first error number, or 0 */
    bool progress;
};

static void cci_remove_failed(struct cci_remove *r, int error)
{
    if (error < 0 && error != -ENOENT && !r->failed)
        r->failed = error;
}

/* Opens a directory that its owner may have no access to. */
static cci_fd cci_remove_open(cci_fd dir, const char *name)
{
    cci_fd named = cci_os_open_at(dir, name, CCI_OS_PATH | CCI_OS_DIRECTORY, 0);
    if (named < 0)
        return named;
    (void)cci_os_chmod_fd(named, 0700);
    cci_fd fd = cci_os_reopen(named, CCI_OS_RDONLY | CCI_OS_DIRECTORY);
    cci_os_close(named);
    return fd;
}

/* Something in a directory below the top. */
static void cci_remove_below(struct cci_remove *r, cci_fd dir, const char *name)
{
    char up[40];
    int error = cci_os_unlink_at(dir, name, false);
    if (error == -EISDIR || error == -EPERM)
        error = cci_os_unlink_at(dir, name, true);
    if (error == -ENOTEMPTY || error == -EEXIST || error == -EACCES) {
        cci_os_close(cci_remove_open(dir, name)); /* moving a directory wants access to it */
        for (unsigned tries = 0; tries < 100 && error < 0; tries++) {
            (void)snprintf(up, sizeof(up), "moved-up-%llu", (unsigned long long)r->names++);
            error = cci_os_rename_at(dir, name, r->top, up, 0);
        }
    }
    cci_remove_failed(r, error);
}

/* Calls fn for each entry but "." and "..". */
static void cci_remove_each(struct cci_remove *r, cci_fd dir,
                            void (*fn)(struct cci_remove *r, cci_fd dir, const char *name))
{
    uint64_t buf[2048 / 8];
    int64_t n;
    while ((n = cci_os_getdents(dir, buf, sizeof(buf))) > 0)
        for (const uint8_t *p = (const uint8_t *)buf, *end = p + n; p < end;) {
            const char *name = (const char *)p + 19;
            if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
                fn(r, dir, name);
            p += (unsigned)(p[16] | (unsigned)p[17] << 8);
        }
    cci_remove_failed(r, (int)n);
}

/* Something at the top. */
static void cci_remove_at_top(struct cci_remove *r, cci_fd top, const char *name)
{
    int error = cci_os_unlink_at(top, name, false);
    if (error == -EISDIR || error == -EPERM)
        error = cci_os_unlink_at(top, name, true);
    if (error == -ENOTEMPTY || error == -EEXIST) {
        cci_fd fd = cci_remove_open(top, name);
        if (fd >= 0)
            cci_remove_each(r, fd, cci_remove_below);
        cci_os_close(fd);
        error = fd < 0 ? fd : cci_os_unlink_at(top, name, true);
    }
    r->progress |= error == 0;
    cci_remove_failed(r, error);
}

/* 0, or the first error number; as much as can be removed is. */
static int cci_remove_tree(const char *path)
{
    struct cci_remove r = {.top = cci_os_open(path, CCI_OS_RDONLY | CCI_OS_DIRECTORY | CCI_OS_NOFOLLOW, 0)};
    if (r.top == -ENOTDIR || r.top == -ELOOP)
        return cci_os_unlink(path);
    if (r.top < 0)
        return r.top;
    int error;
    do {
        r.progress = false;
        r.failed = 0;
        (void)cci_os_lseek(r.top, 0, 0);
        cci_remove_each(&r, r.top, cci_remove_at_top);
        error = cci_os_rmdir(path);
    } while (error < 0 && r.progress);
    cci_os_close(r.top);
    return error < 0 && r.failed ? r.failed : error;
}

#endif
