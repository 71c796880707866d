/*
 * crumble - pulls, lists and runs images from the command line: the library's calls, one command for each.
 *
 *     cc -O2 -I. tools/crumble.c -o crumble -lpthread -l:libbearssl.a      (or `make crumble`; with dist/cc.h,
 *                                                                           -Idist and -lpthread alone)
 *
 * Exit status: of `run`, the command's own, 128+N when signal N ended it, 127 when it was not found, 126 when it could
 * not be executed; 125 when crumble itself failed, 2 for arguments that make no sense, 130 or 143 when it was
 * interrupted. Results go to standard output, everything else to standard error.
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include "crumble_options.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_CRUMBLE = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

static const char usage_text[] =
    "usage: crumble COMMAND [OPTION...] [ARGUMENT...]\n"
    "\n"
    "  pull IMAGE                fetch an image, or see whether there is a newer one\n"
    "  load PATH                 an image from a file (docker save, OCI) or a directory (OCI layout, root filesystem)\n"
    "  run IMAGE [COMMAND...]    run a command of an image in a virtual machine of its own\n"
    "  images                    list the images in the cache\n"
    "  inspect IMAGE             what an image says about how to run it\n"
    "  export IMAGE DIRECTORY    write an image as an OCI image layout\n"
    "  rm IMAGE...               forget images\n"
    "  prune                     remove from the cache what no image needs\n"
    "\n"
    "IMAGE is a reference (alpine, ghcr.io/org/app:1), or a path that begins with / or . (./app.tar, ./rootfs).\n"
    "\n"
    "  --platform OS/ARCH        linux/amd64, linux/arm64; default: this host's\n"
    "  --pull missing|always|never   when to ask the registry; default: missing for run, always for pull\n"
    "  --creds USER:PASSWORD     for the registry; default: what `docker login` wrote\n"
    "  --ca-file FILE            certificate authorities to believe besides the system's\n"
    "  --plain-http              a registry without TLS may be asked\n"
    "  -q, --quiet               no progress; of images, the IDs alone\n"
    "run:\n"
    "  -e, --env NAME[=VALUE]    set a variable, or take this program's\n"
    "  -u, --user USER[:GROUP]   names or numbers; default: the image's\n"
    "  -w, --workdir DIR         default: the image's\n"
    "  --entrypoint PROGRAM      in place of the image's\n"
    "  --memory SIZE             512m, 2g; default: 256m\n"
    "  --cpus N                  default: 1\n"
    "  --kernel PATH             the guest kernel; default: $CC_KERNEL, then what the cache or this host has\n"
    "  --timeout SECONDS         stop the machine after that time\n"
    "  --dmesg                   show the kernel's messages\n"
    "  --rm                      always so: a machine leaves nothing behind\n"
    "\n"
    "$CC_CACHE_DIR says where the cache is.\n";

static cc_oci_client client;
static cc_cancel_token interrupt;
static volatile sig_atomic_t interrupted; /* the signal, once there was one */

/* ---- Errors and signals ---------------------------------------------------------------------------------- */

/* Says what failed; returns the exit status. */
static int fail(cc_error *err)
{
    int status = interrupted ? 128 + interrupted : EXIT_CRUMBLE;
    if (!interrupted && err->path && err->message && !strstr(err->message, err->path))
        fprintf(stderr, "crumble: %s: %s\n", err->path, err->message);
    else if (!interrupted)
        fprintf(stderr, "crumble: %s\n", err->message ? err->message : "out of memory");
    cc_error_free(err);
    return status;
}

/* Waits for an interruption and ends what is under way; signals are blocked in all other threads. */
static void *signal_main(void *ctx)
{
    int number;
    if (sigwait(ctx, &number) == 0) {
        interrupted = number;
        cc_cancel_token_cancel(interrupt, NULL);
    }
    return NULL;
}

static bool watch_signals(void)
{
    static sigset_t set;
    pthread_t thread;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0 || pthread_create(&thread, NULL, signal_main, &set) != 0)
        return false;
    return pthread_detach(thread) == 0;
}

/* ---- Images ---------------------------------------------------------------------------------------------- */

static const char *spell_size(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double n = (double)bytes;
    size_t unit = 0;
    for (; n >= 999.5 && unit < 4; unit++)
        n /= 1000;
    snprintf(out, 32, n < 10 && unit ? "%.1f %s" : "%.0f %s", n, units[unit]);
    return out;
}

/* What was last shown of a pull. */
struct progress {
    bool terminal, shown;
    int tenths; /* of the whole, on the last line where there is no terminal */
};

static void show_progress(const cc_download_progress *p, void *ctx)
{
    struct progress *state = ctx;
    char done[32], total[32], speed[32], rest[40] = "";
    double part = p->total > 0 ? (double)p->current / (double)p->total : 0;
    int tenths = (int)(part * 10);
    if (p->total <= 0 || (!state->terminal && tenths == state->tenths))
        return;
    state->tenths = tenths;
    spell_size((uint64_t)p->current, done);
    spell_size((uint64_t)p->total, total);
    spell_size((uint64_t)p->bytes_per_second, speed);
    if (p->eta_seconds >= 0 && p->current < p->total)
        snprintf(rest, sizeof(rest), ", %.0f s left", p->eta_seconds);
    if (!state->terminal) {
        fprintf(stderr, "%3.0f %%  %s of %s  %s/s%s\n", part * 100, done, total, speed, rest);
        return;
    }
    char bar[31];
    memset(bar, ' ', 30);
    memset(bar, '#', (size_t)(part * 30));
    bar[30] = '\0';
    fprintf(stderr, "\r[%s] %3.0f %%  %s of %s  %s/s%s\033[K", bar, part * 100, done, total, speed, rest);
    state->shown = true;
}

static bool is_path(const char *image)
{
    return image[0] == '/' || strncmp(image, "./", 2) == 0 || strncmp(image, "../", 3) == 0 || strcmp(image, ".") == 0;
}

/* Whether PATH, or PATH of PATH:REFERENCE, is a directory. */
static bool is_directory(const char *path)
{
    struct stat st;
    char *copy = strdup(path);
    bool is = false;
    for (size_t n = copy ? strlen(copy) : 0; n > 0 && !is; n--) {
        if (path[n] != '\0' && path[n] != ':')
            continue;
        copy[n] = '\0';
        is = stat(copy, &st) == 0 && S_ISDIR(st.st_mode);
    }
    free(copy);
    return is;
}

static cc_error_code load(const char *path, const struct options *o, cc_instance_source *out, cc_error *err)
{
    return (is_directory(path) ? cc_oci_client_load_dir : cc_oci_client_load_tar)(client, path, &o->pull, out, err);
}

/* An image by what the user calls it. */
static cc_error_code open_image(const char *image, const struct options *o, cc_instance_source *out, cc_error *err)
{
    struct progress state = {isatty(STDERR_FILENO) != 0, false, 0};
    if (is_path(image))
        return load(image, o, out, err);
    cc_error_code code = cc_oci_client_pull(client, image, &o->pull, o->quiet ? NULL : show_progress, &state, out, err);
    if (state.shown)
        fputc('\n', stderr);
    return code;
}

static int cmd_pull(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_error err = {0};
    if (count != 1)
        return usage("pull takes one image");
    if (!o->policy_given)
        o->pull.policy = CC_PULL_ALWAYS;
    if (open_image(args[0], o, &source, &err))
        return fail(&err);
    printf("%s\n", args[0]);
    cc_instance_source_free(source);
    return 0;
}

static int cmd_load(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_image_config *config = NULL;
    cc_error err = {0};
    if (count != 1)
        return usage("load takes one path");
    if (load(args[0], o, &source, &err) || cc_source_get_config(source, &config, &err))
        return fail(&err);
    printf("%s: loaded, linux/%s\n", args[0], config->architecture);
    cc_image_config_free(config);
    cc_instance_source_free(source);
    return 0;
}

static void print_ago(int64_t then)
{
    int64_t s = (int64_t)time(NULL) - then;
    if (s < 120)
        printf("just now\n");
    else if (s < 7200)
        printf("%lld minutes ago\n", (long long)(s / 60));
    else if (s < 172800)
        printf("%lld hours ago\n", (long long)(s / 3600));
    else
        printf("%lld days ago\n", (long long)(s / 86400));
}

static int cmd_images(struct options *o, int count, char **args)
{
    cc_image_info *images = NULL;
    size_t n = 0, widest = 9;
    cc_error err = {0};
    (void)args;
    if (count)
        return usage("images takes no argument");
    if (cc_oci_client_list(client, &images, &n, &err))
        return fail(&err);
    for (size_t i = 0; i < n; i++)
        widest = strlen(images[i].reference) > widest ? strlen(images[i].reference) : widest;
    if (!o->quiet)
        printf("%-*s  %-12s  %-12s  %8s  %s\n", (int)widest, "REFERENCE", "PLATFORM", "ID", "SIZE", "LAST USED");
    for (size_t i = 0; i < n; i++) {
        char size[32];
        if (o->quiet) {
            printf("%s\n", images[i].id);
            continue;
        }
        printf("%-*s  %-12s  %.12s  %8s  ", (int)widest, images[i].reference, images[i].platform, images[i].id + 7,
               images[i].complete ? spell_size(images[i].size, size) : "damaged");
        print_ago(images[i].last_used_unix);
    }
    cc_image_info_free(images, n);
    return 0;
}

static void print_json_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            printf("\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            printf("\\u%04x", (unsigned)(unsigned char)*s);
        else
            putchar(*s);
    }
    putchar('"');
}

static void print_json_list(const char *name, char **at, size_t count)
{
    printf("  \"%s\": [", name);
    for (size_t i = 0; i < count; i++) {
        printf("%s", i ? ", " : "");
        print_json_string(at[i]);
    }
    printf("],\n");
}

static int cmd_inspect(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_image_config *c = NULL;
    cc_error err = {0};
    if (count != 1)
        return usage("inspect takes one image");
    if (!o->policy_given)
        o->pull.policy = CC_PULL_NEVER;
    if (open_image(args[0], o, &source, &err) || cc_source_get_config(source, &c, &err))
        return fail(&err);
    printf("{\n  \"Image\": ");
    print_json_string(args[0]);
    printf(",\n  \"Architecture\": ");
    print_json_string(c->architecture);
    printf(",\n");
    print_json_list("Env", c->env, c->env_count);
    print_json_list("Entrypoint", c->entrypoint, c->entrypoint_count);
    print_json_list("Cmd", c->cmd, c->cmd_count);
    printf("  \"WorkingDir\": ");
    print_json_string(c->working_dir);
    printf(",\n  \"User\": ");
    print_json_string(c->user);
    printf("\n}\n");
    cc_image_config_free(c);
    cc_instance_source_free(source);
    return 0;
}

static int cmd_export(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_error err = {0};
    if (count != 2)
        return usage("export takes an image and a directory");
    if (open_image(args[0], o, &source, &err) || cc_oci_client_export_dir(client, source, args[1], &err))
        return fail(&err);
    cc_instance_source_free(source);
    return 0;
}

static int cmd_rm(struct options *o, int count, char **args)
{
    int status = 0;
    (void)o;
    if (count < 1)
        return usage("rm takes images");
    for (int i = 0; i < count; i++) {
        cc_error err = {0};
        if (cc_oci_client_remove(client, args[i], &err))
            status = fail(&err);
        else
            printf("%s\n", args[i]);
    }
    return status;
}

static int cmd_prune(struct options *o, int count, char **args)
{
    cc_prune_result r;
    cc_error err = {0};
    char size[32];
    (void)o, (void)args;
    if (count)
        return usage("prune takes no argument");
    if (cc_oci_client_prune(client, &r, &err))
        return fail(&err);
    printf("%s freed: %zu layers, %zu blobs\n", spell_size(r.bytes_freed, size), r.layers_removed, r.blobs_removed);
    if (r.blobs_busy)
        fprintf(stderr, "crumble: a pull is under way, so blobs were left alone; prune again when it is done\n");
    return 0;
}

/* ---- Running --------------------------------------------------------------------------------------------- */

/* Gives the command its directory and environment. */
static cc_error_code prepare(cc_cmd cmd, const struct options *o, cc_error *err)
{
    cc_error_code code = o->workdir ? cc_cmd_set_dir(cmd, o->workdir, err) : CC_OK;
    for (size_t i = 0; i < o->env_count && !code; i++) {
        char *name = strdup(o->env[i]), *equals = name ? strchr(name, '=') : NULL;
        if (equals)
            *equals = '\0';
        const char *value = equals ? equals + 1 : name ? getenv(name) : NULL;
        if (value) /* one that is not set here is not passed on, as with Docker */
            code = cc_cmd_set_env(cmd, name, value, err);
        free(name);
    }
    return code ? code : cc_cmd_set_cancel(cmd, interrupt, err);
}

static int run_in(cc_instance inst, const struct options *o, char **words, cc_error *err)
{
    cc_cmd cmd = 0;
    uint8_t *out = NULL;
    size_t len = 0;
    int code = 0;
    const char *const *args = (const char *const *)words;
    bool failed = o->entrypoint ? cc_cmd_new(inst, o->entrypoint, args, &cmd, err) != CC_OK
                                : cc_cmd_entrypoint(inst, *words ? args : NULL, &cmd, err) != CC_OK;
    if (failed || prepare(cmd, o, err))
        return fail(err);
    if (cc_cmd_combined_output(cmd, &out, &len, &code, err)) {
        int missing = err->code == CC_ERR_IO ? err->sys_errno : 0, status = fail(err);
        return interrupted ? status : missing == 2 ? EXIT_NOT_FOUND : missing == 13 ? EXIT_NOT_EXECUTABLE : status;
    }
    fwrite(out, 1, len, stdout);
    cc_free_bytes(out);
    return code;
}

static int cmd_run(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_instance inst = 0;
    cc_error err = {0};
    if (count < 1)
        return usage("run takes an image");
    if (open_image(args[0], o, &source, &err))
        return fail(&err);
    o->machine.cancel = interrupt;
    if (cc_instance_new(source, &o->machine, &inst, &err))
        return fail(&err);
    int status = run_in(inst, o, args + 1, &err);
    cc_instance_close(inst, NULL);
    cc_instance_source_free(source);
    return status;
}

/* ---- The command line ------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    int (*fn)(struct options *o, int count, char **args);
} commands[] = {{"pull", cmd_pull},       {"load", cmd_load},     {"run", cmd_run}, {"images", cmd_images},
                {"inspect", cmd_inspect}, {"export", cmd_export}, {"rm", cmd_rm},   {"prune", cmd_prune}};

static int run_command(size_t which, struct options *o, int argc, char **argv)
{
    int at = 2;
    cc_error err = {0};
    int status = parse_options(o, argc, argv, &at);
    if (status)
        return status;
    o->pull.cancel = interrupt;
    if (cc_oci_client_new(&client, &err))
        return fail(&err);
    return commands[which].fn(o, argc - at, argv + at);
}

int main(int argc, char **argv)
{
    struct options o;
    memset(&o, 0, sizeof(o));
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        fputs(usage_text, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : 0;
    }
    size_t which = 0, all = sizeof(commands) / sizeof(commands[0]);
    while (which < all && strcmp(argv[1], commands[which].name) != 0)
        which++;
    if (which == all)
        return usage("there is no command \"%s\"", argv[1]);
    o.env = calloc((size_t)argc, sizeof(*o.env));
    if (!o.env || cc_init() != CC_OK || cc_cancel_token_new(&interrupt, NULL) != CC_OK || !watch_signals()) {
        fprintf(stderr, "crumble: out of memory\n");
        return EXIT_CRUMBLE;
    }
    int status = run_command(which, &o, argc, argv);
    cc_shutdown();
    free(o.env);
    free(o.platform);
    free(o.creds);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "crumble: cannot write to standard output\n");
        return EXIT_CRUMBLE;
    }
    return status;
}
