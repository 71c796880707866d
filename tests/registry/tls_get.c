/*
 * A TLS client for test_tls.py and for figures: connects, sends a line, reads to the end.
 *
 *   tls_get HOST PORT CA|- [--name NAME] [--deadline MS] [--cancel MS] [--plain]
 *
 * HOST is connected to, NAME (else HOST) is what the certificate must be for. Prints "CODE ERRNO BYTES SECONDS
 * MESSAGE".
 * --cancel fires a token after so many milliseconds, from another thread. --plain leaves TLS out.
 */
#include "../../src/registry/tls.h"

struct firing {
    struct cci_cancel *token;
    int ms;
};

static void fire(void *ctx)
{
    const struct firing *f = ctx;
    const struct cci_wait wait = {cci_os_now() + (uint64_t)f->ms * 1000000u, NULL};
    struct cci_monitor never;
    cci_monitor_init(&never);
    cci_monitor_lock(&never);
    while (cci_cond_wait(&never.cond, &never.mutex, wait.deadline))
        continue;
    cci_monitor_unlock(&never);
    cci_monitor_destroy(&never);
    cci_cancel_fire(f->token);
}

static cc_error_code get(const char *host, uint16_t port, const char *name, const char *ca, bool plain,
                         const struct cci_wait *wait, uint64_t *bytes, cc_error *err)
{
    static uint8_t buf[64 << 10];
    struct cci_trust *trust = NULL;
    struct cci_net *net = NULL;
    struct cci_tls *tls = NULL;
    size_t done = 0;
    cc_error_code code = plain ? CC_OK : cci_trust_load(ca, &trust, err);
    if (!code)
        code = cci_net_dial(host, port, wait, &net, err);
    if (!code && !plain) {
        code = cci_tls_connect(net, name, trust, wait, &tls, err);
        if (!code)
            net = NULL;
    }
    if (!code)
        code = tls ? cci_tls_write(tls, "hello\n", 6, &done, wait, err)
                   : cci_net_write(net, "hello\n", 6, &done, wait, err);
    for (done = 1; !code && done; *bytes += done)
        code = tls ? cci_tls_read(tls, buf, sizeof(buf), &done, wait, err)
                   : cci_net_read(net, buf, sizeof(buf), &done, wait, err);
    cci_tls_close(tls);
    cci_net_close(net);
    cci_trust_free(trust);
    return code;
}

int main(int argc, char **argv)
{
    struct cci_wait wait = CCI_WAIT_FOREVER;
    struct firing firing = {cci_cancel_new(), -1};
    struct cci_thread thread;
    cc_error err = {0};
    uint64_t bytes = 0, start = cci_os_now();
    if (argc < 4 || !firing.token)
        return 2;
    const char *name = argv[1];
    bool plain = false;
    for (int i = 4; i < argc; i++) {
        if (strcmp(argv[i], "--plain") == 0)
            plain = true;
        else if (i + 1 == argc)
            return 2;
        else if (strcmp(argv[i], "--name") == 0)
            name = argv[++i];
        else if (strcmp(argv[i], "--deadline") == 0)
            wait.deadline = start + (uint64_t)atoi(argv[++i]) * 1000000u;
        else if (strcmp(argv[i], "--cancel") == 0)
            firing.ms = atoi(argv[++i]);
        else
            return 2;
    }
    wait.cancel = firing.token;
    if (firing.ms >= 0 && cci_thread_new(&thread, "fire", fire, &firing) < 0)
        return 2;
    cc_error_code code = get(argv[1], (uint16_t)atoi(argv[2]), name, strcmp(argv[3], "-") == 0 ? NULL : argv[3], plain,
                             &wait, &bytes, &err);
    printf("%d %d %llu %.3f %s\n", (int)code, err.sys_errno, (unsigned long long)bytes,
           (double)(cci_os_now() - start) / 1e9, err.message ? err.message : "");
    if (firing.ms >= 0)
        cci_thread_join(&thread);
    cci_cancel_unref(firing.token);
    cci_error_release(&err);
    return 0;
}
