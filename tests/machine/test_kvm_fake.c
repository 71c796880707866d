/*
 * The KVM backend on a /dev/kvm that is played by this test: what a real one does only now and then. Calls that signals
 * interrupt, and every way in which KVM_RUN may come back.
 */
#define syscall fake_syscall /* before everything that declares it */
#include "../check.h"

#include "../../cc_impl_kvm.h"

enum { FAKE_KVM = 100000, FAKE_VM, FAKE_CPU };

static uint64_t page[3 * 4096 / 8]; /* what KVM_RUN shares */
static unsigned interrupt;          /* so many calls are interrupted first */
static int run_result;              /* of KVM_RUN */
static unsigned runs, signals_taken, closed;
static cc_error err;

static long fake_result(long r)
{
    if (r >= 0)
        return r;
    errno = (int)-r;
    return -1;
}

static long fake_ioctl(int fd, unsigned long request)
{
    if (request != KVM_RUN && interrupt) {
        interrupt--;
        return -EINTR;
    }
    switch (request) {
    case KVM_GET_API_VERSION:
        return KVM_API_VERSION;
    case KVM_CHECK_EXTENSION:
        return 1;
    case KVM_CREATE_VM:
        return fd == FAKE_KVM ? FAKE_VM : -ENOTTY;
    case KVM_CREATE_VCPU:
        return fd == FAKE_VM ? FAKE_CPU : -ENOTTY;
    case KVM_GET_VCPU_MMAP_SIZE:
        return sizeof(page);
    case KVM_RUN:
        runs++;
        return run_result;
    default:
        return 0;
    }
}

extern long fake_syscall(long number, ...);
long fake_syscall(long number, ...)
{
    va_list args;
    va_start(args, number);
    long first = va_arg(args, long), second = va_arg(args, long);
    va_end(args);
    switch (number) {
    case SYS_openat:
        return FAKE_KVM;
    case SYS_close:
        closed++;
        return 0;
    case SYS_mmap:
        return (long)(uintptr_t)page;
    case SYS_ioctl:
        return fake_result(fake_ioctl((int)first, (unsigned long)second));
    case SYS_rt_sigtimedwait:
        signals_taken++;
        return fake_result(-EAGAIN);
    case SYS_gettid:
        return 4711;
    default:
        return 0;
    }
}

static struct cci_hv_vm *vm;
static struct cci_hv_vcpu *cpu;
static struct kvm_run *run;

static void begin(void)
{
    const struct cci_hv_config config = {1, true};
    memset(page, 0, sizeof(page));
    run = (struct kvm_run *)(void *)page;
    CHECK_OK(cci_kvm_ops()->vm_new(&vm, &config, &err), err);
    CHECK_OK(cci_kvm_ops()->vcpu_new(vm, 0, &cpu, &err), err);
}

static void end(void)
{
    closed = 0;
    cci_kvm_ops()->vcpu_free(cpu);
    cci_kvm_ops()->vm_free(vm);
    CHECK_EQ_INT(closed, 3);
}

/* A signal of the caller's program at each of the first calls: they are made again. */
static void test_interrupted(void)
{
    for (unsigned n = 1; n < 40; n++) {
        interrupt = n;
        begin();
        end();
    }
    CHECK_EQ_INT(interrupt, 0);
}

static enum cci_hv_exit_kind run_once(int result, uint32_t reason, struct cci_hv_exit *e)
{
    run_result = result;
    run->exit_reason = reason;
    cci_kvm_ops()->vcpu_run(cpu, e);
    return e->kind;
}

static void test_exits(void)
{
    struct cci_hv_exit e;
    memset(&e, 0, sizeof(e));
    begin();
    CHECK_EQ_INT(run_once(0, KVM_EXIT_SHUTDOWN, &e), CCI_HV_EXIT_SHUTDOWN);
    CHECK_EQ_INT(run_once(0, KVM_EXIT_INTR, &e), CCI_HV_EXIT_NONE);
    CHECK_EQ_INT(run_once(0, KVM_EXIT_INTERNAL_ERROR, &e), CCI_HV_EXIT_FAIL);
    CHECK(strstr(e.why, "emulated"));
    CHECK_EQ_INT(run_once(0, KVM_EXIT_FAIL_ENTRY, &e), CCI_HV_EXIT_FAIL);
    CHECK_EQ_INT(run_once(0, KVM_EXIT_UNKNOWN, &e), CCI_HV_EXIT_FAIL);
    CHECK_EQ_INT(run_once(0, 12345, &e),
                 CCI_HV_EXIT_FAIL); /* one of a later KVM ends the guest, and is no endless loop */
    CHECK(strstr(e.why, "12345"));
    CHECK_EQ_INT(run_once(-EFAULT, KVM_EXIT_IO, &e), CCI_HV_EXIT_FAIL);
    run->io.direction = KVM_EXIT_IO_OUT;
    run->io.size = 2;
    run->io.port = 0x3f8;
    run->io.count = 2048;
    run->io.data_offset = 4096;
    CHECK_EQ_INT(run_once(0, KVM_EXIT_IO, &e), CCI_HV_EXIT_IO_OUT);
    CHECK(e.data == (uint8_t *)page + 4096 && e.size * e.count == 4096);
    run->io.data_offset = sizeof(page) - 4095;
    CHECK_EQ_INT(run_once(0, KVM_EXIT_IO, &e), CCI_HV_EXIT_FAIL);
    run->io.data_offset = UINT64_MAX;
    CHECK_EQ_INT(run_once(0, KVM_EXIT_IO, &e), CCI_HV_EXIT_FAIL);
    end();
}

/* A kick is reported exactly once, whenever it comes; without one, an interruption is nothing. */
static void test_kicks(void)
{
    struct cci_hv_exit e;
    begin();
    cci_kvm_ops()->vcpu_kick(cpu); /* before the first run: there is no thread to send a signal to */
    CHECK_EQ_INT(run->immediate_exit, 1);
    CHECK_EQ_INT(run_once(-EINTR, 0, &e), CCI_HV_EXIT_KICKED);
    CHECK_EQ_INT(run->immediate_exit, 0);
    CHECK_EQ_INT(run_once(-EINTR, 0, &e), CCI_HV_EXIT_NONE);
    CHECK_EQ_INT(run_once(-EAGAIN, 0, &e), CCI_HV_EXIT_NONE); /* a CPU that has just been started by another */
    cci_kvm_ops()->vcpu_kick(cpu);
    CHECK_EQ_INT(run_once(-EAGAIN, 0, &e), CCI_HV_EXIT_KICKED);
    cci_kvm_ops()->vcpu_kick(cpu); /* it came while the guest left by itself: the next entry finds it */
    CHECK_EQ_INT(run_once(0, KVM_EXIT_INTR, &e), CCI_HV_EXIT_NONE);
    CHECK_EQ_INT(run->immediate_exit, 1);
    struct cci_buf state = {NULL, 0, 0, false}; /* and saving, which enters for a moment, does not lose it */
    runs = 0;
    CHECK_OK(cci_kvm_ops()->vcpu_save(cpu, &state, &err), err);
    CHECK_EQ_INT(runs, 1);
    CHECK_EQ_INT(run->immediate_exit, 1);
    CHECK_EQ_INT(run_once(-EINTR, 0, &e), CCI_HV_EXIT_KICKED);
    CHECK_OK(cci_kvm_ops()->vcpu_save(cpu, &state, &err), err);
    CHECK_EQ_INT(run->immediate_exit, 0);
    cci_buf_free(&state);
    CHECK(signals_taken >= 4);
    end();
}

int main(void)
{
    RUN(test_interrupted);
    RUN(test_exits);
    RUN(test_kicks);
    cci_error_release(&err);
    return check_done();
}
