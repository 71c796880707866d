// @sanitize address,undefined
// @sanitize thread
/*
 * Connections: addresses tried in turn, deadlines and cancellation at every place that waits, what a peer's end looks
 * like. The resolver is the test's own: the library binds getaddrinfo by its name, and finds this one.
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/base/net.h"
#include "../check.h"

#define MS ((uint64_t)1000000)

/* ---- The resolver: an address; "two" (one that refuses, then a good one); "mute" (one that never answers, then a good
 * one); "slow" (waits for the test); "none" ------------------------------------------------------------------- */

struct entry {
    struct addrinfo info;
    struct sockaddr_in6 place; /* or a sockaddr_in */
};

static int resolver_gate[2] = {-1, -1}; /* "slow" waits until a byte can be read here */
static uint16_t good_port, bad_port, mute_port;
static uint8_t good_host[4] = {127, 0, 0, 1};

static struct addrinfo *entry4(const uint8_t address[4], uint16_t port, struct addrinfo *next)
{
    struct entry *e = calloc(1, sizeof(*e));
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)&e->place;
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    memcpy(&in->sin_addr, address, 4);
    e->info.ai_family = AF_INET;
    e->info.ai_addr = (struct sockaddr *)&e->place;
    e->info.ai_addrlen = sizeof(*in);
    e->info.ai_next = next;
    return &e->info;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    uint8_t address[4];
    bool numeric = inet_pton(AF_INET, host, address) == 1;
    if (numeric) {
        *out = entry4(address, (uint16_t)atoi(service), NULL);
        return 0;
    }
    if (hints->ai_flags & AI_NUMERICHOST)
        return EAI_NONAME;
    if (strcmp(host, "none") == 0)
        return EAI_NONAME;
    if (strcmp(host, "slow") == 0) {
        char c;
        (void)!read(resolver_gate[0], &c, 1);
        return EAI_AGAIN;
    }
    *out = entry4(good_host, good_port, NULL);
    if (strcmp(host, "two") == 0)
        *out = entry4(good_host, bad_port, *out);
    if (strcmp(host, "mute") == 0)
        *out = entry4(good_host, mute_port, *out);
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list);
        list = next;
    }
}

/* ---- Servers ------------------------------------------------------------------------------------------------ */

static int listener(int backlog, uint16_t *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0);
    CHECK(backlog < 0 || listen(fd, backlog) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    *port = ntohs(at.sin_port);
    return fd;
}

/* A connection to a listener of ours, and its other end. */
static struct cci_net *connected(int server, int *peer)
{
    struct cci_net *net;
    cc_error err = {0};
    const struct cci_wait wait = {cci_os_now() + 10000 * MS, NULL};
    CHECK_OK(cci_net_dial("good", good_port, &wait, &net, &err), err);
    *peer = accept(server, NULL, NULL);
    CHECK(*peer >= 0);
    return net;
}

static struct cci_wait within(uint64_t ms)
{
    return (struct cci_wait){cci_os_now() + ms * MS, NULL};
}

static void fire(void *ctx)
{
    cci_cancel_fire(ctx);
}

/* ---- Tests ---------------------------------------------------------------------------------------------------- */

static void test_bytes_and_the_end(void)
{
    char buf[16];
    size_t done;
    cc_error err = {0};
    int peer, server = listener(5, &good_port);
    struct cci_net *net = connected(server, &peer);
    struct cci_wait wait = within(10000);
    CHECK(cci_net_is_quiet(net));
    CHECK_OK(cci_net_write(net, "hello", 5, &done, &wait, &err), err);
    CHECK_EQ_INT(done, 5);
    CHECK(recv(peer, buf, 5, MSG_WAITALL) == 5 && memcmp(buf, "hello", 5) == 0);
    CHECK(send(peer, "abc", 3, 0) == 3);
    CHECK_OK(cci_net_read(net, buf, 2, &done, &wait, &err), err);
    CHECK(done == 2 && memcmp(buf, "ab", 2) == 0);
    CHECK(!cci_net_is_quiet(net)); /* the c */
    CHECK_OK(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), err);
    CHECK_EQ_INT(done, 1);
    close(peer);
    CHECK_OK(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), err);
    CHECK_EQ_INT(done, 0);
    CHECK(!cci_net_is_quiet(net));
    cci_net_close(net);
    close(server);
}

static void test_addresses_in_turn(void)
{
    int server = listener(5, &good_port), refuses = listener(-1, &bad_port);
    struct cci_net *net;
    cc_error err = {0};
    struct cci_wait wait = within(10000);
    CHECK_OK(cci_net_dial("two", good_port, &wait, &net, &err), err);
    cci_net_close(net);
    CHECK_EQ_INT(cci_net_dial("127.0.0.1", bad_port, &wait, &net, &err), CC_ERR_NETWORK);
    CHECK(!net);
    CHECK_EQ_INT(err.sys_errno, ECONNREFUSED);
    CHECK(strstr(err.message, "127.0.0.1:") && strstr(err.message, "connection refused"));
    CHECK_EQ_INT(cci_net_dial("none", 1, &wait, &net, &err), CC_ERR_NETWORK);
    CHECK(strstr(err.message, "no host of the name none"));
    CHECK_EQ_INT(cci_net_dial("", 1, &wait, &net, &err), CC_ERR_NETWORK);
    cci_error_release(&err);
    close(server);
    close(refuses);
}

/* A listener whose queue is full answers no more: the kernel drops what else wants to connect. */
static int mute_listener(int *fill, int n)
{
    int server = listener(0, &mute_port);
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(mute_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < n; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(fill[i], (struct sockaddr *)&at, sizeof(at));
    }
    return server;
}

static void test_connecting_waits_under_control(void)
{
    int fill[16];
    int server = listener(5, &good_port), mute = mute_listener(fill, 16);
    struct cci_net *net;
    struct cci_thread thread;
    cc_error err = {0};
    uint64_t start = cci_os_now();
    struct cci_wait wait = within(10000);
    CHECK_OK(cci_net_dial("mute", good_port, &wait, &net, &err), err);
    uint64_t took = cci_os_now() - start;
    CHECK(took >= CCI_NET_STAGGER_NS && took < 10000 * MS);
    cci_net_close(net);
    wait = within(100);
    CHECK_EQ_INT(cci_net_dial("127.0.0.1", mute_port, &wait, &net, &err), CC_ERR_TIMEOUT);
    struct cci_cancel *token = cci_cancel_new();
    wait = (struct cci_wait){CCI_FOREVER, token};
    CHECK_EQ_INT(cci_thread_new(&thread, "fire", fire, token), 0);
    CHECK_EQ_INT(cci_net_dial("127.0.0.1", mute_port, &wait, &net, &err), CC_ERR_CANCELLED);
    CHECK(cci_os_now() - start < 30000 * MS);
    cci_thread_join(&thread);
    cci_cancel_unref(token);
    cci_error_release(&err);
    for (int i = 0; i < 16; i++)
        close(fill[i]);
    close(mute);
    close(server);
}

static void test_looking_up_waits_under_control(void)
{
    struct cci_net *net;
    struct cci_thread thread;
    cc_error err = {0};
    CHECK(pipe(resolver_gate) == 0);
    struct cci_wait wait = within(50);
    CHECK_EQ_INT(cci_net_dial("slow", 1, &wait, &net, &err), CC_ERR_TIMEOUT);
    struct cci_cancel *token = cci_cancel_new();
    wait = (struct cci_wait){CCI_FOREVER, token};
    CHECK_EQ_INT(cci_thread_new(&thread, "fire", fire, token), 0);
    CHECK_EQ_INT(cci_net_dial("slow", 1, &wait, &net, &err), CC_ERR_CANCELLED);
    cci_thread_join(&thread);
    cci_cancel_unref(token);
    wait = (struct cci_wait){CCI_FOREVER, NULL};
    CHECK(write(resolver_gate[1], "123", 3) == 3); /* for the two that nobody waits for any more, and the next */
    CHECK_EQ_INT(cci_net_dial("slow", 1, &wait, &net, &err), CC_ERR_NETWORK);
    CHECK(strstr(err.message, "did not answer"));
    cci_error_release(&err);
}

static void test_reading_waits_under_control(void)
{
    char buf[16];
    size_t done;
    cc_error err = {0};
    int peer, server = listener(5, &good_port);
    struct cci_thread thread;
    struct cci_net *net = connected(server, &peer);
    uint64_t start = cci_os_now();
    struct cci_wait wait = within(50);
    CHECK_EQ_INT(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), CC_ERR_TIMEOUT);
    net->idle_ns = 50 * MS;
    wait = (struct cci_wait){CCI_FOREVER, NULL};
    CHECK_EQ_INT(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), CC_ERR_NETWORK);
    CHECK_EQ_INT(err.sys_errno, ETIMEDOUT);
    net->idle_ns = 0;
    struct cci_cancel *token = cci_cancel_new();
    wait.cancel = token;
    CHECK_EQ_INT(cci_thread_new(&thread, "fire", fire, token), 0);
    CHECK_EQ_INT(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), CC_ERR_CANCELLED);
    cci_thread_join(&thread);
    CHECK(cci_os_now() - start < 30000 * MS);
    /* Nothing is read any more, though something is there; another call, under no token, still gets it. */
    CHECK(send(peer, "x", 1, 0) == 1);
    CHECK_EQ_INT(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), CC_ERR_CANCELLED);
    CHECK_EQ_INT(done, 0);
    wait = within(10000);
    CHECK_OK(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), err);
    CHECK(done == 1 && buf[0] == 'x');
    /* The cancellation is forgotten: a later wait is a wait. */
    wait = within(50);
    CHECK_EQ_INT(cci_net_read(net, buf, sizeof(buf), &done, &wait, &err), CC_ERR_TIMEOUT);
    cci_cancel_unref(token);
    cci_error_release(&err);
    cci_net_close(net);
    close(peer);
    close(server);
}

static void test_writing_waits_under_control(void)
{
    enum { MANY = 64 << 20 };
    uint8_t *many = calloc(1, MANY);
    size_t done;
    cc_error err = {0};
    int peer, server = listener(5, &good_port);
    struct cci_net *net = connected(server, &peer);
    struct cci_wait wait = within(200);
    CHECK(many);
    CHECK_EQ_INT(cci_net_write(net, many, MANY, &done, &wait, &err), CC_ERR_TIMEOUT);
    CHECK(done > 0 && done < MANY);
    const struct linger reset = {1, 0};
    CHECK(setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0);
    close(peer);
    wait = within(10000);
    CHECK_EQ_INT(cci_net_write(net, many, MANY, &done, &wait, &err), CC_ERR_NETWORK); /* and no SIGPIPE */
    CHECK(err.sys_errno == ECONNRESET || err.sys_errno == EPIPE);
    cci_error_release(&err);
    cci_net_close(net);
    free(many);
    close(server);
}

static unsigned allocations_left;

static void *failing(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size && allocations_left == 0)
        return NULL;
    allocations_left -= size != 0;
    return cci_mem_default_alloc(ctx, old, size);
}

static void test_every_allocation_may_fail(void)
{
    int server = listener(50, &good_port);
    struct cci_wait wait = within(10000);
    cc_error_code code = CC_ERR_UNKNOWN;
    unsigned n;
    cci_mem_hook.realloc_fn = failing;
    for (n = 0; code && n < 100; n++) {
        struct cci_net *net;
        allocations_left = n;
        code = cci_net_dial("good", good_port, &wait, &net, NULL);
        if (!code)
            cci_net_close(net);
    }
    cci_mem_hook.realloc_fn = cci_mem_default_alloc;
    CHECK(!code && n > 2);
    close(server);
}

int main(void)
{
    RUN(test_bytes_and_the_end);
    RUN(test_addresses_in_turn);
    RUN(test_connecting_waits_under_control);
    RUN(test_looking_up_waits_under_control);
    RUN(test_reading_waits_under_control);
    RUN(test_writing_waits_under_control);
    RUN(test_every_allocation_may_fail);
    return check_done();
}
