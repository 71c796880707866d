/*
 * machine/serial_wire.h - the other end of the serial port: whoever takes what the guest sends, and sends to it.
 *
 *     cci_serial_attach    from now on what the guest sends is kept for a taker; before the machine runs
 *     cci_serial_take      waits for some of it
 *     cci_serial_detach    there is no taker any more
 *     cci_serial_feed      sends to the guest; waits while the wire is full
 *     cci_serial_hang_up   the guest takes nothing any more: ends such waits
 *     cci_serial_close     the guest sends nothing any more: the taker comes to the end
 *
 * Any thread but a CPU's.
 */
#ifndef CCI_MACHINE_SERIAL_WIRE_H
#define CCI_MACHINE_SERIAL_WIRE_H

#include "serial.h"

static cc_error_code cci_serial_attach(struct cci_serial *s, cc_error *err)
{
    uint8_t *out = cci_mem_alloc(CCI_SERIAL_OUT_ROOM);
    if (!out)
        return cci_fail_nomem(err);
    cci_monitor_lock(&s->monitor);
    s->out = out;
    cci_monitor_unlock(&s->monitor);
    return CC_OK;
}

/* Unlocks; the causes of interrupts have changed. */
static void cci_serial_unlock(struct cci_serial *s)
{
    bool raise = cci_serial_update(s);
    cci_monitor_unlock(&s->monitor);
    if (raise)
        cci_irq_raise(&s->irq);
}

static bool cci_serial_has_output(void *ctx)
{
    const struct cci_serial *s = ctx;
    return s->out_n || s->closed;
}

/* Waits for output and takes up to n bytes: how many; 0: that was all. */
static size_t cci_serial_take(struct cci_serial *s, uint8_t *buf, size_t n)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    (void)cci_monitor_wait(&s->monitor, &forever, cci_serial_has_output, s, "output", NULL);
    n = CCI_MIN(n, s->out_n);
    for (size_t i = 0; i < n; i++)
        buf[i] = s->out[(s->out_first + i) % CCI_SERIAL_OUT_ROOM];
    s->out_first = (s->out_first + n) % CCI_SERIAL_OUT_ROOM;
    s->out_n -= n;
    cci_serial_unlock(s);
    return n;
}

static void cci_serial_detach(struct cci_serial *s)
{
    cci_monitor_lock(&s->monitor);
    uint8_t *out = s->out;
    s->out = NULL;
    s->out_n = 0;
    cci_serial_unlock(s);
    cci_mem_free(out);
}

static bool cci_serial_has_room(void *ctx)
{
    const struct cci_serial *s = ctx;
    return s->in_n < CCI_SERIAL_IN || s->hung_up;
}

/* Sends all of it; *done says how much was taken, also on failure: CC_ERR_NOT_RUNNING, without words, once it was hung
 * up. Several threads' bytes may mix. */
static cc_error_code cci_serial_feed(struct cci_serial *s, const uint8_t *buf, size_t n, size_t *done,
                                     const struct cci_wait *wait, cc_error *err)
{
    cc_error_code code = CC_OK;
    *done = 0;
    while (*done < n && code == CC_OK) {
        code = cci_monitor_wait(&s->monitor, wait, cci_serial_has_room, s, "the guest to read its console", err);
        if (code == CC_OK && s->hung_up)
            code = CC_ERR_NOT_RUNNING;
        for (; code == CC_OK && *done < n && s->in_n < CCI_SERIAL_IN; s->in_n++)
            s->in[(s->in_first + s->in_n) % CCI_SERIAL_IN] = buf[(*done)++];
        s->asserted = false; /* a driver that left the last interrupt with bytes unread gets another */
        cci_serial_unlock(s);
    }
    return code;
}

static void cci_serial_hang_up(struct cci_serial *s)
{
    cci_monitor_lock(&s->monitor);
    s->hung_up = true;
    cci_cond_wake(&s->monitor.cond);
    cci_monitor_unlock(&s->monitor);
}

static void cci_serial_close(struct cci_serial *s)
{
    cci_monitor_lock(&s->monitor);
    s->hung_up = s->closed = true;
    cci_cond_wake(&s->monitor.cond);
    cci_monitor_unlock(&s->monitor);
}

#endif
