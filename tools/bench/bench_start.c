/*
 * bench_start IMAGE.tar KERNEL [-v]: a cold start of ours, in parts, counted by the time-stamp counter.
 *
 * The clock runs from the call of cc_instance_new to the return of the cc_cmd_output that has the command's output.
 * Loading the tar file into the store and asking cc_supports_hypervisor come before it. The parts:
 *
 *     host     to the first entry into the guest: disks, devices, loading the kernel, making the CPU
 *     kernel   to the arrival of the agent's connection
 *     agent    to the return of cc_instance_new: mounts, handshake, configuration
 *     exec     one `/bin/busybox echo hello`, which QEMU's guest runs as well
 *
 * Two instances are started, one after the other was closed: the second finds the store and the kernel's files in
 * memory and the process's memory mapped. In `tools/rig --icount` a tick is one instruction (see the rig), and the
 * figures repeat to the last digit. Nothing in the product knows of this: the backend's table and one call are wrapped
 * here.
 *
 * With -v the guest's exits are listed, by part and by address.
 */
#define _GNU_SOURCE
#include <x86intrin.h>

#include "cc_impl_kvm.h"
#include "src/control/client.h"

enum part { HOST, KERNEL, AGENT, EXEC, PARTS };
static const char *const part_name[PARTS] = {"host", "kernel", "agent", "exec"};

static struct {
    uint64_t began, ended[PARTS];
    enum part now;
    unsigned exits[PARTS];
    struct {
        enum cci_hv_exit_kind kind;
        uint64_t addr;
        unsigned count[PARTS];
    } at[512];
    unsigned places;
} measured;

static void part_ends(enum part p)
{
    if (measured.now != p)
        return;
    measured.ended[p] = __rdtsc();
    measured.now = p + 1;
}

static void count_exit(const struct cci_hv_exit *e)
{
    unsigned i;
    enum part p = measured.now < PARTS ? measured.now : EXEC;
    if (e->kind == CCI_HV_EXIT_NONE || e->kind == CCI_HV_EXIT_KICKED)
        return;
    measured.exits[p]++;
    for (i = 0; i < measured.places && (measured.at[i].kind != e->kind || measured.at[i].addr != e->addr); i++)
        ;
    if (i == CCI_COUNT(measured.at))
        return;
    if (i == measured.places)
        measured.places++;
    measured.at[i].kind = e->kind;
    measured.at[i].addr = e->addr;
    measured.at[i].count[p]++;
}

static void counting_run(struct cci_hv_vcpu *vcpu, struct cci_hv_exit *exit)
{
    part_ends(HOST);
    cci_kvm_vcpu_run(vcpu, exit);
    count_exit(exit);
}

static const struct cci_hv_ops *counting_ops(void)
{
    static struct cci_hv_ops ops;
    if (!ops.probe) {
        ops = *cci_kvm_ops();
        ops.vcpu_run = counting_run;
    }
    return &ops;
}

#define cci_kvm_ops counting_ops
#define cci_control_attach(ctl, stream) (part_ends(KERNEL), (cci_control_attach)(ctl, stream))
#define CC_IMPLEMENTATION
#include "cc.h"

static cc_error err;

static void must(cc_error_code code, const char *what)
{
    if (!code)
        return;
    fprintf(stderr, "bench_start: %s: %s\n", what, err.message ? err.message : "?");
    exit(1);
}

static void print_exits(void)
{
    static const char *const kind[] = {"", "", "port in", "port out", "mmio in", "mmio out"};
    for (unsigned i = 0; i < measured.places; i++)
        if (measured.at[i].kind < CCI_COUNT(kind))
            printf("#   %-8s %#10llx  kernel %u agent %u exec %u\n", kind[measured.at[i].kind],
                   (unsigned long long)measured.at[i].addr, measured.at[i].count[KERNEL], measured.at[i].count[AGENT],
                   measured.at[i].count[EXEC]);
}

static void start(cc_instance_source image, const char *kernel, const char *name, int verbose)
{
    static const char *const args[] = {"echo", "hello", NULL};
    cc_instance_options o = {0};
    cc_instance vm;
    cc_cmd cmd;
    uint8_t *out;
    size_t len;
    o.kernel = kernel;
    memset(&measured, 0, sizeof(measured));
    measured.began = __rdtsc();
    must(cc_instance_new(image, &o, &vm, &err), "start");
    part_ends(AGENT);
    must(cc_cmd_new(vm, "/bin/busybox", args, &cmd, &err), "command");
    must(cc_cmd_output(cmd, &out, &len, NULL, &err), "command");
    part_ends(EXEC);
    if (len != 6 || memcmp(out, "hello\n", 6) != 0) {
        fprintf(stderr, "bench_start: wrong output\n");
        exit(1);
    }
    printf("%s total=%.6f", name, (double)(measured.ended[EXEC] - measured.began) / 1e6);
    for (int p = 0; p < PARTS; p++)
        printf(" %s=%.6f", part_name[p],
               (double)(measured.ended[p] - (p ? measured.ended[p - 1] : measured.began)) / 1e6);
    printf(" exits=%u+%u+%u\n", measured.exits[KERNEL], measured.exits[AGENT], measured.exits[EXEC]);
    if (verbose)
        print_exits();
    cc_free_bytes(out);
    cc_cmd_free(cmd);
    must(cc_instance_close(vm, &err), "close");
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/bench-start-XXXXXX";
    cc_oci_client client;
    cc_instance_source image;
    if (argc < 3 || !mkdtemp(dir))
        return 2;
    must(cc_init(), "init");
    must(cc_supports_hypervisor(&err), "hypervisor");
    must(cc_oci_client_new_with_cache(dir, &client, &err), "cache");
    must(cc_oci_client_load_tar(client, argv[1], NULL, &image, &err), argv[1]);
    start(image, argv[2], "first", argc > 3);
    start(image, argv[2], "second", argc > 3);
    cc_instance_source_free(image);
    cc_oci_client_free(client);
    cc_shutdown();
    return 0;
}
