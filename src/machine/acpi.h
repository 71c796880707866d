/*
 * machine/acpi.h - the ACPI tables of an x86-64 guest: how a stock kernel learns of CPUs, devices and the off switch.
 *
 * Follows the ACPI specification 6.5. The platform is hardware-reduced (section 4.1): no fixed-feature hardware, no
 * power-management timer, no legacy devices; what is left of the fixed registers are the reset register and the two
 * sleep registers, each one port. The tables lie in the BIOS area from CCI_ACPI_BASE, which the memory map keeps from
 * the kernel:
 *
 *     RSDP (where the boot protocol points) -> XSDT -> FADT -> DSDT
 *                                                   -> MADT
 *
 * MADT: a local APIC for each CPU and one IOAPIC whose pins are the interrupt numbers 0 to 23.
 * DSDT: \_S5 (off), the serial port COM1 (PNP0501), and each virtio-mmio device as LNRO0005 with its window and line.
 */
#ifndef CCI_MACHINE_ACPI_H
#define CCI_MACHINE_ACPI_H

#include "../base/error.h"
#include "aml.h"
#include "bus.h"
#include "serial.h"

#define CCI_ACPI_BASE 0xe0000u
#define CCI_ACPI_LIMIT 0x100000u
#define CCI_ACPI_RESET_VECTOR 0xffff0u /* 16 bytes, the last below the limit: see boot_x86.h */
#define CCI_ACPI_IOAPIC 0xfec00000u
#define CCI_ACPI_LAPIC 0xfee00000u

/* The platform's own ports: sleep control, sleep status, reset. */
#define CCI_ACPI_PORT 0x600u
#define CCI_ACPI_PORTS 3u
#define CCI_ACPI_RESET_VALUE 1u
#define CCI_ACPI_S5 5u          /* the sleep type of "off" */
#define CCI_ACPI_SLEEP_GO 0x20u /* SLP_EN; the type is in bits 2 to 4 */

struct cci_acpi_device {
    uint32_t base; /* of its MMIO window */
    uint32_t gsi;  /* its interrupt line */
};

struct cci_acpi_config {
    unsigned cpus;
    bool serial;
    const struct cci_acpi_device *device;
    unsigned devices;
};

/* Offsets in the header that all tables but the RSDP share (section 5.2.6). */
#define CCI_ACPI_HEADER 36u
#define CCI_ACPI_AT_LENGTH 4u
#define CCI_ACPI_AT_CHECKSUM 9u

static void cci_acpi_checksum(uint8_t *table, size_t n, size_t at)
{
    uint8_t sum = 0;
    table[at] = 0;
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + table[i]);
    table[at] = (uint8_t)-sum;
}

/* Begins a table in b, which starts at its own 0 and is placed at CCI_ACPI_BASE later. Returns its offset. */
static size_t cci_acpi_begin(struct cci_buf *b, const char *signature, uint8_t revision)
{
    while (b->n % 16 && !b->failed)
        (void)cci_buf_add(b, NULL, 1);
    size_t start = b->n;
    uint8_t h[CCI_ACPI_HEADER] = {0};
    memcpy(h, signature, 4);
    h[8] = revision;
    memcpy(h + 10, "CC.H  CCMACHIN", 14); /* OEM, OEM's table */
    cci_put_le32(h + 24, 1);
    memcpy(h + 28, "CC.H", 4);
    cci_put_le32(h + 32, 1);
    (void)cci_buf_add(b, h, sizeof(h));
    return start;
}

static void cci_acpi_end(struct cci_buf *b, size_t start)
{
    if (b->failed)
        return;
    cci_put_le32(b->p + start + CCI_ACPI_AT_LENGTH, (uint32_t)(b->n - start));
    cci_acpi_checksum(b->p + start, b->n - start, CCI_ACPI_AT_CHECKSUM);
}

static void cci_acpi_dsdt_serial(struct cci_buf *b)
{
    uint8_t r[32];
    size_t dev = cci_aml_device(b, "COM1");
    cci_aml_name(b, "_HID");
    cci_aml_eisa(b, "PNP0501");
    cci_aml_name(b, "_UID");
    cci_aml_int(b, 0);
    cci_aml_name(b, "_CRS");
    size_t n = cci_aml_io(r, CCI_SERIAL_PORT, 8);
    n += cci_aml_interrupt(r + n, CCI_SERIAL_IRQ);
    cci_aml_resources(b, r, n);
    cci_aml_close(b, dev);
}

static void cci_acpi_dsdt_virtio(struct cci_buf *b, unsigned number, const struct cci_acpi_device *d)
{
    uint8_t r[32];
    const char name[5] = {'V', '0', (char)('0' + number / 10 % 10), (char)('0' + number % 10), '\0'};
    size_t dev = cci_aml_device(b, name);
    cci_aml_name(b, "_HID");
    cci_aml_string(b, "LNRO0005");
    cci_aml_name(b, "_UID");
    cci_aml_int(b, number);
    cci_aml_name(b, "_CCA"); /* its DMA is coherent */
    cci_aml_int(b, 1);
    cci_aml_name(b, "_CRS");
    size_t n = cci_aml_memory32(r, d->base, CCI_BUS_WINDOW);
    n += cci_aml_interrupt(r + n, d->gsi);
    cci_aml_resources(b, r, n);
    cci_aml_close(b, dev);
}

static size_t cci_acpi_dsdt(struct cci_buf *b, const struct cci_acpi_config *config)
{
    size_t start = cci_acpi_begin(b, "DSDT", 2);
    cci_aml_name(b, "_S5_");
    cci_aml_byte(b, CCI_AML_PACKAGE);
    size_t package = cci_aml_open(b);
    cci_aml_byte(b, 4);
    cci_aml_int(b, CCI_ACPI_S5);
    for (unsigned i = 0; i < 3; i++)
        cci_aml_int(b, 0);
    cci_aml_close(b, package);
    size_t scope = cci_aml_scope(b, "_SB_");
    if (config->serial)
        cci_acpi_dsdt_serial(b);
    for (unsigned i = 0; i < config->devices; i++)
        cci_acpi_dsdt_virtio(b, i, &config->device[i]);
    cci_aml_close(b, scope);
    cci_acpi_end(b, start);
    return start;
}

/* A port as a generic address (section 5.2.3.2). */
static void cci_acpi_port(uint8_t *p, uint16_t port)
{
    p[0] = 1; /* I/O space */
    p[1] = 8; /* bits */
    p[3] = 1; /* byte access */
    cci_put_le64(p + 4, port);
}

/* Section 5.2.9; offsets are its table 5.9's. */
static size_t cci_acpi_fadt(struct cci_buf *b, uint64_t dsdt)
{
    size_t start = cci_acpi_begin(b, "FACP", 6);
    uint8_t t[276] = {0}; /* by the offsets of the specification; the header is written already */
    cci_put_le32(t + 40, (uint32_t)dsdt);
    cci_put_le16(t + 109, 1u << 2 | 1u << 5); /* no VGA, no CMOS clock; also no 8042, no legacy */
    /* Flags: HLT works, the sleep and power buttons are not fixed hardware, reset register, hardware-reduced. */
    cci_put_le32(t + 112, 1u | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 20);
    cci_acpi_port(t + 116, CCI_ACPI_PORT + 2);
    t[128] = CCI_ACPI_RESET_VALUE;
    t[131] = 5; /* minor version */
    cci_put_le64(t + 140, dsdt);
    cci_acpi_port(t + 244, CCI_ACPI_PORT);
    cci_acpi_port(t + 256, CCI_ACPI_PORT + 1);
    memcpy(t + 268, "CC.H", 4); /* hypervisor vendor */
    (void)cci_buf_add(b, t + CCI_ACPI_HEADER, sizeof(t) - CCI_ACPI_HEADER);
    cci_acpi_end(b, start);
    return start;
}

/* Section 5.2.12. CPU numbers that fit are local APICs; from 255 they would have to be x2APICs. */
static size_t cci_acpi_madt(struct cci_buf *b, unsigned cpus)
{
    size_t start = cci_acpi_begin(b, "APIC", 5);
    uint8_t head[8] = {0};
    cci_put_le32(head, CCI_ACPI_LAPIC);
    (void)cci_buf_add(b, head, sizeof(head));
    for (unsigned i = 0; i < cpus; i++) {
        uint8_t cpu[8] = {0, 8, (uint8_t)i, (uint8_t)i, 1, 0, 0, 0}; /* enabled */
        uint8_t x2[16] = {9, 16};
        cci_put_le32(x2 + 4, i);
        x2[8] = 1;
        cci_put_le32(x2 + 12, i);
        (void)(i < 255 ? cci_buf_add(b, cpu, sizeof(cpu)) : cci_buf_add(b, x2, sizeof(x2)));
    }
    uint8_t ioapic[12] = {1, 12, 0};
    cci_put_le32(ioapic + 4, CCI_ACPI_IOAPIC);
    (void)cci_buf_add(b, ioapic, sizeof(ioapic));
    cci_acpi_end(b, start);
    return start;
}

/* Section 5.2.5.3, at the very start, so that a kernel that searches the BIOS area finds it too. */
static void cci_acpi_rsdp(uint8_t *p, uint64_t xsdt)
{
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, "CC.H  ", 6);
    p[15] = 2;
    cci_put_le32(p + 20, 36);
    cci_put_le64(p + 24, xsdt);
    cci_acpi_checksum(p, 20, 8);
    cci_acpi_checksum(p, 36, 32);
}

/* Appends all tables to an empty buffer, as they are to lie at CCI_ACPI_BASE; the RSDP is first. */
static cc_error_code cci_acpi_build(struct cci_buf *b, const struct cci_acpi_config *config, cc_error *err)
{
    (void)cci_buf_add(b, NULL, 36);
    size_t dsdt = cci_acpi_dsdt(b, config);
    size_t fadt = cci_acpi_fadt(b, CCI_ACPI_BASE + dsdt);
    size_t madt = cci_acpi_madt(b, config->cpus);
    size_t xsdt = cci_acpi_begin(b, "XSDT", 1);
    uint8_t entries[16];
    cci_put_le64(entries, CCI_ACPI_BASE + fadt);
    cci_put_le64(entries + 8, CCI_ACPI_BASE + madt);
    (void)cci_buf_add(b, entries, sizeof(entries));
    cci_acpi_end(b, xsdt);
    if (b->failed)
        return cci_fail_nomem(err);
    if (b->n > CCI_ACPI_RESET_VECTOR - CCI_ACPI_BASE)
        return cci_fail(err, CC_ERR_INVALID_ARGUMENT, NULL, "too many CPUs and devices for the ACPI tables");
    cci_acpi_rsdp(b->p, CCI_ACPI_BASE + xsdt);
    return CC_OK;
}

#endif
