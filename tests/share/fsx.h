/*
 * tests/share/fsx.h - random operations on one file, compared with a model in memory after each.
 *
 * The file is open twice and also mapped now and then; reads go through either. What a run did is determined by its
 * seed, which is printed when it fails.
 */
#ifndef TESTS_SHARE_FSX_H
#define TESTS_SHARE_FSX_H

#include "posix.h"

#define FSX_MAX 300000

#ifndef FALLOC_FL_ZERO_RANGE /* musl has it elsewhere */
#define FALLOC_FL_ZERO_RANGE 16
#endif

struct fsx {
    uint64_t random;
    int fd[2];
    size_t size;
    uint8_t *model, *buf; /* FSX_MAX bytes; the model is zero behind the size */
    bool failed;
    char what[200];
};

static uint32_t fsx_random(struct fsx *x, uint32_t below)
{
    x->random = x->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(x->random >> 33) % below;
}

static void fsx_check(struct fsx *x, bool ok, const char *op, size_t at, size_t n)
{
    if (ok || x->failed)
        return;
    x->failed = true;
    (void)snprintf(x->what, sizeof(x->what), "%s of %zu bytes at %zu (size %zu): %s", op, n, at, x->size,
                   strerror(errno));
}

static void fsx_grow(struct fsx *x, size_t end)
{
    if (end > x->size)
        x->size = end;
}

static void fsx_write(struct fsx *x, int fd, size_t at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x->model[at + i] = (uint8_t)fsx_random(x, 256);
    fsx_check(x, pwrite(fd, x->model + at, n, (off_t)at) == (ssize_t)n, "write", at, n);
    fsx_grow(x, at + n);
}

static void fsx_read(struct fsx *x, int fd, size_t at, size_t n)
{
    errno = 0;
    size_t want = at >= x->size ? 0 : n < x->size - at ? n : x->size - at;
    ssize_t got = pread(fd, x->buf, n, (off_t)at);
    fsx_check(x, got == (ssize_t)want && memcmp(x->buf, x->model + at, want) == 0, "read", at, n);
}

static void fsx_truncate(struct fsx *x, int fd, size_t size)
{
    fsx_check(x, ftruncate(fd, (off_t)size) == 0, "truncate", size, 0);
    if (size < x->size)
        memset(x->model + size, 0, x->size - size);
    x->size = size;
}

static void fsx_map(struct fsx *x, int fd, size_t at, size_t n)
{
    if (!x->size)
        return;
    at %= x->size;
    n = n < x->size - at ? n : x->size - at;
    uint8_t *p = mmap(NULL, x->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fsx_check(x, p != MAP_FAILED, "mmap", at, n);
    if (p == MAP_FAILED)
        return;
    fsx_check(x, memcmp(p + at, x->model + at, n) == 0, "mapped read", at, n);
    for (size_t i = 0; i < n; i++)
        p[at + i] = x->model[at + i] = (uint8_t)fsx_random(x, 256);
    fsx_check(x, fsx_random(x, 2) || msync(p, x->size, MS_SYNC) == 0, "msync", at, n);
    (void)munmap(p, x->size);
}

static void fsx_hole(struct fsx *x, int fd, size_t at, size_t n)
{
    bool zero = fsx_random(x, 2);
    int r =
        fallocate(fd, (zero ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE) | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n);
    if (r && errno == EOPNOTSUPP)
        return;
    fsx_check(x, r == 0, "hole", at, n);
    if (at < x->size)
        memset(x->model + at, 0, n < x->size - at ? n : x->size - at);
}

static void fsx_allocate(struct fsx *x, int fd, size_t at, size_t n)
{
    int r = fallocate(fd, 0, (off_t)at, (off_t)n);
    if (r && errno == EOPNOTSUPP)
        return;
    fsx_check(x, r == 0, "allocate", at, n);
    fsx_grow(x, at + n);
}

static void fsx_copy(struct fsx *x, int fd, size_t at, size_t n)
{
    loff_t from = (loff_t)at, to = (loff_t)fsx_random(x, FSX_MAX - 40000);
    if (at >= x->size || (from < to + (loff_t)n && to < from + (loff_t)n))
        return; /* nothing there, or they overlap */
    n = n < x->size - at ? n : x->size - at;
    size_t at_to = (size_t)to, done = 0;
    while (done < n) {
        ssize_t r = copy_file_range(x->fd[0], &from, fd, &to, n - done, 0);
        fsx_check(x, r > 0, "copy", at, n);
        if (r <= 0)
            return;
        done += (size_t)r;
    }
    memcpy(x->model + at_to, x->model + at, n);
    fsx_grow(x, at_to + n);
}

static void fsx_reopen(struct fsx *x, unsigned which)
{
    (void)close(x->fd[which]);
    x->fd[which] = open("fsx", O_RDWR);
    fsx_check(x, x->fd[which] >= 0, "open", 0, 0);
}

static void fsx_step(struct fsx *x)
{
    const unsigned which = fsx_random(x, 2);
    const int fd = x->fd[which];
    const size_t at = fsx_random(x, FSX_MAX - 40000), n = 1 + fsx_random(x, 40000);
    switch (fsx_random(x, 12)) {
    case 0:
    case 1:
    case 2:
        fsx_write(x, fd, at, n);
        break;
    case 3:
    case 4:
    case 5:
        fsx_read(x, fd, at, n);
        break;
    case 6:
        fsx_truncate(x, fd, fsx_random(x, FSX_MAX));
        break;
    case 7:
        fsx_map(x, fd, at, n);
        break;
    case 8:
        fsx_hole(x, fd, at, n);
        break;
    case 9:
        fsx_allocate(x, fd, at, n);
        break;
    case 10:
        fsx_copy(x, fd, at, n);
        break;
    default:
        fsx_reopen(x, which);
        break;
    }
}

static bool fsx_run(uint64_t seed, unsigned steps, char *what, size_t what_size)
{
    struct fsx x = {.random = seed, .model = calloc(1, FSX_MAX), .buf = malloc(FSX_MAX)};
    x.fd[0] = open("fsx", O_RDWR | O_CREAT | O_TRUNC, 0644);
    x.fd[1] = open("fsx", O_RDWR);
    unsigned i = 0;
    for (; i < steps && !x.failed; i++)
        fsx_step(&x);
    if (!x.failed)
        fsx_read(&x, x.fd[0], 0, FSX_MAX);
    struct stat st;
    fsx_check(&x, fstat(x.fd[1], &st) == 0 && (size_t)st.st_size == x.size, "size", 0, 0);
    (void)snprintf(what, what_size, "seed %llu, step %u: %s", (unsigned long long)seed, i, x.what);
    (void)close(x.fd[0]);
    (void)close(x.fd[1]);
    (void)unlink("fsx");
    free(x.model);
    free(x.buf);
    return !x.failed;
}

static unsigned fsx_steps;

static void fsx_seeds(void)
{
    char what[300];
    for (uint64_t seed = 1; seed <= 4; seed++)
        if (!fsx_run(seed, fsx_steps, what, sizeof(what)))
            check_fail(__FILE__, __LINE__, what);
}

static void fsx_all(unsigned steps)
{
    fsx_steps = steps;
    RUN(fsx_seeds);
}

#endif
