/*
 * crumble_images.h - the commands of crumble that get images, list them, look into them and let go of them.
 */
#ifndef TOOLS_CRUMBLE_IMAGES_H
#define TOOLS_CRUMBLE_IMAGES_H

#include "crumble_options.h"
#include "crumble_progress.h"

#include <sys/stat.h>
#include <time.h>

/* ---- An image by what the user calls it ------------------------------------------------------------------- */

static bool is_path(const char *image)
{
    return image[0] == '/' || strncmp(image, "./", 2) == 0 || strncmp(image, "../", 3) == 0 ||
           strcmp(image, ".") == 0 || strcmp(image, "..") == 0;
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
    return (is_directory(path) ? cc_oci_client_load_dir : cc_oci_client_load_tar)(session.client, path, &o->pull, out,
                                                                                  err);
}

/* Opens an image, with its configuration unless that is NULL. Free both. */
static cc_error_code open_image(const char *image, const struct options *o, cc_instance_source *out,
                                cc_image_config **config, cc_error *err)
{
    cc_error_code code;
    if (is_path(image)) {
        code = load(image, o, out, err);
    } else {
        struct progress state = progress_start();
        code = cc_oci_client_pull(session.client, image, &o->pull, o->quiet ? NULL : progress_show, &state, out, err);
        progress_end(&state);
    }
    if (!code && config)
        code = cc_source_get_config(*out, config, err);
    return code;
}

/* ---- pull, load, export ------------------------------------------------------------------------------------ */

/* The images in the cache. */
struct list {
    cc_image_info *at;
    size_t count;
};

/* The first that is called `reference` and, where these are given, is for that platform and has that ID. */
static const cc_image_info *find_image(const struct list *l, const char *reference, const char *platform,
                                       const char *id)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->at[i].reference, reference) == 0 && (!platform || strcmp(l->at[i].platform, platform) == 0) &&
            (!id || strcmp(l->at[i].id, id) == 0))
            return &l->at[i];
    return NULL;
}

/* Says, in Docker's words, what a pull has got, and whether the cache had it. */
static void say_pulled(const struct list *before, const struct list *after, const cc_image_config *config)
{
    const char *name = config->names[0];
    const cc_image_info *now = find_image(after, name, NULL, config->id);
    const cc_image_info *then = now ? find_image(before, name, now->platform, NULL) : NULL;
    if (now) /* unless somebody removed it meanwhile */
        printf("Digest: %s\n", now->ref_digest);
    if (then && then->complete && strcmp(then->ref_digest, now->ref_digest) == 0)
        printf("Status: Image is up to date for %s\n", name);
    else
        printf("Status: Downloaded newer image for %s\n", name);
}

static int cmd_pull(struct options *o, int count, char **args)
{
    struct list before = {NULL, 0}, after = {NULL, 0};
    cc_instance_source source = 0;
    cc_image_config *config = NULL;
    cc_error err = {0};
    if (count != 1)
        return usage("pull takes one image");
    if (is_path(args[0]))
        return usage("%s is a path; \"crumble load\" reads files and directories", args[0]);
    o->pull.policy = CC_PULL_ALWAYS;
    bool ok = !cc_oci_client_list(session.client, &before.at, &before.count, &err) &&
              !open_image(args[0], o, &source, &config, &err) &&
              !cc_oci_client_list(session.client, &after.at, &after.count, &err);
    if (ok && !o->quiet)
        say_pulled(&before, &after, config);
    if (ok)
        printf("%s\n", config->names[0]);
    cc_image_info_free(before.at, before.count);
    cc_image_info_free(after.at, after.count);
    cc_image_config_free(config);
    cc_instance_source_free(source);
    return ok ? 0 : fail(&err);
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
    for (size_t i = 0; i < config->names_count; i++)
        printf("Loaded image: %s\n", config->names[i]);
    if (!config->names_count) {
        printf("Loaded image ID: %s\n", config->id);
        fprintf(stderr, "crumble: the image has no name, so only its path opens it again\n");
    }
    cc_image_config_free(config);
    cc_instance_source_free(source);
    return 0;
}

static int cmd_export(struct options *o, int count, char **args)
{
    cc_instance_source source = 0;
    cc_error err = {0};
    if (count != 2)
        return usage("export takes an image and a directory");
    if (open_image(args[0], o, &source, NULL, &err) || cc_oci_client_export_dir(session.client, source, args[1], &err))
        return fail(&err);
    cc_instance_source_free(source);
    return 0;
}

/* ---- images, rm, prune ------------------------------------------------------------------------------------- */

static void print_ago(int64_t then)
{
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = {{86400, "days"}, {3600, "hours"}, {60, "minutes"}};
    int64_t s = (int64_t)time(NULL) - then;
    size_t i = 0;
    while (i < 3 && s < 2 * units[i].seconds)
        i++;
    if (i == 3)
        printf("just now\n");
    else
        printf("%lld %s ago\n", (long long)(s / units[i].seconds), units[i].name);
}

static int cmd_images(struct options *o, int count, char **args)
{
    struct list l;
    size_t name = 9, platform = 8; /* the widest of each */
    cc_error err = {0};
    (void)args;
    if (count)
        return usage("images takes no argument");
    if (cc_oci_client_list(session.client, &l.at, &l.count, &err))
        return fail(&err);
    for (size_t i = 0; i < l.count; i++) {
        size_t n = strlen(l.at[i].reference), p = strlen(l.at[i].platform);
        name = n > name ? n : name;
        platform = p > platform ? p : platform;
    }
    if (!o->quiet)
        printf("%-*s  %-*s  %-12s  %8s  %s\n", (int)name, "REFERENCE", (int)platform, "PLATFORM", "ID", "SIZE",
               "LAST USED");
    for (size_t i = 0; i < l.count; i++) {
        const cc_image_info *image = &l.at[i];
        char size[32];
        if (o->quiet) {
            printf("%s\n", image->id);
            continue;
        }
        printf("%-*s  %-*s  %.12s  %8s  ", (int)name, image->reference, (int)platform, image->platform, image->id + 7,
               image->complete ? spell_size((double)image->size, size) : "damaged");
        print_ago(image->last_used_unix);
    }
    cc_image_info_free(l.at, l.count);
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
        if (cc_oci_client_remove(session.client, args[i], &err))
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
    if (cc_oci_client_prune(session.client, &r, &err))
        return fail(&err);
    printf("%s freed: %zu layers, %zu blobs\n", spell_size((double)r.bytes_freed, size), r.layers_removed,
           r.blobs_removed);
    if (r.blobs_busy)
        fprintf(stderr, "crumble: a pull is under way, so blobs were left alone; prune again when it is done\n");
    return 0;
}

/* ---- inspect ----------------------------------------------------------------------------------------------- */

/* A string of a configuration is UTF-8, so that only what JSON itself forbids is escaped. */
static void print_json_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            printf("\\%c", *s);
        else if ((unsigned char)*s < 0x20 || *s == 0x7f)
            printf("\\u%04x", (unsigned)(unsigned char)*s);
        else
            putchar(*s);
    }
    putchar('"');
}

static void print_json_field(const char *indent, const char *name, const char *value, const char *end)
{
    printf("%s\"%s\": ", indent, name);
    print_json_string(value);
    fputs(end, stdout);
}

static void print_json_list(const char *indent, const char *name, char **at, size_t count)
{
    printf("%s\"%s\": [", indent, name);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ", " : "", stdout);
        print_json_string(at[i]);
    }
    fputs("],\n", stdout);
}

/* One image, in the shape of Docker's. */
static void print_image(const cc_image_config *c)
{
    static const char outer[] = "        ", inner[] = "            ";
    printf("    {\n");
    print_json_field(outer, "Id", c->id, ",\n");
    print_json_list(outer, "RepoTags", c->names, c->names_count);
    print_json_field(outer, "Architecture", c->architecture, ",\n");
    print_json_field(outer, "Os", c->os, ",\n");
    printf("%s\"Config\": {\n", outer);
    print_json_field(inner, "User", c->user, ",\n");
    print_json_list(inner, "Env", c->env, c->env_count);
    print_json_list(inner, "Cmd", c->cmd, c->cmd_count);
    print_json_list(inner, "Entrypoint", c->entrypoint, c->entrypoint_count);
    print_json_field(inner, "WorkingDir", c->working_dir, "\n");
    printf("%s}\n    }", outer);
}

static int cmd_inspect(struct options *o, int count, char **args)
{
    int status = 0, shown = 0;
    if (count < 1)
        return usage("inspect takes images");
    if (!o->policy_given)
        o->pull.policy = CC_PULL_NEVER;
    printf("[");
    for (int i = 0; i < count; i++) {
        cc_instance_source source = 0;
        cc_image_config *config = NULL;
        cc_error err = {0};
        if (open_image(args[i], o, &source, &config, &err)) {
            status = fail(&err);
        } else {
            printf(shown++ ? ",\n" : "\n");
            print_image(config);
        }
        cc_image_config_free(config);
        cc_instance_source_free(source);
    }
    printf("%s]\n", shown ? "\n" : "");
    return status;
}

#endif
