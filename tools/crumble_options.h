/*
 * crumble_options.h - the options of crumble, as Docker spells them: "--name value", "--name=value", "-n value",
 * "-nvalue", letters without a value together ("-it"). They stand anywhere before "--", but of run only in front of the
 * image: what follows is the command's.
 */
#ifndef TOOLS_CRUMBLE_OPTIONS_H
#define TOOLS_CRUMBLE_OPTIONS_H

#include "crumble_session.h"

#include <errno.h>
#include <stdlib.h>

struct options {
    cc_pull_options pull;
    bool policy_given;
    cc_instance_options machine;
    const char *workdir, *entrypoint;
    const char **env; /* NAME or NAME=VALUE; room for as many as there are arguments */
    size_t env_count;
    cc_mount_config *mounts; /* of `machine`; room as for env */
    double timeout;          /* of the command, in seconds; 0: none */
    bool quiet, help, rm, interactive, tty;
    char *platform, *creds; /* what the fields of `pull` point into */
};

/* Which commands an option is of. */
enum { PULL = 1, LOAD = 2, RUN = 4, IMAGES = 8, INSPECT = 16, EXPORT = 32, OTHER = 64, ANY = 127 };

struct option {
    const char *name; /* without the "--" */
    char letter;      /* 0: none */
    int commands;
    bool valued;
    bool (*set)(struct options *o, const char *value); /* false when the value makes no sense; NULL: it is stored */
    size_t at;                                         /* where in struct options: a const char *, or a bool */
};

/* ---- Values ---------------------------------------------------------------------------------------------- */

/* "512m" in MiB, a number alone in bytes, as Docker has it; 0 when it is no size. */
static uint64_t parse_size(const char *text)
{
    char *end;
    double n = strtod(text, &end), unit = 1.0 / (1 << 20);
    if (*end == 'k' || *end == 'K')
        unit = 1.0 / 1024;
    else if (*end == 'm' || *end == 'M')
        unit = 1;
    else if (*end == 'g' || *end == 'G')
        unit = 1024;
    else if (*end == 't' || *end == 'T')
        unit = 1 << 20;
    if (end == text || (*end && end[1] && strcmp(end + 1, "b") != 0 && strcmp(end + 1, "iB") != 0))
        return 0;
    return n * unit >= 1 && n * unit < 1e9 ? (uint64_t)(n * unit) : 0;
}

static bool set_memory(struct options *o, const char *value)
{
    return (o->machine.memory_mb = parse_size(value)) != 0;
}

static bool set_disk_size(struct options *o, const char *value)
{
    return (o->machine.disk_mb = parse_size(value)) != 0;
}

/* "linux/arm64/v8" into os and architecture. */
static bool set_platform(struct options *o, const char *value)
{
    free(o->platform);
    o->platform = strdup(value);
    char *slash = o->platform ? strchr(o->platform, '/') : NULL;
    if (!slash || slash == o->platform || !slash[1])
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

static bool parse_number(const char *value, double least, double most, double *out)
{
    char *end;
    *out = strtod(value, &end);
    return end != value && !*end && *out >= least && *out <= most;
}

static bool set_cpus(struct options *o, const char *value)
{
    double n;
    if (!parse_number(value, 1, 1024, &n))
        return false;
    o->machine.cpus = (int)n;
    return o->machine.cpus == n;
}

static bool set_timeout(struct options *o, const char *value)
{
    return parse_number(value, 0.001, 1e9, &o->timeout);
}

static bool set_env(struct options *o, const char *value)
{
    o->env[o->env_count++] = value;
    return *value && *value != '=';
}

/* "HOST:GUEST[:ro|rw]", or "GUEST" for an empty directory. */
static bool set_volume(struct options *o, const char *value)
{
    cc_mount_config *m = &o->mounts[o->machine.mount_count++];
    o->machine.mounts = o->mounts;
    const char *colon = strchr(value, ':'), *end = colon ? strchr(colon + 1, ':') : NULL;
    const char *guest = colon ? colon + 1 : value;
    char *host = colon ? strndup(value, (size_t)(colon - value)) : NULL;
    if (host && host[0] != '/' && host[0] != '.') { /* a named volume of Docker's; there is no such thing here */
        free(host);
        return false;
    }
    m->host_path = host ? realpath(host, NULL) : NULL;
    m->guest_path = end ? strndup(guest, (size_t)(end - guest)) : strdup(guest);
    m->writable = !end || strcmp(end, ":rw") == 0;
    bool there = !host || m->host_path;
    if (!there)
        fprintf(stderr, "crumble: %s: %s\n", host, strerror(errno));
    free(host);
    return there && guest[0] == '/' && (m->writable || strcmp(end, ":ro") == 0);
}

#define AT(field) NULL, offsetof(struct options, field)

static const struct option all_options[] = {
    {"help", 'h', ANY, false, AT(help)},
    {"quiet", 'q', PULL | RUN | IMAGES | INSPECT | EXPORT, false, AT(quiet)},
    {"platform", 0, PULL | LOAD | RUN | INSPECT | EXPORT, true, set_platform, 0},
    {"pull", 0, RUN | INSPECT | EXPORT, true, set_policy, 0},
    {"creds", 0, PULL | RUN | INSPECT | EXPORT, true, set_creds, 0},
    {"ca-file", 0, PULL | RUN | INSPECT | EXPORT, true, AT(pull.ca_file)},
    {"plain-http", 0, PULL | RUN | INSPECT | EXPORT, false, AT(pull.allow_http)},
    {"env", 'e', RUN, true, set_env, 0},
    {"volume", 'v', RUN, true, set_volume, 0},
    {"user", 'u', RUN, true, AT(machine.user)},
    {"workdir", 'w', RUN, true, AT(workdir)},
    {"entrypoint", 0, RUN, true, AT(entrypoint)},
    {"memory", 'm', RUN, true, set_memory, 0},
    {"cpus", 0, RUN, true, set_cpus, 0},
    {"disk-size", 0, RUN, true, set_disk_size, 0},
    {"interactive", 'i', RUN, false, AT(interactive)},
    {"tty", 't', RUN, false, AT(tty)},
    {"kernel", 0, RUN, true, AT(machine.kernel)},
    {"timeout", 0, RUN, true, set_timeout, 0},
    {"dmesg", 0, RUN, false, AT(machine.enable_dmesg)},
    {"rm", 0, RUN, false, AT(rm)},
};

static void free_options(struct options *o)
{
    for (size_t i = 0; i < o->machine.mount_count; i++) {
        free((char *)(intptr_t)o->mounts[i].host_path);
        free((char *)(intptr_t)o->mounts[i].guest_path);
    }
    free(o->mounts);
    free(o->env);
    free(o->platform);
    free(o->creds);
}

/* ---- The command line ------------------------------------------------------------------------------------ */

static const struct option *find_option(const char *name, size_t n, char letter, int command)
{
    for (size_t i = 0; i < sizeof(all_options) / sizeof(all_options[0]); i++) {
        const struct option *p = &all_options[i];
        bool same = letter ? p->letter == letter : strlen(p->name) == n && strncmp(p->name, name, n) == 0;
        if (same && (p->commands & command))
            return p;
    }
    return NULL;
}

/* Sets an option; `value` is NULL where there is none. */
static int set_option(struct options *o, const struct option *p, const char *value)
{
    char *field = (char *)o + p->at;
    bool ok = true;
    if (!p->valued)
        *(bool *)field = true;
    else if (!value)
        return usage("--%s needs a value", p->name);
    else if (p->set)
        ok = p->set(o, value);
    else {
        *(const char **)field = value;
        ok = *value != '\0';
    }
    return ok ? 0 : usage("--%s cannot be \"%s\"", p->name, value);
}

/* "-it", "-e A=1", "-eA=1": letters, of which the last may have a value. *next is the argument after. */
static int set_letters(struct options *o, const char *arg, char **next, int command, int *used)
{
    for (const char *letter = arg + 1; *letter; letter++) {
        const struct option *p = find_option("", 0, *letter, command);
        if (!p)
            return usage("%s has no option -%c", session.command, *letter);
        if (p->valued) {
            const char *rest = letter[1] == '=' ? letter + 2 : letter + 1;
            *used = letter[1] ? 0 : 1;
            return set_option(o, p, letter[1] ? rest : *next);
        }
        int status = set_option(o, p, NULL);
        if (status)
            return status;
    }
    return 0;
}

static int set_long(struct options *o, const char *arg, char **next, int command, int *used)
{
    const char *equals = strchr(arg, '=');
    size_t n = equals ? (size_t)(equals - arg) - 2 : strlen(arg + 2);
    const struct option *p = find_option(arg + 2, n, 0, command);
    if (!p)
        return usage("%s has no option %.*s", session.command, (int)n + 2, arg);
    if (equals && !p->valued)
        return usage("--%s takes no value", p->name);
    *used = p->valued && !equals ? 1 : 0;
    return set_option(o, p, equals ? equals + 1 : *next);
}

/*
 * Takes the options out of `args`, which ends with a NULL; the rest, *count of them, moves to its front. 0, or an exit
 * status.
 */
static int parse_options(struct options *o, int command, char **args, int *count)
{
    char **next = args;
    bool all_rest = false; /* no option comes any more */
    *count = 0;
    while (*next) {
        char *arg = *next++;
        if (all_rest || arg[0] != '-' || !arg[1]) {
            args[(*count)++] = arg;
            all_rest = all_rest || command == RUN;
        } else if (strcmp(arg, "--") == 0) {
            all_rest = true;
        } else {
            int used = 0;
            int status = (arg[1] == '-' ? set_long : set_letters)(o, arg, next, command, &used);
            if (status)
                return status;
            next += used;
        }
    }
    args[*count] = NULL;
    return 0;
}

#endif
