/*
 * base/loop.h - the I/O thread of an instance: one thread around one poller.
 *
 * Descriptors (doorbells of virtqueues, sockets) are registered with a function that the thread calls when they are
 * ready. Everything of a source is touched on the loop's thread: cci_loop_call runs a function there and waits for
 * it, which is how other threads add and remove sources. Level-triggered unless CCI_LOOP_EDGE is asked for.
 *
 * A removed source is not called again, not even for an event that was fetched in the same batch.
 */
#ifndef CCI_BASE_LOOP_H
#define CCI_BASE_LOOP_H

#if defined(__linux__)
#include "loop_linux.h"
#else
#error "cc.h: this platform has no base/loop_*.h yet"
#endif

#endif
