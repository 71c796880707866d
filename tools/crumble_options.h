/*
 * crumble_options.h - the options of crumble, as Docker spells them: "--name value", "--name=value", "-n value", in
 * front of the command's arguments; "--" ends them.
 */
#ifndef TOOLS_CRUMBLE_OPTIONS_H
#define TOOLS_CRUMBLE_OPTIONS_H

#include "cc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    cc_pull_options pull;
    bool policy_given;
    cc_instance_options machine;
    const char *workdir, *entrypoint;
    const char **env; /* NAME or NAME=VALUE */
    size_t env_count;
    bool quiet;
    char *platform, *creds; /* what the fields of `pull` point into */
};

#define EXIT_USAGE 2

/* Says what is wrong with the arguments; returns the exit status. */
static int usage(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "crumble: ");
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "; see crumble --help\n");
    va_end(args);
    return EXIT_USAGE;
}

/* "512m" as MiB; 0 when it is no size. */
static uint64_t parse_memory(const char *text)
{
    char *end;
    double n = strtod(text, &end);
    double unit = 1.0 / (1 << 20); /* bytes, as Docker has it */
    if (*end == 'k' || *end == 'K')
        unit = 1.0 / 1024;
    else if (*end == 'm' || *end == 'M')
        unit = 1;
    else if (*end == 'g' || *end == 'G')
        unit = 1024;
    if (end == text || (*end && end[1] && strcmp(end + 1, "b") != 0 && strcmp(end + 1, "iB") != 0))
        return 0;
    return n * unit >= 1 && n * unit < 1e9 ? (uint64_t)(n * unit) : 0;
}

/* "linux/arm64/v8" into os and architecture. */
static bool set_platform(struct options *o, const char *value)
{
    free(o->platform);
    o->platform = strdup(value);
    char *slash = o->platform ? strchr(o->platform, '/') : NULL;
    if (!slash || !slash[1])
        return false;
    *slash = '\0';
    o->pull.platform_os = o->platform;
    o->pull.platform_arch = slash + 1;
    return true;
}

static bool set_creds(struct options *o, const char *value)
{
    free(o->creds);
    o->creds = strdup(value);
    char *colon = o->creds ? strchr(o->creds, ':') : NULL;
    if (!colon)
        return false;
    *colon = '\0';
    o->pull.username = o->creds;
    o->pull.password = colon + 1;
    return true;
}

static bool set_policy(struct options *o, const char *value)
{
    static const char *const names[] = {"missing", "always", "never"};
    for (int i = 0; i < 3; i++)
        if (strcmp(value, names[i]) == 0) {
            o->pull.policy = (cc_pull_policy)i;
            o->policy_given = true;
            return true;
        }
    return false;
}

static bool set_number(const char *value, double least, double most, double *out)
{
    char *end;
    *out = strtod(value, &end);
    return end != value && !*end && *out >= least && *out <= most;
}

/* Sets an option that has a value; false when the value makes no sense. */
static bool set_value(struct options *o, const char *name, const char *value)
{
    double n = 0;
    if (strcmp(name, "--platform") == 0)
        return set_platform(o, value);
    if (strcmp(name, "--creds") == 0)
        return set_creds(o, value);
    if (strcmp(name, "--pull") == 0)
        return set_policy(o, value);
    if (strcmp(name, "--memory") == 0)
        return (o->machine.memory_mb = parse_memory(value)) != 0;
    if (strcmp(name, "--cpus") == 0 && set_number(value, 1, 1024, &n))
        return (o->machine.cpus = (int)n) == n;
    if (strcmp(name, "--timeout") == 0)
        return set_number(value, 0.001, 1e9, &o->machine.timeout_seconds);
    if (strcmp(name, "--ca-file") == 0)
        o->pull.ca_file = value;
    else if (strcmp(name, "--kernel") == 0)
        o->machine.kernel = value;
    else if (strcmp(name, "--user") == 0)
        o->machine.user = value;
    else if (strcmp(name, "--workdir") == 0)
        o->workdir = value;
    else if (strcmp(name, "--entrypoint") == 0)
        o->entrypoint = value;
    else if (strcmp(name, "--env") == 0)
        o->env[o->env_count++] = value;
    else
        return false;
    return *value != '\0' && *value != '=';
}

/* Sets an option that has none; false when there is no such. */
static bool set_flag(struct options *o, const char *name)
{
    if (strcmp(name, "--quiet") == 0)
        o->quiet = true;
    else if (strcmp(name, "--plain-http") == 0)
        o->pull.allow_http = true;
    else if (strcmp(name, "--dmesg") == 0)
        o->machine.enable_dmesg = true;
    else if (strcmp(name, "--rm") != 0)
        return false;
    return true;
}

static const char *long_name(const char *arg)
{
    static const char *const names[][2] = {{"-e", "--env"},    {"-u", "--user"},   {"-w", "--workdir"},
                                           {"-m", "--memory"}, {"-v", "--volume"}, {"-q", "--quiet"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(arg, names[i][0]) == 0)
            return names[i][1];
    return arg;
}

/* Takes the options at the front of argv; *at is where they end. 0, or an exit status. */
static int parse_options(struct options *o, int argc, char **argv, int *at)
{
    static const char *const valued[] = {"--platform", "--creds",  "--pull", "--memory",  "--cpus",       "--timeout",
                                         "--ca-file",  "--kernel", "--user", "--workdir", "--entrypoint", "--env"};
    while (*at < argc && argv[*at][0] == '-' && argv[*at][1]) {
        char name[32];
        const char *arg = argv[(*at)++], *equals = strncmp(arg, "--", 2) == 0 ? strchr(arg, '=') : NULL;
        if (strcmp(arg, "--") == 0)
            return 0;
        snprintf(name, sizeof(name), "%.*s", equals ? (int)(equals - arg) : 30, long_name(arg));
        if (strcmp(name, "--volume") == 0)
            return usage("-v is not there yet: this version shares no directories with a machine");
        if (!equals && set_flag(o, name))
            continue;
        size_t i = 0;
        while (i < sizeof(valued) / sizeof(valued[0]) && strcmp(name, valued[i]) != 0)
            i++;
        if (i == sizeof(valued) / sizeof(valued[0]))
            return usage("there is no option %s", arg);
        if (!equals && *at == argc)
            return usage("%s needs a value", arg);
        const char *value = equals ? equals + 1 : argv[(*at)++];
        if (!set_value(o, name, value))
            return usage("%s cannot be \"%s\"", name, value);
    }
    return 0;
}

#endif
