/*
 * The conformance set through our FUSE server, natively; and read-only.
 *
 * @root
 */
#include "fuse_mount.h"
#include "fsx.h"
#include "../scratch.h"

static char base[64], host[80], at[80];
static struct fuse_mount mounted;

static void begin(bool writable)
{
    const struct cci_share_config config = {.host_path = host, .writable = writable};
    CHECK_EQ_INT(fuse_mount_begin(&mounted, &config, at), 0);
    OK(chdir(at));
}

static void end(void)
{
    OK(chdir("/"));
    fuse_mount_end(&mounted);
}

static void mount_it(void)
{
    begin(true);
}

static void unmount_it(void)
{
    end();
}

/* What the guest left is what the host has; and nothing of the server is left. */
static void nothing_left(void)
{
    OK(rmdir(host));
    OK(mkdir(host, 0755));
}

static void make_files(void)
{
    OK(chdir(host));
    posix_make("f", "text");
    OK(symlink("f", "l"));
    OK(mkdir("d", 0755));
    begin(false);
}

static void still_there(void)
{
    end();
    OK(chdir(host));
    IS(posix_stat("f").st_size == 4 && (posix_stat("f").st_mode & 07777) == 0644);
    IS(S_ISLNK(posix_stat("l").st_mode) && S_ISDIR(posix_stat("d").st_mode));
    OK(chdir("/"));
}

static void prepare(void)
{
    scratch_make(base, sizeof(base), "posix");
    (void)snprintf(host, sizeof(host), "%s/host", base);
    (void)snprintf(at, sizeof(at), "%s/at", base);
    OK(mkdir(host, 0755));
    OK(mkdir(at, 0755));
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static void clean(void)
{
    scratch_remove(base);
}

int main(void)
{
    RUN(prepare);
    if (check_failures)
        return check_done();
    RUN(mount_it);
    posix_all();
    fsx_all(2000);
    RUN(unmount_it);
    RUN(nothing_left);
    RUN(make_files);
    RUN(posix_read_only);
    RUN(still_there);
    RUN(clean);
    return check_done();
}
