/*
 * Where connections come from: the listening socket, and the one connection that we dial (guest/protocol.h).
 */
#include "agent.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static struct source listener;

static void accept_ready(struct source *s, uint32_t events)
{
    struct sockaddr_vm peer = {0};
    socklen_t n = sizeof peer;
    int fd = accept4(s->fd, (struct sockaddr *)&peer, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
    (void)events;
    if (fd < 0)
        return;
    /* A workload reaches this port through vsock's loopback: only the host may speak to us. */
    if ((peer.svm_family == AF_VSOCK && peer.svm_cid != VMADDR_CID_HOST) || conn_too_many()) {
        close(fd);
        return;
    }
    if (conn_has_control()) {
        conn_new(fd, CONN_NEW, EPOLLIN);
        return;
    }
    conn_new(fd, CONN_CONTROL, EPOLLIN);
    conn_hello();
}

static int listen_on(int family, const void *address, socklen_t size)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int err;
    if (fd < 0)
        die("socket", errno);
    if (bind(fd, address, size))
        die("bind", errno);
    if (listen(fd, 128))
        die("listen", errno);
    err = loop_add(&listener, fd, EPOLLIN, accept_ready);
    if (err)
        die("epoll", err);
    return fd;
}

void serve_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        die("socket path", ENAMETOOLONG);
    memcpy(a.sun_path, path, strlen(path) + 1);
    listen_on(AF_UNIX, &a, sizeof a);
}

void serve_vsock(void)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = CCI_PROTO_PORT};
    /* The kernel's 2 seconds are soon over in a machine that is paused or emulated. */
    const struct timeval patience = {3600, 0};
    int fd;
    listen_on(AF_VSOCK, &a, sizeof a);
    fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        die("socket", errno);
    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof patience);
    a.svm_cid = VMADDR_CID_HOST;
    a.svm_port = CCI_PROTO_READY_PORT;
    if (connect(fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS)
        die("dial of the host", errno);
    conn_new(fd, CONN_CONTROL, EPOLLOUT)->connecting = true;
}
