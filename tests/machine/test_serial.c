/* The serial port: what a driver's probe sees, interrupts, lines, and what is remembered. */
#include "../check.h"

#include "../../src/machine/serial.h"

static unsigned raised;
static char lines[40][CCI_SERIAL_LINE];
static unsigned line_count;
static struct cci_serial serial;

static void count(void *ctx)
{
    (void)ctx;
    raised++;
}

static void on_line(void *ctx, const char *line)
{
    (void)ctx;
    if (line_count < 40)
        memcpy(lines[line_count], line, strlen(line) + 1);
    line_count++;
}

static void begin(void)
{
    static const struct cci_irq irq = {count, NULL};
    raised = line_count = 0;
    cci_serial_init(&serial, &irq, on_line, NULL);
}

static uint8_t get(unsigned reg)
{
    uint8_t v = 0xee;
    cci_serial_ops()->read(&serial, reg, 1, &v);
    return v;
}

static void put(unsigned reg, uint8_t v)
{
    cci_serial_ops()->write(&serial, reg, 1, &v);
}

static void say(const char *text)
{
    for (; *text; text++)
        put(CCI_SERIAL_DATA, (uint8_t)*text);
}

/* As Linux's autoconfig: scratch and enable registers hold values, the loop connects the modem lines, FIFOs are there.
 */
static void test_probe(void)
{
    begin();
    put(CCI_SERIAL_IER, 0);
    CHECK_EQ_INT(get(CCI_SERIAL_IER), 0);
    put(CCI_SERIAL_IER, 0x0f);
    CHECK_EQ_INT(get(CCI_SERIAL_IER), 0x0f);
    put(CCI_SERIAL_IER, 0);
    put(CCI_SERIAL_SCRATCH, 0xa5);
    CHECK_EQ_INT(get(CCI_SERIAL_SCRATCH), 0xa5);
    put(CCI_SERIAL_MCR, 0x10 | 0x0a); /* loop, OUT2, RTS */
    CHECK_EQ_INT(get(CCI_SERIAL_MSR) & 0xf0, 0x90);
    put(CCI_SERIAL_MCR, 0);
    CHECK_EQ_INT(get(CCI_SERIAL_MSR), 0xb0);
    put(CCI_SERIAL_IIR, 1);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR) >> 6, 3);
    put(CCI_SERIAL_LCR, 0x83);
    put(0, 1);
    put(1, 2);
    CHECK_EQ_INT(get(0), 1);
    CHECK_EQ_INT(get(1), 2);
    put(CCI_SERIAL_LCR, 3);
    CHECK_EQ_INT(get(CCI_SERIAL_LCR), 3);
    CHECK_EQ_INT(serial.total, 0); /* the divisor was not sent */
    cci_serial_free(&serial);
}

static void test_loop(void)
{
    begin();
    put(CCI_SERIAL_MCR, 0x10);
    put(CCI_SERIAL_IER, 1);
    put(CCI_SERIAL_DATA, 'x');
    CHECK_EQ_INT(raised, 1);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR) & 15, 4);
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x61);
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 'x');
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x60);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR) & 15, 1);
    CHECK_EQ_INT(serial.total, 0);
    cci_serial_free(&serial);
}

static void test_transmit_interrupt(void)
{
    begin();
    CHECK_EQ_INT(get(CCI_SERIAL_IIR), 1);
    put(CCI_SERIAL_IER, 2);
    CHECK_EQ_INT(raised, 1);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR), 2);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR), 1); /* reading it took it away */
    put(CCI_SERIAL_DATA, 'a');
    CHECK_EQ_INT(raised, 2);
    put(CCI_SERIAL_DATA, 'b');
    CHECK_EQ_INT(raised, 3); /* an edge for each: the guest may have missed none */
    put(CCI_SERIAL_IER, 0);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR), 1);
    put(CCI_SERIAL_DATA, 'c');
    CHECK_EQ_INT(raised, 3);
    put(CCI_SERIAL_IER, 2);
    CHECK_EQ_INT(raised, 4);
    cci_serial_free(&serial);
}

static void test_lines(void)
{
    begin();
    say("one\r\n\ntwo");
    CHECK_EQ_INT(line_count, 2);
    CHECK_EQ_STR(lines[0], "one");
    CHECK_EQ_STR(lines[1], "");
    cci_serial_flush(&serial);
    CHECK_EQ_INT(line_count, 3);
    CHECK_EQ_STR(lines[2], "two");
    cci_serial_flush(&serial);
    CHECK_EQ_INT(line_count, 3);
    for (unsigned i = 0; i < 2 * CCI_SERIAL_LINE; i++)
        say("x"); /* a guest that never ends its line */
    CHECK_EQ_INT(line_count, 5);
    CHECK_EQ_INT(strlen(lines[3]), CCI_SERIAL_LINE - 1);
    cci_serial_free(&serial);
}

static void test_tail(void)
{
    begin();
    char *t = cci_serial_tail(&serial, 100);
    CHECK_EQ_STR(t, "");
    cci_mem_free(t);
    say("first\r\nsecond\n");
    t = cci_serial_tail(&serial, 100);
    CHECK_EQ_STR(t, "first\nsecond\n");
    cci_mem_free(t);
    t = cci_serial_tail(&serial, 10); /* begins at a line's start */
    CHECK_EQ_STR(t, "second\n");
    cci_mem_free(t);
    for (unsigned i = 0; i < 3000; i++) {
        char line[32];
        (void)snprintf(line, sizeof(line), "line %u\n", i);
        say(line);
    }
    t = cci_serial_tail(&serial, 1 << 20);
    CHECK(strlen(t) < CCI_SERIAL_KEEP && strlen(t) > CCI_SERIAL_KEEP - 32);
    CHECK(strncmp(t, "line ", 5) == 0);
    CHECK(strstr(t, "line 2999\n"));
    cci_mem_free(t);
    cci_serial_free(&serial);
}

int main(void)
{
    RUN(test_probe);
    RUN(test_loop);
    RUN(test_transmit_interrupt);
    RUN(test_lines);
    RUN(test_tail);
    return check_done();
}
