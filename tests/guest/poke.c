/* A workload that tries to speak to the agent over vsock, by every address it may think of: prints what it was told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void poke(const char *name, unsigned cid, unsigned port)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    const struct timeval brief = {2, 0};
    char byte;
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        printf("%s: refused\n", name);
    } else {
        ssize_t n = recv(fd, &byte, 1, 0);
        printf("%s: %s\n", name, n > 0 ? "ANSWERED" : n == 0 || errno == ECONNRESET ? "closed" : "silent");
    }
    close(fd);
}

int main(void)
{
    poke("agent by loopback", VMADDR_CID_LOCAL, 1021);
    poke("agent by own address", 3, 1021);
    poke("host's ready port", VMADDR_CID_HOST, 1022);
    poke("host's agent port", VMADDR_CID_HOST, 1021);
    return 0;
}
