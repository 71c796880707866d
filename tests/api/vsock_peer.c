/*
 * A program for the guest, to talk to:
 *
 *     vsock_peer echo PORT     listens; sends back what each connection sends, until its end, then closes it
 *     vsock_peer deaf PORT     listens, accepts one, and never reads
 *     vsock_peer say PORT TEXT connects to the host, sends TEXT, and prints what comes until the end
 *     vsock_peer flood PORT N  makes N connections to the host, more than it keeps; prints how many stay, and closes
 * them
 */
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_vm address(unsigned cid, const char *port)
{
    struct sockaddr_vm a;
    memset(&a, 0, sizeof(a));
    a.svm_family = AF_VSOCK;
    a.svm_cid = cid;
    a.svm_port = (unsigned)atoi(port);
    return a;
}

static int dial(const char *port)
{
    struct sockaddr_vm a = address(VMADDR_CID_HOST, port);
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    close(fd);
    return -1;
}

static void echo(int fd)
{
    char buf[65536];
    ssize_t n;
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        for (ssize_t at = 0, k; at < n; at += k)
            if ((k = write(fd, buf + at, (size_t)(n - at))) <= 0)
                exit(1);
    close(fd);
}

static int serve(const char *port, int deaf)
{
    struct sockaddr_vm a = address(VMADDR_CID_ANY, port);
    int s = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (bind(s, (struct sockaddr *)&a, sizeof(a)) || listen(s, 8))
        return 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        int fd = accept(s, NULL, NULL);
        if (!deaf && fork() == 0) {
            echo(fd);
            _exit(0);
        }
        if (deaf)
            sleep(1000);
        close(fd);
    }
}

int main(int argc, char **argv)
{
    char buf[1000];
    ssize_t n;
    if (argc < 3)
        return 2;
    if (!strcmp(argv[1], "echo") || !strcmp(argv[1], "deaf"))
        return serve(argv[2], argv[1][0] == 'd');
    if (!strcmp(argv[1], "flood")) {
        int taken = 0, want = atoi(argv[3]), fd[1000];
        for (int i = 0; i < want && i < 1000; i++)
            if ((fd[taken] = dial(argv[2])) >= 0)
                taken++;
        /* Those beyond the backlog are closed again, in the order in which they came: the last one is the last event.
         */
        struct pollfd last = {taken ? fd[taken - 1] : -1, POLLIN, 0};
        (void)poll(&last, 1, taken ? -1 : 0);
        int stay = 0;
        for (int i = 0; i < taken; i++)
            stay += recv(fd[i], buf, 1, MSG_DONTWAIT) < 0 && send(fd[i], "", 1, MSG_NOSIGNAL) == 1;
        printf("%d\n", stay);
        return 0;
    }
    int fd = dial(argv[2]);
    if (fd < 0) {
        perror("connect");
        return 1;
    }
    if (write(fd, argv[3], strlen(argv[3])) < 0)
        return 1;
    shutdown(fd, SHUT_WR);
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        (void)!write(1, buf, (size_t)n);
    return n < 0;
}
