/*
 * tests/scratch.h - a directory of a test's own, in $TMPDIR.
 */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

/* Makes it, named after `name`. */
static void scratch_make(char *path, size_t size, const char *name)
{
    const char *tmp = getenv("TMPDIR");
    int n = snprintf(path, size, "%s/cc-%s-XXXXXX", tmp ? tmp : "/tmp", name);
    CHECK(n > 0 && (size_t)n < size && mkdtemp(path));
}

/* Removes it with all that is in it. */
static void scratch_remove(const char *path)
{
    char command[400];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", path);
    CHECK(system(command) == 0);
}

#endif
