/* Manifests, indexes, configurations, platforms and names: what is read from them and what is refused. */
#include "../check.h"

#include "../../src/image/config.h"
#include "../../src/image/reference.h"

#define HEX "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define DIGEST "sha256:" HEX
#define OCI "application/vnd.oci.image."
#define CONFIG "{\"mediaType\":\"" OCI "config.v1+json\",\"digest\":\"" DIGEST "\",\"size\":7}"
#define LAYER "{\"mediaType\":\"" OCI "layer.v1.tar+gzip\",\"digest\":\"" DIGEST "\",\"size\":32654}"
#define IMAGE                                                                                                          \
    "{\"schemaVersion\":2,\"mediaType\":\"" OCI "manifest.v1+json\",\"config\":" CONFIG ",\"layers\":[" LAYER "]}"

static struct cci_manifest m;
static struct cci_image_config c;
static cc_error err;

static cc_error_code parse(const char *text, enum cci_media expected)
{
    cci_error_release(&err);
    cci_manifest_free(&m);
    return cci_manifest_parse(&m, text, strlen(text), expected, &err);
}

static const char *refused(const char *text, enum cci_media expected)
{
    return parse(text, expected) && err.message ? err.message : "(accepted)";
}

static cc_error_code config(const char *text)
{
    cci_error_release(&err);
    cci_config_free(&c);
    return cci_config_parse(&c, text, strlen(text), &err);
}

static const char *config_refused(const char *text)
{
    return config(text) && err.message ? err.message : "(accepted)";
}

static void test_image_manifest(void)
{
    CHECK_OK(parse(IMAGE, CCI_MEDIA_IMAGE), err);
    CHECK_EQ_INT(m.media, CCI_MEDIA_IMAGE);
    CHECK_EQ_INT(m.count, 1);
    CHECK_EQ_INT(m.items[0].media, CCI_MEDIA_LAYER_GZIP);
    CHECK_EQ_INT(m.items[0].size, 32654);
    CHECK_EQ_STR(cci_digest_spell(&m.items[0].digest).text, DIGEST);
    CHECK_EQ_INT(m.config.size, 7);
    CHECK(!m.items[0].foreign);
}

static void test_index(void)
{
    CHECK_OK(parse("{\"schemaVersion\":2,\"manifests\":["
                   "{\"mediaType\":\"" OCI "manifest.v1+json\",\"digest\":\"" DIGEST "\",\"size\":1,"
                   "\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\",\"variant\":\"v8\"},"
                   "\"annotations\":{\"org.opencontainers.image.ref.name\":\"3.20\",\"io.containerd.image.name\":"
                   "\"docker.io/library/alpine:3.20\"}},"
                   "{\"digest\":\"" DIGEST "\",\"size\":2}]}",
                   CCI_MEDIA_UNKNOWN),
             err);
    CHECK_EQ_INT(m.media, CCI_MEDIA_INDEX);
    CHECK_EQ_INT(m.count, 2);
    CHECK_EQ_STR(m.items[0].tag, "3.20");
    CHECK_EQ_STR(m.items[0].name, "docker.io/library/alpine:3.20");
    CHECK_EQ_STR(cci_platform_spell(&m.items[0].platform).text, "linux/arm64");
    CHECK_EQ_STR(m.items[1].media_text, "");
    CHECK(m.items[1].tag == NULL);
}

static void test_docker_types(void)
{
    CHECK_OK(
        parse("{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\"config\":"
              "{\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"digest\":\"" DIGEST "\",\"size\":7},"
              "\"layers\":[{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\",\"digest\":\"" DIGEST
              "\",\"size\":1},{\"mediaType\":\"" OCI "layer.v1.tar+zstd\",\"digest\":\"" DIGEST
              "\",\"size\":1,\"urls\":[\"http://x\"]}]}",
              CCI_MEDIA_IMAGE),
        err);
    CHECK_EQ_INT(m.items[0].media, CCI_MEDIA_LAYER_GZIP);
    CHECK_EQ_INT(m.items[1].media, CCI_MEDIA_LAYER_ZSTD);
    CHECK_EQ_STR(m.items[1].media_text, OCI "layer.v1.tar+zstd");
    CHECK(m.items[1].foreign);
}

/* Docker pushed, and still pulls, manifests whose configuration is of no type in particular; as an OCI image that is
 * an artifact. */
static void test_old_docker_configs(void)
{
    static const char *const types[] = {"", "application/octet-stream", "application/json", "text/html"};
    static const char form[] =
        "{\"schemaVersion\":2,\"mediaType\":\"%s\",\"config\":{\"mediaType\":\"%s\",\"digest\":\"" DIGEST
        "\",\"size\":7},\"layers\":[" LAYER "]}";
    char text[1000];
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        (void)snprintf(text, sizeof(text), form, "application/vnd.docker.distribution.manifest.v2+json", types[i]);
        CHECK_OK(parse(text, CCI_MEDIA_IMAGE), err);
        (void)snprintf(text, sizeof(text), form, OCI "manifest.v1+json", types[i]);
        CHECK(strstr(refused(text, CCI_MEDIA_IMAGE), "no container image"));
    }
    (void)snprintf(text, sizeof(text), form, "application/vnd.docker.distribution.manifest.v2+json",
                   "application/vnd.docker.plugin.v1+json");
    CHECK(strstr(refused(text, CCI_MEDIA_IMAGE), "no container image"));
}

static void test_media_and_content_must_agree(void)
{
    CHECK(strstr(refused("{\"schemaVersion\":2,\"manifests\":[],\"layers\":[],\"config\":{}}", CCI_MEDIA_UNKNOWN),
                 "both"));
    CHECK(strstr(refused("{\"schemaVersion\":2,\"mediaType\":\"" OCI "index.v1+json\",\"config\":" CONFIG
                         ",\"layers\":[]}",
                         CCI_MEDIA_UNKNOWN),
                 "does not agree"));
    CHECK(strstr(refused(IMAGE, CCI_MEDIA_INDEX), "says otherwise"));
    CHECK(strstr(refused("{\"schemaVersion\":2,\"manifests\":[]}", CCI_MEDIA_IMAGE), "says otherwise"));
}

static void test_bad_manifests(void)
{
    CHECK(strstr(refused("{\"schemaVersion\":1,\"fsLayers\":[]}", CCI_MEDIA_UNKNOWN), "schema 1"));
    CHECK(strstr(refused("{\"config\":{}}", CCI_MEDIA_UNKNOWN), "schemaVersion"));
    CHECK(strstr(refused("{\"schemaVersion\":2}", CCI_MEDIA_UNKNOWN), "neither"));
    CHECK(strstr(refused("[]", CCI_MEDIA_UNKNOWN), "not an object"));
    CHECK(strstr(refused("{\"schemaVersion\":2,\"config\":" LAYER ",\"layers\":[]}", CCI_MEDIA_UNKNOWN),
                 "no container image"));
    CHECK(strstr(refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":{}}", CCI_MEDIA_UNKNOWN), "no array"));
    CHECK(
        strstr(refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[1]}", CCI_MEDIA_UNKNOWN), "no object"));
    CHECK(strstr(refused("{\"schemaVersion\":2,\"config\":{\"digest\":\"sha512:00\",\"size\":1},\"layers\":[]}",
                         CCI_MEDIA_UNKNOWN),
                 "\"sha512\"; only sha256"));
    CHECK(strstr(refused("{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:E3\",\"size\":1},\"layers\":[]}",
                         CCI_MEDIA_UNKNOWN),
                 "not valid"));
    CHECK(strstr(refused("{\"schemaVersion\":2,\"config\":{\"digest\":\"" DIGEST "\",\"size\":-1},\"layers\":[]}",
                         CCI_MEDIA_UNKNOWN),
                 "no valid size"));
    CHECK(
        strstr(refused("{\"schemaVersion\":2,\"config\":{\"digest\":\"" DIGEST "\"},\"layers\":[]}", CCI_MEDIA_UNKNOWN),
               "no valid size"));
}

/* A hundred thousand layers are refused before any is looked at. */
static void test_too_many_layers(void)
{
    char *text = malloc(1 << 20);
    size_t n = (size_t)sprintf(text, "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[0");
    for (int i = 0; i < 100000; i++)
        n += (size_t)sprintf(text + n, ",%d", i % 10);
    (void)sprintf(text + n, "]}");
    CHECK(strstr(refused(text, CCI_MEDIA_UNKNOWN), "100001 layers; at most 512"));
    free(text);
}

static void test_config(void)
{
    CHECK_OK(config("{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/"
                    "bin\",\"A=\"],\"Entrypoint\":[\"/e\"],"
                    "\"Cmd\":null,\"WorkingDir\":\"/"
                    "w\",\"User\":\"1000:1000\"},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST "\",\"" DIGEST
                    "\"]},\"history\":[{\"empty_layer\":true}]}"),
             err);
    CHECK_EQ_STR(c.platform.arch, "amd64");
    CHECK_EQ_INT(c.env.count, 2);
    CHECK_EQ_STR(c.env.at[1], "A=");
    CHECK(c.env.at[2] == NULL);
    CHECK_EQ_STR(c.entrypoint.at[0], "/e");
    CHECK(c.cmd.count == 0 && c.cmd.at[0] == NULL);
    CHECK_EQ_STR(c.working_dir, "/w");
    CHECK_EQ_STR(c.user, "1000:1000");
    CHECK_EQ_INT(c.layer_count, 2);
    CHECK_OK(config("{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":null}}"), err);
    CHECK_EQ_STR(c.user, "");
    CHECK_EQ_INT(c.layer_count, 0);
}

static void test_bad_configs(void)
{
    CHECK(strstr(config_refused("{}"), "no list of layers"));
    CHECK(strstr(config_refused("[1]"), "not an object"));
    CHECK(strstr(config_refused("{\"config\":[],\"rootfs\":{}}"), "not an object"));
    CHECK(strstr(config_refused("{\"config\":{\"Env\":{}},\"rootfs\":{}}"), "Env"));
    CHECK(strstr(config_refused("{\"config\":{\"Cmd\":[\"a\",1]},\"rootfs\":{}}"), "Cmd"));
    CHECK(strstr(config_refused("{\"config\":{\"User\":1},\"rootfs\":{}}"), "User"));
    CHECK(strstr(config_refused("{\"rootfs\":{\"type\":\"base\",\"diff_ids\":[]}}"), "no list of layers"));
    CHECK(strstr(config_refused("{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" HEX "\"]}}"), "not valid"));
    CHECK(strstr(config_refused("{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[null]}}"), "missing"));
}

static int fit(const char *have_arch, const char *have_variant, const char *want_arch, const char *want_variant)
{
    struct cci_platform have = cci_platform_make("linux", have_arch, have_variant);
    struct cci_platform want = cci_platform_make("linux", want_arch, want_variant);
    return cci_platform_fit(&have, &want);
}

static void test_platforms(void)
{
    CHECK_EQ_INT(fit("amd64", NULL, "x86_64", NULL), 2);
    CHECK_EQ_INT(fit("arm64", "v8", "aarch64", NULL), 2);
    CHECK_EQ_INT(fit("arm", "v6", "arm", NULL), 1);
    CHECK_EQ_INT(fit("arm", "v6", "arm/v6", NULL), 2);
    CHECK_EQ_INT(fit("arm", "v7", "arm", NULL), 2);
    CHECK_EQ_INT(fit("arm", "v6", "arm", "v7"), 1);
    CHECK_EQ_INT(fit("arm", "v5", "arm", "v6"), 0);
    CHECK_EQ_INT(fit("amd64", NULL, "arm64", NULL), 0);
    CHECK_EQ_INT(fit("unknown", NULL, "amd64", NULL), 0);
    struct cci_platform host = cci_platform_host(), windows = cci_platform_make("windows", host.arch, NULL);
    CHECK_EQ_INT(cci_platform_fit(&windows, &host), 0);
    struct cci_platform p = cci_platform_make("linux", "arm/v6", NULL);
    CHECK_EQ_STR(cci_platform_spell(&p).text, "linux/arm/v6");
}

static bool same(const char *want, const char *have)
{
    struct cci_reference r;
    return cci_reference_parse(want, &r) && cci_reference_matches(&r, have);
}

static void test_names(void)
{
    CHECK(same("alpine", "docker.io/library/alpine:latest"));
    CHECK(same("docker.io/library/alpine:latest", "alpine"));
    CHECK(same("index.docker.io/user/app:1", "user/app:1"));
    CHECK(same("localhost:5000/x", "localhost:5000/x:latest"));
    CHECK(same("app", "localhost/app:latest"));
    CHECK(same("3.20", "3.20"));
    CHECK(!same("docker.io/app", "localhost/app:latest"));
    CHECK(!same("alpine:3.20", "alpine"));
    CHECK(!same("ghcr.io/alpine", "alpine"));
    CHECK(!same("", "alpine"));
    CHECK(!same("alpine", ""));
    struct cci_reference r;
    CHECK(cci_reference_parse("a/b@" DIGEST, &r));
    CHECK_EQ_STR(r.name, "docker.io/a/b");
    CHECK_EQ_STR(r.digest, DIGEST);
    char longest[3000];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    CHECK(!cci_reference_parse(longest, &r));
    longest[CCI_REFERENCE_MAX / 2] = 0;
    CHECK(cci_reference_parse(longest, &r));
}

int main(void)
{
    RUN(test_image_manifest);
    RUN(test_index);
    RUN(test_docker_types);
    RUN(test_old_docker_configs);
    RUN(test_media_and_content_must_agree);
    RUN(test_bad_manifests);
    RUN(test_too_many_layers);
    RUN(test_config);
    RUN(test_bad_configs);
    RUN(test_platforms);
    RUN(test_names);
    cci_manifest_free(&m);
    cci_config_free(&c);
    cci_error_release(&err);
    return check_done();
}
