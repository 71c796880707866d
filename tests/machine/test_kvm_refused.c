/*
 * Hosts that cannot run a guest: each kind has its own message, and each says what to do. Where this host's own KVM
 * can, that case is skipped (the rig's has to pass in test_kvm_probe.c).
 */
// @root
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../check.h"

#include "../../cc_impl_kvm.h"

static cc_error err;

static cc_error_code probe(void)
{
    struct cci_hv_caps caps;
    cci_error_release(&err);
    cc_error_code code = cci_kvm_ops()->probe(&caps, &err);
    if (code == CC_OK)
        cci_kvm_ops()->vm_free(caps.held);
    return code;
}

/* Runs a case in a process of its own, with a /dev of its own. */
static int in_child(int (*fn)(void))
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("tmpfs", "/dev", "tmpfs", 0, NULL) != 0)
            _exit(77);
        _exit(fn());
    }
    (void)waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int says(const char *what, const char *advice)
{
    if (probe() == CC_ERR_HYPERVISOR_UNAVAILABLE && strstr(err.message, what) && strstr(err.message, advice))
        return 0;
    printf("# %s\n", err.message ? err.message : "(none)");
    (void)fflush(stdout);
    return 1;
}

static int no_device(void)
{
    return says("there is no KVM", "load the kvm_intel or kvm_amd module");
}

static int no_permission(void)
{
    if (mknod("/dev/kvm", S_IFCHR | 0600, makedev(10, 232)) != 0 || chmod("/dev/kvm", 0600) != 0 || setuid(65534) != 0)
        return 77;
    return says("no permission", "group");
}

static int no_module(void)
{
    if (mknod("/dev/kvm", S_IFCHR | 0666, makedev(10, 250)) != 0)
        return 77;
    return says("there is no KVM", "virtualisation");
}

/* Something else by that name. */
static int not_kvm(void)
{
    if (mknod("/dev/kvm", S_IFCHR | 0666, makedev(1, 3)) != 0)
        return 77;
    return says("version", "interface");
}

static void test_no_device(void)
{
    CHECK_EQ_INT(in_child(no_device), 0);
}

static void test_no_permission(void)
{
    CHECK_EQ_INT(in_child(no_permission), 0);
}

static void test_no_module(void)
{
    CHECK_EQ_INT(in_child(no_module), 0);
}

static void test_not_kvm(void)
{
    CHECK_EQ_INT(in_child(not_kvm), 0);
}

static void test_cannot_run_a_guest(void)
{
    uint64_t start = cci_os_now();
    CHECK_EQ_INT(says("cannot run a stock 64-bit guest", "hardware virtualisation"), 0);
    CHECK(cci_os_now() - start < 20000000000u); /* it does not hang */
}

int main(void)
{
    RUN(test_no_device);
    RUN(test_no_permission);
    RUN(test_no_module);
    RUN(test_not_kvm);
    if (access("/dev/kvm", R_OK | W_OK) != 0)
        SKIP(test_cannot_run_a_guest, "this host has no /dev/kvm");
    else if (probe() == CC_OK)
        SKIP(test_cannot_run_a_guest, "this host's KVM is real");
    else
        RUN(test_cannot_run_a_guest);
    cci_error_release(&err);
    return check_done();
}
