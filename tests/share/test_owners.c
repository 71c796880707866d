/*
 * A share with the same owners on both sides (keep_owners), natively: owners and set-id bits pass through in both
 * directions, what a program makes belongs to it, and requests of several users at once do not get mixed up.
 *
 * @root
 */
#include "fuse_mount.h"
#include "posix.h"
#include "../scratch.h"

static char base[64], host[80], at[80];
static struct fuse_mount mounted;

static const char *in(const char *dir, const char *name)
{
    static char text[4][200];
    static unsigned next;
    (void)snprintf(text[++next % 4], sizeof(text[0]), "%s/%s", dir, name);
    return text[next % 4];
}

static void is_owned(const char *name, unsigned uid, unsigned gid, unsigned mode)
{
    const char *const dirs[] = {host, at};
    for (unsigned i = 0; i < 2; i++) {
        struct stat st;
        memset(&st, 0, sizeof(st));
        OK(lstat(in(dirs[i], name), &st));
        CHECK_EQ_INT(st.st_uid, uid);
        CHECK_EQ_INT(st.st_gid, gid);
        CHECK_EQ_INT(st.st_mode & 07777, mode);
    }
}

/* Runs fn as that user, in the mounted directory. */
static void as(unsigned uid, unsigned gid, void (*fn)(void))
{
    pid_t child = fork();
    if (child == 0) {
        (void)umask(0);
        if (chdir(at) || syscall(SYS_setgroups, 0L, NULL) || setgid(gid) || setuid(uid))
            _exit(2);
        fn();
        _exit(0);
    }
    int status = 1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ_INT(status, 0);
}

static void test_mount(void)
{
    scratch_make(base, sizeof(base), "owners");
    OK(chmod(base, 0755));
    (void)snprintf(host, sizeof(host), "%s/host", base);
    (void)snprintf(at, sizeof(at), "%s/at", base);
    OK(mkdir(host, 0755));
    OK(mkdir(at, 0755));
    OK(chmod(host, 01777));
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    const struct cci_share_config config = {.host_path = host, .writable = true, .identity = true};
    CHECK_EQ_INT(fuse_mount_begin(&mounted, &config, at), 0);
}

static void test_of_the_host(void)
{
    posix_make(in(host, "f"), "text");
    OK(chown(in(host, "f"), 1234, 2345));
    OK(chmod(in(host, "f"), 06755));
    is_owned("f", 1234, 2345, 06755);
    OK(setxattr(in(at, "f"), "trusted.t", "v", 1, 0));
    IS(getxattr(in(host, "f"), "trusted.t", NULL, 0) == 1);
}

static void test_of_root(void)
{
    posix_make(in(at, "r"), "text");
    is_owned("r", 0, 0, 0644);
    OK(chown(in(at, "r"), 1000, 1001));
    OK(chmod(in(at, "r"), 04711));
    is_owned("r", 1000, 1001, 04711);
    OK(symlink("r", in(at, "rl")));
    OK(lchown(in(at, "rl"), 7, 8));
    is_owned("rl", 7, 8, 0777);
}

static void make_all(void)
{
    int fd = open("u", O_CREAT | O_RDWR | O_EXCL, 0640);
    int temporary = open(".", O_TMPFILE | O_RDWR, 0600);
    char name[40];
    (void)snprintf(name, sizeof(name), "/proc/self/fd/%d", temporary);
    if (fd < 0 || mkdir("ud", 0750) || mkfifo("up", 0620) || symlink("u", "ul") ||
        (temporary >= 0 && linkat(AT_FDCWD, name, AT_FDCWD, "ut", AT_SYMLINK_FOLLOW)) || chmod("u", 04700))
        _exit(3);
}

static void test_of_a_user(void)
{
    as(1000, 1001, make_all);
    is_owned("u", 1000, 1001, 04700);
    is_owned("ud", 1000, 1001, 0750);
    is_owned("up", 1000, 1001, 0620);
    is_owned("ul", 1000, 1001, 0777);
    if (access(in(host, "ut"), F_OK) == 0)
        is_owned("ut", 1000, 1001, 0600);
}

/* What is not his he does not get at; a failure must not leave the server's thread as him either. */
static void denied(void)
{
    if (open("u", O_RDWR) >= 0 || errno != EACCES || mkdir("ud/x", 0755) == 0 || errno != EACCES ||
        chown("f", 4321, 4321) == 0 || errno != EPERM || unlink("f") == 0 || errno != EPERM)
        _exit(3);
    for (int i = 0; i < 40; i++)
        if (mkdir("ud", 0755) == 0 || errno != EEXIST || open("none/f", O_CREAT | O_RDWR, 0644) >= 0)
            _exit(4);
}

static void test_of_another(void)
{
    as(4321, 4321, denied);
    for (int i = 0; i < 40; i++) { /* more than there are threads */
        OK(mkdir(in(at, "ud/root"), 0700));
        is_owned("ud/root", 0, 0, 0700);
        OK(rmdir(in(at, "ud/root")));
    }
}

static void overwrite(void)
{
    int fd = open("s", O_WRONLY);
    if (fd < 0 || write(fd, "x", 1) != 1)
        _exit(3);
}

/* Another's write takes the bits off, root's does not. */
static void test_set_id_on_write(void)
{
    posix_make(in(at, "s"), "text");
    OK(chmod(in(at, "s"), 06777));
    int fd = open(in(at, "s"), O_WRONLY);
    IS(write(fd, "x", 1) == 1);
    close(fd);
    is_owned("s", 0, 0, 06777);
    as(4321, 4321, overwrite);
    is_owned("s", 0, 0, 0777);
}

/* Two users at once: every directory belongs to the one who made it. */
static void test_at_once(void)
{
    char name[40];
    pid_t child[2];
    for (unsigned u = 0; u < 2; u++) {
        child[u] = fork();
        if (child[u] == 0) {
            if (chdir(at) || setgid(3000 + u) || setuid(3000 + u))
                _exit(2);
            for (unsigned i = 0; i < 300; i++) {
                (void)snprintf(name, sizeof(name), "m%u-%u", u, i);
                if (mkdir(name, 0700))
                    _exit(3);
            }
            _exit(0);
        }
    }
    for (unsigned u = 0; u < 2; u++) {
        int status = 1;
        (void)waitpid(child[u], &status, 0);
        CHECK_EQ_INT(status, 0);
        for (unsigned i = 0; i < 300; i++) {
            (void)snprintf(name, sizeof(name), "m%u-%u", u, i);
            is_owned(name, 3000 + u, 3000 + u, 0700);
        }
    }
}

static void test_unmount(void)
{
    fuse_mount_end(&mounted);
    scratch_remove(base);
}

int main(void)
{
    RUN(test_mount);
    RUN(test_of_the_host);
    RUN(test_of_root);
    RUN(test_of_a_user);
    RUN(test_of_another);
    RUN(test_set_id_on_write);
    RUN(test_at_once);
    RUN(test_unmount);
    return check_done();
}
