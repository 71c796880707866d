/*
 * The rig's init (riginit.c): the port to the host, a virtio-serial one.
 *
 * It carries frames both ways: one type byte, a 32-bit little-endian length, the payload.
 *
 *   to the guest   'j' job
 *                  'i' bytes for standard input; of length 0: its end
 *   to the host    'r' ready
 *                  's' the command starts now
 *                  'o', 'e' bytes of standard output, error
 *                  'x' exit status in decimal
 *                  'f' failure of the rig itself, in words
 */
#ifndef RIGINIT_PORT_H
#define RIGINIT_PORT_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 32768 }; /* bytes in a frame to the host */

static int port = -1; /* -1 until it is open */

static void write_all(int fd, const void *data, size_t size)
{
    const char *next = data;
    while (size > 0) {
        ssize_t n = write(fd, next, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the host has gone: nobody is left to tell */
        next += n;
        size -= (size_t)n;
    }
}

static void send_frame(char type, const void *data, size_t size)
{
    unsigned char frame[5 + CHUNK];
    frame[0] = (unsigned char)type;
    for (int i = 0; i < 4; i++)
        frame[1 + i] = (unsigned char)(size >> (8 * i));
    memcpy(frame + 5, data, size);
    write_all(port, frame, 5 + size);
}

/* Reports a failure of the rig (not of the command) and stops the machine for good. */
static void fail(const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (port >= 0)
        send_frame('f', text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    else
        fprintf(stderr, "rig init: %s\n", text);
    for (;;)
        pause();
}

static void read_all(int fd, void *data, size_t size)
{
    char *next = data;
    while (size > 0) {
        ssize_t n = read(fd, next, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fail("the port to the host ended early");
        next += n;
        size -= (size_t)n;
    }
}

static size_t read_frame_header(char *type)
{
    unsigned char header[5];
    read_all(port, header, sizeof header);
    *type = (char)header[0];
    return (size_t)header[1] | (size_t)header[2] << 8 | (size_t)header[3] << 16 | (size_t)header[4] << 24;
}

/* The port's node appears when the host's control message has been handled, a little after the driver came up. */
static void open_port(void)
{
    for (int tries = 0; tries < 5000; tries++) {
        port = open("/dev/vport0p1", O_RDWR | O_CLOEXEC);
        if (port >= 0)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    fail("no /dev/vport0p1: the kernel lacks virtio-console or virtio-mmio");
}

#endif
