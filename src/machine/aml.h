/*
 * machine/aml.h - a writer of ACPI Machine Language, for the few forms that the DSDT needs.
 *
 * Follows the ACPI specification 6.5, chapter 20: a package length is one to four bytes and counts itself, so a form is
 * written with room for two, and closed by filling the length in: one byte holds up to 63 and two up to 4095, and
 * nothing here is longer (the writer fails else). All forms append to one buffer.
 */
#ifndef CCI_MACHINE_AML_H
#define CCI_MACHINE_AML_H

#include "../base/bytes.h"
#include "../base/mem.h"

enum {
    CCI_AML_ZERO = 0x00,
    CCI_AML_ONE = 0x01,
    CCI_AML_NAME = 0x08,
    CCI_AML_BYTE = 0x0a,
    CCI_AML_DWORD = 0x0c,
    CCI_AML_STRING = 0x0d,
    CCI_AML_SCOPE = 0x10,
    CCI_AML_BUFFER = 0x11,
    CCI_AML_PACKAGE = 0x12,
    CCI_AML_EXT = 0x5b,
    CCI_AML_EXT_DEVICE = 0x82
};

static void cci_aml_byte(struct cci_buf *b, unsigned v)
{
    uint8_t byte = (uint8_t)v;
    (void)cci_buf_add(b, &byte, 1);
}

static void cci_aml_dword(struct cci_buf *b, uint32_t v)
{
    uint8_t p[4];
    cci_put_le32(p, v);
    (void)cci_buf_add(b, p, 4);
}

/* Opens a form whose length is not yet known; give what it returns to cci_aml_close. */
static size_t cci_aml_open(struct cci_buf *b)
{
    (void)cci_buf_add(b, NULL, 2);
    return b->n;
}

static void cci_aml_close(struct cci_buf *b, size_t start)
{
    size_t length = b->n - start + 2; /* with its own two bytes */
    if (!b->failed && length - 1 <= 0x3f) {
        memmove(b->p + start - 1, b->p + start, b->n - start); /* one is enough */
        b->p[start - 2] = (uint8_t)(length - 1);
        b->n--;
        return;
    }
    if (b->failed || length > 0xfff) {
        b->failed = true;
        return;
    }
    b->p[start - 2] = (uint8_t)(0x40 | (length & 15)); /* one more byte follows; the low four bits */
    b->p[start - 1] = (uint8_t)(length >> 4);
}

/* An integer in its shortest form. */
static void cci_aml_int(struct cci_buf *b, uint32_t v)
{
    if (v <= 1) {
        cci_aml_byte(b, v);
    } else if (v <= 0xff) {
        cci_aml_byte(b, CCI_AML_BYTE);
        cci_aml_byte(b, v);
    } else {
        cci_aml_byte(b, CCI_AML_DWORD);
        cci_aml_dword(b, v);
    }
}

static void cci_aml_string(struct cci_buf *b, const char *s)
{
    cci_aml_byte(b, CCI_AML_STRING);
    (void)cci_buf_add(b, s, strlen(s) + 1);
}

/* Name (NAME, ...): the value follows. The name has four characters, or five with a leading backslash. */
static void cci_aml_name(struct cci_buf *b, const char *name)
{
    cci_aml_byte(b, CCI_AML_NAME);
    (void)cci_buf_str(b, name);
}

static size_t cci_aml_scope(struct cci_buf *b, const char *name)
{
    cci_aml_byte(b, CCI_AML_SCOPE);
    size_t start = cci_aml_open(b);
    (void)cci_buf_str(b, name);
    return start;
}

static size_t cci_aml_device(struct cci_buf *b, const char *name)
{
    cci_aml_byte(b, CCI_AML_EXT);
    cci_aml_byte(b, CCI_AML_EXT_DEVICE);
    size_t start = cci_aml_open(b);
    (void)cci_buf_str(b, name);
    return start;
}

/* A compressed EISA identifier such as "PNP0501" (section 19.3.4): three letters of five bits, four hex digits. */
static void cci_aml_eisa(struct cci_buf *b, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - 0x40) << 10 | (uint32_t)(id[1] - 0x40) << 5 | (uint32_t)(id[2] - 0x40);
    for (unsigned i = 3; i < 7; i++)
        v = v << 4 | (uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
    cci_aml_byte(b, CCI_AML_DWORD);
    cci_aml_byte(b, v >> 24); /* big-endian */
    cci_aml_byte(b, v >> 16);
    cci_aml_byte(b, v >> 8);
    cci_aml_byte(b, v);
}

/* A resource template around `n` bytes of descriptors; the end tag with no checksum is added (section 6.4.2.9). */
static void cci_aml_resources(struct cci_buf *b, const uint8_t *descriptors, size_t n)
{
    cci_aml_byte(b, CCI_AML_BUFFER);
    size_t start = cci_aml_open(b);
    cci_aml_int(b, (uint32_t)n + 2);
    (void)cci_buf_add(b, descriptors, n);
    cci_aml_byte(b, 0x79);
    cci_aml_byte(b, 0);
    cci_aml_close(b, start);
}

/* Memory32Fixed (ReadWrite, base, size): section 6.4.3.4. Returns the bytes written. */
static size_t cci_aml_memory32(uint8_t *p, uint32_t base, uint32_t size)
{
    p[0] = 0x86;
    cci_put_le16(p + 1, 9);
    p[3] = 1;
    cci_put_le32(p + 4, base);
    cci_put_le32(p + 8, size);
    return 12;
}

/* Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {gsi}: section 6.4.3.6. */
static size_t cci_aml_interrupt(uint8_t *p, uint32_t gsi)
{
    p[0] = 0x89;
    cci_put_le16(p + 1, 6);
    p[3] = 3;
    p[4] = 1;
    cci_put_le32(p + 5, gsi);
    return 9;
}

/* IO (Decode16, first, first, 0, count): section 6.4.2.5. */
static size_t cci_aml_io(uint8_t *p, uint16_t first, uint8_t count)
{
    p[0] = 0x47;
    p[1] = 1;
    cci_put_le16(p + 2, first);
    cci_put_le16(p + 4, first);
    p[6] = 0;
    p[7] = count;
    return 8;
}

#endif
