/*
 * hv/mem.h - the guest's memory as the host sees it.
 *
 * Guest-physical memory is one or two ranges of RAM: below the hole that ends at 4 GiB, where devices live, and from
 * 4 GiB on (on arm64: one range from 1 GiB). Both are pieces of one host mapping. A guest-physical range is only ever
 * turned into a host pointer through cci_gmem_at, which checks that all of it is RAM in one piece.
 *
 * The guest owns this memory and may change any byte at any time from another CPU: read each field once into a local,
 * validate the copy, use the copy. The accessors of ring indices order their accesses as virtio 1.2 section 2.7
 * requires (they are shared with CPUs of the guest).
 */
#ifndef CCI_HV_MEM_H
#define CCI_HV_MEM_H

#include "../base/bytes.h"
#include "../base/mem.h"

struct cci_gmem_range {
    uint64_t gpa;  /* guest-physical start */
    uint64_t size; /* bytes */
    uint8_t *host; /* where it lies in this process */
};

struct cci_gmem {
    struct cci_gmem_range range[2];
    unsigned count;
};

/* Host pointer for n bytes of guest-physical memory at gpa; NULL when any of it is not RAM, or when n is 0. */
static void *cci_gmem_at(const struct cci_gmem *m, uint64_t gpa, uint64_t n)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct cci_gmem_range *r = &m->range[i];
        if (gpa >= r->gpa && gpa - r->gpa < r->size)
            return n && n <= r->size - (gpa - r->gpa) ? r->host + (gpa - r->gpa) : NULL;
    }
    return NULL;
}

/* 16-bit ring fields: an atomic access each, because a CPU of the guest is at the other end. The guest is
 * little-endian, as is every host that this library runs on. p is 2-byte aligned: the virtqueue checks its addresses.
 */
static uint16_t cci_gmem_load16(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

static void cci_gmem_store16(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}

/* Between publishing to the guest and asking whether it wants to be told (and the reverse). */
static void cci_gmem_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
