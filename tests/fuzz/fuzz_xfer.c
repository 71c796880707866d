/*
 * The receiving end of a copy, fed with whatever a guest may send: frames, behind one byte of settings. A copy goes
 * into a directory that has a file, a directory, and links that lead out of it; what lies outside must not change.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/control/xfer_in.h"

static char top[64], into[80];

static int step(void *ctx)
{
    (void)ctx;
    return 0;
}

static int remove_it(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)f;
    if (type == FTW_D || type == FTW_DP || type == FTW_DNR)
        return rmdir(path) && chmod(path, 0700);
    return unlink(path);
}

/* The way in is searched before what is in it: directories may have come without permissions. */
static int open_it(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)f;
    return type == FTW_D || type == FTW_DNR ? chmod(path, 0700) : 0;
}

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        abort();
    close(fd);
}

static void clear(void)
{
    (void)nftw(top, open_it, 16, FTW_PHYS);
    (void)nftw(top, remove_it, 16, FTW_PHYS | FTW_DEPTH);
}

static void prepare(void)
{
    char path[200];
    if (!top[0]) {
        (void)snprintf(top, sizeof(top), "%s/cc-fuzz-xfer-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        if (!mkdtemp(top))
            abort();
        (void)atexit(clear);
    }
    (void)snprintf(into, sizeof(into), "%s/into", top);
    clear();
    if ((mkdir(top, 0700) && errno != EEXIST) || mkdir(into, 0700))
        abort();
    put_file(top, "outside", "outside");
    put_file(into, "f", "there");
    (void)snprintf(path, sizeof(path), "%s/d", into);
    if (mkdir(path, 0700))
        abort();
    (void)snprintf(path, sizeof(path), "%s/l", into);
    if (symlink("../outside", path))
        abort();
    (void)snprintf(path, sizeof(path), "%s/up", into);
    if (symlink("..", path))
        abort();
}

static void check_outside(void)
{
    char path[200], text[20] = "";
    struct stat st, dir;
    (void)snprintf(path, sizeof(path), "%s/outside", top);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, 19) != 7 || strcmp(text, "outside") != 0 || fstat(fd, &st) || st.st_nlink != 1 ||
        (st.st_mode & 07777) != 0640)
        abort();
    close(fd);
    if (stat(top, &dir) || dir.st_nlink != 3 || (dir.st_mode & 07777) != 0700)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cci_xfer_in t;
    static bool clean;
    size_t at = 1;
    int r = 0;
    if (size < 1)
        return 0;
    if (!clean)
        prepare();
    char to[120];
    (void)snprintf(to, sizeof(to), "%s%s", into, data[0] & 1 ? "/d" : data[0] & 2 ? "/new" : "");
    cci_xfer_in_init(&t);
    t.to = to;
    t.base = data[0] & 4 ? "up" : data[0] & 8 ? "l" : "name";
    t.contents = (data[0] & 16) != 0;
    t.step = step;
    t.max_bytes = 1 << 20;
    t.max_entries = 100;
    while (r == 0 && !t.ended && size - at >= CCI_PROTO_HEADER) {
        struct cci_proto_header h = cci_proto_load_header(data + at);
        at += CCI_PROTO_HEADER;
        size_t n = CCI_MIN((size_t)h.length, size - at);
        r = cci_xfer_frame(&t, h.type, data + at, n);
        at += n;
    }
    if (t.bytes > 1 << 20 && r == 0)
        abort();
    clean = !t.begun; /* nothing can have changed, and making it anew is most of the work */
    cci_xfer_in_free(&t);
    check_outside();
    return 0;
}
