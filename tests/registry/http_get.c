/*
 * An HTTP client for test_http.py and for figures: asks for URLs, one after the other, with one client.
 *
 *   http_get [--ca FILE] [--auth VALUE] [--method M] [--range N] [--deadline MS] [--cancel MS] [--idle MS]
 *            [--connect MS] [--plain] [--keep] URL...
 *
 * Prints a line a URL: "CODE STATUS BYTES SHA256 BROKEN MILLISECONDS FINAL-URL MESSAGE". --cancel fires a token that
 * many milliseconds after the start, from another thread. --keep leaves bodies unread.
 */
#include "../../src/image/sha256.h"
#include "../../src/registry/http.h"

struct firing {
    struct cci_cancel *token;
    uint64_t at;
};

struct job {
    struct cci_http *http;
    struct cci_http_request req;
    struct cci_wait wait;
    bool keep;
};

static void fire(void *ctx)
{
    const struct firing *f = ctx;
    struct cci_monitor never;
    cci_monitor_init(&never);
    cci_monitor_lock(&never);
    while (cci_cond_wait(&never.cond, &never.mutex, f->at))
        continue;
    cci_monitor_unlock(&never);
    cci_monitor_destroy(&never);
    cci_cancel_fire(f->token);
}

static void get(struct job *job)
{
    static uint8_t buf[64 << 10];
    struct cci_http_response *r = NULL;
    struct cci_sha256 h;
    uint8_t digest[32];
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    uint64_t start = cci_os_now(), bytes = 0;
    size_t got = 1;
    cci_sha256_init(&h);
    cc_error_code code = cci_http_request(job->http, &job->req, &job->wait, &r, &err);
    while (!code && got && !job->keep) {
        code = cci_http_body_read(r, buf, sizeof(buf), &got, &job->wait, &err);
        cci_sha256_update(&h, buf, got);
        bytes += got;
    }
    cci_sha256_final(&h, digest);
    printf("%d %d %llu ", (int)code, r ? cci_http_status(r) : 0, (unsigned long long)bytes);
    for (int i = 0; i < 32; i++)
        printf("%02x", digest[i]);
    char *url = r ? cci_url_text(&r->url, true) : NULL;
    printf(" %d %llu %s %s\n", r ? cci_http_broken(r) : 0, (unsigned long long)((cci_os_now() - start) / 1000000u),
           url ? url : "-", err.message ? err.message : "");
    (void)fflush(stdout);
    cci_mem_free(url);
    cci_http_finish(r);
    cci_error_release(&err);
}

static uint64_t number(const char *s)
{
    return strtoull(s, NULL, 10);
}

/* Reads an option and its value; how many arguments that were, 0 at the first URL. */
static int option(struct job *job, struct cci_http_options *opts, struct firing *f, char **at)
{
    const char *name = at[0], *value = at[1];
    if (strncmp(name, "--", 2) != 0)
        return 0;
    if (strcmp(name, "--plain") == 0)
        return opts->allow_plain = true, 1;
    if (strcmp(name, "--keep") == 0)
        return job->keep = true, 1;
    if (!value)
        return 0;
    if (strcmp(name, "--ca") == 0)
        opts->ca_file = value;
    else if (strcmp(name, "--auth") == 0)
        job->req.authorization = value;
    else if (strcmp(name, "--method") == 0)
        job->req.method = value;
    else if (strcmp(name, "--range") == 0)
        job->req.range_from = number(value);
    else if (strcmp(name, "--deadline") == 0)
        job->wait.deadline = cci_os_now() + number(value) * 1000000u;
    else if (strcmp(name, "--cancel") == 0)
        f->at = cci_os_now() + number(value) * 1000000u;
    else if (strcmp(name, "--idle") == 0)
        opts->idle_ms = (uint32_t)number(value);
    else if (strcmp(name, "--connect") == 0)
        opts->connect_ms = (uint32_t)number(value);
    else
        return 0;
    return 2;
}

int main(int argc, char **argv)
{
    struct job job;
    struct cci_http_options opts;
    struct firing f = {NULL, 0};
    struct cci_thread thread;
    cc_error err = {CC_OK, NULL, NULL, NULL, 0};
    int i = 1, used;
    memset(&job, 0, sizeof(job));
    memset(&opts, 0, sizeof(opts));
    job.wait = CCI_WAIT_FOREVER;
    while (i < argc && (used = option(&job, &opts, &f, argv + i)) > 0)
        i += used;
    if (cci_http_new(&opts, &job.http, &err) != CC_OK)
        return 2;
    if (f.at) {
        f.token = job.wait.cancel = cci_cancel_new();
        if (!f.token || cci_thread_new(&thread, "fire", fire, &f) != 0)
            return 2;
    }
    for (; i < argc; i++) {
        job.req.url = argv[i];
        get(&job);
    }
    if (f.token)
        cci_thread_join(&thread);
    cci_cancel_unref(f.token);
    cci_http_free(job.http);
    return 0;
}
