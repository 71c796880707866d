/*
 * hv/irq.h - an interrupt line, as a device sees it.
 *
 * A device knows nothing of the hypervisor that delivers its interrupts: it is given one of these. Lines are
 * edge-triggered: each raise is one edge, and may be made from any thread.
 */
#ifndef CCI_HV_IRQ_H
#define CCI_HV_IRQ_H

struct cci_irq {
    void (*raise)(void *ctx);
    void *ctx;
};

static void cci_irq_raise(const struct cci_irq *irq)
{
    irq->raise(irq->ctx);
}

#endif
