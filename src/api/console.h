/*
 * api/console.h - the guest's console for a caller: what comes out of its serial port goes to a function or a
 * descriptor, and bytes go in.
 *
 * A thread takes what the guest sends (machine/serial_wire.h) and passes it on, so that neither a function that takes
 * its time nor a descriptor that nobody reads holds up a CPU, or the log. When the machine has ended it passes on what
 * is left: to a function all of it, to a descriptor what it takes without waiting.
 */
#ifndef CCI_API_CONSOLE_H
#define CCI_API_CONSOLE_H

#include "../base/errno_text.h"
#include "../machine/serial_wire.h"

enum { CCI_CONSOLE_COPY = 4096 }; /* so small that writing it does not wait after a poll has allowed it */

struct cci_console {
    struct cci_serial *serial; /* NULL: nothing takes the console */
    cc_output_callback fn;     /* or NULL */
    void *user_data;
    cci_fd fd, stop; /* the descriptor; an eventfd, readable when nothing is to be waited for any more */
    uint8_t *buf;    /* CCI_CONSOLE_COPY bytes */
    struct cci_thread thread;
    struct cci_mutex mutex; /* guards has_thread, for cci_console_is_callback */
    bool has_thread;
};

/* Passes on to the descriptor; false when it takes no more. */
static bool cci_console_write(const struct cci_console *c, const uint8_t *buf, size_t n)
{
    while (n) {
        if (!cci_os_poll_until(c->fd, true, c->stop) && !cci_os_can_write(c->fd))
            return false;
        int64_t r = cci_os_write(c->fd, buf, n);
        if (r < 0 && r != -EAGAIN)
            return false;
        if (r > 0) {
            buf += r;
            n -= (size_t)r;
        }
    }
    return true;
}

static void cci_console_main(void *ctx)
{
    struct cci_console *c = ctx;
    bool wanted = true;
    size_t n;
    while (wanted && (n = cci_serial_take(c->serial, c->buf, CCI_CONSOLE_COPY)) != 0)
        wanted = c->fn ? c->fn(c->buf, n, c->user_data) : cci_console_write(c, c->buf, n);
    cci_serial_detach(c->serial);
}

/* Of a zeroed console. */
static void cci_console_init(struct cci_console *c)
{
    cci_mutex_init(&c->mutex);
    c->fd = c->stop = CCI_NO_FD;
}

/* Of one that was not started, or was stopped. */
static void cci_console_destroy(struct cci_console *c)
{
    cci_mutex_destroy(&c->mutex);
}

/* Attaches it to a machine that does not run yet; `fd` is duplicated. Neither function nor descriptor (0): nothing is
 * attached. */
static cc_error_code cci_console_start(struct cci_console *c, struct cci_serial *serial, cc_output_callback fn,
                                       void *user_data, int fd, cc_error *err)
{
    if (!fn && !fd)
        return CC_OK;
    c->fn = fn;
    c->user_data = user_data;
    c->fd = fn ? CCI_NO_FD : cci_os_dup(fd);
    if (!fn && c->fd < 0)
        return cci_fail_errno(err, CC_ERR_INVALID_ARGUMENT, -c->fd, NULL, "console_fd cannot be used: %s",
                              cci_errno_text(-c->fd));
    c->stop = cci_os_eventfd();
    if (c->stop < 0)
        return cci_fail_errno(err, CC_ERR_IO, -c->stop, NULL, "cannot make a descriptor: too many open files?");
    c->buf = cci_mem_alloc(CCI_CONSOLE_COPY);
    if (!c->buf)
        return cci_fail_nomem(err);
    cc_error_code code = cci_serial_attach(serial, err);
    if (code)
        return code;
    c->serial = serial;
    cci_mutex_lock(&c->mutex);
    int r = cci_thread_new(&c->thread, "cc-console", cci_console_main, c);
    c->has_thread = r == 0;
    cci_mutex_unlock(&c->mutex);
    return r ? cci_fail_errno(err, CC_ERR_UNKNOWN, -r, NULL, "cannot start a thread for the console") : CC_OK;
}

/* On the thread that calls the function. */
static bool cci_console_is_callback(struct cci_console *c)
{
    cci_mutex_lock(&c->mutex);
    bool is = c->has_thread && cci_thread_is_self(&c->thread);
    cci_mutex_unlock(&c->mutex);
    return is;
}

/* The machine's CPUs have stopped: passes on what is left, and ends the thread. The serial port stays. */
static void cci_console_stop(struct cci_console *c)
{
    if (c->has_thread) {
        cci_serial_close(c->serial);
        cci_os_eventfd_signal(c->stop);
        cci_thread_join(&c->thread);
        cci_mutex_lock(&c->mutex);
        c->has_thread = false;
        cci_mutex_unlock(&c->mutex);
    }
    cci_os_close(c->fd);
    cci_os_close(c->stop);
    cci_mem_free(c->buf);
}

#endif
