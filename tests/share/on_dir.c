/*
 * The filesystem tests on a directory that is there already: on a plain one, to test the tests; in a guest.
 *
 *     on_dir posix|readonly|fsx DIRECTORY
 */
#include "fsx.h"
#include "posix.h"

int main(int argc, char **argv)
{
    if (argc != 3 || chdir(argv[2])) {
        fprintf(stderr, "usage: on_dir posix|readonly|fsx DIRECTORY\n");
        return 2;
    }
    if (strcmp(argv[1], "posix") == 0)
        posix_all();
    else if (strcmp(argv[1], "readonly") == 0)
        RUN(posix_read_only);
    else
        fsx_all(100);
    return check_done();
}
