/*
 * tests/fs_cases.h - one table of file operations and what they must answer: for the agent over a Unix socket
 * (tests/control/test_path.c), and through the API in a guest (tests/api/test_fs.c).
 *
 * The includer defines what follows; each returns the guest's error number, 0 for success, -1 for another failure.
 */
#ifndef TESTS_FS_CASES_H
#define TESTS_FS_CASES_H

#include "check.h"

enum fs_op {
    FS_WRITE,      /* a: path, text: contents, n: mode */
    FS_READ,       /* a: path, text: contents expected */
    FS_REMOVE,     /* a */
    FS_REMOVE_ALL, /* a */
    FS_MKDIR,      /* a, n: mode */
    FS_MKDIR_ALL,  /* a, n */
    FS_RENAME,     /* a, b */
    FS_SYMLINK,    /* a: target, b: path */
    FS_READLINK,   /* a, text: target expected */
    FS_CHMOD,      /* a, n */
    FS_STAT,       /* a, n: st_mode expected */
    FS_LSTAT       /* a, n */
};

struct fs_case {
    enum fs_op op;
    const char *a, *b; /* paths below the scratch directory, unless they begin with "/" or are empty */
    const char *text;
    unsigned n;
    int want; /* error number */
};

static int fs_do(const struct fs_case *c, const char *a, const char *b); /* the includer's */

#define LONG_NAME                                                                                                      \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaa"                                                                                                             \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaa"                                                                                                             \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct fs_case fs_cases[] = {
    /* mkdir: exactly the bits, setuid and sticky ones too; what is there stays */
    {FS_MKDIR, "d", 0, 0, 0777, 0},
    {FS_STAT, "d", 0, 0, 0040777, 0},
    {FS_MKDIR, "d", 0, 0, 0700, 17},
    {FS_MKDIR, "s", 0, 0, 03755, 0},
    {FS_STAT, "s", 0, 0, 0043755, 0},
    {FS_REMOVE, "s", 0, 0, 0, 0},
    {FS_MKDIR, "no/such", 0, 0, 0700, 2},
    {FS_MKDIR, "", 0, 0, 0700, 2},
    {FS_MKDIR, "d/" LONG_NAME, 0, 0, 0700, 36},
    {FS_MKDIR, "nl\nand\xff\x01", 0, 0, 0500, 0},
    {FS_STAT, "nl\nand\xff\x01", 0, 0, 0040500, 0},
    {FS_REMOVE, "nl\nand\xff\x01", 0, 0, 0, 0},
    /* files */
    {FS_WRITE, "d/f", 0, "hello", 0604, 0},
    {FS_STAT, "d/f", 0, 0, 0100604, 0},
    {FS_READ, "d/f", 0, "hello", 0, 0},
    {FS_STAT, "d/f/", 0, 0, 0, 20},
    {FS_MKDIR, "d/f/x", 0, 0, 0700, 20},
    {FS_CHMOD, "d/f", 0, 0, 06711, 0},
    {FS_STAT, "d/f", 0, 0, 0106711, 0},
    {FS_CHMOD, "d/none", 0, 0, 0600, 2},
    /* mkdir_all */
    {FS_MKDIR_ALL, "d/a/b//c/", 0, 0, 0711, 0},
    {FS_STAT, "d/a/b", 0, 0, 0040711, 0},
    {FS_STAT, "d/a/b/c", 0, 0, 0040711, 0},
    {FS_MKDIR_ALL, "d/a/b", 0, 0, 0700, 0},
    {FS_STAT, "d/a/b", 0, 0, 0040711, 0},
    {FS_MKDIR_ALL, "d/s/s", 0, 0, 03775, 0},
    {FS_STAT, "d/s", 0, 0, 0043775, 0},
    {FS_STAT, "d/s/s", 0, 0, 0043775, 0},
    {FS_REMOVE_ALL, "d/s", 0, 0, 0, 0},
    {FS_MKDIR_ALL, "d/f/x", 0, 0, 0700, 20},
    {FS_MKDIR_ALL, "d/f", 0, 0, 0700, 20},
    {FS_MKDIR_ALL, "", 0, 0, 0700, 2},
    /* symbolic links */
    {FS_SYMLINK, "/no/where", "d/dangling", 0, 0, 0},
    {FS_READLINK, "d/dangling", 0, "/no/where", 0, 0},
    {FS_STAT, "d/dangling", 0, 0, 0, 2},
    {FS_LSTAT, "d/dangling", 0, 0, 0120777, 0},
    {FS_MKDIR_ALL, "d/dangling", 0, 0, 0700, 20},
    {FS_SYMLINK, "x", "d/f", 0, 0, 17},
    {FS_SYMLINK, "", "d/empty", 0, 0, 2},
    {FS_SYMLINK, "loop", "d/loop", 0, 0, 0},
    {FS_STAT, "d/loop", 0, 0, 0, 40},
    {FS_READLINK, "d/loop", 0, "loop", 0, 0},
    {FS_READLINK, "d/f", 0, 0, 0, 22},
    {FS_READLINK, "d/none", 0, 0, 0, 2},
    {FS_SYMLINK, "f", "d/l", 0, 0, 0},
    {FS_READ, "d/l", 0, "hello", 0, 0},
    {FS_CHMOD, "d/l", 0, 0, 0640, 0},
    {FS_STAT, "d/f", 0, 0, 0100640, 0},
    {FS_SYMLINK, "\xff\n\x01", "d/odd", 0, 0, 0},
    {FS_READLINK, "d/odd", 0, "\xff\n\x01", 0, 0},
    /* rename: a file replaces a file, nothing replaces a directory */
    {FS_WRITE, "d/g", 0, "other", 0600, 0},
    {FS_RENAME, "d/g", "d/f", 0, 0, 0},
    {FS_READ, "d/f", 0, "other", 0, 0},
    {FS_RENAME, "d/g", "d/h", 0, 0, 2},
    {FS_RENAME, "d/f", "d/a", 0, 0, 17},
    {FS_RENAME, "d/none", "d/a", 0, 0, 2},
    {FS_MKDIR, "d/e", 0, 0, 0700, 0},
    {FS_RENAME, "d/e", "d/a/b/c", 0, 0, 17},
    {FS_RENAME, "d/e", "d/e", 0, 0, 17},
    {FS_RENAME, "d/e", "d/f", 0, 0, 20},
    {FS_RENAME, "d/a", "d/a/b/x", 0, 0, 22},
    {FS_RENAME, "d/e", "d/moved", 0, 0, 0},
    {FS_RENAME, "d/f", "d/f", 0, 0, 0},
    {FS_RENAME, "d/l", "d/f2", 0, 0, 0},
    {FS_LSTAT, "d/f2", 0, 0, 0120777, 0},
    {FS_RENAME, "d/f", "d/none/x", 0, 0, 2},
    /* remove */
    {FS_REMOVE, "d/moved", 0, 0, 0, 0},
    {FS_REMOVE, "d/moved", 0, 0, 0, 2},
    {FS_REMOVE, "d/a", 0, 0, 0, 39},
    {FS_REMOVE, "d/f/x", 0, 0, 0, 20},
    {FS_REMOVE, "", 0, 0, 0, 2},
    {FS_REMOVE, "d/dangling", 0, 0, 0, 0},
    {FS_REMOVE, "d/a/b/c", 0, 0, 0, 0},
    /* remove_all: links are removed, not followed */
    {FS_MKDIR_ALL, "keep/in", 0, 0, 0700, 0},
    {FS_WRITE, "keep/in/f", 0, "kept", 0600, 0},
    {FS_SYMLINK, "../../keep", "d/a/link", 0, 0, 0},
    {FS_REMOVE_ALL, "d/.", 0, 0, 0, 22},
    {FS_REMOVE_ALL, "d/a/..", 0, 0, 0, 22},
    {FS_REMOVE_ALL, "/", 0, 0, 0, 16},
    {FS_REMOVE_ALL, "", 0, 0, 0, 0},
    {FS_REMOVE_ALL, "d/none", 0, 0, 0, 0},
    {FS_REMOVE_ALL, "none/none", 0, 0, 0, 0},
    {FS_REMOVE_ALL, "d/f/x", 0, 0, 0, 20},
    {FS_REMOVE_ALL, "d/a/link", 0, 0, 0, 0},
    {FS_SYMLINK, "../../keep", "d/a/link", 0, 0, 0},
    {FS_REMOVE_ALL, "d/a/link/", 0, 0, 0, 0}, /* of the link, too */
    {FS_LSTAT, "d/a/link", 0, 0, 0, 2},
    {FS_SYMLINK, "../../keep", "d/a/link", 0, 0, 0},
    {FS_REMOVE_ALL, "d/f/", 0, 0, 0, 0},
    {FS_REMOVE_ALL, "d//", 0, 0, 0, 0},
    {FS_LSTAT, "d", 0, 0, 0, 2},
    {FS_READ, "keep/in/f", 0, "kept", 0, 0},
    {FS_REMOVE_ALL, "keep", 0, 0, 0, 0},
};

/* Runs the table below directory `scratch`. */
static void fs_run_cases(const char *scratch)
{
    char path[900], other[900];
    for (size_t i = 0; i < sizeof(fs_cases) / sizeof(fs_cases[0]); i++) {
        const struct fs_case *c = &fs_cases[i];
        bool plain = c->op == FS_SYMLINK || !c->a[0] || c->a[0] == '/'; /* a link's target stands as it is */
        (void)snprintf(path, sizeof(path), "%s%s%s", plain ? "" : scratch, plain ? "" : "/", c->a);
        (void)snprintf(other, sizeof(other), "%s/%s", scratch, c->b ? c->b : "");
        int got = fs_do(c, path, other);
        if (got != c->want)
            printf("# case %zu, operation %d of %.60s: %d\n", i, (int)c->op, c->a, got);
        CHECK_EQ_INT(got, c->want);
    }
}

#endif
