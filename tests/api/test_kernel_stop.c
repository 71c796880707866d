/*
 * A mirror that says nothing: the download of a kernel ends with the instance's cancel token, and when the library is
 * shut down; a deadline for the boot does not end it.
 * @vm
 * @timeout 60
 * @setup tools/mkimage busybox build/tests/busybox.tar
 */
#define _GNU_SOURCE
#define CC_IMPLEMENTATION
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cc.h"
#include "../check.h"

static int listener;
static char cache[] = "/tmp/cc-kernel-stop-XXXXXX";
static cc_instance_source source;

struct start {
    pthread_t thread;
    cc_instance_options options;
    cc_error_code code;
    char message[300];
};

static void *start_main(void *arg)
{
    struct start *s = arg;
    cc_instance vm;
    cc_error err;
    memset(&err, 0, sizeof(err));
    s->code = cc_instance_new(source, &s->options, &vm, &err);
    (void)snprintf(s->message, sizeof(s->message), "%s", err.message ? err.message : "");
    cc_error_free(&err);
    return NULL;
}

static void begin(void)
{
    cc_error err;
    cc_oci_client client;
    memset(&err, 0, sizeof(err));
    (void)cc_init();
    CHECK_EQ_INT(cc_oci_client_new_with_cache(cache, &client, &err), CC_OK);
    CHECK_EQ_INT(cc_oci_client_load_tar(client, "build/tests/busybox.tar", NULL, &source, &err), CC_OK);
    CHECK_EQ_STR(err.message ? err.message : "", "");
}

/* Starts an instance in a thread; returns when it has asked the mirror. */
static int ask(struct start *s, char first[16])
{
    ssize_t n = 0;
    CHECK_EQ_INT(pthread_create(&s->thread, NULL, start_main, s), 0);
    int fd = accept(listener, NULL, NULL);
    while (fd >= 0 && n < 15) {
        ssize_t got = read(fd, first + n, (size_t)(15 - n));
        if (got <= 0)
            break;
        n += got;
    }
    first[n] = '\0';
    return fd;
}

static void test_cancel(void)
{
    struct start s = {0};
    char first[16];
    begin();
    CHECK_EQ_INT(cc_cancel_token_new(&s.options.cancel, NULL), CC_OK);
    s.options.boot_timeout_seconds = 0.001;
    int fd = ask(&s, first);
    CHECK_EQ_STR(first, "GET /main/x86_6");
    CHECK_EQ_INT(cc_cancel_token_cancel(s.options.cancel, NULL), CC_OK);
    CHECK_EQ_INT(pthread_join(s.thread, NULL), 0);
    CHECK_EQ_INT(s.code, CC_ERR_CANCELLED);
    CHECK_EQ_STR(s.message, "cancelled while the guest's kernel was fetched");
    (void)close(fd);
    cc_shutdown();
}

static void test_shutdown(void)
{
    struct start s = {0};
    char first[16];
    begin();
    int fd = ask(&s, first);
    cc_shutdown();
    CHECK_EQ_INT(pthread_join(s.thread, NULL), 0);
    CHECK_EQ_INT(s.code, CC_ERR_NOT_RUNNING);
    (void)close(fd);
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);
    char mirror[64];
    listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&at, n) == 0 && listen(listener, 4) == 0);
    CHECK_EQ_INT(getsockname(listener, (struct sockaddr *)&at, &n), 0);
    (void)snprintf(mirror, sizeof(mirror), "http://127.0.0.1:%u/main", (unsigned)ntohs(at.sin_port));
    CHECK(setenv("CC_KERNEL_MIRROR", mirror, 1) == 0 && unsetenv("CC_KERNEL") == 0 && mkdtemp(cache) != NULL);
    RUN(test_cancel);
    RUN(test_shutdown);
    return check_done();
}
