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
#include <unistd.h>

enum { FIELDS = 7, FILE_MAX = 4 << 20 };

/* Reads a whole file, NUL-terminated; an absent or unreadable one is empty. */
static char *slurp(const char *path) {
    size_t len = 0, cap = 4096;
    char *text = must(malloc(cap + 1));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (fd >= 0 && len < FILE_MAX) {
        ssize_t n = read(fd, text + len, cap - len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        len += (size_t)n;
        if (len == cap) text = must(realloc(text, (cap *= 2) + 1));
    }
    if (fd >= 0) close(fd);
    text[len] = 0;
    return text;
}

/* Splits the next line of *text at colons, in place; missing fields are "". False at the end. */
static bool next_line(char **text, char *field[FIELDS]) {
    static char none[1];
    char *p = *text;
    size_t n = 0;
    if (!*p) return false;
    while (n < FIELDS) field[n++] = none;
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
static bool number(const char *s, uint32_t *out) {
    uint64_t v = 0;
    if (!*s) return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9') return false;
        v = v * 10 + (uint64_t)(*s - '0');
        if (v >= UINT32_MAX) return false;
    }
    *out = (uint32_t)v;
    return true;
}

static bool has_member(const char *list, const char *name) {
    size_t n = strlen(name);
    while (*list) {
        const char *end = strchr(list, ',');
        size_t k = end ? (size_t)(end - list) : strlen(list);
        if (k == n && n && !memcmp(list, name, n)) return true;
        if (!end) return false;
        list = end + 1;
    }
    return false;
}

/* Finds `user` in passwd. Returns its name there (points into the text), or NULL. */
static const char *find_user(char *text, const char *user, struct identity *out) {
    char *f[FIELDS];
    uint32_t wanted = 0, uid, gid;
    bool numeric = number(user, &wanted);
    while (next_line(&text, f)) {
        if (!number(f[2], &uid) || !number(f[3], &gid)) continue;
        if (strcmp(f[0], user) && !(numeric && uid == wanted)) continue;
        out->uid = uid;
        out->gid = gid;
        if (*f[5] && strlen(f[5]) < sizeof out->home) memcpy(out->home, f[5], strlen(f[5]) + 1);
        return f[0];
    }
    out->uid = wanted;
    return NULL;
}

static bool find_group(char *text, const char *group, gid_t *out) {
    char *f[FIELDS];
    uint32_t wanted = 0, gid;
    bool numeric = number(group, &wanted);
    while (next_line(&text, f)) {
        if (!number(f[2], &gid) || (strcmp(f[0], group) && !(numeric && gid == wanted))) continue;
        *out = gid;
        return true;
    }
    *out = wanted;
    return numeric;
}

static void find_memberships(char *text, const char *name, struct identity *out) {
    char *f[FIELDS];
    uint32_t gid;
    while (next_line(&text, f) && out->ngroups < sizeof out->groups / sizeof *out->groups)
        if (number(f[2], &gid) && has_member(f[3], name)) out->groups[out->ngroups++] = gid;
}

int user_find(const char *spec, struct identity *out, const char **what) {
    static const struct identity nobody = {.home = "/"};
    char *passwd = slurp("/etc/passwd"), *group = slurp("/etc/group");
    char *user = join(spec, "", ""), *colon = strchr(user, ':');
    const char *name, *user_part = user;
    uint32_t ignored;
    int err = 0;
    *out = nobody;
    if (colon) *colon = 0;
    if (!*user_part) user_part = "0";
    name = find_user(passwd, user_part, out);
    if (!name && !number(user_part, &ignored)) {
        *what = "no such user in the image's /etc/passwd";
        err = EINVAL;
    } else if (colon && colon[1]) {
        if (!find_group(group, colon + 1, &out->gid)) {
            *what = "no such group in the image's /etc/group";
            err = EINVAL;
        }
    } else if (name) {
        find_memberships(group, name, out);
    }
    free(user);
    free(group);
    free(passwd);
    return err;
}
