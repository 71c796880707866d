/*
 * base/os.h - the operating system, as far as every part needs it; chosen once, here.
 *
 * Each platform is whole files that implement the same functions, all named cci_os_*. Those of Linux are the
 * reference: the comment above each function there is the contract. Failures are returned as negative error
 * numbers (-ENOENT), never through errno.
 */
#ifndef CCI_BASE_OS_H
#define CCI_BASE_OS_H

#if defined(__linux__)
#include "os_linux.h"
#include "os_file_linux.h"
#include "os_share_linux.h"
#include "os_fd_linux.h"
#include "os_poll_linux.h"
#include "os_tree_linux.h"
#else
#error "cc.h: this platform has no base/os_*.h yet"
#endif

#endif
