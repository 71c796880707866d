/*
 * tests/machine/guest.h - what the tests of whole machines share: the kernel bundle of the tools' cache, an init made
 * on the spot, a machine that collects its console, and the wait for its end.
 *
 * The init is guest_init.c, built static; it does what its environment (which is the kernel's command line) asks.
 */
#ifndef TESTS_MACHINE_GUEST_H
#define TESTS_MACHINE_GUEST_H

#include <unistd.h>

#include "../../cc_impl_kvm.h"
#include "../../src/machine/kernel_modules.h"
#include "../../src/machine/start.h"

struct guest {
    struct cci_machine *machine;
    struct cci_hv_caps caps;
    cc_error err;
    struct cci_mutex mutex; /* guards text */
    struct cci_cond more;   /* text has grown */
    char text[65536];       /* all console lines */
    size_t n;
    unsigned ends; /* calls of end_fn */
};

static void guest_line(void *ctx, const char *line)
{
    struct guest *g = ctx;
    cci_mutex_lock(&g->mutex);
    int n = snprintf(g->text + g->n, sizeof(g->text) - g->n, "%s\n", line);
    if (n > 0 && (size_t)n < sizeof(g->text) - g->n)
        g->n += (size_t)n;
    cci_cond_wake(&g->more);
    cci_mutex_unlock(&g->mutex);
}

static void guest_end(void *ctx)
{
    struct guest *g = ctx;
    __atomic_add_fetch(&g->ends, 1, __ATOMIC_SEQ_CST);
}

/* Path of a file in the tools' cache. */
static const char *guest_cache(const char *name)
{
    static char path[4][600];
    static unsigned turn;
    const char *tools = getenv("CC_TOOLS_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *p = path[turn++ % 4];
    if (tools)
        (void)snprintf(p, sizeof(path[0]), "%s/%s", tools, name);
    else
        (void)snprintf(p, sizeof(path[0]), "%s%s/cc.h-tools/%s",
                       xdg    ? xdg
                       : home ? home
                              : "",
                       xdg ? "" : "/.cache", name);
    return p;
}

static cc_error_code guest_new(struct guest *g, unsigned cpus, unsigned mb)
{
    memset(g, 0, sizeof(*g));
    cci_mutex_init(&g->mutex);
    cci_cond_init(&g->more);
    cc_error_code code = cci_kvm_ops()->probe(&g->caps, &g->err);
    const struct cci_machine_config c = {.hv = cci_kvm_ops(),
                                         .caps = g->caps,
                                         .cpus = cpus,
                                         .ram_bytes = (uint64_t)mb << 20,
                                         .console = true,
                                         .line_fn = guest_line,
                                         .line_ctx = g,
                                         .end_fn = guest_end,
                                         .end_ctx = g};
    return code ? code : cci_machine_new(&g->machine, &c, &g->err);
}

/* Boots a kernel with `init` (path of a static program) as its only program. */
static cc_error_code guest_boot(struct guest *g, const char *kernel, const char *init, const char *cmdline)
{
    struct cci_initrd r = {0};
    struct cci_os_stat st;
    cci_fd fd = cci_os_open(init, CCI_OS_RDONLY, 0), image = cci_os_open(kernel, CCI_OS_RDONLY, 0);
    if (fd < 0 || image < 0 || cci_os_fstat(fd, &st) < 0)
        return cci_fail(&g->err, CC_ERR_IO, NULL, "cannot open %s or %s: see tools/kernel", kernel, init);
    cc_error_code code = CC_OK;
    /* /dev/console is a node of an archive of its own, which here has to be spelled out. */
    char node[256];
    int n = snprintf(node, sizeof(node), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s", 90u, 020600u,
                     0u, 0u, 1u, 0u, 0u, 0u, 0u, 5u, 1u, 12u, 0u, "dev/console");
    bool ok = cci_cpio_dir(&r, "dev") && cci_cpio_dir(&r, "proc") && cci_cpio_dir(&r, "sys") && cci_initrd_pad(&r) &&
              cci_initrd_text(&r, node, (size_t)n + 1) && cci_initrd_pad(&r);
    struct cci_initrd_piece *p =
        ok && cci_cpio_header(&r, "init", 0100755, (size_t)st.size) ? cci_initrd_piece(&r, (size_t)st.size) : NULL;
    if (p)
        p->fd = fd;
    ok = p != NULL;
    if (!ok || !cci_cpio_end(&r))
        code = cci_fail_nomem(&g->err);
    if (code == CC_OK)
        code = cci_machine_start(g->machine, image, kernel, &r, cmdline, &g->err);
    cci_initrd_free(&r);
    cci_os_close(image);
    return code;
}

/* Compiles the init beside this file; false if that failed. `path` gets its name, which is to be unlinked. */
static bool guest_make_init(char *path, size_t size)
{
    char command[700];
    const char *slash = strrchr(__FILE__, '/'), *tmp = getenv("TMPDIR");
    (void)snprintf(path, size, "%s/cc-init-XXXXXX", tmp && strlen(tmp) < 150 ? tmp : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0)
        return false;
    (void)close(fd);
    (void)snprintf(command, sizeof(command), "cc -O1 -static -o %s %.*s/guest_init.c", path, (int)(slash - __FILE__),
                   __FILE__);
    return system(command) == 0;
}

/* Waits until the console has shown `what`. */
static bool guest_wait_for(struct guest *g, const char *what, unsigned seconds)
{
    uint64_t deadline = cci_os_now() + (uint64_t)seconds * 1000000000u;
    bool found, in_time = true;
    cci_mutex_lock(&g->mutex);
    while (!(found = strstr(g->text, what) != NULL) && in_time)
        in_time = cci_cond_wait(&g->more, &g->mutex, deadline);
    cci_mutex_unlock(&g->mutex);
    return found;
}

/* Waits for the machine's end; ALIVE if it did not come. */
static enum cci_machine_end guest_wait(struct guest *g, unsigned seconds)
{
    struct cci_machine *m = g->machine;
    uint64_t deadline = cci_os_now() + (uint64_t)seconds * 1000000000u;
    cci_monitor_lock(&m->monitor);
    while (m->end == CCI_MACHINE_ALIVE && cci_cond_wait(&m->monitor.cond, &m->monitor.mutex, deadline))
        continue;
    enum cci_machine_end end = m->end;
    cci_monitor_unlock(&m->monitor);
    return end;
}

/* Joins the CPUs, so that the console's text is complete. */
static void guest_stop(struct guest *g)
{
    cci_machine_stop(g->machine);
}

static void guest_free(struct guest *g)
{
    cci_machine_free(g->machine);
    if (g->caps.held)
        cci_kvm_ops()->vm_free(g->caps.held);
    cci_error_release(&g->err);
    cci_cond_destroy(&g->more);
    cci_mutex_destroy(&g->mutex);
}

#endif
