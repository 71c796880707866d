/*
 * machine/bus.h - who answers an access of the guest to a port or to memory that is not RAM.
 *
 * Two tables, filled before the CPUs run and never changed after, so that lookups need no lock. Device windows all have
 * the same size and lie in a row from CCI_BUS_MMIO_BASE, so the window's number is a shift away. What nobody answers
 * reads as all ones and is ignored when written, as on a real bus.
 *
 * A device's functions run on the thread of whichever CPU made the access, several at once for several CPUs: each
 * device locks for itself.
 */
#ifndef CCI_MACHINE_BUS_H
#define CCI_MACHINE_BUS_H

#include "../base/base.h"

#define CCI_BUS_MMIO_BASE 0xd0000000u
#define CCI_BUS_WINDOW 0x1000u
#define CCI_BUS_MAX_WINDOWS 32u
#define CCI_BUS_MAX_PORTS 8u

/* size is 1 to 8, and not always a power of two; data has as many bytes, little-endian; offset + size may pass the
 * window's end. */
struct cci_bus_ops {
    void (*read)(void *ctx, uint64_t offset, unsigned size, uint8_t *data);
    void (*write)(void *ctx, uint64_t offset, unsigned size, const uint8_t *data);
};

struct cci_bus_dev {
    const struct cci_bus_ops *ops; /* NULL: nobody here */
    void *ctx;
};

struct cci_bus_port {
    uint16_t first, count;
    struct cci_bus_dev dev;
};

struct cci_bus {
    struct cci_bus_dev window[CCI_BUS_MAX_WINDOWS];
    struct cci_bus_port port[CCI_BUS_MAX_PORTS];
    unsigned ports;
};

static bool cci_bus_add_ports(struct cci_bus *bus, uint16_t first, uint16_t count, const struct cci_bus_ops *ops,
                              void *ctx)
{
    if (bus->ports == CCI_BUS_MAX_PORTS)
        return false;
    bus->port[bus->ports++] = (struct cci_bus_port){first, count, {ops, ctx}};
    return true;
}

static const struct cci_bus_dev *cci_bus_find_mmio(const struct cci_bus *bus, uint64_t addr)
{
    uint64_t n = (addr - CCI_BUS_MMIO_BASE) / CCI_BUS_WINDOW;
    if (addr < CCI_BUS_MMIO_BASE || n >= CCI_BUS_MAX_WINDOWS || !bus->window[n].ops)
        return NULL;
    return &bus->window[n];
}

/* One access to memory. */
static void cci_bus_mmio(const struct cci_bus *bus, bool is_write, uint64_t addr, unsigned size, uint8_t *data)
{
    const struct cci_bus_dev *dev = cci_bus_find_mmio(bus, addr);
    if (dev && is_write)
        dev->ops->write(dev->ctx, (addr - CCI_BUS_MMIO_BASE) % CCI_BUS_WINDOW, size, data);
    else if (dev)
        dev->ops->read(dev->ctx, (addr - CCI_BUS_MMIO_BASE) % CCI_BUS_WINDOW, size, data);
    else if (!is_write)
        memset(data, 0xff, size);
}

/* `count` accesses to one port, as a string instruction makes them. */
static void cci_bus_pio(const struct cci_bus *bus, bool is_write, uint16_t port, unsigned size, unsigned count,
                        uint8_t *data)
{
    const struct cci_bus_port *found = NULL;
    for (unsigned i = 0; i < bus->ports && !found; i++)
        if (port >= bus->port[i].first && port - bus->port[i].first < bus->port[i].count)
            found = &bus->port[i];
    for (unsigned i = 0; i < count; i++, data += size) {
        if (found && is_write)
            found->dev.ops->write(found->dev.ctx, (uint64_t)(port - found->first), size, data);
        else if (found)
            found->dev.ops->read(found->dev.ctx, (uint64_t)(port - found->first), size, data);
        else if (!is_write)
            memset(data, 0xff, size);
    }
}

#endif
