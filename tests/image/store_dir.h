/*
 * tests/image/store_dir.h - a cache directory of its own for a test, and what is in it.
 */
#ifndef TESTS_IMAGE_STORE_DIR_H
#define TESTS_IMAGE_STORE_DIR_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char store_dir[200];

static void store_dir_make(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(store_dir, sizeof(store_dir), "%s/cc-test-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(store_dir))
        exit(2);
}

static int store_dir_remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

static void store_dir_remove(void)
{
    (void)nftw(store_dir, store_dir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* How many names a directory of the store has; -1 when it is not there. */
static int store_dir_count(const char *room)
{
    char path[400];
    int n = 0;
    (void)snprintf(path, sizeof(path), "%s/%s", store_dir, room);
    DIR *d = opendir(path);
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    (void)closedir(d);
    return n;
}

/* Open descriptors of this process. */
static int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

#endif
