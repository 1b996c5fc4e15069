/* SPDX-License-Identifier: MIT */
/*
 * text_internal.h - what the text engine does for the rest of the library.
 * None of these may be called from signal handlers unless it says so.
 */
#ifndef SHUNT_TEXT_INTERNAL_H
#define SHUNT_TEXT_INTERNAL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Reserves size bytes (whole pages) of r-x memory from which every address of
 * [lo, hi) can be reached with a 32-bit relative branch, and the other way
 * round: below the object where there is room, so that the heap of a program
 * keeps its way up. Never freed. Zero-filled; shunt_text_write_private() fills
 * it. 0, -ENOMEM: no room within reach, -EINVAL.
 */
int shunt_text_alloc_near(uintptr_t lo, uintptr_t hi, size_t size, void **out);

/*
 * Writes to r-x memory of our own that nothing executes yet; other bytes of
 * its pages may be in use. 0 or what the system said to all ways of writing.
 */
int shunt_text_write_private(void *dst, const void *src, size_t n);

/* Is the caller the only thread? False where that cannot be told. */
bool shunt_text_single_threaded(void);

/*
 * Has the batch lock taken over fork(). Lock order is the reverse of the order
 * of registration: call this before registering locks that are held while
 * batches are applied. Once is enough, more does nothing; the first batch does
 * it otherwise.
 */
void shunt_text_at_fork(void);

/*
 * sigaction() for SIGTRAP as the program should see it, once our handler may be
 * installed: its action is kept beside ours. Whoever interposes sigaction()
 * and its kin calls this for SIGTRAP; -EINVAL for any other signal. 0 or
 * -errno. Async-signal-safe.
 */
int shunt_text_sigaction(int sig, const struct sigaction *act, struct sigaction *old);

#endif
