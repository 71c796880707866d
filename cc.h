/*
 * cc.h - pull an OCI image and run it as a Linux microVM inside this process.
 *
 * SPDX-License-Identifier: MIT
 *
 * HOW TO USE IT
 *
 *     In exactly one C file:              In every other file that needs it:
 *
 *         #define CC_IMPLEMENTATION           #include "cc.h"
 *         #include "cc.h"
 *
 *     cc app.c -lpthread
 *
 * That file must be C11 or newer; the declarations alone are also C99 and C++. There is no daemon, no
 * helper program and no build system. The program needs access to the hypervisor: on Linux a readable
 * and writable /dev/kvm (be in the group that owns it), no root.
 *
 * BUILD DEFINES (set them before the include that has CC_IMPLEMENTATION, and CC_STATIC before all)
 *
 *     CC_IMPLEMENTATION   compile the library here
 *     CC_STATIC           every function is static: the library is private to this one file
 *     CC_API              your own linkage for every public function (for example a dllexport)
 *     CC_NO_TLS           leaves out TLS (BearSSL, about 80 kB): registries that need HTTPS cannot be used, and no
 *                         kernel is fetched. In a checkout TLS comes from an installed BearSSL: add -lbearssl. A
 *                         program that uses BearSSL itself keeps CC_IMPLEMENTATION in a source file of its own.
 *     CC_WITH_ZSTD        reads images whose layers are compressed with zstd, by libzstd: add -lzstd. A layer that
 *                         is being read then takes as much memory as it asks for, up to 128 MiB, from malloc.
 *                         Without it such an image is an error that says so
 *     CC_EMBED_KERNEL     the name of an array of bytes, declared before the include: a guest kernel image inside the
 *                         program, used when neither the options nor $CC_KERNEL name one. It comes without modules
 *
 * ENVIRONMENT
 *
 *     CC_KERNEL           the guest kernel when cc_instance_options.kernel is NULL: a kernel image, or a
 *                         directory with "vmlinux" or "vmlinuz" and, for a kernel with modules, "modules".
 *                         cc_instance_options.kernel says where one is looked for when this is not set, either
 *     CC_KERNEL_MIRROR    where a kernel is fetched from when there is none: the URL of a repository of Alpine Linux's
 *                         form, as a line of its /etc/apk/repositories; https, or http to loopback. Not set:
 *                         https://dl-cdn.alpinelinux.org/alpine/v3.24/main. "off": nothing is fetched
 *     CC_KERNEL_KEY       a PEM file with the public keys that may sign that repository, for one that is not Alpine's
 *                         or a copy of it. Not set: the key of Alpine's builders, which is in this library
 *     CC_CACHE_DIR        the default cache directory (else $XDG_CACHE_HOME/cc.h, else ~/.cache/cc.h)
 *
 * RULES THAT HOLD FOR EVERY CALL
 *
 *   Errors   Every call that can fail returns a cc_error_code and takes a `cc_error *err` last. `err` may
 *            be NULL. What *err held before is not looked at. On success it is all zero; on failure it is
 *            filled, and cc_error_free releases it (before it is used again, or its strings are lost).
 *            `message` says what failed and what to do about it.
 *   Out      Results are written through pointers, on success only; on failure they are set to zero.
 *   NULL     A NULL result pointer or a NULL required string is CC_ERR_INVALID_ARGUMENT.
 *   Strings  Input strings are copied: they may be freed as soon as the call returns. Strings that the
 *            library returns are freed with cc_free_string, byte buffers with cc_free_bytes, arrays of
 *            strings with cc_free_string_array.
 *   Structs  Structs that you fill are valid when zeroed, and zero always means "the default". New fields
 *            are added at the end.
 *   Handles  64-bit numbers, never pointers. 0 is no handle. A handle that is zero, foreign, freed or of
 *            another kind gives CC_ERR_INVALID_HANDLE; one that was closed gives CC_ERR_ALREADY_CLOSED.
 *   Threads  Every call may be made from any thread at any time, also on the same handle and also while
 *            another thread closes it.
 *   Blocking A call that waits ends when its work ends, its deadline passes (CC_ERR_TIMEOUT), its cancel
 *            token fires (CC_ERR_CANCELLED) or its instance dies or is closed (CC_ERR_NOT_RUNNING). A call
 *            that takes no token and has no deadline (the cc_fs_ calls, say) waits for as long as the guest
 *            takes: cc_instance_options.timeout_seconds or a close from another thread ends it.
 *   Manners  No signal handlers, no change of directory, umask, locale or environment; every descriptor is
 *            close-on-exec; nothing is written to stdout; stderr only where this header says so. The
 *            program may fork: the child has none of the library's threads and must not call it.
 */
#ifndef CC_H
#define CC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CC_VERSION_MAJOR 0
#define CC_VERSION_MINOR 1
#define CC_VERSION_PATCH 0
#define CC_VERSION_STRING "0.1.0"

#ifndef CC_API
#ifdef CC_STATIC
#define CC_API static
#else
#define CC_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== Handles ======================================================================================== */

typedef uint64_t cc_handle;

#define CC_INVALID_HANDLE 0

typedef cc_handle cc_oci_client;      /* an image cache, and the way to registries */
typedef cc_handle cc_instance_source; /* an image that instances can be made from */
typedef cc_handle cc_instance;        /* a virtual machine */
typedef cc_handle cc_cmd;             /* a command to run in an instance */
typedef cc_handle cc_write_pipe;      /* to a command's standard input */
typedef cc_handle cc_read_pipe;       /* from a command's standard output or standard error */
typedef cc_handle cc_file;            /* an open file in an instance */
typedef cc_handle cc_watch;           /* what happens to a file in an instance */
typedef cc_handle cc_conn;            /* a connection: bytes both ways */
typedef cc_handle cc_listener;        /* where connections arrive */
typedef cc_handle cc_cancel_token;    /* ends waiting calls from another thread */

/* ==== Errors ========================================================================================= */

typedef enum {
    CC_OK = 0,
    CC_ERR_INVALID_HANDLE = 1,         /* zero, foreign, freed, or a handle of another kind */
    CC_ERR_INVALID_ARGUMENT = 2,       /* a parameter is out of its range, or a required one is NULL */
    CC_ERR_NOT_RUNNING = 3,            /* the instance has ended, or ended during the call */
    CC_ERR_ALREADY_CLOSED = 4,         /* the handle was closed before */
    CC_ERR_TIMEOUT = 5,                /* a deadline passed */
    CC_ERR_HYPERVISOR_UNAVAILABLE = 6, /* no usable hypervisor; the message says why and what to do */
    CC_ERR_IO = 7,                     /* a file, an image, the guest's operating system; see sys_errno */
    CC_ERR_NETWORK = 8,                /* a connection or a registry */
    CC_ERR_CANCELLED = 9,              /* a cancel token fired */
    CC_ERR_UNKNOWN = 99                /* out of memory, or a failure that fits nothing above */
} cc_error_code;

typedef struct {
    cc_error_code code;
    char *message; /* what failed and what to do; NULL when there was no memory for it */
    char *op;      /* the call in short form, such as "load_tar"; may be NULL */
    char *path;    /* the file, image reference or address involved; may be NULL */
    int sys_errno; /* the operating system's error number, the host's or the guest's; 0 if none */
} cc_error;

/* Releases what an error holds and zeroes it. NULL and an already zero error are fine. */
CC_API void cc_error_free(cc_error *err);

/* Releases a string that the library returned. NULL is fine. */
CC_API void cc_free_string(char *str);

/* Releases a byte buffer that the library returned. NULL is fine. */
CC_API void cc_free_bytes(uint8_t *buf);

/* Releases an array of `count` strings that the library returned, and the strings. NULL is fine. */
CC_API void cc_free_string_array(char **array, size_t count);

/* ==== The library ==================================================================================== */

/*
 * Where the library's memory comes from. One function does it all, as realloc does: `old` NULL allocates, `size` 0
 * frees (and returns NULL), otherwise the block is resized. It is called from any thread and may return NULL.
 */
typedef struct {
    void *(*realloc_fn)(void *ctx, void *old, size_t size);
    void *ctx; /* handed to every call */
} cc_allocator;

/*
 * Sets the allocator; NULL sets the C library's again. Call it before the first cc_init, or after the last
 * cc_shutdown: in between it is CC_ERR_INVALID_ARGUMENT and changes nothing. Free what the library returned before,
 * errors included, with the allocator that it came from.
 */
CC_API cc_error_code cc_set_allocator(const cc_allocator *allocator, cc_error *err);

typedef enum {
    CC_LOG_INFO = 2, /* what the library does: the kernel that an instance starts with, and its download */
    CC_LOG_DMESG = 3 /* a line of a guest's kernel, of instances with enable_dmesg */
} cc_log_level;

/* One line, without a newline; it is the library's and valid during the call. A guest's line may hold any byte but NUL
 * and newline. Called from any thread, also from several at once, and the guest stands still meanwhile; it must not
 * call back into the library. */
typedef void (*cc_log_callback)(cc_log_level level, const char *line, void *user_data);

/*
 * Sets where log lines go; NULL sets the default again: kernel lines to stderr, all others nowhere. May be called at
 * any time; lines under way may still reach the earlier callback.
 */
CC_API void cc_set_log_callback(cc_log_callback callback, void *user_data);

/*
 * Prepares the library; always CC_OK. Before it only cc_set_allocator, cc_set_log_callback, the version calls and
 * those that free memory are of use: calls that make a handle or ask the host fail with CC_ERR_INVALID_ARGUMENT, and
 * no handle is valid. Calls are counted: each wants its cc_shutdown.
 */
CC_API cc_error_code cc_init(void);

/*
 * The last of as many calls as there were of cc_init closes every instance and frees every handle, and returns when the
 * calls of other threads have ended, too: those that wait for an instance do so at once with CC_ERR_NOT_RUNNING, others
 * (cc_oci_client_load_tar, say) when their work is done. The library can then be initialised again; old handles stay
 * invalid. One call too many does nothing.
 */
CC_API void cc_shutdown(void);

/* The version of the library compiled in, such as "0.1.0" (CC_VERSION_STRING at that time). Static; do not free. */
CC_API const char *cc_api_version(void);

/* Whether a program written for version major.minor works with this library: same major, and not a newer minor. */
CC_API bool cc_api_version_compatible(int major, int minor);

/* The version of the protocol between the library and the agent in the guest. Both are in this file, so it only tells
 * builds apart. */
CC_API uint32_t cc_guest_protocol_version(void);

/*
 * Whether virtual machines can run here: CC_OK, or CC_ERR_HYPERVISOR_UNAVAILABLE with a message that says what is
 * missing and what to do. It finds out by running a few instructions in a small virtual machine (milliseconds), since
 * some systems have a hypervisor device that cannot run a real kernel. The first answer is kept until cc_shutdown.
 */
CC_API cc_error_code cc_supports_hypervisor(cc_error *err);

typedef struct {
    bool hypervisor_available;
    const char *hypervisor;   /* "kvm"; static */
    const char *architecture; /* of guests, as images name it: "amd64" or "arm64"; static */
    uint64_t max_memory_mb;   /* that one instance can be given: what this host has */
    int max_cpus;             /* that one instance can be given; 0 without a hypervisor */
} cc_capabilities;

/* Fills *out. Not an error where there is no hypervisor: hypervisor_available is then false. */
CC_API cc_error_code cc_query_capabilities(cc_capabilities *out, cc_error *err);

/* ==== Cancel tokens (Go's context.CancelFunc) ========================================================= */

/*
 * A token, once cancelled, ends every call that waits under it, now or later, with CC_ERR_CANCELLED. One token may
 * serve any number of calls. Free it with cc_cancel_token_free.
 */
CC_API cc_error_code cc_cancel_token_new(cc_cancel_token *out, cc_error *err);

/* Cancels: for good, and from any thread. A second time does nothing. */
CC_API cc_error_code cc_cancel_token_cancel(cc_cancel_token token, cc_error *err);

/* False also for a handle that is no token. */
CC_API bool cc_cancel_token_is_cancelled(cc_cancel_token token);

/* Frees it without cancelling: calls that wait under it go on waiting, now without a token. 0 is fine. */
CC_API void cc_cancel_token_free(cc_cancel_token token);

/* ==== Images ========================================================================================= */

/*
 * Opens the default cache directory: $CC_CACHE_DIR, else $XDG_CACHE_HOME/cc.h, else $HOME/.cache/cc.h; it is made if
 * it is not there. Any number of clients and processes may use one directory at the same time. Free the client with
 * cc_oci_client_free.
 */
CC_API cc_error_code cc_oci_client_new(cc_oci_client *out, cc_error *err);

/* The same with a directory of your choice. */
CC_API cc_error_code cc_oci_client_new_with_cache(const char *cache_dir, cc_oci_client *out, cc_error *err);

/* Sources that came from the client stay usable. A bad handle is left alone, here and in the other calls that free. */
CC_API void cc_oci_client_free(cc_oci_client client);

/* The absolute path of the client's cache directory; free it with cc_free_string. NULL for a bad handle. */
CC_API char *cc_oci_client_cache_dir(cc_oci_client client);

typedef enum {
    CC_PULL_IF_NOT_PRESENT = 0, /* ask the registry only for what the cache lacks */
    CC_PULL_ALWAYS = 1,         /* ask whether the reference still means the same image */
    CC_PULL_NEVER = 2           /* the cache or nothing */
} cc_pull_policy;

typedef struct {
    const char *platform_os;   /* NULL: "linux", the only one that runs */
    const char *platform_arch; /* as images name it, "amd64", "arm64", "arm64/v8"; NULL: this host's */
    const char *username;      /* for the registry; NULL: what Docker's configuration says. Pull only */
    const char *password;      /* the same */
    cc_pull_policy policy;     /* pull only */
    cc_cancel_token cancel;    /* ends the call early; 0: none */
    double timeout_seconds;    /* how long a pull may take; 0: as long as it moves. What has come is kept */
    const char *ca_file; /* certificate authorities (PEM) to believe besides the system's; NULL: none. Pull only */
    bool allow_http;     /* a registry that cannot do TLS may be asked without; on this host it always may. Pull only */
} cc_pull_options;

/* How far a pull is. Only what has to be fetched counts: layers that the cache has are not in it. */
typedef struct {
    int64_t current;         /* bytes fetched so far, of all layers, those from an earlier pull that broke included */
    int64_t total;           /* bytes to fetch, of all layers; -1: not known */
    const char *filename;    /* the digest of the layer that bytes came for last; "" when there is none to fetch.
                                Valid during the call */
    int blob_index;          /* its number among those to fetch, from 0 */
    int blob_count;          /* layers to fetch */
    double bytes_per_second; /* over the last seconds */
    double eta_seconds;      /* time that the rest takes at that speed; -1: not known */
} cc_download_progress;

/* Called on the thread that called the pull, at most 20 times a second, and once at the end of one that succeeded, with
 * current equal to total. It may call the library; it holds the caller up, but not the download. */
typedef void (*cc_progress_callback)(const cc_download_progress *progress, void *user_data);

/*
 * Pulls an image from a registry, as `docker pull` does: "alpine", "user/app:1", "ghcr.io/org/app@sha256:...",
 * "localhost:5000/app". What is left out is docker.io, library/ and latest. `opts` and `progress_cb` may be NULL.
 *
 * Layers come several at a time and go straight into the cache, where every digest is checked; those that the cache has
 * are not fetched. A connection that breaks goes on where it stopped, and so does a pull after one that was cancelled
 * or killed. Several pulls of the same image at once, also by several processes, share the work. By policy:
 *
 *   CC_PULL_IF_NOT_PRESENT  one that was pulled before, for the same platform, opens with no network
 *   CC_PULL_ALWAYS          the registry is asked (one request) whether the tag has moved
 *   CC_PULL_NEVER           no network; the message tells an image that was never pulled ("not in the cache") from one
 *                           of which something is missing ("no longer whole in the cache")
 *
 * A reference with a digest always means the same, so one that is in the cache never asks the network.
 *
 * User name and password come from `opts`, or, when the registry asks for them, from $DOCKER_CONFIG/config.json, else
 * ~/.docker/config.json: credential helpers (docker-credential-NAME in PATH) or what `docker login` wrote. What a
 * registry accepted, a password or a token that has not run out, is kept in memory with the client: the next pull from
 * the same repository, as the same user (without a user name: with the same config.json), says it at once.
 *
 * HTTPS_PROXY, HTTP_PROXY and NO_PROXY are looked at. A server's certificate must come from an authority that the
 * system trusts (on Linux: the distribution's PEM bundle) or that a PEM file has: $SSL_CERT_FILE names one to take in
 * the system's place, opts->ca_file one to believe besides.
 *
 * Errors: CC_ERR_INVALID_ARGUMENT for a reference that is none, and which part of it; CC_ERR_NETWORK for connections,
 * certificates, and what the registry refuses; CC_ERR_IO for an image that is damaged, not supported, or not for the
 * platform, for a full disk, and by CC_PULL_NEVER. Free *out with cc_instance_source_free.
 */
CC_API cc_error_code cc_oci_client_pull(cc_oci_client client, const char *image_ref, const cc_pull_options *opts,
                                        cc_progress_callback progress_cb, void *progress_user_data,
                                        cc_instance_source *out, cc_error *err);

/*
 * Loads an image from a tar file: what `docker save`, podman, skopeo and buildah write (docker-archive), or an OCI
 * image layout in a tar. Either one may be compressed, and so may each layer in it: with gzip or, with CC_WITH_ZSTD,
 * with zstd. Layers that the cache has already are not read again.
 *
 * `tar_path` may be followed by a colon and a reference, "images.tar:alpine:3.20", to choose among several images;
 * without one, a file with several is an error that lists them, unless the platform decides. `opts` may be NULL.
 *
 * Every digest is checked. A file that is damaged, cut short, or holds names that lead out of the image is
 * CC_ERR_IO, and leaves nothing behind in the cache. Free *out with cc_instance_source_free.
 */
CC_API cc_error_code cc_oci_client_load_tar(cc_oci_client client, const char *tar_path, const cc_pull_options *opts,
                                            cc_instance_source *out, cc_error *err);

/*
 * Loads an image from a directory. One with a file "oci-layout" in it is an OCI image layout, as skopeo, umoci, buildah
 * and cc_oci_client_export_dir write it, and is read like a tar of one; `dir_path` may be followed by a colon and a
 * reference.
 *
 * Any other directory is taken for a root filesystem: its files become an image of one layer, for the platform of
 * `opts`, whose configuration has nothing but a PATH. Owners, modes, times, extended attributes, devices, links and
 * holes are those of the host; sockets are left out. The caller must be allowed to read all of it. A tree that did not
 * change gives the same image again, and is read each time.
 *
 * As with load_tar, an image that has names ("docker.io/library/app:1", not merely a tag) is remembered under them:
 * cc_oci_client_list shows it, and cc_oci_client_pull finds it. Free *out with cc_instance_source_free.
 */
CC_API cc_error_code cc_oci_client_load_dir(cc_oci_client client, const char *dir_path, const cc_pull_options *opts,
                                            cc_instance_source *out, cc_error *err);

/*
 * Writes an image to a directory as an OCI image layout, which other tools read: skopeo copy oci:DIR ..., umoci unpack
 * --image DIR:TAG. The directory is made, or must be empty; nothing is written outside of it. Its parent must be there.
 * TAG is that of the image's name, "latest" if it has none. After a failure nothing is left behind.
 *
 * The image's configuration, and so its ID, and the layers' diffIDs are always kept. An image that was pulled repeats
 * its digests exactly while the cache has its compressed layers; of one that was loaded from a file, or whose
 * compressed layers were pruned, the layers are written as plain tars, under a manifest of their own. A manifest in
 * Docker's format becomes one in OCI's.
 */
CC_API cc_error_code cc_oci_client_export_dir(cc_oci_client client, cc_instance_source source, const char *dir_path,
                                              cc_error *err);

/* An image in the cache. */
typedef struct {
    char *reference;        /* in full: "docker.io/library/alpine:3.20" */
    char *platform;         /* that it was got for: "linux/amd64" */
    char *digest;           /* of its manifest, "sha256:..." */
    char *id;               /* of its configuration, "sha256:..." */
    uint64_t size;          /* bytes that its layers take on disk; images that share a layer each count it */
    int64_t last_used_unix; /* when it was got or last opened by this reference; seconds since 1970 */
    bool complete;          /* false: something of it is missing from the cache */
    char *ref_digest;       /* what the registry has by that reference, which `docker pull` prints: the digest of the
                               index when there is one, else of the manifest */
} cc_image_info;

/* The images in the cache, sorted by reference, as an array of *count; free it with cc_image_info_free. */
CC_API cc_error_code cc_oci_client_list(cc_oci_client client, cc_image_info **out, size_t *count, cc_error *err);

/* Releases an array from cc_oci_client_list. NULL is fine. */
CC_API void cc_image_info_free(cc_image_info *images, size_t count);

/*
 * Forgets an image: by its reference, as a pull takes it, for every platform; or by its digest or ID, with every
 * reference to it, of which the first twelve digits are enough. One that is not in the cache is CC_ERR_IO with
 * sys_errno ENOENT (2). Its files stay until cc_oci_client_prune; sources and instances made from it go on.
 */
CC_API cc_error_code cc_oci_client_remove(cc_oci_client client, const char *image_ref, cc_error *err);

typedef struct {
    uint64_t bytes_freed; /* on disk */
    size_t layers_removed;
    size_t blobs_removed;
    size_t references_removed; /* of images that were not complete */
    bool blobs_busy;           /* a pull or load was under way, so blobs were left alone: prune again later */
} cc_prune_result;

/*
 * Removes from the cache all that no reference leads to: layers, blobs, unfinished downloads, filesystem metadata, and
 * references to images that are not complete. What pulls, sources and instances of any process use is left alone. `out`
 * may be NULL.
 */
CC_API cc_error_code cc_oci_client_prune(cc_oci_client client, cc_prune_result *out, cc_error *err);

/* Instances that were made from it go on. */
CC_API void cc_instance_source_free(cc_instance_source source);

/* What an image says about how to run it. Arrays end with a NULL that the count leaves out; strings are never NULL. */
typedef struct {
    char *architecture; /* "amd64", "arm64" */
    char **env;         /* "KEY=VALUE" */
    size_t env_count;
    char *working_dir; /* "" when the image names none */
    char **entrypoint;
    size_t entrypoint_count;
    char **cmd;
    size_t cmd_count;
    char *user;   /* "" when the image names none: root */
    char **names; /* references in full, "docker.io/library/alpine:3.20": the one it was pulled by, or those in the file
                     that it was loaded from; none when that has none */
    size_t names_count;
    char *id; /* digest of the configuration itself, "sha256:..." */
    char *os; /* "linux"; "" when the image names none */
} cc_image_config;

/* A copy of the image's configuration; free it with cc_image_config_free. */
CC_API cc_error_code cc_source_get_config(cc_instance_source source, cc_image_config **out, cc_error *err);

/* NULL is fine. */
CC_API void cc_image_config_free(cc_image_config *config);

/* ==== Instances ====================================================================================== */

/*
 * A host directory in the guest (virtio-fs). Files are the host's own, read and written in place.
 *
 * Read-only unless `writable`; that is enforced on the host, whatever the guest does. The guest reaches nothing outside
 * of the directory: links are followed in the guest only, and devices, FIFOs and sockets are shown but never opened on
 * the host. File systems mounted below the directory are part of it. The guest cannot make device nodes.
 *
 * Owners. By default every file belongs to `uid` and `gid` in the guest, and what the guest makes belongs to the user
 * that this process runs as, with the modes that the guest asked for. chown to anybody else is refused (EPERM),
 * set-user-ID and set-group-ID bits of files are neither shown nor set, and go from a file that is opened for writing;
 * of extended attributes only "user." ones are there. What that user may not do on the host, the guest's root may not
 * either. With `keep_owners`, for which this process must be root, numbers of owners are the same on both sides, and
 * all of this passes.
 *
 * Changes on the host are seen in the guest within one second; opening a file sees its contents as they are at that
 * time. What the guest writes is there on the host when its write returns, except what it writes through a shared
 * memory mapping (msync). fsync makes it durable. File locks hold among the programs of the guest. Changes on the host
 * are not reported by inotify in the guest.
 *
 * What a guest can make this process hold for each mount: about half a KiB for each KiB of its memory, for names that
 * it has looked up; and all mounts of an instance together at most three quarters of the descriptors that the process
 * may have (RLIMIT_NOFILE; at least 32 for each mount). Four threads for each mount, which cc_instance_close waits for.
 */
typedef struct {
    const char *tag;        /* what the guest can mount it by: `mount -t virtiofs TAG /mnt`; 1 to 36 bytes, each once.
                               NULL: "share0" for the first mount, and so on; then guest_path must be set */
    const char *host_path;  /* an existing directory; it must stay where it is. NULL: an empty, writable one of the
                               instance's own, in the cache directory, removed when the instance is closed */
    bool writable;          /* ignored without host_path */
    const char *guest_path; /* where the guest mounts it before the first command runs; begins with "/", has no
                               "..", is not "/" nor another's, and is made if it is not there. In the order of the
                               array. NULL: nowhere, only by its tag */
    bool keep_owners;       /* see above */
    uint32_t uid, gid;      /* the guest's owner of all files, unless keep_owners; 0: root */
} cc_mount_config;

/*
 * Where an instance is in its life. created, starting, running are passed once, in this order; stopped and failed are
 * final.
 */
typedef enum {
    CC_STATE_CREATED = 0,  /* has a handle, and nothing else yet */
    CC_STATE_STARTING = 1, /* its guest boots: cc_instance_new is under way */
    CC_STATE_RUNNING = 2,
    CC_STATE_PAUSING = 3,
    CC_STATE_PAUSED = 4,
    CC_STATE_RESUMING = 5,
    CC_STATE_STOPPING = 6, /* it was told to stop, its time-out passed, or it is being closed */
    CC_STATE_STOPPED = 7,  /* it ended as it was told to, or its guest switched itself off or rebooted */
    CC_STATE_FAILED = 8    /* it could not start, or its guest died: cc_instance_end_reason tells of what */
} cc_instance_state;

/*
 * Told of each change of an instance's state: of every one, in order, and one after the other, on a thread of its own,
 * so it may take its time. It may call the library, but neither cc_instance_close for its own instance (which is
 * CC_ERR_INVALID_ARGUMENT then) nor cc_shutdown: these wait for it. By the time it is called the instance may be
 * further on. While the instance is being closed, `inst` is already a closed handle.
 */
typedef void (*cc_state_callback)(cc_instance inst, cc_instance_state state, void *user_data);

/* Takes what a command printed, or a console; false: it wants no more, and a command's stream is closed for it. */
typedef bool (*cc_output_callback)(const uint8_t *data, size_t len, void *user_data);

/*
 * A disk for the guest: a file, or a block device, of the host, byte for byte; its format is never looked at. Its size
 * has to be a multiple of 512 bytes. In the guest the first is /dev/vdc, the next /dev/vdd, in the order of the array;
 * nothing mounts them. What the guest discards becomes holes in a file, and what it flushes is on the host's disk.
 *
 * A disk that is written to has one user, and one that is read has no writer: where somebody else, QEMU included, has
 * it open otherwise, cc_instance_new fails with CC_ERR_IO and sys_errno EBUSY (16). Filesystems without locks cannot
 * tell.
 */
typedef struct {
    const char *path;
    bool writable;    /* else the guest cannot write to it, and the file is opened for reading only */
    const char *name; /* 1 to 20 bytes: the disk's serial number, in the guest /sys/block/vdc/serial; NULL: "disk0",
                         "disk1" and so on */
} cc_disk_config;

#define CC_MAX_DISKS 14 /* that one instance can have: each takes one of the machine's interrupt lines */

typedef struct {
    uint64_t memory_mb;     /* the guest's RAM in MiB; 0: 256; 64 to 1048576. Taken from the host as it is touched */
    int cpus;               /* virtual CPUs; 0: 1; at most cc_capabilities.max_cpus */
    double timeout_seconds; /* the instance is stopped at once so long after it has started, time in which it is
                               paused included, time in which the host sleeps not; 0: never */
    const char *user;       /* who commands run as: "uid", "uid:gid", "name", "name:group"; NULL: the image's choice;
                               "": root */
    bool enable_gpu;        /* not in this version: must be false */
    bool enable_dmesg;      /* send the kernel's messages to the log callback, by default to stderr */
    const cc_mount_config *mounts; /* directories of the host; NULL with mount_count 0 */
    size_t mount_count;            /* a guest has room for 19 devices; 5 it has anyway, each mount is one more */
    const char *kernel; /* the guest kernel, as $CC_KERNEL. NULL: the first of $CC_KERNEL, CC_EMBED_KERNEL, "kernel" in
                           the client's cache directory, a download into that, a readable /boot/vmlinuz-* of this
                           host. The download, some 40 MB once for each cache, is the package linux-virt of
                           $CC_KERNEL_MIRROR, and is verified by the repository's signature: so it is one that was
                           published there, though a mirror could offer an old one. To have a newer one fetched,
                           remove "kernel" from the cache */
    double boot_timeout_seconds; /* how long the guest may take to start, once it has a kernel; 0: 60. The error has
                                    its last messages */
    uint64_t disk_mb;            /* size of the guest's writable disk in MiB; 0: 16384. It is sparse: only what is
                                    written takes space, and only while the instance lives. 16 to 16777216 */
    const char *disk_dir;        /* where that disk's file lies; NULL: the cache directory */
    cc_cancel_token cancel;      /* ends cc_instance_new early; 0: none */
    cc_state_callback state_callback;    /* told of every change of state, from CC_STATE_STARTING on; NULL: nobody */
    void *state_user_data;               /* handed to it */
    const cc_disk_config *disks;         /* disks of yours; NULL: none */
    size_t disk_count;                   /* at most CC_MAX_DISKS */
    cc_output_callback console_callback; /* is given what the guest sends to its console; see below. NULL: nobody is */
    void *console_user_data;             /* handed to it */
    int console_fd; /* the same goes to this descriptor instead, which is duplicated; 0: to none, so not to standard
                       input either */
} cc_instance_options;

/*
 * The console is the guest's serial port, /dev/ttyS0 and /dev/console there: the kernel prints on it (little, unless
 * enable_dmesg), the workload of cc_instance_exec has it as its streams, and programs may open it. What is sent there
 * comes as it is, escape sequences included, from the first instruction of the guest on; the callback is called on a
 * thread of its own, one call at a time, and may call the library, but not close its own instance. It returns false
 * when it wants no more. A close returns when the callback was given all there was; a descriptor gets then what it
 * takes without waiting, and one that fails gets no more.
 *
 * A callback or descriptor that falls more than 16 KiB behind makes the guest's programs wait, as on a slow line.
 * The kernel's own messages do not wait, and are lost here when they get another 16 KiB ahead; the log, and the last
 * messages in errors, have them in any case.
 */

/*
 * Starts a virtual machine with the image as its root filesystem, and returns when it takes commands. The image is
 * never written to: what the guest writes goes to a disk of its own, which is gone after close. Nothing of the image
 * runs by itself. `opts` may be NULL. Close the instance with cc_instance_close.
 *
 * Errors: CC_ERR_HYPERVISOR_UNAVAILABLE as cc_supports_hypervisor; CC_ERR_INVALID_ARGUMENT also for an image of
 * another architecture than this host's; CC_ERR_IO when there is no kernel (the message says why none could be
 * fetched), no disk space, or the image cannot be read; CC_ERR_TIMEOUT or CC_ERR_NOT_RUNNING, with the kernel's last
 * messages, when the guest hangs or dies in starting; CC_ERR_CANCELLED.
 */
CC_API cc_error_code cc_instance_new(cc_instance_source source, const cc_instance_options *opts, cc_instance *out,
                                     cc_error *err);

/*
 * Ends the instance at once, as if its power were cut, and frees it with its commands. Calls of other threads on it
 * end with CC_ERR_NOT_RUNNING, but cc_instance_wait with CC_OK; close returns when they have. A second close is
 * CC_ERR_ALREADY_CLOSED.
 */
CC_API cc_error_code cc_instance_close(cc_instance inst, cc_error *err);

/* Waits until the instance has ended, by itself, by its timeout or by a close; that is CC_OK. */
CC_API cc_error_code cc_instance_wait(cc_instance inst, cc_error *err);

/* The same under a cancel token; 0: none. */
CC_API cc_error_code cc_instance_wait_with(cc_instance inst, cc_cancel_token cancel, cc_error *err);

/*
 * Makes a command what the instance is for: its workload, as an image's main program is docker's. It starts as one made
 * with cc_cmd_new does (`name` NULL: cc_cmd_entrypoint), but its standard streams are the guest's console, and when its
 * process has ended, the instance does too, whatever else still runs in it. Returns when the program runs, or with
 * cc_cmd_start's errors when it cannot be started; then another try may be made. An instance has one workload, and
 * takes other commands meanwhile.
 */
CC_API cc_error_code cc_instance_exec(cc_instance inst, const char *name, const char *const *args, cc_error *err);

/* Sends a signal, by Linux's number, to the process group of the workload (kill(2)); 0 only asks whether there is one.
 * CC_ERR_IO with sys_errno ESRCH (3) when it has ended; CC_ERR_INVALID_ARGUMENT when there never was one. */
CC_API cc_error_code cc_instance_signal(cc_instance inst, int sig, cc_error *err);

/* How the workload ended: 0 to 255 is its own code, 128 + N that signal N killed it. It is known once cc_instance_wait
 * has returned; until then, when the instance ended otherwise, without a workload, or for a bad handle: -1. */
CC_API int cc_instance_exit_code(cc_instance inst);

/*
 * Stops the guest's CPUs where they are, and returns when they stand. Its memory stays, and so do its connections; what
 * its devices were at is finished. Calls that need the guest wait until it goes on, their deadline passes, their token
 * fires, or the instance ends. Only for an instance that is running: else CC_ERR_INVALID_ARGUMENT, or
 * CC_ERR_NOT_RUNNING when it has ended or a stop comes in between.
 */
CC_API cc_error_code cc_instance_pause(cc_instance inst, cc_error *err);

/*
 * Lets a paused instance go on. The time of the pause has not passed for the guest's monotonic clock (on a host kernel
 * before 5.16 it may have), and its time of day is set to the host's. Only for one that is paused, as above.
 */
CC_API cc_error_code cc_instance_resume(cc_instance inst, cc_error *err);

/*
 * Asks the instance to stop, and returns at once: SIGTERM goes to the process group of the workload or, with none, to
 * those of all commands that run; SIGKILL to those that are left after `grace_seconds` (0: at once; at most 86400).
 * When they have ended the guest writes its disks back and switches off: cc_instance_wait waits for that. Called again,
 * it can shorten the grace, not lengthen it. A paused instance is resumed for it. A guest that is still there 30
 * seconds after the grace has its power cut, and has failed. An instance that has not started yet is
 * CC_ERR_INVALID_ARGUMENT.
 */
CC_API cc_error_code cc_instance_request_stop(cc_instance inst, double grace_seconds, cc_error *err);

/* Where the instance is in its life. */
CC_API cc_error_code cc_instance_get_state(cc_instance inst, cc_instance_state *out, cc_error *err);

/*
 * Sets who is told of changes of state from now on, in place of the one set before; NULL: nobody. When it returns, the
 * earlier one has been told of every change so far and is not called again; so it waits for one that is running, except
 * when called by it. cc_instance_close returns after the last change was told.
 */
CC_API cc_error_code cc_instance_set_state_callback(cc_instance inst, cc_state_callback callback, void *user_data,
                                                    cc_error *err);

/*
 * Why an instance ended that is CC_STATE_STOPPED or CC_STATE_FAILED, in words: "the guest switched itself off", or, of
 * one that died, what it died of and the last messages of its kernel; the same that calls on it fail with. Free it with
 * cc_free_string. NULL while it has not ended, and for a bad handle.
 */
CC_API char *cc_instance_end_reason(cc_instance inst);

/*
 * A descriptor for poll, select or epoll that becomes readable when the instance has ended, as cc_instance_wait returns
 * then, and stays so whatever is read from it (a byte, then end of file). It is the caller's, to be closed by close(2);
 * each call makes a new one, close-on-exec. It keeps its meaning when the instance is closed.
 */
CC_API cc_error_code cc_instance_done_fd(cc_instance inst, int *out, cc_error *err);

/*
 * Sends to the guest's console, as if typed on its keyboard: a Ctrl-C is the byte 3. It needs no callback. Waits while
 * 4096 bytes are on their way that the guest's serial driver has not taken, as while nothing there has the port open;
 * what the driver takes that no program reads, the guest keeps or loses by its own rules. `n` (or NULL) is how many
 * were sent, also when it fails: CC_ERR_NOT_RUNNING when the instance ends.
 */
CC_API cc_error_code cc_instance_console_write(cc_instance inst, const uint8_t *buf, size_t len, size_t *n,
                                               cc_error *err);

/* The same under a cancel token; 0: none. */
CC_API cc_error_code cc_instance_console_write_with(cc_instance inst, const uint8_t *buf, size_t len,
                                                    cc_cancel_token cancel, size_t *n, cc_error *err);

/* The size of the console and of every command's terminal, now and, where a command names none, later; 0 leaves one as
 * it is (80 columns and 24 rows at first). Sizes out of range and bad handles are left alone. */
CC_API void cc_instance_set_console_size(cc_instance inst, int cols, int rows);

/* A name for the instance, unique on this host, which is also the guest's host name; free it with cc_free_string.
 * NULL for a bad handle. */
CC_API char *cc_instance_id(cc_instance inst);

/* Whether it has not ended; true also for one that is paused, and false for a bad handle. */
CC_API bool cc_instance_is_running(cc_instance inst);

/* ==== Commands (Go's os/exec) ======================================================================== */

/*
 * A command to run in the guest (exec.Command). `name` is looked up in the command's PATH when it has no slash. `args`
 * are the arguments after the name, NULL-terminated; NULL: none. It starts with the image's environment (and, where
 * that lacks them, PATH, HOSTNAME and HOME as docker sets them), working directory ("/" if the image names none; made
 * if missing) and user (or cc_instance_options.user), standard input at end of file, and no terminal. It leads a
 * process group and a session of its own. Free it with cc_cmd_free, or leave that to cc_instance_close.
 */
CC_API cc_error_code cc_cmd_new(cc_instance inst, const char *name, const char *const *args, cc_cmd *out,
                                cc_error *err);

/*
 * The image's own command: its entrypoint followed by `args`, or by its default arguments when `args` is NULL. An
 * image with neither is CC_ERR_INVALID_ARGUMENT.
 */
CC_API cc_error_code cc_cmd_entrypoint(cc_instance inst, const char *const *args, cc_cmd *out, cc_error *err);

/*
 * In any state: a command that runs is killed with its process group, calls that wait for it end, and its pipes are
 * closed. When it returns none of the command's functions (cc_cmd_set_stdout_callback) is running, so it waits for one
 * that is; called in such a function it does not wait for that one.
 */
CC_API void cc_cmd_free(cc_cmd cmd);

/* The working directory, an absolute path in the guest (Cmd.Dir). Before start. */
CC_API cc_error_code cc_cmd_set_dir(cc_cmd cmd, const char *dir, cc_error *err);

/* Sets one variable of the command's environment; `value` NULL removes it. Before start. */
CC_API cc_error_code cc_cmd_set_env(cc_cmd cmd, const char *key, const char *value, cc_error *err);

/* The value the command will see; free it with cc_free_string. NULL when it is not set, or for a bad handle. */
CC_API char *cc_cmd_get_env(cc_cmd cmd, const char *key);

/* The command's environment as "KEY=VALUE", without the HOME that the guest adds when there is none. The array ends
 * with a NULL that *count leaves out; free it with cc_free_string_array. */
CC_API cc_error_code cc_cmd_environ(cc_cmd cmd, char ***out, size_t *count, cc_error *err);

/* A token that kills the command with its process group, whether or not a call waits for it, and ends those that do; 0
 * takes it away (exec.CommandContext). Before start. */
CC_API cc_error_code cc_cmd_set_cancel(cc_cmd cmd, cc_cancel_token cancel, cc_error *err);

/* Who the command runs as: "uid", "uid:gid", "name", "name:group", looked up in the image (Cmd.SysProcAttr.Credential);
 * "": root; NULL: as the instance's options say. An unknown name is the start's CC_ERR_IO. Before start. */
CC_API cc_error_code cc_cmd_set_user(cc_cmd cmd, const char *user, cc_error *err);

/*
 * How long the command may take from its start on, in seconds (exec.CommandContext with context.WithTimeout); 0: as
 * long as it takes. Then it is killed with its process group, whether or not a call waits for it, and those that do
 * return CC_ERR_TIMEOUT. Before start.
 */
CC_API cc_error_code cc_cmd_set_timeout(cc_cmd cmd, double seconds, cc_error *err);

/*
 * Gives the command a terminal of that many columns and rows, as `docker run -t` does; 0 takes what
 * cc_instance_set_console_size said last, else 80 and 24. What it prints, errors too, is its standard output, with
 * "\r\n" for a newline; its input is typed into the terminal, which also echoes it. Closing the input types the
 * end-of-file character; without a pipe, descriptor or function for the input nobody ever types. TERM is "xterm" unless
 * it is set. Before start.
 */
CC_API cc_error_code cc_cmd_set_tty(cc_cmd cmd, int cols, int rows, cc_error *err);

/* Changes the size of a started command's terminal; its foreground program gets SIGWINCH. CC_ERR_INVALID_ARGUMENT
 * without a terminal, CC_ERR_IO with sys_errno ESRCH (3) after the end. */
CC_API cc_error_code cc_cmd_resize(cc_cmd cmd, int cols, int rows, cc_error *err);

/*
 * Pipes to the command's standard streams (Cmd.StdinPipe, StdoutPipe, StderrPipe). Ask for them before start; a stream
 * that no pipe, descriptor or function was set for is at its end (input) or goes nowhere (output). Each pipe is a
 * connection of its own, and little is kept in between: a program whose output is not read has to wait when its pipe
 * and the connection are full (a few hundred KiB), and so does a write while the program does not read. The other pipes
 * and commands go on meanwhile.
 *
 * The program's end does not close a pipe that is read: what it printed can still be read, until the end of file, which
 * comes when all that hold the stream open have closed it. (Go's Wait closes the pipe and loses what was not read.) A
 * pipe ends with its close, with cc_cmd_free or with cc_instance_close.
 */
CC_API cc_error_code cc_cmd_stdin_pipe(cc_cmd cmd, cc_write_pipe *out, cc_error *err);
CC_API cc_error_code cc_cmd_stdout_pipe(cc_cmd cmd, cc_read_pipe *out, cc_error *err);
CC_API cc_error_code cc_cmd_stderr_pipe(cc_cmd cmd, cc_read_pipe *out, cc_error *err);

/*
 * Writes all `len` bytes (io.Writer). *n (may be NULL) is how many were taken, also on failure. Once the program has
 * closed its input or has ended, which a write finds out some time later, it is CC_ERR_IO with sys_errno EPIPE (32).
 * Writes of several threads do not mix. Before cc_cmd_start it is CC_ERR_INVALID_ARGUMENT, as is a read.
 */
CC_API cc_error_code cc_write_pipe_write(cc_write_pipe p, const uint8_t *buf, size_t len, size_t *n, cc_error *err);

/* The same under a cancel token (0: none) and with a time-out in seconds (0: none). What was not taken then can be
 * written again. */
CC_API cc_error_code cc_write_pipe_write_with(cc_write_pipe p, const uint8_t *buf, size_t len, cc_cancel_token cancel,
                                              double timeout_seconds, size_t *n, cc_error *err);

/* Closes it: the program reads what was written, then the end of file. Never waits; a write that waits in another
 * thread ends with CC_ERR_ALREADY_CLOSED. */
CC_API cc_error_code cc_write_pipe_close(cc_write_pipe p, cc_error *err);

/* Waits until there is something to read and takes up to `len` bytes of it (io.Reader); at the end of file *n is 0. */
CC_API cc_error_code cc_read_pipe_read(cc_read_pipe p, uint8_t *buf, size_t len, size_t *n, cc_error *err);

/* The same under a cancel token (0: none) and with a time-out in seconds (0: none). */
CC_API cc_error_code cc_read_pipe_read_with(cc_read_pipe p, uint8_t *buf, size_t len, cc_cancel_token cancel,
                                            double timeout_seconds, size_t *n, cc_error *err);

/* Closes it: a program that goes on printing gets SIGPIPE, one on a terminal SIGHUP. Never waits; a read that waits in
 * another thread ends with CC_ERR_ALREADY_CLOSED. */
CC_API cc_error_code cc_read_pipe_close(cc_read_pipe p, cc_error *err);

/*
 * A standard stream from, or to, a descriptor of this program (Cmd.Stdin = os.File): any that can be read or written,
 * in blocking mode or not. The library keeps a duplicate: `fd` stays the caller's, and may be closed at once. A thread
 * of the command's copies, so a slow descriptor holds up its own command only. An output is passed on whole before
 * cc_cmd_wait returns; one that cannot be written is closed for the program, and is the wait's CC_ERR_IO. An input ends
 * where the descriptor does, and is read no further after the program's end; what was read ahead is lost. One that
 * cannot be read ends there, too, and is the wait's CC_ERR_IO. Before start.
 */
CC_API cc_error_code cc_cmd_set_stdin_fd(cc_cmd cmd, int fd, cc_error *err);
CC_API cc_error_code cc_cmd_set_stdout_fd(cc_cmd cmd, int fd, cc_error *err);
CC_API cc_error_code cc_cmd_set_stderr_fd(cc_cmd cmd, int fd, cc_error *err);

/* Gives up to `size` bytes of input: how many; 0 or less: that was all. */
typedef int64_t (*cc_input_callback)(uint8_t *buf, size_t size, void *user_data);

/*
 * The same with functions (cc_output_callback is further up). Each stream's is called on a thread of its own, one call
 * at a time, and may take its time and call the library, but neither cc_instance_close for its own instance (which is
 * CC_ERR_INVALID_ARGUMENT then) nor cc_shutdown: these wait for it. An output's has been given all of it when
 * cc_cmd_wait returns, so it cannot wait for its own command (CC_ERR_INVALID_ARGUMENT too); an input's may still be
 * running then. Before start.
 */
CC_API cc_error_code cc_cmd_set_stdin_callback(cc_cmd cmd, cc_input_callback callback, void *user_data, cc_error *err);
CC_API cc_error_code cc_cmd_set_stdout_callback(cc_cmd cmd, cc_output_callback callback, void *user_data,
                                                cc_error *err);
CC_API cc_error_code cc_cmd_set_stderr_callback(cc_cmd cmd, cc_output_callback callback, void *user_data,
                                                cc_error *err);

/*
 * Starts the command and does not wait for it (Cmd.Start). A program that is not there or may not be executed is
 * CC_ERR_IO with sys_errno ENOENT (2) or EACCES (13). A command starts once: after that, as with run and output,
 * CC_ERR_INVALID_ARGUMENT. What it prints is discarded unless a pipe, descriptor or function was set.
 */
CC_API cc_error_code cc_cmd_start(cc_cmd cmd, cc_error *err);

/*
 * Waits for a started command (Cmd.Wait). *exit_code (may be NULL) is the program's, 0 to 255, or 128 + N when signal
 * N ended it; a code other than 0 is not an error. It is the program's end that counts, not that of processes it left
 * behind, except that a standard output or error with a descriptor or function is first passed on to its end. May be
 * called again, and by several threads.
 */
CC_API cc_error_code cc_cmd_wait(cc_cmd cmd, int *exit_code, cc_error *err);

/* Starts and waits (Cmd.Run). Pipes may be used by other threads meanwhile. */
CC_API cc_error_code cc_cmd_run(cc_cmd cmd, int *exit_code, cc_error *err);

/*
 * Starts, waits, and returns what the command wrote to its standard output (Cmd.Output), which ends when all that
 * hold it open have closed it. More than 1 GiB is CC_ERR_IO, and a standard output that was set is
 * CC_ERR_INVALID_ARGUMENT. A zero byte follows the *len bytes, for convenience. Free
 * *out with cc_free_bytes. `exit_code` may be NULL.
 */
CC_API cc_error_code cc_cmd_output(cc_cmd cmd, uint8_t **out, size_t *len, int *exit_code, cc_error *err);

/* The same with standard output and standard error in one, in the order they were written (Cmd.CombinedOutput). */
CC_API cc_error_code cc_cmd_combined_output(cc_cmd cmd, uint8_t **out, size_t *len, int *exit_code, cc_error *err);

/* The exit code that cc_cmd_wait, run or output has returned; -1 before one of them has, or for a bad handle. */
CC_API int cc_cmd_exit_code(cc_cmd cmd);

/* Sends a signal, by Linux's number, to the process group of a started command (kill(2) with -pid), so also to its
 * children that made no group of their own; 0 only asks. CC_ERR_IO with sys_errno ESRCH (3) when no process is left. */
CC_API cc_error_code cc_cmd_signal(cc_cmd cmd, int sig, cc_error *err);

/* The same with SIGKILL (Process.Kill). Unlike a cancel or a time-out it lets cc_cmd_wait tell the end: 128 + 9. */
CC_API cc_error_code cc_cmd_kill(cc_cmd cmd, cc_error *err);

/* The number of the command's process in the guest, which is also its process group's; 0 before cc_cmd_start has
 * returned, for a command run otherwise, or for a bad handle. */
CC_API int cc_cmd_pid(cc_cmd cmd);

/* What a command and those of its children that it waited for have used (wait4(2)). */
typedef struct {
    uint64_t user_us;    /* CPU time in the program, in microseconds */
    uint64_t system_us;  /* CPU time in the kernel for it, in microseconds */
    uint64_t max_rss_kb; /* the most memory that one of them had at a time, in KiB */
} cc_resource_usage;

/* Fills *out once the command's end has been waited for; before that CC_ERR_INVALID_ARGUMENT. */
CC_API cc_error_code cc_cmd_usage(cc_cmd cmd, cc_resource_usage *out, cc_error *err);

/*
 * The end of what the command wrote to its standard error: the last 64 KiB, whether it was discarded, or what was read
 * or passed on of it (Go keeps it in ExitError.Stderr). Empty where standard error went the way of standard output:
 * cc_cmd_combined_output, a terminal. Known once the end has been waited for; before that CC_ERR_INVALID_ARGUMENT. A
 * zero byte follows the *len bytes. Free *out with cc_free_bytes.
 */
CC_API cc_error_code cc_cmd_stderr_tail(cc_cmd cmd, uint8_t **out, size_t *len, cc_error *err);

/* ==== Files in the guest (Go's os) =================================================================== */

/*
 * Paths are the guest's, absolute or relative to its root; the work is done as root. A failure is CC_ERR_IO with the
 * guest's error number in sys_errno and the path.
 */

typedef uint32_t cc_file_mode; /* as parameter: permission bits (07777); as result: a whole st_mode */

typedef struct {
    char *name;            /* the last element of the path */
    int64_t size;          /* bytes */
    cc_file_mode mode;     /* type and permissions, as POSIX st_mode */
    int64_t mod_time_unix; /* seconds since 1970 */
    bool is_dir;
    bool is_symlink;
} cc_file_info;

/* Releases what a cc_file_info holds and zeroes it; not the structure itself. NULL is fine. */
CC_API void cc_file_info_free(cc_file_info *info);

/* The whole file (os.ReadFile); more than 1 GiB is CC_ERR_IO. A FIFO is read from its first writer on until there is
 * none any more. A zero byte follows the *len bytes. Free *out with cc_free_bytes. */
CC_API cc_error_code cc_fs_read_file(cc_instance inst, const char *path, uint8_t **out, size_t *len, cc_error *err);

/*
 * Makes the file hold exactly `len` bytes of `data` (os.WriteFile): an existing one is truncated and keeps its mode,
 * a new one gets `perm`, whatever the guest's umask. `data` may be NULL when len is 0. A FIFO that nobody reads is
 * ENXIO (6); one that is full, or a terminal, is waited for.
 */
CC_API cc_error_code cc_fs_write_file(cc_instance inst, const char *path, const uint8_t *data, size_t len,
                                      cc_file_mode perm, cc_error *err);

/* What is at the path, symbolic links followed (os.Stat). Release *out with cc_file_info_free. */
CC_API cc_error_code cc_fs_stat(cc_instance inst, const char *path, cc_file_info *out, cc_error *err);

/* The same of a symbolic link itself (os.Lstat). Release *out with cc_file_info_free. */
CC_API cc_error_code cc_fs_lstat(cc_instance inst, const char *path, cc_file_info *out, cc_error *err);

/* Removes a file, a symbolic link or an empty directory (os.Remove). */
CC_API cc_error_code cc_fs_remove(cc_instance inst, const char *path, cc_error *err);

/*
 * Removes what is at the path with everything below it (os.RemoveAll). Nothing there is CC_OK. Symbolic links are
 * removed, never followed, also when somebody puts one in the place of a directory meanwhile. It goes on after what
 * cannot be removed, and reports the first such failure. A path that ends in "." or ".." is EINVAL (22), "/" EBUSY.
 */
CC_API cc_error_code cc_fs_remove_all(cc_instance inst, const char *path, cc_error *err);

/* Makes a directory with exactly the permissions `perm` (os.Mkdir). */
CC_API cc_error_code cc_fs_mkdir(cc_instance inst, const char *path, cc_file_mode perm, cc_error *err);

/* The same with the directories above it that are missing; one that is there already is fine (os.MkdirAll). */
CC_API cc_error_code cc_fs_mkdir_all(cc_instance inst, const char *path, cc_file_mode perm, cc_error *err);

/* Renames a file or directory; a file at `newpath` is replaced, a directory is EEXIST (17), as os.Rename has it. The
 * error's path is `oldpath`, here and in cc_fs_symlink, and its message has both. */
CC_API cc_error_code cc_fs_rename(cc_instance inst, const char *oldpath, const char *newpath, cc_error *err);

/* Makes `newname` a symbolic link to `oldname`, which need not exist (os.Symlink). */
CC_API cc_error_code cc_fs_symlink(cc_instance inst, const char *oldname, const char *newname, cc_error *err);

/* What a symbolic link points to (os.Readlink). Free *out with cc_free_string. */
CC_API cc_error_code cc_fs_readlink(cc_instance inst, const char *path, char **out, cc_error *err);

/* Sets the permissions (os.Chmod); symbolic links are followed, here and in the two calls below. */
CC_API cc_error_code cc_fs_chmod(cc_instance inst, const char *path, cc_file_mode mode, cc_error *err);

/* Sets owner and group, as numbers of the guest; -1 leaves one as it is (os.Chown). */
CC_API cc_error_code cc_fs_chown(cc_instance inst, const char *path, int uid, int gid, cc_error *err);

/* Sets the times of access and modification, in seconds since 1970 (os.Chtimes). */
CC_API cc_error_code cc_fs_chtimes(cc_instance inst, const char *path, int64_t atime_unix, int64_t mtime_unix,
                                   cc_error *err);

/* ---- Open files (os.File) ---- */

#define CC_O_RDONLY 0x0000
#define CC_O_WRONLY 0x0001
#define CC_O_RDWR 0x0002
#define CC_O_APPEND 0x0008 /* every write goes to the end of the file */
#define CC_O_CREATE 0x0200 /* make the file if it is not there */
#define CC_O_TRUNC 0x0400  /* make it empty */
#define CC_O_EXCL 0x0800   /* with CC_O_CREATE: it must not be there, EEXIST (17) */

/*
 * Opens a file (os.OpenFile): one of RDONLY, WRONLY and RDWR, with any of the others; `perm` are exactly the
 * permissions of a file that is made. Close it with cc_file_close, or leave that to cc_instance_close. The file lives
 * as long as it is open, whatever becomes of its name. A guest keeps 65536 files open for its host, beyond that it is
 * EMFILE (24).
 *
 * Any kind of file can be opened. Opening never waits: a FIFO for writing that nobody reads is ENXIO (6), and one for
 * reading waits in cc_file_read for its first writer.
 */
CC_API cc_error_code cc_fs_open_file(cc_instance inst, const char *path, int flags, cc_file_mode perm, cc_file *out,
                                     cc_error *err);

/* Opens a file for reading (os.Open). */
CC_API cc_error_code cc_fs_open(cc_instance inst, const char *path, cc_file *out, cc_error *err);

/* Opens a file for reading and writing, made with 0666 or emptied (os.Create). */
CC_API cc_error_code cc_fs_create(cc_instance inst, const char *path, cc_file *out, cc_error *err);

/*
 * Closes it, and ends calls of other threads on it with CC_ERR_ALREADY_CLOSED, those that wait for a FIFO or a terminal
 * at once. An error of the guest's close(2) is CC_ERR_IO; the file is closed all the same.
 */
CC_API cc_error_code cc_file_close(cc_file f, cc_error *err);

/*
 * Reads up to `len` bytes at the file's position and moves it on (File.Read). *n is 0 at the end of the file, and
 * otherwise at least 1; of a regular file it is less than `len` only at the end. A FIFO or terminal gives what is
 * there, and waits when there is nothing. A directory is EISDIR (21). Up to 64 KiB are one round trip.
 *
 * Several threads may use one file: no two calls see the same bytes or mix theirs, and other files do not wait.
 */
CC_API cc_error_code cc_file_read(cc_file f, uint8_t *buf, size_t len, size_t *n, cc_error *err);

/*
 * Writes all `len` bytes at the file's position, or at the end with CC_O_APPEND, and moves it on (File.Write). *n is
 * how many were written, also on failure. More than 64 KiB are several writes in the guest: another program's may come
 * between them.
 */
CC_API cc_error_code cc_file_write(cc_file f, const uint8_t *buf, size_t len, size_t *n, cc_error *err);

typedef enum {
    CC_SEEK_SET = 0, /* from the start */
    CC_SEEK_CUR = 1, /* from the position */
    CC_SEEK_END = 2  /* from the end */
} cc_seek_whence;

/* Moves the position (File.Seek); it may lie beyond the end, and what is written there leaves a hole. `new_offset` may
 * be NULL. A FIFO is ESPIPE (29). */
CC_API cc_error_code cc_file_seek(cc_file f, int64_t offset, cc_seek_whence whence, int64_t *new_offset, cc_error *err);

/* Returns when what was written is on the guest's disk (File.Sync). */
CC_API cc_error_code cc_file_sync(cc_file f, cc_error *err);

/* Cuts the file, or extends it with zeroes; the position stays (File.Truncate). */
CC_API cc_error_code cc_file_truncate(cc_file f, int64_t size, cc_error *err);

/* What is open (File.Stat). Release *out with cc_file_info_free. */
CC_API cc_error_code cc_file_stat(cc_file f, cc_file_info *out, cc_error *err);

/* The path it was opened with (File.Name); free it with cc_free_string. NULL for a bad handle. */
CC_API char *cc_file_name(cc_file f);

typedef struct {
    char *name;
    bool is_dir;
    cc_file_mode mode; /* of the entry itself: a symbolic link's, not what it points to */
} cc_dir_entry;

/*
 * The entries of a directory without "." and "..", sorted by the bytes of their names (os.ReadDir). A small directory
 * is one round trip, a large one comes as a stream; more than 64 MiB of names are CC_ERR_IO. Free *out with
 * cc_dir_entries_free.
 */
CC_API cc_error_code cc_fs_read_dir(cc_instance inst, const char *path, cc_dir_entry **out, size_t *count,
                                    cc_error *err);

/* Releases an array from cc_fs_read_dir. NULL is fine. */
CC_API void cc_dir_entries_free(cc_dir_entry *entries, size_t count);

/* The file system that a path is on. */
typedef struct {
    uint64_t type;       /* its magic number, as in statfs(2) */
    uint64_t block_size; /* bytes; what the blocks below count */
    uint64_t blocks;
    uint64_t blocks_free;
    uint64_t blocks_available; /* of those, what programs other than root's may use */
    uint64_t files;            /* inodes; 0 where there is no such limit */
    uint64_t files_free;
    uint64_t name_max; /* bytes of the longest name */
    bool read_only;
} cc_fs_info;

/* Asks a file system for its size and what is free (statfs(2)). */
CC_API cc_error_code cc_fs_statfs(cc_instance inst, const char *path, cc_fs_info *out, cc_error *err);

/* ---- Watches (inotify) ---- */

/* What happened; an event may be several of them. */
typedef enum {
    CC_WATCH_CREATE = 0x1,      /* made in the directory watched */
    CC_WATCH_MODIFY = 0x2,      /* written to, or truncated */
    CC_WATCH_CLOSE_WRITE = 0x4, /* closed by somebody who could write */
    CC_WATCH_DELETE = 0x8,      /* removed from the directory watched */
    CC_WATCH_MOVED_FROM = 0x10, /* renamed: the name it had; MOVED_TO has the same cookie */
    CC_WATCH_MOVED_TO = 0x20,   /* renamed: the name it has now */
    CC_WATCH_ATTRIB = 0x40,     /* mode, owner, times, number of links */
    CC_WATCH_DELETE_SELF = 0x80,
    CC_WATCH_MOVE_SELF = 0x100,
    CC_WATCH_OVERFLOW = 0x200, /* events were lost: they came faster than they were read */
    CC_WATCH_END = 0x400       /* nothing more will come: what was watched is gone. Every later read gives it again */
} cc_watch_kind;

typedef struct {
    uint32_t kind;   /* CC_WATCH_ flags */
    uint32_t cookie; /* joins the two events of a renaming; else 0 */
    char *name;      /* in the directory watched; "" for the path itself */
    bool is_dir;     /* what it happened to is a directory */
} cc_watch_event;

/*
 * Watches a file or directory of the guest from now on; of a directory also what happens to its entries, but not what
 * happens below them. Symbolic links are followed. Close it with cc_watch_close, or leave that to cc_instance_close.
 */
CC_API cc_error_code cc_fs_watch(cc_instance inst, const char *path, cc_watch *out, cc_error *err);

/* Waits for the next event. Release *out with cc_watch_event_free. */
CC_API cc_error_code cc_watch_read(cc_watch w, cc_watch_event *out, cc_error *err);

/* The same for at most `timeout_seconds` (0: for ever) and under a cancel token (0: none). Nothing is lost by either.
 */
CC_API cc_error_code cc_watch_read_with(cc_watch w, double timeout_seconds, cc_cancel_token cancel, cc_watch_event *out,
                                        cc_error *err);

/* Releases what an event holds and zeroes it; not the structure itself. NULL is fine. */
CC_API void cc_watch_event_free(cc_watch_event *event);

/* Ends it; reads of other threads end with CC_ERR_ALREADY_CLOSED. */
CC_API cc_error_code cc_watch_close(cc_watch w, cc_error *err);

/* ---- Copies between host and guest (docker cp) ---- */

typedef struct {
    uint64_t bytes;   /* of files' contents so far */
    uint64_t entries; /* files, directories and links so far */
    uint64_t skipped; /* sockets and devices left out so far; copy_in only */
    const char *path; /* at work now, below what is copied; valid during the call */
} cc_copy_progress;

/* Called on the thread that called the copy, at most 20 times a second, and once at the end of one that succeeded. It
 * may call the library, but not close its own instance (CC_ERR_INVALID_ARGUMENT), which would wait for the copy. */
typedef void (*cc_copy_progress_callback)(const cc_copy_progress *progress, void *user_data);

typedef struct {
    bool keep_owner;                    /* keep owners, as numbers (copy_out: if the caller may give files away), and
                                           setuid and setgid bits; false: the copy is
                                           root's in the guest, the caller's on the host, and has no such bits */
    cc_copy_progress_callback progress; /* NULL: none */
    void *user_data;                    /* for the callback */
    cc_cancel_token cancel;             /* ends the copy early; 0: none */
    double timeout_seconds;             /* how long it may take; 0: as long as it takes */
    uint64_t max_bytes;                 /* copy_out: more than this from the guest is an error; 0: no limit */
    uint64_t max_entries;               /* the same for files, directories and links */
} cc_copy_options;

/*
 * Copies a file or a tree from the host into the guest, as one stream. Permissions, times of modification, symbolic and
 * hard links, FIFOs and holes are kept; extended attributes are not; sockets and devices are left out. A file is copied
 * as long as it says it is, so those of /proc are empty (cc_fs_read_file reads them). Directories may be nested 256
 * deep. `opts` may be NULL.
 *
 * Where it goes follows docker cp: into `guest_path` under its own name, if that is a directory; else it becomes
 * `guest_path`, whose parent must exist, and which may end in "/" only if a directory is copied. A source that ends in
 * "/." means the contents of the directory. A source that is a symbolic link is copied as one, unless "/" follows it.
 *
 * What is there already: directories are merged and keep their attributes, files and links are replaced and never
 * written through; a directory in the place of a file is EISDIR (21), the reverse ENOTDIR (20). After a failure what
 * was complete stays.
 */
CC_API cc_error_code cc_fs_copy_in(cc_instance inst, const char *host_path, const char *guest_path,
                                   const cc_copy_options *opts, cc_error *err);

/* The same from the guest to the host. Whatever the guest sends, nothing outside the destination is written; max_bytes
 * and max_entries bound what it can fill. */
CC_API cc_error_code cc_fs_copy_out(cc_instance inst, const char *guest_path, const char *host_path,
                                    const cc_copy_options *opts, cc_error *err);

/* ==== Connections (Go's net.Conn, net.Listener) ====================================================== */

/*
 * vsock connects host and guest without a network: a program in the guest listens or connects with AF_VSOCK sockets,
 * and the host's end of the connection is here, in this process, where nobody else can reach it. The guest's context ID
 * is 3, the host's 2. Ports 1021 and 1022 are the library's own.
 *
 * Addresses are written "vsock:CID:PORT".
 */

/*
 * Connects to a port, 1 to 4294967294, on which a program in the guest listens (net.Dial), and returns when it has
 * accepted. Where none does it is CC_ERR_NETWORK with sys_errno ECONNREFUSED (111). Close *out with cc_conn_close, or
 * leave that to cc_instance_close.
 */
CC_API cc_error_code cc_vsock_dial(cc_instance inst, uint32_t port, cc_conn *out, cc_error *err);

/* The same under a cancel token; 0: none. */
CC_API cc_error_code cc_vsock_dial_with(cc_instance inst, uint32_t port, cc_cancel_token cancel, cc_conn *out,
                                        cc_error *err);

/*
 * Opens a port of the host, 1 to 1048575, to the guest (net.Listen), which can connect to no other. One that is open
 * already is CC_ERR_IO with sys_errno EADDRINUSE (98). Up to 64 connections wait to be accepted; more are reset. All of
 * an instance's connections together are limited to 1024, of which the guest may make half. Close *out with
 * cc_listener_close, or leave that to cc_instance_close.
 */
CC_API cc_error_code cc_vsock_listen(cc_instance inst, uint32_t port, cc_listener *out, cc_error *err);

/* Waits for the next connection (Listener.Accept). CC_ERR_ALREADY_CLOSED when the listener is closed meanwhile. */
CC_API cc_error_code cc_listener_accept(cc_listener ln, cc_conn *out, cc_error *err);

/* The same under a cancel token; 0: none. */
CC_API cc_error_code cc_listener_accept_with(cc_listener ln, cc_cancel_token cancel, cc_conn *out, cc_error *err);

/* Closes the port, and resets the connections that nobody has accepted; those that were accepted stay. */
CC_API cc_error_code cc_listener_close(cc_listener ln, cc_error *err);

/* The address that is listened on; free it with cc_free_string. NULL for a bad handle. */
CC_API char *cc_listener_addr(cc_listener ln);

/*
 * Waits for bytes and takes up to `len` of them (Conn.Read): *n says how many, 0 that the other end has closed its
 * direction, or that `len` is 0. What arrived before a connection broke can be read first.
 *
 * Errors of reads and writes: CC_ERR_TIMEOUT when the deadline passes; CC_ERR_NETWORK with sys_errno ECONNRESET (104)
 * or EPIPE (32) when the other end has closed altogether; CC_ERR_NOT_RUNNING; CC_ERR_ALREADY_CLOSED when this end is
 * closed meanwhile.
 */
CC_API cc_error_code cc_conn_read(cc_conn c, uint8_t *buf, size_t len, size_t *n, cc_error *err);

/* Writes all `len` bytes (Conn.Write). *n (may be NULL) is how many were taken, also on failure. Writes of several
 * threads do not mix. */
CC_API cc_error_code cc_conn_write(cc_conn c, const uint8_t *buf, size_t len, size_t *n, cc_error *err);

/* Nothing more will be written (CloseWrite): the other end reads what was, then end of file. Reading goes on. */
CC_API cc_error_code cc_conn_close_write(cc_conn c, cc_error *err);

/* Closes both directions (Conn.Close). What was written still arrives, except when there are bytes that nobody has
 * read: then it is reset. Calls that wait on it end with CC_ERR_ALREADY_CLOSED, as does a second close. */
CC_API cc_error_code cc_conn_close(cc_conn c, cc_error *err);

/* The addresses of this end and of the other; free them with cc_free_string. NULL for a bad handle. */
CC_API char *cc_conn_local_addr(cc_conn c);
CC_API char *cc_conn_remote_addr(cc_conn c);

/* When reads, or writes, fail with CC_ERR_TIMEOUT (Conn.SetReadDeadline): seconds since 1970, 0 for never. It holds for
 * calls under way and for later ones. With a time that has passed they fail at once. */
CC_API cc_error_code cc_conn_set_read_deadline(cc_conn c, int64_t unix_time, cc_error *err);
CC_API cc_error_code cc_conn_set_write_deadline(cc_conn c, int64_t unix_time, cc_error *err);

#ifdef __cplusplus
}
#endif

#endif /* CC_H */

/* ==== The library itself ============================================================================= */

#if defined(CC_IMPLEMENTATION) && !defined(CCI_IMPLEMENTED)
#define CCI_IMPLEMENTED
#include "src/api/api.h"
#endif
