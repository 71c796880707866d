/*
 * machine/serial.h - a serial port (16550A): the guest's console.
 *
 * The registers are the ones that a driver uses to find the port, to send, and to be told by interrupt that it may send
 * more (National Semiconductor PC16550D, "Registers"). What the guest sends is cut into lines for a callback, and the
 * last few KiB are kept, so that a guest that dies in its boot can be quoted. serial_wire.h has the other end, where
 * somebody may take the raw bytes, and send some.
 *
 * Sending. The transmitter is empty at once, so its interrupt becomes pending when it is enabled and after each byte,
 * and goes when the guest reads that it was the cause. When whoever takes the bytes falls behind, the transmitter stays
 * full: a driver that works by interrupts waits then, and so do the programs that write. A kernel that prints a message
 * polls instead, with interrupts off, and would spin; it is never kept waiting. What comes with the buffer full, by
 * polling or by a driver that does not look, goes to a reserve, and is lost for the taker when that is full, too.
 *
 * Receiving. What was sent to the guest waits on the wire until the guest has enabled the interrupt for it, as it would
 * for flow control's sake: a driver that starts clears its FIFOs, and finds nothing of it there.
 */
#ifndef CCI_MACHINE_SERIAL_H
#define CCI_MACHINE_SERIAL_H

#include "../base/cancel.h"
#include "../hv/irq.h"
#include "bus.h"

#define CCI_SERIAL_PORT 0x3f8u
#define CCI_SERIAL_IRQ 4u
#define CCI_SERIAL_LINE 512u  /* a longer line is handed out in pieces */
#define CCI_SERIAL_KEEP 8192u /* bytes of the console that are remembered */
#define CCI_SERIAL_OUT 16384u /* bytes for the taker, from which on the transmitter is full; a power of two */
#define CCI_SERIAL_OUT_ROOM (2 * CCI_SERIAL_OUT) /* with the reserve */
#define CCI_SERIAL_IN 4096u                      /* bytes for the guest */

enum cci_serial_reg { /* with the divisor latch off; on: 0 and 1 are the divisor */
                      CCI_SERIAL_DATA,
                      CCI_SERIAL_IER, /* interrupts enabled: 1 data, 2 transmitter, 4 line, 8 modem */
                      CCI_SERIAL_IIR, /* read: the cause; written: FIFO control */
                      CCI_SERIAL_LCR, /* bit 7: divisor latch */
                      CCI_SERIAL_MCR, /* bit 4: loop */
                      CCI_SERIAL_LSR,
                      CCI_SERIAL_MSR,
                      CCI_SERIAL_SCRATCH
};

struct cci_serial {
    struct cci_monitor monitor;
    struct cci_irq irq;
    uint8_t ier, lcr, mcr, fcr, scratch, divisor[2];
    uint8_t received; /* of a loop */
    bool has_received;
    bool sent_pending;                            /* the transmitter's interrupt is pending */
    bool asserted;                                /* the line is up: the next cause makes no new edge */
    void (*line_fn)(void *ctx, const char *line); /* or NULL; on a vCPU thread, with the monitor not held */
    void *line_ctx;
    char line[CCI_SERIAL_LINE]; /* the line being sent */
    size_t line_n;
    char keep[CCI_SERIAL_KEEP]; /* ring of what was sent */
    uint64_t total;             /* bytes ever sent */
    uint8_t *out;               /* ring of CCI_SERIAL_OUT_ROOM for the taker; NULL: there is none */
    size_t out_first, out_n;
    uint8_t in[CCI_SERIAL_IN]; /* ring of what is on its way to the guest */
    size_t in_first, in_n;
    bool hung_up; /* nothing goes to the guest any more */
    bool closed;  /* nothing comes from it any more */
};

static void cci_serial_init(struct cci_serial *s, const struct cci_irq *irq, void (*line_fn)(void *, const char *),
                            void *line_ctx)
{
    memset(s, 0, sizeof(*s));
    cci_monitor_init(&s->monitor);
    s->irq = *irq;
    s->line_fn = line_fn;
    s->line_ctx = line_ctx;
}

static void cci_serial_free(struct cci_serial *s)
{
    cci_mem_free(s->out);
    cci_monitor_destroy(&s->monitor);
}

static bool cci_serial_has_input(const struct cci_serial *s)
{
    return s->has_received || (s->in_n && (s->ier & 1) && !(s->mcr & 0x10));
}

/* Whether the transmitter is empty. */
static bool cci_serial_may_send(const struct cci_serial *s)
{
    return !(s->ier & 2) || !s->out || s->out_n < CCI_SERIAL_OUT;
}

static uint8_t cci_serial_cause(const struct cci_serial *s)
{
    if (cci_serial_has_input(s) && (s->ier & 1))
        return 4;
    if (s->sent_pending && (s->ier & 2) && cci_serial_may_send(s))
        return 2;
    return 1; /* none */
}

/* Returns whether the line has just gone up, which the caller turns into an interrupt after unlocking. */
static bool cci_serial_update(struct cci_serial *s)
{
    bool was = s->asserted;
    s->asserted = cci_serial_cause(s) != 1;
    return s->asserted && !was;
}

/* A byte as it may stand in a log or a message: the guest gets no say on the terminal where that is shown. */
static char cci_serial_printable(uint8_t byte)
{
    return (byte >= 0x20 && byte < 0x7f) || byte == '\t' || byte == '\n' ? (char)byte : '?';
}

/* Takes a byte that was sent. Returns whether a line is complete; it is then in `line`, and forgotten here. */
static bool cci_serial_sent(struct cci_serial *s, uint8_t byte, char *line)
{
    s->keep[s->total++ % CCI_SERIAL_KEEP] = (char)byte;
    if (s->out && s->out_n < CCI_SERIAL_OUT_ROOM) {
        s->out[(s->out_first + s->out_n) % CCI_SERIAL_OUT_ROOM] = byte;
        if (s->out_n++ == 0)
            cci_cond_wake(&s->monitor.cond);
    }
    bool ends = byte == '\n';
    if (!ends && byte != '\r' && byte != 0)
        s->line[s->line_n++] = cci_serial_printable(byte);
    if (!ends && s->line_n < CCI_SERIAL_LINE - 1)
        return false;
    memcpy(line, s->line, s->line_n);
    line[s->line_n] = '\0';
    s->line_n = 0;
    return s->line_fn != NULL;
}

/* With the mutex held; returns whether `line` was filled. */
static bool cci_serial_write_reg(struct cci_serial *s, unsigned reg, uint8_t v, char *line)
{
    bool latch = s->lcr & 0x80;
    if (latch && reg <= 1) {
        s->divisor[reg] = v;
        return false;
    }
    switch (reg) {
    case CCI_SERIAL_DATA:
        if (s->mcr & 0x10) {
            s->received = v;
            s->has_received = true;
            return false;
        }
        s->sent_pending = true;
        s->asserted = false; /* a byte ends the old cause: the next one is a new edge */
        return cci_serial_sent(s, v, line);
    case CCI_SERIAL_IER:
        if ((v & 2) && !(s->ier & 2))
            s->sent_pending = true;
        s->ier = v & 0x0f;
        return false;
    case CCI_SERIAL_IIR:
        s->fcr = v;
        if (v & 2)
            s->has_received = false;
        return false;
    case CCI_SERIAL_LCR:
        s->lcr = v;
        return false;
    case CCI_SERIAL_MCR:
        s->mcr = v & 0x1f;
        return false;
    case CCI_SERIAL_SCRATCH:
        s->scratch = v;
        return false;
    default:
        return false;
    }
}

/* In a loop the modem lines are connected to each other; else the other end is there and ready. */
static uint8_t cci_serial_modem(const struct cci_serial *s)
{
    if (!(s->mcr & 0x10))
        return 0xb0; /* carrier, data set ready, clear to send */
    return (uint8_t)((s->mcr & 1u) << 5 | (s->mcr & 2u) << 3 | (s->mcr & 4u) << 4 | (s->mcr & 8u) << 4);
}

/* The next byte for the guest. */
static uint8_t cci_serial_receive(struct cci_serial *s)
{
    if (s->has_received || !cci_serial_has_input(s)) {
        s->has_received = false;
        return s->received;
    }
    s->received = s->in[s->in_first];
    s->in_first = (s->in_first + 1) % CCI_SERIAL_IN;
    if (s->in_n-- == CCI_SERIAL_IN)
        cci_cond_wake(&s->monitor.cond); /* there is room again */
    return s->received;
}

static uint8_t cci_serial_read_reg(struct cci_serial *s, unsigned reg)
{
    uint8_t v;
    if ((s->lcr & 0x80) && reg <= 1)
        return s->divisor[reg];
    switch (reg) {
    case CCI_SERIAL_DATA:
        return cci_serial_receive(s);
    case CCI_SERIAL_IER:
        return s->ier;
    case CCI_SERIAL_IIR:
        v = cci_serial_cause(s);
        if (v == 2)
            s->sent_pending = false;
        return v | ((s->fcr & 1) ? 0xc0 : 0);
    case CCI_SERIAL_LCR:
        return s->lcr;
    case CCI_SERIAL_MCR:
        return s->mcr;
    case CCI_SERIAL_LSR:
        return (cci_serial_has_input(s) ? 1 : 0) | (cci_serial_may_send(s) ? 0x60 : 0);
    case CCI_SERIAL_MSR:
        return cci_serial_modem(s);
    default:
        return s->scratch;
    }
}

static void cci_serial_read(void *ctx, uint64_t offset, unsigned size, uint8_t *data)
{
    struct cci_serial *s = ctx;
    memset(data, 0, size);
    cci_monitor_lock(&s->monitor);
    data[0] = cci_serial_read_reg(s, (unsigned)offset & 7);
    bool raise = cci_serial_update(s);
    cci_monitor_unlock(&s->monitor);
    if (raise)
        cci_irq_raise(&s->irq);
}

static void cci_serial_write(void *ctx, uint64_t offset, unsigned size, const uint8_t *data)
{
    struct cci_serial *s = ctx;
    char line[CCI_SERIAL_LINE];
    (void)size; /* the registers are 8 bits wide */
    cci_monitor_lock(&s->monitor);
    bool has_line = cci_serial_write_reg(s, (unsigned)offset & 7, data[0], line);
    bool raise = cci_serial_update(s);
    cci_monitor_unlock(&s->monitor);
    if (raise)
        cci_irq_raise(&s->irq);
    if (has_line)
        s->line_fn(s->line_ctx, line);
}

static const struct cci_bus_ops *cci_serial_ops(void)
{
    static const struct cci_bus_ops ops = {cci_serial_read, cci_serial_write};
    return &ops;
}

/* Hands out a line that has no end yet: the machine has ended, and there will be no more. */
static void cci_serial_flush(struct cci_serial *s)
{
    char line[CCI_SERIAL_LINE];
    cci_monitor_lock(&s->monitor);
    size_t n = s->line_n;
    memcpy(line, s->line, n);
    line[n] = '\0';
    s->line_n = 0;
    cci_monitor_unlock(&s->monitor);
    if (n && s->line_fn)
        s->line_fn(s->line_ctx, line);
}

/* The end of the console in a fresh string, at most `max` bytes, from the start of a line; NULL without memory. */
static char *cci_serial_tail(struct cci_serial *s, size_t max)
{
    char *text = cci_mem_alloc(CCI_SERIAL_KEEP + 1);
    if (!text)
        return NULL;
    cci_monitor_lock(&s->monitor);
    uint64_t n = CCI_MIN(s->total, CCI_MIN((uint64_t)max, (uint64_t)CCI_SERIAL_KEEP));
    bool cut = n < s->total;
    size_t out = 0;
    for (uint64_t i = s->total - n; i < s->total; i++) {
        char c = s->keep[i % CCI_SERIAL_KEEP];
        if (cut) {
            cut = c != '\n';
            continue;
        }
        if (c != '\r' && c != '\0')
            text[out++] = cci_serial_printable((uint8_t)c);
    }
    cci_monitor_unlock(&s->monitor);
    text[out] = '\0';
    return text;
}

#endif
