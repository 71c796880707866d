/*
 * What the pull's scripts run: pulls an image by the public call and says what came out.
 *
 *     pull STORE REFERENCE
 *
 * In the environment: POLICY (always, never), ARCH, USERNAME, PASSWORD, CA_FILE, ALLOW_HTTP, TIMEOUT (seconds),
 * CANCEL_AT (bytes after which the token is cancelled), KILL_AT (bytes after which this process kills itself), EXPORT
 * (a directory that the image is exported to), AGAIN (after the first pull there is another one, by the same client,
 * that always asks), REMOVE (a file that is removed before that), LINGER (says when the pull returned, then waits for
 * the end of standard input before anything is freed). Prints the configuration's architecture and environment, a line
 * for each call of the progress function with PROGRESS set, a summary of them, and the error if there is one; the exit
 * code is the error's.
 */
#define CC_IMPLEMENTATION
#include <signal.h>

#include "../../cc.h"

struct watch {
    cc_cancel_token token;
    int64_t cancel_at, kill_at, last;
    int calls, backwards;
    uint64_t first_ns, cancelled_ns;
    cc_download_progress end;
};

static void on_progress(const cc_download_progress *p, void *user_data)
{
    struct watch *w = user_data;
    if (getenv("PROGRESS"))
        printf("progress %lld/%lld %d/%d %.15s %.0f %.1f\n", (long long)p->current, (long long)p->total, p->blob_index,
               p->blob_count, p->filename, p->bytes_per_second, p->eta_seconds);
    if (w->calls++ == 0)
        w->first_ns = cci_os_now();
    w->backwards += p->current < w->last || p->current > p->total || p->blob_index < 0 ||
                    (p->blob_count && p->blob_index >= p->blob_count);
    w->last = p->current;
    w->end = *p;
    w->end.filename = NULL;
    if (w->kill_at && p->current >= w->kill_at)
        (void)raise(SIGKILL);
    if (w->cancel_at && p->current >= w->cancel_at) {
        w->cancelled_ns = cci_os_now();
        (void)cc_cancel_token_cancel(w->token, NULL);
    }
}

static int64_t number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoll(text, NULL, 10) : 0;
}

int main(int argc, char **argv)
{
    cc_oci_client client = 0;
    cc_instance_source source = 0;
    cc_pull_options opts;
    cc_image_config *config = NULL;
    cc_error err = {0};
    struct watch w;
    if (argc != 3)
        return 100;
    memset(&opts, 0, sizeof(opts));
    memset(&w, 0, sizeof(w));
    const char *policy = getenv("POLICY");
    opts.policy = !policy ? CC_PULL_IF_NOT_PRESENT : strcmp(policy, "always") == 0 ? CC_PULL_ALWAYS : CC_PULL_NEVER;
    opts.platform_arch = getenv("ARCH");
    opts.username = getenv("USERNAME");
    opts.password = getenv("PASSWORD");
    opts.ca_file = getenv("CA_FILE");
    opts.allow_http = getenv("ALLOW_HTTP") != NULL;
    opts.timeout_seconds = getenv("TIMEOUT") ? strtod(getenv("TIMEOUT"), NULL) : 0;
    w.cancel_at = number("CANCEL_AT");
    w.kill_at = number("KILL_AT");
    (void)cc_init();
    cc_error_code code = cc_cancel_token_new(&w.token, &err);
    opts.cancel = w.token;
    if (!code)
        code = cc_oci_client_new_with_cache(argv[1], &client, &err);
    if (!code)
        code = cc_oci_client_pull(client, argv[2], &opts, on_progress, &w, &source, &err);
    if (!code && getenv("AGAIN")) {
        cc_instance_source_free(source);
        opts.policy = CC_PULL_ALWAYS;
        if (getenv("REMOVE"))
            (void)remove(getenv("REMOVE"));
        code = cc_oci_client_pull(client, argv[2], &opts, NULL, NULL, &source, &err);
    }
    uint64_t now = cci_os_now();
    if (getenv("LINGER")) {
        printf("returned %d %llu\n", (int)code, (unsigned long long)cci_os_realtime());
        (void)fflush(stdout);
        while (getchar() != EOF)
            continue;
    }
    if (!code && getenv("EXPORT"))
        code = cc_oci_client_export_dir(client, source, getenv("EXPORT"), &err);
    if (!code)
        code = cc_source_get_config(source, &config, &err);
    if (config) {
        printf("architecture %s\n", config->architecture);
        for (size_t i = 0; i < config->env_count; i++)
            printf("env %s\n", config->env[i]);
    }
    printf("calls %d bad %d current %lld total %lld blobs %d\n", w.calls, w.backwards, (long long)w.end.current,
           (long long)w.end.total, w.end.blob_count);
    printf("span_ms %llu\n", w.calls ? (unsigned long long)((now - w.first_ns) / 1000000) : 0);
    if (w.cancelled_ns)
        printf("cancel_ms %llu\n", (unsigned long long)((now - w.cancelled_ns) / 1000000));
    if (code)
        printf("error %d %s: %s [%s]\n", (int)code, err.op ? err.op : "", err.message ? err.message : "",
               err.path ? err.path : "");
    cc_error_free(&err);
    cc_image_config_free(config);
    cc_instance_source_free(source);
    cc_oci_client_free(client);
    cc_cancel_token_free(w.token);
    cc_shutdown();
    return (int)code;
}
