/*
 * crumble - pulls, lists and runs images from the command line: the library's calls, one command for each.
 *
 *     cc -O2 -I. tools/crumble.c -o crumble -lpthread -l:libbearssl.a      (or `make crumble`; with dist/cc.h,
 *                                                                           -Idist and -lpthread alone)
 *
 * Results go to standard output, everything else to standard error. Exit status: of `run`, the command's own, 128+N
 * when signal N ended it, 127 when it was not found, 126 when it could not be executed, 125 when crumble itself failed;
 * of the others, 1 for a failure and 2 for arguments that make no sense; 130 or 143 when it was interrupted.
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include "cc.h"

#include "crumble_run.h"

static const char usage_text[] =
    "usage: crumble COMMAND [OPTION...] [ARGUMENT...]\n"
    "\n"
    "  pull IMAGE                fetch an image, or see whether there is a newer one\n"
    "  load PATH                 an image from a file (docker save, OCI) or a directory (OCI layout, root filesystem)\n"
    "  run IMAGE [COMMAND...]    run a command of an image in a virtual machine of its own\n"
    "  images                    list the images in the cache\n"
    "  inspect IMAGE...          what images say about how to run them, as JSON\n"
    "  export IMAGE DIRECTORY    write an image as an OCI image layout\n"
    "  rm IMAGE...               forget images, by reference or ID\n"
    "  prune                     remove from the cache what no image needs\n"
    "  version                   the library's version\n"
    "\n"
    "IMAGE is a reference (alpine, ghcr.io/org/app:1), or a path that begins with / or . (./app.tar, ./rootfs).\n"
    "\n"
    "of all that get an image:\n"
    "  --platform OS/ARCH        linux/amd64, linux/arm64; default: this host's\n"
    "  --pull missing|always|never   when to ask the registry; default: missing, of inspect never\n"
    "  --creds USER:PASSWORD     for the registry; default: what `docker login` wrote\n"
    "  --ca-file FILE            certificate authorities to believe besides the system's\n"
    "  --plain-http              a registry without TLS may be asked\n"
    "  -q, --quiet               no progress; of pull, the image's name alone; of images, the IDs alone\n"
    "of run:\n"
    "  -i, --interactive         give the command standard input; without it that is empty\n"
    "  -t, --tty                 give the command a terminal\n"
    "  -e, --env NAME[=VALUE]    set a variable, or take this program's\n"
    "  -u, --user USER[:GROUP]   names or numbers; default: the image's\n"
    "  -v, --volume HOST:GUEST[:ro]   a directory of this host; GUEST alone: an empty one\n"
    "  -w, --workdir DIR         default: the image's\n"
    "  --entrypoint PROGRAM      in place of the image's\n"
    "  -m, --memory SIZE         512m, 2g; default: 256m\n"
    "  --cpus N                  default: 1\n"
    "  --disk-size SIZE          what the command can write, at most; default: 16g\n"
    "  --kernel PATH             the guest kernel; default: $CC_KERNEL, the cache's, a download, this host's\n"
    "  --timeout SECONDS         end the command after that time; the exit status is then 124\n"
    "  --dmesg                   show the kernel's messages\n"
    "  --rm                      always so: a machine leaves nothing behind\n"
    "\n"
    "$CC_CACHE_DIR says where the cache is.\n";

static int cmd_version(struct options *o, int count, char **args)
{
    (void)o, (void)args;
    if (count)
        return usage("version takes no argument");
    printf("%s\n", cc_api_version());
    return 0;
}

static const struct command {
    const char *name;
    int (*fn)(struct options *o, int count, char **args);
    int mask; /* whose options it takes */
} commands[] = {{"pull", cmd_pull, PULL},       {"load", cmd_load, LOAD},          {"run", cmd_run, RUN},
                {"images", cmd_images, IMAGES}, {"inspect", cmd_inspect, INSPECT}, {"export", cmd_export, EXPORT},
                {"rm", cmd_rm, OTHER},          {"prune", cmd_prune, OTHER},       {"version", cmd_version, OTHER}};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

static int run_command(const struct command *c, struct options *o, char **args)
{
    int count;
    cc_error err = {0};
    int status = parse_options(o, c->mask, args, &count);
    if (status || o->help) {
        fputs(status ? "" : usage_text, stdout);
        return status;
    }
    o->pull.cancel = session.interrupt;
    if (c->fn != cmd_version && cc_oci_client_new(&session.client, &err))
        return fail(&err);
    return c->fn(o, count, args);
}

int main(int argc, char **argv)
{
    struct options o;
    memset(&o, 0, sizeof(o));
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        fputs(usage_text, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : 0;
    }
    const struct command *c = find_command(argv[1]);
    if (!c)
        return usage("there is no command \"%s\"", argv[1]);
    session.command = c->name;
    session.on_signal = c->fn == cmd_run ? forward_signal : NULL;
    o.env = calloc((size_t)argc, sizeof(*o.env));
    o.mounts = calloc((size_t)argc, sizeof(*o.mounts));
    if (!o.env || !o.mounts || cc_init() != CC_OK || cc_cancel_token_new(&session.interrupt, NULL) != CC_OK ||
        !session_watch_signals()) {
        fprintf(stderr, "crumble: out of memory\n");
        return session_is_run() ? EXIT_CRUMBLE : EXIT_FAILED;
    }
    int status = run_command(c, &o, argv + 2);
    cc_shutdown();
    free_options(&o);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "crumble: cannot write to standard output\n");
        return session_is_run() ? EXIT_CRUMBLE : EXIT_FAILED;
    }
    return status;
}
