/* SPDX-License-Identifier: MIT */
/*
 * displace.h - making room for a jump where a compiler left none: the first
 * instructions of a function are executed elsewhere.
 *
 * A displaced function's copy lies in memory near its object and is never changed or
 * freed, like the slots (arch/x86_64/trampoline.h). It is what a slot takes for the
 * function's body:
 *
 *	-8	the function's address
 *	 0	its first instructions, moved (probe/insn.h)
 *		a jump to what follows them in the function
 *
 * Whether instructions can be displaced is told by the object's file, whatever has been
 * written to its memory since. What cannot be told is not done.
 */
#ifndef SHUNT_TRACE_DISPLACE_H
#define SHUNT_TRACE_DISPLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "object/object.h"

/* The longest that is displaced: four bytes and one more instruction. */
#define SHUNT_DISPLACED_MAX 19

enum shunt_displaced_state {
	SHUNT_DISPLACED_UNKNOWN, /* nobody has looked yet */
	SHUNT_DISPLACED_READY,
	SHUNT_DISPLACED_LEFT_OUT,
};

/* What is known of one function of a part (object.h). Final once it is not UNKNOWN. */
struct shunt_displaced {
	uintptr_t body;	 /* its copy; 0: it has none */
	const char *why; /* LEFT_OUT: a sentence; static */
	uint8_t state;	 /* enum shunt_displaced_state; written last */
	uint8_t first;	 /* bytes of the first instruction */
	uint8_t span;	 /* bytes of all that are displaced */
	uint8_t held;	 /* the same, or 5: with padding behind a shorter function */
	uint8_t old[SHUNT_DISPLACED_MAX];
};

/*
 * Whether functions of an object may be displaced at all: not those of an object that we are
 * in, nor of what we decode with.
 */
bool shunt_displace_may(const struct shunt_object *obj);

/*
 * Loads what shunt_displace() needs. With no lock held. 0, or -ENOTSUP and a sentence in
 * *why.
 */
int shunt_displace_init(const char **why);

/*
 * Looks at n functions of a part, of which `index` are ascending and UNKNOWN, and makes
 * copies of those that can be displaced. `all` has an entry for each function of the
 * part. 0, or -ENOMEM, or -errno of writing: some are still unknown. With the tracer's lock; allocates and
 * reads files.
 */
int shunt_displace(const struct shunt_object *part, struct shunt_displaced *all,
	const uint32_t *index, uint32_t n);

/* --- for those who change code as well: tracer.c ------------------------------------ */

/* Whether the tracer's jump over a function's start holds any byte of [lo, hi) just now. */
bool shunt_displaced_within(uintptr_t lo, uintptr_t hi);

/* Puts the program's own bytes there into a copy of [from, from + n). */
void shunt_displaced_original(uintptr_t from, uint8_t *copy, size_t n);

/* Bytes of memory that copies are in. */
size_t shunt_displace_memory(void);

#endif
