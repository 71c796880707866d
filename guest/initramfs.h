/*
 * The initramfs for guests of this host's architecture; chosen once, here.
 */
#ifndef CCI_GUEST_INITRAMFS_H
#define CCI_GUEST_INITRAMFS_H

#if defined(__aarch64__)
#include "initramfs_aarch64.h"
#define CCI_INITRAMFS cci_initramfs_aarch64
#else
#include "initramfs_x86_64.h"
#define CCI_INITRAMFS cci_initramfs_x86_64
#endif

#endif
