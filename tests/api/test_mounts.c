/*
 * Directories of the host in a guest: the conformance set and random operations through virtio-fs, coherence with what
 * the host does, read-only, an empty filesystem, options that make no sense.
 * @vm
 * @one-cpu
 * @timeout 150
 * @kernel own
 * @kernel stock
 * @setup tools/mkimage busybox build/tests/busybox.tar
 * @setup musl-gcc -static -O1 -std=c11 -I. tests/share/on_dir.c -o build/tests/on_dir
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest_sh.h"

static cc_oci_client client;
static cc_instance_source source;
static cc_instance vm;
static cc_error err;
static char base[64];
static int code;

static const char *sh(const char *script)
{
    return guest_sh(vm, script, &code);
}

/* Runs a line on the host, in the directory of the test. */
static void host(const char *script)
{
    char line[400];
    (void)snprintf(line, sizeof(line), "cd %s && %s", base, script);
    CHECK_EQ_INT(system(line), 0);
}

static const char *path(const char *name)
{
    static char text[4][100];
    static unsigned next;
    (void)snprintf(text[++next % 4], sizeof(text[0]), "%s/%s", base, name);
    return text[next % 4];
}

static void test_boot(void)
{
    char copy[200];
    (void)snprintf(base, sizeof(base), "/tmp/cc-mounts-XXXXXX");
    CHECK(mkdtemp(base) != NULL);
    host("mkdir rw ro tag rw/work && echo host >rw/file && echo text >ro/f && ln -s f ro/l && mkdir ro/d && umask 077");
    (void)snprintf(copy, sizeof(copy), "cp build/tests/on_dir %s/rw/", base);
    CHECK_EQ_INT(system(copy), 0);
    const cc_mount_config mounts[] = {
        {.tag = "rw", .host_path = path("rw"), .writable = true, .guest_path = "/mnt/rw"},
        {.host_path = path("ro"), .guest_path = "/mnt/a/b/c"},
        {.tag = "bytag", .host_path = path("tag"), .writable = true, .uid = 1000, .gid = 1001},
        {.tag = "empty", .guest_path = "/empty"},
    };
    cc_instance_options o = {0};
    o.cpus = 2;
    o.memory_mb = 256;
    o.mounts = mounts;
    o.mount_count = 4;
    CHECK_OK(cc_oci_client_new(&client, &err), err);
    CHECK_OK(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), err);
    CHECK_OK(cc_instance_new(source, &o, &vm, &err), err);
}

static void test_read_and_write(void)
{
    CHECK_EQ_STR(sh("cat /mnt/rw/file; echo guest >/mnt/rw/new; umask 022; echo x >/mnt/rw/mode; ls /mnt/a/b/c"),
                 "host\nd\nf\nl\n");
    struct stat st;
    CHECK_EQ_INT(stat(path("rw/new"), &st), 0);
    CHECK_EQ_INT(st.st_size, 6);
    CHECK(st.st_uid == geteuid() && (st.st_mode & 07777) == 0644);
    host("test \"$(cat rw/new)\" = guest");
    /* The library's own calls see it, too. */
    uint8_t *data;
    size_t n;
    CHECK_OK(cc_fs_read_file(vm, "/mnt/rw/file", &data, &n, &err), err);
    CHECK(n == 5 && memcmp(data, "host\n", 5) == 0);
    cc_free_bytes(data);
    (void)sh("rm /mnt/rw/new /mnt/rw/mode");
}

static void test_conformance(void)
{
    const char *text = sh("cd /mnt/rw && ./on_dir posix work 2>&1");
    if (code || strstr(text, "not ok"))
        printf("%s", text);
    CHECK_EQ_INT(code, 0);
    CHECK_EQ_STR(sh("ls -A /mnt/rw/work"), "");
}

static void test_random_operations(void)
{
    const char *text = sh("cd /mnt/rw && ./on_dir fsx work 2>&1");
    if (code)
        printf("%s", text);
    CHECK_EQ_INT(code, 0);
}

static void test_read_only(void)
{
    const char *text = sh("/mnt/rw/on_dir readonly /mnt/a/b/c 2>&1");
    if (code)
        printf("%s", text);
    CHECK_EQ_INT(code, 0);
    /* The guest's kernel may be talked into writing; the host is not. */
    (void)sh("mount -o remount,rw /mnt/a/b/c && echo x >/mnt/a/b/c/f");
    CHECK(code != 0);
    (void)sh("rm /mnt/a/b/c/f || mkdir /mnt/a/b/c/new || chmod 777 /mnt/a/b/c/f");
    CHECK(code != 0);
    host("test \"$(cat ro/f)\" = text && test ! -e ro/new");
}

static void test_tag_and_owner(void)
{
    host("echo x >tag/x");
    CHECK_EQ_STR(sh("mkdir /by && mount -t virtiofs bytag /by && stat -c '%u %g' /by/x && touch /by/y && stat -c "
                    "'%u %g' /by/y"),
                 "1000 1001\n1000 1001\n");
    CHECK_EQ_STR(sh("chown 1000:1001 /by/x && echo same; chown 5 /by/x 2>/dev/null || echo refused"),
                 "same\nrefused\n");
    CHECK_EQ_STR(sh("umount /by && mount -t virtiofs bytag /by && ls /by && umount /by"), "x\ny\n");
    (void)sh("mount -t virtiofs nosuchtag /by");
    CHECK(code != 0);
}

static void test_empty(void)
{
    CHECK_EQ_STR(sh("ls -A /empty && echo a >/empty/a && cat /empty/a && df /empty | tail -n 1 | cut -c 1-5"),
                 "a\nempty\n");
    /* Deeper than any path, and locked up: it is removed all the same. */
    (void)sh("cd /empty; i=0; while [ $i -lt 200 ]; do mkdir a-directory-with-a-long-name-$i && cd "
             "a-directory-with-a-long-name-$i; i=$((i+1)); done; touch bottom; chmod 0 .");
}

/* What the host changes is seen within a second, and the contents of a file at once when it is opened. */
static void test_coherence(void)
{
    host("echo one >rw/c && mkdir -p rw/dir");
    CHECK_EQ_STR(sh("cat /mnt/rw/c; ls /mnt/rw/dir"), "one\n");
    host("echo three >rw/c");
    CHECK_EQ_STR(sh("cat /mnt/rw/c"), "three\n");
    host("echo four4 >rw/c.new && mv rw/c.new rw/c");
    CHECK_EQ_STR(sh("cat /mnt/rw/c"), "four4\n");
    host("echo more >>rw/c && echo x >rw/dir/x");
    CHECK_EQ_STR(sh("cat /mnt/rw/c; ls /mnt/rw/dir"), "four4\nmore\nx\n");
    CHECK_EQ_STR(sh("test -e /mnt/rw/late || echo none"), "none\n");
    host("echo here >rw/late");
    CHECK_EQ_STR(sh("cat /mnt/rw/late"), "here\n");
    CHECK_EQ_STR(sh("stat -c %s /mnt/rw/late"), "5\n");
    host("echo and more >>rw/late && mv rw/dir rw/moved && rm rw/c");
    /* What the guest has looked at it may believe for a second. */
    CHECK_EQ_STR(sh("sleep 1.1; stat -c %s /mnt/rw/late; ls -d /mnt/rw/dir /mnt/rw/c 2>/dev/null; ls /mnt/rw/moved"),
                 "14\nx\n");
    /* An open file keeps being read as it grows. */
    CHECK_EQ_STR(sh("exec 3</mnt/rw/late; cat <&3 >/dev/null; rm /mnt/rw/late; stat -Lc %h /proc/self/fd/3"), "0\n");
}

static void test_large_files(void)
{
    host("dd if=/dev/urandom of=rw/big bs=1M count=2 2>/dev/null");
    CHECK_EQ_STR(sh("cp /mnt/rw/big /mnt/rw/copy && cmp /mnt/rw/big /mnt/rw/copy && sync && echo same"), "same\n");
    host("cmp rw/big rw/copy");
    CHECK_EQ_STR(sh("for i in 1 2 3 4; do dd if=/mnt/rw/big of=/mnt/rw/p$i bs=64k 2>/dev/null & done; wait; cat "
                    "/mnt/rw/p? | md5sum >/tmp/a; cat /mnt/rw/big /mnt/rw/big /mnt/rw/big /mnt/rw/big | md5sum | cmp - "
                    "/tmp/a && echo same"),
                 "same\n");
    host("cmp rw/big rw/p1 && cmp rw/big rw/p4");
}

static void test_close_removes(void)
{
    CHECK_OK(cc_instance_close(vm, &err), err);
    char tmp[400], *cache = cc_oci_client_cache_dir(client);
    (void)snprintf(tmp, sizeof(tmp), "%s/tmp", cache);
    cc_free_string(cache);
    DIR *d = opendir(tmp);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        CHECK(e->d_name[0] == '.');
    (void)closedir(d);
    host("rm -rf rw ro tag && cd / && rmdir $OLDPWD");
}

static void refused(const cc_mount_config *m, size_t n, const char *word)
{
    cc_instance_options o = {0};
    o.mounts = m;
    o.mount_count = n;
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_INVALID_ARGUMENT);
    CHECK(strstr(err.message, word) != NULL);
    cc_error_free(&err);
}

static void test_bad_options(void)
{
    const cc_mount_config none = {0}, relative = {.guest_path = "mnt"}, empty = {.tag = ""};
    const cc_mount_config absent = {.tag = "x", .host_path = "/no/such/directory"},
                          file = {.tag = "x", .host_path = "/etc/passwd"};
    const cc_mount_config twice[] = {{.tag = "share1"}, {.guest_path = "/x"}};
    const cc_mount_config long_tag = {.tag = "1234567890123456789012345678901234567"};
    const cc_mount_config root = {.guest_path = "//./"}, up = {.guest_path = "/x/../"},
                          at_file = {.guest_path = "/etc/passwd"};
    const cc_mount_config same_place[] = {{.guest_path = "/x/y"}, {.guest_path = "/x/"}, {.guest_path = "/./x//y/"}};
    static char places[20][8];
    cc_mount_config many[20];
    memset(many, 0, sizeof(many));
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(places[i], sizeof(places[i]), "/x%u", i);
        many[i].guest_path = places[i];
    }
    refused(NULL, 1, "NULL");
    refused(&none, 1, "neither");
    refused(&relative, 1, "begin with /");
    refused(&empty, 1, "tag");
    refused(&long_tag, 1, "36");
    refused(twice, 2, "share1");
    refused(&absent, 1, "no such directory");
    refused(&file, 1, "not a directory");
    refused(many, 20, "devices");
    refused(&root, 1, "root");
    refused(&up, 1, "..");
    refused(same_place, 3, "mounts 0 and 2");
    /* The guest has something else there. */
    cc_instance_options o = {.mounts = &at_file, .mount_count = 1};
    CHECK_EQ_INT(cc_instance_new(source, &o, &vm, &err), CC_ERR_IO);
    CHECK_EQ_INT(err.sys_errno, 20);
    CHECK_EQ_STR(err.path, "/etc/passwd");
    cc_error_free(&err);
}

int main(void)
{
    (void)cc_init();
    RUN(test_boot);
    if (vm) {
        RUN(test_read_and_write);
        RUN(test_conformance);
        RUN(test_random_operations);
        RUN(test_read_only);
        RUN(test_tag_and_owner);
        RUN(test_empty);
        RUN(test_coherence);
        RUN(test_large_files);
        RUN(test_close_removes);
    }
    RUN(test_bad_options);
    cc_instance_source_free(source);
    cc_oci_client_free(client);
    cc_shutdown();
    return check_done();
}
