/*
 * Users of the image, by docker's rules for USER:
 *
 *   "user", "uid", "user:group", "uid:gid" and mixtures. A name must be in /etc/passwd; a number need
 *   not be. Without a group the passwd entry's is used (0 if there is no entry), and the groups that
 *   list the user as a member are added. With a group there are no additional ones.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FIELDS = 7, FILE_MAX = 4 << 20, NAME_MAX_LEN = 256 };

/* Reads a whole file, NUL-terminated, into one buffer that the next call uses again; an absent or
   unreadable file is empty. Every command looks up its user, so this is kept short of system calls. */
static char *slurp(const char *path)
{
    static char *text;
    static size_t cap = 4096;
    size_t len = 0;
    int fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (!text)
        text = must(malloc(cap + 1));
    while (fd >= 0 && len < FILE_MAX) {
        ssize_t n = read(fd, text + len, cap - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        if (len < cap)
            break; /* a regular file gives less only at its end */
        text = must(realloc(text, (cap *= 2) + 1));
    }
    if (fd >= 0)
        close(fd);
    text[len] = 0;
    return text;
}

/* Splits the next line of *text at colons, in place; missing fields are "". False at the end. */
static bool next_line(char **text, char *field[FIELDS])
{
    static char none[1];
    char *p = *text;
    size_t n = 0;
    if (!*p)
        return false;
    while (n < FIELDS)
        field[n++] = none;
    n = 0;
    field[n++] = p;
    while (*p && *p != '\n') {
        if (*p == ':' && n < FIELDS) {
            *p = 0;
            field[n++] = p + 1;
        }
        p++;
    }
    *text = *p ? p + 1 : p;
    *p = 0;
    return true;
}

/* A decimal number below 2^32 - 1 (which means "no change" to the kernel). */
static bool number(const char *s, uint32_t *out)
{
    uint64_t v = 0;
    if (!*s)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return false;
        v = v * 10 + (uint64_t)(*s - '0');
        if (v >= UINT32_MAX)
            return false;
    }
    *out = (uint32_t)v;
    return true;
}

static bool has_member(const char *list, const char *name)
{
    size_t n = strlen(name);
    while (*list) {
        const char *end = strchr(list, ',');
        size_t k = end ? (size_t)(end - list) : strlen(list);
        if (k == n && n && !memcmp(list, name, n))
            return true;
        if (!end)
            return false;
        list = end + 1;
    }
    return false;
}

/* Finds `user` in passwd. Its name there is copied out, for the groups; false when there is none. */
static bool find_user(char *text, const char *user, struct identity *out, char name[NAME_MAX_LEN])
{
    char *f[FIELDS];
    uint32_t wanted = 0, uid, gid;
    bool numeric = number(user, &wanted);
    while (next_line(&text, f)) {
        if (!number(f[2], &uid) || !number(f[3], &gid))
            continue;
        if (strcmp(f[0], user) && !(numeric && uid == wanted))
            continue;
        out->uid = uid;
        out->gid = gid;
        if (*f[5] && strlen(f[5]) < sizeof out->home)
            memcpy(out->home, f[5], strlen(f[5]) + 1);
        name[0] = 0;
        if (strlen(f[0]) < NAME_MAX_LEN)
            memcpy(name, f[0], strlen(f[0]) + 1);
        return true;
    }
    out->uid = wanted;
    return false;
}

static bool find_group(char *text, const char *group, gid_t *out)
{
    char *f[FIELDS];
    uint32_t wanted = 0, gid;
    bool numeric = number(group, &wanted);
    while (next_line(&text, f)) {
        if (!number(f[2], &gid) || (strcmp(f[0], group) && !(numeric && gid == wanted)))
            continue;
        *out = gid;
        return true;
    }
    *out = wanted;
    return numeric;
}

static void find_memberships(char *text, const char *name, struct identity *out)
{
    char *f[FIELDS];
    uint32_t gid;
    while (next_line(&text, f) && out->ngroups < sizeof out->groups / sizeof *out->groups)
        if (number(f[2], &gid) && has_member(f[3], name))
            out->groups[out->ngroups++] = gid;
}

static int look_up(const char *spec, struct identity *out, const char **what)
{
    static const struct identity nobody = {.home = "/"};
    char *copy = join(spec, "", ""), *colon = strchr(copy, ':'), name[NAME_MAX_LEN];
    const char *user = copy;
    uint32_t ignored;
    bool found;
    int err = EINVAL;
    *out = nobody;
    if (colon)
        *colon = 0;
    if (!*user)
        user = "0";
    found = find_user(slurp("/etc/passwd"), user, out, name);
    if (!found && !number(user, &ignored)) {
        *what = "no such user in the image's /etc/passwd";
    } else if (colon && colon[1] && !find_group(slurp("/etc/group"), colon + 1, &out->gid)) {
        *what = "no such group in the image's /etc/group";
    } else {
        if (found && !(colon && colon[1]))
            find_memberships(slurp("/etc/group"), name, out);
        err = 0;
    }
    free(copy);
    return err;
}

/* ---- The answer before, which is most often the next one too -------------------------------------------------- */

/* What tells that a file is still the one that was read. */
struct print {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;
};

static struct {
    char *spec; /* NULL: nothing is known */
    struct identity who;
    struct print passwd, group;
} last;

/* An absent file is all zero. */
static struct print print_of(const char *path)
{
    struct stat st;
    struct print p = {0};
    if (stat(path, &st) == 0) {
        p.dev = st.st_dev;
        p.ino = st.st_ino;
        p.size = st.st_size;
        p.changed = st.st_ctim;
    }
    return p;
}

static bool same(const struct print *a, const struct print *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Times of files move in steps: one that was changed just now may change again unseen. */
static bool settled(const struct print *p)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - p->changed.tv_sec >= 2;
}

int user_find(const char *spec, struct identity *out, const char **what)
{
    struct print passwd = print_of("/etc/passwd"), group = print_of("/etc/group");
    int err;
    if (last.spec && !strcmp(last.spec, spec) && same(&last.passwd, &passwd) && same(&last.group, &group)) {
        *out = last.who;
        return 0;
    }
    free(last.spec);
    last.spec = NULL;
    err = look_up(spec, out, what);
    if (!err && settled(&passwd) && settled(&group)) {
        last.spec = join(spec, "", "");
        last.who = *out;
        last.passwd = passwd;
        last.group = group;
    }
    return err;
}
