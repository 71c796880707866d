/*
 * base/process.h - running another program; chosen once, here. process_linux.h is the reference for the contract.
 */
#ifndef CCI_BASE_PROCESS_H
#define CCI_BASE_PROCESS_H

#if defined(__linux__)
#include "process_linux.h"
#else
#error "cc.h: this platform has no base/process_*.h yet"
#endif

#endif
