/*
 * tests/share/posix.h - what POSIX and Linux say of a filesystem's calls, tried on the one under the current directory.
 *
 * After the structure of the well-known conformance suites: one function a call, every error number that it can be
 * brought to give. The caller is root. The functions leave nothing behind. Each line says what is expected of a call:
 * OK(call) succeeds, ERR(number, call) fails with that number, IS(condition) holds.
 */
#ifndef TESTS_SHARE_POSIX_H
#define TESTS_SHARE_POSIX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "../check.h"

static void posix_expect(int line, const char *call, int got, int want)
{
    char text[300];
    if (got == want)
        return;
    (void)snprintf(text, sizeof(text), "%.100s: %s, not %s", call, got ? strerror(got) : "success",
                   want ? strerror(want) : "success");
    check_fail(__FILE__, line, text);
}

#define OK(call) posix_expect(__LINE__, #call, (call) == -1 ? errno : 0, 0)
#define ERR(number, call) posix_expect(__LINE__, #call, (call) == -1 ? errno : 0, number)
#define IS(condition) CHECK(condition)

static const char *posix_long_name(size_t n)
{
    static char name[600];
    memset(name, 'x', n);
    name[n] = '\0';
    return name;
}

static void posix_make(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    IS(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    OK(close(fd));
}

static struct stat posix_stat(const char *name)
{
    struct stat st;
    OK(lstat(name, &st));
    return st;
}

static bool posix_later(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* So that a change made now is seen in a file's times: they come from the clock of whichever kernel sets them, our own
 * or (in a guest) the host's, and move with its tick of up to 10 ms. */
static void posix_tick(void)
{
    struct timespec t = {0, 20 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* Runs fn as a user who owns nothing; its result. */
static int posix_as_nobody(int (*fn)(void))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (setgid(65534) || setuid(65534))
            _exit(99);
        _exit(fn());
    }
    (void)waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

/* ---- open ---------------------------------------------------------------------------------------------------- */

static void posix_open(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "sock"};
    posix_make("f", "text");
    OK(mkdir("d", 0755));
    OK(symlink("f", "l"));
    OK(symlink("loop", "loop"));
    OK(symlink("nowhere", "dangling"));
    ERR(ENOENT, open("none", O_RDONLY));
    ERR(ENOENT, open("none/f", O_RDONLY | O_CREAT, 0600));
    ERR(ENOENT, open("dangling", O_RDONLY));
    ERR(ENOTDIR, open("f/x", O_RDONLY));
    ERR(ENOTDIR, open("f/x", O_RDONLY | O_CREAT, 0600));
    ERR(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
    ERR(EISDIR, open("d", O_WRONLY));
    ERR(EISDIR, open("d", O_RDWR));
    ERR(EISDIR, open("d", O_RDONLY | O_CREAT, 0600));
    ERR(EEXIST, open("f", O_RDWR | O_CREAT | O_EXCL, 0600));
    ERR(EEXIST, open("l", O_RDWR | O_CREAT | O_EXCL, 0600));
    ERR(EEXIST, open("dangling", O_RDWR | O_CREAT | O_EXCL, 0600));
    ERR(ELOOP, open("loop", O_RDONLY));
    ERR(ELOOP, open("l", O_RDONLY | O_NOFOLLOW));
    ERR(ENAMETOOLONG, open(posix_long_name(256), O_RDONLY));
    ERR(ENAMETOOLONG, open(posix_long_name(256), O_RDWR | O_CREAT, 0600));
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    IS(s >= 0 && bind(s, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    ERR(ENXIO, open("sock", O_RDONLY));
    OK(close(s));
    OK(mkfifo("fifo", 0600));
    ERR(ENXIO, open("fifo", O_WRONLY | O_NONBLOCK));
    int fd = open("l", O_WRONLY | O_TRUNC); /* follows, and cuts */
    IS(fd >= 0 && posix_stat("f").st_size == 0);
    OK(close(fd));
    fd = open("f", O_RDONLY);
    char c;
    ERR(EBADF, write(fd, "x", 1));
    OK(close(fd));
    fd = open("f", O_WRONLY);
    ERR(EBADF, read(fd, &c, 1));
    OK(close(fd));
    fd = open(posix_long_name(255), O_RDWR | O_CREAT | O_EXCL, 0600);
    IS(fd >= 0);
    OK(close(fd));
    OK(unlink(posix_long_name(255)));
    fd = open("mode", O_WRONLY | O_CREAT | O_EXCL, 0421); /* open for writing in spite of its mode */
    IS(fd >= 0 && write(fd, "x", 1) == 1 && (posix_stat("mode").st_mode & 07777) == (0421 & ~022));
    OK(close(fd));
    OK(unlink("mode"));
    OK(unlink("sock"));
    OK(unlink("fifo"));
    OK(unlink("dangling"));
    OK(unlink("loop"));
    OK(unlink("l"));
    OK(rmdir("d"));
    OK(unlink("f"));
}

/* A file whose last name is gone stays what it is while it is open; so does a directory that somebody is in. */
static void posix_gone(void)
{
    struct stat st;
    char text[8] = "";
    posix_make("f", "text");
    int fd = open("f", O_RDWR), here = open(".", O_RDONLY | O_DIRECTORY);
    OK(unlink("f"));
    OK(fstat(fd, &st));
    IS(st.st_nlink == 0 && st.st_size == 4);
    IS(pwrite(fd, "more", 4, 4) == 4 && pread(fd, text, 8, 0) == 8 && memcmp(text, "textmore", 8) == 0);
    OK(fchmod(fd, 0600));
    OK(ftruncate(fd, 2));
    OK(fstat(fd, &st));
    IS(st.st_size == 2 && (st.st_mode & 07777) == 0600);
    OK(close(fd));
    OK(mkdir("d", 0755));
    OK(chdir("d"));
    OK(rmdir("../d"));
    OK(stat(".", &st));
    ERR(ENOENT, open("x", O_RDWR | O_CREAT, 0600));
    ERR(ENOENT, mkdir("x", 0755));
    OK(fchdir(here));
    OK(close(here));
    posix_make("a", "old");
    posix_make("b", "new");
    fd = open("b", O_RDONLY);
    OK(rename("a", "b")); /* what is replaced, too */
    IS(pread(fd, text, 8, 0) == 3 && memcmp(text, "new", 3) == 0);
    OK(fstat(fd, &st));
    IS(st.st_nlink == 0);
    OK(close(fd));
    OK(unlink("b"));
}

/* ---- mkdir, rmdir, unlink, link, symlink ------------------------------------------------------------------------ */

static void posix_dirs(void)
{
    posix_make("f", "");
    OK(mkdir("d", 0751));
    IS((posix_stat("d").st_mode & 07777) == 0751 && posix_stat("d").st_nlink == 2);
    struct timespec before = posix_stat("d").st_mtim;
    posix_tick();
    OK(mkdir("d/e", 02755));
    IS(posix_stat("d").st_nlink == 3 && posix_later(posix_stat("d").st_mtim, before));
    ERR(EEXIST, mkdir("d", 0755));
    ERR(EEXIST, mkdir("f", 0755));
    ERR(ENOTDIR, mkdir("f/x", 0755));
    ERR(ENOENT, mkdir("none/x", 0755));
    ERR(ENAMETOOLONG, mkdir(posix_long_name(256), 0755));
    ERR(ENOTEMPTY, rmdir("d"));
    ERR(ENOTDIR, rmdir("f"));
    ERR(ENOENT, rmdir("none"));
    ERR(EINVAL, rmdir("d/."));
    ERR(ENOTEMPTY, rmdir("d/e/.."));
    ERR(EISDIR, unlink("d"));
    ERR(ENOENT, unlink("none"));
    ERR(ENOTDIR, unlink("f/x"));
    ERR(ENAMETOOLONG, unlink(posix_long_name(256)));
    OK(rmdir("d/e"));
    IS(posix_stat("d").st_nlink == 2);
    OK(rmdir("d"));
    ERR(ENOENT, rmdir("d"));
    OK(unlink("f"));
}

static void posix_links(void)
{
    char target[300];
    posix_make("f", "text");
    OK(mkdir("d", 0755));
    posix_tick();
    struct timespec before = posix_stat("f").st_ctim;
    OK(link("f", "d/g"));
    IS(posix_stat("f").st_nlink == 2 && posix_stat("d/g").st_ino == posix_stat("f").st_ino);
    IS(posix_later(posix_stat("f").st_ctim, before));
    ERR(EEXIST, link("f", "d/g"));
    ERR(EEXIST, link("f", "d"));
    ERR(EPERM, link("d", "e"));
    ERR(ENOENT, link("none", "e"));
    ERR(ENOENT, link("f", "none/e"));
    ERR(ENOTDIR, link("f", "f/e"));
    ERR(ENAMETOOLONG, link("f", posix_long_name(256)));
    OK(unlink("f")); /* the file is the other name's now */
    IS(posix_stat("d/g").st_nlink == 1 && posix_stat("d/g").st_size == 4);
    OK(symlink("d/g", "l"));
    IS(readlink("l", target, sizeof(target)) == 3 && memcmp(target, "d/g", 3) == 0 && posix_stat("l").st_size == 3);
    IS(S_ISLNK(posix_stat("l").st_mode));
    OK(link("l", "l2")); /* of the link itself */
    IS(S_ISLNK(posix_stat("l2").st_mode) && posix_stat("l").st_nlink == 2);
    ERR(EEXIST, symlink("x", "l"));
    ERR(ENOENT, symlink("x", "none/l"));
    ERR(ENOTDIR, symlink("x", "d/g/l"));
    ERR(ENAMETOOLONG, symlink("x", posix_long_name(256)));
    ERR(ENOENT, symlink("", "e"));
    ERR(EINVAL, readlink("d/g", target, sizeof(target)));
    ERR(ENOENT, readlink("none", target, sizeof(target)));
    OK(symlink(posix_long_name(590), "long"));
    IS(readlink("long", target, sizeof(target)) == sizeof(target) && posix_stat("long").st_size == 590);
    OK(unlink("long"));
    OK(unlink("l2"));
    OK(unlink("l"));
    OK(unlink("d/g"));
    OK(rmdir("d"));
}

/* ---- rename ------------------------------------------------------------------------------------------------------ */

static int posix_rename2(const char *from, const char *to, unsigned flags)
{
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

static void posix_rename(void)
{
    posix_make("f", "one");
    posix_make("g", "three");
    OK(mkdir("d", 0755));
    OK(mkdir("e", 0755));
    OK(mkdir("d/sub", 0755));
    posix_make("d/sub/x", "x");
    ERR(ENOENT, rename("none", "x"));
    ERR(ENOENT, rename("f", "none/x"));
    ERR(ENOTDIR, rename("f", "g/x"));
    ERR(ENOTDIR, rename("d", "f"));
    ERR(EISDIR, rename("f", "d"));
    ERR(EINVAL, rename("d", "d/sub/y"));
    ERR(ENOTEMPTY, rename("e", "d"));
    ERR(ENAMETOOLONG, rename("f", posix_long_name(256)));
    ERR(EBUSY, rename("d/.", "x"));
    ino_t inode = posix_stat("f").st_ino;
    OK(rename("f", "g"));
    IS(posix_stat("g").st_ino == inode && posix_stat("g").st_size == 3);
    ERR(ENOENT, unlink("f"));
    OK(link("g", "h"));
    OK(rename("g", "h")); /* the same file: nothing happens */
    IS(posix_stat("g").st_nlink == 2);
    OK(unlink("h"));
    OK(rename("d", "e")); /* onto an empty directory */
    IS(posix_stat("e/sub/x").st_size == 1 && posix_stat("e").st_nlink == 3);
    OK(rename("e/sub", "moved")); /* what is below goes along */
    IS(posix_stat("moved/x").st_size == 1 && posix_stat("e").st_nlink == 2);
    posix_make("h", "longer");
    ERR(EEXIST, posix_rename2("g", "h", 1));
    OK(posix_rename2("g", "i", 1));
    OK(posix_rename2("i", "h", 2));
    IS(posix_stat("i").st_size == 6 && posix_stat("h").st_size == 3);
    OK(posix_rename2("i", "moved", 2)); /* a file and a directory change places */
    IS(posix_stat("i/x").st_size == 1 && posix_stat("moved").st_size == 6);
    ERR(ENOENT, posix_rename2("i", "none", 2));
    ERR(EINVAL, posix_rename2("i", "h", 3));
    ERR(EINVAL, posix_rename2("h", "w", 4)); /* a whiteout */
    OK(unlink("i/x"));
    OK(rmdir("i"));
    OK(rmdir("e"));
    OK(unlink("h"));
    OK(unlink("moved"));
}

/* ---- chmod, chown, times, truncate ---------------------------------------------------------------------------------
 */

static void posix_attributes(void)
{
    posix_make("f", "text");
    OK(symlink("f", "l"));
    OK(mkdir("d", 0755));
    posix_tick();
    struct timespec before = posix_stat("f").st_ctim;
    static const mode_t modes[] = {0, 0111, 0222, 0444, 0640, 0777, 01755};
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        OK(chmod("l", modes[i])); /* follows */
        IS((posix_stat("f").st_mode & 07777) == modes[i]);
        OK(chmod("d", modes[i] | S_ISGID));
        IS((posix_stat("d").st_mode & 07777) == (modes[i] | S_ISGID));
    }
    IS(posix_later(posix_stat("f").st_ctim, before));
    ERR(ENOENT, chmod("none", 0644));
    ERR(ENOTDIR, chmod("f/x", 0644));
    OK(chown("f", 0, 0));
    OK(chown("f", (uid_t)-1, (gid_t)-1));
    OK(lchown("l", 0, 0));
    ERR(ENOENT, chown("none", 0, 0));
    const struct timespec when[2] = {{1000000000, 123456789}, {999999999, 987654321}};
    OK(utimensat(AT_FDCWD, "f", when, 0));
    struct stat st = posix_stat("f");
    IS(st.st_atim.tv_sec == 1000000000 && st.st_atim.tv_nsec == 123456789);
    IS(st.st_mtim.tv_sec == 999999999 && st.st_mtim.tv_nsec == 987654321);
    const struct timespec only[2] = {{0, UTIME_OMIT}, {5, 0}}, now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    OK(utimensat(AT_FDCWD, "l", only, AT_SYMLINK_NOFOLLOW));
    IS(posix_stat("l").st_mtim.tv_sec == 5 && posix_stat("f").st_mtim.tv_sec == 999999999);
    OK(utimensat(AT_FDCWD, "f", now, 0));
    IS(posix_stat("f").st_atim.tv_sec > 1000000000 && posix_stat("f").st_mtim.tv_sec == 999999999);
    const struct timespec early[2] = {{-5, 0}, {-100000, 500}};
    OK(utimensat(AT_FDCWD, "f", early, 0));
    IS(posix_stat("f").st_mtim.tv_sec == -100000 && posix_stat("f").st_mtim.tv_nsec == 500);
    ERR(ENOENT, utimensat(AT_FDCWD, "none", NULL, 0));
    OK(rmdir("d"));
    OK(unlink("l"));
    OK(unlink("f"));
}

static void posix_truncate(void)
{
    char text[4096];
    posix_make("f", "some text");
    OK(chmod("f", 0644));
    OK(truncate("f", 4));
    IS(posix_stat("f").st_size == 4);
    OK(truncate("f", 100000));
    int fd = open("f", O_RDWR);
    IS(pread(fd, text, sizeof(text), 0) == sizeof(text) && memcmp(text, "some", 4) == 0 && text[4] == 0 &&
       text[9] == 0);
    posix_tick();
    struct timespec before = posix_stat("f").st_mtim;
    OK(ftruncate(fd, 3));
    IS(posix_stat("f").st_size == 3 && posix_later(posix_stat("f").st_mtim, before));
    ERR(EINVAL, ftruncate(fd, -1));
    OK(close(fd));
    fd = open("f", O_RDONLY);
    ERR(EINVAL, ftruncate(fd, 1));
    OK(close(fd));
    OK(mkdir("d", 0755));
    ERR(EISDIR, truncate("d", 0));
    ERR(ENOENT, truncate("none", 0));
    ERR(ENOTDIR, truncate("f/x", 0));
    ERR(EINVAL, truncate("f", -1));
    OK(truncate("f", (off_t)1 << 40));
    IS(posix_stat("f").st_size == (off_t)1 << 40 && posix_stat("f").st_blocks < 100);
    OK(rmdir("d"));
    OK(unlink("f"));
}

/* ---- mknod, statfs, xattr
 * -------------------------------------------------------------------------------------------- */

static void posix_special(void)
{
    struct statvfs fs;
    OK(mknod("n", S_IFREG | 0640, 0));
    IS(S_ISREG(posix_stat("n").st_mode) && (posix_stat("n").st_mode & 07777) == 0640);
    ERR(EEXIST, mknod("n", S_IFREG | 0640, 0));
    OK(mknod("p", S_IFIFO | 0600, 0));
    OK(mknod("s", S_IFSOCK | 0600, 0));
    IS(S_ISFIFO(posix_stat("p").st_mode) && S_ISSOCK(posix_stat("s").st_mode));
    ERR(EPERM, mknod("c", S_IFCHR | 0600, makedev(1, 3)));
    ERR(EPERM, mknod("b", S_IFBLK | 0600, makedev(8, 0)));
    OK(chmod("p", 0644));
    /* The two ends of a FIFO are in this machine, not in the other. */
    int r = open("p", O_RDONLY | O_NONBLOCK), w = open("p", O_WRONLY | O_NONBLOCK);
    char c = 0;
    IS(r >= 0 && w >= 0 && write(w, "x", 1) == 1 && read(r, &c, 1) == 1 && c == 'x');
    OK(close(r));
    OK(close(w));
    OK(statvfs(".", &fs));
    IS(fs.f_blocks > 0 && fs.f_bsize > 0 && fs.f_namemax == 255);
    OK(unlink("n"));
    OK(unlink("p"));
    OK(unlink("s"));
}

static void posix_xattr(void)
{
    char buf[70000];
    posix_make("f", "");
    if (getxattr("f", "user.a", buf, sizeof(buf)) == -1 && errno == EOPNOTSUPP) {
        OK(unlink("f"));
        return; /* the host's filesystem has none */
    }
    OK(mkdir("d", 0755));
    ERR(ENODATA, getxattr("f", "user.a", buf, sizeof(buf)));
    ERR(ENODATA, removexattr("f", "user.a"));
    ERR(ENODATA, setxattr("f", "user.a", "x", 1, XATTR_REPLACE));
    OK(setxattr("f", "user.a", "value", 5, XATTR_CREATE));
    ERR(EEXIST, setxattr("f", "user.a", "x", 1, XATTR_CREATE));
    IS(getxattr("f", "user.a", NULL, 0) == 5);
    IS(getxattr("f", "user.a", buf, sizeof(buf)) == 5 && memcmp(buf, "value", 5) == 0);
    ERR(ERANGE, getxattr("f", "user.a", buf, 4));
    OK(setxattr("f", "user.empty", "", 0, 0));
    IS(getxattr("f", "user.empty", buf, sizeof(buf)) == 0);
    ssize_t n = listxattr("f", buf, sizeof(buf));
    IS(n == 18 && listxattr("f", NULL, 0) == 18);
    IS(memmem(buf, 18, "user.a", 7) && memmem(buf, 18, "user.empty", 11));
    ERR(ERANGE, listxattr("f", buf, 17));
    OK(removexattr("f", "user.empty"));
    OK(setxattr("d", "user.d", "dir", 3, 0));
    IS(getxattr("d", "user.d", buf, sizeof(buf)) == 3);
    memset(buf, 'v', 2000);
    OK(setxattr("f", "user.a", buf, 2000, XATTR_REPLACE));
    IS(getxattr("f", "user.a", buf, sizeof(buf)) == 2000);
    ERR(ENOENT, getxattr("none", "user.a", buf, 1));
    OK(unlink("f"));
    OK(rmdir("d"));
}

/* ---- directories
 * ----------------------------------------------------------------------------------------------------- */

/* Every name once, also when the directory is changed meanwhile; positions can be gone back to. */
static void posix_readdir(void)
{
    enum { FILES = 400 };
    static unsigned char seen[FILES];
    char name[64];
    OK(mkdir("d", 0755));
    OK(chdir("d"));
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof(name), "a-name-that-is-not-short-%d", i);
        posix_make(name, "");
    }
    memset(seen, 0, sizeof(seen));
    DIR *d = opendir(".");
    unsigned dots = 0;
    long at = -1;
    char at_name[300] = "";
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        int i;
        if (at == -1 && dots == 2) { /* remember the place before the next entry */
            at = telldir(d);
            e = readdir(d);
            (void)snprintf(at_name, sizeof(at_name), "%s", e->d_name);
        }
        if (sscanf(e->d_name, "a-name-that-is-not-short-%d", &i) == 1 && i >= 0 && i < FILES) {
            seen[i]++;
            IS(e->d_type == DT_REG || e->d_type == DT_UNKNOWN);
            OK(unlink(e->d_name)); /* as rm -r does */
        } else {
            dots++;
        }
    }
    for (int i = 0; i < FILES; i++)
        IS(seen[i] <= 1);
    rewinddir(d);
    unsigned left = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        left += e->d_name[0] != '.';
    for (int i = 0; i < FILES; i++)
        left -= seen[i] == 0; /* the one entry that telldir stepped over */
    IS(left == 0 && dots == 2);
    OK(closedir(d));
    OK(chdir(".."));
    OK(system("rm -rf d"));
}

/* ---- data
 * ---------------------------------------------------------------------------------------------------------------- */

static void posix_data(void)
{
    char text[64] = "";
    posix_make("f", "");
    int a = open("f", O_RDWR | O_APPEND), b = open("f", O_RDWR | O_APPEND);
    for (int i = 0; i < 10; i++)
        IS(write(i % 2 ? a : b, &"0123456789"[i], 1) == 1);
    IS(pread(a, text, sizeof(text), 0) == 10 && memcmp(text, "0123456789", 10) == 0);
    OK(fcntl(a, F_SETFL, 0)); /* no longer appending */
    IS(pwrite(a, "X", 1, 3) == 1 && pread(b, text, 10, 0) == 10 && text[3] == 'X' && posix_stat("f").st_size == 10);
    OK(fcntl(a, F_SETFL, O_APPEND)); /* and again */
    IS(write(a, "Y", 1) == 1 && posix_stat("f").st_size == 11);
    OK(fsync(a));
    OK(fdatasync(b));
    OK(close(b));
    IS(pread(a, text, 10, 1000) == 0);
    OK(ftruncate(a, 0));
    OK(fallocate(a, 0, 0, 100000));
    IS(posix_stat("f").st_size == 100000);
    OK(fallocate(a, FALLOC_FL_KEEP_SIZE, 0, 300000));
    IS(posix_stat("f").st_size == 100000);
    OK(fcntl(a, F_SETFL, 0));
    OK(ftruncate(a, 0));
    OK(ftruncate(a, 1 << 20));
    IS(pwrite(a, "data", 4, 512 << 10) == 4);
    off_t data = lseek(a, 0, SEEK_DATA), hole = lseek(a, 512 << 10, SEEK_HOLE);
    IS(data <= 512 << 10 && hole > 512 << 10);
    ERR(ENXIO, lseek(a, 2 << 20, SEEK_DATA));
    OK(fallocate(a, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 512 << 10, 4096));
    IS(pread(a, text, 4, 512 << 10) == 4 && text[0] == 0);
    ERR(EOPNOTSUPP, fallocate(a, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    ERR(EINVAL, fallocate(a, 0, 0, 0));
    IS(lseek(a, 0, SEEK_END) == 1 << 20);
    IS(pwrite(a, "copy me", 7, 0) == 7);
    int to = open("g", O_RDWR | O_CREAT | O_TRUNC, 0644);
    loff_t from_at = 0, to_at = 5;
    IS(copy_file_range(a, &from_at, to, &to_at, 7, 0) == 7 && from_at == 7 && to_at == 12);
    IS(pread(to, text, 12, 0) == 12 && memcmp(text, "\0\0\0\0\0copy me", 12) == 0);
    OK(close(to));
    OK(close(a));
    OK(unlink("f"));
    OK(unlink("g"));
}

static void posix_mmap(void)
{
    posix_make("f", "");
    int fd = open("f", O_RDWR);
    OK(ftruncate(fd, 10000));
    char *p = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), text[8];
    IS(p != MAP_FAILED);
    memcpy(p + 4094, "across", 6);
    IS(pread(fd, text, 6, 4094) == 6 && memcmp(text, "across", 6) == 0);
    IS(pwrite(fd, "under", 5, 9000) == 5 && memcmp(p + 9000, "under", 5) == 0);
    OK(msync(p, 10000, MS_SYNC));
    OK(munmap(p, 10000));
    OK(close(fd));
    fd = open("f", O_RDONLY);
    IS(pread(fd, text, 6, 4094) == 6 && memcmp(text, "across", 6) == 0);
    OK(close(fd));
    OK(unlink("f"));
}

static void posix_tmpfile(void)
{
    char path[64];
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0 && errno == EOPNOTSUPP)
        return; /* the host's filesystem, or the kernel, has none */
    IS(fd >= 0 && write(fd, "tmp", 3) == 3);
    struct stat st;
    OK(fstat(fd, &st));
    IS(st.st_nlink == 0 && (st.st_mode & 07777) == 0640);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    IS(posix_stat("named").st_size == 3 && posix_stat("named").st_nlink == 1);
    OK(close(fd));
    OK(unlink("named"));
}

static void posix_locks(void)
{
    posix_make("f", "text");
    int a = open("f", O_RDWR), b = open("f", O_RDWR);
    OK(flock(a, LOCK_EX | LOCK_NB));
    ERR(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
    OK(flock(a, LOCK_UN));
    OK(flock(b, LOCK_SH | LOCK_NB));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 2};
    OK(fcntl(a, F_OFD_SETLK, &l));
    ERR(EAGAIN, fcntl(b, F_OFD_SETLK, &l));
    OK(close(a));
    OK(fcntl(b, F_OFD_SETLK, &l));
    OK(close(b));
    OK(unlink("f"));
}

/* ---- permissions
 * ------------------------------------------------------------------------------------------------------------ */

static int posix_try_as_nobody(void)
{
    struct stat st;
    if (open("secret", O_RDONLY) != -1 || errno != EACCES)
        return 1;
    if (open("public", O_RDONLY) == -1 || open("public", O_WRONLY) != -1 || errno != EACCES)
        return 2;
    if (open("new", O_RDWR | O_CREAT, 0600) != -1 || errno != EACCES)
        return 3;
    if (unlink("public") != -1 || errno != EACCES || rename("public", "x") != -1 || errno != EACCES)
        return 4;
    if (stat("closed/x", &st) != -1 || errno != EACCES || mkdir("x", 0755) != -1 || errno != EACCES)
        return 5;
    if (chmod("public", 0777) != -1 || errno != EPERM || chown("public", 65534, 65534) != -1 || errno != EPERM)
        return 6;
    if (utimensat(AT_FDCWD, "public", NULL, 0) != -1 || errno != EACCES)
        return 7;
    if (truncate("public", 0) != -1 || errno != EACCES || link("public", "x") != -1)
        return 8;
    return access("secret", R_OK) != -1 || errno != EACCES ? 9 : 0;
}

static void posix_permissions(void)
{
    OK(mkdir("d", 0755));
    OK(chdir("d"));
    posix_make("secret", "");
    OK(chmod("secret", 0600));
    posix_make("public", "");
    OK(chmod("public", 0644));
    OK(mkdir("closed", 0700));
    posix_make("closed/x", "");
    CHECK_EQ_INT(posix_as_nobody(posix_try_as_nobody), 0);
    OK(chdir(".."));
    OK(system("rm -rf d"));
}

/* Everything that would change a read-only filesystem, which has the files "f" and "l" (a link) and the directory "d".
 */
static void posix_read_only(void)
{
    struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
    char c;
    ERR(EROFS, open("f", O_WRONLY));
    ERR(EROFS, open("f", O_RDWR));
    ERR(EROFS, open("f", O_RDONLY | O_TRUNC));
    ERR(EROFS, open("new", O_RDWR | O_CREAT, 0600));
    ERR(EROFS, open(".", O_TMPFILE | O_RDWR, 0600));
    ERR(EROFS, mkdir("new", 0755));
    ERR(EROFS, mknod("new", S_IFREG | 0600, 0));
    ERR(EROFS, symlink("x", "new"));
    ERR(EROFS, link("f", "new"));
    ERR(EROFS, unlink("f"));
    ERR(EROFS, rmdir("d"));
    ERR(EROFS, rename("f", "new"));
    ERR(EROFS, posix_rename2("f", "l", 2));
    ERR(EROFS, chmod("f", 0600));
    ERR(EROFS, chown("f", 0, 0));
    ERR(EROFS, lchown("l", 0, 0));
    ERR(EROFS, truncate("f", 0));
    ERR(EROFS, utimensat(AT_FDCWD, "f", now, 0));
    ERR(EROFS, setxattr("f", "user.x", "y", 1, 0));
    ERR(EROFS, removexattr("f", "user.x"));
    int fd = open("f", O_RDONLY);
    IS(fd >= 0 && read(fd, &c, 1) == 1);
    OK(flock(fd, LOCK_EX | LOCK_NB));
    OK(close(fd));
}

static void posix_all(void)
{
    (void)umask(022);
    RUN(posix_open);
    RUN(posix_gone);
    RUN(posix_dirs);
    RUN(posix_links);
    RUN(posix_rename);
    RUN(posix_attributes);
    RUN(posix_truncate);
    RUN(posix_special);
    RUN(posix_xattr);
    RUN(posix_readdir);
    RUN(posix_data);
    RUN(posix_mmap);
    RUN(posix_tmpfile);
    RUN(posix_locks);
    RUN(posix_permissions);
}

#endif
