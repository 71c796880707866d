/*
 * base/base.h - what every part starts from: the C headers, the public types, and a few macros.
 *
 * The implementation must compile after any other include and under plain -std=c11, where the libc headers
 * declare ISO C only. So nothing here or in any part asks for a feature macro: what the operating system
 * offers beyond ISO C is reached through base/os.h.
 */
#ifndef CCI_BASE_BASE_H
#define CCI_BASE_BASE_H

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../cc.h"

#define CCI_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CCI_MIN(a, b) ((a) < (b) ? (a) : (b))
#define CCI_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Round x up to a multiple of `to`, a power of two. The caller knows that it does not overflow. */
#define CCI_ALIGN_UP(x, to) (((x) + ((to)-1)) & ~((to)-1))

/* Checks the arguments of a printf-like function where the compiler can. MinGW's plain printf knows no %zu. */
#if defined(__MINGW32__)
#define CCI_PRINTF(format_index, args_index) __attribute__((format(gnu_printf, format_index, args_index)))
#define CCI_VSNPRINTF __mingw_vsnprintf
#elif defined(__GNUC__)
#define CCI_PRINTF(format_index, args_index) __attribute__((format(__printf__, format_index, args_index)))
#define CCI_VSNPRINTF vsnprintf
#else
#define CCI_PRINTF(format_index, args_index)
#define CCI_VSNPRINTF vsnprintf
#endif

#endif
