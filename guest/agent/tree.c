/*
 * Directories with what is in them: made, and removed.
 *
 * remove_all must not be led astray by somebody who swaps a directory for a symbolic link meanwhile: it goes from
 * directory to directory by openat without following links, as Go's os.RemoveAll does. Directories are emptied
 * depth first; a stack of open ones, and not the C stack, remembers the way, and of a deep tree only the lowest part
 * stays open: a directory above that is found again by "..", and it must be the one that it was.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* mkdir with exactly these bits: it does not look at set-user-ID and set-group-ID itself. */
int make_dir(const char *path, mode_t mode)
{
    return mkdir(path, mode) || (mode & (S_ISUID | S_ISGID) && chmod(path, mode)) ? -1 : 0;
}

int make_dirs(const char *path, mode_t mode)
{
    struct stat st;
    char *copy, *p;
    int err = 0;
    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    if (!*path)
        return ENOENT;
    copy = join(path, "/", "");
    for (p = copy + 1; *p && !err; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (make_dir(copy, mode) && errno != EEXIST)
            err = errno;
        *p = '/';
    }
    free(copy);
    /* What was there already may be something else: a file, or a link that leads nowhere. */
    if (!err && (stat(path, &st) || !S_ISDIR(st.st_mode)))
        err = ENOTDIR;
    return err;
}

int remove_one(int dir, const char *path)
{
    int err, err_dir;
    if (unlinkat(dir, path, 0) == 0)
        return 0;
    err = errno;
    if (unlinkat(dir, path, AT_REMOVEDIR) == 0)
        return 0;
    err_dir = errno;
    return err_dir == ENOTDIR ? err : err_dir;
}

/* ---- remove_all ------------------------------------------------------------------------------ */

enum { OPEN_MAX_LEVELS = 64 };

struct level {
    DIR *dir; /* NULL: closed meanwhile */
    dev_t dev;
    ino_t ino;
    char name[256]; /* in the level above */
    int failed;     /* something in it could not be removed */
    bool over;      /* it was found again: reading it from the start would meet what failed again */
};

struct walk {
    struct level *at;
    size_t n, cap;
    int err; /* the first failure */
};

/* Enters directory `name` of `parent`. 0, or an errno. */
static int enter(struct walk *w, int parent, const char *name)
{
    struct stat st;
    struct level *l;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int err;
    if (fd < 0)
        return errno;
    if (fstat(fd, &st)) {
        err = errno;
        close(fd);
        return err;
    }
    if (w->n == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 16;
        w->at = must(realloc(w->at, w->cap * sizeof *w->at));
    }
    l = &w->at[w->n++];
    *l = (struct level){.dir = must(fdopendir(fd)), .dev = st.st_dev, .ino = st.st_ino};
    strncpy(l->name, name, sizeof l->name - 1);
    if (w->n > OPEN_MAX_LEVELS && w->at[w->n - 1 - OPEN_MAX_LEVELS].dir) {
        closedir(w->at[w->n - 1 - OPEN_MAX_LEVELS].dir);
        w->at[w->n - 1 - OPEN_MAX_LEVELS].dir = NULL;
    }
    return 0;
}

/* Opens the level above `fd` again, where it was closed. */
static bool reopen(struct level *l, int fd)
{
    struct stat st;
    int up;
    if (l->dir)
        return true;
    up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (up < 0)
        return false;
    if (fstat(up, &st) || st.st_dev != l->dev || st.st_ino != l->ino) {
        close(up); /* moved meanwhile */
        return false;
    }
    l->dir = must(fdopendir(up));
    return true;
}

static void note(struct walk *w, int err)
{
    w->at[w->n - 1].failed = err;
    if (!w->err)
        w->err = err;
}

/* The lowest directory is empty, or as empty as it gets: removes it, and goes up. */
static void leave(struct walk *w, int parent)
{
    struct level *l = &w->at[--w->n], *up = w->n ? l - 1 : NULL;
    bool closed = up && !up->dir, found = !up || reopen(up, dirfd(l->dir));
    int dir = up && found ? dirfd(up->dir) : parent, failed = l->failed;
    closedir(l->dir);
    if (!found) {
        /* The tree was moved about: what is above cannot be found any more. */
        w->n = 0;
        if (!w->err)
            w->err = ENOENT;
        return;
    }
    if (!failed && unlinkat(dir, l->name, AT_REMOVEDIR) && errno != ENOENT)
        failed = errno;
    if (up && closed)
        up->over = failed || up->failed;
    if (failed && up)
        note(w, failed);
    else if (failed && !w->err)
        w->err = failed;
}

/* Removes one entry of the lowest directory, or enters it. */
static void clear_entry(struct walk *w, const char *name)
{
    int dir = dirfd(w->at[w->n - 1].dir);
    int err = remove_one(dir, name);
    if (err == 0 || err == ENOENT)
        return;
    if (err == ENOTEMPTY || err == EEXIST)
        err = enter(w, dir, name);
    if (err && err != ENOENT)
        note(w, err);
}

static void clear(struct walk *w, int parent)
{
    while (w->n) {
        struct level *l = &w->at[w->n - 1];
        struct dirent *e = l->over ? NULL : readdir(l->dir);
        if (!e)
            leave(w, parent);
        else if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            clear_entry(w, e->d_name);
    }
}

/* The last element of a path, whose slashes at the end are cut off: they would mean what a link leads to. */
static char *last_element(char *path)
{
    size_t n = strlen(path);
    char *slash;
    while (n > 1 && path[n - 1] == '/')
        path[--n] = 0;
    slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The directory that `name`, the last element of `path`, is in; cuts it off. */
static int open_parent(char *path, char *name)
{
    if (name == path)
        return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    name[-1] = 0;
    return open(*path ? path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int remove_all(const char *path)
{
    struct walk w = {0};
    char *copy, *name;
    int parent, err;
    if (!*path)
        return 0; /* as Go */
    copy = join(path, "", "");
    name = last_element(copy);
    err = !strcmp(name, ".") || !strcmp(name, "..") ? EINVAL : !*name ? EBUSY : remove_one(AT_FDCWD, copy);
    if (err != ENOTEMPTY && err != EEXIST) {
        free(copy);
        return err == ENOENT ? 0 : err;
    }
    parent = open_parent(copy, name);
    err = parent < 0 ? errno : enter(&w, parent, name);
    if (err == 0) {
        clear(&w, parent);
        err = w.err;
    }
    if (parent >= 0)
        close(parent);
    free(w.at);
    free(copy);
    return err == ENOENT ? 0 : err;
}
