/*
 * tests/image/pack_dir.c - makes a layer in a cache from a directory of the host, without tar.
 *
 *     pack_dir DIRECTORY CACHE DIFFID [WHITEOUT...]
 *
 * DIFFID is 64 hexadecimal digits that the caller made up. A WHITEOUT argument is a path to hide, or a directory with a
 * slash behind it to make opaque. Everything a filesystem knows goes into the index: owners, times, attributes, holes,
 * devices, hard links.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../../src/image/store.h"

static struct cci_index_writer writer;
static cc_error err;
static int data_fd;
static uint64_t data_size;
static size_t root_len;

struct seen {
    dev_t dev;
    ino_t ino;
    char *path;
};
static struct seen *seen;
static size_t seen_count;

static void die(const char *what)
{
    fprintf(stderr, "pack_dir: %s: %s\n", what, err.message ? err.message : "failed");
    exit(1);
}

static const char *first_name(const struct stat *st, const char *path)
{
    for (size_t i = 0; i < seen_count; i++)
        if (seen[i].dev == st->st_dev && seen[i].ino == st->st_ino)
            return seen[i].path;
    seen = realloc(seen, (seen_count + 1) * sizeof(*seen));
    seen[seen_count++] = (struct seen){st->st_dev, st->st_ino, strdup(path)};
    return NULL;
}

static void add_xattrs(const char *path, struct cci_buf *set)
{
    static char names[65536], value[65536];
    ssize_t n = llistxattr(path, names, sizeof(names));
    for (char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
        ssize_t len = lgetxattr(path, name, value, sizeof(value));
        if (len < 0 || !cci_index_put_xattr(set, name, strlen(name), value, (size_t)len))
            die(path);
    }
}

/* Copies the blocks that have data; the rest are holes. */
static void add_data(const char *path, uint64_t size, struct cci_buf *extents)
{
    static uint8_t buf[1 << 20];
    int fd = open(path, O_RDONLY);
    for (uint64_t at = 0; at < size;) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        if (data < 0)
            break;
        at = (uint64_t)data / CCI_INDEX_BLOCK * CCI_INDEX_BLOCK;
        off_t hole = lseek(fd, data, SEEK_HOLE);
        while (at < (uint64_t)hole) {
            memset(buf, 0, sizeof(buf));
            size_t n = (size_t)CCI_MIN(sizeof(buf), (uint64_t)hole - at);
            size_t blocks = (n + CCI_INDEX_BLOCK - 1) / CCI_INDEX_BLOCK;
            if (pread(fd, buf, n, (off_t)at) != (ssize_t)n ||
                pwrite(data_fd, buf, blocks * CCI_INDEX_BLOCK, (off_t)data_size) < 0 ||
                !cci_index_put_extent(extents, (uint32_t)(at / CCI_INDEX_BLOCK), (uint32_t)blocks,
                                      data_size / CCI_INDEX_BLOCK))
                die(path);
            at += blocks * CCI_INDEX_BLOCK;
            data_size += blocks * CCI_INDEX_BLOCK;
        }
    }
    close(fd);
}

static enum cci_index_type type_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return CCI_INDEX_DIR;
    case S_IFLNK:
        return CCI_INDEX_SYMLINK;
    case S_IFCHR:
        return CCI_INDEX_CHAR;
    case S_IFBLK:
        return CCI_INDEX_BLOCKDEV;
    case S_IFIFO:
        return CCI_INDEX_FIFO;
    case S_IFSOCK:
        return CCI_INDEX_SOCKET;
    default:
        return CCI_INDEX_FILE;
    }
}

static int visit(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    static char target[4096];
    struct cci_buf xattrs = {0}, extents = {0};
    struct cci_index_entry e = {.type = type_of(st->st_mode),
                                .mode = (uint16_t)(st->st_mode & 07777),
                                .uid = st->st_uid,
                                .gid = st->st_gid,
                                .mtime_sec = st->st_mtim.tv_sec,
                                .mtime_nsec = (uint32_t)st->st_mtim.tv_nsec,
                                .major = major(st->st_rdev),
                                .minor = minor(st->st_rdev)};
    (void)flag;
    (void)ftw;
    e.path = path[root_len] == '/' ? path + root_len + 1 : path + root_len;
    const char *first = st->st_nlink > 1 && !S_ISDIR(st->st_mode) ? first_name(st, e.path) : NULL;
    if (first) {
        e.type = CCI_INDEX_HARDLINK;
        e.target = first;
    } else {
        add_xattrs(path, &xattrs);
        if (e.type == CCI_INDEX_SYMLINK) {
            ssize_t n = readlink(path, target, sizeof(target) - 1);
            target[n > 0 ? n : 0] = '\0';
            e.target = target;
        }
        if (e.type == CCI_INDEX_FILE) {
            e.size = (uint64_t)st->st_size;
            add_data(path, e.size, &extents);
        }
    }
    e.xattrs = (struct cci_view){xattrs.p, xattrs.n};
    e.extents = (struct cci_view){extents.p, extents.n};
    if (cci_index_add(&writer, &e, &err))
        die(path);
    cci_buf_free(&xattrs);
    cci_buf_free(&extents);
    return 0;
}

static void add_whiteout(char *path)
{
    size_t n = strlen(path);
    bool opaque = n && path[n - 1] == '/';
    if (opaque)
        path[n - 1] = '\0';
    struct cci_index_entry e = {.type = opaque ? CCI_INDEX_OPAQUE : CCI_INDEX_WHITEOUT, .path = path};
    if (cci_index_add(&writer, &e, &err))
        die(path);
}

int main(int argc, char **argv)
{
    struct cci_store *store;
    uint8_t header[CCI_INDEX_HEADER];
    char path[4096];
    if (argc < 4 || cci_store_open(argv[2], &store, &err))
        die("usage: pack_dir DIRECTORY CACHE DIFFID [WHITEOUT...]");
    snprintf(path, sizeof(path), "%s/layers/%s", argv[2], argv[3]);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/layers/%s/data", argv[2], argv[3]);
    data_fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    root_len = strlen(argv[1]);
    if (data_fd < 0 || nftw(argv[1], visit, 64, FTW_PHYS) != 0)
        die(argv[1]);
    for (int i = 4; i < argc; i++)
        add_whiteout(argv[i]);
    if (ftruncate(data_fd, (off_t)data_size) != 0 || cci_index_end(&writer, data_size, header, &err))
        die("the index");
    snprintf(path, sizeof(path), "%s/layers/%s/index", argv[2], argv[3]);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    memcpy(writer.out.p, header, sizeof(header));
    if (fd < 0 || write(fd, writer.out.p, writer.out.n) != (ssize_t)writer.out.n)
        die(path);
    close(fd);
    close(data_fd);
    cci_index_writer_free(&writer);
    cci_store_close(store);
    for (size_t i = 0; i < seen_count; i++)
        free(seen[i].path);
    free(seen);
    return 0;
}
