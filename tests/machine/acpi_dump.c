/* Writes the tables of a machine with argv[2] CPUs and argv[3] devices to files in directory argv[1], for iasl. */
#include <stdio.h>
#include <stdlib.h>

#include "../../src/machine/acpi.h"

int main(int argc, char **argv)
{
    struct cci_acpi_device device[CCI_BUS_MAX_WINDOWS];
    struct cci_buf b = {NULL, 0, 0, false};
    if (argc != 4)
        return 2;
    unsigned devices = (unsigned)atoi(argv[3]);
    for (unsigned i = 0; i < devices && i < CCI_BUS_MAX_WINDOWS; i++)
        device[i] = (struct cci_acpi_device){CCI_BUS_MMIO_BASE + i * CCI_BUS_WINDOW, 5 + i};
    const struct cci_acpi_config config = {(unsigned)atoi(argv[2]), true, device, devices};
    if (cci_acpi_build(&b, &config, NULL) != CC_OK)
        return 1;
    uint64_t xsdt = cci_le64(b.p + 24) - CCI_ACPI_BASE;
    uint64_t at[4] = {xsdt, cci_le64(b.p + xsdt + 36) - CCI_ACPI_BASE, cci_le64(b.p + xsdt + 44) - CCI_ACPI_BASE, 0};
    at[3] = cci_le64(b.p + at[1] + 140) - CCI_ACPI_BASE; /* the DSDT, from the FADT */
    for (unsigned i = 0; i < 4; i++) {
        char path[600];
        (void)snprintf(path, sizeof(path), "%s/%.4s.dat", argv[1], (const char *)b.p + at[i]);
        FILE *f = fopen(path, "wb");
        size_t n = cci_le32(b.p + at[i] + 4);
        if (!f || fwrite(b.p + at[i], 1, n, f) != n || fclose(f) != 0)
            return 1;
    }
    cci_buf_free(&b);
    return 0;
}
