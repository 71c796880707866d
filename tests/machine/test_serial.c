/*
 * The serial port: what a driver's probe sees, interrupts, lines, what is remembered, and its other end.
 * @sanitize address,undefined
 * @sanitize thread
 */
#include "../check.h"

#include <pthread.h>

#include "../../src/machine/serial_wire.h"

static unsigned raised;
static char lines[40][CCI_SERIAL_LINE];
static unsigned line_count;
static struct cci_serial serial;

static void count(void *ctx)
{
    (void)ctx;
    __atomic_add_fetch(&raised, 1, __ATOMIC_RELAXED); /* on any thread */
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

static void test_what_the_guest_says_is_printable(void)
{
    begin();
    say("a\033[2J\tb\x7f\x9b\n");
    CHECK_EQ_STR(lines[0], "a?[2J\tb??");
    char *t = cci_serial_tail(&serial, 100);
    CHECK_EQ_STR(t, "a?[2J\tb??\n");
    cci_mem_free(t);
    cci_serial_free(&serial);
}

/* ---- The other end ---- */

static void feed(const char *text)
{
    const struct cci_wait forever = CCI_WAIT_FOREVER;
    size_t n;
    CHECK_EQ_INT(cci_serial_feed(&serial, (const uint8_t *)text, strlen(text), &n, &forever, NULL), CC_OK);
    CHECK_EQ_INT(n, strlen(text));
}

static void test_receive(void)
{
    begin();
    feed("abc");
    CHECK_EQ_INT(raised, 0);
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x60); /* it waits for the driver */
    put(CCI_SERIAL_IIR, 3);                  /* which clears the FIFOs as it starts */
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 0);
    put(CCI_SERIAL_IER, 5);
    CHECK_EQ_INT(raised, 1);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR) & 15, 4);
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x61);
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 'a');
    put(CCI_SERIAL_IER, 0); /* a message is printed meanwhile */
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x60);
    put(CCI_SERIAL_IER, 5);
    CHECK_EQ_INT(raised, 2);
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 'b');
    feed("d"); /* an edge for each, whatever is left */
    CHECK_EQ_INT(raised, 3);
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 'c');
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 'd');
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x60);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR) & 15, 1);
    put(CCI_SERIAL_MCR, 0x10); /* a loop is with itself */
    feed("e");
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x60);
    put(CCI_SERIAL_DATA, 'x');
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 'x');
    put(CCI_SERIAL_MCR, 0);
    CHECK_EQ_INT(get(CCI_SERIAL_DATA), 'e');
    cci_serial_free(&serial);
}

static void test_feeding_ends(void)
{
    static const uint8_t zeros[2 * CCI_SERIAL_IN] = {0};
    const struct cci_wait past = {1, NULL}, forever = CCI_WAIT_FOREVER;
    size_t n;
    begin();
    CHECK_EQ_INT(cci_serial_feed(&serial, zeros, sizeof(zeros), &n, &past, NULL), CC_ERR_TIMEOUT);
    CHECK_EQ_INT(n, CCI_SERIAL_IN);
    cci_serial_hang_up(&serial);
    CHECK_EQ_INT(cci_serial_feed(&serial, zeros, 1, &n, &forever, NULL), CC_ERR_NOT_RUNNING);
    CHECK_EQ_INT(n, 0);
    cci_serial_free(&serial);
}

/* A taker that does not take: the driver that looks is held up, who does not is not, and memory has its bound. */
static void test_a_full_transmitter(void)
{
    uint8_t buf[1000];
    begin();
    CHECK_EQ_INT(cci_serial_attach(&serial, NULL), CC_OK);
    put(CCI_SERIAL_IER, 2);
    for (unsigned i = 0; i < CCI_SERIAL_OUT; i++) {
        CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x60);
        put(CCI_SERIAL_DATA, (uint8_t)i);
    }
    unsigned before = raised;
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0);
    CHECK_EQ_INT(get(CCI_SERIAL_IIR) & 15, 1);
    put(CCI_SERIAL_IER, 0);
    CHECK_EQ_INT(get(CCI_SERIAL_LSR), 0x60); /* who prints by polling */
    for (unsigned i = 0; i < 2 * CCI_SERIAL_OUT; i++)
        put(CCI_SERIAL_DATA, 'p');
    CHECK_EQ_INT(serial.out_n, CCI_SERIAL_OUT_ROOM); /* the rest is lost for the taker, not for the log */
    CHECK_EQ_INT(serial.total, 3 * CCI_SERIAL_OUT);
    put(CCI_SERIAL_IER, 2);
    CHECK_EQ_INT(raised, before);
    size_t n, all = 0, wrong = 0;
    while (all < CCI_SERIAL_OUT_ROOM && (n = cci_serial_take(&serial, buf, sizeof(buf))) != 0)
        for (size_t i = 0; i < n; i++, all++)
            wrong += buf[i] != (all < CCI_SERIAL_OUT ? (uint8_t)all : 'p');
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(raised, before + 1); /* it may send again */
    CHECK_EQ_INT(get(CCI_SERIAL_IIR) & 15, 2);
    cci_serial_close(&serial);
    CHECK_EQ_INT(cci_serial_take(&serial, buf, sizeof(buf)), 0);
    cci_serial_detach(&serial);
    put(CCI_SERIAL_DATA, 'x');
    cci_serial_free(&serial);
}

static void *take_all(void *arg)
{
    uint8_t buf[100];
    size_t n;
    while ((n = cci_serial_take(&serial, buf, sizeof(buf))) != 0)
        *(size_t *)arg += n;
    cci_serial_detach(&serial);
    return NULL;
}

/* A guest that writes anything to any register while somebody takes and somebody feeds. */
static void test_any_register_write(void)
{
    const struct cci_wait past = {1, NULL};
    size_t taken = 0, n;
    uint32_t x = 1;
    pthread_t t;
    begin();
    CHECK_EQ_INT(cci_serial_attach(&serial, NULL), CC_OK);
    CHECK(pthread_create(&t, NULL, take_all, &taken) == 0);
    for (unsigned i = 0; i < 300000; i++) {
        x = x * 1664525 + 1013904223;
        if (x >> 31)
            put(x >> 8 & 7, (uint8_t)(x >> 16));
        else
            (void)get(x >> 8 & 7);
        if (i % 50 == 0)
            (void)cci_serial_feed(&serial, (const uint8_t *)"input", 5, &n, &past, NULL);
    }
    cci_serial_close(&serial);
    CHECK(pthread_join(t, NULL) == 0);
    CHECK(taken > 0 && taken <= serial.total);
    CHECK(serial.in_n <= CCI_SERIAL_IN && serial.line_n < CCI_SERIAL_LINE);
    cci_serial_free(&serial);
}

int main(void)
{
    RUN(test_probe);
    RUN(test_loop);
    RUN(test_transmit_interrupt);
    RUN(test_lines);
    RUN(test_tail);
    RUN(test_what_the_guest_says_is_printable);
    RUN(test_receive);
    RUN(test_feeding_ends);
    RUN(test_a_full_transmitter);
    RUN(test_any_register_write);
    return check_done();
}
